"""Hardware counters of kernels, as Nsight Compute's raw page gives them: one record per profiled kernel.

The file is what ``ncu --import REPORT --page raw --csv --print-units base`` prints: a row of column names, a row of
units, then a row per kernel; numbers carry thousands separators, and one column holds the NVTX ranges that were open.
Only the metrics that an answer needs are kept (`is_wanted`), so that a file of any width is read in one pass.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, Final, TextIO

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from analysis.domain.annotations import DECODE_STEP, IMAGE_NAME, MODULE_DOMAIN, STAGE_DOMAIN, STAGES
from analysis.domain.errors import RequestError
from analysis.domain.names import from_a_spreadsheet
from analysis.domain.packed import DAMAGES, open_packed

__all__ = [
    "CUDA_CORE_FLOP",
    "DRAM_READ",
    "DRAM_WRITE",
    "L2",
    "STALL",
    "CounterFile",
    "NvtxState",
    "is_wanted",
    "nvtx_state",
    "read_counters",
    "tensor_dtype",
]

Floats = NDArray[np.float64]

DRAM_READ: Final = "dram__bytes_read.sum"
DRAM_WRITE: Final = "dram__bytes_write.sum"
L2: Final = "lts__t_bytes.sum"
CUDA_CORE_FLOP: Final = {
    "sm__sass_thread_inst_executed_op_fadd_pred_on.sum": 1,
    "sm__sass_thread_inst_executed_op_fmul_pred_on.sum": 1,
    "sm__sass_thread_inst_executed_op_ffma_pred_on.sum": 2,
    "sm__sass_thread_inst_executed_op_hadd_pred_on.sum": 1,
    "sm__sass_thread_inst_executed_op_hmul_pred_on.sum": 1,
    "sm__sass_thread_inst_executed_op_hfma_pred_on.sum": 2,
}
"""Operations of each executed instruction; a fused multiply-add is two."""

_TENSOR: Final = re.compile(r"sm__ops_path_tensor_src_(bf16|fp16|tf32|fp8|int8|fp64|int4|fp4|fp6)(?:_dst_\w+?)?\.sum")
"""Both dense and sparse operations: names with ``_sparsity_`` are parts of these."""

STALL: Final = re.compile(r"smsp__average_warps_issue_stalled_(\w+)_per_issue_active\.ratio")

_OF_SECTIONS: Final = frozenset({
    "gpu__time_duration.sum",
    "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "l1tex__throughput.avg.pct_of_peak_sustained_active",
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    "l1tex__t_sector_hit_rate.pct",
    "lts__t_sector_hit_rate.pct",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "sm__maximum_warps_per_active_cycle_pct",
    "smsp__average_warp_latency_per_inst_issued.ratio",
    "smsp__issue_active.avg.per_cycle_active",
    "launch__waves_per_multiprocessor",
    "launch__sm_count",
    "launch__occupancy_limit_blocks",
    "launch__occupancy_limit_registers",
    "launch__occupancy_limit_shared_mem",
    "launch__occupancy_limit_warps",
    "launch__occupancy_limit_barriers",
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio",
    "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio",
    "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum",
    "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum",
    "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum",
    "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum",
    "smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.ratio",
    "smsp__sass_average_data_bytes_per_sector_mem_global_op_st.ratio",
    "derived__local_spilling_requests",
    "profiler__replayer_passes",
})  # fmt: skip

_BASE_UNITS: Final[dict[str, frozenset[str]]] = {
    "bytes": frozenset({"", "byte"}),
    "inst_executed_op": frozenset({"", "inst"}),
    "ops_path_tensor": frozenset({"", "op", "ops"}),
    "time_duration": frozenset({"", "ns", "nsecond"}),
}
"""Part of a metric's name → the units in which it may be printed."""

