"""Every named figure is one number: in the terminal, Markdown, HTML, JSON, the notes and the runner's own line."""

from __future__ import annotations

import io
import json
import re
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from attrs import evolve
from rich.console import Console

from analysis.attribution.attribution import Attribution
from analysis.domain.annotations import STAGES
from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import from_json
from analysis.domain.entities import ModelUnderTest, RunMeta
from analysis.domain.figures import duration, ratio, share
from analysis.domain.manifest import ComponentCost, ControlPass, PromptTokens, RunManifest, StageCost
from analysis.domain.overhead import WORTH_A_WARNING
from analysis.render import json as json_renderer
from analysis.render import markdown
from analysis.render.html.page import page
from analysis.render.spec.text import visible
from analysis.render.terminal import print_headline, print_report
from analysis.report import Report, ReportOptions, assemble
from analysis.trace.reader import Trace
from runner.launcher.outcome import overhead_line
from trace_builder import TraceBuilder

MS: Final = 1_000_000
PREFILL_MS: Final = (20, 21, 22, 23, 400)
"""Unprofiled, by page: one takes twenty times as long as the others."""
STEP_MS: Final = (5, 6, 5, 7, 30)
STEPS: Final = 3
SLOWER: Final = 1.5
"""Under the profiler."""
BUSY: Final = 0.4
"""Of the unprofiled time."""
FACTORS: Final = (4.0, 1.0, 1.02)
"""Of the control passes; the first is cold."""
FLOP: Final = 1_000_000_000_000


def control() -> tuple[ControlPass, ...]:
    return tuple(
        ControlPass(number, image, round(factor * prefill * MS), STEPS * round(factor * step * MS), STEPS + 1,
                    (round(factor * step * MS),) * STEPS)
        for number, factor in enumerate(FACTORS)
        for image, (prefill, step) in enumerate(zip(PREFILL_MS, STEP_MS, strict=True))
    )  # fmt: skip


def captured() -> tuple[ControlPass, ...]:
    """The captured pass by the program's own clock: a little less than its ranges."""
    return tuple(
        ControlPass(0, image, round(SLOWER * prefill * MS) - 1000, STEPS * round(SLOWER * step * MS) - 1000, STEPS + 1)
        for image, (prefill, step) in enumerate(zip(PREFILL_MS, STEP_MS, strict=True))
    )


def run() -> RunManifest:
    costs = tuple(
        StageCost(stage, image, tokens, 0, 0, (ComponentCost("other", FLOP * (image + 1), FLOP * (image + 1), 1_000_000),))
        for image in range(len(PREFILL_MS))
        for stage, tokens in zip(STAGES, (100, STEPS), strict=True)
    )  # fmt: skip
    return RunManifest(
        "r1", "complete", LLMProfileRequest("/models/m", "/pages"), "nsys",
        RunMeta("r1", datetime(2026, 1, 2, tzinfo=UTC), len(FACTORS)), preset="default",
        model=ModelUnderTest("m", "/models/m", "bf16", "cuda:0", True),
        prompts=tuple(PromptTokens(image, "base", 0, 90, 10, 100, STEPS + 1) for image in range(len(PREFILL_MS))),
        control=control(), profiled=captured(), costs=costs,
    )  # fmt: skip


def trace() -> TraceBuilder:
    """The pages one after the other, slowed down; the GPU works as long as it would alone."""
    built = TraceBuilder().gpu()
    at = 0

    def working(until: int, busy: int) -> None:
        nonlocal at
        built.launch(at + 10, at + 20, ("gemm_bf16", at + 1000, at + 1000 + busy))
        at = until

    for image, (prefill, step) in enumerate(zip(PREFILL_MS, STEP_MS, strict=True)):
        length, one = round(SLOWER * prefill * MS), round(SLOWER * step * MS)
        built.range(f"image[{image}]", at, at + length + STEPS * one + 10, domain="dsocr")
        built.range("prefill", at, at + length, domain="dsocr", payload=100)
        working(at + length, round(BUSY * prefill * MS))
        built.range("decode", at, at + STEPS * one, domain="dsocr")
        for number in range(STEPS):
            built.range("decode_step", at, at + one - 5, domain="dsocr", payload=101 + number)
            working(at + one, round(BUSY * step * MS))
        at += 10
    return built


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return made(trace(), tmp_path_factory.mktemp("trace"), run())


