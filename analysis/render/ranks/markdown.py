"""``report.md`` of several ranks, with its picture beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from analysis.domain.files import write_text
from analysis.ranks.records import RanksReport
from analysis.render.markdown_tables import escaped, table_lines
from analysis.render.pictures.svg import alone
from analysis.render.ranks import contents
from analysis.render.ranks.picture import waiting_picture
from analysis.render.spec.text import visible

__all__ = ["write_markdown"]

_TOP_STEPS: Final = 20


def write_markdown(report: RanksReport, out: Path, *, linked: str | None) -> tuple[Path, ...]:
    """Write ``report.md`` and ``waiting.svg``.

    Args:
        report: of the ranks.
        out: folder.
        linked: file of each rank's own report in its folder; None: there is none.

    Raises:
        RequestError: the folder cannot be written to.
    """
    lines = [f"# {escaped(contents.title(report))}: {escaped(visible(report.devices))}, rank by rank", ""]
    lines += [f"**{escaped(visible(report.sentence))}**", ""]
    lines += [f"- {escaped(visible(sentence))}" for sentence in report.then]
    lines += ["", *(f"- **{fact.label}:** {escaped(fact.text)}" for fact in contents.subject(report)), ""]
    lines += [f"> **Warning:** {escaped(visible(caution))}\n" for caution in report.cautions]
    lines += ["| Number | Value | Basis |", "|:---|---:|:---|"]
    lines += [f"| {tile.label} | {tile.value} | {escaped(tile.note)} |" for tile in contents.tiles(report)]
    lines += ["", "## Ranks", "", *table_lines(contents.ranks(report, "markdown"))]
    if linked is not None:
        links = (f"[rank {row.rank}]({row.folder}/{linked})" for row in report.ranks)
        lines += [f"Each rank's own report: {', '.join(links)}.", ""]
    lines += ["## Stages", "", *table_lines(contents.stages(report, "markdown"))]
    written: tuple[Path, ...] = ()
    picture = waiting_picture(report)
    if picture is not None:
        written = (write_text(out / "waiting.svg", alone(picture)),)
        lines += ["## Waiting, step by step", "", "![Waiting in collectives, step by step](waiting.svg)", ""]
        lines += table_lines(contents.steps(report, "markdown", _TOP_STEPS))
    if report.lateness:
        lines += ["## Who waits for whom, and why", "", *table_lines(contents.lateness(report, "markdown"))]
    return (write_text(out / "report.md", "\n".join(lines).rstrip() + "\n"), *written)
