"""What the charts and the kernel table of the HTML report draw, thinned so that the page stays small.

Rules of thinning, shown on the page where they bite: at most `MAX_STEPS` steps (consecutive steps of one instance are
averaged), `MAX_INSTANCES` instances (the first), `MAX_KERNELS` kernels (the longest; the rest is one row per stage) with
`MAX_SHAPES_OF_ONE` launch shapes each and `MAX_SHAPES` in all, `MAX_MODULES` modules a stage, `MAX_METRICS` metrics;
names are cut to `MAX_NAME_BYTES`, other texts to `MAX_TEXT_BYTES` (the files beside hold all).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from analysis.domain.columns import Records
from analysis.domain.entities import KernelSummary
from analysis.render.spec import kernels
from analysis.render.spec.shown import Sums, heading
from analysis.render.spec.specification import Column
from analysis.render.spec.text import visible
from analysis.report import Report
from analysis.sums.records import StepPoint

__all__ = ["MAX_INSTANCES", "MAX_KERNELS", "MAX_METRICS", "MAX_MODULES", "MAX_NAME_BYTES", "MAX_STEPS", "page_data"]

MAX_STEPS: Final = 2000
MAX_INSTANCES: Final = 400
MAX_KERNELS: Final = 600
MAX_MODULES: Final = 500
MAX_METRICS: Final = 16
MAX_SHAPES: Final = 1500
MAX_SHAPES_OF_ONE: Final = 24
MAX_NAME_BYTES: Final = 1200
MAX_TEXT_BYTES: Final = 120

_Plain = dict[str, Any]


def cut(name: str, limit: int = MAX_NAME_BYTES) -> str:
    """A name made visible, its middle left out where it is longer than ``limit`` bytes of UTF-8."""
    if len(name) <= limit and name.isascii() and name.isprintable():  # as almost always
        return name
    shown = visible(name[: 2 * limit] + name[-2 * limit :] if len(name) > 4 * limit else name)
    if len(shown) <= limit and shown.isascii():
        return shown
    raw = shown.encode()
    if len(raw) <= limit:
        return shown
    head = raw[: limit * 2 // 3].decode("utf-8", "ignore")
    tail = raw[-(limit // 3) :].decode("utf-8", "ignore")
    return f"{head} … {tail}"


def page_data(report: Report) -> _Plain:
    """Everything that the page's script reads, as plain values. Times in whole nanoseconds, which figures.js writes."""
    return {
        "timeline": _timeline(report),
        "steps": _steps(report.steps),
        "metrics": _metrics(report),
        "kernels": _kernels(report),
    }


def _timeline(report: Report) -> _Plain | None:
    """Stage instances, the bands behind the sampled metrics."""
    timeline = report.timeline
    if timeline is None:
        return None
    origin = timeline.start_ns
    shown = report.instances[:MAX_INSTANCES]
    return {
        "instances": [
            {"stage": instance.stage, "start": instance.start_ns - origin, "end": instance.end_ns - origin}
            for instance in shown
        ]
    }


def _steps(steps: Sequence[StepPoint]) -> _Plain | None:
    if not steps:
        return None
    with_context = all(step.context is not None for step in steps)
    points, width = _thinned(steps, with_context)
    return {
        "count": len(steps),
        "by": "context" if with_context else "index",
        "points": points,
        "averaged": width,
    }


