"""How far a sweep is: one live line in a terminal, a line per point elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console

from runner.launcher.live_line import LiveLine
from runner.launcher.progress import duration
from runner.launcher.run_directory import RunDirectory
from runner.process.progress import Event, ProgressReader

__all__ = ["SweepProgress"]

_STEPS: Final = {
    "start": "the program starts",
    "model": "model",
    "passes": "points",
    "collection": "recording windows",
    "end": "the program ends",
}


class SweepProgress(LiveLine):
    """Shows a sweep while the context lasts.

    Args:
        say: takes a line where there is no terminal.
        points: in all.
        began: when the sweep's command began, on ``time.monotonic()``'s clock.
        console: standard error; a test gives another.
    """

    def __init__(self, say: Callable[[str], None], points: int, began: float, console: Console | None = None) -> None:
        super().__init__(say, console)
        self._points = points
        self._began = began
        self._event = Event(began, "start")
        self._first: Event | None = None
        self.setup_s: float | None = None
        """From the start of the program to its first point, s; None: not so far."""
        self.points_began = False
        """Whether the program of the last start came as far as a point."""

    @contextmanager
    def following(self, directory: RunDirectory, told: Callable[[], None]) -> Iterator[Callable[[], None]]:
        """Follow one start of the program while the context lasts.

        Args:
            directory: of the sweep.
            told: called when a point is over.

        Yields:
            What is to be called again and again meanwhile.
        """
        reader = ProgressReader(directory.path, "sweep")
        started = time.monotonic()
        self.points_began, self._first = False, None
        self._event = Event(started, "start")

        def take() -> None:
            for event in reader.new_events():
                if event.step == "passes" and not self.points_began:
                    self.points_began, self._first = True, event
                    self.setup_s = round(event.at_s - started, 3)
                    self.say(f"the model is in memory after {duration(self.setup_s)}: {self._points} points")
                if event.step == "collection" and not event.passes_done and event.passes:
                    self.say(f"recording a window of {event.passes} points")
                self._event = event
                if event.passes_done:
                    told()

        def watch() -> None:
            take()
            self.draw(reader.page())

        try:
            yield watch
        finally:
            take()

    @contextmanager
    def analysing(self, windows: int) -> Iterator[Callable[[int], None]]:
        """Show the analyses while the context lasts; gives what is to be told how many are done."""
        self.say(f"analysing {windows} recorded windows")

        def show(done: int) -> None:
            self._show(f"analysing: {done} of {windows} windows · {duration(time.monotonic() - self._began)}")

        yield show

    def draw(self, phase: int) -> None:
        """Show the state of now; does nothing where there is no terminal, or if it was shown just before."""
        self._show_now_and_then(lambda now: self.line(now, phase))

    def line(self, now: float, phase: int) -> str:
        """The state in words.

        Args:
            now: on ``time.monotonic()``'s clock.
            phase: of the point at work: 1 its decoder is made, 2 warm-up, 3 and more its passes.
        """
        event = self._event
        parts = [_STEPS.get(event.step, event.step)]
        if event.passes:
            parts = [
                f"{'point' if event.step == 'passes' else 'window'} {min(event.passes_done + 1, event.passes)} of "
                f"{event.passes}"
            ]
        if event.step == "passes" and phase:
            passes = event.pages - 2
            parts.append({1: "prepares", 2: "warm-up"}.get(phase, f"pass {phase - 2} of {passes}"))
        parts.append(duration(now - self._began))
        left = self.left_s(now)
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return " · ".join(parts)

    def left_s(self, now: float) -> float | None:
        """Seconds left of the points, at the pace of those that are over; None: none is."""
        event, first = self._event, self._first
        if event.step != "passes" or first is None or not event.passes_done:
            return None
        pace = (event.at_s - first.at_s) / event.passes_done
        return max(0.0, pace * (event.passes - event.passes_done) - (now - event.at_s))
