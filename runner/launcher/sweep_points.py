"""A point of a sweep from its parts: what its program timed, and what the analysis read from its recorded window."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from attrs import evolve, frozen

from analysis.domain.annotations import Stage
from analysis.domain.entities import MFU_GUARDRAIL, InputSet, RunMeta
from analysis.domain.errors import RequestError
from analysis.domain.manifest import ControlPass, RunManifest, StageCost
from analysis.domain.overhead import decode_unit, run_overheads
from analysis.domain.reading import LARGEST_RESULT, json_of, read_bounded
from analysis.domain.sweep import StageFigures, SweepPoint
from runner.launcher.provenance import as_recorded
from runner.plan.plan import RunPlan
from runner.plan.sweep import PointResult, SweptModel

__all__ = ["Peaks", "assembled", "peaks_in", "read_report", "window_manifest"]

_UNFIT_FOR_ALL = "the sweep ended before its window was recorded"


@frozen
class Peaks:
    """What the device can give, as the analysis knows it."""

    flop_per_s: float | None
    bytes_per_s: float | None
    how: str | None
    unknown_because: str | None = None


def window_manifest(
    plan: RunPlan, result: PointResult, swept: SweptModel, meta: RunMeta, pages: InputSet
) -> RunManifest | None:
    """What the analysis of a point's window needs to know: its passes cut to the steps that were recorded.

    So both sides, timed and recorded, are of the same contexts. None: no window was recorded.
    """
    if result.window is None or result.prompt is None:
        return None
    own, options = as_recorded(plan.settings)
    own["preset"] = None
    prompt = evolve(result.prompt, expected_new_tokens=result.window.new_tokens)
    steps = result.window.steps
    manifest = RunManifest(
        run_id=plan.run_id,
        status="complete",
        request=evolve(plan.request, max_new_tokens=result.window.new_tokens),
        collector=plan.collector,
        meta=evolve(meta, run_id=plan.run_id),
        model=swept.model,
        input_set=pages,
        prompts=(prompt,),
        annotation_level=plan.annotation_level,
        **own,
        options=options,
        versions=swept.versions,
        costs=result.window_costs,
        costs_unknown_because=result.costs_unknown_because,
        measured_peak=swept.measured_peak,
        control=tuple(_first_steps(timed, steps) for timed in result.passes),
        profiled=(result.window,),
        notes=(*swept.notes, *result.notes),
    )
    return evolve(manifest, overhead=run_overheads(manifest))


def _first_steps(timed: ControlPass, steps: int) -> ControlPass:
    first = timed.step_ns[:steps]
    return evolve(timed, new_tokens=1 + len(first), decode_ns=sum(first), step_ns=first)


def read_report(file: Path) -> dict[str, Any] | None:
    """The detail of a point's ``report.json``; None: there is none, or none that can be read."""
    try:
        report = json_of(read_bounded(file, LARGEST_RESULT), str(file))
    except RequestError:
        return None
    detail = report.get("detail") if isinstance(report, dict) else None
    return detail if isinstance(detail, dict) else None


def peaks_in(detail: dict[str, Any]) -> Peaks:
    """The peaks that a report's headlines are against."""
    rows = [row for row in detail["utilisation"] if row["time_base"] == "unprofiled" and row["stage"] != "total"]
    if not rows:
        return Peaks(None, None, None, "the analysis of the window gave no utilisation")
    row = rows[0]
    because = row["unknown_because"] if row["peak_flop_per_s"] is None else None
    return Peaks(row["peak_flop_per_s"], row["peak_bytes_per_s"], row["peak_how"], because)


def assembled(
    result: PointResult, detail: dict[str, Any] | None, window_fault: str | None, peaks: Peaks, one_image: bool
) -> SweepPoint:
    """Make the point's record.

    Args:
        result: of the program.
        detail: of the report on its window; None: there is none.
        window_fault: why there is none, where that is known.
        peaks: of the device.
        one_image: whether a prefill is of an image, and not of a text prompt.
    """
    point = SweepPoint(result.setting, result.status, result.reason, result.seconds, notes=result.notes)
    if result.status != "measured":
        return point
    batch = result.setting.batch_size
    because = window_fault or result.window_unknown_because or (_UNFIT_FOR_ALL if result.window is None else None)
    prefill = _stage("prefill", "image" if one_image else "prompt", result, detail, because, peaks)
    steps = min(timed.steps for timed in result.passes)
    decode = _stage("decode", decode_unit(batch), result, detail, because, peaks) if steps else None
    decode_ns = decode.median_ns * steps if decode else 0.0
    return evolve(
        point,
        seconds=(result.seconds or 0.0) + result.window_seconds,
        prompt_tokens=result.prompt.prompt_tokens if result.prompt else None,
        image_tokens=result.prompt.image_tokens if result.prompt else None,
        new_tokens=1 + steps,
        prefill=prefill,
        decode=decode,
        tokens_per_s=batch * 1e9 / decode.median_ns if decode else None,
        pages_per_min=batch * 60e9 / (prefill.median_ns + decode_ns),
        memory=result.memory,
        memory_unknown_because=result.memory_unknown_because,
        energy=result.energy,
    )


