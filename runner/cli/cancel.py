"""``dsocr-profile cancel``."""

from __future__ import annotations

from pathlib import Path

from runner.cli.options import Out, RunId
from runner.cli.output import say, tell

__all__ = ["cancel"]


def cancel(run_id: RunId, out: Out = Path("reports")) -> None:
    """Cancel a queued or running run; what it captured so far is kept."""
    from runner.launcher.queue import cancel as cancel_run
    from runner.launcher.queue import find_run

    state = cancel_run(find_run(out, run_id), say)
    tell(f"{state.run_id}  {state.status}")
