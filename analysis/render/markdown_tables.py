"""Names and tables of others as Markdown: nothing in a name formats, links, mentions, or ends its cell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from analysis.domain.figures import count
from analysis.render.spec.shown import Cell, Table
from analysis.render.spec.specification import Align
from analysis.render.spec.text import shortened

__all__ = ["code", "escaped", "head_lines", "row_line", "table_lines"]

_NAME: Final = 160
"""Characters of a name; kernels.parquet and report.json hold whole names."""
_SENTENCE: Final = 480
"""Characters of other cells: definitions and reasons are whole, what a program put into one ends somewhere."""

_SPECIAL: Final = re.compile(
    r"(?P<html>[<>&@])|(?P<mark>[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))|(?P<link>://|\bwww\.)", re.IGNORECASE
)


def escaped(text: str) -> str:
    """A text of others for Markdown: nothing in it formats, links, mentions, or begins HTML."""
    return _SPECIAL.sub(_harmless, text)


def _harmless(match: re.Match[str]) -> str:
    return f"\\{match[0]}" if match["mark"] else _entities(match[0])


def _entities(text: str) -> str:
    return "".join(f"&#{ord(character)};" for character in text)


def code(text: str) -> str:
    """Inline code in a table cell; with backticks in it, as HTML whose every special character is an entity."""
    if not text.strip() or text != text.strip() or "`" in text or text.endswith("\\") or "\\|" in text:
        return f"<code>{re.sub(r'[^A-Za-z0-9 ]', lambda match: _entities(match[0]), text)}</code>"
    return "`" + text.replace("|", "\\|") + "`"


def row_line(cells: Iterable[str]) -> str:
    """One line of a table, from cells that are Markdown."""
    return f"| {' | '.join(cells)} |"


def head_lines(headings: Sequence[tuple[str, Align]]) -> list[str]:
    """The first two lines of a table: headings, which are plain text, and alignments."""
    return [
        row_line(escaped(text) for text, _ in headings),
        f"|{'|'.join('---:' if align == 'right' else '---' for _, align in headings)}|",
    ]


def table_lines(table: Table, limit: int | None = None) -> list[str]:
    """A table as Markdown, with its note; rows after ``limit`` are counted."""
    lines = head_lines([(heading.text, heading.align) for heading in table.columns])
    lines += [row_line(map(_cell, row)) for row in table.rows[:limit]]
    if limit is not None and len(table.rows) > limit:
        rest = f"*{count(len(table.rows) - limit)} more rows are in report.json*"
        lines.append(row_line([rest, *([""] * (len(table.columns) - 1))]))
    if table.total is not None:
        lines.append(row_line(f"**{_cell(cell)}**" if cell.text else "" for cell in table.total))
    return [*lines, "", *([escaped(table.note), ""] if table.note else [])]


def _cell(cell: Cell) -> str:
    return code(shortened(cell.text, _NAME)) if cell.code else escaped(shortened(cell.text, _SENTENCE))
