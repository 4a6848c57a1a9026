"""``dsocr-analyze review``: the kernels of a trace with the counters of a profile by Nsight Compute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.api.options import AnalysisOptions
from analysis.cli.options import OF_A_REPORT, TraceFile, with_options
from analysis.cli.progress import progress

__all__ = ["review"]


@with_options(*(name for name in OF_A_REPORT if name != "skip_first"))
def review(
    trace: TraceFile,
    options: AnalysisOptions,
    counters: Annotated[
        list[Path],
        typer.Option(
            "--counters",
            readable=False,
            help="What Nsight Compute collected of the same program: a .ncu-rep, or the CSV of `ncu --import REPORT --page raw "
            "--csv --print-units base`, plain or packed (.csv.xz, .csv.gz), or a folder of such files; repeatable.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Directory for the review; default: that of the trace's report, reports/NAME/."),
    ] = None,
) -> None:
    """Join kernel counters with the trace: rooflines, why kernels are slow, where the time is lost, what to do first."""
    from analysis.api.opening import opened

    with opened(trace, options) as analysed, progress() as say:
        say("reading")
        from analysis.api.counter_files import counter_paths, open_counters  # imported while the trace is being read
        from analysis.cli.report_folder import claim
        from analysis.render.review.writing import write_review
        from analysis.review import review as assemble

        files = [open_counters(path) for path in counter_paths(counters)]
        assembled = analysed.report()
        say("joining")
        reviewed = assemble(
            analysed.trace,
            analysed.attribution,
            analysed.manifest,
            assembled,
            files,
            options.report_options(),
        )
        analysed.require_unchanged()
        folder, remark = claim(out, analysed.trace.path, analysed.manifest)
        say("writing")
        written = write_review(reviewed, assembled, folder)
    from analysis.render import answers
    from analysis.render.review.terminal import print_review

    if remark is not None:
        answers.print_remark(remark)
    print_review(reviewed, assembled, answers.console())
    answers.print_written(written)
