"""Faults of what measures for long: a sweep and two settings in turns. What was measured stays."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from fault_scene import Scene, Started, fill, small_disk, wait_for
from fault_table import Row, faults
from runner.launcher.run_directory import RunDirectory
from runner.plan.sweep import POINTS_FOLDER, RESULT_NAME

SWEEP, AB = "sweep", "ab"
ENDED = "interrupted; 1 of 3 results are in …: the same command goes on"
THE_SAME = "the same command goes on with the other points"


def sweep(scene: Scene) -> Started:
    """Three points of a tiny model on this CPU: the real program, whose second point takes a while."""
    argv = ["sweep", "llama-tiny", "--device", "cpu", "--batch-size", "1,64,2", "--max-new-tokens", "16"]
    argv += ["--passes", "1", "--window-steps", "0"]
    return scene.start(*argv, "--out", str(scene.folder / "sweep"))


def measured(folder: Path) -> dict[str, Any]:
    """What was timed, by point; the window's analysis adds to the file later."""
    return {
        file.parent.name: json.loads(file.read_text())["passes"]
        for file in folder.glob(f"{POINTS_FOLDER}/*/{RESULT_NAME}")
    }


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "sweep.json").read_text())
    return found


def goes_on(scene: Scene, kept: dict[str, Any]) -> None:
    """The same command ends the sweep, and what was measured before is what it was."""
    folder = scene.folder / "sweep"
    again = sweep(scene)
    assert again.code() == 0, again.stderr
    now = measured(folder)
    assert {point: now[point] for point, passes in kept.items() if passes} == {
        point: passes for point, passes in kept.items() if passes
    }
    assert record(folder)["status"] == "complete"
    assert len(measured(folder)) == 3
    scene.check_nothing_runs()
    scene.check_files(folder)


@pytest.mark.integration
@faults(
    SWEEP,
    Row("Ctrl-C", "a point", 130, None, ENDED, go_on=THE_SAME, name="once"),
    Row("SIGTERM", "a point", 130, None, ENDED, go_on=THE_SAME, name="sigterm"),
    Row("SIGKILL of `dsocr-profile`", "a point", -9, None, "", go_on=THE_SAME, name="sigkill"),
    Row(
        "SIGKILL of the program that holds the model", "a point", 0, None, "the program is started again for the other points",
        go_on="nothing to do: that point is `failed`, and " + THE_SAME, name="program",
    ),
)  # fmt: skip
def test_a_signal_in_a_sweep(scene: Scene, row: Row) -> None:
    folder = scene.folder / "sweep"
    run = sweep(scene)
    wait_for(lambda: len(measured(folder)) == 1, "the first point")
    if row.name == "program":
        scene.wait_for_process("runner.child.sweep").kill()
    else:
        run.send({"sigterm": signal.SIGTERM, "sigkill": signal.SIGKILL}.get(row.name, signal.SIGINT))
    run.code()
    kept = measured(folder)
    assert record(folder)["status"] in {"program": ("complete",), "sigkill": ("running",)}.get(
        row.name, ("unfinished",)
    )
    scene.check_nothing_runs()
    scene.check_files(folder, killed=row.code == -9)
    scene.check(row, run)
    goes_on(scene, kept)


@pytest.mark.integration
@faults(
    SWEEP,
    Row("the disk fills up", "a point", 10, None, "the disk is full", go_on="free space; " + THE_SAME),
)
def test_a_full_disk_in_a_sweep(scene: Scene, row: Row) -> None:
    with small_disk(scene.folder / "sweep", "8m") as folder:
        run = sweep(scene)
        wait_for(lambda: len(measured(folder)) == 1, "the first point")
        fill(folder)
        run.code()
        kept = measured(folder)
        (folder / "ballast").unlink()
        scene.check(row, run)
        goes_on(scene, kept)


@faults(
    AB,
    Row(
        "Ctrl-C", "second round", 130, "interrupted", "the control run was interrupted", kept=("control.json",),
        go_on="what was measured is in `ab.json` and in the folders of both runs; run it again", name="once",
    ),
    Row(
        "SIGKILL of `dsocr-profile`", "second round", -9, "failed", "", kept=("control.json",),
        go_on="what was measured is in `ab.json` and in the folders of both runs; run it again", name="sigkill",
    ),
)  # fmt: skip
def test_a_signal_in_ab(scene: Scene, row: Row) -> None:
    """The first side has measured once when the second one is at it."""
    setting = scene.folder / "setting.json"
    wanted = {"model": "deepseek-ocr-tiny", "images": str(scene.page()), "device": "cpu", "repeats": 1, "grace": 1}
    setting.write_text(json.dumps({**wanted, "collector": "nsys", "nsys": scene.nsys}))
    scene.behave("waits in control")
    run = scene.start("ab", str(setting), str(setting), "--rounds", "2", "--out", str(scene.out))
    first = scene.wait_for_file("control is at work")
    scene.behave("hang in control")
    first.unlink()
    wait_for(lambda: (scene.out / first.parent.name / "control.json").is_file(), "the first round")
    second = scene.wait_for_file("control is at work").parent
    assert second != first.parent
    run.send(signal.SIGKILL if row.name == "sigkill" else signal.SIGINT)
    run.code()
    (folder,) = scene.out.glob("ab-*")
    kept = json.loads((folder / "ab.json").read_text())
    assert (len(kept["rounds"]), kept["finished_at"]) == (1, None)
    if row.name == "once":
        statuses = [json.loads((Path(kept[side]["run_dir"]) / "run.json").read_text())["status"] for side in "ab"]
        assert statuses == ["interrupted", "interrupted"]
    scene.check(row, run, directory=RunDirectory(first.parent))
