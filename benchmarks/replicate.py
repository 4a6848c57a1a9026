"""Replicate a real trace to a given number of kernels: shifted times and ids, schema kept.

python benchmarks/replicate.py SOURCE.sqlite OUT.sqlite --kernels 1000000 [--processes 8]

The copies follow one another in time. With --processes P, copy i is laid into process i mod P, on a device of its own,
and P copies run at the same time, each process counting its correlation ids from where the others do: as eight ranks
in one report do.
"""

from __future__ import annotations

import argparse
import math
import sqlite3
import sys
from pathlib import Path

_TIMES = {"start", "end", "timestamp", "rawTimestamp"}
_EVENTS = (
    "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_MEMCPY", "CUPTI_ACTIVITY_KIND_MEMSET",
    "CUPTI_ACTIVITY_KIND_GRAPH_TRACE", "CUPTI_ACTIVITY_KIND_RUNTIME", "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION",
    "NVTX_EVENTS", "GPU_METRICS",
)  # fmt: skip
_DOMAIN_CREATE = 75


def replicate(source: Path, out: Path, kernels: int, processes: int) -> int:
    """Write ``out``; returns how many kernels it holds."""
    out.unlink(missing_ok=True)
    connection = sqlite3.connect(out, uri=True)
    connection.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-200000")
    connection.execute("ATTACH ? AS source", (f"file:{source}?mode=ro",))
    tables = connection.execute("SELECT name, sql FROM source.sqlite_master WHERE type = 'table'").fetchall()
    per_copy: int = connection.execute("SELECT count(*) FROM source.CUPTI_ACTIVITY_KIND_KERNEL").fetchone()[0]
    copies = math.ceil(kernels / per_copy)
    ends = [
        connection.execute(f"SELECT max(end) FROM source.{name}").fetchone()[0] or 0
        for name, _ in tables
        if name in _EVENTS and name != "GPU_METRICS"
    ]
    span = max(ends) + 1_000_000
    ids = connection.execute("SELECT max(correlationId) FROM source.CUPTI_ACTIVITY_KIND_RUNTIME").fetchone()[0] + 1
    connection.execute("CREATE TEMP TABLE copies (i INTEGER)")
    connection.executemany("INSERT INTO copies VALUES (?)", [(i,) for i in range(copies)])
    for name, sql in tables:
        connection.execute(sql)
        columns = [row[1] for row in connection.execute(f"PRAGMA source.table_info({name})")]
        listed = ", ".join(f'"{column}"' for column in columns)
        if name not in _EVENTS:
            connection.execute(f"INSERT INTO main.{name} ({listed}) SELECT {listed} FROM source.{name}")
            continue
        chosen = ", ".join(_shifted(column, span, ids, processes) for column in columns)
        only_once = f"WHERE c.i < {processes} OR t.eventType <> {_DOMAIN_CREATE}" if name == "NVTX_EVENTS" else ""
        connection.execute(
            f"INSERT INTO main.{name} ({listed}) SELECT {chosen} FROM copies c CROSS JOIN source.{name} t {only_once}"
        )
    stretch = (math.ceil(copies / processes) - 1) * span
    if "ANALYSIS_DETAILS" in {name for name, _ in tables}:
        connection.execute(
            "UPDATE main.ANALYSIS_DETAILS SET duration = duration + ?, stopTime = stopTime + ?", (stretch, stretch)
        )
    connection.commit()
    connection.close()
    return copies * per_copy


def _shifted(column: str, span: int, ids: int, processes: int) -> str:
    if column in _TIMES:
        return f't."{column}" + (c.i / {processes}) * {span}'
    if column == "correlationId":
        return f't."{column}" + (c.i / {processes}) * {ids}'
    if processes > 1 and column in ("globalPid", "globalTid", "endGlobalTid"):
        return f't."{column}" + ((c.i % {processes}) << 24)'
    if processes > 1 and column == "deviceId":
        return f"c.i % {processes}"
    return f't."{column}"'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kernels", type=int, required=True)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    if not arguments.source.is_file():
        sys.exit(f"{arguments.source}: no such file")
    made = replicate(arguments.source, arguments.out, arguments.kernels, arguments.processes)
    print(f"{arguments.out}: {made:,} kernels, {arguments.out.stat().st_size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
