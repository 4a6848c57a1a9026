"""When the GPU worked: stages on the host's clock, and the busy share of equal slices of time below."""

from __future__ import annotations

from typing import Final

from analysis.domain.figures import counted, duration, share
from analysis.render.pictures.palette import STAGE_COLOURS
from analysis.render.pictures.svg import axis_steps, axis_time, line, path, polyline, rect, svg, text
from analysis.render.spec.text import shortened, visible
from analysis.report import Report

__all__ = ["busy_picture"]

_LEFT: Final = 76
_RIGHT: Final = 20
_HIGH: Final = 96.0
_ROW: Final = 24
_MOST: Final = 400
"""Stage instances that are drawn: the first."""


def busy_picture(report: Report, width: int = 1180) -> str | None:
    """Stage instances and GPU-busy share over the capture; None: there is no GPU operation.

    Args:
        report: to draw.
        width: of the picture, pixels.
    """
    timeline = report.timeline
    if timeline is None or not timeline.busy_ns:
        return None
    room = width - _LEFT - _RIGHT
    whole = timeline.slice_ns * len(timeline.busy_ns)
    shown = report.instances[:_MOST]
    stages = list(dict.fromkeys(instance.stage for instance in shown))
    parts = []
    for row, stage in enumerate(stages):
        parts.append(text(_LEFT - 8, _ROW * row + 16, shortened(visible(stage), 10), kind="ink", anchor="end"))
    for instance in shown:
        x = _LEFT + room * (instance.start_ns - timeline.start_ns) / whole
        wide = max(0.6, room * (instance.end_ns - instance.start_ns) / whole)
        hint = f"{visible(instance.path)}: {duration(instance.end_ns - instance.start_ns)}, {counted(instance.kernels, 'kernel')}"
        kind = instance.stage if instance.stage in STAGE_COLOURS else "neither"
        parts.append(rect(kind, x, _ROW * stages.index(instance.stage) + 3, wide, 18, hint, radius=min(3.0, wide / 3)))
    top = _ROW * len(stages) + 10.0
    for ratio in (0.0, 0.5, 1.0):
        y = top + _HIGH * (1 - ratio)
        parts += [line("line", _LEFT, y, _LEFT + room, y), text(_LEFT - 8, y + 4, share(ratio), anchor="end")]
    each = -(-len(timeline.busy_ns) // 600)
    points = []
    for low in range(0, len(timeline.busy_ns), each):
        group = timeline.busy_ns[low : low + each]
        y = top + _HIGH * (1 - min(1.0, sum(group) / (timeline.slice_ns * len(group))))
        points += [(_LEFT + room * (low + end) / len(timeline.busy_ns), y) for end in (0, len(group))]
    parts.append(
        path(
            "area busy",
            polyline(points, foot=top + _HIGH),
            f"GPU busy share of each {duration(each * timeline.slice_ns)}",
        )
    )
    for value in axis_steps(whole, 6):
        x = _LEFT + room * value / whole
        anchor = "start" if value == 0 else "end" if x > _LEFT + room - 20 else "middle"
        parts.append(text(x, top + _HIGH + 18, axis_time(value), anchor=anchor))
    title = "When the GPU worked: stages above, GPU busy share below"
    return svg(width, top + _HIGH + 26, title, parts)
