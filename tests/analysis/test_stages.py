"""Stage, instance, step and stream records: small traces by hand, real ones against plain SQL and loops."""

from __future__ import annotations

import sqlite3
import statistics
from collections.abc import Callable
from contextlib import closing
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.attribution.attribution import Attribution
from analysis.efficiency.records import Measured
from analysis.efficiency.unit_times import unit_times
from analysis.sums.host_calls import HostCalls, host_call_rows
from analysis.sums.records import StageSummary, StreamSummary
from analysis.sums.stages import gpu_rows, instance_summaries, stage_summaries, step_points, stream_summaries
from analysis.sums.tables import gpu_table
from analysis.sums.tokens import tokens_by_stage
from analysis.trace.reader import Trace
from analysis.verdict.rules import verdicts
from measured_builder import captured_of
from trace_builder import TraceBuilder

Attribute = Callable[..., Attribution]
RealAttribution = Callable[[str], tuple[Trace, Attribution]]


def summaries(attribution: Attribution, sm_count: int | None = 132) -> dict[str, StageSummary]:
    instances = instance_summaries(attribution)
    tokens = tokens_by_stage(None, instances)
    rows = gpu_rows(gpu_table(attribution, "stage"))
    found = stage_summaries(attribution, HostCalls(attribution), rows, instances, tokens, sm_count)
    return {one.stage: one for one in found}


# --- by hand --------------------------------------------------------------------------------------------------


def two_images() -> TraceBuilder:
    built = TraceBuilder()
    for image, at in ((0, 0), (1, 1000)):
        built.range(f"image[{image}]", at, at + 900, domain="dsocr")
        built.range("prefill", at, at + 300, domain="dsocr", payload=10 + image)
        built.launch(at + 10, at + 20, ("gemm", at + 100, at + 140)).launch(
            at + 50, at + 70, ("gemm", at + 140, at + 200)
        )
        built.range("decode", at + 300, at + 900, domain="dsocr")
        for step in range(2):
            begin = at + 300 + 300 * step
            built.range("decode_step", begin, begin + 250, domain="dsocr", payload=20 + step)
            built.launch(begin + 10, begin + 15, ("small", begin + 30, begin + 40 + step), name="cuLaunchKernelEx")
            built.copy(begin + 50, begin + 55, (begin + 60, begin + 65), kind="DtoH", size=8)
            built.call(begin + 55, begin + 70)
    return built


def test_a_stage_by_hand(attribute: Attribute) -> None:
    found = summaries(attribute(two_images()))
    prefill, decode = found["prefill"], found["decode"]
    assert (prefill.instances, prefill.tokens, prefill.profiled_host_ns) == (2, 10 + 11, 600)
    assert (prefill.busy_ns, prefill.projected_ns, prefill.kernel_sum_ns) == (200, 200, 200)
    assert (prefill.launches, prefill.graph_launches, prefill.host_launch_ns) == (4, 0, 60)
    assert (prefill.mean_kernel_ns, prefill.median_kernel_ns) == (50, 50)
    assert prefill.mean_launch_gap_ns == 40  # within an instance: never from one image to the next
    assert (prefill.queue_delay_median_ns, prefill.queue_delay_p95_ns) == (90, 90)
    assert (decode.tokens, decode.launches, decode.synchronises, decode.synchronise_ns) == (4, 4, 4, 60)
    assert decode.small_d2h_copies == 4
    assert decode.kernel_sum_ns == 10 + 11 + 10 + 11
    assert decode.busy_ns == decode.kernel_sum_ns + 4 * 5
    assert decode.concurrency == 1.0
    assert decode.projected_ns == 2 * (300 + 65 - 30)
    assert decode.gaps is not None
    assert decode.gaps.total_ns == decode.profiled_host_ns - decode.busy_ns


