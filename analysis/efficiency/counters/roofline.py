"""Rooflines from counters: what each kernel moved and computed, and the least time that the device needs for that.

The roofline time of a launch is the largest of: bytes from and to DRAM ÷ peak bandwidth, tensor-core operations ÷ the
dense peak of their type, CUDA-core operations ÷ the fp32 peak (Williams, Waterman and Patterson, 2009, with one roof per
unit). It is at most the launch's own time: unless told not to, Nsight Compute empties the caches before each kernel, so that
a kernel whose input the kernel before it left in L2 reads more from DRAM there than in the traced run;
`RooflineRow.cut_ns` says how much was cut off. Times are the trace's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.domain.annotations import STAGES
from analysis.domain.entities import KernelSummary
from analysis.efficiency.counters.file import CUDA_CORE_FLOP, DRAM_READ, DRAM_WRITE, L2, tensor_dtype
from analysis.efficiency.counters.join import BY_CONFIGURATION, UNMATCHED, JoinedCounters
from analysis.efficiency.hardware import Peak
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.kernel_modules import module_patterns

__all__ = [
    "ROOFS",
    "SPEED_OF_LIGHT",
    "Coverage",
    "LaunchRoofs",
    "RooflineRow",
    "coverage_rows",
    "kernel_rows",
    "launch_roofs",
    "summed",
]

Floats = NDArray[np.float64]

ROOFS: Final = ("DRAM", "tensor cores", "CUDA cores")
_MOST_DRAM: Final = 10
_MOST_ARITHMETIC: Final = 3
"""Times the launch's duration that its bytes or operations may take at peak. Sparse operations run at twice the dense peak, clocks
of the traced run may be higher, and what comes from L2 there may take the time of several from DRAM. In 180,000 launches
on an H100 nothing exceeds 0.87 of the duration."""


@frozen(eq=False)
class LaunchRoofs:
    """What each launch moved and computed, and how long that takes at peak. All arrays are [launches]; NaN: unknown."""

    joined: JoinedCounters
    dram_bytes: Floats
    l2_bytes: Floats
    tensor_flop: Floats
    cuda_flop: Floats
    tensor_type: NDArray[np.int8]
    """Index into ``tensor_types`` of the type with the most operations; -1: none or unknown."""
    tensor_types: tuple[str, ...]
    times_ns: Floats
    """At each of `ROOFS`, [3, launches]; at most the launch's duration."""
    impossible: NDArray[np.bool_]
    """Launches whose counters are left out, for they cannot be of the work that the trace has there."""
    roofline_ns: NDArray[np.int64]
    """At most the launch's duration; 0 where unknown."""
    uncut_ns: Floats
    known: NDArray[np.bool_]
    """Whether there is a roofline time."""
    bound: NDArray[np.int8]
    """Index into `ROOFS` of the slowest; -1: unknown."""


