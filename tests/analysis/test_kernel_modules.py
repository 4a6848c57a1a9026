"""Which module launches which kernel: against a count launch by launch, and in every output."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

import analysis
from analysis.attribution.attribution import Attribution
from analysis.cli.app import app
from analysis.domain.annotations import STAGES
from analysis.render import formats
from analysis.render.html import page as html
from analysis.render.terminal import print_report
from analysis.report import Report, assemble
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.kernel_modules import KernelModuleRow, StageUnits, kernel_module_rows, module_patterns, stage_units
from analysis.sums.kernels import kernels_of
from analysis.sums.stages import instance_summaries
from analysis.trace.reader import Trace
from analysis.trace.records import KERNEL
from trace_builder import TraceBuilder

Attribute = Callable[..., Attribution]
RealAttribution = Callable[[str], tuple[Trace, Attribution]]
Key = tuple[str, str, str, Any]


def by_hand(attribution: Attribution, *, fold: bool, shapes: bool) -> dict[Key, list[int]]:
    """(stage, module, kernel, grid and block) → durations, launch by launch in plain Python."""
    operations, ranges = attribution.operations, attribution.ranges
    module = attribution.operation_level("module")
    launches = []
    for row in range(len(operations)):
        if operations.kind[row] != KERNEL:
            continue
        stage = (*STAGES, UNATTRIBUTED)[attribution.operation_stage[row]]
        path = ranges.names[ranges.name[module[row]]] if module[row] >= 0 else UNATTRIBUTED
        code = int(operations.shape[row])
        shape = (operations.shapes.grid(code), operations.shapes.block(code), operations.shapes.registers(code),
                 operations.shapes.shared_bytes(code)) if code >= 0 else None  # fmt: skip
        launches.append((stage, path, operations.names[operations.name[row]], shape, int(operations.duration[row])))
    pattern = {
        stage: module_patterns(one[1] for one in launches if one[0] == stage) for stage in (*STAGES, UNATTRIBUTED)
    }
    found: dict[Key, list[int]] = defaultdict(list)
    for stage, path, name, shape, duration in launches:
        found[stage, pattern[stage][path] if fold else path, name, shape if shapes else None].append(duration)
    return found


def key_of(row: KernelModuleRow, shapes: bool) -> Key:
    shape = (row.grid, row.block, row.registers_per_thread, row.shared_bytes) if row.grid is not None else None
    return row.stage, row.module, row.name, shape if shapes else None


@pytest.mark.parametrize("name", ["deepseek-ocr_h100_small", "tensor-parallel_2xh200_rank0", "llama_h100_cuda-graph"])
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("shapes", [True, False])
def test_rows_are_those_of_a_count_launch_by_launch(
    real_attribution: RealAttribution, name: str, fold: bool, shapes: bool
) -> None:
    trace, attribution = real_attribution(name)
    kernels = kernels_of(trace, attribution).by_name
    units = stage_units(instance_summaries(attribution), "image", "token")
    rows = kernel_module_rows(attribution, kernels, units, fold_layers=fold, by_shape=shapes)
    expected = by_hand(attribution, fold=fold, shapes=shapes)
    found = {key_of(row, shapes): row for row in rows}
    assert len(found) == len(rows)
    assert set(found) == set(expected)
    for key, durations in expected.items():
        row = found[key]
        assert (row.calls, row.total_ns, row.min_ns, row.max_ns) == (
            len(durations), sum(durations), min(durations), max(durations),
        )  # fmt: skip
        assert row.mean_ns == sum(durations) / len(durations)
        if row.stage in units:
            assert row.calls_per_unit == row.calls / units[row.stage].count
            assert row.total_per_unit_ns == row.total_ns / units[row.stage].count
    for stage in {row.stage for row in rows}:
        mine = [row for row in rows if row.stage == stage]
        of_stage = [row for row in kernels if row.stage == stage]
        assert sum(row.calls for row in mine) == sum(row.calls for row in of_stage)
        assert sum(row.total_ns for row in mine) == sum(row.total_ns for row in of_stage)
        assert sum(row.share or 0 for row in mine) == pytest.approx(1)
    assert [row.total_ns for row in rows if row.stage == "decode"] == sorted(
        (row.total_ns for row in rows if row.stage == "decode"), reverse=True
    )


def test_order_is_that_of_the_first_run_in_each_module(real_attribution: RealAttribution) -> None:
    trace, attribution = real_attribution("deepseek-ocr_h100_small")
    rows = kernel_module_rows(
        attribution, kernels_of(trace, attribution).by_name, {}, fold_layers=False, by_shape=False
    )
    operations, ranges, first = attribution.operations, attribution.ranges, dict[tuple[str, str, str], int]()
    module = attribution.operation_level("module")
    for row in range(len(operations)):
        if operations.kind[row] == KERNEL:
            stage = (*STAGES, UNATTRIBUTED)[attribution.operation_stage[row]]
            path = ranges.names[ranges.name[module[row]]] if module[row] >= 0 else UNATTRIBUTED
            key = stage, path, operations.names[operations.name[row]]
            first[key] = min(int(operations.start[row]), first.get(key, int(operations.start[row])))
    for place in {(row.stage, row.module) for row in rows}:
        mine = sorted((row for row in rows if (row.stage, row.module) == place), key=lambda row: row.order or 0)
        assert [row.order for row in mine] == list(range(len(mine)))
        starts = [first[row.stage, row.module, row.name] for row in mine]
        assert starts == sorted(starts)


def test_layers_fold_and_what_is_alone_keeps_its_number() -> None:
    assert module_patterns(["layers.0.mlp", "layers.11.mlp", "conv2", "fc1", "fc2"]) == {
        "layers.0.mlp": "layers.*.mlp",
        "layers.11.mlp": "layers.*.mlp",
        "conv2": "conv2",
        "fc1": "fc*",
        "fc2": "fc*",
    }


def test_paths_shapes_and_units_of_a_row(attribute: Attribute) -> None:
    built = TraceBuilder().range("decode", 0, 1000, domain="dsocr")
    for step in range(2):
        built.range("decode_step", 400 * step, 400 * step + 390, domain="dsocr")
        for layer in range(3):
            start = 400 * step + 100 * layer
            built.range(f"layers.{layer}.mlp", start, start + 90, domain="dsocr.module")
            built.launch(start + 10, start + 20, ("k", start + 30, start + 40))
    attribution = attribute(built)
    units = stage_units(instance_summaries(attribution), "image", "token")
    assert units == {"decode": StageUnits("token", 2)}
    kernels = assembled_kernels(attribution)
    (row,) = kernel_module_rows(attribution, kernels, units)
    assert (row.module, row.paths, row.calls, row.calls_per_unit, row.total_per_unit_ns) == (
        "layers.*.mlp",
        3,
        6,
        3,
        30,
    )
    each = kernel_module_rows(attribution, kernels, units, fold_layers=False)
    assert [(one.module, one.calls, one.paths) for one in each] == [(f"layers.{n}.mlp", 2, 1) for n in range(3)]


def assembled_kernels(attribution: Attribution) -> Any:
    from analysis.sums.kernel_classes import load_rules
    from analysis.sums.kernels import kernel_tables

    return kernel_tables(attribution, None, load_rules()).by_name


def test_a_trace_without_kernels_has_no_rows(attribute: Attribute) -> None:
    attribution = attribute(TraceBuilder().range("decode", 0, 10, domain="dsocr"))
    assert kernel_module_rows(attribution, (), {}) == ()


# --- every output ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(real_attribution: RealAttribution) -> Report:
    trace, attribution = real_attribution("deepseek-ocr_h100_small")
    return assemble(trace, attribution, None)


def test_the_table_is_in_every_output(report: Report, tmp_path: Path) -> None:
    formats.render_all(report, tmp_path, tuple(formats.FORMATS))
    first = next(row for row in report.kernel_modules if row.stage == "decode")
    with (tmp_path / "kernel_modules.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(report.kernel_modules) == pq.read_table(tmp_path / "kernel_modules.parquet").num_rows
    assert sum(int(row["total_ns"]) for row in rows) == sum(row.total_ns for row in report.kernels)
    detail = json.loads((tmp_path / "report.json").read_text())["detail"]["kernel_modules"]
    assert sum(row["calls"] for row in detail) == report.capture.kernels
    markdown = (tmp_path / "report.md").read_text()
    table = markdown.split("### Kernels by module, decode")[1].split("###")[0]
    assert f"`{first.module}`" in table
    assert f"{first.total_ns / 1e6:,.6f}" in table
    console = Console(file=io.StringIO(), width=140)
    print_report(report, console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Kernels by module, decode" in printed
    page = html.page(report)
    assert 'id="kernel_modules_decode"' in page
    assert 'data-filters="kernel_modules_decode"' in page


def test_python_and_the_command_give_the_same_rows(real_trace: Callable[[str], Path]) -> None:
    path = real_trace("tensor-parallel_2xh200_rank0")
    profile = analysis.load(path)
    frame = profile.kernel_modules("decode")
    assert frame.total_ns.sum() == profile.kernels("decode").total_ns.sum()
    assert len(profile.kernel_modules("decode", by_shape=False)) < len(frame)
    assert len(profile.kernel_modules("decode", fold_layers=False)) >= len(frame)
    command = ["table", str(path), "--by", "kernel-module", "--stage", "decode", "--format", "csv"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    rows = list(csv.DictReader(io.StringIO(ran.stdout)))
    assert [int(row["total_ns"]) for row in rows] == frame.total_ns.tolist()
    by_name = CliRunner().invoke(app, [*command, "--names", "--layers"])
    assert len(list(csv.DictReader(io.StringIO(by_name.stdout)))) == len(
        profile.kernel_modules("decode", by_shape=False, fold_layers=False)
    )
    refused = CliRunner().invoke(app, ["table", str(path), "--by", "kernel", "--layers"])
    assert refused.exit_code != 0
    assert str(refused.exception) == "--layers goes with --by kernel-module only"
