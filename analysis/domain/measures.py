"""What a figure may be, by the name of its field, and a walk over records that finds the figures that cannot be.

Every number of a record is of one kind, which its name tells: ``busy_share`` is a share, ``queued_ns`` a time, ``launches`` a
count. So a field that is added to a record is checked without being listed anywhere; a name that tells nothing is an error of
the test that holds all records to this page. What is not as its name says cannot be shown to anybody: every record that is
written is walked through first (`require_possible`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from numbers import Integral, Real
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias

from attrs import fields, frozen, has

from analysis.domain.columns import Records, Values
from analysis.domain.entities import MFU_GUARDRAIL
from analysis.domain.errors import ResultError

__all__ = [
    "KINDS",
    "ROUNDING",
    "Bounds",
    "Kind",
    "Range",
    "impossible_figures",
    "inconsistent",
    "kind_of",
    "require_possible",
]

Kind: TypeAlias = Literal["share", "utilisation", "time", "moment", "change", "count", "amount", "any"]

ROUNDING: Final = 1e-9
"""By so much a share may leave 0–1, and any other fraction of a bound exceed it: sums of millions of doubles err by less."""
_LARGEST: Final = 2**63 - 1
"""No integer column, of Parquet, SQLite or numpy, holds more."""
_MOST: Final = 3
"""Figures that an error names."""
_MOST_HELD: Final = 100
"""Figures that are looked for: a damaged file may hold millions."""


@frozen
class Range:
    """What a figure of one kind must be."""

    low: float
    high: float
    words: str


KINDS: Final[dict[Kind, Range]] = {
    "share": Range(-ROUNDING, 1 + ROUNDING, "a share, from 0 to 1"),
    "utilisation": Range(0, MFU_GUARDRAIL, f"a utilisation, from 0 to {MFU_GUARDRAIL}"),
    "time": Range(0, _LARGEST, "a time, at least 0 and below 2^63"),
    "moment": Range(-_LARGEST, _LARGEST, "a moment that fits 64 bits"),
    "change": Range(-_LARGEST, _LARGEST, "a difference that fits 64 bits"),
    "count": Range(0, _LARGEST, "a count, at least 0 and below 2^63"),
    "amount": Range(0, sys.float_info.max, "an amount, finite and at least 0"),
    "any": Range(-sys.float_info.max, sys.float_info.max, "a finite number"),
}

_MOMENTS: Final = frozenset(
    {"start_ns", "end_ns", "gpu_end_ns", "next_ns", "offset_ns", "clock_offset_ns", "since_ns", "start_s"}
)
_UTILISATIONS: Final = frozenset({"mfu", "mbu", "mfu_full_attention", "mfu_model_level", "mfu_per_stage"})
_SHARES: Final = frozenset({"share", "theoretical_occupancy", "confidence"})
_TIME_UNITS: Final = ("ns", "ms", "s", "seconds")
_AMOUNTS: Final = frozenset(
    {
        "arithmetic_intensity", "concurrency", "factor", "flop", "joules", "launches", "mean", "median", "minimum", "maximum",
        "pages", "ratio", "requests_median", "ridge_point", "samples", "std", "tokens_median", "units", "waves",
    }
)  # fmt: skip
"""Names of fractional figures that end with no unit."""
_AMOUNT_UNITS: Final = (
    "_bytes", "_flop", "_moved", "_per_s", "_per_min", "_tflops_bf16", "_w", "_calls", "_per_unit", "_per_page",
    "_per_token", "_joules", "per_token", "calls_per_unit",
)  # fmt: skip

_OF_RECORDS: Final[dict[str, dict[str, Kind]]] = {
    # What a run cost or used beyond its idle state, by measurement: noise may be larger than the difference.
    "Energy": {"joules_per_page_above_idle": "change", "joules_per_token_above_idle": "change"},
    "StageEnergy": {"joules_per_page_above_idle": "change", "joules_per_token_above_idle": "change"},
    # Of the predicted gain: more than all of it came, or less than nothing.
    "Scored": {"share": "change"},
    # A comparison's times are differences, or parts of one: what operations overlap is a negative part.
    "Interval": {"low_ns": "change", "high_ns": "change"},
    "StageDifference": {"difference_ns": "change", "explained": "change"},
    "Contribution": {"base_ns": "change", "new_ns": "change", "difference_ns": "change"},
    "KernelMatch": {"difference_ns": "change"},
    "Check": {"base": "change", "new": "change", "difference": "change", "ratio": "any"},
    "LevelChange": {"relative": "change", "low": "change", "high": "change"},
    # A rank that is late may be faster than the other in something.
    "Lateness": {
        "kernels_ns": "change", "synchronises_ns": "change", "launching_ns": "change", "other_calls_ns": "change",
        "python_ns": "change", "in_graph_ns": "change",
    },
    "Straggler": {"cause_ns": "change"},
    "Waterfall": {"residual_ns": "change"},
    "Loss": {"ns": "change"},
    "MetricSeries": {"time_ns": "moment", "values": "any", "stage_means": "any"},
    # The program's own number, and options in its own words.
    "InstanceSummary": {"payload": "any"},
    "StepPoint": {"context": "any"},
    "LLMProfileReport": {"detail": "any"},
    "RunManifest": {"options": "any"},
    "ProgramManifest": {"options": "any", "load_exit_code": "change"},
    "Sweep": {"options": "any"},
    "SweepPlan": {"until": "any"},
    "Settings": {"seed": "any"},
    "RooflineRow": {"sections": "any"},
    "DeviceState": {"temperature_c": "change"},
    "DeviceMoment": {"temperature_c": "change"},
    # A program that a signal ended has a negative code.
    "ExitCodes": {
        "control": "change", "child": "change", "nsys": "change", "export": "change", "analysis": "change",
    },
    # What has no energy above idle, bound or budget to be compared with, and is ≥ 0 by its own making.
    "MemoryUse": {"activations": "change", "reserved_unused": "change"},
}  # fmt: skip
"""Record → field → kind, where the name alone does not tell it."""


def kind_of(record: str, name: str, *, fraction: bool) -> Kind | None:
    """What a numeric field holds.

    Args:
        record: name of the class.
        name: of the field.
        fraction: whether it may hold fractions. Whole numbers whose name ends with no unit count or number something.

    Returns:
        None: the name does not tell.
    """
    if (declared := _OF_RECORDS.get(record, {}).get(name)) is not None:
        return declared
    if name in _MOMENTS:
        return "moment"
    if name in _UTILISATIONS:
        return "utilisation"
    if name in _SHARES or name.endswith("_share"):
        return "share"
    if name.rpartition("_")[2] in _TIME_UNITS and not name.endswith("_per_s"):
        return "time"
    if not fraction:
        return "count"
    return "amount" if name in _AMOUNTS or name.endswith(_AMOUNT_UNITS) else None


@frozen
class Bounds:
    """What no time of a capture exceeds."""

    largest: Mapping[str, float]
    """Name of a bound → ns."""
    of: Mapping[str, Mapping[str, str]]
    """Record → field → name of its bound."""

    def over(self, record: str, name: str) -> tuple[str, float] | None:
        """Name of the bound of a field and its value in the field's unit; None: it has none."""
        bound = self.of.get(record, {}).get(name)
        if bound is None:
            return None
        return bound, self.largest[bound] / (1e6 if name.endswith("_ms") else 1)


