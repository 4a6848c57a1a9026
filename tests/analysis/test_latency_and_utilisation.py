"""Latencies from a manifest, and MFU and MBU, by arithmetic that stands here in full."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import evolve

from analysis.attribution.attribution import Attribution
from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.entities import ModelUnderTest, RunMeta
from analysis.domain.errors import RequestError
from analysis.domain.manifest import (
    ComponentCost,
    ControlPass,
    MeasuredPeak,
    Overhead,
    PromptTokens,
    RunManifest,
    StageCost,
)
from analysis.domain.overhead import run_overheads, worth_a_warning
from analysis.efficiency.hardware import Peak
from analysis.efficiency.latency import TypicalImage, aggregates, overheads, stage_timings, typical_pass
from analysis.efficiency.records import Utilisation
from analysis.efficiency.utilisation import (
    CostRequest,
    KnownCosts,
    KnownPeaks,
    PeakOverrides,
    costs_of,
    headline,
    peaks_of,
    utilisations,
)
from analysis.render.spec import facts
from analysis.report import Report, ReportOptions, assemble
from analysis.sums.records import InstanceSummary, StepPoint
from analysis.sums.tokens import tokens_by_stage
from analysis.trace.reader import Trace
from analysis.trace.records import Device
from measured_builder import captured_of
from report_builder import plain_report

RealAttribution = Callable[[str], tuple[Trace, Attribution]]

MS = 1_000_000
H100 = Device(0, "NVIDIA H100 80GB HBM3", 132, compute_capability="9.0")


def manifest(**changes: Any) -> RunManifest:
    """Two images, two unprofiled passes."""
    plain = RunManifest(
        run_id="r1",
        status="complete",
        request=LLMProfileRequest("/models/m", "/pages"),
        collector="nsys",
        meta=RunMeta("r1", datetime(2026, 1, 2, tzinfo=UTC), 2),
        model=ModelUnderTest("m", "/models/m", "bf16", "cuda:0", True),
        prompts=(PromptTokens(0, "base", 0, 90, 10, 100), PromptTokens(1, "base", 0, 190, 10, 200)),
        control=(
            ControlPass(0, 0, 10 * MS, 40 * MS, 5, (9 * MS, 11 * MS, 10 * MS, 10 * MS)),
            ControlPass(0, 1, 20 * MS, 60 * MS, 4, (20 * MS, 20 * MS, 20 * MS)),
            ControlPass(1, 0, 12 * MS, 44 * MS, 5, (11 * MS,) * 4),
            ControlPass(1, 1, 22 * MS, 0, 1),
        ),
    )
    return evolve(plain, **changes)


def instance(
    stage: str, elapsed: int, *, image: int | None = 0, steps: int = 0, payload: int | None = None
) -> InstanceSummary:
    name = None if image is None else f"image[{image}]"
    return InstanceSummary(
        f"{name}/{stage}" if name else stage, name, stage, 0, elapsed, elapsed, elapsed, elapsed // 2, elapsed // 2, 3,
        payload, steps, image_index=image,
    )  # fmt: skip


# --- latencies ------------------------------------------------------------------------------------------------


def test_latencies_of_the_control_run() -> None:
    found = {one.name: one for one in aggregates(captured_of(manifest()))}
    ttft = found["ttft_ms"]
    assert (ttft.mean, ttft.median, ttft.minimum, ttft.maximum, ttft.count, ttft.source) == (
        16,
        16,
        10,
        22,
        4,
        "control",
    )
    assert ttft.std == pytest.approx(((36 + 16 + 16 + 36) / 3) ** 0.5)
    # (last − first) / (tokens − 1): 40/4, 60/3, 44/4; the pass of one token has none.
    assert (found["tpot_ms"].count, found["tpot_ms"].mean) == pytest.approx((3, (10 + 20 + 11) / 3))
    assert found["decode_ms"].maximum == 60
    assert found["decode_tokens_per_s"].median == pytest.approx(1000 / 11)
    assert (found["itl_ms"].count, found["itl_ms"].minimum, found["itl_ms"].maximum) == (11, 9, 20)
    assert not any(name.startswith("profiled") for name in found)


def test_a_batch_makes_more_tokens_a_second() -> None:
    one, four = ({x.name: x for x in aggregates(captured_of(manifest(batch_size=size)))} for size in (1, 4))
    assert four["decode_tokens_per_s"].mean == pytest.approx(4 * one["decode_tokens_per_s"].mean)
    assert four["tpot_ms"] == one["tpot_ms"]  # every sequence waits as long


def test_latencies_of_a_trace_say_that_they_are_profiled() -> None:
    instances = (instance("prefill", 10 * MS), instance("prefill", 14 * MS), instance("decode", 30 * MS, steps=3))
    steps = tuple(StepPoint("image[0]/decode", index, 0, (index + 1) * MS, 0, 1, None) for index in range(3))
    found = {one.name: (one.median, one.count, one.source) for one in aggregates(captured_of(None, instances, steps))}
    assert found == {
        "profiled_prefill_ms": (12, 2, "trace"),
        "profiled_decode_ms": (30, 1, "trace"),
        "profiled_tpot_ms": (10, 1, "trace"),
        "profiled_itl_ms": (1, 3, "trace"),
    }
    assert aggregates(captured_of()) == ()


def test_a_token_is_there_when_its_gpu_work_has_ended() -> None:
    """Decode that runs ahead: the host leaves after 40 ms, the GPU works until 100, a token every 25."""
    late = evolve(instance("decode", 40 * MS, steps=4), gpu_end_ns=100 * MS)
    steps = tuple(
        StepPoint("image[0]/decode", index, 10 * index * MS, 8 * MS, 25 * MS, 1, None, gpu_end_ns=25 * (index + 1) * MS)
        for index in range(4)
    )
    found = {one.name: one for one in aggregates(captured_of(None, (late,), steps))}
    assert (found["profiled_tpot_ms"].median, found["profiled_decode_ms"].median) == (25, 100)
    assert (found["profiled_itl_ms"].minimum, found["profiled_itl_ms"].maximum) == (25, 25)


def test_skipped_instances_are_in_no_profiled_latency() -> None:
    instances = tuple(instance("decode", time * MS, steps=2, image=image) for image, time in enumerate((900, 20, 30)))
    steps = tuple(StepPoint(one.path, 0, 0, one.profiled_host_ns // 2, 0, 1, None) for one in instances)
    found = {one.name: one for one in aggregates(captured_of(None, instances, steps, skip_first=1))}
    assert (found["profiled_tpot_ms"].count, found["profiled_tpot_ms"].median) == (2, 12.5)
    assert (found["profiled_itl_ms"].count, found["profiled_itl_ms"].maximum) == (2, 15)


def test_tpot_of_a_real_capture_whose_host_runs_ahead(real_attribution: RealAttribution) -> None:
    """64 steps from a CUDA graph: the host's ranges of a step are half of what a token takes."""
    trace, attribution = real_attribution("llama_h100_cuda-graph")
    report = assemble(trace, attribution, None)
    by_hand = [
        (max(int(attribution.ranges.end[row]), int(attribution.operations.end[inside].max())) - begin) / 64 / 1e6
        for row in attribution.stage_rows("decode").tolist()
        for begin in [int(attribution.ranges.start[row])]
        for inside in [attribution.operation_level("stage") == row]
    ]
    tpot = next(one for one in report.aggregates if one.name == "profiled_tpot_ms")
    assert tpot.median == pytest.approx(sorted(by_hand)[1])
    assert tpot.median == pytest.approx(2.72, abs=0.005)
    assert statistics.fmean(one.profiled_host_ns for one in report.steps) / 1e6 < 1.5
    tile = next(one for one in facts.headline(report) if one.term == "tpot")
    assert (tile.label, tile.value) == ("Time per output token, profiled", "2.72 ms")


