"""How a number is written for people: times, shares, counts, operations, bytes – units always.

One definition for the terminal, Markdown, the page (``figures.js`` follows the same rules; a test compares them), notes and
verdicts. What is unknown is ``n/a``. Where two figures and their difference, or a part and its whole, stand side by side,
`change`, `difference`, `fall`, `ledger`, `part_of`, `reached`, `together` and `whole_per_cents` write them so that what is
shown can be recalculated from what is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Final

from attrs import frozen

from analysis.domain.measures import ROUNDING

__all__ = [
    "NOT_AVAILABLE",
    "Change",
    "Difference",
    "Fall",
    "Ledger",
    "Part",
    "Reached",
    "Together",
    "bytes_",
    "change",
    "count",
    "counted",
    "decimal",
    "difference",
    "duration",
    "exact_ms",
    "fall",
    "flop",
    "ledger",
    "microseconds",
    "of_peak",
    "part_of",
    "rate",
    "ratio",
    "reached",
    "share",
    "signed_duration",
    "signed_ratio",
    "significant",
    "times",
    "together",
    "whole_per_cents",
]

NOT_AVAILABLE: Final = "n/a"

_TIME_UNITS: Final = (("s", 1e9, 9), ("ms", 1e6, 6), ("µs", 1e3, 3))
"""Unit, its nanoseconds, and the decimals with which it is exact to the nanosecond."""
_NEXT_UNIT: Final = 0.9995
"""From this part of a unit on a value rounds to 1.00 of it, and is written in it."""
_DIGITS: Final = ((99.95, 0), (9.995, 1), (_NEXT_UNIT, 2), (0.09995, 3), (0.009995, 4), (0.0009995, 5))
"""From this size on, so many decimals give three significant digits."""
_LEAST: Final = 1e-6
"""What is smaller, and not 0, is said to be smaller than this."""
_MOST_DIGITS: Final = 5
"""Significant digits of the largest of several figures that are written together."""


def decimal(value: float | None, digits: int) -> str:
    """A number with a fixed number of decimals, thousands grouped; a tie goes to the even digit."""
    return NOT_AVAILABLE if value is None else f"{value:,.{digits}f}"


def count(value: int | None) -> str:
    """A whole number, thousands grouped."""
    return NOT_AVAILABLE if value is None else f"{value:,}"


def counted(number: int, singular: str, several: str | None = None) -> str:
    """So many of a thing: ``1 launch``, ``5 launches``; the plural takes an ``s`` unless ``several`` gives it."""
    return f"{count(number)} {singular if number == 1 else several or f'{singular}s'}"


def significant(value: float | None) -> str:
    """Three significant digits, no exponent, six decimals at most: ``1,240``, ``78.3``, ``0.125``, ``0.00379``."""
    if value is None:
        return NOT_AVAILABLE
    size = abs(value)
    if 0 < size < _LEAST:
        return f"< {_LEAST:.6f}" if value > 0 else f"> -{_LEAST:.6f}"
    digits = 2 if size == 0 else next((digits for least, digits in _DIGITS if size >= least), 6)
    return f"{value:,.{digits}f}"


def duration(ns: float | None) -> str:
    """A time in the unit that fits: ``812 ns``, ``3.41 µs``, ``78.3 ms``, ``3.38 s``."""
    if ns is None:
        return NOT_AVAILABLE
    unit, size, _ = _time_unit(ns)
    if unit == "ns" and ns == int(ns):
        return f"{int(ns)} ns"
    return f"{significant(ns / size)} {unit}"


def signed_duration(ns: float | None) -> str:
    """A difference of times, its sign always there: ``+3.41 µs``, ``−78.3 ms``, ``0 ns``."""
    return NOT_AVAILABLE if ns is None else _signed(duration(ns))


def signed_ratio(value: float | None) -> str:
    """A relative difference, its sign always there: ``+4.4 %``, ``−87.5 %``, ``0 %``."""
    return NOT_AVAILABLE if value is None else _signed(ratio(value))


def _signed(written: str) -> str:
    """A number as written, with a plus or a minus sign in front; nothing is neither."""
    if written.startswith("-"):
        return f"−{written[1:]}"
    return f"+{written}" if any(digit in written.partition(" ")[0] for digit in "123456789") else written


def _time_unit(ns: float) -> tuple[str, float, int]:
    return next((unit for unit in _TIME_UNITS if abs(ns) >= unit[1] * _NEXT_UNIT), ("ns", 1.0, 0))


def _sum_unit(ns: float) -> tuple[str, float, int]:
    """The unit of a sum whose parts may be far smaller: seconds from 100 s on, milliseconds below."""
    unit = _time_unit(ns)
    return _TIME_UNITS[1] if unit[0] == "s" and ns < 100 * unit[1] else unit


def exact_ms(ns: int | None) -> str:
    """Integer nanoseconds as milliseconds with all six decimals, so that columns add up on paper. Without the unit."""
    if ns is None:
        return NOT_AVAILABLE
    whole, rest = divmod(abs(ns), 1_000_000)
    return f"{'-' if ns < 0 else ''}{whole:,}.{rest:06d}"


def microseconds(ns: float | None) -> str:
    """Nanoseconds as microseconds with two decimals. Without the unit."""
    return NOT_AVAILABLE if ns is None else decimal(ns / 1e3, 2)


def ratio(value: float | None) -> str:
    """A ratio as per cent, finer where it is small, so that a small one does not read as none. It may exceed 100 %."""
    if value is None:
        return NOT_AVAILABLE
    percent = 100 * value
    if percent == 0:
        return "0 %"
    if abs(percent) < 0.01:
        return f"{percent:.1g} %" if abs(percent) >= 1e-4 else "< 0.0001 %"
    return f"{percent:,.1f} %" if abs(percent) >= 1 else f"{percent:.2f} %"


def of_peak(value: float | None) -> str:
    """MFU, MBU: what a device did of what it can do, as `ratio` writes it; more than that is marked, for an input is wrong."""
    return f"{ratio(value)} (above peak)" if value is not None and value > 1 + ROUNDING else ratio(value)


def share(value: float | None) -> str:
    """The share of a part in its whole, as `ratio` writes it, never above 100 %.

    A part is measured by another clock than its whole now and then: the GPU works on when the host has left a stage, so
    that busy ÷ elapsed exceeds 1. The stage's whole time was busy then, and the data files keep both figures.
    """
    return NOT_AVAILABLE if value is None else ratio(min(1.0, value))


def times(value: float | None, digits: int = 2) -> str:
    """A factor: ``1.38 ×``."""
    return NOT_AVAILABLE if value is None else f"{decimal(value, digits)} ×"


def _prefixed(value: float | None, unit: str) -> str:
    if value is None:
        return NOT_AVAILABLE
    if value == 0:
        return f"0 {unit}"
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * _NEXT_UNIT:
            return f"{significant(value / size)} {prefix}{unit}"
    return f"{significant(value)} {unit}"


def bytes_(value: float | None) -> str:
    """Bytes in decimal prefixes (GB = 10⁹)."""
    return _prefixed(value, "B")


def flop(value: float | None) -> str:
    """Operations in decimal prefixes."""
    return _prefixed(value, "FLOP")


def rate(value: float | None, unit: str) -> str:
    """A rate in decimal prefixes, such as ``989 TFLOP/s``."""
    return _prefixed(value, unit)


# --- several figures side by side -------------------------------------------------------------------------------


@frozen
class Difference:
    """Two times and what is left of the first without the second, in one unit and with the same decimals."""

    whole: str
    part: str
    rest: str
    """The difference of the two as they are written, which may be one last digit off the exact one."""


def difference(whole_ns: float, part_ns: float) -> Difference:
    """Write ``whole − part = rest`` so that it holds as written: ``2.02 ms``, ``0.46 ms``, ``1.56 ms``.

    The unit is that of the larger time. There are as many decimals as give it three significant digits and the smallest
    of the three two, within five significant digits of the largest and one nanosecond.

    Args:
        whole_ns: minuend.
        part_ns: subtrahend; may be larger than ``whole_ns``, and the rest is negative then.
    """
    largest = max(abs(whole_ns), abs(part_ns))
    unit, size, exact = _time_unit(largest)
    smallest = min((value for value in (abs(whole_ns), abs(part_ns), abs(whole_ns - part_ns)) if value), default=0.0)
    digits = min(
        max(_decimals(largest / size, 3), _decimals(smallest / size, 2)), _decimals(largest / size, _MOST_DIGITS), exact
    )
    whole, part = round(whole_ns / size, digits), round(part_ns / size, digits)
    written = [f"{value:,.{digits}f} {unit}" for value in (whole, part, round(whole - part, digits) + 0.0)]
    return Difference(*written)


def _decimals(value: float, digits: int) -> int:
    """Decimals that give a value so many significant digits."""
    if not value:
        return 0
    before = int(f"{abs(value):.{digits - 1}e}".partition("e")[2]) + 1
    return max(0, digits - before)


@frozen
class Part:
    """A part, its whole, and its share."""

    part: str
    whole: str
    share: str


def part_of(part_ns: float, whole_ns: float) -> Part:
    """Write ``part of whole = share`` so that dividing the two times as they are written gives the share as written.

    Both times have one unit. The share is the exact one (see `share`); the times have as many decimals, from three
    significant digits on, as the division needs. A share of nothing is ``n/a``.
    """
    largest = max(abs(part_ns), abs(whole_ns))
    unit, size, exact = _time_unit(largest)
    shown = share(part_ns / whole_ns if whole_ns else None)
    digits = _decimals(largest / size, 3)
    while digits < exact:
        part, whole = round(part_ns / size, digits), round(whole_ns / size, digits)
        if not whole_ns or (whole and share(part / whole) == shown):
            break
        digits += 1
    return Part(f"{part_ns / size:,.{digits}f} {unit}", f"{whole_ns / size:,.{digits}f} {unit}", shown)


@frozen
class Fall:
    """A time, what is left of it, and by how much that is less."""

    before: str
    """Without its unit: ``1,790``."""
    after: str
    """With the unit of both: ``254 ms``."""
    per_cent: str
    """``−86 %``, of the two times as they are written."""


def fall(before_ns: float, after_ns: float) -> Fall:
    """Write ``before → after (−per cent)`` so that it holds as written: ``1,790``, ``254 ms``, ``−86 %``.

    Both times have one unit, and as many decimals as the per cents need, from three significant digits of the first and two
    of the second on. The per cents are whole from 1 % on.

    Args:
        before_ns: the time, more than 0.
        after_ns: what is left of it, at most as much.
    """
    unit, size, exact = _sum_unit(before_ns)
    digits = min(exact, max(_decimals(before_ns / size, 3), _decimals(after_ns / size, 2)))
    lost = 1 - after_ns / before_ns if before_ns else 0.0
    places = 0 if 0.01 <= lost < 0.995 or not after_ns else 1
    shown = f"{100 * lost:.{places}f}"
    while digits < exact:
        before, after = round(before_ns / size, digits), round(after_ns / size, digits)
        if before and f"{100 * (1 - after / before):.{places}f}" == shown:
            break
        digits += 1
    per_cent = f"−{shown} %" if float(shown) else "under −0.1 %" if lost else "0 %"
    return Fall(f"{before_ns / size:,.{digits}f}", f"{after_ns / size:,.{digits}f} {unit}", per_cent)


@frozen
class Change:
    """A time before and after, and by how much it changed."""

    before: str
    """Without its unit: ``16.91``."""
    after: str
    """With the unit of both: ``12.58 ms``."""
    by: str
    """With its sign: ``−4.33 ms``."""
    relative: str
    """``−26 %``, ``+3.1 %``; where it more than doubled the factor, ``2.40 ×``. Of the two times as they are written."""


_DOUBLED: Final = 2.0


def change(before_ns: float, after_ns: float) -> Change:
    """Write ``before → after, by so much`` so that it holds as written.

    Both times have one unit. There are as many decimals, from three significant digits of both and two of the difference on,
    as the per cents need, within five significant digits of the larger and one nanosecond.

    Args:
        before_ns: of the base.
        after_ns: of the new one.
    """
    largest = max(abs(before_ns), abs(after_ns))
    unit, size, exact = _sum_unit(largest)
    most = min(exact, max(_decimals(largest / size, 3), _decimals(largest / size, _MOST_DIGITS)))
    smaller = min((abs(value) for value in (before_ns, after_ns) if value), default=0.0)
    digits = min(most, max(_decimals(smaller / size, 3), _decimals((after_ns - before_ns) / size, 2)))
    relative = _relative(before_ns, after_ns)
    while digits < most and _relative(round(before_ns / size, digits), round(after_ns / size, digits)) != relative:
        digits += 1
    before, after = round(before_ns / size, digits), round(after_ns / size, digits)
    by = round(after - before, digits) + 0.0
    return Change(
        f"{before:,.{digits}f}",
        f"{after:,.{digits}f} {unit}",
        _signed(f"{by:,.{digits}f} {unit}"),
        _relative(before, after),
    )


def _relative(before: float, after: float) -> str:
    """By how much more or less, of the first."""
    if not before:
        return NOT_AVAILABLE if after else "0 %"
    if after / before >= _DOUBLED:
        return times(after / before)
    per_cent = 100 * (after / before - 1)
    size = abs(per_cent)
    return _signed(f"{per_cent:.{0 if size >= 9.95 else 1 if size >= 0.095 or not size else 2}f} %") if size else "0 %"


@frozen
class Ledger:
    """Times before and after, row by row, and their differences, in one unit and with the same decimals."""

    unit: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    by: tuple[str, ...]
    """``after − before`` of each row, as these are written, with its sign."""
    total: tuple[str, str, str]
    """Sums of the three columns as they are written."""


def ledger(before_ns: Sequence[float], after_ns: Sequence[float]) -> Ledger:
    """Write rows ``before, after, difference`` so that they and their columns add up as written. Without the unit.

    There are as many decimals as give the largest sum three significant digits and the smallest difference two, within five
    significant digits of the sum. The two columns are rounded so that they add up (largest remainders are rounded up); a
    difference is that of the two as they are written. So a difference that is exact may be one last digit off.

    Args:
        before_ns: of the base, one a row; negative where something is taken off.
        after_ns: of the new one.
    """
    sums = (sum(before_ns), sum(after_ns))
    largest = max(map(abs, (*sums, *before_ns, *after_ns)), default=0.0)
    unit, size, exact = _sum_unit(largest)
    moved = [abs(after - before) for before, after in zip(before_ns, after_ns, strict=True)]
    smallest = min((value for value in moved if value > largest / 10**_MOST_DIGITS), default=largest / 10**_MOST_DIGITS)
    digits = min(
        exact,
        max(_decimals(largest / size, 3), min(_decimals(smallest / size, 2), _decimals(largest / size, _MOST_DIGITS))),
    )
    step = size / 10**digits
    before, after = _in_steps(before_ns, step), _in_steps(after_ns, step)
    by = [new - old for old, new in zip(before, after, strict=True)]

    def written(steps: int) -> str:
        return f"{'−' if steps < 0 else ''}{abs(steps) / 10**digits:,.{digits}f}"

    def difference_of(steps: int) -> str:
        return f"{'+' if steps > 0 else ''}{written(steps)}"

    return Ledger(
        unit,
        tuple(map(written, before)),
        tuple(map(written, after)),
        tuple(map(difference_of, by)),
        (written(sum(before)), written(sum(after)), difference_of(sum(by))),
    )


def _in_steps(values: Sequence[float], step: float) -> list[int]:
    """Values in whole steps that add up to their sum in whole steps: largest remainders are rounded up."""
    floors = [math.floor(value / step) for value in values]
    missing = round(sum(values) / step) - sum(floors)
    for place in sorted(range(len(floors)), key=lambda place: floors[place] - values[place] / step)[:missing]:
        floors[place] += 1
    return floors


@frozen
class Reached:
    """A time, what could be left of it at best, what was left of it, and how much of that gain this is."""

    was: str
    """Without its unit, which is that of the others: ``22.57``."""
    best: str
    came: str
    """Both with the unit: ``2.58 ms``, ``2.74 ms``."""
    share: str
    """``99 %`` of the gain, of the times as they are written."""


def reached(was_ns: float, best_ns: float, came_ns: float) -> Reached:
    """Write ``was → best`` and ``came`` so that the share of the gain that was reached holds as written.

    All times have one unit, and as many decimals, from three significant digits on, within four of the first, as
    the share needs and as it takes to show which of two different times is the smaller one.

    Args:
        was_ns: the time, more than 0.
        best_ns: what could be left of it at best.
        came_ns: what was left of it.
    """
    times_ns = (was_ns, best_ns, came_ns)
    unit, size, exact = _sum_unit(max(times_ns))
    smallest = min((value for value in times_ns if value), default=was_ns)
    digits = min(
        exact, max(_decimals(was_ns / size, 3), min(_decimals(smallest / size, 3), _decimals(was_ns / size, 4)))
    )
    gain = was_ns - best_ns
    shown = f"{100 * (was_ns - came_ns) / gain:.0f} %" if gain else NOT_AVAILABLE
    order = [(first < second) - (first > second) for first, second in combinations(times_ns, 2)]
    while digits < exact:
        was, best, came = rounded = tuple(round(value / size, digits) for value in times_ns)
        alike = not gain or (was != best and f"{100 * (was - came) / (was - best):.0f} %" == shown)
        if alike and order == [(first < second) - (first > second) for first, second in combinations(rounded, 2)]:
            break
        digits += 1
    written = [f"{value / size:,.{digits}f}" for value in times_ns]
    return Reached(written[0], f"{written[1]} {unit}", f"{written[2]} {unit}", shown.replace("-0 %", "0 %"))


@frozen
class Together:
    """Times and their sum, in one unit."""

    whole: str
    parts: tuple[str, ...]


def together(parts_ns: Sequence[float]) -> Together:
    """Write times so that they add up to their sum as written (largest remainders are rounded up).

    The sum has at least three significant digits, and so many decimals that no part is written as 0, within five.
    """
    total = sum(parts_ns)
    unit, size, exact = _sum_unit(total)
    smallest = min((value for value in parts_ns if value), default=total)
    digits = min(exact, max(_decimals(total / size, 3), min(_decimals(smallest / size, 1), _decimals(total / size, 5))))
    step = size / 10**digits
    floors = [int(value // step) for value in parts_ns]
    missing = round(total / step) - sum(floors)
    for place in sorted(range(len(floors)), key=lambda place: -(parts_ns[place] / step - floors[place]))[:missing]:
        floors[place] += 1
    return Together(
        f"{sum(floors) / 10**digits:,.{digits}f} {unit}",
        tuple(f"{steps / 10**digits:,.{digits}f} {unit}" for steps in floors),
    )


def whole_per_cents(parts: Sequence[float]) -> tuple[str, ...]:
    """Shares of the parts in their sum as whole per cents that add up to 100 % (largest remainders are rounded up).

    Returns:
        One text for each part; ``n/a`` for all where they add up to nothing.
    """
    total = sum(parts)
    if not total:
        return tuple(NOT_AVAILABLE for _ in parts)
    exact = [100 * part / total for part in parts]
    whole = [int(value) for value in exact]
    missing = 100 - sum(whole)
    for place in sorted(range(len(parts)), key=lambda place: whole[place] - exact[place])[:missing]:
        whole[place] += 1
    return tuple(f"{value} %" for value in whole)
