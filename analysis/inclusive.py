"""Inclusive sums: every range's own work and that of the ranges inside it, each operation once per name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.attribution import Attribution
from analysis.errors import ConservationError
from analysis.grouping import COUNTED, UNATTRIBUTED, GpuTable, grouped, select
from analysis.intervals import overlapping, sum_by_group, union_by_group
from analysis.ranges import Indices

__all__ = ["inclusive_table", "name_keys", "operation_lanes", "pairs_by_name"]


def name_keys(attribution: Attribution) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Number the qualified names: key of each range, [ranges], and the names by key."""
    ranges = attribution.ranges
    if not len(ranges):
        return np.zeros(0, dtype=np.int32), ()
    packed = ranges.domain.astype(np.int64) * len(ranges.names) + ranges.name
    _, first, keys = np.unique(packed, return_index=True, return_inverse=True)
    return keys.astype(np.int32), tuple(attribution.qualified_name(int(row)) for row in first)


def operation_lanes(attribution: Attribution) -> list[tuple[int, Indices]]:
    """For each lane whose thread launches work: its index and the innermost range around each operation, [n]."""
    found = []
    for index in range(len(attribution.forest.lanes)):
        by_call = attribution.lane_of_calls(index)
        if by_call is not None:
            found.append((index, attribution.of_owner(by_call)))
    return found


def inclusive_table(attribution: Attribution, selected: NDArray[np.bool_] | None = None) -> GpuTable:
    """Table by ``domain:name``, inclusive.

    Args:
        attribution: of the trace.
        selected: which operations to count, [n]; None: all.

    Returns:
        Names by time, the operations in no range at all last.

    Raises:
        ConservationError: the roots' sums are not what their lanes hold.
    """
    operations = attribution.operations
    keys, names = name_keys(attribution)
    size = len(attribution.ranges)
    columns = {column: np.zeros(size, dtype=np.int64) for _, count, total in COUNTED for column in (count, total)}
    low = np.full(size, np.iinfo(np.int64).max, dtype=np.int64)
    high = np.full(size, -1, dtype=np.int64)
    anywhere = np.zeros(len(operations), dtype=bool)
    lanes = operation_lanes(attribution)
    duration = operations.duration
    for _, row in lanes:
        inside = row >= 0
        if selected is not None:
            inside &= selected
        anywhere |= inside
        for kind, count, total in COUNTED:
            which = inside & (operations.kind == kind)
            if which.any():
                columns[count] += np.bincount(row[which], minlength=size)
                columns[total] += sum_by_group(row[which], duration[which], size)
        np.minimum.at(low, row[inside], operations.start[inside])
        np.maximum.at(high, row[inside], operations.end[inside])
    held = {name: int(value.sum()) for name, value in columns.items()}
    for rows in reversed(attribution.forest.by_depth[1:]):
        above = attribution.forest.parent[rows]
        for value in columns.values():
            np.add.at(value, above, value[rows])
        np.minimum.at(low, above, low[rows])
        np.maximum.at(high, above, high[rows])
    roots = attribution.forest.parent < 0
    for name, value in columns.items():
        if int(value[roots].sum()) != held[name]:
            raise ConservationError(f"internal error: inclusive {name} of the root ranges is not what they hold")
    first = attribution.forest.first_of_its_name()
    by_name = {name: sum_by_group(keys[first], value[first], len(names)) for name, value in columns.items()}
    used = first & (high >= 0)
    by_name["projected_ns"] = sum_by_group(keys[used], (high - low)[used], len(names))
    by_name["busy_ns"] = _busy(attribution, lanes, keys, len(names), by_name, selected)
    _count_once(attribution, lanes, keys, by_name, selected)
    return _finish(attribution, names, by_name, anywhere, selected)


def pairs_by_name(
    attribution: Attribution, row: Indices, chosen: NDArray[np.integer[Any]], keys: NDArray[np.int32]
) -> tuple[NDArray[np.integer[Any]], NDArray[np.int32], Indices]:
    """Walk up from each chosen operation's range: (operation, name key, range), once per name along a chain.

    Args:
        attribution: of the trace.
        row: innermost range of one lane around each operation, [n].
        chosen: operations, [m].
        keys: name key of each range.
    """
    first = attribution.forest.first_of_its_name()
    parent = attribution.forest.parent
    operations, ranges = [], []
    at = row[chosen]
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
    return np.concatenate(operations) if operations else nothing.astype(np.intp), keys[flat], flat


def _busy(
    attribution: Attribution,
    lanes: list[tuple[int, Indices]],
    keys: NDArray[np.int32],
    names: int,
    by_name: dict[str, NDArray[np.int64]],
    selected: NDArray[np.bool_] | None,
) -> NDArray[np.int64]:
    """Union of operations by name: what overlaps nothing adds up, only the rest is walked range by range."""
    operations = attribution.operations
    shared = overlapping(operations.start, operations.end)
    if selected is not None:
        shared &= selected
    busy = sum((by_name[total] for _, _, total in COUNTED), np.zeros(names, dtype=np.int64))
    chosen = np.flatnonzero(shared).astype(np.int32)
    if not chosen.size:
        return busy
    by_domain: dict[int, list[Indices]] = {}
    for index, row in lanes:
        by_domain.setdefault(attribution.forest.lanes[index].domain, []).append(row)
    for rows in by_domain.values():  # one after the other: a name lies in one domain, and the pairs take memory
        pairs = [pairs_by_name(attribution, row, chosen, keys) for row in rows]
        operation = np.concatenate([one[0] for one in pairs])
        key = np.concatenate([one[1] for one in pairs])
        order = np.argsort(operation, kind="stable")
        operation, key = operation[order], key[order]
        start, end = operations.start[operation], operations.end[operation]
        busy -= sum_by_group(key, end - start, names)
        busy += union_by_group(key, start, end, names)
    return busy


def _count_once(
    attribution: Attribution,
    lanes: list[tuple[int, Indices]],
    keys: NDArray[np.int32],
    by_name: dict[str, NDArray[np.int64]],
    selected: NDArray[np.bool_] | None,
) -> None:
    """Recount names that stand in several lanes of one thread: there, one operation may be inside two of them."""
    holders: dict[tuple[int, int], int] = {}
    for index, _ in lanes:
        lane = attribution.forest.lanes[index]
        for key in np.unique(keys[lane.rows]).tolist():
            holders[lane.thread, key] = holders.get((lane.thread, key), 0) + 1
    for key in sorted({key for (_, key), count in holders.items() if count > 1}):
        nearest = np.append(attribution.forest.nearest(keys == key), np.int32(-1))
        inside = np.zeros(len(attribution.operations), dtype=bool)
        for _, row in lanes:
            inside |= nearest[row] >= 0
        if selected is not None:
            inside &= selected
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
    return GpuTable(tuple(labels[one] for one in order), {name: value[order] for name, value in columns.items()})
