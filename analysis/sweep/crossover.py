"""Where a stage's limit changes as the batch grows: predicted from one point, and measured.

One unit of a stage (a prefill, a decode step) of batch b takes the longer of what the host and what the GPU need:

    host(b) = the unit's time at the first point, if the host sets the pace there: it launches as many kernels at any batch
    roof(b) = max(bytes(b) ÷ peak bandwidth, FLOP(b) ÷ peak)
    gpu(b)  = GPU-busy time at the first point × roof(b) ÷ roof(first point)

so that all times come from one point, that of the smallest batch; FLOP and bytes are counted, not measured. The batch from
which on gpu(b) ≥ host is the predicted end of the launch-bound range. The GPU is never faster than its roof, so the range ends
at the latest where roof(b) ≥ host. Which of the two quotients makes the roof says what limits the GPU; the batch from which on
FLOP(b) ÷ peak ≥ bytes(b) ÷ bandwidth is that from which on it can be compute-bound.

Between two batches of the sweep FLOP and bytes are taken to be linear; beyond the largest, FLOP and KV cache grow with the
batch and the weights stay. (A mixture of experts touches more experts with each sequence, until all are touched.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, Literal, TypeAlias

from attrs import frozen

from analysis.domain.annotations import Stage
from analysis.domain.figures import bytes_, count, duration, flop, rate
from analysis.domain.sweep import StageFigures, Sweep
from analysis.sweep.series import SweepSeries, figures_of

__all__ = ["BOUND_BY_DEVICE", "Crossover", "Forecast", "Limit", "crossovers", "forecast"]

Limit: TypeAlias = Literal["launch-bound", "memory-bound", "compute-bound"]

BOUND_BY_DEVICE: Final = frozenset({"memory-bound", "compute-bound", "kernel-bound"})
"""Verdicts by which the GPU's kernels limit a stage; by the others the host, or what stands between the two."""

LARGEST_BATCH: Final = 4096
"""Up to which a change is looked for."""

_BUSY: Final = 0.9
"""GPU-busy share from which on the host no longer sets the pace, whatever the verdict says."""


@frozen
class Forecast:
    """What one unit of a stage is expected to take at one batch."""

    batch_size: int
    host_ns: float
    gpu_ns: float
    """Busy time, scaled from the first point."""
    memory_ns: float
    """Bytes ÷ peak bandwidth."""
    compute_ns: float
    """FLOP ÷ peak."""

    @property
    def unit_ns(self) -> float:
        """The longer of host and GPU."""
        return max(self.host_ns, self.gpu_ns)

    @property
    def roof_ns(self) -> float:
        """Least time of the GPU."""
        return max(self.memory_ns, self.compute_ns)

    @property
    def limit(self) -> Limit:
        """What sets the pace."""
        if self.gpu_ns < self.host_ns:
            return "launch-bound"
        return "memory-bound" if self.memory_ns >= self.compute_ns else "compute-bound"


@frozen
class Crossover:
    """Where one series leaves a limit for another, predicted and measured; batches."""

    series: str
    """Label of the series; empty: the sweep has one only."""
    stage: Stage
    change: str
    """``launch-bound → memory-bound``."""
    predicted: int | None
    """Least batch behind the change; None: there is none up to `LARGEST_BATCH`, or it cannot be predicted."""
    at_the_latest: int | None
    """The same if the GPU reached its roof; None: not up to `LARGEST_BATCH`, or there is no such bound."""
    measured_before: int | None
    """Largest batch of the sweep before the change; None: none was measured before it."""
    measured_from: int | None
    """Least batch of the sweep behind it; None: none was measured behind it."""
    arithmetic: str
    """How it was predicted, with the numbers."""
    unknown_because: str | None = None
    """Why it could not be predicted; None: it was."""


Model: TypeAlias = Callable[[int], Forecast]


def forecast(sweep: Sweep, series: SweepSeries, stage: Stage) -> tuple[Model | None, str]:
    """Make the model of a stage from the series' first point, and say by what numbers, or why there is none.

    Args:
        sweep: for the peaks.
        series: at least one point measured, else there is no model.
        stage: prefill or decode.

    Returns:
        A function from the batch to what one unit is expected to take, and the arithmetic; or None and the reason.
    """
    known = [
        (point.setting.batch_size, figures)
        for point in series.measured
        if (figures := figures_of(point, stage)) is not None
    ]
    if not known:
        return None, f"no {stage} was measured"
    batch, first = known[0]
    if first.busy_ns is None:
        return None, first.window_unknown_because or "the GPU-busy time is not known"
    if not sweep.peak_flop_per_s or not sweep.peak_bytes_per_s:
        return None, "the device's peaks are not known"
    counted = [(size, figures) for size, figures in known if _counted(figures)]
    if not counted or counted[0][0] != batch:
        return None, first.utilisation_unknown_because or "FLOP and bytes are not known"
    flop_per_s, bytes_per_s = sweep.peak_flop_per_s, sweep.peak_bytes_per_s
    host_ns = first.median_ns if _paced_by_host(first) else 0.0

    def needs(size: int) -> tuple[float, float]:
        return _needed(counted, size)

    work, moved = needs(batch)
    roof_ns = max(work / flop_per_s, moved / bytes_per_s) * 1e9
    if roof_ns <= 0:
        return None, "FLOP and bytes are counted as none"
    busy_ns = first.busy_ns

    def model(size: int) -> Forecast:
        work, moved = needs(size)
        memory_ns, compute_ns = moved / bytes_per_s * 1e9, work / flop_per_s * 1e9
        return Forecast(
            batch_size=size,
            host_ns=host_ns,
            gpu_ns=busy_ns * max(memory_ns, compute_ns) / roof_ns,
            memory_ns=memory_ns,
            compute_ns=compute_ns,
        )

    told = (
        f"From batch {count(batch)}: {duration(first.median_ns)} a {first.per}, GPU busy {duration(busy_ns)}; "
        f"{bytes_(moved)} ÷ {rate(bytes_per_s, 'B/s')} = {duration(moved / bytes_per_s * 1e9)}, "
        f"{flop(work)} ÷ {rate(flop_per_s, 'FLOP/s')} = {duration(work / flop_per_s * 1e9)}"
    )
    return model, told


