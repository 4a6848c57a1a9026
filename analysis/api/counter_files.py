"""From what somebody collected with Nsight Compute to counters: a CSV as it is, a report through ncu or ncu-report."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from analysis.domain.errors import RequestError
from analysis.efficiency.counters import CounterFile, read_counters

__all__ = ["find_ncu", "import_argv", "open_counters"]

_REPORT = ".ncu-rep"


def open_counters(path: Path, environ: Mapping[str, str] | None = None) -> CounterFile:
    """Read a file of counters.

    Args:
        path: a CSV of the raw page (``.csv``, or packed ``.csv.xz``, ``.csv.gz``), or a ``.ncu-rep``.
        environ: for NCU and PATH; None: of this process.

    Raises:
        RequestError: there is no such file, it is no such file, or a report cannot be read.
    """
    if not path.is_file():
        what = "is a directory; name its CSV or .ncu-rep files" if path.is_dir() else "is not there"
        raise RequestError(f"{path}: {what}")
    if path.suffix != _REPORT:
        return read_counters(path)
    environ = os.environ if environ is None else environ
    ncu = find_ncu(path, environ)
    if ncu is None:
        raise RequestError(
            f"{path}: is a report of Nsight Compute, and no ncu was found to read it with ($NCU, PATH, .ncu/, the CUDA toolkit's "
            "folders); where there is one, make a CSV of it: "
            f"ncu --import {path.name} --page raw --csv --print-units base > {path.stem}.csv"
        )
    return _imported(path, ncu, environ)


def import_argv(ncu: Path, report: Path) -> list[str]:
    """The command that prints a report as the CSV that `read_counters` reads."""
    return [str(ncu), "--import", str(report), "--page", "raw", "--csv", "--print-units", "base"]


def find_ncu(report: Path, environ: Mapping[str, str]) -> Path | None:
    """The ncu to import with: ``$NCU``, else the one on PATH, under ``.ncu/`` beside the report or here, of the toolkit.

    Raises:
        RequestError: $NCU names no program.
    """
    named = environ.get("NCU")
    found = shutil.which(named or "ncu", path=environ.get("PATH", os.defpath))
    if found is not None:
        return Path(found)
    if named:
        raise RequestError(f"{report}: cannot be read: $NCU names {named}, which is no program")
    places = [
        *(path for folder in (report.absolute().parent, Path.cwd()) for path in _newest_first(folder / ".ncu")),
        Path("/usr/local/cuda/bin/ncu"),
        *_newest_first(Path("/opt/nvidia/nsight-compute")),
    ]
    return next((path for path in places if path.is_file() and os.access(path, os.X_OK)), None)


def _newest_first(folder: Path) -> list[Path]:
    found = [folder / "ncu", folder / "usr/bin/ncu", *folder.glob("*/ncu"), *folder.glob("usr/lib/nsight-compute*/ncu")]
    return sorted(found, key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))], reverse=True)


def _imported(report: Path, ncu: Path, environ: Mapping[str, str]) -> CounterFile:
    with tempfile.TemporaryDirectory(prefix="dsocr-ncu-") as folder:
        made = Path(folder) / "counters.csv"
        try:
            with made.open("wb") as out:
                done = subprocess.run(
                    import_argv(ncu, report),
                    env=dict(environ),
                    stdout=out,
                    stderr=subprocess.PIPE,
                    stdin=subprocess.DEVNULL,
                    check=False,
                )
        except OSError as error:
            raise RequestError(f"{report}: cannot be read: {ncu} cannot be run ({error.strerror})") from error
        if done.returncode:
            with made.open(encoding="utf-8", errors="replace") as said:
                words = (done.stderr.decode("utf-8", "replace") + said.read(4096)).strip().splitlines()
            raise RequestError(
                f"{report}: {ncu} did not read it (exit code {done.returncode}): {words[-1] if words else 'no message'}"
            )
        return read_counters(made, str(report))
