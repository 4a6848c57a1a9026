"""Steps that runs of our models and of any program share: what is started, how it ended, and which status that gives."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from analysis.domain.ended import ended_in_words
from analysis.domain.errors import (
    AnalysisFailedError,
    CaptureError,
    DsocrError,
    ExportError,
    InterruptedRunError,
    NoEventsError,
    TimeoutExceededError,
    UnfitTraceError,
)
from analysis.domain.manifest import Resumption, RunManifest, RunStatus
from analysis.domain.program import ProgramManifest
from runner.collectors.interface.trace_file import check_trace
from runner.launcher.log_words import last_line, last_line_of_nsys
from runner.launcher.provenance import now
from runner.launcher.run_directory import RunDirectory
from runner.process.process import Interrupts, Outcome, run_process

__all__ = [
    "LAUNCHER_GONE",
    "analyse_beside",
    "ended_by",
    "how_it_ended",
    "recorded_or_worse",
    "recording_attempt",
    "require_analysed",
    "require_ended_itself",
    "set_damaged_aside",
    "start_analysis",
    "status_of",
    "why_no_capture",
]

LOST_SUPERVISOR: Final = "the supervisor of the program (dsocr-profile's own process around it, supervise.py)"
LAUNCHER_GONE: Final = "its launcher is gone"
_UNFIT: Final = UnfitTraceError.exit_code
_PIPE_COLUMNS: Final = 120
"""Width of the headline where the output is no terminal."""
_ANALYSIS_S: Final = 7200.0
"""The largest traces of ours take a minute."""


def analyse_beside(
    argv: Sequence[str], env: dict[str, str], log: Path, interrupts: Interrupts, what: str, rest: str
) -> None:
    """Run the analysis on what is there already, such as points or counters; what it prints goes into a log of its own.

    Args:
        argv: its command line.
        env: its environment.
        log: begun anew.
        interrupts: Ctrl-C ends it.
        what: was to be done, in words.
        rest: what is kept, and how to go on.

    Raises:
        InterruptedRunError: it was interrupted.
        AnalysisFailedError: it failed, or took two hours.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    outcome = _run_analysis(argv, env, log, interrupts)
    if outcome.ended_by == "interrupt":
        raise InterruptedRunError(f"{outcome.interrupted} in {what}; {rest}")
    if outcome.ended_by == "timeout":
        raise AnalysisFailedError(f"{what} did not end in {_ANALYSIS_S / 3600:g} h; {rest}")
    if outcome.returncode != 0:
        ended = ended_in_words(outcome.returncode)
        raise AnalysisFailedError(f"{what} {ended}: {_own_words(last_line(log))} (all of it: {log}); {rest}")


def start_analysis(
    directory: RunDirectory,
    argv: Sequence[str],
    env: dict[str, str],
    interrupts: Interrupts,
    watch: Callable[[], None],
) -> Outcome:
    """Run the analysis to its end; what it prints goes into its log, as wide as the terminal.

    Args:
        directory: of the run.
        argv: its command line.
        env: its environment.
        interrupts: Ctrl-C ends it.
        watch: called again and again meanwhile.

    Raises:
        CaptureError: it cannot be started.
    """
    return _run_analysis(argv, env, directory.log("analysis"), interrupts, watch)


def _run_analysis(
    argv: Sequence[str],
    env: dict[str, str],
    log: Path,
    interrupts: Interrupts,
    watch: Callable[[], None] | None = None,
) -> Outcome:
    """Run it with a new log, in which its headline, which is shown at the end, is as wide as the terminal."""
    log.unlink(missing_ok=True)
    wide = {**env, "COLUMNS": str(shutil.get_terminal_size((_PIPE_COLUMNS, 24)).columns)}
    deadline = time.monotonic() + _ANALYSIS_S
    return run_process(argv, env=wide, log=log, interrupts=interrupts, watch=watch, deadline=deadline)


def _own_words(line: str) -> str:
    """What the analysis says went wrong, without its name before it."""
    return line.removeprefix("dsocr-analyze: ").removeprefix("error: ")


