"""A trace with what the user states about it: attribution, manifest, findings and report, each made when asked for.

What makes an answer is imported when it is asked for: by then the trace is being read, on another core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from analysis.api.export import find_trace, readable
from analysis.api.options import AnalysisOptions
from analysis.domain.errors import RequestError, ResultError, TraceError, UnfitTraceError
from analysis.trace.reader import Trace

if TYPE_CHECKING:
    from analysis.attribution.attribution import Attribution
    from analysis.domain.manifest import RunManifest
    from analysis.quality.findings import Finding
    from analysis.report import Assembled, Report
    from analysis.sums.host_calls import HostCalls

__all__ = ["OpenedTrace", "opened"]


@frozen(eq=False, slots=False)
class OpenedTrace:
    """A trace that is open for reading, and the answers about it."""

    trace: Trace
    options: AnalysisOptions

    @cached_property
    def attribution(self) -> Attribution:
        """Which call launched each operation, and which ranges surround it.

        Raises:
            RequestError: the vocabulary that was named cannot be read.
        """
        from analysis.attribution.attribution import Attribution
        from analysis.attribution.vocabulary import load_vocabulary

        return Attribution.of(
            self.trace,
            cross_thread=self.options.cross_thread,
            vocabulary=load_vocabulary(self.options.vocabulary),
        )

    @cached_property
    def manifest(self) -> RunManifest | None:
        """Of the run; None: nothing says what the run was meant to do.

        Raises:
            RequestError: it cannot be read, or belongs to another run.
        """
        from analysis.trace.manifest import find_manifest

        return find_manifest(self.trace.path, self.trace.marks, self.options.manifest)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What speaks for and against trusting the capture."""
        from analysis.quality.examine import examine

        return examine(self.trace, self.attribution, self.manifest)

    def require_fitness(self, *, of_ranges: bool = True) -> None:
        """Refuse to give numbers from a capture that its own evidence calls unfit, unless the user accepts that.

        Args:
            of_ranges: whether the numbers depend on ranges; if not, ranges that are not there do not matter.

        Raises:
            TraceSchemaError: there is no GPU operation, although the run was not meant for a CPU.
            UnfitTraceError: the capture is unfit, and was not accepted.
        """
        self._require_operations()
        self.refuse_unfit(self.findings, of_ranges=of_ranges)

    def report(self, attributed: Callable[[Attribution, HostCalls], None] | None = None) -> Report:
        """Everything, with a verdict.

        Args:
            attributed: called with the attribution and the trace's calls before the report is assembled; what it starts runs
                beside that.

        Raises:
            TraceSchemaError: there is no GPU operation, although the run was not meant for a CPU.
            UnfitTraceError: the capture is unfit, and was not accepted.
            RequestError: a cost was requested that has no closed form, or the kernel rules cannot be read.
        """
        from analysis.report import judged_alone

        return judged_alone(self.assembled(attributed=attributed))

    def assembled(
        self, host: HostCalls | None = None, attributed: Callable[[Attribution, HostCalls], None] | None = None
    ) -> Assembled:
        """The report, and what it was judged by; raises as `report` does.

        Args:
            host: the trace's calls, where the caller looks at them too.
            attributed: see `report`.
        """
        from analysis.report import assemble_to_judge_again
        from analysis.sums.host_calls import HostCalls
        from analysis.trace.manifest import find_wall_times

        self._require_operations()
        options = self.options.report_options()
        host = host or HostCalls(self.attribution)
        if attributed is not None:
            attributed(self.attribution, host)
        made = assemble_to_judge_again(self.trace, self.attribution, self.manifest, options, host)
        self.require_unchanged()
        self.refuse_unfit(made.report.findings)
        return evolve(made, report=evolve(made.report, wall_times=find_wall_times(self.trace.path)))

    def require_unchanged(self) -> None:
        """Refuse what was made of a file that changed meanwhile: called before any of it is shown or written.

        Raises:
            TraceError: somebody wrote or replaced the file since it was opened.
        """
        self.trace.database.require_unchanged()

    def _require_operations(self) -> None:
        from analysis.domain.manifest import ran_on_cpu

        if self.manifest is None or not ran_on_cpu(self.manifest):
            self.trace.require_operations()  # a run that was meant for the CPU has host times only, and its report says so

    def refuse_unfit(self, findings: tuple[Finding, ...], *, of_ranges: bool = True) -> None:
        """Refuse what findings call unfit, unless the user accepts that.

        Args:
            findings: of this trace.
            of_ranges: see `require_fitness`.

        Raises:
            UnfitTraceError: one is severe.
        """
        unfit = [
            finding
            for finding in findings
            if finding.severity == "unfit" and (of_ranges or finding.code not in _ABOUT_ABSENT_RANGES)
        ]
        if unfit and not self.options.accept_lossy:
            evidence = "; ".join(f"{finding.title}: {finding.evidence}" for finding in unfit)
            raise UnfitTraceError(
                f"{self.trace.path}: unfit for conclusions – {evidence}. {unfit[0].remedy} "
                "(--accept-lossy reports all the same)"
            )


_ABOUT_ABSENT_RANGES = frozenset({"no-nvtx", "missing-stages"})
"""Findings that say only that there are no ranges to attribute to: sums by kernel name are right without."""


@contextmanager
def opened(path: Path, options: AnalysisOptions) -> Iterator[OpenedTrace]:
    """Open a trace and begin to read it in the background.

    Args:
        path: a SQLite export, also compressed, a run folder or a ``.nsys-rep``.
        options: what the user states about it.

    Raises:
        TraceError: it cannot be found, exported or read.
    """
    source = find_trace(path)
    with readable(source) as file, Trace(source, file) as trace:
        try:
            trace.begin()
            yield OpenedTrace(trace if options.rank is None else _rank(trace, options.rank), options)
        except (TraceError, UnfitTraceError, ResultError, FileNotFoundError):
            trace.database.require_unchanged()
            raise


def _rank(trace: Trace, number: int) -> Trace:
    """One rank of a trace.

    Raises:
        RequestError: it has no such rank.
    """
    from analysis.attribution.ranks import RankTrace, rank_places

    places = rank_places(trace)
    if number >= len(places):
        held = "no rank" if not places else "one rank, 0" if len(places) == 1 else f"ranks 0 to {len(places) - 1}"
        raise RequestError(f"{trace.path}: there is no rank {number}: the trace holds {held}")
    return RankTrace(trace, places[number])
