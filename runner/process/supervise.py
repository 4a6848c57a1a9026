"""Stands between a launcher and a program, and ends the program in order where the launcher is gone.

Run as a program of its own, ``python -I -S supervise.py SPEC PROGRAM ARGUMENT…``, with nothing imported that is not
Python's own: it costs each start some 40 ms (docs/capture.md), and nothing later, since it sleeps until something ends.

It is a *subreaper*: whatever a program starts stays below it, also what forks twice, begins a session of its own or
clears its environment. So it knows all of it without a mark, and ends what the program leaves behind.

It holds the launcher's locks too. Where the launcher is killed they stay taken until the last process has ended, and
name this process: nothing is measured beside what is left, and `cancel` and `status` find whom to ask. Under nsys the
profiled program is ended first and nsys may write its report, which a later ``resume`` takes up.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NoReturn

__all__: list[str] = []

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_LOOK_S: Final = 2.0
"""How often it looks whether the launcher is its parent still: the end of the pipe says the same, and sooner."""
_POLL_S: Final = 0.05
_PATIENCE_S: Final = 5.0
"""What the program leaves behind may take so long to end after SIGTERM."""
_LAUNCHER_NAME: Final = b"nsys-launcher"
"""How the name of the process begins that stands between nsys and its program, and adopts what that leaves."""
_ENDINGS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Supervisor:
    def __init__(self, spec: dict[str, Any], argv: list[bytes]) -> None:
        self._argv = argv
        self._launcher: int = spec["launcher"]
        self._lifeline: int = spec["lifeline"]
        """Reading end of a pipe that nobody writes into: its end is the launcher's."""
        self._report: int = spec["report"]
        self._held: list[int] = spec["held"]
        self._namespace: str = spec["namespace"]
        """Where process ids mean what they mean here, as locks name it (`runner.process.process_mark`)."""
        self._target = _target_of(spec["target"])
        """The profiled program: its command line, or a variable of its environment; None: what is started itself."""
        self._grace_s: float = spec["grace_s"]
        self._finish_s: float = spec["finish_s"]
        self._death_signal: int = spec["death_signal"]
        self._asked = False
        self._child = 0
        self._status: int | None = None
        for descriptor in (self._lifeline, self._report, *self._held):
            os.set_inheritable(descriptor, False)

    def run(self) -> int:
        _control_process(_PR_SET_CHILD_SUBREAPER, 1)
        waking, woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _ENDINGS:
            signal.signal(number, self._note)
        if not self._start():
            return 127
        orphaned = self._wait(waking)
        if orphaned:
            self._sign_locks()
            self._end_in_order()
        self._end_all()
        self._collect()  # else what ended last would be left to the system's first process
        code = 0 if self._status is None else os.waitstatus_to_exitcode(self._status)
        self._tell(f"ended {code}")
        return code if code >= 0 else 128 - code

    def _note(self, number: int, frame: object) -> None:
        self._asked = True

    # -- start and wait ------------------------------------------------------------------------------------------------

    def _start(self) -> bool:
        """Start the program, and tell the launcher its process id or why it cannot be started."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        mine = os.getpid()
        self._child = os.fork()
        if self._child == 0:
            self._become(mine, writing)
        os.close(writing)
        with open(reading, "rb", buffering=0) as fault:  # noqa: PTH123 - a descriptor, no path
            number = fault.read(16)  # its end comes with exec, which nothing can hold up
        if number:
            os.waitpid(self._child, 0)  # it ends with its next step
            self._tell(f"failed {int(number)}")
            return False
        self._tell(f"began {self._child}")
        return True

    def _become(self, parent: int, fault: int) -> NoReturn:
        """In the child: become the program, in a session of its own, that gets a signal when the supervisor is killed."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (*_ENDINGS, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            _control_process(_PR_SET_PDEATHSIG, self._death_signal)
            if os.getppid() != parent:
                os._exit(127)
            environment = _environment_of("self")  # what this process was given, not what Python made of it
            os.execvpe(self._argv[0], self._argv, environment)
        except OSError as error:
            os.write(fault, str(error.errno).encode("ascii"))
        finally:
            os._exit(127)

    def _wait(self, waking: int) -> bool:
        """Wait until the program has ended: False; or until the launcher is gone, or somebody asks for the end: True."""
        poll = select.poll()
        poll.register(self._lifeline, 0)  # its end is always told
        poll.register(waking, select.POLLIN)
        while True:
            self._collect()
            if self._has_ended():
                return False
            if self._asked or os.getppid() != self._launcher:
                return True
            for descriptor, _ in poll.poll(1000 * _LOOK_S):
                if descriptor == self._lifeline:
                    return True
                with suppress(BlockingIOError):
                    os.read(waking, 4096)

    def _collect(self) -> None:
        """Take the exit status of everything that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._child:
                self._status = status

    # -- the end -------------------------------------------------------------------------------------------------------

    def _sign_locks(self) -> None:
        """Name this process as their holder, in the form of `ProcessMark`."""
        began = _read("/proc/self/stat").rpartition(b")")[2].split()[19:20]
        mine = b"%d:%s:%s" % (os.getpid(), b"".join(began), self._namespace.encode("ascii"))
        for descriptor in self._held:
            with suppress(OSError):
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, mine, 0)

    def _end_in_order(self) -> None:
        """End the profiled program; then what is around it may finish."""
        self._say("the launcher is gone: the program is ended")
        if self._target is None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                self._send_group(number)
                if self._until(self._has_ended, self._grace_s):
                    break
            return
        # One that is still coming up is waited for; one that is gone already leaves a profiler that writes its report.
        self._until(lambda: self._has_ended() or bool(self._targets()), self._grace_s)
        for number, to_all in ((signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGKILL, True)):
            for pid in self._targets(everyone=to_all):
                _send(pid, number)
            if self._until(lambda: self._has_ended() or not self._targets(), self._grace_s):
                break
        if not self._has_ended():
            self._say(f"the profiler may take {self._finish_s:g} s to write its report")
        if not self._until(self._has_ended, self._finish_s):
            self._say("the profiler did not end, and is killed")

    def _end_all(self) -> None:
        """End everything that was started and still runs."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in _below(os.getpid()):
                _send(pid, number)
            if self._until(lambda: not _below(os.getpid()), _PATIENCE_S):
                return

    def _has_ended(self) -> bool:
        return self._status is not None

    def _until(self, over: Callable[[], bool], seconds: float) -> bool:
        """Wait until it is over, and say whether it is."""
        until = time.monotonic() + seconds
        while True:
            self._collect()
            if over():
                return True
            if time.monotonic() > until:
                return False
            time.sleep(_POLL_S)

    def _targets(self, *, everyone: bool = False) -> list[int]:
        """The profiled program below; of a variable of the environment those that none of the others started.

        Where it is gone, what it left running without a mark, for which nsys waits as for the program.
        """
        if self._target is None:
            return [self._child]
        variable, command = self._target
        below = _below(os.getpid())
        if command:
            return [pid for pid in below if _command_of(pid) == command] or _left_running(below)
        marked = {pid: parent for pid, parent in below.items() if variable in _block_of(pid).split(b"\0")}
        if everyone:
            return [*marked, *(pid for pid in _left_running(below) if pid not in marked)]
        return [pid for pid, parent in marked.items() if parent not in marked] or _left_running(below)

    def _send_group(self, number: signal.Signals) -> None:
        with suppress(OSError):
            os.killpg(self._child, number)
            os.killpg(self._child, signal.SIGCONT)  # one that is stopped hears nothing else

    # -- words ---------------------------------------------------------------------------------------------------------

    def _tell(self, words: str) -> None:
        with suppress(OSError):  # the launcher is gone
            os.write(self._report, f"{words}\n".encode("ascii"))

    def _say(self, words: str) -> None:
        with suppress(OSError):  # the disk is full
            os.write(1, f"dsocr-profile: {words}\n".encode())


