"""The kernel tables: one row per stage and kernel name, or per launch shape of it; and their categories."""

from __future__ import annotations

from typing import Final

from analysis.domain.entities import KernelSummary
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import (
    BYTES,
    COUNT,
    EXACT_MS,
    MICROSECONDS,
    NAME,
    SHAPE,
    SHARE,
    SIGNIFICANT,
    TEXT,
    YES_NO,
    Column,
    Specification,
    decimals,
)
from analysis.sums.kernel_modules import KernelModuleRow
from analysis.sums.records import CategoryRow

__all__ = ["CATEGORIES", "KERNELS", "KERNEL_MODULES"]

_K = Column[KernelSummary]

_NOT_COMMON: Final = "the launches of this kernel differ in it; the rows by launch shape tell them apart"


def _differs(row: KernelSummary | KernelModuleRow) -> str | None:
    return _NOT_COMMON if row.shapes > 1 else "not recorded"


KERNELS: Final = Specification[KernelSummary](
    key="kernels",
    title="Kernels",
    rows="A kernel of one stage: all its launches, or those of one launch shape.",
    columns=(
        _K(
            "kernel", "Kernel", "string", TEXT, GLOSSARY["kernel"],
            value=lambda row: row.human_name or row.short_name or row.name, data=False, priority=0,
        ),
        _K(
            "stage", "Stage", "string", TEXT, GLOSSARY["stage"], shown=("terminal",), priority=2,
        ),
        _K("name", "Full name", "string", NAME, GLOSSARY["kernel_name"], shown=("html",), below="kernel"),
        _K(
            "human_name", "In words", "string", TEXT, GLOSSARY["kernel_words"], nullable=True, shown=(),
        ),
        _K("category", "Category", "string", TEXT, GLOSSARY["category"], priority=3),
        _K(
            "library", "Library", "string", TEXT, "Library that the kernel's name points to.", nullable=True,
            shown=("html",), below="category",
        ),
        _K("calls", "Calls", "int64", COUNT, GLOSSARY["calls"], adds=True),
        _K("total_ns", "Total", "int64", EXACT_MS, GLOSSARY["total"], adds=True),
        _K(
            "share", "Share", "float64", SHARE, GLOSSARY["kernel_share"], nullable=True, adds=True,
            within="stage",
        ),
        _K("mean_ns", "Mean", "float64", MICROSECONDS, GLOSSARY["mean_call"], priority=4),
        _K("median_ns", "Median", "float64", MICROSECONDS, GLOSSARY["median"], priority=4),
        _K(
            "p95_ns", "p95", "float64", MICROSECONDS, "95 % of the calls took at most this long.", nullable=True, below="median_ns",
            priority=5,
        ),
        _K("min_ns", "Min", "int64", MICROSECONDS, GLOSSARY["fastest_call"], priority=6),
        _K("max_ns", "Max", "int64", MICROSECONDS, GLOSSARY["slowest_call"], priority=5, below="min_ns"),
        _K(
            "per_token", "Per token", "float64", decimals(2),
            "Calls per token: prompt tokens in prefill, emitted steps in decode.", nullable=True,
            shown=("html", "markdown"), why=lambda _: "the number of tokens is not known",
        ),
        _K(
            "shapes", "Shapes", "int64", COUNT,
            "Number of distinct launch shapes (grid, block, registers, shared memory) of the row's calls.",
            shown=("html", "terminal"), priority=8,
        ),
        _K(
            "grid", "Grid", "shape", SHAPE, GLOSSARY["grid"], nullable=True,
            shown=("html", "terminal"), priority=2, why=_differs,
        ),
        _K(
            "block", "Block", "shape", SHAPE, GLOSSARY["block"], nullable=True,
            shown=("html", "terminal"), priority=2, below="grid", why=_differs,
        ),
        _K(
            "registers_per_thread", "Regs", "int64", COUNT, GLOSSARY["registers"], nullable=True, shown=("html",),
            why=_differs,
        ),
        _K(
            "shared_bytes", "Shared memory", "int64", BYTES, GLOSSARY["shared_memory"],
            nullable=True, shown=(), why=_differs,
        ),
        _K(
            "theoretical_occupancy", "Occup.", "float64", SHARE,
            "Theoretical occupancy: warps that fit on an SM at once ÷ the most that an SM can hold. The limit set by "
            "registers, shared memory and block size, not a measurement.", nullable=True, shown=("html", "terminal"),
            priority=6, why=_differs,
        ),
        _K(
            "waves", "Waves", "float64", SIGNIFICANT,
            "Blocks of the launch ÷ blocks that the whole GPU holds at once. Below 1 a part of the GPU stays empty.",
            nullable=True, shown=("html",), below="theoretical_occupancy", why=_differs,
        ),
        _K(
            "tensor_core", "Tensor", "bool", YES_NO, "Whether the kernel uses tensor cores, as far as its name tells.",
            nullable=True, shown=("html",), below="registers_per_thread", why=lambda _: "the name does not tell",
        ),
        _K(
            "short_name", "Name", "string", NAME, GLOSSARY["kernel_short_name"], shown=("markdown", "terminal"), priority=7,
        ),
    ),
    note="Full names, and a row per launch shape with its occupancy, are in kernels.parquet.",
)  # fmt: skip

