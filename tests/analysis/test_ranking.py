"""Where to start, and what it brings end to end: one base, ceilings that never add up twice, one sentence everywhere."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from analysis.attribution.attribution import Attribution
from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import from_json
from analysis.domain.entities import RunMeta
from analysis.domain.manifest import PromptTokens, RunManifest
from analysis.efficiency.records import Measured
from analysis.efficiency.unit_times import unit_times
from analysis.efficiency.utilisation import CostRequest
from analysis.render import formats
from analysis.render.markdown_tables import escaped
from analysis.render.spec.verdicts import ACTIONS
from analysis.render.terminal import print_headline
from analysis.report import Report, ReportOptions, assemble
from analysis.sums.records import InstanceSummary
from analysis.trace.reader import Trace
from analysis.verdict.ranking import Ranking, parts_in_words, ranking_of
from measured_builder import captured_of

RealAttribution = Callable[[str], tuple[Trace, Attribution]]

MS = 1_000_000
REAL = (
    "deepseek-ocr_h100_64tok", "deepseek-ocr_h100_gpu-metrics", "deepseek-ocr_h100_small", "deepseek-ocr_h100_recorded-graph",
    "deepseek-ocr_h200_cuda-graph", "deepseek-ocr_h200_torch", "llama_h100_cuda-graph", "tensor-parallel_2xh200_rank0",
)  # fmt: skip


def report_of(
    attribute: RealAttribution, name: str, *, record: str | None = None, cost: CostRequest | None = None
) -> Report:
    manifest = None
    if record is not None:
        path = Path(__file__).parents[1] / "data" / "runs" / f"{record}.json"
        manifest = from_json(RunManifest, path.read_text(), source=str(path))
    return assemble(*attribute(name), manifest, ReportOptions(cost=cost))


def numbers(sentence: str) -> tuple[float, float, float]:
    """``1,791 → 256 ms … (at most −86 %``."""
    shown = re.search(r"([\d,.]+) → ([\d,.]+) \S+ .*\(at most −([\d.]+) %", sentence)
    assert shown is not None, sentence
    before, after, less = (float(text.replace(",", "")) for text in shown.groups())
    return before, after, less


def test_the_first_sentence_of_64tok(real_attribution: RealAttribution) -> None:
    """Two pages with 64 steps each: 24.0 ms of 26.4 ms a step are the host's, whatever prefill takes."""
    cost = CostRequest("deepseek-ocr", "gundam", 6, 916)
    ranking = report_of(real_attribution, "deepseek-ocr_h100_64tok", cost=cost).ranking
    assert ranking.sentence == (
        "Start with decode: replay it from a CUDA graph: 1,791 → 256 ms a page at best (at most −86 %, profiled)."
    )
    assert (ranking.unit, ranking.time_base) == ("page", "profiled")
    assert parts_in_words(ranking) == "1,791 ms a page, profiled = prefill 100 ms + decode 1,691 ms"
    decode = ranking.parts[1]
    assert decode.units == pytest.approx(64, rel=0.001)
    first = ranking.gains[0]
    assert first.saves_ns == pytest.approx(first.action.ceiling_per_unit_ns * decode.units, abs=1)


def test_a_control_run_is_the_base_where_there_is_one(real_attribution: RealAttribution) -> None:
    ranking = report_of(real_attribution, "deepseek-ocr_h200_cuda-graph", record="deepseek-ocr_h200_cuda-graph").ranking
    assert ranking.time_base == "unprofiled"
    assert "profiled" not in ranking.sentence
    assert ranking.sentence.startswith("Start with decode: see the kernels inside its CUDA graphs: these are 155")
    assert "saves nothing by itself. What could save most so far, in prefill: " in ranking.sentence
    first, second, *_ = ranking.gains
    assert (first.saves_ns, first.best_ns) == (0, ranking.time_ns)
    assert second.saves_ns > 0


def test_a_request_is_the_unit_where_nothing_names_pages(real_attribution: RealAttribution) -> None:
    ranking = report_of(real_attribution, "llama_h100_cuda-graph").ranking
    hidden = next(gain for gain in ranking.gains if gain.action.kind == "hidden kernels")
    values = {
        column.key: column.value(hidden) for column in ACTIONS.columns if column.key.startswith(("ceiling", "saves"))
    }
    assert values == {"ceiling_per_unit_ns": 0, "ceiling_ns": 0, "saves_ns": 0, "saves_share": 0}, "one row, one answer"
    assert ranking.unit == "request"
    assert ranking.parts[1].units == pytest.approx(64, rel=0.01)


@pytest.mark.parametrize("name", REAL)
def test_ceilings_agree_with_the_budgets(name: str, real_attribution: RealAttribution) -> None:
    """What is left is never less than what the action leaves alone, and all together never less than the ideal."""
    report = report_of(real_attribution, name)
    ranking = report.ranking
    assert ranking.time_ns is not None
    assert ranking.best_ns is not None
    assert sum(part.time_ns for part in ranking.parts) == ranking.time_ns
    parts = {part.stage: part.time_ns for part in ranking.parts}
    budgets = {verdict.stage: verdict.budget for verdict in report.verdicts}
    for gain in ranking.gains:
        there_is = 0.0
        for action in gain.actions:
            budget = budgets[action.stage]
            assert budget is not None
            there_is += parts[action.stage] * budget.time_of(*action.terms) / budget.time_ns
        assert gain.best_ns == ranking.time_ns - gain.saves_ns
        assert gain.concerns_ns <= there_is + 100, gain.action.short
        if gain.saves_ns:
            before, after, less = numbers(gain.sentence) if "under" not in gain.sentence else (1.0, 1.0, 0.0)
            assert 100 * (1 - after / before) == pytest.approx(less, abs=0.5001)
    ideal = sum(parts[stage] * budget.time_of("ideal") // budget.time_ns for stage, budget in budgets.items() if budget)
    assert ideal <= ranking.best_ns <= ranking.time_ns - max(gain.saves_ns for gain in ranking.gains)
    assert ranking.time_ns - ranking.best_ns <= sum(gain.saves_ns for gain in ranking.gains)
    assert [gain.rank for gain in ranking.gains] == list(range(1, len(ranking.gains) + 1))


def test_what_two_actions_take_from_is_counted_once(real_attribution: RealAttribution) -> None:
    """Grouped experts and a replayed graph both take from launching, Python and other calls, of prefill and of decode."""
    report = report_of(real_attribution, "deepseek-ocr_h100_small")
    ranking = report.ranking
    assert ranking.time_ns is not None
    assert ranking.best_ns is not None
    parts = {part.stage: part.time_ns for part in ranking.parts}
    there_is = 0.0
    for verdict in report.verdicts:
        assert verdict.budget is not None
        assert {"expert loop", "launches"} <= {action.kind for action in verdict.actions}
        touched = {term for action in verdict.actions for term in action.terms}
        there_is += parts[verdict.stage] * verdict.budget.time_of(*touched) / verdict.budget.time_ns
    assert sum(gain.saves_ns for gain in ranking.gains) > there_is
    assert ranking.time_ns - ranking.best_ns <= there_is + 100


def test_one_thing_to_do_in_several_stages_is_one_action(real_attribution: RealAttribution) -> None:
    """A loop over experts costs prefill and decode; grouped products replace it in both."""
    report = report_of(real_attribution, "deepseek-ocr_h100_small")
    first = report.ranking.gains[0]
    assert [action.kind for action in first.actions] == ["expert loop", "expert loop"]
    assert first.stages == "prefill and decode"
    assert report.ranking.sentence.startswith(
        "Start with prefill and decode: replace the loop over experts in layers.*.mlp"
    )
    of_stage = {part.stage: part.time_ns for part in report.ranking.parts}
    assert first.saves_ns > max(of_stage.values()), "more than either stage has"
    assert len({(gain.action.kind, gain.action.short) for gain in report.ranking.gains}) == len(report.ranking.gains)


@pytest.mark.parametrize(
    ("name", "whole", "gained"),
    [
        ("vllm_h100_llama", "", " for the whole capture at best (at most −"),
        ("vllm_h100_moe-eager", "a warm-up: 1 of 75 steps stalls, 0.897 s of 2.762 s. Then decode, mixed and prefill: ",
         ": 1,865 → 188 ms without the stalled step at best (at most −90 %, profiled)."),
    ],
)  # fmt: skip
def test_an_engines_steps_are_ranked_over_the_capture(
    name: str, whole: str, gained: str, real_attribution: RealAttribution
) -> None:
    """Steps of an engine serve many requests at once, so nothing less than the capture is whole."""
    ranking = report_of(real_attribution, name).ranking
    assert ranking.unit == "capture"
    assert {part.stage for part in ranking.parts} == {"prefill", "mixed", "decode", "empty"}
    assert ranking.sentence.startswith(f"Start with {whole}")
    assert gained in ranking.sentence
    assert {action.kind for action in ranking.gains[0].actions} == {"launches"}


@pytest.mark.parametrize("name", REAL)
def test_label_and_first_action_speak_of_the_same(name: str, real_attribution: RealAttribution) -> None:
    """A GPU that idles longer than it works is bound by no kernel, and idle time that is mostly Python not by launching."""
    for verdict in report_of(real_attribution, name).verdicts:
        budget = verdict.budget
        assert budget is not None
        idle = budget.time_of("launching", "synchronises", "python", "other_calls", "in_graph", "idle")
        if 2 * idle > budget.time_ns:
            assert verdict.bound in ("launch-bound", "host-bound in Python", "synchronise-bound")
        if verdict.bound == "launch-bound":
            assert budget.time_of("launching") >= budget.time_of("python")
        if verdict.bound == "host-bound in Python":
            assert budget.time_of("python") >= budget.time_of("launching")
        if verdict.bound == "kernel-bound" and "kernels" not in verdict.actions[0].terms:
            assert verdict.ceiling.endswith("No single change to its kernels could save more.")


@pytest.mark.parametrize("name", ["deepseek-ocr_h100_small", "llama_h100_cuda-graph"])
def test_the_sentence_comes_first_in_every_output(name: str, real_attribution: RealAttribution, tmp_path: Path) -> None:
    report = report_of(real_attribution, name)
    sentence = report.ranking.sentence
    formats.render_all(report, tmp_path, ("markdown", "html", "json"))
    console = Console(file=io.StringIO(), width=80)
    print_headline(report, console)
    screen = console.file.getvalue()  # type: ignore[attr-defined]
    assert " ".join(screen.split()).startswith(sentence)
    assert f"**{escaped(sentence)}**" in (tmp_path / "report.md").read_text().splitlines()[:4]
    page = (tmp_path / "report.html").read_text()
    assert page.index(sentence) < page.index('<section class="card"')
    for file in ("report.json", "summary.json"):
        written = json.loads((tmp_path / file).read_text())
        assert written["headline"] == sentence
        assert written["notes"].startswith(sentence)
    ranking = from_json(Ranking, json.dumps(json.loads((tmp_path / "summary.json").read_text())["ranking"]))
    assert ranking == report.ranking


def instances_of(pages: int, *, named: bool) -> tuple[InstanceSummary, ...]:
    """Prefill and decode of some pages, or of requests that no range names; 10 ms and 4 steps of 5 ms each."""
    found = []
    for page in range(pages):
        for stage, start, ms, steps in (("prefill", 0, 10, 0), ("decode", 10, 20, 4)):
            at, ns = (40 * page + start) * MS, ms * MS
            found.append(
                InstanceSummary(
                    f"{stage}#{page}", None, stage, at, at + ns, ns, ns // 2, ns // 2, ns // 2, 10, None, steps,
                    image_index=page if named else None, launches=10,
                )
            )  # fmt: skip
    return tuple(found)


@pytest.mark.parametrize(
    ("named", "batch", "image_tokens", "unit"),
    [(True, 1, 90, "page"), (True, 4, 90, "batch"), (True, 1, 0, "request"), (False, 1, 90, "request")],
)
def test_what_a_user_waits_for_is_the_unit(named: bool, batch: int, image_tokens: int, unit: str) -> None:
    manifest = RunManifest(
        "r", "complete", LLMProfileRequest("/m", "/pages"), "nsys", RunMeta("r", datetime(2026, 1, 2, tzinfo=UTC), 1),
        batch_size=batch, prompts=(PromptTokens(0, "base", 0, image_tokens, 10, 10 + image_tokens),),
    )  # fmt: skip
    captured = captured_of(manifest, instances_of(3, named=named))
    ranking = ranking_of(Measured(captured, unit_times(captured), (), (), ()), ())
    assert (ranking.unit, ranking.time_base, ranking.time_ns) == (unit, "profiled", 30 * MS)
    assert [(part.stage, part.time_ns, part.units) for part in ranking.parts] == [
        ("prefill", 10 * MS, 1.0),
        ("decode", 20 * MS, 4.0),
    ]
    assert parts_in_words(ranking) == f"30.0 ms a {unit}, profiled = prefill 10.0 ms + decode 20.0 ms"


def test_stages_that_ran_unequally_often_are_ranked_over_the_capture() -> None:
    *instances, _ = instances_of(3, named=False)
    captured = captured_of(None, instances)
    ranking = ranking_of(Measured(captured, unit_times(captured), (), (), ()), ())
    assert (ranking.unit, ranking.time_ns) == ("capture", (3 * 10 + 2 * 20) * MS)
