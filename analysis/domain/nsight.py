"""Where Nsight Systems usually lies: both packages look there."""

from __future__ import annotations

from typing import Final

__all__ = ["NSYS_PLACES"]

NSYS_PLACES: Final = (
    "/opt/nvidia/nsight-systems*/*/bin/nsys",
    "/opt/nvidia/nsight-systems*/bin/nsys",
    "/opt/nvidia/nsight-systems/*/target-linux-*/nsys",
    "/usr/lib/nsight-systems/*/nsys",
    "/usr/local/cuda*/bin/nsys",
    "/opt/nvidia/nsight-compute/*/host/target-linux-*/nsys",
)
"""Patterns of paths, for programs that are not on PATH."""