def made(built: TraceBuilder, folder: Path, manifest: RunManifest | None, **options: Any) -> Report:
    with Trace(built.write(folder / "trace.sqlite")) as opened:
        return assemble(opened, Attribution.of(opened), manifest, ReportOptions(**options))


def screens(report: Report, folder: Path) -> dict[str, str]:
    """Each format's text, with blanks and marks of the format evened out."""
    found = {}
    for name, show in (("headline", print_headline), ("terminal", print_report)):
        console = Console(file=io.StringIO(), width=250, force_terminal=False)
        show(report, console)
        found[name] = console.file.getvalue()  # type: ignore[attr-defined]
    markdown.render(report, folder)
    found["markdown"] = re.sub(r"[|*`\\]", " ", (folder / "report.md").read_text())
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", page(report), flags=re.DOTALL)
    found["html"] = re.sub(r"<[^>]*>", " ", text).replace("&#39;", "'")
    return {name: re.sub(r"\s+", " ", text) for name, text in found.items()}


def medians(values: tuple[float, ...]) -> float:
    return statistics.median(factor * value for factor in FACTORS for value in values)


TTFT_MS: Final = medians(PREFILL_MS)
TPOT_MS: Final = medians(STEP_MS)
BUSY_SHARE: Final = {
    "prefill": BUSY * statistics.median(PREFILL_MS) / TTFT_MS,
    "decode": BUSY * statistics.median(STEP_MS) / TPOT_MS,
}
PASS_MS: Final = {"prefill": 1.02 * sum(PREFILL_MS), "decode": 1.02 * STEPS * sum(STEP_MS)}
"""Each page by its median over the passes, which is the third."""
MFU: Final = {stage: FLOP * 15 / (time / 1e3 * 989.4e12) for stage, time in PASS_MS.items()}
OVERHEAD: Final = {
    "prefill": (SLOWER * statistics.median(PREFILL_MS) - 0.001) / TTFT_MS,
    "decode": (SLOWER * statistics.median(STEP_MS) - 0.001 / STEPS) / TPOT_MS,
}


def test_the_figures_are_those_by_hand(report: Report) -> None:
    by_name = {one.name: one for one in report.aggregates}
    assert by_name["ttft_ms"].median == pytest.approx(TTFT_MS)
    assert by_name["tpot_ms"].median == pytest.approx(TPOT_MS)
    for one in report.unit_times:
        assert one.busy_share == pytest.approx(BUSY_SHARE[one.stage])
    rows = {(row.stage, row.time_base): row for row in report.utilisation}
    for stage, mfu in MFU.items():
        assert rows[stage, "unprofiled"].mfu == pytest.approx(mfu)
        assert report.report.mfu_per_stage[stage] == rows[stage, "unprofiled"].mfu  # type: ignore[index]
    assert {one.stage: one.factor for one in report.overhead} == pytest.approx(OVERHEAD)
    assert {one.stage: one.elapsed_ms for one in report.report.timings} == pytest.approx(PASS_MS)


