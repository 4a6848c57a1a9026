"""Counters as Nsight Compute prints them: real files, and files that are not what they must be."""

import gzip
import lzma
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis.domain.errors import RequestError
from analysis.efficiency.counters.file import (
    CUDA_CORE_FLOP,
    DRAM_READ,
    DRAM_WRITE,
    CounterFile,
    NvtxState,
    nvtx_state,
    read_counters,
    tensor_dtype,
)
from analysis.efficiency.counters.names import name_key
from counter_csv import Profiled, step_state, write_csv

DATA = Path(__file__).parents[1] / "data"
BF16 = "sm__ops_path_tensor_src_bf16_dst_fp32.sum"


def real(name: str) -> CounterFile:
    return read_counters(DATA / f"ncu_h100_{name}.csv.xz")


def test_counters_of_kernels_whose_work_is_known() -> None:
    """8192³ bf16 product, addcmul of 2^26 floats, 4096³ fp16 and fp32 products on an H100 (ncu 2025.3.1)."""
    file = real("truth")
    assert len(file) == 4
    assert file.devices == {"NVIDIA H100 80GB HBM3"}
    # The product is exact up to the padding of its 320×128 tiles: 26 tiles of 320 rows stand for 8192.
    assert file.metrics[BF16].tolist() == [1_116_691_496_960, 0, 0, 0]
    assert 1_116_691_496_960 / (2 * 8192**3) == 26 * 320 / 8192
    assert file.metrics["sm__ops_path_tensor_src_fp16.sum"].tolist() == [0, 0, 2 * 4096**3, 0]
    ffma = file.metrics["sm__sass_thread_inst_executed_op_ffma_pred_on.sum"]
    assert ffma[1] == 2**26
    # Two of the three inputs are as large as L2 ten times over: compulsory traffic, within 2 %.
    assert file.metrics[DRAM_READ][1] == 536_887_552
    assert abs(536_887_552 / (2 * 4 * 2**26) - 1) < 0.02
    # 4096³ in fp32 without tf32: on CUDA cores, two operations each, up to 2 % besides the products.
    flop = sum(operations * file.metrics[metric][3] for metric, operations in CUDA_CORE_FLOP.items())
    assert 1 <= flop / (2 * 4096**3) < 1.02
    assert not any(file.metrics[one][3] for one in file.metrics if tensor_dtype(one))


