"""A run's folder that is somebody else's is looked at, and never acted on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from analysis.domain.errors import CaptureError, RequestError
from launch_kit import ROOT, environment, fake_nsys, prepare
from runner.inputs.inputs import sample_set
from runner.launcher.queue import run_state
from runner.launcher.run_directory import RunDirectory, require_safe_place
from runner.process.lock import LockFile
from runner.process.process import Interrupts, run_process
from runner.process.shared_folders import shared_folders

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as other users")
STRANGER = 65531


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user may reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="dsocr-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def planted(reachable: Path, tmp_path: Path) -> Path:
    """A run whose plan starts a program of its author's in nsys' place."""
    nsys = fake_nsys(reachable / "nsys")
    program = Path(nsys.path)
    directory = prepare(reachable / "out", nsys, environ=environment(), nsys=str(program)).directory
    (directory.path / "trace.nsys-rep").write_bytes(b"report")
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'executed'}\n")
    return directory.path


def dsocr(*arguments: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "runner.cli", *arguments],
        env={**environment(), "DSOCR_LOCK_DIR": tempfile.mkdtemp(prefix="dsocr-test-locks-")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        user=user,
    )


def give(path: Path, user: int) -> None:
    for each in (path, *path.rglob("*")):
        os.chown(each, user, user, follow_symlinks=False)


@as_root
@pytest.mark.parametrize("command", ["resume", "cancel", "review"])
def test_a_strangers_run_is_not_acted_on_by_root_either(planted: Path, tmp_path: Path, command: str) -> None:
    give(planted, STRANGER)
    before = {path: path.lstat().st_mtime_ns for path in planted.rglob("*")}
    done = dsocr(command, planted.name, "--out", str(planted.parent))
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "belongs to user 65531; go on with it as its owner, or copy it" in done.stderr
    assert not (tmp_path / "executed").exists()
    assert {path: path.lstat().st_mtime_ns for path in planted.rglob("*")} == before
    assert run_state(RunDirectory(planted)).status == "failed"  # to look is no harm


@as_root
def test_a_background_worker_takes_no_strangers_plan(planted: Path, tmp_path: Path) -> None:
    give(planted, STRANGER)
    done = dsocr("work", str(planted), "--answer", "2")
    assert done.returncode == 2
    assert "belongs to user 65531" in done.stderr
    assert not (tmp_path / "executed").exists()


@as_root
@pytest.mark.parametrize("name", ["plan.json", "run.json", "control.json", ".lock", "logs", "trace.nsys-rep"])
def test_a_file_of_a_stranger_in_a_folder_of_ours_is_not_believed(planted: Path, tmp_path: Path, name: str) -> None:
    if not (planted / name).exists():
        (planted / name).write_text("{}")
    os.chown(planted / name, STRANGER, STRANGER)
    with pytest.raises(RequestError, match=rf"{name}: belongs to user 65531"):
        RunDirectory(planted).read_plan()
    assert dsocr("resume", planted.name, "--out", str(planted.parent)).returncode == 2
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["plan.json", "run.json", ".lock", "logs"])
def test_a_link_in_place_of_a_record_is_not_followed(tmp_path: Path, name: str) -> None:
    directory = prepare(tmp_path / "out", None).directory
    elsewhere = tmp_path / "elsewhere"
    (elsewhere.mkdir if name == "logs" else elsewhere.touch)()
    if (directory.path / name).is_dir():
        shutil.rmtree(directory.path / name)
    else:
        (directory.path / name).unlink(missing_ok=True)
    (directory.path / name).symlink_to(elsewhere)
    with pytest.raises(RequestError, match="is a symbolic link, which no run makes there"):
        directory.require_own()


@pytest.mark.parametrize("name", [".reserve", "trace.partial.sqlite", "report.md", "logs/export.log"])
def test_nothing_but_a_trace_may_be_a_link(tmp_path: Path, name: str) -> None:
    """A folder from an archive: what a resumed run writes would land in the link's target."""
    directory = prepare(tmp_path / "out", None).directory
    (tmp_path / "precious").write_text("precious")
    (directory.path / name).symlink_to(tmp_path / "precious")
    assert dsocr("resume", directory.path.name, "--out", str(directory.path.parent)).returncode == 2
    assert (tmp_path / "precious").read_text() == "precious"


