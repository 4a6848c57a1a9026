"""The one sentence of a comparison: what became how much faster or slower, and by what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from analysis.compare.records import Comparison, Contribution, StageDifference
from analysis.domain.figures import duration, ratio, signed_duration

__all__ = ["headline", "headline_of_all", "main_causes"]

_WORTH_NAMING: Final = 0.15
"""Share of a difference from which on a cause is named."""
_CAUSES: Final = 2
_FACTOR: Final = 1.5
"""From here on a change is told as a factor, not in per cent."""

_IDLE_WORDS: Final = {
    "launches": "idle time while launching",
    "waits": "waits",
    "other calls": "idle time in other CUDA calls",
    "Python": "idle time in Python",
    "in graph": "idle time inside CUDA graphs",
    "overlap": "overlap",
    "rest": "what the traces do not explain",
}


def headline(comparison: Comparison) -> str:
    """Say what changed most among the stages that changed for certain; else what cannot be judged; else that nothing did."""
    if not comparison.stages:
        return "Nothing can be compared: the runs have no stage in common whose work is counted alike."
    changed = [row for row in comparison.stages if row.answer in ("regression", "improvement")]
    if changed:
        worst = max(changed, key=lambda row: (row.answer == "regression", _weight(row)))
        others = [row for row in changed if row is not worst]
        also = "".join(f"; {row.stage} {_change(row)}" for row in others)
        return f"{_sentence(comparison, worst)}{also}."
    unsure = [row for row in comparison.stages if row.answer == "cannot judge"]
    if unsure:
        widest = max(unsure, key=_weight)
        return f"Cannot judge: {_sentence(comparison, widest)}. {_reason(widest)}"
    stages = " and ".join(row.stage for row in comparison.stages)
    largest = max(comparison.stages, key=_weight)
    by = signed_duration(largest.difference_ns or 0.0)
    return f"No change beyond noise in {stages}: {largest.stage} {_times(largest)} ({by})."


def _reason(stage: StageDifference) -> str:
    """Why a stage cannot be judged, without the difference, which the sentence in front of it has said."""
    said = f"{signed_duration(stage.difference_ns)}: "
    return (
        stage.because[len(said) :][:1].upper() + stage.because[len(said) + 1 :]
        if stage.because.startswith(said)
        else stage.because
    )


def headline_of_all(comparisons: Sequence[Comparison]) -> str:
    """The sentence of the comparison that says most, with the label of its side where there are several."""
    if len(comparisons) == 1:
        return comparisons[0].headline
    loudest = max(
        comparisons,
        key=lambda made: max(
            ((row.answer in ("regression", "improvement"), _weight(row)) for row in made.stages), default=(False, 0.0)
        ),
    )
    return f"{loudest.new.label}: {loudest.headline}"


def main_causes(comparison: Comparison, stage: StageDifference) -> tuple[Contribution, ...]:
    """The contributions that explain most of a stage's difference, in its direction: idle kinds, and modules for GPU time."""
    difference = stage.difference_ns or 0.0
    coarse = _rows(comparison, stage.stage, "stage")
    gpu = next((row for row in coarse if row.kind == "GPU time"), None)
    causes = [row for row in coarse if row is not gpu]
    if gpu is not None:
        modules = [row for row in _rows(comparison, stage.stage, "module") if row.kind == "GPU time"]
        largest = max(modules, key=lambda row: row.difference_ns * difference, default=None)
        one_module = (
            largest is not None and largest.difference_ns * difference > 0.5 * gpu.difference_ns * difference > 0
        )
        causes.append(largest if largest is not None and one_module else gpu)
    share = [row for row in causes if difference and row.difference_ns / difference >= _WORTH_NAMING]
    return tuple(sorted(share, key=lambda row: -abs(row.difference_ns))[:_CAUSES])


def _rows(comparison: Comparison, stage: str, level: str) -> list[Contribution]:
    return [row for row in comparison.contributions if row.stage == stage and row.level == level]


def _weight(row: StageDifference) -> float:
    """How much a stage changed, as a share of its base."""
    return abs(row.difference_ns / row.base_ns) if row.difference_ns is not None and row.base_ns else 0.0


def _times(row: StageDifference) -> str:
    return f"{duration(row.base_ns)} → {duration(row.new_ns)} per {row.per}"


def _change(row: StageDifference) -> str:
    if row.ratio is None or row.difference_ns is None or not row.ratio:
        return _times(row)
    if not row.difference_ns:
        return f"as fast as before ({_times(row)})"
    faster = row.ratio < 1
    factor = 1 / row.ratio if faster else row.ratio
    word = "faster" if faster else "slower"
    by = (
        f"{factor:.3g} times as {'fast' if faster else 'slow'}"
        if factor >= _FACTOR
        else f"{ratio(abs(row.ratio - 1))} {word}"
    )
    return f"{by} ({_times(row)})"


def _sentence(comparison: Comparison, row: StageDifference) -> str:
    causes = main_causes(comparison, row)
    on_cpu = (comparison.base.device or "").startswith("CPU")
    named = " and ".join(f"{_cause(cause, on_cpu=on_cpu)} ({signed_duration(cause.difference_ns)})" for cause in causes)
    mostly = f", mostly {named}" if named else ""
    by = f": {signed_duration(row.difference_ns)}" if row.difference_ns else ""
    return f"{row.stage} is {_change(row)}{by}{mostly}"


def _cause(row: Contribution, *, on_cpu: bool) -> str:
    if row.kind == "GPU time":
        what = "operators" if on_cpu else "GPU time"
        return what if row.level == "stage" else f"{what} of {row.name}"
    return _IDLE_WORDS[row.kind]
