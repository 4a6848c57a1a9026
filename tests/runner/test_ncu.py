"""Nsight Compute without a GPU: finding it, asking it, reading its words, choosing what it profiles."""

from __future__ import annotations

import csv
import lzma
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.domain.errors import CaptureError, ExportError, RequestError
from analysis.efficiency.counters.file import read_counters
from counter_csv import Profiled, write_csv
from launch_kit import fake_ncu
from runner.collectors.ncu.command import Selection, import_argv, kernel_filter, profile_argv
from runner.collectors.ncu.counter_file import keep_counters
from runner.collectors.ncu.launches import Configuration, StageLaunches, choose_kernels, first_launches
from runner.collectors.ncu.metrics import CHIP_OF_CAPABILITY, beside_sections, census_sets, chip_of
from runner.collectors.ncu.output import ProgressReader, fault
from runner.collectors.ncu.tool import NcuTool, candidate_paths, find_ncu, known_metrics, probe

HERE = Path(__file__).resolve().parents[1]
DATA = HERE / "data" / "ncu"

NEW = NcuTool(
    "/opt/ncu",
    "2025.3.1.0",
    frozenset({"config-file", "graph-profiling", "rename-kernels"}),
    "per-launch-config",
    ("gh100",),
)
OLD = NcuTool("/opt/old", "2022.3.0.0", frozenset(), "", ("gh100",))

GH100 = [
    *(f"sm__ops_path_tensor_src_{name}" for name in ("bf16_dst_fp32", "fp16", "tf32_dst_fp32", "fp8", "int8")),
    *(f"sm__sass_thread_inst_executed_op_{name}_pred_on" for name in ("fadd", "fmul", "ffma", "hadd", "hmul", "hfma")),
    *("dram__bytes_read", "dram__bytes_write", "lts__t_bytes", "sm__warps_active"),
]
"""As ncu 2025.3.1 lists them for gh100."""


def option(argv: list[str], name: str) -> list[str]:
    return [argv[place + 1] for place, one in enumerate(argv) if one == name]


# -- finding ------------------------------------------------------------------------------------------------------------


def test_what_an_ncu_says_of_itself(tmp_path: Path) -> None:
    tool = fake_ncu(tmp_path)
    assert tool.version_key == (2099, 1, 0, 0)
    assert {"graph-profiling", "rename-kernels", "nvtx-include", "help"} <= tool.options
    assert tool.chips == ("ad102", "ga100", "gh100")
    assert tool.filters_by_launch_shape()
    assert "dram__bytes_read" in known_metrics(tool, "gh100", os.environ)


def test_the_named_ncu_comes_first(tmp_path: Path) -> None:
    mine = fake_ncu(tmp_path / "mine")
    environ = {**os.environ, "NCU": mine.path}
    assert find_ncu(None, environ).path == mine.path
    with pytest.raises(CaptureError, match="--ncu /nowhere/ncu: no such program"):
        find_ncu("/nowhere/ncu", environ)
    with pytest.raises(CaptureError, match=r"\$NCU /nowhere: no such program"):
        find_ncu(None, {**os.environ, "NCU": "/nowhere"})


def test_a_local_copy_is_a_candidate(tmp_path: Path) -> None:
    fake_ncu(tmp_path / ".ncu")
    assert tmp_path / ".ncu" / "ncu" in candidate_paths({"PATH": ""}, folders=[tmp_path])


def test_another_program_of_that_name_is_none(tmp_path: Path) -> None:
    program = tmp_path / "ncu"
    program.write_text("#!/bin/sh\necho npm-check-updates Version 16.1\n")
    program.chmod(0o755)
    with pytest.raises(CaptureError, match="does not say its version as ncu does"):
        probe(program, os.environ)


# -- metrics ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "counter"),
    [
        ("bf16", "sm__ops_path_tensor_src_bf16_dst_fp32.sum"),
        ("fp16", "sm__ops_path_tensor_src_fp16.sum"),
        ("fp32", "sm__ops_path_tensor_src_tf32_dst_fp32.sum"),
        ("fp8", "sm__ops_path_tensor_src_fp8.sum"),
    ],
)
def test_each_type_has_its_tensor_operations(dtype: str, counter: str) -> None:
    traffic, cores = census_sets(dtype, GH100, "gh100")
    assert [name for name in traffic.metrics if "tensor" in name] == [counter]  # a second type costs more passes
    assert {"dram__bytes_read.sum", "dram__bytes_write.sum", "lts__t_bytes.sum"} < set(traffic.metrics)
    assert len(cores.metrics) == 6
    assert not traffic.missing + cores.missing


