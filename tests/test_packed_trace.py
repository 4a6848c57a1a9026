"""Traces packed by column are the exports that they were made of, row by row."""

from __future__ import annotations

import lzma
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import packed_trace

DATA = Path(__file__).with_name("data")
PACKED = sorted(path.name.removesuffix(".columns.xz") for path in DATA.glob("*.columns.xz"))
LARGEST = 2**63 - 1


def made(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)
    return path


def content(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        return packed_trace.digest(database)


def test_every_type_comes_back(tmp_path: Path) -> None:
    trace = made(
        tmp_path / "trace.sqlite",
        'CREATE TABLE events (start INT NOT NULL, "end" INT, text TEXT, value, blob BLOB)',
        "INSERT INTO events VALUES (5, 7, 'a', 1.5, x'00ff'), (-1, NULL, NULL, 2, NULL)",
        f"INSERT INTO events VALUES ({LARGEST}, {-LARGEST - 1}, 'null\u2028', 'text', x'')",
        "CREATE TABLE names (id INTEGER PRIMARY KEY, only_null INT, both)",
        f"INSERT INTO names VALUES (3, NULL, 1), (9, NULL, NULL), ({LARGEST}, NULL, -5)",
        "CREATE TABLE empty (start INT)",
    )
    (packed := tmp_path / "trace.columns.xz").write_bytes(packed_trace.pack(trace))
    packed_trace.unpack(packed, tmp_path / "again.sqlite")
    with closing(sqlite3.connect(tmp_path / "again.sqlite")) as database:
        assert database.execute("SELECT * FROM events").fetchall() == [
            (5, 7, "a", 1.5, b"\x00\xff"),
            (-1, None, None, 2, None),
            (LARGEST, -LARGEST - 1, "null\u2028", "text", b""),
        ]
    assert content(tmp_path / "again.sqlite") == content(trace)


def test_other_rows_than_those_packed_are_refused(tmp_path: Path) -> None:
    trace = made(tmp_path / "trace.sqlite", "CREATE TABLE events (start INT)", "INSERT INTO events VALUES (7), (1000)")
    plain = lzma.decompress(packed_trace.pack(trace))
    (packed := tmp_path / "trace.columns.xz").write_bytes(lzma.compress(plain[:-1] + b"\1"))
    with pytest.raises(ValueError, match=r"trace\.columns\.xz: the unpacked rows are not those"):
        packed_trace.unpack(packed, tmp_path / "again.sqlite")


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_trace_is_the_shared_one(name: str, real_trace: Callable[[str], Path], tmp_path: Path) -> None:
    shared = Path(__file__).parents[2] / "shared" / "traces" / f"{name}.sqlite.xz"
    if not shared.is_file():
        pytest.skip("needs the exports of the shared folder")
    (original := tmp_path / "original.sqlite").write_bytes(lzma.decompress(shared.read_bytes()))
    assert content(real_trace(name)) == content(original)


def test_the_traces_fit_into_the_repository() -> None:
    sizes = {path.name: path.stat().st_size for path in DATA.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 8_000_000, sizes
