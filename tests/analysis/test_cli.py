"""``dsocr-analyze``: every command and option, as a user calls it."""

from __future__ import annotations

import csv
import io
import json
import lzma
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pytest
from attrs import fields

from analysis import cli
from analysis.api.options import AnalysisOptions
from analysis.cli.options import SHARED
from analysis.cli.report_folder import MARKER
from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import from_json, to_json
from analysis.domain.entities import KernelSummary, LLMProfileReport, RunMeta
from analysis.domain.errors import NothingMatchesError
from analysis.domain.manifest import RunManifest
from analysis.sums import grouping
from analysis.sums.grouping import COLUMNS
from analysis.sums.tables import TABLE_KINDS
from trace_builder import TraceBuilder
from whole_trace import whole

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parents[1] / "data"
Unpack = Callable[[str], Path]


def installed_version() -> str | None:
    try:
        return metadata.version("dsocr-profiler")
    except metadata.PackageNotFoundError:
        return None


class Done:
    """What a call of the command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Call the entry point in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["dsocr-analyze", *map(str, arguments)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        assert isinstance(code, int), code
        return Done(code, out, err)

    return call


def assert_one_line(done: Done, code: int, *words: str) -> None:
    assert (done.code, done.out) == (code, ""), done.err
    assert done.err.count("\n") == 1, done.err
    assert all(word in done.err for word in words), done.err


@pytest.fixture
def small(real_trace: Unpack) -> Path:
    return real_trace("deepseek-ocr_h100_small")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return whole().write(tmp_path / "toy.sqlite")


# --- report and show ------------------------------------------------------------------------------------------


def test_report_is_the_default_command(run: Run, small: Path, tmp_path: Path) -> None:
    done = run(small)
    assert (done.code, done.err) == (0, "")
    assert "Decode is host-bound in Python" in done.out
    folder = tmp_path / "reports" / "deepseek-ocr_h100_small"
    for name in ("report.html", "report.md", "report.json", "summary.json", "kernels.parquet"):
        assert (folder / name).stat().st_size > 0
        assert name in done.out
    assert not [one.name for one in folder.iterdir() if one.name.endswith(".tmp")]
    written = json.loads((folder / "report.json").read_text())
    assert "detail" in written
    again = run("report", small, "--out", tmp_path / "again")
    assert again.code == 0
    named = {one.name for one in (tmp_path / "again").iterdir()}
    assert {one.name for one in folder.iterdir()} == named | {MARKER}, "a folder that the user named gets no marker"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("markdown", {"report.md"}),
        ("json", {"report.json", "summary.json"}),
        ("html", {"report.html"}),
        ("parquet", {"kernels.parquet", "kernel_modules.parquet"}),
        ("csv", {"kernels.csv", "kernel_modules.csv"}),
        ("perfetto", {"timeline.pftrace"}),
    ],
)
def test_each_format_alone(run: Run, toy: Path, tmp_path: Path, name: str, files: set[str]) -> None:
    done = run("report", toy, "--format", name, "--out", tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    assert {one.name for one in (tmp_path / "out").iterdir() if one.suffix != ".svg"} == files


def test_formats_add_up(run: Run, toy: Path, tmp_path: Path) -> None:
    assert run(toy, "--format", "csv", "--format", "perfetto", "--out", tmp_path / "out").code == 0
    assert {one.name for one in (tmp_path / "out").iterdir()} == {
        "kernels.csv",
        "kernel_modules.csv",
        "timeline.pftrace",
    }


def test_unknown_format(run: Run, toy: Path, tmp_path: Path) -> None:
    assert_one_line(run(toy, "--format", "pdf", "--out", tmp_path / "out"), 2, "'pdf'", "markdown", "perfetto")
    assert not (tmp_path / "out").exists()


def test_show_writes_nothing(run: Run, small: Path, tmp_path: Path) -> None:
    done = run("show", small)
    assert (done.code, done.err) == (0, "")
    assert "Decode is host-bound in Python" in done.out
    assert done.out.startswith(
        "Start with prefill and decode: replace the loop over experts in layers.*.mlp by grouped"
    )
    assert done.out.count("Decode is host-bound in Python") == 1
    assert "host-bound in Python. Decode" not in done.out, "said once"
    assert not list(tmp_path.iterdir())


def test_explain_and_a_stated_model(run: Run, small: Path) -> None:
    done = run("show", small, "--model", "deepseek-ocr", "--tiles", "6", "--prompt-tokens", "916", "--explain")
    assert done.code == 0
    assert "· deepseek-ocr, as stated · 1 page × 4 steps" in done.out
    assert "decode, profiled: MFU = " in done.out
    assert "decode, profiled, GPU busy: MFU = " in done.out, "named as in the table"
    assert "989.4 TFLOP/s bf16 dense, spec" in done.out
    without = run("show", small, "--explain")
    assert "Not known: model and inputs, so no MFU and MBU (give --model" in without.out
    assert "every stage: n/a: the trace carries no manifest" in without.out
    assert without.out.count("carries no manifest") == 2, "below the table, and where the arithmetic would be"


def test_stated_peaks(run: Run, small: Path) -> None:
    stated = ("--model", "deepseek-ocr", "--tiles", "6", "--prompt-tokens", "916", "--explain")
    done = run("show", small, *stated, "--peak-tflops", "100", "--peak-gbps", "1000")
    assert "100 TFLOP/s bf16 dense, override" in done.out
    assert "1000 GB/s" in done.out


@pytest.mark.parametrize("command", ["report", "show"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--peak-tflops", "0"), ("--peak-tflops", "positive")),
        (("--peak-tflops", "-3"), ("--peak-tflops", "-3")),
        (("--peak-tflops", "nan"), ("--peak-tflops", "nan")),
        (("--peak-gbps", "inf"), ("--peak-gbps", "inf")),
        (("--model", "deepseek-ocr"), ("--prompt-tokens",)),
        (("--model", "deepseek-ocr", "--prompt-tokens", "0"), ("--prompt-tokens",)),
        (("--model", "gpt-5", "--prompt-tokens", "9"), ("gpt-5", "deepseek-ocr")),
        (("--model", "deepseek-ocr", "--prompt-tokens", "9", "--input-mode", "vast"), ("vast", "gundam")),
        (("--input-mode", "gundam"), ("--input-mode", "--model")),
        (("--tiles", "0"), ("--tiles", "--model")),
        (("--prompt-tokens", "9", "--tiles", "6"), ("--tiles, --prompt-tokens", "--model")),
        (("--skip-first", "-1"), ("--skip-first", "-1")),
        (("--nonsense",), ("--nonsense", "--help")),
    ],
)
def test_bad_values_are_one_line(
    run: Run, toy: Path, tmp_path: Path, command: str, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert_one_line(run(command, toy, *arguments), 2, *words)
    assert [one.name for one in tmp_path.iterdir()] == ["toy.sqlite"]


def test_kernel_rules(run: Run, toy: Path, tmp_path: Path) -> None:
    rules = tmp_path / "mine.toml"
    rules.write_text('[[rule]]\nany = ["gemm"]\ncategory = "my own"\nhuman = "mine"\n')
    done = run("report", toy, "--kernel-rules", rules, "--format", "json", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    kernels = json.loads((tmp_path / "out" / "report.json").read_text())["detail"]["kernels"]
    assert {one["name"]: one["category"] for one in kernels}["gemm"] == "my own"


@pytest.mark.parametrize(
    "text", ["[[rule]\n", '[[rule]]\nmatch = "gemm"\ncategory = "x"\n', '[[rule]]\nany = ["gemm"]\n', "rule = 3\n"]
)
def test_broken_kernel_rules(run: Run, toy: Path, tmp_path: Path, text: str) -> None:
    rules = tmp_path / "mine.toml"
    rules.write_text(text)
    assert_one_line(run("report", toy, "--kernel-rules", rules, "--out", tmp_path / "out"), 2, "mine.toml")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["report", "show"])
def test_an_unfit_capture_needs_a_word(run: Run, real_trace: Unpack, tmp_path: Path, command: str) -> None:
    lossy = real_trace("deepseek-ocr_h100_lossy")
    assert_one_line(run(command, lossy), 4, "unfit", "--accept-lossy")
    assert not list(tmp_path.iterdir())
    done = run(command, lossy, "--accept-lossy")
    assert (done.code, done.err) == (0, "")
    assert "unfit" in done.out
    assert "No verdict on the whole capture" in done.out


ROWS = [("table",), ("table", "--by", "range-kernel"), ("table", "--by", "kernel", "--format", "json"), ("kernels",)]
"""Commands that print numbers without a report."""


@pytest.mark.parametrize("command", ROWS)
def test_rows_of_an_unfit_capture_need_a_word_too(run: Run, real_trace: Unpack, command: tuple[str, ...]) -> None:
    lossy = real_trace("deepseek-ocr_h100_lossy")
    assert_one_line(run(command[0], lossy, *command[1:]), 4, "unfit", "the profiler lost events", "--accept-lossy")
    done = run(command[0], lossy, *command[1:], "--accept-lossy")
    assert (done.code, done.err) == (0, "")
    assert len(done.out.splitlines()) > 3


@pytest.mark.parametrize("command", ROWS)
def test_rows_of_a_trace_with_the_manifest_of_another_run(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    path = whole().write(tmp_path / "t.sqlite")
    (tmp_path / "mine.json").write_text("{}")
    assert_one_line(run(command[0], path, *command[1:], "--manifest", "mine.json"), 2, "mine.json")


# --- where a report goes --------------------------------------------------------------------------------------


def wrote(done: Done) -> Path:
    """Folder that the command names in ``Report: …``."""
    assert done.code == 0, done.err
    (line,) = [one for one in done.out.splitlines() if one.startswith("Report: ")]
    return Path(line.removeprefix("Report: ")).parent


@pytest.fixture
def several(tmp_path: Path) -> Callable[[str], Path]:
    """Path below the test's folder → a trace there."""

    def make(name: str) -> Path:
        (path := tmp_path / name).parent.mkdir(parents=True)
        return whole().write(path)

    return make


