"""One thing that the doctor looked at."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import frozen

__all__ = ["Check", "Verdict"]

Verdict: TypeAlias = Literal["ok", "warning", "failed", "skipped"]


@frozen
class Check:
    """One thing looked at."""

    name: str
    verdict: Verdict
    observed: str
    remedy: str | None = None
    """What to do, None where nothing is to be done."""
