"""The vectorised attribution against a brute force that tries every range for every call, on random traces."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.attribution.attribution import Attribution
from analysis.attribution.range_tree import RangeTree
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.tables import gpu_table
from analysis.trace.reader import Trace
from trace_builder import PUSH_POP, START_END, TraceBuilder

THREADS = (1, 2, 3)
PROCESS_OF = {1: 1, 2: 1, 3: 2}
"""Two threads in one process, one in another, whose correlation ids begin at 1 too."""
DOMAINS = ("a", "b")
NAMES = ("x", "y", "z")
HORIZON = 60


class Range(NamedTuple):
    thread: int
    domain: str
    style: int
    name: str
    start: int
    end: int


class Launch(NamedTuple):
    thread: int
    start: int
    end: int
    gpu_start: int
    gpu_end: int


@st.composite
def nested(draw: st.DrawFn, low: int, high: int, depth: int = 4) -> list[tuple[int, int]]:
    """Intervals that nest, as push and pop do: touching and zero-length ones too."""
    found: list[tuple[int, int]] = []
    at = low
    while depth and at <= high and draw(st.booleans()):
        start = draw(st.integers(at, high))
        end = draw(st.integers(start, high))
        found.append((start, end))
        if end > start:
            found.extend(draw(nested(start, end, depth - 1)))
        at = max(end, at + 1)
    return found


@st.composite
def random_ranges(draw: st.DrawFn) -> list[Range]:
    found = []
    for thread in THREADS:
        for domain in DOMAINS:
            for start, end in draw(nested(0, HORIZON)):
                found.append(Range(thread, domain, PUSH_POP, draw(st.sampled_from(NAMES)), start, end))
            crossing = draw(st.lists(st.tuples(st.integers(0, HORIZON), st.integers(0, HORIZON)), max_size=6))
            for one, other in crossing:
                name = draw(st.sampled_from(NAMES))
                found.append(Range(thread, domain, START_END, name, min(one, other), max(one, other)))
    return draw(st.permutations(found))


@st.composite
def random_launches(draw: st.DrawFn) -> list[Launch]:
    """Calls last at least 1 ns: at a single instant, two ranges that touch there would both be right."""
    found = []
    for _ in range(draw(st.integers(1, 12))):
        start = draw(st.integers(0, HORIZON - 1))
        gpu_start = draw(st.integers(0, 3 * HORIZON))
        found.append(
            Launch(
                draw(st.sampled_from(THREADS)),
                start,
                draw(st.integers(start + 1, HORIZON)),
                gpu_start,
                gpu_start + draw(st.integers(0, 30)),
            )
        )
    return found


def analysed(ranges: list[Range], launches: list[Launch], *, cross_thread: bool = False) -> Attribution:
    built = TraceBuilder()
    for one in ranges:
        built.thread(PROCESS_OF[one.thread], one.thread)
        built.range(one.name, one.start, one.end, domain=one.domain, style=one.style)
    next_id = dict.fromkeys(PROCESS_OF.values(), 0)
    for number, launch in enumerate(launches):
        process = PROCESS_OF[launch.thread]
        next_id[process] += 1
        built.thread(process, launch.thread)
        kernel = (f"k{number}", launch.gpu_start, launch.gpu_end)
        built.launch(launch.start, launch.end, kernel, correlation=next_id[process])
    with tempfile.TemporaryDirectory() as folder, Trace(built.write(Path(folder) / "trace.sqlite")) as trace:
        return Attribution.of(trace, cross_thread=cross_thread)


def around(ranges: list[Range], launch: Launch, domain: str) -> list[Range]:
    return [
        one
        for one in ranges
        if (one.thread, one.domain) == (launch.thread, domain) and one.start <= launch.start and launch.end <= one.end
    ]


def innermost(candidates: list[Range]) -> tuple[int, int] | None:
    """Start and end of the range that started last, of those the shortest."""
    best = max(candidates, key=lambda one: (one.start, -one.end), default=None)
    return None if best is None else (best.start, best.end)


def interval(attribution: Attribution, row: int) -> tuple[int, int] | None:
    return (int(attribution.ranges.start[row]), int(attribution.ranges.end[row])) if row >= 0 else None


def by_launch(attribution: Attribution, answer: np.ndarray) -> dict[str, int]:
    """Kernel name → answer for its operation."""
    names = [attribution.operations.names[code] for code in attribution.operations.name]
    return dict(zip(names, answer.tolist(), strict=True))


SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SETTINGS
@given(random_ranges(), random_launches())
def test_innermost_range_of_a_domain_is_the_brute_force_one(ranges: list[Range], launches: list[Launch]) -> None:
    attribution = analysed(ranges, launches)
    for domain in DOMAINS:
        code = attribution.domain(domain)
        found = {} if code is None else by_launch(attribution, attribution.to_operations(attribution.call_ranges(code)))
        for number, launch in enumerate(launches):
            expected = innermost(around(ranges, launch, domain))
            assert interval(attribution, found.get(f"k{number}", -1)) == expected


@SETTINGS
@given(random_ranges(), random_launches())
def test_innermost_range_of_a_wanted_name_is_the_brute_force_one(ranges: list[Range], launches: list[Launch]) -> None:
    """As stages, steps and modules are found: among all ranges, only some are of the level."""
    renamed = [
        one._replace(domain="dsocr", name={"x": "prefill", "y": "decode_step", "z": "else"}[one.name]) for one in ranges
    ]
    attribution = analysed(renamed, launches)
    for level, name in (("stage", "prefill"), ("step", "decode_step")):
        found = by_launch(attribution, attribution.operation_level(level))  # type: ignore[arg-type]
        for number, launch in enumerate(launches):
            wanted = [one for one in around(renamed, launch, "dsocr") if one.name == name]
            assert interval(attribution, found[f"k{number}"]) == innermost(wanted)


@SETTINGS
@given(random_ranges(), random_launches())
def test_ranges_of_other_threads_are_offered_by_time_within_the_process(
    ranges: list[Range], launches: list[Launch]
) -> None:
    stages = [one._replace(domain="dsocr", name="prefill") for one in ranges]
    attribution = analysed(stages, launches, cross_thread=True)
    found = by_launch(attribution, attribution.operation_level("stage"))
    for number, launch in enumerate(launches):
        own = around(stages, launch, "dsocr")
        others = [
            one
            for thread in THREADS
            if PROCESS_OF[thread] == PROCESS_OF[launch.thread]
            for one in around(stages, launch._replace(thread=thread), "dsocr")
        ]
        assert interval(attribution, found[f"k{number}"]) == innermost(own or others)


@SETTINGS
@given(random_ranges(), random_launches())
def test_inclusive_table_across_threads_is_the_brute_force_one(ranges: list[Range], launches: list[Launch]) -> None:
    """A call outside all ranges of a domain is in those that are open on another thread of its process."""
    attribution = analysed(ranges, launches, cross_thread=True)

    def offered(launch: Launch, domain: str) -> list[Range]:
        others = [thread for thread in THREADS if PROCESS_OF[thread] == PROCESS_OF[launch.thread]]
        return around(ranges, launch, domain) or [
            one for thread in others for one in around(ranges, launch._replace(thread=thread), domain)
        ]

    expected = {}
    for domain, name in {(one.domain, one.name) for one in ranges}:
        inside = [launch for launch in launches if any(one.name == name for one in offered(launch, domain))]
        if inside:
            expected[f"{domain}:{name}"] = sums(inside)
    outside = [launch for launch in launches if not any(offered(launch, domain) for domain in DOMAINS)]
    if outside:
        expected[UNATTRIBUTED] = sums(outside)
    rows = gpu_table(attribution, "range").rows()
    assert {row["name"]: (row["kernels"], row["kernel_sum_ns"], row["busy_ns"]) for row in rows} == expected


@SETTINGS
@given(random_ranges(), random_launches())
def test_inclusive_table_is_the_brute_force_one(ranges: list[Range], launches: list[Launch]) -> None:
    table = gpu_table(analysed(ranges, launches), "range")
    found = {row["name"]: (row["kernels"], row["kernel_sum_ns"], row["busy_ns"]) for row in table.rows()}
    expected = {}
    for key in {(one.domain, one.name) for one in ranges}:
        inside = [launch for launch in launches if any(one.name == key[1] for one in around(ranges, launch, key[0]))]
        if inside:
            expected[":".join(key)] = sums(inside)
    outside = [launch for launch in launches if not any(around(ranges, launch, domain) for domain in DOMAINS)]
    if outside:
        expected[UNATTRIBUTED] = sums(outside)
    assert found == expected


def sums(launches: list[Launch]) -> tuple[int, int, int]:
    """Kernels, their sum and their union, nanosecond by nanosecond."""
    covered = {moment for one in launches for moment in range(one.gpu_start, one.gpu_end)}
    return len(launches), sum(one.gpu_end - one.gpu_start for one in launches), len(covered)


@SETTINGS
@given(random_ranges(), random_launches())
def test_exclusive_tables_add_up_to_the_trace(ranges: list[Range], launches: list[Launch]) -> None:
    attribution = analysed([one._replace(domain="dsocr.module") for one in ranges], launches)
    total = sum(one.gpu_end - one.gpu_start for one in launches)
    for by in ("stage", "instance", "step", "module", "kernel"):
        table = gpu_table(attribution, by)
        assert (table.total("kernels"), table.total("kernel_sum_ns")) == (len(launches), total)


@SETTINGS
@given(random_ranges())
def test_stacks_nest_and_lose_no_range(ranges: list[Range]) -> None:
    attribution = analysed(ranges, [Launch(1, 0, 1, 2, 3)])
    tree: RangeTree = attribution.tree
    rows = np.concatenate([stack.rows for stack in tree.stacks]) if tree.stacks else np.zeros(0, int)
    assert sorted(rows.tolist()) == list(range(len(ranges)))
    for stack in tree.stacks:
        intervals = list(zip(stack.start.tolist(), stack.end.tolist(), strict=True))
        for index, (start, end) in enumerate(intervals):
            for other_start, other_end in intervals[:index]:
                assert other_end <= start or end <= other_end, "no two ranges of a stack cross"
                assert other_start <= start


@SETTINGS
@given(random_ranges())
def test_push_pop_ranges_of_a_thread_and_domain_are_one_stack(ranges: list[Range]) -> None:
    """They nest by themselves: splitting them would cost time and lose parents."""
    paired = [one for one in ranges if one.style == PUSH_POP]
    stacks = analysed(paired, [Launch(1, 0, 1, 2, 3)]).tree.stacks
    assert len(stacks) == len({(one.thread, one.domain) for one in paired})
