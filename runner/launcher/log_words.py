"""What a program's log says last, for the one line that an error is."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from analysis.domain.names import visible
from analysis.domain.system_errors import DISK_FULL, has_little_room, is_disk_full
from runner.collectors.nsys.own_lines import failure_words, is_of_nsys, without_inserted

__all__ = ["last_line", "last_line_of_nsys"]

_TAIL_BYTES: Final = 1 << 18
_LONGEST: Final = 300
_LONGEST_BINARY: Final = 200
_UNDECODABLE: Final = re.compile("[\udc80-\udcff]")


def last_line(log: Path) -> str:
    """Last line that says something, of a program's log. What nsys prints of its own is none of it."""
    lines = _lines(log)
    if lines is None:
        return "no log"
    return _chosen([line for line in lines if not is_of_nsys(line) and not line.startswith("usage: ")], log)


def last_line_of_nsys(log: Path) -> str:
    """What nsys says of its own failure, else the last line of the log, which may be that of a part that is not known."""
    lines = _lines(log)
    if lines is None:
        return "no log"
    words = failure_words(lines)
    return last_line(log) if words is None else _short(words)


def _lines(log: Path) -> list[str] | None:
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", "surrogateescape")
    except OSError:
        return None
    return [line.strip() for line in without_inserted(text.replace("\r", "\n")).split("\n") if line.strip()]


def _chosen(words: list[str], log: Path) -> str:
    if not words:
        return f"it printed nothing ({DISK_FULL})" if has_little_room(log) else "it printed nothing"
    said = [line for line in words if "error" in line.lower()]
    full = [line for line in words if DISK_FULL in line or is_disk_full(RuntimeError(line))]
    return _short((full or said or words)[-1])


def _short(line: str) -> str:
    """A line of bounded length. Of what is no text the bytes are written out, and fewer of them."""
    if _UNDECODABLE.search(line) or "\0" in line:
        shown = visible(line[:_LONGEST_BINARY].encode("utf-8", "surrogateescape").decode("latin-1"))
        return shown if len(shown) <= _LONGEST_BINARY else shown[: _LONGEST_BINARY - 1] + "…"
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
