"""The review as a command: its files, its words, and what it refuses."""

import json
import lzma
import os
import re
import shutil
import stat
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from jsonschema import Draft202012Validator

from analysis.api.counter_files import find_ncu, open_counters
from analysis.cli.app import app
from analysis.cli.exit_codes import run as run_app
from analysis.domain.errors import RequestError
from analysis.domain.figures import duration
from analysis.efficiency.counters.file import DRAM_READ, NvtxState
from analysis.render.json_schema import schema_of
from analysis.render.review_link import link_from_report
from counter_csv import Profiled, step_state, write_csv
from trace_builder import TraceBuilder

DATA = Path(__file__).parents[1] / "data"
STEP = DATA / "ncu_h100_decode-step.csv.xz"
SECTIONS = DATA / "ncu_h100_sections.csv.xz"
FILES = {"review.html", "review.md", "review.json", "counters.parquet", "waterfall-prefill.svg", "waterfall-decode.svg"}
STATED = ("--model", "deepseek-ocr", "--input-mode", "gundam", "--tiles", "6", "--prompt-tokens", "916")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["dsocr-analyze", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            run_app(app)
        said = capsys.readouterr()
        code = end.value.code
        return (code if isinstance(code, int) else 0), said.out, said.err

    return call


@pytest.fixture
def small(real_trace: Callable[[str], Path]) -> Path:
    return real_trace("deepseek-ocr_h100_small")


def test_the_command_writes_four_kinds_of_files_and_says_what_matters(run: Run, small: Path, tmp_path: Path) -> None:
    code, out, err = run("review", small, "--counters", STEP, "--counters", SECTIONS, "--out", tmp_path / "r")
    assert (code, err) == (0, "")
    assert {one.name for one in (tmp_path / "r").iterdir()} >= FILES
    assert "25 of 25 profiled kernels are in the trace" in out
    assert re.search(r"1[89] of 19 profiled kernels are in the trace", out)
    assert re.search(r"Residual +0\.000000", out)
    assert "Kernels with most to gain" in out
    assert str(tmp_path / "r" / "review.html") in out


def test_the_data_add_up_and_have_a_version(run: Run, small: Path, tmp_path: Path) -> None:
    assert run("review", small, "--counters", STEP, "--out", tmp_path)[0] == 0
    review = json.loads((tmp_path / "review.json").read_text(), parse_constant=pytest.fail)
    assert review["schema_version"] == 1
    Draft202012Validator(schema_of("review")).validate(review)
    for stage in review["stages"]:
        fall = stage["waterfall"]
        assert sum(loss["ns"] for loss in fall["losses"]) + fall["residual_ns"] == fall["profiled_ns"]
    table = pq.read_table(tmp_path / "counters.parquet")
    assert table.num_rows == len(review["kernels"])
    assert sum(table["total_ns"].to_pylist()) == sum(one["row"]["total_ns"] for one in review["kernels"])
    # Every kernel of the real file, even of one block, counts 1.4 MB of L2 traffic: said, and no L2 roof is made of it.
    assert any("no profiled kernel has less than 1.40 MB" in remark for remark in review["remarks"])
    covered = {one["stage"]: one for one in review["coverage"] if one["what"] == "DRAM traffic"}
    assert covered["decode"]["covered_ns"] > 0 == covered["prefill"]["covered_ns"]


def test_a_stated_model_gives_the_ideal_and_the_first_actions_a_reader_found_by_hand(
    run: Run, real_trace: Callable[[str], Path], tmp_path: Path
) -> None:
    """SAM materialises its relative-position bias: adds and copies on grids of 393,216 and 360,000 blocks."""
    trace = real_trace("deepseek-ocr_h100_64tok")
    assert run("review", trace, "--counters", STEP, "--out", tmp_path, *STATED)[0] == 0
    review = json.loads((tmp_path / "review.json").read_text())
    prefill, decode = (stage["actions"] for stage in review["stages"])
    assert len(prefill) == len(decode) == 3
    assert "waits for the host" in prefill[0]["sentence"]
    assert prefill[1]["modules"] == ["sam"]
    assert "393,216 blocks" in prefill[1]["sentence"]
    assert prefill[1]["ceiling_per_unit_ns"] > 9.3e6  # the bias alone is 9.3 ms an image
    assert decode[0]["kernels"] == []
    assert "launches per token" in decode[0]["sentence"]
    traffic = {one["part"]: one for one in review["stages"][1]["traffic"]}
    assert traffic["all"]["must_bytes"] > 0
    assert traffic["all"]["measured_bytes"] is None  # 25 of 866 kernels
    assert "too little to compare" in traffic["all"]["unknown_because"]


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.policy = ""
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.append(tag)
        if known.get("http-equiv") == "Content-Security-Policy":
            self.policy = known["content"] or ""
        self.links += [value for name, value in attrs if name in ("href", "src") and value]


HOSTILE = "<script>alert(1)</script>\x1b[31m|`k`_x_"


def hostile_trace(path: Path) -> Path:
    builder = TraceBuilder().gpu()
    builder.range("image[0]", 0, 200, domain="dsocr").range("prefill", 0, 40, domain="dsocr")
    builder.range("decode", 50, 190, domain="dsocr").range("decode_step", 60, 180, domain="dsocr", payload=8)
    builder.range(HOSTILE, 1, 39, domain="dsocr.module")
    builder.launch(2, 4, kernel=(HOSTILE, 10, 20)).launch(70, 72, kernel=(HOSTILE, 80, 95))
    builder.launch(74, 76, kernel=("other", 96, 99))
    return builder.write(path)


def test_the_page_runs_nothing_reaches_for_nothing_and_shows_hostile_names_as_text(run: Run, tmp_path: Path) -> None:
    counters = write_csv(
        tmp_path / "c.csv",
        [Profiled(HOSTILE, (132, 1, 1), state=step_state(8), values=(5.0, 5.0)), Profiled("else", state=step_state(8))],
    )
    counters.write_text(counters.read_text().replace(',"(1, 1, 1)","9.0"', ',"(1, 1, 1)","9.0"'))
    rows = counters.read_text().splitlines()
    counters.write_text("\n".join([*rows[:-1], rows[-1] + ',"7","7"']) + "\n")  # a kernel that the trace does not have
    code, _, err = run("review", hostile_trace(tmp_path / "t.sqlite"), "--counters", counters, "--out", tmp_path / "r")
    assert (code, err) == (0, "")
    page = (tmp_path / "r" / "review.html").read_text()
    parsed = _Page(page)
    assert "script" not in parsed.tags
    assert "default-src 'none'" in parsed.policy
    assert "script-src" not in parsed.policy
    assert all(link.startswith(("#", "data:")) or link == "report.html" for link in parsed.links)
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)" in page
    markdown = (tmp_path / "r" / "review.md").read_text()
    assert "<script>" not in markdown
    assert "\x1b" not in markdown
    for picture in (tmp_path / "r").glob("*.svg"):
        assert "<script" not in picture.read_text()


