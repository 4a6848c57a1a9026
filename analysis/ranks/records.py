"""What several ranks say together, as records. Times are integer nanoseconds; unknown is None."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import frozen

from analysis.domain.program import WallTimes

__all__ = [
    "CAUSES",
    "Cause",
    "ClockOffset",
    "Lateness",
    "Pairing",
    "PlaceSkew",
    "RankRow",
    "RankStage",
    "RanksReport",
    "StageWaiting",
    "Straggler",
]

Cause: TypeAlias = Literal["kernels", "synchronises", "launching", "other_calls", "python", "in_graph"]
CAUSES: Final[tuple[Cause, ...]] = ("kernels", "synchronises", "launching", "other_calls", "python", "in_graph")
"""What a late rank did longer than the one that waits: its own kernels, or idle GPU by what its host did."""


@frozen
class ClockOffset:
    """How far the clock of a rank's file is ahead of that of the first rank's."""

    rank: int
    offset_ns: int
    """Median difference of the ends of collectives."""
    residual_ns: int
    """95 % of the ends agree to within this, once the offset is taken off."""


@frozen
class Pairing:
    """How the ranks' collectives were paired."""

    how: Literal["communicator and order", "communicator or name, and order", "name and order", "not paired"]
    collectives: int
    """Pairs (of as many calls as ranks take part)."""
    left_out: int
    """Calls that have no counterpart, over all ranks."""
    by_name: int
    """Of ``collectives``, those whose communicator is not known, and which are paired by kernel name and order."""
    by_name_because: str | None
    """Why; None: there are none."""
    point_to_point: int
    """Sends and receives over all ranks: they are not paired."""
    because: str | None
    """Why something is left out, or everything."""
    one_clock: bool
    """All ranks are in one file, whose clock is taken as it is."""
    clocks: tuple[ClockOffset, ...]
    """Of each rank that was aligned."""


@frozen
class StageWaiting:
    """The collectives of one rank in one stage."""

    rank: int
    stage: str
    collectives: int
    total_ns: int
    """Their kernels' time: transfer and waiting."""
    transfer_ns: int
    """The shortest duration of each over the ranks."""
    waiting_ns: int
    """What its own take beyond that: it waits for a rank that is late."""
    at_start_ns: int
    """The same in collectives that open the capture: before them nothing says when the ranks stood together, so no rank is
    late. The three add up to ``total_ns``."""


@frozen
class Lateness:
    """What one rank's lateness costs another one in one stage."""

    late: int
    waiting: int
    stage: str
    at_start: bool
    """Of collectives that open the capture: ``late`` only came last, and what it did before them is not known. Such rows count
    for no rank's lateness."""
    collectives: int
    """At which ``late`` came last."""
    cost_ns: int
    """So long did ``waiting`` wait in them."""
    skew_median_ns: int
    """Of the starts of the two, over these collectives."""
    skew_largest_ns: int
    kernels_ns: int | None
    """From the collective before to this one, ``late`` took longer than ``waiting`` by: its own kernels; this and the next five
    add up to the skew of the starts, as far as the ends of the collective before agree. Negative: it was faster in this.
    None, as the next five: ``at_start``."""
    synchronises_ns: int | None
    """Its GPU was idle while its host was in synchronises."""
    launching_ns: int | None
    other_calls_ns: int | None
    python_ns: int | None
    """Its host was in no CUDA call: Python, the framework, the program."""
    in_graph_ns: int | None
    """Between nodes of a CUDA graph."""


@frozen
class PlaceSkew:
    """The collectives of one step (or of a stage without steps)."""

    place: str
    """As the first rank names it: ``image[0]/decode/decode_step#3``."""
    stage: str
    start_ns: int
    """Of its first collective, on the first rank's clock; of one that opens the capture, when the last rank came."""
    collectives: int
    late: int
    """The rank that the others waited for longest."""
    waiting_ns: tuple[int, ...]
    """By rank, in the order of ranks."""
    at_start_ns: tuple[int, ...]
    """By rank, in collectives that open the capture; not in ``waiting_ns``."""
    skew_ns: int
    """Largest difference of the starts of one collective; those that open the capture are left out."""


