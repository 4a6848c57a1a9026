"""Damage to the schema of a trace: other tables, columns, types and names than those of the version that is known."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fuzz.rows import OPERATIONS, columns_of, tables_of

if TYPE_CHECKING:
    from fuzz.cases import Claim

__all__ = ["change_schema"]

_MAIN: Final = (*OPERATIONS, "CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS", "StringIds", "CUDA_GRAPH_NODE_EVENTS",
                "TARGET_INFO_GPU", "TARGET_INFO_CUDA_DEVICE", "META_DATA_EXPORT", "META_DATA_CAPTURE", "PROCESSES",
                "ThreadNames", "ANALYSIS_DETAILS")  # fmt: skip
_TYPES: Final = ("TEXT", "REAL", "BLOB", "NUMERIC", "", "VARCHAR(3)", "INTEGER")


def change_schema(draw: random.Random, path: Path) -> tuple[str, Claim]:
    """Change a trace's schema; returns what was done, and what is known of it."""
    database = sqlite3.connect(path, isolation_level=None)
    with closing(database):
        database.execute("PRAGMA synchronous = OFF")
        present = [name for name in tables_of(database) if name in _MAIN]
        table = draw.choice(present)
        columns = columns_of(database, table)
        column = draw.choice(columns)
        way = draw.choice(("drop table", "drop column", "drop column", "rename column", "rename table", "retype",
                           "retype", "view", "view", "without rowid", "no type", "names", "old names", "trigger",
                           "virtual", "other case", "empty", "integer key"))  # fmt: skip
        database.execute("PRAGMA legacy_alter_table = ON")
        try:
            return _change(draw, database, way, table, columns, column)
        except sqlite3.Error as error:
            return f"{way} of {table}.{column} is not possible ({error})", "anything"


def _change(
    draw: random.Random, database: sqlite3.Connection, way: str, table: str, columns: list[str], column: str
) -> tuple[str, Claim]:
    what = f"{way}: {table}"
    claim: Claim = "anything"
    if way == "drop table":
        database.execute(f'DROP TABLE "{table}"')
    elif way == "drop column":
        database.execute(f'ALTER TABLE "{table}" DROP COLUMN "{column}"')
        what += f".{column}"
    elif way == "rename column":
        name = draw.choice((column.upper() + "_", 'a "b"', "naïve", "select", "rowid"))
        quoted = name.replace('"', '""')
        database.execute(f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "{quoted}"')
        what += f".{column} to {name!r}"
    elif way == "rename table":
        database.execute(f'ALTER TABLE "{table}" RENAME TO "{table}_V2"')
    elif way == "retype":
        kind = draw.choice(_TYPES)
        _made_anew(database, table, [f'"{name}" {kind if name == column else ""}' for name in columns])
        what += f".{column} as {kind!r}"
    elif way == "no type":
        _made_anew(database, table, [f'"{name}"' for name in columns])
        claim = "harmless"  # integers without an affinity are integers still
    elif way == "view":
        database.execute(f'ALTER TABLE "{table}" RENAME TO "behind_{table}"')
        database.execute(f'CREATE VIEW "{table}" AS SELECT * FROM "behind_{table}"')
        claim = "broken"  # the same rows: refused, or the same figures
    elif way == "without rowid":
        names = [f'"{name}"' for name in columns]
        _made_anew(database, table, ["fuzz_key INTEGER PRIMARY KEY", *names], "WITHOUT ROWID", "rowid, *")
        claim = "broken"
    elif way == "integer key":
        names = [f'"{name}"' for name in columns]
        _made_anew(database, table, [*names, "fuzz_key INTEGER PRIMARY KEY"], "", "*, 1000000007 * rowid")
        claim = "harmless" if table != "StringIds" else "anything"
    elif way == "names":
        bad = draw.choice((b"caf\xe9", b"\xff\xfe", b"a\x1b[2Jb", b"\xed\xa0\x80"))
        _name_in_bytes(database, bad)
        what, claim = f"a table and a column called {bad!r}", "broken"
    elif way == "old names":
        database.execute("ALTER TABLE META_DATA_EXPORT RENAME TO EXPORT_META_DATA")
        what, claim = "the export's table under its old name", "harmless"
    elif way == "trigger":
        database.execute(f"CREATE TRIGGER fuzz AFTER INSERT ON \"{table}\" BEGIN SELECT load_extension('x'); END")
        claim = "harmless"
    elif way == "virtual":
        database.execute(f'DROP TABLE "{table}"')
        kind = draw.choice(('fts5(start, "end")', 'rtree(id, start, "end")'))
        database.execute(f'CREATE VIRTUAL TABLE "{table}" USING {kind}')
    elif way == "other case":
        database.execute(f'ALTER TABLE "{table}" RENAME TO "fuzz_between"')
        database.execute(f'ALTER TABLE "fuzz_between" RENAME TO "{table.swapcase()}"')
    else:
        database.execute(f'DELETE FROM "{table}"')
    return what, claim


def _made_anew(
    database: sqlite3.Connection, table: str, columns: list[str], ending: str = "", selected: str = "*"
) -> None:
    database.execute("BEGIN")
    database.execute(f'ALTER TABLE "{table}" RENAME TO fuzz_old')
    database.execute(f'CREATE TABLE "{table}" ({", ".join(columns)}) {ending}')
    database.execute(f'INSERT INTO "{table}" SELECT {selected} FROM fuzz_old ORDER BY rowid')
    database.execute("DROP TABLE fuzz_old")
    database.execute("COMMIT")


def _name_in_bytes(database: sqlite3.Connection, name: bytes) -> None:
    """Give a table and a column a name that Python would not write: through the schema's own text."""
    database.execute("CREATE TABLE placeholder_t (placeholder_c INTEGER)")
    database.execute("PRAGMA writable_schema = ON")
    database.execute(
        "UPDATE sqlite_master SET name = CAST(?1 AS TEXT), tbl_name = CAST(?1 AS TEXT), "
        "sql = CAST(?2 AS TEXT) WHERE name = 'placeholder_t'",
        (name, b'CREATE TABLE "' + name + b'" ("' + name + b'" INTEGER)'),
    )
    database.execute("PRAGMA writable_schema = OFF")