def test_instances_and_steps_by_hand(attribute: Attribute) -> None:
    attribution = attribute(two_images())
    instances = instance_summaries(attribution)
    assert [(one.path, one.image, one.steps, one.payload, one.kernels) for one in instances] == [
        ("image[0]/prefill", "image[0]", 0, 10, 2),
        ("image[0]/decode", "image[0]", 2, None, 2),
        ("image[1]/prefill", "image[1]", 0, 11, 2),
        ("image[1]/decode", "image[1]", 2, None, 2),
    ]
    assert [(one.start_ns, one.end_ns, one.profiled_host_ns) for one in instances[2:]] == [
        (1000, 1300, 300),
        (1300, 1900, 600),
    ]
    steps = [
        (one.instance, one.index, one.profiled_host_ns, one.busy_ns, one.kernels, one.context)
        for one in step_points(attribution)
    ]
    assert steps == [
        ("image[0]/decode", 0, 250, 15, 1, 20),
        ("image[0]/decode", 1, 250, 16, 1, 21),
        ("image[1]/decode", 0, 250, 15, 1, 20),
        ("image[1]/decode", 1, 250, 16, 1, 21),
    ]  # fmt: skip


def test_two_ranks_are_each_as_busy_as_they_are(attribute: Attribute) -> None:
    """Ranks run at once: their host times add up, and so does what their GPUs did, not the union of both."""
    built = TraceBuilder()
    for pid in (1, 2):
        built.thread(pid, pid).range("decode", 0, 100, domain="dsocr").launch(5, 10, ("k", 10, 90), device=pid - 1)
    decode = summaries(attribute(built))["decode"]
    assert (decode.profiled_host_ns, decode.profiled_ns, decode.busy_ns) == (200, 200, 160)
    assert decode.gpu.busy_ns == 160  # each GPU on its own: two that work at once are not one that works longer
    assert decode.gaps is not None
    assert decode.gaps.total_ns == 40


def test_a_stage_inside_itself_adds_no_time(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 0, 100, domain="dsocr").range("decode", 20, 80, domain="dsocr")
    decode = summaries(attribute(built.launch(10, 12, ("a", 30, 40)).launch(30, 32, ("b", 40, 60))))["decode"]
    assert (decode.profiled_host_ns, decode.busy_ns) == (100, 30)


def test_a_stage_ends_when_its_gpu_work_has(attribute: Attribute) -> None:
    """The host may leave a stage while the GPU works on: its range alone would be half the truth."""
    built = TraceBuilder()
    for at in (0, 1000):
        built.range("decode", at, at + 100, domain="dsocr")
        built.range("decode_step", at + 10, at + 40, domain="dsocr").launch(at + 15, at + 20, ("a", at + 20, at + 150))
        built.range("decode_step", at + 50, at + 90, domain="dsocr").launch(at + 55, at + 60, ("a", at + 150, at + 280))
    attribution = attribute(built)
    decode = summaries(attribution)["decode"]
    assert (decode.profiled_host_ns, decode.profiled_ns, decode.busy_ns) == (200, 560, 520)
    first, second = instance_summaries(attribution)
    assert (first.gpu_end_ns, first.finished_ns, first.profiled_ns, first.launches) == (280, 280, 280, 2)
    assert (second.finished_ns, second.profiled_ns) == (1280, 280)
    assert [one.finished_ns for one in step_points(attribution)] == [150, 280, 1150, 1280]


def test_work_of_a_stage_inside_itself_counts_for_the_outer_one(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 0, 100, domain="dsocr").range("decode", 20, 80, domain="dsocr")
    built.launch(30, 32, ("b", 40, 160)).range("decode", 200, 300, domain="dsocr").launch(210, 212, ("b", 220, 230))
    decode = summaries(attribute(built))["decode"]
    assert (decode.profiled_host_ns, decode.profiled_ns) == (200, 260)


def test_concurrency_of_two_streams(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 0, 100, domain="dsocr")
    built.launch(1, 2, ("a", 10, 50), stream=7).launch(3, 4, ("b", 20, 60), stream=8).launch(
        5, 6, ("c", 70, 80), stream=7
    )
    attribution = attribute(built)
    assert summaries(attribution)["decode"].concurrency == pytest.approx(90 / 60)
    assert stream_summaries(attribution) == (
        StreamSummary(0, 7, 2, 50, 50, 1, "python1"), StreamSummary(0, 8, 1, 40, 40, 1, "python1"),
    )  # fmt: skip