def _thinned(steps: Sequence[StepPoint], with_context: bool) -> tuple[list[list[float]], int]:
    """Points (context or index, host elapsed ns, busy ns), and how many consecutive steps each is the mean of."""
    width = -(-len(steps) // MAX_STEPS)
    points = []
    group: list[StepPoint] = []
    for position, step in enumerate(steps):
        group.append(step)
        last = position + 1 == len(steps) or steps[position + 1].instance != step.instance
        if len(group) == width or last:
            where = [step.context if with_context and step.context is not None else step.index for step in group]
            points.append(
                [
                    round(sum(where) / len(group), 1) if len(group) > 1 else where[0],
                    round(sum(step.profiled_host_ns for step in group) / len(group)),
                    round(sum(step.busy_ns for step in group) / len(group)),
                ]
            )
            group = []
    return points, width


def _metrics(report: Report) -> _Plain | None:
    drawn = [metric for metric in report.metrics if metric.values][:MAX_METRICS]
    if not drawn:
        return None
    origin = report.timeline.start_ns if report.timeline is not None else drawn[0].time_ns[0]
    return {
        "series": [
            {
                "name": cut(metric.name, 80),
                "unit": visible(metric.unit),
                "points": [
                    [time - origin, round(value, 2)] for time, value in zip(metric.time_ns, metric.values, strict=True)
                ],
                "means": {stage: round(mean, 2) for stage, mean in metric.stage_means.items()},
            }
            for metric in drawn
        ],
        "left_out": len(report.metrics) - len(drawn),
    }


def _kernels(report: Report) -> _Plain:
    """The kernel table: its columns as declared, rows of values in their order, texts kept once.

    The first column is the stage. ``shapes`` maps a row's number to its launch shapes, the longest; ``folded`` adds up
    the kernels of each stage that are no rows.
    """
    spec = kernels.KERNELS
    columns = (spec["stage"], *(column for column in spec.for_reader("html") if column.key != "stage"))
    under = {column.below: column for column in columns if column.below}
    ordered = Records.of(report.kernels).descending("total_ns")
    chosen, rest = ordered[:MAX_KERNELS], ordered.part(MAX_KERNELS)
    strings: dict[str, int] = {}
    return {
        "columns": [_column(column, under.get(column.key)) for column in columns],
        "rows": [[_value(column, row, strings) for column in columns] for row in chosen],
        "unknown": _reasons(chosen, columns, strings),
        "shapes": _shapes(report, chosen, columns),
        "folded": [
            {"stage": visible(stage), "kernels": len(members), "sums": _sums(members)}
            for stage in dict.fromkeys(rest.values("stage"))
            for members in [rest.where("stage", stage)]
        ],
        "strings": list(strings),  # last: the rows above have filled it
    }


def _column(column: Column[Any], under: Column[Any] | None) -> _Plain:
    over = heading(column, under)
    return {
        "key": column.key,
        "label": over.label,
        "unit": over.unit,
        "definition": over.definition,
        "type": column.type,
        "style": column.style.name,
        "digits": column.style.digits,
        "align": column.style.align,
        "below": column.below,
        "adds": column.adds,
        "within": column.within,
    }


def _value(column: Column[KernelSummary], row: KernelSummary, strings: dict[str, int]) -> Any:
    value = column.value(row)
    if value is None:
        return None
    if column.type == "string":
        return strings.setdefault(cut(value, MAX_NAME_BYTES if column.style.code else MAX_TEXT_BYTES), len(strings))
    return _short(value) if column.type == "float64" else value


def _reasons(
    rows: Sequence[KernelSummary], columns: Sequence[Column[KernelSummary]], strings: dict[str, int]
) -> dict[int, dict[str, int]]:
    """Number of a row → column → why its value is unknown, as the place of the text in ``strings``."""
    made: dict[int, dict[str, int]] = {}
    for number, row in enumerate(rows):
        for column in columns:
            if column.value(row) is None and (why := column.why(row)):
                made.setdefault(number, {})[column.key] = strings.setdefault(why, len(strings))
    return made


def _short(value: float) -> float:
    """Nine significant digits: more than is ever shown."""
    return float(f"{value:.9g}")


def _sums(rows: Sequence[KernelSummary]) -> list[str]:
    sums = Sums(kernels.KERNELS, rows)
    return [
        f"{column.style(value)} {column.unit or column.label.lower()}"
        for column in kernels.KERNELS.for_reader("html")
        if not column.within and (value := sums.of(column)) is not None
    ]


def _shapes(
    report: Report, chosen: Sequence[KernelSummary], columns: Sequence[Column[KernelSummary]]
) -> dict[int, list[_Plain]]:
    """Number of a row → its launch shapes, longest first, where it has several; the last stands for those left out."""
    spec = kernels.KERNELS
    by_kernel: dict[tuple[str, str], list[KernelSummary]] = {
        (row.stage, row.name): [] for row in chosen if row.shapes > 1
    }
    for shape in report.kernel_shapes if by_kernel else ():
        if (shape.stage, shape.name) in by_kernel:
            by_kernel[shape.stage, shape.name].append(shape)
    made: dict[int, list[_Plain]] = {}
    room = MAX_SHAPES
    for number, row in enumerate(chosen):
        members = sorted(by_kernel.get((row.stage, row.name), ()), key=lambda shape: -shape.total_ns)
        if row.shapes < 2 or not members or room <= 0:
            continue
        shown, rest = members[:MAX_SHAPES_OF_ONE], members[MAX_SHAPES_OF_ONE:]
        room -= len(shown)
        made[number] = [
            {"rest": 0, "row": [None if column.type == "string" else _value(column, shape, {}) for column in columns]}
            for shape in shown
        ]
        if rest:
            sums = Sums(spec, rest)
            made[number].append({"rest": len(rest), "row": [sums.of(column) for column in columns]})
    return made
