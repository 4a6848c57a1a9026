"""The check that every ``trace.sqlite`` passes before a run counts as captured."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from analysis.domain.errors import ExportError, NoEventsError

__all__ = ["check_trace"]


def check_trace(database: Path) -> dict[str, int]:
    """Check that an export is whole: SQLite's own check, its tables, and rows to look at.

    Returns:
        Rows per event table.

    Raises:
        ExportError: damaged, or no nsys export.
        NoEventsError: without any event.
    """
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            problems = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            rows = {
                table: int(connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])
                for table in sorted(tables)
                if table == "NVTX_EVENTS" or table.startswith("CUPTI_ACTIVITY_KIND_")
            }
    except sqlite3.Error as error:
        raise ExportError(
            f"{database}: the export is damaged ({error}); repeat it with `dsocr-profile resume`"
        ) from error
    if problems != ["ok"]:
        raise ExportError(
            f"{database}: the export is damaged ({'; '.join(problems)}); repeat it with `dsocr-profile resume`"
        )
    if "StringIds" not in tables:
        raise ExportError(f"{database}: not an nsys export: it has no table StringIds")
    if not any(rows.values()):
        raise NoEventsError(f"{database}: the capture holds no event at all (did the program reach the measured part?)")
    return rows