def test_traces_of_one_file_name_get_a_report_each(run: Run, several: Callable[[str], Path]) -> None:
    first, second = several("a/trace.sqlite"), several("b/trace.sqlite")
    assert wrote(run(first)) == Path("reports/a")
    assert wrote(run(second)) == Path("reports/b")
    for folder, trace in (("a", first), ("b", second)):
        written = json.loads(Path(f"reports/{folder}/report.json").read_text())
        assert written["detail"]["capture"]["trace_path"] == str(trace)


def test_a_telling_file_name_is_the_reports_name(run: Run, several: Callable[[str], Path]) -> None:
    assert wrote(run(several("a/llama-8b.sqlite"))) == Path("reports/llama-8b")


def test_a_default_folder_never_takes_the_place_of_another_traces_report(
    run: Run, several: Callable[[str], Path]
) -> None:
    first, second = several("x/a/trace.sqlite"), several("y/a/trace.sqlite")
    assert wrote(run(first, "--format", "csv", "--format", "html")) == Path("reports/a")
    kept = Path("reports/a/kernels.csv").read_bytes()
    done = run(second)
    assert wrote(done) == Path("reports/a-2")
    assert done.err.startswith("dsocr-analyze: note: reports/a holds the report of another trace")
    assert str(first) in done.err
    assert Path("reports/a/kernels.csv").read_bytes() == kept
    assert not Path("reports/a/report.json").exists()
    again = [run(second), run(first)]
    assert [wrote(one) for one in again] == [Path("reports/a-2"), Path("reports/a")]
    assert again[1].err == ""


