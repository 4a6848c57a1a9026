"""Run one command in a process of its own, forked from a parent that has imported everything, and watch it."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import hashlib
import importlib
import os
import pkgutil
import resource
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Final, NoReturn

from attrs import frozen

__all__ = ["CPU_LIMIT_S", "MEMORY_LIMIT", "Limits", "Outcome", "run_command", "run_in_fork", "warm", "warm_runner"]

MEMORY_LIMIT: Final = 2 << 30
"""Bytes that one command may hold at once, beyond what its fork began with."""
CPU_LIMIT_S: Final = 20
_WALL_LIMIT_S: Final = 90.0
"""Of a machine that others use too; a process that waits for ever is seen by it."""
_ADDRESSES: Final = 16 << 30
"""Bytes of addresses: what asks for more than the machine has must not take it from others."""
_LOOK_S: Final = 0.03


@frozen
class Limits:
    """What a command may take."""

    memory_bytes: int = MEMORY_LIMIT
    """Resident, beyond what the fork began with."""
    cpu_s: int = CPU_LIMIT_S
    wall_s: float = _WALL_LIMIT_S


@frozen
class Outcome:
    """What came out of a command."""

    code: int
    """Exit code; negative: the signal that ended it."""
    stdout: str
    stderr: str
    wall_s: float
    cpu_s: float
    peak_bytes: int
    """Of resident memory beyond what the fork began with, which has the imports; of the largest of its processes."""
    ended: str | None
    """``memory`` or ``time``, if a limit ended it."""
    orphans: int
    """Processes that it left behind."""
    left: tuple[str, ...]
    """Files that it left in the temporary folder."""
    made: tuple[str, ...]
    """Files that were not there before, relative to the folder it ran in, without the temporary ones."""
    changed: tuple[str, ...]
    """Files that were there and are no longer what they were."""


def warm() -> None:
    """Import all of the analysis and the history, so that a fork has them."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: a fork takes no threads with it
    import analysis
    import history

    _import_below(analysis, history)
    _warm_caches()
    gc.collect()
    gc.freeze()


def _warm_caches() -> None:
    """What a process works out once: typer's adapters, cattrs' hooks, kernel rules. No thread is started by any of it."""
    from analysis.cli.app import app
    from analysis.domain.convert import _converter
    from analysis.domain.manifest import RunManifest
    from analysis.domain.sweep import Sweep
    from analysis.report import Report
    from analysis.sums.kernel_classes import load_rules

    for name in ("importlib.resources.readers", "numpy.ma", "numpy.random", "sqlalchemy.dialects.sqlite"):
        importlib.import_module(name)
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        app(["schema", "report"], standalone_mode=False)
    for kind in (Report, RunManifest, Sweep):
        _converter.get_unstructure_hook(kind)
        _converter.get_structure_hook(kind)
    load_rules()


def warm_runner() -> None:
    """Import what `dsocr-profile` needs for the commands that are tried; torch alone takes three seconds."""
    import runner

    _import_below(runner)


def _import_below(*packages: ModuleType) -> None:
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            parts = module.name.split(".")
            if not {"__main__", "versions", "env", "child", "nsys_configs", "probe_program"} & set(parts):
                importlib.import_module(module.name)


def run_command(
    program: str, argv: tuple[str, ...], folder: Path, *, preset: str | None = None, limits: Limits | None = None
) -> Outcome:
    """Run ``dsocr-analyze`` or ``dsocr-profile`` as its entry point does."""

    def call() -> None:
        sys.argv = [program, *argv]
        if program == "dsocr-analyze":
            from analysis.cli.app import main

            main()
        from runner.cli.app import main as profile

        if preset is not None:
            from runner.collectors.nsys import presets

            (own := folder / "presets").mkdir()
            (own / "default.toml").write_bytes((folder / preset).read_bytes())
            presets._folder = lambda: own
        _start_nothing()
        profile()

    return run_in_fork(call, folder, limits or Limits())


def _start_nothing() -> None:
    """A damaged request must not start a model: whatever would, says so and fails."""
    import subprocess

    def refuse(self: object, args: object, *rest: object, **options: object) -> None:
        words = [str(word) for word in args] if isinstance(args, list | tuple) else [str(args)]
        if words[:1] == [sys.executable]:
            os.write(2, f"FUZZ: a program was started: {words[:4]}\n".encode())
        raise FileNotFoundError(2, "No such file or directory", words[0])

    subprocess.Popen.__init__ = refuse  # type: ignore[method-assign]


