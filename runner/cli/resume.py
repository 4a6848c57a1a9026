"""``dsocr-profile resume``."""

from __future__ import annotations

import os
from pathlib import Path

from runner.cli.options import Nsys, Out, RunId
from runner.cli.output import say

__all__ = ["resume"]


def resume(run_id: RunId, out: Out = Path("reports"), nsys: Nsys = None) -> None:
    """Go on at import, export or analysis after the cause of a failure has been removed."""
    from runner.launcher.launch import choose_again
    from runner.launcher.outcome import print_result
    from runner.launcher.queue import find_run
    from runner.launcher.run import Run
    from runner.process.process import Interrupts

    directory = find_run(out, run_id)
    with Interrupts() as interrupts, directory.locked():
        choice = choose_again(directory.read_plan(), nsys, os.environ, needed=not directory.trace_file.is_file())
        manifest = Run.open(directory, choice, os.environ, say).resume(interrupts)
    print_result(directory, manifest)
