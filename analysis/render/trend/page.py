"""``trend.html``: one file in the look of report.html that opens from disk, reaches for nothing and runs no script.

It lives here and not with the history: the palette, the style, the templates and the shapes of pictures are here, and
`history/` knows none of them. What it shows is worked out there (`history.trend`) and given as `analysis.domain.trend`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from attrs import evolve
from markupsafe import Markup

from analysis.domain.figures import count, counted, duration
from analysis.domain.files import write_text
from analysis.domain.trend import StageTrend, Trend, TrendRun, WorkTrend
from analysis.render.html.environment import page_environment, page_style
from analysis.render.pictures.palette import STAGE_COLOURS
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.shown import Table, shown
from analysis.render.spec.text import visible
from analysis.render.spec.trend import (
    TREND_CHANGES,
    TREND_RUNS,
    WHY_IN_NO_LINE,
    change_lines,
    moment,
    run_lines,
    sentence,
    stage_sentence,
)
from analysis.render.trend.pictures import class_picture, time_picture

__all__ = ["page", "write_page"]

_HERE: Final = Path(__file__).parent
_ROWS: Final = 100
"""Of a table, and of the list of runs; all are in the history."""


def write_page(trend: Trend, file: Path) -> Path:
    """Write the page.

    Raises:
        RequestError: the file cannot be written.
    """
    return write_text(file, page(trend, file.absolute().parent))


def page(trend: Trend, folder: Path) -> str:
    """The page as text.

    Args:
        trend: to show.
        folder: where it will lie: files of runs are linked from there.
    """
    environment = page_environment(_HERE / "templates")
    environment.globals.update(definition=lambda term: GLOSSARY[term] if term else "")
    runs = sum(len(work.runs) for work in trend.works)
    ran = [f"{counted(runs, 'run')} of {counted(len(trend.works), 'workload')} in {visible(trend.source)}"]
    if trend.left_out:
        what = "run is" if trend.left_out == 1 else "runs are"
        ran.append(f"{count(trend.left_out)} more {what} in no line: {WHY_IN_NO_LINE}")
    return environment.get_template("trend.html.j2").render(
        title="Times over time",
        kind="history",
        script_sources="",
        style=page_style() + Markup((_HERE / "templates" / "trend.css").read_text(encoding="utf-8")),
        ran=ran,
        cautions=[],
        headline=sentence(trend),
        works=[_work(work, place, folder) for place, work in enumerate(trend.works, start=1)],
    )


def _work(work: WorkTrend, number: int, folder: Path) -> dict[str, Any]:
    marks = {
        place: at for at, place in enumerate((place for place, run in enumerate(work.runs) if run.changed), start=1)
    }
    return {
        "id": f"work-{number}",
        "title": visible(work.title),
        "subtitle": visible(work.subtitle),
        "nav": visible(work.title).split(", ")[0],
        "stages": [_stage(work, stage, marks) for stage in work.stages],
        "changes": _capped(shown(TREND_CHANGES, change_lines(work), "html", key=f"changes-{number}")),
        "marks": [(at, moment(work.runs[place].started_at), *_told(work.runs[place])) for place, at in marks.items()],
        "runs": [_run(run, folder) for run in reversed(work.runs[-_ROWS:])],
        "more": len(work.runs) - _ROWS,
    }


def _told(run: TrendRun) -> tuple[str, str]:
    return visible(run.run_id)[:8], "; ".join(map(visible, run.changed))


def _stage(work: WorkTrend, stage: StageTrend, marks: dict[int, int]) -> dict[str, Any]:
    classes = class_picture(work, stage)
    rows = run_lines(work, stage)
    return {
        "name": visible(stage.stage),
        "kind": stage.stage if stage.stage in STAGE_COLOURS else "neither",
        "per": visible(stage.per),
        "latest": duration(stage.points[-1].median_ns),
        "sentence": stage_sentence(work, stage),
        "times": Markup(time_picture(work, stage, marks)),
        "classes": Markup(classes) if classes else None,
        "table": _capped(shown(TREND_RUNS, rows, "html", key=f"runs-{visible(stage.stage)}")),
    }


def _capped(table: Table) -> Table:
    left = len(table.rows) - _ROWS
    if left <= 0:
        return table
    note = f"{table.note} {count(left)} more rows: dsocr-profile history export.".strip()
    return evolve(table, rows=table.rows[:_ROWS], note=note)


def _bytes(path: str) -> bytes:
    """A path as the file system has it: one that is no UTF-8 is told as Python keeps it."""
    return path.encode("utf-8", "surrogateescape")


def _run(run: TrendRun, folder: Path) -> dict[str, Any]:
    """A run and its files, linked from where the page lies."""
    links = [(visible(link.name), quote(_bytes(os.path.relpath(link.path, folder)))) for link in run.links]
    return {
        "moment": moment(run.started_at),
        "id": visible(run.run_id),
        "headline": visible(run.headline or ""),
        "links": links,
    }
