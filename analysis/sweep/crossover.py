"""Where a stage's limit changes as the batch grows: predicted from one point, and measured.

One unit of a stage (a prefill, a decode step) of batch b takes the longer of what the host and what the GPU need. All times
come from one point, that of the smallest batch, here 1; FLOP and bytes are counted, not measured:

    host    = the unit's time at batch 1, if the GPU is busy for less than 70 % of it
    roof(b) = max(bytes(b) ÷ peak bandwidth, FLOP(b) ÷ peak)
    most(b) = busy(1) × roof(b) ÷ roof(1)          all of the GPU's time grows as its roof does
    least(b) = busy(1) − roof(1) + roof(b)         only the roof grows: what kernels take beyond it stays

The host launches as many kernels at any batch, so its time stays. Large kernels are near the first line, kernels of few
microseconds, whose time is mostly their start, near the second. So the GPU overtakes the host between the least batch with
most(b) ≥ host and the least batch with least(b) ≥ host. Measured is the batch from which on the GPU's busy time, in the recorded
window, is not less than the host's at batch 1. Which of the two quotients makes the roof says what limits the GPU then; the batch
from which on FLOP(b) ÷ peak ≥ bytes(b) ÷ bandwidth is that from which on it can be compute-bound.

Between two batches of the sweep FLOP and bytes are taken to be linear; beyond the largest, FLOP and KV cache grow with the
batch and the weights stay. The batch is copies of one page, so a mixture of experts touches no more experts in a larger one; a
batch of different pages may, until all are touched, and its GPU then overtakes the host earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from attrs import frozen

from analysis.domain.annotations import Stage
from analysis.domain.figures import bytes_, count, duration, flop, rate
from analysis.domain.sweep import StageFigures, Sweep
from analysis.sweep.series import SweepSeries, bound_of, figures_of

__all__ = ["Crossover", "Forecast", "Limit", "crossovers", "forecast"]

Limit: TypeAlias = Literal["host-bound", "memory-bound", "compute-bound"]
"""``host-bound``: launch-bound or bound in Python; the GPU waits for the host."""

LARGEST_BATCH: Final = 4096
"""Up to which a change is looked for."""

_BUSY: Final = 0.7
"""GPU-busy share from which on the host does not set the pace at the first point."""


@frozen
class Forecast:
    """What one unit of a stage is expected to take at one batch."""

    batch_size: int
    host_ns: float
    gpu_ns: float
    """Busy time at most: that of the first point, scaled as the roof grows."""
    gpu_least_ns: float
    """Busy time at least: that of the first point and by how much the roof is longer."""
    memory_ns: float
    """Bytes ÷ peak bandwidth."""
    compute_ns: float
    """FLOP ÷ peak."""

    @property
    def unit_ns(self) -> float:
        """The longer of host and GPU, the GPU at most."""
        return max(self.host_ns, self.gpu_ns)

    @property
    def unit_least_ns(self) -> float:
        """The longer of host and GPU, the GPU at least."""
        return max(self.host_ns, self.gpu_least_ns)

    @property
    def roof_ns(self) -> float:
        """Least time of the GPU."""
        return max(self.memory_ns, self.compute_ns)

    @property
    def limit(self) -> Limit:
        """What sets the pace."""
        return "host-bound" if self.gpu_ns < self.host_ns else self.roof_limit

    @property
    def roof_limit(self) -> Limit:
        """Which quotient makes the roof."""
        return "memory-bound" if self.memory_ns >= self.compute_ns else "compute-bound"


@frozen
class Crossover:
    """Where one series leaves a limit for another, predicted and measured; batches."""

    series: str
    """Label of the series; empty: the sweep has one only."""
    stage: Stage
    change: str
    """``host-bound → memory-bound``."""
    predicted: int | None
    """Least batch behind the change if all of the GPU's time grows as its roof; None: none up to `LARGEST_BATCH`, or unknown."""
    predicted_latest: int | None
    """The same if only the roof grows; None: as above."""
    measured_before: int | None
    """Largest batch of the sweep before the change; None: no point was measured before it."""
    measured_from: int | None
    """Least batch of the sweep behind it; None: no point was measured behind it."""
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
            gpu_least_ns=busy_ns - roof_ns + max(memory_ns, compute_ns),
            memory_ns=memory_ns,
            compute_ns=compute_ns,
        )

    told = (
        f"From batch {count(batch)}: {duration(first.median_ns)} per {first.per}, GPU busy {duration(busy_ns)}; "
        f"{bytes_(moved)} ÷ {rate(bytes_per_s, 'B/s')} = {duration(moved / bytes_per_s * 1e9)}, "
        f"{flop(work)} ÷ {rate(flop_per_s, 'FLOP/s')} = {duration(work / flop_per_s * 1e9)}"
    )
    return model, told


