"""Ctrl-C once and twice, and SIGTERM, in what is no run: one line, 130, nothing half-written, no process left."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from analysis.domain.errors import AnalysisFailedError, InterruptedRunError
from import_graph import ROOT
from launch_kit import environment, fake_nsys, finished_run, signal_when
from runner.launcher import ab, outside, review
from runner.launcher.ab import AbResult, AbSide
from runner.process.process import Interrupts
from trend_builder import EAGER

EAGER_ID = "26fb91c7-1a2b-4cb5-be28-ba7344041b0a"
WAYS = {"once": [signal.SIGINT], "twice": [signal.SIGINT, signal.SIGINT], "sigterm": [signal.SIGTERM]}
ways = pytest.mark.parametrize("way", WAYS)


def descendants(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def interrupted(argv: Sequence[str], way: str, ready: Callable[[int], bool], environ: dict[str, str], cwd: Path) -> str:
    """Start a command, signal it when it is ready, and give what it said when all of it is gone."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", *argv],
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 90
    while not ready(process.pid):
        assert process.poll() is None, process.communicate(timeout=60)
        assert time.monotonic() < until
        time.sleep(0.01)
    below = descendants(process.pid)
    for number in WAYS[way]:
        process.send_signal(number)
        time.sleep(0.05)
    _, said = process.communicate(timeout=90)
    assert process.returncode == InterruptedRunError.exit_code, said
    assert "Traceback" not in said
    assert sum("interrupted" in line for line in said.splitlines()) == 1, said
    assert not [one for one in below if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    return said


@ways
def test_doctor(tmp_path: Path, way: str) -> None:
    tool = fake_nsys(tmp_path / "nsys")
    Path(tool.path).with_name("how").write_text("hangs at start")
    (tmp_path / "tmp").mkdir()
    environ = environment(TMPDIR=str(tmp_path / "tmp"), DSOCR_LOCK_DIR=str(tmp_path / "locks"))

    def ready(pid: int) -> bool:
        return bool(list((tmp_path / "tmp").glob("*/nsys hangs")))

    said = interrupted(["runner.cli", "doctor", "--nsys", tool.path], way, ready, environ, tmp_path)
    assert said.splitlines()[-1] == "error: interrupted in the functional probe"
    assert not list((tmp_path / "tmp").iterdir())


@ways
def test_history_import(tmp_path: Path, way: str) -> None:
    """What was recorded by then is whole, and the file is in order."""
    for number in range(40):
        folder = tmp_path / "runs" / f"{number:03}"
        folder.mkdir(parents=True)
        for name in ("run.json", "report.json", "summary.json"):
            (folder / name).write_text((EAGER / name).read_text().replace(EAGER_ID, f"{number:08}{EAGER_ID[8:]}"))
    store = tmp_path / "history.sqlite"

    def recorded() -> int:
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as opened:
            return int(opened.execute("SELECT count(*) FROM runs").fetchone()[0])
        return 0

    argv = ["runner.cli", "history", "import", str(tmp_path / "runs"), "--store", str(store)]
    said = interrupted(argv, way, lambda pid: recorded() > 0, environment(), tmp_path)
    assert said.splitlines()[-1] in ("error: interrupted", "interrupted"), said
    assert 0 < recorded() < 40
    with closing(sqlite3.connect(store)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.sqlite", "runs"]


SLEEPING = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(300)"
KILLED = "import os, signal; print('at work', flush=True); os.kill(os.getpid(), signal.SIGKILL)"


def joined(folder: Path, trace: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(review, "analysis_command", lambda *_: [sys.executable, "-c", program, str(folder / "at work")])
    directory = finished_run(folder / "out", trace)
    with Interrupts() as interrupts:
        review.join(
            directory, [folder / "counters.csv"], directory.read_plan(), environment(), interrupts, lambda line: None
        )


def compared(folder: Path, trace: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(ab, "compare_command", lambda *_: [sys.executable, "-c", program, str(folder / "at work")])
    result = AbResult(AbSide("A", "a", "1", "/a"), AbSide("B", "b", "2", "/b"), False, (), ())
    ab.compare_sides(folder, result, environment())


STEPS = {"review": (joined, "the counter files are kept"), "ab": (compared, "both runs are kept")}


@ways
@pytest.mark.parametrize("step", STEPS)
def test_the_analysis_of_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_trace: Callable[[str], Path], step: str, way: str
) -> None:
    start, kept = STEPS[step]
    before = set(descendants(os.getpid()))  # a database server of other tests, and what they keep for the next ones
    signals = signal_when(tmp_path / "at work", WAYS[way][0], len(WAYS[way]))
    with pytest.raises(InterruptedRunError, match=f"^interrupted in .*{kept}"):
        start(tmp_path, real_trace("deepseek-ocr_h100_64tok"), monkeypatch, SLEEPING)
    signals.join(60)
    left = set(descendants(os.getpid())) - before
    assert not [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("step", STEPS)
def test_an_analysis_that_is_killed_is_called_by_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_trace: Callable[[str], Path], step: str
) -> None:
    start, kept = STEPS[step]
    with pytest.raises(AnalysisFailedError, match=rf"was ended by SIGKILL \(9: .*\): at work .*{kept}"):
        start(tmp_path, real_trace("deepseek-ocr_h100_64tok"), monkeypatch, KILLED)


def test_an_analysis_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_ANALYSIS_S", 2.0)
    argv = [sys.executable, "-c", SLEEPING, str(tmp_path / "at work")]
    with Interrupts() as interrupts, pytest.raises(AnalysisFailedError, match=r"^the test did not end in .* h; go on$"):
        outside.analyse_beside(argv, environment(), tmp_path / "log", interrupts, "the test", "go on")


def test_no_other_place_says_the_code_of_a_program_that_a_signal_ended() -> None:
    """`ended_in_words` does, for all of them; a code that was checked not to be a signal's may be said."""
    places: dict[str, Any] = {}
    for file in sorted((ROOT / "runner" / "launcher").glob("*.py")):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if "exit code {" in line or "signal {-" in line:
                places.setdefault(file.name, []).append((number, line.strip()))
    # An nsys that did not start the program or left no report: `death_of_nsys` has looked at the code before.
    allowed = {"run.py": 2, "program.py": 2, "outcome.py": 1, "outside.py": 1}
    assert {name: len(lines) for name, lines in places.items()} == allowed, places