def test_a_default_folder_with_other_files_is_left_alone(run: Run, several: Callable[[str], Path]) -> None:
    Path("reports/a").mkdir(parents=True)
    Path("reports/a/notes.txt").write_text("mine")
    done = run(several("a/trace.sqlite"))
    assert wrote(done) == Path("reports/a-2")
    assert "not known which" in done.err
    assert [one.name for one in Path("reports/a").iterdir()] == ["notes.txt"]


def test_a_folder_that_the_user_named_is_replaced_with_a_word(run: Run, several: Callable[[str], Path]) -> None:
    first, second = several("a/trace.sqlite"), several("b/trace.sqlite")
    assert run(first, "--out", "out").err == ""
    assert run(first, "--out", "out").err == ""
    done = run(second, "--out", "out")
    assert done.code == 0
    assert done.err.count("\n") == 1
    assert str(first) in done.err
    assert "replaced" in done.err
    assert run(second, "--out", "out").err == ""


def test_the_runs_id_names_the_report(run: Run, tmp_path: Path) -> None:
    for run_id, folder in (("20260102-llama", "reports/20260102-llama"), ("../up", f"reports/{tmp_path.name}")):
        manifest = RunManifest(
            run_id=run_id,
            status="complete",
            request=LLMProfileRequest(model_path="/models/m", input_dir="/pages"),
            collector="nsys",
            meta=RunMeta(run_id=run_id, created_at=datetime(2026, 1, 2, tzinfo=UTC), repeats=1),
        )
        path = (
            whole().mark("dsocr-manifest " + to_json(manifest), 1, domain="dsocr.meta").write(tmp_path / "trace.sqlite")
        )
        assert wrote(run(path)) == Path(folder)
        path.unlink()


