"""Which launches of a trace the profiled kernels stand for.

Nsight Compute profiles the same program in another run: the k-th kernel of a stage's step there is the k-th launch of
that step here, if the sequence of names and launch shapes is the same. Three ways lead from a record to a launch, and
each launch takes the values of the first that gives it any:

1. **place** – the same place in the same sequence of launches (name, grid, block, shared memory). One profiled step
   stands for every step with that sequence.
2. **grown grid** – the same place between the same neighbours, name, block and shared memory, and a grid that differs by
   at most a quarter: a kernel over the KV cache, whose context grows from step to step.
3. **configuration** – any launch of the same stage, name, grid, block and shared memory.

Times are the trace's in any case. What finds no partner, on either side, is counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.domain.annotations import DECODE, IMAGE_NAME, STAGES
from analysis.domain.errors import RequestError
from analysis.efficiency.counters.file import CounterFile, NvtxState
from analysis.efficiency.counters.names import function_of, name_key
from analysis.trace.records import KERNEL, NO_VALUE, Device

__all__ = [
    "BY_CONFIGURATION",
    "BY_GROWN_GRID",
    "BY_PLACE",
    "UNMATCHED",
    "FileMatch",
    "JoinedCounters",
    "Launches",
    "align",
    "join_counters",
    "launches_of",
]

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]

UNMATCHED: Final = 0
BY_CONFIGURATION: Final = 1
BY_GROWN_GRID: Final = 2
BY_PLACE: Final = 3

_SAME_RUN: Final = 0.5
"""Of a file's kernels at least this share must lie, in order, in a sequence of the trace: generic elementwise kernels
alone are found in any model."""
_GROWN: Final = 1.25
_MOST_CELLS: Final = 60_000_000
"""Of the table of the longest common subsequence: 2 bytes each."""
_CANDIDATES: Final = 12
"""Sequences of a stage that a profiled one is compared with."""


@frozen(eq=False)
class Launches:
    """The kernels of a trace, instance by instance (a step, or a stage without steps), in order of launch. [n] each."""

    operation: NDArray[np.intp]
    """Index into the trace's operations."""
    stage: NDArray[np.int8]
    """Index into `STAGES`; ``len(STAGES)``: in no stage."""
    instance: Codes
    """Number of its instance, from 0 in time order; instances are contiguous."""
    place: Codes
    """Number of the launch in its instance."""
    key: Codes
    """Code of (name, grid, block, shared memory)."""
    body: Codes
    """Code of (name, block, shared memory)."""
    blocks: Codes
    """Number of blocks; -1: not recorded."""
    duration: Codes
    """ns."""
    first: NDArray[np.intp]
    """First launch of each instance and the end of the last, [instances + 1]."""
    instance_stage: NDArray[np.int8]
    instance_image: tuple[int | None, ...]
    instance_payload: tuple[int | None, ...]
    instance_is_step: tuple[bool, ...]
    codes: dict[tuple[Any, ...], int]
    """(name key, grid, block, shared memory) → key."""
    bodies: dict[tuple[Any, ...], int]
    ambiguous: frozenset[int]
    """Keys that stand for several kernels of the trace: only their place tells them apart."""

    def __len__(self) -> int:
        return int(self.operation.size)

    @property
    def instances(self) -> int:
        """How many there are."""
        return int(self.first.size - 1)

    def of(self, instance: int) -> slice:
        """The launches of an instance."""
        return slice(int(self.first[instance]), int(self.first[instance + 1]))


