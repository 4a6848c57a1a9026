"""Tables of several ranks: side by side, stage by stage, who waits for whom, and step by step."""

from __future__ import annotations

from typing import Final

from analysis.ranks.records import Lateness, PlaceSkew, RankRow, RankStage
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import (
    COUNT,
    DURATION,
    EXACT_MS,
    NAME,
    OF_PEAK,
    PLAIN,
    SHARE,
    TEXT,
    Column,
    Specification,
)

__all__ = ["LATENESS", "RANKS", "RANK_STAGES", "RANK_STEPS"]

_R = Column[RankRow]
_S = Column[RankStage]
_L = Column[Lateness]
_P = Column[PlaceSkew]

_AT_START: Final = GLOSSARY["at_start"]
_APART: Final = "ranks wait at the same time"
_NOT_PAIRED: Final = "the ranks' collectives are not paired"


def _unpaired(value: object) -> str | None:
    return _NOT_PAIRED if value is None else None


RANKS: Final = Specification[RankRow](
    key="ranks",
    title="Ranks side by side",
    rows="A rank: one process's work on one GPU.",
    columns=(
        _R("rank", "Rank", "int64", PLAIN, GLOSSARY["rank_number"], priority=0),
        _R("device_name", "GPU", "string", TEXT, "Its GPU.", nullable=True, priority=6),
        _R("device", "Device", "int64", PLAIN, "CUDA's number of it, as its process sees it.", priority=7),
        _R("pid", "Process", "int64", PLAIN, "Its process id.", nullable=True, priority=8),
        _R("kernels", "Kernels", "int64", COUNT, "Kernels that it ran.", adds=True, priority=5),
        _R("kernel_sum_ns", "Kernel sum", "int64", EXACT_MS, "Sum of their times.", adds=True, priority=6, shown=()),
        _R(
            "busy_ns", "GPU busy", "int64", EXACT_MS,
            "Union of all its GPU operations on its own GPU. Those of two GPUs are never merged.", priority=2,
        ),
        _R("span_ns", "First to last", "int64", EXACT_MS, "From its first to its last GPU operation.", priority=4),
        _R("launches", "Launches", "int64", COUNT, GLOSSARY["launches"], priority=3),
        _R("collectives", "Collectives", "int64", COUNT, "Collectives that were paired with the other ranks' calls.", priority=5),
        _R("transfer_ns", "Transfer", "int64", EXACT_MS, GLOSSARY["transfer"], nullable=True, priority=2,
           why=lambda row: _unpaired(row.transfer_ns)),
        _R("waiting_ns", "Waiting", "int64", EXACT_MS, GLOSSARY["waiting"], nullable=True, apart=_APART, priority=0,
           why=lambda row: _unpaired(row.waiting_ns)),
        _R("at_start_ns", "At start", "int64", EXACT_MS, _AT_START, nullable=True, apart=_APART, optional=True, priority=4,
           why=lambda row: _unpaired(row.at_start_ns)),
        _R("cost_ns", "Waited for", "int64", EXACT_MS, "So long do the other ranks, together, wait for it.", nullable=True,
           apart=_APART, priority=0, why=lambda row: _unpaired(row.cost_ns)),
        _R("late", "Times last", "int64", COUNT, "Collectives at which it came last.", nullable=True, priority=1,
           why=lambda row: _unpaired(row.late)),
        _R("clock_offset_ns", "Clock ahead", "int64", EXACT_MS,
           "How far its trace's clock is ahead of the first rank's: median difference of the ends of collectives.",
           nullable=True, priority=7, why=lambda row: _unpaired(row.clock_offset_ns)),
        _R("clock_residual_ns", "Clock agrees to", "int64", DURATION,
           "95 % of the ends of collectives agree to within this, once the clocks are aligned.", nullable=True, priority=7,
           why=lambda row: _unpaired(row.clock_residual_ns)),
        _R("trace_path", "Trace", "string", NAME, "Its trace.", shown=(), priority=9),
        _R("folder", "Report", "string", NAME, "Folder of its own report, beside this one.", shown=(), priority=9),
    ),
)  # fmt: skip

