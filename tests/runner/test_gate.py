"""The gate at which the program to be captured waits until the control run is over."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from analysis.domain.errors import CaptureError, DsocrError, InterruptedRunError, ModelError
from launch_kit import ROOT, environment, fake_nsys, prepare
from runner.launcher.run_directory import RunDirectory
from runner.process.gate import GATE_VARIABLE, Gate, GateKeeper
from runner.process.process import Interrupts, marked_processes

WAITER = """
import os, sys
from runner.process.gate import Gate
gate = Gate(os.environ)
for name in ("first", "second"):
    gate.wait(lambda: print("waits", flush=True))
    print(name, flush=True)
"""


def waiter(path: Path) -> subprocess.Popen[str]:
    env = environment(**{GATE_VARIABLE: str(path)})
    return subprocess.Popen(
        [sys.executable, "-c", WAITER], env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_program_waits_at_each_passage(tmp_path: Path) -> None:
    with GateKeeper(tmp_path / "gate") as keeper, waiter(keeper.path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        keeper.open(1)
        keeper.open(1)
        assert [process.stdout.readline() for _ in range(2)] == ["first\n", "waits\n"]
        keeper.open(2)
        assert process.stdout.read() == "second\n"
    assert process.returncode == 0
    assert not keeper.path.exists()


def test_an_open_gate_is_not_waited_at(tmp_path: Path) -> None:
    with GateKeeper(tmp_path / "gate") as keeper:
        keeper.open(2)
        with waiter(keeper.path) as process:
            assert process.communicate()[0] == "first\nsecond\n"


def test_a_program_does_not_outlive_its_launcher(tmp_path: Path) -> None:
    with GateKeeper(tmp_path / "gate") as keeper:
        process = waiter(keeper.path)
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
    with process:
        _, errors = process.communicate()
    assert process.returncode == 1
    assert "InterruptedRunError: the launcher is gone" in errors


def test_a_program_that_comes_too_late_does_not_wait_for_a_launcher_that_is_gone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    with waiter(tmp_path / "gate") as process:
        _, errors = process.communicate(timeout=60)
    assert "InterruptedRunError: the launcher is gone" in errors


def test_without_a_gate_nothing_waits(tmp_path: Path) -> None:
    Gate({}).wait()
    Gate({GATE_VARIABLE: str(tmp_path / "gone")}).wait()
    with pytest.raises(CaptureError, match="no named pipe can be made there"), GateKeeper(tmp_path / "no" / "gate"):
        pass


GATED_CHILD = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from runner.process.gate import Gate
from runner.process.progress import ProgressWriter
import scripted_child
folder = Path(sys.argv[1]).parent
role = sys.argv[sys.argv.index("--role") + 1]
writer, gate = ProgressWriter(folder, role), Gate(os.environ)
order = folder / "order"
def note(words):
    with order.open("a") as file:
        file.write(f"{{role}} {{words}}\\n")
note("imported")
gate.wait(lambda: writer.begin("waiting"))
note("loads")
gate.wait(lambda: writer.begin("waiting"))
note("runs")
if role == "control":
    time.sleep(0.3)
    writer.begin("counting")
    time.sleep(0.5)
    until = time.monotonic() + 60
    told = folder / "logs" / "capture.progress.jsonl"
    while "waits for the other" in (folder / "behaviour").read_text() and time.monotonic() < until:
        if told.exists() and "waiting" in told.read_text():
            break
        time.sleep(0.02)
os.environ.pop("DSOCR_PROFILE_GATE", None)  # it has passed both
code = scripted_child.main()
note("ends")
sys.exit(code)
"""


def gated(directory: RunDirectory, role: str) -> list[str]:
    code = GATED_CHILD.format(here=str(Path(__file__).parents[1]))
    argv = [sys.executable, "-c", code, str(directory.plan_file), "--role", role]
    return [*argv, "--manifest", str(directory.manifest_file)] if role == "capture" else argv


def test_nothing_else_is_at_work_while_the_control_run_measures(tmp_path: Path) -> None:
    run = prepare(tmp_path, fake_nsys(tmp_path / "nsys"), command=gated)
    with Interrupts() as interrupts:
        manifest = run.start(interrupts)
    assert manifest.status == "complete"
    order = (run.directory.path / "order").read_text().splitlines()
    assert order[:3] == ["control imported", "control loads", "control runs"]
    # The other program starts when FLOPs are counted, for 0.5 s here, and need not be ready before that is over.
    assert order.index("capture imported") < order.index("capture loads") < order.index("capture runs")
    assert order.index("control ends") < order.index("capture runs")
    assert order[-1] == "capture ends"
    counting = next(phase for phase in manifest.phases if (phase.program, phase.step) == ("control", "counting"))
    started = next(phase for phase in manifest.phases if phase.program == "capture")
    assert started.start_s >= counting.start_s
    assert marked_processes(run.plan.run_id) == []
    assert marked_processes(f"{run.plan.run_id}-control") == []


def test_what_the_program_tells_while_it_waits_beside_the_control_run_is_kept(tmp_path: Path) -> None:
    """Who followed it from the end of the control run on took away the file that it wrote to."""
    run = prepare(tmp_path, fake_nsys(tmp_path / "nsys"), "waits for the other", command=gated)
    with Interrupts() as interrupts:
        manifest = run.start(interrupts)
    assert "waiting" in [phase.step for phase in manifest.phases if phase.program == "capture"]
    assert (run.directory.path / "logs" / "capture.progress.jsonl").is_file()


def test_a_control_run_that_fails_takes_the_waiting_program_with_it(tmp_path: Path) -> None:
    run = prepare(tmp_path, fake_nsys(tmp_path / "nsys"), "model error in control", command=gated)
    with Interrupts() as interrupts, pytest.raises(ModelError, match="no such folder"):
        run.start(interrupts)
    assert "capture runs" not in (run.directory.path / "order").read_text()
    manifest = run.directory.read_manifest()
    assert (manifest.status, manifest.exit_codes.control, manifest.exit_codes.child) == ("failed", 5, None)
    assert marked_processes(run.plan.run_id) == []


def test_ctrl_c_while_the_control_run_measures_ends_both(tmp_path: Path) -> None:
    run = prepare(tmp_path, fake_nsys(tmp_path / "nsys"), "hang in control", command=gated)
    with Interrupts() as interrupts:

        def interrupt() -> None:
            while not (run.directory.path / "control is at work").exists():
                time.sleep(0.02)
            interrupts.count += 1

        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(DsocrError) as caught:
            run.start(interrupts)
    assert isinstance(caught.value, InterruptedRunError)
    assert run.directory.read_manifest().status == "interrupted"
    assert marked_processes(run.plan.run_id) == []


def test_ranks_start_after_the_control_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait for each other at work, which would disturb it."""
    from runner.launcher import run as launcher

    monkeypatch.setattr(launcher, "rank_command", lambda ranks, command: list(command))  # no torchrun: one process
    run = prepare(tmp_path, None, command=gated, tensor_parallel=2)
    with Interrupts() as interrupts, pytest.raises(DsocrError):  # no rank writes a trace
        run.start(interrupts)
    order = (run.directory.path / "order").read_text().splitlines()
    assert order.index("control ends") < order.index("capture imported")
