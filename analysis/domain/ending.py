"""How both commands end: the one place where errors become a line on standard error and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from types import FrameType
from typing import Any, Final, NoReturn

from analysis.domain.errors import DsocrError, InterruptedRunError, RequestError
from analysis.domain.system_errors import reason_of

__all__ = ["end_at_once", "end_with", "speak_utf8"]

_READER_GONE: Final = 141
"""What a shell reports for a program that SIGPIPE ended."""
_INTERRUPTED: Final = InterruptedRunError.exit_code


def end_at_once(program: str) -> None:
    """End at once on Ctrl-C and SIGTERM, until `end_with` takes over: while modules are imported nothing is to be kept.

    An exception there would show where in which library the import was, or be taken by it for a module that is missing.

    Args:
        program: name of the command.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        os.write(2, f"{program}: interrupted\n".encode())
        os._exit(_INTERRUPTED)

    _on_signals(leave)


def end_with(
    command: Callable[[], Any],
    program: str,
    show: Callable[[str], None],
    *,
    extras: Callable[[ModuleNotFoundError], DsocrError | None] = lambda error: None,
) -> NoReturn:
    """Run a command line and end the process. What no user can cause keeps its traceback: it is a bug of ours.

    Ctrl-C and SIGTERM both end it in order, so that what is half written is taken away.

    Args:
        command: the command line, parsed and carried out by typer; its result is the exit code.
        program: name of the command.
        show: takes the error's words, which are one line.
        extras: says of a module that is not installed how to get it; None: it is one that must be there.
    """
    from typer.exceptions import TyperException

    own = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:  # a worker forked from us: its end is for this process to see to
            os._exit(_INTERRUPTED)
        raise KeyboardInterrupt

    speak_utf8()
    _on_signals(interrupt)
    try:
        code = command()
        if code == _INTERRUPTED:  # typer has caught the KeyboardInterrupt
            raise KeyboardInterrupt
        sys.stdout.flush()  # here and not at the very end, where a full disk under it could not be told any more
    except DsocrError as error:
        show(str(error))
        _leave(error.exit_code)
    except TyperException as error:
        if error.format_message():
            show(_usage(error, program))
        _leave(error.exit_code)  # without words: the help was printed
    except ModuleNotFoundError as error:
        told = extras(error)
        if told is None:
            raise
        show(str(told))
        _leave(told.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is left to say, and closing must not say it either.
        _leave(_READER_GONE)
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        _leave(_READER_GONE)  # typer has caught it, and says 1
    except OSError as error:
        # Every place that can say more than the system does has said it: this is a disk that is full or a folder that has
        # gone under a place that cannot.
        where = error.filename if error.filename is not None else "standard output"
        show(f"{os.fsdecode(where) if isinstance(where, str | bytes) else where}: {reason_of(error)}")
        _leave(RequestError.exit_code)
    except KeyboardInterrupt:
        end_at_once(program)  # whoever presses it again does not want to wait for what is being put away
        show("interrupted")
        _leave(_INTERRUPTED)
    _leave(code if isinstance(code, int) else 0)


def speak_utf8() -> None:
    """Write UTF-8 into files and pipes whatever the locale; a terminal keeps its encoding, and never fails on a name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


def _on_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    if threading.current_thread() is not threading.main_thread():  # only the main one may, as where a notebook calls us
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        # Started in the background of a shell without job control, or by nohup: what is ignored stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _leave(code: int) -> NoReturn:
    """End. What still waits in a stream is written, or, where nobody can take it, thrown away without a word."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(AttributeError, OSError, ValueError):  # a stream of a test, or one that is closed
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _usage(error: Any, program: str) -> str:
    """What is wrong with the options, and which help says more."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else program
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    return f"{message} (see {path} --help)"
