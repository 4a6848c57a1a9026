"""Faults of `dsocr-analyze` on its own: a trace, and where its report goes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from fault_scene import Scene, Started, fill, remount, small_disk, wait_for
from fault_table import Row, faults

CHAPTER: Final = "dsocr-analyze"
AGAIN: Final = "run it again; an earlier report in the folder stays what it was"


def analyse(scene: Scene, trace: Path) -> Started:
    return scene.start(str(trace), "--out", str(scene.out), program="analysis.cli")


def reading(process: psutil.Process, trace: Path) -> bool:
    """Whether a process has the trace open."""
    with suppress(psutil.Error):
        return any(file.path == str(trace) for file in process.open_files())
    return False


@faults(
    CHAPTER,
    Row("Ctrl-C", "reading the trace", 130, None, "interrupted", go_on=AGAIN, name="once"),
    Row("SIGTERM", "reading the trace", 130, None, "interrupted", go_on=AGAIN, name="sigterm"),
    Row("SIGKILL", "reading the trace", -9, None, "", go_on=AGAIN, name="sigkill"),
)
def test_a_signal(scene: Scene, real_trace: Callable[[str], Path], row: Row) -> None:
    trace = real_trace("deepseek-ocr_h100_small")
    command = analyse(scene, trace)
    process = psutil.Process(command.process.pid)
    wait_for(lambda: reading(process, trace), "the trace to be open")
    command.send({"sigterm": signal.SIGTERM, "sigkill": signal.SIGKILL}.get(row.name, signal.SIGINT))
    command.code()
    assert not (scene.out / "report.json").exists()
    scene.check(row, command)


@faults(
    CHAPTER,
    Row("Ctrl-C", "nsys exports the report", 130, None, "interrupted", go_on="run it again", name="once"),
    Row("SIGKILL", "nsys exports the report", -9, None, "", go_on="run it again", name="sigkill"),
)
def test_a_signal_while_nsys_exports(scene: Scene, row: Row) -> None:
    scene.behave("well", nsys="waits in the export")
    scene.environ["NSYS"] = scene.nsys
    report = scene.folder / "recorded.nsys-rep"
    report.write_bytes(b"report")
    command = analyse(scene, report)
    wait_for(lambda: list(scene.folder.glob(".recorded.sqlite.*/export is at work")), "the export")
    command.send(signal.SIGKILL if row.name == "sigkill" else signal.SIGINT)
    scene.check(row, command)
    assert not report.with_suffix(".sqlite").exists()


@faults(
    CHAPTER,
    Row("the disk is full", "writing the report", 2, None, "disk is full", go_on="free space, " + AGAIN, name="full"),
    Row("`--out` is read-only", "writing the report", 2, None, "read-only", go_on="another `--out`", name="read-only"),
)
def test_a_report_that_cannot_be_written(scene: Scene, row: Row) -> None:
    with small_disk(scene.out, "1m") as disk:
        if row.name == "full":
            fill(disk)
        else:
            remount(disk, "ro")
        command = analyse(scene, scene.trace)
        command.code()
        if row.name == "full":
            (disk / "ballast").unlink()
        else:
            remount(disk, "rw")
        scene.check(row, command)


@faults(
    CHAPTER,
    Row("the trace is cut off", "reading the trace", 3, None, "cut.sqlite", go_on="export it again"),
)
def test_a_trace_that_is_cut_off(scene: Scene, row: Row) -> None:
    cut = scene.folder / "cut.sqlite"
    content = scene.trace.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    scene.check(row, analyse(scene, cut))
