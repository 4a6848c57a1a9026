import re
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve
from markdown_it import MarkdownIt

from analysis.attribution.attribution import Attribution
from analysis.render import markdown
from analysis.render.markdown_tables import escaped
from analysis.report import Report, assemble
from analysis.trace.reader import Trace
from report_builder import hostile_report, plain_report


def text_of(report: Report, tmp_path: Path) -> str:
    path, *_ = markdown.render(report, tmp_path)
    return path.read_text(encoding="utf-8")


def rows_of(text: str, heading: str) -> list[dict[str, str]]:
    """Rows of the first table below a heading: heading of a column → its cell."""
    below = text.split(f"{heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert lines is not None
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[0].splitlines()]
    head, _, *body = [[cell.strip().strip("*").strip("`") for cell in row] for row in rows]
    return [dict(zip(head, row, strict=True)) for row in body]


def exact_ns(cell: str) -> int:
    return int(cell.replace(",", "").replace(".", ""))


def test_the_first_lines_say_what_was_measured(tmp_path: Path) -> None:
    lines = text_of(plain_report(), tmp_path).splitlines()
    assert lines[:12] == [
        "# deepseek-ocr: inference profile",
        "",
        f"**{escaped(plain_report().ranking.sentence)}**",
        "",
        "- deepseek-ocr, bf16, random weights · 1 page × at most 64 tokens · batch 1 · eager decode",
        "- NVIDIA H100 80GB HBM3 · Nsight Systems 2025.3.2.0 · torch 2.13.0 · 2026-01-02",
        "- 130 ms a page, unprofiled = prefill 40 ms + decode 90 ms",
        "- Medians, unprofiled: TTFT 39.9 ms (of 3: 39.0 ms to 41.0 ms), TPOT 22.4 ms (of 3: 22.0 ms to 23.0 ms)",
        "- Not known: MFU and MBU, for nobody counted void gemm&#60;float&#62;(int).",
        "",
        "> **Weights are random: times are those of the real architecture, but the generated text means nothing.**",
        "",
    ]


def test_a_cpu_collector_is_told_in_the_first_lines(tmp_path: Path) -> None:
    report = plain_report()
    on_cpu = evolve(report, capture=evolve(report.capture, on_cpu=True, collector="torch on CPU", device_names=()))
    opening = text_of(on_cpu, tmp_path).split("## Verdict")[0]
    assert "Leaf operators on the CPU stand where GPU kernels would" in opening
    assert "- CPU · " in opening


def test_an_unfit_capture_is_told_before_the_verdict(tmp_path: Path) -> None:
    report = plain_report()
    unfit = evolve(report, findings=(evolve(report.findings[0], severity="unfit", title="Stages are missing"),))
    assert "**Do not use these numbers:** Stages are missing" in text_of(unfit, tmp_path).split("## Verdict")[0]


def test_stage_rows_add_up_exactly(tmp_path: Path) -> None:
    report = plain_report()
    *rows, total = rows_of(text_of(report, tmp_path), "## GPU time by stage")
    assert [row["Stage"] for row in rows] == ["prefill", "decode", "(unattributed)"]
    for column in ("Kernels", "Copies"):
        assert sum(int(row[column].replace(",", "")) for row in rows) == int(total[column].replace(",", ""))
    for column in ("Kernel sum, ms", "Copy sum, ms", "All operations, ms"):
        assert sum(exact_ns(row[column]) for row in rows) == exact_ns(total[column])
    assert exact_ns(total["Kernel sum, ms"]) == sum(row.kernel_sum_ns for row in report.stage_rows)


@pytest.mark.parametrize("stage", ["prefill", "decode"])
@pytest.mark.parametrize("kernels", [3, 60])
def test_kernel_rows_add_up_exactly(stage: str, kernels: int, tmp_path: Path) -> None:
    report = plain_report(tuple(f"kernel_{index}" for index in range(kernels)))
    *rows, total = rows_of(text_of(report, tmp_path), f"### Kernels, {stage}")
    assert len(rows) == kernels if kernels < 5 else 3 < len(rows) < 15
    expected = sum(one.total_ns for one in report.kernels if one.stage == stage)
    assert sum(exact_ns(row["Total, ms"]) for row in rows) == exact_ns(total["Total, ms"]) == expected


def test_what_is_unknown_says_why(tmp_path: Path) -> None:
    text = text_of(plain_report(("gemm",)), tmp_path)
    assert "| MFU and MBU, decode | n/a | nobody counted gemm |" in text
    assert "n/a: nobody counted gemm." in text


def test_hostile_names_are_text_to_a_markdown_reader(tmp_path: Path) -> None:
    text = text_of(hostile_report(), tmp_path)
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069]", text)
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    tags = set(re.findall(r"<\s*([a-zA-Z0-9]+)", shown))
    assert tags <= {"h1", "h2", "h3", "p", "ul", "li", "strong", "em", "code", "img", "blockquote", "table", "thead",
                    "tbody", "tr", "th", "td"}  # fmt: skip
    assert set(re.findall(r'<img src="([^"]*)"', shown)) == {"budget.svg", "steps.svg", "categories.svg"}
    assert "href" not in shown


def test_every_row_of_a_table_has_its_cells_whatever_the_names(tmp_path: Path) -> None:
    text = text_of(hostile_report(), tmp_path)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        counts = {len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(counts) == 1, table[:300]


REAL = (
    "deepseek-ocr_h100_64tok", "deepseek-ocr_h100_gpu-metrics", "deepseek-ocr_h100_lossy", "deepseek-ocr_h100_small",
    "deepseek-ocr_h100_recorded-graph", "deepseek-ocr_h200_cuda-graph", "deepseek-ocr_h200_torch", "llama_h100_cuda-graph",
    "tensor-parallel_2xh200_rank0", "tensor-parallel_2xh200_rank1", "vllm_h100_llama", "vllm_h100_moe-eager",
)  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_two_hundred_lines_hold_what_matters(
    name: str, real_attribution: Callable[[str], tuple[Trace, Attribution]], tmp_path: Path
) -> None:
    report = assemble(*real_attribution(name), None)
    text = text_of(report, tmp_path)
    assert len(text.splitlines()) <= markdown.MOST_LINES
    headings = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert {"Verdict", "Capture quality", "GPU time by stage", "Kernels", "Modules", "Utilisation"} <= set(headings)
    assert (headings[0] == "What to do, ranked") == bool(report.ranking.gains)
    for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", text):
        assert (tmp_path / picture).is_file()
    left_out = re.search(r"^In report.html and report.json: (.*)\.$", text, re.MULTILINE)
    assert left_out is not None, "so many sections fit into no report of a real trace"
    assert not set(left_out[1].split("; ")) & set(headings)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        first = table.splitlines()[2:]
        assert any(line.strip("| ") for line in first), "no table without rows"


def test_hostile_names_do_not_lengthen_the_file(tmp_path: Path) -> None:
    assert len(text_of(hostile_report(), tmp_path).splitlines()) <= markdown.MOST_LINES
