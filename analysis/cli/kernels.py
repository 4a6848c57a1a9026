"""``dsocr-analyze kernels``: kernels by time."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from analysis.api.options import AnalysisOptions
from analysis.cli.matching import matching, nothing_of
from analysis.cli.options import OF_A_TABLE, StageChoice, TableFormat, TraceFile, with_options
from analysis.cli.progress import progress

__all__ = ["kernels"]


@with_options(*OF_A_TABLE, "kernel_rules")
def kernels(
    trace: TraceFile,
    options: AnalysisOptions,
    stage: Annotated[StageChoice | None, typer.Option("--stage", help="Kernels of this stage only.")] = None,
    match: Annotated[
        str | None, typer.Option("--match", help="Kernels whose name or category holds this text.")
    ] = None,
    shapes: Annotated[
        bool, typer.Option("--shapes", help="A row per launch shape instead of one per kernel name.")
    ] = False,
    top: Annotated[int, typer.Option("--top", help="How many rows.", min=1)] = 20,
    output: Annotated[TableFormat, typer.Option("--format", help="How it is written.")] = "text",
) -> None:
    """List kernels by time: calls, durations, shape, occupancy.

    Raises:
        NothingMatchesError: no kernel matches.
        ResultError: a figure cannot be.
    """
    from analysis.api.opening import opened
    from analysis.consistency import bounds_of
    from analysis.domain.measures import require_possible
    from analysis.render import answers
    from analysis.render.spec.kernels import KERNELS
    from analysis.render.table import write_table
    from analysis.sums.grouping import UNATTRIBUTED
    from analysis.sums.kernels import kernels_of

    with opened(trace, options) as analysed, progress() as say:
        say("reading")
        analysed.require_fitness(of_ranges=stage is not None)
        tables = kernels_of(analysed.trace, analysed.attribution, analysed.manifest, options.kernel_rules)
        rows = tables.by_shape if shapes else tables.by_name
        require_possible(rows, "the table of kernels", bounds_of(analysed.attribution))
        analysed.require_unchanged()
    of_stage = [row for row in rows if stage is None or row.stage == stage]
    wanted = matching(of_stage, match, lambda row: (row.short_name, row.name, row.category), "kernel")
    if output == "text":
        if not wanted:
            raise nothing_of(
                stage, list(dict.fromkeys(row.stage for row in rows if row.stage != UNATTRIBUTED)), "kernel"
            )
        answers.print_kernels(wanted[:top], len(wanted))
    else:
        write_table(KERNELS, wanted[:top], output, sys.stdout)
