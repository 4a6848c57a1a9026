"""The Perfetto trace, read back with Perfetto's own protobuf classes."""

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from analysis.attribution.attribution import Attribution
from analysis.render.formats import write_report
from analysis.render.perfetto import SHORTEST_IDLE_NS, parallel_tracks, render_trace
from analysis.render.perfetto_packets import begin_template, counter_template, end_template
from analysis.trace.reader import Trace
from report_builder import HOSTILE, plain_report
from trace_builder import TraceBuilder

BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4
Attribute = Callable[..., Attribution]


@frozen
class Slice:
    track: tuple[str, str]
    name: str
    start: int
    end: int
    leaves: tuple[int, ...]
    arrives: tuple[int, ...]


@frozen
class Read:
    slices: list[Slice]
    counters: dict[str, list[tuple[int, float]]]


def read(path: Path) -> Read:
    """Pair begins and ends as Perfetto does: per track, the last that began ends first."""
    trace = pb.Trace()
    trace.ParseFromString(path.read_bytes())
    described = {
        one.track_descriptor.uuid: one.track_descriptor for one in trace.packet if one.HasField("track_descriptor")
    }
    names = {one.iid: one.name for packet in trace.packet for one in packet.interned_data.event_names}

    def path_of(uuid: int) -> tuple[str, str]:
        one = described[uuid]
        return (described[one.parent_uuid].name if one.parent_uuid else "", one.name)

    open_slices: dict[int, list[Any]] = defaultdict(list)
    slices, counters = [], defaultdict(list)
    last = 0
    for packet in trace.packet:
        if not packet.HasField("track_event"):
            continue
        event = packet.track_event
        assert packet.timestamp >= last
        last = packet.timestamp
        if event.type == BEGIN:
            open_slices[event.track_uuid].append(packet)
        elif event.type == COUNTER:
            counters[path_of(event.track_uuid)[1]].append((packet.timestamp, event.double_counter_value))
        else:
            begun = open_slices[event.track_uuid].pop() if event.type == END else packet
            slices.append(
                Slice(path_of(event.track_uuid), names[begun.track_event.name_iid], begun.timestamp, packet.timestamp,
                      tuple(begun.track_event.flow_ids), tuple(begun.track_event.terminating_flow_ids))
            )  # fmt: skip
    assert not any(open_slices.values())
    return Read(slices, counters)


def test_every_operation_and_call_is_there_with_its_times_and_arrow(attribute: Attribute, tmp_path: Path) -> None:
    built = TraceBuilder().range("prefill", 0, 100, domain="dsocr")
    built.launch(10, 20, ("first", 30, 60)).launch(21, 25, ("second", 70, 90))
    shown = read(render_trace(attribute(built), tmp_path)[0])
    kernels = {one.name: one for one in shown.slices if one.track[1].startswith("Stream")}
    calls = sorted((one for one in shown.slices if one.track[1] == "CUDA calls"), key=lambda one: one.start)
    assert {name: (one.start, one.end) for name, one in kernels.items()} == {"first": (30, 60), "second": (70, 90)}
    assert [(one.start, one.end) for one in calls] == [(10, 20), (21, 25)]
    assert [one.leaves for one in calls] == [kernels["first"].arrives, kernels["second"].arrives]
    assert [(one.start, one.end) for one in shown.slices if one.track[1] == "dsocr"] == [(0, 100)]


def test_processes_and_threads_have_their_names_and_ids(attribute: Attribute, tmp_path: Path) -> None:
    built = TraceBuilder()
    for pid, tid, name in ((11, 11, "main"), (11, 12, None), (22, 23, "worker")):
        built.thread(pid, tid).launch(0, 5, (f"k{tid}", 10, 20)).range("step", 0, 9)
        if name:
            built.thread_name(name)
    (path,) = render_trace(attribute(built), tmp_path)
    trace = pb.Trace()
    trace.ParseFromString(path.read_bytes())
    described = [packet.track_descriptor for packet in trace.packet if packet.HasField("track_descriptor")]
    processes = {one.uuid: one for one in described if one.HasField("process")}
    assert sorted((one.process.pid, one.process.process_name) for one in processes.values()) == [
        (11, "python11"), (22, "python22"),
    ]  # fmt: skip
    threads = [one for one in described if one.HasField("thread")]
    assert sorted((one.thread.pid, one.thread.tid, one.thread.thread_name, one.name) for one in threads) == [
        (11, 11, "main", "main (thread 11)"), (11, 12, "", "thread 12"), (22, 23, "worker", "worker (thread 23)"),
    ]  # fmt: skip
    assert all(processes[one.parent_uuid].process.pid == one.thread.pid for one in threads)
    tracks = {one.name: one.track for one in read(path).slices if one.name.startswith("k")}
    assert tracks == {
        "k11": ("GPU 0", "Stream 7, python11 (process 11)"),
        "k12": ("GPU 0", "Stream 7, python11 (process 11)"),
        "k23": ("GPU 0", "Stream 7, python22 (process 22)"),
    }


def test_processes_of_two_machines_with_one_id_stay_apart(attribute: Attribute, tmp_path: Path) -> None:
    built = TraceBuilder()
    for machine in (1, 2):
        built.thread(7, 7, machine).launch(0, 5, (f"k{machine}", 10, 20))
    trace = pb.Trace()
    trace.ParseFromString(render_trace(attribute(built), tmp_path)[0].read_bytes())
    described = [packet.track_descriptor for packet in trace.packet if packet.HasField("track_descriptor")]
    assert not any(one.HasField("process") or one.HasField("thread") for one in described)
    assert [one.name for one in described].count("thread 7") == 2


