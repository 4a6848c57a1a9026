"""One run at a time per device, for all users of the machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from analysis.domain.errors import BusyError, InterruptedRunError, RequestError
from runner.process.driver import VisibleGpu, physical_device
from runner.process.lock import LockFile, Timeout
from runner.process.process import Interrupts

__all__ = ["LOCK_FOLDER_VARIABLE", "DeviceLock"]

LOCK_FOLDER_VARIABLE: Final = "DSOCR_LOCK_DIR"


class DeviceLock:
    """The lock of one device: the same file for every process that means the same GPU, however it is spelled."""

    def __init__(self, device: str, gpus: Sequence[VisibleGpu], environ: Mapping[str, str]) -> None:
        """Name the lock.

        Args:
            device: of the request.
            gpus: as CUDA numbers them here.
            environ: ``$DSOCR_LOCK_DIR`` moves the folder of locks out of the system's temporary one.
        """
        self.device = device
        chosen = environ.get(LOCK_FOLDER_VARIABLE)
        self.folder = Path(chosen) if chosen else Path(tempfile.gettempdir()) / "dsocr-profiler-devices"
        self.file = LockFile(self.folder / f"{physical_device(device, gpus)}.lock", mode=0o666)

    @contextmanager
    def held(
        self, *, wait: bool, interrupts: Interrupts | None = None, waiting: Callable[[str], None] | None = None
    ) -> Iterator[None]:
        """Hold the device.

        Args:
            wait: wait for it rather than fail.
            interrupts: end the waiting.
            waiting: told once, in words, if it has to wait.

        Raises:
            BusyError: another run holds it, and ``wait`` is false.
            InterruptedRunError: ended while waiting.
            RequestError: the lock's file cannot be used.
        """

        def tell(holder: str) -> None:
            if waiting is not None:
                waiting(f"{self._busy(holder)}; waiting")

        with ExitStack() as stack:
            try:
                self._make_folder()
                stack.enter_context(
                    self.file.held(
                        wait=tell if wait else None, stop=lambda: interrupts is not None and interrupts.count > 0
                    )
                )
            except Timeout as error:
                if wait:
                    raise InterruptedRunError("interrupted while waiting for the device") from error
                raise BusyError(f"{self._busy(self.file.written())}; wait with --wait, or queue with submit") from error
            except OSError as error:
                raise RequestError(
                    f"{self.file.path}: the device's lock cannot be used ({error.strerror}); set "
                    f"{LOCK_FOLDER_VARIABLE} to a folder that can be written"
                ) from error
            yield

    def _busy(self, holder: str) -> str:
        return f"device {self.device} is held by another run (process {holder or 'unknown'})"

    def _make_folder(self) -> None:
        # Not sticky: where it is, filelock refuses files of other users, which all of them are meant to share.
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o777)
