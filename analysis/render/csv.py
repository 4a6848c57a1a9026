"""``kernels.csv``: the columns of ``kernels.parquet`` as text, units in the names, grids as ``1x2x3``."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Final

from analysis.domain.files import write_text
from analysis.render.parquet import SCHEMA
from analysis.report import Report

__all__ = ["render"]

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell that begins so for a formula, and a name is the profiled program's own word."""


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def render(report: Report, out: Path) -> tuple[Path, ...]:
    """Write ``kernels.csv``. Unknown is an empty cell.

    Raises:
        RequestError: the folder cannot be written to.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [one.name for one in SCHEMA]
    writer.writerow(names)
    for kernel in report.kernels:
        writer.writerow([_cell(getattr(kernel, name)) for name in names])
    return (write_text(out / "kernels.csv", text.getvalue()),)
