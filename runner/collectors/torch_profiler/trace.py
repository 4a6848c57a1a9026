"""The trace that the torch collector writes: torch.profiler's events in the tables of an Nsight Systems export.

The analysis reads such a file like any other export. ``META_DATA_EXPORT`` names the producer, and ``DSOCR_COLLECTOR``
in ``META_DATA_CAPTURE`` (``torch-cpu`` or ``torch-cuda``) tells it what stands in the table of kernels.

On CUDA: kernels, copies and fills with the runtime and driver calls that launched them, joined by CUPTI's correlation
ids. On a CPU: one row per operator that does work itself (see ``events.py``) on the pseudo device 0, its
thread as the stream, joined to one call that spans the whole operator.

Names, types and order of the columns are those of the export's schema 3.20, as nsys 2025.3 writes it. What torch cannot
know is NULL, never 0, so NOT NULL stands only where a value always exists.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from attrs import frozen

from analysis.domain.errors import CaptureError
from analysis.domain.files import WriteOptions, write_with
from runner.collectors.torch_profiler.events import DeviceOperation, SortedEvents, working_stretches

__all__ = ["COLLECTOR_KEY", "TABLES", "CaptureRows", "MarkRecord", "RangeRecord", "write_trace"]

COLLECTOR_KEY: Final = "DSOCR_COLLECTOR"
"""Row of ``META_DATA_CAPTURE``: ``torch-cpu`` or ``torch-cuda``."""

_VM: Final = 1 << 48
"""Global ids as nsys writes them: VM in the bits from 48, process from 24, thread in the lowest 24."""

_RANGE, _DOMAIN_CREATED, _MARK = 59, 75, 34
_EVENT_TYPES = (
    (_MARK, "NvtxMark", "NvtxMark"),
    (_RANGE, "NvtxPushPopRange", "NvtxPushPopRange"),
    (_DOMAIN_CREATED, "NvtxDomainCreate", "NvtxDomainCreate"),
)
_COPY_KINDS = (
    (0, "CUDA_MEMCPY_KIND_UNKNOWN", "Unknown"),
    (1, "CUDA_MEMCPY_KIND_HTOD", "Host-to-Device"),
    (2, "CUDA_MEMCPY_KIND_DTOH", "Device-to-Host"),
    (8, "CUDA_MEMCPY_KIND_DTOD", "Device-to-Device"),
    (9, "CUDA_MEMCPY_KIND_HTOH", "Host-to-Host"),
    (10, "CUDA_MEMCPY_KIND_PTOP", "Peer-to-Peer"),
)
_COPY_KIND_OF: Final[Mapping[str, int]] = {"HtoD": 1, "DtoH": 2, "DtoD": 8, "HtoH": 9, "PtoP": 10}
_MEMORY_KIND_OF: Final[Mapping[str, int]] = {"Pageable": 0, "Pinned": 1, "Device": 2, "Array": 3, "Managed": 4}

Rows: TypeAlias = Iterable[tuple[Any, ...]]

_log = logging.getLogger(__name__)


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


def write_trace(path: Path, content: CaptureRows) -> None:
    """Write a capture as a SQLite file, whole or not at all; an existing one is replaced.

    Raises:
        CaptureError: the file cannot be written.
    """

    def fill(file: Path) -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            # A crash leaves a partial file that nobody reads, so neither journal nor flushes are worth their time.
            database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN")
            for table, columns, rows in content.tables():
                database.execute(f'CREATE TABLE IF NOT EXISTS "{table}" ({TABLES[table]})')
                database.executemany(_insert_statement(table, columns), rows)
            database.execute("COMMIT")

    write_with(path, fill, WriteOptions(error=CaptureError, same_as_oserror=(sqlite3.Error,)))


class CaptureRows:
    """One capture as rows.

    Args:
        origin_ns: start of the session since the Unix epoch; times in rows count from it.
        events: what the profiler saw.
        records: ranges by their index, under which ``events.shadows`` has their bounds.
        marks: texts with their times.
        on_cuda: whether GPU operations or the CPU's operators stand in the tables.
    """

    def __init__(
        self,
        origin_ns: int,
        events: SortedEvents,
        records: Mapping[int, RangeRecord],
        marks: tuple[MarkRecord, ...],
        on_cuda: bool,
    ) -> None:
        self._origin_ns = origin_ns
        self._events = events
        self._records = records
        self._marks = marks
        self._on_cuda = on_cuda
        self._strings: dict[str, int] = {}
        self._pid = os.getpid()
        self._global_pid = _VM | self._pid << 24
        self._threads: Counter[int] = Counter()
        self._latest_ns = 0

    def tables(self) -> Iterator[tuple[str, tuple[str, ...], Rows]]:
        """(table, columns, rows); strings and threads come after the rows that mention them."""
        calls = list(self._calls())
        ranges = list(self._ranges())
        if self._on_cuda:
            yield from self._gpu_operations()
        elif calls:
            yield KERNELS, _CPU_KERNEL_COLUMNS, self._working_operators()
        if calls:
            yield API_CALLS, _CALL_COLUMNS, calls
        if ranges or self._marks:
            yield RANGES, _RANGE_COLUMNS, [*self._domains(), *ranges, *self._mark_rows()]
            _warn_of_skew(calls, ranges)
        yield from self._target()
        yield "StringIds", ("id", "value"), ((index, text) for text, index in self._strings.items())

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _time(self, moment_ns: int) -> int:
        moment_ns -= self._origin_ns
        self._latest_ns = max(self._latest_ns, moment_ns)
        return moment_ns

    def _thread(self, thread_id: int) -> int:
        self._threads[thread_id] += 1
        return self._global_pid | thread_id

    def _calls(self) -> Iterator[tuple[Any, ...]]:
        if self._on_cuda:
            for call in self._events.calls:
                yield (
                    self._time(call.start_ns),
                    self._time(call.end_ns),
                    int(call.is_driver),
                    self._thread(call.thread_id),
                    call.correlation_id,
                    self._string(call.name),
                )
        else:
            self._stretches = working_stretches(self._events.operators)
            for operator, _, _ in self._stretches:
                yield (
                    self._time(operator.start_ns),
                    self._time(operator.end_ns),
                    0,
                    self._thread(operator.thread_id),
                    operator.correlation_id,
                    self._string(operator.name),
                )

    def _working_operators(self) -> Rows:
        for operator, start_ns, end_ns in self._stretches:
            name = self._string(operator.name)
            yield (
                self._time(start_ns),
                self._time(end_ns),
                0,
                0,
                operator.thread_id,
                operator.correlation_id,
                self._global_pid,
                name,
                name,
            )

    def _gpu_operations(self) -> Iterator[tuple[str, tuple[str, ...], Rows]]:
        by_kind: dict[str, list[DeviceOperation]] = {"kernel": [], "gpu_memcpy": [], "gpu_memset": []}
        for operation in self._events.device_operations:
            by_kind[operation.kind].append(operation)
        # nsys makes a table when its first event arrives, and so does this.
        if by_kind["kernel"]:
            yield KERNELS, _GPU_KERNEL_COLUMNS, map(self._kernel, by_kind["kernel"])
        if by_kind["gpu_memcpy"]:
            yield MEMCPYS, _MEMCPY_COLUMNS, map(self._memcpy, by_kind["gpu_memcpy"])
        if by_kind["gpu_memset"]:
            yield MEMSETS, _MEMSET_COLUMNS, map(self._memset, by_kind["gpu_memset"])

    def _place(self, operation: DeviceOperation) -> tuple[Any, ...]:
        return (
            self._time(operation.start_ns),
            self._time(operation.end_ns),
            operation.device_id,
            operation.details.get("context", 0),
            operation.stream_id,
            operation.correlation_id,
            self._global_pid,
        )

    def _kernel(self, operation: DeviceOperation) -> tuple[Any, ...]:
        details = operation.details
        return (
            *self._place(operation),
            self._string(operation.name),
            self._string(_short_name(operation.name)),
            details.get("registers per thread"),
            # Kineto gives the sum of static and dynamic shared memory; readers of the export add the two.
            0,
            details.get("shared memory"),
            *_three(details.get("grid")),
            *_three(details.get("block")),
        )

    def _memcpy(self, operation: DeviceOperation) -> tuple[Any, ...]:
        words = operation.name.replace("(", " ").replace(")", " ").split()  # Memcpy HtoD (Pinned -> Device)
        memory = [_MEMORY_KIND_OF.get(word) for word in words if word in _MEMORY_KIND_OF]
        source, target = memory if len(memory) == 2 else (None, None)
        kind = next((_COPY_KIND_OF[word] for word in words if word in _COPY_KIND_OF), 0)
        return (*self._place(operation), operation.details.get("bytes"), kind, source, target)

    def _memset(self, operation: DeviceOperation) -> tuple[Any, ...]:
        return (*self._place(operation), operation.details.get("bytes"))

    def _domain_ids(self) -> dict[str, int]:
        domains = [entry.domain for entry in self._records.values()] + [entry.domain for entry in self._marks]
        return {domain: index for index, domain in enumerate(dict.fromkeys(domains), start=1)}

    def _domains(self) -> Rows:
        thread = self._thread(self._main_thread())
        for domain, index in self._domain_ids().items():
            yield (0, None, _DOMAIN_CREATED, domain, thread, None, index, None)

    def _ranges(self) -> Rows:
        domains = self._domain_ids()
        for index, record in self._records.items():
            # A range without a shadow is of a thread that the profiler does not see.
            start_ns, end_ns, thread_id = self._events.shadows.get(
                index, (record.start_ns, record.end_ns, record.thread_id)
            )
            if record.end_ns is None:
                end_ns = None  # Kineto ends the shadow of an open range with the capture
            yield (
                self._time(start_ns),
                None if end_ns is None else self._time(end_ns),
                _RANGE,
                None,
                self._thread(thread_id),
                self._string(record.name),
                domains[record.domain],
                record.payload,
            )

    def _mark_rows(self) -> Rows:
        domains = self._domain_ids()
        for mark in self._marks:
            thread = self._thread(mark.thread_id)
            yield (self._time(mark.at_ns), None, _MARK, mark.text, thread, None, domains[mark.domain], None)

    def _main_thread(self) -> int:
        return self._threads.most_common(1)[0][0] if self._threads else self._pid

    def _target(self) -> Iterator[tuple[str, tuple[str, ...], Rows]]:
        start = datetime.fromtimestamp(self._origin_ns / 1e9, UTC)
        seconds = start.isoformat(timespec="seconds").removesuffix("+00:00")
        local = start.astimezone().isoformat(timespec="seconds")[:19]
        yield (
            "TARGET_INFO_SESSION_START_TIME",
            ("utcEpochNs", "utcTime", "localTime"),
            [(self._origin_ns, seconds, local)],
        )
        yield (
            "ANALYSIS_DETAILS",
            ("globalVid", "duration", "startTime", "stopTime"),
            [(_VM, self._latest_ns, 0, self._latest_ns)],
        )
        yield "PROCESSES", ("globalPid", "pid", "name"), [(self._global_pid, self._pid, _task_name(self._pid))]
        names = [
            (self._string(_task_name(thread_id)), self._global_pid | thread_id) for thread_id in sorted(self._threads)
        ]
        yield "ThreadNames", ("nameId", "globalTid"), names
        devices = list(_cuda_devices()) if self._on_cuda else [{"id": 0, "name": _cpu_name(), "cuDevice": 0}]
        for device in devices:
            yield "TARGET_INFO_GPU", ("vmId", *device), [(_VM, *device.values())]
        ids = [(device["id"], device["cuDevice"], self._pid) for device in devices]
        yield "TARGET_INFO_CUDA_DEVICE", ("gpuId", "cudaId", "pid"), ids
        yield "ENUM_NSYS_EVENT_TYPE", ("id", "name", "label"), _EVENT_TYPES
        yield "ENUM_CUDA_MEMCPY_OPER", ("id", "name", "label"), _COPY_KINDS
        yield "META_DATA_EXPORT", ("name", "value"), _export_meta().items()
        yield "META_DATA_CAPTURE", ("name", "value"), self._capture_meta().items()

    def _capture_meta(self) -> dict[str, str]:
        meta = {
            COLLECTOR_KEY: "torch-cuda" if self._on_cuda else "torch-cpu",
            "DSOCR_TORCH_VERSION": torch.__version__,
            "DSOCR_OPERATORS": str(len(self._events.operators)),
            "RUN_DURATION_MS": str(self._latest_ns // 1_000_000),
        }
        if not self._on_cuda:
            meta["DSOCR_CPU_THREADS"] = str(torch.get_num_threads())
            meta["DSOCR_KERNELS"] = (
                "operators on the CPU that do work themselves stand where GPU kernels would; "
                "device 0 is the CPU, a stream is a thread"
            )
        return meta


_CALL_COLUMNS = ("start", "end", "eventClass", "globalTid", "correlationId", "nameId")
_PLACE_COLUMNS = ("start", "end", "deviceId", "contextId", "streamId", "correlationId", "globalPid")
_CPU_KERNEL_COLUMNS = (*_PLACE_COLUMNS, "demangledName", "shortName")
_GPU_KERNEL_COLUMNS = (
    *_CPU_KERNEL_COLUMNS,
    *("registersPerThread", "staticSharedMemory", "dynamicSharedMemory"),
    *("gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ"),
)
_MEMCPY_COLUMNS = (*_PLACE_COLUMNS, "bytes", "copyKind", "srcKind", "dstKind")
_MEMSET_COLUMNS = (*_PLACE_COLUMNS, "bytes")
_RANGE_COLUMNS = ("start", "end", "eventType", "text", "globalTid", "textId", "domainId", "int64Value")


def _three(sizes: Any) -> tuple[int | None, int | None, int | None]:
    if isinstance(sizes, list) and len(sizes) == 3:
        return int(sizes[0]), int(sizes[1]), int(sizes[2])
    return None, None, None


def _short_name(name: str) -> str:
    """A kernel's name without return type, namespaces, template arguments and parameters, as nsys shortens it."""
    if name.startswith("_ZN"):
        return _innermost(name) or name
    plain = name.replace("(anonymous namespace)::", "").removeprefix("void ")
    head = plain.split("<", 1)[0].split("(", 1)[0]
    return head.rsplit("::", 1)[-1].strip() or name