def crossovers(sweep: Sweep, series: SweepSeries, stage: Stage) -> tuple[Crossover, ...]:
    """The two changes of a stage: from the host to the GPU, and from memory to compute.

    The first is left out where the host does not set the pace at the first point, the second where compute limits as soon as
    the host does not: there is no such change then.
    """
    model, told = forecast(sweep, series, stage)
    measured = [
        (point.setting.batch_size, figures.bound)
        for point in series.measured
        if (figures := figures_of(point, stage)) is not None and figures.bound is not None
    ]
    if not series.measured or figures_of(series.measured[0], stage) is None:
        return ()
    if model is None:
        before, after = _measured_change(measured, BOUND_BY_DEVICE)
        change = Crossover(series.label, stage, "launch-bound → GPU-bound", None, None, before, after, "", told)
        return (change,) if measured else ()
    first = series.measured[0].setting.batch_size
    rows = []
    at_first = model(first)
    if at_first.host_ns:
        end = _least(first, lambda size: model(size).gpu_ns >= at_first.host_ns)
        latest = _least(first, lambda size: model(size).roof_ns >= at_first.host_ns)
        behind = "memory-bound" if end is None else model(end).limit
        before, after = _measured_change(measured, BOUND_BY_DEVICE)
        rows.append(
            Crossover(
                series=series.label,
                stage=stage,
                change=f"launch-bound → {behind}",
                predicted=end,
                at_the_latest=latest,
                measured_before=before,
                measured_from=after,
                arithmetic=f"{told}. {_host_words(model, at_first, end)}",
            )
        )
    if at_first.memory_ns > at_first.compute_ns and not (rows and rows[0].change.endswith("compute-bound")):
        end = _least(first, lambda size: model(size).compute_ns >= model(size).memory_ns)
        before, after = _measured_change(measured, {"compute-bound"}, {"memory-bound"})
        rows.append(
            Crossover(
                series=series.label,
                stage=stage,
                change="memory-bound → compute-bound",
                predicted=end,
                at_the_latest=None,
                measured_before=before,
                measured_from=after,
                arithmetic=f"{told}. {_ridge_words(model, end)}",
            )
        )
    return tuple(rows)


def _host_words(model: Model, at_first: Forecast, end: int | None) -> str:
    if end is None:
        return (
            f"GPU busy × roof(batch) ÷ roof stays below {duration(at_first.host_ns)} up to batch {count(LARGEST_BATCH)}"
        )
    after = model(end)
    factor = after.roof_ns / at_first.roof_ns
    return (
        f"At batch {count(end)} the roof is {duration(after.roof_ns)}, {factor:.3g} times as long, so the GPU is busy for "
        f"{duration(after.gpu_ns)}: not less than the {duration(at_first.host_ns)} that the host takes"
    )


def _ridge_words(model: Model, end: int | None) -> str:
    if end is None:
        last = model(LARGEST_BATCH)
        return (
            f"At batch {count(LARGEST_BATCH)} bytes still take {duration(last.memory_ns)} and FLOP {duration(last.compute_ns)}: "
            "the KV cache grows as fast as the work"
        )
    after = model(end)
    return f"At batch {count(end)} FLOP take {duration(after.compute_ns)} and bytes {duration(after.memory_ns)}"


def _paced_by_host(figures: StageFigures) -> bool:
    if figures.bound in BOUND_BY_DEVICE:
        return False
    return figures.busy_share is not None and figures.busy_share < _BUSY


def _counted(figures: StageFigures) -> bool:
    return None not in (figures.flop, figures.weight_bytes, figures.kv_bytes)


def _needed(counted: Sequence[tuple[int, StageFigures]], size: int) -> tuple[float, float]:
    """FLOP and bytes of one unit at a batch that need not be in the sweep."""

    def parts(figures: StageFigures) -> tuple[float, float, float]:
        return float(figures.flop or 0), float(figures.weight_bytes or 0), float(figures.kv_bytes or 0)

    lower = max((place for place, (batch, _) in enumerate(counted) if batch <= size), default=0)
    batch, figures = counted[lower]
    work, weights, cache = parts(figures)
    if lower + 1 < len(counted) and size > batch:
        above, more = counted[lower + 1]
        along = (size - batch) / (above - batch)
        further = parts(more)
        work, weights, cache = (
            low + along * (high - low) for low, high in zip((work, weights, cache), further, strict=True)
        )
    else:
        work, cache = work * size / batch, cache * size / batch
    return work, weights + cache


def _least(first: int, holds: Callable[[int], bool]) -> int | None:
    """Least batch from ``first`` on for which it holds; None: up to `LARGEST_BATCH` it does not."""
    return next((size for size in range(first, LARGEST_BATCH + 1) if holds(size)), None)


def _measured_change(
    measured: Sequence[tuple[int, str]], behind: Collection[str], ahead: Collection[str] | None = None
) -> tuple[int | None, int | None]:
    """Largest batch before and least batch behind a change, by the points' own verdicts; ``ahead`` None: all others."""
    after = next((batch for batch, bound in measured if bound in behind), None)
    before = [
        batch
        for batch, bound in measured
        if (bound not in behind if ahead is None else bound in ahead) and (after is None or batch < after)
    ]
    return (before[-1] if before else None), after
