"""Tables and facts of a report, as Markdown, HTML and the terminal all show them."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import frozen

__all__ = ["Cell", "Column", "Fact", "Table", "Tile"]

Align: TypeAlias = Literal["left", "right"]


@frozen
class Column:
    """One column. ``term`` is a key of `analysis.render.spec.definitions.DEFINITIONS`."""

    label: str
    unit: str = ""
    term: str = ""
    align: Align = "right"

    @property
    def heading(self) -> str:
        """Label and unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label


@frozen
class Cell:
    """One value, ready to be read. Text may hold names of others: made visible, but not escaped for any format."""

    text: str
    sort: float | str | None = None
    """What to sort by; None: unknown, always last."""
    hint: str = ""
    """More, such as why it is n/a."""
    code: bool = False
    """An identifier, to be set in a monospaced face."""


@frozen
class Table:
    """Rows under columns. ``total`` adds up the rows."""

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] | None = None
    note: str = ""
    row_terms: tuple[str, ...] = ()
    """Definition of each row, where rows are quantities."""


@frozen
class Tile:
    """One headline number."""

    label: str
    value: str
    note: str
    term: str
    stage: str | None = None


@frozen
class Fact:
    """A label and what it says."""

    label: str
    text: str
    code: bool = False
