"""The raw samples of runs as one table: CSV, JSON or Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from analysis.domain.files import write_text, write_with
from analysis.domain.names import in_a_spreadsheet
from history.records import RecordedRun

__all__ = ["COLUMNS", "Format", "as_csv", "as_json", "rows", "write_parquet", "write_table"]

Format: TypeAlias = Literal["csv", "json", "parquet"]

COLUMNS: Final[dict[str, type]] = {
    "run_id": str,
    "started_at": datetime,
    "status": str,
    "model": str,
    "weights": str,
    "dtype": str,
    "gpu_name": str,
    "device": str,
    "driver": str,
    "decode_mode": str,
    "batch_size": int,
    "inputs_hash": str,
    "git_commit": str,
    "stage": str,
    "per": str,
    "pass_index": int,
    "image_index": int,
    "units": int,
    "ns": int,
    "ns_per_unit": float,
}
"""Column → type of its values; any but the first may be empty."""
_OF_THE_SAMPLE: Final = frozenset({"stage", "per", "pass_index", "image_index", "units", "ns", "ns_per_unit"})


def rows(recorded: Iterable[RecordedRun]) -> Iterator[dict[str, Any]]:
    """Give a row per sample: what ran, and what it took."""
    for one_run in recorded:
        for sample in one_run.samples:
            yield {name: getattr(sample if name in _OF_THE_SAMPLE else one_run.run, name) for name in COLUMNS}


def as_csv(table: Iterable[dict[str, Any]]) -> str:
    """Write CSV with a line of names; unknown is empty. Texts that a spreadsheet would take for a formula get a quote."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _in_a_cell(value) for name, value in row.items()} for row in table)
    return text.getvalue()


def as_json(table: Iterable[dict[str, Any]]) -> str:
    """Write a list of objects; unknown is null."""
    return json.dumps(list(table), indent=1, ensure_ascii=False, default=lambda moment: moment.isoformat()) + "\n"


def write_table(path: Path, table: Iterable[dict[str, Any]], kind: Format) -> None:
    """Write a file, whole or not at all.

    Raises:
        RequestError: it cannot be written.
    """
    if kind == "parquet":
        write_parquet(path, table)
    else:
        write_text(path, as_csv(table) if kind == "csv" else as_json(table))


def write_parquet(path: Path, table: Iterable[dict[str, Any]]) -> None:
    """Write Parquet; raises RequestError if it cannot be written."""
    import pyarrow as pa  # a tenth of a second that no other command of the history needs
    import pyarrow.parquet as pq

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), datetime: pa.timestamp("us", tz="UTC")}
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    arrow = pa.Table.from_pylist(list(table), schema=schema)

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:  # opened here: Arrow takes no path that is not UTF-8
            pq.write_table(arrow, file)

    write_with(path, fill)


def _in_a_cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return in_a_spreadsheet(value) if isinstance(value, str) else value
