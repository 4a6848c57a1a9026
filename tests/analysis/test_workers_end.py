"""Processes that read traces end with the command that has begun them, and at once when it is interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

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
