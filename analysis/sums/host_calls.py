"""What the host did: kinds of CUDA calls, and what filled the time in which the GPU was idle."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution, slices_by_thread
from analysis.attribution.intervals import Ints, merge
from analysis.sums.grouping import UNATTRIBUTED, stage_names
from analysis.sums.records import GapSummary, HostCallRow
from analysis.trace.distinct import present
from analysis.trace.records import GRAPH, KERNEL, MEMCPY

__all__ = [
    "COPY",
    "GRAPH_LAUNCH",
    "LAUNCH",
    "OTHER",
    "SMALL_COPY_BYTES",
    "SYNCHRONISE",
    "HostCalls",
    "WindowTimes",
    "function_name",
    "host_call_rows",
    "sum_gaps",
]

OTHER: Final = 0
LAUNCH: Final = 1
GRAPH_LAUNCH: Final = 2
COPY: Final = 3
"""Copies and sets that are queued: the host goes on."""
SYNCHRONISE: Final = 4
"""The host waits for the device, in a synchronise or a blocking copy."""

_RULES: Final = (
    (OTHER, re.compile(r"cu(da)?LaunchHostFunc")),  # a function of the host's: no kernel
    (GRAPH_LAUNCH, re.compile(r"cu(da)?GraphLaunch")),
    (LAUNCH, re.compile(r"cu(da)?Launch")),
    (SYNCHRONISE, re.compile(r"cu(da)?(Device|Stream|Event|Ctx|Thread)Synchronize")),
    (COPY, re.compile(r"cu(da)?(Memcpy\w*(Async|Batch)|Memset|MemsetD)")),
    (SYNCHRONISE, re.compile(r"cu(da)?Memcpy")),
)
"""By name, the first that matches: ``syncType`` means different things in different exports."""

SMALL_COPY_BYTES: Final = 1024
"""A device-to-host copy up to this size carries a decision (a token, a flag, a count), not data."""

_DEVICE_TO_HOST: Final = 2

_VERSION: Final = re.compile(r"_v\d+$")


_LAUNCHING: Final = (LAUNCH, GRAPH_LAUNCH)
_WAITING: Final = (SYNCHRONISE,)
_WHAT_COUNTS_FIRST: Final = ((SYNCHRONISE,), (LAUNCH, GRAPH_LAUNCH, COPY), (OTHER,))
"""A moment inside nested calls counts once: as waiting, else as launching, else as another call."""


@frozen(eq=False, slots=False)
class HostCalls:
    """The calls of a trace, by kind."""

    attribution: Attribution

    @cached_property
    def kind(self) -> NDArray[np.int8]:
        """Kind of each call, [calls]. A call that no rule knows is a launch if it owns a kernel or a graph."""
        calls = self.attribution.calls
        by_name = np.array(
            [next((kind for kind, rule in _RULES if rule.match(name)), OTHER) for name in calls.names], dtype=np.int8
        )
        kind = by_name[calls.name] if by_name.size else np.zeros(len(calls), dtype=np.int8)
        launch_call = self.attribution.launch_call
        launched = launch_call >= 0
        kernels = launch_call[launched & (self.attribution.operations.kind == KERNEL)]
        nameless = kernels[kind[kernels] == OTHER]
        kind[nameless] = LAUNCH
        graphs = launch_call[launched & (self.attribution.operations.kind == GRAPH)]
        kind[graphs[kind[graphs] == OTHER]] = GRAPH_LAUNCH
        return kind

    @cached_property
    def _nest(self) -> bool:
        """Whether any call lies in another one, as a driver call in the runtime call that makes it."""
        calls = self.attribution.calls
        same = calls.thread[1:] == calls.thread[:-1]
        return bool(np.any(same & (calls.start[1:] < calls.end[:-1])))

    @cached_property
    def outermost_launch(self) -> NDArray[np.intp]:
        """The outermost launching call around each launching call, itself included, [calls]; -1: it launches nothing.

        A runtime call and the driver call inside it are one launch.
        """
        outermost = np.full(len(self.attribution.calls), -1, dtype=np.intp)
        rows = np.flatnonzero(np.isin(self.kind, _LAUNCHING))
        if rows.size:
            # By thread and start, what lies in a call follows it directly.
            outer = self._outermost(_LAUNCHING)[rows]
            outermost[rows] = rows[np.maximum.accumulate(np.where(outer, np.arange(rows.size), 0))]
        return outermost

    @cached_property
    def _launches_with_failed(self) -> NDArray[np.bool_]:
        outermost: NDArray[np.bool_] = self.outermost_launch == np.arange(len(self.attribution.calls))
        return outermost

    @cached_property
    def launches(self) -> NDArray[np.bool_]:
        """Calls that launched a kernel or a graph, [calls]; of nested ones the outermost."""
        return self._launches_with_failed & ~self._failed

    @cached_property
    def failed_launches(self) -> NDArray[np.bool_]:
        """Calls that were to launch a kernel or a graph and returned an error, [calls]; of nested ones the outermost."""
        return self._launches_with_failed & self._failed

    @cached_property
    def _failed(self) -> NDArray[np.bool_]:
        calls = self.attribution.calls
        failed: NDArray[np.bool_] = calls.results != 0
        return failed[calls.name] if failed.any() else np.zeros(len(calls), dtype=bool)

    @cached_property
    def waits(self) -> NDArray[np.bool_]:
        """Calls in which the host waits for the device, [calls]; of nested ones the outermost."""
        return self._outermost(_WAITING)

    def _outermost(self, kinds: tuple[int, ...]) -> NDArray[np.bool_]:
        """Calls of some kinds that lie in no other call of these kinds on their thread, [calls]."""
        calls = self.attribution.calls
        outermost: NDArray[np.bool_] = np.isin(self.kind, kinds)
        if not self._nest or not outermost.any():
            return outermost
        rows = np.flatnonzero(outermost)
        thread, start = calls.thread[rows].astype(np.int64), calls.start[rows]
        end = start + calls.duration[rows]
        # Threads one after the other on one line, so that one running maximum serves them all.
        low, span = int(start.min()), int(end.max() - start.min()) + 1
        _, place = np.unique(thread, return_inverse=True)
        shift = place * span - low
        reach = np.maximum.accumulate(end + shift)
        inside = np.zeros(rows.size, dtype=bool)
        inside[1:] = (start + shift)[1:] < reach[:-1]
        outermost[rows[inside]] = False
        return outermost

    @cached_property
    def small_copies(self) -> NDArray[np.bool_]:
        """Operations that copy at most `SMALL_COPY_BYTES` from the device to the host, [operations]."""
        operations = self.attribution.operations
        copies: NDArray[np.bool_] = operations.kind == MEMCPY
        to_host = operations.copy_kinds == _DEVICE_TO_HOST
        if not copies.any():
            return copies
        small: NDArray[np.bool_] = (operations.size >= 0) & (operations.size <= SMALL_COPY_BYTES)
        small &= copies & to_host[operations.name]
        return small

    def waits_by(
        self, level: Literal["module", "stage"], place: NDArray[Any], names: Sequence[str]
    ) -> list[HostCallRow]:
        """Synchronising calls and calls that make small device-to-host copies, with the host's time in them, by place.

        How long the GPU copied is another thing: the host of a blocking copy waits longer, that of a queued one goes on.

        Args:
            level: what the places are.
            place: of each call, [calls]: index into ``names``, -1 for none.
            names: the places.

        Returns:
            One row per place and call, most calls first.
        """
        rows: list[HostCallRow] = []
        calls = self.attribution.calls
        waits = np.flatnonzero(self.waits)
        rows += self._count(level, "synchronise", place[waits], calls.name[waits], calls.duration[waits], names)
        # A call that makes several copies at once is one call.
        launching = self.attribution.launch_call[self.small_copies & (self.attribution.launch_call >= 0)]
        copying = np.array(present(launching), dtype=np.int64)
        rows += self._count(
            level, "small device-to-host copy", place[copying], calls.name[copying], calls.duration[copying], names
        )
        return sorted(rows, key=lambda row: (-row.calls, row.where, row.call))

    def _count(
        self, level: Literal["module", "stage"], kind: Literal["synchronise", "small device-to-host copy"],
        place: NDArray[Any], call: NDArray[Any], duration: NDArray[Any], places: Sequence[str],
    ) -> list[HostCallRow]:  # fmt: skip
        # An entry point's version, and what the call returned, do not make it another call.
        names: dict[str, int] = {}
        code = [names.setdefault(function_name(name), len(names)) for name in self.attribution.calls.names]
        calls, width = tuple(names), max(1, len(names))
        key = (place.astype(np.int64) + 1) * width + np.array(code or [0])[call]
        occurring, index = np.unique(key, return_inverse=True)
        count = np.bincount(index, minlength=occurring.size)
        total = np.bincount(index, weights=duration, minlength=occurring.size).astype(np.int64)
        return [
            HostCallRow(
                where=places[packed // width - 1] if packed >= width else UNATTRIBUTED,
                call=calls[packed % width],
                calls=int(number),
                total_ns=int(time),
                kind=kind,
                level=level,
            )
            for packed, number, time in zip(occurring.tolist(), count, total, strict=True)
        ]

    # --- idle time --------------------------------------------------------------------------------------------

    @cached_property
    def _covered_by_thread(self) -> dict[int, _Covered]:
        """Thread → where it was inside calls, by what counts first."""
        calls, others = self.attribution.calls, self.attribution.other_calls
        place = np.zeros(SYNCHRONISE + 1, dtype=np.int8)
        for number, kinds in enumerate(_WHAT_COUNTS_FIRST):
            place[list(kinds)] = number
        own, rest = slices_by_thread(calls.thread), slices_by_thread(others.thread)
        last = len(_WHAT_COUNTS_FIRST) - 1
        covered = {}
        for thread in {*own, *rest}:
            mine, more = own.get(thread, slice(0, 0)), rest.get(thread, slice(0, 0))
            where = place[self.kind[mine]]
            start, more_start = calls.start[mine], others.start[more]
            end, more_end = start + calls.duration[mine], more_start + others.duration[more]
            nested = not _disjoint([start, more_start], [end, more_end])
            parts = []
            for number in range(last + 1):
                chosen = where <= number if nested else where == number
                begins, ends = start[chosen], end[chosen]
                if number == last and not begins.size:
                    begins, ends = more_start, more_end
                elif number == last:
                    begins, ends = np.concatenate((begins, more_start)), np.concatenate((ends, more_end))
                    if not nested:  # then the order of their ends is that of their starts
                        begins.sort(kind="stable")
                        ends.sort(kind="stable")
                parts.append(merge(begins, ends) if nested else (begins, ends))
            covered[thread] = _Covered(nested, tuple(parts))
        return covered

    @cached_property
    def _returns_by_thread(self) -> dict[int, Ints]:
        """Thread → moments at which its synchronises returned, in order."""
        calls = self.attribution.calls
        returns = {}
        for thread, own in slices_by_thread(calls.thread).items():
            waits = np.flatnonzero(self.kind[own] == SYNCHRONISE) + own.start
            returns[thread] = np.sort(calls.start[waits] + calls.duration[waits])
        return returns

    @cached_property
    def _busy_by_process(self) -> dict[int | None, tuple[Ints, Ints]]:
        """Merged intervals in which the GPU worked, by process code; by None, if all rows are of one process."""
        operations = self.attribution.operations
        processes = np.flatnonzero(np.bincount(operations.process + 1)) - 1
        if processes.size < 2:
            return {None: _lasting(*merge(operations.start, operations.end))}
        busy: dict[int | None, tuple[Ints, Ints]] = {}
        for code in processes.tolist():
            # Rows that do not say whose they are may be anybody's.
            mine = np.flatnonzero((operations.process == code) | (operations.process == -1))
            busy[code] = _lasting(*merge(operations.start[mine], operations.end[mine]))
        return busy

    def _busy(self, process: int) -> tuple[Ints, Ints]:
        busy = self._busy_by_process
        nothing = np.zeros(0, dtype=np.int64)
        return busy[None] if None in busy else busy.get(process, busy.get(-1, (nothing, nothing)))

    @cached_property
    def _replays_by_process(self) -> dict[int, tuple[Ints, Ints]]:
        """Process code → from first to last operation of each CUDA graph replay whose operations were traced, merged."""
        operations, launch_call = self.attribution.operations, self.attribution.launch_call
        rows = np.flatnonzero(operations.in_graph & (launch_call >= 0))
        replays: dict[int, tuple[Ints, Ints]] = {}
        for process in present(operations.process[rows]):
            mine = rows[operations.process[rows] == process]
            calls, place = np.unique(launch_call[mine], return_inverse=True)
            start, end = np.full(calls.size, np.iinfo(np.int64).max), np.zeros(calls.size, dtype=np.int64)
            np.minimum.at(start, place, operations.start[mine])
            np.maximum.at(end, place, operations.end[mine])
            replays[process] = merge(start, end)
        return replays

    def _replays(self, process: int) -> tuple[Ints, Ints]:
        nothing = np.zeros(0, dtype=np.int64)
        replays = self._replays_by_process
        if None in self._busy_by_process:  # all rows are of one process, whatever the thread's is called
            return next(iter(replays.values()), (nothing, nothing))
        return replays.get(process, (nothing, nothing))

    def idle(self, windows: list[tuple[int, int, int]]) -> list[GapSummary]:
        """Sum up the GPU's idle time inside each stage instance, by what the host did meanwhile.

        A synchronise that returns to an idle GPU has let its queue run dry: the idle time from there to the next operation
        is its price, too, and not that of the launch or of the Python code in it. A GPU that still works when the call
        returns (another stream, an event in the past) has not run dry.

        Busy is what the GPU did for the window's process: another rank's work does not fill this one's gaps.

        Args:
            windows: (start ns, end ns, thread code) of each stage instance; where those of a thread overlap, their
                common time counts once, in the one that begins first.

        Returns:
            One record per window, in their order; `sum_gaps` adds them up.
        """
        summaries: dict[int, GapSummary] = {}
        reach: dict[int, int] = {}
        for place in sorted(range(len(windows)), key=windows.__getitem__):
            low, high, thread = windows[place]
            low = max(low, reach.get(thread, low))
            reach[thread] = max(high, low)
            busy = self._busy(int(self.attribution.thread_process[thread]))
            opening, closing = _gaps_between(*busy, low, high)
            length = closing - opening
            total = int(length.sum())
            count, largest = int(length.size), int(length.max(initial=0))
            between_nodes = _inside_one(opening, closing, *self._replays(int(self.attribution.thread_process[thread])))
            opening, closing = opening[~between_nodes], closing[~between_nodes]
            in_graph = int(length[between_nodes].sum())
            inside = self._covered_by_thread.get(thread, _NO_CALLS)
            drained = _first_within(self._returns_by_thread.get(thread, opening[:0]), opening, closing)
            drains = drained < closing
            parts, before = [0] * len(_WHAT_COUNTS_FIRST), 0
            for number, (start, end) in enumerate(inside.parts):
                covered = _overlap(*_lasting(opening, drained), *_within(start, end, low, high))
                parts[number] = covered - before
                before = covered if inside.nested else 0
            draining, waiting_again = int((closing - drained).sum()), 0
            if draining and inside.parts:  # a second synchronise finds the GPU idle, and costs its own time
                waiting_again = _overlap(drained[drains], closing[drains], *_within(*inside.parts[0], low, high))
            summaries[place] = GapSummary(
                total_ns=total,
                count=count,
                largest_ns=largest,
                synchronising_ns=parts[0] + waiting_again,
                launching_ns=parts[1],
                other_api_ns=parts[2],
                outside_api_ns=total - in_graph - sum(parts) - draining,
                draining_ns=draining - waiting_again,
                drains=int(drains.sum()),
                in_graph_ns=in_graph,
            )
        return [summaries[place] for place in range(len(windows))]

    def within(self, start: Ints, end: Ints, thread: int) -> WindowTimes:
        """Tell apart what passed in each of many windows, all at once.

        Unlike `idle`, which sums up stages, this leaves what a synchronise let run dry to what the host did meanwhile.

        Args:
            start: of the windows, ns, [n], in order.
            end: of the windows, ns, [n]; none begins before the one in front of it has ended.
            thread: code of the thread that is the host of all of them.
        """
        nothing = np.zeros(start.size, dtype=np.int64)
        if not start.size:
            return WindowTimes(*(nothing,) * 6)
        process = int(self.attribution.thread_process[thread])
        opening, closing = _gaps_between(*self._busy(process), int(start[0]), int(end[-1]))
        between_nodes = _inside_one(opening, closing, *self._replays(process))
        in_graph = _covered_in(opening[between_nodes], closing[between_nodes], start, end)
        opening, closing = opening[~between_nodes], closing[~between_nodes]
        idle = _covered_in(opening, closing, start, end)
        inside = self._covered_by_thread.get(thread, _NO_CALLS)
        parts, before = [nothing] * len(_WHAT_COUNTS_FIRST), nothing
        for number, part in enumerate(inside.parts):
            covered = _covered_in(*_common(opening, closing, *_lasting(*part)), start, end)
            parts[number] = covered - before
            before = covered if inside.nested else nothing
        return WindowTimes(
            busy_ns=end - start - idle - in_graph,
            synchronising_ns=parts[0],
            launching_ns=parts[1],
            other_api_ns=parts[2],
            outside_api_ns=idle - sum(parts),
            in_graph_ns=in_graph,
        )


@frozen(eq=False)
class WindowTimes:
    """What passed in windows of time: GPU busy, and idle by what the host did; they add up to each window. int64 [n], ns."""

    busy_ns: Ints
    synchronising_ns: Ints
    launching_ns: Ints
    other_api_ns: Ints
    outside_api_ns: Ints
    in_graph_ns: Ints

    @property
    def columns(self) -> tuple[Ints, ...]:
        """All of them, in the order of the fields."""
        return (
            self.busy_ns,
            self.synchronising_ns,
            self.launching_ns,
            self.other_api_ns,
            self.outside_api_ns,
            self.in_graph_ns,
        )


def sum_gaps(parts: Iterable[GapSummary]) -> GapSummary:
    """The idle time of several windows together."""
    rows = list(parts)
    return GapSummary(
        total_ns=sum(row.total_ns for row in rows),
        count=sum(row.count for row in rows),
        largest_ns=max((row.largest_ns for row in rows), default=0),
        synchronising_ns=sum(row.synchronising_ns for row in rows),
        launching_ns=sum(row.launching_ns for row in rows),
        other_api_ns=sum(row.other_api_ns for row in rows),
        outside_api_ns=sum(row.outside_api_ns for row in rows),
        draining_ns=sum(row.draining_ns for row in rows),
        drains=sum(row.drains for row in rows),
        in_graph_ns=sum(row.in_graph_ns for row in rows),
    )


@frozen(eq=False)
class _Covered:
    """Where one thread was inside calls of each of `_WHAT_COUNTS_FIRST`."""

    nested: bool
    """Calls lie in one another: then each part holds the parts before it as well."""
    parts: tuple[tuple[Ints, Ints], ...]


_NO_CALLS: Final = _Covered(nested=False, parts=())


def _disjoint(starts: list[Ints], ends: list[Ints]) -> bool:
    """Whether no two intervals, given in several lists, share time and none is empty.

    Sorted apart, the next start lies behind each end exactly if the interval that ends there is the one that began last.
    """
    start, end = np.concatenate(starts), np.concatenate(ends)
    if bool(np.any(end <= start)):
        return False
    start.sort(kind="stable")  # the fast one for lists that are in order each
    end.sort(kind="stable")
    return not bool(np.any(start[1:] < end[:-1]))


def function_name(call: str) -> str:
    """A call's name without its version: ``cudaLaunchKernel_v7000`` is ``cudaLaunchKernel``."""
    return _VERSION.sub("", call)


