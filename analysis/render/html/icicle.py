"""What modules cost, for the page's icicle: GPU time, host time and launches by stage and module path, each exclusive.

A path's numbers are those of the innermost module: what a module with parts does itself is its own, not its parts'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.attribution.intervals import sum_by_group
from analysis.render.html.page_data import MAX_MODULES, cut
from analysis.render.spec.gpu_time import all_operations_ns
from analysis.report import Report
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.host_calls import HostCalls
from analysis.sums.stages import WHOLE_CAPTURE
from analysis.trace.records import GRAPH, KERNEL

__all__ = ["ModuleCost", "module_costs", "plain_modules", "reported_costs"]

_PATH_BYTES: Final = 300


@frozen
class ModuleCost:
    """One module path in one stage, exclusive."""

    stage: str
    """Name of the stage, or ``(unattributed)``."""
    module: str
    gpu_ns: int
    """Sum of its GPU operations, as the tables have it."""
    kernels: int
    host_ns: int | None
    """Host time inside the module's ranges and outside those of its parts; None: not known."""
    launches: int | None
    """Successful launching calls inside the module; None: not known. What a graph replays has no launches of its own."""
    in_graph: int | None
    """Kernels of it that a CUDA graph replayed; None: not known."""


def module_costs(attribution: Attribution, host: HostCalls | None = None) -> tuple[ModuleCost, ...]:
    """Sum up modules by stage and path. GPU time adds up to all operations; launches to all that succeeded.

    Args:
        attribution: of the trace.
        host: its calls, where they are read already.

    Returns:
        By stage, then GPU time; empty: the trace has no module ranges.
    """
    operations, calls = attribution.operations, attribution.calls
    is_module = attribution.is_level("module")
    if not is_module.any():
        return ()
    stages = (*attribution.stages, UNATTRIBUTED)
    of_range, paths = attribution.module_names
    names = len(paths) + 1
    name_of = np.where(of_range >= 0, of_range, names - 1).astype(np.int64)  # the last: no module
    cells = len(stages) * names

    at = attribution.operation_stage.astype(np.int64) * names + name_of[attribution.operation_level("module")]
    gpu = sum_by_group(at, operations.duration, cells)
    kernel = operations.kind == KERNEL
    kernels = np.bincount(at[kernel], minlength=cells)
    replayed = np.bincount(at[kernel & operations.in_graph | (operations.kind == GRAPH)], minlength=cells)
    host_calls = host or HostCalls(attribution)
    called = attribution.call_stage.astype(np.int64) * names + name_of[attribution.call_level("module")]
    launches = (
        np.bincount(called[host_calls.launches], minlength=cells) if len(calls) else np.zeros(cells, dtype=np.int64)
    )
    spent = _host_time(attribution, is_module, name_of, cells)

    rows = []
    for cell in np.flatnonzero((gpu > 0) | (kernels > 0) | (launches > 0) | (spent > 0)).tolist():
        stage, name = divmod(cell, names)
        rows.append(
            ModuleCost(
                stage=stages[stage],
                module=UNATTRIBUTED if name == names - 1 else paths[name],
                gpu_ns=int(gpu[cell]),
                kernels=int(kernels[cell]),
                host_ns=None if name == names - 1 else int(spent[cell]),
                launches=int(launches[cell]),
                in_graph=int(replayed[cell]),
            )
        )
    return tuple(sorted(rows, key=lambda row: (stages.index(row.stage), -row.gpu_ns, row.module)))


def _host_time(
    attribution: Attribution, is_module: NDArray[np.bool_], name_of: NDArray[np.int64], cells: int
) -> NDArray[np.int64]:
    """Host time of modules without their parts', by stage and name, [cells]."""
    ranges, tree = attribution.ranges, attribution.tree
    rows = np.flatnonzero(is_module)
    length = ranges.end - ranges.start
    own = np.where(is_module, length, 0)
    around = np.append(tree.nearest(is_module), np.int32(-1))[tree.parent]
    parts = np.flatnonzero(is_module & (around >= 0))
    own -= sum_by_group(around[parts].astype(np.intp), length[parts], len(ranges))
    none = len(attribution.stages)
    stage = np.full(len(ranges), none, dtype=np.int64)
    is_stage = attribution.is_level("stage")
    code = np.full(len(ranges), none, dtype=np.int64)
    for number, name in enumerate(attribution.stages):
        code[attribution.stage_rows(name)] = number
    nearest = np.append(tree.nearest(is_stage), np.int32(-1))
    for stack in tree.stacks:
        if is_stage[stack.rows].any():
            mine = rows[ranges.thread[rows] == stack.thread]
            inside = nearest[stack.innermost(ranges.start[mine], ranges.end[mine])]
            stage[mine[inside >= 0]] = code[inside[inside >= 0]]
    # Start/end ranges may cross, and a part that reaches out of its module must not make its time negative.
    return sum_by_group(stage[rows] * (cells // (none + 1)) + name_of[rows], np.maximum(own[rows], 0), cells)


def reported_costs(report: Report) -> tuple[ModuleCost, ...]:
    """The same from a report alone: GPU time and kernels; host time and launches are not known."""
    rows = [
        ModuleCost(stage, row.name, all_operations_ns(row), row.kernels, None, None, None)
        for stage, members in report.module_rows.items()
        if stage != "all" and stage != WHOLE_CAPTURE
        for row in members
    ]
    spent = {name: [0, 0] for name in (row.name for row in report.module_rows.get("all", ()))}
    for row in rows:
        sums = spent.setdefault(row.module, [0, 0])
        sums[0] += row.gpu_ns
        sums[1] += row.kernels
    for whole in report.module_rows.get("all", ()):
        left, kernels = all_operations_ns(whole) - spent[whole.name][0], whole.kernels - spent[whole.name][1]
        if left > 0 or kernels > 0:
            rows.append(ModuleCost(UNATTRIBUTED, whole.name, left, kernels, None, None, None))
    return tuple(rows)


def plain_modules(costs: Sequence[ModuleCost]) -> dict[str, Any] | None:
    """The icicle's data: paths, and a row per stage and path; the smallest of each stage beyond `MAX_MODULES` as one.

    Returns:
        None: there is no module.
    """
    if not any(cost.module != UNATTRIBUTED for cost in costs):
        return None
    paths: dict[str, int] = {}
    rows = []
    for stage in dict.fromkeys(cost.stage for cost in costs):
        mine = sorted(
            (cost for cost in costs if cost.stage == stage), key=lambda cost: -max(cost.gpu_ns, cost.host_ns or 0)
        )
        shown, rest = mine[:MAX_MODULES], mine[MAX_MODULES:]
        rows += [_plain(cost, paths.setdefault(cut(cost.module, _PATH_BYTES), len(paths))) for cost in shown]
        if rest:
            together = ModuleCost(
                stage=stage,
                module="",
                gpu_ns=sum(cost.gpu_ns for cost in rest),
                kernels=sum(cost.kernels for cost in rest),
                host_ns=_sum([cost.host_ns for cost in rest]),
                launches=_sum([cost.launches for cost in rest]),
                in_graph=_sum([cost.in_graph for cost in rest]),
            )
            rows.append(_plain(together, paths.setdefault(f"({len(rest)} smaller modules)", len(paths))))
    return {"paths": list(paths), "rows": rows}


def _plain(cost: ModuleCost, path: int) -> list[Any]:
    return [cost.stage, path, cost.gpu_ns, cost.host_ns, cost.launches, cost.kernels, cost.in_graph]


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
