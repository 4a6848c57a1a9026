"""Background runs, status and cancel."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from analysis.domain.errors import BusyError, InterruptedRunError, RequestError
from launch_kit import ROOT, device_held, environment, fake_nsys, prepare, start_launcher
from runner.cli.review import review
from runner.collectors.choosing import planned_collector
from runner.launcher.launch import carry_out
from runner.launcher.queue import all_states, cancel, find_run, run_state
from runner.launcher.queue import submit as submit_run
from runner.launcher.run_directory import RunDirectory
from runner.plan.options import options_of
from runner.plan.settings import Settings
from runner.process.environment import RUN_MARK
from runner.process.lock import LockFile
from runner.process.process import Interrupts, marked_processes
from runner.process.process_mark import LAUNCHER_MARK, UNKNOWN_PROCESS, ProcessMark, namespace_of


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
    for wrong in ("", " ", "../nsys", "nothing"):
        with pytest.raises(RequestError, match=r"runs? in"):
            find_run(out, wrong)
    second.manifest_file.write_text("{")
    states = all_states(out)
    assert {state.run_id for state in states} == {first.path.name, second.path.name}
    assert any("not valid JSON" in (state.error or "") for state in states)


def test_a_word_is_a_run_of_the_folder_before_it_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`review latest` took `./latest` of the current folder, unlike every other command."""
    tool = fake_nsys(tmp_path / "nsys")
    out, here = tmp_path / "out", tmp_path / "here"
    wanted, other = prepare(out, tool).directory, prepare(here, tool).directory
    wanted.link_latest()
    other.link_latest()
    (here / wanted.path.name[:8]).symlink_to(other.path)
    (here / "mine").symlink_to(other.path)
    monkeypatch.chdir(here)
    assert find_run(out, "latest") == wanted
    assert find_run(out, wanted.path.name[:8]) == wanted
    for path in ("./latest", "mine", f"./{wanted.path.name[:8]}", str(other.path), f"../here/{other.path.name}"):
        assert find_run(out, path) == other, path
    with pytest.raises(RequestError, match=r"\./nothing: no run in this folder"):
        find_run(out, "./nothing")
    with pytest.raises(RequestError, match=wanted.path.name):
        review("latest", out=out)


def test_a_finished_run_cannot_be_cancelled(tmp_path: Path) -> None:
    directory = prepare(tmp_path / "out", fake_nsys(tmp_path / "nsys")).directory
    directory.write(directory.manifest_file, evolve(directory.read_manifest(), status="complete"))
    with pytest.raises(RequestError, match="is complete already"):
        cancel(directory, print)


def test_a_run_that_is_cancelled_already_is_cancelled(tmp_path: Path) -> None:
    """Of two who ask at once one failed, by chance."""
    directory = prepare(tmp_path / "out", fake_nsys(tmp_path / "nsys")).directory
    said: list[str] = []
    for _ in range(2):
        assert cancel(directory, said.append).status == "cancelled"
    assert said == [f"run {directory.path.name} is cancelled already"]


@pytest.mark.parametrize("command", ["cancel", "resume", "status", "review", "show"])
def test_an_empty_id_is_that_of_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """A script's variable that was not set cancelled the only run."""
    from runner.cli.app import main

    run = prepare(tmp_path / "out", None)
    monkeypatch.chdir(run.directory.path)  # `review` also takes a folder, and the empty one is here
    words = ["history", "show"] if command == "show" else [command]
    with pytest.raises(SystemExit) as ended:
        main([*words, "", "--out", str(tmp_path / "out")])
    assert ended.value.code in (2, 16)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert run.directory.read_manifest().status == "running"
    assert not run.directory.cancel_file.exists()


def test_an_empty_id_finds_nothing_in_a_history(tmp_path: Path) -> None:
    from analysis.domain.errors import StoreError
    from history.location import locate
    from history.store import Store

    store = Store(locate(str(tmp_path / "history.sqlite")), print)
    with pytest.raises(StoreError, match="empty id"):
        store.find("")


