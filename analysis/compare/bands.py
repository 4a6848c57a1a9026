"""A/A bands from a file, for the machine that they were measured on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.compare.sides import Side
from analysis.domain.bands import Band, Bands
from analysis.domain.convert import from_json_file
from analysis.domain.errors import RequestError

__all__ = ["read_bands"]


def read_bands(path: Path, sides: Sequence[Side]) -> dict[str, Band]:
    """Read the bands that ``dsocr-profile ab`` wrote.

    Args:
        path: ``bands.json``.
        sides: that they are for, the base first.

    Returns:
        By stage, ns per unit.

    Raises:
        RequestError: it is no such file, was measured on another device or with another model than a side, or with another
            decode mode than the base.
    """
    bands = from_json_file(Bands, path)
    for summary in (side.summary() for side in sides):
        for what, measured, there in (("on", bands.device, summary.device), ("with", bands.model, summary.model)):
            if measured is not None and there is not None and measured != there:
                raise RequestError(
                    f"{path}: was measured {what} {measured}, and {summary.label} ran {what} {there}: leave out --band, or "
                    "measure it there (dsocr-profile ab)"
                )
    manifest = sides[0].report.manifest if sides else None
    # By the base alone: a comparison of two modes has no band of its own, and the wider one, as base, claims less.
    if bands.decode is not None and manifest is not None and manifest.decode_mode not in (None, bands.decode):
        raise RequestError(
            f"{path}: was measured with decode {bands.decode}, and {sides[0].label} ran with {manifest.decode_mode}: leave out "
            "--band, or measure it so (dsocr-profile ab)"
        )
    return dict(bands.bands)
