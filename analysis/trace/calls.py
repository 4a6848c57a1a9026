"""Read the CUDA API calls that can own GPU work or make the host wait."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from sqlalchemy import column

from analysis.trace import schema
from analysis.trace.buffers import IntColumn, KeyColumn, integers
from analysis.trace.database import Database
from analysis.trace.records import Calls

__all__ = ["CallPart", "combine_calls", "read_call_part"]

_NEVER_OWNS_WORK: Final = re.compile(
    rb"cu(da)?(Kernel(Get|Set)|Get|TensorMapEncode|Stream(IsCapturing|GetCaptureInfo|GetPriority|GetFlags|Query)|"
    rb"ThreadExchangeStreamCaptureMode|Event(Query|Create|Destroy|ElapsedTime)|FuncGet|Occupancy|DeviceGet|Device_?Can|"
    rb"PointerGet|PeekAtLastError|CtxGet|CtxSet|CtxPush|CtxPop|SetDevice|LibraryGet|ModuleGet|DriverGet|RuntimeGet)"
)
"""Calls that neither own GPU work nor wait: most rows of an API table, never read."""


@frozen(eq=False)
class CallPart:
    """Rows of the API table, or of a stretch of it. Codes are the part's own."""

    start: NDArray[np.int64]
    duration: NDArray[Any]
    correlation: NDArray[Any]
    thread: KeyColumn
    name: KeyColumn
    backwards: int
    """Rows that end before they start."""


def read_call_part(
    database: Database, strings: dict[int, bytes], rows: tuple[int, int] | None = None
) -> CallPart | None:
    """Read the API table.

    Args:
        database: the trace.
        strings: of the trace, to tell which names to leave out.
        rows: first and last row id, to read a stretch only.

    Returns:
        None where the file has no such table.
    """
    spec = schema.CALLS
    never = [key for key, value in strings.items() if _NEVER_OWNS_WORK.match(value)]
    query = database.query(spec, ["start", "globalTid", "correlationId", "nameId"])
    if query is None:
        return None
    query = query.add_columns((column("end") - column("start")).label("duration"))
    if never and database.has(spec, "nameId"):
        query = query.where(column("nameId").not_in(never) | column("nameId").is_(None))
    count = database.last_row(spec)
    if rows is not None:
        count = rows[1] - rows[0] + 1
        query = query.where(column("rowid").between(*rows))
    start, duration, correlation = IntColumn(count, np.int64), IntColumn(count), IntColumn(count)
    thread, name = KeyColumn(count), KeyColumn(count)
    backwards = 0
    for batch in database.batches(query):
        start.extend(integers(batch.column("start"), 0))
        lasted = integers(batch.column("duration"), 0)
        backwards += int(np.count_nonzero(lasted < 0))
        duration.extend(np.maximum(lasted, 0))
        correlation.extend(integers(batch.column("correlationId"), -1))
        thread.extend(integers(batch.column("globalTid"), -1))
        name.extend(integers(batch.column("nameId"), -1))
    return CallPart(
        start.array().astype(np.int64, copy=False), duration.array(), correlation.array(), thread, name, backwards
    )


def combine_calls(parts: list[CallPart], text: Any, thread_codes: dict[Any, int]) -> Calls:
    """Put the parts together, sorted by thread, then start.

    Args:
        parts: in the file's order.
        text: string id → text.
        thread_codes: global thread id → code; new ones are added.
    """
    names: dict[Any, int] = {}
    nothing = np.zeros(0, dtype=np.int64)
    columns: dict[str, NDArray[Any]] = {
        "start": np.concatenate([part.start for part in parts] or [nothing]),
        "duration": np.concatenate([part.duration for part in parts] or [nothing]),
        "correlation": np.concatenate([part.correlation for part in parts] or [nothing]),
        "thread": np.concatenate(
            [part.thread.recode(part.thread.values, thread_codes, blank=-1) for part in parts] or [nothing]
        ),
        "name": np.concatenate([part.name.recode(part.name.values, names) for part in parts] or [nothing]),
    }
    order = _by_thread_then_start(columns["thread"], columns["start"])
    if order is not None:
        columns = {key: values[order] for key, values in columns.items()}
    return Calls(**columns, names=tuple("" if one == -1 else text(one) for one in names))


def _by_thread_then_start(thread: NDArray[Any], start: NDArray[np.int64]) -> NDArray[np.intp] | None:
    """Order by thread, then start; None: the rows are so already."""
    if start.size < 2:
        return None
    same = thread[1:] == thread[:-1]
    if bool(np.all((thread[1:] > thread[:-1]) | (same & (start[1:] >= start[:-1])))):
        return None
    order: NDArray[np.intp] = np.argsort(start, kind="stable")
    return order[np.argsort(thread[order], kind="stable")]
