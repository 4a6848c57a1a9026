"""Pack several columns into one integer by SQL, so that fewer values cross into Arrow; rows that do not fit are marked."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import and_, case, column, func, literal, or_
from sqlalchemy.sql.expression import ColumnElement

from analysis.trace.schema import TableSpec

__all__ = ["IMPOSSIBLE", "joined", "packed"]

IMPOSSIBLE: Final = -(2**62)
"""Stands for a row of which one value is not as declared: no packed row has this value."""
_INT64_MAX: Final = 2**63 - 1


def joined(parts: list[tuple[str, int, int]], *, there: set[str], nulls: bool) -> ColumnElement[Any]:
    """The sum of columns, each shifted to its place. Sums, unlike bits, of a fraction are a fraction, which is then seen.

    Args:
        parts: (column, bits to shift by, what stands for NULL and for a column that is not there).
        there: the columns that the file has.
        nulls: whether values may be NULL.
    """
    known = [part for part in parts if part[0] in there]
    blank = sum(value << shift for name, shift, value in parts if name not in there)
    total: ColumnElement[Any] | None = None
    for name, shift, value in known:
        number: ColumnElement[Any] = func.coalesce(column(name), value) if nulls else column(name)
        shifted = number * (1 << shift) if shift else number
        total = shifted if total is None else total + shifted
    if total is None:
        return literal(blank)
    return total + blank if blank else total


def packed(
    spec: TableSpec, names: list[str], plain: ColumnElement[Any], with_nulls: ColumnElement[Any]
) -> ColumnElement[Any]:
    """A packed value where all columns are as declared, else `IMPOSSIBLE`.

    A comparison is false for text and binary data too: SQLite orders them behind all numbers.

    Args:
        spec: of the table.
        names: columns that are packed and that the file has.
        plain: the packed value of a row without NULL.
        with_nulls: of a row with NULL.
    """
    if not names:
        return with_nulls
    within = {name: _within(spec, name) for name in names}
    return case(
        (and_(*within.values()), plain),
        (and_(*(or_(column(name).is_(None), condition) for name, condition in within.items())), with_nulls),
        else_=IMPOSSIBLE,
    )


def _within(spec: TableSpec, name: str) -> ColumnElement[bool]:
    declared = spec.columns[name]
    assert declared.low is not None, f"{name} cannot be packed: it has no least value"
    return column(name).between(declared.low, _INT64_MAX if declared.high is None else declared.high)
