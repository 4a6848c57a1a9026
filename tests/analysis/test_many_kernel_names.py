"""A trace whose launches all have names of their own: what the outputs hold, and that bounds are told."""

from __future__ import annotations

import json
import lzma
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import analysis
from analysis.api.comparing import diff
from analysis.api.opening import opened
from analysis.api.options import AnalysisOptions
from analysis.domain.columns import Records
from analysis.domain.errors import RequestError
from analysis.domain.measures import impossible_figures
from analysis.render import formats
from analysis.render import json as json_
from analysis.render.json_schema import schema_of
from analysis.report import Report
from analysis.sums.kernel_classes import Rules, load_rules
from analysis.sums.kernels import kernel_tables, per_token
from trace_builder import TraceBuilder

NAMES = 6000
"""More than `json_.MOST_KERNEL_ROWS`, in both stages together."""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builder = TraceBuilder().gpu()
    half = NAMES * 20_000 // 2
    builder.range("prefill", 0, half, domain="dsocr").range("decode", half + 1, NAMES * 20_000 + 99_999, domain="dsocr")
    for number in range(NAMES):
        at = number * 20_000 + number % 7
        name = f"void at::native::kernel_{number}<int, float, {number % 977}>(float*, int)"
        builder.launch(at + 2_000, at + 6_000, kernel=(name, at + 8_000, at + 9_000 + number % 7))
    path = tmp_path_factory.mktemp("names") / "names.sqlite"
    builder.write(path)
    return path


@pytest.fixture(scope="module")
def report(trace: Path) -> Report:
    return analysis.load(trace).report()


@pytest.fixture(scope="module")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    formats.render_all(report, out)
    return out


def test_a_kernel_of_one_shape_is_one_record_in_both_tables(report: Report) -> None:
    assert len(report.kernels) == len(report.kernel_shapes) == NAMES
    assert all(row is shape for row, shape in zip(report.kernels, report.kernel_shapes, strict=True))
    assert report.left_out == ()


def test_the_json_leaves_out_the_shortest_and_says_so(report: Report, folder: Path) -> None:
    document = json.loads((folder / "report.json").read_bytes())
    Draft202012Validator(schema_of("report")).validate(document)
    detail = document["detail"]
    assert {one["table"] for one in detail["left_out"]} == {"kernels", "kernel_shapes", "kernel_modules"}
    for left in detail["left_out"]:
        rows, whole = detail[left["table"]], getattr(report, left["table"])
        assert len(rows) == json_.MOST_KERNEL_ROWS
        assert left["rows"] == len(whole) - len(rows)
        assert left["calls"] + sum(row["calls"] for row in rows) == sum(row.calls for row in whole)
        assert left["total_ns"] + sum(row["total_ns"] for row in rows) == sum(row.total_ns for row in whole)
        kept = {row["name"] for row in rows}
        longest_left_out = max(row.total_ns for row in whole if row.name not in kept)
        assert min(row["total_ns"] for row in rows) >= longest_left_out
        in_order = [row.name for row in whole if row.name in kept]
        assert [row["name"] for row in rows] == in_order


def test_parquet_has_them_all_and_the_page_says_where(folder: Path) -> None:
    assert pq.read_table(folder / "kernels.parquet").num_rows == NAMES
    assert pq.read_table(folder / "kernel_modules.parquet").num_rows == NAMES
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "2,760 more rows are in kernel_modules.parquet." in page  # 3,000 in each stage, 240 on the page


def test_such_a_json_cannot_be_compared_and_its_trace_can(trace: Path, folder: Path) -> None:
    with pytest.raises(RequestError, match=r"report\.json: leaves out 1,000 rows of kernels.*name its trace"):
        diff(folder / "report.json", folder / "report.json")
    assert len(diff(trace, trace).stages) == 2


def test_a_report_of_usual_size_leaves_nothing_out(report: Report) -> None:
    few = evolve(report, kernels=report.kernels[:9], kernel_shapes=report.kernels[:9], kernel_modules=())
    assert json_.as_plain(few)["detail"]["left_out"] == []


def _asked_one_by_one(rules: Rules, name: str) -> frozenset[str]:
    texts = {text for rule in rules.rules for text in (*rule.any, *rule.all, *rule.none)}
    return frozenset(text for text in texts if text in name)


