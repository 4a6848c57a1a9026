"""Compressed exports: unpacked into a temporary file for as long as they are read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, Final

from analysis.domain.errors import TraceError
from analysis.domain.packed import DAMAGES, open_packed
from analysis.trace.opening import size_of

__all__ = ["unpacked"]

_CHUNK: Final = 1 << 20
_SQLITE_MAGIC: Final = b"SQLite format 3\0"
_HEADER_BYTES: Final = 100
_LARGEST: Final = 1 << 36
"""Bytes (64 GiB) that an export may have whose header does not say its size."""
_LARGEST_RATIO: Final = 1000
"""Unpacked bytes per packed one; exports have up to 60, and zeros alone 7,000 by xz and 30,000 by zstd."""
_WITHOUT_RATIO: Final = 1 << 30
"""Bytes that a file of any size may unpack to."""
_RESERVE: Final = 64 << 20
"""Bytes that are left free on the disk for other programs."""


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Give a plain copy of a compressed export, which is deleted afterwards.

    Args:
        path: ``.xz``, ``.gz`` or ``.zst``.

    Raises:
        TraceError: it cannot be read, is damaged, holds no SQLite export or is larger than its header says; the
            temporary folder has no room for it; the library for ``.zst`` is missing. Errors of the same kind from
            inside the context name ``path`` in place of the copy.
    """
    packed_bytes = size_of(path)
    try:
        folder = Path(tempfile.mkdtemp(prefix="dsocr-"))
    except OSError as error:
        raise TraceError(f"{path}: cannot be unpacked, there is no temporary folder ({error.strerror})") from error
    copy = folder / path.stem
    try:
        _unpack(path, copy, max(_WITHOUT_RATIO, _LARGEST_RATIO * packed_bytes))
        yield copy
    except TraceError as error:
        raise type(error)(str(error).replace(str(copy), str(path))) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(path: Path, copy: Path, most: int) -> None:
    damages = _damages(path)
    try:
        with _open(path) as packed:
            first = packed.read(_HEADER_BYTES)
            if not first.startswith(_SQLITE_MAGIC):
                raise TraceError(
                    f"{path}: holds no SQLite export; dsocr-analyze reads what `nsys export --type sqlite` writes"
                )
            size = _size(first)
            if size is not None and size > most:
                raise TraceError(
                    f"{path}: says that it unpacks to {size:,} bytes, more than {_LARGEST_RATIO:,} times its own, which no export "
                    "does; copy it again"
                )
            _require_space(path, copy.parent, size or 0)
            _write(path, packed, first, copy, size or min(_LARGEST, most))
    except damages as error:
        # gzip raises an OSError without a number where the data are at fault.
        if isinstance(error, OSError) and error.errno is not None:
            raise TraceError(f"{path}: cannot be unpacked ({error.strerror})") from error
        raise TraceError(f"{path}: is damaged ({error}); copy it again") from error


def _write(path: Path, packed: IO[bytes], first: bytes, copy: Path, largest: int) -> None:
    written = len(first)
    with copy.open("xb") as plain:
        plain.write(first)
        while chunk := packed.read(_CHUNK):
            written += len(chunk)
            if written > largest:
                raise TraceError(f"{path}: unpacks to more than the {largest:,} bytes of an export; it is no such file")
            _require_space(path, copy.parent, len(chunk))
            plain.write(chunk)


def _size(header: bytes) -> int | None:
    """Size that the header says (SQLite file format, § 1.3); None: it does not say, or not validly."""
    if len(header) < _HEADER_BYTES or header[24:28] != header[92:96]:
        return None
    page = int.from_bytes(header[16:18], "big")
    return (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big") or None


def _require_space(path: Path, folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < wanted + _RESERVE:
        raise TraceError(
            f"{path}: cannot be unpacked: {folder.parent} has {free >> 20:,} MiB free, and {(wanted + _RESERVE) >> 20:,} MiB are "
            "needed; set TMPDIR to a folder with more room"
        )


def _open(path: Path) -> AbstractContextManager[IO[bytes]]:
    if path.suffix != ".zst":
        return open_packed(path)
    plain: AbstractContextManager[IO[bytes]] = _zstd(path).open(path)
    return plain


def _damages(path: Path) -> tuple[type[Exception], ...]:
    return (*DAMAGES, _zstd(path).ZstdError) if path.suffix == ".zst" else DAMAGES


def _zstd(path: Path) -> Any:
    """Whichever library for Zstandard is there: that of Python 3.14, its backport, or ``zstandard``."""
    import importlib

    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise TraceError(
        f"{path}: nothing here reads .zst; pip install 'dsocr-profiler[zst]', or unpack it: zstd -dk {path.name}"
    )
