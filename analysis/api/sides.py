"""A side of a comparison from what the user names: a run folder, a trace, or a report.json."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from analysis.api.opening import opened
from analysis.api.options import AnalysisOptions
from analysis.compare.sides import Side
from analysis.domain.convert import from_plain
from analysis.domain.errors import RequestError, TraceError
from analysis.domain.figures import count
from analysis.domain.reading import LARGEST_RESULT, json_of, read_bounded
from analysis.render.json import REVIEW_SCHEMA_VERSION, SCHEMA_VERSION
from analysis.report import Report
from analysis.review import Review

__all__ = ["labels_of", "read_report", "read_side", "read_sides"]

_REPORT: Final = "report.json"
_REVIEW: Final = "review.json"


def read_sides(paths: Sequence[Path], options: AnalysisOptions | None = None) -> tuple[Side, ...]:
    """Read all sides of a comparison, the base first; raises as `read_side` does.

    Args:
        paths: two or more.
        options: what the user states about their traces.

    Raises:
        RequestError: fewer than two.
    """
    if len(paths) < 2:
        raise RequestError("a comparison needs two runs at least: the base, then what is held against it")
    return tuple(read_side(path, options, label) for path, label in zip(paths, labels_of(paths), strict=True))


def read_side(path: Path, options: AnalysisOptions | None = None, label: str | None = None) -> Side:
    """Read one side.

    A folder with a trace is analysed, one without is read by its ``report.json``; the ``review.json`` in it gives DRAM traffic.

    Args:
        path: run folder, report folder, ``report.json``, or a trace in any form that `opened` takes.
        options: what the user states about the trace; without effect on a ``report.json``, which is written already.
        label: how to call it; None: by its path's end.

    Raises:
        RequestError: a ``report.json`` is not one, or of another release.
        TraceError: there is no such file, or it is neither trace nor report.
        UnfitTraceError: the capture must not be trusted.
    """
    label = label if label is not None else labels_of([path])[0]
    if path.suffix == ".json":
        return Side(label, os.fspath(path), read_report(path), _review_beside(path.parent))
    if path.is_dir() and not _has_trace(path) and (path / _REPORT).is_file():
        return Side(label, os.fspath(path), read_report(path / _REPORT), _review_beside(path))
    with opened(path, options or AnalysisOptions()) as analysed:
        report = analysed.report()
    return Side(label, os.fspath(path), report, _review_beside(path if path.is_dir() else path.parent, report))


def _has_trace(folder: Path) -> bool:
    endings = (".sqlite", ".nsys-rep", ".sqlite.xz", ".sqlite.gz", ".sqlite.zst")
    try:
        return any(entry.name.endswith(endings) for entry in folder.iterdir())
    except OSError as error:
        raise TraceError(f"{folder}: cannot be looked into ({error.strerror})") from error


def read_report(path: Path) -> Report:
    """Read a ``report.json`` back into the record that it was written from.

    Raises:
        RequestError: it is something else, was written by another release, or does not hold what it must.
    """
    document = _json(path)
    if not isinstance(document, dict) or "schema_version" not in document:
        raise RequestError(f"{path}: is no report.json of dsocr-analyze; name one, a run folder or a trace")
    if "detail" not in document:
        what = (
            "the report of several ranks: name the report.json of one rank"
            if "ranks" in document
            else "no report.json of dsocr-analyze: name one"
        )
        raise RequestError(f"{path}: is {what}, a run folder or a trace")
    version = document.pop("schema_version")
    again = "analyse its trace again (dsocr-analyze TRACE --format json)"
    if version != SCHEMA_VERSION:
        raise RequestError(f"{path}: is of version {version}, this release reads version {SCHEMA_VERSION}; {again}")
    document.pop("headline", None)
    detail = document.pop("detail")
    if not isinstance(detail, dict):
        raise RequestError(f"{path}: $.detail: expected an object; {again}")
    try:
        report = from_plain(Report, {**detail, "report": document}, source=str(path))
    except RequestError as error:
        raise RequestError(f"{_first(str(error))}: it was written by another release; {again}") from error
    if report.left_out:
        rows = max(left.rows for left in report.left_out)
        raise RequestError(
            f"{path}: leaves out {count(rows)} rows of kernels, so it cannot be compared; name its trace"
        )
    return report


def _review_beside(folder: Path, report: Report | None = None) -> Review | None:
    """The counters in a folder, if they are of the same trace."""
    path = folder / _REVIEW
    if not path.is_file():
        return None
    document = _json(path)
    if not isinstance(document, dict) or document.pop("schema_version", None) != REVIEW_SCHEMA_VERSION:
        return None  # of another release: its traffic is left out, as where there is none
    review = from_plain(Review, document, source=str(path))
    if report is not None and review.run_id != report.report.run_id:
        return None
    return review


def _json(path: Path) -> Any:
    try:
        return json_of(read_bounded(path, LARGEST_RESULT), str(path))
    except RequestError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise TraceError(f"{path}: no such file") from error
        raise


def _first(text: str) -> str:
    """The first fault of several."""
    return text.split("; ", 1)[0]


def labels_of(paths: Sequence[Path]) -> tuple[str, ...]:
    """What tells paths apart: the shortest ends of them that differ, and their names at least.

    ``runs/a/trace.sqlite`` and ``runs/b/trace.sqlite`` are ``a`` and ``b``; what is the same at the end says nothing.
    """
    parts = [list(path.absolute().parts) for path in paths]
    if len({tuple(part) for part in parts}) == 1:  # nothing tells them apart
        return tuple(part[-1] for part in parts)
    while len(parts) > 1 and all(len(part) > 1 for part in parts) and len({part[-1] for part in parts}) == 1:
        for part in parts:
            part.pop()
    depth = 1
    while depth < max(len(part) for part in parts) and len({tuple(part[-depth:]) for part in parts}) < len(set(paths)):
        depth += 1
    return tuple("/".join(part[-depth:]) for part in parts)