def test_what_a_chip_has_no_counter_for_is_said() -> None:
    traffic, cores = census_sets("bf16", ["dram__bytes_read", "dram__bytes_write"], "ga100")
    assert traffic.metrics == ("dram__bytes_read.sum", "dram__bytes_write.sum")
    assert any("tensor operations of bf16" in reason and "ga100" in reason for reason in traffic.missing)
    assert any("lts__t_bytes.sum" in reason for reason in traffic.missing)
    assert cores.metrics == ()
    assert len(cores.missing) == 6


def test_coalescing_is_counted_beside_the_sections() -> None:
    names = [
        f"l1tex__t_{what}_pipe_lsu_mem_global_op_{operation}"
        for operation in ("ld", "st")
        for what in ("sectors", "requests")
    ]
    assert beside_sections([*GH100, *names]) == tuple(f"{name}.sum" for name in names)
    assert beside_sections(GH100) == ()


def test_a_metric_whose_name_fills_its_column_is_read(tmp_path: Path) -> None:
    assert {"fe__longest_name", "sm__short"} <= known_metrics(fake_ncu(tmp_path), "gh100", os.environ)


def test_chips_by_capability() -> None:
    assert chip_of("9.0") == "gh100"
    assert chip_of("99.0") is None
    assert chip_of(None) is None
    assert len(set(CHIP_OF_CAPABILITY.values())) == len(CHIP_OF_CAPABILITY)


# -- command lines ------------------------------------------------------------------------------------------------------


def test_a_census_is_one_pass_over_chosen_ranges() -> None:
    selection = Selection(("prefill", "decode"), metrics=("a.sum", "b.sum"))
    argv = profile_argv(NEW, selection, output="/r/counters/x", target=["python", "child"])
    assert argv[-2:] == ["python", "child"]
    assert option(argv, "--nvtx-include") == ["dsocr@prefill/", "dsocr@decode_step/"]
    assert option(argv, "--metrics") == ["a.sum,b.sum"]
    assert option(argv, "--profile-from-start") == ["off"]
    assert option(argv, "--clock-control") == ["none"]
    assert option(argv, "--cache-control") == ["none"]
    assert option(argv, "--graph-profiling") == ["node"]
    assert option(argv, "--rename-kernels") == ["off"]
    assert option(argv, "--config-file") == ["off"]
    assert not {"--section", "--kernel-name", "--filter-mode"} & set(argv)


def test_sections_are_of_each_launch_shape_once() -> None:
    selection = Selection(("decode",), sections=("Occupancy",), symbols=("_Z1aPf", "b.c$0"), once_per_shape=True)
    argv = profile_argv(NEW, selection, output="/x", target=["child"])
    assert option(argv, "--kernel-name-base") == ["mangled"]
    assert option(argv, "--kernel-name") == [r"regex:^(_Z1aPf|b\.c\$0)$"]
    assert option(argv, "--filter-mode") == ["per-launch-config"]
    assert option(argv, "--launch-count") == ["1"]
    assert "--cache-control" not in argv  # several passes: each begins with the same empty caches


def test_what_an_old_ncu_lacks_is_left_out() -> None:
    argv = profile_argv(OLD, Selection(("decode",), metrics=("a.sum",)), output="/x", target=["child"])
    assert not {"--config-file", "--graph-profiling", "--rename-kernels"} & set(argv)
    assert "--rename-kernels" not in import_argv(OLD, "/x.ncu-rep")


def test_symbols_are_only_ever_themselves() -> None:
    import re

    symbols = ["_ZN2at6nativeEv", "a|b", "$(touch x)", "k.1", "a\\"]
    expression = kernel_filter(symbols).removeprefix("regex:")
    for symbol in symbols:
        assert re.search(expression, symbol)
    for other in ("a", "b", "kx1", "_ZN2at6nativeEv2", "x_ZN2at6nativeEv"):
        assert not re.search(expression, other)


def test_a_raw_page_in_base_units() -> None:
    argv = import_argv(NEW, "/r.ncu-rep")
    assert argv[:8] == ["/opt/ncu", "--import", "/r.ncu-rep", "--page", "raw", "--csv", "--print-units", "base"]


# -- its words ----------------------------------------------------------------------------------------------------------

