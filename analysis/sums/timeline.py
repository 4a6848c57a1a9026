"""How busy the GPU was over the time of the stages, in equal slices."""

from __future__ import annotations

from typing import Final

import numpy as np

from analysis.attribution.attribution import Attribution
from analysis.attribution.intervals import merge
from analysis.sums.records import BusyTimeline

__all__ = ["SLICES", "busy_timeline"]

SLICES: Final = 600


def busy_timeline(attribution: Attribution, slices: int = SLICES) -> BusyTimeline | None:
    """Share of each slice in which at least one GPU operation ran.

    The window reaches from the start of the first stage instance to the last end of an instance or GPU operation in
    one; without stages, over all GPU operations.

    Args:
        attribution: of the trace.
        slices: number of equal slices, the last one possibly reaching a few ns beyond the window.

    Returns:
        None: there are no GPU operations, or no time in which to draw them.
    """
    operations, ranges = attribution.operations, attribution.ranges
    if not len(operations):
        return None
    rows = np.flatnonzero(attribution.is_level("stage")) if len(ranges) else np.zeros(0, dtype=np.intp)
    if rows.size:
        low, high = int(ranges.start[rows].min()), int(ranges.end[rows].max())
        mine = attribution.operation_level("stage") >= 0
        if mine.any():
            high = max(high, int(operations.end[mine].max()))
    else:
        low, high = int(operations.start.min()), int(operations.end.max())
    if high <= low:
        return None
    width = -(-(high - low) // slices)
    edges = low + width * np.arange(slices + 1, dtype=np.int64)
    start, end = merge(operations.start, operations.end)
    covered = np.concatenate(([0], np.cumsum(end - start)))
    # Busy time before each edge: whole intervals that began before it, less what of the last one lies behind it.
    begun = np.searchsorted(start, edges, side="left")
    behind = np.where(begun > 0, np.maximum(end[begun - 1] - edges, 0), 0)
    before = covered[begun] - behind
    return BusyTimeline(start_ns=low, slice_ns=width, busy_ns=tuple(np.diff(before).tolist()))
