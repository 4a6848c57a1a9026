"""A comparison in a terminal: the headline, each stage's answer and why, then the largest parts and kernels."""

from __future__ import annotations

from typing import Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from analysis.compare.records import Answer, Comparison, Diff, StageDifference
from analysis.render.compare import contents
from analysis.render.spec.compare import answer_in_words
from analysis.render.spec.text import visible
from analysis.render.terminal_tables import FittedTable
from analysis.render.terminal_text import Sentence

__all__ = ["print_diff"]

_STYLES: Final[dict[Answer, str]] = {
    "regression": "bold red",
    "improvement": "bold green",
    "equal": "bold",
    "cannot judge": "bold yellow",
}
_PARTS: Final = 6
_KERNELS: Final = 6
_SETTINGS: Final = 6
"""Of each so many; the others as one row, or counted."""


def print_diff(diff: Diff, console: Console) -> None:
    """Print what every comparison prints."""
    lines: list[RenderableType] = [Sentence(visible(diff.headline), "bold"), Text()]
    several = len(diff.comparisons) > 1
    if several:
        lines += [FittedTable(contents.sides(diff, "terminal")), Text()]
    for comparison in diff.comparisons:
        if several:
            lines.append(Sentence(f"{visible(comparison.new.label)}: {visible(comparison.headline)}", "bold"))
        lines += _comparison(comparison)
    console.print(Group(*lines))


def _comparison(comparison: Comparison) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(line, style="dim") for line in contents.subject(comparison)]
    changed = contents.changed(comparison)
    if changed:
        lines.append(Sentence(f"Changed: {changed}"))
    for row in contents.forbidding(comparison):
        values = " against ".join("not recorded" if value is None else visible(value) for value in row.values)
        lines.append(Sentence(f"differs: {visible(row.name)}: {values} – {visible(row.because)}", "bold yellow"))
    lines.append(Text())
    for stage in comparison.stages:
        lines += _stage(comparison, stage)
    for stage in comparison.stages:
        if stage.answer == "equal":  # of noise nobody reads the parts; they are in the files
            continue
        parts = contents.contributions(comparison, stage.stage, "module", "terminal", _PARTS)
        if not parts.rows:
            parts = contents.contributions(comparison, stage.stage, "stage", "terminal", _PARTS)
        kernels = contents.kernels(comparison, stage.stage, "terminal", _KERNELS)
        for table in (parts, kernels):
            if table.rows:
                lines += [FittedTable(table), Text()]
    return [*lines, *_settings(comparison), *(Sentence(visible(note), "dim") for note in comparison.notes)]


def _settings(comparison: Comparison) -> list[RenderableType]:
    rows = [row for row in comparison.settings if not row.forbids and row.group in ("device", "clocks", "tool")]
    if not rows:
        return []
    shown = [
        f"{visible(row.name)} {' → '.join('not recorded' if value is None else visible(value) for value in row.values)}"
        for row in rows[:_SETTINGS]
    ]
    more = f"; {len(rows) - _SETTINGS} more" if len(rows) > _SETTINGS else ""
    return [Sentence(f"Differs by itself: {'; '.join(shown)}{more}."), Text()]


def _stage(comparison: Comparison, stage: StageDifference) -> list[RenderableType]:
    """A stage in a few lines: how much, is it real, why, what next."""
    told = contents.written(stage)
    figures = f"{told.before} → {told.after} per {visible(stage.per)}, {told.by} ({told.relative})" if told else "n/a"
    name = visible(stage.stage)
    answer = answer_in_words(stage.answer)
    lines: list[RenderableType] = [Text.assemble((f"{name}: ", "bold"), figures, "  ", (answer, _STYLES[stage.answer]))]
    certainty = contents.certainty(stage)
    indented = [(certainty, "dim")] if certainty else []
    if stage.answer == "cannot judge" and not contents.forbidding(comparison):  # that stands above all stages
        indented.append((visible(stage.because), "yellow"))
    reasons = ", ".join(f"{reason.name} {reason.by}" for reason in contents.reasons(comparison, stage))
    if reasons:
        explained = contents.explained(stage)
        indented.append((f"why: {reasons}{f' ({explained})' if explained else ''}", ""))
    indented.append((f"next: {contents.next_step(comparison, stage)}", ""))
    lines += [Padding(Sentence(text, style), (0, 0, 0, 2), expand=False) for text, style in indented]
    return [*lines, Text()]
