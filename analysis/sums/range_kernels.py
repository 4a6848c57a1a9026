"""Which kernels ran on behalf of which range: the rows of ``nvtx_kern_sum``, each kernel once per name."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.sums.inclusive import name_keys, pairs_by_name, work_by_stack
from analysis.trace.records import KERNEL

__all__ = ["ProjectionRow", "RangeKernelRow", "projection_rows", "range_kernel_rows"]

PUSH_POP = "PushPop"
START_END = "StartEnd"


@frozen
class RangeKernelRow:
    """One kernel within all ranges of one name, style and thread."""

    range_name: str
    """``domain:name``; of the default domain, the name alone, as Nsight Systems' own reports write it."""
    style: str
    """``PushPop`` or ``StartEnd``."""
    pid: int | None
    tid: int | None
    """None, like ``pid``: the ranges do not say."""
    kernel: str
    """Demangled name."""
    range_instances: int
    """Ranges that hold at least one of these kernels."""
    kernel_instances: int
    total_ns: int
    mean_ns: float
    median_ns: float
    min_ns: int
    max_ns: int
    std_ns: float | None
    """Of the sample (n − 1); None for a single kernel."""


@frozen
class ProjectionRow:
    """All ranges of one name and style, projected onto the GPU's timeline."""

    range_name: str
    style: str
    range_instances: int
    """Ranges with at least one GPU operation."""
    operations: int
    """GPU operations, once per range; a CUDA graph's nodes each."""
    projected_ns: int
    """Sum over the ranges of first start to last end."""
    host_ns: int
    """Sum of the ranges' own durations."""
    mean_ns: float
    median_ns: float
    min_ns: int
    max_ns: int
    std_ns: float | None


@frozen(eq=False)
class _Pairs:
    """Operations within ranges, one row per operation and name. All arrays are [pairs]."""

    operation: NDArray[np.integer[Any]]
    key: NDArray[np.int32]
    row: NDArray[np.int32]
    paired: NDArray[np.bool_]
    thread: NDArray[np.int32]


def _pairs(attribution: Attribution, selected: NDArray[np.bool_] | None, keys: NDArray[np.int32]) -> _Pairs:
    parts: list[tuple[NDArray[np.integer[Any]], NDArray[np.int32], NDArray[np.int32]]] = []
    paired, thread = [], []
    for work in work_by_stack(attribution, selected):
        stack = attribution.tree.stacks[work.index]
        part = pairs_by_name(attribution, work.operations, work.rows, keys)
        parts.append(part)
        paired.append(np.full(part[0].size, stack.paired))
        thread.append(np.full(part[0].size, stack.thread, dtype=np.int32))
    if not parts:
        nothing = np.zeros(0, dtype=np.int32)
        return _Pairs(nothing.astype(np.intp), nothing, nothing, nothing.astype(bool), nothing)
    return _Pairs(
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts]),
        np.concatenate(paired),
        np.concatenate(thread),
    )


