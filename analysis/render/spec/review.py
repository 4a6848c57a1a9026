"""The tables of the kernel review: kernels and modules against the rooflines, the loss waterfall, traffic, coverage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from analysis.efficiency.counters.actions import ReviewedKernel
from analysis.efficiency.counters.join import FileMatch
from analysis.efficiency.counters.roofline import Coverage, RooflineRow
from analysis.efficiency.counters.waterfall import Loss, Waterfall
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import (
    BYTES,
    COUNT,
    DURATION,
    EXACT_MS,
    FLOP,
    NAME,
    RATIO,
    SHAPE,
    SHARE,
    SIGNIFICANT,
    TEXT,
    Column,
    Specification,
    factor,
)
from analysis.review import Review, Traffic

__all__ = [
    "COUNTER_FILES",
    "COVERAGE",
    "LOSSES",
    "REVIEW_KERNELS",
    "REVIEW_MODULES",
    "TRAFFIC",
    "KernelLine",
    "LossLine",
    "ModuleLine",
    "kernel_lines",
    "loss_lines",
    "module_lines",
]


@frozen
class ModuleLine:
    """Launches of one module, with what a unit of its stage's work is."""

    row: RooflineRow
    units: int | None
    unit: str
    stage_ns: int
    """Kernel time of the stage."""

    def per_unit(self, value: float | None) -> float | None:
        """A sum over the capture, per unit."""
        return None if value is None or not self.units else value / self.units


@frozen
class KernelLine(ModuleLine):
    """A kernel, launch shape and module, with its diagnosis."""

    kernel: ReviewedKernel


def module_lines(review: Review, stage: str) -> tuple[ModuleLine, ...]:
    """The modules of a stage, by time."""
    rows = [row for row in review.modules if row.stage == stage]
    units, unit = review.units(stage)
    whole = sum(row.total_ns for row in rows)
    return tuple(ModuleLine(row, units, unit, whole) for row in rows)


def kernel_lines(review: Review, kernels: Sequence[ReviewedKernel]) -> tuple[KernelLine, ...]:
    """Kernels with the units of their stages, in the order given."""
    whole: dict[str, int] = {}
    for row in review.modules:
        whole[row.stage] = whole.get(row.stage, 0) + row.total_ns
    units = {stage: review.units(stage) for stage in whole}
    return tuple(
        KernelLine(kernel.row, *units[kernel.row.stage], whole[kernel.row.stage], kernel) for kernel in kernels
    )


_NO_COUNTERS: Final = "no counter file covers these launches"
_M = Column[ModuleLine]
_K = Column[KernelLine]


def _why(line: ModuleLine) -> str | None:
    return _NO_COUNTERS if not line.row.covered_calls else "not collected, or the peak is not known"


def _no_units(line: ModuleLine) -> str | None:
    return "how many units of work the stage did is not known" if not line.units else _why(line)


def _covered(line: ModuleLine) -> float | None:
    return line.row.covered_ns / line.row.total_ns if line.row.total_ns else None


def _of_stage(line: ModuleLine) -> float | None:
    return line.row.total_ns / line.stage_ns if line.stage_ns else None


def _efficiency(line: ModuleLine) -> float | None:
    row = line.row
    return row.roofline_ns / row.covered_ns if row.roofline_ns is not None and row.covered_ns else None


_DRAM_SHARE: Final = GLOSSARY["dram_share"]
_TENSOR_SHARE: Final = GLOSSARY["tensor_share"]
_CUDA_SHARE: Final = GLOSSARY["cuda_core_share"]
_ROOFLINE: Final = (
    "Least time of the covered launches: the largest of DRAM traffic, tensor-core and CUDA-core operations at peak."
)
_CEILING: Final = "Time of the covered launches above their roofline: the most that faster kernels could save."
_PER_UNIT: Final = "per token of decode, per image or prompt of prefill"

