"""Ranks: one file split into them, collectives paired over them, who waits for whom and why."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import evolve

from analysis.attribution.attribution import Attribution
from analysis.attribution.intervals import union_ns
from analysis.attribution.ranks import RankTrace, rank_places
from analysis.ranks.collectives import Collectives, collectives_of
from analysis.ranks.pairing import lateness, pair, place_skews, stage_waiting, straggler, told
from analysis.ranks.records import CAUSES
from analysis.ranks.side_by_side import model_ranks
from analysis.sums.host_calls import HostCalls, WindowTimes
from analysis.sums.tables import gpu_table
from analysis.trace.reader import Trace
from analysis.trace.records import KERNEL
from merged_trace import merge_exports
from trace_builder import TraceBuilder

RANKS = ("tensor-parallel_2xh200_rank0", "tensor-parallel_2xh200_rank1")
CLOCKS_APART = 24_933_500
"""Median difference of the ends of the two files' collectives, ns."""

RealTrace = Callable[[str], Path]


def ranks_of(path: Path) -> list[Attribution]:
    with Trace(path) as trace:
        return [Attribution.of(RankTrace(trace, place)) for place in rank_places(trace)]


def collectives(path: Path) -> list[Collectives]:
    with Trace(path) as trace:
        made = []
        for place in rank_places(trace):
            attribution = Attribution.of(RankTrace(trace, place))
            made.append(collectives_of(attribution, HostCalls(attribution), trace.payloads))
        return made


