"""Tables of GPU time by stage, instance, step, module, range or kernel; modules folded over layers; streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import evolve, frozen

from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import COUNT, EXACT_MS, NAME, PLAIN, SHARE, Column, Specification, Style
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.kernel_modules import module_patterns
from analysis.sums.records import GpuRow, StreamSummary
from analysis.sums.tables import TableKind

__all__ = [
    "GPU_TIME",
    "MODULE_KINDS",
    "STEP_KIND_TIME",
    "STREAMS",
    "ModuleKind",
    "all_operations_ns",
    "module_kinds",
    "of_stages",
]

_G = Column[GpuRow]
_APART: Final = "unions and spans of different rows may overlap, so they are not added up"


def all_operations_ns(row: GpuRow) -> int:
    """Sum of the durations of all GPU operations of a row."""
    return row.kernel_sum_ns + row.memcpy_ns + row.memset_ns + row.graph_ns


def _gpu_time(
    by: TableKind, title: str, label: str, rows: str, definition: str, note: str = ""
) -> Specification[GpuRow]:
    def part(key: str, label: str, style: Style, term: str) -> _G:
        return _G(key, label, "int64", style, GLOSSARY[term], adds=adds, optional=True, priority=4)

    adds = by != "range"  # inclusive: an operation counts in several rows

    return Specification[GpuRow](
        key=f"gpu_time_by_{by}",
        title=title,
        rows=rows,
        columns=(
            _G("name", label, "string", NAME, definition, priority=0),
            _G("kernels", "Kernels", "int64", COUNT, GLOSSARY["kernels"], adds=adds),
            _G("kernel_sum_ns", "Kernel sum", "int64", EXACT_MS, GLOSSARY["kernel_sum"], adds=adds, priority=3),
            _G("busy_ns", "GPU busy", "int64", EXACT_MS, GLOSSARY["busy"], apart=_APART, priority=2),
            _G("projected_ns", "Projected", "int64", EXACT_MS, GLOSSARY["projected"], apart=_APART, priority=5),
            part("memcpys", "Copies", COUNT, "memcpys"),
            part("memcpy_ns", "Copy sum", EXACT_MS, "memcpys"),
            part("memsets", "Memsets", COUNT, "memsets"),
            part("memset_ns", "Memset sum", EXACT_MS, "memsets"),
            part("graphs", "Graphs", COUNT, "graphs"),
            part("graph_ns", "Graph sum", EXACT_MS, "graphs"),
            _G(
                "all_ns", "All operations", "int64", EXACT_MS, GLOSSARY["all_sum"], value=all_operations_ns, adds=adds,
                data=False,
            ),
        ),
        note=note,
    )  # fmt: skip


GPU_TIME: Final[dict[TableKind, Specification[GpuRow]]] = {
    "stage": _gpu_time(
        "stage", "GPU time by stage", "Stage", "A stage, all its instances.", GLOSSARY["stage"],
        "Every GPU operation is counted in exactly one row; counts and sums add up to the trace’s total exactly.",
    ),
    "instance": _gpu_time(
        "instance", "GPU time by stage instance", "Instance", "One instance of a stage, such as image[0]/decode.",
        "Path of the stage's range: what it lies in, and which of several it is.",
    ),
    "step": _gpu_time(
        "step", "GPU time by decode step", "Step", "One decode step.", "Path of the step's range and its number.",
    ),
    "module": _gpu_time(
        "module", "GPU time by module", "Module", "A module path, exclusive.", GLOSSARY["module"],
    ),
    "range": _gpu_time(
        "range", "GPU time by range", "Range", "All ranges of one domain and name, inclusive.",
        "Domain and name of the ranges. Inclusive: an operation counts once in every range around its launch, so rows do "
        "not add up.",
    ),
    "kernel": _gpu_time(
        "kernel", "GPU time by kernel", "Operation", "A kernel name, or a kind of copy or memset.",
        "Full name of the kernel, or what is copied from where to where.",
    ),
}  # fmt: skip
"""What ``--by`` a table is → its declaration; the columns are the same."""

_STEP_COLUMN: Final = _G(
    "steps", "Steps", "int64", COUNT, "Steps of the engine, of a stage that is a kind of them.", nullable=True, adds=True,
    why=lambda _: "it is no kind of an engine's steps",
)  # fmt: skip
STEP_KIND_TIME: Final[Specification[GpuRow]] = evolve(
    GPU_TIME["stage"],
    key="gpu_time_by_step_kind",
    title="GPU time by kind of step",
    rows="A kind of an engine's steps.",
    columns=(GPU_TIME["stage"].columns[0], _STEP_COLUMN, *GPU_TIME["stage"].columns[1:]),
)
"""``--by stage`` of a serving engine's trace: the steps are counted beside their GPU time."""


