"""``report.md``, made to be read on GitHub and in a terminal, with its pictures as SVG files beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from analysis.domain.columns import Records
from analysis.domain.files import write_text
from analysis.render.markdown_tables import code, escaped, head_lines, row_line, table_lines
from analysis.render.pictures import budget_picture, category_picture, step_picture
from analysis.render.pictures.svg import alone
from analysis.render.spec import facts, gpu_time, predictions, utilisation
from analysis.render.spec import headline as head
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.shown import Cell, Heading, Table
from analysis.render.spec.tables import ReportTables
from analysis.render.spec.text import shortened, visible
from analysis.report import Report

__all__ = ["render"]

MOST_LINES: Final = 200
"""Of the file: what does not fit is in the page and in the data beside it, and said to be."""
_ROWS: Final = (12, 8, 6, 4, 3, 2)
"""Rows of kernels and modules that are tried, most first, until all but the least important sections fit."""
_USUAL_ROWS: Final = 8
"""As most reports have them."""
_STAGES: Final = 2
"""Whose kernels and modules are shown where there are many."""
_SURE: Final = 3
"""Sections of this importance and below stay, with fewer rows; the others come as there is room."""
_FACT: Final = 240
"""Characters of a fact, such as the command line."""
_SEVERITY: Final = {"unfit": "Do not use these numbers", "warning": "Warning", "info": "Good to know"}


@frozen
class _Section:
    """A part of the file, and how easily it goes where there is no room."""

    title: str
    lines: list[str]
    importance: int = 0
    """0 always stays."""


def _opening(report: Report) -> _Section:
    lines = [f"# {escaped(facts.title(report))}: inference profile", "", f"**{escaped(head.sentence(report))}**", ""]
    lines += [f"- {escaped(line)}" for line in head.what_was_run(report) if line]
    lines += [
        f"- {escaped(line)}" for line in (head.parts(report), head.latencies(report), head.not_known(report)) if line
    ]
    lines.append("")
    lines += [f"> **{escaped(caution)}**\n" for caution in facts.cautions(report)]
    unfit = [finding for finding in report.findings if finding.severity == "unfit"]
    lines += [f"> **{_SEVERITY['unfit']}:** {escaped(visible(finding.title))}\n" for finding in unfit]
    return _Section("", lines)


def _actions(tables: ReportTables) -> _Section:
    actions = tables.actions()
    return _Section(actions.title, [f"## {actions.title}", "", *table_lines(actions)] if actions.rows else [])


def _predictions(report: Report, tables: ReportTables) -> _Section:
    table = tables.predictions()
    if not table.rows:
        return _Section(table.title, [])
    told = [f"- {escaped(line)}" for line in predictions.sentences(report)]
    return _Section(table.title, [f"## {table.title}", "", *told, "", *table_lines(table)], 1)


def _why(report: Report, tables: ReportTables, pictures: dict[str, str]) -> list[_Section]:
    """What bounds each stage and its budget; the evidence is a part of its own."""
    lines = ["## Verdict", ""]
    evidence = []
    for verdict in report.verdicts:
        stage = escaped(verdict.stage)
        sentence, bound = escaped(visible(verdict.sentence)), escaped(visible(verdict.bound))
        start, named, rest = sentence.partition(f" is {bound}:")
        lines += [f"**{start}{named}**{rest}" if named else f"**{stage}: {bound}.** {sentence}", ""]
        if not report.ranking.gains:
            lines += [f"- Do first: {escaped(visible(verdict.action))}", ""]
        if verdict.budget is not None:
            budget = tables.budget(verdict.stage)
            lines += [f"### {escaped(budget.title)}", "", *table_lines(evolve(budget, note=""))]
        evidence += [f"- {stage}: {escaped(visible(line))}" for line in verdict.evidence]
    if "budget.svg" in pictures:
        lines += ["![Where each stage’s time goes](budget.svg)", ""]
    title = "Evidence of the verdicts"
    return [_Section("Verdict", lines), _Section(title, [f"## {title}", "", *evidence, ""] if evidence else [], 4)]


def _numbers(report: Report) -> _Section:
    rows = tuple((Cell(tile.label), Cell(tile.value), Cell(tile.note)) for tile in facts.headline(report))
    columns = (Heading("Number", align="left"), Heading("Value"), Heading("Basis", align="left"))
    table = table_lines(Table("headline", "Headline", columns, rows))
    return _Section("Headline", ["## Headline", "", *table], 1)


def _findings(report: Report) -> _Section:
    lines = ["## Capture quality", ""]
    if not report.findings:
        return _Section("Capture quality", [*lines, "Every check passed.", ""], 1)
    for finding in report.findings:
        lines.append(
            f"- **{_SEVERITY[finding.severity]}: {escaped(visible(finding.title))}** ({code(visible(finding.code))}). "
            f"{escaped(visible(finding.evidence))}"
            + (f" Remedy: {escaped(visible(finding.remedy))}" if finding.remedy else "")
        )
    return _Section("Capture quality", [*lines, ""], 1)


def _times(tables: ReportTables, pictures: dict[str, str]) -> list[_Section]:
    lines = ["## GPU time by stage", "", *table_lines(tables.stage_times())]
    if "steps.svg" in pictures:
        lines += ["![Steps](steps.svg)", ""]
    by_kind = tables.step_kinds()
    kinds = [f"## {escaped(by_kind.title)}", "", *table_lines(by_kind)] if len(by_kind.columns) > 1 else []
    compared = tables.compared()
    side_by_side = [f"## {escaped(compared.title)}", "", *table_lines(compared)]
    sections = [_Section("GPU time by stage", lines, 1), _Section(compared.title, side_by_side, 5)]
    return [sections[0], _Section(by_kind.title, kinds, 2), sections[1]] if kinds else sections


def _longest(report: Report, stages: Sequence[str]) -> list[str]:
    """Of more than two stages, such as the kinds of an engine's steps, the two that take most."""
    times = {part.stage: part.time_ns for part in report.ranking.parts}
    longest = sorted(stages, key=lambda stage: -times.get(stage, 0))[:_STAGES]
    return [stage for stage in stages if stage in longest]


