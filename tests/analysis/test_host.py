"""What the host did: kinds of calls, waits, and what filled the time in which the GPU was idle."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from attrs import astuple
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.attribution.attribution import Attribution
from analysis.attribution.intervals import merge
from analysis.report import assemble
from analysis.sums.host_calls import COPY, GRAPH_LAUNCH, LAUNCH, OTHER, SYNCHRONISE, HostCalls, sum_gaps
from analysis.sums.records import GapSummary
from analysis.trace.reader import Trace
from trace_builder import TraceBuilder, thread_id

Attribute = Callable[..., Attribution]
RealAttribution = Callable[[str], tuple[Trace, Attribution]]


def kinds(attribution: Attribution) -> dict[str, int]:
    calls, host = attribution.calls, HostCalls(attribution)
    return {calls.names[name]: int(kind) for name, kind in zip(calls.name.tolist(), host.kind, strict=True)}


# --- kinds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cudaLaunchKernel_v7000", LAUNCH),
        ("cudaLaunchKernelExC_v11060", LAUNCH),
        ("cuLaunchKernel", LAUNCH),
        ("cuLaunchKernelEx", LAUNCH),
        ("cuLaunchCooperativeKernel", LAUNCH),
        ("cudaLaunchHostFunc_v10000", OTHER),
        ("cudaGraphLaunch_v10000", GRAPH_LAUNCH),
        ("cuGraphLaunch", GRAPH_LAUNCH),
        ("cudaMemcpyAsync_v3020", COPY),
        ("cuMemcpyHtoDAsync_v2", COPY),
        ("cudaMemcpyBatchAsync_v12080", COPY),
        ("cudaMemset_v3020", COPY),
        ("cuMemsetD8Async", COPY),
        ("cudaMemcpy_v3020", SYNCHRONISE),
        ("cuMemcpyDtoH_v2", SYNCHRONISE),
        ("cudaMemcpyToSymbol_v3020", SYNCHRONISE),
        ("cudaStreamSynchronize_v3020", SYNCHRONISE),
        ("cudaDeviceSynchronize_v3020", SYNCHRONISE),
        ("cuEventSynchronize", SYNCHRONISE),
        ("cuCtxSynchronize", SYNCHRONISE),
        ("cudaMalloc_v3020", OTHER),
        ("cudaStreamWaitEvent_v3020", OTHER),
        ("cudaEventRecord_v3020", OTHER),
    ],
)
def test_kind_of_a_call_by_its_name(attribute: Attribute, name: str, kind: int) -> None:
    assert kinds(attribute(TraceBuilder().call(0, 10, name))) == {name: kind}


def test_a_call_of_unknown_name_is_what_it_owns(attribute: Attribute) -> None:
    built = TraceBuilder().launch(0, 10, ("k", 20, 30), name="cuSomethingNew")
    built.launch(40, 50, kernels=(("a", 60, 70), ("b", 70, 80)), name="cudaGraphLaunch_v10000")
    built.launch(90, 95, name="cuSomethingElse")
    assert kinds(attribute(built)) == {
        "cuSomethingNew": LAUNCH,
        "cudaGraphLaunch_v10000": GRAPH_LAUNCH,  # node by node it owns kernels, and stays a graph's launch
        "cuSomethingElse": OTHER,
    }


def test_unnamed_calls_launch_if_they_own_kernels(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 0, 100, domain="dsocr").launch(10, 20, ("k", 30, 40)).call(50, 60)
    built.without_column("CUPTI_ACTIVITY_KIND_RUNTIME", "nameId")
    assert HostCalls(attribute(built)).kind.tolist() == [LAUNCH, OTHER]


def test_a_whole_graph_of_unknown_launch_name(attribute: Attribute) -> None:
    built = TraceBuilder().graph(0, 10, (20, 50)).without_column("CUPTI_ACTIVITY_KIND_RUNTIME", "nameId")
    assert HostCalls(attribute(built)).kind.tolist() == [GRAPH_LAUNCH]


def test_of_nested_calls_the_outermost_counts(attribute: Attribute) -> None:
    """A runtime call and the driver call in it are one launch; so are a runtime and a driver synchronise one wait."""
    built = TraceBuilder()
    for pid in (1, 2):
        built.thread(pid, pid)
        built.launch(0, 100, ("k", 200, 300), correlation=7, name="cudaLaunchKernel_v7000")
        built.call(10, 50, "cuLaunchKernel", correlation=7).call(60, 90, "cuLaunchKernelEx")
        built.call(400, 500, "cudaDeviceSynchronize_v3020").call(410, 490, "cuCtxSynchronize")
        built.call(500, 510, "cudaDeviceSynchronize_v3020")
    host = HostCalls(attribute(built))
    names = np.array(host.attribution.calls.names)[host.attribution.calls.name]
    assert names[host.launches].tolist() == ["cudaLaunchKernel_v7000"] * 2
    assert names[host.waits].tolist() == ["cudaDeviceSynchronize_v3020"] * 4
    rows = host.waits_by("module", np.full(len(host.attribution.calls), -1), [])
    assert [(row.call, row.calls, row.total_ns) for row in rows] == [("cudaDeviceSynchronize", 4, 220)]


# --- waits ----------------------------------------------------------------------------------------------------


def test_small_copies_from_device_to_host(attribute: Attribute) -> None:
    built = TraceBuilder()
    for number, (kind, size) in enumerate((("DtoH", 4), ("DtoH", 1024), ("DtoH", 1025), ("HtoD", 4), ("DtoD", 4))):
        built.copy(
            100 * number, 100 * number + 5, (100 * number + 10, 100 * number + 20 + number), kind=kind, size=size
        )
    attribution = attribute(built.launch(600, 610, ("k", 620, 630)))
    host = HostCalls(attribution)
    assert attribution.operations.size[host.small_copies].tolist() == [4, 1024]
    (row,) = host.waits_by("module", np.zeros(len(attribution.calls), dtype=int), ["here"])
    assert (row.where, row.call, row.calls, row.total_ns, row.kind) == (
        "here", "cudaMemcpyAsync", 2, 5 + 5, "small device-to-host copy",
    ), "the host's time in the calls, not the GPU's in the copies"  # fmt: skip


def test_a_copy_of_unrecorded_size_is_not_called_small(attribute: Attribute) -> None:
    built = TraceBuilder().copy(0, 5, (10, 20), kind="DtoH", size=4)
    built.without_column("CUPTI_ACTIVITY_KIND_MEMCPY", "bytes")
    assert not HostCalls(attribute(built)).small_copies.any()


def test_waits_by_place(attribute: Attribute) -> None:
    attribution = attribute(TraceBuilder().call(0, 10).call(20, 25).call(30, 31).call(40, 47, "cuCtxSynchronize"))
    rows = HostCalls(attribution).waits_by("module", np.array([1, 1, -1, 0]), ["lm_head", "sam"])
    assert [(row.where, row.call, row.calls, row.total_ns) for row in rows] == [
        ("sam", "cudaDeviceSynchronize", 2, 15),
        ("(unattributed)", "cudaDeviceSynchronize", 1, 1),
        ("lm_head", "cuCtxSynchronize", 1, 7),
    ]


def test_most_waits_of_64tok_sit_inside_sam(real_attribution: RealAttribution) -> None:
    report = assemble(*real_attribution("deepseek-ocr_h100_64tok"), None)
    waits = {
        row.where: row.calls
        for row in report.host_calls
        if row.call == "cudaStreamSynchronize" and row.where not in ("prefill", "decode")
    }
    assert waits == {"sam": 96, "(unattributed)": 4}
    assert "96 of 100 cudaStreamSynchronize calls sit inside sam" in report.report.notes


@pytest.mark.parametrize("name", ["deepseek-ocr_h100_small", "tensor-parallel_2xh200_rank0", "llama_h100_cuda-graph"])
def test_waits_add_up_to_the_calls_table(
    name: str, real_trace: Callable[[str], Path], real_attribution: RealAttribution
) -> None:
    with closing(sqlite3.connect(real_trace(name))) as file:
        wanted = file.execute(
            "SELECT COUNT(*), SUM(r.end - r.start) FROM CUPTI_ACTIVITY_KIND_RUNTIME r JOIN StringIds s "
            "ON s.id = r.nameId WHERE s.value GLOB 'cuda*Synchronize_v*' OR s.value GLOB 'cudaMemcpy_v*'"
        ).fetchone()
        copies = file.execute("SELECT 1 FROM sqlite_master WHERE name = 'CUPTI_ACTIVITY_KIND_MEMCPY'").fetchone()
        small = (
            file.execute(
                "SELECT COUNT(*), SUM(r.end - r.start) FROM CUPTI_ACTIVITY_KIND_MEMCPY m JOIN CUPTI_ACTIVITY_KIND_RUNTIME r "
                "USING (correlationId) WHERE m.copyKind = 2 AND m.bytes <= 1024"
            ).fetchone()
            if copies
            else (0, None)
        )
    attribution = real_attribution(name)[1]
    rows = HostCalls(attribution).waits_by(
        "module", attribution.call_level("module"), [str(row) for row in range(len(attribution.ranges))]
    )
    found = {
        kind: [sum(values) for values in zip(*((row.calls, row.total_ns) for row in rows if row.kind == kind), strict=True)]
        for kind in ("synchronise", "small device-to-host copy")
    }  # fmt: skip
    assert found["synchronise"] == list(wanted)
    assert (found["small device-to-host copy"] or [0, None]) == list(small)


# --- idle time ------------------------------------------------------------------------------------------------

_FIRST = {SYNCHRONISE: 0, LAUNCH: 1, GRAPH_LAUNCH: 1, COPY: 1, OTHER: 2}


def idle_by_hand(attribution: Attribution, windows: list[tuple[int, int, int]]) -> GapSummary:
    """Nanosecond by nanosecond, with nothing but loops."""
    host, calls, operations = HostCalls(attribution), attribution.calls, attribution.operations
    process = attribution.thread_process
    per_process = np.unique(operations.process).size > 1
    parts, runs, counted = [0, 0, 0, 0, 0], [], set()
    drains = in_graph = 0
    replays: dict[int, list[int]] = {}
    for row in np.flatnonzero(operations.in_graph & (attribution.launch_call >= 0)).tolist():
        replays.setdefault(int(attribution.launch_call[row]), []).append(row)
    others = attribution.other_calls
    for low, high, thread in sorted(windows):
        busy: set[int] = set()
        for row in range(len(operations)):
            if not per_process or operations.process[row] == process[thread]:
                busy.update(range(operations.start[row], operations.end[row]))
        mine = [row for row in range(len(calls)) if calls.thread[row] == thread]
        returns = [int(calls.end[row]) for row in mine if host.kind[row] == SYNCHRONISE]
        run: list[int] = []
        for moment in range(low, high + 1):
            if moment < high and moment not in busy and (thread, moment) not in counted:
                run.append(moment)
                counted.add((thread, moment))
                continue
            spans = [
                (min(operations.start[rows]), max(operations.end[rows]))
                for rows in replays.values()
                if not per_process or operations.process[rows[0]] == process[thread]
            ]
            if run and any(start <= run[0] and run[-1] < end for start, end in spans):
                in_graph += len(run)
                runs += [len(run)]
                run = []
                continue
            returned = min((one for one in returns if one in run), default=None)
            drains += returned is not None
            for idle in run:
                around = [_FIRST[int(host.kind[row])] for row in mine if calls.start[row] <= idle < calls.end[row]]
                around += [
                    _FIRST[OTHER]
                    for row in range(len(others))
                    if others.thread[row] == thread
                    and others.start[row] <= idle < others.start[row] + others.duration[row]
                ]
                place = min(around, default=3)
                parts[4 if place and returned is not None and idle >= returned else place] += 1
            runs += [len(run)] if run else []
            run = []
    waiting, launching, other, outside, draining = parts
    return GapSummary(
        sum(parts) + in_graph,
        len(runs),
        max(runs, default=0),
        waiting,
        launching,
        other,
        outside,
        draining,
        drains,
        in_graph,
    )


def stage_windows(attribution: Attribution) -> list[tuple[int, int, int]]:
    ranges = attribution.ranges
    return [
        (int(ranges.start[row]), int(ranges.end[row]), int(ranges.thread[row]))
        for row in np.flatnonzero(attribution.is_level("stage"))
    ]


def overlap(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    return one[2] == other[2] and one[0] <= other[1] and other[0] <= one[1]


def idle(attribution: Attribution) -> GapSummary:
    windows = stage_windows(attribution)
    each = HostCalls(attribution).idle(windows)
    found = sum_gaps(each)
    assert astuple(found) == astuple(idle_by_hand(attribution, windows))
    for window, gaps in zip(windows, each, strict=True):
        if not any(other is not window and overlap(window, other) for other in windows):
            assert astuple(gaps) == astuple(idle_by_hand(attribution, [window]))
    parts = found.synchronising_ns + found.launching_ns + found.other_api_ns + found.outside_api_ns + found.draining_ns
    parts += found.in_graph_ns
    assert parts == found.total_ns
    return found


def test_gaps_are_cut_by_the_window(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 100, 200, domain="dsocr")
    built.launch(90, 110, ("before", 80, 120)).launch(150, 155, ("inside", 160, 170)).call(180, 250)
    assert idle(attribute(built)) == GapSummary(
        total_ns=70, count=2, largest_ns=40, synchronising_ns=20, launching_ns=5, other_api_ns=0, outside_api_ns=45
    )


def test_a_synchronise_costs_the_drain_behind_it(attribute: Attribute) -> None:
    """From its return to the next kernel, whatever the host does meanwhile; the call before its kernel's end costs nothing."""
    built = TraceBuilder().range("decode", 0, 200, domain="dsocr")
    built.launch(0, 10, ("a", 10, 50)).call(20, 60, "cudaStreamSynchronize_v3020")
    built.call(70, 75, "cudaMalloc_v3020").launch(90, 100, ("b", 105, 200))
    found = idle(attribute(built))
    assert found == GapSummary(10 + 55, 2, 55, 10, 10, 0, 0, draining_ns=45, drains=1)


