"""Read a trace's columns: the only place, with `database`, that knows the export's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from analysis.domain.errors import TraceError, TraceSchemaError
from analysis.trace import schema
from analysis.trace.buffers import IntColumn, KeyColumn
from analysis.trace.calls import combine_calls, names_of, read_call_part, threads_of
from analysis.trace.checks import ImpossibleValues
from analysis.trace.database import Database, Stretch, as_bytes
from analysis.trace.info import read_info
from analysis.trace.nvtx import NvtxReader
from analysis.trace.operations import KINDS, combine, read_part, string_ids
from analysis.trace.payloads import Payloads, read_payloads
from analysis.trace.records import (
    NO_VALUE,
    PROCESS_MASK,
    Calls,
    GraphNodes,
    Marks,
    MetricSamples,
    Operations,
    OtherCalls,
    RangeRows,
    TraceInfo,
    pid_of,
)

__all__ = ["UNNAMED", "Trace"]

UNNAMED: Final = "(unnamed)"
"""Name of what the file gives none."""

_Events: TypeAlias = tuple[Operations, Calls, OtherCalls]

_NODE_COLUMNS: Final = (("start", 0), ("graphNodeId", 0), ("originalGraphNodeId", NO_VALUE))

_DAY_NS: Final = 86_400 * 10**9
_LARGEST_SUM: Final = 2.0**62
"""ns; above, sums of times would leave 64 bits."""
_WORTH_SPLITTING: Final = 20_000
"""Rows of a table from which on two threads read a half each."""


class Trace:
    """One exported trace, read once, column by column. A context manager.

    Args:
        path: as the user knows it.
        plain: the file to read where ``path`` is a compressed one; None: ``path``.

    Raises:
        TraceError: the file cannot be read.
        TraceSchemaError: a table lacks a column without which it means nothing.
    """

    def __init__(self, path: Path, plain: Path | None = None) -> None:
        self.path = path
        self.database = Database(plain or path)
        self._process_codes: dict[Any, int] = {}
        self._thread_codes: dict[Any, int] = {}
        self._loaded: _Events | None = None
        self._reading: Future[_Events] | None = None
        self._beside = Lock()
        """Held while another thread reads, which `_reading` does not tell where Ctrl-C came as it was begun."""
        self._span: tuple[int, int] | None = None
        self.backwards: dict[str, int] = {}
        """Table → rows that end before they start; they are read as lasting 0 ns."""
        self.nameless_ranges = False
        """Whether the name of a range is a string without a text. Known when ranges were read."""
        self.rows_read: dict[str, int] = {}
        """Table → rows that were read: fewer than its largest row id where rows were deleted. Of NVTX: ranges."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reading is not None:
            wait([self._reading])
        with self._beside:
            self.database.close()

    @cached_property
    def strings(self) -> dict[int, bytes]:
        """StringIds: id → bytes as stored. Decode with `text`."""
        query = self.database.query(schema.STRINGS, ["id"])
        if query is None:
            return {}
        strings: dict[int, bytes] = {}
        for batch in self.database.batches(query.add_columns(as_bytes("value").label("value")), schema.STRINGS):
            ids = self.database.integers(batch, schema.STRINGS, "id", 0).tolist()
            strings.update(zip(ids, batch.column("value").to_pylist(), strict=True))
        return strings

    def text(self, string_id: int) -> str:
        """A string of StringIds; what is not UTF-8 appears as replacement characters, a missing id as ``(unnamed)``."""
        value = self.strings.get(string_id)
        return value.decode("utf-8", "replace") if value else UNNAMED

    @property
    def operations(self) -> Operations:
        """All GPU operations."""
        return self._load()[0]

    @property
    def calls(self) -> Calls:
        """The API calls that can own GPU work or make the host wait."""
        return self._load()[1]

    @property
    def other_calls(self) -> OtherCalls:
        """When the remaining API calls ran."""
        return self._load()[2]

    @cached_property
    def _nvtx(self) -> NvtxReader:
        return NvtxReader(self.database, self.strings, self._thread_codes)

    @cached_property
    def ranges(self) -> RangeRows:
        """All NVTX ranges."""
        ranges = self._nvtx.ranges(self._end_of_trace)
        self._check_processes(schema.NVTX, ("globalTid", "endGlobalTid"), self._nvtx.threads)
        self.nameless_ranges = self._nvtx.nameless
        self._count_rows(schema.NVTX, len(ranges))
        self._count_backwards(schema.NVTX, self._nvtx.backwards)
        closed = ~ranges.unclosed
        self._require_one_capture([(schema.NVTX, ranges.start[closed], ranges.end[closed])])
        return ranges

    @cached_property
    def marks(self) -> Marks:
        """All NVTX marks."""
        return self._nvtx.marks()

    @cached_property
    def graph_nodes(self) -> GraphNodes:
        """Events of CUDA graph nodes; none where the trace has no such table."""
        query = self.database.query(schema.GRAPH_NODES, ["start", "globalTid", "graphNodeId", "originalGraphNodeId"])
        columns = [IntColumn(0, np.int64) for _ in range(3)]
        threads = KeyColumn(0)
        for batch in () if query is None else self.database.batches(query, schema.GRAPH_NODES):
            for column, (name, blank) in zip(columns, _NODE_COLUMNS, strict=True):
                column.extend(self.database.integers(batch, schema.GRAPH_NODES, name, blank))
            threads.extend(self.database.integers(batch, schema.GRAPH_NODES, "globalTid", -1))
        start, node, original = (column.array().astype(np.int64, copy=False) for column in columns)
        thread = threads.recode(threads.values, self._thread_codes, blank=-1)
        return GraphNodes(start=start, thread=thread, node=node, original=original)

    @cached_property
    def info(self) -> TraceInfo:
        """What the file says of itself. Reads the events first, so that every thread is known."""
        _ = self._load(), self.ranges, self.graph_nodes
        for thread in list(self._thread_codes):
            self._process_codes.setdefault(thread & PROCESS_MASK, len(self._process_codes))
        return read_info(self.database, self._process_codes, self._thread_codes, self.text)

    @cached_property
    def payloads(self) -> Payloads | None:
        """Payloads of ranges, such as NCCL's; None where the trace has none, or was exported without them."""
        return read_payloads(self.database)

    @cached_property
    def metric_samples(self) -> MetricSamples | None:
        """Sampled GPU metrics, None where there are none."""
        query = self.database.query(schema.GPU_METRICS, ["typeId", "metricId", "timestamp", "value"])
        names = self.database.rows(schema.GPU_METRIC_NAMES, "typeId", "metricId", "metricName")
        if query is None or not names:
            return None
        sources = {source: number for number, source in enumerate(sorted({row["typeId"] for row in names}))}
        place = {(row["typeId"], row["metricId"]): index for index, row in enumerate(names)}
        rows = self.database.last_row(schema.GPU_METRICS)
        kinds, metrics = KeyColumn(rows), KeyColumn(rows)
        time, value = IntColumn(rows, np.int64), IntColumn(rows)
        for batch in self.database.batches(query, schema.GPU_METRICS):
            number = partial(self.database.integers, batch, schema.GPU_METRICS)
            kinds.extend(number("typeId", 0))
            metrics.extend(number("metricId", -1))
            time.extend(number("timestamp", 0))
            value.extend(number("value", 0))
        lookup = np.array(
            [[place.get((kind, metric), -1) for metric in metrics.values] or [-1] for kind in kinds.values] or [[-1]],
            dtype=np.int16,
        )
        return MetricSamples(
            time_ns=time.array().astype(np.int64),
            metric=lookup[kinds.array(), metrics.array()],
            value=value.array().astype(np.int64),
            names=tuple((sources[row["typeId"]], str(row["metricName"])) for row in names),
        )

    @property
    def has_ranges_table(self) -> bool:
        """Whether NVTX was recorded at all."""
        return self.database.has(schema.NVTX)

    @property
    def has_calls_table(self) -> bool:
        """Whether CUDA API calls were recorded at all."""
        return self.database.has(schema.CALLS)

    @cached_property
    def _end_of_trace(self) -> int:
        operations, calls, _ = self._load()
        ends = [int(end.max()) for end in (operations.end, calls.end) if end.size]
        details = self.database.rows(schema.ANALYSIS_DETAILS, "duration")
        return max([*ends, *(int(row["duration"]) for row in details if row["duration"] is not None), 0])

    def begin(self) -> None:
        """Start to read in the background: what the caller imports meanwhile costs no time of its own."""
        if self._loaded is None and self._reading is None:
            pool = ThreadPoolExecutor(1, "reading")
            self._reading = pool.submit(self._read_beside)
            pool.shutdown(wait=False)

    def _read_beside(self) -> _Events:
        with self._beside:
            return self._read()

    def _load(self) -> _Events:
        if self._loaded is None:
            self._loaded = self._reading.result() if self._reading is not None else self._read()
        return self._loaded

    def _read(self) -> _Events:
        """Read operations and calls on two threads, each with connections of its own; long tables in halves."""
        strings = self.strings
        kinds = [(kind, rows) for kind in KINDS for rows in self._stretches(kind.spec)]
        call_rows = self._stretches(schema.CALLS)
        tasks: list[Callable[[], Any]] = [partial(read_part, self.database, kind, rows) for kind, rows in kinds]
        tasks += [partial(read_call_part, self.database, strings, rows) for rows in call_rows]
        results = _on_two_threads(tasks)
        parts = [part for part in results[: len(kinds)] if part is not None]
        call_parts = [part for part in results[len(kinds) :] if part is not None]
        for part in parts:
            self._count_rows(part.kind.spec, part.start.size)
            self._count_backwards(part.kind.spec, part.backwards)
            self._check_processes(part.kind.spec, ("globalPid",), part.process.values)
            self._check_strings(part.kind.spec, part.kind.name, string_ids(part))
        for call_part in call_parts:
            self._count_rows(schema.CALLS, call_part.start.size + call_part.other_start.size)
            self._count_backwards(schema.CALLS, call_part.backwards)
            self._check_processes(schema.CALLS, ("globalTid",), threads_of(call_part))
            self._check_strings(schema.CALLS, ("nameId",), names_of(call_part))
        spans = [(part.kind.spec, part.start, part.start + part.duration) for part in parts]
        for call_part in call_parts:
            spans.append((schema.CALLS, call_part.start, call_part.start + call_part.duration))
            spans.append((schema.CALLS, call_part.other_start, call_part.other_start + call_part.other_duration))
        self._require_one_capture(spans)
        return (
            self._on_gpus(combine(parts, self.text, self._process_codes)),
            *combine_calls(call_parts, self.text, self._thread_codes),
        )

    def _on_gpus(self, operations: Operations) -> Operations:
        """Tell GPUs apart that processes call by one number, as where each sees one of its own (CUDA_VISIBLE_DEVICES)."""
        processes = list(self._process_codes)
        if len(processes) < 2 or not len(operations):
            return operations
        known = {
            (row["pid"], row["cudaId"]): row["gpuId"]
            for row in self.database.rows(schema.DEVICES, "gpuId", "cudaId", "pid")
        }
        width = int(operations.device.max()) + 1
        lookup = np.tile(np.arange(width, dtype=np.int16), (len(processes) + 1, 1))  # the last row stands for code -1
        for code, process in enumerate(processes):
            for device in range(width):
                lookup[code, device] = known.get((pid_of(process), device), device)
        if bool((lookup == lookup[0]).all()) and bool((lookup[0] == np.arange(width)).all()):
            return operations
        return evolve(operations, gpu=lookup[operations.process, operations.device])

    @cached_property
    def impossible(self) -> tuple[ImpossibleValues, ...]:
        """Values that cannot be, and were read as not recorded. Reads everything else first."""
        _ = self.info
        return self.database.impossible()

    @cached_property
    def _processes(self) -> frozenset[int]:
        """Global ids of the processes that the file lists; none: it lists no process."""
        return frozenset(row["globalPid"] for row in self.database.rows(schema.PROCESSES, "globalPid"))

    def _check_processes(self, spec: schema.TableSpec, columns: tuple[str, ...], ids: Iterable[int]) -> None:
        """Suspect columns that name a process, or a thread of one, that the file does not list."""
        if self._processes and any(key != -1 and key & PROCESS_MASK not in self._processes for key in ids):
            self.database.suspect(spec, columns)

    def _check_strings(self, spec: schema.TableSpec, columns: tuple[str, ...], ids: Iterable[int]) -> None:
        """Suspect columns that name a string that the file does not have."""
        if self.database.has(schema.STRINGS) and any(key not in self.strings for key in ids):
            self.database.suspect(spec, columns)

    def _require_one_capture(self, spans: list[tuple[schema.TableSpec, NDArray[Any], NDArray[Any]]]) -> None:
        """Refuse events that are too far from the others for one capture, and times whose sum does not fit 64 bits.

        Args:
            spans: table, starts and ends of events, [n]; those of earlier calls count too.

        Raises:
            TraceError: there is such an event.
        """
        spans = [span for span in spans if span[1].size]
        if not spans:
            return
        low, high = min(int(start.min()) for _, start, _ in spans), max(int(end.max()) for _, _, end in spans)
        before = self._span
        self._span = (low, high) if before is None else (min(low, before[0]), max(high, before[1]))
        longest = self._span[1] - self._span[0]
        if longest <= schema.LONGEST_NS and longest * sum(start.size for _, start, _ in spans) < _LARGEST_SUM:
            return
        total = sum(float(np.sum(end - start, dtype=np.float64)) for _, start, end in spans)
        if longest <= schema.LONGEST_NS and total < _LARGEST_SUM:
            return
        # The middle is that of the earlier calls, where there are some: of the many rather than of the few.
        middle = (
            sum(before) // 2 if before is not None else int(np.median(np.concatenate([start for _, start, _ in spans])))
        )
        name, value = ("start", low) if middle - low > high - middle else ("end", high)
        spec = next(spec for spec, start, end in spans if value == int(start.min() if name == "start" else end.max()))
        rows = self.database.examples(spec, name, f'"{name}" = {value}')
        place = f" in row {rows[0][0]}" if rows else ""
        days = abs(value - middle) // _DAY_NS
        raise TraceError(
            f"{self.path}: {spec.names[0]}.{name} is {value}{place}, {days:,} days from the other events, and a capture lasts "
            f"{schema.LONGEST_NS // _DAY_NS} days at most: the file is damaged; export the report again"
        )

    def _count_rows(self, spec: schema.TableSpec, rows: int) -> None:
        self.rows_read[spec.names[0]] = self.rows_read.get(spec.names[0], 0) + rows

    def _count_backwards(self, spec: schema.TableSpec, rows: int) -> None:
        if rows:
            self.backwards[spec.names[0]] = self.backwards.get(spec.names[0], 0) + rows

    def _stretches(self, spec: schema.TableSpec) -> list[Stretch]:
        """A table whole, or in two parts, of equal length if its row ids have no gaps."""
        last = self.database.last_row(spec)
        if last < _WORTH_SPLITTING:
            return [Stretch(last)]
        middle = last // 2
        return [Stretch(middle, until=middle), Stretch(last - middle, after=middle)]

    def require_operations(self) -> None:
        """Insist on something to attribute.

        Raises:
            TraceSchemaError: the trace has no GPU operation.
        """
        if not len(self.operations):
            raise TraceSchemaError(
                f"{self.path}: holds no GPU operation (no kernel, copy or graph was traced); "
                "capture again with `nsys profile -t cuda,nvtx` on a machine whose GPU the program uses"
            )


def _on_two_threads(tasks: list[Callable[[], Any]]) -> list[Any]:
    """Run tasks, in order, on two threads; the first error is raised when both have ended, and begins no other task."""
    with ThreadPoolExecutor(2, "reading") as pool:
        return list(pool.map(lambda task: task(), tasks))
