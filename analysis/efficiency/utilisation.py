"""MFU and MBU of each stage, on each time base, against each peak that is known – with the arithmetic in words."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import evolve, field, frozen

from analysis.domain.errors import RequestError
from analysis.domain.manifest import ComponentCost, PromptTokens, RunManifest, StageCost
from analysis.efficiency import metrics
from analysis.efficiency.config_costs import ConfigRequest, StepCost, stage_costs, step_costs
from analysis.efficiency.cost import closed_form, find_preset
from analysis.efficiency.hardware import Peak, UnknownPeak, peak_for, with_measured, with_overrides
from analysis.efficiency.latency import typical_pass
from analysis.efficiency.records import Captured, ComponentNeed, TimeBase, Utilisation
from analysis.sums.records import InstanceSummary
from analysis.sums.stages import WHOLE_CAPTURE
from analysis.trace.records import Device

__all__ = [
    "CostRequest",
    "KnownCosts",
    "KnownPeaks",
    "PeakOverrides",
    "component_needs",
    "costs_of",
    "headline",
    "peak_tflops_bf16",
    "peaks_of",
    "shared",
    "utilisations",
]

_HEADLINE_BASES: Final[tuple[TimeBase, ...]] = ("unprofiled", "profiled elapsed")


@frozen
class PeakOverrides:
    """Peaks stated by the user."""

    tflops: float | None = None
    gbps: float | None = None


@frozen
class KnownCosts:
    """What each image needs in each stage."""

    by_stage: Mapping[tuple[int, str], StageCost]
    """(image index, stage) → cost."""
    missing: str | None = None
    """Why there is none."""
    by_path: Mapping[str, StepCost] = field(factory=dict)
    """Path of an engine's step → cost."""
    bound: str | None = None
    """Where attention's part is a lower bound: why, as a clause."""

    def of(self, instance: InstanceSummary) -> StageCost | StepCost | None:
        """Cost of a stage instance; None: not known."""
        by_path = self.by_path.get(instance.path)
        return self.by_stage.get((instance.image_index or 0, instance.stage)) if by_path is None else by_path


@frozen
class KnownPeaks:
    """Peaks to compare with, the one for headlines first."""

    peaks: tuple[Peak, ...]
    missing: str | None = None
    """Why there is none."""
    device: Peak | None = None
    """By data sheet or derived, whatever the user states; None: not known."""


@frozen
class CostRequest:
    """What to compute a trace's cost from, where it carries no manifest."""

    preset: str
    mode: str | None
    """Input mode; None: the preset's own default."""
    tiles: int
    prompt_tokens: int
    dtype: str = "bf16"

    @property
    def chosen_mode(self) -> str:
        """The input mode that is meant.

        Raises:
            RequestError: there is no closed form for that preset.
        """
        return self.mode if self.mode is not None else find_preset(self.preset).default_mode

    @property
    def model_name(self) -> str:
        """What the user stated, for headings."""
        return self.preset


def shared(costs: KnownCosts, ranks: int) -> KnownCosts:
    """One rank's share of what a model needs that is spread evenly over ranks, as tensor parallelism does.

    Args:
        costs: of the whole model.
        ranks: over which it is spread; 1: each rank does all of it.
    """
    if ranks == 1:
        return costs
    return evolve(
        costs,
        by_stage={
            key: evolve(cost, components=_share_of(cost.components, ranks)) for key, cost in costs.by_stage.items()
        },
        by_path={key: StepCost(_share_of(cost.components, ranks)) for key, cost in costs.by_path.items()},
    )


def _share_of(components: Sequence[ComponentCost], ranks: int) -> tuple[ComponentCost, ...]:
    counts = ("flop", "flop_full", "weight_bytes", "kv_read_bytes", "kv_write_bytes")
    return tuple(evolve(part, **{name: round(getattr(part, name) / ranks) for name in counts}) for part in components)


