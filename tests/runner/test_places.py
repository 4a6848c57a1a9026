"""Places that are not as expected: folders of PATH, `latest`, the folder of locks, an empty or a foreign name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from analysis.domain.errors import RequestError
from fault_scene import fill, small_disk
from launch_kit import ROOT, environment, fake_nsys
from program_kit import RANGES, program, program_run
from runner.collectors.ncu import tool as ncu
from runner.collectors.nsys import tool as nsys
from runner.launcher.device_lock import DeviceLock
from runner.launcher.queue import find_run
from runner.launcher.run_directory import RunDirectory
from runner.process.process import Interrupts


@contextmanager
def nobody() -> Iterator[None]:
    """As a user who is not root: root may enter every folder."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_of_path_that_may_not_be_entered_is_passed_over(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    for name in ("nsys", "ncu"):
        (locked / name).write_text("#!/bin/sh\n")
        (locked / name).chmod(0o755)
    locked.chmod(0)
    try:
        with nobody():
            assert not [path for path in nsys.candidate_paths({"PATH": str(locked)}) if path.is_relative_to(tmp_path)]
            assert not [path for path in ncu.candidate_paths({"PATH": str(locked)}) if path.is_relative_to(tmp_path)]
    finally:
        locked.chmod(0o700)
    assert locked / "nsys" in nsys.candidate_paths({"PATH": str(locked)})


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_called_latest_and_is_no_link(tmp_path: Path, kind: str) -> None:
    latest = tmp_path / "latest"
    latest.mkdir() if kind == "folder" else latest.touch()
    said: list[str] = []
    run = program_run(tmp_path, program(tmp_path / "p", RANGES), fake_nsys(tmp_path / "nsys"), said=said)
    with Interrupts() as interrupts:
        assert run.start(interrupts, wait=False).status == "complete"
    words = f"{latest}: is a {kind} and no link to the latest run"
    assert [line for line in said if line.startswith(f"warning: {words}, so it is not updated; move it away")]
    with pytest.raises(RequestError, match=f"{words}; move it away, and give a run's id: `dsocr-profile status --all`"):
        find_run(tmp_path, "latest")
    assert find_run(tmp_path, run.plan.run_id[:8]).path == run.directory.path


def test_latest_whose_run_was_removed(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "one")
    run.create()
    assert run.link_latest() is None
    with pytest.raises(RequestError, match="the run that it points to is not there any more; give a run's id"):
        find_run(tmp_path, "latest")


@pytest.mark.parametrize("module", ["runner.cli", "analysis.cli"])
@pytest.mark.parametrize("given", [["--out", ""], ["--out="]])
def test_an_empty_folder_is_not_the_current_one(tmp_path: Path, module: str, given: list[str]) -> None:
    command = ["exec", *given, "--", "true"] if module == "runner.cli" else ["report", "x.sqlite", *given]
    done = subprocess.run(
        [sys.executable, "-m", module, *command],
        env={**environment(), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--out: its name is empty" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_empty_argument_of_the_program_is_its_own(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "runner.cli", "exec", "--dry-run", "--nsys", fake_nsys(tmp_path / "nsys").path]
    done = subprocess.run(
        [*argv, "--", "echo", "--out", ""], env=environment(), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("size", "words", "remedy"),
    [
        ("64k", "the disk is full", "free space"),
        ("4m,nr_inodes=1", "the disk has room and no inodes left", "remove files"),
    ],
)
@pytest.mark.parametrize("chosen", [True, False])
def test_locks_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str, words: str, remedy: str, chosen: bool
) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        if size == "64k":
            fill(disk)
        monkeypatch.setattr("runner.launcher.device_lock._own_folder", lambda: disk)
        lock = DeviceLock("cpu", (), {"DSOCR_LOCK_DIR": str(disk)} if chosen else {})
        with pytest.raises(RequestError) as caught, lock.held(wait=False):
            pass
    assert f"the device's lock cannot be used ({words}" in str(caught.value)
    elsewhere = "let DSOCR_LOCK_DIR name another folder" if chosen else "set DSOCR_LOCK_DIR to a folder"
    assert str(caught.value).endswith(f"; {remedy}, or {elsewhere} of your own")


def test_a_folder_in_utf_8_where_the_locale_is_ascii(tmp_path: Path) -> None:
    tool = fake_nsys(tmp_path / "nsys")
    env = environment(DSOCR_LOCK_DIR=str(tmp_path / "locks"), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    out = os.fsencode(tmp_path) + "/lcé".encode()
    argv: list[str | bytes] = [
        sys.executable,
        "-m",
        "runner.cli",
        "exec",
        "--no-history",
        "--nsys",
        tool.path,
        "--out",
        out,
        "--",
    ]
    done = subprocess.run(
        [*argv, *program(tmp_path / "p", RANGES)], env=env, cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "lcé").glob("*/trace.sqlite"))
