"""``dsocr-profile doctor``: can a trace be made here, and if not, what is to be done."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from analysis.domain.errors import CaptureError, DsocrError, InterruptedRunError
from analysis.domain.manifest import Collector
from analysis.domain.system_errors import is_disk_full
from runner.collectors.choosing import Choice, choose_collector
from runner.collectors.nsys.collector import local_folders
from runner.collectors.nsys.fitness import driver_mismatch, nvtx_mismatch
from runner.collectors.nsys.presets import load_preset
from runner.collectors.nsys.probe import ProbeResult, functional_probe
from runner.collectors.nsys.tool import NsysTool, find_nsys, usable_tools
from runner.launcher.check import Check
from runner.launcher.doctor_ncu import ncu_checks
from runner.process.driver import DriverFacts, default_device, driver_facts, installed_version, torch_cuda_version
from runner.process.isolation import namespace_prefix
from runner.process.leftovers import end_leftovers

__all__ = ["Check", "Diagnosis", "diagnose"]

_EXPECTED_BYTES: Final = 2 << 30
"""A run with the preset os-runtime made an export of 2 GB; others stay far below."""
_LEAST_TEMPORARY_BYTES: Final = 64 << 20
_PROBE_BYTES: Final = 1 << 20
"""What is written to see whether anything can be."""


@frozen
class Diagnosis:
    """All checks. ``usable``: the collector that ``run`` would take by itself works here."""

    usable: bool
    collector: Collector | None
    """What ``--collector auto`` takes here, by the rule of a run; None: a run could take neither."""
    checks: tuple[Check, ...]


def diagnose(
    environ: Mapping[str, str], out: Path, *, nsys: str | None = None, say: Callable[[str], None] = lambda line: None
) -> Diagnosis:
    """Look at everything that a run needs.

    Args:
        environ: as a run would see it.
        out: where runs would be written.
        nsys: as ``--nsys``.
        say: told what is being done before it takes long.
    """
    end_leftovers(say=say)  # a probe beside what is left of another would not say what this machine can do
    facts = driver_facts()
    checks: list[Check] = [_python(), *_libraries()]
    torch_works = all(check.verdict != "failed" for check in checks)
    checks.append(_gpu(facts))
    tool, nsys_checks = _nsys(nsys, environ)
    checks += nsys_checks
    nsys_works = False
    if tool is not None:
        checks += [_importer(tool), _driver_fits(tool, facts), _nvtx_fits(tool)]
        if tool.fault is None:
            say("probing: a short program under nsys")
            probe_check = _functional(tool, environ, on_gpu=bool(facts.gpus))
            checks.append(probe_check)
            nsys_works = probe_check.verdict == "ok"
        else:
            checks.append(Check("functional probe", "skipped", "the importer cannot run"))
    checks += ncu_checks(environ, facts, say)
    checks += [
        _private_processes(environ),
        _gpu_metrics(facts),
        _cpu_sampling(),
        _disk(out),
        _temporary(environ),
        _locking(out),
    ]
    places_work = all(check.verdict != "failed" for check in checks[-3:])
    choice = _choice(default_device(facts)[0], nsys, environ) if torch_works and places_work else None
    # A run does not try its program before it takes it, and one that is named must work even where it is not taken.
    needs_nsys = nsys is not None or (choice is not None and choice.tool is not None)
    usable = choice is not None and (nsys_works or not needs_nsys)
    return Diagnosis(usable, None if choice is None else choice.name, tuple(checks))


def _choice(device: str, nsys: str | None, environ: Mapping[str, str]) -> Choice | None:
    """What ``run`` chooses by itself; None where it refuses the nsys that was named."""
    try:
        return choose_collector("auto", device, load_preset("default"), nsys, environ)
    except CaptureError:
        return None


def _python() -> Check:
    version = platform.python_version()
    return Check("python", "ok", version)


def _libraries() -> list[Check]:
    checks = []
    for package in ("torch", "transformers", "nvtx"):
        version = installed_version(package)
        if version is None:
            checks.append(Check(package, "failed", "not installed", "pip install 'dsocr-profiler[runner]'"))
            continue
        built_for = f", built for CUDA {torch_cuda_version() or 'none (CPU only)'}" if package == "torch" else ""
        checks.append(Check(package, "ok", version + built_for))
    return checks


def _gpu(facts: DriverFacts) -> Check:
    if facts.cuda is None:
        return Check(
            "GPU", "warning", "no NVIDIA driver", "on a machine without a GPU runs use the CPU and torch.profiler"
        )
    speaks = f"driver {facts.driver or 'of unknown version'}, CUDA {facts.cuda[0]}.{facts.cuda[1]}"
    if not facts.gpus:
        return Check(
            "GPU", "warning", f"{speaks}, but no device is visible", "look at CUDA_VISIBLE_DEVICES and nvidia-smi"
        )
    if torch_cuda_version() is None:
        return Check("GPU", "warning", f"{speaks}; torch is built without CUDA", "install a CUDA build of torch")
    return Check("GPU", "ok", f"{len(facts.gpus)} × {facts.gpus[0].name}, {speaks}")


def _nsys(named: str | None, environ: Mapping[str, str]) -> tuple[NsysTool | None, list[Check]]:
    try:
        tool = find_nsys(named, environ, folders=local_folders(), need_import=False)
    except DsocrError as error:
        return None, [
            Check("nsys", "warning", str(error), "install Nsight Systems, or `make nsys` on Debian and Ubuntu")
        ]
    others, reasons = ([], []) if named else usable_tools(environ, folders=local_folders())
    rest = [f"{other.path} ({other.version})" for other in others if other.path != tool.path] + reasons
    also = f"; also {'; '.join(rest)}" if rest else ""
    return tool, [Check("nsys", "ok", f"{tool.path}, version {tool.version}{also}")]


def _importer(tool: NsysTool) -> Check:
    if tool.fault is None:
        return Check("nsys importer", "ok", f"{tool.importer}, all its libraries are found")
    if tool.missing:
        remedy = f"install what holds {', '.join(tool.missing)}, or put its folder into LD_LIBRARY_PATH"
    else:
        remedy = "install the host part of Nsight Systems (Debian: package nsight-systems, or `make nsys`)"
    return Check("nsys importer", "failed", tool.fault, remedy)


def _driver_fits(tool: NsysTool, facts: DriverFacts) -> Check:
    name = "nsys and driver"
    if facts.cuda is None:
        return Check(name, "skipped", "no driver")
    if tool.cupti_cuda is None:
        return Check(name, "skipped", f"nsys {tool.version} does not show the CUDA that it was built for")
    if mismatch := driver_mismatch(tool, facts):
        return Check(name, "failed", mismatch.observed, mismatch.remedy)
    speaks, knows = (f"{major}.{minor}" for major, minor in (facts.cuda, tool.cupti_cuda))
    return Check(name, "ok", f"driver CUDA {speaks}, nsys knows CUDA up to {knows}")


def _nvtx_fits(tool: NsysTool) -> Check:
    name = "nsys and nvtx"
    version = installed_version("nvtx")
    if version is None:
        return Check(name, "skipped", "nvtx is not installed")
    if mismatch := nvtx_mismatch(tool, version):
        return Check(name, "failed", mismatch.observed, mismatch.remedy)
    return Check(name, "ok", f"nvtx {version} under nsys {tool.version}")


def _functional(tool: NsysTool, environ: Mapping[str, str], *, on_gpu: bool) -> Check:
    name = "functional probe"
    try:
        result: ProbeResult = functional_probe(tool, environ, with_kernel=on_gpu)
    except InterruptedRunError:
        raise
    except DsocrError as error:
        return Check(name, "failed", str(error), "see the failed checks above; `--nsys PATH` tries another nsys")
    if result.missing:
        return Check(
            name,
            "failed",
            f"a short program was profiled and exported, but {' and '.join(result.missing)} did not arrive",
            "use another nsys: this one does not fit the driver or the nvtx package; --collector torch needs none",
        )
    return Check(name, "ok", f"{', '.join(result.seen)} arrived in the export")


def _private_processes(environ: Mapping[str, str]) -> Check:
    prefix = namespace_prefix(environ)
    if prefix:
        return Check("private process view", "ok", " ".join(prefix))
    return Check(
        "private process view",
        "warning",
        "namespaces are not allowed here, so nsys may store the environments of your other processes in its report",
        "allow user namespaces (in a container: --cap-add SYS_ADMIN); without them its report is deleted after export",
    )


def _gpu_metrics(facts: DriverFacts) -> Check:
    name = "GPU metrics"
    if not facts.gpus:
        return Check(name, "skipped", "no GPU")
    parameters = Path("/proc/driver/nvidia/params")
    try:
        restricted = re.search(r"RmProfilingAdminOnly:\s*(\d)", parameters.read_text())
    except OSError:
        return Check(name, "warning", f"{parameters} cannot be read, so it is unknown whether counters may be read")
    if restricted is None or restricted[1] == "0" or os.geteuid() == 0:
        return Check(name, "ok", "counters may be read")
    return Check(
        name,
        "warning",
        "only administrators may read counters",
        "run as root, or load the driver with NVreg_RestrictProfilingToAdminUsers=0 (preset gpu-metrics needs it)",
    )


def _cpu_sampling() -> Check:
    name = "CPU sampling"
    file = Path("/proc/sys/kernel/perf_event_paranoid")
    try:
        level = int(file.read_text())
    except (OSError, ValueError):
        return Check(name, "warning", f"{file} cannot be read: no perf events here (preset os-runtime needs them)")
    if level <= 2 or os.geteuid() == 0:
        return Check(name, "ok", f"perf_event_paranoid is {level}")
    return Check(
        name,
        "warning",
        f"perf_event_paranoid is {level}",
        "sysctl kernel.perf_event_paranoid=2 (only the preset os-runtime needs it)",
    )


def _disk(out: Path) -> Check:
    name = "disk"
    place = _nearest(out)
    if not os.access(place, os.W_OK):
        return Check(name, "failed", f"{place} cannot be written", "choose another --out")
    free = shutil.disk_usage(place).free
    space = f"{free / 2**30:.1f} GiB free in {place}"
    if free < 64 << 20:
        return Check(name, "failed", space, "free at least 64 MiB")
    if free < _EXPECTED_BYTES:
        return Check(name, "warning", space, "large captures (preset os-runtime) may need 2 GiB and more")
    return Check(name, "ok", space)


def _temporary(environ: Mapping[str, str]) -> Check:
    folder = environ.get("TMPDIR") or tempfile.gettempdir()
    try:
        with tempfile.TemporaryDirectory(dir=folder) as probe:
            # Folder and name may still go where no content does: a full disk refuses only that.
            (Path(probe) / "probe").write_bytes(bytes(_PROBE_BYTES))
        free = shutil.disk_usage(folder).free
        if free < _LEAST_TEMPORARY_BYTES:
            space = f"{free / 2**20:.0f} MiB free in {folder}"
            return Check("temporary folder", "warning", space, "free space, or set TMPDIR: nsys collects there")
        return Check("temporary folder", "ok", folder)
    except OSError as error:
        if is_disk_full(error):
            return Check("temporary folder", "failed", f"{folder}: the disk is full", "free space, or set TMPDIR")
        return Check("temporary folder", "failed", f"{folder} cannot be written ({error.strerror})", "set TMPDIR")


def _locking(out: Path) -> Check:
    """SQLite and the device's queue lock files; some network file systems cannot."""
    name = "file locking"
    place = _nearest(out)
    try:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            file = Path(folder) / "locking.sqlite"
            first, second = (sqlite3.connect(file, timeout=0, isolation_level=None) for _ in range(2))
            try:
                first.execute("CREATE TABLE t (a)")
                first.execute("BEGIN EXCLUSIVE")
                try:
                    second.execute("BEGIN EXCLUSIVE")
                except sqlite3.OperationalError:
                    return Check(name, "ok", f"locks hold in {place}")
                return Check(name, "failed", f"{place} ignores locks", "choose a local file system for --out")
            finally:
                first.close()
                second.close()
    except (OSError, sqlite3.Error) as error:
        return Check(name, "failed", f"{place}: {error}", "choose a local file system for --out")


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    path = path.expanduser().absolute()
    while not path.is_dir():
        path = path.parent
    return path
