"""Single launches and single ranges as columns: what a program sums up in its own way. No row is touched by Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import LEVELS, Attribution, Level
from analysis.domain.annotations import IMAGE_NAME
from analysis.sums.grouping import COUNTED, UNATTRIBUTED
from analysis.sums.host_calls import function_name
from analysis.sums.inclusive import range_sums, work_by_stack
from analysis.sums.records import InstanceSummary, StepPoint
from analysis.trace.records import GRAPH, KERNEL, NO_VALUE

__all__ = ["Columns", "Partial", "Texts", "launch_columns", "range_columns"]

PUSH_POP: Final = "PushPop"
START_END: Final = "StartEnd"


@frozen(eq=False)
class Texts:
    """A column of text that repeats itself."""

    codes: NDArray[np.int32]
    """Index into ``names``, [n]."""
    names: tuple[str, ...]
    """Distinct."""


@frozen(eq=False)
class Partial:
    """A column of whole numbers that are not all known."""

    values: NDArray[np.int64]
    known: NDArray[np.bool_]


Columns: TypeAlias = dict[str, NDArray[Any] | Texts | Partial]
"""Key → column, all of one length."""


def _texts(codes: NDArray[Any], names: Iterable[str]) -> Texts:
    """Text by code, with equal names made one."""
    unique: dict[str, int] = {}
    lookup = np.array([unique.setdefault(name, len(unique)) for name in names], dtype=np.int32)
    return Texts(lookup[codes] if lookup.size else codes.astype(np.int32), tuple(unique))


def _attributed(codes: NDArray[Any], names: Iterable[str]) -> Texts:
    """Text by code; -1 is `UNATTRIBUTED`."""
    return _texts(codes, (*names, UNATTRIBUTED))


def _known(values: NDArray[Any], missing: int = -1) -> Partial:
    """Numbers of which one value stands for unknown."""
    return Partial(values.astype(np.int64), np.asarray(values != missing))


def _optional(values: Sequence[int | None]) -> NDArray[np.int64]:
    """By row of something, and at the end for no row; -1: unknown."""
    return np.array([-1 if value is None else value for value in (*values, None)], dtype=np.int64)


def _in_time_order(attribution: Attribution, level: Level) -> NDArray[np.intp]:
    """Rows of a level's ranges in the order of `InstanceSummary` and `StepPoint`."""
    rows = np.flatnonzero(attribution.is_level(level))
    return rows[np.argsort(attribution.ranges.start[rows], kind="stable")]


def _place(
    attribution: Attribution,
    instances: Sequence[InstanceSummary],
    steps: Sequence[StepPoint],
    around: Callable[[Level], NDArray[Any]],
) -> Columns:
    """Stage, instance, image, pass, rank and step of rows.

    Args:
        attribution: of the trace.
        instances: all stage instances, in time order.
        steps: all decode steps, in time order.
        around: level → the range of that level around each row, -1: none.
    """
    ranges = attribution.ranges
    instance_of, step_of, image_of = (np.full(len(ranges) + 1, -1, dtype=np.int64) for _ in range(3))
    instance_of[_in_time_order(attribution, "stage")] = np.arange(len(instances))
    step_of[_in_time_order(attribution, "step")] = [step.index for step in steps]
    for row in np.flatnonzero(attribution.is_level("image")).tolist():
        name = IMAGE_NAME.fullmatch(ranges.names[ranges.name[row]])
        image_of[row] = int(name[1]) if name is not None else -1
    instance = instance_of[around("stage")]
    stages = np.array([attribution.stages.index(row.stage) for row in instances] + [-1], dtype=np.int32)
    return {
        "stage": _attributed(stages[instance], attribution.stages),
        "instance": _attributed(instance, [row.path for row in instances]),
        "image_index": _known(image_of[around("image")]),
        "pass_index": _known(_optional([row.pass_index for row in instances])[instance]),
        "rank": _known(_optional([row.rank for row in instances])[instance]),
        "step": _known(step_of[around("step")]),
    }


def _threads(attribution: Attribution, thread: NDArray[Any]) -> Columns:
    info = attribution.info
    pids = _optional([info.pid(info.thread_process[code]) for code in range(len(info.threads))])
    tids = _optional([info.tid(code) for code in range(len(info.threads))])
    return {"pid": _known(pids[thread]), "tid": _known(tids[thread])}


