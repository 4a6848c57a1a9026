"""``dsocr-analyze``: one file per command. Heavy modules are imported where they are used, so that --help is quick."""

from typing import NoReturn

from analysis.domain.ending import begin

__all__ = ["main"]


def main() -> NoReturn:
    """Entry point. Imports the commands itself, so that Ctrl-C meanwhile is no traceback, and streams are there."""
    begin("dsocr-analyze")
    from analysis.cli.app import main as run

    run()
