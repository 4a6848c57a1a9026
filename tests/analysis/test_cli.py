"""``dsocr-analyze``: every command and option, as a user calls it."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib import metadata
from pathlib import Path

import pytest

from analysis import cli
from analysis.domain.convert import from_json
from analysis.domain.entities import KernelSummary, LLMProfileReport
from analysis.sums import tables
from analysis.sums.grouping import COLUMNS
from analysis.sums.tables import TABLE_KINDS
from trace_builder import TraceBuilder
from whole_trace import whole

ROOT = Path(__file__).parents[2]
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
    assert "Decode is launch-bound" in done.out
    folder = tmp_path / "reports" / "deepseek-ocr_h100_small"
    for name in ("report.html", "report.md", "report.json", "summary.json", "kernels.parquet"):
        assert (folder / name).stat().st_size > 0
        assert name in done.out
    assert not [one.name for one in folder.iterdir() if one.name.endswith(".tmp")]
    written = json.loads((folder / "report.json").read_text())
    assert "detail" in written
    again = run("report", small, "--out", tmp_path / "again")
    assert again.code == 0
    assert {one.name for one in folder.iterdir()} == {one.name for one in (tmp_path / "again").iterdir()}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("markdown", {"report.md"}),
        ("json", {"report.json", "summary.json"}),
        ("html", {"report.html"}),
        ("parquet", {"kernels.parquet"}),
        ("csv", {"kernels.csv"}),
        ("perfetto", {"timeline.pftrace"}),
    ],
)
def test_each_format_alone(run: Run, toy: Path, tmp_path: Path, name: str, files: set[str]) -> None:
    done = run("report", toy, "--format", name, "--out", tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    assert {one.name for one in (tmp_path / "out").iterdir() if one.suffix != ".svg"} == files


def test_formats_add_up(run: Run, toy: Path, tmp_path: Path) -> None:
    assert run(toy, "--format", "csv", "--format", "perfetto", "--out", tmp_path / "out").code == 0
    assert {one.name for one in (tmp_path / "out").iterdir()} == {"kernels.csv", "timeline.pftrace"}


def test_unknown_format(run: Run, toy: Path, tmp_path: Path) -> None:
    assert_one_line(run(toy, "--format", "pdf", "--out", tmp_path / "out"), 2, "'pdf'", "markdown", "perfetto")
    assert not (tmp_path / "out").exists()


def test_show_writes_nothing(run: Run, small: Path, tmp_path: Path) -> None:
    done = run("show", small)
    assert (done.code, done.err) == (0, "")
    assert "Decode is launch-bound" in done.out
    assert "Do first:" in done.out
    assert done.out.count("Decode is launch-bound") == 1
    assert "launch-bound. Decode" not in done.out, "said once"
    assert not list(tmp_path.iterdir())


def test_explain_and_a_stated_model(run: Run, small: Path) -> None:
    done = run("show", small, "--model", "deepseek-ocr", "--tiles", "6", "--prompt-tokens", "916", "--explain")
    assert done.code == 0
    assert "Model: deepseek-ocr (as stated with --model; the trace carries no manifest)" in done.out
    assert "decode, elapsed time: MFU = " in done.out
    assert "989.4 TFLOP/s bf16 dense, spec" in done.out
    without = run("show", small, "--explain")
    assert "Model: unknown model (the trace carries no manifest)" in without.out
    assert "decode, elapsed time: n/a: the trace carries no manifest" in without.out


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
    assert "No verdict on any stage" in done.out


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


def test_across_threads(run: Run, tmp_path: Path) -> None:
    built = TraceBuilder().range("decode", 0, 100, domain="dsocr").launch(5, 6, ("mine", 10, 20))
    path = built.thread(1, 2).launch(30, 31, ("worker", 40, 50)).write(tmp_path / "t.sqlite")
    for arguments, kernels in (((), 1), (("--cross-thread",), 2)):
        (row,) = json.loads(run("table", path, "--stage", "decode", "--format", "json", *arguments).out)
        assert (row["name"], row["kernels"]) == ("decode", kernels)
        rows = json.loads(run("kernels", path, "--stage", "decode", "--format", "json", *arguments).out)
        assert len(rows) == kernels
        assert run("show", path, *arguments).code == 0


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
    lines = run("kernels", small, "--match", "no such kernel", "--format", "md").out.splitlines()
    assert len(lines) == 2
    assert run("kernels", small, "--top", "0").code == 2


# --- the rest -------------------------------------------------------------------------------------------------


def test_help(run: Run) -> None:
    done = run("--help")
    assert done.code == 0
    for name in ("report", "show", "table", "check", "kernels"):
        assert name in done.out
        assert run(name, "--help").code == 0
    assert run("table", "--nonsense").code == 2


def test_version(run: Run) -> None:
    number = installed_version() or "(version unknown: the package is not installed)"
    assert run("--version").out == f"dsocr-analyze {number}\n"


def test_an_unwatched_command_says_nothing_of_its_progress(small: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "analysis.cli", "table", small], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.startswith("| name |")


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
    honest = tables.grouped

    def dishonest(*arguments: object, **options: object) -> object:
        columns = honest(*arguments, **options)  # type: ignore[arg-type]
        return {**columns, "kernel_sum_ns": columns["kernel_sum_ns"] + 1}

    monkeypatch.setattr(tables, "grouped", dishonest)
    assert_one_line(run(*command, toy), 70, "internal error", "table holds", "please report")
    assert [one.name for one in tmp_path.iterdir()] == ["toy.sqlite"]


def test_the_summary_in_report_json_is_the_domains(run: Run, toy: Path, tmp_path: Path) -> None:
    assert run(toy, "--format", "json", "--out", tmp_path / "out").code == 0
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    written.pop("detail")
    assert from_json(LLMProfileReport, json.dumps(written), source="report.json").run_id == "unknown"
