"""Where and with what a run is made: versions, git commit, and the manifest as it stands before the start."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from analysis.domain.entities import InputSet, RunMeta
from analysis.domain.manifest import RunManifest, RunStatus
from runner.collectors.choosing import COLLECTORS
from runner.collectors.interface.collector import Tool
from runner.launcher.request import LaunchOptions
from runner.plan.plan import RunPlan
from runner.process.driver import DriverFacts, driver_facts, installed_version
from runner.process.environment import redact

__all__ = ["first_manifest", "now"]

_PACKAGE = "dsocr-profiler"


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def first_manifest(
    plan: RunPlan,
    launch: LaunchOptions,
    environ: Mapping[str, str],
    *,
    status: RunStatus,
    argv: tuple[str, ...] = (),
    nsys: Tool | None = None,
    input_set: InputSet | None = None,
    facts: DriverFacts | None = None,
    notes: tuple[str, ...] = (),
) -> RunManifest:
    """Write down all that is known of a run before it starts.

    Args:
        plan: the resolved plan.
        launch: how it is launched.
        environ: to ask the driver with.
        status: queued or running.
        argv: the profiled command; secrets are redacted here.
        nsys: the nsys that will be used, if any.
        input_set: the images, if they were looked at.
        facts: what the driver says; None: ask it.
        notes: in words, for the report.
    """
    facts = facts or driver_facts(environ)
    root, commit = _checkout()
    cuda = None if facts.cuda is None else f"{facts.cuda[0]}.{facts.cuda[1]}"
    versions = {
        "python": platform.python_version(),
        _PACKAGE: installed_version(_PACKAGE),
        "torch": installed_version("torch"),
        "transformers": installed_version("transformers"),
        "nvtx": installed_version("nvtx"),
        "nsys": None if nsys is None else nsys.version,
        "driver": facts.driver,
        "driver_cuda": cuda,
    }
    return RunManifest(
        run_id=plan.run_id,
        status=status,
        request=plan.request,
        collector=plan.collector,
        meta=RunMeta(
            run_id=plan.run_id,
            created_at=datetime.now(UTC),
            repeats=plan.request.repeats,
            repo_root=root,
            torch_version=versions["torch"],
            transformers_version=versions["transformers"],
            cuda_version=cuda,
            nsys_version=versions["nsys"],
            driver_version=facts.driver,
            package_version=versions[_PACKAGE],
            git_commit=commit,
        ),
        input_set=input_set,
        batch_size=plan.batch_size,
        capture_passes=plan.capture_passes,
        decode_mode=plan.decode_mode,
        annotation_level=plan.annotation_level,
        preset=plan.preset if COLLECTORS[plan.collector].uses_preset_options else None,
        options={
            "input_mode": plan.input_mode,
            "dtype": plan.dtype,
            "seed": plan.seed,
            "warmup_passes": plan.warmup_passes,
            "attn_implementation": plan.attn_implementation,
            "experts_implementation": plan.experts_implementation,
            "ignore_eos": plan.ignore_eos,
            "trust_remote_code": plan.trust_remote_code,
            "measure_peak": plan.measure_peak,
            "prompt": plan.prompt,
            "timeout_s": launch.timeout_s,
            "keep_env": ",".join(launch.keep_env) or None,
            "nsys_args": " ".join(redact(launch.nsys_args)) or None,
        },
        argv=redact(argv),
        versions={name: version for name, version in versions.items() if version is not None},
        notes=notes,
    )


def _checkout() -> tuple[str | None, str | None]:
    """Root and commit of the git checkout that this package runs from; None for an installed one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        return None, None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is not None and _git(root, "status", "--porcelain", "--untracked-files=no"):
        commit += "+changes"
    return str(root), commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
