"""Read kernels, copies, sets and whole graphs into one time-ordered record.

What identifies an operation rather than measures it – its name, where it ran, its launch shape – is packed into single
integers by SQLite: fewer values cross into Arrow, and each distinct one is unpacked once.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray
from sqlalchemy import case, column, literal
from sqlalchemy.sql.expression import ColumnElement

from analysis.trace import launch_shapes, schema
from analysis.trace.buffers import IntColumn, KeyColumn
from analysis.trace.database import Database, Stretch
from analysis.trace.packing import IMPOSSIBLE, joined, packed
from analysis.trace.records import GRAPH, KERNEL, MEMCPY, MEMSET, Operations

__all__ = ["COPY_KINDS", "KINDS", "Part", "combine", "read_part", "string_ids"]

COPY_KINDS: Final = {
    1: "Host-to-Device",
    2: "Device-to-Host",
    3: "Host-to-Array",
    4: "Array-to-Host",
    5: "Array-to-Array",
    6: "Array-to-Device",
    7: "Device-to-Array",
    8: "Device-to-Device",
    9: "Host-to-Host",
    10: "Peer-to-Peer",
    11: "Unified Host-to-Device",
    12: "Unified Device-to-Host",
    13: "Unified Device-to-Device",
}
"""CUPTI's CUpti_ActivityMemcpyKind (10: peer to peer; 11–13 as Nsight Systems' ENUM_CUDA_MEMCPY_OPER names them)."""

_LOW: Final = 0xFFFFFFFF
_LARGEST: Final = 2**63 - 1
_NO_NODE: Final = 0
"""Stands for NULL: no node has the id 0."""


@frozen
class _Kind:
    kind: int
    spec: schema.TableSpec
    name: tuple[str, ...]
    """Columns that name an operation: none, one, or two that are packed."""
    shaped: bool = False


KINDS: Final = (
    _Kind(KERNEL, schema.KERNELS, ("demangledName", "shortName"), shaped=True),
    _Kind(MEMCPY, schema.MEMCPYS, ("copyKind",)),
    _Kind(MEMSET, schema.MEMSETS, ()),
    _Kind(GRAPH, schema.GRAPHS, ("graphId",)),
)


@define(eq=False)
class Codes:
    """Codes of names, places, processes and shapes, shared by all parts of one trace."""

    name: dict[Any, int] = field(factory=dict)
    """(kind, packed name) → code."""
    place: dict[Any, int] = field(factory=dict)
    process: dict[Any, int] = field(factory=dict)
    grid: dict[Any, int] = field(factory=dict)
    block: dict[Any, int] = field(factory=dict)
    node: dict[Any, int] = field(factory=dict)


@frozen(eq=False)
class Part:
    """Rows of one table, or of a stretch of it. Codes are the part's own."""

    kind: _Kind
    start: NDArray[np.int64]
    duration: NDArray[Any]
    correlation: NDArray[Any]
    size: NDArray[Any]
    name: KeyColumn
    place: KeyColumn
    process: KeyColumn
    grid: KeyColumn
    block: KeyColumn
    node: KeyColumn
    """Ids of graph nodes; without rows where the trace knows no nodes."""
    backwards: int
    """Rows that end before they start."""


def _packed_name(kind: _Kind, there: list[str]) -> ColumnElement[Any]:
    """Ids of the long and the short name, the long one << 32; of one column, that one."""
    if not kind.name:
        return literal(0)
    parts = [(kind.name[0], 0, -1)] if len(kind.name) == 1 else [(kind.name[0], 32, -1), (kind.name[1], 0, _LOW)]
    plain, with_nulls = (joined(parts, there=set(there), nulls=nulls) for nulls in (False, True))
    return packed(kind.spec, there, plain, with_nulls)


def _packed_place(kind: _Kind, there: list[str]) -> ColumnElement[Any]:
    """Device << 33 | stream << 1 | whether a graph node made it."""
    parts = [("deviceId", 33, 0), ("streamId", 1, 0)]
    plain, with_nulls = (joined(parts, there=set(there), nulls=nulls) for nulls in (False, True))
    names = [name for name in there if name != "graphNodeId"]
    if "graphNodeId" not in there:
        return packed(kind.spec, names, plain, with_nulls)
    node: ColumnElement[Any] = column("graphNodeId")
    made = node.op("!=")(0).op("+")(node * 0)  # the product keeps a fraction a fraction
    return case(
        (node.is_(None), packed(kind.spec, names, plain, with_nulls)),
        (node.between(0, _LARGEST), packed(kind.spec, names, plain + made, with_nulls + made)),
        else_=IMPOSSIBLE,
    )


