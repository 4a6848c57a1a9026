"""``dsocr-profile``: one file per command."""

from collections.abc import Sequence
from typing import NoReturn

from analysis.domain.ending import end_at_once

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point. Imports the commands itself, so that Ctrl-C meanwhile is no traceback."""
    end_at_once("dsocr-profile")
    from runner.cli.app import main as run

    run(argv)
