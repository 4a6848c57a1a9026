"""How both commands end: the one place where errors become a line on standard error and an exit code."""

from __future__ import annotations

import atexit
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final, NoReturn

from analysis.domain.ended import interrupted_by
from analysis.domain.errors import DsocrError, InterruptedRunError, RequestError
from analysis.domain.standard_streams import bound_stated_sizes, open_standard_streams, speak_utf8
from analysis.domain.system_errors import reason_of

__all__ = ["begin", "end_with"]

_READER_GONE: Final = 141
"""What a shell reports for a program that SIGPIPE ended."""
_INTERRUPTED: Final = InterruptedRunError.exit_code
_ENDINGS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Ctrl-C and its like: asked to end by `kill`, by a terminal that was closed, and by Ctrl-\\."""
_PUT_AWAY_S: Final = 2.0
"""A second Ctrl-C so soon after the first changes nothing: what is half written is being taken away."""
_AGAIN_S: Final = 0.05
"""So much later a signal that Python has swallowed is sent again: the destructor that it met is over then."""


def begin(program: str) -> None:
    """Do what comes before everything else, imports included: see `open_standard_streams`, and `_end_at_once`.

    Args:
        program: name of the command.
    """
    open_standard_streams()
    bound_stated_sizes()
    _end_at_once(program)


def _end_at_once(program: str) -> None:
    """End at once on Ctrl-C and its like, until `end_with` takes over: while modules are imported nothing is to be kept.

    An exception there would show where in which library the import was, or be taken by it for a module that is missing.

    Args:
        program: name of the command.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):  # nobody can read it, which is no reason to stay
            os.write(2, f"{program}: {interrupted_by(number)}\n".encode())
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

    Ctrl-C and its like end it in order, so that what is half written is taken away. They are heard at every moment, also
    while an error is being told or the interpreter ends, and never leave a traceback.

    Args:
        command: the command line, parsed and carried out by typer; its result is the exit code.
        program: name of the command.
        show: takes the error's words, which are one line.
        extras: says of a module that is not installed how to get it; None: it is one that must be there.
    """
    from typer.exceptions import TyperException

    signals = _Signals()
    try:
        try:
            speak_utf8()
            signals.become_exceptions()
            code = command()
            if code == _INTERRUPTED:  # typer has caught the KeyboardInterrupt
                raise KeyboardInterrupt
            sys.stdout.flush()  # here and not at the very end, where a full disk under it could not be told any more
        except DsocrError as error:
            _leave(error.exit_code, program, show, str(error))
        except TyperException as error:
            # Without words: the help was printed.
            _leave(error.exit_code, program, show, _usage(error, program) if error.format_message() else None)
        except ModuleNotFoundError as error:
            told = extras(error)
            if told is None:
                raise
            _leave(told.exit_code, program, show, str(told))
        except BrokenPipeError:
            # The reader of our output has gone (`| head`): nothing is left to say, and closing must not say it either.
            _leave(_READER_GONE, program, show)
        except SystemExit as error:
            if not isinstance(error.__context__, BrokenPipeError):
                raise
            _leave(_READER_GONE, program, show)  # typer has caught it, and says 1
        except OSError as error:
            # Every place that can say more than the system does has said it: this is a disk that is full or a folder that
            # has gone under a place that cannot.
            where = error.filename
            where = os.fsdecode(where) if isinstance(where, str | bytes) else where
            why = reason_of(error)
            _leave(RequestError.exit_code, program, show, why if where is None else f"{where}: {why}")
        _leave(code if isinstance(code, int) else 0, program, show)
    except KeyboardInterrupt:  # out of the command, or while it was looked at what else it ended with
        _leave(_INTERRUPTED, program, show, interrupted_by(signals.number))


class _Signals:
    """Ctrl-C, SIGTERM, SIGHUP and SIGQUIT as KeyboardInterrupt, raised once, and once more where Python has swallowed it."""

    def __init__(self) -> None:
        self._own = os.getpid()
        self._raised_at = -math.inf
        self.number = int(signal.SIGINT)
        """Of the last one that was raised."""

    def become_exceptions(self) -> None:
        """From now on."""
        before = sys.unraisablehook

        def unraisable(fault: Any) -> None:
            # It came inside a destructor or a callback of the collector, which no exception leaves: Python prints it there
            # and goes on.
            if not isinstance(fault.exc_value, KeyboardInterrupt):
                before(fault)
            elif os.getpid() == self._own:
                self._raised_at = -math.inf
                again = threading.Timer(_AGAIN_S, os.kill, (self._own, self.number))
                again.daemon = True
                again.start()

        _on_signals(self._interrupt)
        sys.unraisablehook = unraisable

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._own:  # a worker forked from us: its end is for this process to see to
            os._exit(_INTERRUPTED)
        now = time.monotonic()
        if now - self._raised_at > _PUT_AWAY_S:
            self._raised_at, self.number = now, number
            raise KeyboardInterrupt


def _on_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    if threading.current_thread() is not threading.main_thread():  # only the main one may, as where a notebook calls us
        return
    for number in _ENDINGS:
        # Started in the background of a shell without job control, or by nohup: what is ignored stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _leave(code: int, program: str, show: Callable[[str], None], words: str | None = None) -> NoReturn:
    """End. What still waits in a stream is written, or, where nobody can take it, thrown away without a word."""
    heard: list[int] = []

    def leave(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if told or len(heard) > 1:  # the first while it is being told is no reason not to tell it
            os._exit(code)

    told = words is None
    if code == 0:
        _end_at_once(program)  # what is printed is the result: who does not wait for it has interrupted the command
    else:
        _on_signals(leave)
    if words is not None:
        show(words)
    told = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (DsocrError, OSError, ValueError):
            with suppress(AttributeError, OSError, ValueError):  # a stream of a test, or one that is closed
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    _on_signals(leave)  # all is done and told; a KeyboardInterrupt would be a traceback
    # When all threads have ended Python takes its handlers away: from there a signal would end it, by another code.
    atexit.register(_on_signals, signal.SIG_IGN)
    sys.exit(code)


def _usage(error: Any, program: str) -> str:
    """What is wrong with the options, and which help says more."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else program
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    return f"{message} (see {path} --help)"