def test_tokens_by_stage() -> None:
    decode = (instance("decode", 5, steps=3), instance("decode", 5, image=1, steps=4))
    payloads = (instance("prefill", 5, payload=100), instance("prefill", 5, image=1, payload=50))
    silent = (instance("prefill", 5), instance("prefill", 5, image=1))
    nameless = (instance("prefill", 5, image=None),)
    assert tokens_by_stage(None, (*payloads, *decode)) == {"prefill": 150, "decode": 7}
    assert tokens_by_stage(manifest(batch_size=2), (*silent, *decode)) == {"prefill": 600, "decode": 14}
    assert tokens_by_stage(None, silent) == {"prefill": None, "decode": None}
    assert tokens_by_stage(manifest(), nameless)["prefill"] is None
    assert tokens_by_stage(None, (*silent, *nameless), 916)["prefill"] == 3 * 916
    assert tokens_by_stage(None, (*payloads, *nameless), 916)["prefill"] == 150 + 916, "what the trace says goes first"


def test_stage_timings_come_from_the_control_run() -> None:
    prefill, decode = stage_timings(captured_of(manifest()))
    assert (prefill.elapsed_ms, prefill.tokens) == ((10 + 20 + 12 + 22) / 2, 300)
    assert prefill.throughput_toks_per_s == pytest.approx(300 / 0.032)
    # Image 1 ended with its first token once: of passes that differ in length, those with the most tokens count.
    assert (decode.elapsed_ms, decode.tokens) == (42 + 60, 4 + 3)


