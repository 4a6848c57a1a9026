"""Can this capture be trusted? The real captures, good and lossy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analysis.attribution.attribution import Attribution
from analysis.quality.examine import examine, is_unfit
from analysis.trace.reader import Trace


@pytest.mark.parametrize(
    "name", ["deepseek-ocr_h100_small", "deepseek-ocr_h100_64tok", "deepseek-ocr_h100_gpu-metrics"]
)
def test_good_captures_pass_clean(name: str, real_attribution: Callable[[str], tuple[Trace, Attribution]]) -> None:
    """Also `small`, whose first step is the slowest: its excess is 1.5 % of the steps' time."""
    assert [one.code for one in examine(*real_attribution(name), None)] == ["no-manifest"]


@pytest.mark.parametrize("name", ["llama_h100_cuda-graph", "tensor-parallel_2xh200_rank0"])
def test_captures_that_began_cold_are_fit(
    name: str, real_attribution: Callable[[str], tuple[Trace, Attribution]]
) -> None:
    found = examine(*real_attribution(name), None)
    assert not is_unfit(found)
    assert {one.code for one in found if one.severity == "warning"} <= {"cold-start", "long-ranges"}


def test_the_lossy_capture_is_unfit_by_several_pieces_of_evidence(
    real_attribution: Callable[[str], tuple[Trace, Attribution]],
) -> None:
    found = {one.code: one for one in examine(*real_attribution("deepseek-ocr_h100_lossy"), None)}
    assert is_unfit(tuple(found.values()))
    assert found["lossy-capture"].evidence.startswith("4 independent signs")
    assert {
        "lost-range-ends", "unequal-siblings", "launches-without-gpu-rows", "unrecorded-api-calls", "depth-anomalies",
        "missing-stages",
    } <= set(found)  # fmt: skip
    assert all(one.evidence and one.remedy for one in found.values())
    assert next(iter(found.values())).severity == "unfit", "the gravest first"