@frozen
class Straggler:
    """The rank that the others wait for longest."""

    rank: int
    collectives: int
    """At which it came last."""
    of: int
    """Collectives in which it takes part; those that open the capture are left out, here and in all that follows."""
    cost_ns: int
    """What the rank that waits for it longest waits."""
    waiting: int
    """That rank."""
    cause: Cause
    cause_ns: int
    since: str | None
    """First step of the stretch of steps over which it costs the others most, net of what they cost it."""
    until: str | None
    since_ns: int | None
    """Start of that stretch after that of the first step."""
    steps: int
    """In that stretch."""
    of_steps: int
    stretch_ns: int
    """Of ``cost_ns``, in that stretch."""
    peaks: int
    """Steps that each cost at least half of what the costliest does."""
    peaks_ns: int
    """What they cost."""
    first_peak: str | None
    """The first of them in time."""
    every: int | None
    """Most of them are so many steps apart; None: they are not regular, or fewer than four."""


@frozen
class RankRow:
    """One rank, all of its trace."""

    rank: int
    trace_path: str
    trace_bytes: int
    pid: int | None
    device: int
    """CUDA's number of it, as its process sees it."""
    device_name: str | None
    folder: str
    """Where its own report lies, beside the combined one."""
    kernels: int
    kernel_sum_ns: int
    busy_ns: int
    """Union of all its GPU operations, on its own device."""
    span_ns: int
    """From its first to its last GPU operation."""
    launches: int
    """Calls that launch a kernel or a graph, of its process, this device's."""
    collectives: int
    """That were paired."""
    transfer_ns: int | None
    """None: its collectives are not paired."""
    waiting_ns: int | None
    at_start_ns: int | None
    """Its waiting in collectives that open the capture, which is not in ``waiting_ns`` and counts for no rank's lateness."""
    cost_ns: int | None
    """What the other ranks wait for it, together."""
    late: int | None
    """Collectives at which it came last."""
    clock_offset_ns: int | None
    """How far its clock is ahead of the first rank's; 0 on one clock; None: nothing says."""
    clock_residual_ns: int | None


@frozen
class RankStage:
    """One stage of one rank, times as profiled, over all its instances."""

    rank: int
    stage: str
    instances: int
    steps: int
    tokens: int | None
    profiled_ns: int
    busy_ns: int
    kernels: int
    launches: int
    per: str
    """The unit of its work: ``image``, ``prompt``, ``token``, ``step`` or ``capture``."""
    unit_ns: float
    """Of one unit: median."""
    unit_busy_ns: float
    collectives: int
    transfer_ns: int | None
    waiting_ns: int | None
    at_start_ns: int | None
    """In collectives that open the capture; not in ``waiting_ns``."""
    waiting_share: float | None
    """Of ``profiled_ns`` − ``at_start_ns``."""
    mfu: float | None
    """Of its GPU, over the time as profiled, charging the rank its share of the model."""
    mbu: float | None
    bound: str
    """Of its verdict."""


@frozen
class RanksReport:
    """Several ranks of one run, side by side."""

    sentence: str
    """Where to start: the first sentence of every output."""
    then: tuple[str, ...]
    """What follows it, in the order of weight."""
    devices: str
    """``2 × NVIDIA H200``."""
    work: Literal["one model over all ranks", "one model over groups of ranks", "a model on each rank"]
    """Told by the collectives inside the stages: ranks that meet there share a model and its tokens."""
    model_ranks: tuple[int, ...]
    """By rank: over so many ranks its model is spread."""
    tokens: int | None
    """Emitted: one by each prefill and each decode step of each sequence, once for ranks that share a model."""
    wall_ns: int | None
    """From the first start of a stage on any rank to the last end, on one clock; None: clocks cannot be aligned, or no stages."""
    tokens_per_s: float | None
    """``tokens`` ÷ ``wall_ns``."""
    unknown_because: str | None
    """Why one of the three is not known."""
    ranks: tuple[RankRow, ...]
    stages: tuple[RankStage, ...]
    lateness: tuple[Lateness, ...]
    places: tuple[PlaceSkew, ...]
    pairing: Pairing
    pairing_told: str
    straggler: Straggler | None
    wall_times: WallTimes | None
    """Of the program that ran as these ranks, where its run had a control run."""
    cautions: tuple[str, ...]
    """What the captures' own findings warn of, by rank."""
