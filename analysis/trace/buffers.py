"""Growing numpy columns, as narrow as their values allow, filled from Arrow batches without a Python object per row."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.trace.distinct import distinct_values

__all__ = ["IntColumn", "KeyColumn", "integers"]


def integers(values: pa.Array, blank: int) -> NDArray[np.int64]:
    """An Arrow column as int64 without copying where it can; NULL reads as ``blank``.

    Args:
        values: int64, double or null typed, [n].
        blank: stands for NULL.
    """
    count = len(values)
    if pa.types.is_null(values.type) or values.null_count == count:
        return np.full(count, blank, dtype=np.int64)
    if not pa.types.is_int64(values.type):
        values = values.cast(pa.int64(), safe=False)
    validity, data = values.buffers()
    plain = np.frombuffer(data, dtype=np.int64, count=count + values.offset)[values.offset :]
    if values.null_count == 0:
        return plain
    bits = np.unpackbits(np.frombuffer(validity, dtype=np.uint8), bitorder="little")
    there = bits[values.offset : values.offset + count].astype(bool)
    return np.where(there, plain, blank)


class IntColumn:
    """Integers, stored in the narrowest dtype that has held them so far."""

    _WIDER = (np.int8, np.int16, np.int32, np.int64)

    def __init__(self, rows: int, dtype: type[np.signedinteger[Any]] = np.int32) -> None:
        self._data: NDArray[np.signedinteger[Any]] = np.empty(rows, dtype=dtype)
        self._size = 0

    def extend(self, values: NDArray[np.int64]) -> None:
        """Append values, widening first if one does not fit."""
        if values.size == 0:
            return
        end = self._size + values.size
        if end > self._data.size:
            self._data = np.concatenate(
                (self._data[: self._size], np.empty(max(values.size, self._size), dtype=self._data.dtype))
            )
        if self._data.dtype != np.int64:
            limits = np.iinfo(self._data.dtype)
            low, high = int(values.min()), int(values.max())
            if low < limits.min or high > limits.max:
                fits = next(
                    dtype for dtype in self._WIDER if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max
                )
                self._data = self._data.astype(max(np.dtype(fits), self._data.dtype, key=lambda dtype: dtype.itemsize))
        self._data[self._size : end] = values
        self._size = end

    def fill(self, value: int, count: int) -> None:
        """Append one value many times."""
        limits = np.iinfo(self._data.dtype)
        end = self._size + count
        if end > self._data.size or not limits.min <= value <= limits.max:
            self.extend(np.full(count, value, dtype=np.int64))
            return
        self._data[self._size : end] = value
        self._size = end

    def array(self) -> NDArray[np.signedinteger[Any]]:
        """What was appended, without the spare room."""
        return self._data[: self._size]


class KeyColumn:
    """Values with few distinct ones (threads, processes, names), stored as small codes."""

    def __init__(self, rows: int, codes: dict[Hashable, int] | None = None) -> None:
        self.codes: dict[Hashable, int] = {} if codes is None else codes
        """Value → code, shared between columns where given."""
        self._column = IntColumn(rows, np.int16)

    def extend(self, values: pa.Array | NDArray[np.int64]) -> None:
        """Append values: integers as an array, anything else as an Arrow column."""
        if not isinstance(values, np.ndarray):
            codes = (self.codes.setdefault(value, len(self.codes)) for value in values.to_pylist())
            self._column.extend(np.fromiter(codes, dtype=np.int64, count=len(values)))
        elif values.size and values.min() == values.max():
            # One process, one device: most columns are constant for as long as a batch.
            self._column.fill(self.codes.setdefault(int(values[0]), len(self.codes)), values.size)
        elif values.size:
            self._column.extend(self.encode(values))

    def encode(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The codes of integers that are not appended, [n]; new values get new codes."""
        if not values.size:
            return values
        distinct, places = distinct_values(values)
        lookup = np.array(
            [self.codes.setdefault(value, len(self.codes)) for value in distinct.tolist()], dtype=np.int64
        )
        codes: NDArray[np.int64] = lookup[places]
        return codes

    def recode(
        self, keys: list[Any], shared: dict[Any, int], *, blank: int | None = None
    ) -> NDArray[np.signedinteger[Any]]:
        """The codes in a table that several columns share.

        Args:
            keys: what to look each of `values` up by, in their order.
            shared: key → code; new ones are added.
            blank: the key that stands for NULL and becomes -1; None: there is none.
        """
        lookup = np.array(
            [-1 if blank is not None and key == blank else shared.setdefault(key, len(shared)) for key in keys],
            dtype=np.int32 if len(shared) + len(keys) >= 2**15 else np.int16,
        )
        codes = self._column.array()
        if lookup.size == 0 or bool(np.all(lookup == np.arange(lookup.size))):
            return codes
        recoded: NDArray[np.signedinteger[Any]] = lookup[codes]
        return recoded

    def append_codes(self, codes: NDArray[np.int64]) -> None:
        """Append values by their codes."""
        self._column.extend(codes)

    def array(self) -> NDArray[np.signedinteger[Any]]:
        """The codes, [n]."""
        return self._column.array()

    @property
    def values(self) -> list[Any]:
        """The distinct values, by code."""
        return list(self.codes)