@pytest.fixture(scope="module")
def one_file(real_trace: RealTrace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    first, second = map(real_trace, RANKS)
    out = tmp_path_factory.mktemp("merged") / "both.sqlite"
    return merge_exports(first, second, out, shift_ns=-CLOCKS_APART)


@pytest.fixture(scope="module")
def two_files(real_trace: RealTrace) -> list[Collectives]:
    return [collectives(real_trace(name))[0] for name in RANKS]


def stage_sums(attribution: Attribution) -> dict[str, tuple[int, ...]]:
    return {
        row["name"]: (row["kernels"], row["kernel_sum_ns"], row["busy_ns"], row["memsets"], row["memset_ns"])
        for row in gpu_table(attribution, "stage").rows()
    }


# --- one file as several ranks --------------------------------------------------------------------------------------


def test_a_rank_of_one_file_has_the_exact_numbers_of_its_own_file(
    one_file: Path, real_trace: RealTrace, expected: Callable[[str], dict[str, Any]]
) -> None:
    together = [stage_sums(attribution) for attribution in ranks_of(one_file)]
    apart = [stage_sums(ranks_of(real_trace(name))[0]) for name in RANKS]
    assert together == apart
    wanted = expected(RANKS[0])
    for stage, name in (("prefill", "prefill"), ("decode", "decode"), ("neither", "(unattributed)")):
        kernels, operations = wanted["stages"][stage]["kernel"], wanted["stages"][stage]["all_gpu_ops"]
        assert together[0][name][:3] == (kernels["count"], kernels["total_ns"], operations["union_ns"])
    rank = ranks_of(one_file)[0]
    assert union_ns(rank.operations.start, rank.operations.end) == wanted["totals"]["gpu_union_ns"]
    assert len(rank.ranges) == wanted["totals"]["nvtx_ranges"]


def test_each_rank_of_one_file_has_its_own_device_and_process(one_file: Path) -> None:
    with Trace(one_file) as trace:
        places = rank_places(trace)
        assert [(place.device, place.pid) for place in places] == [(0, 809), (1, 806)]
        for place in places:
            rank = RankTrace(trace, place)
            assert [device.device_id for device in rank.info.devices] == [place.device]
            assert {rank.info.pid(code) for code in rank.info.thread_process} == {place.pid}
            assert int((rank.operations.kind == KERNEL).sum()) == 18_090


def test_ranks_on_devices_of_the_same_number_are_ordered_by_process(tmp_path: Path) -> None:
    builder = TraceBuilder()
    for pid in (30, 20):
        builder.thread(pid, pid).launch(10, 12, kernel=("gemm", 20, 50))
    with Trace(builder.write(tmp_path / "trace.sqlite")) as trace:
        assert [place.pid for place in rank_places(trace)] == [20, 30]


def test_one_process_that_drives_two_devices_is_two_ranks(tmp_path: Path) -> None:
    builder = TraceBuilder().range("decode", 0, 100, domain="dsocr")
    builder.launch(10, 12, kernel=("gemm", 20, 50)).launch(14, 16, kernel=("gemm", 30, 90), device=1).call(60, 95)
    builder.thread(1, 2).range("decode", 0, 40, domain="dsocr").launch(20, 22, kernel=("add", 100, 110), device=1)
    first, second = ranks_of(builder.write(tmp_path / "trace.sqlite"))
    assert stage_sums(first)["decode"][:3] == (1, 30, 30)
    assert stage_sums(second)["decode"][:3] == (2, 70, 70)
    assert (len(first.calls), len(second.calls)) == (2, 3)  # the synchronise is not known to be one device's
    assert (len(first.ranges), len(second.ranges)) == (1, 2)  # the other thread launches on the second device only


def test_no_operation_no_rank(tmp_path: Path) -> None:
    with Trace(TraceBuilder().call(0, 5).write(tmp_path / "trace.sqlite")) as trace:
        assert rank_places(trace) == ()


# --- real ranks paired ----------------------------------------------------------------------------------------------


def test_two_real_ranks_are_paired_on_one_clock(two_files: list[Collectives]) -> None:
    pairs = pair(two_files, one_clock=False)
    assert (pairs.pairing.how, pairs.pairing.collectives, pairs.pairing.left_out) == ("name and order", 2113, 0)
    clock = pairs.pairing.clocks[1]
    assert (clock.offset_ns, clock.residual_ns) == (CLOCKS_APART, 435)
    assert "agree to within 435 ns" in told(pairs.pairing)


def test_waiting_and_transfer_add_up_to_the_kernels(
    two_files: list[Collectives], expected: Callable[[str], dict[str, Any]]
) -> None:
    pairs = pair(two_files, one_clock=False)
    rows = {(row.rank, row.stage): row for row in stage_waiting(pairs)}
    kernels = expected(RANKS[0])["top_kernels_per_stage"]
    for stage in ("prefill", "decode"):
        assert rows[0, stage].total_ns == next(row["total_ns"] for row in kernels[stage] if "nccl" in row["short"])
    for row in rows.values():
        assert row.transfer_ns + row.waiting_ns + row.at_start_ns == row.total_ns
        assert row.transfer_ns == rows[1 - row.rank, row.stage].transfer_ns
    assert rows[0, "decode"].waiting_ns == 1_047_652_534
    assert rows[0, "decode"].transfer_ns == 13_857_623


def test_the_late_rank_is_named_with_its_cost_and_cause(two_files: list[Collectives]) -> None:
    pairs = pair(two_files, one_clock=False)
    late, places = lateness(pairs), place_skews(pairs)
    worst = straggler(pairs, late, places)
    assert worst is not None
    assert (worst.rank, worst.waiting, worst.collectives, worst.of) == (1, 0, 989, 2112)  # the first opens the capture
    waited = sum(row.waiting_ns for row in stage_waiting(pairs) if row.rank == 0)
    assert worst.cost_ns == waited == 1_055_576_706
    assert worst.cause == "python"
    assert (worst.since, worst.until, worst.steps) == ("image[0]/prefill", "image[0]/decode/decode_step#28", 30)
    first = late[0]
    assert (first.late, first.waiting, first.stage, first.cost_ns) == (1, 0, "decode", 1_047_652_534)
    skew = sum(getattr(first, f"{cause}_ns") for cause in CAUSES)
    assert skew == pytest.approx(first.cost_ns, rel=1e-3)  # the ends of the collectives before agree to within 1 µs


def test_steps_add_up_to_the_waiting(two_files: list[Collectives]) -> None:
    pairs = pair(two_files, one_clock=False)
    places = place_skews(pairs)
    assert sum(place.collectives for place in places) == 2113
    assert sum(place.waiting_ns[0] for place in places) == 1_055_576_706
    assert [place.start_ns for place in places] == sorted(place.start_ns for place in places)
    steps = [place for place in places if "decode_step" in place.place]
    assert len(steps) == 64
    assert {place.late for place in steps[:29]} == {1}
    assert {place.late for place in steps[33:]} == {0}


def test_one_file_says_the_same_as_two(one_file: Path, two_files: list[Collectives]) -> None:
    apart, together = pair(two_files, one_clock=False), pair(collectives(one_file), one_clock=True)
    assert stage_waiting(apart) == stage_waiting(together)
    assert lateness(apart) == lateness(together)
    assert together.pairing.one_clock


def test_windows_agree_with_the_idle_time_of_stages(real_trace: RealTrace) -> None:
    (attribution,) = ranks_of(real_trace(RANKS[1]))
    host = HostCalls(attribution)
    mine = collectives(real_trace(RANKS[1]))[0]
    start, end = mine.end_ns[:-1], mine.start_ns[1:]
    thread = int(np.bincount(attribution.calls.thread[attribution.launch_call]).argmax())
    times = host.within(start, end, thread)
    assert np.array_equal(np.sum(times.columns, axis=0), end - start)
    summed = host.idle(list(zip(start.tolist(), end.tolist(), [thread] * start.size, strict=True)))
    idle = end - start - times.busy_ns
    assert idle.tolist() == [gap.total_ns for gap in summed]
    drained = sum(gap.draining_ns for gap in summed)
    assert 0 <= int(times.outside_api_ns.sum()) - sum(gap.outside_api_ns for gap in summed) <= drained


# --- made ones ------------------------------------------------------------------------------------------------------


def made(
    *calls: tuple[int, int], communicator: int = 0, not_named: int = 1, name: str = "ncclAllReduce", stage: int = 0
) -> Collectives:
    count = len(calls)
    start, end = (np.array([call[place] for call in calls], dtype=np.int64) for place in (0, 1))
    nothing = np.zeros(count, dtype=np.int64)
    return Collectives(
        start_ns=start,
        end_ns=end,
        name=np.zeros(count, dtype=np.int32),
        communicator=np.full(count, communicator, dtype=np.uint64),
        not_named=np.full(count, -1 if communicator else not_named, dtype=np.int8),
        size_bytes=np.full(count, -1, dtype=np.int64),
        stage=np.full(count, stage, dtype=np.int32),
        place=np.zeros(count, dtype=np.int32),
        names=(name,),
        stages=("decode", "(unattributed)"),
        places=("decode", "(unattributed)"),
        before=WindowTimes(*(nothing,) * 6),
        point_to_point=0,
    )


def joined(first: Collectives, second: Collectives) -> Collectives:
    """Two collectives or more of one rank, of communicators of their own."""
    arrays = ("start_ns", "end_ns", "name", "communicator", "not_named", "size_bytes", "stage", "place")
    both: dict[str, Any] = {name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in arrays}
    nothing = np.zeros(len(first) + len(second), dtype=np.int64)
    return evolve(first, **both, before=WindowTimes(*(nothing,) * 6))


def test_calls_of_another_number_are_not_paired() -> None:
    pairs = pair([made((0, 10), (20, 30)), made((5, 10))], one_clock=True)
    assert pairs.pairing.how == "not paired"
    assert "unequally often" in (pairs.pairing.because or "")
    assert straggler(pairs, lateness(pairs), place_skews(pairs)) is None


def test_calls_that_do_not_overlap_are_not_paired() -> None:
    early = made(*((start, start + 5) for start in range(0, 1000, 10)))
    other = made(*((start * 3, start * 3 + 5) for start in range(0, 1000, 10)))
    pairs = pair([early, other], one_clock=True)
    assert pairs.pairing.how == "not paired"
    assert "overlap in time" in (pairs.pairing.because or "")


def test_pairs_of_communicators_hold_their_own_ranks_only() -> None:
    """Two groups of two: the third rank's wait is the fourth's fault, and clocks go through who shares one."""
    ranks = [
        made((-50, -40), (0, 100), communicator=7),
        made((-50, -40), (60, 100), communicator=7),
        made((900, 910), (1000, 1100), communicator=9),
        made((900, 910), (1090, 1100), communicator=9),
    ]
    pairs = pair(ranks, one_clock=True)
    assert pairs.pairing.how == "communicator and order"
    assert pairs.pairing.collectives == 4
    costs = {(row.late, row.waiting): row.cost_ns for row in lateness(pairs) if not row.at_start}
    assert costs == {(1, 0): 60, (3, 2): 90}


def test_only_what_no_communicator_names_is_paired_by_name_and_says_why() -> None:
    """Two calls with a payload, then three replays of a CUDA graph, which have none."""
    ranks = [
        joined(made((0, 100), (200, 300), communicator=7), made((400, 500), (600, 700), (800, 900), not_named=0))
        for _ in range(2)
    ]
    pairing = pair(ranks, one_clock=True).pairing
    assert (pairing.how, pairing.collectives, pairing.by_name) == ("communicator or name, and order", 5, 3)
    assert told(pairing).startswith(
        "5 collectives are paired by order: 2 by communicator, 3 by name (these are replays of CUDA graphs, which have no NCCL "
        "range of their own to name a communicator); all ranks are on one clock"
    )
    other = joined(made((0, 100), (200, 300), not_named=0), made((400, 500), not_named=2))
    assert pair([other, other], one_clock=True).pairing.by_name_because == (
        "2 are replays of CUDA graphs, which have no NCCL range of their own to name a communicator; "
        "1 are not NCCL's, which alone names communicators"
    )
    by_communicator = pair([made((0, 100), communicator=7)] * 2, one_clock=True).pairing
    assert (by_communicator.how, by_communicator.by_name_because) == ("communicator and order", None)
    assert " by name" not in told(by_communicator)


def test_ranks_keep_their_numbers() -> None:
    """Ranks 4 and 5 of eight: records and reasons name them so."""
    late = pair([made((-50, -40), (0, 100)), made((-50, -40), (60, 100))], one_clock=True, numbers=(4, 5))
    (row,) = (row for row in lateness(late) if not row.at_start)
    assert (row.late, row.waiting, row.cost_ns) == (5, 4, 60)
    assert {row.rank for row in stage_waiting(late)} == {4, 5}
    assert [place.late for place in place_skews(late)] == [5]
    worst = straggler(late, lateness(late), place_skews(late))
    assert worst is not None
    assert (worst.rank, worst.waiting, worst.cost_ns, worst.stretch_ns) == (5, 4, 60, 60)
    assert [clock.rank for clock in late.pairing.clocks] == [4, 5]
    unequal = pair([made((0, 10), (20, 30)), made((5, 10))], one_clock=True, numbers=(4, 5))
    assert "(rank 4 2, rank 5 1)" in (unequal.pairing.because or "")


def test_a_model_is_spread_over_ranks_that_meet_outside_nccl(tmp_path: Path) -> None:
    """vLLM's own all-reduce is a collective by its class; DeepEP's layout, which each rank makes alone, is none."""
    builder = TraceBuilder().range("decode", 0, 1000)
    reduce = "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 2>(vllm::RankData *)"
    builder.launch(10, 12, kernel=(reduce, 20, 40)).launch(50, 52, kernel=(reduce, 60, 90))
    builder.launch(100, 102, kernel=("void deep_ep::layout::get_dispatch_layout<256, 32, 8>()", 110, 120))
    (mine,) = collectives(builder.write(tmp_path / "trace.sqlite"))
    assert len(mine) == 2
    assert set(mine.not_named.tolist()) == {2}
    pairs = pair([mine, mine], one_clock=True)
    assert model_ranks(pairs) == (2, 2)
    assert "these are not NCCL's, which alone names communicators" in told(pairs.pairing)


def test_three_ranks_on_clocks_of_their_own() -> None:
    calls = [(0, 100), (200, 300), (400, 500)]
    shifted = [
        made(*calls),
        made(*((a + 1040, b + 1000) for a, b in calls)),
        made(*((a - 480, b - 500) for a, b in calls)),
    ]
    pairs = pair(shifted, one_clock=False)
    assert [clock.offset_ns for clock in pairs.pairing.clocks] == [0, 1000, -500]
    assert pairs.late.tolist() == [1, 1, 1]
    costs = {(row.late, row.waiting, row.at_start): row.cost_ns for row in lateness(pairs)}
    assert costs == {(1, 0, False): 80, (1, 2, False): 40, (1, 0, True): 40, (1, 2, True): 20}


def test_waiting_at_the_start_of_the_capture_counts_for_no_rank() -> None:
    """Rank 1's capture begins late; then rank 0 is late. After a pause of all ranks who is late is known as ever."""
    pairs = pair(
        [made((0, 1000), (1260, 1300), (9500, 9600)), made((960, 1000), (1200, 1300), (9560, 9600))], one_clock=True
    )
    assert pairs.opening.tolist() == [True, False, False]
    first, second = stage_waiting(pairs)
    assert (first.total_ns, first.transfer_ns, first.waiting_ns, first.at_start_ns) == (1140, 120, 60, 960)
    assert (second.total_ns, second.transfer_ns, second.waiting_ns, second.at_start_ns) == (180, 120, 60, 0)
    rows = {(row.late, row.at_start): row for row in lateness(pairs)}
    assert {key: row.cost_ns for key, row in rows.items()} == {(0, False): 60, (1, False): 60, (1, True): 960}
    assert {getattr(rows[1, True], f"{cause}_ns") for cause in CAUSES} == {None}
    assert lateness(pairs)[-1].at_start
    (place,) = place_skews(pairs)
    assert (place.waiting_ns, place.at_start_ns, place.skew_ns, place.start_ns) == ((60, 60), (960, 0), 60, 960)
    worst = straggler(pairs, lateness(pairs), [place])
    assert worst is not None
    assert (worst.cost_ns, worst.of) == (60, 2)
    assert straggler(pairs, lateness(pairs)[-1:], [place]) is None


def test_ranks_that_met_in_a_larger_communicator_have_stood_together() -> None:
    """All four meet, then two of them in a communicator of their own: its first collective opens nothing. In the reverse
    order the larger one opens the capture again, for two of its ranks had met no other."""
    world = [made((0, 10), communicator=1) for _ in range(4)]
    pairs = pair([joined(world[0], made((20, 40), communicator=2)), joined(world[1], made((30, 40), communicator=2)),
                  *world[2:]], one_clock=True)  # fmt: skip
    assert pairs.opening.tolist() == [True, False]
    late = [made((50, 60), communicator=1) for _ in range(4)]
    pairs = pair([joined(made((20, 40), communicator=2), late[0]), joined(made((30, 40), communicator=2), late[1]),
                  *late[2:]], one_clock=True)  # fmt: skip
    assert pairs.opening.tolist() == [True, True]


HEADER_DOMAIN = 7
"""Another number than the tables', as in traces of nsys 2025.3: there the header said 1 and the tables 3."""


def with_payloads(path: Path, blobs: list[tuple[str, int, bytes]]) -> Path:
    """Write payload schemas as NCCL 2.26 registers them, and a blob for each named range."""
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE NVTX_PAYLOAD_SCHEMAS (domainId INT, schemaId INT, name TEXT, type INT, payloadSize INT)"
    )
    connection.execute(
        "CREATE TABLE NVTX_PAYLOAD_SCHEMA_ENTRIES (domainId INT, schemaId INT, idx INT, type INT, name TEXT, offset INT)"
    )
    (domain,) = connection.execute("SELECT DISTINCT domainId FROM NVTX_EVENTS WHERE text = 'ncclAllReduce'").fetchone()
    connection.execute("INSERT INTO NVTX_PAYLOAD_SCHEMAS VALUES (?, 16777221, NULL, 1, 24)", (domain,))
    fields = [
        (0, 18, "NCCL communicator ID", None),
        (1, 22, "Message size [bytes]", 8),
        (2, 16777236, "Reduction operation", 16),
    ]
    connection.executemany(f"INSERT INTO NVTX_PAYLOAD_SCHEMA_ENTRIES VALUES ({domain}, 16777221, ?, ?, ?, ?)", fields)
    for name, start, blob in blobs:
        connection.execute("UPDATE NVTX_EVENTS SET binaryData = ? WHERE text = ? AND start = ?", (blob, name, start))
    connection.commit()
    connection.close()
    return path


