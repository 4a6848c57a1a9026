"""All files of a comparison: page, Markdown, JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from analysis.compare.records import Diff
from analysis.domain.convert import json_text, to_plain
from analysis.domain.errors import RequestError
from analysis.domain.files import write_text
from analysis.render.json import DIFF_SCHEMA_VERSION

__all__ = ["DIFF_FORMATS", "as_plain", "check_formats", "write_diff"]


def as_plain(diff: Diff) -> dict[str, Any]:
    """``schema_version``, then the record's fields."""
    return {"schema_version": DIFF_SCHEMA_VERSION, **to_plain(diff)}


def _json(diff: Diff, out: Path) -> Path:
    whole = json_text(as_plain(diff))
    return write_text(out / "diff.json", whole + "\n")


def _page(diff: Diff, out: Path) -> Path:
    from analysis.render.compare.page import write_page  # templates take a while to load, and JSON needs none

    return write_page(diff, out)


def _markdown(diff: Diff, out: Path) -> Path:
    from analysis.render.compare.markdown import write_markdown

    return write_markdown(diff, out)


_WRITERS: Final[dict[str, Callable[[Diff, Path], Path]]] = {"html": _page, "markdown": _markdown, "json": _json}
"""Format → what writes it."""

DIFF_FORMATS: Final = tuple(_WRITERS)
"""Written by default."""


def check_formats(formats: Sequence[str] | None) -> tuple[str, ...]:
    """The formats to write.

    Raises:
        RequestError: one is unknown; names those that there are.
    """
    for name in formats or ():
        if name not in _WRITERS:
            raise RequestError(f"unknown format {name!r} of a comparison: choose from {', '.join(DIFF_FORMATS)}")
    return tuple(dict.fromkeys(formats or DIFF_FORMATS))


def write_diff(diff: Diff, out: Path, formats: Sequence[str] | None = None) -> tuple[Path, ...]:
    """Write a comparison.

    Args:
        diff: to write.
        out: folder; made if it is missing.
        formats: None or empty: `DIFF_FORMATS`.

    Raises:
        RequestError: a format is unknown, or the folder cannot be written to.
    """
    return tuple(_WRITERS[name](diff, out) for name in check_formats(formats))
