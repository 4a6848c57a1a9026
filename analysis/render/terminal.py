"""The report's essence in the terminal, with rich."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.convert import to_json
from analysis.entities import KernelSummary
from analysis.render import facts
from analysis.render.text import NOT_AVAILABLE, count, decimal, duration, share, shortened, visible
from analysis.summaries import Finding, Report, StageSummary

__all__ = ["print_findings", "print_kernels", "print_summary", "print_written"]

_COLOURS = {"unfit": "bold red", "warning": "yellow", "info": "cyan"}


_PIPE_WIDTH = 200
"""Columns where nobody watches: a file or a pager cuts by itself, a table folded at 80 cannot be mended."""


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def _plain(text: str, style: str = "") -> Text:
    """Text that is never read as markup: names come from the trace."""
    return Text(visible(text), style=style)


def print_summary(report: Report, *, explain: bool = False) -> None:
    """Print what was run, the verdicts and one line per stage.

    Args:
        report: the report.
        explain: print the arithmetic behind MFU and MBU too.
    """
    console = _console()
    console.print(_plain(" · ".join(one.text for one in facts.subject(report)), "bold"))
    for caution in facts.cautions(report):
        console.print(_plain(caution, "yellow"))
    for finding in report.findings:
        if finding.severity != "info":
            console.print(
                _plain(f"{finding.severity}: {finding.title} – {finding.evidence}", _COLOURS[finding.severity])
            )
    console.print(_stage_table(report))
    for verdict in report.verdicts:
        console.print(_plain(f"{verdict.sentence} {verdict.ceiling}"))
    if explain:
        for row in report.utilisation:
            if row.derivation:
                console.print(_plain(f"{row.stage}, {row.time_base}: {row.derivation}"))


def _stage_table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for name in ("instances", "host elapsed", "GPU busy", "kernels", "kernel sum", "launches/token", "MFU", "MBU"):
        table.add_column(name, justify="right")
    for stage in report.stages:
        used = facts.preferred(report, stage.stage)
        table.add_row(
            stage.stage,
            count(stage.instances),
            duration(stage.host_elapsed_ns),
            f"{duration(stage.busy_ns)} ({share(stage.gpu_busy_share)})",
            count(stage.gpu.kernels),
            duration(stage.kernel_sum_ns),
            _per_token(stage),
            share(used.mfu) if used else NOT_AVAILABLE,
            share(used.mbu) if used else NOT_AVAILABLE,
        )
    rest = next((row for row in report.stage_rows if row.name == "(unattributed)"), None)
    if rest is not None and rest.busy_ns:
        table.add_row(
            "(unattributed)",
            "",
            "",
            duration(rest.busy_ns),
            count(rest.kernels),
            duration(rest.kernel_sum_ns),
            "",
            "",
            "",
        )
    return table


def _per_token(stage: StageSummary) -> str:
    if stage.stage != "decode" or not stage.tokens:
        return NOT_AVAILABLE
    return decimal(stage.launches / stage.tokens, 0)


def print_written(paths: Sequence[Path]) -> None:
    """Name the files, the one to open first on a line of its own."""
    first = next((path for path in paths if path.suffix == ".html"), paths[0] if paths else None)
    if first is None:
        return
    others = ", ".join(path.name for path in paths if path != first)
    _console().print(_plain(f"Report: {first}" + (f" (and {others})" if others else "")))


def print_findings(findings: Sequence[Finding], *, as_json: bool = False) -> None:
    """Print the capture's findings alone."""
    if as_json:
        sys.stdout.write(to_json(list(findings)) + "\n")
        return
    console = _console()
    if not findings:
        console.print("No findings: nothing speaks against trusting this capture.")
    for finding in findings:
        console.print(_plain(f"{finding.severity}: {finding.title}", _COLOURS[finding.severity]))
        console.print(_plain(f"  evidence: {finding.evidence}"))
        console.print(_plain(f"  remedy:   {finding.remedy}"))


def print_kernels(rows: Sequence[KernelSummary], found: int) -> None:
    """Print kernels, one line each."""
    console = _console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, right in (
        ("stage", False), ("calls", True), ("total", True), ("share", True), ("median", True), ("p95", True),
        ("occupancy", True), ("category", False), ("kernel", False),
    ):  # fmt: skip
        table.add_column(
            name, justify="right" if right else "left", overflow="fold" if name == "kernel" else "ellipsis"
        )
    for row in rows:
        table.add_row(
            row.stage,
            count(row.calls),
            duration(row.total_ns),
            share(row.share),
            duration(row.median_ns),
            duration(row.p95_ns),
            share(row.theoretical_occupancy),
            row.category,
            _plain(shortened(row.human_name or row.name, 80) + f" [{shortened(row.short_name, 60)}]"),
        )
    console.print(table)
    if found > len(rows):
        console.print(f"{found - len(rows):,} more; --top shows them")
