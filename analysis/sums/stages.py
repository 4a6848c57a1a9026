"""Stages, their instances and their steps: host time, GPU time, launches, waits, gaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution, Level
from analysis.attribution.intervals import sum_by_group, union_by_group, union_ns
from analysis.attribution.range_tree import Indices
from analysis.domain.annotations import IMAGE_NAME
from analysis.sums.grouping import UNATTRIBUTED, GpuTable
from analysis.sums.host_calls import GRAPH_LAUNCH, HostCalls, sum_gaps
from analysis.sums.percentile import percentile
from analysis.sums.records import GapSummary, GpuRow, InstanceSummary, StageSummary, StepPoint, StreamSummary
from analysis.sums.tables import gpu_table
from analysis.trace.distinct import distinct, distinct_values, present
from analysis.trace.records import KERNEL, NO_VALUE

__all__ = [
    "WHOLE_CAPTURE",
    "gpu_rows",
    "instance_summaries",
    "stage_summaries",
    "step_points",
    "stream_summaries",
    "whole_capture",
]

_NO_END: Final = np.iinfo(np.int64).min
"""Before all moments: a clock may read less than 0."""
WHOLE_CAPTURE: Final = "capture"
"""Stage of `whole_capture`."""


def gpu_rows(table: GpuTable) -> tuple[GpuRow, ...]:
    """Table rows as records."""
    return tuple(GpuRow(**row) for row in table.rows())


def stage_summaries(
    attribution: Attribution,
    host: HostCalls,
    stage_rows: Sequence[GpuRow],
    instances: Sequence[InstanceSummary],
    tokens: dict[str, int | None],
    sm_count: int | None,
) -> tuple[StageSummary, ...]:
    """Sum up each stage that has ranges in the trace.

    Args:
        attribution: of the trace.
        host: its calls.
        stage_rows: its table by stage.
        instances: its stage instances.
        tokens: prompt tokens of prefill and steps of decode, or those of an engine's kinds of steps, over all instances;
            None: unknown.
        sm_count: of the device that ran it.
    """
    ranges = attribution.ranges
    by_stage = {row.name: row for row in stage_rows}
    outermost = attribution.tree.first_of_its_name()
    summaries = []
    for stage in attribution.stages:
        rows = attribution.stage_rows(stage)
        if not rows.size:
            continue
        in_stage = np.zeros(len(ranges) + 1, dtype=bool)
        in_stage[rows] = True
        # A stage inside one of the same name adds no time of its own.
        outer = rows[outermost[rows]]
        mine = [instance for instance in instances if instance.stage == stage]
        of_steps = any(instance.composition is not None for instance in mine)
        span = _Span(
            stage=stage,
            of_steps=of_steps,
            instances=int(rows.size),
            tokens=tokens.get(stage),
            profiled_host_ns=int((ranges.end[outer] - ranges.start[outer]).sum()),
            profiled_ns=sum(instance.profiled_ns for instance in mine)
            if of_steps
            else int((_finished(attribution, rows, outer) - ranges.start[outer]).sum()),
            busy_ns=sum(instance.busy_ns for instance in mine),
            gpu=by_stage[stage],
            gaps=sum_gaps(instance.gaps for instance in mine if instance.gaps is not None),
            operations=in_stage[attribution.operation_level("stage")],
            calls=in_stage[attribution.call_level("stage")],
        )
        summaries.append(_summed(attribution, host, span, sm_count))
    return tuple(summaries)


def whole_capture(
    attribution: Attribution, host: HostCalls, stage_rows: Sequence[GpuRow], sm_count: int | None
) -> StageSummary | None:
    """The whole capture as one stage, for a trace that names none: from the first to the last GPU operation.

    Each process has a window of its own; the host's part of it is told by the thread that launches most.

    Args:
        attribution: of the trace.
        host: its calls.
        stage_rows: its GPU time by stage.
        sm_count: of the device that ran it.

    Returns:
        None: there is no GPU operation.
    """
    operations, calls = attribution.operations, attribution.calls
    if not len(operations):
        return None
    launching = np.bincount(calls.thread[host.launches], minlength=len(attribution.thread_process))
    windows = []
    elapsed = busy = 0
    processes = present(operations.process)
    for process in processes:
        mine = operations.process == process
        start, end = operations.start[mine], operations.end[mine]
        low, high = int(start.min()), int(end.max())
        elapsed += high - low
        busy += union_ns(start, end)
        theirs = attribution.thread_process == process if len(processes) > 1 else launching > 0
        threads = np.flatnonzero(theirs)
        if threads.size and launching[threads].any():
            windows.append((low, high, int(threads[launching[threads].argmax()])))
    gpu = next(row for row in stage_rows if row.name == UNATTRIBUTED)
    span = _Span(
        stage=WHOLE_CAPTURE,
        instances=1,
        tokens=None,
        profiled_host_ns=elapsed,
        profiled_ns=elapsed,
        busy_ns=busy,
        gpu=evolve(gpu, name=WHOLE_CAPTURE),
        gaps=sum_gaps(host.idle(windows)) if windows else None,
        operations=np.ones(len(operations), dtype=bool),
        calls=np.ones(len(calls), dtype=bool),
    )
    return _summed(attribution, host, span, sm_count)


@frozen(eq=False)
class _Span:
    """A part of the trace to be summed up: its own times, and which rows are in it."""

    stage: str
    instances: int
    tokens: int | None
    profiled_host_ns: int
    profiled_ns: int
    busy_ns: int
    gpu: GpuRow
    gaps: GapSummary | None
    operations: NDArray[np.bool_]
    calls: NDArray[np.bool_]
    of_steps: bool = False


def _summed(attribution: Attribution, host: HostCalls, span: _Span, sm_count: int | None) -> StageSummary:
    operations, calls = attribution.operations, attribution.calls
    launching = span.calls & host.launches
    waiting = span.calls & host.waits
    kernels = span.operations & (operations.kind == KERNEL)
    duration = operations.duration[kernels]
    delay = _delay(attribution, kernels)
    gpu = span.gpu
    total = gpu.kernel_sum_ns + gpu.memcpy_ns + gpu.memset_ns + gpu.graph_ns
    small_grid = _small_grids(attribution, sm_count)
    return StageSummary(
        stage=span.stage,
        instances=span.instances,
        tokens=span.tokens,
        profiled_host_ns=span.profiled_host_ns,
        profiled_ns=span.profiled_ns,
        projected_ns=gpu.projected_ns,
        busy_ns=span.busy_ns,
        kernel_sum_ns=gpu.kernel_sum_ns,
        gpu=gpu,
        launches=int(launching.sum()),
        graph_launches=int((launching & (host.kind == GRAPH_LAUNCH)).sum()),
        synchronises=int(waiting.sum()),
        synchronise_ns=int(calls.duration[waiting].sum(dtype=np.int64)),
        small_d2h_copies=int((span.operations & host.small_copies).sum()),
        host_launch_ns=int(calls.duration[launching].sum(dtype=np.int64)),
        queue_delay_median_ns=_delay_at(delay, 50),
        queue_delay_p95_ns=_delay_at(delay, 95),
        mean_kernel_ns=float(duration.mean()) if duration.size else None,
        median_kernel_ns=float(np.median(duration)) if duration.size else None,
        mean_launch_gap_ns=_launch_gap(attribution, launching),
        concurrency=total / span.busy_ns if span.busy_ns else None,
        gaps=span.gaps,
        small_grid_share=(
            float(duration[small_grid[kernels]].sum() / duration.sum())
            if small_grid is not None and duration.size and duration.sum()
            else None
        ),
        of_steps=span.of_steps,
    )


def _gpu_ends(attribution: Attribution, level: Level) -> NDArray[np.int64]:
    """End of the last GPU operation that each range of a level launched, [ranges]; `_NO_END`: it launched none."""
    last = np.full(
        len(attribution.ranges) + 1, _NO_END, dtype=np.int64
    )  # the last place holds what belongs to no range
    np.maximum.at(last, attribution.operation_level(level), attribution.operations.end)
    ends: NDArray[np.int64] = last[:-1]
    return ends


def _finished(attribution: Attribution, rows: NDArray[Any], outer: NDArray[Any]) -> NDArray[np.int64]:
    """When the ranges ``outer`` and the GPU work inside them have both ended, [outer].

    Args:
        attribution: of the trace.
        rows: all instances of the stage.
        outer: those of them that lie in no other one.
    """
    ranges = attribution.ranges
    finished: NDArray[np.int64] = np.maximum(ranges.end[rows], _gpu_ends(attribution, "stage")[rows])
    if rows.size == outer.size:
        return finished
    # Work inside a nested instance is that instance's; the outer one has not ended before it has.
    order = np.lexsort((ranges.start[outer], ranges.thread[outer]))
    key = ranges.thread[outer[order]], ranges.start[outer[order]]
    result: NDArray[np.int64] = ranges.end[outer].copy()
    for row, end in zip(rows.tolist(), finished.tolist(), strict=True):
        low, high = np.searchsorted(key[0], ranges.thread[row]), np.searchsorted(key[0], ranges.thread[row], "right")
        place = order[low + np.searchsorted(key[1][low:high], ranges.start[row], "right") - 1]
        result[place] = max(result[place], end)
    return result


def _small_grids(attribution: Attribution, sm_count: int | None) -> NDArray[np.bool_] | None:
    """Kernels with fewer blocks than the device has SMs, [operations]; None: not known."""
    operations = attribution.operations
    if sm_count is None or not len(operations.shapes):
        return None
    blocks = operations.shapes.grid_blocks(operations.shape)
    return (blocks >= 0) & (blocks < sm_count)


def _delay(attribution: Attribution, which: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Queueing delay: kernel start − launch start, ns, of the chosen operations that have a launch."""
    chosen = np.flatnonzero(which & (attribution.launch_call >= 0))
    return attribution.operations.start[chosen] - attribution.calls.start[attribution.launch_call[chosen]]


