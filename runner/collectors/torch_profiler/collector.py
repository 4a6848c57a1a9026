"""torch.profiler inside the child, which writes the same tables as an nsys export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final, Self

from attrs import frozen

from analysis.domain.manifest import Collector as CollectorName
from runner.collectors.interface.collector import Collected, Collector, ExportResult, Job
from runner.collectors.interface.recording import Recording
from runner.collectors.interface.trace_file import check_trace
from runner.plan.plan import RunPlan
from runner.process.driver import DriverFacts
from runner.process.process import Interrupts, run_process

__all__ = ["TorchCollection", "TorchCollector"]

_TRACE = "trace.sqlite"
_WRITE_S: Final = 60.0
"""A child that is asked to end writes what its profiler recorded first: 17 s for 930,000 operators, on a busy CPU."""


@frozen
class TorchCollection:
    """The child, which records itself."""

    def warnings(self, facts: DriverFacts) -> tuple[str, ...]:
        """None: CUPTI comes with torch, and both were built for one CUDA."""
        return ()

    def command(self, job: Job) -> list[str]:
        """The child itself."""
        return list(job.target)

    def export_command(self, run_dir: Path) -> None:
        """None: the child writes the trace."""

    def collect(self, job: Job, interrupts: Interrupts) -> Collected:
        """Run it."""
        outcome = run_process(
            self.command(job),
            env=job.env,
            log=job.log,
            interrupts=interrupts,
            deadline=job.deadline,
            grace_s=max(job.grace_s, _WRITE_S),
            watch=job.watch,
        )
        return Collected(outcome=outcome, child=outcome.returncode, tool=None, usable=(job.run_dir / _TRACE).is_file())

    def finish(self, job: Job, log: Path, interrupts: Interrupts) -> ExportResult:
        """Check what the child wrote; it holds no environment."""
        return ExportResult(returncode=0, rows=check_trace(job.run_dir / _TRACE))


@frozen
class TorchCollector(Collector):
    """torch.profiler."""

    name: ClassVar[CollectorName] = "torch"
    summary: ClassVar[str] = "torch.profiler"
    records_operators_itself: ClassVar[bool] = True

    @property
    def tool(self) -> None:
        """None: it is part of torch."""

    def with_tool(self, named: str | None, environ: Mapping[str, str], *, to_record: bool) -> Self:
        """Itself."""
        return self

    def _collection(self, plan: RunPlan, environ: Mapping[str, str]) -> TorchCollection:
        return TorchCollection()

    def recording(self, plan: RunPlan) -> Recording:
        """Ranges in memory, torch.profiler around the measured passes."""
        from runner.collectors.torch_profiler.recording import TorchRecording  # brings torch

        return TorchRecording(Path(plan.run_dir) / _TRACE)
