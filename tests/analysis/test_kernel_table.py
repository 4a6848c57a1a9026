"""Kernels by stage: durations, launch shapes, occupancy, categories – against plain SQL and arithmetic by hand."""

from __future__ import annotations

import sqlite3
import statistics
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import evolve

from analysis.attribution.attribution import Attribution
from analysis.domain.entities import KernelSummary
from analysis.sums.kernel_classes import load_rules
from analysis.sums.kernels import (
    KernelTables,
    category_rows,
    kernel_tables,
    kernels_of,
    main_device,
    occupancy,
    per_token,
)
from analysis.sums.tables import gpu_table
from analysis.trace.launch_shapes import LaunchShapes
from analysis.trace.reader import Trace
from analysis.trace.records import Device
from trace_builder import TraceBuilder

Attribute = Callable[..., Attribution]
RealAttribution = Callable[[str], tuple[Trace, Attribution]]

ALL = (
    "deepseek-ocr_h100_64tok",
    "deepseek-ocr_h100_gpu-metrics",
    "deepseek-ocr_h100_small",
    "deepseek-ocr_h100_lossy",
    "llama_h100_cuda-graph",
    "tensor-parallel_2xh200_rank0",
)
H100 = Device(0, "H100", 132, compute_capability="9.0", max_warps_per_sm=64, max_blocks_per_sm=32,
              max_registers_per_sm=65536, max_shared_bytes_per_sm=233_472)  # fmt: skip
V100 = Device(0, "V100", 80, compute_capability="7.0", max_warps_per_sm=64, max_blocks_per_sm=32,
              max_registers_per_sm=65536, max_shared_bytes_per_sm=98_304)  # fmt: skip


def shape(grid: tuple[int, int, int], block: tuple[int, int, int], registers: int, shared: int) -> LaunchShapes:
    packed_grid = grid[0] | grid[1] << 31 | grid[2] << 47
    return LaunchShapes.unpack(
        [packed_grid], [block[0] | block[1] << 11 | block[2] << 22 | registers << 29 | shared << 38]
    )


def named(rows: tuple[KernelSummary, ...], short: str, stage: str) -> KernelSummary:
    found = [row for row in rows if row.short_name.startswith(short) and row.stage == stage]
    return max(found, key=lambda row: row.calls)


# --- by hand --------------------------------------------------------------------------------------------------


def test_kernels_by_hand(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 0, 1000, domain="dsocr").range("decode_step", 0, 1000, domain="dsocr")
    for number, (grid, lasts) in enumerate(((8, 10), (4, 20), (4, 70))):
        built.call(10 * number, 10 * number + 5, "cudaLaunchKernel_v7000", correlation=number + 1)
        built.kernel("void gemm<1>", 100 * (number + 1), 100 * (number + 1) + lasts, correlation=number + 1, grid=grid)
    built.launch(600, 605, ("softmax", 700, 725))
    built.launch(2000, 2001, ("void gemm<1>", 2100, 2110))
    tables = per_token(kernel_tables(attribute(built), None, load_rules()), {"prefill": None, "decode": 2})
    gemm, softmax, outside = tables.by_name
    assert (gemm.stage, gemm.name, gemm.calls, gemm.total_ns) == ("decode", "void gemm<1>", 3, 100)
    assert (gemm.mean_ns, gemm.median_ns, gemm.min_ns, gemm.max_ns) == pytest.approx((100 / 3, 20, 10, 70))
    assert gemm.p95_ns == pytest.approx(20 + 0.9 * 50)
    assert (gemm.share, softmax.share) == (0.8, 0.2)
    assert (gemm.per_token, softmax.per_token, outside.per_token) == (1.5, 0.5, None)
    # The grids differ, block and registers do not.
    assert (gemm.shapes, gemm.grid, gemm.block, gemm.registers_per_thread) == (2, None, (128, 1, 1), 32)
    assert [(row.grid, row.calls, row.total_ns, row.min_ns, row.max_ns) for row in tables.by_shape[:3]] == [
        ((4, 1, 1), 2, 90, 20, 70), ((132, 1, 1), 1, 25, 25, 25), ((8, 1, 1), 1, 10, 10, 10),
    ]  # fmt: skip
    assert (gemm.theoretical_occupancy, gemm.waves) == (None, None)  # no device is named
    assert (outside.stage, outside.share) == ("(unattributed)", 1.0)


