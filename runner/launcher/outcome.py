"""What a finished run prints: the report's own headline, and what profiling cost."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from analysis.domain.figures import times
from analysis.domain.manifest import RunManifest
from analysis.domain.overhead import run_overheads, worth_a_warning
from runner.launcher.run_directory import RunDirectory

__all__ = ["overhead_line", "print_result"]


def print_result(directory: RunDirectory, manifest: RunManifest) -> None:
    """Print to standard output. Names in it are the profiled program's own words: shown as plain text."""
    console = Console(highlight=False)
    headline = directory.log("analysis")
    if manifest.exit_codes.analysis == 0 and headline.is_file():
        # The analysis is a program of its own, and has put the names that it prints beyond harm.
        console.print(Text(headline.read_text(encoding="utf-8", errors="replace").rstrip()), soft_wrap=True)
    line = overhead_line(manifest)
    if line is not None:
        console.print(Text(line))
    if manifest.status != "complete":
        console.print(Text(f"The run is {manifest.status}: {manifest.error}"))
    if manifest.exit_codes.analysis != 0:
        console.print(Text(f"Artefacts: {directory.path}"), soft_wrap=True)


def overhead_line(manifest: RunManifest) -> str | None:
    """Say what profiling cost, and name the lighter preset where it was much; None if it was not measured."""
    measured = run_overheads(manifest)
    if not measured:
        return None
    line = "Under the profiler: " + ", ".join(
        f"{overhead.stage} took {times(overhead.factor)}" for overhead in measured
    )
    line += " the time that it takes alone."
    if any(worth_a_warning(overhead) for overhead in measured) and manifest.preset not in (None, "light"):
        line += (
            " Read latencies from the control run; --preset light marks less (what costs how much: docs/capture.md)."
        )
    return line
