"""Runs go into the history by themselves, whatever becomes of it; and the commands that read it."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from attrs import evolve

from analysis.domain.errors import AnalysisFailedError, RequestError
from history.location import locate
from history.records import RunRow
from history.store import Store
from import_graph import ROOT
from launch_kit import environment, fake_nsys, prepare
from runner.cli import main
from runner.collectors.nsys.tool import NsysTool
from runner.launcher.program import ProgramRun, prepare_program
from runner.launcher.recording import with_history
from runner.launcher.run_directory import RunDirectory
from runner.plan.program import ExecSettings
from runner.process.driver import DriverFacts
from runner.process.environment import child_environment, program_environment
from runner.process.process import Interrupts

EXAMPLES = ROOT / "reports" / "examples"
GRAPH_ID = "bae7f3a8-6dbf-4a32-997f-50f19f15dd24"


@pytest.fixture
def tool(tmp_path: Path) -> NsysTool:
    return fake_nsys(tmp_path / "nsys")


@pytest.fixture(autouse=True)
def no_store_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DSOCR_STORE", "DSOCR_HISTORY"):
        monkeypatch.delenv(name, raising=False)


def runs_of(path: Path) -> tuple[RunRow, ...]:
    return Store(locate(str(path))).runs()


def test_a_finished_run_is_in_the_history_beside_its_folder(tmp_path: Path, tool: NsysTool) -> None:
    said: list[str] = []
    first, second = (prepare(tmp_path / "reports", tool, said=said) for _ in range(2))
    for run in (first, second):
        with Interrupts() as interrupts:
            run.start(interrupts)
    store = Store(locate(str(tmp_path / "reports" / "history.sqlite")))
    recorded = store.recorded([first.plan.run_id, second.plan.run_id])
    assert [one.run.status for one in recorded] == ["complete", "complete"]
    passes = first.directory.read_manifest().control
    assert [sample.ns for sample in recorded[0].samples if sample.stage == "prefill"] == [
        timed.prefill_ns for timed in passes
    ]
    assert "report.md" in {artefact.name for artefact in recorded[0].artefacts}
    told = [line for line in said if "history" in line]
    assert len(told) == 1  # where the numbers are is said once, when the history begins
    assert "--no-history" in told[0]


def test_a_run_that_is_resumed_is_recorded_then(tmp_path: Path, tool: NsysTool) -> None:
    def failing(directory: RunDirectory) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit('no')"]

    run = prepare(tmp_path, tool, analysis=failing)
    with Interrupts() as interrupts, pytest.raises(AnalysisFailedError):
        run.start(interrupts)
    assert not (tmp_path / "history.sqlite").exists()
    with Interrupts() as interrupts:
        evolve(run, analysis=lambda directory: [sys.executable, "-c", ""]).resume(interrupts)
    (row,) = runs_of(tmp_path / "history.sqlite")
    assert (row.run_id, row.status, row.error) == (run.plan.run_id, "complete", None)


@pytest.mark.parametrize("value", ["off", "OFF", "0", "no", "false"])
def test_a_run_can_be_left_out(tmp_path: Path, tool: NsysTool, value: str) -> None:
    run = prepare(tmp_path, tool, environ=environment(DSOCR_HISTORY=value))
    with Interrupts() as interrupts:
        run.start(interrupts)
    assert not (tmp_path / "history.sqlite").exists()


def test_the_history_may_be_elsewhere(tmp_path: Path, tool: NsysTool) -> None:
    elsewhere = tmp_path / "new folder" / "all.sqlite"
    run = prepare(tmp_path, tool, environ=environment(DSOCR_STORE=f"sqlite:///{elsewhere}"))
    with Interrupts() as interrupts:
        run.start(interrupts)
    assert [row.run_id for row in runs_of(elsewhere)] == [run.plan.run_id]
    assert not (tmp_path / "history.sqlite").exists()


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("/dev/null/history.sqlite", "cannot be made"),
        ("/proc/history.sqlite", "unable to open|cannot be written"),
        ("postgresql://me:hunter2@127.0.0.1:1/none", "[Rr]efused"),
        ("mysql://me:hunter2@host/db", "only sqlite and postgresql"),
    ],
)
def test_a_failing_history_is_one_warning_and_no_failure(
    tmp_path: Path, tool: NsysTool, store: str, words: str
) -> None:
    said: list[str] = []
    run = prepare(tmp_path, tool, said=said, environ=environment(DSOCR_STORE=store))
    with Interrupts() as interrupts:
        assert run.start(interrupts).status == "complete"
    warnings = [line for line in said if line.startswith("warning: this run is not in the history: ")]
    assert len(warnings) == 1
    assert re.search(words, warnings[0])
    assert "\n" not in warnings[0]
    assert "hunter2" not in "".join(said)


def program_environ(folder: Path) -> dict[str, str]:
    """With locks of its own: another run on this machine may hold the CPU."""
    return environment(DSOCR_LOCK_DIR=str(folder / "locks"))


def test_a_program_is_recorded_too(tmp_path: Path, tool: NsysTool) -> None:
    command = [sys.executable, "-c", "print('hello')", "--api-key=hunter2"]
    run: ProgramRun = prepare_program(
        command, ExecSettings(control=2), tool, DriverFacts(None, None), tmp_path, program_environ(tmp_path), print
    )
    with Interrupts() as interrupts:
        run.start(interrupts, wait=False)
    store = Store(locate(str(tmp_path / "history.sqlite")))
    (recorded,) = store.recorded([run.plan.run_id])
    assert (recorded.run.kind, recorded.run.status) == ("program", "complete")
    assert recorded.run.model == Path(sys.executable).name
    walls = [timed.wall_s for timed in run.directory.read_program_manifest().times if not timed.profiled]
    assert [(sample.stage, sample.ns) for sample in recorded.samples] == [("program", round(s * 1e9)) for s in walls]
    assert len(walls) == 2
    assert b"hunter2" not in (tmp_path / "history.sqlite").read_bytes()


def test_a_program_is_recorded_with_the_commit_of_its_folder(
    tmp_path: Path, tool: NsysTool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "program.py").write_text("")
    for arguments in (
        ["init", "-q"],
        ["add", "program.py"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first"],
    ):
        subprocess.run(["git", "-C", str(tree), *arguments], check=True)
    head = subprocess.run(["git", "-C", str(tree), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    monkeypatch.chdir(tree)
    for text in ("", "print(1)"):
        (tree / "program.py").write_text(text)
        command = [sys.executable, "program.py"]
        run = prepare_program(
            command,
            ExecSettings(),
            tool,
            DriverFacts(None, None),
            tmp_path / "out",
            program_environ(tmp_path),
            lambda line: None,
        )
        with Interrupts() as interrupts:
            run.start(interrupts, wait=False)
    commits = [row.git_commit for row in runs_of(tmp_path / "out" / "history.sqlite")]
    assert sorted(filter(None, commits)) == [head.stdout.strip(), f"{head.stdout.strip()}+changes"]


def test_where_the_history_is_stays_hidden_from_what_is_profiled() -> None:
    environ = {"PATH": "/bin", "DSOCR_STORE": "postgresql://me:hunter2@host/db", "DSOCR_HISTORY": "on"}
    for given in (child_environment(environ), program_environment(environ)):
        assert "DSOCR_STORE" not in given
        assert not any("hunter2" in value for value in given.values())


def test_options_become_what_the_run_and_its_background_process_are_given() -> None:
    assert with_history({"A": "b"}, no_history=False, store=None) == {"A": "b"}
    assert with_history({}, no_history=True, store=None) == {"DSOCR_HISTORY": "off"}
    assert with_history({"DSOCR_STORE": "a"}, no_history=False, store="b.sqlite") == {"DSOCR_STORE": "b.sqlite"}
    with pytest.raises(RequestError, match="only sqlite and postgresql") as refused:
        with_history({}, no_history=False, store="mysql://me:hunter2@host/db")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(RequestError, match="DSOCR_HISTORY=perhaps: write on or off"):
        with_history({"DSOCR_HISTORY": "perhaps"}, no_history=False, store=None)


def test_submit_hands_the_choice_to_its_background_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from runner.launcher import queue

    given: list[str | None] = []

    def submitted(directory: RunDirectory, environ: dict[str, str]) -> object:
        given.append(environ.get("DSOCR_STORE"))
        raise RequestError("enough")

    monkeypatch.setattr(queue, "submit", submitted)
    request = tmp_path / "request.json"
    request.write_text(
        json.dumps({"model_path": "deepseek-ocr-tiny", "input_dir": str(_pages(tmp_path)), "device": "cpu"})
    )
    arguments = ["submit", str(request), "--collector", "torch", "--out", str(tmp_path), "--store", "x.sqlite"]
    with pytest.raises(SystemExit):
        main(arguments)
    assert given == ["x.sqlite"]


def _pages(folder: Path) -> Path:
    from PIL import Image

    pages = folder / "pages"
    pages.mkdir()
    Image.new("RGB", (64, 64), "white").save(pages / "a.png")
    return pages


LEAN = """
import sys
from runner.cli.app import app
import runner.launcher.launch, runner.launcher.run, runner.launcher.program, runner.launcher.queue
heavy = {"sqlalchemy", "alembic", "psycopg", "pandas"} & {name.split(".")[0] for name in sys.modules}
assert not heavy, heavy
"""


def test_a_run_starts_without_the_databases_libraries() -> None:
    done = subprocess.run([sys.executable, "-c", LEAN], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- the commands ------------------------------------------------------------------------------------------------------


class Commands:
    """Runs ``dsocr-profile history …`` on a history of its own."""

    def __init__(self, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.out = out
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as end:
            main(["history", arguments[0], "--out", str(self.out), *arguments[1:]])
        printed = self._capsys.readouterr()
        assert end.value.code == code, printed.err
        return printed.out, printed.err


@pytest.fixture
def history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(tmp_path / "reports", capsys)


@pytest.fixture
def examples(history: Commands) -> Commands:
    history("import", str(EXAMPLES))
    return history


def test_importing_the_folders_of_runs(history: Commands, tmp_path: Path) -> None:
    shown, said = history("import", str(EXAMPLES))
    assert len(shown.splitlines()) == 5
    assert "5 runs recorded" in said
    _, said = history("import", *(str(folder) for folder in EXAMPLES.iterdir()))
    assert "deepseek-ocr_h100_sweep holds a sweep, and no run" in said
    assert "eager-to-cuda-graph_h100 holds a comparison, and no run" in said
    assert len(runs_of(history.out / "history.sqlite")) == 5
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{}")
    shown, said = history("import", str(broken), str(EXAMPLES / "deepseek-ocr_h100"), code=2)
    assert "left out: " in said
    assert "1 folder could not be recorded" in said
    assert len(shown.splitlines()) == 1  # the other one was
    assert "is no folder" in history("import", str(tmp_path / "nothing"), code=2)[1]
    (tmp_path / "empty").mkdir()
    assert "neither run.json nor report.json" in history("import", str(tmp_path / "empty"), code=2)[1]


def test_a_run_of_a_moment_that_no_calendar_has_is_left_out_alone(history: Commands, tmp_path: Path) -> None:
    """In UTC it lies in the year 10,000: the history was blamed, and no run was recorded."""
    whole = EXAMPLES / "deepseek-ocr_h100"
    late = tmp_path / "late"
    late.mkdir()
    record = json.loads((whole / "run.json").read_text())
    record["meta"]["created_at"] = "9999-12-31T23:59:59-23:59"
    (late / "run.json").write_text(json.dumps(record))
    shown, said = history("import", str(late), str(whole), code=2)
    assert f"left out: {late / 'run.json'}" in said
    assert "created_at: expected an ISO 8601 date and time, found '9999-12-31T23:59:59-23:59'" in said
    assert "1 run recorded" in said
    assert len(shown.splitlines()) == 1
    assert "write a date" in history("list", "--since", "9999-12-31T23:59:59-23:59", code=2)[1]


def test_listing(examples: Commands) -> None:
    shown, _ = examples("list")
    lines = shown.splitlines()
    assert len(lines) == 6
    (graph,) = [line for line in lines if line.startswith(GRAPH_ID[:8])]
    assert "prefill 84.6 ms per image, decode 2.80 ms per token" in graph
    assert "263 ms per page (at best 183 ms)" in graph
    plain = json.loads(examples("list", "--model", "deepseek-ocr", "--json")[0])
    assert [run["decode_mode"] for run in plain] == ["eager", "cuda-graph"]
    assert {stage["stage"] for stage in plain[0]["stages"]} == {"prefill", "decode"}
    assert len(examples("list", "--limit", "2")[0].splitlines()) == 3
    assert "no run fits" in examples("list", "--device", "A100")[1]
    assert examples("list", "--since", "2026-11-24T20:00")[0].count("deepseek-ocr") == 1
    assert "write a date" in examples("list", "--since", "yesterday", code=2)[1]


def test_showing(examples: Commands) -> None:
    shown, _ = examples("show", GRAPH_ID[:6])
    for words in (
        "deepseek-ocr bf16 random weights",
        "without the profiler 2.80 ms (9 repetitions, 2.77 ms to 2.83 ms), under it 4.54 ms",
        "prefill: host-bound in Python.",
        "At best 40.7 ms per image.",
    ):
        assert words in shown
    assert "(gone)" not in shown
    assert "1,518 → 251 ms a page at best. 263 ms came: 99 % of the predicted gain" in shown
    plain = json.loads(examples("show", GRAPH_ID, "--json")[0])
    assert [row["prediction"]["stage"] for row in plain["predictions"]] == ["all", "prefill", "decode"]
    assert len(plain["samples"]) == 18
    assert "no run with an id that begins with 'zzz'" in examples("show", "zzz", code=16)[1]


def test_what_is_gone_is_said_to_be_gone(history: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(EXAMPLES / "deepseek-ocr_h100_cuda-graph", folder)
    history("import", str(folder))
    shutil.rmtree(folder)
    shown, _ = history("show", "latest")
    assert shown.count("(gone)") == 12
    assert "9 repetitions" in shown


def test_exporting_the_samples(examples: Commands, tmp_path: Path) -> None:
    shown, _ = examples("export")
    rows = list(csv.DictReader(io.StringIO(shown)))
    assert len(rows) == 36
    assert sum(int(row["ns"]) for row in rows if row["run_id"] == GRAPH_ID and row["stage"] == "decode") == sum(
        timed["decode_ns"]
        for timed in json.loads((EXAMPLES / "deepseek-ocr_h100_cuda-graph" / "run.json").read_text())["control"]
    )
    plain = json.loads(examples("export", GRAPH_ID, "--format", "json")[0])
    assert len(plain) == 18
    assert plain[0]["started_at"].startswith("2026-11-24T20:11:49")
    file = tmp_path / "samples.parquet"
    _, said = examples("export", "--to", str(file), "--model", "deepseek-ocr")
    assert "36 samples of 2 runs" in said
    table = pq.read_table(file)
    assert table.num_rows == 36
    assert str(table.schema.field("ns").type) == "int64"
    assert "give the file with --to" in examples("export", "--format", "parquet", code=2)[1]
    assert "end it in .csv" in examples("export", "--to", str(tmp_path / "a.xlsx"), code=2)[1]


def test_the_trend_is_drawn_by_the_analysis(examples: Commands, tmp_path: Path) -> None:
    def trend(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "runner.cli", "history", "trend", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), cwd=tmp_path)

    page = tmp_path / "trend.html"
    done = trend("--stage", "decode", "--reports", str(examples.out), "--out", str(page))
    assert done.returncode == 0, done.stderr
    assert "2.80 ms per token in the latest of 2 runs" in done.stdout
    assert "decode eager → cuda-graph" in done.stdout
    assert "2.80 ms" in page.read_text()
    elsewhere = trend("--store", str(examples.out / "history.sqlite"), "--device", "A100")
    assert "No recorded run has unprofiled times to draw." in elsewhere.stdout
    nothing = trend("--reports", str(tmp_path / "nothing"))
    assert nothing.returncode == 16
    assert "there is no history yet" in nothing.stderr
    hidden = trend("--store", "postgresql://me:hunter2@127.0.0.1:1/none")
    assert hidden.returncode == 16
    assert "hunter" not in hidden.stdout + hidden.stderr


def test_pruning(examples: Commands) -> None:
    assert "say which runs go" in examples("prune", code=2)[1]
    shown, said = examples("prune", "--keep", "2", "--dry-run")
    assert "3 runs of 5 would be deleted" in said
    assert len(shown.splitlines()) == 3
    assert len(runs_of(examples.out / "history.sqlite")) == 5
    # Both rules: what either keeps stays; and an unknown start is no reason to delete.
    assert "1 run of 5 deleted" in examples("prune", "--keep", "2", "--older-than", "2026-11-24")[1]
    assert "2 runs of 4 deleted" in examples("prune", "--keep", "2")[1]
    left = runs_of(examples.out / "history.sqlite")
    assert left[0].run_id == GRAPH_ID
    with sqlite3.connect(examples.out / "history.sqlite") as database:
        assert database.execute("SELECT count(DISTINCT run_id) FROM stages").fetchone() == (2,)


def test_no_history_yet_is_one_line(history: Commands) -> None:
    for command in (["list"], ["show", "latest"], ["export"], ["prune", "--keep", "1"]):
        _, said = history(*command, code=16)
        assert len(said.splitlines()) == 1
        assert "there is no history yet" in said
    assert not history.out.exists()


def test_a_password_is_not_printed_by_any_command(history: Commands) -> None:
    store = "postgresql://me:hunter2@127.0.0.1:1/none?password=hunter3"
    for command in (["list"], ["show", "latest"], ["import", str(EXAMPLES)]):
        shown, said = history(*command, "--store", store, code=16)
        assert "hunter" not in shown + said
        assert "127.0.0.1" in said


def test_names_of_a_run_reach_no_terminal_as_control_characters(history: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(EXAMPLES / "deepseek-ocr_h100_cuda-graph", folder)
    plain = json.loads((folder / "run.json").read_text())
    plain["model"]["id"] = "evil\x1b[2Jname"
    (folder / "run.json").write_text(json.dumps(plain))
    history("import", str(folder))
    for command in (["list"], ["show", "latest"]):
        assert "\x1b" not in history(*command)[0]