def test_the_reserve_is_written_through_no_link(tmp_path: Path) -> None:
    directory = prepare(tmp_path / "out", None).directory
    (tmp_path / "precious").write_text("precious")
    (directory.path / ".reserve").symlink_to(tmp_path / "precious")
    with directory.locked():
        assert (directory.path / ".reserve").stat(follow_symlinks=False).st_size == 1 << 17
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_log_is_written_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "log").symlink_to(tmp_path / "precious")
    with Interrupts() as interrupts, pytest.raises(CaptureError, match="log: cannot be written"):
        run_process(["echo", "more"], env={"PATH": "/usr/bin:/bin"}, log=tmp_path / "log", interrupts=interrupts)
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_trace_may_lie_elsewhere(tmp_path: Path) -> None:
    directory = prepare(tmp_path / "out", None).directory
    (tmp_path / "trace.sqlite").touch()
    directory.trace_file.symlink_to(tmp_path / "trace.sqlite")
    directory.require_own()


def test_a_folder_that_everybody_may_write_is_not_acted_on(tmp_path: Path) -> None:
    directory = prepare(tmp_path / "out", None).directory
    directory.path.chmod(0o777)
    with pytest.raises(RequestError, match=r"everybody may write there.*chmod go-w"):
        directory.read_plan()


@as_root
def test_files_of_nobody_are_ours_where_all_that_we_make_are_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system gives root's files to nobody: whoever makes such files there is who owns them."""
    directory = prepare(tmp_path / "out", None).directory
    give(directory.path, STRANGER)
    with pytest.raises(RequestError, match="belongs to"):
        directory.require_own()
    make: Callable[..., object] = tempfile.TemporaryFile

    def squashed(**options: Path) -> object:
        file = make(**options)
        os.fchown(file.fileno(), STRANGER, STRANGER)  # type: ignore[attr-defined]
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", squashed)
    directory.require_own()
    with LockFile(directory.path / ".lock").held():
        pass
    give(directory.path, STRANGER)
    with directory.locked():
        pass


def test_what_the_caller_owns_is_resumed(tmp_path: Path) -> None:
    tool = fake_nsys(tmp_path / "nsys")
    directory = prepare(tmp_path / "out", tool, nsys=tool.path).directory
    assert directory.read_plan().settings.nsys == tool.path


