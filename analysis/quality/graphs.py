"""Are CUDA graphs traced node by node, whole, and with the place at which each node was recorded?"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from analysis.attribution.attribution import Attribution
from analysis.domain.figures import counted
from analysis.quality.findings import Contradiction, Finding, severity_of
from analysis.quality.values import SECOND_NS, work_span
from analysis.sums.host_calls import GRAPH_LAUNCH, HostCalls
from analysis.trace import schema
from analysis.trace.distinct import distinct_values
from analysis.trace.reader import UNNAMED, Trace

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


def check(trace: Trace, attribution: Attribution, host: HostCalls) -> list[Finding]:
    """Findings about CUDA graphs that were traced node by node."""
    return [
        *_without_graph(attribution, host),
        *_unknown_nodes(attribution),
        *_incomplete(attribution),
        *_unplaced(trace, attribution),
        *_recorded_after_all(trace, attribution),
    ]


def _without_graph(attribution: Attribution, host: HostCalls) -> list[Finding]:
    """Operations that carry the id of a graph's node, though the call that launched them launches no graph."""
    operations, calls, launch = attribution.operations, attribution.calls, attribution.launch_call
    if not operations.in_graph.any() or not len(calls):
        return []
    rows = np.flatnonzero(operations.in_graph & (launch >= 0))
    named = np.array([bool(name) and name != UNNAMED and "Graph" not in name for name in calls.names], dtype=bool)
    wrong = rows[(host.kind[launch[rows]] != GRAPH_LAUNCH) & named[calls.name[launch[rows]]]]
    if not wrong.size:
        return []
    call = calls.names[calls.name[launch[wrong[0]]]]
    return [
        Contradiction(
            "graph-nodes-without-graph",
            severity_of(wrong.size, len(operations)),
            f"{counted(wrong.size, 'GPU operation is', 'GPU operations are')} of a graph that nothing launched",
            f"{wrong.size:,} of {counted(len(operations), 'GPU operation')} have a graphNodeId, and the call that launched them "
            f"launches no graph ({call}, such as the operation at {int(operations.start[wrong[0]]):,} ns)",
            "what ran inside of CUDA graphs, and idle time in them, is not known; export the report again",
        )
    ]


def _unknown_nodes(attribution: Attribution) -> list[Finding]:
    """Operations of nodes that are not among the recorded ones of their graph, though others of it are.

    A collection that began late holds none of a graph's nodes; one that began in time holds all.
    """
    recordings = attribution.recordings
    if not recordings.start.size or bool(recordings.known.all()) or not recordings.known.any():
        return []
    _, index = np.unique(np.stack((recordings.process, recordings.graph)), axis=1, return_inverse=True)
    graph = index.reshape(-1)
    partly = np.bincount(graph, weights=recordings.known) > 0
    unknown = partly[graph] & ~recordings.known
    if not unknown.any():
        return []
    rows = np.flatnonzero((recordings.node >= 0) & unknown[recordings.node])
    of = int(np.count_nonzero(recordings.node >= 0))
    operations = attribution.operations
    node = int(operations.graph_nodes[operations.graph_node[rows[0]]])
    return [
        Finding(
            "unknown-graph-nodes",
            "warning",
            f"{counted(rows.size, 'operation')} inside CUDA graphs ran for nodes that their graph does not have",
            f"{rows.size:,} of {of:,} of {counted(int(np.count_nonzero(unknown)), 'node')}, such as graphNodeId {node} at "
            f"{int(operations.start[rows[0]]):,} ns; {schema.GRAPH_NODES.names[0]} lists others of the same graph",
            "modules of these are not known, times are not concerned; export the report again",
        )
    ]


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
