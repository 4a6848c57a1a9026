"""Read NVTX_EVENTS: ranges, marks, and the names of domains."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.domain.redaction import redacted, redacted_each
from analysis.trace import schema
from analysis.trace.buffers import IntColumn, KeyColumn, integers
from analysis.trace.database import Database, as_bytes
from analysis.trace.records import NO_VALUE, PROCESS_MASK, Marks, RangeRows

__all__ = ["NvtxReader"]

_PUSH_POP: Final = (59, 70)
_START_END: Final = (60, 71)
_MARK: Final = 34
_DOMAIN_CREATE: Final = 75
_UNNAMED: Final = "(unnamed)"


class NvtxReader:
    """NVTX events of one trace."""

    def __init__(self, database: Database, strings: dict[int, bytes], thread_codes: dict[Any, int]) -> None:
        self._database = database
        self._strings = strings
        self._thread_codes = thread_codes
        self.backwards = 0
        """Ranges that end before they start; known once `ranges` was called."""

    def _query(self, wanted: list[str], kinds: tuple[int, ...]) -> pa.Table | None:
        query = self._database.query(schema.NVTX, wanted)
        if query is None:
            return None
        has_text = self._database.has(schema.NVTX, "text")
        if has_text:
            query = query.add_columns(as_bytes("text").label("name"))
        if self._database.has(schema.NVTX, "eventType"):
            columns = {selected.name: selected for selected in query.selected_columns}
            query = query.where(columns["eventType"].in_(kinds)) if "eventType" in columns else query
        return self._database.table(query)

    @cached_property
    def _domains(self) -> dict[tuple[int, int], str]:
        """(process, domainId) → name. A domain may be created twice, once per thread: the names agree."""
        names: dict[tuple[int, int], str] = {}
        table = self._query(["eventType", "globalTid", "domainId", "textId"], (_DOMAIN_CREATE,))
        if table is None or not self._database.has(schema.NVTX, "eventType"):
            return names
        for row in table.to_pylist():
            name = row.get("name") or self._strings.get(row["textId"] if row["textId"] is not None else -1) or b""
            key = ((row["globalTid"] or 0) & PROCESS_MASK, row["domainId"] or 0)
            names[key] = redacted(name.decode("utf-8", "replace"))
        return names

    def marks(self) -> Marks:
        """All marks."""
        table = self._query(["start", "eventType", "globalTid", "domainId", "textId"], (_MARK,))
        if table is None or not self._database.has(schema.NVTX, "eventType"):
            return Marks((), (), ())
        rows = table.to_pylist()
        texts, domains = [], []
        for row in rows:
            text = row.get("name") or self._strings.get(row["textId"] if row["textId"] is not None else -1) or b""
            texts.append(text.decode("utf-8", "replace"))
            domains.append(self._domain_name((row["globalTid"] or 0) & PROCESS_MASK, row["domainId"] or 0))
        return Marks(tuple(row["start"] for row in rows), tuple(domains), tuple(redacted_each(texts)))

    def _domain_name(self, process: int, domain: int) -> str:
        if domain == 0:
            return ""
        return self._domains.get((process, domain), f"domain#{domain}")

    def ranges(self, end_of_trace: int) -> RangeRows:
        """All ranges, in the file's order.

        Args:
            end_of_trace: where ranges that were never closed end, ns.
        """
        payloads = ["int64Value", "uint64Value", "int32Value", "uint32Value"]
        payloads = [column for column in payloads if self._database.has(schema.NVTX, column)]
        wanted = ["start", "end", "eventType", "textId", "globalTid", "endGlobalTid", "domainId", *payloads]
        table = self._query(wanted, (*_PUSH_POP, *_START_END))
        if table is None:
            return _no_ranges()
        name_codes: dict[Any, int] = {}
        rows = table.num_rows
        start, end = IntColumn(rows, np.int64), IntColumn(rows, np.int64)
        kind, payload = IntColumn(rows, np.int16), IntColumn(rows, np.int64)
        name = KeyColumn(rows, name_codes)
        scope, thread, end_thread = KeyColumn(rows), KeyColumn(rows), KeyColumn(rows)
        for batch in table.to_batches():
            threads = integers(batch.column("globalTid"), -1)
            start.extend(integers(batch.column("start"), 0))
            end.extend(integers(batch.column("end"), NO_VALUE))
            kind.extend(integers(batch.column("eventType"), _PUSH_POP[0]))
            payload.extend(_first_of([integers(batch.column(column), NO_VALUE) for column in payloads], len(threads)))
            thread.extend(threads)
            end_thread.extend(integers(batch.column("endGlobalTid"), -1))
            scope.extend(_scope(threads, integers(batch.column("domainId"), 0)))
            self._extend_names(name, batch)
        closing = end.array()
        unclosed = closing == NO_VALUE
        opened = start.array()
        closing = np.where(unclosed, max(end_of_trace, int(opened.max(initial=0))), closing)
        # A name may come as a text here and as a string id there: one code for both.
        unique: dict[str, int] = {}
        names = redacted_each([self._name(key) for key in name_codes])
        same = np.array([unique.setdefault(text, len(unique)) for text in names] or [0], dtype=np.int32)
        self.backwards = int(np.count_nonzero(closing < opened))
        domain_names: dict[str, int] = {}
        by_scope = [
            domain_names.setdefault(self._domain_name(*_process_and_domain(process_and_domain)), len(domain_names))
            for process_and_domain in scope.values
        ]
        return RangeRows(
            start=opened,
            end=np.maximum(closing, opened),
            unclosed=unclosed,
            paired=np.isin(kind.array(), _PUSH_POP),
            name=same[name.array()],
            domain=np.array(by_scope, dtype=np.int16)[scope.array()] if by_scope else scope.array(),
            thread=self._threads(thread),
            end_thread=self._threads(end_thread),
            payload=payload.array().astype(np.int64),
            names=tuple(unique),
            domains=tuple(domain_names),
        )

    def _extend_names(self, name: KeyColumn, batch: pa.RecordBatch) -> None:
        """Name each range by its text, else by its string id: bytes and ints share one table of codes."""
        ids = batch.column("textId")
        if "name" not in batch.schema.names:
            name.extend(integers(ids, -1))
            return
        texts = batch.column("name")
        if pa.types.is_null(ids.type) or ids.null_count == len(ids):
            name.extend(texts)
            return
        coded_text, coded_id = KeyColumn(len(texts), name.codes), KeyColumn(len(texts), name.codes)
        coded_text.extend(texts)
        coded_id.extend(integers(ids, -1))
        blank = name.codes.get(b"", -1)
        by_text = coded_text.array()
        name.append_codes(np.where(by_text == blank, coded_id.array(), by_text).astype(np.int64))

    def _name(self, key: bytes | int) -> str:
        value = key if isinstance(key, bytes) else self._strings.get(key, b"")
        return value.decode("utf-8", "replace") or _UNNAMED

    def _threads(self, column: KeyColumn) -> NDArray[np.int32]:
        shared = [
            -1 if thread == -1 else self._thread_codes.setdefault(thread, len(self._thread_codes))
            for thread in column.values
        ]
        codes: NDArray[np.int32] = np.array([*shared, -1], dtype=np.int32)[column.array()]
        return codes


def _first_of(columns: list[NDArray[np.int64]], rows: int) -> NDArray[np.int64]:
    """Row by row, the first column that has a value."""
    first = np.full(rows, NO_VALUE, dtype=np.int64)
    for column in reversed(columns):
        first = np.where(column != NO_VALUE, column, first)
    return first


def _scope(threads: NDArray[np.int64], domains: NDArray[np.int64]) -> NDArray[np.int64]:
    """Process and domain in one integer: the process's low 24 bits are free for the domain."""
    return (threads & PROCESS_MASK) | (domains & 0xFFFFFF)


def _process_and_domain(scope: int) -> tuple[int, int]:
    return scope & PROCESS_MASK, scope & 0xFFFFFF


def _no_ranges() -> RangeRows:
    nothing = np.zeros(0, dtype=np.int64)
    return RangeRows(
        start=nothing, end=nothing, unclosed=nothing.astype(bool), paired=nothing.astype(bool), name=nothing,
        domain=nothing, thread=nothing, end_thread=nothing, payload=nothing, names=(), domains=(),
    )  # fmt: skip
