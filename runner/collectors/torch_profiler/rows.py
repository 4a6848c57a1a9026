"""One capture of the torch collector as rows of an export's tables."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from runner.collectors.torch_profiler import trace_tables as tables
from runner.collectors.torch_profiler.events import DeviceOperation, SortedEvents, working_stretches
from runner.collectors.torch_profiler.host import cpu_name, cuda_devices, export_meta, task_name
from runner.collectors.torch_profiler.ranges import MarkRecord, RangeRecord

__all__ = ["COLLECTOR_KEY", "CaptureRows", "Rows"]

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
            yield tables.KERNELS, _CPU_KERNEL_COLUMNS, self._working_operators()
        if calls:
            yield tables.API_CALLS, _CALL_COLUMNS, calls
        if ranges or self._marks:
            yield tables.RANGES, _RANGE_COLUMNS, [*self._domains(), *ranges, *self._mark_rows()]
            _warn_of_skew(calls, ranges)
        yield from self._target()
        yield "StringIds", ("id", "value"), ((one, text) for text, one in self._strings.items())

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
            yield tables.KERNELS, _GPU_KERNEL_COLUMNS, map(self._kernel, by_kind["kernel"])
        if by_kind["gpu_memcpy"]:
            yield tables.MEMCPYS, _MEMCPY_COLUMNS, map(self._memcpy, by_kind["gpu_memcpy"])
        if by_kind["gpu_memset"]:
            yield tables.MEMSETS, _MEMSET_COLUMNS, map(self._memset, by_kind["gpu_memset"])

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
        domains = [one.domain for one in self._records.values()] + [one.domain for one in self._marks]
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
        yield "PROCESSES", ("globalPid", "pid", "name"), [(self._global_pid, self._pid, task_name(self._pid))]
        names = [
            (self._string(task_name(thread_id)), self._global_pid | thread_id) for thread_id in sorted(self._threads)
        ]
        yield "ThreadNames", ("nameId", "globalTid"), names
        devices = list(cuda_devices()) if self._on_cuda else [{"id": 0, "name": cpu_name(), "cuDevice": 0}]
        for device in devices:
            yield "TARGET_INFO_GPU", ("vmId", *device), [(_VM, *device.values())]
        ids = [(device["id"], device["cuDevice"], self._pid) for device in devices]
        yield "TARGET_INFO_CUDA_DEVICE", ("gpuId", "cudaId", "pid"), ids
        yield "ENUM_NSYS_EVENT_TYPE", ("id", "name", "label"), _EVENT_TYPES
        yield "ENUM_CUDA_MEMCPY_OPER", ("id", "name", "label"), _COPY_KINDS
        yield "META_DATA_EXPORT", ("name", "value"), export_meta().items()
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
