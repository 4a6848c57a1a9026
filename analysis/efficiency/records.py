"""What was captured and what was measured, as records. Unknown is None, with its reason where the reader will ask."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import field, frozen

from analysis.domain.entities import KernelSummary
from analysis.domain.errors import RequestError
from analysis.domain.manifest import ControlPass, Overhead, RunManifest, ran_on_cpu
from analysis.sums.kernel_modules import KernelModuleRow, unit_of_input
from analysis.sums.records import (
    CaptureInfo,
    CategoryRow,
    HostCallRow,
    InstanceSummary,
    StageSummary,
    StepPoint,
)
from analysis.sums.step_kinds import StepKindRow, stalled

__all__ = ["Aggregate", "Captured", "ComponentNeed", "Measured", "RankWait", "TimeBase", "UnitTimes", "Utilisation"]

TimeBase: TypeAlias = Literal["unprofiled", "profiled elapsed", "profiled gpu busy"]
"""One typical pass of the control run; or of the captured instances: range start to the end of range and GPU work, or
the union of their GPU operations."""


@frozen
class RankWait:
    """What the other ranks' traces tell of the collectives of one stage of this rank."""

    stage: str
    total_ns: int
    """The time of its collectives that were paired with the other ranks' calls."""
    waiting_ns: int
    """Of it, beyond the shortest duration of the same collective over the ranks: waiting for a rank that is late."""
    at_start_ns: int
    """Of it, the same in collectives that open the capture: before them nothing says when the ranks stood together."""
    late_rank: int | None
    """The rank that it waited for longest; None: it waited for none."""
    late_ns: int
    """So long for that one."""
    cause: str
    """What made that rank late, as a clause; empty: not known."""

    @property
    def judged_ns(self) -> int:
        """``total_ns`` without the start of the capture: what shares are of."""
        return self.total_ns - self.at_start_ns


@frozen
class Captured:
    """What the trace says and what its run's manifest says, before anything is judged.

    Raises:
        RequestError: ``skip_first`` leaves nothing of a stage.
    """

    capture: CaptureInfo
    manifest: RunManifest | None
    stages: tuple[StageSummary, ...]
    """Of a trace without stages, the whole capture as one (`analysis.sums.stages.WHOLE_CAPTURE`)."""
    instances: tuple[InstanceSummary, ...]
    """In order of start."""
    steps: tuple[StepPoint, ...]
    kernels: tuple[KernelSummary, ...]
    categories: tuple[CategoryRow, ...]
    host_calls: tuple[HostCallRow, ...]
    skip_first: int = field(default=0)
    """So many instances of each stage, the first, are left out of medians, utilisation and verdicts."""
    kernel_modules: tuple[KernelModuleRow, ...] = ()
    sm_count: int | None = None
    """Of the device that ran the stages."""
    step_kinds: tuple[StepKindRow, ...] = ()
    """Of a serving engine's trace."""
    rank_waits: tuple[RankWait, ...] = ()
    """By stage; empty: the other ranks' traces were not given."""

    @skip_first.validator
    def _leaves_something(self, attribute: object, value: int) -> None:
        for stage in dict.fromkeys(instance.stage for instance in self.instances):
            there = sum(instance.stage == stage and not instance.cut for instance in self.instances)
            if value and value >= there:
                raise RequestError(
                    f"--skip-first {value} leaves nothing of {stage}, of which the trace holds {there}: skip fewer"
                )

    @property
    def control(self) -> tuple[ControlPass, ...]:
        """Unprofiled passes; empty where there is no manifest or it has none."""
        return self.manifest.control if self.manifest is not None else ()

    @property
    def batch_size(self) -> int:
        """Sequences that run at once."""
        return self.manifest.batch_size if self.manifest is not None else 1

    @property
    def one_input(self) -> str:
        """What a prefill is counted by: ``image`` or ``prompt``; ``range`` in a program of which only its ranges are known."""
        return unit_of_input(self.manifest, self.capture.vocabulary)

    @property
    def on_cpu(self) -> bool:
        """Whether no GPU was profiled: leaf operators of a CPU stand where kernels would, or there are none."""
        return self.capture.on_cpu or (self.manifest is not None and ran_on_cpu(self.manifest))

    def counted(self, stage: str) -> tuple[InstanceSummary, ...]:
        """A stage's instances but those that are to be skipped, and an engine's steps that stall."""
        there = self._not_skipped(stage)
        if not any(instance.composition is not None for instance in there):
            return there
        stalls = stalled([(instance.profiled_ns, instance.busy_ns) for instance in there])
        return tuple(instance for instance, held_up in zip(there, stalls, strict=True) if not held_up)

    def stalls(self) -> tuple[InstanceSummary, ...]:
        """An engine's steps that something other than their work holds up, longest first; none of what is skipped."""
        counted = {instance.path for stage in self.stages for instance in self.counted(stage.stage)}
        there = (instance for stage in self.stages for instance in self._not_skipped(stage.stage))
        left_out = [instance for instance in there if instance.path not in counted]
        return tuple(sorted(left_out, key=lambda instance: -instance.profiled_ns))

    def _not_skipped(self, stage: str) -> tuple[InstanceSummary, ...]:
        there = tuple(instance for instance in self.instances if instance.stage == stage and not instance.cut)
        return there[self.skip_first :]

    def counted_steps(self) -> tuple[StepPoint, ...]:
        """The decode steps of the instances that are not to be skipped."""
        skipped = {instance.path for instance in self.instances if instance.stage == "decode"} - {
            instance.path for instance in self.counted("decode")
        }
        return tuple(step for step in self.steps if step.instance not in skipped)


