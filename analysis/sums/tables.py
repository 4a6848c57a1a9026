"""Tables of GPU time: one row per stage, instance, step, module, range or kernel, integers only.

At every level each operation is counted in exactly one row (``range`` excepted, which is inclusive), the rest in the
row ``(unattributed)``, and the rows add up to the trace's total; `ConservationError` if they do not.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from attrs import evolve
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution, Level
from analysis.domain.errors import ConservationError
from analysis.sums.grouping import COUNTED, UNATTRIBUTED, GpuTable, grouped, select, stage_names
from analysis.sums.inclusive import inclusive_table
from analysis.trace.records import Operations

__all__ = ["TABLE_KINDS", "TableKind", "gpu_table"]

TableKind: TypeAlias = Literal["stage", "instance", "step", "module", "range", "kernel"]
TABLE_KINDS: Final[tuple[TableKind, ...]] = get_args(TableKind)


def gpu_table(attribution: Attribution, by: TableKind, *, stage: str | None = None) -> GpuTable:
    """Make a table.

    Args:
        attribution: of the trace.
        by: what a row is. ``range`` is inclusive, by ``domain:name``, each operation once per name; the others are
            exclusive (innermost) and add up.
        stage: keep the operations of this stage only.

    Raises:
        ConservationError: rows do not add up to the operations' total.
    """
    selected = attribution.in_stage(stage) if stage is not None else None
    operations = attribution.operations if selected is None else select(attribution.operations, selected)
    if by == "range":
        return inclusive_table(attribution, selected)
    group, names, instance = _rows(attribution, by, selected, stage)
    steps = _steps(attribution, names) if by == "stage" else ()
    table = GpuTable(names, columns=grouped(operations, group, len(names), instance=instance), steps=steps)
    _conserve(table, operations, by)
    return _ordered(table, by, stage_names(attribution))


def _rows(
    attribution: Attribution, by: TableKind, selected: NDArray[np.bool_] | None, stage: str | None
) -> tuple[NDArray[Any], tuple[str, ...], NDArray[Any] | None]:
    """Row of each selected operation, the rows' names, and the instance of each operation."""
    operations = attribution.operations
    if by == "kernel":
        # Kernels with one demangled name are one row, whatever string ids they came with.
        unique: dict[str, int] = {}
        lookup = np.array([unique.setdefault(name, len(unique)) for name in operations.names] or [0], dtype=np.int32)
        group = lookup[operations.name] if selected is None else lookup[operations.name[selected]]
        return *_dense(group, list(unique) or [""]), None
    level: dict[str, Level] = {"stage": "stage", "instance": "stage", "step": "step", "module": "module"}
    rows = attribution.operation_level(level[by])
    rows = rows if selected is None else rows[selected]
    ranges = attribution.ranges
    if by in ("stage", "module"):
        if by == "stage":
            code = attribution.operation_stage
            group, names = _dense(code if selected is None else code[selected], list(stage_names(attribution)))
        else:
            of_range, paths = attribution.module_names
            codes = of_range[rows]
            group, names = _dense(np.where(codes >= 0, codes, len(paths)), [*paths, UNATTRIBUTED])
        if by == "stage" and stage is None:
            group, names = _with_rows(group, names, stage_names(attribution))
        instances = attribution.operation_instances(level[by])
        return group, names, instances if selected is None else instances[selected]
    instances = np.flatnonzero(attribution.is_level(level[by]))
    if stage is not None:
        stage_rows = attribution.ranges_in_stage(stage)
        instances = instances[stage_rows[instances]]
    instances = instances[np.argsort(ranges.start[instances], kind="stable")]
    position = np.full(len(ranges) + 1, instances.size, dtype=np.int32)
    position[instances] = np.arange(instances.size)
    group = position[rows]
    path_of = attribution.instance_names
    names = tuple(path_of[int(row)] for row in instances)
    if group.size and int(group.max()) == instances.size:
        names = (*names, UNATTRIBUTED)
    return group, names, None


def _steps(attribution: Attribution, stages: tuple[str, ...]) -> tuple[int | None, ...]:
    """Steps of an engine by stage; empty: the trace is of none."""
    if not attribution.choice.vocabulary.has_step_kinds:
        return ()
    return tuple(len(attribution.stage_rows(name)) if name != UNATTRIBUTED else None for name in stages)


def _dense(codes: NDArray[Any], names: list[str]) -> tuple[NDArray[Any], tuple[str, ...]]:
    present = np.flatnonzero(np.bincount(codes, minlength=len(names)))
    lookup = np.zeros(len(names), dtype=np.int32)
    lookup[present] = np.arange(present.size)
    return lookup[codes], tuple(names[code] for code in present)


def _with_rows(
    group: NDArray[Any], names: tuple[str, ...], wanted: tuple[str, ...]
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Add rows without operations, so that a stage that launched nothing shows as zeros, not as absent."""
    return group, (*names, *(name for name in wanted if name not in names))


def _conserve(table: GpuTable, operations: Operations, by: str) -> None:
    duration = operations.duration
    for kind, count, total in COUNTED:
        which = operations.kind == kind
        expected = (int(which.sum()), int(duration[which].sum()))
        held = (table.total(count), table.total(total))
        if expected != held:
            raise ConservationError(
                f"internal error: the {by} table holds {held[0]} {count} of {held[1]} ns, the trace {expected[0]} "
                f"of {expected[1]} ns; please report this with the trace"
            )


def _ordered(table: GpuTable, by: TableKind, stages: tuple[str, ...]) -> GpuTable:
    """Stages in their order, instances and steps in time order, modules and kernels by time; the remainder last."""
    last = np.array([name == UNATTRIBUTED for name in table.names], dtype=np.int64)
    weight = sum((table.columns[column] for _, _, column in COUNTED), np.zeros(len(table.names), dtype=np.int64))
    if by == "stage":
        rank = np.array([stages.index(name) for name in table.names], dtype=np.int64)
        order = np.lexsort((rank, last))
    elif by in ("instance", "step"):
        order = np.lexsort((np.arange(len(table.names)), last))
    else:
        order = np.lexsort((-weight, last))
    return evolve(
        table,
        names=tuple(table.names[row] for row in order),
        columns={key: value[order] for key, value in table.columns.items()},
        steps=tuple(table.steps[row] for row in order) if table.steps else (),
    )
