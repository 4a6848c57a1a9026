"""``report.md``, made to be read on GitHub and in a terminal, with its pictures as SVG files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from analysis.domain.files import write_text
from analysis.render.markdown_tables import code, escaped, head_lines, row_line, table_lines
from analysis.render.pictures import budget_picture, category_picture, step_picture
from analysis.render.pictures.svg import alone
from analysis.render.spec import facts, utilisation
from analysis.render.spec import headline as head
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.shown import Cell, Heading, Table
from analysis.render.spec.tables import ReportTables
from analysis.render.spec.text import shortened, visible
from analysis.report import Report

__all__ = ["render"]

_TOP_KERNELS: Final = 25
_TOP_MODULES: Final = 30
_TOP_CALLS: Final = 20
_FACT: Final = 1000
"""Characters of a fact, such as the command line."""
_SEVERITY: Final = {"unfit": "Do not use these numbers", "warning": "Warning", "info": "Good to know"}


def _opening(report: Report) -> list[str]:
    lines = [f"# {escaped(facts.title(report))}: inference profile", "", f"**{escaped(head.sentence(report))}**", ""]
    lines += [f"- **{fact.label}:** {escaped(fact.text)}" for fact in facts.subject(report)]
    lines.append("")
    lines += [f"> **{escaped(caution)}**\n" for caution in facts.cautions(report)]
    unfit = [finding for finding in report.findings if finding.severity == "unfit"]
    if unfit:
        lines += [f"> **{_SEVERITY['unfit']}:** {escaped(visible(finding.title))}\n" for finding in unfit]
    return lines


def _verdicts(report: Report, tables: ReportTables) -> list[str]:
    lines = ["## Verdict", ""]
    for verdict in report.verdicts:
        lines += [
            f"**{escaped(verdict.stage)}: {escaped(visible(verdict.bound))}.** {escaped(visible(verdict.sentence))}",
            "",
            f"- Do first: {escaped(visible(verdict.action))} {escaped(visible(verdict.ceiling))}",
            *(f"- Evidence: {escaped(visible(line))}" for line in verdict.evidence),
            "",
        ]
        if verdict.budget is not None:
            budget = tables.budget(verdict.stage)
            lines += [f"### {escaped(budget.title)}", "", *table_lines(budget)]
    actions = tables.actions()
    lines += [f"### {actions.title}", "", *table_lines(actions)] if actions.rows else []
    if report.report.notes:
        lines += ["### In short", "", escaped(visible(report.report.notes)), ""]
    return lines


def _headline(report: Report) -> list[str]:
    rows = tuple((Cell(tile.label), Cell(tile.value), Cell(tile.note)) for tile in facts.headline(report))
    columns = (Heading("Number", align="left"), Heading("Value"), Heading("Basis", align="left"))
    return ["## Headline", "", *table_lines(Table("headline", "Headline", columns, rows))]


def _findings(report: Report) -> list[str]:
    lines = ["## Capture quality", ""]
    if not report.findings:
        return [*lines, "Every check passed.", ""]
    for finding in report.findings:
        lines.append(
            f"- **{_SEVERITY[finding.severity]}: {escaped(visible(finding.title))}** ({code(visible(finding.code))}). "
            f"{escaped(visible(finding.evidence))}"
            + (f" Remedy: {escaped(visible(finding.remedy))}" if finding.remedy else "")
        )
    return [*lines, ""]


def _times(tables: ReportTables, pictures: dict[str, str]) -> list[str]:
    lines = ["## GPU time by stage", "", *table_lines(tables.stage_times())]
    for name, text in (("budget.svg", "Where each stage’s time goes"), ("steps.svg", "Decode steps")):
        if name in pictures:
            lines += [f"![{text}]({name})", ""]
    compared = tables.compared()
    return [*lines, f"## {escaped(compared.title)}", "", *table_lines(compared)]


def _kernels(report: Report, tables: ReportTables, pictures: dict[str, str]) -> list[str]:
    lines = ["## Kernels", ""]
    if "categories.svg" in pictures:
        lines += ["![GPU time by category](categories.svg)", ""]
    for stage in tables.kernel_stages:
        table = tables.kernels(stage, _TOP_KERNELS)
        if table.rows:
            lines += [f"### {escaped(table.title)}", "", *table_lines(table)]
    if not report.kernels:
        lines += ["n/a: there is no kernel in the trace.", ""]
    lines += ["### By category", "", *table_lines(tables.categories())]
    for stage in tables.kernel_stages:
        by_module = tables.kernel_modules(stage, _TOP_KERNELS)
        lines += [f"### {escaped(by_module.title)}", "", *table_lines(by_module)] if by_module.rows else []
    return lines


def _modules(report: Report, tables: ReportTables) -> list[str]:
    lines = ["## Modules", ""]
    with_modules = [stage for stage in tables.stages if report.module_rows.get(stage)]
    for stage in with_modules:
        lines += [f"### Modules, {stage}", "", *table_lines(tables.module_kinds(stage, _TOP_MODULES))]
    return lines if with_modules else [*lines, "n/a: the trace has no module ranges.", ""]


def _utilisation(report: Report, tables: ReportTables) -> list[str]:
    table = tables.utilisation()
    lines = ["## Utilisation", ""]
    lines += table_lines(table) if table.rows else ["n/a: the trace has no stages.", ""]
    derived = [row for row in report.utilisation if row.derivation]
    if derived:
        lines += ["The arithmetic:", ""]
        for row in derived:
            lines.append(
                f"- {row.stage}, {utilisation.TIME_BASES[row.time_base]}: {escaped(visible(row.derivation or ''))}"
            )
            if row.suspect:
                lines.append(f"  **{escaped(visible(row.suspect))}**")
        lines.append("")
    if report.metrics:
        lines += ["### GPU metrics, sampled", "", *table_lines(tables.metric_means())]
    return lines


def _rest(report: Report, tables: ReportTables) -> list[str]:
    lines = ["## Host synchronisation", ""]
    for table in (tables.host_calls("stage"), tables.host_calls("module")):
        lines += [f"### {table.title}", "", *table_lines(table, _TOP_CALLS)] if table.rows else []
    if not report.host_calls:
        lines += ["No synchronising call and no small device-to-host copy was found.", ""]
    lines += ["## Top operators", ""]
    table = tables.operators()
    lines += table_lines(table) if table.rows else ["n/a: the trace has no ranges.", ""]
    lines += ["## Latencies", ""]
    table = tables.latencies()
    lines += table_lines(table) if table.rows else ["n/a: the trace has no stages.", ""]
    lines += ["## What profiling costs", ""]
    table = tables.overhead()
    missing = "n/a: there is no unprofiled control run of the same inputs to compare with."
    lines += table_lines(table) if table.rows else [missing, ""]
    lines += ["## Provenance", "", *head_lines([("Fact", "left"), ("Value", "left")])]
    for fact in facts.provenance(report):
        text = shortened(fact.text, _FACT)
        lines.append(row_line((escaped(fact.label), code(text) if fact.code else escaped(text))))
    return [*lines, ""]


_GLOSSARY: Final = ("host_elapsed", "projected", "busy", "kernel_sum", "ttft", "tpot", "mfu", "mbu", "ceiling")


def _glossary() -> list[str]:
    return ["## What the numbers mean", "", *(f"- {escaped(GLOSSARY[term])}" for term in _GLOSSARY), ""]


def render(report: Report, out: Path) -> tuple[Path, ...]:
    """Write ``report.md`` and its pictures.

    Raises:
        RequestError: the folder cannot be written to.
    """
    drawn = {
        "budget.svg": budget_picture(report),
        "steps.svg": step_picture(report),
        "categories.svg": category_picture(report),
    }
    pictures = {name: text for name, text in drawn.items() if text is not None}
    tables = ReportTables(report, "markdown")
    lines = [
        *_opening(report),
        *_verdicts(report, tables),
        *_headline(report),
        *_findings(report),
        *_times(tables, pictures),
        *_kernels(report, tables, pictures),
        *_modules(report, tables),
        *_utilisation(report, tables),
        *_rest(report, tables),
        *_glossary(),
    ]
    written = [write_text(out / name, alone(text)) for name, text in pictures.items()]
    return (write_text(out / "report.md", "\n".join(lines)), *written)
