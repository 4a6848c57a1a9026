"""What bounds a stage: every answer from a stage made for it, and the answers on real captures."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from analysis.attribution.attribution import Attribution
from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import from_json, to_json
from analysis.domain.entities import KernelSummary, LLMProfileReport, RunMeta
from analysis.domain.manifest import Overhead, RunManifest
from analysis.efficiency.records import Utilisation
from analysis.efficiency.utilisation import CostRequest
from analysis.quality.findings import Finding
from analysis.render import json as json_
from analysis.report import Report, ReportOptions, assemble
from analysis.sums.records import GapSummary, GpuRow, HostCallRow, StageSummary
from analysis.trace.reader import Trace
from analysis.verdict import facts as verdict_facts
from analysis.verdict import rules as verdict
from analysis.verdict.notes import MOST_SENTENCES, sentences_in, stakeholder_notes
from analysis.verdict.records import Verdict
from report_builder import hostile_report, plain_report
from trace_builder import TraceBuilder

RealAttribution = Callable[[str], tuple[Trace, Attribution]]

MS = 1_000_000
REAL = (
    "deepseek-ocr_h100_64tok",
    "deepseek-ocr_h100_gpu-metrics",
    "deepseek-ocr_h100_lossy",
    "deepseek-ocr_h100_small",
    "llama_h100_cuda-graph",
    "tensor-parallel_2xh200_rank0",
)


def stage(name: str = "decode", *, busy: int, **changes: Any) -> StageSummary:
    """100 ms, 10 tokens, 1000 launches; idle time spent outside CUDA calls."""
    gpu = GpuRow(name, 1000, busy * MS, busy * MS, busy * MS, 0, 0, 0, 0, 0, 0)
    idle = max(0, 100 - busy) * MS
    plain = StageSummary(
        stage=name, instances=2, tokens=10, host_elapsed_ns=100 * MS, elapsed_ns=100 * MS, projected_ns=100 * MS, busy_ns=busy * MS,
        kernel_sum_ns=busy * MS, gpu=gpu, profiled_busy_share=busy / 100, launches=1000, graph_launches=0, synchronises=0,
        synchronise_ns=0, small_d2h_copies=0, host_launch_ns=MS, queue_delay_median_ns=5000.0,
        queue_delay_p95_ns=6000.0, mean_kernel_ns=2000.0, median_kernel_ns=1500.0, mean_launch_gap_ns=30_000.0,
        concurrency=1.0, gaps=GapSummary(idle, 10, idle // 10, 0, 0, 0, idle), small_grid_share=0.1,
    )  # fmt: skip
    return evolve(plain, **changes)


def kernel(
    category: str, total: int, *, calls: int = 10, fastest: int | None = None, median: float | None = None
) -> KernelSummary:
    each = total // calls
    return KernelSummary(category, category, category, "decode", calls, total, each, each if median is None else median,
                         each if fastest is None else fastest, 2 * each, share=0.5, human_name=f"some {category}")  # fmt: skip


def used(
    name: str = "decode", *, mfu: float | None = 0.1, mbu: float | None = 0.1, ideal: int | None = 10 * MS
) -> Utilisation:
    reason = None if mfu is not None else "nobody counted"
    return Utilisation(name, "gpu busy", MS, 1, 1, 1, 1.0, 1.0, "spec", mfu, mfu, mbu, 1.0, 1.0, ideal, reason, None)


def judge(
    one: StageSummary,
    *kernels: KernelSummary,
    waits: tuple[HostCallRow, ...] = (),
    row: Utilisation | None = None,
    overhead: tuple[Overhead, ...] = (),
    on_cpu: bool = False,
) -> Verdict:
    (found,) = verdict.verdicts([one], kernels, waits, [row] if row else [used()], overhead, on_cpu=on_cpu)
    assert found.stage == one.stage
    assert found.evidence
    assert found.action
    assert found.ceiling
    if found.bound != "unknown":
        assert found.bound in found.sentence
        assert re.search(r"\d", found.sentence)
    return found


# --- each bound -----------------------------------------------------------------------------------------------


def test_launch_bound() -> None:
    found = judge(stage(busy=20))
    assert (found.bound, found.ceiling_ns) == ("launch-bound", 80 * MS)
    assert found.sentence.startswith("Decode is launch-bound: the GPU works 20% of the time")
    assert "100 kernels per token" in found.sentence
    assert found.ceiling == (
        "Replaying decode as a CUDA graph saves at most 8.00 ms per token (10.00 ms profiled − 2.00 ms GPU busy)."
    )
    assert "1,000 launches = 100 per token; a launch every 30.00 µs, a kernel lasts 2.00 µs (mean)" in found.evidence
    assert "CUDA graph" in found.action


def test_the_ceiling_is_that_of_the_unprofiled_run() -> None:
    """Profiling costs time of its own: what a graph saves is counted against the run without it."""
    found = judge(stage(busy=20), overhead=(Overhead("decode", 6.0, 10.0, 10 / 6, "token"),))
    assert found.ceiling_ns == 40 * MS
    assert "4.00 ms per token (6.00 ms unprofiled − 2.00 ms GPU busy)" in found.ceiling
    # Less time than the GPU alone was busy for: the two runs differ, and the device is the bound.
    none_left = judge(stage(busy=20), overhead=(Overhead("decode", 1.0, 10.0, 10.0, "token"),))
    assert none_left.bound == "mixed"


def test_the_bound_is_that_of_the_unprofiled_run() -> None:
    """The profiler slows the host: what it leaves of the GPU's share says little of the program alone."""
    busy = stage(busy=40, small_grid_share=0.1)
    assert judge(busy).bound == "launch-bound"
    found = judge(busy, overhead=(Overhead("decode", 5.0, 10.0, 2.0, "token"),))
    assert found.bound == "mixed"
    assert "busy 80% of the unprofiled time" in found.sentence
    assert found.evidence[0] == "GPU busy 4.00 ms of 5.00 ms per token without the profiler = 80.0% (threshold 60%)"
    slow = judge(stage(busy=20), overhead=(Overhead("decode", 8.0, 10.0, 1.25, "token"),))
    assert slow.sentence.startswith("Decode is launch-bound: the GPU works 25% of the unprofiled time")
    assert "under the profiler: GPU busy 20.00 ms of 100.00 ms host time = 20.0% (idle 80.0%)" in slow.evidence


