"""Read a trace's columns: the only place, with `database`, that knows the export's tables."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import column

from analysis.errors import TraceSchemaError
from analysis.trace import launch_shapes, schema
from analysis.trace.buffers import IntColumn, KeyColumn, integers
from analysis.trace.database import Database, as_bytes
from analysis.trace.info import read_info
from analysis.trace.nvtx import NvtxReader
from analysis.trace.records import (
    GRAPH,
    KERNEL,
    MEMCPY,
    MEMSET,
    Calls,
    Codes,
    Marks,
    MetricSamples,
    Operations,
    RangeRows,
    TraceInfo,
)

__all__ = ["PROCESS_MASK", "Trace"]

PROCESS_MASK: Final = ~0xFFFFFF
"""``globalPid == globalTid & PROCESS_MASK``: the low 24 bits are the thread."""

_NEVER_OWNS_WORK = re.compile(
    r"cu(da)?(Kernel(Get|Set)|Get|TensorMapEncode|Stream(IsCapturing|GetCaptureInfo|GetPriority|GetFlags|Query)|"
    r"ThreadExchangeStreamCaptureMode|Event(Query|Create|Destroy|ElapsedTime)|FuncGet|Occupancy|DeviceGet|Device_?Can|"
    r"PointerGet|PeekAtLastError|CtxGet|CtxSet|CtxPush|CtxPop|SetDevice|LibraryGet|ModuleGet|DriverGet|RuntimeGet)"
)
"""Calls that neither own GPU work nor wait: most rows of an API table, never read."""

_COPY_KINDS: Final = {
    1: "Host-to-Device",
    2: "Device-to-Host",
    3: "Host-to-Array",
    4: "Array-to-Host",
    5: "Array-to-Array",
    6: "Array-to-Device",
    7: "Device-to-Array",
    8: "Device-to-Device",
    9: "Host-to-Host",
    10: "Peer-to-Peer",
    11: "Unified Host-to-Device",
    12: "Unified Device-to-Host",
    13: "Unified Device-to-Device",
}
"""CUPTI's CUpti_ActivityMemcpyKind (10: peer to peer; 11–13 as Nsight Systems' ENUM_CUDA_MEMCPY_OPER names them)."""


class Trace:
    """One exported trace, read once, column by column. A context manager.

    Raises:
        TraceError: the file cannot be read.
        TraceSchemaError: a table lacks a column without which it means nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(path)
        self._process_codes: dict[Any, int] = {}
        self._thread_codes: dict[Any, int] = {}
        self._lock = threading.Lock()
        self._loaded: tuple[Operations, Calls] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.close()

    @cached_property
    def strings(self) -> dict[int, bytes]:
        """StringIds: id → bytes as stored. Decode with `text`."""
        query = self.database.query(schema.STRINGS, ["id"])
        if query is None:
            return {}
        found = self.database.table(query.add_columns(as_bytes("value").label("value")))
        return dict(zip(found.column("id").to_pylist(), found.column("value").to_pylist(), strict=True))

    def text(self, string_id: int) -> str:
        """A string of StringIds; what is not UTF-8 appears as replacement characters, a missing id as ``(unnamed)``."""
        value = self.strings.get(string_id)
        return value.decode("utf-8", "replace") if value else "(unnamed)"

    @property
    def operations(self) -> Operations:
        """All GPU operations."""
        return self._load()[0]

    @property
    def calls(self) -> Calls:
        """The API calls that can own GPU work or make the host wait."""
        return self._load()[1]

    @cached_property
    def _nvtx(self) -> NvtxReader:
        return NvtxReader(self.database, self.strings, self._thread_codes)

    @cached_property
    def ranges(self) -> RangeRows:
        """All NVTX ranges."""
        return self._nvtx.ranges(self._end_of_trace)

    @cached_property
    def marks(self) -> Marks:
        """All NVTX marks."""
        return self._nvtx.marks()

    @cached_property
    def info(self) -> TraceInfo:
        """What the file says of itself. Reads the events first, so that every thread is known."""
        _ = self._load(), self.ranges
        for thread in list(self._thread_codes):
            self._process_codes.setdefault(thread & PROCESS_MASK, len(self._process_codes))
        return read_info(self.database, self._process_codes, self._thread_codes, PROCESS_MASK)

    @cached_property
    def metric_samples(self) -> MetricSamples | None:
        """Sampled GPU metrics, None where there are none."""
        query = self.database.query(schema.GPU_METRICS, ["typeId", "metricId", "timestamp", "value"])
        names = self.database.rows(schema.GPU_METRIC_NAMES, "typeId", "metricId", "metricName")
        if query is None or not names:
            return None
        sources = {one: number for number, one in enumerate(sorted({row["typeId"] for row in names}))}
        place = {(row["typeId"], row["metricId"]): index for index, row in enumerate(names)}
        table = self.database.table(query)
        kinds, metrics = KeyColumn(table.num_rows), KeyColumn(table.num_rows)
        time, value = IntColumn(table.num_rows, np.int64), IntColumn(table.num_rows)
        for batch in table.to_batches():
            kinds.extend(integers(batch.column("typeId"), 0))
            metrics.extend(integers(batch.column("metricId"), -1))
            time.extend(integers(batch.column("timestamp"), 0))
            value.extend(integers(batch.column("value"), 0))
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
        operations, calls = self._load()
        ends = [int(one.max()) for one in (operations.end, calls.end) if one.size]
        details = self.database.rows(schema.ANALYSIS_DETAILS, "duration")
        return max([*ends, *(int(row["duration"]) for row in details if row["duration"] is not None), 0])

    def _load(self) -> tuple[Operations, Calls]:
        """Read operations and calls at the same time: two cores, two connections."""
        if self._loaded is not None:
            return self._loaded
        _ = self.strings
        results: list[Any] = [None, None]
        errors: list[BaseException] = []

        def run(slot: int, read: Callable[[], Any]) -> None:
            try:
                results[slot] = read()
            except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, which raises it
                errors.append(error)

        worker = threading.Thread(target=run, args=(0, self._read_operations), daemon=True)
        worker.start()
        run(1, self._read_calls)
        worker.join()
        if errors:
            raise errors[0]
        self._loaded = (results[0], results[1])
        return self._loaded

    # --- operations -------------------------------------------------------------------------------------------

    def _read_operations(self) -> Operations:
        parts = [
            self._read_kind(schema.KERNELS, KERNEL, ("demangledName", "shortName"), shaped=True),
            self._read_kind(schema.MEMCPYS, MEMCPY, ("copyKind",)),
            self._read_kind(schema.MEMSETS, MEMSET, ()),
            self._read_kind(schema.GRAPHS, GRAPH, ("graphId",)),
        ]
        names: list[str] = []
        short_names: list[str] = []
        copy_kinds: list[int] = []
        for part in parts:
            part["name"] = part["name"].astype(np.int32) + len(names) if len(names) else part["name"]
            for long, short, copy_kind in part.pop("labels"):
                names.append(long)
                short_names.append(short)
                copy_kinds.append(copy_kind)
        shapes, *_ = [part.pop("shapes") for part in parts]
        columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        start = columns["start"]
        if start.size > 1 and bool(np.any(start[1:] < start[:-1])):
            order = np.argsort(start, kind="stable")
            columns = {key: value[order] for key, value in columns.items()}
        return Operations(
            **columns,
            names=tuple(names),
            short_names=tuple(short_names),
            copy_kinds=np.array(copy_kinds, dtype=np.int8),
            shapes=launch_shapes.LaunchShapes.unpack(*shapes),
        )

    def _read_kind(
        self, spec: schema.TableSpec, kind: int, key: tuple[str, ...], *, shaped: bool = False
    ) -> dict[str, Any]:
        """Read one operation table; ``key`` holds the columns that name an operation."""
        wanted = ["start", "end", "deviceId", "streamId", "correlationId", "globalPid", "graphNodeId", *key]
        sized = "bytes" in spec.optional
        if sized:
            wanted.append("bytes")
        query = self.database.query(spec, wanted)
        shaped = shaped and query is not None and self.database.has(spec, *launch_shapes.COLUMNS)
        if shaped and query is not None:
            query = query.add_columns(*launch_shapes.packed_columns())
        rows = self.database.last_row(spec) if query is not None else 0
        grid, block = KeyColumn(rows if shaped else 0), KeyColumn(rows if shaped else 0)
        start, end = IntColumn(rows, np.int64), IntColumn(rows, np.int64)
        device, stream, correlation = IntColumn(rows, np.int8), IntColumn(rows, np.int16), IntColumn(rows)
        size = IntColumn(rows if sized else 0, np.int32)
        process = KeyColumn(rows)
        name = KeyColumn(rows)
        graph_node: list[NDArray[np.bool_]] = []
        if query is not None:
            for batch in self.database.batches(query):
                start.extend(integers(batch.column("start"), 0))
                end.extend(integers(batch.column("end"), 0))
                device.extend(integers(batch.column("deviceId"), 0))
                stream.extend(integers(batch.column("streamId"), 0))
                correlation.extend(integers(batch.column("correlationId"), -1))
                process.extend(integers(batch.column("globalPid"), -1))
                node = batch.column("graphNodeId")
                graph_node.append(np.zeros(len(node), bool) if node.null_count == len(node) else integers(node, 0) != 0)
                name.extend(self._packed_key([integers(batch.column(one), -1) for one in key], len(node)))
                if sized:
                    size.extend(integers(batch.column("bytes"), -1))
                if shaped:
                    grid.extend(integers(batch.column("grid"), -1))
                    block.extend(integers(batch.column("block"), -1))
        count = start.array().size
        return {
            "start": start.array(),
            "end": np.maximum(end.array(), start.array()),
            "kind": np.full(count, kind, dtype=np.int8),
            "name": name.array(),
            "process": self._process_array(process),
            "correlation": correlation.array(),
            "device": device.array(),
            "stream": stream.array(),
            "graph_node": np.concatenate(graph_node) if graph_node else np.zeros(0, bool),
            "shape": launch_shapes.combine(grid, block) if shaped else np.full(count, -1, dtype=np.int8),
            "shapes": (grid.values, block.values),
            "size": size.array() if sized else np.zeros(count, dtype=np.int8),
            "labels": [self._label(kind, packed) for packed in name.values],
        }

    @staticmethod
    def _packed_key(columns: list[NDArray[np.int64]], rows: int) -> NDArray[np.int64]:
        """Two ids in one integer, so that one hash table names an operation: demangled << 32 | short."""
        if not columns:
            return np.zeros(rows, dtype=np.int64)
        if len(columns) == 1:
            return columns[0]
        return (columns[0] << 32) | (columns[1] & 0xFFFFFFFF)

    def _label(self, kind: int, packed: int) -> tuple[str, str, int]:
        if kind == KERNEL:
            low = packed & 0xFFFFFFFF
            long, short = packed >> 32, (low - 2**32 if low >= 2**31 else low)
            long_name = self.text(long if long >= 0 else short)
            return long_name, self.text(short) if short >= 0 else long_name, -1
        if kind == MEMCPY:
            name = f"[CUDA memcpy {_COPY_KINDS.get(packed, f'kind {packed}' if packed >= 0 else 'of unknown kind')}]"
            return name, name, packed if 0 <= packed < 127 else -1
        if kind == MEMSET:
            return "[CUDA memset]", "[CUDA memset]", -1
        name = f"[CUDA graph {packed}]" if packed >= 0 else "[CUDA graph]"
        return name, name, -1

    def _process_array(self, column: KeyColumn) -> Codes:
        """Codes of one table's processes → codes that all tables share; a blank id is -1."""
        with self._lock:
            shared = [
                -1 if one == -1 else self._process_codes.setdefault(one, len(self._process_codes))
                for one in column.values
            ]
        own = column.array()
        if shared == list(range(len(shared))):
            return own
        codes: Codes = np.array(shared, dtype=np.int16)[own]
        return codes

    # --- calls ------------------------------------------------------------------------------------------------

    def _read_calls(self) -> Calls:
        spec = schema.CALLS
        never = [key for key, value in self.strings.items() if _NEVER_OWNS_WORK.match(value.decode("utf-8", "replace"))]
        where = None
        if never and self.database.has(spec, "nameId"):
            where = column("nameId").not_in(never) | column("nameId").is_(None)
        query = self.database.query(spec, ["start", "end", "globalTid", "correlationId", "nameId"], where=where)
        rows = self.database.last_row(spec) if query is not None else 0
        start, duration, correlation = IntColumn(rows, np.int64), IntColumn(rows), IntColumn(rows)
        thread, name = KeyColumn(rows), KeyColumn(rows)
        if query is not None:
            for batch in self.database.batches(query):
                begin = integers(batch.column("start"), 0)
                start.extend(begin)
                duration.extend(np.maximum(integers(batch.column("end"), 0) - begin, 0))
                correlation.extend(integers(batch.column("correlationId"), -1))
                thread.extend(integers(batch.column("globalTid"), -1))
                name.extend(integers(batch.column("nameId"), -1))
        with self._lock:
            threads = [
                -1 if one == -1 else self._thread_codes.setdefault(one, len(self._thread_codes))
                for one in thread.values
            ]
        columns: dict[str, Any] = {
            "start": start.array(),
            "duration": duration.array(),
            "correlation": correlation.array(),
            "thread": np.array([*threads, -1], dtype=np.int16)[thread.array()],
            "name": name.array(),
        }
        order = _by_thread_then_start(columns["thread"], columns["start"])
        if order is not None:
            columns = {key: value[order] for key, value in columns.items()}
        return Calls(**columns, names=tuple("" if one == -1 else self.text(one) for one in name.values))

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


def _by_thread_then_start(thread: Codes, start: NDArray[np.int64]) -> NDArray[np.intp] | None:
    """Order by thread, then start; None: the rows are so already."""
    if start.size < 2:
        return None
    same = thread[1:] == thread[:-1]
    if bool(np.all((thread[1:] > thread[:-1]) | (same & (start[1:] >= start[:-1])))):
        return None
    order: NDArray[np.intp] = np.argsort(start, kind="stable")
    return order[np.argsort(thread[order], kind="stable")]
