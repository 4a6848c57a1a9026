"""Whether a difference of latencies is one: its interval, what unchanged runs differ by, and the answer.

Two kinds of noise are kept apart. Repetitions of one run scatter: the bootstrap interval of the difference of medians says how
well the repetitions pin it down. Whole runs drift – clocks, memory layout, neighbours on the machine – in ways that the
repetitions of one run do not show: that is what the A/A band is for (`analysis.domain.bands`). A difference counts if its
interval excludes 0 **and** it exceeds the band.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from analysis.compare.records import Answer, Interval, SettingChange
from analysis.domain.bands import Band
from analysis.domain.figures import counted, duration, ratio, signed_duration

__all__ = [
    "ASSUMED_SHARE",
    "CONFIDENCE",
    "EQUAL_WITHIN",
    "FEWEST_FOR_AN_ANSWER",
    "FEWEST_FOR_BOOTSTRAP",
    "HOST_DRIFT",
    "KERNEL_DRIFT",
    "RESAMPLES",
    "answer",
    "assumed_band",
    "band_of",
    "interval",
    "levelled",
]

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 4000
SEED: Final = 20_251_125
"""Fixed: the same runs give the same answer."""

FEWEST_FOR_BOOTSTRAP: Final = 5
"""Repetitions a side. A median of fewer takes too few values for their quantiles to mean anything."""
FEWEST_FOR_AN_ANSWER: Final = 3
"""Repetitions a side. With two a side even complete separation comes by chance in one case of three."""

ASSUMED_SHARE: Final = 0.05
"""Of the base's median: what unchanged runs are assumed to differ by at least where nobody has measured it."""
ASSUMED_SPREADS: Final = 2.0
"""Standard deviations of single repetitions that they are assumed to differ by: a stage that scatters drifts too."""
HOST_DRIFT: Final = 0.30
"""Standard deviation from one unchanged run to the next of the time that the host sets the pace, as a share of it."""
KERNEL_DRIFT: Final = 0.02
"""The same of the time that the GPU works."""
WIDE: Final = 2.0
"""Bands: an interval that holds 0 and reaches further to one side than so many hides more than it shows."""
EQUAL_WITHIN: Final = 0.10
"""Share of the base that an interval may reach to be called equal by an assumed band. That one is wide where a host sets the
pace: 70 % of a token of 23 ms, within which a change of 15 % is nothing that was shown to be noise."""

_MAD_TO_SIGMA: Final = 1.4826
"""Standard deviation ÷ median absolute deviation of a normal distribution."""
_CELLS: Final = 4_000_000
"""Resampled values that are held at once: 32 MB."""

Samples: TypeAlias = NDArray[np.float64]