@pytest.mark.parametrize("first", ["report", "review"])
def test_report_and_review_link_each_other_whichever_is_written_first(
    run: Run, small: Path, tmp_path: Path, first: str
) -> None:
    review = ("review", small, "--counters", STEP, "--out", tmp_path)
    report = ("report", small, "--out", tmp_path)
    for command in (report, review) if first == "report" else (review, report):
        assert run(*command)[0] == 0
    links = _Page((tmp_path / "report.html").read_text()).links
    assert links.count("review.html") == 1
    assert _Page((tmp_path / "review.html").read_text()).links.count("report.html") == 1
    before = (tmp_path / "report.html").read_bytes()
    assert run(*review)[0] == 0  # again: linked already
    assert (tmp_path / "report.html").read_bytes() == before


def test_every_output_says_first_which_kernels_to_start_with(run: Run, small: Path, tmp_path: Path) -> None:
    """Above their roofline, on the report's unit of work: the stage whose kernels could give back most of a page."""
    code, printed, _ = run("review", small, "--counters", STEP, "--out", tmp_path)
    assert code == 0
    assert run(small, "--out", tmp_path / "report")[0] == 0
    ranking = json.loads((tmp_path / "report" / "report.json").read_text())["detail"]["ranking"]
    units = {part["stage"]: part["units"] for part in ranking["parts"]}
    saved = {
        stage["stage"]: loss["ns"] / stage["waterfall"]["units"] * units[stage["stage"]]
        for stage in json.loads((tmp_path / "review.json").read_text())["stages"]
        for loss in stage["waterfall"]["losses"]
        if loss["key"] == "below_roofline"
    }
    name = max(saved, key=lambda stage: saved[stage])
    (headline,) = re.findall(r'<h2 id="headline">(.*?)</h2>', (tmp_path / "review.html").read_text())
    assert headline.startswith(f"Start with the kernels of {name}")
    assert headline.endswith(f"they take {duration(saved[name])} of the {duration(ranking['time_ns'])} a page.")
    plain = (tmp_path / "review.md").read_text().replace("\\", "")
    assert f"**{headline}**" in plain
    assert " ".join(printed.split()).startswith(headline)


