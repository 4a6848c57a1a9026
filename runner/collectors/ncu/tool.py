"""Nsight Compute: where it is, what it can do, which metrics it knows.

What an ncu can do is read from its own ``--help`` and ``--query-metrics``, never from a table of versions.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from analysis.domain.errors import CaptureError
from analysis.domain.programs import find_program, is_program, search_folders
from runner.process.environment import child_environment
from runner.process.questions import answer_of

__all__ = ["NcuTool", "candidate_paths", "find_ncu", "known_metrics", "ncu_environment", "probe", "usable_tools"]

USUAL_PLACES: Final = (
    "/usr/local/cuda*/bin/ncu",
    "/opt/nvidia/nsight-compute/*/ncu",
    "/usr/lib/nsight-compute/ncu",
    "/usr/local/NVIDIA-Nsight-Compute*/ncu",
)
LOCAL_COPY: Final = ".ncu/ncu"
"""Made by ``make ncu``."""

_TIMEOUT_S: Final = 120.0
_VERSION = re.compile(r"Version\s+(\d+(?:\.\d+)+)")
_OPTION = re.compile(r"^\s+(?:-\w \[ )?--([a-z][a-z0-9-]*)\b", re.MULTILINE)
_METRIC = re.compile(r"^([\w.]+)\s+\S", re.MULTILINE)

Chip = str
"""As ncu names it: ``gh100``."""


@frozen
class NcuTool:
    """One installed ncu and what it says of itself."""

    path: str
    version: str
    """As it prints it: ``2025.3.1.0``."""
    options: frozenset[str]
    """Long options of its help, without dashes."""
    help_text: str
    chips: tuple[Chip, ...]
    """Those whose metrics it can list."""

    @property
    def version_key(self) -> tuple[int, ...]:
        """For ordering."""
        return tuple(int(part) for part in self.version.split("."))

    def filters_by_launch_shape(self) -> bool:
        """Whether it can profile one launch of each configuration."""
        return "per-launch-config" in self.help_text


def candidate_paths(environ: Mapping[str, str], *, folders: Iterable[Path] = ()) -> list[Path]:
    """List every ncu that this machine may have, without duplicates: PATH, ``.ncu`` folders, the usual places.

    Args:
        environ: for PATH.
        folders: where a ``.ncu`` made by ``make ncu`` may lie.
    """
    places = [Path(folder) / "ncu" for folder in search_folders(environ)]
    places += [folder / LOCAL_COPY for folder in folders]
    for pattern in USUAL_PLACES:
        places += sorted(Path("/").glob(pattern.lstrip("/")))
    unique: dict[Path, Path] = {}
    for path in places:
        if is_program(path):
            unique.setdefault(path.resolve(), path)
    return list(unique.values())


def find_ncu(explicit: str | None, environ: Mapping[str, str], *, folders: Iterable[Path] = ()) -> NcuTool:
    """Find the ncu to use: ``--ncu``, else ``$NCU``, else the newest that answers.

    Args:
        explicit: path or command given by the user.
        environ: for NCU and PATH, and to run the candidates with.
        folders: see `candidate_paths`.

    Raises:
        CaptureError: there is none, or what was named is none; every candidate's reason is in the message.
    """
    named = explicit or environ.get("NCU")
    if named:
        path = find_program(named, environ)
        if path is None:
            whence = "--ncu" if explicit else "$NCU"
            raise CaptureError(f"{whence} {named}: no such program; give the path of an ncu executable")
        return probe(Path(path), environ)
    tools, reasons = usable_tools(environ, folders=folders)
    if tools:
        return tools[0]
    if reasons:
        raise CaptureError(f"no usable ncu: {'; '.join(reasons)}")
    raise CaptureError(
        "no ncu found in PATH or the usual places: install Nsight Compute (a part of the CUDA toolkit), or give its "
        "path with --ncu"
    )


def usable_tools(environ: Mapping[str, str], *, folders: Iterable[Path] = ()) -> tuple[list[NcuTool], list[str]]:
    """Probe all candidates: those that answer, newest first, and why the others do not."""
    tools: list[NcuTool] = []
    reasons: list[str] = []
    for path in candidate_paths(environ, folders=folders):
        try:
            tools.append(probe(path, environ))
        except CaptureError as error:
            reasons.append(str(error))
    tools.sort(key=lambda tool: tool.version_key, reverse=True)
    return tools, reasons


def probe(path: Path, environ: Mapping[str, str]) -> NcuTool:
    """Ask one ncu what it is and what it can do. It needs no GPU for that.

    Raises:
        CaptureError: it does not run, or does not answer like an ncu.
    """
    said = _ask([str(path), "--version"], environ)
    version = _VERSION.search(said)
    if version is None or "Nsight Compute" not in said:
        raise CaptureError(f"{path}: does not say its version as ncu does")
    help_text = _ask([str(path), "--help"], environ)
    chips = _ask([str(path), "--list-chips"], environ)
    return NcuTool(
        path=str(path),
        version=version[1],
        options=frozenset(_OPTION.findall(help_text)),
        help_text=help_text,
        chips=tuple(re.findall(r"\b[a-z]{2}\d{2}\w?\w?\b", chips)),
    )


def known_metrics(tool: NcuTool, chip: Chip | None, environ: Mapping[str, str]) -> frozenset[str]:
    """Base names of the metrics that an ncu can collect on a chip, such as ``dram__bytes_read``.

    Args:
        tool: the ncu.
        chip: one of its chips; None: the GPU of this machine.
        environ: to run it with.

    Raises:
        CaptureError: it knows no such chip, or there is no GPU to ask.
    """
    of_chip = () if chip is None else ("--chips", chip)
    names = frozenset(_METRIC.findall(_ask([tool.path, "--query-metrics", *of_chip], environ)))
    names = frozenset(name for name in names if "__" in name)
    if not names:
        raise CaptureError(f"{tool.path}: lists no metrics of {chip or 'this GPU'}")
    return names


def ncu_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Settings of ncu itself.

    By default it copies its section files into the user's documents and reads them there, where another version's or
    the user's own changes may lie: metrics are to be those of the installed version.
    """
    return {**environ, "NV_COMPUTE_PROFILER_DISABLE_STOCK_FILE_DEPLOYMENT": "1"}


def _ask(argv: list[str], environ: Mapping[str, str]) -> str:
    try:
        done = answer_of(argv, environ=ncu_environment(child_environment(environ)), timeout_s=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CaptureError(f"{argv[0]}: cannot be asked for {argv[1]} ({_reason(error)})") from error
    if done.returncode != 0:
        lines = (done.stderr + done.stdout).strip().splitlines()
        raise CaptureError(f"{argv[0]}: {argv[1]} failed: {lines[0].strip() if lines else f'exit {done.returncode}'}")
    return done.stdout


def _reason(error: OSError | subprocess.TimeoutExpired) -> str:
    return "it did not answer" if isinstance(error, subprocess.TimeoutExpired) else error.strerror or str(error)
