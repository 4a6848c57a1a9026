"""What a verdict is judged by: a stage's facts, the thresholds, and evidence in words.

Every threshold stands here, once. They are conventions, not laws: the evidence is printed beside the verdict, so that a
reader can disagree.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from analysis.domain.entities import KernelSummary
from analysis.domain.manifest import Overhead
from analysis.efficiency.records import Utilisation
from analysis.sums.records import HostCallRow, StageSummary

__all__ = [
    "BUSY_ENOUGH",
    "COMMUNICATION_SHARE",
    "COMPUTE_BOUND_MFU",
    "MEMORY_BOUND_MBU",
    "SMALL_GRID_SHARE",
    "WAITING_SHARE",
    "Facts",
    "idle_evidence",
    "ms",
    "per_cent",
    "saving",
    "us",
    "wait_evidence",
]

BUSY_ENOUGH: Final = 0.6
"""Below this share of GPU-busy time the host is what a stage waits for."""
WAITING_SHARE: Final = 0.3
"""Of the idle time: with so much inside synchronising calls, the host is blocked rather than slow at launching."""
COMMUNICATION_SHARE: Final = 0.3
"""Of the kernel time in collectives."""
COMPUTE_BOUND_MFU: Final = 0.4
MEMORY_BOUND_MBU: Final = 0.5
SMALL_GRID_SHARE: Final = 0.5
"""Of the kernel time in kernels with fewer blocks than the device has SMs."""

_MS: Final = 1e6


@frozen
class Facts:
    """One stage with all that is known of it."""

    stage: StageSummary
    kernels: tuple[KernelSummary, ...]
    waits: tuple[HostCallRow, ...]
    busy_base: Utilisation | None
    overhead: Overhead | None
    one_input: str
    """``image`` or ``prompt``."""

    @property
    def unit(self) -> str:
        """What times are given per."""
        return "token" if self.stage.stage == "decode" and self.stage.tokens else self.one_input

    @property
    def units(self) -> int:
        """Tokens for decode, where known; else instances."""
        if self.stage.stage == "decode" and self.stage.tokens:
            return self.stage.tokens
        return self.stage.instances

    @property
    def busy_share(self) -> float:
        """Of the time without the profiler where a control run measured it: profiling slows the host, not the kernels.

        At most 1: the GPU may work on when the host has left the stage.
        """
        if self.unprofiled_ns:
            return min(1.0, self.stage.busy_ns / self.units / self.unprofiled_ns)
        return min(1.0, self.stage.profiled_busy_share or 0.0)

    @property
    def time(self) -> str:
        """What `busy_share` is a share of."""
        return "unprofiled time" if self.unprofiled_ns else "time"

    @property
    def communication(self) -> tuple[KernelSummary, ...]:
        """Its collectives."""
        return tuple(one for one in self.kernels if one.category.startswith("NCCL"))

    @property
    def unprofiled_ns(self) -> float | None:
        """Host time per unit without the profiler, where a control run measured it."""
        same = self.overhead is not None and self.overhead.per == self.unit
        return self.overhead.unprofiled_ms * _MS if self.overhead is not None and same else None


def ms(nanoseconds: float) -> str:
    """Milliseconds, or microseconds below a tenth of one."""
    value = nanoseconds / _MS
    return f"{value:,.2f} ms" if value >= 0.1 else f"{nanoseconds / 1e3:,.2f} µs"


def us(nanoseconds: float | None) -> str:
    """Microseconds."""
    return "n/a" if nanoseconds is None else f"{nanoseconds / 1e3:,.2f} µs"


def idle_evidence(facts: Facts) -> list[str]:
    """How busy the GPU was, and what the host did while it was not."""
    stage, gaps = facts.stage, facts.stage.gaps
    share = stage.profiled_busy_share or 0.0
    beyond = f"idle {1 - share:.1%}" if share <= 1 else "the GPU works on after the host has left the stage"
    profiled = f"GPU busy {ms(stage.busy_ns)} of {ms(stage.host_elapsed_ns)} host time = {share:.1%}"
    if facts.unprofiled_ns:
        lines = [
            f"GPU busy {ms(stage.busy_ns / facts.units)} of {ms(facts.unprofiled_ns)} per {facts.unit} without the "
            f"profiler = {facts.busy_share:.1%} (threshold {BUSY_ENOUGH:.0%})",
            f"under the profiler: {profiled} ({beyond})",
        ]
    else:
        lines = [f"{profiled} ({beyond}; threshold {BUSY_ENOUGH:.0%})"]
    if stage.mean_kernel_ns is not None and stage.mean_launch_gap_ns is not None:
        lines.append(
            f"{stage.launches:,} launches = {stage.launches / facts.units:,.0f} per {facts.unit}; a launch every "
            f"{us(stage.mean_launch_gap_ns)}, a kernel lasts {us(stage.mean_kernel_ns)} (mean)"
        )
    if gaps is not None and gaps.total_ns:
        lines.append(
            f"while the GPU idled {ms(gaps.total_ns)}, the host was outside CUDA calls {gaps.outside_api_ns / gaps.total_ns:.0%} "
            f"(Python, framework), launching {gaps.launching_ns / gaps.total_ns:.0%}, synchronising "
            f"{gaps.synchronising_ns / gaps.total_ns:.0%}, in other calls {gaps.other_api_ns / gaps.total_ns:.0%}"
        )
    if stage.queue_delay_median_ns is not None:
        lines.append(f"queueing delay (kernel start − launch start): median {us(stage.queue_delay_median_ns)}")
    return lines


def saving(facts: Facts) -> tuple[int, float, str]:
    """Idle time: over the stage, per unit, and on which basis."""
    stage = facts.stage
    busy = stage.busy_ns / facts.units
    if facts.unprofiled_ns is not None:
        saved = max(0.0, facts.unprofiled_ns - busy)
        basis = f"{ms(facts.unprofiled_ns)} unprofiled − {ms(busy)} GPU busy"
    else:
        elapsed = stage.host_elapsed_ns / facts.units
        saved = max(0.0, elapsed - busy)
        basis = f"{ms(elapsed)} profiled − {ms(busy)} GPU busy"
    return round(saved * facts.units), saved, basis


def wait_evidence(facts: Facts) -> list[str]:
    """The calls in which the host waits, and the small copies, by name."""
    if not facts.waits:
        return []
    named = ", ".join(f"{one.calls:,} × {one.call} ({one.kind}, {ms(one.total_ns)})" for one in facts.waits[:4])
    return [f"waits: {named}"]


def per_cent(ratio: float | None, decimals: int = 1, *, at_least: int = 2) -> str:
    """Per cent, fine enough that a small ratio does not read as none.

    Args:
        ratio: None: not known.
        decimals: of one that still has two digits with so many.
        at_least: significant digits of a smaller one.
    """
    if ratio is None:
        return "n/a"
    enough = ratio >= 10 ** -(decimals + 1) or ratio == 0
    return f"{ratio:.{decimals}%}" if enough else f"{100 * ratio:.{at_least}g}%"
