"""Full, read-only and vanished file systems, each really mounted: where nobody may mount, the rows are skipped."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from fault_scene import IMPORTER, Scene, fill, remount, small_disk
from fault_table import Resume, Row, faults
from runner.process.room import little_room_warning

CHAPTER = "Disks"
NOTHING: Final = Resume(10, "nothing was captured, so there is nothing to resume; run it again")
GOES_ON: Final = Resume(0, "")
CAPTURED: Final = ("control.json", "profiled.json", "trace.nsys-rep")


@pytest.fixture
def disk(scene: Scene) -> Iterator[Path]:
    """The folder of the runs is a disk of 8 MB."""
    with small_disk(scene.out, "8m") as place:
        scene.behave("well")
        yield place


@faults(
    CHAPTER,
    Row(
        "the disk is full", "before the start", 10, None, "disk is full", go_on="free space, run it again", name="start",
    ),
)  # fmt: skip
def test_a_full_disk_at_the_start(scene: Scene, disk: Path, row: Row) -> None:
    fill(disk)
    run = scene.run()
    run.code()
    (disk / "ballast").unlink()
    scene.check(row, run)


@faults(
    CHAPTER,
    Row(
        "little room on the disk (here 8 MiB)", "before the start", 0, "complete",
        "warning: …only 8 MiB are free there; a capture and its export may need 1 GiB", kept=("trace.sqlite", "report.html"),
        go_on="nothing to do; free space before a long capture", name="run",
    ),
    Row(
        "little room on the disk (here 8 MiB)", "before the start of `exec`", 0, "complete",
        "warning: …only 8 MiB are free there; a capture and its export may need 1 GiB", kept=("trace.sqlite",),
        go_on="nothing to do; free space before a long capture", name="exec",
    ),
)  # fmt: skip
def test_there_is_little_room(scene: Scene, disk: Path, row: Row) -> None:
    scene.check(row, scene.run() if row.name == "run" else scene.exec("true"))


def test_enough_room_is_worth_no_word(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1100m") as disk:
        assert little_room_warning(disk / "not" / "there" / "yet") is None


@faults(
    CHAPTER,
    Row(
        "the disk fills up", "control run", 10, "failed", "disk is full", resume=NOTHING,
        go_on="free space, run it again", recorded=False, name="control",
    ),
    Row(
        "the disk fills up", "capture", 10, "failed", "disk is full", kept=("control.json",), resume=NOTHING,
        go_on="free space, run it again", recorded=False, name="capture",
    ),
)  # fmt: skip
def test_the_disk_fills_up_while_it_measures(scene: Scene, disk: Path, row: Row) -> None:
    scene.behave(f"waits in {row.name}")
    run = scene.run()
    at_work = scene.wait_for_file(f"{row.name} is at work")
    fill(disk)
    at_work.unlink()
    scene.check(row, run, mend=(disk / "ballast").unlink)


@faults(
    CHAPTER,
    Row(
        "the disk fills up", "export", 12, "failed", "disk is full", kept=CAPTURED, resume=GOES_ON,
        go_on="free space", recorded=False,
    ),
)  # fmt: skip
def test_the_disk_fills_up_in_the_export(scene: Scene, disk: Path, row: Row) -> None:
    scene.behave("well", nsys="waits in the export")
    run = scene.run()
    at_work = scene.wait_for_file("export is at work")
    fill(disk)
    at_work.unlink()
    scene.check(row, run, mend=(disk / "ballast").unlink)


@faults(
    CHAPTER,
    Row(
        "the disk fills up", "report", 13, "failed", "disk is full", kept=(*CAPTURED, "trace.sqlite"), resume=GOES_ON,
        go_on="free space", recorded=False,
    ),
)  # fmt: skip
def test_the_disk_fills_up_while_the_report_is_made(scene: Scene, disk: Path, row: Row) -> None:
    run = scene.run()
    analysis = scene.wait_for_process("analysis.cli")
    analysis.suspend()
    fill(disk)
    analysis.resume()
    scene.check(row, run, mend=(disk / "ballast").unlink)


@faults(
    CHAPTER,
    Row(
        "the disk becomes read-only", "report", 13, "failed", "read-only", kept=(*CAPTURED, "trace.sqlite"), resume=GOES_ON,
        go_on="make it writable", recorded=False,
    ),
)  # fmt: skip
def test_the_disk_becomes_read_only_while_the_report_is_made(scene: Scene, disk: Path, row: Row) -> None:
    run = scene.run()
    analysis = scene.wait_for_process("analysis.cli")
    analysis.suspend()
    at_work = scene.wait_for_file("capture is at work")
    with read_only(disk, at_work):
        analysis.resume()
        run.code()
    scene.check(row, run)


@faults(
    CHAPTER,
    Row(
        "the disk fills up", "import (QdstrmImporter)", 12, "failed", "trace.qdstrm…the disk is full",
        kept=("control.json", "profiled.json", "trace.qdstrm"), resume=GOES_ON, go_on="free space", recorded=False,
    ),
)  # fmt: skip
def test_the_disk_fills_up_in_the_import(scene: Scene, disk: Path, row: Row) -> None:
    scene.behave("well", nsys="stream only")
    waits = "touch 'import is at work'\nwhile test -e 'import is at work'; do sleep 0.05; done\n"
    scene.importer(IMPORTER + waits + "head -c 200000 /dev/zero >>$report || exit 1\n")
    run = scene.run()
    at_work = scene.wait_for_file("import is at work")
    fill(disk)
    at_work.unlink()

    def mend() -> None:
        (disk / "ballast").unlink()
        scene.importer(IMPORTER + "echo whole > $report\n")

    scene.check(row, run, mend=mend)


@faults(
    CHAPTER,
    Row(
        "the disk becomes read-only", "control run", 10, "failed", "read-only", resume=NOTHING,
        go_on="make it writable, run it again", recorded=False, name="control",
    ),
    Row(
        "the disk becomes read-only for `dsocr-profile`", "capture", 10, "failed", "read-only",
        kept=("control.json", "trace.nsys-rep"), resume=GOES_ON, go_on="make it writable", recorded=False, name="capture",
    ),
)  # fmt: skip
def test_the_disk_becomes_read_only(scene: Scene, disk: Path, row: Row) -> None:
    scene.behave(f"waits in {row.name}")
    run = scene.run()
    at_work = scene.wait_for_file(f"{row.name} is at work")
    with read_only(disk, at_work):
        run.code()
    scene.check(row, run)


@contextmanager
def read_only(disk: Path, at_work: Path) -> Iterator[None]:
    """What is opened from now on is read-only; the child, which waits for a file to go, goes on.

    `mount` refuses to make a disk read-only while a log on it is open for writing, so a read-only view is laid over it.
    """
    beside = disk.with_name("beside")
    beside.mkdir()
    subprocess.run(["mount", "--bind", str(disk), str(beside)], check=True)
    subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
        (beside / at_work.relative_to(disk)).unlink()
        yield
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
        subprocess.run(["umount", "-l", str(beside)], check=True)


@faults(
    CHAPTER,
    Row(
        "`--out` is read-only",
        "start",
        2,
        None,
        "the file system is read-only…choose another --out",
        go_on="another `--out`",
    ),
)
def test_a_read_only_disk_at_the_start(scene: Scene, disk: Path, row: Row) -> None:
    remount(disk, "ro")
    run = scene.run()
    run.code()
    remount(disk, "rw")
    scene.check(row, run)


@faults(
    CHAPTER,
    Row("`--out` is a file", "start", 2, None, "out.txt…choose another --out", go_on="another `--out`"),
)
def test_out_is_a_file(scene: Scene, row: Row) -> None:
    place = scene.folder / "out.txt"
    place.touch()
    scene.check(row, scene.start(*scene.run_arguments(out=place)))
