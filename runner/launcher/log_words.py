"""What a program's log says last, for the one line that an error is."""

from __future__ import annotations

import re
from pathlib import Path

from analysis.domain.system_errors import DISK_FULL, has_little_room, is_disk_full

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
    if not words:
        return f"it said nothing ({DISK_FULL})" if has_little_room(log) else "it said nothing"
    said = [line for line in words if "error" in line.lower()]
    full = [line for line in words if DISK_FULL in line or is_disk_full(RuntimeError(line))]
    chosen = (full or said or words)[-1]
    return chosen if len(chosen) <= 300 else chosen[:297] + "…"
