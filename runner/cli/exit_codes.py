"""The one place where errors become a line on standard error and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from typer.exceptions import TyperException

from analysis.domain.errors import CaptureError, DsocrError, InterruptedRunError
from runner.cli.output import say

__all__ = ["run"]

_PROGRAM: Final = "dsocr-profile"
_OF_THE_EXTRA: Final = frozenset(
    {"PIL", "filelock", "nvtx", "psutil", "pynvml", "pypdfium2", "safetensors", "torch", "transformers"}
)
"""Modules that ``dsocr-profiler[runner]`` brings and ``dsocr-profiler`` does not."""


def run(app: Callable[..., Any], argv: list[str]) -> NoReturn:
    """Run a command and end the process. What no user can cause keeps its traceback: it is a bug of ours."""
    try:
        code = app(args=argv, prog_name=_PROGRAM, standalone_mode=False)
    except DsocrError as error:
        _fail(str(error), error.exit_code)
    except TyperException as error:
        if error.format_message():
            _fail(_usage(error), error.exit_code)
        sys.exit(error.exit_code)  # without arguments: the help was printed
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _OF_THE_EXTRA:
            raise
        _fail(
            f"{error.name} is not installed; the analysis alone is: pip install 'dsocr-profiler[runner]'",
            CaptureError.exit_code,
        )
    except KeyboardInterrupt:
        sys.exit(InterruptedRunError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: TyperException) -> str:
    """What is wrong with the options, and which help says more."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else _PROGRAM
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    return f"{message} (see {command} --help)"


def _fail(message: str, code: int) -> NoReturn:
    # Names and paths are the user's, words of a log another program's: no control character reaches the terminal.
    say("error: " + "".join(character if character.isprintable() else " " for character in message))
    sys.exit(code)
