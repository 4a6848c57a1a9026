"""The record of a run of any program (``dsocr-profile exec``): ``run.json`` of its folder.

It says nothing of a model or of images, as `analysis.domain.manifest.RunManifest` does of our own runs, so it does not
explain a trace; it says how the trace was made, and which files belong together.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, TypeAlias

from attrs import field, frozen, validators

from analysis.domain.manifest import ExitCodes, RunStatus

__all__ = ["PROGRAM_MARK", "CaptureStart", "ProgramManifest", "ProgramTimes"]

CaptureStart: TypeAlias = Literal["all", "cuda-profiler-api", "nvtx"]

PROGRAM_MARK: Final = b'"kind": "exec"'
"""What a ``run.json`` of this record holds, as it is written."""


@frozen
class ProgramTimes:
    """Wall time of one run of the program, from the start to the end of its process."""

    profiled: bool
    wall_s: float = field(validator=validators.ge(0))
    load_s: float | None = field(default=None, validator=validators.optional(validators.ge(0)))
    """Of the load command, where there was one."""


@frozen
class ProgramManifest:
    """How a program was run and captured."""

    run_id: str
    status: RunStatus
    command: tuple[str, ...]
    """As it was given, secrets redacted."""
    created_at: datetime
    kind: Literal["exec"] = field(default="exec", validator=validators.in_(("exec",)))
    format_version: int = field(default=1, validator=validators.in_((1,)))
    device: str = "cpu"
    """``cpu``, or how many GPUs the program could see: ``cuda:0``, ``cuda:0-3``."""
    folder: str = ""
    """Working directory of the program."""
    capture: str = "all"
    """What is captured: all, cuda-profiler-api, or nvtx:RANGE."""
    ranks: int = 1
    traces: tuple[str, ...] = ()
    """Exports in this folder, those of ranks in their order; empty before they are made."""
    preset: str = "default"
    options: dict[str, bool | int | float | str | None] = field(factory=dict)
    """All other options, secrets redacted."""
    argv: tuple[str, ...] = ()
    """The whole command line with the profiler in it, secrets redacted."""
    environment: tuple[str, ...] = ()
    """Names of the variables that were passed on; values are not kept."""
    versions: dict[str, str] = field(factory=dict)
    times: tuple[ProgramTimes, ...] = ()
    ended_by_us: bool = False
    """The program was a server, and was ended when its load had ended: its exit code says nothing."""
    exit_codes: ExitCodes = field(factory=ExitCodes)
    load_exit_code: int | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()
    finished_at: str | None = None
