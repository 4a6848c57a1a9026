"""``dsocr-profile review``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from analysis.domain.errors import CaptureError
from analysis.domain.names import visible
from runner.cli.options import Out, RunId
from runner.cli.output import say, tell, tell_command

if TYPE_CHECKING:
    from analysis.domain.annotations import Stage
    from runner.launcher.review import Review
    from runner.launcher.run_directory import RunDirectory

__all__ = ["review"]


def review(
    run_id: RunId,
    out: Out = Path("reports"),
    stage: Annotated[
        Literal["both", "prefill", "decode"], typer.Option(help="What of the run is profiled again.")
    ] = "both",
    kernels: Annotated[
        int, typer.Option(min=0, help="Kernels that get sections (about 6 s each); 0: only the census.")
    ] = 16,
    budget_s: Annotated[
        float | None,
        typer.Option(min=1, metavar="SECONDS", help="Seconds for Nsight Compute; what is counted until then is kept."),
    ] = None,
    ncu: Annotated[
        str | None, typer.Option(metavar="PATH", help="The ncu to use (default: $NCU, else the newest).")
    ] = None,
    counters: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="FILE|FOLDER",
            help="Join this counter file, or those of this folder, and run nothing; may be repeated.",
        ),
    ] = None,
    keep_report: Annotated[
        bool, typer.Option("--keep-report", help="Keep the .ncu-rep files: they name the machine.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait while another run holds the device.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the exact commands and start nothing.")] = False,
) -> None:
    """Profile a finished run's kernels with Nsight Compute and join the counters to its trace: review.html."""
    from runner.launcher.queue import find_run
    from runner.launcher.review import Review, ReviewOptions, join, outline, require_reviewable

    directory = find_run(out, run_id)
    if counters:
        from analysis.domain.errors import RequestError
        from runner.process.process import Interrupts

        plan, _ = require_reviewable(directory)
        for file in counters:
            if not (file.is_file() or file.is_dir()):
                raise RequestError(f"--from {file}: no such file or folder")
        with Interrupts() as interrupts, directory.locked():
            join(directory, [file.absolute() for file in counters], plan, os.environ, interrupts, say)
        _print_result(directory)
        return
    from runner.collectors.ncu.tool import find_ncu
    from runner.collectors.nsys.collector import local_folders

    require_reviewable(directory)  # before ncu is looked for: what is wrong with the run is said first
    stages = cast("tuple[Stage, ...]", ("prefill", "decode") if stage == "both" else (stage,))
    options = ReviewOptions(stages, kernels, budget_s, keep_report, wait)
    try:
        tool = find_ncu(ncu, os.environ, folders=local_folders())
    except CaptureError as error:
        if ncu is not None or not dry_run:
            raise
        for line in outline(directory, options):
            tell(f"# {line}")
        tell(f"# missing: {error}")
        return
    work = Review.open(directory, options, tool, os.environ, say)
    if dry_run:
        _print_commands(work)
        return
    _carry_out(work, directory)


def _carry_out(work: Review, directory: RunDirectory) -> None:
    from runner.process.process import Interrupts

    total = work.estimate_s()
    budget = "" if work.options.budget_s is None else f", ended after {work.options.budget_s:g} s (--budget-s)"
    say(f"ncu: {work.tool.path} (version {work.tool.version}); about {total / 60:.1f} min in all{budget}")
    for note in work.notes:
        say(f"warning: not counted: {note}")
    with Interrupts() as interrupts:
        work.carry_out(interrupts, lambda: _print_result(directory))


def _print_commands(work: Review) -> None:
    tell(f"# about {work.estimate_s() / 60:.1f} min with ncu {work.tool.version}")
    for layer in work.layers:
        tell(f"# {layer.name}: {layer.kernels:,} kernels")
    for command in work.commands():
        tell_command(command)


def _print_result(directory: RunDirectory) -> None:
    """Print the review's essence; names in it are the profiled program's own words, shown as plain text."""
    from rich.console import Console
    from rich.text import Text

    from runner.process.program_log import log_text

    log = directory.log("review")
    if log.is_file():
        # The analysis is a program of its own; its last lines say where review.html is.
        lines = log_text(log).rstrip().splitlines()
        Console(highlight=False).print(Text("\n".join(map(visible, lines))), soft_wrap=True)
