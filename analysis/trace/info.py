"""What a trace says of itself: product, processes, devices, diagnostics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from analysis.domain.redaction import redacted
from analysis.trace import schema
from analysis.trace.database import Database
from analysis.trace.records import PROCESS_MASK, Context, Device, Diagnostic, TraceInfo

__all__ = ["read_info"]


def read_info(
    database: Database, process_codes: dict[Any, int], thread_codes: dict[Any, int], text: Callable[[int], str]
) -> TraceInfo:
    """Read the small tables.

    Args:
        database: the trace.
        process_codes: global process id → code, complete.
        thread_codes: global thread id → code, complete.
        text: string id → text.
    """
    export = _pairs(database, schema.EXPORT_META)
    product = " ".join(filter(None, (export.get("EXPORT_PRODUCT_NAME"), export.get("EXPORT_PRODUCT_VERSION"))))
    details = database.rows(schema.ANALYSIS_DETAILS, *schema.ANALYSIS_DETAILS.columns)
    session = (details[0]["startTime"], details[0]["stopTime"]) if details else (None, None)
    start = database.rows(schema.START_TIME, "utcTime")
    return TraceInfo(
        path=str(database.path),
        product=product or None,
        schema_version=export.get("EXPORT_SCHEMA_VERSION"),
        export=export,
        capture=_pairs(database, schema.CAPTURE_META),
        processes=tuple(process_codes),
        threads=tuple(thread_codes),
        thread_process=tuple(process_codes[thread & PROCESS_MASK] for thread in thread_codes),
        process_names={
            process_codes[row["globalPid"]]: redacted(str(row["name"]))
            for row in database.rows(schema.PROCESSES, "globalPid", "name")
            if row["globalPid"] in process_codes and row["name"]
        },
        thread_names={
            thread_codes[row["globalTid"]]: redacted(text(row["nameId"]))
            for row in database.rows(schema.THREAD_NAMES, "globalTid", "nameId")
            if row["globalTid"] in thread_codes and row["nameId"] is not None
        },
        devices=_devices(database),
        diagnostics=tuple(
            Diagnostic(row["timestamp"] or 0, row["severity"], redacted(str(row["text"])), row["globalPid"])
            for row in database.rows(schema.DIAGNOSTICS, "timestamp", "severity", "text", "globalPid")
        ),
        duration_ns=details[0]["duration"] if details else None,
        wall_clock=start[0]["utcTime"] if start else None,
        tables=tuple(sorted(database.columns)),
        session_ns=None if session[0] is None or session[1] is None else (session[0], session[1]),
        streams=frozenset(
            (row["processId"], row["streamId"]) for row in database.rows(schema.STREAMS, *schema.STREAMS.columns)
        ),
        contexts=frozenset(
            Context(row["processId"], row["contextId"], row["deviceId"], row["nullStreamId"])
            for row in database.rows(schema.CONTEXTS, *schema.CONTEXTS.columns)
        ),
        cuda_ordinals=_ordinals(database),
    )


def _pairs(database: Database, spec: schema.TableSpec) -> dict[str, str]:
    return {str(row["name"]): redacted(str(row["value"] or "")) for row in database.rows(spec, "name", "value")}


def _ordinals(database: Database) -> frozenset[int]:
    """What kernels may carry as their device; empty where a GPU has none that is known."""
    of_gpus = {row["id"]: row["cuDevice"] for row in database.rows(schema.GPUS, "id", "cuDevice")}
    mapped = [(row["gpuId"], row["cudaId"]) for row in database.rows(schema.DEVICES, *schema.DEVICES.columns)]
    if any(ordinal is None and number not in dict(mapped) for number, ordinal in of_gpus.items()):
        return frozenset()
    return frozenset(ordinal for _, ordinal in mapped) | {
        ordinal for ordinal in of_gpus.values() if ordinal is not None
    }


def _devices(database: Database) -> tuple[Device, ...]:
    """GPUs, with the CUDA ordinal that kernels carry where the file maps one; of those that share an id and differ, none."""
    ordinals = {row["gpuId"]: row["cudaId"] for row in database.rows(schema.DEVICES, *schema.DEVICES.columns)}
    rows = list({tuple(row.items()): row for row in database.rows(schema.GPUS, *schema.GPUS.columns)}.values())
    of_id = Counter(row["id"] for row in rows)
    return tuple(
        Device(
            device_id=ordinals.get(row["id"], row["cuDevice"]),
            name=str(row["name"] or "unknown GPU"),
            sm_count=row["smCount"] or None,
            clock_hz=row["clockRate"] or None,
            memory_bytes=row["totalMemory"] or None,
            memory_bytes_per_s=row["memoryBandwidth"] or None,
            compute_capability=(
                f"{row['computeMajor']}.{row['computeMinor'] or 0}" if row["computeMajor"] is not None else None
            ),
            max_warps_per_sm=row["maxWarpsPerSm"] or None,
            max_blocks_per_sm=row["maxBlocksPerSm"] or None,
            max_registers_per_sm=row["maxRegistersPerSm"] or None,
            max_shared_bytes_per_sm=row["maxShmemPerSm"] or None,
        )
        for row in rows
        if row["id"] is None or of_id[row["id"]] == 1
    )