REVIEW_MODULES: Final = Specification[ModuleLine](
    key="review_modules",
    title="Modules against the rooflines",
    rows="A module of one stage, layer numbers folded.",
    columns=(
        _M("module", "Module", "string", NAME, GLOSSARY["module_folded"], value=lambda line: line.row.module,
           priority=0),
        _M("stage", "Stage", "string", TEXT, GLOSSARY["stage"], value=lambda line: line.row.stage, shown=()),
        _M(
            "calls_per_unit", "Launches", "float64", SIGNIFICANT, GLOSSARY["calls_per_unit"],
            value=lambda line: line.per_unit(line.row.calls), nullable=True, adds=True, within="stage", why=_no_units,
        ),
        _M("total_ns", "Total", "int64", EXACT_MS, GLOSSARY["total"], value=lambda line: line.row.total_ns, adds=True, priority=3),
        _M(
            "per_unit_ns", "Per unit", "float64", DURATION, GLOSSARY["kernel_time_per_unit"],
            value=lambda line: line.per_unit(line.row.total_ns), nullable=True, adds=True, within="stage", why=_no_units,
        ),
        _M(
            "share", "Share", "float64", SHARE, "Share of the stage's kernel sum.",
            value=_of_stage, nullable=True, adds=True, within="stage",
        ),
        _M(
            "covered_share", "Covered", "float64", SHARE, "Share of the time of launches that have counters.",
            value=_covered, nullable=True, priority=4,
        ),
        _M(
            "bytes_per_unit", "DRAM", "float64", BYTES, f"Bytes from and to DRAM, {_PER_UNIT}, of the covered launches.",
            value=lambda line: line.per_unit(line.row.dram_bytes), nullable=True, why=_no_units, priority=2,
        ),
        _M(
            "tensor_flop_per_unit", "Tensor cores", "float64", FLOP, f"Operations {_PER_UNIT}, of the covered launches.",
            value=lambda line: line.per_unit(line.row.tensor_flop), nullable=True, why=_no_units, priority=3,
        ),
        _M(
            "dram_share", "Of bandwidth", "float64", RATIO, _DRAM_SHARE, value=lambda line: line.row.dram_share, nullable=True,
            why=_why,
        ),
        _M(
            "tensor_share", "Of tensor peak", "float64", RATIO, _TENSOR_SHARE, value=lambda line: line.row.tensor_share,
            nullable=True, why=_why, priority=2,
        ),
        _M(
            "cuda_share", "Of fp32 peak", "float64", RATIO, _CUDA_SHARE, value=lambda line: line.row.cuda_share, nullable=True,
            why=_why, priority=5,
        ),
        _M(
            "roofline_share", "Of roofline", "float64", SHARE, "Roofline time ÷ time, of the covered launches.",
            value=_efficiency, nullable=True, why=_why,
        ),
        _M(
            "ceiling_per_unit_ns", "At most", "float64", DURATION, GLOSSARY["kernel_ceiling_per_unit"],
            value=lambda line: line.per_unit(line.row.ceiling_ns), nullable=True, adds=True, within="stage", why=_no_units,
        ),
    ),
)  # fmt: skip


def _l2_share(line: KernelLine) -> float | None:
    percent = line.row.sections.get("lts__throughput.avg.pct_of_peak_sustained_elapsed")
    return None if percent is None else percent / 100


def _each(line: KernelLine, value: float | None) -> float | None:
    """Per covered launch."""
    return value / line.row.covered_calls if value is not None and line.row.covered_calls else None


