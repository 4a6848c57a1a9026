"""Distinct integers of a column, without a sort where they lie close together: as codes, string ids and shapes do.

`numpy.unique` sorts, which takes several times as long, and where it gives values alone it loads `numpy.ma` (30 ms). Arrow's
``dictionary_encode`` hashes, but loads `pyarrow.compute`, which takes 20 ms: as much as it then saves in a trace of a million
kernels.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["distinct", "distinct_values", "present"]

_TABLE_CELLS: Final = 2**22
"""Codes below this are looked up in a table of so many cells; above, the rows are sorted."""


def distinct(codes: NDArray[Any], size: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Distinct codes, and which of them each row has.

    Args:
        codes: [n], 0 ≤ code < size.
        size: of the code space.

    Returns:
        Distinct codes in ascending order, [m], and the index of each row's code in them, [n].
    """
    if size > _TABLE_CELLS:
        occurring, index = np.unique(codes, return_inverse=True)
        return occurring.astype(np.int64), index
    there = np.zeros(size, dtype=bool)
    there[codes] = True
    occurring = np.flatnonzero(there)
    position = np.zeros(size, dtype=np.int32)
    position[occurring] = np.arange(occurring.size)
    return occurring, position[codes]


def distinct_values(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Distinct integers of any size, in ascending order, [m], and the index of each row's in them, [n]. n > 0."""
    low, high = int(values.min()), int(values.max())
    if low == high:
        return np.array([low]), np.zeros(values.size, dtype=np.int8)
    if high - low >= _TABLE_CELLS:
        return np.unique(values, return_inverse=True)
    occurring, index = distinct(values.astype(np.int64) - low if low else values, high - low + 1)
    return occurring + low, index


def present(values: NDArray[Any]) -> list[int]:
    """The distinct integers of a column, in ascending order; of an empty one none."""
    if not values.size:
        return []
    low, high = int(values.min()), int(values.max())
    if high - low >= _TABLE_CELLS:
        return [int(value) for value in np.unique(values, return_index=True)[0]]
    there = np.zeros(high - low + 1, dtype=bool)
    there[values.astype(np.int64) - low if low else values] = True
    return [int(value) + low for value in np.flatnonzero(there)]
