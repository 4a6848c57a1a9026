"""Whether nsys itself ended before its time: then it is not the profiled program that failed."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from analysis.domain.ended import ended_in_words
from runner.collectors.nsys.tool import NsysTool
from runner.process.limits import low_limits_note
from runner.process.process import Outcome
from runner.process.room import RoomWatch

__all__ = [
    "FAILED_ITSELF",
    "death_of_nsys",
    "fault_of_nsys",
    "room_for_nsys",
    "set_failed_start_aside",
]

FAILED_ITSELF: Final = "itself failed, and not the program"
"""Stands in what is said of an nsys that nobody killed."""

_LOST: Final = {
    "Connection to the Agent lost": "lost its agent, the process that collects the events",
    "Invalid truncate size": "found no room for its first file",
    # util-linux 2.38 stumbles over the signal that it means to pass on, and ends with 1.
    "unshare: sigprocmask unblock failed": "was ended by a signal, such as that of the kernel's out-of-memory killer",
}
"""What nsys 2022.4 and what starts it print when a part of it is killed, and what that means."""
_NOT_STARTED: Final = {
    re.compile("Agent launcher failed"): "could not start its agent, the process that collects the events",
    re.compile("boost::process::process_error"): "could not start a process of its own",
    re.compile(r"/build/agent/work/\S*/AgentAPI/|.*is canceled because the timeout period is expired"): (
        "got no answer of its agent in time"
    ),
}
"""What it prints when it fails of itself before it starts the program, and what that means."""
_FAILED: Final = {
    re.compile("State transition is not allowed"): "stumbled over a state of its own",
    re.compile("FATAL ERROR: (?=.*(QuadD|Throw location unknown))"): "crashed",
}
"""What it prints when it fails of itself at any time."""
_TAIL_BYTES: Final = 4096
_SHARED_MEMORY: Final = Path("/dev/shm")


def room_for_nsys(run_dir: Path, env: Mapping[str, str], also: Callable[[], None] | None = None) -> RoomWatch:
    """Watch the disks that nsys writes to: it collects in its temporary folder, and only the report goes to the run's.

    Args:
        run_dir: of the run.
        env: environment of nsys.
        also: called with each look.
    """
    return RoomWatch((run_dir, Path(env.get("TMPDIR") or tempfile.gettempdir())), also)


def fault_of_nsys(tool: NsysTool, outcome: Outcome, log: Path, room: RoomWatch) -> str | None:
    """Say what kept nsys from its part: a full disk, or that it was killed; None: nothing that is known of."""
    nsys = f"nsys {tool.version}"
    full = room.words()
    if full is not None:
        return f"{nsys}: {full}"
    death = death_of_nsys(outcome, log)
    return None if death is None else f"{nsys} {death}{_cut_short(tool)}"


def _cut_short(tool: NsysTool) -> str:
    """Name the shared memory of all of this version's where it is empty: none of them can start its agent then.

    Seen after an nsys that was not allowed to write files of that size (``ulimit -f``).
    """
    segment = _SHARED_MEMORY / f"NSys-{tool.version}"
    try:
        is_empty = segment.stat().st_size == 0
    except OSError:
        return ""
    return f"; {segment} is empty, and with that none can start: remove it when no nsys runs" if is_empty else ""


def death_of_nsys(outcome: Outcome, log: Path) -> str | None:
    """Say in words how nsys ended before its time.

    nsys gives its program's exit code, and 128 and the number of a signal that ended the program: so an exit of nsys that
    is itself a signal's is its own.

    Args:
        outcome: of ``nsys profile``.
        log: its output, in which the program's is too.

    Returns:
        None: it ended in order, or was ended by us.
    """
    if outcome.ended_by not in ("itself", "over") or outcome.lost_supervisor:  # it was ended with its supervisor
        return None
    if outcome.returncode < 0 and not outcome.gave_up:
        return ended_in_words(outcome.returncode)
    lines = _last_lines(log)
    lost = next((what for words, what in _LOST.items() if any(line.startswith(words) for line in lines)), None)
    if lost is not None:
        return lost
    for pattern, what in (_NOT_STARTED | _FAILED).items():
        if any(pattern.match(line) for line in lines):
            limits = low_limits_note()
            remedy = "raise them, then run it again" if limits else "run it again"
            return (
                f"{FAILED_ITSELF}: it {what} (seen now and then when several nsys run at once, and where limits are "
                f"low{limits}); {remedy}"
            )
    return None


def set_failed_start_aside(outcome: Outcome, log: Path, room: RoomWatch) -> Path | None:
    """Make way for another start of nsys, which left no report, where it failed of itself before it started the program.

    Args:
        outcome: of ``nsys profile``.
        log: its output; it gets another name.
        room: of its files.

    Returns:
        The log under its other name; None: it is not to be started again.
    """
    if room.full is not None or not _failed_before_the_program(outcome, log):
        return None
    return log.replace(log.with_name(f"{log.stem}-failed.log"))


def _failed_before_the_program(outcome: Outcome, log: Path) -> bool:
    """Whether nsys failed of itself, and had not started the program: then it may be started again, as nothing has happened.

    Args:
        outcome: of ``nsys profile``, which left no report.
        log: its output.
    """
    if outcome.ended_by != "itself" or outcome.target_seen or outcome.returncode < 0:
        return False
    lines = _last_lines(log)
    return any(pattern.match(line) for pattern in _NOT_STARTED for line in lines)


def _last_lines(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    return [line.strip() for line in tail.splitlines()]
