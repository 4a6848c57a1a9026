"""Rows as an Arrow table or a DataFrame, by their declaration: columns in its order, types as it says, whatever the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa

from analysis.domain.columns import Values
from analysis.render.spec.specification import Column, Specification
from analysis.sums.events import Partial, Texts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["arrow_schema", "arrow_table", "fill_parquet", "frame", "frame_of"]

R = TypeVar("R")

FrameValues: TypeAlias = Values | Texts | Partial
"""A column's values, [rows]."""

_ARROW: Final = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "shape": pa.list_(pa.int64()),
}


def fill_parquet(table: Any, path: Path) -> None:
    """Fill a file that is there. Opened here: Arrow takes no path that is not UTF-8."""
    import pyarrow.parquet as pq  # most tables are shown, and need none

    with path.open("wb") as file:
        pq.write_table(table, file, compression="zstd")


def arrow_schema(spec: Specification[Any]) -> Any:
    """Schema of a table: its keys, their types, whether a value may be null, and each definition as metadata."""
    return pa.schema(
        [
            pa.field(column.key, _ARROW[column.type], column.nullable, {"definition": column.definition})
            for column in spec.data
        ]
    )


def arrow_table(spec: Specification[R], rows: Sequence[R]) -> Any:
    r"""Rows as an Arrow table with `arrow_schema`. Halves of surrogate pairs in names become ``\udcff``.

    The arrays are made from buffers, because ``pyarrow.array`` of Python values loads pandas, which takes longer than all
    the rest.

    Raises:
        ValueError: a value is unknown in a column that is declared as always known (a bug).
    """
    arrays = [_array(column, _known(spec, column, column.array_of(rows))) for column in spec.data]
    return pa.Table.from_arrays(arrays, schema=arrow_schema(spec))


def _array(column: Column[Any], values: Values) -> Any:
    if column.nullable and isinstance(values, Sequence) and None in values:
        known = [value is not None for value in values]
        return _ARRAYS[column.type](values, pa.py_buffer(np.packbits(known, bitorder="little")))
    return _ARRAYS[column.type](values, None)


def _known(spec: Specification[Any], column: Column[Any], values: Values) -> Values:
    if not column.nullable and isinstance(values, Sequence) and None in values:
        raise ValueError(f"internal error: {spec.key}.{column.key} is unknown in row {values.index(None)}")
    return values


# A column's values, [rows], as an array. ``validity`` is a bitmap of those that are known; None: all are.


def _numbers(dtype: str) -> Callable[[Any, Any], Any]:
    def array(values: Values, validity: Any) -> Any:
        known = values if validity is None else [0 if value is None else value for value in values]
        numbers = pa.py_buffer(np.ascontiguousarray(known, dtype=dtype))
        return pa.Array.from_buffers(_ARROW[dtype], len(values), [validity, numbers])

    return array


def _booleans(values: Sequence[Any], validity: Any) -> Any:
    bits = np.packbits([bool(value) for value in values], bitorder="little") if values else np.empty(0, np.uint8)
    return pa.Array.from_buffers(pa.bool_(), len(values), [validity, pa.py_buffer(bits)])


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "backslashreplace")


def _strings(values: Sequence[Any], validity: Any) -> Any:
    texts = values if validity is None else ["" if value is None else value for value in values]
    joined = "".join(texts)
    parts: Sequence[Any] = texts
    if joined.isascii():  # as almost always: as many bytes as characters
        raw = joined.encode("ascii")
    else:
        parts = [_encoded(text) for text in texts]
        raw = b"".join(parts)
    return pa.Array.from_buffers(pa.string(), len(values), [validity, pa.py_buffer(_offsets(parts)), pa.py_buffer(raw)])


def _shapes(values: Sequence[Any], validity: Any) -> Any:
    parts = values if validity is None else [() if value is None else value for value in values]
    flat = np.fromiter(chain.from_iterable(parts), dtype=np.int64)
    numbers = pa.Array.from_buffers(pa.int64(), flat.size, [None, pa.py_buffer(flat)])
    buffers = [validity, pa.py_buffer(_offsets(parts))]
    return pa.Array.from_buffers(_ARROW["shape"], len(values), buffers, children=[numbers])


def _offsets(parts: Sequence[Any]) -> Any:
    offsets = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=offsets[1:])
    return offsets.astype(np.int32)


_ARRAYS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "string": _strings,
    "int64": _numbers("int64"),
    "float64": _numbers("float64"),
    "bool": _booleans,
    "shape": _shapes,
}


def frame(spec: Specification[R], rows: Sequence[R]) -> pd.DataFrame:
    """Rows as a DataFrame: one column per key of the declaration, in its order.

    The dtypes depend on the declaration alone: ``string``; ``int64`` and ``bool``, or ``Int64`` and ``boolean`` where a
    value may be unknown (``pd.NA``); ``float64`` with NaN for unknown; ``object`` of tuples (None for unknown) for shapes.
    ``frame.attrs["definitions"]`` maps each column to its definition.

    Raises:
        ValueError: a value is unknown in a column that is declared as always known (a bug).
    """
    return frame_of(spec, {column.key: _known(spec, column, column.of(rows)) for column in spec.data})


def frame_of(spec: Specification[Any], columns: Mapping[str, FrameValues]) -> pd.DataFrame:
    """Columns as a DataFrame like that of `frame`, for tables that were columns all along.

    Args:
        spec: of the table.
        columns: key → values or array, [rows]; all data columns of the declaration. `Texts` become a ``category``.
    """
    import pandas as pd  # half a second that most commands do not need

    made = pd.DataFrame({column.key: _series(column, columns[column.key]) for column in spec.data})
    made.attrs["definitions"] = {column.key: column.definition for column in spec.data}
    return made


def _series(column: Column[Any], values: FrameValues) -> Any:
    import pandas as pd

    if isinstance(values, Texts):
        return pd.Series(pd.Categorical.from_codes(values.codes, pd.Index(values.names)))
    if isinstance(values, Partial):
        return pd.Series(pd.arrays.IntegerArray(values.values, ~values.known))
    if column.type == "shape":
        objects = np.empty(len(values), dtype=object)
        for place, value in enumerate(values):  # assigned at once, numpy would take tuples for a second axis
            objects[place] = value
        return pd.Series(objects)
    if column.type == "string":
        return pd.Series([None if value is None else _encoded(value).decode() for value in values], dtype="string")
    if column.type == "float64":
        return pd.Series(np.array(values, dtype=np.float64))
    nullable: Any = {"int64": "Int64", "bool": "boolean"}[column.type]
    return pd.Series(values, dtype=nullable if column.nullable else column.type)
