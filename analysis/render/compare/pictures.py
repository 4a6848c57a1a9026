"""The pictures of a comparison as SVG that needs no script: a bar of a part leads to the part's row in the tables.

Slower and faster are told apart by direction and sign, and only then by colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen
from markupsafe import escape

from analysis.compare.records import Comparison, Contribution, Interval, StageDifference
from analysis.domain.figures import counted, duration, ledger, signed_duration
from analysis.render.compare import contents
from analysis.render.pictures.svg import axis_time, circle, line, rect, svg, text
from analysis.render.spec.compare import ANSWERS, band_in_words, interval_in_words, part_in_words
from analysis.render.spec.text import shortened, visible

__all__ = [
    "COLOURS",
    "NARROW",
    "WIDE",
    "Layout",
    "diverging_picture",
    "interval_picture",
    "repetitions_picture",
    "waterfall_picture",
]

COLOURS: Final = {"slower": "synchronising", "faster": "busy", "rest": "outside", "side": "idle", "new": "transfer"}
"""What a mark stands for → its colour in the palette."""


@frozen
class Layout:
    """Sizes of a picture, in pixels."""

    width: float
    left: float
    """Room for the names of parts beside their bars; 0: they stand above."""
    right: float
    """Room for figures behind the bars."""
    row: float
    most: int
    """Characters of a part's name; of a module's path its end says more than its beginning."""

    def name(self, name: str, y: float) -> str:
        """Name of a part whose bar's upper edge is at ``y``."""
        shown = name
        if len(name) > self.most:
            work, inside, module = name.rpartition(" in ")
            if inside:  # a kernel's work and where it is done: the innermost module says most of that
                shown = name = f"{work} in {module.rpartition('.')[2]}"
        if len(name) > self.most:
            dotted = "." in name and " " not in name
            shown = f"…{name[1 - self.most :]}" if dotted else shortened(name, self.most)
        if self.left:
            return text(self.left - 10, y + 13, shown, kind="ink", anchor="end")
        return text(0, y - 5, shown, kind="ink")

    def top(self, row: int) -> float:
        """Upper edge of the bar of a row."""
        return self.row * row + (6 if self.left else 20)


WIDE: Final = Layout(width=620, left=230, right=104, row=26, most=33)
"""One of two pictures side by side."""
NARROW: Final = Layout(width=344, left=0, right=92, row=40, most=50)
"""On a telephone."""
_BAR: Final = 16
_PARTS: Final = 9
"""Of a waterfall; smaller ones are drawn as one."""
_BARS: Final = 10
"""Of a picture of diverging bars."""
_FIGURE: Final = 78.0
"""Room for a figure on either side of them."""
_ZOOM: Final = 0.45
"""Where all that happens lies in less than this part of the bars' length, the axis begins later."""


@frozen
class _Bar:
    """A part as it is drawn."""

    name: str
    ns: float
    kind: str
    """Key of `COLOURS`."""
    hint: str
    anchor: str
    """Id of the row that says more; empty: there is none."""


def _bars(rows: Sequence[Contribution], most: int, anchors: Mapping[Contribution, str]) -> list[_Bar]:
    """The parts that changed most, the smaller ones as one, and the rest, which is never among these.

    Args:
        rows: of one stage and level, as `contents.of_level` orders them.
        most: so many bars at most.
        anchors: part → id of its row in the tables.
    """
    rest = [row for row in rows if row.kind == "rest"]
    parts = [row for row in rows if row.kind != "rest" and row.difference_ns]
    room = most - len(rest)
    alone, together = (parts, []) if len(parts) <= room else (parts[: room - 1], parts[room - 1 :])
    bars = [_bar(row, anchors.get(row, "")) for row in alone]
    if together:
        ns = sum(row.difference_ns for row in together)
        name = counted(len(together), "smaller part")
        bars.append(_Bar(name, ns, _direction(ns), f"{name} together: {signed_duration(ns)}", ""))
    return [*bars, *(_bar(row, anchors.get(row, "")) for row in rest)]


def _direction(ns: float) -> str:
    return "slower" if ns > 0 else "faster"


