"""From a kernel that a CUDA graph replays to the module in which its node was recorded."""

from __future__ import annotations

import json
import lzma
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.attribution.attribution import Attribution
from analysis.quality.findings import Finding
from analysis.quality.graphs import check, graph_replays
from analysis.sums.host_calls import HostCalls
from analysis.sums.operators import operator_summaries
from analysis.sums.stages import gpu_rows
from analysis.sums.tables import gpu_table
from analysis.trace.reader import Trace
from analysis.trace.records import KERNEL
from trace_builder import TraceBuilder

EXEC = 5 << 32
"""The executable graph's nodes: EXEC + place."""
CAPTURED = 2 << 32


def recorded(builder: TraceBuilder | None = None) -> TraceBuilder:
    """Two modules of one kernel each, recorded at 10 and 30, replayed twice in decode steps."""
    built = builder or TraceBuilder()
    built.range("graph_record", 0, 100, domain="dsocr")
    built.range("layers.0.mlp", 5, 20, domain="dsocr.module").range("lm_head", 25, 40, domain="dsocr.module")
    built.node(CAPTURED, 10).node(CAPTURED + 1, 30)
    built.node(EXEC, 50, original=CAPTURED).node(EXEC + 1, 51, original=CAPTURED + 1)
    built.range("decode", 200, 400, domain="dsocr")
    for step, at in enumerate((210, 310)):
        built.range("decode_step", at, at + 50, domain="dsocr")
        built.replay(at + 1, at + 5, [("gemm", at + 10, at + 20, EXEC), ("head", at + 22, at + 27 + step, EXEC + 1)])
    return built


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[TraceBuilder], Trace]:
    def write(builder: TraceBuilder) -> Trace:
        return Trace(builder.write(tmp_path / "trace.sqlite"))

    return write


def modules_of(attribution: Attribution) -> dict[str, tuple[int, int]]:
    rows = gpu_rows(gpu_table(attribution, "module"))
    return {row.name: (row.kernels, row.kernel_sum_ns) for row in rows}


def test_a_replayed_kernel_is_its_recordings_module_and_its_launchs_step(
    opened: Callable[[TraceBuilder], Trace],
) -> None:
    with opened(recorded()) as trace:
        attribution = Attribution.of(trace)
        assert modules_of(attribution) == {"layers.0.mlp": (2, 20), "lm_head": (2, 11)}
        stages = {row.name: row.kernels for row in gpu_rows(gpu_table(attribution, "stage"))}
        assert stages == {"prefill": 0, "decode": 4, "(unattributed)": 0}
        steps = {row.name: row.kernels for row in gpu_rows(gpu_table(attribution, "step"))}
        assert steps == {"decode/decode_step#0": 2, "decode/decode_step#1": 2}
        # Each replay is an instance: 10 ns each, not the time from the first replay to the last.
        projected = {row.name: row.projected_ns for row in gpu_rows(gpu_table(attribution, "module"))}
        assert projected == {"layers.0.mlp": 20, "lm_head": 11}


def test_operators_count_what_was_replayed(opened: Callable[[TraceBuilder], Trace]) -> None:
    built = recorded().range("layers.0", 4, 22, domain="dsocr.module")
    with opened(built) as trace:
        attribution = Attribution.of(trace)
        rows = gpu_rows(gpu_table(attribution, "range"))
        found = {one.op_name: one.cuda_time_ms for one in operator_summaries(attribution, rows)}
    assert found == pytest.approx({"layers.0": 20e-6, "layers.0.mlp": 20e-6, "lm_head": 11e-6})


def test_clones_of_clones_lead_to_the_recording(opened: Callable[[TraceBuilder], Trace]) -> None:
    middle = 3 << 32
    built = TraceBuilder().range("lm_head", 5, 20, domain="dsocr.module").node(CAPTURED, 10)
    # An id may have a row of its own and one that names what it was cloned from.
    built.node(middle, 60).node(middle, 61, original=CAPTURED).node(EXEC, 90, original=middle)
    built.replay(200, 210, [("head", 220, 230, EXEC)])
    with opened(built) as trace:
        assert modules_of(Attribution.of(trace)) == {"lm_head": (1, 10)}