def run_in_fork(call: Callable[[], object], folder: Path, limits: Limits) -> Outcome:
    """Run something in a fork, in a folder, and wait for it.

    Args:
        call: ends by `SystemExit`, by returning, or by an exception, which is printed as Python would.
        folder: where it runs; its temporary folder is made in it, and is gone afterwards.
        limits: that end it.
    """
    temporary = folder.with_name(f"{folder.name}.tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    said = [temporary.with_suffix(f".{name}") for name in ("stdout", "stderr")]
    before = _digests(folder)
    # A fork begins with its parent's pages: those of a long test run are not the command's. What the parent has freed and
    # kept goes back first, else the command would use it again and seem to take nothing.
    _give_back_freed_memory()
    inherited = _resident(os.getpid())
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        _be_the_command(call, folder, temporary, said, limits)
    ended, status, used = _wait(child, begun, limits, inherited)
    wall_s = time.monotonic() - begun
    orphans = _end_group(child)
    after = _digests(folder)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    if code == -signal.SIGXCPU:
        ended = "time"
    stdout, stderr = (path.read_bytes().decode("utf-8", "backslashreplace") if path.exists() else "" for path in said)
    left = tuple(sorted(str(path.relative_to(temporary)) for path in temporary.rglob("*")))
    _remove(temporary)
    for path in said:
        path.unlink(missing_ok=True)
    return Outcome(
        code=code,
        stdout=stdout,
        stderr=stderr,
        wall_s=wall_s,
        cpu_s=used.ru_utime + used.ru_stime,
        peak_bytes=max(0, used.ru_maxrss * 1024 - inherited),
        ended=ended,
        orphans=orphans,
        left=left,
        made=tuple(sorted(set(after) - set(before))),
        changed=tuple(sorted(name for name, digest in before.items() if after.get(name) != digest)),
    )


def _be_the_command(
    call: Callable[[], object], folder: Path, temporary: Path, said: list[Path], limits: Limits
) -> NoReturn:
    """In the fork: set up what a new process has, call, and end without going back to the parent's frames."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        for number, path in enumerate(said, 1):
            descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
            os.dup2(descriptor, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)  # noqa: SIM115
        os.environ.update(
            PATH="/nowhere", TMPDIR=str(temporary), COLUMNS="200", HOME=str(temporary), XDG_RUNTIME_DIR=str(temporary)
        )
        for name in ("NSYS", "NCU", "DSOCR_STORE", "NO_COLOR", "FORCE_COLOR"):
            os.environ.pop(name, None)
        tempfile.tempdir = None
        faulthandler.disable()
        threading.excepthook = threading.__excepthook__  # a test's own would keep it from standard error
        sys.unraisablehook = sys.__unraisablehook__
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        call()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:  # noqa: BLE001 - what Python does with it at the end of a program
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


def _wait(child: int, begun: float, limits: Limits, inherited: int) -> tuple[str | None, int, resource.struct_rusage]:
    """Wait for a process, and end it and its own where they take too much."""
    ended = None
    descriptor = os.pidfd_open(child)
    try:
        while not select.select([descriptor], [], [], _LOOK_S)[0]:
            if _resident(child) - inherited > limits.memory_bytes:
                ended = "memory"
            elif time.monotonic() - begun > limits.wall_s:
                ended = "time"
            if ended is not None:
                with suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                break
    finally:
        os.close(descriptor)
    _, status, used = os.wait4(child, 0)
    return ended, status, used


def _give_back_freed_memory() -> None:
    with suppress(AttributeError, OSError):  # glibc's own
        ctypes.CDLL(None).malloc_trim(0)


def _resident(process: int) -> int:
    try:
        words = Path(f"/proc/{process}/statm").read_text().split()
    except OSError:
        return 0
    # Without pages of files: a fork begins with its parent's other pages, but not with those.
    return (int(words[1]) - int(words[2])) * resource.getpagesize() if len(words) > 2 else 0


def _end_group(leader: int) -> int:
    """How many processes of the session are still there; they are ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
        return 1
    return 0


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
