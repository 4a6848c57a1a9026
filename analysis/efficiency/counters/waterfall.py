"""From the ideal to the measured time of a stage: each step is a loss, in integer nanoseconds, and they add up.

ideal → traffic and operations beyond what must be → kernels below their roofline → kernels without counters → copies →
gaps between kernels → host. The terms are measured apart from each other (busy and idle time instance by instance, the
roofline launch by launch); what is left between their sum and the stage's elapsed time is printed as the residual.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from attrs import frozen

from analysis.attribution.attribution import Attribution
from analysis.domain.annotations import Stage
from analysis.efficiency.counters.roofline import RooflineRow
from analysis.sums.records import StageSummary
from analysis.trace.records import KERNEL

__all__ = ["ENOUGH", "Idle", "Loss", "Waterfall", "idle_time", "stage_waterfall"]

ENOUGH: Final = 0.9
"""Share of a stage's kernel time that must have counters for its traffic to be compared with what must move."""


@frozen
class Idle:
    """A stage's elapsed time, instance by instance. ns."""

    elapsed_ns: int
    busy_ns: int
    """Union of each instance's operations."""
    kernel_ns: int
    other_ns: int
    """Copies, sets and graphs traced as a whole."""
    concurrent_ns: int
    """By how much the sum of all operations exceeds their union."""
    gaps_ns: int
    """Idle time after the call that launched the next operation had returned, or had begun to bring a graph's nodes."""
    host_ns: int
    """Idle time while the next operation had not been launched, or there was none to come."""


def idle_time(attribution: Attribution, stage: Stage) -> Idle:
    """Split the elapsed time of a stage's instances.

    A gap before an operation is the host's until the call that launches it returns, and the GPU's from then on: launch
    latency, and the time from one kernel's end to the start of the next, which was waiting. Between nodes of a CUDA graph
    it is the GPU's, even while the call that launches the graph has not returned yet.

    Args:
        attribution: of the trace.
        stage: prefill or decode.
    """
    operations, calls, ranges = attribution.operations, attribution.calls, attribution.ranges
    rows = attribution.stage_rows(stage)
    instance_of = attribution.operation_level("stage")
    chosen = np.flatnonzero(np.isin(instance_of, rows)) if rows.size else np.zeros(0, dtype=np.intp)
    # Sorted by instance; within one by start, as the operations are.
    chosen = chosen[np.argsort(instance_of[chosen], kind="stable")]
    own, start, end = instance_of[chosen], operations.start[chosen], operations.end[chosen]
    kernels = operations.kind[chosen] == KERNEL
    duration = end - start
    finished = ranges.end.copy()
    np.maximum.at(finished, own, end)
    elapsed = int((finished[rows] - ranges.start[rows]).sum())
    gaps = host = 0
    if chosen.size:
        first = np.append(True, own[1:] != own[:-1])
        heads = np.flatnonzero(first)
        lengths = np.diff(np.append(heads, chosen.size))
        # Instances lie one after the other on one line, so that one running maximum serves all of them.
        low = int(start.min())
        span = int(end.max()) - low + 1
        shift = np.repeat(np.arange(heads.size), lengths) * span - low
        reach = np.maximum.accumulate(end + shift) - shift
        before = np.where(first, ranges.start[own], np.append(0, reach[:-1]))
        idle = np.maximum(0, start - before)
        call = attribution.launch_call[chosen]
        returned = np.where(call >= 0, calls.end[np.maximum(call, 0)], before) if len(calls) else before
        # A call that has brought an operation already has delivered its graph: its first operations only waited for it.
        brought = np.ones(chosen.size, dtype=bool)
        brought[np.unique(call, return_index=True)[1]] = False
        waited = np.where(brought & (call >= 0), 0, np.clip(returned - before, 0, idle))
        gaps, host = int((idle - waited).sum()), int(waited.sum())
        tails = heads + lengths - 1
        host += int(np.maximum(0, finished[own[tails]] - np.maximum(reach[tails], ranges.start[own[tails]])).sum())
    empty = np.setdiff1d(rows, own)
    host += int((finished[empty] - ranges.start[empty]).sum())
    busy = elapsed - gaps - host
    total = int(duration.sum())
    return Idle(
        elapsed_ns=elapsed,
        busy_ns=busy,
        kernel_ns=int(duration[kernels].sum()),
        other_ns=int(duration[~kernels].sum()),
        concurrent_ns=total - busy,
        gaps_ns=gaps,
        host_ns=host,
    )


@frozen
class Loss:
    """One term of a waterfall."""

    key: str
    label: str
    ns: int
    meaning: str
    """What it is, and where the figure comes from."""