def launch_roofs(joined: JoinedCounters, peak: Peak | None) -> LaunchRoofs:
    """Compute each launch's roofline time.

    Args:
        joined: counters by launch.
        peak: of the device; None: unknown, and so are all roofline times.
    """
    launches = joined.launches
    size = len(launches)
    nothing = np.full(size, np.nan)

    def value(metric: str) -> Floats:
        found = joined.value(metric)
        return nothing if found is None else found

    dram = value(DRAM_READ) + value(DRAM_WRITE)
    cuda = np.zeros(size)
    if any(metric in joined.values for metric in CUDA_CORE_FLOP):
        for metric, operations in CUDA_CORE_FLOP.items():
            if metric in joined.values:
                cuda = cuda + operations * joined.values[metric]
    else:
        cuda = nothing
    types = sorted({dtype for metric in joined.values if (dtype := tensor_dtype(metric)) is not None})
    by_type = np.full((len(types), size), np.nan)
    for metric, values in joined.values.items():
        dtype = tensor_dtype(metric)
        if dtype is not None:
            row = by_type[types.index(dtype)]
            by_type[types.index(dtype)] = np.where(np.isnan(row), values, row + np.nan_to_num(values))
    tensor, tensor_ns = nothing, nothing
    tensor_type = np.full(size, -1, dtype=np.int8)
    if types:
        seen = ~np.isnan(by_type).all(axis=0)
        tensor = np.where(seen, np.nan_to_num(by_type).sum(axis=0), np.nan)
        most = np.nan_to_num(by_type).argmax(axis=0)
        tensor_type = np.where(seen & (tensor > 0), most, -1).astype(np.int8)
        rates = [_rate(peak, one) for one in types]
        unknown_rate = np.array([rate is None for rate in rates])
        per_type = np.nan_to_num(by_type) / np.array([[rate or 1.0] for rate in rates]) * 1e9
        tensor_ns = np.where(seen, per_type.sum(axis=0), np.nan)
        without = (np.nan_to_num(by_type)[unknown_rate] > 0).any(axis=0)
        tensor_ns = np.where(without, np.nan, tensor_ns)
    bandwidth, fp32 = peak.bytes_per_s if peak else None, _rate(peak, "fp32")
    times = np.stack(
        [
            dram / bandwidth * 1e9 if bandwidth else nothing,
            tensor_ns,
            cuda / fp32 * 1e9 if fp32 else nothing,
        ]
    )
    # Compared with NaN, nothing is larger.
    impossible = (times[0] > _MOST_DRAM * launches.duration) | (times[1:] > _MOST_ARITHMETIC * launches.duration).any(
        axis=0
    )
    dram, tensor, cuda = (np.where(impossible, np.nan, values) for values in (dram, tensor, cuda))
    times = np.where(impossible, np.nan, times)
    # Without DRAM traffic the roof of most kernels is missing, not low.
    known = ~np.isnan(times[0])
    lowest = np.where(np.isnan(times), -1.0, times)
    slowest = lowest.max(axis=0) if size else nothing
    cut = np.minimum(np.where(known, slowest, 0.0), launches.duration)
    return LaunchRoofs(
        joined=joined,
        dram_bytes=dram,
        l2_bytes=value(L2),
        tensor_flop=tensor,
        cuda_flop=cuda,
        tensor_type=tensor_type,
        tensor_types=tuple(types),
        times_ns=np.minimum(times, launches.duration),
        impossible=impossible,
        roofline_ns=np.round(cut).astype(np.int64),
        uncut_ns=np.where(known, slowest, np.nan),
        known=known,
        bound=np.where(known, lowest.argmax(axis=0) if size else 0, -1).astype(np.int8),
    )


def _rate(peak: Peak | None, dtype: str) -> float | None:
    return None if peak is None else peak.flop_per_s.get(dtype)


@frozen
class RooflineRow:
    """Launches of one stage – of one kernel, launch shape and module, of a module, or all – against the rooflines.

    Bytes and operations are sums over the launches for which they are known; ``covered_ns`` is the time of those that
    have a roofline time.
    """

    stage: str
    module: str
    """Path with its numbers folded (``layers.*.mlp``); `UNATTRIBUTED`: in none; empty: all modules."""
    name: str = ""
    """Full name of the kernel; empty: all kernels."""
    short_name: str = ""
    human_name: str | None = None
    category: str = ""
    grid: tuple[int, int, int] | None = None
    block: tuple[int, int, int] | None = None
    registers_per_thread: int | None = None
    shared_bytes: int | None = None
    theoretical_occupancy: float | None = None
    waves: float | None = None
    calls: int = 0
    total_ns: int = 0
    covered_calls: int = 0
    covered_ns: int = 0
    by_configuration_ns: int = 0
    """Time of covered launches that have the counters of another launch of their configuration."""
    dram_bytes: float | None = None
    l2_bytes: float | None = None
    tensor_flop: float | None = None
    tensor_type: str | None = None
    """Type of the operands of most tensor-core operations."""
    cuda_flop: float | None = None
    roofline_ns: int | None = None
    """Least time of the covered launches; None: none is covered, or a peak is unknown."""
    cut_ns: int = 0
    """By how much their roofline times exceed their own."""
    bound: str | None = None
    """Which roof most of ``roofline_ns`` is under: one of DRAM, tensor cores, CUDA cores."""
    dram_share: float | None = None
    """Bytes from and to DRAM ÷ (time × peak bandwidth), of each launch at most 1."""
    tensor_share: float | None = None
    """Time of the tensor-core operations at their dense peak ÷ time."""
    cuda_share: float | None = None
    """CUDA-core operations ÷ (time × fp32 peak)."""
    sections: dict[str, float] = field(factory=dict)
    """Metric of a section → mean over the launches that have it."""

    @property
    def ceiling_ns(self) -> int | None:
        """Time of the covered launches above their roofline: the most that a faster kernel could save."""
        return None if self.roofline_ns is None else self.covered_ns - self.roofline_ns

    @property
    def mean_ns(self) -> float | None:
        """Mean duration of a call."""
        return self.total_ns / self.calls if self.calls else None

    @property
    def intensity(self) -> float | None:
        """Operations per byte from and to DRAM."""
        if not self.dram_bytes or (self.tensor_flop is None and self.cuda_flop is None):
            return None
        return ((self.tensor_flop or 0.0) + (self.cuda_flop or 0.0)) / self.dram_bytes


