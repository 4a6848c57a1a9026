"""Arithmetic on intervals of time: int64 arrays of starts and ends in nanoseconds, end ≥ start. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["gaps", "merge", "overlapping", "sum_by_group", "union_by_group", "union_ns"]

Ints = NDArray[np.int64]


def _ordered(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    if start.size > 1 and bool(np.any(start[1:] < start[:-1])):
        order = np.argsort(start, kind="stable")
        return start[order], end[order]
    return start, end


def merge(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Merge intervals that overlap or touch.

    Args:
        start: [n], ns, in any order.
        end: [n], ns.

    Returns:
        Starts and ends of the merged intervals, disjoint and in order, [m] with m ≤ n.
    """
    if start.size == 0:
        return start, end
    start, end = _ordered(start, end)
    reach = np.maximum.accumulate(end)
    first = np.empty(start.size, dtype=bool)
    first[0] = True
    np.greater(start[1:], reach[:-1], out=first[1:])
    heads = np.flatnonzero(first)
    return start[heads], reach[np.append(heads[1:], start.size) - 1]


def union_ns(start: Ints, end: Ints) -> int:
    """Length of the union of intervals, ns. The order does not matter."""
    merged_start, merged_end = merge(start, end)
    return int((merged_end - merged_start).sum())


def gaps(start: Ints, end: Ints, window: tuple[int, int]) -> tuple[Ints, Ints]:
    """Parts of a window that no interval covers.

    Args:
        start: [n], ns.
        end: [n], ns.
        window: its start and end, ns.

    Returns:
        Starts and ends of the gaps, in order; empty gaps are left out.
    """
    low, high = window
    inside = (end > low) & (start < high)
    merged_start, merged_end = merge(np.clip(start[inside], low, high), np.clip(end[inside], low, high))
    opening = np.concatenate(([low], merged_end)).astype(np.int64)
    closing = np.concatenate((merged_start, [high])).astype(np.int64)
    real = closing > opening
    return opening[real], closing[real]


def sum_by_group(group: NDArray[np.integer], value: NDArray[np.integer], groups: int) -> Ints:
    """Sum integers by group, exactly.

    Args:
        group: [n], 0 ≤ group < groups.
        value: [n], non-negative; their total must stay below 2**53, where float64 still counts every integer
            (104 days in nanoseconds), else the slower integer sum is taken.
        groups: number of groups.

    Returns:
        int64 [groups].
    """
    if value.size == 0:
        return np.zeros(groups, dtype=np.int64)
    if int(value.max()) * value.size < 2**53 or float(np.sum(value, dtype=np.float64)) < 2**52:
        return np.bincount(group, weights=value, minlength=groups).astype(np.int64)
    total = np.zeros(groups, dtype=np.int64)
    np.add.at(total, group, value.astype(np.int64))
    return total


def overlapping(start: Ints, end: Ints) -> NDArray[np.bool_]:
    """Which intervals share time with another one.

    Args:
        start: [n], ns, sorted.
        end: [n], ns.

    Returns:
        bool [n]; touching is not sharing.
    """
    shares = np.zeros(start.size, dtype=bool)
    if start.size > 1:
        reach = np.maximum.accumulate(end)
        later = start[1:] < reach[:-1]
        shares[1:] = later
        # The cluster's first member shares too: it is the one right before a run of sharers.
        shares[:-1] |= later
    return shares


def union_by_group(
    group: NDArray[np.integer], start: Ints, end: Ints, groups: int, *, total: Ints | None = None
) -> Ints:
    """Length of the union of intervals within each group.

    Args:
        group: [n], 0 ≤ group < groups.
        start: [n], ns, sorted.
        end: [n], ns.
        groups: number of groups.
        total: sum of the lengths within each group, [groups], where it is known already.

    Returns:
        int64 [groups], ns.
    """
    if total is None:
        total = sum_by_group(group, end - start, groups)
    shared = np.flatnonzero(overlapping(start, end))
    if not shared.size:
        return total.copy()
    group, start, end = group[shared], start[shared], end[shared]
    total = total - sum_by_group(group, end - start, groups)
    present = np.flatnonzero(np.bincount(group, minlength=groups))
    position = np.zeros(groups, dtype=np.int16 if present.size < 2**15 else np.int32)
    position[present] = np.arange(present.size)
    dense = position[group]
    order = np.argsort(dense, kind="stable")  # a radix sort for int16
    dense, start, end = dense[order], start[order], end[order]
    # Lay the groups one after the other on one time line, so that one running maximum serves them all. Neighbours
    # cannot merge: each has a nanosecond more room than its intervals can reach.
    low, span = int(start.min()), int(end.max() - start.min()) + 1
    if span * present.size >= 2**62:
        cuts = np.flatnonzero(np.diff(dense)) + 1
        for row, starts, ends in zip(present, np.split(start, cuts), np.split(end, cuts), strict=True):
            total[row] += union_ns(starts, ends)
        return total
    shift = dense.astype(np.int64) * span - low
    merged_start, merged_end = merge(start + shift, end + shift)
    return total + sum_by_group(present[merged_start // span], merged_end - merged_start, groups)
