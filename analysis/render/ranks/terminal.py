"""The combined report in a terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.text import Text

from analysis.ranks.records import RanksReport
from analysis.render.ranks import contents
from analysis.render.spec.text import visible
from analysis.render.terminal_tables import FittedTable

__all__ = ["print_ranks"]


def print_ranks(report: RanksReport, console: Console) -> None:
    """Print what every analysis of several ranks prints."""
    parts: list[RenderableType] = [Text(visible(report.sentence), style="bold"), Text()]
    parts += [Text(visible(sentence)) for sentence in report.then]
    parts.append(Text())
    parts.append(Text(f"{contents.title(report)}: {visible(report.devices)}", style="bold"))
    for fact in contents.subject(report)[1:]:
        parts.append(Text.assemble((f"{fact.label}: ", "dim"), fact.text))
    parts += [Text(f"warning: {visible(caution)}", style="bold yellow") for caution in report.cautions]
    for tile in contents.tiles(report):
        parts.append(Text.assemble((f"{tile.label}: ", "dim"), tile.value, (f" – {tile.note}", "dim")))
    parts.append(Text())
    for table in (contents.ranks(report, "terminal"), contents.stages(report, "terminal")):
        parts += [FittedTable(table), Text()]
    if report.lateness:
        parts += [FittedTable(contents.lateness(report, "terminal")), Text()]
    console.print(Group(*parts))
