"""``dsocr-profile inputs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.domain.convert import to_json
from runner.cli.options import AsJson, Out
from runner.cli.output import tell, tell_document

__all__ = ["inputs"]


def inputs(
    images: Annotated[Path | None, typer.Argument(help="Image, PDF or folder; none: the generated pages.")] = None,
    out: Out = Path("reports"),
    dpi: Annotated[int, typer.Option(min=36, max=1200, help="At which pages of PDF files are rendered.")] = 150,
    as_json: AsJson = False,
) -> None:
    """Show the input set: sizes, categories, hashes."""
    from runner.inputs.inputs import discover, sample_set

    if images is None:
        input_set = sample_set(out / "sample-pages")
    else:
        input_set = discover(images, rendered_into=out.expanduser().absolute() / "rendered-pages", dpi=dpi)
    if as_json:
        tell_document(to_json(input_set))
        return
    for index, image in enumerate(input_set.images):
        tell(f"{index:>3}  {image.width}×{image.height}  {image.category:<12} {image.path}")
