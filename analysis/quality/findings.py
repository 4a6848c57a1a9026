"""One answer to the question whether a capture can be trusted."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import frozen

__all__ = [
    "CAPTURE_AGAIN",
    "IMPOSSIBLE_SHARE",
    "NSIGHT_SYSTEMS",
    "PARTIAL",
    "Contradiction",
    "Finding",
    "Severity",
    "severity_of",
]

Severity: TypeAlias = Literal["unfit", "warning", "info"]
"""unfit: numbers must not be used; warning: read them with the finding in mind; info: good to know."""

IMPOSSIBLE_SHARE: Final = 0.01
"""Share of a table's rows above which ones that cannot be make the capture unfit; good captures: none at all."""

CAPTURE_AGAIN: Final = (
    "export the report again; if it is so in the report too, capture again, with an nsys as new as the driver"
)
"""Remedy where rows cannot be."""

NSIGHT_SYSTEMS: Final = "NVIDIA Nsight Systems"
"""How an export of that profiler's names its product."""

PARTIAL: Final = "partial-capture"
"""Code of the finding that says that a program was ended before it was through."""


@frozen
class Finding:
    """One answer to "can this capture be trusted?"."""

    code: str
    """Stable, such as ``missing-stages``."""
    severity: Severity
    title: str
    evidence: str
    remedy: str


@frozen
class Contradiction(Finding):
    """A finding, also where it is a warning, that says that rows of a trace cannot be: figures made of them may not be either."""


def severity_of(rows: int, of: int) -> Severity:
    """How grave rows that cannot be are, among all of their kind."""
    return "unfit" if rows > IMPOSSIBLE_SHARE * of else "warning"
