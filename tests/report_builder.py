"""A full `Report` with plausible numbers, and as hostile names as a profiled program can choose."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Literal

from attrs import evolve

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.entities import (
    InputImage,
    InputSet,
    KernelSummary,
    LLMProfileReport,
    ModelUnderTest,
    OperatorSummary,
    RunMeta,
    StageTiming,
    Stats,
)
from analysis.domain.manifest import ControlPass, Overhead, RunManifest
from analysis.domain.predictions import WHOLE, Came, Prediction, score
from analysis.efficiency.records import Aggregate, TimeBase, UnitTimes, Utilisation
from analysis.quality.findings import Finding
from analysis.report import Report
from analysis.sums.kernel_modules import KernelModuleRow, StageUnits
from analysis.sums.records import (
    BusyTimeline,
    CaptureInfo,
    CategoryRow,
    GapSummary,
    GpuRow,
    HostCallRow,
    InstanceSummary,
    MetricSeries,
    StageSummary,
    StepPoint,
    StreamSummary,
)
from analysis.verdict.ranking import Gain, Ranking, WorkPart
from analysis.verdict.records import Action, Verdict

__all__ = ["HOSTILE", "hostile_report", "plain_report"]

HOSTILE: Final = (
    "<script>document.title='owned'</script>",
    "</script><script>document.title='owned'</script><!--",
    "<img src=x onerror=\"document.title='owned'\">",
    "'\"`|&amp;| x | [link](http://localhost/evil) **bold** $x$ {{ 7 * 7 }} {% raw %}",
    "\x1b[31mred\x1b]0;title\x07 bell",
    "\u202eright-to-left \u2066isolated\u2069 zero\u200bwidth \u2028 line",
    "invalid \udcff\udc80 UTF-8",
    "void big<" + "std::pair<int, float>, " * 4500 + "end>(args)",
    '=HYPERLINK("http://localhost/")',
    "__proto__",
    "constructor.toString",
    "",
)


_PREDICTED: Final[tuple[tuple[str, str, int, int, int, Literal["unprofiled", "profiled"]], ...]] = (
    (WHOLE, "page", 1_518_000_000, 251_000_000, 263_000_000, "unprofiled"),
    ("decode", "token", 22_566_000, 2_582_000, 2_400_000, "unprofiled"),
    ("prefill", "image", 87_000_000, 41_000_000, 95_000_000, "profiled"),
)
"""Stage and unit; what it took, what it would at best, what it takes now, by which clock."""
_TIMED_NS: Final[dict[TimeBase, int]] = {
    "unprofiled": 40_000_000,
    "profiled elapsed": 99_000_000,
    "profiled gpu busy": 39_000_000,
}


def _row(name: str, kernels: int, kernel_sum_ns: int, copies: int = 0, copy_ns: int = 0) -> GpuRow:
    total = kernel_sum_ns + copy_ns
    return GpuRow(name, kernels, kernel_sum_ns, total, total + 1000, copies, copy_ns, 0, 0, 0, 0)


def _kernel(index: int, name: str, stage: str, total_ns: int, stage_ns: int) -> KernelSummary:
    calls = 3 + index
    return KernelSummary(
        name=name,
        short_name=name[:200],
        category="GEMM" if index % 2 else "elementwise",
        stage=stage,
        calls=calls,
        total_ns=total_ns,
        mean_ns=total_ns / calls,
        median_ns=total_ns / calls * 0.9,
        min_ns=total_ns // (2 * calls),
        max_ns=total_ns // 2,
        library="cuBLAS" if index % 3 else None,
        human_name=f"matrix product {index}" if index % 4 else None,
        tensor_core=(True, False, None)[index % 3],
        p95_ns=total_ns / calls * 1.4 if index % 5 else None,
        share=total_ns / stage_ns,
        per_token=calls / 4 if stage == "decode" else None,
        grid=(index + 1, 2, 1) if index % 7 else None,
        block=(128, 1, 1) if index % 7 else None,
        registers_per_thread=32 if index % 7 else None,
        theoretical_occupancy=0.5 if index % 7 else None,
        waves=0.25 * index if index % 7 else None,
    )


def _stage(stage: str, profiled_ns: int, gpu: GpuRow, tokens: int | None) -> StageSummary:
    idle = profiled_ns - gpu.busy_ns
    return StageSummary(
        stage=stage,
        instances=2,
        tokens=tokens,
        profiled_host_ns=profiled_ns,
        profiled_ns=profiled_ns,
        projected_ns=gpu.projected_ns,
        busy_ns=gpu.busy_ns,
        kernel_sum_ns=gpu.kernel_sum_ns,
        gpu=gpu,
        launches=gpu.kernels,
        graph_launches=0,
        synchronises=4,
        synchronise_ns=12_345,
        small_d2h_copies=3,
        host_launch_ns=idle // 3,
        queue_delay_median_ns=8_100.5,
        queue_delay_p95_ns=11_000.0,
        mean_kernel_ns=2_780.4,
        median_kernel_ns=1_790.0,
        mean_launch_gap_ns=30_510.0,
        concurrency=1.0,
        gaps=GapSummary(idle, 40, idle // 9, idle // 10, idle // 4, 0, idle - idle // 10 - idle // 4),
        small_grid_share=0.72,
    )


def _ranking(first: str) -> Ranking:
    def gain(rank: int, stage: str, per: str, each_ns: int, saves_ns: int) -> Gain:
        action = Action(
            stage, "launches", f"Replay {first} as a graph.", f"replay {first} as a graph", ("launching", "python"), (first,),
            (first,), f"the GPU idles while the host is in {first}", each_ns, per, 2 * saves_ns, rank,
        )  # fmt: skip
        return Gain(
            rank,
            (action,),
            saves_ns,
            saves_ns,
            130_000_000 - saves_ns,
            f"130 → {130 - saves_ns // 10**6} ms a page at best",
        )

    gains = (gain(1, "decode", "token", 20_000_000, 80_000_000), gain(2, "prefill", "image", 30_000_000, 30_000_000))
    return Ranking(
        sentence=f"Start with decode: replay {first} as a graph: 130 → 50 ms a page at best (at most −62 %).",
        unit="page",
        time_base="unprofiled",
        time_ns=130_000_000,
        parts=(
            WorkPart("prefill", 40_000_000, "image", 1.0, "unprofiled"),
            WorkPart("decode", 90_000_000, "token", 4.0, "unprofiled"),
        ),
        gains=gains,
        best_ns=20_000_000,
    )


def plain_report(
    names: tuple[str, ...] = ("void gemm<float>(int)", "copy_kernel", "softmax"), **changes: Any
) -> Report:
    """A report of two images, four decode steps, every part filled.

    Args:
        names: kernel names; modules, ranges and the rest take theirs from them too.
        changes: fields of `Report` to replace.
    """
    totals = {"prefill": 0, "decode": 0}
    weights = [1_000_003 * (len(names) - index) + 17 for index in range(len(names))]
    totals["prefill"], totals["decode"] = sum(weights), 2 * sum(weights)
    kernels = tuple(
        _kernel(index, name, stage, weight * factor, totals[stage])
        for stage, factor in (("prefill", 1), ("decode", 2))
        for index, (name, weight) in enumerate(zip(names, weights, strict=True))
    )
    calls = {stage: sum(one.calls for one in kernels if one.stage == stage) for stage in totals}
    prefill = _row("prefill", calls["prefill"], totals["prefill"], 2, 4_001)
    decode = _row("decode", calls["decode"], totals["decode"], 5, 7_003)
    rest = _row("(unattributed)", 1, 999)
    first = names[0] or "model"
    modules = tuple(_row(f"layers.{index}.{name}", 1, weight) for index, (name, weight) in
                    enumerate(zip(names, weights, strict=True)))  # fmt: skip
    elapsed = {"prefill": 5 * totals["prefill"], "decode": 12 * totals["decode"]}
    slice_ns = (elapsed["prefill"] + elapsed["decode"]) // 100
    model = ModelUnderTest("deepseek-ocr", "deepseek-ocr", "bf16", "cuda:0", True, parameters=3_335_504_128,
                           weights="random")  # fmt: skip
    images = InputSet("pages", "/pages", 1, (InputImage("/pages/a.png", 1024, 1024, "text_heavy"),))
    meta = RunMeta("run-1", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), 3, gpu_name="NVIDIA H100 80GB HBM3")
    manifest = RunManifest(
        run_id="run-1",
        status="complete",
        request=LLMProfileRequest("deepseek-ocr", "/pages"),
        collector="nsys",
        meta=meta,
        model=model,
        input_set=images,
        argv=("python", "-m", first),
        versions={"torch": "2.13.0"},
        control=(ControlPass(0, 0, 40_000_000, 90_000_000, 5),),
        synchronises=("once a step, for the EOS check",),
    )
    steps = tuple(
        StepPoint(f"image[{image}]/decode", step, 10_000_000 * step, 24_000_000 + 100_000 * step, 2_400_000, 866, 916 + step)
        for image in range(2)
        for step in range(2)
    )  # fmt: skip
    whole = LLMProfileReport(
        run_id="run-1",
        model=model,
        input_set=images,
        timings=(StageTiming("prefill", 40.0, 916, 22_900.0), StageTiming("decode", 90.0, 4, 44.4)),
        operators_topk=tuple(OperatorSummary(name, 9.5 * 0.9**index, 3.25, 7) for index, name in enumerate(names)),
        mfu_model_level=0.0024,
        mfu_per_stage={"prefill": 0.0431, "decode": 0.000046},
        aggregates={"ttft_ms": Stats(40.0, 0.5), "tpot_ms": Stats(22.5, 0.25)},
        notes=f"Decode is launch-bound. The longest kernel is {first}.",
        meta=meta,
    )
    report = Report(
        report=whole,
        capture=CaptureInfo(
            "/runs/run-1/trace.sqlite",
            20_049_920,
            "NVIDIA Nsight Systems 2025.3.2.0",
            "Nsight Systems",
            False,
            "3.20.3",
            "2026-01-02T03:04:05",
            3_600_000_000,
            ("NVIDIA H100 80GB HBM3",),
            1,
            2,
            calls["prefill"] + calls["decode"] + 1,
            7,
            0,
            0,
            400,
            120,
            "dsocr.module",
            True,
            False,
        ),
        findings=(Finding("tail-lost", "warning", f"The tail is lost after {first}", "evidence", "capture again"),),
        verdicts=tuple(
            Verdict(
                stage,
                "launch-bound",
                f"{stage} waits for {first}.",
                (f"busy 9 % in {first}",),
                "Replay as a graph.",
                23_980_000,
                "Saves at most 23.98 ms a token.",
            )
            for stage in totals
        ),
        ranking=_ranking(first),
        stages=(_stage("prefill", elapsed["prefill"], prefill, None), _stage("decode", elapsed["decode"], decode, 4)),
        instances=tuple(
            InstanceSummary(
                f"image[0]/{stage}",
                "image[0]",
                stage,
                start,
                start + elapsed[stage],
                elapsed[stage],
                row.projected_ns,
                row.busy_ns,
                row.kernel_sum_ns,
                row.kernels,
                916,
                4,
            )
            for stage, row, start in (("prefill", prefill, 0), ("decode", decode, elapsed["prefill"]))
        ),
        steps=steps,
        unit_times=tuple(
            UnitTimes(
                stage,
                per,
                2,
                row.busy_ns / units,
                elapsed[stage] / units,
                row.kernels / units,
                alone / units,
                row.busy_ns / alone,
                "unprofiled",
                row.busy_ns / elapsed[stage],
                row.busy_ns,
                elapsed[stage],
                alone,
            )
            for stage, per, units, row, alone in (
                ("prefill", "image", 1, prefill, 3 * totals["prefill"]),
                ("decode", "token", 4, decode, 8 * totals["decode"]),
            )
        ),
        utilisation=tuple(
            Utilisation(
                stage,
                base,
                time_ns,
                8_487_174_455_296,
                8_538_669_776_896,
                12_797_350_912,
                989.4e12,
                3.352e12,
                "spec",
                0.0431,
                0.0433,
                0.0192,
                663.2,
                295.2,
                8_578_102,
                None,
                "MFU = a / b = 4.31 %",
            )
            if stage == "prefill"
            else Utilisation(
                stage,
                base,
                time_ns,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                f"nobody counted {first}",
                None,
            )
            for stage in totals
            for base, time_ns in _TIMED_NS.items()
        ),
        stage_rows=(prefill, decode, rest),
        module_rows={"all": modules, "prefill": modules, "decode": modules},
        range_rows=modules,
        categories=tuple(
            CategoryRow(stage, category, calls[stage] // 2, totals[stage] // 2, 0.5)
            for stage in totals
            for category in ("GEMM", "elementwise")
        ),
        kernels=kernels,
        kernel_modules=tuple(
            KernelModuleRow(
                one.stage,
                f"layers.*.{first}",
                one.name,
                one.short_name,
                one.category,
                one.calls,
                one.total_ns,
                one.mean_ns,
                one.min_ns,
                one.max_ns,
                one.share,
                one.human_name,
                "token",
                one.calls / 4,
                one.total_ns / 4,
                one.grid,
                one.block,
                one.registers_per_thread,
                None,
                1,
                2,
            )
            for one in kernels
        ),
        stage_units={"prefill": StageUnits("image", 1), "decode": StageUnits("token", 4)},
        kernel_shapes=kernels,
        streams=(StreamSummary(0, 7, 40, 30_000_000, 29_000_000),),
        host_calls=tuple(
            HostCallRow(name, "cudaStreamSynchronize", 4, 12_345, "synchronise", "module") for name in names
        ),
        metrics=(
            MetricSeries(
                "SMs Active", "%", {"prefill": 9.82, "decode": 1.24}, (0, 1_000_000, 2_000_000), (1.0, 90.5, 3.0)
            ),
            MetricSeries(first, "%", {"prefill": 1.0}, (0, 1_000_000), (1.0, 2.0)),
        ),
        overhead=(Overhead("decode", 18.2, 25.1, 1.379, "token"),),
        aggregates=(
            Aggregate("ttft_ms", "ms", 40.0, 0.5, 39.9, 39.0, 41.0, 3, "control"),
            Aggregate("tpot_ms", "ms/token", 22.5, 0.25, 22.4, 22.0, 23.0, 3, "control"),
            Aggregate("profiled_itl_ms", "ms", 24.0, 0.1, 24.0, 23.9, 24.1, 4, "trace"),
        ),
        manifest=manifest,
        predictions=tuple(
            score(
                Prediction(
                    "26fb91c7-1a2b",
                    "2026-11-24T18:37:57+00:00",
                    stage,
                    unit,
                    "launch-bound",
                    f"replay {first} as a graph",
                    was,
                    best,
                    "unprofiled",
                    ("decode eager → cuda-graph", first),
                ),
                Came(came, unit, base),
            )
            for stage, unit, was, best, came, base in _PREDICTED
        ),
        timeline=BusyTimeline(0, slice_ns, tuple(slice_ns * (index % 10) // 10 for index in range(100))),
    )
    return evolve(report, **changes)


def hostile_report() -> Report:
    """A report in which everything that a profiled program names has a hostile name."""
    return plain_report(HOSTILE)