def test_no_kernels(attribute: Attribute) -> None:
    attribution = attribute(TraceBuilder().copy(0, 5, (10, 30), kind="DtoH"))
    assert kernel_tables(attribution, None, load_rules()) == KernelTables((), ())
    (row,) = category_rows(attribution, ())
    assert (row.stage, row.category, row.calls, row.total_ns, row.share) == (
        "(unattributed)", "memcpy Device-to-Host", 1, 20, 1.0,
    )  # fmt: skip


def test_the_main_device_did_most(attribute: Attribute, tmp_path: Path) -> None:
    built = TraceBuilder().launch(1, 2, ("a", 10, 20), device=1).launch(3, 4, ("b", 30, 40), device=1)
    attribution = attribute(built.launch(5, 6, ("c", 50, 60), device=0))
    devices = (evolve(H100, device_id=0, name="first"), evolve(H100, device_id=1, name="second"))
    with Trace(tmp_path / "trace.sqlite") as trace:
        info = trace.info
    assert main_device(info, attribution) is None
    found = main_device(evolve(info, devices=devices), attribution)
    assert found is not None
    assert found.name == "second"
    assert main_device(evolve(info, devices=devices, cuda_ordinals=frozenset({0, 2})), attribution) is None


# --- occupancy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short", "stage", "wanted"),
    [
        # 2 warps a block; 64 registers × 32 = 2048 a warp: 8 in each of 4 files of 16384 = 32 warps = 16 blocks of 2;
        # shared 2304 + 1024: 70 blocks. 16 × 2 / 64 = 50 %; 300 × 24 blocks / (16 × 132).
        ("implicit_convolve_sgemm", "prefill", (0.5, 300 * 24 / (16 * 132))),
        # 4 warps; 183 × 32 = 5856 → 5888: 2 in each file = 8 warps = 2 blocks; shared 86336 + 1024: 2 blocks.
        ("cudnn_generated_fort_native_sdpa_sm80", "decode", (2 * 4 / 64, 4 * 10 / (2 * 132))),
        # 12 warps; shared 217268 + 1024 of 233472: one block.
        ("nvjet_sm90_tst_384x8_64x4", "decode", (12 / 64, 2 * 66 / 132)),
        # 2 warps; nothing but the 32 warp-block slots limits: 32 × 2 = 64 warps.
        ("gatherTopK", "decode", (1.0, 1 / (32 * 132))),
    ],
)
def test_occupancy_of_known_kernels(
    short: str, stage: str, wanted: tuple[float, float], real_attribution: RealAttribution
) -> None:
    row = named(kernels_of(*real_attribution("deepseek-ocr_h100_64tok")).by_shape, short, stage)
    assert (row.theoretical_occupancy, row.waves) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("device", "block", "registers", "shared", "warps"),
    [
        (H100, (1024, 1, 1), 32, 0, 64),
        (H100, (1024, 1, 1), 33, 0, 32),
        (H100, (96, 1, 1), 40, 0, 48),  # 12 warps in each file: 48, not the 51 of one big file
        (H100, (32, 1, 1), 16, 0, 32),  # block slots
        (H100, (33, 1, 1), 16, 0, 64),  # two warps, the second almost empty
        (H100, (128, 1, 1), 32, 232_448, 4),  # the largest block there is, with the system's KiB
        (H100, (128, 1, 1), 32, 116_000, 4),  # 117024, twice, would just not fit
        (V100, (128, 1, 1), 32, 49_152, 8),  # no reserved KiB before 8.0
        (V100, (128, 1, 1), 32, 49_153, 4),  # a unit more does not fit twice
        (V100, (128, 1, 1), 32, 0, 64),
    ],
)
def test_limits_on_resident_warps(
    device: Device, block: tuple[int, int, int], registers: int, shared: int, warps: int
) -> None:
    found = occupancy(shape((264, 1, 1), block, registers, shared), 0, device)
    assert found is not None
    assert found[0] == warps / 64
    per_block = -(-block[0] * block[1] * block[2] // 32)
    assert found[1] == pytest.approx(264 / (warps // per_block * (device.sm_count or 0)))


@pytest.mark.parametrize(
    "device",
    [None, evolve(H100, sm_count=None), evolve(H100, max_registers_per_sm=None), evolve(H100, compute_capability=None)],
)
def test_occupancy_is_unknown_without_the_devices_limits(device: Device | None) -> None:
    assert occupancy(shape((1, 1, 1), (128, 1, 1), 32, 0), 0, device) is None


def test_a_block_that_does_not_fit_has_no_occupancy() -> None:
    assert occupancy(shape((1, 1, 1), (128, 1, 1), 32, 300_000), 0, H100) is None


def test_unrecorded_shapes_are_unknown(attribute: Attribute) -> None:
    built = TraceBuilder().launch(0, 5, ("k", 10, 20)).without_column("CUPTI_ACTIVITY_KIND_KERNEL", "blockY")
    (row,) = kernel_tables(attribute(built), H100, load_rules()).by_name
    assert (row.grid, row.block, row.registers_per_thread, row.theoretical_occupancy, row.waves) == (None,) * 5


# --- real traces ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deepseek-ocr_h100_small", "deepseek-ocr_h100_64tok", "tensor-parallel_2xh200_rank0"])
def test_real_kernels_against_plain_sql(
    name: str, real_trace: Callable[[str], Path], real_attribution: RealAttribution
) -> None:
    trace, attribution = real_attribution(name)
    with closing(sqlite3.connect(real_trace(name))) as file:
        rows = file.execute(
            "SELECT s.value, k.end - k.start, gridX, gridY, gridZ, blockX, blockY, blockZ, registersPerThread, "
            "staticSharedMemory + dynamicSharedMemory, k.correlationId FROM CUPTI_ACTIVITY_KIND_KERNEL k "
            "JOIN StringIds s ON s.id = k.demangledName"
        ).fetchall()
    # Attribution has tests of its own; here it only says which stage a correlation id is in.
    kernels = attribution.operations.kind == 0
    stage_row = attribution.operation_level("stage")[kernels]
    names = np.array([*attribution.ranges.names, "(unattributed)"])
    stages = names[np.append(attribution.ranges.name, len(names) - 1)[stage_row]]
    stage_of = dict(zip(attribution.operations.correlation[kernels].tolist(), stages.tolist(), strict=True))
    by_name: dict[tuple[Any, ...], list[int]] = {}
    by_shape: dict[tuple[Any, ...], list[int]] = {}
    shapes: dict[tuple[Any, ...], set[tuple[int, ...]]] = {}
    totals: Counter[str] = Counter()
    for name_of_row, duration, *shape_of_row, correlation in rows:
        key = (stage_of[correlation], name_of_row)
        by_name.setdefault(key, []).append(duration)
        by_shape.setdefault((*key, *shape_of_row), []).append(duration)
        shapes.setdefault(key, set()).add(tuple(shape_of_row))
        totals[key[0]] += duration
    tables = kernels_of(trace, attribution)
    folded = {(row.stage, row.name): row for row in tables.by_name}
    each = {
        (row.stage, row.name, *(row.grid or ()), *(row.block or ()), row.registers_per_thread, row.shared_bytes): row
        for row in tables.by_shape
    }
    assert set(folded) == set(by_name)
    assert set(each) == set(by_shape)
    assert (len(folded), len(each)) == (len(tables.by_name), len(tables.by_shape))
    assert {key: row.shapes for key, row in folded.items()} == {key: len(found) for key, found in shapes.items()}
    for row, durations in [(folded[key], found) for key, found in by_name.items()] + [
        (each[key], found) for key, found in by_shape.items()
    ]:
        assert (row.calls, row.total_ns, row.min_ns, row.max_ns) == (
            len(durations), sum(durations), min(durations), max(durations),
        )  # fmt: skip
        assert row.mean_ns == pytest.approx(statistics.fmean(durations))
        assert row.median_ns == statistics.median(durations)
        assert row.p95_ns == pytest.approx(
            statistics.quantiles(durations, n=20, method="inclusive")[-1] if len(durations) > 1 else durations[0]
        )
        assert row.share == pytest.approx(sum(durations) / totals[row.stage])
    for key, row in folded.items():
        grids = {shape[:3] for shape in shapes[key]}
        assert row.grid == (next(iter(grids)) if len(grids) == 1 else None)
        assert row.shared_bytes == (found.pop() if len(found := {shape[7] for shape in shapes[key]}) == 1 else None)


def test_the_largest_row_of_the_prefill_does_not_hide_its_largest_launches(real_attribution: RealAttribution) -> None:
    tables = kernels_of(*real_attribution("deepseek-ocr_h100_64tok"))
    row = next(row for row in tables.by_name if row.stage == "prefill")
    assert (row.calls, row.shapes, row.grid, row.min_ns, row.max_ns) == (426, 17, None, 3328, 525100)
    parts = [one for one in tables.by_shape if (one.stage, one.name) == (row.stage, row.name)]
    assert (sum(one.calls for one in parts), sum(one.total_ns for one in parts)) == (row.calls, row.total_ns)
    large = [one for one in parts if one.min_ns > 480_000]
    assert sum(one.calls for one in large) == 16
    assert sum(one.total_ns for one in large) / row.total_ns == pytest.approx(0.41, abs=0.005)


def test_calls_per_token(real_attribution: RealAttribution) -> None:
    trace, attribution = real_attribution("deepseek-ocr_h100_64tok")
    tables = kernels_of(trace, attribution)
    for row in (*tables.by_name, *tables.by_shape):
        # 128 decode steps; the prompt's length is nowhere in this trace.
        assert row.per_token == (row.calls / 128 if row.stage == "decode" else None)


@pytest.mark.parametrize("name", ALL)
def test_categories_hold_each_stages_time(name: str, real_attribution: RealAttribution) -> None:
    trace, attribution = real_attribution(name)
    kernels = kernels_of(trace, attribution).by_name
    rows = category_rows(attribution, kernels)
    for total in gpu_table(attribution, "stage").rows():
        mine = [row for row in rows if row.stage == total["name"]]
        time = total["kernel_sum_ns"] + total["memcpy_ns"] + total["memset_ns"] + total["graph_ns"]
        count = total["kernels"] + total["memcpys"] + total["memsets"] + total["graphs"]
        assert sum(row.total_ns for row in mine) == time
        assert sum(row.calls for row in mine) == count
        if time:
            assert sum(row.share for row in mine) == pytest.approx(1)
        assert [row.total_ns for row in mine] == sorted((row.total_ns for row in mine), reverse=True)
        of_stage = [row for row in kernels if row.stage == total["name"]]
        assert sum(row.total_ns for row in of_stage) == total["kernel_sum_ns"]
        assert sum(row.calls for row in of_stage) == total["kernels"]


def test_copies_sets_and_graphs_have_categories(real_attribution: RealAttribution) -> None:
    trace, attribution = real_attribution("llama_h100_cuda-graph")
    rows = {
        (row.stage, row.category): row for row in category_rows(attribution, kernels_of(trace, attribution).by_name)
    }
    assert (rows["decode", "graph"].calls, rows["decode", "graph"].share) == (192, 1.0)
    assert rows["prefill", "memset"].calls == 144
    assert rows["prefill", "memcpy Device-to-Host"].calls == 3
