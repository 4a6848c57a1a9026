"""What a trace holds, as columns: one record per table, one array per column, rows in time order."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
from attrs import Factory, field, frozen
from numpy.typing import NDArray

from analysis.trace.launch_shapes import LaunchShapes

__all__ = [
    "GRAPH",
    "KERNEL",
    "MEMCPY",
    "MEMSET",
    "NO_VALUE",
    "PROCESS_MASK",
    "Calls",
    "Context",
    "Device",
    "GraphNodes",
    "Marks",
    "MetricSamples",
    "Operations",
    "OtherCalls",
    "RangeRows",
    "TraceInfo",
    "pid_of",
]

Codes: TypeAlias = NDArray[np.signedinteger[Any]]
Times: TypeAlias = NDArray[np.int64]

KERNEL: Final = 0
MEMCPY: Final = 1
MEMSET: Final = 2
GRAPH: Final = 3
"""A CUDA graph traced as a whole: one operation, its kernels invisible."""

PROCESS_MASK: Final = ~0xFFFFFF
"""``globalPid == globalTid & PROCESS_MASK``: the low 24 bits are the thread."""

_ID_MASK: Final = 0xFFFFFF
"""A serialised id: 8 bits of hardware, 8 of virtual machine, 24 of process, 24 of thread."""

NO_VALUE: Final = -(2**63)
"""Stands for NULL in an int64 column."""


def pid_of(process: int) -> int:
    """Process id in a serialised global process id."""
    return process >> 24 & _ID_MASK


@frozen(eq=False)
class Operations:
    """GPU operations – kernels, memcpys, memsets and whole graphs – sorted by start. All arrays are [n]."""

    start: Times
    """ns on the trace's clock."""
    end: Times
    kind: Codes
    """`KERNEL`, `MEMCPY`, `MEMSET` or `GRAPH`."""
    name: Codes
    """Index into ``names`` and ``short_names``."""
    process: Codes
    """Index into `TraceInfo.processes`; -1: the row does not say."""
    correlation: Codes
    """-1: the row has none."""
    device: Codes
    """CUDA's number of it, as the process sees it."""
    stream: Codes
    in_graph: NDArray[np.bool_]
    """Whether a CUDA graph launched it."""
    graph_node: Codes
    """Index into ``graph_nodes``; -1: no graph's, or the trace does not say when nodes were recorded."""
    shape: Codes
    """Index into ``shapes``; -1: not recorded, or not a kernel."""
    size: Times
    """Bytes copied or set; 0 for kernels and graphs; -1: not recorded."""
    names: tuple[str, ...]
    """Demangled kernel names; for the rest what they do (``[CUDA memcpy Host-to-Device]``)."""
    short_names: tuple[str, ...]
    shapes: LaunchShapes
    graph_nodes: Times
    """Ids of graph nodes: the executable graph's id << 32 | the node's place in it. They repeat across processes."""
    copy_kinds: Codes
    """By name: CUPTI's copyKind for memcpys (1 host to device, 2 device to host, 8 device to device), else -1."""
    gpu: Codes = field(default=Factory(lambda self: self.device, takes_self=True))
    """Which GPU of the machine it ran on: ``device``, but where two processes call different GPUs by one number."""

    def __len__(self) -> int:
        return int(self.start.size)

    @cached_property
    def duration(self) -> Times:
        """End − start, ns, [n]. Asked for by every table."""
        return self.end - self.start


@frozen(eq=False)
class GraphNodes:
    """Events of CUDA graph nodes, in the file's order: a node was added to a graph, or cloned. All arrays are [n]."""

    start: Times
    """ns: when it was recorded or cloned."""
    thread: Codes
    """Index into `TraceInfo.threads`; -1: the row does not say."""
    node: Times
    """Id within the process."""
    original: Times
    """Id of the node that it was cloned from; `NO_VALUE`: of none."""

    def __len__(self) -> int:
        return int(self.start.size)


@frozen(eq=False)
class Calls:
    """CUDA API calls that can own GPU work or make the host wait, sorted by thread, then start. All arrays are [n]."""

    start: Times
    duration: Codes
    """ns."""
    thread: Codes
    """Index into `TraceInfo.threads`; -1: the row does not say."""
    correlation: Codes
    name: Codes
    """Index into ``names`` and ``results``: one code per name and result."""
    names: tuple[str, ...]
    """Unnamed calls have an empty one."""
    results: Times
    """What the calls returned (cudaError_t or CUresult), by name code; 0: success, or not recorded."""

    def __len__(self) -> int:
        return int(self.start.size)

    @property
    def end(self) -> Times:
        """ns, [n]."""
        return self.start + self.duration


