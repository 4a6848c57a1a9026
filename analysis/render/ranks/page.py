"""``report.html`` of several ranks: in the look of a rank's own page, without a script."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from analysis.domain.figures import duration, share, whole_per_cents
from analysis.domain.files import write_text
from analysis.ranks.records import RanksReport, RankStage
from analysis.render.html.environment import page_environment, page_style
from analysis.render.html.stage_cards import Term
from analysis.render.pictures.palette import STAGE_COLOURS, part_of_term, text_on
from analysis.render.ranks import contents
from analysis.render.ranks.picture import waiting_picture
from analysis.render.spec.text import visible

__all__ = ["page", "write_page"]

_HERE: Final = Path(__file__).parent


def write_page(report: RanksReport, out: Path, *, linked: str | None) -> Path:
    """Write ``report.html``.

    Args:
        report: of the ranks.
        out: folder.
        linked: file of each rank's own report in its folder; None: there is none.

    Raises:
        RequestError: the folder cannot be written to.
    """
    return write_text(out / "report.html", page(report, linked=linked))


def page(report: RanksReport, *, linked: str | None = None) -> str:
    """The page as text; see `write_page`."""
    environment = page_environment(_HERE / "templates")
    picture = waiting_picture(report)
    return environment.get_template("ranks.html.j2").render(
        title=contents.title(report),
        kind="ranks side by side",
        script_sources="",
        style=page_style(),
        subject=(),
        ran=[
            f"{fact.label}: {fact.text}" if place else fact.text for place, fact in enumerate(contents.subject(report))
        ],
        cautions=[],
        warnings=[visible(caution) for caution in report.cautions],
        headline=visible(report.sentence),
        then=[visible(sentence) for sentence in report.then],
        tiles_given=contents.tiles(report),
        cards=[_card(stage, report) for stage in _longest_first(report)],
        ranks=contents.ranks(report, "html"),
        links=[(row.rank, f"{row.folder}/{linked}") for row in report.ranks] if linked is not None else [],
        stages=contents.stages(report, "html"),
        lateness=contents.lateness(report, "html"),
        steps=contents.steps(report, "html"),
        picture_of_waiting=Markup(picture) if picture else None,
        pairing=visible(report.pairing_told),
        traces=[(row.rank, visible(row.trace_path)) for row in report.ranks],
    )


def _longest_first(report: RanksReport) -> list[str]:
    """Stages by their time over all ranks."""
    time: dict[str, int] = {}
    for row in report.stages:
        time[row.stage] = time.get(row.stage, 0) + row.profiled_ns
    return sorted(time, key=lambda stage: -time[stage])


def _card(stage: str, report: RanksReport) -> dict[str, Any]:
    """A stage with a bar for each rank: what of its time is waiting, transfer, other GPU work, and an idle GPU."""
    rows = [row for row in report.stages if row.stage == stage]
    return {
        "stage": stage,
        "kind": stage if stage in STAGE_COLOURS else "neither",
        "ranks": [
            {
                "rank": row.rank,
                "stage": f"{stage} on rank {row.rank}",
                "time": duration(row.profiled_ns),
                "bound": visible(row.bound),
                "waiting": share(row.waiting_share) if row.waiting_share is not None else "",
                "terms": _terms(row),
            }
            for row in rows
        ],
    }


def _terms(row: RankStage) -> list[Term]:
    """Parts of a stage's time; they add up to it."""
    waiting, transfer, at_start = row.waiting_ns or 0, row.transfer_ns or 0, row.at_start_ns or 0
    busy = max(0, row.busy_ns - waiting - transfer - at_start)
    idle = max(0, row.profiled_ns - row.busy_ns)
    given = [
        ("start", "waiting at the start of the capture", at_start),
        ("ranks", "waiting for another rank", waiting),
        ("transfer", "collectives: transfer", transfer),
        ("busy", "other GPU work", busy),
        ("idle", "GPU idle", idle),
    ]
    parts = [part for part in given if part[2]]
    whole = sum(ns for _, _, ns in parts)
    cents = whole_per_cents([ns for _, _, ns in parts]) if parts else []
    return [
        Term(
            kind=part_of_term(kind),
            face=text_on(part_of_term(kind)),
            label=label,
            time=duration(ns),
            per_cent=cent,
            part=ns / whole,
        )
        for (kind, label, ns), cent in zip(parts, cents, strict=True)
    ]
