"""``dsocr-analyze report``: write the whole report, of one trace or of the ranks of a run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from analysis.api.options import AnalysisOptions
from analysis.cli.options import OF_A_REPORT, with_options
from analysis.cli.progress import progress
from analysis.domain.errors import RequestError

if TYPE_CHECKING:
    from analysis.api.opening import OpenedTrace
    from analysis.api.ranks import Ranks

__all__ = ["report"]

WORTH_FORKING: Final = 200_000
"""Operations of one file from which on its ranks are worked through by processes of their own. Of 578 k in five ranks the
process that read them then spends 1.3 s of CPU time and each of two workers 0.8, in place of 2.5 s one after the other."""


@with_options(*OF_A_REPORT)
def report(
    traces: Annotated[
        list[Path],
        typer.Argument(
            metavar="TRACE...",
            readable=False,
            help="What `nsys export --type sqlite` wrote, a run folder, or a .nsys-rep, which nsys then exports. Several, or a "
            "folder of traces: the ranks of one run, put side by side.",
        ),
    ],
    options: AnalysisOptions,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Directory for the report; default: reports/NAME/, where NAME is the trace's file name, or its run's "
            "or folder's if the file is called trace.sqlite or the like.",
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,  # typer has no lists of literals; the renderers know their names
        typer.Option("--format", help="markdown, json, html, parquet (these by default), csv, perfetto; repeatable."),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the arithmetic behind MFU and MBU too.")] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS",
            help="Of several traces: let the workers of this running Dask cluster read them, not processes of this machine.",
        ),
    ] = None,
) -> None:
    """Write the whole report and print its headline table."""
    if len(traces) > 1 or traces[0].is_dir():
        from analysis.api.ranks import rank_files

        files = rank_files(traces)
        if len(files) > 1:
            _of_files(files, options, out, formats, scheduler, explain)
            return
        traces = list(files)
    from analysis.api.opening import opened

    with opened(traces[0], options) as analysed, ExitStack() as shown:
        say = shown.enter_context(progress())
        say("reading")
        # All that follows the reading is imported here, while it goes on.
        from analysis.attribution.ranks import rank_places
        from analysis.cli.report_folder import claim
        from analysis.render import answers, terminal
        from analysis.render.formats import PageParts, load_formats, write_report

        load_formats(formats)
        ranks = len(rank_places(analysed.trace))
        if ranks > 1:
            shown.close()  # workers are forked, which no thread that shows progress may see
            _of_one_file(analysed, ranks, out, formats, explain)
            return
        with PageParts(formats) as parts:
            assembled = analysed.report(parts.begin_beside)
            folder, remark = claim(out, analysed.trace.path, analysed.manifest)
            say("writing")
            written = write_report(assembled, analysed.attribution, folder, formats, parts)
    if remark is not None:
        answers.print_remark(remark)
    terminal.print_headline(assembled, answers.console())
    if explain:
        answers.print_explanation(assembled)
    answers.print_written(written)


def _of_files(
    files: Sequence[Path],
    options: AnalysisOptions,
    out: Path | None,
    formats: list[str] | None,
    scheduler: str | None,
    explain: bool,
) -> None:
    """Ranks in files of their own, each read by a worker of its own."""
    from analysis.api.ranks import read_ranks
    from analysis.api.workers import dask_workers, local_workers
    from analysis.render.formats import DEFAULT_FORMATS, load_formats

    if options.rank is not None:
        raise RequestError("--rank chooses one of the ranks in one trace; of several traces name the one that is meant")
    load_formats(formats)
    chosen = tuple(formats or DEFAULT_FORMATS)
    # Workers first: they are forked while this process has no thread that shows its progress.
    with dask_workers(scheduler) if scheduler else local_workers(len(files)) as workers, progress() as say:
        say(f"reading {len(files)} traces")
        from analysis.api.ranks import together, write_ranks
        from analysis.cli.report_folder import claim_for_ranks
        from analysis.render.ranks.writing import write_combined

        parts = read_ranks(files, options, workers, chosen)
        say("pairing collectives")
        ranks = together(parts, one_clock=False)
        folder, remark = claim_for_ranks(out, [part.path for part in parts])
        say("writing")
        own, shared = write_ranks(ranks, folder, chosen, options, workers)
        written = (*write_combined(ranks.combined, folder, chosen), *shared)
    _tell(ranks, written, len(own), remark, explain)


def _of_one_file(
    analysed: OpenedTrace, number: int, out: Path | None, formats: list[str] | None, explain: bool
) -> None:
    """Several ranks in one file, which is open and read: of a large one workers that are forked now share it."""
    from analysis.api.ranks import read_ranks_of, together, write_ranks
    from analysis.api.workers import local_workers
    from analysis.cli.report_folder import claim
    from analysis.render.formats import DEFAULT_FORMATS
    from analysis.render.ranks.writing import write_combined

    chosen = tuple(formats or DEFAULT_FORMATS)
    large = len(analysed.trace.operations) >= WORTH_FORKING
    with local_workers(number if large else 1, shared=analysed) as workers, progress() as say:
        say(f"working through {number} ranks")
        ranks = together(read_ranks_of(analysed, workers, chosen), one_clock=True)
        folder, remark = claim(out, analysed.trace.path, analysed.manifest)
        say("writing")
        own, shared = write_ranks(ranks, folder, chosen, analysed.options, workers)
    written = (*write_combined(ranks.combined, folder, chosen), *shared)
    _tell(ranks, written, len(own), remark, explain)


def _tell(ranks: Ranks, written: Sequence[Path], own: int, remark: str | None, explain: bool) -> None:
    from analysis.render import answers
    from analysis.render.ranks.terminal import print_ranks

    if remark is not None:
        answers.print_remark(remark)
    print_ranks(ranks.combined, answers.console())
    for row, report in zip(ranks.combined.ranks, ranks.reports, strict=True):
        if explain:
            answers.console().print(f"rank {row.rank}:")
            answers.print_explanation(report)
    answers.print_written(written)
    answers.print_remark(
        f"each rank's own report is in {', '.join(row.folder for row in ranks.combined.ranks)} beside it ({own} files)"
    )
