"""The tables of an Nsight Systems export that we read, and what each must have.

Tables are created lazily and columns come and go between versions, so every query is made from what the file has:
a missing required column is an error that names it, a missing optional one reads as its default.
"""

from __future__ import annotations

from attrs import field, frozen

__all__ = [
    "ANALYSIS_DETAILS",
    "CALLS",
    "CAPTURE_META",
    "DEVICES",
    "DIAGNOSTICS",
    "EXPORT_META",
    "GPUS",
    "GPU_METRICS",
    "GPU_METRIC_NAMES",
    "GRAPHS",
    "GRAPH_NODES",
    "KERNELS",
    "MEMCPYS",
    "MEMSETS",
    "NVTX",
    "OVERHEAD",
    "PAYLOAD_FIELDS",
    "PAYLOAD_SCHEMAS",
    "PROCESSES",
    "STRINGS",
    "THREAD_NAMES",
    "TableSpec",
]


@frozen
class TableSpec:
    """One table: its names over the versions, the columns without which it is useless, and those with a default."""

    names: tuple[str, ...]
    required: tuple[str, ...]
    optional: dict[str, int | str | None] = field(factory=dict)
    """Column → what it reads as where the file lacks it."""


_OPERATION = ("start", "end")
_OPERATION_OPTIONAL: dict[str, int | str | None] = {
    "deviceId": 0,
    "contextId": 0,
    "streamId": 0,
    "correlationId": None,
    "globalPid": None,
    "graphNodeId": None,
}

KERNELS = TableSpec(
    ("CUPTI_ACTIVITY_KIND_KERNEL",),
    _OPERATION,
    _OPERATION_OPTIONAL
    | {"demangledName": None, "shortName": None, "mangledName": None, "registersPerThread": None}
    | dict.fromkeys(("gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ"))
    | dict.fromkeys(("staticSharedMemory", "dynamicSharedMemory")),
)
MEMCPYS = TableSpec(
    ("CUPTI_ACTIVITY_KIND_MEMCPY",), _OPERATION, _OPERATION_OPTIONAL | {"bytes": None, "copyKind": None}
)
MEMSETS = TableSpec(("CUPTI_ACTIVITY_KIND_MEMSET",), _OPERATION, _OPERATION_OPTIONAL | {"bytes": None})
GRAPHS = TableSpec(("CUPTI_ACTIVITY_KIND_GRAPH_TRACE",), _OPERATION, _OPERATION_OPTIONAL | {"graphId": None})
GRAPH_NODES = TableSpec(
    ("CUDA_GRAPH_NODE_EVENTS",), ("start", "graphNodeId"), {"globalTid": None, "originalGraphNodeId": None}
)
CALLS = TableSpec(
    ("CUPTI_ACTIVITY_KIND_RUNTIME",),
    ("start", "end"),
    {"globalTid": None, "correlationId": None, "nameId": None, "returnValue": 0},
)
NVTX = TableSpec(
    ("NVTX_EVENTS",),
    ("start",),
    {
        "end": None,
        "eventType": 59,
        "text": None,
        "textId": None,
        "globalTid": None,
        "endGlobalTid": None,
        "domainId": 0,
        "int64Value": None,
        "uint64Value": None,
        "int32Value": None,
        "uint32Value": None,
        "doubleValue": None,
        "floatValue": None,
        "binaryData": None,
    },
)
PAYLOAD_SCHEMAS = TableSpec(("NVTX_PAYLOAD_SCHEMAS",), ("domainId", "schemaId"), {"payloadSize": None})
PAYLOAD_FIELDS = TableSpec(
    ("NVTX_PAYLOAD_SCHEMA_ENTRIES",), ("domainId", "schemaId", "type", "name"), {"idx": 0, "offset": 0}
)
STRINGS = TableSpec(("StringIds",), ("id", "value"))
PROCESSES = TableSpec(("PROCESSES",), ("globalPid",), {"pid": None, "name": None})
THREAD_NAMES = TableSpec(("ThreadNames",), ("globalTid", "nameId"))
EXPORT_META = TableSpec(("META_DATA_EXPORT", "EXPORT_META_DATA"), ("name", "value"))
CAPTURE_META = TableSpec(("META_DATA_CAPTURE",), ("name", "value"))
DIAGNOSTICS = TableSpec(("DIAGNOSTIC_EVENT",), ("text",), {"timestamp": 0, "severity": None, "globalPid": None})
ANALYSIS_DETAILS = TableSpec(("ANALYSIS_DETAILS",), ("duration",), {"startTime": None, "stopTime": None})
OVERHEAD = TableSpec(("PROFILER_OVERHEAD",), ("start", "end"), {"globalTid": None, "nameId": None})
GPUS = TableSpec(
    ("TARGET_INFO_GPU",),
    ("name",),
    dict.fromkeys(
        (
            "id", "vmId", "totalMemory", "memoryBandwidth", "clockRate", "smCount", "chipName", "computeMajor",
            "computeMinor", "cuDevice", "l2CacheSize", "maxWarpsPerSm", "maxBlocksPerSm", "maxRegistersPerSm",
            "maxShmemPerSm", "threadsPerWarp",
        )
    ),
)  # fmt: skip
DEVICES = TableSpec(("TARGET_INFO_CUDA_DEVICE",), ("gpuId", "cudaId", "pid"))
GPU_METRICS = TableSpec(("GPU_METRICS",), ("timestamp", "metricId", "value"), {"typeId": 0})
GPU_METRIC_NAMES = TableSpec(("TARGET_INFO_GPU_METRICS",), ("metricId", "metricName"), {"typeId": 0})
