"""The ranks of a trace, and each of them as a trace of its own.

A rank is one process's work on one GPU. Several processes may be in one file, and one process may drive several GPUs; times
of two GPUs are never merged into one "busy". Correlation ids, streams and even device numbers repeat from process to process.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import launch_calls
from analysis.trace.distinct import distinct_values
from analysis.trace.reader import Trace
from analysis.trace.records import Calls, Device, GraphNodes, Operations, OtherCalls, RangeRows

__all__ = ["RankPlace", "RankTrace", "rank_places"]

_DEVICES: Final = 1024
"""More than a process can see."""


@frozen
class RankPlace:
    """Where a rank runs: one process on one device."""

    process: int
    """Process code in the file; -1: its rows do not say."""
    device: int
    """CUDA's number of the device, as the process sees it."""
    pid: int | None


def rank_places(trace: Trace) -> tuple[RankPlace, ...]:
    """The ranks of a trace, in order: by device where each has one of its own, else by process id, then device.

    Args:
        trace: opened.

    Returns:
        One per process and device with a GPU operation; none where there is no operation.
    """
    operations = trace.operations
    if not len(operations):
        return ()
    packed = (operations.process.astype(np.int32) + 1) * _DEVICES + np.clip(operations.device, 0, _DEVICES - 1)
    places = [
        RankPlace(key // _DEVICES - 1, key % _DEVICES, trace.info.pid(key // _DEVICES - 1))
        for key in distinct_values(packed)[0].tolist()
    ]
    apart = len({place.device for place in places}) == len(places)
    return tuple(sorted(places, key=lambda place: (0 if apart else place.pid or 0, place.device, place.process)))


class RankTrace(Trace):
    """What one rank did, as if it had been traced alone; the file stays that of the whole trace.

    Calls and ranges are those of the rank's process. Where the process drives several devices, calls that launched only on
    another device are left out, and so are threads that launch only there; what the process waits for is not known to be
    one device's, and stays with each.
    """

    def __init__(self, whole: Trace, place: RankPlace) -> None:
        """Choose a rank's rows.

        Args:
            whole: the trace; it must stay open as long as this one is used.
            place: one of its `rank_places`.
        """
        self.path = whole.path
        self.database = whole.database
        self.backwards, self.rows_read, self.nameless_ranges = whole.backwards, whole.rows_read, whole.nameless_ranges
        self._reading = None
        operations, calls, others, ranges = whole.operations, whole.calls, whole.other_calls, whole.ranges
        nodes, info = whole.graph_nodes, whole.info
        thread_process = np.array([*info.thread_process, -1], dtype=np.int64)
        mine = (operations.process == place.process) & (operations.device == place.device)
        threads = thread_process == place.process if place.process >= 0 else np.ones(thread_process.size, dtype=bool)
        my_calls = threads[calls.thread]
        not_mine = (operations.process == place.process) & ~mine
        if not_mine.any():  # one process drives several devices
            launched_by = launch_calls(operations, calls, thread_process[calls.thread])
            here, elsewhere = (launched_by[chosen & (launched_by >= 0)] for chosen in (mine, not_mine))
            of_others = np.zeros(len(calls), dtype=bool)
            of_others[elsewhere] = True
            of_others[here] = False
            other_threads = np.zeros(threads.size, dtype=bool)
            other_threads[calls.thread[elsewhere]] = True
            other_threads[calls.thread[here]] = False
            threads = threads & ~other_threads
            my_calls = threads[calls.thread] & ~of_others
        code = _Codes(np.append(threads[:-1], True))
        self._loaded = (
            evolve(_chosen(operations, mine), process=np.where(operations.process[mine] < 0, -1, 0).astype(np.int16)),
            code.renumbered(_chosen(calls, my_calls)),
            code.renumbered(_chosen(others, code.stays[others.thread])),
        )
        my_ranges = code.renumbered(_chosen(ranges, code.stays[ranges.thread]))
        self.ranges = evolve(my_ranges, end_thread=code.new[my_ranges.end_thread])
        self.graph_nodes = code.renumbered(_chosen(nodes, code.stays[nodes.thread]))
        self.marks, self.strings, self.metric_samples = whole.marks, whole.strings, whole.metric_samples
        old = np.flatnonzero(code.stays[:-1]).tolist()
        process = max(place.process, 0)
        self.info = evolve(
            info,
            processes=info.processes[process : process + 1],
            threads=tuple(info.threads[thread] for thread in old),
            thread_process=(0,) * len(old),
            process_names={0: info.process_names[process]} if process in info.process_names else {},
            thread_names={int(code.new[thread]): name for thread, name in info.thread_names.items() if thread in old},
            devices=_devices(whole, place),
        )


def _devices(whole: Trace, place: RankPlace) -> tuple[Device, ...]:
    """The rank's own device; all of them where the file does not say which it is."""
    mine = tuple(device for device in whole.info.devices if device.device_id == place.device)
    return mine or whole.info.devices


@frozen(eq=False, slots=False)
class _Codes:
    """Codes of the threads that stay, numbered anew."""

    stays: NDArray[np.bool_]
    """Old code → whether it stays, [threads + 1]; the last stands for -1, which stays."""

    @property
    def new(self) -> NDArray[np.int32]:
        """Old code → new code, -1 where the thread went, [threads + 1]."""
        numbered = np.where(self.stays, np.cumsum(self.stays) - 1, -1)
        numbered[-1] = -1
        return numbered.astype(np.int32)

    def renumbered(self, rows: Any) -> Any:
        """Rows with the new codes of their threads."""
        return evolve(rows, thread=self.new[rows.thread])


_BY_ROW: Final[dict[type, tuple[str, ...]]] = {
    Operations: (
        "start", "end", "kind", "name", "process", "correlation", "device", "stream", "in_graph", "graph_node", "shape",
        "size",
        "gpu",
    ),
    Calls: ("start", "duration", "thread", "correlation", "name"),
    OtherCalls: ("start", "duration", "thread"),
    RangeRows: ("start", "end", "unclosed", "paired", "name", "domain", "thread", "end_thread", "payload"),
    GraphNodes: ("start", "thread", "node", "original"),
}  # fmt: skip
"""Record → its columns of one value per row."""


def _chosen(rows: Any, mask: NDArray[np.bool_]) -> Any:
    """The rows that a mask says; what is no column stays."""
    return evolve(rows, **{name: getattr(rows, name)[mask] for name in _BY_ROW[type(rows)]})
