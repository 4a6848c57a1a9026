"""Columns that grow batch by batch and stay as narrow as their values allow."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.trace.buffers import IntColumn, KeyColumn

NEAR = st.integers(-500, 500)
FAR = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.lists(NEAR | FAR, max_size=30), max_size=4))
def test_integers_come_back_by_their_codes(batches: list[list[int]]) -> None:
    """Whether they lie close together (a table tells them apart) or far apart (they are sorted)."""
    column = KeyColumn(8)
    for batch in batches:
        column.extend(np.array(batch, dtype=np.int64))
    values = column.values
    assert [values[code] for code in column.array()] == [one for batch in batches for one in batch]
    assert len(set(values)) == len(values)


def test_texts_and_integers_share_one_table_of_codes() -> None:
    codes: dict[object, int] = {}
    texts, ids = KeyColumn(2, codes), KeyColumn(2, codes)
    texts.extend(pa.array([b"prefill", None, b"prefill"], type=pa.binary()))
    ids.extend(np.array([7, 9, 7]))
    assert list(texts.array()) == [0, 1, 0]
    assert list(ids.array()) == [2, 3, 2]
    assert list(codes) == [b"prefill", None, 7, 9]


@pytest.mark.parametrize("value", [127, 128, -129, 2**31, -(2**31) - 1, 2**63 - 1])
def test_an_integer_column_widens_to_what_it_holds(value: int) -> None:
    column = IntColumn(1, np.int8)
    column.extend(np.array([1]))
    column.extend(np.array([value, -1]))
    assert list(column.array()) == [1, value, -1]
