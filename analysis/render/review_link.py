"""The link from ``report.html`` to ``review.html`` beside it, whichever of the two is written first."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from analysis.domain.files import write_text

__all__ = ["REVIEW_PAGE", "link_from_report", "review_link"]

REVIEW_PAGE: Final = "review.html"
_PLACE: Final = "<!-- review -->"
"""Where a report that was written before its review has the place for the link."""
_LINK: Final = f'<a href="{REVIEW_PAGE}">Kernel review</a>'


def review_link(folder: Path | None) -> str:
    """What a report in a folder shows: the link if a review lies there, else the place for it."""
    return _LINK if folder is not None and (folder / REVIEW_PAGE).is_file() else _PLACE


def link_from_report(folder: Path) -> bool:
    """Put the link into the report that lies in a folder; nothing else of it changes.

    Returns:
        Whether a report was changed: there is none, it has the link already, or it is of a version without a place for it.

    Raises:
        RequestError: the report cannot be written.
    """
    page = folder / "report.html"
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    if _PLACE not in text:
        return False
    write_text(page, text.replace(_PLACE, _LINK, 1))
    return True
