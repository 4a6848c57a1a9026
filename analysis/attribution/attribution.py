"""GPU operation → launching call → enclosing ranges → image, stage, step, module.

An operation belongs to the API call with its correlation id in its process; a call belongs to the ranges on its thread
that contain it. When the operation ran plays no part: kernels run after their range has closed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias, TypeVar

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from analysis.attribution.range_tree import Indices, RangeForest
from analysis.domain.annotations import DECODE_STEP, IMAGE_NAME, MODULE_DOMAIN, STAGE_DOMAIN, STAGES, Stage
from analysis.trace.reader import Trace
from analysis.trace.records import Calls, Codes, Operations, OtherCalls, RangeRows, TraceInfo

__all__ = ["LEVELS", "Attribution", "Level", "owners", "slices_by_thread"]

Level: TypeAlias = Literal["image", "stage", "step", "module", "operator"]
LEVELS: Final[tuple[Level, ...]] = ("image", "stage", "step", "module", "operator")

_OPERATOR_MARKS: Final = ("::", ", seq = ", ", op_id = ")
"""How PyTorch names the ranges of its operators: ``aten::mm``, with ``, seq = 7`` under emit_nvtx."""

_Kept = TypeVar("_Kept")

_DENSE_FACTOR: Final = 8
"""Correlation ids are looked up in a table as long as it is at most this many times longer than the calls."""


def owners(operations: Operations, calls: Calls, call_process: Codes) -> Indices:
    """Find the call that launched each operation: same correlation id, same process.

    Two calls may bear one id (a runtime call and the driver call inside it); the first to start is taken, so that an
    operation is counted once. Rows that do not say their process match calls of any, if the trace has one process.

    Args:
        operations: [n].
        calls: [m].
        call_process: process code of each call, [m].

    Returns:
        Index into calls, [n]; -1: no call has that id.
    """
    owner = np.full(len(operations), -1, dtype=np.int32)
    if not len(calls) or not len(operations):
        return owner
    processes = np.unique(call_process)
    for process in processes:
        mine = np.arange(len(calls)) if processes.size == 1 else np.flatnonzero(call_process == process)
        if processes.size == 1:
            theirs: Any = (operations.process == process) | (operations.process == -1)
            theirs = slice(None) if bool(theirs.all()) else np.flatnonzero(theirs)
        else:
            theirs = np.flatnonzero(operations.process == process)
        owner[theirs] = _match(operations.correlation[theirs], calls.correlation[mine], calls.start[mine], mine)
    return owner


def _match(wanted: Codes, correlation: Codes, start: NDArray[np.int64], index: NDArray[np.intp]) -> NDArray[np.int32]:
    """Index of the earliest call with each wanted id, -1 where there is none or no id."""
    known = correlation >= 0
    if not known.all():
        correlation, start, index = correlation[known], start[known], index[known]
    if not correlation.size or not wanted.size:
        return np.full(wanted.size, -1, dtype=np.int32)
    low, high = int(correlation.min()), int(correlation.max())
    if high - low < _DENSE_FACTOR * (correlation.size + 1024):
        table = np.full(high - low + 1, -1, dtype=np.int32)
        # Written backwards, so that the first call with an id stays.
        table[correlation[::-1] - low] = index[::-1].astype(np.int32)
        if np.count_nonzero(table >= 0) < correlation.size:
            latest_first = np.argsort(start, kind="stable")[::-1]
            table[correlation[latest_first] - low] = index[latest_first].astype(np.int32)
        inside = (wanted >= low) & (wanted <= high)
        return np.where(inside, table[np.where(inside, wanted - low, 0)], -1).astype(np.int32)
    order = np.lexsort((start, correlation))
    sorted_ids = correlation[order]
    position = np.searchsorted(sorted_ids, wanted, side="left")
    position = np.minimum(position, sorted_ids.size - 1)
    return np.where(sorted_ids[position] == wanted, index[order][position], -1).astype(np.int32)


def slices_by_thread(threads: Codes) -> dict[int, slice]:
    """Thread → its rows, where rows are sorted by thread."""
    if not threads.size:
        return {}
    cuts = [0, *(np.flatnonzero(np.diff(threads)) + 1).tolist(), threads.size]
    return {int(threads[low]): slice(low, high) for low, high in pairwise(cuts)}


@frozen(eq=False, slots=False)
class Attribution:
    """Which call owns each operation, and which ranges surround each call.

    Built once per trace; every answer is computed when first asked for. Range answers are rows of ``ranges``, -1 where
    there is none.
    """

    operations: Operations
    calls: Calls
    other_calls: OtherCalls
    """They own nothing and are attributed to nothing; they tell when the host was inside CUDA."""
    ranges: RangeRows
    forest: RangeForest
    owner: Indices
    """Operation → call, [n]; -1: no call is known."""
    info: TraceInfo
    """Of processes and threads by code."""
    thread_process: NDArray[np.int64]
    """Thread code → process code; -1 → -1."""
    cross_thread: bool = False
    """Offer a call outside all stages of its own thread to the stage open on another thread of its process."""

    @classmethod
    def of(cls, trace: Trace, *, cross_thread: bool = False) -> Attribution:
        """Attribute a trace."""
        operations, calls, ranges = trace.operations, trace.calls, trace.ranges
        thread_process = np.array([*trace.info.thread_process, -1], dtype=np.int64)
        return cls(
            operations=operations,
            calls=calls,
            other_calls=trace.other_calls,
            ranges=ranges,
            forest=RangeForest.build(ranges),
            owner=owners(operations, calls, thread_process[calls.thread]),
            info=trace.info,
            thread_process=thread_process,
            cross_thread=cross_thread,
        )

    @cached_property
    def _thread_slices(self) -> dict[int, slice]:
        return slices_by_thread(self.calls.thread)

    def domain(self, name: str) -> int | None:
        """Code of a domain, None where the trace has no range in it."""
        return self.ranges.domains.index(name) if name in self.ranges.domains else None

    @cached_property
    def _call_end(self) -> NDArray[np.int64]:
        return self.calls.end

    @cached_property
    def _operations_of_thread(self) -> dict[int, Indices]:
        """Operations by the thread whose calls launched them, in order of their start."""
        launched = np.flatnonzero(self.owner >= 0).astype(np.int32)
        thread = self.calls.thread[self.owner[launched]] if launched.size else launched
        if len(self._thread_slices) <= 1:
            return dict.fromkeys(self._thread_slices, launched)
        order = np.argsort(thread, kind="stable")
        cuts = np.flatnonzero(np.diff(thread[order])) + 1
        groups = np.split(launched[order], cuts)
        return {int(self.calls.thread[self.owner[group[0]]]): group for group in groups if group.size}

    def operations_in_lane(self, index: int) -> tuple[Indices, Indices]:
        """The operations inside any range of a lane and the innermost such range, both [m], in order of start."""
        around = self._around(index)
        nothing = np.zeros(0, dtype=np.int32)
        launched = self._operations_of_thread.get(self.forest.lanes[index].thread)
        if around is None or launched is None:
            return nothing, nothing
        where, inside = around
        row = inside[self.owner[launched] - where.start]
        found = row >= 0
        return launched[found], row[found]

    def _around(self, index: int) -> tuple[slice, Indices] | None:
        """The calls of a lane's thread and the innermost range of the lane around each; None: it makes no calls.

        Kept, because image, stage and step ask the same question of the same lane.
        """
        lane = self.forest.lanes[index]
        where = self._thread_slices.get(lane.thread)
        if where is None:
            return None
        inside = self.kept(("lane", index), lambda: lane.innermost(self.calls.start[where], self._call_end[where]))
        return where, inside

    def call_ranges(self, domain: int) -> Indices:
        """Innermost range of a domain around each call, [calls]; where lanes overlap, the one that started last."""
        return self._innermost({domain}, np.arange(len(self.ranges), dtype=np.int32))

    def _innermost(self, domains: set[int], nearest: Indices) -> Indices:
        """Around each call, what ``nearest`` makes of the innermost range in each lane of the domains, [calls].

        Args:
            domains: codes of the domains to look in.
            nearest: range → the range to take instead, -1 for none, [ranges].
        """
        found = np.full(len(self.calls), -1, dtype=np.int32)
        nearest = np.append(nearest, np.int32(-1))  # no range stays none
        for index, lane in enumerate(self.forest.lanes):
            around = self._around(index) if lane.domain in domains else None
            if around is not None:
                where, inside = around
                found[where] = self._later(found[where], nearest[inside])
        return found

    def _later(self, one: Indices, other: Indices) -> Indices:
        """Row by row, the range that started last – of two that started together, the shorter; -1 loses against any."""
        if not (one >= 0).any():
            return other
        start, end = self.ranges.start, self.ranges.end
        inner = (start[other] > start[one]) | ((start[other] == start[one]) & (end[other] < end[one]))
        take = (other >= 0) & ((one < 0) | inner)
        return np.where(take, other, one).astype(np.int32)

    # --- levels -----------------------------------------------------------------------------------------------

    @cached_property
    def module_domain(self) -> str:
        """Where module ranges are: our own domain, else the default one, where hand-made annotations go."""
        return MODULE_DOMAIN if MODULE_DOMAIN in self.ranges.domains else ""

    @cached_property
    def _is_operator(self) -> NDArray[np.bool_]:
        by_name = np.array([any(mark in name for mark in _OPERATOR_MARKS) for name in self.ranges.names], dtype=bool)
        by_domain = np.array([one in ("", "torch") for one in self.ranges.domains], dtype=bool)
        if not len(self.ranges):
            return np.zeros(0, dtype=bool)
        operators: NDArray[np.bool_] = by_name[self.ranges.name] & by_domain[self.ranges.domain]
        return operators

    def _is_level(self, level: Level) -> NDArray[np.bool_]:
        """Which ranges make a level, [ranges]."""
        names = self.ranges.names
        if level == "operator":
            return self._is_operator
        if level == "module":
            domain = self.domain(self.module_domain)
            modules: NDArray[np.bool_] = self.ranges.domain == (-1 if domain is None else domain)
            return modules & ~self._is_operator
        wanted = {
            "image": [IMAGE_NAME.fullmatch(name) is not None for name in names],
            "stage": [name in STAGES for name in names],
            "step": [name == DECODE_STEP for name in names],
        }[level]
        domain = self.domain(STAGE_DOMAIN)
        if domain is None or not names:
            return np.zeros(len(self.ranges), dtype=bool)
        found: NDArray[np.bool_] = np.array(wanted, dtype=bool)[self.ranges.name] & (self.ranges.domain == domain)
        return found

    def is_level(self, level: Level) -> NDArray[np.bool_]:
        """Which ranges make a level, [ranges]."""
        return self.kept(("is", level), lambda: self._is_level(level))

    def call_level(self, level: Level) -> Indices:
        """Innermost range of a level around each call, as a row of ``ranges``, [calls]; -1: none."""
        return self.kept(("call", level), lambda: self._call_level(level))

    def operation_level(self, level: Level) -> Indices:
        """Innermost range of a level around each operation's call, [operations]; -1: none."""
        return self.kept(("operation", level), lambda: self.of_owner(self.call_level(level)))

    def of_owner(self, by_call: Indices) -> Indices:
        """Carry an answer about calls over to the operations that they own."""
        if not by_call.size:
            return np.full(self.owner.size, -1, dtype=np.int32)
        return np.where(self.owner >= 0, by_call[self.owner], np.int32(-1)).astype(np.int32)

    def _call_level(self, level: Level) -> Indices:
        wanted = self.is_level(level)
        if not wanted.any():
            return np.full(len(self.calls), -1, dtype=np.int32)
        nearest = self.forest.nearest(wanted)
        domains = set(np.unique(self.ranges.domain[wanted]).tolist())
        found = self._innermost(domains, nearest)
        if self.cross_thread:
            self._offer_across_threads(found, domains, nearest)
        return found

    def _offer_across_threads(self, found: Indices, domains: set[int], nearest: Indices) -> None:
        """Give calls without a range of the level to the one open at that time on another thread of the process."""
        outside = np.flatnonzero(found < 0)
        process = self.thread_process[self.calls.thread[outside]]
        start, end = self.calls.start[outside], self._call_end[outside]
        nearest = np.append(nearest, np.int32(-1))
        best = np.full(outside.size, -1, dtype=np.int32)
        for lane in self.forest.lanes:
            if lane.domain not in domains:
                continue
            near = np.flatnonzero(process == self.thread_process[lane.thread])
            if near.size:
                best[near] = self._later(best[near], nearest[lane.innermost(start[near], end[near])])
        found[outside] = best

    def kept(self, key: tuple[Any, ...], make: Callable[[], _Kept]) -> _Kept:
        """Answer a question once: what ``make`` returns is kept under ``key`` for as long as the attribution lives."""
        answers: dict[tuple[Any, ...], Any] = self.__dict__.setdefault("_answers", {})
        if key not in answers:
            answers[key] = make()
        kept: _Kept = answers[key]
        return kept

    # --- names ------------------------------------------------------------------------------------------------

    @cached_property
    def instance_names(self) -> dict[int, str]:
        """Row of each image, stage and step → its path: ``image[0]/decode/decode_step#3``.

        Ranges of one name under one parent are numbered in time order, from 0, if there are several.
        """
        wanted = self.is_level("image") | self.is_level("stage") | self.is_level("step")
        rows = np.flatnonzero(wanted)
        rows = rows[np.argsort(self.ranges.start[rows], kind="stable")]
        above = self._parent_of_interest(wanted)
        own = {int(row): self.ranges.names[self.ranges.name[row]] for row in rows}
        several: dict[tuple[int, str], int] = {}
        for row, name in own.items():
            key = (int(above[row]), name)
            several[key] = several.get(key, 0) + 1
        seen: dict[tuple[int, str], int] = {}
        paths: dict[int, str] = {}
        for row, name in own.items():
            parent = int(above[row])
            key = (parent, name)
            number = seen.get(key, 0)
            seen[key] = number + 1
            label = f"{name}#{number}" if several[key] > 1 else name
            paths[row] = f"{paths[parent]}/{label}" if parent in paths else label
        return paths

    def _parent_of_interest(self, wanted: NDArray[np.bool_]) -> Indices:
        nearest = np.append(self.forest.nearest(wanted), np.int32(-1))
        return nearest[self.forest.parent].astype(np.int32)

    @cached_property
    def _stage_code(self) -> NDArray[np.int8]:
        """Index into `STAGES` of each range that is a stage, else ``len(STAGES)``, [ranges + 1]: -1 finds the last."""
        by_name = np.array([STAGES.index(n) if n in STAGES else len(STAGES) for n in self.ranges.names], dtype=np.int8)
        code = np.full(len(self.ranges) + 1, len(STAGES), dtype=np.int8)
        rows = np.flatnonzero(self.is_level("stage"))
        code[rows] = by_name[self.ranges.name[rows]]
        return code

    def stage_rows(self, stage: Stage) -> NDArray[np.intp]:
        """Rows of the ranges that are instances of a stage, in the file's order."""
        return np.flatnonzero(self._stage_code[:-1] == STAGES.index(stage))

    @cached_property
    def call_stage(self) -> NDArray[np.int8]:
        """Stage of each call as index into `STAGES`; ``len(STAGES)``: none, [calls]."""
        found: NDArray[np.int8] = self._stage_code[self.call_level("stage")]
        return found

    @cached_property
    def operation_stage(self) -> NDArray[np.int8]:
        """Stage of each operation as index into `STAGES`; ``len(STAGES)``: none, [operations]."""
        found: NDArray[np.int8] = self._stage_code[self.operation_level("stage")]
        return found

    def ranges_in_stage(self, stage: Stage) -> NDArray[np.bool_]:
        """Which ranges of the stage domain are a stage of that name or lie inside one, [ranges]."""
        nearest = self.forest.nearest(self.is_level("stage"))
        inside: NDArray[np.bool_] = self._stage_code[nearest] == STAGES.index(stage)
        return inside

    def qualified_name(self, row: int) -> str:
        """``domain:name``; a range of the default domain is its name alone, as Nsight Systems prints it."""
        domain = self.ranges.domains[self.ranges.domain[row]]
        name = self.ranges.names[self.ranges.name[row]]
        return f"{domain}:{name}" if domain else name
