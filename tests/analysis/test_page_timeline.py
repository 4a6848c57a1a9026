"""What the page's timeline and icicle are made from, read back as the page's script reads it."""

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import evolve, fields
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.render.formats import write_report
from analysis.render.html import page as html
from analysis.render.html import timeline
from analysis.render.html.icicle import ModuleCost, module_costs, plain_modules, reported_costs
from analysis.render.html.page_data import MAX_MODULES, cut
from analysis.render.html.timeline import packed_timeline
from analysis.render.html.trace_parts import TraceParts
from analysis.render.spec.gpu_time import all_operations_ns
from analysis.report import Report, assemble
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.host_calls import HostCalls
from analysis.trace.reader import Trace
from report_builder import plain_report
from trace_builder import TraceBuilder

Columns = dict[str, dict[str, NDArray[np.int64]]]


def unpacked(text: str) -> tuple[dict[str, Any], Columns]:
    """Head and columns of a packed timeline."""
    raw = zlib.decompress(base64.b64decode(text))
    size = int.from_bytes(raw[:4], "little")
    head = json.loads(raw[4 : 4 + size])
    at = 4 + size
    columns: Columns = {}
    for about in head["columns"]:
        rows, width = about["rows"], about["bytes"]
        planes = np.frombuffer(raw, dtype=np.uint8, count=rows * width, offset=at).reshape(width, rows)
        at += rows * width
        values = sum(
            (planes[place].astype(np.int64) << (8 * place) for place in range(width)), np.zeros(rows, np.int64)
        )
        if about["signed"]:
            values = np.where(values % 2, -(values + 1) // 2, values // 2)
        if about["sums"]:
            for track in head["tracks"]:
                if track["table"] == about["table"]:
                    part = slice(track["from"], track["to"])
                    values[part] = np.cumsum(values[part])
        columns.setdefault(about["table"], {})[about["name"]] = values
    assert at == len(raw)
    return head, columns


@pytest.fixture(
    params=[
        "deepseek-ocr_h100_small",
        "deepseek-ocr_h200_cuda-graph",
        "tensor-parallel_2xh200_rank0",
        "vllm_h100_moe-eager",
    ]
)
def real(request: Any, real_attribution: Callable[[str], tuple[Trace, Attribution]]) -> tuple[Attribution, Report]:
    trace, attribution = real_attribution(request.param)
    return attribution, assemble(trace, attribution, None)


def test_every_operation_is_there_with_its_time_name_module_and_launch(real: tuple[Attribution, Report]) -> None:
    attribution, report = real
    head, columns = unpacked(packed_timeline(attribution, report.kernels))
    operations, drawn = attribution.operations, columns["operations"]
    assert head["notes"] == {} or set(head["notes"]) == {"ranges"}
    order = np.lexsort((operations.start, operations.stream, operations.device, operations.process))
    first = min(
        int(each.min())
        for each in (operations.start, attribution.calls.start, attribution.other_calls.start, attribution.ranges.start)
        if each.size
    )
    assert (drawn["start"] == operations.start[order] - first).all()
    assert (drawn["duration"] == operations.duration[order]).all()
    names = [cut(operations.names[code]) for code in operations.name[order].tolist()]
    assert [head["kernels"]["names"][code] for code in drawn["name"].tolist()] == names
    place = attribution.operation_level("module")[order].tolist()
    of_range, paths = attribution.module_names
    modules = [paths[of_range[row]] if row >= 0 else "" for row in place]
    assert [head["modules"][code] for code in drawn["module"].tolist()] == modules
    assert (drawn["stage"] == attribution.operation_stage[order]).all()
    launch = attribution.launch_call[order]
    known = launch >= 0
    assert ((drawn["call"] > 0) == known).all()
    # The row of a call is found again by its start: calls are packed by thread, then start, as they are.
    assert (columns["calls"]["start"][drawn["call"][known] - 1] == attribution.calls.start[launch[known]] - first).all()
    grids = [operations.shapes.grid(code) if code >= 0 else None for code in operations.shape[order].tolist()]
    shown = [head["shapes"][code] for code in drawn["shape"].tolist()]
    assert [None if shape is None or shape[0] is None else tuple(shape[0]) for shape in shown] == grids


def test_categories_are_those_of_the_kernel_table(real: tuple[Attribution, Report]) -> None:
    attribution, report = real
    head, _ = unpacked(packed_timeline(attribution, report.kernels))
    kernels = head["kernels"]
    found = {
        name: kernels["categories"][code] for name, code in zip(kernels["names"], kernels["category"], strict=True)
    }
    for row in report.kernels:
        assert found[cut(row.name)] == row.category


def test_ranges_nest_in_their_tracks(real: tuple[Attribution, Report]) -> None:
    attribution, report = real
    head, columns = unpacked(packed_timeline(attribution, report.kernels))
    tracks = [track for track in head["tracks"] if track["table"] == "ranges"]
    expected = {level: int(attribution.is_level(level).sum()) for level in ("image", "stage")}
    expected["step"] = int((attribution.is_level("step") & ~attribution.is_level("stage")).sum())
    by_kind = {
        kind: sum(t["to"] - t["from"] for t in tracks if t["kind"] == kind) for kind in ("image", "stage", "step")
    }
    for level in ("image", "stage", "step"):
        assert by_kind[level] == expected[level]
    for track in tracks:
        start = columns["ranges"]["start"][track["from"] : track["to"]]
        end = start + columns["ranges"]["duration"][track["from"] : track["to"]]
        if track["kind"] != "other":
            assert (start[1:] >= end[:-1]).all(), track


def test_calls_are_of_the_kinds_that_the_idle_time_is_divided_by(real: tuple[Attribution, Report]) -> None:
    attribution, report = real
    head, columns = unpacked(packed_timeline(attribution, report.kernels))
    kinds = np.bincount(columns["calls"]["kind"], minlength=len(head["kinds"]))
    found = dict(zip(head["kinds"], kinds.tolist(), strict=True))
    expected = HostCalls(attribution).kind
    assert found == {name: int((expected == kind).sum()) for kind, name in timeline._CALL_KINDS.items()}


def test_what_is_too_much_is_folded_and_adds_up(
    real: tuple[Attribution, Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    attribution, report = real
    monkeypatch.setattr(timeline, "MAX_ROWS", 500)
    monkeypatch.setattr(timeline, "FOLDED_ROWS", 300)
    monkeypatch.setattr(timeline, "MAX_RANGES", 100)
    head, columns = unpacked(packed_timeline(attribution, report.kernels))
    operations, drawn = attribution.operations, columns["operations"]
    assert head["notes"]["operations"]["rows"] == len(operations) == drawn["count"].sum()
    assert head["notes"]["operations"]["blocks"] == drawn["start"].size <= 300
    assert drawn["busy"].sum() == operations.duration.sum()
    assert (drawn["busy"] <= drawn["duration"]).all() or len(set(operations.stream.tolist())) > 1
    assert columns["calls"]["count"].sum() == len(attribution.calls)
    assert columns["ranges"]["start"].size <= 100
    assert head["notes"]["ranges"]["shown"] == columns["ranges"]["start"].size
    by_stage = np.zeros(len(head["stages"]), dtype=np.int64)
    np.add.at(by_stage, drawn["stage"], drawn["count"])
    assert (by_stage == np.bincount(attribution.operation_stage, minlength=len(head["stages"]))).all()
    assert drawn["call"].max() <= columns["calls"]["start"].size


def test_folded_blocks_keep_long_idle_time_and_modules_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MAX_ROWS", 3)
    built = TraceBuilder().range("decode", 0, 900_000, domain="dsocr")
    built = built.range("a", 0, 20, domain="dsocr.module").range("b", 21, 900_000, domain="dsocr.module")
    for place, start in enumerate((100, 200, 300, 400, 500_000)):
        built = built.launch(10 * place + 5, 10 * place + 6, (f"kernel_{place}", start, start + 50))
    path = built.write(tmp_path / "t.sqlite")
    with Trace(path) as trace:
        head, columns = unpacked(packed_timeline(Attribution.of(trace), ()))
    drawn = columns["operations"]
    modules = [head["modules"][code] for code in drawn["module"].tolist()]
    assert list(zip(modules, drawn["count"].tolist(), strict=True)) == [("a", 2), ("b", 2), ("b", 1)]
    assert drawn["duration"].tolist() == [150, 150, 50]
    assert drawn["busy"].tolist() == [100, 100, 50]


def test_a_trace_without_operations_and_ranges_has_no_timeline(tmp_path: Path) -> None:
    with Trace(TraceBuilder().write(tmp_path / "t.sqlite")) as trace:
        assert packed_timeline(Attribution.of(trace), ()) == ""


def test_module_costs_add_up_to_the_tables(real: tuple[Attribution, Report]) -> None:
    attribution, report = real
    costs = module_costs(attribution)
    assert bool(costs) == bool(attribution.is_level("module").any())
    if not costs:
        return
    for stage in attribution.stages:
        found = {cost.module: (cost.gpu_ns, cost.kernels) for cost in costs if cost.stage == stage if cost.gpu_ns}
        rows = {row.name: (all_operations_ns(row), row.kernels) for row in report.module_rows[stage]}
        assert found == {name: row for name, row in rows.items() if row[0]}
    whole: dict[str, int] = {}
    for cost in costs:
        whole[cost.module] = whole.get(cost.module, 0) + cost.gpu_ns
    assert {name: ns for name, ns in whole.items() if ns} == {
        row.name: all_operations_ns(row) for row in report.module_rows["all"] if all_operations_ns(row)
    }
    assert sum(cost.launches or 0 for cost in costs) == int(HostCalls(attribution).launches.sum())


def test_host_time_of_a_module_is_without_its_parts(tmp_path: Path) -> None:
    built = TraceBuilder().range("decode", 0, 1000, domain="dsocr")
    built = built.range("layers.0", 100, 500, domain="dsocr.module").range(
        "layers.0.mlp", 200, 300, domain="dsocr.module"
    )
    path = built.launch(210, 215, ("gemm", 600, 650)).launch(400, 405, ("add", 660, 670)).write(tmp_path / "t.sqlite")
    with Trace(path) as trace:
        found = {(cost.stage, cost.module): cost for cost in module_costs(Attribution.of(trace))}
    assert found["decode", "layers.0"] == ModuleCost("decode", "layers.0", 10, 1, 300, 1, 0)
    assert found["decode", "layers.0.mlp"] == ModuleCost("decode", "layers.0.mlp", 50, 1, 100, 1, 0)


def test_without_the_trace_the_icicle_has_gpu_time_alone(real: tuple[Attribution, Report]) -> None:
    _, report = real
    costs = reported_costs(report)
    whole = {row.name: all_operations_ns(row) for row in report.module_rows["all"]}
    found: dict[str, int] = {}
    for cost in costs:
        assert cost.host_ns is None
        found[cost.module] = found.get(cost.module, 0) + cost.gpu_ns
    assert {name: ns for name, ns in found.items() if ns} == {name: ns for name, ns in whole.items() if ns}


def test_the_smallest_modules_are_one() -> None:
    costs = [ModuleCost("decode", f"m{place}", place + 1, 1, None, 2, 0) for place in range(MAX_MODULES + 10)]
    plain = plain_modules([*costs, ModuleCost("decode", UNATTRIBUTED, 7, 1, None, 0, 0)])
    assert plain is not None
    assert len(plain["rows"]) == MAX_MODULES + 1
    assert plain["paths"][plain["rows"][-1][1]] == "(11 smaller modules)"
    assert sum(row[2] for row in plain["rows"]) == sum(cost.gpu_ns for cost in costs) + 7
    assert sum(row[4] for row in plain["rows"]) == 2 * len(costs)
    assert plain["rows"][-1][3] is None
    assert plain_modules([costs[0]]) is not None
    assert plain_modules([ModuleCost("decode", UNATTRIBUTED, 7, 1, None, 0, 0)]) is None


def test_the_page_offers_perfetto_as_far_as_it_was_written(
    real_attribution: Callable[[str], tuple[Trace, Attribution]], tmp_path: Path
) -> None:
    trace, attribution = real_attribution("deepseek-ocr_h100_small")
    report = assemble(trace, attribution, None)
    written = write_report(report, attribution, tmp_path / "both", ("html", "perfetto"))
    assert [path.name for path in written] == ["report.html", "timeline.pftrace"]
    assert 'href="timeline.pftrace"' in written[0].read_text()
    (alone,) = write_report(report, attribution, tmp_path / "alone", ("html",))
    assert "timeline.pftrace</a>" not in alone.read_text()
    assert f"dsocr-analyze {report.capture.trace_path} --format perfetto" in alone.read_text()


def test_a_page_of_a_report_alone_has_no_timeline() -> None:
    page = html.page(plain_report())
    assert 'id="timeline-data"' not in page
    assert 'id="timeline"' not in page


def test_the_largest_trace_that_is_drawn_whole_makes_a_page_below_five_megabytes(
    real_attribution: Callable[[str], tuple[Trace, Attribution]],
) -> None:
    """As many rows as are not folded, their times drawn at random as widely as real ones vary: nothing repeats."""
    trace, attribution = real_attribution("deepseek-ocr_h100_64tok")
    report = assemble(trace, attribution, None)
    draw = np.random.default_rng(7)

    def repeated(table: Any, rows: int) -> dict[str, Any]:
        """Per-row columns of a table, said again until there are so many rows."""
        columns = {each.name: getattr(table, each.name) for each in fields(type(table))}
        return {
            name: np.resize(values, rows)
            for name, values in columns.items()
            if isinstance(values, np.ndarray) and values.size == len(table)
        }

    def times(table: Any, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        gaps = np.resize(np.diff(table.start, prepend=table.start[0]), rows)
        lengths = table.end - table.start if hasattr(table, "end") else table.duration
        start = np.cumsum(np.maximum(0, gaps + draw.integers(-300, 300, rows)))
        return start, np.maximum(1, np.resize(lengths, rows) + draw.integers(-100, 100, rows))

    rows = timeline.MAX_ROWS
    start, length = times(attribution.operations, rows)
    operations = evolve(
        attribution.operations, **{**repeated(attribution.operations, rows), "start": start, "end": start + length}
    )
    start, length = times(attribution.calls, rows)
    calls = evolve(attribution.calls, **{**repeated(attribution.calls, rows), "start": start, "duration": length})
    start, length = times(attribution.other_calls, rows)
    others = evolve(
        attribution.other_calls, **{**repeated(attribution.other_calls, rows), "start": start, "duration": length}
    )
    large = evolve(
        attribution,
        operations=operations,
        calls=calls,
        other_calls=others,
        launch_call=np.sort(draw.integers(0, rows, rows)).astype(np.int32),
    )
    parts = TraceParts(packed_timeline(large, report.kernels), module_costs(attribution))
    assert unpacked(parts.timeline)[0]["notes"] == {}
    # Ranges beside them: up to MAX_RANGES, each of them at most 10 bytes.
    room = timeline.MAX_RANGES * 10 * 4 // 3
    size = len(html.page(report, parts=parts).encode()) + room
    assert size < 5_000_000, size
