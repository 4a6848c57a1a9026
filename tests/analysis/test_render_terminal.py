import io
import itertools
import re
from collections.abc import Callable

import pytest
from attrs import evolve
from rich.cells import cell_len
from rich.console import Console

from analysis.attribution.attribution import Attribution
from analysis.domain.manifest import Overhead
from analysis.render.spec.kernels import KERNELS
from analysis.render.spec.shown import shown
from analysis.render.spec.tables import ReportTables
from analysis.render.terminal import print_headline, print_report
from analysis.render.terminal_tables import FittedTable
from analysis.report import Report, assemble
from analysis.trace.reader import Trace
from report_builder import hostile_report, plain_report

Attribute = Callable[[str], tuple[Trace, Attribution]]


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


# --- real traces on a terminal of 80 columns, and of others -----------------------------------------------------

SCREEN = 24
"""Lines of the smallest terminal."""


def lines_of(report: Report, width: int, *, whole: bool = False) -> list[str]:
    return printed(report, whole=whole, width=width).splitlines()


@pytest.mark.parametrize(
    "name",
    ["deepseek-ocr_h100_64tok", "deepseek-ocr_h100_recorded-graph", "deepseek-ocr_h100_small", "llama_h100_cuda-graph",
     "tensor-parallel_2xh200_rank0", "vllm_h100_llama", "vllm_h100_moe-eager"],
)  # fmt: skip
def test_where_why_what_first_and_what_it_brings_are_on_the_first_screen(
    name: str, real_attribution: Attribute
) -> None:
    report = assemble(*real_attribution(name), None)
    lines = lines_of(report, 80)
    assert max(map(cell_len, lines)) <= 80
    screen = " ".join(" ".join(lines[:SCREEN]).split())
    assert screen.startswith(report.ranking.sentence), "what first, and what it brings"
    first = report.ranking.gains[0]
    for part in report.ranking.parts:
        assert re.search(rf"(?<!\S){part.stage} +[\d.,]+ (ms|µs|s) +[\d.]+ %", "\n".join(lines[:SCREEN])), "where"
    verdict = next(verdict for verdict in report.verdicts if verdict.stage == first.action.stage)
    assert verdict.sentence in screen, "why"
    assert re.search(r"Rank +Stage +What to do +At most +Of it", "\n".join(lines[:SCREEN]))


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_number_wraps_or_is_cut_at_any_width(width: int, real_attribution: Attribute) -> None:
    report = assemble(*real_attribution("deepseek-ocr_h100_small"), None)
    tables = ReportTables(report, "terminal")
    for table in (
        tables.actions(), tables.stage_times(), tables.kernels("decode", 10), tables.kernel_modules("decode", 10),
        tables.module_kinds("decode", 10), tables.utilisation(), tables.budget("decode"), tables.compared(),
    ):  # fmt: skip
        console = Console(file=io.StringIO(), width=width, force_terminal=False)
        console.print(FittedTable(evolve(table, note=""), title=False))
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert max(map(cell_len, lines)) <= width
        body = lines[1 : 1 + len(table.rows)]
        whole = {
            cell.text for row in table.rows for place, cell in enumerate(row) if table.columns[place].align == "right"
        }
        for line in body:
            numbers = [
                word for word in re.split(r" {2,}", line.strip()) if re.fullmatch(r"[−<]? ?[\d.,]+( \S+)?", word)
            ]
            assert all(number in whole for number in numbers), (width, table.key, line)


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("name", ["deepseek-ocr_h100_64tok", "vllm_h100_moe-eager"])
def test_a_number_stays_with_its_unit(name: str, width: int, real_attribution: Attribute) -> None:
    lines = lines_of(assemble(*real_attribution(name), None), width)
    assert max(map(cell_len, lines)) <= width
    for line, following in itertools.pairwise(lines):
        assert not (re.search(r"\d$", line.rstrip()) and re.match(r"(ms|µs|ns|s|%)\b|%", following)), (line, following)


def test_a_name_is_whole_where_there_is_room(real_attribution: Attribute) -> None:
    report = assemble(*real_attribution("deepseek-ocr_h100_small"), None)
    table = shown(KERNELS, report.kernels[:3], "terminal")
    long = "kernel_" + 90 * "x"
    cells = tuple((evolve(row[0], text=long), *row[1:]) for row in table.rows)
    texts = {}
    for width in (80, 300):
        console = Console(file=io.StringIO(), width=width, force_terminal=False)
        console.print(FittedTable(evolve(table, rows=cells)))
        texts[width] = console.file.getvalue()  # type: ignore[attr-defined]
    assert long in texts[300]
    assert long not in texts[80]
    assert re.search(r"kernel_x+…x+ ", texts[80]), "shortened in the middle"


def test_what_is_not_known_is_said_once(real_attribution: Attribute) -> None:
    text = " ".join(
        printed(assemble(*real_attribution("deepseek-ocr_h100_small"), None), whole=False, width=80).split()
    )
    assert text.count("Not known: ") == 1
    assert text.count("--model") == 1
    assert "n/a" not in text
