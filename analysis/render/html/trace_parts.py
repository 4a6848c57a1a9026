"""What the page shows of the trace itself, beyond its report: made while the other files are written."""

from __future__ import annotations

from attrs import frozen

from analysis.attribution.attribution import Attribution
from analysis.render.html.icicle import ModuleCost, module_costs
from analysis.render.html.timeline import packed_timeline
from analysis.report import Report

__all__ = ["TraceParts", "trace_parts"]


@frozen
class TraceParts:
    """Parts of the page that a report alone does not give."""

    timeline: str
    """`packed_timeline`'s; empty: there is nothing to draw."""
    modules: tuple[ModuleCost, ...]
    perfetto: bool = False
    """Whether ``timeline.pftrace`` is written beside the page."""


def trace_parts(attribution: Attribution, report: Report, *, perfetto: bool = False) -> TraceParts:
    """Make the parts.

    Args:
        attribution: of the report's trace.
        report: of the trace.
        perfetto: whether ``timeline.pftrace`` is written beside the page.
    """
    return TraceParts(packed_timeline(attribution, report.kernels), module_costs(attribution), perfetto)
