"""Tables and facts ready to be read: what HTML, Markdown and the terminal lay out, each in its way.

`shown` makes a table from its declaration and rows; `pivoted` puts one value of a column beside the other (a stage a
column); `transposed` turns rows into columns and columns into rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import fsum
from typing import Any, Generic, TypeVar

from attrs import evolve, frozen

from analysis.domain.figures import count
from analysis.render.spec.specification import Align, Column, Reader, Specification

__all__ = ["Cell", "Fact", "Heading", "Sums", "Table", "Tile", "heading", "pivoted", "shown", "transposed"]

R = TypeVar("R")


@frozen
class Cell:
    """One value, ready to be read. Text may hold names of others: made visible, but not escaped for any format."""

    text: str
    sort: Any = None
    """What to sort by; None: unknown, always last."""
    hint: str = ""
    """More, such as why it is n/a."""
    code: bool = False
    """An identifier, to be set in a monospaced face."""
    below: str = ""
    """A second line, on the page."""
    kind: str = ""
    """Class of the page's style, where a value has a look of its own."""


@frozen
class Heading:
    """What stands over a column."""

    label: str
    unit: str = ""
    definition: str = ""
    align: Align = "right"
    priority: int = 1

    @property
    def text(self) -> str:
        """Label and unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label


@frozen
class Table:
    """Rows under headings. ``total`` adds up the rows."""

    key: str
    title: str
    columns: tuple[Heading, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] | None = None
    note: str = ""
    row_definitions: tuple[str, ...] = ()
    """Definition of each row, where rows are quantities."""
    row_ids: tuple[str, ...] = ()
    """What the page's links call each row; empty: nothing leads to a row."""
    left_out: int = 0
    """Rows that are not here, of those that ``total`` adds up."""


@frozen
class Tile:
    """One headline number."""

    label: str
    value: str
    note: str
    term: str
    """Key of `analysis.render.spec.glossary.GLOSSARY`."""
    stage: str | None = None


@frozen
class Fact:
    """A label and what it says."""

    label: str
    text: str
    code: bool = False


def shown(
    spec: Specification[R],
    rows: Sequence[R],
    reader: Reader,
    *,
    key: str | None = None,
    title: str | None = None,
    note: str | None = None,
    total: bool = False,
    limit: int | None = None,
    rest: str = "",
    most: int | None = None,
    leave_out: Collection[str] = (),
    sums: Sums[R] | None = None,
) -> Table:
    """Write rows for a reader.

    Args:
        spec: of the rows.
        rows: in the order in which they are shown.
        reader: which format; it shows its columns of the declaration.
        key: of this table; None: the declaration's.
        title: None: the declaration's.
        note: None: the declaration's.
        total: whether a last row adds up the columns that can be added up.
        limit: with ``rest``: so many rows are shown one by one, the others as one row.
        rest: that row's name, with their number for ``{}``, such as ``({} more kernels)``.
        most: so many rows are shown, and the others counted as ``left_out``.
        leave_out: keys of columns that would say the same in every row.
        sums: of the rows, where they are written more than once.
    """
    sums = Sums(spec, rows) if sums is None else sums
    columns = [column for column in spec.for_reader(reader, rows) if column.key not in leave_out]
    under = {column.below: column for column in columns if column.below} if reader == "html" else {}
    columns = [column for column in columns if column not in under.values()]
    # One row would be no shorter as "(1 more)".
    apart, together = (rows, ()) if limit is None or len(rows) <= limit + 1 else (rows[:limit], rows[limit:])
    written = [tuple(_cell(column, row, under.get(column.key)) for column in columns) for row in apart[:most]]
    if together:
        written.append(_sums(sums, columns, rest.format(count(len(together))), len(apart)))
    return Table(
        key=spec.key if key is None else key,
        title=spec.title if title is None else title,
        columns=tuple(heading(column, under.get(column.key)) for column in columns),
        rows=tuple(written),
        total=_sums(sums, columns, "Total") if total else None,
        note=spec.note if note is None else note,
        left_out=0 if most is None else max(0, len(apart) - most),
    )


def heading(column: Column[Any], under: Column[Any] | None = None) -> Heading:
    """What stands over a column, and over the one whose values are second lines in it."""
    label, definition = column.label, column.definition
    if under is not None and under.style.align == "right":
        label = f"{label}, {under.label[0].lower()}{under.label[1:]}"
        definition = f"{definition} {under.definition}"
    return Heading(label, column.unit, definition, column.style.align, column.priority)


