"""One table to a stream, as Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO

from analysis.domain.figures import NOT_AVAILABLE
from analysis.render.spec.text import visible

__all__ = ["write_table"]

_MARKUP: Final = re.compile(r"[\\`*]|\[(?=[^\]]*\]\()|(?<!\w)_|_(?!\w)|~~")
"""What could begin code, emphasis, a strike or a link; ``image[0]`` and ``decode_step`` cannot."""


def write_table(rows: Sequence[Mapping[str, Any]], kind: str, stream: TextIO, columns: Sequence[str]) -> None:
    """Write rows that share their keys.

    Args:
        rows: in order.
        kind: ``md``, ``csv`` or ``json``.
        stream: where to.
        columns: keys of every row, in order; the head of a table without rows too.
    """
    if kind == "json":
        json.dump(list(rows), stream, ensure_ascii=False, indent=1, allow_nan=False)
        stream.write("\n")
        return
    if kind == "csv":
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row[column] for column in columns] for row in rows)
        return
    numeric = [column != "name" and all(isinstance(row[column], int | float) for row in rows) for column in columns]
    stream.write("| " + " | ".join(columns) + " |\n")
    stream.write("|" + "|".join("---:" if right else "---" for right in numeric) + "|\n")
    for row in rows:
        stream.write("| " + " | ".join(_cell(row[column]) for column in columns) + " |\n")


def _cell(value: Any) -> str:
    """One Markdown cell: a name cannot end it, open a tag or turn the text around."""
    if value is None:
        return NOT_AVAILABLE
    text = visible(str(value)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
    return _MARKUP.sub(r"\\\g<0>", text)
