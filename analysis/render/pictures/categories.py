"""Kernel categories of each stage."""

from __future__ import annotations

from typing import Final

from analysis.domain.figures import share
from analysis.render.pictures.palette import STAGE_COLOURS
from analysis.render.pictures.svg import legend, rect, svg, text
from analysis.render.spec.text import shortened, visible
from analysis.report import Report

__all__ = ["category_picture"]

_LEFT: Final = 170
_RIGHT: Final = 60


def category_picture(report: Report, width: int = 860, most: int = 12) -> str | None:
    """Share of each stage's GPU time by category; None: there are no kernels in a stage.

    Args:
        report: to draw.
        width: of the picture, pixels.
        most: categories that are drawn one by one, the largest.
    """
    stages = [row.stage for row in report.stages if any(part.stage == row.stage for part in report.categories)]
    shares = {(row.category, row.stage): row.share for row in report.categories if row.stage in stages}
    names = sorted(
        {name for name, _ in shares}, key=lambda name: -sum(shares.get((name, stage), 0) for stage in stages)
    )
    left_out = names[most:]
    names = names[:most]
    if not names:
        return None
    largest = max(shares.values()) or 1.0
    room = width - _LEFT - _RIGHT
    step = 13 * len(stages) + 8
    parts = legend([(_kind(stage), stage) for stage in stages], _LEFT, 6)
    for row, name in enumerate(names):
        y = 30 + step * row
        label = shortened(visible(name), 24)
        parts.append(text(_LEFT - 10, y + 6.5 * len(stages) + 4, label, kind="ink", anchor="end"))
        for index, stage in enumerate(stages):
            part = shares.get((name, stage), 0.0)
            wide = room * part / largest
            top = y + 13 * index
            parts.append(
                rect(_kind(stage), _LEFT, top, wide, 11, f"{visible(name)}, {stage}: {share(part)}", radius=1.5)
            )
            if part:
                parts.append(text(_LEFT + wide + 5, top + 10, share(part)))
    height = 36 + step * len(names)
    if left_out:
        rest = " and ".join(
            f"{share(sum(shares.get((name, stage), 0) for name in left_out))} of {stage}" for stage in stages
        )
        parts.append(text(_LEFT, height + 8, f"{len(left_out)} smaller categories: {rest}"))
        height += 18
    return svg(width, height, "Share of GPU time by kernel category", parts)


def _kind(stage: str) -> str:
    return stage if stage in STAGE_COLOURS else "neither"