def _kernels(report: Report, tables: ReportTables, pictures: dict[str, str], rows: int) -> list[_Section]:
    lines = ["## Kernels", ""]
    if "categories.svg" in pictures:
        lines += ["![GPU time by category](categories.svg)", ""]
    for stage in _longest(report, tables.kernel_stages):
        table = tables.kernels(stage, rows)
        if table.rows:
            lines += [f"### {escaped(table.title)}", "", *table_lines(table)]
    lines += ["All of all stages: kernels.parquet, and by module kernel_modules.parquet.", ""] if report.kernels else []
    if not report.kernels:
        lines += ["n/a: there is no kernel in the trace.", ""]
    by_category = ["### By category", "", *table_lines(tables.categories())] if report.kernels else []
    by_module = []
    for stage in _longest(report, tables.kernel_stages):
        table = tables.kernel_modules(stage, rows)
        by_module += [f"### {escaped(table.title)}", "", *table_lines(table)] if table.rows else []
    return [
        _Section("Kernels", lines, 2),
        _Section("Kernels by category", by_category, 5),
        _Section("Kernels by module", by_module, 3),
    ]


def _modules(report: Report, tables: ReportTables, rows: int) -> _Section:
    lines = ["## Modules", ""]
    with_modules = _longest(report, [stage for stage in tables.stages if report.module_rows.get(stage)])
    for stage in with_modules:
        lines += [f"### Modules, {escaped(stage)}", "", *table_lines(tables.module_kinds(stage, rows))]
    return _Section("Modules", lines if with_modules else [*lines, "n/a: the trace has no module ranges.", ""], 2)


def _utilisation(report: Report, tables: ReportTables) -> list[_Section]:
    table = tables.utilisation()
    lines = ["## Utilisation", ""]
    if not table.rows:
        lines += ["n/a: the trace has no stages.", ""]
    elif any(row.mfu is not None or row.mbu is not None for row in report.utilisation):
        lines += table_lines(table)
    else:  # a table of unknowns says no more than why
        lines += [escaped(table.note), ""]
    derived = [row for row in report.utilisation if row.derivation]
    arithmetic = ["## Arithmetic of MFU and MBU", ""] if derived else []
    for row in derived:
        suspect = f" **{escaped(visible(row.suspect))}**" if row.suspect else ""
        base = utilisation.TIME_BASES[row.time_base]
        arithmetic.append(f"- {escaped(row.stage)}, {base}: {escaped(visible(row.derivation or ''))}{suspect}")
    joules = tables.energy()
    energy: list[str] = []
    if joules is not None:
        energy = [f"## {joules.title}", "", *(table_lines(joules) if joules.rows else [escaped(joules.note), ""])]
    sampled = ["## GPU metrics, sampled", "", *table_lines(tables.metric_means())] if report.metrics else []
    return [
        _Section("Utilisation", lines, 2),
        _Section("Arithmetic of MFU and MBU", [*arithmetic, ""] if derived else [], 4),
        _Section("Energy", energy, 2),
        _Section("GPU metrics, sampled", sampled, 5),
    ]