def _cell(column: Column[R], row: R, under: Column[R] | None = None) -> Cell:
    value = column.value(row)
    second = None if under is None else under.value(row)
    return Cell(
        column.style(value),
        sort=value,
        hint="" if value is not None else column.why(row) or "",
        code=column.style.code and not str(value).startswith("("),
        below="" if under is None or second is None else under.style(second),
    )


class Sums(Generic[R]):
    """Sums of columns over rows; the values of a column are read once."""

    def __init__(self, spec: Specification[R], rows: Sequence[R]) -> None:
        """Take rows and their declaration."""
        self._spec = spec
        self._rows = rows
        self._values: dict[str, Sequence[Any]] = {}
        self._together: dict[str, bool] = {}
        """Whether all rows have the same value in a column."""

    def of(self, column: Column[R], first: int = 0) -> Any:
        """Sum of a column over the rows from ``first`` on; None: it does not add up there.

        Args:
            column: of the declaration.
            first: number of a row. All rows must agree in ``column.within``, those before it too.
        """
        if not column.adds:
            return None
        if column.within:
            if column.within not in self._together:
                self._together[column.within] = len(set(self._spec[column.within].of(self._rows))) <= 1
            if not self._together[column.within]:
                return None
        if column.key not in self._values:
            self._values[column.key] = column.of(self._rows)
        values = self._values[column.key][first:] if first else self._values[column.key]
        if column.nullable and None in values:
            return None
        return fsum(values) if column.type == "float64" else sum(values)


def _sums(sums: Sums[R], columns: Sequence[Column[R]], name: str, first: int = 0) -> tuple[Cell, ...]:
    """One row that adds up those from ``first`` on; empty where they do not add up."""
    cells = [Cell(name)]
    for column in columns[1:]:
        added = sums.of(column, first)
        if added is not None:
            cells.append(Cell(column.style(added), sort=added))
        else:
            cells.append(Cell("–" if column.apart else "", hint=column.apart))
    return tuple(cells)


def pivoted(
    spec: Specification[R],
    rows: Sequence[R],
    reader: Reader,
    *,
    by: str,
    over: Sequence[str],
    missing: Any = None,
) -> Table:
    """One row for each value of the first column, and the other columns once for each value of ``by``.

    Args:
        spec: of the rows; at most one row for each first value and value of ``by``.
        rows: groups in the order of their first rows.
        reader: which format.
        by: key of the column whose values stand side by side.
        over: its values, in order.
        missing: value of the repeated columns where there is no such row.
    """
    columns = spec.for_reader(reader)
    first, *others = (column for column in columns if column.key != by)
    fixed = [column for column in others if column.style.align == "left"]
    repeated = [column for column in others if column.style.align != "left"]
    place = spec[by].value
    groups: dict[Any, dict[str, R]] = {}
    for row in rows:
        groups.setdefault(first.value(row), {})[place(row)] = row
    lines = []
    for members in groups.values():
        some = next(iter(members.values()))
        cells = [_cell(column, some) for column in (first, *fixed)]
        for value in over:
            cells += [
                _cell(column, members[value]) if value in members else Cell(column.style(missing), sort=missing)
                for column in repeated
            ]
        lines.append(tuple(cells))
    headings = [heading(column) for column in (first, *fixed)]
    for value in over:
        for column in repeated:
            label = value if len(repeated) == 1 else f"{value}: {column.label.lower()}"
            headings.append(evolve(heading(column), label=label))
    return Table(spec.key, spec.title, tuple(headings), tuple(lines), note=spec.note)


def transposed(spec: Specification[R], rows: Sequence[R], reader: Reader, *, corner: str) -> Table:
    """Columns as rows: the first column's values become the headings, the others' labels the first cells.

    Args:
        spec: of the rows.
        rows: become columns.
        reader: which format.
        corner: heading over the labels.
    """
    first, *others = spec.for_reader(reader, rows)
    return Table(
        spec.key,
        spec.title,
        (Heading(corner, align="left", priority=0), *(Heading(first.style(first.value(row))) for row in rows)),
        tuple((Cell(heading(column).text), *(_cell(column, row) for row in rows)) for column in others),
        note=spec.note,
        row_definitions=tuple(column.definition for column in others),
    )
