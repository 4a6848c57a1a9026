"""``diff.md``: what a person pastes into a pull request, short enough to be read there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from analysis.compare.records import Comparison, Diff
from analysis.domain.files import write_text
from analysis.render.compare import contents
from analysis.render.markdown_tables import escaped, table_lines
from analysis.render.spec.text import visible

__all__ = ["MOST_LINES", "markdown", "write_markdown"]

MOST_LINES: Final = 120
"""Of the file."""
_LIMITS: Final = (10, 8, 6, 4, 2, 1)
"""Rows of each table, tried in this order until the file is short enough."""


def write_markdown(diff: Diff, out: Path) -> Path:
    """Write ``diff.md``.

    Raises:
        RequestError: the folder cannot be written to.
    """
    return write_text(out / "diff.md", markdown(diff))


def markdown(diff: Diff) -> str:
    """The text, of at most `MOST_LINES` lines: of longer tables the largest rows, the others as one row."""
    for limit in _LIMITS:
        lines = _lines(diff, limit)
        if len(lines) <= MOST_LINES:
            break
    else:
        # Too many sides for a section each: their answers alone.
        lines = _head(diff)
        lines += table_lines(contents.sides(diff, "markdown"), MOST_LINES - len(lines) - 6)
    return "\n".join(lines).rstrip() + "\n"


def _head(diff: Diff) -> list[str]:
    return [f"## {escaped(contents.title(diff))}", "", f"**{escaped(visible(diff.headline))}**", ""]


def _lines(diff: Diff, limit: int) -> list[str]:
    lines = _head(diff)
    several = len(diff.comparisons) > 1
    if several:
        lines += table_lines(contents.sides(diff, "markdown"))
    for comparison in diff.comparisons:
        if several:
            label, headline = visible(comparison.new.label), visible(comparison.headline)
            lines += [f"### {escaped(label)}: {escaped(headline)}", ""]
        lines += _comparison(comparison, limit)
    return lines


def _comparison(comparison: Comparison, limit: int) -> list[str]:
    lines = [f"{escaped(' · '.join(contents.subject(comparison)))}", ""]
    for row in contents.forbidding(comparison):
        values = " against ".join("not recorded" if value is None else visible(value) for value in row.values)
        lines.append(f"> **Differs in more than the code:** {escaped(visible(row.name))}: {escaped(values)}. ")
        lines[-1] += escaped(visible(row.because))
        lines.append("")
    lines += table_lines(contents.latencies(comparison, "markdown"))
    for stage in comparison.stages:
        name = visible(stage.stage)
        lines.append(f"- **{escaped(name)}**: {escaped(visible(stage.because))}")
        reasons = ", ".join(f"{reason.name} {reason.by}" for reason in contents.reasons(comparison, stage))
        if reasons:
            told = contents.explained(stage)
            lines.append(f"  Why: {escaped(reasons)}{f' ({told})' if told else ''}.")
        lines.append(f"  Next: {escaped(contents.next_step(comparison, stage))}")
    lines.append("")
    for stage in comparison.stages:
        parts = contents.contributions(comparison, stage.stage, "module", "markdown", limit)
        if not parts.rows:
            parts = contents.contributions(comparison, stage.stage, "stage", "markdown", limit)
        kernels = contents.kernels(comparison, stage.stage, "markdown", limit)
        for table in (parts, kernels):
            if table.rows:
                # Folded in a pull request; the blank lines make the table inside one.
                summary = f"<details><summary>{escaped(table.title)}</summary>"
                lines += [summary, "", *table_lines(table), "</details>", ""]
    settings = contents.settings(comparison, "markdown", limit)
    if settings.rows:
        lines += ["<details><summary>Settings that differ</summary>", "", *table_lines(settings), "</details>", ""]
    return [*lines, *(f"- {escaped(visible(note))}" for note in comparison.notes[:limit]), ""]
