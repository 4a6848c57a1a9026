"""What profiling cost: the same inputs without and with the profiler. The one definition of this figure.

Both sides are timed alike. The program times its own captured passes with the clock, and at the points, of the control
run: those are compared where ``run.json`` holds them. A trace alone has its ranges; what is timed by them says so.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final, Literal

from analysis.domain.annotations import Stage
from analysis.domain.figures import times
from analysis.domain.manifest import ControlPass, Overhead, RunManifest, one_input

__all__ = [
    "LIGHTEST_PRESET",
    "WORTH_A_WARNING",
    "decode_unit",
    "lighter_preset",
    "noise_sentence",
    "overheads",
    "run_overheads",
    "slower_profiled",
    "worth_a_warning",
]

WORTH_A_WARNING: Final = 1.25
"""From this factor on profiling is said to be costly, and the lighter preset is named."""

LIGHTEST_PRESET: Final = "light"
"""The preset that marks the fewest ranges; what is marked is what a preset costs."""


def worth_a_warning(overhead: Overhead) -> bool:
    """Whether profiling slowed a stage so much that its latencies in the trace mislead."""
    return overhead.factor >= WORTH_A_WARNING


def lighter_preset(preset: str | None) -> str | None:
    """Name the preset that would cost less than a run's own; None where none would, or the run had none."""
    return None if preset in (None, LIGHTEST_PRESET) else LIGHTEST_PRESET


def slower_profiled(overhead: Overhead) -> bool:
    """Whether the factor, to the two decimals that are shown, is 1 or more: what profiling can explain."""
    return round(overhead.factor, 2) >= 1


def noise_sentence(measured: Sequence[Overhead]) -> str:
    """Say what a factor below 1 is; empty where there is none.

    Recording only adds work, so a stage that ran faster with it met a machine in another state: a clock that had risen,
    a cache that was warm, another program that had ended.
    """
    faster = [f"{overhead.stage} {times(overhead.factor)}" for overhead in measured if not slower_profiled(overhead)]
    if not faster:
        return ""
    return f"Measured faster than unprofiled ({', '.join(faster)}): noise of the machine, no speed-up by the profiler."


def decode_unit(batch_size: int) -> str:
    """What decode times are given per: the tokens of a batch come together, one step for all."""
    return "token" if batch_size == 1 else "step"


def run_overheads(manifest: RunManifest) -> tuple[Overhead, ...]:
    """What profiling cost in a run, by its program's own clock; empty where it was not measured."""
    return overheads(manifest, manifest.profiled, "program")


def overheads(
    manifest: RunManifest, profiled: Sequence[ControlPass], timed_by: Literal["program", "trace"]
) -> tuple[Overhead, ...]:
    """Compare the median times of the images that both the control run and the capture hold.

    Args:
        manifest: of the run, with its control passes.
        profiled: captured passes.
        timed_by: what gave the times of ``profiled``.

    Returns:
        One record per stage that both sides measured: prefill per image, decode per step.
    """
    stages: tuple[tuple[Stage, str], ...] = (
        ("prefill", one_input(manifest)),
        ("decode", decode_unit(manifest.batch_size)),
    )
    measured = []
    for stage, per in stages:
        alone, captured = _times(manifest.control, stage), _times(profiled, stage)
        same = {image for image, _ in alone} & {image for image, _ in captured}
        if same:
            before = statistics.median(time for image, time in alone if image in same) / 1e6
            after = statistics.median(time for image, time in captured if image in same) / 1e6
            measured.append(Overhead(stage, before, after, after / before, per, timed_by))
    return tuple(measured)


def _times(passes: Sequence[ControlPass], stage: Stage) -> list[tuple[int, float]]:
    """(image index, time in ns) of every pass: of its prefill, or of one decode step."""
    if stage == "prefill":
        return [(timed.image_index, float(timed.prefill_ns)) for timed in passes if timed.prefill_ns > 0]
    return [(timed.image_index, timed.step_mean_ns) for timed in passes if timed.step_mean_ns is not None]