def _innermost(mangled: str) -> str:
    """Last part of a mangled nested name: ``_ZN7cutlass13device_kernelI…`` is ``device_kernel``."""
    rest, part = mangled[3:], ""
    while digits := re.match(r"\d{1,4}", rest):
        end = digits.end() + int(digits[0])
        part, rest = rest[digits.end() : end], rest[end:]
    return part


def _warn_of_skew(calls: list[tuple[Any, ...]], ranges: list[tuple[Any, ...]]) -> None:
    """Say so if calls cross the bounds of ranges on their thread, which one clock rules out."""
    crossing = 0
    for thread in {row[4] for row in ranges}:
        bounds = np.array(
            [moment for row in ranges if row[4] == thread for moment in row[:2] if moment is not None], dtype=np.int64
        )
        bounds.sort()
        spans = np.array([row[:2] for row in calls if row[3] == thread], dtype=np.int64).reshape(-1, 2)
        crossing += int(
            (np.searchsorted(bounds, spans[:, 0], "right") < np.searchsorted(bounds, spans[:, 1], "left")).sum()
        )
    if crossing:
        _log.warning("torch collector: %d of %d calls cross the bounds of a range: clocks differ", crossing, len(calls))


# -- schema ------------------------------------------------------------------------------------------------------------

SCHEMA_VERSION: Final = (3, 20, 3)

