"""One table to a stream for programs and pipes: keys as heads, numbers unrounded – as Markdown, CSV or JSON."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, TextIO, TypeVar

from analysis.domain.convert import json_text
from analysis.domain.figures import NOT_AVAILABLE
from analysis.render.csv import write_csv
from analysis.render.markdown_tables import code, escaped, head_lines, row_line
from analysis.render.spec.specification import Column, Specification
from analysis.render.spec.text import visible

__all__ = ["json_rows", "write_table"]

R = TypeVar("R")


def json_rows(spec: Specification[R], rows: Sequence[R]) -> list[dict[str, Any]]:
    """Rows as JSON holds them: key → number, text, true or false, [x, y, z]; None where a value is unknown."""
    values = [(column.key, column.value) for column in spec.data]
    return [{key: _plain(value(row)) for key, value in values} for row in rows]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def write_table(spec: Specification[R], rows: Sequence[R], kind: str, stream: TextIO) -> None:
    """Write rows by their declaration.

    Args:
        spec: of the rows.
        rows: in order.
        kind: ``markdown`` (or ``md``), ``csv`` or ``json``.
        stream: where to.
    """
    if kind == "json":
        text = json_text(json_rows(spec, rows), indent=1)
        stream.write(f"{text}\n")
    elif kind == "csv" and stream.isatty():
        # A terminal obeys control characters, and names are the profiled program's own words.
        shown = io.StringIO(newline="")
        write_csv(spec, rows, shown)
        stream.write("\n".join(map(visible, shown.getvalue().split("\n"))))
    elif kind == "csv":
        write_csv(spec, rows, stream)
    else:
        lines = head_lines([(column.key, column.style.align) for column in spec.data])
        lines += [row_line(_cell(column, column.value(row)) for column in spec.data) for row in rows]
        stream.write("\n".join(lines) + "\n")


def _cell(column: Column[Any], value: Any) -> str:
    if value is None:
        return NOT_AVAILABLE
    if column.type == "string":
        text = visible(value)
        return code(text) if column.style.code else escaped(text)
    return column.style(value) if column.type in ("shape", "bool") else str(value)
