"""``kernels.parquet``: one row per stage and kernel, full names, integer nanoseconds."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from analysis.domain.files import write_with
from analysis.render.arrow import arrow_table
from analysis.render.spec import kernels
from analysis.report import Report

__all__ = ["render"]


def render(report: Report, out: Path) -> tuple[Path, ...]:
    """Write ``kernels.parquet``.

    Raises:
        RequestError: the folder cannot be written to.
    """
    table = arrow_table(kernels.KERNELS, report.kernels)
    return (write_with(out / "kernels.parquet", lambda path: pq.write_table(table, path, compression="zstd")),)
