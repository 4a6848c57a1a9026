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
from analysis.domain.columns import Records, Values, listed
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
    "NO_SHAPE",
    "DurationStatistics",
    "KernelTables",
    "category_rows",
    "duration_statistics",
    "kernel_tables",
    "kernels_of",
    "main_device",
    "occupancy",
    "per_token",
    "places_by_stage_then_time",
    "quotients",
    "shares",
    "spread",
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
    if tables.by_name is tables.by_shape:  # each kernel has one shape
        counted = _per_token(Records.of(tables.by_name), tokens)
        return KernelTables(counted, counted)
    # By the row's identity: a kernel of one shape is one record in both tables.
    rows = Records.of({id(row): row for row in (*tables.by_name, *tables.by_shape)}.values())
    made = dict(zip(map(id, rows), _per_token(rows, tokens), strict=True))
    by_name, by_shape = (Records.of([made[id(row)] for row in table]) for table in (tables.by_name, tables.by_shape))
    return KernelTables(by_name, by_shape)


def _per_token(rows: Records[KernelSummary], tokens: dict[str, int | None]) -> Records[KernelSummary]:
    counts = map(tokens.get, rows.values("stage"))
    calls = rows.values("calls")
    return evolved(rows, per_token=[each / count if count else None for each, count in zip(calls, counts, strict=True)])


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
    stage_total = sum_by_group(stage_of, folded.total, len(stages))

    def summaries(
        sums: DurationStatistics,
        key: NDArray[Any],
        shapes: Sequence[_LaunchShape],
        shape_at: NDArray[Any],
        number: NDArray[Any],
    ) -> tuple[Records[KernelSummary], list[int]]:
        """Of the groups that have these keys, with what their launch shapes say and how many these are.

        Returns:
            By stage, then time; and the place of each among the groups.
        """
        named = [names[name] for name in name_of[key].tolist()]
        order = places_by_stage_then_time(
            stage_of[key].tolist(), sums.total.tolist(), named,
            spread([shape.grid or NO_SHAPE for shape in shapes], shape_at),
            spread([shape.block or NO_SHAPE for shape in shapes], shape_at),
        )  # fmt: skip
        sums, stage_at, shape_at = sums.of(np.array(order)), stage_of[key[order]], shape_at[order]
        name_at = name_of[key[order]].tolist()
        kinds = [classes[name] for name in name_at]
        parts = zip(*(astuple(shape, recurse=False) for shape in shapes), strict=True)
        grid, block, registers, shared_bytes, resident, waves = (spread(part, shape_at) for part in parts)
        columns: dict[str, Values] = {
            "name": [named[place] for place in order],
            "short_name": [shorts[name] for name in name_at],
            "category": [kind.category for kind in kinds],
            "stage": [stages[stage] for stage in stage_at.tolist()],
            "calls": sums.count,
            "total_ns": sums.total,
            "mean_ns": quotients(sums.total, sums.count),
            "median_ns": sums.median,
            "min_ns": sums.low,
            "max_ns": sums.high,
            "library": [kind.library for kind in kinds],
            "human_name": [kind.human_name for kind in kinds],
            "tensor_core": [kind.tensor_core for kind in kinds],
            "p95_ns": sums.p95,
            "share": shares(sums.total, stage_total[stage_at]),
            "grid": grid,
            "block": block,
            "registers_per_thread": registers,
            "theoretical_occupancy": resident,
            "waves": waves,
            "shared_bytes": shared_bytes,
            "shapes": number[order],
        }
        return records_of(KernelSummary, columns, len(order)), order

    of_shapes, order = summaries(each, name_of_shape, shapes, shape_of, np.ones(shape_of.size, dtype=np.int64))
    number = np.bincount(name_of_shape, minlength=name_keys.size)
    if len(of_shapes) == name_keys.size:  # a kernel of one shape is the same record in both tables
        return KernelTables(of_shapes, of_shapes)
    end = np.cumsum(number)
    first = end - number
    several = np.flatnonzero(number > 1)
    together = [_in_common([shapes[code] for code in shape_of[first[key] : end[key]]]) for key in several.tolist()]
    of_several, _ = summaries(folded.of(several), several, together, np.arange(several.size), number[several])
    row_of = np.argsort(order)
    of_names = Records.of((*(of_shapes[row] for row in row_of[first[number == 1]].tolist()), *of_several))
    place = {name: stage for stage, name in enumerate(stages)}
    order = places_by_stage_then_time(
        [place[stage] for stage in of_names.values("stage")], of_names.values("total_ns"), of_names.values("name")
    )
    return KernelTables(by_name=Records.of([of_names[row] for row in order]), by_shape=of_shapes)


