"""How far a run is: the program's side, the launcher's side, and both in a real run."""

from __future__ import annotations

import builtins
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from rich.console import Console

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import from_json, to_json
from analysis.domain.entities import InputImage, InputSet
from analysis.domain.errors import ChildFailedError
from analysis.domain.manifest import RunManifest
from launch_kit import fake_nsys, prepare
from runner.child import workload
from runner.inputs.inputs import discover
from runner.launcher.progress import STEPS, Follower, RunProgress, duration, phases_line
from runner.launcher.run_directory import RunDirectory
from runner.plan.plan import RunPlan
from runner.plan.settings import Settings
from runner.process.process import Interrupts, process_began
from runner.process.progress import ProgressReader, ProgressWriter


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "run")
    made.create()
    return made


def test_what_is_written_is_read(directory: RunDirectory) -> None:
    reader = ProgressReader(directory.path, "control")
    assert reader.new_events() == []
    assert reader.page() == 0
    writer = ProgressWriter(directory.path, "control")
    writer.begin("model")
    writer.begin("passes", passes=3, pages=2)
    writer.page(2)
    assert reader.page() == 2
    first, second = reader.new_events()
    assert (first.step, second.step, second.passes, second.pages) == ("model", "passes", 3, 2)
    assert 0 <= second.at_s - first.at_s < 60
    assert reader.new_events() == []
    writer.pass_done(1, 128, 2.0)
    (over,) = reader.new_events()
    assert (over.step, over.passes, over.passes_done, over.tokens, over.seconds) == ("passes", 3, 1, 128, 2.0)
    writer.begin("end")
    assert reader.page() == 0


def test_half_a_line_waits_and_a_foreign_one_is_skipped(directory: RunDirectory) -> None:
    reader = ProgressReader(directory.path, "capture")
    file = directory.path / "logs" / "capture.progress.jsonl"
    file.write_text('{"from": "another version"}\n{"at_s": 1.0, "st')
    assert reader.new_events() == []
    with file.open("a") as opened:
        opened.write('ep": "model"}\n')
    assert [event.step for event in reader.new_events()] == ["model"]


