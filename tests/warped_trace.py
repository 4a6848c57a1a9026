"""A copied export in which time runs slower while chosen kernels run: what a slower kernel would have made of the capture.

Every moment of every table goes through one rising function of time, so that order, nesting and what waits for what stay as they
were, and each second in which one of the kernels ran lasts longer.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from analysis.attribution.attribution import Attribution
from analysis.trace.reader import Trace
from analysis.trace.records import KERNEL

__all__ = ["fuse_kernels", "rename_kernels", "slow_down"]

MOMENTS = ("start", "end", "timestamp", "rawTimestamp")


def slow_down(source: Path, target: Path, module: Callable[[str], bool], factor: float) -> int:
    """Copy an export and let the kernels of some modules last longer.

    Args:
        source: the export.
        target: the copy.
        module: of a module's path, whether its kernels are meant.
        factor: how much longer.

    Returns:
        By how much the capture became longer, ns.
    """
    with Trace(source) as trace:
        attribution = Attribution.of(trace)
        of_range, names = attribution.module_names
        operations = attribution.operations
        wanted = np.array([module(name) for name in names] + [False])
        chosen = wanted[of_range[attribution.operation_level("module")]] & (operations.kind == KERNEL)
        start, end = operations.start[chosen], operations.end[chosen]
    order = np.argsort(start)
    start, end = start[order], end[order]
    assert (start[1:] >= end[:-1]).all(), "kernels that overlap would be slowed twice"
    added = np.rint((factor - 1) * (end - start)).astype(np.int64)
    before = np.concatenate(([0], np.cumsum(added)[:-1]))
    moments = np.stack([start, end], axis=1).ravel()
    moved = np.stack([start + before, end + before + added], axis=1).ravel()
    shutil.copyfile(source, target)
    with closing(sqlite3.connect(target)) as database, database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            if not table.startswith(("CUPTI_ACTIVITY_KIND", "NVTX_EVENTS", "CUDA_GRAPH_NODE")):
                continue
            for column in [row[1] for row in database.execute(f'PRAGMA table_info("{table}")') if row[1] in MOMENTS]:
                rows = database.execute(f'SELECT rowid, "{column}" FROM "{table}" WHERE "{column}" NOT NULL').fetchall()
                if rows:
                    row, value = np.array(rows, dtype=np.int64).T
                    # Within the kernels time is stretched, behind them moved; exact to the nanosecond.
                    place = np.searchsorted(moments, value, side="right") - 1
                    inside = (place >= 0) & (place % 2 == 0) & (place < moments.size - 1)
                    at = np.clip(place, 0, moments.size - 1)
                    late = np.where(place < 0, value, moved[at] + value - moments[at])
                    new = np.where(inside, np.rint(np.interp(value, moments, moved)).astype(np.int64), late)
                    database.executemany(
                        f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?',
                        zip(new.tolist(), row.tolist(), strict=True),
                    )
    return int(added.sum())


def rename_kernels(source: Path, target: Path, rename: Callable[[str], str]) -> int:
    """Copy an export and give names other words, as another release of a library would.

    Returns:
        How many names were changed.
    """
    shutil.copyfile(source, target)
    with closing(sqlite3.connect(target)) as database, database:
        names = database.execute("SELECT id, value FROM StringIds").fetchall()
        changed = [(new, key) for key, name in names if (new := rename(name)) != name]
        database.executemany("UPDATE StringIds SET value = ? WHERE id = ?", changed)
    return len(changed)


def fuse_kernels(
    source: Path,
    target: Path,
    module: Callable[[str], bool],
    parts: Callable[[str], bool],
    into: Callable[[str], bool],
    fused: str,
) -> int:
    """Copy an export and let one kernel of a module do the work of several: the others did not run.

    Args:
        source: the export.
        target: the copy.
        module: of a module's path, whether it is meant.
        parts: of a demangled name, whether the kernel is one of those that are fused.
        into: which of them stands for all.
        fused: its new name.

    Returns:
        How many launches are gone.
    """
    with Trace(source) as trace:
        attribution = Attribution.of(trace)
        of_range, names = attribution.module_names
        operations = attribution.operations
        inside = np.array([module(name) for name in names] + [False])[of_range[attribution.operation_level("module")]]
        wanted = np.array([parts(name) for name in operations.names])[operations.name]
        stays = np.array([into(name) for name in operations.names])[operations.name]
        chosen = inside & (operations.kind == KERNEL) & wanted
        gone, renamed = operations.start[chosen & ~stays].tolist(), operations.start[chosen & stays].tolist()
    shutil.copyfile(source, target)
    with closing(sqlite3.connect(target)) as database, database:
        (key,) = database.execute("SELECT max(id) + 1 FROM StringIds").fetchone()
        database.execute("INSERT INTO StringIds (id, value) VALUES (?, ?)", (key, fused))
        # Kernels of one stream never begin at the same moment.
        database.executemany("DELETE FROM CUPTI_ACTIVITY_KIND_KERNEL WHERE start = ?", ((start,) for start in gone))
        database.executemany(
            "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET demangledName = ?, shortName = ? WHERE start = ?",
            ((key, key, start) for start in renamed),
        )
    return len(gone)
