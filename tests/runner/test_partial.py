"""What comes of a capture whose program was ended before it was through: kept, resumed as often as one likes, told as it is."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from analysis.domain.errors import (
    AnalysisFailedError,
    CaptureError,
    ChildFailedError,
    DsocrError,
    InterruptedRunError,
    TimeoutExceededError,
    UnfitTraceError,
)
from launch_kit import ROOT, analysed, environment, fake_nsys, prepare, signal_when, start_launcher
from program_kit import program, program_run
from runner.collectors.nsys.tool import NsysTool
from runner.launcher.program import ProgramRun
from runner.launcher.queue import run_state
from runner.launcher.run import Run
from runner.launcher.run_directory import RunDirectory
from runner.process.process import Interrupts


@pytest.fixture
def tool(tmp_path: Path) -> NsysTool:
    return fake_nsys(tmp_path / "nsys")


def ended_early(run: Run, kind: type[DsocrError]) -> None:
    with Interrupts() as interrupts:
        if kind is InterruptedRunError:
            signal_when(run.directory.path / "capture is at work")
        with pytest.raises(kind):
            run.start(interrupts)


def resumed(run: Run) -> None:
    with Interrupts() as interrupts:
        run.resume(interrupts)


@pytest.mark.parametrize(
    ("behaviour", "settings", "kind", "status", "partial"),
    [
        ("hang", {}, InterruptedRunError, "interrupted", "an interrupt"),
        ("hang", {"timeout_s": 10.0}, TimeoutExceededError, "timed_out", "--timeout 10"),
        ("late crash", {}, ChildFailedError, "failed", "the program's exit code 9"),
    ],
)
def test_a_resume_reports_what_there_is_and_leaves_the_first_cause(
    tmp_path: Path,
    tool: NsysTool,
    behaviour: str,
    settings: dict[str, Any],
    kind: type[DsocrError],
    status: str,
    partial: str,
) -> None:
    run = prepare(tmp_path, tool, behaviour, **settings)
    ended_early(run, kind)
    first = run.directory.read_manifest()
    assert (first.status, first.partial, first.resumed) == (status, partial, None)
    for _ in range(2):
        (run.directory.path / "report.md").unlink(missing_ok=True)
        resumed(run)
        manifest = run.directory.read_manifest()
        assert (manifest.status, manifest.error, manifest.partial) == (status, first.error, partial)
        assert manifest.exit_codes == evolve(first.exit_codes, export=0, analysis=0)
        assert manifest.resumed is not None
        assert manifest.resumed.error is None
        assert (run.directory.path / "report.md").is_file()


@pytest.mark.parametrize(("code", "kind"), [(4, UnfitTraceError), (3, AnalysisFailedError)])
def test_a_resume_that_fails_says_why_and_does_not_recommend_itself(
    tmp_path: Path, tool: NsysTool, code: int, kind: type[DsocrError]
) -> None:
    failing = [sys.executable, "-c", f"import sys; print('error: no whole image', file=sys.stderr); sys.exit({code})"]
    run = prepare(tmp_path, tool, "late crash", analysis=lambda directory: failing)
    ended_early(run, ChildFailedError)
    first = run.directory.read_manifest()
    with pytest.raises(kind, match="no whole image") as told:
        resumed(run)
    assert "dsocr-profile resume" not in str(told.value)
    manifest = run.directory.read_manifest()
    assert (manifest.status, manifest.error) == (first.status, first.error)
    assert manifest.exit_codes.analysis == code
    assert manifest.resumed is not None
    assert manifest.resumed.error == str(told.value)
    mended = evolve(run, analysis=analysed)
    resumed(mended)
    assert run.directory.read_manifest().resumed != manifest.resumed


def test_a_run_of_which_nothing_was_captured_keeps_its_cause(tmp_path: Path, tool: NsysTool) -> None:
    run = prepare(tmp_path, tool, "crash in control")
    ended_early(run, ChildFailedError)
    first = run.directory.read_manifest()
    for _ in range(2):
        with pytest.raises(CaptureError, match="nothing was captured, so there is nothing to resume; run it again"):
            resumed(run)
        manifest = run.directory.read_manifest()
        assert (manifest.status, manifest.error) == (first.status, first.error)
        assert manifest.resumed is not None
        assert "nothing was captured" in (manifest.resumed.error or "")


def test_a_capture_whose_launcher_was_killed_is_resumed_as_partial(tmp_path: Path, tool: NsysTool) -> None:
    run = prepare(tmp_path, tool, "hang", environ=environment(DSOCR_LOCK_DIR=str(tmp_path / "locks")))
    launcher = start_launcher(run)
    wait_for((run.directory.path / "capture is at work").exists)
    launcher.kill()
    launcher.wait()
    wait_for(lambda: run.directory.holder() is None)  # what goes on without it is ended in order
    state = run_state(run.directory)
    assert (state.status, state.error) == (
        "failed",
        "its launcher is gone; `dsocr-profile resume` goes on with what it captured",
    )
    for _ in range(2):
        resumed(run)
        manifest = run.directory.read_manifest()
        assert (manifest.status, manifest.error) == ("failed", "its launcher is gone")
        assert manifest.partial == "its launcher being gone"
        assert (run.directory.path / "report.md").is_file()


def test_a_launcher_that_was_killed_after_the_capture_leaves_a_whole_one(tmp_path: Path, tool: NsysTool) -> None:
    run = prepare(tmp_path, tool)
    with Interrupts() as interrupts:
        run.start(interrupts)
    whole = run.directory.read_manifest()
    forgot = evolve(whole, status="running", profiled=(), overhead=(), exit_codes=evolve(whole.exit_codes, child=None))
    run.directory.write(run.directory.manifest_file, forgot)
    resumed(run)
    manifest = run.directory.read_manifest()
    assert (manifest.status, manifest.error, manifest.partial) == ("complete", None, None)
    assert (manifest.profiled, manifest.exit_codes) == (whole.profiled, whole.exit_codes)


ENDS_WELL = """
    import signal, sys, time, pathlib
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(300)
"""


@pytest.mark.parametrize(("timeout_s", "status"), [(None, "interrupted"), (6.0, "timed_out")])
def test_a_program_that_was_ended_stays_so_however_well_it_took_it(
    tmp_path: Path, tool: NsysTool, timeout_s: float | None, status: str
) -> None:
    """It ends with exit code 0, and a `resume` called the run complete."""
    up = tmp_path / "up"
    command = [*program(tmp_path, ENDS_WELL), str(up)]
    run = program_run(tmp_path / "out", command, tool, control=0, timeout_s=timeout_s)
    with Interrupts() as interrupts:
        if timeout_s is None:
            signal_when(up)
        with pytest.raises(InterruptedRunError if timeout_s is None else TimeoutExceededError):
            run.start(interrupts, wait=False)
    first = run.directory.read_program_manifest()
    partial = "an interrupt" if timeout_s is None else "--timeout 6"
    assert (first.status, first.partial, first.exit_codes.child) == (status, partial, 0)
    for _ in range(2):
        with Interrupts() as interrupts:
            ProgramRun.taken_up(run.directory, tool, run.environ, print).resume(interrupts)
        manifest = run.directory.read_program_manifest()
        assert (manifest.status, manifest.error, manifest.partial) == (status, first.error, partial)
        assert manifest.resumed is not None
        assert manifest.resumed.error is None
        assert run.directory.trace_file.is_file()


# -- the real child, recorded by torch.profiler ------------------------------------------------------------------------


def wait_for(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


def page_of(out: Path) -> int:
    """The page that the captured pass is at, from 1."""
    for counter in out.glob("*-*-*/logs/capture.page"):
        content = counter.read_bytes()
        return int(struct.unpack("<I", content)[0]) if len(content) == 4 else 0
    return 0


def run_until_page(
    tmp_path: Path, page: int, number: signal.Signals, whom: str = "child"
) -> tuple[RunDirectory, int, str]:
    """Run the tiny model with torch's profiler, and signal launcher or child when that is at a page of the captured pass."""
    out = tmp_path / "out"
    argv = [sys.executable, "-m", "runner.cli", "run", "deepseek-ocr-tiny", "--device", "cpu", "--collector", "torch"]
    argv += ["--max-new-tokens", "60", "--repeats", "1", "--out", str(out)]
    environ = environment(DSOCR_LOCK_DIR=str(tmp_path / "locks"))
    process = subprocess.Popen(
        argv, env=environ, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        wait_for(lambda: page_of(out) >= page or process.poll() is not None)
        (folder,) = (path.parent for path in out.glob("*-*-*/run.json"))
        if number in (signal.SIGINT, signal.SIGKILL) and whom == "launcher":
            process.send_signal(number)
        else:
            signal_child(folder.name, number)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    return RunDirectory(folder), process.returncode, said


def signal_child(run_id: str, number: signal.Signals) -> None:
    from runner.process.process import marked_processes

    (child,) = (process for process in marked_processes(run_id) if "capture" in process.cmdline())
    child.send_signal(number)


def resume(directory: RunDirectory, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runner.cli", "resume", directory.path.name, "--out", str(directory.path.parent)],
        env=environment(DSOCR_LOCK_DIR=str(tmp_path / "locks")),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_what_torch_recorded_until_ctrl_c_is_reported_in_every_format(tmp_path: Path) -> None:
    directory, code, said = run_until_page(tmp_path, 3, signal.SIGINT, "launcher")
    assert code == 130, said
    assert "what it captured is in" in said
    told = "artial capture: ended by an interrupt; 2 of 3 images; figures hold for what was captured"
    for _ in range(2):
        done = resume(directory, tmp_path)
        assert done.returncode == 0, done.stderr
        assert told in " ".join(done.stdout.split())
        assert "The run is interrupted: ended by an interrupt" in done.stdout
        assert "dsocr-profile resume" not in done.stdout + done.stderr
        for name in ("report.html", "report.md"):
            assert told in (directory.path / name).read_text()
        report = json.loads((directory.path / "report.json").read_text())
        (finding,) = (one for one in report["detail"]["findings"] if one["code"] == "partial-capture")
        assert finding["title"] == "partial capture: ended by an interrupt; 2 of 3 images"
        assert "2 of 3 images" in json.loads((directory.path / "summary.json").read_text())["notes"]
        assert directory.read_manifest().status == "interrupted"


def test_before_the_first_image_is_through_there_is_nothing_to_report(tmp_path: Path) -> None:
    directory, code, said = run_until_page(tmp_path, 1, signal.SIGTERM)
    assert code == 11, said
    assert directory.trace_file.is_file()
    for _ in range(2):
        done = resume(directory, tmp_path)
        assert done.returncode == 4, done.stderr
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
        assert "partial capture: ended by the program's exit code 143; 0 of 3 images" in line
        assert "dsocr-profile resume" not in line
        assert directory.read_manifest().status == "failed"
        assert not (directory.path / "report.html").exists()
