"""Tables for the terminal: as many columns as there is room for, the less important ones left out; numbers never wrap."""

from __future__ import annotations

from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from analysis.render.spec.shown import Cell, Table
from analysis.render.spec.text import shortened, visible
from analysis.render.terminal_text import Sentence

__all__ = ["FittedTable"]

_GAP: Final = 2
"""Blanks between columns."""
_LONGEST_NAME: Final = 60
_SHORTEST_NAME: Final = 28
_SHORTEST_TEXT: Final = 16
"""The first column, and other texts, are cut down to this before a column is left out for them."""
_SHORTEST_SENTENCE: Final = 44
"""So is a text that always stays: what the table is about."""


class FittedTable:
    """A table that fits itself into the width in which it is printed.

    Columns of the highest `Heading.priority` are left out first and named below the table; texts are shortened in the
    middle; numbers are whole or not there. The table's note, such as why a value is n/a, follows.
    """

    def __init__(self, table: Table, *, title: bool = True, gaps: bool = True) -> None:
        """Take a table, whether its title is printed, and whether it is said which columns had no room."""
        self._table = table
        self._title = title
        self._gaps = gaps

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the table out for a console."""
        table = self._table
        widths = self._widths(options.max_width)
        # Where no column that adds up had room, a row of sums would hold its name alone.
        total = table.total if table.total and any(table.total[place].text for place in widths if place) else None
        made = RichTable(
            title=Text(table.title, style="bold") if self._title else None,
            title_justify="left",
            box=None,
            pad_edge=False,
            padding=(0, _GAP, 0, 0),
            show_footer=total is not None,
            caption=self._left_out(widths),
            caption_justify="left",
        )
        for place, width in widths.items():
            heading = table.columns[place]
            made.add_column(
                Text(heading.text, style="dim"),
                justify=heading.align,
                width=width,
                no_wrap=True,
                overflow="ellipsis",
                footer=self._text(total[place], width, "bold") if total is not None else "",
            )
        for row in table.rows:
            made.add_row(*(self._text(row[place], width) for place, width in widths.items()))
        yield made
        if table.note:
            yield Sentence(visible(table.note), "dim")

    @staticmethod
    def _text(cell: Cell, width: int, style: str = "") -> Text:
        # A Text is printed as it stands: rich reads no markup in it, and control characters are already written out.
        return Text(shortened(cell.text, max(3, width)), style=style)

    def _left_out(self, widths: dict[int, int]) -> Text | None:
        names = [heading.label for place, heading in enumerate(self._table.columns) if place not in widths]
        return Text(f"no room for: {', '.join(names)}", style="dim") if names and self._gaps else None

    def _widths(self, room: int) -> dict[int, int]:
        """Columns that are shown → their width."""
        table = self._table
        totals = [table.total] if table.total is not None else []
        whole = {
            place: max(cell_len(heading.text), *(cell_len(row[place].text) for row in (*table.rows, *totals)), 1)
            for place, heading in enumerate(table.columns)
        }
        texts = [place for place, heading in enumerate(table.columns) if heading.align == "left"]
        uncut = dict(whole)
        for place in texts:
            whole[place] = min(whole[place], _LONGEST_NAME)

        def needed(widths: dict[int, int]) -> int:
            return sum(widths.values()) + _GAP * (len(widths) - 1)

        least = dict(whole)
        for place in texts:
            stays = place > 0 and table.columns[place].priority == 0
            least[place] = min(
                whole[place], _SHORTEST_SENTENCE if stays else _SHORTEST_TEXT if place else _SHORTEST_NAME
            )
        while needed(least) > room:
            droppable = [place for place in least if table.columns[place].priority > 0 and place > 0]
            if not droppable:
                break
            del least[max(droppable, key=lambda place: (table.columns[place].priority, place))]
        widths = {place: whole[place] for place in least}
        while needed(widths) > room:
            widest = max((place for place in widths if place in texts), key=lambda place: widths[place], default=None)
            if widest is None or widths[widest] <= 3:
                break
            widths[widest] -= 1
        for place in texts:  # what room is left goes to names that were cut
            if place in widths:
                widths[place] += max(0, min(uncut[place] - widths[place], room - needed(widths)))
        return widths
