"""The report's tables, built once from `Report` for every renderer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from analysis.domain.annotations import STAGES
from analysis.domain.figures import NOT_AVAILABLE, bytes_, decimal, duration, flop, rate, ratio
from analysis.render.spec.cells import count_cell, ms_cell, name_cell, share_cell, time_cell
from analysis.render.spec.model import Cell, Column, Table
from analysis.render.spec.text import visible
from analysis.report import Report
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.records import StageSummary

__all__ = [
    "categories",
    "compare_stages",
    "host_calls",
    "latencies",
    "metric_means",
    "operators",
    "overhead",
    "stages_in",
    "streams",
    "utilisation",
]


def stages_in(report: Report) -> tuple[str, ...]:
    """Names of the stages that have ranges, in their order."""
    return tuple(stage.stage for stage in report.stages)


_Line = tuple[str, str, Callable[[StageSummary], Cell]]


def _per_token(stage: StageSummary) -> Cell:
    value = stage.launches / stage.tokens if stage.tokens else None
    why = "" if stage.tokens else "the number of tokens is not known"
    return Cell(decimal(value, 1), sort=value, hint=why)


_COMPARED: Final[tuple[_Line, ...]] = (
    ("Instances", "instances", lambda one: count_cell(one.instances)),
    ("Tokens", "tokens", lambda one: count_cell(one.tokens)),
    ("Host elapsed", "host_elapsed", lambda one: time_cell(one.host_elapsed_ns)),
    ("Projected on the GPU", "projected", lambda one: time_cell(one.projected_ns)),
    ("GPU busy", "busy", lambda one: time_cell(one.busy_ns)),
    ("GPU busy share", "busy_share", lambda one: share_cell(one.profiled_busy_share)),
    ("Kernel sum", "kernel_sum", lambda one: time_cell(one.kernel_sum_ns)),
    ("Kernels", "kernels", lambda one: count_cell(one.gpu.kernels)),
    ("Mean kernel", "mean_kernel", lambda one: time_cell(one.mean_kernel_ns)),
    ("Median kernel", "median", lambda one: time_cell(one.median_kernel_ns)),
    ("Launches", "launches", lambda one: count_cell(one.launches)),
    ("Launches per token", "launches", _per_token),
    ("Of these, CUDA graphs", "graphs", lambda one: count_cell(one.graph_launches)),
    ("Mean launch gap", "launch_gap", lambda one: time_cell(one.mean_launch_gap_ns)),
    ("Host time in launches", "host_launch", lambda one: time_cell(one.host_launch_ns)),
    ("Queue delay, median", "queue_delay", lambda one: time_cell(one.queue_delay_median_ns)),
    ("Queue delay, p95", "queue_delay", lambda one: time_cell(one.queue_delay_p95_ns)),
    ("Synchronises", "synchronise", lambda one: count_cell(one.synchronises)),
    ("Host time in synchronises", "synchronise", lambda one: time_cell(one.synchronise_ns)),
    ("Small device-to-host copies", "small_copies", lambda one: count_cell(one.small_d2h_copies)),
    ("Operations at a time", "concurrency", lambda one: Cell(decimal(one.concurrency, 3), sort=one.concurrency)),
    ("Kernel time in small grids", "small_grid", lambda one: share_cell(one.small_grid_share)),
    ("GPU idle", "gap", lambda one: time_cell(one.gaps.total_ns if one.gaps else None)),
    ("  while launching", "gap_launching", lambda one: time_cell(one.gaps.launching_ns if one.gaps else None)),
    (
        "  while synchronising",
        "gap_synchronising",
        lambda one: time_cell(one.gaps.synchronising_ns if one.gaps else None),
    ),
    ("  in other CUDA calls", "gap_other_api", lambda one: time_cell(one.gaps.other_api_ns if one.gaps else None)),
    ("  outside CUDA calls", "gap_outside_api", lambda one: time_cell(one.gaps.outside_api_ns if one.gaps else None)),
    ("  longest gap", "gap", lambda one: time_cell(one.gaps.largest_ns if one.gaps else None)),
)


def compare_stages(report: Report) -> Table:
    """Prefill and decode side by side, one quantity a row."""
    lines = [
        (term, (Cell(label.replace("  ", "· ")), *(value(stage) for stage in report.stages)))
        for label, term, value in _COMPARED
    ]
    return Table(
        key="compare",
        title="Prefill against decode",
        columns=(Column("Quantity", align="left"), *(Column(stage.stage) for stage in report.stages)),
        rows=tuple(cells for _, cells in lines),
        row_terms=tuple(term for term, _ in lines),
    )


def categories(report: Report) -> Table:
    """Kernel categories, a share for each stage."""
    stages = [stage for stage in (*STAGES, UNATTRIBUTED) if any(row.stage == stage for row in report.categories)]
    by_name: dict[str, dict[str, tuple[int, int, float]]] = {}
    for row in report.categories:
        by_name.setdefault(row.category, {})[row.stage] = (row.calls, row.total_ns, row.share)
    order = sorted(by_name, key=lambda name: -sum(total for _, total, _ in by_name[name].values()))
    lines = []
    for name in order:
        cells = [name_cell(name, code=False)]
        for stage in stages:
            calls, total, part = by_name[name].get(stage, (0, 0, 0.0))
            cells += [count_cell(calls), ms_cell(total), share_cell(part)]
        lines.append(tuple(cells))
    columns = [Column("Category", "", "category", "left")]
    for stage in stages:
        columns += [
            Column(f"{stage}: calls", "", "calls"),
            Column(f"{stage}: sum", "ms", "total"),
            Column(f"{stage}: share", "", "category_share"),
        ]
    return Table("categories", "GPU time by category", tuple(columns), tuple(lines))


_BASES: Final = {
    "control": "control run",
    "elapsed": "host elapsed",
    "gpu busy": "GPU busy",
}


def utilisation(report: Report) -> Table:
    """What each stage needed against what the device can give."""
    lines = []
    for row in report.utilisation:
        why = visible(row.unknown_because or "")

        def unknown(text: str, value: float | None, why: str = why) -> Cell:
            return Cell(text, sort=value, hint=why if value is None else "")

        distance = row.time_ns / row.ideal_ns if row.time_ns and row.ideal_ns else None
        lines.append(
            (
                Cell(row.stage, sort=row.stage),
                Cell(_BASES[row.time_base], sort=row.time_base),
                Cell(visible(row.peak_how or NOT_AVAILABLE), sort=row.peak_how),
                time_cell(row.time_ns),
                unknown(flop(row.flop), row.flop),
                unknown(bytes_(row.bytes_moved), row.bytes_moved),
                unknown(ratio(row.mfu), row.mfu),
                unknown(ratio(row.mfu_full_attention), row.mfu_full_attention),
                unknown(ratio(row.mbu), row.mbu),
                unknown(decimal(row.arithmetic_intensity, 1), row.arithmetic_intensity),
                unknown(decimal(row.ridge_point, 1), row.ridge_point),
                unknown(duration(row.ideal_ns), row.ideal_ns),
                unknown(NOT_AVAILABLE if distance is None else f"{decimal(distance, 1)} ×", distance),
            )
        )
    columns = (
        Column("Stage", "", "stage", "left"),
        Column("Time base", "", "time_base", "left"),
        Column("Peak from", "", "peak", "left"),
        Column("Time", "", "time_base"),
        Column("Needs", "", "mfu"),
        Column("Must move", "", "mbu"),
        Column("MFU", "", "mfu"),
        Column("MFU, full attn", "", "mfu_full"),
        Column("MBU", "", "mbu"),
        Column("Intensity", "FLOP/B", "intensity"),
        Column("Ridge", "FLOP/B", "ridge"),
        Column("Ideal", "", "ideal"),
        Column("Time ÷ ideal", "", "distance"),
    )
    reasons = dict.fromkeys(visible(row.unknown_because) for row in report.utilisation if row.unknown_because)
    peaks = dict.fromkeys(
        f"{rate(row.peak_flop_per_s, 'FLOP/s')}, {rate(row.peak_bytes_per_s, 'B/s')} ({visible(row.peak_how or '')})"
        for row in report.utilisation
        if row.peak_flop_per_s or row.peak_bytes_per_s
    )
    note = "".join(f"n/a: {reason}. " for reason in reasons)
    note += f"Peaks, dense: {'; '.join(peaks)}." if peaks else ""
    return Table("utilisation", "Utilisation", columns, tuple(lines), note=note.strip())


def host_calls(report: Report, by: Literal["stage", "module"]) -> Table:
    """Where the host waits for the GPU: the same calls by stage, or by innermost module."""
    return Table(
        f"host-calls-{by}",
        f"By {by}",
        (
            Column(by.capitalize(), "", by, align="left"),
            Column("Call", align="left"),
            Column("Kind", align="left"),
            Column("Calls", "", "calls"),
            Column("Host time", "ms", "synchronise"),
        ),
        tuple(
            (
                name_cell(row.where),
                name_cell(row.call),
                Cell(row.kind, sort=row.kind),
                count_cell(row.calls),
                ms_cell(row.total_ns),
            )
            for row in report.host_calls
            if row.level == by
        ),
        note="At each of these the host waits until the GPU has got so far.",
    )


def overhead(report: Report) -> Table:
    """Profiled against unprofiled."""
    return Table(
        "overhead",
        "What profiling costs",
        (
            Column("Stage", "", "stage", "left"),
            Column("Per", align="left"),
            Column("Unprofiled", "ms", "overhead"),
            Column("Profiled", "ms", "profiled"),
            Column("Factor", "", "overhead"),
        ),
        tuple(
            (
                Cell(row.stage, sort=row.stage),
                Cell(row.per, sort=row.per),
                Cell(decimal(row.unprofiled_ms, 3), sort=row.unprofiled_ms),
                Cell(decimal(row.profiled_ms, 3), sort=row.profiled_ms),
                Cell(f"{decimal(row.factor, 2)} ×", sort=row.factor),
            )
            for row in report.overhead
        ),
        note="Headline latencies come from the unprofiled control run; the trace says where the time goes.",
    )


def latencies(report: Report) -> Table:
    """Latency metrics with their spread."""
    return Table(
        "latencies",
        "Latencies",
        (
            Column("Metric", align="left"),
            Column("Unit", align="left"),
            Column("Mean", "", "mean"),
            Column("Std", "", "std"),
            Column("Median", "", "median"),
            Column("Min"),
            Column("Max"),
            Column("Count"),
            Column("Measured in", align="left"),
        ),
        tuple(
            (
                name_cell(row.name, code=False),
                Cell(visible(row.unit), sort=row.unit),
                *(
                    Cell(decimal(value, 3), sort=value)
                    for value in (row.mean, row.std, row.median, row.minimum, row.maximum)
                ),
                count_cell(row.count),
                Cell({"control": "unprofiled control run", "trace": "capture"}[row.source], sort=row.source),
            )
            for row in report.aggregates
        ),
    )


def operators(report: Report) -> Table:
    """The operators of the contract: inclusive, by host time."""
    return Table(
        "operators",
        "Top operators",
        (
            Column("Operator", align="left"),
            Column("Calls", "", "calls"),
            Column("Host time", "ms", "host_elapsed"),
            Column("GPU time", "ms", "all_sum"),
        ),
        tuple(
            (
                name_cell(row.op_name),
                count_cell(row.calls),
                Cell(decimal(row.total_time_ms, 3), sort=row.total_time_ms),
                Cell(decimal(row.cuda_time_ms, 3), sort=row.cuda_time_ms),
            )
            for row in report.report.operators_topk
        ),
        note="From the finest annotation level of the trace, inclusive: what a range contains counts in it too.",
    )


def streams(report: Report) -> Table:
    """GPU time by stream."""
    return Table(
        "streams",
        "Streams",
        (
            Column("Device"),
            Column("Stream", "", "stream"),
            Column("Operations"),
            Column("All operations", "ms", "all_sum"),
            Column("GPU busy", "ms", "busy"),
        ),
        tuple(
            (
                count_cell(row.device),
                count_cell(row.stream),
                count_cell(row.operations),
                ms_cell(row.sum_ns),
                ms_cell(row.busy_ns),
            )
            for row in report.streams
        ),
    )


def metric_means(report: Report) -> Table:
    """Sampled GPU metrics, mean over each stage."""
    stages = [stage for stage in STAGES if any(stage in row.stage_means for row in report.metrics)]
    return Table(
        "metrics",
        "GPU metrics",
        (
            Column("Metric", "", "metric", "left"),
            Column("Unit", align="left"),
            *(Column(stage, "", "metric") for stage in stages),
        ),
        tuple(
            (
                name_cell(row.name, code=False),
                Cell(visible(row.unit), sort=row.unit),
                *(Cell(decimal(row.stage_means.get(one), 2), sort=row.stage_means.get(one)) for one in stages),
            )
            for row in report.metrics
        ),
        note="Sampled by the GPU’s counters during the capture; means over each stage’s host time.",
    )
