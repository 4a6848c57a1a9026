"""The report in one screenful of a terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from analysis.render.spec import facts
from analysis.render.spec.tables import ReportTables
from analysis.render.spec.text import visible
from analysis.render.terminal_tables import FittedTable
from analysis.report import Report
from analysis.verdict.actions import saves_at_most

__all__ = ["headline", "print_headline", "print_report"]

_STAGE_STYLE = {"prefill": "blue", "decode": "yellow"}
_SEVERITY_STYLE = {"unfit": "bold red", "warning": "bold yellow", "info": "dim"}


def _opening(report: Report) -> list[RenderableType]:
    first = Text(facts.title(report), style="bold")
    lines: list[RenderableType] = [first]
    for fact in facts.subject(report):
        lines.append(Text.assemble((f"{fact.label}: ", "dim"), fact.text))
    lines += [Text(caution, style="bold yellow") for caution in facts.cautions(report)]
    return lines


def _findings(report: Report) -> list[RenderableType]:
    return [
        Text.assemble((f"{finding.severity}: ", _SEVERITY_STYLE[finding.severity]), visible(finding.title), " – ",
                      (visible(finding.evidence), "dim"))
        for finding in report.findings
        if finding.severity != "info"
    ]  # fmt: skip


def _verdicts(report: Report, *, evidence: bool) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for verdict in report.verdicts:
        style = _STAGE_STYLE.get(verdict.stage, "bold")
        named = verdict.bound == "unknown" or verdict.bound in verdict.sentence
        sentence = Text(visible(verdict.sentence if named else f"{verdict.stage}: {verdict.bound}. {verdict.sentence}"))
        sentence.highlight_words([visible(verdict.bound)], f"bold {style}")
        lines.append(sentence)
        if evidence:
            lines += [_indented(line, "dim") for line in verdict.evidence]
        lines.append(_indented(f"Do first: {verdict.action} {verdict.ceiling}"))
        if evidence:
            for action in verdict.actions[1:]:
                lines.append(_indented(f"Then: {action.sentence} {saves_at_most(action)}"))
    return lines


def _indented(text: str, style: str = "") -> Padding:
    return Padding(Text(visible(text), style=style), (0, 0, 0, 2), expand=False)


def _tiles(report: Report) -> RichTable:
    made = RichTable(box=None, show_header=False, pad_edge=False)
    made.add_column(justify="left")
    made.add_column(justify="right", style="bold")
    made.add_column(justify="left", style="dim")
    for tile in facts.headline(report):
        made.add_row(Text(tile.label), Text(tile.value), Text(tile.note))
    return made


def headline(report: Report) -> Group:
    """What every analysis prints: subject, verdict, headline numbers."""
    return Group(*_opening(report), *_findings(report), Text(), *_verdicts(report, evidence=False), Text(),
                 _tiles(report))  # fmt: skip


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
    parts: list[RenderableType] = [*_opening(report), *_findings(report), Text()]
    parts += [*_verdicts(report, evidence=True), Text(), _tiles(report), Text()]
    tables = ReportTables(report, "terminal")
    for verdict in report.verdicts:
        if verdict.budget is not None:
            parts += [FittedTable(tables.budget(verdict.stage)), Text()]
    parts += [FittedTable(tables.stage_times()), Text(), FittedTable(tables.compared()), Text()]
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
    console.print(Group(*parts))
