"""``dsocr-analyze table``: one table of GPU time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from analysis.api.options import AnalysisOptions
from analysis.cli.matching import matching, nothing_of
from analysis.cli.options import OF_A_TABLE, StageChoice, TableFormat, TraceFile, with_options
from analysis.cli.progress import progress
from analysis.domain.errors import RequestError

if TYPE_CHECKING:
    from analysis.api.opening import OpenedTrace
    from analysis.attribution.attribution import Attribution
    from analysis.render.spec.specification import Specification
    from analysis.sums.tables import TableKind

__all__ = ["By", "table"]

By: TypeAlias = Literal[
    "stage", "instance", "step", "module", "range", "kernel", "kernel-module", "range-kernel", "range-projection"
]
"""What a row is: `analysis.sums.tables.TableKind`, kernels by module, and the two tables of ranges that Nsight Systems has."""


@with_options(*OF_A_TABLE)
def table(
    trace: TraceFile,
    options: AnalysisOptions,
    by: Annotated[
        By,
        typer.Option(
            "--by",
            help="What a row is. stage to module, kernel and kernel-module (which module launches which kernel in which "
            "launch shape) add up; range is inclusive; range-kernel has the rows of nsys stats' nvtx_kern_sum, "
            "range-projection those of its nvtx_gpu_proj_sum.",
        ),
    ] = "stage",
    stage: Annotated[StageChoice | None, typer.Option("--stage", help="Keep this stage's operations only.")] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="With --by kernel-module: every layer on its own, not layers.*.mlp.")
    ] = False,
    names: Annotated[
        bool,
        typer.Option("--names", help="With --by kernel-module: a row per kernel name, its launch shapes together."),
    ] = False,
    match: Annotated[str | None, typer.Option("--match", help="Rows one of whose names holds this text.")] = None,
    output: Annotated[TableFormat, typer.Option("--format", help="How it is written.")] = "text",
) -> None:
    """Print one table of GPU time to standard output: aligned text, or with integers in ns as Markdown, CSV or JSON.

    Raises:
        NothingMatchesError: no row matches.
        RequestError: an option was given that does not go with the table.
        ResultError: a figure cannot be.
    """
    if (layers or names) and by != "kernel-module":
        raise RequestError(f"{'--layers' if layers else '--names'} goes with --by kernel-module only")
    from analysis.api.opening import opened
    from analysis.consistency import bounds_of
    from analysis.domain.measures import require_possible
    from analysis.render import answers
    from analysis.render.table import write_table
    from analysis.sums.grouping import UNATTRIBUTED

    with opened(trace, options) as analysed, progress() as say:
        say("reading")
        analysed.require_fitness(of_ranges=by != "kernel" or stage is not None)
        spec: Specification[Any]
        rows: Sequence[Any]
        if by == "kernel-module":
            spec, rows = _by_module(analysed, stage, layers, names)
        else:
            spec, rows = _made(analysed.attribution, by, stage)
        require_possible(rows, "the table", bounds_of(analysed.attribution))
        shown = matching(rows, match, _names(spec), "row")
        if output == "text" and not shown:
            of_stages = _made(analysed.attribution, "stage", None)[1]
            present = [row.name for row in of_stages if row.name != UNATTRIBUTED]
            raise nothing_of(stage, present, "GPU operation")
        analysed.require_unchanged()
    if output == "text":
        answers.print_table(spec, shown, total=not by.startswith("range"))
    else:
        write_table(spec, shown, output, sys.stdout)


def _names(spec: Specification[Any]) -> Callable[[Any], Iterable[str]]:
    """What a row is called: its identifiers, then its other words."""
    columns = sorted(
        (column for column in spec.columns if column.type == "string"), key=lambda column: not column.style.code
    )
    return lambda row: [text for column in columns if (text := column.value(row))]


def _by_module(
    analysed: OpenedTrace, stage: StageChoice | None, layers: bool, names: bool
) -> tuple[Specification[Any], Sequence[Any]]:
    """The table of kernels by module: its declaration, and its rows."""
    from analysis.domain.overhead import decode_unit
    from analysis.render.spec.kernels import KERNEL_MODULES
    from analysis.sums.kernel_modules import kernel_module_rows, stage_units, unit_of_input
    from analysis.sums.kernels import kernels_of
    from analysis.sums.stages import instance_summaries

    manifest, attribution = analysed.manifest, analysed.attribution
    units = stage_units(
        instance_summaries(attribution),
        unit_of_input(manifest, attribution.choice.vocabulary.name),
        decode_unit(manifest.batch_size if manifest else 1),
    )
    kernels = kernels_of(analysed.trace, attribution, manifest).by_name
    rows = kernel_module_rows(attribution, kernels, units, fold_layers=not layers, by_shape=not names)
    return KERNEL_MODULES, [row for row in rows if stage is None or row.stage == stage]


def _made(
    attribution: Attribution, by: TableKind | Literal["range-kernel", "range-projection"], stage: StageChoice | None
) -> tuple[Specification[Any], Sequence[Any]]:
    """The table's declaration, and its rows."""
    from analysis.render.spec.gpu_time import GPU_TIME, of_stages
    from analysis.render.spec.ranges import PROJECTIONS, RANGE_KERNELS
    from analysis.sums.range_kernels import projection_rows, range_kernel_rows
    from analysis.sums.stages import gpu_rows
    from analysis.sums.tables import gpu_table

    if by == "range-kernel":
        return RANGE_KERNELS, range_kernel_rows(attribution, stage)
    if by == "range-projection":
        return PROJECTIONS, projection_rows(attribution, stage)
    rows = gpu_rows(gpu_table(attribution, by, stage=stage))
    return of_stages(rows) if by == "stage" else GPU_TIME[by], rows
