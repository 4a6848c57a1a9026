"""A stage's times over its runs, and its GPU time by kernel class: pictures that need no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from analysis.domain.figures import counted, duration, signed_ratio
from analysis.domain.trend import StageTrend, TrendPoint, WorkTrend
from analysis.render.pictures.palette import STAGE_COLOURS
from analysis.render.pictures.svg import axis_steps, axis_time, circle, dots, legend, line, path, rect, svg, text
from analysis.render.spec.text import shortened, visible
from analysis.render.spec.trend import moment

__all__ = ["CLASS_COLOURS", "class_colours", "class_picture", "time_picture"]

WIDTH: Final = 1180
_LEFT: Final = 84
_RIGHT: Final = 26
_TOP: Final = 62.0
_HIGH: Final = 230.0
_DATES: Final = 7
"""Dates under the axis, at most."""
_ONE_BY_ONE: Final = 400
"""Runs up to which each has a hint of its own."""
_SPREAD: Final = 0.28
"""Of the room of a run, in which its samples lie beside each other."""
_HALF_BAR: Final = 0.42
_APART: Final = 4.0
"""Room of a run, pixels, from which on there is a gap between two."""
_LABEL: Final = 104.0
"""Room of a change's label, pixels."""
_ROOM: Final = 0.06
"""Of the height, left free above and below the times."""

CLASS_COLOURS: Final = ("busy", "launching", "transfer", "other", "synchronising", "in_graph", "draining", "idle")
"""Of the classes that take most, in their order; the last is that of all others."""


def _kind(stage: str) -> str:
    return stage if stage in STAGE_COLOURS else "neither"


class _Axis:
    """Places of runs across, and of times up: the latter by their logarithm, so that a change is as high wherever it is."""

    def __init__(self, work: WorkTrend, times: Sequence[float]) -> None:
        self.room = (WIDTH - _LEFT - _RIGHT) / max(1, len(work.runs))
        low, high = math.log(min(times)), math.log(max(times))
        margin = max((high - low) * _ROOM, 0.01)
        self._low, self._high = low - margin, high + margin

    def x(self, run: float) -> float:
        return _LEFT + self.room * (run + 0.5)

    def y(self, ns: float) -> float:
        return _TOP + _HIGH * (self._high - math.log(ns)) / (self._high - self._low)

    def ticks(self) -> list[float]:
        """Round times between the ends: evenly spaced ones, or of a wide range one, two and five times powers of ten."""
        low, high = math.exp(self._low), math.exp(self._high)
        if high / low > 4:
            first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
            values = [nice * 10.0**power for power in range(first, last + 1) for nice in (1, 2, 5)]
        else:
            raw = (high - low) / 5
            size = 10.0 ** math.floor(math.log10(raw))
            step = next((nice * size for nice in (1, 2, 2.5, 5) if nice * size >= raw), 10 * size)
            values = [step * place for place in range(math.ceil(low / step), math.floor(high / step) + 1)]
        return [value for value in values if low <= value <= high]


def time_picture(work: WorkTrend, stage: StageTrend, marks: dict[int, int]) -> str:
    """Medians with their intervals, raw samples, levels, and marks where something was changed.

    Args:
        work: with all runs, which are the places across.
        stage: to draw.
        marks: place of a run → number of the mark before it.
    """
    kind = _kind(stage.stage)
    axis = _Axis(work, [time for point in stage.points for time in (*point.samples_ns, point.median_ns)])
    parts = legend(
        [
            (f"{kind} round", "median of a run"),
            (f"{kind} bubble round", "its repetitions"),
            (f"{kind} band", "interval of the median, 95 %"),
        ],
        _LEFT,
        4,
    )
    parts += [line("ink-line level", _LEFT + 540, 9, _LEFT + 562, 9), text(_LEFT + 568, 13.5, "level between changes")]
    parts += [
        line("roof dashed", _LEFT + 726, 2, _LEFT + 726, 16),
        text(_LEFT + 736, 13.5, "a setting was changed: its number"),
    ]
    for value in axis.ticks():
        parts += [line("line", _LEFT, axis.y(value), WIDTH - _RIGHT, axis.y(value))]
        parts += [text(_LEFT - 8, axis.y(value) + 4, axis_time(value), anchor="end")]
    parts += _marks(axis, marks)
    parts += _samples(axis, stage, kind)
    parts += _medians(axis, work, stage, kind)
    parts += _levels(axis, stage)
    parts += _dates(axis, work)
    parts.append(
        text(
            (_LEFT + WIDTH - _RIGHT) / 2,
            _TOP + _HIGH + 38,
            f"{counted(len(work.runs), 'run')} in the order of their start, evenly spaced; "
            f"time per {visible(stage.per)}, logarithmic, does not begin at 0",
            anchor="middle",
        )
    )
    title = f"{visible(stage.stage)}: time per {visible(stage.per)} of each run"
    return svg(WIDTH, _TOP + _HIGH + 48, title, parts)