def _delay_at(delay: NDArray[np.int64], percent: float) -> float | None:
    """A percentile of delays; None: there are none, or it is below 0, as where the clocks of GPU and host do not fit."""
    value = percentile(delay, percent) if delay.size else -1.0
    return value if value >= 0 else None


def _launch_gap(attribution: Attribution, launching: NDArray[np.bool_]) -> float | None:
    """Mean host time from one launch to the next within one stage instance and thread, ns."""
    chosen = np.flatnonzero(launching)
    if chosen.size < 2:
        return None
    start = attribution.calls.start[chosen]
    instance = attribution.call_level("stage")[chosen]
    thread = attribution.calls.thread[chosen]
    together = (instance[1:] == instance[:-1]) & (thread[1:] == thread[:-1])
    steps = np.diff(start)[together]
    return float(steps.mean()) if steps.size else None


@frozen
class _Place:
    """Which run of what a stage instance is; see `InstanceSummary`."""

    image_index: int | None
    pass_index: int | None
    rank: int | None


def _places(attribution: Attribution, rows: NDArray[np.intp]) -> dict[int, _Place]:
    """Image, pass and rank of stage instances.

    Args:
        attribution: of the trace.
        rows: of the instances, in time order.
    """
    ranges = attribution.ranges
    image_row = attribution.tree.nearest(attribution.is_level("image"))
    process = attribution.thread_process[ranges.thread[rows]].tolist()
    pids = sorted({(attribution.info.pid(code) or 0, code) for code in process})
    ranks = {code: rank for rank, (_, code) in enumerate(pids)}
    seen: dict[tuple[int, int, int], int] = {}
    places = {}
    for row, code in zip(rows.tolist(), process, strict=True):
        around = int(image_row[row])
        name = IMAGE_NAME.fullmatch(ranges.names[ranges.name[around]]) if around >= 0 else None
        image = None if name is None else int(name[1])
        number = None
        if image is not None:
            key = (code, image, int(ranges.name[row]))
            number = seen[key] = seen.get(key, -1) + 1
        places[row] = _Place(image, number, ranks[code] if len(ranks) > 1 else None)
    return places


