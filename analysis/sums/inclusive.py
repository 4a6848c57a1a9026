"""Inclusive sums: every range's own work and that of the ranges inside it, each operation once per name."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.attribution.intervals import overlapping, sum_by_group, union_by_group
from analysis.attribution.range_tree import Indices
from analysis.domain.errors import ConservationError
from analysis.sums.grouping import COUNTED, UNATTRIBUTED, GpuTable, gpu_codes, grouped, select
from analysis.trace.distinct import present

__all__ = [
    "RangeSums",
    "StackWork",
    "inclusive_table",
    "name_keys",
    "pairs_by_name",
    "range_sums",
    "work_by_stack",
]


def name_keys(attribution: Attribution) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Number the qualified names: key of each range, [ranges], and the names by key."""
    ranges = attribution.ranges
    if not len(ranges):
        return np.zeros(0, dtype=np.int32), ()
    packed = ranges.domain.astype(np.int64) * len(ranges.names) + ranges.name
    _, first, keys = np.unique(packed, return_index=True, return_inverse=True)
    return keys.astype(np.int32), tuple(attribution.qualified_name(int(row)) for row in first)


@frozen(eq=False)
class StackWork:
    """The operations inside a stack's ranges."""

    index: int
    """Of the stack."""
    operations: Indices
    """[m], in order of start."""
    rows: Indices
    """Innermost range of the stack around each, [m]."""


def work_by_stack(attribution: Attribution, selected: NDArray[np.bool_] | None = None) -> list[StackWork]:
    """The work of each stack that has any.

    Args:
        attribution: of the trace.
        selected: which operations to count, [n]; None: all.
    """
    work = []
    for index in range(len(attribution.tree.stacks)):
        operations, rows = attribution.operations_in_stack(index)
        if selected is not None:
            chosen = selected[operations]
            operations, rows = operations[chosen], rows[chosen]
        if operations.size:
            work.append(StackWork(index, operations, rows))
    return work


@frozen(eq=False)
class RangeSums:
    """What the calls inside each range launched, those of the ranges inside it included. All arrays are [ranges]."""

    columns: dict[str, NDArray[np.int64]]
    """Counts and sums of durations, by the names of `analysis.sums.grouping.COUNTED`."""
    first_start: NDArray[np.int64]
    """ns; the largest int64 where a range launched nothing."""
    last_end: NDArray[np.int64]
    """ns; -1 where a range launched nothing."""


def range_sums(attribution: Attribution, stacks: list[StackWork]) -> RangeSums:
    """Sum up GPU work by range, inclusively.

    Args:
        attribution: of the trace.
        stacks: the work to sum up.

    Raises:
        ConservationError: the roots' sums are not what their stacks hold.
    """
    operations = attribution.operations
    size = len(attribution.ranges)
    columns = {column: np.zeros(size, dtype=np.int64) for _, count, total in COUNTED for column in (count, total)}
    low = np.full(size, np.iinfo(np.int64).max, dtype=np.int64)
    high = np.full(size, -1, dtype=np.int64)
    duration = operations.duration
    for work in stacks:
        kinds, lasted = operations.kind[work.operations], duration[work.operations]
        for kind, count, total in COUNTED:
            which = kinds == kind
            if which.any():
                columns[count] += np.bincount(work.rows[which], minlength=size)
                columns[total] += sum_by_group(work.rows[which], lasted[which], size)
        np.minimum.at(low, work.rows, operations.start[work.operations])
        np.maximum.at(high, work.rows, operations.end[work.operations])
    held = {name: int(value.sum()) for name, value in columns.items()}
    for rows in reversed(attribution.tree.by_depth[1:]):
        above = attribution.tree.parent[rows]
        for value in columns.values():
            np.add.at(value, above, value[rows])
        np.minimum.at(low, above, low[rows])
        np.maximum.at(high, above, high[rows])
    roots = attribution.tree.parent < 0
    for name, value in columns.items():
        if int(value[roots].sum()) != held[name]:
            raise ConservationError(f"internal error: inclusive {name} of the root ranges is not what they hold")
    return RangeSums(columns, low, high)


def inclusive_table(attribution: Attribution, selected: NDArray[np.bool_] | None = None) -> GpuTable:
    """Table by ``domain:name``, inclusive.

    Args:
        attribution: of the trace.
        selected: which operations to count, [n]; None: all.

    Returns:
        Names by time, the operations in no range at all last.

    Raises:
        ConservationError: the roots' sums are not what their stacks hold.
    """
    operations = attribution.operations
    keys, names = name_keys(attribution)
    anywhere = np.zeros(len(operations), dtype=bool)
    stacks = work_by_stack(attribution, selected)
    for work in stacks:
        anywhere[work.operations] = True
    sums = range_sums(attribution, stacks)
    columns, low, high = sums.columns, sums.first_start, sums.last_end
    first = attribution.tree.first_of_its_name()
    by_name = {name: sum_by_group(keys[first], value[first], len(names)) for name, value in columns.items()}
    used = first & (high >= 0)
    by_name["projected_ns"] = sum_by_group(keys[used], (high - low)[used], len(names))
    by_name["busy_ns"] = _busy(attribution, stacks, keys, len(names), by_name)
    _count_once(attribution, stacks, keys, by_name)
    return _finish(attribution, names, by_name, anywhere, selected)


