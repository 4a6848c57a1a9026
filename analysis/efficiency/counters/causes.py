"""Why a kernel is slow, by the thresholds of NVIDIA's own rules, from its sections, its counters or its launch shape.

Where the speed-of-light section was collected, "how close to the limit" is its figure. Elsewhere it is what the counters
say over the trace's time: bytes from and to DRAM and operations, each against its peak; L2 and L1 are not in it then, so
that a kernel that is bound by them reads as waiting. Where there are neither, the launch shape is all that is known.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import frozen

from analysis.domain.figures import count, decimal, ratio
from analysis.efficiency.counters.file import STALL
from analysis.efficiency.counters.roofline import SPEED_OF_LIGHT, RooflineRow

__all__ = ["MATRIX_CATEGORIES", "Cause", "CauseKind", "Diagnosis", "diagnose"]

CauseKind: TypeAlias = Literal[
    "latency", "bandwidth", "compute", "unbalanced", "small grid", "last wave", "occupancy", "stall", "uncoalesced",
    "no tensor cores", "spilling", "not measured",
]  # fmt: skip

MATRIX_CATEGORIES: Final = frozenset({"GEMM", "grouped GEMM", "GEMV", "convolution", "attention"})
"""Categories of kernels whose work is matrix products."""
_TENSOR_CATEGORIES: Final = MATRIX_CATEGORIES - {"GEMV"}
"""A matrix times a vector gains nothing from tensor cores."""

NEAR_LIMIT: Final = 0.6
"""Below this part of the speed of light of both compute and memory a kernel waits for latencies (NVIDIA's rule)."""
_UNBALANCED: Final = 0.1
"""A difference of the two of so much is an imbalance (NVIDIA's rule)."""
_STALL: Final = 0.3
"""A stall counts from this part of the cycles between two instructions of a warp on (NVIDIA's rule)."""
_LAST_WAVE: Final = 0.1
"""A partial last wave is named if it may take at least this part of the time."""
_OCCUPANCY: Final = 0.8
"""Below this theoretical occupancy the limiter is named."""
_SECTOR_BYTES: Final = 32
_WIDE_SECTORS: Final = 16.0
"""Sectors per request of the widest coalesced access: 32 threads × 16 bytes ÷ 32."""
_USED_BYTES: Final = 0.75

_LIMITERS: Final = {
    "launch__occupancy_limit_registers": "registers",
    "launch__occupancy_limit_shared_mem": "shared memory",
    "launch__occupancy_limit_warps": "block size",
    "launch__occupancy_limit_blocks": "blocks per SM",
    "launch__occupancy_limit_barriers": "barriers",
}

_STALLS: Final = {
    "long_scoreboard": "waiting for L1, L2 or DRAM",
    "short_scoreboard": "waiting for shared memory or special functions",
    "wait": "fixed latency of instructions that depend on each other",
    "no_instruction": "instruction cache misses, short kernels",
    "imc_miss": "constant cache misses (kernel parameters)",
    "barrier": "waiting at a block barrier",
    "branch_resolving": "branches",
    "drain": "waiting for stores at the end",
    "lg_throttle": "too many global memory instructions in flight",
    "mio_throttle": "too many shared memory or special instructions in flight",
    "math_pipe_throttle": "the arithmetic pipe is full",
    "membar": "memory barriers",
    "tex_throttle": "too many texture instructions in flight",
    "gmma": "waiting for the tensor cores",
    "dispatch_stall": "the dispatcher is stalled",
    "sleeping": "asleep",
    "misc": "other",
}
_NO_STALL: Final = frozenset({"selected", "not_selected"})


@frozen
class Cause:
    """One reason, with its arithmetic."""

    kind: CauseKind
    sentence: str
    at_most_ns: int | None = None
    """What its removal could save of all covered launches, by NVIDIA's rule for it; None: the rule names no figure."""


@frozen
class Diagnosis:
    """Why a row's kernel is slow."""

    label: CauseKind
    causes: tuple[Cause, ...]
    source: Literal["sections", "counters", "launch shape"]
    compute_share: float | None
    """Of the speed of light."""
    memory_share: float | None


def diagnose(row: RooflineRow, sm_count: int | None) -> Diagnosis:
    """Name the reasons, the main one first.

    Args:
        row: one kernel and launch shape.
        sm_count: of the device; None: unknown.
    """
    compute, memory, source = _speed_of_light(row)
    causes: list[Cause] = []
    label: CauseKind = "not measured"
    if compute is not None and memory is not None:
        label, sentence = _bound(compute, memory, source)
        causes.append(Cause(label, sentence))
        if max(compute, memory) >= NEAR_LIMIT and abs(compute - memory) >= _UNBALANCED:
            busier, idler = ("memory", "compute") if memory > compute else ("compute", "memory")
            causes.append(Cause("unbalanced", f"{busier} is {abs(compute - memory) * 100:.0f} points above {idler}"))
    causes += [
        *_small_grid(row, sm_count),
        *_last_wave(row),
        *_no_tensor_cores(row),
        *_uncoalesced(row),
        *_spilling(row),
        *_occupancy(row),
        *_stalls(row),
    ]
    if label == "not measured" and causes:
        label = causes[0].kind
    if not causes:
        causes.append(Cause("not measured", "no counters of this kernel, and its launch fills the device"))
    return Diagnosis(label, tuple(causes), source, compute, memory)


def _speed_of_light(
    row: RooflineRow,
) -> tuple[float | None, float | None, Literal["sections", "counters", "launch shape"]]:
    compute, memory = (row.sections.get(metric) for metric in SPEED_OF_LIGHT)
    if compute is not None and memory is not None:
        return compute / 100, memory / 100, "sections"
    arithmetic = [one for one in (row.tensor_share, row.cuda_share) if one is not None]
    if row.dram_share is not None and arithmetic:
        return max(arithmetic), row.dram_share, "counters"
    return None, None, "launch shape"


def _bound(compute: float, memory: float, source: str) -> tuple[CauseKind, str]:
    what = "memory" if source == "sections" else "DRAM"
    figures = f"compute {ratio(compute)} and {what} {ratio(memory)} of peak"
    if max(compute, memory) < NEAR_LIMIT:
        tail = "" if source == "sections" else " over its time in the trace (L1 and L2 are not in it)"
        return "latency", f"waits for latencies: {figures}, both under {NEAR_LIMIT:.0%}{tail}"
    if memory >= compute:
        return "bandwidth", f"bound by {'memory' if source == 'sections' else 'DRAM bandwidth'}: {figures}"
    return "compute", f"bound by arithmetic: {figures}"


def _small_grid(row: RooflineRow, sm_count: int | None) -> list[Cause]:
    if row.grid is None or not sm_count:
        return []
    blocks = row.grid[0] * row.grid[1] * row.grid[2]
    if not 0 < blocks < sm_count:
        return []
    part = (sm_count - blocks) / sm_count
    noun = "block" if blocks == 1 else "blocks"
    sentence = f"grid of {blocks} {noun} on {sm_count} SMs: at most ({sm_count} − {blocks})/{sm_count} = {part:.0%} of its time"
    return [Cause("small grid", sentence, _part(row, part))]


def _part(row: RooflineRow, part: float) -> int:
    """Part of a row's time, and never more than lies above its roofline."""
    most = row.total_ns if row.ceiling_ns is None else row.ceiling_ns + row.total_ns - row.covered_ns
    return min(round(part * row.total_ns), most)


def _last_wave(row: RooflineRow) -> list[Cause]:
    waves = row.waves if row.waves is not None else row.sections.get("launch__waves_per_multiprocessor")
    if waves is None or waves < 1 or waves == int(waves):
        return []
    part = 1 / (int(waves) + 1)
    if part < _LAST_WAVE:
        return []
    sentence = f"{decimal(waves, 2)} waves: the last one is not full and may take 1/({int(waves)} + 1) = {part:.0%} of its time"
    return [Cause("last wave", sentence, _part(row, part))]


def _no_tensor_cores(row: RooflineRow) -> list[Cause]:
    """Only on positive evidence: another type's tensor operations may not have been counted."""
    if row.category not in _TENSOR_CATEGORIES or row.tensor_flop != 0 or not row.cuda_flop:
        return []
    return [
        Cause(
            "no tensor cores",
            f"a matrix product that made {row.cuda_flop / max(1, row.covered_calls):.3g} operations a call on CUDA cores and none "
            "on the tensor cores that were counted",
        )
    ]


def _uncoalesced(row: RooflineRow) -> list[Cause]:
    found = []
    for op, word in (("ld", "loads"), ("st", "stores")):
        used = row.sections.get(f"smsp__sass_average_data_bytes_per_sector_mem_global_op_{op}.ratio")
        sectors = row.sections.get(f"l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_{op}.ratio")
        if sectors is None:
            total = row.sections.get(f"l1tex__t_sectors_pipe_lsu_mem_global_op_{op}.sum")
            requests = row.sections.get(f"l1tex__t_requests_pipe_lsu_mem_global_op_{op}.sum")
            sectors = total / requests if total and requests else None
        if used is not None and 0 < used < _USED_BYTES * _SECTOR_BYTES:
            sentence = (
                f"global {word} use {decimal(used, 1)} of the {_SECTOR_BYTES} bytes of each sector that they move"
            )
            found.append(Cause("uncoalesced", sentence))
        elif used is None and sectors is not None and sectors > _WIDE_SECTORS:
            sentence = (
                f"global {word} touch {decimal(sectors, 1)} sectors a request; the widest coalesced access touches 16"
            )
            found.append(Cause("uncoalesced", sentence))
    return found


def _spilling(row: RooflineRow) -> list[Cause]:
    spilled = row.sections.get("derived__local_spilling_requests")
    return [Cause("spilling", f"{count(round(spilled))} requests spill registers to memory")] if spilled else []


def _occupancy(row: RooflineRow) -> list[Cause]:
    measured = row.sections.get("sm__maximum_warps_per_active_cycle_pct")
    possible = measured / 100 if measured is not None else row.theoretical_occupancy
    if possible is None or possible >= _OCCUPANCY:
        return []
    limits = {word: row.sections[metric] for metric, word in _LIMITERS.items() if metric in row.sections}
    limiter = f", limited by {min(limits, key=lambda word: limits[word])}" if limits else ""
    achieved = row.sections.get("sm__warps_active.avg.pct_of_peak_sustained_active")
    reached = f"; {ratio(achieved / 100)} was reached" if achieved is not None else ""
    return [Cause("occupancy", f"at most {ratio(possible)} of the warps fit on an SM{limiter}{reached}")]


def _stalls(row: RooflineRow) -> list[Cause]:
    latency = row.sections.get("smsp__average_warp_latency_per_inst_issued.ratio")
    if not latency:
        return []
    found = []
    for metric, cycles in row.sections.items():
        reason = STALL.fullmatch(metric)
        if reason is None or reason[1] in _NO_STALL or cycles / latency <= _STALL:
            continue
        words = _STALLS.get(reason[1], reason[1].replace("_", " "))
        sentence = (
            f"{decimal(cycles, 1)} of the {decimal(latency, 1)} cycles between two instructions of a warp ({cycles / latency:.0%}) "
            f"are a stall: {words}"
        )
        found.append((cycles, Cause("stall", sentence)))
    return [cause for _, cause in sorted(found, key=lambda one: -one[0])]
