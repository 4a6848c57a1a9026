"""Read NVTX_EVENTS: ranges, marks, and the names of domains."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sqlalchemy import column, literal_column, not_, or_
from sqlalchemy.sql.expression import ColumnElement

from analysis.domain.redaction import redacted, redacted_each
from analysis.trace import schema
from analysis.trace.buffers import IntColumn, KeyColumn
from analysis.trace.database import Database, as_bytes
from analysis.trace.records import NO_VALUE, PROCESS_MASK, Marks, RangeRows

__all__ = ["NvtxReader"]

_PUSH_POP: Final = (59, 70)
_START_END: Final = (60, 71)
_MARK: Final = 34
_DOMAIN_CREATE: Final = 75
_LARGEST_KIND: Final = 2**31 - 1
_UNNAMED: Final = "(unnamed)"


class NvtxReader:
    """NVTX events of one trace."""

    def __init__(self, database: Database, strings: dict[int, bytes], thread_codes: dict[Any, int]) -> None:
        self._database = database
        self._strings = strings
        self._thread_codes = thread_codes
        self.backwards = 0
        """Ranges that end before they start; known once `ranges` was called, as is the next."""
        self.threads: set[int] = set()
        """Global thread ids of ranges."""
        self.nameless = False
        """Whether the name of a range is a string of StringIds without a text."""

    def _batches(self, wanted: list[str], kinds: tuple[int, ...]) -> list[pa.RecordBatch]:
        """Columns of the events of these kinds, and their text, as ``name``; with them what is no kind at all, to be refused."""
        query = self._database.query(schema.NVTX, wanted)
        if query is None:
            return []
        if self._database.has(schema.NVTX, "text"):
            query = query.add_columns(as_bytes("text").label("name"))
        if self._database.has(schema.NVTX, "eventType"):
            kind: ColumnElement[Any] = column("eventType")
            no_kind: ColumnElement[bool] = literal_column("typeof(eventType) <> 'integer'")
            query = query.where(or_(kind.in_(kinds), no_kind, not_(kind.between(0, _LARGEST_KIND))))
        return list(self._database.batches(query, schema.NVTX))

    def _numbers(self, batch: pa.RecordBatch, name: str, blank: int) -> NDArray[np.int64]:
        return self._database.integers(batch, schema.NVTX, name, blank)

    def _instants(self, kind: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Start, thread, domain and text of the events of a kind that have no end."""
        if not self._database.has(schema.NVTX, "eventType"):
            return
        for batch in self._batches(["start", "eventType", "globalTid", "domainId", "textId"], (kind,)):
            kinds, start, thread, domain, ids = (
                self._numbers(batch, name, blank)
                for name, blank in (("eventType", 0), ("start", 0), ("globalTid", 0), ("domainId", 0), ("textId", -1))
            )
            texts = batch.column("name").to_pylist() if "name" in batch.schema.names else [b""] * len(kinds)
            rows = zip(*(values.tolist() for values in (kinds, start, thread, domain, ids)), texts, strict=True)
            for of_kind, at, thread_id, domain_id, string, text in rows:
                if of_kind == kind:
                    yield at, thread_id, domain_id, text or self._strings.get(string, b"")

    @cached_property
    def _domains(self) -> dict[tuple[int, int], str]:
        """(process, domainId) → name. A domain may be created twice, once per thread: the names agree."""
        return {
            (thread & PROCESS_MASK, domain): redacted(name.decode("utf-8", "replace"))
            for _, thread, domain, name in self._instants(_DOMAIN_CREATE)
        }

    def marks(self) -> Marks:
        """All marks."""
        marks = [
            (at, self._domain_name(thread & PROCESS_MASK, domain), text.decode("utf-8", "replace"))
            for at, thread, domain, text in self._instants(_MARK)
        ]
        if not marks:
            return Marks((), (), ())
        starts, domains, texts = zip(*marks, strict=True)
        return Marks(starts, domains, tuple(redacted_each(list(texts))))

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
        payloads = [name for name in payloads if self._database.has(schema.NVTX, name)]
        wanted = ["start", "end", "eventType", "textId", "globalTid", "endGlobalTid", "domainId", *payloads]
        batches = self._batches(wanted, (*_PUSH_POP, *_START_END))
        if not batches:
            return _no_ranges()
        name_codes: dict[Any, int] = {}
        rows = sum(batch.num_rows for batch in batches)
        start, end = IntColumn(rows, np.int64), IntColumn(rows, np.int64)
        kind, payload = IntColumn(rows, np.int16), IntColumn(rows, np.int64)
        name = KeyColumn(rows, name_codes)
        scope, thread, end_thread = KeyColumn(rows), KeyColumn(rows), KeyColumn(rows)
        for batch in batches:
            threads = self._numbers(batch, "globalTid", -1)
            start.extend(self._numbers(batch, "start", 0))
            end.extend(self._numbers(batch, "end", NO_VALUE))
            kind.extend(self._numbers(batch, "eventType", _PUSH_POP[0]))
            payload.extend(_first_of([self._numbers(batch, name, NO_VALUE) for name in payloads], len(threads)))
            thread.extend(threads)
            end_thread.extend(self._numbers(batch, "endGlobalTid", -1))
            scope.extend(_scope(threads, self._numbers(batch, "domainId", 0)))
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
        self.threads = {*thread.values, *end_thread.values} - {-1}
        if self._database.has(schema.STRINGS) and any(
            key >= 0 and key not in self._strings for key in name_codes if not isinstance(key, bytes)
        ):
            self._database.suspect(schema.NVTX, ("textId",))
        self.nameless = any(
            not isinstance(key, bytes) and self._strings.get(key, b"-") in (b"", None) for key in name_codes
        )
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
            name.extend(self._numbers(batch, "textId", -1))
            return
        texts = batch.column("name")
        if pa.types.is_null(ids.type) or ids.null_count == len(ids):
            name.extend(texts)
            return
        coded_text, coded_id = KeyColumn(len(texts), name.codes), KeyColumn(len(texts), name.codes)
        coded_text.extend(texts)
        coded_id.extend(self._numbers(batch, "textId", -1))
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
    for values in reversed(columns):
        first = np.where(values != NO_VALUE, values, first)
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
