"""``dsocr-analyze report``: write the whole report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.api.options import AnalysisOptions
from analysis.cli.options import OF_A_REPORT, TraceFile, with_options
from analysis.cli.progress import progress

__all__ = ["report"]


@with_options(*OF_A_REPORT)
def report(
    trace: TraceFile,
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
) -> None:
    """Write the whole report and print its headline table."""
    from analysis.api.opening import opened

    with opened(trace, options) as analysed, progress() as say:
        say("reading")
        # All that follows the reading is imported here, while it goes on.
        from analysis.cli.report_folder import claim
        from analysis.render import answers, terminal
        from analysis.render.formats import load_formats, write_report

        load_formats(formats)
        assembled = analysed.report()
        folder, remark = claim(out, analysed.trace.path, analysed.manifest)
        say("writing")
        written = write_report(assembled, analysed.attribution, folder, formats)
    if remark is not None:
        answers.print_remark(remark)
    terminal.print_headline(assembled, answers.console())
    if explain:
        answers.print_explanation(assembled)
    answers.print_written(written)
