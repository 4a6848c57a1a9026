"""What no device, no stream and no thread can do, whatever the trace says: rows that claim it are counted.

The limits are far above what hardware does, and far below what damaged values come to; good captures have no such row at all.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.domain.figures import counted
from analysis.quality.findings import CAPTURE_AGAIN, IMPOSSIBLE_SHARE, Finding, Severity, severity_of
from analysis.sums.tokens import MOST_TOKENS
from analysis.trace import schema
from analysis.trace.operations import COPY_KINDS
from analysis.trace.reader import Trace
from analysis.trace.records import GRAPH, KERNEL, MEMCPY, NO_VALUE

__all__ = ["check"]

FEWEST_OVERLAPPING: Final = 20
FEWEST_REPEATED: Final = 20
FASTEST_COPY: Final = 100_000
"""Bytes per ns, 100 TB/s: more than ten times what any memory gives; 1.7 TB/s is the fastest copy in the good captures."""
MOST_BLOCKS_PER_NS: Final = 1_000
"""Of a grid: a block takes an SM some hundred ns at least, and no device holds 100,000 of them; at most 1.5 in good captures."""
_WORTH_LOOKING: Final = 1_000 * 1_000
"""Blocks up to which a grid can be of any kernel: none lasts less than some hundred ns."""
_NO_COLLECTOR_OF_OURS: Final = "DSOCR_COLLECTOR"
_SHOWN: Final = 3


def check(trace: Trace, attribution: Attribution) -> list[Finding]:
    """All checks of what is possible in time."""
    return [
        *_overlapping_operations(attribution),
        *_overlapping_calls(attribution),
        *_repeated_calls(trace, attribution),
        *_repeated_ranges(trace, attribution),
        *_instant_kernels(trace, attribution),
        *_fast_copies(attribution),
        *_unknown_copies(attribution),
        *_fast_grids(attribution),
        *_payloads(attribution),
        *_empty_stages(attribution),
    ]


def _severity_of_many(rows: int, of: int) -> Severity:
    return severity_of(rows, of) if rows >= FEWEST_REPEATED else "warning"


def _overlapping_operations(attribution: Attribution) -> list[Finding]:
    """Operations of one stream that run three at a time: it runs one after the other, and a dependent launch lets two overlap."""
    operations = attribution.operations
    chosen = (operations.kind != GRAPH) & ~operations.in_graph
    rows = slice(None) if bool(chosen.all()) else np.flatnonzero(chosen)
    start, end = operations.start[rows], operations.end[rows]
    if start.size < FEWEST_OVERLAPPING:
        return []
    place = np.zeros(start.size, dtype=np.int64)
    for code in (operations.process[rows], operations.device[rows], operations.stream[rows]):
        if code.min() != code.max():
            place = place * (int(code.max()) - int(code.min()) + 1) + (code.astype(np.int64) - int(code.min()))
    if place.any():
        order = np.argsort(place, kind="stable")
        start, end, place = start[order], end[order], place[order]
    three = int(np.count_nonzero((end[:-2] > start[2:]) & (place[:-2] == place[2:])))
    if three < FEWEST_OVERLAPPING or three <= IMPOSSIBLE_SHARE * start.size:
        return []
    return [
        Finding(
            "overlapping-operations",
            "unfit",
            "operations of one stream run at the same time",
            f"{three:,} of {counted(start.size, 'GPU operation')} outside of graphs start before the one before the last of their "
            "stream has ended; a stream runs them one after the other, so their times cannot be",
            CAPTURE_AGAIN,
        )
    ]


def _overlapping_calls(attribution: Attribution) -> list[Finding]:
    """Calls of one thread that begin inside an earlier one and end behind it: a call lies inside another one, or behind it."""
    calls = attribution.calls
    if len(calls) < 2:
        return []
    if not bool(np.any((calls.start[1:] < calls.end[:-1]) & (calls.thread[1:] == calls.thread[:-1]))):
        return []  # no call begins inside an earlier one at all
    # Threads one behind the other on one line, so that one running maximum serves all of them.
    low = int(calls.start.min())
    line = (calls.thread.astype(np.int64) + 1) * (int(calls.end.max()) - low + 1) - low
    start, end = calls.start + line, calls.end + line
    reach = np.maximum.accumulate(end)[:-1]
    rows = int(np.count_nonzero((start[1:] < reach) & (end[1:] > reach) & (calls.thread[1:] >= 0)))
    if not rows:
        return []
    return [
        Finding(
            "overlapping-calls",
            severity_of(rows, len(calls)),
            f"{counted(rows, 'API call begins', 'API calls begin')} before an earlier one has ended",
            f"{rows:,} of {counted(len(calls), 'call')} begin inside an earlier call of their thread, and end behind it; a thread "
            "makes one call after the other, so times of calls, and what lies inside which range, cannot be trusted",
            CAPTURE_AGAIN,
        )
    ]


def _repeated_calls(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Calls of one thread that begin and end with another one. Operators of PyTorch's profiler may: its clock is coarser."""
    calls = attribution.calls
    if len(calls) < 2 or _NO_COLLECTOR_OF_OURS in trace.info.capture:
        return []
    same = (calls.start[1:] == calls.start[:-1]) & (calls.end[1:] == calls.end[:-1])
    same &= (calls.thread[1:] == calls.thread[:-1]) & (calls.thread[1:] >= 0)
    rows = int(np.count_nonzero(same))
    if not rows:
        return []
    return [
        Finding(
            "repeated-calls",
            _severity_of_many(rows, len(calls)),
            f"{counted(rows, 'API call begins and ends', 'API calls begin and end')} with another one",
            f"{rows:,} of {counted(len(calls), 'call')} have thread, start and end of the one before: rows are there twice, or "
            "their times cannot be",
            CAPTURE_AGAIN,
        )
    ]


