"""``dsocr-profile inputs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.domain.convert import to_json
from runner.cli.options import AsJson, Out

__all__ = ["inputs"]


def inputs(
    images: Annotated[Path | None, typer.Argument(help="Image or folder; none: the generated pages.")] = None,
    out: Out = Path("reports"),
    as_json: AsJson = False,
) -> None:
    """Show the input set: sizes, categories, hashes."""
    from runner.inputs.inputs import discover, sample_set

    input_set = sample_set(out / "sample-pages") if images is None else discover(images)
    if as_json:
        typer.echo(to_json(input_set))
        return
    for index, image in enumerate(input_set.images):
        typer.echo(f"{index:>3}  {image.width}×{image.height}  {image.category:<12} {image.path}")
