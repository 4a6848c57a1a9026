"""What a run is at: live in a terminal, as lines elsewhere; and how long each phase took, for ``run.json``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

from rich.console import Console
from rich.text import Text

from analysis.domain.manifest import PhaseTime
from analysis.domain.names import visible
from runner.launcher.live_line import LiveLine
from runner.launcher.run_directory import RunDirectory
from runner.process.progress import ChildStep, Event, ProgressReader

__all__ = ["STEPS", "Follower", "Role", "RunProgress", "duration", "phases_line"]

Role: TypeAlias = Literal["control", "capture"]
Key: TypeAlias = tuple[str, str]
"""(program, step) as in `PhaseTime`."""

STEPS: Final[Mapping[Key, str]] = {
    ("launcher", "preflight"): "preflight",
    ("launcher", "pages"): "pages",
    ("control", "start"): "control run: the program starts",
    ("control", "waiting"): "control run: the other program comes up",
    ("control", "model"): "control run: model",
    ("control", "inputs"): "control run: pages to tensors",
    ("control", "warm-up"): "control run: warm-up",
    ("control", "passes"): "control passes",
    ("control", "energy"): "energy of each stage",
    ("control", "counting"): "counting FLOPs and bytes",
    ("control", "end"): "control run: the program ends",
    ("capture", "start"): "capture: the program starts",
    ("capture", "waiting"): "capture: waits for the control run",
    ("capture", "model"): "capture: model",
    ("capture", "inputs"): "capture: pages to tensors",
    ("capture", "warm-up"): "capture: warm-up",
    ("capture", "passes"): "profiled passes",
    ("capture", "collection"): "the profiler collects",
    ("capture", "end"): "the profiler writes",
    ("control", "program"): "control runs: nothing attached",
    ("capture", "program"): "capture: the program under the profiler",
    ("launcher", "export"): "export",
    ("launcher", "report"): "report",
}
"""Every phase of a run in order, with its name for a person."""


class Follower:
    """What a program has told so far; it may be followed before it is shown."""

    def __init__(self, directory: RunDirectory, role: Role) -> None:
        self.role: Role = role
        self.started = time.monotonic()
        self._reader = ProgressReader(directory.path, role)
        self._events: list[Event] = []
        self._reached: set[str] = set()

    def look(self) -> None:
        """Read what is new."""
        events = self._reader.new_events()
        self._events += events
        self._reached |= {event.step for event in events}

    def has_reached(self, step: ChildStep) -> bool:
        """Whether a step has begun, as of the last look."""
        return step in self._reached

    def take(self) -> list[Event]:
        """Events that have not been taken."""
        self.look()
        events, self._events = self._events, []
        return events

    def page(self) -> int:
        """The page at work, from 1; 0: none."""
        return self._reader.page()


class RunProgress(LiveLine):
    """Shows and times the phases of one run while the context lasts.

    Args:
        say: takes a line where there is no terminal, and notes.
        began: when the run began, on ``time.monotonic()``'s clock.
        expected: seconds of each phase of an earlier run like this one, for the time left; empty: none is known.
        console: standard error; a test gives another.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        began: float | None = None,
        expected: Mapping[Key, float] | None = None,
        console: Console | None = None,
    ) -> None:
        super().__init__(say, console)
        self._began = time.monotonic() if began is None else began
        self._expected = dict(expected or {})
        self._phases: list[PhaseTime] = []
        self._current: Key = ("launcher", "preflight")
        self._since = self._began
        self._event: Event | None = None
        self._page = 0
        self._rate: float | None = None
        self._run: tuple[int, int] | None = None

    def expect(self, seconds: Mapping[Key, float]) -> None:
        """Say how long each phase of an earlier run like this one took; empty: not known."""
        self._expected = dict(seconds)

    @property
    def phases(self) -> tuple[PhaseTime, ...]:
        """Those that are over, in the order of their starts."""
        return tuple(sorted(self._phases, key=lambda phase: phase.start_s))

    def add(self, program: Literal["launcher", "control", "capture"], step: str, start: float, end: float) -> None:
        """Note a phase that is over; times on ``time.monotonic()``'s clock."""
        seconds = round(max(0.0, end - start), 3)
        self._phases.append(PhaseTime(program, step, round(start - self._began, 3), seconds))
        if self._live is not None:
            line = Text("✓ ", style="green")
            line.append(f"{visible(STEPS.get((program, step), step)):<34}", style="default")
            line.append(f"{duration(seconds):>8}", style="dim")
            self._console.print(line)

    @contextmanager
    def phase(self, step: str) -> Iterator[None]:
        """A phase of the launcher itself, for as long as the context lasts."""
        start = time.monotonic()
        self._enter(("launcher", step), start)
        try:
            yield
        finally:
            self.add("launcher", step, start, time.monotonic())

    @contextmanager
    def child(self, follower: Follower) -> Iterator[Callable[[], None]]:
        """Show a program's phases while the context lasts. Gives what is to be called again and again meanwhile."""
        role = follower.role
        self._enter((role, "start"), follower.started)
        step, since = "start", follower.started

        def take() -> bool:
            nonlocal step, since
            events = follower.take()
            for event in events:
                if event.passes_done:
                    self._pass_done(role, event)
                else:
                    self.add(role, step, since, event.at_s)
                    step, since = event.step, event.at_s
                    self._enter((role, step), since, event)
            return bool(events)

        def watch() -> None:
            if take():
                self._drawn_at = 0.0
            self._page = follower.page()
            self.draw()

        try:
            yield watch
        finally:
            take()
            self.add(role, step, since, time.monotonic())

    @contextmanager
    def program(self, role: Role) -> Iterator[Callable[[int, int], None]]:
        """All runs of a program that tells no steps. Gives what is to be told the number of a run, and of how many."""
        start = time.monotonic()
        self._enter((role, "program"), start)

        def run(number: int, of: int) -> None:
            self._run = (number, of) if of > 1 else None

        try:
            yield run
        finally:
            self.add(role, "program", start, time.monotonic())

    def with_earlier(self, before: Iterable[PhaseTime]) -> tuple[PhaseTime, ...]:
        """Phases so far; of a run that was taken up again those from before too, unless they were repeated."""
        again = {(phase.program, phase.step) for phase in self._phases}
        return (*(phase for phase in before if (phase.program, phase.step) not in again), *self.phases)

    def draw(self) -> None:
        """Show the state of now; does nothing where there is no terminal, or if it was shown just before."""
        self._show_now_and_then(self.line)

    def line(self, now: float) -> str:
        """The state in words: step, pass, page, tokens/s, time so far and left."""
        parts = [STEPS.get(self._current, self._current[1])]
        event = self._event
        if self._run is not None:
            parts.append(f"run {self._run[0]} of {self._run[1]}")
        if event is not None and event.passes > 1:
            parts.append(f"pass {min(event.passes_done + 1, event.passes)} of {event.passes}")
        if event is not None and event.pages and self._page:
            parts.append(f"page {self._page} of {event.pages}")
        if self._rate is not None:
            parts.append(f"{self._rate:.0f} tokens/s")
        parts.append(duration(now - self._began))
        left = self.left_s(now)
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return " · ".join(parts)

    def left_s(self, now: float) -> float | None:
        """Seconds left: of the whole run as long as the last one like it took, else of the passes at work; None: unknown."""
        in_step = now - self._since
        step_s = self._step_s()
        if not self._expected:
            return None if step_s is None else max(0.0, step_s - in_step)
        order = list(STEPS)
        later = order[order.index(self._current) + 1 :] if self._current in STEPS else []
        here = self._expected.get(self._current, 0.0) if step_s is None else step_s
        return max(0.0, here - in_step) + sum(self._expected.get(key, 0.0) for key in later)

    def _step_s(self) -> float | None:
        """How long the passes at work will take, by those that are over; None: none is over."""
        event = self._event
        if event is None or not event.passes_done:
            return None
        return (event.at_s - self._since) / event.passes_done * event.passes

    def _enter(self, key: Key, at: float, event: Event | None = None) -> None:
        self._current, self._since, self._event, self._page, self._rate, self._run = key, at, event, 0, None, None
        if self._live is not None:
            self.draw()
        elif key in _SAID:
            self._say(STEPS[key] + (f": {_passes(event)}" if event is not None and event.passes else ""))

    def _pass_done(self, role: Role, event: Event) -> None:
        self._event = event
        if event.seconds > 0 and event.tokens:
            self._rate = event.tokens / event.seconds
        if self._live is None:
            rate = "" if self._rate is None else f", {self._rate:.0f} tokens/s"
            kind = "control" if role == "control" else "profiled"
            self._say(f"{kind} pass {event.passes_done} of {event.passes}: {duration(event.seconds)}{rate}")


_SAID: Final = frozenset(
    {
        ("control", "start"),
        ("control", "passes"),
        ("control", "energy"),
        ("control", "counting"),
        ("capture", "start"),
        ("capture", "passes"),
    }
    | {("launcher", "export"), ("launcher", "report")}
)
"""Steps that are worth a line where there is no terminal."""


def _passes(event: Event) -> str:
    passes = f"{event.passes} pass" + ("es" if event.passes != 1 else "")
    return f"{passes} over {event.pages} page" + ("s" if event.pages != 1 else "")


def duration(seconds: float) -> str:
    """Seconds for a person: 4.2 s, 83 s, 4 min 05 s."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def phases_line(phases: tuple[PhaseTime, ...]) -> str | None:
    """The whole and its longest phases, for the end of a run; None: nothing was timed."""
    if not phases:
        return None
    whole = max(phase.start_s + phase.seconds for phase in phases)
    at_work = [phase for phase in phases if phase.step != "waiting"]
    longest = sorted(at_work, key=lambda phase: phase.seconds, reverse=True)[:5]
    shown = ", ".join(f"{STEPS.get((p.program, p.step), p.step)} {duration(p.seconds)}" for p in longest)
    return f"Took {duration(whole)}: {shown}."
