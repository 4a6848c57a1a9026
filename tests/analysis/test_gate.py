"""The gate: what a policy may say, what passes, fails or cannot be judged, and the files for CI systems."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from junitparser import Error, Failure, JUnitXml, Skipped, TestSuite

from analysis.compare.noise import answer, interval
from analysis.compare.records import (
    Comparison,
    Contribution,
    KernelMatch,
    SettingChange,
    SideSummary,
    StageDifference,
)
from analysis.domain.bands import Band
from analysis.domain.errors import RequestError
from analysis.gate.judging import bands_of_policy, judge
from analysis.gate.policy import read_policy
from analysis.gate.records import Amount, GateResult, Policy
from analysis.render.gate import benchmark, junit, markdown
from analysis.render.gate.writing import write_gate
from report_builder import plain_report

MS = 1_000_000.0
GPU_CLOCK = SettingChange("clocks", "SM clock", ("1,980 MHz", "1,410 MHz"), True, "the GPU ran slower")


def side(label: str) -> SideSummary:
    return SideSummary(label, f"/runs/{label}", f"run-{label}", "deepseek-ocr", "NVIDIA H100", "nsys", True, {}, {})


def stage(
    name: str,
    base_ms: float,
    new_ms: float,
    *,
    spread: float = 0.002,
    band_ms: float | None = 0.1,
    settings: tuple[SettingChange, ...] = (),
) -> StageDifference:
    """Nine repetitions a side, evenly around their medians."""
    sides = [[ms * MS * (1 + spread * at) for at in range(-4, 5)] for ms in (base_ms, new_ms)]
    band = None if band_ms is None else Band(band_ms * MS, "6 rounds")
    measured = interval(sides[0], sides[1], band)
    given, because = answer((new_ms - base_ms) * MS, measured, settings)
    per = "token" if name == "decode" else "image"
    return StageDifference(
        name,
        per,
        True,
        base_ms * MS,
        new_ms * MS,
        (new_ms - base_ms) * MS,
        new_ms / base_ms,
        measured,
        given,
        because,
        1.0,
    )


def gpu(level: Any, name: str, base_ms: float, new_ms: float) -> Contribution:
    return Contribution(
        "decode", level, name, "GPU time", base_ms * MS, new_ms * MS, (new_ms - base_ms) * MS, 12.0, 12.0
    )


def compared(*stages: StageDifference, settings: tuple[SettingChange, ...] = ()) -> Comparison:
    return Comparison(
        side("base"),
        side("new"),
        "decode is slower",
        settings,
        stages or (stage("prefill", 80, 80), stage("decode", 2.8, 2.8)),
        (
            gpu("module", "layers.*.mlp", 1.0, 1.1),
            gpu("module", "lm_head", 0.2, 0.2),
            gpu("module", "new_module", 0.0, 0.3),
            gpu("class", "GEMM", 1.2, 1.3),
            evolve(gpu("host", "Python", 1.0, 9.0), kind="Python"),
        ),
        (
            KernelMatch("decode", "layers.*.mlp", "GEMM", "same work, another kernel", ("nvjet_64x8",), ("nvjet_128x8",),
                        3, 3, 0.8 * MS, 0.9 * MS, 0.1 * MS),
            KernelMatch("decode", "lm_head", "GEMM", "same work, another kernel", ("nvjet_64x8",), ("nvjet_128x8",),
                        1, 1, 0.2 * MS, 0.2 * MS, 0.0),
            KernelMatch("decode", "layers.*.mlp", "top-k", "vanished", ("topk",), (), 1, 0, 0.1 * MS, 0.0, -0.1 * MS),
        ),
        (),
    )  # fmt: skip


def policy(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "gate.toml"
    path.write_text(text)
    return read_policy(path)


def judged(tmp_path: Path, text: str, comparison: Comparison | None = None) -> GateResult:
    report = plain_report()
    return judge(policy(tmp_path, text), comparison or compared(), report, report)


def outcomes(result: GateResult) -> list[str]:
    return [check.outcome for check in result.checks]


# --- latencies ----------------------------------------------------------------------------------------------------------

RELATIVE = '[[stage]]\nstage = "decode"\nmax_increase = "3 %"\n'


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (stage("decode", 2.8, 2.81), "passed"),
        (stage("decode", 2.8, 3.2), "failed"),
        (stage("decode", 2.8, 2.0), "passed"),
        (stage("decode", 2.8, 3.2, band_ms=0.5), "passed"),
        (stage("decode", 2.8, 2.95, band_ms=None, spread=0.01), "cannot judge"),
        (stage("decode", 2.8, 2.81, band_ms=None, spread=0.05), "cannot judge"),
        (stage("decode", 2.8, 2.81, band_ms=None), "passed"),
        (evolve(stage("decode", 2.8, 3.2), interval=None), "cannot judge"),
    ],
    ids=["unchanged", "slower", "faster", "no more than unchanged runs", "perhaps slower", "may hide more",
         "small whatever it is", "not measured"],
)  # fmt: skip
def test_a_latency_may_grow_by_so_much_and_noise_is_neither_passed_nor_failed(
    difference: StageDifference, expected: str, tmp_path: Path
) -> None:
    result = judged(tmp_path, RELATIVE, compared(difference))
    assert outcomes(result) == [expected]
    assert result.outcome == expected
    if difference.interval is not None:
        assert "2.80 ms → " in result.checks[0].because


def test_a_fixed_limit_fails_beyond_noise_and_cannot_be_judged_within_it(tmp_path: Path) -> None:
    for limit, expected in (("2.9 ms", "passed"), ("2.75 ms", "cannot judge"), ("2.5 ms", "failed")):
        result = judged(tmp_path, f'[[stage]]\nstage = "decode"\nmax = "{limit}"\n')
        assert outcomes(result) == [expected], limit
    assert result.checks[0].because == "2.80 ms per token is 300 µs above the limit of 2.50 ms."


def test_what_forbids_a_comparison_leaves_fixed_limits_and_counts_alone(tmp_path: Path) -> None:
    result = judged(
        tmp_path,
        '[[stage]]\nmax_increase = "3 %"\nmax = "1 s"\n[[module]]\nname = "lm_head"\nmax_increase = "50 %"\n'
        '[[launches]]\nstage = "decode"\nmax_increase = 0\n',
        compared(settings=(GPU_CLOCK,)),
    )
    by_limit = {(check.table, check.limit): check for check in result.checks}
    assert by_limit["stage", "at most +3.0 %"].outcome == "cannot judge"
    assert by_limit["stage", "at most +3.0 %"].because == "The sides differ in SM clock: the GPU ran slower."
    assert by_limit["module", "at most +50.0 %"].outcome == "cannot judge"
    assert by_limit["stage", "at most 1.00 s"].outcome == "passed"
    assert by_limit["launches", "at most +0"].outcome == "passed"
    other_inputs = SettingChange("inputs", "pages", ("a", "b"), True, "the work is another")
    result = judged(tmp_path, '[[launches]]\nstage = "decode"\nmax_increase = 0\n', compared(settings=(other_inputs,)))
    assert outcomes(result) == ["cannot judge"]


# --- GPU time, counts, shares ----------------------------------------------------------------------------------------------


def test_modules_and_classes_are_limited_by_patterns(tmp_path: Path) -> None:
    result = judged(
        tmp_path,
        '[[module]]\nstage = "decode"\nname = "layers.*"\nmax_increase = "5 %"\n'
        '[[module]]\nname = "l*"\nmax_increase = "0.2 ms"\n'
        '[[class]]\nname = "GEMM"\nmax = "1.5 ms"\n',
    )
    assert [(check.subject, check.outcome) for check in result.checks] == [
        ("decode · layers.*.mlp", "failed"),
        ("decode · layers.*.mlp", "passed"),
        ("decode · lm_head", "passed"),
        ("decode · GEMM", "passed"),
    ]
    assert result.checks[0].because == "1.00 ms → 1.10 ms per token (+10.0 %): more than +5.0 %."
    assert result.headline.startswith("Failed (4 limits checked, 1 exceeded): decode · layers.*.mlp, 1.00 ms → 1.10 ms")


def test_what_the_base_has_none_of_exceeds_every_relative_limit(tmp_path: Path) -> None:
    grown = '[[module]]\nname = "new_*"\nmax_increase = "500 %"\n'
    result = judged(tmp_path, grown)
    assert outcomes(result) == ["failed"]
    assert "(the base has none of it)" in result.checks[0].because
    assert judged(tmp_path, grown + 'ignore_below = "0.4 ms"\n').checks == ()


def test_kernels_match_by_any_of_their_names_and_add_up_over_modules(tmp_path: Path) -> None:
    for name in ("nvjet_64x8", "nvjet_128*", "GEMM"):
        (check,) = judged(tmp_path, f'[[kernel]]\nname = "{name}"\nmax_increase = "20 %"\n').checks
        assert check.new == pytest.approx(1.1 * MS)
        assert (check.base, check.outcome) == (1.0 * MS, "passed")
    (check,) = judged(tmp_path, '[[kernel]]\nname = "topk"\nmax_increase = 0\n').checks
    assert (check.new, check.outcome) == (0.0, "passed")


def test_launches_synchronises_and_copies_are_counted_per_unit(tmp_path: Path) -> None:
    base = plain_report()
    new = evolve(
        base,
        unit_times=tuple(evolve(row, launches=row.launches + 1) for row in base.unit_times),
        stages=tuple(evolve(row, synchronises=row.synchronises + 40) for row in base.stages),
    )
    text = (
        '[[launches]]\nstage = "decode"\nmax_increase = 0\n[[synchronises]]\nstage = "decode"\nmax = 1\n'
        '[[copies]]\nstage = "decode"\nmax_increase = 0\n'
    )
    result = judge(policy(tmp_path, text), compared(), base, new)
    assert [(check.subject, check.outcome) for check in result.checks] == [
        ("launches of decode", "failed"),
        ("synchronises of decode", "failed"),
        ("copies of decode", "passed"),
    ]
    launches, synchronises, _ = result.checks
    decode = next(row for row in base.stages if row.stage == "decode")
    assert launches.new == next(row.launches for row in base.unit_times if row.stage == "decode") + 1
    assert synchronises.new == (decode.synchronises + 40) / base.stage_units["decode"].count


def test_mfu_and_mbu_have_lower_limits(tmp_path: Path) -> None:
    report = plain_report()
    assert any(row.stage == "prefill" and row.mfu for row in report.utilisation)
    result = judged(tmp_path, '[[mfu]]\nstage = "prefill"\nmin = "99 %"\nmax_decrease = "10 %"\n')
    assert outcomes(result) == ["failed", "passed"]
    assert result.checks[0].limit == "at least 99.0 %"


def test_what_is_not_recorded_cannot_be_judged(tmp_path: Path) -> None:
    result = judged(tmp_path, '[[memory]]\nmax = "40 GB"\n')
    assert outcomes(result) == ["cannot judge"]
    assert result.checks[0].because.startswith("n/a: ")


def test_memory_is_the_peak_of_the_control_passes(tmp_path: Path) -> None:
    report = plain_report()
    assert report.manifest is not None
    sides = [evolve(report, manifest=evolve(report.manifest, peak_memory_bytes=size)) for size in (10**9, 11 * 10**8)]
    text = '[[memory]]\nmax = "1.2 GB"\nmax_increase = "5 %"\n'
    result = judge(policy(tmp_path, text), compared(), sides[0], sides[1])
    assert outcomes(result) == ["passed", "failed"]
    assert result.checks[1].because == "1.00 GB → 1.10 GB (+10.0 %): more than +5.0 %."
    assert result.checks[1].subject == "memory"


@pytest.mark.parametrize(("choice", "expected"), [("report", "cannot judge"), ("fail", "failed"), ("pass", "passed")])
def test_the_policy_says_what_becomes_of_what_cannot_be_judged(choice: str, expected: str, tmp_path: Path) -> None:
    text = f'on_cannot_judge = "{choice}"\n[[stage]]\nstage = "decode"\nmax_increase = "3 %"\n'
    result = judged(tmp_path, text, compared(stage("decode", 2.8, 2.95, band_ms=None, spread=0.01)))
    assert result.outcome == expected
    assert "1 cannot be judged" in result.headline


# --- the policy's words --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[modul]]\nmax = 1\n", "unknown key 'modul'; did you mean module?"),
        ('[[stage]]\nmax_incraese = "3 %"\n', "[[stage]] 1: unknown key 'max_incraese'; did you mean max_increase?"),
        ('[[stage]]\nstage = "decode"\n', "[[stage]] 1: limits nothing"),
        ('[[stage]]\nmax = "3 %"\n', '[[stage]] 1: max = 3 % is no time; write "1.2 ms"'),
        ('[[stage]]\nmax = "3 GB"\n', '[[stage]] 1: max = \'3 GB\' is not understood; write "1.2 ms" or "3 %"'),
        ("[[stage]]\nmax = 3\n", "[[stage]] 1: max = 3 is not understood"),
        ("[[launches]]\nmax = true\n", "[[launches]] 1: max = True is not understood; write 250"),
        ("[[launches]]\nmax = nan\n", "[[launches]] 1: max is nan, which is no finite number"),
        ('[[launches]]\nname = "x"\nmax = 1\n', "unknown key 'name'; did you mean"),
        ("[stage]\nmax = 1\n", "stage is a list of tables; write [[stage]]"),
        ("stage = \n", "not valid TOML (Invalid value (at line 1, column 9))"),
        ("", "has no limit"),
        ("policy_version = 2\n[[launches]]\nmax = 1\n", "policy_version is 2, and this release reads 1"),
        ('on_cannot_judge = "maybe"\n', "on_cannot_judge is 'maybe'; write"),
        ('[[stage]]\nmax = "1 s"\nstage = 3\n', "[[stage]] 1: stage must be a pattern in quotes"),
        ('[bands]\ndecode = "x"\n[[launches]]\nmax = 1\n', "bands.decode = 'x' is not understood"),
        ("bands = 3\n[[launches]]\nmax = 1\n", "bands is a table"),
        ('[[launches]]\nmax = 1\noptional = "yes"\n', "optional must be true or false"),
        (f'[[stage]]\nmax = "{"9" * 400} ms"\n', "is not understood"),
        (f"[[launches]]\nmax = {'9' * 5000}\n", "not valid TOML"),
        (f"x = {'[' * 5000}\n", "not valid TOML"),
        ("[[mfu]]\nmin = 12\n", '[[mfu]] 1: min = 12 is more than all of the peak; write "12 %"'),
    ],
)
def test_what_a_policy_says_wrongly_is_one_line_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as raised:
        policy(tmp_path, text)
    assert message in str(raised.value)
    assert str(tmp_path / "gate.toml") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_policy_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        read_policy(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match="is not UTF-8"):
        read_policy(tmp_path / "latin.toml")


def test_amounts_have_units(tmp_path: Path) -> None:
    text = '[[stage]]\nmax = "1.5 s"\nmax_increase = "250 us"\nignore_below = "800ns"\n[[memory]]\nmax = "2 GiB"\n'
    first, second = policy(tmp_path, text).limits
    assert first.max == Amount(1.5e9, False, "1.5 s")
    assert first.max_increase == Amount(250e3, False, "250 us")
    assert first.ignore_below == Amount(800.0, False, "800ns")
    assert second.max == Amount(2 * 2.0**30, False, "2 GiB")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[module]]\nname = "layer.*.mlp"\nmax = "1 ms"\n', "no module is called 'layer.*.mlp'; nearest layers.*.mlp"),
        (
            f'[[stage]]\nstage = "{"x" * 4000}"\nmax = "1 ms"\n',
            "…xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'; there are prefill, decode",
        ),
        ('[[stage]]\nstage = "decoding"\nmax = "1 ms"\n', "no stage is called 'decoding'; there are prefill, decode"),
    ],
)
def test_a_limit_that_matches_nothing_is_a_mistake_unless_it_is_optional(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError) as raised:
        judged(tmp_path, text)
    assert message in str(raised.value)
    assert judged(tmp_path, text + "optional = true\n").checks == ()


def test_a_stage_that_is_gone_cannot_be_judged(tmp_path: Path) -> None:
    given = compared(stage("prefill", 80, 80))
    lost = evolve(given, base=evolve(given.base, units={"prefill": 3, "decode": 189}))
    result = judged(tmp_path, '[[stage]]\nmax_increase = "3 %"\n', lost)
    assert [(check.stage, check.outcome) for check in result.checks] == [
        ("prefill", "passed"),
        ("decode", "cannot judge"),
    ]
    assert "decode is not there on the new side" in result.checks[1].because
    assert result.outcome == "cannot judge"
    assert judged(tmp_path, '[[stage]]\nmax_increase = "3 %"\n', given).outcome == "passed"


def test_a_band_of_no_stage_is_said_to_be_used_for_nothing(tmp_path: Path) -> None:
    text = '[bands]\ndecoding = "2 %"\ndecode = "2 %"\n[[stage]]\nmax_increase = "90 %"\n'
    result = judged(tmp_path, text)
    (note,) = [note for note in result.notes if "used for nothing" in note]
    assert "bands.decoding" in note
    assert "prefill, decode" in note
    assert "used for nothing" in markdown.render(result)


def test_shares_are_points_apart(tmp_path: Path) -> None:
    (check,) = judged(tmp_path, '[[mfu]]\nstage = "prefill"\nmin = "90 %"\n').checks
    assert check.new is not None
    assert f"is {90 - 100 * check.new:.1f} points below the limit of 90.0 %" in check.because


def test_bands_of_a_policy_are_of_the_base_or_fixed(tmp_path: Path) -> None:
    read = policy(tmp_path, '[bands]\ndecode = "2 %"\nprefill = "3 ms"\nother = "1 %"\n[[launches]]\nmax = 1\n')
    bands = bands_of_policy(read, {"decode": 100.0})
    assert {stage: band.ns for stage, band in bands.items()} == {"decode": 2.0, "prefill": 3e6}
    assert bands["decode"].source.endswith("gate.toml states 2 %")


# --- files ----------------------------------------------------------------------------------------------------------------

MIXED = (
    '[[stage]]\nmax_increase = "3 %"\n[[module]]\nname = "layers.*"\nmax_increase = "5 %"\n'
    '[[launches]]\nmax_increase = 0\n[[mfu]]\nstage="prefill"\nmax_decrease = "1 %"\n'
)


def mixed(tmp_path: Path, **changes: Any) -> tuple[GateResult, Comparison]:
    comparison = compared(stage("prefill", 80, 83, band_ms=None), stage("decode", 2.8, 3.2))
    return evolve(judged(tmp_path, MIXED, comparison), **changes), comparison


def test_a_junit_report_is_read_by_a_junit_parser(tmp_path: Path) -> None:
    result, _ = mixed(tmp_path)
    path = tmp_path / "gate.junit.xml"
    path.write_bytes(junit.render(result))
    parsed = JUnitXml.fromfile(str(path))
    suites = [suite for suite in parsed if isinstance(suite, TestSuite)]
    assert [suite.name for suite in suites] == ["stage", "module", "launches", "mfu"]
    cases = [case for suite in suites for case in suite]
    assert len(cases) == parsed.tests == len(result.checks)
    assert parsed.failures == sum(suite.failures for suite in suites) == len(result.of("failed")) == 2
    assert parsed.skipped == sum(suite.skipped for suite in suites) == len(result.of("cannot judge")) == 1
    assert parsed.errors == 0
    for case, check in zip(cases, result.checks, strict=True):
        kinds = {"failed": [Failure], "cannot judge": [Skipped], "passed": []}[check.outcome]
        assert [type(outcome) for outcome in case.result] == kinds
        assert case.classname == f"gate.{check.table}"
        assert [outcome.message for outcome in case.result] == [check.because for _ in kinds]
    strict = evolve(result, on_cannot_judge="fail")
    path.write_bytes(junit.render(strict))
    parsed = JUnitXml.fromfile(str(path))
    assert (parsed.errors, parsed.skipped) == (1, 0)
    assert sum(type(outcome) is Error for suite in parsed for case in suite for outcome in case.result) == 1


HOSTILE = 'evil\x00\x1b[31m<b>&"]]>`|@all\ud800'


def test_hostile_names_break_no_file(tmp_path: Path) -> None:
    result, comparison = mixed(tmp_path)
    checks = tuple(evolve(check, name=HOSTILE, because=HOSTILE) for check in result.checks)
    hostile = evolve(result, checks=checks, base=side(HOSTILE), new=side(HOSTILE))
    paths = write_gate(hostile, comparison.stages, tmp_path / "out")
    assert [path.name for path in paths] == ["gate.md", "gate.json", "gate.junit.xml", "gate.benchmark.json"]
    assert JUnitXml.fromfile(str(tmp_path / "out" / "gate.junit.xml")).tests == len(checks)
    text = (tmp_path / "out" / "gate.md").read_text()
    assert "<b>" not in text
    assert "\x1b" not in text
    assert "@all" not in text
    json.loads((tmp_path / "out" / "gate.benchmark.json").read_text())


def test_the_benchmark_file_has_what_github_action_benchmark_reads(tmp_path: Path) -> None:
    result, comparison = mixed(tmp_path)
    entries = json.loads(benchmark.render(result, comparison.stages))
    assert len({entry["name"] for entry in entries}) == len(entries)
    for entry in entries:
        assert set(entry) <= {"name", "unit", "value", "range", "extra"}
        assert isinstance(entry["name"], str)
        assert entry["name"]
        assert isinstance(entry["unit"], str)
        assert entry["unit"]
        assert isinstance(entry["value"], float)
        assert math.isfinite(entry["value"])
    by_name = {entry["name"]: entry for entry in entries}
    assert not any("mfu" in name for name in by_name)
    assert by_name["stage decode"]["unit"] == "ms/token"
    assert by_name["stage decode"]["value"] == pytest.approx(3.2)
    assert by_name["stage decode"]["range"].startswith("± 0.0")
    assert by_name["module decode · layers.*.mlp"]["value"] == pytest.approx(1.1)
    assert "range" not in by_name["launches of decode"]


def test_the_markdown_is_short_and_says_what_was_exceeded_first(tmp_path: Path) -> None:
    result, _ = mixed(tmp_path, settings=(GPU_CLOCK,))
    text = markdown.render(result)
    lines = text.splitlines()
    assert lines[0] == "### ❌ Performance gate: failed"
    assert len(lines) < 60
    assert text.index("**Exceeded**") < text.index("**Cannot be judged**") < text.index("passed</summary>")
    assert "| `decode` | 2.80 ms | 3.20 ms per token | +14.3 % | at most +3.0 % |" in lines
    assert "- SM clock: `1,980 MHz` → `1,410 MHz`" in lines


def test_the_json_holds_every_check(tmp_path: Path) -> None:
    result, comparison = mixed(tmp_path)
    write_gate(result, comparison.stages, tmp_path)
    plain = json.loads((tmp_path / "gate.json").read_text())
    assert plain["schema_version"] == 1
    assert plain["outcome"] == "failed"
    assert [check["outcome"] for check in plain["checks"]] == outcomes(result)
    assert plain["headline"] == result.headline