def test_the_texts_in_real_names_are_those_that_asking_for_each_finds() -> None:
    packed = Path(__file__).parents[1] / "data" / "kernel_names.json.xz"
    names = [entry["name"].lower() for entry in json.loads(lzma.decompress(packed.read_bytes()))]
    rules = load_rules()
    assert rules.texts_in(names) == [_asked_one_by_one(rules, name) for name in names]


@given(st.lists(st.text(st.sampled_from("gemm_kLln<é\udcffß\x00 "), max_size=12), max_size=9))
def test_the_texts_in_any_names_too(names: list[str]) -> None:
    own = evolve(load_rules().rules[0], any=("gemm", "é", "ge", "m\udcff", "ßk", "l"), all=("n<",), none=(" ",))
    rules = Rules(rules=(own,), operations=(), categories=())
    assert rules.texts_in(names) == [_asked_one_by_one(rules, name) for name in names]


def test_names_are_looked_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = load_rules()
    names = [f"ampere_bf16_gemm_{number}" for number in range(50)]
    whole = rules.texts_in(names)
    monkeypatch.setattr("analysis.sums.kernel_classes._AT_ONCE", 100)
    assert rules.texts_in(names) == whole
    assert re.search("gemm", " ".join(whole[-1]))


def test_a_module_without_attention_is_not_searched_for_what_attention_writes(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its rows looked at all of its rows, to find that out: 114,744 times 114,744 steps."""

    def looked_at(*_: object) -> bool:
        raise AssertionError("there is no attention in the trace")

    monkeypatch.setattr("analysis.verdict.actions._is_materialised", looked_at)
    assert analysis.load(trace).report().verdicts


def test_calls_per_token_are_those_of_each_row(trace: Path) -> None:
    with opened(trace, AnalysisOptions()) as analysed:
        tables = kernel_tables(analysed.attribution, None, load_rules())
    counted = per_token(tables, {"prefill": None, "decode": 4})
    assert counted.by_name is counted.by_shape
    assert counted.by_name == tuple(
        evolve(row, per_token=row.calls / 4) if row.stage == "decode" else row for row in tables.by_name
    )
    assert per_token(tables, {"prefill": None}) is tables


FAULTS: list[tuple[str, Any, str]] = [
    ("total_ns", -1, "total_ns is -1"),
    ("mean_ns", math.nan, "mean_ns is nan"),
    ("share", 1.5, "share is 1.5"),
    ("waves", -0.5, "waves is -0.5"),
    ("grid", (1, -2, 3), "grid[1] is -2"),
    ("registers_per_thread", -7, "registers_per_thread is -7"),
]


@pytest.mark.parametrize("sparse", [False, True], ids=["all known", "some unknown"])
@pytest.mark.parametrize(("name", "value", "words"), FAULTS, ids=[name for name, _, _ in FAULTS])
def test_a_fault_among_many_rows_is_seen_where_it_stands(
    report: Report, name: str, value: Any, words: str, sparse: bool
) -> None:
    """A column of many rows is looked at as an array, or by its distinct values."""
    rows: list[Any] = list(report.kernels)
    if sparse and name not in ("total_ns", "mean_ns"):
        rows = [evolve(row, **{name: None}) if number % 3 == 0 else row for number, row in enumerate(rows)]
    assert impossible_figures(evolve(report, kernels=tuple(rows), kernel_shapes=tuple(rows))) == []
    at = 4321
    broken = unchecked(rows[at], name, value)
    whole = evolve(report, kernels=(*rows[:at], broken, *rows[at + 1 :]), kernel_shapes=())
    (told,) = impossible_figures(whole)
    assert told.startswith(f"kernels[{at}].{words}, and must be ")
    kept = Records.of(whole.kernels)
    if name != "grid" and None not in kept.values(name):
        kept = Records.of(kept, {name: np.array(kept.values(name))})
    assert impossible_figures(evolve(whole, kernels=kept)) == [told]


def test_one_table_in_two_fields_is_looked_at_once(report: Report) -> None:
    broken = unchecked(report.kernels[7], "total_ns", -1)
    rows = (*report.kernels[:7], broken)
    assert len(impossible_figures(evolve(report, kernels=rows, kernel_shapes=rows))) == 1
    assert len(impossible_figures(evolve(report, kernels=rows, kernel_shapes=(*rows, broken)))) == 3


def unchecked(row: Any, name: str, value: Any) -> Any:
    """A copy with a value that its constructor would refuse."""
    made = evolve(row)
    object.__setattr__(made, name, value)
    return made
