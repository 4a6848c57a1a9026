"""``dsocr-analyze show``: the report's essence on the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.api.options import AnalysisOptions
from analysis.cli.options import OF_A_REPORT, TraceFile, with_options
from analysis.cli.progress import progress

__all__ = ["show"]


@with_options(*OF_A_REPORT)
def show(
    trace: TraceFile,
    options: AnalysisOptions,
    explain: Annotated[bool, typer.Option("--explain", help="Print the arithmetic behind MFU and MBU.")] = False,
) -> None:
    """Print the report's essence to the terminal; write nothing."""
    from analysis.api.opening import opened

    with opened(trace, options) as analysed, progress() as say:
        say("reading")
        from analysis.render import answers, terminal  # imported while the trace is being read

        assembled = analysed.report()
    terminal.print_report(assembled, answers.console())
    if explain:
        answers.print_explanation(assembled)
