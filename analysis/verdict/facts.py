"""What a verdict is judged by: the numbers of one stage, and the thresholds.

Every threshold stands here, once. They are conventions, not laws: the evidence is printed beside the verdict, so that a
reader can disagree.
"""

from __future__ import annotations

import statistics
from functools import cached_property
from typing import Final

from attrs import frozen

from analysis.domain.entities import KernelSummary
from analysis.efficiency.records import Measured, UnitTimes, Utilisation
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.host_calls import sum_gaps
from analysis.sums.kernel_classes import is_communication
from analysis.sums.records import CategoryRow, GapSummary, HostCallRow, StageSummary
from analysis.sums.stages import WHOLE_CAPTURE

__all__ = [
    "BUSY_ENOUGH",
    "COMMUNICATION_SHARE",
    "COMPUTE_BOUND_MFU",
    "MEMORY_BOUND_MBU",
    "SMALL_GRID_SHARE",
    "WAITING_SHARE",
    "Communication",
    "Facts",
    "facts_of",
]

BUSY_ENOUGH: Final = 0.6
"""Below this share of GPU-busy time the host is what a stage waits for."""
WAITING_SHARE: Final = 0.3
"""Of the idle time: with so much inside synchronising calls, the host is blocked rather than slow at launching."""
COMMUNICATION_SHARE: Final = 0.3
"""Of the kernel time in collectives."""
COMPUTE_BOUND_MFU: Final = 0.4
MEMORY_BOUND_MBU: Final = 0.5
SMALL_GRID_SHARE: Final = 0.5
"""Of the kernel time in kernels with fewer blocks than the device has SMs."""


@frozen
class Communication:
    """The collectives of a stage. Times are sums over the stage."""

    kernels: tuple[KernelSummary, ...]
    total_ns: int
    fastest_ns: int
    """What all calls would take if each were as fast as the fastest of its kind."""
    beyond_median_ns: float
    """What each kind takes beyond calls × its median: waiting for a slower rank, or for the link."""
    share: float
    """Of the kernel sum."""


@frozen(slots=False)
class Facts:
    """One stage with all that is known of it."""

    stage: StageSummary
    times: UnitTimes
    gaps: GapSummary | None
    """Idle time over the instances that count."""
    waiting_share: float
    """Of the idle time, inside synchronising calls: median over instances."""
    kernels: tuple[KernelSummary, ...]
    waits: tuple[HostCallRow, ...]
    categories: tuple[CategoryRow, ...]
    busy_base: Utilisation | None
    """MFU and MBU over GPU-busy time."""
    one_input: str
    """``image`` or ``prompt``."""

    @property
    def is_whole_capture(self) -> bool:
        """Whether the trace has no stages, and this is all of it."""
        return self.stage.stage == WHOLE_CAPTURE

    @property
    def is_decode(self) -> bool:
        """Whether the stage repeats one step."""
        return self.stage.stage == "decode"

    @property
    def saved_over_a_pass_ns(self) -> int:
        """Idle time of one pass over the input set: what the host keeps the GPU waiting for."""
        return round(max(0.0, self.times.pass_time_ns - self.times.pass_busy_ns))

    @property
    def distance_to_peak_over_a_pass_ns(self) -> int | None:
        """GPU-busy time beyond the ideal time, of one pass; None: the ideal time is unknown."""
        row = self.busy_base
        if row is None or row.ideal_ns is None or not row.time_ns:
            return None
        return round(max(0.0, self.times.pass_busy_ns * (1 - row.ideal_ns / row.time_ns)))

    @property
    def passes(self) -> float:
        """Passes over the input set that the stage's sums are over."""
        return self.stage.busy_ns / self.times.pass_busy_ns if self.times.pass_busy_ns else 1.0

    @cached_property
    def communication(self) -> Communication:
        """Its collectives."""
        rows = tuple(one for one in self.kernels if is_communication(one.category))
        total = sum(one.total_ns for one in rows)
        return Communication(
            kernels=rows,
            total_ns=total,
            fastest_ns=sum(one.calls * one.min_ns for one in rows),
            beyond_median_ns=sum(max(0.0, one.total_ns - one.calls * one.median_ns) for one in rows),
            share=total / self.stage.kernel_sum_ns if self.stage.kernel_sum_ns else 0.0,
        )


def facts_of(measured: Measured, stage: StageSummary) -> Facts:
    """Gather what is known of a stage."""
    captured = measured.captured
    name = stage.stage
    among = UNATTRIBUTED if name == WHOLE_CAPTURE else name
    idle = [one.gaps for one in captured.counted(name) if one.gaps is not None]
    if not idle and stage.gaps is not None:
        idle = [stage.gaps]
    return Facts(
        stage=stage,
        times=next(one for one in measured.unit_times if one.stage == name),
        gaps=sum_gaps(idle) if idle else None,
        waiting_share=statistics.median([one.synchronising_ns / one.total_ns for one in idle if one.total_ns] or [0.0]),
        kernels=tuple(one for one in captured.kernels if one.stage == among),
        waits=tuple(one for one in captured.host_calls if one.level == "stage" and one.where == name),
        categories=tuple(one for one in captured.categories if one.stage == among),
        busy_base=next(
            (one for one in measured.utilisation if one.stage == name and one.time_base == "profiled gpu busy"), None
        ),
        one_input=captured.one_input,
    )
