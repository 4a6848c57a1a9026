"""Tables of single events, one row each: launches and ranges. They are for programs; no report shows them."""

from __future__ import annotations

from typing import Any, Final

from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import COUNT, EXACT_MS, NAME, PLAIN, TEXT, YES_NO, Column, Specification
from analysis.sums.grouping import UNATTRIBUTED

__all__ = ["LAUNCHES", "RANGES"]

_E = Column[Any]


def _where(of: str) -> tuple[_E, ...]:
    return (
        _E("instance", "Instance", "string", NAME, f"Path of the stage's range around {of}; {UNATTRIBUTED}: in no stage."),
        _E("image_index", "Image", "int64", COUNT, GLOSSARY["image_index"], nullable=True),
        _E("pass_index", "Pass", "int64", COUNT, GLOSSARY["pass_index"], nullable=True),
        _E("rank", "Rank", "int64", COUNT, GLOSSARY["rank"], nullable=True),
        _E("step", "Step", "int64", COUNT, GLOSSARY["step_index"], nullable=True),
    )  # fmt: skip


_THREAD: Final = (
    _E("pid", "Process", "int64", PLAIN, GLOSSARY["pid"], nullable=True),
    _E("tid", "Thread", "int64", PLAIN, GLOSSARY["tid"], nullable=True),
)

LAUNCHES: Final = Specification[Any](
    key="launches",
    title="Launches",
    rows="A kernel that ran, or a CUDA graph that was traced as a whole, in order of their starts. A graph's nodes that "
    "were traced one by one are kernels of one call.",
    columns=(
        _E("stage", "Stage", "string", TEXT, GLOSSARY["stage"] + f" {UNATTRIBUTED}: launched in neither."),
        *_where("the launching call"),
        _E(
            "module", "Module", "string", NAME,
            f"Module path of the innermost module range around the launching call; {UNATTRIBUTED}: in none.",
        ),
        _E("kind", "Kind", "string", TEXT, "kernel, or graph: a whole CUDA graph whose kernels are invisible."),
        _E("name", "Name", "string", NAME, "Full name of the kernel."),
        _E("start_ns", "Start", "int64", EXACT_MS, "When the GPU began it, on the trace's clock."),
        _E("end_ns", "End", "int64", EXACT_MS, "When the GPU had done it, on the trace's clock."),
        _E("duration_ns", "Duration", "int64", EXACT_MS, "End − start.", adds=True),
        _E("device", "Device", "int64", COUNT, "Number of the device, as CUDA counts them; -1: not recorded."),
        _E("stream", "Stream", "int64", COUNT, "Number of the CUDA stream on its device; -1: not recorded."),
        _E("blocks", "Blocks", "int64", COUNT, "Blocks of the launch, x × y × z.", nullable=True),
        _E("in_graph", "In a graph", "bool", YES_NO, "Whether a CUDA graph launched it."),
        _E(
            "correlation_id", "Correlation id", "int64", PLAIN,
            "What ties it to the launching call; unique within a process only.", nullable=True,
        ),
        _E(
            "call", "Call", "string", NAME,
            f"Function of the CUDA API that launched it; {UNATTRIBUTED}: no call was recorded.",
        ),
        _E("call_start_ns", "Call start", "int64", EXACT_MS, "Start of the call on the trace's clock.", nullable=True),
        _E("call_end_ns", "Call end", "int64", EXACT_MS, "End of the call on the trace's clock.", nullable=True),
        _E("queue_delay_ns", "Queue delay", "int64", EXACT_MS, GLOSSARY["queue_delay"], nullable=True),
        *_THREAD,
    ),
)  # fmt: skip


def _sum(key: str, label: str, what: str) -> _E:
    return _E(key, label, "int64", COUNT, f"{what} launched inside it, those of ranges inside it included.")


RANGES: Final = Specification[Any](
    key="ranges",
    title="Ranges",
    rows="An NVTX range, in the file's order, with the GPU work that was launched inside it.",
    columns=(
        _E("name", "Name", "string", NAME, "Text of the range, as the profiled program wrote it."),
        _E("domain", "Domain", "string", NAME, "Its NVTX domain; the default one is the empty string."),
        _E("level", "Level", "string", TEXT, "What it means to us: image, stage, step, module, operator or other."),
        _E("style", "Style", "string", TEXT, "PushPop: nests on its thread. StartEnd: may overlap."),
        _E("start_ns", "Start", "int64", EXACT_MS, "Start on the trace's clock."),
        _E("end_ns", "End", "int64", EXACT_MS, "End on the trace's clock; of a range never closed, that of the trace."),
        _E("duration_ns", "Duration", "int64", EXACT_MS, "End − start, on the host."),
        _E("closed", "Closed", "bool", YES_NO, "Whether its end was recorded."),
        _E(
            "parent", "Parent", "int64", PLAIN,
            "Row of the innermost range of its thread, domain and style that contains it.", nullable=True,
        ),
        _E("stage", "Stage", "string", TEXT, f"Stage that it is or lies in on its thread; {UNATTRIBUTED}: none."),
        *_where("it"),
        _E("payload", "Payload", "int64", COUNT, "Its whole-number payload.", nullable=True),
        *_THREAD,
        _sum("kernels", "Kernels", "Kernels"),
        _sum("kernel_sum_ns", "Kernel sum", "Durations of the kernels"),
        _sum("memcpys", "Copies", "Memory copies"),
        _sum("memcpy_ns", "Copy sum", "Durations of the memory copies"),
        _sum("memsets", "Memsets", "Memsets"),
        _sum("memset_ns", "Memset sum", "Durations of the memsets"),
        _sum("graphs", "Graphs", "CUDA graphs traced as a whole that were"),
        _sum("graph_ns", "Graph sum", "Durations of these graphs"),
        _E("gpu_start_ns", "GPU start", "int64", EXACT_MS, "First start of this GPU work.", nullable=True),
        _E("gpu_end_ns", "GPU end", "int64", EXACT_MS, "Last end of this GPU work.", nullable=True),
    ),
)  # fmt: skip
