"""Tables and columns come and go between exports: what is missing is either not needed, or named in an error."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from analysis.attribution.attribution import Attribution
from analysis.domain.errors import TraceSchemaError
from analysis.sums.tables import gpu_table
from analysis.trace.reader import Trace
from whole_trace import read_everything, whole

TABLES = [
    "StringIds", "META_DATA_EXPORT", "META_DATA_CAPTURE", "PROCESSES", "ANALYSIS_DETAILS", "TARGET_INFO_GPU",
    "TARGET_INFO_CUDA_DEVICE", "CUPTI_ACTIVITY_KIND_MEMCPY", "CUPTI_ACTIVITY_KIND_MEMSET", "NVTX_EVENTS",
    "CUPTI_ACTIVITY_KIND_RUNTIME", "CUPTI_ACTIVITY_KIND_KERNEL",
]  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_table_missing(tmp_path: Path, table: str) -> None:
    """Tables are created lazily: whatever is missing, the rest is still read, and adds up."""
    read_everything(whole().without(table).write(tmp_path / "trace.sqlite"))


REQUIRED = [
    ("CUPTI_ACTIVITY_KIND_KERNEL", "start"), ("CUPTI_ACTIVITY_KIND_KERNEL", "end"),
    ("CUPTI_ACTIVITY_KIND_MEMCPY", "start"), ("CUPTI_ACTIVITY_KIND_MEMSET", "end"),
    ("CUPTI_ACTIVITY_KIND_RUNTIME", "start"), ("CUPTI_ACTIVITY_KIND_RUNTIME", "end"),
    ("NVTX_EVENTS", "start"), ("StringIds", "value"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "column"), REQUIRED)
def test_required_column_missing(tmp_path: Path, table: str, column: str) -> None:
    with pytest.raises(TraceSchemaError, match=rf"table {table} has no column {column}"):
        read_everything(whole().without_column(table, column).write(tmp_path / "trace.sqlite"))


def columns_of(path: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND c.pk = 0"
    ).fetchall()
    connection.close()
    return rows


def test_any_optional_column_missing(tmp_path: Path) -> None:
    """One by one, every column that a real export has and that we do not require."""
    required = {*REQUIRED, ("CUPTI_ACTIVITY_KIND_MEMCPY", "end"), ("CUPTI_ACTIVITY_KIND_MEMSET", "start")}
    required |= {("PROCESSES", "globalPid"), ("ANALYSIS_DETAILS", "duration"), ("TARGET_INFO_GPU", "name")}
    required |= {("TARGET_INFO_CUDA_DEVICE", one) for one in ("gpuId", "cudaId", "pid")}
    required |= {(table, one) for table in ("META_DATA_EXPORT", "META_DATA_CAPTURE") for one in ("name", "value")}
    optional = [one for one in columns_of(whole().write(tmp_path / "whole.sqlite")) if one not in required]
    assert len(optional) > 100
    for table, column in optional:
        read_everything(whole().without_column(table, column).write(tmp_path / "trace.sqlite"))


@pytest.mark.parametrize(
    "column", ["deviceId", "streamId", "globalPid", "graphNodeId", "demangledName", "shortName", "gridX", "contextId"]
)
def test_optional_column_missing_changes_no_sum(tmp_path: Path, column: str) -> None:
    with Trace(whole().without_column("CUPTI_ACTIVITY_KIND_KERNEL", column).write(tmp_path / "trace.sqlite")) as trace:
        rows = gpu_table(Attribution.of(trace), "stage").rows()
    assert [(row["name"], row["kernels"], row["kernel_sum_ns"]) for row in rows[:2]] == [
        ("prefill", 1, 30),
        ("decode", 1, 20),
    ]


@pytest.mark.parametrize("old", [False, True])
def test_metadata_of_an_old_export(tmp_path: Path, old: bool) -> None:
    built = whole().product_version("2022.4.2.1")
    with Trace((built.old_metadata() if old else built).write(tmp_path / "trace.sqlite")) as trace:
        assert trace.info.product == "NVIDIA Nsight Systems 2022.4.2.1"
        assert trace.info.schema_version == "3.20.3"