REAL_LOG = """==WARNING== Note: Running with unmodified GPU clocks. If not controlled otherwise, profiling results may be.
==PROF== Connected to process 935 (/usr/bin/python3.12)
workload: captured pass 1/1
==PROF== Profiling "nvjet_sm90_tst_320x128_64x3_1..." - 0: 0%....50%....100% - 8 passes
==PROF== Profiling "vectorized_elementwise_kernel" - 1: 0%....50%....100% - 1 pass
==PROF== Profiling "unrolled_elementwise_kernel" - 24 (25/866): 0%....50%....100% - 8 passes
"""


def test_progress_is_read_as_the_log_grows(tmp_path: Path) -> None:
    log = tmp_path / "log"
    reader = ProgressReader(log)
    assert reader.read().kernels == 0
    assert not reader.read().connected
    with log.open("a") as stream:
        for place in range(0, len(REAL_LOG), 7):
            stream.write(REAL_LOG[place : place + 7])
            stream.flush()
            reader.read()
        stream.write(
            '==PROF== Profiling "elementwise_kernel" - 25: 0%...==PROF== Trying to shutdown target application\n'
        )
    progress = reader.read()
    assert (progress.kernels, progress.passes, progress.name) == (3, 8, "unrolled_elementwise_kernel")
    assert progress.connected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission", "NVreg_RestrictProfilingToAdminUsers=0"),
        ("==ERROR== Profiling failed because a driver resource was unavailable. Ensure that no other tool", "dcgmi"),
        ("==ERROR== Driver could not be loaded.", "no NVIDIA driver"),
        ("==ERROR== Failed to find metric sm__nothing.sum", "Failed to find metric sm__nothing.sum"),
        (
            "==ERROR== The application returned an error code (1).\n==ERROR== Nsight Compute failed to connect to the CUDA "
            "driver (stub libcuda.so[.1] on path?).",
            "no NVIDIA driver",
        ),
        ("==ERROR== The application returned an error code (1).\n==ERROR== Out of memory", "ncu says: Out of memory"),
        ("==WARNING== No kernels were profiled.", "met no kernel"),
    ],
)
def test_an_error_is_told_with_what_to_do(tmp_path: Path, words: str, told: str) -> None:
    log = tmp_path / "log"
    log.write_text(f"==PROF== Connected to process 1\n{words}\n==PROF== Disconnected\n")
    said = fault(log)
    assert said is not None
    assert told in said
    assert "\n" not in said


def test_a_clean_log_has_no_fault(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(REAL_LOG)
    assert fault(log) is None
    assert fault(tmp_path / "none") is None


# -- the counter file ---------------------------------------------------------------------------------------------------


def printed(tmp_path: Path) -> Path:
    """A real raw page: the first 25 kernels of a decode step."""
    path = tmp_path / "printed.csv"
    path.write_bytes(lzma.decompress((DATA / "decode_25_kernels.csv.xz").read_bytes()))
    return path


def test_a_real_page_is_kept_without_what_names_the_machine(tmp_path: Path) -> None:
    source = printed(tmp_path)
    kept = tmp_path / "kept.csv.xz"
    facts = keep_counters(source, kept)
    assert (facts.kernels, facts.prefill, facts.decode) == (25, 0, 25)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with lzma.open(kept, "rt", newline="") as stream:
        rows = list(csv.reader(stream))
    with source.open(newline="") as stream:
        before = list(csv.reader(stream))
    gone = set(before[0]) - set(rows[0])
    assert "Host Name" in gone
    assert "127.0.0.1" not in str(rows)
    assert {"Kernel Name", "Grid Size", "Block Size", "CC", "device__attribute_display_name", "Process ID"} <= set(
        rows[0]
    )
    name = rows[0].index("dram__bytes_read.sum")
    old = before[0].index("dram__bytes_read.sum")
    assert [row[name] for row in rows[1:]] == [row[old] for row in before[1:]]


@pytest.mark.parametrize("name", ["=1+1", "-1+cmd", "@SUM(A1)", "+1;x", "\t=1"])
def test_no_cell_of_a_counter_file_is_a_formula(tmp_path: Path, name: str) -> None:
    source = write_csv(tmp_path / "printed.csv", [Profiled(name, values=(5, 1.5))])
    kept = tmp_path / "kept.csv.xz"
    keep_counters(source, kept)
    with lzma.open(kept, "rt", newline="") as stream:
        head, _, row = csv.reader(stream)
    cells = dict(zip(head, row, strict=True))
    assert cells["Kernel Name"] == f"'{name}"
    assert (cells["dram__bytes_read.sum"], cells["dram__bytes_write.sum"]) == ("5", "1.5")
    assert read_counters(kept).names == (name,)


def test_ncus_own_words_between_the_rows_are_left_out(tmp_path: Path) -> None:
    source = printed(tmp_path)
    lines = source.read_text().splitlines(keepends=True)
    source.write_text("==PROF== hello\n" + "".join(lines[:4]) + "==WARNING== a word\n" + "".join(lines[4:]))
    assert keep_counters(source, tmp_path / "kept.csv.xz").kernels == 25


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: "==ERROR== nothing\n", "no table"),
        (lambda text: "".join(text.splitlines(keepends=True)[:2]), "no kernel"),
        (lambda text: text[: len(text) // 2], "columns"),
    ],
)
def test_half_a_page_is_an_error_and_leaves_nothing(tmp_path: Path, damage: Callable[[str], str], told: str) -> None:
    source = printed(tmp_path)
    source.write_text(damage(source.read_text()))
    with pytest.raises(ExportError, match=told):
        keep_counters(source, tmp_path / "kept.csv.xz")
    assert [file.name for file in tmp_path.iterdir()] == ["printed.csv"]


