"""The timeline of several ranks in one Perfetto file, read back with Perfetto's own protobuf classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from analysis.api.options import AnalysisOptions
from analysis.api.ranks import Ranks, read_ranks, together, write_ranks
from analysis.api.workers import local_workers
from analysis.render.ranks.perfetto import SHORTEST_ARROW_NS
from trace_builder import TraceBuilder

BEGIN, END, INSTANT = 1, 2, 3
RANKS = ("tensor-parallel_2xh200_rank0", "tensor-parallel_2xh200_rank1")


@frozen
class Slice:
    process: str
    track: str
    name: str
    start: int
    end: int
    leaves: tuple[int, ...]
    arrives: tuple[int, ...]


def read(path: Path) -> tuple[dict[int, str], list[Slice]]:
    """Processes by number, and slices: per track, the last that began ends first. Packets of a sequence are in time order."""
    trace = pb.Trace()
    trace.ParseFromString(path.read_bytes())
    tracks = {
        packet.track_descriptor.uuid: packet.track_descriptor
        for packet in trace.packet
        if packet.HasField("track_descriptor")
    }
    names = {
        (packet.trusted_packet_sequence_id, name.iid): name.name
        for packet in trace.packet
        for name in packet.interned_data.event_names
    }
    processes = {each.process.pid: each.process.process_name for each in tracks.values() if each.HasField("process")}

    def process_of(uuid: int) -> str:
        while not tracks[uuid].HasField("process"):
            uuid = tracks[uuid].parent_uuid
        return str(tracks[uuid].process.process_name)

    begun: dict[int, list[Any]] = defaultdict(list)
    last: dict[int, int] = defaultdict(int)
    slices = []
    for packet in trace.packet:
        if not packet.HasField("track_event") or packet.track_event.type not in (BEGIN, END, INSTANT):
            continue
        sequence, event = packet.trusted_packet_sequence_id, packet.track_event
        assert packet.timestamp >= last[sequence]
        last[sequence] = packet.timestamp
        if event.type == BEGIN:
            begun[event.track_uuid].append(packet)
            continue
        first = begun[event.track_uuid].pop() if event.type == END else packet
        at = first.track_event
        slices.append(
            Slice(
                process_of(event.track_uuid), tracks[event.track_uuid].name, names[sequence, at.name_iid],
                first.timestamp, packet.timestamp, tuple(at.flow_ids), tuple(at.terminating_flow_ids),
            )
        )  # fmt: skip
    assert not any(begun.values())
    return processes, slices


def timeline(files: list[Path], out: Path) -> tuple[Ranks, Path]:
    with local_workers(1) as workers:
        ranks = together(read_ranks(files, AnalysisOptions(accept_lossy=True), workers), one_clock=False)
        own, (shared,) = write_ranks(ranks, out, ("perfetto",), AnalysisOptions(accept_lossy=True), workers)
    assert sorted(path.relative_to(out).as_posix() for path in (*own, shared)) == [
        "rank0/timeline.pftrace", "rank1/timeline.pftrace", "timeline.pftrace",
    ]  # fmt: skip
    assert not list(out.rglob("*.part"))
    return ranks, shared


@pytest.fixture(scope="module")
def real(
    real_trace: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Ranks, dict[int, str], list[Slice]]:
    ranks, file = timeline([real_trace(name) for name in RANKS], tmp_path_factory.mktemp("ranks"))
    return (ranks, *read(file))


def test_each_rank_is_a_process_with_all_that_it_did(real: tuple[Ranks, dict[int, str], list[Slice]]) -> None:
    ranks, processes, slices = real
    assert sorted(processes.values()) == ["rank 0: NVIDIA H200", "rank 1: NVIDIA H200"]
    for row in ranks.combined.ranks:
        mine = [each for each in slices if each.process.startswith(f"rank {row.rank}:")]
        kernels = [each for each in mine if each.track.startswith("Stream") and (each.arrives or each.end > each.start)]
        assert len(kernels) >= row.kernels
        assert {"prefill", "decode"} <= {each.name for each in mine}
        whole = [each for each in mine if each.track.startswith("Collectives") and "nccl" in each.name.lower()]
        assert len(whole) == row.collectives


def test_waiting_is_drawn_inside_the_collective_and_adds_up(real: tuple[Ranks, dict[int, str], list[Slice]]) -> None:
    ranks, _, slices = real
    lanes = [each for each in slices if each.track.startswith("Collectives")]
    for row, other in zip(ranks.combined.ranks, (1, 0), strict=True):
        mine = [each for each in lanes if each.process.startswith(f"rank {row.rank}:")]
        waits = [each for each in mine if each.name == f"waits for rank {other}"]
        assert sum(each.end - each.start for each in waits) == ranks.combined.ranks[other].cost_ns
        first = [each for each in mine if each.name == "waits at the start of the capture"]
        at_start = sum(each.end - each.start for each in first)
        assert at_start == sum(
            each.cost_ns for each in ranks.combined.lateness if each.at_start and each.waiting == row.rank
        )
        sent = [each for each in mine if each.name.startswith("transfer")]
        parts = sum(each.end - each.start for each in (*waits, *first, *sent))
        assert parts == (row.transfer_ns or 0) + (row.waiting_ns or 0) + (row.at_start_ns or 0)
        assert sum(each.name == "transfer; came last" for each in sent) == pytest.approx(row.late, abs=1)


def test_arrows_lead_from_the_late_rank_to_the_one_that_waits_on_one_clock(
    real: tuple[Ranks, dict[int, str], list[Slice]],
) -> None:
    _, _, slices = real
    lanes = [each for each in slices if each.track.startswith("Collectives")]
    leaving = {flow: each for each in lanes for flow in each.leaves}
    arriving = {flow: each for each in lanes for flow in each.arrives}
    assert leaving.keys() == arriving.keys()
    assert len(leaving) > 500
    for flow, late in leaving.items():
        waits = arriving[flow]
        assert late.process != waits.process
        assert late.start - waits.start >= SHORTEST_ARROW_NS / 2
        assert abs(late.end - waits.end) < 1_000_000  # the ends say that the clocks are aligned
    launches = [flow for each in slices for flow in each.leaves if not each.track.startswith("Collectives")]
    assert len(set(launches)) == len(launches)
    assert not set(launches) & leaving.keys()


def test_clocks_that_cannot_be_aligned_are_said_not_to_be(tmp_path: Path) -> None:
    files = []
    for rank in (0, 1):
        builder = TraceBuilder().range("decode", 1000 * rank + 500, 1000 * rank + 900)
        builder.launch(1000 * rank + 510, 1000 * rank + 520, kernel=("gemm", 1000 * rank + 600, 1000 * rank + 700))
        files.append(builder.write(tmp_path / f"rank{rank}.sqlite"))
    ranks, file = timeline(files, tmp_path / "out")
    assert ranks.combined.pairing.how == "not paired"
    processes, slices = read(file)
    assert all(name.endswith(", on the clock of its own file") for name in processes.values())
    gemm = {each.process[:6]: each.start for each in slices if each.name == "gemm"}
    assert gemm["rank 1"] - gemm["rank 0"] == 1000
    assert min(each.start for each in slices) == 0
