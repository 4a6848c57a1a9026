"""`analysis.load`: a trace as DataFrames, against the trace's own rows and against the tables of the command."""

from __future__ import annotations

import csv
import inspect
import lzma
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from attrs import fields

import analysis
from analysis.api.options import AnalysisOptions
from analysis.api.profile import TABLES, Profile
from analysis.attribution.attribution import Attribution
from analysis.domain.errors import RequestError, TraceError, UnfitTraceError
from analysis.render.formats import write_report
from analysis.render.spec.specification import Column
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.tables import gpu_table
from analysis.trace.reader import Trace
from trace_builder import START_END, TraceBuilder
from whole_trace import whole

ROOT = Path(__file__).parents[2]
TRACES = [
    "deepseek-ocr_h100_small",
    "deepseek-ocr_h100_gpu-metrics",
    "deepseek-ocr_h100_lossy",
    "deepseek-ocr_h200_cuda-graph",
    "deepseek-ocr_h200_torch",
    "llama_h100_cuda-graph",
    "tensor-parallel_2xh200_rank0",
]
Load = Callable[[str], Profile]


@pytest.fixture(scope="module")
def loaded(real_trace: Callable[[str], Path]) -> Load:
    """Name of a trace in tests/data → its profile, made once."""
    made: dict[str, Profile] = {}

    def load(name: str) -> Profile:
        if name not in made:
            made[name] = analysis.load(real_trace(name), accept_lossy=True)
        return made[name]

    return load


# --- loading --------------------------------------------------------------------------------------------------


