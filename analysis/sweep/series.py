"""Points of a sweep that differ in the batch alone, and what tells one such series from another."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import quantiles
from typing import Final

from attrs import frozen

from analysis.domain.annotations import Stage
from analysis.domain.figures import count
from analysis.domain.sweep import StageFigures, Sweep, SweepPoint, SweepSetting

__all__ = ["SweepSeries", "bound_of", "figures_of", "page_ns", "point_words", "series_of", "spread"]

_LEAST_PASSES: Final = 3
_DECODE_MODES: Final = {"eager": "eager", "static": "static cache", "cuda-graph": "CUDA graph"}


@frozen
class SweepSeries:
    """One input mode, context, length and decode mode over all batches."""

    setting: SweepSetting
    """Of its first point; the batch does not count."""
    label: str
    """What differs between the series of the sweep: ``gundam, CUDA graph``; empty where there is only one."""
    points: tuple[SweepPoint, ...]
    """By batch, whatever became of them."""

    @property
    def measured(self) -> tuple[SweepPoint, ...]:
        """Those that have times."""
        return tuple(point for point in self.points if point.status == "measured" and point.prefill is not None)


def figures_of(point: SweepPoint, stage: Stage) -> StageFigures | None:
    """A stage's figures; None: it has none."""
    return point.prefill if stage == "prefill" else point.decode


def bound_of(figures: StageFigures | None) -> str | None:
    """What limits a stage by its verdict; None: there is none, or it says that this is not known."""
    return None if figures is None or figures.bound == "unknown" else figures.bound


def spread(figures: StageFigures | None) -> float | None:
    """How far a stage's passes differ: (upper − lower quartile) ÷ median, linear in between; None: fewer than three passes.

    Quartiles, for one pass that something else on the machine held up says nothing of the others.
    """
    if figures is None or len(figures.pass_ns) < _LEAST_PASSES:
        return None
    lower, _, upper = quantiles(figures.pass_ns, n=4, method="inclusive")
    return (upper - lower) / figures.median_ns


def page_ns(point: SweepPoint) -> float | None:
    """How long one batch of pages takes from tensors on the device to its last token, ns; None: not measured."""
    return None if not point.pages_per_min else point.setting.batch_size * 60e9 / point.pages_per_min


def series_of(sweep: Sweep) -> tuple[SweepSeries, ...]:
    """Group a sweep's points; series in the order of their first points, points by batch."""
    groups: dict[tuple[object, ...], list[SweepPoint]] = {}
    for point in sweep.points:
        groups.setdefault(_without_batch(point.setting), []).append(point)
    varying = _varying(point.setting for point in sweep.points)
    return tuple(
        SweepSeries(
            setting=points[0].setting,
            label=", ".join(_words(points[0].setting, varying)),
            points=tuple(sorted(points, key=lambda point: point.setting.batch_size)),
        )
        for points in groups.values()
    )


def point_words(sweep: Sweep, point: SweepPoint) -> str:
    """A point by what differs in the sweep: ``batch 8, gundam, CUDA graph``."""
    varying = _varying(other.setting for other in sweep.points)
    return ", ".join((f"batch {count(point.setting.batch_size)}", *_words(point.setting, varying)))


def _without_batch(setting: SweepSetting) -> tuple[object, ...]:
    return (setting.input_mode, setting.prompt_tokens, setting.max_new_tokens, setting.decode_mode)


def _varying(settings: Iterable[SweepSetting]) -> frozenset[str]:
    """Names of the fields that are not the same in all of them, the batch left out."""
    every = list(settings)
    names = ("input_mode", "prompt_tokens", "max_new_tokens", "decode_mode")
    return frozenset(name for name in names if len({getattr(setting, name) for setting in every}) > 1)


def _words(setting: SweepSetting, varying: frozenset[str]) -> list[str]:
    words = []
    if "input_mode" in varying:
        words.append(setting.input_mode)
    if "prompt_tokens" in varying:
        words.append("own prompt" if setting.prompt_tokens is None else f"{count(setting.prompt_tokens)} prompt tokens")
    if "max_new_tokens" in varying:
        words.append(f"{count(setting.max_new_tokens)} new tokens")
    if "decode_mode" in varying:
        words.append(_DECODE_MODES[setting.decode_mode])
    return words
