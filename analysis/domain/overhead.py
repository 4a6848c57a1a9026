"""What profiling cost: the same passes without and with the profiler."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from analysis.domain.annotations import Stage
from analysis.domain.manifest import ControlPass

__all__ = ["WORTH_A_WARNING", "overhead"]

WORTH_A_WARNING = 1.25
"""From this factor on the lighter preset is named."""


def overhead(control: Sequence[ControlPass], profiled: Sequence[ControlPass]) -> dict[Stage, float | None]:
    """Compare the medians of the same images without and with the profiler.

    Args:
        control: unprofiled passes.
        profiled: captured passes of the same images.

    Returns:
        Per stage: profiled ÷ unprofiled time, prefill per image and decode per step; None where one of them is missing.
    """
    images = {one.image_index for one in control} & {one.image_index for one in profiled}
    return {
        "prefill": _ratio(_prefill(profiled, images), _prefill(control, images)),
        "decode": _ratio(_step(profiled, images), _step(control, images)),
    }


def _prefill(passes: Sequence[ControlPass], images: set[int]) -> float | None:
    return _sum_of_medians([(one.image_index, float(one.prefill_ns)) for one in passes if one.image_index in images])


def _step(passes: Sequence[ControlPass], images: set[int]) -> float | None:
    return _sum_of_medians(
        [
            (one.image_index, one.decode_ns / (one.new_tokens - 1))
            for one in passes
            if one.image_index in images and one.new_tokens > 1
        ]
    )


def _sum_of_medians(values: list[tuple[int, float]]) -> float | None:
    """Median over passes per image, summed over images: every image weighs the same on both sides."""
    if not values:
        return None
    images = {image for image, _ in values}
    return sum(statistics.median(value for image, value in values if image == one) for one in images)


def _ratio(profiled: float | None, control: float | None) -> float | None:
    if profiled is None or control is None or control <= 0:
        return None
    return profiled / control
