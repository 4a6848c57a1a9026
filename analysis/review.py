"""Assemble the kernel review: a trace's launches with the counters of a profile by Nsight Compute."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from attrs import frozen

from analysis.attribution.attribution import Attribution
from analysis.domain.annotations import STAGES
from analysis.domain.errors import RequestError
from analysis.domain.figures import bytes_, count, counted
from analysis.domain.manifest import ComponentCost, RunManifest
from analysis.domain.measures import require_possible
from analysis.efficiency.counters.actions import Action, ReviewedKernel, first_actions
from analysis.efficiency.counters.causes import diagnose
from analysis.efficiency.counters.file import CounterFile
from analysis.efficiency.counters.join import FileMatch, join_counters, launches_of
from analysis.efficiency.counters.roofline import (
    Coverage,
    LaunchRoofs,
    RooflineRow,
    coverage_rows,
    kernel_rows,
    launch_roofs,
    summed,
)
from analysis.efficiency.counters.waterfall import ENOUGH, Waterfall, idle_time, stage_waterfall
from analysis.efficiency.hardware import Peak
from analysis.efficiency.metrics import HasComponents
from analysis.efficiency.records import UnitTimes
from analysis.efficiency.utilisation import KnownCosts, costs_of, peaks_of
from analysis.report import Report, ReportOptions
from analysis.sums.kernels import main_device
from analysis.sums.records import CaptureInfo
from analysis.trace.reader import Trace

__all__ = ["Review", "StageReview", "Traffic", "review"]


@frozen
class Traffic:
    """What a part of a stage moved and computed beside what it had to."""

    stage: str
    part: str
    """``all``, or a part of the model whose costs are known: sam, clip, projector, attention, mlp, lm_head."""
    modules: tuple[str, ...]
    covered_share: float | None
    """Of the part's kernel time, with counters."""
    measured_bytes: float | None
    must_bytes: int | None
    executed_flop: float | None
    """On tensor cores, all types that were counted."""
    counted_flop: int | None
    """Attention over the full square, as tensor cores compute it."""
    unknown_because: str | None = None

    @property
    def amplification(self) -> float | None:
        """Bytes from and to DRAM ÷ bytes that must move."""
        return self.measured_bytes / self.must_bytes if self.measured_bytes is not None and self.must_bytes else None

    @property
    def overwork(self) -> float | None:
        """Operations executed ÷ operations counted: padding of tiles, work done twice."""
        return self.executed_flop / self.counted_flop if self.executed_flop is not None and self.counted_flop else None


@frozen
class StageReview:
    """What the counters say of one stage."""

    stage: str
    waterfall: Waterfall
    whole: RooflineRow | None
    """None: it has no kernels."""
    traffic: tuple[Traffic, ...]
    actions: tuple[Action, ...]
    times: UnitTimes | None


@frozen
class Review:
    """Everything that the review's renderers show."""

    run_id: str
    model: str | None
    capture: CaptureInfo
    device: str | None
    peak: Peak | None
    peak_missing: str | None
    files: tuple[FileMatch, ...]
    coverage: tuple[Coverage, ...]
    stages: tuple[StageReview, ...]
    modules: tuple[RooflineRow, ...]
    kernels: tuple[ReviewedKernel, ...]
    """By stage, then time."""
    remarks: tuple[str, ...]
    """What the reader must know of the method and of what was not measured."""

    def ranked(self) -> tuple[ReviewedKernel, ...]:
        """Kernels of the stages by what a faster one could save over the run, most first."""
        known = [one for one in self.kernels if one.row.ceiling_ns is not None and one.row.stage in STAGES]
        return tuple(sorted(known, key=lambda one: (-(one.row.ceiling_ns or 0), one.row.name, one.row.module)))

    def units(self, stage: str) -> tuple[int | None, str]:
        """How many units of work a stage did in the capture, and what a unit is called."""
        found = next((one.waterfall for one in self.stages if one.stage == stage), None)
        return (None, "unit") if found is None else (found.units, found.unit)


