import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from analysis.attribution.attribution import Attribution
from analysis.domain.errors import CaptureError
from analysis.sums.tables import gpu_table
from analysis.trace.reader import Trace
from runner.collectors.interface.trace_file import check_trace
from runner.collectors.torch_profiler.events import (
    DeviceOperation,
    Operator,
    SortedEvents,
    derived_activity_type,
    sort_events,
    working_stretches,
)
from runner.collectors.torch_profiler.recording import MemorySink, TorchCapture
from runner.collectors.torch_profiler.trace import COLLECTOR_KEY, TABLES, CaptureRows, RangeRecord, _short_name


def tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.Flatten(),
        torch.nn.Linear(144, 32),
        torch.nn.LayerNorm(32),
        torch.nn.GELU(),
        torch.nn.Linear(32, 8, bias=False),
    ).eval()


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(sql).fetchall()


STEPS = 5


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("capture") / "trace.sqlite"
    model: Any = tiny()
    image, sink = torch.ones(1, 3, 8, 8), MemorySink()
    with torch.no_grad():
        model(image)
        with TorchCapture(path, "cpu", sink):
            sink.mark("dsocr.meta", "dsocr-manifest {}")
            for step in range(STEPS):
                sink.push("dsocr", "decode_step", step)
                hidden = image
                for index, layer in enumerate(model):
                    sink.push("dsocr.module", f"layers.{index}")
                    hidden = layer(hidden)
                    sink.pop("dsocr.module")
                sink.pop("dsocr")
            torch.ones(7).cumsum(0)  # in no range
    return path


KERNELS_WITH_CALL_AND_RANGE = """
    SELECT k.rowid, s.value, k."end" - k.start, n.domainId, t.value, n.int64Value
    FROM CUPTI_ACTIVITY_KIND_KERNEL k
    JOIN StringIds s ON s.id = k.demangledName
    JOIN CUPTI_ACTIVITY_KIND_RUNTIME c
        ON c.correlationId = k.correlationId AND (c.globalTid & ~0xFFFFFF) = k.globalPid
    LEFT JOIN NVTX_EVENTS n
        ON n.eventType = 59 AND n.globalTid = c.globalTid AND n.start <= c.start AND n."end" >= c."end"
    LEFT JOIN StringIds t ON t.id = n.textId
"""


def test_every_operator_of_a_range_is_inside_it(captured: Path) -> None:
    domains = dict(query(captured, "SELECT text, domainId FROM NVTX_EVENTS WHERE eventType = 75"))
    rows = query(captured, KERNELS_WITH_CALL_AND_RANGE)
    kernels = query(captured, "SELECT count(*) FROM CUPTI_ACTIVITY_KIND_KERNEL")[0][0]
    outside = {row[0] for row in rows if row[3] is None}
    per_domain = {domain: [row for row in rows if row[3] == domains[domain]] for domain in ("dsocr", "dsocr.module")}
    # Each kernel is in exactly one range of each domain, but for those that the body ran after its last range.
    for found in per_domain.values():
        assert len({row[0] for row in found}) == len(found) == kernels - len(outside)
    names_outside = {row[1] for row in rows if row[3] is None}
    assert "aten::cumsum" in names_outside
    assert not names_outside & {"aten::addmm", "aten::mm", "aten::native_layer_norm", "aten::gelu"}
    by_step = [sorted(row[1] for row in per_domain["dsocr"] if row[5] == step) for step in range(STEPS)]
    assert all(names == by_step[0] for names in by_step)
    assert by_step[0].count("aten::addmm") == by_step[0].count("aten::mm") == 1


