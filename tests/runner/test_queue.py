"""Background runs, status and cancel."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from analysis.domain.errors import BusyError, InterruptedRunError, RequestError
from launch_kit import ROOT, environment, fake_nsys, hold_device, prepare
from runner.collectors.choosing import planned_collector
from runner.launcher.device_lock import DeviceLock
from runner.launcher.launch import carry_out
from runner.launcher.queue import all_states, cancel, find_run, run_state
from runner.launcher.queue import submit as submit_run
from runner.launcher.run_directory import RunDirectory
from runner.plan.options import options_of
from runner.plan.settings import Settings
from runner.process.lock import LockFile


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return environment(DSOCR_LOCK_DIR=str(tmp_path / "locks"))


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    run = prepare(tmp_path / "out", fake_nsys(tmp_path / "nsys"))
    with run.directory.locked():
        assert run.directory.holder() == os.getpid()
        code = (
            "import sys; from pathlib import Path; from runner.launcher.run_directory import RunDirectory\n"
            "with RunDirectory(Path(sys.argv[1])).locked(): pass"
        )
        second = subprocess.run(
            [sys.executable, "-c", code, str(run.directory.path)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"another process works on this run (process {os.getpid()})" in second.stderr
    assert run.directory.holder() is None
    assert stat.S_IMODE((run.directory.path / ".lock").stat().st_mode) == 0o600


def test_a_run_whose_process_is_gone_has_failed(tmp_path: Path) -> None:
    run = prepare(tmp_path / "out", fake_nsys(tmp_path / "nsys"))
    state = run_state(run.directory)
    assert (state.status, state.process) == ("failed", None)
    with run.directory.locked():
        assert run_state(run.directory).status == "running"


def test_runs_are_found_by_the_beginning_of_their_id(tmp_path: Path) -> None:
    tool = fake_nsys(tmp_path / "nsys")
    out = tmp_path / "out"
    first, second = (prepare(out, tool).directory for _ in range(2))
    second.link_latest()
    assert find_run(out, first.path.name[:13]) == first
    assert find_run(out, "latest") == second
    for wrong in ("", "../nsys", "nothing"):
        with pytest.raises(RequestError, match=r"runs? in"):
            find_run(out, wrong)
    (second.manifest_file).write_text("{")
    states = all_states(out)
    assert {state.run_id for state in states} == {first.path.name, second.path.name}
    assert any("not valid JSON" in (state.error or "") for state in states)


def test_a_finished_run_cannot_be_cancelled(tmp_path: Path) -> None:
    directory = prepare(tmp_path / "out", fake_nsys(tmp_path / "nsys")).directory
    directory.write(directory.manifest_file, evolve(directory.read_manifest(), status="complete"))
    with pytest.raises(RequestError, match="is complete already"):
        cancel(directory)


def dsocr(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runner.cli", *arguments],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    from PIL import Image

    pages = tmp_path / "pages"
    pages.mkdir()
    Image.new("RGB", (64, 64), "white").save(pages / "a.png")
    file = tmp_path / "request.json"
    request = {
        "model_path": "deepseek-ocr-tiny",
        "input_dir": str(pages),
        "device": "cpu",
        "max_new_tokens": 2,
        "repeats": 1,
    }
    file.write_text(json.dumps(request))
    return file


def test_submit_answers_at_once_and_a_queued_run_can_be_cancelled(
    tmp_path: Path, environ: dict[str, str], request_file: Path
) -> None:
    out = tmp_path / "out"
    process = hold_device("cpu", environ)
    try:
        answer = dsocr(environ, "submit", str(request_file), "--out", str(out))
        assert answer.returncode == 0, answer.stderr
        accepted = json.loads(answer.stdout)
        assert set(accepted) == {"run_id", "status", "artifacts_dir"}
        assert accepted["status"] == "queued"
        assert accepted["artifacts_dir"] == str(out / accepted["run_id"])
        status = dsocr(environ, "status", accepted["run_id"], "--json", "--out", str(out))
        assert json.loads(status.stdout)["status"] == "queued"
        cancelled = dsocr(environ, "cancel", accepted["run_id"], "--out", str(out))
        assert cancelled.returncode == 0, cancelled.stderr
        assert "cancelled" in cancelled.stdout
    finally:
        process.kill()
        process.wait()
    directory = RunDirectory(out / accepted["run_id"])
    left = directory.read_manifest()
    assert (left.status, left.error) == ("cancelled", "cancelled before it began")
    assert directory.holder() is None
    listed = dsocr(environ, "status", "--all", "--out", str(out))
    assert accepted["run_id"][:8] in listed.stdout


def test_a_killed_background_run_frees_the_device(tmp_path: Path, environ: dict[str, str], request_file: Path) -> None:
    out = tmp_path / "out"
    answer = dsocr(environ, "submit", str(request_file), "--out", str(out))
    accepted = json.loads(answer.stdout)
    assert accepted["status"] == "running"
    directory = RunDirectory(Path(accepted["artifacts_dir"]))
    holder = directory.holder()
    assert holder
    os.kill(holder, signal.SIGKILL)
    until = time.monotonic() + 20
    while directory.holder() is not None and time.monotonic() < until:
        time.sleep(0.05)
    from runner.process.process import reap

    reap(accepted["run_id"])
    assert DeviceLock("cpu", (), environ).file.holder() is None
    assert run_state(directory).status == "failed"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_dir": "pages"}, r"\$.input_dir"),
        ({"repeats": 0}, r"\$.repeats"),
        ({"colour": 1}, r"\$.colour: unknown field"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(
    tmp_path: Path, environ: dict[str, str], request_file: Path, change: dict[str, object], words: str
) -> None:
    request_file.write_text(json.dumps({**json.loads(request_file.read_text()), **change}))
    answer = dsocr(environ, "submit", str(request_file), "--out", str(tmp_path / "out"))
    assert answer.returncode == 2
    assert len(answer.stderr.strip().splitlines()) == 1
    assert words.replace("\\", "") in answer.stderr
    assert not (tmp_path / "out").exists()


def test_submit_takes_no_devices_lock_itself(
    tmp_path: Path, environ: dict[str, str], request_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tried the lock to know whether the device is free: a run that wanted it just then was refused."""
    from runner.cli.submit import submit

    taken: list[str] = []
    held = LockFile.held

    def noted(self: LockFile, **options: Any) -> AbstractContextManager[None]:
        taken.append(self.path.name)
        return held(self, **options)

    monkeypatch.setattr(LockFile, "held", noted)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    submit(request_file=request_file, out=tmp_path / "out", **{one.name: one.default for one in options_of(Settings)})
    (directory,) = (RunDirectory(folder) for folder in (tmp_path / "out").iterdir() if not folder.is_symlink())
    cancel(directory)
    assert "cpu.lock" not in taken
    assert (Path(environ["DSOCR_LOCK_DIR"]) / "cpu.lock").exists()  # the worker took it


