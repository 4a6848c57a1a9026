"""The report for people and programs: what is shown (``spec``), and one file per format that shows it."""
