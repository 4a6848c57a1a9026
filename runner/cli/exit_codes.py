"""Errors of the commands as a line on standard error and an exit code: see `analysis.domain.ending`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

from analysis.domain.arguments import require_named_out
from analysis.domain.ending import end_with
from analysis.domain.errors import CaptureError
from analysis.domain.names import LONGEST_ERROR
from runner.cli.output import say

__all__ = ["run"]

_PROGRAM: Final = "dsocr-profile"
_OF_THE_EXTRA: Final = frozenset(
    {"PIL", "nvtx", "platformdirs", "psutil", "pynvml", "pypdfium2", "safetensors", "torch", "transformers"}
)
"""Modules that ``dsocr-profiler[runner]`` brings and ``dsocr-profiler`` does not."""


def run(app: Callable[..., Any], argv: list[str]) -> NoReturn:
    """Run a command and end the process."""
    end_with(
        lambda: _called(app, argv),
        _PROGRAM,
        _show,
        extras=_what_the_extra_brings,
    )


def _called(app: Callable[..., Any], argv: list[str]) -> Any:
    require_named_out(argv)
    return app(args=argv, prog_name=_PROGRAM, standalone_mode=False)


def _what_the_extra_brings(error: ModuleNotFoundError) -> CaptureError | None:
    if (error.name or "").split(".")[0] not in _OF_THE_EXTRA:
        return None
    return CaptureError(f"{error.name} is not installed; the analysis alone is: pip install 'dsocr-profiler[runner]'")


def _show(message: str) -> None:
    say(f"error: {message}", LONGEST_ERROR)