def test_mixed_names_the_largest_kernel_and_its_share() -> None:
    found = judge(stage(busy=90), kernel("GEMM", 45 * MS))
    assert found.action == "Start with the largest kernel: some GEMM (50% of the kernel time)."


def test_graphs_traced_as_a_whole_ask_for_their_kernels() -> None:
    graphs = evolve(stage(busy=90), small_grid_share=None, graph_launches=10)
    graphs = evolve(graphs, gpu=evolve(graphs.gpu, graphs=10, graph_ns=90 * MS))
    found = judge(graphs, row=used(mfu=0.0004, mbu=0.093))
    assert found.bound == "mixed"
    assert "CUDA graphs that reach 0.04% MFU and 9.3% MBU" in found.sentence
    assert "cuda-graph-nodes" in found.action


def test_launch_bound_prefill_counts_images() -> None:
    found = judge(stage("prefill", busy=20))
    assert found.bound == "launch-bound"
    assert "500 kernels per image" in found.sentence
    assert "40.00 ms per image (50.00 ms profiled − 10.00 ms GPU busy)" in found.ceiling
    assert "CUDA graph" not in found.action


def test_a_model_of_text_counts_prompts() -> None:
    alone = (Overhead("prefill", 40.0, 50.0, 1.25, "prompt"),)
    (found,) = verdict.verdicts([stage("prefill", busy=20)], (), (), [used()], alone, on_cpu=False, one_input="prompt")
    assert "500 kernels per prompt" in found.sentence
    assert "30.00 ms per prompt (40.00 ms unprofiled − 10.00 ms GPU busy)" in found.ceiling
    assert "batch prompts" in found.action


def test_decode_of_unknown_length_counts_images() -> None:
    assert "per image" in judge(stage(busy=20, tokens=None)).sentence


def test_launch_bound_although_it_replays_graphs() -> None:
    found = judge(stage(busy=20, launches=10, graph_launches=10))
    assert found.bound == "launch-bound"
    assert "Replay decode from a CUDA graph" not in found.action
    assert "graphs" in found.sentence


def test_what_a_graph_cannot_hold_goes_first() -> None:
    waits = (HostCallRow("decode", "cudaStreamSynchronize", 30, MS, "synchronise", "stage"),)
    found = judge(stage(busy=20, synchronises=30), waits=waits)
    assert found.action.startswith("Keep the 3 synchronises per token out of the step, for a CUDA graph can hold none")
    once = judge(stage(busy=20, synchronises=11))
    assert once.action.startswith("Keep the synchronise of each token out of the step")
    assert "waits: 30 × cudaStreamSynchronize (synchronise, 1.00 ms)" in found.evidence