def test_equal_stream_numbers_of_two_devices(attribute: Attribute) -> None:
    built = TraceBuilder().launch(1, 2, ("a", 10, 50), device=0).launch(3, 4, ("b", 20, 90), device=1)
    assert stream_summaries(attribute(built)) == (
        StreamSummary(1, 7, 1, 70, 70, 1, "python1"), StreamSummary(0, 7, 1, 40, 40, 1, "python1"),
    )  # fmt: skip


def test_equal_stream_numbers_of_two_processes(attribute: Attribute) -> None:
    built = TraceBuilder()
    for pid, end in ((11, 50), (12, 90)):
        built.thread(pid, pid).launch(1, 2, ("a", 10, end))
    assert stream_summaries(attribute(built)) == (
        StreamSummary(0, 7, 1, 80, 80, 12, "python12"), StreamSummary(0, 7, 1, 40, 40, 11, "python11"),
    )  # fmt: skip


def test_an_instance_says_which_image_pass_and_rank_it_is(attribute: Attribute) -> None:
    built = TraceBuilder()
    for pid in (12, 11):
        for number, image in enumerate((5, 3, 5)):
            start = 1000 * number + pid
            built.thread(pid, pid).range(f"image[{image}]", start, start + 500, domain="dsocr")
            built.range("prefill", start, start + 100, domain="dsocr")
            built.range("decode", start + 100, start + 400, domain="dsocr")
            built.range("decode_step", start + 110, start + 200, domain="dsocr")
    attribution = attribute(built)
    instances = instance_summaries(attribution)
    wanted = [(5, 0, 0), (5, 0, 1), (3, 0, 0), (3, 0, 1), (5, 1, 0), (5, 1, 1)]
    for stage in ("prefill", "decode"):
        mine = [one for one in instances if one.stage == stage]
        assert [(one.image_index, one.pass_index, one.rank) for one in mine] == wanted
    assert [(one.image_index, one.pass_index, one.rank) for one in step_points(attribution)] == wanted


def test_an_instance_in_no_image_of_one_process_says_so(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 0, 90, domain="dsocr").range("decode_step", 5, 20, domain="dsocr")
    built.thread(2, 2).launch(0, 5, ("k", 10, 20))  # a process without stages is no rank
    attribution = attribute(built)
    (instance,), (step,) = instance_summaries(attribution), step_points(attribution)
    assert (instance.image_index, instance.pass_index, instance.rank) == (None, None, None)
    assert (step.image_index, step.pass_index, step.rank) == (None, None, None)


def test_a_module_that_is_called_decode_adds_nothing_to_the_stages_waits(attribute: Attribute) -> None:
    """Hand-made modules go to the default domain, and may bear any name."""
    built = TraceBuilder().range("decode", 0, 100, domain="dsocr").range("decode", 1, 99)
    attribution = attribute(built.launch(2, 3, ("k", 5, 20)).call(10, 30))
    rows = host_call_rows(attribution, HostCalls(attribution))
    assert [(row.level, row.where, row.calls, row.total_ns) for row in rows] == [
        ("module", "decode", 1, 20), ("stage", "decode", 1, 20),
    ]  # fmt: skip
    captured = captured_of(
        instances=instance_summaries(attribution), stages=tuple(summaries(attribution).values()), host_calls=rows
    )
    (verdict,) = verdicts(Measured(captured, unit_times(captured), (), (), ()))
    (waits,) = [line for line in verdict.evidence if line.startswith("waits:")]
    assert waits.count("cudaDeviceSynchronize") == 1


def test_waits_outside_all_stages_have_a_row_too(attribute: Attribute) -> None:
    """So that both tables hold the same calls."""
    built = TraceBuilder().range("decode", 0, 100, domain="dsocr").call(10, 30).call(200, 207)
    attribution = attribute(built)
    rows = host_call_rows(attribution, HostCalls(attribution))
    assert [(row.level, row.where, row.calls, row.total_ns) for row in rows] == [
        ("module", "(unattributed)", 2, 27), ("stage", "(unattributed)", 1, 7), ("stage", "decode", 1, 20),
    ]  # fmt: skip


