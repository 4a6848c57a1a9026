"""Where a fault of the table happens: a folder, a run by the real command line, and what must hold when it is over."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil
import pytest
from attrs import define, field

from fault_table import Resume, Row, said
from launch_kit import ROOT, environment, fake_nsys
from runner.launcher.device_lock import DeviceLock
from runner.launcher.run_directory import RunDirectory
from runner.process.environment import RUN_MARK

__all__ = ["IMPORTER", "PATIENCE_S", "Scene", "Started", "fill", "remount", "small_disk", "wait_for"]

PATIENCE_S: Final = 90.0
"""How long anything of a row is waited for. Nothing of it takes long; a machine may be busy."""
_LIMITS_S: Final = (6, 12, 24, 48)
"""What is tried for ``--timeout``: a row waits no longer than it must, and a busy machine still comes to where its fault is."""
_GONE_S: Final = 20.0
"""How long a process of a run may be seen after the run's end."""
_STAND_IN: Final = ROOT / "tests" / "reliability" / "stand_in"
_SUPERVISOR: Final = "runner/process/supervise.py"
"""Its command line holds that of the program that it starts."""
IMPORTER: Final = """#!/bin/sh
for word; do case $word in --output-file=*) report=${word#*=};; esac; done
echo half > "$report"
cd "$(dirname "$report")"
"""
"""How a program in the place of nsys' importer begins: half of a report is there, and ``$report`` names it."""
_TEMPORARY: Final = ("*.tmp", "*.partial*", "*-journal", "*-wal", "*-shm", ".*.tmp")


