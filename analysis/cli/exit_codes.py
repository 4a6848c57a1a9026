"""The one place where errors become a line on standard error and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from typer.exceptions import TyperException

from analysis.domain.errors import DsocrError

__all__ = ["run"]

_PROGRAM: Final = "dsocr-analyze"
_READER_GONE: Final = 141
"""What a shell reports for a program that SIGPIPE ended."""
_INTERRUPTED: Final = 130


def run(app: Callable[..., Any]) -> NoReturn:
    """Run the commands and end the process. What is no error of the user's keeps its traceback: it is a bug of ours."""
    try:
        code = app(prog_name=_PROGRAM, standalone_mode=False)
    except DsocrError as error:
        _fail(str(error), error.exit_code)
    except TyperException as error:
        if error.format_message():
            _fail(_usage(error), error.exit_code)
        sys.exit(error.exit_code)  # a command without arguments has printed its help
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is left to say, and closing must not say it either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_READER_GONE)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: TyperException) -> str:
    """What is wrong with the options, and which help says more."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else _PROGRAM
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    return f"{message} (see {command} --help)"


def _fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"{_PROGRAM}: error: {_one_line(message)}\n")
    sys.exit(code)


def _one_line(text: str) -> str:
    """Names come from the file: no line breaks and no control characters reach the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
