"""Two runs held against each other from a program or a notebook."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from analysis.api.options import AnalysisOptions
from analysis.api.sides import read_sides
from analysis.compare.comparison import compare
from analysis.compare.records import Comparison
from analysis.domain.bands import Band
from analysis.render.arrow import frame
from analysis.render.spec.compare import DIFF_CONTRIBUTIONS, DIFF_KERNELS, DIFF_SETTINGS, DIFF_STAGES
from analysis.render.spec.specification import Specification

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DIFF_TABLES", "diff", "frames"]

DIFF_TABLES: Final[dict[str, Specification[Any]]] = {
    "stages": DIFF_STAGES,
    "settings": DIFF_SETTINGS,
    "contributions": DIFF_CONTRIBUTIONS,
    "kernels": DIFF_KERNELS,
}
"""Field of `Comparison` → the declaration of its DataFrame."""


def diff(
    base: str | os.PathLike[str],
    new: str | os.PathLike[str],
    *,
    bands: Mapping[str, Band | float] | None = None,
    **stated: Any,
) -> Comparison:
    """Hold a run against another one, as ``dsocr-analyze diff`` does.

    >>> comparison = diff("runs/eager", "runs/cuda-graph")
    >>> comparison.headline

    Args:
        base: a run folder, a trace, a ``.nsys-rep`` or a ``report.json``.
        new: what is held against it.
        bands: stage → by how much unchanged runs of it differ on this machine, ns per unit; None: assumed.
        **stated: fields of `analysis.api.options.AnalysisOptions`, for both traces.

    Raises:
        TypeError: there is no such option.
        RequestError: an option says what it must not, or a report.json is not one of this release.
        TraceError: a trace cannot be found, exported or read.
        UnfitTraceError: by its own evidence a capture must not be trusted; ``accept_lossy=True`` reads it all the same.
    """
    first, second = read_sides([Path(base), Path(new)], AnalysisOptions(**stated))
    return compare(first, second, bands)


def frames(comparison: Comparison) -> dict[str, pd.DataFrame]:
    """A comparison's records as DataFrames, by the declarations that its page and files are rendered from.

    Args:
        comparison: from `diff`.

    Returns:
        ``stages``, ``settings``, ``contributions`` and ``kernels``; docs/columns.md lists their columns (``diff_…``).
    """
    return {name: frame(spec, getattr(comparison, name)) for name, spec in DIFF_TABLES.items()}
