from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.efficiency.hardware import DTYPES, Peak, UnknownPeak, cards, peak_for, with_measured, with_overrides


@pytest.mark.parametrize(
    ("name", "bf16_tflops", "gb_per_s"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 3352),
        ("NVIDIA H100 PCIe", 756, 2039),
        ("NVIDIA H100 NVL", 835.5, 3938),
        ("NVIDIA H200", 989.4, 4800),
        ("NVIDIA H200 NVL", 835.5, 4800),
        ("NVIDIA H20", 148, 4000),
        ("NVIDIA GH200 480GB", 989.4, 4000),
        ("NVIDIA B200", 2250, 8000),
        ("NVIDIA A100-SXM4-40GB", 312, 1555),
        ("NVIDIA A100-SXM4-80GB", 312, 2039),
        ("NVIDIA A100 80GB PCIe", 312, 1935),
        ("A100-PCIE-40GB", 312, 1555),
        ("NVIDIA A10G", 70, 600),
        ("NVIDIA A10", 125, 600),
        ("NVIDIA L40S", 362.05, 864),
        ("NVIDIA L40", 181.05, 864),
        ("NVIDIA L4", 121, 300),
        ("NVIDIA GeForce RTX 4090", 165.2, 1008),
        ("NVIDIA GeForce RTX 3080 Ti", 68.2, 912),
        ("NVIDIA RTX 6000 Ada Generation", 364.2, 960),
        ("NVIDIA RTX A6000", 154.8, 768),
    ],
)
def test_printed_names_find_their_row(name: str, bf16_tflops: float, gb_per_s: float) -> None:
    peak = peak_for(name)
    assert isinstance(peak, Peak)
    assert peak.how == "spec"
    assert peak.source
    assert peak.flop_per_s["bf16"] == pytest.approx(bf16_tflops * 1e12)
    assert peak.bytes_per_s == pytest.approx(gb_per_s * 1e9)


@pytest.mark.parametrize("name", ["Tesla V100-SXM2-16GB", "Tesla T4", "Quadro RTX 6000", "NVIDIA GeForce RTX 2080 Ti"])
def test_cards_without_bf16_say_so(name: str) -> None:
    peak = peak_for(name)
    assert isinstance(peak, Peak)
    assert peak.flop_per_s["bf16"] is None
    assert peak.flop_per_s["tf32"] is None
    assert peak.flop_per_s["fp16"] is not None


@pytest.mark.parametrize(
    "name",
    ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 64GB", "NVIDIA L40SX", "Quadro RTX 6000 with Max-Q Design", ""],
)
def test_a_name_that_begins_like_another_is_not_that_card(name: str) -> None:
    assert isinstance(peak_for(name), UnknownPeak)


@pytest.mark.parametrize("name", ["NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA A100-SXM4-40GB MIG 3g.20gb"])
def test_a_slice_is_not_the_card(name: str) -> None:
    peak = peak_for(name, compute_capability="9.0", sm_count=16, clock_hz=1.98e9)
    assert isinstance(peak, UnknownPeak)
    assert "MIG" in peak.reason


@pytest.mark.parametrize("name", ["NVIDIA A10-24Q", "GRID A100-40C", "NVIDIA A40-48Q"])
def test_a_virtual_gpu_is_not_the_card(name: str) -> None:
    peak = peak_for(name)
    assert isinstance(peak, UnknownPeak)
    assert "virtual" in peak.reason


def test_an_unknown_card_is_derived_and_marked() -> None:
    peak = peak_for(
        "NVIDIA H123", compute_capability="9.0", sm_count=100, clock_hz=1.5e9, memory_bandwidth=2_000_000_000_000
    )
    assert isinstance(peak, Peak)
    assert peak.how == "derived"
    assert peak.flop_per_s["bf16"] == 100 * 1.5e9 * 4096
    assert peak.bytes_per_s == 2e12
    assert "100 SMs" in peak.matched


def test_a_laptop_card_is_derived_at_consumer_rates() -> None:
    numbers = {"compute_capability": "8.9", "sm_count": 76, "clock_hz": 2.0e9, "memory_bandwidth": None}
    laptop = peak_for("NVIDIA GeForce RTX 4090 Laptop GPU", **numbers)  # type: ignore[arg-type]
    workstation = peak_for("NVIDIA RTX 9999 Ada Generation", **numbers)  # type: ignore[arg-type]
    assert isinstance(laptop, Peak)
    assert isinstance(workstation, Peak)
    assert laptop.flop_per_s["bf16"] == 76 * 2.0e9 * 512
    assert workstation.flop_per_s["bf16"] == 76 * 2.0e9 * 1024
    assert laptop.bytes_per_s is None