def test_they_are_the_same_on_every_screen(report: Report, tmp_path: Path) -> None:
    ttft, tpot = duration(TTFT_MS * MS), duration(TPOT_MS * MS)
    for name, text in screens(report, tmp_path).items():
        first_screen = name in ("headline", "terminal")
        if first_screen:
            assert f"Medians, unprofiled: TTFT {ttft} (of 15: " in text, name
            assert f", TPOT {tpot} (of 15: " in text, name
        else:
            assert f"Time to first token {ttft} median of 15," in text, name
            assert f"Time per output token {tpot} median of 15," in text, name
        for stage, busy in BUSY_SHARE.items():
            if first_screen:
                assert re.search(rf"{stage} [\d.,]+ ms [\d.]+ % {share(busy)} .*? {ratio(MFU[stage])} ", text), (
                    name,
                    "row",
                )
            else:
                tile = f"GPU busy {share(busy)} " if name == "html" else f"GPU busy, {stage} {share(busy)} "
                assert tile in text, (name, "tile")
                assert f"MFU, {stage} {ratio(MFU[stage])} " in text, name
            assert (
                f"{stage.capitalize()} is host-bound in Python: the GPU works {share(busy)} of the unprofiled time"
                in text
            ), name
        if name == "headline":
            continue
        for stage, per in (("prefill", "image"), ("decode", "token")):
            evidence = re.findall(
                rf"GPU busy [\d.]+ ms of ([\d.]+) ms per {per} without the profiler = ([\d.]+ %)", text
            )
            assert [shown for _, shown in evidence] == [share(BUSY_SHARE[stage])], name
            assert float(evidence[0][0]) == pytest.approx(TTFT_MS if stage == "prefill" else TPOT_MS, rel=0.01), name
        if name != "markdown":  # it holds what fits into 200 lines
            assert f"· time, unprofiled {ttft} {tpot} " in text, name
            assert f"· GPU busy share {share(BUSY_SHARE['prefill'])} {share(BUSY_SHARE['decode'])} " in text, name
        for stage in BUSY_SHARE:
            assert re.search(rf"{stage} unprofiled, one pass .*? {re.escape(ratio(MFU[stage]))} ", text), name
        if name == "terminal":
            continue
        for stage, factor in OVERHEAD.items():
            assert re.search(rf"{stage} (image|token) [\d.]+ [\d.]+ {factor:.2f} ×", text), name
        if name == "markdown":  # notes are in report.json and on the page
            continue
        assert f"the first token takes {ttft} and each further one {tpot} (medians)" in text, name
        assert f"prefill MFU {ratio(MFU['prefill'])}" in text, name


def test_the_files_and_the_runners_line_say_the_same(report: Report, tmp_path: Path) -> None:
    json_renderer.render(report, tmp_path)
    detail = json.loads((tmp_path / "report.json").read_text())["detail"]
    by_name = {one["name"]: one for one in detail["aggregates"]}
    assert (by_name["ttft_ms"]["median"], by_name["tpot_ms"]["median"]) == pytest.approx((TTFT_MS, TPOT_MS))
    assert {one["stage"]: one["busy_share"] for one in detail["unit_times"]} == pytest.approx(BUSY_SHARE)
    assert {one["stage"]: one["factor"] for one in detail["overhead"]} == pytest.approx(OVERHEAD)
    assert {one["stage"]: one["mfu"] for one in detail["utilisation"] if one["time_base"] == "unprofiled"} == (
        pytest.approx(MFU | {"total": 30 * FLOP / (sum(PASS_MS.values()) / 1e3 * 989.4e12)})
    )
    line = overhead_line(run())
    assert line is not None
    assert "prefill took {:.2f} ×, decode took {:.2f} ×".format(*OVERHEAD.values()) in line
    named = re.findall(r"(prefill|decode) ([\d.]+) ×", report.report.notes)
    assert named == [(stage, f"{factor:.2f}") for stage, factor in OVERHEAD.items() if factor >= WORTH_A_WARNING]


def test_what_is_profiled_says_so_where_there_is_no_control_run(tmp_path: Path) -> None:
    report = made(trace(), tmp_path, None)
    texts = screens(report, tmp_path)
    for name, text in texts.items():
        if name in ("headline", "terminal"):
            assert f"Medians, profiled: TTFT {duration(SLOWER * 22 * MS)} (of 5: " in text, name
            assert f", TPOT {duration(SLOWER * 6 * MS)} (of 5: " in text, name
            assert "Not known: model and inputs" in text, name
            assert "; times without the profiler (a control run tells" in text, name
            continue
        assert f"Time to first token, profiled {duration(SLOWER * 22 * MS)} median of 5," in text, name
        assert f"Time per output token, profiled {duration(SLOWER * 6 * MS)} median of 5," in text, name
        tile = (
            r"33.0 ms per image, profiled.*? GPU busy [\d.]+ %"
            if name == "html"
            else (r"GPU busy, prefill [\d.]+ % [\d.]+ ms of 33.0 ms per image, profiled")
        )
        assert re.search(tile, text), name


