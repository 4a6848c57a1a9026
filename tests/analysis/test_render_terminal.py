import io
import re

import pytest
from attrs import evolve
from rich.console import Console

from analysis.domain.manifest import Overhead
from analysis.render.spec.tables import ReportTables
from analysis.render.terminal import print_headline, print_report
from analysis.report import Report
from report_builder import hostile_report, plain_report


def printed(report: Report, *, whole: bool = True, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    (print_report if whole else print_headline)(report, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_the_summary_fits_on_one_screen_and_opens_with_what_was_measured() -> None:
    lines = printed(plain_report(), whole=False).splitlines()
    assert len(lines) <= 24
    assert lines[0].startswith("Start with decode: ")
    assert lines[1].startswith(
        "deepseek-ocr, bf16, random weights · 1 page × at most 64 tokens · batch 1 · eager decode"
    )
    assert lines[2] == "NVIDIA H100 80GB HBM3 · Nsight Systems 2025.3.2.0 · torch 2.13.0 · 2026-01-02"
    assert any(line.startswith("decode: launch-bound.") for line in lines)
    assert any(line.startswith("Medians, unprofiled: TTFT 39.9 ms") for line in lines)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_numbers_of_the_kernel_table_are_never_cut(width: int) -> None:
    report = plain_report()
    text = printed(report, width=width)
    for one in report.kernels:
        assert f"{one.total_ns / 1e6:,.3f}" in text


def test_the_reason_of_an_unknown_value_stands_below_its_table() -> None:
    report = plain_report()
    row = evolve(report.utilisation[0], mfu=None, mbu=None, unknown_because="nobody knows \x1b[31mthis GPU's peak")
    text = " ".join(printed(evolve(report, utilisation=(row,)), width=80).split())
    assert "nobody knows \\x1b[31mthis GPU's peak" in text
    assert "Numbers in module paths are folded." in text


def test_a_factor_below_one_is_noise_in_the_report_too() -> None:
    overhead = (Overhead("decode", 18.2, 3.1, 0.17, "token"), Overhead("prefill", 18.2, 20.0, 1.1, "image"))
    noise = "Measured faster than unprofiled (decode 0.17 ×): noise of the machine, no speed-up by the profiler."
    assert ReportTables(evolve(plain_report(), overhead=overhead), "markdown").overhead().note.endswith(f" {noise}")
    assert "noise" not in ReportTables(evolve(plain_report(), overhead=overhead[1:]), "markdown").overhead().note


def test_hostile_names_neither_colour_nor_format() -> None:
    text = printed(hostile_report())
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    assert "\\x1b[31mred" in text
