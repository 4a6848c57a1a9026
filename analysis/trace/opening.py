"""Decide whether a file is a trace that can be read, and say in one line what it is instead."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final
from urllib.parse import quote

from analysis.domain.errors import TraceError

__all__ = ["check_file", "read_only_uri", "size_of"]

_SQLITE_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100


def check_file(path: Path) -> None:
    """Check a trace file's outside: there, a file, readable, SQLite, whole, and finished by whoever wrote it.

    Raises:
        TraceError: it is not; the text says what to do.
    """
    size = size_of(path)
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
    _check_finished(path)  # before the size, which an unfinished transaction changes too
    _check_whole(path, header, size)


def size_of(path: Path) -> int:
    """Bytes of a regular file; what is none is not opened: a pipe without a writer would wait for ever.

    Raises:
        TraceError: it is not there, or is no regular file.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise TraceError(f"{path}: no such file") from error
    except OSError as error:
        raise TraceError(f"{path}: cannot be looked at ({error.strerror})") from error
    if stat.S_ISDIR(status.st_mode):
        raise TraceError(f"{path}: is a directory; name the trace.sqlite inside it")
    if not stat.S_ISREG(status.st_mode):
        raise TraceError(f"{path}: is no file but a pipe, a socket or a device; name an export that lies on a disk")
    return status.st_size


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
    if counted and pages and size > page * pages:
        raise TraceError(
            f"{path}: has {size - page * pages:,} bytes more than the {page * pages:,} of its pages, by its own count: the copy "
            "went wrong or its writer did not finish; copy it again or export the report again"
        )


def _check_finished(path: Path) -> None:
    """Refuse a file with a journal: what it holds is then not what was committed, and reading must not roll it back.

    SQLite (file format, § 3 and 4; pager.c, ``hasHotJournal``) takes a rollback journal for one that is to be rolled back unless
    its first byte is 0, as a journal is left that is kept after its commit; a write-ahead log holds pages from its 33rd
    byte on. Both lie beside the file itself, where the path is a link.
    """
    real = path.resolve()
    journal, log = (real.with_name(real.name + ending) for ending in ("-journal", "-wal"))
    if _first_bytes(path, journal)[:1] not in (b"", b"\0"):
        raise TraceError(
            f"{path}: was being written when its writer ended or the copy was made ({journal.name} is not empty): pages in it were "
            f"never committed. {_REPAIR}"
        )
    if len(_first_bytes(path, log)) > _LOG_HEADER_BYTES:
        raise TraceError(
            f"{path}: another program is still writing it, or ended without finishing ({log.name} is not empty): its newest "
            f"rows are not in the file yet. Wait for its end; {_REPAIR}"
        )


_REPAIR: Final = (
    "export the report again, or open a copy of both files once with sqlite3, which finishes or undoes what was begun"
)
_LOG_HEADER_BYTES: Final = 32


def _first_bytes(trace: Path, beside: Path) -> bytes:
    """The begin of a file that may not be there; of what is no regular file nothing, for SQLite reads none either.

    Raises:
        TraceError: it is there, and cannot be read.
    """
    try:
        if not stat.S_ISREG(beside.stat().st_mode):
            return b""
        with beside.open("rb") as file:
            return file.read(_LOG_HEADER_BYTES + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return b""
        raise TraceError(
            f"{trace}: whether it is finished cannot be told: {beside.name} cannot be read ({error.strerror})"
        ) from error


def read_only_uri(path: Path) -> str:
    """SQLite URI that never writes: no journal, no lock, so that a read-only directory works too."""
    return f"file:{quote(os.fsencode(path.absolute()))}?mode=ro&immutable=1"