KERNELS: Final = "CUPTI_ACTIVITY_KIND_KERNEL"
MEMCPYS: Final = "CUPTI_ACTIVITY_KIND_MEMCPY"
MEMSETS: Final = "CUPTI_ACTIVITY_KIND_MEMSET"
API_CALLS: Final = "CUPTI_ACTIVITY_KIND_RUNTIME"
RANGES: Final = "NVTX_EVENTS"

_GPU_OPERATION = """
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, deviceId INTEGER NOT NULL, contextId INTEGER NOT NULL,
    greenContextId INTEGER, streamId INTEGER NOT NULL, correlationId INTEGER, globalPid INTEGER"""

TABLES: Final[dict[str, str]] = {
    "StringIds": "id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL",
    "META_DATA_EXPORT": "name TEXT NOT NULL, value TEXT",
    "META_DATA_CAPTURE": "name TEXT NOT NULL, value TEXT",
    "ENUM_NSYS_EVENT_TYPE": "id INTEGER NOT NULL PRIMARY KEY, name TEXT, label TEXT",
    "ENUM_CUDA_MEMCPY_OPER": "id INTEGER NOT NULL PRIMARY KEY, name TEXT, label TEXT",
    "TARGET_INFO_SESSION_START_TIME": "utcEpochNs INTEGER, utcTime TEXT, localTime TEXT",
    "ANALYSIS_DETAILS": """
        globalVid INTEGER NOT NULL, duration INTEGER NOT NULL, startTime INTEGER NOT NULL,
        stopTime INTEGER NOT NULL""",
    "PROCESSES": "globalPid INTEGER, pid INTEGER, name TEXT",
    "ThreadNames": "nameId INTEGER NOT NULL, priority INTEGER, globalTid INTEGER",
    "TARGET_INFO_GPU": """
        vmId INTEGER NOT NULL, id INTEGER NOT NULL, name TEXT, busLocation TEXT, isDiscrete INTEGER,
        l2CacheSize INTEGER, totalMemory INTEGER, memoryBandwidth INTEGER, clockRate INTEGER, smCount INTEGER,
        pwGpuId INTEGER, uuid TEXT, luid INTEGER, chipName TEXT, cuDevice INTEGER, ctxswDevPath TEXT, ctrlDevPath TEXT,
        revision INTEGER, nodeMask INTEGER, constantMemory INTEGER, maxIPC INTEGER, maxRegistersPerBlock INTEGER,
        maxShmemPerBlock INTEGER, maxShmemPerBlockOptin INTEGER, maxShmemPerSm INTEGER, maxRegistersPerSm INTEGER,
        threadsPerWarp INTEGER, asyncEngines INTEGER, maxWarpsPerSm INTEGER, maxBlocksPerSm INTEGER,
        maxThreadsPerBlock INTEGER, maxBlockDimX INTEGER, maxBlockDimY INTEGER, maxBlockDimZ INTEGER,
        maxGridDimX INTEGER, maxGridDimY INTEGER, maxGridDimZ INTEGER, computeMajor INTEGER, computeMinor INTEGER,
        smMajor INTEGER, smMinor INTEGER""",
    "TARGET_INFO_CUDA_DEVICE": "gpuId INTEGER, cudaId INTEGER NOT NULL, pid INTEGER NOT NULL",
    RANGES: """
        start INTEGER NOT NULL, "end" INTEGER, eventType INTEGER NOT NULL, rangeId INTEGER, category INTEGER,
        color INTEGER, text TEXT, globalTid INTEGER, endGlobalTid INTEGER, textId INTEGER, domainId INTEGER,
        uint64Value INTEGER, int64Value INTEGER, doubleValue REAL, uint32Value INTEGER, int32Value INTEGER,
        floatValue REAL, jsonTextId INTEGER, jsonText TEXT, binaryData TEXT""",
    API_CALLS: """
        start INTEGER NOT NULL, "end" INTEGER NOT NULL, eventClass INTEGER NOT NULL, globalTid INTEGER,
        correlationId INTEGER, nameId INTEGER NOT NULL, returnValue INTEGER, callchainId INTEGER""",
    KERNELS: f"""{_GPU_OPERATION},
        demangledName INTEGER NOT NULL, shortName INTEGER NOT NULL, mangledName INTEGER, launchType INTEGER,
        cacheConfig INTEGER, registersPerThread INTEGER, gridX INTEGER, gridY INTEGER, gridZ INTEGER, blockX INTEGER,
        blockY INTEGER, blockZ INTEGER, staticSharedMemory INTEGER, dynamicSharedMemory INTEGER,
        localMemoryPerThread INTEGER, localMemoryTotal INTEGER, gridId INTEGER, sharedMemoryExecuted INTEGER,
        graphNodeId INTEGER, sharedMemoryLimitConfig INTEGER""",
    MEMSETS: f"{_GPU_OPERATION}, value INTEGER, bytes INTEGER, graphNodeId INTEGER, memKind INTEGER",
    MEMCPYS: f"""{_GPU_OPERATION},
        bytes INTEGER, copyKind INTEGER NOT NULL, deprecatedSrcId INTEGER, srcKind INTEGER, dstKind INTEGER,
        srcDeviceId INTEGER, srcContextId INTEGER, dstDeviceId INTEGER, dstContextId INTEGER, migrationCause INTEGER,
        graphNodeId INTEGER, virtualAddress INTEGER, copyCount INTEGER""",
}
"""Column definitions of each table."""


