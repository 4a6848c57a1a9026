"""A trend in a terminal: per stage a line of blocks, where it stands, and its changes of level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from analysis.domain.figures import count, counted, duration
from analysis.domain.trend import StageTrend, Trend, WorkTrend
from analysis.render.spec.shown import shown
from analysis.render.spec.text import visible
from analysis.render.spec.trend import TREND_CHANGES, WHY_IN_NO_LINE, change_lines, moment, sentence, stage_sentence
from analysis.render.terminal_tables import FittedTable
from analysis.render.terminal_text import Sentence

__all__ = ["blocks", "print_trend"]

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_MOST_BLOCKS: Final = 60
_MARKS: Final = 6
"""The latest settings that changed; the page has all."""
_STYLE: Final = {"prefill": "blue", "decode": "yellow"}


def blocks(times: Sequence[float], most: int = _MOST_BLOCKS) -> str:
    """The last times as blocks: the longest is the highest, by the logarithm; all alike: in the middle.

    Args:
        times: more than 0 each.
        most: blocks at most.
    """
    values = [math.log(time) for time in times[-most:]]
    low, high = min(values), max(values)
    if high - low < 1e-9:
        return _BLOCKS[3] * len(values)
    last = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round(last * (value - low) / (high - low))] for value in values)


def print_trend(trend: Trend, console: Console) -> None:
    """Print a trend."""
    parts: list[RenderableType] = [Sentence(sentence(trend), "bold")]
    for work in trend.works:
        parts += [Text(), *_work(work)]
    if trend.left_out:
        parts += [
            Text(),
            Sentence(
                f"{counted(trend.left_out, 'run')} in no line: {WHY_IN_NO_LINE}.",
                "dim",
            ),
        ]
    console.print(Group(*parts))


def _work(work: WorkTrend) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(visible(work.title), style="bold"), Sentence(visible(work.subtitle), "dim")]
    for stage in work.stages:
        parts += _stage(work, stage)
    marked = [run for run in work.runs if run.changed]
    for run in marked[-_MARKS:]:
        line = f"{moment(run.started_at)} {visible(run.run_id)[:8]}: {visible('; '.join(run.changed))}"
        parts.append(Padding(Sentence(line, "dim"), (0, 0, 0, 2), expand=False))
    if len(marked) > _MARKS:
        parts.append(
            Padding(Text(f"{count(len(marked) - _MARKS)} earlier changes of settings", style="dim"), (0, 0, 0, 2))
        )
    changes = shown(TREND_CHANGES, change_lines(work), "terminal")
    return [*parts, FittedTable(changes)] if changes.rows else parts


def _stage(work: WorkTrend, stage: StageTrend) -> list[RenderableType]:
    medians = [point.median_ns for point in stage.points[-_MOST_BLOCKS:]]
    left_out = f"the last {len(medians)}: " if len(medians) < len(stage.points) else ""
    line = Text(f"{visible(stage.stage)} ", style=_STYLE.get(stage.stage, ""))
    line.append(blocks(medians))
    line.append(f" {left_out}{duration(min(medians))} to {duration(max(medians))}", style="dim")
    return [line, Padding(Sentence(stage_sentence(work, stage)), (0, 0, 0, 2), expand=False)]