@pytest.mark.parametrize("where", ["a file", "under a file", "full"])
def test_unwritable_out(run: Run, toy: Path, tmp_path: Path, where: str) -> None:
    if where == "full":
        out = Path("/proc/self/dsocr")  # no one, root included, makes a folder here
    else:
        (tmp_path / "taken").write_text("mine")
        out = tmp_path / "taken" if where == "a file" else tmp_path / "taken" / "below"
    assert_one_line(run(toy, "--out", out), 2, str(out), "--out")
    assert sorted(one.name for one in tmp_path.iterdir()) == (
        ["toy.sqlite"] if where == "full" else ["taken", "toy.sqlite"]
    )


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    """A trace whose second thread launches inside a stage, a module and an operator of the first."""
    built = TraceBuilder().range("decode", 0, 100, domain="dsocr").range("head", 1, 99, domain="dsocr.module")
    built.range("aten::mm", 1, 90).launch(5, 6, ("mine", 10, 20))
    return built.thread(1, 2).launch(30, 31, ("worker", 40, 50)).write(tmp_path / "t.sqlite")


@pytest.mark.parametrize(
    ("by", "name", "count"),
    [
        ("stage", "decode", "kernels"),
        ("instance", "decode", "kernels"),
        ("module", "head", "kernels"),
        ("range", "dsocr:decode", "kernels"),
        ("range", "dsocr.module:head", "kernels"),
        ("range", "aten::mm", "kernels"),
        ("range-kernel", "dsocr:decode", "kernel_instances"),
        ("range-projection", "aten::mm", "operations"),
    ],
)
def test_across_threads(run: Run, worker: Path, by: str, name: str, count: str) -> None:
    for arguments, kernels in (((), 1), (("--cross-thread",), 2)):
        rows = json.loads(run("table", worker, "--by", by, "--format", "json", *arguments).out)
        mine = [row for row in rows if row.get("name", row.get("range_name")) == name]
        assert sum(row[count] for row in mine) == kernels


def test_across_threads_in_kernels_and_reports(run: Run, worker: Path, tmp_path: Path) -> None:
    for arguments, kernels in (((), 1), (("--cross-thread",), 2)):
        rows = json.loads(run("kernels", worker, "--stage", "decode", "--format", "json", *arguments).out)
        assert len(rows) == kernels
        assert run("show", worker, *arguments).code == 0
        assert run("report", worker, "--format", "json", "--out", "out", *arguments).code == 0
        written = json.loads((tmp_path / "out" / "report.json").read_text())
        assert [one["cuda_time_ms"] for one in written["operators_topk"]] == [kernels * 10 / 1e6]


