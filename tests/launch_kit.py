"""What tests of the launcher share: a run with a scripted child, under a fake or the real nsys."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import evolve

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.entities import InputImage, InputSet, ModelUnderTest
from runner.collectors.ncu.tool import NcuTool
from runner.collectors.ncu.tool import probe as probe_ncu
from runner.collectors.nsys.collector import NsysCollector, local_folders
from runner.collectors.nsys.tool import NsysTool, find_nsys, probe
from runner.collectors.torch_profiler.collector import TorchCollector
from runner.launcher.provenance import first_manifest
from runner.launcher.run import Run
from runner.launcher.run_directory import RunDirectory
from runner.plan.plan import RunPlan
from runner.plan.settings import Settings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
H100 = "NVIDIA H100 80GB HBM3"


def environment(**more: str) -> dict[str, str]:
    """The test's own environment, with the sources and these helpers on the path of children."""
    paths = [str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path), **more}


def fake_nsys(folder: Path, *, importer: str | None = "#!/bin/sh\nexit 0\n") -> NsysTool:
    """Install the fake nsys as target-linux-x64/nsys, with an importer beside it if wanted."""
    target = folder / "target-linux-x64"
    target.mkdir(parents=True, exist_ok=True)
    program = target / "nsys"
    program.write_text((HERE / "fake_nsys.py").read_text().replace("/usr/bin/env python3", sys.executable, 1))
    program.chmod(0o755)
    if importer is not None:
        host = folder / "host-linux-x64"
        host.mkdir(exist_ok=True)
        (host / "QdstrmImporter").write_text(importer)
        (host / "QdstrmImporter").chmod(0o755)
    return probe(program, os.environ)


def fake_ncu(folder: Path) -> NcuTool:
    """Install the fake ncu as a program of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "ncu"
    program.write_text((HERE / "fake_ncu.py").read_text().replace("/usr/bin/env python3", sys.executable, 1))
    program.chmod(0o755)
    return probe_ncu(program, os.environ)


def finished_run(out: Path, trace: Path, **changes: Any) -> RunDirectory:
    """The folder of a run that nsys recorded on an H100."""
    run_id = "11111111-2222-3333-4444-555555555555"
    directory = RunDirectory(out / run_id)
    request = LLMProfileRequest("deepseek-ocr", "/pages", device=changes.pop("device", "cuda:0"), max_new_tokens=64)
    plan = RunPlan(
        run_id,
        request,
        str(directory.path),
        changes.pop("collector", "nsys"),
        settings=Settings(grace_s=1.0, keep_env=("NCU_FAKE",), seed=7),
    )
    directory.create()
    directory.write(directory.plan_file, plan)
    manifest = first_manifest(plan, status="complete")
    subject = ModelUnderTest("deepseek-ocr", "deepseek-ocr", "bf16", "cuda:0", True, parameters=3_335_504_128)
    manifest = evolve(
        manifest, model=subject, meta=evolve(manifest.meta, gpu_name=H100, compute_capability="9.0"), **changes
    )
    directory.write(directory.manifest_file, manifest)
    directory.trace_file.symlink_to(trace)
    return directory


def real_nsys() -> NsysTool | None:
    """An nsys of this machine that can import, or None."""
    from analysis.domain.errors import CaptureError

    try:
        return find_nsys(None, os.environ, folders=local_folders())
    except CaptureError:
        return None


def wrapper_without_importer(tool: NsysTool, folder: Path) -> Path:
    """A folder with the real nsys' target half only."""
    target = Path(tool.path).resolve().parent
    shutil.copytree(target, folder / target.name, symlinks=True)
    return folder / target.name / "nsys"


def scripted(directory: RunDirectory, role: str) -> list[str]:
    """Command line of the scripted child."""
    argv = [sys.executable, str(HERE / "scripted_child.py"), str(directory.plan_file), "--role", role]
    return [*argv, "--manifest", str(directory.manifest_file)] if role == "capture" else argv


def analysed(directory: RunDirectory) -> list[str]:
    """An analysis that only leaves a file."""
    return [sys.executable, "-c", f"open({str(directory.path / 'report.md')!r}, 'w').write('report')"]


def prepare(
    out: Path,
    tool: NsysTool | None,
    behaviour: str = "well",
    *,
    environ: Mapping[str, str] | None = None,
    said: list[str] | None = None,
    analysis: Callable[[RunDirectory], list[str]] = analysed,
    command: Callable[[RunDirectory, str], list[str]] = scripted,
    **settings: Any,
) -> Run:
    """Make a run's folder and the run, as the command line would."""
    environ = environment() if environ is None else environ
    run_id = str(uuid.uuid4())
    request = LLMProfileRequest("deepseek-ocr-tiny", "/pages", repeats=1, device="cpu", max_new_tokens=2)
    directory = RunDirectory(out / run_id)
    plan = RunPlan(
        run_id,
        request,
        str(directory.path),
        "torch" if tool is None else "nsys",
        settings=Settings(**{"grace_s": 1.0, **settings}),
    )
    collector = TorchCollector() if tool is None else NsysCollector(tool)
    collection = collector.for_plan(plan, environ)
    pages = InputSet("pages", "/pages", 1, (InputImage("/pages/a.png", 10, 10),))
    directory.create()
    directory.write(directory.plan_file, plan)
    directory.write(directory.manifest_file, first_manifest(plan, status="running", nsys=tool, input_set=pages))
    (directory.path / "behaviour").write_text(behaviour)
    lines = [] if said is None else said
    return Run(directory, plan, collector, collection, environ, lines.append, command=command, analysis=analysis)


def signal_when(file: Path, number: int = signal.SIGINT, times: int = 1) -> threading.Thread:
    """Signal this process once ``file`` is there."""

    def wait_and_signal() -> None:
        while not file.exists():
            time.sleep(0.02)
        for _ in range(times):
            if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                return  # what was to be interrupted has ended: it would be the tests
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    thread = threading.Thread(target=wait_and_signal, daemon=True)
    thread.start()
    return thread


_LAUNCHER = """
import sys
from pathlib import Path
from launch_kit import environment
from runner.collectors.choosing import planned_collector
from runner.launcher.run import Run
from runner.launcher.run_directory import RunDirectory
from runner.process.process import Interrupts
from launch_kit import analysed, scripted
from attrs import evolve
directory = RunDirectory(Path(sys.argv[1]))
plan = directory.read_plan()
choice = planned_collector(plan.collector, sys.argv[2] or None, environment(), needs_tool=True)
with Interrupts() as interrupts, directory.locked():
    run = evolve(Run.open(directory, choice, environment(), print), command=scripted, analysis=analysed)
    run.start(interrupts)
"""


def start_launcher(run: Run) -> subprocess.Popen[str]:
    """The launcher of a prepared run as a process of its own, which can be killed."""
    tool = "" if run.collector.tool is None else run.collector.tool.path
    return subprocess.Popen(
        [sys.executable, "-c", _LAUNCHER, str(run.directory.path), tool],
        env=dict(run.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


_HOLDER = """
import os, sys, time
from runner.launcher.device_lock import DeviceLock
with DeviceLock(sys.argv[1], (), os.environ).held(wait=False):
    print("held", flush=True)
    time.sleep(300)
"""


def hold_device(device: str, environ: dict[str, str]) -> subprocess.Popen[str]:
    """Another process that holds a device until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", _HOLDER, device], env=environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@contextmanager
def device_held(device: str, environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Another process holds a device in the body."""
    holder = hold_device(device, environ)
    try:
        yield holder
    finally:
        holder.kill()
        holder.wait()