def test_two_processes_may_use_the_same_ids(opened: Callable[[TraceBuilder], Trace]) -> None:
    built = TraceBuilder()
    for pid, module in ((1, "lm_head"), (2, "layers.0.mlp")):
        built.thread(pid, pid).range(module, 5, 20, domain="dsocr.module").node(CAPTURED, 10)
        built.node(EXEC, 50, original=CAPTURED).replay(200, 210, [("k", 220, 220 + pid, EXEC)])
    with opened(built) as trace:
        assert modules_of(Attribution.of(trace)) == {"layers.0.mlp": (1, 2), "lm_head": (1, 1)}


def test_a_launch_inside_a_module_counts_where_no_recording_is_known(
    opened: Callable[[TraceBuilder], Trace],
) -> None:
    built = TraceBuilder().range("wrapper", 195, 215, domain="dsocr.module").node(EXEC, 50, original=CAPTURED)
    built.replay(200, 210, [("k", 220, 230, EXEC)])
    with opened(built) as trace:
        assert modules_of(Attribution.of(trace)) == {"wrapper": (1, 10)}


@pytest.mark.parametrize("damage", ["circle", "no thread", "no original", "no table", "no column"])
def test_what_is_not_known_stays_unattributed(opened: Callable[[TraceBuilder], Trace], damage: str) -> None:
    built = TraceBuilder().range("lm_head", 5, 20, domain="dsocr.module")
    if damage == "circle":
        built.node(CAPTURED, 10, original=EXEC).node(EXEC, 50, original=CAPTURED)
    else:
        built.node(CAPTURED, 10, no_thread=damage == "no thread")
        built.node(EXEC, 50, original=7 if damage == "no original" else CAPTURED)
    built.replay(200, 210, [("head", 220, 230, EXEC)])
    if damage == "no table":
        built.without("CUDA_GRAPH_NODE_EVENTS")
    if damage == "no column":
        built.without_column("CUPTI_ACTIVITY_KIND_KERNEL", "graphNodeId")
    with opened(built) as trace:
        assert modules_of(Attribution.of(trace)) == {"(unattributed)": (1, 10)}


def findings(trace: Trace) -> dict[str, Finding]:
    attribution = Attribution.of(trace)
    return {one.code: one for one in check(trace, attribution, HostCalls(attribution))}


def test_whole_replays_are_no_finding(opened: Callable[[TraceBuilder], Trace]) -> None:
    with opened(recorded()) as trace:
        assert findings(trace) == {}
        (graph,) = graph_replays(Attribution.of(trace))
        assert (graph.graph, graph.replays, graph.nodes, graph.operations, graph.whole) == (5, 2, 2, 4, True)


def test_a_lost_node_is_a_finding(opened: Callable[[TraceBuilder], Trace]) -> None:
    built = recorded().replay(500, 505, [("gemm", 510, 520, EXEC)])
    with opened(built) as trace:
        found = findings(trace)["graph-nodes-missing"]
    assert "3 replays × 2 nodes = 6, but 5 operations" in found.evidence


def test_a_node_recorded_after_everything_is_a_finding(opened: Callable[[TraceBuilder], Trace]) -> None:
    with opened(recorded().node(EXEC + 2, 2**62, original=CAPTURED)) as trace:
        found = findings(trace)["graph-nodes-late"]
    assert "1 of 5 rows of CUDA_GRAPH_NODE_EVENTS, the last at 4,611,686,018,427,387,904 ns" in found.evidence


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda built: built.without("CUDA_GRAPH_NODE_EVENTS"), "no table of graph nodes"),
        (lambda built: built.node(EXEC, 50, original=7), "does not hold the nodes from which"),
        (lambda built: built.node(EXEC, -900).range("prefill", 0, 10, domain="dsocr"), "has no module ranges"),
        (lambda built: built.node(EXEC, -900).range("m", 0, 10, domain="dsocr.module"), "began too late"),
        (lambda built: built.node(EXEC, 50).range("m", 0, 10, domain="dsocr.module"), "outside all module ranges"),
    ],
)
def test_why_no_module_is_known_is_said(
    opened: Callable[[TraceBuilder], Trace], change: Callable[[TraceBuilder], TraceBuilder], why: str
) -> None:
    with opened(change(TraceBuilder().replay(200, 210, [("k", 220, 230, EXEC)]))) as trace:
        found = findings(trace)["graph-modules-unknown"]
    assert why in found.evidence
    assert found.remedy


