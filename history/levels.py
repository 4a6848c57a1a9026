"""Where a series of times changes its level: penalised least absolute deviations, solved exactly.

The series is cut into pieces so that the sum over pieces of the absolute deviations from the piece's median, in units of the
noise, plus a penalty for each cut is least (optimal partitioning with the pruning of PELT: Killick, Fearnhead, Eckley 2012).
Deviations count by their size and not by its square, and a piece has at least three runs, so that an outlier or two make no
change of level. The noise is what consecutive runs differ by in the middle (median absolute difference), which a few changes
of level hardly touch. Logarithms of times are looked at: a change is a factor.

The library for this, ``ruptures``, needs SciPy, which is twenty times as large as this whole package, for one recursion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import heappush, heappushpop
from typing import Final

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from analysis.domain.trend import LevelChange

__all__ = ["SHORTEST", "change_points"]

SHORTEST: Final = 3
"""Runs on either side that make a level."""
_PENALTY: Final = 9.0
"""Of a cut, in units of the noise. By simulation: of series of 10 to 200 runs without a change at most 1 in 100 is cut where
noise is normal or has heavy tails (Student's t, 3), and 4 to 7 where neighbours are correlated by 0.3; a change of five times
the noise is found in 94 of 100 from three runs on. tests/history/test_levels.py does it again, smaller."""
_LEAST_NOISE: Final = 0.001
"""Runs that repeat to less than this are not that exact: a clock's step, a page's time rounded."""
_NORMAL: Final = 1.4826 / math.sqrt(2)
"""From the median absolute difference of neighbours to the standard deviation of normal noise."""
_Z: Final = 1.959964
"""Of the normal distribution, 95 % between both sides of it."""


def change_points(times: Sequence[float]) -> tuple[LevelChange, ...]:
    """Find the changes of level in a series.

    Args:
        times: one per run, in the order of time, all more than 0.

    Returns:
        Changes in order: ``at`` is the place of the first run of the new level; levels are medians of the runs' times, the
        interval is of the relative difference, by ranks, and excludes 0; it holds 95 %, of three runs against three 90 %.
    """
    if len(times) < 2 * SHORTEST:
        return ()
    values = np.log(np.asarray(times, dtype=np.float64))
    noise = max(_LEAST_NOISE, _NORMAL * float(np.median(np.abs(np.diff(values)))))
    cuts = list(_cuts((values / noise).tolist(), _PENALTY))
    while True:
        changes = [_change(values, cuts, place) for place in range(len(cuts))]
        unsure = [place for place, change in enumerate(changes) if change.low <= 0 <= change.high]
        if not unsure:
            return tuple(changes)
        # The least sure goes first: without it those beside it have more runs to stand on.
        del cuts[min(unsure, key=lambda place: abs(changes[place].relative))]


@frozen
class _Candidate:
    """A place where the last piece may begin, with that piece's values in two heaps around its median."""

    start: int
    best: float
    """Least cost of all that lies before it, cuts included."""
    below: list[float] = field(factory=list)
    """Negated: its least is the largest of the lower half."""
    above: list[float] = field(factory=list)
    sums: list[float] = field(factory=lambda: [0.0, 0.0])

    def add(self, value: float) -> None:
        below, above, sums = self.below, self.above, self.sums
        if len(below) > len(above):  # the upper half is due one more
            moved = -heappushpop(below, -value)
            heappush(above, moved)
            sums[0] += value - moved
            sums[1] += moved
        else:
            moved = heappushpop(above, value)
            heappush(below, -moved)
            sums[1] += value - moved
            sums[0] += moved

    @property
    def cost(self) -> float:
        """Sum of absolute deviations from the median."""
        middle = -self.below[0]
        return middle * len(self.below) - self.sums[0] + self.sums[1] - middle * len(self.above)


def _cuts(values: Sequence[float], penalty: float) -> tuple[int, ...]:
    """Places before which to cut, in order."""
    count = len(values)
    best = [-penalty, *([math.inf] * count)]
    before = [0] * (count + 1)
    candidates: list[_Candidate] = []
    leaves: dict[int, set[int]] = {}
    for end in range(1, count + 1):
        # A piece may begin where what lies before it can be cut at all.
        if best[end - 1] < math.inf:
            candidates.append(_Candidate(end - 1, best[end - 1]))
        for candidate in candidates:
            candidate.add(values[end - 1])
        long_enough = [candidate for candidate in candidates if end - candidate.start >= SHORTEST]
        for candidate in long_enough:
            whole = candidate.best + candidate.cost + penalty
            if whole < best[end]:
                best[end], before[end] = whole, candidate.start
        if best[end] < math.inf:
            # What is no better without a cut here will never be, as soon as a piece that begins here is long enough.
            useless = {item.start for item in long_enough if item.best + item.cost >= best[end]}
            leaves[end + SHORTEST] = useless
        gone = leaves.pop(end + 1, set())
        candidates = [candidate for candidate in candidates if candidate.start not in gone]
    cuts = []
    end = count
    while before[end]:
        end = before[end]
        cuts.append(end)
    return tuple(reversed(cuts))


def _change(values: NDArray[np.float64], cuts: Sequence[int], place: int) -> LevelChange:
    first = cuts[place - 1] if place else 0
    last = cuts[place + 1] if place + 1 < len(cuts) else len(values)
    before, after = values[first : cuts[place]], values[cuts[place] : last]
    low, high = _interval(before, after)
    levels = float(np.exp(np.median(before))), float(np.exp(np.median(after)))
    return LevelChange(
        at=cuts[place],
        before_ns=levels[0],
        after_ns=levels[1],
        relative=levels[1] / levels[0] - 1,
        low=low,
        high=high,
        runs_before=len(before),
        runs_after=len(after),
    )


def _interval(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[float, float]:
    """Interval of a shift between two sides by their ranks, as a relative difference (Moses; Hollander, Wolfe 1999, 4.3).

    Of all differences between a run after and a run before, in order, so many are left out at either end as the Mann–Whitney
    statistic may be with 2.5 %. Nothing is assumed of the noise but that it is alike on both sides.
    """
    differences = np.sort((after[:, None] - before[None, :]).ravel())
    pairs, runs = differences.size, len(before) + len(after)
    left_out = max(0, math.floor(pairs / 2 - _Z * math.sqrt(pairs * (runs + 1) / 12)))
    return float(np.expm1(differences[left_out])), float(np.expm1(differences[pairs - 1 - left_out]))
