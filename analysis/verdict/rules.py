"""What bounds each stage: its budget in words, the largest term as label, and what to do first.

Figures per unit of work are medians over instances, numerator and denominator over the same images. Sums are said to be
sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import evolve

from analysis.domain.figures import (
    count,
    counted,
    decimal,
    duration,
    exact_ms,
    of_peak,
    part_of,
    ratio,
    share,
    whole_per_cents,
)
from analysis.efficiency.records import Measured, RankWait
from analysis.quality.findings import Finding
from analysis.sums.records import StageSummary
from analysis.sums.stages import WHOLE_CAPTURE
from analysis.verdict.actions import FIRST, actions_of, ranked, saves_at_most
from analysis.verdict.budget import BOUND_BY, budget_of
from analysis.verdict.components import component_uses
from analysis.verdict.facts import Facts, facts_of
from analysis.verdict.records import IDLE_TERMS, Budget, TermKey, Verdict

__all__ = ["refused", "verdicts"]

_TOP_CATEGORIES: Final = 4
_SUBJECT: Final = {"prefill": "Prefill", "decode": "Decode", WHOLE_CAPTURE: "The whole capture"}
_MARK_STAGES: Final = (
    "Put NVTX ranges named prefill and decode (and decode_step around each token) into the program, so that each stage "
    "gets a verdict of its own"
)


def verdicts(measured: Measured) -> tuple[Verdict, ...]:
    """Judge each stage; of a trace without stages, the whole capture."""
    found = []
    for stage in measured.captured.stages:
        if stage.of_steps and not stage.busy_ns:
            continue  # an empty step launches nothing: there is nothing to judge
        facts = facts_of(measured, stage)
        verdict = _on_cpu(facts) if measured.captured.on_cpu else _judge(facts)
        found.append(_of_whole_capture(verdict, facts) if facts.is_whole_capture else verdict)
    places = ranked(action for verdict in found for action in verdict.actions)
    return tuple(evolve(verdict, actions=tuple(places[id(action)] for action in verdict.actions)) for verdict in found)


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
    stage = facts.stage
    budget = budget_of(facts)
    if budget is None:
        return Verdict(
            stage=stage.stage,
            bound="unknown",
            sentence=f"No GPU operation is attributed to {stage.stage}, so nothing can be said of what bounds it.",
            evidence=(f"{stage.instances} instances, {duration(stage.profiled_host_ns)} host time, 0 GPU operations",),
            action="Look at the capture's findings first.",
            ceiling_ns=None,
            ceiling="n/a: no GPU time",
        )
    return _judged(facts, budget)


# --- the budget and its largest terms ------------------------------------------------------------------------------

_PHRASES: Final[dict[TermKey, str]] = {
    "ideal": "{} is what it must move and compute, at peak",
    "kernels": "kernels take {} beyond their ideal time",
    "start": "collectives wait {} at the start of the capture, for which no rank is known to be late",
    "ranks": "collectives take {} beyond their fastest calls, waiting for other ranks or a busy link",
    "transfer": "collectives take {} at their fastest",
    "launching": "the GPU idles {} while the host launches",
    "synchronises": "the GPU idles {} in synchronises and behind them, until it has work again",
    "python": "the GPU idles {} while the host is in Python and the framework",
    "other_calls": "the GPU idles {} while the host is in other CUDA calls",
    "in_graph": "the GPU idles {} between nodes of a CUDA graph",
    "idle": "the GPU idles {}, and what the host did is not known",
}
_IDLES: Final = "the GPU idles "
_UNKNOWN_IDEAL: Final = "kernels run {}, and their ideal time is not known"


def _judged(facts: Facts, budget: Budget) -> Verdict:
    """The largest term is the label, and the next is named with it."""
    actions = actions_of(facts, budget)
    first = budget.label()[0]
    bound = BOUND_BY[first.key] if first.key != "ideal" else _floor(facts)
    action = actions[0] if actions else None
    if action is None:
        ceiling = f"Nothing to save: {_each(facts)}, all of {duration(budget.time_ns)} is the ideal time."
    else:
        ceiling = saves_at_most(action)
        if first.key in ("kernels", "ideal") and "kernels" not in action.terms and len(actions) > 1:
            ceiling += " No single change to its kernels could save more."
    return Verdict(
        stage=facts.stage.stage,
        bound=bound,
        sentence=_sentence(facts, budget, bound),
        evidence=tuple(_evidence(facts, budget)),
        action=action.sentence if action else "Nothing: it runs at its ideal time; only less work would be faster.",
        ceiling_ns=action.ceiling_ns if action else 0,
        ceiling=ceiling,
        budget=budget,
        actions=actions[:FIRST],
    )


def _sentence(facts: Facts, budget: Budget, bound: str) -> str:
    largest = budget.label()
    whole = dict(
        zip((one.key for one in budget.terms), whole_per_cents([one.per_unit_ns for one in budget.terms]), strict=True)
    )
    said: list[str] = []
    for one in largest[:2]:
        phrase = _PHRASES[one.key]
        if one.key == "kernels" and not _ideal_is_known(facts):
            phrase = _UNKNOWN_IDEAL
        if facts.rank_wait is not None and one.key in ("ranks", "transfer"):
            phrase = _of_ranks(facts.rank_wait, one.key)
        text = phrase.format(f"{duration(one.per_unit_ns)} ({whole[one.key]})")
        if not said and one.key in IDLE_TERMS and one is not budget.largest()[0]:
            idle = sum(int(whole[term.key].split()[0]) for term in budget.terms if term.key in IDLE_TERMS)
            text = f"the GPU idles {duration(budget.time_of(*IDLE_TERMS))} ({idle} %) in all, of it {text.removeprefix(_IDLES)}"
        said.append(text)
    busy = f"the GPU works {share(facts.times.busy_share)} of {_the_time(facts)}"
    of = f"of {duration(budget.time_ns)} {_each(facts)}"
    return f"{_subject(facts)} is {bound}: {busy}; {of}{_per_token(facts)}, {'; next, '.join(said)}."


def _of_ranks(waited: RankWait, key: TermKey) -> str:
    """What collectives take, where the other ranks' traces tell waiting from transfer."""
    if key == "transfer":
        return "collectives take {} to transfer"
    late = "another rank" if waited.late_rank is None else f"rank {waited.late_rank}"
    return f"the GPU waits {{}} in collectives for {late}{f', because {waited.cause}' if waited.cause else ''}"


