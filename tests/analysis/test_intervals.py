"""Arithmetic on intervals, against sets of nanoseconds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analysis.attribution.intervals import gaps, merge, overlapping, sum_by_group, union_by_group, union_ns

Interval = tuple[int, int]
INTERVALS = st.lists(
    st.tuples(st.integers(0, 80), st.integers(0, 15)).map(lambda one: (one[0], one[0] + one[1])), max_size=25
)
GROUPED = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 80), st.integers(0, 15)).map(
        lambda one: (one[0], one[1], one[1] + one[2])
    ),
    max_size=25,
)


def arrays(intervals: list[Interval]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(intervals, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def covered(intervals: list[Interval]) -> set[int]:
    return {moment for start, end in intervals for moment in range(start, end)}


@given(INTERVALS)
def test_union_is_the_number_of_covered_nanoseconds(intervals: list[Interval]) -> None:
    assert union_ns(*arrays(intervals)) == len(covered(intervals))


@given(INTERVALS)
def test_merged_intervals_cover_the_same_and_neither_overlap_nor_touch(intervals: list[Interval]) -> None:
    start, end = merge(*arrays(intervals))
    assert covered(list(zip(start.tolist(), end.tolist(), strict=True))) == covered(intervals)
    assert (start[1:] > end[:-1]).all()
    assert (end >= start).all()


@given(INTERVALS, st.integers(0, 90), st.integers(0, 90))
def test_gaps_are_what_no_interval_covers(intervals: list[Interval], one: int, other: int) -> None:
    window = (min(one, other), max(one, other))
    start, end = gaps(*arrays(intervals), window)
    found = list(zip(start.tolist(), end.tolist(), strict=True))
    assert covered(found) == set(range(*window)) - covered(intervals)
    assert all(low < high for low, high in found)
    assert found == sorted(found)


@given(INTERVALS)
def test_overlapping_marks_members_of_clusters_that_share_time(intervals: list[Interval]) -> None:
    intervals = sorted(intervals)
    shares = overlapping(*arrays(intervals))
    # Whoever is unmarked shares time with nobody: that is what the sums rely on.
    for index, (start, end) in enumerate(intervals):
        others = [other for position, other in enumerate(intervals) if position != index]
        if not shares[index]:
            assert not set(range(start, end)) & covered(others)
    lonely = [one for one, shared in zip(intervals, shares, strict=True) if not shared]
    assert sum(end - start for start, end in lonely) == len(covered(lonely))


@given(GROUPED)
def test_union_by_group_is_each_groups_union(rows: list[tuple[int, int, int]]) -> None:
    rows = sorted(rows, key=lambda row: row[1])
    group = np.array([row[0] for row in rows], dtype=np.int32)
    start, end = arrays([row[1:] for row in rows])
    expected = [len(covered([row[1:] for row in rows if row[0] == number])) for number in range(5)]
    assert union_by_group(group, start, end, 5).tolist() == expected


def test_union_by_group_over_spans_that_one_time_line_cannot_hold() -> None:
    far = 2**61
    start, end = np.array([0, 5, 6, far], dtype=np.int64), np.array([10, 12, 8, far + 7], dtype=np.int64)
    # The far interval overlaps its neighbour, so that it takes part in the merge.
    start, end = np.append(start, far + 1), np.append(end, far + 3)
    group = np.array([0, 1, 0, 2, 3])
    assert union_by_group(group, start, end, 4).tolist() == [10, 7, 7, 2]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2**40)), max_size=40))
def test_sum_by_group_is_exact(rows: list[tuple[int, int]]) -> None:
    group, value = np.array([row[0] for row in rows], dtype=int), np.array([row[1] for row in rows], dtype=np.int64)
    expected = [sum(row[1] for row in rows if row[0] == number) for number in range(7)]
    assert sum_by_group(group, value, 7).tolist() == expected


def test_sum_by_group_is_exact_where_floating_point_is_not() -> None:
    value = np.array([2**53, 1, 1, 2**60, 3], dtype=np.int64)
    assert sum_by_group(np.array([0, 0, 0, 1, 1]), value, 3).tolist() == [2**53 + 2, 2**60 + 3, 0]
