from __future__ import annotations

import pytest

from analysis.domain.manifest import PromptTokens
from analysis.efficiency.cost import closed_form
from analysis.efficiency.hardware import Peak, peak_for
from analysis.efficiency.metrics import StageNeed, arithmetic_intensity, ideal_time, mbu, mfu, ridge_point, sum_needs

PEAK = Peak("test", "test", {"bf16": 100e12, "fp32": None}, 1e12, "test", "spec")


def test_utilisation_by_hand() -> None:
    assert mfu(50e12, 1.0, PEAK).value == pytest.approx(0.5)
    assert mbu(25e10, 0.5, PEAK).value == pytest.approx(0.5)


def test_unknown_inputs_give_none_and_the_reason() -> None:
    assert mfu(None, 1.0, PEAK).because == "the FLOPs that the work needs are unknown"
    assert mfu(1.0, 1.0, None).because == "the device's dense bf16 peak is unknown"
    assert mfu(1.0, 1.0, PEAK, "fp32").because == "the device's dense fp32 peak is unknown"
    for seconds in (None, 0.0, float("nan")):
        assert mfu(1.0, seconds, PEAK).because == "the time that it took is unknown"
    assert mbu(1.0, 1.0, None).value is None


def test_above_one_the_inputs_are_suspect() -> None:
    high = mfu(120e12, 1.0, PEAK)
    assert high.value == pytest.approx(1.2)
    assert high.suspect is not None
    assert "100 TFLOP/s, spec" in high.suspect
    beyond = mfu(151e12, 1.0, PEAK)
    assert beyond.value is None
    assert beyond.because is not None
    assert "outside" in beyond.because


def test_the_roofline() -> None:
    assert ridge_point(PEAK) == pytest.approx(100)
    need = StageNeed(flop=200, flop_full=300, weight_bytes=6, kv_read_bytes=3, kv_write_bytes=1)
    assert arithmetic_intensity(need) == pytest.approx(20)
    ideal = ideal_time(need, PEAK)
    assert ideal is not None
    assert ideal.bound == "memory"
    assert ideal.seconds == ideal.memory_seconds == pytest.approx(10 / 1e12)
    assert ideal_time(need, PEAK, "fp32") is None
    assert arithmetic_intensity(StageNeed(1, 1, 0, 0, 0)) is None


def test_decode_of_deepseek_ocr_on_an_h100_is_far_from_its_bandwidth() -> None:
    prompt = PromptTokens(image_index=0, mode="gundam", tiles=6, image_tokens=903, text_tokens=13, prompt_tokens=916)
    decode = [cost for cost in closed_form("deepseek-ocr", [prompt], max_new_tokens=64) if cost.stage == "decode"]
    need, peak = sum_needs(decode), peak_for("NVIDIA H100 80GB HBM3")
    assert isinstance(peak, Peak)
    ideal = ideal_time(need, peak)
    assert ideal is not None
    assert ideal.bound == "memory"
    # 63 steps of about 1.21 GB: a third of a millisecond each at 3.35 TB/s.
    assert ideal.seconds / 63 == pytest.approx(0.36e-3, rel=0.02)
