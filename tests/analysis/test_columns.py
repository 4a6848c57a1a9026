"""Records that keep their columns: the same values as the records hold, whatever was asked for before."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from attrs import frozen

from analysis.domain.columns import Records


@frozen
class _Row:
    stage: str
    number: int
    share: float | None = None


ROWS = (_Row("a", 3), _Row("a", 9, 0.5), _Row("b", 9), _Row("b", 1, 0.25))
COLUMNS: dict[str, Any] = {"stage": ["a", "a", "b", "b"], "number": np.array([3, 9, 9, 1])}


@pytest.fixture(params=[{}, COLUMNS], ids=["read", "given"])
def records(request: pytest.FixtureRequest) -> Records[_Row]:
    return Records.of(ROWS, request.param)


def test_columns_hold_what_the_records_hold(records: Records[_Row]) -> None:
    assert records == ROWS
    assert Records.of(records) is records
    assert list(records.column("number")) == [3, 9, 9, 1]
    assert records.values("share") == [None, 0.5, None, 0.25]
    assert [type(value) for value in records.values("number")] == [int] * 4
    assert Records.of(()).values("anything") == []
    with pytest.raises(AttributeError, match="nothing"):
        records.values("nothing")


def test_a_column_is_read_once(records: Records[_Row]) -> None:
    assert records.column("share") is records.column("share")


@pytest.mark.parametrize(
    ("name", "value"), [("stage", "a"), ("stage", "b"), ("stage", "c"), ("number", 9), ("share", None)]
)
def test_the_records_with_a_value_in_a_field(records: Records[_Row], name: str, value: Any) -> None:
    wanted = tuple(row for row in ROWS if getattr(row, name) == value)
    chosen = records.where(name, value)
    assert chosen == wanted
    assert chosen.values("number") == [row.number for row in wanted]
    assert chosen.values("share") == [row.share for row in wanted]


def test_a_part_has_its_part_of_the_columns(records: Records[_Row]) -> None:
    assert records.part(1, 3) == ROWS[1:3]
    assert records.part(1, 3).values("number") == [9, 9]
    assert records.part(2).values("stage") == ["b", "b"]


def test_the_greatest_first_and_equal_ones_in_their_order(records: Records[_Row]) -> None:
    ordered = records.descending("number")
    assert tuple(ordered) == (ROWS[1], ROWS[2], ROWS[0], ROWS[3])
    assert ordered.values("number") == [9, 9, 3, 1]
    assert ordered.descending("number") is ordered


def test_records_are_pickled_as_a_tuple(records: Records[_Row]) -> None:
    assert type(copy := pickle.loads(pickle.dumps(records))) is tuple
    assert copy == ROWS
