"""Do operations run where the trace says that there is a stream and a context?

CUPTI tells of every stream and context that a process has, those made before the capture too: in the good captures at hand no
operation is of a stream that is not listed, and the few hundred streams that are listed are mostly unused.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np

from analysis.attribution.attribution import Attribution
from analysis.domain.figures import counted
from analysis.quality.findings import CAPTURE_AGAIN, Contradiction, Finding, severity_of
from analysis.trace import schema
from analysis.trace.distinct import present
from analysis.trace.reader import Trace
from analysis.trace.records import Operations

__all__ = ["check"]

FEWEST_OPERATIONS: Final = 100
FEWEST_PER_STREAM: Final = 2
"""Operations that a stream has on average, at least: programs reuse streams; good captures: thousands."""
_STREAM_BITS: Final = 33
_SHOWN: Final = 3
_ROWS_LOOKED_AT: Final = (schema.KERNELS, schema.MEMCPYS, schema.MEMSETS, schema.GRAPHS)


def check(trace: Trace, attribution: Attribution) -> list[Finding]:
    """All checks of streams and contexts."""
    return [
        *_streams(trace, attribution),
        *_too_many_streams(attribution),
        *_contexts_share_an_id(trace),
        *_devices_without_context(trace, attribution),
    ]


def _pid(trace: Trace, process: int) -> int | None:
    """Process id by code."""
    return trace.info.pid(process)


def _by_process(operations: Operations) -> list[int]:
    """Codes of processes that have operations."""
    return [code for code in present(operations.process) if code >= 0]


def _streams(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Operations on streams that their process does not have."""
    operations = attribution.operations
    listed: dict[int, set[int]] = {}
    for pid, stream in trace.info.streams:
        listed.setdefault(pid, set()).add(stream)
    for context in trace.info.contexts:
        if context.pid in listed and context.null_stream is not None:
            listed[context.pid].add(context.null_stream)
    processes = _by_process(operations) if listed else []
    unlisted = np.zeros(len(operations), dtype=bool)
    of = 0
    for code in processes:
        known = listed.get(_pid(trace, code) or -1)
        if known is None:
            continue  # of a process without any stream nothing is known
        mine = operations.process == code if len(processes) > 1 else np.ones(len(operations), dtype=bool)
        of += int(np.count_nonzero(mine))
        there = present(operations.stream)
        missing = [stream for stream in there if stream not in known]
        if not missing:
            continue
        unlisted |= mine & np.isin(operations.stream, missing)
    rows = int(np.count_nonzero(unlisted))
    if not rows:
        return []
    first = int(np.flatnonzero(unlisted)[0])
    streams = present(operations.stream[unlisted])
    named = ", ".join(map(str, streams[:_SHOWN])) + (
        f" and {len(streams) - _SHOWN:,} more" if len(streams) > _SHOWN else ""
    )
    return [
        Contradiction(
            "unlisted-streams",
            severity_of(rows, of),
            f"{counted(rows, 'GPU operation is', 'GPU operations are')} on streams that the trace does not have",
            f"{rows:,} of {counted(of, 'GPU operation')} ran on {counted(len(streams), 'stream')} ({named}) that "
            f"{schema.STREAMS.names[0]} does not list{_row_of(trace, operations, first)}",
            f"what ran at the same time, and what waited for what, is not known; {CAPTURE_AGAIN}",
        )
    ]


def _row_of(trace: Trace, operations: Operations, row: int) -> str:
    """Table and row of an operation, as an example."""
    moment = int(operations.start[row])
    for spec in _ROWS_LOOKED_AT:
        for place, stream in (
            trace.database.examples(spec, "streamId", f'"start" = {moment}')
            if trace.database.has(spec, "streamId")
            else ()
        ):
            return f", such as {stream} ({spec.names[0]}, row {place})"
    return ""


def _too_many_streams(attribution: Attribution) -> list[Finding]:
    """About as many streams as operations: then nothing would run behind anything."""
    operations = attribution.operations
    if len(operations) < FEWEST_OPERATIONS:
        return []
    streams = present(operations.stream)
    if len(streams) * FEWEST_PER_STREAM <= len(operations):
        return []
    return [
        Contradiction(
            "too-many-streams",
            "warning",
            "nearly every operation has a stream of its own",
            f"{counted(len(operations), 'GPU operation')} on {counted(len(streams), 'stream')}, {streams[0]:,} to {streams[-1]:,}; "
            "programs use some streams again and again",
            f"what ran at the same time, and what waited for what, is not known; {CAPTURE_AGAIN}",
        )
    ]


def _contexts_share_an_id(trace: Trace) -> list[Finding]:
    """Contexts of one process that differ and have one id."""
    different = {(context.pid, context.context, context.device) for context in trace.info.contexts}
    times = Counter((process, context) for process, context, _ in different)
    same = sorted(
        (pid, number)
        for (pid, number), devices in times.items()
        if devices > 1 and pid is not None and number is not None
    )
    if not same:
        return []
    process, first = same[0]
    devices = sorted(str(device) for pid, number, device in different if (pid, number) == same[0])
    return [
        Contradiction(
            "contexts-share-an-id",
            "warning",
            "two contexts of one process have one id",
            f"{counted(len(same), 'id')} of {schema.CONTEXTS.names[0]}, such as {first} of process {process}, on devices "
            f"{' and '.join(devices)}",
            f"on which device the work ran is not certain; {CAPTURE_AGAIN}",
        )
    ]


def _devices_without_context(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Operations on a device on which their process has no context."""
    operations = attribution.operations
    contexts: dict[int, set[int]] = {}
    for context in trace.info.contexts:
        if context.pid is not None and context.device is not None:
            contexts.setdefault(context.pid, set()).add(context.device)
    processes = _by_process(operations) if contexts else []
    rows, of = 0, 0
    example = ""
    for code in processes:
        devices = contexts.get(_pid(trace, code) or -1)
        if devices is None:
            continue
        mine = operations.device[operations.process == code] if len(processes) > 1 else operations.device
        of += mine.size
        missing = [device for device in present(mine) if device not in devices]
        if missing:
            rows += int(np.count_nonzero(np.isin(mine, missing)))
            example = (
                f"process {_pid(trace, code)} has contexts on {'device' if len(devices) == 1 else 'devices'} "
                f"{', '.join(map(str, sorted(devices)))}, and work on {missing[0]}"
            )
    if not rows:
        return []
    return [
        Contradiction(
            "device-without-context",
            severity_of(rows, of),
            f"{counted(rows, 'GPU operation is', 'GPU operations are')} on a device without a context",
            f"{rows:,} of {counted(of, 'GPU operation')} are of a device on which {schema.CONTEXTS.names[0]} lists no context of "
            f"their process: {example}",
            f"on which device the work ran is not certain; {CAPTURE_AGAIN}",
        )
    ]