def test_a_second_synchronise_on_an_idle_gpu_is_its_own_price(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 0, 100, domain="dsocr").kernel("a", 0, 20, correlation=None)
    built.call(5, 30, "cudaStreamSynchronize_v3020").call(40, 50, "cudaStreamSynchronize_v3020")
    assert idle(attribute(built)) == GapSummary(80, 1, 80, 20, 0, 0, 0, draining_ns=60, drains=1)


def test_a_synchronise_that_returns_to_a_busy_gpu_drained_nothing(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 0, 100, domain="dsocr").kernel("a", 0, 50, correlation=None)
    built.call(5, 30, "cudaEventSynchronize_v3020")
    assert idle(attribute(built)) == GapSummary(50, 1, 50, 0, 0, 0, 50)


@pytest.mark.parametrize(
    ("name", "stage", "shown"),
    [("deepseek-ocr_h100_small", "prefill", 41.5), ("deepseek-ocr_h100_64tok", "prefill", 3.4)],
)
def test_what_synchronises_cost_on_real_traces(
    name: str, stage: str, shown: float, real_attribution: RealAttribution
) -> None:
    """Experts looped in Python let the queue run dry at each synchronise; grouped ones do not."""
    attribution = real_attribution(name)[1]
    windows = [one for one, row in zip(stage_windows(attribution), np.flatnonzero(attribution.is_level("stage")), strict=True)
               if attribution.ranges.names[attribution.ranges.name[row]] == stage]  # fmt: skip
    found = sum_gaps(HostCalls(attribution).idle(windows))
    assert round(100 * (found.synchronising_ns + found.draining_ns) / found.total_ns, 1) == shown


