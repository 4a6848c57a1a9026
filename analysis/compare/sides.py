"""One run of a comparison: its report, its unprofiled repetitions, and its stages per unit of work."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

from attrs import field, frozen

from analysis.compare.records import SideSummary
from analysis.domain.manifest import RunManifest, ran_on_cpu
from analysis.domain.overhead import decode_unit
from analysis.efficiency.records import UnitTimes
from analysis.report import Report
from analysis.review import Review
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.kernel_modules import KernelModuleRow, module_patterns
from analysis.sums.records import GapSummary, GpuRow, InstanceSummary, StageSummary
from analysis.sums.stages import WHOLE_CAPTURE

__all__ = ["IdleKind", "IdleTime", "ModuleTime", "Side", "StageSide", "inputs_of", "samples_of"]

IdleKind: TypeAlias = Literal["launching", "synchronising", "draining", "other calls", "outside calls", "in graph"]
"""What the host did while the GPU was idle (`GapSummary`)."""

HOST_IDLE: Final[tuple[IdleKind, ...]] = ("launching", "synchronising", "draining", "other calls", "outside calls")
"""Idle time that the host's pace makes, and with it the profiler, which slows the host."""


@frozen
class IdleTime:
    """Idle time of the GPU per unit of a stage's work, by what the host did meanwhile, ns."""

    by_kind: Mapping[IdleKind, float]

    @property
    def total_ns(self) -> float:
        """All of it."""
        return sum(self.by_kind.values())

    def without(self, overhead_ns: float) -> IdleTime:
        """What is left of it when the profiler's cost is taken off; see `analysis.compare.contributions`.

        Args:
            overhead_ns: by how much profiling lengthened a unit; negative: the capture ran faster (noise).
        """
        host = sum(self.by_kind[kind] for kind in HOST_IDLE)
        factor = max(0.0, 1 - overhead_ns / host) if host else 1.0
        left: dict[IdleKind, float] = {kind: self.by_kind[kind] * factor for kind in HOST_IDLE}
        left["in graph"] = max(0.0, self.by_kind["in graph"] - max(0.0, overhead_ns - host))
        return IdleTime(left)


@frozen
class ModuleTime:
    """GPU operations of one module pattern in one stage, ns per unit; of its own, not of modules inside it."""

    module: str
    ns: float
    calls: float
    """Operations per unit."""


@frozen
class StageSide:
    """One stage of one side. All times are ns per unit of its work."""

    stage: str
    per: str
    units: int
    """In the capture."""
    summary: StageSummary
    unprofiled_ns: float | None
    """Median of the unprofiled repetitions; None: there are none."""
    profiled_ns: float
    """Median of the captured instances, by the trace."""
    program_ns: float | None
    """Median of the captured passes, by the program's own clock, as the unprofiled ones are timed; None: not recorded."""
    busy_ns: float
    """Union of the GPU's operations: of the median instance."""
    idle: IdleTime
    """In the capture, of the median instance."""
    scale: float
    """Median instance ÷ mean of all: what sums per unit are multiplied with; of operators on a CPU, times ``slowed``."""
    slowed: float | None = None
    """Unprofiled ÷ captured time of a stage on a CPU, where the profiler slows the operators themselves: times of the capture
    are given as their shares of the unprofiled time. None: on a GPU, which times its kernels itself."""

    @property
    def source(self) -> str:
        """Name of the stage in the tables of kernels, which know no whole capture."""
        return UNATTRIBUTED if self.stage == WHOLE_CAPTURE else self.stage

    def per_unit(self, total: float) -> float:
        """A sum over the capture, per unit of the median instance."""
        return total / self.units * self.scale

    def count_per_unit(self, total: float) -> float:
        """A count over the capture, per unit."""
        return total / self.units


@frozen
class Side:
    """One of the runs that are compared."""

    label: str
    path: str
    report: Report
    review: Review | None = None
    """Counters of its kernels; None: none were read."""
    stages: dict[str, StageSide] = field(init=False)
    """By stage; without those that did no unit of work."""

    @stages.default
    def _stages(self) -> dict[str, StageSide]:
        times = {row.stage: row for row in self.report.unit_times}
        return {
            summary.stage: side
            for summary in self.report.stages
            if summary.stage in times and (side := _stage_side(self.report, summary, times[summary.stage])) is not None
        }

    @property
    def manifest(self) -> RunManifest | None:
        """Of its run; None: nothing says what the run was meant to do."""
        return self.report.manifest

    def summary(self) -> SideSummary:
        """What a comparison says of the side."""
        report, manifest = self.report, self.report.manifest
        stated = report.report.model.id if report.report.model is not None else report.capture.stated_model
        devices = report.capture.device_names
        return SideSummary(
            label=self.label,
            path=self.path,
            run_id=manifest.run_id if manifest is not None else None,
            model=stated,
            device=", ".join(dict.fromkeys(devices)) or None,
            collector=report.capture.product or report.capture.collector,
            random_weights=report.capture.random_weights,
            units={stage: side.units for stage, side in self.stages.items()},
            samples={stage: samples_of(report, stage) for stage in self.stages},
        )

    def kernels(self, stage: StageSide) -> tuple[KernelModuleRow, ...]:
        """Kernels of a stage by module pattern, name and launch shape."""
        return tuple(row for row in self.report.kernel_modules if row.stage == stage.source)

    def modules(self, stage: StageSide) -> dict[str, ModuleTime]:
        """GPU operations of a stage by module pattern, copies, sets and graphs included."""
        rows = self.report.module_rows.get(stage.stage, ())
        patterns = module_patterns(row.name for row in rows)
        times: dict[str, list[GpuRow]] = {}
        for row in rows:
            times.setdefault(patterns[row.name], []).append(row)
        return {
            module: ModuleTime(
                module,
                stage.per_unit(sum(_operations_ns(row) for row in members)),
                stage.count_per_unit(sum(row.kernels + row.memcpys + row.memsets + row.graphs for row in members)),
            )
            for module, members in times.items()
        }

    def traffic(self, stage: StageSide) -> dict[tuple[str, str], float]:
        """Module pattern and kernel name → bytes from and to DRAM per launch, where all of its launches have counters."""
        if self.review is None:
            return {}
        totals: dict[tuple[str, str], list[float]] = {}
        for kernel in self.review.kernels:
            row = kernel.row
            if row.stage == stage.source:
                known = row.dram_bytes is not None and row.covered_calls > 0
                per_call = (row.dram_bytes or 0.0) / row.covered_calls if known else float("nan")
                entry = totals.setdefault((row.module, row.name), [0.0, 0.0])
                entry[0] += per_call * row.calls
                entry[1] += row.calls
        return {key: total / calls for key, (total, calls) in totals.items() if calls and total == total}


