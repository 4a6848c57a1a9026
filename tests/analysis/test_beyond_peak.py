"""MFU and MBU above 1: the input that makes them so is named, and every format says so."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

import analysis
from analysis.domain.figures import of_peak
from analysis.efficiency.beyond_peak import beyond_peak
from analysis.efficiency.hardware import Peak
from analysis.efficiency.records import TimeBase, Utilisation
from analysis.efficiency.utilisation import KnownPeaks
from analyze_command import analyze, assert_one_line

STATED = ("--model", "deepseek-ocr", "--input-mode", "gundam", "--tiles", "6", "--prompt-tokens", "916")
SHEET = Peak("NVIDIA H100", "H100 80GB HBM3", {"bf16": 1000e12}, 3000e9, "sheet", "spec")
COUNTED = "the FLOPs that the run counted"


def row(mfu: float, base: TimeBase = "profiled elapsed", *, mbu: float = 0.5, peak: Peak = SHEET) -> Utilisation:
    """One second of a stage that reached so much of a peak."""
    rate, bandwidth = peak.flop_per_s["bf16"], peak.bytes_per_s
    assert rate is not None
    assert bandwidth is not None
    return Utilisation(
        stage="prefill", time_base=base, time_ns=10**9, flop=round(mfu * rate), flop_full=round(mfu * rate),
        bytes_moved=round(mbu * bandwidth), peak_flop_per_s=rate, peak_bytes_per_s=bandwidth, peak_how=peak.how, mfu=mfu,
        mfu_full_attention=mfu, mbu=mbu, arithmetic_intensity=1.0, ridge_point=1.0, ideal_ns=1, unknown_because=None,
        derivation=None,
    )  # fmt: skip


def doubted(*rows: Utilisation, device: Peak | None = SHEET) -> list[str]:
    return [excess.doubted for excess in beyond_peak(rows, KnownPeaks((SHEET,), None, device), "bf16", COUNTED)]


def test_what_the_device_can_do_is_not_doubted() -> None:
    assert doubted(row(1.0), row(0.3, mbu=1.0 + 1e-12)) == []


def test_a_peak_that_was_stated_by_hand_is_doubted_first() -> None:
    low = evolve(SHEET, flop_per_s={"bf16": 10e12}, bytes_per_s=30e9, how="override")
    assert doubted(row(1.2, mbu=1.3, peak=low)) == [
        "the peak stated by hand, --peak-tflops (10.0 TFLOP/s; H100 80GB HBM3 has 1.00 PFLOP/s)",
        "the peak stated by hand, --peak-gbps (30.0 GB/s; H100 80GB HBM3 has 3.00 TB/s)",
    ]
    assert doubted(row(1.2, peak=low), device=None) == ["the peak stated by hand, --peak-tflops (10.0 TFLOP/s)"]
    only_tflops = evolve(SHEET, flop_per_s={"bf16": 10e12}, how="override")  # its bandwidth is the data sheet's
    assert doubted(row(0.2, mbu=1.4, peak=only_tflops)) == [f"{COUNTED}; or the peak (data sheet of H100 80GB HBM3)"]


def test_a_measured_peak_is_doubted_where_the_data_sheet_allows_it() -> None:
    measured = evolve(SHEET, flop_per_s={"bf16": 700e12}, bytes_per_s=2500e9, how="measured")
    assert doubted(row(1.1, peak=measured)) == [
        "the peak that the run measured (700 TFLOP/s, of 1.00 PFLOP/s by data sheet of H100 80GB HBM3)"
    ]
    assert doubted(row(1.49, peak=measured)) == [f"{COUNTED}; or the peak (data sheet of H100 80GB HBM3)"]


def test_times_of_the_control_run_are_doubted_where_the_capture_allows_it() -> None:
    assert doubted(row(3.0, "unprofiled"), row(0.4)) == [
        "the control run's times in run.json: by the times of the capture it is possible"
    ]
    assert doubted(row(3.0, "unprofiled"), row(2.0))[0].startswith(COUNTED)


def test_a_little_above_the_boost_clocks_peak_may_be_the_clock() -> None:
    (told,) = doubted(row(1.04))
    assert told.startswith("the peak (data sheet of H100 80GB HBM3), which counts at the boost clock")
    assert doubted(row(1.4)) == [f"{COUNTED}; or the peak (data sheet of H100 80GB HBM3)"]


def test_a_peak_by_clock_and_sms_of_the_trace_is_doubted() -> None:
    derived = evolve(SHEET, matched="132 SMs × 0.01 GHz × 4096 FLOP per clock", how="derived")
    assert doubted(row(1.4, peak=derived), device=derived) == [
        f"the peak (132 SMs × 0.01 GHz × 4096 FLOP per clock); or {COUNTED}"
    ]


def test_more_than_the_peak_is_marked() -> None:
    assert [of_peak(value) for value in (None, 0.5, 1.0, 1 + 1e-12, 1.034)] == [
        "n/a", "50.0 %", "100.0 %", "100.0 %", "103.4 % (above peak)",
    ]  # fmt: skip


@pytest.mark.parametrize(("tflops", "marked"), [(60, True), (30, False)], ids=["just above", "far above"])
def test_every_format_says_so(real_trace: Callable[[str], Path], tmp_path: Path, tflops: int, *, marked: bool) -> None:
    """At 60 TFLOP/s prefill's MFU over GPU-busy time is 1.3, which is shown and marked; at 30 it is 2.6, which is n/a."""
    given = (real_trace("deepseek-ocr_h100_small"), *STATED, "--peak-tflops", str(tflops))
    formats = ("--format", "markdown", "--format", "html", "--format", "json")
    done = analyze("report", *given, *formats, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    detail = json.loads((tmp_path / "out" / "report.json").read_text())["detail"]
    (finding,) = [row for row in detail["findings"] if row["code"] == "utilisation-above-peak"]
    assert finding["severity"] == "warning"
    assert f"--peak-tflops ({tflops}.0 TFLOP/s; H100 80GB HBM3 has 989 TFLOP/s)" in finding["evidence"]
    busy = next(
        row for row in detail["utilisation"] if (row["stage"], row["time_base"]) == ("prefill", "profiled gpu busy")
    )
    assert (busy["mfu"] is not None) == marked
    written = [(tmp_path / "out" / name).read_text() for name in ("report.md", "report.html")]
    shown = analyze("show", *given)
    for text in (*written, " ".join(shown.stdout.split())):
        assert "more than the device can do" in text
        assert "% (above peak)" in text  # in the finding
    assert f"| {of_peak(busy['mfu'])} |" in written[0]  # in its table
    without = analysis.load(given[0], model="deepseek-ocr", input_mode="gundam", tiles=6, prompt_tokens=916)
    assert "utilisation-above-peak" not in set(without.findings()["code"])


def test_costs_that_no_integer_holds_are_what_was_stated(real_trace: Callable[[str], Path]) -> None:
    stated = (*STATED[:-1], "1000000000", "--peak-tflops", "1e12")
    done = analyze("show", real_trace("deepseek-ocr_h100_small"), *stated)
    assert_one_line(done, 2, "prefill would need 3.07e+22 FLOP, which nothing does: check", "--prompt-tokens")
