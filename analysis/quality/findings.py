"""One answer to the question whether a capture can be trusted."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import frozen

__all__ = ["Finding", "Severity"]

Severity: TypeAlias = Literal["unfit", "warning", "info"]
"""unfit: numbers must not be used; warning: read them with the remark in mind; info: good to know."""


@frozen
class Finding:
    """One answer to "can this capture be trusted?"."""

    code: str
    """Stable, such as ``missing-stages``."""
    severity: Severity
    title: str
    evidence: str
    remedy: str
