"""Where to start, and what it brings end to end: the actions of all stages, on one base.

A verdict gives what an action saves of one unit of its stage: an image of prefill, a token of decode. Here each is brought to
one unit of work, which is all that its user waits for: a page with its prefill and all its decode steps; a request or a batch;
the whole capture where nothing says what belongs together. Savings are ceilings. Two that take from the same part of a budget
are never added up, and what is left is never less than the parts of the budget that no action touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from attrs import evolve, frozen

from analysis.domain.figures import counted, duration, fall, part_of, together
from analysis.efficiency.records import Captured, Measured, UnitTimes
from analysis.quality.findings import Finding
from analysis.sums.stages import WHOLE_CAPTURE
from analysis.verdict.records import Action, TermKey, Verdict

__all__ = ["Gain", "Ranking", "WorkPart", "WorkUnit", "parts_in_words", "ranking_of"]

WorkUnit: TypeAlias = Literal["page", "request", "batch", "capture"]
_PER: Final[dict[WorkUnit, str]] = {
    "page": "a page", "request": "a request", "batch": "a batch", "capture": "for the whole capture",
}  # fmt: skip
_MUCH: Final = 0.2
"""Of the capture in steps that stall: they are what to begin with."""
_SAVES_NOTHING: Final = "hidden kernels"
"""The kind of action that shows what there is to save, and saves nothing by itself."""


@frozen
class WorkPart:
    """What one stage takes of one unit of work."""

    stage: str
    time_ns: int
    """Mean over the images, each by its median over the passes."""
    per: str
    """The stage's own unit: ``image``, ``token`` …"""
    units: float
    """So many of them make up its part of the unit of work, by time."""
    time_base: Literal["unprofiled", "profiled"]


@frozen
class Gain:
    """Something to do, and what it brings end to end at most."""

    rank: int
    """From 1: what could bring most first, a module's known cause before its other data movement."""
    actions: tuple[Action, ...]
    """The same thing to do, one for each stage that it is found in, the one that could bring most first."""
    saves_ns: int
    """Of one unit of work, at most; 0: it saves nothing by itself, and shows what ``concerns_ns`` is made of."""
    concerns_ns: int
    """Time of one unit of work that it looks at: its ceiling."""
    best_ns: int
    """What is left of the unit of work: ``time_ns`` − ``saves_ns``. A bound, not a forecast."""
    sentence: str
    """What it brings, in words: ``1,791 → 256 ms a page at best (at most −86 %)``."""

    @property
    def action(self) -> Action:
        """That which could bring most."""
        return self.actions[0]

    @property
    def stages(self) -> str:
        """Stages that it is found in: ``decode``, ``decode and mixed``."""
        *others, last = (action.stage for action in self.actions)
        return f"{', '.join(others)} and {last}" if others else last


@frozen
class Ranking:
    """What to do over the whole run, what could bring most first."""

    sentence: str
    """Where to start and what it brings: the first sentence of every output."""
    unit: WorkUnit
    """What a user waits for: a page (its prefill and its decode), a request, a batch, or the whole capture."""
    time_base: Literal["unprofiled", "profiled", "mixed"]
    """``mixed``: a control run measured some of the stages only."""
    time_ns: int | None
    """One unit of work, all stages; None: not known, or the capture is unfit."""
    parts: tuple[WorkPart, ...]
    """Its stages; they add up to ``time_ns``."""
    gains: tuple[Gain, ...]
    """In the order of their ranks."""
    best_ns: int | None
    """What is left if every action brought all that it can, each part of the budget counted once; None as ``time_ns``."""
    stalls: tuple[tuple[str, int], ...] = ()
    """Steps of an engine that stall, with their time, ns, longest first: neither ``time_ns`` nor a gain holds them."""
    of_steps: int = 0
    """Steps of the engine, those that stall among them."""

    @property
    def per(self) -> str:
        """``a page``, ``a request``, ``a batch``, ``for the whole capture``, ``without the 4 stalled steps``."""
        if self.stalls and self.unit == "capture":
            number = len(self.stalls)
            return "without the stalled step" if number == 1 else f"without the {number} stalled steps"
        return _PER[self.unit]


