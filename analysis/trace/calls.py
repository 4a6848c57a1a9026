"""Read the CUDA API calls: those that can own GPU work or make the host wait whole, of the others their times."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from sqlalchemy.sql.expression import ColumnElement

from analysis.trace import schema
from analysis.trace.buffers import IntColumn, KeyColumn
from analysis.trace.database import Database, Stretch
from analysis.trace.packing import joined, packed
from analysis.trace.records import Calls, OtherCalls

__all__ = ["CallPart", "combine_calls", "names_of", "read_call_part", "threads_of"]

_NEVER_OWNS_WORK: Final = re.compile(
    rb"cu(da)?(Kernel(Get|Set)|Get|TensorMapEncode|Stream(IsCapturing|GetCaptureInfo|GetPriority|GetFlags|Query)|"
    rb"ThreadExchangeStreamCaptureMode|Event(Query|Create|Destroy|ElapsedTime)|FuncGet|Occupancy|DeviceGet|Device_?Can|"
    rb"PointerGet|PeekAtLastError|CtxGet|CtxSet|CtxPush|CtxPop|SetDevice|LibraryGet|ModuleGet|DriverGet|RuntimeGet)"
)
"""Calls that neither own GPU work nor wait: most rows of an API table."""

_LOW: Final = 0xFFFFFFFF


@frozen(eq=False)
class CallPart:
    """Rows of the API table, or of a stretch of it. Codes are the part's own."""

    start: NDArray[np.int64]
    duration: NDArray[Any]
    correlation: NDArray[Any]
    thread: KeyColumn
    name: KeyColumn
    """By string id and returned code, packed."""
    other_start: NDArray[np.int64]
    """Of the calls that own no work and do not wait; so are the next two."""
    other_duration: NDArray[Any]
    other_thread: KeyColumn
    backwards: int
    """Rows that end before they start."""


def _packed_name(there: list[str]) -> ColumnElement[Any]:
    """Returned code << 32 | string id: both have few distinct values."""
    parts = [("returnValue", 32, 0), ("nameId", 0, _LOW)]
    plain, with_nulls = (joined(parts, there=set(there), nulls=nulls) for nulls in (False, True))
    return packed(schema.CALLS, there, plain, with_nulls)


def _name_and_result(packed: int) -> tuple[int, int]:
    """String id (-1: none) and returned code."""
    low = packed & _LOW
    return (-1 if low == _LOW else low), packed >> 32


def read_call_part(database: Database, strings: dict[int, bytes], rows: Stretch | None = None) -> CallPart | None:
    """Read the API table: of most calls no more than when they ran, and on which thread.

    Args:
        database: the trace.
        strings: of the trace, to tell which calls can own work or wait.
        rows: which of them; None: all.

    Returns:
        None where the file has no such table.
    """
    spec = schema.CALLS
    query = database.query(spec, ["start", "end", "globalTid", "correlationId"])
    if query is None:
        return None
    names_and_results = [name for name in ("returnValue", "nameId") if database.has(spec, name)]
    query = query.add_columns(_packed_name(names_and_results).label("name"))
    rows = rows or Stretch(database.last_row(spec))
    query, count = rows.of(query), rows.count
    start, duration, correlation = IntColumn(count, np.int64), IntColumn(count), IntColumn(count)
    thread, name = KeyColumn(count), KeyColumn(count)
    other_start, other_duration, other_thread = IntColumn(count, np.int64), IntColumn(count), KeyColumn(count)
    own: list[bool] = []
    backwards = 0
    for batch in database.batches(query, spec):
        begun = database.integers(batch, spec, "start", 0)
        lasted = database.integers(batch, spec, "end", 0) - begun
        if lasted.size and int(lasted.min()) < 0:
            backwards += int(np.count_nonzero(lasted < 0))
            lasted = np.maximum(lasted, 0)
        names = name.encode(database.packed(batch, spec, "name", tuple(names_and_results), _LOW))
        for name_and_result in name.values[len(own) :]:
            string, _ = _name_and_result(name_and_result)
            own.append(_NEVER_OWNS_WORK.match(strings.get(string, b"")) is None)
        mine = np.array(own, dtype=bool)[names]
        threads = database.integers(batch, spec, "globalTid", -1)
        ids = database.integers(batch, spec, "correlationId", -1)
        if not mine.all():
            other_start.extend(begun[~mine])
            other_duration.extend(lasted[~mine])
            other_thread.extend(threads[~mine])
            begun, lasted, threads, ids, names = begun[mine], lasted[mine], threads[mine], ids[mine], names[mine]
        start.extend(begun)
        duration.extend(lasted)
        correlation.extend(ids)
        thread.extend(threads)
        name.append_codes(names)
    return CallPart(
        start=start.array().astype(np.int64, copy=False),
        duration=duration.array(),
        correlation=correlation.array(),
        thread=thread,
        name=name,
        other_start=other_start.array().astype(np.int64, copy=False),
        other_duration=other_duration.array(),
        other_thread=other_thread,
        backwards=backwards,
    )


def names_of(part: CallPart) -> set[int]:
    """Ids of the strings that name a part's calls."""
    return {_name_and_result(name_and_result)[0] for name_and_result in part.name.values} - {-1}


def threads_of(part: CallPart) -> set[int]:
    """Global thread ids of a part's calls."""
    return {*part.thread.values, *part.other_thread.values} - {-1}


def combine_calls(parts: list[CallPart], text: Any, thread_codes: dict[Any, int]) -> tuple[Calls, OtherCalls]:
    """Put the parts together, sorted by thread, then start.

    Args:
        parts: in the file's order.
        text: string id → text.
        thread_codes: global thread id → code; new ones are added.
    """
    names: dict[tuple[int, int], int] = {}

    def joined(columns: list[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(columns or [np.zeros(0, dtype=np.int64)])

    def threads(columns: list[KeyColumn]) -> NDArray[Any]:
        return joined([column.recode(column.values, thread_codes, blank=-1) for column in columns])

    columns = {
        "start": joined([part.start for part in parts]),
        "duration": joined([part.duration for part in parts]),
        "correlation": joined([part.correlation for part in parts]),
        "thread": threads([part.thread for part in parts]),
        "name": joined(
            [part.name.recode([_name_and_result(packed) for packed in part.name.values], names) for part in parts]
        ),
    }
    others = {
        "start": joined([part.other_start for part in parts]),
        "duration": joined([part.other_duration for part in parts]),
        "thread": threads([part.other_thread for part in parts]),
    }
    calls = Calls(
        **_in_order(columns),
        names=tuple("" if string == -1 else text(string) for string, _ in names),
        results=np.array([result for _, result in names] or [0], dtype=np.int64),
    )
    return calls, OtherCalls(**_in_order(others))


def _in_order(columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Rows by thread, then start."""
    order = _by_thread_then_start(columns["thread"], columns["start"])
    return columns if order is None else {key: values[order] for key, values in columns.items()}


def _by_thread_then_start(thread: NDArray[Any], start: NDArray[np.int64]) -> NDArray[np.intp] | None:
    """Order by thread, then start; None: the rows are so already."""
    if start.size < 2:
        return None
    same = thread[1:] == thread[:-1]
    if bool(np.all((thread[1:] > thread[:-1]) | (same & (start[1:] >= start[:-1])))):
        return None
    order: NDArray[np.intp] = np.argsort(start, kind="stable")
    return order[np.argsort(thread[order], kind="stable")]