def interval(
    base: Sequence[float] | Samples,
    new: Sequence[float] | Samples,
    band: Band | None,
    *,
    busy: tuple[float, float] | None = None,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval | None:
    """Interval of the difference of medians, new − base, by a block bootstrap.

    Repetitions follow each other on one machine and are alike for a while, so blocks of neighbours are drawn, not single
    values: circular blocks of ∛n (Politis and Romano 1992). Percentile interval: medians of few values take
    few values, for which corrections by acceleration or bias have nothing to work on.

    With fewer than `FEWEST_FOR_BOOTSTRAP` repetitions on a side it is the interval of the extremes, least of one side less
    most of the other, and ``resamples`` is 0. It excludes 0 only if the sides do not overlap at all, which unchanged sides
    of n and m independent repetitions do in 2 / C(n + m, n) of cases: ``confidence`` is what that leaves.

    Args:
        base: unprofiled repetitions, ns per unit, in the order in which they ran, [n].
        new: those of the new side, [m].
        band: what unchanged runs differ by; None: not known, and assumed (`assumed_band`).
        busy: how much of a unit the GPU works on either side, ns; None: not known. For `assumed_band`.
        confidence: of the interval, 0–1.
        resamples: how often both sides are drawn anew.
        seed: of the drawing.

    Returns:
        None: a side has no repetitions.
    """
    if not len(base) or not len(new):
        return None
    first, second = np.asarray(base, np.float64), np.asarray(new, np.float64)
    if min(len(first), len(second)) < FEWEST_FOR_BOOTSTRAP:
        low, high = second.min() - first.max(), second.max() - first.min()
        resamples = 0
        confidence = min(confidence, 1 - 2 / math.comb(len(first) + len(second), len(first)))
    else:
        generator = np.random.default_rng(seed)
        # Drawn in an order that does not depend on which side is called the base: swapped sides have the mirrored interval.
        swapped = (second.size, *second) < (first.size, *first)
        drawn_first, drawn_second = (second, first) if swapped else (first, second)
        medians = _medians(drawn_first, resamples, generator)
        differences = _medians(drawn_second, resamples, generator) - medians
        if swapped:
            differences = -differences
        tail = (1 - confidence) / 2
        low, high = np.quantile(differences, (tail, 1 - tail))
    if band is None:
        band = assumed_band(first, second, busy)
    return Interval(
        low_ns=float(low),
        high_ns=float(high),
        confidence=max(0.0, confidence),
        resamples=resamples,
        base_samples=len(first),
        new_samples=len(second),
        band_ns=band.ns,
        band_from=band.source,
        band_measured=band.measured,
    )


def levelled(
    base: Sequence[float], base_inputs: Sequence[int], new: Sequence[float], new_inputs: Sequence[int]
) -> tuple[Samples, Samples]:
    """Repetitions of both sides as if all inputs took the same: pages of different size are no noise.

    Each repetition is divided by its input's level – the mean of both sides' medians of it, so that neither side is favoured – and
    multiplied with the median of the levels. A side that is slower by so many per cent stays so.

    Args:
        base: repetitions of the base, ns per unit, [n].
        base_inputs: input of each, [n].
        new: those of the new side, [m].
        new_inputs: input of each, [m].

    Returns:
        Both in their order. As they are, where the sides have other inputs, where an input has too few repetitions to have a
        level of its own, and where inputs differ by no more than their repetitions do: levels would then take noise away.
    """
    first, second = np.asarray(base, np.float64), np.asarray(new, np.float64)
    by_input = _by_input(first, base_inputs), _by_input(second, new_inputs)
    if by_input[0].keys() != by_input[1].keys():
        return first, second
    groups = [group for side in by_input for group in side.values()]
    if len(by_input[0]) < 2 or min(len(group) for group in groups) < FEWEST_FOR_AN_ANSWER:
        return first, second
    levels = {image: float(np.median(by_input[0][image]) + np.median(by_input[1][image])) / 2 for image in by_input[0]}
    apart = max(levels.values()) - min(levels.values())
    if min(levels.values()) <= 0 or apart <= float(np.median([np.ptp(group) for group in groups])):
        return first, second
    typical = float(np.median(list(levels.values())))
    return (
        first * typical / np.array([levels[image] for image in base_inputs]),
        second * typical / np.array([levels[image] for image in new_inputs]),
    )


def _by_input(samples: Samples, inputs: Sequence[int]) -> dict[int, Samples]:
    of_each = np.asarray(inputs, np.int64)
    return {image: samples[of_each == image] for image in dict.fromkeys(inputs)}


def _medians(samples: Samples, resamples: int, generator: np.random.Generator) -> Samples:
    """Medians of so many resamples by circular blocks."""
    number = len(samples)
    length = math.ceil(number ** (1 / 3))
    blocks = math.ceil(number / length)
    medians = np.empty(resamples)
    at_once = max(1, _CELLS // (blocks * length))
    for first in range(0, resamples, at_once):
        rows = min(at_once, resamples - first)
        starts = generator.integers(0, number, (rows, blocks, 1))
        drawn = samples[(starts + np.arange(length)) % number].reshape(rows, -1)[:, :number]
        medians[first : first + rows] = np.median(drawn, axis=1)
    return medians


def assumed_band(
    base: Sequence[float] | Samples, new: Sequence[float] | Samples, busy: tuple[float, float] | None = None
) -> Band:
    """What unchanged runs are taken to differ by where nobody has measured it.

    The larger of two: `ASSUMED_SPREADS` standard deviations of the repetitions, of the side that scatters more, estimated
    from the median absolute deviation, which a single slow pass does not move; and what whole runs drift by. Where it is
    known how long the GPU works, that is as many standard deviations of the difference of two runs in which the rest, which
    the host paces, drifts by `HOST_DRIFT` and the GPU's work by `KERNEL_DRIFT`; else `ASSUMED_SHARE` of the base's median.

    No theory gives these numbers. On two H100s of a shared host 20 processes each ran the same DeepSeek-OCR: TTFT had a
    standard deviation of 15 and 16 ms (of 80 to 85 ms, 39 ms of it the GPU's), a token without a CUDA graph one of 4.0 ms (of
    21 ms, 2.5 ms the GPU's), with one 0.023 ms (of 2.8 ms). A host of one's own is calmer: that is why a difference below an
    assumed band is not called equal but "cannot judge".

    Args:
        base: repetitions of the base, ns per unit.
        new: those of the new side.
        busy: how much of a unit the GPU works on either side, ns; None: not known.
    """
    if busy is None:
        least = ASSUMED_SHARE * float(np.median(base))
        drifts = f"{ratio(ASSUMED_SHARE)} of the base"
    else:
        medians = float(np.median(base)), float(np.median(new))
        of_runs = [
            math.hypot(HOST_DRIFT * max(0.0, whole - works), KERNEL_DRIFT * min(works, whole))
            for whole, works in zip(medians, busy, strict=True)
        ]
        least = ASSUMED_SPREADS * math.hypot(*of_runs)
        drifts = (
            f"runs drift by {HOST_DRIFT:.0%} of what the host paces and {KERNEL_DRIFT:.0%} of the GPU's work".replace(
                "%", " %"
            )
        )
    spread = ASSUMED_SPREADS * max(_sigma(base), _sigma(new))
    if spread > least:
        source = (
            f"assumed: {ASSUMED_SPREADS:g} standard deviations of the repetitions, as no unchanged runs were compared"
        )
        return Band(spread, source, measured=False)
    source = f"assumed: {drifts}, as no unchanged runs were compared"
    return Band(least, source, measured=False)


def _sigma(samples: Sequence[float] | Samples) -> float:
    values = np.asarray(samples, np.float64)
    return _MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values))))


