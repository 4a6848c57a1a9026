"""Records made column by column are those that their constructor makes one by one, checks included."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from attrs import define, evolve, field, fields, frozen

from analysis.domain.entities import KernelSummary
from analysis.domain.many_records import evolved, records_of
from analysis.sums.kernel_modules import KernelModuleRow

COLUMNS: dict[str, Any] = {
    "name": ["void gemm<1>", "softmax"],
    "short_name": ["gemm", "softmax"],
    "category": ["GEMM", "softmax"],
    "stage": ["decode", "prefill"],
    "calls": np.array([2, 3]),
    "total_ns": np.array([30, 2**62]),
    "mean_ns": np.array([15.0, 2**62 / 3]),
    "median_ns": [15.0, 0.1],
    "min_ns": [10, 1],
    "max_ns": [20, 2**62],
    "share": [None, 0.25],
    "grid": [(1, 2, 3), None],
}


def test_records_of_columns_are_those_of_the_constructor() -> None:
    plain = {name: column.tolist() if isinstance(column, np.ndarray) else column for name, column in COLUMNS.items()}
    wanted = tuple(KernelSummary(**{name: column[row] for name, column in plain.items()}) for row in range(2))
    made = records_of(KernelSummary, COLUMNS, 2)
    assert made == wanted
    assert list(map(hash, made)) == list(map(hash, wanted))
    for one in fields(KernelSummary):
        for row in range(2):  # a Python number, not numpy's, which JSON cannot hold
            assert type(getattr(made[row], one.name)) is type(getattr(wanted[row], one.name)), one.name
    with pytest.raises(AttributeError):
        made[0].calls = 7  # type: ignore[misc]
    assert records_of(KernelSummary, {name: [] for name in COLUMNS}, 0) == ()


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("calls", [2, 0], "'calls' must be > 0: 0"),
        ("total_ns", [-1, 5], "'total_ns' must be >= 0: -1"),
        ("mean_ns", [1.0, math.nan], "mean_ns must be a finite number, not nan"),
        ("p95_ns", [1.0, math.inf], "p95_ns must be a finite number, not inf"),
        ("share", [0.5, 1.5], "'share' must be <= 1: 1.5"),
        ("waves", [-0.5, math.nan], r"waves.* must be"),
    ],
)
def test_what_a_validator_refuses_is_refused(name: str, values: list[Any], words: str, as_array: bool) -> None:
    column = np.array(values) if as_array else values
    with pytest.raises(ValueError, match=words):
        records_of(KernelSummary, {**COLUMNS, name: column}, 2)


def test_copies_with_other_values_are_those_of_evolve() -> None:
    rows = records_of(KernelSummary, COLUMNS, 2)
    made = evolved(rows, per_token=[1.5, None], shapes=[4, 5])
    assert made == (evolve(rows[0], per_token=1.5, shapes=4), evolve(rows[1], per_token=None, shapes=5))
    assert rows == records_of(KernelSummary, COLUMNS, 2)
    assert evolved((), per_token=[]) == ()
    with pytest.raises(ValueError, match="per_token"):
        evolved(rows, per_token=[1.0, -1.0])


@define
class _Thawed:
    number: int = 0


@frozen(slots=False)
class _WithoutSlots:
    number: int = 0


@frozen
class _Converting:
    number: int = field(default=0, converter=int)


@frozen
class _Busy:
    number: int = 0

    def __attrs_post_init__(self) -> None:
        """Something that only a constructor does."""


@pytest.mark.parametrize("kind", [_WithoutSlots, _Converting, _Busy])
def test_a_class_that_needs_its_constructor_is_refused(kind: type) -> None:
    with pytest.raises(TypeError, match=kind.__name__):
        records_of(kind, {"number": [1]}, 1)


def test_columns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TypeError, match="no field 'numbr'"):
        records_of(_Thawed, {"numbr": [1]}, 1)
    with pytest.raises(TypeError, match=r"KernelSummary\.short_name is missing"):
        records_of(KernelSummary, {"name": ["a"]}, 1)
    with pytest.raises(ValueError, match=r"_Thawed\.number: 2 values for 3 records"):
        records_of(_Thawed, {"number": [1, 2]}, 3)


def test_rows_of_kernels_by_module_can_be_made_so() -> None:
    (row,) = records_of(
        KernelModuleRow,
        {
            "stage": ["decode"], "module": ["mlp"], "name": ["a<1>"], "short_name": ["a"], "category": ["copy"],
            "calls": [1], "total_ns": [5], "mean_ns": [5.0], "min_ns": [5], "max_ns": [5], "share": [1.0],
        },
        1,
    )  # fmt: skip
    assert row == KernelModuleRow("decode", "mlp", "a<1>", "a", "copy", 1, 5, 5.0, 5, 5, 1.0)
