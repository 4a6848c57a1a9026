"""What programs print: files of any size, read and cleaned with little memory."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from analysis.domain.errors import CaptureError
from analysis.domain.files import WriteOptions, write_with
from analysis.domain.redaction import encoded_forms, redacted

__all__ = ["log_text", "redact_log", "redacted_pieces"]

_HEAD_BYTES: Final = 1 << 18
_TAIL_BYTES: Final = 1 << 20
_CHUNK_BYTES: Final = 1 << 18
_PIECE: Final = 1 << 20
"""Characters that are looked at together."""
_MARGIN: Final = 1 << 15
"""Characters on both sides of the end of a piece in which no secret may lie across it. A key of 16,384 bits has 13,000."""
_MOST_PIECE: Final = 8 << 20
"""Where none of the ends that are tried will do, a piece ends here all the same."""
_MOST_TAKEN: Final = 1000
"""Of so many secrets that are known by their looks only the encoded forms are looked for too, if they are no longer."""
_LONGEST_TAKEN: Final = 4096
_TRIED: Final = 8
"""Ends of each kind that are tried."""


def log_text(log: Path) -> str:
    """Read what a program printed: all of it, or of more than a megabyte its beginning and its end.

    Raises:
        OSError: it cannot be read.
    """
    with log.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= _HEAD_BYTES + _TAIL_BYTES:
            return file.read(_HEAD_BYTES + _TAIL_BYTES).decode("utf-8", "replace")
        head = file.read(_HEAD_BYTES)
        file.seek(size - _TAIL_BYTES)
        tail = file.read(_TAIL_BYTES)
    # Whole lines, where there are any: half of one could be taken for another.
    head = head[: head.rfind(b"\n") + 1] or head
    tail = tail[tail.find(b"\n") + 1 :]
    left_out = size - len(head) - len(tail)
    return f"{head.decode('utf-8', 'replace')}[… {left_out:,} bytes …]\n{tail.decode('utf-8', 'replace')}"


def redact_log(log: Path, values: Sequence[str]) -> None:
    """Take secrets out of a log, piece by piece, and put the result in its place in one step.

    What looks like one is looked for in its encoded forms too: what a program printed as it is, it may have printed in
    base64 elsewhere.

    Args:
        log: changed only if something is found; may be missing.
        values: secrets that are known, the longest first.

    Raises:
        OSError: it cannot be written.
    """
    taken: set[str] = set()
    holds_secrets = False
    try:
        for before, after in _pieces_of(log, values, taken):
            holds_secrets = holds_secrets or before != after
        mode = stat.S_IMODE(log.stat().st_mode)
    except OSError:
        return
    if not holds_secrets:
        return
    forms = encoded_forms(sorted(text for text in taken if len(text) <= _LONGEST_TAKEN)[:_MOST_TAKEN])
    known = sorted({*values, *forms}, key=len, reverse=True)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for _, after in _pieces_of(log, known):
                file.write(_as_bytes(after))

    try:
        write_with(log, write, WriteOptions(mode=mode, error=CaptureError))
    except CaptureError:  # no room for a second one: what is blanked is not longer than what was there
        _redact_in_place(log, known)


def _redact_in_place(log: Path, values: Sequence[str]) -> None:
    with log.open("r+b") as file:
        waiting = b""
        read = 0
        for before, after in _pieces_of(log, values):
            read += len(_as_bytes(before))
            waiting += _as_bytes(after)
            room = read - file.tell()
            file.write(waiting[:room])
            waiting = waiting[room:]
        file.write(waiting)
        file.truncate()


def redacted_pieces(
    chunks: Iterator[str], values: Sequence[str], taken: set[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Take secrets out of a text of any length without cutting one in two.

    A piece ends where the text on both sides, looked at together and apart, comes out the same.

    Args:
        chunks: the text.
        values: secrets that are known, the longest first.
        taken: gets what was taken out because it looks like a secret.

    Yields:
        Each piece, as it was and without its secrets.
    """
    margin = _MARGIN + 2 * max(map(len, values), default=0)
    waiting = ""
    tried_at = 0
    for chunk in chunks:
        waiting += chunk
        if len(waiting) < max(_PIECE + margin, tried_at):
            continue
        end = _end_of_piece(waiting, values, margin)
        if end is None:
            if len(waiting) < _MOST_PIECE + margin:
                tried_at = len(waiting) + _PIECE
                continue
            end = len(waiting) - margin
        yield waiting[:end], redacted(waiting[:end], values, taken)
        waiting, tried_at = waiting[end:], 0
    if waiting:
        yield waiting, redacted(waiting, values, taken)


def _end_of_piece(text: str, values: Sequence[str], margin: int) -> int | None:
    """Where a piece may end, at most ``margin`` before the end of a text; None: no place that was tried will do."""
    for end in _ends_to_try(text, len(text) - margin):
        left, right = text[max(0, end - margin) : end], text[end : end + margin]
        if redacted(left, values) + redacted(right, values) == redacted(left + right, values):
            return end
    return None


def _ends_to_try(text: str, last: int) -> Iterator[int]:
    """Behind line ends, blanks, anything, each from the last one backwards."""
    for sign in ("\n", "\r", " "):
        place = last
        for _ in range(_TRIED):
            place = text.rfind(sign, 0, place)
            if place < last // 2:
                break
            yield place + 1
            place -= last // 20
    for part in range(_TRIED):
        yield last - part * (last // 20)


def _pieces_of(log: Path, values: Sequence[str], taken: set[str] | None = None) -> Iterator[tuple[str, str]]:
    with log.open("rb") as file:
        yield from redacted_pieces(_chunks_of(file), values, taken)


def _chunks_of(file: IO[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    while chunk := file.read(_CHUNK_BYTES):
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
