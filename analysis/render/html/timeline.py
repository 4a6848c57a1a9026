"""Every event of a trace, packed into a text that the page's timeline unpacks when it is first looked at.

The text is base64 of a zlib stream: the length of a head (4 bytes, little-endian), the head as JSON (tracks, names, which
columns follow), then the columns. A column is unsigned integers of 1 to 7 bytes, all their lowest bytes first, then all
the next ones: so what hardly varies lies together and packs well. Starts and launch calls are differences from row to row,
begun anew in each track. Encoded by numpy, with no loop over events.

Where there are more than `MAX_ROWS` operations or calls, they are folded: neighbouring operations of one stream, stage and
module become a block with their count and the sum of their times, neighbouring calls of one kind likewise; where that leaves
more than `FOLDED_ROWS` blocks, those with the least time between them are joined. Of more than `MAX_RANGES` ranges the
innermost are left out. The head says so, and the page too.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.attribution.intervals import sum_by_group
from analysis.domain.columns import Records
from analysis.domain.entities import KernelSummary
from analysis.render.html.page_data import MAX_NAME_BYTES, cut
from analysis.render.spec.text import shortened, visible
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.host_calls import COPY, GRAPH_LAUNCH, LAUNCH, OTHER, SYNCHRONISE, HostCalls, function_name
from analysis.trace.distinct import distinct
from analysis.trace.records import GRAPH

__all__ = ["FOLDED_ROWS", "MAX_RANGES", "MAX_ROWS", "packed_timeline"]

MAX_ROWS: Final = 180_000
"""Of operations, of calls that own GPU work or wait for it, and of other calls. Then the page stays below 5 MB."""
FOLDED_ROWS: Final = 100_000
MAX_RANGES: Final = 60_000
NEIGHBOURS_NS: Final = 20_000
"""Operations further apart than this are not folded, unless there are more such gaps than `FOLDED_ROWS`."""

_MAX_DEPTH: Final = 12
"""Modules nested deeper have no track."""
_MANY_NAMES: Final = 2000
"""Where a trace has more names than this, they are cut to `_SHORT_NAME_LENGTH`."""
_SHORT_NAME_LENGTH: Final = 160
_LEVEL: Final = 3
"""Of zlib: 6 takes twice as long and saves 2 %."""
_CALL_KINDS: Final = {
    LAUNCH: "launch",
    GRAPH_LAUNCH: "graph launch",
    SYNCHRONISE: "synchronise",
    COPY: "copy or set",
    OTHER: "other",
}
_OTHER_CALLS: Final = "other CUDA calls"
_SEVERAL: Final = "several modules"

Ints = NDArray[np.int64]


def packed_timeline(
    attribution: Attribution,
    kernels: Sequence[KernelSummary] | Callable[[], Sequence[KernelSummary]],
    host: HostCalls | None = None,
) -> str:
    """All operations, calls and ranges of a trace, as the page's script reads them.

    Args:
        attribution: of the trace.
        kernels: the report's, for category and name in words; a function is called when they are needed, which is last.
        host: the trace's calls, where they are read already.

    Returns:
        Base64; empty: there is no operation and no range.
    """
    if not len(attribution.operations) and not len(attribution.ranges):
        return ""
    asked = kernels if callable(kernels) else lambda: kernels
    return _Packing(attribution, asked, host or HostCalls(attribution)).packed()


@frozen(eq=False)
class _Tracks:
    """Rows of a table, ordered by track, then start."""

    rows: Ints
    """Rows of the trace's table, [n]."""
    cuts: Ints
    """Where each track begins in ``rows``, and the end of the last, [tracks + 1]."""
    as_it_is: bool = False
    """Whether ``rows`` are all rows of the table in its own order."""

    def of(self, column: NDArray[Any]) -> NDArray[Any]:
        """A column of the table, by track, [n]."""
        return column if self.as_it_is else column[self.rows]


def _by_track(key: Ints, start: Ints, *, in_order: bool) -> tuple[_Tracks, Ints]:
    """Order rows by track, then start.

    Args:
        key: track of each row, any integers, [n].
        start: ns, [n].
        in_order: whether the rows are already in the order of their start.

    Returns:
        The tracks, and the key of each.
    """
    if key.size and bool((key == key[0]).all()) and in_order:
        return _Tracks(np.arange(key.size), np.array([0, key.size]), as_it_is=True), key[:1]
    order = np.argsort(key, kind="stable") if in_order else np.lexsort((start, key))
    sorted_key = key[order]
    cuts = np.flatnonzero(np.diff(sorted_key)) + 1
    whole = np.concatenate(([0], cuts, [key.size])) if key.size else np.array([0])
    return _Tracks(order, whole), sorted_key[whole[:-1]]


