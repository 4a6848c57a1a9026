"""Pair the collectives of several ranks, and tell waiting from transfer.

All ranks leave a collective at about the same time, and none before the last has come: so a collective's duration on the
rank that comes last is about what the transfer takes, and what another rank's takes beyond that is waiting for it. The ends
also tell how far the clocks of two files are apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np
from attrs import evolve, frozen
from numpy.typing import NDArray

from analysis.domain.figures import count, duration
from analysis.ranks.collectives import NOT_NAMED, Collectives
from analysis.ranks.records import CAUSES, ClockOffset, Lateness, Pairing, PlaceSkew, StageWaiting, Straggler

__all__ = ["Pairs", "lateness", "pair", "place_skews", "stage_waiting", "straggler", "told"]

Ints = NDArray[np.int64]

_How: TypeAlias = Literal["communicator and order", "communicator or name, and order", "name and order", "not paired"]

_PEAK: Final = 0.5
"""Of the costliest step's cost makes a step one of the peaks."""
_OVERLAP: Final = 0.99
"""Of the pairs must share time on the aligned clocks; else the order of calls does not say which belong together."""


@frozen(eq=False)
class Pairs:
    """Collectives in which several ranks take part, in order of time. Arrays are [ranks, pairs]."""

    ranks: tuple[Collectives, ...]
    numbers: tuple[int, ...]
    """What the ranks are called, in their order: records and sentences name them so."""
    pairing: Pairing
    row: NDArray[np.int64]
    """Of each rank's `Collectives`; -1: the rank takes no part."""
    start_ns: Ints
    """On the clock of the first rank; where a rank takes no part, 0."""
    duration_ns: Ints
    transfer_ns: Ints
    """The shortest duration over the ranks, [pairs]."""
    late: NDArray[np.int64]
    """The rank that came last, its place in the order of ranks, [pairs]."""
    opening: NDArray[np.bool_]
    """Which open the capture, [pairs]: no collective before them held all ranks that take part, so nothing in the capture says
    when these last stood together. The captures of ranks begin at moments of their own; the wait tells of these moments too."""

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which rank takes part in which."""
        there: NDArray[np.bool_] = self.row >= 0
        return there

    @property
    def beyond_transfer_ns(self) -> Ints:
        """Own duration − transfer."""
        return np.where(self.present, self.duration_ns - self.transfer_ns, 0)

    @property
    def waiting_ns(self) -> Ints:
        """`beyond_transfer_ns`, where a rank can be late: not in collectives that open the capture."""
        return np.where(self.opening, 0, self.beyond_transfer_ns)

    @property
    def at_start_ns(self) -> Ints:
        """`beyond_transfer_ns` in collectives that open the capture."""
        return np.where(self.opening, self.beyond_transfer_ns, 0)


def pair(ranks: Sequence[Collectives], *, one_clock: bool, numbers: Sequence[int] | None = None) -> Pairs:
    """Pair collectives by communicator and order where NCCL's payloads name it, else by kernel name and order.

    Args:
        ranks: of each rank, in the order of ranks.
        one_clock: whether all are of one file.
        numbers: of the ranks; None: 0, 1 and so on.
    """
    numbers = tuple(range(len(ranks)) if numbers is None else numbers)
    groups, missing = _groups(ranks, numbers)
    elsewhere = sum(rank.point_to_point for rank in ranks)
    row = _rows(ranks, groups)
    start, end = _times(ranks, row)
    clocks = _clocks(row, end)
    nothing = "there are no collectives that several ranks take part in"
    if not row.shape[1]:
        return _unpaired(ranks, numbers, elsewhere, missing or nothing, one_clock)
    by_name, by_name_because = _by_name(ranks, row)
    how: _How = "name and order" if by_name else "communicator and order"
    if 0 < by_name < row.shape[1]:
        how = "communicator or name, and order"
    offsets = np.array([clocks[rank].offset_ns if rank in clocks else 0 for rank in range(len(ranks))])
    aligned = np.zeros_like(offsets) if one_clock else offsets
    present = row >= 0
    start, end = np.where(present, start - aligned[:, None], 0), np.where(present, end - aligned[:, None], 0)
    latest = np.where(present, start, np.iinfo(np.int64).min)
    earliest_end = np.where(present, end, np.iinfo(np.int64).max).min(axis=0)
    together = float((latest.max(axis=0) <= earliest_end).mean())
    if together < _OVERLAP:
        reason = (
            f"paired by {how}, only {together:.0%} of {count(row.shape[1])} collectives overlap in time over the ranks: "
            "the captures do not hold the same calls"
        )
        return _unpaired(ranks, numbers, elsewhere, reason, one_clock)
    order = np.argsort(np.where(present, start, np.iinfo(np.int64).max).min(axis=0), kind="stable")
    row, start, end, present = row[:, order], start[:, order], end[:, order], present[:, order]
    lasted = np.where(present, end - start, 0)
    return Pairs(
        ranks=tuple(ranks),
        numbers=numbers,
        pairing=Pairing(
            how=how,
            collectives=row.shape[1],
            left_out=sum(len(rank) for rank in ranks) - int(present.sum()),
            by_name=by_name,
            by_name_because=by_name_because,
            point_to_point=elsewhere,
            because=missing,
            one_clock=one_clock,
            clocks=tuple(evolve(clocks[rank], rank=numbers[rank]) for rank in sorted(clocks)),
        ),
        row=row,
        start_ns=start,
        duration_ns=lasted,
        transfer_ns=np.where(present, lasted, np.iinfo(np.int64).max).min(axis=0),
        late=np.where(present, start, np.iinfo(np.int64).min).argmax(axis=0),
        opening=_opening(present),
    )


def _opening(present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The first pair of each set of ranks, unless one before it held them all (and perhaps more), [pairs]."""
    opening = np.zeros(present.shape[1], dtype=bool)
    for first in np.unique(present, axis=1, return_index=True)[1].tolist():
        opening[first] = not present[present[:, first], :first].all(axis=0).any()
    return opening


