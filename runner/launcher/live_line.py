"""One live line in a terminal, with lines told above it; plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from analysis.domain.names import one_line
from analysis.domain.redaction import redacted
from runner.process.environment import own_secrets

__all__ = ["LiveLine"]

_REFRESH_S: Final = 0.2


class LiveLine:
    """Shows a line that changes while the context lasts: what `RunProgress` and `SweepProgress` are shown by.

    Args:
        say: takes a line where there is no terminal.
        console: standard error; a test gives another.
    """

    def __init__(self, say: Callable[[str], None], console: Console | None = None) -> None:
        self._say = say
        self._console = Console(stderr=True, highlight=False) if console is None else console
        self._live: Live | None = None
        self._spinner = Spinner("dots")
        self._drawn_at = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, line: str) -> None:
        """Tell a line, above what is live."""
        if self._live is not None:
            self._console.print(Text(one_line(redacted(line, own_secrets()))), soft_wrap=True)
        else:
            self._say(line)

    def _show(self, line: str) -> None:
        """Show a line; does nothing where there is no terminal."""
        if self._live is not None:
            self._spinner.update(text=Text(one_line(line), no_wrap=True, overflow="ellipsis"))
            self._live.update(self._spinner, refresh=True)

    def _show_now_and_then(self, line_at: Callable[[float], str]) -> None:
        """Show the line of now; does nothing where there is no terminal, or if one was shown just before.

        Args:
            line_at: gives the line of a moment on ``time.monotonic()``'s clock.
        """
        now = time.monotonic()
        if self._live is not None and now - self._drawn_at >= _REFRESH_S:
            self._drawn_at = now
            self._show(line_at(now))
