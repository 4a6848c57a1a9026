"""Runs in the background: submit, find, status, cancel."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import psutil
from attrs import evolve, frozen

from analysis.domain.contracts import AcceptedStatus, LLMProfileAccepted
from analysis.domain.errors import BusyError, RequestError
from analysis.domain.manifest import RunManifest, RunStatus
from analysis.domain.program import ProgramManifest
from runner.launcher.outcome import headline_of
from runner.launcher.provenance import now
from runner.launcher.run_directory import RunDirectory
from runner.process.leftovers import end_leftovers, find_leftovers, is_stopped, is_without_launcher
from runner.process.process_mark import ProcessMark
from runner.process.program_log import log_text
from runner.process.python import import_path, module_command
from runner.process.supervised import is_supervisor

__all__ = ["RunState", "all_states", "cancel", "find_run", "run_state", "submit"]

_CANCELS: Final = "cancel"
"""What `cancel` holds a run's lock for, as the lock says: it is not the run's own process."""
_UNFINISHED: Final = ("queued", "running")
_POLL_S: Final = 0.2
_START_PATIENCE_S: Final = 30.0
_CANCEL_PATIENCE_S: Final = 30.0
_SUPERVISED_PATIENCE_S: Final = 150.0
"""Where the launcher is gone: the program has its grace, and nsys its time to write the report."""
_END_PATIENCE_S: Final = 10.0
_CAPTURED: Final = (".sqlite", ".nsys-rep", ".qdstrm")


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
    try:
        answer = _started(directory, environ, log)
    except RequestError as error:
        left = directory.read_manifest()
        if left.status == "queued":
            directory.write(directory.manifest_file, evolve(left, status="failed", error=str(error), finished_at=now()))
        raise
    status: AcceptedStatus = "running" if answer == "running" else "queued"
    return LLMProfileAccepted(run_id=directory.path.name, status=status, artifacts_dir=str(directory.path))


def _started(directory: RunDirectory, environ: Mapping[str, str], log: Path) -> str:
    """Start the background process; gives what it answers. Raises RequestError as `submit`."""
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
        with suppress(subprocess.TimeoutExpired):  # it has closed its end of the pipe: it is about to end
            process.wait(_END_PATIENCE_S)
        words = log_text(log).strip().splitlines()
        raise RequestError(f"the background process did not come up: {words[-1] if words else 'it said nothing'}")
    return answer


def find_run(out: Path, run_id: str) -> RunDirectory:
    """Find a run as every command names it: by its id or the beginning of it, `latest`, or the path of its folder.

    A word without a slash means a run of ``out`` first, whatever lies in the current folder under that name.

    Args:
        out: folder of runs.
        run_id: the user's word.

    Raises:
        RequestError: there is none, or more than one.
    """
    folder = out.expanduser().absolute()
    if not run_id.strip():  # as a script's variable that is not set: every id begins with it
        raise RequestError(f"no run in {folder} has an empty id; `dsocr-profile status --all`")
    if run_id == "latest":
        _require_link(folder / "latest")
        if (folder / "latest").is_dir():
            return RunDirectory((folder / "latest").resolve())
    place = Path(run_id).expanduser()
    if "/" in run_id:
        if not (place / "run.json").is_file():
            raise RequestError(f"{run_id}: no run in this folder (it has no run.json); `dsocr-profile status --all`")
        return RunDirectory(place.resolve())
    # The id is the user's text: compared, never joined to a path.
    beginning = [
        path
        for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if path.name.startswith(run_id) and not path.is_symlink() and (path / "run.json").is_file()
    ]
    exact = [path for path in beginning if path.name == run_id]
    if not beginning and (place / "run.json").is_file():
        return RunDirectory(place.resolve())
    if len(exact or beginning) != 1:
        what = f"{len(beginning)} runs" if beginning else "no run"
        raise RequestError(f"{what} in {folder} with an id that begins with {run_id!r}; `dsocr-profile status --all`")
    return RunDirectory((exact or beginning)[0])


def _require_link(latest: Path) -> None:
    """Refuse a ``latest`` that no run made: something else has that name, or its run was removed."""
    remedy = "give a run's id: `dsocr-profile status --all` lists them"
    if latest.is_symlink():
        if not (latest / "run.json").is_file():
            raise RequestError(f"{latest}: the run that it points to is not there any more; {remedy}")
    elif latest.exists() and not (latest / "run.json").is_file():
        kind = "a folder" if latest.is_dir() else "a file"
        raise RequestError(f"{latest}: is {kind} and no link to the latest run; move it away, and {remedy}")


def run_state(directory: RunDirectory) -> RunState:
    """Read a run's state. One that says queued or running but has no living process has failed."""
    manifest = directory.read_record()
    holder = directory.held_by()
    if manifest.status in _UNFINISHED and holder is None:
        # It may have finished between the two readings: the process ends after its last word in run.json.
        manifest = directory.read_record()
    status, error = manifest.status, manifest.error
    if status in _UNFINISHED and holder is None and not _is_coming_up(directory, manifest):
        status, error = "failed", _gone(directory)
        if directory.cancel_file.exists():
            status = "cancelled"
    elif status in _UNFINISHED and holder is not None:
        error = _how_it_goes_on(manifest.run_id, holder) or error
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
        None if holder is None or not holder.is_here or holder.is_gone() else holder.process or None,
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


def _is_coming_up(directory: RunDirectory, manifest: RunManifest | ProgramManifest) -> bool:
    """Whether a run was queued just now, so that its background process may not have begun yet.

    A clock that was set back, or that of another machine, may put it into the future: one of tomorrow is not of just now.
    """
    created = manifest.meta.created_at if isinstance(manifest, RunManifest) else manifest.created_at
    young = abs((datetime.now(UTC) - created).total_seconds()) < _START_PATIENCE_S
    return manifest.status == "queued" and young and not directory.was_taken_up