@frozen
class Aggregate:
    """A named metric over its values; the median is its headline."""

    name: str
    unit: str
    mean: float
    std: float
    median: float
    minimum: float
    maximum: float
    count: int
    source: Literal["control", "trace"]
    """``control``: unprofiled. ``trace``: profiled, and named so."""


@frozen
class UnitTimes:
    """What one unit of a stage's work takes: medians over instances, numerator and denominator over the same images.

    The sums over one pass (each image by its median) say what a saving adds up to.
    """

    stage: str
    per: str
    """The unit: ``image`` or ``prompt``, ``token`` (``step`` of a batch or of an engine), or ``capture``."""
    instances: int
    """Captured ones that the medians are over."""
    busy_ns: float
    """GPU busy, captured."""
    profiled_ns: float
    """Profiled: range start to the end of range and GPU work."""
    launches: float
    unprofiled_ns: float | None
    """Without the profiler; None: no control run measured these images."""
    busy_share: float | None
    """GPU busy ÷ unprofiled time, or ÷ profiled time where there is no other or a CPU ran it; at most 1. None: no time passed."""
    busy_share_base: Literal["unprofiled", "profiled"]
    profiled_busy_share: float | None
    """GPU busy ÷ profiled time; at most 1, as of several GPUs, or where the GPU's clock is not the host's."""
    pass_busy_ns: float
    pass_profiled_ns: float
    pass_unprofiled_ns: float | None
    capped_because: str | None = None
    """Why ``busy_share`` was cut to 1."""
    inputs: int = 1
    """How many images or prompts the sums over one pass are over; 1 of a whole capture."""

    @property
    def time_ns(self) -> float:
        """What ``busy_share`` is a share of."""
        if self.unprofiled_ns is None or self.busy_share_base == "profiled":
            return self.profiled_ns
        return self.unprofiled_ns

    @property
    def pass_time_ns(self) -> float:
        """The same over one pass."""
        return self.pass_profiled_ns if self.pass_unprofiled_ns is None else self.pass_unprofiled_ns


@frozen
class Utilisation:
    """What a stage needed against what the device can give. One row per stage and time base."""

    stage: str
    """prefill, decode or ``total``."""
    time_base: TimeBase
    time_ns: int | None
    """Unprofiled: one typical pass over the input set. Profiled: all captured instances."""
    flop: int | None
    flop_full: int | None
    bytes_moved: int | None
    peak_flop_per_s: float | None
    peak_bytes_per_s: float | None
    peak_how: str | None
    """spec, derived, measured or override."""
    mfu: float | None
    mfu_full_attention: float | None
    mbu: float | None
    arithmetic_intensity: float | None
    """FLOP per byte."""
    ridge_point: float | None
    ideal_ns: int | None
    """The larger of the two floors, summed over stage instances."""
    unknown_because: str | None
    derivation: str | None
    """The arithmetic, with numbers."""
    suspect: str | None = None
    """Above 1: which input is suspect."""
    ideal_unit_ns: float | None = None
    """Median over stage instances of the ideal time of one unit of work (see `UnitTimes`)."""


@frozen
class ComponentNeed:
    """What one part of the model needs for one unit of a stage's work: mean over the captured instances."""

    stage: str
    component: str
    """As the cost names it: ``lm_head``, ``routed_experts``, ``sam`` …"""
    flop: float
    bytes_moved: float
    """Weights once per forward pass, KV cache read and written."""


@frozen
class Measured:
    """What was measured: all that verdicts, notes and renderers read."""

    captured: Captured
    unit_times: tuple[UnitTimes, ...]
    overhead: tuple[Overhead, ...]
    aggregates: tuple[Aggregate, ...]
    utilisation: tuple[Utilisation, ...]
    needs: tuple[ComponentNeed, ...] = ()
    """Empty: no cost is known."""

    def aggregate(self, name: str) -> Aggregate | None:
        """A metric by its name."""
        return next((aggregate for aggregate in self.aggregates if aggregate.name == name), None)