def test_what_is_left_out_is_said_on_every_screen(tmp_path: Path) -> None:
    report = made(trace(), tmp_path, run(), skip_first=1)
    for name, text in screens(report, tmp_path).items():
        assert "The first instance of each stage is left out of medians" in text, name
    assert [one.instances for one in report.unit_times] == [4, 4]
    kernels = {row.name: row.kernels for row in report.stage_rows}
    assert (kernels["prefill"], kernels["decode"]) == (5, 5 * STEPS), "tables of GPU time hold all of the trace"


def test_the_peak_is_filled_in(report: Report) -> None:
    """The seed's field: the runner cannot know it, the analysis does."""
    assert run().meta.peak_tflops_bf16 is None
    assert report.report.meta is not None
    assert report.report.meta.peak_tflops_bf16 == 989.4


def test_a_peak_that_is_not_known_stays_unknown(tmp_path: Path) -> None:
    report = made(TraceBuilder().range("decode", 0, 9, domain="dsocr").launch(1, 2, ("k", 3, 4)), tmp_path, run())
    assert report.report.meta is not None
    assert report.report.meta.peak_tflops_bf16 is None


@pytest.mark.parametrize("name", ["deepseek-ocr_h200", "deepseek-ocr_h200_cuda-graph"])
def test_an_example_run_reads_the_same_in_its_trace_and_its_record(
    name: str, real_attribution: Callable[[str], tuple[Trace, Attribution]], tmp_path: Path
) -> None:
    """The record of a real run: its headline is the median of its control passes on every screen."""
    path = Path(__file__).parents[1] / "data" / "runs" / f"{name}.json"
    manifest = from_json(RunManifest, path.read_text(), source=str(path))
    ttft = statistics.median(one.prefill_ns for one in manifest.control)
    report = assemble(*real_attribution("deepseek-ocr_h200_cuda-graph"), manifest)
    for shown, text in screens(report, tmp_path).items():
        first_screen = shown in ("headline", "terminal")
        label = "Medians, unprofiled: TTFT {} (of 9: " if first_screen else "Time to first token {} median of 9,"
        assert label.format(duration(ttft)) in text, shown
        assert f"Unprofiled, the first token takes {duration(ttft)} " in text or shown != "html"
    assert next(one for one in report.unit_times if one.stage == "prefill").unprofiled_ns == ttft
    assert next(one for one in report.overhead if one.stage == "prefill").unprofiled_ms == pytest.approx(ttft / MS)


# --- a trace without stages -----------------------------------------------------------------------------------


def unstaged() -> TraceBuilder:
    """Two kernels and a copy, the host waiting once: 30 of 100 µs busy."""
    built = TraceBuilder().gpu().range("forward", 0, 200_000, domain="own")
    built.launch(5_000, 6_000, ("gemm_bf16", 10_000, 30_000)).launch(90_000, 91_000, ("softmax", 100_000, 105_000))
    built.copy(92_000, 93_000, (105_000, 110_000), kind="DtoH", size=8)
    return built.call(94_000, 120_000)


def test_a_trace_without_stages_is_judged_as_a_whole(tmp_path: Path) -> None:
    report = made(unstaged(), tmp_path, None)
    (verdict,) = report.verdicts
    assert (verdict.stage, verdict.bound, verdict.ceiling_ns) == ("capture", "host-bound in Python", 64_000)
    assert verdict.sentence.startswith(
        "The whole capture is host-bound in Python: the GPU works 30.0 % of the profiled time"
    )
    assert "GPU busy 30 µs of 100 µs in all = 30.0 %" in verdict.evidence
    assert any(line.startswith("while the GPU idled 70.0 µs") for line in verdict.evidence)
    assert any(line.startswith("device time by category: GEMM 66.7 %") for line in verdict.evidence)
    assert any("1 × cudaDeviceSynchronize" in line for line in verdict.evidence)
    assert verdict.action.startswith("Put NVTX ranges named prefill and decode")
    (stage,) = report.stages
    assert (stage.stage, stage.busy_ns, stage.profiled_ns, stage.launches) == ("capture", 30_000, 100_000, 2)
    assert report.report.timings == ()
    for name, text in screens(report, tmp_path).items():
        assert "The whole capture is host-bound in Python: the GPU works 30.0 % of the profiled time" in text, name
        if name in ("headline", "terminal"):
            assert "capture 100 µs 100.0 % 30.0 %" in text, name
            assert "; prefill and decode (put NVTX ranges of these names around them" in text, name
        else:
            tile = "GPU busy 30.0 % " if name == "html" else "GPU busy, capture 30.0 % 30 µs of 100 µs in all, profiled"
            assert tile in text, name
            assert (
                "Time to first token and Time per output token n/a the trace has no prefill and no decode ranges"
                in text
            ), name
        assert name in ("headline", "markdown") or "· GPU busy share 30.0 %" in text, name
    assert json.loads(to_text(report, tmp_path))["detail"]["verdicts"][0]["stage"] == "capture"
    assert "The whole capture is host-bound in Python" in report.report.notes
    assert report.report.notes.startswith(
        "Start here: compile, or replay what repeats as a CUDA graph: 100 → 36 µs for the"
    )


