"""Start a program in a process group of its own, log it, time it out, end it in order, and reap what is left.

The order matters under a profiler: whoever ends nsys loses the report. So Ctrl-C, SIGTERM and a time-out end the
*profiled program* first and let nsys write its report; only a second Ctrl-C ends everything.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Literal, TypeAlias

import psutil
from attrs import frozen

from analysis.domain.ended import interrupted_by
from runner.plan.settings import FINISH_S
from runner.process.environment import RUN_MARK, clean_log
from runner.process.left_running import LAUNCHER_NAME, LeftRunning
from runner.process.process_mark import LAUNCHER_MARK, ProcessMark
from runner.process.supervised import SupervisedProcess, is_supervisor

__all__ = [
    "AFTER_TIMEOUT_S",
    "APPEAR_S",
    "TARGET_MARK",
    "TOOL_NAMES",
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

EndedBy: TypeAlias = Literal["itself", "timeout", "interrupt", "over", "stuck"]
"""``stuck``: the profiler did not start the program, or did not end after it, and was interrupted, then killed."""

APPEAR_S: Final = 180.0
"""How long a profiler may take to start the program."""

TARGET_MARK: Final = "DSOCR_PROFILE_TARGET"
"""Set in the environment of a profiled program, and not in that of the nsys around it."""

Target: TypeAlias = Sequence[str] | str
"""How the profiled program is known: by its command line, as the kernel shows it, or by its value of `TARGET_MARK`."""

_POLL_S: Final = 0.05
_LOOK_S: Final = 1.0
_LISTEN_S: Final = 0.5
_IDLE_S: Final = 60.0
_IDLE_SHARE: Final = 0.02
"""A profiler that uses less of a core than this for so long, and writes nothing, hangs."""
_LOST_S: Final = 3.0
"""The program without it for so long: it was killed. nsys would not hear of the program's end any more."""
_LOST_IDLE_S: Final = 5.0
"""Without it and without the program nsys may do nothing for so long: what it has, it would be writing."""
_ASKED_IDLE_S: Final = 20.0
"""A profiler whose program was ended by us may do nothing for so long."""
_RESCUE_S: Final = 60.0
"""nsys that was interrupted may take so long to write what it has."""
_RESCUE_IDLE_S: Final = 5.0
"""And so long without doing anything."""
TOOL_NAMES: Final = ("nsys", "QdstrmImporter", "ncu")
"""How names of the profilers' own processes begin."""


AFTER_TIMEOUT_S: Final = 120.0
"""When a run's time is over, what it captured by then may still be written and exported for so long."""


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
    waited_s: float = 0.0
    """Where it is ``stuck``: for how long the profiler was waited for."""
    interrupted: str = "interrupted"
    """Where it is an ``interrupt``: what it was, in words."""
    lost_part: str | None = None
    """Where it is ``stuck``: the part of the profiler that was killed under it; None: none that is known of."""
    lost_supervisor: bool = False
    """The process of ours around it was killed, and it with that: what ended it is not its own doing, nor the profiler's."""
    left_running: str | None = None
    """What the program had left running and was ended after it, in words; None: nothing was."""


class Interrupts:
    """Count SIGINT, SIGTERM, SIGHUP and SIGQUIT instead of dying of them, while the context lasts.

    SIGTERM and SIGHUP count once, however often they come: they ask for an end in order, two `cancel`s ask for no more than
    one, and of a terminal that is closed the kernel tells as well as the shell.
    So does a word that somebody leaves from where no signal comes, such as outside of this container (`listen`).
    """

    def __init__(self) -> None:
        self._count = 0
        self._asks: list[Callable[[], bool]] = []
        self._listened = -math.inf
        self.deadline: float | None = None
        """When the whole that they interrupt must be over, waiting included, on ``time.monotonic()``'s clock; None: no limit."""
        self.words = interrupted_by(None)
        """What came first, in words: "interrupted", or "ended by" a signal."""
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            # Started in the background of a shell without job control: what is ignored stays so, as in `analysis.domain.ending`.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave us

    @property
    def count(self) -> int:
        """How often it was asked for the end so far."""
        if not self._count and self._asks and time.monotonic() - self._listened >= _LISTEN_S:
            self._listened = time.monotonic()
            if any(asks() for asks in self._asks):
                self._count = max(self._count, 1)
        return self._count

    @count.setter
    def count(self, count: int) -> None:
        self._count = count

    def listen(self, asks: Callable[[], bool]) -> None:
        """Count it once, as SIGTERM, when ``asks`` says true; it is asked whenever the count is looked at, but seldom."""
        self._asks.append(asks)

    def is_late(self, beyond_s: float = 0.0) -> bool:
        """Whether the deadline is over, and so many seconds more."""
        return self.deadline is not None and time.monotonic() >= self.deadline + beyond_s

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self._count:
            self.words = interrupted_by(number)
        self._count = max(self._count, 1) if number in (signal.SIGTERM, signal.SIGHUP) else self._count + 1


