"""Sampled GPU metrics (``--gpu-metrics-devices``): means over stages and a thinned series for drawing."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from analysis.attribution.attribution import Attribution
from analysis.sums.records import MetricSeries
from analysis.trace.records import MetricSamples

__all__ = ["metric_series"]

_POINTS: Final = 600
"""Points of a series: one per pixel or two of a wide chart."""

_SHOWN: Final = (
    "SMs Active", "SM Issue", "Tensor Active", "GR Active", "Compute Warps in Flight", "DRAM Read Bandwidth",
    "DRAM Write Bandwidth", "PCIe RX Throughput", "PCIe TX Throughput", "NVLink RX Bandwidth", "NVLink TX Bandwidth",
)  # fmt: skip
"""Throughputs in per cent of what the device can do, as Nsight Systems names them from one GPU generation to the next."""


def metric_series(attribution: Attribution, samples: MetricSamples | None) -> tuple[MetricSeries, ...]:
    """Average each metric over the stages' host time.

    Args:
        attribution: of the trace.
        samples: None: the trace has none.

    Returns:
        Metrics in the order of importance; values in per cent.
    """
    if samples is None:
        return ()
    ranges = attribution.ranges
    windows = {
        stage: [(int(ranges.start[row]), int(ranges.end[row])) for row in attribution.stage_rows(stage).tolist()]
        for stage in attribution.stages
    }
    several = len({source for source, _ in samples.names}) > 1
    series = []
    for name in _SHOWN:
        for index, (source, full) in enumerate(samples.names):
            shown = re.fullmatch(rf"{re.escape(name)}(?: \[Throughput %\])?", full)
            if shown is None:
                continue
            mine = samples.metric == index
            time, value = samples.time_ns[mine], samples.value[mine]
            order = np.argsort(time, kind="stable")
            time, value = time[order], value[order]
            means: dict[str, float] = {}
            for stage, spans in windows.items():
                parts = [
                    value[np.searchsorted(time, low) : np.searchsorted(time, high, "right")] for low, high in spans
                ]
                joined = np.concatenate(parts) if parts else np.zeros(0)
                if joined.size:
                    means[stage] = float(joined.mean())
            points = np.array_split(np.arange(time.size), min(_POINTS, max(1, time.size)))
            series.append(
                MetricSeries(
                    name=f"{name} (source {source})" if several else name,
                    unit="%",
                    stage_means=means,
                    time_ns=tuple(int(time[part[0]]) for part in points if part.size),
                    values=tuple(round(float(value[part].mean()), 3) for part in points if part.size),
                )
            )
    return tuple(series)
