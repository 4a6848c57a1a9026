"""What bounds each stage, with the arithmetic shown, and what removing the cause can save at most.

Figures per unit of work are medians over instances, numerator and denominator over the same images. Sums are said to be
sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import evolve

from analysis.domain.figures import count, difference, duration, part_of, ratio, share, whole_per_cents
from analysis.efficiency.records import Measured
from analysis.quality.findings import Finding
from analysis.sums.records import StageSummary
from analysis.sums.stages import WHOLE_CAPTURE
from analysis.verdict.facts import (
    BUSY_ENOUGH,
    COMMUNICATION_SHARE,
    COMPUTE_BOUND_MFU,
    MEMORY_BOUND_MBU,
    SMALL_GRID_SHARE,
    WAITING_SHARE,
    Facts,
    facts_of,
)
from analysis.verdict.records import Verdict

__all__ = ["refused", "verdicts"]

_TOP_CATEGORIES: Final = 4
_EVERY_UNIT: Final = 0.95
"""Synchronises per unit from which on every unit is taken to have one; the first may lack its own."""
_SUBJECT: Final = {"prefill": "Prefill", "decode": "Decode", WHOLE_CAPTURE: "The whole capture"}
_MARK_STAGES: Final = (
    "Put NVTX ranges named prefill and decode (and decode_step around each token) into the program, so that each stage "
    "gets a verdict of its own"
)


def verdicts(measured: Measured) -> tuple[Verdict, ...]:
    """Judge each stage; of a trace without stages, the whole capture."""
    found = []
    for stage in measured.captured.stages:
        facts = facts_of(measured, stage)
        verdict = _on_cpu(facts) if measured.captured.on_cpu else _judge(facts)
        found.append(_of_whole_capture(verdict, facts) if facts.is_whole_capture else verdict)
    return tuple(found)


def refused(stages: Sequence[StageSummary], findings: Sequence[Finding]) -> tuple[Verdict, ...]:
    """No verdict on a capture that is unfit."""
    unfit = [one for one in findings if one.severity == "unfit"]
    return tuple(
        Verdict(
            stage=stage,
            bound="unknown",
            sentence=f"No verdict on {'the whole capture' if stage == WHOLE_CAPTURE else stage}: the capture is unfit "
            f"({unfit[0].title if unfit else 'see its findings'}).",
            evidence=tuple(f"{one.title}: {one.evidence}" for one in unfit),
            action=unfit[0].remedy if unfit else "Capture again.",
            ceiling_ns=None,
            ceiling="n/a: the capture is unfit",
        )
        for stage in [one.stage for one in stages] or ["any stage"]
    )


def _judge(facts: Facts) -> Verdict:
    stage, times = facts.stage, facts.times
    if not stage.busy_ns or times.busy_share is None:
        return Verdict(
            stage=stage.stage,
            bound="unknown",
            sentence=f"No GPU operation is attributed to {stage.stage}, so nothing can be said of what bounds it.",
            evidence=(f"{stage.instances} instances, {duration(stage.profiled_host_ns)} host time, 0 GPU operations",),
            action="Look at the capture's findings first.",
            ceiling_ns=None,
            ceiling="n/a: no GPU time",
        )
    if facts.communication.share >= COMMUNICATION_SHARE:
        return _communication(facts)
    if times.busy_share < BUSY_ENOUGH:
        return _host_blocked(facts) if facts.waiting_share >= WAITING_SHARE else _launch_bound(facts)
    return _device_bound(facts)


# --- the host is what the GPU waits for ---------------------------------------------------------------------------


def _launch_bound(facts: Facts) -> Verdict:
    stage, times = facts.stage, facts.times
    if facts.is_decode and 2 * stage.graph_launches >= stage.launches:
        action = "Shorten what the host does between graph launches: sampling, the EOS check, input preparation."
        what = "Removing all host work between graphs"
    elif facts.is_decode:
        action = (
            "Replay decode from a CUDA graph with a static KV cache (dsocr-profile run --decode cuda-graph), or compile "
            "it; then fuse the small elementwise kernels."
        )
        what = "Replaying decode as a CUDA graph"
        waits = stage.synchronises * times.launches / stage.launches if stage.launches else 0.0
        if waits > _EVERY_UNIT:
            each = f"the synchronise of each {times.per}"
            calls = each if round(waits) == 1 else f"the {count(round(waits))} synchronises per {times.per}"
            action = (
                f"Keep {calls} out of the step, for a CUDA graph can hold none; then {action[0].lower()}{action[1:]}"
            )
    elif facts.is_whole_capture:
        action = (
            "Compile what launches most, replay what repeats from a CUDA graph, or batch more work into each launch."
        )
        what = "Keeping the GPU busy from its first to its last operation"
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
            f"{_SUBJECT[stage.stage]} is launch-bound: the GPU works {share(times.busy_share)} of {_the_time(facts)} and "
            f"waits the rest for the host, which launches {count(round(times.launches))} {launched} {_each(facts)}."
        ),
        evidence=(*_idle_evidence(facts), *_wait_evidence(facts)),
        action=action,
        ceiling_ns=facts.saved_over_a_pass_ns,
        ceiling=f"{what} saves at most {_saving(facts)}.",
    )


def _host_blocked(facts: Facts) -> Verdict:
    stage = facts.stage
    waiting = share(facts.waiting_share)
    return Verdict(
        stage=stage.stage,
        bound="host-blocked",
        sentence=(
            f"{_SUBJECT[stage.stage]} is host-blocked: the GPU works {share(facts.times.busy_share)} of "
            f"{_the_time(facts)}, and of the rest the host spends {waiting} inside synchronising calls."
        ),
        evidence=(
            *_idle_evidence(facts),
            f"inside synchronising calls {waiting} of the idle time (median over instances; threshold "
            f"{_whole(WAITING_SHARE)})",
            *_wait_evidence(facts),
        ),
        action="Remove the synchronising calls and small device-to-host copies named in the evidence, or move them off the "
        "critical path.",
        ceiling_ns=facts.saved_over_a_pass_ns,
        ceiling=f"Removing every wait saves at most {_saving(facts)}.",
    )


def _idle_evidence(facts: Facts) -> list[str]:
    """How busy the GPU was, and what the host did while it was not."""
    stage, gaps, times = facts.stage, facts.gaps, facts.times
    lines = [_busy_evidence(facts)]
    if times.unprofiled_ns is not None:
        profiled = part_of(times.busy_ns, times.profiled_ns)
        lines.append(
            f"under the profiler: GPU busy {profiled.part} of {profiled.whole} {_each(facts)} = {profiled.share}"
        )
    if stage.mean_kernel_ns is not None and stage.mean_launch_gap_ns is not None:
        per = "" if facts.is_whole_capture else f", {count(round(times.launches))} {_each(facts)} (median)"
        lines.append(
            f"{count(stage.launches)} launches{per}; a launch every {duration(stage.mean_launch_gap_ns)}, a kernel lasts "
            f"{duration(stage.mean_kernel_ns)} (means, profiled)"
        )
    if gaps is not None and gaps.total_ns:
        outside, launching, drained, waiting, nodes, other = whole_per_cents(
            (
                gaps.outside_api_ns,
                gaps.launching_ns,
                gaps.draining_ns,
                gaps.synchronising_ns,
                gaps.in_graph_ns,
                gaps.other_api_ns,
            )
        )
        lines.append(
            f"while the GPU idled {duration(gaps.total_ns)} in all, profiled, the host was outside CUDA calls {outside} (Python, "
            f"framework), launching {launching}, synchronising {waiting}, in other calls {other}; {drained} was drained by "
            f"a synchronise, whatever the host did until the next operation began; {nodes} lay between nodes of a CUDA graph"
        )
    if stage.queue_delay_median_ns is not None:
        lines.append(
            f"queueing delay (kernel start − launch start), profiled: median {duration(stage.queue_delay_median_ns)}"
        )
    return lines


def _busy_evidence(facts: Facts) -> str:
    times = facts.times
    busy = part_of(times.busy_ns, times.time_ns)
    where = " without the profiler" if times.unprofiled_ns is not None else ""
    medians = "" if facts.is_whole_capture else f"medians of {count(times.instances)}; "
    shown = f"{busy.share}, cut from more: {times.capped_because}" if times.capped_because else busy.share
    return f"GPU busy {busy.part} of {busy.whole} {_each(facts)}{where} = {shown} ({medians}threshold {_whole(BUSY_ENOUGH)})"


def _wait_evidence(facts: Facts) -> list[str]:
    """The calls in which the host waits, and the small copies, by name."""
    if not facts.waits:
        return []
    named = ", ".join(
        f"{count(one.calls)} × {one.call} ({one.kind}, {duration(one.total_ns)})" for one in facts.waits[:4]
    )
    return [f"waits: {named}"]


def _saving(facts: Facts) -> str:
    """The idle time per unit, as a difference that adds up."""
    times = facts.times
    shown = difference(times.time_ns, times.busy_ns)
    base = "unprofiled" if times.unprofiled_ns is not None else "profiled"
    return f"{shown.rest} {_each(facts)} ({shown.whole} {base} − {shown.part} GPU busy)"


# --- devices wait for each other ----------------------------------------------------------------------------------


def _communication(facts: Facts) -> Verdict:
    stage, sums = facts.stage, facts.communication
    whole = part_of(sums.total_ns, stage.kernel_sum_ns)
    beyond = part_of(sums.beyond_median_ns, sums.total_ns)
    waiting = difference(sums.total_ns, sums.fastest_ns)
    lines = [
        f"{one.human_name or one.short_name}: {count(one.calls)} calls, {duration(one.total_ns)}, mean "
        f"{duration(one.mean_ns)}, median {duration(one.median_ns)}, fastest {duration(one.min_ns)}, slowest "
        f"{duration(one.max_ns)}"
        for one in sums.kernels[:3]
    ]
    return Verdict(
        stage=stage.stage,
        bound="communication-bound",
        sentence=(
            f"{_SUBJECT[stage.stage]} is communication-bound: collectives take {whole.share} of the kernel time "
            f"({waiting.whole}), of which {waiting.rest} is beyond their fastest calls: waiting for another rank or a busy "
            "link."
        ),
        evidence=(
            f"collectives {whole.part} of {whole.whole} kernel time = {whole.share} (threshold "
            f"{_whole(COMMUNICATION_SHARE)})",
            *lines,
            f"time beyond the median of each collective: {beyond.part} of {beyond.whole} = {beyond.share} of communication "
            "– waiting for a slower rank or a busy link; one rank's trace cannot tell which",
            _busy_evidence(facts),
        ),
        action="Look at the other rank's trace for what delays it; then overlap or fuse the collectives.",
        ceiling_ns=round((sums.total_ns - sums.fastest_ns) / facts.passes),
        ceiling=(
            "With every collective as fast as the fastest of its kind, the stage saves at most "
            f"{waiting.rest} ({waiting.whole} − {waiting.part} over all its instances)."
        ),
    )


# --- the device is the limit --------------------------------------------------------------------------------------


def _device_bound(facts: Facts) -> Verdict:
    stage, row, busy = facts.stage, facts.busy_base, share(facts.times.busy_share)
    mfu = row.mfu if row else None
    mbu = row.mbu if row else None
    lines = [
        _busy_evidence(facts),
        f"MFU over GPU-busy time: {ratio(mfu)} (threshold {_whole(COMPUTE_BOUND_MFU)})",
        f"MBU over GPU-busy time: {ratio(mbu)} (threshold {_whole(MEMORY_BOUND_MBU)})",
    ]
    if stage.small_grid_share is not None:
        lines.append(
            f"kernels with fewer blocks than SMs: {share(stage.small_grid_share)} of kernel time (threshold "
            f"{_whole(SMALL_GRID_SHARE)})"
        )
    if stage.gpu.graphs:
        lines.append(
            f"{count(stage.gpu.graphs)} CUDA graphs, {duration(stage.gpu.graph_ns)}, their kernels not traced one by one"
        )
    if mfu is not None and mfu >= COMPUTE_BOUND_MFU:
        bound, why, action = "compute-bound", f"at {ratio(mfu)} MFU the tensor cores are the limit", (
            "Fewer FLOPs: lower precision, smaller inputs, or pruning."
        )  # fmt: skip
    elif mbu is not None and mbu >= MEMORY_BOUND_MBU:
        bound, why, action = "memory-bound", f"at {ratio(mbu)} MBU the memory is the limit", (
            "Move fewer bytes: quantise weights, batch requests, shorten the KV cache."
        )  # fmt: skip
    elif stage.small_grid_share is not None and stage.small_grid_share >= SMALL_GRID_SHARE:
        bound, why, action = "under-occupied", (
            f"{share(stage.small_grid_share)} of kernel time is in kernels too small for the GPU's SMs"
        ), "Batch more work into each kernel, or fuse kernels."  # fmt: skip
    elif mfu is None and mbu is None:
        bound, why, action = "unknown", (
            f"the GPU is busy {busy} of {_the_time(facts)}, but its useful work is not known"
        ), "Give the model (--model) or capture with dsocr-profile, so that FLOPs and bytes are known."  # fmt: skip
    elif 2 * stage.gpu.graph_ns >= stage.busy_ns:
        bound, why, action = "mixed", (
            f"the GPU is busy {busy} of {_the_time(facts)}, with CUDA graphs that reach {ratio(mfu)} MFU and {ratio(mbu)} "
            "MBU, so neither compute nor memory is the limit"
        ), (
            "Capture once with --preset cuda-graph-nodes (nsys: --cuda-graph-trace=node) to see the kernels inside the "
            "graphs."
        )  # fmt: skip
    else:
        top = facts.kernels[0] if facts.kernels else None
        bound, why, action = "mixed", f"the GPU is busy {busy} of {_the_time(facts)}, and no single limit dominates", (
            "Trace its kernels."
        )  # fmt: skip
        if top:
            size = f" ({share(top.share)} of the kernel time)" if top.share is not None else ""
            action = f"Start with the largest kernel: {top.human_name or top.short_name}{size}."
    return Verdict(
        stage=stage.stage,
        bound=bound,
        sentence=f"{_SUBJECT[stage.stage]} is {bound if bound != 'unknown' else 'of unknown bound'}: {why}.",
        evidence=tuple(lines),
        action=action,
        ceiling_ns=facts.distance_to_peak_over_a_pass_ns,
        ceiling=_distance_to_peak(facts),
    )


def _distance_to_peak(facts: Facts) -> str:
    row = facts.busy_base
    if row is None or row.ideal_unit_ns is None:
        return f"n/a: {row.unknown_because if row and row.unknown_because else 'the ideal time is unknown'}"
    shown = difference(facts.times.busy_ns, row.ideal_unit_ns)
    if facts.times.busy_ns <= row.ideal_unit_ns:
        return f"Nothing to save: GPU busy {shown.whole} {_each(facts)} is the ideal {shown.part} or less."
    return f"Running at peak saves at most {shown.rest} {_each(facts)} (GPU busy {shown.whole} − ideal {shown.part})."


# --- no GPU, no stages --------------------------------------------------------------------------------------------


def _on_cpu(facts: Facts) -> Verdict:
    """A CPU run shows shares of operators, not what a GPU would be bound by."""
    stage, times = facts.stage, facts.times
    if not stage.busy_ns:
        return Verdict(
            stage=stage.stage,
            bound="unknown",
            sentence=f"{_SUBJECT[stage.stage]} ran on a CPU, where this profiler records no operators: host times only.",
            evidence=(
                f"{stage.instances} instances, {duration(stage.profiled_host_ns)} host time, no operators recorded",
            ),
            action="Use the torch collector to see operators on a CPU, or a GPU to see kernels.",
            ceiling_ns=None,
            ceiling="n/a: no operators",
        )
    top = facts.kernels[0] if facts.kernels else None
    busy = part_of(times.busy_ns, times.time_ns)
    largest = f"; the largest, {top.name}, takes {share(top.share)} of them" if top else ""
    return Verdict(
        stage=stage.stage,
        bound="unknown",
        sentence=(
            f"{_SUBJECT[stage.stage]} ran on a CPU: operators fill {share(times.busy_share)} of {_the_time(facts)}{largest}. "
            "What would bound it on a GPU cannot be told from here."
        ),
        evidence=(
            f"operators {busy.part} of {busy.whole} {_each(facts)} = {busy.share}",
            f"{count(stage.gpu.kernels)} leaf operators in all",
        ),
        action="Capture on a GPU (make profile DEVICE=cuda:0) before optimising.",
        ceiling_ns=None,
        ceiling="n/a: a CPU run",
    )


def _of_whole_capture(verdict: Verdict, facts: Facts) -> Verdict:
    """Add what a trace without stages can still tell, and how it would tell more."""
    top = ", ".join(f"{one.category} {share(one.share)}" for one in facts.categories[:_TOP_CATEGORIES])
    lines = [
        f"no stages in the trace: judged from its first to its last operation, {duration(facts.stage.profiled_ns)}"
    ]
    if top:
        lines.append(f"device time by category: {top}")
    action = f"{_MARK_STAGES}. {verdict.action}"
    return evolve(verdict, evidence=(*verdict.evidence, *lines), action=action)


# --- words --------------------------------------------------------------------------------------------------------


def _the_time(facts: Facts) -> str:
    """What the busy share is a share of."""
    return f"the {facts.times.busy_share_base} time"


def _each(facts: Facts) -> str:
    return "in all" if facts.is_whole_capture else f"per {facts.times.per}"


def _whole(ratio_: float) -> str:
    """A threshold, which is a whole per cent."""
    return f"{100 * ratio_:.0f} %"
