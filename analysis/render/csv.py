r"""CSV: the one dialect of every table that is written so, ``kernels.csv`` and ``kernel_modules.csv``.

Comma, quotes where needed, ``\n``; a head of keys; unknown is an empty cell, yes and no are ``true`` and ``false``, a
shape is ``1x2x3``. A spreadsheet takes a cell that begins like a formula for one, and a name is the profiled program's own
word: such a text has an apostrophe in front.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

from analysis.domain.files import write_text
from analysis.domain.names import in_a_spreadsheet, visible
from analysis.render.spec import kernels
from analysis.render.spec.specification import Specification
from analysis.report import Report

__all__ = ["render", "write_csv"]

R = TypeVar("R")


def write_csv(spec: Specification[R], rows: Sequence[R], stream: TextIO) -> None:
    """Write rows with a head.

    Args:
        spec: of the rows; its data columns are written.
        rows: in order.
        stream: opened without translation of line ends.
    """
    writer = csv.writer(_Lines(stream), lineterminator="\r\n")
    writer.writerow(spec.keys)
    values = [column.value for column in spec.data]
    writer.writerows([_cell(value(row)) for value in values] for row in rows)


class _Lines:
    r"""Ends lines with ``\n``. The writer quotes only those line ends that it writes itself, and a name may hold ``\r``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> int:
        """Write one line, as the csv module gives it."""
        return self._stream.write(f"{line.removesuffix(chr(13) + chr(10))}\n")


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return in_a_spreadsheet("x".join(map(str, value)))
    if isinstance(value, bool):
        return str(value).lower()
    # A name may hold escape sequences and marks that turn it around, and a CSV is looked at on terminals too.
    return in_a_spreadsheet(visible(value)) if isinstance(value, str) else value


def render(report: Report, out: Path) -> tuple[Path, ...]:
    """Write ``kernels.csv``, with a row per stage, kernel name and launch shape, and ``kernel_modules.csv``.

    Raises:
        RequestError: the folder cannot be written to.
    """
    return (
        write_text(out / "kernels.csv", _text(kernels.KERNELS, report.kernel_shapes)),
        write_text(out / "kernel_modules.csv", _text(kernels.KERNEL_MODULES, report.kernel_modules)),
    )


def _text(spec: Specification[R], rows: Sequence[R]) -> str:
    text = io.StringIO()
    write_csv(spec, rows, text)
    return text.getvalue()
