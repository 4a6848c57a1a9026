"""What no device, no stream and no thread can do, whatever the trace says: rows that claim it are counted.

The limits are far above what hardware does, and far below what damaged values come to; good captures have no such row at all.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.domain.figures import counted
from analysis.quality.findings import CAPTURE_AGAIN, IMPOSSIBLE_SHARE, Contradiction, Finding, Severity, severity_of
from analysis.sums.tokens import MOST_TOKENS
from analysis.trace import schema
from analysis.trace.distinct import present
from analysis.trace.operations import COPY_KINDS
from analysis.trace.reader import Trace
from analysis.trace.records import GRAPH, KERNEL, MEMCPY, MEMSET, NO_VALUE

__all__ = ["check"]

FEWEST_OVERLAPPING: Final = 20
FEWEST_REPEATED: Final = 20
FASTEST_COPY: Final = 100_000
"""Bytes per ns, 100 TB/s: more than ten times what any memory gives; 1.7 TB/s is the fastest copy in the good captures."""
MOST_BLOCKS_PER_NS: Final = 1_000
"""Of a grid: a block takes an SM some hundred ns at least, and no device holds 100,000 of them; at most 1.5 in good captures."""
FEWEST_EQUAL: Final = 100
FEWEST_EQUAL_NAMES: Final = 3
"""Kernels of so many names never all take the same time; one launched again and again might, on a coarse clock."""
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
        *_equal_kernels(attribution),
        *_instant_calls(trace, attribution),
        *_fast_copies(attribution),
        *_unknown_copies(attribution),
        *_empty_copies(trace, attribution),
        *_contradictory_copies(trace),
        *_fast_grids(attribution),
        *_payloads(attribution),
        *_empty_stages(attribution),
        *_overlapping_stages(attribution),
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
        Contradiction(
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
        Contradiction(
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
        Contradiction(
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
        Contradiction(
            "instant-kernels",
            severity_of(instant, of),
            f"{counted(instant, 'kernel takes', 'kernels take')} no time",
            f"{instant:,} of {counted(of, 'kernel')} end when they start; the shortest kernel takes some hundred ns",
            CAPTURE_AGAIN,
        )
    ]


def _equal_kernels(attribution: Attribution) -> list[Finding]:
    """Kernels of several names that all take the same time, to the nanosecond."""
    operations = attribution.operations
    kernels = operations.kind == KERNEL
    took = operations.duration[kernels]
    if took.size < FEWEST_EQUAL or took[0] != took[-1] or took.min() != took.max() or not took[0]:
        return []
    names = len(present(operations.name[kernels]))
    if names < FEWEST_EQUAL_NAMES:
        return []
    return [
        Contradiction(
            "equal-kernels",
            "unfit",
            "all kernels take the same time",
            f"each of {counted(took.size, 'kernel')} of {counted(names, 'name')} takes {int(took[0]):,} ns; not even "
            "launches of one kernel do",
            CAPTURE_AGAIN,
        )
    ]


def _instant_calls(trace: Trace, attribution: Attribution) -> list[Finding]:
    """API calls that take no time. Operators of PyTorch's profiler may: its clock is coarser."""
    calls = attribution.calls
    if not len(calls) or _NO_COLLECTOR_OF_OURS in trace.info.capture:
        return []
    instant = int(np.count_nonzero(calls.duration == 0)) - trace.backwards.get(schema.CALLS.names[0], 0)
    if instant < FEWEST_REPEATED or instant <= IMPOSSIBLE_SHARE * len(calls):
        return []
    return [
        Contradiction(
            "instant-calls",
            "unfit" if 2 * instant > len(calls) else "warning",
            f"{counted(instant, 'API call takes', 'API calls take')} no time",
            f"{instant:,} of {counted(len(calls), 'call')} end when they start; the shortest takes some ten ns",
            f"what the host did, and what it waited for, is not known; {CAPTURE_AGAIN}",
        )
    ]


