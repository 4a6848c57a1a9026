"""``dsocr-analyze check``: can this capture be trusted?"""

from __future__ import annotations

from typing import Annotated

import typer

from analysis.api.options import AnalysisOptions
from analysis.cli.options import TraceFile, with_options
from analysis.cli.progress import progress

__all__ = ["check"]


@with_options("manifest")
def check(
    trace: TraceFile,
    options: AnalysisOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
) -> None:
    """Print what speaks for and against trusting the capture; exit 4 if it is unfit."""
    from analysis.api.opening import opened

    with opened(trace, options) as analysed, progress() as say:
        say("reading")
        from analysis.render import answers

        findings = analysed.findings
        analysed.require_unchanged()
    answers.print_findings(findings, as_json=as_json)
    analysed.refuse_unfit(findings)
