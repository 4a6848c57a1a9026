"""Utilisation from what a stage needs, what it took and what the device can do. Pure arithmetic; unknown stays None.

Formulas: MFU = FLOP ÷ (seconds × peak FLOP/s), as in PaLM (arXiv:2204.02311, appendix B); MBU = bytes ÷ (seconds ×
peak bytes/s); the roofline of Williams, Waterman and Patterson (2009) gives ridge point and ideal time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

from attrs import frozen

from analysis.domain.entities import MFU_GUARDRAIL
from analysis.domain.manifest import ComponentCost
from analysis.efficiency.hardware import Peak

__all__ = [
    "HasComponents",
    "IdealTime",
    "StageNeed",
    "Utilisation",
    "arithmetic_intensity",
    "ideal_time",
    "mbu",
    "mfu",
    "ridge_point",
    "sum_needs",
]


@frozen
class Utilisation:
    """A ratio, or why there is none."""

    value: float | None
    """0–1, above 1 only with a `suspect`; None: unknown, or beyond the guardrail."""
    because: str | None = None
    """Why ``value`` is None."""
    suspect: str | None = None
    """Above 1: which inputs are to be doubted."""


class HasComponents(Protocol):
    """A stage's cost, or a step's."""

    @property
    def components(self) -> tuple[ComponentCost, ...]:
        """What it adds up."""


@frozen
class StageNeed:
    """What stage instances need together."""

    flop: int
    """Attention causal-exact in the decoder."""
    flop_full: int
    weight_bytes: int
    kv_read_bytes: int
    kv_write_bytes: int

    @property
    def bytes(self) -> int:
        """All that must move: weights touched, KV cache read and written."""
        return self.weight_bytes + self.kv_read_bytes + self.kv_write_bytes


@frozen
class IdealTime:
    """The least time that a device's peaks allow."""

    seconds: float
    compute_seconds: float
    memory_seconds: float
    bound: Literal["compute", "memory"]
    """Which of the two is larger."""


def sum_needs(costs: Sequence[HasComponents]) -> StageNeed:
    """Add up what stage instances need, all components together."""
    parts = [part for cost in costs for part in cost.components]
    return StageNeed(
        flop=sum(part.flop for part in parts),
        flop_full=sum(part.flop_full for part in parts),
        weight_bytes=sum(part.weight_bytes for part in parts),
        kv_read_bytes=sum(part.kv_read_bytes for part in parts),
        kv_write_bytes=sum(part.kv_write_bytes for part in parts),
    )


def mfu(flop: float | None, seconds: float | None, peak: Peak | None, dtype: str = "bf16") -> Utilisation:
    """Model FLOPs utilisation.

    Args:
        flop: that the work needs.
        seconds: that it took, > 0.
        peak: of the device.
        dtype: whose dense peak to compare with.
    """
    rate = None if peak is None else peak.flop_per_s.get(dtype)
    missing = f"the device's dense {dtype} peak is unknown" if rate is None else None
    doubts = f"the FLOP count, the {dtype} peak ({_figure(peak, rate, 1e12, 'TFLOP/s')}) or the time"
    return _ratio(flop, seconds, rate, "the FLOPs that the work needs are unknown", missing, doubts)


def mbu(bytes_moved: float | None, seconds: float | None, peak: Peak | None) -> Utilisation:
    """Model bandwidth utilisation.

    Args:
        bytes_moved: that must move: weights touched, KV cache.
        seconds: that it took, > 0.
        peak: of the device.
    """
    rate = None if peak is None else peak.bytes_per_s
    missing = "the device's memory bandwidth is unknown" if rate is None else None
    doubts = f"the byte count, the bandwidth ({_figure(peak, rate, 1e9, 'GB/s')}) or the time"
    return _ratio(bytes_moved, seconds, rate, "the bytes that must move are unknown", missing, doubts)


def arithmetic_intensity(need: StageNeed) -> float | None:
    """FLOP per byte that must move; None where nothing moves."""
    return need.flop / need.bytes if need.bytes else None


def ridge_point(peak: Peak | None, dtype: str = "bf16") -> float | None:
    """FLOP per byte from which on a device is bound by arithmetic; None where a peak is unknown."""
    rate = None if peak is None else peak.flop_per_s.get(dtype)
    if peak is None or rate is None or peak.bytes_per_s is None:
        return None
    return rate / peak.bytes_per_s


def ideal_time(need: StageNeed, peak: Peak | None, dtype: str = "bf16") -> IdealTime | None:
    """The larger of the times that arithmetic and memory traffic need at peak rates; None where a peak is unknown."""
    rate = None if peak is None else peak.flop_per_s.get(dtype)
    if peak is None or rate is None or peak.bytes_per_s is None:
        return None
    compute, memory = need.flop / rate, need.bytes / peak.bytes_per_s
    return IdealTime(max(compute, memory), compute, memory, "compute" if compute > memory else "memory")


def _ratio(
    amount: float | None,
    seconds: float | None,
    rate: float | None,
    amount_missing: str,
    rate_missing: str | None,
    doubts: str,
) -> Utilisation:
    if amount is None:
        return Utilisation(None, because=amount_missing)
    if rate is None:
        return Utilisation(None, because=rate_missing)
    if seconds is None or not math.isfinite(seconds) or seconds <= 0:
        return Utilisation(None, because="the time that it took is unknown")
    value = amount / (seconds * rate)
    if not 0 <= value <= MFU_GUARDRAIL:
        reason = f"{value:.3g} lies outside 0–{MFU_GUARDRAIL}: an input is wrong"
        return Utilisation(None, because=reason, suspect=doubts)
    return Utilisation(value, suspect=doubts if value > 1 else None)


def _figure(peak: Peak | None, rate: float | None, unit: float, name: str) -> str:
    return "unknown" if peak is None or rate is None else f"{rate / unit:.4g} {name}, {peak.how}"
