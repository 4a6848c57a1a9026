"""The same trace through Nsight Systems' own reports (``nsys stats`` on 64tok), row by row; and where we differ on purpose."""

from __future__ import annotations

import csv
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.attribution.attribution import Attribution
from analysis.sums.range_kernels import projection_rows, range_kernel_rows
from analysis.sums.tables import gpu_table
from analysis.trace.reader import Trace
from trace_builder import START_END, TraceBuilder

EXPECTED = Path(__file__).parents[1] / "data" / "expected"
NAME = "deepseek-ocr_h100_64tok"
ROUNDING = 0.051
"""Their reports print one decimal."""

RealAttribution = Callable[[str], tuple[Trace, Attribution]]
Attribute = Callable[..., Attribution]


def report(name: str) -> list[dict[str, str]]:
    with lzma.open(EXPECTED / f"{NAME}.{name}.csv.xz", "rt", newline="") as file:
        return list(csv.DictReader(file))


def number(text: str) -> float | None:
    """A deviation of one value is empty or 0 in their reports."""
    return float(text) if text else None


def close(found: float | None, wanted: float | None) -> bool:
    if found is None:
        return wanted in (None, 0)
    return wanted is not None and abs(found - wanted) <= ROUNDING


def test_every_row_of_nvtx_kern_sum(real_attribution: RealAttribution) -> None:
    wanted = {
        (row["NVTX Range"], row["Style"], int(row["PID"]), int(row["TID"]), row["Kernel Name"]): row
        for row in report("nvtx_kern_sum")
    }
    found = {
        (row.range_name, row.style, row.pid, row.tid, row.kernel): row
        for row in range_kernel_rows(real_attribution(NAME)[1])
    }
    assert found.keys() == wanted.keys()
    for key, row in wanted.items():
        mine = found[key]
        integers = (mine.range_instances, mine.kernel_instances, mine.total_ns, mine.min_ns, mine.max_ns)
        names = ("NVTX Inst", "Kern Inst", "Total Time (ns)", "Min (ns)", "Max (ns)")
        assert integers == tuple(int(row[name]) for name in names), key
        assert close(mine.mean_ns, float(row["Avg (ns)"])), key
        assert close(mine.median_ns, float(row["Med (ns)"])), key
        assert close(mine.std_ns, number(row["StdDev (ns)"])), key


def test_every_projection_of_nvtx_gpu_proj_sum(real_attribution: RealAttribution) -> None:
    wanted = {(row["Range"], row["Style"]): row for row in report("nvtx_gpu_proj_sum")}
    found = {(row.range_name, row.style): row for row in projection_rows(real_attribution(NAME)[1])}
    assert found.keys() == wanted.keys()
    for key, row in wanted.items():
        mine = found[key]
        integers = (
            mine.range_instances,
            mine.projected_ns,
            mine.host_ns,
            mine.min_ns,
            mine.max_ns,
            mine.operations,
        )
        names = (
            "Range Instances", "Total Proj Time (ns)", "Total Range Time (ns)", "Proj Min (ns)", "Proj Max (ns)",
            "Total GPU Ops",
        )  # fmt: skip
        assert integers == tuple(int(row[name]) for name in names), key
        assert close(mine.mean_ns, float(row["Proj Avg (ns)"])), key
        assert close(mine.median_ns, float(row["Proj Med (ns)"])), key
        assert close(mine.std_ns, number(row["Proj StdDev (ns)"])), key


def test_every_row_of_cuda_gpu_kern_sum(real_attribution: RealAttribution) -> None:
    wanted = {row["Name"]: (int(row["Instances"]), int(row["Total Time (ns)"])) for row in report("cuda_gpu_kern_sum")}
    table = gpu_table(real_attribution(NAME)[1], "kernel")
    found = {row["name"]: (row["kernels"], row["kernel_sum_ns"]) for row in table.rows() if row["kernels"]}
    assert found == wanted


