"""A way to record a run: what the launcher, the queue and the profiled program need to know of it.

A new collector is a folder with a `Collector` in it, and a line in `runner.collectors.choosing`. What is special about
it is said by the attributes of its class; nothing outside compares its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Protocol, Self

from attrs import frozen

from analysis.domain.errors import RequestError
from analysis.domain.manifest import Collector as CollectorName
from runner.collectors.interface.recording import Recording
from runner.plan.plan import RunPlan
from runner.plan.settings import FINISH_S, AnnotationLevel
from runner.process.driver import DriverFacts
from runner.process.process import Interrupts, Outcome

__all__ = ["Collected", "Collection", "Collector", "ExportResult", "Job", "Tool"]


@frozen
class Job:
    """What a collection needs to know of a run."""

    run_id: str
    run_dir: Path
    target: tuple[str, ...]
    """The child's command line."""
    env: dict[str, str]
    log: Path
    result_file: Path
    """Written by the child as the last thing it does, if it succeeds."""
    deadline: float | None
    """On ``time.monotonic()``'s clock."""
    grace_s: float = 10.0
    finish_s: float = FINISH_S
    """What the profiler may take to write its report after the child's end."""
    watch: Callable[[], None] | None = None
    """Called again and again while the program runs."""


@frozen
class Collected:
    """How a collection ended."""

    outcome: Outcome
    child: int | None
    """Exit code of the child, None if it never ran."""
    tool: int | None
    """0 if the profiling program did its part; None where there is none."""
    usable: bool
    """Something was left behind that can be exported or read."""
    fault: str | None = None
    """What kept the profiling program from its part, in words, where that is known: how it ended itself, or a full disk. Then
    its exit code says nothing of the child."""
    failed_first: str | None = None
    """What is told of a start of the profiling program that failed before this one, and before it had started the child."""


@frozen
class ExportResult:
    """A finished export: ``trace.sqlite`` is there, checked and free of environments."""

    returncode: int
    rows: dict[str, int]
    """Rows of each event table, those that are there."""
    blocks: int = 0
    """Environment blocks that were removed from the trace."""
    foreign_blocks: int = 0
    """Those of processes that the run did not start; the collector's own report still holds them."""
    secret_names: tuple[str, ...] = ()
    """Variables in foreign blocks that are named like secrets."""
    secret_texts: int = 0
    """Other texts, such as names of ranges and words of the program, out of which a secret was taken."""


class Tool(Protocol):
    """A profiling program on this machine."""

    @property
    def path(self) -> str:
        """Absolute."""

    @property
    def version(self) -> str:
        """As the program says it."""


class Collection(Protocol):
    """A collector made ready for one plan."""

    def warnings(self, facts: DriverFacts) -> tuple[str, ...]:
        """Say what of the plan this collector cannot do or may lose on a machine with this driver."""

    def command(self, job: Job) -> list[str]:
        """Give the exact command line that records ``job``."""

    def export_command(self, run_dir: Path) -> list[str] | None:
        """Give the command line between capture and trace; None: the child itself writes the trace."""

    def collect(self, job: Job, interrupts: Interrupts) -> Collected:
        """Run it. Raises CaptureError if it cannot be started."""

    def finish(self, job: Job, log: Path, interrupts: Interrupts) -> ExportResult:
        """Leave a checked ``trace.sqlite`` in the run's folder. Raises ExportError; can be repeated."""


class Collector(ABC):
    """A way to record a run. Each attribute is a property of the kind, not of one run."""

    name: ClassVar[CollectorName]
    """As in the manifest."""
    summary: ClassVar[str]
    """What it does, in a few words for a person."""
    needs_private_tmp: ClassVar[bool] = False
    """Its program leaves files in TMPDIR that must go with the run."""
    records_operators_itself: ClassVar[bool] = False
    """It records every PyTorch operator anyway, so ranges around operators would say it twice."""
    joins_counters: ClassVar[bool] = False
    """Whether its traces name kernels and launch shapes as Nsight Compute does, so that counters can be joined to them."""
    sees_graph_nodes: ClassVar[bool] = False
    """It knows when each node of a CUDA graph was recorded, if that happened while it collected."""
    wants_manifest_mark: ClassVar[bool] = True
    """The manifest is written into the trace as a mark, so that a lone trace explains itself."""
    uses_preset_options: ClassVar[bool] = False
    """A preset's options (``nsys_configs/``) apply; else only the preset's annotation level does."""
    accepts_tool_arguments: ClassVar[bool] = False
    """The user may pass arguments on to its program (``--nsys-arg``)."""
    exports: ClassVar[bool] = False
    """There is a step between capture and trace, which can be done later and also for a program that failed; a
    ``trace.sqlite`` in the run's folder then means that the step is done."""

    @property
    @abstractmethod
    def tool(self) -> Tool | None:
        """The program that it runs; None: it has none, or none was looked for."""

    @property
    def tool_name(self) -> str:
        """The program with its version, for a person; the collector's name where it has none."""
        return self.name if self.tool is None else f"{self.tool.path} (version {self.tool.version})"

    @abstractmethod
    def with_tool(self, named: str | None, environ: Mapping[str, str], *, to_record: bool) -> Self:
        """Find its program on this machine; itself where it needs none.

        Args:
            named: the program that the user wants, as path or command; None: the best one.
            environ: the launcher's environment.
            to_record: a capture is to be made, not only exported.

        Raises:
            CaptureError: there is no usable one.
        """

    def for_plan(self, plan: RunPlan, environ: Mapping[str, str]) -> Collection:
        """Make it ready for a plan.

        Args:
            plan: the run; its settings hold the user's arguments for this collector's program.
            environ: the launcher's environment.

        Raises:
            CaptureError: its program lacks what the preset insists on.
            RequestError: options do not fit.
        """
        if plan.settings.nsys_args and not self.accepts_tool_arguments:
            raise RequestError(f"--nsys-arg is for the collector nsys, and the collector is {self.name}")
        return self._collection(plan, environ)

    @abstractmethod
    def _collection(self, plan: RunPlan, environ: Mapping[str, str]) -> Collection:
        """What `for_plan` gives; the plan has arguments only where they are accepted."""

    @abstractmethod
    def recording(self, plan: RunPlan) -> Recording:
        """Give its half inside the profiled program. Imports torch."""

    def range_level(self, wanted: AnnotationLevel) -> AnnotationLevel:
        """How much the profiled program marks with ranges, where the plan wants ``wanted``."""
        return "modules" if wanted == "operators" and self.records_operators_itself else wanted

    def notes(self, plan: RunPlan) -> tuple[str, ...]:
        """What a reader of the report must know of a plan recorded this way."""
        if plan.annotation_level == "operators" and self.records_operators_itself:
            return (f"operators are events of {self.summary} itself; no ranges were written around them",)
        return ()
