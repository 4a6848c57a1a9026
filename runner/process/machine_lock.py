"""A name that one process of the machine holds at a time, whichever user it belongs to.

Users who trust each other in nothing cannot share a file: whoever owns it, or its folder, can put another in its place. A
name in Linux' abstract socket namespace lies in no file system, so nothing can be planted, and the kernel itself says who
holds it (SO_PEERCRED) and frees it when the holder dies. Whoever wants to can hold a name and keep others from
measuring; the message then names him. A network namespace has its own names, as a container has its own ``/tmp``.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from attrs import frozen

from runner.process.held import passed_on
from runner.process.lock import LockTakenError

__all__ = ["Holder", "MachineLock"]

_CREDENTIALS: Final = struct.Struct("3i")
_BACKLOG: Final = 4096
"""Each process that asks who holds the name takes one place, until the holder ends."""
_WAIT_POLL_S: Final = 0.2
_ANSWER_S: Final = 1.0


@frozen
class Holder:
    """Who holds a name, by the kernel's word."""

    process: int | None
    """None: it belongs to a PID namespace that cannot be seen from here."""
    user: int

    def words(self) -> str:
        """Name it for a message: ``process 4711``."""
        return (
            "a process of another PID namespace, such as a container's"
            if self.process is None
            else f"process {self.process}"
        )


@frozen
class MachineLock:
    """The name."""

    name: str

    @contextmanager
    def held(
        self, *, wait: Callable[[Holder | None], None] | None = None, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Hold the name. Where the system has no such names, nothing is held.

        Args:
            wait: told the holder once if it is another; then waited for. None: not waited for.
            stop: ends the waiting when it says true.

        Raises:
            LockTakenError: another process holds it; or ``stop`` ended the waiting.
        """
        try:
            own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError:  # a sandbox without sockets
            yield
            return
        with own:
            if not self._bound(own):
                if wait is None:
                    raise LockTakenError
                wait(self.holder())
                while not self._bound(own):
                    if stop():
                        raise LockTakenError
                    time.sleep(_WAIT_POLL_S)
            with passed_on(own.fileno()):
                yield

    def holder(self) -> Holder | None:
        """Who holds it; None: nobody, or it cannot be told."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
                asking.settimeout(_ANSWER_S)  # a stranger who holds the name need not answer
                asking.connect(self._address)
                process, user, _ = _CREDENTIALS.unpack(
                    asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                )
        except OSError:
            return None
        return Holder(process or None, user)

    def _bound(self, own: socket.socket) -> bool:
        try:
            own.bind(self._address)
            own.listen(_BACKLOG)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            # A sandbox that forbids it: the lock of the user's own runs remains.
        return True

    @property
    def _address(self) -> bytes:
        return b"\0dsocr-profiler/" + self.name.encode("utf-8")
