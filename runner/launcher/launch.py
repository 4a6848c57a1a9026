"""What ``run``, ``submit`` and ``resume`` have in common: make a run's folder, hold run and device, carry it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import evolve

from analysis.domain.errors import DsocrError
from analysis.domain.manifest import RunManifest
from runner.collectors.choosing import Choice, planned_collector
from runner.launcher.provenance import first_manifest, now
from runner.launcher.queue import DeviceLock
from runner.launcher.run import Run
from runner.launcher.run_directory import RunDirectory
from runner.plan.plan import RunPlan
from runner.process.driver import DriverFacts
from runner.process.process import Interrupts

__all__ = ["carry_out", "choose_again", "prepare"]


def prepare(
    plan: RunPlan,
    choice: Choice,
    facts: DriverFacts,
    environ: Mapping[str, str],
    say: Callable[[str], None],
) -> RunDirectory:
    """Make the run's folder with plan.json and run.json (status queued; warnings as its notes) in it.

    Raises:
        InputImagesError: the images are not what they must be.
        RequestError: options do not fit, or the folder cannot be made.
        CaptureError: this nsys lacks what the preset insists on, or the disk is full.
    """
    from runner.inputs.inputs import discover  # brings Pillow and numpy, which `--help` and `status` do not need

    input_set = discover(Path(plan.request.input_dir))
    directory = RunDirectory(Path(plan.run_dir))
    collection = choice.collector.for_plan(plan, environ)
    commands = Run(directory, plan, choice.collector, collection, environ, say).commands()
    manifest = first_manifest(
        plan,
        environ,
        status="queued",
        argv=tuple(commands["capture"]),
        nsys=choice.tool,
        input_set=input_set,
        facts=facts,
        notes=collection.warnings(facts),
    )
    directory.create()
    directory.write(directory.plan_file, plan)
    directory.write(directory.manifest_file, manifest)
    return directory


def carry_out(
    directory: RunDirectory, choice: Choice, environ: Mapping[str, str], say: Callable[[str], None], *, wait: bool
) -> RunManifest:
    """Hold run and device, and do the run.

    Raises:
        BusyError: another run holds the device and ``wait`` is false, or another process works on this run.
        DsocrError: as `Run.start`.
    """
    with Interrupts() as interrupts, directory.locked():
        plan = directory.read_plan()
        try:
            with DeviceLock(plan.request.device, environ).held(wait=wait, interrupts=interrupts, waiting=say):
                directory.write(directory.manifest_file, evolve(directory.read_manifest(), status="running"))
                directory.link_latest()
                return Run.open(directory, choice, environ, say).start(interrupts)
        except DsocrError as error:
            left = directory.read_manifest()
            if left.status in ("queued", "running"):
                cancelled = directory.cancel_file.exists()
                ended = evolve(left, status="cancelled" if cancelled else "failed", error=str(error), finished_at=now())
                directory.write(directory.manifest_file, ended)
            raise


def choose_again(plan: RunPlan, nsys: str | None, environ: Mapping[str, str], *, needed: bool) -> Choice:
    """Find the collector of a plan again; its program is only looked for where one is needed.

    Raises:
        CaptureError: it is needed, and there is no usable one.
    """
    return planned_collector(plan.collector, nsys or plan.settings.nsys, environ, needs_tool=needed)
