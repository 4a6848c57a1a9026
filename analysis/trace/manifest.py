"""Find the run manifest of a trace: the mark inside it, and ``run.json`` beside it."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import evolve

from analysis.domain.annotations import MANIFEST_MARK_PREFIX, META_DOMAIN
from analysis.domain.convert import from_json, from_json_file, from_plain, to_plain
from analysis.domain.errors import RequestError
from analysis.domain.manifest import RunManifest
from analysis.domain.program import PROGRAM_MARK, ProgramManifest, WallTimes, wall_times
from analysis.domain.reading import LARGEST_RESULT, read_bounded
from analysis.domain.redaction import redacted_plain
from analysis.trace.records import Marks

__all__ = ["find_manifest", "find_program_end", "find_wall_times", "manifest_of_marks"]


def manifest_of_marks(marks: Marks, source: str) -> RunManifest | None:
    """The manifest that the runner wrote into the trace; the last one, if there are several.

    Raises:
        RequestError: the mark is there, but does not hold a manifest.
    """
    written = None
    for domain, text in zip(marks.domains, marks.texts, strict=True):
        if domain == META_DOMAIN and text.startswith(MANIFEST_MARK_PREFIX):
            written = text.removeprefix(MANIFEST_MARK_PREFIX)
    return None if written is None else from_json(RunManifest, written, source=f"{source}: manifest mark")


def find_manifest(trace: Path, marks: Marks, stated: Path | None) -> RunManifest | None:
    """The manifest to use: the stated file, else ``run.json`` beside the trace, else the mark inside.

    Args:
        trace: the trace's path.
        marks: of the trace.
        stated: a file that the user named.

    Raises:
        RequestError: a manifest cannot be read, or belongs to another run than the trace's own mark.
    """
    inside = manifest_of_marks(marks, os.fspath(trace))
    beside = stated if stated is not None else trace.with_name("run.json")
    if stated is None and not (beside.is_file() and _is_a_manifest(beside)):
        return inside
    if stated is not None and beside.is_file() and PROGRAM_MARK in _text(beside):
        raise RequestError(
            f"{beside}: is of a program that dsocr-profile exec ran, and says nothing of model and inputs; leave --manifest out"
        )
    outside = _without_secrets(from_json_file(RunManifest, beside))
    if inside is not None and inside.run_id != outside.run_id:
        raise RequestError(
            f"{beside}: is the manifest of run {outside.run_id}, but {trace} was made by run {inside.run_id}; "
            "name the right one with --manifest"
        )
    if inside is not None and not outside.control:
        return evolve(outside, control=inside.control)
    return outside


def _without_secrets(manifest: RunManifest) -> RunManifest:
    """A manifest as runs write it today: an older one, or one from elsewhere, may hold keys in its command line."""
    plain = to_plain(manifest)
    cleaned = redacted_plain(plain)
    return manifest if cleaned == plain else from_plain(RunManifest, cleaned)


def find_wall_times(trace: Path) -> WallTimes | None:
    """What ``run.json`` beside a trace that ``dsocr-profile exec`` made says of its program's wall times; None: nothing.

    Args:
        trace: the trace's path.

    Raises:
        RequestError: the file is of such a run, and cannot be read.
    """
    manifest = _program_of(trace)
    return None if manifest is None else wall_times(manifest)


def find_program_end(trace: Path) -> str | None:
    """What ended a program of ``dsocr-profile exec`` early, as ``run.json`` beside its trace says; None: nothing did, or says.

    Raises:
        RequestError: as `find_wall_times`.
    """
    manifest = _program_of(trace)
    return None if manifest is None else manifest.partial


def _program_of(trace: Path) -> ProgramManifest | None:
    beside = trace.with_name("run.json")
    if not beside.is_file() or PROGRAM_MARK not in _text(beside):
        return None
    manifest = from_json_file(ProgramManifest, beside)
    return manifest if trace.name in manifest.traces else None


def _is_a_manifest(path: Path) -> bool:
    """Whether a run.json beside a trace is one of ours at all: other tools write such files too."""
    return b'"manifest_version"' in _text(path)


def _text(path: Path) -> bytes:
    return read_bounded(path, LARGEST_RESULT)
