"""Records of one class that keep their columns: for whoever asks for one field of all records.

A trace whose every launch has a name of its own has a hundred thousand rows in each table of kernels, which checks, sums,
verdicts and files read field by field: the table was made of columns, and to read them from its records again takes longer than
all else that is done with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from operator import attrgetter, ge
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar, Union

if TYPE_CHECKING:  # what a run's child writes is no table
    from numpy.typing import NDArray

__all__ = ["Records", "Values", "listed"]

R = TypeVar("R")

Values: TypeAlias = Union[Sequence[Any], "NDArray[Any]"]
"""Of one field of some records, [records]."""


def listed(column: Values) -> Sequence[Any]:
    """A column's values as records hold them: numbers are Python's."""
    return column if isinstance(column, Sequence) else column.tolist()


class Records(tuple[R, ...]):
    """A tuple of records of one class that keeps the columns it was made of, and those that were read from it."""

    _columns: dict[str, Values]

    @classmethod
    def of(cls, records: Iterable[R], columns: Mapping[str, Values] | None = None) -> Self:
        """Take records, and the columns that they were made of.

        Args:
            records: of one class; `Records` without columns are returned as they are.
            columns: field → values, [records], as the records hold them; an array, where it is one of numbers that are all known.
        """
        if columns is None and isinstance(records, cls):
            return records
        made = cls(records)
        made._columns = dict(columns or {})
        return made

    def column(self, name: str) -> Values:
        """The values of a field, [records]; not to be changed."""
        values = self._columns.get(name)
        if values is None:
            values = self._columns[name] = _read(self, name)
        return values

    def values(self, name: str) -> Sequence[Any]:
        """The same, as the records hold them: numbers are Python's."""
        return listed(self.column(name))

    def part(self, first: int, last: int | None = None) -> Self:
        """The records from one place to before another."""
        return type(self).of(self[first:last], {key: column[first:last] for key, column in self._columns.items()})

    def where(self, name: str, value: Any) -> Self:
        """The records with a value in a field, in their order."""
        values = self.values(name)
        number = values.count(value)
        first = values.index(value) if number else 0
        last = first + number
        if values[first:last].count(value) == number:  # as in tables that are in order of it
            return self.part(first, last)
        return type(self).of(record for record, own in zip(self, values, strict=True) if own == value)

    def descending(self, name: str) -> Self:
        """The records with the greatest value in a field first; equal ones in their order."""
        values = self.values(name)
        if all(map(ge, values, islice(values, 1, None))):
            return self
        order = sorted(range(len(values)), key=values.__getitem__, reverse=True)
        return type(self).of(self[place] for place in order)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as a tuple: its columns say nothing that the records do not."""
        return tuple, (tuple(self),)


def _read(records: Sequence[Any], name: str) -> list[Any]:
    if not records:
        return []
    slot = getattr(type(records[0]), name, None)
    # A slot's own descriptor reads in half the time of an attrgetter.
    return list(map(slot.__get__ if isinstance(slot, MemberDescriptorType) else attrgetter(name), records))
