"""``dsocr-analyze gate``: hold a new run against a base by the limits of a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.api.options import AnalysisOptions
from analysis.cli.options import OF_A_COMPARISON, with_options
from analysis.cli.progress import progress
from analysis.domain.errors import GateFailedError, GateUndecidedError
from analysis.domain.figures import counted

__all__ = ["gate"]


@with_options(*OF_A_COMPARISON)
def gate(
    base: Annotated[
        Path,
        typer.Argument(metavar="BASE", readable=False, help="Run folder, report.json or trace to compare with."),
    ],
    new: Annotated[Path, typer.Argument(metavar="NEW", readable=False, help="The one to judge.")],
    policy: Annotated[
        Path,
        typer.Option("--policy", metavar="FILE", readable=False, help="Limits, as TOML (docs/gate.md has every key)."),
    ],
    options: AnalysisOptions,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write gate.md, gate.json, gate.junit.xml and gate.benchmark.json there; default: write nothing.",
        ),
    ] = None,
    band: Annotated[
        Path | None,
        typer.Option(
            "--band",
            metavar="FILE",
            readable=False,
            help="By how much unchanged runs differ on this machine: the bands.json of dsocr-profile ab.",
        ),
    ] = None,
    all_checks: Annotated[bool, typer.Option("--all", help="Print the limits that were kept to as well.")] = False,
) -> None:
    """Hold NEW against BASE by the limits of a policy. Exit 0: passed; 20: a limit is exceeded; 21: cannot judge.

    Raises:
        GateFailedError: a limit is exceeded.
        GateUndecidedError: none is, and one cannot be judged, which the policy does not count as passed or failed.
    """
    from analysis.gate.policy import read_policy

    rules = read_policy(policy)  # before the runs are read: a mistake in it is told at once
    with progress() as say:
        say("reading")
        from analysis.api.sides import read_sides
        from analysis.compare.bands import read_bands
        from analysis.compare.comparison import compare
        from analysis.gate.judging import bands_of_policy, judge
        from analysis.render import answers
        from analysis.render.gate.terminal import print_gate
        from analysis.render.gate.writing import write_gate

        sides = read_sides((base, new), options)
        medians = {name: stage.unprofiled_ns for name, stage in sides[0].stages.items()}
        bands = read_bands(band, sides) if band is not None else {}
        bands |= bands_of_policy(rules, {name: ns for name, ns in medians.items() if ns is not None})
        say("comparing")
        comparison = compare(sides[0], sides[1], bands)
        result = judge(rules, comparison, sides[0].report, sides[1].report)
        written = write_gate(result, comparison.stages, out) if out is not None else ()
    print_gate(result, answers.console(), written, all_checks=all_checks)
    failed, undecided = len(result.of("failed")), len(result.of("cannot judge"))
    numbers = f"{counted(len(result.checks), 'limit')} checked, {failed} exceeded, {undecided} cannot be judged"
    if result.outcome == "failed":
        raise GateFailedError(f"the gate failed: {numbers}")
    if result.outcome == "cannot judge":
        raise GateUndecidedError(f"the gate cannot judge: {numbers}")