def review(
    trace: Trace,
    attribution: Attribution,
    manifest: RunManifest | None,
    report: Report,
    files: Sequence[CounterFile],
    options: ReportOptions,
) -> Review:
    """Join counters with a trace and weigh them.

    Args:
        trace: opened.
        attribution: of the trace.
        manifest: of its run; None: unknown.
        report: of the trace.
        files: counters, each of the same program on the same device.
        options: what the report was made with.

    Raises:
        RequestError: a file is of another device, model or run, or the trace has no stages to match by.
    """
    if not any(one.stage in STAGES for one in report.stages):
        raise RequestError(
            f"{trace.path}: has no prefill or decode range, by which counters are matched; capture it with dsocr-profile, or "
            "annotate the program (docs/capture.md)"
        )
    device = main_device(trace.info, attribution)
    launches = launches_of(attribution)
    joined = join_counters(launches, files, device)
    dtype = manifest.model.dtype if manifest is not None and manifest.model else _stated_dtype(options)
    peaks = peaks_of(device, manifest, options.peaks, on_cpu=report.capture.on_cpu, dtype=dtype)
    peak, missing = (peaks.peaks[0], None) if peaks.peaks else (None, peaks.missing)
    roofs = launch_roofs(joined, peak)
    sm_count = device.sm_count if device else None
    kernels = tuple(
        ReviewedKernel(row, diagnose(row, sm_count)) for row in kernel_rows(attribution, roofs, report.kernel_shapes)
    )
    modules = summed(attribution, roofs, by_module=True)
    whole = {row.stage: row for row in summed(attribution, roofs, by_module=False)}
    costs = costs_of(manifest, options.cost, report.instances)
    stages = tuple(
        _stage(attribution, report, one.stage, whole.get(one.stage), modules, kernels, costs)
        for one in report.stages
        if one.stage in STAGES
    )
    made = Review(
        run_id=report.report.run_id,
        model=report.report.model.id if report.report.model else None,
        capture=report.capture,
        device=device.name if device else None,
        peak=peak,
        peak_missing=missing,
        files=joined.files,
        coverage=coverage_rows(joined),
        stages=stages,
        modules=modules,
        kernels=kernels,
        remarks=_remarks(joined.files, roofs, whole, peak, missing),
    )
    require_possible(made, "the review")
    return made


def _stated_dtype(options: ReportOptions) -> str:
    return options.cost.dtype if options.cost else "bf16"


def _stage(
    attribution: Attribution,
    report: Report,
    stage: str,
    whole: RooflineRow | None,
    modules: Sequence[RooflineRow],
    kernels: Sequence[ReviewedKernel],
    costs: KnownCosts,
) -> StageReview:
    summary = next(one for one in report.stages if one.stage == stage)
    times = next((one for one in report.unit_times if one.stage == stage), None)
    used = next((one for one in report.utilisation if one.stage == stage and one.time_base == "profiled elapsed"), None)
    instances = [one for one in report.instances if one.stage == stage]
    steps = sum(one.steps for one in instances)
    counts_steps = stage == "decode" and steps > 0
    waterfall = stage_waterfall(
        idle_time(attribution, STAGES[STAGES.index(stage)]),
        summary,
        whole,
        used.ideal_ns if used is not None else None,
        ideal_missing=used.unknown_because if used is not None else "the stage's need was not computed",
        units=(steps if counts_steps else len(instances)) or None,
        unit=times.per if times is not None else ("token" if counts_steps else "image"),
        unprofiled_ns=times.unprofiled_ns if times is not None else None,
    )
    mine = [one for one in kernels if one.row.stage == stage]
    needs = [costs.of(one) for one in instances]
    known = [need for need in needs if need is not None]
    reason = costs.missing or (None if len(known) == len(needs) else "the cost of an instance is not known")
    return StageReview(
        stage=stage,
        waterfall=waterfall,
        whole=whole,
        traffic=_traffic(stage, whole, [one for one in modules if one.stage == stage], known, reason),
        actions=first_actions(mine, waterfall, times),
        times=times,
    )


_PARTS: Final = (
    ("sam", re.compile(r"(^|\.)sam(\.|$)"), frozenset({"sam"})),
    ("clip", re.compile(r"(^|\.)clip(\.|$)"), frozenset({"clip"})),
    ("projector", re.compile(r"(^|\.)projector(\.|$)"), frozenset({"projector"})),
    ("lm_head", re.compile(r"(^|\.)lm_head(\.|$)"), frozenset({"lm_head"})),
    (
        "attention",
        re.compile(r"(^|\.)(self_attn|attn|attention)(\.|$)"),
        frozenset({"attention_projections", "attention_scores"}),
    ),
    (
        "mlp",
        re.compile(r"(^|\.)(mlp|feed_forward|block_sparse_moe|experts)(\.|$)"),
        frozenset({"dense_mlp", "routed_experts", "shared_experts", "router"}),
    ),
)
"""Part of the model, the module paths that compute it (the first that fits), and the components of its cost."""


