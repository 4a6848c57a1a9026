"""Damage to the bytes of a database or of a packed file."""

from __future__ import annotations

import gzip
import lzma
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fuzz.cases import Claim

__all__ = ["damage_database", "damage_packed", "flip"]

_HEADER: Final = 100
_JOURNAL_MAGIC: Final = bytes.fromhex("d9d505f920a163d7")


def flip(draw: random.Random, content: bytes, *, begin: int = 0, end: int | None = None) -> bytes:
    """Change one to 64 bytes."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        changed[draw.randrange(begin, end or len(content))] ^= draw.randrange(1, 256)
    return bytes(changed)


def damage_database(draw: random.Random, path: Path) -> tuple[str, Claim]:
    """Change bytes of a SQLite file, or what lies beside it; returns what was done, and what is known of it."""
    content = path.read_bytes()
    page = int.from_bytes(content[16:18], "big")
    pages = len(content) // page
    way = draw.choice(
        ("flips", "flips", "header", "truncate", "truncate", "zero page", "copied page", "noise page", "journal", "wal",
         "append", "schema page", "other file", "hot journal")
    )  # fmt: skip
    claim: Claim = "anything"
    if way == "flips":
        path.write_bytes(flip(draw, content, begin=_HEADER))
    elif way == "header":
        path.write_bytes(flip(draw, content, end=_HEADER))
    elif way == "schema page":
        path.write_bytes(flip(draw, content, begin=_HEADER, end=page))
    elif way == "truncate":
        left = draw.choice((0, 1, 15, 16, 99, 100, page - 1, page, draw.randrange(len(content)), len(content) - page))
        path.write_bytes(content[:left])
        way, claim = f"truncated to {left} of {len(content)} bytes", "broken"
    elif way == "append":
        path.write_bytes(content + draw.randbytes(draw.choice((1, page, 10 * page))))
        claim = "broken"
    elif way == "other file":
        path.write_bytes(draw.choice((b"PK\x03\x04", b"\x7fELF", b"", b"SQLite format 3\0")) + draw.randbytes(5000))
        claim = "broken"
    elif way == "journal":
        beside = draw.choice((b"", b"", draw.randbytes(4000), _JOURNAL_MAGIC + bytes(504)))
        path.with_name(path.name + "-journal").write_bytes(beside)
        way = f"{'an empty' if not beside else 'a'} rollback journal beside"
        claim = "impossible" if beside else "harmless"
    elif way == "hot journal":
        way, claim = _leave_a_journal(path), "impossible"
    elif way == "wal":
        path.with_name(path.name + "-wal").write_bytes(draw.choice((draw.randbytes(4000), b"")))
        claim = "broken"
    else:
        number = draw.randrange(1, pages)
        other = draw.randrange(1, pages) * page
        new = {"zero page": bytes(page), "copied page": content[other : other + page]}.get(way, draw.randbytes(page))
        path.write_bytes(content[: number * page] + new + content[(number + 1) * page :])
        way = f"{way} {number} of {pages}"
    return way, claim


def _leave_a_journal(path: Path) -> str:
    """Stop in the middle of a transaction, with the pages of it in the file: what a killed writer leaves."""
    writing = path.with_name("writing.sqlite")
    shutil.copyfile(path, writing)
    with closing(sqlite3.connect(writing, isolation_level=None)) as database:
        database.execute("PRAGMA cache_size = 1")
        database.execute("PRAGMA cache_spill = 1")
        database.execute("BEGIN IMMEDIATE")
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if not table.startswith("sqlite_"):
                database.execute(f'DELETE FROM "{table}" WHERE rowid % 2')
        shutil.copyfile(writing, path)
        journal = writing.with_name("writing.sqlite-journal")
        shutil.copyfile(journal, path.with_name(path.name + "-journal"))
        database.execute("ROLLBACK")
    writing.unlink()
    return "a transaction that was not finished, with its journal"


def damage_packed(draw: random.Random, source: Path, target: Path) -> tuple[str, Claim]:
    """Pack a file as .xz, .gz or .zst, and change bytes of it."""
    plain = source.read_bytes()
    ending = target.suffix.removeprefix(".")
    packed = _pack(plain, ending)
    way = draw.choice(("flips", "flips", "truncate", "append", "twice", "mangled inside", "whole", "empty", "other"))
    claim: Claim = "broken"
    if way == "flips":
        packed = flip(draw, packed)
        claim = "broken" if ending != "zst" else "anything"  # which has no checksum here
    elif way == "truncate":
        packed = packed[: draw.randrange(len(packed))]
    elif way == "append":
        packed += draw.randbytes(draw.choice((1, 100)))
    elif way == "twice":
        packed += packed
    elif way == "mangled inside":
        packed, claim = _pack(flip(draw, plain), ending), "anything"
    elif way == "whole":
        claim = "harmless"
    elif way == "empty":
        packed = draw.choice((b"", _pack(b"", ending)))
    else:
        packed = _pack(plain, draw.choice([other for other in ("xz", "gz", "zst") if other != ending]))
    target.write_bytes(packed)
    return f".{ending}: {way}", claim


def _pack(content: bytes, ending: str) -> bytes:
    if ending == "xz":
        return lzma.compress(content, preset=0)
    if ending == "gz":
        return gzip.compress(content, 1, mtime=0)
    import zstandard

    return zstandard.ZstdCompressor(level=1).compress(content)
