"""Tables of what the stages reached: utilisation, sampled metrics, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen

from analysis.domain.figures import rate
from analysis.efficiency.records import Utilisation
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import (
    BYTE_RATE,
    BYTES,
    DURATION,
    FLOP,
    FLOP_RATE,
    OF_PEAK,
    TEXT,
    Column,
    Specification,
    Style,
    decimals,
    factor,
)
from analysis.render.spec.text import visible
from analysis.sums.records import MetricSeries
from analysis.verdict.records import Verdict

__all__ = ["METRICS", "TIME_BASES", "UTILISATION", "VERDICTS", "MetricMean", "metric_means", "utilisation_note"]

_U = Column[Utilisation]
TIME_BASES: Final = {
    "unprofiled": "unprofiled, one pass",
    "profiled elapsed": "profiled",
    "profiled gpu busy": "profiled, GPU busy",
}
"""Time bases as a reader sees them."""


def _known(key: str, label: str, type_: Any, style: Style, definition: str, **more: Any) -> _U:
    return _U(key, label, type_, style, definition, nullable=True, why=lambda row: row.unknown_because, **more)


UTILISATION: Final = Specification[Utilisation](
    key="utilisation",
    title="Utilisation",
    rows="A stage over one time base.",
    columns=(
        _U("stage", "Stage", "string", TEXT, GLOSSARY["stage"], priority=0),
        _U(
            "time_base", "Time base", "string", TEXT, GLOSSARY["time_base"], value=lambda row: TIME_BASES[row.time_base],
            priority=0,
        ),
        _U(
            "peak_how", "Peak from", "string", TEXT, "Dense peaks of the device, and where they come from: specification, "
            "an upper limit derived from clock and SM count, measured here, or stated by the user.", nullable=True, priority=6,
        ),
        _known("time_ns", "Time", "int64", DURATION, "Time of the stage by its time base, all instances.", priority=2),
        _known(
            "flop", "Needs", "int64", FLOP, "FLOPs that the stage needs, all instances; attention causal-exact.",
            priority=3,
        ),
        _known(
            "flop_full", "Needs, full attn", "int64", FLOP, "The same with attention over the full square.", shown=(),
        ),
        _known("bytes_moved", "Must move", "int64", BYTES, "Bytes that must move at least, all instances.", priority=3),
        _known("peak_flop_per_s", "Peak", "float64", FLOP_RATE, "Dense peak of the model's dtype.", shown=()),
        _known("peak_bytes_per_s", "Peak bandwidth", "float64", BYTE_RATE, "Peak of the device's memory.", shown=()),
        _known("mfu", "MFU", "float64", OF_PEAK, GLOSSARY["mfu"]),
        _known(
            "mfu_full_attention", "MFU, full attn", "float64", OF_PEAK,
            "The same with attention over the full square, as FLOP counters give it.", priority=6,
        ),
        _known("mbu", "MBU", "float64", OF_PEAK, GLOSSARY["mbu"]),
        _known(
            "arithmetic_intensity", "Intensity", "float64", decimals(1, "FLOP/B"),
            "Arithmetic intensity: FLOPs needed ÷ bytes that must move.", priority=5,
        ),
        _known(
            "ridge_point", "Ridge", "float64", decimals(1, "FLOP/B"),
            "Ridge point: peak FLOP/s ÷ peak bytes/s. Left of it bandwidth is the limit, right of it compute.",
            priority=5,
        ),
        _known(
            "ideal_ns", "Ideal", "int64", DURATION,
            "Ideal time: the larger of FLOPs ÷ peak FLOP/s and bytes ÷ peak bytes/s. No faster on this device.",
            priority=2,
        ),
        _known(
            "ideal_unit_ns", "Ideal each", "float64", DURATION,
            "Ideal time of one image or token, median over the stage's instances.", shown=(),
        ),
        _known(
            "time_over_ideal", "Time ÷ ideal", "float64", factor(1), "Time taken ÷ ideal time.", priority=4,
            value=lambda row: row.time_ns / row.ideal_ns if row.time_ns and row.ideal_ns else None,
        ),
        _U(
            "unknown_because", "n/a because", "string", TEXT, "Why a figure of the row is unknown.", nullable=True,
            shown=(),
        ),
        _U("derivation", "Arithmetic", "string", TEXT, "The arithmetic, with numbers.", nullable=True, shown=()),
        _U("suspect", "Suspect", "string", TEXT, "Where a figure exceeds 1: which input is suspect.", nullable=True,
           shown=()),
    ),
)  # fmt: skip


def utilisation_note(rows: Sequence[Utilisation]) -> str:
    """What stands below the table: why figures are unknown, and the peaks."""
    reasons = dict.fromkeys(visible(row.unknown_because) for row in rows if row.unknown_because)
    peaks = dict.fromkeys(
        f"{rate(row.peak_flop_per_s, 'FLOP/s')}, {rate(row.peak_bytes_per_s, 'B/s')} ({visible(row.peak_how or '')})"
        for row in rows
        if row.peak_flop_per_s or row.peak_bytes_per_s
    )
    note = "".join(f"n/a: {reason}. " for reason in reasons)
    return f"{note}Peaks, dense: {'; '.join(peaks)}." if peaks else note.strip()


@frozen
class MetricMean:
    """The mean of a sampled GPU metric over one stage."""

    name: str
    unit: str
    stage: str
    mean: float


_M = Column[MetricMean]

METRICS: Final = Specification[MetricMean](
    key="metrics",
    title="GPU metrics",
    rows="A sampled metric in one stage.",
    columns=(
        _M("name", "Metric", "string", TEXT, "Name of the counter, as the collector gives it.", priority=0),
        _M("unit", "Unit", "string", TEXT, "Of the means."),
        _M("stage", "Stage", "string", TEXT, GLOSSARY["stage"]),
        _M("mean", "Mean", "float64", decimals(2), GLOSSARY["metric"]),
    ),
    note="Sampled by the GPU’s counters during the capture; means over each stage’s host time.",
)


def metric_means(series: Sequence[MetricSeries]) -> tuple[MetricMean, ...]:
    """One row for each metric and stage that it was sampled in."""
    return tuple(
        MetricMean(metric.name, metric.unit, stage, metric.stage_means[stage])
        for metric in series
        for stage in metric.stage_means
    )


_V = Column[Verdict]

VERDICTS: Final = Specification[Verdict](
    key="verdicts",
    title="Verdicts",
    rows="A stage, and what bounds it.",
    columns=(
        _V("stage", "Stage", "string", TEXT, GLOSSARY["stage"], priority=0),
        _V("bound", "Bound", "string", TEXT, GLOSSARY["bound"], priority=0),
        _V("sentence", "Verdict", "string", TEXT, "The verdict in one sentence."),
        _V(
            "evidence", "Evidence", "string", TEXT, "What it is judged by, a line each.",
            value=lambda row: "\n".join(row.evidence), shown=(),
        ),
        _V("action", "Do first", "string", TEXT, "What to do first."),
        _V("ceiling_ns", "At most", "int64", DURATION, GLOSSARY["ceiling"], nullable=True),
        _V("ceiling", "At most, in words", "string", TEXT, GLOSSARY["ceiling"], shown=()),
    ),
)  # fmt: skip
