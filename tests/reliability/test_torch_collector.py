"""Faults of a capture by torch.profiler, inside the program itself: the real program and a tiny model."""

from __future__ import annotations

import json
import signal
from typing import Final

import pytest

from fault_scene import Scene, Started, wait_for
from fault_table import Resume, Row, faults

pytestmark = pytest.mark.integration

CHAPTER: Final = "torch.profiler"
GOES_ON: Final = Resume(0, "")
NOTHING: Final = Resume(10, "nothing was captured, so there is nothing to resume; run it again")
KEPT: Final = ("control.json", "trace.sqlite")


def start(scene: Scene, *more: str) -> Started:
    """Start a run that records many passes."""
    argv = ["run", "deepseek-ocr-tiny", "--device", "cpu", "--collector", "torch", "--images", str(scene.page())]
    argv += ["--repeats", "1", "--max-new-tokens", "4", "--capture-passes", "5000", "--grace", "30", "--ignore-eos"]
    return scene.start(*argv, "--out", str(scene.out), *more, stand_in=False)


def recorded(scene: Scene) -> int:
    """How many passes it has recorded."""
    files = scene.out.glob("*-*-*-*-*/logs/capture.progress.jsonl")
    lines = [line for file in files for line in file.read_text().splitlines()]
    return max((json.loads(line).get("passes_done", 0) for line in lines if line.endswith("}")), default=0)


@faults(
    CHAPTER,
    Row("Ctrl-C", "capture", 130, "interrupted", "the capture was interrupted; what it captured is in …trace.sqlite",
        kept=KEPT, resume=GOES_ON, name="once"),
    Row("SIGTERM", "capture", 130, "interrupted", "the capture was interrupted; what it captured is in …trace.sqlite",
        kept=KEPT, resume=GOES_ON, name="sigterm"),
    Row("SIGKILL of the program", "capture", 11, "failed", "the program was ended by SIGKILL",
        kept=("control.json",), resume=NOTHING, name="program"),
    Row("SIGKILL of `dsocr-profile`", "capture", -9, "failed", "", kept=KEPT, resume=GOES_ON, name="sigkill"),
)  # fmt: skip
def test_a_signal_in_the_capture(scene: Scene, row: Row) -> None:
    run = start(scene)
    wait_for(lambda: recorded(scene) >= 1, "a recorded pass")
    if row.name == "program":
        scene.wait_for_process("--role capture").kill()
    else:
        run.send({"sigterm": signal.SIGTERM, "sigkill": signal.SIGKILL}.get(row.name, signal.SIGINT))
    run.code()
    assert ("of a program that is killed nothing is left" in run.stderr) == (row.name == "program")
    scene.check(row, run)


@faults(
    CHAPTER,
    Row("the program hangs (SIGSTOP), with `--timeout`", "capture", 14, "timed_out",
        "the capture was ended by --timeout …; what it captured is in …trace.sqlite", kept=KEPT, resume=GOES_ON),
)  # fmt: skip
def test_a_time_out(scene: Scene, row: Row) -> None:
    run = scene.run_out_of_time(
        lambda *more: start(scene, *more),
        lambda: recorded(scene) >= 1,
        lambda: scene.wait_for_process("--role capture").suspend(),
        limits_s=(20, 40, 80),
    )
    scene.check(row, run)
