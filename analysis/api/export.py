"""From what the user names to a SQLite export: the file, the one in a run folder, one unpacked, or one made from a report."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from analysis.api.tool_run import run_tool
from analysis.domain.ended import ended_in_words
from analysis.domain.errors import TraceError
from analysis.domain.nsight import NSYS_PLACES
from analysis.domain.programs import SAFE_FOLDER, find_program

__all__ = ["PACKED", "export_report", "find_nsys", "find_trace", "readable"]

_REPORT = ".nsys-rep"
_EXPORT = ".sqlite"
_HELP_TIMEOUT_S = 60.0
_EXPORT_TIMEOUT_S = 3600.0
"""A report of 1 GB takes minutes; an nsys that hangs (2022.4 was seen to) would take for ever."""
PACKED = (".xz", ".gz", ".zst")
"""Endings of compressed exports."""


@contextmanager
def readable(trace: Path) -> Iterator[Path]:
    """The file to read a trace from: itself, or what it unpacks to, which is deleted afterwards.

    Args:
        trace: as `find_trace` gives it.

    Raises:
        TraceError: it cannot be unpacked.
    """
    if trace.suffix in PACKED:
        from analysis.api.unpacking import unpacked  # brings decompressors, which few traces need

        with unpacked(trace) as plain:
            yield plain
    else:
        yield trace


def find_trace(path: Path, environ: Mapping[str, str] | None = None) -> Path:
    """The SQLite export to read for what the user named.

    Args:
        path: an export, also compressed (see `readable`), a folder that holds one (``trace.sqlite`` of a run folder goes
            first), or a ``.nsys-rep``, which is exported beside itself unless an export that is not older lies there
            already.
        environ: for NSYS and PATH; None: of this process.

    Raises:
        TraceError: a folder holds no trace or several, or a report cannot be exported.
    """
    if path.is_dir():
        path = _in_folder(path)
    if path.suffix == _REPORT and path.is_file():
        return export_report(path, environ)
    return path


def _in_folder(folder: Path) -> Path:
    for suffixes in ((_EXPORT,), (_REPORT,), tuple(_EXPORT + packed for packed in PACKED)):
        for suffix in suffixes:
            usual = folder / f"trace{suffix}"
            if usual.is_file():
                return usual
        try:
            candidates = sorted(
                entry for entry in folder.iterdir() if entry.name.endswith(suffixes) and entry.is_file()
            )
        except OSError as error:
            raise TraceError(f"{folder}: cannot be looked into ({error.strerror})") from error
        if len(candidates) > 1:
            names = ", ".join(candidate.name for candidate in candidates)
            raise TraceError(f"{folder}: is a directory with several traces ({names}); name one of them")
        if candidates:
            return candidates[0]
    raise TraceError(f"{folder}: is a directory that holds no trace (neither {_EXPORT} nor {_REPORT}); name a trace")


def find_nsys(report: Path, environ: Mapping[str, str]) -> Path | None:
    """The nsys to export with: ``$NSYS``, else that on PATH, under ``.nsys/`` beside the report or here, or the newest found.

    Raises:
        TraceError: $NSYS names no program.
    """
    named = environ.get("NSYS")
    on_path = find_program(named or "nsys", environ)
    if on_path is not None:
        return Path(on_path)
    if named:
        raise TraceError(f"{report}: cannot be exported: $NSYS names {named}, which is no program")
    for folder in (report.absolute().parent, Path.cwd()):
        for candidate in sorted((folder / ".nsys").glob("target-linux-*/nsys")):
            if os.access(candidate, os.X_OK):
                return candidate
    installed = [
        path for pattern in NSYS_PLACES for path in Path("/").glob(pattern.lstrip("/")) if os.access(path, os.X_OK)
    ]
    return max(installed, key=lambda path: [int(number) for number in re.findall(r"\d+", str(path))], default=None)


def _knows_blobs(nsys: Path, environ: Mapping[str, str]) -> bool:
    """Whether it exports binary payloads, in which NCCL says what it sends."""
    try:
        said = run_tool(
            [str(nsys.absolute()), "export", "--help"], environ, folder=SAFE_FOLDER, timeout_s=_HELP_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return False  # the export itself will say what is wrong
    return b"--include-blobs" in said.stdout + said.stderr


def export_report(report: Path, environ: Mapping[str, str] | None = None) -> Path:
    """Export a report to SQLite beside itself, in one step; an export that is there and not older is taken as it is.

    Args:
        report: a ``.nsys-rep``.
        environ: for NSYS and PATH, and to run nsys with; None: of this process.

    Returns:
        The export: the report's name with ``.sqlite``.

    Raises:
        TraceError: there is no nsys, or it did not write an export.
    """
    environ = os.environ if environ is None else environ
    target = report.with_suffix(_EXPORT)
    if target.is_file() and target.stat().st_mtime_ns >= report.stat().st_mtime_ns:
        return target
    nsys = find_nsys(report, environ)
    by_hand = f"nsys export --type sqlite --output {target.name} {report.name}"
    if nsys is None:
        raise TraceError(
            f"{report}: is an Nsight Systems report, not its export, and no nsys was found (PATH, $NSYS, .nsys/); "
            f"where there is one, run: {by_hand}"
        )
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=report.absolute().parent))
    except OSError as error:
        raise TraceError(f"{report}: cannot be exported beside itself ({error.strerror}); copy it elsewhere") from error
    try:
        made = folder / target.name
        argv = [str(nsys.absolute()), "export", "--type=sqlite", f"--output={made}", "--force-overwrite=true"]
        if _knows_blobs(nsys, environ):
            argv.append("--include-blobs=true")
        argv.append(str(report.absolute()))
        try:
            done = run_tool(argv, environ, folder=SAFE_FOLDER, timeout_s=_EXPORT_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise TraceError(
                f"{report}: {nsys} did not export it in {_EXPORT_TIMEOUT_S / 60:.0f} min; run it by hand: {by_hand}"
            ) from error
        except OSError as error:
            raise TraceError(f"{report}: cannot be exported: {nsys} cannot be run ({error.strerror})") from error
        if done.returncode or not made.is_file():
            words = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
            ended = ended_in_words(done.returncode, "ended with")
            raise TraceError(f"{report}: {nsys} did not export it: it {ended}: {words[-1] if words else 'no message'}")
        made.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target
