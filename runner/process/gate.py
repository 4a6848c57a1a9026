"""Where one program waits until another lets it go on: so a program can start while another is at work, and measure later.

A named pipe that the launcher holds open for writing. Each passage costs a byte; the end of the file means that the
launcher is gone, however it ended. It works across PID namespaces and is inherited by nobody.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

from analysis.domain.errors import CaptureError, InterruptedRunError

__all__ = ["GATE_VARIABLE", "Gate", "GateKeeper"]

GATE_VARIABLE: Final = "DSOCR_PROFILE_GATE"
"""Path of the gate at which a program of ours waits; unset: it waits nowhere."""


class Gate:
    """The program's side."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Open the gate that the environment names; one that is not there (any more) is no gate."""
        path = environ.get(GATE_VARIABLE)
        self._descriptor: int | None = None
        if path:
            try:
                # Opened to wait, it would wait for ever where the launcher is gone already.
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                os.set_blocking(self._descriptor, True)
            except FileNotFoundError:
                self._descriptor = None

    def wait(self, told: Callable[[], None] = lambda: None) -> None:
        """Wait until the launcher opens the gate once more.

        Args:
            told: called before the waiting, if there is any.

        Raises:
            InterruptedRunError: the launcher is gone.
        """
        if self._descriptor is None:
            return
        if not select.select([self._descriptor], [], [], 0)[0]:
            told()
        if not os.read(self._descriptor, 1):
            raise InterruptedRunError("the launcher is gone, so there is nobody to run for")


class GateKeeper:
    """The launcher's side: the gate is there, and may be opened, while the context lasts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened = 0
        self._descriptor: int | None = None

    def __enter__(self) -> GateKeeper:
        try:
            self.path.unlink(missing_ok=True)
            os.mkfifo(self.path, 0o600)
            # For reading too: so the opening waits for nobody, and writing never finds that nobody reads.
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise CaptureError(f"{self.path}: no named pipe can be made there ({error.strerror})") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self.path.unlink(missing_ok=True)

    def open(self, passage: int) -> None:
        """Let the program through up to this passage, counted from 1; what is open already stays open."""
        more = passage - self._opened
        if self._descriptor is not None and more > 0:
            os.write(self._descriptor, b"." * more)
            self._opened = passage
