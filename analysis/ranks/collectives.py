"""The collectives of one rank, as columns: what leaves the process that read its trace."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.host_calls import HostCalls, WindowTimes
from analysis.sums.kernel_classes import Rules, classify_all, is_communication
from analysis.trace.payloads import Payloads
from analysis.trace.records import KERNEL

__all__ = ["NOT_NAMED", "Collectives", "collectives_of"]

NOT_NAMED: Final = (
    "are replays of CUDA graphs, which have no NCCL range of their own to name a communicator",
    "have no payload of NCCL in the trace to name a communicator",
    "are not NCCL's, which alone names communicators",
)
"""Why a collective's communicator is not known, said of several; in the order of what counts first."""

_POINT_TO_POINT: Final = re.compile(r"send|recv", re.IGNORECASE)
"""Two ranks of many take part: nothing to pair over all of them."""

_ALONE: Final = re.compile(r"layout|clean_low_latency_buffer", re.IGNORECASE)
"""Set-up of an expert exchange that each rank does for itself: no rank waits in it for another one."""

_COMMUNICATOR: Final = re.compile(r"communicator", re.IGNORECASE)
_BYTES: Final = re.compile(r"size \[bytes\]", re.IGNORECASE)
"""Of NCCL's payload fields, ``NCCL communicator ID`` and ``Message size [bytes]``."""


@frozen(eq=False)
class Collectives:
    """The collective kernels of one rank in order of their start. All arrays are [n]."""

    start_ns: NDArray[np.int64]
    """On the clock of the rank's file."""
    end_ns: NDArray[np.int64]
    name: NDArray[np.int32]
    """Index into ``names``."""
    communicator: NDArray[np.uint64]
    """NCCL's id of it; 0: not recorded."""
    not_named: NDArray[np.int8]
    """Index into `NOT_NAMED`; -1: its communicator is recorded."""
    size_bytes: NDArray[np.int64]
    """Of the message; -1: not recorded."""
    stage: NDArray[np.int32]
    """Index into ``stages``."""
    place: NDArray[np.int32]
    """Index into ``places``."""
    names: tuple[str, ...]
    """Short kernel names."""
    stages: tuple[str, ...]
    """The last is `UNATTRIBUTED`."""
    places: tuple[str, ...]
    """Paths of steps, and of stages for what lies in no step, in time order: ``image[0]/decode/decode_step#3``. The last is
    `UNATTRIBUTED`."""
    before: WindowTimes
    """What the rank did from the end of its collective before to this one's start."""
    point_to_point: int
    """Sends and receives, which are left out."""

    def __len__(self) -> int:
        return int(self.start_ns.size)


def collectives_of(
    attribution: Attribution, host: HostCalls, payloads: Payloads | None, rules: Rules | None = None
) -> Collectives:
    """Find a rank's collectives.

    Args:
        attribution: of the rank's trace.
        host: its calls.
        payloads: of its ranges; None: there are none.
        rules: that classify kernels.
    """
    operations = attribution.operations
    classes = classify_all(operations.names, operations.short_names, rules)
    communicates = np.array([is_communication(kind.category) for kind in classes], dtype=bool)
    pairwise = np.array([_POINT_TO_POINT.search(name) is not None for name in operations.short_names], dtype=bool)
    chosen = operations.kind == KERNEL
    if communicates.size:
        chosen = chosen & communicates[operations.name]
    alone = np.array([_ALONE.search(name) is not None for name in operations.short_names], dtype=bool)
    if alone.size:
        chosen = chosen & ~alone[operations.name]
    between_two = chosen & pairwise[operations.name] if pairwise.size else chosen
    rows = np.flatnonzero(chosen & ~between_two)
    start, end = operations.start[rows], operations.end[rows]
    launch = attribution.launch_call[rows]
    communicator, size = _stated(attribution, payloads, launch)
    codes = operations.name[rows]
    of_nccl = np.array([kind.category.startswith("NCCL") for kind in classes], dtype=bool)
    why = np.where(operations.in_graph[rows], 0, 1)
    if of_nccl.size:
        why = np.where(of_nccl[codes], why, 2)
    occurring, name = np.unique(codes, return_inverse=True)
    place, places = _places(attribution, rows)
    return Collectives(
        start_ns=start,
        end_ns=end,
        name=name.astype(np.int32),
        communicator=communicator,
        not_named=np.where(communicator != 0, -1, why).astype(np.int8),
        size_bytes=size,
        stage=attribution.operation_stage[rows].astype(np.int32),
        place=place,
        names=tuple(operations.short_names[code] for code in occurring.tolist()),
        stages=(*attribution.stages, UNATTRIBUTED),
        places=places,
        before=_before(attribution, host, start, end, launch),
        point_to_point=int(between_two.sum()),
    )


def _places(attribution: Attribution, rows: NDArray[np.intp]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    ranges = attribution.ranges
    step, stage = attribution.operation_level("step")[rows], attribution.operation_level("stage")[rows]
    around = np.where(step >= 0, step, stage)
    occurring = np.unique(around[around >= 0])
    occurring = occurring[np.argsort(ranges.start[occurring], kind="stable")]
    place = np.full(len(ranges) + 1, occurring.size, dtype=np.int32)
    place[occurring] = np.arange(occurring.size)
    paths = attribution.instance_names
    return place[around], (*(paths[row] for row in occurring.tolist()), UNATTRIBUTED)


def _stated(
    attribution: Attribution, payloads: Payloads | None, launch: NDArray[np.int32]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Communicator and message size of each collective, from the payload of the range around its launch."""
    communicator = np.zeros(launch.size, dtype=np.uint64)
    size = np.full(launch.size, -1, dtype=np.int64)
    domain = attribution.domain("NCCL")
    if payloads is None or domain is None or not launch.size:
        return communicator, size
    ranges, info = attribution.ranges, attribution.info
    by_place = {
        (thread, start): row
        for row, (thread, start) in enumerate(zip(payloads.thread.tolist(), payloads.start.tolist(), strict=True))
    }
    around = np.append(attribution.call_ranges(domain), -1)[launch]
    of_range: dict[int, int] = {}
    for row in np.unique(around[around >= 0]).tolist():
        payload = by_place.get((info.threads[int(ranges.thread[row])], int(ranges.start[row])))
        if payload is not None:
            of_range[row] = payload
    place = np.array([of_range.get(row, -1) for row in around.tolist()], dtype=np.int64)
    for name, values in payloads.values.items():
        known = (place >= 0) & np.append(payloads.known[name], False)[place]
        if _COMMUNICATOR.search(name):
            communicator[known] = values[place[known]]
        elif _BYTES.search(name):
            size[known] = values[place[known]].astype(np.int64)
    return communicator, size


def _before(
    attribution: Attribution,
    host: HostCalls,
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    launch: NDArray[np.int32],
) -> WindowTimes:
    """What passed from the end of all earlier collectives to the start of each; nothing before the first."""
    nothing = np.zeros(start.size, dtype=np.int64)
    if not start.size:
        return WindowTimes(*(nothing,) * 6)
    opened = start.copy()
    opened[1:] = np.minimum(np.maximum.accumulate(end)[:-1], start[1:])
    threads = np.append(attribution.calls.thread, -1)[launch]
    columns = [nothing.copy() for _ in range(6)]
    for thread in np.unique(threads).tolist():
        mine = threads == thread
        times = host.within(opened[mine], start[mine], int(thread))
        for column, values in zip(columns, times.columns, strict=True):
            column[mine] = values
    return WindowTimes(*columns)
