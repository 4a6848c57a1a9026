"""The Markdown report's pictures: small static SVGs that follow the reader's light or dark theme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from markupsafe import escape  # the standard library's own load a table of entities or an HTTP client

from analysis.domain.annotations import STAGES
from analysis.domain.figures import duration, share, whole_per_cents
from analysis.render.spec.budget import BUDGET_PARTS, time_budget
from analysis.render.spec.text import shortened, visible
from analysis.report import Report

__all__ = ["budget_picture", "category_picture", "step_picture"]

_WIDTH: Final = 860
_LEFT: Final = 180
_RIGHT: Final = 40
_STYLE: Final = """
text { font: 12px system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #57606a; }
.ink { fill: #1f2328; } .on { fill: #fff; font-weight: 600; } .line { stroke: #d0d7de; }
.prefill { fill: #2f6bd8; } .decode { fill: #d9730d; } .busy { fill: #12967f; } .launching { fill: #7f63c4; }
.outside { fill: #cdd3dc; } .draining { fill: #e08a7f; } .synchronising { fill: #d1453b; } .other { fill: #b58a2a; }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1; } .ink { fill: #e5e9f0; } .on { fill: #0f1217; } .line { stroke: #3d444d; }
.prefill { fill: #6ba3ff; } .decode { fill: #f59d4a; } .busy { fill: #2fbfa5; } .launching { fill: #a78bea; }
.outside { fill: #434c5a; } .draining { fill: #c9584f; } .synchronising { fill: #f0746a; } .other { fill: #d9b354; } }
"""
_MAX_POINTS: Final = 1000


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _rect(kind: str, x: float, y: float, width: float, height: float, hint: str) -> str:
    return (
        f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{max(0.0, width):.2f}" height="{height:.2f}">'
        f"<title>{escape(hint)}</title></rect>"
    )


def _text(x: float, y: float, text: str, *, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}">{escape(text)}</text>'


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
    drawn: list[str] = []
    x: float = _LEFT
    for part in BUDGET_PARTS:
        drawn += [_rect(part.key, x, 6, 10, 10, part.label), _text(x + 15, 15, part.label)]
        x += 28 + 6.4 * len(part.label)
    for index, (stage, parts) in enumerate(stages):
        y = 34 + 40 * index
        label = f"{stage.stage}, {duration(stage.profiled_host_ns)}"
        drawn.append(_text(_LEFT - 10, y + 18, label, kind="ink", anchor="end"))
        x = _LEFT
        whole = whole_per_cents([parts[part.key] for part in BUDGET_PARTS])
        for part, per_cent in zip(BUDGET_PARTS, whole, strict=True):
            ratio = parts[part.key] / stage.profiled_host_ns
            width = room * ratio
            hint = f"{stage.stage}: {part.label}, {duration(parts[part.key])}, {share(ratio)}"
            drawn.append(_rect(part.key, x, y, width, 26, hint))
            if ratio >= 0.05:
                face = "ink" if part.key == "outside" else "on"
                drawn.append(_text(x + width / 2, y + 17, per_cent, kind=face, anchor="middle"))
            x += width
    return _svg(40 + 40 * len(stages), "Where each stage's host time goes", drawn)


def category_picture(report: Report) -> str | None:
    """Share of each stage's GPU time by category; None: there are no kernels in a stage."""
    stages = [stage for stage in STAGES if any(row.stage == stage for row in report.categories)]
    shares = {(row.category, row.stage): row.share for row in report.categories if row.stage in stages}
    names = sorted(
        {name for name, _ in shares}, key=lambda name: -sum(shares.get((name, stage), 0) for stage in stages)
    )
    names = names[:14]
    if not names:
        return None
    most = max(shares.values()) or 1.0
    room = _WIDTH - _LEFT - _RIGHT - 20
    step = 12 * len(stages) + 8
    parts: list[str] = []
    for index, stage in enumerate(stages):
        parts += [_rect(stage, _LEFT + 90 * index, 6, 10, 10, stage), _text(_LEFT + 90 * index + 15, 15, stage)]
    for row, name in enumerate(names):
        y = 30 + step * row
        label = shortened(visible(name), 24)
        parts.append(_text(_LEFT - 10, y + 6 * len(stages) + 4, label, kind="ink", anchor="end"))
        for index, stage in enumerate(stages):
            part = shares.get((name, stage), 0.0)
            width = room * part / most
            top = y + 12 * index
            parts.append(_rect(stage, _LEFT, top, width, 11, f"{visible(name)}, {stage}: {share(part)}"))
            if part:
                parts.append(_text(_LEFT + width + 5, top + 10, share(part)))
    return _svg(36 + step * len(names), "Share of GPU time by kernel category", parts)


def step_picture(report: Report) -> str | None:
    """Host time and GPU-busy time of each decode step, in time order; None: there are fewer than two steps."""
    steps = report.steps
    if len(steps) < 2:
        return None
    width = -(-len(steps) // _MAX_POINTS)
    groups = [steps[low : low + width] for low in range(0, len(steps), width)]
    elapsed = [sum(step.profiled_host_ns for step in group) / len(group) for group in groups]
    busy = [sum(step.busy_ns for step in group) / len(group) for group in groups]
    most = max(*elapsed, *busy, 1.0)
    high, top = 150.0, 30.0
    room = _WIDTH - _LEFT - _RIGHT
    parts = [
        _rect("decode", _LEFT, 6, 10, 10, "host elapsed"),
        _text(_LEFT + 15, 15, "host elapsed per step"),
        _rect("busy", _LEFT + 170, 6, 10, 10, "GPU busy"),
        _text(_LEFT + 185, 15, "GPU busy per step"),
    ]
    for part in (0.0, 0.5, 1.0):
        y = top + high * (1 - part)
        parts.append(f'<line class="line" x1="{_LEFT}" x2="{_LEFT + room}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 10, y + 4, duration(most * part) if part else "0", anchor="end"))
    for index in range(len(groups)):
        x = _LEFT + room * index / max(1, len(groups) - 1)
        for kind, values in (("decode", elapsed), ("busy", busy)):
            y = top + high * (1 - values[index] / most)
            parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>')
    note = f"{len(steps)} decode steps in time order"
    if width > 1:
        note += f", each point the mean of {width}"
    parts.append(_text(_LEFT + room / 2, top + high + 22, note, anchor="middle"))
    return _svg(top + high + 32, "Time of each decode step", parts)