def test_host_blocked_names_the_calls() -> None:
    gaps = GapSummary(80 * MS, 10, 8 * MS, 30 * MS, 10 * MS, 0, 40 * MS)
    waits = (
        HostCallRow("decode", "cudaStreamSynchronize", 30, 29 * MS, "synchronise", "stage"),
        HostCallRow("decode", "cudaMemcpyAsync", 30, MS, "small device-to-host copy", "stage"),
        HostCallRow("sam", "cudaEventSynchronize", 99, 99 * MS, "synchronise", "module"),
    )
    found = judge(stage(busy=20, gaps=gaps, synchronises=30), waits=waits)
    assert (found.bound, found.ceiling_ns) == ("host-blocked", 80 * MS)
    assert "38% of that inside synchronising calls" in found.sentence
    named = next(line for line in found.evidence if line.startswith("waits"))
    assert "30 × cudaStreamSynchronize" in named
    assert "30 × cudaMemcpyAsync (small device-to-host copy, 1.00 ms)" in named
    assert "cudaEventSynchronize" not in named, "a module's row is not the stage's"


def test_communication_bound() -> None:
    rows = (kernel("NCCL AllReduce", 40 * MS, fastest=1 * MS, median=2.0 * MS), kernel("GEMM", 40 * MS))
    found = judge(stage(busy=80), *rows)
    assert (found.bound, found.ceiling_ns) == ("communication-bound", 30 * MS)
    assert "collectives take 50% of the kernel time (40.00 ms), of which 30.00 ms is beyond" in found.sentence
    assert "rank" in found.sentence
    assert any(
        "time beyond the median of each collective: 20.00 ms = 50% of communication" in line for line in found.evidence
    )
    assert "3.00 ms per token" in found.ceiling


def test_little_communication_is_no_verdict() -> None:
    assert judge(stage(busy=80), kernel("NCCL AllReduce", 20 * MS), kernel("GEMM", 60 * MS)).bound == "mixed"


def test_compute_bound() -> None:
    found = judge(stage(busy=90), row=used(mfu=0.45, mbu=0.6))
    assert (found.bound, found.ceiling_ns) == ("compute-bound", 80 * MS)
    assert found.ceiling == ("Running at peak saves at most 8.00 ms per token (GPU busy 9.00 ms − ideal 1.00 ms).")


def test_memory_bound() -> None:
    found = judge(stage(busy=90), row=used(mbu=0.6))
    assert found.bound == "memory-bound"
    assert "MBU over GPU-busy time: 60.0% (threshold 50%)" in found.evidence


def test_under_occupied() -> None:
    found = judge(stage(busy=90, small_grid_share=0.7))
    assert found.bound == "under-occupied"
    assert "70%" in found.sentence


def test_mixed() -> None:
    found = judge(stage(busy=90), kernel("GEMM", 50 * MS))
    assert found.bound == "mixed"
    assert "some GEMM" in found.action


def test_busy_with_unknown_work() -> None:
    found = judge(stage(busy=90), row=used(mfu=None, mbu=None, ideal=None))
    assert (found.bound, found.ceiling_ns) == ("unknown", None)
    assert "--model" in found.action
    assert found.ceiling == "n/a: nobody counted"


def test_nothing_on_the_gpu() -> None:
    found = judge(stage(busy=0, kernel_sum_ns=0))
    assert (found.bound, found.ceiling_ns) == ("unknown", None)


def test_a_gpu_that_works_on_after_the_host_has_left() -> None:
    found = judge(stage(busy=300))
    assert "busy 100% of the time" in found.sentence
    assert "the GPU works on after the host has left the stage" in found.evidence[0]
    assert "-" not in found.evidence[0].replace("n/a", "")


@pytest.mark.parametrize("busy", [59, 60])
def test_the_threshold_is_the_documented_one(busy: int) -> None:
    assert verdict_facts.BUSY_ENOUGH == 0.6
    assert (judge(stage(busy=busy)).bound == "launch-bound") == (busy < 60)


def test_on_a_cpu_nothing_is_said_of_a_gpu() -> None:
    found = judge(stage(busy=90), kernel("GEMM", 50 * MS), on_cpu=True)
    assert (found.bound, found.ceiling_ns) == ("unknown", None)
    assert "operators fill 90% of its time" in found.sentence
    silent = judge(stage(busy=0), on_cpu=True)
    assert "host times only" in silent.sentence


