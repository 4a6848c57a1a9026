"""What a finished run prints: the report's path and a table that fits a screen."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.contracts import LLMProfileReportSummary
from analysis.convert import from_json_file
from analysis.errors import RequestError
from analysis.manifest import RunManifest
from runner.overhead import WORTH_A_WARNING
from runner.run_directory import RunDirectory

__all__ = ["overhead_line", "print_result"]


def print_result(directory: RunDirectory, manifest: RunManifest) -> None:
    """Print to standard output. Names in it are the profiled program's own words: shown as plain text."""
    console = Console(highlight=False)
    summary_file = directory.path / "summary.json"
    if summary_file.is_file():
        try:
            console.print(_table(from_json_file(LLMProfileReportSummary, summary_file)))
        except RequestError as error:
            console.print(Text(str(error)))
    if manifest.model is not None and manifest.model.weights == "random":
        console.print("Weights are random.")
    line = overhead_line(manifest)
    if line is not None:
        console.print(Text(line))
    if manifest.status != "complete":
        console.print(Text(f"The run is {manifest.status}: {manifest.error}"))
    report = next(
        (directory.path / name for name in ("report.html", "report.md") if (directory.path / name).is_file()), None
    )
    console.print(Text(f"Report: {report or directory.path}"), soft_wrap=True)


def overhead_line(manifest: RunManifest) -> str | None:
    """Say what profiling cost, and name the lighter preset where it was much; None if it was not measured."""
    factors = {
        stage: value
        for stage in ("prefill", "decode")
        if isinstance(value := manifest.options.get(f"overhead_{stage}"), float)
    }
    if not factors:
        return None
    line = "Under the profiler: " + ", ".join(f"{stage} took {factor:.2f}×" for stage, factor in factors.items())
    line += " the time that it takes alone."
    if max(factors.values()) > WORTH_A_WARNING and manifest.preset not in (None, "light"):
        line += " Read latencies from the control run; --preset light marks less."
    return line


def _table(summary: LLMProfileReportSummary) -> Table:
    table = Table(title=f"run {summary.run_id}", title_justify="left", show_edge=False)
    table.add_column("")
    table.add_column("mean", justify="right")
    table.add_column("std", justify="right")
    for name, stats in summary.aggregates.items():
        table.add_row(Text(name), f"{stats.mean:,.3f}", f"{stats.std:,.3f}")
    for stage, mfu in summary.mfu_per_stage.items():
        table.add_row(Text(f"MFU {stage}"), "n/a" if mfu is None else f"{mfu:.2%}", "")
    for operator in summary.top_operators[:5]:
        table.add_row(Text(f"{operator.op_name} × {operator.calls:,}"), f"{operator.total_time_ms:,.3f} ms", "")
    return table