def test_time_between_the_nodes_of_a_graph_is_not_the_hosts(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 0, 100, domain="dsocr")
    built.launch(0, 10, kernels=(("a", 20, 30), ("b", 40, 50)), name="cudaGraphLaunch_v10000")
    built.launch(60, 62, ("c", 70, 80))
    assert idle(attribute(built)) == GapSummary(70, 4, 20, 0, 12, 0, 48, in_graph_ns=10)


def test_nested_calls_of_different_kinds_count_once(attribute: Attribute) -> None:
    """An allocation that waits, in a launch that allocates: waiting counts first; what is behind it is the drain's."""
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr")
    built.call(10, 60, "cudaMalloc_v3020").call(20, 30, "cuCtxSynchronize")
    built.launch(60, 90, ("k", 95, 100)).call(65, 85, "cuMemAlloc_v2").call(70, 80, "cuStreamSynchronize")
    assert idle(attribute(built)) == GapSummary(95, 1, 95, 20, 0, 10, 10, 55, 1)


def test_calls_that_own_no_work_are_not_python(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 0, 100, domain="dsocr").launch(10, 20, ("k", 50, 60))
    built.call(22, 30, "cuKernelGetName").call(65, 70, "cudaStreamIsCapturing_v10000").call(68, 69, "cuKernelGetName")
    attribution = attribute(built)
    assert (len(attribution.calls), len(attribution.other_calls)) == (1, 3)
    assert idle(attribution) == GapSummary(90, 2, 50, 0, 10, 13, 67)