REVIEW_KERNELS: Final = Specification[KernelLine](
    key="review_kernels",
    title="Kernels against the rooflines",
    rows="A kernel with one launch shape in one module of one stage.",
    columns=(
        _K(
            "kernel", "Kernel", "string", TEXT, "What the kernel does, in words, as far as its name tells.",
            value=lambda line: line.row.human_name or line.row.short_name or line.row.name, data=False, priority=0,
        ),
        _K("name", "Full name", "string", NAME, "Name of the kernel, template arguments and all.",
           value=lambda line: line.row.name, shown=("html",), below="kernel"),
        _K("stage", "Stage", "string", TEXT, GLOSSARY["stage"], value=lambda line: line.row.stage),
        _K("module", "Module", "string", NAME, GLOSSARY["module_folded"], value=lambda line: line.row.module,
           below="stage"),
        _K("category", "Category", "string", TEXT, GLOSSARY["category"], value=lambda line: line.row.category, shown=()),
        _K("grid", "Grid", "shape", SHAPE, "Blocks per launch (x × y × z).", value=lambda line: line.row.grid, nullable=True,
           why=lambda _: "not recorded", priority=4),
        _K("block", "Block", "shape", SHAPE, "Threads per block (x × y × z).", value=lambda line: line.row.block, nullable=True,
           shown=("html",), below="grid"),
        _K("registers_per_thread", "Registers", "int64", COUNT, "Registers per thread.",
           value=lambda line: line.row.registers_per_thread, nullable=True, shown=()),
        _K("shared_bytes", "Shared memory", "int64", BYTES, "Shared memory per block, static and dynamic.",
           value=lambda line: line.row.shared_bytes, nullable=True, shown=()),
        _K("calls", "Launches", "int64", COUNT, GLOSSARY["calls"], value=lambda line: line.row.calls, adds=True, shown=()),
        _K("calls_per_unit", "Launches", "float64", SIGNIFICANT, GLOSSARY["calls_per_unit"],
           value=lambda line: line.per_unit(line.row.calls), nullable=True, adds=True, within="stage", why=_no_units),
        _K("total_ns", "Total", "int64", EXACT_MS, GLOSSARY["total"], value=lambda line: line.row.total_ns, adds=True, shown=()),
        _K("mean_ns", "Mean", "float64", DURATION, "Mean duration of a launch in the trace.",
           value=lambda line: line.row.mean_ns, nullable=True, below="per_unit_ns"),
        _K("per_unit_ns", "Per unit", "float64", DURATION, GLOSSARY["kernel_time_per_unit"],
           value=lambda line: line.per_unit(line.row.total_ns), nullable=True, adds=True, within="stage", why=_no_units,
           priority=2),
        _K("share", "Share", "float64", SHARE, "Share of the stage's kernel sum.",
           value=_of_stage, nullable=True, adds=True, within="stage",
           shown=()),
        _K("covered_calls", "Covered launches", "int64", COUNT, "Launches that have counters.",
           value=lambda line: line.row.covered_calls, adds=True, shown=()),
        _K("covered_ns", "Covered time", "int64", EXACT_MS, "Time of the launches that have counters.",
           value=lambda line: line.row.covered_ns, adds=True, shown=()),
        _K("by_configuration_ns", "By configuration", "int64", EXACT_MS,
           "Part of the covered time whose launches have the counters of another launch of their configuration.",
           value=lambda line: line.row.by_configuration_ns, adds=True, shown=()),
        _K("dram_bytes", "DRAM", "float64", BYTES, "Bytes from and to DRAM of the covered launches.",
           value=lambda line: line.row.dram_bytes, nullable=True, adds=True, shown=()),
        _K("dram_bytes_per_call", "DRAM each", "float64", BYTES, "Bytes from and to DRAM of a covered launch, mean.",
           value=lambda line: _each(line, line.row.dram_bytes), nullable=True, why=_why, priority=3),
        _K("l2_bytes", "L2", "float64", BYTES, "Bytes requested from L2 by the covered launches.",
           value=lambda line: line.row.l2_bytes, nullable=True, adds=True, shown=()),
        _K("l2_share", "Of L2", "float64", RATIO, "L2's part of its speed of light, where the section was collected.",
           value=_l2_share, nullable=True, shown=()),
        _K("tensor_flop", "Tensor cores", "float64", FLOP, "Operations on tensor cores of the covered launches.",
           value=lambda line: line.row.tensor_flop, nullable=True, adds=True, shown=()),
        _K("tensor_type", "Tensor type", "string", TEXT, "Type of the operands of most of them.",
           value=lambda line: line.row.tensor_type, nullable=True, shown=()),
        _K("cuda_flop", "CUDA cores", "float64", FLOP, "Operations on CUDA cores, a fused multiply-add being two.",
           value=lambda line: line.row.cuda_flop, nullable=True, adds=True, shown=()),
        _K("flop_per_call", "Operations each", "float64", FLOP, "Operations of a covered launch on tensor and CUDA cores, mean.",
           value=lambda line: None if line.row.tensor_flop is None and line.row.cuda_flop is None
           else _each(line, (line.row.tensor_flop or 0) + (line.row.cuda_flop or 0)), nullable=True, why=_why, shown=()),
        _K("dram_share", "Of bandwidth", "float64", RATIO, _DRAM_SHARE, value=lambda line: line.row.dram_share, nullable=True,
           why=_why),
        _K("tensor_share", "Of tensor peak", "float64", RATIO, _TENSOR_SHARE, value=lambda line: line.row.tensor_share,
           nullable=True, why=_why, priority=3, below="dram_share"),
        _K("cuda_share", "Of fp32 peak", "float64", RATIO, _CUDA_SHARE, value=lambda line: line.row.cuda_share, nullable=True,
           why=_why, shown=()),
        _K("roofline_ns", "Roofline", "int64", EXACT_MS, _ROOFLINE, value=lambda line: line.row.roofline_ns, nullable=True,
           adds=True, shown=()),
        _K("bound", "Roof", "string", TEXT, "The roof that most of the roofline time is under.",
           value=lambda line: line.row.bound, nullable=True, shown=()),
        _K("compute_share", "Compute", "float64", RATIO,
           "Compute's part of its speed of light: of the section; else operations against their peak over the trace's time.",
           value=lambda line: line.kernel.diagnosis.compute_share, nullable=True, shown=()),
        _K("memory_share", "Memory", "float64", RATIO,
           "Memory's part of its speed of light: of the section; else DRAM traffic against its peak over the trace's time.",
           value=lambda line: line.kernel.diagnosis.memory_share, nullable=True, shown=()),
        _K("ceiling_per_unit_ns", "At most", "float64", DURATION, GLOSSARY["kernel_ceiling_per_unit"],
           value=lambda line: line.per_unit(line.row.ceiling_ns), nullable=True, adds=True, within="stage", why=_no_units),
        _K("source", "Judged by", "string", TEXT, "Sections, counters or launch shape: what the reasons come from.",
           value=lambda line: line.kernel.diagnosis.source, shown=()),
        _K("why", "Why slow", "string", TEXT, "The main reason.", value=lambda line: line.kernel.diagnosis.label, priority=1),
        _K("reasons", "Reasons", "string", TEXT, "All reasons, with their arithmetic.",
           value=lambda line: "; ".join(cause.sentence for cause in line.kernel.diagnosis.causes), shown=("html",), below="why"),
        _K("ceiling_ns", "At most", "int64", EXACT_MS, _CEILING, value=lambda line: line.row.ceiling_ns, nullable=True, adds=True,
           shown=()),
    ),
    note="All rows, with bytes, operations and sections, are in counters.parquet and review.json.",
)  # fmt: skip