def launches_of(attribution: Attribution) -> Launches:
    """The kernels of a trace as sequences to compare with."""
    operations = attribution.operations
    chosen = np.flatnonzero(operations.kind == KERNEL)
    step = attribution.operation_level("step")[chosen].astype(np.int64)
    stage_row = attribution.operation_level("stage")[chosen].astype(np.int64)
    row = np.where(step >= 0, step, stage_row)
    call = attribution.launch_call[chosen]
    launched = operations.start[chosen]
    if len(attribution.calls):
        launched = np.where(call >= 0, attribution.calls.start[np.maximum(call, 0)], launched)
    order = np.lexsort((operations.start[chosen], launched, row))
    chosen, row = chosen[order], row[order]
    heads = np.flatnonzero(np.append(True, row[1:] != row[:-1])) if chosen.size else np.zeros(0, dtype=np.intp)
    # Instances in time order, the launches of none last.
    rows = row[heads]
    begin = np.where(
        rows >= 0, attribution.ranges.start[rows] if len(attribution.ranges) else 0, np.iinfo(np.int64).max
    )
    rank = np.argsort(np.argsort(begin, kind="stable"), kind="stable")
    instance = np.repeat(rank, np.diff(np.append(heads, chosen.size)))
    order = np.argsort(instance, kind="stable")
    chosen, instance, row = chosen[order], instance[order], row[order]
    first = np.append(np.flatnonzero(np.append(True, instance[1:] != instance[:-1])), chosen.size)
    first = first if chosen.size else np.zeros(1, dtype=np.intp)
    # Of an engine's steps prefill and decode alone can be matched: counters know no other stage.
    known = [STAGES.index(name) if name in STAGES else len(STAGES) for name in (*attribution.stages, "")]
    stage = np.array(known, dtype=np.int8)[attribution.operation_stage[chosen]]
    key, body, codes, bodies, ambiguous = _coded(attribution, chosen)
    of_instance = row[first[:-1]]
    return Launches(
        operation=chosen,
        stage=stage,
        instance=instance.astype(np.int64),
        place=np.arange(chosen.size) - first[instance],
        key=key,
        body=body,
        blocks=operations.shapes.grid_blocks(operations.shape[chosen]),
        duration=operations.duration[chosen],
        first=first.astype(np.intp),
        instance_stage=stage[first[:-1]],
        instance_image=tuple(_image(attribution, int(one)) for one in of_instance),
        instance_payload=tuple(_payload(attribution, int(one)) for one in of_instance),
        instance_is_step=tuple((attribution.is_level("step")[of_instance] & (of_instance >= 0)).tolist())
        if len(attribution.ranges)
        else (False,) * of_instance.size,
        codes=codes,
        bodies=bodies,
        ambiguous=ambiguous,
    )


def _image(attribution: Attribution, row: int) -> int | None:
    if row < 0:
        return None
    image = int(attribution.tree.nearest(attribution.is_level("image"))[row])
    found = IMAGE_NAME.fullmatch(attribution.ranges.names[attribution.ranges.name[image]]) if image >= 0 else None
    return int(found[1]) if found else None


def _payload(attribution: Attribution, row: int) -> int | None:
    payload = int(attribution.ranges.payload[row]) if row >= 0 else NO_VALUE
    return None if payload == NO_VALUE else payload