def costs_of(
    manifest: RunManifest | None,
    request: CostRequest | ConfigRequest | None,
    instances: Sequence[InstanceSummary],
) -> KnownCosts:
    """What each image needs in each stage, or why that is not known.

    Raises:
        RequestError: there is no closed form for what was requested, or it does not fit the trace.
    """
    engine = any(instance.composition is not None for instance in instances)
    if isinstance(request, ConfigRequest):
        if engine and request.prompt_tokens is not None:
            raise RequestError(
                "--prompt-tokens: of no use here, for the names of this trace's steps say how many tokens they work on; "
                "leave it out"
            )
        if engine:
            steps_need = step_costs(request.decoder, instances)
            return KnownCosts({}, steps_need.missing, steps_need.by_path, steps_need.bound)
        if manifest is not None and manifest.costs:
            raise RequestError("--config: the run's manifest says what was run; leave --config out")
        return KnownCosts({(cost.image_index, cost.stage): cost for cost in stage_costs(request, instances)})
    if engine:
        return KnownCosts(
            {}, "what an engine's steps need follows from its model's configuration (--config config.json)"
        )
    if request is not None:
        images = sorted({instance.image_index or 0 for instance in instances})
        steps = {instance.image_index or 0: instance.steps for instance in instances if instance.stage == "decode"}
        prompts = [
            PromptTokens(
                image_index=image,
                mode=request.chosen_mode,
                tiles=request.tiles,
                image_tokens=0,
                text_tokens=request.prompt_tokens,
                prompt_tokens=request.prompt_tokens,
                expected_new_tokens=steps.get(image, 0) + 1,
            )
            for image in images
        ]
        costs = closed_form(request.preset, prompts, max_new_tokens=1, dtype=request.dtype)
        return KnownCosts({(cost.image_index, cost.stage): cost for cost in costs})
    if manifest is None:
        return KnownCosts(
            {}, "the trace carries no manifest; name the model (--model, --input-mode, --tiles, --prompt-tokens)"
        )
    if not manifest.costs:
        return KnownCosts({}, manifest.costs_unknown_because or "the runner could not count this model's FLOPs")
    return KnownCosts({(cost.image_index, cost.stage): cost for cost in manifest.costs})


def peaks_of(
    device: Device | None, manifest: RunManifest | None, overrides: PeakOverrides, *, on_cpu: bool, dtype: str
) -> KnownPeaks:
    """Peaks to compare with, or why there is none."""
    peaks: list[Peak] = []
    reason: str | None = None
    name = device.name if device is not None else "unknown device"
    looked_up: Peak | UnknownPeak = UnknownPeak(name, "the trace names no device")
    if on_cpu:
        looked_up = UnknownPeak(name, "peaks of CPUs are not tabulated")
    elif device is not None:
        looked_up = peak_for(
            device.name,
            compute_capability=device.compute_capability,
            sm_count=device.sm_count,
            clock_hz=device.clock_hz,
            memory_bandwidth=device.memory_bytes_per_s,
        )
    stated = with_overrides(looked_up, dtype=dtype, tflops=overrides.tflops, gbps=overrides.gbps)
    if isinstance(stated, Peak):
        peaks.append(stated)
    else:
        reason = f"{stated.device_name}: {stated.reason}"
    measured = manifest.measured_peak if manifest is not None else None
    if measured is not None and measured.dtype in ("bf16", "fp16", "tf32", "fp32", "fp8"):
        peaks.append(
            with_measured(
                stated,
                dtype=measured.dtype,
                flop_per_s=measured.flop_per_s,
                bytes_per_s=measured.bytes_per_s,
                how=measured.how,
            )
        )
    return KnownPeaks(tuple(peaks), None if peaks else reason, looked_up if isinstance(looked_up, Peak) else None)


def utilisations(captured: Captured, costs: KnownCosts, peaks: KnownPeaks, *, dtype: str) -> tuple[Utilisation, ...]:
    """One row per stage (and the total), time base and peak.

    Unprofiled: one typical pass of the control run, and what one pass needs. Profiled: the captured instances, and what
    they need.
    """
    rows = []
    whole = tuple(stage.stage for stage in captured.stages if stage.stage != WHOLE_CAPTURE)
    # An engine's empty steps launch nothing: they need nothing, and are part of the whole only.
    judged = [
        stage.stage for stage in captured.stages if stage.stage in whole and (stage.busy_ns or not stage.of_steps)
    ]
    for name in (*judged, "total") if whole else ():
        names = whole if name == "total" else (name,)
        for work in _works(captured, names):
            needed, missing = _needed(work.wanted, costs)
            if captured.capture.kernels and not any(row.busy_ns for row in captured.stages if row.stage in names):
                needed, missing = None, "no GPU operation of this trace lies in it: its time is not that of its work"
            if needed and not any(cost.components for cost in needed):
                continue  # steps without tokens need nothing: there is nothing to compare
            for peak in peaks.peaks or (None,):
                rows.append(
                    _row(
                        name,
                        work,
                        needed,
                        costs.missing or missing,
                        peak,
                        peaks.missing,
                        dtype=dtype,
                        bound=costs.bound is not None,
                    )
                )
    return tuple(rows)