def _bar(row: Contribution, anchor: str) -> _Bar:
    name = part_in_words(row)
    hint = (
        f"{name}: {duration(row.base_ns)} → {duration(row.new_ns)}, {signed_duration(row.difference_ns)}"
        f"{f'. {visible(row.note)}' if row.note else ''}"
    )
    kind = "rest" if row.kind == "rest" else _direction(row.difference_ns)
    return _Bar("rest, not explained" if row.kind == "rest" else name, row.difference_ns, kind, hint, anchor)


def waterfall_picture(
    comparison: Comparison, stage: StageDifference, anchors: Mapping[Contribution, str], layout: Layout = WIDE
) -> str | None:
    """From the base's latency to the new one: each part begins where the one before ended; what is not explained is a part.

    Args:
        comparison: of the sides.
        stage: whose.
        anchors: contribution of level ``stage`` → id of its row in the tables.
        layout: of the picture.

    Returns:
        None: a side does not have the stage, or nothing is known of its parts.
    """
    rows = contents.of_level(comparison, stage.stage, "stage")
    if stage.base_ns is None or stage.new_ns is None or not rows:
        return None
    bars = _bars(rows, _PARTS, anchors)
    edges = [stage.base_ns]
    for bar in bars:
        edges.append(edges[-1] + bar.ns)
    # All figures of the picture in one unit: base and parts as a ledger writes them add up to what stands at the end.
    book = ledger([stage.base_ns, *(0.0 for _ in bars)], [stage.base_ns, *(bar.ns for bar in bars)])
    low, high = min(edges), max(edges)
    start = 0.0 if high - low > _ZOOM * high else max(0.0, low - 0.35 * (high - low or high))
    scale = (layout.width - layout.left - layout.right) / ((high - start) or 1)

    def place(ns: float) -> float:
        return layout.left + (ns - start) * scale

    height = layout.top(len(bars) + 1) + _BAR + 6
    parts = [line("line", layout.left, 0, layout.left, height)]
    ends = (
        (0, f"Base: {visible(comparison.base.label)}", stage.base_ns, "side", book.before[0]),
        (len(bars) + 1, f"New: {visible(comparison.new.label)}", edges[-1], "new", book.total[1]),
    )
    for row, name, ns, kind, figure in ends:
        y = layout.top(row)
        parts.append(layout.name(name, y))
        parts.append(
            rect(COLOURS[kind], layout.left, y, place(ns) - layout.left, _BAR, f"{name}: {duration(ns)}", radius=2)
        )
        parts.append(text(place(ns) + 6, y + 13, f"{figure} {book.unit}", kind="ink"))
        if start:
            parts.append(_broken(layout.left + 14, y))
    for row, (bar, figure) in enumerate(zip(bars, book.by[1:], strict=True)):
        y = layout.top(row + 1)
        begin, end = sorted((place(edges[row]), place(edges[row + 1])))
        drawn = [
            layout.name(bar.name, y),
            rect(COLOURS[bar.kind], begin, y, max(1.5, end - begin), _BAR, bar.hint, radius=2),
            text(max(end, begin + 1.5) + 6, y + 13, f"{figure} {book.unit}"),
        ]
        parts += _linked(bar.anchor, drawn)
    for row, edge in enumerate(edges):
        parts.append(line("line", place(edge), layout.top(row) + _BAR, place(edge), layout.top(row + 1)))
    if start:
        parts.append(text(layout.left, height + 10, f"the axis begins at {axis_time(start)}"))
        height += 14
    told = "; ".join(f"{bar.name} {signed_duration(bar.ns)}" for bar in bars)
    return svg(layout.width, height + 2, f"{visible(stage.stage)}: from base to new, part by part", parts, more=told)


def _broken(x: float, y: float) -> str:
    """The mark of a bar whose beginning is left out."""
    return f'<path class="cut" d="M{x:.1f} {y + _BAR + 2:.1f}l6 -{_BAR + 4}"/>'


def _linked(anchor: str, parts: list[str]) -> list[str]:
    return [f'<a href="#{escape(anchor)}">{"".join(parts)}</a>'] if anchor else parts