def _folded_modules(attribution: Attribution, roofs: LaunchRoofs) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Code of each launch's module, numbers folded within its stage as everywhere, [launches], and the paths."""
    launches = roofs.joined.launches
    of_range, paths = attribution.module_names
    rows = attribution.operation_level("module")[launches.operation]
    nothing = len(paths)
    name = of_range.astype(np.int64)[rows]
    name[name < 0] = nothing
    codes: dict[str, int] = {UNATTRIBUTED: 0}
    code = np.zeros(rows.size, dtype=np.int64)
    for stage in np.unique(launches.stage).tolist():
        mine = launches.stage == stage
        present = [one for one in np.unique(name[mine]).tolist() if one != nothing]
        pattern_of = module_patterns(paths[one] for one in present)
        lookup = np.zeros(nothing + 1, dtype=np.int64)
        for one in present:
            lookup[one] = codes.setdefault(pattern_of[paths[one]], len(codes))
        code[mine] = lookup[name[mine]]
    return code, tuple(codes)


def kernel_rows(
    attribution: Attribution, roofs: LaunchRoofs, summaries: Sequence[KernelSummary]
) -> tuple[RooflineRow, ...]:
    """One row per stage, module, kernel and launch shape, by time.

    Args:
        attribution: of the trace.
        roofs: of its launches.
        summaries: of its kernels by launch shape, for names, categories and occupancy.
    """
    launches = roofs.joined.launches
    if not len(launches):
        return ()
    operations = attribution.operations
    module, modules = _folded_modules(attribution, roofs)
    names: dict[str, int] = {}
    name_code = np.array([names.setdefault(name, len(names)) for name in operations.names], dtype=np.int64)
    name = name_code[operations.name[launches.operation]]
    shape = operations.shape[launches.operation].astype(np.int64) + 1
    _, narrow = np.unique(name * (len(operations.shapes) + 2) + shape, return_inverse=True)
    wide = (launches.stage.astype(np.int64) * len(modules) + module) * (int(narrow.max()) + 1) + narrow
    _, heads, group = np.unique(wide, return_index=True, return_inverse=True)
    rows = _summed(roofs, group, heads.size, sections=True)
    about = {
        (row.stage, row.name, row.grid, row.block, row.registers_per_thread, row.shared_bytes): row for row in summaries
    }
    known_names = tuple(names)
    found = []
    for index, head in enumerate(heads.tolist()):
        code = int(shape[head]) - 1
        shapes = operations.shapes
        launched = (
            (None, None, None, None)
            if code < 0
            else (shapes.grid(code), shapes.block(code), shapes.registers(code), shapes.shared_bytes(code))
        )
        identity = (_stage_name(int(launches.stage[head])), known_names[int(name[head])], *launched)
        summary = about.get(identity)
        found.append(
            RooflineRow(
                stage=identity[0],
                module=modules[int(module[head])],
                name=identity[1],
                short_name=summary.short_name if summary else operations.short_names[operations.name[launches.operation[head]]],
                human_name=summary.human_name if summary else None,
                category=summary.category if summary else "other",
                grid=identity[2],
                block=identity[3],
                registers_per_thread=identity[4],
                shared_bytes=identity[5],
                theoretical_occupancy=summary.theoretical_occupancy if summary else None,
                waves=summary.waves if summary else None,
                **rows[index],
            )
        )  # fmt: skip
    return _sorted(found)


