"""Dense peaks and memory bandwidth of a device, with the source of every figure; unknown stays unknown."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve, frozen

__all__ = ["DTYPES", "Card", "How", "Peak", "UnknownPeak", "cards", "peak_for", "with_measured", "with_overrides"]

DTYPES: Final = ("bf16", "fp16", "tf32", "fp32", "fp8")

How: TypeAlias = Literal["spec", "derived", "measured", "override"]


@frozen
class Peak:
    """What a device can do at most. Dense, never with sparsity."""

    device_name: str
    matched: str
    """The row's name that matched, or how the figures were derived."""
    flop_per_s: dict[str, float | None]
    """By dtype (`DTYPES`); None: the device has no such unit, or it is not known."""
    bytes_per_s: float | None
    source: str
    how: How


@frozen
class UnknownPeak:
    """Why a device's peak is not known."""

    device_name: str
    reason: str


@frozen
class Card:
    """One row of the data file."""

    names: tuple[str, ...]
    compute_capability: str
    sm_count: int | None
    """The row holds for a board with that many SMs only; None: for any."""
    flop_per_s: dict[str, float | None]
    bytes_per_s: float
    source: str


@frozen
class _Architecture:
    flop_per_clock: Mapping[str, int]
    consumer_flop_per_clock: Mapping[str, int]
    source: str


_VENDOR_WORDS: Final = re.compile(r"^(?:NVIDIA |Tesla |GeForce |Quadro )+", re.IGNORECASE)
_MIG: Final = re.compile(r"\bMIG\b", re.IGNORECASE)
_VGPU: Final = re.compile(r"^GRID |-\d{1,3}[ABCQ]$", re.IGNORECASE)


def peak_for(
    name: str,
    *,
    compute_capability: str | None = None,
    sm_count: int | None = None,
    clock_hz: float | None = None,
    memory_bandwidth: float | None = None,
) -> Peak | UnknownPeak:
    """Look up, or derive, a device's dense peaks.

    Args:
        name: as the driver prints it, such as "NVIDIA H100 80GB HBM3".
        compute_capability: "9.0".
        sm_count: streaming multiprocessors of the device.
        clock_hz: highest SM clock of the device.
        memory_bandwidth: of the device, bytes per second, as its driver says.

    Returns:
        The row of the data file whose name is the device's; else SM count × clock × FLOP per clock and SM where the
        compute capability is known, marked derived; else the reason.
    """
    bare = _VENDOR_WORDS.sub("", name.strip())
    if _MIG.search(name):
        return UnknownPeak(name, "a MIG slice has a part of the card's SMs and bandwidth; state its peak yourself")
    if _VGPU.search(bare) or _VGPU.search(name):
        return UnknownPeak(name, "a virtual GPU shares its card; state its peak yourself")
    if card := _match(bare, sm_count):
        return Peak(
            device_name=name,
            matched=next(one for one in card.names if one.casefold() == bare.casefold()),
            flop_per_s=dict(card.flop_per_s),
            bytes_per_s=card.bytes_per_s,
            source=card.source,
            how="spec",
        )
    return _derive(name, compute_capability, sm_count, clock_hz, memory_bandwidth)


def with_overrides(
    peak: Peak | UnknownPeak, *, dtype: str = "bf16", tflops: float | None = None, gbps: float | None = None
) -> Peak | UnknownPeak:
    """Replace figures by those that the user states.

    Args:
        peak: what is known of the device.
        dtype: the type that ``tflops`` is for.
        tflops: dense peak, 10^12 FLOP per second.
        gbps: memory bandwidth, 10^9 bytes per second.

    Returns:
        ``peak`` itself if nothing is overridden. Of an unknown device only the stated figures are known.

    Raises:
        ValueError: a figure is not a positive number, or the dtype is not one of `DTYPES`.
    """
    if tflops is None and gbps is None:
        return peak
    stated = _state(peak, dtype, None if tflops is None else tflops * 1e12, None if gbps is None else gbps * 1e9)
    words = [f"{dtype} {tflops:g} TFLOP/s" if tflops is not None else "", f"{gbps:g} GB/s" if gbps is not None else ""]
    said = f"stated by the user: {', '.join(word for word in words if word)}"
    return evolve(stated, how="override", source=f"{said}; the rest: {stated.source}" if stated.source else said)


