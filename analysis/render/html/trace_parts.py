"""What the page shows of the trace itself, beyond its report: made while that is assembled and other files are written."""

from __future__ import annotations

from concurrent.futures import Future

from attrs import frozen

from analysis.attribution.attribution import Attribution
from analysis.render.html.icicle import ModuleCost, module_costs
from analysis.render.html.timeline import packed_timeline
from analysis.report import Report
from analysis.sums.host_calls import HostCalls

__all__ = ["TraceParts", "trace_parts"]


@frozen
class TraceParts:
    """Parts of the page that a report alone does not give."""

    timeline: str
    """`packed_timeline`'s; empty: there is nothing to draw."""
    modules: tuple[ModuleCost, ...]
    perfetto: bool = False
    """Whether ``timeline.pftrace`` is written beside the page."""


def trace_parts(
    attribution: Attribution, report: Report | Future[Report], *, host: HostCalls | None = None, perfetto: bool = False
) -> TraceParts:
    """Make the parts.

    Args:
        attribution: of the report's trace.
        report: of the trace, or what will be it: it is waited for last.
        host: the trace's calls, where they are read already.
        perfetto: whether ``timeline.pftrace`` is written beside the page.
    """
    host = host or HostCalls(attribution)
    modules = module_costs(attribution, host)
    kernels = lambda: (report.result() if isinstance(report, Future) else report).kernels  # noqa: E731
    timeline = packed_timeline(attribution, kernels, host)
    return TraceParts(timeline, modules, perfetto)
