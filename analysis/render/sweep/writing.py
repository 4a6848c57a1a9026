"""All files of a sweep: page, Markdown with its pictures, the record, and its points as CSV and Parquet."""

from __future__ import annotations

import io
from pathlib import Path

from analysis.domain.convert import to_json
from analysis.domain.files import write_text, write_with
from analysis.render.arrow import arrow_table, fill_parquet
from analysis.render.csv import write_csv
from analysis.render.spec.sweep import SWEEP_POINTS
from analysis.render.sweep.markdown import write_markdown
from analysis.render.sweep.page import write_page
from analysis.sweep.answers import SweepAnswers

__all__ = ["SWEEP_FILE", "write_sweep"]

SWEEP_FILE = "sweep.json"
"""The record: what the runner writes, and what is read."""


def write_sweep(answers: SweepAnswers, out: Path, source: Path) -> tuple[Path, ...]:
    """Write ``sweep.html``, ``sweep.md``, ``sweep.csv``, ``sweep.parquet`` and, where it is not there yet, ``sweep.json``.

    Args:
        answers: to show.
        out: folder; made if it is missing.
        source: the record that was read, which is never written anew: a sweep may still be adding points to it.

    Raises:
        RequestError: the folder cannot be written to.
    """
    points = answers.sweep.points
    text = io.StringIO()
    write_csv(SWEEP_POINTS, points, text)
    written = [
        write_page(answers, out),
        *write_markdown(answers, out),
        write_text(out / "sweep.csv", text.getvalue()),
        write_with(
            out / "sweep.parquet",
            lambda path: fill_parquet(arrow_table(SWEEP_POINTS, points), path),
        ),
    ]
    copy = out / SWEEP_FILE
    if copy.resolve() != source.resolve():
        written.append(write_text(copy, to_json(answers.sweep) + "\n"))
    return tuple(written)
