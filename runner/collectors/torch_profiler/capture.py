"""torch.profiler's events in the SQLite tables of an Nsight Systems export, for machines where nsys cannot run.

The analysis reads such a file like any other export. ``META_DATA_EXPORT`` names the producer, and ``DSOCR_COLLECTOR``
in ``META_DATA_CAPTURE`` (``torch-cpu`` or ``torch-cuda``) tells it what stands in the table of kernels.

On CUDA: kernels, copies and fills with the runtime and driver calls that launched them, joined by CUPTI's correlation
ids. On a CPU: one row per operator that does work itself (see ``events.py``) on the pseudo device 0, its
thread as the stream, joined to one call that spans the whole operator.

One clock. Kineto stamps operators with the processor's time stamp counter and converts it to Unix time by a fit over
the capture; the system clock drifts against that. So ranges are not timed by the sink: each gets a shadow, a scope of
the profiler opened inside it, and the shadow's bounds are written. Every call inside a range is then inside its
shadow on the profiler's own clock.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch.profiler import ProfilerActivity

from analysis.domain.errors import CaptureError
from runner.collectors.torch_profiler import trace_tables as tables
from runner.collectors.torch_profiler.events import SHADOW_PREFIX, sort_events
from runner.collectors.torch_profiler.ranges import MemorySink
from runner.collectors.torch_profiler.rows import COLLECTOR_KEY, CaptureRows, Rows

__all__ = ["COLLECTOR_KEY", "TorchCapture", "TorchRecording"]


class TorchCapture:
    """Run torch.profiler around a body and write its events to ``path``.

    The file appears when the body has ended without an error, whole or not at all. Ranges that were pushed to ``sink``
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
            # An overload's name tells which operators have a kernel of their own: see runner.collectors.torch_profiler.events.
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
        if kind is not None:
            return
        # Kineto's own results: the public events() would build one more Python object per event, and a tree.
        results = profiler.profiler.kineto_results if profiler.profiler else None
        if results is None:
            raise CaptureError("the torch collector: the profiler returned no events")
        events = sort_events(results.events())
        records = dict(enumerate(self._sink.records[self._first_range :], start=self._first_range))
        content = CaptureRows(results.trace_start_ns(), events, records, self._sink.marks, self._on_cuda)
        _write(self.path, content.tables())


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


def _shadow(index: int) -> AbstractContextManager[object]:
    return torch.profiler.record_function(f"{SHADOW_PREFIX}{index}")


def _write(path: Path, content: Iterator[tuple[str, tuple[str, ...], Rows]]) -> None:
    """Write all rows in one transaction to a temporary file beside ``path``, then move it there."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(descriptor)
    except OSError as error:
        raise CaptureError(f"{path}: the trace cannot be written ({error.strerror})") from error
    partial = Path(name)
    try:
        with closing(sqlite3.connect(partial, isolation_level=None)) as database:
            # A crash leaves a partial file that nobody reads, so neither journal nor flushes are worth their time.
            database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN")
            for table, columns, rows in content:
                database.execute(f'CREATE TABLE IF NOT EXISTS "{table}" ({tables.TABLES[table]})')
                database.executemany(tables.insert_statement(table, columns), rows)
            database.execute("COMMIT")
        partial.chmod(0o644)
        partial.replace(path)
    except (OSError, sqlite3.Error) as error:
        raise CaptureError(f"{path}: the trace cannot be written ({error})") from error
    finally:
        partial.unlink(missing_ok=True)