def require_analysed(
    directory: RunDirectory, outcome: Outcome, timeout_s: float | None, *, again: bool = False
) -> None:
    """Insist that the analysis ended well.

    Args:
        directory: of the run.
        outcome: of the analysis.
        timeout_s: the run's limit.
        again: the run was taken up again for it: where it fails, another time would be no better.

    Raises:
        InterruptedRunError: it was interrupted.
        TimeoutExceededError: the run's time was over before it had ended, or it took two hours.
        UnfitTraceError: it finds that the capture must not be trusted, which no repetition changes.
        AnalysisFailedError: it failed.
    """
    rest = f"the trace is kept: dsocr-profile resume {directory.path.name}"
    if outcome.ended_by == "interrupt":
        raise InterruptedRunError(f"{outcome.interrupted} in the analysis; {rest}")
    if outcome.ended_by == "timeout":
        if timeout_s is None:
            raise TimeoutExceededError(f"the analysis did not end in {_ANALYSIS_S / 3600:g} h; {rest}")
        raise TimeoutExceededError(f"the analysis was ended by --timeout {timeout_s:g}; {rest}")
    words = last_line(directory.log("analysis"))
    if outcome.returncode == _UNFIT:
        raise UnfitTraceError(_own_words(words))
    if outcome.returncode != 0:
        if again:
            rest = f"the trace is kept in {directory.path}, and all of its words in {directory.log('analysis')}"
        ended = ended_in_words(outcome.returncode, "failed with")
        raise AnalysisFailedError(f"the analysis {ended}: {words}; {rest}")


@contextmanager
def recorded_or_worse(outcome: Outcome) -> Iterator[None]:
    """Write down how a step ended; if that fails (disk full) where the step did, the step's own failure is what is told."""
    try:
        yield
    except CaptureError:
        if outcome.returncode == 0:
            raise


def require_ended_itself(
    directory: RunDirectory,
    outcome: Outcome,
    what: str,
    timeout_s: float | None,
    saved: Path | None,
    tool: str = "the profiler",
) -> None:
    """Insist that a program was neither interrupted nor ended by its time limit, and that its profiler did not hang.

    Args:
        directory: of the run.
        outcome: of the program.
        what: was run, in words.
        timeout_s: the run's limit.
        saved: what was captured before; None: nothing.
        tool: the profiler, with its version.

    Raises:
        CaptureError: the profiler did not start the program, or did not end after it, or our supervisor was killed.
        TimeoutExceededError: it took longer than the run may.
        InterruptedRunError: somebody interrupted it.
    """
    rest = "" if saved is None else f"; what it captured is in {saved}: dsocr-profile resume {directory.path.name}"
    if outcome.ended_by in ("itself", "over"):
        if outcome.lost_supervisor:
            raise CaptureError(
                f"{what}: {LOST_SUPERVISOR} was killed, and all that it had started ended with it{rest or '; run it again'}"
            )
        return
    if outcome.ended_by == "stuck":
        left = rest or _what_is_left(directory)
        raise CaptureError(f"{_stuck(outcome, tool)}{left}; its output: {directory.log('capture')}")
    if saved is None and outcome.gave_up:
        rest = "; it was killed, and nothing usable is left"
    if outcome.ended_by == "timeout":
        raise TimeoutExceededError(f"{what} was ended by --timeout {timeout_s:g}{rest}")
    raise InterruptedRunError(f"{what} was {outcome.interrupted}{rest}")


def ended_by(outcome: Outcome, child: int | None, timeout_s: float | None, directory: RunDirectory) -> str:
    """Say what ended a captured program before it was through, as ``partial`` of its run.json.

    Args:
        outcome: of the capture.
        child: exit code of the program.
        timeout_s: the run's limit.
        directory: of the run.
    """
    if outcome.ended_by == "timeout":
        return f"--timeout {timeout_s:g}"
    if outcome.ended_by == "interrupt":
        return "cancel" if directory.cancel_file.exists() else _interrupt(outcome)
    if outcome.ended_by == "stuck":
        return "a profiler that hung"
    if outcome.lost_supervisor:
        return "the death of its supervisor"
    return _exit(child)


def _interrupt(outcome: Outcome) -> str:
    signalled = outcome.interrupted.removeprefix("ended by ")
    return "an interrupt" if signalled == outcome.interrupted else signalled


@contextmanager
def recording_attempt(
    directory: RunDirectory,
    read: Callable[[], RunManifest | ProgramManifest],
    update: Callable[..., None],
    cleaned: Callable[[str], str] = str,
) -> Iterator[None]:
    """Write into run.json what comes of taking a run up again. What went wrong first stays its status and error.

    Args:
        directory: of the run.
        read: gives its run.json.
        update: changes fields of it.
        cleaned: takes secrets out of a text.
    """
    if read().status in ("queued", "running"):  # its launcher could not write down any more that it was ended
        status = "cancelled" if directory.cancel_file.exists() else "failed"
        update(status=status, error=LAUNCHER_GONE, finished_at=now())
    try:
        yield
    except DsocrError as error:
        with suppress(DsocrError):  # a full disk is told by the first error
            update(resumed=Resumption(now(), cleaned(str(error))))
        raise
    update(resumed=Resumption(now(), None))