def diverging_picture(
    rows: Sequence[Contribution], title: str, anchors: Mapping[Contribution, str], layout: Layout = WIDE
) -> str | None:
    """Parts of one stage and level as bars to both sides of a line: what became faster to the left, slower to the right.

    Args:
        rows: those that changed most first.
        title: of the picture.
        anchors: part → id of its row in the tables.
        layout: of the picture.

    Returns:
        None: no part changed.
    """
    bars = _bars(rows, _BARS, anchors)
    if not bars:
        return None
    book = ledger([0.0 for _ in bars], [bar.ns for bar in bars])
    left, right = layout.left + _FIGURE, layout.width - _FIGURE
    least, most = min(0.0, *(bar.ns for bar in bars)), max(0.0, *(bar.ns for bar in bars))
    scale = (right - left) / ((most - least) or 1)
    zero = left - least * scale
    top = 20.0
    height = top + layout.top(len(bars) - 1) + _BAR + 6
    parts = []
    if least < 0:
        parts.append(text(zero - 8, 12, "◀ faster", anchor="end"))
    if most > 0:
        parts.append(text(zero + 8, 12, "slower ▶"))
    parts.append(line("roof", zero, top, zero, height))
    for row, (bar, figure) in enumerate(zip(bars, book.by, strict=True)):
        y = top + layout.top(row)
        end = zero + bar.ns * scale
        begin, wide = min(zero, end), max(1.5, abs(end - zero))
        place, anchor = (begin + wide + 5, "start") if bar.ns > 0 else (begin - 5, "end")
        drawn = [
            layout.name(bar.name, y),
            rect(COLOURS[bar.kind], begin, y, wide, _BAR, bar.hint, radius=2),
            text(place, y + 13, f"{figure} {book.unit}", anchor=anchor),
        ]
        parts += _linked(bar.anchor, drawn)
    told = "; ".join(f"{bar.name} {signed_duration(bar.ns)}" for bar in bars)
    return svg(layout.width, height, title, parts, more=told)


# --- repetitions and intervals -----------------------------------------------------------------------------------

_STAGE: Final = 104
"""Height of a stage, pixels."""
_EDGE: Final = 20


def repetitions_picture(comparison: Comparison, layout: Layout = WIDE) -> str | None:
    """Every repetition of both sides, stage by stage, and their medians as a dumbbell; None: there is no latency."""
    stages = [stage for stage in comparison.stages if stage.base_ns is not None and stage.new_ns is not None]
    parts: list[str] = []
    for number, stage in enumerate(stages):
        parts += _repetitions(comparison, stage, _STAGE * number, layout.width)
    return (
        svg(layout.width, _STAGE * len(stages), "Repetitions of both sides and their medians", parts)
        if stages
        else None
    )


def _repetitions(comparison: Comparison, stage: StageDifference, top: float, width: float) -> list[str]:
    sides = [
        ("Base", comparison.base.samples.get(stage.stage, ()), stage.base_ns or 0.0, "side"),
        ("New", comparison.new.samples.get(stage.stage, ()), stage.new_ns or 0.0, "new"),
    ]
    shown = [*(value for _, samples, _, _ in sides for value in samples), *(median for _, _, median, _ in sides)]
    low, high = min(shown), max(shown)
    scale = _Scale(low, high, 100, width - _EDGE)
    parts = [text(0, top + 14, f"{visible(stage.stage)}, per {visible(stage.per)}", kind="ink")]
    rows = (top + 36, top + 60)
    for (name, samples, median, kind), y in zip(sides, rows, strict=True):
        told = f"{len(samples)} ×" if samples else "profiled"
        parts.append(text(0, y + 4, f"{name}, {told}", kind="ink"))
        parts.append(line("line", scale.left, y, scale.right, y))
        for value in samples:
            parts.append(circle(f"bubble {COLOURS[kind]}", scale.at(value), y, 4.5, duration(value)))
        hint = f"{name}: median {duration(median)}" if samples else f"{name}: {duration(median)}"
        x = scale.at(median)
        parts.append(f'<g><title>{escape(hint)}</title><path class="median" d="M{x:.1f} {y - 8:.1f}v16"/></g>')
    first, second = (scale.at(median) for _, _, median, _ in sides)
    parts.append(f'<path class="dumbbell" d="M{first:.1f} {rows[0] + 8:.1f}L{second:.1f} {rows[1] - 8:.1f}"/>')
    parts += scale.axis(top + 82)
    return parts


