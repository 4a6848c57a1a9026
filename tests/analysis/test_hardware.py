from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.efficiency.hardware import DTYPES, Card, Peak, UnknownPeak, cards, peak_for, with_measured, with_overrides


@pytest.mark.parametrize(
    ("name", "bf16_tflops", "gb_per_s"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 3352),
        ("NVIDIA H100 PCIe", 756, 2039),
        ("NVIDIA H100 NVL", 835.5, 3938),
        ("NVIDIA H200", 989.4, 4800),
        ("NVIDIA H200 NVL", 835.5, 4800),
        ("NVIDIA H20", 148, 4000),
        ("NVIDIA H20-3e", 148, 4800),
        ("NVIDIA H800", 989.4, 3352),
        ("NVIDIA H800 PCIe", 756, 2039),
        ("NVIDIA H800 NVL", 835.5, 3938),
        ("NVIDIA GH200 120GB", 989.4, 4000),
        ("NVIDIA GH200 480GB", 989.4, 4000),
        ("NVIDIA GH200 144G HBM3e", 989.4, 4900),
        ("NVIDIA B200", 2250, 7700),
        ("NVIDIA B300 SXM6 AC", 2250, 7700),
        ("NVIDIA GB200", 2500, 8000),
        ("NVIDIA GB300", 2500, 8000),
        ("NVIDIA A800-SXM4-80GB", 312, 2039),
        ("NVIDIA A800 40GB Active", 311.9, 1555),
        ("NVIDIA A30", 165, 933),
        ("NVIDIA L20", 119.5, 864),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 480, 1597),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 503.8, 1792),
        ("NVIDIA RTX 5880 Ada Generation", 277.1, 960),
        ("NVIDIA GeForce RTX 5090", 209.5, 1792),
        ("NVIDIA GeForce RTX 3090", 71, 936),
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


@pytest.mark.parametrize(
    ("name", "fp16_tflops", "gb_per_s"),
    [
        ("Tesla V100-SXM2-16GB", 125, 900),
        ("Tesla V100-SXM3-32GB", 125, 981),
        ("Tesla V100-FHHL-16GB", 105.7, 829),
        ("Tesla V100-PCIE-32GB", 112, 900),
        ("Tesla V100-DGXS-32GB", 125, 900),
        ("Tesla T4", 65, 320),
        ("Quadro RTX 6000", 130.5, 672),
        ("NVIDIA GeForce RTX 2080 Ti", 53.8, 616),
    ],
)
def test_cards_without_bf16_say_so(name: str, fp16_tflops: float, gb_per_s: float) -> None:
    peak = peak_for(name)
    assert isinstance(peak, Peak)
    assert peak.flop_per_s["bf16"] is None
    assert peak.flop_per_s["tf32"] is None
    assert peak.flop_per_s["fp16"] == pytest.approx(fp16_tflops * 1e12)
    assert peak.bytes_per_s == pytest.approx(gb_per_s * 1e9)


HOPPER = {"compute_capability": "9.0", "sm_count": 78, "clock_hz": 1.98e9, "memory_bandwidth": 4.8e12}


@pytest.mark.parametrize(
    "name",
    ["NVIDIA H20A", "NVIDIA H100", "NVIDIA H100 64GB HBM2", "NVIDIA L2", "NVIDIA B30A", "NVIDIA A100X", "NVIDIA CMP 170HX",
     "NVIDIA RTX 6000D", "NVIDIA GeForce RTX 5090 D", "NVIDIA GeForce RTX 5090 D v2", "NVIDIA PG506-230", "Tesla T40 24GB",
     "Tesla V100-SXM2-16GB-LS", "NVIDIA GB10", "NVIDIA Graphics Device"],
)  # fmt: skip
@pytest.mark.parametrize("compute_capability", ["7.0", "7.5", "8.0", "8.9", "9.0", "10.0", "12.0"])
def test_nothing_is_derived_where_the_units_are_set_per_board(name: str, compute_capability: str) -> None:
    peak = peak_for(name, **{**HOPPER, "compute_capability": compute_capability})  # type: ignore[arg-type]
    assert isinstance(peak, UnknownPeak)
    assert "nothing is derived" in peak.reason
    assert peak.reason.endswith("state its peak yourself")