def _how_it_goes_on(run_id: str, holder: ProcessMark) -> str | None:
    """What is said of a run that goes on otherwise than by its launcher here; None: nothing is."""
    if is_without_launcher(holder):
        for left in find_leftovers(run_id):
            stopped = any(is_stopped(supervisor) for supervisor in left.supervisors)
            ending = "`dsocr-profile cancel` ends it" if stopped or not left.supervisors else "which is being ended"
            return f"{left.words()}; {ending}"
        return "its launcher is gone; `dsocr-profile cancel` ends what it left"
    if not holder.is_here:
        return f"{holder.words()} works on it"
    if holder.process and _is_supervisor(holder.process):
        return f"its launcher is gone; {holder.words()} ends what goes on without it"
    return None


def _gone(directory: RunDirectory) -> str:
    """What is said of a run whose process died without a word: what it left running, and how to go on."""
    for left in find_leftovers(directory.path.name):
        ending = "which is being ended" if left.supervisors else "`dsocr-profile cancel` ends it"
        return f"{left.words()}; {ending}"
    captured = any(
        file.stat().st_size for ending in _CAPTURED for file in directory.path.glob(f"*{ending}") if file.is_file()
    )
    if captured:
        return "its launcher is gone; `dsocr-profile resume` goes on with what it captured"
    return "its launcher is gone, and nothing was captured; run it again"


def cancel(directory: RunDirectory, say: Callable[[str], None]) -> RunState:
    """Cancel a queued or running run: its process ends the program first, and nsys finishes writing.

    Where its process is gone, what that left running is ended here, in the same order. Several at once ask for no more
    than one: the run is being cancelled, and all of them wait for its end.

    Args:
        directory: of the run.
        say: takes one line for the user.

    Raises:
        RequestError: it is over already.
        BusyError: it does not end.
    """
    directory.require_own()
    manifest = directory.read_record()
    if manifest.status == "cancelled":  # of two that ask at once the second may come when it is done
        say(f"run {manifest.run_id} is cancelled already")
        return run_state(directory)
    if manifest.status not in _UNFINISHED:
        raise RequestError(f"run {manifest.run_id} is {manifest.status} already")
    holder = directory.held_by()
    if holder is not None and not holder.process:
        raise BusyError(f"run {manifest.run_id}: its process cannot be told; cancel it as the user who started it")
    if not directory.ask_to_cancel():
        say(f"run {manifest.run_id} is being cancelled")
    without_launcher = holder is not None and _ask_to_end(directory, manifest.run_id, holder, say)
    until = time.monotonic() + _SUPERVISED_PATIENCE_S
    while True:
        _wait_for_the_end(directory, manifest.run_id)
        try:
            with directory.locked(_CANCELS):
                _end_what_is_left(directory, say, without_launcher=without_launcher)
            return run_state(directory)
        except BusyError:  # another cancel of the same run, or a background process that came up only now
            if time.monotonic() > until:
                raise


def _ask_to_end(directory: RunDirectory, run_id: str, holder: ProcessMark, say: Callable[[str], None]) -> bool:
    """Ask what holds a run's lock to end, beside the word that is left in its folder; gives whether its launcher is gone.

    What a killed launcher left, which holds its lock, is ended here.
    """
    if holder.role == _CANCELS:  # another cancel: it ends what is left, and is no part of the run
        return False
    if not holder.is_here:
        say(f"run {run_id} is worked on by {holder.words()}, which looks for the word that it is cancelled")
        return False
    supervised = _is_supervisor(holder.process)
    if supervised or holder.is_gone():
        if supervised:
            say(f"run {run_id}: its launcher is gone; {holder.words()} ends what goes on without it")
        end_leftovers(run_id, say=say)
        return True
    if _has_open(holder.process, directory.lock_file):
        with suppress(psutil.Error):
            process = psutil.Process(holder.process)
            process.terminate()  # counted once, however often it comes: see `Interrupts`
            process.resume()  # one that is stopped hears nothing
    return False


def _is_supervisor(pid: int) -> bool:
    """Whether a run's lock is held by what ends its program where the launcher was killed."""
    try:
        return is_supervisor(psutil.Process(pid))
    except psutil.Error:
        return False


def _has_open(pid: int, file: Path) -> bool:
    """Whether a process has a file open. One that died may have left its number in a lock, and the system given it to another."""
    try:
        return any(Path(opened.path) == file.resolve() for opened in psutil.Process(pid).open_files())
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True  # it may not be looked at; nor can it be signalled then


def _wait_for_the_end(directory: RunDirectory, run_id: str) -> None:
    """Wait until nobody holds the run. Raises BusyError: its holder does not end."""
    began = time.monotonic()
    while (holder := directory.held_by()) is not None:
        alone = holder.role == _CANCELS or (holder.is_here and _is_supervisor(holder.process))
        if time.monotonic() - began > (_SUPERVISED_PATIENCE_S if alone else _CANCEL_PATIENCE_S):
            raise BusyError(f"run {run_id}: {holder.words()} is still ending it; ask `status` again later")
        time.sleep(_POLL_S)


def _end_what_is_left(directory: RunDirectory, say: Callable[[str], None], *, without_launcher: bool) -> None:
    """End what a process that is gone left behind, and write down that the run was cancelled; its lock is held."""
    left = directory.read_record()
    ended = end_leftovers(left.run_id, say=say)
    if left.status in _UNFINISHED:
        error = "cancelled by the user"
        if ended or without_launcher:
            error += "; its launcher was gone, and what went on without it was ended"
        directory.write(directory.manifest_file, evolve(left, status="cancelled", error=error, finished_at=now()))