@frozen(eq=False)
class OtherCalls:
    """When the remaining CUDA API calls ran, sorted by thread, then start. All arrays are [n]."""

    start: Times
    duration: Codes
    """ns."""
    thread: Codes

    def __len__(self) -> int:
        return int(self.start.size)


@frozen(eq=False)
class RangeRows:
    """NVTX ranges as recorded, in the file's order. All arrays are [n]."""

    start: Times
    end: Times
    """Unclosed ranges last to the end of the trace."""
    unclosed: NDArray[np.bool_]
    paired: NDArray[np.bool_]
    """True: push/pop (nests on its thread); False: start/end (may overlap, and end on another thread)."""
    name: Codes
    """Index into ``names``."""
    domain: Codes
    """Index into ``domains``."""
    thread: Codes
    end_thread: Codes
    """-1: the same thread, or not recorded."""
    payload: Times
    """int64 or uint64 payload, `NO_VALUE` where there is none."""
    names: tuple[str, ...]
    domains: tuple[str, ...]
    """The default domain is the empty string."""

    def __len__(self) -> int:
        return int(self.start.size)


@frozen
class Marks:
    """NVTX marks: instants with a text."""

    start_ns: tuple[int, ...]
    domains: tuple[str, ...]
    texts: tuple[str, ...]


@frozen(eq=False)
class MetricSamples:
    """Samples of GPU metrics. All arrays are [n]."""

    time_ns: Times
    metric: Codes
    """Index into ``names``."""
    value: Times
    names: tuple[tuple[int, str], ...]
    """(source number, name) of each metric; one source per GPU."""


@frozen
class Device:
    """A GPU as the driver describes it; None: not recorded."""

    device_id: int | None
    name: str
    sm_count: int | None = None
    clock_hz: int | None = None
    memory_bytes: int | None = None
    memory_bytes_per_s: int | None = None
    compute_capability: str | None = None
    max_warps_per_sm: int | None = None
    max_blocks_per_sm: int | None = None
    max_registers_per_sm: int | None = None
    max_shared_bytes_per_sm: int | None = None


@frozen
class Context:
    """A CUDA context; None: not recorded."""

    pid: int | None
    context: int | None
    device: int | None
    null_stream: int | None
    """The stream that is meant where a program names none."""


@frozen
class Diagnostic:
    """A message of the profiler."""

    at: int
    """ns on the trace's clock; 0: the file does not say."""
    severity: int | None
    """1 information, 2 warning, 3 error."""
    text: str
    process: int | None
    """Serialised global process id that it is about; None: the file does not say."""


@frozen
class TraceInfo:
    """What the file says of itself."""

    path: str
    product: str | None
    """Who wrote it, such as ``NVIDIA Nsight Systems 2025.3.2.0``."""
    schema_version: str | None
    export: dict[str, str]
    capture: dict[str, str]
    processes: tuple[int, ...]
    """Serialised global process ids, by code."""
    threads: tuple[int, ...]
    """Serialised global thread ids, by code."""
    thread_process: tuple[int, ...]
    """Thread code → process code."""
    process_names: dict[int, str]
    """Process code → name, where the file has one."""
    thread_names: dict[int, str]
    """Thread code → name, where the file has one."""
    devices: tuple[Device, ...]
    diagnostics: tuple[Diagnostic, ...]
    duration_ns: int | None
    wall_clock: str | None
    """UTC at the start of the capture."""
    tables: tuple[str, ...]
    session_ns: tuple[int, int] | None = None
    """Start and stop of the session on a clock of its own; None: the file does not say."""
    streams: frozenset[tuple[int, int]] = frozenset()
    """(process id, stream) of all streams of which the file tells; empty: of none."""
    contexts: frozenset[Context] = frozenset()
    """All contexts of which the file tells; empty: of none."""
    cuda_ordinals: frozenset[int] = frozenset()
    """Of every device that the file describes, in any of its processes; empty: it does not say."""

    @property
    def on_cpu(self) -> bool:
        """Whether operators of a CPU stand where kernels would, with what begins them as launches: of our torch collector."""
        return self.capture.get("DSOCR_COLLECTOR") == "torch-cpu"

    def pid(self, process: int) -> int | None:
        """Process id of a process code; None for -1."""
        return None if process < 0 else pid_of(self.processes[process])

    def tid(self, thread: int) -> int | None:
        """Thread id of a thread code; None for -1."""
        return None if thread < 0 else self.threads[thread] & _ID_MASK