def run_process(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    interrupts: Interrupts,
    cwd: Path | None = None,
    target: Target | None = None,
    deadline: float | None = None,
    beyond_s: float = 0.0,
    grace_s: float = 10.0,
    appear_s: float = APPEAR_S,
    finish_s: float = FINISH_S,
    umask: int = -1,
    clean: bool = True,
    watch: Callable[[], None] | None = None,
    over: Callable[[], bool] | None = None,
    tell: Callable[[str], None] = lambda words: None,
    ended: Callable[[], None] | None = None,
) -> Outcome:
    """Run a program to its end.

    Args:
        argv: the program, such as nsys with its arguments.
        env: its whole environment; if it holds `RUN_MARK`, nothing with that mark outlives this call.
        log: file for its standard output and error, appended to.
        interrupts: the signals that arrived so far; those from before the start count too.
        cwd: working directory.
        target: the profiled program inside; None: ``argv`` itself is it.
        deadline: on ``time.monotonic()``'s clock; None: no limit but that of ``interrupts``.
        beyond_s: how long after the limit of ``interrupts`` it may go on, such as to save what was captured by then.
        grace_s: how long the target may take to end after a signal before it is sent a harder one.
        appear_s: how long the rest (nsys) may take to start its target.
        finish_s: how long it may take after its target has ended. Where it does no work, a minute is enough for both.
        umask: file mode mask of the program; -1: unchanged.
        clean: take secrets out of the log when the program has ended.
        watch: called again and again while the program runs, such as to show how far it is.
        over: asked again and again; true: the program, such as a server, has nothing left to do and is to be ended. None: the
            program ends by itself, and what it leaves running has ``finish_s`` for it.
        tell: is told of what the program leaves running.
        ended: called once when the program has ended by itself, though its profiler may be at work still.

    Raises:
        CaptureError: it cannot be started.
    """
    started = time.monotonic()
    mark = env.get(RUN_MARK)
    process = SupervisedProcess.start(
        argv,
        env=env if mark is None else {**env, LAUNCHER_MARK: str(ProcessMark.own())},
        log=log,
        cwd=cwd,
        umask=umask,
        target=f"{TARGET_MARK}={target}" if isinstance(target, str) else target,
        grace_s=grace_s,
    )
    ended_by: EndedBy = "itself"
    gave_up = False
    left = None
    if isinstance(target, str) and over is None:
        left = LeftRunning(limit_s=finish_s, grace_s=grace_s, tell=tell)
    profiled = _Profiled(process, target, mark, left)
    patience = _Patience(process.pid, appear_s=appear_s, finish_s=finish_s, left=left)
    asked_at: float | None = None
    rescue: _Rescue | None = None
    waited_s = 0.0
    sent = 0
    gone = False
    interrupted_before = interrupts.count
    try:
        while process.poll() is None:
            now = time.monotonic()
            if watch is not None:
                watch()
            profiled.look()
            if ended is not None and not gone and asked_at is None and profiled.has_ended():
                gone = True
                ended()
            reason = ended_by
            if asked_at is None or ended_by == "over":  # Ctrl-C also cuts the patience with a server short
                if interrupts.count > (0 if asked_at is None else interrupted_before):
                    reason = "interrupt"
                elif (deadline is not None and now >= deadline) or interrupts.is_late(beyond_s):
                    reason = "timeout"
                elif asked_at is None and over is not None and over():
                    reason = "over"
            if reason != ended_by:
                ended_by, asked_at, sent, interrupted_before = reason, now, 0, interrupts.count
            if asked_at is not None and ended_by != "stuck":
                # A program of ours ends its own children.
                signals = _SIGNALS[ended_by] if isinstance(target, str) or ended_by == "over" else _GENTLY
                if (sent == 0 or now - asked_at > sent * grace_s) and sent < len(signals):
                    # The first one is sent until it meets the program, which may still be coming up.
                    sent += profiled.send(signals[sent]) or sent > 0
                if (
                    (not profiled.seen and now - asked_at > grace_s)
                    or interrupts.count > interrupted_before
                    or now - asked_at
                    > (len(signals) - 1) * grace_s
                    + (min(finish_s, AFTER_TIMEOUT_S) if ended_by == "timeout" else finish_s)
                ):  # it never came up: there is nothing to save
                    gave_up = True
                    process.end_now()
                    break
            if rescue is None and target is not None and patience.is_over(profiled, now, asked=asked_at is not None):
                ended_by = "stuck" if ended_by in ("itself", "over") else ended_by
                waited_s = patience.alone_s(now)
                rescue = _Rescue(process, profiled, now, grace_s=grace_s)
            if rescue is not None and (interrupts.count > interrupted_before or not rescue.go_on(now)):
                gave_up = True
                process.end_now()
                break
            process.wait(_POLL_S)
    finally:
        if process.poll() is None:
            process.end_now()
        if mark is not None:
            reap(mark)
        if clean:
            clean_log(log)
    if ended_by == "over" and not gave_up and (gone or (profiled.seen and not sent)):
        ended_by = "itself"  # it was not there any more when it was to be ended: what its exit code says is its own
    return Outcome(
        returncode=-signal.SIGKILL if process.returncode is None else process.returncode,
        ended_by=ended_by,
        gave_up=gave_up,
        target_seen=profiled.seen,
        elapsed_s=time.monotonic() - started,
        waited_s=waited_s,
        interrupted=interrupts.words,
        lost_part=patience.lost,
        lost_supervisor=process.lost_supervisor,
        left_running=None if left is None else left.ended,
    )


