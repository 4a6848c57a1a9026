"""Faults of the parts of a real Nsight Systems: its command, its launcher, its agent, its importer – and of us around it.

A capture of 2022.4 is, below us: ``unshare``, ``nsys profile``, ``nsys --start-agent`` (takes the events), ``nsys-launcher``
(starts the program), ``nsys-tee`` and the program; when it has ended ``QdstrmImporter`` makes the report.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fault_scene import Scene, Started, fill, small_disk, wait_for
from fault_table import Resume, Row, faults
from launch_kit import real_nsys
from program_kit import range_names

pytestmark = pytest.mark.integration

CHAPTER = "Real Nsight Systems"
NOTHING = Resume(10, "nothing was captured, so there is nothing to resume; run it again")
PROGRAM = """
import pathlib, signal, sys, time
import nvtx
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nsys loses what it has not fetched of one that just dies
with nvtx.annotate("prefill"):
    time.sleep(0.01)
pathlib.Path(sys.argv[1]).touch()
while pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.02)
"""


@pytest.fixture
def real(tmp_path: Path, small_trace: Path) -> Iterator[Scene]:
    tool = real_nsys()
    if tool is None:
        pytest.skip("no usable nsys on this machine: `make nsys`")
    made = Scene(tmp_path, small_trace, nsys=tool.path)
    (tmp_path / "program.py").write_text(PROGRAM)
    yield made
    made.end()


def command(scene: Scene) -> list[str]:
    return [sys.executable, str(scene.folder / "program.py"), str(scene.folder / "at work")]


def part(scene: Scene, name: str) -> psutil.Process:
    """One part of a running capture."""
    if name == "program":
        wait_for(lambda: programs(scene), name)
        return programs(scene)[0]
    word = {
        "command": "nsys profile",
        "launcher": "nsys-launcher",
        "agent": "--start-agent",
        "importer": "QdstrmImporter",
    }
    return scene.wait_for_process(word[name], without="unshare")


def programs(scene: Scene) -> list[psutil.Process]:
    return [process for process in scene.processes() if line_of(process) == command(scene)]


def line_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # ended meanwhile
        return []


@faults(
    CHAPTER,
    Row(
        "SIGKILL of `nsys profile`", "capture", 10, "failed", "nsys …was ended by a signal…nothing usable is left", name="command",
    ),
    Row(
        "SIGKILL of `nsys-launcher`, between nsys and the program", "capture", 10, "failed",
        "nsys-launcher of …was killed under the program; …what it captured is in …", kept=("trace.nsys-rep",),
        resume=Resume(0, ""), name="launcher",
    ),
    Row(
        "SIGKILL of nsys' agent, which takes the events", "capture", 10, "failed", "nsys", name="agent",
    ),
    Row(
        "SIGKILL of the program", "capture", 11, "failed", "the program…SIGKILL", name="program",
    ),
)  # fmt: skip
def test_a_part_of_nsys_is_killed(real: Scene, row: Row) -> None:
    run = real.exec(*command(real), options=("--timeout", "40"))
    wait_for((real.folder / "at work").exists, "the program")
    killed = part(real, row.name)
    # A run looks about once a second at what nsys has started.
    wait_for(lambda: row.name != "launcher" or time.time() - killed.create_time() > 4, "the run to have seen it")
    killed.kill()
    real.check(row, run)


@faults(
    CHAPTER,
    Row(
        "SIGKILL of `nsys-launcher` in its first second", "capture", 10, "failed", "nsys",
        go_on="`resume`, if it is named; else run it again",
    ),
)  # fmt: skip
def test_the_launcher_is_killed_early(real: Scene, row: Row) -> None:
    """Before the run has looked at it, before it has started the program or just after."""
    moment_s = random.uniform(0.0, 1.0)
    run = real.exec(*command(real), options=("--timeout", "40"))
    launcher = real.wait_for_process("nsys-launcher", without="unshare")
    wait_for(lambda: time.time() - launcher.create_time() > moment_s, f"{moment_s:.2f} s")
    launcher.kill()
    real.check(row, run)


@faults(
    CHAPTER,
    Row("Ctrl-C", "capture", 130, "interrupted", "the capture was interrupted; what it captured is in …trace.nsys-rep",
        kept=("trace.nsys-rep",), resume=Resume(0, "exported and checked"), name="once"),
    Row("SIGTERM", "capture", 130, "interrupted", "the capture was interrupted; what it captured is in …trace.nsys-rep",
        kept=("trace.nsys-rep",), resume=Resume(0, "exported and checked"), name="sigterm"),
    Row("SIGKILL of `dsocr-profile`", "capture", -9, "failed", "",
        kept=("trace.nsys-rep",), resume=Resume(0, "exported and checked"), name="sigkill"),
    Row("the program takes longer than `--timeout`", "capture", 14, "timed_out",
        "the capture was ended by --timeout …; what it captured is in …trace.sqlite",
        kept=("trace.nsys-rep", "trace.sqlite"), resume=Resume(0, ""), name="timeout"),
)  # fmt: skip
def test_the_command_is_ended(real: Scene, row: Row) -> None:
    def start(*more: str) -> Started:
        return real.exec(*command(real), options=more)

    at_work = real.folder / "at work"
    if row.name == "timeout":
        real.check(row, real.run_out_of_time(start, at_work.exists))
        assert "prefill" in range_names(real.directory.trace_file)
        return
    run = start("--timeout", "80")
    wait_for(at_work.exists, "the program")
    run.send({"sigterm": signal.SIGTERM, "sigkill": signal.SIGKILL}.get(row.name, signal.SIGINT))
    real.check(row, run)


LEAVES = """
import os, pathlib, signal, sys, time
import nvtx
with nvtx.annotate("prefill"):
    time.sleep(0.01)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.execve("/bin/sleep", ["sleep", "600"], {})
    os._exit(0)
