"""A run's folder that is somebody else's is looked at, and never acted on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from analysis.domain.errors import RequestError
from launch_kit import ROOT, environment, fake_nsys, prepare
from runner.launcher.queue import run_state
from runner.launcher.run_directory import RunDirectory
from runner.process.lock import LockFile

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