def _coded(
    attribution: Attribution, chosen: NDArray[np.intp]
) -> tuple[Codes, Codes, dict[tuple[Any, ...], int], dict[tuple[Any, ...], int], frozenset[int]]:
    """Codes of names and launch shapes; each distinct pair of the trace is looked at once."""
    operations = attribution.operations
    shapes = operations.shapes
    width = len(shapes) + 1
    packed = operations.name[chosen].astype(np.int64) * width + operations.shape[chosen] + 1
    present, index = np.unique(packed, return_inverse=True)
    codes: dict[tuple[Any, ...], int] = {}
    bodies: dict[tuple[Any, ...], int] = {}
    names: dict[int, str] = {}
    several: set[int] = set()
    key_of, body_of = [], []
    for one in present.tolist():
        name, shape = operations.names[one // width], one % width - 1
        short = name_key(name)
        grid = shapes.grid(shape) if shape >= 0 else None
        block = shapes.block(shape) if shape >= 0 else None
        shared = shapes.shared_bytes(shape) if shape >= 0 else None
        key = codes.setdefault((short, grid, block, shared), len(codes))
        if names.setdefault(key, name) != name:
            several.add(key)
        key_of.append(key)
        body_of.append(bodies.setdefault((short, block, shared), len(bodies)))
    return (
        np.array(key_of, dtype=np.int64)[index] if present.size else packed,
        np.array(body_of, dtype=np.int64)[index] if present.size else packed,
        codes,
        bodies,
        frozenset(several),
    )


@frozen
class FileMatch:
    """What became of one file's kernels."""

    source: str
    kernels: int
    by_place: int
    """Found at their place in a sequence of the trace, a grown grid included."""
    by_configuration: int
    unmatched: int
    unmatched_names: tuple[tuple[str, int], ...]
    """The names of the unmatched and how many of each, most first."""
    sequences: int
    """Steps and prefills that the kernels come from."""
    has_nvtx: bool


@frozen(eq=False)
class JoinedCounters:
    """Values of each metric for each launch. All arrays are [launches]."""

    launches: Launches
    files: tuple[FileMatch, ...]
    values: dict[str, Floats]
    """NaN where nothing is known."""
    how: dict[str, NDArray[np.int8]]
    """Metric → `UNMATCHED`, `BY_CONFIGURATION`, `BY_GROWN_GRID` or `BY_PLACE`."""

    def value(self, metric: str) -> Floats | None:
        """Values of a metric; None: no file has it."""
        return self.values.get(metric)


def join_counters(
    launches: Launches, files: Sequence[CounterFile], device: Device | None, metrics: Sequence[str] | None = None
) -> JoinedCounters:
    """Carry the counters of files over to the launches of a trace.

    Args:
        launches: of the trace.
        files: each may hold other metrics of the same kernels; where two have the same, the better match counts, and of
            equal ones the mean.
        device: of the trace; None: not recorded.
        metrics: to carry; None: all.

    Raises:
        RequestError: a file was measured on another device, or its kernels are not those of the trace.
    """
    sums: dict[str, list[Floats]] = {}
    how: dict[str, NDArray[np.int8]] = {}
    found = []
    classes = _Classes(launches)
    for file in files:
        _require_device(file, device)
        pairs, match = _pairs_of(launches, classes, file)
        found.append(match)
        for metric, values in file.metrics.items():
            if metrics is not None and metric not in metrics:
                continue
            if metric not in sums:
                sums[metric] = [np.zeros(len(launches)), np.zeros(len(launches))]
                how[metric] = np.full(len(launches), UNMATCHED, dtype=np.int8)
            for level, launch, record in pairs:
                _add(sums[metric], how[metric], level, launch, values[record])
    values_of = {}
    for metric, (total, count) in sums.items():
        with np.errstate(invalid="ignore"):
            values_of[metric] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return JoinedCounters(launches, tuple(found), values_of, how)


_Pairs = list[tuple[int, NDArray[np.intp], NDArray[np.intp]]]
"""(level, launches, records), best level first."""


def _add(sums: list[Floats], how: NDArray[np.int8], level: int, launch: NDArray[np.intp], value: Floats) -> None:
    known = ~np.isnan(value) & (how[launch] <= level)
    launch, value = launch[known], value[known]
    worse = launch[how[launch] < level]
    total, count = sums
    total[worse] = count[worse] = 0.0
    how[launch] = level
    total += np.bincount(launch, weights=value, minlength=total.size)
    count += np.bincount(launch, minlength=count.size)


def _require_device(file: CounterFile, device: Device | None) -> None:
    if device is None:
        return
    others = sorted(name for name in file.devices if name != device.name)
    if others:
        raise RequestError(
            f"{file.source}: was measured on {others[0]}, the trace was captured on {device.name}; profile on the same device"
        )
    if device.compute_capability and not file.devices and file.compute_capabilities - {device.compute_capability}:
        other = sorted(file.compute_capabilities - {device.compute_capability})[0]
        raise RequestError(
            f"{file.source}: was measured on a device of compute capability {other}, the trace was captured on "
            f"{device.compute_capability}; profile on the same device"
        )


# --- one file ------------------------------------------------------------------------------------------------------


def _pairs_of(launches: Launches, classes: _Classes, file: CounterFile) -> tuple[_Pairs, FileMatch]:
    key, body, blocks = _coded_records(launches, file)
    place_launch: list[NDArray[np.intp]] = []
    place_record: list[NDArray[np.intp]] = []
    grown_launch: list[NDArray[np.intp]] = []
    grown_record: list[NDArray[np.intp]] = []
    placed = np.zeros(len(file), dtype=bool)
    sequences = 0
    for state, records in _sequences(file):
        remaining = records
        while remaining.size:
            sequences += 1
            instance, partner = _best(launches, classes, state, key[remaining], sequences - 1)
            if instance is None or not (partner >= 0).any():
                break
            partner = _with_grown(launches, instance, partner, body[remaining], blocks[remaining])
            own = partner >= 0
            placed[remaining[own]] = True
            record_at = np.full(launches.of(instance).stop - launches.of(instance).start, -1, dtype=np.int64)
            record_at[partner[own]] = remaining[own]
            for launch, record in classes.carried(instance, record_at):
                same = launches.key[launch] == key[record]
                place_launch.append(launch[same])
                place_record.append(record[same])
                grown_launch.append(launch[~same])
                grown_record.append(record[~same])
            last = int(np.flatnonzero(own)[-1])
            # A range that repeats without anything that tells its instances apart: what is left is the next one's.
            remaining = (
                remaining[last + 1 :] if not own[last + 1 :].any() and last + 1 < remaining.size else remaining[:0]
            )
    at_place = [_joined(place_launch), _joined(grown_launch)]
    taken = np.zeros(len(launches), dtype=bool)
    taken[np.concatenate(at_place)] = True
    config_launch, config_record, configured = _by_configuration(launches, file, key, taken)
    matched = placed | configured
    if placed.sum() < _SAME_RUN * len(file):
        raise RequestError(
            f"{file.source}: only {int(placed.sum()):,} of its {len(file):,} kernels lie in the trace's sequence of launches: "
            "it is of another model, input or run; profile the run that was traced"
        )
    pairs: _Pairs = [
        (BY_PLACE, at_place[0], _joined(place_record)),
        (BY_GROWN_GRID, at_place[1], _joined(grown_record)),
        (BY_CONFIGURATION, config_launch, config_record),
    ]
    rest: dict[str, int] = {}
    for one in np.flatnonzero(~matched).tolist():
        rest[file.names[one]] = rest.get(file.names[one], 0) + 1
    return pairs, FileMatch(
        source=file.source,
        kernels=len(file),
        by_place=int(placed.sum()),
        by_configuration=int((configured & ~placed).sum()),
        unmatched=int((~matched).sum()),
        unmatched_names=tuple(sorted(rest.items(), key=lambda item: (-item[1], item[0]))),
        sequences=sequences,
        has_nvtx=any(state.known for state in file.state),
    )


def _joined(parts: list[NDArray[np.intp]]) -> NDArray[np.intp]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.intp)


