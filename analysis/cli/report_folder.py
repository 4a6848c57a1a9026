"""Where a report goes: a name that says whose it is, and never the place of another trace's report in silence."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from analysis.domain.errors import RequestError
from analysis.domain.files import write_text
from analysis.domain.manifest import RunManifest
from analysis.domain.reading import LARGEST_RESULT, json_of, read_bounded
from analysis.domain.redaction import REDACTED, redacted
from analysis.ranks.names import name_of_run

__all__ = ["MARKER", "claim", "claim_for_diff", "claim_for_ranks", "default_name"]

MARKER: Final = ".dsocr-report.json"
"""File in a folder under `REPORTS` that names its trace, whatever formats were asked for."""

REPORTS: Final = Path("reports")

_GENERIC: Final = re.compile(
    r"(trace|report|profile|capture|export|output|out|nsys|result|run)[-_.]?\d*", re.IGNORECASE
)
"""Names that tools and people give to any trace: they do not say which."""
_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]*")
"""A run id comes from a file: only a plain one may name a folder."""


def default_name(trace: Path, manifest: RunManifest | None) -> str:
    """Name of a trace's report: of its file, or where that says nothing, of its run, or of the folder that it lies in.

    Args:
        trace: the export that was read.
        manifest: of its run, None if there is none.
    """
    name = re.sub(r"\.sqlite(\.(xz|gz|zst))?$", "", trace.name)
    if not _GENERIC.fullmatch(name):
        return name
    if manifest is not None and _SAFE.fullmatch(manifest.run_id):
        return manifest.run_id
    return trace.absolute().parent.name or name


def claim(out: Path | None, trace: Path, manifest: RunManifest | None) -> tuple[Path, str | None]:
    """Choose the folder of a report and mark it as this trace's.

    A folder that the user named is used in any case, and gets nothing but the report. Without one it is
    ``reports/NAME``, with a number behind it if the report of another trace lies there.

    Args:
        out: what the user named; None: nothing.
        trace: the export that was read.
        manifest: of its run, None if there is none.

    Returns:
        The folder, and what the user should know of it; None: nothing.

    Raises:
        RequestError: the folder cannot be written to.
    """
    return _claim(out, str(trace.resolve()), lambda: default_name(trace, manifest))


def claim_for_ranks(out: Path | None, traces: Sequence[Path]) -> tuple[Path, str | None]:
    """The same for the traces of several ranks: ``reports/NAME``, where NAME is what their names have in common.

    Args:
        out: what the user named; None: nothing.
        traces: that were read.

    Raises:
        RequestError: the folder cannot be written to.
    """
    names = [trace.name.removesuffix(".sqlite") for trace in traces]
    common = name_of_run(names)
    if not common or _GENERIC.fullmatch(common):
        common = traces[0].absolute().parent.name or "run"
    return _claim(out, os.pathsep.join(str(trace.resolve()) for trace in traces), lambda: f"{common}-ranks")


def claim_for_diff(out: Path | None, paths: Sequence[Path], labels: Sequence[str]) -> tuple[Path, str | None]:
    """The same for a comparison: ``reports/BASE-to-NEW``.

    Args:
        out: what the user named; None: nothing.
        paths: of its sides.
        labels: that tell them apart.

    Raises:
        RequestError: the folder cannot be written to.
    """
    words = [re.sub(r"[^A-Za-z0-9._\-]+", "-", label.removesuffix(".sqlite")).strip("-.") or "run" for label in labels]
    return _claim(out, os.pathsep.join(str(path.resolve()) for path in paths), lambda: "-to-".join(words))


def _claim(out: Path | None, source: str, default: Callable[[], str]) -> tuple[Path, str | None]:
    source = redacted(source)
    if out is not None:
        other = _source_of(out)
        if (out / MARKER).is_file():
            write_text(out / MARKER, _text(source))
        replaced = other is not None and other != source
        return out, f"{out} held the report of {other}, which is replaced" if replaced else None
    name = redacted(default()).replace(REDACTED, "redacted")
    number = 1
    first = REPORTS / name
    while True:
        folder = first if number == 1 else REPORTS / f"{name}-{number}"
        if _take(folder, source):
            if number == 1:
                return folder, None
            return folder, f"{first} holds the report of another trace ({_source_of(first) or 'not known which'})"
        number += 1


def _take(folder: Path, source: str) -> bool:
    """Whether the folder is this trace's, or was nobody's and now is: of two processes only one can make the marker."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        empty = not any(folder.iterdir())
        if empty:
            with (folder / MARKER).open("x", encoding="utf-8") as file:
                file.write(_text(source))
            return True
    except FileExistsError:
        if not folder.is_dir():
            raise RequestError(f"{folder}: is not a directory; choose another folder with --out") from None
    except OSError as error:
        raise RequestError(
            f"{folder}: cannot be written ({error.strerror}); choose another folder with --out"
        ) from error
    return _source_of(folder) == source


def _text(source: str) -> str:
    return json.dumps({"trace": source}) + "\n"  # escaped: a path need not be UTF-8


def _source_of(folder: Path) -> str | None:
    """Path of the trace whose report lies in a folder; None: there is no report, or it does not say."""
    for name, keys in ((MARKER, ("trace",)), ("report.json", ("detail", "capture", "trace_path"))):
        try:
            value = json_of(read_bounded(folder / name, LARGEST_RESULT), name)
        except RequestError:
            continue
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str):
            return str(Path(value).absolute().resolve())
    return None
