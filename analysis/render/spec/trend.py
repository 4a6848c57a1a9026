"""Times of runs over time: the tables, and what is said of a line in words."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Final

from attrs import frozen

from analysis.domain.figures import change, counted, duration, signed_ratio
from analysis.domain.trend import LevelChange, StageTrend, Trend, TrendPoint, TrendRun, WorkTrend
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import COUNT, DURATION, NAME, TEXT, Column, Specification, Style
from analysis.render.spec.text import visible

__all__ = [
    "TREND_CHANGES",
    "TREND_RUNS",
    "WHY_IN_NO_LINE",
    "ChangeLine",
    "RunLine",
    "change_lines",
    "change_words",
    "moment",
    "run_lines",
    "sentence",
    "stage_sentence",
]

WHY_IN_NO_LINE: Final = "failed, without unprofiled times of the stages asked for, or of work that is not known"
"""What runs are that no line holds."""

_FEWEST: Final = 6
"""Runs from which on a change of level can be told: three on either side."""
_SIGNED: Final = Style("signed_ratio", signed_ratio)


@frozen
class RunLine:
    """One stage of one run."""

    run: TrendRun
    stage: StageTrend
    point: TrendPoint


@frozen
class ChangeLine:
    """One change of level of one stage."""

    stage: StageTrend
    run: TrendRun
    """The first of the new level."""
    change: LevelChange


def moment(when: datetime) -> str:
    """``2026-11-24 18:37``, UTC."""
    return f"{when:%Y-%m-%d %H:%M}"


_R = Column[RunLine]

TREND_RUNS: Final = Specification[RunLine](
    key="trend_runs",
    title="Runs",
    rows="A stage of a recorded run, its times measured without the profiler.",
    columns=(
        _R("started_at", "Started, UTC", "string", TEXT, "When the run began.", value=lambda row: moment(row.run.started_at),
           priority=0),
        _R("run_id", "Run", "string", NAME, "The recorded run.", value=lambda row: row.run.run_id, shown=("html",), priority=1),
        _R("stage", "Stage", "string", TEXT, GLOSSARY["stage"], value=lambda row: row.stage.stage, shown=("markdown",)),
        _R("per", "Per", "string", TEXT, "The unit that a run's times are given per.", value=lambda row: row.stage.per, shown=()),
        _R("median_ns", "Median", "float64", DURATION, "Median of the repetitions, of one unit.",
           value=lambda row: row.point.median_ns, priority=0),
        _R("low_ns", "From", "float64", DURATION, "The median lies above this with 97.5 %: the lower end of its interval, by order "
           "statistics.", value=lambda row: row.point.low_ns, nullable=True, priority=2,
           why=lambda _: "fewer than six repetitions tell no interval"),
        _R("high_ns", "To", "float64", DURATION, "The median lies below this with 97.5 %: the upper end of its interval.",
           value=lambda row: row.point.high_ns, nullable=True, priority=2,
           why=lambda _: "fewer than six repetitions tell no interval"),
        _R("samples", "Repetitions", "int64", COUNT, "Raw samples that were recorded.",
           value=lambda row: len(row.point.samples_ns), priority=3),
        _R("changed", "Changed since the run before", "string", TEXT, "What differs from the run before it in how the work was "
           "done: decode mode, options, versions, driver, commit.", value=lambda row: "; ".join(row.run.changed), priority=1),
    ),
)  # fmt: skip

_C = Column[ChangeLine]

TREND_CHANGES: Final = Specification[ChangeLine](
    key="trend_changes",
    title="Changes of level",
    rows="A run from which on the times of a stage have another level than before.",
    columns=(
        _C("stage", "Stage", "string", TEXT, GLOSSARY["stage"], value=lambda row: row.stage.stage, priority=0),
        _C("started_at", "From", "string", TEXT, "When the first run of the new level began.",
           value=lambda row: moment(row.run.started_at), priority=0),
        _C("run_id", "Run", "string", NAME, "The first run of the new level.", value=lambda row: row.run.run_id,
           shown=("html",), priority=2),
        _C("before_ns", "Before", "float64", DURATION, "Median of the runs' medians from the change before to this one.",
           value=lambda row: row.change.before_ns, priority=0),
        _C("after_ns", "After", "float64", DURATION, "Median of the runs' medians from this change to the next.",
           value=lambda row: row.change.after_ns, priority=0),
        _C("per", "Per", "string", TEXT, "The unit that the levels are given per.", value=lambda row: row.stage.per, priority=2),
        _C("relative", "Difference", "float64", _SIGNED, "after ÷ before − 1.", value=lambda row: row.change.relative, priority=0),
        _C("low", "At least", "float64", _SIGNED, "Lower end of the interval of the difference, by ranks (95 %; of three runs "
           "against three 90 %).", value=lambda row: row.change.low, priority=1),
        _C("high", "At most", "float64", _SIGNED, "Upper end of the interval of the difference.",
           value=lambda row: row.change.high, priority=1),
        _C("runs_before", "Runs before", "int64", COUNT, "Runs of the level before.", value=lambda row: row.change.runs_before,
           priority=3),
        _C("runs_after", "Runs after", "int64", COUNT, "Runs of the level after.", value=lambda row: row.change.runs_after,
           priority=3),
        _C("changed", "Changed there", "string", TEXT, "What differs between that run and the one before it; empty: nothing that "
           "is recorded.", value=lambda row: "; ".join(row.run.changed), priority=1),
    ),
    note="Found by penalised least absolute deviations of the logarithms; a level is at least three runs, an outlier is none. A "
    "change of a setting at the same run may be its cause: nothing here proves it.",
)  # fmt: skip


def run_lines(work: WorkTrend, stage: StageTrend) -> tuple[RunLine, ...]:
    """Rows of a stage, the newest first."""
    return tuple(RunLine(work.runs[point.run], stage, point) for point in reversed(stage.points))


def change_lines(work: WorkTrend) -> tuple[ChangeLine, ...]:
    """Changes of level of all stages, the newest first."""
    rows = [
        ChangeLine(stage, work.runs[stage.points[item.at].run], item) for stage in work.stages for item in stage.changes
    ]
    return tuple(sorted(rows, key=lambda row: row.run.started_at, reverse=True))


def change_words(row: ChangeLine) -> str:
    """``22.5 → 2.81 ms per token (−87.5 %, between −87.7 % and −87.4 %)``."""
    shown = change(row.change.before_ns, row.change.after_ns)
    low, high = signed_ratio(row.change.low), signed_ratio(row.change.high)
    between = f"{low} in every run" if low == high else f"{signed_ratio(row.change.relative)}, between {low} and {high}"
    return f"{shown.before} → {shown.after} per {visible(row.stage.per)} ({between})"


def stage_sentence(work: WorkTrend, stage: StageTrend) -> str:
    """Where a stage stands, and its latest change."""
    last = stage.points[-1]
    runs = counted(len(stage.points), "run")
    now = f"{duration(last.median_ns)} per {visible(stage.per)} in the latest of {runs}"
    if not stage.changes:
        few = len(stage.points) < _FEWEST
        why = f"fewer than {_FEWEST} runs tell no level" if few else "no change of level"
        return f"{now}; {why}."
    latest = ChangeLine(stage, work.runs[stage.points[stage.changes[-1].at].run], stage.changes[-1])
    cause = f", with {visible('; '.join(latest.run.changed))}" if latest.run.changed else ", with no recorded change"
    many = "its one change" if len(stage.changes) == 1 else f"the latest of {len(stage.changes)} changes"
    return f"{now}; {many} of level on {latest.run.started_at:%Y-%m-%d}: {change_words(latest)}{cause}."


def sentence(trend: Trend) -> str:
    """The latest change of level of all, of several at once the largest: the page's first sentence."""
    if not trend.works:
        return "No recorded run has unprofiled times to draw."
    rows = [(row, work) for work in trend.works for row in change_lines(work)]
    if not rows:
        runs = sum(len(work.runs) for work in trend.works)
        return f"No change of level in {counted(runs, 'run')} of {counted(len(trend.works), 'workload')}."
    row, work = max(rows, key=lambda pair: (pair[0].run.started_at, abs(math.log1p(pair[0].change.relative))))
    cause = visible("; ".join(row.run.changed)) or "no recorded change"
    return (
        f"Latest change of level, {row.run.started_at:%Y-%m-%d}: {visible(row.stage.stage)} of {visible(work.title)}: "
        f"{change_words(row)}, with {cause}."
    )
