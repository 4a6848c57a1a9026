"""``dsocr-profile exec``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from runner.cli.options import NoHistory, Out, StoreAt, with_settings
from runner.cli.output import say, tell, tell_command
from runner.plan.program import ExecSettings

if TYPE_CHECKING:
    from runner.launcher.program import ProgramRun

__all__ = ["EXAMPLES", "exec_program"]

EXAMPLES: Final = """
Examples:

A script: dsocr-profile exec -- python3 generate.py

Only between cudaProfilerStart and cudaProfilerStop, with two runs alone:
dsocr-profile exec --control 2 --capture cuda-profiler-api -- python3 generate.py

vLLM: dsocr-profile exec --ready-url http://127.0.0.1:8000/health --start-url http://127.0.0.1:8000/start_profile
--stop-url http://127.0.0.1:8000/stop_profile --load 'python3 client.py'
-- vllm serve MODEL --profiler-config.profiler cuda

SGLang: dsocr-profile exec --ready-url http://127.0.0.1:30000/health --start-url http://127.0.0.1:30000/start_profile
--start-body '{"activities": ["CUDA_PROFILER"]}' --stop-url http://127.0.0.1:30000/stop_profile --load 'python3 client.py'
-- python3 -m sglang.launch_server --model-path MODEL

One report per rank: dsocr-profile exec --ranks 2 -- torchrun --nproc-per-node 2 train.py

docs/any-program.md explains them.
"""


@with_settings(ExecSettings)
def exec_program(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND...", help="The program and its arguments, behind --.")
    ] = None,
    out: Out = Path("reports"),
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another run holds the device.", rich_help_panel="The run")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the exact commands and start nothing.", rich_help_panel="The run")
    ] = False,
    no_history: NoHistory = False,
    store: StoreAt = None,
    *,
    settings: ExecSettings,
) -> None:
    """Profile any program: capture, lossless stop, export without secrets, report."""
    from runner.collectors.nsys.collector import local_folders
    from runner.collectors.nsys.tool import find_nsys
    from runner.launcher.outcome import print_program_result
    from runner.launcher.program import prepare_program
    from runner.launcher.recording import with_history
    from runner.launcher.run_directory import require_safe_place
    from runner.process.driver import driver_facts
    from runner.process.process import Interrupts

    environ = with_history(os.environ, no_history=no_history, store=store)
    tool = find_nsys(settings.nsys, environ, folders=local_folders())
    made = prepare_program(command or (), settings, tool, driver_facts(), out, environ, say, programs_missing=dry_run)
    if dry_run:
        require_safe_place(out.expanduser().absolute(), say)
        _print_commands(made)
        return
    for warning in made.nsys.options.warnings:
        say(f"warning: {warning}")
    with Interrupts() as interrupts:
        manifest = made.start(interrupts, wait=wait)
    print_program_result(made.directory, manifest)


def _print_commands(made: ProgramRun) -> None:
    from runner.process.environment import program_environment

    names = sorted(program_environment(made.environ, keep=made.settings.keep_env))
    tell(f"# only these variables are passed on: {' '.join(names)}")
    for name, value in made.nsys.environment().items():
        tell(f"# set: {name}={value}")
    if made.settings.ranks > 1:
        tell(f"# {made.nsys.rank_script}, which starts each rank:")
        for line in made.script().splitlines():
            tell(f"#   {line}")
    for commands in made.commands().values():
        for command in commands:
            tell_command(command)