def require_possible(record: Any, what: str, bounds: Bounds | None = None) -> None:
    """Refuse a result with a figure that cannot be, before anything of it is written.

    Args:
        record: attrs record, or a sequence of them.
        what: it is, in words: ``the report``.
        bounds: of its capture; None: it is of none.

    Raises:
        ResultError: there is such a figure, for which the input is not to blame.
    """
    if wrong := impossible_figures(record, bounds):
        raise inconsistent(what, wrong)


def inconsistent(what: str, wrong: Sequence[str]) -> ResultError:
    """The error about a result of ours that contradicts itself."""
    more = f"; and {len(wrong) - _MOST:,} more" if len(wrong) > _MOST else ""
    return ResultError(
        f"internal error: {what} cannot be right: {'; '.join(wrong[:_MOST])}{more}; nothing was written; please report this with "
        "the input"
    )


def impossible_figures(record: Any, bounds: Bounds | None = None, only: Sequence[str] = ()) -> list[str]:
    """Figures of a record, and of all records in it, that their names or the capture rule out.

    Args:
        record: attrs record, or a sequence of them.
        bounds: of the capture that its times are of.
        only: fields of the record itself that are looked at; none: all.

    Returns:
        Place, value and what it must be of each; none: all are possible.
    """
    wrong: list[str] = []
    rows: Sequence[Any] = record if isinstance(record, (tuple, list)) else (record,)
    for kind, of_kind, places in _by_class(rows, lambda row: f"[{row}]" if len(rows) > 1 else ""):
        _check_rows(kind, of_kind, places, bounds, wrong, only)
    return wrong


