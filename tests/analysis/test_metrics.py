from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.domain.entities import MFU_GUARDRAIL
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


def test_above_one_a_bandwidth_utilisation_names_its_inputs() -> None:
    high = mbu(12e11, 1.0, PEAK)
    assert high.value == pytest.approx(1.2)
    assert high.suspect == "the byte count, the bandwidth (1000 GB/s, spec) or the time"
    beyond = mbu(16e11, 1.0, PEAK)
    assert (beyond.value, beyond.suspect) == (None, high.suspect)


@given(
    st.floats(0, 1e18),
    st.floats(1e-6, 1e3),
    st.floats(1e9, 1e16),
    st.sampled_from(["spec", "derived", "measured", "override"]),
)
def test_a_utilisation_is_in_the_guardrails_or_says_why_not(
    amount: float, seconds: float, rate: float, how: Literal["spec", "derived", "measured", "override"]
) -> None:
    peak = Peak("test", "test", {"bf16": rate}, rate, "test", how)
    for found in (mfu(amount, seconds, peak), mbu(amount, seconds, peak)):
        if found.value is None:
            assert found.because
            assert found.suspect
            assert how in found.suspect
        else:
            assert 0 <= found.value <= MFU_GUARDRAIL
            assert (found.suspect is not None) == (found.value > 1)


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
