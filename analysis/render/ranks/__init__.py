"""The combined report of several ranks: terminal, Markdown, page and JSON of one record."""