def _insert_statement(table: str, columns: tuple[str, ...]) -> str:
    """SQL that inserts one row of ``columns``; the table's other columns become NULL."""
    return f'INSERT INTO "{table}" ({", ".join(columns)}) VALUES ({", ".join("?" for _ in columns)})'


# -- machine -----------------------------------------------------------------------------------------------------------

_PRODUCT: Final = "dsocr-profiler torch collector"


def _export_meta() -> dict[str, str]:
    """Rows of ``META_DATA_EXPORT``: who wrote the file, and whose schema it follows."""
    try:
        package = version("dsocr-profiler")
    except PackageNotFoundError:  # run from a source tree
        package = "unknown"
    major, minor, micro = SCHEMA_VERSION
    return {
        "EXPORT_PRODUCT_NAME": _PRODUCT,
        "EXPORT_PRODUCT_VERSION": package,
        "EXPORT_SCHEMA_VERSION": f"{major}.{minor}.{micro}",
        "EXPORT_SCHEMA_VERSION_MAJOR": str(major),
        "EXPORT_SCHEMA_VERSION_MINOR": str(minor),
        "EXPORT_SCHEMA_VERSION_MICRO": str(micro),
        "EXPORT_PLATFORM": platform.system().lower(),
        "EXPORT_ARCH": platform.machine(),
        "EXPORT_TIME_UTC": datetime.now(UTC).isoformat(timespec="seconds").removesuffix("+00:00"),
    }


