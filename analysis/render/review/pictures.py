"""The review's two pictures as SVG that needs no script: the loss waterfall of a stage, and the roofline of kernels."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

from analysis.domain.figures import bytes_, duration, flop, rate, ratio
from analysis.efficiency.counters.waterfall import Loss, Waterfall
from analysis.efficiency.hardware import Peak
from analysis.render.pictures.palette import STAGE_COLOURS
from analysis.render.pictures.svg import circle, line, rect, svg, text
from analysis.render.spec.review import KernelLine
from analysis.render.spec.text import shortened, visible

__all__ = ["LOSS_COLOURS", "roofline_picture", "waterfall_picture"]

_WIDTH: Final = 860
_LEFT: Final = 210
_RIGHT: Final = 150
_ROW: Final = 26
_ON_THE_GPU: Final = ("ideal", "extra", "at_roofline", "below_roofline", "without_counters", "copies", "concurrent")

LOSS_COLOURS: Final = {
    "at_roofline": "busy",
    "below_roofline": "synchronising",
    "concurrent": "ranks",
    "copies": "transfer",
    "extra": "other",
    "gaps": "in_graph",
    "host": "outside",
    "ideal": "ideal",
    "residual": "outside",
    "without_counters": "idle",
}
"""Loss → colour of the palette."""


def waterfall_picture(waterfall: Waterfall) -> str | None:
    """Each loss as a bar that begins where the one before ended; None: the stage took no time.

    Where host and gaps are most of the stage, a second panel shows the GPU's part alone.
    """
    if waterfall.profiled_ns <= 0:
        return None
    losses = [one for one in waterfall.losses if one.ns]
    if waterfall.residual_ns:
        losses.append(Loss("residual", "Residual", waterfall.residual_ns, ""))
    per = f"per {waterfall.unit}" if waterfall.units else "in all"
    parts, height = _panel(losses, waterfall, 24.0)
    parts.insert(
        0,
        text(0, 14, f"{waterfall.stage}: {duration(waterfall.profiled_ns / (waterfall.units or 1))} {per}", kind="ink"),
    )
    on_gpu = [one for one in losses if one.key in _ON_THE_GPU]
    busy = sum(one.ns for one in on_gpu)
    if 0 < busy < 0.4 * waterfall.profiled_ns:
        title = f"of which the GPU works {duration(busy / (waterfall.units or 1))}:"
        parts.append(text(0, height + 22, title, kind="ink"))
        more, height = _panel(on_gpu, waterfall, height + 32)
        parts += more
    return svg(_WIDTH, height + 6, f"Where {waterfall.stage} loses its time", parts)


def _panel(losses: Sequence[Loss], waterfall: Waterfall, top: float) -> tuple[list[str], float]:
    edges = [0]
    for one in losses:
        edges.append(edges[-1] + one.ns)
    low, high = min(edges), max(*edges, 1)
    scale = (_WIDTH - _LEFT - _RIGHT) / (high - low)
    units = waterfall.units or 1
    parts = []
    for row, one in enumerate(losses):
        y = top + _ROW * row
        begin, end = sorted((edges[row], edges[row + 1]))
        x, width = _LEFT + (begin - low) * scale, max(1.0, (end - begin) * scale)
        hint = f"{one.label}: {duration(one.ns / units)}. {one.meaning}"
        parts.append(text(_LEFT - 10, y + 14, one.label, kind="ink", anchor="end"))
        parts.append(rect(LOSS_COLOURS[one.key], x, y, width, 18, hint, radius=2))
        value = f"{duration(one.ns / units)} · {ratio(one.ns / waterfall.profiled_ns)}"
        parts.append(text(x + width + 6, y + 14, value))
        if row:
            joint = _LEFT + (edges[row] - low) * scale
            parts.append(line("line", joint, y - _ROW + 18, joint, y))
    return parts, top + _ROW * len(losses)


_MOST_DOTS: Final = 400


def roofline_picture(lines: Sequence[KernelLine], peak: Peak | None, dtype: str) -> str | None:
    """Kernels by operations per byte from and to DRAM, and by operations per second; area is time.

    Args:
        lines: kernels, those with counters are drawn.
        peak: of the device.
        dtype: whose dense peak is the upper roof.

    Returns:
        None where the peak is not known or no kernel has both bytes and operations.
    """
    if peak is None or peak.bytes_per_s is None:
        return None
    dots = []
    for kernel in lines:
        row = kernel.row
        work = (row.tensor_flop or 0.0) + (row.cuda_flop or 0.0)
        if row.dram_bytes and work > 0 and row.covered_ns:
            dots.append((work / row.dram_bytes, work / row.covered_ns * 1e9, kernel))
    if not dots:
        return None
    dots = sorted(dots, key=lambda dot: -dot[2].row.covered_ns)[:_MOST_DOTS]
    roofs = [
        (name, value)
        for name, value in (
            (f"{dtype} tensor cores", peak.flop_per_s.get(dtype)),
            ("fp32 CUDA cores", peak.flop_per_s.get("fp32")),
        )
        if value
    ]
    top_rate = max([value for _, value in roofs] or [max(y for _, y, _ in dots)])
    x_low = math.floor(math.log10(max(min(x for x, _, _ in dots), 1e-3)))
    x_high = math.ceil(math.log10(max(max(x for x, _, _ in dots), top_rate / peak.bytes_per_s * 4)))
    y_low = math.floor(math.log10(max(min(y for _, y, _ in dots), 1e6)))
    y_high = math.ceil(math.log10(top_rate * 1.2))
    left, right, top, high = 104.0, 40.0, 24.0, 330.0
    across = _WIDTH - left - right

    def place(x: float, y: float) -> tuple[float, float]:
        along = (math.log10(x) - x_low) / (x_high - x_low)
        up = (math.log10(y) - y_low) / (y_high - y_low)
        return left + across * min(1.0, max(0.0, along)), top + high * (1 - min(1.0, max(0.0, up)))

    parts = [text(0, 14, "Operations per second", kind="ink")]
    for power in range(y_low, y_high + 1):
        y = place(10.0**x_low, 10.0**power)[1]
        parts.append(line("line", left, y, left + across, y))
        parts.append(text(left - 8, y + 4, re.sub(r"\.0+ ", " ", rate(10.0**power, "FLOP/s")), anchor="end"))
    for power in range(x_low, x_high + 1):
        x = place(10.0**power, 10.0**y_low)[0]
        parts.append(line("line", x, top, x, top + high))
        parts.append(text(x, top + high + 16, f"{10.0**power:,g}", anchor="middle"))
    parts.append(
        text(left + across / 2, top + high + 34, "Operations per byte from and to DRAM", kind="ink", anchor="middle")
    )
    begin = 10.0**x_low
    first, last = place(begin, begin * peak.bytes_per_s), place(top_rate / peak.bytes_per_s, top_rate)
    parts.append(line("roof", *first, *last))
    for name, value in roofs:
        x, y = place(value / peak.bytes_per_s, value)
        parts.append(line("roof", x, y, left + across, y))
        parts.append(text(left + across, y - 5, f"{name}, {rate(value, 'FLOP/s')}", anchor="end"))
    slowest = max(kernel.row.covered_ns for _, _, kernel in dots)
    for x_value, y_value, kernel in dots:
        x, y = place(x_value, y_value)
        radius = 2.5 + 13.5 * math.sqrt(kernel.row.covered_ns / slowest)
        row = kernel.row
        hint = (
            f"{shortened(visible(row.human_name or row.short_name), 80)} in {visible(row.module)}, {row.stage}: "
            f"{duration(row.mean_ns)} each, {bytes_((row.dram_bytes or 0) / row.covered_calls)} and "
            f"{flop(((row.tensor_flop or 0) + (row.cuda_flop or 0)) / row.covered_calls)} each"
        )
        kind = row.stage if row.stage in STAGE_COLOURS else "neither"
        parts.append(circle(f"bubble {kind}", x, y, radius, hint))
    return svg(_WIDTH, top + high + 44, "Roofline of the kernels", parts)