def test_an_engine_that_recorded_before_the_collection_gets_the_sentence(real_trace: Callable[[str], Path]) -> None:
    with Trace(real_trace("vllm_h100_llama")) as trace:
        found = findings(trace)
        assert all(one.whole for one in graph_replays(Attribution.of(trace)))
    assert set(found) == {"graph-modules-unknown"}


NODES = st.integers(0, 5)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    modules=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 40)), min_size=1, max_size=6),
    moments=st.lists(st.integers(0, 130), min_size=6, max_size=6),
    parents=st.lists(st.integers(-1, 5), min_size=6, max_size=6),
    replays=st.lists(st.lists(NODES, max_size=6), min_size=1, max_size=4),
)
def test_as_brute_force_has_it(
    tmp_path_factory: pytest.TempPathFactory,
    modules: list[tuple[int, int]],
    moments: list[int],
    parents: list[int],
    replays: list[list[int]],
) -> None:
    built = TraceBuilder()
    # Nested or apart, as push/pop ranges of one thread are: each module ends before what is open around it does.
    spans: list[tuple[int, int, str]] = []
    for number, (start, length) in enumerate(sorted(modules)):
        end = min([start + length, *(high for low, high, _ in spans if low <= start < high)])
        spans.append((start, end, f"m{number}"))
        built.range(f"m{number}", start, end, domain="dsocr.module")
    for node, (moment, parent) in enumerate(zip(moments, parents, strict=True)):
        built.node(EXEC + node, moment, original=None if parent < 0 else EXEC + parent)
    expected: dict[str, int] = {}
    at = 1000
    for nodes in replays:
        kernels = [(f"k{node}", at + 10 * place, at + 10 * place + 7, EXEC + node) for place, node in enumerate(nodes)]
        built.replay(at, at + 1, kernels)
        at += 100
        for node in nodes:
            name = _module(node, moments, parents, spans)
            expected[name] = expected.get(name, 0) + 1
    path = tmp_path_factory.mktemp("graph") / "trace.sqlite"
    with Trace(built.write(path)) as trace:
        found = {name: kernels for name, (kernels, _) in modules_of(Attribution.of(trace)).items() if kernels}
    assert found == expected


def _module(node: int, moments: list[int], parents: list[int], spans: list[tuple[int, int, str]]) -> str:
    seen = set()
    while parents[node] >= 0:
        if node in seen:
            return "(unattributed)"
        seen.add(node)
        node = parents[node]
    around = [(low, -high, name) for low, high, name in spans if low <= moments[node] <= high]
    return max(around)[2] if around else "(unattributed)"


def test_nothing_is_read_where_there_are_no_graphs(opened: Callable[[TraceBuilder], Trace]) -> None:
    with opened(TraceBuilder().launch(10, 20, ("k", 30, 40))) as trace:
        operations = trace.operations
        assert not operations.graph_nodes.size
        assert np.array_equal(operations.graph_node, [-1])


def test_a_real_replay_has_the_modules_of_an_eager_step(tmp_path: Path) -> None:
    """DeepSeek-OCR on an H100, its decode step recorded inside the collection; the eager step is another run's."""
    data = Path(__file__).parents[1] / "data"
    path = tmp_path / "trace.sqlite"
    path.write_bytes(lzma.decompress((data / "deepseek-ocr_h100_recorded-graph.sqlite.xz").read_bytes()))
    eager = json.loads((data / "expected" / "static_h100_step_modules.json").read_text())["deepseek-ocr"]
    with Trace(path) as trace:
        attribution = Attribution.of(trace)
        assert findings(trace) == {}
        (graph,) = graph_replays(attribution)
        # Five decode steps and the replay that belongs to the recording.
        assert (graph.replays, graph.nodes, graph.operations) == (6, 968, 5808)
        kernels = attribution.operations.kind == KERNEL
        step, module = attribution.operation_level("step"), attribution.operation_level("module")
        steps = np.flatnonzero(attribution.is_level("step"))
        assert steps.size == 5
        names = [*attribution.ranges.names, "(unattributed)"]
        name = np.append(attribution.ranges.name, len(names) - 1)
        for row in steps.tolist():
            replayed = Counter(names[code] for code in name[module[kernels & (step == row)]].tolist())
            assert replayed == eager