def range_kernel_rows(attribution: Attribution, stage: str | None = None) -> tuple[RangeKernelRow, ...]:
    """Kernels by range name, style, thread and kernel name.

    The same rows as ``nsys stats --report nvtx_kern_sum``, but for ranges nested in ranges of their own name: there,
    a kernel counts once, for the outermost (NVIDIA's report counts it once per range), and for start/end ranges of one
    name that overlap, for the one that began first.

    Args:
        attribution: of the trace.
        stage: keep the kernels of this stage only.

    Returns:
        Sorted by range, style, pid and tid, then by time, most first.
    """
    operations = attribution.operations
    keys, _ = name_keys(attribution)
    unique: dict[str, int] = {}
    same = np.array([unique.setdefault(name, len(unique)) for name in operations.names] or [0], dtype=np.int64)
    kernels = operations.kind == KERNEL
    if stage is not None:
        kernels &= attribution.in_stage(stage)
    pairs = _once_per_name(attribution, _pairs(attribution, kernels, keys))
    if not pairs.operation.size:
        return ()
    kernel = same[operations.name[pairs.operation]]
    where = _packed(pairs)
    packed, group = np.unique(where * len(unique) + kernel, return_inverse=True)
    duration = operations.duration[pairs.operation]
    statistics = _statistics(duration, group, packed.size)
    # A range counts once per kernel name that it holds.
    held = np.unique(group.astype(np.int64) * len(attribution.ranges) + pairs.row)
    holders = np.bincount(held // len(attribution.ranges), minlength=packed.size)
    names, info = tuple(unique), attribution.info
    first = np.zeros(packed.size, dtype=np.intp)
    first[group[::-1]] = np.arange(group.size)[::-1]
    rows = []
    for index, (count, total, median, low, high, std) in enumerate(statistics):
        pair = int(first[index])
        thread = int(pairs.thread[pair])
        rows.append(
            RangeKernelRow(
                range_name=attribution.qualified_name(int(pairs.row[pair])),
                style=PUSH_POP if pairs.paired[pair] else START_END,
                pid=info.pid(int(attribution.thread_process[thread])),
                tid=info.tid(thread),
                kernel=names[int(kernel[pair])],
                range_instances=int(holders[index]),
                kernel_instances=count,
                total_ns=total,
                mean_ns=total / count,
                median_ns=median,
                min_ns=low,
                max_ns=high,
                std_ns=std,
            )
        )
    return tuple(
        sorted(rows, key=lambda row: (row.range_name, row.style, row.pid or 0, row.tid or 0, -row.total_ns, row.kernel))
    )


def projection_rows(attribution: Attribution, stage: str | None = None) -> tuple[ProjectionRow, ...]:
    """Ranges by name and style, projected onto the GPU: the rows of ``nsys stats --report nvtx_gpu_proj_sum``.

    Where ranges of one name nest, only the outermost is an instance.

    Args:
        attribution: of the trace.
        stage: keep the operations of this stage only.

    Returns:
        Sorted by projected time, most first.
    """
    operations, ranges = attribution.operations, attribution.ranges
    keys, _ = name_keys(attribution)
    selected = None if stage is None else attribution.in_stage(stage)
    pairs = _pairs(attribution, selected, keys)
    if not pairs.operation.size:
        return ()
    rows, instance = np.unique(pairs.row, return_inverse=True)
    low = np.full(rows.size, np.iinfo(np.int64).max, dtype=np.int64)
    high = np.full(rows.size, -1, dtype=np.int64)
    np.minimum.at(low, instance, operations.start[pairs.operation])
    np.maximum.at(high, instance, operations.end[pairs.operation])
    work = np.bincount(instance, minlength=rows.size)
    packed = keys[rows].astype(np.int64) * 2 + ranges.paired[rows]
    kinds, group = np.unique(packed, return_inverse=True)
    statistics = _statistics(high - low, group, kinds.size)
    host = (ranges.end - ranges.start)[rows]
    rows_by_name = []
    for index, (count, total, median, least, most, std) in enumerate(statistics):
        mine = group == index
        rows_by_name.append(
            ProjectionRow(
                range_name=attribution.qualified_name(int(rows[mine][0])),
                style=PUSH_POP if kinds[index] % 2 else START_END,
                range_instances=count,
                operations=int(work[mine].sum()),
                projected_ns=total,
                host_ns=int(host[mine].sum()),
                mean_ns=total / count,
                median_ns=median,
                min_ns=least,
                max_ns=most,
                std_ns=std,
            )
        )
    return tuple(sorted(rows_by_name, key=lambda row: (-row.projected_ns, row.range_name)))


def _packed(pairs: _Pairs) -> NDArray[np.int64]:
    """Name, style and thread in one integer."""
    packed: NDArray[np.int64] = (pairs.key.astype(np.int64) << 17) | (pairs.paired.astype(np.int64) << 16)
    packed |= pairs.thread.astype(np.int64)
    return packed


def _once_per_name(attribution: Attribution, pairs: _Pairs) -> _Pairs:
    """Overlapping start/end ranges of one name hold an operation several times: keep the one that began first."""
    packed = _packed(pairs)
    order = np.lexsort((attribution.ranges.start[pairs.row], packed, pairs.operation))
    first = np.ones(order.size, dtype=bool)
    operation, where = pairs.operation[order], packed[order]
    first[1:] = (operation[1:] != operation[:-1]) | (where[1:] != where[:-1])
    chosen = order[first]
    return _Pairs(
        pairs.operation[chosen], pairs.key[chosen], pairs.row[chosen], pairs.paired[chosen], pairs.thread[chosen]
    )


def _statistics(
    value: NDArray[np.int64], group: NDArray[np.intp], groups: int
) -> list[tuple[int, int, float, int, int, float | None]]:
    """Count, total, median, minimum, maximum and sample deviation of each group. Every group has a value."""
    order = np.lexsort((value, group))
    value = value[order]
    count = np.bincount(group, minlength=groups)
    last = np.cumsum(count)
    first = last - count
    total = np.add.reduceat(value, first)
    median = (value[first + (count - 1) // 2] + value[first + count // 2]) / 2
    apart = value - np.repeat(total / count, count)
    variance = np.add.reduceat(apart * apart, first) / np.maximum(count - 1, 1)
    deviation = np.sqrt(variance)
    return [
        (n, int(t), float(m), int(low), int(high), float(d) if n > 1 else None)
        for n, t, m, low, high, d in zip(
            count.tolist(), total.tolist(), median.tolist(), value[first].tolist(), value[last - 1].tolist(),
            deviation.tolist(), strict=True,
        )
    ]  # fmt: skip