def test_a_cold_pass_moves_no_typical_pass() -> None:
    """Four warm passes and one that took ten times as long."""
    control = tuple(
        ControlPass(number, image, round(factor * (20 + image) * MS), round(factor * 80 * MS), 5)
        for number, factor in enumerate((10, 1, 1.1, 0.9, 1))
        for image in range(2)
    )
    assert typical_pass(control) == (
        TypicalImage(0, 20 * MS, 80 * MS, 4), TypicalImage(1, 21 * MS, 80 * MS, 4),
    )  # fmt: skip
    prefill, decode = stage_timings(captured_of(manifest(control=control)))
    assert (prefill.elapsed_ms, decode.elapsed_ms) == (41, 160)
    assert decode.throughput_toks_per_s == pytest.approx(8 / 0.160)
    costs = [cost("prefill", 2_000_000_000, 1, image=image) for image in range(2)]
    row = used(costs, control=control)["prefill", "unprofiled", "spec"]
    assert (row.time_ns, row.flop) == (41 * MS, 4_000_000_000)
    found = {one.name: one for one in aggregates(captured_of(manifest(control=control)))}
    assert (found["ttft_ms"].median, found["tpot_ms"].median) == (21, 20)
    assert (found["ttft_ms"].minimum, found["ttft_ms"].maximum, found["ttft_ms"].count) == (18, 210, 10)


def test_of_passes_that_differ_in_length_the_most_frequent_counts() -> None:
    control = tuple(ControlPass(number, 0, MS, steps * MS, steps + 1) for number, steps in enumerate((3, 4, 3, 0)))
    assert typical_pass(control) == (TypicalImage(0, MS, 3 * MS, 3),)
    assert typical_pass(()) == ()


def test_stage_timings_of_a_trace_are_those_of_one_pass() -> None:
    stages = plain_report().stages
    alone = stage_timings(captured_of(stages=stages))
    passes = stage_timings(captured_of(manifest(control=(), capture_passes=2), stages=stages))
    assert alone[1].elapsed_ms == stages[1].profiled_ns / 1e6
    assert (passes[1].elapsed_ms, passes[1].tokens) == (alone[1].elapsed_ms / 2, 2)
    assert passes[1].throughput_toks_per_s == alone[1].throughput_toks_per_s


def test_unknown_tokens_are_unknown_not_none_at_all() -> None:
    prefill = stage_timings(captured_of())[0]
    assert (prefill.tokens, prefill.throughput_toks_per_s) == (None, None)
    prefill = stage_timings(captured_of(manifest(prompts=())))[0]
    assert (prefill.tokens, prefill.throughput_toks_per_s) == (None, None)


def test_overheads_of_a_trace_compare_the_same_images() -> None:
    instances = (
        instance("prefill", 24 * MS), instance("prefill", 40 * MS, image=1), instance("decode", 60 * MS, steps=4),
    )  # fmt: skip
    prefill, decode = overheads(manifest(), instances)
    assert (prefill.unprofiled_ms, prefill.profiled_ms, prefill.factor, prefill.per) == (16, 32, 2, "image")
    # Image 1 was not decoded in the capture: its 20 ms a token are no part of the comparison.
    assert (decode.unprofiled_ms, decode.profiled_ms, decode.per, decode.timed_by) == (10.5, 15, "token", "trace")
    assert decode.factor == pytest.approx(15 / 10.5)
    batch = overheads(manifest(batch_size=2), instances)[1]
    assert (batch.per, batch.factor) == ("step", decode.factor)
    assert overheads(None, instances) == ()
    assert overheads(manifest(control=()), instances) == ()
    assert [one.stage for one in overheads(manifest(), instances[:1])] == ["prefill"]


