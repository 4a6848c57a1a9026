"""Comparisons of real runs: what adds up, what is explained, and what forbids to judge."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
from attrs import evolve

import analysis
from analysis.api.comparing import DIFF_TABLES, frames
from analysis.api.sides import read_side
from analysis.compare.comparison import compare, compare_all
from analysis.compare.records import Comparison
from analysis.compare.sides import Side
from analysis.sums.grouping import UNATTRIBUTED

EXAMPLES = Path(__file__).parents[2] / "reports" / "examples"


@cache
def side(name: str) -> Side:
    return read_side(EXAMPLES / name)


@cache
def comparison(base: str, new: str) -> Comparison:
    return compare(side(base), side(new))


EAGER, GRAPH, SHORT = "deepseek-ocr_h100", "deepseek-ocr_h100_cuda-graph", "deepseek-ocr_h100_64tok"
PAIRS = [(EAGER, GRAPH), (GRAPH, EAGER), (SHORT, EAGER), (EAGER, EAGER), ("vllm_h100_exec", "vllm_h100_exec")]


@pytest.mark.parametrize("pair", PAIRS, ids=" to ".join)
def test_contributions_of_every_level_add_up_to_the_difference(pair: tuple[str, str]) -> None:
    made = comparison(*pair)
    assert made.stages
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for row in made.contributions:
        for place, value in enumerate((row.base_ns, row.new_ns, row.difference_ns)):
            sums[row.stage, row.level][place] += value
    for stage in made.stages:
        for level in ("stage", "module", "class", "kernel", "host"):
            found = sums[stage.stage, level]
            for value, expected in zip(found, (stage.base_ns, stage.new_ns, stage.difference_ns), strict=True):
                assert value == pytest.approx(expected, abs=1.0)  # of a nanosecond: sums of floats


def test_eager_against_cuda_graph_is_explained_within_two_per_cent() -> None:
    made = comparison(EAGER, GRAPH)
    for stage in made.stages:
        assert stage.unprofiled
        assert stage.explained == pytest.approx(1, abs=0.02)
    decode = next(stage for stage in made.stages if stage.stage == "decode")
    assert decode.answer == "improvement"
    assert decode.ratio == pytest.approx(0.124, abs=0.001)
    assert made.headline.startswith(
        "decode is 8.06 times as fast (22.6 ms → 2.80 ms per token): −19.8 ms, mostly idle time in Python"
    )


def test_the_rest_is_what_the_trace_does_not_see() -> None:
    """A decode whose ranges hold half of what the program timed is not explained, whatever the profiler's cost."""
    base, new = side(EAGER), side(GRAPH)
    half = evolve(
        new.report,
        overhead=tuple(
            evolve(row, profiled_ms=row.profiled_ms + row.unprofiled_ms / 2, unprofiled_ms=row.unprofiled_ms)
            for row in new.report.overhead
        ),
    )
    made = compare(base, evolve(new, report=half))
    decode = next(stage for stage in made.stages if stage.stage == "decode")
    rest = next(
        row for row in made.contributions if row.stage == "decode" and row.level == "stage" and row.kind == "rest"
    )
    assert rest.difference_ns > 1e5
    assert decode.explained is not None
    assert decode.explained > 1.01


def test_launches_become_one_and_waits_stay() -> None:
    rows = {
        row.name: row for row in comparison(EAGER, GRAPH).contributions if (row.stage, row.level) == ("decode", "host")
    }
    launches = rows["GPU idle: launching"]
    assert (launches.base_calls, launches.new_calls) == (866, 1)
    waits = rows["GPU idle: synchronising"]
    assert waits.base_calls == waits.new_calls == 192 / 189


def test_settings_that_differ_are_listed_and_nothing_else() -> None:
    made = comparison(EAGER, GRAPH)
    by_name = {(change.group, change.name): change for change in made.settings}
    assert by_name["options", "decode"].values == ("eager", "cuda-graph")
    assert not any(change.forbids for change in made.settings)
    assert all(change.values[0] != change.values[1] for change in made.settings)
    assert not comparison(EAGER, EAGER).settings


def test_a_run_against_itself_is_equal() -> None:
    made = comparison(EAGER, EAGER)
    assert {stage.answer for stage in made.stages} == {"equal"}
    assert all(stage.difference_ns == 0 and stage.explained is None for stage in made.stages)
    assert all(match.kind == "same" and match.difference_ns == 0 for match in made.kernels)
    assert made.headline.startswith("No change beyond noise in prefill and decode")
    assert made.notes[0].startswith("Both sides are the same run (")
    assert not any("same run" in note for note in comparison(EAGER, GRAPH).notes)


def test_swapped_sides_have_the_mirrored_difference() -> None:
    for there, back in zip(comparison(EAGER, GRAPH).stages, comparison(GRAPH, EAGER).stages, strict=True):
        assert there.difference_ns == -(back.difference_ns or 0)
        assert there.interval is not None
        assert back.interval is not None
        ends = there.interval.low_ns, there.interval.high_ns
        assert ends == pytest.approx((-back.interval.high_ns, -back.interval.low_ns))