def test_other_calls_of_a_real_decode_against_sql(
    real_trace: Callable[[str], Path], real_attribution: RealAttribution
) -> None:
    """No call of this trace lies in another one, so the time of each is read from its own row."""
    trace, attribution = real_attribution("deepseek-ocr_h100_64tok")
    windows = [
        (int(attribution.ranges.start[row]), int(attribution.ranges.end[row]), int(attribution.ranges.thread[row]))
        for row in attribution.stage_rows("decode")
    ]
    found = sum_gaps(HostCalls(attribution).idle(windows))
    with closing(sqlite3.connect(real_trace("deepseek-ocr_h100_64tok"))) as file:
        rows = file.execute(
            "SELECT r.start, r.end, globalTid FROM CUPTI_ACTIVITY_KIND_RUNTIME r JOIN StringIds s ON s.id = r.nameId "
            "WHERE s.value NOT GLOB '*Launch*' AND s.value NOT GLOB '*Mem[cs]*' AND s.value NOT GLOB '*Synchronize*'"
        ).fetchall()
    starts, ends = merge(attribution.operations.start, attribution.operations.end)
    expected = 0
    for low, high, thread in windows:
        for start, end, tid in rows:
            if low <= start < high and tid == trace.info.threads[thread]:
                end = min(end, high)
                first, last = np.searchsorted(ends, start, "right"), np.searchsorted(starts, end)
                busy = np.minimum(ends[first:last], end) - np.maximum(starts[first:last], start)
                expected += end - start - int(busy.sum())
    assert (found.other_api_ns, round(found.other_api_ns / 1e6, 1)) == (expected, 28.2)