_Place: TypeAlias = Callable[[int], str]
"""Number of a row → where it stands."""


def _by_class(rows: Sequence[Any], place: _Place) -> list[tuple[type, Sequence[Any], _Place]]:
    """Rows of records, those of one class together; what is no record is left out."""
    classes = list(dict.fromkeys(map(type, rows)))
    if len(classes) == 1:
        return [(classes[0], rows, place)] if has(classes[0]) else []
    groups: list[tuple[type, Sequence[Any], _Place]] = []
    for kind in classes:
        if has(kind):
            numbers = [number for number, row in enumerate(rows) if type(row) is kind]
            groups.append((kind, [rows[number] for number in numbers], _chosen(place, numbers)))
    return groups


def _chosen(place: _Place, numbers: Sequence[int]) -> _Place:
    return lambda row: place(numbers[row])


@cache
def _columns(kind: type) -> tuple[str, ...]:
    """Fields of a record that may hold numbers or records: not those that are text by their declaration."""
    return tuple(field.name for field in fields(kind) if _declared(field.type) not in _TEXTS)


def _declared(declared: Any) -> str:
    return declared if isinstance(declared, str) else getattr(declared, "__name__", str(declared))


_TEXTS: Final = frozenset({"str", "str | None", "bool", "bool | None", "tuple[str, ...]", "dict[str, str]"})


def _check_rows(
    kind: type, rows: Sequence[Any], place: _Place, bounds: Bounds | None, wrong: list[str], only: Sequence[str] = ()
) -> None:
    names = tuple(name for name in _columns(kind) if not only or name in only)
    if not rows or not names:
        return
    if isinstance(rows, Records):
        columns: Any = map(rows.column, names)
    else:
        read = attrgetter(*names)
        columns = zip(*map(read, rows), strict=True) if len(names) > 1 else [tuple(map(read, rows))]
    seen: set[int] = set()
    for name, values in zip(names, columns, strict=True):
        if len(rows) == 1 and isinstance(values[0], tuple) and values[0]:
            if id(values[0]) in seen:  # kernels of one shape each: by name and by shape they are one table
                continue
            seen.add(id(values[0]))
        _check_column(kind.__name__, name, values, _field(place, name), bounds, wrong)


def _field(place: _Place, name: str) -> _Place:
    return lambda row: f"{place(row)}.{name}".removeprefix(".")


def _check_column(
    record: str, name: str, values: Values, place: _Place, bounds: Bounds | None, wrong: list[str]
) -> None:
    """A field of some rows: numbers, records, containers of either, or several of these."""
    if not isinstance(values, Sequence):  # an array, all of numbers
        least, most = values.min().item(), values.max().item()
        if not _are_possible(record, name, (least,), least, most, bounds):
            _name_impossible(record, name, values.tolist(), place, bounds, wrong)
        return
    if len(values) >= _MANY and type(values[0]) in (int, float):
        known = _as_numbers(values)
        if known is not None:
            if not _are_possible(record, name, values, known.min().item(), known.max().item(), bounds):
                _name_impossible(record, name, values, place, bounds, wrong)
            return
    if len(values) == 1 and isinstance(values[0], Records):
        if values[0]:
            _check_rows(type(values[0][0]), values[0], _inside(place, values), bounds, wrong)
        return
    types = set(map(type, values))
    if types <= _NEITHER:
        return
    if len(types) == 1 and has(kind := next(iter(types))):
        _check_rows(kind, list(values), place, bounds, wrong)
        return
    if len(values) >= _MANY and type(None) in types and types <= _LISTS | {type(None)}:
        known_rows = [row for row, value in enumerate(values) if value is not None]
        _check_column(record, name, [values[row] for row in known_rows], _chosen(place, known_rows), bounds, wrong)
        return
    if types <= _NUMBERS:
        there = values if None not in values else [value for value in values if value is not None]
        if not _all_possible(record, name, there, bounds):
            _name_impossible(record, name, values, place, bounds, wrong)
        return
    if types <= _LISTS:
        # The passes of a run, the slices of a timeline: millions of numbers, which are not looked at one by one.
        first = next(chain.from_iterable(values), None)
        few: Iterable[Any] = values
        if len(values) >= _MANY and types == {tuple} and type(first) in (int, float):
            few = set(values)  # many launches have few shapes
        flat = list(chain.from_iterable(few))
        inner_types = set(map(type, flat))
        if len(inner_types) == 1 and has(kind := next(iter(inner_types))):
            _check_rows(kind, flat, _inside(place, values), bounds, wrong)
            return
        if inner_types <= _NUMBERS:
            there = flat if None not in flat else [value for value in flat if value is not None]
            if there and not _all_possible(record, name, there, bounds):
                for row, inner in enumerate(values):
                    _check_column(record, name, inner, _item(place, row), bounds, wrong)
            return
    numbers, below, rows = _sorted_out(values)
    if numbers:
        # Those of numpy as Python's, of which there are two kinds.
        own = [int(values[row]) if isinstance(values[row], Integral) else float(values[row]) for row in numbers]
        _check_column(record, name, own, _chosen(place, numbers), bounds, wrong)
    if below:
        own = [value for _, _, value in below]
        _check_column(record, name, own, lambda at: f"{place(below[at][0])}[{below[at][1]}]", bounds, wrong)
    if rows:
        for kind, of_kind, at in _by_class([values[row] for row in rows], _chosen(place, rows)):
            _check_rows(kind, of_kind, at, bounds, wrong)