@frozen
class LossLine:
    """A term of a waterfall, or its total."""

    loss: Loss
    waterfall: Waterfall


def loss_lines(waterfall: Waterfall) -> tuple[LossLine, ...]:
    """The terms of a stage, and the residual."""
    residual = Loss("residual", "Residual", waterfall.residual_ns, "What the terms leave of the stage's elapsed time.")
    return tuple(LossLine(loss, waterfall) for loss in (*waterfall.losses, residual))


_L = Column[LossLine]

LOSSES: Final = Specification[LossLine](
    key="losses",
    title="Where the time is lost",
    rows="A part of a stage's elapsed time under the profiler; the parts add up to it.",
    columns=(
        _L("loss", "Part", "string", TEXT, "What the time goes into.", value=lambda line: line.loss.label, priority=0),
        _L("stage", "Stage", "string", TEXT, GLOSSARY["stage"], value=lambda line: line.waterfall.stage, shown=()),
        _L("total_ns", "Total", "int64", EXACT_MS, "Over all instances of the stage.", value=lambda line: line.loss.ns, adds=True),
        _L(
            "per_unit_ns", "Per unit", "float64", DURATION, f"{_PER_UNIT[0].upper()}{_PER_UNIT[1:]}.",
            value=lambda line: line.loss.ns / line.waterfall.units if line.waterfall.units else None, nullable=True, adds=True,
            within="stage", why=lambda _: "how many units of work the stage did is not known",
        ),
        _L(
            "share", "Share", "float64", RATIO, "Of the stage's elapsed time.", nullable=True, adds=True, within="stage",
            value=lambda line: line.loss.ns / line.waterfall.profiled_ns if line.waterfall.profiled_ns else None,
        ),
        _L("meaning", "What it is", "string", TEXT, "Definition of the part.", value=lambda line: line.loss.meaning,
           shown=("html", "markdown"), priority=5),
    ),
)  # fmt: skip

