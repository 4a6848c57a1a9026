"""Standard input, output and error as both commands need them: always there, whatever they were started with.

Standard output takes the result: what cannot be printed there is an error of its own. Standard error takes progress, warnings
and the words of errors: where nobody can read them (`2>&1 | head -2`, a terminal that was closed, a full disk under a log)
they are lost, and what they tell of goes on.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TextIO

from analysis.domain.errors import OutputError
from analysis.domain.system_errors import reason_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["bound_stated_sizes", "open_standard_streams", "speak_utf8"]

_STATED_SIZES: Final = {"COLUMNS": (40, 2000), "LINES": (10, 2000), "TERMINAL_WIDTH": (40, 2000)}
"""Variables that Rich, Typer and Python take a terminal's size from, and the least and most that is believed."""


def open_standard_streams() -> None:
    """Open what is closed, and put streams in place that behave as this module says; at the very start of a command.

    A descriptor that stays closed would be given to the next file that is opened, and what is printed would go into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            _open_nothing(descriptor)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    if _is_pythons_own(sys.stdout, sys.__stdout__, 1):
        sys.stdout = _text(_Result(1, "w", closefd=False), sys.stdout, line_buffering=os.isatty(1))
    if _is_pythons_own(sys.stderr, sys.__stderr__, 2):
        sys.stderr = _text(_Remarks(2, "w", closefd=False), sys.stderr, line_buffering=True)


def speak_utf8() -> None:
    """Write UTF-8 into files and pipes whatever the locale; a terminal keeps its encoding, and never fails on a name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


def bound_stated_sizes() -> None:
    """Bound what the environment says of the terminal's size; what is no number is taken out.

    Rich and Typer convert these variables themselves: of 10²⁰ columns, or of ``abc``, they fail in the middle of a table.
    """
    for name, (least, most) in _STATED_SIZES.items():
        stated = os.environ.get(name)
        if stated is None:
            continue
        digits = stated.strip()
        if not (digits.isascii() and digits.isdecimal()) or not digits.strip("0"):  # 0: not known, as for a shell
            del os.environ[name]
        else:
            wide = most if len(digits.lstrip("0")) > len(str(most)) else int(digits)
            os.environ[name] = str(min(max(wide, least), most))


class _Result(io.FileIO):
    """Standard output: a reader that has gone is a `BrokenPipeError`, any other failure an `OutputError`."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            why = "it is closed" if error.errno == errno.EBADF else reason_of(error)
            raise OutputError(f"standard output: {why}; the result could not be printed") from error


class _Remarks(io.FileIO):
    """Standard error: what nobody can read is lost without a word."""

    def write(self, data: ReadableBuffer) -> int:
        with suppress(OSError):
            return super().write(data)
        return len(memoryview(data).cast("B"))


def _text(raw: io.FileIO, before: TextIO | None, *, line_buffering: bool) -> io.TextIOWrapper:
    encoding = "utf-8" if before is None else before.encoding
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=line_buffering)


def _is_pythons_own(stream: TextIO | None, first: TextIO | None, descriptor: int) -> bool:
    """Whether a stream is the one that Python began with, or none; not that of a test or of a program around us."""
    if stream is None:
        return True
    return stream is first and isinstance(stream, io.TextIOWrapper) and stream.fileno() == descriptor


def _open_nothing(descriptor: int) -> None:
    """Put the null device where nothing is; standard output in the wrong direction, so that a lost result is no success."""
    with suppress(OSError):  # a system without it
        opened = os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        os.set_inheritable(descriptor, True)
