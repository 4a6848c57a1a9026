"""Changes of level in made series: found where they are, and nowhere else. All seeds are given; nothing here is random."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from history.levels import SHORTEST, _cuts, change_points

TIME_NS = 20e6


def series(seed: int, runs: int, noise: float = 0.01, *, heavy: bool = False) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    drawn = random.standard_t(3, size=runs) if heavy else random.normal(size=runs)
    return TIME_NS * np.exp(noise * drawn)


@pytest.mark.parametrize(("runs", "at"), [(12, 6), (40, 20), (40, 37), (100, 50)])
def test_a_shift_of_five_per_cent_is_found_in_noise_of_one(runs: int, at: int) -> None:
    hits = 0
    for seed in range(100):
        times = series(seed, runs)
        times[at:] *= 1.05
        found = change_points(times.tolist())
        hits += len(found) == 1 and abs(found[0].at - at) <= 1
    assert hits >= 90


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy tails"])
@pytest.mark.parametrize("runs", [10, 40, 100])
def test_without_a_shift_none_is_found_in_95_of_100(runs: int, heavy: bool) -> None:
    alarms = sum(bool(change_points(series(seed, runs, heavy=heavy).tolist())) for seed in range(100))
    assert alarms <= 5


def test_levels_and_interval_are_those_of_both_sides() -> None:
    times = series(6, 30)
    times[12:] *= 1.05
    (change,) = change_points(times.tolist())
    assert change.at == 12
    assert (change.runs_before, change.runs_after) == (12, 18)
    assert change.before_ns == pytest.approx(np.median(times[:12]), rel=1e-3)
    assert change.after_ns == pytest.approx(np.median(times[12:]), rel=1e-3)
    assert change.relative == pytest.approx(change.after_ns / change.before_ns - 1)
    assert change.low < 0.05 < change.high
    assert 0 < change.low < change.relative < change.high < 0.1


def test_the_interval_holds_the_shift_in_most_series() -> None:
    held = told = 0
    for seed in range(60):
        times = series(seed, 40)
        times[20:] *= 1.05
        for change in change_points(times.tolist()):
            told += 1
            held += change.low <= 0.05 <= change.high
    assert told >= 57
    assert held / told >= 0.9


def test_two_shifts_are_two_changes() -> None:
    times = series(2, 45)
    times[15:30] *= 0.1
    times[30:] *= 0.11
    assert [change.at for change in change_points(times.tolist())] == [15, 30]


@pytest.mark.parametrize("places", [(5,), (5, 6), (3, 19, 33)])
def test_outliers_are_no_change(places: tuple[int, ...]) -> None:
    times = series(3, 40)
    times[list(places)] *= 1.6
    assert change_points(times.tolist()) == ()


def test_outliers_do_not_hide_a_change() -> None:
    times = series(4, 40)
    times[20:] *= 1.05
    times[[4, 11, 27, 35]] *= 1.5
    assert [change.at for change in change_points(times.tolist())] == [20]


def test_what_repeats_exactly_has_no_noise_and_no_change() -> None:
    assert change_points([TIME_NS] * 20) == ()
    assert change_points([TIME_NS, TIME_NS * 1.0005] * 10) == ()
    (change,) = change_points([TIME_NS] * 5 + [TIME_NS * 1.02] * 5)
    assert change.at == 5
    assert [change.low, change.high] == pytest.approx([0.02, 0.02])


@pytest.mark.parametrize("count", range(2 * SHORTEST))
def test_too_few_runs_have_no_levels(count: int) -> None:
    assert change_points([TIME_NS * (1 + place) for place in range(count)]) == ()


def test_the_cuts_are_the_best_there_are() -> None:
    """Against every way to cut: the pruning loses none."""
    random = np.random.default_rng(5)

    def cost(values: NDArray[np.float64], cuts: tuple[int, ...], penalty: float) -> float:
        edges = (0, *cuts, len(values))
        pieces = [values[low:high] for low, high in pairwise(edges)]
        return penalty * len(cuts) + sum(float(np.abs(piece - np.median(piece)).sum()) for piece in pieces)

    for _ in range(120):
        count = int(random.integers(6, 14))
        shift = float(random.choice([0.0, 3.0, 6.0]))
        values = random.normal(size=count) + shift * (np.arange(count) > count // 2)
        penalty = float(random.choice([1.0, 2.0, 4.0]))
        ways = [
            cuts
            for many in range(count // SHORTEST)
            for cuts in combinations(range(SHORTEST, count - SHORTEST + 1), many)
            if all(high - low >= SHORTEST for low, high in zip((0, *cuts), (*cuts, count), strict=True))
        ]
        best = min(cost(values, cuts, penalty) for cuts in ways)
        assert cost(values, _cuts(values.tolist(), penalty), penalty) == pytest.approx(best)