# --- real captures --------------------------------------------------------------------------------------------


def report_of(real_attribution: RealAttribution, name: str, **options: Any) -> Report:
    return assemble(*real_attribution(name), None, ReportOptions(**options))


@pytest.mark.parametrize(
    ("name", "share", "launches"),
    [("deepseek-ocr_h100_64tok", "9%", "866"), ("deepseek-ocr_h100_small", "5%", "1,702")],
)
def test_decode_is_launch_bound(name: str, share: str, launches: str, real_attribution: RealAttribution) -> None:
    report = report_of(real_attribution, name)
    found = next(one for one in report.verdicts if one.stage == "decode")
    decode = next(one for one in report.stages if one.stage == "decode")
    assert found.bound == "launch-bound"
    assert f"the GPU works {share} of the time" in found.sentence
    assert f"{launches} kernels per token" in found.sentence
    assert any("a launch every" in line for line in found.evidence)
    assert any("outside CUDA calls" in line for line in found.evidence)
    assert found.ceiling_ns == pytest.approx(decode.host_elapsed_ns - decode.busy_ns, abs=1)
    saved = float(re.findall(r"saves at most ([\d.]+) ms per token", found.ceiling)[0])
    assert saved == pytest.approx((decode.host_elapsed_ns - decode.busy_ns) / (decode.tokens or 0) / 1e6, abs=0.005)


def test_the_waits_of_small_are_named(real_attribution: RealAttribution) -> None:
    """Its experts ask the device for their token counts: 341 waits a token, which no CUDA graph can hold."""
    found = next(
        one for one in report_of(real_attribution, "deepseek-ocr_h100_small").verdicts if one.stage == "decode"
    )
    assert "341 synchronises per token" in found.action
    assert any("1,364 × cudaStreamSynchronize" in line for line in found.evidence)


def test_tensor_parallel_names_communication_and_the_slower_rank(real_attribution: RealAttribution) -> None:
    for found in report_of(real_attribution, "tensor-parallel_2xh200_rank0").verdicts:
        assert found.bound == "communication-bound"
        assert "waiting for another rank" in found.sentence
        assert any("slower rank" in line and "one rank's trace cannot tell" in line for line in found.evidence)
        assert "other rank's trace" in found.action


def test_lossy_is_refused(real_attribution: RealAttribution) -> None:
    report = report_of(real_attribution, "deepseek-ocr_h100_lossy")
    assert report.verdicts
    assert {one.bound for one in report.verdicts} == {"unknown"}
    assert all(one.sentence.startswith("No verdict on") and one.ceiling_ns is None for one in report.verdicts)
    assert report.report.notes.startswith("This capture is unfit for conclusions")
    assert "bound" not in report.report.notes


def test_whole_graphs_say_what_they_hide(real_attribution: RealAttribution) -> None:
    report = report_of(real_attribution, "llama_h100_cuda-graph")
    (finding,) = [one for one in report.findings if one.code == "whole-graphs"]
    assert finding.severity == "info"
    assert "192 CUDA graph launches" in finding.title
    assert "invisible" in finding.evidence
    assert "--cuda-graph-trace=node" in finding.remedy
    assert "cuda-graph-nodes" in finding.remedy
    decode = next(one for one in report.verdicts if one.stage == "decode")
    assert decode.bound == "unknown"
    assert any("192 CUDA graphs" in line for line in decode.evidence)


def test_the_preset_that_the_finding_names_exists() -> None:
    preset = Path(__file__).parents[2] / "nsys_configs" / "cuda-graph-nodes.toml"
    assert "node" in preset.read_text()


def test_node_by_node_there_is_nothing_to_say(tmp_path: Path) -> None:
    built = TraceBuilder().range("decode", 0, 100, domain="dsocr")
    built.launch(10, 20, kernels=(("a", 30, 40), ("b", 40, 50)), name="cudaGraphLaunch_v10000")
    with Trace(built.write(tmp_path / "t.sqlite")) as trace:
        report = assemble(trace, Attribution.of(trace), None)
    assert "whole-graphs" not in {one.code for one in report.findings}
    (decode,) = report.stages
    assert (decode.launches, decode.graph_launches, decode.gpu.kernels, decode.gpu.graphs) == (1, 1, 2, 0)


# --- notes ----------------------------------------------------------------------------------------------------


