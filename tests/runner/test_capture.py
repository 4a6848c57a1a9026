"""A run's order, its records and its failures, under a fake nsys; tests/integration has the real one."""

from __future__ import annotations

import sqlite3
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from analysis.domain.errors import (
    AnalysisFailedError,
    CaptureError,
    ChildFailedError,
    DsocrError,
    ExportError,
    NoEventsError,
)
from analysis.domain.overhead import run_overheads
from launch_kit import environment, fake_nsys, prepare
from runner.collectors.nsys.tool import NsysTool
from runner.process.process import Interrupts, _Patience, marked_processes


@pytest.fixture
def tool(tmp_path: Path) -> NsysTool:
    return fake_nsys(tmp_path / "nsys")


def test_a_run_leaves_every_record(tmp_path: Path, tool: NsysTool) -> None:
    run = prepare(tmp_path, tool)
    with Interrupts() as interrupts:
        manifest = run.start(interrupts)
    assert manifest.status == "complete"
    assert not any("did not end well" in note for note in manifest.notes)
    assert manifest.error is None
    assert (manifest.exit_codes.control, manifest.exit_codes.child, manifest.exit_codes.nsys) == (0, 0, 0)
    assert (manifest.exit_codes.export, manifest.exit_codes.analysis) == (0, 0)
    assert manifest.control
    assert manifest.profiled
    assert manifest.overhead == run_overheads(manifest)
    assert manifest.overhead[0].factor == 2.0
    assert manifest.model is not None
    assert manifest.finished_at is not None
    assert (run.directory.path / "report.md").is_file()
    assert not (run.directory.path / "tmp").exists()
    assert stat.S_IMODE(run.directory.trace_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("where", ["control", "capture"])
def test_a_crash_of_the_child_is_a_failure_with_its_words(tmp_path: Path, tool: NsysTool, where: str) -> None:
    run = prepare(tmp_path, tool, f"crash in {where}")
    with Interrupts() as interrupts, pytest.raises(ChildFailedError, match=r"exit code 7.*made of cheese"):
        run.start(interrupts)
    manifest = run.directory.read_manifest()
    assert manifest.status == "failed"
    assert manifest.error is not None
    assert "made of cheese" in manifest.error
    codes = manifest.exit_codes
    assert (codes.control, codes.child) == ((7, None) if where == "control" else (0, 7))


def test_what_a_failed_child_left_is_exported_and_marked(tmp_path: Path, tool: NsysTool) -> None:
    run = prepare(tmp_path, tool, "late crash")
    with Interrupts() as interrupts, pytest.raises(ChildFailedError, match=r"exit code 9.*kept in .*trace\.sqlite"):
        run.start(interrupts)
    manifest = run.directory.read_manifest()
    assert manifest.status == "failed"
    assert (manifest.exit_codes.child, manifest.exit_codes.nsys, manifest.exit_codes.export) == (9, 0, 0)
    assert run.directory.trace_file.is_file()
    assert any("did not end well" in note for note in manifest.notes)
    with Interrupts() as interrupts:
        resumed = run.resume(interrupts)
    assert resumed.status == "failed"  # analysing it does not make the program succeed
    assert resumed.exit_codes.analysis == 0


def test_an_exit_code_that_nsys_hides_is_found_out(tmp_path: Path, tool: NsysTool) -> None:
    run = prepare(tmp_path, tool, "late crash", environ=environment(NSYS_FAKE="hides the exit code"))
    with Interrupts() as interrupts, pytest.raises(ChildFailedError):
        run.start(interrupts)
    assert run.directory.read_manifest().exit_codes.child != 0


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [("no events", NoEventsError, "no event at all"), ("stream only", ExportError, "could not import")],
)
def test_failures_of_nsys_are_told_apart(
    tmp_path: Path, tool: NsysTool, how: str, error: type[DsocrError], words: str
) -> None:
    run = prepare(tmp_path, tool, environ=environment(NSYS_FAKE=how))
    with Interrupts() as interrupts, pytest.raises(error, match=words):
        run.start(interrupts)
    assert run.directory.read_manifest().status == "failed"
    assert not run.directory.trace_file.exists()
    assert not list(run.directory.path.glob("*partial*"))


def test_resume_goes_on_at_the_export(tmp_path: Path, tool: NsysTool) -> None:
    broken = prepare(tmp_path, tool, environ=environment(NSYS_FAKE="half an export"))
    with Interrupts() as interrupts, pytest.raises(ExportError):
        broken.start(interrupts)
    from attrs import evolve

    mended = evolve(broken, environ=environment())
    with Interrupts() as interrupts:
        manifest = mended.resume(interrupts)
    assert manifest.status == "complete"
    assert manifest.error is None
    assert manifest.exit_codes.export == 0


def test_resume_goes_on_at_the_analysis(tmp_path: Path, tool: NsysTool) -> None:
    failing = [sys.executable, "-c", "import sys; print('error: no ink', file=sys.stderr); sys.exit(3)"]
    run = prepare(tmp_path, tool, analysis=lambda directory: failing)
    with Interrupts() as interrupts, pytest.raises(AnalysisFailedError, match=r"exit code 3.*no ink.*resume"):
        run.start(interrupts)
    manifest = run.directory.read_manifest()
    assert (manifest.status, manifest.exit_codes.analysis, manifest.exit_codes.export) == ("failed", 3, 0)
    from attrs import evolve

    from launch_kit import analysed

    with Interrupts() as interrupts:
        assert evolve(run, analysis=analysed).resume(interrupts).status == "complete"


