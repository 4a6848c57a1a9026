"""What bounds a stage, as a record."""

from __future__ import annotations

from attrs import frozen

__all__ = ["Verdict"]


@frozen
class Verdict:
    """What bounds a stage, and what to do."""

    stage: str
    """prefill, decode, or ``capture``: the whole of a trace without stages."""
    bound: str
    """launch-bound, host-blocked, memory-bound, compute-bound, under-occupied, communication-bound, mixed, unknown."""
    sentence: str
    evidence: tuple[str, ...]
    action: str
    ceiling_ns: int | None
    """What removing the cause can save at most, over one pass through the inputs, ns."""
    ceiling: str
    """The same in words."""
