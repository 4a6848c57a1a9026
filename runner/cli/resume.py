"""``dsocr-profile resume``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.options import Nsys, Out, RunId
from runner.cli.output import say

if TYPE_CHECKING:
    from runner.launcher.run_directory import RunDirectory

__all__ = ["resume"]


def resume(run_id: RunId, out: Out = Path("reports"), nsys: Nsys = None) -> None:
    """Go on at import, export or analysis after the cause of a failure has been removed."""
    from runner.collectors.choosing import planned_collector
    from runner.launcher.outcome import print_result
    from runner.launcher.queue import find_run
    from runner.launcher.run import Run
    from runner.process.process import Interrupts

    directory = find_run(out, run_id)
    if directory.is_of_a_program():
        _resume_program(directory, nsys)
        return
    with Interrupts() as interrupts, directory.locked():
        plan = directory.read_plan()
        left_to_export = not all((directory.path / f"{name}.sqlite").is_file() for name in directory.traces())
        choice = planned_collector(plan.collector, nsys or plan.settings.nsys, os.environ, needs_tool=left_to_export)
        manifest = Run.open(directory, choice, os.environ, say).resume(interrupts)
    print_result(directory, manifest)


def _resume_program(directory: RunDirectory, nsys: str | None) -> None:
    from runner.collectors.nsys.collector import local_folders
    from runner.collectors.nsys.tool import find_nsys
    from runner.launcher.outcome import print_program_result
    from runner.launcher.program import ProgramRun
    from runner.process.process import Interrupts

    with Interrupts() as interrupts, directory.locked():
        tool = find_nsys(nsys or directory.read_program_plan().settings.nsys, os.environ, folders=local_folders())
        manifest = ProgramRun.taken_up(directory, tool, os.environ, say).resume(interrupts)
    print_program_result(directory, manifest)
