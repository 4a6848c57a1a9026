"""Which manifest belongs to a trace: the stated file, run.json beside it, or the mark inside."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import to_json
from analysis.domain.entities import RunMeta
from analysis.domain.errors import RequestError
from analysis.domain.manifest import ControlPass, RunManifest
from analysis.trace.manifest import find_manifest, manifest_of_marks
from analysis.trace.records import Marks

CONTROL = (ControlPass(0, 0, 10, 20, 3),)


def manifest(run_id: str = "run-a", **changes: Any) -> RunManifest:
    request = LLMProfileRequest(model_path="/models/m", input_dir="/pages")
    meta = RunMeta(run_id=run_id, created_at=datetime(2026, 1, 2, tzinfo=UTC), repeats=1)
    return RunManifest(run_id=run_id, status="complete", request=request, collector="nsys", meta=meta, **changes)


def marks(*texts: str, domain: str = "dsocr.meta") -> Marks:
    return Marks(tuple(range(len(texts))), (domain,) * len(texts), texts)


def mark(one: RunManifest) -> str:
    return "dsocr-manifest " + to_json(one)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.sqlite"
    path.touch()
    return path


def beside(trace: Path, text: str) -> Path:
    path = trace.with_name("run.json")
    path.write_text(text)
    return path


def test_nothing_anywhere(trace: Path) -> None:
    assert find_manifest(trace, marks(), None) is None
    assert find_manifest(trace, marks("hello", "dsocr-manifesto"), None) is None
    assert find_manifest(trace, marks(mark(manifest()), domain="theirs"), None) is None


def test_the_mark_inside(trace: Path) -> None:
    assert find_manifest(trace, marks("hello", mark(manifest())), None) == manifest()


def test_the_last_mark_counts() -> None:
    assert manifest_of_marks(marks(mark(manifest("first")), mark(manifest("last"))), "t") == manifest("last")


def test_run_json_beside(trace: Path) -> None:
    beside(trace, to_json(manifest()))
    assert find_manifest(trace, marks(), None) == manifest()


def test_run_json_knows_more_than_the_mark(trace: Path) -> None:
    """The mark is written before the capture ends; the control run may be in either."""
    beside(trace, to_json(manifest(finished_at="later")))
    found = find_manifest(trace, marks(mark(manifest(control=CONTROL))), None)
    assert found == manifest(finished_at="later", control=CONTROL)
    beside(trace, to_json(manifest(control=CONTROL)))
    assert find_manifest(trace, marks(mark(manifest())), None) == manifest(control=CONTROL)


def test_a_stated_file_goes_first(trace: Path, tmp_path: Path) -> None:
    beside(trace, to_json(manifest("another")))
    stated = tmp_path / "mine.json"
    stated.write_text(to_json(manifest("mine")))
    assert find_manifest(trace, marks(), stated) == manifest("mine")


@pytest.mark.parametrize("inside", [None, manifest()])
@pytest.mark.parametrize("text", [json.dumps({"run": "of another program"}), "", "not JSON at all"])
def test_a_run_json_of_another_program_is_left_alone(trace: Path, text: str, inside: RunManifest | None) -> None:
    beside(trace, text)
    assert find_manifest(trace, marks(mark(inside)) if inside else marks(), None) == inside


def test_a_folder_named_run_json(trace: Path) -> None:
    trace.with_name("run.json").mkdir()
    assert find_manifest(trace, marks(mark(manifest())), None) == manifest()


@pytest.mark.parametrize("stated", [False, True])
def test_the_manifest_of_another_run_is_refused(trace: Path, stated: bool) -> None:
    path = beside(trace, to_json(manifest("run-b")))
    with pytest.raises(RequestError, match=r"run\.json: is the manifest of run run-b, but .* was made by run run-a"):
        find_manifest(trace, marks(mark(manifest("run-a"))), path if stated else None)


@pytest.mark.parametrize("text", ["{oops", "", "{}", '{"manifest_version": 1}', '{"manifest_version": 2}'])
def test_a_broken_mark_is_an_error(trace: Path, text: str) -> None:
    with pytest.raises(RequestError, match=r"trace\.sqlite: manifest mark"):
        find_manifest(trace, marks("dsocr-manifest " + text), None)


def test_a_broken_manifest_of_ours_is_an_error(trace: Path) -> None:
    beside(trace, '{"manifest_version": 1, "run_id": 3}')
    with pytest.raises(RequestError, match=r"run\.json"):
        find_manifest(trace, marks(), None)


def test_the_run_json_of_a_foreign_program_is_refused_in_one_sentence(trace: Path, tmp_path: Path) -> None:
    stated = tmp_path / "exec.json"
    stated.write_text('{"run_id": "r", "kind": "exec", "format_version": 1}')
    with pytest.raises(RequestError, match=r"dsocr-profile exec ran.*leave --manifest out$"):
        find_manifest(trace, marks(), stated)


def test_a_stated_file_that_is_not_there(trace: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"missing\.json"):
        find_manifest(trace, marks(), tmp_path / "missing.json")
