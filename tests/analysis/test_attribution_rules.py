"""Which range does a GPU operation belong to? Calls, operations and CUDA graphs: one test per rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.attribution.attribution import Attribution
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.tables import gpu_table
from placement import counts, instances, place
from trace_builder import TraceBuilder, process_id

Attribute = Callable[..., Attribution]


# --- time on the host decides ---------------------------------------------------------------------------------


def test_call_inside_a_range_owns_a_kernel_that_runs_after_it(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr").launch(90, 95, ("late", 200, 300))
    assert place(attribute(built)) == {"late": "prefill"}


def test_kernel_that_spills_into_the_next_range_stays_with_its_launch(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr").range("decode", 100, 200, domain="dsocr")
    built.launch(90, 95, ("spilled", 150, 190)).launch(110, 115, ("own", 190, 195))
    assert place(attribute(built)) == {"spilled": "prefill", "own": "decode"}


def test_call_that_straddles_the_end_of_a_range_belongs_to_what_contains_it_whole(attribute: Attribute) -> None:
    built = TraceBuilder().range("image[0]", 0, 500, domain="dsocr").range("prefill", 0, 100, domain="dsocr")
    built.launch(95, 105, ("straddles", 110, 120))
    attribution = attribute(built)
    assert place(attribution, "stage") == {"straddles": None}
    assert place(attribution, "image") == {"straddles": "image[0]"}


@pytest.mark.parametrize(
    ("start", "end", "inside"),
    [(10, 20, True), (10, 11, True), (19, 20, True), (9, 20, False), (10, 21, False), (10, 10, True), (20, 20, True)],
)
def test_boundaries_are_inclusive_on_both_sides(attribute: Attribute, start: int, end: int, inside: bool) -> None:
    built = TraceBuilder().range("prefill", 10, 20, domain="dsocr").launch(start, end, ("k", 50, 60))
    assert place(attribute(built)) == {"k": "prefill" if inside else None}


def test_zero_length_range_holds_only_a_call_at_that_instant(attribute: Attribute) -> None:
    built = TraceBuilder().range("layers.0", 0, 100, domain="dsocr.module")
    built.range("empty", 50, 50, domain="dsocr.module").range("empty", 50, 50, domain="dsocr.module")
    built.launch(50, 50, ("at", 60, 61)).launch(50, 51, ("around", 62, 63)).launch(49, 50, ("before", 64, 65))
    assert place(attribute(built), "module") == {"at": "empty", "around": "layers.0", "before": "layers.0"}


def test_adjacent_ranges_do_not_swallow_each_other(attribute: Attribute) -> None:
    built = TraceBuilder()
    for number in range(5):
        built.range(f"layers.{number}", number * 10, number * 10 + 10, domain="dsocr.module")
        built.launch(number * 10, number * 10 + 10, (f"k{number}", 100 + number, 101 + number))
    assert place(attribute(built), "module") == {f"k{number}": f"layers.{number}" for number in range(5)}


def test_innermost_module_wins(attribute: Attribute) -> None:
    built = TraceBuilder().range("layers.0", 0, 100, domain="dsocr.module")
    built.range("layers.0.mlp", 20, 60, domain="dsocr.module").range("layers.0.mlp.gate", 30, 40, domain="dsocr.module")
    built.launch(32, 35, ("gate", 50, 51)).launch(45, 46, ("mlp", 60, 61)).launch(70, 71, ("layer", 80, 81))
    assert place(attribute(built), "module") == {
        "gate": "layers.0.mlp.gate",
        "mlp": "layers.0.mlp",
        "layer": "layers.0",
    }


def test_levels_are_independent_of_each_other(attribute: Attribute) -> None:
    built = TraceBuilder().range("image[3]", 0, 100, domain="dsocr").range("decode", 10, 90, domain="dsocr")
    built.range("decode_step", 20, 40, domain="dsocr").range("lm_head", 22, 38, domain="dsocr.module")
    built.range("aten::mm", 23, 30).launch(24, 26, ("k", 50, 60))
    attribution = attribute(built)
    found = {level: place(attribution, level)["k"] for level in ("image", "stage", "step", "module", "operator")}
    assert found == {
        "image": "image[3]", "stage": "decode", "step": "decode_step", "module": "lm_head", "operator": "aten::mm",
    }  # fmt: skip


# --- names that repeat ----------------------------------------------------------------------------------------


def test_same_name_nesting_counts_once(attribute: Attribute) -> None:
    built = TraceBuilder().range("block", 0, 100, domain="mine").range("block", 10, 90, domain="mine")
    built.range("block", 20, 80, domain="mine").launch(30, 31, ("k", 200, 250)).launch(95, 96, ("outer", 300, 301))
    table = gpu_table(attribute(built), "range")
    assert table.rows() == [
        {
            "name": "mine:block", "kernels": 2, "kernel_sum_ns": 51, "busy_ns": 51, "projected_ns": 101,
            "memcpys": 0, "memcpy_ns": 0, "memsets": 0, "memset_ns": 0, "graphs": 0, "graph_ns": 0,
        }
    ]  # fmt: skip


def test_one_name_in_two_domains_is_two_rows(attribute: Attribute) -> None:
    built = TraceBuilder().range("step", 0, 100, domain="a").range("step", 0, 100, domain="b").range("step", 0, 100)
    built.launch(10, 11, ("k", 20, 25))
    assert counts(attribute(built), "range") == {"a:step": 1, "b:step": 1, "step": 1}


def test_instances_of_one_name_are_numbered_in_time_order(attribute: Attribute) -> None:
    built = TraceBuilder()
    for number in (1, 0):  # written out of order
        built.range("decode", number * 100, number * 100 + 50, domain="dsocr")
        built.launch(number * 100 + 1, number * 100 + 2, (f"k{number}", 500 + number, 501 + number))
    assert instances(attribute(built)) == {"k0": "decode#0", "k1": "decode#1"}


# --- operation and call ---------------------------------------------------------------------------------------


def test_ids_of_calls_that_need_more_bits_than_those_of_operations(attribute: Attribute) -> None:
    """Columns have the narrowest type that holds them, so that 2**31 fits the calls and not the operations."""
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr").launch(10, 20, kernel=("k", 30, 40))
    for row in built._rows["CUPTI_ACTIVITY_KIND_RUNTIME"]:
        row["correlationId"] = 2**31
    assert attribute(built).launch_call.tolist() == [-1]


def test_one_correlation_id_in_two_processes(attribute: Attribute) -> None:
    built = TraceBuilder()
    for pid, stage in ((1, "prefill"), (2, "decode")):
        built.thread(pid, 1).range(stage, 0, 100, domain="dsocr").launch(10, 11, (f"of {stage}", 20, 30), correlation=7)
    assert place(attribute(built)) == {"of prefill": "prefill", "of decode": "decode"}


def test_two_machines_with_equal_pids(attribute: Attribute) -> None:
    built = TraceBuilder()
    for vm, stage in ((1, "prefill"), (2, "decode")):
        built.thread(5, 5, vm).range(stage, 0, 100, domain="dsocr")
        built.launch(10, 11, (f"on {vm}", 20, 30), correlation=7)
    attribution = attribute(built)
    assert place(attribution) == {"on 1": "prefill", "on 2": "decode"}
    assert len(set(attribution.thread_process.tolist()) - {-1}) == 2


def test_two_ranks_in_one_file_keep_their_domains_apart(attribute: Attribute) -> None:
    built = TraceBuilder()
    # Rank 0 creates `other` first, so that `dsocr` has another id there than in rank 1.
    built.thread(1, 1).create_domain("other").range("decode", 0, 100, domain="dsocr")
    built.launch(10, 11, ("rank 0", 20, 30), device=0)
    built.thread(2, 2).range("decode", 0, 100, domain="dsocr").launch(10, 11, ("rank 1", 20, 30), device=1)
    attribution = attribute(built)
    assert attribution.ranges.domains == ("dsocr",)
    assert place(attribution) == {"rank 0": "decode", "rank 1": "decode"}
    assert counts(attribution, "stage") == {"decode": 2, "prefill": 0, UNATTRIBUTED: 0}
    table = gpu_table(attribution, "stage")
    busy = dict(zip(table.names, table.columns["busy_ns"].tolist(), strict=True))
    assert busy["decode"] == 20, "each device works for 10 ns: two that work at once are not one that works longer"


def test_kernel_without_a_call_is_unattributed(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr").launch(10, 11, ("known", 20, 30))
    built.kernel("orphan", 40, 45, correlation=99_999).kernel("no id", 50, 57, correlation=None)
    attribution = attribute(built)
    assert place(attribution) == {"known": "prefill", "orphan": None, "no id": None}
    assert counts(attribution, "stage") == {"prefill": 1, "decode": 0, UNATTRIBUTED: 2}
    assert gpu_table(attribution, "stage").rows()[-1]["kernel_sum_ns"] == 12


def test_two_calls_with_one_id_count_the_kernel_once(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr").range("layers.0", 11, 13, domain="dsocr.module")
    # The driver's call inside the runtime's call; only the outer one is outside the module.
    built.launch(10, 20, ("k", 30, 40), correlation=5).call(11, 13, "cuLaunchKernel", 5)
    attribution = attribute(built)
    assert place(attribution) == {"k": "prefill"}
    assert place(attribution, "module") == {"k": None}, "the call that starts first owns the kernel"
    assert counts(attribution, "stage")["prefill"] == 1


def test_sparse_correlation_ids(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr")
    for number, correlation in enumerate((3, 2_000_000_000, 70_000_000)):
        built.launch(10 + number, 10 + number, (f"k{number}", 50 + number, 51 + number), correlation=correlation)
    built.kernel("orphan", 90, 91, correlation=1_000_000_000)
    assert place(attribute(built)) == {"k0": "prefill", "k1": "prefill", "k2": "prefill", "orphan": None}


def test_operation_that_does_not_say_its_process_belongs_to_the_only_one(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr").launch(10, 11, ("k", 20, 30))
    built.without_column("CUPTI_ACTIVITY_KIND_KERNEL", "globalPid")
    assert place(attribute(built)) == {"k": "prefill"}


def test_operation_of_a_process_that_makes_no_calls_is_unattributed(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr").launch(10, 11, ("k", 20, 30), correlation=7)
    built.kernel("stranger", 40, 50, correlation=7, process=process_id(9))
    assert place(attribute(built)) == {"k": "prefill", "stranger": None}


def test_copies_and_sets_are_counted_apart_from_kernels(attribute: Attribute) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr").launch(10, 11, ("k", 20, 30))
    built.copy(12, 13, (31, 34), kind="DtoH", size=8).copy(14, 15, (36, 40)).memset(16, 17, (41, 42))
    row = gpu_table(attribute(built), "stage").rows()[0]
    assert row == {
        "name": "prefill", "kernels": 1, "kernel_sum_ns": 10, "busy_ns": 18, "projected_ns": 22,
        "memcpys": 2, "memcpy_ns": 7, "memsets": 1, "memset_ns": 1, "graphs": 0, "graph_ns": 0,
    }  # fmt: skip


# --- CUDA graphs ----------------------------------------------------------------------------------------------


def test_graph_launch_owns_all_its_kernels(attribute: Attribute) -> None:
    kernels = [(f"node {number}", 50 + 10 * number, 55 + 10 * number) for number in range(5)]
    built = TraceBuilder().range("decode", 0, 40, domain="dsocr")
    built.launch(10, 20, kernels=kernels, name="cudaGraphLaunch_v10000")
    attribution = attribute(built)
    assert place(attribution) == {f"node {number}": "decode" for number in range(5)}
    assert attribution.operations.in_graph.all()
    assert counts(attribution, "stage")["decode"] == 5


def test_graph_traced_as_a_whole_is_one_operation_and_no_kernel(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 0, 40, domain="dsocr").graph(10, 20, (50, 90), graph_id=3)
    built.launch(30, 31, ("k", 95, 97))
    attribution = attribute(built)
    row = gpu_table(attribution, "stage", stage="decode").rows()[0]
    assert (row["graphs"], row["graph_ns"], row["kernels"], row["kernel_sum_ns"]) == (1, 40, 1, 2)
    assert place(attribution)["[CUDA graph 3]"] == "decode"
