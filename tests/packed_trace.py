"""Exports of Nsight Systems packed by column, without loss: a third of what xz makes of the same SQLite file.

Rows of an export are mostly two clock readings, and SQLite stores them between everything else. Here every column is
written on its own: integers as differences where that is smaller, byte plane by byte plane. ``unpack`` writes a SQLite
file with the same tables, columns, rows and types again; ``digest`` tells that it is so.

``python tests/packed_trace.py trace.sqlite tests/data/trace.columns.xz`` packs a trace.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import sqlite3
import sys
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

INT_BYTES = 8


def pack(trace: Path) -> bytes:
    """Pack an exported trace.

    Returns:
        An xz file: the length of a JSON header, the header, then the columns one after the other.
    """
    tables, blobs = [], []
    with closing(sqlite3.connect(trace)) as database:
        for name, sql in tables_of(database):
            columns = [row[1] for row in database.execute(f'PRAGMA table_info("{name}")')]
            rows = database.execute(f'SELECT * FROM "{name}" ORDER BY rowid').fetchall()
            values = dict(zip(columns, zip(*rows, strict=True), strict=True)) if rows else {}
            first = values[columns[0]] if rows else ()
            packed = [pack_column(column, first) for column in values.values()]
            tables.append({"name": name, "sql": sql, "rows": len(rows), "columns": [how for how, _ in packed]})
            blobs += [blob for _, blob in packed]
        header = json.dumps({"digest": digest(database), "tables": tables}).encode()
    return lzma.compress(b"".join([len(header).to_bytes(INT_BYTES, "little"), header, *blobs]), preset=9)


def unpack(packed: Path, trace: Path) -> None:
    """Write the SQLite file that was packed.

    Raises:
        ValueError: The rows are not those that were packed.
    """
    content = lzma.decompress(packed.read_bytes())
    at = INT_BYTES + int.from_bytes(content[:INT_BYTES], "little")
    header = json.loads(content[INT_BYTES:at])
    with closing(sqlite3.connect(trace)) as database, database:
        for table in header["tables"]:
            database.execute(table["sql"])
            columns: list[list[Any]] = []
            for how in table["columns"]:
                first = columns[0] if columns else []
                columns.append(unpack_column(how, content[at : at + how["bytes"]], table["rows"], first))
                at += how["bytes"]
            if columns:
                marks = ", ".join("?" * len(columns))
                database.executemany(f'INSERT INTO "{table["name"]}" VALUES ({marks})', zip(*columns, strict=True))
        if digest(database) != header["digest"]:
            msg = f"{packed.name}: the unpacked rows are not those that were packed"
            raise ValueError(msg)


def tables_of(database: sqlite3.Connection) -> list[tuple[str, str]]:
    """Names and definitions of the tables, in the file's order."""
    return database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY rowid").fetchall()


def digest(database: sqlite3.Connection) -> str:
    """SHA-256 of every table's definition and rows, types included."""
    found = hashlib.sha256()
    for name, sql in tables_of(database):
        found.update(sql.encode())
        for row in database.execute(f'SELECT * FROM "{name}" ORDER BY rowid'):
            found.update(repr(row).encode())
    return found.hexdigest()


def pack_column(values: tuple[Any, ...], first: tuple[Any, ...]) -> tuple[dict[str, Any], bytes]:
    """How a column is packed and its bytes; ``first`` is the table's first column: the start of an event's row."""
    present = [value is not None for value in values]
    if not all(type(value) is int for value, there in zip(values, present, strict=True) if there):
        blob = json.dumps([{"hex": one.hex()} if isinstance(one, bytes) else one for one in values]).encode()
        return {"as": "json", "bytes": len(blob)}, blob
    ints = np.array([value for value in values if value is not None], dtype=np.int64)
    mask = b"" if all(present) else np.packbits(present).tobytes()
    ways = {"plain": ints, "difference": np.diff(ints, prepend=np.int64(0))}
    if values is not first and all(present) and all(type(one) is int for one in first):
        ways["since_first"] = ints - np.array(first, dtype=np.int64)
    blobs = {way: planes(found) for way, found in ways.items()}
    way = min(blobs, key=lambda key: len(zlib.compress(blobs[key])))
    return {"as": way, "mask": len(mask), "bytes": len(mask) + len(blobs[way])}, mask + blobs[way]


def planes(values: Ints) -> bytes:
    """All lowest bytes, then all second ones …: equal bytes come to lie side by side."""
    return np.ascontiguousarray(values.astype("<i8").view(np.uint8).reshape(-1, INT_BYTES).T).tobytes()


def unpack_column(how: dict[str, Any], blob: bytes, rows: int, first: list[Any]) -> list[Any]:
    """Values of a column, as SQLite takes them."""
    if how["as"] == "json":
        return [bytes.fromhex(one["hex"]) if isinstance(one, dict) else one for one in json.loads(blob)]
    mask, body = blob[: how["mask"]], blob[how["mask"] :]
    ints = np.ascontiguousarray(np.frombuffer(body, np.uint8).reshape(INT_BYTES, -1).T).view("<i8").ravel()
    if how["as"] == "difference":
        ints = np.cumsum(ints)
    elif how["as"] == "since_first":
        ints = ints + np.array(first, dtype=np.int64)
    if not mask:
        return list(ints.tolist())
    found, there = iter(ints.tolist()), np.unpackbits(np.frombuffer(mask, np.uint8), count=rows)
    return [next(found) if one else None for one in there]


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(pack(Path(sys.argv[1])))
