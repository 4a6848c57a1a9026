"""The pictures of a sweep as SVG that needs no script: throughput against latency, utilisation, limits, memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from attrs import frozen

from analysis.domain.annotations import Stage
from analysis.domain.figures import bytes_, count, duration, of_peak, significant
from analysis.domain.sweep import StageFigures, SweepPoint
from analysis.render.pictures.palette import text_on
from analysis.render.pictures.svg import axis_steps, axis_time, circle, legend, line, path, polyline, rect, svg, text
from analysis.render.spec.sweep import prompt_tokens_of
from analysis.render.spec.text import shortened, visible
from analysis.sweep.answers import SweepAnswers, latency_ns, throughput
from analysis.sweep.crossover import Forecast, forecast
from analysis.sweep.series import SweepSeries, bound_of, figures_of, point_words

__all__ = [
    "SERIES_COLOURS",
    "context_picture",
    "forecast_picture",
    "memory_picture",
    "pareto_picture",
    "utilisation_picture",
]

SERIES_COLOURS: Final = ("launching", "busy", "transfer", "other", "synchronising", "idle", "ideal", "draining")
"""Of the palette, one a series; further series begin anew, and the labels tell them apart."""

_ROW_OF_LEGEND: Final = 18.0


def _colour(place: int) -> str:
    return SERIES_COLOURS[place % len(SERIES_COLOURS)]


def _label(series: SweepSeries) -> str:
    return visible(series.label) or "all points"


def _legend(entries: Sequence[tuple[str, str]], x: float, width: float) -> tuple[list[str], float]:
    """Entries in as many rows as they need, and the height of them all."""
    rows: list[list[tuple[str, str]]] = [[]]
    room = width
    for entry in entries:
        wide = 34 + 6.4 * len(entry[1])
        if rows[-1] and room < wide:
            rows.append([])
            room = width
        rows[-1].append(entry)
        room -= wide
    drawn = [part for place, row in enumerate(rows) for part in legend(row, x, 6 + _ROW_OF_LEGEND * place)]
    return drawn, _ROW_OF_LEGEND * len(rows) + 10


def pareto_picture(answers: SweepAnswers, width: int = 860) -> str | None:
    """Tokens per second over time per token, both logarithmic: a line a series with its batches, and the Pareto front.

    Of a sweep without decode: pages per minute over the time of a batch of pages. None: nothing was measured.
    """
    if not answers.front:
        return None
    left, right, high = 70.0, 30.0, 320.0
    drawn = [
        (row, [(latency, rate, point) for point in row.measured
               if (latency := latency_ns(point)) is not None and (rate := throughput(point)) is not None])
        for row in answers.series
    ]  # fmt: skip
    every = [place for _, places in drawn for place in places]
    low_x, up_x = _log_ends([x for x, _, _ in every])
    low_y, up_y = _log_ends([y for _, y, _ in every])
    decodes = answers.front[-1].decode is not None
    keys, top = _legend(
        [*((f"{_colour(place)} round", _label(row)) for place, (row, _) in enumerate(drawn)), ("ink", "Pareto front")],
        left,
        width - left - right,
    )
    top += 16
    across = width - left - right

    def at(x: float, y: float) -> tuple[float, float]:
        along, up = (math.log10(x) - low_x) / (up_x - low_x), (math.log10(y) - low_y) / (up_y - low_y)
        return left + across * along, top + high * (1 - up)

    parts = [*keys, text(0, top - 8, "Tokens per second" if decodes else "Pages per minute", kind="ink")]
    parts.append(text(width - right, top - 8, "number at a point: its batch", anchor="end"))
    for value in _log_steps(10**low_y, 10**up_y, 4):
        y = at(10**low_x, value)[1]
        parts += [line("line", left, y, left + across, y), text(left - 8, y + 4, f"{value:,g}", anchor="end")]
    for value in _log_steps(10**low_x, 10**up_x, 4):
        x = at(value, 10**low_y)[0]
        parts += [line("line", x, top, x, top + high), text(x, top + high + 16, axis_time(value), anchor="middle")]
    under = "Time per output token" if decodes else "Time of a batch of pages"
    parts.append(text(left + across / 2, top + high + 34, under, kind="ink", anchor="middle"))
    corners: list[tuple[float, float]] = []
    for point in answers.front:
        x, y = at(latency_ns(point) or 1.0, throughput(point) or 1.0)
        corners += [(x, corners[-1][1]), (x, y)] if corners else [(x, y)]
    parts.append(path("ink-line dashed", polyline(corners)))
    labelled: list[tuple[float, float]] = []
    for place, (_, places) in enumerate(drawn):
        colour = _colour(place)
        if len(places) > 1:
            parts.append(path(f"curve s-{colour}", polyline([at(x, y) for x, y, _ in places])))
        for latency, rate, point in places:
            x, y = at(latency, rate)
            on_front = "on the front: " if point in answers.front else ""
            unit = "tokens/s" if decodes else "pages/min"
            hint = f"{on_front}{point_words(answers.sweep, point)}: {significant(rate)} {unit}, {duration(latency)}"
            parts.append(circle(colour, x, y, 6 if point in answers.front else 4, visible(hint)))
            if all(abs(x - other_x) > 14 or abs(y - other_y) > 11 for other_x, other_y in labelled):
                parts.append(text(x + 8, y + 13, count(point.setting.batch_size), kind="ink"))
                labelled.append((x, y))
    return svg(width, top + high + 44, f"{'Throughput' if decodes else 'Pages'} against latency", parts)


def _log_ends(values: Sequence[float]) -> tuple[float, float]:
    """Logarithms to base 10 between which an axis shows values, with some room."""
    low, up = math.log10(min(values)), math.log10(max(values))
    room = max(0.04, (up - low) * 0.06)
    return low - room, up + room


@frozen
class _Curve:
    """A line of a panel."""

    colour: str
    points: tuple[tuple[float, float, str], ...]
    """x, y, hint."""
    style: str = "curve"
    dotted: bool = True


@frozen
class _Panel:
    """One small diagram."""

    title: str
    curves: tuple[_Curve, ...]
    write: Callable[[float], str]
    under: str
    log_y: bool = False
    marks: tuple[tuple[float, str], ...] = ()
    """Vertical lines: x and label."""
    ticks: tuple[float, ...] = ()
    """Values that the axis names."""


def _grid(panels: Sequence[_Panel], keys: Sequence[tuple[str, str]], title: str, width: int) -> str:
    """Panels two in a row, over a logarithmic axis to base 2."""
    entries, top = _legend(keys, 0, width)
    parts = [*entries]
    wide, tall, gap = width / 2 - 12, 222.0, 24.0
    for place, panel in enumerate(panels):
        x = (place % 2) * (wide + gap)
        parts += _drawn(panel, x, top + 8 + (place // 2) * tall, wide)
    return svg(width, top + 8 + tall * math.ceil(len(panels) / 2), title, parts)


def _drawn(panel: _Panel, x0: float, y0: float, wide: float) -> list[str]:
    left, right, top, high = 58.0, 12.0, 22.0, 150.0
    places = [point for curve in panel.curves for point in curve.points]
    first, last = math.log2(min(x for x, _, _ in places)), math.log2(max(x for x, _, _ in places))
    least, most = min(y for _, y, _ in places), max(y for _, y, _ in places)
    if panel.log_y:
        low, up = math.log10(least) - 0.05, math.log10(most) + 0.08
    else:
        low, up = 0.0, (most or 1.0) * 1.1

    def at(x: float, y: float) -> tuple[float, float]:
        along = (math.log2(x) - first) / ((last - first) or 1)
        value = math.log10(y) if panel.log_y else y
        return (
            x0 + left + (wide - left - right) * (along if last > first else 0.5),
            y0 + top + high * (1 - (value - low) / ((up - low) or 1)),
        )

    parts = [text(x0, y0 + 10, panel.title, kind="ink strong")]
    for value in _log_steps(least, most) if panel.log_y else axis_steps(up, 3):
        y = at(2**first, value)[1]
        parts += [
            line("line", x0 + left, y, x0 + wide - right, y),
            text(x0 + left - 6, y + 4, panel.write(value), anchor="end"),
        ]
    beyond = x0 + left - 40
    for value in panel.ticks or sorted({x for x, _, _ in places}):
        x = at(value, least or 1.0)[0]
        if x - beyond >= 30 or value == 2**last:
            parts.append(text(x, y0 + top + high + 16, count(round(value)), anchor="middle"))
            beyond = x
    parts.append(text(x0 + wide - right, y0 + top + high + 32, panel.under, anchor="end"))
    for value, label in panel.marks:
        if first <= math.log2(value) <= last:
            x = at(value, least or 1.0)[0]
            anchor = "end" if x > x0 + wide * 0.6 else "start"
            shift = -5 if anchor == "end" else 5
            parts.append(line("ink-line dashed", x, y0 + top, x, y0 + top + high))
            parts.append(text(x + shift, y0 + top + high - 6, label, kind="ink", anchor=anchor))
    for curve in panel.curves:
        if len(curve.points) > 1:
            parts.append(path(f"{curve.style} s-{curve.colour}", polyline([at(x, y) for x, y, _ in curve.points])))
        if curve.dotted or len(curve.points) == 1:
            parts += [circle(curve.colour, *at(x, y), 3.5, hint) for x, y, hint in curve.points]
    return parts


def _log_steps(least: float, most: float, finest: float = 1.5) -> list[float]:
    """Round values between two: powers of ten; over at most ``finest`` decades also 2 and 5 times them."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    wide = math.log10(most / least) > finest
    values = [factor * 10.0**power for power in powers for factor in ((1,) if wide else (1, 2, 5))]
    return [value for value in values if least * 0.95 <= value <= most * 1.05]


