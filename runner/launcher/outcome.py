"""What a finished run prints: the report's own headline, and what profiling cost."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from analysis.domain.errors import RequestError
from analysis.domain.figures import times
from analysis.domain.manifest import RunManifest
from analysis.domain.names import one_line, visible
from analysis.domain.overhead import lighter_preset, noise_sentence, run_overheads, slower_profiled, worth_a_warning
from analysis.domain.program import ProgramManifest, wall_time_sentence, wall_times
from analysis.domain.reading import LARGEST_RESULT, json_of, read_bounded
from analysis.domain.redaction import redacted
from runner.launcher.progress import phases_line
from runner.launcher.run_directory import RunDirectory
from runner.launcher.texts import TEXT_PAGE
from runner.process.environment import own_secrets
from runner.process.program_log import log_text

__all__ = ["headline_of", "overhead_line", "print_program_result", "print_result"]

_PAGE: Final = "report.html"
_WRITTEN: Final = "Report: "
"""From this line on the analysis lists its files; the launcher ends with their place itself."""


def print_result(directory: RunDirectory, manifest: RunManifest) -> None:
    """Print to standard output. Names in it are the profiled program's own words: shown as plain text."""
    console = Console(highlight=False)
    headline = directory.log("analysis")
    if manifest.exit_codes.analysis == 0 and headline.is_file():
        # The analysis is a program of its own, and has put the names that it prints beyond harm.
        lines = log_text(headline).rstrip().splitlines()
        files = [number for number, line in enumerate(lines) if line.startswith(_WRITTEN)]
        console.print(_plain("\n".join(lines[: files[-1]] if files else lines)), soft_wrap=True)
    line = overhead_line(manifest)
    if line is not None:
        console.print(_plain(line), soft_wrap=True)
    took = phases_line(manifest.phases)
    if took is not None:
        console.print(_plain(took), soft_wrap=True)
    if manifest.partial is not None:
        told = "" if manifest.exit_codes.analysis != 0 else "; the report is of what was captured until then"
        console.print(_plain(f"The run is {manifest.status}: ended by {manifest.partial}{told}"), soft_wrap=True)
    elif manifest.status != "complete":
        console.print(_plain(f"The run is {manifest.status}: {manifest.error}"), soft_wrap=True)
    if manifest.exit_codes.analysis != 0:
        console.print(_plain(f"Artefacts: {one_line(str(directory.path))}"), soft_wrap=True)
        return
    text = directory.path / TEXT_PAGE
    if text.is_file():
        console.print(_plain(f"Text of the pages: {one_line(str(text))}"), soft_wrap=True)
    first = headline_of(directory)
    if first is not None:
        console.print()
        console.print(_plain(first), soft_wrap=True, style="bold")
    console.print(_plain(f"Report: {one_line(str(directory.path / _PAGE))}"), soft_wrap=True)
    latest = directory.path.parent / "latest"
    if latest.is_symlink() and latest.resolve() == directory.path.resolve():
        console.print(_plain(f"        {one_line(str(_from_here(latest / _PAGE)))}"), soft_wrap=True)


def _plain(text: str) -> Text:
    """A text of others for a terminal: its lines are its own, nothing in them acts."""
    return Text("\n".join(map(one_line, redacted(text, own_secrets()).split("\n"))))


def headline_of(directory: RunDirectory) -> str | None:
    """The report's first sentence, as the analysis wrote it; None: there is no report, or an older one."""
    file = directory.path / "summary.json"
    try:
        summary = json_of(read_bounded(file, LARGEST_RESULT), str(file))
    except RequestError:
        return None
    sentence = summary.get("headline") if isinstance(summary, dict) else None
    if not isinstance(sentence, str):
        return None
    return visible(sentence)  # names in it are the profiled program's own words


def _from_here(path: Path) -> Path:
    """The path as it is shortest to type: from the current folder where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def print_program_result(directory: RunDirectory, manifest: ProgramManifest) -> None:
    """Print what came of a run of any program."""
    console = Console(highlight=False)
    headline = directory.log("analysis")
    if manifest.exit_codes.analysis == 0 and headline.is_file():
        console.print(_plain(log_text(headline).rstrip()), soft_wrap=True)
    measured = wall_times(manifest)
    if measured is not None and manifest.exit_codes.analysis != 0:  # else the report said it
        console.print(_plain(wall_time_sentence(measured)), soft_wrap=True)
    took = phases_line(manifest.phases)
    if took is not None:
        console.print(_plain(took), soft_wrap=True)
    if manifest.partial is not None:
        console.print(
            _plain(
                f"The run is {manifest.status}: the program was ended by {manifest.partial}; what it captured is kept"
            ),
            soft_wrap=True,
        )
    code = manifest.exit_codes.child
    if manifest.ended_by_us and code:
        console.print(_plain(f"The server was ended after its load; it said exit code {code}."), soft_wrap=True)
    console.print(_plain(f"Traces and logs: {one_line(str(directory.path))}"), soft_wrap=True)


def overhead_line(manifest: RunManifest) -> str | None:
    """Say what profiling cost, and name the lighter preset where it was much; None if it was not measured.

    A stage that was faster under the profiler is said to be noise, not a cost.
    """
    measured = run_overheads(manifest)
    if not measured:
        return None
    sentences = []
    if slower := [overhead for overhead in measured if slower_profiled(overhead)]:
        took = ", ".join(f"{overhead.stage} took {times(overhead.factor)}" for overhead in slower)
        sentences.append(f"Under the profiler: {took} the time that it takes alone.")
    if noise := noise_sentence(measured):
        sentences.append(noise)
    lighter = lighter_preset(manifest.preset)
    if lighter is not None and any(worth_a_warning(overhead) for overhead in measured):
        sentences.append(
            f"Read latencies from the control run; --preset {lighter} marks less (what costs how much: docs/capture.md)."
        )
    return " ".join(sentences)
