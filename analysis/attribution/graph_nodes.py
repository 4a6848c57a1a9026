"""CUDA graph nodes: where the work that a graph replays was recorded.

A replayed operation names the node of the executable graph that it ran for. Nodes of an executable graph are clones, of a
graph that may itself be a clone; the chain of clones ends at the node that stream capture added, at a moment and on a thread.
The ranges open there and then say what the operation computes (Nsight Systems: ``CUDA_GRAPH_NODE_EVENTS``). When and for which
step it ran is told by the launch of the graph alone.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from analysis.attribution.range_tree import Indices
from analysis.trace.distinct import present
from analysis.trace.records import NO_VALUE, GraphNodes, Operations

__all__ = ["Recordings", "find_recordings"]

_LONGEST_CHAIN: Final = 64
"""Clones of clones that are followed. Two are usual (capture → instantiation); more than this is a damaged file."""


@frozen(eq=False)
class Recordings:
    """Where the graph nodes that operations name were recorded."""

    node: Indices
    """Operation → node, [operations]; -1: no graph launched it, or the trace knows no nodes."""
    start: NDArray[np.int64]
    """ns, by node, [n]; `NO_VALUE`: the trace does not hold the node's recording."""
    thread: NDArray[np.int64]
    """Thread code, by node, [n]; -1: not known."""
    process: NDArray[np.int64]
    """Process code, by node, [n]."""
    graph: NDArray[np.int64]
    """Id of the executable graph in its process, by node, [n]."""

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which nodes' recordings the trace holds, [n]."""
        known: NDArray[np.bool_] = (self.start != NO_VALUE) & (self.thread >= 0)
        return known


def find_recordings(operations: Operations, events: GraphNodes, thread_process: NDArray[np.int64]) -> Recordings:
    """Follow each operation's node to the one that was recorded.

    Args:
        operations: [n].
        events: of all processes' nodes.
        thread_process: thread code → process code; the last entry stands for code -1.

    Returns:
        One node per process and id that an operation names.
    """
    chosen = np.flatnonzero(operations.graph_node >= 0)
    node = np.full(len(operations), -1, dtype=np.int32)
    if not chosen.size:
        nothing = np.zeros(0, dtype=np.int64)
        return Recordings(node, nothing, nothing, nothing, nothing)
    width = operations.graph_nodes.size
    packed = (operations.process[chosen].astype(np.int64) + 1) * width + operations.graph_node[chosen]
    distinct, place = np.unique(packed, return_inverse=True)
    node[chosen] = place
    process = distinct // width - 1
    ids = operations.graph_nodes[distinct % width]
    start = np.full(distinct.size, NO_VALUE, dtype=np.int64)
    thread = np.full(distinct.size, -1, dtype=np.int64)
    event_process = thread_process[events.thread]
    whose = present(event_process)
    for code in present(process):
        # A row that does not say its process can only be that of the one process that there is.
        own = event_process == (code if code >= 0 or len(whose) != 1 else whose[0])
        mine = process == code
        start[mine], thread[mine] = _origins(ids[mine], events, np.flatnonzero(own))
    return Recordings(node, start, thread, process, ids >> 32)


def _origins(
    wanted: NDArray[np.int64], events: GraphNodes, rows: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Moment and thread at which the origin of each wanted id was recorded: `NO_VALUE` and -1 where that is not known.

    Args:
        wanted: ids of one process, [m].
        events: of all processes.
        rows: the process's events.
    """
    unknown = np.full(wanted.size, NO_VALUE, dtype=np.int64), np.full(wanted.size, -1, dtype=np.int64)
    if not rows.size:
        return unknown
    # By id, and of one id the earliest event first.
    rows = rows[np.lexsort((events.start[rows], events.node[rows]))]
    ids, first = np.unique(events.node[rows], return_index=True)
    original = np.maximum.reduceat(events.original[rows], first)
    # Where an id's original has no event of its own, its recording is not in the trace: -1.
    above = np.searchsorted(ids, original)
    above = np.where((above < ids.size) & (ids[np.minimum(above, ids.size - 1)] == original), above, -1)
    cloned = original != NO_VALUE
    at = np.searchsorted(ids, wanted)
    at = np.where((at < ids.size) & (ids[np.minimum(at, ids.size - 1)] == wanted), at, -1)
    for _ in range(_LONGEST_CHAIN):
        climbing = (at >= 0) & cloned[at]
        if not climbing.any():
            break
        at = np.where(climbing, above[at], at)
    else:
        at = np.where((at >= 0) & cloned[at], -1, at)
    start, thread = unknown
    origin = rows[first[at[at >= 0]]]
    start[at >= 0] = events.start[origin]
    thread[at >= 0] = events.thread[origin]
    return start, thread
