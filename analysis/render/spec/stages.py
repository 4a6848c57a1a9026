"""Tables of stages: side by side, their instances and steps, their gaps, their latencies, and what profiling costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from analysis.domain.manifest import Overhead
from analysis.efficiency.records import Aggregate, UnitTimes
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import (
    COUNT,
    DURATION,
    EXACT_MS,
    NAME,
    SHARE,
    TEXT,
    YES_NO,
    Column,
    Specification,
    Style,
    Type,
    decimals,
    factor,
)
from analysis.sums.records import GapSummary, InstanceSummary, StageSummary, StepPoint

__all__ = ["GAPS", "INSTANCES", "LATENCIES", "OVERHEAD", "STAGES_TABLE", "STEPS", "UNIT_TIMES"]

_S = Column[StageSummary]


def _gap(key: str, label: str, term: str, value: Callable[[GapSummary], int]) -> _S:
    return _S(
        key, label, "int64", DURATION, GLOSSARY[term], nullable=True,
        value=lambda stage: None if stage.gaps is None else value(stage.gaps),
        why=lambda _: "the stage has no host range",
    )  # fmt: skip


def _no_kernels(stage: StageSummary) -> str:
    graphs = ": its CUDA graphs were traced as a whole" if stage.gpu.graphs else ""
    return f"no kernel of the stage was recorded{graphs}"


_IDLE: Final = (
    _gap("idle_ns", "GPU idle, profiled", "gap", lambda gaps: gaps.total_ns),
    _gap("idle_launching_ns", "· while launching", "gap_launching", lambda gaps: gaps.launching_ns),
    _gap("idle_draining_ns", "· drained by a synchronise", "gap_draining", lambda gaps: gaps.draining_ns),
    _gap("idle_synchronising_ns", "· while synchronising", "gap_synchronising", lambda gaps: gaps.synchronising_ns),
    _gap("idle_in_graph_ns", "· between nodes of a CUDA graph", "gap_in_graph", lambda gaps: gaps.in_graph_ns),
    _gap("idle_other_api_ns", "· in other CUDA calls", "gap_other_api", lambda gaps: gaps.other_api_ns),
    _gap("idle_outside_api_ns", "· outside CUDA calls", "gap_outside_api", lambda gaps: gaps.outside_api_ns),
    _gap("longest_gap_ns", "· longest gap", "longest_gap", lambda gaps: gaps.largest_ns),
)

STAGES_TABLE: Final = Specification[StageSummary](
    key="stages",
    title="Prefill against decode",
    rows="A stage, all its instances.",
    columns=(
        _S("stage", "Stage", "string", TEXT, GLOSSARY["stage"], priority=0),
        _S("instances", "Instances", "int64", COUNT, "How often the stage ran: once per image and pass."),
        _S(
            "tokens", "Tokens", "int64", COUNT, "Prompt tokens for prefill, emitted steps for decode.", nullable=True,
            why=lambda _: "nothing in the trace or its manifest says how many",
        ),
        _S("profiled_host_ns", "Host elapsed, profiled", "int64", DURATION, GLOSSARY["host_elapsed"]),
        _S("profiled_ns", "Elapsed, profiled", "int64", DURATION, GLOSSARY["elapsed"]),
        _S("projected_ns", "Projected on the GPU", "int64", DURATION, GLOSSARY["projected"]),
        _S("busy_ns", "GPU busy", "int64", DURATION, GLOSSARY["busy"]),
        _S("kernel_sum_ns", "Kernel sum", "int64", DURATION, GLOSSARY["kernel_sum"]),
        _S("kernels", "Kernels", "int64", COUNT, GLOSSARY["kernels"], value=lambda stage: stage.gpu.kernels),
        _S(
            "mean_kernel_ns", "Mean kernel", "float64", DURATION, "Mean duration of the stage's kernels.", nullable=True,
            why=_no_kernels,
        ),
        _S(
            "median_kernel_ns", "Median kernel", "float64", DURATION, "Median duration of the stage's kernels.", nullable=True,
            why=_no_kernels,
        ),
        _S("launches", "Launches", "int64", COUNT, GLOSSARY["launches"]),
        _S("graph_launches", "Of these, CUDA graphs", "int64", COUNT, GLOSSARY["graph_launches"]),
        _S(
            "mean_launch_gap_ns", "Mean launch gap, profiled", "float64", DURATION,
            "Host time from one launch to the next, mean. If it exceeds the mean kernel time, the GPU waits.", nullable=True,
            why=lambda _: "no instance has two launches on one thread",
        ),
        _S("host_launch_ns", "Host time in launches, profiled", "int64", DURATION, "Host time spent inside launching calls."),
        _S(
            "queue_delay_median_ns", "Queue delay, profiled, median", "float64", DURATION, GLOSSARY["queue_delay"], nullable=True,
            why=_no_kernels,
        ),
        _S(
            "queue_delay_p95_ns", "Queue delay, profiled, p95", "float64", DURATION, GLOSSARY["queue_delay"], nullable=True,
            why=_no_kernels,
        ),
        _S("synchronises", "Synchronises", "int64", COUNT, GLOSSARY["synchronise"]),
        _S("synchronise_ns", "Host time in synchronises, profiled", "int64", DURATION, GLOSSARY["synchronise"]),
        _S(
            "small_d2h_copies", "Small device-to-host copies", "int64", COUNT,
            "Copies of at most 1 KiB from device to host: each carries a decision, and makes the host wait.",
        ),
        _S(
            "concurrency", "Operations at a time", "float64", decimals(3),
            "Sum of GPU operations ÷ their union. 1: one at a time.", nullable=True,
            why=lambda _: "no GPU operation of the stage was recorded",
        ),
        _S(
            "small_grid_share", "Kernel time in small grids", "float64", SHARE,
            "Share of kernel time in kernels with fewer blocks than the device has SMs.", nullable=True,
            why=lambda stage: "grids or the number of SMs are not recorded" if stage.gpu.kernels else _no_kernels(stage),
        ),
        *_IDLE,
    ),
)  # fmt: skip


_W = Column[UnitTimes]


UNIT_TIMES: Final = Specification[UnitTimes](
    key="unit_times",
    title="What one image or token takes",
    rows="A stage: medians over its instances, of the same images in every column.",
    columns=(
        _W("stage", "Stage", "string", TEXT, GLOSSARY["stage"], priority=0),
        _W("per", "Medians per", "string", TEXT, "What the times of the next rows are given per."),
        _W(
            "unprofiled_ns", "· time, unprofiled", "float64", DURATION, "Median of the control run, without the profiler.",
            nullable=True, why=lambda _: "no control run measured these images",
        ),
        _W("profiled_ns", "· time, profiled", "float64", DURATION, "From range start to the end of range and GPU work."),
        _W("busy_ns", "· GPU busy", "float64", DURATION, GLOSSARY["busy"]),
        _W("busy_share", "· GPU busy share", "float64", SHARE, GLOSSARY["busy_share"], nullable=True),
        _W(
            "busy_share_base", "· which is of the time", "string", TEXT,
            "The unprofiled time, where a control run measured it; else, and on a CPU, the profiled one.", priority=2,
        ),
        _W(
            "capped_because", "· cut to 100 % for", "string", TEXT, "Why the share was cut to 100 %.", nullable=True,
            optional=True, priority=2,
        ),
        _W(
            "profiled_busy_share", "· GPU busy share, profiled", "float64", SHARE,
            "GPU busy ÷ profiled time, medians per image or token.", nullable=True,
        ),
        _W("launches", "· launches", "float64", decimals(1), GLOSSARY["launches"]),
        _W(
            "instances", "· captured instances", "int64", COUNT,
            "Captured instances that the medians are over: those of the images that were measured without the profiler too.",
        ),
        _W(
            "inputs", "Inputs of a pass", "int64", COUNT, "Images or prompts that the sums over one pass are over.", shown=(),
        ),
        _W(
            "pass_unprofiled_ns", "Unprofiled, one pass", "float64", DURATION,
            "Sum over images of the median over control passes.", nullable=True, shown=(),
        ),
        _W(
            "pass_profiled_ns", "Profiled, one pass", "float64", DURATION,
            "Sum over images of the median over captured passes, from range start to the end of range and GPU work.",
            shown=(),
        ),
        _W(
            "pass_busy_ns", "GPU busy, one pass", "float64", DURATION,
            "Sum over images of the median over captured passes of the GPU-busy time.", shown=(),
        ),
    ),
)  # fmt: skip


def _only_gap(key: str, label: str, term: str, value: Callable[[GapSummary], int], **more: Any) -> _S:
    def read(stage: StageSummary) -> int:
        if stage.gaps is None:
            raise ValueError(f"{stage.stage} has no gaps: leave such a stage out of the table of gaps")
        return value(stage.gaps)

    return _S(key, label, "int64", EXACT_MS, GLOSSARY[term], value=read, **more)


GAPS: Final = Specification[StageSummary](
    key="gaps",
    title="GPU idle time",
    rows="A stage whose gaps are known.",
    columns=(
        _S("stage", "Stage", "string", TEXT, GLOSSARY["stage"], priority=0),
        _S(
            "gaps", "Gaps", "int64", COUNT, "Number of times that the stage's GPU was idle.",
            value=lambda stage: None if stage.gaps is None else stage.gaps.count,
        ),
        _only_gap("idle_ns", "Idle", "gap", lambda gaps: gaps.total_ns),
        _only_gap("launching_ns", "Launching", "gap_launching", lambda gaps: gaps.launching_ns, priority=2),
        _only_gap("draining_ns", "Drained by a synchronise", "gap_draining", lambda gaps: gaps.draining_ns, priority=2),
        _only_gap("synchronising_ns", "Synchronising", "gap_synchronising", lambda gaps: gaps.synchronising_ns, priority=2),
        _only_gap("in_graph_ns", "Between graph nodes", "gap_in_graph", lambda gaps: gaps.in_graph_ns, priority=3),
        _only_gap("other_api_ns", "Other CUDA calls", "gap_other_api", lambda gaps: gaps.other_api_ns, priority=2),
        _only_gap("outside_api_ns", "Outside CUDA calls", "gap_outside_api", lambda gaps: gaps.outside_api_ns, priority=2),
        _only_gap("longest_ns", "Longest", "longest_gap", lambda gaps: gaps.largest_ns, priority=3),
    ),
    note="By what the host did while the GPU was idle; the parts add up to the idle time.",
)  # fmt: skip

_I = Column[InstanceSummary]

INSTANCES: Final = Specification[InstanceSummary](
    key="instances",
    title="Stage instances",
    rows="One stage instance, such as image[0]/decode.",
    columns=(
        _I("path", "Instance", "string", NAME, "What the range lies in, and which of several it is.", priority=0),
        _I("image", "Image", "string", NAME, "Range of the image or prompt around it.", nullable=True, priority=6),
        _I("stage", "Stage", "string", TEXT, GLOSSARY["stage"], priority=2),
        _I(
            "image_index", "Image index", "int64", COUNT, GLOSSARY["image_index"], nullable=True,
            optional=True, priority=7,
        ),
        _I(
            "pass_index", "Pass", "int64", COUNT, GLOSSARY["pass_index"],
            nullable=True, optional=True, priority=6,
        ),
        _I(
            "rank", "Rank", "int64", COUNT, GLOSSARY["rank"],
            nullable=True, optional=True, priority=3,
        ),
        _I("start_ns", "Start", "int64", EXACT_MS, "Start of the range on the trace's clock.", priority=4),
        _I("end_ns", "End", "int64", EXACT_MS, "End of the range on the trace's clock.", priority=5),
        _I("profiled_host_ns", "Host elapsed", "int64", EXACT_MS, "End − start of the range on the CPU.", adds=True),
        _I(
            "profiled_ns", "Elapsed", "int64", EXACT_MS,
            "From the start of the range to the moment at which range and GPU work have both ended.", adds=True,
        ),
        _I("projected_ns", "Projected", "int64", EXACT_MS, "First start to last end of its GPU operations.", priority=3),
        _I("busy_ns", "GPU busy", "int64", EXACT_MS, GLOSSARY["busy"]),
        _I("kernel_sum_ns", "Kernel sum", "int64", EXACT_MS, GLOSSARY["kernel_sum"], adds=True, priority=3),
        _I("kernels", "Kernels", "int64", COUNT, GLOSSARY["kernels"], adds=True),
        _I("launches", "Launches", "int64", COUNT, GLOSSARY["launches"], adds=True, priority=2),
        _I(
            "payload", "Payload", "int64", COUNT, "Payload of the range: the prompt's tokens, for prefill.", nullable=True,
            priority=6,
        ),
        _I("steps", "Steps", "int64", COUNT, "Decode steps inside it.", adds=True, priority=2),
        _I(
            "cut", "Cut short", "bool", YES_NO,
            "Whether the program was ended in its image: it is in sums, and in no median and no verdict.", shown=(),
        ),
    ),
)  # fmt: skip

_P = Column[StepPoint]


def _of_engine(key: str, label: str, kind: Type, style: Style, definition: str, **more: Any) -> _P:
    """A column that only steps of a serving engine have."""
    return _P(
        key, label, kind, style, definition, nullable=True, optional=True, priority=3,
        why=lambda step: "it is no step of an engine" if step.kind is None else "the step's name does not tell", **more,
    )  # fmt: skip


STEPS: Final = Specification[StepPoint](
    key="steps",
    title="Steps",
    rows="One decode step, or one step of an engine.",
    columns=(
        _P("instance", "Instance", "string", NAME, "Decode instance that it belongs to.", priority=0),
        _P("index", "Step", "int64", COUNT, GLOSSARY["step_index"], priority=0),
        _P("image_index", "Image index", "int64", COUNT, "Of the instance around it.", nullable=True, optional=True, priority=7),
        _P("pass_index", "Pass", "int64", COUNT, "Of the instance around it.", nullable=True, optional=True, priority=6),
        _P("rank", "Rank", "int64", COUNT, "Of the instance around it.", nullable=True, optional=True, priority=5),
        _P("start_ns", "Start", "int64", EXACT_MS, "Start of the step on the trace's clock.", priority=3),
        _P("profiled_host_ns", "Host elapsed", "int64", EXACT_MS, "End − start of the step's range on the CPU.", adds=True),
        _P(
            "finished_ns", "Finished", "int64", EXACT_MS,
            "When its range and its GPU work have both ended, on the trace's clock: the moment of its token.", priority=3,
        ),
        _P("busy_ns", "GPU busy", "int64", EXACT_MS, GLOSSARY["busy"]),
        _P("kernels", "Kernels", "int64", COUNT, GLOSSARY["kernels"], adds=True),
        _P(
            "context", "Context", "int64", COUNT, "Context length in tokens, from the range's payload.", nullable=True,
            priority=2, why=lambda _: "the range carries none",
        ),
        _of_engine("kind", "Kind", "string", TEXT, GLOSSARY["step_kind"]),
        _of_engine("requests", "Requests", "int64", COUNT, "Requests in the step."),
        _of_engine("tokens", "Tokens", "int64", COUNT, "New positions that the step computes."),
        _of_engine(
            "prefill_tokens", "Prefill tokens", "int64", COUNT, GLOSSARY["prefill_tokens"],
            value=lambda step: step.composition.prefill_tokens if step.composition else None,
        ),
        _of_engine(
            "decode_tokens", "Decode tokens", "int64", COUNT, GLOSSARY["decode_tokens"],
            value=lambda step: step.composition.decode_tokens if step.composition else None,
        ),
        _of_engine(
            "step_ns", "Step", "int64", EXACT_MS,
            "From the start of the step until its range and its GPU work have ended, or the next step begins.",
        ),
        _of_engine("queued_ns", "Queued before it", "int64", EXACT_MS, GLOSSARY["queued"]),
        _of_engine("between_ns", "Host between steps", "int64", EXACT_MS, GLOSSARY["between_steps"]),
        _of_engine("launches", "Launches", "int64", COUNT, GLOSSARY["launches"]),
    ),
)  # fmt: skip

_A = Column[Aggregate]
_SOURCES: Final = {"control": "unprofiled control run", "trace": "capture"}

LATENCIES: Final = Specification[Aggregate](
    key="latencies",
    title="Latencies",
    rows="A metric over its measurements.",
    columns=(
        _A(
            "name", "Metric", "string", TEXT, "Name of the metric; what begins with profiled_ was measured inside the "
            "capture.", priority=0,
        ),
        _A("unit", "Unit", "string", TEXT, "Of the metric's numbers.", priority=0),
        _A("median", "Median", "float64", decimals(3), "Half of the measurements were smaller."),
        _A("mean", "Mean", "float64", decimals(3), "Sum of the measurements ÷ their number.", priority=2),
        _A("std", "Std", "float64", decimals(3), "Standard deviation over the measurements.", priority=3),
        _A("minimum", "Min", "float64", decimals(3), "Smallest measurement.", priority=3),
        _A("maximum", "Max", "float64", decimals(3), "Largest measurement.", priority=3),
        _A("count", "Count", "int64", COUNT, "Number of measurements."),
        _A(
            "source", "Measured in", "string", TEXT, "The unprofiled control run, or the capture with what profiling costs.",
            value=lambda row: _SOURCES[row.source],
        ),
    ),
)  # fmt: skip

_O = Column[Overhead]

OVERHEAD: Final = Specification[Overhead](
    key="overhead",
    title="What profiling costs",
    rows="A stage that ran with and without the profiler.",
    columns=(
        _O("stage", "Stage", "string", TEXT, GLOSSARY["stage"], priority=0),
        _O("per", "Per", "string", TEXT, "What the times are given per."),
        _O("unprofiled_ms", "Unprofiled", "float64", decimals(3, "ms"), "Time in the unprofiled control run."),
        _O("profiled_ms", "Profiled", "float64", decimals(3, "ms"), GLOSSARY["profiled"]),
        _O("factor", "Factor", "float64", factor(2), GLOSSARY["overhead"]),
        _O(
            "timed_by",
            "Profiled time from",
            "string",
            TEXT,
            "What timed the captured passes: the program itself, as it "
            "timed the control run, or the ranges of the trace.",
            priority=3,
        ),
    ),
    note="Headline latencies come from the unprofiled control run; the trace says where the time goes.",
)
