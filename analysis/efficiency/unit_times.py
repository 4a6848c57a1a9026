"""What one unit of a stage's work takes – an image, a prompt, a token – and how busy the GPU was of it.

The GPU-busy share of every table, tile, verdict, note and file comes from here. Profiling slows the host and not the
kernels, which the GPU times itself: so GPU-busy time of the capture is set against the time without the profiler. On a CPU
the profiler slows the operators as it does everything else: there the capture is set against itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from analysis.domain.figures import duration
from analysis.domain.manifest import ControlPass
from analysis.domain.overhead import decode_unit
from analysis.efficiency.records import Captured, UnitTimes
from analysis.sums.records import InstanceSummary, StageSummary
from analysis.sums.stages import WHOLE_CAPTURE

__all__ = ["unit_times", "work_units"]


def unit_times(captured: Captured) -> tuple[UnitTimes, ...]:
    """Medians per unit of each stage, in the order of ``captured.stages``."""
    return tuple(
        _whole_capture(stage) if stage.stage == WHOLE_CAPTURE else _of_stage(captured, stage.stage)
        for stage in captured.stages
    )


def work_units(captured: Captured, stage: str) -> tuple[str, Callable[[InstanceSummary], int]]:
    """The unit of a stage's work, and how many of it an instance does.

    An engine's step is a unit of its kind.
    Decode counts its steps where the trace has any; an instance without steps then does no unit.
    """
    if any(instance.composition is not None for instance in captured.counted(stage)):
        return "step", lambda _: 1
    if stage == "decode" and any(instance.steps for instance in captured.counted(stage)):
        return decode_unit(captured.batch_size), lambda instance: instance.steps
    return captured.one_input, lambda _: 1


def _of_stage(captured: Captured, stage: str) -> UnitTimes:
    per, units = work_units(captured, stage)
    instances = [instance for instance in captured.counted(stage) if units(instance)]
    per_step = per == decode_unit(captured.batch_size)
    passes = [
        (timed.image_index, time, whole) for timed in captured.control for time, whole in _times(timed, stage, per_step)
    ]
    images = {instance.image_index for instance in instances} & {image for image, _, _ in passes}
    if images:  # the same images on both sides
        instances = [instance for instance in instances if instance.image_index in images]
        passes = [timed for timed in passes if timed[0] in images]
    else:
        passes = []
    unprofiled = statistics.median(time for _, time, _ in passes) if passes else None
    busy = statistics.median(instance.busy_ns / units(instance) for instance in instances)
    elapsed = statistics.median(instance.profiled_ns / units(instance) for instance in instances)
    base: Literal["unprofiled", "profiled"] = "unprofiled"
    time = unprofiled
    if time is None or captured.on_cpu:
        base, time = "profiled", elapsed
    capped = None
    if time and busy > time:
        capped = f"{duration(busy)} GPU busy per {per} in the capture exceed the {base} {duration(time)}"
    return UnitTimes(
        stage=stage,
        per=per,
        instances=len(instances),
        busy_ns=busy,
        profiled_ns=elapsed,
        launches=statistics.median(instance.launches / units(instance) for instance in instances),
        unprofiled_ns=unprofiled,
        busy_share=min(1.0, busy / time) if time else None,
        busy_share_base=base,
        profiled_busy_share=min(1.0, busy / elapsed) if elapsed else None,
        pass_busy_ns=_over_a_pass((_image(instance), instance.busy_ns) for instance in instances),
        pass_profiled_ns=_over_a_pass((_image(instance), instance.profiled_ns) for instance in instances),
        pass_unprofiled_ns=_over_a_pass((image, whole) for image, _, whole in passes) if passes else None,
        capped_because=capped,
        inputs=len({_image(instance) for instance in instances}),
    )


def _times(timed: ControlPass, stage: str, per_step: bool) -> Sequence[tuple[float, int]]:
    """Time per unit and of the whole stage of one image of a control pass; empty: it did not get so far."""
    if stage == "prefill":
        return [(timed.prefill_ns, timed.prefill_ns)] if timed.prefill_ns > 0 else []
    if timed.step_mean_ns is None:
        return []
    return [(timed.step_mean_ns if per_step else timed.decode_ns, timed.decode_ns)]


def _image(instance: InstanceSummary) -> object:
    """What instances of several passes share: their image, or nothing."""
    return instance.path if instance.image_index is None else instance.image_index


def _over_a_pass(values: Iterable[tuple[object, float]]) -> float:
    """Sum over images of the median over passes."""
    by_image: dict[object, list[float]] = {}
    for image, value in values:
        by_image.setdefault(image, []).append(value)
    return sum(statistics.median(times) for times in by_image.values())


def _whole_capture(stage: StageSummary) -> UnitTimes:
    """Of a trace without stages: the time from its first to its last GPU operation."""
    share = stage.busy_ns / stage.profiled_ns if stage.profiled_ns else None
    return UnitTimes(
        stage=stage.stage,
        per="capture",
        instances=1,
        busy_ns=stage.busy_ns,
        profiled_ns=stage.profiled_ns,
        launches=stage.launches,
        unprofiled_ns=None,
        busy_share=share,
        busy_share_base="profiled",
        profiled_busy_share=share,
        pass_busy_ns=stage.busy_ns,
        pass_profiled_ns=stage.profiled_ns,
        pass_unprofiled_ns=None,
    )
