"""Ways to record a run, behind one interface: ``nsys`` wraps the child; ``torch`` lets the child record itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

from attrs import frozen

from analysis.domain.errors import CaptureError, RequestError
from analysis.domain.manifest import Collector as CollectorName
from runner.collectors.nsys.export import ExportResult, check_export, export_report, finish_import
from runner.collectors.nsys.fitness import nvtx_misfit
from runner.collectors.nsys.presets import Preset, ResolvedOptions, resolve_options
from runner.collectors.nsys.scrub import ScrubResult
from runner.collectors.nsys.tool import NsysTool, find_nsys, profile_argv
from runner.process.driver import installed_version
from runner.process.isolation import namespace_prefix
from runner.process.process import Interrupts, Outcome, run_process

__all__ = [
    "Choice",
    "Collected",
    "Collector",
    "Job",
    "NsysCollector",
    "TorchCollector",
    "choose_collector",
    "local_folders",
    "make_collector",
]


@frozen
class Job:
    """What a collector needs to know of a run."""

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


@frozen
class Collected:
    """How a collection ended."""

    outcome: Outcome
    child: int | None
    """Exit code of the child, None if it never ran."""
    nsys: int | None
    """0 if nsys did its part; None where there is no nsys."""
    usable: bool
    """Something was left behind that can be exported or read."""


class Collector(Protocol):
    """A way to record a run."""

    @property
    def name(self) -> CollectorName:
        """As in the manifest."""

    def command(self, job: Job) -> list[str]:
        """Give the exact command line that records ``job``."""

    def collect(self, job: Job, interrupts: Interrupts) -> Collected:
        """Run it. Raises CaptureError if it cannot be started."""

    def finish(self, job: Job, log: Path, interrupts: Interrupts) -> ExportResult:
        """Leave a checked ``trace.sqlite`` in the run's folder. Raises ExportError; can be repeated."""


@frozen
class NsysCollector:
    """Nsight Systems around the child."""

    tool: NsysTool
    options: ResolvedOptions
    extra: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    """Starts nsys where it sees no other processes; empty where that is not possible."""

    @property
    def name(self) -> CollectorName:
        """As in the manifest."""
        return "nsys"

    def command(self, job: Job) -> list[str]:
        """``unshare … nsys profile … child``."""
        argv = profile_argv(
            self.tool,
            self.options.options,
            output=str(job.run_dir / "trace"),
            session=f"dsocr-{job.run_id[:8]}",
            target=job.target,
            extra=self.extra,
        )
        return [*self.prefix, *argv]

    def collect(self, job: Job, interrupts: Interrupts) -> Collected:
        """Run it. nsys' exit status is the child's where it had one; what it left behind tells the rest."""
        outcome = run_process(
            self.command(job),
            env=job.env,
            log=job.log,
            interrupts=interrupts,
            target=job.target,
            deadline=job.deadline,
            grace_s=job.grace_s,
            umask=0o077,
        )
        usable = any(
            file.is_file() and file.stat().st_size > 0
            for file in (job.run_dir / "trace.nsys-rep", job.run_dir / "trace.qdstrm")
        )
        finished = job.result_file.is_file()
        # nsys starts the program with the file mode mask 0, and writes its report readable for all.
        for file in (*job.run_dir.glob("trace.*"), job.result_file):
            if file.is_file():
                file.chmod(0o600)
        child: int | None
        if finished:
            child = 0
        elif outcome.target_seen:
            child = outcome.returncode or 1  # it wrote no result, so it did not succeed, whatever nsys says
        else:
            child = None
        nsys = 0 if usable and (child or outcome.returncode == 0) else outcome.returncode
        return Collected(outcome=outcome, child=child, nsys=nsys, usable=usable)

    def finish(self, job: Job, log: Path, interrupts: Interrupts) -> ExportResult:
        """Import what is left to import, export, check, scrub."""
        report = finish_import(self.tool, job.run_dir, env=job.env, log=log, interrupts=interrupts)
        return export_report(
            self.tool,
            report,
            job.run_dir / "trace.sqlite",
            env=job.env,
            log=log,
            interrupts=interrupts,
            own_marks=(job.run_id,),
        )


