"""Limits of this process, which all that it starts inherits, where they are low enough to make programs fail in odd ways."""

from __future__ import annotations

import resource
from typing import Final

__all__ = ["low_limits", "low_limits_note"]

_FEW_FILES: Final = 256
"""nsys 2022.4 opens some 60 files at once, and a program of CUDA as many."""


def low_limits() -> tuple[str, ...]:
    """Name the limits of open files, file sizes and memory that are low or set at all, as ``ulimit`` sets them."""
    low = []
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < _FEW_FILES:
        low.append(f"{files} open files (ulimit -n)")
    size = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if size != resource.RLIM_INFINITY:
        low.append(f"{size:,} bytes for a file (ulimit -f)")
    memory = resource.getrlimit(resource.RLIMIT_AS)[0]
    if memory != resource.RLIM_INFINITY:
        low.append(f"{memory >> 20:,} MiB of address space (ulimit -v)")
    return tuple(low)


def low_limits_note() -> str:
    """`low_limits` for the end of a message; empty where there are none."""
    limits = low_limits()
    return f"; limits that are set here: {', '.join(limits)}" if limits else ""