def _as_numbers(values: Sequence[Any]) -> Any:
    """Values that are all numbers as an array; None: some are not."""
    import numpy as np  # beside a trace it is there; what a run's child writes is no table

    try:
        made = np.array(values)
    except (ValueError, OverflowError):  # containers of several lengths
        return None
    return made if made.ndim == 1 and made.dtype.kind in "if" else None


def _inside(place: _Place, values: Sequence[Sequence[Any]]) -> _Place:
    """Where the members of containers stand, counted through all of them."""

    def where(at: int) -> str:
        for row, inner in enumerate(values):
            if at < len(inner):
                return f"{place(row)}[{at}]"
            at -= len(inner)
        raise IndexError(at)

    return where


def _item(place: _Place, row: int) -> _Place:
    return lambda at: f"{place(row)}[{at}]"


def _sorted_out(values: Sequence[Any]) -> tuple[list[int], list[tuple[int, Any, Any]], list[int]]:
    """Which values are numbers; what is in containers, as (row, key, value); which are records."""
    numbers: list[int] = []
    below: list[tuple[int, Any, Any]] = []
    rows: list[int] = []
    for row, value in enumerate(values):
        if isinstance(value, dict):
            below += [(row, key, inner) for key, inner in value.items()]
        elif isinstance(value, (tuple, list)):
            below += [(row, number, inner) for number, inner in enumerate(value)]
        elif has(type(value)):
            rows.append(row)
        elif type(value) is not bool and isinstance(value, Real):
            numbers.append(row)
    return numbers, below, rows


def _range_of(record: str, name: str, values: Sequence[Any]) -> Range:
    kind = kind_of(record, name, fraction=any(type(value) is float for value in values[:1])) or "any"
    return KINDS[kind]


def _all_possible(record: str, name: str, values: Sequence[Any], bounds: Bounds | None) -> bool:
    least, most = min(values), max(values)
    return _is_number(sum(values)) and _are_possible(record, name, values, least, most, bounds)


def _are_possible(
    record: str, name: str, values: Sequence[Any], least: float, most: float, bounds: Bounds | None
) -> bool:
    """By the least and the greatest of the values, which are NaN if one is."""
    allowed = _range_of(record, name, values)
    if not (allowed.low <= least and most <= allowed.high):
        return False
    bound = bounds.over(record, name) if bounds is not None else None
    return bound is None or most <= bound[1] * (1 + ROUNDING)


def _is_number(value: Any) -> bool:
    return bool(value == value)  # NaN equals nothing, and makes every sum that it is in one


def _name_impossible(
    record: str, name: str, values: Sequence[Any], place: _Place, bounds: Bounds | None, wrong: list[str]
) -> None:
    for row, value in enumerate(values):
        if len(wrong) >= _MOST_HELD:
            return
        if value is None or _all_possible(record, name, [value], bounds):
            continue
        allowed = _range_of(record, name, [value])
        bound = bounds.over(record, name) if bounds is not None else None
        if not _is_number(value) or not allowed.low <= value <= allowed.high or bound is None:
            must = allowed.words if _is_number(value) else "a number"
        else:
            must = f"at most {bound[0]}, {bound[1]:,.0f}"
        wrong.append(f"{place(row)} is {value}, and must be {must}")


_MANY: Final = 1000
"""Rows from which on a column is looked at as an array."""
_NUMBERS: Final = frozenset({int, float, type(None)})
_LISTS: Final = frozenset({tuple, list})
_NEITHER: Final = frozenset({str, bool, bytes, type(None)})
