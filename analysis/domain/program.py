"""The record of a run of any program (``dsocr-profile exec``): ``run.json`` of its folder.

It says nothing of a model or of images, as `analysis.domain.manifest.RunManifest` does of our own runs, so it does not
explain a trace; it says how the trace was made, and which files belong together.
"""

from __future__ import annotations

from datetime import datetime
from statistics import median
from typing import Final, Literal, TypeAlias

from attrs import field, frozen, validators

from analysis.domain.figures import times
from analysis.domain.manifest import ExitCodes, PhaseTime, Resumption, RunStatus

__all__ = [
    "PROGRAM_MARK",
    "CaptureStart",
    "ProgramManifest",
    "ProgramTimes",
    "WallTimes",
    "wall_time_sentence",
    "wall_times",
]

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
    git_commit: str | None = None
    """Of the checkout that ``folder`` lies in, ``+changes`` where it had any, ``+unknown`` where git did not say;
    None: it lies in none."""
    environment: tuple[str, ...] = ()
    """Names of the variables that were passed on; values are not kept."""
    versions: dict[str, str] = field(factory=dict)
    times: tuple[ProgramTimes, ...] = ()
    phases: tuple[PhaseTime, ...] = ()
    """Wall time of each phase, in the order of their starts."""
    ended_by_us: bool = False
    """The program was a server, and was ended when its load had ended: its exit code says nothing."""
    exit_codes: ExitCodes = field(factory=ExitCodes)
    load_exit_code: int | None = None
    error: str | None = None
    """The first one, with ``status``: what a later ``resume`` meets is in ``resumed``."""
    partial: str | None = None
    """What ended the captured program early, in words, such as ``--timeout 60``; None: it came to its end, or was a server."""
    resumed: Resumption | None = None
    notes: tuple[str, ...] = ()
    finished_at: str | None = None


@frozen
class WallTimes:
    """Wall times of one command with and without the profiler, seconds, from the start to the end of its process."""

    alone_s: tuple[float, ...]
    """Of each control run."""
    profiled_s: float
    load_alone_s: tuple[float, ...] = ()
    """Of the load's command in each control run, where there was one."""
    load_profiled_s: float | None = None


def wall_times(manifest: ProgramManifest) -> WallTimes | None:
    """What a run says of its program's wall times; None: there was no control run, or no capture that was let run."""
    alone = [run for run in manifest.times if not run.profiled]
    profiled = [run for run in manifest.times if run.profiled]
    if not alone or not profiled:
        return None
    return WallTimes(
        tuple(run.wall_s for run in alone),
        profiled[-1].wall_s,
        tuple(run.load_s for run in alone if run.load_s is not None),
        profiled[-1].load_s,
    )


def wall_time_sentence(measured: WallTimes) -> str:
    """Say how long a command took alone and under the profiler."""
    middle, runs = median(measured.alone_s), len(measured.alone_s)
    told = "one run" if runs == 1 else f"median of {runs} runs"
    line = f"The same command without the profiler took {middle:.2f} s ({told}); under it {measured.profiled_s:.2f} s"
    if middle > 0:
        line += f" ({times(measured.profiled_s / middle)})"
    if measured.load_alone_s and measured.load_profiled_s is not None:
        line += f"; the load: {median(measured.load_alone_s):.2f} s, under it {measured.load_profiled_s:.2f} s"
    return line + "."
