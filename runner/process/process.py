"""Start a program in a process group of its own, log it, time it out, end it in order, and reap what is left.

The order matters under a profiler: whoever ends nsys loses the report. So Ctrl-C, SIGTERM and a time-out end the
*profiled program* first and let nsys write its report; only a second Ctrl-C ends everything.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Final, Literal, TypeAlias

import psutil
from attrs import frozen

from analysis.domain.errors import CaptureError
from runner.process.environment import RUN_MARK

__all__ = ["EndedBy", "Interrupts", "Outcome", "marked_processes", "process_began", "reap", "run_process"]

EndedBy: TypeAlias = Literal["itself", "timeout", "interrupt"]

_POLL_S: Final = 0.05


@frozen
class Outcome:
    """How a process ended."""

    returncode: int
    """Negative: ended by that signal."""
    ended_by: EndedBy = "itself"
    gave_up: bool = False
    """A second interrupt, or nsys not finishing in time: it was killed and its report may be lost."""
    target_seen: bool = False
    """The profiled program was seen to run."""
    elapsed_s: float = 0.0


class Interrupts:
    """Count SIGINT and SIGTERM instead of dying of them, while the context lasts."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave us

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


def run_process(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    interrupts: Interrupts,
    cwd: Path | None = None,
    target: Sequence[str] | None = None,
    deadline: float | None = None,
    grace_s: float = 10.0,
    finish_s: float = 600.0,
    umask: int = -1,
    watch: Callable[[], None] | None = None,
) -> Outcome:
    """Run a program to its end.

    Args:
        argv: the program, such as nsys with its arguments.
        env: its whole environment; if it holds `RUN_MARK`, nothing with that mark outlives this call.
        log: file for its standard output and error, appended to.
        interrupts: the signals that arrived so far; those from before the start count too.
        cwd: working directory.
        target: command line of the profiled program inside, as the kernel shows it; None: ``argv`` itself is it.
        deadline: on ``time.monotonic()``'s clock; None: no limit.
        grace_s: how long the target may take to end after SIGTERM before it is killed.
        finish_s: how long the rest (nsys) may take after its target has ended.
        umask: file mode mask of the program; -1: unchanged.
        watch: called again and again while the program runs, such as to show how far it is.

    Raises:
        CaptureError: it cannot be started.
    """
    started = time.monotonic()
    process = _start(argv, env=env, log=log, cwd=cwd, umask=umask)
    ended_by: EndedBy = "itself"
    gave_up = False
    target_seen = target is None
    asked_at: float | None = None
    asked_target = killed_target = False
    interrupted_before = interrupts.count
    mark = env.get(RUN_MARK)
    try:
        while process.poll() is None:
            now = time.monotonic()
            if watch is not None:
                watch()
            if not target_seen and target is not None:
                target_seen = bool(_targets(process.pid, target, mark))
            if asked_at is None:
                if interrupts.count:
                    ended_by = "interrupt"
                elif deadline is not None and now >= deadline:
                    ended_by = "timeout"
                if ended_by != "itself":
                    asked_at = now
                    interrupted_before = interrupts.count
            if asked_at is not None:
                if not asked_target:
                    asked_target = _signal_target(process, target, mark, signal.SIGTERM)
                    target_seen = target_seen or asked_target
                if (
                    (not target_seen and now - asked_at > grace_s)
                    or interrupts.count > interrupted_before
                    or now - asked_at > grace_s + finish_s
                ):  # it never came up: there is nothing to save
                    gave_up = True
                    _signal_group(process.pid, signal.SIGKILL)
                elif now - asked_at > grace_s and not killed_target:
                    killed_target = True
                    _signal_target(process, target, mark, signal.SIGKILL)
            try:
                process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()
        if mark is not None:
            reap(mark)
    return Outcome(
        returncode=process.returncode,
        ended_by=ended_by,
        gave_up=gave_up,
        target_seen=target_seen,
        elapsed_s=time.monotonic() - started,
    )


def process_began() -> float:
    """When this process was started, on ``time.monotonic()``'s clock; imports are behind it."""
    return time.monotonic() - max(0.0, time.time() - psutil.Process().create_time())


def marked_processes(mark: str) -> list[psutil.Process]:
    """Find the processes that a run started and that still run.

    Processes of other users cannot be read and are skipped; so are zombies, which have no environment any more.
    """
    marked = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(RUN_MARK) == mark:
                marked.append(process)
    return marked


def reap(mark: str, *, patience_s: float = 5.0) -> list[int]:
    """End every process that carries a run's mark: SIGTERM, then SIGKILL.

    Returns:
        The process ids that had to be ended.
    """
    first = marked_processes(mark)
    left = first
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in left:
            _send(process, number)
        # Looked for anew each time: what ends may have started others, which psutil.wait_procs would not know of.
        until = time.monotonic() + patience_s
        while (left := marked_processes(mark)) and time.monotonic() < until:
            time.sleep(_POLL_S)
        if not left:
            break
    return [process.pid for process in first]


def _start(
    argv: Sequence[str], *, env: Mapping[str, str], log: Path, cwd: Path | None, umask: int
) -> subprocess.Popen[bytes]:
    try:
        output: IO[bytes] = log.open("ab")
    except OSError as error:
        raise CaptureError(f"{log}: cannot be written ({error.strerror})") from error
    with output:
        try:
            return subprocess.Popen(
                list(argv),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=umask,
            )
        except OSError as error:
            raise CaptureError(f"{argv[0]}: cannot be started ({error.strerror})") from error


def _targets(pid: int, target: Sequence[str], mark: str | None) -> list[psutil.Process]:
    """The profiled program among a run's processes (else below ``pid``): its command line is exactly ``target``."""
    try:
        candidates = psutil.Process(pid).children(recursive=True) if mark is None else marked_processes(mark)
    except psutil.Error:  # ended meanwhile
        return []
    targets = []
    for process in candidates:
        with suppress(psutil.Error):
            if process.cmdline() == list(target):
                targets.append(process)
    return targets


def _signal_target(
    process: subprocess.Popen[bytes], target: Sequence[str] | None, mark: str | None, number: signal.Signals
) -> bool:
    """Signal the profiled program; the whole group where it is the process itself. Say whether it was there."""
    if target is None:
        _signal_group(process.pid, number)
        return True
    # If it is gone already nsys is writing, and must be left alone.
    targets = _targets(process.pid, target, mark)
    for target_process in targets:
        _send(target_process, number)
    return bool(targets)


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Signal a whole process group at once, which psutil cannot: a member that forks meanwhile does not escape."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(
        psutil.Error
    ):  # ended meanwhile (psutil sees that a process id was taken by another), or another user's
        process.send_signal(number)