def _coded_records(launches: Launches, file: CounterFile) -> tuple[Codes, Codes, Codes]:
    """Codes of a file's kernels in those of the trace; a kernel that the trace does not have gets one of its own."""
    keys: dict[tuple[Any, ...], int] = {}
    bodies: dict[tuple[Any, ...], int] = {}
    key, body = np.zeros(len(file), dtype=np.int64), np.zeros(len(file), dtype=np.int64)
    short: dict[str, str] = {}
    codes, bodies_there = launches.codes, launches.bodies
    told_apart = bool((file.shared_bytes >= 0).all()) and not any(part[-1] is None for part in codes)
    if not told_apart:  # where a side does not record shared memory it cannot tell launches apart
        codes, bodies_there = _without_shared(codes), _without_shared(bodies_there)
    codes_of_functions, bodies_of_functions = _by_function(codes), _by_function(bodies_there)
    for one, name in enumerate(file.names):
        words = short.get(name)
        if words is None:
            words = short[name] = name_key(name)
        shared = int(file.shared_bytes[one]) if told_apart else None
        whole = (words, file.grid[one], file.block[one], shared)
        part = (words, file.block[one], shared)
        key[one] = _code(whole, codes, codes_of_functions, keys)
        body[one] = _code(part, bodies_there, bodies_of_functions, bodies)
    blocks = np.array([x * y * z for x, y, z in file.grid], dtype=np.int64)
    return key, body, blocks


