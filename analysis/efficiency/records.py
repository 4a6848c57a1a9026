"""Latencies, overhead and utilisation as records. Unknown is None, with its reason beside it where the reader will ask."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

__all__ = ["Aggregate", "Utilisation"]


@frozen
class Aggregate:
    """A named metric over instances, with its unit."""

    name: str
    unit: str
    mean: float
    std: float
    median: float
    minimum: float
    maximum: float
    count: int
    source: Literal["control", "trace"]


@frozen
class Utilisation:
    """What a stage needed against what the device can give. One row per stage and time base."""

    stage: str
    """prefill, decode or ``total``."""
    time_base: Literal["elapsed", "gpu busy", "control"]
    """Host elapsed in the capture, GPU busy in the capture, or host elapsed in the unprofiled control run."""
    time_ns: int | None
    flop: int | None
    flop_full: int | None
    bytes_moved: int | None
    peak_flop_per_s: float | None
    peak_bytes_per_s: float | None
    peak_how: str | None
    """spec, derived, measured or override."""
    mfu: float | None
    mfu_full_attention: float | None
    mbu: float | None
    arithmetic_intensity: float | None
    """FLOP per byte."""
    ridge_point: float | None
    ideal_ns: int | None
    """The larger of the two floors, summed over stage instances."""
    unknown_because: str | None
    derivation: str | None
    """The arithmetic, with numbers."""
    suspect: str | None = None
    """Above 1: which input is suspect."""
