"""How times developed over the runs of a history, workload by workload.

A line holds runs of one `history.workload.Workload` – never of two models, devices or inputs – and only what was measured
without the profiler. A program that ``exec`` ran is told by its command line and device.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from analysis.domain.errors import StoreError
from analysis.domain.figures import counted
from analysis.domain.measures import impossible_figures
from analysis.domain.trend import ClassTime, Link, StageTrend, Trend, TrendPoint, TrendRun, WorkTrend
from history.levels import change_points
from history.records import RecordedRun, RunQuery, RunRow, StageRow
from history.store import Store
from history.workload import Workload, changes, workload_of

__all__ = ["MOST_RUNS", "trend_of"]

MOST_RUNS: Final = 1000
"""The newest that fit; more are not looked at."""
_PAGES: Final = ("report.html", "report.md", "report.json", "review.html", "run.json")
"""Files that a run is linked to, in this order."""
_CONFIDENCE: Final = 0.95


def trend_of(store: Store, query: RunQuery | None = None, stages: Sequence[str] = ()) -> Trend:
    """Read a trend from a history.

    Args:
        store: to read.
        query: which runs; None: all.
        stages: which stages; none: all.

    Raises:
        StoreError: the history cannot be read, or holds figures that cannot be.
    """
    rows = store.runs(query)[-MOST_RUNS:]
    groups: dict[object, list[RecordedRun]] = {}
    for recorded in store.recorded([row.run_id for row in rows]):
        work = _work(recorded.run)
        if work is not None and recorded.run.started_at is not None and _timed(recorded, stages):
            groups.setdefault(work, []).append(recorded)
    ordered = sorted(groups.values(), key=lambda runs: _started(runs[-1]), reverse=True)
    trend = Trend(
        source=store.location.shown,
        works=tuple(_of_work(runs, stages) for runs in ordered),
        left_out=len(rows) - sum(len(runs) for runs in groups.values()),
    )
    if wrong := impossible_figures(trend):
        raise StoreError(
            f"{store.location.shown}: holds what cannot be ({wrong[0]}); delete the history and import the runs' folders again"
        )
    return trend


def _work(run: RunRow) -> tuple[Workload | str, str | None, int | None] | None:
    """What is the same in all runs of a line; None: not known, or the run did not end well.

    The report knows a CPU's name, which a workload does not have.
    """
    if run.status != "complete":
        return None
    if run.kind == "program":
        device = run.gpu_name or run.device
        return None if run.command is None or device is None else (run.command, device, run.ranks)
    work = workload_of(run)
    return None if work is None else (work, run.gpu_name, work.ranks)


def _started(recorded: RecordedRun) -> float:
    return 0.0 if recorded.run.started_at is None else recorded.run.started_at.timestamp()


def _timed(recorded: RecordedRun, stages: Sequence[str]) -> tuple[str, ...]:
    """Stages that have unprofiled samples."""
    return tuple(dict.fromkeys(sample.stage for sample in recorded.samples if not stages or sample.stage in stages))


def _of_work(runs: Sequence[RecordedRun], stages: Sequence[str]) -> WorkTrend:
    latest = runs[-1].run
    names = dict.fromkeys(stage for recorded in runs for stage in _timed(recorded, stages))
    return WorkTrend(
        title=_title(latest),
        subtitle=_subtitle(latest),
        runs=tuple(_run(recorded, None if place == 0 else runs[place - 1].run) for place, recorded in enumerate(runs)),
        stages=tuple(line for stage in names for line in _lines(runs, stage)),
    )


def _title(run: RunRow) -> str:
    weights = {"random": "random weights", "checkpoint": "weights of a checkpoint"}.get(run.weights or "")
    return ", ".join(filter(None, (run.model, weights, run.gpu_name or run.device)))


def _subtitle(run: RunRow) -> str:
    if run.kind == "program":
        return run.command or ""
    work = workload_of(run)
    if work is None:
        return ""
    tokens = f"{work.max_new_tokens:,} tokens" if work.ignore_eos else f"at most {work.max_new_tokens:,} tokens"
    shown = f"{counted(work.inputs, 'input')}{f' ({run.input_mode})' if run.input_mode else ''}"
    ranks = f" · {counted(work.ranks, 'rank')}" if work.ranks > 1 else ""
    prompt = " · a text prompt of its own" if work.prompt is not None else ""
    return f"{work.dtype} · {shown}, {work.inputs_hash[:8]} · {tokens} · batch {work.batch_size:,}{ranks}{prompt}"


def _run(recorded: RecordedRun, before: RunRow | None) -> TrendRun:
    run = recorded.run
    if run.started_at is None:
        raise ValueError(f"{run.run_id}: when it started is not known")
    paths = {artefact.name: artefact.path for artefact in recorded.artefacts}
    return TrendRun(
        run_id=run.run_id,
        started_at=run.started_at,
        changed=() if before is None else changes(before, run),
        links=tuple(Link(name, paths[name]) for name in _PAGES if name in paths and Path(paths[name]).is_file()),
        headline=run.headline,
    )


def _lines(runs: Sequence[RecordedRun], stage: str) -> Iterable[StageTrend]:
    """The line of a stage; where its unit changed (a token, a step) one for each."""
    by_unit: dict[str, list[TrendPoint]] = {}
    for place, recorded in enumerate(runs):
        samples = [sample for sample in recorded.samples if sample.stage == stage]
        if samples:
            times = tuple(sample.ns_per_unit for sample in samples)
            by_unit.setdefault(samples[0].per, []).append(_point(recorded, stage, place, times))
    for per, points in by_unit.items():
        yield StageTrend(
            stage=stage,
            per=per,
            points=tuple(points),
            changes=change_points([point.median_ns for point in points]),
        )


def _point(recorded: RecordedRun, stage: str, place: int, times: tuple[float, ...]) -> TrendPoint:
    row = next((row for row in recorded.stages if row.stage == stage), None)
    # As the report has it: over the images that were captured too.
    median = statistics.median(times) if row is None or row.unprofiled_ns is None else row.unprofiled_ns
    low, high = _interval(times)
    return TrendPoint(place, median, times, low, high, _classes(recorded, row))


def _interval(times: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """Two of the samples between which the median lies with at least 95 %, whatever their distribution (binomial)."""
    count = len(times)
    rank, outside = 0, 0.0
    while 2 * (outside + math.comb(count, rank) / 2**count) <= 1 - _CONFIDENCE:
        outside += math.comb(count, rank) / 2**count
        rank += 1
    if not rank:
        return None, None
    ordered = sorted(times)
    return ordered[rank - 1], ordered[count - rank]


def _classes(recorded: RecordedRun, row: StageRow | None) -> tuple[ClassTime, ...]:
    if row is None or not row.units:
        return ()
    units = row.units
    mine = [ClassTime(item.kernel_class, item.total_ns / units) for item in recorded.classes if item.stage == row.stage]
    return tuple(sorted(mine, key=lambda item: -item.ns))
