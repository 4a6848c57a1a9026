"""Payloads of NVTX ranges, as NCCL (2.26 and later) attaches them: communicator, message size, rank.

``binaryData`` of a range is a header of four uint64 – domain, schema, size, offset – and the payload itself, whose fields
the tables of payload schemas name. The header's domain is numbered otherwise than the tables (nsys 2025.3 wrote 1 there for
the domain that ranges and schemas call 3), so the range's own domain says which schema is meant. ``binaryData`` is there only if
the report was exported with ``--include-blobs=true``.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from sqlalchemy import column

from analysis.trace import schema
from analysis.trace.database import Database, as_bytes
from analysis.trace.records import NO_VALUE

__all__ = ["Payloads", "read_payloads"]

_HEADER: Final = 32

_NUMBERS: Final = {
    3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<i8", 8: "<u8", 9: "<i8", 10: "<u8", 11: "<i1", 12: "<u1", 13: "<i2",
    14: "<u2", 15: "<i4", 16: "<u4", 17: "<i8", 18: "<u8", 22: "<u8",
}  # fmt: skip
"""NVTX's payload entry types (nvToolsExtPayload.h) that are whole numbers, on a 64-bit little-endian machine."""


@frozen(eq=False)
class Payloads:
    """The payloads of a trace's ranges, as columns. All arrays are [n]."""

    start: NDArray[np.int64]
    """Of the range, ns: with its thread it says which range that is."""
    thread: NDArray[np.int64]
    """Serialised global thread id."""
    values: dict[str, NDArray[np.uint64]]
    """Field, as its schema names it → value; 0 where the range's schema has no such field (see ``known``)."""
    known: dict[str, NDArray[np.bool_]]


def read_payloads(database: Database) -> Payloads | None:
    """Read all payloads whose schema the file describes.

    Args:
        database: of the trace.

    Returns:
        None: there are none; a payload that is damaged, or whose schema is not described, is left out.

    Raises:
        TraceError: the file cannot be read.
    """
    if not database.has(schema.NVTX, "binaryData", "globalTid") or not database.has(schema.PAYLOAD_FIELDS):
        return None
    layouts = _layouts(database)
    query = database.query(schema.NVTX, ["start", "globalTid", "domainId"])
    if query is None or not layouts:
        return None
    blobs: dict[tuple[int, int], list[tuple[int, int, bytes]]] = {}
    query = query.add_columns(as_bytes("binaryData").label("blob")).where(column("binaryData").isnot(None))
    for batch in database.batches(query, schema.NVTX):
        numbers = [database.integers(batch, schema.NVTX, name, NO_VALUE) for name in ("start", "globalTid", "domainId")]
        rows = zip(*(values.tolist() for values in numbers), batch.column("blob").to_pylist(), strict=True)
        for start, thread, domain, blob in rows:
            if thread == NO_VALUE or not isinstance(blob, bytes) or len(blob) < _HEADER:
                continue
            _, kind, size, offset = np.frombuffer(blob, "<u8", 4).tolist()
            layout = layouts.get((domain, kind))
            body = blob[offset : offset + size] if offset >= _HEADER else blob[_HEADER : _HEADER + size]
            if layout is not None and len(body) >= layout.itemsize:
                blobs.setdefault((domain, kind), []).append((start, thread, body[: layout.itemsize]))
    if not blobs:
        return None
    return _joined([(layouts[key], rows) for key, rows in blobs.items()])


def _layouts(database: Database) -> dict[tuple[int, int], np.dtype[Any]]:
    """(domain, schema) → where each whole number of it lies; enumerations are whole numbers of 4 bytes."""
    fields: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in database.rows(schema.PAYLOAD_FIELDS, "domainId", "schemaId", "idx", "type", "name", "offset"):
        fields.setdefault((row["domainId"], row["schemaId"]), []).append(row)
    sizes = {
        (row["domainId"], row["schemaId"]): row["payloadSize"]
        for row in database.rows(schema.PAYLOAD_SCHEMAS, "domainId", "schemaId", "payloadSize")
    }
    layouts = {}
    for key, rows in fields.items():
        numbers = {
            str(row["name"]): (_NUMBERS[row["type"]], row["offset"] or 0) for row in rows if row["type"] in _NUMBERS
        }
        ends = [offset + np.dtype(kind).itemsize for kind, offset in numbers.values()]
        if numbers:
            layouts[key] = np.dtype(
                {
                    "names": list(numbers),
                    "formats": [kind for kind, _ in numbers.values()],
                    "offsets": [offset for _, offset in numbers.values()],
                    "itemsize": max([*ends, sizes.get(key) or 0]),
                }
            )
    return layouts


def _joined(parts: list[tuple[np.dtype[Any], list[tuple[int, int, bytes]]]]) -> Payloads:
    names = dict.fromkeys(name for layout, _ in parts for name in layout.names or ())
    values: dict[str, list[NDArray[np.uint64]]] = {name: [] for name in names}
    known: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in names}
    for layout, rows in parts:
        table = np.frombuffer(b"".join(body for _, _, body in rows), layout)
        for name in names:
            there = name in (layout.names or ())
            column = table[name].astype(np.uint64) if there else np.zeros(len(rows), dtype=np.uint64)
            values[name].append(column)
            known[name].append(np.full(len(rows), there))
    return Payloads(
        start=np.array([start for _, rows in parts for start, _, _ in rows], dtype=np.int64),
        thread=np.array([thread for _, rows in parts for _, thread, _ in rows], dtype=np.int64),
        values={name: np.concatenate(columns) for name, columns in values.items()},
        known={name: np.concatenate(columns) for name, columns in known.items()},
    )
