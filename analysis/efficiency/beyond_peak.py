"""Which input is to be doubted where a stage did more than its device can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from analysis.domain.figures import of_peak, rate
from analysis.domain.measures import ROUNDING
from analysis.efficiency.hardware import Peak
from analysis.efficiency.records import Utilisation
from analysis.efficiency.utilisation import KnownPeaks

__all__ = ["Excess", "beyond_peak"]

_BOOST: Final = 1.15
"""How far above a data sheet's peak a device can come: sheets count at the boost clock, cards run up to their highest."""


@frozen
class Excess:
    """A figure above 1."""

    figure: str
    """``MFU`` or ``MBU``."""
    stage: str
    told: str
    """With its stage, base, value and peak."""
    doubted: str
    """The input that makes it so, as far as that can be told."""


def beyond_peak(rows: Sequence[Utilisation], peaks: KnownPeaks, dtype: str, counted_by: str) -> tuple[Excess, ...]:
    """Find MFU and MBU above 1, those too that are so far above it that they are not shown.

    Args:
        rows: of all stages and bases.
        peaks: that they are of.
        dtype: of the model.
        counted_by: where FLOPs and bytes come from, in words.
    """
    found_so_far: list[Excess] = []
    for row in rows:
        for figure in ("MFU", "MBU"):
            value = _of(row, figure)
            if value is None or value <= 1 + ROUNDING:
                continue
            peak = row.peak_flop_per_s if figure == "MFU" else row.peak_bytes_per_s
            unit = "FLOP/s" if figure == "MFU" else "B/s"
            told = (
                f"{row.stage}, {row.time_base}: {figure} {of_peak(value)}, against {rate(peak, unit)} ({row.peak_how})"
            )
            found_so_far.append(
                Excess(figure, row.stage, told, _doubted(row, figure, value, rows, peaks, dtype, counted_by))
            )
    return tuple(found_so_far)


def _of(row: Utilisation, figure: str) -> float | None:
    """MFU or MBU of a row, however large."""
    amount, peak = (
        (row.flop, row.peak_flop_per_s) if figure == "MFU" else (row.bytes_moved, row.peak_bytes_per_s)
    )  # fmt: skip
    if amount is None or not peak or not row.time_ns:
        return None
    return amount / (row.time_ns / 1e9 * peak)


def _doubted(
    row: Utilisation,
    figure: str,
    value: float,
    rows: Sequence[Utilisation],
    peaks: KnownPeaks,
    dtype: str,
    counted_by: str,
) -> str:
    """The input without which the figure would be possible; else what it is made of, the least certain first."""
    used = row.peak_flop_per_s if figure == "MFU" else row.peak_bytes_per_s
    known = _rate(peaks.device, figure, dtype)
    unit = "FLOP/s" if figure == "MFU" else "B/s"
    option = "--peak-tflops" if figure == "MFU" else "--peak-gbps"
    if row.peak_how == "override" and used and known != used:
        of_device = "" if known is None or peaks.device is None else f"; {peaks.device.matched} has {rate(known, unit)}"
        return f"the peak stated by hand, {option} ({rate(used, unit)}{of_device})"
    if row.peak_how == "measured" and known is not None and used and value * used / known <= 1:
        return f"the peak that the run measured ({rate(used, unit)}, of {rate(known, unit)} by {_source(peaks.device)})"
    elapsed = next(
        (other for other in rows if other.stage == row.stage and other.time_base == "profiled elapsed"
         and other.peak_how == row.peak_how), None,
    )  # fmt: skip
    if row.time_base == "unprofiled" and elapsed is not None and (_of(elapsed, figure) or 2.0) <= 1:
        return "the control run's times in run.json: by the times of the capture it is possible"
    peak = f"the peak ({_source(peaks.device)})"
    if row.peak_how == "spec" and value <= _BOOST:
        return f"{peak}, which counts at the boost clock while cards run up to their highest; or {counted_by}"
    if row.peak_how == "derived":
        return f"{peak}; or {counted_by}"
    return f"{counted_by}; or {peak}"


def _rate(peak: Peak | None, figure: str, dtype: str) -> float | None:
    if peak is None:
        return None
    return peak.flop_per_s.get(dtype) if figure == "MFU" else peak.bytes_per_s


def _source(peak: Peak | None) -> str:
    if peak is None:
        return "not known"
    return f"{'data sheet of ' if peak.how == 'spec' else ''}{peak.matched}"