@frozen(eq=False)
class _Group:
    """Calls of one communicator, or of one name: row of each rank that takes part, in order."""

    rows: dict[int, NDArray[np.intp]]


def _groups(ranks: Sequence[Collectives], numbers: Sequence[int]) -> tuple[list[_Group], str | None]:
    """What can be paired, and why something cannot."""
    by_key: dict[tuple[int, str], dict[int, NDArray[np.intp]]] = {}
    for number, rank in enumerate(ranks):
        for identity in np.unique(rank.communicator).tolist():
            mine = rank.communicator == identity
            if identity:
                by_key.setdefault((identity, ""), {})[number] = np.flatnonzero(mine)
                continue
            for code, name in enumerate(rank.names):
                of_name = np.flatnonzero(mine & (rank.name == code))
                if of_name.size:
                    by_key.setdefault((0, name), {})[number] = of_name
    groups, reasons = [], []
    for (identity, name), rows in by_key.items():
        what = f"communicator {identity:x}" if identity else name
        counts = {number: places.size for number, places in rows.items()}
        if len(rows) < 2:
            reasons.append(f"{what}: only rank {numbers[next(iter(rows))]} of the traces calls it")
        elif len(set(counts.values())) > 1:
            told = ", ".join(f"rank {numbers[number]} {count(size)}" for number, size in counts.items())
            reasons.append(f"{what}: the ranks call it unequally often ({told})")
        else:
            groups.append(_Group(rows))
    return groups, "; ".join(reasons) or None


def _rows(ranks: Sequence[Collectives], groups: Sequence[_Group]) -> NDArray[np.int64]:
    parts = [np.zeros((len(ranks), 0), dtype=np.int64)]
    for group in groups:
        part = np.full((len(ranks), next(iter(group.rows.values())).size), -1, dtype=np.int64)
        for number, places in group.rows.items():
            part[number] = places
        parts.append(part)
    return np.concatenate(parts, axis=1)