def set_damaged_aside(directory: RunDirectory, names: Sequence[str], say: Callable[[str], None]) -> None:
    """Move exports out of the way that are damaged, so that they are made again of what they were made of.

    Args:
        directory: of the run.
        names: of its traces.
        say: takes one line for the user.

    Raises:
        ExportError: one is damaged, and nothing is there to make it of.
        CaptureError: the folder cannot be written.
    """
    for name in names:
        export = directory.path / f"{name}.sqlite"
        if not export.is_file():
            continue
        try:
            check_trace(export)
        except NoEventsError:  # it is whole
            continue
        except ExportError as error:
            what = str(error).partition("; repeat it")[0]
            sources = [directory.path / f"{name}{ending}" for ending in (".nsys-rep", ".qdstrm")]
            if not any(source.is_file() and source.stat().st_size for source in sources):
                raise ExportError(f"{what}, and there is no report to make it of again; run it again") from error
            aside = export.with_name(f"{export.name}.damaged")
            try:
                export.replace(aside)
            except OSError as fault:
                raise CaptureError(f"{export}: cannot be moved out of the way ({fault.strerror})") from fault
            say(f"{what}: it is {aside.name} now, and the export is made again")


def how_it_ended(manifest: RunManifest | ProgramManifest, timeout_s: float | None) -> str:
    """`ended_by` of a run that an older version made, or whose launcher could not write it down any more."""
    if manifest.status == "timed_out" and timeout_s is not None:
        return f"--timeout {timeout_s:g}"
    if manifest.status == "interrupted":
        return "an interrupt"
    if manifest.status == "cancelled":
        return "cancel"
    return "its launcher being gone" if manifest.error == LAUNCHER_GONE else _exit(manifest.exit_codes.child)


def _exit(code: int | None) -> str:
    if code is None:
        return "an unknown cause"
    return f"signal {-code}" if code < 0 else f"the program's exit code {code}"


def why_no_capture(directory: RunDirectory, fault: str, saved: Path | None = None) -> str:
    """Say what kept the profiler from its part: it is not the program that failed.

    Args:
        directory: of the run.
        fault: of the profiler, in words.
        saved: what was captured before; None: nothing.
    """
    rest = "; nothing usable is left" if saved is None else f"; what was captured before is kept in {saved}"
    words = last_line_of_nsys(directory.log("capture"))
    return f"{fault}; its last words: {words} (all of them: {directory.log('capture')}){rest}"


def _stuck(outcome: Outcome, tool: str) -> str:
    done = "killed" if outcome.gave_up else "interrupted"
    if outcome.lost_part is not None:
        under = "under" if outcome.target_seen else "before it had started"
        ended = "the program was ended, and nsys" if outcome.target_seen else "nsys was"
        return f"{outcome.lost_part} of {tool} was killed {under} the program; {ended} {done}"
    if not outcome.target_seen:
        return (
            f"{tool} did not start the program in {outcome.waited_s:.0f} s, and was {done}: some versions hang at their "
            "start now and then, so run it again, or use another (--nsys; `dsocr-profile doctor` tries each)"
        )
    return f"{tool} had not ended {outcome.waited_s:.0f} s after the program, and was {done}"


def _what_is_left(directory: RunDirectory) -> str:
    """Say what a profiler left that was killed: which file, how large, and what can be done with it."""
    left = [
        file for ending in (".nsys-rep", ".qdstrm") for file in directory.path.glob(f"*{ending}") if file.stat().st_size
    ]
    if not left:
        return "; it left nothing"
    listed = ", ".join(f"{file.name} ({file.stat().st_size / 1e6:,.1f} MB)" for file in left)
    return f"; it left {listed}, which may be whole: dsocr-profile resume {directory.path.name} tries to import it"


def status_of(error: DsocrError, directory: RunDirectory) -> RunStatus:
    """Status of a run that ends with an error."""
    if isinstance(error, InterruptedRunError):
        return "cancelled" if directory.cancel_file.exists() else "interrupted"
    return "timed_out" if isinstance(error, TimeoutExceededError) else "failed"
