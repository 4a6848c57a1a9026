"""Do the figures of a report agree with each other and with their capture? Held before anything is written.

Each check can fail only by a fault of ours: its bounds are taken from the very columns that the figures are made of. What a
damaged trace makes impossible is a finding of `analysis.quality` instead, or refused where it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from analysis.attribution.attribution import Attribution
from analysis.domain.columns import Records
from analysis.domain.entities import KernelSummary
from analysis.domain.measures import Bounds
from analysis.sums.grouping import COUNTED, gpu_codes
from analysis.sums.records import (
    BusyTimeline,
    CaptureInfo,
    GapSummary,
    GpuRow,
    InstanceSummary,
    StageSummary,
    StreamSummary,
)
from analysis.trace.distinct import present
from analysis.verdict.records import Verdict

__all__ = ["BOUNDS", "NOT_OF_THE_CAPTURE", "bounds_of", "sums_that_differ", "verdicts_that_differ"]

SPAN: Final = "the time from the capture's first event to its last"
WORK: Final = "the sum over all its GPU operations"
CALLS: Final = "the sum over all its calls"
BUSY: Final = "that time, once for each of its processes and GPUs"
PROCESSES: Final = "that time, once for each of its processes"
"""A trace without stages is one stage, in which each process has a window of its own."""
RANGES: Final = "that time, once for each of its ranges and processes"
"""Ranges of several threads are open at once, and so may be those of one: a sum over ranges can exceed the capture."""

BOUNDS: Final[dict[str, dict[str, str]]] = {
    "InstanceSummary": {
        "profiled_host_ns": SPAN, "projected_ns": SPAN, "busy_ns": BUSY, "kernel_sum_ns": WORK,
    },
    "StepPoint": {
        "profiled_host_ns": SPAN, "busy_ns": BUSY, "step_ns": SPAN, "queued_ns": SPAN, "between_ns": SPAN,
    },
    "StreamSummary": {"busy_ns": SPAN, "sum_ns": WORK},
    "BusyTimeline": {"slice_ns": SPAN, "busy_ns": SPAN},
    "KernelSummary": {
        "total_ns": WORK, "mean_ns": SPAN, "median_ns": SPAN, "min_ns": SPAN, "max_ns": SPAN, "p95_ns": SPAN,
    },
    "KernelModuleRow": {
        "total_ns": WORK, "mean_ns": SPAN, "min_ns": SPAN, "max_ns": SPAN, "total_per_unit_ns": WORK,
    },
    "CategoryRow": {"total_ns": WORK},
    "LeftOut": {"total_ns": WORK},
    "GpuRow": {
        "kernel_sum_ns": WORK, "memcpy_ns": WORK, "memset_ns": WORK, "graph_ns": WORK, "busy_ns": WORK, "projected_ns": RANGES,
    },
    "StageSummary": {
        "profiled_host_ns": RANGES, "profiled_ns": RANGES, "projected_ns": RANGES, "busy_ns": WORK, "kernel_sum_ns": WORK,
        "synchronise_ns": CALLS, "host_launch_ns": CALLS, "queue_delay_median_ns": SPAN, "queue_delay_p95_ns": SPAN,
        "mean_kernel_ns": SPAN, "median_kernel_ns": SPAN, "mean_launch_gap_ns": SPAN,
    },
    "GapSummary": {
        "largest_ns": SPAN, "total_ns": RANGES, "synchronising_ns": RANGES, "launching_ns": RANGES, "other_api_ns": RANGES,
        "outside_api_ns": RANGES, "draining_ns": RANGES, "in_graph_ns": RANGES,
    },
    "HostCallRow": {"total_ns": CALLS},
    "UnitTimes": {
        "busy_ns": BUSY, "profiled_ns": PROCESSES, "pass_busy_ns": WORK, "pass_profiled_ns": RANGES,
    },
    "StepKindRow": {
        "step_ns": RANGES, "host_ns": RANGES, "busy_ns": WORK, "kernel_sum_ns": WORK, "step_median_ns": SPAN,
        "busy_median_ns": BUSY, "host_median_ns": SPAN, "per_token_ns": SPAN, "queued_median_ns": SPAN,
        "between_median_ns": SPAN, "decode_part_at_most_ns": RANGES, "prefill_part_at_least_ns": RANGES,
    },
    "RangeKernelRow": {
        "total_ns": WORK, "mean_ns": SPAN, "median_ns": SPAN, "min_ns": SPAN, "max_ns": SPAN, "std_ns": SPAN,
    },
    "ProjectionRow": {
        "projected_ns": RANGES, "host_ns": RANGES, "mean_ns": SPAN, "median_ns": SPAN, "min_ns": SPAN, "max_ns": SPAN,
        "std_ns": SPAN,
    },
    "OperatorSummary": {"total_time_ms": RANGES, "cuda_time_ms": WORK},
}  # fmt: skip
"""Record → field → what its time cannot exceed."""

NOT_OF_THE_CAPTURE: Final[dict[str, tuple[str, ...]]] = {
    "CaptureInfo": ("duration_ns",),  # what the profiler says of its session
    "ControlPass": ("prefill_ns", "decode_ns", "step_ns"),
    "UnitTimes": ("unprofiled_ns", "pass_unprofiled_ns"),
    "StageTiming": ("elapsed_ms",),
    "Overhead": ("unprofiled_ms", "profiled_ms"),
    "Utilisation": ("time_ns", "ideal_ns", "ideal_unit_ns"),
    "Budget": ("time_ns",),
    "BudgetTerm": ("per_unit_ns", "ceiling_ns"),
    "Action": ("ceiling_per_unit_ns", "ceiling_ns"),
    "Verdict": ("ceiling_ns",),
    "WorkPart": ("time_ns",),
    "Gain": ("saves_ns", "concerns_ns", "best_ns"),
    "Ranking": ("time_ns", "best_ns"),
    "Prediction": ("was_ns", "best_ns"),
    "Scored": ("came_ns",),
}
"""Times without the profiler, of other runs, at the device's peak, or parts of such: nothing in the trace bounds them."""


