"""Files that are no whole trace: one clear line, a documented exit code, no traceback, and never a changed byte."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from analysis.api import export
from analysis.api.opening import opened
from analysis.api.options import AnalysisOptions
from analysis.attribution.attribution import Attribution
from analysis.cli.app import main
from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import to_json
from analysis.domain.entities import RunMeta
from analysis.domain.errors import RequestError, TraceError, TraceSchemaError
from analysis.domain.manifest import RunManifest
from analysis.trace.manifest import find_manifest
from analysis.trace.reader import Trace
from analyze_command import analyze, assert_one_line
from trace_builder import TraceBuilder
from whole_trace import read_everything, whole


@pytest.fixture
def unprivileged() -> list[str]:
    """What to put before a command so that permissions bind it even if the tests run as root."""
    if os.getuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("the tests run as root, and setpriv is not there to give root's rights away")
    without = "-dac_override,-dac_read_search"
    return [setpriv, f"--inh-caps={without}", f"--bounding-set={without}"]


# --- the file itself ------------------------------------------------------------------------------------------


def make_report(folder: Path) -> Path:
    (path := folder / "run.nsys-rep").write_bytes(b"\x50\x4b\x03\x04" + bytes(5000))
    return path


def make_text(folder: Path) -> Path:
    (path := folder / "trace.sqlite").write_text("kernel,time\ngemm,1\n")
    return path


def make_empty(folder: Path) -> Path:
    (path := folder / "trace.sqlite").touch()
    return path


def make_other_database(folder: Path) -> Path:
    connection = sqlite3.connect(path := folder / "trace.sqlite")
    connection.execute("CREATE TABLE users (id INTEGER)")
    connection.commit()
    connection.close()
    return path


def make_without_kernels(folder: Path) -> Path:
    return TraceBuilder().range("prefill", 0, 10, domain="dsocr").call(1, 2).write(folder / "trace.sqlite")


def make_folder(folder: Path) -> Path:
    (path := folder / "trace.sqlite").mkdir()
    return path


def make_partial_capture(folder: Path) -> Path:
    (path := folder / "run.qdstrm").write_bytes(b"quadd" + bytes(5000))
    return path


def make_packed(folder: Path) -> Path:
    (path := folder / "trace.sqlite.xz").write_bytes(b"\xfd7zXZ\0" + bytes(500))
    return path


BAD_FILES = [
    (make_report, "nsys export --type sqlite --output run.sqlite run.nsys-rep"),
    (make_text, "is not a SQLite file"),
    (make_empty, "is empty (0 bytes)"),
    (make_other_database, "holds no GPU operation"),
    (make_without_kernels, "holds no GPU operation"),
    (make_folder, "is a directory"),
    (lambda folder: folder / "absent.sqlite", "no such file"),
    (make_partial_capture, "unfinished Nsight Systems capture"),
]
# What is compressed is unpacked by the command, not by the reader.


@pytest.mark.parametrize(("make", "words"), [*BAD_FILES, (make_packed, "xz -dk")])
def test_reading_a_bad_file(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    path = make(tmp_path)
    with pytest.raises(TraceError) as caught:
        read_everything(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("make", "words"), [*BAD_FILES, (make_packed, "is damaged")])
def test_command_on_a_bad_file(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    path = make(tmp_path)
    assert_one_line(analyze(path, "--out", tmp_path / "report"), TraceError.exit_code, words, path.name)
    assert not (tmp_path / "report").exists(), "nothing is half-written"


def test_command_on_an_export_without_nvtx(tmp_path: Path) -> None:
    path = TraceBuilder().launch(1, 2, ("k", 3, 4)).write(tmp_path / "trace.sqlite")
    done = analyze(path, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "warning: no NVTX ranges" in done.stdout
    assert "The whole capture is" in done.stdout


def test_kernels_of_an_export_without_nvtx_can_still_be_listed(tmp_path: Path) -> None:
    path = TraceBuilder().launch(1, 2, ("k", 3, 4)).write(tmp_path / "trace.sqlite")
    done = analyze("table", path, "--by", "kernel", "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("k,1,1,")


CUTS = [1, 15, 16, 99, 100, 101, 4096, 0.1, 0.5, 0.9, -4096, -1]


@pytest.mark.parametrize("cut", CUTS)
def test_truncated_trace(tmp_path: Path, real_trace: Callable[[str], Path], cut: float) -> None:
    whole_file = real_trace("deepseek-ocr_h100_lossy")
    size = whole_file.stat().st_size
    keep = int(size * cut) if isinstance(cut, float) else cut if cut > 0 else size + cut
    path = tmp_path / "trace.sqlite"
    shutil.copyfile(whole_file, path)
    os.truncate(path, keep)
    with pytest.raises(TraceError, match=r"truncated|not a SQLite file"):
        read_everything(path)


@pytest.mark.parametrize("more", [1, 4096, 10_000_000_000])
def test_a_trace_with_more_than_its_pages(tmp_path: Path, real_trace: Callable[[str], Path], more: int) -> None:
    path = tmp_path / "trace.sqlite"
    shutil.copyfile(real_trace("deepseek-ocr_h100_lossy"), path)
    os.truncate(path, path.stat().st_size + more)
    with pytest.raises(TraceError, match=f"has {more:,} bytes more than the 974,848 of its pages"):
        read_everything(path)


@pytest.mark.parametrize("change", ["written", "replaced", "gone"])
def test_a_trace_that_changes_while_it_is_read(tmp_path: Path, real_trace: Callable[[str], Path], change: str) -> None:
    path = tmp_path / "trace.sqlite"
    shutil.copyfile(real_trace("deepseek-ocr_h100_lossy"), path)
    with pytest.raises(TraceError, match="was changed while it was read; wait until"):
        read_while_it_changes(path, change)


def read_while_it_changes(path: Path, change: str) -> None:
    with opened(path, AnalysisOptions(accept_lossy=True)) as trace:
        assert trace.attribution is not None
        if change == "written":
            os.utime(path, ns=(1, 1))
        elif change == "replaced":
            shutil.copy2(path, path.with_name("other"))
            path.with_name("other").replace(path)
        else:
            path.unlink()
        trace.report()


COMMANDS_OF_A_TRACE = {
    "check": ["check"],
    "kernels": ["kernels", "--accept-lossy"],
    "kernels, csv": ["kernels", "--accept-lossy", "--format", "csv"],
    "report": ["report", "--accept-lossy", "--out", "out"],
    "show": ["show", "--accept-lossy"],
    "table": ["table", "--accept-lossy"],
    "table, json": ["table", "--accept-lossy", "--by", "kernel-module", "--format", "json"],
}


@pytest.mark.parametrize("arguments", COMMANDS_OF_A_TRACE.values(), ids=list(COMMANDS_OF_A_TRACE))
def test_no_command_answers_of_a_trace_that_changed_while_it_was_read(
    tmp_path: Path,
    real_trace: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    """Another process writes the file as soon as its calls were attributed."""
    path = tmp_path / "trace.sqlite"
    shutil.copyfile(real_trace("deepseek-ocr_h100_lossy"), path)
    monkeypatch.chdir(tmp_path)
    attribute = Attribution.of

    def attribute_and_change(trace: Trace, **options: Any) -> Attribution:
        made = attribute(trace, **options)
        os.utime(path, ns=(1, 1))
        return made

    monkeypatch.setattr(Attribution, "of", attribute_and_change)
    command, *others = arguments
    monkeypatch.setattr(sys, "argv", ["dsocr-analyze", command, str(path), *others])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == TraceError.exit_code
    said = capsys.readouterr()
    assert not said.out
    assert "trace.sqlite: was changed while it was read; wait until" in said.err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["trace.sqlite"]


def read_and_fail(path: Path) -> None:
    with opened(path, AnalysisOptions()):
        os.utime(path, ns=(1, 1))
        raise TraceError("database disk image is malformed")


def test_an_error_of_a_trace_that_changes_while_it_is_read(tmp_path: Path, real_trace: Callable[[str], Path]) -> None:
    """What SQLite says of a file that is half of another one is not the cause."""
    path = tmp_path / "trace.sqlite"
    shutil.copyfile(real_trace("deepseek-ocr_h100_lossy"), path)
    with pytest.raises(TraceError, match="was changed while it was read"):
        read_and_fail(path)


def test_command_on_a_truncated_trace(tmp_path: Path, real_trace: Callable[[str], Path]) -> None:
    path = tmp_path / "trace.sqlite"
    shutil.copyfile(real_trace("deepseek-ocr_h100_small"), path)
    os.truncate(path, path.stat().st_size // 2)
    assert_one_line(analyze(path, "--out", tmp_path / "report"), TraceError.exit_code, "truncated", "copy it again")


@pytest.mark.parametrize("filler", [b"\x00", b"\xff"])
def test_damaged_pages_inside_a_trace_of_the_right_size(
    tmp_path: Path, real_trace: Callable[[str], Path], filler: bytes
) -> None:
    path = tmp_path / "trace.sqlite"
    shutil.copyfile(real_trace("deepseek-ocr_h100_lossy"), path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(filler * (path.stat().st_size - 4096))
    with pytest.raises(TraceError):
        read_everything(path)


def test_no_permission(tmp_path: Path, unprivileged: list[str]) -> None:
    path = whole().write(tmp_path / "trace.sqlite")
    path.chmod(0)
    done = analyze(path, "--out", tmp_path / "report", prefix=unprivileged)
    assert_one_line(done, TraceError.exit_code, "no permission to read it")


@pytest.mark.parametrize("option", ["--manifest", "--kernel-rules"])
def test_no_permission_to_read_a_file_of_an_option(tmp_path: Path, unprivileged: list[str], option: str) -> None:
    path = whole().write(tmp_path / "trace.sqlite")
    (secret := tmp_path / "mine").write_text("{}")
    secret.chmod(0)
    done = analyze(path, option, secret, "--out", tmp_path / "report", prefix=unprivileged)
    assert_one_line(done, RequestError.exit_code, "mine")


def test_command_on_a_trace_without_a_required_column(tmp_path: Path) -> None:
    path = whole().without_column("CUPTI_ACTIVITY_KIND_KERNEL", "end").write(tmp_path / "trace.sqlite")
    done = analyze(path, "--out", tmp_path / "report")
    assert_one_line(done, TraceSchemaError.exit_code, "CUPTI_ACTIVITY_KIND_KERNEL has no column end")


# --- folders and reports in place of a trace --------------------------------------------------------------------


def test_a_folder_stands_for_the_trace_in_it(tmp_path: Path) -> None:
    (folder := tmp_path / "run-7").mkdir()
    whole().write(folder / "trace.sqlite")
    whole().write(folder / "other.sqlite")
    done = analyze(folder, "--format", "json", "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert written["detail"]["capture"]["trace_path"] == str(folder / "trace.sqlite")


def test_a_folder_with_several_traces(tmp_path: Path) -> None:
    for name in ("a", "b"):
        whole().write(tmp_path / f"{name}.sqlite")
    assert_one_line(analyze("table", tmp_path), TraceError.exit_code, "several traces (a.sqlite, b.sqlite)", "name one")


def nsys(folder: Path, script: str) -> Path:
    """A program called nsys that does as ``script`` says with the last but one argument's output file in ``$out``."""
    folder.mkdir(parents=True, exist_ok=True)
    (path := folder / "nsys").write_text(
        f"#!/bin/sh\nPATH=/usr/bin:/bin\nfor a; do case $a in --output=*) out=${{a#--output=}};; esac; done\n{script}\n"
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("where", ["$NSYS", "PATH", ".nsys"])
def test_a_report_is_exported_beside_itself_once(tmp_path: Path, where: str) -> None:
    ready = whole().write(tmp_path / "ready.db")
    folder = tmp_path / "captures"
    report = folder / "llama.nsys-rep"
    tool = nsys(
        folder / ".nsys" / "target-linux-x64" if where == ".nsys" else tmp_path / "tools",
        f'[ "$1" = export ] && cp "{ready}" "$out" && echo exported >>"{tmp_path}/log"',
    )
    report.parent.mkdir(exist_ok=True)
    report.write_bytes(b"report")
    environ = {"$NSYS": {"NSYS": str(tool)}, "PATH": {"PATH": str(tool.parent)}, ".nsys": {}}[where]
    for _ in range(2):
        done = analyze("table", report, "--format", "csv", environ=environ)
        assert done.returncode == 0, done.stderr
        assert "\nprefill," in done.stdout
    assert (tmp_path / "log").read_text() == "exported\n", "an export that is there and not older is taken"
    assert sorted(one.name for one in folder.iterdir() if one.name != ".nsys") == ["llama.nsys-rep", "llama.sqlite"]
    later = (folder / "llama.sqlite").stat().st_mtime + 10
    os.utime(report, (later, later))
    assert analyze("table", folder / "llama.nsys-rep", environ=environ).returncode == 0
    assert (tmp_path / "log").read_text() == "exported\n" * 2


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('echo "damaged report" >&2; exit 1', ("exit code 1", "damaged report")),
        ('printf half >"$out"; exit 3', ("exit code 3", "no message")),
        ("exit 0", ("did not export it",)),
        ("kill -9 $$", ("was ended by SIGKILL",)),
    ],
)
def test_an_export_that_fails_leaves_nothing(tmp_path: Path, script: str, words: tuple[str, ...]) -> None:
    (folder := tmp_path / "captures").mkdir()
    (report := folder / "llama.nsys-rep").write_bytes(b"report")
    tool = nsys(tmp_path / "tools", script)
    done = analyze(report, "--out", tmp_path / "r", environ={"NSYS": str(tool)})
    assert_one_line(done, TraceError.exit_code, "llama.nsys-rep", *words)
    assert [one.name for one in folder.iterdir()] == ["llama.nsys-rep"]