def _repeated_ranges(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Ranges that have name, thread, start and end of another one."""
    ranges = attribution.ranges
    if len(ranges) < 2 or _NO_COLLECTOR_OF_OURS in trace.info.capture:
        return []
    order = np.argsort(ranges.start, kind="stable")
    same = ranges.start[order][1:] == ranges.start[order][:-1]
    if not same.any():
        return []
    # Few begin with another one: all columns of these are compared.
    rows = order[np.append(same, False) | np.append(False, same)]
    rows = rows[~ranges.unclosed[rows]]
    keys = np.stack([column[rows] for column in (ranges.thread, ranges.start, ranges.end, ranges.domain, ranges.name)])
    number = rows.size - int(np.unique(keys, axis=1).shape[1])
    if not number:
        return []
    return [
        Finding(
            "repeated-ranges",
            _severity_of_many(number, len(ranges)),
            f"{counted(number, 'range is', 'ranges are')} there twice",
            f"{number:,} of {counted(len(ranges), 'range')} have name, thread, start and end of another one; steps, images and "
            "what is counted per range would be too many",
            CAPTURE_AGAIN,
        )
    ]


def _instant_kernels(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Kernels that take no time. Operators of PyTorch's profiler may: its clock is coarser."""
    if _NO_COLLECTOR_OF_OURS in trace.info.capture:
        return []
    operations = attribution.operations
    kernels = operations.kind == KERNEL
    instant = int(np.count_nonzero(kernels & (operations.end == operations.start)))
    instant -= trace.backwards.get(schema.KERNELS.names[0], 0)  # read as lasting 0 ns, and told of elsewhere
    if instant <= 0:
        return []
    of = int(np.count_nonzero(kernels))
    return [
        Finding(
            "instant-kernels",
            severity_of(instant, of),
            f"{counted(instant, 'kernel takes', 'kernels take')} no time",
            f"{instant:,} of {counted(of, 'kernel')} end when they start; the shortest kernel takes some hundred ns",
            CAPTURE_AGAIN,
        )
    ]


def _fast_copies(attribution: Attribution) -> list[Finding]:
    """Copies that are faster than any memory."""
    operations = attribution.operations
    rows = np.flatnonzero(operations.kind == MEMCPY)
    fast = operations.size[rows] > FASTEST_COPY * np.maximum(operations.duration[rows].astype(np.int64), 1)
    number = int(np.count_nonzero(fast))
    if not number:
        return []
    worst = int(rows[np.argmax(operations.size[rows] / np.maximum(operations.duration[rows], 1))])
    return [
        Finding(
            "impossible-copies",
            severity_of(number, rows.size),
            f"{counted(number, 'copy is', 'copies are')} faster than any memory",
            f"{number:,} of {counted(rows.size, 'copy', 'copies')}; the fastest is said to move "
            f"{int(operations.size[worst]):,} bytes in {int(operations.duration[worst]):,} ns",
            f"{CAPTURE_AGAIN}; sizes of copies tell which of them are small ones that the host waits for",
        )
    ]


def _unknown_copies(attribution: Attribution) -> list[Finding]:
    """Copies of a kind that CUPTI has no name for; 0 is its word for "not known"."""
    kinds = attribution.operations.copy_kinds
    unknown = np.array([kind > 0 and kind not in COPY_KINDS for kind in kinds.tolist()], dtype=bool)
    if not unknown.any():
        return []
    operations = attribution.operations
    number = int(np.count_nonzero(unknown[operations.name]))
    if not number:
        return []
    copies = int(np.count_nonzero(operations.kind == MEMCPY))
    numbers = ", ".join(map(str, np.unique(kinds[unknown])[:_SHOWN].tolist()))
    return [
        Finding(
            "unknown-copy-kinds",
            "warning",
            f"{counted(number, 'copy is', 'copies are')} of an unknown kind",
            f"{number:,} of {counted(copies, 'copy', 'copies')} (copyKind {numbers}): "
            "whether the host waits for these is not known, so that they are in no count of small device-to-host copies",
            CAPTURE_AGAIN,
        )
    ]


def _fast_grids(attribution: Attribution) -> list[Finding]:
    """Kernels whose grid has more blocks than any device could begin in their time."""
    operations = attribution.operations
    codes = np.arange(len(operations.shapes))
    if not codes.size or not (operations.shapes.grid_blocks(codes) > _WORTH_LOOKING).any():
        return []
    blocks = operations.shapes.grid_blocks(operations.shape)
    fast = blocks // MOST_BLOCKS_PER_NS > operations.duration
    number = int(np.count_nonzero(fast))
    if not number:
        return []
    kernels = int(np.count_nonzero(operations.kind == KERNEL))
    worst = int(np.flatnonzero(fast)[np.argmax(blocks[fast])])
    return [
        Finding(
            "impossible-grids",
            severity_of(number, kernels),
            f"{counted(number, 'kernel has', 'kernels have')} more blocks than a device can begin in their time",
            f"{number:,} of {counted(kernels, 'kernel')}, such as {int(blocks[worst]):,} blocks in "
            f"{int(operations.duration[worst]):,} ns; waves and small grids of these cannot be",
            CAPTURE_AGAIN,
        )
    ]


def _payloads(attribution: Attribution) -> list[Finding]:
    """Numbers that ranges of a prefill or of a step carry, and that can be no number of tokens."""
    payload = attribution.ranges.payload
    counting = attribution.is_level("stage") | attribution.is_level("step")
    wrong = np.flatnonzero(counting & (payload != NO_VALUE) & ((payload < 0) | (payload > MOST_TOKENS)))
    if not wrong.size:
        return []
    of = int(np.count_nonzero(counting & (payload != NO_VALUE)))
    return [
        Finding(
            "impossible-payloads",
            "warning",
            f"{counted(wrong.size, 'range carries', 'ranges carry')} a number that counts no tokens",
            f"{wrong.size:,} of {counted(of, 'stage or step', 'stages and steps')} with a payload, such as "
            f"{int(payload[wrong[0]]):,} of {attribution.ranges.names[attribution.ranges.name[wrong[0]]]}",
            "give a prefill its number of tokens as payload, and a step its context; prompt tokens and what is made with them are "
            "not known, or state them (--prompt-tokens)",
        )
    ]


def _empty_stages(attribution: Attribution) -> list[Finding]:
    """Stages that begin and end at one moment: calls inside them cannot be."""
    ranges = attribution.ranges
    stages = np.flatnonzero(attribution.is_level("stage"))
    empty: NDArray[np.bool_] = ranges.end[stages] == ranges.start[stages]
    number = int(np.count_nonzero(empty))
    if not number:
        return []
    return [
        Finding(
            "instant-stages",
            severity_of(number, stages.size),
            f"{counted(number, 'stage takes', 'stages take')} no time",
            f"{number:,} of {counted(stages.size, 'stage')} end when they start, so that no call lies inside them",
            CAPTURE_AGAIN,
        )
    ]
