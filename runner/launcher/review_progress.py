"""How far Nsight Compute is: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from analysis.domain.names import visible
from runner.collectors.ncu.output import Progress

__all__ = ["Display"]

_EVERY_S: Final = 15.0
"""Between two lines where there is no terminal."""


class Display:
    """Shows the progress of one layer on standard error while the context lasts."""

    def __init__(self, name: str, kernels: int, say: Callable[[str], None]) -> None:
        self._name = name
        self._kernels = kernels
        self._say = say
        self._started = self._said_at = time.monotonic()
        console = Console(stderr=True)
        self._bar: Bar | None = None
        if console.is_terminal:
            self._bar = Bar(
                TextColumn(visible(name), markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}", markup=False),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("the program starts", total=max(kernels, 1))

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Show how far it is; called many times a second."""
        what = "loads and warms up" if progress.connected else "the program starts"
        if self._bar is not None:
            # The kernel's name is the program's own word.
            text = visible(progress.name) if progress.kernels else what
            self._bar.update(self._task, completed=progress.kernels, description=text)
            return
        now = time.monotonic()
        if now - self._said_at >= _EVERY_S:
            self._said_at = now
            done = f"{progress.kernels:,} of {self._kernels:,} kernels" if progress.kernels else what
            self._say(f"{self._name}: {done}, {now - self._started:.0f} s")
