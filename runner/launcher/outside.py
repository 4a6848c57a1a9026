"""Steps that runs of our models and of any program share: what is started, how it ended, and which status that gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from analysis.domain.errors import AnalysisFailedError, DsocrError, InterruptedRunError, TimeoutExceededError
from analysis.domain.manifest import RunStatus
from runner.launcher.log_words import last_line
from runner.launcher.run_directory import RunDirectory
from runner.process.process import Interrupts, Outcome, run_process

__all__ = ["require_analysed", "require_ended_itself", "start_analysis", "status_of"]

_PIPE_COLUMNS: Final = 120
"""Width of the headline where the output is no terminal."""


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
    log = directory.log("analysis")
    log.unlink(missing_ok=True)
    wide = {
        **env,
        "COLUMNS": str(shutil.get_terminal_size((_PIPE_COLUMNS, 24)).columns),
    }  # its headline is shown at the end
    return run_process(argv, env=wide, log=log, interrupts=interrupts, watch=watch)


def require_analysed(directory: RunDirectory, outcome: Outcome) -> None:
    """Insist that the analysis ended well.

    Raises:
        InterruptedRunError: it was interrupted.
        AnalysisFailedError: it failed.
    """
    rest = f"the trace is kept: dsocr-profile resume {directory.path.name}"
    if outcome.ended_by == "interrupt":
        raise InterruptedRunError(f"interrupted in the analysis; {rest}")
    if outcome.returncode != 0:
        words = last_line(directory.log("analysis"))
        raise AnalysisFailedError(f"the analysis failed (exit code {outcome.returncode}): {words}; {rest}")


def require_ended_itself(
    directory: RunDirectory, outcome: Outcome, what: str, timeout_s: float | None, saved: Path | None
) -> None:
    """Insist that a program was neither interrupted nor ended by its time limit.

    Args:
        directory: of the run.
        outcome: of the program.
        what: was run, in words.
        timeout_s: the run's limit.
        saved: what was captured before; None: nothing.

    Raises:
        TimeoutExceededError: it took longer than the run may.
        InterruptedRunError: somebody interrupted it.
    """
    if outcome.ended_by in ("itself", "over"):
        return
    rest = ""
    if saved is not None:
        rest = f"; what it captured is in {saved}: dsocr-profile resume {directory.path.name}"
    elif outcome.gave_up:
        rest = "; it was killed, and nothing usable is left"
    if outcome.ended_by == "timeout":
        raise TimeoutExceededError(f"{what} was ended by --timeout {timeout_s:g}{rest}")
    raise InterruptedRunError(f"{what} was interrupted{rest}")


def status_of(error: DsocrError, directory: RunDirectory) -> RunStatus:
    """Status of a run that ends with an error."""
    if isinstance(error, InterruptedRunError):
        return "cancelled" if directory.cancel_file.exists() else "interrupted"
    return "timed_out" if isinstance(error, TimeoutExceededError) else "failed"
