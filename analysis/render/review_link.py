"""The links between ``report.html`` and ``review.html`` beside it, whichever of the two is written first."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from analysis.domain.files import write_text

__all__ = ["REPORT_PAGE", "REVIEW_PAGE", "link_from_report", "link_from_review", "report_link", "review_link"]

REPORT_PAGE: Final = "report.html"
REVIEW_PAGE: Final = "review.html"
_PLACES: Final = {REPORT_PAGE: "<!-- report -->", REVIEW_PAGE: "<!-- review -->"}
"""Where a page that was written before the other has the place for the link to it."""
_LINKS: Final = {
    REPORT_PAGE: f'<a href="{REPORT_PAGE}">Report</a>',
    REVIEW_PAGE: f'<a href="{REVIEW_PAGE}">Kernel review</a>',
}


def review_link(folder: Path | None) -> str:
    """What a report in a folder shows: the link if a review lies there, else the place for it."""
    return _link(REVIEW_PAGE, folder)


def report_link(folder: Path | None) -> str:
    """What a review in a folder shows: the link if a report lies there, else the place for it."""
    return _link(REPORT_PAGE, folder)


def link_from_report(folder: Path) -> bool:
    """Put the link into the report that lies in a folder; nothing else of it changes.

    Returns:
        Whether a report was changed: there is none, it has the link already, or it is of a version without a place for it.

    Raises:
        RequestError: the report cannot be written.
    """
    return _put(folder / REPORT_PAGE, REVIEW_PAGE)


def link_from_review(folder: Path) -> bool:
    """The same for the review that lies in a folder."""
    return _put(folder / REVIEW_PAGE, REPORT_PAGE)


def _link(to: str, folder: Path | None) -> str:
    return _LINKS[to] if folder is not None and (folder / to).is_file() else _PLACES[to]


def _put(page: Path, to: str) -> bool:
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    if _PLACES[to] not in text:
        return False
    write_text(page, text.replace(_PLACES[to], _LINKS[to], 1))
    return True
