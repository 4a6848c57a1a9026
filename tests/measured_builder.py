"""Records of what was captured and measured, made by hand for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.domain.manifest import RunManifest
from analysis.efficiency.records import Captured, Measured
from analysis.report import Report
from analysis.sums.records import InstanceSummary, StageSummary, StepPoint
from report_builder import plain_report

__all__ = ["captured_of", "measured_of"]


def captured_of(
    manifest: RunManifest | None = None,
    instances: Sequence[InstanceSummary] = (),
    steps: Sequence[StepPoint] = (),
    stages: Sequence[StageSummary] | None = None,
    **changes: Any,
) -> Captured:
    """What a capture of these instances says; its stages are those of `report_builder.plain_report` if not given."""
    plain = plain_report()
    fields: dict[str, Any] = {
        "capture": plain.capture,
        "manifest": manifest,
        "stages": tuple(plain.stages if stages is None else stages),
        "instances": tuple(instances),
        "steps": tuple(steps),
        "kernels": (),
        "categories": (),
        "host_calls": (),
    }
    return Captured(**fields | changes)


def measured_of(report: Report) -> Measured:
    """What a report was made from."""
    captured = Captured(
        capture=report.capture,
        manifest=report.manifest,
        stages=report.stages,
        instances=report.instances,
        steps=report.steps,
        kernels=report.kernels,
        categories=report.categories,
        host_calls=report.host_calls,
    )
    return Measured(captured, report.unit_times, report.overhead, report.aggregates, report.utilisation)
