"""Faults while a run measures: in the control run, and under the profiler."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import psutil

from fault_scene import Scene
from fault_table import Resume, Row, faults
from runner.process.supervised import is_supervisor

CONTROL, CAPTURE = "Control run", "Capture"
NOTHING = Resume(10, "nothing was captured, so there is nothing to resume; run it again")
PARTIAL = Resume(0, "partial capture: ended by …; 1 of 1 image")


@faults(
    CONTROL,
    Row("Ctrl-C", "control run", 130, "interrupted", "the control run was interrupted", resume=NOTHING, name="once"),
    Row(
        "SIGTERM", "control run", 130, "interrupted", "the control run was interrupted", resume=NOTHING, name="sigterm"
    ),
    Row(
        "Ctrl-C twice, and the program ignores SIGTERM", "control run", 130, "interrupted",
        "the control run was interrupted", resume=NOTHING, name="twice",
    ),
    Row(
        "SIGHUP, twice: the terminal was closed", "control run", 130, "interrupted",
        "the control run was ended by SIGHUP (the terminal was closed)", resume=NOTHING, name="sighup",
    ),
    Row(
        "SIGQUIT", "control run", 130, "interrupted", "the control run was ended by SIGQUIT", resume=NOTHING,
        name="sigquit",
    ),
    Row(
        "SIGKILL of `dsocr-profile`", "control run", -9, "failed", "", resume=NOTHING, name="sigkill",
    ),
)  # fmt: skip
def test_a_signal_in_the_control_run(scene: Scene, row: Row) -> None:
    scene.behave("stubborn at once, hang in control" if row.name == "twice" else "hang in control")
    run = scene.run(*(("--grace", "300") if row.name == "twice" else ()))
    scene.wait_for_file("control is at work")
    numbers = {"sigterm": signal.SIGTERM, "sigkill": signal.SIGKILL, "sighup": signal.SIGHUP, "sigquit": signal.SIGQUIT}
    number = numbers.get(row.name, signal.SIGINT)
    run.send(number)
    if row.name == "sighup":
        run.send(number)
    if row.name == "twice":
        scene.wait_for_file("control heard SIGTERM")
        run.send(number)
    scene.check(row, run)


@faults(
    CONTROL,
    Row(
        "nobody reads what it says any more (`2>&1 | head -1`)", "control run", 141, "complete", "",
        kept=("control.json", "trace.sqlite", "report.html"),
        go_on="nothing to do: the run went on, and its results are there", name="all",
    ),
    Row(
        "nobody reads its progress any more, and standard output is a file", "control run", 0, "complete", "",
        kept=("control.json", "trace.sqlite", "report.html"), go_on="nothing to do", name="progress",
    ),
)  # fmt: skip
def test_the_reader_goes_away(scene: Scene, row: Row) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    run = scene.run(stdout=writing if row.name == "all" else None, stderr=writing)
    os.close(writing)
    scene.check(row, run)
    assert scene.directory.read_record().error is None
    assert bool(run.stdout) == (row.name == "progress")


@faults(
    CONTROL,
    Row(
        "the program takes longer than `--timeout`", "control run", 14, "timed_out",
        "the control run was ended by --timeout …", resume=NOTHING,
    ),
)  # fmt: skip
def test_a_time_out_of_the_control_run(scene: Scene, row: Row) -> None:
    scene.behave("hang in control")
    scene.check(row, scene.run_out_of_time(scene.run, lambda: scene.there("control is at work")))


@faults(
    CONTROL,
    Row("SIGKILL of the program", "control run", 11, "failed", "SIGKILL…in the control run", resume=NOTHING, name="kill"),
    Row(
        "the program fails", "control run", 11, "failed", "failed with exit code 7 in the control run: …made of cheese",
        resume=NOTHING, name="fails",
    ),
    Row(
        "the model cannot be loaded", "control run", 5, "failed", "/models/none: no such folder", resume=NOTHING,
        go_on="run it again with another model", name="model",
    ),
)  # fmt: skip
def test_the_program_ends_in_the_control_run(scene: Scene, row: Row) -> None:
    behaviour = {"kill": "hang in control", "fails": "crash in control", "model": "model error in control"}
    scene.behave(behaviour[row.name])
    run = scene.run()
    if row.name == "kill":
        scene.wait_for_file("control is at work")
        scene.wait_for_process("--role control").kill()
    scene.check(row, run)


@faults(
    CAPTURE,
    Row(
        "Ctrl-C", "capture", 130, "interrupted", "the capture was interrupted; what it captured is in …trace.nsys-rep",
        kept=("control.json", "trace.nsys-rep"), resume=PARTIAL, name="once",
    ),
    Row(
        "SIGTERM", "capture", 130, "interrupted", "the capture was interrupted; what it captured is in …trace.nsys-rep",
        kept=("control.json", "trace.nsys-rep"), resume=PARTIAL, name="sigterm",
    ),
    Row(
        "Ctrl-C, and the program ignores SIGTERM", "capture", 130, "interrupted",
        "the capture was interrupted; what it captured is in …trace.nsys-rep",
        kept=("control.json", "trace.nsys-rep"), resume=PARTIAL, name="stubborn",
    ),
    Row(
        "Ctrl-C twice, and the program ignores SIGTERM", "capture", 130, "interrupted",
        "the capture was interrupted; it was killed, and nothing usable is left",
        kept=("control.json",), resume=NOTHING, name="twice",
    ),
)  # fmt: skip
def test_a_signal_in_the_capture(scene: Scene, row: Row) -> None:
    scene.behave("stubborn at once, hang" if row.name in ("stubborn", "twice") else "hang")
    run = scene.run(*(("--grace", "300") if row.name == "twice" else ()))
    scene.wait_for_file("capture is at work")
    run.send(signal.SIGTERM if row.name == "sigterm" else signal.SIGINT)
    if row.name == "twice":
        scene.wait_for_file("capture heard SIGTERM")
        run.send(signal.SIGINT)
    scene.check(row, run)


@faults(
    CAPTURE,
    Row(
        "Ctrl-C before the first image was through", "capture", 130, "interrupted",
        "the capture was interrupted; what it captured is in …trace.nsys-rep",
        kept=("control.json", "trace.nsys-rep"),
        resume=Resume(4, "partial capture: ended by …; 0 of 1 image: the program was ended before its first image was through"),
        go_on="run it again",
    ),
)  # fmt: skip
def test_ctrl_c_before_the_first_image_was_through(scene: Scene, cut_trace: Path, row: Row) -> None:
    scene.export(cut_trace)
    scene.behave("hang")
    run = scene.run()
    scene.wait_for_file("capture is at work")
    run.send(signal.SIGINT)
    scene.check(row, run)


@faults(
    CAPTURE,
    Row(
        "SIGKILL of `dsocr-profile`", "capture", -9, "failed", "", kept=("control.json", "trace.nsys-rep"), resume=PARTIAL,
    ),
)  # fmt: skip
def test_the_launcher_is_killed_in_the_capture(scene: Scene, row: Row) -> None:
    """The program is ended, nsys still writes its report, and nobody measures beside it meanwhile."""
    scene.behave("hang")
    run = scene.run()
    scene.wait_for_file("capture is at work")
    run.send(signal.SIGKILL)
    scene.check(row, run)


@faults(
    CAPTURE,
    Row(
        "the program takes longer than `--timeout`", "capture", 14, "timed_out",
        "the capture was ended by --timeout …; what it captured is in …trace.sqlite",
        kept=("control.json", "trace.nsys-rep", "trace.sqlite"), resume=PARTIAL, name="hangs",
    ),
    Row(
        "the program is stopped (SIGSTOP), with `--timeout`", "capture", 14, "timed_out",
        "the capture was ended by --timeout …; what it captured is in …trace.sqlite",
        kept=("control.json", "trace.nsys-rep", "trace.sqlite"), resume=PARTIAL, name="stopped",
    ),
    Row(
        "the program's supervisor is stopped (SIGSTOP), with `--timeout`", "capture", 14, "timed_out",
        "the capture was ended by --timeout …; what it captured is in …trace.sqlite",
        kept=("control.json", "trace.nsys-rep", "trace.sqlite"), resume=PARTIAL, name="supervisor",
    ),
)  # fmt: skip
def test_a_time_out_of_the_capture(scene: Scene, row: Row) -> None:
    scene.behave("hang")

    def stop() -> None:
        if row.name == "stopped":
            scene.wait_for_process("--role capture", without="nsys").suspend()
        if row.name == "supervisor":
            for process in psutil.Process(scene.started[-1].process.pid).children():
                if is_supervisor(process):
                    process.suspend()

    scene.check(row, scene.run_out_of_time(scene.run, lambda: scene.there("capture is at work"), stop))


@faults(
    CAPTURE,
    Row(
        "SIGKILL of the program", "capture", 11, "failed", "SIGKILL…what was captured before is kept in …trace.sqlite",
        kept=("control.json", "trace.nsys-rep", "trace.sqlite"), resume=PARTIAL, name="kill",
    ),
    Row(
        "the program fails late", "capture", 11, "failed",
        "failed with exit code 9 under nsys: …out of cheese…what was captured before is kept in …trace.sqlite",
        kept=("control.json", "trace.nsys-rep", "trace.sqlite"), resume=PARTIAL, name="fails",
    ),
)  # fmt: skip
def test_the_program_ends_in_the_capture(scene: Scene, row: Row) -> None:
    scene.behave({"kill": "hang", "fails": "late crash"}[row.name])
    run = scene.run()
    if row.name == "kill":
        scene.wait_for_file("capture is at work")
        scene.wait_for_process("--role capture", without="nsys").kill()
    scene.check(row, run)


@faults(
    CAPTURE,
    Row(
        "nsys refuses an option", "capture", 10, "failed", "nsys did not start the program…the option is not allowed",
        kept=("control.json",), resume=NOTHING, name="refuses",
    ),
    Row(
        "nsys leaves no report, and exits 0", "capture", 10, "failed", "nsys left no report",
        kept=("control.json",), resume=NOTHING, name="no report",
    ),
    Row(
        "SIGKILL of nsys when the program has ended", "capture", 10, "failed", "nsys …was ended by a signal…nothing usable is left",
        kept=("control.json",), resume=NOTHING, name="waits at the end",
    ),
)  # fmt: skip
def test_nsys_fails(scene: Scene, row: Row) -> None:
    scene.behave("well", nsys=row.name)
    run = scene.run()
    if row.name == "waits at the end":
        scene.wait_for_file("nsys is at work")
        scene.wait_for_process("nsys profile", without="unshare").kill()
    scene.check(row, run)


@faults(
    CAPTURE,
    Row(
        "nsys hangs before it starts the program, with `--timeout`", "capture", 14, "timed_out",
        "the capture was ended by --timeout …", kept=("control.json",), resume=NOTHING, name="hangs at start",
    ),
    Row(
        "`--timeout` ends the program, and nsys hangs (with `--finish 1`)", "capture", 14, "timed_out",
        "the capture was ended by --timeout …; it was killed, and nothing usable is left", kept=("control.json",), resume=NOTHING,
        name="hangs at the end",
    ),
)  # fmt: skip
def test_nsys_hangs_until_the_time_is_over(scene: Scene, row: Row) -> None:
    scene.behave("hang", nsys=row.name)
    where = "nsys hangs" if row.name == "hangs at start" else "capture is at work"
    run = scene.run_out_of_time(lambda *more: scene.run("--finish", "1", *more), lambda: scene.there(where))
    scene.check(row, run)


@faults(
    CAPTURE,
    Row(
        "nsys hangs when its program has ended (with `--finish 1`)", "capture", 10, "failed",
        "nsys (version 2099.1.0) had not ended …s after the program, and was killed; it left nothing",
        kept=("control.json",), resume=NOTHING,
    ),
)  # fmt: skip
def test_nsys_hangs_when_its_program_has_ended(scene: Scene, row: Row) -> None:
    scene.behave("well", nsys="hangs at the end")
    scene.check(row, scene.run("--finish", "1"))


@faults(
    CONTROL,
    Row(
        "the run's folder vanishes (`rm -rf`)", "control run", 10, None, "…is not there any more", name="control",
    ),
)  # fmt: skip
def test_the_folder_vanishes_in_the_control_run(scene: Scene, row: Row) -> None:
    vanish(scene, row, "control")


@faults(
    CAPTURE,
    Row(
        "the run's folder vanishes (`rm -rf`)", "capture", 10, None, "…is not there any more", name="capture",
    ),
)  # fmt: skip
def test_the_folder_vanishes_in_the_capture(scene: Scene, row: Row) -> None:
    vanish(scene, row, "capture")


def vanish(scene: Scene, row: Row, role: str) -> None:
    scene.behave(f"waits in {role}")
    run = scene.run()
    folder = scene.wait_for_file(f"{role} is at work").parent
    shutil.rmtree(folder)
    scene.check(row, run)
