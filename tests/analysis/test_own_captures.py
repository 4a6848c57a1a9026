"""Captures that our own runner made on an H200: a whole report from nothing but the trace."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from analysis.attribution.attribution import Attribution
from analysis.report import Report, assemble
from analysis.trace.manifest import find_manifest
from analysis.trace.reader import Trace

GRAPH, TORCH = "deepseek-ocr_h200_cuda-graph", "deepseek-ocr_h200_torch"

RealAttribution = Callable[[str], tuple[Trace, Attribution]]


@pytest.fixture(scope="module", params=[GRAPH, TORCH])
def report(request: pytest.FixtureRequest, real_attribution: RealAttribution) -> Report:
    return report_of(request.param, real_attribution)


def report_of(name: str, real_attribution: RealAttribution) -> Report:
    trace, attribution = real_attribution(name)
    return assemble(trace, attribution, find_manifest(trace.path, trace.marks, None))


def test_the_trace_carries_its_run(report: Report) -> None:
    """The mark: model, what the stages need, and the control run's latencies."""
    manifest = report.manifest
    assert manifest is not None
    assert manifest.model is not None
    assert (manifest.model.id, manifest.model.weights) == ("deepseek-ocr", "random")
    assert manifest.meta.gpu_name == "NVIDIA H200"
    assert report.capture.random_weights
    known = {(one.stage, one.time_base) for one in report.utilisation if one.mfu is not None}
    assert {("prefill", "unprofiled"), ("decode", "unprofiled")} <= known
    assert {one.source for one in report.aggregates if one.name in ("ttft_ms", "tpot_ms")} == {"control"}
    assert [one.stage for one in report.overhead] == ["prefill", "decode"]


def test_stages_hold_all_kernels_but_those_between_them(report: Report) -> None:
    kernels = {row.name: row.kernels for row in report.stage_rows}
    graph = report.capture.graphs > 0
    # The graph's decoder sets its cache's counters to zero between images, outside both stages.
    assert kernels == (
        {"prefill": 7197, "decode": 0, "(unattributed)": 36}
        if graph
        else {"prefill": 1556, "decode": 5978, "(unattributed)": 0}
    )


def test_decode_from_a_cuda_graph(real_attribution: RealAttribution) -> None:
    report = report_of(GRAPH, real_attribution)
    decode = next(one for one in report.stages if one.stage == "decode")
    assert (decode.tokens, decode.graph_launches, decode.launches, decode.gpu.graphs) == (189, 189, 189, 189)
    tpot = next(one for one in report.aggregates if one.name == "tpot_ms")
    # 2.74 ms a token alone; eager decode took 15.6 ms on the same machine in the same hour.
    assert tpot.median == pytest.approx(2.74, abs=0.01)
    verdict = next(one for one in report.verdicts if one.stage == "decode")
    assert verdict.bound == "kernel-bound"
    assert "cuda-graph-nodes" in verdict.action
    assert {one.code for one in report.findings} == {"whole-graphs"}


def test_torch_profilers_capture_equals_an_attribution_in_sql(
    real_trace: Callable[[str], Path], real_attribution: RealAttribution
) -> None:
    report = report_of(TORCH, real_attribution)
    query = """
        SELECT t.value, count(*), sum(k."end" - k.start)
        FROM CUPTI_ACTIVITY_KIND_KERNEL k
        JOIN CUPTI_ACTIVITY_KIND_RUNTIME c ON c.correlationId = k.correlationId
        JOIN NVTX_EVENTS n ON n.globalTid = c.globalTid AND n.start <= c.start AND n."end" >= c."end"
        JOIN StringIds t ON t.id = n.textId AND t.value IN ('prefill', 'decode')
        GROUP BY t.value
    """
    with closing(sqlite3.connect(real_trace(TORCH))) as database:
        expected = {name: (kernels, total) for name, kernels, total in database.execute(query)}
    assert {row.name: (row.kernels, row.kernel_sum_ns) for row in report.stage_rows if row.kernels} == expected
    assert report.capture.collector == "torch on CUDA"
    # Kineto gives a launch's shape only where it is asked for its metadata.
    assert all(one.grid is not None and one.registers_per_thread is not None for one in report.kernel_shapes)
    assert {one.bound for one in report.verdicts} == {"host-bound in Python"}
    # torch 2.11 leaves this name mangled, and gave no shared memory when the capture was made.
    grouped = [one for one in report.kernels if one.category == "grouped GEMM"]
    assert {one.human_name for one in grouped} == {
        "grouped matrix product, bf16",
        "grouped matrix product, set-up, bf16",
    }
    assert any(one.name.startswith("_ZN7cutlass13device_kernel") for one in grouped)
    assert {one.theoretical_occupancy for one in report.kernels} == {None}