def summed(attribution: Attribution, roofs: LaunchRoofs, *, by_module: bool) -> tuple[RooflineRow, ...]:
    """One row per stage, or per stage and module, by time."""
    launches = roofs.joined.launches
    if not len(launches):
        return ()
    module, modules = _folded_modules(attribution, roofs)
    wide = launches.stage.astype(np.int64) * (len(modules) + 1) + (module if by_module else len(modules))
    _, heads, group = np.unique(wide, return_index=True, return_inverse=True)
    rows = _summed(roofs, group, heads.size, sections=False)
    return _sorted([
        RooflineRow(
            stage=_stage_name(int(launches.stage[head])),
            module=modules[int(module[head])] if by_module else "",
            **rows[index],
        )
        for index, head in enumerate(heads.tolist())
    ])  # fmt: skip


def _stage_name(code: int) -> str:
    return STAGES[code] if code < len(STAGES) else UNATTRIBUTED


def _sorted(rows: list[RooflineRow]) -> tuple[RooflineRow, ...]:
    stages = (*STAGES, UNATTRIBUTED)
    nothing = (-1, -1, -1)
    return tuple(
        sorted(
            rows,
            key=lambda row: (
                stages.index(row.stage), -row.total_ns, row.module, row.name, row.grid or nothing, row.block or nothing
            ),
        )
    )  # fmt: skip


def _summed(roofs: LaunchRoofs, group: NDArray[Any], groups: int, *, sections: bool) -> list[dict[str, Any]]:
    """The figures of each group as keywords of `RooflineRow`."""
    launches = roofs.joined.launches
    duration = launches.duration

    def total(values: NDArray[Any]) -> list[float | None]:
        known = ~np.isnan(values)
        sums = np.bincount(group[known], weights=values[known], minlength=groups)
        count = np.bincount(group[known], minlength=groups)
        return [float(one) if some else None for one, some in zip(sums.tolist(), count.tolist(), strict=True)]

    def weighted(values: NDArray[Any], which: NDArray[np.bool_]) -> Floats:
        sums: Floats = np.bincount(group[which], weights=values[which], minlength=groups).astype(np.float64)
        return sums

    def integer(values: NDArray[Any], which: NDArray[np.bool_] | None = None) -> list[int]:
        every = np.ones(group.size, dtype=bool) if which is None else which
        return [int(one) for one in weighted(values, every).tolist()]

    def share(times: Floats) -> list[float | None]:
        known = ~np.isnan(times)
        at_peak = np.bincount(group[known], weights=times[known], minlength=groups)
        taken = np.bincount(group[known], weights=duration[known], minlength=groups)
        return [peak / time if time else None for peak, time in zip(at_peak.tolist(), taken.tolist(), strict=True)]

    how = roofs.joined.how.get(DRAM_READ)
    configured = (how == BY_CONFIGURATION) & roofs.known if how is not None else np.zeros(group.size, dtype=bool)
    covered = roofs.known
    covered_calls = np.bincount(group[covered], minlength=groups).tolist()
    excess = np.where(covered, np.nan_to_num(roofs.uncut_ns) - roofs.roofline_ns, 0.0)
    roofline = integer(roofs.roofline_ns)
    under = np.stack([weighted(roofs.roofline_ns, roofs.bound == one) for one in range(len(ROOFS))])
    typed = [weighted(roofs.tensor_flop, roofs.tensor_type == one) for one in range(len(roofs.tensor_types))]
    most = np.stack(typed) if typed else np.zeros((1, groups))
    columns: dict[str, list[Any]] = {
        "calls": np.bincount(group, minlength=groups).tolist(),
        "total_ns": integer(duration),
        "covered_calls": covered_calls,
        "covered_ns": integer(duration, covered),
        "by_configuration_ns": integer(duration, configured),
        "dram_bytes": total(roofs.dram_bytes),
        "l2_bytes": total(roofs.l2_bytes),
        "tensor_flop": total(roofs.tensor_flop),
        "tensor_type": [
            roofs.tensor_types[which] if flop > 0 else None
            for which, flop in zip(most.argmax(axis=0).tolist(), most.max(axis=0).tolist(), strict=True)
        ],
        "cuda_flop": total(roofs.cuda_flop),
        "roofline_ns": [one if some else None for one, some in zip(roofline, covered_calls, strict=True)],
        "cut_ns": integer(np.maximum(np.round(excess), 0)),
        "bound": [
            ROOFS[int(under[:, index].argmax())] if covered_calls[index] and under[:, index].max() > 0 else None
            for index in range(groups)
        ],
        "dram_share": share(roofs.times_ns[0]),
        "tensor_share": share(roofs.times_ns[1]),
        "cuda_share": share(roofs.times_ns[2]),
    }  # fmt: skip
    means = _section_means(roofs, group, groups) if sections else [{} for _ in range(groups)]
    return [
        {**{name: values[index] for name, values in columns.items()}, "sections": means[index]}
        for index in range(groups)
    ]


