"""``timeline.pftrace``: the trace as Perfetto (ui.perfetto.dev) opens it.

Per process and thread: stages and steps, modules, other ranges, CUDA calls that launch, copy or wait. Per device: one
track a stream of a process, its operations tied to their launches by flow arrows; idle time; operations launched but not
yet started. Sampled GPU metrics as counters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from analysis.attribution.attribution import Attribution
from analysis.attribution.intervals import merge
from analysis.domain.annotations import STAGE_DOMAIN
from analysis.domain.files import write_with
from analysis.render.perfetto_packets import (
    SEQUENCE,
    begin_template,
    counter_template,
    end_template,
    framed,
    interleaved,
)
from analysis.render.spec.text import shortened, visible
from analysis.sums.records import MetricSeries
from analysis.trace.records import TraceInfo

__all__ = [
    "SHORTEST_IDLE_NS",
    "Names",
    "Placement",
    "Slices",
    "Tracks",
    "events",
    "opening",
    "placed",
    "rank_pieces",
    "render_trace",
]

SHORTEST_IDLE_NS: Final = 10_000
"""Idle time shorter than this is not drawn: between any two kernels there is some."""

_NAME_LENGTH: Final = 1000

Times = NDArray[np.int64]
Codes = NDArray[np.int64]


@frozen
class Placement:
    """Where the events of one rank stand in a file of several."""

    place: int
    """Of the rank among all, from 0."""
    shift_ns: int
    """What is added to each of its times: on one clock, and none below 0."""

    @property
    def root(self) -> int:
        """Number of the rank's track; those of its other tracks and of its arrows follow it."""
        return (self.place + 1) << 40

    @property
    def sequence(self) -> int:
        """Of its packets."""
        return SEQUENCE + 1 + self.place


@define
class Names:
    """Names that events refer to by number."""

    known: dict[str, int] = field(factory=dict)

    def code(self, name: str) -> int:
        """The number of a name, given when it is first asked for."""
        return self.known.setdefault(shortened(visible(name), _NAME_LENGTH), len(self.known) + 1)

    def codes(self, names: Sequence[str]) -> Codes:
        """The number of each name, [names]; one 0 where there are none, for codes of nothing to look up."""
        return np.array([self.code(name) for name in names] or [0], dtype=np.int64)


@define
class Tracks:
    """Tracks by number, and the packets that describe them."""

    packets: list[bytes] = field(factory=list)
    processes: set[int] = field(factory=set)
    placement: Placement | None = None
    """Of a rank whose track is there already: it becomes the parent of all others. They are no processes and threads then, for
    a file knows a process by its number, which those of two machines may share."""

    def is_process(self, track: int) -> bool:
        """Whether a track stands for a process."""
        return track in self.processes

    def add(
        self,
        name: str,
        parent: int | None = None,
        *,
        counter: str | None = None,
        order: int = 0,
        process: Any = None,
        thread: Any = None,
    ) -> int:
        """Describe a track.

        Args:
            name: of it.
            parent: its number; None: it stands at the top, or below the rank's.
            counter: unit of a counter; None: the track holds slices.
            order: among the tracks of its parent.
            process: descriptor of the process that it stands for.
            thread: descriptor of the thread likewise.

        Returns:
            Its number.
        """
        uuid = len(self.packets) + 1
        sequence = SEQUENCE
        if self.placement is not None:
            uuid, sequence = uuid + self.placement.root, self.placement.sequence
            process = thread = None
            if parent is None:
                parent, order = self.placement.root, 1
        described = pb.TrackDescriptor(uuid=uuid, name=shortened(visible(name), _NAME_LENGTH))
        if parent is not None:
            described.parent_uuid = parent
            described.sibling_order_rank = order
        if parent is None or thread is not None:
            described.child_ordering = pb.TrackDescriptor.EXPLICIT
        if process is not None:
            described.process.CopyFrom(process)
            self.processes.add(uuid)
        if thread is not None:
            described.thread.CopyFrom(thread)
        if counter is not None:
            described.counter.unit_name = counter
        packet = pb.TracePacket(trusted_packet_sequence_id=sequence, track_descriptor=described)
        self.packets.append(framed(packet))
        return uuid


