"""Kernels by stage: counts, times, launch shapes."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.domain.annotations import STAGES
from analysis.domain.entities import KernelSummary
from analysis.domain.manifest import RunManifest
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.kernel_classes import Rules, classify_all, load_rules
from analysis.sums.records import CategoryRow
from analysis.sums.stages import instance_summaries
from analysis.sums.tokens import tokens_by_stage
from analysis.trace.launch_shapes import LaunchShapes
from analysis.trace.reader import Trace
from analysis.trace.records import GRAPH, KERNEL, MEMCPY, MEMSET, Device

__all__ = ["category_rows", "kernel_summaries", "kernels_of", "main_device", "occupancy"]

_STAGE_NAMES: Final = (*STAGES, UNATTRIBUTED)
_REGISTER_FILES: Final = 4
"""An SM's registers are four files, one per scheduler: a warp's lie in one of them (compute capability ≥ 5.0)."""
_REGISTER_UNIT: Final = 256
"""Registers are handed out to a warp in units of this many (CUDA occupancy calculator, compute capability ≥ 3.0)."""
_SHARED_RESERVED: Final = 1024
"""Bytes of shared memory that the system keeps per block (compute capability ≥ 8.0, CUDA programming guide)."""
_SHARED_UNIT: Final = {True: 128, False: 256}
"""Shared memory is handed out in units of this many bytes, from compute capability 8.0 on and before."""


def main_device(devices: tuple[Device, ...], attribution: Attribution) -> Device | None:
    """The device that did most of the operations; None: the trace describes none."""
    operations = attribution.operations
    if not devices:
        return None
    if len(devices) == 1 or not len(operations):
        return devices[0]
    count = np.bincount(np.maximum(operations.device, 0))
    return next((one for one in devices if one.device_id == int(count.argmax())), devices[0])


def kernels_of(
    trace: Trace, attribution: Attribution, manifest: RunManifest | None = None
) -> tuple[KernelSummary, ...]:
    """All kernel summaries of a trace; per token as far as the trace or its manifest say how many there were."""
    tokens = tokens_by_stage(manifest, instance_summaries(attribution))
    return kernel_summaries(
        attribution,
        {str(name): count for name, count in tokens.items()},
        main_device(trace.info.devices, attribution),
        load_rules(),
    )


def kernel_summaries(
    attribution: Attribution, tokens: dict[str, int | None], device: Device | None, rules: Rules
) -> tuple[KernelSummary, ...]:
    """One record per stage and kernel name, by stage, then time.

    Args:
        attribution: of the trace.
        tokens: prompt tokens of prefill and emitted ones of decode, for calls per token; None: unknown.
        device: for occupancy and waves; None: unknown.
        rules: that classify names.
    """
    operations = attribution.operations
    chosen = np.flatnonzero(operations.kind == KERNEL)
    if not chosen.size:
        return ()
    unique: dict[str, int] = {}
    by_name = np.array([unique.setdefault(name, len(unique)) for name in operations.names], dtype=np.int64)
    shorts = dict(zip(operations.names, operations.short_names, strict=True))
    group = attribution.operation_stage[chosen].astype(np.int64) * len(unique) + by_name[operations.name[chosen]]
    groups = 3 * len(unique)
    duration = operations.duration[chosen]
    count = np.bincount(group, minlength=groups)
    total = np.bincount(group, weights=duration, minlength=groups)
    ordered, first = _sorted_within(group, duration, count)
    shape, shaped = _most_frequent(group, operations.shape[chosen], groups)
    stage_total = total.reshape(3, -1).sum(axis=1)
    names = tuple(unique)
    classes = classify_all(names, [shorts[name] for name in names], rules)
    found = []
    for index in np.flatnonzero(count).tolist():
        stage, name = divmod(index, len(unique))
        durations = ordered[first[index] : first[index] + count[index]]
        calls = int(count[index])
        kind = classes[name]
        stage_tokens = tokens.get(_STAGE_NAMES[stage])
        code = int(shape[index]) if shaped[index] else None
        resident = None if code is None else occupancy(operations.shapes, code, device)
        found.append(
            KernelSummary(
                name=names[name],
                short_name=shorts[names[name]],
                category=kind.category,
                stage=_STAGE_NAMES[stage],
                calls=calls,
                total_ns=int(total[index]),
                mean_ns=float(total[index] / calls),
                median_ns=float((int(durations[(calls - 1) // 2]) + int(durations[calls // 2])) / 2),
                min_ns=int(durations[0]),
                max_ns=int(durations[-1]),
                library=kind.library,
                human_name=kind.human_name,
                tensor_core=kind.tensor_core,
                p95_ns=float(np.percentile(durations, 95)),
                share=float(total[index] / stage_total[stage]) if stage_total[stage] else None,
                per_token=calls / stage_tokens if stage_tokens else None,
                grid=None if code is None else operations.shapes.grid(code),
                block=None if code is None else operations.shapes.block(code),
                registers_per_thread=None if code is None else operations.shapes.registers(code),
                theoretical_occupancy=None if resident is None else resident[0],
                waves=None if resident is None else resident[1],
            )
        )
    return tuple(sorted(found, key=lambda row: (_STAGE_NAMES.index(row.stage), -row.total_ns, row.name)))


def _sorted_within(
    group: NDArray[np.int64], duration: NDArray[np.int64], count: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Durations sorted within their group, groups one after the other, and where each group begins."""
    bits = max(1, int(duration.max()).bit_length())
    first = np.concatenate(([0], np.cumsum(count)[:-1]))
    if bits + int(group.max()).bit_length() < 63:
        packed = (group << bits) | duration
        packed.sort()
        return packed & ((1 << bits) - 1), first
    return duration[np.lexsort((duration, group))], first