def read_part(database: Database, kind: _Kind, rows: Stretch | None = None) -> Part | None:
    """Read one table.

    Args:
        database: the trace.
        kind: which table.
        rows: which of them; None: all.

    Returns:
        None where the file has no such table.
    """
    spec = kind.spec
    sized = "bytes" in spec.columns and database.has(spec, "bytes")
    # Without events of nodes nobody knows where a node was recorded, and the ids would only cost time.
    noded = database.has(spec, "graphNodeId") and database.has(schema.GRAPH_NODES, *schema.GRAPH_NODES.required)
    wanted = ["start", "end", "correlationId", "globalPid", *(["bytes"] if sized else [])]
    query = database.query(spec, [*wanted, "graphNodeId"] if noded else wanted)
    if query is None:
        return None
    shaped = kind.shaped and database.has(spec, *launch_shapes.COLUMNS)
    names, places = (
        [name for name in columns if database.has(spec, name)]
        for columns in (kind.name, ("deviceId", "streamId", "graphNodeId"))
    )
    query = query.add_columns(
        _packed_name(kind, names).label("name"),
        _packed_place(kind, places).label("place"),
        *(launch_shapes.packed_columns(spec) if shaped else ()),
    )
    rows = rows or Stretch(database.last_row(spec))
    query, count = rows.of(query), rows.count
    start, duration, correlation = IntColumn(count, np.int64), IntColumn(count), IntColumn(count)
    size = IntColumn(count if sized else 0)
    keys = {key: KeyColumn(count) for key in ("name", "place", "globalPid")}
    shape = {key: KeyColumn(count if shaped else 0) for key in ("grid", "block")}
    node = KeyColumn(count if noded else 0)
    backwards = 0
    for batch in database.batches(query, spec):
        begun = database.integers(batch, spec, "start", 0)
        lasted = database.integers(batch, spec, "end", 0) - begun
        if lasted.size and int(lasted.min()) < 0:
            backwards += int(np.count_nonzero(lasted < 0))
            lasted = np.maximum(lasted, 0)
        start.extend(begun)
        duration.extend(lasted)
        correlation.extend(database.integers(batch, spec, "correlationId", -1))
        keys["globalPid"].extend(database.integers(batch, spec, "globalPid", -1))
        keys["place"].extend(database.packed(batch, spec, "place", tuple(places), 0))
        keys["name"].extend(database.packed(batch, spec, "name", tuple(names), -1))
        if shaped:
            for key, columns in (("grid", launch_shapes.GRID), ("block", launch_shapes.BLOCK)):
                shape[key].extend(database.packed(batch, spec, key, columns, -1))
        if sized:
            size.extend(database.integers(batch, spec, "bytes", -1))
        if noded:
            node.extend(database.integers(batch, spec, "graphNodeId", _NO_NODE))
    read = start.array().size
    missing = -1 if kind.kind in (MEMCPY, MEMSET) else 0
    return Part(
        kind=kind,
        start=start.array().astype(np.int64, copy=False),
        duration=duration.array(),
        correlation=correlation.array(),
        size=size.array() if sized else np.full(read, missing, dtype=np.int8),
        name=keys["name"],
        place=keys["place"],
        process=keys["globalPid"],
        grid=shape["grid"],
        block=shape["block"],
        node=node,
        backwards=backwards,
    )


def string_ids(part: Part) -> set[int]:
    """Ids of the strings that name a part's operations."""
    if part.kind.kind != KERNEL:
        return set()
    ids = {half for name in part.name.values for half in (name >> 32, name & _LOW)}
    return ids - {-1, _LOW}


