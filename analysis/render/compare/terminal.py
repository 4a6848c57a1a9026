"""A comparison in one screenful of a terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from analysis.compare.records import Answer, Comparison, Contribution, Diff, StageDifference
from analysis.domain.figures import duration, ratio, signed_duration
from analysis.render.spec.text import shortened, visible
from analysis.render.terminal_text import Sentence

__all__ = ["diff_lines", "print_diff"]

_STYLE: Final[dict[Answer, str]] = {
    "regression": "bold red",
    "improvement": "bold green",
    "equal": "bold",
    "cannot judge": "bold yellow",
}
_FIRST_ROWS: Final = 6
"""Contributions that a stage shows; the others are in the files."""
_WORTH: Final = 0.01
"""Share of a stage's base from which on a contribution is shown."""
_FIRST_SETTINGS: Final = 6
_NAME: Final = 44


def print_diff(diff: Diff, console: Console) -> None:
    """Print every comparison, the sentence of all first."""
    console.print(diff_lines(diff))


def diff_lines(diff: Diff) -> Group:
    """What `print_diff` prints."""
    lines: list[RenderableType] = [Sentence(visible(diff.headline), "bold")]
    for comparison in diff.comparisons:
        lines.append(Text())
        if len(diff.comparisons) > 1 and not diff.headline.endswith(comparison.headline):
            lines.append(Sentence(visible(comparison.headline), "bold"))
        lines += _comparison(comparison)
    return Group(*lines)


def _comparison(comparison: Comparison) -> list[RenderableType]:
    lines: list[RenderableType] = [_sides(comparison)]
    for change in comparison.settings:
        if change.forbids:
            values = " against ".join(visible(value or "not recorded") for value in change.values)
            lines.append(
                Sentence(
                    f"forbids judging: {visible(change.name)} {values} – {change.because}",
                    word="forbids judging",
                    word_style="bold yellow",
                )
            )
    lines += [Text(), _stages(comparison)]
    for stage in comparison.stages:
        lines += ["", *_why(comparison, stage)]
    lines += _settings(comparison)
    lines += [Sentence(visible(note), "dim") for note in comparison.notes]
    return lines


def _sides(comparison: Comparison) -> Text:
    base, new = comparison.base, comparison.new
    same = [
        visible(first)
        for first, second in ((base.model, new.model), (base.device, new.device))
        if first and first == second
    ]
    about = f" · {' · '.join(same)}" if same else ""
    return Text(f"{visible(base.label)} → {visible(new.label)}{about}", style="dim")


def _stages(comparison: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, label in enumerate(("Stage", "Base", "New", "Difference", "Ratio", "Explained", "Answer")):
        table.add_column(Text(label, style="dim"), justify="left" if number in (0, 6) else "right", no_wrap=True)
    for row in comparison.stages:
        table.add_row(
            visible(f"{row.stage}, {row.per}"),
            duration(row.base_ns),
            duration(row.new_ns),
            signed_duration(row.difference_ns),
            "n/a" if row.ratio is None else f"{row.ratio:.3g} ×",
            ratio(row.explained),
            Text(row.answer, style=_STYLE[row.answer]),
        )
    return table


def _why(comparison: Comparison, stage: StageDifference) -> list[RenderableType]:
    """The reason of the answer, and the largest parts of the difference: by module, and what the host did."""
    lines: list[RenderableType] = [Sentence(f"{stage.stage}: {stage.because}", word=stage.stage, word_style="bold")]
    rows = [
        row
        for row in comparison.contributions
        if (row.stage, row.level) == (stage.stage, "module")
        and abs(row.difference_ns) >= _WORTH * (stage.base_ns or 0.0)
    ]
    if not rows:
        return lines
    rows.sort(key=lambda row: -abs(row.difference_ns))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for justify in ("left", "right", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for row in rows[:_FIRST_ROWS]:
        times = duration(row.base_ns), duration(row.new_ns), signed_duration(row.difference_ns)
        table.add_row(shortened(visible(row.name), _NAME), *times, _calls(row))
    left = len(rows) - _FIRST_ROWS
    return [
        *lines,
        Padding(table, (0, 0, 0, 2)),
        *([Text(f"  {left} more in diff.json", style="dim")] if left > 0 else []),
    ]


def _calls(row: Contribution) -> str:
    """Counts on both sides, where they differ; the times say the rest."""
    if row.base_calls is None or row.new_calls is None or round(row.base_calls) == round(row.new_calls):
        return ""
    return f"{row.base_calls:,.0f} → {row.new_calls:,.0f}"


def _settings(comparison: Comparison) -> list[RenderableType]:
    rows = [change for change in comparison.settings if not change.forbids]
    if not rows:
        return []
    shown = [
        f"{visible(change.name)} {' → '.join(visible(value or 'not recorded') for value in change.values)}"
        for change in rows[:_FIRST_SETTINGS]
    ]
    more = f"; {len(rows) - _FIRST_SETTINGS} more" if len(rows) > _FIRST_SETTINGS else ""
    return [Text(), Sentence(f"Settings that differ: {'; '.join(shown)}{more}.")]
