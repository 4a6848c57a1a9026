"""What any analysis of a trace must at least pay: python benchmarks/floor.py TRACE.sqlite aggregate|merge

aggregate  SQLite's own sums over the columns that the report reads, filtered as the report filters them: no column
           leaves the database.
merge      the aggregate's columns fetched as Arrow, kernels joined to calls by correlation id, calls placed among the
           range starts by one sorted merge: an attribution without levels, tables or a report.
"""

from __future__ import annotations

import sqlite3
import sys

_KERNELS = (
    "SELECT sum(end - start), sum(start & 1), sum(correlationId), sum(globalPid & 1), sum(demangledName), sum(shortName), "
    "sum(deviceId), sum(streamId), sum(gridX | gridY | gridZ), sum(blockX | blockY | blockZ), "
    "sum(registersPerThread | staticSharedMemory | dynamicSharedMemory) FROM CUPTI_ACTIVITY_KIND_KERNEL"
)
_CALLS = (
    "SELECT sum(end - start), sum(start & 1), sum(correlationId), sum(globalTid & 1), sum(nameId) "
    "FROM CUPTI_ACTIVITY_KIND_RUNTIME WHERE nameId NOT IN (SELECT id FROM StringIds WHERE value GLOB 'cuKernel*' "
    "OR value GLOB 'cu*Get*' OR value GLOB 'cuTensorMap*' OR value GLOB 'cudaStreamIs*')"
)
_RANGES = (
    "SELECT sum(end - start), sum(eventType), sum(globalTid & 1), sum(domainId), sum(length(text)) FROM NVTX_EVENTS"
)


def aggregate(path: str) -> None:
    connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    for query in (_KERNELS, _CALLS, _RANGES):
        connection.execute(query).fetchall()


def merge(path: str) -> None:
    import adbc_driver_manager
    import adbc_driver_sqlite
    import numpy as np
    import pyarrow

    database = adbc_driver_manager.AdbcDatabase(
        driver=adbc_driver_sqlite._driver_path(), uri=f"file:{path}?mode=ro&immutable=1"
    )

    def fetch(query: str) -> list[np.ndarray]:
        connection = adbc_driver_manager.AdbcConnection(database)
        statement = adbc_driver_manager.AdbcStatement(connection)
        statement.set_options(**{"adbc.sqlite.query.batch_rows": "65536"})
        statement.set_sql_query(query)
        stream, _ = statement.execute_query()
        table = pyarrow.RecordBatchReader._import_from_c(stream.address).read_all()
        return [column.to_numpy() for column in table.columns]

    start, end, ids = fetch("SELECT start, end, correlationId FROM CUPTI_ACTIVITY_KIND_KERNEL")
    call_start, call_ids = fetch("SELECT start, correlationId FROM CUPTI_ACTIVITY_KIND_RUNTIME")
    (range_start,) = fetch("SELECT start FROM NVTX_EVENTS WHERE eventType = 59 ORDER BY start")
    order = np.argsort(call_ids, kind="stable")
    owner = order[np.searchsorted(call_ids[order], ids)]
    place = np.searchsorted(range_start, call_start[owner], side="right")
    np.bincount(place, weights=end - start)


if __name__ == "__main__":
    {"aggregate": aggregate, "merge": merge}[sys.argv[2]](sys.argv[1])
