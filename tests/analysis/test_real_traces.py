"""Real captures against an independent brute-force attribution, nanosecond by nanosecond (tests/data/expected)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.attribution.intervals import union_ns
from analysis.domain.annotations import STAGES
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.tables import gpu_table
from analysis.trace.reader import Trace
from analysis.trace.records import KERNEL, MEMCPY, MEMSET

TRACES = (
    "deepseek-ocr_h100_64tok",
    "deepseek-ocr_h100_gpu-metrics",
    "deepseek-ocr_h100_small",
    "llama_h100_cuda-graph",
    "tensor-parallel_2xh200_rank0",
    "tensor-parallel_2xh200_rank1",
)

RealAttribution = Callable[[str], tuple[Trace, Attribution]]
Expected = Callable[[str], dict[str, Any]]


def summary(attribution: Attribution, mask: np.ndarray) -> dict[str, Any]:
    """The figures that the expectation gives for a set of operations."""
    start, end = attribution.operations.start[mask], attribution.operations.end[mask]
    if not start.size:
        return {"count": 0, "total_ns": 0, "union_ns": 0, "first_start": None, "last_end": None, "span_ns": 0}
    return {
        "count": int(start.size),
        "total_ns": int((end - start).sum()),
        "union_ns": union_ns(start, end),
        "first_start": int(start.min()),
        "last_end": int(end.max()),
        "span_ns": int(end.max() - start.min()),
    }


def by_stage(attribution: Attribution, stage: str) -> NDArray[np.bool_]:
    """Operations of a stage; of none for ``neither``."""
    rows = attribution.operation_level("stage")
    names = np.array([*attribution.ranges.names, "neither"])[np.append(attribution.ranges.name, -1)]
    of_stage: NDArray[np.bool_] = names[rows] == stage
    return of_stage


@pytest.mark.parametrize("name", TRACES)
def test_totals(name: str, real_attribution: RealAttribution, expected: Expected) -> None:
    trace, attribution = real_attribution(name)
    operations, totals = attribution.operations, expected(name)["totals"]
    kernels = summary(attribution, operations.kind == KERNEL)
    found = {
        "kernels": kernels["count"],
        "kernel_ns": kernels["total_ns"],
        "kernel_union_ns": kernels["union_ns"],
        "kernel_span_ns": kernels["span_ns"],
        "memcpy": int((operations.kind == MEMCPY).sum()),
        "memcpy_ns": summary(attribution, operations.kind == MEMCPY)["total_ns"],
        "memset": int((operations.kind == MEMSET).sum()),
        "memset_ns": summary(attribution, operations.kind == MEMSET)["total_ns"],
        "nvtx_ranges": len(attribution.ranges),
        "nvtx_ranges_null_end": int(attribution.ranges.unclosed.sum()),
        "ops_without_api": int((attribution.launch_call < 0).sum()),
        "api_launch_threads": np.unique(attribution.calls.thread[attribution.launch_call]).size,
    }
    assert found == {key: totals[key] for key in found}
    graphless = operations.kind <= MEMSET
    assert summary(attribution, graphless)["union_ns"] == totals["gpu_union_ns"]
    assert trace.info.product == "NVIDIA Nsight Systems 2025.3.2.0"


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("stage", [*STAGES, "neither"])
def test_stage(name: str, stage: str, real_attribution: RealAttribution, expected: Expected) -> None:
    _, attribution = real_attribution(name)
    kind, mine = attribution.operations.kind, by_stage(attribution, stage)
    wanted = expected(name)["stages"][stage]
    assert summary(attribution, mine & (kind == KERNEL)) == wanted["kernel"]
    assert summary(attribution, mine & (kind == MEMCPY)) == wanted["memcpy"]
    assert summary(attribution, mine & (kind == MEMSET)) == wanted["memset"]
    assert summary(attribution, mine & (kind <= MEMSET)) == wanted["all_gpu_ops"]


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("stage", STAGES)
def test_stage_instances(name: str, stage: str, real_attribution: RealAttribution, expected: Expected) -> None:
    _, attribution = real_attribution(name)
    ranges, operations = attribution.ranges, attribution.operations
    all_stages = np.flatnonzero(attribution.is_level("stage"))
    in_order = all_stages[np.argsort(ranges.start[all_stages])]
    rows = [row for row in in_order if ranges.names[ranges.name[row]] == stage]
    wanted = expected(name)["stages"][stage]["instances"]
    assert len(rows) == len(wanted)
    of_stage = attribution.operation_level("stage")
    for row, one in zip(rows, wanted, strict=True):
        assert (int(ranges.start[row]), int(ranges.end[row])) == (one["cpu_start"], one["cpu_end"])
        assert summary(attribution, (of_stage == row) & (operations.kind == KERNEL)) == one["kernel"]
        assert summary(attribution, (of_stage == row) & (operations.kind <= MEMSET)) == one["gpu_ops"]


@pytest.mark.parametrize("name", TRACES)
def test_stage_table_shows_the_same_numbers(name: str, real_attribution: RealAttribution, expected: Expected) -> None:
    rows = {row["name"]: row for row in gpu_table(real_attribution(name)[1], "stage").rows()}
    assert list(rows) == [*STAGES, UNATTRIBUTED]
    for label, stage in (*((one, one) for one in STAGES), (UNATTRIBUTED, "neither")):
        wanted, row = expected(name)["stages"][stage], rows[label]
        assert (row["kernels"], row["kernel_sum_ns"]) == (wanted["kernel"]["count"], wanted["kernel"]["total_ns"])
        assert (row["memcpys"], row["memcpy_ns"]) == (wanted["memcpy"]["count"], wanted["memcpy"]["total_ns"])
        assert (row["memsets"], row["memset_ns"]) == (wanted["memset"]["count"], wanted["memset"]["total_ns"])
        if not row["graphs"]:
            assert row["busy_ns"] == wanted["all_gpu_ops"]["union_ns"]
        if stage != "neither" and not row["graphs"]:
            assert row["projected_ns"] == wanted["gpu_proj_ns"]


@pytest.mark.parametrize("name", [name for name in TRACES if name != "llama_h100_cuda-graph"])
def test_modules(name: str, real_attribution: RealAttribution, expected: Expected) -> None:
    table = gpu_table(real_attribution(name)[1], "module")
    found = {row["name"]: (row["kernels"], row["kernel_sum_ns"]) for row in table.rows() if row["kernels"]}
    wanted = {key: (one["count"], one["total_ns"]) for key, one in expected(name)["innermost_module_kernels"].items()}
    wanted[UNATTRIBUTED] = wanted.pop("(none)", (0, 0))
    assert found == {key: value for key, value in wanted.items() if value[0]}


@pytest.mark.parametrize("name", TRACES)
def test_kernels_of_a_stage(name: str, real_attribution: RealAttribution, expected: Expected) -> None:
    for stage in STAGES:
        rows = {row["name"]: row for row in gpu_table(real_attribution(name)[1], "kernel", stage=stage).rows()}
        wanted = expected(name)["top_kernels_per_stage"][stage]
        for one in wanted:
            row = rows[one["demangled"]]
            assert (row["kernels"], row["kernel_sum_ns"]) == (one["count"], one["total_ns"])
        kernels = [row for row in rows.values() if row["kernels"]]
        assert len(kernels) == expected(name)["stages"][stage]["distinct_kernel_names"]


def test_graphs_traced_as_a_whole_are_decodes_operations(real_attribution: RealAttribution) -> None:
    """192 decode steps, each one graph launch: the kernels inside are invisible, their time is not."""
    _, attribution = real_attribution("llama_h100_cuda-graph")
    rows = {row["name"]: row for row in gpu_table(attribution, "stage").rows()}
    assert (rows["decode"]["kernels"], rows["decode"]["graphs"]) == (0, 192)
    graphs = attribution.operations.names[int(attribution.operations.name[attribution.operations.kind == 3][0])]
    assert graphs.startswith("[CUDA graph ")
    steps = gpu_table(attribution, "step", stage="decode").rows()
    assert [row["graphs"] for row in steps] == [1] * 192
    assert sum(row["graph_ns"] for row in steps) == rows["decode"]["graph_ns"] == rows["decode"]["busy_ns"]
