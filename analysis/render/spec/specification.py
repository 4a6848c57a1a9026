"""How a table is declared: its columns, each once, and how each kind of value is written.

Every format reads the declaration. Formats for people (HTML, Markdown, the terminal) show the columns named in
`Column.shown` with their labels and write values by `Style`; formats for programs (CSV, JSON, Parquet, DataFrames) hold
every `Column.data` column under its key, unrounded, in the unit that the key ends with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from attrs import Factory, field, frozen, validators

from analysis.domain.columns import Records, Values
from analysis.domain.figures import (
    NOT_AVAILABLE,
    bytes_,
    count,
    decimal,
    duration,
    exact_ms,
    flop,
    microseconds,
    of_peak,
    rate,
    ratio,
    share,
    signed_duration,
    significant,
    times,
)
from analysis.render.spec.text import visible

__all__ = [
    "BYTES",
    "BYTE_RATE",
    "COUNT",
    "DURATION",
    "EVERYWHERE",
    "EXACT_MS",
    "FLOP",
    "FLOP_RATE",
    "MICROSECONDS",
    "NAME",
    "OF_PEAK",
    "PLAIN",
    "RATIO",
    "SHAPE",
    "SHARE",
    "SIGNED_DURATION",
    "SIGNIFICANT",
    "TEXT",
    "YES_NO",
    "Align",
    "Column",
    "Reader",
    "Specification",
    "Style",
    "Type",
    "decimals",
    "factor",
]

R = TypeVar("R")

Align: TypeAlias = Literal["left", "right"]
Reader: TypeAlias = Literal["html", "markdown", "terminal"]
"""A format for people."""
EVERYWHERE: Final[tuple[Reader, ...]] = ("html", "markdown", "terminal")
Type: TypeAlias = Literal["string", "int64", "float64", "bool", "shape"]
"""Of a column's values; ``shape`` is x, y, z, three whole numbers."""


@frozen
class Style:
    """How one kind of value is written. ``figures.js`` has a function of the same name; a test compares the two."""

    name: str
    write: Callable[[Any], str]
    """From a value that is not None, or None, to text without the unit that the heading carries."""
    unit: str = ""
    """Of the numbers as written, for the heading; empty: each value carries its own."""
    align: Align = "right"
    code: bool = False
    """An identifier of the profiled program, set in a monospaced face."""
    digits: int = 0
    """Decimals of ``decimal`` and ``times``."""

    def __call__(self, value: Any) -> str:
        """The value as text; ``n/a`` for None."""
        return NOT_AVAILABLE if value is None else self.write(value)


NAME: Final = Style("name", visible, align="left", code=True)
TEXT: Final = Style("text", visible, align="left")
COUNT: Final = Style("count", count)
PLAIN: Final = Style("plain", str)
"""A number that is a name, such as a process's: no thousands."""
EXACT_MS: Final = Style("exact_ms", exact_ms, "ms")
MICROSECONDS: Final = Style("microseconds", microseconds, "µs")
DURATION: Final = Style("duration", duration)
SIGNED_DURATION: Final = Style("signed_duration", signed_duration)
SHARE: Final = Style("share", share)
RATIO: Final = Style("ratio", ratio)
OF_PEAK: Final = Style("of_peak", of_peak)
SIGNIFICANT: Final = Style("significant", significant)
FLOP: Final = Style("flop", flop)
BYTES: Final = Style("bytes", bytes_)
FLOP_RATE: Final = Style("flop_rate", lambda value: rate(value, "FLOP/s"))
BYTE_RATE: Final = Style("byte_rate", lambda value: rate(value, "B/s"))
SHAPE: Final = Style("shape", lambda value: "×".join(map(str, value)))
YES_NO: Final = Style("yes_no", lambda value: "yes" if value else "no")


def decimals(digits: int, unit: str = "") -> Style:
    """A number with so many decimals."""
    return Style("decimal", lambda value: decimal(value, digits), unit, digits=digits)


def factor(digits: int = 2) -> Style:
    """A factor with so many decimals."""
    return Style("times", lambda value: times(value, digits), digits=digits)


@frozen
class Column(Generic[R]):
    """One column of rows of type ``R``."""

    key: str = field(validator=validators.matches_re(r"[a-z][a-z0-9_]*"))
    """Stable name in CSV, JSON, Parquet and DataFrames; a quantity with a unit ends with it (``_ns``, ``_bytes``)."""
    label: str
    type: Type
    style: Style
    definition: str = ""
    """What the number is, as a sentence."""
    value: Callable[[R], Any] = field(default=Factory(lambda self: attrgetter(self.key), takes_self=True))
    """From a row to its value; None: unknown."""
    nullable: bool = False
    """Whether a value may be unknown."""
    adds: bool = False
    """Whether the values of different rows add up."""
    within: str = ""
    """Key of a column: values add up only where all rows have the same value in it (shares of one stage)."""
    apart: str = ""
    """Why values of different rows do not add up, where a reader might expect that they do."""
    shown: tuple[Reader, ...] = EVERYWHERE
    data: bool = True
    """Whether it stands in formats for programs; a column that only says another one for people does not."""
    priority: int = 1
    """Where there is not room for all, columns with the highest number go first; 0 stays."""
    optional: bool = False
    """Left out of formats for people where it is zero, empty or unknown in every row."""
    below: str = ""
    """Key of a column in whose cell the page shows this one as a second line."""
    why: Callable[[R], str | None] = lambda _: None
    """Why the value of a row is unknown."""

    def of(self, rows: Sequence[R]) -> Sequence[Any]:
        """Its values, [rows]; rows are of one class."""
        if isinstance(self.value, attrgetter):
            return Records.of(rows).values(self.key)
        return list(map(self.value, rows))

    def array_of(self, rows: Sequence[R]) -> Values:
        """The same; numbers that are all known may be an array."""
        return Records.of(rows).column(self.key) if isinstance(self.value, attrgetter) else self.of(rows)

    @property
    def unit(self) -> str:
        """Of the numbers as people read them."""
        return self.style.unit


@frozen
class Specification(Generic[R]):
    """A table: what its rows are and which columns they have."""

    key: str
    title: str
    rows: str
    """What a row is, as a sentence."""
    columns: tuple[Column[R], ...] = field()
    note: str = ""

    @columns.validator
    def _keys_are_distinct(self, attribute: Any, columns: tuple[Column[R], ...]) -> None:
        keys = [column.key for column in columns]
        if len(set(keys)) < len(keys):
            raise ValueError(f"{self.key}: a key is given twice in {keys}")
        for column in columns:
            if not {column.within, column.below} <= {"", *keys}:
                raise ValueError(f"{self.key}.{column.key}: within or below names no column")

    @property
    def data(self) -> tuple[Column[R], ...]:
        """Columns of formats for programs, in order."""
        return tuple(column for column in self.columns if column.data)

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of `data`."""
        return tuple(column.key for column in self.data)

    def for_reader(self, reader: Reader, rows: Sequence[R] | None = None) -> tuple[Column[R], ...]:
        """Columns of a format for people, in order.

        Args:
            reader: the format.
            rows: leave out optional columns that say nothing of these; None: leave out none.
        """
        return tuple(
            column
            for column in self.columns
            if reader in column.shown
            and not (column.optional and rows is not None and not any(column.value(row) for row in rows))
        )

    def __getitem__(self, key: str) -> Column[R]:
        """A column by its key.

        Raises:
            KeyError: there is none such.
        """
        for column in self.columns:
            if column.key == key:
                return column
        raise KeyError(f"{self.key} has no column {key!r}")
