"""Errors of the commands as a line on standard error and an exit code: see `analysis.domain.ending`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from analysis.domain.arguments import require_named_out
from analysis.domain.ending import end_with
from analysis.domain.names import LONGEST_ERROR, one_line
from analysis.domain.redaction import redacted

__all__ = ["run"]

_PROGRAM: Final = "dsocr-analyze"


def run(app: Callable[..., Any]) -> NoReturn:
    """Run the commands and end the process."""
    end_with(lambda: _called(app), _PROGRAM, _show)


def _called(app: Callable[..., Any]) -> Any:
    require_named_out(sys.argv[1:])
    return app(prog_name=_PROGRAM, standalone_mode=False)


def _show(message: str) -> None:
    sys.stderr.write(f"{_PROGRAM}: error: {one_line(redacted(message), LONGEST_ERROR)}\n")