def test_no_warning_of_clocks_that_differ(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink, model = MemorySink(), tiny()
    with torch.no_grad(), TorchCapture(tmp_path / "t.sqlite", "cpu", sink):
        for _ in range(200):
            sink.push("dsocr", "decode_step")
            model(torch.ones(1, 3, 8, 8))
            sink.pop("dsocr")
    assert caplog.messages == []


def test_clocks_that_differ_are_told(caplog: pytest.LogCaptureFixture) -> None:
    events = SortedEvents([Operator("aten::mm", "", 100, 200, 1, 1)], shadows={0: (150, 300, 1)})
    list(CaptureRows(0, events, {0: RangeRecord("d", "n", 1, 2, None, 1)}, (), on_cuda=False).tables())
    assert "1 of 1 calls cross" in caplog.text


def test_intervals_of_a_thread_do_not_overlap_and_sums_are_exact(captured: Path) -> None:
    rows = query(captured, 'SELECT start, "end" FROM CUPTI_ACTIVITY_KIND_KERNEL ORDER BY start')
    assert all(start <= end for start, end in rows)
    assert all(end <= start for (_, end), (start, _) in pairwise(rows))
    total = sum(end - start for start, end in rows)
    (duration,) = query(captured, "SELECT duration FROM ANALYSIS_DETAILS")[0]
    assert 0 < total <= duration
    calls = query(captured, "SELECT count(*), count(DISTINCT correlationId) FROM CUPTI_ACTIVITY_KIND_RUNTIME")
    assert calls == [(len(rows), len(rows))]


def test_kernel_rows_are_the_leaves_and_the_operators_with_a_kernel_of_their_own(tmp_path: Path) -> None:
    model, image = tiny(), torch.ones(1, 3, 8, 8)
    with torch.no_grad():
        model(image)
        config = torch._C._profiler._ExperimentalConfig(capture_overload_names=True)
        cpu_only = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=cpu_only, experimental_config=config) as reference:
            model(image)
    # PyTorch's own tree of events, made from other data than the intervals that the collector looks at.
    leaves: list[str] = []
    parents: list[str] = []
    pending = list(reference.profiler.kineto_results.experimental_event_tree())
    while pending:
        event = pending.pop()
        (parents if event.children else leaves).append(event.name)
        pending.extend(event.children)
    found = working_stretches(sort_events(reference.profiler.kineto_results.events()).operators)
    own = {"aten::addmm", "aten::mm", "aten::native_layer_norm"}
    convolution = {"aten::mkldnn_convolution", "aten::_slow_conv2d_forward"}
    names = [operator.name for operator, _, _ in found]
    assert all(names.count(name) >= leaves.count(name) for name in leaves)
    extra = list(names)
    for name in leaves:
        extra.remove(name)
    assert own <= set(extra)
    assert convolution & set(extra)
    assert set(extra) <= own | convolution
    assert not set(extra) - set(parents)


def test_an_operator_with_children_stands_with_its_longest_own_stretch() -> None:
    mm = Operator("aten::mm", "", 0, 100, 1, 1)
    inside = [Operator("aten::resolve_conj", "", 10, 12, 1, 2), Operator("aten::resolve_conj", "", 15, 18, 1, 3)]
    other_thread = Operator("aten::relu", "", 20, 30, 2, 4)
    found = {operator.correlation_id: span for operator, *span in working_stretches([other_thread, *inside, mm])}
    assert found == {1: [18, 100], 2: [10, 12], 3: [15, 18], 4: [20, 30]}


def test_an_operator_that_only_calls_others_is_no_kernel() -> None:
    linear = Operator("aten::linear", "", 0, 100, 1, 1)
    inside = [Operator("aten::t", "", 5, 9, 1, 2), Operator("aten::addmm", "", 20, 90, 1, 3)]
    assert {operator.name for operator, *_ in working_stretches([linear, *inside])} == {"aten::t", "aten::addmm"}