@pytest.mark.parametrize("created", ["2099-01-01T00:00:00+00:00", "2099-01-01T00:00:00", "2020-01-01T00:00:00+00:00"])
def test_a_run_that_was_queued_in_the_future_is_not_coming_up(tmp_path: Path, created: str) -> None:
    """A clock was set back since, or another machine's is wrong: it was called queued for ever."""
    directory = prepare(tmp_path / "out", None).directory
    record = json.loads(directory.manifest_file.read_text())
    record["status"] = "queued"
    directory.manifest_file.write_text(json.dumps(record))
    assert run_state(directory).status == "queued"  # of just now
    record["meta"]["created_at"] = created
    directory.manifest_file.write_text(json.dumps(record))
    assert run_state(directory).status == "failed"


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:9"])
def test_a_run_for_a_gpu_that_is_not_there_is_not_accepted(
    tmp_path: Path, environ: dict[str, str], request_file: Path, device: str
) -> None:
    from runner.process.driver import driver_facts

    if len(driver_facts().gpus) and device != "cuda:9":
        device = f"cuda:{len(driver_facts().gpus)}"
    request_file.write_text(json.dumps({**json.loads(request_file.read_text()), "device": device}))
    answer = dsocr(environ, "submit", str(request_file), "--out", str(tmp_path / "out"))
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert len(answer.stderr.strip().splitlines()) == 1
    assert device in answer.stderr
    assert not (tmp_path / "out").exists()


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


