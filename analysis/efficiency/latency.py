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
    tpot = [timed.step_mean_ns for timed in control if timed.step_mean_ns is not None]
    return {
        "ttft_ms": ("ms", [timed.prefill_ns / _MS for timed in control]),
        "decode_ms": ("ms", [timed.decode_ns / _MS for timed in control if timed.step_mean_ns is not None]),
        "tpot_ms": ("ms/token", [tpot_ns / _MS for tpot_ns in tpot]),
        "decode_tokens_per_s": ("token/s", [batch / tpot_ns * 1e9 for tpot_ns in tpot]),
        "itl_ms": ("ms", [step / _MS for timed in control for step in timed.step_ns]),
    }


def _profiled(captured: Captured) -> dict[str, tuple[str, list[float]]]:
    if any(stage.of_steps for stage in captured.stages):
        # An engine's steps serve many requests: no request's first or last token can be told from them.
        return {
            f"profiled_{stage.stage}_step_ms": (
                "ms/step",
                [instance.profiled_ns / _MS for instance in captured.counted(stage.stage)],
            )
            for stage in captured.stages
            if stage.of_steps
        }
    decoded = captured.counted("decode")
    return {
        "profiled_prefill_ms": ("ms", [instance.profiled_ns / _MS for instance in captured.counted("prefill")]),
        "profiled_decode_ms": ("ms", [instance.profiled_ns / _MS for instance in decoded]),
        "profiled_tpot_ms": (
            "ms/token",
            [instance.profiled_ns / _MS / instance.steps for instance in decoded if instance.steps],
        ),
        "profiled_itl_ms": (
            "ms",
            [between_ns / _MS for between_ns in _between_tokens(decoded, captured.counted_steps())],
        ),
    }


def _between_tokens(instances: Sequence[InstanceSummary], steps: Sequence[StepPoint]) -> list[int]:
    """Times from one token to the next, ns; the first from the start of its decode.

    Where the host runs ahead, many steps are open at once: from one end to the next is what a reader of the text waits.
    """
    begun = {instance.path: instance.start_ns for instance in instances}
    times = []
    for step in steps:  # in time order
        before = begun.get(step.instance, step.start_ns)
        times.append(max(0, step.finished_ns - before))
        begun[step.instance] = max(before, step.finished_ns)
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
    for timed in control:
        by_image.setdefault(timed.image_index, []).append(timed)
    images = []
    for image, passes in sorted(by_image.items()):
        frequency = Counter(timed.steps for timed in passes)
        steps = max(frequency, key=lambda number: (frequency[number], number))
        alike = [timed.decode_ns for timed in passes if timed.steps == steps]
        prefill = statistics.median(timed.prefill_ns for timed in passes)
        images.append(TypicalImage(image, prefill, statistics.median(alike) if steps else 0, steps))
    return tuple(images)


def stage_timings(captured: Captured) -> tuple[StageTiming, ...]:
    """What each stage took per pass over the input set: a typical unprofiled pass, else the captured ones' mean."""
    timings = []
    for stage in STAGES:
        summary = next((row for row in captured.stages if row.stage == stage), None)
        if summary is None:
            continue
        time_ns, tokens = _typical_time(captured, stage)
        if time_ns is None:
            passes = captured.manifest.capture_passes if captured.manifest is not None else 1
            time_ns = summary.profiled_ns / passes
            tokens = None if summary.tokens is None else round(summary.tokens / passes)
        if time_ns > 0:
            timings.append(
                StageTiming(
                    stage=stage,
                    elapsed_ms=time_ns / _MS,
                    tokens=tokens,
                    throughput_toks_per_s=None if tokens is None else tokens / time_ns * 1e9,
                )
            )
    return tuple(timings)


def _typical_time(captured: Captured, stage: Stage) -> tuple[float | None, int | None]:
    """Time of a typical pass over the input set, ns, and its tokens; None: not known."""
    images = typical_pass(captured.control)
    if not images or captured.manifest is None:
        return None, None
    if stage == "decode":
        return sum(image.decode_ns for image in images), captured.batch_size * sum(image.steps for image in images)
    prompt = {row.image_index: row.prompt_tokens for row in captured.manifest.prompts}
    known = all(image.image_index in prompt for image in images)
    tokens = captured.batch_size * sum(prompt[image.image_index] for image in images) if known else None
    return sum(image.prefill_ns for image in images), tokens


def overheads(manifest: RunManifest | None, instances: Sequence[InstanceSummary]) -> tuple[Overhead, ...]:
    """What profiling cost: by the program's own clock, where the run's record holds it, else by the trace's ranges."""
    if manifest is None or not manifest.control:
        return ()
    if manifest.profiled:
        return run_overheads(manifest)
    return compared(
        manifest, [_as_pass(instance) for instance in instances if instance.image_index is not None], "trace"
    )


def _as_pass(instance: InstanceSummary) -> ControlPass:
    """A stage instance as the program would have timed it: until the token is on the host, GPU work included."""
    image = instance.image_index or 0
    if instance.stage == "prefill":
        return ControlPass(0, image, prefill_ns=instance.profiled_ns, decode_ns=0, new_tokens=1)
    return ControlPass(0, image, prefill_ns=0, decode_ns=instance.profiled_ns, new_tokens=instance.steps + 1)
