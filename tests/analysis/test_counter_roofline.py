"""Rooflines, coverage, causes, the waterfall and the actions, from real traces with real counters and from small rows."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from attrs import evolve, fields

from analysis.attribution.attribution import Attribution
from analysis.domain.annotations import STAGES
from analysis.efficiency.counters.actions import ReviewedKernel, first_actions
from analysis.efficiency.counters.causes import diagnose
from analysis.efficiency.counters.file import CUDA_CORE_FLOP, DRAM_READ, DRAM_WRITE, read_counters
from analysis.efficiency.counters.join import JoinedCounters, join_counters, launches_of
from analysis.efficiency.counters.roofline import (
    SPEED_OF_LIGHT,
    RooflineRow,
    coverage_rows,
    kernel_rows,
    launch_roofs,
    summed,
)
from analysis.efficiency.counters.waterfall import Idle, Waterfall, idle_time, stage_waterfall
from analysis.efficiency.hardware import Peak, peak_for
from analysis.efficiency.records import UnitTimes
from analysis.render.review.contents import glue, traffic_notes
from analysis.review import Traffic, _remarks
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.kernel_modules import kernel_module_rows
from analysis.sums.kernels import kernels_of
from analysis.sums.records import GpuRow, StageSummary
from analysis.trace.reader import Trace

DATA = Path(__file__).parents[1] / "data"
Named = Callable[[str], tuple[Trace, Attribution]]
BF16 = "sm__ops_path_tensor_src_bf16_dst_fp32.sum"
FFMA = "sm__sass_thread_inst_executed_op_ffma_pred_on.sum"


def h100() -> Peak:
    peak = peak_for("NVIDIA H100 80GB HBM3", compute_capability="9.0", sm_count=132)
    assert isinstance(peak, Peak)
    return peak


@pytest.fixture(scope="module")
def joined(real_attribution: Named) -> tuple[Trace, Attribution, JoinedCounters]:
    trace, attribution = real_attribution("deepseek-ocr_h100_small")
    files = [read_counters(DATA / f"ncu_h100_{name}.csv.xz") for name in ("decode-step", "sections")]
    return trace, attribution, join_counters(launches_of(attribution), files, trace.info.devices[0])


def test_rows_of_every_level_add_up_to_the_kernels(joined: tuple[Trace, Attribution, JoinedCounters]) -> None:
    trace, attribution, counters = joined
    roofs = launch_roofs(counters, h100())
    shapes = kernels_of(trace, attribution).by_shape
    kernels = kernel_rows(attribution, roofs, shapes)
    modules = summed(attribution, roofs, by_module=True)
    stages = summed(attribution, roofs, by_module=False)
    for level in (kernels, modules, stages):
        assert sum(row.total_ns for row in level) == sum(row.total_ns for row in shapes)
        assert sum(row.calls for row in level) == sum(row.calls for row in shapes)
    for stage in stages:
        for level in (kernels, modules):
            own = [row for row in level if row.stage == stage.stage]
            assert sum(row.covered_ns for row in own) == stage.covered_ns
            assert sum(row.roofline_ns or 0 for row in own) == (stage.roofline_ns or 0)
            assert sum(row.dram_bytes or 0 for row in own) == pytest.approx(stage.dram_bytes or 0)
    assert {row.category for row in kernels} > {"GEMM", "elementwise"}  # names come from the summaries
    # The same rows as the ordinary report's table of kernels by module.
    table = kernel_module_rows(attribution, kernels_of(trace, attribution).by_name, {})
    assert Counter((one.stage, one.module, one.name, one.grid, one.block, one.shared_bytes, one.calls, one.total_ns)
                   for one in table) == Counter(
        (one.stage, one.module, one.name, one.grid, one.block, one.shared_bytes, one.calls, one.total_ns)
        for one in kernels
    )  # fmt: skip


def test_a_launchs_roofline_is_its_slowest_unit_and_never_more_than_its_time(
    joined: tuple[Trace, Attribution, JoinedCounters],
) -> None:
    _, _, counters = joined
    roofs = launch_roofs(counters, h100())
    launches, values = counters.launches, counters.values
    assert roofs.known.any()
    for one in np.flatnonzero(roofs.known)[:500].tolist():
        bytes_ns = (values[DRAM_READ][one] + values[DRAM_WRITE][one]) / 3352
        flop_ns = sum(times * values[metric][one] for metric, times in CUDA_CORE_FLOP.items()) / 66_900
        tensor_ns = values[BF16][one] / 989_400
        assert roofs.roofline_ns[one] == round(min(max(bytes_ns, flop_ns, tensor_ns), launches.duration[one]))
    assert (roofs.roofline_ns <= launches.duration).all()
    assert (roofs.roofline_ns[~roofs.known] == 0).all()


def test_counters_that_cannot_be_of_their_launch_are_left_out(
    joined: tuple[Trace, Attribution, JoinedCounters],
) -> None:
    """One damaged cell made the tensor cores 30,994,855,949 times as busy as they can be."""
    _, attribution, counters = joined
    whole = launch_roofs(counters, h100())
    assert not whole.impossible.any()
    first, second = np.flatnonzero(whole.known)[:2].tolist()
    values = {metric: one.copy() for metric, one in counters.values.items()}
    values[BF16][first] = 1e19
    values[DRAM_READ][second] = 1e15
    roofs = launch_roofs(evolve(counters, values=values), h100())
    assert np.flatnonzero(roofs.impossible).tolist() == [first, second]
    assert roofs.known.sum() == whole.known.sum() - 2
    for row in (*summed(attribution, roofs, by_module=False), *summed(attribution, roofs, by_module=True)):
        assert all(share is None or 0 <= share <= 1 for share in (row.dram_share, row.tensor_share, row.cuda_share))
    told = _remarks((), roofs, {}, h100(), None)
    assert any(f"counters of 2 of {roofs.known.size:,} launches are left out" in line for line in told)
    assert not any("are left out" in line for line in _remarks((), whole, {}, h100(), None))


def test_without_a_peak_nothing_is_a_roofline(joined: tuple[Trace, Attribution, JoinedCounters]) -> None:
    _, attribution, counters = joined
    (_, decode, *_) = summed(attribution, launch_roofs(counters, None), by_module=False)
    assert decode.roofline_ns is None
    assert decode.ceiling_ns is None
    assert decode.dram_bytes  # what was measured stays


def test_coverage_says_what_is_not_covered(joined: tuple[Trace, Attribution, JoinedCounters]) -> None:
    _, _, counters = joined
    rows = {(row.stage, row.what): row for row in coverage_rows(counters)}
    assert rows["prefill", "DRAM traffic"].covered_calls == 0
    decode = rows["decode", "DRAM traffic"]
    assert decode.covered_ns == decode.by_place_ns + decode.by_configuration_ns
    assert 0 < decode.covered_ns < decode.total_ns
    assert decode.share == decode.covered_ns / decode.total_ns
    assert rows["decode", "sections"].covered_ns > decode.covered_ns


# --- causes ---------------------------------------------------------------------------------------------------------


def row(**changes: Any) -> RooflineRow:
    usual: dict[str, Any] = {
        "stage": "decode", "module": "layers.*.mlp", "name": "void k<int>()", "short_name": "k", "category": "elementwise",
        "grid": (132, 1, 1), "block": (128, 1, 1), "calls": 100, "total_ns": 200_000, "covered_calls": 100,
        "covered_ns": 200_000, "dram_bytes": 1e6, "cuda_flop": 0.0, "tensor_flop": 0.0, "roofline_ns": 50_000,
        "dram_share": 0.25, "tensor_share": 0.0, "cuda_share": 0.01, "theoretical_occupancy": 1.0, "waves": 0.5,
    }  # fmt: skip
    return RooflineRow(**(usual | changes))


def sections(compute: float, memory: float, **more: float) -> dict[str, float]:
    return {SPEED_OF_LIGHT[0]: compute, SPEED_OF_LIGHT[1]: memory, **more}


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"sections": sections(59.9, 59.9)}, "latency"),
        ({"sections": sections(10, 60)}, "bandwidth"),
        ({"sections": sections(61, 60)}, "compute"),
        ({"dram_share": 0.61}, "bandwidth"),
        ({"tensor_share": 0.7}, "compute"),
        ({"dram_share": 0.59}, "latency"),
        ({"dram_share": None, "covered_ns": 0, "covered_calls": 0, "roofline_ns": None}, "not measured"),
        ({"dram_share": None, "covered_ns": 0, "roofline_ns": None, "grid": (2, 1, 1)}, "small grid"),
    ],
)
def test_the_main_reason_by_nvidias_thresholds(changes: dict[str, Any], label: str) -> None:
    assert diagnose(row(**changes), 132).label == label


def causes(**changes: Any) -> dict[str, Any]:
    return {cause.kind: cause for cause in diagnose(row(**changes), 132).causes}


def test_a_small_grid_could_save_the_idle_sms_and_not_more_than_lies_above_the_roofline() -> None:
    found = causes(grid=(33, 1, 1))["small grid"]
    assert found.at_most_ns == 150_000  # (132 − 33)/132 of 200 µs, and 200 − 50 above the roofline
    assert "(132 − 33)/132 = 75%" in found.sentence
    assert causes(grid=(1, 1, 1))["small grid"].at_most_ns == 150_000
    assert "small grid" not in causes(grid=(132, 1, 1))


def test_a_last_wave_takes_one_of_the_whole_waves_and_itself() -> None:
    assert causes(waves=1.2)["last wave"].at_most_ns == 100_000
    assert causes(waves=3.5)["last wave"].at_most_ns == 50_000
    assert "last wave" not in causes(waves=2.0)
    assert "last wave" not in causes(waves=0.7)
    assert "last wave" not in causes(waves=20.5)


def test_stalls_count_above_three_tenths_of_the_cycles_between_issues() -> None:
    stall = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
    latency = "smsp__average_warp_latency_per_inst_issued.ratio"
    metrics = {
        latency: 20.0,
        stall.format("long_scoreboard"): 6.1,
        stall.format("wait"): 6.0,
        stall.format("selected"): 9,
    }
    found = [one for one in diagnose(row(sections=metrics), 132).causes if one.kind == "stall"]
    assert len(found) == 1
    assert "6.1 of the 20.0 cycles" in found[0].sentence
    assert "L1, L2 or DRAM" in found[0].sentence


def test_occupancy_names_its_limiter() -> None:
    metrics = {
        "sm__maximum_warps_per_active_cycle_pct": 75.0,
        "launch__occupancy_limit_registers": 12.0,
        "launch__occupancy_limit_warps": 16.0,
    }
    assert "75.0 % of the warps fit on an SM, limited by registers" in causes(sections=metrics)["occupancy"].sentence
    assert "occupancy" not in causes(sections={"sm__maximum_warps_per_active_cycle_pct": 80.0})


def test_scattered_access_is_told_from_wide_access() -> None:
    sectors = "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio"
    used = "smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.ratio"
    assert "uncoalesced" in causes(sections={sectors: 31.0})
    assert "uncoalesced" not in causes(sections={sectors: 16.0})
    assert "8.0 of the 32 bytes" in causes(sections={sectors: 4.0, used: 8.0})["uncoalesced"].sentence
    assert "uncoalesced" not in causes(sections={sectors: 31.0, used: 32.0})


def test_a_product_without_tensor_cores_needs_proof() -> None:
    assert "no tensor cores" in causes(category="GEMM", cuda_flop=1e9)
    assert "no tensor cores" not in causes(category="GEMM", cuda_flop=None)  # another type may have counted elsewhere
    assert "no tensor cores" not in causes(category="GEMM", cuda_flop=1e9, tensor_flop=5.0)
    assert "no tensor cores" not in causes(category="GEMV", cuda_flop=1e9)
    assert "no tensor cores" not in causes(category="elementwise", cuda_flop=1e9)


def test_real_sections_explain_a_real_kernel(joined: tuple[Trace, Attribution, JoinedCounters]) -> None:
    """The embedding's gather: 10 blocks, 8.56 % memory, 0.15 % compute, waiting for memory 8.41 of 23.48 cycles."""
    trace, attribution, counters = joined
    rows = kernel_rows(attribution, launch_roofs(counters, h100()), kernels_of(trace, attribution).by_shape)
    gather = next(one for one in rows if "indexSelectSmallIndex" in one.name and one.stage == "decode")
    found = diagnose(gather, 132)
    assert found.label == "latency"
    assert found.source == "sections"
    assert (found.compute_share, found.memory_share) == pytest.approx((0.0015, 0.0856))
    words = " ".join(cause.sentence for cause in found.causes)
    assert "grid of 10 blocks on 132 SMs" in words
    assert "8.4 of the 23.5 cycles" in words


