"""What is shown, once for every format: tables, columns, definitions, sentences."""
