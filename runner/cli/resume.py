"""``dsocr-profile resume``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.options import NoHistory, Nsys, Out, RunId, StoreAt
from runner.cli.output import say

if TYPE_CHECKING:
    from runner.launcher.run_directory import RunDirectory

__all__ = ["resume"]


def resume(
    run_id: RunId,
    out: Out = Path("reports"),
    nsys: Nsys = None,
    no_history: NoHistory = False,
    store: StoreAt = None,
) -> None:
    """Go on at import, export or analysis after the cause of a failure has been removed."""
    from runner.collectors.choosing import planned_collector
    from runner.launcher.outcome import print_result
    from runner.launcher.outside import set_damaged_aside
    from runner.launcher.queue import find_run
    from runner.launcher.recording import with_history
    from runner.launcher.run import Run
    from runner.process.process import Interrupts

    environ = with_history(os.environ, no_history=no_history, store=store)
    directory = find_run(out, run_id)
    directory.require_own()  # before its lock is touched
    if directory.is_of_a_program():
        _resume_program(directory, nsys, environ)
        return
    with Interrupts() as interrupts, directory.locked():
        plan = directory.read_plan()
        set_damaged_aside(directory, directory.traces(), say)
        left_to_export = not all((directory.path / f"{name}.sqlite").is_file() for name in directory.traces())
        choice = planned_collector(plan.collector, nsys or plan.settings.nsys, environ, needs_tool=left_to_export)
        manifest = Run.open(directory, choice, environ, say).resume(interrupts)
    print_result(directory, manifest)


def _resume_program(directory: RunDirectory, nsys: str | None, environ: Mapping[str, str]) -> None:
    from runner.collectors.nsys.collector import local_folders
    from runner.collectors.nsys.tool import find_nsys
    from runner.launcher.outcome import print_program_result
    from runner.launcher.program import ProgramRun
    from runner.process.process import Interrupts

    with Interrupts() as interrupts, directory.locked():
        tool = find_nsys(nsys or directory.read_program_plan().settings.nsys, environ, folders=local_folders())
        manifest = ProgramRun.taken_up(directory, tool, environ, say).resume(interrupts)
    print_program_result(directory, manifest)