_M = Column[KernelModuleRow]
_NO_UNIT: Final = "the row is of no stage, or nothing says how often the stage ran"

KERNEL_MODULES: Final = Specification[KernelModuleRow](
    key="kernel_modules",
    title="Kernels by module",
    rows="A kernel of one launch shape, launched by one module in one stage.",
    columns=(
        _M(
            "module", "Module", "string", NAME, "Path of the innermost module around the launch (in a CUDA graph: around the "
            "recording of its node); layers.*.mlp stands for that module of every layer. Exclusive.", priority=0,
        ),
        _M(
            "kernel", "Kernel", "string", TEXT, GLOSSARY["kernel"],
            value=lambda row: row.human_name or row.short_name or row.name, data=False, priority=0,
        ),
        _M("short_name", "Name", "string", NAME, GLOSSARY["kernel_short_name"], shown=()),
        _M("name", "Full name", "string", NAME, GLOSSARY["kernel_name"], shown=()),
        _M("stage", "Stage", "string", TEXT, GLOSSARY["stage"], shown=("terminal",), priority=2),
        _M("category", "Category", "string", TEXT, GLOSSARY["category"], shown=("html", "markdown"), below="kernel", priority=3),
        _M(
            "grid", "Grid", "shape", SHAPE, GLOSSARY["grid"], nullable=True, priority=4, why=_differs,
        ),
        _M(
            "block", "Block", "shape", SHAPE, GLOSSARY["block"], nullable=True, below="grid",
            shown=("html", "markdown"), priority=5, why=_differs,
        ),
        _M("calls", "Calls", "int64", COUNT, GLOSSARY["calls"], adds=True, priority=3),
        _M("per", "Per", "string", TEXT, "What calls and time are given per: an image, a prompt or a token.", nullable=True,
           shown=("markdown",), why=lambda _: _NO_UNIT),
        _M(
            "calls_per_unit", "Calls each", "float64", SIGNIFICANT, "Calls per image or token: calls of the stage ÷ images or "
            "tokens of the stage.", nullable=True, adds=True, within="stage", priority=1, why=lambda _: _NO_UNIT,
        ),
        _M(
            "total_per_unit_ns", "Time each", "float64", MICROSECONDS, "Time per image or token: sum of the durations ÷ images "
            "or tokens of the stage.", nullable=True, adds=True, within="stage", why=lambda _: _NO_UNIT,
        ),
        _M("total_ns", "Total", "int64", EXACT_MS, GLOSSARY["total"], adds=True),
        _M(
            "share", "Share", "float64", SHARE, GLOSSARY["kernel_share"], nullable=True, adds=True,
            within="stage",
        ),
        _M("mean_ns", "Mean", "float64", MICROSECONDS, GLOSSARY["mean_call"], priority=4),
        _M("min_ns", "Min", "int64", MICROSECONDS, GLOSSARY["fastest_call"], priority=6),
        _M("max_ns", "Max", "int64", MICROSECONDS, GLOSSARY["slowest_call"], priority=6, below="min_ns"),
        _M("paths", "Paths", "int64", COUNT, "How many module paths are folded in the row.", shown=()),
        _M("shapes", "Shapes", "int64", COUNT, "Number of distinct launch shapes of the row's calls.", shown=()),
        _M(
            "order", "Order", "int64", COUNT, "Place of the row's first run among those of its stage and module, from 0.",
            nullable=True, shown=(), why=lambda row: "not recorded",
        ),
        _M(
            "registers_per_thread", "Regs", "int64", COUNT, GLOSSARY["registers"], nullable=True, shown=(), why=_differs,
        ),
        _M(
            "shared_bytes", "Shared memory", "int64", BYTES, GLOSSARY["shared_memory"], nullable=True,
            shown=(), why=_differs,
        ),
        _M("human_name", "In words", "string", TEXT, GLOSSARY["kernel_words"], nullable=True, shown=()),
    ),
    note="Numbers in module paths are folded. The rows of a stage add up to its kernels; all of them are in "
    "kernel_modules.parquet.",
)  # fmt: skip

_C = Column[CategoryRow]

CATEGORIES: Final = Specification[CategoryRow](
    key="categories",
    title="GPU time by category",
    rows="A category of kernels, or a kind of copy, in one stage.",
    columns=(
        _C("category", "Category", "string", TEXT, GLOSSARY["category"], priority=0),
        _C("stage", "Stage", "string", TEXT, GLOSSARY["stage"]),
        _C("calls", "Calls", "int64", COUNT, GLOSSARY["calls"], adds=True, priority=3),
        _C("total_ns", "Sum", "int64", EXACT_MS, GLOSSARY["total"], adds=True, priority=2),
        _C(
            "share", "Share", "float64", SHARE, "Share of the stage's time over all GPU operations.", adds=True,
            within="stage",
        ),
    ),
)  # fmt: skip