def noted(report: Report, **changes: Any) -> str:
    parts: dict[str, Any] = {
        "capture": report.capture, "findings": report.findings, "stages": report.stages, "verdicts": report.verdicts,
        "categories": report.categories, "utilisation": report.utilisation, "overhead": report.overhead,
        "aggregates": report.aggregates, "host_calls": report.host_calls,
    } | changes  # fmt: skip
    return stakeholder_notes(**parts)


@pytest.mark.parametrize("name", REAL)
def test_notes_are_ten_sentences_at_most_and_quantities_have_numbers(
    name: str, real_attribution: RealAttribution
) -> None:
    notes = report_of(real_attribution, name).report.notes
    sentences = re.split(r"(?<=[.!?])\s+", notes)
    assert 1 <= len(sentences) <= 10
    assert sentences_in(notes) == len(sentences)
    for sentence in sentences:
        if re.search(r"bound:|mostly|saves|Of |calls sit|Against", sentence) and "unknown bound" not in sentence:
            assert re.search(r"\d", sentence), sentence


def test_notes_say_where_why_and_what_first(real_attribution: RealAttribution) -> None:
    request = CostRequest("deepseek-ocr", "gundam", 6, 916)
    notes = report_of(real_attribution, "deepseek-ocr_h100_64tok", cost=request).report.notes
    for words in (
        "decode 3,382.1 ms (94%)",
        "launch-bound",
        "First, for decode:",
        "saves at most 23.98 ms",
        "MFU 4.31%",
    ):
        assert words in notes


def test_where_there_is_no_room_the_least_goes() -> None:
    """Everything at once is more than ten sentences: what to do first stays."""
    wordy = tuple(evolve(one, sentence="One is 1. Two is 2.", action="Do it.") for one in plain_report().verdicts)
    report = plain_report()
    waits = (HostCallRow("sam", "cudaStreamSynchronize", 9, MS, "synchronise", "module"),)
    notes = noted(report, verdicts=wordy, host_calls=waits)
    assert sentences_in(notes) == MOST_SENTENCES == 10
    assert "First, for prefill: Do it." in notes
    assert "Weights are random" in notes
    assert "Profiling slowed" not in notes


def test_notes_of_an_unfit_capture_conclude_nothing() -> None:
    unfit = Finding("lossy-capture", "unfit", "the profiler lost events", "3 signs", "again")
    report = plain_report()
    notes = noted(report, findings=(unfit,), verdicts=verdict.refused(report.stages, (unfit,)))
    assert notes.count("unfit") == 3
    assert not re.search(r"First,|mostly|MFU", notes)


def test_hostile_names_in_notes_are_text() -> None:
    assert sentences_in(noted(hostile_report())) <= 10


# --- what leaves the program ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
def test_reports_of_real_captures_round_trip(name: str, real_attribution: RealAttribution, tmp_path: Path) -> None:
    report = report_of(real_attribution, name)
    assert from_json(LLMProfileReport, to_json(report.report), source="report") == report.report
    assert from_json(Report, to_json(report), source="detail") == report
    written = json_.render(report, tmp_path)
    assert {path.name for path in written} == {"report.json", "summary.json"}
    for row_field, capture_field in (
        ("kernels", "kernels"),
        ("memcpys", "memcpys"),
        ("memsets", "memsets"),
        ("graphs", "graphs"),
    ):
        assert sum(getattr(row, row_field) for row in report.stage_rows) == getattr(report.capture, capture_field)
    operations = real_attribution(name)[1].operations
    sums = (row.kernel_sum_ns + row.memcpy_ns + row.memset_ns + row.graph_ns for row in report.stage_rows)
    assert sum(sums) == int(operations.duration.sum())
    for stage_name in ("prefill", "decode"):
        total = next(row for row in report.stage_rows if row.name == stage_name)
        assert sum(row.kernel_sum_ns for row in report.module_rows[stage_name]) == total.kernel_sum_ns
        assert sum(row.graphs for row in report.module_rows[stage_name]) == total.graphs


def test_a_manifest_of_a_cpu_run_gets_a_cpu_verdict(tmp_path: Path) -> None:
    run = RunManifest(
        "r", "complete", LLMProfileRequest("/m", "/pages", device="cpu"), "nsys",
        RunMeta("r", datetime(2026, 1, 2, tzinfo=UTC), 1),
    )  # fmt: skip
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr").range("decode", 100, 200, domain="dsocr")
    with Trace(built.write(tmp_path / "t.sqlite")) as trace:
        report = assemble(trace, Attribution.of(trace), run)
    assert [one.bound for one in report.verdicts] == ["unknown"] * 2
    assert all("ran on a CPU" in one.sentence for one in report.verdicts)
