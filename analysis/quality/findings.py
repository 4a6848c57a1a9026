"""One answer to the question whether a capture can be trusted."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from attrs import frozen

__all__ = ["NSIGHT_SYSTEMS", "PARTIAL", "Finding", "Severity"]

Severity: TypeAlias = Literal["unfit", "warning", "info"]
"""unfit: numbers must not be used; warning: read them with the finding in mind; info: good to know."""

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