def process_began() -> float:
    """When this process was started, on ``time.monotonic()``'s clock; imports are behind it."""
    return time.monotonic() - max(0.0, time.time() - psutil.Process().create_time())


def marked_processes(mark: str) -> list[psutil.Process]:
    """Find the processes that a run started and that still run.

    Processes of other users cannot be read and are skipped; so are zombies, which have no environment any more, and
    supervisors, which end after what they started.
    """
    marked = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid == os.getpid() or process.environ().get(RUN_MARK) != mark:
                continue
            if not is_supervisor(process):
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


class _Patience:
    """How long a profiler may be without the program that it profiles: before it has started it, and after its end.

    A profiler that does nothing at all, no work and no writing, is waited for less: it hangs.
    """

    def __init__(self, root: int, *, appear_s: float, finish_s: float, left: LeftRunning | None) -> None:
        self._root = root
        self._left = left
        self._appear_s = appear_s
        self._finish_s = finish_s
        self._looked = -math.inf
        self._alone_since: float | None = None
        self._appeared = False
        self._idle = _Idleness(_IDLE_S)
        self._idle_after_asked = _Idleness(_ASKED_IDLE_S)
        self._idle_without_launcher = _Idleness(_LOST_IDLE_S)
        self._started: dict[int, psutil.Process] = {}
        """What the profiler's launcher has started, by process id."""
        self._lost_since: float | None = None
        self.lost: str | None = None
        """The profiler's launcher, where it was killed."""

    def is_over(self, profiled: _Profiled, now: float, *, asked: bool = False) -> bool:
        """Whether it has been waited for long enough; looks about once a second.

        Args:
            profiled: the program.
            now: the time.
            asked: the program was asked to end, so there is little left to wait for.
        """
        if now - self._looked < _LOOK_S:
            return False
        self._looked = now
        around = _below(self._root)
        self._appeared = self._appeared or profiled.seen
        names = _names_of(around)
        if self._left is not None:
            self._left.look(names, now, asked=asked)
        there = (profiled.seen and profiled.is_there()) or _is_profiled_below(names)
        if self._has_lost_its_launcher(around, names, now, there=there):
            return True
        if there:
            self._appeared = True
            self._alone_since = None
            return False
        if not any(name.startswith(TOOL_NAMES) for name, _ in names.values()):  # a launcher of ranks before or after it
            self._alone_since = None
            return False
        if self._alone_since is None:
            self._alone_since = now
            self._idle.begin(around, now)
        limit_s = self._finish_s if self._appeared else self._appear_s
        over = now - self._alone_since > limit_s or self._idle.look(around, now) > min(_IDLE_S, limit_s)
        if asked:
            return self._idle_after_asked.look(around, now) > min(_ASKED_IDLE_S, limit_s) or over
        return over

    def _has_lost_its_launcher(
        self, around: Sequence[psutil.Process], names: Mapping[int, tuple[str, int]], now: float, *, there: bool
    ) -> bool:
        """Whether the process that nsys starts the program by was killed, and nsys waits for it all the same.

        It need not have been seen before: the kernel keeps name and status of one that was killed until nsys collects it,
        which 2022.4 never does.
        """
        launchers = {pid for pid, (name, _) in names.items() if name.startswith(LAUNCHER_NAME)}
        self._started |= {
            process.pid: process
            for process in around
            if process.pid in names
            and names[process.pid][1] in launchers
            and not names[process.pid][0].startswith(TOOL_NAMES)
        }
        # One that has ended by itself, as another version's may when it has started the program, is none that was lost.
        killed = any(_was_killed(process.pid, LAUNCHER_NAME) for process in around)
        if not killed:
            self._lost_since = None
            return False
        if there or any(_alive(process) for process in self._started.values()):
            if self._lost_since is None:
                self._lost_since = now
            over = now - self._lost_since > _LOST_S
        else:  # killed before it had started the program, or the program has ended since; or nsys is writing its report
            over = self._idle_without_launcher.look(around, now) > _LOST_IDLE_S
        if over:
            self.lost = LAUNCHER_NAME
        return over

    def alone_s(self, now: float) -> float:
        """For how long the profiler has been without its program."""
        return 0.0 if self._alone_since is None else now - self._alone_since


