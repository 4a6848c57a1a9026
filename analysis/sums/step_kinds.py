"""Steps of a serving engine, summed up by kind: prefill, mixed, decode, empty.

A mixed step stays mixed. What its parts cost is bounded by pure steps of like size, and said to be a bound: a decode step of as
many requests reads the weights for them alone, which the mixed step reads once for both parts; so the running requests add at
most such a step's GPU time to the mixed one, and the prompts take at least the rest.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Final

from attrs import frozen

from analysis.sums.records import StageSummary, StepPoint

__all__ = ["STALL_FACTOR", "StepKindRow", "stalled", "step_kind_rows"]

STALL_FACTOR: Final = 10
"""A step stalls if the GPU idles in it for so many times as long as a usual step of its kind lasts. Several requests more, or
longer ones, keep the GPU busy instead."""

_LIKE: Final = 0.25
"""Two steps are of like size if their running requests differ by at most this share, or by one."""


@frozen
class StepKindRow:
    """The steps of one kind. Sums are integer nanoseconds; what the names do not tell is None."""

    kind: str
    steps: int
    stalled: int
    """Steps that stall (`stalled`): a compilation, a graph that is recorded. Sums hold them, medians do not. What ``--skip-first``
    skips is in no median either, and does not count here."""
    requests: int | None
    """Sum over steps: a request counts in every step that it is in."""
    tokens: int | None
    prefill_tokens: int | None
    decode_tokens: int | None
    step_ns: int
    """From the start of each step until its range and GPU work have ended, or the next step begins."""
    host_ns: int
    """End − start of the steps' ranges."""
    busy_ns: int
    """Union of each step's GPU operations."""
    kernels: int
    kernel_sum_ns: int
    launches: int
    graph_launches: int
    step_median_ns: float
    busy_median_ns: float
    host_median_ns: float
    requests_median: float | None
    tokens_median: float | None
    per_token_ns: float | None
    """Time of the steps in the medians ÷ their tokens."""
    queued_median_ns: float | None
    """How long the GPU still worked on earlier steps when a step began."""
    between_median_ns: float | None
    """Host time since the step before."""
    decode_part_at_most_ns: float | None = None
    """A bound, of mixed steps: median of the GPU-busy time of decode steps with about as many running requests."""
    prefill_part_at_least_ns: float | None = None
    """A bound, of mixed steps: median of what remains of the GPU-busy time."""
    bounded_steps: int | None = None
    """Mixed steps for which there is a decode step of like size."""


def stalled(times: Sequence[tuple[int, int]]) -> tuple[bool, ...]:
    """Which steps of one kind are held up by something other than their work.

    Args:
        times: of each step its time, and of it the GPU-busy time, ns.

    Returns:
        For each step whether the GPU idles in it for more than `STALL_FACTOR` times the (low) median of the steps' times.
    """
    if not any(busy for _, busy in times):
        return (False,) * len(times)
    usual = statistics.median_low(time for time, _ in times)
    return tuple(time - busy > STALL_FACTOR * usual for time, busy in times)


def step_kind_rows(
    stages: Sequence[StageSummary], steps: Sequence[StepPoint], skip_first: int = 0
) -> tuple[StepKindRow, ...]:
    """Sum up an engine's steps by kind.

    Args:
        stages: of the trace; those that are kinds of steps count.
        steps: of the trace.
        skip_first: so many steps of each kind, the first, are left out of medians and bounds; sums hold them.

    Returns:
        One row per kind in the order of the stages; none where the trace is of no engine.
    """
    by_kind = {stage.stage: [step for step in steps if step.kind == stage.stage] for stage in stages if stage.of_steps}
    return tuple(
        _row(stage, by_kind[stage.stage], by_kind.get("decode", []), skip_first)
        for stage in stages
        if stage.of_steps and by_kind[stage.stage]
    )


def _row(
    stage: StageSummary, steps: Sequence[StepPoint], decoding: Sequence[StepPoint], skip_first: int
) -> StepKindRow:
    compositions = [step.composition for step in steps]
    counted = steps[skip_first:] or steps  # a number that leaves nothing is refused: `Captured`
    held_up = stalled([(step.step_ns or 0, step.busy_ns) for step in counted])
    usual = [step for step, stalls in zip(counted, held_up, strict=True) if not stalls]
    tokens = _sum(step.tokens for step in usual)
    decode, prefill, bounded = (
        _bounds(counted, decoding[skip_first:] or decoding) if stage.stage == "mixed" else (None, None, None)
    )
    return StepKindRow(
        kind=stage.stage,
        steps=len(steps),
        stalled=sum(held_up),
        requests=_sum(step.requests for step in steps),
        tokens=_sum(step.tokens for step in steps),
        prefill_tokens=_sum(made.prefill_tokens if made else None for made in compositions),
        decode_tokens=_sum(made.decode_tokens if made else None for made in compositions),
        step_ns=sum(step.step_ns or 0 for step in steps),
        host_ns=stage.profiled_host_ns,
        busy_ns=stage.busy_ns,
        kernels=stage.gpu.kernels,
        kernel_sum_ns=stage.kernel_sum_ns,
        launches=stage.launches,
        graph_launches=stage.graph_launches,
        step_median_ns=float(statistics.median(step.step_ns or 0 for step in usual)),
        busy_median_ns=float(statistics.median(step.busy_ns for step in usual)),
        host_median_ns=float(statistics.median(step.profiled_host_ns for step in usual)),
        requests_median=_median(step.requests for step in usual),
        tokens_median=_median(step.tokens for step in usual),
        per_token_ns=sum(step.step_ns or 0 for step in usual) / tokens if tokens else None,
        queued_median_ns=_median(step.queued_ns for step in counted),
        between_median_ns=_median(step.between_ns for step in counted),
        decode_part_at_most_ns=decode,
        prefill_part_at_least_ns=prefill,
        bounded_steps=bounded,
    )


def _sum(values: Iterable[int | None]) -> int | None:
    """None if one is not known: a sum of what is known would be too small."""
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _median(values: Iterable[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(statistics.median(known)) if known else None


def _bounds(mixed: Sequence[StepPoint], decoding: Sequence[StepPoint]) -> tuple[float | None, float | None, int]:
    """Most of the running requests' part of a mixed step, least of the prompts', ns (medians), and steps with a bound."""
    most, least = [], []
    for step in mixed:
        running = step.composition.decode_requests if step.composition is not None else None
        if running is None:
            continue
        like = [
            other.busy_ns
            for other in decoding
            if other.requests is not None and abs(other.requests - running) <= max(1.0, _LIKE * running)
        ]
        if like:
            bound = min(float(statistics.median(like)), float(step.busy_ns))
            most.append(bound)
            least.append(step.busy_ns - bound)
    if not most:
        return None, None, 0
    return float(statistics.median(most)), float(statistics.median(least)), len(most)
