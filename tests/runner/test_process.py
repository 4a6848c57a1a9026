"""Processes: started, logged, timed out, signalled, reaped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.domain.errors import CaptureError
from launch_kit import ROOT
from runner.process.environment import RUN_MARK
from runner.process.process import Interrupts, marked_processes, reap, run_process

BASE = dict(os.environ)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_and_exit_code(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Interrupts() as interrupts:
        outcome = run_process(
            python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"),
            env=BASE,
            log=log,
            interrupts=interrupts,
        )
    assert (outcome.returncode, outcome.ended_by, outcome.gave_up) == (3, "itself", False)
    assert set(log.read_text().split()) == {"out", "err"}


def test_it_runs_in_a_session_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Interrupts() as interrupts:
        run_process(python("import os; print(os.getsid(0) == os.getpid())"), env=BASE, log=log, interrupts=interrupts)
    assert log.read_text().strip() == "True"


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with Interrupts() as interrupts, pytest.raises(CaptureError, match="/nowhere: cannot be started"):
        run_process(["/nowhere"], env=BASE, log=tmp_path / "log", interrupts=interrupts)


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    with Interrupts() as interrupts, pytest.raises(CaptureError, match="cannot be written"):
        run_process(python(""), env=BASE, log=tmp_path / "none" / "log", interrupts=interrupts)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv (util-linux) here")
@pytest.mark.parametrize("view", [(), ("--kill-child",)])
def test_nothing_outlives_a_launcher_that_is_killed(tmp_path: Path, view: tuple[str, ...]) -> None:
    """By SIGKILL, of which it cannot take notice: what it started gets a signal from the system."""
    mark = f"killed-{os.getpid()}-{len(view)}"
    heard = "import signal; signal.signal(signal.SIGTERM, lambda *_: None); " if view else ""
    code = f"{heard}import time; print('up', flush=True); time.sleep(300)"
    argv = [*python(code), *view]
    launcher = f"""
import os, pathlib
from runner.process.process import Interrupts, run_process
with Interrupts() as interrupts:
    env = {{**os.environ, {RUN_MARK!r}: {mark!r}}}
    run_process({argv!r}, env=env, log=pathlib.Path({str(tmp_path / "log")!r}), interrupts=interrupts)
"""
    killed = subprocess.Popen(python(launcher), env=BASE, cwd=ROOT)
    try:
        wait_for(lambda: (tmp_path / "log").is_file() and "up" in (tmp_path / "log").read_text())
        killed.kill()
        killed.wait()
        wait_for(lambda: not marked_processes(mark))
    finally:
        killed.kill()
        killed.wait()
        reap(mark)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_deadline_ends_it(tmp_path: Path) -> None:
    with Interrupts() as interrupts:
        outcome = run_process(
            python("import time; time.sleep(300)"),
            env=BASE,
            log=tmp_path / "log",
            interrupts=interrupts,
            deadline=time.monotonic() + 0.5,
            grace_s=5.0,
        )
    assert (outcome.returncode, outcome.ended_by) == (-signal.SIGTERM, "timeout")


def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
    )
    with Interrupts() as interrupts:
        outcome = run_process(
            python(code),
            env=BASE,
            log=tmp_path / "log",
            interrupts=interrupts,
            deadline=time.monotonic() + 1.0,
            grace_s=0.5,
        )
    assert outcome.returncode in (-signal.SIGKILL, -signal.SIGTERM)
    assert outcome.ended_by == "timeout"


def test_what_outlives_the_program_is_reaped(tmp_path: Path) -> None:
    env = {**BASE, RUN_MARK: "test-reap"}
    sleeper = "[sys.executable, '-c', 'import time; time.sleep(300)']"
    code = f"import subprocess, sys; subprocess.Popen({sleeper}, start_new_session=True)"
    with Interrupts() as interrupts:
        outcome = run_process(python(code), env=env, log=tmp_path / "log", interrupts=interrupts)
    assert outcome.returncode == 0
    assert marked_processes("test-reap") == []
    assert reap("test-reap") == []


def test_only_the_target_is_asked_to_end(tmp_path: Path) -> None:
    """The outer program stands for nsys: it must live on to write its report."""
    target = python("import time; print('target', flush=True); time.sleep(300)")
    outer = python(
        f"import subprocess; code = subprocess.run({target!r}).returncode; print('report', code, flush=True); raise SystemExit(4)"
    )
    env = {**BASE, RUN_MARK: "test-target"}
    with Interrupts() as interrupts:
        outcome = run_process(
            outer,
            env=env,
            log=tmp_path / "log",
            interrupts=interrupts,
            target=target,
            deadline=time.monotonic() + 2.0,
            grace_s=20.0,
        )
    assert (outcome.returncode, outcome.ended_by, outcome.target_seen) == (4, "timeout", True)
    assert f"report {-signal.SIGTERM}" in (tmp_path / "log").read_text()


def test_interrupts_are_counted_and_handlers_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.count == 1  # each asks for an end in order
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.count == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    """A script's Ctrl-C ended runs that it had put into the background, where shells have SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupts.count == 0
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupts.count == 1
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
