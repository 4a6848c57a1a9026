"""``dsocr-analyze diff``: what changed between two runs or more, by how much, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.api.options import AnalysisOptions
from analysis.cli.options import OF_A_COMPARISON, with_options
from analysis.cli.progress import progress

__all__ = ["diff"]


@with_options(*OF_A_COMPARISON)
def diff(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="BASE NEW...",
            readable=False,
            help="Run folders, traces in any form that report takes, or report.json files; every one is held against the first.",
        ),
    ],
    options: AnalysisOptions,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Directory for the comparison; default: reports/BASE-to-NEW/."),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="html, markdown, json (all by default); repeatable."),
    ] = None,
    band: Annotated[
        Path | None,
        typer.Option(
            "--band",
            metavar="FILE",
            readable=False,
            help="By how much unchanged runs differ on this machine, from `dsocr-profile ab X.json X.json`; default: assumed.",
        ),
    ] = None,
) -> None:
    """Say what became faster or slower between runs, whether it is real, and what the difference is made of."""
    from analysis.api.sides import read_sides

    with progress() as say:
        say("reading")
        from analysis.cli.report_folder import claim_for_diff
        from analysis.compare.bands import read_bands
        from analysis.render.compare.writing import check_formats, write_diff

        check_formats(formats)
        sides = read_sides(runs, options)
        bands = read_bands(band, sides) if band is not None else {}
        say("comparing")
        from analysis.compare.comparison import compare_all

        made = compare_all(sides, bands)
        folder, remark = claim_for_diff(out, runs, [side.label for side in sides])
        say("writing")
        written = write_diff(made, folder, formats)
    from analysis.render import answers
    from analysis.render.compare.terminal import print_diff

    if remark is not None:
        answers.print_remark(remark)
    print_diff(made, answers.console())
    answers.print_written(written)
