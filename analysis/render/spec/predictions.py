"""What an earlier run of the same work predicted, and what came: one table, and its sentences."""

from __future__ import annotations

from typing import Final

from analysis.domain.predictions import WHOLE, Scored
from analysis.render.spec.specification import DURATION, NAME, RATIO, TEXT, Column, Specification
from analysis.render.spec.text import visible
from analysis.report import Report

__all__ = ["PREDICTIONS", "sentences"]


def _stage(row: Scored) -> str:
    return "all stages" if row.prediction.stage == WHOLE else row.prediction.stage


def _why(row: Scored) -> str | None:
    return row.sentence if row.came_ns is None else None


_P = Column[Scored]

PREDICTIONS: Final = Specification[Scored](
    key="predictions",
    title="What was predicted, and what came",
    rows="What the last run of the same model, inputs and device before this one said that could be gained at best, and what "
    "this run came to.",
    columns=(
        _P("stage", "Stage", "string", TEXT, "The stage, or all stages of one unit of work.", value=_stage, priority=0),
        _P("action", "What was to be done", "string", TEXT, "What that run said was to be done first.",
           value=lambda row: row.prediction.action, priority=2),
        _P("was_ns", "Was", "int64", DURATION, "Time of one unit in that run.", value=lambda row: row.prediction.was_ns,
           priority=1),
        _P("best_ns", "At best", "int64", DURATION, "What the action would leave of it at best.",
           value=lambda row: row.prediction.best_ns, priority=0),
        _P("came_ns", "Came", "float64", DURATION, "Time of one unit in this run, on the same time base.", nullable=True,
           why=_why, priority=0),
        _P("per", "Per", "string", TEXT, "The unit of work that the times are of.",
           value=lambda row: row.prediction.unit, priority=1),
        _P("share", "Of the gain", "float64", RATIO, "Part of the predicted gain that came: (was − came) ÷ (was − at best). More "
           "than 100 %: better than at best, so the bound was wrong or something else changed too. Below 0: slower than before.",
           nullable=True, why=_why, priority=0),
        _P("outcome", "Outcome", "string", TEXT, "Partly (0 to 100 % of the gain), better than at best, slower, or not "
           "comparable.", priority=3),
        _P("cause", "Cause", "string", TEXT, "What bound the stage in that run.", value=lambda row: row.prediction.cause,
           shown=("html",), priority=4),
        _P("changed", "Changed since", "string", TEXT, "What is recorded to differ between the two runs; empty: nothing.",
           value=lambda row: "; ".join(row.prediction.changed), shown=("html",), priority=4),
        _P("time_base", "Of the time", "string", TEXT, "Unprofiled, profiled, or mixed.",
           value=lambda row: row.prediction.time_base, shown=()),
        _P("run_id", "Run", "string", NAME, "That run.", value=lambda row: row.prediction.run_id, shown=()),
        _P("made_at", "Made", "string", TEXT, "When that run was made.", value=lambda row: row.prediction.made_at, shown=()),
        _P("sentence", "In words", "string", TEXT, "The prediction and its outcome, as a sentence.", shown=()),
    ),
    note="A prediction is a bound on what one action could gain, alone. What came is of all that was changed since.",
)  # fmt: skip


def sentences(report: Report) -> tuple[str, ...]:
    """Prediction and outcome, a sentence or two each; the whole unit of work first. Empty: no earlier run is known."""
    return tuple(visible(row.sentence) for row in report.predictions)
