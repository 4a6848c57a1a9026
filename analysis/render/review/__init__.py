"""The kernel review as a page, as Markdown, as JSON and as a table of counters."""
