"""torch.profiler inside the profiled program, and the ranges that go with it, for machines where nsys cannot run.

At the end of the capture its events are written in the SQLite tables of an Nsight Systems export (see ``trace.py``).

One clock. Kineto stamps operators with the processor's time stamp counter and converts it to Unix time by a fit over
the capture; the system clock drifts against that. So ranges are not timed by the sink: each gets a shadow, a scope of
the profiler opened inside it, and the shadow's bounds are written. Every call inside a range is then inside its
shadow on the profiler's own clock.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from attrs import define
from torch.profiler import ProfilerActivity

from analysis.domain.errors import CaptureError
from runner.collectors.torch_profiler.events import SHADOW_PREFIX, sort_events
from runner.collectors.torch_profiler.trace import CaptureRows, MarkRecord, RangeRecord, write_trace

__all__ = ["MemorySink", "TorchCapture", "TorchRecording"]


class TorchRecording:
    """Ranges in memory and torch.profiler around the measured passes, which are written to ``path`` at their end."""

    def __init__(self, path: Path) -> None:
        self.sink = MemorySink()
        self._path = path

    def capturing(self, device: str) -> TorchCapture:
        """Run torch.profiler while the context lasts.

        Raises:
            CaptureError: as `TorchCapture`.
        """
        return TorchCapture(self._path, device, self.sink)


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
            RangeRecord(entry.domain, entry.name, entry.start_ns, entry.end_ns, entry.payload, entry.thread_id)
            for entry in self._ranges
        )

    @property
    def marks(self) -> tuple[MarkRecord, ...]:
        """All marks, in the order of their making."""
        return tuple(self._marks)


class TorchCapture:
    """Run torch.profiler around a body and write its events to ``path``.

    The file appears when the body has ended, whole or not at all; with an error too, so that what was recorded until then
    can be looked at. Ranges that were pushed to ``sink``
    before the capture began are not part of it; marks are. The profiler sees the calling thread.

    Args:
        path: the SQLite file to write; an existing one is replaced.
        device: ``cpu``, ``cuda`` or ``cuda:<n>``.
        sink: where the body's ranges and marks go.

    Raises:
        CaptureError: on entering, CUDA is asked for and missing; on leaving, the file cannot be written.
    """

    def __init__(self, path: Path, device: str, sink: MemorySink) -> None:
        self.path = path
        self._on_cuda = device.split(":")[0] == "cuda"
        self._sink = sink
        self._first_range = 0
        self._profiler: torch.profiler.profile | None = None

    def __enter__(self) -> Self:
        activities = [ProfilerActivity.CPU]
        if self._on_cuda:
            if not torch.cuda.is_available():
                raise CaptureError("the torch collector: CUDA was asked for, but torch sees no CUDA device")
            activities.append(ProfilerActivity.CUDA)
        # Kineto reports each start and stop on standard error otherwise; read when the first capture begins.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        self._first_range = len(self._sink.records)
        self._profiler = torch.profiler.profile(
            activities=activities,
            record_shapes=False,
            with_stack=False,
            profile_memory=False,
            acc_events=False,
            # An overload's name tells which operators have a kernel of their own: see events.py.
            # A launch's grid and a copy's bytes are metadata, which a CPU's operators have nothing useful in.
            experimental_config=torch._C._profiler._ExperimentalConfig(
                capture_overload_names=True, expose_kineto_event_metadata=self._on_cuda
            ),
        )
        self._profiler.start()
        self._sink.shadow_with(_shadow)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._profiler is not None
        self._sink.shadow_with(None)
        self._profiler.stop()
        profiler, self._profiler = self._profiler, None
        try:
            self._write(profiler)
        except CaptureError as second:
            if kind is None:
                raise
            sys.stderr.write(f"workload: what was recorded until then is lost: {second}\n")

    def _write(self, profiler: torch.profiler.profile) -> None:
        # Kineto's own results: the public events() would build one more Python object per event, and a tree.
        results = profiler.profiler.kineto_results if profiler.profiler else None
        if results is None:
            raise CaptureError("the torch collector: the profiler returned no events")
        events = sort_events(results.events())
        records = dict(enumerate(self._sink.records[self._first_range :], start=self._first_range))
        content = CaptureRows(results.trace_start_ns(), events, records, self._sink.marks, self._on_cuda)
        write_trace(self.path, content)


def _shadow(index: int) -> AbstractContextManager[object]:
    return torch.profiler.record_function(f"{SHADOW_PREFIX}{index}")
