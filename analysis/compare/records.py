"""What a comparison of runs says: settings, latencies, and where their difference comes from.

Two sides have an order: the base, and the new one that is held against it. A difference is new − base; what takes longer is
positive. All times are per unit of the stage's work (`UnitTimes`), so that 4 pages can be held against 12.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import frozen

__all__ = [
    "Answer",
    "Comparison",
    "Contribution",
    "ContributionKind",
    "Diff",
    "Interval",
    "KernelMatch",
    "Level",
    "MatchKind",
    "SettingChange",
    "SettingGroup",
    "SideSummary",
    "StageDifference",
]

Answer: TypeAlias = Literal["regression", "improvement", "equal", "cannot judge"]
SettingGroup: TypeAlias = Literal["model", "inputs", "options", "versions", "driver", "device", "clocks", "tool"]
Level: TypeAlias = Literal["stage", "module", "class", "kernel", "host"]
ContributionKind: TypeAlias = Literal[
    "GPU time", "copies", "overlap", "launches", "waits", "other calls", "Python", "in graph", "rest"
]
"""What the time of a contribution is: of operations on the GPU (at level ``host`` its copies and sets apart); what they
overlapped, a negative time; idle time of the GPU, by what the host did meanwhile (`GapSummary`): launching, waiting or letting
the queue run dry, in another CUDA call, in none; idle from node to node of a CUDA graph; or what nothing above explains."""
MatchKind: TypeAlias = Literal["same", "same work, another kernel", "fused", "split", "new", "vanished"]


@frozen
class SideSummary:
    """One of the runs that are compared."""

    label: str
    """As the user told it apart: the shortest ends of the paths that differ."""
    path: str
    run_id: str | None
    model: str | None
    device: str | None
    collector: str
    random_weights: bool | None
    units: dict[str, int]
    """Stage → units of work in the capture."""
    samples: dict[str, tuple[float, ...]]
    """Stage → unprofiled repetitions, ns per unit, in the order in which they ran; empty: none were measured."""


@frozen
class SettingChange:
    """A setting in which the sides differ."""

    group: SettingGroup
    name: str
    values: tuple[str | None, ...]
    """One per side; None: not recorded."""
    forbids: bool
    """Whether a difference of latencies cannot be put down to the code because of it."""
    because: str = ""
    """Why it forbids that; empty: it does not."""


@frozen
class Interval:
    """How sure the difference of two medians is."""

    low_ns: float
    """Of the bootstrap interval of the difference."""
    high_ns: float
    confidence: float
    resamples: int
    base_samples: int
    new_samples: int
    band_ns: float | None
    """A/A band: by how much unchanged runs of this stage on this machine differ; None: not known."""
    band_from: str
    """What the band comes from, in words; or why there is none."""
    band_measured: bool = True
    """False: assumed, as no unchanged runs were compared."""


@frozen
class StageDifference:
    """One stage's latency on both sides."""

    stage: str
    per: str
    """``image``, ``prompt``, ``token``, ``step`` or ``range``."""
    unprofiled: bool
    """Whether these are medians of unprofiled passes; if not, of profiled ones."""
    base_ns: float | None
    new_ns: float | None
    difference_ns: float | None
    ratio: float | None
    """new ÷ base."""
    interval: Interval | None
    answer: Answer
    because: str
    """The answer's reason in one sentence, with its numbers."""
    explained: float | None
    """Share of the difference that contributions other than the rest add up to; None: there is no difference to explain, or a
    side's latency or profiling cost is taken from its own trace, which makes the rest nothing whatever happened."""


@frozen
class Contribution:
    """A part of a stage's difference. Those of one stage and level add up to the stage's difference.

    Level ``stage`` is the coarse picture (GPU time in one row), ``host`` the fine one of what the host did; ``module``,
    ``class`` and ``kernel`` split the GPU time and hold the idle time as ``stage`` does.
    """

    stage: str
    level: Level
    name: str
    """Module pattern, kernel class, kernel in words, or what the host did."""
    kind: ContributionKind
    base_ns: float
    new_ns: float
    difference_ns: float
    base_calls: float | None
    """Per unit; None: the kind has none (Python, overlap, rest)."""
    new_calls: float | None
    match: MatchKind = "same"
    note: str = ""
    """What a reader should know: which kernels became which, or how a modelled part was found."""


@frozen
class KernelMatch:
    """Kernels of one module, operator family and place on the base, and what does their work on the new side."""

    stage: str
    module: str
    """Pattern of its path (`module_patterns`)."""
    family: str
    """Operator family: the kernel's class, and what of its name is identity."""
    kind: MatchKind
    base_names: tuple[str, ...]
    new_names: tuple[str, ...]
    base_calls: float
    """Per unit."""
    new_calls: float
    base_ns: float
    """Per unit."""
    new_ns: float
    difference_ns: float
    base_bytes: float | None = None
    """DRAM traffic per unit by Nsight Compute's counters; None: not measured."""
    new_bytes: float | None = None


@frozen
class Comparison:
    """All that two sides say about each other."""

    base: SideSummary
    new: SideSummary
    headline: str
    """One sentence: what became how much faster or slower, and by what."""
    settings: tuple[SettingChange, ...]
    stages: tuple[StageDifference, ...]
    contributions: tuple[Contribution, ...]
    kernels: tuple[KernelMatch, ...]
    notes: tuple[str, ...]
    """What limits the comparison."""


@frozen
class Diff:
    """What ``diff.json`` holds: every new side against the first one."""

    headline: str
    """Of the comparison, or of that whose latencies differ most."""
    comparisons: tuple[Comparison, ...]
