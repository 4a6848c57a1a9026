"""What bounds a stage: every answer from a stage made for it, and the answers on real captures."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import astuple, evolve
from rich.console import Console

import analysis
from analysis.attribution.attribution import Attribution
from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import from_json, to_json
from analysis.domain.entities import KernelSummary, LLMProfileReport, RunMeta
from analysis.domain.errors import RequestError
from analysis.domain.figures import exact_ms
from analysis.domain.manifest import ControlPass, PromptTokens, RunManifest
from analysis.efficiency.records import Captured, Measured, Utilisation
from analysis.efficiency.unit_times import unit_times
from analysis.efficiency.utilisation import CostRequest
from analysis.quality.findings import Finding
from analysis.render import formats
from analysis.render import json as json_
from analysis.render.terminal import print_report
from analysis.report import Report, ReportOptions, assemble
from analysis.sums.records import GapSummary, GpuRow, HostCallRow, InstanceSummary, StageSummary
from analysis.trace.reader import Trace
from analysis.verdict.notes import MOST_SENTENCES, sentences_in, stakeholder_notes
from analysis.verdict.ranking import ranking_of
from analysis.verdict.records import IDLE_TERMS, Verdict
from analysis.verdict.rules import refused, verdicts
from measured_builder import captured_of, measured_of
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
        stage=name, instances=2, tokens=10, profiled_host_ns=100 * MS, profiled_ns=100 * MS,
        projected_ns=100 * MS, busy_ns=busy * MS,
        kernel_sum_ns=busy * MS, gpu=gpu, launches=1000, graph_launches=0, synchronises=0,
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
    unit = None if ideal is None else ideal / (10 if name == "decode" else 2)
    return Utilisation(name, "profiled gpu busy", 90 * MS, 1, 1, 1, 1.0, 1.0, "spec", mfu, mfu, mbu, 1.0, 1.0, ideal,
                       reason, None, ideal_unit_ns=unit)  # fmt: skip


def parts_of(one: StageSummary) -> tuple[InstanceSummary, ...]:
    """The stage's instances, all alike."""
    count = one.instances
    gaps = one.gaps and GapSummary(*(value // count for value in astuple(one.gaps)))
    return tuple(
        InstanceSummary(
            f"image[{image}]/{one.stage}", f"image[{image}]", one.stage, 0, one.profiled_host_ns // count,
            one.profiled_host_ns // count, one.projected_ns // count, one.busy_ns // count, one.kernel_sum_ns // count,
            one.gpu.kernels // count, None, (one.tokens or 0) // count if one.stage == "decode" else 0,
            image_index=image, pass_index=0, launches=one.launches // count, gaps=gaps,
        )
        for image in range(count)
    )  # fmt: skip


def run_of(instances: Sequence[InstanceSummary], alone_ms: float, *, image_tokens: int = 1) -> RunManifest:
    """A run whose control pass took so long for each image, or for each token."""
    alone = round(alone_ms * MS)
    control = tuple(
        ControlPass(0, one.image_index or 0, alone, 0, 1)
        if one.stage == "prefill"
        else ControlPass(0, one.image_index or 0, MS, alone * one.steps, one.steps + 1)
        for one in instances
    )
    return RunManifest(
        "r", "complete", LLMProfileRequest("/m", "/pages"), "nsys", RunMeta("r", datetime(2026, 1, 2, tzinfo=UTC), 1),
        prompts=(PromptTokens(0, "base", 0, image_tokens, 10, 10 + image_tokens),), control=control,
    )  # fmt: skip


def judged(captured: Captured, row: Utilisation | None = None) -> Verdict:
    (found,) = verdicts(Measured(captured, unit_times(captured), (), (), (row or used(captured.stages[0].stage),)))
    return found


def judge(
    one: StageSummary,
    *kernels: KernelSummary,
    waits: tuple[HostCallRow, ...] = (),
    row: Utilisation | None = None,
    alone_ms: float | None = None,
    on_cpu: bool = False,
    image_tokens: int = 1,
) -> Verdict:
    instances = parts_of(one)
    run = None if alone_ms is None else run_of(instances, alone_ms, image_tokens=image_tokens)
    captured = captured_of(run, instances, stages=[one], kernels=kernels, host_calls=waits,
                           capture=evolve(plain_report().capture, on_cpu=on_cpu))  # fmt: skip
    found = judged(captured, row)
    assert found.stage == one.stage
    assert found.evidence
    assert found.action
    assert found.ceiling
    if found.bound != "unknown":
        assert found.bound in found.sentence
        assert re.search(r"\d", found.sentence)
    return found


# --- each bound -----------------------------------------------------------------------------------------------


LAUNCHING = GapSummary(80 * MS, 10, 8 * MS, 0, 60 * MS, 0, 20 * MS)
"""Of 80 ms idle, 60 inside launching calls."""


def test_launching_and_python_are_told_apart() -> None:
    found = judge(stage(busy=20, gaps=LAUNCHING))
    assert found.bound == "launch-bound"
    assert found.sentence == (
        "Decode is launch-bound: the GPU works 20.0 % of the profiled time; of 10.0 ms per token, the GPU idles 6.00 ms (60 %) "
        "while the host launches; next, the GPU idles 2.00 ms (20 %) while the host is in Python and the framework."
    )
    found = judge(stage(busy=20))
    assert found.bound == "host-bound in Python"
    assert "8.00 ms (80 %) while the host is in Python and the framework; next, " in found.sentence
    assert found.evidence[0] == "GPU busy 2.0 ms of 10.0 ms per token = 20.0 % (medians of 2)"
    assert (
        "1,000 launches, 100 per token (median); a launch every 30.0 µs, a kernel lasts 2.00 µs (means, profiled)"
        in found.evidence
    )


def test_launches_are_the_first_action_on_idle_time() -> None:
    found = judge(stage(busy=20, gaps=LAUNCHING))
    assert found.actions[0].kind == "launches"
    assert (found.ceiling_ns, found.ceiling) == (80 * MS, "This saves at most 8.00 ms per token.")
    assert found.action.startswith("Replay decode's 100 launches per token from a CUDA graph")
    assert "6.00 ms launching, 2.00 ms in Python and the framework per token" in found.actions[0].arithmetic


@pytest.mark.parametrize("busy", [0.001, 12.3456789, 59.4, 62.7, 99.9])
@pytest.mark.parametrize("alone", [None, 3.7])
@pytest.mark.parametrize("ideal", [None, 1.7, 10.0])
def test_the_terms_add_up_to_the_time_exactly(busy: float, alone: float | None, ideal: float | None) -> None:
    busy_ns = round(busy * MS)
    idle = 100 * MS - busy_ns
    parts = [idle // 7, idle // 3, idle // 11, idle // 5]
    gaps = GapSummary(idle, 10, idle // 10, parts[0], parts[1], parts[2], idle - sum(parts), parts[3], 4)
    one = evolve(stage(busy=1), busy_ns=busy_ns, kernel_sum_ns=busy_ns, gaps=gaps,
                 gpu=GpuRow("decode", 1000, busy_ns, busy_ns, busy_ns, 0, 0, 0, 0, 0, 0))  # fmt: skip
    rows = (kernel("NCCL AllReduce", busy_ns // 3, fastest=busy_ns // 60), kernel("GEMM", busy_ns - busy_ns // 3))
    budget = judge(one, *rows, alone_ms=alone,
                   row=used(ideal=None if ideal is None else round(ideal * MS))).budget  # fmt: skip
    assert budget is not None
    assert sum(term.per_unit_ns for term in budget.terms) == budget.time_ns
    assert budget.time_ns == (10 * MS if alone is None else round(alone * MS))
    assert sum(term.share for term in budget.terms) == pytest.approx(1)
    assert {term.how for term in budget.terms if term.key == "python"} <= {"measured" if alone is None else "scaled"}


def test_there_is_no_cliff() -> None:
    """The same prefill at 59.4 and 62.7 % busy told two stories."""
    below, above = judge(stage(busy=59), row=used(ideal=5 * MS)), judge(stage(busy=63), row=used(ideal=5 * MS))
    assert below.bound == above.bound == "kernel-bound"
    for found in (below, above):
        assert found.budget is not None
        assert [term.key for term in found.budget.largest()][:2] == ["kernels", "python"]
        assert "; next, the GPU idles" in found.sentence


def test_idle_is_judged_before_communication() -> None:
    """A rank that is a quarter busy, all of it in collectives, is not bound by them."""
    gaps = GapSummary(75 * MS, 10, 8 * MS, 15 * MS, 20 * MS, 20 * MS, 20 * MS)
    found = judge(stage(busy=25, gaps=gaps), kernel("NCCL AllReduce", 25 * MS, fastest=10_000))
    assert found.bound == "launch-bound"
    assert "next, collectives take" in found.sentence


def test_the_ceiling_is_that_of_the_unprofiled_run() -> None:
    """Profiling costs time of its own: what a graph saves is counted against the run without it."""
    found = judge(stage(busy=20), alone_ms=6.0)
    assert found.ceiling_ns == 40 * MS
    assert found.ceiling == "This saves at most 4.00 ms per token."
    assert any("measured under the profiler and scaled" in line for line in found.evidence)
    assert not any("no control run" in line for line in found.evidence)
    # Less time than the GPU alone was busy for: the two runs differ, and the device is the bound.
    none_left = judge(stage(busy=20), alone_ms=1.0, row=used(ideal=None, mfu=None, mbu=None))
    assert none_left.bound == "kernel-bound"
    assert (
        "= 100.0 %, cut from more: 2.00 ms GPU busy per token in the capture exceed the unprofiled 1.00 ms"
        in (none_left.evidence[0])
    )


def test_without_a_control_run_the_time_is_called_profiled() -> None:
    found = judge(stage(busy=20))
    assert "of the profiled time" in found.sentence
    (line,) = [one for one in found.evidence if one.startswith("no control run")]
    assert "an eager decode step took 1.3 to 1.5 times as long under the profiler" in line
    replayed = judge(stage(busy=20, launches=10, graph_launches=10))
    assert any("a decode step from a CUDA graph took 1.06 times" in one for one in replayed.evidence)


def test_the_bound_is_that_of_the_unprofiled_run() -> None:
    """The profiler slows the host: what it leaves of the GPU's share says little of the program alone."""
    busy = stage(busy=40, small_grid_share=0.1)
    assert judge(busy).bound == "host-bound in Python"
    found = judge(busy, alone_ms=5.0)
    assert found.bound == "kernel-bound"
    assert "works 80.0 % of the unprofiled time" in found.sentence
    assert found.evidence[0] == "GPU busy 4.00 ms of 5.00 ms per token without the profiler = 80.0 % (medians of 2)"
    slow = judge(stage(busy=20), alone_ms=8.0)
    assert slow.sentence.startswith("Decode is host-bound in Python: the GPU works 25.0 % of the unprofiled time")
    assert "under the profiler: GPU busy 2.0 ms of 10.0 ms per token = 20.0 %" in slow.evidence


def pages(*busy_and_elapsed_ms: tuple[float, float]) -> tuple[InstanceSummary, ...]:
    """One prefill a page, one after the other."""
    found = []
    at = 0
    for image, (busy, elapsed) in enumerate(busy_and_elapsed_ms):
        busy_ns, ns = round(busy * MS), round(elapsed * MS)
        found.append(
            InstanceSummary(
                f"image[{image}]/prefill", f"image[{image}]", "prefill", at, at + ns, ns, busy_ns, busy_ns, busy_ns, 100,
                None, 0, image_index=image, pass_index=0, launches=100,
                gaps=GapSummary(ns - busy_ns, 1, ns - busy_ns, 0, 0, 0, ns - busy_ns),
            )
        )  # fmt: skip
        at += ns
    return tuple(found)


def of_pages(
    instances: tuple[InstanceSummary, ...], alone_ms: Sequence[float] | None = None, **changes: Any
) -> Captured:
    busy, elapsed = sum(one.busy_ns for one in instances), sum(one.profiled_ns for one in instances)
    whole = evolve(stage("prefill", busy=1), instances=len(instances), busy_ns=busy, profiled_ns=elapsed,
                   profiled_host_ns=elapsed, kernel_sum_ns=busy, launches=sum(one.launches for one in instances))  # fmt: skip
    run = None
    if alone_ms is not None:
        run = evolve(
            run_of(instances, 1.0),
            control=tuple(ControlPass(0, image, round(ms * MS), 0, 1) for image, ms in enumerate(alone_ms)),
        )
    return captured_of(run, instances, stages=[whole], **changes)


def test_a_verdict_compares_like_with_like() -> None:
    """Of pages that differ, a mean of the busy time over a median of the time was 38.40 ms of 20.00 ms = 100 %."""
    found = judged(of_pages(pages(*[(8, 30)] * 4, (160, 500)), [20, 20, 20, 20, 400]))
    assert found.bound == "host-bound in Python"
    assert found.evidence[0] == "GPU busy 8.0 ms of 20.0 ms per image without the profiler = 40.0 % (medians of 5)"
    assert found.ceiling == "This saves at most 12.0 ms per image."
    assert found.ceiling_ns == round(12 * MS * (20 * 4 + 400) / 20), "over a pass: as many images as its time holds"


def test_only_images_of_both_runs_are_compared() -> None:
    """The capture holds the two long pages, the control run all four."""
    instances = tuple(
        evolve(one, image_index=image) for one, image in zip(pages((200, 500), (220, 520)), (2, 3), strict=True)
    )
    found = judged(of_pages(instances, [20, 20, 400, 440]))
    assert found.evidence[0] == "GPU busy 210 ms of 420 ms per image without the profiler = 50.0 % (medians of 2)"


def test_a_slow_first_instance_does_not_set_the_verdict() -> None:
    first = evolve(pages((30, 900))[0], gaps=GapSummary(870 * MS, 9, 800 * MS, 800 * MS, 0, 0, 70 * MS))
    instances = (first, *pages((0, 0), *[(18, 20)] * 4)[1:])
    steady = judged(of_pages(instances))
    assert steady.bound == "kernel-bound"
    assert "works 90.0 % of the profiled time" in steady.sentence


def test_skipped_instances_are_left_out_of_every_median() -> None:
    """Two of three are slow: the median alone does not help, and the user says how many to leave out."""
    instances = pages((30, 900), (30, 700), (18, 20), (18, 20))
    assert judged(of_pages(instances[:3])).bound == "host-bound in Python"
    found = judged(of_pages(instances, skip_first=2))
    assert found.bound == "kernel-bound"
    assert "18.0 ms of 20.0 ms per image = 90.0 % (medians of 2" in found.evidence[0]
    with pytest.raises(RequestError, match="--skip-first 4 leaves nothing of prefill, of which the trace holds 4"):
        of_pages(instances, skip_first=4)


@pytest.mark.parametrize(("busy", "alone"), [(0.4583, 2.0234), (1.005, 15.306), (0.0461, 2.02), (37.96, 64.18)])
def test_what_a_verdict_shows_adds_up(busy: float, alone: float) -> None:
    """2.02 − 0.46 was shown as 1.57."""
    found = judged(of_pages(pages((busy, 2 * alone)), [alone]))
    (line,) = [one for one in found.evidence if one.startswith(f"{alone:.6f} ms per image = ")]
    terms = [round(float(one) * 1e6) for one in re.findall(r"[\d.]{8,}", line)]
    assert terms[0] == sum(terms[1:])
    part, whole, shown = re.findall(r"GPU busy ([\d.]+) ms of ([\d.]+) ms .* = ([\d.]+) %", found.evidence[0])[0]
    assert round(100 * float(part) / float(whole), len(shown.partition(".")[2])) == float(shown)


def test_graphs_traced_as_a_whole_ask_for_their_kernels() -> None:
    graphs = evolve(stage(busy=90), small_grid_share=None, graph_launches=10, kernel_sum_ns=0)
    graphs = evolve(graphs, gpu=GpuRow("decode", 0, 0, 90 * MS, 90 * MS, 0, 0, 0, 0, 10, 90 * MS))
    found = judge(graphs, row=used(mfu=0.0004, mbu=0.093))
    assert found.bound == "kernel-bound"
    assert found.actions[0].kind == "hidden kernels"
    assert "cuda-graph-nodes" in found.action
    assert "10 CUDA graphs take 90.0 ms of 90.0 ms GPU time = 100.0 %" in found.actions[0].arithmetic
    assert found.ceiling == "This saves nothing by itself: it shows what makes up 8.00 ms per token."


def test_gaps_between_nodes_ask_for_fewer_nodes() -> None:
    gaps = GapSummary(80 * MS, 10, 8 * MS, 0, 10 * MS, 0, 0, in_graph_ns=70 * MS)
    found = judge(stage(busy=20, gaps=gaps, launches=10, graph_launches=10))
    assert found.bound == "bound by gaps in graphs"
    assert "the GPU idles 7.00 ms (70 %) between nodes of a CUDA graph" in found.sentence
    assert (found.actions[0].kind, found.ceiling) == ("graph gaps", "This saves at most 7.00 ms per token.")
    assert "a replay brings 100 of them" in found.action


def test_prefill_counts_images() -> None:
    found = judge(stage("prefill", busy=20))
    assert "of 50.0 ms per image" in found.sentence
    assert found.action.startswith(
        "Run less Python between the 500 launches per image: compile the modules, fuse, or batch images"
    )
    assert found.ceiling == "This saves at most 40.0 ms per image."
    assert "CUDA graph" not in found.action


def test_a_model_of_text_counts_prompts() -> None:
    found = judge(stage("prefill", busy=20), alone_ms=40.0, image_tokens=0)
    assert "500 launches per prompt" in found.action
    assert found.ceiling == "This saves at most 30.0 ms per prompt."
    assert "batch prompts" in found.action


def test_decode_of_unknown_length_counts_images() -> None:
    assert "per image" in judge(stage(busy=20, tokens=None)).sentence


@pytest.mark.parametrize("graphs", [10, 0])
def test_one_launch_a_token_needs_no_graph(graphs: int) -> None:
    found = judge(stage(busy=20, launches=10, graph_launches=graphs))
    between = "graph launches" if graphs else "launches"
    assert found.action.startswith(f"Shorten what the host does between {between} (1 launch per token)")
    assert "Replay" not in found.action


def test_what_a_graph_cannot_hold_goes_first() -> None:
    waits = (HostCallRow("decode", "cudaStreamSynchronize", 30, MS, "synchronise", "stage"),)
    found = judge(stage(busy=20, synchronises=30), waits=waits)
    assert found.action.startswith("Keep the 3 synchronises per token out of the step, for a CUDA graph can hold none")
    once = judge(stage(busy=20, synchronises=11))
    assert once.action.startswith("Keep the synchronise of each token out of the step")
    assert "waits: 30 × cudaStreamSynchronize (synchronise, 1.00 ms)" in found.evidence


def test_waiting_for_ranks() -> None:
    rows = (kernel("NCCL AllReduce", 60 * MS, fastest=1 * MS, median=2.0 * MS), kernel("GEMM", 20 * MS))
    found = judge(stage(busy=80), *rows)
    assert found.bound == "waiting for ranks"
    assert "collectives take 5.00 ms (50 %) beyond their fastest calls, waiting for other ranks" in found.sentence
    (action,) = [one for one in found.actions if one.kind == "ranks"]
    assert (action.ceiling_ns, action.kernels) == (50 * MS, ("some NCCL AllReduce",))
    assert "beyond the medians 40.0 ms of 60.0 ms = 66.7 % of communication" in action.arithmetic
    assert "One rank's trace cannot tell a late rank from a busy link" in action.sentence
    fast = judge(stage(busy=80), kernel("NCCL AllReduce", 60 * MS, fastest=6 * MS), kernel("GEMM", 20 * MS))
    assert fast.bound == "communication-bound"
    assert "collectives take 6.00 ms (60 %) at their fastest" in fast.sentence


@pytest.mark.parametrize("category", ["NCCL AllReduce", "custom AllReduce", "NCCL other"])
def test_communication_is_what_its_category_says(category: str) -> None:
    """An engine's own all-reduce is one: at 67 % of the kernel time it was "mixed" where NCCL's was named."""
    found = judge(stage(busy=90, kernel_sum_ns=90 * MS), kernel(category, 60 * MS), kernel("GEMM", 30 * MS))
    assert found.bound == "communication-bound"
    assert "collectives 60.0 ms of 90.0 ms kernel time = 66.7 %" in found.evidence


def test_compute_bound() -> None:
    found = judge(stage(busy=90), row=used(mfu=0.7, mbu=0.2, ideal=60 * MS))
    assert found.bound == "compute-bound"
    assert (
        "6.00 ms (60 %) is what it must move and compute, at peak; next, kernels take 3.00 ms (30 %)" in found.sentence
    )


def test_memory_bound() -> None:
    found = judge(stage(busy=90), row=used(mbu=0.7, ideal=60 * MS))
    assert found.bound == "memory-bound"
    assert "over GPU-busy time: MFU 10.0 %, MBU 70.0 %" in found.evidence
    ideal = next(term for term in found.budget.terms if term.key == "ideal") if found.budget else None
    assert ideal is not None
    assert (ideal.ceiling_ns, ideal.how) == (0, "computed")


def test_busy_with_unknown_work() -> None:
    found = judge(stage(busy=90), row=used(mfu=None, mbu=None, ideal=None))
    assert found.bound == "kernel-bound"
    assert "kernels run 9.00 ms (90 %), and their ideal time is not known" in found.sentence
    (term,) = [one for one in (found.budget.terms if found.budget else ()) if one.key == "kernels"]
    assert term.arithmetic.endswith("ideal time n/a: nobody counted")
    assert "--model" in term.action
    assert term.ceiling_ns is None, "how much of it could go is not known"


def test_nothing_on_the_gpu() -> None:
    found = judge(stage(busy=0, kernel_sum_ns=0))
    assert (found.bound, found.ceiling_ns) == ("unknown", None)


def test_a_gpu_that_works_on_after_the_host_has_left() -> None:
    """The stage ends with its GPU work: 300 ms busy of 300, not of the host's 100."""
    late = tuple(evolve(one, busy_ns=150 * MS, gpu_end_ns=one.start_ns + 150 * MS) for one in parts_of(stage(busy=50)))
    whole = evolve(stage(busy=300), profiled_ns=300 * MS)
    found = judged(captured_of(None, late, stages=[whole]))
    assert "works 100.0 % of the profiled time" in found.sentence
    assert found.evidence[0] == "GPU busy 30.0 ms of 30.0 ms per token = 100.0 % (medians of 2)"


def test_on_a_cpu_nothing_is_said_of_a_gpu() -> None:
    found = judge(stage(busy=90), kernel("GEMM", 50 * MS), on_cpu=True)
    assert (found.bound, found.ceiling_ns) == ("unknown", None)
    assert "operators fill 90.0 % of the profiled time" in found.sentence
    silent = judge(stage(busy=0), on_cpu=True)
    assert "host times only" in silent.sentence


# --- real captures --------------------------------------------------------------------------------------------


def report_of(real_attribution: RealAttribution, name: str, **options: Any) -> Report:
    return assemble(*real_attribution(name), None, ReportOptions(**options))


@pytest.mark.parametrize(
    ("name", "share", "launches"),
    [("deepseek-ocr_h100_64tok", "9.2 %", "866"), ("deepseek-ocr_h100_small", "5.4 %", "1,702")],
)
def test_decode_is_bound_by_the_host(name: str, share: str, launches: str, real_attribution: RealAttribution) -> None:
    report = report_of(real_attribution, name)
    found = next(one for one in report.verdicts if one.stage == "decode")
    decode = next(one for one in report.stages if one.stage == "decode")
    assert found.bound == "host-bound in Python"
    assert f"the GPU works {share} of the profiled time" in found.sentence
    assert f"{launches} launches per token" in found.action
    assert any("a launch every" in line for line in found.evidence)
    assert any("outside CUDA calls" in line for line in found.evidence)
    idle = found.budget.time_of(*IDLE_TERMS) if found.budget else 0
    assert idle == pytest.approx((decode.profiled_ns - decode.busy_ns) / (decode.tokens or 1), rel=0.01)


@pytest.mark.parametrize("name", [one for one in REAL if "lossy" not in one])
def test_real_budgets_add_up(name: str, real_attribution: RealAttribution) -> None:
    report = report_of(real_attribution, name)
    for found in report.verdicts:
        times = next(one for one in report.unit_times if one.stage == found.stage)
        assert found.budget is not None
        assert found.budget.time_ns == round(times.time_ns) == sum(term.per_unit_ns for term in found.budget.terms)
        assert found.actions
    ranks = sorted(action.rank for found in report.verdicts for action in found.actions)
    assert ranks == list(range(1, len(ranks) + 1))


def test_the_first_actions_of_64tok_are_those_found_by_hand(real_attribution: RealAttribution) -> None:
    request = CostRequest("deepseek-ocr", "gundam", 6, 916)
    report = report_of(real_attribution, "deepseek-ocr_h100_64tok", cost=request)
    prefill, decode = report.verdicts
    launches, bias, _ = prefill.actions
    assert launches.modules == ("sam", "clip")
    assert "sam and clip make 2,784 of 4,724 kernel launches" in launches.sentence
    assert bias.kind == "materialised"
    assert "32 launches of add and copy on grids of 393,216 and 360,000 blocks" in bias.sentence
    assert "18.6 ms of 78.3 ms kernel time" in bias.arithmetic
    assert bias.ceiling_per_unit_ns / 1e6 == pytest.approx(9.3, abs=0.05)
    first, small, experts = decode.actions
    assert first.kind == "launches"
    assert "866 launches per token" in first.sentence
    assert (small.kind, small.modules) == ("small kernels", ("layer*.mlp", "layer*", "layer*.attn"))
    assert "lm_head at 84.7 % of peak bandwidth" in small.arithmetic
    assert experts.kind == "below roofline"
    assert "routed_experts (layer*.mlp) nearer to peak bandwidth, of which they reach 36.3 %" in experts.sentence


def test_experts_looped_in_python_are_recognised(real_attribution: RealAttribution) -> None:
    prefill, decode = report_of(real_attribution, "deepseek-ocr_h100_small").verdicts
    assert prefill.actions[0].kind == "expert loop"
    for found in (prefill, decode):
        (loop,) = [one for one in found.actions if one.kind == "expert loop"]
        assert loop.modules == ("layers.*.mlp",)
        assert "grouped matrix products" in loop.sentence
        assert "3,070 of the capture's 3,124 synchronises and 3,070 small device-to-host copies" in loop.sentence
        part, rest, whole = re.findall(
            r"synchronises ([\d.]+) ms \+ ([\d.]+) ms of .* = ([\d.]+) ms per", loop.arithmetic
        )[0]
        assert float(part) + float(rest) == pytest.approx(float(whole), abs=1e-9)
    for found in report_of(real_attribution, "deepseek-ocr_h100_64tok").verdicts:
        assert "expert loop" not in {one.kind for one in found.actions}


def test_the_waits_of_small_are_named(real_attribution: RealAttribution) -> None:
    """Its experts ask the device for their token counts: 341 waits a token, which no CUDA graph can hold."""
    found = next(
        one for one in report_of(real_attribution, "deepseek-ocr_h100_small").verdicts if one.stage == "decode"
    )
    assert "341 synchronises per token" in found.action
    assert any("1,364 × cudaStreamSynchronize" in line for line in found.evidence)


def test_tensor_parallel_names_communication_and_the_slower_rank(real_attribution: RealAttribution) -> None:
    prefill, decode = report_of(real_attribution, "tensor-parallel_2xh200_rank0").verdicts
    assert decode.bound == "waiting for ranks"
    for found in (prefill, decode):
        assert "waiting for other ranks" in found.sentence
        assert "the traces of all ranks together (dsocr-analyze rank*.sqlite)" in found.action
        assert "One rank's trace cannot tell" in found.action


def test_lossy_is_refused(real_attribution: RealAttribution) -> None:
    report = report_of(real_attribution, "deepseek-ocr_h100_lossy")
    assert report.verdicts
    assert {one.bound for one in report.verdicts} == {"unknown"}
    assert all(one.sentence.startswith("No verdict on") and one.ceiling_ns is None for one in report.verdicts)
    assert report.report.notes.startswith(
        "Start with a new capture: this one is unfit for conclusions (3 ranges swallowed"
    )
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
    assert decode.bound == "kernel-bound"
    assert decode.actions[0].kind == "hidden kernels"
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


# --- in every output -----------------------------------------------------------------------------------------------


def test_budget_and_actions_are_in_every_output(
    real_attribution: RealAttribution, real_trace: Callable[[str], Path], tmp_path: Path
) -> None:
    report = report_of(real_attribution, "deepseek-ocr_h100_small")
    decode = next(one for one in report.verdicts if one.stage == "decode")
    assert decode.budget is not None
    formats.render_all(report, tmp_path, ("markdown", "html", "json"))
    console = Console(file=io.StringIO(), width=150)
    print_report(report, console)
    texts = {
        "markdown": (tmp_path / "report.md").read_text(),
        "html": (tmp_path / "report.html").read_text(),
        "terminal": console.file.getvalue(),  # type: ignore[attr-defined]
    }
    for name, text in texts.items():
        assert (
            "Evidence and arithmetic of decode" if name == "html" else "Budget of decode, per token, profiled"
        ) in text, name
        for term in decode.budget.terms:
            assert exact_ms(term.per_unit_ns) in text, (name, term.key)
    plain = json.loads((tmp_path / "report.json").read_text())["detail"]["verdicts"][1]
    assert sum(term["per_unit_ns"] for term in plain["budget"]["terms"]) == plain["budget"]["time_ns"]
    assert [one["kind"] for one in plain["actions"]] == [one.kind for one in decode.actions]
    profile = analysis.load(real_trace("deepseek-ocr_h100_small"))
    frame = profile.budget()
    assert frame[frame.stage == "decode"].per_unit_ns.sum() == decode.budget.time_ns
    assert profile.actions()["rank"].tolist() == list(range(1, len(report.ranking.gains) + 1))


# --- notes ----------------------------------------------------------------------------------------------------


def noted(report: Report) -> str:
    return stakeholder_notes(measured_of(report), report.findings, report.verdicts, report.ranking)


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
        "Of 3.58 s in stages (profiled), decode 3.38 s (94 %)",
        "host-bound in Python",
        "Start with decode: replay it from a CUDA graph: 1,791 → 256 ms a page at best (at most −86 %, profiled).",
        "MFU 4.3 %",
    ):
        assert words in notes


def test_where_there_is_no_room_the_least_goes() -> None:
    """Everything at once is more than ten sentences: what to do first stays."""
    wordy = tuple(evolve(one, sentence="One is 1. Two is 2.", action="Do it.") for one in plain_report().verdicts)
    report = plain_report()
    waits = (HostCallRow("sam", "cudaStreamSynchronize", 9, MS, "synchronise", "module"),)
    notes = noted(evolve(report, verdicts=wordy, host_calls=waits))
    assert sentences_in(notes) == MOST_SENTENCES == 10
    assert notes.startswith(report.ranking.sentence)
    assert "Weights are random" in notes
    assert "Profiling slowed" not in notes


def test_notes_of_an_unfit_capture_conclude_nothing() -> None:
    unfit = Finding("lossy-capture", "unfit", "the profiler lost events", "3 signs", "again")
    report = plain_report()
    verdicts = refused(report.stages, (unfit,))
    ranking = ranking_of(measured_of(report), verdicts, (unfit,))
    assert (ranking.gains, ranking.time_ns) == ((), None)
    notes = noted(evolve(report, findings=(unfit,), verdicts=verdicts, ranking=ranking))
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