def _code(
    part: tuple[Any, ...], codes: dict[tuple[Any, ...], int], functions: dict[tuple[Any, ...], int], own: dict[Any, int]
) -> int:
    """The trace's code for a kernel; for one of another spelling, that of the only kernel of its function and shape."""
    if part in codes:
        return codes[part]
    function = (function_of(part[0]), *part[1:])
    return functions[function] if function in functions else -1 - own.setdefault(part, len(own))


def _by_function(codes: dict[tuple[Any, ...], int]) -> dict[tuple[Any, ...], int]:
    """Codes by function name and launch shape; those that only template arguments tell apart are left out."""
    return _unless_several((function_of(part[0]), *part[1:], code) for part, code in codes.items())


def _without_shared(codes: dict[tuple[Any, ...], int]) -> dict[tuple[Any, ...], int]:
    """Codes by what is left without shared memory; those that only shared memory tells apart are left out."""
    return _unless_several((*part[:-1], None, code) for part, code in codes.items())


def _unless_several(rows: Iterable[tuple[Any, ...]]) -> dict[tuple[Any, ...], int]:
    """Rows whose last part is a code → a dictionary by the rest, without those that lead to several codes."""
    found: dict[tuple[Any, ...], int] = {}
    several: set[tuple[Any, ...]] = set()
    for *rest, code in rows:
        part = tuple(rest)
        if found.setdefault(part, code) != code:
            several.add(part)
    return {part: code for part, code in found.items() if part not in several}


def _sequences(file: CounterFile) -> Iterator[tuple[NvtxState, NDArray[np.intp]]]:
    """Kernels that ran one after the other in one process and instance of a range."""
    identity = [
        (process, one.stage, one.image, one.in_step, one.payload)
        for process, one in zip(file.process.tolist(), file.state, strict=True)
    ]
    # Processes may alternate in a file; within one the order is that of the launches.
    by_process = np.argsort(file.process, kind="stable")
    cuts = [0]
    cuts += [i for i in range(1, by_process.size) if identity[by_process[i]] != identity[by_process[i - 1]]]
    for low, high in zip(cuts, [*cuts[1:], by_process.size], strict=True):
        records = by_process[low:high]
        yield file.state[int(records[0])], records


