"""The tables of an Nsight Systems export that we read, and what each must have.

Tables are created lazily and columns come and go between versions, so every query is made from what the file has:
a missing required column is an error that names it, a missing optional one reads as its default. What a column may hold is
declared here, once: `analysis.trace.checks` holds each row that is read to it, and docs/trace-checks.md is made of it.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import evolve, field, frozen

__all__ = [
    "ANALYSIS_DETAILS",
    "CALLS",
    "CAPTURE_META",
    "CHECKED",
    "CONTEXTS",
    "DEVICES",
    "DIAGNOSTICS",
    "EXPORT_META",
    "GPUS",
    "GPU_METRICS",
    "GPU_METRIC_NAMES",
    "GRAPHS",
    "GRAPH_NODES",
    "KERNELS",
    "LONGEST_NS",
    "MEMCPYS",
    "MEMSETS",
    "NVTX",
    "OVERHEAD",
    "PAYLOAD_FIELDS",
    "PAYLOAD_SCHEMAS",
    "PROCESSES",
    "START_TIME",
    "STREAMS",
    "STRINGS",
    "THREAD_NAMES",
    "Column",
    "TableSpec",
]


Default: TypeAlias = int | str | None


@frozen
class Column:
    """What a column of a table may hold. What SQLite keeps in another type than it should is refused, whatever the column."""

    kind: Literal["integer", "text", "bytes"] = "integer"
    low: int | None = None
    """Least value, of an integer; None: any."""
    high: int | None = None
    """Greatest value; None: any of 64 bits."""
    required: bool = False
    """Whether the table is useless without the column."""
    default: Default = None
    """What it reads as where the file lacks it."""
    null: bool = True
    """Whether it may be NULL."""
    refused: bool = False
    """What happens to a value out of range: True: the trace is refused; False: it reads as not recorded, and is reported."""
    refers: tuple[str, str] | None = None
    """Table and column in which the value must be, if the file has that table: else it is reported."""
    mask: int | None = None
    """Of the value, these bits must be there; None: all."""


@frozen
class TableSpec:
    """One table: its names over the versions, and the columns that are read."""

    names: tuple[str, ...]
    columns: dict[str, Column] = field(factory=dict)

    @property
    def required(self) -> tuple[str, ...]:
        """Columns without which the table is useless."""
        return tuple(name for name, column in self.columns.items() if column.required)

    @property
    def optional(self) -> dict[str, Default]:
        """The other columns → what each reads as where the file lacks it."""
        return {name: column.default for name, column in self.columns.items() if not column.required}


_TIME: Final = 2**62
"""ns, 146 years: no clock of a trace shows more, and differences of such times fit 64 bits."""
LONGEST_NS: Final = 30 * 86_400 * 10**9
"""Events farther apart than 30 days are not of one capture: nsys takes minutes. It also keeps sums of times within 64 bits."""
_ID: Final = 2**31 - 1
_BYTES: Final = 2**50
"""A pebibyte: no copy, and no GPU's memory, is larger."""

_time = Column(low=-_TIME, high=_TIME, required=True, null=False, refused=True)
_duration = Column(low=0, high=LONGEST_NS)
_string = Column(low=0, high=_ID, refers=("StringIds", "id"))
_process = Column(refers=("PROCESSES", "globalPid"))
_thread = Column(refers=("PROCESSES", "globalPid"), mask=~0xFFFFFF)
_text = Column("text")
_node = Column(low=0)
_bytes = Column(low=0, high=_BYTES)


def _needed(column: Column) -> Column:
    return evolve(column, required=True)


_OPERATION: Final = {
    "start": _time,
    "end": _time,
    "deviceId": Column(low=0, high=1023, default=0, refused=True),
    "streamId": Column(low=0, high=2**32 - 1, default=0, refused=True),
    "correlationId": Column(low=0, high=2**32 - 1),
    "globalPid": _process,
    "graphNodeId": _node,
}

