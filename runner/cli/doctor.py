"""``dsocr-profile doctor``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import typer

from analysis.domain.convert import to_json
from analysis.domain.errors import CaptureError
from runner.cli.options import AsJson, Nsys, Out
from runner.cli.output import say, tell, tell_document

__all__ = ["doctor"]

_SIGNS: Final = {"ok": "✓", "warning": "!", "failed": "✗", "skipped": "–"}


def doctor(out: Out = Path("reports"), nsys: Nsys = None, as_json: AsJson = False) -> None:
    """Check what a run needs and say what to do where it fails; exit code 0 if runs are possible here, 10 if not."""
    from runner.launcher.doctor import diagnose

    diagnosis = diagnose(os.environ, out, nsys=nsys, say=say)
    if as_json:
        tell_document(to_json(diagnosis))
    else:
        for check in diagnosis.checks:
            tell(f"{_SIGNS[check.verdict]} {check.name}: {check.observed}")
            if check.remedy is not None and check.verdict != "ok":
                tell(f"    → {check.remedy}")
        tell(f"usable; --collector auto takes {diagnosis.collector}" if diagnosis.usable else "not usable")
    if not diagnosis.usable:
        raise typer.Exit(CaptureError.exit_code)