def bounds_of(attribution: Attribution) -> Bounds:
    """What no time of a capture exceeds."""
    operations, calls, ranges, others = (
        attribution.operations, attribution.calls, attribution.ranges, attribution.other_calls,
    )  # fmt: skip
    call_ns = calls.duration.astype(np.int64, copy=False)
    events = [
        (operations.start, operations.end),
        (calls.start, calls.start + call_ns),
        (ranges.start, ranges.end),
        (others.start, others.start + others.duration),
    ]
    events = [pair for pair in events if pair[0].size]
    first = min((int(start.min()) for start, _ in events), default=0)
    span = max((int(end.max()) for _, end in events), default=first) - first
    processes = max(len(present(operations.process)), 1)
    largest = {
        SPAN: span,
        BUSY: span * processes * gpu_codes(operations)[1],
        PROCESSES: span * processes,
        WORK: int(np.sum(operations.duration, dtype=np.int64)),
        CALLS: int(call_ns.sum()),
        RANGES: span * (len(ranges) + processes),
    }
    return Bounds(largest, BOUNDS)


_Counted: TypeAlias = tuple[str, str]
_SUMS: Final[tuple[_Counted, ...]] = tuple((count, total) for _, count, total in COUNTED)


def sums_that_differ(
    capture: CaptureInfo,
    stage_rows: Sequence[GpuRow],
    module_rows: Mapping[str, Sequence[GpuRow]],
    kernels: Sequence[KernelSummary],
    streams: Sequence[StreamSummary],
    stages: Sequence[StageSummary],
    instances: Sequence[InstanceSummary],
    timeline: BusyTimeline | None,
) -> list[str]:
    """Parts of a report that do not add up to their whole, and unions that are longer than what they are of.

    Args:
        capture: counts of the trace's operations.
        stage_rows: all of them, by stage, with what is in none.
        module_rows: ``all``, or the name of a stage → its operations by module.
        kernels: all of them.
        streams: all operations, by stream.
        stages: with their idle time.
        instances: of the stages.
        timeline: slices of the capture.
    """
    return [
        *_operations(capture, stage_rows, module_rows, streams),
        *_kernels(stage_rows, kernels),
        *_unions(stage_rows, module_rows, streams, instances, timeline),
        *_idle_times((f"stage {stage.stage}", stage.gaps) for stage in stages),
        *_idle_times((instance.path, instance.gaps) for instance in instances),
    ]


def _operations(
    capture: CaptureInfo,
    stage_rows: Sequence[GpuRow],
    module_rows: Mapping[str, Sequence[GpuRow]],
    streams: Sequence[StreamSummary],
) -> Iterator[str]:
    """Stages and what is in none, modules, and streams each hold every operation once."""
    whole = {name: _sum(stage_rows, name) for pair in _SUMS for name in pair}
    for count, _ in _SUMS:
        there = getattr(capture, count)
        if whole[count] != there:
            yield f"the stages hold {whole[count]:,} {count}, the capture {there:,}"
    of_stage = {row.name: row for row in stage_rows}
    for name, rows in module_rows.items():
        if name not in of_stage and name != "all":
            continue  # the whole capture under another name
        for column, all_stages in whole.items():
            expected = all_stages if name == "all" else getattr(of_stage[name], column)
            if (total := _sum(rows, column)) != expected:
                yield f"{column} of the modules of {name} add up to {total:,}, not {expected:,}"
    operations, time_ns = (sum(whole[pair[place]] for pair in _SUMS) for place in (0, 1))
    held = sum(row.operations for row in streams), sum(row.sum_ns for row in streams)
    if held != (operations, time_ns):
        yield f"the streams hold {held[0]:,} operations of {held[1]:,} ns, the stages {operations:,} of {time_ns:,} ns"