def _times(ranks: Sequence[Collectives], row: NDArray[np.int64]) -> tuple[Ints, Ints]:
    start, end = np.zeros_like(row), np.zeros_like(row)
    for number, rank in enumerate(ranks):
        there = row[number] >= 0
        start[number, there] = rank.start_ns[row[number, there]]
        end[number, there] = rank.end_ns[row[number, there]]
    return start, end


def _clocks(row: NDArray[np.int64], end: Ints) -> dict[int, ClockOffset]:
    """Offset of each rank that shares collectives, directly or through others, with the first."""
    clocks = {0: ClockOffset(0, 0, 0)} if row.shape[1] else {}
    pending = True
    while pending:
        pending = False
        for rank in range(row.shape[0]):
            if rank in clocks:
                continue
            for known in list(clocks):
                both = (row[rank] >= 0) & (row[known] >= 0)
                if both.any():
                    apart = end[rank, both] - end[known, both]
                    offset = int(np.median(apart))
                    residual = int(np.percentile(np.abs(apart - offset), 95))
                    clocks[rank] = ClockOffset(rank, offset + clocks[known].offset_ns, residual)
                    pending = True
                    break
    return clocks


def _by_name(ranks: Sequence[Collectives], row: NDArray[np.int64]) -> tuple[int, str | None]:
    """How many pairs no communicator names, and why; of several reasons each with its number."""
    first = (row >= 0).argmax(axis=0)
    why = np.full(row.shape[1], -1, dtype=np.int64)
    for number, rank in enumerate(ranks):
        mine = first == number
        why[mine] = rank.not_named[row[number, mine]]
    reasons = [(size, words) for code, words in enumerate(NOT_NAMED) if (size := int((why == code).sum()))]
    if len(reasons) == 1:
        return reasons[0][0], f"these {reasons[0][1]}"
    told = "; ".join(f"{count(size)} {words}" for size, words in reasons)
    return int((why >= 0).sum()), told or None


def _unpaired(
    ranks: Sequence[Collectives], numbers: tuple[int, ...], elsewhere: int, because: str, one_clock: bool
) -> Pairs:
    nothing = np.zeros((len(ranks), 0), dtype=np.int64)
    everything = sum(len(rank) for rank in ranks)
    pairing = Pairing("not paired", 0, everything, 0, None, elsewhere, because, one_clock, ())
    none = np.zeros(0, dtype=np.int64)
    return Pairs(tuple(ranks), numbers, pairing, nothing, nothing, nothing, none, none, none.astype(bool))


# --- sums ---------------------------------------------------------------------------------------------------------


def _stage_names(pairs: Pairs, rank: int) -> NDArray[np.object_]:
    """Stage of a rank's part in each pair, as the rank itself has it, [pairs]; None where it takes no part."""
    collectives = pairs.ranks[rank]
    codes = np.where(pairs.row[rank] >= 0, np.append(collectives.stage, -1)[pairs.row[rank]], -1)
    names = np.array([*collectives.stages, None], dtype=object)
    chosen: NDArray[np.object_] = names[codes]
    return chosen


def stage_waiting(pairs: Pairs) -> tuple[StageWaiting, ...]:
    """Transfer and waiting of each rank in each stage, in the order of ranks, then of stages."""
    rows = []
    waiting, at_start = pairs.waiting_ns, pairs.at_start_ns
    for rank, collectives in enumerate(pairs.ranks):
        stages = _stage_names(pairs, rank)
        for stage in collectives.stages:
            mine = stages == stage
            if mine.any():
                total = int(pairs.duration_ns[rank, mine].sum())
                waited, first = int(waiting[rank, mine].sum()), int(at_start[rank, mine].sum())
                transfer = total - waited - first
                rows.append(StageWaiting(pairs.numbers[rank], stage, int(mine.sum()), total, transfer, waited, first))
    return tuple(rows)


