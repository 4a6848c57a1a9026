"""Which metrics are collected: chosen per chip, out of the names that ncu itself lists.

Passes decide what a kernel costs. In one pass ncu only reads counters (about 50 ms a kernel); with more it saves and
restores the program's memory (seconds a kernel). Both sets below fit one pass of an H100 (ncu 2025.3); mixed together,
or with a second type of tensor operations, they need three to ten.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from attrs import frozen

__all__ = ["CHIP_OF_CAPABILITY", "SECTIONS", "MetricSet", "beside_sections", "census_sets", "chip_of"]

SECTIONS: Final = ("SpeedOfLight", "Occupancy", "LaunchStats", "WarpStateStats", "MemoryWorkloadAnalysis")
"""What explains a single kernel; together 18 passes on an H100."""

CHIP_OF_CAPABILITY: Final = {
    "7.0": "gv100",
    "7.5": "tu102",
    "8.0": "ga100",
    "8.6": "ga102",
    "8.9": "ad102",
    "9.0": "gh100",
    "10.0": "gb100",
    "12.0": "gb202",
}
"""Compute capability → a chip that has it, as ncu calls it. Metrics of chips of one capability have the same names."""

_MEMORY: Final = ("dram__bytes_read.sum", "dram__bytes_write.sum", "lts__t_bytes.sum")
_WARPS: Final = "sm__warps_active.avg.pct_of_peak_sustained_active"
_CUDA_CORES: Final = tuple(
    f"sm__sass_thread_inst_executed_op_{operation}_pred_on.sum"
    for operation in ("fadd", "fmul", "ffma", "hadd", "hmul", "hfma")
)
_COALESCING: Final = tuple(
    f"l1tex__t_{what}_pipe_lsu_mem_global_op_{operation}.sum"
    for operation in ("ld", "st")
    for what in ("sectors", "requests")
)
_TENSOR: Final = {
    "bf16": ("sm__ops_path_tensor_src_bf16_dst_fp32.sum",),
    "fp16": ("sm__ops_path_tensor_src_fp16.sum", "sm__ops_path_tensor_src_fp16_dst_fp32.sum"),
    "fp32": ("sm__ops_path_tensor_src_tf32_dst_fp32.sum", "sm__ops_path_tensor_src_tf32.sum"),
    "fp8": ("sm__ops_path_tensor_src_fp8.sum", "sm__ops_path_tensor_src_fp8_dst_fp32.sum"),
}
"""Type of the run's activations → names of its tensor operations, the first that the chip knows is taken."""


@frozen
class MetricSet:
    """The metrics of one invocation of ncu."""

    name: str
    metrics: tuple[str, ...]
    """With their suffixes, as ``--metrics`` takes them."""
    missing: tuple[str, ...] = ()
    """Why a metric that belongs here is not among them, one sentence each."""


def chip_of(capability: str | None) -> str | None:
    """The chip that stands for a compute capability (``9.0``); None: not known here."""
    return None if capability is None else CHIP_OF_CAPABILITY.get(capability)


def census_sets(dtype: str, known: Collection[str], chip: str) -> tuple[MetricSet, MetricSet]:
    """The two sets of a census: traffic with tensor operations, and operations of the CUDA cores.

    Args:
        dtype: of the run's activations.
        known: base names that ncu knows for the chip.
        chip: what to call it in reasons.
    """
    traffic, absent = _split((*_MEMORY, _WARPS), known, chip)
    names = _TENSOR.get(dtype, ())
    tensor = next((name for name in names if _base(name) in known), None)
    if tensor is not None:
        traffic = (*traffic, tensor)
    else:
        absent = (*absent, f"tensor operations of {dtype}: this ncu has no counter of them for {chip}")
    cores, absent_cores = _split(_CUDA_CORES, known, chip)
    return MetricSet("census-memory", traffic, absent), MetricSet("census-operations", cores, absent_cores)


def beside_sections(known: Collection[str]) -> tuple[str, ...]:
    """What explains a single kernel and is in none of the sections: sectors for each request, of loads and stores.

    `MemoryWorkloadAnalysis_Tables` has them among a hundred others, which cost passes.

    Args:
        known: base names that ncu knows for the chip.
    """
    return tuple(name for name in _COALESCING if _base(name) in known)


def _split(wanted: tuple[str, ...], known: Collection[str], chip: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    there = tuple(name for name in wanted if _base(name) in known)
    return there, tuple(f"{name}: this ncu does not know it for {chip}" for name in wanted if name not in there)


def _base(metric: str) -> str:
    return metric.partition(".")[0]