def with_measured(peak: Peak | UnknownPeak, *, dtype: str, flop_per_s: float, bytes_per_s: float, how: str) -> Peak:
    """The peak that a matrix product and a copy reached on the device.

    Args:
        peak: what is known of the device, for its name.
        dtype: the type that was measured; the other types' figures become unknown.
        flop_per_s: measured.
        bytes_per_s: measured.
        how: what was measured, in words.

    Raises:
        ValueError: a figure is not a positive number, or the dtype is not one of `DTYPES`.
    """
    nothing = UnknownPeak(peak.device_name, "only the measured figures are known")
    return evolve(_state(nothing, dtype, flop_per_s, bytes_per_s), matched=how, source=how, how="measured")


def cards() -> tuple[Card, ...]:
    """Every row of the data file, longest names first."""
    return _data()[0]


def _state(peak: Peak | UnknownPeak, dtype: str, flop_per_s: float | None, bytes_per_s: float | None) -> Peak:
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    for value in (flop_per_s, bytes_per_s):
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"a peak must be a positive number, not {value!r}")
    if isinstance(peak, UnknownPeak):
        peak = Peak(peak.device_name, "(none)", dict.fromkeys(DTYPES), None, "", "override")
    rates = dict(peak.flop_per_s) if flop_per_s is None else {**peak.flop_per_s, dtype: flop_per_s}
    return evolve(peak, flop_per_s=rates, bytes_per_s=peak.bytes_per_s if bytes_per_s is None else bytes_per_s)


def _match(bare: str, sm_count: int | None) -> Card | None:
    """The row that is the device's, never one that its name merely begins with (L40S is not L40).

    Rows come longest name first, and rows for one SM count before those for any.
    """
    for card in cards():
        if any(bare.casefold() == name.casefold() for name in card.names) and card.sm_count in (None, sm_count):
            return card
    return None


def _derive(
    name: str,
    compute_capability: str | None,
    sm_count: int | None,
    clock_hz: float | None,
    memory_bandwidth: float | None,
) -> Peak | UnknownPeak:
    architecture = _data()[1].get(compute_capability or "")
    if architecture is None:
        known = f"compute capability {compute_capability}" if compute_capability else "unknown compute capability"
        return UnknownPeak(name, f"no row for this device, and no rate for {known}; state its peak yourself")
    if not sm_count or not clock_hz or sm_count < 0 or clock_hz < 0:
        return UnknownPeak(
            name, "no row for this device, and its SM count or clock is unknown; state its peak yourself"
        )
    consumer = "geforce" in name.casefold() and architecture.consumer_flop_per_clock
    rates = architecture.consumer_flop_per_clock if consumer else architecture.flop_per_clock
    if "gtx" in name.casefold():
        # GTX cards of the Turing generation have no tensor cores.
        rates = {"fp32": rates["fp32"]}
    return Peak(
        device_name=name,
        matched=f"{sm_count} SMs × {clock_hz / 1e6:.0f} MHz × FLOP per clock and SM of sm_{compute_capability}",
        flop_per_s={dtype: sm_count * clock_hz * rates[dtype] if dtype in rates else None for dtype in DTYPES},
        bytes_per_s=float(memory_bandwidth) if memory_bandwidth and memory_bandwidth > 0 else None,
        source=f"derived at the device's highest clock; rates: {architecture.source}; bandwidth: the driver's figure",
        how="derived",
    )


@cache
def _data() -> tuple[tuple[Card, ...], Mapping[str, _Architecture]]:
    tables = tomllib.loads(Path(__file__).with_name("hardware.toml").read_text(encoding="utf-8"))
    rows = [_card(table) for table in tables["cards"]]
    rows.sort(key=lambda card: (-max(map(len, card.names)), card.sm_count is None))
    architectures = {
        table["cc"]: _Architecture(
            flop_per_clock=_rates(table),
            consumer_flop_per_clock=_rates(table.get("consumer", {})),
            source=table["source"],
        )
        for table in tables["architectures"]
    }
    return tuple(rows), architectures


def _card(table: Mapping[str, Any]) -> Card:
    return Card(
        names=tuple(table["names"]),
        compute_capability=table["cc"],
        sm_count=table.get("sm_count"),
        flop_per_s={dtype: table[dtype] * 1e12 if dtype in table else None for dtype in DTYPES},
        bytes_per_s=table["gb_per_s"] * 1e9,
        source=table["source"],
    )


def _rates(table: Mapping[str, Any]) -> dict[str, int]:
    return {dtype: int(table[dtype]) for dtype in DTYPES if dtype in table}