def lateness(pairs: Pairs) -> tuple[Lateness, ...]:
    """Who keeps whom waiting in which stage, most costly first; collectives that open the capture are rows of their own, last."""
    rows = []
    waiting = pairs.beyond_transfer_ns
    for waits in range(len(pairs.ranks)):
        stages = _stage_names(pairs, waits)
        for late in range(len(pairs.ranks)):
            both = (pairs.late == late) & (pairs.row[waits] >= 0) if late != waits else np.zeros(0, dtype=bool)
            keys = zip(stages[both].tolist(), pairs.opening[both].tolist(), strict=True) if both.any() else ()
            for stage, at_start in dict.fromkeys(keys):
                mine = both & (stages == stage) & (pairs.opening == at_start)
                skew = pairs.start_ns[late, mine] - pairs.start_ns[waits, mine]
                of_late, of_waiting = pairs.row[late, mine], pairs.row[waits, mine]
                parts = [
                    None if at_start else int(theirs[of_late].sum() - own[of_waiting].sum())
                    for theirs, own in zip(
                        pairs.ranks[late].before.columns, pairs.ranks[waits].before.columns, strict=True
                    )
                ]
                rows.append(
                    Lateness(
                        pairs.numbers[late], pairs.numbers[waits], str(stage), at_start, int(mine.sum()),
                        int(waiting[waits, mine].sum()),
                        int(np.median(skew)), int(skew.max()), *parts,
                    )
                )  # fmt: skip
    return tuple(sorted(rows, key=lambda row: (row.at_start, -row.cost_ns, row.late, row.waiting)))


