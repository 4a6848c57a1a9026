"""Tables of the verdict: the budget of each stage, term by term, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import frozen

from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import COUNT, DURATION, EXACT_MS, NAME, SHARE, TEXT, Column, Specification
from analysis.verdict.records import Action, BudgetTerm, Verdict

__all__ = ["ACTIONS", "BUDGET", "BudgetLine", "budget_lines"]


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
           shown=("html", "markdown")),
        _B("arithmetic", "Arithmetic", "string", TEXT, "How the time was found.", value=lambda row: row.term.arithmetic,
           shown=("html", "markdown"), priority=7),
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


_A = Column[Action]

ACTIONS: Final = Specification[Action](
    key="actions",
    title="First actions",
    rows="Something to do about a stage, with the most that it could bring.",
    columns=(
        _A("rank", "Rank", "int64", COUNT, "Place among the actions of all stages, by what a pass could save.", priority=1),
        _A("stage", "Stage", "string", TEXT, GLOSSARY["stage"], priority=2),
        _A("sentence", "What to do", "string", TEXT, "What to do, where, and why.", priority=0),
        _A("ceiling_per_unit_ns", "At most each", "float64", DURATION, "The most that it saves of one image or token."),
        _A("per", "Per", "string", TEXT, "What that is given per.", priority=3),
        _A("ceiling_ns", "At most a pass", "int64", DURATION, "The most that it saves over one pass through the inputs. "
           "Ceilings of different actions may overlap.", apart="what one action saves another cannot save again"),
        _A("arithmetic", "Arithmetic", "string", TEXT, "Where the ceiling comes from.", shown=("html", "markdown")),
        _A("kind", "Kind", "string", TEXT, "Stable name of the rule that found it.", shown=()),
        _A("modules", "Modules", "string", NAME, "Modules that it concerns.", value=lambda row: ", ".join(row.modules),
           shown=()),
        _A("kernels", "Kernels", "string", TEXT, "Kernels that it concerns, in words.",
           value=lambda row: "; ".join(row.kernels), shown=()),
    ),
    note="By what they could bring; ceilings of different actions may overlap, and none is a forecast.",
)  # fmt: skip
