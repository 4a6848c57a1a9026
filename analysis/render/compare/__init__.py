"""How a comparison looks: page, Markdown and terminal of one record."""