@frozen(eq=False)
class _Blocks:
    """Neighbouring rows taken together."""

    first: Ints
    """First row of each block, [blocks]."""
    of_row: Ints
    """Block of each row, [n]."""
    mixed: bool
    """Whether rows of unlike keys had to be taken together."""


def _folded(cuts: Ints, start: Ints, end: Ints, never: Sequence[Ints], alike: Ints) -> _Blocks:
    """Take neighbouring rows of a track together until `FOLDED_ROWS` blocks are left, or as many as must be.

    Args:
        cuts: of the tracks, [tracks + 1].
        start: ns, [n], by track, then start.
        end: ns, [n].
        never: rows that differ in one of these are not taken together, each [n].
        alike: rows that differ in this are taken together only where that is not enough, [n].
    """
    gap = np.zeros(start.size, dtype=np.int64)
    gap[1:] = start[1:] - np.maximum.accumulate(end)[:-1]
    apart = np.zeros(start.size, dtype=bool)
    apart[cuts[:-1]] = True
    for key in never:
        apart[1:] |= key[1:] != key[:-1]
    begins = apart | (gap > NEIGHBOURS_NS)
    begins[1:] |= alike[1:] != alike[:-1]
    rows = np.flatnonzero(begins & ~apart)
    room = max(1, FOLDED_ROWS - int(np.count_nonzero(apart)))
    mixed = rows.size > room
    if mixed:
        least = np.partition(gap[rows], rows.size - room)[rows.size - room]
        begins = apart.copy()
        begins[rows[gap[rows] > least]] = True
    return _Blocks(np.flatnonzero(begins), np.cumsum(begins) - 1, mixed)


def _longest(blocks: _Blocks, duration: Ints) -> Ints:
    """The longest row of each block, the first of several, [blocks]."""
    most = np.flatnonzero(duration == np.maximum.reduceat(duration, blocks.first)[blocks.of_row])
    longest = np.empty(blocks.first.size, dtype=np.int64)
    longest[blocks.of_row[most[::-1]]] = most[::-1]  # written backwards, so that the first stays
    return longest