def _by_place(pairs: Pairs) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Places of the first rank and their pairs, in time order."""
    first = pairs.ranks[0]
    codes = np.where(pairs.row[0] >= 0, np.append(first.place, -1)[pairs.row[0]], -1)
    for code in range(len(first.places)):
        mine = codes == code
        if mine.any():
            yield code, mine


def _began(pairs: Pairs) -> Ints:
    """When the first rank came to each, [pairs]; to one that opens the capture, the last rank: before, it says nothing."""
    first = np.where(pairs.present, pairs.start_ns, np.iinfo(np.int64).max).min(axis=0)
    last = np.where(pairs.present, pairs.start_ns, np.iinfo(np.int64).min).max(axis=0)
    began: Ints = np.where(pairs.opening, last, first)
    return began


def place_skews(pairs: Pairs) -> tuple[PlaceSkew, ...]:
    """Step by step, who was late and how long the others waited."""
    waiting, at_start, stages = pairs.waiting_ns, pairs.at_start_ns, _stage_names(pairs, 0)
    costs = waiting.sum(axis=0)
    began = _began(pairs)
    skew = np.where(pairs.present, pairs.start_ns, np.iinfo(np.int64).min).max(axis=0) - began
    rows = []
    for code, mine in _by_place(pairs):
        by_late = np.bincount(pairs.late[mine], weights=costs[mine], minlength=len(pairs.ranks))
        rows.append(
            PlaceSkew(
                place=pairs.ranks[0].places[code],
                stage=str(stages[mine][0]),
                start_ns=int(began[mine].min()),
                collectives=int(mine.sum()),
                late=pairs.numbers[int(by_late.argmax())],
                waiting_ns=tuple(waiting[:, mine].sum(axis=1).tolist()),
                at_start_ns=tuple(at_start[:, mine].sum(axis=1).tolist()),
                skew_ns=int(skew[mine].max()),
            )
        )
    return tuple(sorted(rows, key=lambda row: row.start_ns))


def straggler(pairs: Pairs, late: Sequence[Lateness], places: Sequence[PlaceSkew]) -> Straggler | None:
    """The rank that keeps another one waiting longest.

    Args:
        pairs: of all ranks.
        late: `lateness` of them.
        places: `place_skews` of them.

    Returns:
        None: no rank waits for another one.
    """
    cost: dict[tuple[int, int], int] = {}
    late = [row for row in late if not row.at_start]
    for row in late:
        cost[row.late, row.waiting] = cost.get((row.late, row.waiting), 0) + row.cost_ns
    if not cost or not max(cost.values()):
        return None
    rank, waiting = max(cost, key=lambda key: cost[key])
    mine = [row for row in late if (row.late, row.waiting) == (rank, waiting)]
    sums = {cause: sum(getattr(row, f"{cause}_ns") for row in mine) for cause in CAUSES}
    cause = max(CAUSES, key=lambda name: sums[name])
    place, place_waiting = pairs.numbers.index(rank), pairs.numbers.index(waiting)
    net = _net(pairs, rank, places)
    first, last = _heaviest(net)
    takes_part = (pairs.row[place] >= 0) & ~pairs.opening
    each = _costs(pairs, place, place_waiting)
    peaks = [step for step, value in enumerate(each) if value and value >= _PEAK * max(each)]
    return Straggler(
        rank=rank,
        collectives=int((pairs.late[takes_part] == place).sum()),
        of=int(takes_part.sum()),
        cost_ns=cost[rank, waiting],
        waiting=waiting,
        cause=cause,
        cause_ns=sums[cause],
        since=places[first].place if places else None,
        until=places[last].place if places else None,
        since_ns=places[first].start_ns - places[0].start_ns if places else None,
        steps=last - first + 1 if places else 0,
        of_steps=len(places),
        stretch_ns=sum(each[first : last + 1]),
        peaks=len(peaks),
        peaks_ns=sum(each[step] for step in peaks),
        first_peak=places[peaks[0]].place if peaks else None,
        every=_regular(peaks),
    )


def _costs(pairs: Pairs, rank: int, waiting: int) -> list[int]:
    """By place in the order of `place_skews`: what one rank waits at it for another."""
    waited, began = np.where(pairs.late == rank, pairs.waiting_ns[waiting], 0), _began(pairs)
    entries = [(int(began[mine].min()), int(waited[mine].sum())) for _, mine in _by_place(pairs)]
    return [cost for _, cost in sorted(entries, key=lambda entry: entry[0])]


def _regular(places: Sequence[int]) -> int | None:
    """How far apart most of a few places are; None: no distance holds for three of four."""
    if len(places) < 4:
        return None
    apart = np.diff(places).tolist()
    usual = max(set(apart), key=apart.count)
    return int(usual) if apart.count(usual) >= 0.75 * len(apart) else None


def _net(pairs: Pairs, rank: int, places: Sequence[PlaceSkew]) -> list[int]:
    """By place: what the others waited for the rank − what it waited for them."""
    place = pairs.numbers.index(rank)
    return [
        sum(row.waiting_ns) - 2 * row.waiting_ns[place] if row.late == rank else -sum(row.waiting_ns) for row in places
    ]


def _heaviest(values: Sequence[int]) -> tuple[int, int]:
    """First and last place of the stretch with the largest sum (Kadane's algorithm)."""
    best, best_span, running, begin = -(2**62), (0, 0), 0, 0
    for place, value in enumerate(values):
        if running <= 0:
            running, begin = 0, place
        running += value
        if running > best:
            best, best_span = running, (begin, place)
    return best_span


def told(pairing: Pairing) -> str:
    """How the ranks were paired, and how well their clocks agree, as a sentence."""
    if pairing.how == "not paired":
        return f"Collectives are not paired: {pairing.because}."
    worst = max((clock.residual_ns for clock in pairing.clocks), default=0)
    agree = f"95 % of their ends agree to within {duration(worst)}"
    clock = (
        f"all ranks are on one clock, on which {agree}"
        if pairing.one_clock
        else f"clocks are aligned at their ends: {agree}"
    )
    rest = f" {pairing.because[:1].upper()}{pairing.because[1:]}." if pairing.because else ""
    how = f"by {pairing.how}"
    if pairing.how == "communicator or name, and order":
        named = pairing.collectives - pairing.by_name
        how = f"by order: {count(named)} by communicator, {count(pairing.by_name)} by name"
    why = f" ({pairing.by_name_because})" if pairing.by_name_because else ""
    return f"{count(pairing.collectives)} collectives are paired {how}{why}; {clock}.{rest}"