def _empty_copies(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Copies of nothing: CUDA makes no operation of these."""
    operations = attribution.operations
    copies = operations.kind == MEMCPY
    rows = np.flatnonzero(copies & (operations.size == 0))
    if not rows.size:
        return []
    of = int(np.count_nonzero(copies))
    place, _ = next(iter(trace.database.examples(schema.MEMCPYS, "bytes", '"bytes" = 0')), ("?", ""))
    return [
        Contradiction(
            "empty-copies",
            "warning",
            f"{counted(rows.size, 'copy moves', 'copies move')} nothing",
            f"{rows.size:,} of {counted(of, 'copy', 'copies')} (row {place} of {schema.MEMCPYS.names[0]}) are of 0 bytes and take "
            f"{int(operations.duration[rows].sum()):,} ns together",
            f"which copies are small ones that the host waits for, and how fast copies are, is not known; {CAPTURE_AGAIN}",
        )
    ]


def _contradictory_copies(trace: Trace) -> list[Finding]:
    """Copies between other memories than their kind says: a small one from the device would be taken for one to it."""
    if not trace.database.has(schema.MEMCPYS, "copyKind", "srcKind", "dstKind"):
        return []
    host, device = "(0, 1)", "(2, 5)"
    wrong = (
        f'("copyKind" = 1 AND ("srcKind" IN {device} OR "dstKind" IN {host})) OR '
        f'("copyKind" = 2 AND ("srcKind" IN {host} OR "dstKind" IN {device})) OR '
        f'("copyKind" = 8 AND ("srcKind" IN {host} OR "dstKind" IN {host}))'
    )
    rows = trace.database.rows_of(schema.MEMCPYS, f"coalesce({wrong}, 0)")
    if not rows:
        return []
    of = trace.database.rows_of(schema.MEMCPYS)
    examples = trace.database.examples(schema.MEMCPYS, "copyKind", wrong)
    return [
        Contradiction(
            "contradictory-copies",
            severity_of(rows, of),
            f"{counted(rows, 'copy is', 'copies are')} between other memories than said",
            f"{rows:,} of {counted(of, 'copy', 'copies')} ({', '.join(f'row {row}: copyKind {kind}' for row, kind in examples)}) "
            "go from or to the host where the memory's kind (srcKind, dstKind) is the device's, or the other way round",
            f"which copies the host waits for is not known; {CAPTURE_AGAIN}",
        )
    ]


def _overlapping_stages(attribution: Attribution) -> list[Finding]:
    """Stages of one thread of which one begins before the one before it has ended: a thread makes one after the other."""
    ranges = attribution.ranges
    stages = np.flatnonzero(attribution.is_level("stage") & ~ranges.unclosed)
    if stages.size < 2:
        return []
    stages = stages[np.lexsort((-ranges.end[stages], ranges.start[stages], ranges.thread[stages]))]
    thread, start, end = ranges.thread[stages], ranges.start[stages], ranges.end[stages]
    stage = attribution.stage_code[stages]
    over = np.flatnonzero((thread[1:] == thread[:-1]) & (start[1:] < end[:-1]) & (stage[1:] != stage[:-1]))
    if not over.size:
        return []
    first, second = int(stages[over[0]]), int(stages[over[0] + 1])
    return [
        Contradiction(
            "overlapping-stages",
            "warning",
            f"{counted(over.size, 'stage begins', 'stages begin')} before another one of the thread has ended",
            f"{over.size:,} of {counted(stages.size, 'stage')}, such as {attribution.qualified_name(second)} at "
            f"{int(ranges.start[second]):,} ns, while {attribution.qualified_name(first)} lasts from {int(ranges.start[first]):,} "
            f"to {int(ranges.end[first]):,} ns",
            "stages follow each other, and these hold the same time twice: annotate them one behind the other "
            "(docs/annotate.md), or export the report again",
        )
    ]


def _fast_copies(attribution: Attribution) -> list[Finding]:
    """Copies and sets that are faster than any memory."""
    operations = attribution.operations
    rows = np.flatnonzero((operations.kind == MEMCPY) | (operations.kind == MEMSET))
    fast = operations.size[rows] > FASTEST_COPY * np.maximum(operations.duration[rows].astype(np.int64), 1)
    number = int(np.count_nonzero(fast))
    if not number:
        return []
    worst = int(rows[np.argmax(operations.size[rows] / np.maximum(operations.duration[rows], 1))])
    return [
        Contradiction(
            "impossible-copies",
            severity_of(number, rows.size),
            f"{counted(number, 'copy or set is', 'copies and sets are')} faster than any memory",
            f"{number:,} of {counted(rows.size, 'copy or set', 'copies and sets')}; the fastest is said to move "
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
        Contradiction(
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
        Contradiction(
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
        Contradiction(
            "instant-stages",
            severity_of(number, stages.size),
            f"{counted(number, 'stage takes', 'stages take')} no time",
            f"{number:,} of {counted(stages.size, 'stage')} end when they start, so that no call lies inside them",
            CAPTURE_AGAIN,
        )
    ]