class _Idleness:
    """For how long processes have done nothing that is worth mentioning: no writing, and hardly any work."""

    def __init__(self, window_s: float) -> None:
        self._allowed_s = _IDLE_SHARE * window_s
        self._since: float | None = None
        self._done = (0.0, 0)

    def begin(self, processes: Sequence[psutil.Process], now: float) -> None:
        """Count from now on."""
        self._since, self._done = now, _work_of(processes)

    def look(self, processes: Sequence[psutil.Process], now: float) -> float:
        """Give the seconds since they last did something, as far as it was looked at."""
        done = _work_of(processes)
        if self._since is None or done[0] - self._done[0] > self._allowed_s or done[1] != self._done[1]:
            self._since, self._done = now, done
        return now - self._since


class _Rescue:
    """What is done about a profiler that hangs: its program is ended, it is interrupted, and gets time to write what it has.

    Interrupted, nsys 2022.4 writes a whole report even where its launcher was killed.
    """

    def __init__(self, process: SupervisedProcess, profiled: _Profiled, now: float, *, grace_s: float) -> None:
        self._root = process.pid
        self._profiled = profiled
        self._began = now
        self._grace_s = grace_s
        self._interrupted_at: float | None = None
        self._looked = -math.inf
        self._idle = _Idleness(_LOOK_S)
        self._idle_s = 0.0
        profiled.send(_Signal(signal.SIGTERM, True))

    def go_on(self, now: float) -> bool:
        """Do what is next; False: nothing is, and the time is over."""
        if self._interrupted_at is not None:
            if now - self._looked > _LOOK_S:
                self._looked = now
                self._idle_s = self._idle.look(_below(self._root), now)
            return now - self._interrupted_at <= _RESCUE_S and self._idle_s <= _RESCUE_IDLE_S
        if now - self._began > self._grace_s or not self._profiled.is_there():
            self._interrupted_at = now
            tools = [process for process in _below(self._root) if _is_asked(process)]
            for process in tools:
                _send(process, signal.SIGINT)
            return bool(tools)
        return True


