"""What a verdict is judged by: the numbers of one stage."""

from __future__ import annotations

from functools import cached_property

from attrs import frozen

from analysis.domain.columns import Records
from analysis.domain.entities import KernelSummary
from analysis.domain.many_records import evolved
from analysis.efficiency.records import ComponentNeed, Measured, RankWait, UnitTimes, Utilisation
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.host_calls import sum_gaps
from analysis.sums.kernel_classes import is_communication
from analysis.sums.kernel_modules import KernelModuleRow
from analysis.sums.records import CategoryRow, GapSummary, HostCallRow, StageSummary
from analysis.sums.stages import WHOLE_CAPTURE
from analysis.sums.step_kinds import StepKindRow

__all__ = [
    "Communication",
    "Facts",
    "facts_of",
]


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
    kernels: Records[KernelSummary]
    waits: tuple[HostCallRow, ...]
    categories: tuple[CategoryRow, ...]
    busy_base: Utilisation | None
    """MFU and MBU over GPU-busy time."""
    one_input: str
    """``image`` or ``prompt``."""
    rows: Records[KernelModuleRow]
    """Its kernels by module and launch shape."""
    needs: tuple[ComponentNeed, ...] = ()
    """What each component needs for one unit; empty: not known."""
    module_waits: tuple[HostCallRow, ...] = ()
    """Synchronises and small copies by module, of all stages together."""
    sm_count: int | None = None
    step_kind: StepKindRow | None = None
    """Of a kind of an engine's steps."""
    rank_wait: RankWait | None = None
    """Of its collectives; None: the other ranks' traces were not given."""

    @property
    def is_whole_capture(self) -> bool:
        """Whether the trace has no stages, and this is all of it."""
        return self.stage.stage == WHOLE_CAPTURE

    @property
    def is_decode(self) -> bool:
        """Whether the stage repeats one step of one token a sequence."""
        return self.stage.stage == "decode"

    @property
    def of_steps(self) -> bool:
        """Whether its instances are steps of a serving engine."""
        return self.stage.of_steps

    @property
    def units_of_a_pass(self) -> float:
        """So many units make up one pass over the input set, by time."""
        return self.times.pass_time_ns / self.times.time_ns if self.times.time_ns else 0.0

    @cached_property
    def communication(self) -> Communication:
        """Its collectives."""
        between = set(filter(is_communication, set(self.kernels.values("category"))))
        rows = tuple(one for one in self.kernels if one.category in between) if between else ()
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
        kernels=Records.of(captured.kernels).where("stage", among),
        waits=tuple(one for one in captured.host_calls if one.level == "stage" and one.where == name),
        categories=tuple(one for one in captured.categories if one.stage == among),
        busy_base=next(
            (one for one in measured.utilisation if one.stage == name and one.time_base == "profiled gpu busy"), None
        ),
        one_input="prompt" if captured.one_input == "range" else captured.one_input,
        rows=_of_unit(Records.of(captured.kernel_modules).where("stage", among), name),
        needs=tuple(one for one in measured.needs if one.stage == name),
        module_waits=tuple(one for one in captured.host_calls if one.level == "module"),
        sm_count=captured.sm_count,
        step_kind=next((one for one in captured.step_kinds if one.kind == name), None),
        rank_wait=next((one for one in captured.rank_waits if one.stage == name and one.total_ns), None),
    )


def _of_unit(rows: Records[KernelModuleRow], stage: str) -> Records[KernelModuleRow]:
    """Of a trace without stages, the whole capture is the unit."""
    if stage != WHOLE_CAPTURE:
        return rows
    calls, total_ns = rows.column("calls"), rows.column("total_ns")
    return evolved(rows, per=["capture"] * len(rows), calls_per_unit=calls, total_per_unit_ns=total_ns)