def pairs_by_name(
    attribution: Attribution, chosen: Indices, rows: Indices, keys: NDArray[np.int32]
) -> tuple[Indices, NDArray[np.int32], Indices]:
    """Walk up from each operation's range: (operation, name key, range), once per name along a chain.

    Args:
        attribution: of the trace.
        chosen: operations, [m].
        rows: innermost range of one stack around each, [m].
        keys: name key of each range.
    """
    first = attribution.tree.first_of_its_name()
    parent = attribution.tree.parent
    operations, ranges = [], []
    at = rows
    while True:
        inside = at >= 0
        chosen, at = chosen[inside], at[inside]
        if not chosen.size:
            break
        counts = first[at]
        operations.append(chosen[counts])
        ranges.append(at[counts])
        at = parent[at]
    nothing = np.zeros(0, dtype=np.int32)
    flat = np.concatenate(ranges) if ranges else nothing
    return np.concatenate(operations) if operations else nothing, keys[flat], flat


def _busy(
    attribution: Attribution,
    stacks: list[StackWork],
    keys: NDArray[np.int32],
    names: int,
    by_name: dict[str, NDArray[np.int64]],
) -> NDArray[np.int64]:
    """Union of operations by name: what overlaps nothing adds up, only the rest is walked range by range."""
    operations = attribution.operations
    shared = overlapping(operations.start, operations.end)
    gpu, gpus = gpu_codes(operations)
    busy = sum((by_name[total] for _, _, total in COUNTED), np.zeros(names, dtype=np.int64))
    by_domain: dict[int, list[tuple[Indices, Indices]]] = {}
    for work in stacks:
        walked = shared[work.operations]
        if walked.any():
            domain = attribution.tree.stacks[work.index].domain
            by_domain.setdefault(domain, []).append((work.operations[walked], work.rows[walked]))
    for parts in by_domain.values():  # one after the other: a name lies in one domain, and the pairs take memory
        pairs = [pairs_by_name(attribution, chosen, rows, keys) for chosen, rows in parts]
        operation = np.concatenate([pair[0] for pair in pairs])
        key = np.concatenate([pair[1] for pair in pairs])
        order = np.argsort(operation, kind="stable")
        operation, key = operation[order], key[order]
        start, end = operations.start[operation], operations.end[operation]
        busy -= sum_by_group(key, end - start, names)
        # Of each GPU on its own: two that work at once are not one that works longer.
        busy += union_by_group(key * gpus + gpu[operation], start, end, names * gpus).reshape(names, gpus).sum(axis=1)
    return busy


def _count_once(
    attribution: Attribution,
    stacks: list[StackWork],
    keys: NDArray[np.int32],
    by_name: dict[str, NDArray[np.int64]],
) -> None:
    """Recount names that stand in several stacks of one thread: there, one operation may be inside two of them."""
    holders: dict[tuple[int, int], int] = {}
    for work in stacks:
        stack = attribution.tree.stacks[work.index]
        for key in present(keys[stack.rows]):
            holders[stack.thread, key] = holders.get((stack.thread, key), 0) + 1
    for key in sorted({key for (_, key), count in holders.items() if count > 1}):
        nearest = attribution.tree.nearest(keys == key)
        inside = np.zeros(len(attribution.operations), dtype=bool)
        for work in stacks:
            inside[work.operations[nearest[work.rows] >= 0]] = True
        group = np.zeros(int(inside.sum()), dtype=np.int32)
        once = grouped(select(attribution.operations, inside), group, 1)
        for name, value in once.items():
            if name != "projected_ns":  # each range is an instance of its own
                by_name[name][key] = value[0]


def _finish(
    attribution: Attribution,
    names: tuple[str, ...],
    by_name: dict[str, NDArray[np.int64]],
    anywhere: NDArray[np.bool_],
    selected: NDArray[np.bool_] | None,
) -> GpuTable:
    outside = ~anywhere if selected is None else selected & ~anywhere
    rest: dict[str, Any] = {name: np.zeros(0, dtype=np.int64) for name in by_name}
    labels = names
    if outside.any():
        group = np.zeros(int(outside.sum()), dtype=np.int32)
        rest = grouped(select(attribution.operations, outside), group, 1)
        labels = (*names, UNATTRIBUTED)
    columns = {name: np.concatenate((value, rest[name])) for name, value in by_name.items()}
    weight = sum((columns[total] for _, _, total in COUNTED), np.zeros(len(labels), dtype=np.int64))
    work = sum((columns[count] for _, count, _ in COUNTED), np.zeros(len(labels), dtype=np.int64))
    last = np.array([label == UNATTRIBUTED for label in labels], dtype=bool)
    order = np.lexsort((-weight, last))
    order = order[work[order] > 0]
    return GpuTable(tuple(labels[row] for row in order), {name: value[order] for name, value in columns.items()})
