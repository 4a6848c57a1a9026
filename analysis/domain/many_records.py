"""Many frozen records at once, made of columns: the same as each record's own constructor makes, in a third of the time.

A trace whose every launch has a name of its own has a hundred thousand rows in each table of kernels. A constructor sets
and checks field by field in Python; here each field is set, and checked, for all records together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, TypeVar

import numpy as np
from attrs import NOTHING, Factory, fields

from analysis.domain.columns import Records, Values

__all__ = ["evolved", "records_of"]

R = TypeVar("R")


def records_of(kind: type[R], columns: Mapping[str, Values], number: int) -> Records[R]:
    """Make records, as ``kind(**row)`` makes them one by one.

    Args:
        kind: a frozen attrs class with slots and no converter, whose validators look at nothing but their value. A column that
            is an array is checked by its smallest and largest value alone: there the validator must be a bound.
        columns: field → its values, [number]; a field that is missing has its default in every record.
        number: of records.

    Raises:
        TypeError: the class is not of that kind, or a field without a default is missing, or one is not known.
        ValueError: what a validator says of a value; or a column is of another length.
    """
    if hasattr(kind, "__attrs_post_init__") or kind.__dictoffset__:
        raise TypeError(f"{kind.__name__} has no slots, or work of its own to do when a record is made")
    known = {attribute.name: attribute for attribute in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(columns.keys() - known):
        raise TypeError(f"{kind.__name__} has no field {unknown[0]!r}")
    new: Callable[[type[R]], R] = object.__new__
    records = list(map(new, repeat(kind, number)))
    for name, attribute in known.items():
        if attribute.converter is not None or not attribute.init:
            raise TypeError(f"{kind.__name__}.{name} is not set from outside as it is given")
        if name in columns:
            column = columns[name]
            if len(column) != number:
                raise ValueError(f"{kind.__name__}.{name}: {len(column)} values for {number} records")
            if attribute.validator is not None and number:
                for value in _to_be_checked(column):
                    attribute.validator(records[0], attribute, value)
            values: Iterable[Any] = column.tolist() if isinstance(column, np.ndarray) else column
        elif attribute.default is NOTHING or isinstance(attribute.default, Factory):  # type: ignore[arg-type]
            raise TypeError(f"{kind.__name__}.{name} is missing, and its default is not one value")
        else:
            values = repeat(attribute.default, number)
        # The slot's own descriptor: what is frozen is the class's __setattr__.
        deque(map(getattr(kind, name).__set__, records, values), maxlen=0)
    return Records.of(records, columns)


def evolved(records: Sequence[R], **columns: Values) -> Records[R]:
    """Copies of records with other values in some fields, as ``attrs.evolve`` makes them one by one.

    Args:
        records: of one class, as `records_of` takes it.
        columns: field → its values, [records].
    """
    rows = Records.of(records)
    if not rows:
        return rows
    kind = type(rows[0])
    names = [attribute.name for attribute in fields(kind)]  # type: ignore[arg-type]
    others = {name: rows.column(name) for name in names if name not in columns}
    return records_of(kind, {**others, **columns}, len(rows))


def _to_be_checked(column: Values) -> Iterable[Any]:
    """Values of a column that is not empty, by which all are checked; NaN is both the smallest and the largest."""
    if isinstance(column, np.ndarray):
        return (column.min().item(), column.max().item())
    return dict.fromkeys(column)
