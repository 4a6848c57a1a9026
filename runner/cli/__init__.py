"""``dsocr-profile``: one file per command."""

from collections.abc import Sequence
from typing import NoReturn

from analysis.domain.ending import begin

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point. Imports the commands itself, so that Ctrl-C meanwhile is no traceback, and streams are there."""
    begin("dsocr-profile")
    from runner.cli.app import main as run

    run(argv)
