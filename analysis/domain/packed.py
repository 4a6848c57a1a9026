"""Read files packed by xz or gzip as streams, in bounded memory.

`lzma.open` takes a dictionary of whatever size the file asks for, up to 4 GiB, and takes a file of zeros for a row of empty
``.lzma`` streams, so that it reads a device of zeros for ever. Read here are ``.xz`` streams alone, with at most `XZ_MEMORY`.
"""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

__all__ = ["DAMAGES", "XZ_MEMORY", "open_packed"]

XZ_MEMORY: Final = 1 << 28
"""Bytes for the decoder: four times what ``xz -9`` needs."""
DAMAGES: Final[tuple[type[Exception], ...]] = (OSError, EOFError, lzma.LZMAError, zlib.error)
"""What reading a damaged file raises, an ``OSError`` without a number among them."""

_CHUNK: Final = 1 << 16


@contextmanager
def open_packed(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file for reading what is packed in it.

    Args:
        path: ``.xz`` or ``.gz``; the caller has made sure that it is a regular file.

    Raises:
        OSError: it cannot be opened. Reading raises one of `DAMAGES` where the file is damaged or cut off.
    """
    with path.open("rb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file) as plain:
                yield cast("IO[bytes]", plain)
        else:
            yield io.BufferedReader(_Xz(file), _CHUNK)


class _Xz(io.RawIOBase):
    """The content of one or several ``.xz`` streams in a row; what follows the last one is no part of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._stream = _new_stream()
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        plain = b""
        while not plain and not self._ended:
            follows = self._stream.eof
            packed = self._next_input()
            if follows:
                self._stream = _new_stream()
            try:
                plain = b"" if self._ended else self._stream.decompress(packed, len(buffer))
            except lzma.LZMAError:
                if not follows:
                    raise
                self._ended = True
        buffer[: len(plain)] = plain
        return len(plain)

    def _next_input(self) -> bytes:
        if self._stream.eof:  # zeros fill a file up between and after its streams
            packed = self._stream.unused_data.lstrip(b"\0") or self._file.read(_CHUNK).lstrip(b"\0")
            self._ended = not packed
            return packed
        packed = self._file.read(_CHUNK) if self._stream.needs_input else b""
        if not packed and self._stream.needs_input:
            raise EOFError("it ends before the end of its stream")
        return packed


def _new_stream() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
