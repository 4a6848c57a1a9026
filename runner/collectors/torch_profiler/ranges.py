"""Ranges and marks kept in memory: what the torch collector writes where Nsight Systems would have recorded NVTX."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from attrs import define, frozen

__all__ = ["MarkRecord", "MemorySink", "RangeRecord"]


@frozen
class RangeRecord:
    """One range. Times in integer nanoseconds since the Unix epoch, by the sink's clock."""

    domain: str
    name: str
    start_ns: int
    end_ns: int | None
    """None: still open."""
    payload: int | None
    thread_id: int
    """The kernel's id of the thread (gettid)."""


@frozen
class MarkRecord:
    """One moment with a text."""

    domain: str
    text: str
    at_ns: int
    thread_id: int


@define
class _Open:
    domain: str
    name: str
    start_ns: int
    payload: int | None
    thread_id: int
    end_ns: int | None = None
    shadow: AbstractContextManager[object] | None = None


class MemorySink:
    """Keeps ranges and marks in the order in which they were opened.

    Ranges nest per thread and domain, as NVTX push/pop ranges do: ``pop`` closes the innermost open range of its
    domain on the calling thread.
    """

    torch_writes_operators = False

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ranges: list[_Open] = []
        self._marks: list[MarkRecord] = []
        self._stacks: dict[tuple[int, str], list[_Open]] = {}
        self._shadow: Callable[[int], AbstractContextManager[object]] | None = None

    def prepare(self, domain: str, names: Sequence[str] = ()) -> None:
        """Nothing to make ready."""

    def push(self, domain: str, name: str, payload: int | None = None) -> None:
        """Open a range on the calling thread."""
        thread_id = threading.get_native_id()
        entry = _Open(domain, name, self._clock(), payload, thread_id)
        with self._lock:
            index = len(self._ranges)
            self._ranges.append(entry)
            self._stacks.setdefault((thread_id, domain), []).append(entry)
        if self._shadow is not None:
            entry.shadow = self._shadow(index)
            entry.shadow.__enter__()

    def pop(self, domain: str) -> None:
        """Close the innermost open range of ``domain`` on the calling thread.

        Raises:
            ValueError: none is open.
        """
        stack = self._stacks.get((threading.get_native_id(), domain))
        if not stack:
            raise ValueError(f"no open range in domain {domain!r} on this thread")
        entry = stack.pop()
        if entry.shadow is not None:
            entry.shadow.__exit__(None, None, None)
            entry.shadow = None
        entry.end_ns = self._clock()

    def mark(self, domain: str, text: str) -> None:
        """Record a text at this moment."""
        self._marks.append(MarkRecord(domain, text, self._clock(), threading.get_native_id()))

    def shadow_with(self, scope: Callable[[int], AbstractContextManager[object]] | None) -> None:
        """Open a scope of a profiler inside every range pushed from now on; None ends that.

        Args:
            scope: given the range's index in ``records``, a context manager that is entered after ``push`` took its
                time and left before ``pop`` takes its own.
        """
        self._shadow = scope

    @property
    def records(self) -> tuple[RangeRecord, ...]:
        """All ranges, in the order of their ``push``."""
        return tuple(
            RangeRecord(one.domain, one.name, one.start_ns, one.end_ns, one.payload, one.thread_id)
            for one in self._ranges
        )

    @property
    def marks(self) -> tuple[MarkRecord, ...]:
        """All marks, in the order of their making."""
        return tuple(self._marks)