@define
class _Writer:
    """Columns, one after the other, and what the head says of them."""

    described: list[dict[str, Any]] = field(factory=list)
    pieces: list[bytes] = field(factory=list)

    def add(self, table: str, name: str, values: NDArray[Any], cuts: Ints | None = None) -> None:
        """Add a column; with ``cuts``, as differences within each track."""
        packed = values.astype(np.int64)
        signed = False
        if cuts is not None and packed.size:
            whole = packed
            packed = np.diff(whole, prepend=0)
            packed[cuts[:-1]] = whole[cuts[:-1]]
            signed = bool(packed.min() < 0)
            if signed:
                packed = (packed << 1) ^ (packed >> 63)
        width = max(1, -(-int(packed.max()).bit_length() // 8)) if packed.size else 1
        planes = packed.astype("<u8").view(np.uint8).reshape(-1, 8)
        self.pieces += [np.ascontiguousarray(planes[:, place]).tobytes() for place in range(width)]
        self.described.append(
            {
                "table": table,
                "name": name,
                "rows": int(packed.size),
                "bytes": width,
                "sums": cuts is not None,
                "signed": signed,
            }
        )


@define
class _Names:
    """Names of one table that occur, in the order in which they are first asked for."""

    texts: list[str] = field(factory=list)
    """As the page shows them."""
    meant: list[str] = field(factory=list)
    """The first name of the trace that each stands for."""

    def codes(self, codes: NDArray[Any], names: Sequence[str]) -> Ints:
        """Number the names that rows have, from 0.

        Args:
            codes: of each row, as index into ``names``, [n].
            names: of the trace.
        """
        if not codes.size:
            return codes.astype(np.int64)
        occurring, index = distinct(codes, len(names))
        length = MAX_NAME_BYTES if occurring.size <= _MANY_NAMES else _SHORT_NAME_LENGTH
        known: dict[str, int] = {text: number for number, text in enumerate(self.texts)}
        numbers = []
        for code in occurring.tolist():
            text = cut(names[code], length)
            if text not in known:
                known[text] = len(self.texts)
                self.texts.append(text)
                self.meant.append(names[code])
            numbers.append(known[text])
        numbered: Ints = np.array(numbers, dtype=np.int64)[index]
        return numbered


@define
class _Packing:
    """The work of `packed_timeline`."""

    attribution: Attribution
    kernels: Callable[[], Sequence[KernelSummary]]
    host: HostCalls
    writer: _Writer = field(factory=_Writer)
    tracks: list[dict[str, Any]] = field(factory=list)
    notes: dict[str, Any] = field(factory=dict)
    """How much of what was folded or left out."""
    origin: int = 0

    def packed(self) -> str:
        """The text."""
        self.origin = self._first_start()
        calls, rows_of_calls = self._calls()
        places = self._ranges()
        operations = self._operations(rows_of_calls)
        head = {
            "stages": [*self.attribution.stages, UNATTRIBUTED],
            "kinds": list(_CALL_KINDS.values()),
            "tracks": self.tracks,
            "columns": self.writer.described,
            "notes": self.notes,
            "calls": calls,
            "ranges": places,
            **operations,
        }
        text = json.dumps(head, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
        stream = zlib.compressobj(_LEVEL)
        pieces = [stream.compress(piece) for piece in (len(text).to_bytes(4, "little"), text, *self.writer.pieces)]
        return base64.b64encode(b"".join((*pieces, stream.flush()))).decode("ascii")

    def _first_start(self) -> int:
        attribution = self.attribution
        columns = (
            attribution.operations.start,
            attribution.calls.start,
            attribution.other_calls.start,
            attribution.ranges.start,
        )
        return min(int(column.min()) for column in columns if column.size)

    def _times(self, table: str, tracks: _Tracks, start: Ints, end: Ints) -> None:
        self.writer.add(table, "start", start - self.origin, tracks.cuts)
        self.writer.add(table, "duration", end - start)

    def _add_tracks(self, table: str, tracks: _Tracks, described: Callable[[int], dict[str, Any]]) -> None:
        for number, (low, high) in enumerate(zip(tracks.cuts[:-1].tolist(), tracks.cuts[1:].tolist(), strict=True)):
            self.tracks.append({"table": table, "from": low, "to": high, **described(number)})

    def _thread(self, thread: int) -> str:
        info = self.attribution.info
        tid, name = info.tid(thread), info.thread_names.get(thread)
        if tid is None:
            return "unknown thread"
        return visible(f"{shortened(name, 40)} ({tid})" if name else f"thread {tid}")

    # --- calls -------------------------------------------------------------------------------------------------------

    def _calls(self) -> tuple[dict[str, Any], Ints]:
        """Names of the calls, and the row that each call of the trace has among those packed."""
        calls, others = self.attribution.calls, self.attribution.other_calls
        kinds = np.zeros(max(_CALL_KINDS) + 1, dtype=np.int64)
        kinds[list(_CALL_KINDS)] = np.arange(len(_CALL_KINDS))
        kind = kinds[self.host.kind]
        names = _Names()
        tracks, threads = _by_track(calls.thread.astype(np.int64), calls.start, in_order=True)
        row_of_call = self._call_table(
            "calls",
            tracks,
            calls.start,
            calls.end,
            kind,
            names.codes(calls.name, [function_name(name) for name in calls.names]),
        )
        self._add_tracks(
            "calls",
            self._shown,
            lambda number: {
                "kind": "call",
                "thread": int(threads[number]),
                "label": "CUDA calls",
                "of": self._thread(int(threads[number])),
            },
        )
        tracks, threads = _by_track(others.thread.astype(np.int64), others.start, in_order=True)
        nameless = np.zeros(len(others), dtype=np.int64)
        self._call_table(
            "others", tracks, others.start, others.start + others.duration, nameless + kinds[OTHER], nameless
        )
        self._add_tracks(
            "others",
            self._shown,
            lambda number: {
                "kind": "other call",
                "thread": int(threads[number]),
                "label": _OTHER_CALLS,
                "of": self._thread(int(threads[number])),
            },
        )
        return {"names": names.texts}, row_of_call

    _shown: _Tracks = field(init=False)
    """The tracks of the table packed last, folded or not."""

    def _call_table(self, table: str, tracks: _Tracks, start: Ints, end: Ints, kind: Ints, name: Ints) -> Ints:
        start, end, kind, name = (tracks.of(column) for column in (start, end, kind, name))
        row_of_call = np.empty(tracks.rows.size, dtype=np.int64)
        self._shown = tracks
        if tracks.rows.size > MAX_ROWS:
            blocks = _folded(tracks.cuts, start, end, (), kind)
            if tracks.as_it_is:
                row_of_call = blocks.of_row
            else:
                row_of_call[tracks.rows] = blocks.of_row
            self.notes[table] = {"rows": int(tracks.rows.size), "blocks": int(blocks.first.size)}
            count = np.bincount(blocks.of_row)
            start, end = self._spans(blocks, start, end)
            kind, name = kind[blocks.first], name[blocks.first]
            self._shown = _Tracks(np.arange(start.size), np.append(blocks.of_row[tracks.cuts[:-1]], start.size))
            self.writer.add(table, "count", count)
        else:
            row_of_call[tracks.rows] = np.arange(tracks.rows.size)
        self._times(table, self._shown, start, end)
        self.writer.add(table, "kind", kind)
        self.writer.add(table, "name", name)
        return row_of_call

    @staticmethod
    def _spans(blocks: _Blocks, start: Ints, end: Ints) -> tuple[Ints, Ints]:
        """First start and last end of each block."""
        return start[blocks.first], np.maximum.reduceat(end, blocks.first)

    # --- ranges ------------------------------------------------------------------------------------------------------

    def _ranges(self) -> dict[str, Any]:
        """Ranges by thread, level and depth: what they are called."""
        attribution = self.attribution
        ranges, tree = attribution.ranges, attribution.tree
        names = _Names()
        levels: tuple[Any, ...] = ("image", "stage", "step", "module", "other")
        level = np.full(len(ranges), len(levels) - 1, dtype=np.int64)
        # An engine's step is a stage instance too, and drawn as one.
        for number in (3, 2, 1, 0):
            level[attribution.is_level(levels[number])] = number
        stage = np.zeros(len(ranges), dtype=np.int64)
        for number, name in enumerate(attribution.stages):
            stage[attribution.stage_rows(name)] = number + 1
        module, paths = attribution.module_names
        name_of = np.where(level == 3, len(ranges.names) + module[:-1], ranges.name)
        # Depth among ranges of the same level around it.
        depth = np.zeros(len(ranges), dtype=np.int64)
        for number in range(len(levels)):
            mine = level == number
            if mine.any():
                above = np.append(tree.nearest(mine), np.int32(-1))[tree.parent]
                for deeper in tree.by_depth[1:]:
                    inside = deeper[mine[deeper] & (above[deeper] >= 0)]
                    depth[inside] = depth[above[inside]] + 1
        chosen: NDArray[np.intp] = np.flatnonzero(depth < _MAX_DEPTH)
        if chosen.size > MAX_RANGES:
            of_depth = np.cumsum(np.bincount(depth[chosen]))
            deepest = max(1, int(np.searchsorted(of_depth, MAX_RANGES, side="right")))
            chosen = chosen[depth[chosen] < deepest][:MAX_RANGES]
        if chosen.size < len(ranges):
            self.notes["ranges"] = {"rows": len(ranges), "shown": int(chosen.size)}
        key = (ranges.thread[chosen].astype(np.int64) * len(levels) + level[chosen]) * _MAX_DEPTH + depth[chosen]
        tracks, keys = _by_track(key, ranges.start[chosen], in_order=False)
        rows = chosen[tracks.rows]
        self._times("ranges", tracks, ranges.start[rows], ranges.end[rows])
        self.writer.add("ranges", "name", names.codes(name_of[rows], (*ranges.names, *paths)))
        self.writer.add("ranges", "stage", stage[rows])

        def described(number: int) -> dict[str, Any]:
            rest, deep = divmod(int(keys[number]), _MAX_DEPTH)
            thread, which = divmod(rest, len(levels))
            return {
                "kind": levels[which],
                "thread": thread,
                "depth": deep,
                "label": levels[which] if deep == 0 else "",
                "of": self._thread(thread),
            }

        self._add_tracks("ranges", tracks, described)
        return {"names": names.texts}

    # --- operations --------------------------------------------------------------------------------------------------

    def _operations(self, row_of_call: Ints) -> dict[str, Any]:
        """Operations by device and stream: names, categories, modules and launch shapes."""
        attribution = self.attribution
        operations = attribution.operations
        streams = operations.process.astype(np.int64) + 1
        for part in (operations.device, operations.stream):
            streams = streams * (int(part.max(initial=0)) + 2) + part + 1
        tracks, _ = _by_track(streams, operations.start, in_order=True)
        first_of_track = tracks.rows[tracks.cuts[:-1]]
        start, end = tracks.of(operations.start), tracks.of(operations.end)
        modules = _Names(["", _SEVERAL], ["", ""])
        of_range, paths = attribution.module_names
        place = of_range[attribution.operation_level("module")]
        module = np.zeros(len(operations), dtype=np.int64)
        inside = np.flatnonzero(place >= 0)
        module[inside] = modules.codes(place[inside], paths)
        module = tracks.of(module)
        rows = longest = tracks.rows
        if rows.size > MAX_ROWS:
            blocks = _folded(tracks.cuts, start, end, (tracks.of(attribution.operation_stage),), module)
            self.notes["operations"] = {"rows": int(rows.size), "blocks": int(blocks.first.size), "mixed": blocks.mixed}
            duration = end - start
            # A block is drawn in the colour of what it spent most time in: that of its longest operation.
            rows, longest = rows[blocks.first], rows[_longest(blocks, duration)]
            several = np.maximum.reduceat(module, blocks.first) != np.minimum.reduceat(module, blocks.first)
            module = np.where(several, 1, module[blocks.first])
            start, end = self._spans(blocks, start, end)
            tracks = _Tracks(np.arange(start.size), np.append(blocks.of_row[tracks.cuts[:-1]], start.size))
            self.writer.add("operations", "count", np.bincount(blocks.of_row))
            self.writer.add("operations", "busy", sum_by_group(blocks.of_row, duration, blocks.first.size))
        names = _Names()
        name = names.codes(operations.name[longest], operations.names)
        shape_codes, shape = distinct(operations.shape[longest].astype(np.int64) + 1, len(operations.shapes) + 1)
        stage = attribution.operation_stage[rows]
        graph = operations.in_graph[rows] | (operations.kind[rows] == GRAPH)
        launch = attribution.launch_call[rows]
        call = np.where(launch >= 0, (row_of_call[launch] if row_of_call.size else launch) + 1, 0)
        self._times("operations", tracks, start, end)
        for column, values in {"name": name, "module": module, "stage": stage, "shape": shape, "graph": graph}.items():
            self.writer.add("operations", column, values)
        self.writer.add("operations", "call", call, tracks.cuts)

        several_processes = len(set(operations.process[first_of_track].tolist())) > 1

        def described(number: int) -> dict[str, Any]:
            row = first_of_track[number]
            device, stream, process = (
                int(part[row]) for part in (operations.device, operations.stream, operations.process)
            )
            of = f"GPU {device}" if device >= 0 else "GPU"
            if several_processes and (pid := attribution.info.pid(process)) is not None:
                of += f", process {pid}"
            return {
                "kind": "stream",
                "device": f"{process}/{device}" if several_processes else device,
                "label": f"stream {stream}",
                "of": of,
            }

        self._add_tracks("operations", tracks, described)
        return {
            "kernels": self._described_kernels(names),
            "modules": modules.texts,
            "shapes": [self._described_shape(code - 1) for code in shape_codes.tolist()],
        }

    def _described_kernels(self, names: _Names) -> dict[str, Any]:
        """Name, name in words and category of each kernel; of copies, sets and graphs, what they do."""
        rows = Records.of(self.kernels())
        kernels = dict(zip(rows.values("name"), rows, strict=True))
        categories: dict[str, int] = {}
        known: dict[str, int] = {}
        words, category = [], []
        for name in names.meant:
            row = kernels.get(name)
            plain = name.strip("[]").removeprefix("CUDA ")
            words.append(cut(row.human_name or row.short_name if row else plain, _SHORT_NAME_LENGTH))
            label = row.category if row else "graph" if plain.startswith("graph") else plain
            if label not in known:
                known[label] = categories.setdefault(cut(label, 60), len(categories))
            category.append(known[label])
        return {"names": names.texts, "words": words, "category": category, "categories": list(categories)}

    def _described_shape(self, code: int) -> list[Any] | None:
        shapes = self.attribution.operations.shapes
        return (
            None
            if code < 0
            else [shapes.grid(code), shapes.block(code), shapes.registers(code), shapes.shared_bytes(code)]
        )
