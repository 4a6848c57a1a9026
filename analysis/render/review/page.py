"""``review.html``: one file in the look of report.html that opens from disk, reaches for nothing and runs no script."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from analysis.domain.figures import count, rate
from analysis.domain.files import write_text
from analysis.render.html.environment import SHARED_TEMPLATES, page_environment
from analysis.render.review import contents, pictures
from analysis.render.review_link import REVIEW_PAGE
from analysis.render.spec import facts
from analysis.render.spec.review import LOSSES, REVIEW_KERNELS, REVIEW_MODULES, TRAFFIC, kernel_lines
from analysis.render.spec.text import visible
from analysis.report import Report
from analysis.review import Review, StageReview

__all__ = ["page", "write_page"]

_HERE: Final = Path(__file__).parent
_CSS: Final = SHARED_TEMPLATES.parent / "assets" / "report.css"
_RANKED: Final = 100
"""Rows of the ranking on the page; all are in counters.parquet."""


def write_page(review: Review, report: Report, out: Path) -> Path:
    """Write ``review.html``.

    Raises:
        RequestError: the folder cannot be written to.
    """
    return write_text(out / REVIEW_PAGE, page(review, report, has_report=(out / "report.html").is_file()))


def page(review: Review, report: Report, *, has_report: bool = False) -> str:
    """The page as text.

    Args:
        review: to show.
        report: of the same trace.
        has_report: whether report.html lies beside it, to be linked.
    """
    environment = page_environment(_HERE / "templates", SHARED_TEMPLATES)
    roofline = pictures.roofline_picture(kernel_lines(review, review.ranked()), review.peak, _dtype(report))
    peak = review.peak
    return environment.get_template("review.html.j2").render(
        title=facts.title(report),
        subject=(*facts.subject(report), contents.peaks(review)),
        cautions=facts.cautions(report),
        tiles=contents.coverage_tiles(review),
        stages=[_stage(review, one) for one in review.stages],
        roofline=Markup(roofline) if roofline else None,
        roofline_note=(
            f"Roofs: {rate(peak.bytes_per_s, 'B/s')} DRAM and the dense peaks of {visible(peak.device_name)}, {peak.how}."
            if peak
            else ""
        ),
        ranking=contents.ranking(review, "html", _RANKED),
        unweighed=contents.kernels(review, "html", _RANKED),
        coverage=contents.coverage(review, "html"),
        files=contents.files(review, "html"),
        unmatched=contents.unmatched(review),
        remarks=[visible(one) for one in review.remarks],
        terms=_terms(),
        style=Markup(_CSS.read_text(encoding="utf-8")),
        picture_style=Markup(pictures.STYLE_OF_A_PAGE),
        has_report=has_report,
        count=count,
    )


def _dtype(report: Report) -> str:
    return report.report.model.dtype if report.report.model is not None else "bf16"


def _stage(review: Review, stage: StageReview) -> dict[str, Any]:
    picture = pictures.waterfall_picture(stage.waterfall)
    return {
        "name": stage.stage,
        "lead": contents.lead(stage),
        "picture": Markup(picture) if picture else None,
        "losses": contents.losses(stage, "html"),
        "merged": stage.waterfall.merged_because,
        "traffic": contents.traffic(stage, "html"),
        "traffic_notes": contents.traffic_notes(review, stage),
        "modules": contents.modules(review, stage.stage, "html"),
        "glue": contents.glue(review, stage),
        "actions": [
            {"sentence": visible(one.sentence), "arithmetic": visible(one.arithmetic)} for one in stage.actions
        ],
    }


def _terms() -> list[tuple[str, str]]:
    """Label and definition of each column that the page shows, each once."""
    found: dict[str, str] = {}
    for spec in (REVIEW_KERNELS, REVIEW_MODULES, TRAFFIC, LOSSES):
        for column in spec.for_reader("html"):
            if column.definition:
                found.setdefault(column.label, column.definition)
    return list(found.items())