def test_an_nsys_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (report := tmp_path / "llama.nsys-rep").write_bytes(b"report")
    started = tmp_path / "started"
    tool = nsys(tmp_path / "tools", f"sleep 300 & echo $! > {started}; wait")
    monkeypatch.setattr(export, "_EXPORT_TIMEOUT_S", 2.0)
    monkeypatch.setattr(export, "_HELP_TIMEOUT_S", 1.0)  # it is asked what it can first
    with pytest.raises(TraceError, match=r"did not export it in .* min; run it by hand: nsys export"):
        export.export_report(report, {**os.environ, "NSYS": str(tool)})
    gone = int(started.read_text())  # the system's first process collects it, in its own time
    assert not psutil.pid_exists(gone) or psutil.Process(gone).status() == psutil.STATUS_ZOMBIE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llama.nsys-rep", "started", "tools"]


def test_no_such_nsys(tmp_path: Path) -> None:
    (report := tmp_path / "llama.nsys-rep").write_bytes(b"report")
    done = analyze(report, environ={"NSYS": "/nowhere/nsys"})
    assert_one_line(done, TraceError.exit_code, "$NSYS names /nowhere/nsys, which is no program")


# --- what is never changed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wal", [False, True])
def test_neither_bytes_nor_time_of_a_trace_ever_change(tmp_path: Path, wal: bool) -> None:
    folder = tmp_path / "captures"
    folder.mkdir()
    path = whole().write(folder / "trace.sqlite", wal=wal)
    before = (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns, sorted(folder.iterdir()))
    done = analyze(path, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns, sorted(folder.iterdir())) == before


