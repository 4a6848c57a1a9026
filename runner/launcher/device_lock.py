"""One run at a time per device, for all users of the machine."""

from __future__ import annotations

import os
import stat
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final

from analysis.domain.errors import BusyError, InterruptedRunError, RequestError, TimeoutExceededError
from analysis.domain.figures import counted
from analysis.domain.system_errors import is_disk_full, reason_of, room_remedy
from runner.process.driver import VisibleGpu, physical_device
from runner.process.leftovers import end_leftovers, is_without_launcher
from runner.process.lock import LockFile, LockTakenError, user_name
from runner.process.machine_lock import Holder, MachineLock
from runner.process.process import Interrupts
from runner.process.process_mark import UNKNOWN_PROCESS, ProcessMark
from runner.process.waiting_line import WaitingLine

__all__ = ["LOCK_FOLDER_VARIABLE", "DeviceLock"]

LOCK_FOLDER_VARIABLE: Final = "DSOCR_LOCK_DIR"
_PATIENCE_S: Final = 1.0
"""How long one who does not wait gives those before it to take the device, or to go away."""

_OTHERS_WRITE: Final = 0o022


class DeviceLock:
    """The lock of one device: the same for every process that means the same GPU, however it is spelled.

    It is a file in a folder that nobody but the user may write, for his own runs, and a name that all users of the machine
    share (`MachineLock`), for those of others. ``$DSOCR_LOCK_DIR`` puts a folder in the place of both: who is to wait for
    whom is then for those who name the same folder to say. A folder of several users belongs to root and is sticky
    (``install -d -m 1777 FOLDER``).
    """

    def __init__(self, device: str, gpus: Sequence[VisibleGpu], environ: Mapping[str, str]) -> None:
        """Name the lock.

        Args:
            device: of the request.
            gpus: as CUDA numbers them here.
            environ: ``$DSOCR_LOCK_DIR`` names the folder.

        Raises:
            RequestError: there is no folder that could hold locks, or ``$DSOCR_LOCK_DIR`` is no absolute path.
        """
        self.device = device
        name = physical_device(device, gpus)
        chosen = environ.get(LOCK_FOLDER_VARIABLE)
        if chosen and not Path(chosen).is_absolute():
            raise RequestError(
                f"{LOCK_FOLDER_VARIABLE}={chosen}: is relative, and so another folder in each one that a run is started in; "
                "give its absolute path"
            )
        self.folder = Path(chosen) if chosen else _own_folder()
        self.machine = None if chosen else MachineLock(name)
        self.file = LockFile(self.folder / f"{name}.lock", mode=0o666 if chosen and _is_shared(self.folder) else 0o600)

    @contextmanager
    def held(
        self,
        *,
        wait: bool,
        interrupts: Interrupts | None = None,
        waiting: Callable[[str], None] | None = None,
        asked_at: float | None = None,
    ) -> Iterator[None]:
        """Hold the device. Those who wait get it in the order in which they asked for it.

        What is left of runs whose launcher was killed is ended first: nothing is measured beside it.

        Args:
            wait: wait for it rather than fail.
            interrupts: end the waiting.
            waiting: told once, in words, if it has to wait.
            asked_at: when it was asked for, in seconds since 1970, such as when a run was queued; None: now.

        Raises:
            BusyError: another run holds it, and ``wait`` is false.
            InterruptedRunError: ended while waiting.
            TimeoutExceededError: the deadline of ``interrupts`` came while waiting.
            RequestError: the lock's file or folder cannot be used, or may not be trusted.
        """
        told = False

        def tell(holder: Holder | ProcessMark | None) -> None:
            nonlocal told
            if waiting is not None and not told:
                told = True
                waiting(f"{self._busy(holder)}; waiting")

        def stop() -> bool:
            return interrupts is not None and (interrupts.count > 0 or interrupts.is_late())

        with ExitStack() as stack:
            try:
                self._require_folder()
                holder = self.file.held_by()
                if holder is not None and is_without_launcher(holder):  # nobody would ever free it
                    end_leftovers(say=waiting or _say_nothing)
                line = WaitingLine(self.folder, self.file.path.stem)
                with line.joined(time.time() if asked_at is None else asked_at) as place:
                    those_ahead = place.those_ahead()
                    ahead = len(those_ahead)
                    if ahead and wait:
                        tell(self.file.written())
                    until = time.monotonic() + _PATIENCE_S
                    while not place.wait(stop if wait else lambda: time.monotonic() > until) or not self._entered(
                        stack, self.file.held(wait=tell if wait else None, stop=lambda: stop() or place.ahead() > 0)
                    ):
                        if wait and not stop():
                            continue  # somebody came who had asked earlier
                        if ahead and not wait:
                            raise BusyError(
                                f"device {self.device} is waited for by {counted(ahead, 'run')} (first {those_ahead[0]}); "
                                "wait behind with --wait, or queue with submit"
                            )
                        raise LockTakenError
            except LockTakenError as error:
                raise self._taken(wait, self.file.written(), interrupts) from error
            except OSError as error:
                raise self._unusable(
                    self.file.path, reason_of(error), room_remedy(error) if is_disk_full(error) else None
                ) from error
            if self.machine is not None:
                try:
                    stack.enter_context(self.machine.held(wait=tell if wait else None, stop=stop))
                except LockTakenError as error:
                    raise self._taken(wait, self.machine.holder(), interrupts) from error
            end_leftovers(say=waiting or _say_nothing)
            yield

    def _entered(self, stack: ExitStack, lock: AbstractContextManager[None]) -> bool:
        try:
            stack.enter_context(lock)
        except LockTakenError:
            return False
        return True

    def _taken(
        self, wait: bool, holder: Holder | ProcessMark | None, interrupts: Interrupts | None
    ) -> BusyError | InterruptedRunError | TimeoutExceededError:
        if wait and interrupts is not None and not interrupts.count and interrupts.is_late():
            return TimeoutExceededError(f"{self._busy(holder)}; --timeout was over before it was free")
        if wait:
            words = "interrupted" if interrupts is None else interrupts.words
            return InterruptedRunError(f"{words} while waiting for the device")
        return BusyError(f"{self._busy(holder)}; wait with --wait, or queue with submit")

    def _busy(self, holder: Holder | ProcessMark | None) -> str:
        process = (holder or UNKNOWN_PROCESS).words()
        if isinstance(holder, Holder) and holder.user != os.geteuid():
            process += f" of {user_name(holder.user)}"
        return f"device {self.device} is held by another run ({process})"

    def _require_folder(self) -> None:
        """Make the folder, or check that of those who could change what lies in it all may be trusted."""
        try:
            facts = self.folder.lstat()
        except FileNotFoundError:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            facts = self.folder.lstat()
        if stat.S_ISLNK(facts.st_mode):
            raise self._unusable(self.folder, "it is a symbolic link")
        if not stat.S_ISDIR(facts.st_mode):
            raise self._unusable(self.folder, "it is no folder")
        if facts.st_uid not in (os.geteuid(), 0):
            raise self._unusable(
                self.folder, f"it belongs to {user_name(facts.st_uid)}, who could replace what is in it"
            )
        if facts.st_mode & _OTHERS_WRITE and not facts.st_mode & stat.S_ISVTX:
            raise self._unusable(
                self.folder, "others may write there and replace locks: chmod go-w it, or chmod +t it to share it"
            )

    def _unusable(self, path: Path, reason: str, remedy: str | None = None) -> RequestError:
        chosen = self.machine is None  # it is set
        elsewhere = (
            f"let {LOCK_FOLDER_VARIABLE} name another folder" if chosen else f"set {LOCK_FOLDER_VARIABLE} to a folder"
        )
        remedies = f"{remedy}, or {elsewhere}" if remedy else elsewhere
        return RequestError(f"{path}: the device's lock cannot be used ({reason}); {remedies} of your own")


def _say_nothing(line: str) -> None:
    pass


def _is_shared(folder: Path) -> bool:
    """Whether a folder is there for several users."""
    try:
        return bool(folder.lstat().st_mode & _OTHERS_WRITE)
    except OSError:
        return False


def _own_folder() -> Path:
    """The user's own folder for what lasts as long as his programs: in ``$XDG_RUNTIME_DIR`` or ``/run/user``, else temporary."""
    import platformdirs  # here alone: 20 ms that `status` and `--help` need not wait for

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without a session there is none of the two, which is nobody's fault
        try:
            folder = platformdirs.user_runtime_path("dsocr-profiler", ensure_exists=True)
        except OSError as error:
            raise RequestError(
                f"the device's lock has no folder ({error}); set {LOCK_FOLDER_VARIABLE} to a folder of your own"
            ) from error
    return folder / "devices"