def test_a_board_cut_down_for_export_has_its_sheets_figure_and_no_other() -> None:
    """SMs and clock of an H20-3e would make 632 TFLOP/s."""
    peak = peak_for("NVIDIA H20-3e", **HOPPER)  # type: ignore[arg-type]
    assert isinstance(peak, Peak)
    assert (peak.how, peak.flop_per_s["bf16"], peak.bytes_per_s) == ("spec", 148e12, 4.8e12)


def test_a_board_with_another_sm_count_is_not_the_sheets() -> None:
    peak = peak_for("NVIDIA H100 80GB HBM3", **HOPPER)  # type: ignore[arg-type]
    assert isinstance(peak, UnknownPeak)
    assert "boards of this name have 132 SMs, this device has 78" in peak.reason
    twelve = peak_for("NVIDIA GeForce RTX 2060", compute_capability="7.5", sm_count=34, clock_hz=1.65e9)
    assert isinstance(twelve, Peak)
    assert twelve.how == "derived"
    assert "boards of this name have 30 SMs, this device has 34" in twelve.source


@pytest.mark.parametrize(
    ("name", "sm_count", "driver", "expected", "remark"),
    [
        ("NVIDIA H100 80GB HBM3", 132, 3352.32, 3352, ""),
        ("NVIDIA H200", 132, 4814.304, 4800, ""),
        ("NVIDIA B200", 148, 7672.3, 7700, ""),
        ("NVIDIA B200", 148, 8183.8, 7700, ""),
        ("NVIDIA GeForce RTX 3060", 28, 240.0, 240, ""),
        ("NVIDIA GeForce RTX 3060", 28, 360.0, 360, ""),
        ("NVIDIA GeForce RTX 3060 Ti", 38, 608.3, 608, ""),
        ("NVIDIA GeForce RTX 4070", 46, 480.0, 480, ""),
        ("NVIDIA GeForce RTX 4070", 46, None, None, "504 or 480 GB/s"),
        ("NVIDIA GeForce RTX 5060 Ti", 36, 224.0, 224, "the driver's figure, the sheet has 448 GB/s"),
    ],
)
def test_the_drivers_bandwidth_tells_boards_of_one_name(
    name: str, sm_count: int, driver: float | None, expected: float | None, remark: str
) -> None:
    peak = peak_for(name, sm_count=sm_count, memory_bandwidth=None if driver is None else driver * 1e9)
    assert isinstance(peak, Peak)
    assert peak.bytes_per_s == (None if expected is None else pytest.approx(expected * 1e9))
    assert remark in peak.source


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


@pytest.mark.parametrize(
    "name", ["NVIDIA A10-24Q", "GRID A100-40C", "NVIDIA A40-12", "NVIDIA B300X-1-34CME", "GRID T4-2B4"]
)
def test_a_virtual_gpu_is_not_the_card(name: str) -> None:
    peak = peak_for(name)
    assert isinstance(peak, UnknownPeak)
    assert "virtual" in peak.reason


def test_an_unknown_card_is_derived_and_marked() -> None:
    peak = peak_for(
        "NVIDIA RTX PRO 5000 Blackwell",
        compute_capability="12.0",
        sm_count=110,
        clock_hz=2.3e9,
        memory_bandwidth=1.344e12,
    )
    assert isinstance(peak, Peak)
    assert peak.how == "derived"
    assert peak.flop_per_s["bf16"] == 110 * 2.3e9 * 1024
    assert peak.bytes_per_s == 1.344e12
    assert "at most 110 SMs" in peak.matched
    assert "an upper limit" in peak.source


def test_a_laptop_card_is_derived_at_consumer_rates() -> None:
    numbers = {"compute_capability": "8.9", "sm_count": 76, "clock_hz": 2.0e9, "memory_bandwidth": None}
    laptop = peak_for("NVIDIA GeForce RTX 4090 Laptop GPU", **numbers)  # type: ignore[arg-type]
    workstation = peak_for("NVIDIA RTX 9999 Ada Generation", **numbers)  # type: ignore[arg-type]
    assert isinstance(laptop, Peak)
    assert isinstance(workstation, Peak)
    assert laptop.flop_per_s["bf16"] == 76 * 2.0e9 * 512
    assert workstation.flop_per_s["bf16"] == 76 * 2.0e9 * 1024
    assert laptop.bytes_per_s is None


