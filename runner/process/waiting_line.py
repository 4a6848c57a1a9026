"""The order in which processes that wait for one thing are served: whoever was asked for first.

A lock of the system is given to whichever waiter tries at the right moment. So each waiter lays down a ticket: a file that
it holds locked, and whose name sorts by the time at which it was asked for. It is a waiter's turn when no ticket before
its own is held any more; the ticket of one that died, by SIGKILL too, is free, and the next one who looks removes it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from attrs import frozen

from runner.process.lock import user_name

__all__ = ["Place", "WaitingLine"]

_POLL_S: Final = 0.05
_ENDING: Final = ".ticket"
_QUEUED_S: Final = 60.0
"""So long before its ticket a run of another user's may have been asked for: its program starts meanwhile."""


@frozen
class Place:
    """One waiter's place in a line, as long as `WaitingLine.joined` lasts."""

    line: WaitingLine
    ticket: Path

    def ahead(self) -> int:
        """How many wait before this one; what dead ones left is removed."""
        return len(self.those_ahead())

    def those_ahead(self) -> list[str]:
        """Who waits before this one, in words."""
        return [
            _who(ticket) for ticket in self.line.tickets() if _order(ticket) < self.ticket.name and _is_held(ticket)
        ]

    def wait(self, stop: Callable[[], bool]) -> bool:
        """Wait until nobody is ahead. False: ``stop``, asked again and again, said true before."""
        while self.ahead():
            if stop():
                return False
            time.sleep(_POLL_S)
        return True


@frozen
class WaitingLine:
    """A line: the files of a folder whose names begin with its own."""

    folder: Path
    name: str

    @contextmanager
    def joined(self, asked_at: float) -> Iterator[Place]:
        """Stand in the line.

        Args:
            asked_at: when it was asked for, in seconds since 1970: who was asked for earlier stands before.

        Raises:
            OSError: the folder cannot be written, or its file system has no locks.
        """
        number = f"{int(asked_at * 1e6):020d}.{os.getpid()}"
        ticket = self.folder / f"{self.name}.{number}{_ENDING}"
        fresh = ticket.with_suffix(".new")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o644)  # whoever waits beside us, another user too, must be able to look at it
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it is new: nobody else has it
            fresh.rename(ticket)  # seen by others only now that it is locked: they would think it a dead one's
            yield Place(self, ticket)
        finally:
            for file in (ticket, fresh):
                with suppress(OSError):
                    file.unlink()
            os.close(descriptor)

    def tickets(self) -> list[Path]:
        """All tickets, in order."""
        start = f"{self.name}."
        return sorted(
            (file for file in self.folder.iterdir() if file.name.startswith(start) and file.name.endswith(_ENDING)),
            key=lambda file: file.name,
        )


def _order(ticket: Path) -> str:
    """What a ticket is sorted by: its name.

    That of another user's is believed no more than a little: a name may say any time, and would be before all others for
    ever; the moment at which a file got its name is the kernel's word.
    """
    try:
        facts = ticket.lstat()
    except OSError:
        return ticket.name
    parts = ticket.name.rsplit(".", 3)
    if facts.st_uid == os.geteuid() or len(parts) != 4:
        return ticket.name
    earliest = f"{int((facts.st_ctime - _QUEUED_S) * 1e6):020d}"
    return ".".join((parts[0], max(parts[1], earliest), *parts[2:]))


def _who(ticket: Path) -> str:
    process = ticket.name.rsplit(".", 2)[-2]
    try:
        user = ticket.lstat().st_uid
    except OSError:
        return f"process {process}"
    return f"process {process}" + ("" if user == os.geteuid() else f" of {user_name(user)}")


def _is_held(ticket: Path) -> bool:
    """Whether its waiter lives. Asked with a shared lock, so that two who look at once do not see each other."""
    try:
        descriptor = os.open(ticket, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # gone meanwhile, or no ticket of ours: those can be read by all
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        with suppress(OSError):
            ticket.unlink()
        return False
    finally:
        os.close(descriptor)