# -- what is profiled ---------------------------------------------------------------------------------------------------


def test_the_first_instances_of_a_real_trace(real_trace: Callable[[str], Path]) -> None:
    prefill, decode = first_launches(real_trace("deepseek-ocr_h100_64tok"))
    assert (prefill.stage, prefill.launches) == ("prefill", 2362)
    assert (decode.stage, decode.launches) == ("decode", 866)
    assert len(decode.duration_ns) == 65  # kernel names × launch shapes
    assert not decode.graph


def test_a_graph_traced_as_one_piece_has_no_kernels_to_choose(real_trace: Callable[[str], Path]) -> None:
    assert [one.stage for one in first_launches(real_trace("deepseek-ocr_h200_cuda-graph"))] == ["prefill"]


def test_what_is_no_trace_is_said(tmp_path: Path) -> None:
    file = tmp_path / "trace.sqlite"
    file.write_bytes(b"no database" * 100)
    with pytest.raises(RequestError, match="no trace whose launches"):
        first_launches(file)
    file.unlink()
    sqlite3.connect(file).close()
    with pytest.raises(RequestError, match="no trace whose launches"):
        first_launches(file)


def one(symbol: str, blocks: int = 1, function: str = "") -> Configuration:
    return Configuration(symbol, function or symbol, (blocks, 1, 1), (128, 1, 1), 0)


def test_kernels_are_chosen_by_share_for_each_profiled_shape() -> None:
    prefill = StageLaunches(
        "prefill", 9, {one("gemm"): 600, **{one("copy", n): 30 for n in range(10)}, one("sum"): 100}
    )
    decode = StageLaunches("decode", 2, {one("expert"): 90, one("sum"): 10})
    symbols, shapes = choose_kernels([prefill, decode], 3)
    assert symbols == ("expert", "gemm", "sum")
    assert shapes == 3
    symbols, shapes = choose_kernels([prefill, decode], 20)
    assert set(symbols) == {"expert", "gemm", "sum", "copy"}
    assert shapes == 13


def test_the_first_kernel_is_taken_even_if_it_has_many_shapes() -> None:
    stage = StageLaunches("prefill", 9, {one("copy", n): 30 for n in range(10)})
    assert choose_kernels([stage], 3) == (("copy",), 10)
    assert choose_kernels([], 3) == ((), 0)


def test_of_kernels_that_ncu_does_not_tell_apart_the_longest_is_asked_for() -> None:
    alike = {one("_Zfill", function="elementwise"): 10, one("_Zcopy", function="elementwise"): 90, one("gemm"): 50}
    symbols, shapes = choose_kernels([StageLaunches("decode", 3, alike)], 9)
    assert symbols == ("_Zcopy", "gemm")
    assert shapes == 2


def test_a_filter_never_outgrows_an_argument() -> None:
    stage = StageLaunches("prefill", 9, {one(f"{n:05}" * 1000): 30 for n in range(100)})
    symbols, _ = choose_kernels([stage], 100)
    assert 10 < len(symbols) < 100
    assert len(kernel_filter(symbols)) < 131_072
