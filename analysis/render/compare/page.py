"""``diff.html``: one file in the look of report.html, which opens from disk, reaches for nothing and runs only its own script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import evolve
from markupsafe import Markup

from analysis.compare.records import Comparison, Contribution, Diff, Level, StageDifference
from analysis.domain.figures import count
from analysis.domain.files import write_text
from analysis.render.compare import contents, pictures
from analysis.render.html.environment import page_environment, page_style
from analysis.render.pictures.palette import STAGE_COLOURS
from analysis.render.spec.compare import (
    ANSWERS,
    DIFF_CONTRIBUTIONS,
    DIFF_KERNELS,
    DIFF_SETTINGS,
    DIFF_SIDES,
    DIFF_STAGES,
)
from analysis.render.spec.shown import Table
from analysis.render.spec.text import unbroken, visible

__all__ = ["PAGE", "page", "write_page"]

PAGE: Final = "diff.html"
_HERE: Final = Path(__file__).parent
_SHARED: Final = _HERE.parent / "html" / "assets"
_SCRIPTS: Final = (
    *(_SHARED / f"{name}.js" for name in ("figures", "page", "links", "tables", "hints")),
    _HERE / "assets" / "diff.js",
    _SHARED / "start.js",
)
"""Files that make the page's script, in this order."""
_STYLES: Final = (_SHARED / "explore.css", _HERE / "assets" / "diff.css")
_MAX_ROWS: Final = 240
"""Of a table on the page, one by one; the others are one row, and each is in diff.json."""


def write_page(diff: Diff, out: Path) -> Path:
    """Write ``diff.html``.

    Raises:
        RequestError: the folder cannot be written to.
    """
    return write_text(out / PAGE, page(diff))


def page(diff: Diff) -> str:
    """The page as text: one section for each new side against the base, with a table of all where there are several."""
    environment = page_environment(_HERE / "templates")
    script = "".join(path.read_text(encoding="utf-8") for path in _SCRIPTS)
    several = len(diff.comparisons) > 1
    return environment.get_template("diff.html.j2").render(
        title=contents.title(diff),
        kind="comparison",
        headline=unbroken(visible(diff.headline)),
        ran=() if several else contents.subject(diff.comparisons[0]),
        cautions=(),
        sides=contents.sides(diff, "html") if several else None,
        comparisons=[_comparison(given, f"c{number}", several) for number, given in enumerate(diff.comparisons)],
        terms=contents.columns((DIFF_STAGES, DIFF_SIDES, DIFF_SETTINGS, DIFF_CONTRIBUTIONS, DIFF_KERNELS)),
        style=page_style() + Markup("".join(path.read_text(encoding="utf-8") for path in _STYLES)),
        script=Markup(script),
        script_sources=f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'",
        count=count,
    )


def _comparison(comparison: Comparison, key: str, several: bool) -> dict[str, Any]:
    """One new side against the base, as the template lays it out."""
    return {
        "key": key,
        "label": visible(comparison.new.label),
        "headline": unbroken(visible(comparison.headline)) if several else "",
        "subject": contents.subject(comparison) if several else (),
        "changed": contents.changed(comparison),
        "forbids": [
            {
                "name": visible(row.name),
                "values": [visible(value) if value is not None else "not recorded" for value in row.values],
                "because": visible(row.because),
            }
            for row in contents.forbidding(comparison)
        ],
        "cards": [_card(comparison, stage, f"{key}-s{number}") for number, stage in enumerate(comparison.stages)],
        "settings": evolve(contents.settings(comparison, "html"), key=f"{key}-settings"),
        "latencies": evolve(contents.latencies(comparison, "html"), key=f"{key}-latencies"),
        "repetitions": _both(pictures.repetitions_picture, comparison),
        "intervals": _both(pictures.interval_picture, comparison),
        "stages": [_stage(comparison, stage, f"{key}-s{number}") for number, stage in enumerate(comparison.stages)],
        "notes": [visible(note) for note in comparison.notes],
    }


def _kind(stage: str) -> str:
    return stage if stage in STAGE_COLOURS else "neither"


