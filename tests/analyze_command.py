"""Run ``dsocr-analyze`` as a user would, and check an error's one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["analyze", "assert_one_line"]

ROOT = Path(__file__).parents[1]


def analyze(
    *arguments: str | Path, prefix: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, in another process, on a machine without nsys if ``environ`` says no other."""
    plain = {name: value for name, value in os.environ.items() if name != "NSYS"} | {"PATH": "/nowhere"}
    return subprocess.run(
        [*prefix, sys.executable, "-m", "analysis.cli", *map(str, arguments)],
        cwd=ROOT / "docs",  # a checkout may hold an nsys in .nsys/ (make nsys), which a command in it would find
        env={**plain, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "400", **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert all(word in lines[0] for word in words), lines[0]
    assert done.stdout == ""
