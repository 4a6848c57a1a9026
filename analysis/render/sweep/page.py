"""``sweep.html``: one file in the look of report.html that opens from disk, reaches for nothing and runs no script."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Final

from markupsafe import Markup

from analysis.domain.files import write_text
from analysis.render.html.environment import page_environment, page_style
from analysis.render.pictures.palette import text_on
from analysis.render.spec.sweep import CROSSOVERS, SWEEP_POINTS
from analysis.render.spec.text import visible
from analysis.render.sweep import contents, pictures
from analysis.sweep import crossover
from analysis.sweep.answers import SweepAnswers

__all__ = ["page", "write_page"]

_HERE: Final = Path(__file__).parent
_WIDE: Final = 1220
"""Of a picture: the room that a card has on a wide screen, pixels."""


def write_page(answers: SweepAnswers, out: Path) -> Path:
    """Write ``sweep.html``.

    Raises:
        RequestError: the folder cannot be written to.
    """
    return write_text(out / "sweep.html", page(answers))


def page(answers: SweepAnswers) -> str:
    """The page as text."""
    sweep = answers.sweep
    drawn = {
        "pareto": pictures.pareto_picture(answers, _WIDE),
        "utilisation": pictures.utilisation_picture(answers, _WIDE),
        "over_context": pictures.context_picture(answers, _WIDE),
        "forecast_prefill": pictures.forecast_picture(answers, "prefill", _WIDE),
        "forecast_decode": pictures.forecast_picture(answers, "decode", _WIDE),
        "memory": pictures.memory_picture(answers, _WIDE),
    }
    own_style = Markup((_HERE / "templates" / "sweep.css").read_text(encoding="utf-8"))
    return (
        page_environment(_HERE / "templates")
        .get_template("sweep.html.j2")
        .render(
            title=contents.title(sweep),
            kind="sweep",
            script_sources="",
            style=page_style() + own_style,
            ran=contents.ran(sweep),
            cautions=_cautions(answers),
            headline=visible(answers.sentence),
            then=[visible(sentence) for sentence in answers.then],
            tiles_given=contents.tiles(answers),
            heat=contents.heat_maps(answers),
            limits=contents.limit_maps(answers),
            face={name: text_on(name) for name in (*set(contents.LIMIT_COLOURS.values()), "idle")},
            changes=contents.crossovers(answers, "html"),
            arithmetic=contents.arithmetic(answers),
            method=inspect.cleandoc(crossover.__doc__ or "").split("\n\n")[1:],
            verdicts=contents.verdicts(answers),
            points=contents.times_of_points(answers),
            stages=contents.stages_of_points(answers),
            energy_notes=(*contents.energy_notes(answers), *contents.unknowns(answers)),
            peaks=contents.peaks(sweep),
            notes=[visible(note) for note in sweep.notes],
            command=visible(" ".join(sweep.argv)),
            terms=_terms(),
            **{name: Markup(picture) if picture else None for name, picture in drawn.items()},
        )
    )


def _cautions(answers: SweepAnswers) -> list[str]:
    cautions = []
    if answers.sweep.weights == "random weights":
        cautions.append("Random weights: times and memory are the model's, its texts mean nothing.")
    if answers.sweep.status != "complete":
        why = f" ({visible(answers.sweep.unfinished_because)})" if answers.sweep.unfinished_because else ""
        cautions.append(
            f"The sweep is {answers.sweep.status}{why}: the same command with the same --out goes on with it."
        )
    return cautions


def _terms() -> list[tuple[str, str]]:
    """Label and definition of each column, each once."""
    terms: dict[str, str] = {}
    for columns in (SWEEP_POINTS.for_reader("html"), CROSSOVERS.for_reader("html")):
        for column in columns:
            if column.definition:
                terms.setdefault(column.label, column.definition)
    return list(terms.items())