def wait_for(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until something can be observed."""
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until, f"waited {patience_s:g} s in vain for {what}"
        time.sleep(0.02)


@define(eq=False)
class Started:
    """A command that runs."""

    process: subprocess.Popen[bytes]
    output: Path
    errors: Path

    def send(self, number: signal.Signals) -> None:
        """Signal the command itself."""
        self.process.send_signal(number)

    def code(self) -> int:
        """Wait for its end and give its exit code."""
        return self.process.wait(PATIENCE_S)

    @property
    def stdout(self) -> str:
        """What it printed."""
        return self.output.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it said."""
        return self.errors.read_text(errors="replace")


@define(eq=False)
class Scene:
    """One row's own folder, locks and profiler."""

    folder: Path
    trace: Path
    """What the fake nsys exports."""
    out: Path = field()
    environ: dict[str, str] = field(factory=dict)
    nsys: str = ""
    """The profiler's path; tests with the real one put it here."""
    history: bool = False
    """Whether runs are recorded in the history."""
    started: list[Started] = field(factory=list)

    @out.default
    def _out(self) -> Path:
        return self.folder / "out"

    def __attrs_post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self.environ = environment(DSOCR_LOCK_DIR=str(self.folder / "locks"))
        for name in ("DSOCR_STORE", "NSYS", "NCU"):
            self.environ.pop(name, None)
        self.environ["DSOCR_HISTORY"] = "on" if self.history else "off"
        self.environ["PYTHONPATH"] = os.pathsep.join((str(_STAND_IN), self.environ["PYTHONPATH"]))
        fake = self.fake()
        self.nsys = self.nsys or fake
        self.behave("well")

    # -- commands ------------------------------------------------------------------------------------------------------

    def fake(self) -> str:
        """The fake nsys, which exports this scene's trace."""
        program = self._fake
        if not program.exists():
            fake_nsys(self.folder / "nsys")
            (program.parent / "trace.sqlite").symlink_to(self.trace)
        return str(program)

    @property
    def _fake(self) -> Path:
        return self.folder / "nsys" / "target-linux-x64" / "nsys"

    def behave(self, behaviour: str, *, nsys: str = "") -> None:
        """Say what the scripted child does, and what the fake nsys does."""
        (self.out / "behaviour").write_text(behaviour)
        (self._fake.parent / "how").write_text(nsys)

    def export(self, trace: Path) -> None:
        """Let the fake nsys export another trace."""
        link = self._fake.parent / "trace.sqlite"
        link.unlink()
        link.symlink_to(trace)

    def importer(self, script: str) -> None:
        """Put a program in the place of nsys' importer."""
        (self.folder / "nsys" / "host-linux-x64" / "QdstrmImporter").write_text(script)

    def page(self) -> Path:
        """An image to read."""
        page = self.folder / "page.png"
        if not page.exists():
            from PIL import Image

            Image.new("RGB", (64, 64), "white").save(page)
        return page

    def start(
        self,
        *arguments: str,
        program: str = "runner.cli",
        stand_in: bool = True,
        stdout: int | None = None,
        stderr: int | None = None,
        inside: Sequence[str] = (),
    ) -> Started:
        """Start a command line of ours, as a user does.

        Args:
            arguments: its words.
            program: which of our two.
            stand_in: without it its programs are the real ones.
            stdout: descriptor that takes its result, such as a terminal; None: a file, which `check` reads.
            stderr: the same for what it says.
            inside: command line of a command that starts it, such as one that makes a container.
        """
        environ = dict(self.environ)
        if not stand_in:
            environ["PYTHONPATH"] = environ["PYTHONPATH"].removeprefix(f"{_STAND_IN}{os.pathsep}")
        number = len(self.started)
        place = self.folder / "said"
        place.mkdir(exist_ok=True)
        files = [place / f"{number}.out", place / f"{number}.err"]
        with files[0].open("wb") as output, files[1].open("wb") as errors:
            process = subprocess.Popen(
                [*inside, sys.executable, "-P", "-m", program, *arguments],
                env=environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output if stdout is None else stdout,
                stderr=errors if stderr is None else stderr,
                start_new_session=True,
            )
        self.started.append(Started(process, *files))
        return self.started[-1]

    def do(self, *arguments: str, program: str = "runner.cli") -> Started:
        """Run a command line of ours to its end."""
        started = self.start(*arguments, program=program)
        started.code()
        return started

    def run_arguments(self, *more: str, out: Path | None = None) -> list[str]:
        """Command line of a run of the scripted child."""
        argv = ["run", "deepseek-ocr-tiny", "--device", "cpu", "--collector", "nsys", "--nsys", self.nsys]
        return [*argv, "--images", str(self.page()), "--out", str(out or self.out), "--grace", "1", *more]

    def run(self, *more: str, stdout: int | None = None, stderr: int | None = None) -> Started:
        """Start a run of the scripted child."""
        return self.start(*self.run_arguments(*more), stdout=stdout, stderr=stderr)

    def exec(self, *command: str, options: Sequence[str] = ()) -> Started:
        """Start a program of the user's under the profiler."""
        argv = ["exec", "--nsys", self.nsys, "--out", str(self.out), "--grace", "1", *options, "--", *command]
        return self.start(*argv)

    def request(self, **changes: object) -> Path:
        """A request for `submit`."""
        pages = self.folder / "pages"
        pages.mkdir(exist_ok=True)
        if not (pages / "page.png").exists():
            shutil.copy(self.page(), pages / "page.png")
        wanted: dict[str, object] = {
            "model_path": "deepseek-ocr-tiny",
            "input_dir": str(pages),
            "device": "cpu",
            "max_new_tokens": 2,
            "repeats": 1,
            **changes,
        }
        file = self.folder / "request.json"
        file.write_text(json.dumps(wanted))
        return file

    def submit(self, *more: str, **changes: object) -> Started:
        """Submit a run of the scripted child, and wait for the answer."""
        argv = ["submit", str(self.request(**changes)), "--out", str(self.out), "--collector", "nsys"]
        return self.do(*argv, "--nsys", self.nsys, "--grace", "1", *more)

    def run_out_of_time(
        self,
        start: Callable[..., Started],
        reached: Callable[[], object],
        at: Callable[[], object] = lambda: None,
        limits_s: Sequence[int] = _LIMITS_S,
    ) -> Started:
        """Start a command with a ``--timeout`` that is over after the command has come to the place of the fault.

        Args:
            start: starts the command with these options more.
            reached: whether it has come there.
            at: what is done then.
            limits_s: what is tried.
        """
        for limit in limits_s:
            run = start("--timeout", str(limit))
            wait_for(lambda run=run: reached() or run.process.poll() is not None, "the place of the fault")  # type: ignore[misc]
            if reached():
                at()
                return run
            for directory in self.directories():
                shutil.rmtree(directory.path)
        raise AssertionError(f"it has not come so far in {limits_s[-1]} s: {run.stderr}")

    # -- what can be observed ------------------------------------------------------------------------------------------

    def directories(self) -> list[RunDirectory]:
        """The folders of all runs, the oldest first."""
        found = [path for path in self.out.glob("*-*-*-*-*") if path.is_dir() and not path.is_symlink()]
        return [RunDirectory(path) for path in sorted(found, key=lambda path: path.stat().st_ctime_ns)]

    @property
    def directory(self) -> RunDirectory:
        """The folder of the one run."""
        (directory,) = self.directories()
        return directory

    def wait_for_file(self, name: str, folder: str = "") -> Path:
        """Wait for a file in the folder of a run, or in a folder there."""
        pattern = f"*-*-*-*-*/{folder and folder + '/'}{name}"
        wait_for(lambda: list(self.out.glob(pattern)), f"the file {name}")
        return next(self.out.glob(pattern))

    def there(self, name: str) -> bool:
        """Whether a file is in the folder of a run."""
        return any(self.out.glob(f"*-*-*-*-*/{name}"))

    def process(self, *words: str, without: str = "\0") -> psutil.Process | None:
        """A process of the run whose command line holds all these words, if there is one."""
        for process in self.processes():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if all(word in line for word in words) and without not in line and _SUPERVISOR not in line:
                    return process
        return None

    def processes(self) -> list[psutil.Process]:
        """All processes of this row's runs, whoever their parents are; not the commands that were typed."""
        ids = {directory.path.name for directory in self.directories()} | self._ids_seen
        typed = {started.process.pid for started in self.started} | {os.getpid()}
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid in typed or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                mark = process.environ().get(RUN_MARK, "")
                if any(mark.startswith(one) for one in ids) or str(self.folder) in " ".join(process.cmdline()):
                    found.append(process)
        return found

    _ids_seen: set[str] = field(factory=set)

    def wait_for_process(self, *words: str, without: str = "\0") -> psutil.Process:
        """Wait for a process of the run whose command line holds all these words."""
        seen: list[psutil.Process] = []

        def look() -> bool:
            process = self.process(*words, without=without)
            seen.extend([] if process is None else [process])
            return bool(seen)

        wait_for(look, f"a process {' '.join(words)}")
        return seen[0]

    # -- what must hold ------------------------------------------------------------------------------------------------

    def check(
        self,
        row: Row,
        started: Started,
        *,
        directory: RunDirectory | None = None,
        mend: Callable[[], object] = lambda: None,
    ) -> None:
        """Assert everything that a row and the head of the page say.

        Args:
            row: the row.
            started: the command that met the fault.
            directory: its run's, where there are several runs.
            mend: removes the cause, before `resume` and the next run.
        """
        if row.code is not None:
            assert started.code() == row.code, f"exit {started.code()}: {started.stderr}"
            self._check_words(row, started)
        self._ids_seen |= {one.path.name for one in self.directories()}
        self.check_nothing_runs()
        run = directory or (self.directory if row.status is not None else None)
        if run is not None:
            self._check_record(row, run)
            self._check_kept(row, run)
        self.check_files(self.out, killed=row.code == -signal.SIGKILL)
        self.check_free()
        mend()
        self.behave("well")
        if row.resume is not None and run is not None:
            self._check_resume(row, row.resume, run)
        if row.followed:
            self.check_next_run()

    def _check_words(self, row: Row, started: Started) -> None:
        text = started.stderr
        assert "Traceback" not in text, text
        errors = [line for line in text.splitlines() if line.removeprefix("dsocr-analyze: ").startswith("error:")]
        if row.code == 0 or not row.words:
            assert not errors, text
            assert row.says(text + started.stdout), text
            return
        assert len(errors) == 1, text
        assert text.rstrip().splitlines()[-1] == errors[0], text
        assert row.says(errors[0]), text

    def check_nothing_runs(self) -> None:
        """No process is left of any run."""

        def gone() -> bool:
            return not self.processes()

        try:
            wait_for(gone, "the end of all processes", _GONE_S)
        except AssertionError:
            left = [(process.pid, " ".join(process.cmdline())) for process in self.processes()]
            raise AssertionError(f"still running: {left}") from None

    def _check_record(self, row: Row, run: RunDirectory) -> None:
        record = run.read_record()
        asked = self.do("status", record.run_id, "--json", "--out", str(self.out))
        assert asked.code() == 0, asked.stderr
        state = json.loads(asked.stdout)
        assert state["status"] == row.status, state
        if row.code is not None and row.code >= 0 and row.recorded:
            assert record.status == row.status
            if row.code != 0 and row.status != "complete":
                assert record.error is not None
                assert row.says(f"error: {record.error}"), record.error

    def _check_kept(self, row: Row, run: RunDirectory) -> None:
        for name in ("run.json", "plan.json", *row.kept):
            file = run.path / name
            assert file.is_file(), f"{name} is not kept: {sorted(one.name for one in run.path.iterdir())}"
            assert file.stat().st_size > 0, f"{name} is empty"
        assert not (run.path / "tmp").exists()

    def check_files(self, folder: Path, *, killed: bool = False) -> None:
        """No half file; of a command that was killed, none but one that says by its name that it is."""
        files = [file for file in folder.rglob("*") if file.is_file()]
        unfinished = [file for file in files if any(file.match(pattern) for pattern in _TEMPORARY)]
        assert killed or not unfinished
        for file in files:
            if file in unfinished:
                continue
            if file.suffix == ".json":
                json.loads(file.read_bytes())
            elif file.suffix == ".sqlite":
                with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
                    assert database.execute("PRAGMA quick_check").fetchall() == [("ok",)], file

    def check_free(self) -> None:
        """Neither the device nor a run is held."""
        with DeviceLock("cpu", (), self.environ).held(wait=False):
            pass
        for run in self.directories():
            assert run.holder() is None, run.path

    def _check_resume(self, row: Row, wanted: Resume, run: RunDirectory) -> None:
        before = run.read_record()
        resumed = self.do("resume", run.path.name, "--out", str(self.out), "--nsys", self.nsys)
        text = resumed.stderr + resumed.stdout
        assert resumed.code() == wanted.code, text
        assert "Traceback" not in text, text
        assert said(wanted.says, text), text
        if wanted.code:
            errors = [line for line in resumed.stderr.splitlines() if line.startswith("error:")]
            assert len(errors) == 1, text
            assert "dsocr-profile resume" not in errors[0], "it recommends itself"
        else:
            assert run.is_of_a_program() or (run.path / "report.html").is_file(), text
        after = run.read_record()
        if before.error is not None and after.status != "complete":
            assert (after.status, after.error) == (before.status, before.error)
        self.check_nothing_runs()
        self.check_files(self.out)

    def check_next_run(self) -> None:
        """A run that follows works, on the same device."""
        place = self.folder / "next"
        place.mkdir()
        self.export(self.trace)
        (place / "behaviour").write_text("well")
        self.nsys = self.fake()
        following = self.do(*self.run_arguments(out=place))
        assert following.code() == 0, following.stderr
        assert (place / "latest" / "report.html").is_file()

    def end(self) -> None:
        """End what a failed row may have left."""
        for started in self.started:
            if started.process.poll() is None:
                started.process.kill()
                started.process.wait()
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()


# -- file systems ------------------------------------------------------------------------------------------------------

_CLONE_NEWNS: Final = 0x00020000
_own_mounts: bool | None = None


def private_mounts() -> bool:
    """Give this process a mount namespace of its own, once: what is mounted here no other process of the machine sees."""
    global _own_mounts
    if _own_mounts is None:
        _own_mounts = (
            ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) == 0
            and subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, check=False).returncode == 0
        )
    return _own_mounts


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of a few megabytes, that really fills up."""
    if not private_mounts():
        pytest.skip("no file system can be mounted here (not root)")
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, *, leave: int = 0) -> Path:
    """Fill a disk but for ``leave`` bytes; gives the file to delete for space."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        with suppress(OSError):
            while True:
                if not file.write(bytes(1 << 16)):
                    break
        with suppress(OSError):
            while file.write(bytes(512)):
                pass
        if leave:
            file.truncate(max(0, file.tell() - leave))
    return ballast


def remount(disk: Path, how: str) -> None:
    """Make a mounted disk read-only (``ro``) or writable (``rw``)."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)
