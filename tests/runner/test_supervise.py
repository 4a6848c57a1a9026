"""Nothing outlives its run: launchers, supervisors and what they started, really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from launch_kit import ROOT
from runner.launcher.device_lock import LOCK_FOLDER_VARIABLE, DeviceLock
from runner.process.environment import RUN_MARK
from runner.process.leftovers import end_leftovers, find_leftovers
from runner.process.lock import LockFile
from runner.process.process import TARGET_MARK, Interrupts, marked_processes, reap, run_process
from runner.process.supervised import SUPERVISOR, SupervisedProcess, is_supervisor

BASE = dict(os.environ)

PROGRAM = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def heard(*_):
    (folder / "the program was asked to end").touch()
    sys.exit(3)
signal.signal(signal.SIGTERM, heard)
(folder / "up").touch()
time.sleep(300)
"""
AROUND = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit("the profiler was ended"))
folder = pathlib.Path(sys.argv[1])
subprocess.run(sys.argv[2:])
time.sleep(1.0)  # which a report takes
(folder / "report").write_text("whole")
"""
"""Stands for nsys: it must not be ended before it has written its report."""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def wait_for(condition: Callable[[], object], *, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def mark(request: pytest.FixtureRequest) -> Iterator[str]:
    mark = f"supervised-{os.getpid()}-{request.node.name}"
    yield mark
    reap(mark)
    for supervisor in supervisors(mark):
        supervisor.kill()


def supervisors(mark: str) -> list[psutil.Process]:
    return [each for leftover in find_leftovers(mark) for each in leftover.supervisors]


def launcher(folder: Path, mark: str, argv: list[str], target: str = "None") -> subprocess.Popen[bytes]:
    """A process that holds a lock and runs a program under it."""
    code = f"""
import os, pathlib
from runner.process.lock import LockFile
from runner.process.process import Interrupts, run_process
env = {{**os.environ, {RUN_MARK!r}: {mark!r}}}
log = pathlib.Path({str(folder / "log")!r})
with LockFile(pathlib.Path({str(folder / "lock")!r}), mode=0o600).held(), Interrupts() as interrupts:
    run_process({argv!r}, env=env, log=log, interrupts=interrupts, target={target}, grace_s=20.0)
"""
    return subprocess.Popen(python(code), env=BASE, cwd=ROOT)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(20)


def test_a_killed_launcher_leaves_a_program_that_may_end_and_a_profiler_that_writes(tmp_path: Path, mark: str) -> None:
    target = ["env", f"{TARGET_MARK}={mark}", *python(PROGRAM, str(tmp_path))]
    killed = launcher(tmp_path, mark, python(AROUND, str(tmp_path), *target), repr(mark))
    wait_for((tmp_path / "up").exists)
    kill(killed)
    wait_for(lambda: not marked_processes(mark))
    assert (tmp_path / "the program was asked to end").exists()
    assert (tmp_path / "report").read_text() == "whole"
    assert "the launcher is gone" in (tmp_path / "log").read_text()


def test_locks_of_a_killed_launcher_are_held_until_all_has_ended(tmp_path: Path, mark: str) -> None:
    lock = LockFile(tmp_path / "lock", mode=0o600)
    target = ["env", f"{TARGET_MARK}={mark}", *python(PROGRAM, str(tmp_path))]
    killed = launcher(tmp_path, mark, python(AROUND, str(tmp_path), *target), repr(mark))
    wait_for((tmp_path / "up").exists)
    assert lock.holder() == killed.pid
    kill(killed)
    wait_for((tmp_path / "the program was asked to end").exists)
    holder = lock.holder()  # while the profiler writes
    assert holder is not None
    assert is_supervisor(psutil.Process(holder))
    wait_for(lambda: lock.holder() is None)
    assert (tmp_path / "report").exists()
    assert not marked_processes(mark)


def test_a_launcher_that_ends_its_run_frees_its_locks_at_once(tmp_path: Path, mark: str) -> None:
    lock = LockFile(tmp_path / "lock", mode=0o600)
    env = {**BASE, RUN_MARK: mark}
    with Interrupts() as interrupts, lock.held():
        run_process(python("pass"), env=env, log=tmp_path / "log", interrupts=interrupts)
    assert lock.holder() is None


HIDES = """
import os, pathlib, sys, time
if os.fork() == 0:  # twice, a session of its own, and an empty environment: no mark is left
    os.setsid()
    if os.fork() == 0:
        code = "import pathlib, os, sys, time; pathlib.Path(sys.argv[1], str(os.getpid())).touch(); time.sleep(300)"
        os.execve(sys.executable, [sys.executable, "-c", code, sys.argv[1]], {})
    os._exit(0)