def child(module: str, plan: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", f"runner.child.{module}", str(plan), *arguments]
    return subprocess.run(
        command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


@as_root
@pytest.mark.parametrize("arguments", [("workload", "--role", "control"), ("sweep",)])
def test_the_program_carries_out_no_plan_that_was_put_in_the_place_of_ours(
    reachable: Path, arguments: tuple[str, ...]
) -> None:
    """Whoever owns a folder above the run's may rename it away while the run goes on."""
    directory = prepare(reachable / "out", None).directory
    give(directory.path, STRANGER)
    module, *more = arguments
    done = child(module, directory.plan_file, *more)
    assert done.returncode == 2, done.stderr
    assert "plan.json: belongs to user 65531, and what it names would be started" in done.stderr


def test_the_program_follows_no_link_to_its_plan(tmp_path: Path) -> None:
    directory = prepare(tmp_path / "out", None).directory
    (tmp_path / "plan.json").symlink_to(directory.plan_file)
    done = child("workload", tmp_path / "plan.json", "--role", "control")
    assert done.returncode == 2
    assert "is a symbolic link" in done.stderr


@as_root
def test_a_folder_that_was_put_in_the_place_of_a_runs_ends_it(reachable: Path) -> None:
    directory = prepare(reachable / "out", None).directory
    directory.require_there()
    directory.path.rename(reachable / "away")
    shutil.copytree(reachable / "away", directory.path)
    give(directory.path, STRANGER)
    with pytest.raises(CaptureError, match="a folder of user 65531 was put in its place"):
        directory.require_there()


@pytest.mark.parametrize("linked", [False, True])
def test_nothing_is_begun_where_everybody_may_rename(tmp_path: Path, linked: bool) -> None:
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    out = place / "reports"
    if linked:
        (tmp_path / "link").symlink_to(place)
        out = tmp_path / "link" / "reports"
    nsys = fake_nsys(tmp_path / "nsys").path
    commands = (
        ("exec", "--nsys", nsys, "--out", str(out), "--", "true"),
        ("run", "deepseek-ocr-tiny", "--device", "cpu", "--collector", "torch", "--out", str(out)),
        ("sweep", "llama-tiny", "--device", "cpu", "--out", str(out)),
    )
    for command in commands:
        done = dsocr(*command)
        assert done.returncode == 2, done.stderr
        assert f"{place}: everybody may write there, and put something else in the place" in done.stderr
    assert list(place.iterdir()) == []
    place.chmod(0o1777)
    require_safe_place(out)


@as_root
def test_a_folder_of_another_user_is_named_and_gone_on_with(reachable: Path) -> None:
    """Root in a container, with a user's checkout mounted."""
    os.chown(reachable, STRANGER, STRANGER)
    said: list[str] = []
    require_safe_place(reachable / "reports", said.append)
    assert len(said) == 1
    assert said[0].startswith(f"warning: {reachable}: user 65531 may rename what is there")
    directory = RunDirectory(reachable / "reports" / "id")
    directory.create()
    with directory.temporary() as folder:
        assert reachable not in folder.parents  # programs take compiled code from there
    nsys = fake_nsys(reachable / "nsys").path
    done = dsocr("exec", "--ranks", "2", "--nsys", nsys, "--out", str(reachable), "--", "true", "torchrun")
    assert done.returncode == 2
    assert "put another script in the place of rank.sh" in done.stderr


@as_root
@pytest.mark.parametrize("command", ["run", "exec", "sweep", "ab", "submit"])
def test_a_folder_of_another_user_is_named_where_nothing_is_started_yet(reachable: Path, command: str) -> None:
    """With --dry-run, and by `submit`, whose run goes on in the background, where nobody reads."""
    os.chown(reachable, STRANGER, STRANGER)
    out = ["--out", str(reachable / "reports")]
    setting = reachable / "setting.json"
    setting.write_text('{"model": "llama-tiny", "device": "cpu", "collector": "torch"}')
    pages = reachable / "pages"
    sample_set(pages, (0,))
    request = reachable / "request.json"
    request.write_text(json.dumps({"model_path": "llama-tiny", "input_dir": str(pages), "device": "cpu"}))
    lines = {
        "run": ["run", "llama-tiny", "--device", "cpu", "--collector", "torch", "--dry-run", *out],
        "exec": ["exec", "--nsys", fake_nsys(reachable / "nsys").path, "--dry-run", *out, "--", "true"],
        "sweep": ["sweep", "llama-tiny", "--device", "cpu", "--dry-run", "--out", str(reachable / "reports" / "sweep")],
        "ab": ["ab", str(setting), str(setting), "--dry-run", *out],
        "submit": ["submit", str(request), "--collector", "torch", *out],
    }
    done = dsocr(*lines[command])
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"warning: {reachable}: user 65531 may rename what is there") == 1, done.stderr
    if command == "submit":
        dsocr("cancel", "latest", *out)


@as_root
def test_a_group_of_others_is_named_and_ones_own_is_not(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    assert shared_folders(tmp_path) == ()
    os.chown(tmp_path, -1, STRANGER)
    assert [shared.who for shared in shared_folders(tmp_path)] == ["the members of group 65531"]
    tmp_path.chmod(0o755)
    assert shared_folders(tmp_path) == ()