def _ideal_is_known(facts: Facts) -> bool:
    return facts.busy_base is not None and facts.busy_base.ideal_unit_ns is not None


def _floor(facts: Facts) -> str:
    """Which of the two floors makes the ideal time."""
    row = facts.busy_base
    return "memory-bound" if row is not None and (row.mbu or 0.0) >= (row.mfu or 0.0) else "compute-bound"


def _evidence(facts: Facts, budget: Budget) -> list[str]:
    """How the time splits, how busy the GPU was, and what the host did while it was not."""
    stage, gaps, times = facts.stage, facts.gaps, facts.times
    sum_ = " + ".join(f"{exact_ms(one.per_unit_ns)} ({one.label})" for one in budget.terms)
    lines = [_busy_evidence(facts), *_step_evidence(facts), f"{exact_ms(budget.time_ns)} ms {_each(facts)} = {sum_}"]
    if times.unprofiled_ns is not None:
        profiled = part_of(times.busy_ns, times.profiled_ns)
        lines.append(
            f"under the profiler: GPU busy {profiled.part} of {profiled.whole} {_each(facts)} = {profiled.share}"
        )
    if stage.mean_kernel_ns is not None and stage.mean_launch_gap_ns is not None:
        number = times.launches
        shown = count(round(number)) if number >= 10 or number == round(number) else decimal(number, 1)
        per = "" if facts.is_whole_capture else f", {shown} {_each(facts)} (median)"
        lasts = f"a kernel lasts {duration(stage.mean_kernel_ns)}"
        how = f"a launch every {duration(stage.mean_launch_gap_ns)}, {lasts} (means, profiled)"
        if facts.step_kind is not None and facts.step_kind.stalled and number:  # the mean would be that of the stalls
            how = f"in a median step a launch every {duration(times.profiled_ns / number)}; {lasts} (mean), profiled"
        lines.append(f"{count(stage.launches)} launches{per}; {how}")
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
        line = (
            f"while the GPU idled {duration(gaps.total_ns)} in all, profiled, the host was outside CUDA calls {outside} (Python, "
            f"framework), launching {launching}, synchronising {waiting}, in other calls {other}; {drained} was drained by "
            "a synchronise, whatever the host did until the next operation began"
        )
        lines.append(f"{line}; {nodes} lay between nodes of a CUDA graph" if gaps.in_graph_ns else line)
        if times.unprofiled_ns is not None:
            lines.append(
                "the idle time is the unprofiled time less the GPU-busy time; how it splits was measured under the profiler and "
                "scaled: an estimate, for profiling slows CUDA calls and adds ranges to the Python code"
            )
    if stage.queue_delay_median_ns is not None:
        lines.append(
            f"queueing delay (kernel start − launch start), profiled: median {duration(stage.queue_delay_median_ns)}"
        )
    if facts.waits:
        named = ", ".join(
            f"{count(one.calls)} × {one.call} ({one.kind}, {duration(one.total_ns)})" for one in facts.waits[:4]
        )
        lines.append(f"waits: {named}")
    if facts.busy_base is not None and facts.busy_base.mfu is not None:
        lines.append(f"over GPU-busy time: MFU {of_peak(facts.busy_base.mfu)}, MBU {of_peak(facts.busy_base.mbu)}")
    if stage.small_grid_share is not None:
        lines.append(f"kernels with fewer blocks than SMs: {share(stage.small_grid_share)} of kernel time")
    lines += [*_kernel_evidence(facts), *_component_evidence(facts)]
    if facts.communication.kernels:
        sums = facts.communication
        whole = part_of(sums.total_ns, stage.kernel_sum_ns)
        lines.append(f"collectives {whole.part} of {whole.whole} kernel time = {whole.share}")
        if facts.rank_wait is not None:
            at_start = facts.rank_wait.at_start_ns
            waited = part_of(facts.rank_wait.waiting_ns, facts.rank_wait.judged_ns)
            lines.append(
                f"of the collectives' time {waited.part} of {waited.whole} = {waited.share} is waiting, no communication"
                + (f" ({duration(at_start)} at the start of the capture left out)" if at_start else "")
            )
    if stage.gpu.graphs:
        lines.append(
            f"{count(stage.gpu.graphs)} CUDA graphs, {duration(stage.gpu.graph_ns)}, their kernels not traced one by one"
        )
    if times.unprofiled_ns is None and not facts.is_whole_capture:
        lines.append(_without_control(facts))
    return lines