def component_needs(captured: Captured, costs: KnownCosts) -> tuple[ComponentNeed, ...]:
    """What each component needs for one unit of a stage's work, mean over the captured instances of known cost.

    Args:
        captured: its instances.
        costs: of each image in each stage.
    """
    needs = []
    for stage in dict.fromkeys(row.stage for row in captured.stages):
        mine = [(instance, costs.of(instance)) for instance in captured.counted(stage)]
        known = [
            (instance, cost)
            for instance, cost in mine
            if cost is not None and (isinstance(cost, StepCost) or stage != "decode" or cost.tokens == instance.steps)
        ]
        units = sum(
            instance.steps if stage == "decode" and not isinstance(cost, StepCost) else 1 for instance, cost in known
        )
        if not units or len(known) < len(mine):
            continue
        sums: dict[str, list[int]] = {}
        for _, cost in known:
            for part in cost.components:
                entry = sums.setdefault(part.component, [0, 0])
                entry[0] += part.flop
                entry[1] += part.weight_bytes + part.kv_read_bytes + part.kv_write_bytes
        needs += [ComponentNeed(stage, name, flop / units, moved / units) for name, (flop, moved) in sums.items()]
    return tuple(needs)


@frozen
class _Work:
    """Stage instances and the time that they took together."""

    base: TimeBase
    time_ns: float
    wanted: tuple[tuple[int, str, int, str], ...]
    """(image index, stage, decode steps, path) of each instance; the path is empty where it was not captured."""


def _works(captured: Captured, stages: Sequence[str]) -> tuple[_Work, ...]:
    instances = [instance for stage in stages for instance in captured.counted(stage)]
    wanted = tuple((instance.image_index or 0, instance.stage, instance.steps, instance.path) for instance in instances)
    # A stage inside one of its name adds no time of its own: from the stage's sum goes what is skipped.
    elapsed = sum(row.profiled_ns for row in captured.stages if row.stage in stages)
    counted = {id(instance) for instance in instances}
    skipped = sum(
        instance.profiled_ns
        for instance in captured.instances
        if instance.stage in stages and id(instance) not in counted
    )
    profiled = (
        _Work("profiled elapsed", elapsed - skipped, wanted),
        _Work("profiled gpu busy", sum(instance.busy_ns for instance in instances), wanted),
    )
    if not captured.control:
        return profiled
    images = typical_pass(captured.control)
    time_ns = sum(
        (image.prefill_ns if "prefill" in stages else 0) + (image.decode_ns if "decode" in stages else 0)
        for image in images
    )
    uncaptured = tuple(
        (image.image_index, stage, image.steps, "")
        for image in images
        for stage in stages
        if stage == "prefill" or image.steps
    )
    return (_Work("unprofiled", time_ns, uncaptured), *profiled)


def _needed(
    wanted: Sequence[tuple[int, str, int, str]], costs: KnownCosts
) -> tuple[list[StageCost | StepCost] | None, str | None]:
    """Costs of the instances (image, stage, steps, path); None with the reason if one is not known."""
    if not wanted:
        return None, "no image of the control run reached this stage"
    needed: list[StageCost | StepCost] = []
    for image, stage, steps, path in wanted:
        if path in costs.by_path:
            needed.append(costs.by_path[path])
            continue
        if stage == "decode" and not steps:
            return None, f"image[{image}]/decode holds no decode_step range that would say how many tokens it made"
        cost = costs.by_stage.get((image, stage))
        if cost is None:
            return None, f"no cost is known for image[{image}]/{stage}"
        if stage == "decode" and cost.tokens != steps:
            return None, f"image[{image}] has {steps} decode steps, but its cost was counted for {cost.tokens}"
        needed.append(cost)
    return needed, None


