"""Tables of ranges as Nsight Systems' own reports have them: kernels by range, and ranges projected onto the GPU."""

from __future__ import annotations

from typing import Any, Final

from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import COUNT, EXACT_MS, MICROSECONDS, NAME, PLAIN, TEXT, Column, Specification
from analysis.sums.range_kernels import ProjectionRow, RangeKernelRow

__all__ = ["PROJECTIONS", "RANGE_KERNELS"]


def _spread(kind: type[Any], what: str) -> tuple[Column[Any], ...]:
    column = Column[kind]  # type: ignore[valid-type]
    return (
        column("mean_ns", "Mean", "float64", MICROSECONDS, f"Mean over {what}.", priority=3),
        column("median_ns", "Median", "float64", MICROSECONDS, f"Median over {what}.", priority=3),
        column("min_ns", "Min", "int64", MICROSECONDS, f"Smallest of {what}.", priority=4),
        column("max_ns", "Max", "int64", MICROSECONDS, f"Largest of {what}.", priority=4),
        column(
            "std_ns", "Std", "float64", MICROSECONDS, f"Standard deviation of {what}, of a sample (n − 1).",
            nullable=True, priority=5, why=lambda _: "there is only one",
        ),
    )  # fmt: skip


_K = Column[RangeKernelRow]

RANGE_KERNELS: Final = Specification[RangeKernelRow](
    key="range_kernels",
    title="Kernels by range",
    rows="One kernel within all ranges of one name, style and thread (nsys stats' nvtx_kern_sum).",
    columns=(
        _K("range_name", "Range", "string", NAME, GLOSSARY["range_name"], priority=0),
        _K("style", "Style", "string", TEXT, GLOSSARY["range_style"], priority=6),
        _K("pid", "PID", "int64", PLAIN, "Number of the ranges' process.", nullable=True, priority=7),
        _K("tid", "TID", "int64", PLAIN, "Number of the ranges' thread.", nullable=True, priority=7),
        _K("kernel", "Kernel", "string", NAME, "Demangled name of the kernel.", priority=0),
        _K("range_instances", "Ranges", "int64", COUNT, "Ranges that hold at least one of these kernels.", priority=2),
        _K(
            "kernel_instances",
            "Kernels",
            "int64",
            COUNT,
            "These kernels in those ranges, each once per name of a range.",
        ),
        _K("total_ns", "Total", "int64", EXACT_MS, "Sum of the kernels' durations."),
        *_spread(RangeKernelRow, "the kernels' durations"),
    ),
)

_P = Column[ProjectionRow]

PROJECTIONS: Final = Specification[ProjectionRow](
    key="range_projections",
    title="Ranges on the GPU's timeline",
    rows="All ranges of one name and style, projected onto the GPU (nsys stats' nvtx_gpu_proj_sum).",
    columns=(
        _P("range_name", "Range", "string", NAME, GLOSSARY["range_name"], priority=0),
        _P("style", "Style", "string", TEXT, GLOSSARY["range_style"], priority=6),
        _P("range_instances", "Ranges", "int64", COUNT, "Ranges with at least one GPU operation."),
        _P("operations", "Operations", "int64", COUNT, "GPU operations, once per range; a CUDA graph's nodes each."),
        _P("projected_ns", "Projected", "int64", EXACT_MS, "Sum over the ranges of first start to last end."),
        _P("host_ns", "Host time", "int64", EXACT_MS, "Sum of the ranges' own durations.", priority=2),
        *_spread(ProjectionRow, "the projections"),
    ),
)