@pytest.mark.parametrize(
    "name",
    ["NVIDIA GeForce GTX 1660 Ti", "NVIDIA GeForce GTX 1650", "NVIDIA GeForce GTX 1630", "NVIDIA GeForce MX450", "Quadro T1000",
     "Quadro T2000 with Max-Q Design", "NVIDIA T1200 Laptop GPU", "NVIDIA T600 Laptop GPU", "NVIDIA T1000", "NVIDIA T600",
     "NVIDIA T400 4GB"],
)  # fmt: skip
def test_a_card_without_tensor_cores_has_no_matrix_rate(name: str) -> None:
    sm_count = {"NVIDIA T600": 10, "NVIDIA T400 4GB": 6}.get(name, 14)
    peak = peak_for(name, compute_capability="7.5", sm_count=sm_count, clock_hz=1.77e9)
    assert isinstance(peak, Peak)
    assert {dtype for dtype, rate in peak.flop_per_s.items() if rate is not None} == {"fp32"}


def test_a_notebooks_t1000_is_not_the_workstations() -> None:
    numbers = {"compute_capability": "7.5", "sm_count": 14, "clock_hz": 1.455e9, "memory_bandwidth": 128e9}
    workstation, notebook = (peak_for(name, **numbers) for name in ("NVIDIA T1000", "Quadro T1000"))  # type: ignore[arg-type]
    assert isinstance(workstation, Peak)
    assert isinstance(notebook, Peak)
    assert (workstation.how, notebook.how) == ("spec", "derived")


def test_a_jetson_is_told_by_its_sm_count() -> None:
    peak = peak_for("Orin (nvgpu)", compute_capability="8.7", sm_count=16, clock_hz=1.3e9)
    assert isinstance(peak, Peak)
    assert peak.how == "spec"
    small = peak_for("Orin (nvgpu)", compute_capability="8.7", sm_count=8, clock_hz=0.918e9, memory_bandwidth=20.9e9)
    assert isinstance(small, Peak)
    assert small.how == "derived"
    assert small.bytes_per_s is None, "the driver does not know the clock of the processor's memory"


def test_one_name_of_two_boards_is_told_by_its_sm_count() -> None:
    ten, twelve = (peak_for("NVIDIA GeForce RTX 3080", sm_count=count) for count in (68, 70))
    assert isinstance(ten, Peak)
    assert isinstance(twelve, Peak)
    assert (ten.bytes_per_s, twelve.bytes_per_s) == (760e9, 912e9)
    unknown = peak_for("NVIDIA GeForce RTX 3080")
    assert isinstance(unknown, UnknownPeak)
    assert "70 or 68 SMs" in unknown.reason


def test_unknown_stays_unknown_with_a_reason() -> None:
    no_rate = peak_for("Radeon", compute_capability="99.0", sm_count=1, clock_hz=1.0)
    no_clock = peak_for("NVIDIA Next", compute_capability="9.0", sm_count=144)
    assert isinstance(no_rate, UnknownPeak)
    assert isinstance(no_clock, UnknownPeak)
    assert "99.0" in no_rate.reason
    assert "clock" in no_clock.reason


@pytest.mark.parametrize("card", cards(), ids=lambda card: f"{card.names[0]}-{card.sm_count}")
def test_every_row_is_dense_and_consistent(card: Card) -> None:
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


UNOPENED = {
    "V100-SXM3-32GB", "V100-DGXS-16GB", "V100-FHHL-16GB", "NVIDIA T1000", "NVIDIA T600", "NVIDIA T400",
    "A800 40GB Active", "RTX 5880 Ada Generation", "H20-3e", "RTX PRO 6000 Blackwell Server Edition",
    "RTX 5060 Ti", "RTX 5060", "RTX 5050",
}  # fmt: skip
"""Boards whose sheet nobody opened when their row was written; take one out when its row was compared with its sheet."""


def test_a_row_says_where_its_sheet_was_not_opened() -> None:
    said = {card.names[0] for card in cards() if "sheet not opened for this row" in card.source}
    assert said == UNOPENED
    assert all("as commonly published" in card.source for card in cards() if card.names[0] in UNOPENED)
    peak = peak_for("NVIDIA T1000")
    assert isinstance(peak, Peak)
    assert "sheet not opened" in peak.source