def test_every_row_of_nvtx_sum(real_attribution: RealAttribution) -> None:
    """Ranges alone, without kernels: what is read of NVTX_EVENTS is complete."""
    attribution = real_attribution(NAME)[1]
    ranges = attribution.ranges
    found: dict[str, list[int]] = {}
    for row, (start, end) in enumerate(zip(ranges.start.tolist(), ranges.end.tolist(), strict=True)):
        found.setdefault(attribution.qualified_name(row), []).append(end - start)
    wanted = {row["Range"].removeprefix(":"): row for row in report("nvtx_sum")}
    assert found.keys() == wanted.keys()
    for name, told in wanted.items():
        assert (len(found[name]), sum(found[name])) == (int(told["Instances"]), int(told["Total Time (ns)"]))


# --- where we differ on purpose -------------------------------------------------------------------------------


def test_same_name_nesting_is_not_counted_twice_as_nsys_does(attribute: Attribute) -> None:
    """nvtx_kern_sum counts a kernel once per enclosing range, so a name that nests in itself gets its time twice."""
    built = TraceBuilder().range("block", 0, 100).range("block", 10, 90).launch(20, 21, ("k", 200, 230))
    (row,) = range_kernel_rows(attribute(built))
    assert (row.kernel_instances, row.total_ns, row.range_instances) == (1, 30, 1)
    (projection,) = projection_rows(attribute(built))
    assert (projection.range_instances, projection.projected_ns, projection.host_ns) == (1, 30, 100)


def test_overlapping_start_end_ranges_of_one_name_are_not_counted_twice_as_nsys_does(attribute: Attribute) -> None:
    built = TraceBuilder().range("a", 0, 60, style=START_END).range("a", 30, 100, style=START_END)
    built.launch(40, 41, ("k", 200, 230))
    (row,) = range_kernel_rows(attribute(built))
    assert (row.style, row.kernel_instances, row.total_ns) == ("StartEnd", 1, 30)


def test_graph_launch_counts_as_its_kernels_not_as_the_one_operation_of_nsys(attribute: Attribute) -> None:
    kernels = [(f"node {number}", 50 + 10 * number, 55 + 10 * number) for number in range(5)]
    built = TraceBuilder().range("decode", 0, 40, domain="dsocr")
    built.launch(10, 20, kernels=kernels, name="cudaGraphLaunch_v10000")
    (projection,) = projection_rows(attribute(built))
    assert (projection.operations, projection.projected_ns) == (5, 45)
    assert len(range_kernel_rows(attribute(built))) == 5


def test_domain_created_by_two_threads_does_not_crash_as_nsys_does(attribute: Attribute) -> None:
    built = TraceBuilder().create_domain("mine").thread(1, 2).create_domain("mine", again=True)
    for tid in (1, 2):
        built.thread(1, tid).range("work", 0, 100, domain="mine").launch(10, 11, ("k", 50 + tid, 60 + tid))
    rows = range_kernel_rows(attribute(built))
    assert [(row.range_name, row.pid, row.tid, row.kernel_instances) for row in rows] == [
        ("mine:work", 1, 1, 1),
        ("mine:work", 1, 2, 1),
    ]
    (projection,) = projection_rows(attribute(built))
    assert projection.range_instances == 2


def test_a_trace_without_ranges_has_no_rows(attribute: Attribute) -> None:
    attribution = attribute(TraceBuilder().launch(10, 11, ("k", 50, 60)))
    assert range_kernel_rows(attribution) == ()
    assert projection_rows(attribution) == ()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_statistics_of_few_values(attribute: Attribute, count: int) -> None:
    built = TraceBuilder().range("r", 0, 1000)
    durations = [10, 20, 40, 80][:count]
    for index, duration in enumerate(durations):
        built.launch(10 * index + 1, 10 * index + 2, ("k", 2000 + 100 * index, 2000 + 100 * index + duration))
    (row,) = range_kernel_rows(attribute(built))
    assert row.median_ns == {1: 10, 2: 15, 3: 20, 4: 30}[count]
    assert row.std_ns == (None if count == 1 else pytest.approx({2: 7.0710678, 3: 15.275252, 4: 30.956959}[count]))
