"""What the single-question commands print: findings, kernels, derivations, and where the report went."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from analysis.domain.convert import to_json
from analysis.domain.entities import KernelSummary
from analysis.domain.figures import count
from analysis.domain.names import json_visible
from analysis.quality.findings import Finding
from analysis.render.spec import kernels, utilisation
from analysis.render.spec.shown import shown
from analysis.render.spec.specification import Specification
from analysis.render.spec.text import visible
from analysis.render.terminal_tables import FittedTable
from analysis.report import Report

__all__ = [
    "console",
    "print_explanation",
    "print_findings",
    "print_kernels",
    "print_remark",
    "print_table",
    "print_written",
]

_SEVERITY_STYLE = {"unfit": "bold red", "warning": "bold yellow", "info": "dim"}
_PIPE_WIDTH = 160
"""Columns where nobody watches: a table folded at 80 cannot be mended afterwards."""


def console() -> Console:
    """Standard output; where it is no terminal as wide as $COLUMNS says, else wide."""
    stated = os.environ.get("COLUMNS", "")
    width = int(stated) if stated.isdecimal() and int(stated) else _PIPE_WIDTH
    return Console(highlight=False, width=None if sys.stdout.isatty() else width)


def print_written(paths: Sequence[Path]) -> None:
    """Name the files, the one to open first on a line of its own."""
    first = next((path for path in paths if path.suffix == ".html"), paths[0] if paths else None)
    if first is None:
        return
    console().print(Text(f"Report: {visible(str(first))}", style="bold"), soft_wrap=True)
    others = sorted(path.name for path in paths if path != first)
    if others:
        console().print(Text(f"Beside it: {', '.join(others)}", style="dim"), soft_wrap=True)


def print_remark(text: str) -> None:
    """Print on standard error what the user should know of what was done."""
    Console(stderr=True, highlight=False).print(Text(f"dsocr-analyze: note: {visible(text)}"), soft_wrap=True)


def print_explanation(report: Report) -> None:
    """Print the arithmetic behind MFU and MBU, or why there is none."""
    to = console()
    labels: dict[str, list[str]] = {}  # one reason, said once for all that it is the reason of
    for row in report.utilisation:
        words = row.derivation or f"n/a: {row.unknown_because or 'unknown'}"
        labels.setdefault(words, []).append(f"{row.stage}, {utilisation.TIME_BASES[row.time_base]}")
    for words, rows in labels.items():
        named = "every stage" if len(labels) == 1 and len(rows) > 1 else "; ".join(rows)
        to.print(Text.assemble((f"{named}: ", "dim"), visible(words)), soft_wrap=True)


def print_findings(findings: Sequence[Finding], *, as_json: bool = False) -> None:
    """Print the capture's findings alone."""
    if as_json:
        sys.stdout.write(json_visible(to_json(list(findings))) + "\n")
        return
    to = console()
    if not findings:
        to.print("Nothing speaks against trusting this capture.")
    for finding in findings:
        to.print(Text.assemble((f"{finding.severity}: ", _SEVERITY_STYLE[finding.severity]), visible(finding.title)))
        to.print(Text(f"  evidence: {visible(finding.evidence)}"))
        to.print(Text(f"  remedy:   {visible(finding.remedy)}"))


def print_table(spec: Specification[Any], rows: Sequence[Any], *, total: bool) -> None:
    """Print rows as aligned text, as wide as the terminal is.

    Args:
        spec: of the rows.
        rows: in order.
        total: whether a last row adds up what adds up.
    """
    console().print(FittedTable(shown(spec, rows, "terminal", total=total), title=False))


def print_kernels(rows: Sequence[KernelSummary], altogether: int) -> None:
    """Print kernels, one line each.

    Args:
        rows: to print.
        altogether: how many there are, with those that are not printed.
    """
    to = console()
    # A grid and a block belong to one launch shape; rows over several say how many.
    several = any(row.shapes > 1 for row in rows)
    leave_out = ("grid", "block") if several else ("shapes",)
    to.print(FittedTable(shown(kernels.KERNELS, rows, "terminal", leave_out=leave_out), title=False))
    if altogether > len(rows):
        to.print(f"{count(altogether - len(rows))} more; --top shows them")