KERNELS = TableSpec(
    ("CUPTI_ACTIVITY_KIND_KERNEL",),
    _OPERATION
    | {
        "demangledName": _string,
        "shortName": _string,
        # CUDA's limits of a launch (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
        "gridX": Column(low=1, high=2**31 - 1),
        "gridY": Column(low=1, high=65535),
        "gridZ": Column(low=1, high=65535),
        "blockX": Column(low=1, high=1024),
        "blockY": Column(low=1, high=1024),
        "blockZ": Column(low=1, high=64),
        "registersPerThread": Column(low=0, high=511),
        "staticSharedMemory": Column(low=0, high=2**22),
        "dynamicSharedMemory": Column(low=0, high=2**22),
    },
)
MEMCPYS = TableSpec(
    ("CUPTI_ACTIVITY_KIND_MEMCPY",), _OPERATION | {"bytes": _bytes, "copyKind": Column(low=0, high=126)}
)
MEMSETS = TableSpec(("CUPTI_ACTIVITY_KIND_MEMSET",), _OPERATION | {"bytes": _bytes})
GRAPHS = TableSpec(("CUPTI_ACTIVITY_KIND_GRAPH_TRACE",), _OPERATION | {"graphId": Column(low=0, high=2**40)})
GRAPH_NODES = TableSpec(
    ("CUDA_GRAPH_NODE_EVENTS",),
    {"start": _time, "graphNodeId": _needed(_node), "globalTid": _thread, "originalGraphNodeId": _node},
)
CALLS = TableSpec(
    ("CUPTI_ACTIVITY_KIND_RUNTIME",),
    {
        "start": _time,
        "end": _time,
        "globalTid": _thread,
        "correlationId": Column(low=0, high=2**32 - 1),
        "nameId": _string,
        "returnValue": Column(low=-(2**31), high=2**31 - 1, default=0),
    },
)
NVTX = TableSpec(
    ("NVTX_EVENTS",),
    {
        "start": _time,
        "end": Column(low=-_TIME, high=_TIME, refused=True),
        "eventType": Column(low=0, high=_ID, default=59, null=False, refused=True),
        "text": _text,
        "textId": _string,
        "globalTid": _thread,
        "endGlobalTid": _thread,
        "domainId": Column(low=0, high=2**24 - 1, default=0, refused=True),
        "int64Value": Column(),
        "uint64Value": Column(),
        "int32Value": Column(low=-(2**31), high=2**31 - 1),
        "uint32Value": Column(low=0, high=2**32 - 1),
        "binaryData": Column("bytes"),
    },
)
PAYLOAD_SCHEMAS = TableSpec(
    ("NVTX_PAYLOAD_SCHEMAS",),
    {
        "domainId": Column(required=True),
        "schemaId": Column(required=True),
        "payloadSize": Column(low=0, high=2**16, refused=True),
    },
)
PAYLOAD_FIELDS = TableSpec(
    ("NVTX_PAYLOAD_SCHEMA_ENTRIES",),
    {
        "domainId": Column(required=True),
        "schemaId": Column(required=True),
        "type": Column(required=True),
        "name": _needed(_text),
        "idx": Column(default=0),
        "offset": Column(low=0, high=2**16, default=0, refused=True),
    },
)
STRINGS = TableSpec(
    ("StringIds",),
    {"id": Column(low=0, high=_ID, required=True, null=False, refused=True), "value": _needed(_text)},
)
PROCESSES = TableSpec(("PROCESSES",), {"globalPid": Column(required=True), "name": _text})
THREAD_NAMES = TableSpec(("ThreadNames",), {"globalTid": Column(required=True), "nameId": _needed(_string)})
EXPORT_META = TableSpec(("META_DATA_EXPORT", "EXPORT_META_DATA"), {"name": _needed(_text), "value": _needed(_text)})
CAPTURE_META = TableSpec(("META_DATA_CAPTURE",), {"name": _needed(_text), "value": _needed(_text)})
DIAGNOSTICS = TableSpec(
    ("DIAGNOSTIC_EVENT",),
    {
        "text": _needed(_text),
        "timestamp": Column(low=-_TIME, high=_TIME, default=0),
        "severity": Column(low=0, high=127),
        "globalPid": Column(),
    },
)
ANALYSIS_DETAILS = TableSpec(
    ("ANALYSIS_DETAILS",),
    {
        "duration": _needed(_duration),
        "startTime": Column(low=-_TIME, high=_TIME),
        "stopTime": Column(low=-_TIME, high=_TIME),
    },
)
START_TIME = TableSpec(("TARGET_INFO_SESSION_START_TIME",), {"utcTime": _text})
OVERHEAD = TableSpec(("PROFILER_OVERHEAD",), {"start": _time, "end": _time})
GPUS = TableSpec(
    ("TARGET_INFO_GPU",),
    {
        "name": _needed(_text),
        "id": Column(),
        "cuDevice": Column(low=0, high=1023),
        "totalMemory": Column(low=2**24, high=_BYTES),
        "memoryBandwidth": Column(low=10**8, high=10**15),
        "clockRate": Column(low=10**7, high=10**11),
        "smCount": Column(low=1, high=4096),
        "computeMajor": Column(low=0, high=99),
        "computeMinor": Column(low=0, high=99),
        "maxWarpsPerSm": Column(low=1, high=1024),
        "maxBlocksPerSm": Column(low=1, high=1024),
        "maxRegistersPerSm": Column(low=1, high=2**24),
        "maxShmemPerSm": Column(low=1, high=2**30),
    },
)
DEVICES = TableSpec(
    ("TARGET_INFO_CUDA_DEVICE",),
    {
        "gpuId": Column(low=0, high=1023, required=True, refused=True),
        "cudaId": Column(low=0, high=1023, required=True, refused=True),
        "pid": Column(required=True),
    },
)
CONTEXTS = TableSpec(
    ("TARGET_INFO_CUDA_CONTEXT_INFO",),
    {
        "contextId": Column(low=0, high=2**32 - 1, required=True),
        "processId": Column(required=True),
        "deviceId": Column(low=0, high=1023, required=True),
        "nullStreamId": Column(low=0, high=2**32 - 1),
    },
)
STREAMS = TableSpec(
    ("TARGET_INFO_CUDA_STREAM",),
    {"streamId": Column(low=0, high=2**32 - 1, required=True), "processId": Column(required=True)},
)
GPU_METRICS = TableSpec(
    ("GPU_METRICS",),
    {
        "timestamp": _time,
        "metricId": Column(low=0, high=2**31 - 1, required=True),
        "value": Column(low=-(2**53), high=2**53, required=True, null=False, refused=True),
        "typeId": Column(default=0),
    },
)
GPU_METRIC_NAMES = TableSpec(
    ("TARGET_INFO_GPU_METRICS",),
    {
        "metricId": Column(low=0, high=2**31 - 1, required=True, refused=True),
        "metricName": _needed(_text),
        "typeId": Column(default=0),
    },
)

CHECKED: Final = (
    KERNELS, MEMCPYS, MEMSETS, GRAPHS, GRAPH_NODES, CALLS, NVTX, PAYLOAD_SCHEMAS, PAYLOAD_FIELDS, STRINGS, PROCESSES,
    THREAD_NAMES, EXPORT_META, CAPTURE_META, DIAGNOSTICS, ANALYSIS_DETAILS, START_TIME, GPUS, DEVICES, CONTEXTS,
    STREAMS, GPU_METRICS, GPU_METRIC_NAMES,
)  # fmt: skip
"""All tables that are read, in the order of the page that lists their checks."""