def test_trace_in_a_folder_that_cannot_be_written(tmp_path: Path, unprivileged: list[str]) -> None:
    folder = tmp_path / "read only"
    folder.mkdir()
    path = whole().write(folder / "trace.sqlite", wal=True)
    path.chmod(0o444)
    folder.chmod(0o555)
    try:
        done = analyze("table", path, prefix=unprivileged)
        assert done.returncode == 0, done.stderr
        assert "prefill" in done.stdout
    finally:
        folder.chmod(0o755)


def test_trace_that_is_still_being_written(tmp_path: Path) -> None:
    path = whole().write(tmp_path / "trace.sqlite", wal=True)
    connection = sqlite3.connect(path)
    try:
        connection.execute("CREATE TABLE more (id INTEGER)")
        connection.commit()
        with pytest.raises(TraceError, match="still writing"):
            read_everything(path)
    finally:
        connection.close()


# --- manifests ------------------------------------------------------------------------------------------------


def manifest(run_id: str) -> RunManifest:
    return RunManifest(
        run_id=run_id,
        status="complete",
        request=LLMProfileRequest(model_path="/models/m", input_dir="/pages"),
        collector="nsys",
        meta=RunMeta(run_id=run_id, created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), repeats=1),
    )


def marked(run_id: str) -> TraceBuilder:
    return whole().mark("dsocr-manifest " + to_json(manifest(run_id)), 1, domain="dsocr.meta")


