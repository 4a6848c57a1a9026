"""All files of a review, and the link to it from the report that lies beside it."""

from __future__ import annotations

from pathlib import Path

from analysis.render.review.data import write_json, write_parquet
from analysis.render.review.markdown import write_markdown
from analysis.render.review.page import write_page
from analysis.render.review_link import link_from_report
from analysis.report import Report
from analysis.review import Review

__all__ = ["write_review"]


def write_review(review: Review, report: Report, out: Path) -> tuple[Path, ...]:
    """Write ``review.html``, ``review.md`` with its pictures, ``review.json`` and ``counters.parquet``.

    A ``report.html`` beside them gets a link to the review.

    Returns:
        The files, the page first.

    Raises:
        RequestError: the folder cannot be written to.
    """
    written = (
        write_page(review, report, out),
        *write_markdown(review, report, out),
        write_json(review, out),
        write_parquet(review, out),
    )
    link_from_report(out)
    return written