# --- the waterfall --------------------------------------------------------------------------------------------------


REAL = (
    "deepseek-ocr_h100_small", "deepseek-ocr_h100_64tok", "deepseek-ocr_h200_cuda-graph", "llama_h100_cuda-graph",
    "tensor-parallel_2xh200_rank0",
)  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_idle_time_by_brute_force(real_attribution: Named, name: str) -> None:
    """Instance by instance and operation by operation, in Python."""
    _, attribution = real_attribution(name)
    operations, calls, ranges = attribution.operations, attribution.calls, attribution.ranges
    level = attribution.operation_level("stage")
    for stage in STAGES:
        gaps = host = elapsed = 0
        seen: set[int] = set()
        for instance in attribution.stage_rows(stage).tolist():
            own = np.flatnonzero(level == instance)
            reach = int(ranges.start[instance])
            finished = max(int(ranges.end[instance]), *(int(operations.end[one]) for one in own), 0)
            elapsed += finished - reach
            for one in own.tolist():
                start, call = int(operations.start[one]), int(attribution.launch_call[one])
                if start > reach:
                    waited = 0 if call in seen else min(max(int(calls.end[call]) - reach, 0), start - reach)
                    host += waited
                    gaps += start - reach - waited
                seen.add(call)
                reach = max(reach, int(operations.end[one]))
            host += finished - reach
        found = idle_time(attribution, stage)
        assert (found.elapsed_ns, found.gaps_ns, found.host_ns) == (elapsed, gaps, host)
        assert found.busy_ns == elapsed - gaps - host
        assert found.kernel_ns + found.other_ns - found.concurrent_ns == found.busy_ns