class _Classes:
    """Instances by their sequence of launches: what is known of one holds for all of its class."""

    def __init__(self, launches: Launches) -> None:
        self._launches = launches
        self._partners: dict[tuple[int, int], NDArray[np.intp]] = {}
        seen: dict[tuple[int, bytes], int] = {}
        self.of_instance = [
            seen.setdefault((int(launches.instance_stage[one]), launches.key[launches.of(one)].tobytes()), len(seen))
            for one in range(launches.instances)
        ]
        self.members: list[list[int]] = [[] for _ in seen]
        for instance, one in enumerate(self.of_instance):
            self.members[one].append(instance)

    def carried(self, instance: int, record_at: Codes) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """From an instance's records to the launches of every instance of its stage: pairs of launches and records.

        Args:
            instance: whose records they are.
            record_at: record of each of its launches, [launches of the instance], -1: none.
        """
        launches = self._launches
        for members in self.members:
            some = members[0]
            if (
                launches.instance_stage[some] != launches.instance_stage[instance]
                or launches.instance_is_step[some] != launches.instance_is_step[instance]
            ):
                continue
            record = record_at
            if self.of_instance[some] != self.of_instance[instance]:
                partner = self._partner(some, instance)
                record = np.where(partner >= 0, record_at[np.maximum(partner, 0)], -1)
            at = np.flatnonzero(record >= 0)
            for member in members:
                yield at + launches.first[member], record[at].astype(np.intp)

    def _partner(self, some: int, instance: int) -> NDArray[np.intp]:
        """Place in an instance of each launch of another, -1: none; asked once for each pair of classes."""
        pair = (self.of_instance[some], self.of_instance[instance])
        if pair not in self._partners:
            launches = self._launches
            mine, theirs = launches.of(some), launches.of(instance)
            if np.array_equal(launches.body[mine], launches.body[theirs]):
                same = launches.key[mine] == launches.key[theirs]
                partner = np.where(same, np.arange(same.size), -1)
            else:
                partner = align(launches.key[mine], launches.key[theirs])
            self._partners[pair] = _with_grown(launches, instance, partner, launches.body[mine], launches.blocks[mine])
        return self._partners[pair]


def _best(
    launches: Launches, classes: _Classes, state: NvtxState, key: Codes, ordinal: int
) -> tuple[int | None, NDArray[np.intp]]:
    """The instance in whose sequence most of the kernels lie, and the place of each in it (-1: none), [records]."""
    best: tuple[int | None, NDArray[np.intp]] = (None, np.full(key.size, -1, dtype=np.intp))
    most = 0
    for instance in _candidates(launches, classes, state, ordinal):
        partner = align(key, launches.key[launches.of(instance)])
        matched = int((partner >= 0).sum())
        if matched > most:
            best, most = (instance, partner), matched
        if most == key.size:
            break
    return best


def _candidates(launches: Launches, classes: _Classes, state: NvtxState, ordinal: int) -> list[int]:
    """Instances that a profiled sequence may be, the likeliest first, one of each class."""
    suited = [
        one
        for one in range(launches.instances)
        if int(launches.instance_stage[one]) < len(STAGES)
        and (not state.known or STAGES[launches.instance_stage[one]] == state.stage)
        and (state.stage != DECODE or launches.instance_is_step[one] == state.in_step)
    ]

    def likeness(one: int) -> tuple[bool, bool, bool, int]:
        return (
            state.payload is None or launches.instance_payload[one] != state.payload,
            state.image is None or launches.instance_image[one] != state.image,
            one != (suited[ordinal] if ordinal < len(suited) else -1),
            -len(classes.members[classes.of_instance[one]]),
        )

    chosen: dict[int, int] = {}
    for one in sorted(suited, key=likeness):
        chosen.setdefault(classes.of_instance[one], one)
        if len(chosen) >= _CANDIDATES:
            break
    return list(chosen.values())


