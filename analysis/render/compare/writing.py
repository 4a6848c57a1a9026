"""All files of a comparison: page, Markdown, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from analysis.compare.records import Diff
from analysis.domain.convert import to_plain
from analysis.domain.errors import RequestError
from analysis.domain.files import write_text
from analysis.render.json import DIFF_SCHEMA_VERSION

__all__ = ["DIFF_FORMATS", "as_plain", "check_formats", "write_diff"]


def as_plain(diff: Diff) -> dict[str, Any]:
    """``schema_version``, then the record's fields."""
    return {"schema_version": DIFF_SCHEMA_VERSION, **to_plain(diff)}


def _json(diff: Diff, out: Path) -> Path:
    whole = json.dumps(as_plain(diff), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return write_text(out / "diff.json", whole + "\n")


def _module(name: str, function: str) -> Callable[[Diff, Path], Path]:
    def write(diff: Diff, out: Path) -> Path:
        written: Path = getattr(import_module(f"analysis.render.compare.{name}"), function)(diff, out)
        return written

    return write


_WRITERS: Final[dict[str, Callable[[Diff, Path], Path]]] = {
    name: writer
    for name, module, writer in (
        ("html", "page", _module("page", "write_page")),
        ("markdown", "markdown", _module("markdown", "write_markdown")),
        ("json", None, _json),
    )
    if module is None or find_spec(f"analysis.render.compare.{module}") is not None
}
"""Format → what writes it; imported when it is asked for."""

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
