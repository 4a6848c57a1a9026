"""``report.json`` (LLMProfileReport, and ``detail`` with all that is behind it) and ``summary.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from analysis.domain.contracts import LLMProfileReportSummary
from analysis.domain.convert import to_plain
from analysis.domain.files import write_text
from analysis.report import Report

__all__ = [
    "DIFF_SCHEMA_VERSION",
    "GATE_SCHEMA_VERSION",
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
    """``schema_version`` and ``headline``, then ``LLMProfileReport``'s fields; those of `Report` itself under ``detail``."""
    detail = to_plain(report)
    top: dict[str, Any] = detail.pop("report")
    return {"schema_version": SCHEMA_VERSION, "headline": report.ranking.sentence, **top, "detail": detail}


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
    whole = json.dumps(as_plain(report), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    short = json.dumps(summary_as_plain(report), ensure_ascii=False, allow_nan=False, indent=2)
    return (
        write_text(out / "report.json", whole + "\n"),
        write_text(out / "summary.json", short + "\n"),
    )
