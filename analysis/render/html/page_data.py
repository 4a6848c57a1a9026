"""What the charts and the kernel table of the HTML report draw, thinned so that the page stays small.

Rules of thinning, shown on the page where they bite: at most `MAX_STEPS` steps (consecutive steps of one instance are
averaged), `MAX_INSTANCES` instances (the first), `MAX_KERNELS` kernels (the longest; the rest is one row per stage),
`MAX_MODULES` modules a stage, `MAX_METRICS` metrics; names are cut to `MAX_NAME_BYTES` (the files beside hold all).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from analysis.domain.annotations import STAGES
from analysis.domain.entities import KernelSummary
from analysis.render.spec.text import visible
from analysis.report import Report
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.records import GpuRow, StepPoint

__all__ = ["MAX_INSTANCES", "MAX_KERNELS", "MAX_METRICS", "MAX_MODULES", "MAX_NAME_BYTES", "MAX_STEPS", "page_data"]

MAX_STEPS: Final = 2000
MAX_INSTANCES: Final = 400
MAX_KERNELS: Final = 600
MAX_MODULES: Final = 500
MAX_METRICS: Final = 16
MAX_NAME_BYTES: Final = 1200
_HISTOGRAM_BINS: Final = 40

_Plain = dict[str, Any]


def cut(name: str, limit: int = MAX_NAME_BYTES) -> str:
    """A name made visible, its middle left out where it is longer than ``limit`` bytes of UTF-8."""
    shown = visible(name[: 2 * limit] + name[-2 * limit :] if len(name) > 4 * limit else name)
    raw = shown.encode()
    if len(raw) <= limit:
        return shown
    head = raw[: limit * 2 // 3].decode("utf-8", "ignore")
    tail = raw[-(limit // 3) :].decode("utf-8", "ignore")
    return f"{head} … {tail}"


def page_data(report: Report) -> _Plain:
    """Everything that the page's script reads, as plain values. Times in ms, rounded to the microsecond or finer."""
    return {
        "timeline": _timeline(report),
        "budget": _budget(report),
        "categories": _categories(report),
        "steps": _steps(report.steps),
        "modules": {stage: _tree(rows) for stage, rows in report.module_rows.items() if rows},
        "roofline": _roofline(report),
        "metrics": _metrics(report),
        "kernels": _kernels(report.kernels),
    }


def _ms(ns: float) -> float:
    return round(ns / 1e6, 4)


def _timeline(report: Report) -> _Plain | None:
    timeline = report.timeline
    if timeline is None:
        return None
    origin = timeline.start_ns
    shown = report.instances[:MAX_INSTANCES]
    return {
        "slice_ms": timeline.slice_ns / 1e6,
        "busy": [round(100 * busy / timeline.slice_ns, 1) for busy in timeline.busy_ns],
        "instances": [
            {
                "path": cut(one.path),
                "stage": one.stage,
                "start": _ms(one.start_ns - origin),
                "end": _ms(one.end_ns - origin),
                "busy": _ms(one.busy_ns),
                "kernels": one.kernels,
                "steps": one.steps,
            }
            for one in shown
        ],
        "left_out": len(report.instances) - len(shown),
    }


def _budget(report: Report) -> list[_Plain]:
    rows = []
    for stage in report.stages:
        gaps = stage.gaps
        if gaps is None:
            continue
        rows.append(
            {
                "stage": stage.stage,
                # Busy inside the host range: what of it runs on after the range has closed is not part of it.
                "busy": _ms(max(0, stage.host_elapsed_ns - gaps.total_ns)),
                "launching": _ms(gaps.launching_ns),
                "synchronising": _ms(gaps.synchronising_ns),
                "other": _ms(gaps.other_api_ns),
                "outside": _ms(gaps.outside_api_ns),
                "elapsed": _ms(stage.host_elapsed_ns),
            }
        )
    return rows


