"""One run at a time per device, and runs in the background: submit, status, cancel.

A device's lock is ``flock`` on a file: the system frees it when its owner dies, so no stale lock can block a device.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from analysis.domain.contracts import LLMProfileAccepted
from analysis.domain.errors import BusyError, InterruptedRunError, RequestError
from analysis.domain.manifest import RunManifest, RunStatus
from runner.launcher.provenance import now
from runner.launcher.run_directory import RunDirectory
from runner.process.driver import physical_device
from runner.process.process import Interrupts

__all__ = ["DeviceLock", "RunState", "all_states", "cancel", "find_run", "run_state", "submit"]

LOCK_FOLDER_VARIABLE: Final = "DSOCR_LOCK_DIR"
_POLL_S: Final = 0.2
_START_PATIENCE_S: Final = 10.0
_CANCEL_PATIENCE_S: Final = 30.0


class DeviceLock:
    """The lock of one device, shared by all users of the machine."""

    def __init__(self, device: str, environ: Mapping[str, str]) -> None:
        """Name the lock; ``$DSOCR_LOCK_DIR`` moves the folder of locks out of the system's temporary one."""
        self.name = re.sub(r"[^\w.-]", "_", physical_device(device, environ))
        chosen = environ.get(LOCK_FOLDER_VARIABLE)
        self.folder = Path(chosen) if chosen else Path(tempfile.gettempdir()) / "dsocr-profiler-locks"
        self.file = self.folder / f"{self.name}.lock"

    def is_free(self) -> bool:
        """Say whether nobody holds it at this moment."""
        try:
            with self.held(wait=False):
                return True
        except BusyError:
            return False

    @contextmanager
    def held(
        self, *, wait: bool, interrupts: Interrupts | None = None, waiting: Callable[[str], None] | None = None
    ) -> Iterator[None]:
        """Hold the device.

        Args:
            wait: wait for it rather than fail.
            interrupts: end the waiting.
            waiting: told once, if it has to wait.

        Raises:
            BusyError: another run holds it, and ``wait`` is false.
            InterruptedRunError: ended while waiting.
        """
        descriptor = self._open()
        try:
            told = False
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    owner = os.pread(descriptor, 64, 0).decode("utf-8", "replace").strip() or "unknown"
                    if not wait:
                        raise BusyError(
                            f"{self.name} is held by another run ({owner}); wait with --wait, or queue with submit"
                        ) from error
                    if waiting is not None and not told:
                        waiting(f"{self.name} is held by another run ({owner}); waiting")
                        told = True
                    if interrupts is not None and interrupts.count:
                        raise InterruptedRunError("interrupted while waiting for the device") from error
                    time.sleep(_POLL_S)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        try:
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True, exist_ok=True)
                self.folder.chmod(0o777 | stat.S_ISVTX)
            try:
                return os.open(self.file, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                os.fchmod(descriptor, 0o666)
                return descriptor
        except OSError as error:
            raise RequestError(
                f"{self.file}: the device's lock cannot be used ({error.strerror}); set {LOCK_FOLDER_VARIABLE} to "
                "a folder that can be written"
            ) from error


@frozen
class RunState:
    """What is known of a run without asking its process."""

    run_id: str
    status: RunStatus
    path: str
    process: int | None
    error: str | None


def submit(directory: RunDirectory, device: str, environ: Mapping[str, str]) -> LLMProfileAccepted:
    """Start a prepared run in the background.

    Args:
        directory: holds plan.json and run.json (status queued).
        device: of the request.
        environ: of the background process.

    Returns:
        The answer at once: ``queued`` while another run holds the device, else ``running``.

    Raises:
        RequestError: the background process did not come up; its words are in the message.
    """
    lock = DeviceLock(device, environ)
    free = lock.is_free()
    log = directory.log("launcher")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "runner.cli", "work", str(directory.path)],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # It has come up once it holds the run's lock; only then can it be cancelled or asked for.
    until = time.monotonic() + _START_PATIENCE_S
    while directory.owner() is None and time.monotonic() < until:
        if process.poll() is not None:
            if directory.read_manifest().status not in ("queued", "running"):
                break  # it is done already
            words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RequestError(f"the background process did not come up: {words[-1] if words else 'it said nothing'}")
        time.sleep(_POLL_S / 4)
    return LLMProfileAccepted(
        run_id=directory.path.name, status="running" if free else "queued", artifacts_dir=str(directory.path)
    )


def find_run(out: Path, run_id: str) -> RunDirectory:
    """Find a run by its id or the beginning of it.

    Raises:
        RequestError: there is none, or more than one.
    """
    folder = out.expanduser().absolute()
    if run_id == "latest" and (folder / "latest").is_dir():
        return RunDirectory((folder / "latest").resolve())
    # The id is the user's text: compared, never joined to a path.
    found = [
        path
        for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if path.name.startswith(run_id) and not path.is_symlink() and (path / "run.json").is_file()
    ]
    exact = [path for path in found if path.name == run_id]
    if len(exact or found) != 1:
        what = "no run" if not found else f"{len(found)} runs"
        raise RequestError(f"{what} in {folder} with an id that begins with {run_id!r}; `dsocr-profile status --all`")
    return RunDirectory((exact or found)[0])


def run_state(directory: RunDirectory) -> RunState:
    """Read a run's state. One that says queued or running but has no living process has failed."""
    manifest = directory.read_manifest()
    owner = directory.owner()
    status, error = manifest.status, manifest.error
    if status in ("queued", "running") and owner is None:
        status, error = "failed", "its process is gone; `dsocr-profile resume` goes on with what it captured"
    return RunState(manifest.run_id, status, str(directory.path), owner, error)


def all_states(out: Path) -> list[RunState]:
    """Read the states of all runs in a folder, newest first; one whose run.json cannot be read counts as failed."""
    folder = out.expanduser().absolute()
    if not folder.is_dir():
        return []
    states: list[tuple[str, RunState]] = []
    for path in folder.iterdir():
        if path.is_symlink() or not (path / "run.json").is_file():
            continue
        directory = RunDirectory(path)
        try:
            created = directory.read_manifest().meta.created_at.isoformat()
            states.append((created, run_state(directory)))
        except RequestError as error:
            states.append(("", RunState(path.name, "failed", str(path), None, str(error))))
    return [state for _, state in sorted(states, key=lambda pair: pair[0], reverse=True)]


def cancel(directory: RunDirectory) -> RunState:
    """Cancel a queued or running run: its process ends the program first, and nsys finishes writing.

    Raises:
        RequestError: it is over already.
        BusyError: it does not end.
    """
    manifest = directory.read_manifest()
    if manifest.status not in ("queued", "running"):
        raise RequestError(f"run {manifest.run_id} is {manifest.status} already")
    directory.cancel_file.touch()
    owner = directory.owner()
    if owner:
        os.kill(owner, signal.SIGTERM)
        until = time.monotonic() + _CANCEL_PATIENCE_S
        while directory.owner() is not None:
            if time.monotonic() > until:
                raise BusyError(f"run {manifest.run_id}: process {owner} is still ending it; ask `status` again later")
            time.sleep(_POLL_S)
    left: RunManifest = directory.read_manifest()
    if left.status in ("queued", "running"):
        directory.write(
            directory.manifest_file, evolve(left, status="cancelled", error="cancelled by the user", finished_at=now())
        )
    return run_state(directory)
