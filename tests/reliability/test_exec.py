"""Faults of `exec`: a program of the user's, a server and its load, under a fake nsys; the real one has rows of its own."""

from __future__ import annotations

import shlex
import signal
import sys

import psutil

from fault_scene import Scene, wait_for
from fault_table import Resume, Row, faults
from runner.process.supervised import is_supervisor

CHAPTER = "exec: any program"
NOTHING = Resume(10, "nothing was captured, so there is nothing to resume; run it again")
GOES_ON = Resume(0, "")
PROGRAM = """
import os, pathlib, signal, subprocess, sys, time
folder, how = pathlib.Path(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
if how == "forks":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
if how == "fails":
    sys.exit("out of cheese")
(folder / "at work").touch()
while (folder / "at work").exists():
    time.sleep(0.02)
"""


def command(scene: Scene, how: str) -> list[str]:
    file = scene.folder / "program.py"
    file.write_text(PROGRAM)
    return [sys.executable, str(file), str(scene.folder), how]


@faults(
    CHAPTER,
    Row(
        "Ctrl-C", "capture", 130, "interrupted", "the capture was interrupted; what it captured is in …trace.nsys-rep",
        kept=("trace.nsys-rep",), resume=GOES_ON, name="once",
    ),
    Row(
        "SIGTERM; the program has started another one in a session of its own", "capture", 130, "interrupted",
        "the capture was interrupted; what it captured is in …trace.nsys-rep",
        kept=("trace.nsys-rep",), resume=GOES_ON, name="forks",
    ),
    Row(
        "SIGKILL of `dsocr-profile`; the program has started another one in a session of its own", "capture", -9,
        "failed", "", kept=("trace.nsys-rep",), resume=GOES_ON, name="sigkill",
    ),
)  # fmt: skip
def test_a_signal_in_the_capture(scene: Scene, row: Row) -> None:
    run = scene.exec(*command(scene, "waits" if row.name == "once" else "forks"))
    wait_for((scene.folder / "at work").exists, "the program")
    run.send({"once": signal.SIGINT, "forks": signal.SIGTERM}.get(row.name, signal.SIGKILL))
    scene.check(row, run)


@faults(
    CHAPTER,
    Row(
        "SIGKILL of the program's supervisor", "capture", 10, "failed",
        "the capture: the supervisor of the program (…supervise.py) was killed, and all that it had started ended with it",
        resume=NOTHING, name="capture",
    ),
    Row(
        "SIGKILL of the program's supervisor", "control run (`--control 1`)", 10, "failed",
        "the control run: the supervisor of the program (…supervise.py) was killed…run it again",
        resume=NOTHING, name="control",
    ),
)  # fmt: skip
def test_the_supervisor_is_killed(scene: Scene, row: Row) -> None:
    """Its own exit code was taken for that of nsys, and the out-of-memory killer was blamed."""
    run = scene.exec(*command(scene, "waits"), options=("--control", "1") if row.name == "control" else ())
    wait_for((scene.folder / "at work").exists, "the program")
    for process in psutil.Process(run.process.pid).children():
        if is_supervisor(process):
            process.kill()
    scene.check(row, run)


@faults(
    CHAPTER,
    Row(
        "Ctrl-C", "control run (`--control 1`)", 130, "interrupted", "the control run was interrupted",
        resume=NOTHING, name="once",
    ),
    Row(
        "SIGKILL of the program", "control run (`--control 1`)", 11, "failed", "SIGKILL…in the control run",
        resume=NOTHING, name="kill",
    ),
)  # fmt: skip
def test_a_signal_in_the_control_run(scene: Scene, row: Row) -> None:
    argv = command(scene, "waits")
    run = scene.exec(*argv, options=("--control", "1"))
    wait_for((scene.folder / "at work").exists, "the program")
    if row.name == "kill":
        scene.wait_for_process(*argv[1:], without="runner.cli").kill()
    else:
        run.send(signal.SIGINT)
    scene.check(row, run)


@faults(
    CHAPTER,
    Row(
        "the program takes longer than `--timeout`", "capture", 14, "timed_out",
        "the capture was ended by --timeout …; what it captured is in …trace.sqlite",
        kept=("trace.nsys-rep", "trace.sqlite"), resume=GOES_ON,
    ),
)  # fmt: skip
def test_a_time_out(scene: Scene, row: Row) -> None:
    argv = command(scene, "waits")
    run = scene.run_out_of_time(lambda *more: scene.exec(*argv, options=more), (scene.folder / "at work").exists)
    scene.check(row, run)


@faults(
    CHAPTER,
    Row(
        "the program fails", "capture", 11, "failed",
        "the program ended with exit code 1 under nsys: out of cheese…what was captured before is kept in …trace.sqlite",
        kept=("trace.nsys-rep", "trace.sqlite"), resume=GOES_ON,
    ),
)  # fmt: skip
def test_the_program_fails(scene: Scene, row: Row) -> None:
    scene.check(row, scene.exec(*command(scene, "fails")))


@faults(
    CHAPTER,
    Row(
        "the export is damaged afterwards, and the report is there", "`resume`", 0, "complete",
        "trace.sqlite: the export is damaged…it is trace.sqlite.damaged now, and the export is made again",
        kept=("trace.nsys-rep", "trace.sqlite", "trace.sqlite.damaged"), resume=GOES_ON,
    ),
)  # fmt: skip
def test_a_damaged_export_of_a_program(scene: Scene, row: Row) -> None:
    """Without a GPU it was `resume` itself that recommended `resume`."""
    run = scene.exec(*command(scene, "waits"))
    wait_for((scene.folder / "at work").exists, "the program")
    (scene.folder / "at work").unlink()
    assert run.code() == 0, run.stderr
    with scene.directory.trace_file.open("r+b") as export:
        export.seek(100)
        export.write(b"\xff" * 8192)
    resumed = scene.do("resume", scene.directory.path.name, "--out", str(scene.out), "--nsys", scene.nsys)
    scene.check(row, resumed)


@faults(
    CHAPTER,
    Row(
        "the server ends before its load", "capture", 11, "failed",
        "the server ended with exit code 1 under nsys before its load had ended: out of cheese",
        kept=("trace.nsys-rep", "trace.sqlite"), resume=GOES_ON, name="server",
    ),
    Row(
        "SIGKILL of the load", "capture", 11, "failed", "the load…SIGKILL…kept in …trace.sqlite",
        kept=("trace.nsys-rep", "trace.sqlite"), resume=GOES_ON, name="load",
    ),
    Row(
        "the server never answers (`--ready-timeout`)", "capture", 14, "timed_out", "did not answer …in 2 s",
        kept=("trace.nsys-rep", "trace.sqlite"), resume=GOES_ON, name="ready",
    ),
)  # fmt: skip
def test_a_server_and_its_load(scene: Scene, row: Row) -> None:
    load = scene.folder / "load.py"
    load.write_text("import time; time.sleep(300)")
    # Without the run's mark it is still at work when the server is known to have ended.
    unmarked = ["env", "-i"] if row.name == "server" else []
    options = ["--load", shlex.join([*unmarked, sys.executable, str(load)])]
    if row.name == "ready":
        options += ["--ready-url", "http://127.0.0.1:9/health", "--ready-timeout", "2"]
    run = scene.exec(*command(scene, "fails" if row.name == "server" else "waits"), options=options)
    if row.name == "load":
        wait_for((scene.folder / "at work").exists, "the program")
        scene.wait_for_process("load.py", without="runner.cli").kill()
    scene.check(row, run)