def test_no_streams_without_operations(attribute: Attribute) -> None:
    attribution = attribute(TraceBuilder().range("decode", 0, 100, domain="dsocr").call(1, 2))
    assert stream_summaries(attribution) == ()
    decode = summaries(attribution)["decode"]
    assert (decode.mean_kernel_ns, decode.queue_delay_median_ns, decode.concurrency, decode.tokens) == (None,) * 4
    assert (decode.mean_launch_gap_ns, decode.small_grid_share) == (None, None)
    assert decode.busy_ns == 0


def test_small_grids(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 0, 900, domain="dsocr")
    for number, grid in enumerate((1, 131, 132, 4000)):
        built.call(10 * number, 10 * number + 5, "cudaLaunchKernel_v7000", correlation=number + 1)
        built.kernel(f"k{grid}", 100 * number + 100, 100 * number + 110 + number, correlation=number + 1, grid=grid)
    attribution = attribute(built)
    assert summaries(attribution)["decode"].small_grid_share == pytest.approx((10 + 11) / (10 + 11 + 12 + 13))
    assert summaries(attribution, None)["decode"].small_grid_share is None


def test_unrecorded_grids_are_unknown_not_small(attribute: Attribute) -> None:
    built = two_images().without_column("CUPTI_ACTIVITY_KIND_KERNEL", "gridX")
    assert summaries(attribute(built))["decode"].small_grid_share is None


# --- real traces, against plain SQL ---------------------------------------------------------------------------


