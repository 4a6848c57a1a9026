"""What a run writes is for its user alone, whatever the file mode mask was that the command was started with."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

from launch_kit import ROOT, environment, fake_nsys
from runner.process.file_modes import umask_prefix


def dsocr(environ: dict[str, str], *arguments: str, program: str = "runner.cli") -> subprocess.CompletedProcess[str]:
    """A command started with the mask 0, under which whatever does not see to its files is open to everybody."""
    return subprocess.run(
        [sys.executable, "-P", "-m", program, *arguments],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        umask=0,
    )


def open_to_others(folder: Path) -> list[str]:
    """Folders that are not 0700 and files that are not 0600 (0700 where they are programs), below and including one."""
    wrong = []
    for path in (folder, *sorted(folder.rglob("*"))):
        facts = path.lstat()
        if not stat.S_ISLNK(facts.st_mode) and stat.S_IMODE(facts.st_mode) & 0o077:
            wrong.append(f"{path.relative_to(folder)} {stat.S_IMODE(facts.st_mode):04o}")
    return wrong


def page_of(folder: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (64, 64), "white").save(folder / "page.png")
    return folder / "page.png"


SMALL = ("--device", "cpu", "--repeats", "1", "--max-new-tokens", "2")


def test_a_whole_run_its_report_and_the_history_are_the_users_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    environ = environment(DSOCR_LOCK_DIR=str(tmp_path / "locks"))
    page = str(page_of(tmp_path))
    done = dsocr(
        environ, "run", "deepseek-ocr-tiny", "--collector", "torch", "--images", page, "--out", str(out), *SMALL
    )
    assert done.returncode == 0, done.stderr
    folder = (out / "latest").resolve()
    names = {path.name for path in folder.rglob("*")}
    assert {
        "run.json",
        "plan.json",
        "trace.sqlite",
        "report.html",
        "report.json",
        "control.log",
        "text.md",
        ".lock",
    } <= names
    assert (out / "history.sqlite").is_file()
    assert open_to_others(out) == []
    assert open_to_others(tmp_path / "locks") == []


def test_a_program_has_its_users_own_mask_and_its_run_is_private(tmp_path: Path) -> None:
    """nsys starts what it profiles with the mask 0; without us the program would have its user's."""
    tool = fake_nsys(tmp_path / "nsys")
    out = tmp_path / "out"
    made = tmp_path / "made"
    environ = environment(DSOCR_LOCK_DIR=str(tmp_path / "locks"))
    program = ["sh", "-c", f"umask; touch {made}"]
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "runner.cli",
            "exec",
            "--control",
            "1",
            "--nsys",
            tool.path,
            "--out",
            str(out),
            "--",
            *program,
        ],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        umask=0o027,
    )
    (folder,) = (path for path in out.iterdir() if path.is_dir() and not path.is_symlink())
    assert json.loads((folder / "run.json").read_text())["exit_codes"]["child"] == 0, done.stderr
    for step in ("control", "capture"):
        assert "0027" in (folder / "logs" / f"{step}.log").read_text()
    assert stat.S_IMODE(made.stat().st_mode) == 0o640
    assert open_to_others(out) == []


def test_a_mask_is_set_without_another_process() -> None:
    code = "import os; print(os.umask(0), os.getpid(), os.getcwd(), 'OLDPWD' in os.environ)"
    argv = [*umask_prefix(0o077, "/usr"), sys.executable, "-c", code, "a b", "$c"]
    started = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, umask=0, cwd="/")
    said, _ = started.communicate()
    assert said.split() == [str(0o077), str(started.pid), "/usr", "False"]


def test_a_report_of_dsocr_analyze_is_for_whom_its_user_says(tmp_path: Path, real_trace: object) -> None:
    """A report is made to be read by others: it keeps the user's own mask. Inside a run's folder it is private."""
    assert callable(real_trace)
    trace = real_trace("deepseek-ocr_h100_small")
    done = dsocr(dict(os.environ), str(trace), "--out", str(tmp_path / "report"), program="analysis.cli")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((tmp_path / "report" / "report.html").stat().st_mode) == 0o666
