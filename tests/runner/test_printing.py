"""What others wrote – run folders, lock files, logs, histories – is printed and never obeyed by a terminal."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shlex
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from analysis.domain.names import from_a_spreadsheet, in_a_spreadsheet, json_visible, one_line, quoted
from analysis.render.csv import _cell
from history.export import COLUMNS, as_csv
from import_graph import ALL, HISTORY, RUNNER
from launch_kit import ROOT, environment, fake_nsys, prepare
from runner.collectors.ncu.output import Progress
from runner.launcher.live_line import LiveLine
from runner.launcher.outcome import print_result
from runner.launcher.review_progress import Display
from runner.launcher.run_directory import RunDirectory

HOSTILE = "[bold]x[/bold]\x1b[2J\rsk\nforged-run  complete    /tmp\x9b31m\u202egnp.exe\x07"
ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2066-\u2069]")


def dsocr(out: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environ = environment(DSOCR_LOCK_DIR=str(out / "locks"))
    return subprocess.run(
        [sys.executable, "-m", "runner.cli", *arguments, "--out", str(out)],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def hostile_run(tmp_path: Path) -> RunDirectory:
    """A run folder whose every text that may be anything is hostile, and which is the only run."""
    directory = prepare(tmp_path / "out", fake_nsys(tmp_path / "nsys")).directory
    manifest = directory.read_manifest()
    directory.write(
        directory.manifest_file,
        evolve(
            manifest,
            status="failed",
            run_id=f"zzz{HOSTILE}",
            error=HOSTILE,
            notes=(HOSTILE,),
            request=evolve(manifest.request, model_path=f"/models/{HOSTILE}"),
        ),
    )
    (directory.path / "summary.json").write_text(json.dumps({"headline": HOSTILE}))
    return directory


@pytest.mark.parametrize("arguments", [["status", "latest"], ["status", "--all"]])
def test_status_shows_a_hostile_run_in_one_line(hostile_run: RunDirectory, arguments: list[str]) -> None:
    hostile_run.link_latest()
    done = dsocr(hostile_run.path.parent, *arguments)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    assert not ACTS.search(shown)
    assert len(shown.splitlines()) == 1
    assert shown.startswith("zzz[bold]") or arguments == ["status", "--all"]


def test_json_of_a_hostile_run_is_json_that_acts_on_no_terminal(hostile_run: RunDirectory) -> None:
    done = dsocr(hostile_run.path.parent, "status", "--all", "--json")
    shown = done.stdout.decode()
    assert not ACTS.search(shown)
    (state,) = json.loads(shown)
    assert (state["run_id"], state["error"]) == (f"zzz{HOSTILE}", HOSTILE)


@pytest.mark.parametrize("command", ["cancel", "resume"])
def test_errors_about_a_hostile_run_are_one_line(hostile_run: RunDirectory, command: str) -> None:
    hostile_run.write(hostile_run.manifest_file, evolve(hostile_run.read_manifest(), status="complete"))
    hostile_run.plan_file.write_text(json.dumps({HOSTILE: HOSTILE}))
    done = dsocr(hostile_run.path.parent, command, hostile_run.path.name)
    assert done.returncode not in (0, 1)
    shown = done.stderr.decode()
    assert not ACTS.search(shown)
    assert len(shown.splitlines()) == 1


def test_a_hostile_lock_file_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    """Whoever holds a lock writes into its file what they like."""
    out = tmp_path / "out"
    locks = out / "locks"
    locks.mkdir(parents=True)
    locks.chmod(0o700)
    code = (
        "import fcntl, os, sys, time\n"
        "file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "os.write(file, sys.argv[2].encode())\n"
        "print('held', flush=True); time.sleep(100)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(locks / "cpu.lock"), HOSTILE], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            done = dsocr(out, "run", "deepseek-ocr-tiny", "--device", "cpu", "--max-new-tokens", "1")
        finally:
            holder.kill()
    shown = done.stderr.decode()
    assert done.returncode != 0
    assert "held by another run" in shown
    assert not ACTS.search(shown)
    assert not any(line.startswith("forged-run") for line in shown.splitlines())


def test_a_finished_run_prints_a_hostile_log_plainly(
    hostile_run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = hostile_run.read_manifest()
    whole = evolve(manifest, exit_codes=evolve(manifest.exit_codes, analysis=0))
    hostile_run.log("analysis").parent.mkdir(exist_ok=True)
    hostile_run.log("analysis").write_text(f"first line\n{HOSTILE}\n")
    print_result(hostile_run, whole)
    shown = capsys.readouterr().out
    assert not ACTS.search(shown)
    assert "[bold]x[/bold]\\x1b[2J" in shown


def test_live_lines_show_and_do_not_obey() -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=200, highlight=False)
    with LiveLine(lambda line: None, console) as live:
        live.say(HOSTILE)
        live._show(HOSTILE)
    told = screen.getvalue()
    assert "[bold]x[/bold]\\x1b[2J" in told
    assert "\x1b[2J" not in told
    assert "\nforged-run" not in told


def test_the_bar_of_ncu_shows_a_hostile_kernel_name(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = StringIO()
    monkeypatch.setattr(
        "runner.launcher.review_progress.Console", lambda **_: Console(file=screen, force_terminal=True, width=300)
    )
    with Display("decode [red]", 10, lambda line: None) as display:
        display.show(Progress(connected=True, kernels=3, name=f"{HOSTILE}[/nothing]\\"))
        assert display._bar is not None
        display._bar.refresh()
    told = screen.getvalue()
    assert "[bold]x[/bold]\\x1b[2J" in told
    assert "decode [red]" in told
    assert "\x1b[2J" not in told


def test_hostile_runs_of_a_history_are_listed_in_one_line_each(hostile_run: RunDirectory) -> None:
    out = hostile_run.path.parent
    done = dsocr(out, "history", "import", str(hostile_run.path))
    assert done.returncode == 0, done.stderr
    for arguments in (["list"], ["show", "zzz"], ["prune", "--keep", "0", "--dry-run"], ["list", "--json"]):
        shown = dsocr(out, "history", *arguments)
        assert shown.returncode == 0, shown.stderr
        assert not ACTS.search(shown.stdout.decode()), arguments
        assert not any(line.startswith("forged-run") for line in shown.stdout.decode().splitlines())
    assert len(dsocr(out, "history", "list").stdout.decode().splitlines()) == 2


def test_a_hostile_path_is_refused_in_one_line(tmp_path: Path) -> None:
    done = dsocr(tmp_path / "out", "inputs", str(tmp_path / HOSTILE.replace("/", "")))
    assert done.returncode not in (0, 1)
    assert not ACTS.search(done.stderr.decode())
    assert len(done.stderr.decode().splitlines()) == 1


def test_every_writer_of_csv_guards_against_formulas() -> None:
    for name, path in ALL.items():
        source = path.read_text()
        if "csv.writer(" in source or "csv.DictWriter(" in source or ".to_csv(" in source:
            assert "in_a_spreadsheet(" in source, name


@pytest.mark.parametrize("before", ["", " ", "\ufeff", "\u200b \ufeff", "\u00a0", "\x1b"])
def test_nothing_unseen_gets_a_formula_past_the_guard(before: str) -> None:
    for text in (f"{before}=1+1", f"{before}@x", f"{before}\uff1d1"):
        assert in_a_spreadsheet(text) == f"'{text}"
        assert from_a_spreadsheet(in_a_spreadsheet(text)) == text
    assert in_a_spreadsheet(f"{before}kernel<a=1>") == f"{before}kernel<a=1>"


def test_no_cell_of_a_table_acts_on_a_terminal() -> None:
    assert _cell("a\x1b[31m\x1b]0;x\x07\u202eb") == "a\\x1b[31m\\x1b]0;x\\x07\\u202eb"
    assert _cell("\ufeff=1") == "\\ufeff=1"  # written out, it is no formula any more


def test_no_cell_of_exported_samples_is_a_formula() -> None:
    row = {**dict.fromkeys(COLUMNS), "run_id": "=1", "model": "@x", "gpu_name": "-1", "ns": -1, "status": "complete"}
    (read,) = csv.DictReader(StringIO(as_csv([row]), newline=""))
    assert (read["run_id"], read["model"], read["gpu_name"]) == ("'=1", "'@x", "'-1")
    assert (read["ns"], read["status"], read["dtype"]) == ("-1", "complete", "")


def test_only_one_file_of_the_launcher_prints() -> None:
    """So that nothing is printed that did not go through ``one_line``; rich prints ``Text`` of such lines only."""
    allowed = {"runner.cli.output"}
    # What runs in programs of their own, whose output is a log.
    own_programs = {"runner.collectors.nsys.probe_program", "runner.collectors.torch_profiler.recording"}
    for name, path in {**RUNNER, **HISTORY}.items():
        if name in allowed | own_programs or name.startswith("runner.child."):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called.endswith("console.print") and node.args:
                assert not re.match(r"Text\((f?['\"]|\w+\))", ast.unparse(node.args[0])), (name, node.lineno)
            assert called not in ("print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write"), name


@given(st.text(alphabet=st.characters(codec=None), max_size=200), st.integers(min_value=10, max_value=40))
def test_a_line_is_one_line_of_bounded_length(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert not ACTS.search(line)
    assert "\n" not in line
    line.encode()


def test_an_overlong_text_is_cut_before_it_is_written_out() -> None:
    line = one_line("\x1b" * 50_000_000)
    assert len(line) == 4000


@given(st.recursive(st.text(alphabet=st.characters(codec=None)), lambda inner: st.lists(inner, max_size=3)))
def test_json_keeps_its_values(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    shown = json_visible(text)
    assert json.loads(shown) == value
    assert not ACTS.search(shown)


@pytest.mark.parametrize("words", [["plain", "a b"], [HOSTILE, "it's", "back\\slash\x1b1"], ["é\u202e\x85", "\udcff"]])
def test_a_printed_command_line_is_the_command_line(words: list[str]) -> None:
    shown = quoted(words)
    assert not ACTS.search(shown)
    if all(word.isprintable() for word in words):
        assert shown == shlex.join(words)
    script = f"printf '%s\\0' {shown}"
    said = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    assert [os.fsdecode(word) for word in said.split(b"\0")[:-1]] == words


def test_an_error_quotes_no_more_than_a_terminal_shows(tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"model_path": "deepseek-ocr-tiny", "input_dir": "x" * 5_000}))
    done = subprocess.run(
        [sys.executable, "-m", "runner.cli", "submit", str(request), "--out", str(tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "input_dir: must be an absolute path" in line
    assert len(line) < 2_000
