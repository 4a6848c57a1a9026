"""A side of a comparison: read back from report.json, from a trace, and told apart by its path."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.api.sides import labels_of, read_report, read_side, read_sides
from analysis.compare.sides import IdleTime, samples_of
from analysis.domain.errors import DsocrError, RequestError, TraceError
from analysis.render.json import as_plain

EXAMPLES = Path(__file__).parents[2] / "reports" / "examples"
REPORTS = sorted(path for path in EXAMPLES.rglob("report.json") if "detail" in json.loads(path.read_text()))


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: str(path.parent.relative_to(EXAMPLES)))
def test_a_report_is_read_back_as_it_was_written(path: Path) -> None:
    # A field that this release has added is not in a report that was written before it.
    assert _without_added(as_plain(read_report(path)), there := json.loads(path.read_text())) == there


def _without_added(written: Any, there: Any) -> Any:
    if isinstance(written, dict) and isinstance(there, dict):
        return {key: _without_added(value, there[key]) for key, value in written.items() if key in there}
    if isinstance(written, list) and isinstance(there, list) and len(written) == len(there):
        return [_without_added(value, other) for value, other in zip(written, there, strict=True)]
    return written


def test_there_are_reports_to_read() -> None:
    assert len(REPORTS) >= 4


@pytest.mark.parametrize("name", ["deepseek-ocr_h100", "deepseek-ocr_h100_cuda-graph"])
def test_the_median_of_the_repetitions_is_the_headline_figure(name: str) -> None:
    side = read_side(EXAMPLES / name)
    for stage in ("prefill", "decode"):
        assert statistics.median(samples_of(side.report, stage)) == side.stages[stage].unprofiled_ns


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "no report.json of dsocr-analyze"),
        ('{"schema_version": 2}', "is no report.json of dsocr-analyze: name one, a run folder or a trace"),
        ('{"schema_version": 2, "ranks": []}', "of several ranks"),
        ('{"schema_version": 1, "detail": {}}', "version 1, this release reads version 2"),
        ('{"schema_version": 2, "detail": {}}', "written by another release"),
        ('{"schema_version": 2, "detail": []}', "expected an object"),
    ],
)
def test_what_is_no_report_of_this_release_gets_one_clear_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(RequestError, match=r"report\.json") as caught:
        read_report(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_report_with_a_field_of_another_release_is_refused(tmp_path: Path) -> None:
    document = json.loads((EXAMPLES / "deepseek-ocr_h100_64tok" / "report.json").read_text())
    document["detail"]["tomorrow"] = 1
    (tmp_path / "report.json").write_text(json.dumps(document))
    with pytest.raises(RequestError, match=r"tomorrow.*another release; analyse its trace again"):
        read_side(tmp_path)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such file"):
        read_side(tmp_path / "report.json")
    with pytest.raises(DsocrError, match="holds no trace"):
        read_side(tmp_path)
    with pytest.raises(RequestError, match="two runs at least"):
        read_sides([tmp_path])


def test_a_trace_and_its_report_are_the_same_side(real_trace: Callable[[str], Path], tmp_path: Path) -> None:
    trace = real_trace("deepseek-ocr_h100_small")
    side = read_side(trace)
    (tmp_path / "report.json").write_text(json.dumps(as_plain(side.report)))
    assert read_side(tmp_path).report == side.report


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["runs/a/trace.sqlite", "runs/b/trace.sqlite"], ("a", "b")),
        (["a.sqlite", "b.sqlite"], ("a.sqlite", "b.sqlite")),
        (["x/run", "y/run", "z/other"], ("x/run", "y/run", "z/other")),
        (["same", "same"], ("same", "same")),
        (["runs/graph", "runs/graph"], ("graph", "graph")),
    ],
)
def test_labels_are_the_shortest_ends_that_differ(paths: list[str], labels: tuple[str, ...]) -> None:
    made = labels_of([Path(path) for path in paths])
    assert made == labels


def test_the_profilers_cost_comes_off_the_hosts_idle_time_in_proportion() -> None:
    idle = IdleTime(
        {"launching": 30, "synchronising": 0, "draining": 10, "other calls": 0, "outside calls": 60, "in graph": 20}
    )
    less = idle.without(50)
    assert less.by_kind["launching"] == 15
    assert less.by_kind["draining"] == 5
    assert less.by_kind["outside calls"] == 30
    assert less.by_kind["in graph"] == 20
    more = idle.without(110)
    assert more.total_ns == more.by_kind["in graph"] == 10
    assert idle.without(200).total_ns == 0
    assert idle.without(-100).by_kind["launching"] == 60
