"""What bounds each stage, with the arithmetic shown, and what removing the cause can gain at most."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.domain.entities import KernelSummary
from analysis.domain.manifest import Overhead
from analysis.efficiency.records import Utilisation
from analysis.quality.findings import Finding
from analysis.sums.records import HostCallRow, StageSummary
from analysis.verdict.facts import (
    BUSY_ENOUGH,
    COMMUNICATION_SHARE,
    COMPUTE_BOUND_MFU,
    MEMORY_BOUND_MBU,
    SMALL_GRID_SHARE,
    WAITING_SHARE,
    Facts,
    idle_evidence,
    ms,
    per_cent,
    saving,
    us,
    wait_evidence,
)
from analysis.verdict.records import Verdict

__all__ = ["refused", "verdicts"]


def verdicts(
    stages: Sequence[StageSummary],
    kernels: Sequence[KernelSummary],
    host_calls: Sequence[HostCallRow],
    utilisation: Sequence[Utilisation],
    overhead: Sequence[Overhead],
    *,
    on_cpu: bool,
    one_input: str = "image",
) -> tuple[Verdict, ...]:
    """Judge each stage.

    Args:
        stages: their sums.
        kernels: of all stages.
        host_calls: waits by stage (``where`` is the stage's name).
        utilisation: rows of all stages.
        overhead: of the profiler, where a control run measured it.
        on_cpu: leaf operators on a CPU stand where kernels would.
        one_input: what a prefill is counted by, ``image`` or ``prompt``.
    """
    found = []
    for stage in stages:
        busy = next((row for row in utilisation if row.stage == stage.stage and row.time_base == "gpu busy"), None)
        facts = Facts(
            stage=stage,
            kernels=tuple(one for one in kernels if one.stage == stage.stage),
            waits=tuple(one for one in host_calls if one.level == "stage" and one.where == stage.stage),
            busy_base=busy,
            overhead=next((one for one in overhead if one.stage == stage.stage), None),
            one_input=one_input,
        )
        found.append(_on_cpu(facts) if on_cpu else _judge(facts))
    return tuple(found)


def refused(stages: Sequence[StageSummary], findings: Sequence[Finding]) -> tuple[Verdict, ...]:
    """No verdict on a capture that is unfit."""
    unfit = [one for one in findings if one.severity == "unfit"]
    return tuple(
        Verdict(
            stage=stage,
            bound="unknown",
            sentence=f"No verdict on {stage}: the capture is unfit ({unfit[0].title if unfit else 'see its findings'}).",
            evidence=tuple(f"{one.title}: {one.evidence}" for one in unfit),
            action=unfit[0].remedy if unfit else "Capture again.",
            ceiling_ns=None,
            ceiling="n/a: the capture is unfit",
        )
        for stage in [one.stage for one in stages] or ["any stage"]
    )


def _judge(facts: Facts) -> Verdict:
    stage = facts.stage
    if not stage.busy_ns or stage.profiled_busy_share is None:
        return Verdict(
            stage=stage.stage,
            bound="unknown",
            sentence=f"No GPU operation is attributed to {stage.stage}, so nothing can be said of what bounds it.",
            evidence=(f"{stage.instances} instances, {ms(stage.host_elapsed_ns)} host time, 0 GPU operations",),
            action="Look at the capture's findings first.",
            ceiling_ns=None,
            ceiling="n/a: no GPU time",
        )
    share = sum(one.total_ns for one in facts.communication) / stage.kernel_sum_ns if stage.kernel_sum_ns else 0.0
    if share >= COMMUNICATION_SHARE:
        return _communication(facts, share)
    if facts.busy_share < BUSY_ENOUGH:
        gaps = stage.gaps
        if gaps is not None and gaps.total_ns and gaps.synchronising_ns / gaps.total_ns >= WAITING_SHARE:
            return _host_blocked(facts)
        return _launch_bound(facts)
    return _device_bound(facts)


def _launch_bound(facts: Facts) -> Verdict:
    stage = facts.stage
    total, saved, basis = saving(facts)
    if stage.stage == "decode" and 2 * stage.graph_launches >= stage.launches:
        action = "Shorten what the host does between graph launches: sampling, the EOS check, input preparation."
        what = "Removing all host work between graphs"
    elif stage.stage == "decode":
        action = (
            "Replay decode from a CUDA graph with a static KV cache (dsocr-profile run --decode cuda-graph), or compile "
            "it; then fuse the small elementwise kernels."
        )
        what = "Replaying decode as a CUDA graph"
        if stage.synchronises >= facts.units:
            each = round(stage.synchronises / facts.units)
            calls = (
                f"the synchronise of each {facts.unit}" if each == 1 else f"the {each:,} synchronises per {facts.unit}"
            )
            action = (
                f"Keep {calls} out of the step, for a CUDA graph can hold none; then {action[0].lower()}{action[1:]}"
            )
    else:
        action = (
            f"Compile or fuse the modules with the most launches, or batch {facts.one_input}s, so that each launch brings "
            "more work."
        )
        what = "Removing all launch overhead"
    launched = "kernels or graphs" if stage.graph_launches else "kernels"
    return Verdict(
        stage=stage.stage,
        bound="launch-bound",
        sentence=(
            f"{stage.stage.capitalize()} is launch-bound: the GPU works {facts.busy_share:.0%} of the {facts.time} and waits "
            f"the rest for the host, which launches {stage.launches / facts.units:,.0f} {launched} per {facts.unit}."
        ),
        evidence=(*idle_evidence(facts), *wait_evidence(facts)),
        action=action,
        ceiling_ns=total,
        ceiling=f"{what} saves at most {ms(saved)} per {facts.unit} ({basis}).",
    )


def _host_blocked(facts: Facts) -> Verdict:
    stage = facts.stage
    total, saved, basis = saving(facts)
    return Verdict(
        stage=stage.stage,
        bound="host-blocked",
        sentence=(
            f"{stage.stage.capitalize()} is host-blocked: the GPU idles {1 - facts.busy_share:.0%} of the {facts.time}, "
            f"and the host spends {(stage.gaps.synchronising_ns / stage.gaps.total_ns if stage.gaps else 0):.0%} of that "
            "inside synchronising calls."
        ),
        evidence=(*idle_evidence(facts), *wait_evidence(facts)),
        action="Remove the synchronising calls and small device-to-host copies named in the evidence, or move them off the "
        "critical path.",
        ceiling_ns=total,
        ceiling=f"Removing every wait saves at most {ms(saved)} per {facts.unit} ({basis}).",
    )


def _communication(facts: Facts, share: float) -> Verdict:
    stage = facts.stage
    rows = facts.communication
    total = sum(one.total_ns for one in rows)
    # What a collective takes beyond its own median, it spent waiting – for a slower rank, or for the link.
    excess = sum(max(0.0, one.total_ns - one.calls * one.median_ns) for one in rows)
    lines = [
        f"{one.human_name or one.short_name}: {one.calls:,} calls, {ms(one.total_ns)}, mean {us(one.mean_ns)}, median "
        f"{us(one.median_ns)}, fastest {us(one.min_ns)}, slowest {us(one.max_ns)}"
        for one in rows[:3]
    ]
    lines.append(
        f"time beyond the median of each collective: {ms(excess)} = {excess / total:.0%} of communication – waiting for a "
        "slower rank or a busy link; one rank's trace cannot tell which"
    )
    fastest = sum(one.calls * one.min_ns for one in rows)
    return Verdict(
        stage=stage.stage,
        bound="communication-bound",
        sentence=(
            f"{stage.stage.capitalize()} is communication-bound: collectives take {share:.0%} of the kernel time "
            f"({ms(total)}), "
            f"of which {ms(total - fastest)} is beyond their fastest calls: waiting for another rank or a busy link."
        ),
        evidence=(
            f"NCCL {ms(total)} of {ms(stage.kernel_sum_ns)} kernel time = {share:.1%} (threshold "
            f"{COMMUNICATION_SHARE:.0%})",
            *lines,
            *idle_evidence(facts)[:1],
        ),
        action="Look at the other rank's trace for what delays it; then overlap or fuse the collectives.",
        ceiling_ns=round(total - fastest),
        ceiling=(
            "With every collective as fast as the fastest of its kind, the stage saves at most "
            f"{ms((total - fastest) / facts.units)} per {facts.unit} ({ms(total)} − {ms(fastest)} over the stage)."
        ),
    )


def _device_bound(facts: Facts) -> Verdict:
    stage, row = facts.stage, facts.busy_base
    mfu = row.mfu if row else None
    mbu = row.mbu if row else None
    lines = idle_evidence(facts)[:1]
    lines.append(f"MFU over GPU-busy time: {per_cent(mfu)} (threshold {COMPUTE_BOUND_MFU:.0%})")
    lines.append(f"MBU over GPU-busy time: {per_cent(mbu)} (threshold {MEMORY_BOUND_MBU:.0%})")
    if stage.small_grid_share is not None:
        lines.append(
            f"kernels with fewer blocks than SMs: {stage.small_grid_share:.0%} of kernel time (threshold "
            f"{SMALL_GRID_SHARE:.0%})"
        )
    if stage.gpu.graphs:
        lines.append(f"{stage.gpu.graphs:,} CUDA graphs, {ms(stage.gpu.graph_ns)}, their kernels not traced one by one")
    ideal = row.ideal_ns if row else None
    gain = max(0, stage.busy_ns - ideal) if ideal is not None else None
    ceiling = (
        f"Running at peak saves at most {ms(gain / facts.units)} per {facts.unit} (GPU busy "
        f"{ms(stage.busy_ns / facts.units)} − ideal {ms(ideal / facts.units)})."
        if gain is not None and ideal is not None
        else f"n/a: {row.unknown_because if row and row.unknown_because else 'the ideal time is unknown'}"
    )
    if mfu is not None and mfu >= COMPUTE_BOUND_MFU:
        bound, why, action = "compute-bound", f"at {mfu:.0%} MFU the tensor cores are the limit", (
            "Fewer FLOPs: lower precision, smaller inputs, or pruning."
        )  # fmt: skip
    elif mbu is not None and mbu >= MEMORY_BOUND_MBU:
        bound, why, action = "memory-bound", f"at {mbu:.0%} MBU the memory is the limit", (
            "Move fewer bytes: quantise weights, batch requests, shorten the KV cache."
        )  # fmt: skip
    elif stage.small_grid_share is not None and stage.small_grid_share >= SMALL_GRID_SHARE:
        bound, why, action = "under-occupied", (
            f"{stage.small_grid_share:.0%} of kernel time is in kernels too small for the GPU's SMs"
        ), "Batch more work into each kernel, or fuse kernels."  # fmt: skip
    elif mfu is None and mbu is None:
        bound, why, action = "unknown", (
            f"the GPU is busy {facts.busy_share:.0%} of the {facts.time}, but its useful work is not known"
        ), "Give the model (--model) or capture with dsocr-profile, so that FLOPs and bytes are known."  # fmt: skip
    elif 2 * stage.gpu.graph_ns >= stage.busy_ns:
        bound, why = (
            "mixed",
            (
                f"the GPU is busy {facts.busy_share:.0%} of the {facts.time}, with CUDA graphs that reach {per_cent(mfu)} MFU and "
                f"{per_cent(mbu)} MBU, so neither compute nor memory is the limit"
            ),
        )
        action = "Capture once with --preset cuda-graph-nodes (nsys: --cuda-graph-trace=node) to see the kernels inside the graphs."
    else:
        top = facts.kernels[0] if facts.kernels else None
        bound, why = (
            "mixed",
            f"the GPU is busy {facts.busy_share:.0%} of the {facts.time}, and no single limit dominates",
        )
        action = "Trace its kernels."
        if top:
            size = f" ({top.share:.0%} of the kernel time)" if top.share is not None else ""
            action = f"Start with the largest kernel: {top.human_name or top.short_name}{size}."
    return Verdict(
        stage=stage.stage,
        bound=bound,
        sentence=f"{stage.stage.capitalize()} is {bound if bound != 'unknown' else 'of unknown bound'}: {why}.",
        evidence=tuple(lines),
        action=action,
        ceiling_ns=gain,
        ceiling=ceiling,
    )


def _on_cpu(facts: Facts) -> Verdict:
    """A CPU run shows shares of operators, not what a GPU would be bound by."""
    stage = facts.stage
    if not stage.busy_ns:
        return Verdict(
            stage=stage.stage,
            bound="unknown",
            sentence=f"{stage.stage.capitalize()} ran on a CPU, where this profiler records no operators: host times only.",
            evidence=(f"{stage.instances} instances, {ms(stage.host_elapsed_ns)} host time, no operators recorded",),
            action="Use the torch collector to see operators on a CPU, or a GPU to see kernels.",
            ceiling_ns=None,
            ceiling="n/a: no operators",
        )
    top = facts.kernels[0] if facts.kernels else None
    share = stage.busy_ns / stage.host_elapsed_ns if stage.host_elapsed_ns else 0.0
    largest = f"; the largest, {top.name}, takes {top.share or 0:.0%} of them" if top else ""
    return Verdict(
        stage=stage.stage,
        bound="unknown",
        sentence=(
            f"{stage.stage.capitalize()} ran on a CPU: operators fill {share:.0%} of its time{largest}. What would bound it "
            "on a GPU cannot be told from here."
        ),
        evidence=(
            f"operators {ms(stage.busy_ns)} of {ms(stage.host_elapsed_ns)} = {share:.1%}",
            f"{stage.gpu.kernels:,} leaf operators = {stage.gpu.kernels / facts.units:,.0f} per {facts.unit}",
        ),
        action="Capture on a GPU (make profile DEVICE=cuda:0) before optimising.",
        ceiling_ns=None,
        ceiling="n/a: a CPU run",
    )
