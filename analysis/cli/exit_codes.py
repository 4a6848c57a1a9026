"""Errors of the commands as a line on standard error and an exit code: see `analysis.domain.ending`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from analysis.domain.ending import end_with
from analysis.domain.names import one_line
from analysis.domain.redaction import redacted

__all__ = ["run"]

_PROGRAM: Final = "dsocr-analyze"


def run(app: Callable[..., Any]) -> NoReturn:
    """Run the commands and end the process."""
    end_with(lambda: app(prog_name=_PROGRAM, standalone_mode=False), _PROGRAM, _show)


def _show(message: str) -> None:
    sys.stderr.write(f"{_PROGRAM}: error: {one_line(redacted(message))}\n")
