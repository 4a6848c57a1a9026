"""The report in one screenful of a terminal."""

from __future__ import annotations

from typing import Final

from attrs import evolve
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from analysis.render.spec import facts, predictions
from analysis.render.spec import headline as head
from analysis.render.spec.shown import Table, shown
from analysis.render.spec.tables import ReportTables
from analysis.render.spec.text import visible
from analysis.render.terminal_tables import FittedTable
from analysis.render.terminal_text import Sentence
from analysis.report import Report

__all__ = ["headline", "print_headline", "print_report"]

_STAGE_STYLE: Final = {"prefill": "blue", "decode": "yellow"}
_SEVERITY_STYLE: Final = {"unfit": "bold red", "warning": "bold yellow", "info": "dim"}
_FIRST_STAGES: Final = 2
_FIRST_ACTIONS: Final = 4
"""So many are on the first screen; the others follow in ``show``."""


def _opening(report: Report) -> list[RenderableType]:
    """Where to start, what was run, and what a reader must know before any number."""
    lines: list[RenderableType] = [Sentence(head.sentence(report), "bold")]
    lines += [Text(line, style="dim") for line in head.what_was_run(report)]
    lines += [Text(caution, style="bold yellow") for caution in facts.cautions(report, weights=False)]
    lines += _findings(report, "unfit", evidence=True)
    return lines


def _findings(report: Report, severity: str, *, evidence: bool) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for finding in report.findings:
        if finding.severity == severity:
            line = Text.assemble((f"{severity}: ", _SEVERITY_STYLE[severity]), visible(finding.title))
            lines.append(line.append(f" – {visible(finding.evidence)}", style="dim") if evidence else line)
    return lines


def _why(report: Report, *, evidence: bool) -> list[RenderableType]:
    """What bounds each stage; the actions follow, ranked over the run, unless there are none.

    Without evidence, of more than two stages those that take most, with the others' names and bounds.
    """
    lines: list[RenderableType] = []
    ranked = bool(report.ranking.gains)
    times = {part.stage: part.time_ns for part in report.ranking.parts}
    longest = sorted(report.verdicts, key=lambda verdict: -times.get(verdict.stage, 0))[:_FIRST_STAGES]
    for verdict in report.verdicts if evidence else [verdict for verdict in report.verdicts if verdict in longest]:
        style = _STAGE_STYLE.get(verdict.stage, "bold")
        named = verdict.bound == "unknown" or verdict.bound in verdict.sentence
        sentence = visible(verdict.sentence if named else f"{verdict.stage}: {verdict.bound}. {verdict.sentence}")
        lines.append(Sentence(sentence, word=visible(verdict.bound), word_style=f"bold {style}"))
        if evidence:
            lines += [_indented(line, "dim") for line in verdict.evidence]
        if not ranked:
            lines.append(_indented(f"Do first: {verdict.action}"))
    others = [] if evidence else [verdict for verdict in report.verdicts if verdict not in longest]
    if others:
        lines.append(Text(visible("; ".join(f"{verdict.stage}: {verdict.bound}" for verdict in others)) + "."))
    return lines


def _indented(text: str, style: str = "") -> Padding:
    return Padding(Sentence(visible(text), style), (0, 0, 0, 2), expand=False)


def _stages(report: Report) -> list[RenderableType]:
    rows = head.stage_numbers(report)
    if not rows:
        return []
    table = shown(head.STAGE_NUMBERS, rows, "terminal", leave_out=() if _has_utilisation(rows) else ("mfu", "mbu"))
    per = "Time" if report.ranking.unit == "capture" else report.ranking.per.capitalize()
    time = evolve(table.columns[1], label=per)
    lines: list[RenderableType] = [
        FittedTable(evolve(table, columns=(table.columns[0], time, *table.columns[2:])), title=False)
    ]
    latencies = head.latencies(report)
    return [*lines, Sentence(latencies, "dim")] if latencies else lines


def _has_utilisation(rows: tuple[head.StageNumbers, ...]) -> bool:
    return any(row.mfu is not None or row.mbu is not None for row in rows)


def _ranked(table: Table, first: int) -> list[RenderableType]:
    """The first actions, and how many more there are."""
    if not table.rows:
        return []
    left = len(table.rows) - first
    note = f"{left} more: dsocr-analyze show. {table.note}" if left > 0 else table.note
    return [FittedTable(evolve(table, rows=table.rows[:first], note=note), title=False, gaps=False)]


def headline(report: Report) -> Group:
    """What every analysis prints: where to start, what was run, why, what to do, what it brings."""
    tables = ReportTables(report, "terminal")
    unknown = head.not_known(report)
    return Group(
        *_opening(report),
        Text(),
        *_stages(report),
        Text(),
        *_why(report, evidence=False),
        Text(),
        *_ranked(tables.actions(), _FIRST_ACTIONS),
        *[Sentence(line) for line in predictions.sentences(report)[:1]],
        *([Sentence(unknown, "dim")] if unknown else []),
        *_findings(report, "warning", evidence=False),
    )


def print_headline(report: Report, console: Console) -> None:
    """Print the compact summary."""
    console.print(headline(report))


def print_report(report: Report, console: Console, *, top: int = 10) -> None:
    """Print the report for the terminal alone: summary, evidence, stages, kernels, modules.

    Args:
        report: to show.
        console: where to.
        top: rows of each kernel and module table.
    """
    tables = ReportTables(report, "terminal")
    actions, unknown = tables.actions(), head.not_known(report)
    parts: list[RenderableType] = [
        *_opening(report),
        Text(),
        *_stages(report),
        Text(),
        *_why(report, evidence=True),
        Text(),
    ]
    parts += _ranked(actions, len(actions.rows))
    parts += [
        _indented(f"{gain.rank}. {gain.action.sentence} {gain.sentence}: {gain.action.arithmetic}", "dim")
        for gain in report.ranking.gains
    ]
    if report.predictions:
        parts += [Text(), FittedTable(tables.predictions())]
        parts += [_indented(line, "dim") for line in predictions.sentences(report)]
    parts += [Sentence(unknown, "dim")] if unknown else []
    parts += [*_findings(report, "warning", evidence=True), Text()]
    for verdict in report.verdicts:
        if verdict.budget is not None:
            parts += [FittedTable(tables.budget(verdict.stage)), Text()]
    parts += [FittedTable(tables.stage_times()), Text()]
    if report.step_kinds:
        parts += [FittedTable(tables.step_kinds()), Text()]
    parts += [FittedTable(tables.compared()), Text()]
    staged = [stage for stage in tables.kernel_stages if stage in tables.stages]
    for stage in staged or tables.kernel_stages:  # a trace without stages has kernels of none
        parts += [FittedTable(tables.kernels(stage, top)), Text()]
    for stage in staged or tables.kernel_stages:
        parts += [FittedTable(tables.kernel_modules(stage, top)), Text()]
    for stage in tables.stages:
        if report.module_rows.get(stage):
            parts += [FittedTable(tables.module_kinds(stage, top)), Text()]
    if report.utilisation:
        parts += [FittedTable(tables.utilisation()), Text()]
    energy = tables.energy()
    if energy is not None:
        parts += [FittedTable(energy) if energy.rows else Text(energy.note, style="dim"), Text()]
    console.print(Group(*parts))
