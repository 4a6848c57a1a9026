"""Cells of the report's tables: how each kind of value is written and what it is sorted by."""

from __future__ import annotations

from analysis.domain.figures import NOT_AVAILABLE, count, duration, exact_ms, share
from analysis.render.spec.model import Cell
from analysis.render.spec.text import visible

__all__ = ["count_cell", "ms_cell", "name_cell", "share_cell", "time_cell"]


def name_cell(text: str, *, code: bool = True) -> Cell:
    """A name of others, made visible."""
    return Cell(visible(text), sort=text, code=code)


def count_cell(value: int | None) -> Cell:
    """A whole number."""
    return Cell(count(value), sort=value)


def ms_cell(ns: int | None) -> Cell:
    """Integer nanoseconds as exact milliseconds."""
    return Cell(NOT_AVAILABLE if ns is None else exact_ms(ns), sort=ns)


def share_cell(value: float | None) -> Cell:
    """A ratio as per cent."""
    return Cell(share(value), sort=value)


def time_cell(ns: float | None) -> Cell:
    """A time in the unit that fits."""
    return Cell(duration(ns), sort=ns)