def _card(comparison: Comparison, stage: StageDifference, key: str) -> dict[str, Any]:
    """A stage on the first screen: by how much, is it real, why, what next."""
    look = ANSWERS[stage.answer]
    told = contents.written(stage)
    step = contents.next_step(comparison, stage)
    command = contents.repeat(comparison)
    return {
        "key": key,
        "name": visible(stage.stage),
        "kind": _kind(stage.stage),
        "before": told.before if told else "",
        "after": told.after if told else "n/a",
        "by": told.by if told else "",
        "relative": told.relative if told else "",
        "lead": contents.lead(stage),
        "answer": look.word,
        "sign": look.sign,
        "look": look.kind,
        "certainty": unbroken(contents.certainty(stage)),
        "because": unbroken(visible(stage.because)),
        "reasons": contents.reasons(comparison, stage),
        "explained": contents.explained(stage),
        "next": unbroken(step.removesuffix(command)),
        "command": command if step.endswith(command) else "",
        "anchor": _anchor_of_largest(comparison, stage, key),
    }


def _anchor_of_largest(comparison: Comparison, stage: StageDifference, key: str) -> str:
    """Where the page says more about why."""
    return f"{key}-why" if any(row.stage == stage.stage for row in comparison.contributions) else ""


def _stage(comparison: Comparison, stage: StageDifference, key: str) -> dict[str, Any]:
    """Where a stage's difference comes from, from coarse to fine."""
    levels: tuple[Level, ...] = ("stage", "module", "class", "host", "kernel")
    made = {level: _table(comparison, stage.stage, level, f"{key}-{level}") for level in levels}
    told = contents.written(stage)
    name = visible(stage.stage)
    pictured: tuple[tuple[Level, str], ...] = (
        ("module", "GPU time by module"),
        ("class", "GPU time by kernel class"),
        ("kernel", "GPU time by kernel"),
    )
    drawn = [("From base to new", _both(pictures.waterfall_picture, comparison, stage, made["stage"][1]))]
    drawn += [
        (
            title,
            _both(
                pictures.diverging_picture,
                contents.gpu_parts(comparison, stage.stage, level),
                f"{name}, {title}",
                made[level][1],
            ),
        )
        for level, title in pictured
    ]
    return {
        "key": key,
        "name": name,
        "stage": visible(stage.stage),
        "title": f"{told.before} → {told.after} per {visible(stage.per)}, {told.by}" if told else "n/a",
        "explained": contents.explained(stage),
        "pictures": [(title, both) for title, both in drawn if both is not None],
        "tables": [table for table, _ in made.values() if table.rows],
        "kernels": contents.kernels(comparison, stage.stage, "html", _MAX_ROWS, key=f"{key}-kernels"),
        "kinds": _kinds(comparison, stage.stage),
    }


def _both(draw: Callable[..., str | None], *given: Any) -> tuple[Markup, Markup] | None:
    """A picture for a wide screen and for a narrow one; None: there is nothing to draw."""
    wide, narrow = draw(*given, layout=pictures.WIDE), draw(*given, layout=pictures.NARROW)
    return (Markup(wide), Markup(narrow)) if wide and narrow else None


def _table(comparison: Comparison, stage: str, level: Level, key: str) -> tuple[Table, dict[Contribution, str]]:
    """A table of parts whose rows have ids, and part → id of its row."""
    rows = contents.of_level(comparison, stage, level)
    table = contents.contributions(comparison, stage, level, "html", _MAX_ROWS, key=key)
    ids = tuple(f"{key}-{place}" for place in range(len(table.rows)))
    alone = len(ids) if len(ids) == len(rows) else len(ids) - 1  # the last row stands for the others
    return evolve(table, row_ids=ids), dict(zip(rows[:alone], ids[:alone], strict=True))


def _kinds(comparison: Comparison, stage: str) -> str:
    """How many kernels became what, in a line."""
    numbers: dict[str, int] = {}
    for row in comparison.kernels:
        if row.stage == stage:
            numbers[row.kind] = numbers.get(row.kind, 0) + 1
    return ", ".join(f"{count(number)} {kind}" for kind, number in sorted(numbers.items(), key=lambda item: -item[1]))