def test_nothing_captured_cannot_be_resumed(tmp_path: Path, tool: NsysTool) -> None:
    run = prepare(tmp_path, tool)
    with Interrupts() as interrupts, pytest.raises(CaptureError, match="nothing to resume"):
        run.resume(interrupts)


def test_an_nsys_that_hangs_before_it_starts_the_program_is_ended(
    tmp_path: Path, tool: NsysTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As 2022.4 does now and then: no child of it ever appears."""
    monkeypatch.setattr("runner.process.process._IDLE_S", 3.0)
    run = prepare(tmp_path, tool, environ=environment(NSYS_FAKE="hangs at start"))
    with (
        Interrupts() as interrupts,
        pytest.raises(
            CaptureError, match=r"nsys \(version 2099.1.0\) did not start the program.*run it again.*--nsys.*log"
        ),
    ):
        run.start(interrupts)
    assert run.directory.read_manifest().status == "failed"
    assert not marked_processes(run.plan.run_id)


def test_an_nsys_that_hangs_after_the_program_is_ended_and_its_stream_is_named(tmp_path: Path, tool: NsysTool) -> None:
    run = prepare(tmp_path, tool, environ=environment(NSYS_FAKE="hangs at the end"), finish_s=2.0)
    run.directory.path.joinpath("trace.qdstrm").write_bytes(b"a stream" * 150_000)
    with (
        Interrupts() as interrupts,
        pytest.raises(
            CaptureError, match=r"had not ended \d s after the program, and was killed.*trace\.qdstrm.*resume"
        ),
    ):
        run.start(interrupts)
    assert not marked_processes(run.plan.run_id)


@pytest.mark.parametrize("program_too", [False, True])
@pytest.mark.parametrize("seen", [False, True])
def test_an_nsys_whose_launcher_was_killed_is_interrupted_and_writes_its_report(
    tmp_path: Path, tool: NsysTool, monkeypatch: pytest.MonkeyPatch, program_too: bool, seen: bool
) -> None:
    """It would not hear of the program's end any more, and the program may take for ever, or have ended already."""
    monkeypatch.setattr("runner.process.process._LOST_S", 0.5)
    monkeypatch.setattr("runner.process.process._LOST_IDLE_S", 1.5)
    monkeypatch.setattr("runner.process.process._LOOK_S", 0.0 if seen else 1.0)
    run = prepare(tmp_path, tool, "hang", environ=environment(NSYS_FAKE="with a launcher"))
    look = _Patience.is_over

    def kill(self: _Patience, *given: Any, **more: Any) -> bool:
        over = look(self, *given, **more) if seen else False
        for process in marked_processes(run.plan.run_id):
            with suppress(psutil.Error):
                if process.name() == "nsys-launcher" and (run.directory.path / "capture is at work").exists():
                    below = process.children() if program_too else []
                    process.kill()
                    for each in below:
                        each.kill()
        return over or look(self, *given, **more)

    monkeypatch.setattr(_Patience, "is_over", kill)
    with (
        Interrupts() as interrupts,
        pytest.raises(
            CaptureError,
            match=r"nsys-launcher of .*nsys \(version 2099.1.0\) was killed under the program; .* nsys interrupted; what it "
            r"captured is in .*: dsocr-profile resume",
        ),
    ):
        run.start(interrupts)
    manifest = run.directory.read_manifest()
    assert (manifest.status, manifest.partial) == ("failed", "a profiler that hung")
    assert run.directory.trace_file.is_file()
    assert not marked_processes(run.plan.run_id)


def test_a_report_with_other_programs_secrets_is_not_kept(tmp_path: Path, tool: NsysTool) -> None:
    said: list[str] = []
    run = prepare(tmp_path, tool, environ=environment(NSYS_FAKE="foreign environment"), said=said)
    with Interrupts() as interrupts:
        manifest = run.start(interrupts)
    assert not run.directory.report_file.exists()
    assert any("HF_TOKEN" in note and "deleted" in note for note in manifest.notes)
    assert b"planted-elsewhere" not in run.directory.trace_file.read_bytes()


def test_a_report_with_other_programs_secrets_is_kept_if_asked_for(tmp_path: Path, tool: NsysTool) -> None:
    run = prepare(tmp_path, tool, environ=environment(NSYS_FAKE="foreign environment"), keep_report=True)
    with Interrupts() as interrupts:
        manifest = run.start(interrupts)
    assert run.directory.report_file.exists()
    assert any("do not share" in note for note in manifest.notes)


def test_a_secret_reaches_neither_child_nor_trace_unless_kept(tmp_path: Path, tool: NsysTool) -> None:
    environ = environment(PLANTED="dragons-gold")
    for kept, seen in (((), "not seen"), (("PLANTED",), "dragons-gold")):
        run = prepare(tmp_path, tool, "tell", environ=environ, keep_env=kept)
        with Interrupts() as interrupts:
            manifest = run.start(interrupts)
        assert f"secret: {seen}" in manifest.notes
        assert b"dragons-gold" not in run.directory.trace_file.read_bytes()


def test_the_export_is_scrubbed_before_it_has_its_name(tmp_path: Path, tool: NsysTool) -> None:
    run = prepare(tmp_path, tool)
    with Interrupts() as interrupts:
        run.start(interrupts)
    connection = sqlite3.connect(run.directory.trace_file)
    assert connection.execute("SELECT count(*) FROM StringIds WHERE instr(value, 'PATH=')").fetchone() == (0,)
    connection.close()