def _row(
    stage: str,
    work: _Work,
    needed: list[StageCost | StepCost] | None,
    missing: str | None,
    peak: Peak | None,
    peak_missing: str | None,
    *,
    dtype: str,
    bound: bool,
) -> Utilisation:
    need = metrics.sum_needs(needed) if needed else None
    seconds = work.time_ns / 1e9 if work.time_ns else None
    mfu = metrics.mfu(need.flop if need else None, seconds, peak, dtype)
    full = metrics.mfu(need.flop_full if need else None, seconds, peak, dtype)
    mbu = metrics.mbu(need.bytes if need else None, seconds, peak)
    # Instance by instance: they run one after the other, so that none can hide in another's floor.
    floors = [metrics.ideal_time(metrics.sum_needs([cost]), peak, dtype) for cost in needed or ()]
    known = [floor.seconds for floor in floors if floor is not None]
    ideal = sum(known) if known and len(known) == len(floors) else None
    units = [
        1 if isinstance(cost, StepCost) or name != "decode" else steps
        for cost, (_, name, steps, _) in zip(needed or (), work.wanted, strict=False)
    ]
    ideal_unit = (
        None if ideal is None else statistics.median(seconds / n for seconds, n in zip(known, units, strict=True))
    )
    because = None
    if mfu.value is None:
        because = missing if need is None else (peak_missing if peak is None else mfu.because)
    elif mbu.value is None:
        because = f"MBU: {mbu.because}"
    return Utilisation(
        stage=stage,
        time_base=work.base,
        time_ns=round(work.time_ns) or None,
        flop=need.flop if need else None,
        flop_full=need.flop_full if need else None,
        bytes_moved=need.bytes if need else None,
        peak_flop_per_s=peak.flop_per_s.get(dtype) if peak else None,
        peak_bytes_per_s=peak.bytes_per_s if peak else None,
        peak_how=peak.how if peak else None,
        mfu=mfu.value,
        mfu_full_attention=full.value,
        mbu=mbu.value,
        arithmetic_intensity=metrics.arithmetic_intensity(need) if need else None,
        ridge_point=metrics.ridge_point(peak, dtype),
        ideal_ns=None if ideal is None else round(ideal * 1e9),
        unknown_because=because,
        derivation=_derivation(need, seconds, peak, mfu.value, mbu.value, dtype, bound=bound)
        if need and seconds
        else None,
        suspect=mfu.suspect or full.suspect or mbu.suspect,
        ideal_unit_ns=None if ideal_unit is None or stage == "total" else ideal_unit * 1e9,
    )


def _derivation(
    need: metrics.StageNeed,
    seconds: float,
    peak: Peak | None,
    mfu: float | None,
    mbu: float | None,
    dtype: str,
    *,
    bound: bool,
) -> str:
    """The arithmetic with its numbers, to be checked by hand."""
    parts = []
    rate = peak.flop_per_s.get(dtype) if peak else None
    if rate and mfu is not None and peak:
        parts.append(
            f"MFU = {need.flop:.4e} FLOP / ({seconds:.6f} s × {rate / 1e12:g} TFLOP/s {dtype} dense, {peak.how}) = "
            f"{mfu:.4%}"
        )
    if peak and peak.bytes_per_s and mbu is not None:
        parts.append(
            f"MBU = ({need.weight_bytes:.4e} weights + {need.kv_read_bytes:.4e} KV read + "
            f"{need.kv_write_bytes:.4e} KV written) bytes / ({seconds:.6f} s × {peak.bytes_per_s / 1e9:g} GB/s) = "
            f"{mbu:.4%}"
        )
    if parts and bound:
        parts.append("attention's part is a lower bound")
    return "; ".join(parts)


def headline(rows: Sequence[Utilisation], stage: str) -> Utilisation | None:
    """The row for headlines: of the unprofiled time where there is a control run, else elapsed; the first peak."""
    for base in _HEADLINE_BASES:
        for row in rows:
            if row.stage == stage and row.time_base == base:
                return row
    return None


def peak_tflops_bf16(peaks: KnownPeaks) -> float | None:
    """The device's dense bf16 peak, 10^12 FLOP/s: of its data sheet, derived, or stated – not what was measured."""
    rates = [peak.flop_per_s.get("bf16") for peak in peaks.peaks if peak.how != "measured"]
    return next((rate / 1e12 for rate in rates if rate is not None), None)
