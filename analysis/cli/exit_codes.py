"""Errors of the commands as a line on standard error and an exit code: see `analysis.domain.ending`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from analysis.domain.ending import end_with

__all__ = ["run"]

_PROGRAM: Final = "dsocr-analyze"


def run(app: Callable[..., Any]) -> NoReturn:
    """Run the commands and end the process."""
    end_with(lambda: app(prog_name=_PROGRAM, standalone_mode=False), _PROGRAM, _show)


def _show(message: str) -> None:
    sys.stderr.write(f"{_PROGRAM}: error: {_one_line(message)}\n")


def _one_line(text: str) -> str:
    """Names come from the file: no line breaks and no control characters reach the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
