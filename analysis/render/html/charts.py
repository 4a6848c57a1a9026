"""The chart library of the HTML report: a released build of Apache ECharts, unchanged, with its licence beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["BUILD", "SHA256", "VERSION", "library"]

VERSION: Final = "6.1.0"
BUILD: Final = Path(__file__).parent / "vendor" / "echarts" / "echarts.common.min.js"
"""``dist/echarts.common.min.js`` of the makers' npm package ``echarts``."""
SHA256: Final = "61f13280aba3161f77fc801bf5f9c786f55f10432153a0683fc5cc0700b013d5"
"""Of `BUILD`: a test holds the file to it."""


def library() -> str:
    """ECharts as a script that sets ``window.echarts``; its licence comment stays in front."""
    return BUILD.read_text(encoding="utf-8")