def test_overheads_of_a_run_are_those_of_its_own_clock() -> None:
    """Both sides timed alike: the trace's ranges begin and end a little elsewhere."""
    captured = (ControlPass(0, 0, 22 * MS, 84 * MS, 5), ControlPass(0, 1, 42 * MS, 120 * MS, 4))
    run = manifest(profiled=captured)
    prefill, decode = overheads(run, (instance("prefill", 99 * MS), instance("decode", 999 * MS, steps=4)))
    assert (prefill, decode) == run_overheads(run)
    assert (prefill.unprofiled_ms, prefill.profiled_ms, prefill.factor, prefill.timed_by) == (16, 32, 2, "program")
    assert (decode.unprofiled_ms, decode.profiled_ms) == (11, (21 + 40) / 2)


def test_gpu_work_after_the_range_is_part_of_what_was_profiled() -> None:
    late = evolve(instance("decode", 40 * MS, steps=4), gpu_end_ns=84 * MS)
    (decode,) = overheads(manifest(), (late,))
    assert decode.profiled_ms == 21


@pytest.mark.parametrize(("factor", "worth"), [(1.249, False), (1.25, True)])
def test_one_threshold_for_what_is_worth_a_warning(factor: float, worth: bool) -> None:
    assert worth_a_warning(Overhead("decode", 1.0, factor, factor, "token")) == worth


# --- MFU and MBU by hand, on the H100 traces ------------------------------------------------------------------

T, STEPS = 916, 64
PEAK_FLOP, PEAK_BYTES = 989.4e12, 3.352e12
"""H100 SXM, dense bf16 and HBM3, NVIDIA's data sheet."""

EXPERT = 3 * 1280 * 896
DECODER = 12 * 4 * 1280**2 + 3 * 1280 * 6848 + 11 * (6 + 2) * EXPERT + 11 * 1280 * 64
"""Parameters that a token meets in the decoder: attention, the dense MLP, 6 of 64 experts and 2 shared, the router."""


def decode_flop(steps: int) -> int:
    contexts = range(T + 1, T + 1 + steps)
    return 2 * steps * (DECODER + 1280 * 129280) + sum(2 * 2 * 12 * 1280 * context for context in contexts)


def decode_kv_bytes(steps: int) -> int:
    return 2 * 12 * 1280 * 2 * (sum(range(T + 1, T + 1 + steps)) + steps)


def rows(report: Report) -> dict[tuple[str, str], Utilisation]:
    return {(one.stage, one.time_base): one for one in report.utilisation}


def stated(real_attribution: RealAttribution, name: str, **options: Any) -> Report:
    request = CostRequest("deepseek-ocr", "gundam", 6, T)
    return assemble(*real_attribution(name), None, ReportOptions(cost=request, **options))


@pytest.mark.parametrize(
    ("name", "instances", "steps"), [("deepseek-ocr_h100_64tok", 2, STEPS), ("deepseek-ocr_h100_small", 1, 4)]
)
def test_decode_by_hand(name: str, instances: int, steps: int, real_attribution: RealAttribution) -> None:
    report = stated(real_attribution, name)
    found = rows(report)
    decode = next(one for one in report.stages if one.stage == "decode")
    flop = instances * decode_flop(steps)
    for base, time_ns in (("profiled elapsed", decode.profiled_ns), ("profiled gpu busy", decode.busy_ns)):
        row = found["decode", base]
        assert (row.time_ns, row.flop, row.flop_full, row.peak_how) == (time_ns, flop, flop, "spec")
        assert row.bytes_moved is not None
        # Matrices as bf16, plus norms and one embedding row a step: 0.1 % at most.
        weights = row.bytes_moved - instances * decode_kv_bytes(steps)
        assert weights == pytest.approx(2 * instances * steps * (DECODER + 1280 * 129280), rel=1e-3)
        assert row.mfu == pytest.approx(flop / (time_ns / 1e9 * PEAK_FLOP))
        assert row.mbu == pytest.approx(row.bytes_moved / (time_ns / 1e9 * PEAK_BYTES))
        assert row.arithmetic_intensity == pytest.approx(flop / row.bytes_moved)
        assert row.ridge_point == pytest.approx(PEAK_FLOP / PEAK_BYTES)
        assert row.ideal_ns == round(row.bytes_moved / PEAK_BYTES * 1e9)  # decode: memory is the larger floor
        assert (row.unknown_because, row.suspect) == (None, None)


