"""What bounds a stage, as records: a budget whose terms add up, and what to do about its largest terms."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import frozen

__all__ = ["IDLE_TERMS", "Action", "Budget", "BudgetTerm", "TermKey", "Verdict"]

TermKey: TypeAlias = Literal[
    "ideal",
    "kernels",
    "transfer",
    "ranks",
    "start",
    "launching",
    "synchronises",
    "python",
    "other_calls",
    "in_graph",
    "idle",
]
IDLE_TERMS: Final[tuple[TermKey, ...]] = ("launching", "synchronises", "python", "other_calls", "in_graph", "idle")


@frozen
class BudgetTerm:
    """One term of a stage's budget."""

    key: TermKey
    label: str
    per_unit_ns: int
    """Of one unit of the stage's work."""
    share: float
    """Of the stage's time."""
    how: Literal["measured", "scaled", "computed"]
    """``measured``: read from the trace; ``scaled``: its share was measured under the profiler and applied to the idle time
    without it; ``computed``: from what must be moved and computed, at peak."""
    ceiling_ns: int | None
    """What removing its cause saves at most, of one unit; 0: nothing on this device; None: not known."""
    action: str
    arithmetic: str


@frozen
class Budget:
    """Where the time of one unit of a stage's work goes: terms that add up to it exactly, in whole nanoseconds."""

    per: str
    """The unit: ``image``, ``prompt``, ``token``, ``step`` or ``capture``."""
    time_base: Literal["unprofiled", "profiled"]
    time_ns: int
    terms: tuple[BudgetTerm, ...]
    """In the order of reading; their times add up to ``time_ns``."""

    def largest(self) -> tuple[BudgetTerm, ...]:
        """Terms by time, longest first; those of no time left out."""
        return tuple(sorted((one for one in self.terms if one.per_unit_ns), key=lambda one: -one.per_unit_ns))

    def label(self) -> tuple[BudgetTerm, ...]:
        """`largest`, but an idle term first where the GPU idles, in all, longer than it works; never the start of the capture.

        A GPU that idles most of the time is not bound by its kernels, into however many terms its idle time splits. Nor is it
        bound by collectives while it idles longer than these take.
        """
        ordered = tuple(one for one in self.largest() if one.key != "start") or self.largest()
        collectives: tuple[TermKey, ...] = ("ranks", "transfer")
        idle_ns = self.time_of(*IDLE_TERMS)
        works_ns = self.time_ns - idle_ns - self.time_of("start")
        rival = self.time_of(*collectives) if ordered and ordered[0].key in collectives else works_ns
        if ordered and ordered[0].key not in IDLE_TERMS and idle_ns > rival:
            idle = next(one for one in ordered if one.key in IDLE_TERMS)
            return (idle, *(one for one in ordered if one is not idle))
        return ordered

    def time_of(self, *keys: TermKey) -> int:
        """Time of some terms together, ns."""
        return sum(one.per_unit_ns for one in self.terms if one.key in keys)


@frozen
class Action:
    """Something to do, and the most that it could bring. Ceilings of different actions may overlap."""

    stage: str
    kind: Literal["launches", "synchronises", "expert loop", "materialised", "small kernels", "data movement",
                  "below roofline", "ranks", "graph gaps", "hidden kernels"]  # fmt: skip
    sentence: str
    short: str
    """What to do in a few words, without the stage's name: ``replay it from a CUDA graph``."""
    terms: tuple[TermKey, ...]
    """Of the stage's budget, which it takes from; ``ceiling_per_unit_ns`` is at most their time."""
    modules: tuple[str, ...]
    kernels: tuple[str, ...]
    """What they do, in words."""
    arithmetic: str
    ceiling_per_unit_ns: float
    per: str
    ceiling_ns: int
    """Over one pass through the inputs."""
    rank: int = 0
    """Place among the first actions of all stages, from 1: by ``ceiling_ns``, a module's known cause before its other data
    movement."""


@frozen
class Verdict:
    """What bounds a stage, and what to do."""

    stage: str
    """prefill, decode, or ``capture``: the whole of a trace without stages."""
    bound: str
    """The largest term of the budget: launch-bound, host-bound in Python, synchronise-bound, bound by other CUDA calls,
    idle, kernel-bound, memory-bound, compute-bound, communication-bound, waiting for ranks, bound by gaps in graphs; or
    unknown."""
    sentence: str
    evidence: tuple[str, ...]
    action: str
    ceiling_ns: int | None
    """What the first action can save at most, over one pass through the inputs, ns."""
    ceiling: str
    """The same in words."""
    budget: Budget | None = None
    """None: nothing ran on the GPU, or the capture is unfit."""
    actions: tuple[Action, ...] = ()
    """The three that could bring most, the first of which is ``action``."""
