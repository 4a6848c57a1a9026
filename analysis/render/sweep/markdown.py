"""``sweep.md`` with its pictures beside it."""

from __future__ import annotations

from pathlib import Path

from analysis.domain.files import write_text
from analysis.render.markdown_tables import escaped, head_lines, row_line, table_lines
from analysis.render.pictures.svg import alone
from analysis.render.spec.text import visible
from analysis.render.sweep import contents, pictures
from analysis.sweep.answers import SweepAnswers

__all__ = ["write_markdown"]


def write_markdown(answers: SweepAnswers, out: Path) -> tuple[Path, ...]:
    """Write ``sweep.md`` and its pictures.

    Raises:
        RequestError: the folder cannot be written to.
    """
    drawn = {
        "throughput": pictures.pareto_picture(answers),
        "limits": pictures.forecast_picture(answers, "decode"),
        "utilisation": pictures.utilisation_picture(answers),
        "memory": pictures.memory_picture(answers),
    }
    made = {f"sweep-{name}.svg": picture for name, picture in drawn.items() if picture is not None}
    written = [write_text(out / name, alone(picture)) for name, picture in made.items()]
    sweep = answers.sweep
    lines = [f"# {escaped(contents.title(sweep))}: sweep", "", f"**{escaped(visible(answers.sentence))}**", ""]
    lines += [f"- {escaped(line)}" for line in contents.ran(sweep)]
    lines += [f"- {escaped(visible(sentence))}" for sentence in answers.then]
    lines += ["", *head_lines([("Best", "left"), ("Value", "right"), ("Where", "left")])]
    lines += [row_line((tile.label, escaped(tile.value), escaped(tile.note))) for tile in contents.tiles(answers)]
    lines += ["", *_image("sweep-throughput.svg", "Throughput against latency", made)]
    lines += ["## Points", "", *table_lines(contents.points(answers, "markdown"))]
    for heat in contents.limit_maps(answers):
        lines += [f"## {escaped(heat.title)}", "", *table_lines(contents.heat_table(heat))]
    changes = contents.crossovers(answers, "markdown")
    if changes.rows:
        lines += [f"## {escaped(changes.title)}", "", *table_lines(changes)]
        lines += [*(f"- {escaped(line)}" for line in contents.arithmetic(answers)), ""]
    lines += _image("sweep-limits.svg", "Decode, measured and predicted", made)
    lines += _image("sweep-utilisation.svg", "MFU and MBU over the batch", made)
    lines += _image("sweep-memory.svg", "Memory at the peak", made)
    notes = (contents.peaks(sweep), *contents.energy_notes(answers), *contents.unknowns(answers))
    lines += [f"{escaped(note)}\n" for note in notes]
    return (write_text(out / "sweep.md", "\n".join(lines).rstrip() + "\n"), *written)


def _image(name: str, title: str, made: dict[str, str]) -> list[str]:
    return [f"![{title}]({name})", ""] if name in made else []
