"""A sweep in a terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.text import Text

from analysis.render.spec.text import visible
from analysis.render.sweep import contents
from analysis.render.terminal_tables import FittedTable
from analysis.render.terminal_text import Sentence
from analysis.sweep.answers import SweepAnswers

__all__ = ["print_sweep"]


def print_sweep(answers: SweepAnswers, console: Console) -> None:
    """Print the answer, what follows, the points, and where limits change."""
    parts: list[RenderableType] = [Sentence(visible(answers.sentence), "bold")]
    parts += [Text(line, style="dim") for line in contents.ran(answers.sweep)]
    parts += [Sentence(visible(sentence)) for sentence in answers.then]
    parts += [Text(), FittedTable(contents.points(answers, "terminal")), Text()]
    changes = contents.crossovers(answers, "terminal")
    if changes.rows:
        parts += [FittedTable(changes), Text()]
    parts += [Text(note, style="dim") for note in (*contents.energy_notes(answers), *contents.unknowns(answers))]
    console.print(Group(*parts))
