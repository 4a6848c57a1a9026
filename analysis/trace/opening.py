"""Decide whether a file is a trace that can be read, and say in one line what it is instead."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import quote

from analysis.domain.errors import TraceError

__all__ = ["check_file", "read_only_uri"]

_SQLITE_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100


def check_file(path: Path) -> None:
    """Check a trace file's outside: there, a file, readable, SQLite, whole.

    Raises:
        TraceError: it is not; the text says what to do.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise TraceError(f"{path}: no such file") from error
    except OSError as error:
        raise TraceError(f"{path}: cannot be looked at ({error.strerror})") from error
    if stat.S_ISDIR(status.st_mode):
        raise TraceError(f"{path}: is a directory; name the trace.sqlite inside it")
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except PermissionError as error:
        raise TraceError(f"{path}: no permission to read it; ask its owner or copy it") from error
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror})") from error
    if not header:
        raise TraceError(f"{path}: is empty (0 bytes); export the report again")
    if not header.startswith(_SQLITE_MAGIC):
        raise TraceError(_not_sqlite(path))
    _check_whole(path, header, status.st_size)


def _not_sqlite(path: Path) -> str:
    if path.suffix == ".nsys-rep":
        export = f"nsys export --type sqlite --output {path.with_suffix('.sqlite').name} {path.name}"
        return f"{path}: is an Nsight Systems report, not its export; run: {export}"
    if path.suffix == ".qdstrm":
        return (
            f"{path}: is an unfinished Nsight Systems capture; import it first (QdstrmImporter -i {path.name}), "
            f"then: nsys export --type sqlite {path.with_suffix('.nsys-rep').name}"
        )
    if path.suffix == ".xz":
        return f"{path}: is compressed; run: xz -dk {path.name}"
    return f"{path}: is not a SQLite file; dsocr-analyze reads what `nsys export --type sqlite` writes"


def _check_whole(path: Path, header: bytes, size: int) -> None:
    """Compare the header's page count with the file's size (SQLite file format, § 1.3)."""
    if len(header) < _HEADER_BYTES:
        raise TraceError(f"{path}: is truncated inside its header; copy or export it again")
    page = int.from_bytes(header[16:18], "big")
    page = 65536 if page == 1 else page
    pages = int.from_bytes(header[28:32], "big")
    counted = header[24:28] == header[92:96]  # the count is valid only if both change counters agree
    if counted and pages and size < page * pages:
        raise TraceError(
            f"{path}: is truncated ({size:,} of {page * pages:,} bytes); copy it again or export the report again"
        )
    wal = path.with_name(path.name + "-wal")
    if header[18] == 2 and wal.exists() and wal.stat().st_size:
        raise TraceError(f"{path}: another program is still writing it ({wal.name} is not empty); wait for its end")


def read_only_uri(path: Path) -> str:
    """SQLite URI that never writes: no journal, no lock, so that a read-only directory works too."""
    return f"file:{quote(os.fspath(path.absolute()))}?mode=ro&immutable=1"
