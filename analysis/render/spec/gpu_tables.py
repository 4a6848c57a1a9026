"""Tables of GPU time by stage and by module; their columns add up."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from analysis.render.spec.cells import count_cell, ms_cell, name_cell, share_cell
from analysis.render.spec.model import Cell, Column, Table
from analysis.report import Report
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.records import GpuRow

__all__ = ["module_kinds", "modules", "stage_times"]

_NUMBER_IN_NAME: Final = re.compile(r"\d+")


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
        return tuple(ms_cell(value(row)) if is_time else count_cell(value(row)) for _, value, is_time, _ in kept)

    total = [Cell("Total")]
    for _, value, is_time, adds in kept:
        summed = sum(value(row) for row in rows)
        if adds:
            total.append(ms_cell(summed) if is_time else count_cell(summed))
        else:
            total.append(Cell("–", hint="unions and spans of different rows may overlap, so they are not added up"))
    return Table(
        key=key,
        title=title,
        columns=(first, *(column[0] for column in kept)),
        rows=tuple((name_cell(row.name, code=row.name != UNATTRIBUTED), *cells(row)) for row in rows),
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
                name_cell(name, code=name != UNATTRIBUTED),
                count_cell(len(rows)),
                count_cell(sum(row.kernels for row in rows)),
                ms_cell(sum(row.kernel_sum_ns for row in rows)),
                ms_cell(spent),
                share_cell(spent / whole if whole else None),
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
        total=(Cell("Total"), count_cell(paths), count_cell(kernels), ms_cell(kernel_sum), ms_cell(whole),
               share_cell(1.0 if whole else None)),
        note="Numbers in paths are folded: layers.*.mlp stands for that module of every layer.",
    )  # fmt: skip