def test_the_first_instances_can_be_left_out(run: Run, tmp_path: Path) -> None:
    """A first page that took ten times as long says nothing of the others."""
    built = TraceBuilder().session(10_000).gpu()
    for page, (start, end) in enumerate(((0, 1000), (1000, 1100), (1100, 1200), (1200, 1300))):
        built.range(f"image[{page}]", start, end, domain="dsocr").range("prefill", start, end, domain="dsocr")
        built.launch(start + 1, start + 2, ("k", start + 10, start + 90))
    path = built.write(tmp_path / "t.sqlite")
    means = []
    for skipped in (0, 1):
        assert run("report", path, "--format", "json", "--out", "out", "--skip-first", str(skipped)).code == 0
        written = json.loads((tmp_path / "out" / "report.json").read_text())
        means.append(written["aggregates"]["profiled_prefill_ms"]["mean"])
    assert means == pytest.approx([1300 / 4 / 1e6, 100 / 1e6])
    assert run("show", path, "--skip-first", "1").code == 0
    assert_one_line(run("show", path, "--skip-first", "4"), 2, "--skip-first 4", "prefill")


# --- table ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [None, "prefill", "decode"])
@pytest.mark.parametrize("by", TABLE_KINDS)
def test_nothing_but_the_table(run: Run, small: Path, by: str, stage: str | None) -> None:
    chosen = ("--stage", stage) if stage else ()
    md, as_csv, as_json = (run("table", small, "--by", by, "--format", kind, *chosen) for kind in ("md", "csv", "json"))
    assert {(one.code, one.err) for one in (md, as_csv, as_json)} == {(0, "")}
    rows = json.loads(as_json.out)
    assert all(tuple(row) == COLUMNS for row in rows)
    assert all(isinstance(row[column], int) for row in rows for column in COLUMNS[1:])
    table = list(csv.DictReader(io.StringIO(as_csv.out)))
    assert [{key: str(value) for key, value in row.items()} for row in rows] == table
    lines = md.out.splitlines()
    assert lines[0] == "| " + " | ".join(COLUMNS) + " |"
    assert len(lines) == len(rows) + 2
    assert all(line.startswith("|") and line.endswith("|") for line in lines)
    if by != "range":
        whole_stage = json.loads(run("table", small, "--format", "json", *chosen).out)
        for column in ("kernels", "kernel_sum_ns", "memcpys", "memcpy_ns", "memsets", "memset_ns"):
            assert sum(row[column] for row in rows) == sum(row[column] for row in whole_stage)


def nsys_rows(report: str) -> list[dict[str, str]]:
    """Rows of a report that ``nsys stats`` made of the 64-token trace."""
    with lzma.open(DATA / "expected" / f"deepseek-ocr_h100_64tok.{report}.csv.xz", "rt", newline="") as file:
        return list(csv.DictReader(file))


def test_the_range_kernel_table_is_nvtx_kern_sum(run: Run, real_trace: Unpack) -> None:
    done = run("table", real_trace("deepseek-ocr_h100_64tok"), "--by", "range-kernel", "--format", "json")
    assert (done.code, done.err) == (0, "")
    names = {
        "range_name": "NVTX Range", "style": "Style", "pid": "PID", "tid": "TID", "kernel": "Kernel Name",
        "range_instances": "NVTX Inst", "kernel_instances": "Kern Inst", "total_ns": "Total Time (ns)",
        "min_ns": "Min (ns)", "max_ns": "Max (ns)",
    }  # fmt: skip
    found = [tuple(str(row[name]) for name in names) for row in json.loads(done.out)]
    wanted = [tuple(row[name] for name in names.values()) for row in nsys_rows("nvtx_kern_sum")]
    assert sorted(found) == sorted(wanted)


