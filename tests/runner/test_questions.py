"""What a profiler is asked does not go on when nobody waits for its answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from analysis.domain.errors import CaptureError
from launch_kit import ROOT, environment
from runner.collectors.nsys import tool as nsys_tool
from runner.launcher.doctor import diagnose
from runner.process.environment import RUN_MARK
from runner.process.leftovers import find_leftovers
from runner.process.process_mark import LAUNCHER_MARK
from runner.process.questions import answer_of

SILENT = """#!/bin/sh
sleep 300 &
echo $$ $! >> "$0.asked"
wait
"""
"""An nsys that hangs with a child of its own, whatever it is asked."""


def silent(folder: Path) -> Path:
    program = folder / "nsys"
    program.write_text(SILENT)
    program.chmod(0o755)
    return program


def asked(program: Path) -> list[int]:
    file = program.with_name("nsys.asked")
    return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def wait_for(condition: Callable[[], bool], patience_s: float = 30.0) -> None:
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def test_an_answer() -> None:
    done = answer_of(["sh", "-c", "echo out; echo err >&2; exit 3"], environ=os.environ, timeout_s=60)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    told = answer_of(["env"], environ={"PATH": os.defpath}, timeout_s=60).stdout
    assert f"{RUN_MARK}=probe-" in told
    assert f"{LAUNCHER_MARK}={os.getpid()}:" in told


def test_one_that_does_not_answer_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = silent(tmp_path)
    monkeypatch.setattr(nsys_tool, "_PROBE_TIMEOUT_S", 1.0)
    with pytest.raises(CaptureError, match="did not answer"):
        nsys_tool.probe(program, os.environ)
    assert len(asked(program)) == 6
    wait_for(lambda: not any(runs(pid) for pid in asked(program)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_doctor_is_interrupted_while_nsys_does_not_answer(tmp_path: Path, number: signal.Signals) -> None:
    program = silent(tmp_path)
    argv = [sys.executable, "-m", "runner.cli", "doctor", "--nsys", str(program), "--out", str(tmp_path)]
    doctor = subprocess.Popen(argv, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: len(asked(program)) == 6)
        doctor.send_signal(number)
        _, errors = doctor.communicate(timeout=30)  # nsys may take 60 s to answer
    finally:
        doctor.kill()
    assert doctor.returncode == 130
    assert errors.count("\n") == 1, errors
    assert not any(runs(pid) for pid in asked(program))


def test_what_a_killed_doctor_asked_is_ended_by_the_next(tmp_path: Path) -> None:
    program = silent(tmp_path)
    argv = [sys.executable, "-m", "runner.cli", "doctor", "--nsys", str(program), "--out", str(tmp_path)]
    doctor = subprocess.Popen(argv, cwd=ROOT, env=environment())
    try:
        wait_for(lambda: len(asked(program)) == 6)
    finally:
        doctor.kill()
        doctor.wait()
    pids = asked(program)
    left = [left for left in find_leftovers() if {each.pid for each in left.processes} & set(pids)]
    assert [each.words().partition(":")[0] for each in left] == ["a probe of a profiler"]
    said: list[str] = []
    diagnose(environment(), tmp_path, nsys="/no/such/nsys", say=said.append)
    assert any("a probe of a profiler: its launcher is gone" in line for line in said)
    assert not any(runs(pid) for pid in pids)
