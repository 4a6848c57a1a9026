"""Damage to rows of a trace: values of used columns, and what happened to whole rows and tables."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fuzz.cases import Claim

__all__ = ["OPERATIONS", "VALUES", "change_rows", "change_unused", "columns_of", "tables_of"]

OPERATIONS: Final = (
    "CUPTI_ACTIVITY_KIND_KERNEL",
    "CUPTI_ACTIVITY_KIND_MEMCPY",
    "CUPTI_ACTIVITY_KIND_MEMSET",
    "CUPTI_ACTIVITY_KIND_GRAPH_TRACE",
)
_CALLS: Final = "CUPTI_ACTIVITY_KIND_RUNTIME"
_RANGES: Final = "NVTX_EVENTS"
_SECOND: Final = 1_000_000_000

VALUES: Final[dict[str, Any]] = {
    "text": "abc",
    "long text": "x" * 300_000,
    "hostile text": '=HYPERLINK("//x")\x1b[2J</script>\u202e\n',
    "empty text": "",
    "blob": b"\xff\x00\xfe",
    "empty blob": b"",
    "fraction": 1234.5,
    "infinity": float("inf"),
    "NULL": None,
    "NaN": float("nan"),  # which SQLite stores as NULL
    "2**63-1": 2**63 - 1,
    "-2**63": -(2**63),
    "2**62": 2**62,
    "-1": -1,
    "0": 0,
    "1": 1,
    "2**31": 2**31,
    "2**32": 2**32,
    "10**15": 10**15,
}
_WRONG_TYPE: Final = ("text", "long text", "hostile text", "empty text", "blob", "empty blob", "fraction", "infinity")
_HUGE: Final = ("2**63-1", "-2**63", "2**62")
_TIME: Final = (*_WRONG_TYPE, *_HUGE, "NULL", "NaN")

IMPOSSIBLE: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    **{(table, "start"): _TIME for table in (*OPERATIONS, _CALLS)},
    **{(table, "end"): (*_TIME, "-1", "0", "1") for table in (*OPERATIONS, _CALLS)},
    **{(table, "deviceId"): (*_WRONG_TYPE, *_HUGE, "-1") for table in OPERATIONS},
    **{(table, "streamId"): _WRONG_TYPE for table in OPERATIONS},
    **{(table, "correlationId"): _WRONG_TYPE for table in (*OPERATIONS, _CALLS)},
    **{(table, "globalPid"): _WRONG_TYPE for table in OPERATIONS},
    (_CALLS, "globalTid"): _WRONG_TYPE,
    (_CALLS, "nameId"): _WRONG_TYPE,
    **{(OPERATIONS[0], f"{what}{axis}"): (*_WRONG_TYPE, *_HUGE, "-1", "0") for what in ("grid", "block")
       for axis in "XYZ"},
    (OPERATIONS[0], "registersPerThread"): (*_WRONG_TYPE, *_HUGE, "-1"),
    (OPERATIONS[0], "staticSharedMemory"): (*_WRONG_TYPE, *_HUGE, "-1"),
    (OPERATIONS[0], "dynamicSharedMemory"): (*_WRONG_TYPE, *_HUGE, "-1"),
    (OPERATIONS[0], "demangledName"): _WRONG_TYPE,
    (OPERATIONS[0], "shortName"): _WRONG_TYPE,
    (OPERATIONS[0], "graphNodeId"): _WRONG_TYPE,
    (OPERATIONS[1], "bytes"): (*_WRONG_TYPE, *_HUGE, "-1"),
    (OPERATIONS[1], "copyKind"): _WRONG_TYPE,
    (OPERATIONS[2], "bytes"): (*_WRONG_TYPE, *_HUGE, "-1"),
    (_RANGES, "start"): _TIME,
    (_RANGES, "end"): (*_WRONG_TYPE, *_HUGE, "-1"),
    (_RANGES, "eventType"): _WRONG_TYPE,
    (_RANGES, "domainId"): _WRONG_TYPE,
    (_RANGES, "globalTid"): _WRONG_TYPE,
    (_RANGES, "textId"): _WRONG_TYPE,
    (_RANGES, "int64Value"): ("text", "long text", "hostile text", "blob", "fraction", "infinity"),
    ("CUDA_GRAPH_NODE_EVENTS", "start"): _TIME,
    ("CUDA_GRAPH_NODE_EVENTS", "graphNodeId"): (*_WRONG_TYPE, "NULL"),
    ("CUDA_GRAPH_NODE_EVENTS", "originalGraphNodeId"): _WRONG_TYPE,
    ("TARGET_INFO_GPU", "smCount"): (*_WRONG_TYPE, *_HUGE, "-1", "0"),
    ("ANALYSIS_DETAILS", "duration"): (*_WRONG_TYPE, *_HUGE, "-1"),
}  # fmt: skip
"""Used column → values that cannot be true of one row."""

_FREE: Final = (
    ("StringIds", "value"), ("PROCESSES", "pid"), ("PROCESSES", "name"), ("PROCESSES", "globalPid"),
    ("META_DATA_EXPORT", "value"), ("META_DATA_EXPORT", "name"), ("META_DATA_CAPTURE", "value"),
    ("META_DATA_CAPTURE", "name"), ("TARGET_INFO_GPU", "name"), ("TARGET_INFO_GPU", "totalMemory"),
    ("TARGET_INFO_GPU", "memoryBandwidth"), ("TARGET_INFO_GPU", "clockRate"), ("TARGET_INFO_GPU", "computeMajor"),
    ("TARGET_INFO_GPU", "maxWarpsPerSm"), ("TARGET_INFO_GPU", "maxRegistersPerSm"), ("TARGET_INFO_GPU", "id"),
    ("TARGET_INFO_CUDA_DEVICE", "gpuId"), ("TARGET_INFO_CUDA_DEVICE", "cudaId"), ("TARGET_INFO_CUDA_DEVICE", "pid"),
    ("DIAGNOSTIC_EVENT", "text"), ("DIAGNOSTIC_EVENT", "timestamp"), ("ThreadNames", "nameId"), (_RANGES, "text"),
    ("ThreadNames", "globalTid"), ("ANALYSIS_DETAILS", "startTime"), ("PROFILER_OVERHEAD", "start"),
    ("PROFILER_OVERHEAD", "end"), ("TARGET_INFO_SESSION_START_TIME", "utcEpochNs"), (_CALLS, "returnValue"),
    (_RANGES, "endGlobalTid"), ("CUDA_GRAPH_NODE_EVENTS", "globalTid"), (OPERATIONS[3], "graphId"),
)  # fmt: skip
"""Used columns of which any value may be refused, reported or read."""


def tables_of(database: sqlite3.Connection) -> list[str]:
    """Names of the tables, in order."""
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in rows if not name.startswith("sqlite_")]


def columns_of(database: sqlite3.Connection, table: str) -> list[str]:
    """Names of a table's columns, in order."""
    return [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]