LIMITED = {"A10G", "L40", "L20", "H20", "H20-3e"}
"""Boards whose tensor cores are slower than their chip's."""
RATES = {"7.0": (1024, 128), "7.2": (1024, 128), "7.5": (1024, 128), "8.0": (2048, 128), "8.6": (1024, 256),
         "8.7": (2048, 256), "8.9": (1024, 256), "9.0": (4096, 256), "10.0": (8192, 256), "10.3": (8192, 256),
         "12.0": (1024, 256)}  # fmt: skip
"""fp16 and fp32 FLOP per clock and SM, from the architecture whitepapers."""


@pytest.mark.parametrize("card", [card for card in cards() if card.sm_count], ids=lambda card: card.names[0])
def test_every_row_is_its_sms_at_a_clock_that_such_a_chip_can_have(card: Card) -> None:
    """A sparse figure, a mistyped digit or a wrong SM count would need another clock than the FP32 figure does."""
    assert card.sm_count
    tensor, single = RATES[card.compute_capability]
    consumer = "FP32 accumulation" in card.source and card.names[0] != "TITAN RTX"
    fp32, fp16 = card.flop_per_s["fp32"], card.flop_per_s["fp16"]
    assert fp32
    clock = fp32 / (card.sm_count * single)
    assert 0.9e9 < clock < 2.7e9
    if fp16 is None:
        return
    tensor_clock = fp16 / (card.sm_count * tensor / (2 if consumer else 1))
    if card.names[0] in LIMITED:
        assert tensor_clock < 0.6 * clock
    else:
        assert tensor_clock == pytest.approx(clock, rel=0.15)


def test_no_two_rows_claim_one_board() -> None:
    claims = [(name.casefold(), card.sm_count) for card in cards() for name in card.names]
    assert len(claims) == len(set(claims))
    without = {name for name, count in claims if count is None}
    assert all([name for name, _ in claims].count(one) == 1 for one in without)


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


NAMES = st.one_of(
    st.text(max_size=60),
    st.builds(
        lambda name, before, after: f"{before}{name}{after}",
        st.sampled_from([name for card in cards() for name in card.names]),
        st.sampled_from(["", "NVIDIA ", "Tesla ", "NVIDIA GeForce ", "Quadro ", "EIZO "]),
        st.sampled_from(["", " Laptop GPU", "X", " SUPER", "-8Q", " with Max-Q Design", " MIG 1g.10gb", "e", " "]),
    ),
)


@given(
    NAMES,
    st.one_of(st.none(), st.sampled_from(sorted({card.compute_capability for card in cards()})), st.just("99.0")),
    st.one_of(st.none(), st.integers(-1, 300)),
    st.one_of(st.none(), st.floats(-1, 3e9)),
    st.one_of(st.none(), st.floats(-1, 1e13)),
)
def test_a_peak_is_a_rows_or_a_limit_or_unknown(
    name: str, compute_capability: str | None, sm_count: int | None, clock_hz: float | None, bandwidth: float | None
) -> None:
    found = peak_for(
        name,
        compute_capability=compute_capability,
        sm_count=sm_count,
        clock_hz=clock_hz,
        memory_bandwidth=bandwidth,
    )
    if isinstance(found, UnknownPeak):
        assert found.reason
        return
    assert found.device_name == name
    assert found.source
    assert found.bytes_per_s is None or found.bytes_per_s > 0
    assert all(rate is None or rate > 0 for rate in found.flop_per_s.values())
    if found.how == "spec":
        rows = [
            card
            for card in cards()
            if found.matched in card.names and card.sm_count in (None, sm_count or card.sm_count)
        ]
        assert found.flop_per_s in [card.flop_per_s for card in rows]
        # The printed name is the row's, but for the vendor's words before it.
        assert name.strip().casefold().endswith(found.matched.casefold())
    else:
        assert found.how == "derived"
        assert "at most" in found.matched
        assert "upper limit" in found.source


@given(st.sampled_from(cards()), st.data())
def test_case_and_vendor_words_do_not_matter(card: Card, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([one for one in card.names if not one.startswith("NVIDIA")] or [card.names[0]]))
    vendor = data.draw(st.sampled_from(["", "NVIDIA ", "nvidia "]))
    found = peak_for(name.upper() if name.startswith("NVIDIA") else vendor + name.lower(), sm_count=card.sm_count)
    assert isinstance(found, Peak)
    assert found.flop_per_s == card.flop_per_s
