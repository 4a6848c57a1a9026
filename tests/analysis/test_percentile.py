"""The percentile of a report is numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.sums.percentile import percentile

NUMBERS = st.lists(st.integers(-(2**60), 2**60), min_size=1, max_size=40)
PERCENT = st.sampled_from([0, 50, 95, 100]) | st.floats(0, 100)


@given(NUMBERS, PERCENT, st.sampled_from([np.int64, np.float64]))
def test_it_is_that_of_numpy_to_the_last_bit(numbers: list[int], percent: float, kind: type) -> None:
    values: NDArray[Any] = np.array(numbers, dtype=kind)
    assert percentile(values, percent) == float(np.percentile(values, percent))
    assert values.tolist() == np.array(numbers, dtype=kind).tolist()  # left in its order


@pytest.mark.parametrize(("numbers", "percent", "wanted"), [([7], 95, 7.0), ([4, 1], 50, 2.5), ([3, 1, 2], 50, 2.0)])
def test_small_ones_by_hand(numbers: list[int], percent: float, wanted: float) -> None:
    assert percentile(np.array(numbers), percent) == wanted
