"""A file that one process holds at a time, and that names its holder.

The lock is ``flock`` (by filelock): the system frees it when its holder dies, by SIGKILL too, so none goes stale.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import frozen
from filelock import FileLock, Timeout

__all__ = ["LockFile", "Timeout"]

_LOOK_S: Final = 0.1
"""How long `LockFile.holder` tries: it holds the lock itself for an instant, so two lookers can meet."""
_TAKE_S: Final = 1.0
"""How long `LockFile.held` tries before the lock counts as another's: somebody may only be looking."""
_POLL_S: Final = 0.02


@frozen
class LockFile:
    """The file."""

    path: Path
    mode: int
    """File mode, whatever the umask: whoever may write the file may hold it."""

    @contextmanager
    def held(
        self, *, wait: Callable[[str], None] | None = None, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Hold it, with the own process id in the file.

        Args:
            wait: told the holder once if it is another; then waited for. None: not waited for.
            stop: ends the waiting when it says true.

        Raises:
            Timeout: another process holds it; or ``stop`` ended the waiting.
            OSError: the file cannot be used, or its file system has no locks.
        """
        lock = self._lock(sign=True)
        try:
            lock.acquire(timeout=_TAKE_S, poll_interval=_POLL_S)
        except Timeout:
            if wait is None:
                raise
            wait(self.written())
            lock.acquire(poll_interval=10 * _POLL_S, cancel_check=stop)
        try:
            yield
        finally:
            lock.release()

    def holder(self) -> int | None:
        """Process that holds it, None if nobody does; 0 if somebody does, or may, and it cannot be told who."""
        if not self.path.exists():
            return None
        lock = self._lock(sign=False)
        try:
            lock.acquire(timeout=_LOOK_S, poll_interval=_POLL_S)
        except Timeout:
            written = self.written()
            return int(written) if written.isdigit() else 0
        except PermissionError:
            return 0
        lock.release()
        return None

    def written(self) -> str:
        """What the last holder wrote, which is its process id; empty if it cannot be read."""
        try:
            return self.path.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return ""

    def _lock(self, *, sign: bool) -> FileLock:
        return FileLock(
            self.path,
            mode=self.mode,
            fallback_to_soft=False,  # a file that only stands for a lock would outlive a killed holder
            on_acquired=_sign if sign else None,
        )


def _sign(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
