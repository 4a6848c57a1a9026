"""From a plan to a finished run: make its folder, hold run and device, carry it out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from attrs import evolve

from analysis.domain.contracts import AcceptedStatus
from analysis.domain.errors import DsocrError, InterruptedRunError, RequestError
from analysis.domain.manifest import RunManifest
from runner.collectors.choosing import Choice
from runner.launcher.device_lock import DeviceLock
from runner.launcher.outside import status_of
from runner.launcher.progress import RunProgress
from runner.launcher.provenance import first_manifest, now
from runner.launcher.run import Run
from runner.launcher.run_directory import RunDirectory, require_safe_place
from runner.plan.plan import RunPlan
from runner.process.driver import DriverFacts, driver_facts
from runner.process.environment import child_environment, left_out_note
from runner.process.process import Interrupts
from runner.process.room import little_room_warning

__all__ = ["carry_out", "prepare"]


def devices_of(plan: RunPlan) -> tuple[str, ...]:
    """The devices of a run: the request's, or with several ranks the first ones."""
    ranks = plan.settings.tensor_parallel
    if ranks == 1 or plan.request.device == "cpu":
        return (plan.request.device,)
    return tuple(f"cuda:{rank}" for rank in range(ranks))


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

    wanted = len(devices_of(plan))
    if wanted > 1 and wanted > len(facts.gpus):
        raise RequestError(f"--tensor-parallel {wanted}: {len(facts.gpus)} GPUs are visible here")
    input_set = plan.input_set or discover(Path(plan.request.input_dir))
    directory = RunDirectory(Path(plan.run_dir))
    require_safe_place(directory.path.parent, say)
    little_room = little_room_warning(directory.path)
    if little_room is not None:
        say(f"warning: {little_room}")
    collection = choice.collector.for_plan(plan, environ)
    commands = Run(directory, plan, choice.collector, collection, environ, say).commands()
    passed = child_environment(environ, keep=plan.settings.keep_env)
    manifest = first_manifest(
        plan,
        status="queued",
        argv=tuple(commands["capture"]),
        nsys=choice.tool,
        input_set=input_set,
        facts=facts,
        notes=(*collection.warnings(facts), *left_out_note(environ, passed)),
    )
    directory.create()
    directory.write(directory.plan_file, plan)
    directory.write(directory.manifest_file, manifest)
    return directory


def carry_out(
    directory: RunDirectory,
    choice: Choice,
    environ: Mapping[str, str],
    say: Callable[[str], None],
    *,
    wait: bool,
    answer: Callable[[AcceptedStatus], None] = lambda status: None,
    began: float | None = None,
    pages_s: float = 0.0,
) -> RunManifest:
    """Hold run and device, and do the run.

    Args:
        directory: of the prepared run.
        choice: its collector.
        environ: the launcher's environment.
        say: takes one line for the user.
        wait: wait for the device while another run holds it.
        answer: told ``queued`` if it has to wait, and ``running`` once it holds the device.
        began: when the command began, on ``time.monotonic()``'s clock; None: now.
        pages_s: seconds since then that drawing, rendering and checking the pages took.

    Raises:
        BusyError: another run holds the device and ``wait`` is false, or another process works on this run.
        DsocrError: as `Run.start`.
    """

    def waiting(line: str) -> None:
        say(line)
        answer("queued")

    with Interrupts() as interrupts, directory.locked():
        interrupts.listen(directory.cancel_file.exists)
        plan = directory.read_plan()
        if plan.settings.timeout_s is not None:
            interrupts.deadline = (time.monotonic() if began is None else began) + plan.settings.timeout_s
        try:
            gpus = driver_facts().gpus if plan.request.device != "cpu" else ()
            asked_at = directory.read_manifest().meta.created_at.timestamp()
            with ExitStack() as held:
                for device in devices_of(plan):
                    lock = DeviceLock(device, gpus, environ)
                    held.enter_context(lock.held(wait=wait, interrupts=interrupts, waiting=waiting, asked_at=asked_at))
                if directory.cancel_file.exists():
                    raise InterruptedRunError("cancelled before it began")
                directory.write(directory.manifest_file, evolve(directory.read_manifest(), status="running"))
                answer("running")
                expected = _seconds_of_last(directory, plan)
                if (why := directory.link_latest()) is not None:
                    say(f"warning: {why}")
                ready = time.monotonic()
                with RunProgress(say, began=began, expected=expected) as progress:
                    if began is not None:
                        progress.add("launcher", "preflight", began, ready - pages_s)
                        progress.add("launcher", "pages", ready - pages_s, ready)
                    return Run.open(directory, choice, environ, say, progress).start(interrupts)
        except DsocrError as error:
            if not directory.manifest_file.is_file():  # removed in mid-run, which the error says
                raise
            left = directory.read_manifest()
            if left.status in ("queued", "running"):
                status = status_of(error, directory)
                changes: dict[str, Any] = {"status": status, "error": str(error), "finished_at": now()}
                if directory.cancel_file.exists():
                    changes["status"] = "cancelled"
                    if left.status == "queued":
                        changes["error"] = "cancelled before it began"
                with suppress(DsocrError):  # where nothing can be written any more, what happened first is what is told
                    directory.write(directory.manifest_file, evolve(left, **changes))
            raise


def _seconds_of_last(directory: RunDirectory, plan: RunPlan) -> dict[tuple[str, str], float]:
    """How long the phases of the latest run beside this one took, if it was asked the same; empty: not known."""
    try:
        last = RunDirectory(directory.path.parent / "latest").read_manifest()
    except DsocrError:
        return {}
    alike = last.status == "complete" and last.request == plan.request and last.collector == plan.collector
    if not alike:
        return {}
    # What the captured program does beside the control run takes no time of its own.
    beside = {("capture", "start"), ("capture", "waiting")}
    seconds = {(phase.program, phase.step): phase.seconds for phase in last.phases}
    return {key: taken for key, taken in seconds.items() if key not in beside}