def test_what_a_user_set_is_told_apart_from_how_it_was_measured() -> None:
    base, given = side(EAGER), side(EAGER).report.manifest
    assert given is not None
    options = {**given.options, "keep_env": "TORCH_BLAS_PREFER_CUBLASLT", "measure_energy": True}
    changed = evolve(base, report=evolve(base.report, manifest=evolve(given, options=options)))
    groups = {row.name: row.group for row in compare(base, changed).settings}
    assert groups == {"keep_env": "options", "measure_energy": "tool"}


def test_profiled_times_are_compared_where_a_side_has_no_others_and_not_judged() -> None:
    made = comparison(SHORT, EAGER)
    assert all(not stage.unprofiled and stage.answer == "cannot judge" for stage in made.stages)
    assert any("measured no passes without the profiler" in note for note in made.notes)
    assert made.headline.startswith("Cannot judge")


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (
            lambda report: evolve(report, capture=evolve(report.capture, device_names=("NVIDIA A100",))),
            "device",
            "another device",
        ),
        (lambda report: evolve(report, manifest=evolve(report.manifest, batch_size=4)), "batch", "other work"),
        (
            lambda report: evolve(
                report,
                manifest=evolve(
                    report.manifest,
                    device_states=tuple(evolve(state, sm_clock_mhz=1755) for state in report.manifest.device_states),
                ),
            ),
            "SM clock before",
            "more than 3.0 % apart",
        ),
        (
            lambda report: evolve(
                report,
                manifest=evolve(
                    report.manifest,
                    prompts=tuple(evolve(row, prompt_tokens=400, image_tokens=394) for row in report.manifest.prompts),
                ),
            ),
            "prompt tokens",
            "other work",
        ),
    ],
    ids=["device", "batch", "clock", "prompts"],
)
def test_what_is_no_change_of_code_forbids_an_answer(change, name: str, words: str) -> None:  # type: ignore[no-untyped-def]
    base = side(EAGER)
    other = evolve(base, report=change(base.report))
    made = compare(base, other)
    forbidding = [row for row in made.settings if row.forbids]
    assert name in {row.name for row in forbidding}
    assert words in next(row.because for row in forbidding if row.name == name)
    assert {stage.answer for stage in made.stages} <= {"cannot judge"}


def test_four_pages_against_twelve_are_compared_per_unit_where_pages_are_alike() -> None:
    base = side(EAGER)
    manifest = base.report.manifest
    assert manifest is not None
    assert manifest.input_set is not None
    images = tuple(evolve(image, sha256=f"{number:064}") for number, image in enumerate(manifest.input_set.images * 4))
    pages = evolve(manifest.input_set, count=len(images), images=images)
    prompts = tuple(evolve(row, image_index=number) for number, row in enumerate(manifest.prompts * 4))
    twelve = evolve(base, report=evolve(base.report, manifest=evolve(manifest, input_set=pages, prompts=prompts)))
    made = compare(base, twelve)
    assert not any(row.forbids for row in made.settings)
    assert any("alike in size" in note for note in made.notes)
    assert {stage.answer for stage in made.stages} == {"equal"}


def test_several_sides_are_held_against_the_first() -> None:
    made = compare_all([side(EAGER), side(GRAPH), side(EAGER)])
    assert [row.base.label for row in made.comparisons] == [EAGER, EAGER]
    assert made.headline == f"{GRAPH}: {made.comparisons[0].headline}"


def test_from_python_it_is_the_same() -> None:
    made = analysis.diff(EXAMPLES / EAGER, EXAMPLES / GRAPH, bands={"decode": 1e9})
    assert made.contributions == comparison(EAGER, GRAPH).contributions
    decode = next(stage for stage in made.stages if stage.stage == "decode")
    assert decode.interval is not None
    assert decode.interval.band_ns == 1e9
    assert decode.answer != "improvement"


def test_its_tables_are_data_frames() -> None:
    made = comparison(EAGER, GRAPH)
    tables = frames(made)
    assert set(tables) == set(DIFF_TABLES)
    for name, table in tables.items():
        assert len(table) == len(getattr(made, name)) > 0
        assert set(table.attrs["definitions"]) == set(table.columns)
    parts = tables["contributions"].query("stage == 'decode' and level == 'module'")["difference_ns"].sum()
    (decode,) = tables["stages"].query("stage == 'decode'")["difference_ns"]
    assert parts == pytest.approx(decode)


def test_traffic_is_that_of_the_counters_and_unknown_elsewhere() -> None:
    """By hand: bytes of the covered launches of one kernel in one module, per launch, times launches a token."""
    new = side(GRAPH)
    assert new.review is not None
    made = comparison(EAGER, GRAPH)
    assert all(match.base_bytes is None for match in made.kernels)  # the eager run has no counters
    match = next(
        row
        for row in made.kernels
        if (row.stage, row.module, row.family) == ("decode", "lm_head", "matrix product, bf16")
    )
    rows = [
        kernel.row
        for kernel in new.review.kernels
        if (kernel.row.stage, kernel.row.module) == ("decode", "lm_head") and kernel.row.name in match.new_names
    ]
    assert rows
    expected = sum((row.dram_bytes or 0) / row.covered_calls * row.calls for row in rows) / new.stages["decode"].units
    assert match.new_bytes == pytest.approx(expected)
    assert expected > 300e6  # the weights of the head, 129,280 × 1,280 in bf16, once a token


