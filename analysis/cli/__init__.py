"""``dsocr-analyze``: one file per command. Heavy modules are imported where they are used, so that --help is quick."""

from analysis.cli.app import app, main

__all__ = ["app", "main"]