@define
class Slices:
    """Slices of all tracks, as they are collected."""

    start: list[Times] = field(factory=list)
    end: list[Times] = field(factory=list)
    track: list[Codes] = field(factory=list)
    name: list[Codes] = field(factory=list)
    flow_out: list[Codes] = field(factory=list)
    """Number of the arrow that leaves here; 0: none."""
    flow_in: list[Codes] = field(factory=list)

    def add(
        self,
        start: Times,
        end: Times,
        track: Codes,
        name: Codes,
        *,
        flow_out: Codes | None = None,
        flow_in: Codes | None = None,
    ) -> None:
        """Add slices, in any order. Arrays are [n], times in ns.

        Args:
            start: of each.
            end: of each.
            track: number of its track.
            name: number of its name.
            flow_out: number of the arrow that leaves it; 0: none does.
            flow_in: number of the arrow that arrives.
        """
        none = np.zeros(start.size, dtype=np.int64)
        self.start.append(start)
        self.end.append(end)
        self.track.append(track)
        self.name.append(name)
        self.flow_out.append(none if flow_out is None else flow_out)
        self.flow_in.append(none if flow_in is None else flow_in)


def parallel_tracks(start: Times, end: Times) -> Codes:
    """Number slices so that those with one number nest or follow one another, as the slices of a track must.

    Args:
        start: [n], ns, sorted; of equal starts the longer first.
        end: [n], ns.

    Returns:
        Number of each slice, [n], from 0.
    """
    number_of = np.zeros(start.size, dtype=np.int64)
    if start.size < 2 or bool((start[1:] >= np.maximum.accumulate(end)[:-1]).all()):
        return number_of
    open_ends: list[list[int]] = [[]]
    for index, (low, high) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        for number, ends in enumerate(open_ends):
            while ends and ends[-1] <= low:
                ends.pop()
            if not ends or ends[-1] >= high:
                ends.append(high)
                number_of[index] = number
                break
        else:
            open_ends.append([high])
            number_of[index] = len(open_ends) - 1
    return number_of


def placed(
    tracks: Tracks, name: str, parent: int, order: int, start: Times, end: Times
) -> tuple[NDArray[np.intp], Codes]:
    """An order of slices and, in it, the track of each; tracks are added under ``parent``, as many as it takes."""
    in_time = np.lexsort((-end, start))
    number = parallel_tracks(start[in_time], end[in_time])
    added = [
        tracks.add(name if place == 0 else f"{name} ({place + 1})", parent, order=order)
        for place in range(int(number.max()) + 1)
    ]
    return in_time, np.array(added, dtype=np.int64)[number]


def _process_label(info: TraceInfo, process: int) -> str:
    """``python3 (process 1234)``, as far as the trace says."""
    pid, name = info.pid(process), info.process_names.get(process)
    if pid is None:
        return "unknown process"
    return f"{name} (process {pid})" if name else f"process {pid}"


@define
class _Host:
    """Tracks of processes and threads, added when they are first asked for."""

    info: TraceInfo
    tracks: Tracks
    known: dict[int, int] = field(factory=dict)

    def process(self, process: int) -> int:
        """Track of a process code."""
        if process not in self.known:
            pid = self.info.pid(process)
            # Process ids of two machines may be equal; Perfetto would take them for one process.
            unique = (
                pid is not None and [self.info.pid(other) for other in range(len(self.info.processes))].count(pid) == 1
            )
            described = pb.ProcessDescriptor(pid=pid, process_name=visible(self.info.process_names.get(process, "")))
            self.known[process] = self.tracks.add(
                _process_label(self.info, process), process=described if unique else None
            )
        return self.known[process]

    def thread(self, thread: int) -> int:
        """A new track for a thread code, under that of its process."""
        tid, name = self.info.tid(thread), self.info.thread_names.get(thread)
        process = self.info.thread_process[thread] if thread >= 0 else -1
        parent = self.process(process)
        if tid is None:
            return self.tracks.add("unknown thread", parent)
        label = f"{name} (thread {tid})" if name else f"thread {tid}"
        described = pb.ThreadDescriptor(pid=self.info.pid(process), tid=tid, thread_name=visible(name or ""))
        return self.tracks.add(label, parent, thread=described if self.tracks.is_process(parent) else None)