def test_what_an_earlier_try_wrote_is_no_progress(directory: RunDirectory) -> None:
    ProgressWriter(directory.path, "control").begin("passes", passes=9, pages=9)
    reader = ProgressReader(directory.path, "control")
    assert reader.new_events() == []


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        writer = ProgressWriter(folder, "control")
        writer.begin("model")
        writer.page(1)
        writer.pass_done(1, 1, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_pass_is_not_disturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first page of a pass and its end nothing is written to any file, whatever its descriptor."""
    from PIL import Image

    (tmp_path / "pages").mkdir()
    for name in "ab":
        Image.linear_gradient("L").convert("RGB").save(tmp_path / "pages" / f"{name}.png")
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    request = LLMProfileRequest("deepseek-ocr-tiny", str(tmp_path / "pages"), repeats=2, device="cpu", max_new_tokens=2)
    pages = discover(tmp_path / "pages")
    plan = RunPlan("test", request, str(directory.path), "torch", settings=Settings(ignore_eos=True), input_set=pages)
    writer = ProgressWriter(directory.path, "control")
    seen: list[str] = []
    original_page, original_done = writer.page, writer.pass_done
    original_write, original_open = os.write, open

    def page(number: int) -> None:
        if number:
            seen.append(f"page {number}")
        original_page(number)

    def pass_done(number: int, tokens: int, seconds: float) -> None:
        seen.append(f"pass {number}: {tokens}")
        original_done(number, tokens, seconds)

    def no_writes(*arguments: Any) -> int:
        seen.append("os.write")
        return original_write(*arguments)

    def no_opening(file: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        if set(mode) & set("wax+"):
            seen.append(f"opened {file}")
        return original_open(file, mode, *arguments, **more)

    monkeypatch.setattr(writer, "page", page)
    monkeypatch.setattr(writer, "pass_done", pass_done)
    monkeypatch.setattr(os, "write", no_writes)
    monkeypatch.setattr(builtins, "open", no_opening)
    workload.run(plan, "control", None, lambda line: seen.append("line"), reporter=writer, with_costs=False)
    first = seen.index("page 1")
    assert seen[first : first + 3] == ["page 1", "page 2", "pass 1: 4"]
    second = seen.index("page 1", first + 1)
    assert seen[second : second + 3] == ["page 1", "page 2", "pass 2: 4"]
    steps = [event.step for event in ProgressEvents(directory).all() if not event.passes_done]
    assert steps == ["model", "inputs", "warm-up", "passes", "end"]


class ProgressEvents:
    """All lines of a finished program; a reader would remove those from before it."""

    def __init__(self, directory: RunDirectory) -> None:
        self._file = directory.path / "logs" / "control.progress.jsonl"

    def all(self) -> list[Any]:
        from runner.process.progress import Event

        return [from_json(Event, line) for line in self._file.read_text().splitlines()]


class Lines(list[str]):
    """What is said, and a progress that says it."""

    def progress(self, **more: Any) -> RunProgress:
        return RunProgress(self.append, console=Console(file=io.StringIO(), force_terminal=False), **more)


def test_lines_where_there_is_no_terminal(directory: RunDirectory) -> None:
    said = Lines()
    with said.progress() as progress, progress.child(Follower(directory, "control")) as watch:
        writer = ProgressWriter(directory.path, "control")
        for step in ("model", "inputs", "warm-up"):
            writer.begin(step)
        watch()
        writer.begin("passes", passes=2, pages=3)
        writer.pass_done(1, 120, 3.0)
        watch()
        writer.begin("counting")
    assert said == [
        "control run: the program starts",
        "control passes: 2 passes over 3 pages",
        "control pass 1 of 2: 3.0 s, 40 tokens/s",
        "counting FLOPs and bytes",
    ]
    assert [(phase.program, phase.step) for phase in progress.phases] == [
        ("control", step) for step in ("start", "model", "inputs", "warm-up", "passes", "counting")
    ]


def test_a_terminal_sees_step_pass_page_rate_and_time_left(directory: RunDirectory) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, highlight=False, legacy_windows=False)
    said: list[str] = []
    began = time.monotonic()
    with RunProgress(said.append, began=began, console=console) as progress:
        with progress.phase("pages"):
            pass
        with progress.child(Follower(directory, "control")) as watch:
            writer = ProgressWriter(directory.path, "control")
            writer.begin("passes", passes=4, pages=3)
            writer.pass_done(1, 120, 3.0)
            writer.page(2)
            watch()
            line = progress.line(began + 5)
            progress.say("warning: [red]not markup[/red]")
    assert line.startswith("control passes · pass 2 of 4 · page 2 of 3 · 40 tokens/s · 5.0 s")
    assert line.endswith(" left")
    assert said == []
    shown = screen.getvalue()
    assert "✓ " in shown
    assert "pages" in shown
    assert "warning: [red]not markup[/red]" in shown
    assert "pass 2 of 4" in shown


def test_the_time_left_is_that_of_the_last_run_like_this_one(directory: RunDirectory) -> None:
    expected = dict.fromkeys(STEPS, 2.0)
    said = Lines()
    began = time.monotonic()
    with (
        said.progress(began=began, expected=expected) as progress,
        progress.child(Follower(directory, "control")) as watch,
    ):
        watch()
        left = progress.left_s(began)
        assert left is not None
        assert left == pytest.approx(2.0 * (len(STEPS) - 2), abs=1.5)  # preflight and pages are over
    assert said.progress().left_s(began) is None


def test_a_run_says_where_its_time_went(tmp_path: Path) -> None:
    run = prepare(tmp_path, fake_nsys(tmp_path / "nsys"))
    with Interrupts() as interrupts:
        manifest = run.start(interrupts)
    programs = [phase.program for phase in manifest.phases]
    assert {"control", "capture", "launcher"} == set(programs)
    assert [phase.step for phase in manifest.phases if phase.program == "launcher"] == ["export", "report"]
    assert programs.index("launcher") > max(programs.index("control"), programs.index("capture"))
    assert sum(phase.seconds for phase in manifest.phases) > 0
    starts = [phase.start_s for phase in manifest.phases]
    assert starts == sorted(starts)
    assert from_json(RunManifest, to_json(manifest)) == manifest
    written = json.loads(run.directory.manifest_file.read_text())["phases"]
    assert [phase["step"] for phase in written] == [phase.step for phase in manifest.phases]
    line = phases_line(manifest.phases)
    assert line is not None
    assert line.startswith("Took ")
    assert "export" in line
    assert phases_line(()) is None


def test_a_run_that_failed_and_was_resumed_holds_the_phases_of_both(tmp_path: Path) -> None:
    run = prepare(tmp_path, fake_nsys(tmp_path / "nsys"), "late crash")
    with Interrupts() as interrupts, pytest.raises(ChildFailedError):
        run.start(interrupts)
    failed = run.directory.read_manifest()
    assert {"control", "capture"} <= {phase.program for phase in failed.phases}
    resumed = evolve(run, progress=RunProgress(run.say, console=Console(file=io.StringIO())))
    with Interrupts() as interrupts:
        manifest = resumed.resume(interrupts)
    steps = [(phase.program, phase.step) for phase in manifest.phases]
    assert len(set(steps)) == len(steps)
    assert {"control", "capture"} <= {program for program, _ in steps}
    assert steps[-1] == ("launcher", "report")


def test_a_page_that_changed_ends_the_program(tmp_path: Path) -> None:
    from analysis.domain.errors import InputImagesError

    page = tmp_path / "a.png"
    page.write_bytes(b"not what was planned")
    pages = InputSet("pages", str(tmp_path), 1, (InputImage(str(page), 10, 10, sha256="0" * 64),))
    request = LLMProfileRequest("deepseek-ocr-tiny", str(page), repeats=1, device="cpu", max_new_tokens=2)
    plan = RunPlan("test", request, str(tmp_path), "torch", input_set=pages)
    with pytest.raises(InputImagesError, match=r"a\.png: changed since the run was planned"):
        workload.run(plan, "control", None, lambda line: None)
    assert evolve(plan, input_set=None).input_set is None


def test_latest_is_moved_in_one_step_and_spares_what_is_no_link(tmp_path: Path) -> None:
    first, second = RunDirectory(tmp_path / "first"), RunDirectory(tmp_path / "second")
    for run in (first, second):
        run.create()
        assert run.link_latest() is None
        assert (tmp_path / "latest").resolve() == run.path
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").touch()
    assert "is a file and no link to the latest run" in str(first.link_latest())
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").mkdir()
    assert "is a folder and no link to the latest run" in str(first.link_latest())
    assert not (tmp_path / "latest").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "latest", "second"]


def test_durations_are_short() -> None:
    assert [duration(seconds) for seconds in (0.04, 9.94, 12.4, 245.2)] == ["0.0 s", "9.9 s", "12 s", "4 min 05 s"]


def test_a_process_knows_when_it_began() -> None:
    assert 0 < time.monotonic() - process_began() < 24 * 3600
