"""By how much unchanged runs differ: A/A bands, from rounds of the same thing. Both packages use this definition.

Repetitions inside one run share its process, its clocks and its memory layout, so their spread says nothing of what another
run of the same program would give. Medians of whole rounds, each a process of its own, do. They are few, so Student's t
stands where a normal distribution would have 1.96.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import field, frozen, validators

__all__ = ["Band", "Bands", "interleaved_band", "student_t", "unchanged_band"]

_T_95: Final = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Student's t, two-sided 95 %, for 1 to 30 degrees of freedom (any table of it)."""
_NORMAL_95: Final = 1.960


@frozen
class Band:
    """By how much unchanged runs of one stage on one machine differ."""

    ns: float = field(validator=validators.ge(0))
    """Per unit of the stage's work."""
    source: str
    """What it comes from, in words."""
    measured: bool = True
    """False: assumed, for want of unchanged runs."""


@frozen
class Bands:
    """A/A bands as a file: what ``dsocr-profile ab X X`` writes and ``--band`` reads."""

    bands: Mapping[str, Band]
    """By stage."""
    bands_version: int = field(default=1, validator=validators.in_((1,)))
    model: str | None = None
    device: str | None = None
    """Name of the GPU, or ``cpu``: a band holds on the machine on which it was measured."""
    decode: str | None = None
    """How tokens were decoded, such as ``cuda-graph``: with a CUDA graph unchanged runs differ by far less; None: not recorded,
    or not alike in what was measured."""
    rounds: int | None = None
    measured_at: str | None = None


def student_t(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t; raises ValueError below one degree of freedom."""
    if degrees < 1:
        raise ValueError("a spread needs two values at least")
    # Between 30 degrees and the normal distribution the excess falls with their number (2.000 at 60, 1.980 at 120).
    return _T_95[degrees - 1] if degrees <= len(_T_95) else _NORMAL_95 + (_T_95[-1] - _NORMAL_95) * 30 / degrees


def unchanged_band(medians: Sequence[float], source: str) -> Band | None:
    """The band of two runs of the same thing: where in 95 % of cases the difference of their medians lies.

    t(n − 1) · s · √2: the prediction interval of a difference of two values, s being the spread of the n medians.

    Args:
        medians: of rounds of the same thing, ns per unit.
        source: where they come from, in words.

    Returns:
        None: fewer than two medians.
    """
    if len(medians) < 2:
        return None
    spread = statistics.stdev(medians)
    return Band(student_t(len(medians) - 1) * spread * math.sqrt(2), source)


def interleaved_band(base: Sequence[float], new: Sequence[float], source: str) -> Band | None:
    """The band of the difference of two sides that ran in turns.

    What is left when each side's own level is taken out is by how much rounds of the same thing differ; over n rounds a side
    it falls by √n. t(n + m − 2) · s · √(1/n + 1/m), s pooled over both sides: the half width of Student's interval for
    a difference of means of rounds.

    Args:
        base: medians of the base's rounds, ns per unit.
        new: those of the new side.
        source: where they come from, in words.

    Returns:
        None: a side has fewer than two rounds.
    """
    if len(base) < 2 or len(new) < 2:
        return None
    degrees = len(base) + len(new) - 2
    squares = statistics.variance(base) * (len(base) - 1) + statistics.variance(new) * (len(new) - 1)
    spread = math.sqrt(squares / degrees)
    return Band(student_t(degrees) * spread * math.sqrt(1 / len(base) + 1 / len(new)), source)