def _rest(report: Report, tables: ReportTables, rows: int) -> list[_Section]:
    waits = ["## Host synchronisation", ""]
    for table in (tables.host_calls("stage"), tables.host_calls("module")):
        waits += [f"### {table.title}", "", *table_lines(table, rows)] if table.rows else []
    if not report.host_calls:
        waits += ["No synchronising call and no small device-to-host copy was found.", ""]
    sections = [_Section("Host synchronisation", waits, 5)]
    for title, table, importance in (
        ("Top operators", tables.operators(), 6),
        ("Latencies", tables.latencies(), 4),
        ("What profiling costs", tables.overhead(), 3),
    ):
        sections.append(
            _Section(title, [f"## {title}", "", *table_lines(table, rows)] if table.rows else [], importance)
        )
    lines = ["## Provenance", "", *head_lines([("Fact", "left"), ("Value", "left")])]
    for fact in facts.provenance(report):
        text = shortened(fact.text, _FACT)
        lines.append(row_line((escaped(fact.label), code(text) if fact.code else escaped(text))))
    sections.append(_Section("Provenance", [*lines, ""], 4))
    return sections


_GLOSSARY: Final = ("host_elapsed", "projected", "busy", "kernel_sum", "ttft", "tpot", "mfu", "mbu", "ceiling")


def _glossary() -> _Section:
    title = "What the numbers mean"
    return _Section(title, [f"## {title}", "", *(f"- {escaped(GLOSSARY[term])}" for term in _GLOSSARY), ""], 6)


def _sections(report: Report, tables: ReportTables, pictures: dict[str, str], rows: int) -> list[_Section]:
    """All that could be in the file, in the order of reading."""
    return [
        section
        for section in (
            _opening(report),
            _actions(tables),
            _predictions(report, tables),
            *_why(report, tables, pictures),
            _numbers(report),
            _findings(report),
            *_times(tables, pictures),
            *_kernels(report, tables, pictures, rows),
            _modules(report, tables, rows),
            *_utilisation(report, tables),
            *_rest(report, tables, rows),
            _glossary(),
        )
        if section.lines
    ]


def _length(sections: Iterable[_Section]) -> int:
    """Lines of the file; an entry may hold a line's end."""
    return sum(1 + line.count("\n") for section in sections for line in section.lines)


def _row_counts(report: Report) -> list[int]:
    """Rows that each table of kernels and modules would have in full, of the stages that are shown."""
    numbers = [Counter(Records.of(rows).values("stage")) for rows in (report.kernels, report.kernel_modules)]
    shown = _longest(report, list(numbers[0]))
    counts = [number[stage] for number in numbers for stage in shown]
    with_modules = _longest(report, [row.stage for row in report.stages if report.module_rows.get(row.stage)])
    return counts + [len(gpu_time.module_kinds(report.module_rows[stage])) for stage in with_modules]


def _lines(rows: int, limit: int) -> int:
    """Lines of so many rows: those beyond the limit take one, and a single one is no more than that."""
    return min(rows, limit + 1)


def _fitted(report: Report, pictures: dict[str, str]) -> list[str]:
    """The sections that fit: as many rows as leave room for those that matter, then the others by their importance."""
    room = MOST_LINES - 4
    tables = ReportTables(report, "markdown")
    sections = _sections(report, tables, pictures, _USUAL_ROWS)
    sure = _length(section for section in sections if section.importance <= _SURE)
    counts = _row_counts(report)
    fitting = (
        number
        for number in _ROWS
        if sure + sum(_lines(count, number) - _lines(count, _USUAL_ROWS) for count in counts) <= room
    )
    rows = next(fitting, _ROWS[-1])
    if rows != _USUAL_ROWS:
        sections = _sections(report, tables, pictures, rows)
    chosen: list[_Section] = []
    for section in sorted(sections, key=lambda section: section.importance):
        if not section.importance or _length([*chosen, section]) <= room:
            chosen.append(section)
    lines = [line for section in sections if section in chosen for line in section.lines]
    left_out = [section.title for section in sections if section not in chosen]
    if left_out:
        lines += ["## More", "", f"In report.html and report.json: {escaped('; '.join(left_out))}.", ""]
    return lines


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
    written = [write_text(out / name, alone(text)) for name, text in pictures.items()]
    return (write_text(out / "report.md", "\n".join(_fitted(report, pictures))), *written)