def test_runs_without_a_stage_that_is_counted_alike_are_not_compared() -> None:
    made = comparison("vllm_h100_exec", EAGER)
    assert not made.stages
    assert made.headline.startswith("Nothing can be compared")
    assert any("decode is counted per step on the base and per token" in note for note in made.notes)
    assert any("mixed is in vllm_h100_exec only" in note for note in made.notes)


def test_what_its_own_trace_says_is_not_called_explained() -> None:
    """Busy and idle time are the captured time, whatever happened."""
    assert all(stage.explained is None for stage in comparison(SHORT, EAGER).stages)
    old = evolve(
        side(GRAPH).report, overhead=tuple(evolve(row, timed_by="trace") for row in side(GRAPH).report.overhead)
    )
    made = compare(side(EAGER), evolve(side(GRAPH), report=old))
    assert all(stage.explained is None for stage in made.stages)
    assert any("is not checked" in note for note in made.notes)


def test_unchanged_modules_are_not_named() -> None:
    assert not any("whatever its latency" in note for note in comparison(EAGER, EAGER).notes)
    # The eager prefill against that of the other run: the same code, measured on another day.
    assert not any(note.startswith("prefill: whatever") for note in comparison(EAGER, GRAPH).notes)


def test_a_device_that_is_not_recorded_forbids_nothing() -> None:
    base = side(EAGER)
    unknown = evolve(base, report=evolve(base.report, capture=evolve(base.report.capture, device_names=())))
    made = compare(base, unknown)
    assert [(row.name, row.values[1], row.forbids) for row in made.settings] == [("device", None, False)]


def test_where_one_side_has_no_modules_kernels_are_paired_without() -> None:
    """A graph that was recorded before the capture began: its kernels are in no module."""
    report = side(GRAPH).report
    blind = evolve(
        report,
        kernel_modules=tuple(evolve(row, module=UNATTRIBUTED, order=None) for row in report.kernel_modules),
        module_rows={
            stage: (
                evolve(
                    rows[0],
                    name=UNATTRIBUTED,
                    **{
                        name: sum(getattr(row, name) for row in rows)
                        for name in ("kernels", "kernel_sum_ns", "memcpys", "memcpy_ns", "memsets", "memset_ns")
                    },
                ),
            )
            for stage, rows in report.module_rows.items()
        },
    )
    made = compare(side(EAGER), evolve(side(GRAPH), report=blind))
    decode = next(stage for stage in made.stages if stage.stage == "decode")
    modules = [
        row for row in made.contributions if (row.stage, row.level, row.kind) == ("decode", "module", "GPU time")
    ]
    assert [row.name for row in modules] == ["(all modules)"]
    for level in ("module", "kernel"):
        rows = [row for row in made.contributions if (row.stage, row.level) == ("decode", level)]
        assert sum(row.difference_ns for row in rows) == pytest.approx(decode.difference_ns, abs=1)
    assert sum(row.kind == "same" for row in made.kernels) > 0.7 * len(made.kernels)
    assert any("does not say which module launched its kernels" in note for note in made.notes)


def test_on_a_cpu_parts_are_the_captures_shares_of_the_unprofiled_time() -> None:
    report = side(EAGER).report
    base = evolve(side(EAGER), report=evolve(report, capture=evolve(report.capture, on_cpu=True)))
    made = compare(base, base)
    rows = [row for row in made.contributions if (row.stage, row.level) == ("decode", "stage")]
    decode = next(stage for stage in made.stages if stage.stage == "decode")
    assert sum(row.base_ns for row in rows) == pytest.approx(decode.base_ns, abs=1)
    gpu = next(row for row in rows if row.kind == "GPU time")
    assert gpu.name == "operators"
    assert any(row.name == "no operator: Python" for row in rows)
    times = next(row for row in report.unit_times if row.stage == "decode")
    assert times.unprofiled_ns is not None
    assert gpu.base_ns == pytest.approx(times.busy_ns / times.profiled_ns * times.unprofiled_ns, rel=0.02)
    assert decode.explained is None


def test_modules_in_a_wrapper_are_found_again_and_said_once() -> None:
    """What torch.compile makes of a path."""
    report = side(EAGER).report

    def wrapped(path: str) -> str:
        return path if path == UNATTRIBUTED else f"_orig_mod.{path}"

    other = evolve(
        report,
        kernel_modules=tuple(evolve(row, module=wrapped(row.module)) for row in report.kernel_modules),
        module_rows={
            stage: tuple(evolve(row, name=wrapped(row.name)) for row in rows)
            for stage, rows in report.module_rows.items()
        },
    )
    made = compare(side(EAGER), evolve(side(EAGER), report=other))
    assert {row.kind for row in made.kernels} == {"same"}
    assert all(row.difference_ns == 0 for row in made.contributions)
    said = [note for note in made.notes if "are taken for modules of other names" in note]
    assert len(said) == len(made.stages)