_MOST_KERNELS: Final = 2_000_000
_LONGEST_FIELD: Final = 1 << 24
"""Characters: the NVTX state holds every open range's name in full, and a name may be long."""
_LONGEST_LINE: Final = 1 << 25
_MOST_CHARACTERS: Final = 1 << 30
"""Of a whole file, unpacked: a census of 866 kernels has 1 MB."""
_LINES_BEFORE: Final = 10_000
"""Progress lines of ncu, and of the profiled program, that may stand before the header."""


def tensor_dtype(metric: str) -> str | None:
    """Type of the operands that a metric counts tensor-core operations of; None: it counts none."""
    found = _TENSOR.fullmatch(metric)
    return found[1] if found else None


def is_wanted(metric: str) -> bool:
    """Whether an answer is made from a metric."""
    return (
        metric in (DRAM_READ, DRAM_WRITE, L2)
        or metric in CUDA_CORE_FLOP
        or metric in _OF_SECTIONS
        or _TENSOR.fullmatch(metric) is not None
        or STALL.fullmatch(metric) is not None
    )


@frozen
class NvtxState:
    """What the ranges that were open at a launch say of it. None: they do not say."""

    stage: str | None = None
    image: int | None = None
    in_step: bool = False
    payload: int | None = None
    """Of the decode step: its context length."""
    module: str | None = None
    known: bool = True
    """Whether any range was recorded at all; without, the stage is unknown rather than none."""


@frozen(eq=False)
class CounterFile:
    """The profiled kernels of one file, in the order in which they ran. All arrays are [n]."""

    source: str
    """What to call it in messages."""
    names: tuple[str, ...]
    """Of the kernels, as printed, [n]."""
    process: NDArray[np.int64]
    state: tuple[NvtxState, ...]
    grid: tuple[tuple[int, int, int], ...]
    block: tuple[tuple[int, int, int], ...]
    shared_bytes: NDArray[np.int64]
    """Static and dynamic per block; -1: not recorded."""
    metrics: dict[str, Floats]
    """Metric → values, NaN where a kernel has none."""
    devices: frozenset[str]
    """Names of the devices that the kernels ran on; empty: not recorded."""
    compute_capabilities: frozenset[str]

    def __len__(self) -> int:
        return len(self.names)

    def has(self, *metrics: str) -> bool:
        """Whether any kernel has a value of all these metrics."""
        return all(metric in self.metrics and bool((~np.isnan(self.metrics[metric])).any()) for metric in metrics)


def read_counters(path: Path, source: str | None = None) -> CounterFile:
    """Read a CSV of the raw page, plain or packed by xz or gzip.

    Args:
        path: the file.
        source: what to call it in messages; None: its path.

    Raises:
        RequestError: it cannot be read, is no such CSV, is cut off, is not in base units, or has no kernels.
    """
    source = source or str(path)
    try:
        with _plain(path) as plain, _long_fields():
            text = TextIOWrapper(plain, encoding="utf-8", errors="replace", newline="")
            return _read(_lines(text, source), source)
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise RequestError(f"{source}: is cut off in the middle of a row; export it again") from error
        raise RequestError(f"{source}: is not a CSV of Nsight Compute ({error}); {_HOW}") from error
    except DAMAGES as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RequestError(f"{source}: cannot be read ({reason})") from error


_HOW: Final = "make it with: ncu --import REPORT.ncu-rep --page raw --csv --print-units base"


