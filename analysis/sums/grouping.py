"""GPU time by group: counts, sums, union and projection of each group's operations, integers only."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.attribution.intervals import sum_by_group, union_by_group
from analysis.trace.distinct import distinct_values
from analysis.trace.records import GRAPH, KERNEL, MEMCPY, MEMSET, Operations

__all__ = ["COLUMNS", "COUNTED", "UNATTRIBUTED", "GpuTable", "gpu_codes", "grouped", "select", "stage_names"]

UNATTRIBUTED: Final = "(unattributed)"

COLUMNS: Final = (
    "name", "kernels", "kernel_sum_ns", "busy_ns", "projected_ns", "memcpys", "memcpy_ns", "memsets", "memset_ns",
    "graphs", "graph_ns",
)  # fmt: skip
COUNTED: Final = ((KERNEL, "kernels", "kernel_sum_ns"), (MEMCPY, "memcpys", "memcpy_ns"),
                   (MEMSET, "memsets", "memset_ns"), (GRAPH, "graphs", "graph_ns"))  # fmt: skip


def stage_names(attribution: Attribution) -> tuple[str, ...]:
    """Names by stage code: the trace's stages, and the row of what is in none."""
    return (*attribution.stages, UNATTRIBUTED)


@frozen(eq=False)
class GpuTable:
    """Rows of GPU time. ``columns`` maps each name of `COLUMNS` but ``name`` to int64 [rows]."""

    names: tuple[str, ...]
    columns: dict[str, NDArray[np.int64]]
    steps: tuple[int | None, ...] = ()
    """Steps of an engine in each row, of a table by stage; empty: the rows hold none."""

    def rows(self) -> list[dict[str, Any]]:
        """The rows as plain Python values, in `COLUMNS` order."""
        plain = [self.columns[name].tolist() for name in COLUMNS[1:]]
        rows = [
            dict(zip(COLUMNS, (name, *values), strict=True)) for name, *values in zip(self.names, *plain, strict=True)
        ]
        for row, steps in zip(rows, self.steps, strict=bool(self.steps)):
            row["steps"] = steps
        return rows

    def total(self, column: str) -> int:
        """Sum of a column."""
        return int(self.columns[column].sum())


def grouped(
    operations: Operations, group: NDArray[Any], groups: int, *, instance: NDArray[Any] | None = None
) -> dict[str, NDArray[np.int64]]:
    """Sum operations by group.

    Args:
        operations: [n], sorted by start.
        group: row of each operation, [n], 0 ≤ group < groups.
        groups: number of rows.
        instance: instance of each operation, [n], any non-negative ids; an instance lies in one row. A row's projection
            is the sum of its instances' (first start to last end). None: each row is one instance.

    Returns:
        Column name → int64 [groups].
    """
    kinds = len(COUNTED)
    cell = group.astype(np.intp)  # what bincount would make of it
    cell *= kinds
    cell += operations.kind
    counts = np.bincount(cell, minlength=groups * kinds).reshape(groups, kinds)
    sums = sum_by_group(cell, operations.duration, groups * kinds).reshape(groups, kinds)
    columns: dict[str, NDArray[np.int64]] = {}
    for kind, count, total in COUNTED:
        columns[count] = counts[:, kind].astype(np.int64)
        columns[total] = sums[:, kind]
    columns["busy_ns"] = _busy(operations, group, groups, sums.sum(axis=1))
    columns["projected_ns"] = _projected(operations, group, groups, instance)
    return columns


def _busy(operations: Operations, group: NDArray[Any], groups: int, total: NDArray[np.int64]) -> NDArray[np.int64]:
    """Union of each row's operations on each GPU, added up over GPUs: two of them are not one that works longer."""
    gpu, gpus = gpu_codes(operations)
    if gpus == 1:
        return union_by_group(group, operations.start, operations.end, groups, total=total)
    busy = union_by_group(group.astype(np.int64) * gpus + gpu, operations.start, operations.end, groups * gpus)
    summed: NDArray[np.int64] = busy.reshape(groups, gpus).sum(axis=1)
    return summed


def gpu_codes(operations: Operations) -> tuple[NDArray[Any], int]:
    """Which GPU each operation ran on, as numbers from 0, [n], and how many there are (at least 1)."""
    gpu = operations.gpu
    if not gpu.size or gpu.min() == gpu.max():
        return np.zeros(gpu.size, dtype=np.int8), 1
    distinct, codes = distinct_values(gpu)
    return codes, distinct.size


def _projected(
    operations: Operations, group: NDArray[Any], groups: int, instance: NDArray[Any] | None
) -> NDArray[np.int64]:
    if not len(operations):
        return np.zeros(groups, dtype=np.int64)
    holder = group if instance is None else instance
    size = int(holder.max()) + 1
    nothing = np.iinfo(np.int64).min  # a clock may read less than 0
    last = np.full(size, nothing, dtype=np.int64)
    np.maximum.at(last, holder, operations.end)
    first = np.zeros(size, dtype=np.int64)
    first[holder[::-1]] = operations.start[::-1]  # sorted by start: the first of an instance is written last
    seen = last > nothing
    row = np.zeros(size, dtype=np.int64)
    row[holder] = group
    return sum_by_group(row[seen], (last - first)[seen], groups)


def select(operations: Operations, mask: NDArray[np.bool_]) -> Operations:
    """The operations of a mask, [n]."""
    per_row = (
        "start",
        "end",
        "kind",
        "name",
        "process",
        "correlation",
        "device",
        "stream",
        "in_graph",
        "graph_node",
        "shape",
        "size",
        "gpu",
    )
    return evolve(operations, **{name: getattr(operations, name)[mask] for name in per_row})
