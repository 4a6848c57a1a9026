"""A sweep as page, Markdown, terminal text and tables."""