time.sleep(1)
pathlib.Path(sys.argv[1]).touch()
"""
"""Leaves a process that has no mark of the run, no session of the program and no ear for SIGTERM."""


@faults(
    CHAPTER,
    Row("the program leaves processes running (with `--finish 2`)", "capture", 0, "complete",
        "the program has ended and left sleep (…) running…were ended after it: sleep (…)…exported and checked",
        kept=("trace.nsys-rep", "trace.sqlite"), name="its time is over"),
    Row("Ctrl-C where the program has left processes running", "capture", 130, "interrupted",
        "the capture was interrupted; what it captured is in …trace.nsys-rep",
        kept=("trace.nsys-rep",), resume=Resume(0, "exported and checked"), name="Ctrl-C"),
)  # fmt: skip
def test_the_program_leaves_processes(real: Scene, row: Row) -> None:
    (real.folder / "program.py").write_text(LEAVES)
    run = real.exec(*command(real), options=("--grace", "2", *(("--finish", "2") if row.name != "Ctrl-C" else ())))
    wait_for(lambda: "left sleep" in run.stderr, "the run to tell of it")
    if row.name == "Ctrl-C":
        run.send(signal.SIGINT)
    real.check(row, run)


@faults(
    CHAPTER,
    Row("SIGKILL of QdstrmImporter", "end of the capture", 0, "complete", "exported and checked",
        kept=("trace.nsys-rep", "trace.sqlite"), go_on="nothing to do: the stream is imported again"),
)  # fmt: skip
def test_the_importer_is_killed(real: Scene, row: Row) -> None:
    """nsys itself starts it; what it leaves then is the stream, which we import."""
    run = real.exec(*command(real))
    wait_for((real.folder / "at work").exists, "the program")
    (real.folder / "at work").unlink()
    part(real, "importer").kill()
    real.check(row, run)


@faults(
    CHAPTER,
    Row("the disk fills up", "capture", 10, "failed", "the disk is full", go_on="free space, run it again",
        recorded=False, name="capture"),
    Row("the disk is full", "start of the capture", 10, "failed", "the disk is full", go_on="free space, run it again",
        recorded=False, name="start"),
)  # fmt: skip
def test_the_disk_fills_up(real: Scene, row: Row) -> None:
    with small_disk(real.out, "6m") as disk:
        if row.name == "start":
            fill(disk, leave=64 << 10)
            run = real.exec(*command(real), options=("--timeout", "40"))
        else:
            run = real.exec(*command(real), options=("--timeout", "40"))
            wait_for((real.folder / "at work").exists, "the program")
            fill(disk)
            (real.folder / "at work").unlink()
        real.check(row, run, mend=(disk / "ballast").unlink)
