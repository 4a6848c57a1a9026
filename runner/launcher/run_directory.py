"""One run's folder: ``reports/<run_id>/`` and the names in it. Files appear whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from analysis.domain.convert import from_json_file, json_text, to_json, to_plain
from analysis.domain.errors import BusyError, CaptureError, DsocrError, RequestError
from analysis.domain.files import WriteOptions, write_text
from analysis.domain.manifest import RunManifest
from analysis.domain.program import PROGRAM_MARK, ProgramManifest
from analysis.domain.reading import LARGEST_RESULT, read_bounded
from analysis.domain.redaction import redacted_plain
from analysis.domain.system_errors import is_disk_full, reason_of
from runner.plan.plan import RunPlan, WorkloadResult, trace_names
from runner.plan.program import ExecPlan
from runner.process.environment import own_secrets
from runner.process.lock import LockFile, LockTakenError, user_name
from runner.process.own_file import is_own, own_record
from runner.process.process_mark import UNKNOWN_PROCESS, ProcessMark
from runner.process.shared_folders import shared_folders

__all__ = ["RunDirectory", "require_safe_place"]

_RECORD: Final = WriteOptions(mode=0o600, durable=True, error=CaptureError)

_MAY_BE_A_LINK: Final = re.compile(r"(trace|rank\d+)\.(nsys-rep|qdstrm|sqlite)(\.(gz|xz|zst))?")
"""A trace, which may lie where there is more room. All else is written or believed by a run itself."""

_RESERVE_BYTES: Final = 1 << 17

_SOCKET_FOLDER_MAX: Final = 64
"""nsys opens sockets in its temporary folder; their whole path must stay below Linux' 108 characters."""


