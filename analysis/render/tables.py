"""The report's tables, built once from `Report` for every renderer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Literal

from analysis.annotations import STAGES
from analysis.render.model import Cell, Column, Table
from analysis.render.text import NOT_AVAILABLE, bytes_, count, decimal, duration, exact_ms, flop, rate, share, visible
from analysis.summaries import GpuRow, Report, StageSummary

__all__ = [
    "categories",
    "compare_stages",
    "host_calls",
    "latencies",
    "metric_means",
    "module_kinds",
    "modules",
    "operators",
    "overhead",
    "stage_times",
    "stages_in",
    "streams",
    "utilisation",
]

UNATTRIBUTED: Final = "(unattributed)"
_NUMBER_IN_NAME: Final = re.compile(r"\d+")


def stages_in(report: Report) -> tuple[str, ...]:
    """Names of the stages that have ranges, in their order."""
    return tuple(stage.stage for stage in report.stages)


def _name(text: str, *, code: bool = True) -> Cell:
    return Cell(visible(text), sort=text, code=code)


def _count(value: int | None) -> Cell:
    return Cell(count(value), sort=value)


def _ms(ns: int | None) -> Cell:
    return Cell(NOT_AVAILABLE if ns is None else exact_ms(ns), sort=ns)


def _share(value: float | None) -> Cell:
    return Cell(share(value), sort=value)


def _all_ns(row: GpuRow) -> int:
    return row.kernel_sum_ns + row.memcpy_ns + row.memset_ns + row.graph_ns


# Label, unit, definition, value, whether it is a time, whether rows add up.
_GpuColumn = tuple[Column, Callable[[GpuRow], int], bool, bool]
_GPU_COLUMNS: Final[tuple[_GpuColumn, ...]] = (
    (Column("Kernels", "", "kernels"), lambda row: row.kernels, False, True),
    (Column("Kernel sum", "ms", "kernel_sum"), lambda row: row.kernel_sum_ns, True, True),
    (Column("Copies", "", "memcpys"), lambda row: row.memcpys, False, True),
    (Column("Copy sum", "ms", "memcpys"), lambda row: row.memcpy_ns, True, True),
    (Column("Memsets", "", "memsets"), lambda row: row.memsets, False, True),
    (Column("Memset sum", "ms", "memsets"), lambda row: row.memset_ns, True, True),
    (Column("Graphs", "", "graphs"), lambda row: row.graphs, False, True),
    (Column("Graph sum", "ms", "graphs"), lambda row: row.graph_ns, True, True),
    (Column("All operations", "ms", "all_sum"), _all_ns, True, True),
    (Column("GPU busy", "ms", "busy"), lambda row: row.busy_ns, True, False),
    (Column("Projected", "ms", "projected"), lambda row: row.projected_ns, True, False),
)


def _gpu_table(key: str, title: str, first: Column, rows: Sequence[GpuRow], note: str = "") -> Table:
    """A table of GPU time whose columns add up; columns that are zero throughout (no graphs, say) are left out."""
    kept = [column for column in _GPU_COLUMNS if column[0].label in ("Kernels", "Kernel sum", "All operations",
            "GPU busy", "Projected") or any(column[1](row) for row in rows)]  # fmt: skip

    def cells(row: GpuRow) -> tuple[Cell, ...]:
        return tuple(_ms(value(row)) if is_time else _count(value(row)) for _, value, is_time, _ in kept)

    total = [Cell("Total")]
    for _, value, is_time, adds in kept:
        summed = sum(value(row) for row in rows)
        if adds:
            total.append(_ms(summed) if is_time else _count(summed))
        else:
            total.append(Cell("–", hint="unions and spans of different rows may overlap, so they are not added up"))
    return Table(
        key=key,
        title=title,
        columns=(first, *(column[0] for column in kept)),
        rows=tuple((_name(row.name, code=row.name != UNATTRIBUTED), *cells(row)) for row in rows),
        total=tuple(total),
        note=note,
    )


def stage_times(report: Report) -> Table:
    """GPU time by stage, to the nanosecond; rows add up to the trace's total."""
    return _gpu_table(
        "stage-times",
        "GPU time by stage",
        Column("Stage", "", "stage", "left"),
        report.stage_rows,
        "Every GPU operation is counted in exactly one row; counts and sums add up to the trace’s total exactly.",
    )


def modules(report: Report, stage: str) -> Table:
    """GPU time by module path, exclusive."""
    rows = report.module_rows.get(stage, ())
    return _gpu_table(f"modules-{stage}", f"Modules, {stage}", Column("Module", "", "module", "left"), rows)


def module_kinds(report: Report, stage: str) -> Table:
    """Modules with their layer numbers folded together: ``layers.*.mlp``. Adds up like `modules`."""
    folded: dict[str, list[GpuRow]] = {}
    for row in report.module_rows.get(stage, ()):
        folded.setdefault(_NUMBER_IN_NAME.sub("*", row.name), []).append(row)
    whole = sum(_all_ns(row) for rows in folded.values() for row in rows)
    order = sorted(folded.items(), key=lambda item: (item[0] == UNATTRIBUTED, -sum(map(_all_ns, item[1]))))
    lines = []
    for pattern, rows in order:
        name = rows[0].name if len(rows) == 1 else pattern
        spent = sum(map(_all_ns, rows))
        lines.append(
            (
                _name(name, code=name != UNATTRIBUTED),
                _count(len(rows)),
                _count(sum(row.kernels for row in rows)),
                _ms(sum(row.kernel_sum_ns for row in rows)),
                _ms(spent),
                _share(spent / whole if whole else None),
            )
        )
    kernels = sum(row.kernels for rows in folded.values() for row in rows)
    kernel_sum = sum(row.kernel_sum_ns for rows in folded.values() for row in rows)
    paths = sum(map(len, folded.values()))
    return Table(
        key=f"module-kinds-{stage}",
        title=f"Modules, {stage}",
        columns=(
            Column("Module", "", "module", "left"),
            Column("Paths"),
            Column("Kernels", "", "kernels"),
            Column("Kernel sum", "ms", "kernel_sum"),
            Column("All operations", "ms", "all_sum"),
            Column("Share", "", "module_share"),
        ),
        rows=tuple(lines),
        total=(Cell("Total"), _count(paths), _count(kernels), _ms(kernel_sum), _ms(whole),
               _share(1.0 if whole else None)),
        note="Numbers in paths are folded: layers.*.mlp stands for that module of every layer.",
    )  # fmt: skip


