"""What several ranks say together, as records. Times are integer nanoseconds; unknown is None."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import frozen

__all__ = ["CAUSES", "Cause", "ClockOffset", "Lateness", "Pairing", "PlaceSkew", "StageWaiting", "Straggler"]

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

    how: Literal["communicator and order", "name and order", "not paired"]
    collectives: int
    """Pairs (of as many calls as ranks take part)."""
    left_out: int
    """Calls that have no counterpart, over all ranks."""
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


@frozen
class Lateness:
    """What one rank's lateness costs another one in one stage."""

    late: int
    waiting: int
    stage: str
    collectives: int
    """At which ``late`` came last."""
    cost_ns: int
    """So long did ``waiting`` wait in them."""
    skew_median_ns: int
    """Of the starts of the two, over these collectives."""
    skew_largest_ns: int
    kernels_ns: int
    """From the collective before to this one, ``late`` took longer than ``waiting`` by: its own kernels; this and the next five
    add up to the skew of the starts, as far as the ends of the collective before agree. Negative: it was faster in this."""
    synchronises_ns: int
    """Its GPU was idle while its host was in synchronises."""
    launching_ns: int
    other_calls_ns: int
    python_ns: int
    """Its host was in no CUDA call: Python, the framework, the program."""
    in_graph_ns: int
    """Between nodes of a CUDA graph."""

    def cause(self) -> tuple[Cause, int]:
        """The largest part, and how long it is."""
        parts = {cause: int(getattr(self, f"{cause}_ns")) for cause in CAUSES}
        largest = max(CAUSES, key=lambda cause: parts[cause])
        return largest, parts[largest]


@frozen
class PlaceSkew:
    """The collectives of one step (or of a stage without steps)."""

    place: str
    """As the first rank names it: ``image[0]/decode/decode_step#3``."""
    stage: str
    start_ns: int
    """Of its first collective, on the first rank's clock."""
    collectives: int
    late: int
    """The rank that the others waited for longest."""
    waiting_ns: tuple[int, ...]
    """By rank, in the order of ranks."""
    skew_ns: int
    """Largest difference of the starts of one collective."""


@frozen
class Straggler:
    """The rank that the others wait for longest."""

    rank: int
    collectives: int
    """At which it came last."""
    of: int
    """Collectives in which it takes part."""
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
    """Start of that stretch after the first collective."""
    steps: int
    """In that stretch."""
    of_steps: int
