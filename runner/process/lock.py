"""A file that one process holds at a time, and that names its holder.

The lock is ``flock``: the system frees it when its holder dies, by SIGKILL too, so none goes stale. The file may lie where
others can put files: it is never opened through a symbolic link, and it must be a regular file that has no second name and
belongs to somebody who may hold it. What it says of its holder is a `ProcessMark` or nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from attrs import frozen

from runner.process.held import passed_on
from runner.process.process_mark import UNKNOWN_PROCESS, ProcessMark

__all__ = ["LockFile", "LockTakenError", "user_name"]

_TAKE_S: Final = 1.0
"""How long `LockFile.held` tries before the lock counts as another's: somebody may only be looking."""
_POLL_S: Final = 0.02
_WAIT_POLL_S: Final = 0.2
_LONGEST_MARK: Final = 128
_WRITES: Final = 5
"""How often a lock is looked at that does not name its holder: it may only just write its name."""
_OPEN: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class LockTakenError(Exception):
    """Another process holds the lock, or the waiting for it was ended."""


@frozen
class LockFile:
    """The file."""

    path: Path
    mode: int = 0o600
    """File mode, whatever the umask: whoever may write the file may hold it. Where others may, it may be theirs too;
    else it is ours, or of the owner of its folder, which its user has checked."""

    @contextmanager
    def held(
        self,
        *,
        wait: Callable[[ProcessMark | None], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
        role: str = "",
    ) -> Iterator[None]:
        """Hold it, with the own `ProcessMark` in the file.

        Args:
            wait: told the holder once, None if it is not known, if it is another; then waited for. None: not waited for.
            stop: ends the waiting when it says true.
            role: what it is held for; part of the mark.

        Raises:
            LockTakenError: another process holds it; or ``stop`` ended the waiting.
            OSError: the file cannot be used or is none that may be trusted, or its file system has no locks.
        """
        descriptor = self._open_to_hold()
        try:
            if not _taken(descriptor, until=time.monotonic() + _TAKE_S):
                if wait is None:
                    raise LockTakenError
                wait(self.written())
                while not _taken(descriptor):
                    if stop():
                        raise LockTakenError
                    time.sleep(_WAIT_POLL_S)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(ProcessMark.own(role)).encode("ascii"), 0)
            with passed_on(descriptor):
                yield
        finally:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # at once, also where a supervisor has it open still
            os.close(descriptor)

    def holder(self) -> int | None:
        """Process that holds it, by its number here. None: nobody does; 0: somebody does, or may, and has none that is known."""
        holder = self.held_by()
        return None if holder is None else holder.process if holder.is_here else 0

    def held_by(self) -> ProcessMark | None:
        """Process that holds it; None: nobody does. `UNKNOWN_PROCESS`: somebody does, or may, and it cannot be told who.

        To look takes a lock that all who look share, for an instant; `held` waits that long.
        """
        for _ in range(_WRITES):
            try:
                descriptor = _open_regular(self.path, os.O_RDONLY)
            except FileNotFoundError:
                return None
            except OSError:
                return UNKNOWN_PROCESS
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                mark = _mark_in(descriptor)
            else:
                return None
            finally:
                os.close(descriptor)
            if mark is not None:
                return mark
            time.sleep(_POLL_S)
        return UNKNOWN_PROCESS

    def written(self) -> ProcessMark | None:
        """What the last holder wrote; None: nothing that could be read."""
        try:
            descriptor = _open_regular(self.path, os.O_RDONLY)
        except OSError:
            return None
        try:
            return _mark_in(descriptor)
        finally:
            os.close(descriptor)

    def _open_to_hold(self) -> int:
        try:
            descriptor = _open_regular(self.path, os.O_RDWR)
        except FileNotFoundError:
            # Never O_CREAT on a file that is there: in a folder of several users Linux refuses that (protected_regular).
            with suppress(FileExistsError):
                made = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, self.mode)
                os.fchmod(made, self.mode)
                return made
            descriptor = _open_regular(self.path, os.O_RDWR)
        try:
            facts = os.fstat(descriptor)
            if facts.st_nlink != 1:
                raise OSError(errno.EPERM, "it has a second name elsewhere (a hard link)")
            if not self.mode & 0o066 and facts.st_uid not in (os.geteuid(), 0, self.path.parent.stat().st_uid):
                raise OSError(errno.EPERM, f"it belongs to {user_name(facts.st_uid)}")
        except OSError:
            os.close(descriptor)
            raise
        return descriptor


def user_name(user: int) -> str:
    """Name of a user, for a message."""
    import pwd

    try:
        return f"user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"user {user}"


def _open_regular(path: Path, flags: int) -> int:
    """Open a file if it is a regular one: a FIFO would wait for its other end, a device do who knows what."""
    if stat.S_ISLNK(kind := path.lstat().st_mode):
        raise OSError(errno.ELOOP, "it is a symbolic link")
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "it is no regular file")
    try:
        descriptor = os.open(path, flags | _OPEN)
    except OSError as error:
        if error.errno == errno.ELOOP:  # put there since
            raise OSError(errno.ELOOP, "it is a symbolic link") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file")
    return descriptor


def _taken(descriptor: int, until: float = 0.0) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_S)
        else:
            return True


def _mark_in(descriptor: int) -> ProcessMark | None:
    try:
        content = os.pread(descriptor, _LONGEST_MARK, 0)
    except OSError:
        return None
    return ProcessMark.read(content.decode("ascii", "replace"))