NO_SHAPE: Final = (-1, -1, -1)
"""In order before all grids and blocks."""


def places_by_stage_then_time(stage: Sequence[int], total_ns: Sequence[int], *ties: Values) -> list[int]:
    """The places of rows in the order of tables of kernels: by stage, most time first, then by the columns ``ties``."""
    keys = list(zip(stage, [-time for time in total_ns], *map(listed, ties), strict=True))
    return sorted(range(len(keys)), key=keys.__getitem__)


def spread(values: Sequence[Any], code: NDArray[Any]) -> Values:
    """Values of few things for many rows, [rows]: an array where all are numbers of one kind, else a list.

    Args:
        values: of each thing, [things].
        code: the number of each row's thing, [rows].
    """
    if set(map(type, values)) in ({int}, {float}):
        of_rows: NDArray[Any] = np.array(values)[code]
        return of_rows
    return [values[number] for number in code.tolist()]


_EXACT: Final = 2**53
"""Integers up to this are doubles."""


def quotients(above: NDArray[np.int64], below: NDArray[np.int64]) -> NDArray[np.float64]:
    """Quotients of integers, exact to the last bit, as Python's are whatever their size."""
    if above.size and max(int(above.max()), int(below.max())) > _EXACT:
        return np.array([over / under for over, under in zip(above.tolist(), below.tolist(), strict=True)])
    return above / below


def shares(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64] | list[float | None]:
    """Part ÷ whole, exact to the last bit; None where the whole is 0."""
    if whole.all():
        return quotients(part, whole)
    return [of / total if total else None for of, total in zip(part.tolist(), whole.tolist(), strict=True)]


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
    counted = Records.of(kernels)
    columns = (counted.values(name) for name in ("stage", "category", "calls", "total_ns"))
    for name, category, times, total_ns in zip(*columns, strict=True):
        entry = by_category.setdefault((stages.index(name), category), [0, 0])
        entry[0] += times
        entry[1] += total_ns
    others = np.flatnonzero(np.isin(operations.kind, (MEMCPY, MEMSET, GRAPH)))
    labels = [name.strip("[]").removeprefix("CUDA ") for name in operations.names]
    labels = ["graph" if label.startswith("graph") else label for label in labels]
    key = stage[others].astype(np.int64) * max(1, len(labels)) + operations.name[others]
    present, index = np.unique(key, return_inverse=True)
    calls = np.bincount(index, minlength=present.size)
    total = np.bincount(index, weights=operations.duration[others], minlength=present.size)
    for position, packed in enumerate(present.tolist()):
        entry = by_category.setdefault((packed // len(labels), labels[packed % len(labels)]), [0, 0])
        entry[0] += int(calls[position])
        entry[1] += int(total[position])
    sums = [
        sum(entry[1] for (which, _), entry in by_category.items() if which == stage_code)
        for stage_code in range(len(stages))
    ]
    rows = [
        CategoryRow(stages[which], category, times, time, time / sums[which] if sums[which] else 0.0)
        for (which, category), (times, time) in by_category.items()
    ]
    return tuple(sorted(rows, key=lambda row: (stages.index(row.stage), -row.total_ns, row.category)))