_Line = tuple[str, str, Callable[[StageSummary], Cell]]


def _time(ns: float | None) -> Cell:
    return Cell(duration(ns), sort=ns)


def _per_token(stage: StageSummary) -> Cell:
    value = stage.launches / stage.tokens if stage.tokens else None
    why = "" if stage.tokens else "the number of tokens is not known"
    return Cell(decimal(value, 1), sort=value, hint=why)


_COMPARED: Final[tuple[_Line, ...]] = (
    ("Instances", "instances", lambda one: _count(one.instances)),
    ("Tokens", "tokens", lambda one: _count(one.tokens)),
    ("Host elapsed", "host_elapsed", lambda one: _time(one.host_elapsed_ns)),
    ("Projected on the GPU", "projected", lambda one: _time(one.projected_ns)),
    ("GPU busy", "busy", lambda one: _time(one.busy_ns)),
    ("GPU busy share", "busy_share", lambda one: _share(one.gpu_busy_share)),
    ("Kernel sum", "kernel_sum", lambda one: _time(one.kernel_sum_ns)),
    ("Kernels", "kernels", lambda one: _count(one.gpu.kernels)),
    ("Mean kernel", "mean_kernel", lambda one: _time(one.mean_kernel_ns)),
    ("Median kernel", "median", lambda one: _time(one.median_kernel_ns)),
    ("Launches", "launches", lambda one: _count(one.launches)),
    ("Launches per token", "launches", _per_token),
    ("Of these, CUDA graphs", "graphs", lambda one: _count(one.graph_launches)),
    ("Mean launch gap", "launch_gap", lambda one: _time(one.mean_launch_gap_ns)),
    ("Host time in launches", "host_launch", lambda one: _time(one.host_launch_ns)),
    ("Queue delay, median", "queue_delay", lambda one: _time(one.queue_delay_median_ns)),
    ("Queue delay, p95", "queue_delay", lambda one: _time(one.queue_delay_p95_ns)),
    ("Synchronises", "synchronise", lambda one: _count(one.synchronises)),
    ("Host time in synchronises", "synchronise", lambda one: _time(one.synchronise_ns)),
    ("Small device-to-host copies", "small_copies", lambda one: _count(one.small_d2h_copies)),
    ("Operations at a time", "concurrency", lambda one: Cell(decimal(one.concurrency, 3), sort=one.concurrency)),
    ("Kernel time in small grids", "small_grid", lambda one: _share(one.small_grid_share)),
    ("GPU idle", "gap", lambda one: _time(one.gaps.total_ns if one.gaps else None)),
    ("  while launching", "gap_launching", lambda one: _time(one.gaps.launching_ns if one.gaps else None)),
    ("  while synchronising", "gap_synchronising", lambda one: _time(one.gaps.synchronising_ns if one.gaps else None)),
    ("  in other CUDA calls", "gap_other_api", lambda one: _time(one.gaps.other_api_ns if one.gaps else None)),
    ("  outside CUDA calls", "gap_outside_api", lambda one: _time(one.gaps.outside_api_ns if one.gaps else None)),
    ("  longest gap", "gap", lambda one: _time(one.gaps.largest_ns if one.gaps else None)),
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
        cells = [_name(name, code=False)]
        for stage in stages:
            calls, total, part = by_name[name].get(stage, (0, 0, 0.0))
            cells += [_count(calls), _ms(total), _share(part)]
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
                _time(row.time_ns),
                unknown(flop(row.flop), row.flop),
                unknown(bytes_(row.bytes_moved), row.bytes_moved),
                unknown(share(row.mfu), row.mfu),
                unknown(share(row.mfu_full_attention), row.mfu_full_attention),
                unknown(share(row.mbu), row.mbu),
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
            (_name(row.where), _name(row.call), Cell(row.kind, sort=row.kind), _count(row.calls), _ms(row.total_ns))
            for row in report.host_calls
            if (row.where in STAGES) == (by == "stage")
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
                _name(row.name, code=False),
                Cell(visible(row.unit), sort=row.unit),
                *(
                    Cell(decimal(value, 3), sort=value)
                    for value in (row.mean, row.std, row.median, row.minimum, row.maximum)
                ),
                _count(row.count),
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
                _name(row.op_name),
                _count(row.calls),
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
            (_count(row.device), _count(row.stream), _count(row.operations), _ms(row.sum_ns), _ms(row.busy_ns))
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
                _name(row.name, code=False),
                Cell(visible(row.unit), sort=row.unit),
                *(Cell(decimal(row.stage_means.get(one), 2), sort=row.stage_means.get(one)) for one in stages),
            )
            for row in report.metrics
        ),
        note="Sampled by the GPU’s counters during the capture; means over each stage’s host time.",
    )
