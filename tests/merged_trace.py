"""Two exports as one file, as nsys writes it when it follows several processes: for what must be the same both ways."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

__all__ = ["merge_exports"]

_EVENTS = (
    "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_MEMCPY", "CUPTI_ACTIVITY_KIND_MEMSET",
    "CUPTI_ACTIVITY_KIND_RUNTIME", "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION", "NVTX_EVENTS", "PROCESSES", "ThreadNames",
)  # fmt: skip
_NEVER_ANOTHER_PROCESS = 1 << 48
"""Added to ids of processes and threads: in the bits of the machine, so that no pid of one file is one of the other."""


def merge_exports(first: Path, second: Path, out: Path, *, shift_ns: int = 0) -> Path:
    """Write the rows of both exports into one.

    Args:
        first: taken as it is.
        second: its processes get ids of their own; correlation ids stay and so repeat.
        out: the file to write.
        shift_ns: added to the times of ``second``, so that one clock serves both.
    """
    shutil.copyfile(first, out)
    out.chmod(0o644)
    connection = sqlite3.connect(out, uri=True)
    connection.execute("ATTACH ? AS more", (f"file:{second}?mode=ro",))
    top = connection.execute("SELECT max(id) FROM StringIds").fetchone()[0] + 1
    connection.execute("INSERT INTO main.StringIds SELECT id + ?, value FROM more.StringIds", (top,))
    there = {name for (name,) in connection.execute("SELECT name FROM more.sqlite_master WHERE type = 'table'")}
    for table in _EVENTS:
        if table not in there:
            continue
        columns = [row[1] for row in connection.execute(f"PRAGMA more.table_info({table})")]
        listed = ", ".join(f'"{column}"' for column in columns)
        chosen = ", ".join(_shifted(column, top, shift_ns) for column in columns)
        connection.execute(f"INSERT INTO main.{table} ({listed}) SELECT {chosen} FROM more.{table}")
    connection.commit()
    connection.close()
    return out


def _shifted(column: str, strings: int, shift_ns: int) -> str:
    if column in ("start", "end"):
        return f'"{column}" + {shift_ns}'
    if column in ("nameId", "textId", "demangledName", "shortName", "mangledName"):
        return f'"{column}" + {strings}'
    if column in ("globalPid", "globalTid", "endGlobalTid"):
        return f'"{column}" + {_NEVER_ANOTHER_PROCESS}'
    return f'"{column}"'