def test_a_run_that_was_cancelled_before_it_began_does_not_begin(tmp_path: Path, environ: dict[str, str]) -> None:
    run = prepare(tmp_path / "out", None, environ=environ)
    run.directory.write(run.directory.manifest_file, evolve(run.directory.read_manifest(), status="queued"))
    run.directory.cancel_file.touch()
    answers: list[str] = []
    with pytest.raises(InterruptedRunError, match="cancelled before it began"):
        carry_out(
            run.directory,
            planned_collector("torch", None, environ, needs_tool=True),
            environ,
            lambda line: None,
            wait=True,
            answer=answers.append,
        )
    assert answers == []
    assert run.directory.read_manifest().status == "cancelled"
    assert not (run.directory.path / "control.json").exists()


def test_a_worker_that_does_not_come_up_is_told_in_its_own_words(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = prepare(tmp_path / "out", None, environ=environ).directory
    directory.plan_file.write_text("{")
    with pytest.raises(RequestError, match=r"did not come up: error: .*plan\.json: not valid JSON"):
        submit_run(directory, environ)


def test_who_may_not_look_at_a_run_does_not_call_it_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = prepare(tmp_path / "out", None).directory
    monkeypatch.setattr(RunDirectory, "holder", lambda self: 0)  # another user's lock file
    state = run_state(directory)
    assert (state.status, state.process) == ("running", None)
    with pytest.raises(BusyError, match="cancel it as the user who started it"):
        cancel(directory)


def test_a_reader_that_goes_away_ends_the_output_quietly(tmp_path: Path, environ: dict[str, str]) -> None:
    for _ in range(3):
        prepare(tmp_path / "out", None, environ=environ)
    command = f"set -o pipefail; {sys.executable} -m runner.cli status --all --out {tmp_path / 'out'} | true"
    done = subprocess.run(
        ["bash", "-c", command], env=environ, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode in (0, 1)  # typer ends with 1 where nobody reads any more
    assert done.stderr == ""
