"""No file in the folder that one stands in, nor in that of a run, is imported in place of what a command needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil
import pytest

from import_graph import ALL
from launch_kit import H100, ROOT, fake_ncu, fake_nsys, finished_run, real_nsys
from runner.launcher.provenance import commit_of

TRAPS: Final = (
    *("analysis/__init__.py", "history/__init__.py", "multiprocessing/__init__.py", "runner.py", "json.py", "numpy.py"),
    *("sitecustomize.py", "sqlalchemy.py", "subprocess.py", "torch.py", "transformers.py", "usercustomize.py"),
)
_TRAP: Final = """
import os
os.close(os.open(__file__ + ".imported", os.O_CREAT | os.O_WRONLY))
raise SystemExit("imported what lay in a folder")
"""
_COMMAND: Final = """
import sys
sys.path.insert(1, {sources!r})
{before}
from {package}.cli import main
if __name__ == "__main__":
    main()
"""


class Place:
    """A folder with traps, in which commands are started as they are installed: their own folder comes first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "mine"
        self.out = self.folder / "reports"
        self._programs = folder / "bin"
        self._programs.mkdir(parents=True)
        self.out.mkdir(parents=True)
        from PIL import Image

        Image.new("RGB", (64, 64), "white").save(self.folder / "page.png")
        self.set_traps(self.folder)
        self.set_traps(self.out)
        unwanted = ("PYTHONPATH", "PYTHONSAFEPATH", "DSOCR_STORE", "NSYS", "NCU")
        self.environ = {name: value for name, value in os.environ.items() if name not in unwanted}
        self.environ |= {"DSOCR_LOCK_DIR": str(folder / "locks"), "OPENBLAS_NUM_THREADS": "1"}
        self.nsys = fake_nsys(folder / "nsys").path
        self.ncu = fake_ncu(folder / "ncu").path

    def set_traps(self, folder: Path) -> None:
        for name in TRAPS:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(_TRAP)

    def sprung(self) -> list[str]:
        """What was imported since this was last asked."""
        files = sorted(self.folder.rglob("*.imported"))
        for file in files:
            file.unlink()
        return [str(file.relative_to(self.folder)) for file in files]

    def do(
        self, *arguments: str, package: str = "runner", before: str = "", code: int | None = 0, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command and look whether a trap has sprung."""
        program = self._programs / f"{package}-{abs(hash(before))}"
        program.write_text(_COMMAND.format(sources=str(ROOT), before=before, package=package))
        done = subprocess.run(
            [sys.executable, str(program), *arguments],
            cwd=self.folder,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        sprung = self.sprung()
        assert sprung == [], done.stderr
        assert code is None or done.returncode == code, done.stderr
        return done

    @property
    def latest(self) -> Path:
        return (self.out / "latest").resolve()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With one run of the torch collector, in whose folder lie traps too."""
    made = Place(tmp_path_factory.mktemp("traps"))
    tiny = ("--device", "cpu", "--images", "page.png", "--repeats", "1", "--max-new-tokens", "2")
    made.do("run", "deepseek-ocr-tiny", *tiny, "--collector", "torch")
    codes = json.loads((made.latest / "run.json").read_text())["exit_codes"]
    assert (codes["control"], codes["child"], codes["analysis"]) == (0, 0, 0)
    made.set_traps(made.latest)
    return made


def test_traps_spring(tmp_path: Path, place: Place) -> None:
    """Else nothing here would show anything."""
    place.set_traps(tmp_path)
    done = subprocess.run([sys.executable, "-c", "import numpy"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1
    assert (tmp_path / "numpy.py.imported").exists()


def test_resume_and_the_history(place: Place) -> None:
    place.do("resume", str(place.latest), code=None)
    place.do("history", "import", "reports")
    place.do("history", "list")
    place.do("history", "trend", "--out", "trend.html", code=None)


def test_exec(place: Place) -> None:
    place.do("exec", "--nsys", place.nsys, "--control", "1", "--", "sleep", "0.5", code=None)
    assert (place.latest / "trace.sqlite").is_file()
    place.set_traps(place.latest)
    place.do("resume", "latest", "--nsys", place.nsys, code=None)


def test_a_run_under_nsys(place: Place) -> None:
    tiny = ("--device", "cpu", "--images", "page.png", "--repeats", "1", "--max-new-tokens", "2")
    place.do("run", "deepseek-ocr-tiny", *tiny, "--collector", "nsys", "--nsys", place.nsys, code=None)
    codes = json.loads((place.latest / "run.json").read_text())["exit_codes"]
    assert (codes["control"], codes["child"]) == (0, 0)
    assert codes["analysis"] is not None


@pytest.mark.integration
def test_nsys_itself_takes_no_module_from_a_folder(place: Place) -> None:
    """The Python inside nsys 2022.4 does, from the folder that nsys is started in."""
    real = real_nsys()
    if real is None:
        pytest.skip("there is no nsys on this machine")
    where = "import os; print('the program runs in ' + os.getcwd(), flush=True)"
    program = (sys.executable, "-I", "-c", where)
    place.do("exec", "--nsys", real.path, "--preset", "light", "--", *program, code=None)
    assert f"the program runs in {place.folder}" in (place.latest / "logs" / "capture.log").read_text()
    assert (place.latest / "trace.nsys-rep").is_file()


def test_no_program_of_the_current_folder_is_taken_for_ours(place: Place) -> None:
    """PATH=.:$PATH, and one that ends with a colon."""
    for name in ("nsys", "ncu", "unshare", "true", "git", "ldd", "env", "sh", "nvidia-smi"):
        (place.folder / name).write_text(f"#!/bin/sh\n: > {place.folder}/{name}.imported\nexit 1\n")
        (place.folder / name).chmod(0o755)
    for path in (f".:{os.environ['PATH']}:", f":{os.environ['PATH']}"):
        place.do("doctor", "--nsys", place.nsys, code=None, PATH=path)
        place.do("doctor", code=None, PATH=path)
        place.do("exec", "--nsys", place.nsys, "--", "/bin/sleep", "0.1", code=None, PATH=path)


OLD_GIT = """#!/bin/sh
# As git before 2.31, which has no --config-env.
for word; do case "$word" in --config-env*) echo "unknown option: $word" >&2; exit 129;; esac; done
exec GIT "$@"
"""


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", ["trap", "tr=ap"])
def test_a_checkouts_own_configuration_starts_nothing(
    tmp_path: Path, name: str, old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsmonitor and filters of .git/config are programs, and `git status` starts them."""
    marker = tmp_path / "started"
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\n: > {marker}\ncat\n")
    trap.chmod(0o755)
    checkout = tmp_path / "checkout"
    checkout.mkdir()

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=checkout, check=True, capture_output=True)

    git("init", "-q")
    (checkout / "file").write_text("text")
    (checkout / ".gitattributes").write_text(f"* filter={name}\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("config", "core.fsmonitor", str(trap))
    git("config", f"filter.{name}.clean", str(trap))
    (checkout / "file").write_text("TEXT")
    program = shutil.which("git")
    if old:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "git").write_text(OLD_GIT.replace("GIT", str(program)))
        (tmp_path / "bin" / "git").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    # That git cannot be told to leave a filter of such a name alone, so it is not asked.
    assert (commit_of(checkout) or "").endswith("+unknown" if old and "=" in name else "+changes")
    assert not marker.exists()
    git("status")
    assert marker.exists(), "else this shows nothing"


def test_doctor(place: Place) -> None:
    assert "nsys" in place.do("doctor", "--nsys", place.nsys, code=None).stdout


@pytest.mark.integration
def test_a_comparison_in_turns(place: Place) -> None:
    request = {"model_path": "deepseek-ocr-tiny", "input_dir": str(place.folder / "page.png"), "device": "cpu"}
    (place.folder / "request.json").write_text(json.dumps({**request, "max_new_tokens": 2, "repeats": 1}))
    place.do("ab", "request.json", "request.json", "--rounds", "2", "--no-capture", "--out", "turns")
    assert list(place.folder.rglob("ab.json"))


def test_a_sweep(place: Place) -> None:
    points = ("--batch-size", "1", "--max-new-tokens", "2", "--passes", "1", "--window-steps", "1")
    place.do("sweep", "llama-tiny", "--device", "cpu", *points, "--out", "sweep")


@pytest.mark.integration
def test_a_run_in_the_background(place: Place) -> None:
    request = {"model_path": "deepseek-ocr-tiny", "input_dir": str(place.folder / "page.png"), "device": "cpu"}
    (place.folder / "one.json").write_text(json.dumps({**request, "max_new_tokens": 2, "repeats": 1}))
    accepted = json.loads(place.do("submit", "one.json", "--out", "reports", "--collector", "torch").stdout)
    until = time.monotonic() + 240
    while json.loads(place.do("status", accepted["run_id"], "--json").stdout)["status"] in ("queued", "running"):
        assert time.monotonic() < until
        time.sleep(1)
    assert json.loads(place.do("status", accepted["run_id"], "--json").stdout)["status"] == "complete"


@pytest.mark.parametrize(
    "before", ["", "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"]
)
def test_ranks_read_by_workers(place: Place, real_trace: Callable[[str], Path], before: str) -> None:
    """Forked from the command, and, where it has threads, from a server that is started for it."""
    for rank in (0, 1):
        shutil.copy(real_trace(f"tensor-parallel_2xh200_rank{rank}"), place.latest / f"rank{rank}.sqlite")
    ranks = [str(place.latest / f"rank{rank}.sqlite") for rank in (0, 1)]
    two_cores = f"import os; os.sched_getaffinity = lambda process: {{0, 1}}; {before}"
    place.do(*ranks, "--out", "ranks", "--format", "json", package="analysis", before=two_cores)


def test_the_analysis_of_a_run(place: Place) -> None:
    run = next(folder for folder in place.out.glob("*-*-*-*-*") if (folder / "trace.sqlite").is_file())
    place.set_traps(run)
    place.do("table", str(run), package="analysis", code=None)


def test_a_review(place: Place, real_trace: Callable[[str], Path], tmp_path: Path) -> None:
    run = finished_run(place.out, real_trace("deepseek-ocr_h100_64tok"))
    place.set_traps(run.path)
    gpu = f"VisibleGpu({H100!r}, 'b8a7a1a0-0000-0000-0000-000000000000')"
    before = (
        "from runner.launcher import review; from runner.process.driver import DriverFacts, VisibleGpu; "
        f"review.driver_facts = lambda: DriverFacts(cuda=(13, 0), driver='580.1', gpus=({gpu},))"
    )
    place.do("review", str(run.path), "--ncu", place.ncu, before=before, code=None)
    assert list(run.path.glob("logs/review-*")), "the program was started under ncu"


def test_pythons_are_started_in_two_places_only() -> None:
    """There the current folder is left out: `-P` for our modules, `-I` for the supervisor."""
    starting = {name for name, file in ALL.items() if "sys.executable" in file.read_text(encoding="utf-8")}
    assert starting == {"runner.process.python", "runner.process.supervised"}


def test_a_trap_is_no_process_of_ours(place: Place) -> None:
    """Nothing of the commands above is left that could still spring one."""
    assert not [one for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == str(place.folder)]
