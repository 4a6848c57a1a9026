"""Looks for planted secrets in every byte of every file, whatever it is packed in."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

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
    if path.suffix == ".xz":
        yield lzma.decompress(content)
    elif path.suffix == ".gz" or content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    elif path.suffix == ".parquet":
        rows = pq.read_table(io.BytesIO(content)).to_pylist()
        yield json.dumps(rows, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")
    elif path.suffix == ".html":  # what scripts read: JSON, packed and in base64
        for packed in re.findall(rb"[A-Za-z0-9+/=]{200,}", content):
            yield from _unpacked(packed)


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