def summary(profiled_ns: int) -> StageSummary:
    zero: dict[str, Any] = {one.name: 0 for one in fields(StageSummary)}
    gpu = GpuRow("decode", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    return StageSummary(**(zero | {"stage": "decode", "profiled_ns": profiled_ns, "gpu": gpu, "gaps": None}))


IDLE = Idle(1000, 600, 580, 30, 10, 150, 250)


def fall(**changes: Any) -> Waterfall:
    wanted: dict[str, Any] = {"units": 2, "unit": "token", "ideal_missing": None, "ideal": 100, "row": row(
        total_ns=580, covered_ns=580, roofline_ns=180)} | changes  # fmt: skip
    return stage_waterfall(
        IDLE, summary(1000), wanted["row"], wanted["ideal"], ideal_missing=wanted["ideal_missing"],
        units=wanted["units"], unit=wanted["unit"],
    )  # fmt: skip


def terms(waterfall: Waterfall) -> dict[str, int]:
    return {one.key: one.ns for one in waterfall.losses}


def test_the_terms_add_up_to_the_measured_nanoseconds() -> None:
    found = fall()
    assert terms(found) == {
        "ideal": 100, "extra": 80, "below_roofline": 400, "without_counters": 0, "copies": 30, "concurrent": -10,
        "gaps": 150, "host": 250,
    }  # fmt: skip
    assert found.residual_ns == 0
    assert found.per_unit_ns == 500


def test_what_cannot_be_told_apart_is_one_term_with_its_reason() -> None:
    without_ideal = fall(ideal=None, ideal_missing="the trace carries no manifest")
    assert terms(without_ideal)["at_roofline"] == 180
    assert without_ideal.merged_because is not None
    assert "no manifest" in without_ideal.merged_because
    partly = fall(row=row(total_ns=580, covered_ns=290, roofline_ns=90))
    assert terms(partly)["without_counters"] == 290
    assert "ideal" not in terms(partly)
    assert partly.merged_because is not None
    assert "50.0%" in partly.merged_because
    nothing = fall(row=row(total_ns=580, covered_ns=0, roofline_ns=None))
    assert terms(nothing)["without_counters"] == 580
    for one in (without_ideal, partly, nothing):
        assert sum(terms(one).values()) + one.residual_ns == 1000


# --- actions --------------------------------------------------------------------------------------------------------


def reviewed(**changes: Any) -> ReviewedKernel:
    one = row(**changes)
    return ReviewedKernel(one, diagnose(one, 132))


def test_small_kernels_of_a_module_are_one_action() -> None:
    kernels = [
        reviewed(name="a", human_name="elementwise multiply", grid=(1, 1, 1), calls=118, total_ns=247_800, covered_ns=247_800,
                 roofline_ns=2_800),
        reviewed(name="b", human_name="cast", grid=(2, 1, 1), calls=2, total_ns=2000, covered_ns=2000, roofline_ns=0),
    ]  # fmt: skip
    first, *_ = first_actions(kernels, evolve(fall(), losses=()), None)
    assert first.modules == ("layers.*.mlp",)
    assert first.kernels == ("a", "b")
    assert "59 launches per token of elementwise multiply (2.10 µs each on 1 block)" in first.sentence
    assert "fuse them" in first.sentence
    assert first.ceiling_ns == 247_000
    assert first.ceiling_per_unit_ns == 123_500
    assert "124.9 µs − 1.4 µs at their roofline = 123.5 µs per token" in first.arithmetic
    assert "at most 123.5 µs per token" in first.sentence
    assert "Each waits for latencies, not for bandwidth or arithmetic" in first.sentence
    unmeasured = reviewed(grid=(1, 1, 1), covered_calls=0, covered_ns=0, roofline_ns=None, dram_share=None, tensor_share=None,
                          cuda_share=None)  # fmt: skip
    first, *_ = first_actions([unmeasured], evolve(fall(), losses=()), None)
    assert "None has the blocks to fill the device: fuse them" in first.sentence
    assert "100.0 % of the time has no counters" in first.arithmetic


def test_kernels_that_fill_the_device_and_only_move_data_could_go_altogether() -> None:
    first, *_ = first_actions(
        [reviewed(waves=900.0, dram_share=0.7, grid=(393_216, 1, 1))], evolve(fall(), losses=()), None
    )
    assert first.ceiling_ns == 200_000
    assert "at 70.0 % of peak bandwidth" in first.sentence
    assert "of all these" not in first.sentence
    few = reviewed(name="add", waves=900.0, grid=(393_216, 1, 1), calls=8, total_ns=80_000, covered_ns=80_000)
    many = [
        reviewed(name=f"copy{number}", waves=5.0, grid=(6144, 1, 1), calls=40, total_ns=50_000, covered_ns=50_000)
        for number in range(2)
    ]
    first, *_ = first_actions([*many, few], evolve(fall(), losses=()), None)
    assert "of all these 4 launches per token on 393,216 blocks take 40.0 µs per token" in first.sentence


def test_a_matrix_kernel_is_held_against_its_own_roofline() -> None:
    gemm = reviewed(category="GEMM", human_name="matrix product", tensor_flop=5e9, bound="DRAM")
    first, *_ = first_actions([gemm], evolve(fall(), losses=()), None)
    assert first.ceiling_ns == 150_000
    assert "reach 25.0 % of their roofline (DRAM)" in first.sentence
    assert "more rows per launch (batch)" in first.sentence
    (full,) = first_actions(
        [reviewed(category="attention", waves=1.0, tensor_flop=5e9, bound="DRAM")], evolve(fall(), losses=()), None
    )
    assert "less to read beside queries, keys and values" in full.sentence
    assert "batch" not in full.sentence


def test_actions_are_ranked_and_three() -> None:
    kernels = [reviewed(module=f"m{number}", total_ns=1000 * number, covered_ns=1000 * number, roofline_ns=0)
               for number in range(1, 6)]  # fmt: skip
    found = first_actions(kernels, fall(), None)
    assert [one.modules[0] for one in found] == ["m5", "m4", "m3"]
    assert [one.ceiling_ns for one in found] == sorted((one.ceiling_ns for one in found), reverse=True)


def test_idle_time_of_launches_is_one_action_and_that_of_replays_two() -> None:
    one_by_one = UnitTimes(
        "decode", "token", 1, 300.0, 500.0, 50.0, 420.0, 0.7, "unprofiled", 0.6, 600.0, 1000.0, 840.0
    )
    kernel = reviewed(total_ns=10, covered_ns=10, roofline_ns=10)  # nothing to gain in it
    (launches,) = first_actions([kernel], fall(), one_by_one)
    assert "Replay the step as a CUDA graph" in launches.sentence
    assert "420 ns without the profiler − 300 ns GPU busy = 120 ns per token" in launches.arithmetic
    assert launches.ceiling_ns == 240
    replayed = evolve(one_by_one, launches=2.0)
    gaps, host = sorted(first_actions([kernel], fall(), replayed), key=lambda one: "between replays" in one.sentence)
    assert "Inside the replayed graph 50 kernels per token follow each other" in gaps.sentence
    assert gaps.ceiling_ns == 150  # as measured: the GPU's own
    assert "2 launches bring 50 kernels per token" in host.sentence
    assert host.ceiling_ns == 2 * (420 - 300) - 150


def test_gaps_inside_a_traced_graph_promise_no_more_than_the_idle_time_without_the_profiler() -> None:
    """Tracing node by node lengthens them: 0.44 ms a token were measured where the GPU idles 0.35 ms unprofiled (H100)."""
    replayed = UnitTimes("decode", "token", 1, 300.0, 500.0, 1.0, 340.0, 0.7, "unprofiled", 0.6, 600.0, 1000.0, 680.0)
    kernel = reviewed(total_ns=10, covered_ns=10, roofline_ns=10)
    (idle,) = first_actions([kernel], fall(), replayed)
    assert idle.ceiling_ns == 2 * (340 - 300)
    assert "of the replayed graph, of which layers.*.mlp makes 100.0 %, and between replays" in idle.sentence
    assert "at most 40 ns per token" in idle.sentence
    assert "340 ns without the profiler − 300 ns GPU busy = 40 ns per token" in idle.arithmetic


# --- words of the tables ----------------------------------------------------------------------------------------------


def test_padding_is_named_by_the_kernels_that_compute_it() -> None:
    """On an H100 grouped experts compute 128 rows for one: 97 % of what decode's tensor cores execute."""
    kernels = [
        reviewed(stage="decode", module="layers.*.mlp", human_name="grouped matrix product", tensor_flop=970.0),
        reviewed(stage="decode", module="layers.*.mlp", human_name="matrix product, tile 64×8", tensor_flop=30.0),
        reviewed(stage="decode", module="lm_head", human_name="other", tensor_flop=5000.0),
    ]
    part = Traffic("decode", "mlp", ("layers.*.mlp",), 1.0, 100.0, 90, 1000.0, 11)
    stage: Any = SimpleNamespace(stage="decode", traffic=[part, evolve(part, part="all")])
    (line,) = traffic_notes(cast(Any, SimpleNamespace(kernels=kernels)), stage)
    assert line.startswith("mlp: its kernels execute 90.91 × the operations that were counted")
    assert "grouped matrix product (97.0 % of them) and matrix product, tile 64×8 (3.0 % of them)" in line
    whole = SimpleNamespace(stage="decode", traffic=[evolve(part, executed_flop=11.0)])
    assert traffic_notes(cast(Any, SimpleNamespace(kernels=kernels)), cast(Any, whole)) == ()


def test_what_runs_outside_all_modules_is_named() -> None:
    outside = {"stage": "decode", "module": UNATTRIBUTED}
    kernels = [
        reviewed(**outside, name="a", human_name="reduction (arg max)", category="reduction", total_ns=360),
        reviewed(**outside, name="b", human_name="elementwise compare", category="elementwise", total_ns=90),
    ]
    stage: Any = SimpleNamespace(stage="decode", whole=row(total_ns=10_000))
    line = glue(cast(Any, SimpleNamespace(kernels=kernels)), stage)
    assert line is not None
    assert (
        "4.5 % of the stage's kernel time: reduction (arg max) 3.6 %, elementwise compare 0.90 %. None of them" in line
    )
    kernels.append(reviewed(**outside, name="c", human_name="matrix product", category="GEMM", calls=7, total_ns=1))
    line = glue(cast(Any, SimpleNamespace(kernels=kernels)), stage)
    assert line is not None
    assert "7 of their launches are matrix products: a module without a range" in line
    assert glue(cast(Any, SimpleNamespace(kernels=[])), stage) is None