def test_manifest_of_another_run(tmp_path: Path) -> None:
    path = marked("run-a").write(tmp_path / "trace.sqlite")
    (tmp_path / "run.json").write_text(to_json(manifest("run-b")))
    with Trace(path) as trace, pytest.raises(RequestError, match="run-b"):
        find_manifest(path, trace.marks, None)
    done = analyze(path, "--out", tmp_path / "report")
    assert_one_line(done, RequestError.exit_code, "run-b", "run-a", "--manifest")


def test_manifest_of_the_same_run(tmp_path: Path) -> None:
    path = marked("run-a").write(tmp_path / "trace.sqlite")
    (tmp_path / "run.json").write_text(to_json(manifest("run-a")))
    with Trace(path) as trace:
        found = find_manifest(path, trace.marks, None)
    assert found is not None
    assert found.run_id == "run-a"


@pytest.mark.parametrize("text", ["{", "", '{"manifest_version": 1}', '{"manifest_version": 1, "run_id": 3}', "[1]"])
def test_unreadable_manifest(tmp_path: Path, text: str) -> None:
    path = whole().write(tmp_path / "trace.sqlite")
    (tmp_path / "mine.json").write_text(text)
    done = analyze(path, "--manifest", tmp_path / "mine.json", "--out", tmp_path / "report")
    assert_one_line(done, RequestError.exit_code, "mine.json")


def test_run_json_of_another_program_beside_the_trace_is_left_alone(tmp_path: Path) -> None:
    path = whole().write(tmp_path / "trace.sqlite")
    (tmp_path / "run.json").write_text(json.dumps({"run": "something else"}))
    assert analyze("table", path).returncode == 0
    with Trace(path) as trace:
        assert find_manifest(path, trace.marks, None) is None


def test_broken_mark_inside_the_trace(tmp_path: Path) -> None:
    path = whole().mark("dsocr-manifest {oops", 1, domain="dsocr.meta").write(tmp_path / "trace.sqlite")
    assert_one_line(analyze(path, "--out", tmp_path / "r"), RequestError.exit_code, "manifest mark", "trace.sqlite")