_NO_PLACE: Final = _Place(None, None, None)


def _stage_rows_in_time(attribution: Attribution) -> NDArray[np.intp]:
    rows = np.flatnonzero(attribution.is_level("stage"))
    return rows[np.argsort(attribution.ranges.start[rows], kind="stable")]


def instance_summaries(
    attribution: Attribution, host: HostCalls | None = None, cut: Indices | None = None
) -> tuple[InstanceSummary, ...]:
    """One record per stage instance, in time order.

    Args:
        attribution: of the trace.
        host: its calls, where they are read already.
        cut: rows of the image ranges that the program was ended in (`analysis.sums.partial`).
    """
    image_row = attribution.tree.nearest(attribution.is_level("image"))
    ended_in = frozenset(() if cut is None else cut.tolist())
    ranges = attribution.ranges
    rows = _stage_rows_in_time(attribution)
    table = {row.name: row for row in gpu_rows(gpu_table(attribution, "instance"))}
    paths, places = attribution.instance_names, _places(attribution, rows)
    steps = np.bincount(
        attribution.tree.nearest(attribution.is_level("stage"))[np.flatnonzero(attribution.is_level("step"))] + 1,
        minlength=len(ranges) + 1,
    )[1:]
    host = host or HostCalls(attribution)
    launching = attribution.call_level("stage")[host.launches]
    launches = np.bincount(launching + 1, minlength=len(ranges) + 1)[1:]
    gpu_end = _gpu_ends(attribution, "stage")
    next_start = _next_starts(attribution, rows)
    gaps: dict[int, GapSummary] = {}
    for stage in attribution.stages:
        mine = attribution.stage_rows(stage).tolist()
        windows = []
        for row in mine:
            end = int(ranges.end[row])
            if attribution.composition(row) is not None:  # behind its range the host samples and schedules for it
                end = max(end, min(int(gpu_end[row]), next_start.get(row, int(gpu_end[row]))))
            windows.append((int(ranges.start[row]), end, int(ranges.thread[row])))
        gaps.update(zip(mine, host.idle(windows), strict=True))
    summaries = []
    for row in rows.tolist():
        path, place = paths[row], places[row]
        gpu = table[path]
        payload = int(ranges.payload[row])
        summaries.append(
            InstanceSummary(
                path=path,
                image=path.rsplit("/", 1)[0] if "/" in path else None,
                stage=attribution.stage_of(row),
                start_ns=int(ranges.start[row]),
                end_ns=int(ranges.end[row]),
                profiled_host_ns=int(ranges.end[row] - ranges.start[row]),
                projected_ns=gpu.projected_ns,
                busy_ns=gpu.busy_ns,
                kernel_sum_ns=gpu.kernel_sum_ns,
                kernels=gpu.kernels,
                payload=None if payload == NO_VALUE else payload,
                steps=int(steps[row]),
                launches=int(launches[row]),
                gaps=gaps[row],
                gpu_end_ns=int(gpu_end[row]) if gpu_end[row] > _NO_END else None,
                image_index=place.image_index,
                pass_index=place.pass_index,
                rank=place.rank,
                composition=attribution.composition(row),
                next_ns=next_start.get(row),
                cut=int(image_row[row]) in ended_in,
            )
        )
    return tuple(summaries)


