"""Which range does a GPU operation belong to? Styles, threads, names and domains: one test per rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from analysis.attribution.attribution import Attribution, Level
from analysis.sums.operators import operator_summaries
from analysis.sums.range_kernels import projection_rows, range_kernel_rows
from analysis.sums.stages import gpu_rows
from analysis.sums.tables import gpu_table
from placement import counts, place
from trace_builder import START_END, TraceBuilder, thread_id

Attribute = Callable[..., Attribution]


# --- start/end ranges -----------------------------------------------------------------------------------------


def test_start_end_ranges_that_overlap(attribute: Attribute) -> None:
    built = TraceBuilder().range("a", 0, 60, domain="mine", style=START_END)
    built.range("b", 30, 100, domain="mine", style=START_END)
    built.launch(10, 11, ("in a", 200, 201)).launch(40, 41, ("in both", 202, 203)).launch(70, 71, ("in b", 204, 205))
    attribution = attribute(built)
    assert counts(attribution, "range") == {"mine:a": 2, "mine:b": 2}
    rows = attribution.call_ranges(attribution.domain("mine") or 0)
    names = [attribution.ranges.names[attribution.ranges.name[row]] for row in rows]
    assert names == ["a", "b", "b"], "where ranges cross, the one that started last is the innermost"


def test_of_ranges_of_both_styles_that_begin_together_the_shorter_is_the_innermost(attribute: Attribute) -> None:
    built = TraceBuilder().range("request", 0, 100, domain="dsocr.module", style=START_END)
    built.range("lm_head", 0, 50, domain="dsocr.module").launch(10, 11, ("k", 200, 201))
    assert place(attribute(built), "module") == {"k": "lm_head"}


def test_overlapping_start_end_ranges_of_one_name_count_once(attribute: Attribute) -> None:
    built = TraceBuilder().range("a", 0, 60, domain="mine", style=START_END)
    built.range("a", 30, 100, domain="mine", style=START_END).launch(40, 41, ("in both", 202, 205))
    row = gpu_table(attribute(built), "range").rows()[0]
    assert (row["name"], row["kernels"], row["kernel_sum_ns"], row["busy_ns"]) == ("mine:a", 1, 3, 3)


def test_start_end_stage_that_ends_on_another_thread_stays_with_the_thread_that_opened_it(attribute: Attribute) -> None:
    built = TraceBuilder()
    built.range("prefill", 0, 100, domain="dsocr", style=START_END, end_thread=thread_id(1, 2))
    built.launch(10, 11, ("opener", 20, 30)).thread(1, 2).launch(50, 51, ("closer", 60, 70))
    attribution = attribute(built)
    assert place(attribution) == {"opener": "prefill", "closer": None}
    assert attribution.ranges.end_thread[0] != attribution.ranges.thread[0]


@pytest.mark.parametrize("style", [59, 60, 70, 71])
def test_all_styles_of_ranges_are_read(attribute: Attribute, style: int) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr", style=style).launch(10, 11, ("k", 20, 30))
    attribution = attribute(built)
    assert place(attribution) == {"k": "prefill"}
    assert attribution.ranges.paired.tolist() == [style in (59, 70)]


def test_range_that_was_never_closed_lasts_to_the_end_of_the_trace(attribute: Attribute) -> None:
    built = (
        TraceBuilder().session(1000).range("prefill", 0, 50, domain="dsocr").range("decode", 60, None, domain="dsocr")
    )
    built.launch(10, 11, ("p", 20, 30)).launch(900, 910, ("d", 920, 930))
    attribution = attribute(built)
    assert place(attribution) == {"p": "prefill", "d": "decode"}
    assert attribution.ranges.unclosed.tolist() == [False, True]
    assert attribution.ranges.end.tolist() == [50, 1000]


# --- threads --------------------------------------------------------------------------------------------------


def worker_thread() -> TraceBuilder:
    built = (
        TraceBuilder().thread(1, 1).range("prefill", 0, 100, domain="dsocr").range("sam", 0, 100, domain="dsocr.module")
    )
    built.launch(10, 11, ("main", 20, 30)).thread(1, 2).launch(50, 51, ("worker", 60, 70))
    return built.launch(150, 151, ("worker after", 160, 170)).thread(2, 2).launch(50, 51, ("other process", 60, 70))


def test_launches_of_another_thread_are_never_mixed_in_silently(attribute: Attribute) -> None:
    assert place(attribute(worker_thread())) == {
        "main": "prefill", "worker": None, "worker after": None, "other process": None,
    }  # fmt: skip


@pytest.mark.parametrize("level", ["stage", "module"])
def test_launches_of_another_thread_are_offered_by_time_on_the_host_when_asked(
    attribute: Attribute, level: Level
) -> None:
    name = {"stage": "prefill", "module": "sam"}[level]
    assert place(attribute(worker_thread(), cross_thread=True), level) == {
        "main": name, "worker": name, "worker after": None, "other process": None,
    }  # fmt: skip


@pytest.mark.parametrize(("cross_thread", "kernels"), [(False, ["main"]), (True, ["main", "worker"])])
def test_tables_of_ranges_hold_what_other_threads_launched_when_asked(
    attribute: Attribute, cross_thread: bool, kernels: list[str]
) -> None:
    """By range, by range and kernel, projected, and by operator: as by stage and module."""
    attribution = attribute(worker_thread(), cross_thread=cross_thread)
    rows = {row["name"]: row for row in gpu_table(attribution, "range").rows()}
    of_ranges = range_kernel_rows(attribution)
    for name in ("dsocr:prefill", "dsocr.module:sam"):
        assert rows[name]["kernels"] == len(kernels)
        mine = [row for row in of_ranges if row.range_name == name]
        assert [row.kernel for row in mine] == kernels
        assert {row.tid for row in mine} == {1}, "a row is of the range's thread"
        assert [row.operations for row in projection_rows(attribution) if row.range_name == name] == [len(kernels)]
    (operator,) = operator_summaries(attribution, gpu_rows(gpu_table(attribution, "range")))
    assert (operator.op_name, operator.cuda_time_ms) == ("sam", 10e-6 * len(kernels))
    assert rows["(unattributed)"]["kernels"] == 4 - len(kernels)


def test_a_thread_with_ranges_of_its_own_is_offered_none_of_that_domain(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr").range("sam", 0, 100, domain="dsocr.module")
    built.thread(1, 2).range("clip", 40, 60, domain="dsocr.module").launch(50, 51, ("worker", 60, 70))
    rows = gpu_table(attribute(built, cross_thread=True), "range").rows()
    assert {row["name"]: row["kernels"] for row in rows} == {"dsocr:prefill": 1, "dsocr.module:clip": 1}


def test_eight_threads_keep_to_themselves(attribute: Attribute) -> None:
    built = TraceBuilder()
    for tid in range(1, 9):
        built.thread(1, tid).range(f"layers.{tid}", tid, 1000 + tid, domain="dsocr.module")
        built.launch(500 + tid, 501 + tid, (f"k{tid}", 2000 + tid, 2010 + tid), stream=tid)
    attribution = attribute(built)
    assert place(attribution, "module") == {f"k{tid}": f"layers.{tid}" for tid in range(1, 9)}
    row = gpu_table(attribution, "kernel")
    assert row.total("kernels") == 8
    busy = gpu_table(attribution, "stage").rows()[-1]["busy_ns"]
    assert busy == 17, "eight streams ran at the same time"


def test_calls_of_threads_written_interleaved(attribute: Attribute) -> None:
    built = TraceBuilder()
    for tid in (1, 2):
        built.thread(1, tid).range("prefill" if tid == 1 else "decode", 0, 100, domain="dsocr")
    for moment in range(10, 90, 10):
        for tid in (2, 1):
            built.thread(1, tid).launch(
                moment, moment + 1, (f"t{tid}@{moment}", 200 + moment + tid, 201 + moment + tid)
            )
    placed = place(attribute(built))
    assert len(placed) == 16
    assert all(stage == ("prefill" if name.startswith("t1") else "decode") for name, stage in placed.items())


# --- names and domains ----------------------------------------------------------------------------------------


def test_registered_name_comes_from_the_string_table(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr", registered=True)
    built.range("decode", 100, 200, domain="dsocr").launch(10, 11, ("p", 20, 30)).launch(110, 111, ("d", 120, 130))
    assert place(attribute(built)) == {"p": "prefill", "d": "decode"}


def test_registered_and_plain_spellings_of_one_name_are_one_row(attribute: Attribute) -> None:
    built = TraceBuilder().range("sam", 0, 10, domain="dsocr.module", registered=True)
    built.range("sam", 20, 30, domain="dsocr.module").launch(1, 2, ("a", 50, 51)).launch(21, 22, ("b", 52, 53))
    attribution = attribute(built)
    assert counts(attribution, "module") == {"sam": 2}
    assert counts(attribution, "range") == {"dsocr.module:sam": 2}


@pytest.mark.parametrize("name", [None, ""])
def test_range_without_a_name_still_holds_its_calls(attribute: Attribute, name: str | None) -> None:
    built = TraceBuilder().range(name, 0, 100, domain="dsocr.module").launch(10, 11, ("k", 20, 30))
    assert place(attribute(built), "module") == {"k": "(unnamed)"}


def test_registered_name_whose_string_is_missing(attribute: Attribute) -> None:
    built = TraceBuilder().range("gone", 0, 100, domain="dsocr.module", registered=True).without("StringIds")
    built.launch(10, 11, ("k", 20, 30))
    assert list(place(attribute(built), "module").values()) == ["(unnamed)"]


def test_domain_created_twice_is_one_domain(attribute: Attribute) -> None:
    built = TraceBuilder().create_domain("dsocr").thread(1, 2).create_domain("dsocr", again=True)
    built.range("prefill", 0, 100, domain="dsocr").launch(10, 11, ("k", 20, 30))
    attribution = attribute(built)
    assert attribution.ranges.domains == ("dsocr",)
    assert counts(attribution, "range") == {"dsocr:prefill": 1}


def test_domain_that_nothing_creates_keeps_its_number(attribute: Attribute) -> None:
    built = TraceBuilder().range("x", 0, 100, domain_id=9).launch(10, 11, ("k", 20, 30))
    assert counts(attribute(built), "range") == {"domain#9:x": 1}


def test_stage_names_outside_our_domain_are_not_stages_where_ours_is_there(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="theirs").launch(10, 11, ("k", 20, 30))
    built.range("decode", 200, 300, domain="dsocr")
    assert place(attribute(built)) == {"k": None}


def test_module_ranges_may_be_in_the_default_domain(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr").range("layer0.mlp", 5, 50)
    built.range("aten::mm", 8, 20).launch(10, 11, ("k", 20, 30))
    attribution = attribute(built)
    assert place(attribution, "module") == {"k": "layer0.mlp"}
    assert place(attribution, "operator") == {"k": "aten::mm"}


@pytest.mark.parametrize("column", ["int64Value", "uint64Value", "int32Value", "uint32Value"])
def test_payload_is_read_from_the_column_of_its_type(attribute: Attribute, column: str) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr", payload=903, payload_column=column)
    built.range("decode", 100, 200, domain="dsocr").launch(10, 11, ("k", 20, 30))
    ranges = attribute(built).ranges
    assert ranges.payload[0] == 903
    assert ranges.payload[1] == np.iinfo(np.int64).min
