"""From what nsys left behind to a checked ``trace.sqlite``: import, export, check, scrub; only then its final name."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from analysis.domain.ended import ended_in_words, signal_of
from analysis.domain.errors import ExportError, InterruptedRunError, NoEventsError, TimeoutExceededError
from analysis.domain.programs import SAFE_FOLDER
from analysis.domain.system_errors import DISK_FULL, has_little_room, is_disk_full, reason_of
from runner.collectors.interface.collector import ExportResult
from runner.collectors.interface.trace_file import check_trace
from runner.collectors.nsys.death import room_for_nsys
from runner.collectors.nsys.scrub import scrub
from runner.collectors.nsys.tool import NsysTool, export_argv, import_argv, missing_libraries
from runner.process.process import AFTER_TIMEOUT_S, Interrupts, run_process
from runner.process.program_log import log_text

__all__ = ["export_report", "finish_import"]

_STEP_TIMEOUT_S: Final = 1800.0


def finish_import(
    tool: NsysTool, run_dir: Path, *, env: Mapping[str, str], log: Path, interrupts: Interrupts, stem: str = "trace"
) -> Path:
    """Give the ``.nsys-rep`` of a run, importing a left-over ``.qdstrm`` if that is all there is.

    Raises:
        ExportError: neither is there, or the importer cannot do it: with the missing library, the version or the full disk
            at fault.
        InterruptedRunError: Ctrl-C; the stream is kept.
        TimeoutExceededError: the importer did not finish in half an hour, or in the run's time; the stream is kept.
    """
    report = run_dir / f"{stem}.nsys-rep"
    stream = run_dir / f"{stem}.qdstrm"
    if report.is_file() and report.stat().st_size > 0:
        return report
    if not stream.is_file():
        raise ExportError(f"{run_dir}: nsys left neither {report.name} nor {stream.name}; its output is in {log}")
    if tool.importer is None:
        raise ExportError(
            f"{stream}: cannot be imported, nsys {tool.version} ({tool.path}) has no QdstrmImporter beside it; install "
            "its host part (Debian: package nsight-systems), then `dsocr-profile resume`"
        )
    missing = missing_libraries(Path(tool.importer), env)
    if missing:
        raise ExportError(
            f"{stream}: cannot be imported, {tool.importer} lacks {', '.join(missing)}; install what holds it or put "
            "its folder into LD_LIBRARY_PATH, then `dsocr-profile resume`"
        )
    partial = run_dir / f"{stem}.partial.nsys-rep"
    partial.unlink(missing_ok=True)
    room = room_for_nsys(run_dir, env)
    outcome = run_process(
        import_argv(tool.importer, str(stream), str(partial)),
        env=env,
        log=log,
        interrupts=interrupts,
        deadline=_deadline(),
        beyond_s=AFTER_TIMEOUT_S,
        umask=0o077,
        cwd=SAFE_FOLDER,
        watch=room.look,
    )
    failed = outcome.ended_by != "itself" or outcome.returncode < 0
    failed = failed or (outcome.returncode > 0 and room.full is not None)  # what is there is as much as found room
    if failed or not partial.is_file() or partial.stat().st_size == 0:
        partial.unlink(missing_ok=True)
        if outcome.ended_by == "timeout":
            raise _too_long(stream, "import", interrupts)
        if outcome.ended_by == "interrupt":
            raise InterruptedRunError(
                f"{outcome.interrupted} in the import; {stream} is kept: `dsocr-profile resume {run_dir.name}` repeats it"
            )
        if room.full is not None:
            raise ExportError(_no_room(stream, "imported", room.full))
        if outcome.returncode < 0:
            raise ExportError(
                f"{stream}: {tool.importer} {ended_in_words(outcome.returncode)}; it is kept: `dsocr-profile resume "
                f"{run_dir.name}` imports it again"
            )
        raise ExportError(
            f"{stream}: {tool.importer} (version {tool.version}) could not import it{_last_words(log)}; a stream must "
            "be imported with the version that recorded it"
        )
    partial.replace(report)
    return report


def export_report(
    tool: NsysTool,
    report: Path,
    database: Path,
    *,
    env: Mapping[str, str],
    log: Path,
    interrupts: Interrupts,
    own_marks: tuple[str, ...] = (),
    secrets: tuple[str, ...] = (),
    blobs: bool = False,
) -> ExportResult:
    """Export a report to SQLite: into a temporary file, checked and scrubbed, then moved to its final name.

    Args:
        tool: an nsys not older than the one that recorded it.
        report: ``.nsys-rep``.
        database: final name; an older file there is replaced only by a complete one.
        env: environment of nsys.
        log: file for its output.
        interrupts: Ctrl-C ends the export.
        own_marks: see `runner.collectors.nsys.scrub.scrub`.
        secrets: see there.
        blobs: see `runner.collectors.nsys.tool.export_argv`.

    Raises:
        ExportError: it failed, the disk is full, or what came out is incomplete.
        NoEventsError: the capture holds nothing.
        InterruptedRunError: Ctrl-C; the report is kept.
        TimeoutExceededError: nsys did not finish in half an hour, or in the run's time.
    """
    partial = database.with_name(f"{database.stem}.partial{database.suffix}")
    _check_space(report, database)
    _discard(partial)
    room = room_for_nsys(database.parent, env)
    try:
        outcome = run_process(
            export_argv(tool, str(report), str(partial), blobs=blobs),
            env=env,
            log=log,
            interrupts=interrupts,
            deadline=_deadline(),
            beyond_s=AFTER_TIMEOUT_S,
            umask=0o077,
            cwd=SAFE_FOLDER,
            watch=room.look,
        )
        if outcome.ended_by == "timeout":
            raise _too_long(report, "export", interrupts)
        if outcome.ended_by == "interrupt":
            raise InterruptedRunError(
                f"{outcome.interrupted} in the export; {report} is kept: `dsocr-profile resume {database.parent.name}` repeats it"
            )
        full = room.full or (database.parent if has_little_room(database) or _says_disk_full(log) else None)
        if outcome.returncode != 0 or not partial.is_file():
            if full is not None:
                raise ExportError(_no_room(report, "exported", full))
            ended = f"exit code {outcome.returncode}"
            if signal_of(outcome.returncode) is not None:
                ended = f"it {ended_in_words(outcome.returncode)}"
            raise ExportError(
                f"{report}: nsys {tool.version} could not export it ({ended}{_last_words(log)}); it is kept: "
                f"`dsocr-profile resume {database.parent.name}`; see {log}"
            )
        try:
            check_trace(partial)
        except (ExportError, NoEventsError) as error:
            if room.full is not None:  # nsys says nothing of it, and ends with 0
                raise ExportError(_no_room(report, "exported", room.full)) from error
            raise
        scrubbed = scrub(partial, own_marks=own_marks, secrets=secrets)
        rows = check_trace(partial)
        _sync(partial)
        partial.replace(database)
    except OSError as error:
        if is_disk_full(error):
            raise ExportError(_no_room(report, "exported", database.parent)) from error
        raise ExportError(f"{database}: cannot be written ({reason_of(error)})") from error
    finally:
        _discard(partial)
    return ExportResult(
        outcome.returncode, rows, scrubbed.blocks, scrubbed.foreign_blocks, scrubbed.secret_names, scrubbed.texts
    )


def _too_long(source: Path, step: str, interrupts: Interrupts) -> TimeoutExceededError:
    limit = f"{_STEP_TIMEOUT_S:g} s"
    if interrupts.is_late(AFTER_TIMEOUT_S):
        limit = f"--timeout and {AFTER_TIMEOUT_S:g} s more"
    return TimeoutExceededError(
        f"{source}: the {step} took longer than {limit} and was ended; the file is kept: dsocr-profile resume "
        f"{source.parent.name}"
    )


def _deadline() -> float:
    return time.monotonic() + _STEP_TIMEOUT_S


def _check_space(report: Path, database: Path) -> None:
    try:
        size = report.stat().st_size
        free = shutil.disk_usage(database.parent).free
    except OSError as error:
        raise ExportError(f"{report}: cannot be read ({error.strerror})") from error
    # An export is larger than its report (3× in a CPU-only capture of ours), and VACUUM needs as much again.
    if free < 2 * size:
        raise ExportError(
            f"{database.parent}: {DISK_FULL} but for {free >> 20:,} MiB, and the export of {report.name} ({size >> 20:,} "
            "MiB) needs more than twice its size; free space, then `dsocr-profile resume`"
        )


def _no_room(source: Path, done: str, folder: Path) -> str:
    """Say that a step failed of a full disk, and what is there to go on with."""
    return (
        f"{source}: cannot be {done}, {DISK_FULL} under {folder}; it is kept: free space, then "
        f"`dsocr-profile resume {source.parent.name}`"
    )


def _says_disk_full(log: Path) -> bool:
    return is_disk_full(ExportError(_last_words(log)))


def _discard(partial: Path) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        partial.with_name(partial.name + ending).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _last_words(log: Path) -> str:
    try:
        text = log_text(log)
    except OSError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    words = [line for line in lines if line and not line.startswith(("[", "Exporting", "Processing"))]
    return f": {words[-1]}" if words else ""
