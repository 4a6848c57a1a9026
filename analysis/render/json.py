"""``report.json`` (LLMProfileReport, and ``detail`` with all that is behind it) and ``summary.json``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
from attrs import evolve

from analysis.domain.columns import Records
from analysis.domain.contracts import LLMProfileReportSummary
from analysis.domain.convert import json_text, to_plain
from analysis.domain.entities import KernelSummary
from analysis.domain.files import write_text
from analysis.report import Report
from analysis.sums.kernel_modules import KernelModuleRow
from analysis.sums.records import LeftOut

__all__ = [
    "DIFF_SCHEMA_VERSION",
    "GATE_SCHEMA_VERSION",
    "MOST_KERNEL_ROWS",
    "RANKS_SCHEMA_VERSION",
    "REVIEW_SCHEMA_VERSION",
    "SCHEMA_VERSION",
    "as_plain",
    "render",
    "summary_as_plain",
    "summary_of",
]

SCHEMA_VERSION: Final = 2
"""Of both files: raised when a field goes or means something else, not when one is added. docs/schemas has the schemas."""

RANKS_SCHEMA_VERSION: Final = 1
"""Of the report.json of several ranks, likewise."""

REVIEW_SCHEMA_VERSION: Final = 1
"""Of review.json, likewise."""


DIFF_SCHEMA_VERSION: Final = 1
"""Of diff.json, likewise."""

GATE_SCHEMA_VERSION: Final = 1
"""Of gate.json, likewise."""

MOST_KERNEL_ROWS: Final = 5000
"""Of each table of kernels in report.json. Traces of models have some hundreds; one with a name for every launch has as
many rows as launches, which kernels.parquet and kernel_modules.parquet hold."""

_Row = TypeVar("_Row", KernelSummary, KernelModuleRow)


def summary_of(report: Report) -> LLMProfileReportSummary:
    """The contract's screenful of a report."""
    whole = report.report
    return LLMProfileReportSummary(
        run_id=whole.run_id,
        mfu_model_level=whole.mfu_model_level,
        mfu_per_stage=whole.mfu_per_stage,
        top_operators=whole.operators_topk,
        aggregates=whole.aggregates,
        notes=whole.notes,
    )


def as_plain(report: Report) -> dict[str, Any]:
    """``schema_version`` and ``headline``, then ``LLMProfileReport``'s fields; those of `Report` itself under ``detail``.

    Of a table of kernels with more than `MOST_KERNEL_ROWS` rows those with most time are there, in their order;
    ``detail.left_out`` tells of the others.
    """
    bounded = _of_bounded_size(report)
    if bounded.kernel_shapes is bounded.kernels:  # each kernel has one shape: one table, made once
        detail = to_plain(evolve(bounded, kernel_shapes=()))
        detail["kernel_shapes"] = detail["kernels"]
    else:
        detail = to_plain(bounded)
    top: dict[str, Any] = detail.pop("report")
    return {"schema_version": SCHEMA_VERSION, "headline": report.ranking.sentence, **top, "detail": detail}


def _of_bounded_size(report: Report) -> Report:
    kernels, of_kernels = _longest("kernels", report.kernels)
    if report.kernel_shapes is report.kernels:  # each kernel has one shape
        shapes, of_shapes = kernels, tuple(evolve(rest, table="kernel_shapes") for rest in of_kernels)
    else:
        shapes, of_shapes = _longest("kernel_shapes", report.kernel_shapes)
    modules, of_modules = _longest("kernel_modules", report.kernel_modules)
    left_out = (*report.left_out, *of_kernels, *of_shapes, *of_modules)
    return evolve(report, kernels=kernels, kernel_shapes=shapes, kernel_modules=modules, left_out=left_out)


def _longest(
    table: Literal["kernels", "kernel_shapes", "kernel_modules"], rows: Sequence[_Row]
) -> tuple[tuple[_Row, ...], tuple[LeftOut, ...]]:
    """The rows with most time in their order, and what the others add up to, if there are any."""
    if len(rows) <= MOST_KERNEL_ROWS:
        return tuple(rows), ()
    calls, times = (np.asarray(Records.of(rows).column(name), dtype=np.int64) for name in ("calls", "total_ns"))
    places = np.argsort(-times, kind="stable")
    rest = places[MOST_KERNEL_ROWS:]
    return (
        tuple(rows[place] for place in sorted(places[:MOST_KERNEL_ROWS].tolist())),
        (LeftOut(table, len(rest), sum(calls[rest].tolist()), sum(times[rest].tolist())),),
    )


def summary_as_plain(report: Report) -> dict[str, Any]:
    """``schema_version`` and ``headline``, then ``LLMProfileReportSummary``'s fields and what to do, ranked."""
    ranking: dict[str, Any] = to_plain(report.ranking)
    head = {"schema_version": SCHEMA_VERSION, "headline": report.ranking.sentence}
    return {**head, **to_plain(summary_of(report)), "ranking": ranking}


def render(report: Report, out: Path) -> tuple[Path, ...]:
    """Write ``report.json`` and ``summary.json``.

    Raises:
        RequestError: the folder cannot be written to.
        ValueError: a number is not finite (a bug: JSON has none such).
    """
    whole = json_text(as_plain(report))
    short = json_text(summary_as_plain(report), indent=2)
    return (
        write_text(out / "report.json", whole + "\n"),
        write_text(out / "summary.json", short + "\n"),
    )
