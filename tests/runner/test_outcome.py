"""What a finished run prints of its overhead: the report's own figures."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from attrs import evolve

from analysis.domain.convert import from_json
from analysis.domain.manifest import ControlPass, RunManifest
from analysis.domain.overhead import LIGHTEST_PRESET
from analysis.efficiency.latency import overheads
from runner.collectors.nsys.presets import load_preset, preset_names
from runner.launcher.outcome import overhead_line, print_result
from runner.launcher.run_directory import RunDirectory
from runner.plan.settings import AnnotationLevel

RUNS = Path(__file__).parents[1] / "data" / "runs"
"""Records of real runs, made by 0.1."""


def example(name: str) -> RunManifest:
    path = RUNS / f"{name}.json"
    return from_json(RunManifest, path.read_text(), source=str(path))


@pytest.mark.parametrize("name", ["deepseek-ocr_h200", "deepseek-ocr_h200_cuda-graph"])
def test_the_line_holds_the_reports_figures(name: str) -> None:
    run = example(name)
    line = overhead_line(run)
    assert line is not None
    found = overheads(run, ())  # of no trace: the run's own clock
    assert [one.stage for one in found] == ["prefill", "decode"]
    for one in found:
        assert f"{one.stage} took {one.factor:.2f} ×" in line
        assert one.factor == pytest.approx(one.profiled_ms / one.unprofiled_ms)


def test_the_lighter_preset_is_named_from_the_threshold_on() -> None:
    captured = {factor: evolve(example("deepseek-ocr_h200"), preset="default", profiled=(
        ControlPass(0, 0, 100 * factor, 0, 1),), control=(ControlPass(0, 0, 10_000, 0, 1),))
        for factor in (124, 125)}  # fmt: skip
    assert "--preset light" not in (overhead_line(captured[124]) or "")
    assert "prefill took 1.25 ×" in (overhead_line(captured[125]) or "")
    assert "--preset light" in (overhead_line(captured[125]) or "")
    assert "--preset" not in (overhead_line(evolve(captured[125], preset="light")) or "")
    assert overhead_line(evolve(captured[125], profiled=())) is None


def test_the_lightest_preset_marks_less_than_any_other() -> None:
    levels = get_args(AnnotationLevel)
    marked = {name: levels.index(load_preset(name).annotations) for name in preset_names()}
    assert all(marked[LIGHTEST_PRESET] < level for name, level in marked.items() if name != LIGHTEST_PRESET)


def faster_profiled() -> RunManifest:
    """A prefill that took 0.17 × and a decode step that took 1.10 × the time without the profiler."""
    return evolve(
        example("deepseek-ocr_h200"), profiled=(ControlPass(0, 0, 17_000, 11_000, 2, (11_000,)),),
        control=(ControlPass(0, 0, 100_000, 10_000, 2, (10_000,)),),
    )  # fmt: skip


def test_a_stage_that_was_faster_under_the_profiler_is_noise_and_no_cost() -> None:
    noise = "Measured faster than unprofiled (prefill 0.17 ×): noise of the machine, no speed-up by the profiler."
    assert overhead_line(faster_profiled()) == (
        f"Under the profiler: decode took 1.10 × the time that it takes alone. {noise}"
    )
    only = evolve(faster_profiled(), profiled=(ControlPass(0, 0, 17_000, 0, 1),))
    assert overhead_line(only) == noise
    as_fast = evolve(faster_profiled(), profiled=(ControlPass(0, 0, 99_700, 0, 1),))
    assert overhead_line(as_fast) == "Under the profiler: prefill took 1.00 × the time that it takes alone."


def test_no_sentence_is_broken_at_the_width_of_a_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    error = "the profiled program ended with exit code 1: " + "its last line was long, " * 5 + "so it said"
    run = evolve(faster_profiled(), status="failed", error=error)
    print_result(RunDirectory(tmp_path), run)
    assert {overhead_line(run), f"The run is failed: {error}"} <= set(capsys.readouterr().out.splitlines())


def test_a_folder_with_a_new_line_in_its_name_stays_in_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_result(RunDirectory(tmp_path / "new\nline"), evolve(faster_profiled(), status="failed", error="it ended"))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Report: "))
    assert line.endswith("line/report.html")
