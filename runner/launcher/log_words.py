"""What a program's log says last, for the one line that an error is."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["last_line"]

_NSYS_CHATTER = re.compile(
    r"\[\d|Generat(ed|ing)\b|Capture range |Processing |Exporting |usage: |Try 'nsys |/\S*\.(nsys-rep|qdstrm)$"
)


def last_line(log: Path) -> str:
    """Last line that says something, of a program's log; nsys' progress bars are none."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "no log"
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    words = [line for line in lines if not _NSYS_CHATTER.match(line)]
    said = [line for line in words if "error" in line.lower()]
    chosen = (said or words or ["it said nothing"])[-1]
    return chosen if len(chosen) <= 300 else chosen[:297] + "…"
