"""The table of what speaks for and against trusting a capture."""

from __future__ import annotations

from typing import Final

from analysis.quality.findings import Finding
from analysis.render.spec.specification import TEXT, Column, Specification

__all__ = ["FINDINGS"]

_F = Column[Finding]

FINDINGS: Final = Specification[Finding](
    key="findings",
    title="Can this capture be trusted?",
    rows="Something that makes numbers wrong or misleading, or that is good to know; the gravest first.",
    columns=(
        _F("severity", "Severity", "string", TEXT, "unfit: do not use the numbers; warning: mind the remark; info."),
        _F("code", "Code", "string", TEXT, "Stable name of the check."),
        _F("title", "Finding", "string", TEXT, "What was found."),
        _F("evidence", "Evidence", "string", TEXT, "By which rows of the trace."),
        _F("remedy", "Remedy", "string", TEXT, "What to do."),
    ),
)
