"""Can this capture be trusted? Findings with severity, evidence and remedy, from the trace's own rows.

nsys exits 0 whether or not it lost events, and the message "Not all … events might have been collected" stands in good
captures too. What a lossy capture cannot hide is that its rows contradict each other: ranges that swallow their
siblings, layers that ran unequally often, launches without kernels, call ids that were given out but never recorded.
One such sign is a warning; two that are independent of each other make the capture unfit.
"""

from __future__ import annotations

from typing import Final

from analysis.attribution.attribution import Attribution
from analysis.domain.manifest import RunManifest
from analysis.quality import (
    calls,
    devices,
    expected,
    graphs,
    limits,
    names,
    places,
    profiler,
    ranges,
    time_unit,
    values,
)
from analysis.quality.findings import Finding, Severity
from analysis.sums.host_calls import HostCalls
from analysis.trace.reader import Trace

__all__ = ["examine", "is_unfit"]

_ORDER: Final[dict[Severity, int]] = {"unfit": 0, "warning": 1, "info": 2}

_LOSS_SIGNS: Final = {
    "lost-range-ends": "range ends",
    "unequal-siblings": "range counts",
    "fewer-ranges-than-expected": "range counts",
    "launches-without-gpu-rows": "GPU rows",
    "gpu-rows-without-launch": "GPU rows",
    "unrecorded-api-calls": "API rows",
    "fewer-rows-than-collected": "collected rows",
    "dropped-events": "the profiler's own word",
    "profiler-older-than-driver": "versions",
}
"""Finding → what it is evidence about. Findings about the same thing are one sign, however many they are."""

_SIGNS_OF_AN_UNFIT_CAPTURE: Final = 2


def examine(
    trace: Trace, attribution: Attribution, manifest: RunManifest | None, host: HostCalls | None = None
) -> tuple[Finding, ...]:
    """Look for everything that would make the numbers of a trace wrong or misleading.

    Args:
        trace: opened.
        attribution: of the same trace.
        manifest: of the run; None: nobody knows what the run was meant to do.
        host: the attribution's calls, where they are classified already.

    Returns:
        Findings, the gravest first; within one severity in the order of the checks.
    """
    findings: list[Finding] = values.check(trace, attribution)
    host = host or HostCalls(attribution)
    findings += calls.check(trace, attribution, manifest, host)
    findings += time_unit.check(trace, attribution, manifest, host)
    findings += limits.check(trace, attribution)
    findings += devices.check(trace, attribution)
    findings += places.check(trace, attribution)
    findings += names.check(trace, attribution)
    findings += profiler.check(trace, manifest)
    if len(attribution.ranges):
        findings += ranges.check(attribution)
    findings += graphs.check(trace, attribution, host)
    findings += expected.check(trace, attribution, manifest)
    findings += _lossy(findings)
    return tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity]))


def is_unfit(findings: tuple[Finding, ...]) -> bool:
    """Whether the numbers must not be used."""
    return any(finding.severity == "unfit" for finding in findings)


def _lossy(findings: list[Finding]) -> list[Finding]:
    """Judge the signs of loss together."""
    signs: dict[str, Finding] = {}
    for finding in findings:
        if finding.code in _LOSS_SIGNS and finding.severity != "info":
            signs.setdefault(_LOSS_SIGNS[finding.code], finding)
    if len(signs) < _SIGNS_OF_AN_UNFIT_CAPTURE:
        return []
    return [
        Finding(
            code="lossy-capture",
            severity="unfit",
            title="the profiler lost events",
            evidence=f"{len(signs)} independent signs: " + "; ".join(finding.title for finding in signs.values()),
            remedy=(
                "capture again with an nsys at least as new as the driver's CUDA, and let it end by itself; "
                "do not use these numbers"
            ),
        )
    ]