class Plain:
    """Rows of a real trace by sqlite3, and stages by the rule in words: same id, same thread, inside the range."""

    def __init__(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as file:
            self.calls = file.execute(
                "SELECT r.correlationId, r.globalTid, r.start, r.end, s.value FROM CUPTI_ACTIVITY_KIND_RUNTIME r "
                "JOIN StringIds s ON s.id = r.nameId"
            ).fetchall()
            self.kernels = file.execute(
                "SELECT correlationId, start, end, gridX * gridY * gridZ FROM CUPTI_ACTIVITY_KIND_KERNEL"
            ).fetchall()
            domains = dict(file.execute("SELECT domainId, text FROM NVTX_EVENTS WHERE eventType = 75"))
            self.stages = [
                row[1:]
                for row in file.execute(
                    "SELECT n.domainId, COALESCE(n.text, s.value), n.globalTid, n.start, n.end FROM NVTX_EVENTS n "
                    "LEFT JOIN StringIds s ON s.id = n.textId WHERE n.eventType IN (59, 60) ORDER BY n.start"
                )
                if domains.get(row[0]) == "dsocr" and row[1] in ("prefill", "decode")
            ]
            (self.sm_count,) = file.execute("SELECT MAX(smCount) FROM TARGET_INFO_GPU").fetchone()
        self.place: dict[int, int] = {}
        for correlation, thread, start, end, _ in self.calls:
            for number, (_, owner, low, high) in enumerate(self.stages):
                if thread == owner and low <= start and end <= high:
                    self.place[correlation] = number

    def stage(self, name: str) -> dict[str, Any]:
        mine = {number for number, stage in enumerate(self.stages) if stage[0] == name}
        kernels = [row for row in self.kernels if self.place.get(row[0]) in mine]
        began = {row[0]: row[2] for row in self.calls}
        durations = [end - start for _, start, end, _ in kernels]
        delays = sorted(start - began[correlation] for correlation, start, _, _ in kernels)
        launches: dict[int, list[int]] = {}
        inside = count = 0
        for correlation, _, start, end, call in sorted(self.calls, key=lambda row: row[2]):
            launching = "LaunchKernel" in call or "GraphLaunch" in call
            if launching and self.place.get(correlation) in mine:
                launches.setdefault(self.place[correlation], []).append(start)
                count, inside = count + 1, inside + end - start
        gaps = [b - a for starts in launches.values() for a, b in pairwise(starts)]
        return {
            "profiled_host_ns": sum(self.stages[number][3] - self.stages[number][2] for number in mine),
            "kernel_sum_ns": sum(durations),
            "launches": count,
            "host_launch_ns": inside,
            "mean_kernel_ns": statistics.fmean(durations) if durations else None,
            "median_kernel_ns": statistics.median(durations) if durations else None,
            "queue_delay_median_ns": statistics.median(delays) if delays else None,
            "queue_delay_p95_ns": _percentile(delays, 0.95) if delays else None,
            "mean_launch_gap_ns": statistics.fmean(gaps),
            "small_grid_share": (
                sum(end - start for _, start, end, grid in kernels if grid < self.sm_count) / sum(durations)
                if durations
                else None
            ),
        }


def _percentile(ordered: list[int], share: float) -> float:
    """By linear interpolation between the two nearest ranks."""
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


@cache
def plain(path: Path) -> Plain:
    return Plain(path)


@pytest.mark.parametrize("stage", ["prefill", "decode"])
@pytest.mark.parametrize(
    "name",
    ["deepseek-ocr_h100_small", "deepseek-ocr_h100_64tok", "llama_h100_cuda-graph", "tensor-parallel_2xh200_rank0"],
)
def test_real_stages(
    name: str, stage: str, real_trace: Callable[[str], Path], real_attribution: RealAttribution
) -> None:
    reference = plain(real_trace(name))
    found = summaries(real_attribution(name)[1], reference.sm_count)[stage]
    wanted = reference.stage(stage)
    assert {key: getattr(found, key) for key in wanted} == pytest.approx(wanted)
    assert found.gaps is not None
    idle = found.gaps
    parts = idle.synchronising_ns + idle.draining_ns + idle.launching_ns + idle.other_api_ns + idle.outside_api_ns
    parts += idle.in_graph_ns
    assert parts == idle.total_ns
    assert found.profiled_ns >= found.profiled_host_ns
    assert found.busy_ns <= found.profiled_ns


@pytest.mark.parametrize("name", ["deepseek-ocr_h100_64tok", "llama_h100_cuda-graph", "tensor-parallel_2xh200_rank0"])
def test_real_instances_and_steps_add_up(name: str, real_attribution: RealAttribution) -> None:
    attribution = real_attribution(name)[1]
    stages, instances, steps = summaries(attribution), instance_summaries(attribution), step_points(attribution)
    for stage, found in stages.items():
        mine = [one for one in instances if one.stage == stage]
        for field in ("profiled_host_ns", "profiled_ns", "projected_ns", "launches", "busy_ns", "kernel_sum_ns"):
            assert getattr(found, field) == sum(getattr(one, field) for one in mine), field
        assert found.instances == len(mine)
    assert [one.start_ns for one in steps] == sorted(one.start_ns for one in steps)
    for one in instances:
        assert one.steps == sum(step.instance == one.path for step in steps)
        inside = [step for step in steps if step.instance == one.path]
        assert [step.index for step in inside] == list(range(one.steps))
        assert all(
            one.start_ns <= step.start_ns and step.start_ns + step.profiled_host_ns <= one.end_ns for step in inside
        )
        assert sum(step.busy_ns for step in inside) <= one.busy_ns


@pytest.mark.parametrize("name", ["deepseek-ocr_h100_64tok", "tensor-parallel_2xh200_rank0"])
def test_real_streams(name: str, real_attribution: RealAttribution) -> None:
    operations = real_attribution(name)[1].operations
    found = stream_summaries(real_attribution(name)[1])
    assert sum(one.operations for one in found) == len(operations)
    assert sum(one.sum_ns for one in found) == int(operations.duration.sum())
    for one in found:
        mine = np.flatnonzero((operations.device == one.device) & (operations.stream == one.stream))
        busy = reach = 0
        for row in mine.tolist():
            start, end = max(int(operations.start[row]), reach), int(operations.end[row])
            if end > start:
                busy, reach = busy + end - start, end
        assert (one.operations, one.busy_ns) == (mine.size, busy)