def test_communicators_come_from_payloads(tmp_path: Path) -> None:
    builder = TraceBuilder()
    for start in (0, 100, 200):
        builder.range("ncclAllReduce", start, start + 20, domain="NCCL")
        builder.launch(
            start + 5, start + 8, kernel=("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", start + 30, start + 60)
        )
    body = struct.pack("<QQi4x", 0xFEDCBA9876543210, 8192, 0)
    blob = struct.pack("<4Q", HEADER_DOMAIN, 16777221, 24, 32) + body
    unknown = struct.pack("<4Q", HEADER_DOMAIN, 99, 24, 32) + body
    path = with_payloads(
        builder.write(tmp_path / "trace.sqlite"), [("ncclAllReduce", 0, blob), ("ncclAllReduce", 100, unknown)]
    )
    (mine,) = collectives(path)
    assert mine.communicator.tolist() == [0xFEDCBA9876543210, 0, 0]
    assert mine.size_bytes.tolist() == [8192, -1, -1]


def test_a_damaged_payload_is_left_out(tmp_path: Path) -> None:
    builder = TraceBuilder().range("ncclAllReduce", 0, 20, domain="NCCL")
    builder.launch(5, 8, kernel=("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", 30, 60))
    short = struct.pack("<4Q", HEADER_DOMAIN, 16777221, 24, 32) + b"\0" * 8
    (mine,) = collectives(with_payloads(builder.write(tmp_path / "trace.sqlite"), [("ncclAllReduce", 0, short)]))
    assert mine.communicator.tolist() == [0]


