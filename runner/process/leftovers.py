"""What is left of runs whose launcher was killed: found by its marks, and ended in order.

A supervisor ends its program when the launcher dies (`runner.process.supervise`). This is for the time until it has, and
for what is left where the supervisor was killed too.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import psutil
from attrs import frozen

from runner.process.environment import RUN_MARK
from runner.process.process import TARGET_MARK, TOOL_NAMES
from runner.process.process_mark import LAUNCHER_MARK, ProcessMark
from runner.process.supervised import is_supervisor

__all__ = ["Leftover", "end_leftovers", "find_leftovers", "is_stopped", "is_without_launcher"]

_MARK_ENDINGS: Final = ("-control",)
_MARK_BEGINNINGS: Final = ("review-",)
"""Marks of a run's parts are its id with these around it."""
_GRACE_S: Final = 10.0
_FINISH_S: Final = 60.0
_SUPERVISED_S: Final = 180.0
_PATIENCE_S: Final = 5.0
_POLL_S: Final = 0.1


@frozen
class Leftover:
    """What is left of one run."""

    run_id: str
    processes: tuple[psutil.Process, ...]
    """Without supervisors."""
    supervisors: tuple[psutil.Process, ...]
    """They are ending it already."""

    def words(self) -> str:
        """Say what it is, in one line: ``run 1234abcd: its launcher is gone, and python (4711), nsys (4712) go on``."""
        named = []
        for process in self.processes or self.supervisors:
            with suppress(psutil.Error):
                named.append(f"{process.name()} ({process.pid})")
        listed = ", ".join(named[:4]) + (f" and {len(named) - 4} more" if len(named) > 4 else "")
        goes = "goes" if len(named) == 1 else "go"
        what = "a probe of a profiler" if self.run_id.startswith("probe-") else f"run {self.run_id[:8]}"
        return f"{what}: its launcher is gone, and {listed or 'a process of it'} {goes} on"


def find_leftovers(run_id: str | None = None) -> tuple[Leftover, ...]:
    """Find processes of runs whose launcher does not live any more.

    Args:
        run_id: of the run that is asked about; None: any run.

    Returns:
        A record per run; processes of other users, and of launchers in another namespace of process ids (a container),
        are not looked at.
    """
    left_over: dict[str, tuple[list[psutil.Process], list[psutil.Process]]] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            environment = process.environ()
            mark, launcher = environment.get(RUN_MARK), environment.get(LAUNCHER_MARK, "")
            if mark is None or (run_id is not None and _run_of(mark) != run_id):
                continue
            supervisor = is_supervisor(process)
            # A supervisor has the mark that its program gets.
            if process.pid != os.getpid() and _is_gone(launcher):
                left_over.setdefault(_run_of(mark), ([], []))[supervisor].append(process)
    return tuple(Leftover(name, tuple(others), tuple(ours)) for name, (others, ours) in left_over.items())


def end_leftovers(run_id: str | None = None, *, say: Callable[[str], None]) -> tuple[Leftover, ...]:
    """End what is left of runs whose launcher is gone: the program first, so that nsys can write its report.

    It takes four minutes at most; what is left then does not end at SIGKILL either, and is said.

    Args:
        run_id: of one run; None: of any run.
        say: takes one line for the user.

    Returns:
        What was found; empty: nothing was left.
    """
    left_over = find_leftovers(run_id)
    for leftover in left_over:
        say(f"{leftover.words()}; ending it")
        _end(leftover)
        left = [each for each in find_leftovers(leftover.run_id) if each.processes]
        if left:
            say(f"{left[0].words()}: it does not end, not even by SIGKILL")
    return left_over


def _end(leftover: Leftover) -> None:
    for supervisor in leftover.supervisors:
        _send(supervisor, signal.SIGTERM)
    if leftover.supervisors and _until_gone(leftover.supervisors, _SUPERVISED_S):
        return
    programs = [process for process in leftover.processes if not _is_tool(process)]
    marked = [process for process in programs if _has_target_mark(process)]
    for process in marked or programs:
        _send(process, signal.SIGTERM)
    if not _until_gone(programs, _GRACE_S):
        for process in programs:
            _send(process, signal.SIGKILL)
    _until_gone(leftover.processes, _FINISH_S)
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = [process for again in find_leftovers(leftover.run_id) for process in again.processes + again.supervisors]
        if not left:
            return
        for process in left:
            _send(process, number)
        _until_gone(left, _PATIENCE_S)


def is_without_launcher(holder: ProcessMark) -> bool:
    """Whether what holds a lock only does so because its launcher was killed, and does not act by itself.

    It is a supervisor that was stopped: one that acts has put its own name into the lock, and ends its program.
    """
    if holder.is_gone():
        return True
    if not holder.process or not holder.is_here:
        return False
    with suppress(psutil.Error):
        process = psutil.Process(holder.process)
        return is_supervisor(process) and is_stopped(process)
    return False


def is_stopped(process: psutil.Process) -> bool:
    """Whether a process was stopped by a signal, and does nothing until it gets another."""
    with suppress(psutil.Error):
        return bool(process.status() == psutil.STATUS_STOPPED)
    return False


def _run_of(mark: str) -> str:
    for beginning in _MARK_BEGINNINGS:
        mark = mark.removeprefix(beginning)
    for ending in _MARK_ENDINGS:
        mark = mark.removesuffix(ending)
    return mark


def _is_gone(launcher: str) -> bool:
    """Whether a launcher, as its mark names it, lives no more; one that cannot be judged from here does."""
    mark = ProcessMark.read(launcher)
    return mark is not None and mark.is_gone()


def _is_tool(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.name().startswith((*TOOL_NAMES, "unshare"))
    return False


def _has_target_mark(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return TARGET_MARK in process.environ()
    return False


def _until_gone(processes: Sequence[psutil.Process], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while any(_runs(process) for process in processes):
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_S)
    return True


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    return False


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.Error):
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
