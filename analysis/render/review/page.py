"""``review.html``: one file in the look of report.html that opens from disk, reaches for nothing and runs no script."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from attrs import evolve
from markupsafe import Markup

from analysis.domain.figures import count, duration, rate, ratio
from analysis.domain.files import write_text
from analysis.efficiency.counters.waterfall import Waterfall
from analysis.render.html.environment import page_environment, page_style
from analysis.render.html.stage_cards import Term
from analysis.render.pictures.palette import STAGE_COLOURS, text_on
from analysis.render.review import contents, pictures
from analysis.render.review.pictures import LOSS_COLOURS
from analysis.render.review_link import REVIEW_PAGE, report_link
from analysis.render.spec import facts, headline
from analysis.render.spec.review import LOSSES, REVIEW_KERNELS, REVIEW_MODULES, TRAFFIC, kernel_lines
from analysis.render.spec.text import visible
from analysis.report import Report
from analysis.review import Review, StageReview

__all__ = ["page", "write_page"]

_HERE: Final = Path(__file__).parent
_RANKED: Final = 100
"""Rows of the ranking on the page; all are in counters.parquet."""
_IN_SIGHT: Final = 15
"""Of these, without unfolding."""


def write_page(review: Review, report: Report, out: Path) -> Path:
    """Write ``review.html``.

    Raises:
        RequestError: the folder cannot be written to.
    """
    return write_text(out / REVIEW_PAGE, page(review, report, out))


def page(review: Review, report: Report, folder: Path | None = None) -> str:
    """The page as text.

    Args:
        review: to show.
        report: of the same trace.
        folder: where it will lie: a report that lies there is linked; None: not known.
    """
    environment = page_environment(_HERE / "templates")
    roofline = pictures.roofline_picture(kernel_lines(review, review.ranked()), review.peak, _dtype(report))
    peak, peaks = review.peak, contents.peaks(review)
    ranking = contents.ranking(review, "html", _RANKED)
    return environment.get_template("review.html.j2").render(
        title=facts.title(report),
        kind="kernel review",
        script_sources="",
        headline=contents.headline(review, report),
        ran=(*headline.what_was_run(report), f"{peaks.label}: {peaks.text}"),
        cautions=facts.cautions(report),
        tiles_given=contents.coverage_tiles(review),
        stages=[_stage(review, one) for one in review.stages],
        roofline=Markup(roofline) if roofline else None,
        roofline_note=(
            f"Roofs: {rate(peak.bytes_per_s, 'B/s')} DRAM and the dense peaks of {visible(peak.device_name)}, {peak.how}."
            if peak
            else ""
        ),
        ranking=evolve(ranking, rows=ranking.rows[:_IN_SIGHT]),
        ranking_more=evolve(ranking, key="more_review_kernels", rows=ranking.rows[_IN_SIGHT:]),
        unweighed=contents.kernels(review, "html", _RANKED),
        coverage=contents.coverage(review, "html"),
        files=contents.files(review, "html"),
        unmatched=contents.unmatched(review),
        remarks=[visible(one) for one in review.remarks],
        terms=_columns(),
        style=page_style(),
        report_link=Markup(report_link(folder)),
        count=count,
    )


def _dtype(report: Report) -> str:
    return report.report.model.dtype if report.report.model is not None else "bf16"


def _stage(review: Review, stage: StageReview) -> dict[str, Any]:
    picture = pictures.waterfall_picture(stage.waterfall)
    fall = stage.waterfall
    return {
        "name": stage.stage,
        "stage": stage.stage,
        "kind": stage.stage if stage.stage in STAGE_COLOURS else "neither",
        "time": duration(fall.per_unit_ns) if fall.per_unit_ns is not None else duration(fall.profiled_ns),
        "per": f"per {fall.unit}, profiled, mean" if fall.units else "in all, profiled",
        "terms": _terms(fall),
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


def _terms(fall: Waterfall) -> list[Term]:
    """The losses as parts of a bar; what is less than nothing stands in the list only."""
    losses = [loss for loss in fall.losses if loss.ns]
    drawn = sum(loss.ns for loss in losses if loss.ns > 0) or 1
    return [
        Term(
            kind=LOSS_COLOURS[loss.key],
            face=text_on(LOSS_COLOURS[loss.key]),
            label=loss.label,
            time=duration(loss.ns / (fall.units or 1)),
            per_cent=ratio(loss.ns / fall.profiled_ns),
            part=max(0, loss.ns) / drawn,
        )
        for loss in losses
    ]


def _columns() -> list[tuple[str, str]]:
    """Label and definition of each column that the page shows, each once."""
    found: dict[str, str] = {}
    for spec in (REVIEW_KERNELS, REVIEW_MODULES, TRAFFIC, LOSSES):
        for column in spec.for_reader("html"):
            if column.definition:
                found.setdefault(column.label, column.definition)
    return list(found.items())