def _ratio_axis(value: float) -> str:
    return f"{value * 100:g} %"


def utilisation_picture(answers: SweepAnswers, width: int = 860) -> str | None:
    """MFU and MBU of prefill and decode over the batch, a curve a series; None: none is known."""
    return _utilisation(answers, "batch", "MFU and MBU over the batch", width)


def context_picture(answers: SweepAnswers, width: int = 860) -> str | None:
    """The same over the prompt's length, a curve for each batch; None: there is one length only."""
    if len({prompt_tokens_of(point) for point in answers.sweep.points if point.status == "measured"}) < 2:
        return None
    return _utilisation(answers, "prompt tokens", "MFU and MBU over the context", width)


def _utilisation(answers: SweepAnswers, over: str, title: str, width: int) -> str | None:
    if over == "batch":
        lines = [(_label(row), row.measured) for row in answers.series]
    else:
        best = answers.front[-1].setting  # of its decode mode and length: all of them would hide each other
        groups: dict[int, list[SweepPoint]] = {}
        for point in answers.sweep.points:
            same = (point.setting.decode_mode, point.setting.max_new_tokens) == (best.decode_mode, best.max_new_tokens)
            if point.status == "measured" and prompt_tokens_of(point) and same:
                groups.setdefault(point.setting.batch_size, []).append(point)
        lines = [
            (f"batch {count(batch)}", tuple(sorted(points, key=lambda point: prompt_tokens_of(point) or 0)))
            for batch, points in groups.items()
            if len(points) > 1
        ]
    panels = []
    stages: tuple[Stage, ...] = ("prefill", "decode")
    for stage in stages:
        for name in ("mfu", "mbu"):
            curves = []
            for place, (label, points) in enumerate(lines):
                known = [
                    (
                        float(point.setting.batch_size if over == "batch" else prompt_tokens_of(point) or 1),
                        value,
                        visible(f"{label}, {point_words(answers.sweep, point)}: {name.upper()} {of_peak(value)}"),
                    )
                    for point in points
                    if (figures := figures_of(point, stage)) is not None
                    and (value := figures.mfu if name == "mfu" else figures.mbu) is not None
                ]
                if known:
                    curves.append(_Curve(_colour(place), tuple(known)))
            if curves:
                panels.append(_Panel(f"{stage.capitalize()}: {name.upper()}", tuple(curves), _ratio_axis, over))
    if not panels:
        return None
    return _grid(panels, [(f"{_colour(place)} round", label) for place, (label, _) in enumerate(lines)], title, width)