def _most_frequent(
    group: NDArray[np.int64], shape: NDArray[np.signedinteger], groups: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Most frequent launch shape of each group, and whether it has one."""
    best = np.full(groups, -1, dtype=np.int64)
    known = shape >= 0
    if known.any():
        width = int(shape.max()) + 1
        present, times = np.unique(group[known] * width + shape[known], return_counts=True)
        order = np.argsort(times, kind="stable")
        best[present[order] // width] = present[order] % width
    return best, best >= 0


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
    operations = attribution.operations
    stage = attribution.operation_stage
    found: dict[tuple[int, str], list[int]] = {}
    for row in kernels:
        entry = found.setdefault((_STAGE_NAMES.index(row.stage), row.category), [0, 0])
        entry[0] += row.calls
        entry[1] += row.total_ns
    others = np.flatnonzero(np.isin(operations.kind, (MEMCPY, MEMSET, GRAPH)))
    labels = [name.strip("[]").removeprefix("CUDA ") for name in operations.names]
    labels = ["graph" if label.startswith("graph") else label for label in labels]
    key = stage[others].astype(np.int64) * max(1, len(labels)) + operations.name[others]
    present, index = np.unique(key, return_inverse=True)
    times = np.bincount(index, minlength=present.size)
    total = np.bincount(index, weights=operations.duration[others], minlength=present.size)
    for position, one in enumerate(present.tolist()):
        entry = found.setdefault((one // len(labels), labels[one % len(labels)]), [0, 0])
        entry[0] += int(times[position])
        entry[1] += int(total[position])
    sums = [sum(entry[1] for (which, _), entry in found.items() if which == one) for one in range(3)]
    rows = [
        CategoryRow(_STAGE_NAMES[which], category, calls, time, time / sums[which] if sums[which] else 0.0)
        for (which, category), (calls, time) in found.items()
    ]
    return tuple(sorted(rows, key=lambda row: (_STAGE_NAMES.index(row.stage), -row.total_ns, row.category)))
