"""Are CUDA graphs traced node by node, whole, and with the place at which each node was recorded?"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from analysis.attribution.attribution import Attribution
from analysis.domain.figures import counted
from analysis.quality.findings import Finding
from analysis.quality.values import SECOND_NS, work_span
from analysis.trace import schema
from analysis.trace.distinct import distinct_values
from analysis.trace.reader import Trace

__all__ = ["GraphReplays", "check", "graph_replays"]


@frozen
class GraphReplays:
    """One executable graph: how often it was replayed, and whether every replay left every node's operation."""

    process: int
    """Process code."""
    graph: int
    """Id of the executable graph."""
    replays: int
    nodes: int
    """Distinct nodes that left an operation."""
    operations: int

    @property
    def whole(self) -> bool:
        """Whether replays × nodes are the operations: only then is a gap inside the graph idle time."""
        return self.operations == self.replays * self.nodes


def graph_replays(attribution: Attribution) -> tuple[GraphReplays, ...]:
    """Count replays, nodes and operations of every executable graph that was traced node by node."""
    recordings = attribution.recordings
    chosen = np.flatnonzero((recordings.node >= 0) & (attribution.launch_call >= 0))
    if not chosen.size:
        return ()
    of_node, index = np.unique(np.stack((recordings.process, recordings.graph)), axis=1, return_inverse=True)
    graph = index.reshape(-1)[recordings.node[chosen]]
    graphs = of_node.shape[1]
    operations = np.bincount(graph, minlength=graphs)
    launches, _ = distinct_values(graph.astype(np.int64) * len(attribution.calls) + attribution.launch_call[chosen])
    replays = np.bincount(launches // len(attribution.calls), minlength=graphs)
    seen, _ = distinct_values(recordings.node[chosen])
    nodes = np.bincount(index.reshape(-1)[seen], minlength=graphs)
    return tuple(
        GraphReplays(int(process), int(name), int(replays[row]), int(nodes[row]), int(operations[row]))
        for row, (process, name) in enumerate(of_node.T)
        if operations[row]
    )


def check(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Findings about CUDA graphs that were traced node by node."""
    return [*_incomplete(attribution), *_unplaced(trace, attribution), *_recorded_after_all(trace, attribution)]


def _incomplete(attribution: Attribution) -> list[Finding]:
    broken = [graph for graph in graph_replays(attribution) if not graph.whole]
    if not broken:
        return []
    worst = max(broken, key=lambda graph: abs(graph.operations - graph.replays * graph.nodes))
    return [
        Finding(
            "graph-nodes-missing",
            "warning",
            f"{len(broken):,} CUDA graphs left fewer or more operations than their replays have nodes",
            f"graph {worst.graph}: {worst.replays:,} replays × {worst.nodes:,} nodes = {worst.replays * worst.nodes:,}, but "
            f"{worst.operations:,} operations were traced",
            "gaps inside these graphs may be lost operations and not idle time; conditional nodes and updated graphs differ "
            "from replay to replay, else capture again",
        )
    ]


def _unplaced(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Say why operations inside graphs know no module, where they do not."""
    operations, recordings = attribution.operations, attribution.recordings
    inside = int(operations.in_graph.sum())
    if not inside:
        return []
    if bool((attribution.node_level("module") >= 0).any()):
        return []
    again = (
        "start the collection before the graphs are recorded (an engine: before its warm-up), with module ranges on and "
        "--cuda-graph-trace=node"
    )
    named = recordings.node >= 0
    if not trace.database.has(schema.GRAPH_NODES):
        why = "the export has no table of graph nodes (CUDA_GRAPH_NODE_EVENTS)"
        again = f"export the report with Nsight Systems 2023.1 or newer, and {again}"
    elif not named.any() or not recordings.known.any():
        why = "the export does not hold the nodes from which the replayed ones were cloned"
    elif not attribution.is_level("module").any():
        why = "the trace has no module ranges"
    elif int(recordings.start[recordings.known].max()) < int(attribution.ranges.start.min()):
        why = "the graphs were recorded before the first range of the trace: the collection began too late"
    else:
        why = "the graphs were recorded outside all module ranges"
    return [
        Finding(
            "graph-modules-unknown",
            "info",
            f"{inside:,} operations inside CUDA graphs know no module",
            why,
            again,
        )
    ]


def _recorded_after_all(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Nodes are added inside calls of the driver: none is recorded after the last of all calls and operations."""
    nodes = trace.graph_nodes.start
    span = work_span(attribution) if nodes.size else None
    if span is None:
        return []
    last = span[1]
    late = int((nodes > last + SECOND_NS).sum())
    if not late:
        return []
    return [
        Finding(
            "graph-nodes-late",
            "warning",
            f"{counted(late, 'graph node was', 'graph nodes were')} recorded after the trace ended",
            f"{late:,} of {counted(nodes.size, 'row')} of {schema.GRAPH_NODES.names[0]}, the last at {int(nodes.max()):,} ns; "
            f"the last operation or call ends at {last:,} ns",
            "modules of what these graphs replay may be wrong, times are not concerned; export the report again",
        )
    ]