def test_a_card_without_tensor_cores_has_no_matrix_rate() -> None:
    peak = peak_for("NVIDIA GeForce GTX 1660 Ti", compute_capability="7.5", sm_count=24, clock_hz=1.77e9)
    assert isinstance(peak, Peak)
    assert {dtype for dtype, rate in peak.flop_per_s.items() if rate is not None} == {"fp32"}


def test_a_jetson_is_told_by_its_sm_count() -> None:
    peak = peak_for("Orin (nvgpu)", compute_capability="8.7", sm_count=16, clock_hz=1.3e9)
    assert isinstance(peak, Peak)
    assert peak.how == "spec"
    small = peak_for("Orin (nvgpu)", compute_capability="8.7", sm_count=8, clock_hz=0.918e9)
    assert isinstance(small, Peak)
    assert small.how == "derived"


def test_one_name_of_two_boards_is_told_by_its_sm_count() -> None:
    ten, twelve = (peak_for("NVIDIA GeForce RTX 3080", sm_count=count) for count in (68, 70))
    assert isinstance(ten, Peak)
    assert isinstance(twelve, Peak)
    assert (ten.bytes_per_s, twelve.bytes_per_s) == (760e9, 912e9)


def test_unknown_stays_unknown_with_a_reason() -> None:
    no_rate = peak_for("Radeon", compute_capability="99.0", sm_count=1, clock_hz=1.0)
    no_clock = peak_for("NVIDIA Next", compute_capability="9.0", sm_count=132)
    assert isinstance(no_rate, UnknownPeak)
    assert isinstance(no_clock, UnknownPeak)
    assert "99.0" in no_rate.reason
    assert "clock" in no_clock.reason


@pytest.mark.parametrize("card", cards(), ids=lambda card: f"{card.names[0]}-{card.sm_count}")
def test_every_row_is_dense_and_consistent(card: object) -> None:
    from analysis.efficiency.hardware import Card

    assert isinstance(card, Card)
    assert "NVIDIA" in card.source
    rates = {dtype: rate for dtype, rate in card.flop_per_s.items() if rate is not None}
    assert rates["fp32"] > 0
    if "bf16" in rates:
        assert rates["bf16"] == rates["fp16"]
        # A sparse figure in one column only would break these ratios of dense tensor-core rates.
        assert rates["bf16"] / rates["tf32"] == pytest.approx(2, rel=0.03)
        if "fp8" in rates:
            assert rates["fp8"] / rates["bf16"] == pytest.approx(2, rel=0.03)
    assert ("fp8" in rates) == (card.compute_capability >= "8.9" or card.compute_capability.startswith("1"))


def test_spec_and_derived_agree_on_the_h100() -> None:
    derived = peak_for("NVIDIA H100 unlisted", compute_capability="9.0", sm_count=132, clock_hz=1.83e9)
    listed = peak_for("NVIDIA H100 80GB HBM3")
    assert isinstance(derived, Peak)
    assert isinstance(listed, Peak)
    assert derived.flop_per_s["bf16"] == pytest.approx(listed.flop_per_s["bf16"], rel=0.01)


def test_no_two_rows_claim_one_board() -> None:
    claims = [(name.casefold(), card.sm_count) for card in cards() for name in card.names]
    assert len(claims) == len(set(claims))


def test_overrides_replace_only_what_is_stated() -> None:
    listed = peak_for("NVIDIA H200")
    assert with_overrides(listed) is listed
    peak = with_overrides(listed, tflops=800)
    assert isinstance(peak, Peak)
    assert peak.how == "override"
    assert peak.flop_per_s["bf16"] == 800e12
    assert peak.bytes_per_s == 4800e9
    assert "800" in peak.source
    unknown = with_overrides(UnknownPeak("?", "no row"), gbps=100)
    assert isinstance(unknown, Peak)
    assert unknown.bytes_per_s == 100e9
    assert unknown.flop_per_s == dict.fromkeys(DTYPES)


@pytest.mark.parametrize(
    "stated", [{"tflops": 0}, {"gbps": -1}, {"tflops": float("nan")}, {"tflops": 1, "dtype": "int3"}]
)
def test_a_nonsense_override_is_refused(stated: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        with_overrides(peak_for("NVIDIA H200"), **stated)  # type: ignore[arg-type]


def test_a_measured_peak_knows_only_what_was_measured() -> None:
    peak = with_measured(
        peak_for("NVIDIA H200"), dtype="bf16", flop_per_s=7e14, bytes_per_s=4e12, how="a 8192³ product"
    )
    assert peak.how == "measured"
    assert peak.flop_per_s["bf16"] == 7e14
    assert peak.flop_per_s["fp8"] is None


@given(st.text(max_size=60))
def test_any_name_is_answered(name: str) -> None:
    assert isinstance(peak_for(name), (Peak, UnknownPeak))
