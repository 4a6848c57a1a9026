"""``dsocr-analyze table``: one table of GPU time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from analysis.api.options import AnalysisOptions
from analysis.cli.options import OF_A_TABLE, StageChoice, TableFormat, TraceFile, with_options
from analysis.cli.progress import progress

if TYPE_CHECKING:
    from analysis.attribution.attribution import Attribution
    from analysis.render.spec.specification import Specification

__all__ = ["By", "table"]

By: TypeAlias = Literal["stage", "instance", "step", "module", "range", "kernel", "range-kernel", "range-projection"]
"""What a row is: `analysis.sums.tables.TableKind` and the two tables of ranges that Nsight Systems has too."""


@with_options(*OF_A_TABLE)
def table(
    trace: TraceFile,
    options: AnalysisOptions,
    by: Annotated[
        By,
        typer.Option(
            "--by",
            help="What a row is. stage to module and kernel add up; range is inclusive; range-kernel has the rows of "
            "nsys stats' nvtx_kern_sum, range-projection those of its nvtx_gpu_proj_sum.",
        ),
    ] = "stage",
    stage: Annotated[StageChoice | None, typer.Option("--stage", help="Keep this stage's operations only.")] = None,
    output: Annotated[TableFormat, typer.Option("--format", help="How it is written.")] = "md",
) -> None:
    """Print one table of GPU time, integers in ns, to standard output."""
    from analysis.api.opening import opened
    from analysis.render.table import write_table

    with opened(trace, options) as analysed, progress() as say:
        say("reading")
        analysed.require_fitness(of_ranges=by != "kernel" or stage is not None)
        spec, rows = _made(analysed.attribution, by, stage)
    write_table(spec, rows, output, sys.stdout)


def _made(attribution: Attribution, by: By, stage: StageChoice | None) -> tuple[Specification[Any], Sequence[Any]]:
    """The table's declaration, and its rows."""
    from analysis.render.spec.gpu_time import GPU_TIME
    from analysis.render.spec.ranges import PROJECTIONS, RANGE_KERNELS
    from analysis.sums.range_kernels import projection_rows, range_kernel_rows
    from analysis.sums.stages import gpu_rows
    from analysis.sums.tables import gpu_table

    if by == "range-kernel":
        return RANGE_KERNELS, range_kernel_rows(attribution, stage)
    if by == "range-projection":
        return PROJECTIONS, projection_rows(attribution, stage)
    return GPU_TIME[by], gpu_rows(gpu_table(attribution, by, stage=stage))
