"""Graphs, engines and ranks on random traces, against definitions that try everything for every kernel.

The slow definitions are written from the rules of the documentation, not from the code: which ranges lie around a call, where
a graph's node was recorded, to which step work behind a step belongs, whose work is a rank's.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.attribution.attribution import Attribution
from analysis.attribution.ranks import RankTrace, rank_places
from analysis.attribution.vocabulary import load_vocabulary
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.tables import TableKind, gpu_table
from analysis.trace.reader import Trace
from trace_builder import TraceBuilder

HORIZON = 40
"""Ranges begin and end at even times, calls and recordings lie at odd ones: no call touches a range's end."""
PROCESS_OF = {1: 1, 2: 1, 3: 2}
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Figures = dict[str, tuple[int, int]]
"""Row of a table → kernels, Σ of their times; what has neither is left out."""


class Range(NamedTuple):
    thread: int
    domain: str
    name: str
    start: int
    end: int


class Kernel(NamedTuple):
    """A kernel with the call that launched it."""

    thread: int
    at: int
    """The call lasts from here for 2 ns at most, between two even times."""
    start: int
    duration: int
    device: int = 0
    node: int | None = None


class Node(NamedTuple):
    thread: int
    node: int
    at: int
    original: int | None


@st.composite
def nested(draw: st.DrawFn, low: int, high: int, depth: int = 3) -> list[tuple[int, int]]:
    """Intervals with even ends that nest, as push and pop do."""
    found: list[tuple[int, int]] = []
    at = low
    while depth and at < high and draw(st.integers(0, 3)):
        start = 2 * draw(st.integers(at // 2, high // 2))
        end = 2 * draw(st.integers(start // 2, high // 2))
        found.append((start, end))
        if end > start:
            found.extend(draw(nested(start, end, depth - 1)))
        at = max(end, at + 2)
    return found


@st.composite
def ranges_named(draw: st.DrawFn, domain: str, name: Callable[[int, int], str]) -> list[Range]:
    """Nested ranges of every thread; equal ones have equal names, so that it does not matter which is the inner one."""
    return [
        Range(thread, domain, name(start, end), start, end)
        for thread in PROCESS_OF
        for start, end in draw(nested(0, HORIZON))
    ]


@st.composite
def kernels(draw: st.DrawFn, nodes: int = 0, devices: int = 1) -> list[Kernel]:
    made = []
    for _ in range(draw(st.integers(1, 14))):
        node = draw(st.integers(1, nodes)) if nodes and draw(st.integers(0, 3)) else None
        made.append(
            Kernel(
                draw(st.sampled_from(tuple(PROCESS_OF))),
                2 * draw(st.integers(0, HORIZON // 2)) + 1,
                draw(st.integers(0, 200)),
                draw(st.integers(0, 30)),
                draw(st.integers(0, devices - 1)),
                node,
            )
        )
    return made


def around(ranges: list[Range], thread: int, at: int) -> list[Range]:
    """Ranges of a thread that are open at an odd time."""
    return [one for one in ranges if one.thread == thread and one.start <= at <= one.end]


def innermost(ranges: list[Range]) -> str | None:
    """Name of the one that began last; of those the shortest."""
    best = max(ranges, key=lambda one: (one.start, -one.end), default=None)
    return None if best is None else best.name


def written(ranges: list[Range], launched: list[Kernel], nodes: list[Node]) -> TraceBuilder:
    built = TraceBuilder()
    for one in ranges:
        built.thread(PROCESS_OF[one.thread], one.thread)
        built.range(one.name, one.start, one.end, domain=one.domain or None)
    for node in nodes:
        built.thread(PROCESS_OF[node.thread], node.thread).node(node.node, node.at, original=node.original)
    next_id = dict.fromkeys(PROCESS_OF.values(), 0)
    for number, kernel in enumerate(launched):
        process = PROCESS_OF[kernel.thread]
        next_id[process] += 1  # ids begin anew in each process
        built.thread(process, kernel.thread)
        built.kernel(f"k{number % 4}", kernel.start, kernel.start + kernel.duration, correlation=next_id[process],
                     device=kernel.device, node=kernel.node)  # fmt: skip
        built.call(kernel.at, kernel.at, "cudaLaunchKernel_v7000", next_id[process])
    return built


@contextmanager
def opened(built: TraceBuilder) -> Iterator[Trace]:
    with tempfile.TemporaryDirectory() as folder, Trace(built.write(Path(folder) / "trace.sqlite")) as trace:
        yield trace


def figures(attribution: Attribution, by: TableKind, stage: str | None = None) -> Figures:
    rows = gpu_table(attribution, by, stage=stage).rows()
    return {row["name"]: (row["kernels"], row["kernel_sum_ns"]) for row in rows if row["kernels"]}


def summed(launched: list[Kernel], name: Callable[[Kernel], str | None]) -> Figures:
    counts: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for one in launched:
        row = name(one) or UNATTRIBUTED
        counts[row] += 1
        times[row] += one.duration
    return {row: (counts[row], times[row]) for row in counts}


def by_name(launched: list[Kernel]) -> Figures:
    numbers = {id(one): number for number, one in enumerate(launched)}
    return summed(launched, lambda one: f"k{numbers[id(one)] % 4}")


def stage_name(start: int, end: int) -> str:
    return "prefill" if (start + end) % 4 else "decode"


def module_name(start: int, end: int) -> str:
    return f"layers.{start}.part{end}"


# --- graphs ------------------------------------------------------------------------------------------------------------


@st.composite
def recorded_nodes(draw: st.DrawFn) -> list[Node]:
    """Per process up to six nodes: recorded, cloned of one with a lower id, or cloned of one that the trace lacks."""
    made = []
    for process in (1, 2):
        threads = [thread for thread, own in PROCESS_OF.items() if own == process]
        for node in range(1, draw(st.integers(2, 6)) + 1):
            original = (
                draw(st.none() | st.integers(1, node - 1) | st.just(node - 1) | st.just(99)) if node > 1 else None
            )
            made.append(
                Node(draw(st.sampled_from(threads)), node, 2 * draw(st.integers(0, HORIZON // 2)) + 1, original)
            )
    return draw(st.permutations(made))


def recording_of(nodes: list[Node], process: int, node: int | None) -> Node | None:
    """Where a node was recorded: that of the node it is a clone of, if it is one."""
    own = [one for one in nodes if PROCESS_OF[one.thread] == process and one.node == node]
    if not own:
        return None
    return own[0] if own[0].original is None else recording_of(nodes, process, own[0].original)


@SETTINGS
@given(ranges_named("dsocr", stage_name), ranges_named("dsocr.module", module_name), recorded_nodes(), kernels(nodes=7))
def test_what_a_graph_replays_counts_where_its_node_was_recorded(
    stages: list[Range], modules: list[Range], nodes: list[Node], launched: list[Kernel]
) -> None:
    def stage(one: Kernel) -> str | None:
        return innermost(around(stages, one.thread, one.at))

    def module(one: Kernel) -> str | None:
        recorded = recording_of(nodes, PROCESS_OF[one.thread], one.node)
        inside = around(modules, recorded.thread, recorded.at) if recorded is not None else []
        return innermost(inside) or innermost(around(modules, one.thread, one.at))

    with opened(written([*stages, *modules], launched, nodes)) as trace:
        attribution = Attribution.of(trace, vocabulary=load_vocabulary("dsocr"))
        assert figures(attribution, "stage") == summed(launched, stage)
        assert figures(attribution, "module") == summed(launched, module)
        assert figures(attribution, "kernel") == by_name(launched)
        for name in ("prefill", "decode"):
            own = [one for one in launched if stage(one) == name]
            assert figures(attribution, "module", name) == summed(own, module)


# --- engines -----------------------------------------------------------------------------------------------------------

STEPS = {
    "prefill": "execute_context_1(64)_generation_0(0)",
    "mixed": "execute_context_1(64)_generation_2(2)",
    "decode": "execute_context_0(0)_generation_4(4)",
    "empty": "execute_context_0(0)_generation_0(0)",
}
KIND_OF = {name: kind for kind, name in STEPS.items()}
BEHIND = "gpu_model_runner: sample"
MODULE = "{{'Module': 'LlamaForCausalLM.model.layers.{}.mlp', 'Inputs': [[7, 2048]]}}"


@st.composite
def engine_ranges(draw: st.DrawFn) -> list[Range]:
    """Per thread one range after the other: steps, what runs behind them, names that mean nothing; modules inside and outside."""
    made = []
    for thread in PROCESS_OF:
        at = 0
        while at < HORIZON and draw(st.integers(0, 9)):
            start = at + 2 * draw(st.integers(0, 1))
            end = start + 2 * draw(st.integers(1, 4))
            name = draw(st.sampled_from((*STEPS.values(), BEHIND, BEHIND, BEHIND, "else", MODULE.format(start))))
            made.append(Range(thread, "", name, start, end))
            if name != BEHIND and end - start >= 6 and draw(st.booleans()):
                inside = draw(st.sampled_from((BEHIND, MODULE.format(start + 2), STEPS["decode"])))
                made.append(Range(thread, "", inside, start + 2, end - 2))
            at = end + 2
    return draw(st.permutations(made))


@SETTINGS
@given(engine_ranges(), kernels())
def test_an_engines_work_counts_for_its_step_or_for_the_one_before(ranges: list[Range], launched: list[Kernel]) -> None:
    def kind(one: Kernel) -> str | None:
        open_now = around(ranges, one.thread, one.at)
        step = innermost([other for other in open_now if other.name in KIND_OF])
        if step is None and any(other.name == BEHIND for other in open_now):
            before = [other for other in ranges
                      if other.thread == one.thread and other.name in KIND_OF and other.start <= one.at]  # fmt: skip
            step = max(before, key=lambda other: other.start).name if before else None
        return None if step is None else KIND_OF[step]

    def module(one: Kernel) -> str | None:
        open_now = around(ranges, one.thread, one.at)
        name = innermost([other for other in open_now if other.name == BEHIND or "Module" in other.name])
        return name and (name if name == BEHIND else f"model.layers.{name.split('layers.')[1].split('.')[0]}.mlp")

    with opened(written(ranges, launched, [])) as trace:
        attribution = Attribution.of(trace, vocabulary=load_vocabulary("vllm"))
        assert figures(attribution, "stage") == summed(launched, kind)
        assert figures(attribution, "module") == summed(launched, module)
        steps = {row["name"]: row for row in gpu_table(attribution, "stage").rows()}
        for name in attribution.stages:
            own = [one for one in launched if kind(one) == name]
            assert figures(attribution, "module", name) == summed(own, module)
            assert steps[name]["steps"] == sum(KIND_OF.get(one.name) == name for one in ranges)


# --- ranks -------------------------------------------------------------------------------------------------------------


@SETTINGS
@given(ranges_named("dsocr", stage_name), ranges_named("dsocr.module", module_name), kernels(devices=3))
def test_a_rank_is_what_one_process_did_on_one_device(
    stages: list[Range], modules: list[Range], launched: list[Kernel]
) -> None:
    def stage(one: Kernel) -> str | None:
        return innermost(around(stages, one.thread, one.at))

    def module(one: Kernel) -> str | None:
        return innermost(around(modules, one.thread, one.at))

    with opened(written([*stages, *modules], launched, [])) as trace:
        vocabulary = load_vocabulary("dsocr")
        places = rank_places(trace)
        assert {(place.pid, place.device) for place in places} == {
            (PROCESS_OF[one.thread], one.device) for one in launched
        }
        whole: Counter[str] = Counter()
        for place in places:
            own = [one for one in launched if (PROCESS_OF[one.thread], one.device) == (place.pid, place.device)]
            attribution = Attribution.of(RankTrace(trace, place), vocabulary=vocabulary)
            assert figures(attribution, "stage") == summed(own, stage)
            assert figures(attribution, "module") == summed(own, module)
            whole.update({name: count for name, (count, _) in figures(attribution, "kernel").items()})
        assert whole == {name: count for name, (count, _) in by_name(launched).items()}
