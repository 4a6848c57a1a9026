"""``review.json`` and ``counters.parquet``: everything that the review shows, for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.domain.convert import json_text, to_plain
from analysis.domain.files import write_text, write_with
from analysis.render.arrow import arrow_table, fill_parquet
from analysis.render.json import REVIEW_SCHEMA_VERSION
from analysis.render.spec.review import REVIEW_KERNELS, kernel_lines
from analysis.review import Review

__all__ = ["as_plain", "write_json", "write_parquet"]


def as_plain(review: Review) -> dict[str, Any]:
    """``schema_version``, then the fields of `Review`; times in ns, bytes, operations; unknown is null."""
    plain: dict[str, Any] = to_plain(review)
    return {"schema_version": REVIEW_SCHEMA_VERSION, **plain}


def write_json(review: Review, out: Path) -> Path:
    """Write ``review.json``.

    Raises:
        RequestError: the folder cannot be written to.
        ValueError: a number is not finite (a bug: JSON has none such).
    """
    text = json_text(as_plain(review))
    return write_text(out / "review.json", text + "\n")


def write_parquet(review: Review, out: Path) -> Path:
    """Write ``counters.parquet``: one row per stage, module, kernel and launch shape.

    Raises:
        RequestError: the folder cannot be written to.
    """
    table = arrow_table(REVIEW_KERNELS, kernel_lines(review, review.kernels))
    return write_with(out / "counters.parquet", lambda path: fill_parquet(table, path))