def test_operations_waiting_to_start_are_counted(attribute: Attribute, tmp_path: Path) -> None:
    built = TraceBuilder().launch(0, 1, ("a", 10, 20)).launch(2, 3, ("b", 20, 30)).launch(4, 5, ("c", 30, 40))
    shown = read(render_trace(attribute(built), tmp_path)[0])
    assert shown.counters["Launched, not started"] == [(10, 2.0), (20, 1.0), (30, 0.0)]


def test_idle_time_is_what_no_operation_covers(attribute: Attribute, tmp_path: Path) -> None:
    long = SHORTEST_IDLE_NS
    built = (
        TraceBuilder().launch(0, 1, ("a", 10, 20)).launch(2, 3, ("b", 30, 40)).launch(4, 5, ("c", 40 + long, 99 + long))
    )
    idle = [one for one in read(render_trace(attribute(built), tmp_path)[0]).slices if one.name == "idle"]
    assert [(one.start, one.end) for one in idle] == [(40, 40 + long)]


def test_hostile_names_are_text(attribute: Attribute, tmp_path: Path) -> None:
    built = TraceBuilder()
    for index, name in enumerate(one for one in HOSTILE if "\udcff" not in one):
        built.launch(10 * index, 10 * index + 5, (name or "x", 10 * index + 6, 10 * index + 9))
    names = {one.name for one in read(render_trace(attribute(built), tmp_path)[0]).slices}
    assert "<script>document.title='owned'</script>" in names
    assert all(name.isprintable() and len(name) <= 1000 for name in names)


@pytest.mark.parametrize("name", ["deepseek-ocr_h100_small", "llama_h100_cuda-graph", "deepseek-ocr_h100_lossy"])
def test_real_traces_are_there_in_full(
    name: str, real_attribution: Callable[[str], tuple[Trace, Attribution]], tmp_path: Path
) -> None:
    _, attribution = real_attribution(name)
    metrics = plain_report().metrics
    shown = read(render_trace(attribution, tmp_path, metrics)[0])
    by_track = Counter(one.track[1].split(" ")[0] for one in shown.slices)
    assert by_track["Stream"] == len(attribution.operations)
    assert by_track["CUDA"] == len(attribution.calls)
    gpu = [one for one in shown.slices if one.track[1].startswith("Stream")]
    shift = min(
        0,
        int(attribution.operations.start.min()),
        int(attribution.ranges.start.min()),
        int(attribution.calls.start.min()),
    )
    assert sum(one.end - one.start for one in gpu) == int(attribution.operations.duration.sum())
    assert min(one.start for one in gpu) == int(attribution.operations.start.min()) - shift
    arrived = [flow for one in gpu for flow in one.arrives]
    left = [flow for one in shown.slices for flow in one.leaves]
    assert sorted(arrived) == sorted(left) == list(range(1, len(left) + 1))
    assert len(left) == np.unique(attribution.launch_call[attribution.launch_call >= 0]).size
    ranges = sum(1 for one in shown.slices if "thread" in one.track[0] and not one.track[1].startswith("CUDA"))
    assert ranges == len(attribution.ranges)
    assert [value for _, value in shown.counters["SMs Active"]] == [1.0, 90.5, 3.0]


def test_the_format_is_written_with_the_others_and_has_the_metrics(attribute: Attribute, tmp_path: Path) -> None:
    attribution = attribute(TraceBuilder().launch(0, 1, ("a", 10, 20)))
    written = write_report(plain_report(), attribution, tmp_path, ("json", "perfetto"))
    assert [path.name for path in written] == ["report.json", "summary.json", "timeline.pftrace"]
    assert "SMs Active" in read(written[-1]).counters


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=40))
def test_slices_of_one_track_nest_or_follow(spans: list[tuple[int, int]]) -> None:
    ordered = sorted(((low, low + length) for low, length in spans), key=lambda one: (one[0], -one[1]))
    start = np.array([low for low, _ in ordered], dtype=np.int64)
    end = np.array([high for _, high in ordered], dtype=np.int64)
    track = parallel_tracks(start, end)
    for first in range(len(ordered)):
        for second in range(first + 1, len(ordered)):
            if track[first] == track[second]:
                assert end[first] <= start[second] or end[second] <= end[first]


_ROW = st.tuples(st.integers(0, 2**63 - 1), st.integers(1, 2**50), st.integers(1, 2**28 - 1), st.integers(0, 2**64 - 1))


@given(st.lists(_ROW, min_size=1))
def test_repeated_packets_read_back_as_what_was_put_in(rows: list[tuple[int, int, int, int]]) -> None:
    time, track, name, flow = zip(*rows, strict=True)
    made = begin_template(flow="in").rows(
        timestamp=np.array(time, dtype=np.int64), track=np.array(track), name=np.array(name),
        flow=np.array(flow, dtype=np.uint64),
    )  # fmt: skip
    trace = pb.Trace()
    trace.ParseFromString(made.tobytes())
    found = [
        (one.timestamp, one.track_event.track_uuid, one.track_event.name_iid, one.track_event.terminating_flow_ids[0])
        for one in trace.packet
    ]
    assert found == rows


def test_counters_and_ends_read_back() -> None:
    when, track = np.array([7], dtype=np.int64), np.array([3])
    trace = pb.Trace()
    trace.ParseFromString(counter_template().rows(timestamp=when, track=track, value=np.array([-2.5])).tobytes())
    trace.MergeFromString(end_template().rows(timestamp=when, track=track).tobytes())
    counter, end = trace.packet
    assert counter.track_event.double_counter_value == -2.5
    assert (end.track_event.type, end.timestamp, end.track_event.track_uuid) == (END, 7, 3)