def interval_picture(comparison: Comparison, layout: Layout = WIDE) -> str | None:
    """The difference of each stage with its interval, against none and against what unchanged runs differ by.

    None: no stage has an interval.
    """
    stages = [
        (stage, stage.interval, stage.difference_ns)
        for stage in comparison.stages
        if stage.interval is not None and stage.difference_ns is not None
    ]
    parts: list[str] = []
    for number, (stage, interval, difference) in enumerate(stages):
        parts += _interval(stage, interval, difference, _STAGE * number, layout.width)
    return svg(layout.width, _STAGE * len(stages), "Differences with their intervals", parts) if stages else None


def _interval(stage: StageDifference, interval: Interval, middle: float, top: float, width: float) -> list[str]:
    band = interval.band_ns or 0.0
    scale = _Scale(min(interval.low_ns, -band, middle), max(interval.high_ns, band, middle), _EDGE, width - _EDGE)
    look = ANSWERS[stage.answer]
    y = top + 48
    parts = [
        text(0, top + 14, f"{visible(stage.stage)}: {look.sign} {look.word}", kind="ink"),
        text(width, top + 14, f"{interval_in_words(interval)}", anchor="end"),
    ]
    if band:
        hint = f"Unchanged runs differ by {band_in_words(interval)} ({visible(interval.band_from)})"
        parts.append(rect("band idle", scale.at(-band), y - 20, scale.at(band) - scale.at(-band), 40, hint))
    zero = scale.at(0)
    parts.append(line("roof", zero, y - 22, zero, y + 22))
    low, high = scale.at(interval.low_ns), scale.at(interval.high_ns)
    kind = COLOURS[_direction(middle)] if stage.answer in ("regression", "improvement") else COLOURS["side"]
    hint = f"{signed_duration(middle)}, interval {interval_in_words(interval)}"
    parts.append(
        f'<g><title>{escape(hint)}</title><path class="s-{kind} interval" d="M{low:.1f} {y:.1f}H{high:.1f}'
        f'M{low:.1f} {y - 6:.1f}v12M{high:.1f} {y - 6:.1f}v12"/>'
        f'<rect class="{kind}" x="{scale.at(middle) - 5:.1f}" y="{y - 5:.1f}" width="10" height="10"/></g>'
    )
    parts += scale.axis(top + 82, signed=True)
    return parts


class _Scale:
    """Times along a line."""

    def __init__(self, low: float, high: float, left: float, right: float) -> None:
        """Fit times from ``low`` to ``high`` between two places."""
        margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
        self.left, self.right = left, right
        self._low = low - margin
        self._high = high + margin

    def at(self, ns: float) -> float:
        return self.left + (self.right - self.left) * (ns - self._low) / (self._high - self._low)

    def axis(self, y: float, *, signed: bool = False) -> list[str]:
        """A few round values below the line."""
        step = _round_step((self._high - self._low) / 4)
        unit = duration(max(abs(self._low), abs(self._high))).rpartition(" ")[2]
        size = _UNITS[unit]
        # As many decimals as tell one step from the next.
        digits = next((digits for digits in range(6) if abs(step / size * 10**digits % 1) < 1e-6), 6)
        value = step * -(-self._low // step)
        drawn = []
        while value <= self._high:
            x = self.at(value)
            label = f"{abs(value) / size:,.{digits}f} {unit}" if round(value / step) else "0"
            sign = "" if not round(value / step) else "−" if value < 0 else "+" if signed else ""
            drawn.append(line("line", x, y - 8, x, y - 3))
            drawn.append(text(min(max(x, self.left + 14), self.right - 14), y + 9, sign + label, anchor="middle"))
            value += step
        return [line("line", self.left, y - 8, self.right, y - 8), *drawn]


_UNITS: Final = {"s": 1e9, "ms": 1e6, "µs": 1e3, "ns": 1.0}


def _round_step(raw: float) -> float:
    size = 10.0 ** int(f"{raw:e}".partition("e")[2])
    return next((nice * size for nice in (1, 2, 2.5, 5) if nice * size >= raw), 10 * size)
