"""Start a program in a process group of its own, log it, time it out, end it in order, and reap what is left.

The order matters under a profiler: whoever ends nsys loses the report. So Ctrl-C, SIGTERM and a time-out end the
*profiled program* first and let nsys write its report; only a second Ctrl-C ends everything.
"""

from __future__ import annotations

import os
import shutil
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

__all__ = [
    "TARGET_MARK",
    "EndedBy",
    "Interrupts",
    "Outcome",
    "Target",
    "marked_processes",
    "process_began",
    "reap",
    "run_process",
    "with_target_mark",
]

EndedBy: TypeAlias = Literal["itself", "timeout", "interrupt", "over"]

TARGET_MARK: Final = "DSOCR_PROFILE_TARGET"
"""Set in the environment of a profiled program, and not in that of the nsys around it."""

Target: TypeAlias = Sequence[str] | str
"""How the profiled program is known: by its command line, as the kernel shows it, or by its value of `TARGET_MARK`."""

_POLL_S: Final = 0.05


@frozen
class _Signal:
    """One of those that end a program."""

    number: signal.Signals
    to_all: bool = False
    """To everything that the program started too, such as the server that a shell script started."""


_GENTLY: Final = (_Signal(signal.SIGTERM), _Signal(signal.SIGKILL))
_SIGNALS: Final[dict[EndedBy, tuple[_Signal, ...]]] = {
    "timeout": (_Signal(signal.SIGTERM), _Signal(signal.SIGTERM, True), _Signal(signal.SIGKILL, True)),
    "interrupt": (_Signal(signal.SIGTERM), _Signal(signal.SIGTERM, True), _Signal(signal.SIGKILL, True)),
    "over": (_Signal(signal.SIGINT), _Signal(signal.SIGTERM, True), _Signal(signal.SIGKILL, True)),
}
"""What a program is sent, one after the other, each after it had time to end. Servers end on Ctrl-C."""


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
    target: Target | None = None,
    deadline: float | None = None,
    grace_s: float = 10.0,
    finish_s: float = 600.0,
    umask: int = -1,
    watch: Callable[[], None] | None = None,
    over: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run a program to its end.

    Args:
        argv: the program, such as nsys with its arguments.
        env: its whole environment; if it holds `RUN_MARK`, nothing with that mark outlives this call.
        log: file for its standard output and error, appended to.
        interrupts: the signals that arrived so far; those from before the start count too.
        cwd: working directory.
        target: the profiled program inside; None: ``argv`` itself is it.
        deadline: on ``time.monotonic()``'s clock; None: no limit.
        grace_s: how long the target may take to end after a signal before it is sent a harder one.
        finish_s: how long the rest (nsys) may take after its target has ended.
        umask: file mode mask of the program; -1: unchanged.
        watch: called again and again while the program runs, such as to show how far it is.
        over: asked again and again; true: the program, such as a server, has nothing left to do and is to be ended.

    Raises:
        CaptureError: it cannot be started.
    """
    started = time.monotonic()
    process = _start(argv, env=env, log=log, cwd=cwd, umask=umask)
    ended_by: EndedBy = "itself"
    gave_up = False
    mark = env.get(RUN_MARK)
    profiled = _Profiled(process, target, mark)
    asked_at: float | None = None
    sent = 0
    interrupted_before = interrupts.count
    try:
        while process.poll() is None:
            now = time.monotonic()
            if watch is not None:
                watch()
            profiled.look()
            reason = ended_by
            if asked_at is None or ended_by == "over":  # Ctrl-C also cuts the patience with a server short
                if interrupts.count > (0 if asked_at is None else interrupted_before):
                    reason = "interrupt"
                elif deadline is not None and now >= deadline:
                    reason = "timeout"
                elif asked_at is None and over():
                    reason = "over"
            if reason != ended_by:
                ended_by, asked_at, sent, interrupted_before = reason, now, 0, interrupts.count
            if asked_at is not None:
                # A program of ours ends its own children.
                signals = _SIGNALS[ended_by] if isinstance(target, str) or ended_by == "over" else _GENTLY
                if (sent == 0 or now - asked_at > sent * grace_s) and sent < len(signals):
                    # The first one is sent until it meets the program, which may still be coming up.
                    sent += profiled.send(signals[sent]) or sent > 0
                if (
                    (not profiled.seen and now - asked_at > grace_s)
                    or interrupts.count > interrupted_before
                    or now - asked_at > (len(signals) - 1) * grace_s + finish_s
                ):  # it never came up: there is nothing to save
                    gave_up = True
                    _signal_group(process.pid, signal.SIGKILL)
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
        target_seen=profiled.seen,
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
                [*_ending_with_us(argv, env), *argv],
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


def _ending_with_us(argv: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """Give the command by which a program gets a signal when we die, even of SIGKILL; () where there is none.

    ``setpriv`` becomes the program, so no process is added. ``unshare`` leaves SIGTERM to the program inside and takes
    everything in its namespace along when it is killed.
    """
    setpriv = shutil.which("setpriv", path=env.get("PATH"))
    if setpriv is None or shutil.which(argv[0], path=env.get("PATH")) is None:  # Popen says best that it is not there
        return ()
    return (setpriv, "--pdeathsig", "KILL" if "--kill-child" in argv else "TERM", "--")


class _Profiled:
    """The profiled program among a run's processes, found again and again; under ranks there are several."""

    def __init__(self, process: subprocess.Popen[bytes], target: Target | None, mark: str | None) -> None:
        self.seen = target is None
        self._process = process
        self._target = target
        self._mark = mark
        self._known: dict[int, psutil.Process] = {}
        """By process id. A program may overwrite the environment that it was known by, so it is remembered."""

    def look(self) -> None:
        """Look for it, unless it was seen."""
        if not self.seen:
            self._find()

    def send(self, what: _Signal) -> bool:
        """Signal it, or the whole group where it is the process itself, and say whether it was there.

        Ctrl-C goes to the process alone: a server ends its workers itself.
        """
        if self._target is None:
            if what.number == signal.SIGINT:
                self._process.send_signal(what.number)
            else:
                _signal_group(self._process.pid, what.number)
            return True
        # If it is gone already nsys is writing, and must be left alone.
        there = self._find()
        if what.to_all and isinstance(self._target, str):
            there += [process for process in _marked_targets(self._target, self._mark) if process not in there]
        for process in there:
            _send(process, what.number)
        return bool(there)

    def _find(self) -> list[psutil.Process]:
        target = self._target
        if isinstance(target, str):
            marked = _first_of(_marked_targets(target, self._mark))
            known = {pid for pid, process in self._known.items() if process.is_running()}
            for process in marked:
                with suppress(psutil.Error):
                    if not known.intersection(parent.pid for parent in process.parents()):
                        self._known.setdefault(process.pid, process)
            there = [process for process in self._known.values() if _alive(process)]
        elif target is not None:
            there = _targets(self._process.pid, target, self._mark)
        else:
            there = []
        self.seen = self.seen or bool(there)
        return there


def with_target_mark(command: Sequence[str], value: str) -> list[str]:
    """Give the command line that starts a program so that it is known by ``value`` (see `Target`).

    ``env`` becomes the program: no process is added, whatever the program calls itself later.
    """
    return ["env", f"{TARGET_MARK}={value}", *command]


def _alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    return False


def _marked_targets(value: str, mark: str | None) -> list[psutil.Process]:
    """The processes with this value of `TARGET_MARK`: a program and all that it started."""
    marked = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            environment = process.environ()
            if environment.get(TARGET_MARK) == value and (mark is None or environment.get(RUN_MARK) == mark):
                marked.append(process)
    return marked


def _first_of(marked: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that none of the others started."""
    pids = {process.pid for process in marked}
    first = []
    for process in marked:
        with suppress(psutil.Error):
            if process.ppid() not in pids:
                first.append(process)
    return first


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


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Signal a whole process group at once, which psutil cannot: a member that forks meanwhile does not escape."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(
        psutil.Error
    ):  # ended meanwhile (psutil sees that a process id was taken by another), or another user's
        process.send_signal(number)
