"""Processes that read traces end with the command that has begun them, and at once when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from analysis.api.workers import local_workers
from launch_kit import environment

COMMAND = """
import os, pathlib, sys, threading, time
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the command does: its threads would make a fork unsafe
from analysis.api.workers import local_workers
from analysis.domain.ending import end_with

def work(name):
    pathlib.Path(name).touch()
    time.sleep(300)

def command():
    if sys.argv[1] == "forkserver":
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    with local_workers(2) as workers:
        workers.run(work, ["first", "second"])

if __name__ == "__main__":
    os.sched_getaffinity = lambda process: {0, 1}
    end_with(command, "program", lambda words: sys.stderr.write(words + "\\n"))
"""


def below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("way", ["fork", "forkserver"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_command(tmp_path: Path, way: str, number: signal.Signals) -> None:
    (tmp_path / "command.py").write_text(COMMAND)
    process = subprocess.Popen(
        [sys.executable, "command.py", way],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while not ((tmp_path / "first").exists() and (tmp_path / "second").exists()):
        assert process.poll() is None, process.communicate(timeout=60)
        assert time.monotonic() < until
        time.sleep(0.05)
    workers = below(process)
    # A server that forks them, and what tracks resources, are there beside them.
    assert len(workers) == (2 if way == "fork" else 4)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), said
    assert said == "interrupted\n" or (number == signal.SIGKILL and "Traceback" not in said), said
    while left := alive(workers):
        assert time.monotonic() < until + 60, left
        time.sleep(0.05)


SLOW_START = """
import pathlib, sys, time
if "forkserver import main" in " ".join(sys.orig_argv):
    (pathlib.Path.cwd() / "starting").touch()
    time.sleep(1)
"""


def test_ctrl_c_while_the_workers_start_is_told_in_one_line(tmp_path: Path) -> None:
    """A terminal sends it to all; what is still starting Python would print a traceback of it."""
    (tmp_path / "command.py").write_text(COMMAND)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SLOW_START)
    environ = environment()
    process = subprocess.Popen(
        [sys.executable, "command.py", "forkserver"],
        cwd=tmp_path,
        env={**environ, "PYTHONPATH": os.pathsep.join((str(tmp_path / "site"), environ["PYTHONPATH"]))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while not (tmp_path / "starting").exists():
        assert process.poll() is None, process.communicate(timeout=60)
        assert time.monotonic() < until
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "interrupted\n")


def blocks_ctrl_c(_: int) -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("threads", [1, 2])
def test_no_worker_hears_ctrl_c(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr("analysis.api.workers._threads", lambda: threads)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    with local_workers(2) as workers:
        assert workers.run(blocks_ctrl_c, range(4)) == [True] * 4
    assert not blocks_ctrl_c(0)