def test_the_range_projection_table_is_nvtx_gpu_proj_sum(run: Run, real_trace: Unpack) -> None:
    done = run("table", real_trace("deepseek-ocr_h100_64tok"), "--by", "range-projection", "--format", "csv")
    assert (done.code, done.err) == (0, "")
    names = {
        "range_name": "Range", "style": "Style", "range_instances": "Range Instances",
        "projected_ns": "Total Proj Time (ns)", "host_ns": "Total Range Time (ns)", "operations": "Total GPU Ops",
        "min_ns": "Proj Min (ns)", "max_ns": "Proj Max (ns)",
    }  # fmt: skip
    found = [tuple(row[name] for name in names) for row in csv.DictReader(io.StringIO(done.out))]
    wanted = [tuple(row[name] for name in names.values()) for row in nsys_rows("nvtx_gpu_proj_sum")]
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("kind", ["md", "csv", "json"])
@pytest.mark.parametrize("by", ["range-kernel", "range-projection"])
def test_tables_of_ranges_and_kernels_by_stage(run: Run, small: Path, by: str, kind: str) -> None:
    done = run("table", small, "--by", by, "--format", kind, "--stage", "decode")
    assert (done.code, done.err) == (0, "")
    if kind == "md":
        assert done.out.startswith("| range_name | style |")
        return
    rows = json.loads(done.out) if kind == "json" else list(csv.DictReader(io.StringIO(done.out)))
    ranges = {row["range_name"] for row in rows}
    assert "dsocr:decode_step" in ranges
    assert "dsocr:prefill" not in ranges, "no kernel of decode lies in it"
    assert run("table", small, "--by", by, "--stage", "prefill").out != run("table", small, "--by", by).out


@pytest.mark.parametrize("kind", ["md", "csv", "json"])
def test_a_table_without_rows(run: Run, tmp_path: Path, kind: str) -> None:
    path = (
        TraceBuilder().range("decode", 0, 9, domain="dsocr").launch(50, 51, ("k", 60, 70)).write(tmp_path / "t.sqlite")
    )
    done = run("table", path, "--by", "step", "--stage", "prefill", "--format", kind)
    assert (done.code, done.err) == (0, "")
    head = {
        "md": ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * 10],
        "csv": [",".join(COLUMNS)],
        "json": ["[]"],
    }
    assert done.out.splitlines() == head[kind]


def test_hostile_names_reach_standard_output_as_text(run: Run, tmp_path: Path) -> None:
    name = "\x1b[31m<b>|`\u202e\n\udcff"
    path = TraceBuilder().launch(0, 5, ("x", 10, 20)).range("decode", 0, 9, domain="dsocr").write(tmp_path / "t.sqlite")
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(
            "UPDATE StringIds SET value = CAST(? AS TEXT) WHERE value = 'x'", (name.encode("utf-8", "surrogateescape"),)
        )
    for kind in ("md", "csv", "json"):
        for command in (("table", path, "--by", "kernel"), ("kernels", path)):
            done = run(*command, "--format", kind)
            assert (done.code, done.err) == (0, "")
            if kind == "md":
                assert len(done.out.splitlines()) == 3
                assert not any(one in done.out for one in ("\x1b", "<b>", "\u202e"))


@pytest.mark.parametrize(
    "command", [("show",), ("table", "--by", "kernel", "--format", "json"), ("kernels", "--format", "csv")]
)
def test_pipes_carry_utf8_whatever_the_locale(tmp_path: Path, command: tuple[str, ...]) -> None:
    built = TraceBuilder().range("decode", 0, 9, domain="dsocr").launch(0, 5, ("矩阵乘法 – ©", 10, 20))
    path = built.write(tmp_path / "t.sqlite")
    done = subprocess.run(
        [sys.executable, "-m", "analysis.cli", command[0], path, *command[1:]],
        cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "latin-1"}, capture_output=True, check=True,
    )  # fmt: skip
    assert "矩阵乘法 – ©" in done.stdout.decode("utf-8")
    assert done.stderr == b""


# --- check ----------------------------------------------------------------------------------------------------


