"""``kernels.parquet``: one row per stage and kernel, full names, integer nanoseconds."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from analysis.domain.entities import KernelSummary
from analysis.domain.files import write_with
from analysis.report import Report

__all__ = ["SCHEMA", "render", "table_of"]

_SHAPE: Final = pa.list_(pa.int64())
"""x, y, z."""
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
        ("grid", _SHAPE),
        ("block", _SHAPE),
        ("registers_per_thread", pa.int64()),
        ("theoretical_occupancy", pa.float64()),
        ("waves", pa.float64()),
    ]
)


def table_of(kernels: tuple[KernelSummary, ...]) -> Any:
    r"""The kernels as an Arrow table with `SCHEMA`. Halves of surrogate pairs in names become ``\udcff``.

    By way of JSON, because ``pyarrow.array`` of Python values loads pandas, which takes longer than all the rest.
    """
    if not kernels:
        return SCHEMA.empty_table()
    lines = [json.dumps({name: _value(getattr(kernel, name)) for name in SCHEMA.names}) for kernel in kernels]
    text = "\n".join(lines).encode()
    return pj.read_json(
        io.BytesIO(text),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(text) + 1),
        parse_options=pj.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="error"),
    )


def _value(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def render(report: Report, out: Path) -> tuple[Path, ...]:
    """Write ``kernels.parquet``.

    Raises:
        RequestError: the folder cannot be written to.
    """
    table = table_of(report.kernels)
    return (write_with(out / "kernels.parquet", lambda path: pq.write_table(table, path, compression="zstd")),)
