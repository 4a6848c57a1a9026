"""``dsocr-analyze sweep``: what the points of a sweep say together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.domain.errors import RequestError

__all__ = ["sweep"]


def sweep(
    source: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", readable=False, help="Folder of a sweep, or its sweep.json."),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Directory for the page; default: the sweep's own.")] = None,
) -> None:
    """Show a sweep: the best points, throughput against latency, heat maps, where the limit changes, memory.

    Raises:
        RequestError: there is no sweep.json, or it is not a sweep's.
    """
    from analysis.domain.convert import from_json_file
    from analysis.domain.sweep import Sweep
    from analysis.render import answers as printed
    from analysis.render.sweep.terminal import print_sweep
    from analysis.render.sweep.writing import SWEEP_FILE, write_sweep
    from analysis.sweep.answers import answers_of

    file = source / SWEEP_FILE if source.is_dir() else source
    if not file.is_file():
        raise RequestError(
            f"{file}: there is no such file; name the folder of a sweep (dsocr-profile sweep --out FOLDER)"
        )
    record = from_json_file(Sweep, file)
    answers = answers_of(record)
    written = write_sweep(answers, out or file.parent, file)
    print_sweep(answers, printed.console())
    printed.print_written(written)