def _target_of(given: Any) -> tuple[bytes, list[bytes]] | None:
    if given is None:
        return None
    if isinstance(given, str):
        return os.fsencode(given), []
    return b"", [os.fsencode(argument) for argument in given]


def _below(root: int) -> dict[int, int]:
    """Living processes below a process → their parents."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib costs as much to import as the rest together
        if name.isdecimal():
            parent, state = _parent_and_state(name)
            if state not in ("", "Z", "X"):
                children.setdefault(parent, []).append(int(name))
    below: dict[int, int] = {}
    waiting = [root]
    while waiting:
        parent = waiting.pop()
        for pid in children.get(parent, ()):
            below[pid] = parent
            waiting.append(pid)
    return below


def _left_running(below: dict[int, int]) -> list[int]:
    """What stands below nsys' launcher and is none of nsys' own, as `runner.process.left_running` tells it."""
    names = {pid: _name_of(pid) for pid in below}
    left = []
    for pid, name in names.items():
        if name.startswith(b"nsys"):
            continue
        above = below[pid]
        while above in below and not names[above].startswith(_LAUNCHER_NAME):
            above = below[above]
        if above in below:
            left.append(pid)
    return left


def _name_of(pid: int) -> bytes:
    return _read(f"/proc/{pid}/stat").partition(b"(")[2].rpartition(b")")[0]


def _parent_and_state(pid: str) -> tuple[int, str]:
    # The name in parentheses may hold anything, parentheses too.
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return (int(fields[1]), fields[0].decode("ascii")) if len(fields) > 1 else (0, "")


def _command_of(pid: int) -> list[bytes]:
    return _read(f"/proc/{pid}/cmdline").split(b"\0")[:-1]


def _block_of(pid: int | str) -> bytes:
    return _read(f"/proc/{pid}/environ")


def _environment_of(pid: int | str) -> dict[bytes, bytes]:
    pairs = (entry.partition(b"=") for entry in _block_of(pid).split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - see `_below`
            return file.read()
    except OSError:  # ended meanwhile, or another user's
        return b""


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(OSError):
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)


def _control_process(option: int, value: int) -> None:
    """``prctl``; a system without it does without."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(_Supervisor(json.loads(sys.argv[1]), [os.fsencode(argument) for argument in sys.argv[2:]]).run())