def launch_columns(
    attribution: Attribution, instances: Sequence[InstanceSummary], steps: Sequence[StepPoint]
) -> Columns:
    """Every kernel, and every CUDA graph that was traced as a whole, with the call that launched it.

    Args:
        attribution: of the trace.
        instances: all stage instances, in time order.
        steps: all decode steps, in time order.

    Returns:
        Columns, [launches], in order of the kernels' starts. Times in ns on the trace's clock.
    """
    operations, calls = attribution.operations, attribution.calls
    chosen = np.flatnonzero((operations.kind == KERNEL) | (operations.kind == GRAPH))
    call = attribution.launch_call[chosen]
    launched = call >= 0
    of_range, paths = attribution.module_names
    module = of_range[attribution.operation_level("module")[chosen]]
    thread = np.append(calls.thread, -1)[call]
    call_start, call_end = (np.append(times, 0)[call] for times in (calls.start, calls.end))
    shapes = operations.shapes
    blocks = shapes.grid_blocks(operations.shape[chosen])
    start = operations.start[chosen]
    return {
        **_place(attribution, instances, steps, lambda level: attribution.operation_level(level)[chosen]),
        "module": _attributed(module, paths),
        "kind": _texts((operations.kind[chosen] == GRAPH).astype(np.int32), ("kernel", "graph")),
        "name": _texts(operations.name[chosen], operations.names),
        "start_ns": start,
        "end_ns": operations.end[chosen],
        "duration_ns": operations.duration[chosen],
        "device": operations.device[chosen].astype(np.int64),
        "stream": operations.stream[chosen].astype(np.int64),
        "blocks": _known(blocks),
        "in_graph": operations.in_graph[chosen],
        "correlation_id": _known(operations.correlation[chosen]),
        "call": _attributed(np.append(calls.name, -1)[call], [function_name(name) for name in calls.names]),
        "call_start_ns": Partial(call_start, launched),
        "call_end_ns": Partial(call_end, launched),
        "queue_delay_ns": Partial(np.where(launched, start - call_start, 0), launched),
        **_threads(attribution, thread),
    }


def range_columns(
    attribution: Attribution, instances: Sequence[InstanceSummary], steps: Sequence[StepPoint]
) -> Columns:
    """Every NVTX range.

    Args:
        attribution: of the trace.
        instances: all stage instances, in time order.
        steps: all decode steps, in time order.

    Returns:
        Columns, [ranges], in the file's order: ``parent`` numbers these rows from 0. Times in ns on the trace's clock.
    """
    ranges, tree = attribution.ranges, attribution.tree
    level = np.full(len(ranges), len(LEVELS), dtype=np.int32)
    for number, name in enumerate(LEVELS):
        level[attribution.is_level(name)] = number
    sums = range_sums(attribution, work_by_stack(attribution))
    works = sums.last_end >= 0
    return {
        "name": _texts(ranges.name, ranges.names),
        "domain": _texts(ranges.domain, ranges.domains),
        "level": _texts(level, (*LEVELS, "other")),
        "style": _texts(ranges.paired.astype(np.int32), (START_END, PUSH_POP)),
        "start_ns": ranges.start,
        "end_ns": ranges.end,
        "duration_ns": ranges.end - ranges.start,
        "closed": ~ranges.unclosed,
        "parent": _known(tree.parent),
        **_place(attribution, instances, steps, lambda level: _around(attribution, level)),
        "payload": _known(ranges.payload, NO_VALUE),
        **_threads(attribution, ranges.thread),
        **{name: sums.columns[name] for _, count, total in COUNTED for name in (count, total)},
        "gpu_start_ns": Partial(np.where(works, sums.first_start, 0), works),
        "gpu_end_ns": Partial(np.where(works, sums.last_end, 0), works),
    }


def _around(attribution: Attribution, level: Level) -> NDArray[np.int32]:
    """For each range, itself or the innermost range of a level around it on its thread, [ranges]; -1: none.

    Across domains, as a launch inside it would be attributed: a module lies in the stage that was open around it.
    """
    ranges, tree = attribution.ranges, attribution.tree
    wanted = attribution.is_level(level)
    nearest = np.append(tree.nearest(wanted), np.int32(-1))
    innermost = np.full(len(ranges) + 1, -1, dtype=np.int32)
    by_thread: dict[int, NDArray[np.intp]] = {}
    for stack in tree.stacks:
        if not wanted[stack.rows].any():
            continue
        if stack.thread not in by_thread:
            by_thread[stack.thread] = np.flatnonzero(ranges.thread == stack.thread)
        rows = by_thread[stack.thread]
        around = nearest[stack.innermost(ranges.start[rows], ranges.end[rows])]
        before = innermost[rows]
        later = (around >= 0) & ((before < 0) | (ranges.start[around] > ranges.start[before]))
        innermost[rows] = np.where(later, around, before)
    own = np.flatnonzero(wanted)
    innermost[own] = own
    return innermost[:-1]
