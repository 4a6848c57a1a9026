"""How the times of runs of the same work developed: what the history works out and the page shows.

Times are of one unit of a stage's work (an image, a token …), in nanoseconds, measured without the profiler; GPU times are of
the capture. One `WorkTrend` holds runs of one workload – model, weights, precision, device, inputs, batch – and never of two.
"""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

__all__ = ["ClassTime", "LevelChange", "Link", "StageTrend", "Trend", "TrendPoint", "TrendRun", "WorkTrend"]


@frozen
class Link:
    """A file of a run that still exists."""

    name: str
    path: str
    """Absolute."""


@frozen
class TrendRun:
    """One run: a place on the axis of all stages of its workload."""

    run_id: str
    started_at: datetime
    """UTC."""
    changed: tuple[str, ...]
    """What differs from the run before it in how the work was done: decode mode, options, versions, driver, commit."""
    links: tuple[Link, ...]
    headline: str | None = None


@frozen
class ClassTime:
    """GPU time of the kernels of one class."""

    name: str
    ns: float


@frozen
class TrendPoint:
    """One run's stage."""

    run: int
    """Place of the run in `WorkTrend.runs`."""
    median_ns: float
    samples_ns: tuple[float, ...]
    """Raw repetitions in the order in which they were measured."""
    low_ns: float | None
    """Interval of the median, at least 95 %, by order statistics; None: fewer than six samples give none."""
    high_ns: float | None
    classes: tuple[ClassTime, ...]
    """GPU time of a unit by kernel class, the largest first; empty: not known."""


@frozen
class LevelChange:
    """A change of level."""

    at: int
    """Place of the first point of the new level in `StageTrend.points`."""
    before_ns: float
    after_ns: float
    """Medians of the runs' medians on either side, to the neighbouring changes."""
    relative: float
    """after ÷ before − 1."""
    low: float
    high: float
    """Interval of ``relative``, 95 %; of three runs against three 90 %."""
    runs_before: int
    runs_after: int


@frozen
class StageTrend:
    """One stage of one workload."""

    stage: str
    per: str
    points: tuple[TrendPoint, ...]
    """Oldest first."""
    changes: tuple[LevelChange, ...]


@frozen
class WorkTrend:
    """The runs of one workload, oldest first."""

    title: str
    """Model, weights, device."""
    subtitle: str
    """Precision, inputs, batch, tokens."""
    runs: tuple[TrendRun, ...]
    stages: tuple[StageTrend, ...]


@frozen
class Trend:
    """What the history holds of some runs, workload by workload, that with the latest run first."""

    source: str
    """The history, as it may be shown."""
    works: tuple[WorkTrend, ...]
    left_out: int
    """Runs that fit and are in no line: they failed, or have no unprofiled times, or do not tell what they worked on."""
