"""Sampled GPU metrics over time, one strip each."""

from __future__ import annotations

from typing import Final

from analysis.domain.figures import decimal
from analysis.render.pictures.palette import STAGE_COLOURS
from analysis.render.pictures.svg import axis_steps, axis_time, line, path, polyline, rect, svg, text
from analysis.render.spec.text import shortened, visible
from analysis.report import Report
from analysis.sums.records import MetricSeries

__all__ = ["metrics_picture"]

_LEFT: Final = 260
_RIGHT: Final = 20
_STRIP: Final = 34
_ROW: Final = 46
_MOST: Final = 16
_MAX_POINTS: Final = 200
_MAX_BANDS: Final = 200


def metrics_picture(report: Report, width: int = 1180) -> str | None:
    """Each metric as a strip on the same clock, the stages as bands behind; None: no metric was sampled.

    Args:
        report: to draw.
        width: of the picture, pixels.
    """
    drawn = [metric for metric in report.metrics if metric.values][:_MOST]
    if not drawn:
        return None
    origin = report.timeline.start_ns if report.timeline is not None else drawn[0].time_ns[0]
    first = min(metric.time_ns[0] for metric in drawn)
    whole = (max(metric.time_ns[-1] for metric in drawn) - first) or 1
    room = width - _LEFT - _RIGHT
    high = _ROW * len(drawn)
    parts = []
    for instance in report.instances[:_MAX_BANDS]:
        low = max(0.0, (instance.start_ns - first) / whole)
        end = min(1.0, (instance.end_ns - first) / whole)
        if end > low:
            kind = instance.stage if instance.stage in STAGE_COLOURS else "neither"
            parts.append(rect(f"band {kind}", _LEFT + room * low, 0, room * (end - low), high, visible(instance.path)))
    for row, metric in enumerate(drawn):
        parts += _strip(metric, _ROW * row + 6.0, room, first, whole)
    for value in axis_steps(whole, 6):
        x = _LEFT + room * value / whole
        anchor = "start" if value == 0 else "end" if x > _LEFT + room - 20 else "middle"
        at = round(first - origin + value)
        parts.append(text(x, high + 16, axis_time(at), anchor=anchor))
    return svg(width, high + 24, "Sampled GPU metrics over time", parts)


def _strip(metric: MetricSeries, top: float, room: float, first: int, whole: int) -> list[str]:
    most = max(*metric.values, 10.0 if metric.unit == "%" else 1e-9)
    each = -(-len(metric.values) // _MAX_POINTS)
    points = []
    for low in range(0, len(metric.values), each):
        times, values = metric.time_ns[low : low + each], metric.values[low : low + each]
        along = (sum(times) / len(times) - first) / whole
        points.append((_LEFT + room * along, top + _STRIP * (1 - sum(values) / len(values) / most)))
    unit = f", {visible(metric.unit)}" if metric.unit and metric.unit not in metric.name else ""
    name = shortened(visible(metric.name), 30) + unit
    foot = top + _STRIP
    return [
        text(_LEFT - 46, top + _STRIP / 2 + 4, name, kind="ink", anchor="end"),
        text(_LEFT - 6, top + 9, decimal(most, 1 if most < 10 else 0), anchor="end"),
        text(_LEFT - 6, foot, "0", anchor="end"),
        line("line", _LEFT, foot, _LEFT + room, foot),
        path("area busy", polyline(points, foot=foot), visible(metric.name)),
    ]