def forecast_picture(answers: SweepAnswers, stage: Stage, width: int = 860) -> str | None:
    """Measured time per unit beside what the first point predicts, over the batch, a panel a series.

    None: nothing can be predicted.
    """
    panels = []
    for row in answers.series:
        model, _ = forecast(answers.sweep, row, stage)
        points = [
            (point.setting.batch_size, figures)
            for point in row.measured
            if (figures := figures_of(point, stage)) is not None
        ]
        if model is None or len(points) < 2:
            continue
        first, last = points[0][0], points[-1][0]
        steps = 48
        sizes = sorted(
            {round(2 ** (math.log2(first) + math.log2(last / first) * step / steps)) for step in range(steps + 1)}
        )
        expected = [model(size) for size in sizes]
        measured = tuple(
            (float(batch), figures.median_ns, _forecast_hint(batch, figures, model(batch))) for batch, figures in points
        )
        busy = tuple(
            (float(batch), figures.busy_ns, f"batch {count(batch)}: GPU busy {duration(figures.busy_ns)}")
            for batch, figures in points
            if figures.busy_ns
        )
        marks = [
            (float(change.predicted), f"predicted from {count(change.predicted)} on")
            for change in answers.crossovers
            if change.series == row.label and change.stage == stage and change.predicted
        ]
        curves = (
            _Curve("idle", _line(expected, lambda point: point.roof_ns), "curve dashed", dotted=False),
            _Curve("launching", _line(expected, lambda point: point.unit_ns), "curve dashed", dotted=False),
            _Curve("transfer", _line(expected, lambda point: point.unit_least_ns), "curve dashed", dotted=False),
            _Curve("busy", busy),
            _Curve(stage, measured),
        )
        panels.append(
            _Panel(_label(row), tuple(curve for curve in curves if curve.points), axis_time, "batch", True, tuple(marks),
                   tuple(float(batch) for batch, _ in points))
        )  # fmt: skip
    if not panels:
        return None
    keys = [
        (f"{stage} round", "measured"),
        ("busy round", "GPU busy, measured"),
        ("launching", "predicted at most"),
        ("transfer", "predicted at least"),
        ("idle", "roof: bytes or FLOP at peak"),
    ]
    return _grid(panels, keys, f"{stage.capitalize()}: measured and predicted time over the batch", width)


