"""Names of others, cut to a length."""

from __future__ import annotations

__all__ = ["shortened"]


def shortened(name: str, limit: int) -> str:
    """A name of at most ``limit`` characters; the middle of a longer one is left out."""
    if len(name) <= limit:
        return name
    head = (limit - 1) * 2 // 3
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"