def test_decode_executes_what_was_counted_up_to_tiles() -> None:
    """A whole replayed decode step of DeepSeek-OCR, census by `dsocr-profile review`: exact, once the tiles are known."""
    file = real("graph-step")
    assert len(file) == 945
    executed: dict[str, int] = {}
    for name, operations in zip(file.names, file.metrics[BF16].tolist(), strict=True):
        kind = next(one for one in ("device_kernel", "nvjet_sm90_tst_384x8", "nvjet", "sdpa", "") if one in name)
        executed[kind] = executed.get(kind, 0) + int(operations)
    hidden, layers, context = 1280, 12, 911
    vocabulary, expert, shared, dense = 129_280, 896, 1792, 6848
    experts = (layers - 1) * 6 * 3 * hidden * expert * 2
    # One row per expert in tiles of 128; one row in tiles of 8, 129,280 columns in 338 tiles of 384.
    assert executed["device_kernel"] == 128 * experts
    assert executed["nvjet_sm90_tst_384x8"] == 8 * 2 * hidden * 338 * 384
    assert vocabulary <= 338 * 384 < 1.01 * vocabulary
    # Attention projections, shared experts, and the dense MLP, whose 6,848 take 108 tiles of 64.
    products = layers * 4 * hidden * hidden + (layers - 1) * 3 * hidden * shared + 3 * hidden * 108 * 64
    assert dense <= 108 * 64 < 1.01 * dense
    assert executed["nvjet"] == 8 * 2 * products
    # One query in tiles of 16, keys in tiles of 128.
    assert executed["sdpa"] == layers * 4 * hidden * 16 * -(-context // 128) * 128
    assert executed[""] == 0
    moved = file.metrics[DRAM_READ].sum() + file.metrics[DRAM_WRITE].sum()
    weights = experts + 2 * (vocabulary * hidden + layers * 4 * hidden * hidden + (layers - 1) * 3 * hidden * shared)
    weights += 2 * 3 * hidden * dense + 2 * (layers - 1) * 64 * hidden
    assert 1 <= moved / (weights + 2 * 2 * context * hidden * layers) < 1.1  # bytes that must move


def test_kernels_of_a_decode_step_know_their_stage_and_step() -> None:
    file = real("decode-step")
    assert len(file) == 25
    assert set(file.state) == {NvtxState("decode", 0, in_step=True, payload=911)}
    assert file.metrics[DRAM_READ][0] == 7168
    assert file.grid[0] == (10, 1, 1)
    assert file.block[1] == (64, 1, 1)


def test_sections_are_read_and_what_has_no_data_is_unknown() -> None:
    file = real("sections")
    assert len(file) == 19
    sol = file.metrics["gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed"]
    assert sol[0] == 8.56
    assert file.metrics["smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio"][0] == 8.41
    assert file.shared_bytes[13] == 164_308
    assert not file.has("derived__local_spilling_requests_pct")
    assert (
        np.isnan(file.metrics.get("l1tex__throughput.avg.pct_of_peak_sustained_active", np.array([np.nan]))).sum() <= 1
    )


@pytest.mark.parametrize("pack", [gzip.open, lzma.open], ids=["gz", "xz"])
def test_packed_files_say_the_same(tmp_path: Path, pack: Callable[..., object]) -> None:
    plain = tmp_path / "c.csv"
    with lzma.open(DATA / "ncu_h100_decode-step.csv.xz") as packed, plain.open("wb") as out:
        shutil.copyfileobj(packed, out)
    other = tmp_path / ("c.csv.gz" if pack is gzip.open else "c.csv.xz")
    with pack(other, "wb") as out:  # type: ignore[attr-defined]
        out.write(plain.read_bytes())
    assert read_counters(other).metrics[DRAM_WRITE].tolist() == read_counters(plain).metrics[DRAM_WRITE].tolist()


def test_words_of_ncu_and_of_the_program_around_the_table_are_skipped(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv", [Profiled("k", values=(1e6, 2))])
    path.write_text(f'==PROF== Connected\nhello, "world"\n{path.read_text()}==PROF== Disconnected\n')
    assert read_counters(path).metrics[DRAM_READ].tolist() == [1e6]


def test_instances_in_brackets_and_long_states_are_read(tmp_path: Path) -> None:
    state = step_state() + '"' + "x" * 300_000 + ':a:none:none:"'
    path = write_csv(tmp_path / "c.csv", [Profiled("k", state=state, values=(5, 2))])
    path.write_text(path.read_text().replace('"5"', '"12 (5; 7)"'))
    file = read_counters(path)
    assert file.metrics[DRAM_READ].tolist() == [12]
    assert file.state[0].payload == 8


BAD = {
    "nothing": (b"", "no line begins with"),
    "binary": (b"NVR\x00\x00\x01\x02", "is not a CSV of Nsight Compute"),
    "another tool": (b'"Time (%)","Total Time (ns)","Name"\n"1","2","k"\n', "no line begins with"),
    "another table": (b'"ID","Name"\n"",""\n"0","k"\n', "names no kernels and launch shapes"),
    "details page": (b'"ID","Kernel Name","Block Size","Grid Size","Metric Name","Metric Unit"\n', "details page"),
    "header only": (
        b'"ID","Kernel Name","Block Size","Grid Size","dram__bytes_read.sum"\n',
        "cut off after its header",
    ),
    "no units": (
        b'"ID","Kernel Name","Block Size","Grid Size","dram__bytes_read.sum"\n"0","k","(1, 1, 1)","(1, 1, 1)","5"\n',
        "no row of units",
    ),
    "no kernels": (
        b'"ID","Kernel Name","Block Size","Grid Size","dram__bytes_read.sum"\n"","","","","byte"\n',
        "holds no kernel",
    ),
    "no metric": (b'"ID","Kernel Name","Block Size","Grid Size"\n"","","",""\n', "none of the metrics"),
    "an open quote": (
        b'"ID","Kernel Name","Block Size","Grid Size","dram__bytes_read.sum"\n"","","","","byte"\n"0","k',
        "is cut off in the middle of a row",
    ),
    "no shape": (
        b'"ID","Kernel Name","Block Size","Grid Size","dram__bytes_read.sum"\n"","","","","byte"\n"0","k","x","y","5"\n',
        "is no launch shape",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_raw_page_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    content, words = BAD[what]
    path = tmp_path / "c.csv"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=words) as refused:
        read_counters(path)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv", [Profiled("k", values=(1, 2)), Profiled("k", values=(1, 2))])
    path.write_text(path.read_text().rsplit(",", 2)[0] + "\n")
    with pytest.raises(RequestError, match=r"is cut off: kernel 2 has 11 of 13 columns"):
        read_counters(path)


def test_a_packed_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.csv.xz"
    path.write_bytes((DATA / "ncu_h100_decode-step.csv.xz").read_bytes()[:2000])
    with pytest.raises(RequestError, match="cannot be read"):
        read_counters(path)


def test_units_that_are_not_base_are_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv", [Profiled("k", values=(1, 2))], units={DRAM_READ: "Mbyte"})
    with pytest.raises(RequestError, match=r"printed in Mbyte, not in base units; .*--print-units base"):
        read_counters(path)


def test_what_the_ranges_say() -> None:
    assert nvtx_state(step_state(12, image=3)) == NvtxState("decode", 3, in_step=True, payload=12)
    assert nvtx_state(step_state(stage="prefill", step=False)) == NvtxState("prefill", 0)
    assert nvtx_state(step_state(None)).payload is None
    assert nvtx_state('7  "dsocr.module:layers.3.mlp:none:none:RGB:0xff:ASCII:layers.3.mlp"').module == "layers.3.mlp"
    assert nvtx_state('7  "other:prefill:none:none:::"').stage is None
    assert not nvtx_state("").known


SPELLINGS = [
    # Nsight Systems', then Nsight Compute's with more and fewer namespaces, one with a bracket cut off.
    ("void at::native::<unnamed>::indexSelectSmallIndex<c10::BFloat16, (int)2, (int)-2>(at::cuda::detail::TensorInfo<T1, T3>)",
     "void at::<unnamed>::indexSelectSmallIndex<c10::BFloat16, 2, (int)-2>(cuda::TensorInfo<T1, T3>)",
     "void unnamed>::indexSelectSmallIndex<c10::BFloat16, 2, (int)-2>(cuda::TensorInfo<T1, T3>)"),
    ("void at::native::gpu_kernel_impl_nocast<at::native::(anonymous namespace)::CompareFunctor<long>>(int, T3)",
     "void gpu_kernel_impl_nocast<unnamed>::CompareFunctor<long>>(int, T3)"),
    ("void f<cute::C<(int)2>, (cute::SM90::GMMA::Major)0, (cutlass::FloatRoundStyle)2>(int)",
     "void f<cute::C<2>, (Major)0, 2>(int)"),
    ("void cudnn::fusion::lean_reduction_kernel<(bool)0, (bool)1>(void *, float *)",
     "void cudnn::lean_reduction_kernel<0, 1>(void *, float *)"),
]  # fmt: skip


@pytest.mark.parametrize("names", SPELLINGS)
def test_both_tools_spellings_have_one_key(names: tuple[str, ...]) -> None:
    assert len({name_key(name) for name in names}) == 1


def test_numbers_and_types_tell_kernels_apart() -> None:
    names = [
        "void f<(int)2, float>(int)",
        "void f<(int)4, float>(int)",
        "void f<(int)2, double>(int)",
        "void g<2, float>(int)",
    ]
    assert len({name_key(name) for name in names}) == 4
    assert name_key("f<-2>") != name_key("f<2>")


@pytest.mark.parametrize(
    "before", ["", '"ID","Kernel Name","Grid Size","Block Size","dram__bytes_read.sum"\n"","","","","byte"\n']
)
@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_line_without_an_end_is_not_read_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes], before: str
) -> None:
    """Packed, a line of 7 GB takes 1 MB; nothing is read beyond what a line may have."""
    monkeypatch.setattr("analysis.efficiency.counters.file._LONGEST_LINE", 1 << 16)
    path = tmp_path / ("bomb.csv.gz" if pack is gzip.compress else "bomb.csv.xz")
    path.write_bytes(pack(before.encode() + b" " * (1 << 26)))
    tracemalloc.start()
    with pytest.raises(
        RequestError, match=r"bomb\.csv\.\wz: has a line of more than 65,536 characters, .*; make it with"
    ):
        read_counters(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 25  # 8 MiB of them for the dictionary


def test_a_file_of_too_many_lines_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.efficiency.counters.file._MOST_CHARACTERS", 1 << 16)
    (path := tmp_path / "many.csv.xz").write_bytes(lzma.compress(b'"ID","a"\n' + b"==PROF== waits\n" * 100_000))
    with pytest.raises(RequestError, match="names no kernels"):
        read_counters(path)
    header = '"ID","Kernel Name","Grid Size","Block Size","dram__bytes_read.sum"\n"","","","","byte"\n'
    path.write_bytes(lzma.compress(header.encode() + b"==PROF== waits\n" * 100_000))
    with pytest.raises(RequestError, match=r"many\.csv\.xz: holds more than 65,536 characters; profile one step"):
        read_counters(path)


def test_equal_texts_of_kernels_are_held_once() -> None:
    file = real("graph-step")
    assert len({id(name) for name in file.names}) <= 2 * len(set(file.names))


@pytest.mark.parametrize("value", ["-5", "inf", "1e400", "11805916207174113034"])
@pytest.mark.parametrize("column", ["Process ID", "dram__bytes_read.sum"])
def test_what_no_counter_can_be_names_its_kernel(tmp_path: Path, column: str, value: str) -> None:
    fields = {"ID": "0", "Process ID": "7", "Kernel Name": "k", "Grid Size": "(1, 1, 1)", "Block Size": "(32, 1, 1)",
              "dram__bytes_read.sum": "64"}  # fmt: skip
    units = ["byte" if name.startswith("dram") else "" for name in fields]
    rows = [list(fields), units, list(fields.values()), list((fields | {column: value}).values())]
    (path := tmp_path / "c.csv").write_text("".join(",".join(f'"{field}"' for field in row) + "\n" for row in rows))
    with pytest.raises(
        RequestError, match=rf"c\.csv: {column} of kernel 2 is \S+, which no counter can be; export it again"
    ):
        read_counters(path)