@frozen
class Waterfall:
    """A stage's elapsed time as a sum of terms. ns over all instances."""

    stage: str
    profiled_ns: int
    """The total: range start to the end of range and GPU work, under the profiler."""
    units: int | None
    """Tokens of decode, images of prefill; None: not known."""
    unit: str
    losses: tuple[Loss, ...]
    residual_ns: int
    """profiled − sum of the losses; 0 where instances neither nest nor share operations."""
    merged_because: str | None = None
    """Why terms are not told apart; None: they all are."""
    unprofiled_ns: float | None = None
    """Time of a unit without the profiler, from the control run; None: there is none."""

    @property
    def per_unit_ns(self) -> float | None:
        """Time of one unit."""
        return self.profiled_ns / self.units if self.units else None


def stage_waterfall(
    idle: Idle,
    summary: StageSummary,
    measured: RooflineRow | None,
    ideal_ns: int | None,
    *,
    ideal_missing: str | None,
    units: int | None,
    unit: str,
    unprofiled_ns: float | None = None,
) -> Waterfall:
    """Assemble the terms.

    Args:
        idle: of the stage.
        summary: of the stage; its elapsed time is the total.
        measured: the stage's launches against the rooflines; None: it has no kernels.
        ideal_ns: least time for what the stage must move and compute, over all instances; None: not known.
        ideal_missing: why ``ideal_ns`` is None.
        units: how many tokens or images the stage made.
        unit: what a unit is called.
        unprofiled_ns: of a unit, from the control run.
    """
    roofline = measured.roofline_ns if measured is not None else None
    covered = measured.covered_ns if measured is not None and roofline is not None else 0
    share = covered / idle.kernel_ns if idle.kernel_ns else 0.0
    losses: list[Loss] = []
    merged: str | None = None
    if roofline is None:
        merged = "no launch of this stage has both counters and a known peak"
    elif ideal_ns is None:
        merged = f"what must move and be computed is not known: {ideal_missing or 'no reason recorded'}"
    elif share < ENOUGH:
        merged = f"counters cover {share:.1%} of the kernel time, too little to compare the stage's traffic with what must move"
    if merged is None and roofline is not None and ideal_ns is not None:
        losses = [
            _loss("ideal", ideal_ns),
            _loss("extra", roofline - ideal_ns),
            _loss("below_roofline", covered - roofline),
        ]
    elif roofline is not None:
        losses = [_loss("at_roofline", roofline), _loss("below_roofline", covered - roofline)]
    losses.append(_loss("without_counters", idle.kernel_ns - covered))
    losses.append(_loss("copies", idle.other_ns))
    if idle.concurrent_ns:
        losses.append(_loss("concurrent", -idle.concurrent_ns))
    losses += [_loss("gaps", idle.gaps_ns), _loss("host", idle.host_ns)]
    return Waterfall(
        stage=summary.stage,
        profiled_ns=summary.profiled_ns,
        units=units,
        unit=unit,
        losses=tuple(losses),
        residual_ns=summary.profiled_ns - sum(one.ns for one in losses),
        merged_because=merged,
        unprofiled_ns=unprofiled_ns,
    )


_TERMS: Final = {
    "ideal": (
        "Ideal",
        "The larger of bytes that must move ÷ peak bandwidth and operations that must be done ÷ dense peak, for each stage "
        "instance.",
    ),
    "extra": (
        "Extra traffic and operations",
        "Measured bytes and operations at peak, launch by launch, minus the ideal: activations written and read again, "
        "padding, work done twice, and memory and arithmetic that follow each other instead of overlapping. Negative: "
        "less was measured than counted (a cache held it).",
    ),
    "at_roofline": (
        "Measured traffic and operations at peak",
        "Roofline times of all launches that have counters; the ideal and what comes on top of it are not told apart.",
    ),
    "below_roofline": (
        "Kernels below their roofline",
        "Time of the launches that have counters, minus their roofline times.",
    ),
    "without_counters": ("Kernels without counters", "Time of the launches that no counter file covers."),
    "copies": ("Copies and sets", "Memcpys, memsets, and CUDA graphs traced as a whole."),
    "concurrent": ("Ran at once", "Sum of all operations minus their union: time in which several ran is counted once."),
    "gaps": (
        "Gaps between kernels",
        "The GPU was idle although the next operation had been launched: launch latency, the way from one kernel to the next, "
        "and from node to node of a CUDA graph. Tracing a graph's nodes one by one lengthens the last.",
    ),
    "host": (
        "Host",
        "The GPU was idle and had nothing to do: the call that launches the next operation had not returned yet, or there was "
        "none to come.",
    ),
}  # fmt: skip


def _loss(key: str, ns: int) -> Loss:
    label, meaning = _TERMS[key]
    return Loss(key, label, ns, meaning)