def combine(parts: list[Part], text: Any, process_codes: dict[Any, int]) -> Operations:
    """Put the parts of a trace together, sorted by start.

    Args:
        parts: in any order.
        text: string id → text.
        process_codes: global process id → code; new ones are added.
    """
    codes = Codes(process=process_codes)
    columns: dict[str, list[NDArray[Any]]] = {}

    def append(name: str, values: NDArray[Any]) -> None:
        columns.setdefault(name, []).append(values)

    shapes = _shape_codes(parts, codes)
    for part in parts:
        rows = part.start.size
        append("start", part.start)
        append("duration", part.duration)
        append("correlation", part.correlation)
        append("size", part.size)
        append("kind", np.full(rows, part.kind.kind, dtype=np.int8))
        append("name", part.name.recode([(part.kind.kind, packed) for packed in part.name.values], codes.name))
        append("place", part.place.recode(part.place.values, codes.place))
        append("process", part.process.recode(part.process.values, codes.process, blank=-1))
        append("shape", shapes.pop(0))
        node = part.node.recode(part.node.values, codes.node, blank=_NO_NODE)
        append("node", node if node.size else np.full(rows, -1, dtype=np.int8))
    joined = {name: np.concatenate(values) if values else np.zeros(0, np.int64) for name, values in columns.items()}
    for name in ("start", "duration", "correlation", "size", "kind", "name", "place", "process", "shape", "node"):
        joined.setdefault(name, np.zeros(0, dtype=np.int64))
    start = joined["start"]
    if start.size > 1 and bool(np.any(start[1:] < start[:-1])):
        order = np.argsort(start, kind="stable")
        joined = {name: values[order] for name, values in joined.items()}
    place = np.array(list(codes.place) or [0], dtype=np.int64)
    labels = [_label(kind, packed, text) for kind, packed in codes.name]
    at = joined.pop("place")
    return Operations(
        start=joined["start"],
        end=joined["start"] + joined.pop("duration"),
        kind=joined["kind"],
        name=joined["name"],
        process=joined["process"],
        correlation=joined["correlation"],
        device=_narrow(place >> 33)[at],
        stream=_narrow(place >> 1 & _LOW)[at],
        in_graph=(place & 1).astype(bool)[at],
        graph_node=joined["node"],
        graph_nodes=np.array(list(codes.node), dtype=np.int64),
        shape=joined["shape"],
        size=joined["size"],
        names=tuple(label[0] for label in labels),
        short_names=tuple(label[1] for label in labels),
        shapes=launch_shapes.LaunchShapes.unpack(list(codes.grid), list(codes.block)),
        copy_kinds=np.array([label[2] for label in labels], dtype=np.int8),
    )


def _shape_codes(parts: list[Part], codes: Codes) -> list[NDArray[Any]]:
    """Shape code of each part's rows: grid code × number of block codes + block code, once all codes are known."""
    coded = []
    for part in parts:
        grid = part.grid.recode(part.grid.values, codes.grid)
        coded.append((grid, part.block.recode(part.block.values, codes.block), part.start.size))
    width = len(codes.block)
    dtype = np.int64 if len(codes.grid) * width >= 2**31 else np.int32
    return [
        np.add(grid.astype(dtype) * width, block) if grid.size else np.full(rows, -1, dtype=np.int8)
        for grid, block, rows in coded
    ]


def _narrow(values: NDArray[np.int64]) -> NDArray[np.signedinteger[Any]]:
    for dtype in (np.int8, np.int16, np.int32):
        if values.size and np.iinfo(dtype).min <= values.min() and values.max() <= np.iinfo(dtype).max:
            narrow: NDArray[np.signedinteger[Any]] = values.astype(dtype)
            return narrow
    return values


def _label(kind: int, packed: int, text: Any) -> tuple[str, str, int]:
    """Name, short name and copy kind of an operation."""
    if kind == KERNEL:
        low = packed & _LOW
        long, short = packed >> 32, (low - 2**32 if low >= 2**31 else low)
        long_name = text(long if long >= 0 else short)
        return long_name, text(short) if short >= 0 else long_name, -1
    if kind == MEMCPY:
        name = f"[CUDA memcpy {COPY_KINDS.get(packed, f'kind {packed}' if packed >= 0 else 'of unknown kind')}]"
        return name, name, packed if 0 <= packed < 127 else -1
    if kind == MEMSET:
        return "[CUDA memset]", "[CUDA memset]", -1
    name = f"[CUDA graph {packed}]" if packed >= 0 else "[CUDA graph]"
    return name, name, -1