def _next_starts(attribution: Attribution, rows: NDArray[np.intp]) -> dict[int, int]:
    """Engine's step → start of the next one on its thread, ns; without the last of each thread.

    Args:
        attribution: of the trace.
        rows: stage instances, in time order.
    """
    last: dict[int, int] = {}
    following = {}
    for row in rows.tolist():
        if attribution.composition(row) is not None:
            thread = int(attribution.ranges.thread[row])
            if thread in last:
                following[last[thread]] = int(attribution.ranges.start[row])
            last[thread] = row
    return following


def step_points(attribution: Attribution, instances: Sequence[InstanceSummary] = ()) -> tuple[StepPoint, ...]:
    """One record per decode step or engine's step, in time order.

    Args:
        attribution: of the trace.
        instances: its stage instances; an engine's steps are among them.
    """
    ranges = attribution.ranges
    rows = np.flatnonzero(attribution.is_level("step"))
    rows = rows[np.argsort(ranges.start[rows], kind="stable")]
    if not rows.size:
        return ()
    table = gpu_table(attribution, "step")
    stage = attribution.tree.nearest(attribution.is_level("stage"))
    paths, places = attribution.instance_names, _places(attribution, _stage_rows_in_time(attribution))
    busy, kernels = table.columns["busy_ns"].tolist(), table.columns["kernels"].tolist()
    gpu_end = _gpu_ends(attribution, "step")
    of_path = {instance.path: instance for instance in instances if instance.composition is not None}
    queues = _StepQueues()
    seen: dict[int, int] = {}
    points = []
    # gpu_table keeps steps in time order too, the remainder last.
    for position, row in enumerate(rows.tolist()):
        itself = of_path.get(paths[row])
        # Steps that stand for themselves are numbered over their thread, others over the stage around them.
        parent = int(stage[row])
        numbered = parent if itself is None else -1 - int(ranges.thread[row])
        seen[numbered] = seen.get(numbered, -1) + 1
        payload = int(ranges.payload[row])
        place = places.get(parent, _NO_PLACE)
        points.append(
            StepPoint(
                instance=paths.get(parent, paths[row]),
                index=seen[numbered],
                start_ns=int(ranges.start[row]),
                profiled_host_ns=int(ranges.end[row] - ranges.start[row]),
                busy_ns=busy[position],
                kernels=kernels[position],
                context=None if payload == NO_VALUE else payload,
                gpu_end_ns=int(gpu_end[row]) if gpu_end[row] > _NO_END else None,
                image_index=place.image_index,
                pass_index=place.pass_index,
                rank=place.rank,
                **(queues.of(int(ranges.thread[row]), itself) if itself is not None else {}),
            )
        )
    return tuple(points)


