"""Hold the values of a trace to what `analysis.trace.schema` declares: as SQL that finds rows, and as words.

Values are checked where they are read, many at a time: a column's Arrow type says whether each is a whole number, its least and
greatest value whether all are in range. Only where that fails do the conditions here look for the rows, to name them.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from analysis.trace.schema import Column

__all__ = ["EXAMPLES", "ImpossibleValues", "must_be", "refused_rows", "reported_rows", "shown"]

EXAMPLES: Final = 3
"""Rows of each column that are named."""
_SHOWN_LETTERS: Final = 40


@frozen
class ImpossibleValues:
    """Rows whose value cannot be, and reads as not recorded."""

    table: str
    column: str
    rows: int
    of: int
    """Rows of the table."""
    examples: tuple[tuple[int, str], ...]
    """(row id, value) of the first few."""
    must: str
    """What the value must be."""
    of_events: bool
    """Whether the rows are events of the program, rather than what the file says of itself."""


def refused_rows(name: str, column: Column) -> str | None:
    """SQL for the rows that make the trace unreadable: another type, NULL or out of range where that is refused."""
    conditions = []
    if column.kind == "integer":
        conditions.append(f"typeof(\"{name}\") NOT IN ('integer', 'null')")
        if column.refused:
            conditions += _out_of_range(name, column)
    if not column.null:
        # IS NULL is false without a look where the file's schema says NOT NULL, and a damaged page may hold one all the same.
        conditions.append(f"typeof(\"{name}\") = 'null'")
    return " OR ".join(conditions) or None


def reported_rows(name: str, column: Column, *, referred: str | None) -> str | None:
    """SQL for the rows whose value is impossible, and reported.

    Args:
        name: of the column.
        column: what it may hold.
        referred: SQL name of the table that it refers to; None: the file has no such table.
    """
    conditions = [] if column.refused else _out_of_range(name, column)
    if column.refers is not None and referred is not None:
        value = f'"{name}"' if column.mask is None else f'("{name}" & {column.mask})'
        conditions.append(
            f'("{name}" IS NOT NULL AND {value} NOT IN (SELECT "{column.refers[1]}" FROM "{referred}" NOT INDEXED '
            f'WHERE "{column.refers[1]}" IS NOT NULL))'
        )
    return " OR ".join(conditions) or None


def _out_of_range(name: str, column: Column) -> list[str]:
    limits = (("<", column.low), (">", column.high))
    return [f'"{name}" {sign} {limit}' for sign, limit in limits if limit is not None]


def must_be(column: Column) -> str:
    """What a column's value must be, in words."""
    if column.kind != "integer":
        return column.kind
    words = "a whole number"
    if column.low is not None and column.high is not None:
        words += f" from {_power(column.low)} to {_power(column.high)}"
    elif column.low is not None:
        words += f" from {_power(column.low)} on"
    if column.refers is not None:
        words += f" that is in {column.refers[0]}"
    return words if column.null else f"{words}, and not NULL"


def _power(value: int) -> str:
    """A number, large ones as a power of two."""
    for addend, suffix in ((0, ""), (1, "-1")):
        bare = abs(value) + addend
        if bare >= 2**20 and bare & (bare - 1) == 0 and (value > 0 or not addend):
            return f"{'-' if value < 0 else ''}2^{bare.bit_length() - 1}{suffix}"
    return f"{value}"


def shown(kind: str, value: bytes | None) -> str:
    """A value of the file, for one line of an error or a finding: what SQLite calls its type, and its text."""
    if kind == "null" or value is None:
        return "NULL"
    text = value.decode("utf-8", "replace")
    if kind == "integer":
        return text
    if kind == "real":
        return f"the fraction {text}"
    if kind == "blob":
        return "binary data"
    return f"the text {text[:_SHOWN_LETTERS]!r}"