def test_a_report_without_a_place_for_the_link_stays_as_it_is(tmp_path: Path) -> None:
    assert not link_from_report(tmp_path)
    (tmp_path / "report.html").write_text("<nav></nav>")
    assert not link_from_report(tmp_path)
    assert (tmp_path / "report.html").read_text() == "<nav></nav>"


def test_a_report_alone_shows_no_link(run: Run, small: Path, tmp_path: Path) -> None:
    assert run("report", small, "--out", tmp_path)[0] == 0
    assert "review.html" not in _Page((tmp_path / "report.html").read_text()).links


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "nothing.csv", "is not there"),
        (lambda folder: folder, "is a directory without counters"),
        (lambda folder: _fifo(folder / "x.csv"), "is no regular file"),
        (lambda folder: _written(folder / "x.csv", b"a,b\n1,2\n"), "is not a CSV of Nsight Compute"),
        (lambda folder: DATA / "ncu_h100_truth.csv.xz", "only 0 of its 4 kernels lie"),
        (lambda folder: _written(folder / "x.ncu-rep", b"NVR\0"), "no ncu was found"),
    ],
)
def test_what_cannot_be_joined_is_one_line(
    run: Run, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path], words: str
) -> None:
    monkeypatch.setattr("analysis.api.counter_files.find_ncu", lambda *_: None)
    monkeypatch.setattr("analysis.api.counter_files._reader", lambda: None)
    code, out, err = run("review", small, "--counters", make(tmp_path), "--out", tmp_path / "r")
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not (tmp_path / "r").exists()


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def test_a_folder_stands_for_its_counter_files_and_a_file_named_twice_counts_once(
    run: Run, small: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "counters"
    folder.mkdir()
    for source in (STEP, SECTIONS):
        shutil.copy(source, folder)
    (folder / "collection.json").write_text("{}")
    (folder / "logs.csv").mkdir()
    code, out, err = run(
        "review", small, "--counters", folder, "--counters", folder / STEP.name, "--out", tmp_path / "r"
    )
    assert (code, err) == (0, "")
    review = json.loads((tmp_path / "r" / "review.json").read_text())
    assert [Path(one["source"]).name for one in review["files"]] == [STEP.name, SECTIONS.name]
    assert out.count("25 of 25 profiled kernels are in the trace") == 1


def test_a_trace_without_stages_cannot_be_matched(run: Run, tmp_path: Path) -> None:
    trace = TraceBuilder().gpu().range("mine", 0, 50).launch(2, 4, kernel=("k", 10, 20)).write(tmp_path / "t.sqlite")
    code, _, err = run("review", trace, "--counters", STEP, "--out", tmp_path / "r", "--accept-lossy")
    assert code == 2
    assert "has no prefill or decode range" in err


# --- reports of Nsight Compute --------------------------------------------------------------------------------------


def fake_ncu(folder: Path, body: str) -> Path:
    """A program in ncu's place: nothing of NVIDIA's runs in these tests."""
    path = folder / "ncu"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_report_is_read_through_ncu(tmp_path: Path) -> None:
    plain = tmp_path / "printed.csv"
    with lzma.open(STEP) as packed, plain.open("wb") as out:
        shutil.copyfileobj(packed, out)
    report = _written(tmp_path / "my report.ncu-rep", b"NVR\0")
    fake_ncu(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/argv; cat {plain}')
    file = open_counters(report, {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert len(file) == 25
    assert file.source == str(report)
    argv = (tmp_path / "argv").read_text().splitlines()
    assert argv == ["--import", str(report), "--page", "raw", "--csv", "--print-units", "base"]


def test_a_report_that_ncu_does_not_read_is_one_line(tmp_path: Path) -> None:
    report = _written(tmp_path / "x.ncu-rep", b"NVR\0")
    named = {"NCU": str(fake_ncu(tmp_path, 'echo "==ERROR== Failed to load report" >&2; exit 1')), "PATH": ""}
    with pytest.raises(
        RequestError, match=r"did not read it: it failed with exit code 1: ==ERROR== Failed to load report"
    ):
        open_counters(report, named)
    with pytest.raises(RequestError, match=r"\$NCU names nowhere, which is no program"):
        find_ncu(report, {"NCU": "nowhere", "PATH": ""})


def test_ncu_is_found_beside_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / ".ncu" / "usr" / "bin").mkdir(parents=True)
    ncu = fake_ncu(tmp_path / "runs" / ".ncu" / "usr" / "bin", "true")
    assert find_ncu(tmp_path / "runs" / "x.ncu-rep", {"PATH": ""}) == ncu


def test_a_report_is_read_through_ncu_report_where_there_is_no_ncu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's documented interface, in objects of our own: it reads only reports, and none can be made here."""
    report = _written(tmp_path / "x.ncu-rep", b"NVR\0")
    monkeypatch.setattr("analysis.api.counter_files.find_ncu", lambda *_: None)
    values = {
        DRAM_READ: 7168, "launch__grid_dim_x": 10, "launch__grid_dim_y": 1, "launch__grid_dim_z": 1,
        "launch__block_dim_x": 128, "launch__block_dim_y": 1, "launch__block_dim_z": 1,
        "launch__shared_mem_per_block_static": 16, "launch__shared_mem_per_block_dynamic": 1024,
        "device__attribute_display_name": "NVIDIA H100 80GB HBM3", "launch__func_cache_config": "none",
    }  # fmt: skip
    loaded: list[str] = []

    def load(path: str) -> Any:
        loaded.append(path)
        return SimpleNamespace(num_ranges=lambda: 1, range_by_idx=lambda _: profiled)

    found = SimpleNamespace(
        PayloadType_PAYLOAD_INT64=1, PayloadType_PAYLOAD_UINT64=2, PayloadType_PAYLOAD_INT32=3,
        PayloadType_PAYLOAD_UINT32=4, payload_type=lambda: 1, payload_as_uint64=lambda: 911,
    )  # fmt: skip
    plain = SimpleNamespace(**(vars(found) | {"payload_type": lambda: 0}))
    domain = SimpleNamespace(
        name=lambda: "dsocr",
        push_pop_ranges=lambda: ("image[0]", "decode", "decode_step"),
        push_pop_range=lambda place: found if place == 2 else plain,
    )
    action = SimpleNamespace(
        NameBase_DEMANGLED=1, name=lambda base: "void k<2>(int)", metric_names=lambda: tuple(values),
        metric_by_name=lambda name: SimpleNamespace(value=lambda: values[name]) if name in values else None,
        nvtx_state=lambda: SimpleNamespace(domains=lambda: (3,), domain_by_id=lambda _: domain),
    )  # fmt: skip
    profiled = SimpleNamespace(num_actions=lambda: 1, action_by_idx=lambda _: action)
    monkeypatch.setattr("analysis.api.counter_files._reader", lambda: SimpleNamespace(load_report=load))
    file = open_counters(report, {})
    assert loaded == [str(report)]
    assert file.names == ("void k<2>(int)",)
    assert file.state == (NvtxState("decode", 0, in_step=True, payload=911),)
    assert (file.grid, file.block, file.shared_bytes.tolist()) == (((10, 1, 1),), ((128, 1, 1),), [1040])
    assert file.metrics[DRAM_READ].tolist() == [7168]
    assert file.devices == {"NVIDIA H100 80GB HBM3"}


def test_what_ncu_report_cannot_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real package, where it is installed."""
    pytest.importorskip("ncu_report")
    monkeypatch.setattr("analysis.api.counter_files.find_ncu", lambda *_: None)
    with pytest.raises(
        RequestError, match="holds no kernel: nothing was profiled, or it is no report of Nsight Compute"
    ):
        open_counters(_written(tmp_path / "x.ncu-rep", b"no report"), {})