def _stage(
    stage: Stage, per: str, result: PointResult, detail: dict[str, Any] | None, window_fault: str | None, peaks: Peaks
) -> StageFigures:
    if stage == "prefill":
        samples = tuple(timed.prefill_ns for timed in result.passes)
        pass_ns = tuple(float(ns) for ns in samples)
    else:
        samples = tuple(step for timed in result.passes for step in timed.step_ns)
        pass_ns = tuple(timed.decode_ns / timed.steps for timed in result.passes)
    flop, weights, kv = _needs(stage, result.costs)
    seconds = median(pass_ns) / 1e9
    unknown = (
        (result.costs_unknown_because or "the sweep ended before it was counted what the point needs")
        if flop is None
        else peaks.unknown_because
    )
    moved = None if weights is None or kv is None else weights + kv
    floors = (_over(flop, peaks.flop_per_s), _over(moved, peaks.bytes_per_s))
    if unknown is None and any(floor is not None and _share(floor, seconds) is None for floor in floors):
        unknown = f"the unit takes less than 1/{MFU_GUARDRAIL} of what the device needs at its peak: a count or a peak is wrong"
    figures = StageFigures(
        stage=stage,
        per=per,
        samples_ns=samples,
        pass_ns=pass_ns,
        flop=flop,
        weight_bytes=weights,
        kv_bytes=kv,
        # As `analysis.efficiency.metrics` defines them; a test holds the two against each other.
        mfu=_share(floors[0], seconds),
        mbu=_share(floors[1], seconds),
        ideal_ns=None if floors[0] is None or floors[1] is None else max(floors[0], floors[1]) * 1e9,
        utilisation_unknown_because=unknown,
        launches=None,
        busy_ns=None,
        busy_share=None,
        bound=None,
        sentence=None,
        at_best_ns=None,
        window_unknown_because=window_fault,
    )
    return figures if detail is None else _with_window(figures, detail)


def _with_window(figures: StageFigures, detail: dict[str, Any]) -> StageFigures:
    """Add what the recorded window says; a CPU launches nothing."""
    times = next((row for row in detail["unit_times"] if row["stage"] == figures.stage), None)
    verdict = next((row for row in detail["verdicts"] if row["stage"] == figures.stage), None)
    if times is None or verdict is None:
        return evolve(figures, window_unknown_because=f"the recorded window holds no {figures.stage}")
    budget, actions = verdict["budget"], verdict["actions"]
    at_best = None
    if budget is not None:
        at_best = float(budget["time_ns"]) - (actions[0]["ceiling_per_unit_ns"] if actions else 0)
    on_cpu = bool(detail["capture"]["on_cpu"])
    return evolve(
        figures,
        launches=None if on_cpu else times["launches"],
        busy_ns=None if on_cpu else times["busy_ns"],
        busy_share=None if on_cpu else times["busy_share"],
        bound=verdict["bound"],
        sentence=verdict["sentence"],
        at_best_ns=at_best,
        window_unknown_because="a CPU ran it: there are no launches, and no GPU to be busy" if on_cpu else None,
    )


def _needs(stage: Stage, costs: tuple[StageCost, ...]) -> tuple[int | None, int | None, int | None]:
    """FLOP, weight bytes and KV bytes of one unit of a stage; None: not counted."""
    cost = next((cost for cost in costs if cost.stage == stage), None)
    if cost is None:
        return None, None, None
    units = cost.tokens if stage == "decode" else 1
    flop = sum(part.flop for part in cost.components)
    weights = sum(part.weight_bytes for part in cost.components)
    kv = sum(part.kv_read_bytes + part.kv_write_bytes for part in cost.components)
    return round(flop / units), round(weights / units), round(kv / units)


def _over(amount: int | None, per_s: float | None) -> float | None:
    """Seconds that an amount takes at a rate; None: one of them is not known."""
    return None if amount is None or not per_s else amount / per_s


def _share(floor_s: float | None, seconds: float) -> float | None:
    share = None if floor_s is None or seconds <= 0 else floor_s / seconds
    return None if share is None or share > MFU_GUARDRAIL else share
