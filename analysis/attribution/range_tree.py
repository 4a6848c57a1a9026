"""The range tree: which NVTX range lies in which, and which was open around a call.

Push/pop ranges of one domain on one thread nest: they are a *stack*. Start/end ranges may cross: they are divided among
several stacks, within each of which ranges nest, so that both kinds are looked up in one way.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from analysis.trace.records import Codes, RangeRows, Times

__all__ = ["RangeStack", "RangeTree"]

Indices = NDArray[np.int32]


@frozen(eq=False)
class RangeStack:
    """Ranges of one thread, domain and style that nest. Local index i is the i-th by (start, longest first)."""

    thread: int
    domain: int
    paired: bool
    rows: Indices
    """Local index → row of `RangeRows`, [n]."""
    start: Times
    end: Times
    parent: Indices
    """Local index of the innermost range that contains this one, -1 for roots."""

    def innermost(self, start: Times, end: Times) -> Indices:
        """Find, for each call, the innermost range with range.start ≤ call.start and call.end ≤ range.end.

        Args:
            start: [m], ns; fastest if sorted.
            end: [m], ns.

        Returns:
            Rows of `RangeRows`, [m]; -1 where no range of this stack contains the call.
        """
        # The last range that starts at or before the call is the deepest candidate; whatever contains the call is it
        # or one of its ancestors, because ranges of a stack nest.
        candidate = _last_before(self.start, start)
        pending = np.flatnonzero(candidate >= 0)
        pending = pending[self.end[candidate[pending]] < end[pending]]
        while pending.size:
            up = self.parent[candidate[pending]]
            candidate[pending] = up
            pending = pending[up >= 0]
            pending = pending[self.end[candidate[pending]] < end[pending]]
        return np.where(candidate >= 0, self.rows[candidate], np.int32(-1)).astype(np.int32)


def _last_before(start: Times, moments: Times) -> Indices:
    """Index of the last start at or before each moment, -1 where there is none, [moments]. Starts are in order."""
    if moments.size and bool(np.all(moments[1:] >= moments[:-1])):
        # Ranges are fewer than calls: look up where each begins among the calls, and number what lies between.
        first = np.searchsorted(moments, start)
        runs = np.diff(first, prepend=0, append=moments.size)
        return np.repeat(np.arange(-1, start.size, dtype=np.int32), runs)
    return np.searchsorted(start, moments, side="right").astype(np.int32) - np.int32(1)


@frozen(eq=False)
class RangeTree:
    """All ranges of a trace, divided into stacks."""

    ranges: RangeRows
    stacks: tuple[RangeStack, ...]

    @classmethod
    def build(cls, ranges: RangeRows) -> RangeTree:
        """Divide the ranges into stacks."""
        stacks: list[RangeStack] = []
        if len(ranges):
            key = (ranges.thread.astype(np.int64) << 33) | (ranges.domain.astype(np.int64) << 1) | ranges.paired
            order = np.lexsort((-ranges.end, ranges.start, key))
            cuts = np.flatnonzero(np.diff(key[order])) + 1
            for rows in np.split(order.astype(np.int32), cuts):
                stacks.extend(_divided(ranges, rows))
        return cls(ranges, tuple(stacks))

    @cached_property
    def parent(self) -> Indices:
        """Row → row of the innermost range of the same stack that contains it, -1 for roots, [n]."""
        parent = np.full(len(self.ranges), -1, dtype=np.int32)
        for stack in self.stacks:
            inner = stack.parent >= 0
            parent[stack.rows[inner]] = stack.rows[stack.parent[inner]]
        return parent

    @cached_property
    def depth(self) -> Indices:
        """Row → number of ranges of its stack around it, [n]."""
        return _depths(self.parent)

    @cached_property
    def by_depth(self) -> tuple[Indices, ...]:
        """Rows by depth, roots first."""
        order = np.argsort(self.depth, kind="stable").astype(np.int32)
        if not order.size:
            return (order,)
        return tuple(np.split(order, np.cumsum(np.bincount(self.depth))[:-1]))

    def nearest(self, wanted: NDArray[np.bool_]) -> Indices:
        """For each range, itself or the innermost ancestor in its stack that is wanted, -1 where none is, [n].

        Args:
            wanted: [n], by row.
        """
        nearest = np.where(wanted, np.arange(len(self.ranges), dtype=np.int32), np.int32(-1)).astype(np.int32)
        for rows in self.by_depth[1:]:
            missing = rows[nearest[rows] < 0]
            nearest[missing] = nearest[self.parent[missing]]
        return nearest

    def first_of_its_name(self) -> NDArray[np.bool_]:
        """Whether no ancestor in the stack bears the same name: inclusive sums count those only, [n]."""
        rows, place, last = self._by_name
        first = np.ones(len(self.ranges), dtype=bool)
        # Of one name, in order: one that begins before the last of an earlier one's parts lies in it.
        reach = np.maximum.accumulate(last)
        first[rows[1:][place[1:] <= reach[:-1]]] = False
        return first

    def contains_its_name(self) -> NDArray[np.bool_]:
        """Whether a range inside this one, in its stack, bears the same name, [n]."""
        rows, place, last = self._by_name
        contains = np.zeros(len(self.ranges), dtype=bool)
        contains[rows[:-1][place[1:] <= last[:-1]]] = True
        return contains

    @cached_property
    def _by_name(self) -> tuple[Indices, NDArray[np.int64], NDArray[np.int64]]:
        """Rows by name, then place; the place of each, and that of the last range inside it. All [n].

        Places are those in the stacks, one after the other, where what lies in a range follows it directly; the places of
        one name lie behind all those of the name before, so that they can be compared across names.
        """
        size = len(self.ranges)
        rows = np.concatenate([stack.rows for stack in self.stacks]) if self.stacks else np.zeros(0, dtype=np.int32)
        inside = np.ones(size, dtype=np.int64)
        for deeper in reversed(self.by_depth[1:]):
            np.add.at(inside, self.parent[deeper], inside[deeper])
        name: Codes = self.ranges.name[rows]
        place = np.arange(rows.size) + name.astype(np.int64) * rows.size
        last = place + inside[rows] - 1
        order = np.argsort(name, kind="stable")
        return rows[order], place[order], last[order]


def _divided(ranges: RangeRows, rows: Indices) -> list[RangeStack]:
    start, end = ranges.start[rows], ranges.end[rows]
    parent = _parents(end)
    groups = [np.arange(rows.size)] if _nests(start, end, parent) else _without_crossing(start, end)
    stacks = []
    for group in groups:
        own = rows[group]
        stacks.append(
            RangeStack(
                thread=int(ranges.thread[own[0]]),
                domain=int(ranges.domain[own[0]]),
                paired=bool(ranges.paired[own[0]]),
                rows=own,
                start=start[group],
                end=end[group],
                parent=parent if len(groups) == 1 else _parents(end[group]),
            )
        )
    return stacks


def _parents(end: Times) -> Indices:
    """Nearest earlier range that ends no sooner, for ranges sorted by (start, longest first), [n].

    Every range starts with the one before it as candidate. Between a range and its candidate all ranges end sooner
    than itself, and the same holds for the candidate: so jumping to the candidate's candidate skips nothing, and the
    distance about doubles with each round.
    """
    above = np.arange(-1, end.size - 1, dtype=np.int32)
    pending = np.flatnonzero(above >= 0)
    pending = pending[end[above[pending]] < end[pending]]
    while pending.size:
        above[pending] = above[above[pending]]
        pending = pending[above[pending] >= 0]
        pending = pending[end[above[pending]] < end[pending]]
    return above


def _depths(parent: Indices) -> Indices:
    """Number of ancestors of each, [n]. The way up that is counted doubles with each round."""
    depth = (parent >= 0).astype(np.int32)
    above = parent.copy()
    inside = np.flatnonzero(above >= 0)
    while inside.size:
        over = above[inside]
        depth[inside] += depth[over]
        above[inside] = above[over]
        inside = inside[above[inside] >= 0]
    return depth


def _nests(start: Times, end: Times, parent: Indices) -> bool:
    """Whether no two ranges cross: then the ranges open at a start are exactly the ancestors."""
    depth = _depths(parent)
    # Ranges that end where this one starts only touch it. Among them, zero-length ones of the same start that come
    # later in the order have ended, but have not yet been opened.
    empty = np.cumsum(end == start)
    not_opened = empty[np.searchsorted(start, start, side="right") - 1] - empty
    closed = np.searchsorted(np.sort(end), start, side="right") - not_opened
    return bool(np.all(np.arange(start.size) - closed <= depth))


def _without_crossing(start: Times, end: Times) -> list[NDArray[np.intp]]:
    """Divide crossing ranges: each goes to the first stack where it nests. Rare, and few ranges: a plain loop."""
    open_ends: list[list[int]] = []
    place = np.empty(start.size, dtype=np.int64)
    for index, (opens, closes) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        number = 0
        while number < len(open_ends):
            ends = open_ends[number]
            while ends and ends[-1] <= opens and ends[-1] < closes:
                ends.pop()
            if not ends or closes <= ends[-1]:
                break
            number += 1
        else:
            open_ends.append([])
        open_ends[number].append(closes)
        place[index] = number
    return [np.flatnonzero(place == number) for number in range(len(open_ends))]