def _categories(report: Report) -> _Plain:
    present = {row.stage for row in report.categories}
    # What belongs to no stage would bring a scale of its own; it stands in the table by stage.
    stages: list[str] = [stage for stage in STAGES if stage in present] or sorted(present)
    weight: dict[str, float] = {}
    for row in report.categories:
        if row.stage in stages:
            weight[row.category] = weight.get(row.category, 0.0) + row.share
    names = sorted(weight, key=lambda name: -weight[name])
    known = {(row.stage, row.category): row for row in report.categories}
    return {
        "names": [cut(name, 60) for name in names],
        "stages": [
            {
                "stage": stage,
                "share": [round(100 * known[stage, name].share, 3) if (stage, name) in known else 0 for name in names],
                "ms": [_ms(known[stage, name].total_ns) if (stage, name) in known else 0 for name in names],
                "calls": [known[stage, name].calls if (stage, name) in known else 0 for name in names],
            }
            for stage in stages
        ],
    }


def _steps(steps: Sequence[StepPoint]) -> _Plain | None:
    if not steps:
        return None
    elapsed = np.array([step.host_elapsed_ns for step in steps], dtype=np.float64) / 1e6
    counts, edges = np.histogram(elapsed, bins=_HISTOGRAM_BINS if elapsed.size >= 40 else 10)
    with_context = all(step.context is not None for step in steps)
    points, width = _thinned(steps, with_context)
    return {
        "count": len(steps),
        "by": "context" if with_context else "index",
        "points": points,
        "averaged": width,
        "histogram": {"counts": counts.tolist(), "edges": [round(float(edge), 4) for edge in edges]},
        "median": round(float(np.median(elapsed)), 4),
        "p95": round(float(np.percentile(elapsed, 95)), 4),
    }


