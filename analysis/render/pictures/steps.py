"""Steps: how long each takes, over its context or its tokens, and how these times are distributed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from analysis.domain.figures import count, duration
from analysis.render.pictures.palette import STAGE_COLOURS
from analysis.render.pictures.svg import axis_steps, axis_time, dots, legend, line, rect, svg, text
from analysis.report import Report
from analysis.sums.percentile import percentile
from analysis.sums.records import StepPoint

__all__ = ["histogram_picture", "step_picture"]

_LEFT: Final = 76
_RIGHT: Final = 24
_HIGH: Final = 150.0
_TOP: Final = 32.0
_MAX_POINTS: Final = 600
_BINS: Final = 40


def step_picture(report: Report, width: int = 860) -> str | None:
    """Host time and GPU-busy time of each decode step over its context length, or in time order; None: fewer than two steps.

    Of a serving engine: the time of each step over its tokens, by kind.

    Args:
        report: to draw.
        width: of the picture, pixels.
    """
    steps = report.steps
    if len(steps) < 2:
        return None
    if report.step_kinds:
        return _by_tokens(report, width)
    by_context = all(step.context is not None for step in steps)
    each = -(-len(steps) // _MAX_POINTS)
    groups = [steps[low : low + each] for low in range(0, len(steps), each)]
    places = [_mean([_place(step, low * each + at, by_context) for at, step in enumerate(group)])
              for low, group in enumerate(groups)]  # fmt: skip
    elapsed = [_mean([step.profiled_host_ns for step in group]) for group in groups]
    busy = [_mean([step.busy_ns for step in group]) for group in groups]
    most = max(*elapsed, *busy, 1.0) * 1.04
    room = width - _LEFT - _RIGHT
    first, last = min(places), max(places)
    parts = legend([("decode round", "host elapsed per step"), ("busy", "GPU busy per step")], _LEFT, 6)
    for value in axis_steps(most):
        y = _TOP + _HIGH * (1 - value / most)
        parts.append(line("line", _LEFT, y, _LEFT + room, y))
        parts.append(text(_LEFT - 8, y + 4, axis_time(value), anchor="end"))
    across = [_LEFT + room * (place - first) / ((last - first) or 1) for place in places]
    for kind, values in (("round s-decode", elapsed), ("square s-busy", busy)):
        drawn = [(x, _TOP + _HIGH * (1 - value / most)) for x, value in zip(across, values, strict=True)]
        parts.append(dots(kind, drawn))
    if by_context:
        parts += _ends(first, last, room)
        note = f"{count(len(steps))} decode steps by context length, tokens"
    else:
        note = f"{count(len(steps))} decode steps in time order"
    if each > 1:
        note += f", each point the mean of {each}"
    parts.append(text(_LEFT + room / 2, _TOP + _HIGH + 34, note, anchor="middle"))
    return svg(width, _TOP + _HIGH + 44, "Time of each decode step", parts)


def _by_tokens(report: Report, width: int) -> str:
    """Step time over tokens, by kind; where the names tell no tokens, over requests, else in time order."""
    steps = report.steps
    places, note = [float(position) for position in range(len(steps))], "in time order"
    for values, what in (
        ([step.tokens for step in steps], "tokens"),
        ([step.requests for step in steps], "requests"),
    ):
        known = [value for value in values if value is not None]
        if len(known) == len(steps):
            places, note = [math.log2(1 + value) for value in known], f"by {what} in the step, logarithmic"
            break
    times = [float(step.step_ns or 0) for step in steps]
    most = max(*times, 1.0) * 1.04
    first, last = min(places), max(places)
    room = width - _LEFT - _RIGHT
    kinds = [(row.kind, row.kind if row.kind in STAGE_COLOURS else "neither") for row in report.step_kinds]
    parts = legend([(f"{colour} round", kind) for kind, colour in kinds], _LEFT, 6)
    for value in axis_steps(most):
        y = _TOP + _HIGH * (1 - value / most)
        parts.append(line("line", _LEFT, y, _LEFT + room, y))
        parts.append(text(_LEFT - 8, y + 4, axis_time(value), anchor="end"))
    for kind, colour in kinds:
        mine = [
            (_LEFT + room * (place - first) / ((last - first) or 1), _TOP + _HIGH * (1 - time / most))
            for step, place, time in zip(steps, places, times, strict=True)
            if step.kind == kind
        ]
        parts.append(dots(f"round s-{colour}", _thinned(mine)))
    if "by" in note:
        parts += _ends(2**first - 1, 2**last - 1, room)
    parts.append(
        text(_LEFT + room / 2, _TOP + _HIGH + 34, f"{count(len(steps))} steps {note}, profiled", anchor="middle")
    )
    return svg(width, _TOP + _HIGH + 44, "Time of each step", parts)


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most `_MAX_POINTS` of a kind: evenly chosen in time order, which keeps their spread."""
    return points[:: -(-len(points) // _MAX_POINTS)] if points else points


def histogram_picture(report: Report, width: int = 860) -> str | None:
    """How many decode steps take how long; None: fewer than two steps.

    Args:
        report: to draw.
        width: of the picture, pixels.
    """
    if len(report.steps) < 2:
        return None
    elapsed = np.array([step.profiled_host_ns for step in report.steps], dtype=np.int64)
    counts, edges = np.histogram(elapsed.astype(np.float64), bins=_BINS if elapsed.size >= _BINS else 10)
    most = float(counts.max()) * 1.04
    first, last = float(edges[0]), float(edges[-1])
    room = width - _LEFT - _RIGHT

    def across(value: float) -> float:
        return _LEFT + room * (value - first) / ((last - first) or 1)

    parts = []
    for value in axis_steps(most):
        if value != int(value):
            continue
        y = _TOP + _HIGH * (1 - value / most)
        parts += [line("line", _LEFT, y, _LEFT + room, y), text(_LEFT - 8, y + 4, count(int(value)), anchor="end")]
    for low, high, height in zip(edges[:-1], edges[1:], counts, strict=True):
        if height:
            tall = _HIGH * float(height) / most
            hint = f"{duration(round(low))} to {duration(round(high))}: {count(int(height))} steps"
            parts.append(
                rect("decode", across(low) + 0.5, _TOP + _HIGH - tall, across(high) - across(low) - 1, tall, hint)
            )
    for low, name, value in ((0, "median", np.median(elapsed)), (1, "95 % below", percentile(elapsed, 95))):
        x = across(float(value))
        parts.append(line("ink-line dashed", x, _TOP - 2, x, _TOP + _HIGH))
        anchor = "end" if x > _LEFT + room / 2 else "start"
        parts.append(text(x, 10 + 14 * low, f"{name} {duration(round(float(value)))}", kind="ink", anchor=anchor))
    parts += _ends(first, last, room, times=True)
    parts.append(
        text(
            _LEFT + room / 2, _TOP + _HIGH + 34, f"host time of {count(elapsed.size)} steps, profiled", anchor="middle"
        )
    )
    kind = "steps" if report.step_kinds else "decode steps"
    return svg(width, _TOP + _HIGH + 44, f"How long {kind} take", parts)


def _place(step: StepPoint, position: int, by_context: bool) -> float:
    return float(step.context) if by_context and step.context is not None else float(position)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _ends(first: float, last: float, room: float, *, times: bool = False) -> list[str]:
    """Labels under the two ends of an axis."""
    write = duration if times else count
    y = _TOP + _HIGH + 18
    return [text(_LEFT, y, write(round(first))), text(_LEFT + room, y, write(round(last)), anchor="end")]