def of_stages(rows: Sequence[GpuRow]) -> Specification[GpuRow]:
    """The declaration of a table by stage: that with steps, where stages are kinds of an engine's steps."""
    return STEP_KIND_TIME if any(row.steps is not None for row in rows) else GPU_TIME["stage"]


# --- modules, layers folded -------------------------------------------------------------------------------------


@frozen
class ModuleKind:
    """The modules whose paths differ in numbers only: ``layers.*.mlp``."""

    name: str
    paths: int
    kernels: int
    kernel_sum_ns: int
    all_ns: int
    share: float | None
    """Of the table's GPU operations; None: they took no time."""


_M = Column[ModuleKind]

MODULE_KINDS: Final = Specification[ModuleKind](
    key="module_kinds",
    title="Modules",
    rows="Modules whose paths differ in numbers only.",
    columns=(
        _M(
            "name", "Module", "string", NAME, "Module path with its layer numbers folded. Exclusive: time counts once, in "
            "the innermost module.", priority=0,
        ),
        _M("paths", "Paths", "int64", COUNT, "How many module paths are folded in this row.", adds=True, priority=3),
        _M("kernels", "Kernels", "int64", COUNT, GLOSSARY["kernels"], adds=True),
        _M("kernel_sum_ns", "Kernel sum", "int64", EXACT_MS, GLOSSARY["kernel_sum"], adds=True, priority=2),
        _M("all_ns", "All operations", "int64", EXACT_MS, GLOSSARY["all_sum"], adds=True),
        _M(
            "share", "Share", "float64", SHARE, "Share of the table's GPU operation time.", nullable=True, adds=True,
        ),
    ),
    note="Numbers in paths are folded: layers.*.mlp stands for that module of every layer.",
)  # fmt: skip


def module_kinds(rows: Sequence[GpuRow]) -> tuple[ModuleKind, ...]:
    """Fold modules over the numbers in their paths; the largest kind first, the remainder last. Adds up like ``rows``."""
    folded: dict[str, list[GpuRow]] = {}
    pattern_of = module_patterns(row.name for row in rows)
    for row in rows:
        folded.setdefault(pattern_of[row.name], []).append(row)
    whole = sum(map(all_operations_ns, rows))
    kinds = []
    for pattern, members in folded.items():
        spent = sum(map(all_operations_ns, members))
        kinds.append(
            ModuleKind(
                name=pattern,
                paths=len(members),
                kernels=sum(row.kernels for row in members),
                kernel_sum_ns=sum(row.kernel_sum_ns for row in members),
                all_ns=spent,
                share=spent / whole if whole else None,
            )
        )
    return tuple(sorted(kinds, key=lambda kind: (kind.name == UNATTRIBUTED, -kind.all_ns)))


_S = Column[StreamSummary]

STREAMS: Final = Specification[StreamSummary](
    key="streams",
    title="Streams",
    rows="A CUDA stream of a device in one process.",
    columns=(
        _S("process_name", "Process", "string", NAME, "Name of the process.", nullable=True, optional=True, priority=5),
        _S("pid", "PID", "int64", PLAIN, "Number of the process.", nullable=True, optional=True, priority=4),
        _S("device", "Device", "int64", COUNT, "Number of the device, as CUDA counts them.", priority=0),
        _S("stream", "Stream", "int64", COUNT, "Number of the CUDA stream on its device.", priority=0),
        _S("operations", "Operations", "int64", COUNT, "Number of GPU operations.", adds=True),
        _S("sum_ns", "All operations", "int64", EXACT_MS, GLOSSARY["all_sum"], adds=True),
        _S("busy_ns", "GPU busy", "int64", EXACT_MS, GLOSSARY["busy"], apart=_APART),
    ),
)
