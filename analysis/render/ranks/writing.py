"""All files of the combined report: page, Markdown with its picture, JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from analysis.domain.convert import json_text, to_plain
from analysis.domain.files import write_text
from analysis.ranks.records import RanksReport
from analysis.render.json import RANKS_SCHEMA_VERSION

__all__ = ["as_plain", "write_combined"]

_OWN: Final = ("html", "markdown", "json")
"""Formats of the combined report; of the others each rank has its own."""


def as_plain(report: RanksReport) -> dict[str, Any]:
    """``schema_version`` and ``headline``, then the record's fields."""
    return {"schema_version": RANKS_SCHEMA_VERSION, "headline": report.sentence, **to_plain(report)}


def write_combined(report: RanksReport, out: Path, formats: Sequence[str]) -> tuple[Path, ...]:
    """Write the combined report.

    Args:
        report: of the ranks.
        out: folder; made if it is missing.
        formats: asked for; without one of its own it is written as JSON.

    Raises:
        RequestError: the folder cannot be written to.
    """
    chosen = [name for name in _OWN if name in formats] or ["json"]
    written: list[Path] = []
    if "html" in chosen:
        from analysis.render.ranks.page import write_page

        written.append(write_page(report, out, linked="report.html"))
    if "markdown" in chosen:
        from analysis.render.ranks.markdown import write_markdown

        written += write_markdown(report, out, linked="report.md")
    if "json" in chosen:
        whole = json_text(as_plain(report))
        written.append(write_text(out / "report.json", whole + "\n"))
    return tuple(written)
