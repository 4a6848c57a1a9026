"""Tables of the verdict: the budget of each stage, term by term, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import frozen

from analysis.domain.figures import fall
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import COUNT, DURATION, EXACT_MS, NAME, SHARE, TEXT, Column, Specification
from analysis.verdict.ranking import Gain, Ranking
from analysis.verdict.records import BudgetTerm, Verdict

__all__ = ["ACTIONS", "BUDGET", "BudgetLine", "actions_note", "budget_lines"]


@frozen
class BudgetLine:
    """A term of the budget of one stage."""

    stage: str
    per: str
    time_base: str
    term: BudgetTerm


_B = Column[BudgetLine]

BUDGET: Final = Specification[BudgetLine](
    key="budget",
    title="Budget",
    rows="A term of a stage's time: those of a stage add up to the time of one image or token, to the nanosecond.",
    columns=(
        _B("label", "Where the time goes", "string", TEXT, "What the time is spent on.", value=lambda row: row.term.label,
           priority=0),
        _B("stage", "Stage", "string", TEXT, GLOSSARY["stage"], shown=()),
        _B("per", "Per", "string", TEXT, "What the time is given per.", priority=5),
        _B("time_base", "Of the time", "string", TEXT, "Unprofiled, where a control run measured it; else profiled.", priority=6),
        _B("term", "Term", "string", TEXT, "Stable name of the term.", value=lambda row: row.term.key, shown=()),
        _B("per_unit_ns", "Time", "int64", EXACT_MS, "Time of one image or token.",
           value=lambda row: row.term.per_unit_ns, adds=True, within="stage"),
        _B("share", "Share", "float64", SHARE, "Of the time of one image or token.", value=lambda row: row.term.share,
           adds=True, within="stage"),
        _B("ceiling_ns", "At most", "int64", EXACT_MS, "What removing its cause saves at most; nothing of the ideal time.",
           value=lambda row: row.term.ceiling_ns, nullable=True, priority=4, why=lambda _: "the ideal time is not known"),
        _B("how", "How", "string", TEXT, "Measured: read from the trace. Scaled: its part of the idle time was measured under "
           "the profiler, and applied to the idle time without it. Computed: from what must be moved and computed, at peak.",
           value=lambda row: row.term.how, priority=3),
        _B("action", "What helps", "string", TEXT, "What makes the term smaller.", value=lambda row: row.term.action,
           shown=("html",)),
        _B("arithmetic", "Arithmetic", "string", TEXT, "How the time was found.", value=lambda row: row.term.arithmetic,
           shown=("html",), priority=7),
    ),
    note="The terms add up to the time of one image or token. The split of the idle time is told by what the host did while "
    "the GPU was idle.",
)  # fmt: skip


def budget_lines(verdicts: Iterable[Verdict]) -> tuple[BudgetLine, ...]:
    """The terms of all stages that have a budget, stage by stage."""
    return tuple(
        BudgetLine(verdict.stage, verdict.budget.per, verdict.budget.time_base, term)
        for verdict in verdicts
        if verdict.budget is not None
        for term in verdict.budget.terms
    )


def _arithmetic(gain: Gain) -> str:
    """Of the one stage, or of each."""
    if len(gain.actions) == 1:
        return gain.action.arithmetic
    return "; ".join(f"{action.stage}: {action.arithmetic}" for action in gain.actions)


_A = Column[Gain]

ACTIONS: Final = Specification[Gain](
    key="actions",
    title="What to do, ranked",
    rows="Something to do about a stage, with the most that it could bring.",
    columns=(
        _A("rank", "Rank", "int64", COUNT, "Place among the actions of all stages, by what a pass could save.",
           priority=0),
        _A("stage", "Stage", "string", TEXT, GLOSSARY["stage"], value=lambda row: row.stages, priority=0,
           shown=("html", "markdown")),
        _A("stages", "Stage", "string", TEXT, GLOSSARY["stage"], data=False, shown=("terminal",), priority=0,
           value=lambda row: row.action.stage + (f" +{len(row.actions) - 1}" if len(row.actions) > 1 else "")),
        _A("short", "What to do", "string", TEXT, "What to do, in a few words.", value=lambda row: row.action.short,
           shown=("terminal",), priority=0),
        _A("sentence", "What to do", "string", TEXT, "What to do, where, and why.", value=lambda row: row.action.sentence,
           shown=("html", "markdown"), priority=0),
        _A("ceiling_per_unit_ns", "At most each", "float64", DURATION, "The most that it saves of one image or token, in the "
           "stage where that brings most.",
           value=lambda row: row.action.ceiling_per_unit_ns if row.saves_ns else 0.0, priority=3, shown=("terminal", "html")),
        _A("per", "Per", "string", TEXT, "What that is given per.", value=lambda row: row.action.per, priority=3,
           shown=("terminal", "html")),
        _A("ceiling_ns", "At most a pass", "int64", DURATION, "The most that it saves over one pass through the inputs. "
           "Ceilings of different actions may overlap.", shown=(),
           value=lambda row: sum(action.ceiling_ns for action in row.actions) if row.saves_ns else 0,
           apart="what one action saves another cannot save again"),
        _A("saves_ns", "At most", "int64", DURATION, "The most that it saves of one unit of work, such as a page: 0 where it "
           "saves nothing by itself.", priority=1, shown=("terminal",), apart="what one action saves another cannot save again"),
        _A("saves_share", "Of it", "float64", SHARE, "That, of the unit of work.", priority=0, shown=("terminal",),
           value=lambda row: row.saves_ns / (row.saves_ns + row.best_ns) if row.saves_ns + row.best_ns else 0.0,
           apart="what one action saves another cannot save again"),
        _A("best_ns", "Best time", "int64", DURATION, "What is left of the unit of work at best.", priority=4, shown=()),
        _A("brings", "End to end", "string", TEXT, "What it brings to one unit of work at most, in words.",
           value=lambda row: row.sentence, shown=("html", "markdown")),
        _A("arithmetic", "Arithmetic", "string", TEXT, "Where the ceiling comes from.",
           value=_arithmetic, shown=("html", "markdown")),
        _A("kind", "Kind", "string", TEXT, "Stable name of the rule that found it.", value=lambda row: row.action.kind, shown=()),
        _A("modules", "Modules", "string", NAME, "Modules that it concerns.",
           value=lambda row: ", ".join(dict.fromkeys(name for action in row.actions for name in action.modules)),
           shown=()),
        _A("kernels", "Kernels", "string", TEXT, "Kernels that it concerns, in words.",
           value=lambda row: "; ".join(dict.fromkeys(name for action in row.actions for name in action.kernels)), shown=()),
    ),
)  # fmt: skip


def actions_note(ranking: Ranking) -> str:
    """What stands below the ranked actions: that ceilings overlap, and what all of them leave."""
    if not ranking.time_ns or ranking.best_ns is None or not any(gain.saves_ns for gain in ranking.gains):
        return ""
    left = fall(ranking.time_ns, ranking.best_ns)
    return (
        f"At most, not a forecast; they overlap, so they do not add up: all together {left.before} → {left.after} "
        f"{ranking.per} at best ({left.per_cent})."
    )
