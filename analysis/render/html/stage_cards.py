"""What the first screen says of each stage: where its time goes, why, what to do first, and what that brings."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from analysis.domain.figures import duration, share, whole_per_cents
from analysis.render.pictures.palette import STAGE_COLOURS, part_of_term, text_on
from analysis.render.spec.headline import StageNumbers, stage_numbers
from analysis.render.spec.text import visible
from analysis.report import Report
from analysis.sums.stages import WHOLE_CAPTURE
from analysis.verdict.ranking import Ranking
from analysis.verdict.records import Budget, Verdict

__all__ = ["StageCard", "Term", "stage_cards"]

_LEAST: Final = 0.005
"""Of a bar, what is still drawn and listed."""


@frozen
class Term:
    """One part of the bar."""

    kind: str
    """Its colour: a key of `analysis.render.pictures.palette.PARTS`."""
    face: str
    """Colour of the text on it."""
    label: str
    time: str
    per_cent: str
    """As a whole number; those of a bar add up to 100."""
    part: float
    """Of the bar, from 0 to 1."""

    @property
    def shown(self) -> bool:
        """Whether it is large enough to be seen; all are in the table of the budget."""
        return self.part >= _LEAST


@frozen
class StageCard:
    """One stage, as texts."""

    stage: str
    kind: str
    """Its colour: a key of `analysis.render.pictures.palette.STAGE_COLOURS`."""
    bound: str
    time: str
    """Of one unit of the stage's work; empty: not known."""
    per: str
    of_unit: str
    """Its part of one unit of work, such as a page; empty: not known, or it is all of it."""
    busy: str
    """How much of that the GPU was busy; empty: not known."""
    terms: tuple[Term, ...]
    """Those that take time, in the order of reading; none: there is no budget."""
    sentence: str
    action: str
    ceiling: str
    evidence: tuple[str, ...]


def stage_cards(report: Report) -> tuple[StageCard, ...]:
    """The stages that have a verdict, in its order."""
    numbers = {row.stage: row for row in stage_numbers(report)}
    return tuple(_card(report, verdict, numbers.get(verdict.stage)) for verdict in report.verdicts)


def _card(report: Report, verdict: Verdict, numbers: StageNumbers | None) -> StageCard:
    times = next((times for times in report.unit_times if times.stage == verdict.stage), None)
    budget = verdict.budget
    each = "in all" if verdict.stage == WHOLE_CAPTURE else f"per {budget.per}" if budget else ""
    return StageCard(
        stage="The whole capture" if verdict.stage == WHOLE_CAPTURE else visible(verdict.stage).capitalize(),
        kind=verdict.stage if verdict.stage in STAGE_COLOURS else "neither",
        bound=visible(verdict.bound),
        time=duration(budget.time_ns) if budget else "",
        per=f"{each}, {budget.time_base}" if budget else "",
        of_unit=f"{numbers.time} of {_whole(report.ranking)} ({share(numbers.share)})"
        if numbers and numbers.share < 1
        else "",
        busy=share(times.busy_share) if times is not None and times.busy_share is not None else "",
        terms=_terms(budget) if budget else (),
        sentence=visible(verdict.sentence),
        action=visible(verdict.action),
        ceiling=visible(verdict.ceiling),
        evidence=tuple(map(visible, verdict.evidence)),
    )


def _whole(ranking: Ranking) -> str:
    """What the stage's time is a part of."""
    if ranking.unit != "capture":
        return ranking.per
    return "all steps that do not stall" if ranking.stalls else "the capture"


def _terms(budget: Budget) -> tuple[Term, ...]:
    per_cents = whole_per_cents([term.per_unit_ns for term in budget.terms])
    return tuple(
        Term(
            kind=part_of_term(term.key),
            face=text_on(part_of_term(term.key)),
            label=visible(term.label),
            time=duration(term.per_unit_ns),
            per_cent=per_cent,
            part=term.share,
        )
        for term, per_cent in zip(budget.terms, per_cents, strict=True)
        if term.per_unit_ns
    )