def _task_name(thread_id: int) -> str:
    """Name of a thread of this process; empty if it has ended."""
    try:
        return Path(f"/proc/self/task/{thread_id}/comm").read_text().strip()
    except OSError:
        return ""


def _cpu_name() -> str:
    """``CPU (<model>)``."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
    return f"CPU ({model or platform.processor() or platform.machine()})"


def _cuda_devices() -> Iterator[dict[str, Any]]:
    """What torch knows of each device, under the export's column names and in its units (B, B/s, Hz)."""
    for index in range(torch.cuda.device_count()):
        device: Any = torch.cuda.get_device_properties(index)

        def known(attribute: str, device: Any = device) -> Any:
            return getattr(device, attribute, None) or None

        memory_khz, bus_bits, clock_khz = known("memory_clock_rate"), known("memory_bus_width"), known("clock_rate")
        threads, warp = known("max_threads_per_multi_processor"), known("warp_size")
        yield {
            "id": index,
            "name": device.name,
            "l2CacheSize": known("L2_cache_size"),
            "totalMemory": device.total_memory,
            # Two transfers per clock: gives what nsys writes for an H100 (3,352,320,000,000 B/s).
            "memoryBandwidth": 2 * memory_khz * 1000 * bus_bits // 8 if memory_khz and bus_bits else None,
            "clockRate": clock_khz * 1000 if clock_khz else None,
            "smCount": device.multi_processor_count,
            "uuid": str(uuid) if (uuid := known("uuid")) else None,
            "cuDevice": index,
            "maxShmemPerSm": known("shared_memory_per_multiprocessor"),
            "maxRegistersPerSm": known("regs_per_multiprocessor"),
            "threadsPerWarp": warp,
            "maxWarpsPerSm": threads // warp if threads and warp else None,
            "computeMajor": device.major,
            "computeMinor": device.minor,
        }