def test_what_other_threads_do_is_not_what_the_stage_waits_for(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr").launch(10, 20, ("k", 30, 40))
    built.thread(1, 2).call(50, 90)
    assert idle(attribute(built)).synchronising_ns == 0


def test_another_ranks_work_does_not_fill_the_gap(attribute: Attribute) -> None:
    built = TraceBuilder()
    for pid, (start, end) in ((1, (30, 40)), (2, (50, 90))):
        built.thread(pid, pid).range("prefill", 0, 100, domain="dsocr").launch(10, 20, (f"k{pid}", start, end))
    found = idle(attribute(built))
    assert (found.total_ns, found.count) == (90 + 60, 4)


def test_windows_that_overlap_on_a_thread_count_once(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 50, 90, domain="dsocr").range("decode", 0, 100, domain="dsocr")
    built.launch(10, 20, ("k", 20, 30)).call(60, 70)
    assert idle(attribute(built)).total_ns == 90


def test_an_operation_of_no_length_ends_no_gap(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr").launch(10, 20, ("k", 50, 50))
    assert idle(attribute(built)).count == 1


def test_no_gpu_work_at_all(attribute: Attribute) -> None:
    assert idle(attribute(TraceBuilder().range("prefill", 0, 50, domain="dsocr").call(10, 20))).total_ns == 50


_NAMES = (
    "cudaLaunchKernel_v7000", "cudaDeviceSynchronize_v3020", "cudaMalloc_v3020", "cudaMemsetAsync_v3020",
    "cuKernelGetName", "cudaStreamIsCapturing_v10000",
)  # fmt: skip


@st.composite
def busy_hosts(draw: st.DrawFn) -> TraceBuilder:
    """Up to two processes of two threads, whose calls nest, stages that follow each other, kernels anywhere."""
    built = TraceBuilder()
    for pid, tid in draw(st.lists(st.sampled_from([(1, 1), (1, 2), (2, 1)]), min_size=1, max_size=3, unique=True)):
        built.thread(pid, tid)
        cuts = sorted(draw(st.lists(st.integers(0, 120), min_size=2, max_size=5, unique=True)))
        for low, high in zip(cuts[::2], cuts[1::2], strict=False):
            built.range(draw(st.sampled_from(["prefill", "decode"])), low, high, domain="dsocr")
        _nest(draw, built, 0, 130, 2)
        if draw(st.booleans()):
            first = draw(st.integers(0, 100))
            nodes = tuple(
                (f"n{tid}{at}", first + at, first + at + 5)
                for at in draw(st.lists(st.integers(0, 30), min_size=2, max_size=3))
            )
            built.launch(first, first, kernels=nodes, name="cudaGraphLaunch_v10000")
        for number in range(draw(st.integers(0, 4))):
            start = draw(st.integers(0, 130))
            built.kernel(f"k{tid}{number}", start, start + draw(st.integers(0, 30)), correlation=None)
    return built


def _nest(draw: st.DrawFn, built: TraceBuilder, low: int, high: int, depth: int) -> None:
    cuts = sorted(draw(st.lists(st.integers(low, high), max_size=6)))
    for start, end in zip(cuts[::2], cuts[1::2], strict=False):
        built.call(start, end, draw(st.sampled_from(_NAMES)))
        if depth and end - start > 2:
            _nest(draw, built, start, end, depth - 1)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(built=busy_hosts())
def test_random_hosts_against_a_brute_force(built: TraceBuilder, attribute: Attribute) -> None:
    idle(attribute(built))


def test_idle_time_of_a_real_trace_against_a_sweep(real_attribution: RealAttribution) -> None:
    """Elapsed − busy inside the windows, on a trace whose 6,000 launches would be too many for the brute force."""
    attribution = real_attribution("deepseek-ocr_h100_small")[1]
    host, operations = HostCalls(attribution), attribution.operations
    windows = stage_windows(attribution)
    each = host.idle(windows)
    found = sum_gaps(each)
    busy = reach = 0
    for low, high, _ in windows:
        reach = low
        for start, end in zip(operations.start.tolist(), operations.end.tolist(), strict=True):
            start, end = max(start, reach), min(end, high)
            if end > start:
                busy += end - start
                reach = end
    assert found.total_ns == sum(high - low for low, high, _ in windows) - busy
    assert thread_id(1, 1) not in attribution.info.threads  # a real process, not a built one
