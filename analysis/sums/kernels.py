"""Kernels by stage and launch shape: counts, times, occupancy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import astuple, frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.attribution.intervals import sum_by_group
from analysis.domain.entities import KernelSummary
from analysis.domain.manifest import RunManifest
from analysis.domain.many_records import evolved, records_of
from analysis.sums.grouping import stage_names
from analysis.sums.kernel_classes import Rules, classify_all, load_rules
from analysis.sums.records import CategoryRow
from analysis.sums.stages import instance_summaries
from analysis.sums.tokens import tokens_by_stage
from analysis.trace.distinct import distinct
from analysis.trace.launch_shapes import LaunchShapes
from analysis.trace.reader import Trace
from analysis.trace.records import GRAPH, KERNEL, MEMCPY, MEMSET, Device, TraceInfo

__all__ = [
    "DurationStatistics",
    "KernelTables",
    "category_rows",
    "duration_statistics",
    "kernel_tables",
    "kernels_of",
    "main_device",
    "occupancy",
    "per_token",
]

_REGISTER_FILES: Final = 4
"""An SM's registers are four files, one per scheduler: a warp's lie in one of them (compute capability ≥ 5.0)."""
_REGISTER_UNIT: Final = 256
"""Registers are handed out to a warp in units of this many (CUDA occupancy calculator, compute capability ≥ 3.0)."""
_SHARED_RESERVED: Final = 1024
"""Bytes of shared memory that the system keeps per block (compute capability ≥ 8.0, CUDA programming guide)."""
_SHARED_UNIT: Final = {True: 128, False: 256}
"""Shared memory is handed out in units of this many bytes, from compute capability 8.0 on and before."""


def main_device(info: TraceInfo, attribution: Attribution) -> Device | None:
    """The device that did most of the operations; None: the trace does not describe it."""
    operations, devices = attribution.operations, info.devices
    if not devices:
        return None
    if not len(operations):
        return devices[0]
    most = int(np.bincount(np.maximum(operations.device, 0)).argmax())
    if info.cuda_ordinals and most not in info.cuda_ordinals:
        return None
    return next((device for device in devices if device.device_id == most), devices[0])


@frozen
class KernelTables:
    """The kernels of a trace, by stage, then time."""

    by_name: tuple[KernelSummary, ...]
    """One row per stage and kernel name."""
    by_shape: tuple[KernelSummary, ...]
    """One row per stage, kernel name and launch shape; those of one stage and name add up to their row in ``by_name``."""


def kernels_of(
    trace: Trace, attribution: Attribution, manifest: RunManifest | None = None, rules: Path | None = None
) -> KernelTables:
    """All kernel summaries of a trace; per token as far as the trace or its manifest say how many there were.

    Args:
        trace: opened.
        attribution: of the trace.
        manifest: of its run; None: unknown.
        rules: a file of rules to try before ours.

    Raises:
        RequestError: the rules cannot be read.
    """
    tokens = tokens_by_stage(manifest, instance_summaries(attribution))
    return per_token(kernel_tables(attribution, main_device(trace.info, attribution), load_rules(rules)), tokens)


def per_token(tables: KernelTables, tokens: dict[str, int | None]) -> KernelTables:
    """Add the calls per token.

    Args:
        tables: of `kernel_tables`.
        tokens: stage → prompt tokens of prefill and emitted ones of decode; None: unknown.
    """
    if not any(tokens.values()):
        return tables
    # By the row's identity: a kernel of one shape is one record in both tables.
    rows = list({id(row): row for row in (*tables.by_name, *tables.by_shape)}.values())
    counts = [tokens.get(row.stage) for row in rows]
    made = evolved(
        rows, per_token=[row.calls / count if count else None for row, count in zip(rows, counts, strict=True)]
    )
    counted = dict(zip(map(id, rows), made, strict=True))
    by_shape = tuple(counted[id(row)] for row in tables.by_shape)
    same = tables.by_name is tables.by_shape
    return KernelTables(by_shape if same else tuple(counted[id(row)] for row in tables.by_name), by_shape)


def kernel_tables(attribution: Attribution, device: Device | None, rules: Rules) -> KernelTables:
    """Sum up the kernels of each stage by name, and by name and launch shape; without calls per token.

    Args:
        attribution: of the trace.
        device: for occupancy and waves; None: unknown.
        rules: that classify names.
    """
    operations = attribution.operations
    chosen = np.flatnonzero(operations.kind == KERNEL)
    if not chosen.size:
        return KernelTables((), ())
    # Kernels with one demangled name are one row, whatever string ids they came with.
    codes: dict[str, int] = {}
    name_code = np.array([codes.setdefault(name, len(codes)) for name in operations.names], dtype=np.int64)
    names = tuple(codes)
    short_by_name = dict(zip(operations.names, operations.short_names, strict=True))
    shorts = [short_by_name[name] for name in names]
    duration = operations.duration[chosen]
    stages = stage_names(attribution)
    # (stage, name) first, then its shapes: the product of all codes may have more cells than there are launches.
    stage_and_name = attribution.operation_stage[chosen].astype(np.int64) * len(names)
    stage_and_name += name_code[operations.name[chosen]]
    name_keys, by_name = distinct(stage_and_name, len(stages) * len(names))
    shape_codes, shape = distinct(operations.shape[chosen].astype(np.int64) + 1, len(operations.shapes) + 1)
    name_and_shape = by_name.astype(np.int64) * shape_codes.size + shape
    shape_keys, by_shape = distinct(name_and_shape, name_keys.size * shape_codes.size)
    name_of_shape, shape_of = np.divmod(shape_keys, shape_codes.size)

    stage_of, name_of = np.divmod(name_keys, len(names))
    classes = classify_all(names, shorts, rules)
    shapes = [_launch_shape(operations.shapes, int(code) - 1, device) for code in shape_codes]
    each = duration_statistics(by_shape, duration, shape_keys.size)
    folded = duration_statistics(by_name, duration, name_keys.size)
    stage_total = sum_by_group(stage_of, folded.total, len(stages)).tolist()

    def summaries(
        sums: DurationStatistics, key: NDArray[Any], shapes: Sequence[_LaunchShape], number: Sequence[int]
    ) -> list[KernelSummary]:
        """Of the groups that have these keys, with what their launch shapes say and how many these are."""
        name_at, stage_at = name_of[key].tolist(), stage_of[key].tolist()
        kinds = [classes[name] for name in name_at]
        total = sums.total.tolist()
        whole = [stage_total[stage] for stage in stage_at]
        # Python's quotients of integers are exact to the last bit, whatever their size.
        return records_of(
            KernelSummary,
            {
                "name": [names[name] for name in name_at],
                "short_name": [shorts[name] for name in name_at],
                "category": [kind.category for kind in kinds],
                "stage": [stages[stage] for stage in stage_at],
                "calls": sums.count,
                "total_ns": sums.total,
                "mean_ns": np.array([time / calls for time, calls in zip(total, sums.count.tolist(), strict=True)]),
                "median_ns": sums.median,
                "min_ns": sums.low,
                "max_ns": sums.high,
                "library": [kind.library for kind in kinds],
                "human_name": [kind.human_name for kind in kinds],
                "tensor_core": [kind.tensor_core for kind in kinds],
                "p95_ns": sums.p95,
                "share": [time / of if of else None for time, of in zip(total, whole, strict=True)],
                "grid": [shape.grid for shape in shapes],
                "block": [shape.block for shape in shapes],
                "registers_per_thread": [shape.registers for shape in shapes],
                "theoretical_occupancy": [shape.occupancy for shape in shapes],
                "waves": [shape.waves for shape in shapes],
                "shared_bytes": [shape.shared_bytes for shape in shapes],
                "shapes": number,
            },
            len(name_at),
        )

    shape_at = [shapes[code] for code in shape_of.tolist()]
    rows = summaries(each, name_of_shape, shape_at, [1] * len(shape_at))
    of_shapes = _by_stage_then_time(rows, stages)
    number = np.bincount(name_of_shape, minlength=name_keys.size)
    if len(rows) == name_keys.size:  # a kernel of one shape is the same record in both tables
        return KernelTables(of_shapes, of_shapes)
    end = np.cumsum(number)
    first = end - number
    several = np.flatnonzero(number > 1)
    together = [_in_common(shape_at[first[key] : end[key]]) for key in several.tolist()]
    names_rows = [rows[place] for place in first[number == 1].tolist()]
    names_rows += summaries(folded.of(several), several, together, number[several].tolist())
    return KernelTables(by_name=_by_stage_then_time(names_rows, stages), by_shape=of_shapes)


def _by_stage_then_time(rows: Sequence[KernelSummary], stages: tuple[str, ...]) -> tuple[KernelSummary, ...]:
    order = {name: place for place, name in enumerate(stages)}
    nothing = (-1, -1, -1)
    return tuple(
        sorted(
            rows, key=lambda row: (order[row.stage], -row.total_ns, row.name, row.grid or nothing, row.block or nothing)
        )
    )


@frozen
class _LaunchShape:
    """What one launch shape, or several together, say; None: not recorded, or not the same for all."""

    grid: tuple[int, int, int] | None = None
    block: tuple[int, int, int] | None = None
    registers: int | None = None
    shared_bytes: int | None = None
    occupancy: float | None = None
    waves: float | None = None


def _launch_shape(shapes: LaunchShapes, code: int, device: Device | None) -> _LaunchShape:
    if code < 0:
        return _LaunchShape()
    resident = occupancy(shapes, code, device)
    return _LaunchShape(
        grid=shapes.grid(code),
        block=shapes.block(code),
        registers=shapes.registers(code),
        shared_bytes=shapes.shared_bytes(code),
        occupancy=None if resident is None else resident[0],
        waves=None if resident is None else resident[1],
    )


def _in_common(shapes: list[_LaunchShape]) -> _LaunchShape:
    """The parts in which all shapes agree."""
    columns = zip(*(astuple(shape, recurse=False) for shape in shapes), strict=True)
    return _LaunchShape(*(values[0] if len(set(values)) == 1 else None for values in columns))


@frozen(eq=False)
class DurationStatistics:
    """Of the durations of each group, [groups]; every group has one. ns."""

    count: NDArray[np.int64]
    total: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    median: NDArray[np.float64]
    p95: NDArray[np.float64]

    def of(self, groups: NDArray[np.int64]) -> DurationStatistics:
        """The same of some groups, in that order."""
        return DurationStatistics(*(column[groups] for column in astuple(self, recurse=False)))


def duration_statistics(group: NDArray[Any], duration: NDArray[np.int64], groups: int) -> DurationStatistics:
    """Count, sum and order statistics; percentiles are interpolated linearly between neighbours, as numpy's are."""
    count = np.bincount(group, minlength=groups)
    first = np.cumsum(count) - count
    ordered = _sorted_within(group, duration)
    at = first + 0.95 * (count - 1)
    below = np.floor(at).astype(np.int64)
    above = np.minimum(below + 1, first + count - 1)
    return DurationStatistics(
        count=count,
        total=sum_by_group(group, duration, groups),
        low=ordered[first],
        high=ordered[first + count - 1],
        median=(ordered[first + (count - 1) // 2] + ordered[first + count // 2]) / 2,
        p95=ordered[below] + (at - below) * (ordered[above] - ordered[below]),
    )


def _sorted_within(group: NDArray[Any], duration: NDArray[np.int64]) -> NDArray[np.int64]:
    """Durations sorted within their group, groups one after the other."""
    bits = max(1, int(duration.max()).bit_length())
    if bits + int(group.max()).bit_length() < 63:
        packed = (group.astype(np.int64) << bits) | duration
        packed.sort()
        return packed & ((1 << bits) - 1)
    return duration[np.lexsort((duration, group))]


def occupancy(shapes: LaunchShapes, code: int, device: Device | None) -> tuple[float, float] | None:
    """Theoretical occupancy (resident warps / the SM's maximum) and waves (blocks / blocks that fit on the device).

    The smallest of four limits on resident blocks: threads, registers, shared memory, block slots – as NVIDIA's CUDA
    occupancy calculator has them. The shared-memory carve-out is taken at its maximum.

    Returns:
        None where the device's limits, its compute capability or the shape are not recorded, or the block cannot be resident.
    """
    grid, block, registers = shapes.grid(code), shapes.block(code), shapes.registers(code)
    shared = shapes.shared_bytes(code)
    if device is None or grid is None or block is None or registers is None or shared is None:
        return None
    limits = (device.max_warps_per_sm, device.max_blocks_per_sm, device.max_registers_per_sm)
    if None in limits or device.sm_count is None or device.max_shared_bytes_per_sm is None:
        return None
    if device.compute_capability is None:
        return None
    ampere = int(device.compute_capability.split(".")[0]) >= 8
    max_warps, max_blocks, max_registers = (int(limit or 0) for limit in limits)
    warps = -(-(block[0] * block[1] * block[2]) // 32)
    if warps == 0:
        return None
    per_warp = -(-max(registers, 1) * 32 // _REGISTER_UNIT) * _REGISTER_UNIT
    by_registers = max_registers // _REGISTER_FILES // per_warp * _REGISTER_FILES // warps
    unit = _SHARED_UNIT[ampere]
    per_block = -(-(shared + (_SHARED_RESERVED if ampere else 0)) // unit) * unit
    by_shared = device.max_shared_bytes_per_sm // per_block if per_block else max_blocks
    blocks = min(max_blocks, max_warps // warps, by_registers, by_shared)
    if blocks == 0:
        return None
    return blocks * warps / max_warps, grid[0] * grid[1] * grid[2] / (blocks * device.sm_count)


def category_rows(attribution: Attribution, kernels: tuple[KernelSummary, ...]) -> tuple[CategoryRow, ...]:
    """GPU time by stage and category, copies, sets and graphs included; shares are of all operations of the stage."""
    operations, stages = attribution.operations, stage_names(attribution)
    stage = attribution.operation_stage
    by_category: dict[tuple[int, str], list[int]] = {}
    for row in kernels:
        entry = by_category.setdefault((stages.index(row.stage), row.category), [0, 0])
        entry[0] += row.calls
        entry[1] += row.total_ns
    others = np.flatnonzero(np.isin(operations.kind, (MEMCPY, MEMSET, GRAPH)))
    labels = [name.strip("[]").removeprefix("CUDA ") for name in operations.names]
    labels = ["graph" if label.startswith("graph") else label for label in labels]
    key = stage[others].astype(np.int64) * max(1, len(labels)) + operations.name[others]
    present, index = np.unique(key, return_inverse=True)
    times = np.bincount(index, minlength=present.size)
    total = np.bincount(index, weights=operations.duration[others], minlength=present.size)
    for position, packed in enumerate(present.tolist()):
        entry = by_category.setdefault((packed // len(labels), labels[packed % len(labels)]), [0, 0])
        entry[0] += int(times[position])
        entry[1] += int(total[position])
    sums = [
        sum(entry[1] for (which, _), entry in by_category.items() if which == stage_code)
        for stage_code in range(len(stages))
    ]
    rows = [
        CategoryRow(stages[which], category, calls, time, time / sums[which] if sums[which] else 0.0)
        for (which, category), (calls, time) in by_category.items()
    ]
    return tuple(sorted(rows, key=lambda row: (stages.index(row.stage), -row.total_ns, row.category)))