def _marks(axis: _Axis, marks: dict[int, int]) -> list[str]:
    parts, last = [], -math.inf
    for run, number in marks.items():
        x = axis.x(run - 0.5)
        parts.append(line("roof dashed", x, _TOP - 6, x, _TOP + _HIGH))
        if x - last >= 8 * len(str(number)) + 4:  # where there is no room the line alone stands
            parts.append(text(x, _TOP - 10, str(number), kind="strong", anchor="middle"))
            last = x
    return parts


def _samples(axis: _Axis, stage: StageTrend, kind: str) -> list[str]:
    """Repetitions of a run beside each other, in the order in which they were measured, as far as there is room."""
    placed = []
    for point in stage.points:
        several = max(1, len(point.samples_ns) - 1)
        for place, time in enumerate(point.samples_ns):
            aside = (place / several - 0.5) * 2 * _SPREAD if len(point.samples_ns) > 1 else 0.0
            placed.append((axis.x(point.run + aside), axis.y(time)))
    return [dots(f"round s-{kind} faint-dots", placed)]


def _medians(axis: _Axis, work: WorkTrend, stage: StageTrend, kind: str) -> list[str]:
    half = min(7.0, max(1.0, axis.room * _SPREAD))
    bands = [
        _band(axis, kind, point.run, half, point.low_ns, point.high_ns)
        for point in stage.points
        if point.low_ns is not None and point.high_ns is not None
    ]
    if len(stage.points) > _ONE_BY_ONE:
        return [
            *bands,
            dots(f"round s-{kind}", [(axis.x(point.run), axis.y(point.median_ns)) for point in stage.points]),
        ]
    radius = min(4.5, max(2.0, axis.room * 0.3))
    return [
        *bands,
        *(
            circle(kind, axis.x(point.run), axis.y(point.median_ns), radius, _hint(work, stage, point))
            for point in stage.points
        ),
    ]


def _band(axis: _Axis, kind: str, run: int, half: float, low_ns: float, high_ns: float) -> str:
    top = axis.y(high_ns)
    return rect(f"{kind} band", axis.x(run) - half, top, 2 * half, axis.y(low_ns) - top)


def _hint(work: WorkTrend, stage: StageTrend, point: TrendPoint) -> str:
    run = work.runs[point.run]
    told = (
        f"{moment(run.started_at)}, run {visible(run.run_id)[:8]}: {duration(point.median_ns)} per {visible(stage.per)}"
    )
    if point.low_ns is not None:
        told += f", between {duration(point.low_ns)} and {duration(point.high_ns)}"
    changed = f"; {visible('; '.join(run.changed))}" if run.changed else ""
    return f"{told}, {counted(len(point.samples_ns), 'repetition')}{changed}"


def _levels(axis: _Axis, stage: StageTrend) -> list[str]:
    """The level of each piece, and by how much it changed; a label that has no room stands in the table only."""
    if not stage.changes:
        return []
    parts, last = [], -math.inf
    edges = [0, *(change.at for change in stage.changes), len(stage.points)]
    levels = [stage.changes[0].before_ns, *(change.after_ns for change in stage.changes)]
    for first, end, level in zip(edges, edges[1:], levels, strict=False):
        left, right = axis.x(stage.points[first].run - 0.5), axis.x(stage.points[end - 1].run + 0.5)
        parts.append(line("ink-line level", left, axis.y(level), right, axis.y(level)))
    for change in stage.changes:
        x = axis.x(stage.points[change.at].run - 0.5)
        parts.append(path("ink", f"M{x - 5:.1f} {_TOP + _HIGH + 9:.1f}h10l-5 -8z", "a change of level"))
        words = f"{'▲' if change.relative > 0 else '▼'} {signed_ratio(change.relative)}"
        if x - last >= _LABEL:
            anchor = "end" if x > WIDTH - _RIGHT - _LABEL / 2 else "middle"
            parts.append(text(x, _TOP - 26, words, kind="ink strong", anchor=anchor))
            last = x
    return parts


