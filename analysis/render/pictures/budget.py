"""Where the host time of each stage goes."""

from __future__ import annotations

from typing import Final

from analysis.domain.figures import duration, share, whole_per_cents
from analysis.render.pictures.palette import text_on
from analysis.render.pictures.svg import legend, rect, svg, text
from analysis.render.spec.budget import BUDGET_PARTS, time_budget
from analysis.report import Report

__all__ = ["budget_picture"]

_WIDTH: Final = 860
_LEFT: Final = 180
_RIGHT: Final = 40
_LEAST: Final = 0.05
"""Share from which on a part holds its per cents."""


def budget_picture(report: Report) -> str | None:
    """Where each stage's host time goes; None: there are no stages."""
    stages = [
        (stage, parts)
        for stage in report.stages
        if (parts := time_budget(stage)) is not None and stage.profiled_host_ns
    ]
    if not stages:
        return None
    room = _WIDTH - _LEFT - _RIGHT
    used = [part for part in BUDGET_PARTS if any(parts[part.key] for _, parts in stages)]
    rows = _in_rows([(part.key, part.label) for part in used])
    drawn = [swatch for place, row in enumerate(rows) for swatch in legend(row, 0, 6 + 18 * place)]
    top = 18.0 * len(rows) + 16
    for index, (stage, parts) in enumerate(stages):
        y = top + 40 * index
        label = f"{stage.stage}, {duration(stage.profiled_host_ns)}"
        drawn.append(text(_LEFT - 10, y + 18, label, kind="ink", anchor="end"))
        x: float = _LEFT
        whole = whole_per_cents([parts[part.key] for part in BUDGET_PARTS])
        for part, per_cent in zip(BUDGET_PARTS, whole, strict=True):
            ratio = parts[part.key] / stage.profiled_host_ns
            width = room * ratio
            hint = f"{stage.stage}: {part.label}, {duration(parts[part.key])}, {share(ratio)}"
            # A line of the ground between two parts tells them apart where colours do not.
            drawn.append(rect(part.key, x, y, max(0.3, width - 1) if width else 0, 26, hint))
            if ratio >= _LEAST:
                drawn.append(text(x + width / 2, y + 17, per_cent, kind=text_on(part.key), anchor="middle"))
            x += width
    return svg(_WIDTH, top + 6 + 40 * len(stages), "Where each stage's host time goes", drawn)


def _in_rows(entries: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Entries of a legend, as many in a row as have room."""
    rows: list[list[tuple[str, str]]] = []
    left = 0.0
    for entry in entries:
        wide = 34 + 6.4 * len(entry[1])
        if not rows or left < wide:
            rows.append([])
            left = _WIDTH
        rows[-1].append(entry)
        left -= wide
    return rows