def crossovers(sweep: Sweep, series: SweepSeries, stage: Stage) -> tuple[Crossover, ...]:
    """The two changes of a stage: from the host to the GPU, and from memory to compute.

    The first is left out where the host does not set the pace at the first point, the second where compute limits as soon as
    the host does not: there is no such change then.
    """
    known = [
        (point.setting.batch_size, figures)
        for point in series.measured
        if (figures := figures_of(point, stage)) is not None
    ]
    if not known:
        return ()
    model, told = forecast(sweep, series, stage)
    first, at_first = known[0]
    host_ns = at_first.median_ns if _paced_by_host(at_first) else None
    overtaken = _measured_change([(batch, figures.busy_ns >= (host_ns or 0.0)) for batch, figures in known
                                  if figures.busy_ns is not None])  # fmt: skip
    if model is None:
        change = Crossover(series.label, stage, "host-bound → GPU-bound", None, None, *overtaken, "", told)
        return () if host_ns is None else (change,)
    rows = []
    if host_ns is not None:
        earliest = _least(first, lambda size: model(size).gpu_ns >= host_ns)
        latest = _least(first, lambda size: model(size).gpu_least_ns >= host_ns)
        limit = model(LARGEST_BATCH if earliest is None else earliest).roof_limit
        rows.append(
            Crossover(
                series=series.label,
                stage=stage,
                change=f"host-bound → {limit}",
                predicted=earliest,
                predicted_latest=latest,
                measured_before=overtaken[0],
                measured_from=overtaken[1],
                arithmetic=f"{told}. {_host_words(model, host_ns, earliest, latest)}",
            )
        )
    counted = model(first)
    if counted.memory_ns > counted.compute_ns and not (rows and rows[0].change.endswith("compute-bound")):
        end = _least(first, lambda size: model(size).compute_ns >= model(size).memory_ns)
        verdicts = [(batch, bound == "compute-bound") for batch, figures in known
                    if (bound := bound_of(figures)) in ("memory-bound", "compute-bound")]  # fmt: skip
        before, after = _measured_change(verdicts)
        rows.append(
            Crossover(
                series=series.label,
                stage=stage,
                change="memory-bound → compute-bound",
                predicted=end,
                predicted_latest=end,
                measured_before=before,
                measured_from=after,
                arithmetic=f"{told}. {_ridge_words(model, end)}",
            )
        )
    return tuple(rows)


def _host_words(model: Model, host_ns: float, earliest: int | None, latest: int | None) -> str:
    def words(batch: int | None, how: str, busy_ns: Callable[[Forecast], float]) -> str:
        at = model(LARGEST_BATCH if batch is None else batch)
        if batch is None:
            return f"if {how}, the GPU is busy for {duration(busy_ns(at))} at batch {count(at.batch_size)}, not yet the host's time"
        busy = f"it is busy for {duration(busy_ns(at))} at batch {count(batch)}"
        return f"if {how}, {busy}, where the roof is {duration(at.roof_ns)}"

    at_most = words(earliest, "all of the busy time grows as the roof", lambda at: at.gpu_ns)
    at_least = words(latest, "only the roof grows", lambda at: at.gpu_least_ns)
    return f"The host takes {duration(host_ns)} at any batch; {at_most}; {at_least}"


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


def _measured_change(measured: Sequence[tuple[int, bool]]) -> tuple[int | None, int | None]:
    """Largest batch before and least batch behind a change, of batches and whether they lie behind it."""
    after = next((batch for batch, behind in measured if behind), None)
    before = [batch for batch, behind in measured if not behind and (after is None or batch < after)]
    return (before[-1] if before else None), after
