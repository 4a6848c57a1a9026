"""Every command with standard streams that are closed, full or without a reader: its exit code tells the result all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from attrs import frozen

from analysis.cli.app import app as analyze_app
from analysis.domain.errors import OutputError
from import_graph import ROOT
from launch_kit import environment, fake_nsys
from runner.cli.app import app as profile_app
from runner.cli.history import history as history_app
from trace_builder import TraceBuilder

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")

MS = 1_000_000


@frozen
class Place:
    """A folder with a small trace, a fake nsys and locks of its own."""

    folder: Path
    trace: str
    nsys: str
    environ: dict[str, str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("streams")
    builder = TraceBuilder().range("image[0]", 0, 190 * MS, domain="dsocr")
    builder.range("prefill", MS, 40 * MS, domain="dsocr").launch(2 * MS, 3 * MS, kernel=("gemm", 4 * MS, 30 * MS))
    trace = builder.write(folder / "small.sqlite")
    tool = fake_nsys(folder / "nsys")
    Path(tool.path).with_name("trace.sqlite").symlink_to(trace)
    environ = environment(DSOCR_LOCK_DIR=str(folder / "locks"), DSOCR_HISTORY="off", PYTHONPATH=str(ROOT))
    return Place(folder, str(trace), tool.path, environ)


@frozen
class Case:
    """A command line, and what comes of it where the streams are as usual."""

    argv: Callable[[Place], list[str]]
    code: int = 0
    prints: bool = True
    """Whether it has a result for standard output."""


def fails(code: int, *argv: str) -> Case:
    return Case(lambda at: list(argv), code, prints=False)


ANALYZE = {
    "report": Case(lambda at: [at.trace, "--out", str(at.folder / "report"), "--format", "json"]),
    "diff": Case(lambda at: ["diff", at.trace, at.trace]),
    "gate": Case(lambda at: ["gate", at.trace, at.trace, "--policy", "none.toml"], 2, prints=False),
    "review": Case(lambda at: ["review", at.trace, "--counters", "none.csv"], 2, prints=False),
    "show": Case(lambda at: ["show", at.trace, "--explain"]),
    "table": Case(lambda at: ["table", at.trace, "--by", "stage"]),
    "check": Case(lambda at: ["check", at.trace]),
    "kernels": Case(lambda at: ["kernels", at.trace]),
    "trend": fails(16, "trend", "--store", "none.sqlite"),
    "schema": Case(lambda at: ["schema", "report"]),
    "sweep": fails(2, "sweep", "none"),
}
PROFILE = {
    "run": Case(lambda at: ["run", "deepseek-ocr-tiny", "--device", "cpu", "--collector", "torch", "--dry-run"]),
    "ab": fails(2, "ab", "none.json", "none.json"),
    "exec": Case(
        lambda at: ["exec", "--nsys", at.nsys, "--out", str(at.folder / "out"), "--", sys.executable, "-c", "pass"]
    ),
    "sweep": fails(5, "sweep", "no-such-model"),
    "resume": fails(2, "resume", "none"),
    "review": fails(2, "review", "none"),
    "doctor": Case(lambda at: ["doctor", "--nsys", "none"], 10),
    "submit": fails(2, "submit", "none.json"),
    "status": fails(2, "status", "none"),
    "cancel": fails(2, "cancel", "none"),
    "inputs": fails(6, "inputs", "none.png"),
    "models": Case(lambda at: ["models"]),
    "work": fails(2, "work", "none", "--answer", "9"),
    "history list": fails(16, "history", "list", "--store", "none.sqlite"),
    "history show": fails(16, "history", "show", "latest", "--store", "none.sqlite"),
    "history export": fails(16, "history", "export", "none.csv", "--store", "none.sqlite"),
    "history prune": fails(16, "history", "prune", "--keep", "1", "--store", "none.sqlite"),
    "history trend": fails(16, "history", "trend", "--store", "none.sqlite"),
    "history import": fails(2, "history", "import", "none"),
    "--help": Case(lambda at: ["--help"]),
}
COMMANDS = [("analysis.cli", name) for name in ANALYZE] + [("runner.cli", name) for name in PROFILE]


def test_no_command_is_left_out() -> None:
    def names(app: typer.Typer) -> set[str]:
        return set(getattr(typer.main.get_command(app), "commands"))  # noqa: B009 - a group's, which mypy is not told

    assert names(analyze_app) == set(ANALYZE)
    assert names(profile_app) - {"history"} == {name for name in PROFILE if " " not in name} - {"--help"}
    assert {f"history {name}" for name in names(history_app)} == {name for name in PROFILE if " " in name}


@contextmanager
def without_a_reader() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def run(
    place: Place, program: str, name: str, streams: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    case = (ANALYZE if program == "analysis.cli" else PROFILE)[name]
    return subprocess.run(
        ["bash", "-c", f'exec "$@" {streams}', "bash", sys.executable, "-P", "-m", program, *case.argv(place)],
        env=place.environ,
        cwd=place.folder,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(("program", "name"), COMMANDS, ids=lambda value: value.removesuffix(".cli"))
def test_streams_that_are_closed(place: Place, program: str, name: str) -> None:
    case = (ANALYZE if program == "analysis.cli" else PROFILE)[name]
    if not case.prints:
        assert run(place, program, name, "<&- >&- 2>&-").returncode == case.code
        done = run(place, program, name, "<&- >&-")
        assert done.returncode == case.code, done.stderr
        assert "Traceback" not in done.stderr
        assert len([line for line in done.stderr.splitlines() if "error:" in line]) == 1, done.stderr
        return
    done = run(place, program, name, "<&- 2>&-")
    assert (done.returncode, bool(done.stdout)) == (case.code, True)
    done = run(place, program, name, ">&-")
    assert done.returncode == OutputError.exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("error: standard output: it is closed; the result could not be printed\n")


@pytest.mark.parametrize(("program", "name"), [("analysis.cli", "schema"), ("runner.cli", "models")])
def test_the_words_beside_a_result_may_be_lost(place: Place, program: str, name: str) -> None:
    for streams in ("2>/dev/full", "2>&-", "<&-"):
        done = run(place, program, name, streams)
        assert (done.returncode, bool(done.stdout)) == (0, True)
    with without_a_reader() as pipe:
        done = run(place, program, name, "", stderr=pipe)
        assert (done.returncode, bool(done.stdout)) == (0, True)
        assert run(place, program, name, "", stdout=pipe, stderr=pipe).returncode == 141
    for streams in (">/dev/full 2>/dev/full", "<&- >&- 2>&-"):
        assert run(place, program, name, streams).returncode == OutputError.exit_code


def test_no_file_is_opened_in_the_place_of_a_stream(tmp_path: Path) -> None:
    """What is printed would go into it."""
    code = """
import os
from analysis.domain.ending import begin
begin("program")
opened = [os.open(os.devnull, os.O_RDONLY), *os.pipe()]
inherited = [number for number in range(3) if os.get_inheritable(number)]
os.write(int(os.environ["TELL"]), repr((min(opened) > 2, inherited)).encode())
"""
    reading, writing = os.pipe()
    subprocess.run(
        ["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TELL": str(writing)},
        pass_fds=(writing,),
        cwd=tmp_path,
        check=True,
    )
    os.close(writing)
    with open(reading, "rb") as told:  # noqa: PTH123 - a descriptor, no path
        assert told.read() == b"(True, [0, 1, 2])"


@pytest.mark.parametrize("columns", ["99999999999999999999", "0", "-5", "1", "abc", "\u00b2"])
def test_a_width_that_no_terminal_has_is_bounded(place: Place, columns: str) -> None:
    at = Place(place.folder, place.trace, place.nsys, {**place.environ, "COLUMNS": columns, "TERMINAL_WIDTH": columns})
    for program, name in (("analysis.cli", "table"), ("runner.cli", "--help")):
        done = run(at, program, name, "")
        assert done.returncode == 0, done.stderr
        assert max(map(len, done.stdout.splitlines())) <= 2000