def _forecast_hint(batch: int, figures: StageFigures, expected: Forecast) -> str:
    predicted = f"{duration(expected.unit_least_ns)} to {duration(expected.unit_ns)}"
    bound = bound_of(figures) or "verdict n/a"
    return visible(f"batch {count(batch)}: measured {duration(figures.median_ns)}, predicted {predicted}; {bound}")


def _line(points: Sequence[Forecast], value: Callable[[Forecast], float]) -> tuple[tuple[float, float, str], ...]:
    return tuple((float(point.batch_size), value(point), "") for point in points if value(point) > 0)


def _bytes_axis(value: float) -> str:
    number, _, unit = bytes_(value).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


_MEMORY_PARTS: Final = (
    ("weights", "transfer", "weights"),
    ("kv_cache", "busy", "KV cache"),
    ("activations", "other", "activations, workspaces"),
    ("reserved_unused", "outside", "reserved, unused"),
)
_MOST_BARS: Final = 48


def memory_picture(answers: SweepAnswers, width: int = 860) -> str | None:
    """Memory at the peak of each point, stacked; points that did not fit are rows too. None: it is known of no point."""
    points = [point for row in answers.series for point in row.points
              if point.memory is not None or point.status == "out of memory"][:_MOST_BARS]  # fmt: skip
    sizes = [
        max(point.memory.device_total or 0, point.memory.peak_reserved) for point in points if point.memory is not None
    ]
    if not sizes:
        return None
    used = max(point.memory.peak_reserved for point in points if point.memory is not None)
    device = next((point.memory.device_total for point in points if point.memory and point.memory.device_total), None)
    full = device is not None and (used > device / 3 or any(point.status == "out of memory" for point in points))
    most = float(device if full and device is not None else used) * 1.02
    names = [shortened(visible(point_words(answers.sweep, point)), 40) for point in points]
    left = 12 + 7.0 * max(map(len, names))
    right = 92.0
    across = width - left - right
    keys, top = _legend([(colour, label) for _, colour, label in _MEMORY_PARTS], left, width - left)
    parts = [*keys]
    bottom = top + 24 * len(points)
    for value in axis_steps(most, 5):
        x = left + across * value / most
        parts += [
            line("line", x, top, x, bottom),
            text(x, bottom + 15, _bytes_axis(value), anchor="middle"),
        ]
    for place, (point, name) in enumerate(zip(points, names, strict=True)):
        y = top + 24.0 * place + 3
        parts.append(text(left - 8, y + 13, name, kind="ink", anchor="end"))
        if point.memory is None:
            wide = across * (device or most) / most if full else across
            parts.append(rect("draining", left, y, wide, 18, visible(point.reason or ""), radius=2))
            parts.append(text(left + 8, y + 13, "out of memory", kind=text_on("draining")))
            continue
        x = left
        for key, colour, label in _MEMORY_PARTS:
            value = getattr(point.memory, key)
            wide = across * max(0, value) / most
            parts.append(
                rect(colour, x, y, max(0.3, wide - 0.6) if value > 0 else 0, 18, f"{name}: {label} {bytes_(value)}")
            )
            x += wide
        parts.append(text(x + 6, y + 13, bytes_(point.memory.peak_reserved)))
    if full and device is not None:
        x = left + across * device / most
        parts.append(line("ink-line dashed", x, top - 2, x, bottom))
        parts.append(text(x, bottom + 30, f"device {bytes_(device)}", kind="ink", anchor="end"))
    elif device is not None:
        parts.append(text(width, bottom + 30, f"of {bytes_(device)} on the device", kind="ink", anchor="end"))
    return svg(width, bottom + 38, "Memory at the peak of each point", parts)
