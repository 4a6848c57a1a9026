"""What all pictures are drawn with: shapes, texts, scales, and one style.

A picture is an ``svg`` element of class ``pic`` without a style: on a page the page's own style applies, which follows its
theme. As a file it gets the same style with the colours written out (`alone`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from markupsafe import escape  # the standard library's own load a table of entities or an HTTP client

from analysis.domain.figures import duration
from analysis.render.pictures.palette import PARTS, STAGE_COLOURS, literal

__all__ = [
    "STYLE",
    "alone",
    "axis_steps",
    "axis_time",
    "circle",
    "dots",
    "legend",
    "line",
    "path",
    "polyline",
    "rect",
    "svg",
    "text",
]

_FACE: Final = 'system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif'
STYLE: Final = (
    f".pic text{{font:12px {_FACE};fill:var(--muted)}}"
    ".pic .ink{fill:var(--ink)}.pic .on{fill:var(--on)}.pic .deep{fill:var(--deep)}"
    ".pic .on,.pic .deep,.pic .strong{font-weight:600}"
    ".pic .line{stroke:var(--line);fill:none}.pic .roof{stroke:var(--muted);stroke-width:1.5;fill:none}"
    ".pic .curve{fill:none;stroke-width:2}"
    ".pic .dashed{stroke-dasharray:4 3}.pic .ink-line{stroke:var(--ink);fill:none}"
    ".pic .band{fill-opacity:.14}.pic .area{fill-opacity:.45}.pic .bubble{fill-opacity:.45}"
    ".pic .round,.pic .square{fill:none;stroke-width:4.5;stroke-opacity:.75}.pic .round{stroke-linecap:round}"
    ".pic .square{stroke-linecap:square;stroke-width:3.5}"
    ".pic .hollow{fill:var(--card);stroke-width:2.5}"
    + "".join(
        f".pic .{name}{{fill:var(--{name})}}.pic .s-{name}{{stroke:var(--{name})}}" for name in (*PARTS, *STAGE_COLOURS)
    )
)


def svg(width: float, height: float, title: str, parts: Iterable[str], *, more: str = "") -> str:
    """An ``svg`` element that is as wide as its place allows, at most its own width.

    Args:
        width: of the drawing, in its own units, which are pixels where there is room.
        height: the same.
        title: what a screen reader says.
        parts: elements.
        more: a longer description, for a screen reader.
    """
    described = f"<desc>{escape(more)}</desc>" if more else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="pic" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{described}{''.join(parts)}</svg>"
    )


def alone(picture: str) -> str:
    """A picture as a file of its own: with its style, which follows the reader's theme."""
    head, _, rest = picture.partition(">")
    dark = f"@media (prefers-color-scheme: dark){{{literal(STYLE, dark=True)}}}"
    return f"{head}>\n<style>{literal(STYLE, dark=False)}\n{dark}</style>\n{rest}\n"


def rect(kind: str, x: float, y: float, width: float, height: float, hint: str = "", *, radius: float = 0) -> str:
    """A filled rectangle; ``hint`` is shown where the pointer rests on it."""
    rounded = f' rx="{radius:g}"' if radius else ""
    told = f"><title>{escape(hint)}</title></rect>" if hint else "/>"
    return f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{max(0.0, width):.2f}" height="{height:.2f}"{rounded}{told}'


def circle(kind: str, x: float, y: float, radius: float, hint: str = "") -> str:
    """A circle."""
    told = f"><title>{escape(hint)}</title></circle>" if hint else "/>"
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"{told}'


def text(x: float, y: float, content: str, *, kind: str = "", anchor: str = "start") -> str:
    """One line of text."""
    face = f' class="{kind}"' if kind else ""
    placed = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text{face} x="{x:.1f}" y="{y:.1f}"{placed}>{escape(content)}</text>'


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def path(kind: str, commands: str, hint: str = "") -> str:
    """A path, filled or stroked as its class says."""
    told = f"><title>{escape(hint)}</title></path>" if hint else "/>"
    return f'<path class="{kind}" d="{commands}"{told}'


def polyline(points: Sequence[tuple[float, float]], *, foot: float | None = None) -> str:
    """Commands of a path through points; with ``foot`` an area down to that height."""
    drawn = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    if foot is None:
        return f"M{drawn}"
    return f"M{points[0][0]:.1f} {foot:.1f}L{drawn}L{points[-1][0]:.1f} {foot:.1f}Z"


def dots(kind: str, points: Iterable[tuple[float, float]]) -> str:
    """Many equal dots as one path; ``kind`` has ``round`` or ``square``."""
    return path(kind, "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points))


def legend(entries: Iterable[tuple[str, str]], x: float, y: float) -> list[str]:
    """Swatches with labels, side by side: pairs of class and label."""
    drawn = []
    for kind, label in entries:
        drawn.append(rect(kind, x, y, 10, 10, radius=5 if "round" in kind.split() else 2))
        drawn.append(text(x + 15, y + 9.5, label))
        x += 34 + 6.4 * len(label)
    return drawn


def axis_time(ns: float) -> str:
    """A time on an axis: ``200 ms``, ``0``, ``1.5 s``, without zeros that say nothing."""
    if not round(ns):
        return "0"
    number, _, unit = duration(round(ns)).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def axis_steps(most: float, count: int = 4) -> list[float]:
    """Round values from 0 to at least nearly ``most``, about ``count`` of them, for an axis."""
    if most <= 0:
        return [0.0]
    raw = most / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next((nice * size for nice in (1, 2, 2.5, 5) if nice * size >= raw), 10 * size)
    return [step * index for index in range(math.floor(most / step * 1.0001) + 1)]
