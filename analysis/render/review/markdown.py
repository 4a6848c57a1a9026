"""``review.md`` and its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from analysis.domain.files import write_text
from analysis.render.markdown_tables import escaped, table_lines
from analysis.render.pictures.svg import alone
from analysis.render.review import contents, pictures
from analysis.render.spec import facts
from analysis.render.spec.review import kernel_lines
from analysis.render.spec.text import visible
from analysis.report import Report
from analysis.review import Review, StageReview

__all__ = ["write_markdown"]

_RANKED: Final = 25


def write_markdown(review: Review, report: Report, out: Path) -> tuple[Path, ...]:
    """Write ``review.md``, ``waterfall-STAGE.svg`` and ``roofline.svg``.

    Raises:
        RequestError: the folder cannot be written to.
    """
    drawn = {f"waterfall-{one.stage}.svg": pictures.waterfall_picture(one.waterfall) for one in review.stages}
    dtype = report.report.model.dtype if report.report.model is not None else "bf16"
    drawn["roofline.svg"] = pictures.roofline_picture(kernel_lines(review, review.ranked()), review.peak, dtype)
    there = {name: picture for name, picture in drawn.items() if picture is not None}
    lines = [
        f"# {escaped(facts.title(report))}: kernel review",
        "",
        f"**{escaped(contents.headline(review, report))}**",
        "",
    ]
    lines += [f"- {fact.label}: {escaped(fact.text)}" for fact in (*facts.subject(report), contents.peaks(review))]
    lines += ["", *(f"> {escaped(caution)}\n" for caution in facts.cautions(report))]
    lines += ["## First actions", ""]
    for one in review.stages:
        lines += _actions(one)
    for one in review.stages:
        lines += _stage(review, one, there)
    lines += ["## Kernels by what a faster one could save", ""]
    if "roofline.svg" in there:
        lines += ["![Roofline of the kernels](roofline.svg)", ""]
    lines += table_lines(contents.ranking(review, "markdown", _RANKED))
    lines += ["## What the counters cover", "", *table_lines(contents.coverage(review, "markdown"))]
    lines += ["### What became of the profiled kernels", "", *table_lines(contents.files(review, "markdown"))]
    lines += [f"- {escaped(line)}" for line in contents.unmatched(review)]
    lines += ["", "## Method", "", *(f"- {escaped(visible(line))}" for line in review.remarks), ""]
    written = [write_text(out / name, alone(picture)) for name, picture in there.items()]
    return (write_text(out / "review.md", "\n".join(lines)), *written)


def _actions(stage: StageReview) -> list[str]:
    lines = [f"### {stage.stage.capitalize()}", ""]
    for number, one in enumerate(stage.actions, 1):
        lines += [f"{number}. {escaped(visible(one.sentence))}  ", f"   *{escaped(visible(one.arithmetic))}*"]
    return [*lines, ""] if stage.actions else [*lines, "n/a: nothing of this stage could be weighed.", ""]


def _stage(review: Review, stage: StageReview, pictures_there: dict[str, str]) -> list[str]:
    picture = f"waterfall-{stage.stage}.svg"
    lines = [f"## {stage.stage.capitalize()}: where the time is lost", "", escaped(contents.lead(stage)), ""]
    if picture in pictures_there:
        lines += [f"![Where {stage.stage} loses its time]({picture})", ""]
    lines += table_lines(contents.losses(stage, "markdown"))
    if stage.waterfall.merged_because:
        lines += [f"Not told apart: {escaped(visible(stage.waterfall.merged_because))}.", ""]
    lines += ["### Measured beside what must be", "", *table_lines(contents.traffic(stage, "markdown"))]
    lines += [*(f"- {escaped(line)}" for line in contents.traffic_notes(review, stage)), ""]
    lines += ["### Modules against the rooflines", "", *table_lines(contents.modules(review, stage.stage, "markdown"))]
    glue = contents.glue(review, stage)
    return [*lines, *([escaped(glue), ""] if glue else [])]
