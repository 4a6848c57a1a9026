"""``report.md``, made to be read on GitHub and in a terminal, with its pictures as SVG files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from analysis.domain.entities import KernelSummary
from analysis.domain.figures import count, decimal, exact_ms, share
from analysis.domain.files import write_text
from analysis.render.pictures import budget_picture, category_picture, step_picture
from analysis.render.spec import facts, gpu_tables, tables
from analysis.render.spec.definitions import DEFINITIONS
from analysis.render.spec.model import Cell, Column, Table
from analysis.render.spec.text import shortened, visible
from analysis.report import Report

__all__ = ["escaped", "render"]

_TOP_KERNELS: Final = 25
_TOP_MODULES: Final = 30
_TOP_CALLS: Final = 20
_NAME: Final = 160
_SEVERITY: Final = {"unfit": "Do not use these numbers", "warning": "Warning", "info": "Good to know"}

_SPECIAL: Final = re.compile(
    r"(?P<html>[<>&@])|(?P<mark>[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))|(?P<link>://|\bwww\.)", re.IGNORECASE
)


def escaped(text: str) -> str:
    """A text of others for Markdown: nothing in it formats, links, mentions, or begins HTML."""
    return _SPECIAL.sub(_harmless, text)


def _harmless(found: re.Match[str]) -> str:
    return f"\\{found[0]}" if found["mark"] else _entities(found[0])


def _entities(text: str) -> str:
    return "".join(f"&#{ord(character)};" for character in text)


def _code(text: str) -> str:
    """Inline code in a table cell; with backticks in it, as HTML whose every special character is an entity."""
    if not text.strip() or text != text.strip() or "`" in text or text.endswith("\\") or "\\|" in text:
        return f"<code>{re.sub(r'[^A-Za-z0-9 ]', lambda found: _entities(found[0]), text)}</code>"
    return "`" + text.replace("|", "\\|") + "`"


def _cell(cell: Cell) -> str:
    text = shortened(cell.text, _NAME)
    return _code(text) if cell.code else escaped(text)


def _lines(table: Table, limit: int | None = None) -> list[str]:
    """A table as Markdown, with its note."""
    found = [
        _row(escaped(column.heading) for column in table.columns),
        _row("---:" if column.align == "right" else "---" for column in table.columns),
        *(_row(map(_cell, row)) for row in table.rows[:limit]),
    ]
    if limit is not None and len(table.rows) > limit:
        rest = f"*{count(len(table.rows) - limit)} more rows are in report.json*"
        found.append(_row([rest, *([""] * (len(table.columns) - 1))]))
    if table.total is not None:
        found.append(_row(f"**{_cell(cell)}**" if cell.text else "" for cell in table.total))
    return [*found, "", *([escaped(table.note), ""] if table.note else [])]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _kernel_table(kernels: Sequence[KernelSummary], stage: str) -> Table:
    """The stage's longest kernels, the rest as one row: rows add up to the stage's kernel sum."""
    mine = sorted((one for one in kernels if one.stage == stage), key=lambda one: -one.total_ns)
    shown, rest = mine[:_TOP_KERNELS], mine[_TOP_KERNELS:]
    rows: list[tuple[Cell, ...]] = [
        (
            Cell(shortened(visible(one.human_name or one.short_name or one.name), 80)),
            Cell(visible(one.category)),
            Cell(count(one.calls)),
            Cell(exact_ms(one.total_ns)),
            Cell(share(one.share)),
            Cell(decimal(one.mean_ns / 1e3, 2)),
            Cell(decimal(one.median_ns / 1e3, 2)),
            Cell(decimal(None if one.p95_ns is None else one.p95_ns / 1e3, 2)),
            Cell(decimal(one.per_token, 2)),
            Cell(shortened(visible(one.short_name or one.name), 70), code=True),
        )
        for one in shown
    ]
    total = sum(one.total_ns for one in mine)
    if rest:
        spent = sum(one.total_ns for one in rest)
        rows.append(
            (
                Cell(f"({len(rest)} more kernels)"),
                Cell(""),
                Cell(count(sum(one.calls for one in rest))),
                Cell(exact_ms(spent)),
                Cell(share(spent / total if total else None)),
                *(Cell("") for _ in range(5)),
            )
        )
    return Table(
        key=f"kernels-{stage}",
        title=f"Kernels, {stage}",
        columns=(
            Column("Kernel", align="left"),
            Column("Category", align="left"),
            Column("Calls"),
            Column("Total", "ms"),
            Column("Share"),
            Column("Mean", "µs"),
            Column("Median", "µs"),
            Column("p95", "µs"),
            Column("Per token"),
            Column("Name", align="left"),
        ),
        rows=tuple(rows),
        total=(
            Cell("Total"),
            Cell(""),
            Cell(count(sum(one.calls for one in mine))),
            Cell(exact_ms(total)),
            Cell(share(1.0 if total else None)),
            *(Cell("") for _ in range(5)),
        ),
        note="Full names, launch shapes and occupancy are in kernels.parquet.",
    )


def _opening(report: Report) -> list[str]:
    lines = [f"# {escaped(facts.title(report))}: inference profile", ""]
    lines += [f"- **{fact.label}:** {escaped(fact.text)}" for fact in facts.subject(report)]
    lines.append("")
    lines += [f"> **{escaped(caution)}**\n" for caution in facts.cautions(report)]
    unfit = [one for one in report.findings if one.severity == "unfit"]
    if unfit:
        lines += [f"> **{_SEVERITY['unfit']}:** {escaped(visible(one.title))}\n" for one in unfit]
    return lines


def _verdicts(report: Report) -> list[str]:
    lines = ["## Verdict", ""]
    for one in report.verdicts:
        lines += [
            f"**{escaped(one.stage)}: {escaped(visible(one.bound))}.** {escaped(visible(one.sentence))}",
            "",
            f"- At most: {escaped(visible(one.ceiling))}",
            f"- Do first: {escaped(visible(one.action))}",
            *(f"- Evidence: {escaped(visible(line))}" for line in one.evidence),
            "",
        ]
    if report.report.notes:
        lines += ["### In short", "", escaped(visible(report.report.notes)), ""]
    return lines


def _headline(report: Report) -> list[str]:
    rows = tuple((Cell(tile.label), Cell(tile.value), Cell(tile.note)) for tile in facts.headline(report))
    columns = (Column("Number", align="left"), Column("Value"), Column("Basis", align="left"))
    return ["## Headline", "", *_lines(Table("headline", "Headline", columns, rows))]


def _findings(report: Report) -> list[str]:
    lines = ["## Capture quality", ""]
    if not report.findings:
        return [*lines, "Every check passed.", ""]
    for one in report.findings:
        lines.append(
            f"- **{_SEVERITY[one.severity]}: {escaped(visible(one.title))}** ({_code(visible(one.code))}). "
            f"{escaped(visible(one.evidence))}" + (f" Remedy: {escaped(visible(one.remedy))}" if one.remedy else "")
        )
    return [*lines, ""]


def _times(report: Report, pictures: dict[str, str]) -> list[str]:
    lines = ["## GPU time by stage", "", *_lines(gpu_tables.stage_times(report))]
    for name, text in (("budget.svg", "Where each stage’s time goes"), ("steps.svg", "Decode steps")):
        if name in pictures:
            lines += [f"![{text}]({name})", ""]
    return [*lines, "## Prefill against decode", "", *_lines(tables.compare_stages(report))]


def _kernels(report: Report, pictures: dict[str, str]) -> list[str]:
    lines = ["## Kernels", ""]
    if "categories.svg" in pictures:
        lines += ["![GPU time by category](categories.svg)", ""]
    for stage in dict.fromkeys((*tables.stages_in(report), *(one.stage for one in report.kernels))):
        table = _kernel_table(report.kernels, stage)
        if table.rows:
            lines += [f"### {escaped(table.title)}", "", *_lines(table)]
    if not report.kernels:
        lines += ["n/a: there is no kernel in the trace.", ""]
    return [*lines, "### By category", "", *_lines(tables.categories(report))]


def _modules(report: Report) -> list[str]:
    lines = ["## Modules", ""]
    found = [stage for stage in tables.stages_in(report) if report.module_rows.get(stage)]
    for stage in found:
        lines += [f"### Modules, {stage}", "", *_lines(gpu_tables.module_kinds(report, stage), _TOP_MODULES)]
    return lines if found else [*lines, "n/a: the trace has no module ranges.", ""]


def _utilisation(report: Report) -> list[str]:
    lines = ["## Utilisation", "", *_lines(tables.utilisation(report))]
    derived = [row for row in report.utilisation if row.derivation]
    if derived:
        lines += ["The arithmetic:", ""]
        for row in derived:
            lines.append(f"- {row.stage}, {row.time_base}: {escaped(visible(row.derivation or ''))}")
            if row.suspect:
                lines.append(f"  **{escaped(visible(row.suspect))}**")
        lines.append("")
    if report.metrics:
        lines += ["### GPU metrics, sampled", "", *_lines(tables.metric_means(report))]
    return lines


def _rest(report: Report) -> list[str]:
    lines = ["## Host synchronisation", ""]
    for found in (tables.host_calls(report, "stage"), tables.host_calls(report, "module")):
        lines += [f"### {found.title}", "", *_lines(found, _TOP_CALLS)] if found.rows else []
    if not report.host_calls:
        lines += ["No synchronising call and no small device-to-host copy was found.", ""]
    lines += ["## Top operators", ""]
    found = tables.operators(report)
    lines += _lines(found) if found.rows else ["n/a: the trace has no ranges.", ""]
    lines += ["## Latencies", ""]
    found = tables.latencies(report)
    lines += _lines(found) if found.rows else ["n/a: the trace has no stages.", ""]
    lines += ["## What profiling costs", ""]
    found = tables.overhead(report)
    missing = "n/a: there is no unprofiled control run of the same inputs to compare with."
    lines += _lines(found) if found.rows else [missing, ""]
    lines += ["## Provenance", "", "| Fact | Value |", "| --- | --- |"]
    lines += [
        _row((escaped(fact.label), _cell(Cell(shortened(fact.text, 1000), code=fact.code))))
        for fact in facts.provenance(report)
    ]
    return [*lines, ""]


_GLOSSARY: Final = ("host_elapsed", "projected", "busy", "kernel_sum", "ttft", "tpot", "mfu", "mbu", "ceiling")


def _glossary() -> list[str]:
    return ["## What the numbers mean", "", *(f"- {escaped(DEFINITIONS[term])}" for term in _GLOSSARY), ""]


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
    lines = [
        *_opening(report),
        *_verdicts(report),
        *_headline(report),
        *_findings(report),
        *_times(report, pictures),
        *_kernels(report, pictures),
        *_modules(report),
        *_utilisation(report),
        *_rest(report),
        *_glossary(),
    ]
    written = [write_text(out / name, text) for name, text in pictures.items()]
    return (write_text(out / "report.md", "\n".join(lines)), *written)
