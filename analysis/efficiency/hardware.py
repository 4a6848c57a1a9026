"""Dense peaks and memory bandwidth of a device, with the source of every figure; unknown stays unknown."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from attrs import evolve, frozen

__all__ = [
    "DTYPES",
    "Card",
    "How",
    "Peak",
    "UnknownPeak",
    "cards",
    "contradiction",
    "peak_for",
    "with_measured",
    "with_overrides",
]

DTYPES: Final = ("bf16", "fp16", "tf32", "fp32", "fp8")

How: TypeAlias = Literal["spec", "derived", "measured", "override"]
"""``derived`` is an upper limit, so that a utilisation of it is a lower one."""


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
    """Of the board that the row describes; None: not known."""
    flop_per_s: dict[str, float | None]
    bytes_per_s: tuple[float, ...]
    """Of each board sold under that name with that SM count: most have one."""
    source: str


@frozen
class _Architecture:
    flop_per_clock: Mapping[str, int]
    consumer_flop_per_clock: Mapping[str, int]
    source: str


@frozen
class _Data:
    cards: tuple[Card, ...]
    architectures: Mapping[str, _Architecture]
    underivable: tuple[tuple[re.Pattern[str], str], ...]
    """Names of which SM count and clock do not tell the peak, with the reason."""
    no_tensor_cores: re.Pattern[str]


_VENDOR_WORDS: Final = re.compile(r"^(?:NVIDIA |Tesla |GeForce |Quadro )+", re.IGNORECASE)
_MIG: Final = re.compile(r"\bMIG\b", re.IGNORECASE)
_VGPU: Final = re.compile(r"^GRID |^(?!PG?\d).*-\d{1,3}(?:[ABCQ]4?|CME)?$", re.IGNORECASE)
_INTEGRATED: Final = ("7.2", "8.7")
"""Compute capabilities whose memory clock the driver does not know: it is the processor's memory."""
_SAME_BANDWIDTH: Final = 0.03
"""How far a sheet's bandwidth may lie from the driver's, which is not rounded."""


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
        The row of the data file whose name and SM count are the device's; else, marked derived, the upper limit SM
        count × highest clock × FLOP per clock and SM, where the name does not forbid it (see ``underivable`` in the
        data file); else the reason. Of an integrated GPU the driver's bandwidth is not used.
    """
    bare = _VENDOR_WORDS.sub("", name.strip())
    if _MIG.search(name):
        return UnknownPeak(name, "a MIG slice has a part of the card's SMs and bandwidth; state its peak yourself")
    if _VGPU.search(bare):
        return UnknownPeak(name, "a virtual GPU shares its card; state its peak yourself")
    if (wrong := contradiction(name, compute_capability, sm_count)) is not None:
        return UnknownPeak(name, f"the trace contradicts the name ({wrong}); state its peak yourself")
    if compute_capability in _INTEGRATED:
        memory_bandwidth = None
    named = _named(name.strip(), bare)
    fitting = [card for card in named if sm_count is None or card.sm_count in (None, sm_count)]
    if len(fitting) == 1:
        (card,) = fitting
        bandwidth, remark = _bandwidth(card, memory_bandwidth)
        return Peak(
            device_name=name,
            matched=next(
                known for known in card.names if known.casefold() in (bare.casefold(), name.strip().casefold())
            ),
            flop_per_s=dict(card.flop_per_s),
            bytes_per_s=bandwidth,
            source=card.source + remark,
            how="spec",
        )
    if fitting:
        counts = " or ".join(str(card.sm_count) for card in fitting)
        return UnknownPeak(name, f"boards with {counts} SMs have this name, and the SM count is unknown")
    return _derive(name, bare, named, compute_capability, sm_count, clock_hz, memory_bandwidth)


def contradiction(name: str, compute_capability: str | None, sm_count: int | None) -> str | None:
    """What of a device is another one's than its name says, in words; None: nothing, or the name is not known.

    Args:
        name: as the driver prints it.
        compute_capability: "9.0"; None: not known.
        sm_count: streaming multiprocessors of the device; None: not known. A slice or a virtual GPU has a part of its card's.
    """
    bare = _VENDOR_WORDS.sub("", name.strip())
    named = _named(name.strip(), bare)
    if not named or _MIG.search(name) or _VGPU.search(bare):
        return None
    wrong = []
    capabilities = sorted({card.compute_capability for card in named})
    if compute_capability is not None and compute_capability not in capabilities:
        wrong.append(f"compute capability {compute_capability}, not {' or '.join(capabilities)}")
    counts = sorted({card.sm_count for card in named if card.sm_count is not None})
    # Boards of one name are sold with some more or fewer SMs (RTX 2060: 30 or 34).
    if sm_count is not None and counts and not min(counts) <= 2 * sm_count <= 4 * max(counts):
        wrong.append(f"{sm_count:,} SMs, not {' or '.join(map(str, counts))}")
    return ", ".join(wrong) or None


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
    """Every row of the data file."""
    return _data().cards


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


def _named(name: str, bare: str) -> list[Card]:
    """The rows of that name, never one that it merely begins with: L40S is not L40."""
    spellings = (name.casefold(), bare.casefold())
    return [card for card in cards() if any(known.casefold() in spellings for known in card.names)]


def _bandwidth(card: Card, drivers: float | None) -> tuple[float | None, str]:
    """Bytes per second, and what to add to the source.

    The driver's figure (memory clock × bus width) tells which of several boards it is. A smaller one than every
    sheet's is another board of that name, or memory at a lower clock; a larger one is not believed, since drivers
    have stated wider buses than there are (8192 bits for the 7680 of a B200).
    """
    if not drivers or drivers <= 0:
        if len(card.bytes_per_s) == 1:
            return card.bytes_per_s[0], ""
        sold = " or ".join(f"{sheet / 1e9:g}" for sheet in card.bytes_per_s)
        return None, f"; bandwidth: boards with {sold} GB/s have this name, and the driver's figure is unknown"
    same = [sheet for sheet in card.bytes_per_s if abs(sheet - drivers) <= _SAME_BANDWIDTH * sheet]
    if same:
        return same[0], ""
    if drivers < min(card.bytes_per_s):
        return drivers, f"; bandwidth: the driver's figure, the sheet has {min(card.bytes_per_s) / 1e9:g} GB/s"
    return max(sheet for sheet in card.bytes_per_s if sheet < drivers), ""


def _derive(
    name: str,
    bare: str,
    named: list[Card],
    compute_capability: str | None,
    sm_count: int | None,
    clock_hz: float | None,
    memory_bandwidth: float | None,
) -> Peak | UnknownPeak:
    data = _data()
    no_row = "no row for this device"
    if named:
        counts = " or ".join(str(card.sm_count) for card in named)
        no_row = f"boards of this name have {counts} SMs, this device has {sm_count}"
    for pattern, reason in data.underivable:
        if pattern.search(bare):
            return UnknownPeak(name, f"{no_row}; nothing is derived: {reason}; state its peak yourself")
    architecture = data.architectures.get(compute_capability or "")
    if architecture is None:
        known = f"compute capability {compute_capability}" if compute_capability else "unknown compute capability"
        return UnknownPeak(name, f"{no_row}, and no rate for {known}; state its peak yourself")
    if not sm_count or not clock_hz or sm_count < 0 or clock_hz < 0:
        return UnknownPeak(name, f"{no_row}, and its SM count or clock is unknown; state its peak yourself")
    consumer = "geforce" in name.casefold() and architecture.consumer_flop_per_clock
    rates = architecture.consumer_flop_per_clock if consumer else architecture.flop_per_clock
    if data.no_tensor_cores.search(bare):
        rates = {"fp32": rates["fp32"]}
    return Peak(
        device_name=name,
        matched=f"at most {sm_count} SMs × {clock_hz / 1e6:.0f} MHz × FLOP per clock and SM of sm_{compute_capability}",
        flop_per_s={dtype: sm_count * clock_hz * rates[dtype] if dtype in rates else None for dtype in DTYPES},
        bytes_per_s=float(memory_bandwidth) if memory_bandwidth and memory_bandwidth > 0 else None,
        source=f"{no_row}; an upper limit, derived at the highest clock, which a board's power limit may not allow; "
        f"rates: {architecture.source}; bandwidth: the driver's figure",
        how="derived",
    )


@cache
def _data() -> _Data:
    tables = tomllib.loads(Path(__file__).with_name("hardware.toml").read_text(encoding="utf-8"))
    return _Data(
        cards=tuple(_card(table) for table in tables["cards"]),
        architectures={
            table["cc"]: _Architecture(
                flop_per_clock=_rates(table),
                consumer_flop_per_clock=_rates(table.get("consumer", {})),
                source=table["source"],
            )
            for table in tables["architectures"]
        },
        underivable=tuple(
            (re.compile(table["pattern"], re.IGNORECASE), table["reason"]) for table in tables["underivable"]
        ),
        no_tensor_cores=re.compile(tables["no_tensor_cores"], re.IGNORECASE),
    )


def _card(table: Mapping[str, Any]) -> Card:
    bandwidths = table["gb_per_s"] if isinstance(table["gb_per_s"], list) else [table["gb_per_s"]]
    return Card(
        names=tuple(table["names"]),
        compute_capability=table["cc"],
        sm_count=table.get("sm_count"),
        flop_per_s={dtype: table[dtype] * 1e12 if dtype in table else None for dtype in DTYPES},
        bytes_per_s=tuple(bandwidth * 1e9 for bandwidth in bandwidths),
        source=table["source"],
    )


def _rates(table: Mapping[str, Any]) -> dict[str, int]:
    return {dtype: int(table[dtype]) for dtype in DTYPES if dtype in table}
