"""Looks for planted secrets in every byte of every file, whatever it is packed in."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import re
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq

from planted_secrets import disguises

__all__ = ["leaks", "leaks_in"]


def leaks(places: Iterable[Path], secrets: Mapping[str, str]) -> list[str]:
    """Kind and place of each planted secret that lies in a file, or in a file's name.

    Args:
        places: files, and folders with all that is below them, hidden files included.
        secrets: kind → secret.
    """
    found = []
    for place in places:
        for path in [place, *place.rglob("*")] if place.is_dir() else [place]:
            found += [f"{kind} in the name {path}" for kind in leaks_in(str(path).encode(), secrets)]
            if path.is_symlink() or not path.is_file():
                continue
            for content in _contents(path):
                found += [f"{kind} in {path}" for kind in leaks_in(content, secrets)]
    return found


def leaks_in(content: bytes, secrets: Mapping[str, str]) -> list[str]:
    """Kinds of the secrets that stand in some bytes, plain or in a disguise."""
    return [kind for kind, secret in secrets.items() if any(form in content for form in disguises(secret))]


def _contents(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    yield content
    if content.startswith(b"SQLite format 3\0"):  # a long value is cut where a page ends: read whole too
        yield from _rows(path)
    elif content.startswith(b"PK\3\4"):
        with zipfile.ZipFile(path) as packed_files:
            for name in packed_files.namelist():
                yield packed_files.read(name)
    elif path.suffix == ".xz":
        unpacked = lzma.decompress(content)
        yield unpacked
        if unpacked.startswith(b"SQLite format 3\0"):
            yield from _rows_of(unpacked)
    elif path.suffix == ".gz" or content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    elif path.suffix == ".parquet":
        rows = pq.read_table(io.BytesIO(content)).to_pylist()
        yield json.dumps(rows, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")
    elif path.suffix == ".html":  # what scripts read: JSON, packed and in base64
        for packed in re.findall(rb"[A-Za-z0-9+/=]{200,}", content):
            yield from _unpacked(packed)


def _rows(path: Path) -> Iterator[bytes]:
    """All values of all tables, one after the other."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?immutable=1", uri=True)) as database:
        database.text_factory = bytes
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in tables:
            rows = database.execute(f'SELECT * FROM "{name.decode()}"')
            yield b"\n".join(
                value if isinstance(value, bytes) else str(value).encode("utf-8", "backslashreplace")
                for row in rows
                for value in row
            )


def _rows_of(content: bytes) -> Iterator[bytes]:
    with tempfile.NamedTemporaryFile(suffix=".sqlite") as file:
        file.write(content)
        file.flush()
        yield from _rows(Path(file.name))


def _unpacked(packed: bytes) -> Iterator[bytes]:
    import base64
    import binascii
    import zlib

    try:
        plain = base64.b64decode(packed)
    except (binascii.Error, ValueError):
        return
    yield plain
    for window in (15 + 32, -15):
        try:
            yield zlib.decompress(plain, window)
        except zlib.error:
            continue