class _StepQueues:
    """What an engine's steps find when they begin, thread by thread, in time order."""

    def __init__(self) -> None:
        self._range_end: dict[int, int] = {}
        self._gpu_end: dict[int, int] = {}

    def of(self, thread: int, step: InstanceSummary) -> dict[str, Any]:
        """Fields of `StepPoint` that only an engine's step has."""
        before, busy_until = self._range_end.get(thread), self._gpu_end.get(thread, step.start_ns)
        self._range_end[thread] = step.end_ns
        self._gpu_end[thread] = max(busy_until, step.gpu_end_ns or 0)
        return {
            "kind": step.stage,
            "composition": step.composition,
            "step_ns": step.profiled_ns,
            "queued_ns": max(0, busy_until - step.start_ns),
            "between_ns": None if before is None else max(0, step.start_ns - before),
            "launches": step.launches,
        }


def stream_summaries(attribution: Attribution) -> tuple[StreamSummary, ...]:
    """One record per process, device and stream, busiest first."""
    operations, info = attribution.operations, attribution.info
    if not len(operations):
        return ()
    streams, stream = distinct_values(operations.stream)
    devices, device = distinct_values(operations.device)
    processes, process = distinct_values(operations.process)
    key = (process.astype(np.int64) * devices.size + device) * streams.size + stream
    present, group = distinct(key, processes.size * devices.size * streams.size)
    size = present.size
    count = np.bincount(group, minlength=size)
    total = sum_by_group(group, operations.duration, size)
    union = union_by_group(group, operations.start, operations.end, size)
    place, stream_of = np.divmod(present, streams.size)
    process_of, device_of = np.divmod(place, devices.size)
    rows = [
        StreamSummary(
            device=int(devices[device_of[row]]),
            stream=int(streams[stream_of[row]]),
            operations=int(count[row]),
            sum_ns=int(total[row]),
            busy_ns=int(union[row]),
            pid=info.pid(int(processes[process_of[row]])),
            process_name=info.process_names.get(int(processes[process_of[row]])),
        )
        for row in range(size)
    ]
    return tuple(sorted(rows, key=lambda row: (-row.busy_ns, row.pid or 0, row.device, row.stream)))