def _add_host(attribution: Attribution, names: Names, tracks: Tracks, slices: Slices, arrow: Codes) -> None:
    """Ranges and calls of every thread, by process."""
    ranges, calls = attribution.ranges, attribution.calls
    range_names, call_names = names.codes(ranges.names), names.codes([name or "(unnamed call)" for name in calls.names])
    host = _Host(attribution.info, tracks)
    threads = {*np.unique(ranges.thread).tolist(), *np.unique(calls.thread).tolist()}
    for thread in sorted(threads, key=lambda code: (attribution.thread_process[code], code)):
        parent = host.thread(thread)
        domains = np.unique(ranges.domain[ranges.thread == thread]).tolist()
        # Stages first, then modules, then what the program brought along.
        domains.sort(key=lambda code: (ranges.domains[code] != STAGE_DOMAIN, ranges.domains[code]))
        for place, domain in enumerate(domains):
            rows = np.flatnonzero((ranges.thread == thread) & (ranges.domain == domain))
            label = ranges.domains[domain] or "ranges"
            order, track = placed(tracks, label, parent, place, ranges.start[rows], ranges.end[rows])
            rows = rows[order]
            slices.add(ranges.start[rows], ranges.end[rows], track, range_names[ranges.name[rows]])
        rows = np.flatnonzero(calls.thread == thread)
        if rows.size:
            ends = calls.end
            order, track = placed(tracks, "CUDA calls", parent, len(domains), calls.start[rows], ends[rows])
            rows = rows[order]
            slices.add(calls.start[rows], ends[rows], track, call_names[calls.name[rows]], flow_out=arrow[rows])


def _add_device(
    attribution: Attribution,
    names: Names,
    tracks: Tracks,
    slices: Slices,
    arrow: Codes,
    counters: list[tuple[int, Times, NDArray[np.float64]]],
) -> None:
    """Operations of every stream, idle time, and how many operations wait to start."""
    operations = attribution.operations
    codes = names.codes(operations.names)
    idle_name = names.code("idle")
    has_launch = attribution.launch_call >= 0
    # An arrow ends at the first operation of its launch: one launch of a graph owns many.
    arriving = np.zeros(len(operations), dtype=np.int64)
    launches, first = np.unique(attribution.launch_call, return_index=True)
    arriving[first[launches >= 0]] = arrow[launches[launches >= 0]]
    for device in np.unique(operations.device).tolist():
        parent = tracks.add(f"GPU {device}" if device >= 0 else "GPU")
        mine = operations.device == device
        # Numbers of streams repeat from process to process.
        processes = np.unique(operations.process[mine]).tolist()
        streams = [
            (process, stream)
            for process in processes
            for stream in np.unique(operations.stream[mine & (operations.process == process)]).tolist()
        ]
        for place, (process, stream) in enumerate(streams):
            rows = np.flatnonzero(mine & (operations.process == process) & (operations.stream == stream))
            label = f"Stream {stream}"
            if len(processes) > 1:
                label += f", {_process_label(attribution.info, process)}"
            order, track = placed(tracks, label, parent, place, operations.start[rows], operations.end[rows])
            rows = rows[order]
            slices.add(
                operations.start[rows],
                operations.end[rows],
                track,
                codes[operations.name[rows]],
                flow_in=arriving[rows],
            )
        start, end = merge(operations.start[mine], operations.end[mine])
        low, high = end[:-1], start[1:]
        long = high - low >= SHORTEST_IDLE_NS
        if long.any():
            idle = tracks.add(f"Idle, {SHORTEST_IDLE_NS // 1000} µs and longer", parent, order=len(streams))
            low, high = low[long], high[long]
            slices.add(low, high, np.full(low.size, idle), np.full(low.size, idle_name))
        waiting = np.flatnonzero(mine & has_launch)
        if waiting.size:
            launched = np.sort(attribution.calls.start[attribution.launch_call[waiting]])
            begun = np.sort(operations.start[waiting])
            value = np.searchsorted(launched, begun, side="right") - np.arange(1, begun.size + 1)
            queue = tracks.add("Launched, not started", parent, counter="operations", order=len(streams) + 1)
            counters.append((queue, begun, value.astype(np.float64)))


def _arrows(attribution: Attribution) -> Codes:
    """Number of the arrow that leaves each call, [calls]; 0: it owns no operation."""
    arrow = np.zeros(len(attribution.calls), dtype=np.int64)
    launching = np.unique(attribution.launch_call[attribution.launch_call >= 0])
    arrow[launching] = np.arange(1, launching.size + 1)
    return arrow