os.wait()
while not list(pathlib.Path(sys.argv[1]).glob("[0-9]*")):
    time.sleep(0.05)
if "stays" in sys.argv:
    time.sleep(300)
"""


def test_what_clears_its_environment_and_leaves_its_session_is_ended_with_its_program(
    tmp_path: Path, mark: str
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    with Interrupts() as interrupts:
        outcome = run_process(
            python(HIDES, str(hidden)), env={**BASE, RUN_MARK: mark}, log=tmp_path / "log", interrupts=interrupts
        )
    assert outcome.returncode == 0
    assert not psutil.pid_exists(int(next(hidden.iterdir()).name))


def test_and_with_its_launcher(tmp_path: Path, mark: str) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    killed = launcher(tmp_path, mark, python(HIDES, str(hidden), "stays"))
    wait_for(lambda: list(hidden.iterdir()))
    kill(killed)
    pid = int(next(hidden.iterdir()).name)
    wait_for(lambda: not psutil.pid_exists(pid))
    wait_for(lambda: not marked_processes(mark))


def test_a_launcher_and_its_supervisor_killed_at_once(tmp_path: Path, mark: str) -> None:
    """The system then tells the program; what does not hear it is found by its mark."""
    deaf = PROGRAM.replace("SIGTERM, heard", "SIGTERM, signal.SIG_IGN")
    killed = launcher(tmp_path, mark, python(deaf, str(tmp_path)))
    wait_for((tmp_path / "up").exists)
    assert find_leftovers(mark) == ()  # its launcher lives
    assert end_leftovers(mark, say=print) == ()
    for child in psutil.Process(killed.pid).children():
        assert is_supervisor(child)
        child.kill()
        killed.kill()
    killed.wait(20)
    (leftover,) = find_leftovers(mark)
    assert (len(leftover.processes), leftover.supervisors) == (1, ())
    said: list[str] = []
    assert end_leftovers(mark, say=said.append) == (leftover,)
    assert said == [f"{leftover.words()}; ending it"]
    assert "its launcher is gone, and python" in said[0]
    assert not marked_processes(mark)
    assert end_leftovers(mark, say=said.append) == ()


def test_before_a_run_begins_what_is_left_of_others_is_ended(tmp_path: Path, mark: str) -> None:
    killed = launcher(
        tmp_path, mark, python(PROGRAM.replace("SIGTERM, heard", "SIGTERM, signal.SIG_IGN"), str(tmp_path))
    )
    wait_for((tmp_path / "up").exists)
    for process in psutil.Process(killed.pid).children():
        process.kill()
        killed.kill()
    killed.wait(20)
    assert find_leftovers(mark)
    said: list[str] = []
    environ = {**BASE, LOCK_FOLDER_VARIABLE: str(tmp_path / "locks")}
    with DeviceLock(f"cuda:{os.getpid()}", (), environ).held(wait=False, waiting=said.append):
        assert not find_leftovers(mark)
    assert any(mark[:8] in line and "ending it" in line for line in said)


def test_leftovers_of_any_run_and_of_its_parts_are_found(tmp_path: Path, mark: str) -> None:
    killed = launcher(tmp_path, f"{mark}-control", python(PROGRAM, str(tmp_path)))
    try:
        wait_for((tmp_path / "up").exists)
        for process in psutil.Process(killed.pid).children(recursive=True):
            if is_supervisor(process):
                process.suspend()  # so it cannot end what it should
        kill(killed)
        assert mark in {leftover.run_id for leftover in find_leftovers()}
        (leftover,) = find_leftovers(mark)
        assert len(leftover.supervisors) == 1
        end_leftovers(mark, say=print)  # which wakes it
        assert (tmp_path / "the program was asked to end").exists()
        assert find_leftovers(mark) == ()
    finally:
        reap(f"{mark}-control")


def test_a_supervisor_is_started_with_nothing_of_the_current_folder(tmp_path: Path) -> None:
    for name in ("json.py", "runner.py", "sitecustomize.py", "ctypes.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\n")
    env = {**BASE, "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "runner.py")}
    process = SupervisedProcess.start(["true"], env=env, log=tmp_path / "log", cwd=tmp_path)
    assert process.wait(60)
    assert process.returncode == 0
    assert not (tmp_path / "imported").exists()


def test_the_program_gets_exactly_its_environment_and_arguments(tmp_path: Path) -> None:
    """In a C locale too, in which Python sets variables of its own."""
    env = {"PATH": BASE["PATH"], "LC_ALL": "C", "B": "\udcff"}
    process = SupervisedProcess.start(
        ["sh", "-c", 'tr "\\0" "\\n" < /proc/self/environ; printf "%s|" "$@"', "sh", "\udcfe", "", "ü"],
        env=env,
        log=tmp_path / "log",
    )
    assert process.wait(60)
    variables, _, arguments = (tmp_path / "log").read_bytes().rpartition(b"\n")
    given = {line for line in variables.split(b"\n") if not line.startswith((b"PWD=", b"_=", b"OLDPWD=", b"SHLVL="))}
    assert given == {b"PATH=" + os.fsencode(BASE["PATH"]), b"LC_ALL=C", b"B=\xff"}
    assert arguments == b"\xfe||\xc3\xbc|"


def test_no_open_file_of_ours_reaches_the_program(tmp_path: Path) -> None:
    with LockFile(tmp_path / "lock", mode=0o600).held():
        process = SupervisedProcess.start(["sh", "-c", "ls /proc/$$/fd"], env=BASE, log=tmp_path / "log")
        assert process.wait(60)
    assert (tmp_path / "log").read_text().split() == ["0", "1", "2"]


@pytest.mark.parametrize(("code", "expected"), [("exit 7", 7), ("kill -SEGV $$", -signal.SIGSEGV), ("kill -9 $$", -9)])
def test_the_exit_code_is_the_programs(tmp_path: Path, code: str, expected: int) -> None:
    with Interrupts() as interrupts:
        outcome = run_process(["sh", "-c", code], env=BASE, log=tmp_path / "log", interrupts=interrupts)
    assert outcome.returncode == expected


def test_a_log_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    from analysis.domain.errors import CaptureError

    os.mkfifo(tmp_path / "log")
    with Interrupts() as interrupts, pytest.raises(CaptureError, match="cannot be written"):
        run_process(["true"], env=BASE, log=tmp_path / "log", interrupts=interrupts)


def test_the_supervisor_needs_nothing_but_python(tmp_path: Path) -> None:
    """No `setpriv`, no package: a minimal container has neither."""
    code = f"import runpy, sys; runpy.run_path({str(SUPERVISOR)!r}, run_name='supervise'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    foreign = {name.split(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names) - {"__main__"}
    assert foreign == set()


NSYS_LAUNCHER = f"""#!{sys.executable}
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # it adopts what its program leaves
subprocess.run(sys.argv[1:])
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
"""
LEAVES_A_DAEMON = """
import os, pathlib, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        (pathlib.Path(sys.argv[1]) / "daemon").write_text(str(os.getpid()))
        os.execve("/bin/sleep", ["sleep", "300"], {})
    os._exit(0)
"""


def test_a_daemon_that_the_program_left_is_ended_where_the_launcher_is_gone(tmp_path: Path, mark: str) -> None:
    """It bears no mark, and the profiler waits for it: the end took all the time that a report may take, and more."""
    between = tmp_path / "nsys-launcher"
    between.write_text(NSYS_LAUNCHER)
    between.chmod(0o700)
    target = ["env", f"{TARGET_MARK}={mark}", *python(LEAVES_A_DAEMON, str(tmp_path))]
    killed = launcher(tmp_path, mark, python(AROUND, str(tmp_path), str(between), *target), repr(mark))
    wait_for(lambda: (tmp_path / "daemon").exists() and (tmp_path / "daemon").read_text())
    daemon = psutil.Process(int((tmp_path / "daemon").read_text()))
    wait_for(lambda: daemon.name() == "sleep")
    kill(killed)
    wait_for((tmp_path / "report").exists)
    assert not daemon.is_running()
    wait_for(lambda: not supervisors(mark))