_USUAL_OVERHEAD: Final = {
    "prefill": "an eager prefill took 1.2 to 1.4 times",
    "decode": "an eager decode step took 1.3 to 1.5 times",
    "replayed": "a decode step from a CUDA graph took 1.06 times (graphs as a whole) to 1.6 times (node by node)",
}
"""As docs/capture.md has measured it."""


def _without_control(facts: Facts) -> str:
    replayed = facts.is_decode and 2 * facts.stage.graph_launches >= facts.stage.launches
    usual = _USUAL_OVERHEAD["replayed" if replayed else "decode" if facts.is_decode else "prefill"]
    return (
        "no control run: all shares are of the profiled time, and profiling slows the host, not the kernels; where that was "
        f"measured (docs/capture.md), {usual} as long under the profiler"
    )


_TOP: Final = 4


def _kernel_evidence(facts: Facts) -> list[str]:
    """Which modules and which categories the kernels' time goes to."""
    times = facts.rows.values("total_ns")
    total = sum(times)
    if not total:
        return []
    lines = []
    for what in ("module", "category"):
        sums: dict[str, int] = {}
        for name, time_ns in zip(facts.rows.values(what), times, strict=True):
            sums[name] = sums.get(name, 0) + time_ns
        most = sorted(sums.items(), key=lambda item: -item[1])[:_TOP]
        if len(sums) > 1:
            told = ", ".join(f"{name} {share(ns / total)}" for name, ns in most)
            lines.append(f"kernel time ({duration(total)} in all) by {what}: {told}")
    return lines