def _section_means(roofs: LaunchRoofs, group: NDArray[Any], groups: int) -> list[dict[str, float]]:
    found: list[dict[str, float]] = [{} for _ in range(groups)]
    for metric, values in roofs.joined.values.items():
        if metric in (DRAM_READ, DRAM_WRITE, L2) or metric in CUDA_CORE_FLOP or tensor_dtype(metric) is not None:
            continue
        known = np.flatnonzero(roofs.joined.how[metric] != UNMATCHED)
        sums = np.bincount(group[known], weights=values[known], minlength=groups)
        count = np.bincount(group[known], minlength=groups)
        for index in np.flatnonzero(count).tolist():
            # Equal values, added up and divided, differ in their last digits.
            found[index][metric] = round(float(sums[index] / count[index]), 6)
    return found


@frozen
class Coverage:
    """How much of a stage's kernel time has counters of one kind."""

    stage: str
    what: str
    """DRAM traffic, L2 traffic, tensor-core operations, CUDA-core operations, or sections."""
    calls: int
    covered_calls: int
    total_ns: int
    covered_ns: int
    by_place_ns: int
    """Of launches at the same place of the same sequence, a grown grid included."""
    by_configuration_ns: int

    @property
    def share(self) -> float | None:
        """Covered ÷ total time."""
        return self.covered_ns / self.total_ns if self.total_ns else None


def coverage_rows(joined: JoinedCounters) -> tuple[Coverage, ...]:
    """One row per stage and kind of counter that a file holds; what is not covered is the rest."""
    launches = joined.launches
    kinds: dict[str, list[str]] = {}
    for metric in joined.values:
        kinds.setdefault(_kind(metric), []).append(metric)
    found = []
    for code in sorted(set(launches.stage.tolist())):
        mine = launches.stage == code
        total = int(launches.duration[mine].sum())
        for what in (one for one in _KINDS if one in kinds):
            best = np.stack([joined.how[metric] for metric in kinds[what]]).max(axis=0)
            covered = mine & (best != UNMATCHED)
            configured = int(launches.duration[mine & (best == BY_CONFIGURATION)].sum())
            time = int(launches.duration[covered].sum())
            found.append(
                Coverage(
                    stage=_stage_name(int(code)),
                    what=what,
                    calls=int(mine.sum()),
                    covered_calls=int(covered.sum()),
                    total_ns=total,
                    covered_ns=time,
                    by_place_ns=time - configured,
                    by_configuration_ns=configured,
                )
            )
    return tuple(found)


_KINDS: Final = ("DRAM traffic", "L2 traffic", "tensor-core operations", "CUDA-core operations", "sections")


def _kind(metric: str) -> str:
    if metric in (DRAM_READ, DRAM_WRITE):
        return _KINDS[0]
    if metric == L2:
        return _KINDS[1]
    if tensor_dtype(metric) is not None:
        return _KINDS[2]
    if metric in CUDA_CORE_FLOP:
        return _KINDS[3]
    return _KINDS[4] if metric in SPEED_OF_LIGHT else ""


SPEED_OF_LIGHT: Final = (
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed",
)
"""Of compute and memory: the section that a diagnosis begins with."""