@frozen
class RunDirectory:
    """Paths of a run, and reading and writing its records."""

    path: Path
    """Absolute."""

    @property
    def plan_file(self) -> Path:
        """The resolved plan."""
        return self.path / "plan.json"

    @property
    def manifest_file(self) -> Path:
        """The run manifest."""
        return self.path / "run.json"

    @property
    def trace_file(self) -> Path:
        """The export, checked and scrubbed."""
        return self.path / "trace.sqlite"

    @property
    def report_file(self) -> Path:
        """What nsys wrote."""
        return self.path / "trace.nsys-rep"

    def traces(self) -> tuple[str, ...]:
        """Names of the traces, without endings, as the plan says."""
        if not self.plan_file.is_file():
            return trace_names(1)
        return (
            self.read_program_plan().settings.traces
            if self.is_of_a_program()
            else trace_names(self.read_plan().settings.tensor_parallel)
        )

    @property
    def cancel_file(self) -> Path:
        """There if the run is to be, or was, cancelled."""
        return self.path / ".cancel"

    def ask_to_cancel(self) -> bool:
        """Leave word that the run is to be cancelled. False: somebody did before.

        Raises:
            CaptureError: the folder cannot be written.
        """
        try:
            self.cancel_file.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            return False
        except OSError as error:
            raise CaptureError(f"{self.cancel_file}: cannot be written ({error.strerror})") from error
        return True

    @property
    def was_taken_up(self) -> bool:
        """Whether a process has ever worked on the run."""
        return self.lock_file.exists()

    @property
    def lock_file(self) -> Path:
        """Held by the process that works on the run, and holds its process id."""
        return self.path / ".lock"

    @property
    def secrets_file(self) -> Path:
        """Texts that the export of a program's run must be freed of. It is there as long as a report that awaits its export."""
        return self.path / ".secrets.json"

    def write_secrets(self, secrets: tuple[str, ...]) -> None:
        """Write the secrets, readable by their owner only.

        Raises:
            CaptureError: the folder cannot be written.
        """
        write_text(self.secrets_file, to_json(list(secrets)) + "\n", _RECORD)

    def read_secrets(self) -> tuple[str, ...] | None:
        """Read what `write_secrets` wrote; None: it is not there."""
        if not self.secrets_file.is_file():
            return None
        return from_json_file(tuple[str, ...], self.secrets_file)

    def log(self, step: str) -> Path:
        """Log of one step: control, capture, export, analysis."""
        return self.path / "logs" / f"{step}.log"

    def create(self) -> None:
        """Make the folder and its ``logs``, for the user alone.

        Raises:
            RequestError: the place cannot be written, or everybody may put something else in its place.
        """
        require_safe_place(self.path.parent)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
            (self.path / "logs").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise RequestError(f"{self.path}: cannot be created ({reason_of(error)}); choose another --out") from error

    def require_own(self) -> None:
        """Refuse a folder that is somebody else's: its plan names programs that would be started, and its lock processes.

        Root is no exception: what a user wrote is not run as root.

        Raises:
            RequestError: the folder, or a file in it, belongs to somebody else or is a link, or everybody may write there
                or in a folder above it.
        """
        require_safe_place(self.path.parent)
        remedy = "; go on with it as its owner, or copy it (cp -r) if you trust what its plan starts"
        try:
            folder = self.path.stat()  # `latest` is a link, which its user may name
            entries = [(Path(entry.path), entry.stat(follow_symlinks=False)) for entry in os.scandir(self.path)]
            if stat.S_ISDIR(next((facts.st_mode for path, facts in entries if path.name == "logs"), 0)):
                logs = os.scandir(self.path / "logs")
                entries += [(Path(entry.path), entry.stat(follow_symlinks=False)) for entry in logs]
        except OSError as error:
            raise RequestError(f"{self.path}: cannot be read ({error.strerror})") from error
        own = {os.geteuid()}
        if is_own(folder.st_uid, self.path):
            own.add(folder.st_uid)
        for path, facts in ((self.path, folder), *entries):
            if stat.S_ISLNK(facts.st_mode) and not _MAY_BE_A_LINK.fullmatch(path.name):
                raise RequestError(f"{path}: is a symbolic link, which no run makes there{remedy}")
            if facts.st_uid not in own:
                raise RequestError(f"{path}: belongs to {user_name(facts.st_uid)}{remedy}")
        if folder.st_mode & stat.S_IWOTH:
            raise RequestError(
                f"{self.path}: everybody may write there; if what is in it is yours: chmod go-w {self.path}"
            )

    def require_there(self) -> None:
        """Raise CaptureError if the folder, or its record, was removed, or is somebody else's now."""
        if not self.manifest_file.is_file():
            raise CaptureError(
                f"{self.path}: the run's folder, or run.json in it, is not there any more: it was removed or moved while "
                "the run went on"
            )
        with suppress(FileNotFoundError):
            user = self.path.stat().st_uid
            if not is_own(user, self.path):
                raise CaptureError(
                    f"{self.path}: a folder of {user_name(user)} was put in its place while the run went on; choose an "
                    "--out in a folder that is yours alone"
                )

    def watched(self, also: Callable[[], None] = lambda: None) -> Callable[[], None]:
        """Give what is to be done again and again while a program runs: in a folder that has gone nothing is waited for.

        Args:
            also: done with each look.
        """

        def look() -> None:
            self.require_there()
            also()

        return look

    def free_reserve(self) -> None:
        """Make room on a full disk for the last words of run.json."""
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    @property
    def _reserve(self) -> Path:
        """Keeps room while a process works on the run, so that run.json can say that the disk was full."""
        return self.path / ".reserve"

    @contextmanager
    def still_there(self) -> Iterator[None]:
        """Say in one line that the folder was removed while the run went on, whatever stumbled over that.

        Raises:
            CaptureError: it is gone, or the system refused something that nobody had better words for.
            DsocrError: what the context raised, where the folder is there.
        """
        try:
            yield
        except (DsocrError, OSError) as error:
            if not self.manifest_file.is_file() and not is_disk_full(error):
                try:
                    self.require_there()
                except CaptureError as gone:
                    raise gone from error
            if isinstance(error, OSError):
                raise CaptureError(f"{error.filename or self.path}: {reason_of(error)}") from error
            raise

    def is_of_a_program(self) -> bool:
        """Whether the run is one of ``exec``, as run.json says."""
        try:
            return PROGRAM_MARK in read_bounded(self.manifest_file, LARGEST_RESULT)
        except RequestError:
            return False

    def read_plan(self) -> RunPlan:
        """Read plan.json, to act on it; RequestError if it is not there, not one, that of ``exec``, or another user's."""
        self.require_own()
        if self.is_of_a_program():
            raise RequestError(
                f"{self.path}: is a run of `dsocr-profile exec`, and this is for runs of a model (`run`)"
            )
        try:
            return own_record(RunPlan, self.plan_file)
        except RequestError as error:
            if (self.path / "launch.json").is_file():  # version 0.1 kept a part of the settings there
                raise RequestError(
                    f"{self.plan_file}: made by an older version; what it captured can be analysed with "
                    f"dsocr-analyze {self.trace_file}"
                ) from error
            self.read_record()  # where that cannot be read the run's kind is not known, and the plan may be of the other one
            raise

    def read_manifest(self) -> RunManifest:
        """Read run.json; RequestError if it is not there or not one."""
        return from_json_file(RunManifest, self.manifest_file)

    def read_program_plan(self) -> ExecPlan:
        """Read plan.json of a run of ``exec``, to act on it; RequestError if it is not there, not one, or another user's."""
        self.require_own()
        return own_record(ExecPlan, self.plan_file)

    def read_program_manifest(self) -> ProgramManifest:
        """Read run.json of a run of ``exec``; RequestError if it is not there or not one."""
        return from_json_file(ProgramManifest, self.manifest_file)

    def read_record(self) -> RunManifest | ProgramManifest:
        """Read run.json, whichever kind of run it is of."""
        return self.read_program_manifest() if self.is_of_a_program() else self.read_manifest()

    def read_result(self, name: str) -> WorkloadResult | None:
        """Read what the child wrote as it ended (``control.json``, ``profiled.json``); None if it wrote nothing."""
        file = self.path / name
        return from_json_file(WorkloadResult, file) if file.is_file() else None

    def write(self, file: Path, record: Any) -> None:
        """Write a record as JSON, whole or not at all, and without secrets.

        A plan alone is written as it is, for it is what is carried out; `require_no_secrets` has looked at it before.

        Raises:
            CaptureError: the disk is full or the folder cannot be written.
        """
        if file.name == self.plan_file.name:
            text = to_json(record)
        else:
            # Text by text, not the JSON: there quotes inside a text are escaped, and a secret between them looks like none.
            text = json_text(redacted_plain(to_plain(record), own_secrets()), indent=2)
        write_text(file, text + "\n", _RECORD)

    @contextmanager
    def locked(self, role: str = "") -> Iterator[None]:
        """Hold the run's lock, with the own process in it.

        Args:
            role: what it is held for, where that is not to work on the run.

        Raises:
            BusyError: another process works on this run.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self._lock.held(role=role))
            except LockTakenError as error:
                holder = self._lock.written() or UNKNOWN_PROCESS
                raise BusyError(f"{self.path}: another process works on this run ({holder.words()})") from error
            except OSError as error:
                raise RequestError(f"{self._lock.path}: the run cannot be locked ({reason_of(error)})") from error
            with suppress(OSError):  # a disk that is full already: the first record that is written says so
                self._reserve.unlink(missing_ok=True)
                with open(self._reserve, "xb", opener=_for_us_alone) as file:
                    file.write(bytes(_RESERVE_BYTES))
            stack.callback(self.free_reserve)
            yield

    def holder(self) -> int | None:
        """Process that works on the run, None if none does; 0 if one does, or may, and has no number here that is known."""
        return self._lock.holder()

    def held_by(self) -> ProcessMark | None:
        """The same, as far as it is known, wherever it runs."""
        return self._lock.held_by()

    @property
    def _lock(self) -> LockFile:
        return LockFile(self.lock_file, mode=0o600)

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """A folder for nsys' temporary files, private and removed afterwards: they hold the environment too."""
        inside = self.path / "tmp"
        # Programs take code from there, such as compiled kernels: where another could put it there, it lies elsewhere.
        if len(str(inside)) <= _SOCKET_FOLDER_MAX and not shared_folders(self.path):
            folder = inside
            folder.mkdir(mode=0o700, exist_ok=True)
        else:
            folder = Path(tempfile.mkdtemp(prefix="dsocr-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def link_latest(self) -> str | None:
        """Point ``latest`` beside the folder to it, in one step. Gives why that was not possible, None where it was."""
        link = self.path.parent / "latest"
        if link.exists() and not link.is_symlink():
            kind = "a folder" if link.is_dir() else "a file"
            return f"{link}: is {kind} and no link to the latest run, so it is not updated; move it away, or give runs by their ids"
        fresh = link.with_name(f".latest.{os.getpid()}")
        try:
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(self.path.name)
            fresh.replace(link)
        except OSError as error:
            return f"{link}: cannot be made a link to the latest run ({reason_of(error)}); give runs by their ids"
        return None


def require_safe_place(out: Path, say: Callable[[str], None] = lambda line: None) -> None:
    """Refuse a place for runs in which anybody could put something else in the place of a run's folder.

    Where one other user or a group could, such as root's container with a user's checkout mounted, it is said and gone on
    with: a plan that is not ours is not carried out (`runner.process.own_file`).

    Args:
        out: absolute; it need not be there yet.
        say: takes the warning.

    Raises:
        RequestError: everybody may rename in a folder on the way, which has no sticky bit.
    """
    shared = shared_folders(out)
    for folder in shared:
        if folder.everybody:
            raise RequestError(
                f"{folder.path}: everybody may write there, and put something else in the place of {out}; choose another "
                f"--out, or: chmod o-w {folder.path} (or chmod +t)"
            )
    if shared:
        say(
            f"warning: {shared[0].path}: {shared[0].who} may rename what is there, and so put something else in the place of "
            "a run's folder; no plan of another is carried out, but files could go astray: better an --out below a folder "
            "that is yours"
        )


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
