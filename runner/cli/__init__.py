"""``dsocr-profile``: one file per command."""

from runner.cli.app import app, main

__all__ = ["app", "main"]
