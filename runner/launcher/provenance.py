"""Where and with what a run is made: versions, git commit, and the manifest as it stands before the start."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from attrs import fields

from analysis.domain.entities import InputSet, RunMeta
from analysis.domain.manifest import RunManifest, RunStatus
from analysis.domain.programs import find_program
from analysis.domain.redaction import redacted
from runner.collectors.choosing import COLLECTORS
from runner.collectors.interface.collector import Tool
from runner.plan.options import options_of
from runner.plan.plan import RunPlan
from runner.process.driver import DriverFacts, driver_facts, installed_version
from runner.process.environment import redact

__all__ = ["as_recorded", "commit_of", "first_manifest", "now"]

_PACKAGE = "dsocr-profiler"

_MANIFEST_FIELDS: Final = frozenset(attribute.name for attribute in fields(RunManifest))
_RESOLVED: Final = frozenset({"annotation_level", "collector"})
"""Settings that the plan resolves: the manifest says what was chosen."""


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def first_manifest(
    plan: RunPlan,
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
        status: queued or running.
        argv: the profiled command; secrets are redacted here.
        nsys: the nsys that will be used, if any.
        input_set: the images, if they were looked at.
        facts: what the driver says; None: ask it.
        notes: in words, for the report.
    """
    facts = facts or driver_facts()
    fields_of_their_own, options = as_recorded(plan.settings)
    if not COLLECTORS[plan.collector].uses_preset_options:
        fields_of_their_own["preset"] = None
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
        annotation_level=plan.annotation_level,
        **fields_of_their_own,
        options=options,
        argv=redact(argv),
        versions={name: version for name, version in versions.items() if version is not None},
        notes=notes,
    )


def as_recorded(settings: Any) -> tuple[dict[str, Any], dict[str, bool | int | float | str | None]]:
    """Turn settings into what ``run.json`` keeps of them.

    Args:
        settings: `Settings`, or a record made like it.

    Returns:
        Those that the manifest has a field for, by its name; and the others, for ``options``: several texts become one,
        quoted for a shell, secrets redacted.
    """
    own: dict[str, Any] = {}
    others: dict[str, bool | int | float | str | None] = {}
    for name in (option.name for option in options_of(type(settings)) if option.name not in _RESOLVED):
        value = getattr(settings, name)
        if name in _MANIFEST_FIELDS:
            own[name] = value
        else:
            others[name] = (
                (shlex.join(redact(value)) or None)
                if isinstance(value, tuple)
                else redacted(value)
                if isinstance(value, str)
                else value
            )
    return own, others


def _checkout() -> tuple[str | None, str | None]:
    """Root and commit of the git checkout that this package runs from; None for an installed one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        return None, None
    return str(root), commit_of(root)


def commit_of(folder: Path) -> str | None:
    """Commit of the git checkout that a folder lies in, None: it is in none.

    Behind it ``+changes`` where tracked files differ, ``+unknown`` where git did not say whether they do.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty")
    return f"{commit}+unknown" if changes is None else f"{commit}+changes" if changes else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; it starts nothing that a checkout's own configuration names: no monitor, no hook, no filter of files."""
    program = find_program("git", os.environ)
    if program is None:
        return None
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    if arguments[0] == "status":
        configured = _git(
            folder, "config", "--name-only", "--get-regexp", r"^filter\..*\.(clean|smudge|process|required)$"
        )
        # --config-env, which takes names with = in them too, is of git 2.31; an older one then says nothing.
        off = [
            word
            for name in (configured or "").splitlines()
            for word in ((f"--config-env={name}=DSOCR_NOTHING",) if "=" in name else ("-c", f"{name}="))
        ]
        environ["DSOCR_NOTHING"] = ""
    else:
        off = []
    quiet = ["--no-optional-locks", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", *off]
    try:
        done = subprocess.run(
            [program, *quiet, "-C", str(folder), *arguments],
            env=environ,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
