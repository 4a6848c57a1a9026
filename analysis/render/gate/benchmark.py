"""``gate.benchmark.json``: the new side's figures as github-action-benchmark reads them (tool ``customSmallerIsBetter``)."""

from __future__ import annotations

from typing import Any, Final

from analysis.compare.records import Interval, StageDifference
from analysis.domain.convert import json_text
from analysis.domain.figures import significant
from analysis.gate.records import Check, GateResult
from analysis.render.spec.text import visible

__all__ = ["render"]

_SCALES: Final = {"ns": ("ms", 1e6), "bytes": ("MB", 1e6), "count": ("", 1.0)}
"""Shares are left out: of MFU and MBU more is better."""


def render(result: GateResult, stages: tuple[StageDifference, ...]) -> str:
    """The whole file: one entry for each figure that a limit was held against, smaller is better for all of them.

    Args:
        result: of the gate.
        stages: of the comparison: the half width of a latency's interval becomes the entry's ``range``.
    """
    intervals = {stage.stage: stage.interval for stage in stages}
    entries: dict[str, dict[str, Any]] = {}
    for check in result.checks:
        if check.new is None or check.unit not in _SCALES:
            continue
        name = visible(f"{check.table} {check.subject}" if check.table not in check.subject else check.subject)
        entries.setdefault(name, _entry(name, check, check.new, intervals.get(check.stage), result))
    return json_text(list(entries.values()), indent=1) + "\n"


def _entry(name: str, check: Check, new: float, interval: Interval | None, result: GateResult) -> dict[str, Any]:
    unit, scale = _SCALES[check.unit]
    per = f"/{check.per}" if check.per else ""
    entry: dict[str, Any] = {"name": name, "unit": f"{unit}{per}".strip("/") or "1", "value": new / scale}
    if check.table == "stage" and interval is not None:
        entry["range"] = f"± {significant((interval.high_ns - interval.low_ns) / 2 / scale)}"
    facts = [f"{key}: {value}" for key, value in _facts(check, result)]
    return {**entry, "extra": "\n".join(facts)}


def _facts(check: Check, result: GateResult) -> list[tuple[str, str]]:
    facts = [
        ("limit", check.limit),
        ("outcome", check.outcome),
        ("run", result.new.run_id),
        ("device", result.new.device),
    ]
    return [(key, visible(value)) for key, value in facts if value is not None]