def test_the_analysis_attributes_every_operator(captured: Path) -> None:
    with Trace(captured) as trace:
        attribution = Attribution.of(trace)
        by_module = {row["name"]: row for row in gpu_table(attribution, "module").rows()}
        by_range = {row["name"]: row for row in gpu_table(attribution, "range").rows()}
    rows = query(captured, KERNELS_WITH_CALL_AND_RANGE)
    domains = dict(query(captured, "SELECT text, domainId FROM NVTX_EVENTS WHERE eventType = 75"))
    for layer in range(6):
        spans = [row[2] for row in rows if (row[3], row[4]) == (domains["dsocr.module"], f"layers.{layer}")]
        found = by_module[f"layers.{layer}"]
        assert (found["kernels"], found["kernel_sum_ns"]) == (len(spans), sum(spans))
        assert found["busy_ns"] == found["kernel_sum_ns"]
    [(kernels, total)] = query(captured, 'SELECT count(*), sum("end" - start) FROM CUPTI_ACTIVITY_KIND_KERNEL')
    assert sum(row["kernels"] for row in by_module.values()) == kernels
    assert sum(row["kernel_sum_ns"] for row in by_module.values()) == total
    steps = [row for row in rows if row[3] == domains["dsocr"]]
    assert by_range["dsocr:decode_step"]["kernels"] == len(steps)