def test_the_import_is_light() -> None:
    code = (
        "import sys, analysis\n"
        "heavy = {'pandas', 'numpy', 'pyarrow', 'sqlalchemy', 'attrs', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert analysis.load and analysis.Profile and analysis.diff and analysis.RankProfiles\n"
        "assert 'pandas' not in sys.modules, 'only a DataFrame needs it'\n"
        "assert {'diff', 'load', 'Profile', 'RankProfiles'} == set(analysis.__all__)\n"
        "try: analysis.nonsense\n"
        "except AttributeError as error: assert 'nonsense' in str(error)\n"
        "else: raise AssertionError\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_text_path_and_folder_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = whole().write(tmp_path / "trace.sqlite")
    monkeypatch.chdir(tmp_path)
    for one in (path, str(path), "trace.sqlite", tmp_path, str(tmp_path)):
        assert analysis.load(one).kernels()["name"].tolist() == ["gemm", "head"]


def test_a_report_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = whole().write(tmp_path / "ready.db")
    (tool := tmp_path / "nsys").write_text(
        f'#!/bin/sh\nfor a; do case $a in --output=*) cp "{ready}" "${{a#--output=}}";; esac; done\n'
    )
    tool.chmod(0o755)
    (folder := tmp_path / "run").mkdir()
    (folder / "mine.nsys-rep").write_bytes(b"report")
    monkeypatch.setenv("NSYS", str(tool))
    assert len(analysis.load(folder / "mine.nsys-rep").launches()) == 2
    assert sorted(one.name for one in folder.iterdir()) == ["mine.nsys-rep", "mine.sqlite"]


def test_nothing_of_the_file_is_needed_after_loading(tmp_path: Path) -> None:
    path = whole().write(tmp_path / "trace.sqlite")
    profile = analysis.load(path)
    path.unlink()
    for name in TABLES:
        assert isinstance(getattr(profile, name)(), pd.DataFrame)
    assert profile.to_html(tmp_path / "report.html").stat().st_size > 100_000
    assert "2 kernels on NVIDIA H100" in repr(profile)


def test_an_unfit_capture_needs_a_word(real_trace: Callable[[str], Path]) -> None:
    with pytest.raises(UnfitTraceError, match="the profiler lost events"):
        analysis.load(real_trace("deepseek-ocr_h100_lossy"))


def test_options_are_those_of_the_commands(real_trace: Callable[[str], Path], tmp_path: Path) -> None:
    path = whole().write(tmp_path / "trace.sqlite")
    assert all(f"``{one.name}``" in (analysis.load.__doc__ or "") for one in fields(AnalysisOptions))
    with pytest.raises(TypeError, match="no_such_option"):
        analysis.load(path, no_such_option=1)
    for wrong in ({"tiles": 6}, {"peak_tflops": -1}, {"skip_first": -1}, {"model": "deepseek-ocr"}):
        with pytest.raises(RequestError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
            analysis.load(path, **wrong)
    with pytest.raises(RequestError, match=r"absent\.json"):
        analysis.load(path, manifest=str(tmp_path / "absent.json"))
    with pytest.raises(TraceError, match="no such file"):
        analysis.load(tmp_path / "absent.sqlite")
    profile = analysis.load(
        real_trace("deepseek-ocr_h100_small"),
        model="deepseek-ocr", input_mode="gundam", tiles=6, prompt_tokens=916, peak_tflops=100.0, peak_gbps=1000.0,
    )  # fmt: skip
    row = profile.report().utilisation[0]
    assert (row.peak_flop_per_s, row.peak_bytes_per_s) == (100e12, 1e12)
    (tmp_path / "mine.toml").write_text('[[rule]]\nany = ["gemm"]\ncategory = "my own"\nhuman = "mine"\n')
    kernels = analysis.load(path, kernel_rules=str(tmp_path / "mine.toml")).kernels().set_index("name")
    assert kernels.loc["gemm", "category"] == "my own"


def test_across_threads(tmp_path: Path) -> None:
    built = TraceBuilder().range("decode", 0, 100, domain="dsocr").launch(5, 6, ("mine", 10, 20))
    path = built.thread(1, 2).launch(30, 31, ("worker", 40, 50)).write(tmp_path / "t.sqlite")
    stages = [analysis.load(path, cross_thread=one).launches()["stage"].tolist() for one in (False, True)]
    assert stages == [["decode", UNATTRIBUTED], ["decode", "decode"]]


def test_to_html_is_the_report(loaded: Load, tmp_path: Path) -> None:
    profile = loaded("deepseek-ocr_h100_small")
    written = profile.to_html(str(tmp_path / "mine.html"))
    (report,) = write_report(profile.report(), profile._attribution, tmp_path, ("html",))
    assert written.read_text() == report.read_text()
    assert profile.to_html() == report.read_text()


# --- columns --------------------------------------------------------------------------------------------------


def test_the_tables_that_are_promised() -> None:
    promised = {"stages", "instances", "steps", "modules", "kernels", "launches", "ranges", "host_calls", "gaps"}
    promised |= {"metrics", "verdicts"}
    assert promised <= set(TABLES)
    methods = {name for name, one in inspect.getmembers(Profile, inspect.isfunction) if not name.startswith("_")}
    assert methods == set(TABLES) | {"report", "to_html"}


def dtype(column: Column[Any], table: str) -> str:
    if column.type == "string":
        return "category" if table in ("launches", "ranges") else "string"
    return {
        "int64": "Int64" if column.nullable else "int64",
        "bool": "boolean" if column.nullable else "bool",
        "float64": "float64",
        "shape": "object",
    }[column.type]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", TRACES)
def test_columns_and_types_are_as_declared_whatever_the_trace(loaded: Load, name: str, table: str) -> None:
    found = getattr(loaded(name), table)()
    spec = TABLES[table]
    assert list(found.columns) == [column.key for column in spec.data]
    assert {key: str(value) for key, value in found.dtypes.items()} == {
        column.key: dtype(column, table) for column in spec.data
    }
    assert found.attrs["definitions"] == {column.key: column.definition for column in spec.data}
    assert all(column.definition for column in spec.data)


@pytest.mark.parametrize("table", TABLES)
def test_docstrings_list_every_column(table: str) -> None:
    text = inspect.getdoc(getattr(Profile, table)) or ""
    for column in TABLES[table].data:
        assert f"    {column.key} ({column.type}): {column.definition}" in text


def test_the_page_in_docs_is_that_of_the_declarations() -> None:
    """After a change of columns: make docs."""
    spec = spec_from_file_location("write_api_page", ROOT / "scripts" / "write_api_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "api.md").read_text() == module.page()


# --- launches -------------------------------------------------------------------------------------------------

SQL = """
    SELECT k.start AS start_ns, k.end AS end_ns, k.deviceId AS device, k.streamId AS stream,
           k.gridX * k.gridY * k.gridZ AS blocks, d.value AS name,
           r.start AS call_start_ns, r.end AS call_end_ns, n.value AS call,
           r.globalTid >> 24 & 0xFFFFFF AS pid, r.globalTid & 0xFFFFFF AS tid
    FROM CUPTI_ACTIVITY_KIND_KERNEL k
    LEFT JOIN CUPTI_ACTIVITY_KIND_RUNTIME r
      ON r.correlationId = k.correlationId AND r.globalTid & ~0xFFFFFF = k.globalPid
    LEFT JOIN StringIds d ON d.id = k.demangledName LEFT JOIN StringIds n ON n.id = r.nameId
    ORDER BY k.start, k.end
"""


@pytest.mark.parametrize("name", ["deepseek-ocr_h100_small", "deepseek-ocr_h200_cuda-graph", "llama_h100_cuda-graph"])
def test_launches_are_the_rows_that_sql_joins(loaded: Load, real_trace: Callable[[str], Path], name: str) -> None:
    with closing(sqlite3.connect(real_trace(name))) as connection:
        wanted = pd.read_sql(SQL, connection)
    wanted["call"] = wanted["call"].str.replace(r"_v\d+$", "", regex=True)
    found = loaded(name).launches()
    found = found[found["kind"] == "kernel"].sort_values(["start_ns", "end_ns"], kind="stable").reset_index(drop=True)
    for column in wanted.columns:
        assert found[column].tolist() == wanted[column].tolist(), column
    assert (found["queue_delay_ns"] == found["start_ns"] - found["call_start_ns"]).all()
    assert (found["duration_ns"] == found["end_ns"] - found["start_ns"]).all()


@pytest.mark.parametrize("name", TRACES)
def test_launches_add_up_to_every_other_table(loaded: Load, name: str) -> None:
    profile = loaded(name)
    launches: Any = profile.launches()
    kernels: Any = launches[launches["kind"] == "kernel"]

    def sums(by: str) -> dict[str, tuple[int, int]]:
        groups = kernels.groupby(by, observed=True)["duration_ns"]
        return {key: (int(rows.size), int(rows.sum())) for key, rows in groups}

    def table(rows: pd.DataFrame, name: str = "name") -> dict[str, tuple[int, int]]:
        rows = rows[rows["kernels"] > 0]
        return dict(zip(rows[name], zip(rows["kernels"], rows["kernel_sum_ns"], strict=True), strict=True))

    assert sums("module") == table(profile.modules())
    by_stage = {key: value for key, value in sums("stage").items() if key != UNATTRIBUTED}
    # A trace without stages has a row for the whole capture.
    assert by_stage == {key: value for key, value in table(profile.stages(), "stage").items() if key != "capture"}
    assert {key: value for key, value in sums("instance").items() if key != UNATTRIBUTED} == table(
        profile.instances(), "path"
    )
    steps = kernels.dropna(subset="step").groupby(["instance", "step"], observed=True)["duration_ns"].size()
    wanted = profile.steps().set_index(["instance", "index"])["kernels"]
    assert steps.to_dict() == wanted[wanted > 0].to_dict()
    delay = kernels.groupby("stage", observed=True)["queue_delay_ns"].median()
    median = profile.stages().set_index("stage")["queue_delay_median_ns"].dropna()
    median = median[median.index != "capture"]
    assert {stage: delay[stage] for stage in median.index} == median.to_dict()


def test_a_kernel_without_its_call_and_a_whole_graph(tmp_path: Path) -> None:
    built = whole().kernel("lost", 400, 410, correlation=None).graph(20, 25, (500, 550))
    found = analysis.load(built.write(tmp_path / "t.sqlite"), accept_lossy=True).launches().set_index("start_ns")
    lost, graph = found.loc[400], found.loc[500]
    assert (lost["call"], lost["stage"], lost["module"], lost["kind"]) == (UNATTRIBUTED,) * 3 + ("kernel",)
    for column in ("call_start_ns", "call_end_ns", "queue_delay_ns", "pid", "tid", "correlation_id", "step"):
        assert lost[column] is pd.NA, column
    assert (graph["kind"], graph["stage"], graph["call"]) == ("graph", "prefill", "cudaGraphLaunch")
    assert (graph["queue_delay_ns"], graph["duration_ns"], graph["image_index"]) == (480, 50, 0)


# --- ranges ---------------------------------------------------------------------------------------------------


def nsys_rows(report: str) -> list[dict[str, str]]:
    """Rows of a report that ``nsys stats`` made of the 64-token trace."""
    path = ROOT / "tests" / "data" / "expected" / f"deepseek-ocr_h100_64tok.{report}.csv.xz"
    with lzma.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def test_ranges_projected_onto_the_gpu_are_those_of_nsys(loaded: Load) -> None:
    ranges = loaded("deepseek-ocr_h100_64tok").ranges()
    domain = ranges["domain"].astype(str)
    ranges["qualified"] = (domain + ":").where(domain != "", "") + ranges["name"].astype(str)
    ranges["projected_ns"] = ranges["gpu_end_ns"] - ranges["gpu_start_ns"]
    ranges["operations"] = ranges[["kernels", "memcpys", "memsets", "graphs"]].sum(axis=1)
    active = ranges.dropna(subset="gpu_start_ns")
    groups = active.groupby(["qualified", "style"], observed=True)
    found = {
        key: (len(rows), *(int(rows[name].sum()) for name in ("projected_ns", "duration_ns", "operations")))
        for key, rows in groups
    }
    names = ("Range Instances", "Total Proj Time (ns)", "Total Range Time (ns)", "Total GPU Ops")
    assert found == {
        (row["Range"], row["Style"]): tuple(int(row[name]) for name in names) for row in nsys_rows("nvtx_gpu_proj_sum")
    }


def test_where_a_range_lies(tmp_path: Path) -> None:
    """By time on its thread, whatever its domain; what another thread has open does not matter."""
    built = whole().range("late", 290, 320).range("spans", 90, 150, style=START_END).range("open", 255, None)
    built = built.thread(1, 2).range("elsewhere", 120, 130)
    found: Any = analysis.load(built.write(tmp_path / "t.sqlite"), accept_lossy=True).ranges().set_index("name")
    place = found[["level", "stage", "instance", "step", "image_index", "kernels"]]
    assert place.loc["image[0]"].tolist() == ["image", UNATTRIBUTED, UNATTRIBUTED, pd.NA, 0, 2]
    assert place.loc["prefill"].tolist() == ["stage", "prefill", "image[0]/prefill", pd.NA, 0, 1]
    assert place.loc["decode_step"].tolist() == ["step", "decode", "image[0]/decode", 0, 0, 1]
    assert place.loc["lm_head"].tolist() == ["module", "decode", "image[0]/decode", 0, 0, 1]
    assert place.loc["late"].tolist()[:4] == ["other", UNATTRIBUTED, UNATTRIBUTED, pd.NA]
    assert place.loc["spans"].tolist() == ["other", UNATTRIBUTED, UNATTRIBUTED, pd.NA, 0, 1]
    assert place.loc["elsewhere"].tolist() == ["other", UNATTRIBUTED, UNATTRIBUTED, pd.NA, pd.NA, 0]
    by_row = found.reset_index()
    parents = {
        row.name: None if row.parent is pd.NA else by_row.loc[row.parent, "name"]
        for row in by_row.itertuples(index=False)
    }
    assert {name: parents[name] for name in ("image[0]", "prefill", "decode", "decode_step", "lm_head")} == {
        "image[0]": None, "prefill": "image[0]", "decode": "image[0]", "decode_step": "decode", "lm_head": None,
    }  # fmt: skip
    assert found.loc["prefill", "payload"] == 9
    assert found.loc["decode", "payload"] is pd.NA
    assert found.loc["decode_step", ["gpu_start_ns", "gpu_end_ns", "kernel_sum_ns"]].tolist() == [150, 170, 20]
    assert found.loc["late", "gpu_start_ns"] is pd.NA
    assert not found.loc["open", "closed"]
    assert found.loc["elsewhere", "tid"] == 2


@pytest.mark.parametrize("name", TRACES)
def test_module_ranges_lie_in_the_stage_of_their_launches(loaded: Load, name: str) -> None:
    """Two ways to the same: launches by stage and module, and the ranges that hold them."""
    profile = loaded(name)
    launches, ranges = profile.launches(), profile.ranges()
    own = launches[launches["module"] != UNATTRIBUTED][["stage", "module"]].drop_duplicates().astype(str)
    modules = ranges[ranges["level"] == "module"][["stage", "name"]].drop_duplicates().astype(str)
    assert set(own.itertuples(index=False, name=None)) <= set(modules.itertuples(index=False, name=None))


# --- the other tables -----------------------------------------------------------------------------------------


def test_tables_by_stage_are_those_of_the_command(
    loaded: Load, real_attribution: Callable[[str], tuple[Trace, Attribution]]
) -> None:
    profile = loaded("deepseek-ocr_h100_small")
    _, attribution = real_attribution("deepseek-ocr_h100_small")
    for stage in ("prefill", "decode"):
        found = profile.modules(stage)
        assert found.to_dict("records") == gpu_table(attribution, "module", stage=stage).rows()
        kernels = profile.kernels(stage)
        assert set(kernels["stage"]) == {stage}
        shapes = profile.kernels(stage, by_shape=True)
        assert shapes.groupby("name")["total_ns"].sum().to_dict() == kernels.set_index("name")["total_ns"].to_dict()
    assert len(profile.host_calls("module")) > len(profile.host_calls())
    assert set(profile.host_calls()["where"]) == {"prefill", "decode", "(unattributed)"}
    assert profile.host_calls()["calls"].sum() == profile.host_calls("module")["calls"].sum()
    gaps = profile.gaps()
    parts = gaps[
        ["launching_ns", "draining_ns", "synchronising_ns", "in_graph_ns", "other_api_ns", "outside_api_ns"]
    ].sum(axis=1)
    assert parts.tolist() == gaps["idle_ns"].tolist()
    assert profile.verdicts()["bound"].tolist() == [one.bound for one in profile.report().verdicts]
    assert len(loaded("deepseek-ocr_h100_gpu-metrics").metrics()) > 5


def test_a_program_without_ranges_has_a_report_of_its_whole_capture(tmp_path: Path) -> None:
    builder = TraceBuilder()
    for number in range(3):
        builder.launch(number * 100, number * 100 + 10, ("kernel", number * 100 + 20, number * 100 + 60))
    profile = analysis.load(builder.write(tmp_path / "stranger.sqlite"))
    assert list(profile.verdicts().stage) == ["capture"]
    assert [(row["calls"], row["total_ns"]) for row in profile.kernels().to_dict("records")] == [(3, 3 * 40)]
    assert "no NVTX ranges" in list(profile.findings().title)