def band_of(stage: str, given: Mapping[str, Band | float], source: str = "given") -> Band | None:
    """The band of a stage from a mapping: of `Band`, or of plain ns per unit, as a history of runs keeps it.

    Args:
        stage: whose.
        given: stage → band.
        source: what plain numbers come from, in words.
    """
    band = given.get(stage)
    return band if band is None or isinstance(band, Band) else Band(float(band), source)


def answer(
    difference: float | None,
    interval: Interval | None,
    forbidding: Sequence[SettingChange],
    base: float | None = None,
) -> tuple[Answer, str]:
    """Say what a difference of latencies means.

    Args:
        difference: of the medians, new − base, ns per unit; None: a side has none.
        interval: of the difference; None: not measured without the profiler on both sides.
        forbidding: settings in which the sides differ; those that do not forbid a judgement are passed over.
        base: median of the base, ns per unit; None: how far an interval reaches is held against the band alone.

    Returns:
        The answer, and its reason in one sentence with its numbers.
    """
    forbids = [change for change in forbidding if change.forbids]
    if forbids:
        named = "; ".join(
            f"{change.name}: {' against '.join(_value(value) for value in change.values)}" for change in forbids
        )
        return "cannot judge", f"The sides differ in more than the code ({named}), {forbids[0].because.rstrip('.')}."
    if difference is None or interval is None:
        return "cannot judge", "A side has no unprofiled repetitions of this stage to compare."
    fewest = min(interval.base_samples, interval.new_samples)
    if fewest < FEWEST_FOR_AN_ANSWER:
        return "cannot judge", (
            f"{interval.base_samples} and {counted(interval.new_samples, 'repetition')} are too few; "
            f"{FEWEST_FOR_AN_ANSWER} a side are the least."
        )
    return _measured(difference, interval, base)


def _measured(difference: float, interval: Interval, base: float | None) -> tuple[Answer, str]:
    band = interval.band_ns or 0.0
    said = f"{signed_duration(difference)}: {_interval(interval)}"
    beyond = f"the band of {duration(band)} ({interval.band_from})"
    excludes = interval.low_ns > 0 or interval.high_ns < 0
    small = abs(difference) <= band
    if excludes and not small:
        answered: Answer = "regression" if difference > 0 else "improvement"
        return answered, f"{said} excludes 0, and the difference exceeds {beyond}."
    if not excludes:
        reach = max(-interval.low_ns, interval.high_ns)
        if not small or reach > WIDE * band:
            return "cannot judge", (
                f"{said} includes 0, yet reaches as far as {duration(reach)}, beyond {beyond}: more repetitions would tell."
            )
        if difference and base and not interval.band_measured and reach > EQUAL_WITHIN * base:
            return "cannot judge", (
                f"{said} includes 0, yet reaches as far as {ratio(reach / base)} of the base, and {beyond} was not measured: "
                "measure it with dsocr-profile ab."
            )
        return "equal", f"{said} includes 0, and the difference is within {beyond}."
    if interval.band_measured:
        return "equal", f"{said} excludes 0, but unchanged runs differ by as much: {beyond}."
    return "cannot judge", (
        f"{said} excludes 0, but the difference is below {beyond}: measure the band with dsocr-profile ab."
    )


def _interval(interval: Interval) -> str:
    ends = f"{signed_duration(interval.low_ns)} to {signed_duration(interval.high_ns)}"
    sure = ratio(interval.confidence).replace(".0 %", " %")
    if interval.resamples:
        return f"the {sure} interval {ends}"
    few = f"{interval.base_samples} and {counted(interval.new_samples, 'repetition')}"
    return f"the interval {ends} of the extremes ({few} are too few for a bootstrap, and make {sure} sure at most)"


def _value(value: str | None) -> str:
    return "not recorded" if value is None else value
