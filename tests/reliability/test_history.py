"""Faults of the history: a run is worth more than its entry, so it completes and says what is missing."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fault_scene import Scene, fill, small_disk, wait_for
from fault_table import Resume, Row, faults

CHAPTER = "History"
NOT_IN = "warning: this run is not in the history: …history.sqlite"
WHOLE = ("trace.sqlite", "report.html", "report.json")


@pytest.fixture
def scene(tmp_path: Path, small_trace: Path) -> Iterator[Scene]:
    made = Scene(tmp_path, small_trace, history=True)
    yield made
    made.end()


@faults(
    CHAPTER,
    Row(
        "another program has locked the history", "recording", 0, "complete", NOT_IN + ": other processes have been writing for",
        kept=WHOLE,
        go_on="`history import` when it is free",
    ),
)  # fmt: skip
def test_the_history_is_locked(scene: Scene, row: Row) -> None:
    first = scene.do(*scene.run_arguments())
    assert first.code() == 0, first.stderr
    run_id = scene.directory.path.name
    scene.environ["DSOCR_STAND_IN_PATIENCE_S"] = "1"
    with closing(sqlite3.connect(scene.out / "history.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        run = scene.run()
        run.code()
    (second,) = [directory for directory in scene.directories() if directory.path.name != run_id]
    scene.check(row, run, directory=second)
    imported = scene.do("history", "import", str(second.path), "--store", str(scene.out / "history.sqlite"))
    assert imported.code() == 0, imported.stderr


@faults(
    CHAPTER,
    Row(
        "the disk of the history is full", "recording", 0, "complete", NOT_IN + ": the disk is full", kept=WHOLE,
        go_on="free space, `history import`", name="full",
    ),
    Row(
        "the history's folder cannot be written", "recording", 0, "complete", NOT_IN, kept=WHOLE,
        go_on="mend it, `history import`", name="file",
    ),
)  # fmt: skip
def test_the_history_cannot_be_written(scene: Scene, row: Row) -> None:
    place = scene.folder / "store"
    if row.name == "file":
        place.touch()
        run = scene.run("--store", str(place / "history.sqlite"))
        scene.check(row, run)
        return
    with small_disk(place, "100k") as disk:
        fill(disk)
        run = scene.run("--store", str(disk / "history.sqlite"))
        run.code()
        scene.check(row, run)


@faults(
    CHAPTER,
    Row(
        "SIGKILL of `dsocr-profile`", "recording", -9, "complete", "", kept=WHOLE,
        resume=Resume(0, ""), go_on="`history import`",
    ),
)  # fmt: skip
def test_killed_while_it_records(scene: Scene, row: Row) -> None:
    """The history is locked by another program, so that the run is seen to wait for it."""
    first = scene.do(*scene.run_arguments())
    assert first.code() == 0, first.stderr
    run_id = scene.directory.path.name
    with closing(sqlite3.connect(scene.out / "history.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        run = scene.run()
        wait_for(lambda: complete(scene) == 2, "the second run to be complete")
        run.send(signal.SIGKILL)
        run.code()
    (second,) = [directory for directory in scene.directories() if directory.path.name != run_id]
    scene.check(row, run, directory=second)


def complete(scene: Scene) -> int:
    """How many runs are complete; their recording follows."""
    records = [directory for directory in scene.directories() if directory.manifest_file.is_file()]
    return sum(directory.read_record().status == "complete" for directory in records)