_OVER: Final = ", above 100 %: less had to move than the cost assumes, which draws experts evenly"


def _component_evidence(facts: Facts) -> list[str]:
    """What each part of the model reaches, the slowest first."""
    uses = sorted(component_uses(facts), key=lambda one: -one.time_ns)
    if not uses:
        return []
    told = "; ".join(
        f"{one.label} {ratio(one.floor_ns / one.time_ns)} of peak {'bandwidth' if one.by_bytes else 'FLOP/s'} "
        f"({duration(one.time_ns)}{_OVER if one.floor_ns > one.time_ns else ''})"
        for one in uses
        if one.time_ns
    )
    return [f"matrix kernels against what they must move or compute, {_each(facts)}: {told}"]


def _busy_evidence(facts: Facts) -> str:
    times = facts.times
    busy = part_of(times.busy_ns, times.time_ns)
    where = " without the profiler" if times.unprofiled_ns is not None else ""
    medians = "" if facts.is_whole_capture else f" (medians of {count(times.instances)})"
    shown = f"{busy.share}, cut from more: {times.capped_because}" if times.capped_because else busy.share
    return f"GPU busy {busy.part} of {busy.whole} {_each(facts)}{where} = {shown}{medians}"


# --- no GPU, no stages --------------------------------------------------------------------------------------------


def _on_cpu(facts: Facts) -> Verdict:
    """A CPU run shows shares of operators, not what a GPU would be bound by."""
    stage, times = facts.stage, facts.times
    if not stage.busy_ns:
        return Verdict(
            stage=stage.stage,
            bound="unknown",
            sentence=f"{_subject(facts)} ran on a CPU, where this profiler records no operators: host times only.",
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
            f"{_subject(facts)} ran on a CPU: operators fill {share(times.busy_share)} of {_the_time(facts)}{largest}. "
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


def _subject(facts: Facts) -> str:
    """What the verdict is about, at the begin of its sentence."""
    if not facts.of_steps:
        return _SUBJECT[facts.stage.stage]
    kind = facts.stage.stage
    return "A step" if kind == "step" else f"{'An' if kind[0] in 'aeiou' else 'A'} {kind} step"


def _per_token(facts: Facts) -> str:
    """The second unit of an engine's step: what it takes per token, over the steps of the kind that do not stall."""
    row = facts.step_kind
    if row is None or row.per_token_ns is None:
        return ""
    return f" ({duration(row.per_token_ns)} a token over {counted(row.steps - row.stalled, 'step')})"


def _step_evidence(facts: Facts) -> list[str]:
    """What an engine's steps held, what they found when they began, and the bounds of a mixed step's parts."""
    row = facts.step_kind
    if row is None:
        return []
    lines = []
    if row.requests is not None:
        tokens = f", {count(row.tokens)} tokens" if row.tokens is not None else ""
        lines.append(f"{counted(row.steps, 'step')} with {count(row.requests)} requests{tokens} in all")
    if row.between_median_ns is not None:
        queued = (
            f"work of earlier ones for {duration(row.queued_median_ns)} more"
            if row.queued_median_ns
            else "nothing left to do"
        )
        lines.append(
            f"when a step began, the GPU had {queued}; between the ranges of two steps the host took "
            f"{duration(row.between_median_ns)} (medians, profiled)"
        )
    if row.decode_part_at_most_ns is not None:
        lines.append(
            f"of the GPU-busy time of a mixed step its running requests take at most {duration(row.decode_part_at_most_ns)}, and "
            f"its prompts at least {duration(row.prefill_part_at_least_ns)}: bounds by decode steps with about as many requests, "
            f"medians of {count(row.bounded_steps)} of {count(row.steps)} steps"
        )
    return lines


def _the_time(facts: Facts) -> str:
    """What the busy share is a share of."""
    return f"the {facts.times.busy_share_base} time"


def _each(facts: Facts) -> str:
    return "in all" if facts.is_whole_capture else f"per {facts.times.per}"