def test_sends_and_receives_are_counted_and_not_paired(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.launch(0, 2, kernel=("ncclDevKernel_SendRecv", 10, 20))
    builder.launch(5, 7, kernel=("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", 30, 60))
    (mine,) = collectives(builder.write(tmp_path / "trace.sqlite"))
    assert (len(mine), mine.point_to_point) == (1, 1)


# --- sums over ranks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["stage", "instance", "kernel", "module", "range"])
def test_busy_is_never_a_union_over_gpus(by: Any, tmp_path: Path) -> None:
    """Two GPUs of one process, at work at the same time: 30 + 60 ns, not the 70 ns that one of them or the other works."""
    builder = TraceBuilder().range("decode", 0, 100, domain="dsocr")
    builder.launch(10, 12, kernel=("gemm", 20, 50)).launch(14, 16, kernel=("gemm", 30, 90), device=1)
    builder.launch(17, 18, kernel=("gemm", 40, 50), device=1, stream=8)
    with Trace(builder.write(tmp_path / "trace.sqlite")) as trace:
        rows = gpu_table(Attribution.of(trace), by).rows()
    assert [row["busy_ns"] for row in rows if row["kernels"]] == [90]


def test_a_file_of_two_ranks_sums_up_what_its_ranks_do(one_file: Path) -> None:
    with Trace(one_file) as trace:
        whole = stage_sums(Attribution.of(trace))
    first, second = (stage_sums(rank) for rank in ranks_of(one_file))
    for stage, sums in whole.items():
        assert sums == tuple(a + b for a, b in zip(first[stage], second[stage], strict=True))


@pytest.mark.parametrize(("gpus", "busy"), [((0, 1), 90), ((0, 0), 70)])
def test_processes_may_call_two_gpus_by_one_number(gpus: tuple[int, int], busy: int, tmp_path: Path) -> None:
    """Each sees one GPU, as device 0 (CUDA_VISIBLE_DEVICES): the file says which GPU of the machine that is."""
    builder = TraceBuilder()
    for pid, gpu, interval in ((1, gpus[0], (20, 50)), (2, gpus[1], (30, 90))):
        builder.thread(pid, pid).launch(10, 12, kernel=("gemm", *interval))
        builder._add("TARGET_INFO_CUDA_DEVICE", gpuId=gpu, cudaId=0, pid=pid)
    with Trace(builder.write(tmp_path / "trace.sqlite")) as trace:
        rows = gpu_table(Attribution.of(trace), "kernel").rows()
        assert len(rank_places(trace)) == 2
    assert [row["busy_ns"] for row in rows] == [busy]
