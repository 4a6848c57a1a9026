"""``diff.md``: what a person pastes into a pull request, short enough to be read there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from attrs import frozen

from analysis.compare.records import Comparison, Diff, StageDifference
from analysis.domain.files import write_text
from analysis.render.compare import contents
from analysis.render.markdown_tables import escaped, table_lines
from analysis.render.spec.text import visible

__all__ = ["MOST_LINES", "markdown", "write_markdown"]

MOST_LINES: Final = 120
"""Of the file."""


@frozen
class _Extent:
    """How much is told."""

    rows: int
    """Of each table; the others as one row."""
    parts: bool = True
    """Whether the parts of a difference have a table."""
    kernels: bool = True
    settings: bool = True
    reasons: bool = True
    """Whether each stage has its reason, its largest parts and the next step."""


_EXTENTS: Final = (
    *(_Extent(rows) for rows in (10, 8, 6, 4)),
    *(_Extent(rows, kernels=False) for rows in (6, 4, 2)),
    _Extent(3, parts=False, kernels=False),
    _Extent(0, parts=False, kernels=False, settings=False),
    _Extent(0, parts=False, kernels=False, settings=False, reasons=False),
)
"""Tried in this order until the file is short enough."""


def write_markdown(diff: Diff, out: Path) -> Path:
    """Write ``diff.md``.

    Raises:
        RequestError: the folder cannot be written to.
    """
    return write_text(out / "diff.md", markdown(diff))


def markdown(diff: Diff) -> str:
    """The text, of at most `MOST_LINES` lines: of longer tables the largest rows, the others as one row."""
    for extent in _EXTENTS:
        lines = _lines(diff, extent)
        if len(lines) <= MOST_LINES:
            break
    else:
        # Too many sides for a section each: their answers alone.
        lines = _head(diff)
        lines += table_lines(contents.sides(diff, "markdown"), MOST_LINES - len(lines) - 6)
    return "\n".join(lines).rstrip() + "\n"


def _head(diff: Diff) -> list[str]:
    return [f"## {escaped(contents.title(diff))}", "", f"**{escaped(visible(diff.headline))}**", ""]


def _lines(diff: Diff, extent: _Extent) -> list[str]:
    lines = _head(diff)
    several = len(diff.comparisons) > 1
    if several:
        lines += table_lines(contents.sides(diff, "markdown"))
    for comparison in diff.comparisons:
        if several:
            label, headline = visible(comparison.new.label), visible(comparison.headline)
            lines += [f"### {escaped(label)}: {escaped(headline)}", ""]
        lines += _comparison(comparison, extent, several=several)
    return lines


def _comparison(comparison: Comparison, extent: _Extent, *, several: bool) -> list[str]:
    lines = [f"{escaped(' · '.join(contents.subject(comparison)))}", ""]
    changed = contents.changed(comparison)
    if changed:
        lines += [f"Changed: {escaped(changed)}.", ""]
    for row in contents.forbidding(comparison):
        values = " against ".join("not recorded" if value is None else visible(value) for value in row.values)
        lines.append(f"> **Differs in more than the code:** {escaped(visible(row.name))}: {escaped(values)}. ")
        lines[-1] += escaped(visible(row.because))
        lines.append("")
    if not several:
        lines += table_lines(contents.latencies(comparison, "markdown"))
    if extent.reasons:
        for stage in comparison.stages:
            lines += _reasons(comparison, stage)
        lines.append("")
    for stage in comparison.stages:
        if stage.answer != "equal":  # of noise nobody reads the parts
            lines += _tables(comparison, stage.stage, extent)
    settings = contents.settings(comparison, "markdown", extent.rows)
    if settings.rows and extent.settings:
        lines += ["<details><summary>Settings that differ</summary>", "", *table_lines(settings), "</details>", ""]
    return [*lines, *(f"- {escaped(visible(note))}" for note in comparison.notes[: extent.rows]), ""]


def _reasons(comparison: Comparison, stage: StageDifference) -> list[str]:
    """A stage's answer, why, and what next, each on a line of its own."""
    lines = [f"- **{escaped(visible(stage.stage))}**: {escaped(visible(stage.because))}"]
    parts = ", ".join(f"{reason.name} {reason.by}" for reason in contents.reasons(comparison, stage))
    if parts:
        told = contents.explained(stage)
        lines.append(f"  Why: {escaped(parts)}{f' ({told})' if told else ''}.")
    return [*lines, f"  Next: {escaped(contents.next_step(comparison, stage))}"]


def _tables(comparison: Comparison, stage: str, extent: _Extent) -> list[str]:
    """Parts and kernels of a stage, folded in a pull request."""
    tables = []
    if extent.parts:
        parts = contents.contributions(comparison, stage, "module", "markdown", extent.rows)
        tables.append(
            parts if parts.rows else contents.contributions(comparison, stage, "stage", "markdown", extent.rows)
        )
    if extent.kernels:
        tables.append(contents.kernels(comparison, stage, "markdown", extent.rows))
    lines: list[str] = []
    for table in tables:
        if table.rows:
            # The blank lines make the table inside one.
            lines += [f"<details><summary>{escaped(table.title)}</summary>", "", *table_lines(table), "</details>", ""]
    return lines
