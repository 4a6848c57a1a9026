"""Ways to record a run."""