def to_text(report: Report, folder: Path) -> str:
    json_renderer.render(report, folder)
    return (folder / "report.json").read_text()


def test_processes_have_windows_of_their_own(tmp_path: Path) -> None:
    built = TraceBuilder()
    for pid, at in ((1, 0), (2, 500)):
        built.thread(pid, pid).launch(at, at + 5, ("k", at + 10, at + 50), device=pid - 1)
        built.launch(at + 60, at + 65, ("k", at + 70, at + 110), device=pid - 1)
    (stage,) = made(built, tmp_path, None).stages
    assert (stage.profiled_ns, stage.busy_ns) == (200, 160)
    assert stage.gaps is not None
    assert (stage.gaps.total_ns, stage.gaps.launching_ns) == (40, 10)


def test_names_in_a_capture_without_stages_are_text(tmp_path: Path) -> None:
    built = TraceBuilder().launch(0, 5, ("\x1b[31mk<b>", 10, 20)).launch(6, 7, ("\x1b[31mk<b>", 20, 90))
    report = made(built, tmp_path, None)
    for text in screens(report, tmp_path).values():
        assert "\x1b" not in text
        assert visible(text) == text


def test_nothing_on_the_gpu_and_no_stages_is_no_verdict(tmp_path: Path) -> None:
    report = made(TraceBuilder().range("forward", 0, 10, domain="own").call(1, 2), tmp_path, None)
    assert (report.stages, report.unit_times) == ((), ())
    assert {one.bound for one in report.verdicts} <= {"unknown"}


def test_on_a_cpu_the_busy_share_is_of_the_profiled_time(tmp_path: Path) -> None:
    """The profiler slows operators as it slows the host, so their time is no part of the unprofiled one."""
    on_cpu = evolve(run(), model=ModelUnderTest("m", "/models/m", "fp32", "cpu", True))
    found = made(trace(), tmp_path, on_cpu)
    for times in found.unit_times:
        assert times.unprofiled_ns is not None
        assert times.busy_share_base == "profiled"
        assert times.time_ns == times.profiled_ns
        assert times.busy_share == times.profiled_busy_share == pytest.approx(BUSY / SLOWER, rel=0.01)


def test_a_trace_without_stages_says_why_it_has_no_utilisation(tmp_path: Path) -> None:
    shown = screens(made(TraceBuilder().gpu().launch(0, 10, ("k", 20, 90)), tmp_path, None), tmp_path)
    assert "Utilisation n/a: the trace has no stages." in shown["markdown"]
    assert "how near its limits n/a: the trace has no stages." in shown["html"]
    assert "1 kernel, 0 copies, 0 memsets, 0 graphs as a whole" in shown["markdown"]


def test_one_instance_has_no_median_of_one(tmp_path: Path) -> None:
    built = TraceBuilder().gpu().range("decode", 0, 100, domain="dsocr").range("decode_step", 0, 90, domain="dsocr")
    shown = screens(made(built.launch(1, 5, ("k", 20, 80)), tmp_path, None), tmp_path)
    assert re.search(r"Launches per token 1 1 launch in all", shown["markdown"])
    assert "Medians, profiled: TPOT 100 ns Decode" in shown["headline"]
    no_kernels = TraceBuilder().gpu().range("decode", 0, 100, domain="dsocr").call(10, 30)
    (tmp_path / "none").mkdir()
    text = page(made(no_kernels.copy(40, 45, (50, 60)), tmp_path / "none", None))
    assert "no kernel of the stage was recorded" in text
