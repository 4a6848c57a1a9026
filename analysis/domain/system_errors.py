"""What the operating system refuses, in words: the same ones at every step, for a full disk above all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

__all__ = ["DISK_FULL", "LITTLE_ROOM_BYTES", "NO_INODES", "has_little_room", "is_disk_full", "reason_of", "room_remedy"]

DISK_FULL: Final = "the disk is full"
NO_INODES: Final = "the disk has room and no inodes left, for it holds as many files as it can"
LITTLE_ROOM_BYTES: Final = 1 << 20
"""With less than this free, a program that failed without a word is taken to have failed of it."""

_SQLITE_FULL: Final = 13
"""``sqlite3.SQLITE_FULL``; what imports this module need not load SQLite."""
_WORDS: Final = {
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: f"{DISK_FULL} for this user: the quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "the path or a name in it is too long",
    errno.ELOOP: "symbolic links that lead in a circle",
    errno.EFBIG: "the file is larger than this user or file system may have",
}


def reason_of(error: Exception) -> str:
    """Say in a few words, without a path, why the system refused something.

    Args:
        error: an OSError, ``sqlite3.Error``, or what a library raised with one of them as its cause.
    """
    number = _number(error)
    if number == errno.ENOSPC and _is_out_of_inodes(error):
        return NO_INODES
    if number in _WORDS:
        return _WORDS[number]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk, or the user's share of it, is what was missing."""
    return _number(error) in (errno.ENOSPC, errno.EDQUOT)


def room_remedy(error: BaseException) -> str:
    """What helps where `is_disk_full` says that the disk is what was missing."""
    return "remove files" if _is_out_of_inodes(error) else "free space"


def _is_out_of_inodes(error: BaseException | None) -> bool:
    """Whether it is files that the disk has no room for, as far as the error names one of them."""
    while error is not None and getattr(error, "filename", None) is None:
        error = error.__cause__
    named = getattr(error, "filename", None)
    if not isinstance(named, str | bytes | os.PathLike):
        return False
    place = Path(os.fsdecode(named))
    for folder in (place, *place.parents):
        try:
            room = os.statvfs(folder)
        except OSError:
            continue
        return room.f_files > 0 and room.f_favail == 0 and room.f_bavail * room.f_frsize >= LITTLE_ROOM_BYTES
    return False


def has_little_room(path: Path) -> bool:
    """Whether the disk under a file or folder, which need not be there, is as good as full."""
    for folder in (path, *path.parents):
        try:
            room = os.statvfs(folder)
            return room.f_bavail * room.f_frsize < LITTLE_ROOM_BYTES
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return False


def _number(error: BaseException | None) -> int | None:
    """The system's number for an error, also where a library put it into words of its own."""
    if error is None:
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int) and code & 0xFF == _SQLITE_FULL:
        return errno.ENOSPC
    # Arrow, safetensors and torch raise errors of their own, with the system's words in them.
    text = str(error)
    for number in (errno.ENOSPC, errno.EDQUOT):
        if os.strerror(number) in text or f"os error {number}" in text:
            return number
    return _number(error.__cause__)
