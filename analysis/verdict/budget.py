"""Where the time of one image or token goes: a sum in whole nanoseconds, term by term.

The GPU-busy time splits into the ideal time (what must be moved and computed, at peak), collectives, and what kernels take
beyond; the idle time by what the host did meanwhile. Busy time is the trace's, which profiling does not change; the stage's
time is that without the profiler where a control run measured it. Then the idle time is the difference of the two, and its
split, which only the trace knows, is scaled to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from analysis.domain.figures import difference, duration, part_of
from analysis.verdict.facts import Facts
from analysis.verdict.records import Budget, BudgetTerm, TermKey

__all__ = ["BOUND_BY", "budget_of", "split_exactly"]

BOUND_BY: Final[dict[TermKey, str]] = {
    "kernels": "kernel-bound",
    "transfer": "communication-bound",
    "ranks": "waiting for ranks",
    "start": "waiting for ranks at the start of the capture",
    "launching": "launch-bound",
    "synchronises": "synchronise-bound",
    "python": "host-bound in Python",
    "other_calls": "bound by other CUDA calls",
    "in_graph": "bound by gaps in graphs",
    "idle": "idle",
}
"""Largest term → label; that of ``ideal`` is told by which of the two floors is the higher one."""

_IDLE_LABELS: Final[dict[TermKey, str]] = {
    "launching": "idle: launching",
    "synchronises": "idle: in synchronises and drained behind them",
    "python": "idle: in Python and the framework",
    "other_calls": "idle: in other CUDA calls",
    "in_graph": "idle: between nodes of a CUDA graph",
    "idle": "idle: what the host did is not known",
}
_IDLE_ACTIONS: Final[dict[TermKey, str]] = {
    "launching": "fewer launches: compile, fuse, batch, or replay from a CUDA graph",
    "synchronises": "remove the synchronises, or keep work queued behind them",
    "python": "less host code per launch: compile, or replay from a CUDA graph",
    "other_calls": "move allocations, queries and module loading out of the stage",
    "in_graph": "fewer, larger nodes: fuse the kernels before the graph is recorded",
    "idle": "capture with CUDA calls traced",
}


@frozen
class _Piece:
    key: TermKey
    label: str
    ns: int
    how: str
    action: str
    arithmetic: str
    saves: bool | None = True
    """Whether removing its cause could save all of it; None: how much of it is not known."""


def budget_of(facts: Facts) -> Budget | None:
    """Split the time of one unit of a stage's work.

    Returns:
        None: no time passed, or nothing ran on the GPU.
    """
    times = facts.times
    time = round(times.time_ns)
    if time <= 0 or not facts.stage.busy_ns:
        return None
    busy = min(round(times.busy_ns), time)
    pieces = [*_busy(facts, busy), *_idle(facts, time, busy)]
    return Budget(
        per=times.per,
        time_base=times.busy_share_base,
        time_ns=time,
        terms=tuple(
            BudgetTerm(
                key=one.key,
                label=one.label,
                per_unit_ns=one.ns,
                share=one.ns / time,
                how=one.how,  # type: ignore[arg-type]
                ceiling_ns=None if one.saves is None else one.ns if one.saves else 0,
                action=one.action,
                arithmetic=one.arithmetic,
            )
            for one in pieces
            if one.ns
        ),
    )


def _busy(facts: Facts, busy: int) -> list[_Piece]:
    """Ideal, collectives and kernels beyond: they add up to the busy time."""
    each = _each(facts)
    sums, stage = facts.communication, facts.stage
    everything = stage.gpu.kernel_sum_ns + stage.gpu.memcpy_ns + stage.gpu.memset_ns + stage.gpu.graph_ns
    collectives = round(busy * sums.total_ns / everything) if everything else 0
    waited = facts.rank_wait
    at_start = 0
    if waited is not None:
        waiting = round(collectives * waited.waiting_ns / waited.total_ns)
        at_start = round(collectives * waited.at_start_ns / waited.total_ns)
    else:
        waiting = round(collectives * (sums.total_ns - sums.fastest_ns) / sums.total_ns) if sums.total_ns else 0
    transfer = collectives - waiting - at_start
    row = facts.busy_base
    known = row is not None and row.ideal_unit_ns is not None
    ideal = (
        min(busy - collectives, round(row.ideal_unit_ns)) if row is not None and row.ideal_unit_ns is not None else 0
    )
    kernels = busy - collectives - ideal
    pieces = []
    if known:
        shown = difference(busy - collectives, ideal)
        pieces.append(
            _Piece("ideal", "ideal: must be moved and computed, at peak", ideal, "computed",
                   "needs less work: lower precision, smaller inputs, larger batches",
                   f"the larger of FLOPs ÷ peak FLOP/s and bytes ÷ peak bytes/s: {duration(ideal)} {each}", saves=False)
        )  # fmt: skip
        pieces.append(
            _Piece("kernels", "kernels below their roofline and extra traffic: not told apart without counters", kernels,
                   "measured", "fewer, larger or better kernels: the actions name them",
                   f"GPU busy {shown.whole} − ideal {shown.part} = {shown.rest} {each}")
        )  # fmt: skip
    else:
        because = (row.unknown_because if row else None) or "FLOPs and bytes are unknown"
        pieces.append(
            _Piece("kernels", "kernels: their ideal time is not known", kernels, "measured",
                   "name the model (--model), so that the ideal time is known",
                   f"GPU busy {duration(kernels)} {each}; ideal time n/a: {because}", saves=None)
        )  # fmt: skip
    if collectives and waited is not None:
        parts = difference(collectives - at_start, waiting)
        late = "another rank" if waited.late_rank is None else f"rank {waited.late_rank}"
        pieces += [
            _Piece("ranks", f"collectives: waiting for {late}", waiting, "measured",
                   f"make {late} faster{f': {waited.cause}' if waited.cause else ''}",
                   f"collectives {parts.whole} − as long as the same call takes on the rank that comes last {parts.rest} = "
                   f"{parts.part} {each}"),
            _Piece("transfer", "collectives: transfer", transfer, "measured",
                   "overlap collectives with computation, fuse them, or send less",
                   f"the shortest duration of each over the ranks: {duration(transfer)} {each}"),
            _Piece("start", "collectives: waiting at the start of the capture", at_start, "measured",
                   "capture later or longer: no rank is known to be late, for the captures of ranks begin at different moments",
                   f"collectives before which nothing says when the ranks stood together, beyond their transfer: "
                   f"{duration(at_start)} {each}", saves=None),
        ]  # fmt: skip
    elif collectives:
        parts = difference(collectives, waiting)
        pieces.append(
            _Piece("ranks", "collectives beyond their fastest call: waiting for other ranks, or a busy link", waiting,
                   "measured", "look at the other ranks' traces for what makes them late",
                   f"collectives {parts.whole} − as fast as the fastest of their kind "
                   f"{difference(collectives, waiting).rest} = {parts.part} {each}")
        )  # fmt: skip
        pieces.append(
            _Piece("transfer", "collectives at their fastest", transfer, "measured",
                   "overlap collectives with computation, fuse them, or send less",
                   f"calls × the fastest call of their kind: {duration(transfer)} {each}")
        )  # fmt: skip
    return pieces


def _idle(facts: Facts, time: int, busy: int) -> list[_Piece]:
    """The idle time by what the host did: they add up to time − busy."""
    idle, gaps = time - busy, facts.gaps
    if idle <= 0:
        return []
    if gaps is None or not gaps.total_ns:
        return [_Piece("idle", _IDLE_LABELS["idle"], idle, "measured", _IDLE_ACTIONS["idle"],
                       f"{duration(time)} − {duration(busy)} GPU busy")]  # fmt: skip
    keys: tuple[TermKey, ...] = ("launching", "synchronises", "python", "other_calls", "in_graph")
    measured = (
        gaps.launching_ns,
        gaps.synchronising_ns + gaps.draining_ns,
        gaps.outside_api_ns,
        gaps.other_api_ns,
        gaps.in_graph_ns,
    )
    parts = split_exactly(idle, measured)
    scaled = facts.times.unprofiled_ns is not None
    pieces = []
    for key, ns, part in zip(keys, parts, measured, strict=True):
        shown = part_of(part, gaps.total_ns)
        arithmetic = f"{shown.part} of {shown.whole} idle in the captured instances = {shown.share}"
        if scaled:
            arithmetic += f", of {duration(idle)} idle without the profiler {_each(facts)}"
        pieces.append(
            _Piece(key, _IDLE_LABELS[key], ns, "scaled" if scaled else "measured", _IDLE_ACTIONS[key], arithmetic)
        )
    return pieces


def split_exactly(whole: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers that add up to ``whole``, in proportion to weights (largest remainders are rounded up)."""
    total = sum(weights)
    floors = [whole * weight // total for weight in weights]
    remainders = [whole * weight % total for weight in weights]
    for place in sorted(range(len(weights)), key=lambda place: -remainders[place])[: whole - sum(floors)]:
        floors[place] += 1
    return floors


def _each(facts: Facts) -> str:
    return "in all" if facts.is_whole_capture else f"per {facts.times.per}"
