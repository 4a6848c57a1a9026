import csv
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from attrs import evolve

import analysis
from analysis.domain.contracts import LLMProfileReportSummary
from analysis.domain.convert import from_json, to_plain
from analysis.domain.entities import LLMProfileReport
from analysis.domain.errors import RequestError
from analysis.render import formats
from analysis.render import json as json_
from analysis.report import Report
from analysis.verdict.ranking import Ranking
from report_builder import HOSTILE, hostile_report, plain_report

ALL = tuple(formats.FORMATS)


@pytest.fixture(params=[plain_report, hostile_report], ids=["plain", "hostile"])
def report(request: pytest.FixtureRequest) -> Report:
    made: Callable[[], Report] = request.param
    return made()


def test_every_format_returns_what_it_wrote_and_leaves_nothing_else(report: Report, tmp_path: Path) -> None:
    written = formats.render_all(report, tmp_path / "out", ALL)
    assert sorted(written) == sorted((tmp_path / "out").iterdir())
    assert {path.name for path in written} >= {
        "report.md", "report.html", "report.json", "summary.json", "kernels.parquet", "kernel_modules.parquet", "kernels.csv",
        "kernel_modules.csv",
    }  # fmt: skip


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"unknown format 'pdf': choose from markdown, html"):
        formats.render_all(plain_report(), tmp_path / "out", ("markdown", "pdf"))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(RequestError, match=r"out/report\.json: cannot be written .*--out"):
        json_.render(plain_report(), tmp_path / "out")


def test_report_json_is_the_domain_record_and_the_detail(report: Report, tmp_path: Path) -> None:
    path, _ = json_.render(report, tmp_path)
    plain = json.loads(path.read_bytes())
    assert list(plain)[:2] == ["schema_version", "headline"]
    assert plain.pop("schema_version") == json_.SCHEMA_VERSION
    assert plain.pop("headline") == report.ranking.sentence
    detail = plain.pop("detail")
    assert from_json(LLMProfileReport, json.dumps(plain)) == report.report
    assert from_json(Report, json.dumps({**detail, "report": plain})) == report


def test_summary_json_is_the_contract_and_its_schemas_version(report: Report, tmp_path: Path) -> None:
    _, path = json_.render(report, tmp_path)
    plain = json.loads(path.read_bytes())
    assert list(plain)[:2] == ["schema_version", "headline"]
    assert plain.pop("schema_version") == json_.SCHEMA_VERSION
    assert plain.pop("headline") == report.ranking.sentence
    assert from_json(Ranking, json.dumps(plain.pop("ranking"))) == report.ranking
    summary = from_json(LLMProfileReportSummary, json.dumps(plain))
    assert to_plain(summary) == plain
    assert summary.top_operators == report.report.operators_topk
    assert summary.mfu_per_stage == report.report.mfu_per_stage
    assert summary.notes == report.report.notes


def test_parquet_has_every_kernel_with_its_whole_name(report: Report, tmp_path: Path) -> None:
    path, _ = formats.renderer("parquet").render(report, tmp_path)
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == len(report.kernels)
    for row, kernel in zip(rows, report.kernels, strict=True):
        assert row["name"] == kernel.name.encode("utf-8", "backslashreplace").decode()
        assert row["total_ns"] == kernel.total_ns
        assert row["tensor_core"] is kernel.tensor_core
        assert row["grid"] == (None if kernel.grid is None else list(kernel.grid))


def test_parquet_of_no_kernels_has_the_columns(tmp_path: Path) -> None:
    path, _ = formats.renderer("parquet").render(plain_report(kernels=(), kernel_shapes=()), tmp_path)
    assert pq.read_table(path).num_rows == 0
    assert "median_ns" in pq.read_schema(path).names


def test_csv_holds_the_same_and_no_formula(tmp_path: Path) -> None:
    report = hostile_report()
    path, _ = formats.renderer("csv").render(report, tmp_path)
    csv.field_size_limit(10**7)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["total_ns"]) for row in rows] == [one.total_ns for one in report.kernels]
    assert not [value for row in rows for value in row.values() if value.startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize("name", ["parquet", "csv"])
def test_rows_are_those_of_each_launch_shape(name: str, tmp_path: Path, real_trace: Callable[[str], Path]) -> None:
    """The largest row of this prefill hid 16 launches of 500 µs on a grid of their own."""
    report = analysis.load(real_trace("deepseek-ocr_h100_64tok")).report()
    path, _ = formats.renderer(name).render(report, tmp_path)
    rows = pq.read_table(path).to_pylist() if name == "parquet" else list(csv.DictReader(path.open(newline="")))
    assert len(rows) == len(report.kernel_shapes) > len(report.kernels)
    folded: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        numbers = [int(row[key]) for key in ("calls", "total_ns", "min_ns", "max_ns")]
        assert row["grid"]
        calls, total, low, high = folded.get((row["stage"], row["name"]), [0, 0, numbers[2], numbers[3]])
        folded[row["stage"], row["name"]] = [
            calls + numbers[0], total + numbers[1], min(low, numbers[2]), max(high, numbers[3]),
        ]  # fmt: skip
    assert folded == {
        (row.stage, row.name): [row.calls, row.total_ns, row.min_ns, row.max_ns] for row in report.kernels
    }


def test_the_pictures_are_well_formed_and_hold_no_script(tmp_path: Path) -> None:
    formats.renderer("markdown").render(hostile_report(), tmp_path)
    pictures = sorted(tmp_path.glob("*.svg"))
    assert [path.name for path in pictures] == ["budget.svg", "categories.svg", "steps.svg"]
    for path in pictures:
        tags = {element.tag.rpartition("}")[2] for element in ET.parse(path).iter()}
        assert "script" not in tags


@pytest.mark.parametrize("name", ALL)
def test_a_report_of_almost_nothing_can_be_rendered(name: str, tmp_path: Path) -> None:
    full = plain_report()
    lists = (
        "findings", "verdicts", "stages", "instances", "steps", "unit_times", "utilisation", "stage_rows", "range_rows",
        "categories", "kernels", "kernel_shapes", "streams", "host_calls", "metrics", "overhead", "aggregates",
    )  # fmt: skip
    empty: dict[str, Any] = dict.fromkeys(lists, ())
    bare = evolve(full.report, model=None, input_set=None, timings=(), operators_topk=(), mfu_model_level=None,
                  mfu_per_stage={}, aggregates={}, notes="", meta=None)  # fmt: skip
    nothing = evolve(full.ranking, parts=(), gains=(), time_ns=None, best_ns=None)
    report = evolve(full, report=bare, ranking=nothing, module_rows={}, manifest=None, timeline=None, **empty)
    assert formats.renderer(name).render(report, tmp_path)


def test_hostile_names_are_many() -> None:
    assert max(map(len, HOSTILE)) > 100_000