_T = Column[Traffic]


def _not_compared(row: Traffic) -> str | None:
    return row.unknown_because or "not collected"


TRAFFIC: Final = Specification[Traffic](
    key="traffic",
    title="Measured beside what must be",
    rows="A stage, or a part of the model in it.",
    columns=(
        _T("part", "Part", "string", TEXT, "``all``, or the part of the model.", priority=0),
        _T("stage", "Stage", "string", TEXT, GLOSSARY["stage"], shown=()),
        _T("covered_share", "Covered", "float64", SHARE, "Share of its kernel time with counters.", nullable=True, priority=3),
        _T("measured_bytes", "DRAM, measured", "float64", BYTES, "Bytes from and to DRAM.", nullable=True, why=_not_compared),
        _T("must_bytes", "Must move", "int64", BYTES, "Weights touched once per forward pass, KV cache read and written.",
           nullable=True, why=_not_compared),
        _T("amplification", "Amplification", "float64", factor(2), "Measured ÷ must move.", nullable=True, why=_not_compared),
        _T("executed_flop", "Executed on tensor cores", "float64", FLOP, "Operations of the types that were counted.",
           nullable=True, why=_not_compared),
        _T("counted_flop", "Counted", "int64", FLOP, "FLOPs of matrix products at the real shapes, attention over the full square.",
           nullable=True, why=_not_compared),
        _T("overwork", "Executed ÷ counted", "float64", factor(2),
           "Above 1: padding of tiles, work done twice. Below 1: products on CUDA cores or in a type that was not counted.",
           nullable=True, why=_not_compared),
    ),
)  # fmt: skip

_C = Column[Coverage]

COVERAGE: Final = Specification[Coverage](
    key="coverage",
    title="What the counters cover",
    rows="A kind of counter in one stage.",
    columns=(
        _C("stage", "Stage", "string", TEXT, GLOSSARY["stage"], priority=0),
        _C("what", "Counters", "string", TEXT, "Kind of counter.", priority=0),
        _C("calls", "Launches", "int64", COUNT, "Launches of the stage.", priority=4),
        _C("covered_calls", "Covered", "int64", COUNT, "Launches that have such counters.", priority=3),
        _C("total_ns", "Kernel time", "int64", EXACT_MS, "Sum of the stage's kernels.", priority=4),
        _C("by_place_ns", "By place", "int64", EXACT_MS,
           "Time of launches at the profiled kernel's place in the same sequence of launches.", priority=2),
        _C("by_configuration_ns", "By configuration", "int64", EXACT_MS,
           "Time of other launches with the stage, name, grid, block and shared memory of a profiled kernel.", priority=2),
        _C("uncovered_ns", "Not covered", "int64", EXACT_MS, "Time of launches without such counters.",
           value=lambda row: row.total_ns - row.covered_ns, priority=2),
        _C("share", "Share", "float64", SHARE, "Covered part of the kernel time.", nullable=True),
    ),
)  # fmt: skip

_F = Column[FileMatch]

COUNTER_FILES: Final = Specification[FileMatch](
    key="counter_files",
    title="What became of the profiled kernels",
    rows="A file of counters.",
    columns=(
        _F("source", "File", "string", NAME, "The file.", priority=0),
        _F("kernels", "Kernels", "int64", COUNT, "Profiled kernels in it.", adds=True),
        _F("sequences", "Ranges", "int64", COUNT, "Steps and prefills that they come from.", adds=True, priority=3),
        _F("by_place", "Found at their place", "int64", COUNT,
           "In the trace's sequence of launches; a grown grid included.", adds=True),
        _F("by_configuration", "By configuration only", "int64", COUNT,
           "Their place is not in the trace's sequence; a launch of their stage, name and launch shape is.", adds=True),
        _F("unmatched", "Not in the trace", "int64", COUNT, "No launch of the trace is like them.", adds=True),
    ),
)  # fmt: skip