def _is_asked(process: psutil.Process) -> bool:
    """Whether a process is the profiler's command, which answers Ctrl-C, and not what it has started itself."""
    with suppress(psutil.Error):
        return bool(process.name().startswith("nsys")) and "profile" in process.cmdline()[1:3]
    return False


def _was_killed(pid: int, name: str) -> bool:
    """Whether a process of a name that begins so has ended by a signal, as long as nobody has collected it.

    proc_pid_stat(5): ``comm`` in parentheses, ``exit_code`` is field 52.
    """
    try:
        named, _, rest = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")
    except OSError:
        return False
    fields = rest.split()
    ended = len(fields) > 49 and fields[0] == b"Z" and os.WIFSIGNALED(int(fields[49]))
    return ended and named.partition(b"(")[2].startswith(name.encode())


def _below(root: int) -> list[psutil.Process]:
    """A process and all below it that can be seen."""
    with suppress(psutil.Error):
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    return []


def _names_of(processes: Sequence[psutil.Process]) -> dict[int, tuple[str, int]]:
    """Name and parent of each by its process id, without those that have ended."""
    names = {}
    for process in processes:
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                names[process.pid] = (process.name(), process.ppid())
    return names


def _is_profiled_below(names: Mapping[int, tuple[str, int]]) -> bool:
    """Whether a process of another name runs below a profiler: a program that has lost its command line and its mark."""
    for name, above in names.values():
        if name.startswith(TOOL_NAMES):
            continue
        while above in names:
            if names[above][0].startswith(TOOL_NAMES):
                return True
            above = names[above][1]
    return False


def _work_of(processes: Sequence[psutil.Process]) -> tuple[float, int]:
    """Seconds of processor time, and bytes written, of all together."""
    seconds, written = 0.0, 0
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            seconds += times.user + times.system
        with suppress(psutil.Error, NotImplementedError):
            written += process.io_counters().write_chars
    return seconds, written


class _Profiled:
    """The profiled program among a run's processes, found again and again; under ranks there are several."""

    def __init__(
        self, process: SupervisedProcess, target: Target | None, mark: str | None, left: LeftRunning | None
    ) -> None:
        self.seen = target is None
        self._left = left
        self._process = process
        self._target = target
        self._mark = mark
        self._known: dict[int, psutil.Process] = {}
        """By process id. A program may overwrite the environment that it was known by, so it is remembered."""

    def look(self) -> None:
        """Look for it, unless it was seen."""
        if not self.seen:
            self._find()

    def is_there(self) -> bool:
        """Whether it runs."""
        return any(_alive(process) for process in self._known.values()) or bool(self._find())

    def has_ended(self) -> bool:
        """Whether it has run, and has ended."""
        if self._target is None:
            return not psutil.pid_exists(self._process.pid)
        # What it started may go on without its mark, as a server that a script left in the background.
        return self.seen and not self.is_there() and not _is_profiled_below(_names_of(_below(self._process.pid)))

    def send(self, what: _Signal) -> bool:
        """Signal it, or the whole group where it is the process itself, and say whether it was there.

        Ctrl-C goes to the process alone: a server ends its workers itself.
        """
        if self._target is None:
            if what.number == signal.SIGINT:
                self._process.send_signal(what.number)
            else:
                self._process.signal_group(what.number)
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
                if self._left is not None:
                    self._left.note(process)
                with suppress(psutil.Error):
                    if not known.intersection(parent.pid for parent in process.parents()):
                        self._known.setdefault(process.pid, process)
            there = [process for process in self._known.values() if _alive(process)]
        elif target is not None:
            there = _targets(self._process.pid, target, self._mark)
            self._known.update({process.pid: process for process in there})
        else:
            there = []
        self.seen = self.seen or bool(there)
        return there


def with_target_mark(command: Sequence[str], value: str) -> list[str]:
    """Give the command line that starts a program so that it is known by ``value`` (see `Target`).

    ``env`` becomes the program: no process is added, whatever the program calls itself later.
    """
    return ["/usr/bin/env", f"{TARGET_MARK}={value}", *command]


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


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(
        psutil.Error
    ):  # ended meanwhile (psutil sees that a process id was taken by another), or another user's
        process.send_signal(number)
        if number != signal.SIGKILL:
            process.send_signal(signal.SIGCONT)  # one that is stopped hears nothing else
