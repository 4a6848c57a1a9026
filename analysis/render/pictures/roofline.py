"""What the stages reached, against what the device can reach at their arithmetic intensity."""

from __future__ import annotations

import math
import re
from typing import Final

from analysis.domain.figures import of_peak, rate, significant
from analysis.efficiency.records import Utilisation
from analysis.render.pictures.svg import circle, line, path, svg, text
from analysis.render.spec.text import visible
from analysis.render.spec.utilisation import TIME_BASES
from analysis.report import Report

__all__ = ["stage_roofline_picture"]

_LEFT: Final = 96.0
_RIGHT: Final = 30.0
_TOP: Final = 26.0
_HIGH: Final = 230.0


def stage_roofline_picture(report: Report, width: int = 860) -> str | None:
    """Roofs and, for each stage and time base, a mark with its name; None: FLOPs, bytes or peaks are not known.

    Args:
        report: to draw.
        width: of the picture, pixels.
    """
    points = [
        (row, row.arithmetic_intensity, row.flop / (row.time_ns / 1e9))
        for row in report.utilisation
        if row.flop and row.time_ns and row.arithmetic_intensity and row.stage != "total"
    ]
    roofs = {
        (row.peak_flop_per_s, row.peak_bytes_per_s): visible(row.peak_how or "")
        for row in report.utilisation
        if row.peak_flop_per_s and row.peak_bytes_per_s
    }
    if not points or not roofs:
        return None
    ridges = [flops / moved for flops, moved in roofs]
    x_low = math.floor(math.log10(min(*(x for _, x, _ in points), *ridges)) - 0.2)
    x_high = math.ceil(math.log10(max(*(x for _, x, _ in points), *ridges)) + 0.2)
    top = max(flops for flops, _ in roofs)
    y_low = math.floor(math.log10(min(y for _, _, y in points)))
    y_high = math.ceil(math.log10(top * 1.02))
    across = width - _LEFT - _RIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        along = (math.log10(x) - x_low) / (x_high - x_low)
        up = (math.log10(y) - y_low) / ((y_high - y_low) or 1)
        return _LEFT + across * along, _TOP + _HIGH * (1 - up)

    parts = [text(0, 12, "FLOP/s", kind="ink")]
    for power in range(y_low, y_high + 1):
        y = place(10.0**x_low, 10.0**power)[1]
        parts.append(line("line", _LEFT, y, _LEFT + across, y))
        parts.append(text(_LEFT - 8, y + 4, re.sub(r"\.0+ ", " ", rate(10.0**power, "FLOP/s")), anchor="end"))
    for power in range(x_low, x_high + 1):
        x = place(10.0**power, 10.0**y_low)[0]
        parts.append(text(x, _TOP + _HIGH + 16, f"{10.0**power:,g}", anchor="middle"))
    parts.append(
        text(_LEFT + across / 2, _TOP + _HIGH + 34, "arithmetic intensity, FLOP per byte", kind="ink", anchor="middle")
    )
    for (flops, moved), how in roofs.items():
        begin = max(10.0**x_low, 10.0**y_low / moved)
        (x1, y1), (x2, y2) = place(begin, begin * moved), place(flops / moved, flops)
        kind = "roof dashed" if how == "measured" else "roof"
        parts += [line(kind, x1, y1, x2, y2), line(kind, x2, y2, _LEFT + across, y2)]
        told = f"{rate(flops, 'FLOP/s')}, {rate(moved, 'B/s')} ({how})"
        parts.append(text(_LEFT + across, y2 - 6, told, anchor="end"))
    for stage in dict.fromkeys(point[0].stage for point in points):
        mine = sorted((point for point in points if point[0].stage == stage), key=lambda point: -point[2])
        lowest = -math.inf
        for row, intensity, reached in mine:
            x, y = place(intensity, reached)
            parts.append(_mark(row, x, y, reached))
            # Labels of one stage stand one below the other, however close its marks are.
            lowest = max(y + 4, lowest + 15)
            left = x > _LEFT + across * 0.55
            label = f"{stage}, {TIME_BASES[row.time_base]}"
            parts.append(text(x + (-11 if left else 11), lowest, label, kind="ink", anchor="end" if left else "start"))
    return svg(width, _TOP + _HIGH + 44, "Roofline of the stages", parts)


def _mark(row: Utilisation, x: float, y: float, reached: float) -> str:
    """Diamond: unprofiled. Hollow circle: the whole profiled time. Filled circle: while the GPU was busy."""
    mfu, mbu = (of_peak(value) for value in (row.mfu, row.mbu))
    hint = (
        f"{row.stage}, {TIME_BASES[row.time_base]}: {rate(reached, 'FLOP/s')} at "
        f"{significant(row.arithmetic_intensity or 0)} FLOP/B, MFU {mfu}, MBU {mbu}, peak {visible(row.peak_how or '')}"
    )
    if row.time_base == "unprofiled":
        return path(row.stage, f"M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7Z", hint)
    if row.time_base == "profiled elapsed":
        return circle(f"hollow s-{row.stage}", x, y, 5.5, hint)
    return circle(row.stage, x, y, 6, hint)
