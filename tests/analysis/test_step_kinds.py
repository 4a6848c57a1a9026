"""A serving engine's steps by kind: sums, units, bounds, and a whole report that reads by them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import analysis
from analysis.api.opening import opened
from analysis.api.options import AnalysisOptions
from analysis.attribution.attribution import Attribution
from analysis.domain.figures import duration
from analysis.render import markdown
from analysis.render.html import page as html
from analysis.render.html.icicle import module_costs
from analysis.render.html.stage_cards import stage_cards
from analysis.render.pictures import step_picture
from analysis.render.spec import facts, headline
from analysis.render.terminal import print_report
from analysis.report import Report
from analysis.sums.stages import gpu_rows
from analysis.sums.step_kinds import stalled
from analysis.sums.tables import gpu_table
from analysis.trace.reader import Trace
from trace_builder import TraceBuilder

Unpack = Callable[[str], Path]
VLLM = ("vllm_h100_llama", "vllm_h100_moe-eager")


@pytest.fixture(scope="module")
def reported(real_trace: Unpack) -> Callable[[str], Report]:
    """Name of a trace → its report, made once."""
    made: dict[str, Report] = {}

    def report(name: str) -> Report:
        if name not in made:
            with opened(real_trace(name), AnalysisOptions()) as trace:
                made[name] = trace.report()
        return made[name]

    return report


def built_report(builder: TraceBuilder, folder: Path) -> Report:
    with opened(builder.write(folder / "trace.sqlite"), AnalysisOptions(accept_lossy=True)) as trace:
        return trace.report()


def engine() -> TraceBuilder:
    """Two decode steps of 4 and 6 requests, then a mixed one with 5; each works for 10, 14 and 40 ns."""
    built = TraceBuilder()
    for start, name, work in (
        (0, "execute_context_0(0)_generation_4(4)", 10),
        (100, "execute_context_0(0)_generation_6(6)", 14),
        (200, "execute_context_1(64)_generation_5(5)", 40),
    ):
        built.range(name, start, start + 50).launch(start + 10, start + 11, ("gemm", start + 20, start + 20 + work))
    return built


def test_medians_leave_out_what_is_skipped_and_sums_do_not(tmp_path: Path) -> None:
    built = engine().range("execute_context_1(64)_generation_5(5)", 300, 350).launch(310, 311, ("gemm", 320, 330))
    path = built.write(tmp_path / "trace.sqlite")
    rows = {}
    for skip in (0, 1):
        with opened(path, AnalysisOptions(accept_lossy=True, skip_first=skip)) as trace:
            rows[skip] = {row.kind: row for row in trace.report().step_kinds}
    for kind, whole, rest in (("decode", 12.0, 14.0), ("mixed", 25.0, 10.0)):
        assert (rows[0][kind].busy_median_ns, rows[1][kind].busy_median_ns) == (whole, rest)
        assert rows[0][kind].busy_ns == rows[1][kind].busy_ns
        assert rows[0][kind].steps == rows[1][kind].steps == 2
    assert rows[1]["decode"].requests_median == 6
    assert rows[1]["mixed"].bounded_steps == 1


@pytest.mark.parametrize("name", VLLM)
def test_rows_add_up_to_the_stages_and_steps(reported: Callable[[str], Report], name: str) -> None:
    report = reported(name)
    assert [row.kind for row in report.step_kinds] == ["prefill", "mixed", "decode", "empty"]
    for row, stage in zip(report.step_kinds, report.stages, strict=True):
        mine = [step for step in report.steps if step.kind == row.kind]
        assert (row.kind, row.steps, row.kernels) == (stage.stage, len(mine), sum(step.kernels for step in mine))
        assert row.busy_ns == sum(step.busy_ns for step in mine) == stage.busy_ns
        assert row.step_ns == sum(step.step_ns or 0 for step in mine) == stage.profiled_ns
        assert row.launches == sum(step.launches or 0 for step in mine)
        assert row.tokens == stage.tokens == (row.prefill_tokens or 0) + (row.decode_tokens or 0)
    # Steps of one thread follow one another: together they take no longer than the time from the first to the last.
    window = max(step.finished_ns for step in report.steps) - min(step.start_ns for step in report.steps)
    assert sum(row.step_ns for row in report.step_kinds) <= window


@pytest.mark.parametrize("name", VLLM)
def test_verdicts_are_per_step_and_per_token_and_none_is_of_an_empty_step(
    reported: Callable[[str], Report], name: str
) -> None:
    report = reported(name)
    assert [verdict.stage for verdict in report.verdicts] == ["prefill", "mixed", "decode"]
    for verdict in report.verdicts:
        assert re.match(rf"A {verdict.stage} step is .* per step \(.* a token over [\d,]+ steps?\), ", verdict.sentence)
        assert verdict.budget is not None
        assert verdict.budget.per == "step"
        assert sum(term.per_unit_ns for term in verdict.budget.terms) == verdict.budget.time_ns


def test_a_mixed_steps_parts_are_bounded_by_decode_steps_of_like_size(tmp_path: Path) -> None:
    report = built_report(engine(), tmp_path)
    mixed = next(row for row in report.step_kinds if row.kind == "mixed")
    assert mixed.decode_part_at_most_ns == 12  # the median of 10 and 14
    assert mixed.prefill_part_at_least_ns == 28
    assert mixed.bounded_steps == 1
    evidence = "\n".join(next(verdict for verdict in report.verdicts if verdict.stage == "mixed").evidence)
    assert "at most 12 ns" in evidence
    assert "at least 28 ns" in evidence
    assert "bounds" in evidence


def test_no_decode_step_of_like_size_is_no_bound(tmp_path: Path) -> None:
    built = engine().range("execute_context_1(64)_generation_50(50)", 300, 350).launch(310, 311, ("gemm", 320, 360))
    mixed = next(row for row in built_report(built, tmp_path).step_kinds if row.kind == "mixed")
    assert (mixed.steps, mixed.bounded_steps) == (2, 1)


def test_a_step_ends_when_the_next_begins_if_the_gpu_still_works(tmp_path: Path) -> None:
    built = TraceBuilder()
    built.range("execute_context_0(0)_generation_1(1)", 0, 50).launch(10, 11, ("a", 20, 180))
    built.range("execute_context_0(0)_generation_1(1)", 100, 150).launch(110, 111, ("b", 180, 300))
    report = built_report(built, tmp_path)
    assert [(step.step_ns, step.queued_ns, step.between_ns) for step in report.steps] == [(100, 0, None), (200, 80, 50)]


def test_tokens_that_the_names_do_not_tell_stay_unknown(tmp_path: Path) -> None:
    built = TraceBuilder().range("execute_new_0_cached_2", 0, 50).launch(10, 11, ("a", 20, 30))
    (row,) = built_report(built, tmp_path).step_kinds
    assert (row.requests, row.tokens, row.per_token_ns) == (2, None, None)


@pytest.mark.parametrize("name", VLLM)
def test_every_output_shows_the_kinds(reported: Callable[[str], Report], tmp_path: Path, name: str) -> None:
    report = reported(name)
    console = Console(width=120, record=True, file=(tmp_path / "terminal.txt").open("w"))
    print_report(report, console)
    markdown.render(report, tmp_path)
    texts = (console.export_text(), (tmp_path / "report.md").read_text(), html.page(report))
    for text in texts:
        assert "Steps by kind" in text
        assert "Running requests, at most" in text
        assert "A mixed step is" in text
        assert "Tokens computed per second" in text or text is texts[0]
        assert "{'Module'" not in text
    assert "| Time to first token" not in texts[1]
    assert step_picture(report) is not None


@pytest.mark.parametrize("name", VLLM)
def test_why_no_mfu_is_known_is_said_once_a_place(reported: Callable[[str], Report], name: str) -> None:
    report = reported(name)
    (reason,) = {row.unknown_because for row in report.utilisation}
    assert "--config" in (reason or "")


def test_kinds_and_steps_are_data_frames(real_trace: Unpack) -> None:
    profile = analysis.load(real_trace("vllm_h100_llama"))
    kinds, steps = profile.step_kinds(), profile.steps()
    assert list(kinds["kind"]) == ["prefill", "mixed", "decode", "empty"]
    assert steps.groupby("kind")["busy_ns"].sum().to_dict() == dict(zip(kinds["kind"], kinds["busy_ns"], strict=True))
    assert set(profile.kernels("mixed")["stage"]) == {"mixed"}


def test_the_report_says_by_whose_names_it_was_read(reported: Callable[[str], Report]) -> None:
    report = reported("vllm_h100_llama")
    assert (report.capture.vocabulary, report.capture.vocabulary_ranges) == ("vllm", 74)
    (finding,) = [finding for finding in report.findings if finding.code == "vocabulary"]
    assert "vLLM" in finding.title
    assert "prefill 1, mixed 12, decode 59, empty 2" in finding.evidence
    assert not [finding for finding in report.findings if finding.code == "missing-stages"]


def test_a_step_stalls_by_its_idle_time_and_not_by_its_work() -> None:
    assert stalled([(640, 4), (12, 4)]) == (True, False), "of two, the shorter one is the usual one"
    assert stalled([(640, 630), (12, 4)]) == (False, False), "a long prompt keeps the GPU busy"
    assert stalled([(2, 0), (900, 0), (2, 0)]) == (False,) * 3, "empty steps do nothing"


def test_a_step_that_stalls_is_in_sums_but_neither_in_medians_nor_in_gains(reported: Callable[[str], Report]) -> None:
    """One mixed step of the eager trace takes 897 ms, of which the GPU works 5: ten others of its kind take 23."""
    report = reported("vllm_h100_moe-eager")
    ((path, ns),) = report.ranking.stalls
    (mixed,) = [row for row in report.step_kinds if row.kind == "mixed"]
    steps = [step.step_ns or 0 for step in report.steps if step.kind == "mixed"]
    assert (path, ns) == ("mixed#12", max(steps))
    assert (mixed.steps, mixed.stalled, mixed.step_ns) == (13, 1, sum(steps))
    rest = [step for step in steps if step != ns]
    assert mixed.step_median_ns == statistics.median(rest)
    (times,) = [times for times in report.unit_times if times.stage == "mixed"]
    assert (times.instances, times.profiled_ns, times.pass_profiled_ns) == (12, statistics.median(rest), sum(rest))
    for gain in report.ranking.gains:
        for action in gain.actions:
            assert action.stage != "mixed" or action.ceiling_ns <= sum(rest)
    assert {card.of_unit.partition(" of ")[2].partition(" (")[0] for card in stage_cards(report)} == {
        "all steps that do not stall"
    }
    assert " in steps that do not stall (profiled), " in report.report.notes
    (verdict,) = [verdict for verdict in report.verdicts if verdict.stage == "mixed"]
    (launching,) = [line for line in verdict.evidence if " launches, " in line]
    every = duration(times.profiled_ns / times.launches)
    assert f"in a median step a launch every {every}; a kernel lasts" in launching
    (told,) = [line for line in facts.cautions(report) if "talled" in line]
    assert "mixed#12 897 ms" in told


def test_a_step_that_did_something_else_is_named(reported: Callable[[str], Report]) -> None:
    assert not [finding for finding in reported("vllm_h100_llama").findings if finding.code == "slow-steps"]
    (finding,) = [finding for finding in reported("vllm_h100_moe-eager").findings if finding.code == "slow-steps"]
    assert finding.severity == "warning"
    assert re.search(
        r"mixed#\d+ \(execute_context_.*\) 89\d\.\d\d ms; the median of the 13 mixed steps is 22", finding.evidence
    )


def test_at_most_eight_tiles(real_trace: Unpack, tmp_path: Path) -> None:
    (config := tmp_path / "config.json").write_text(
        '{"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64, '
        '"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "torch_dtype": "bfloat16"}'
    )
    for stated in (None, config):
        with opened(real_trace("vllm_h100_llama"), AnalysisOptions(config=stated)) as trace:
            tiles = facts.headline(trace.report())
        assert len(tiles) == 8
        assert {"Prefill step", "Mixed step", "Decode step", "Tokens computed per second"} <= {
            tile.label for tile in tiles
        }
        assert ("MBU, decode" in {tile.label for tile in tiles}) == (stated is not None)


def test_graphs_that_were_recorded_before_the_collection_are_said_to_be(reported: Callable[[str], Report]) -> None:
    (finding,) = [row for row in reported("vllm_h100_llama").findings if row.code == "graph-modules-unknown"]
    assert "recorded before the first range of the trace" in finding.evidence
    assert "start the collection before the graphs are recorded (an engine: before its warm-up)" in finding.remedy


def test_a_program_with_plain_ranges_gets_the_verdicts_of_ours(tmp_path: Path) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="app").launch(10, 11, ("a", 20, 90))
    built.range("decode", 100, 400, domain="app")
    for start in (100, 200, 300):
        built.range("decode_step", start, start + 90, domain="app").launch(
            start + 10, start + 11, ("b", start + 20, start + 30)
        )
    report = built_report(built, tmp_path)
    assert [verdict.sentence.split(" is ")[0] for verdict in report.verdicts] == ["Prefill", "Decode"]
    assert [(row.stage, row.per) for row in report.unit_times] == [("prefill", "range"), ("decode", "token")]
    assert not report.step_kinds


@pytest.mark.parametrize("name", VLLM)
def test_modules_of_the_page_are_those_of_the_table_in_every_kind(
    real_attribution: Callable[[str], tuple[Trace, Attribution]], name: str
) -> None:
    _, attribution = real_attribution(name)
    for stage in attribution.stages:
        table = {
            row.name: row.kernels for row in gpu_rows(gpu_table(attribution, "module", stage=stage)) if row.kernels
        }
        assert {
            cost.module: cost.kernels for cost in module_costs(attribution) if cost.stage == stage and cost.kernels
        } == table


def test_the_control_run_of_an_engine_is_one_that_can_be_made(reported: Callable[[str], Report]) -> None:
    told = headline.not_known(reported("vllm_h100_llama"))
    assert "dsocr-profile exec --control 1" in told
    assert "dsocr-profile run" not in told