@pytest.mark.parametrize(("name", "instances"), [("deepseek-ocr_h100_64tok", 2), ("deepseek-ocr_h100_small", 1)])
def test_prefill_by_hand(name: str, instances: int, real_attribution: RealAttribution) -> None:
    report = stated(real_attribution, name)
    row = rows(report)["prefill", "profiled elapsed"]
    assert row.flop is not None
    assert row.flop_full is not None
    # Only the decoder's attention differs: T² query-key pairs in place of T(T+1)/2.
    assert row.flop_full - row.flop == instances * 12 * 2 * 2 * 1280 * (T * T - T * (T + 1) // 2)
    without_vision = instances * (2 * T * DECODER + 2 * 1280 * 129280 + 12 * 2 * 2 * 1280 * T * (T + 1) // 2)
    assert row.flop > without_vision
    assert row.time_ns is not None
    assert row.mfu == pytest.approx(row.flop / (row.time_ns / 1e9 * PEAK_FLOP))
    assert row.mfu_full_attention == pytest.approx(row.flop_full / (row.time_ns / 1e9 * PEAK_FLOP))
    assert row.ideal_ns == pytest.approx(row.flop / PEAK_FLOP * 1e9, abs=1)  # prefill: arithmetic is the larger floor
    assert report.report.mfu_per_stage["prefill"] == row.mfu
    assert report.report.timings[0].tokens == instances * T


def test_the_total_is_the_sum_of_the_stages(real_attribution: RealAttribution) -> None:
    found = rows(stated(real_attribution, "deepseek-ocr_h100_64tok"))
    for base in ("profiled elapsed", "profiled gpu busy"):
        parts, total = [found[stage, base] for stage in ("prefill", "decode")], found["total", base]
        for field in ("time_ns", "flop", "flop_full", "bytes_moved"):
            assert getattr(total, field) == sum(getattr(one, field) for one in parts), field
        assert total.ideal_ns == pytest.approx(sum(one.ideal_ns or 0 for one in parts), abs=2)


def test_derivations_can_be_checked_by_hand(real_attribution: RealAttribution) -> None:
    """What --explain prints is arithmetic that comes out."""
    for row in stated(real_attribution, "deepseek-ocr_h100_64tok").utilisation:
        words = row.derivation or ""
        flop, seconds, peak, mfu = map(
            float, re.findall(r"MFU = (\S+) FLOP / \((\S+) s × (\S+) TFLOP/s bf16 dense, spec\) = (\S+)%", words)[0]
        )
        assert mfu / 100 == pytest.approx(flop / (seconds * peak * 1e12), rel=1e-2)
        weights, read, written, seconds, rate, mbu = map(
            float,
            re.findall(
                r"MBU = \((\S+) weights \+ (\S+) KV read \+ (\S+) KV written\) bytes / \((\S+) s × (\S+) GB/s\) = (\S+)%",
                words,
            )[0],
        )
        assert mbu / 100 == pytest.approx((weights + read + written) / (seconds * rate * 1e9), rel=1e-3)


def test_stated_peaks_take_the_place_of_the_cards(real_attribution: RealAttribution) -> None:
    row = rows(stated(real_attribution, "deepseek-ocr_h100_small", peaks=PeakOverrides(100.0, 1000.0)))[
        "decode", "profiled elapsed"
    ]
    assert (row.peak_how, row.peak_flop_per_s, row.peak_bytes_per_s) == ("override", 100e12, 1e12)
    plain = rows(stated(real_attribution, "deepseek-ocr_h100_small"))["decode", "profiled elapsed"]
    assert row.mfu == pytest.approx((plain.mfu or 0) * 9.894)
    half = rows(stated(real_attribution, "deepseek-ocr_h100_small", peaks=PeakOverrides(100.0)))[
        "decode", "profiled elapsed"
    ]
    assert half.peak_bytes_per_s == PEAK_BYTES


# --- what is unknown, and what is suspect ---------------------------------------------------------------------


def cost(stage: str, flop: int, moved: int, *, image: int = 0, tokens: int = 4) -> StageCost:
    return StageCost(stage, image, tokens, 0, 0, (ComponentCost("other", flop, 2 * flop, moved),))  # type: ignore[arg-type]


PEAK = Peak("card", "card", {"bf16": 1e12}, 1e9, "here", "spec")


def used(
    costs: list[StageCost],
    *,
    control: tuple[ControlPass, ...] = (),
    peaks: tuple[Peak, ...] = (PEAK,),
    steps: int = 4,
    costs_missing: str | None = None,
    dtype: str = "bf16",
) -> dict[tuple[str, str, str | None], Utilisation]:
    """Of one image: prefill 10 ms (5 busy), decode 40 ms (20 busy)."""
    stages = [
        evolve(one, profiled_host_ns=time * MS, profiled_ns=time * MS, busy_ns=time * MS // 2)
        for one, time in zip(plain_report().stages, (10, 40), strict=True)
    ]
    instances = (instance("prefill", 10 * MS), instance("decode", 40 * MS, steps=steps))
    known = KnownCosts({(one.image_index, str(one.stage)): one for one in costs}, costs_missing)
    captured = captured_of(manifest(control=control), instances, stages=stages)
    found = utilisations(captured, known, KnownPeaks(peaks, "no peak is known"), dtype=dtype)
    return {(one.stage, one.time_base, one.peak_how): one for one in found}


COSTS = [cost("prefill", 2_000_000_000, 1_000_000), cost("decode", 400_000_000, 8_000_000)]


def test_every_stage_base_and_peak_has_a_row() -> None:
    measured = evolve(PEAK, flop_per_s={"bf16": 0.5e12}, bytes_per_s=0.5e9, how="measured")
    found = used(COSTS, control=(ControlPass(0, 0, 5 * MS, 20 * MS, 5),), peaks=(PEAK, measured))
    assert len(found) == 3 * 3 * 2
    assert found["prefill", "profiled elapsed", "spec"].mfu == pytest.approx(0.2)
    assert found["prefill", "profiled gpu busy", "spec"].mfu == pytest.approx(0.4)
    assert found["prefill", "unprofiled", "spec"].mfu == pytest.approx(0.4)
    assert found["prefill", "unprofiled", "measured"].mfu == pytest.approx(0.8)
    assert found["decode", "unprofiled", "spec"].mbu == pytest.approx(0.4)
    assert found["total", "unprofiled", "spec"].time_ns == 25 * MS
    for stage, mfu in {"prefill": 0.4, "decode": 0.02, "total": 0.096}.items():
        row = headline(list(found.values()), stage)
        assert row is not None
        assert row.mfu == pytest.approx(mfu)
        assert row.time_base == "unprofiled"


def test_headlines_without_a_control_run_take_the_elapsed_time() -> None:
    row = headline(list(used(COSTS).values()), "prefill")
    assert row is not None
    assert row.mfu == pytest.approx(0.2)
    assert row.time_base == "profiled elapsed"
    assert headline([], "prefill") is None


def test_above_one_is_suspect_and_far_above_is_no_value() -> None:
    found = used([cost("prefill", 12_000_000_000, 1), cost("decode", 1, 100_000_000)])
    over = found["prefill", "profiled elapsed", "spec"]
    assert over.mfu == pytest.approx(1.2)
    assert "FLOP count" in (over.suspect or "")
    assert over.mfu_full_attention is None, "2.4 lies beyond the guardrail"
    assert found["decode", "profiled elapsed", "spec"].mbu is None
    assert "byte count" in (found["decode", "profiled elapsed", "spec"].suspect or "")


def test_another_number_of_steps_is_no_match() -> None:
    row = used(COSTS, steps=3)["decode", "profiled elapsed", "spec"]
    assert (row.mfu, row.flop, row.unknown_because) == (
        None, None, "image[0] has 3 decode steps, but its cost was counted for 4",
    )  # fmt: skip
    row = used(COSTS, steps=0)["decode", "profiled elapsed", "spec"]
    assert "no decode_step range" in (row.unknown_because or "")
    assert used(COSTS, steps=3)["total", "profiled elapsed", "spec"].mfu is None, "a part of the run is no whole"
    assert used(COSTS, steps=3)["prefill", "profiled elapsed", "spec"].mfu is not None


def test_a_control_run_that_stopped_early_is_no_match() -> None:
    row = used(COSTS, control=(ControlPass(0, 0, 5 * MS, 15 * MS, 4),))["decode", "unprofiled", "spec"]
    assert "3 decode steps" in (row.unknown_because or "")
    row = used(COSTS, control=(ControlPass(0, 0, 5 * MS, 0, 1),))["decode", "unprofiled", "spec"]
    assert row.unknown_because == "no image of the control run reached this stage"


@pytest.mark.parametrize("stage", ["prefill", "decode", "total"])
def test_whatever_is_unknown_has_its_reason(stage: str) -> None:
    unknown = {
        "nobody counted": used([], costs_missing="nobody counted"),
        "no cost is known": used([]),
        "no peak is known": used(COSTS, peaks=()),
        "dense fp16 peak is unknown": used(COSTS, dtype="fp16"),
    }
    for words, found in unknown.items():
        row = next(one for key, one in found.items() if key[:2] == (stage, "profiled elapsed"))
        assert row.mfu is None
        assert words in (row.unknown_because or "")
    no_bandwidth = used(COSTS, peaks=(evolve(PEAK, bytes_per_s=None),))[stage, "profiled elapsed", "spec"]
    assert (no_bandwidth.mbu, no_bandwidth.ideal_ns) == (None, None)
    assert "bandwidth is unknown" in (no_bandwidth.unknown_because or "")


def test_where_costs_come_from() -> None:
    instances = (instance("prefill", 5), instance("decode", 5, steps=4))
    assert costs_of(None, None, instances).by_stage == {}
    assert "--model" in (costs_of(None, None, instances).missing or "")
    assert costs_of(manifest(costs_unknown_because="too large"), None, instances) == KnownCosts({}, "too large")
    assert costs_of(manifest(costs=tuple(COSTS)), None, instances).by_stage[0, "decode"].tokens == 4
    asked = costs_of(manifest(costs=tuple(COSTS)), CostRequest("deepseek-ocr", "base", 0, 50), instances)
    assert (asked.by_stage[0, "decode"].source, asked.missing) == ("closed form", None)
    with pytest.raises(RequestError, match="no closed form for 'llama'"):
        costs_of(None, CostRequest("llama", "base", 0, 50), instances)
    with pytest.raises(RequestError, match="unknown input mode 'huge'"):
        costs_of(None, CostRequest("deepseek-ocr", "huge", 0, 50), instances)


def test_which_peaks_count() -> None:
    spec = peaks_of(H100, None, PeakOverrides(), on_cpu=False, dtype="bf16")
    assert ([one.how for one in spec.peaks], spec.missing) == (["spec"], None)
    both = peaks_of(H100, manifest(measured_peak=MeasuredPeak("bf16", 700e12, 2e12, "matmul")), PeakOverrides(),
                    on_cpu=False, dtype="bf16").peaks  # fmt: skip
    assert [(one.how, one.flop_per_s["bf16"]) for one in both] == [("spec", 989.4e12), ("measured", 700e12)]
    assert peaks_of(H100, None, PeakOverrides(), on_cpu=True, dtype="bf16").peaks == (), "the GPU did not run it"
    cpu = peaks_of(None, manifest(measured_peak=MeasuredPeak("fp32", 1e11, 2e10, "matmul")), PeakOverrides(),
                   on_cpu=True, dtype="fp32").peaks  # fmt: skip
    assert [one.how for one in cpu] == ["measured"]
    nothing = peaks_of(Device(0, "Mystery 9000"), None, PeakOverrides(), on_cpu=False, dtype="bf16")
    assert nothing.peaks == ()
    assert "Mystery 9000" in (nothing.missing or "")
    (over,) = peaks_of(Device(0, "Mystery 9000"), None, PeakOverrides(100.0), on_cpu=False, dtype="bf16").peaks
    assert (over.how, over.flop_per_s["bf16"], over.bytes_per_s) == ("override", 100e12, None)


def test_a_run_on_a_cpu_is_not_held_against_the_gpu_beside_it(real_attribution: RealAttribution) -> None:
    """Nsight Systems describes the machine's GPU even where the run did not use it."""
    ran = manifest(
        request=LLMProfileRequest("/models/m", "/pages", device="cpu"),
        costs=(cost("prefill", 10**12, 10**9), cost("decode", 10**9, 10**9)),
    )
    report = assemble(*real_attribution("deepseek-ocr_h100_small"), ran)
    assert {row.mfu for row in report.utilisation} == {None}
    assert any("CPU" in (row.unknown_because or "") for row in report.utilisation)
