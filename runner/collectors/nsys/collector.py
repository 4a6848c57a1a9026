"""Nsight Systems around the child."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from attrs import evolve, frozen

from analysis.domain.errors import CaptureError
from analysis.domain.manifest import Collector as CollectorName
from analysis.domain.programs import SAFE_FOLDER
from runner.collectors.interface.collector import Collected, Collector, ExportResult, Job
from runner.collectors.interface.recording import Recording
from runner.collectors.nsys.death import fault_of_nsys, room_for_nsys, set_failed_start_aside
from runner.collectors.nsys.export import export_report, finish_import
from runner.collectors.nsys.fitness import driver_mismatch, nvtx_mismatch
from runner.collectors.nsys.presets import ResolvedOptions, load_preset, resolve_options
from runner.collectors.nsys.tool import NsysTool, export_argv, find_nsys, output_name, profile_argv
from runner.plan.plan import RunPlan, trace_names
from runner.process.driver import DriverFacts, installed_version
from runner.process.environment import own_secrets
from runner.process.file_modes import PRIVATE, umask_prefix
from runner.process.isolation import namespace_prefix
from runner.process.process import Interrupts, Outcome, run_process
from runner.process.python import rank_command
from runner.process.room import RoomWatch

__all__ = ["NsysCollection", "NsysCollector", "local_folders"]


@frozen
class NsysCollection:
    """One plan under one nsys."""

    tool: NsysTool
    options: ResolvedOptions
    extra: tuple[str, ...] = ()
    """The user's ``--nsys-arg``."""
    ranks: int = 1
    """Processes that share the model: each gets an nsys of its own."""
    prefix: tuple[str, ...] = ()
    """Starts nsys where it sees no other processes; empty where that is not possible."""

    def warnings(self, facts: DriverFacts) -> tuple[str, ...]:
        """What of the preset this nsys does not know, and whether it is too old for the driver."""
        mismatch = driver_mismatch(self.tool, facts)
        return self.options.warnings if mismatch is None else (*self.options.warnings, str(mismatch))

    def command(self, job: Job) -> list[str]:
        """``unshare … nsys profile … child``; with ranks, torchrun between the two."""
        argv = profile_argv(
            self.tool,
            self.options.options,
            output=output_name(job.run_dir, "trace" if self.ranks == 1 else "rank%q{RANK}"),
            session=f"dsocr-{job.run_id[:8]}" if self.ranks == 1 else None,
            target=(*umask_prefix(PRIVATE, str(Path.cwd())), *job.target),
            extra=self.extra,
        )
        return [*self.prefix, *rank_command(self.ranks, argv)]

    def export_command(self, run_dir: Path) -> list[str]:
        """``nsys export …``."""
        name = trace_names(self.ranks)[0]
        return export_argv(
            self.tool, str(run_dir / f"{name}.nsys-rep"), str(run_dir / f"{name}.sqlite"), blobs=self.ranks > 1
        )

    def collect(self, job: Job, interrupts: Interrupts) -> Collected:
        """Run it. nsys' exit status is the child's where the child ran; whether nsys did its part shows in its files."""
        outcome, room = self._run(job, interrupts)
        failed_first = None
        if not self._left(job) and (first := set_failed_start_aside(outcome, job.log, room)) is not None:
            failed_first = (
                f"nsys {self.tool.version} failed before it started the program, so it was started once more; its first "
                f"output: {first.name}"
            )
            outcome, room = self._run(job, interrupts)
        usable = self._left(job)
        finished = job.result_file.is_file()
        # nsys writes its report readable for all.
        for file in (*job.run_dir.glob("trace.*"), *job.run_dir.glob("rank*.*"), job.result_file):
            if file.is_file():
                file.chmod(0o600)
        fault = fault_of_nsys(self.tool, outcome, job.log, room)
        child: int | None
        if finished:
            child = 0
        elif outcome.lost_supervisor or (fault is not None and not usable):
            child = None  # what came of it is not known
        elif outcome.target_seen or usable:  # a short one may end between two looks; without one there is no report
            child = outcome.returncode or 1  # it wrote no result, so it did not succeed, whatever nsys says
        else:
            child = None
        nsys = 0 if usable and (child or outcome.returncode == 0) else outcome.returncode
        if fault is not None and not usable:
            nsys = nsys or 1
        return Collected(outcome=outcome, child=child, tool=nsys, usable=usable, fault=fault, failed_first=failed_first)

    def _run(self, job: Job, interrupts: Interrupts) -> tuple[Outcome, RoomWatch]:
        room = room_for_nsys(job.run_dir, job.env, job.watch)
        outcome = run_process(
            self.command(job),
            env=job.env,
            log=job.log,
            cwd=SAFE_FOLDER,
            interrupts=interrupts,
            target=job.target,
            deadline=job.deadline,
            grace_s=job.grace_s,
            finish_s=job.finish_s,
            umask=PRIVATE,
            watch=room.look,
        )
        return outcome, room

    def _left(self, job: Job) -> bool:
        """Whether it left something that can be exported."""
        return any(
            file.is_file() and file.stat().st_size > 0
            for name in trace_names(self.ranks)
            for file in (job.run_dir / f"{name}.nsys-rep", job.run_dir / f"{name}.qdstrm")
        )

    def finish(self, job: Job, log: Path, interrupts: Interrupts) -> ExportResult:
        """Import what is left to import, export, check, scrub."""
        results = []
        for name in trace_names(self.ranks):
            report = finish_import(self.tool, job.run_dir, env=job.env, log=log, interrupts=interrupts, stem=name)
            results.append(
                export_report(
                    self.tool,
                    report,
                    job.run_dir / f"{name}.sqlite",
                    env=job.env,
                    log=log,
                    interrupts=interrupts,
                    own_marks=(job.run_id,),
                    secrets=own_secrets(),
                    blobs=self.ranks > 1,
                )
            )
        return _together(results)