@contextmanager
def _plain(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix in (".xz", ".gz"):
        with open_packed(path) as unpacked:
            yield unpacked
    else:
        with path.open("rb") as file:
            yield file


def _lines(text: TextIO, source: str) -> Iterator[str]:
    """The lines of a file, none of which is read beyond a length: a file of 1 MB may unpack to one of 7 GB."""
    characters = 0
    while line := text.readline(_LONGEST_LINE + 1):
        characters += len(line)
        if len(line) > _LONGEST_LINE:
            raise RequestError(
                f"{source}: has a line of more than {_LONGEST_LINE:,} characters, as no ncu writes; {_HOW}"
            )
        if characters > _MOST_CHARACTERS:
            raise RequestError(
                f"{source}: holds more than {_MOST_CHARACTERS:,} characters; profile one step of each stage"
            )
        yield line


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read(lines: Iterator[str], source: str) -> CounterFile:
    header = _header(lines, source)
    where = {name: place for place, name in enumerate(header)}
    rows = csv.reader(lines, strict=True)
    units = next(rows, None)
    if units is None or len(units) != len(header):
        raise RequestError(f"{source}: is cut off after its header; export it again")
    if "ID" in where and units[where["ID"]].strip():
        raise RequestError(f"{source}: has no row of units; {_HOW}")
    wanted = [name for name in header if is_wanted(name)]
    for name in wanted:
        _require_base(name, units[where[name]], source)
    if not wanted:
        raise RequestError(
            f"{source}: has none of the metrics that a review is made from (such as {DRAM_READ}); collect them"
        )
    columns = _Columns(wanted)
    _fill(rows, [(take, where[name]) for name, take in columns.takers() if name in where], len(header), source)
    return _counter_file(columns, where, source)


class _Columns:
    """What is kept of each kernel: equal texts once, numbers as such, of ranges what they say."""

    def __init__(self, wanted: Sequence[str]) -> None:
        self.texts: dict[str, list[str]] = {name: [] for name in _FIELDS}
        self.numbers = {name: array("d") for name in wanted}
        self.states: list[NvtxState] = []
        self._known: dict[str, str] = {}

    def takers(self) -> Iterator[tuple[str, Callable[[str], None]]]:
        """Name of each column, and what takes its fields."""
        yield _NVTX, lambda text: self.states.append(nvtx_state(text))
        for name, texts in self.texts.items():
            yield name, self._taker_of(texts)
        for name, numbers in self.numbers.items():
            yield name, self._taker_of_numbers(numbers)

    def _taker_of(self, texts: list[str]) -> Callable[[str], None]:
        return lambda text: texts.append(self._known.setdefault(text, text))

    def _taker_of_numbers(self, numbers: array[float]) -> Callable[[str], None]:
        return lambda text: numbers.append(_number(text))


_NVTX: Final = "thread Domain:Push/Pop_Range"
_FIELDS: Final = (
    "Process ID", "Kernel Name", "Block Size", "Grid Size", "CC", "device__attribute_display_name",
    "launch__shared_mem_per_block_static", "launch__shared_mem_per_block_dynamic",
)  # fmt: skip


def _header(lines: Iterator[str], source: str) -> list[str]:
    """The row of column names; lines of other programs before it are skipped."""
    for line in islice(lines, _LINES_BEFORE):
        if "\0" in line:
            break
        if not line.lstrip("\ufeff").startswith(('"ID",', "ID,")):
            continue
        header = next(csv.reader([line.lstrip("\ufeff")]))
        if "Metric Name" in header:
            raise RequestError(f"{source}: is Nsight Compute's details page, not its raw page; {_HOW}")
        if not {"Kernel Name", "Grid Size", "Block Size"} <= set(header):
            raise RequestError(
                f"{source}: names no kernels and launch shapes: it is not Nsight Compute's raw page; {_HOW}"
            )
        return [_NVTX if name.startswith(_NVTX) else name for name in header]
    raise RequestError(f'{source}: is not a CSV of Nsight Compute: no line begins with "ID"; {_HOW}')


def _require_base(name: str, unit: str, source: str) -> None:
    for part, allowed in _BASE_UNITS.items():
        if part in name and not name.startswith("launch__") and "per_second" not in name and unit not in allowed:
            if "ratio" in name or "pct" in name:
                return
            raise RequestError(f"{source}: {name} is printed in {unit}, not in base units; {_HOW}")


def _fill(
    rows: Iterator[list[str]], places: Sequence[tuple[Callable[[str], None], int]], width: int, source: str
) -> None:
    kernels = 0
    for row in rows:
        if len(row) != width:
            if not row or row[0].startswith("=="):  # ncu's own words after the last kernel
                continue
            raise RequestError(
                f"{source}: is cut off: kernel {kernels + 1} has {len(row)} of {width} columns; export it again"
            )
        kernels += 1
        if kernels > _MOST_KERNELS:
            raise RequestError(f"{source}: holds more than {_MOST_KERNELS:,} kernels; profile one step of each stage")
        for append, place in places:
            append(row[place])
    if not kernels:
        raise RequestError(f"{source}: holds no kernel: nothing was profiled; check ncu's filters")


def _counter_file(columns: _Columns, where: dict[str, int], source: str) -> CounterFile:
    texts = columns.texts
    count = len(texts["Kernel Name"])
    shared = np.full(count, -1, dtype=np.int64)
    parts = [name for name in _FIELDS if name.startswith("launch__shared")]
    if all(name in where for name in parts):
        total = sum((_counts(name, map(_number, texts[name]), source) for name in parts), np.zeros(count))
        shared = np.where(np.isnan(total), -1, total).astype(np.int64)
    process = _counts("Process ID", map(_number, texts["Process ID"] or ["0"] * count), source)
    return CounterFile(
        source=source,
        names=tuple(map(from_a_spreadsheet, texts["Kernel Name"])),
        process=np.nan_to_num(process, nan=-1).astype(np.int64),
        state=tuple(columns.states) or (nvtx_state(""),) * count,
        grid=tuple(_shape(text, source) for text in texts["Grid Size"]),
        block=tuple(_shape(text, source) for text in texts["Block Size"]),
        shared_bytes=shared,
        metrics={name: _counts(name, numbers, source) for name, numbers in columns.numbers.items()},
        devices=frozenset(text for text in texts["device__attribute_display_name"] if text),
        compute_capabilities=frozenset(text for text in texts["CC"] if text),
    )


def _counts(name: str, numbers: Iterable[float], source: str) -> Floats:
    """What a column holds, NaN for none.

    Raises:
        RequestError: it counts less than nothing, or more than 63 bits can.
    """
    values = np.array(list(numbers), dtype=np.float64)
    wrong = np.flatnonzero((values < 0) | (values >= 2**63))
    if wrong.size:
        raise RequestError(
            f"{source}: {name} of kernel {int(wrong[0]) + 1} is {values[wrong[0]]:g}, which no counter can be; export it again"
        )
    return values


def _number(text: str) -> float:
    """``1,116,691,496,960`` and ``12 (3; 4; 5)``, whose brackets hold the instances; NaN for words."""
    text = text.partition(" (")[0].replace(",", "")
    try:
        return float(text)
    except ValueError:
        return np.nan


@cache
def _shape_of(text: str) -> tuple[int, int, int] | None:
    numbers = re.findall(r"\d+", text)
    return (int(numbers[0]), int(numbers[1]), int(numbers[2])) if len(numbers) == 3 else None


def _shape(text: str, source: str) -> tuple[int, int, int]:
    shape = _shape_of(text)
    if shape is None:
        raise RequestError(f"{source}: {text[:40]!r} is no launch shape; {_HOW}")
    return shape


_QUOTED: Final = re.compile(r'"([^"]*)"')


@lru_cache(maxsize=256)
def nvtx_state(text: str) -> NvtxState:
    """What the column of push/pop ranges says: ``935 "dsocr:decode:none:none:…" "dsocr:decode_step:Int64:911:…"``.

    Args:
        text: a thread and its open ranges, outermost first, each ``domain:name:payload type:payload:colour …``.
    """
    ranges = [parts for found in _QUOTED.findall(text) if len(parts := found.split(":")) >= 4]
    stage = image = payload = module = None
    in_step = False
    for domain, name, kind, value, *_ in ranges:
        if domain == MODULE_DOMAIN:
            module = name
        elif domain == STAGE_DOMAIN:
            numbered = IMAGE_NAME.fullmatch(name)
            if numbered is not None:
                image = int(numbered[1])
            elif name in STAGES:
                stage = name
            elif name == DECODE_STEP:
                in_step = True
                payload = int(value) if kind != "none" and value.lstrip("-").isdecimal() else None
    return NvtxState(stage, image, in_step, payload, module, known=bool(ranges))
