"""Files that tell a program what to do: read only where this user wrote them, whatever their path leads to meanwhile.

Whoever owns a folder above a run's may put a folder of his own in its place, between two looks at it. So it is asked of the
open file, and not of its path, whose it is: nobody can make a file that belongs to us.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import TypeVar

from analysis.domain.convert import from_json
from analysis.domain.errors import RequestError
from analysis.domain.reading import LARGEST_RESULT
from runner.process.lock import user_name

__all__ = ["is_own", "own_record"]

T = TypeVar("T")


def own_record(kind: type[T], path: Path) -> T:
    """Read a record that is acted on from a JSON file.

    Args:
        kind: the record's class.
        path: a file that this user wrote; its name is no link.

    Raises:
        RequestError: it cannot be read, is another user's or a link, everybody may write it, or it holds no such record.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise RequestError(f"{path}: is a symbolic link, which no run makes there") from error
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, no path
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise RequestError(f"{path}: is no regular file")
        if not is_own(facts.st_uid, path.parent):
            raise RequestError(f"{path}: belongs to {user_name(facts.st_uid)}, and what it names would be started")
        if facts.st_mode & stat.S_IWOTH:
            raise RequestError(f"{path}: everybody may write it; if what is in it is yours: chmod go-w {path}")
        try:
            content = file.read(LARGEST_RESULT + 1)
        except OSError as error:
            raise RequestError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > LARGEST_RESULT:
        raise RequestError(f"{path}: larger than {LARGEST_RESULT:,} bytes, which no such file is")
    return from_json(kind, content, source=str(path))


def is_own(user: int, folder: Path) -> bool:
    """Whether a user is this one, or has the files that we make in a folder: on a network file system root's may be nobody's."""
    if user == os.geteuid():
        return True
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_uid == user
    except OSError:
        return False