def _together(results: list[ExportResult]) -> ExportResult:
    """The exports of all ranks as one."""
    rows: dict[str, int] = {}
    for result in results:
        for table, count in result.rows.items():
            rows[table] = rows.get(table, 0) + count
    names = sorted({name for result in results for name in result.secret_names})
    return ExportResult(
        returncode=next((result.returncode for result in results if result.returncode), 0),
        rows=rows,
        blocks=sum(result.blocks for result in results),
        foreign_blocks=sum(result.foreign_blocks for result in results),
        secret_names=tuple(names),
        secret_texts=sum(result.secret_texts for result in results),
    )


@frozen
class _NoNsys:
    """A finished capture of which only the analysis is repeated: for that no nsys is needed."""

    def warnings(self, facts: DriverFacts) -> tuple[str, ...]:
        return ()

    def command(self, job: Job) -> list[str]:
        raise CaptureError("nsys is needed to record, and none was looked for")

    def export_command(self, run_dir: Path) -> list[str]:
        raise CaptureError("nsys is needed to export, and none was looked for")

    def collect(self, job: Job, interrupts: Interrupts) -> Collected:
        raise CaptureError("nsys is needed to record, and none was looked for")

    def finish(self, job: Job, log: Path, interrupts: Interrupts) -> ExportResult:
        raise CaptureError("nsys is needed to export, and none was looked for")


@frozen
class NsysCollector(Collector):
    """Nsight Systems."""

    name: ClassVar[CollectorName] = "nsys"
    summary: ClassVar[str] = "Nsight Systems"
    needs_private_tmp: ClassVar[bool] = True
    joins_counters: ClassVar[bool] = True
    sees_graph_nodes: ClassVar[bool] = True
    uses_preset_options: ClassVar[bool] = True
    accepts_tool_arguments: ClassVar[bool] = True
    exports: ClassVar[bool] = True

    nsys: NsysTool | None = None

    @property
    def tool(self) -> NsysTool | None:
        """The nsys; None: none was looked for, since nothing is left to record or export."""
        return self.nsys

    def with_tool(self, named: str | None, environ: Mapping[str, str], *, to_record: bool) -> Self:
        """Find the nsys to use: ``--nsys``, else ``$NSYS``, else the newest usable one.

        Raises:
            CaptureError: there is no usable one, or it would lose every range that the installed nvtx records. (Import
                and export do not depend on nvtx.)
        """
        tool = find_nsys(named, environ, folders=local_folders())
        mismatch = nvtx_mismatch(tool, installed_version("nvtx")) if to_record else None
        if mismatch is not None:
            raise CaptureError(f"{tool.path}: {mismatch}")
        return evolve(self, nsys=tool)

    def _collection(self, plan: RunPlan, environ: Mapping[str, str]) -> NsysCollection | _NoNsys:
        if self.nsys is None:
            return _NoNsys()
        output_name(Path(plan.run_dir), "trace")  # one that it cannot write to is refused before anything runs
        return NsysCollection(
            tool=self.nsys,
            options=resolve_options(
                load_preset(plan.settings.preset),
                self.nsys,
                device=plan.request.device,
                decode_mode=plan.settings.decode_mode,
            ),
            extra=plan.settings.nsys_args,
            ranks=plan.settings.tensor_parallel,
            prefix=namespace_prefix(environ),
        )

    def recording(self, plan: RunPlan) -> Recording:
        """Ranges as NVTX, between cudaProfilerStart and cudaProfilerStop."""
        from runner.collectors.nvidia.recording import CudaProfilerRecording  # brings torch

        return CudaProfilerRecording()


def local_folders() -> list[Path]:
    """Where ``make nsys`` may have put a copy: here, beside the sources, beside the virtual environment."""
    return list(dict.fromkeys([Path.cwd(), Path(__file__).resolve().parents[3], Path(sys.prefix).parent]))
