"""Copies of real traces that SQL has damaged, and what is found in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from analysis.api.opening import opened
from analysis.api.options import AnalysisOptions
from analysis.quality.findings import Finding

__all__ = ["Damaged", "changed", "findings"]

Damaged: TypeAlias = Callable[..., Path]
"""SQL statements, and ``name`` of a real trace → its damaged copy; the fixture ``damaged``."""


def changed(path: Path, *sql: str) -> Path:
    """Change a trace by SQL."""
    with sqlite3.connect(path) as database:
        for statement in sql:
            database.execute(statement)
    return path


def findings(path: Path) -> dict[str, Finding]:
    """What is found in a trace, by code."""
    with opened(path, AnalysisOptions()) as trace:
        return {finding.code: finding for finding in trace.findings}