def _operations_ns(row: GpuRow) -> int:
    return row.kernel_sum_ns + row.memcpy_ns + row.memset_ns + row.graph_ns


def _stage_side(report: Report, summary: StageSummary, times: UnitTimes) -> StageSide | None:
    whole = summary.stage == WHOLE_CAPTURE
    units = 1 if whole else report.stage_units[summary.stage].count if summary.stage in report.stage_units else 0
    if not units:
        return None
    overhead = next((row for row in report.overhead if row.stage == summary.stage), None)
    program = overhead.profiled_ms * 1e6 if overhead is not None and overhead.timed_by == "program" else None
    mean_busy = summary.busy_ns / units
    slowed = _slowed(report, times)
    factor = 1.0 if slowed is None else slowed
    return StageSide(
        stage=summary.stage,
        per=times.per,
        units=units,
        summary=summary,
        unprofiled_ns=times.unprofiled_ns,
        profiled_ns=times.profiled_ns,
        program_ns=program,
        busy_ns=times.busy_ns * factor,
        idle=_idle(report, summary, times, units, factor),
        scale=(times.busy_ns / mean_busy if mean_busy else 1.0) * factor,
        slowed=slowed,
    )


def _slowed(report: Report, times: UnitTimes) -> float | None:
    on_cpu = report.capture.on_cpu or (report.manifest is not None and ran_on_cpu(report.manifest))
    return times.unprofiled_ns / times.profiled_ns if on_cpu and times.unprofiled_ns and times.profiled_ns else None


def _idle(report: Report, summary: StageSummary, times: UnitTimes, units: int, factor: float) -> IdleTime:
    """Idle time by kind as all instances have it, as long as that of the median one."""
    gaps = summary.gaps or GapSummary(0, 0, 0, 0, 0, 0, 0)
    by_kind: dict[IdleKind, float] = {
        "launching": gaps.launching_ns / units,
        "synchronising": gaps.synchronising_ns / units,
        "draining": gaps.draining_ns / units,
        "other calls": gaps.other_api_ns / units,
        "outside calls": gaps.outside_api_ns / units,
        "in graph": gaps.in_graph_ns / units,
    }
    mean = gaps.total_ns / units
    counted = list(_counted(report, summary.stage))
    each = [
        instance.gaps.total_ns / done
        for instance in counted
        if instance.gaps is not None and (done := _units(instance, times.per, report.manifest))
    ]
    scale = (statistics.median(each) / mean if each and mean else 1.0) * factor
    return IdleTime({kind: time * scale for kind, time in by_kind.items()})


def _units(instance: InstanceSummary, per: str, manifest: RunManifest | None) -> int:
    of_steps = per == decode_unit(manifest.batch_size if manifest is not None else 1) and instance.composition is None
    return instance.steps if of_steps else 1


def _counted(report: Report, stage: str) -> Iterable[InstanceSummary]:
    """The instances that the medians of `UnitTimes` are over: images that both capture and control run hold."""
    there = [instance for instance in report.instances if instance.stage == stage and not instance.cut]
    mine = there[report.skip_first :]
    shared = {instance.image_index for instance in mine} & {
        timed.image_index for timed in (report.manifest.control if report.manifest is not None else ())
    }
    return [instance for instance in mine if not shared or instance.image_index in shared]


def samples_of(report: Report, stage: str) -> tuple[float, ...]:
    """Unprofiled repetitions of a stage, ns per unit, in the order in which they ran.

    One per pass and image: of prefill the time to the first token, of decode the mean time of a step. Images that were not
    captured are left out, as in `UnitTimes`: the median is its ``unprofiled_ns``.
    """
    return tuple(sample for _, sample in _repetitions(report, stage))


def inputs_of(report: Report, stage: str) -> tuple[int, ...]:
    """Index of the image or prompt of each repetition that `samples_of` gives."""
    return tuple(image for image, _ in _repetitions(report, stage))


def _repetitions(report: Report, stage: str) -> list[tuple[int, float]]:
    if report.manifest is None or stage not in ("prefill", "decode"):
        return []
    images = {instance.image_index for instance in _counted(report, stage)}
    passes = [timed for timed in report.manifest.control if timed.image_index in images]
    if stage == "prefill":
        return [(timed.image_index, float(timed.prefill_ns)) for timed in passes if timed.prefill_ns > 0]
    return [(timed.image_index, timed.step_mean_ns) for timed in passes if timed.step_mean_ns is not None]