def _rows_to_change(
    draw: random.Random, database: sqlite3.Connection, table: str, where: str = "1"
) -> tuple[list[int], str]:
    """Row ids: one, some, or all; and in words."""
    rows = [row for (row,) in database.execute(f'SELECT rowid FROM "{table}" WHERE {where} ORDER BY rowid')]
    if not rows:
        return [], "no row"
    many = draw.choice((1, 1, 2, max(1, len(rows) // 50), max(1, len(rows) // 4), len(rows)))
    chosen = rows if many >= len(rows) else draw.sample(rows, many)
    return chosen, f"{len(chosen)} of {len(rows)} rows of {table}"


def change_rows(draw: random.Random, path: Path) -> tuple[str, Claim]:
    """Change a trace; returns what was done, and what is known of it."""
    with closing(sqlite3.connect(path)) as database, database:
        way = draw.choices(
            (_impossible_value, _free_value, _swap, _delete, _duplicate, _shift, _several, _all_together),
            (10, 6, 3, 3, 2, 3, 3, 3),
        )[0]
        return way(draw, database)


def _set(
    database: sqlite3.Connection, table: str, column: str, rows: list[int], value: Any
) -> tuple[int, sqlite3.Error | None]:
    """Write a value; how many rows now hold another one, and what SQLite refused."""
    before = database.total_changes
    try:
        database.executemany(
            f'UPDATE "{table}" SET "{column}" = ?1 WHERE rowid = ?2 AND ("{column}" IS NOT ?1)',
            [(value, row) for row in rows],
        )
    except sqlite3.Error as error:  # a primary key that must be an integer, a column that must not be NULL
        return 0, error
    return database.total_changes - before, None


def _impossible_value(draw: random.Random, database: sqlite3.Connection) -> tuple[str, Claim]:
    there = {table: set(columns_of(database, table)) for table in tables_of(database)}
    table, column = draw.choice([key for key in IMPOSSIBLE if key[1] in there.get(key[0], ())])
    name = draw.choice(IMPOSSIBLE[table, column])
    # Marks and the creations of domains have no end and are no ranges; what has no name by id is not read there.
    where = "1"
    if table == _RANGES:
        where = "eventType IN (59, 60)" if column not in ("textId", "int64Value") else f"{column} NOT NULL"
    elif column.startswith(("graphNode", "originalGraph")):
        where = f"{column} NOT NULL"
    elif column in ("nameId", "correlationId"):
        where = "correlationId IN (SELECT correlationId FROM CUPTI_ACTIVITY_KIND_KERNEL)"
    rows, words = _rows_to_change(draw, database, table, where)
    if column == "end" and name in ("-1", "0", "1"):
        begun = dict(database.execute(f'SELECT rowid, start FROM "{table}"'))
        rows = [row for row in rows if begun[row] > 1]
    changed, refused = _set(database, table, column, rows, VALUES[name])
    what = f"{column} = {name} in {words}"
    return (what, "impossible") if changed and refused is None else (f"{what} (not possible)", "anything")


def _free_value(draw: random.Random, database: sqlite3.Connection) -> tuple[str, Claim]:
    there = {table: set(columns_of(database, table)) for table in tables_of(database)}
    used = [key for key in (*_FREE, *IMPOSSIBLE) if key[1] in there.get(key[0], ())]
    table, column = draw.choice(used)
    rows, words = _rows_to_change(draw, database, table)
    if draw.random() < 0.3:
        what = f"{column} = any number in {words}"
        for row in rows:
            number = draw.choice((draw.randrange(2**63), draw.randrange(2**32), -draw.randrange(2**63)))
            _set(database, table, column, [row], number)
    else:
        name = draw.choice(tuple(VALUES))
        what = f"{column} = {name} in {words}"
        _set(database, table, column, rows, VALUES[name])
    return what, "anything"


def _swap(draw: random.Random, database: sqlite3.Connection) -> tuple[str, Claim]:
    table = draw.choice([name for name in tables_of(database) if name in (*OPERATIONS, _CALLS, _RANGES)])
    rows, words = _rows_to_change(draw, database, table, '"end" > "start"')
    database.executemany(f'UPDATE "{table}" SET start = "end", "end" = start WHERE rowid = ?', [(row,) for row in rows])
    return f"start and end swapped in {words}", "impossible" if rows else "anything"


def _delete(draw: random.Random, database: sqlite3.Connection) -> tuple[str, Claim]:
    table = draw.choice(tables_of(database))
    rows, words = _rows_to_change(draw, database, table)
    database.executemany(f'DELETE FROM "{table}" WHERE rowid = ?', [(row,) for row in rows])
    return f"{words} deleted", "anything"


def _duplicate(draw: random.Random, database: sqlite3.Connection) -> tuple[str, Claim]:
    table = draw.choice([name for name in tables_of(database) if name != "StringIds"])
    rows, words = _rows_to_change(draw, database, table)
    columns = ", ".join(f'"{name}"' for name in columns_of(database, table))
    try:
        database.executemany(
            f'INSERT INTO "{table}" ({columns}) SELECT {columns} FROM "{table}" WHERE rowid = ?',
            [(row,) for row in rows],
        )
    except sqlite3.IntegrityError:
        return f"{words} could not be duplicated", "anything"
    return f"{words} are there twice", "anything"


def _shift(draw: random.Random, database: sqlite3.Connection) -> tuple[str, Claim]:
    """Move the clock of the GPU, of the calls or of the ranges."""
    wanted = draw.choice((OPERATIONS, OPERATIONS, (_CALLS,), (_RANGES,)))
    by = draw.choice((-3600 * _SECOND, -10 * _SECOND, -1_000_000, 1_000_000, 10 * _SECOND, 3600 * _SECOND, 2**60))
    tables = [name for name in tables_of(database) if name in wanted]
    for table in tables:
        database.execute(f'UPDATE "{table}" SET start = start + ?1, "end" = "end" + ?1', (by,))
    # Work on the GPU that begins long before it was launched; other shifts may be those of a slow program.
    before_launch = (wanted is OPERATIONS and by <= -10 * _SECOND) or (wanted == (_CALLS,) and by >= 10 * _SECOND)
    return f"clock of {', '.join(tables)} moved by {by} ns", "impossible" if before_launch else "anything"


def _several(draw: random.Random, database: sqlite3.Connection) -> tuple[str, Claim]:
    ways: tuple[Callable[[random.Random, sqlite3.Connection], tuple[str, Claim]], ...] = (
        _impossible_value, _free_value, _swap, _delete, _duplicate, _shift,
    )  # fmt: skip
    words = []
    for _ in range(draw.randint(2, 5)):
        try:
            words.append(draw.choice(ways)(draw, database)[0])
        except (sqlite3.Error, TypeError):  # what is there now cannot be changed so
            continue
    return "; ".join(words), "anything"


_FEWEST: Final = 600
"""Kernels and calls from which a real trace's times tell that they are in another unit."""
_OF_A_KERNEL: Final = f'correlationId IN (SELECT correlationId FROM "{OPERATIONS[0]}")'


def _all_together(draw: random.Random, database: sqlite3.Connection) -> tuple[str, Claim]:
    """Change a whole column so that its rows still agree with each other, and no program can have made them."""
    kernels, calls = OPERATIONS[0], f'"{_CALLS}"'
    there = set(tables_of(database))
    columns = {table: set(columns_of(database, table)) for table in there}

    def number(sql: str) -> int:
        return int(database.execute(f"SELECT {sql}").fetchone()[0] or 0)

    if kernels not in there or _CALLS not in there or "streamId" not in columns[kernels]:
        return "nothing was changed together", "anything"
    rows = number(f'count(*) FROM "{kernels}"')
    ways: dict[str, tuple[bool, tuple[str, ...]]] = {
        "a stream for every kernel": (rows >= 200, (f'UPDATE "{kernels}" SET streamId = rowid',)),
        "all kernels take 2,000 ns": (
            rows >= 200 and number(f'count(DISTINCT demangledName) FROM "{kernels}"') >= 5,
            (f'UPDATE "{kernels}" SET "end" = start + 2000',),
        ),
        "one name for all kernels": (
            rows >= _FEWEST and number(f'count(DISTINCT registersPerThread) FROM "{kernels}"') > 3,
            tuple(
                f'UPDATE "{kernels}" SET {name} = (SELECT min({name}) FROM "{kernels}")'
                for name in ("demangledName", "shortName")
            ),
        ),
        "all launches failed": (
            number(f"count(*) FROM {calls} WHERE {_OF_A_KERNEL}") > 0,
            (f"UPDATE {calls} SET returnValue = 700 WHERE {_OF_A_KERNEL}",),
        ),
        "copies of nothing": (
            OPERATIONS[1] in there and number(f'sum(bytes > 0) FROM "{OPERATIONS[1]}"') > 0,
            (f'UPDATE "{OPERATIONS[1]}" SET bytes = 0',),
        ),
    }
    timed = [table for table in (*OPERATIONS, _CALLS, _RANGES) if table in there]
    for factor in (7, 1_000, 1_000_000):
        ways[f"all times × {factor}"] = (
            rows >= _FEWEST and number(f"count(*) FROM {calls}") >= _FEWEST,
            (
                *(f'UPDATE "{table}" SET start = start * {factor}, "end" = "end" * {factor}' for table in timed),
                *(
                    (f"UPDATE ANALYSIS_DETAILS SET {', '.join(f'{name} = {name} * {factor}' for name in _SESSION)}",)
                    if "ANALYSIS_DETAILS" in there
                    else ()
                ),
            ),
        )
    told = sorted(name for name, (tells, _) in ways.items() if tells)
    if not told:
        return "nothing was changed together", "anything"
    name = draw.choice(told)
    for statement in ways[name][1]:
        database.execute(statement)
    return name, "impossible"


_SESSION: Final = ("duration", "startTime", "stopTime")


# --- what nobody reads ---------------------------------------------------------------------------------------------


def change_unused(draw: random.Random, path: Path) -> tuple[str, Claim]:
    """Change what must not matter."""
    way = draw.choice((_order, _indices, _vacuum, _extra_tables, _extra_columns, _other_rows, _pages, _wal))
    database = sqlite3.connect(path, isolation_level=None)
    with closing(database):
        return way(draw, database), "harmless"


def _order(draw: random.Random, database: sqlite3.Connection) -> str:
    chosen = [name for name in tables_of(database) if name in (*OPERATIONS, _CALLS, "CUDA_GRAPH_NODE_EVENTS")]
    table = draw.choice(chosen)
    columns = columns_of(database, table)
    rows = database.execute(f'SELECT * FROM "{table}"').fetchall()
    draw.shuffle(rows)
    database.execute("BEGIN")
    database.execute(f'DELETE FROM "{table}"')
    database.executemany(f'INSERT INTO "{table}" VALUES ({",".join("?" * len(columns))})', rows)
    database.execute("COMMIT")
    return f"rows of {table} in another order"


def _indices(draw: random.Random, database: sqlite3.Connection) -> str:
    for number, table in enumerate(draw.sample(tables_of(database), 3)):
        column = draw.choice(columns_of(database, table))
        database.execute(f'CREATE INDEX fuzz_{number} ON "{table}" ("{column}")')
    database.execute("ANALYZE")
    return "three indices and their statistics"


def _vacuum(draw: random.Random, database: sqlite3.Connection) -> str:
    size = draw.choice((512, 1024, 8192, 32768, 65536))
    database.execute(f"PRAGMA page_size = {size}")
    database.execute("VACUUM")
    return f"pages of {size} bytes"


def _extra_tables(draw: random.Random, database: sqlite3.Connection) -> str:
    names = draw.sample(
        ("COMPOSITE_EVENTS", "OSRT_API", 'a "quoted" name', "naïve\N{SNOWMAN}", "SCHED_EVENTS", " ", "select"), 3
    )
    for name in names:
        quoted = name.replace('"', '""')
        database.execute(f'CREATE TABLE "{quoted}" (start, "end" TEXT, "a b" BLOB)')
        database.execute(f"INSERT INTO \"{quoted}\" VALUES ('x', -1, 2.5)")
    return f"tables {names}"


def _extra_columns(draw: random.Random, database: sqlite3.Connection) -> str:
    table = draw.choice(tables_of(database))
    database.execute(f'ALTER TABLE "{table}" ADD COLUMN "fuzz ""column" TEXT DEFAULT \'x\'')
    return f"a column more in {table}"


def _other_rows(draw: random.Random, database: sqlite3.Connection) -> str:
    unused = [
        (table, column)
        for table, column in (
            (OPERATIONS[0], "localMemoryTotal"), (OPERATIONS[0], "cacheConfig"), (_CALLS, "callchainId"),
            ("TARGET_INFO_GPU", "uuid"), ("TARGET_INFO_GPU", "busLocation"), ("CUPTI_ACTIVITY_KIND_SYNCHRONIZATION", "start"),
            (_RANGES, "jsonTextId"), (_RANGES, "color"), ("ThreadNames", "priority"),
        )
        if table in tables_of(database) and column in columns_of(database, table)
    ]  # fmt: skip
    table, column = draw.choice(unused)
    name = draw.choice(tuple(VALUES))
    try:
        database.execute(f'UPDATE "{table}" SET "{column}" = ?', (VALUES[name],))
    except sqlite3.IntegrityError:
        return f"{column} of {table} as it was"
    return f"{column} = {name} in all rows of {table}, which nothing reads"


def _pages(draw: random.Random, database: sqlite3.Connection) -> str:
    number = draw.randrange(2**31)
    database.execute(f"PRAGMA user_version = {number}")
    database.execute(f"PRAGMA application_id = {number}")
    return "another user_version and application_id"


def _wal(draw: random.Random, database: sqlite3.Connection) -> str:
    del draw
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return "in write-ahead mode, checkpointed"
