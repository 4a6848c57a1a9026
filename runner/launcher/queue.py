"""Runs in the background: submit, find, status, cancel."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
from attrs import evolve, frozen

from analysis.domain.contracts import AcceptedStatus, LLMProfileAccepted
from analysis.domain.errors import BusyError, RequestError
from analysis.domain.manifest import RunManifest, RunStatus
from runner.launcher.outcome import headline_of
from runner.launcher.provenance import now
from runner.launcher.run_directory import RunDirectory
from runner.process.python import import_path, module_command

__all__ = ["RunState", "all_states", "cancel", "find_run", "run_state", "submit"]

_UNFINISHED: Final = ("queued", "running")
_POLL_S: Final = 0.2
_START_PATIENCE_S: Final = 30.0
_CANCEL_PATIENCE_S: Final = 30.0


@frozen
class RunState:
    """What is known of a run without asking its process."""

    run_id: str
    status: RunStatus
    path: str
    process: int | None
    error: str | None
    model: str | None = None
    """Or the program, by the first word of its command line."""
    created_at: str | None = None
    """UTC, ISO 8601."""
    took_s: float | None = None
    """Its phases, from the first to the last; of a program its own runs only."""
    headline: str | None = None
    """Its report's first sentence: where to start."""


def submit(directory: RunDirectory, environ: Mapping[str, str]) -> LLMProfileAccepted:
    """Start a prepared run in the background.

    Args:
        directory: holds plan.json and run.json (status queued).
        environ: of the background process.

    Returns:
        The answer as soon as the background process has come up: ``running`` if it holds the device, ``queued`` while
        another run does.

    Raises:
        RequestError: the background process did not come up; its words are in the message.
    """
    log = directory.log("launcher")
    # The worker itself says whether it has the device: to try the lock here would take it from a run that starts.
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as answers, log.open("ab") as output:  # noqa: PTH123 - a descriptor, no path
        try:
            process = subprocess.Popen(
                module_command("runner.cli", "work", str(directory.path), "--answer", str(writing)),
                env={**environ, **import_path(environ)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(writing,),
            )
        finally:
            os.close(writing)
        ready, _, _ = select.select([answers], [], [], _START_PATIENCE_S)
        answer = answers.read(16).decode("ascii") if ready else "queued"  # slow to start: it has no device yet
    if not answer:
        process.wait()
        words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise RequestError(f"the background process did not come up: {words[-1] if words else 'it said nothing'}")
    status: AcceptedStatus = "running" if answer == "running" else "queued"
    return LLMProfileAccepted(run_id=directory.path.name, status=status, artifacts_dir=str(directory.path))


def find_run(out: Path, run_id: str) -> RunDirectory:
    """Find a run by its id or the beginning of it.

    Raises:
        RequestError: there is none, or more than one.
    """
    folder = out.expanduser().absolute()
    if run_id == "latest" and (folder / "latest").is_dir():
        return RunDirectory((folder / "latest").resolve())
    # The id is the user's text: compared, never joined to a path.
    beginning = [
        path
        for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if path.name.startswith(run_id) and not path.is_symlink() and (path / "run.json").is_file()
    ]
    exact = [path for path in beginning if path.name == run_id]
    if len(exact or beginning) != 1:
        what = f"{len(beginning)} runs" if beginning else "no run"
        raise RequestError(f"{what} in {folder} with an id that begins with {run_id!r}; `dsocr-profile status --all`")
    return RunDirectory((exact or beginning)[0])


def run_state(directory: RunDirectory) -> RunState:
    """Read a run's state. One that says queued or running but has no living process has failed."""
    manifest = directory.read_record()
    process = directory.holder()
    status, error = manifest.status, manifest.error
    if status in _UNFINISHED and process is None:
        # It may have finished between the two readings: the process ends after its last word in run.json.
        manifest = directory.read_record()
        status, error = manifest.status, manifest.error
    if status in _UNFINISHED and process is None:
        status, error = "failed", "its process is gone; `dsocr-profile resume` goes on with what it captured"
    if isinstance(manifest, RunManifest):
        model: str | None = manifest.request.model_path if manifest.model is None else manifest.model.id
        created, phases = manifest.meta.created_at, manifest.phases
        took_s = max(phase.start_s + phase.seconds for phase in phases) if phases else None
    else:  # a program of the user's: its first word is all that names it
        model = Path(manifest.command[0]).name if manifest.command else None
        created = manifest.created_at
        took_s = sum(times.wall_s for times in manifest.times) or None
    return RunState(
        manifest.run_id,
        status,
        str(directory.path),
        process or None,
        error,
        model=model,
        created_at=created.isoformat(timespec="seconds"),
        took_s=took_s,
        headline=headline_of(directory),
    )


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
            state = run_state(directory)
            states.append((state.created_at or "", state))
        except RequestError as error:
            states.append(("", RunState(path.name, "failed", str(path), None, str(error))))
    return [state for _, state in sorted(states, key=lambda pair: pair[0], reverse=True)]


def cancel(directory: RunDirectory) -> RunState:
    """Cancel a queued or running run: its process ends the program first, and nsys finishes writing.

    Raises:
        RequestError: it is over already.
        BusyError: it does not end.
    """
    manifest = directory.read_record()
    if manifest.status not in _UNFINISHED:
        raise RequestError(f"run {manifest.run_id} is {manifest.status} already")
    directory.cancel_file.touch()
    process = directory.holder()
    if process is not None:
        if process == 0:
            raise BusyError(f"run {manifest.run_id}: its process cannot be told; cancel it as the user who started it")
        with suppress(psutil.NoSuchProcess):
            psutil.Process(process).terminate()
        until = time.monotonic() + _CANCEL_PATIENCE_S
        while directory.holder() is not None:
            if time.monotonic() > until:
                raise BusyError(
                    f"run {manifest.run_id}: process {process} is still ending it; ask `status` again later"
                )
            time.sleep(_POLL_S)
    left = directory.read_record()
    if left.status in _UNFINISHED:
        directory.write(
            directory.manifest_file, evolve(left, status="cancelled", error="cancelled by the user", finished_at=now())
        )
    return run_state(directory)
