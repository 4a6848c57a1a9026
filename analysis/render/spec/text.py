"""Numbers and names as people read them: units always, names of others made harmless."""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "NOT_AVAILABLE",
    "bytes_",
    "count",
    "decimal",
    "duration",
    "exact_ms",
    "flop",
    "rate",
    "share",
    "shortened",
    "visible",
]

NOT_AVAILABLE: Final = "n/a"

_INVISIBLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Control characters (ANSI escapes begin with one), marks that turn or hide text, and halves of surrogate pairs."""


def visible(name: str) -> str:
    r"""Show every character of a name: what controls, hides or turns text around is written as ``\x1b``, ``\u202e``."""
    return _INVISIBLE.sub(_escaped, name)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shortened(name: str, limit: int) -> str:
    """A name of at most ``limit`` characters; the middle of a longer one is left out."""
    if len(name) <= limit:
        return name
    head = (limit - 1) * 2 // 3
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


def duration(ns: float | None) -> str:
    """A time in the unit that fits: ``812 ns``, ``3.41 µs``, ``78.3 ms``, ``3.38 s``."""
    if ns is None:
        return NOT_AVAILABLE
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(ns) >= size * 0.9995:
            return f"{_three(ns / size)} {unit}"
    return f"{_three(ns)} ns" if ns != int(ns) else f"{int(ns)} ns"


def _three(value: float) -> str:
    """Three significant digits, no exponent."""
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 or size == 0 else 3
    return f"{value:,.{digits}f}"


def exact_ms(ns: int) -> str:
    """Integer nanoseconds as milliseconds with all six decimals, so that columns add up on paper."""
    whole, rest = divmod(abs(ns), 1_000_000)
    return f"{'-' if ns < 0 else ''}{whole:,}.{rest:06d}"


def decimal(value: float | None, digits: int) -> str:
    """A number with a fixed number of decimals, thousands grouped."""
    return NOT_AVAILABLE if value is None else f"{value:,.{digits}f}"


def count(value: int | None) -> str:
    """A whole number, thousands grouped."""
    return NOT_AVAILABLE if value is None else f"{value:,}"


def share(value: float | None) -> str:
    """A ratio 0–1 as per cent, finer where it is small, so that a small one does not read as none."""
    if value is None:
        return NOT_AVAILABLE
    percent = 100 * value
    if percent == 0:
        return "0 %"
    if abs(percent) < 0.01:
        return f"{percent:.1g} %" if abs(percent) >= 1e-4 else "< 0.0001 %"
    return f"{percent:.1f} %" if abs(percent) >= 1 else f"{percent:.2f} %"


def _prefixed(value: float | None, unit: str) -> str:
    if value is None:
        return NOT_AVAILABLE
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * 0.9995:
            return f"{_three(value / size)} {prefix}{unit}"
    return f"{_three(value)} {unit}"


def bytes_(value: float | None) -> str:
    """Bytes in decimal prefixes (GB = 10⁹)."""
    return _prefixed(value, "B")


def flop(value: float | None) -> str:
    """Operations in decimal prefixes."""
    return _prefixed(value, "FLOP")


def rate(value: float | None, unit: str) -> str:
    """A rate in decimal prefixes, such as ``989 TFLOP/s``."""
    return _prefixed(value, unit)