def test_check(run: Run, small: Path, real_trace: Unpack) -> None:
    done = run("check", small)
    assert (done.code, done.err) == (0, "")
    assert "no run manifest" in done.out
    findings = json.loads(run("check", small, "--json").out)
    assert [one["code"] for one in findings] == ["no-manifest"]
    assert set(findings[0]) == {"code", "severity", "title", "evidence", "remedy"}

    lossy = run("check", real_trace("deepseek-ocr_h100_lossy"), "--json")
    assert lossy.code == 4
    assert "lossy-capture" in {one["code"] for one in json.loads(lossy.out)}
    assert lossy.err.count("\n") == 1


# --- kernels --------------------------------------------------------------------------------------------------


def test_kernels(run: Run, small: Path) -> None:
    done = run("kernels", small, "--stage", "decode", "--match", "NVJET", "--top", "2")
    assert (done.code, done.err) == (0, "")
    assert done.out.count("nvjet_sm90") == 2
    assert "prefill" not in done.out
    assert "more; --top shows them" in done.out

    rows = json.loads(run("kernels", small, "--match", "gemm", "--top", "500", "--format", "json").out)
    found = [from_json(KernelSummary, json.dumps(row), source="row") for row in rows]
    assert found
    assert all("gemm" in f"{one.name}{one.short_name}{one.category}".casefold() for one in found)
    decode = [one.total_ns for one in found if one.stage == "decode"]
    assert decode == sorted(decode, reverse=True)
    table = list(
        csv.DictReader(io.StringIO(run("kernels", small, "--match", "gemm", "--top", "500", "--format", "csv").out))
    )
    assert [row["name"] for row in table] == [one.name for one in found]
    assert run("kernels", small, "--top", "0").code == 2


@pytest.mark.parametrize("kind", ["text", "markdown", "csv", "json"])
@pytest.mark.parametrize(
    ("command", "pattern", "nearest"),
    [
        (("kernels",), "nvjt", "nearest nvjet"),
        (("kernels", "--stage", "decode"), "elementwize", "nearest elementwise"),
        (("table", "--by", "module"), "layers.3.attnn", "nearest layers.3.self_attn"),
        (("table", "--by", "range-kernel"), "decode_stp", "dsocr:decode_step"),
        (("table", "--by", "kernel-module"), "???", "there are "),
    ],
)
def test_a_pattern_that_matches_nothing_names_the_nearest(
    run: Run, small: Path, command: tuple[str, ...], pattern: str, nearest: str, kind: str
) -> None:
    done = run(command[0], small, *command[1:], "--match", pattern, "--format", kind)
    assert_one_line(done, NothingMatchesError.exit_code, repr(pattern), nearest)
    assert done.out == ""


def test_a_stages_table_of_kernels_holds_its_own_only(run: Run, small: Path) -> None:
    """Not the kernels of other stages as rows of zeros."""
    rows = json.loads(run("table", small, "--by", "kernel", "--stage", "decode", "--format", "json").out)
    assert all(row["kernels"] + row["memcpys"] + row["memsets"] for row in rows)
    assert sum(row["kernels"] for row in rows) == 6808
    assert json.loads(run("table", small, "--by", "kernel", "--stage", "mixed", "--format", "json").out) == []
    assert_one_line(run("table", small, "--by", "kernel", "--stage", "mixed"), 1, "belongs to mixed")


def test_a_stage_that_the_trace_lacks_is_said(run: Run, small: Path) -> None:
    for command in ("kernels", "table"):
        assert_one_line(
            run(command, small, "--stage", "mixed"), 1, "belongs to mixed", "its stages are prefill, decode"
        )