def _dates(axis: _Axis, work: WorkTrend) -> list[str]:
    runs = work.runs
    many = min(_DATES, len(runs))
    places = sorted({round(step * (len(runs) - 1) / max(1, many - 1)) for step in range(many)})
    drawn = []
    for place in places:
        x = axis.x(place)
        # Half a date is 36 pixels: at an end it must not leave the picture.
        anchor = "end" if x > WIDTH - 40 else "start" if x < 40 else "middle"
        drawn.append(text(x, _TOP + _HIGH + 22, f"{runs[place].started_at:%Y-%m-%d}", anchor=anchor))
    return drawn


def class_colours(work: WorkTrend) -> dict[str, str]:
    """Class → colour, the same for all stages of a workload: of those that take the largest part of any stage."""
    largest: dict[str, float] = {}
    for stage in work.stages:
        whole = sum(part.ns for point in stage.points for part in point.classes)
        spent: dict[str, float] = {}
        for part in (part for point in stage.points for part in point.classes):
            spent[part.name] = spent.get(part.name, 0.0) + part.ns / whole if whole else 0.0
        for name, share in spent.items():
            largest[name] = max(largest.get(name, 0.0), share)
    ordered = sorted(largest, key=lambda name: (-largest[name], name))
    many = len(CLASS_COLOURS) if len(ordered) <= len(CLASS_COLOURS) else len(CLASS_COLOURS) - 1
    return dict(zip(ordered[:many], CLASS_COLOURS, strict=False))


def class_picture(work: WorkTrend, stage: StageTrend) -> str | None:
    """GPU time of a unit by kernel class, a stack for each run; None: no run's report tells it."""
    there = {part.name for point in stage.points for part in point.classes}
    if not there:
        return None
    colour = {name: kind for name, kind in class_colours(work).items() if name in there}
    apart, others = list(colour), len(there) - len(colour)
    rest = CLASS_COLOURS[-1]
    most = max(sum(part.ns for part in point.classes) for point in stage.points) * 1.04
    room = (WIDTH - _LEFT - _RIGHT) / max(1, len(work.runs))
    top, high = 46.0, 170.0
    entries = [(colour[name], shortened(visible(name), 24)) for name in apart]
    entries += [(rest, counted(others, "other class", "other classes"))] if others else []
    parts = [swatch for place in (0, 1) for swatch in legend(entries[4 * place : 4 * place + 4], _LEFT, 4 + 18 * place)]
    for value in axis_steps(most):
        y = top + high * (1 - value / most)
        parts += [line("line", _LEFT, y, WIDTH - _RIGHT, y), text(_LEFT - 8, y + 4, axis_time(value), anchor="end")]
    # Between stacks as narrow as a pixel, gaps would only be stripes.
    wide = min(60.0, 2 * _HALF_BAR * room) if room >= _APART else room
    for point in stage.points:
        foot = top + high
        stacked = dict.fromkeys((*apart, ""), 0.0)
        for part in point.classes:
            stacked[part.name if part.name in colour else ""] += part.ns
        for name, ns in stacked.items():
            if ns:
                tall = high * ns / most
                foot -= tall
                hint = f"{moment(work.runs[point.run].started_at)}: {visible(name) or 'other classes'}, {duration(ns)}"
                parts.append(
                    rect(
                        colour.get(name, rest), _LEFT + room * (point.run + 0.5) - wide / 2, foot, wide, max(0.3, tall - 0.6),
                        hint if len(stage.points) <= _ONE_BY_ONE else "",
                    )
                )  # fmt: skip
    words = f"GPU time per {visible(stage.per)} by kernel class, of the captures, in the same order"
    parts.append(text((_LEFT + WIDTH - _RIGHT) / 2, top + high + 18, words, anchor="middle"))
    return svg(WIDTH, top + high + 28, f"{visible(stage.stage)}: GPU time by kernel class of each run", parts)
