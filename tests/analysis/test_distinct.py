"""Distinct integers of a column: what `numpy.unique` says, without its sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.trace import distinct as module
from analysis.trace.distinct import distinct, distinct_values, present

NEAR = st.integers(-128, 127)
FAR = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(NEAR) | st.lists(NEAR | FAR), st.sampled_from([np.int8, np.int64]))
def test_present_is_unique(values: list[int], kind: type[np.signedinteger]) -> None:
    limits = np.iinfo(kind)
    column = np.array([value for value in values if limits.min <= value <= limits.max], dtype=kind)
    assert present(column) == np.unique(column).tolist()


@given(st.lists(NEAR, min_size=1) | st.lists(NEAR | FAR, min_size=1), st.sampled_from([np.int8, np.int64]))
def test_distinct_values_and_their_places(values: list[int], kind: type[np.signedinteger]) -> None:
    """Also of a narrow column whose span is wider than its type's largest value."""
    limits = np.iinfo(kind)
    column = np.array([value for value in values if limits.min <= value <= limits.max] or [0], dtype=kind)
    found, place = distinct_values(column)
    assert found.tolist() == np.unique(column).tolist()
    assert found[place].tolist() == column.tolist()


@pytest.mark.parametrize("cells", [0, 1000])
def test_codes_by_a_table_or_by_a_sort(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    monkeypatch.setattr(module, "_TABLE_CELLS", cells)
    found, place = distinct(np.array([7, 3, 7, 0]), 8)
    assert (found.tolist(), place.tolist()) == ([0, 3, 7], [2, 1, 2, 0])
    assert present(np.array([7, 3, 7, -2])) == [-2, 3, 7]
