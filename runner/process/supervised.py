"""Start a program under a supervisor (`runner.process.supervise`), and follow it as `subprocess.Popen` would.

The supervisor outlives us where we are killed: it ends the program in order and holds our locks until then.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Self

import psutil

from analysis.domain.errors import CaptureError
from runner.process.held import held_descriptors
from runner.process.limits import low_limits_note
from runner.process.process_mark import namespace_of

__all__ = ["SUPERVISOR", "SupervisedProcess", "is_supervisor"]

SUPERVISOR: Final = Path(__file__).with_name("supervise.py")

_PLAIN: Final = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW

_WAKE_S: Final = 1.0
_START_S: Final = 60.0
"""The supervisor may take so long to start the program: some 20 ms where a machine is not overloaded."""
_END_S: Final = 20.0
"""And so long to end what the program left behind, after its end: it takes 10 s itself at most."""


class SupervisedProcess:
    """A program in a session of its own, with its supervisor around it."""

    def __init__(self, process: subprocess.Popen[bytes], report: int, lifeline: int) -> None:
        self.pid = 0
        """Of the program, which leads a process group of its own."""
        self.returncode: int | None = None
        """None: it has not ended; negative: ended by that signal."""
        self.lost_supervisor = False
        """The supervisor was killed by somebody else: what it had started ended with it, and its exit code is not known."""
        self._process = process
        self._report = report
        self._lifeline = lifeline
        self._told = b""
        self._woken = time.monotonic()
        self._killed = False

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        cwd: Path | None = None,
        umask: int = -1,
        target: Sequence[str] | str | None = None,
        grace_s: float = 10.0,
        finish_s: float = 120.0,
    ) -> Self:
        """Start it.

        Args:
            argv: the program with its arguments.
            env: its whole environment.
            log: file for its standard output and error, appended to.
            cwd: working directory.
            umask: file mode mask; -1: unchanged.
            target: the profiled program inside: its command line, or ``NAME=VALUE`` of its environment; None: ``argv``.
            grace_s: what the target may take to end, should we be killed, before it is sent a harder signal.
            finish_s: what the rest, nsys, may take then.

        Raises:
            CaptureError: it cannot be started, or its log cannot be written.
        """
        lifeline, ours = os.pipe2(os.O_CLOEXEC)
        report, theirs = os.pipe2(os.O_CLOEXEC)
        held = held_descriptors()
        spec = {
            "launcher": os.getpid(),
            "lifeline": lifeline,
            "report": theirs,
            "held": held,
            "namespace": namespace_of(os.getpid()),
            "target": target
            if target is None or isinstance(target, str)
            else [_bytes_as_text(argument) for argument in target],
            "grace_s": grace_s,
            "finish_s": finish_s,
            # `unshare` leaves SIGTERM to the program inside, and takes all in its namespace along when it is killed.
            "death_signal": signal.SIGKILL if "--kill-child" in argv else signal.SIGTERM,
        }
        # -I and -S: neither the current folder nor PYTHON… variables of the program's matter to it.
        command = [sys.executable, "-I", "-S", "-X", "utf8", str(SUPERVISOR), json.dumps(spec), *argv]
        try:
            with _log_file(log) as output:
                process = subprocess.Popen(
                    command,
                    env=dict(env),
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    umask=umask,
                    pass_fds=(lifeline, theirs, *held),
                )
        except OSError as error:
            os.close(ours)
            os.close(report)
            raise CaptureError(f"{argv[0]}: cannot be started ({error.strerror}){low_limits_note()}") from error
        except CaptureError:
            os.close(ours)
            os.close(report)
            raise
        finally:
            os.close(lifeline)
            os.close(theirs)
        made = cls(process, report, ours)
        made._await_start(argv[0])
        return made

    def poll(self) -> int | None:
        """Its exit code, None while it or something that it started runs."""
        if self.returncode is None and self._process.poll() is not None:
            self._take_end()
        return self.returncode

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end, and say whether it has come."""
        if self.returncode is None:
            self._wake()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return False
            self._take_end()
        return True

    def _wake(self) -> None:
        """Let a supervisor that somebody stopped go on, now and then: it would never tell of the program's end.

        A terminal does not stop it: it has a session of its own.
        """
        now = time.monotonic()
        if now - self._woken >= _WAKE_S and self._process.returncode is None:
            self._woken = now
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._process.pid, signal.SIGCONT)  # nothing to one that runs

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the program alone."""
        if self.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def signal_group(self, number: signal.Signals) -> None:
        """Signal its process group at once: a member that forks meanwhile does not escape. What is stopped goes on."""
        if self.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
                os.killpg(self.pid, signal.SIGCONT)

    def end_now(self) -> None:
        """Kill it and everything that it started."""
        self.signal_group(signal.SIGKILL)
        if not self.wait(_END_S):  # the supervisor was stopped, or the system is: its children get signals when it dies
            self._process.kill()
            self._killed = True
            if not self.wait(_END_S):
                self.returncode = -signal.SIGKILL
                self._close()

    def _await_start(self, name: str) -> None:
        until = time.monotonic() + _START_S
        while b"\n" not in self._told:
            if not select.select([self._report], [], [], max(0.0, until - time.monotonic()))[0]:
                self._process.kill()
                self._close()
                raise CaptureError(f"{name}: its supervisor did not come up in {_START_S:g} s")
            more = os.read(self._report, 256)
            if not more:
                self._close()
                code = self._process.wait(_END_S)
                raise CaptureError(f"{name}: its supervisor ended with exit code {code} before it was started")
            self._told += more
        word, number = self._told.split(b"\n", 1)[0].split()
        if word == b"failed":
            self._close()
            self._process.wait(_END_S)
            raise CaptureError(f"{name}: cannot be started ({os.strerror(int(number))}){low_limits_note()}")
        self.pid = int(number)

    def _take_end(self) -> None:
        """Take the exit code that the supervisor told; its own where it was killed."""
        while (
            self._report >= 0 and select.select([self._report], [], [], 0)[0] and (more := os.read(self._report, 256))
        ):
            self._told += more
        last = self._told.splitlines()[-1].split()
        told = last[0] == b"ended"
        self.lost_supervisor = not told and not self._killed
        self.returncode = int(last[1]) if told else (self._process.returncode or -signal.SIGKILL)
        self._close()

    def _close(self) -> None:
        for descriptor in (self._report, self._lifeline):
            if descriptor >= 0:
                os.close(descriptor)
        self._report = self._lifeline = -1


def _log_file(log: Path) -> IO[bytes]:
    """Open a log for appending; not a pipe, in which a program would wait for somebody to read."""
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _PLAIN, 0o600)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise CaptureError(f"{log}: cannot be written (it is no regular file)")
    except OSError as error:
        raise CaptureError(f"{log}: cannot be written ({error.strerror})") from error
    os.set_blocking(descriptor, True)
    return open(descriptor, "ab")  # noqa: PTH123 - a descriptor, no path


def _bytes_as_text(argument: str) -> str:
    """As the supervisor, which takes text for UTF-8 whatever the locale, gives the same bytes."""
    return os.fsencode(argument).decode("utf-8", "surrogateescape")


def is_supervisor(process: psutil.Process) -> bool:
    """Whether a process is one of ours that stands around a program."""
    with suppress(psutil.Error):
        return Path("runner") / "process" / SUPERVISOR.name == Path(*Path(_script(process.cmdline())).parts[-3:])
    return False


def _script(command: Sequence[str]) -> str:
    return command[5] if len(command) > 6 and command[1:3] == ["-I", "-S"] else ""
