"""Our programs import our packages, whatever files lie in the folder that the user stands in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch_kit import ROOT
from runner.process.environment import child_environment
from runner.process.python import import_path, module_command

HOSTILE = ("analysis", "nvtx", "numpy", "runner", "torch", "transformers")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose Python files leave a trace and fail if anything imports them."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(
            "import pathlib\npathlib.Path(__file__).with_suffix('.imported').touch()\nraise SystemExit('hostile')\n"
        )
    return folder


def imported(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.imported"))


def test_every_module_of_ours_is_started_safely(hostile: Path) -> None:
    env = child_environment({**os.environ, "PYTHONPATH": os.pathsep})
    show = "import analysis, runner, numpy; print(analysis.__file__, runner.__file__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", show], cwd=hostile, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(ROOT / "analysis/__init__.py"), str(ROOT / "runner/__init__.py")]
    assert module_command("runner.cli", "work")[1:] == ["-P", "-m", "runner.cli", "work"]
    # A program that ours starts in turn, without -P.
    (hostile / "json.py").write_text((hostile / "numpy.py").read_text())
    argv = [sys.executable, "-m", "json.tool", "--help"]
    assert subprocess.run(argv, cwd=hostile, env=env, capture_output=True, check=False).returncode == 0
    assert imported(hostile) == []


def test_sources_that_are_not_installed_are_found(tmp_path: Path) -> None:
    """A copy of the sources: its children run the copy, and not what is installed."""
    copy = tmp_path / "sources"
    for package in ("analysis", "runner"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    ask = (
        "import os, subprocess; from runner.launcher.run import analysis_command, child_command\n"
        "from runner.launcher.run_directory import RunDirectory; from runner.process.environment import child_environment\n"
        "from pathlib import Path; command = child_command(RunDirectory(Path('/runs/a')), 'control')\n"
        "show = 'import sys, importlib; print(importlib.import_module(sys.argv[1]).__file__)'\n"
        "for argv in (command, analysis_command(RunDirectory(Path('/runs/a')))):\n"
        "    name = argv[argv.index('-m') + 1].partition('.')[0]\n"
        "    subprocess.run([*argv[:2], '-c', show, name], cwd='/', env=child_environment(os.environ), check=True)\n"
    )
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", ask], cwd=copy, env=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(copy / "runner/__init__.py"), str(copy / "analysis/__init__.py")]


def test_empty_entries_of_the_users_path_are_left_out_and_others_mean_the_same_everywhere() -> None:
    given = os.pathsep.join(["", "/lib/mine", "", "relative", "."])
    wanted = [str(ROOT), "/lib/mine", str(Path.cwd() / "relative"), str(Path.cwd())]
    assert import_path({"PYTHONPATH": given})["PYTHONPATH"].split(os.pathsep) == list(dict.fromkeys(wanted))
    assert import_path({})["PYTHONSAFEPATH"] == "1"