def _by_configuration(
    launches: Launches, file: CounterFile, key: Codes, taken: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Launches that are not taken, each with every record of the same stage, name and launch shape.

    Returns:
        Launches and records, [pairs], and which records any launch of the trace, taken or not, is like, [records].
    """
    by: dict[tuple[int, int], list[int]] = {}
    for one, state in enumerate(file.state):
        if key[one] < 0 or int(key[one]) in launches.ambiguous:
            continue
        if state.stage in STAGES:
            by.setdefault((STAGES.index(state.stage), int(key[one])), []).append(one)
        elif not state.known:
            for stage in range(len(STAGES)):
                by.setdefault((stage, int(key[one])), []).append(one)
    configured = np.zeros(len(file), dtype=bool)
    if not by:
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp), configured
    order = np.lexsort((launches.key, launches.stage))
    packed = launches.stage[order].astype(np.int64) * (int(launches.key.max()) + 1) + launches.key[order]
    parts_launch, parts_record = [], []
    for (of_stage, of_key), records in by.items():
        wanted = of_stage * (int(launches.key.max()) + 1) + of_key
        begin, end = (int(one) for one in np.searchsorted(packed, [wanted, wanted + 1]))
        if end <= begin:
            continue
        configured[records] = True
        own = order[begin:end]
        own = own[~taken[own]]
        parts_launch.append(np.tile(own, len(records)))
        parts_record.append(np.repeat(np.array(records, dtype=np.intp), own.size))
    return _joined(parts_launch), _joined(parts_record), configured


# --- sequences -----------------------------------------------------------------------------------------------------


def align(some: Codes, whole: Codes) -> NDArray[np.intp]:
    """Find a sequence in another, in order.

    The earliest places, where all of ``some`` are found in order (kernels that a filter chose, or the first ones); else
    a longest common subsequence (Wagner and Fischer's table, a row at a time).

    Args:
        some: codes, [n].
        whole: codes, [m].

    Returns:
        Place in ``whole`` of each, ascending, [n]; -1: it has none.
    """
    if some.size <= whole.size and np.array_equal(some, whole[: some.size]):
        return np.arange(some.size)
    places: dict[int, list[int]] = {}
    for index, code in enumerate(whole.tolist()):
        places.setdefault(code, []).append(index)
    partner = np.full(some.size, -1, dtype=np.intp)
    at = -1
    wanted = some.tolist()
    for one, code in enumerate(wanted):
        after = _next(places.get(code, []), at)
        if after is not None:
            partner[one] = at = after
    if (partner >= 0).all() or some.size * whole.size > _MOST_CELLS:
        return partner
    return _longest_common(some, whole)


def _next(places: list[int], at: int) -> int | None:
    """The first of ascending places after one."""
    after = bisect_right(places, at)
    return places[after] if after < len(places) else None


def _longest_common(some: Codes, whole: Codes) -> NDArray[np.intp]:
    table = np.zeros((some.size + 1, whole.size + 1), dtype=np.int32 if whole.size > 30_000 else np.int16)
    for row in range(1, some.size + 1):
        above = table[row - 1]
        step = np.maximum(above[1:], above[:-1] + (whole == some[row - 1]))
        np.maximum.accumulate(step, out=table[row, 1:])
    partner = np.full(some.size, -1, dtype=np.intp)
    row, place = some.size, whole.size
    while row and place:
        here = table[row, place]
        if table[row, place - 1] == here:
            place -= 1
        elif table[row - 1, place] == here:
            row -= 1
        else:
            row, place = row - 1, place - 1
            partner[row] = place
    return partner


def _with_grown(
    launches: Launches, instance: int, partner: NDArray[np.intp], body: Codes, blocks: Codes
) -> NDArray[np.intp]:
    """Pair what is left between two pairs, where both sides left as many, all of the same bodies and similar grids.

    Args:
        launches: of the trace.
        instance: that ``partner`` points into.
        partner: from `align`, [n].
        body: name, block and shared memory of each, [n].
        blocks: number of blocks of each, [n].
    """
    if (partner >= 0).all():
        return partner
    whole = launches.of(instance)
    their_body, their_blocks = launches.body[whole], launches.blocks[whole]
    length = their_body.size
    found = partner.copy()
    anchors = [-1, *np.flatnonzero(partner >= 0).tolist(), partner.size]
    for low, high in pairwise(anchors):
        if high - low < 2:
            continue
        first = int(partner[low]) + 1 if low >= 0 else 0
        last = int(partner[high]) if high < partner.size else length
        if high - low - 1 != last - first:
            continue
        mine = slice(low + 1, high)
        theirs = slice(first, last)
        similar = (body[mine] == their_body[theirs]) & (blocks[mine] > 0) & (their_blocks[theirs] > 0)
        similar &= blocks[mine] <= _GROWN * their_blocks[theirs]
        similar &= their_blocks[theirs] <= _GROWN * blocks[mine]
        found[mine] = np.where(similar, np.arange(first, last), -1)
    return found
