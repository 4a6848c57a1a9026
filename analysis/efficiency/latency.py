"""Latencies as a user meets them: medians of unprofiled passes, and what the trace says, named ``profiled_…``."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from attrs import frozen

from analysis.domain.annotations import STAGES, Stage
from analysis.domain.entities import StageTiming, Stats
from analysis.domain.manifest import ControlPass, Overhead, RunManifest
from analysis.domain.overhead import overheads as compared
from analysis.domain.overhead import run_overheads
from analysis.efficiency.records import Aggregate, Captured
from analysis.sums.records import InstanceSummary, StepPoint

__all__ = ["TypicalImage", "aggregates", "overheads", "stage_timings", "stats", "typical_pass"]

_MS = 1e6


def stats(aggregate: Aggregate) -> Stats:
    """The contract's two numbers of an aggregate."""
    return Stats(aggregate.mean, aggregate.std)


def _aggregate(name: str, unit: str, values: Sequence[float], source: str) -> Aggregate:
    return Aggregate(
        name=name,
        unit=unit,
        mean=statistics.fmean(values),
        std=statistics.stdev(values) if len(values) > 1 else 0.0,
        median=statistics.median(values),
        minimum=min(values),
        maximum=max(values),
        count=len(values),
        source="control" if source == "control" else "trace",
    )


def aggregates(captured: Captured) -> tuple[Aggregate, ...]:
    """Latency metrics over images and passes; headlines are their medians.

    TTFT ends with the first token on the host; TPOT is (time of the last token − first) / (tokens − 1); ITL are the
    steps themselves. From the trace they include the profiler's overhead, and so are named ``profiled_…``: there a token
    is there when the step's range and its GPU work have both ended.
    """
    values = {
        **_unprofiled(captured.control, captured.batch_size),
        **_profiled(captured),
    }
    return tuple(
        _aggregate(name, unit, numbers, "trace" if name.startswith("profiled_") else "control")
        for name, (unit, numbers) in values.items()
        if numbers
    )


def _unprofiled(control: Sequence[ControlPass], batch: int) -> dict[str, tuple[str, list[float]]]:
    tpot = [one.step_mean_ns for one in control if one.step_mean_ns is not None]
    return {
        "ttft_ms": ("ms", [one.prefill_ns / _MS for one in control]),
        "decode_ms": ("ms", [one.decode_ns / _MS for one in control if one.step_mean_ns is not None]),
        "tpot_ms": ("ms/token", [one / _MS for one in tpot]),
        "decode_tokens_per_s": ("token/s", [batch / one * 1e9 for one in tpot]),
        "itl_ms": ("ms", [step / _MS for one in control for step in one.step_ns]),
    }


def _profiled(captured: Captured) -> dict[str, tuple[str, list[float]]]:
    decoded = captured.counted("decode")
    return {
        "profiled_prefill_ms": ("ms", [one.profiled_ns / _MS for one in captured.counted("prefill")]),
        "profiled_decode_ms": ("ms", [one.profiled_ns / _MS for one in decoded]),
        "profiled_tpot_ms": ("ms/token", [one.profiled_ns / _MS / one.steps for one in decoded if one.steps]),
        "profiled_itl_ms": ("ms", [one / _MS for one in _between_tokens(decoded, captured.counted_steps())]),
    }


def _between_tokens(instances: Sequence[InstanceSummary], steps: Sequence[StepPoint]) -> list[int]:
    """Times from one token to the next, ns; the first from the start of its decode.

    Where the host runs ahead, many steps are open at once: from one end to the next is what a reader of the text waits.
    """
    begun = {one.path: one.start_ns for one in instances}
    times = []
    for one in steps:  # in time order
        before = begun.get(one.instance, one.start_ns)
        times.append(max(0, one.finished_ns - before))
        begun[one.instance] = max(before, one.finished_ns)
    return times


@frozen
class TypicalImage:
    """One image of a typical unprofiled pass: medians over the passes."""

    image_index: int
    prefill_ns: float
    decode_ns: float
    """0: it ended with its first token."""
    steps: int


def typical_pass(control: Sequence[ControlPass]) -> tuple[TypicalImage, ...]:
    """A pass over the input set that no cold pass moves: each image by its medians over the control passes.

    Passes may generate different numbers of tokens (sums in another order). Decode is then that of the passes with the
    most frequent number; of equally frequent ones, the largest.
    """
    by_image: dict[int, list[ControlPass]] = {}
    for one in control:
        by_image.setdefault(one.image_index, []).append(one)
    found = []
    for image, passes in sorted(by_image.items()):
        frequency = Counter(one.steps for one in passes)
        steps = max(frequency, key=lambda number: (frequency[number], number))
        alike = [one.decode_ns for one in passes if one.steps == steps]
        prefill = statistics.median(one.prefill_ns for one in passes)
        found.append(TypicalImage(image, prefill, statistics.median(alike) if steps else 0, steps))
    return tuple(found)


def stage_timings(captured: Captured) -> tuple[StageTiming, ...]:
    """What each stage took per pass over the input set: a typical unprofiled pass, else the captured ones' mean."""
    found = []
    for stage in STAGES:
        summary = next((one for one in captured.stages if one.stage == stage), None)
        if summary is None:
            continue
        time_ns, tokens = _typical_time(captured, stage)
        if time_ns is None:
            passes = captured.manifest.capture_passes if captured.manifest is not None else 1
            time_ns = summary.profiled_ns / passes
            tokens = None if summary.tokens is None else round(summary.tokens / passes)
        if time_ns > 0:
            found.append(
                StageTiming(
                    stage=stage,
                    elapsed_ms=time_ns / _MS,
                    tokens=tokens,
                    throughput_toks_per_s=None if tokens is None else tokens / time_ns * 1e9,
                )
            )
    return tuple(found)


def _typical_time(captured: Captured, stage: Stage) -> tuple[float | None, int | None]:
    """Time of a typical pass over the input set, ns, and its tokens; None: not known."""
    images = typical_pass(captured.control)
    if not images or captured.manifest is None:
        return None, None
    if stage == "decode":
        return sum(one.decode_ns for one in images), captured.batch_size * sum(one.steps for one in images)
    prompt = {one.image_index: one.prompt_tokens for one in captured.manifest.prompts}
    known = all(one.image_index in prompt for one in images)
    tokens = captured.batch_size * sum(prompt[one.image_index] for one in images) if known else None
    return sum(one.prefill_ns for one in images), tokens


def overheads(manifest: RunManifest | None, instances: Sequence[InstanceSummary]) -> tuple[Overhead, ...]:
    """What profiling cost: by the program's own clock, where the run's record holds it, else by the trace's ranges."""
    if manifest is None or not manifest.control:
        return ()
    if manifest.profiled:
        return run_overheads(manifest)
    return compared(manifest, [_as_pass(one) for one in instances if one.image_index is not None], "trace")


def _as_pass(instance: InstanceSummary) -> ControlPass:
    """A stage instance as the program would have timed it: until the token is on the host, GPU work included."""
    image = instance.image_index or 0
    if instance.stage == "prefill":
        return ControlPass(0, image, prefill_ns=instance.profiled_ns, decode_ns=0, new_tokens=1)
    return ControlPass(0, image, prefill_ns=0, decode_ns=instance.profiled_ns, new_tokens=instance.steps + 1)
