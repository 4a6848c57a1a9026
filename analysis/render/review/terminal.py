"""The review's essence in one screenful."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from analysis.domain.figures import count, share
from analysis.render.review import contents
from analysis.render.spec.text import visible
from analysis.render.terminal_tables import FittedTable
from analysis.report import Report
from analysis.review import Review

__all__ = ["print_review"]

_STYLE = {"prefill": "bold blue", "decode": "bold yellow"}
_RANKED = 10


def print_review(review: Review, report: Report, to: Console) -> None:
    """Print coverage, where the time is lost, the first actions, and the kernels with most to gain."""
    to.print(Text(contents.headline(review, report), style="bold"))
    for file in review.files:
        placed = file.by_place + file.by_configuration
        to.print(
            Text(
                f"{visible(file.source)}: {count(placed)} of {count(file.kernels)} profiled kernels are in the trace",
                style="dim",
            )
        )
    for line in contents.unmatched(review, 2):
        to.print(Text(line, style="yellow"))
    for one in review.stages:
        row = one.whole
        covered = row.covered_ns / row.total_ns if row is not None and row.total_ns else None
        to.print()
        to.print(
            Text.assemble(
                (one.stage.capitalize(), _STYLE.get(one.stage, "bold")),
                f": counters cover {share(covered)} of its kernel time",
            )
        )
        to.print(FittedTable(contents.losses(one, "terminal"), title=False))
        for number, action in enumerate(one.actions, 1):
            to.print(Padding(Text(f"{number}. {visible(action.sentence)}"), (0, 0, 0, 2), expand=False))
            to.print(Padding(Text(visible(action.arithmetic), style="dim"), (0, 0, 0, 5), expand=False))
    ranked = contents.ranking(review, "terminal", _RANKED)
    if ranked.rows:
        to.print()
        to.print(Text("Kernels with most to gain over the run", style="bold"))
        to.print(FittedTable(ranked, title=False))