RANK_STAGES: Final = Specification[RankStage](
    key="rank_stages",
    title="Stages, rank by rank",
    rows="A stage of a rank, all its instances, times as profiled.",
    columns=(
        _S("stage", "Stage", "string", TEXT, "The stage; `capture`: the whole of a trace without stages.", priority=0),
        _S("rank", "Rank", "int64", PLAIN, GLOSSARY["rank_number"], priority=0),
        _S("instances", "Instances", "int64", COUNT, "Times that the rank ran the stage.", priority=6, shown=("markdown",)),
        _S("steps", "Steps", "int64", COUNT, "Decode steps.", priority=6, shown=("markdown",)),
        _S("tokens", "Tokens", "int64", COUNT, "Prompt tokens of prefill, emitted ones of decode.", nullable=True, priority=8,
           apart="ranks that share a model share its tokens"),
        _S("profiled_ns", "Elapsed", "int64", EXACT_MS, "From the start of the range to the end of range and GPU work.",
           priority=1, apart="ranks run at the same time"),
        _S("busy_ns", "GPU busy", "int64", EXACT_MS, "Union of its GPU operations, instance by instance.", priority=3),
        _S("waiting_ns", "Waiting", "int64", EXACT_MS, GLOSSARY["waiting"], nullable=True, apart=_APART, priority=1,
           why=lambda row: _unpaired(row.waiting_ns)),
        _S("at_start_ns", "At start", "int64", EXACT_MS, _AT_START, nullable=True, apart=_APART, optional=True, priority=4,
           why=lambda row: _unpaired(row.at_start_ns)),
        _S("waiting_share", "Share waiting", "float64", SHARE,
           "Waiting ÷ (elapsed − waiting at the start of the capture).", nullable=True, priority=0,
           why=lambda row: _unpaired(row.waiting_share)),
        _S("transfer_ns", "Transfer", "int64", EXACT_MS, GLOSSARY["transfer"], nullable=True, priority=4,
           why=lambda row: _unpaired(row.transfer_ns)),
        _S("collectives", "Collectives", "int64", COUNT, "Collectives in it that were paired.", priority=7, shown=("markdown",)),
        _S("kernels", "Kernels", "int64", COUNT, "Kernels in it.", adds=True, priority=6, shown=("markdown",)),
        _S("launches", "Launches", "int64", COUNT, GLOSSARY["launches"], adds=True, priority=5, shown=("markdown",)),
        _S("per", "Unit", "string", TEXT, "Unit of its work.", priority=5),
        _S("unit_ns", "Per unit", "float64", DURATION, "What one unit takes: median over instances.", priority=3),
        _S("unit_busy_ns", "Busy per unit", "float64", DURATION, "GPU busy of one unit: median over instances.", priority=5),
        _S("mfu", "MFU", "float64", OF_PEAK, "MFU of its GPU, charging the rank its share of the model.", nullable=True, priority=5,
           why=lambda row: "FLOPs or peak are not known: see the rank's own report" if row.mfu is None else None),
        _S("mbu", "MBU", "float64", OF_PEAK, "MBU of its GPU, charging the rank its share of the model.", nullable=True, priority=5,
           why=lambda row: "bytes or peak are not known: see the rank's own report" if row.mbu is None else None),
        _S("bound", "Bound", "string", TEXT, "What bounds it, by its verdict.", priority=2),
    ),
)  # fmt: skip


def _no_collective_before(row: Lateness) -> str | None:
    return "no collective before says when the ranks stood together" if row.at_start else None


_MORE: Final = "From the collective before to this one, the late rank's GPU was idle longer by this while its host "

LATENESS: Final = Specification[Lateness](
    key="lateness",
    title="Who waits for whom, and why",
    rows="A rank that comes last to collectives, and one that waits for it in them, by the stage of the one that waits.",
    columns=(
        _L("late", "Late rank", "int64", PLAIN, "The rank that comes last.", priority=0),
        _L("waiting", "Waiting rank", "int64", PLAIN, "The rank that waits for it.", priority=0),
        _L("stage", "Stage", "string", TEXT,
           "Stage of the rank that waits. Start of the capture: collectives before which nothing says when the ranks stood "
           "together; they count for no rank's lateness.",
           value=lambda row: f"{row.stage}, start of the capture" if row.at_start else row.stage, priority=0),
        _L("collectives", "Collectives", "int64", COUNT, "At which it came last.", adds=True, priority=2),
        _L("cost_ns", "Waits", "int64", EXACT_MS, "So long does the other rank wait in them.", adds=True, priority=0),
        _L("skew_median_ns", "Late by", "int64", DURATION, "Median difference of the two starts.", priority=2),
        _L("skew_largest_ns", "At most", "int64", DURATION, "Largest difference of the two starts.", priority=3),
        _L("python_ns", "Python", "int64", EXACT_MS, f"{_MORE}was in no CUDA call: Python, the framework, the program. "
           "This and the other causes add up to the time by which it is late; negative: it was faster in this.", adds=True,
           nullable=True, why=_no_collective_before),
        _L("launching_ns", "Launching", "int64", EXACT_MS, f"{_MORE}launched.", adds=True,
           nullable=True, why=_no_collective_before),
        _L("synchronises_ns", "Synchronises", "int64", EXACT_MS, f"{_MORE}was in synchronises.", adds=True, priority=3,
           nullable=True, why=_no_collective_before),
        _L("other_calls_ns", "Other calls", "int64", EXACT_MS, f"{_MORE}was in other CUDA calls.", adds=True, priority=3,
           nullable=True, why=_no_collective_before),
        _L("kernels_ns", "Kernels", "int64", EXACT_MS, "Its own kernels took longer by this.", adds=True, priority=2,
           nullable=True, why=_no_collective_before),
        _L("in_graph_ns", "In graphs", "int64", EXACT_MS, "Its GPU was idle longer between nodes of CUDA graphs by this.",
           adds=True, priority=4, optional=True, nullable=True, why=_no_collective_before),
    ),
)  # fmt: skip

RANK_STEPS: Final = Specification[PlaceSkew](
    key="rank_steps",
    title="Step by step",
    rows="A step with collectives (or a stage outside steps), in time order, as the first rank names it.",
    columns=(
        _P("place", "Step", "string", NAME, "Path of the step.", priority=0),
        _P("stage", "Stage", "string", TEXT, "Its stage.", priority=4),
        _P("start_ns", "Start", "int64", EXACT_MS, "Of its first collective, on the first rank's clock.", priority=3),
        _P("collectives", "Collectives", "int64", COUNT, "Collectives in it.", adds=True, priority=4),
        _P("late", "Late rank", "int64", PLAIN, "The rank that the others wait for longest.", priority=0),
        _P("skew_ns", "Skew", "int64", DURATION, "Largest difference of the starts of one collective.", priority=1),
        _P("waiting_sum_ns", "Waiting", "int64", EXACT_MS, "In its collectives, all ranks together.",
           value=lambda row: sum(row.waiting_ns), priority=0),
        _P("at_start_sum_ns", "At start", "int64", EXACT_MS, _AT_START,
           value=lambda row: sum(row.at_start_ns), adds=True, optional=True, priority=3),
    ),
)  # fmt: skip