def test_tables_are_aligned_text_unless_markdown_is_asked_for(run: Run, small: Path) -> None:
    """In a pipe as on a terminal: columns begin at one place, and integers stay in the data formats."""
    done = run("table", small, "--by", "module", "--match", "SELF_attn")
    assert (done.code, done.err) == (0, "")
    assert "|" not in done.out
    head, *rows = done.out.splitlines()
    ends = [match.end() for match in re.finditer(r"\S+(?: \S+)*", head)][1:]
    for row in rows[:12]:
        assert row.startswith("layers.")
        assert [match.end() for match in re.finditer(r"\S+", row)][1:] == ends
    assert rows[12].startswith("Total ")
    for name in ("md", "markdown"):
        assert run("table", small, "--format", name).out.startswith("| name | kernels |")
    assert run("kernels", small, "--format", "markdown").out.startswith("| stage | name |")


def test_kernels_by_launch_shape(run: Run, small: Path) -> None:
    """The shapes of a name add up to its row."""
    options = ("--stage", "prefill", "--top", "5000", "--format", "json")
    by_name = json.loads(run("kernels", small, *options).out)
    by_shape = json.loads(run("kernels", small, *options, "--shapes").out)
    assert len(by_shape) > len(by_name)
    for row in by_name:
        shapes = [one for one in by_shape if one["name"] == row["name"]]
        assert sum(one["total_ns"] for one in shapes) == row["total_ns"]
        assert (min(one["min_ns"] for one in shapes), len(shapes)) == (row["min_ns"], row["shapes"])


def test_kernels_by_rules_of_the_users_own(run: Run, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[[rule]]\nany = ["gemm"]\ncategory = "my own"\nhuman = "mine"\n')
    rows = json.loads(run("kernels", toy, "--kernel-rules", "mine.toml", "--format", "json").out)
    assert {one["name"]: one["category"] for one in rows}["gemm"] == "my own"


# --- the rest -------------------------------------------------------------------------------------------------


def test_help(run: Run) -> None:
    done = run("--help")
    assert done.code == 0
    for name in ("report", "show", "table", "check", "kernels", "schema"):
        assert name in done.out
        assert run(name, "--help").code == 0
    assert_one_line(run("table"), 2, "TRACE", "dsocr-analyze table --help")
    assert_one_line(run("table", "x", "--by", "name"), 2, "'name'", "'range-kernel'")


def test_each_shared_option_is_a_field_of_the_one_record() -> None:
    assert set(SHARED) == {one.name for one in fields(AnalysisOptions)}


def test_version(run: Run) -> None:
    number = installed_version() or "(version unknown: the package is not installed)"
    assert run("--version").out == f"dsocr-analyze {number}\n"


def test_an_unwatched_command_says_nothing_of_its_progress(small: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "analysis.cli", "table", small], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.startswith("Stage ")


@pytest.mark.parametrize(
    "command", [("table", "--by", "step"), ("show",), ("kernels",), ("check",), ("table", "--by", "kernel")]
)
def test_a_reader_that_leaves_is_no_error(small: Path, command: tuple[str, ...]) -> None:
    """As under ``| head -0``: the pipe is closed before the first line is written."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "analysis.cli", command[0], small, *command[1:]],
            cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert done.stderr == ""
    assert done.returncode in (0, 1, 141)


@pytest.mark.parametrize("command", [("table",), ("report",), ("show",)])
def test_rows_that_do_not_add_up_are_loud(
    run: Run, toy: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], tmp_path: Path
) -> None:
    honest = grouping.grouped

    def dishonest(*arguments: object, **options: object) -> object:
        columns = honest(*arguments, **options)  # type: ignore[arg-type]
        return {**columns, "kernel_sum_ns": columns["kernel_sum_ns"] + 1}

    monkeypatch.setattr("analysis.sums.tables.grouped", dishonest)
    assert_one_line(run(*command, toy), 70, "internal error", "table holds", "please report")
    assert [one.name for one in tmp_path.iterdir()] == ["toy.sqlite"]


def test_the_summary_in_report_json_is_the_domains(run: Run, toy: Path, tmp_path: Path) -> None:
    assert run(toy, "--format", "json", "--out", tmp_path / "out").code == 0
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written.pop("schema_version") == 2
    assert written.pop("headline") == written.pop("detail")["ranking"]["sentence"]
    assert from_json(LLMProfileReport, json.dumps(written), source="report.json").run_id == "unknown"