def _sum(rows: Iterable[GpuRow], column: str) -> int:
    return sum(getattr(row, column) for row in rows)


def _kernels(stage_rows: Sequence[GpuRow], kernels: Sequence[KernelSummary]) -> Iterator[str]:
    """The table of kernels holds each stage's kernels, and their times are in order."""
    held: dict[str, tuple[int, int]] = {}
    rows = Records.of(kernels)
    columns = (rows.values(name) for name in ("stage", "calls", "min_ns", "median_ns", "max_ns", "total_ns"))
    for row, (stage, times, least, median, most, total) in enumerate(zip(*columns, strict=True)):
        calls, total_ns = held.get(stage, (0, 0))
        held[stage] = (calls + times, total_ns + total)
        if not least <= median <= most <= total:
            yield f"least, median, greatest and total time of the kernel {rows[row].short_name} are out of order"
    for stage in stage_rows:
        if held.pop(stage.name, (0, 0)) != (stage.kernels, stage.kernel_sum_ns):
            yield f"the kernels of {stage.name} do not add up to its {stage.kernels:,} of {stage.kernel_sum_ns:,} ns"
    yield from (f"there are kernels of {name}, which is no stage" for name in held)


def _unions(
    stage_rows: Sequence[GpuRow],
    module_rows: Mapping[str, Sequence[GpuRow]],
    streams: Sequence[StreamSummary],
    instances: Sequence[InstanceSummary],
    timeline: BusyTimeline | None,
) -> Iterator[str]:
    """A GPU is busy for no longer than its operations take together, nor than from the first to the last of them.

    The busy time of a row is added up over GPUs, its projection is not.
    """
    gpus = max(len({(stream.pid, stream.device) for stream in streams}), 1)
    for name, rows in (("stages", stage_rows), *((f"modules of {stage}", rows) for stage, rows in module_rows.items())):
        for row in rows:
            if row.busy_ns > sum(getattr(row, total) for _, total in _SUMS) or row.busy_ns > gpus * row.projected_ns:
                yield f"{row.name} of the {name} is busy for {row.busy_ns:,} ns, longer than its operations"
    for stream in streams:
        if stream.busy_ns > stream.sum_ns:
            yield f"stream {stream.stream} is busy for {stream.busy_ns:,} ns, longer than its operations"
    for instance in instances:
        if instance.end_ns - instance.start_ns != instance.profiled_host_ns:
            yield f"{instance.path} does not last from its start to its end"
        if instance.busy_ns > gpus * instance.projected_ns:
            yield f"{instance.path} is busy for {instance.busy_ns:,} ns, longer than from its first to its last operation"
    if timeline is not None and max(timeline.busy_ns, default=0) > timeline.slice_ns:
        yield "a slice of the timeline is busy for longer than it lasts"


def _idle_times(gaps: Iterable[tuple[str, GapSummary | None]]) -> Iterator[str]:
    """Idle time is the sum of its kinds."""
    for name, idle in gaps:
        if idle is None:
            continue
        kinds = idle.synchronising_ns + idle.launching_ns + idle.other_api_ns + idle.outside_api_ns
        if kinds + idle.draining_ns + idle.in_graph_ns != idle.total_ns or idle.largest_ns > idle.total_ns:
            yield f"the kinds of idle time of {name} do not add up to {idle.total_ns:,} ns"


def verdicts_that_differ(verdicts: Sequence[Verdict]) -> list[str]:
    """Budgets whose terms do not add up to their stage's time, and actions that save more than there is."""
    wrong = []
    for verdict in verdicts:
        budget = verdict.budget
        if budget is None:
            continue
        if (total := sum(term.per_unit_ns for term in budget.terms)) != budget.time_ns:
            wrong.append(f"the budget of {verdict.stage} adds up to {total:,} ns, not {budget.time_ns:,}")
        # A ceiling is a fraction of a nanosecond at most above the whole nanoseconds of its terms.
        if any(action.ceiling_per_unit_ns > budget.time_ns + 1 for action in verdict.actions):
            wrong.append(f"an action saves more of {verdict.stage} than its {budget.time_ns:,} ns")
    return wrong
