"""``kernels.parquet``: one row per stage and kernel, full names, integer nanoseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.entities import KernelSummary
from analysis.render.files import write_with
from analysis.summaries import Report

__all__ = ["SCHEMA", "render", "table_of"]

_THREE: Final = pa.list_(pa.int64(), 3)
SCHEMA: Final = pa.schema(
    [
        ("stage", pa.string()),
        ("name", pa.string()),
        ("short_name", pa.string()),
        ("human_name", pa.string()),
        ("category", pa.string()),
        ("library", pa.string()),
        ("tensor_core", pa.bool_()),
        ("calls", pa.int64()),
        ("total_ns", pa.int64()),
        ("mean_ns", pa.float64()),
        ("median_ns", pa.float64()),
        ("p95_ns", pa.float64()),
        ("min_ns", pa.int64()),
        ("max_ns", pa.int64()),
        ("share", pa.float64()),
        ("per_token", pa.float64()),
        ("grid", _THREE),
        ("block", _THREE),
        ("registers_per_thread", pa.int64()),
        ("theoretical_occupancy", pa.float64()),
        ("waves", pa.float64()),
    ]
)


def table_of(kernels: tuple[KernelSummary, ...]) -> Any:
    r"""The kernels as an Arrow table with `SCHEMA`. Halves of surrogate pairs in names become ``\udcff``."""
    columns = {}
    for one in SCHEMA:
        values = [getattr(kernel, one.name) for kernel in kernels]
        if one.type == pa.string():
            values = [None if value is None else _utf8(value) for value in values]
        columns[one.name] = pa.array(values, type=one.type)
    return pa.table(columns, schema=SCHEMA)


def _utf8(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def render(report: Report, out: Path) -> tuple[Path, ...]:
    """Write ``kernels.parquet``.

    Raises:
        RequestError: the folder cannot be written to.
    """
    table = table_of(report.kernels)
    return (write_with(out / "kernels.parquet", lambda path: pq.write_table(table, path, compression="zstd")),)
