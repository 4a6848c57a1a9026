"""What a profiled program leaves running when it ends: nsys waits for it as for the program, for as long as it lives.

nsys' launcher starts the program as the leader of a session, and adopts what is left of it (it is a child subreaper). So
the program is known by both, and what stands below the launcher without it was left running.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import psutil

__all__ = ["LAUNCHER_NAME", "LeftRunning"]

LAUNCHER_NAME: Final = "nsys-launcher"
"""How the name of the process between nsys and its program begins. It waits for the program, so it does not end before."""
_LISTED: Final = 3
"""So many processes are named."""


class LeftRunning:
    """Tells of processes that outlive their program, and ends them when the time is over.

    Where nsys starts the program in another way nothing is taken for left running.
    """

    def __init__(self, *, limit_s: float, grace_s: float, tell: Callable[[str], None]) -> None:
        self._limit_s = limit_s
        self._grace_s = grace_s
        self._tell = tell
        self._programs: dict[int, psutil.Process] = {}
        """By the process id of their launcher; under ranks there are several."""
        self._since: float | None = None
        self._told = False
        self._terminated_at: float | None = None
        self.ended: str | None = None
        """What was ended, in words; None: nothing was."""

    def note(self, process: psutil.Process) -> None:
        """Remember a process that bears the program's mark, if it is the program and not what it has started."""
        with suppress(psutil.Error, ProcessLookupError):
            launcher = process.parent()
            if (
                launcher is not None
                and launcher.name().startswith(LAUNCHER_NAME)
                and os.getsid(process.pid) == process.pid
            ):
                self._programs.setdefault(launcher.pid, process)

    def look(self, names: Mapping[int, tuple[str, int]], now: float, *, asked: bool) -> None:
        """See what is left, tell of it once, and end it when its time is over.

        Args:
            names: name and parent's process id of all that the profiler's process stands above, by process id.
            now: the time, s.
            asked: the program was asked to end, so nothing is waited for that it has left.
        """
        for pid, (name, above) in names.items():
            if above in names and above not in self._programs and not name.startswith("nsys"):
                with suppress(psutil.Error):
                    self.note(psutil.Process(pid))
        left = self._left(names)
        if not left:
            self._since = None
            return
        if self._since is None:
            self._since = now  # what is just ending is not told of
            return
        words = _listed([f"{names[process.pid][0]} ({process.pid})" for process in left])
        if not self._told:
            self._told = True
            self._tell(
                f"the program has ended and left {words} running: the capture goes on with it for {self._limit_s:g} s at "
                "most (--finish); Ctrl-C ends it now"
            )
        if now - self._since <= self._limit_s and not asked:
            return
        self.ended = self.ended or words
        if self._terminated_at is None:
            self._terminated_at = now
        hard = now - self._terminated_at > self._grace_s
        for process in left:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
                process.send_signal(signal.SIGCONT)  # one that is stopped hears nothing else

    def _left(self, names: Mapping[int, tuple[str, int]]) -> list[psutil.Process]:
        without = {launcher for launcher, program in self._programs.items() if program.pid not in names}
        left = []
        for pid, (name, above) in names.items():
            if name.startswith("nsys"):  # its own, such as what copies the program's output
                continue
            while above in names and above not in without:
                above = names[above][1]
            if above in names:
                with suppress(psutil.Error):
                    left.append(psutil.Process(pid))
        return left


def _listed(words: Sequence[str]) -> str:
    more = len(words) - _LISTED
    return ", ".join(words[:_LISTED]) + (f" and {more} more" if more > 0 else "")
