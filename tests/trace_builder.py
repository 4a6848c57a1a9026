"""Writes synthetic traces with the schema of a real export, in a few lines per case.

    TraceBuilder().range("prefill", 0, 100, domain="dsocr").launch(10, 12, kernel=("gemm", 50, 80)).write(path)

Every method returns the builder. Ranges and calls go to the current thread (`thread`); times are nanoseconds. As in a
real export, a table exists only if it has rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

__all__ = ["COPY_KINDS", "PUSH_POP", "START_END", "TraceBuilder", "process_id", "thread_id"]

PUSH_POP, START_END = 59, 60
_MARK, _DOMAIN_CREATE = 34, 75
COPY_KINDS = {"HtoD": 1, "DtoH": 2, "DtoD": 8}
_SCHEMA = Path(__file__).with_name("data") / "schema_2025_3.sql"
_ALWAYS = ("StringIds", "META_DATA_EXPORT", "META_DATA_CAPTURE", "PROCESSES")

Kernel = tuple[str, int, int]
"""Demangled name, start, end."""


def process_id(pid: int, vm: int = 1) -> int:
    """Serialised global process id: 8 bits of machine above 24 bits of pid above 24 free bits."""
    return vm << 48 | pid << 24


def thread_id(pid: int, tid: int, vm: int = 1) -> int:
    return process_id(pid, vm) | tid


class TraceBuilder:
    """Collects rows; `write` makes the file."""

    def __init__(self) -> None:
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _ALWAYS}
        self._strings: dict[str, int] = {}
        self._domains: dict[tuple[int, str], int] = {}
        self._dropped_tables: set[str] = set()
        self._dropped_columns: list[tuple[str, str]] = []
        self._renamed: dict[str, str] = {}
        self._correlation = 100
        self._range_id = 0
        self.current = 0
        self.thread(1, 1)
        for name, value in (
            ("EXPORT_PRODUCT_NAME", "NVIDIA Nsight Systems"),
            ("EXPORT_PRODUCT_VERSION", "2025.3.2.0"),
            ("EXPORT_SCHEMA_VERSION", "3.20.3"),
        ):
            self._add("META_DATA_EXPORT", name=name, value=value)

    def _add(self, table: str, **row: Any) -> None:
        self._rows.setdefault(table, []).append(row)

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings) + 1)

    # --- where ------------------------------------------------------------------------------------------------

    def thread(self, pid: int, tid: int, vm: int = 1) -> Self:
        """What follows happens on this thread."""
        self.current = thread_id(pid, tid, vm)
        process = process_id(pid, vm)
        if not any(row["globalPid"] == process for row in self._rows["PROCESSES"]):
            self._add("PROCESSES", globalPid=process, pid=pid, name=f"python{pid}")
        return self

    def thread_name(self, name: str) -> Self:
        """Name the current thread."""
        self._add("ThreadNames", nameId=self._string(name), priority=20, globalTid=self.current)
        return self

    @property
    def process(self) -> int:
        return self.current & ~0xFFFFFF

    # --- NVTX -------------------------------------------------------------------------------------------------

    def create_domain(self, name: str, *, domain_id: int | None = None, again: bool = False) -> Self:
        """Write a domain's creation; ``again`` repeats it under the same id, as a second thread does."""
        if again:
            domain_id = self._domains[self.process, name]
        elif domain_id is None:
            domain_id = 1 + sum(process == self.process for process, _ in self._domains)
        self._domains[self.process, name] = domain_id
        self._add(
            "NVTX_EVENTS", start=-1000, eventType=_DOMAIN_CREATE, text=name, globalTid=self.current, domainId=domain_id
        )
        return self

    def _domain_id(self, name: str | None) -> int:
        if not name:
            return 0
        if (self.process, name) not in self._domains:
            self.create_domain(name)
        return self._domains[self.process, name]

    def range(
        self,
        name: str | None,
        start: int,
        end: int | None,
        *,
        domain: str | None = None,
        domain_id: int | None = None,
        style: int = PUSH_POP,
        end_thread: int | None = None,
        registered: bool = False,
        payload: int | None = None,
        payload_column: str = "int64Value",
    ) -> Self:
        """Add a range.

        Args:
            name: None: both ``text`` and ``textId`` are NULL.
            start: ns.
            end: ns; None: never closed.
            domain: name; created on first use. None: the default domain.
            domain_id: an id that nothing creates, instead of a name.
            style: event type.
            end_thread: global id of the thread that ended it.
            registered: the name goes to StringIds.
            payload: a number.
            payload_column: where it goes.
        """
        self._range_id += 1
        row: dict[str, Any] = {
            "start": start,
            "end": end,
            "eventType": style,
            "rangeId": self._range_id,
            "globalTid": self.current,
            "endGlobalTid": end_thread,
            "domainId": self._domain_id(domain) if domain_id is None else domain_id,
        }
        if name is not None:
            row["textId" if registered else "text"] = self._string(name) if registered else name
        if payload is not None:
            row[payload_column] = payload
        self._add("NVTX_EVENTS", **row)
        return self

    def mark(self, text: str, at: int, *, domain: str | None = None) -> Self:
        self._add(
            "NVTX_EVENTS",
            start=at,
            eventType=_MARK,
            text=text,
            globalTid=self.current,
            domainId=self._domain_id(domain),
        )
        return self

    # --- calls and operations ---------------------------------------------------------------------------------

    def call(
        self,
        start: int,
        end: int,
        name: str = "cudaDeviceSynchronize_v3020",
        correlation: int | None = -1,
        *,
        result: int = 0,
    ) -> Self:
        """Add an API call; ``correlation`` -1 takes a fresh id, None writes NULL; ``result`` is what it returned."""
        if correlation == -1:
            correlation = self._next()
        self._add(
            "CUPTI_ACTIVITY_KIND_RUNTIME",
            start=start,
            end=end,
            eventClass=0,
            globalTid=self.current,
            correlationId=correlation,
            nameId=self._string(name),
            returnValue=result,
        )
        return self

    def _next(self) -> int:
        self._correlation += 1
        return self._correlation

    def launch(
        self,
        start: int,
        end: int,
        kernel: Kernel | None = None,
        *,
        kernels: Sequence[Kernel] = (),
        name: str = "cudaLaunchKernel_v7000",
        correlation: int | None = None,
        device: int = 0,
        stream: int = 7,
    ) -> Self:
        """Add a launching call and the kernels that it owns (several: a CUDA graph, node by node)."""
        correlation = self._next() if correlation is None else correlation
        several = tuple(kernels)
        for number, one in enumerate(several or ([kernel] if kernel else [])):
            self.kernel(
                *one, correlation=correlation, device=device, stream=stream, node=number + 1 if several else None
            )
        return self.call(start, end, name, correlation)

    def _operation(
        self, table: str, start: int, end: int, correlation: int | None, device: int, stream: int, process: int | None
    ) -> dict[str, Any]:
        row: dict[str, Any] = {
            "start": start,
            "end": end,
            "deviceId": device,
            "contextId": 1,
            "streamId": stream,
            "correlationId": correlation,
            "globalPid": self.process if process is None else process,
        }
        self._rows.setdefault(table, []).append(row)
        return row

    def kernel(
        self,
        name: str,
        start: int,
        end: int,
        *,
        correlation: int | None,
        device: int = 0,
        stream: int = 7,
        node: int | None = None,
        process: int | None = None,
        short: str | None = None,
        grid: int = 132,
    ) -> Self:
        """Add a kernel alone, as if its call had been lost."""
        row = self._operation("CUPTI_ACTIVITY_KIND_KERNEL", start, end, correlation, device, stream, process)
        row.update(demangledName=self._string(name), shortName=self._string(short or name.split("<")[0]))
        row.update(
            graphNodeId=node, gridX=grid, gridY=1, gridZ=1, blockX=128, blockY=1, blockZ=1, registersPerThread=32
        )
        return self

    def copy(
        self, start: int, end: int, on_gpu: tuple[int, int], *, kind: str = "HtoD", size: int = 4096, stream: int = 7
    ) -> Self:
        correlation = self._next()
        row = self._operation("CUPTI_ACTIVITY_KIND_MEMCPY", *on_gpu, correlation, 0, stream, None)
        row.update(bytes=size, copyKind=COPY_KINDS[kind])
        return self.call(start, end, "cudaMemcpyAsync_v3020", correlation)

    def memset(self, start: int, end: int, on_gpu: tuple[int, int], *, size: int = 4096, stream: int = 7) -> Self:
        correlation = self._next()
        self._operation("CUPTI_ACTIVITY_KIND_MEMSET", *on_gpu, correlation, 0, stream, None).update(bytes=size, value=0)
        return self.call(start, end, "cudaMemsetAsync_v3020", correlation)

    def node(self, node: int, at: int, *, original: int | None = None, no_thread: bool = False) -> Self:
        """Add the event of a graph node: recorded on the current thread, or cloned from another node."""
        self._add(
            "CUDA_GRAPH_NODE_EVENTS",
            start=at,
            end=at,
            eventClass=77,
            globalTid=None if no_thread else self.current,
            nameId=self._string("cudaGraphAddNode"),
            graphNodeId=node,
            originalGraphNodeId=original,
        )
        return self

    def replay(self, start: int, end: int, kernels: Sequence[tuple[str, int, int, int]]) -> Self:
        """Add a launch of a CUDA graph and its kernels: name, start, end, node."""
        correlation = self._next()
        for name, begun, ended, node in kernels:
            self.kernel(name, begun, ended, correlation=correlation, node=node)
        return self.call(start, end, "cudaGraphLaunch_v10000", correlation)

    def graph(self, start: int, end: int, on_gpu: tuple[int, int], *, graph_id: int = 1, stream: int = 7) -> Self:
        """Add the launch of a CUDA graph that was traced as a whole."""
        correlation = self._next()
        row = self._operation("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", *on_gpu, correlation, 0, stream, None)
        row.update(graphId=graph_id, graphExecId=graph_id)
        return self.call(start, end, "cudaGraphLaunch_v10000", correlation)

    # --- what the file says of itself -------------------------------------------------------------------------

    def diagnostic(self, text: str, *, severity: int = 1, at: int = 0, process: int | None = None) -> Self:
        row: dict[str, Any] = {"timestamp": at, "timestampType": 1, "source": 1, "severity": severity, "text": text}
        if process is not None:
            row["globalPid"] = process
        self._add("DIAGNOSTIC_EVENT", **row)
        return self

    def session(self, duration: int) -> Self:
        self._add("ANALYSIS_DETAILS", globalVid=1 << 48, duration=duration, startTime=0, stopTime=duration)
        return self

    def gpu(self, name: str = "NVIDIA H100 80GB HBM3", *, sm_count: int = 132, device: int = 0) -> Self:
        self._add(
            "TARGET_INFO_GPU", vmId=1 << 48, id=device, name=name, smCount=sm_count, computeMajor=9, computeMinor=0
        )
        self._add("TARGET_INFO_CUDA_DEVICE", gpuId=device, cudaId=device, pid=self.process >> 24 & 0xFFFFFF)
        return self

    def context(self, *streams: int, device: int = 0, number: int = 1, null_stream: int = 7) -> Self:
        """Tell of a context of the current process, and of its streams."""
        pid = self.process >> 24 & 0xFFFFFF
        where = {"hwId": 0, "vmId": 1, "processId": pid, "contextId": number}
        self._add("TARGET_INFO_CUDA_CONTEXT_INFO", nullStreamId=null_stream, deviceId=device, **where)
        for stream in streams:
            self._add("TARGET_INFO_CUDA_STREAM", streamId=stream, priority=0, flag=1, **where)
        return self

    def capture_setting(self, name: str, value: str) -> Self:
        self._add("META_DATA_CAPTURE", name=name, value=value)
        return self

    def product_version(self, version: str) -> Self:
        for row in self._rows["META_DATA_EXPORT"]:
            if row["name"] == "EXPORT_PRODUCT_VERSION":
                row["value"] = version
        return self

    def old_metadata(self) -> Self:
        """Name the export's table as Nsight Systems up to 2022 did."""
        self._renamed["META_DATA_EXPORT"] = "EXPORT_META_DATA"
        return self

    # --- damage -----------------------------------------------------------------------------------------------

    def without(self, *tables: str) -> Self:
        self._dropped_tables.update(tables)
        return self

    def without_column(self, table: str, *columns: str) -> Self:
        self._dropped_columns.extend((table, column) for column in columns)
        return self

    # --- out --------------------------------------------------------------------------------------------------

    def write(self, path: Path, *, wal: bool = False) -> Path:
        """Write the file; ``wal`` leaves it in write-ahead mode, checkpointed, as a copied live database is."""
        self._rows["StringIds"] = [{"id": key, "value": value} for value, key in self._strings.items()]
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA synchronous = OFF")
        try:
            connection.execute(f"PRAGMA journal_mode = {'WAL' if wal else 'MEMORY'}")
            for statement in _statements():
                table = statement.split()[2]
                if table in self._rows and table not in self._dropped_tables:
                    connection.execute(statement)
                    self._fill(connection, table, self._rows[table])
            for table, column in self._dropped_columns:
                connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
            for old, new in self._renamed.items():
                connection.execute(f"ALTER TABLE {old} RENAME TO {new}")
            connection.commit()
            if wal:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
        return path

    @staticmethod
    def _fill(connection: sqlite3.Connection, table: str, rows: Iterable[dict[str, Any]]) -> None:
        described = connection.execute(f"PRAGMA table_info({table})").fetchall()
        # Columns that must not be NULL but do not matter to a case are 0.
        blank = {name: 0 if required else None for _, name, _, required, _, _ in described}
        values = [tuple((blank | row).values()) for row in rows]
        assert all(len(value) == len(blank) for value in values), f"a row has a column that {table} lacks"
        connection.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(blank))})", values)


def _statements() -> list[str]:
    lines = [line for line in _SCHEMA.read_text().splitlines() if not line.startswith("--")]
    return [one.strip() for one in "\n".join(lines).split(";") if one.strip()]