@frozen
class TorchCollector:
    """torch.profiler inside the child, which writes the same tables as an nsys export."""

    @property
    def name(self) -> CollectorName:
        """As in the manifest."""
        return "torch"

    def command(self, job: Job) -> list[str]:
        """The child itself."""
        return list(job.target)

    def collect(self, job: Job, interrupts: Interrupts) -> Collected:
        """Run it."""
        outcome = run_process(
            self.command(job),
            env=job.env,
            log=job.log,
            interrupts=interrupts,
            deadline=job.deadline,
            grace_s=job.grace_s,
        )
        trace = job.run_dir / "trace.sqlite"
        return Collected(outcome=outcome, child=outcome.returncode, nsys=None, usable=trace.is_file())

    def finish(self, job: Job, log: Path, interrupts: Interrupts) -> ExportResult:
        """Check what the child wrote; it holds no environment."""
        return ExportResult(returncode=0, rows=check_export(job.run_dir / "trace.sqlite"), scrubbed=ScrubResult(0))


@frozen
class Choice:
    """Which collector, and why."""

    name: CollectorName
    reason: str
    tool: NsysTool | None = None


def choose_collector(
    wanted: Literal["auto", "nsys", "torch"], device: str, preset: Preset, nsys: str | None, environ: Mapping[str, str]
) -> Choice:
    """Choose between nsys and torch.

    ``auto`` takes nsys if the run is on a GPU and a usable nsys is found, else torch.

    Raises:
        CaptureError: nsys is asked for and there is no usable one, or it would lose every range of this nvtx.
        RequestError: the preset only makes sense under nsys.
    """
    if wanted == "torch":
        choice = Choice("torch", "asked for")
    elif wanted == "nsys":
        choice = Choice("nsys", "asked for", _fitting_nsys(nsys, environ))
    elif not device.startswith("cuda"):
        choice = Choice("torch", f"the device is {device}, where nsys sees no kernels")
    else:
        try:
            tool = _fitting_nsys(nsys, environ)
            choice = Choice("nsys", f"the device is {device} and {tool.path} (version {tool.version}) is usable", tool)
        except CaptureError as error:
            if nsys is not None:
                raise
            choice = Choice("torch", str(error))
    if choice.name == "torch" and preset.refuse:
        raise RequestError(f"preset {preset.name} needs nsys, and the collector is torch ({choice.reason})")
    return choice


def _fitting_nsys(named: str | None, environ: Mapping[str, str]) -> NsysTool:
    tool = find_nsys(named, environ, folders=local_folders())
    misfit = nvtx_misfit(tool, installed_version("nvtx"))
    if misfit is not None:
        raise CaptureError(f"{tool.path}: {misfit}")
    return tool


def make_collector(
    choice: Choice, preset: Preset, device: str, nsys_args: tuple[str, ...], environ: Mapping[str, str]
) -> NsysCollector | TorchCollector:
    """Make the chosen collector ready.

    Raises:
        CaptureError: this nsys lacks what the preset insists on.
        RequestError: options do not fit.
    """
    if choice.name == "torch":
        if nsys_args:
            raise RequestError("--nsys-arg is for the collector nsys, and the collector is torch")
        return TorchCollector()
    if choice.tool is None:
        raise CaptureError("the collector is nsys, but no nsys was chosen")
    return NsysCollector(
        tool=choice.tool,
        options=resolve_options(preset, choice.tool, device=device),
        extra=nsys_args,
        prefix=namespace_prefix(environ),
    )


def local_folders() -> list[Path]:
    """Where ``make nsys`` may have put a copy: here, beside the sources, beside the virtual environment."""
    return list(dict.fromkeys([Path.cwd(), Path(__file__).resolve().parents[2], Path(sys.prefix).parent]))