def ranking_of(measured: Measured, verdicts: Sequence[Verdict], findings: Sequence[Finding] = ()) -> Ranking:
    """Bring the actions of all stages to one unit of work.

    Args:
        measured: the stages and what a unit of their work takes.
        verdicts: of these stages, their actions ranked over the run.
        findings: of the capture; one of severity ``unfit`` leaves nothing to rank.
    """
    unit, inputs = _unit_of_work(measured.captured, measured.unit_times)
    unfit = next((finding for finding in findings if finding.severity == "unfit"), None)
    parts = () if unfit else tuple(_part(times, inputs) for times in measured.unit_times)
    bases = {part.time_base for part in parts}
    ranking = Ranking(
        sentence="",
        unit=unit,
        time_base="mixed" if len(bases) > 1 else next(iter(bases), "profiled"),
        time_ns=sum(part.time_ns for part in parts) if parts else None,
        parts=parts,
        gains=(),
        best_ns=None,
        stalls=() if unfit else tuple((step.path, step.profiled_ns) for step in measured.captured.stalls()),
        of_steps=sum(instance.composition is not None for instance in measured.captured.instances),
    )
    if unfit:
        sentence = f"Start with a new capture: this one is unfit for conclusions ({unfit.title})."
        return evolve(ranking, sentence=sentence)
    if ranking.time_ns:
        ranking = _with_gains(ranking, inputs, verdicts)
    return evolve(ranking, sentence=_sentence(ranking, verdicts))


def _unit_of_work(captured: Captured, unit_times: Sequence[UnitTimes]) -> tuple[WorkUnit, int]:
    """What belongs together for whoever waits, and how many of it one pass holds.

    Pages are known by ranges around them; requests by each stage having run equally often, decode as loops of steps.
    """
    stages = [times for times in unit_times if times.stage != WHOLE_CAPTURE]
    instances = [instance for times in stages for instance in captured.counted(times.stage)]
    if not instances:
        return "capture", 1
    inputs = max(times.inputs for times in stages)
    alone: WorkUnit = "page" if captured.one_input == "image" else "request"
    if all(instance.image_index is not None for instance in instances):
        return "batch" if captured.batch_size > 1 else alone, inputs
    loops = any(instance.steps for instance in instances)
    if len({times.inputs for times in stages}) == 1 and (loops or inputs == 1):
        return "batch" if captured.batch_size > 1 else "request", inputs
    return "capture", 1


def _part(times: UnitTimes, inputs: int) -> WorkPart:
    return WorkPart(
        stage=times.stage,
        time_ns=round(times.pass_time_ns / inputs),
        per=times.per,
        units=times.pass_time_ns / times.time_ns / inputs if times.time_ns else 0.0,
        time_base="profiled" if times.pass_unprofiled_ns is None else "unprofiled",
    )


def _with_gains(ranking: Ranking, inputs: int, verdicts: Sequence[Verdict]) -> Ranking:
    """Add what each action brings, and what all of them leave."""
    whole = ranking.time_ns or 0
    of_stage = {part.stage: part.time_ns for part in ranking.parts}
    every = [action for verdict in verdicts for action in verdict.actions]
    concerns = {id(action): min(round(action.ceiling_ns / inputs), of_stage[action.stage]) for action in every}
    saves = {id(action): 0 if action.kind == _SAVES_NOTHING else concerns[id(action)] for action in every}
    gains = []
    for place, actions in enumerate(_same_actions(every, concerns)):
        saved, looked_at = (sum(amounts[id(action)] for action in actions) for amounts in (saves, concerns))
        gains.append(
            Gain(place + 1, tuple(actions), saved, looked_at, whole - saved, _brings(ranking, saved, looked_at))
        )
    most = sum(_most(verdict, saves, of_stage[verdict.stage]) for verdict in verdicts if verdict.stage in of_stage)
    return evolve(ranking, gains=tuple(gains), best_ns=whole - most)


