"""A process, named so that nobody takes another for it: by its number, when it began, and where it has that number.

A number alone is given to another process when the first has ended, and means another process in a container or on another
machine that has the same disk.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from attrs import frozen

__all__ = ["LAUNCHER_MARK", "UNKNOWN_PROCESS", "ProcessMark", "namespace_of", "start_of"]

LAUNCHER_MARK: Final = "DSOCR_PROFILE_LAUNCHER"
"""Set beside `RUN_MARK` to the launcher's process, so that it can be told whether it still lives (a `ProcessMark`)."""

_FORM: Final = re.compile(r"([0-9]{1,10})(?::([0-9]{0,20}):([0-9a-f.-]{0,64})(?::([a-z]{1,16}))?)?")
"""Linux' largest process id has seven digits. A number alone: of an older version."""
_LONGEST: Final = 128


@frozen
class ProcessMark:
    """The process."""

    process: int
    """Its number in its namespace; 0: not known."""
    started: int | None = None
    """In ticks since the machine's start; None: not known."""
    namespace: str = ""
    """See `namespace_of`; empty: not known."""
    role: str = ""
    """What it holds a lock for, where that matters."""

    @classmethod
    def own(cls, role: str = "") -> ProcessMark:
        """Name this process."""
        pid = os.getpid()
        return cls(pid, start_of(pid), namespace_of(pid), role)

    @classmethod
    def read(cls, text: str) -> ProcessMark | None:
        """Read what `str` gave; None: it is none."""
        parts = _FORM.fullmatch(text[:_LONGEST].strip())
        if parts is None or not int(parts[1]):
            return None
        return cls(int(parts[1]), int(parts[2]) if parts[2] else None, parts[3] or "", parts[4] or "")

    def __str__(self) -> str:
        """Give it as text, in one word."""
        text = f"{self.process}:{'' if self.started is None else self.started}:{self.namespace}"
        return f"{text}:{self.role}" if self.role else text

    @property
    def is_here(self) -> bool:
        """Whether its number means the same process here, as far as that can be told."""
        return not self.namespace or self.namespace == namespace_of(os.getpid())

    def is_gone(self) -> bool:
        """Whether it is known to live no more; of one elsewhere nothing is known."""
        known = self.process and self.started is not None and self.namespace and self.is_here
        return bool(known) and start_of(self.process) != self.started

    def words(self) -> str:
        """Name it for a message: ``process 4711``."""
        if not self.process:
            return "process unknown"
        here = namespace_of(os.getpid())
        if self.is_here or not here:
            return f"process {self.process}"
        elsewhere = self.namespace.partition(".")[0] != here.partition(".")[0]
        where = "another machine" if elsewhere else "another PID namespace, such as a container's"
        return f"process {self.process} of {where}"


UNKNOWN_PROCESS: Final = ProcessMark(0)


def start_of(pid: int) -> int | None:
    """When a process began, in ticks since the machine's start; None: there is no such process, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return int(fields[19]) if len(fields) > 19 and fields[0] not in (b"Z", b"X") else None


def namespace_of(pid: int) -> str:
    """Where a process has its id: the machine, by its start, and the namespace of process ids; empty: it cannot be told.

    The first namespace has the same number on all machines.
    """
    try:
        namespace = str(Path(f"/proc/{pid}/ns/pid").readlink()).strip("pid:[]")
    except OSError:
        return ""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    return f"{machine}.{namespace}"