def _traffic(
    stage: str,
    whole: RooflineRow | None,
    modules: Sequence[RooflineRow],
    costs: Sequence[HasComponents],
    missing: str | None,
) -> tuple[Traffic, ...]:
    components = [part for cost in costs for part in cost.components] if missing is None else []
    found = [_compared(stage, "all", [whole] if whole else [], components, None, missing)]
    if missing is not None:
        return tuple(found)
    members: dict[str, list[RooflineRow]] = {}
    for row in modules:
        part = next((name for name, path, _ in _PARTS if path.search(row.module)), None)
        if part is not None:
            members.setdefault(part, []).append(row)
    for name, _, wanted in _PARTS:
        if name in members and any(one.component in wanted for one in components):
            found.append(_compared(stage, name, members[name], components, wanted, None))
    return tuple(found)


def _compared(
    stage: str,
    part: str,
    rows: Sequence[RooflineRow],
    components: Sequence[ComponentCost],
    wanted: frozenset[str] | None,
    missing: str | None,
) -> Traffic:
    mine = [one for one in components if wanted is None or one.component in wanted]
    total, covered = sum(row.total_ns for row in rows), sum(row.covered_ns for row in rows)
    share = covered / total if total else None
    enough = share is not None and share >= ENOUGH
    reason = missing
    if reason is None and not enough:
        reason = f"counters cover {share or 0:.0%} of the time, too little to compare"
    tensor = [row.tensor_flop for row in rows if row.tensor_flop is not None]
    return Traffic(
        stage=stage,
        part=part,
        modules=tuple(row.module for row in rows if row.module),
        covered_share=share,
        measured_bytes=sum(row.dram_bytes or 0.0 for row in rows) if enough else None,
        must_bytes=sum(one.weight_bytes + one.kv_read_bytes + one.kv_write_bytes for one in mine) if mine else None,
        executed_flop=sum(tensor) if enough and tensor else None,
        counted_flop=sum(one.flop_full for one in mine) if mine else None,
        unknown_because=reason,
    )


def _remarks(
    files: Sequence[FileMatch],
    roofs: LaunchRoofs,
    whole: dict[str, RooflineRow],
    peak: Peak | None,
    peak_missing: str | None,
) -> tuple[str, ...]:
    found = [
        "Times are Nsight Systems', from the trace; bytes, operations and ratios are Nsight Compute's, from another run of the "
        "same program.",
        "Where Nsight Compute empties the caches before each kernel, as it does unless told not to (--cache-control none), traffic "
        "is that of a cold cache, and small kernels may read less in the traced run. The census of dsocr-profile review leaves "
        "the caches as they are; sections do not. No roofline time exceeds the launch's own time.",
    ]
    found += _about_l2(roofs)
    if peak is None:
        found.append(f"n/a: rooflines, for the peak is not known: {peak_missing or 'no reason recorded'}")
    if roofs.tensor_types:
        found.append(
            f"Tensor-core operations were counted for {', '.join(roofs.tensor_types)} operands; those of other types would be "
            "missing."
        )
    else:
        found.append("n/a: tensor-core operations were not collected.")
    if bool(np.isnan(roofs.cuda_flop).all()):
        found.append("n/a: CUDA-core operations were not collected; no kernel is held against the fp32 peak.")
    if bool(np.isnan(roofs.dram_bytes).all()):
        found.append("n/a: DRAM traffic was not collected; there are no roofline times.")
    impossible = int(roofs.impossible.sum())
    if impossible:
        found.append(
            f"The counters of {count(impossible)} of {counted(roofs.impossible.size, 'launch', 'launches')} are left out: at the "
            "device's peak their bytes or operations would take many times as long as the launch took. They are of another kernel, "
            "or damaged; collect them again."
        )
    cut = {stage: row.cut_ns for stage, row in whole.items() if row.cut_ns and row.roofline_ns}
    for stage, cut_ns in cut.items():
        part = cut_ns / (whole[stage].roofline_ns or 1)
        if part >= 0.01:
            found.append(
                f"{stage}: roofline times of {part:.0%} more than the launches' own were cut to those: their data came from L2."
            )
    for file in files:
        if not file.has_nvtx:
            found.append(
                f"{file.source}: holds no NVTX ranges (collect it with ncu --nvtx): its kernels were matched by their order alone."
            )
    return tuple(found)


_L2_FLOOR: Final = 100_000.0
"""Bytes: a kernel of one block moves less than this through L2."""


def _about_l2(roofs: LaunchRoofs) -> list[str]:
    found = [
        "n/a: an L2 roof, for no source gives L2's peak bandwidth. Where the speed-of-light section was collected, its memory "
        "figure holds L2."
    ]
    known = roofs.l2_bytes[~np.isnan(roofs.l2_bytes)]
    if known.size and float(known.min()) > _L2_FLOOR:
        found.append(
            f"L2 traffic: no profiled kernel has less than {bytes_(float(known.min()))}, not even the smallest: that much of every "
            "kernel's count is not its own."
        )
    return found
