"""The report in one screenful of a terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from analysis.domain.figures import count, decimal, share
from analysis.render.spec import facts, gpu_tables, tables
from analysis.render.spec.model import Cell, Table
from analysis.render.spec.text import shortened, visible
from analysis.report import Report

__all__ = ["headline", "print_headline", "print_report", "rich_table"]

_STAGE_STYLE = {"prefill": "blue", "decode": "yellow"}
_SEVERITY_STYLE = {"unfit": "bold red", "warning": "bold yellow", "info": "dim"}
_NAME_LENGTH = 60


def _text(cell: Cell) -> Text:
    # A Text is printed as it stands: rich reads no markup in it, and control characters are already written out.
    return Text(shortened(cell.text, _NAME_LENGTH))


def rich_table(table: Table, limit: int | None = None) -> RichTable:
    """A table of the report for the terminal."""
    made = RichTable(title=Text(table.title, style="bold"), title_justify="left", box=None, pad_edge=False,
                     show_footer=table.total is not None)  # fmt: skip
    for place, column in enumerate(table.columns):
        made.add_column(
            Text(column.heading, style="dim"),
            justify=column.align,
            footer=Text(table.total[place].text, style="bold") if table.total is not None else "",
            overflow="ellipsis" if place == 0 else "fold",
            no_wrap=place == 0,
        )
    for row in table.rows[:limit]:
        made.add_row(*map(_text, row))
    return made


def _opening(report: Report) -> list[RenderableType]:
    first = Text(facts.title(report), style="bold")
    lines: list[RenderableType] = [first]
    for fact in facts.subject(report):
        lines.append(Text.assemble((f"{fact.label}: ", "dim"), fact.text))
    lines += [Text(caution, style="bold yellow") for caution in facts.cautions(report)]
    return lines


def _findings(report: Report) -> list[RenderableType]:
    return [
        Text.assemble((f"{one.severity}: ", _SEVERITY_STYLE[one.severity]), visible(one.title), " – ",
                      (visible(one.evidence), "dim"))
        for one in report.findings
        if one.severity != "info"
    ]  # fmt: skip


def _verdicts(report: Report, *, evidence: bool) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for one in report.verdicts:
        style = _STAGE_STYLE.get(one.stage, "bold")
        named = one.bound == "unknown" or one.bound in one.sentence
        sentence = Text(visible(one.sentence if named else f"{one.stage}: {one.bound}. {one.sentence}"))
        sentence.highlight_words([visible(one.bound)], f"bold {style}")
        lines.append(sentence)
        if evidence:
            lines += [_indented(line, "dim") for line in one.evidence]
            lines.append(_indented(f"Do first: {one.action}"))
        lines.append(_indented(f"At most: {one.ceiling}"))
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


def _kernels(report: Report, stage: str, top: int) -> RichTable:
    mine = sorted((one for one in report.kernels if one.stage == stage), key=lambda one: -one.total_ns)[:top]
    headings = ("Kernel", "Category", "Calls", "Total, ms", "Share", "Mean, µs", "Name")
    rows = [
        (
            visible(one.human_name or one.short_name or one.name),
            visible(one.category),
            count(one.calls),
            decimal(one.total_ns / 1e6, 3),
            share(one.share),
            decimal(one.mean_ns / 1e3, 2),
            visible(one.short_name or one.name),
        )
        for one in mine
    ]
    made = RichTable(title=Text(f"Top kernels, {stage}", style="bold"), title_justify="left", box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        is_name = heading in ("Kernel", "Name")
        made.add_column(
            Text(heading, style="dim"),
            justify="right" if 2 <= place <= 5 else "left",
            overflow="ellipsis",
            # Numbers are never cut; names give way.
            no_wrap=True,
            min_width=None if is_name else max(len(heading), *(len(row[place]) for row in rows), 1),
            width=None if heading != "Name" else 30,
            max_width=46 if is_name else None,
            style="dim" if heading == "Name" else "",
        )
    for row in rows:
        made.add_row(*(Text(shortened(one, _NAME_LENGTH)) for one in row))
    return made


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
    parts += [rich_table(gpu_tables.stage_times(report)), Text(), rich_table(tables.compare_stages(report)), Text()]
    for stage in tables.stages_in(report):
        parts += [_kernels(report, stage, top), Text()]
        if report.module_rows.get(stage):
            parts += [rich_table(gpu_tables.module_kinds(report, stage), top), Text()]
    if report.utilisation:
        parts += [rich_table(tables.utilisation(report)), Text()]
    console.print(Group(*parts))