def events(
    slices: Slices,
    counters: Sequence[tuple[int, Times, NDArray[np.float64]]] = (),
    *,
    placement: Placement | None = None,
    sequence: int = SEQUENCE,
) -> list[bytes]:
    """All events in the order of time; at one time ends come first (inner ones first), then begins (outer first).

    Args:
        slices: to write.
        counters: track, times and values of each.
        placement: of the rank, in a file of several; None: times are moved only where one is below 0.
        sequence: of the packets, without a placement.
    """
    if placement is not None:
        sequence = placement.sequence
    start, end = _joined(slices.start), _joined(slices.end)
    track, name = _joined(slices.track), _joined(slices.name)
    flow_out, flow_in = _joined(slices.flow_out), _joined(slices.flow_in)
    first = min([int(start.min()) if start.size else 0, *(int(time.min()) for _, time, _ in counters if time.size), 0])
    if placement is not None:
        first = -placement.shift_ns
    start, end = start - first, end - first  # Perfetto's timestamps are unsigned
    lasting = end > start
    groups: list[tuple[Times, int, Times, Any]] = []
    root = np.uint64(0 if placement is None else placement.root)
    for mask, template, flow in (
        (lasting & (flow_out == 0) & (flow_in == 0), begin_template(sequence=sequence), None),
        (lasting & (flow_out > 0), begin_template(flow="out", sequence=sequence), flow_out),
        (lasting & (flow_in > 0), begin_template(flow="in", sequence=sequence), flow_in),
        (~lasting, begin_template(instant=True, sequence=sequence), None),
    ):
        rows = np.flatnonzero(mask)
        if rows.size:
            extra = {} if flow is None else {"flow": flow[rows].astype(np.uint64) + root}
            made = template.rows(timestamp=start[rows], track=track[rows], name=name[rows], **extra)
            groups.append((start[rows], 1, -end[rows], made))
    rows = np.flatnonzero(lasting)
    if rows.size:
        made = end_template(sequence).rows(timestamp=end[rows], track=track[rows])
        groups.append((end[rows], 0, -start[rows], made))
    for counter, time, value in counters:
        made = counter_template(sequence).rows(timestamp=time - first, track=np.full(time.size, counter), value=value)
        groups.append((time - first, 2, np.zeros(time.size, dtype=np.int64), made))
    if not groups:
        return []
    time = np.concatenate([group[0] for group in groups])
    kind = np.concatenate([np.full(group[0].size, group[1], dtype=np.int8) for group in groups])
    tie = np.concatenate([group[2] for group in groups])
    rank = np.empty(time.size, dtype=np.int64)
    rank[np.lexsort((tie, kind, time))] = np.arange(time.size)
    cuts = np.cumsum([group[0].size for group in groups])[:-1]
    return interleaved(list(zip(np.split(rank, cuts), [group[3] for group in groups], strict=True)))


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)


def opening(names: Names, sequence: int) -> bytes:
    """The first packet of a sequence: the names that its events refer to."""
    return framed(
        pb.TracePacket(
            trusted_packet_sequence_id=sequence,
            sequence_flags=pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED,
            first_packet_on_sequence=True,
            interned_data=pb.InternedData(
                event_names=[pb.EventName(iid=code, name=name) for name, code in names.known.items()]
            ),
        )
    )


def rank_pieces(
    attribution: Attribution, metrics: Sequence[MetricSeries], placement: Placement | None = None
) -> list[bytes]:
    """The packets of one trace. Time and memory are linear in it.

    Args:
        attribution: of the trace.
        metrics: sampled GPU metrics, drawn as counters.
        placement: of the rank, in a file of several, which holds the rank's track already; None: the trace has a file of its own.
    """
    names, tracks, slices = Names(), Tracks(placement=placement), Slices()
    counters: list[tuple[int, Times, NDArray[np.float64]]] = []
    arrow = _arrows(attribution)
    _add_device(attribution, names, tracks, slices, arrow, counters)
    _add_host(attribution, names, tracks, slices, arrow)
    drawn = [metric for metric in metrics if metric.values]
    if drawn:
        parent = tracks.add("GPU metrics, sampled")
        for place, metric in enumerate(drawn):
            track = tracks.add(metric.name, parent, counter=visible(metric.unit), order=place)
            counters.append(
                (track, np.array(metric.time_ns, dtype=np.int64), np.array(metric.values, dtype=np.float64))
            )
    sequence = SEQUENCE if placement is None else placement.sequence
    return [opening(names, sequence), *tracks.packets, *events(slices, counters, placement=placement)]


def render_trace(attribution: Attribution, out: Path, metrics: Sequence[MetricSeries] = ()) -> tuple[Path, ...]:
    """Write ``timeline.pftrace``. Time and memory are linear in the trace.

    Args:
        attribution: of the trace.
        out: the folder to write to.
        metrics: sampled GPU metrics, drawn as counters.

    Raises:
        RequestError: the folder cannot be written to.
    """
    pieces = rank_pieces(attribution, metrics)

    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.writelines(pieces)

    return (write_with(out / "timeline.pftrace", write),)