def host_call_rows(attribution: Attribution, host: HostCalls) -> tuple[HostCallRow, ...]:
    """Waiting calls and small copies by innermost module, then by stage; what lies in none has a row of its own."""
    of_range, names = attribution.module_names
    module = of_range[attribution.call_level("module")]
    by_stage = host.waits_by("stage", attribution.call_stage, stage_names(attribution))
    return (*host.waits_by("module", module, names), *by_stage)


def _lasting(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Intervals without the empty ones: an operation of no length ends no gap."""
    real = end > start
    return (start, end) if bool(real.all()) else (start[real], end[real])


def _within(start: Ints, end: Ints, low: int, high: int) -> tuple[Ints, Ints]:
    """Those of disjoint intervals, in order, that share time with a window, whole."""
    first, last = np.searchsorted(end, low, side="right"), np.searchsorted(start, high)
    return start[first:last], end[first:last]


def _gaps_between(start: Ints, end: Ints, low: int, high: int) -> tuple[Ints, Ints]:
    """Parts of a window that merged intervals leave free: `gaps` without its merging. Both [m], in order."""
    start, end = _within(start, end, low, high)
    if high <= low:
        return start[:0], end[:0]
    opening, closing = np.concatenate(([low], end)), np.concatenate((start, [high]))
    # Only the first interval may have begun before the window, only the last may end behind it.
    first, last = int(closing[0] <= low), opening.size - int(opening[-1] >= high)
    return opening[first:last], closing[first:last]


def _inside_one(opening: Ints, closing: Ints, start: Ints, end: Ints) -> NDArray[np.bool_]:
    """Which gaps lie wholly in one of some disjoint intervals, which are in order, [gaps]."""
    if not start.size:
        return np.zeros(opening.size, dtype=bool)
    before = np.searchsorted(start, opening, side="right") - 1
    inside: NDArray[np.bool_] = (before >= 0) & (end[before] >= closing)
    return inside


def _first_within(moments: Ints, opening: Ints, closing: Ints) -> Ints:
    """The first of some moments in each gap, [gaps]; the gap's end where none lies in it.

    Args:
        moments: in order.
        opening: of the gaps.
        closing: of the gaps.
    """
    if not moments.size:
        return closing
    place = np.searchsorted(moments, opening)
    first: Ints = np.minimum(np.append(moments, np.iinfo(np.int64).max)[place], closing)
    return first


def _overlap(opening: Ints, closing: Ints, start: Ints, end: Ints) -> int:
    """Time that two sets of intervals share, ns; each set is disjoint and in order."""
    if not start.size or not opening.size:
        return 0
    if start.size < opening.size:  # the same either way: look up the fewer ones
        opening, closing, start, end = start, end, opening, closing
    return int(_covered_in(start, end, opening, closing).sum())


def _covered_in(start: Ints, end: Ints, low: Ints, high: Ints) -> Ints:
    """How much of each window is covered by intervals that are disjoint and in order, ns, [windows]."""
    if not start.size:
        return np.zeros(low.size, dtype=np.int64)
    # By index of the first interval behind a moment: what the intervals before it cover, and from where the last of them
    # covers time one to one.
    covered = np.concatenate(([0], np.cumsum(end - start)))
    offset = np.concatenate(([-(2**62)], start - covered[:-1]))

    def covered_until(moment: Ints) -> Ints:
        index = np.searchsorted(start, moment, side="right")
        until: Ints = np.minimum(moment - offset[index], covered[index])
        return until

    return covered_until(high) - covered_until(low)


def _common(opening: Ints, closing: Ints, start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Time that is in both of two sets of intervals, each disjoint and in order, as such a set. Both [m]."""
    first, behind = np.searchsorted(end, opening, side="right"), np.searchsorted(start, closing)
    count = np.maximum(behind - first, 0)
    left = np.repeat(np.arange(opening.size), count)
    right = np.arange(left.size) - np.repeat(np.cumsum(count) - count, count) + first[left]
    return np.maximum(opening[left], start[right]), np.minimum(closing[left], end[right])
