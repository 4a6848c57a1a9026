"""``dsocr-profile work``, hidden: the background half of ``submit``."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from analysis.domain.contracts import AcceptedStatus
from runner.cli.output import say

__all__ = ["work"]


def work(
    run_dir: Path,
    answer_to: Annotated[int, typer.Option("--answer", help="Descriptor that is told queued or running, once.")],
) -> None:
    """Carry out a prepared run."""
    from runner.collectors.choosing import planned_collector
    from runner.launcher.launch import carry_out
    from runner.launcher.outcome import print_result
    from runner.launcher.run_directory import RunDirectory

    answered = False

    def answer(status: AcceptedStatus) -> None:
        nonlocal answered
        if not answered:
            answered = True
            with suppress(OSError):  # nobody waits for the answer any more
                os.write(answer_to, status.encode("ascii"))
            with suppress(OSError):
                os.close(answer_to)

    directory = RunDirectory(run_dir.absolute())
    plan = directory.read_plan()
    choice = planned_collector(plan.collector, plan.settings.nsys, os.environ, needs_tool=True)
    print_result(directory, carry_out(directory, choice, os.environ, say, wait=True, answer=answer))