def test_of_five_runs_at_once_one_has_the_device(tmp_path: Path, environ: dict[str, str], request_file: Path) -> None:
    out = tmp_path / "out"
    argv = [sys.executable, "-m", "runner.cli", "submit", str(request_file), "--out", str(out)]
    started = [subprocess.Popen(argv, env=environ, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in started]
    directories = [RunDirectory(Path(answer["artifacts_dir"])) for answer in answers]
    try:
        assert sorted(answer["status"] for answer in answers) == ["queued"] * 4 + ["running"]
        for answer, directory in zip(answers, directories, strict=True):
            assert run_state(directory).status in (answer["status"], "running")
        assert sum(run_state(directory).status == "running" for directory in directories) <= 1
    finally:
        for directory in directories:
            if run_state(directory).status in ("queued", "running"):
                cancel(directory, print)
    assert {directory.read_manifest().status for directory in directories} <= {"cancelled", "complete"}
    assert not any(directory.holder() for directory in directories)


def test_two_cancels_at_once_keep_what_was_captured(tmp_path: Path, environ: dict[str, str]) -> None:
    """The second counted as the second Ctrl-C, which kills nsys."""
    run = prepare(tmp_path / "out", fake_nsys(tmp_path / "nsys"), "stubborn hang", environ=environ, grace_s=2.0)
    launcher = start_launcher(run)
    try:
        wait_for((run.directory.path / "capture is at work").exists)
        argv = [sys.executable, "-m", "runner.cli", "cancel", run.plan.run_id, "--out", str(tmp_path / "out")]
        both = [
            subprocess.Popen(argv, env=environ, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        said = [process.communicate(timeout=60) for process in both]
        launcher.communicate(timeout=60)
    finally:
        launcher.kill()
    assert [process.returncode for process in both] == [0, 0], said
    assert all("cancelled" in output for output, _ in said)
    assert sum(f"run {run.plan.run_id} is being cancelled" in errors for _, errors in said) == 1
    assert run.directory.read_manifest().status == "cancelled"
    assert run.directory.report_file.is_file()
    assert not marked_processes(run.plan.run_id)


def test_a_cancel_leaves_another_cancel_of_the_run_alone(tmp_path: Path) -> None:
    """It took the holder of the run's lock for the run, and ended the other one: "error: interrupted"."""
    directory = prepare(tmp_path / "out", None).directory
    code = (
        "import sys, time; from pathlib import Path; from runner.launcher.run_directory import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).locked('cancel'):\n"
        "    Path(sys.argv[2]).touch(); sys.stdin.read()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(directory.path), str(tmp_path / "at work")],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
    )
    try:
        wait_for((tmp_path / "at work").exists)
        state = run_state(directory)
        assert (state.status, state.process) == ("running", first.pid)
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(cancel, directory, print)
            wait_for(directory.cancel_file.exists)
            time.sleep(0.5)
            assert first.poll() is None
            assert not second.done()
            first.communicate(timeout=20)
            assert second.result(60).status == "cancelled"
        assert first.returncode == 0
    finally:
        first.kill()


def test_the_word_in_a_runs_folder_ends_it_where_no_signal_comes(tmp_path: Path, environ: dict[str, str]) -> None:
    run = prepare(tmp_path / "out", fake_nsys(tmp_path / "nsys"), "hang", environ=environ)
    with Interrupts() as interrupts:
        interrupts.listen(run.directory.cancel_file.exists)
        assert interrupts.count == 0

        def ask() -> None:
            wait_for((run.directory.path / "capture is at work").exists)
            assert run.directory.ask_to_cancel()

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask)
            with pytest.raises(InterruptedRunError, match="the capture was interrupted; what it captured is in"):
                run.start(interrupts)
            asking.result(1)
        assert interrupts.count == 1  # once, however often it is looked at: nsys may write its report
    assert run.directory.read_manifest().status == "cancelled"
    assert run.directory.report_file.is_file()


def test_a_process_elsewhere_is_named_so_and_gets_no_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Number 1 of a container is not the first process of the machine."""
    machine, _, namespace = namespace_of(os.getpid()).partition(".")
    directory = prepare(tmp_path / "out", None).directory
    mark = ProcessMark(os.getpid(), 1, f"{machine}.1{namespace}")
    holders = iter([mark, mark])
    monkeypatch.setattr(RunDirectory, "held_by", lambda self: next(holders, None))
    state = run_state(directory)
    words = f"process {os.getpid()} of another PID namespace, such as a container's"
    assert (state.status, state.process, state.error) == ("running", None, f"{words} works on it")
    said: list[str] = []
    assert cancel(directory, said.append).status == "cancelled"  # and this process lives
    assert said == [f"run {directory.path.name} is worked on by {words}, which looks for the word that it is cancelled"]
    assert not mark.is_gone()
    assert ProcessMark(7, 1, f"0{machine}.{namespace}").words() == "process 7 of another machine"
    assert ProcessMark(7, 1, namespace_of(os.getpid())).words() == "process 7"


@pytest.mark.parametrize("role", ["", "cancel"])
def test_a_process_is_told_from_another_of_its_number(role: str) -> None:
    own = ProcessMark.own(role)
    assert ProcessMark.read(str(own)) == own
    assert not own.is_gone()
    assert own.started is not None
    assert evolve(own, started=own.started - 1).is_gone()
    assert not ProcessMark(own.process).is_gone()  # nothing is known of it
    assert ProcessMark.read("4711") == ProcessMark(4711)  # what an older version wrote


def test_what_a_dead_launcher_left_is_told_and_ended(tmp_path: Path, environ: dict[str, str]) -> None:
    run = prepare(tmp_path / "out", fake_nsys(tmp_path / "nsys"), environ=environ)
    with run.directory.locked():
        pass  # the launcher was there
    dead = subprocess.Popen(["true"])
    gone = f"{dead.pid}:1:{namespace_of(os.getpid())}"  # nothing of its number began with the system
    dead.wait()
    left = subprocess.Popen(["sleep", "300"], env={**environ, RUN_MARK: run.plan.run_id, LAUNCHER_MARK: gone})
    try:
        wait_for(lambda: bool(marked_processes(run.plan.run_id)))
        state = run_state(run.directory)
        assert (state.status, state.process) == ("failed", None)
        assert state.error is not None
        assert f"its launcher is gone, and sleep ({left.pid}) goes on; `dsocr-profile cancel` ends it" in state.error
        said: list[str] = []
        assert cancel(run.directory, said.append).status == "cancelled"
        assert left.wait(10) != 0
        assert any(f"sleep ({left.pid}) goes on; ending it" in line for line in said)
    finally:
        left.kill()
    manifest = run.directory.read_manifest()
    assert manifest.status == "cancelled"
    assert manifest.error is not None
    assert "its launcher was gone" in manifest.error


def test_a_cancel_of_a_run_whose_launcher_was_killed_ends_all_of_it(tmp_path: Path, environ: dict[str, str]) -> None:
    run = prepare(tmp_path / "out", fake_nsys(tmp_path / "nsys"), "stubborn hang", environ=environ)
    launcher = start_launcher(run)
    wait_for((run.directory.path / "capture is at work").exists)
    launcher.kill()
    launcher.wait()
    cancelled = dsocr(environ, "cancel", run.plan.run_id, "--out", str(tmp_path / "out"))
    assert cancelled.returncode == 0, cancelled.stderr
    manifest = run.directory.read_manifest()
    assert manifest.status == "cancelled"
    assert "its launcher was gone" in (manifest.error or "") or "launcher is gone" not in cancelled.stderr
    assert not marked_processes(run.plan.run_id)
    assert run.directory.holder() is None


def test_a_record_that_cannot_be_read_is_named_and_not_the_plan(tmp_path: Path) -> None:
    """A run of `exec` whose run.json was damaged was told that its plan lacks what that of a model has."""
    directory = prepare(tmp_path / "out", None).directory
    directory.plan_file.write_text('{"command": ["true"]}')
    with pytest.raises(RequestError, match=r"plan\.json: .*missing"):
        directory.read_plan()
    directory.manifest_file.write_text('{"')
    with pytest.raises(RequestError, match=r"run\.json: not valid JSON"):
        directory.read_plan()


def test_a_lock_of_a_dead_process_has_nobody_else_signalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system gives the number of a dead process to another one."""
    stranger = subprocess.Popen(["sleep", "300"])
    try:
        directory = prepare(tmp_path / "out", None).directory
        holders = iter([ProcessMark(stranger.pid)])
        monkeypatch.setattr(RunDirectory, "held_by", lambda self: next(holders, None))
        assert cancel(directory, print).error == "cancelled by the user"
        assert stranger.poll() is None
    finally:
        stranger.kill()


def test_a_run_that_comes_up_is_queued_and_not_dead(tmp_path: Path) -> None:
    directory = prepare(tmp_path / "out", None).directory
    manifest = evolve(directory.read_manifest(), status="queued")
    directory.write(directory.manifest_file, manifest)
    assert run_state(directory).status == "queued"
    with directory.locked():
        pass
    assert run_state(directory).status == "failed"
    (directory.lock_file).unlink()
    long_ago = evolve(manifest.meta, created_at=manifest.meta.created_at - timedelta(minutes=5))
    directory.write(directory.manifest_file, evolve(manifest, meta=long_ago))
    assert run_state(directory).status == "failed"


def test_a_run_is_complete_when_its_report_is_there(tmp_path: Path) -> None:
    """It was called complete before the analysis had begun."""
    seen = tmp_path / "status while the report is made"

    def looking(directory: RunDirectory) -> list[str]:
        code = "import json, sys; open(sys.argv[2], 'w').write(json.load(open(sys.argv[1]))['status'])"
        return [sys.executable, "-c", code, str(directory.manifest_file), str(seen)]

    run = prepare(tmp_path / "out", fake_nsys(tmp_path / "nsys"), analysis=looking)
    with Interrupts() as interrupts:
        assert run.start(interrupts).status == "complete"
    assert seen.read_text() == "running"


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
    with device_held("cpu", environ):
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
    directory = RunDirectory(out / accepted["run_id"])
    left = directory.read_manifest()
    assert (left.status, left.error) == ("cancelled", "cancelled before it began")
    assert directory.holder() is None
    listed = dsocr(environ, "status", "--all", "--out", str(out))
    assert accepted["run_id"][:8] in listed.stdout


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
    cancel(directory, print)
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
    directory.write(directory.manifest_file, evolve(directory.read_manifest(), status="queued"))
    directory.plan_file.write_text("{")
    with pytest.raises(RequestError, match=r"did not come up: error: .*plan\.json: not valid JSON"):
        submit_run(directory, environ)
    assert directory.read_manifest().status == "failed"
    assert "did not come up" in (directory.read_manifest().error or "")


def test_who_may_not_look_at_a_run_does_not_call_it_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = prepare(tmp_path / "out", None).directory
    monkeypatch.setattr(RunDirectory, "held_by", lambda self: UNKNOWN_PROCESS)  # another user's lock file
    state = run_state(directory)
    assert (state.status, state.process) == ("running", None)
    with pytest.raises(BusyError, match="cancel it as the user who started it"):
        cancel(directory, print)


def test_a_reader_that_goes_away_ends_the_output_quietly(tmp_path: Path, environ: dict[str, str]) -> None:
    for _ in range(3):
        prepare(tmp_path / "out", None, environ=environ)
    command = f"set -o pipefail; {sys.executable} -m runner.cli status --all --out {tmp_path / 'out'} | true"
    done = subprocess.run(
        ["bash", "-c", command], env=environ, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode in (0, 141)  # as of a program that SIGPIPE ends
    assert done.stderr == ""
