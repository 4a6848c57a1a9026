"""GPU operation → launch call → enclosing ranges → image, stage, step, module.

An operation belongs to the API call with its correlation id in its process; a call belongs to the ranges on its thread
that contain it. When the operation ran plays no part: kernels run after their range has closed.

Which ranges are around a call, and which an operation belongs to, are two questions (`Attribution.call_level`,
`Attribution.operation_level`). Image, stage and step of an operation are those of its launch call, and so are module and
operator, unless a CUDA graph launched it: then these two are those of the place where its node was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias, TypeVar

import numpy as np
from attrs import field, frozen
from numpy.typing import NDArray

from analysis.attribution.graph_nodes import Recordings, find_recordings
from analysis.attribution.range_tree import Indices, RangeTree
from analysis.attribution.vocabulary import STEP_KINDS, Choice, Composition, Meaning, Reading, Vocabulary, choose
from analysis.domain.annotations import STAGES
from analysis.trace.distinct import present
from analysis.trace.reader import Trace
from analysis.trace.records import Calls, Codes, Operations, OtherCalls, RangeRows, TraceInfo

__all__ = ["LEVELS", "Attribution", "Level", "launch_calls", "slices_by_thread"]

Level: TypeAlias = Literal["image", "stage", "step", "module", "operator"]
LEVELS: Final[tuple[Level, ...]] = ("image", "stage", "step", "module", "operator")

_RECORDED_LEVELS: Final[tuple[Level, ...]] = ("module", "operator")
"""What a graph node has from the place of its recording: what it computes, not when."""

_OPERATOR_MARKS: Final = ("::", ", seq = ", ", op_id = ")
"""How PyTorch names the ranges of its operators: ``aten::mm``, with ``, seq = 7`` under emit_nvtx."""

_Answer = TypeVar("_Answer")

_DENSE_FACTOR: Final = 8
"""Correlation ids are looked up in a table as long as it is at most this many times longer than the calls."""


def launch_calls(operations: Operations, calls: Calls, call_process: Codes) -> Indices:
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
    launch_call = np.full(len(operations), -1, dtype=np.int32)
    if not len(calls) or not len(operations):
        return launch_call
    processes = present(call_process)
    for process in processes:
        own_calls = np.arange(len(calls)) if len(processes) == 1 else np.flatnonzero(call_process == process)
        if len(processes) == 1:
            own_work: Any = (operations.process == process) | (operations.process == -1)
            own_work = slice(None) if bool(own_work.all()) else np.flatnonzero(own_work)
        else:
            own_work = np.flatnonzero(operations.process == process)
        launch_call[own_work] = _match(
            operations.correlation[own_work], calls.correlation[own_calls], calls.start[own_calls], own_calls
        )
    return launch_call


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
        if high > np.iinfo(wanted.dtype).max:  # ids that no operation has, in more bits than those of the operations
            wanted = wanted.astype(np.int64)
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
    """The launch call of each operation, and the ranges around each call.

    Built once per trace; every answer is computed when it is first asked for. Answers that are ranges are rows of
    ``ranges``, -1 where there is none.
    """

    operations: Operations
    calls: Calls
    other_calls: OtherCalls
    """They own nothing and are attributed to nothing; they tell when the host was inside CUDA."""
    ranges: RangeRows
    tree: RangeTree
    launch_call: Indices
    """Operation → call, [operations]; -1: no call is known."""
    recordings: Recordings
    """Of the CUDA graph nodes that operations name."""
    info: TraceInfo
    """Of processes and threads by code."""
    thread_process: NDArray[np.int64]
    """Thread code → process code; -1 → -1."""
    choice: Choice
    """How the names of ranges are read: which of them are images, stages, steps and modules."""
    cross_thread: bool = False
    """Offer calls outside all ranges of a kind on their own thread to those open on another thread of the process."""
    _memo: dict[tuple[str, Any], Any] = field(factory=dict, init=False)
    """Question → answer, of `_memoised`."""

    @classmethod
    def of(cls, trace: Trace, *, cross_thread: bool = False, vocabulary: Vocabulary | None = None) -> Attribution:
        """Attribute a trace.

        Args:
            trace: opened.
            cross_thread: see the field.
            vocabulary: what range names mean, as the user said; None: the one that the names speak for.
        """
        operations, calls, ranges = trace.operations, trace.calls, trace.ranges
        thread_process = np.array([*trace.info.thread_process, -1], dtype=np.int64)
        return cls(
            operations=operations,
            calls=calls,
            other_calls=trace.other_calls,
            ranges=ranges,
            tree=RangeTree.build(ranges),
            launch_call=launch_calls(operations, calls, thread_process[calls.thread]),
            recordings=find_recordings(operations, trace.graph_nodes, thread_process),
            info=trace.info,
            thread_process=thread_process,
            choice=choose(ranges, vocabulary),
            cross_thread=cross_thread,
        )

    def _memoised(self, question: tuple[str, Any], answer: Callable[[], _Answer]) -> _Answer:
        """Answer a question about this attribution once."""
        if question not in self._memo:
            self._memo[question] = answer()
        memoised: _Answer = self._memo[question]
        return memoised

    @cached_property
    def _thread_slices(self) -> dict[int, slice]:
        return slices_by_thread(self.calls.thread)

    def domain(self, name: str) -> int | None:
        """Code of a domain, None where the trace has no range in it."""
        return self.ranges.domains.index(name) if name in self.ranges.domains else None

    @cached_property
    def _call_end(self) -> NDArray[np.int64]:
        return self.calls.end

    # --- calls and operations inside the ranges of one stack ---------------------------------------------------

    def _calls_in_stack(self, index: int) -> tuple[slice, Indices] | None:
        """The calls of a stack's thread and the innermost range of the stack around each; None: it makes no calls.

        Memoised, because image, stage and step ask the same question of the same stack.
        """
        stack = self.tree.stacks[index]
        own = self._thread_slices.get(stack.thread)
        if own is None:
            return None
        rows = self._memoised(("stack", index), lambda: stack.innermost(self.calls.start[own], self._call_end[own]))
        return own, rows

    @cached_property
    def _operations_of_thread(self) -> dict[int, Indices]:
        """Operations by the thread whose calls launched them, in order of their start."""
        launched = np.flatnonzero(self.launch_call >= 0).astype(np.int32)
        thread = self.calls.thread[self.launch_call[launched]] if launched.size else launched
        if len(self._thread_slices) <= 1:
            return dict.fromkeys(self._thread_slices, launched)
        order = np.argsort(thread, kind="stable")
        cuts = np.flatnonzero(np.diff(thread[order])) + 1
        groups = np.split(launched[order], cuts)
        return {int(self.calls.thread[self.launch_call[group[0]]]): group for group in groups if group.size}

    def operations_in_stack(self, index: int) -> tuple[Indices, Indices]:
        """The operations inside any range of a stack and the innermost such range, both [m], in order of start.

        With ``cross_thread`` also those that calls of other threads launched, as `_offered_calls` says.
        """
        in_stack = self._calls_in_stack(index)
        launched = self._operations_of_thread.get(self.tree.stacks[index].thread)
        operations = rows = np.zeros(0, dtype=np.int32)
        if in_stack is not None and launched is not None:
            own, by_call = in_stack
            rows = by_call[self.launch_call[launched] - own.start]
            inside = rows >= 0
            operations, rows = launched[inside], rows[inside]
        offered = self._offered_calls.get(index) if self.cross_thread else None
        if offered is None:
            return operations, rows
        by_call = np.full(len(self.calls), -1, dtype=np.int32)
        by_call[offered[0]] = offered[1]
        more = self.to_operations(by_call)
        also = np.flatnonzero(more >= 0).astype(np.int32)
        operations, rows = np.concatenate((operations, also)), np.concatenate((rows, more[also]))
        order = np.argsort(operations, kind="stable")
        return operations[order], rows[order]

    @cached_property
    def _offered_calls(self) -> dict[int, tuple[NDArray[np.intp], Indices]]:
        """Stack → calls of other threads that its ranges are offered, and the innermost range around each.

        A call outside all ranges of a domain on its own thread is offered those of one other thread of its process: of
        the threads with a range of the domain open around the call, the one whose innermost such range started last.
        """
        offered: dict[int, tuple[NDArray[np.intp], Indices]] = {}
        for domain in range(len(self.ranges.domains)):
            outside = np.flatnonzero(self.call_ranges(domain) < 0)
            candidates = list(self._open_elsewhere({domain}, outside))
            nearest = np.full(outside.size, -1, dtype=np.int32)
            for _, rows in candidates:
                nearest = self._later(nearest, rows)
            thread = self.ranges.thread[nearest]
            for index, rows in candidates:
                taken = (rows >= 0) & (thread == self.tree.stacks[index].thread)
                if taken.any():
                    offered[index] = (outside[taken], rows[taken])
        return offered

    # --- the innermost range around a call ---------------------------------------------------------------------

    def call_ranges(self, domain: int) -> Indices:
        """Innermost range of a domain around each call, [calls]; where stacks overlap, the one that started last."""
        return self._innermost({domain}, np.arange(len(self.ranges), dtype=np.int32))

    def _innermost(self, domains: set[int], nearest: Indices) -> Indices:
        """Around each call, what ``nearest`` makes of the innermost range in each stack of the domains, [calls].

        Args:
            domains: codes of the domains to look in.
            nearest: range → the range to take instead, -1 for none, [ranges].
        """
        around = np.full(len(self.calls), -1, dtype=np.int32)
        nearest = np.append(nearest, np.int32(-1))  # no range stays none
        for index, stack in enumerate(self.tree.stacks):
            in_stack = self._calls_in_stack(index) if stack.domain in domains else None
            if in_stack is not None:
                own, rows = in_stack
                around[own] = self._later(around[own], nearest[rows])
        return around

    def _open_elsewhere(self, domains: set[int], calls: NDArray[np.intp]) -> Iterator[tuple[int, Indices]]:
        """For each stack of the domains, its innermost range around each of some calls of its process, [calls].

        Args:
            domains: codes of the domains to look in.
            calls: which calls, in order.
        """
        process = self.thread_process[self.calls.thread[calls]]
        start, end = self.calls.start[calls], self._call_end[calls]
        for index, stack in enumerate(self.tree.stacks):
            near = process == self.thread_process[stack.thread]
            if stack.domain in domains and near.any():
                rows = np.full(calls.size, -1, dtype=np.int32)
                rows[near] = stack.innermost(start[near], end[near])
                yield index, rows

    def _later(self, rows: Indices, others: Indices) -> Indices:
        """Row by row, the range that started last – of two that started together, the shorter; -1 loses against any."""
        if not (rows >= 0).any():
            return others
        start, end = self.ranges.start, self.ranges.end
        inner = (start[others] > start[rows]) | ((start[others] == start[rows]) & (end[others] < end[rows]))
        take = (others >= 0) & ((rows < 0) | inner)
        return np.where(take, others, rows).astype(np.int32)

    # --- levels -----------------------------------------------------------------------------------------------

    @property
    def reading(self) -> Reading:
        """What each range is, by its name."""
        return self.choice.reading

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages in the order in which they are shown: prefill and decode, or the kinds of an engine's steps.

        Of an engine those kinds that the trace has; a step is then an instance of the stage that its kind names.
        """
        if not self.choice.vocabulary.has_step_kinds:
            return STAGES
        seen = {meaning.kind for meaning in self.reading.meanings}
        return tuple(kind for kind in STEP_KINDS if kind in seen)

    @cached_property
    def module_domains(self) -> tuple[str, ...]:
        """Domains with module ranges, by how many they hold, the most first; the default one is the empty text."""
        rows = np.flatnonzero(self.is_level("module"))
        counts = np.bincount(self.ranges.domain[rows], minlength=len(self.ranges.domains))
        order = np.argsort(-counts, kind="stable")
        return tuple(self.ranges.domains[code] for code in order.tolist() if counts[code])

    @cached_property
    def module_names(self) -> tuple[NDArray[np.int32], tuple[str, ...]]:
        """Code of each module range's path, [ranges + 1], -1 for what is no module and for no range; and the paths."""
        paths: dict[str, int] = {}
        by_code = [
            -1 if meaning.module is None else paths.setdefault(meaning.module, len(paths))
            for meaning in self.reading.meanings
        ]
        return np.array(by_code, dtype=np.int32)[self.reading.code], tuple(paths)

    def meaning(self, row: int) -> Meaning:
        """What a range is, by its name."""
        return self.reading.meanings[int(self.reading.code[row])]

    def composition(self, row: int) -> Composition | None:
        """What an engine's step works on; None: the range is no such step."""
        return self.meaning(row).composition

    @cached_property
    def _is_operator(self) -> NDArray[np.bool_]:
        if not len(self.ranges):
            return np.zeros(0, dtype=bool)
        by_name = np.array([any(mark in name for mark in _OPERATOR_MARKS) for name in self.ranges.names], dtype=bool)
        by_domain = np.array([name in ("", "torch") for name in self.ranges.domains], dtype=bool)
        operators: NDArray[np.bool_] = by_name[self.ranges.name] & by_domain[self.ranges.domain]
        return operators

    def _ranges_of_level(self, level: Level) -> NDArray[np.bool_]:
        if level == "operator":
            return self._is_operator
        meanings = self.reading.meanings
        if level == "module":
            return self.reading.where([meaning.module is not None for meaning in meanings]) & ~self._is_operator
        # An engine's step is a stage instance too: the stage is its kind.
        return self.reading.where(
            [meaning.level == level or (level == "stage" and meaning.composition is not None) for meaning in meanings]
        )

    def is_level(self, level: Level) -> NDArray[np.bool_]:
        """Which ranges make a level, [ranges]."""
        return self._memoised(("is level", level), lambda: self._ranges_of_level(level))

    def call_level(self, level: Level) -> Indices:
        """Innermost range of a level around each call, [calls]."""
        return self._memoised(("call level", level), lambda: self._call_level(level))

    def operation_level(self, level: Level) -> Indices:
        """Innermost range of a level that each operation belongs to, [operations].

        That of its launch call; module and operator of what a CUDA graph replays are those of its node's recording, if
        the trace holds it inside such a range.
        """
        return self._memoised(("operation level", level), lambda: self._operation_level(level))

    def _operation_level(self, level: Level) -> Indices:
        by_launch = self.to_operations(self.call_level(level))
        if level not in _RECORDED_LEVELS or not self.recordings.start.size:
            return by_launch
        by_recording = np.append(self.node_level(level), np.int32(-1))[self.recordings.node]
        return np.where(by_recording >= 0, by_recording, by_launch).astype(np.int32)

    def node_level(self, level: Level) -> Indices:
        """Innermost range of a level in which each node of `recordings` was recorded, [nodes]."""
        return self._memoised(("node level", level), lambda: self._node_level(level))

    def _node_level(self, level: Level) -> Indices:
        places = self.recordings
        around = np.full(places.start.size, -1, dtype=np.int32)
        wanted = self.is_level(level)
        if not wanted.any() or not places.known.any():
            return around
        nearest = np.append(self.tree.nearest(wanted), np.int32(-1))
        domains = set(present(self.ranges.domain[wanted]))
        for stack in self.tree.stacks:
            here = np.flatnonzero(places.known & (places.thread == stack.thread))
            if stack.domain in domains and here.size:
                moment = places.start[here]
                around[here] = self._later(around[here], nearest[stack.innermost(moment, moment)])
        return around

    def operation_instances(self, level: Level) -> NDArray[np.int64]:
        """Instance of a level that each operation belongs to, [operations], as numbers from 0.

        Each range is an instance, ``len(ranges)`` stands for none; of a range that holds a graph's recording each replay
        is an instance of its own.
        """
        return self._memoised(("operation instances", level), lambda: self._operation_instances(level))

    def _operation_instances(self, level: Level) -> NDArray[np.int64]:
        rows = self.operation_level(level).astype(np.int64)
        instances = np.where(rows >= 0, rows, len(self.ranges))
        if not self.recordings.start.size:  # nothing is replayed, and the launches need not be asked again
            return instances
        replayed = np.flatnonzero((rows >= 0) & (rows != self.to_operations(self.call_level(level))))
        if replayed.size:
            packed = rows[replayed] * (len(self.calls) + 1) + self.launch_call[replayed] + 1
            _, number = np.unique(packed, return_inverse=True)
            instances[replayed] = len(self.ranges) + 1 + number
        return instances

    def to_operations(self, by_call: Indices) -> Indices:
        """Carry an answer about calls over to the operations that they launched, [operations]."""
        if not by_call.size:
            return np.full(self.launch_call.size, -1, dtype=np.int32)
        return np.where(self.launch_call >= 0, by_call[self.launch_call], np.int32(-1)).astype(np.int32)

    def _call_level(self, level: Level) -> Indices:
        wanted = self.is_level(level)
        if not wanted.any():
            return np.full(len(self.calls), -1, dtype=np.int32)
        nearest = self.tree.nearest(wanted)
        domains = set(present(self.ranges.domain[wanted]))
        around = self._innermost(domains, nearest)
        if level in ("stage", "step"):
            self._continue_steps(around, wanted)
        if self.cross_thread:
            outside = np.flatnonzero(around < 0)
            nearest = np.append(nearest, np.int32(-1))
            elsewhere = np.full(outside.size, -1, dtype=np.int32)
            for _, rows in self._open_elsewhere(domains, outside):
                elsewhere = self._later(elsewhere, nearest[rows])
            around[outside] = elsewhere
        return around

    def _continue_steps(self, around: Indices, wanted: NDArray[np.bool_]) -> None:
        """Give calls that lie in no step, but in a range that continues one, to the step before on their thread.

        Args:
            around: innermost step around each call, [calls]; changed in place.
            wanted: which ranges are steps, [ranges].
        """
        continuing = self.reading.where([meaning.continues for meaning in self.reading.meanings])
        if not continuing.any():
            return
        domains = set(present(self.ranges.domain[continuing]))
        inside = self._innermost(domains, self.tree.nearest(continuing)) >= 0
        calls = np.flatnonzero((around < 0) & inside)
        steps = np.flatnonzero(wanted).astype(np.int32)
        start, thread = self.ranges.start, self.ranges.thread
        for code in present(self.calls.thread[calls]):
            mine = calls[self.calls.thread[calls] == code]
            own = steps[thread[steps] == code]
            own = own[np.argsort(start[own], kind="stable")]
            before = np.searchsorted(start[own], self.calls.start[mine], side="right") - 1
            around[mine[before >= 0]] = own[before[before >= 0]]

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
        own = {int(row): self._label(int(row)) for row in rows}
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

    def _label(self, row: int) -> str:
        """What a range is called in paths: its name; a step that stands for itself by its kind."""
        meaning = self.meaning(row)
        if meaning.composition is not None and meaning.kind is not None:
            return meaning.kind
        return self.ranges.names[int(self.ranges.name[row])]

    def _parent_of_interest(self, wanted: NDArray[np.bool_]) -> Indices:
        nearest = np.append(self.tree.nearest(wanted), np.int32(-1))
        return nearest[self.tree.parent].astype(np.int32)

    @cached_property
    def stage_code(self) -> NDArray[np.int8]:
        """Index into `stages` of each range that is a stage, else ``len(stages)``, [ranges + 1]: -1 finds the last."""
        stages = self.stages
        by_meaning = [
            stages.index(meaning.kind)
            if meaning.kind is not None and meaning.level in ("stage", "step")
            else len(stages)
            for meaning in self.reading.meanings
        ]
        return np.array(by_meaning, dtype=np.int8)[self.reading.code]

    def stage_of(self, row: int) -> str:
        """Name of the stage that a range is an instance of."""
        return self.stages[int(self.stage_code[row])]

    def stage_rows(self, stage: str) -> NDArray[np.intp]:
        """Rows of the ranges that are instances of a stage, in the file's order."""
        return np.flatnonzero(self.stage_code[:-1] == self._code_of(stage))

    def _code_of(self, stage: str) -> int:
        """Index into `stages`; -1, which nothing has, for a stage that the trace does not know."""
        return self.stages.index(stage) if stage in self.stages else -1

    @cached_property
    def call_stage(self) -> NDArray[np.int8]:
        """Stage of each call as index into `stages`; ``len(stages)``: none, [calls]."""
        stage: NDArray[np.int8] = self.stage_code[self.call_level("stage")]
        return stage

    @cached_property
    def operation_stage(self) -> NDArray[np.int8]:
        """Stage of each operation as index into `stages`; ``len(stages)``: none, [operations]."""
        stage: NDArray[np.int8] = self.stage_code[self.operation_level("stage")]
        return stage

    def in_stage(self, stage: str) -> NDArray[np.bool_]:
        """Which operations belong to a stage, [operations]."""
        mine: NDArray[np.bool_] = self.operation_stage == self._code_of(stage)
        return mine

    def ranges_in_stage(self, stage: str) -> NDArray[np.bool_]:
        """Which ranges of the stage domain are a stage of that name or lie inside one, [ranges]."""
        nearest = self.tree.nearest(self.is_level("stage"))
        inside: NDArray[np.bool_] = self.stage_code[nearest] == self._code_of(stage)
        return inside

    def qualified_name(self, row: int) -> str:
        """``domain:name``; a range of the default domain is its name alone, as Nsight Systems prints it."""
        domain = self.ranges.domains[self.ranges.domain[row]]
        name = self.ranges.names[self.ranges.name[row]]
        return f"{domain}:{name}" if domain else name
