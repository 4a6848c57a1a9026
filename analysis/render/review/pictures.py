"""The review's two pictures as SVG that needs no script: the loss waterfall of a stage, and the roofline of kernels."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

from markupsafe import escape  # the standard library's own load a table of entities or an HTTP client

from analysis.domain.annotations import STAGES
from analysis.domain.figures import bytes_, duration, flop, rate, ratio
from analysis.efficiency.counters.waterfall import Loss, Waterfall
from analysis.efficiency.hardware import Peak
from analysis.render.spec.review import KernelLine
from analysis.render.spec.text import shortened, visible

__all__ = ["alone", "roofline_picture", "waterfall_picture"]

_WIDTH: Final = 860
_LEFT: Final = 210
_RIGHT: Final = 150
_ROW: Final = 26
_ON_THE_GPU: Final = ("ideal", "extra", "at_roofline", "below_roofline", "without_counters", "copies", "concurrent")

STYLE: Final = """
.rv text { font: 12px system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #57606a; }
.rv .ink { fill: #1f2328; } .rv .line { stroke: #d0d7de; fill: none; } .rv .roof { stroke: #57606a; fill: none; }
.rv .ideal, .rv .at_roofline { fill: #12967f; } .rv .extra { fill: #b58a2a; } .rv .below_roofline { fill: #d1453b; }
.rv .without_counters { fill: #8a94a5; } .rv .copies { fill: #7f63c4; } .rv .concurrent { fill: #8a94a5; }
.rv .gaps { fill: #6f8fc0; } .rv .host, .rv .residual { fill: #b3bcc9; }
.rv .prefill { fill: #2f6bd8; fill-opacity: .45; } .rv .decode { fill: #d9730d; fill-opacity: .45; }
"""
_DARK: Final = """
.rv text { fill: #9198a1; } .rv .ink { fill: #e5e9f0; } .rv .line { stroke: #3d444d; } .rv .roof { stroke: #9198a1; }
.rv .host, .rv .residual { fill: #566071; }
"""
STYLE_OF_A_PAGE: Final = f"{STYLE} @media (prefers-color-scheme: dark) {{ {_DARK} }}"


def alone(picture: str) -> str:
    """A picture as a file of its own, with its style."""
    head, _, rest = picture.partition(">")
    return f"{head}>\n<style>{STYLE_OF_A_PAGE}</style>{rest}\n"


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="rv" width="100%" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}" style="max-width:{_WIDTH}px">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, *, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


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
        _text(
            0, 14, f"{waterfall.stage}: {duration(waterfall.profiled_ns / (waterfall.units or 1))} {per}", kind="ink"
        ),
    )
    on_gpu = [one for one in losses if one.key in _ON_THE_GPU]
    busy = sum(one.ns for one in on_gpu)
    if 0 < busy < 0.4 * waterfall.profiled_ns:
        title = f"of which the GPU works {duration(busy / (waterfall.units or 1))}:"
        parts.append(_text(0, height + 22, title, kind="ink"))
        more, height = _panel(on_gpu, waterfall, height + 32)
        parts += more
    return _svg(height + 6, f"Where {waterfall.stage} loses its time", parts)


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
        parts.append(_text(_LEFT - 10, y + 14, one.label, kind="ink", anchor="end"))
        parts.append(
            f'<rect class="{one.key}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="18" rx="2">'
            f"<title>{escape(hint)}</title></rect>"
        )
        value = f"{duration(one.ns / units)} · {ratio(one.ns / waterfall.profiled_ns)}"
        parts.append(_text(x + width + 6, y + 14, value))
        if row:
            parts.append(
                f'<line class="line" x1="{_LEFT + (edges[row] - low) * scale:.1f}" x2="{_LEFT + (edges[row] - low) * scale:.1f}" '
                f'y1="{y - _ROW + 18:.1f}" y2="{y:.1f}"/>'
            )
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
    for line in lines:
        row = line.row
        work = (row.tensor_flop or 0.0) + (row.cuda_flop or 0.0)
        if row.dram_bytes and work > 0 and row.covered_ns:
            dots.append((work / row.dram_bytes, work / row.covered_ns * 1e9, line))
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

    parts = [_text(0, 14, "Operations per second", kind="ink")]
    for power in range(y_low, y_high + 1):
        y = place(10.0**x_low, 10.0**power)[1]
        parts.append(f'<line class="line" x1="{left}" x2="{left + across}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 8, y + 4, re.sub(r"\.0+ ", " ", rate(10.0**power, "FLOP/s")), anchor="end"))
    for power in range(x_low, x_high + 1):
        x = place(10.0**power, 10.0**y_low)[0]
        parts.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + high}"/>')
        parts.append(_text(x, top + high + 16, f"{10.0**power:,g}", anchor="middle"))
    parts.append(
        _text(left + across / 2, top + high + 34, "Operations per byte from and to DRAM", kind="ink", anchor="middle")
    )
    begin = 10.0**x_low
    first, last = place(begin, begin * peak.bytes_per_s), place(top_rate / peak.bytes_per_s, top_rate)
    parts.append(f'<line class="roof" x1="{first[0]:.1f}" y1="{first[1]:.1f}" x2="{last[0]:.1f}" y2="{last[1]:.1f}"/>')
    for name, value in roofs:
        x, y = place(value / peak.bytes_per_s, value)
        parts.append(f'<line class="roof" x1="{x:.1f}" y1="{y:.1f}" x2="{left + across:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left + across, y - 5, f"{name}, {rate(value, 'FLOP/s')}", anchor="end"))
    slowest = max(line.row.covered_ns for _, _, line in dots)
    for x_value, y_value, line in dots:
        x, y = place(x_value, y_value)
        radius = 2.5 + 13.5 * math.sqrt(line.row.covered_ns / slowest)
        row = line.row
        hint = (
            f"{shortened(visible(row.human_name or row.short_name), 80)} in {visible(row.module)}, {row.stage}: "
            f"{duration(row.mean_ns)} each, {bytes_((row.dram_bytes or 0) / row.covered_calls)} and "
            f"{flop(((row.tensor_flop or 0) + (row.cuda_flop or 0)) / row.covered_calls)} each"
        )
        kind = row.stage if row.stage in STAGES else "host"
        parts.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{escape(hint)}</title></circle>'
        )
    return _svg(top + high + 44, "Roofline of the kernels", parts)
