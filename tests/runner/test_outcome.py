"""What a finished run prints of its overhead: the report's own figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from analysis.domain.convert import from_json
from analysis.domain.manifest import ControlPass, RunManifest
from analysis.efficiency.latency import overheads
from runner.launcher.outcome import overhead_line

EXAMPLES = Path(__file__).parents[2] / "reports" / "examples"


def example(name: str) -> RunManifest:
    path = EXAMPLES / name / "run.json"
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
    assert overhead_line(evolve(captured[125], profiled=())) is None
