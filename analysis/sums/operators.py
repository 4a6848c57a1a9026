"""Operators from the finest annotation level that the trace has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution, Level
from analysis.attribution.intervals import sum_by_group
from analysis.domain.entities import OperatorSummary
from analysis.sums.inclusive import name_keys, pairs_by_name
from analysis.sums.records import GpuRow

__all__ = ["operator_level", "operator_summaries"]

_MS = 1e6


def operator_level(attribution: Attribution) -> Level | None:
    """Which level operators come from: ``operator``, ``module`` or ``step``; None: there are no ranges at all."""
    levels: tuple[Level, ...] = ("operator", "module", "step", "stage")
    return next((level for level in levels if attribution.is_level(level).any()), None)


def operator_summaries(
    attribution: Attribution, range_rows: tuple[GpuRow, ...], top: int = 20
) -> tuple[OperatorSummary, ...]:
    """Ranges of the finest level by name, inclusive, by host time.

    Args:
        attribution: of the trace.
        range_rows: its table by range.
        top: how many at most.
    """
    level = operator_level(attribution)
    if level is None:
        return ()
    ranges = attribution.ranges
    wanted = attribution.is_level(level)
    keys, names = name_keys(attribution)
    outer = wanted & attribution.tree.first_of_its_name()
    calls = np.bincount(keys[wanted], minlength=len(names))
    host = sum_by_group(keys[outer], (ranges.end - ranges.start)[outer], len(names))
    gpu = {row.name: row.kernel_sum_ns + row.memcpy_ns + row.memset_ns + row.graph_ns for row in range_rows}
    for key, replayed_ns in _replayed(attribution, level, keys).items():
        gpu[names[key]] = gpu.get(names[key], 0) + replayed_ns
    label = _labels(attribution, level, keys, names)
    sums: dict[str, list[int]] = {}
    for key in np.flatnonzero(calls).tolist():
        entry = sums.setdefault(label[key], [0, 0, 0])
        for place, value in enumerate((host[key], gpu.get(names[key], 0), calls[key])):
            entry[place] += int(value)
    rows = [
        OperatorSummary(op_name=name, total_time_ms=host_ns / _MS, cuda_time_ms=gpu_ns / _MS, calls=times)
        for name, (host_ns, gpu_ns, times) in sums.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.total_time_ms, row.op_name))[:top])


def _labels(attribution: Attribution, level: Level, keys: NDArray[np.int32], names: tuple[str, ...]) -> dict[int, str]:
    """Name key → what the operator is called: a module by its path, a step of an engine by its kind, else the range's name."""
    wanted = np.flatnonzero(attribution.is_level(level))
    occurring, first = np.unique(keys[wanted], return_index=True)
    of_range, paths = attribution.module_names
    labels = {}
    for key, row in zip(occurring.tolist(), wanted[first].tolist(), strict=True):
        path = int(of_range[row])
        if level == "module" and path >= 0:
            labels[key] = paths[path]
        elif attribution.composition(row) is not None:
            labels[key] = attribution.stage_of(row)
        else:
            labels[key] = names[key].removeprefix("dsocr.module:").removeprefix("dsocr:")
    return labels


def _replayed(attribution: Attribution, level: Level, keys: NDArray[np.int32]) -> dict[int, int]:
    """GPU time of what CUDA graphs replay, by name of the ranges in which it was recorded, inclusive, ns.

    The table by range is by launch, as Nsight Systems' own is; a replay's launch lies in none of these ranges.
    """
    if not attribution.recordings.start.size:
        return {}
    recorded = attribution.operation_level(level)
    launched = attribution.to_operations(attribution.call_level(level))
    chosen = np.flatnonzero((recorded >= 0) & (launched < 0)).astype(np.int32)
    if not chosen.size:
        return {}
    operations, key, _ = pairs_by_name(attribution, chosen, recorded[chosen], keys)
    total = sum_by_group(key, attribution.operations.duration[operations], int(keys.max()) + 1)
    return {int(index): int(total[index]) for index in np.flatnonzero(total)}