def test_written_tables_have_the_columns_and_types_of_a_real_export(
    captured: Path, tmp_path: Path, real_trace: Callable[[str], Path]
) -> None:
    real = real_trace("deepseek-ocr_h100_gpu-metrics")
    written = {name for (name,) in query(captured, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS", "StringIds"} <= written
    sample = tmp_path / "all.sqlite"
    with closing(sqlite3.connect(sample)) as database:
        for table, columns in TABLES.items():
            database.execute(f'CREATE TABLE "{table}" ({columns})')
    for table in TABLES:
        ours, theirs = (
            [(name, kind) for _, name, kind, *_ in query(path, f'PRAGMA table_info("{table}")')]
            for path in (sample, real)
        )
        assert ours == theirs, table
        if table in written:
            assert ours == [(row[1], row[2]) for row in query(captured, f'PRAGMA table_info("{table}")')]


def test_the_file_says_who_wrote_it(captured: Path) -> None:
    export = dict(query(captured, "SELECT name, value FROM META_DATA_EXPORT"))
    capture = dict(query(captured, "SELECT name, value FROM META_DATA_CAPTURE"))
    assert export["EXPORT_PRODUCT_NAME"] == "dsocr-profiler torch collector"
    assert capture[COLLECTOR_KEY] == "torch-cpu"
    assert capture["DSOCR_TORCH_VERSION"] == torch.__version__
    [(name, device)] = query(
        captured, "SELECT name, cudaId FROM TARGET_INFO_GPU JOIN TARGET_INFO_CUDA_DEVICE ON gpuId = id"
    )
    assert name.startswith("CPU (")
    assert {device} == {row[0] for row in query(captured, "SELECT deviceId FROM CUPTI_ACTIVITY_KIND_KERNEL")}


def test_marks_payloads_and_ids(captured: Path) -> None:
    assert query(captured, "SELECT text FROM NVTX_EVENTS WHERE eventType = 34") == [("dsocr-manifest {}",)]
    steps = query(captured, "SELECT int64Value FROM NVTX_EVENTS WHERE int64Value IS NOT NULL ORDER BY start")
    assert steps == [(step,) for step in range(STEPS)]
    [(global_pid, pid)] = query(captured, "SELECT globalPid, pid FROM PROCESSES")
    assert global_pid == (1 << 48) | pid << 24
    for table in ("NVTX_EVENTS", "CUPTI_ACTIVITY_KIND_RUNTIME"):
        threads = query(captured, f"SELECT DISTINCT globalTid & ~0xFFFFFF, globalTid & 0xFFFFFF FROM {table}")
        assert threads == [(global_pid, threading.get_native_id())]


def test_ranges_from_before_are_left_out_and_open_ones_have_no_end(tmp_path: Path) -> None:
    sink = MemorySink()
    sink.push("dsocr", "warm-up")
    sink.pop("dsocr")
    path = tmp_path / "t.sqlite"
    with TorchCapture(path, "cpu", sink):
        sink.push("dsocr", "image[0]")
        torch.ones(3) + 1
    ranges = query(path, 'SELECT value, "end" FROM NVTX_EVENTS JOIN StringIds ON id = textId WHERE eventType = 59')
    assert ranges == [("image[0]", None)]
    sink.pop("dsocr")
    assert sink.records[-1].end_ns is not None


def test_a_body_that_fails_leaves_what_was_recorded_until_then(tmp_path: Path) -> None:
    def fails() -> None:
        torch.ones(3) + 1
        raise KeyError("the model")

    with pytest.raises(KeyError), TorchCapture(tmp_path / "t.sqlite", "cpu", MemorySink()):
        fails()
    assert check_trace(tmp_path / "t.sqlite")["CUPTI_ACTIVITY_KIND_KERNEL"] > 0
    with TorchCapture(tmp_path / "t.sqlite", "cpu", MemorySink()):
        torch.ones(3) + 1
    assert [one.name for one in tmp_path.iterdir()] == ["t.sqlite"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(CaptureError, match=r"t\.sqlite: cannot be written \(.*(Not a directory|File exists)"),
        TorchCapture(tmp_path / "file" / "t.sqlite", "cpu", MemorySink()),
    ):
        torch.ones(3) + 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for CUDA where there is none")
def test_cuda_where_there_is_none_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(CaptureError, match="torch sees no CUDA device"),
        TorchCapture(tmp_path / "t.sqlite", "cuda:0", MemorySink()),
    ):
        pass


def test_pop_without_push_is_refused() -> None:
    sink = MemorySink()
    sink.push("a", "x")
    with pytest.raises(ValueError, match="no open range in domain 'b'"):
        sink.pop("b")


class KinetoEvent:
    """An event as Kineto gives it on CUDA: this needs no GPU to test how one becomes a row. Kind None: not told."""

    def __init__(self, kind: str | None, name: str, correlation: int, **more: Any) -> None:
        self._values: dict[str, Any] = {"name": name, "correlation_id": correlation, "overload_name": ""}
        self._values |= {} if kind is None else {"activity_type": kind}
        self._values |= {"start_ns": 1000, "end_ns": 1500, "device_index": 0, "device_resource_id": 7}
        self._values |= {"metadata_json": ""} | more

    def __getattr__(self, name: str) -> Any:
        if name not in self._values:
            raise AttributeError(name)
        value = self._values[name]
        return lambda: value


def test_rows_of_gpu_operations() -> None:
    kernel = KinetoEvent(
        "kernel",
        "void at::native::(anonymous namespace)::copy<int>(int*)",
        5,
        metadata_json='"device": 0, "context": 1, "stream": 7, "registers per thread": 32, "grid": [4, 2, 1], '
        '"block": [128, 1, 1], "shared memory": 4096',
    )
    copy = KinetoEvent("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 6, metadata_json='"bytes": 64, "context": 1')
    fill = KinetoEvent("gpu_memset", "Memset (Device)", 7)
    call = KinetoEvent("cuda_runtime", "cudaLaunchKernel", 5, device_resource_id=99, start_ns=900, end_ns=950)
    events = sort_events([kernel, copy, fill, call])
    assert isinstance(events.device_operations[0], DeviceOperation)
    rows = CaptureRows(500, events, {}, (), on_cuda=True)
    written: dict[str, list[dict[str, Any]]] = {}
    for table, columns, content in rows.tables():
        if table == "TARGET_INFO_CUDA_DEVICE" or not table.startswith("TARGET_INFO_GPU"):
            written[table] = [dict(zip(columns, row, strict=True)) for row in content]
    strings = {row["id"]: row["value"] for row in written["StringIds"]}
    [one] = written["CUPTI_ACTIVITY_KIND_KERNEL"]
    assert (one["start"], one["end"], one["correlationId"], one["streamId"], one["contextId"]) == (500, 1000, 5, 7, 1)
    assert (one["gridX"], one["gridY"], one["blockX"], one["registersPerThread"]) == (4, 2, 128, 32)
    assert one["staticSharedMemory"] + one["dynamicSharedMemory"] == 4096
    assert strings[one["shortName"]] == "copy"
    assert _short_name("_ZN7cutlass13device_kernelIN2at4cuda6detailEEEvT_") == "device_kernel"
    assert _short_name("_Z6kernelPf") == "_Z6kernelPf"
    [one] = written["CUPTI_ACTIVITY_KIND_MEMCPY"]
    assert (one["bytes"], one["copyKind"], one["srcKind"], one["dstKind"]) == (64, 1, 1, 2)
    [one] = written["CUPTI_ACTIVITY_KIND_MEMSET"]
    assert one["bytes"] is None
    [one] = written["CUPTI_ACTIVITY_KIND_RUNTIME"]
    assert (one["start"], one["correlationId"], one["globalTid"] & 0xFFFFFF, one["eventClass"]) == (400, 5, 99, 0)


def test_an_events_kind_is_found_where_torch_does_not_tell_it() -> None:
    profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
    with profile as profiler, torch.profiler.record_function("a scope"):
        tiny()(torch.ones(1, 3, 8, 8))
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    derived = {event.name(): derived_activity_type(event) for event in events}
    assert derived.pop("a scope") == "user_annotation"
    assert set(derived.values()) == {"cpu_op"}
    if hasattr(events[0], "activity_type"):
        assert all(derived_activity_type(event) == event.activity_type() for event in events)


def test_kinds_of_events_on_cuda_that_torch_does_not_tell() -> None:
    def event(name: str, place: str, metadata: str = "", *, scope: bool = False, thread: int = 0) -> KinetoEvent:
        more = {"device_type": SimpleNamespace(name=place), "is_user_annotation": scope, "start_thread_id": thread}
        return KinetoEvent(None, name, 1, metadata_json=metadata, **more)

    events = {
        "user_annotation": event("dsocr-range 0", "CPU", scope=True, thread=1),
        "gpu_user_annotation": event("dsocr-range 0", "CUDA", scope=True),
        "cpu_op": event("aten::mm", "CPU", '"Ev Idx": 4', thread=1),
        "cuda_runtime": event("cudaLaunchKernel", "CPU", '"cbid": 211, "correlation": 1'),
        "cuda_driver": event("cuLaunchKernelEx", "CPU", '"cbid": 652, "correlation": 1'),
        "kernel": event("nvjet", "CUDA", '"stream": 7, "grid": [1, 1, 1]'),
        "gpu_memcpy": event("Memcpy HtoD (Pinned -> Device)", "CUDA", '"bytes": 64'),
        "gpu_memset": event("Memset (Device)", "CUDA", '"bytes": 64'),
        "other": event("Activity Buffer Request", "CPU"),
    }
    assert {kind: derived_activity_type(one) for kind, one in events.items()} == {kind: kind for kind in events}
    # A scope is drawn twice, and its bounds on the host are the range's.
    scopes = [events["user_annotation"], events["gpu_user_annotation"]]
    scopes[1]._values["start_ns"] = 1200
    assert sort_events(scopes).shadows == {0: (1000, 1500, 7)}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_capture_on_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "trace.sqlite"
    model, sink = tiny().cuda(), MemorySink()
    on_host = torch.ones(1, 3, 8, 8)
    with torch.no_grad():
        model(on_host.cuda())
        with TorchCapture(path, "cuda:0", sink):
            for step in range(STEPS):
                sink.push("dsocr", "decode_step", step)
                model(on_host.cuda()).argmax().item()
                sink.pop("dsocr")
    kernels = query(path, "SELECT gridX, blockX, registersPerThread FROM CUPTI_ACTIVITY_KIND_KERNEL")
    assert len(kernels) >= 5 * STEPS
    assert all(grid >= 1 and block >= 1 and registers >= 1 for grid, block, registers in kernels)
    copies = query(path, "SELECT copyKind, bytes FROM CUPTI_ACTIVITY_KIND_MEMCPY")
    assert sorted(copies) == [(1, on_host.nbytes)] * STEPS + [(2, 8)] * STEPS
    calls = {name for (name,) in query(path, "SELECT value FROM StringIds WHERE value LIKE 'cuda%'")}
    assert {"cudaLaunchKernel", "cudaStreamSynchronize"} <= calls
    with Trace(path) as trace:
        [step_row] = [
            row for row in gpu_table(Attribution.of(trace), "range").rows() if row["name"] == "dsocr:decode_step"
        ]
    assert step_row["kernels"] == len(kernels)