def _thinned(steps: Sequence[StepPoint], with_context: bool) -> tuple[list[list[float]], int]:
    """Points (context or index, host elapsed ms, busy ms), and how many consecutive steps each is the mean of."""
    width = -(-len(steps) // MAX_STEPS)
    points = []
    group: list[StepPoint] = []
    for position, step in enumerate(steps):
        group.append(step)
        last = position + 1 == len(steps) or steps[position + 1].instance != step.instance
        if len(group) == width or last:
            where = [one.context if with_context and one.context is not None else one.index for one in group]
            points.append(
                [
                    round(sum(where) / len(group), 1) if len(group) > 1 else where[0],
                    _ms(sum(one.host_elapsed_ns for one in group) / len(group)),
                    _ms(sum(one.busy_ns for one in group) / len(group)),
                ]
            )
            group = []
    return points, width


def _tree(rows: Sequence[GpuRow]) -> list[_Plain]:
    """Module paths as a tree; what a module with parts does itself is its part ``(itself)``."""
    whole: _Plain = {"children": {}}
    ordered = sorted(rows, key=lambda row: -_all_ns(row))
    for row in ordered[:MAX_MODULES]:
        node = whole
        for part in [row.name] if row.name == UNATTRIBUTED else cut(row.name, 200).split(".")[:12]:
            node = node["children"].setdefault(part, {"children": {}})
        node["own"] = node.get("own", 0) + _all_ns(row)
        node["kernels"] = node.get("kernels", 0) + row.kernels
    rest = ordered[MAX_MODULES:]
    if rest:
        name = f"({len(rest)} smaller modules)"
        whole["children"][name] = {"children": {}, "own": sum(map(_all_ns, rest)),
                                   "kernels": sum(row.kernels for row in rest)}  # fmt: skip
    return [_node(name, node) for name, node in whole["children"].items()]


def _all_ns(row: GpuRow) -> int:
    return row.kernel_sum_ns + row.memcpy_ns + row.memset_ns + row.graph_ns


def _node(name: str, node: _Plain) -> _Plain:
    if not node["children"]:
        return {"name": name, "value": _ms(node.get("own", 0)), "kernels": node.get("kernels", 0)}
    parts = [_node(part, child) for part, child in node["children"].items()]
    if node.get("own"):
        parts.append({"name": "(itself)", "value": _ms(node["own"]), "kernels": node["kernels"]})
    return {
        "name": name,
        "value": round(sum(part["value"] for part in parts), 4),
        "kernels": sum(part["kernels"] for part in parts),
        "children": parts,
    }


def _roofline(report: Report) -> _Plain | None:
    points = [
        {
            "stage": row.stage,
            "base": row.time_base,
            "how": visible(row.peak_how or ""),
            "intensity": row.arithmetic_intensity,
            "flop_per_s": row.flop / (row.time_ns / 1e9),
            "mfu": row.mfu,
            "mbu": row.mbu,
        }
        for row in report.utilisation
        if row.flop and row.time_ns and row.arithmetic_intensity and row.stage in STAGES
    ]
    roofs = {
        (row.peak_flop_per_s, row.peak_bytes_per_s): visible(row.peak_how or "")
        for row in report.utilisation
        if row.peak_flop_per_s and row.peak_bytes_per_s
    }
    if not points or not roofs:
        return None
    return {
        "points": points,
        "roofs": [{"flop_per_s": one[0], "bytes_per_s": one[1], "how": how} for one, how in roofs.items()],
    }


def _metrics(report: Report) -> _Plain | None:
    drawn = [one for one in report.metrics if one.values][:MAX_METRICS]
    if not drawn:
        return None
    origin = report.timeline.start_ns if report.timeline is not None else drawn[0].time_ns[0]
    return {
        "series": [
            {
                "name": cut(one.name, 80),
                "unit": visible(one.unit),
                "points": [
                    [_ms(time - origin), round(value, 2)] for time, value in zip(one.time_ns, one.values, strict=True)
                ],
                "means": {stage: round(mean, 2) for stage, mean in one.stage_means.items() if stage in STAGES},
            }
            for one in drawn
        ],
        "left_out": len(report.metrics) - len(drawn),
    }


KERNEL_FIELDS: Final = (
    "stage", "name", "human", "category", "library", "calls", "total_ms", "share", "mean_us", "median_us", "p95_us",
    "per_token", "grid", "block", "registers", "occupancy", "waves", "tensor_core",
)  # fmt: skip


def _kernels(kernels: Sequence[KernelSummary]) -> _Plain:
    """Rows of values in the order of `KERNEL_FIELDS`, names kept once."""
    ordered = sorted(kernels, key=lambda one: -one.total_ns)
    names: dict[str, int] = {}
    rows = [_kernel(one, names) for one in ordered[:MAX_KERNELS]]
    rest = ordered[MAX_KERNELS:]
    folded = []
    for stage in dict.fromkeys(one.stage for one in rest):
        mine = [one for one in rest if one.stage == stage]
        folded.append(
            {
                "stage": stage,
                "kernels": len(mine),
                "calls": sum(one.calls for one in mine),
                "total_ms": round(sum(one.total_ns for one in mine) / 1e6, 6),
            }
        )
    return {"fields": KERNEL_FIELDS, "names": list(names), "rows": rows, "folded": folded}


def _kernel(one: KernelSummary, names: dict[str, int]) -> list[Any]:
    human = one.human_name or one.short_name or one.name
    return [
        visible(one.stage),
        names.setdefault(cut(one.name), len(names)),
        cut(human, 120),
        cut(one.category, 60),
        cut(one.library, 60) if one.library else None,
        one.calls,
        round(one.total_ns / 1e6, 6),
        None if one.share is None else round(one.share, 6),
        round(one.mean_ns / 1e3, 3),
        round(one.median_ns / 1e3, 3),
        None if one.p95_ns is None else round(one.p95_ns / 1e3, 3),
        None if one.per_token is None else round(one.per_token, 3),
        None if one.grid is None else "×".join(map(str, one.grid)),
        None if one.block is None else "×".join(map(str, one.block)),
        one.registers_per_thread,
        None if one.theoretical_occupancy is None else round(one.theoretical_occupancy, 4),
        None if one.waves is None else round(one.waves, 5),
        one.tensor_core,
    ]
