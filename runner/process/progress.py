"""How far a program of ours is: told through a file of JSON lines and a counter in memory, never through its output.

The program writes a line when a step begins and one when a pass is over, so that nothing is written while a pass is
measured. Which page of the pass is at work is stored, between two pages, in a file that is mapped into memory: one
store of four bytes, and no call of the system.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path
from typing import IO, Final, Literal, TypeAlias

from attrs import frozen

from analysis.domain.convert import from_json, to_json
from analysis.domain.errors import RequestError

__all__ = ["ChildStep", "Event", "ProgressReader", "ProgressWriter", "progress_files"]

ChildStep: TypeAlias = Literal[
    "start", "waiting", "model", "inputs", "warm-up", "passes", "energy", "counting", "collection", "end"
]

_COUNTER: Final = struct.Struct("<I")


@frozen
class Event:
    """One line."""

    at_s: float
    """On ``time.monotonic()``'s clock, which all processes of a machine share."""
    step: ChildStep
    """What began or, with ``passes_done``, goes on."""
    passes: int = 0
    """Passes of this step in all; 0: it has none."""
    pages: int = 0
    """Pages of each pass."""
    passes_done: int = 0
    tokens: int = 0
    """Of the pass that is over: tokens generated, all pages together."""
    seconds: float = 0.0
    """It took, from its first page to its last."""


def progress_files(run_dir: Path, role: str) -> tuple[Path, Path]:
    """The file of events and that of the counter, for a role of the program."""
    return run_dir / "logs" / f"{role}.progress.jsonl", run_dir / "logs" / f"{role}.page"


class ProgressWriter:
    """The program's side."""

    def __init__(self, run_dir: Path | None, role: str) -> None:
        """Open the files.

        Args:
            run_dir: None, or a folder without ``logs``: nothing is written, and the rest works as ever.
            role: as the launcher calls it.
        """
        self._lines: IO[str] | None = None
        self._counter: mmap.mmap | bytearray = bytearray(_COUNTER.size)
        self._last = Event(0.0, "start")
        if run_dir is None or not (run_dir / "logs").is_dir():
            return
        events, counter = progress_files(run_dir, role)
        try:
            self._lines = events.open("w", encoding="utf-8")
            with counter.open("w+b") as file:
                file.write(bytes(_COUNTER.size))
                file.flush()
                self._counter = mmap.mmap(file.fileno(), _COUNTER.size)
        except OSError:
            self._lines = None  # who cannot be told how far it is does without

    def begin(self, step: ChildStep, *, passes: int = 0, pages: int = 0) -> None:
        """A step begins, and the one before is over."""
        self.page(0)
        self._write(Event(time.monotonic(), step, passes, pages))

    def pass_done(self, number: int, tokens: int, seconds: float) -> None:
        """A pass is over; ``number`` from 1."""
        last = self._last
        self._write(Event(time.monotonic(), last.step, last.passes, last.pages, number, tokens, seconds))

    def page(self, number: int) -> None:
        """A page of the pass begins, counted from 1."""
        _COUNTER.pack_into(self._counter, 0, number)

    def _write(self, event: Event) -> None:
        self._last = event
        if self._lines is not None:
            try:
                self._lines.write(to_json(event, indent=None) + "\n")
                self._lines.flush()
            except OSError:
                self._lines = None


class ProgressReader:
    """The launcher's side."""

    def __init__(self, run_dir: Path, role: str) -> None:
        self._events, self._counter = progress_files(run_dir, role)
        for file in (self._events, self._counter):
            file.unlink(missing_ok=True)
        self._offset = 0

    def new_events(self) -> list[Event]:
        """Whole lines since the last call; none if the program has not come that far."""
        try:
            with self._events.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        events = []
        for line in whole.splitlines():
            try:
                events.append(from_json(Event, line.decode("utf-8", "replace")))
            except RequestError:
                continue  # a line of another version, or torn by a full disk: progress is no result
        return events

    def page(self) -> int:
        """The page at work, from 1; 0: none."""
        try:
            content = self._counter.read_bytes()
        except OSError:
            return 0
        return int(_COUNTER.unpack(content)[0]) if len(content) == _COUNTER.size else 0
