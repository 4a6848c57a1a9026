"""Latencies as a user meets them: from the unprofiled control run where there is one, else from the trace."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from analysis.domain.annotations import STAGES, Stage
from analysis.domain.entities import StageTiming, Stats
from analysis.domain.manifest import ControlPass, Overhead, RunManifest
from analysis.domain.overhead import overheads as domain_overheads
from analysis.domain.overhead import run_overheads
from analysis.efficiency.records import Aggregate
from analysis.sums.records import InstanceSummary, StageSummary, StepPoint

__all__ = ["aggregates", "overheads", "stage_timings", "stats"]

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


def aggregates(
    manifest: RunManifest | None, instances: Sequence[InstanceSummary], steps: Sequence[StepPoint]
) -> tuple[Aggregate, ...]:
    """Latency metrics over images and passes.

    TTFT ends with the first token on the host; TPOT is (time of the last token − first) / (tokens − 1); ITL are the
    steps themselves. From the trace they include the profiler's overhead, and so are named ``profiled_…``.
    """
    found = []
    if manifest is not None and manifest.control:
        control = manifest.control
        found.append(_aggregate("ttft_ms", "ms", [one.prefill_ns / _MS for one in control], "control"))
        decoding = [one for one in control if one.new_tokens > 1 and one.decode_ns > 0]
        if decoding:
            found.append(_aggregate("decode_ms", "ms", [one.decode_ns / _MS for one in decoding], "control"))
            tpot = [one.decode_ns / _MS / (one.new_tokens - 1) for one in decoding]
            found.append(_aggregate("tpot_ms", "ms/token", tpot, "control"))
            found.append(
                _aggregate(
                    "decode_tokens_per_s",
                    "token/s",
                    [manifest.batch_size * (one.new_tokens - 1) / one.decode_ns * 1e9 for one in decoding],
                    "control",
                )
            )
        itl = [one / _MS for run in control for one in run.step_ns]
        if itl:
            found.append(_aggregate("itl_ms", "ms", itl, "control"))
    for stage in STAGES:
        elapsed = [one.host_elapsed_ns / _MS for one in instances if one.stage == stage]
        if elapsed:
            found.append(_aggregate(f"profiled_{stage}_ms", "ms", elapsed, "trace"))
    if steps:
        found.append(_aggregate("profiled_step_ms", "ms", [one.host_elapsed_ns / _MS for one in steps], "trace"))
    return tuple(found)


def stage_timings(manifest: RunManifest | None, stages: Sequence[StageSummary]) -> tuple[StageTiming, ...]:
    """What each stage took per pass over the input set: control run if there is one, else the captured passes."""
    found = []
    for stage in stages:
        name: Stage = "prefill" if stage.stage == "prefill" else "decode"
        elapsed_ns, tokens = _control_time(manifest, name)
        if elapsed_ns is None:
            passes = manifest.capture_passes if manifest is not None else 1
            elapsed_ns = stage.host_elapsed_ns / passes
            tokens = None if stage.tokens is None else round(stage.tokens / passes)
        if elapsed_ns > 0:
            found.append(
                StageTiming(
                    stage=name,
                    elapsed_ms=elapsed_ns / _MS,
                    tokens=tokens,
                    throughput_toks_per_s=None if tokens is None else tokens / elapsed_ns * 1e9,
                )
            )
    return tuple(found)


def _control_time(manifest: RunManifest | None, stage: Stage) -> tuple[float | None, int | None]:
    """Mean time of a pass over the input set, ns, and its tokens; None: not known."""
    if manifest is None or not manifest.control:
        return None, None
    passes = len({one.pass_index for one in manifest.control})
    prompt = {one.image_index: one.prompt_tokens for one in manifest.prompts}
    total = sum(one.prefill_ns if stage == "prefill" else one.decode_ns for one in manifest.control)
    if stage == "prefill":
        if any(one.image_index not in prompt for one in manifest.control):
            return total / passes, None
        tokens = sum(prompt[one.image_index] for one in manifest.control)
    else:
        tokens = sum(max(0, one.new_tokens - 1) for one in manifest.control)
    return total / passes, round(manifest.batch_size * tokens / passes)


def overheads(manifest: RunManifest | None, instances: Sequence[InstanceSummary]) -> tuple[Overhead, ...]:
    """What profiling cost: by the program's own clock, where the run's record holds it, else by the trace's ranges."""
    if manifest is None or not manifest.control:
        return ()
    if manifest.profiled:
        return run_overheads(manifest)
    return domain_overheads(manifest, [_as_pass(one) for one in instances if one.image_index is not None], "trace")


def _as_pass(instance: InstanceSummary) -> ControlPass:
    """A stage instance as the program would have timed it: until the token is on the host, GPU work included."""
    image = instance.image_index or 0
    if instance.stage == "prefill":
        return ControlPass(0, image, prefill_ns=instance.elapsed_ns, decode_ns=0, new_tokens=1)
    return ControlPass(0, image, prefill_ns=0, decode_ns=instance.elapsed_ns, new_tokens=instance.steps + 1)