def _same_actions(every: Sequence[Action], concerns: dict[int, int]) -> list[list[Action]]:
    """Actions by what they could bring, those of different stages that are one thing to do together."""
    causes = {(action.stage, action.modules): concerns[id(action)] for action in every if action.kind == "materialised"}

    def weight(action: Action) -> int:
        own = concerns[id(action)]
        return min(own, causes.get((action.stage, action.modules), own)) if action.kind == "data movement" else own

    groups: list[list[Action]] = []
    for action in sorted(every, key=lambda action: -weight(action)):
        same = (
            group
            for group in groups
            if (group[0].kind, group[0].short) == (action.kind, action.short)
            and action.stage not in {member.stage for member in group}
        )
        group = next(same, None)
        if group is None:
            groups.append([action])
        else:
            group.append(action)
    return sorted(groups, key=lambda group: (-sum(map(weight, group)), group[0].kind == "data movement", group[0].rank))


def _most(verdict: Verdict, saves_of: dict[int, int], part: int) -> int:
    """What all actions of a stage save together: of terms that several take from no more than there is of them."""
    budget = verdict.budget
    if budget is None or not budget.time_ns:
        return 0
    groups: list[tuple[set[TermKey], int]] = []
    for action in verdict.actions:
        terms, saves = set(action.terms), saves_of[id(action)]
        if not saves:
            continue
        for group in [group for group in groups if group[0] & terms]:
            groups.remove(group)
            terms, saves = terms | group[0], saves + group[1]
        groups.append((terms, saves))
    return min(part, sum(min(saves, part * budget.time_of(*terms) // budget.time_ns) for terms, saves in groups))


def _brings(ranking: Ranking, saves: int, concerns: int) -> str:
    whole = ranking.time_ns or 0
    base = {"unprofiled": "", "profiled": ", profiled", "mixed": ", in part profiled"}[ranking.time_base]
    if not saves:
        hidden = part_of(concerns, whole)
        seeing = "seeing them (--preset cuda-graph-nodes) saves nothing by itself"
        return f"these are {hidden.part} of {hidden.whole} {ranking.per}{base}; {seeing}"
    shown = fall(whole, whole - saves)
    return f"{shown.before} → {shown.after} {ranking.per} at best (at most {shown.per_cent}{base})"


def _sentence(ranking: Ranking, verdicts: Sequence[Verdict]) -> str:
    """Where to start and what it brings, end to end."""
    if not ranking.gains:
        action = next((verdict.action for verdict in verdicts if verdict.action), None)
        return f"Start here: {action}" if action else "Start with a new capture: no operation of a GPU is in this one."
    first = ranking.gains[0]
    said = f"{_start(first)}: {first.action.short}: {first.sentence}."
    held_up = sum(ns for _, ns in ranking.stalls)
    whole = held_up + (ranking.time_ns or 0)
    if held_up >= _MUCH * whole:
        shown = part_of(held_up, whole)
        many = "stalls" if len(ranking.stalls) == 1 else "stall"
        said = (
            f"Start with a warm-up: {len(ranking.stalls)} of {counted(ranking.of_steps, 'step')} {many}, "
            f"{shown.part} of {shown.whole}. Then {said.removeprefix('Start with ')}"
        )
    then = next((gain for gain in ranking.gains if gain.saves_ns), None)
    if first.saves_ns or then is None:
        return said
    return f"{said} What could save most so far, in {then.stages}: {then.action.short}: {then.sentence}."


def _start(gain: Gain) -> str:
    return "Start here" if gain.action.stage == WHOLE_CAPTURE else f"Start with {gain.stages}"


def parts_in_words(ranking: Ranking) -> str:
    """One unit of work as the sum of its stages, in one unit: ``1,791 ms a page = prefill 100 ms + decode 1,691 ms``."""
    if not ranking.time_ns:
        return ""
    shown = together([part.time_ns for part in ranking.parts])
    base = {"unprofiled": "unprofiled", "profiled": "profiled", "mixed": "in part profiled"}[ranking.time_base]
    if len(ranking.parts) == 1:
        return f"{duration(ranking.time_ns)} {ranking.per}, {base}"
    terms = " + ".join(f"{part.stage} {text}" for part, text in zip(ranking.parts, shown.parts, strict=True))
    return f"{shown.whole} {ranking.per}, {base} = {terms}"
