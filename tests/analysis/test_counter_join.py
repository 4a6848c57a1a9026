"""From profiled kernels to launches: by place, by configuration, never by luck."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import evolve

from analysis.attribution.attribution import Attribution
from analysis.domain.errors import RequestError
from analysis.efficiency.counters.file import DRAM_READ, read_counters
from analysis.efficiency.counters.join import (
    BY_CONFIGURATION,
    BY_GROWN_GRID,
    BY_PLACE,
    UNMATCHED,
    FileMatch,
    JoinedCounters,
    Launches,
    align,
    join_counters,
    launches_of,
)
from analysis.trace.reader import Trace
from analysis.trace.records import Device
from counter_csv import Profiled, step_state, write_csv
from trace_builder import TraceBuilder

DATA = Path(__file__).parents[1] / "data"
H100 = Device(0, "NVIDIA H100 80GB HBM3", sm_count=132, compute_capability="9.0")
Named = Callable[[str], tuple[Trace, Attribution]]
Kernels = Sequence[tuple[str, int]]
"""(name, blocks) in order of launch."""

PREFILL: Kernels = [("embed", 9), ("gemm", 64), ("act", 9), ("gemm", 64)]
STEP: Kernels = [("norm", 1), ("gemm", 8), ("cat", 100), ("norm", 1), ("gemm", 16)]


def trace_of(*steps: Kernels, prefill: Kernels = PREFILL, between: Kernels = ()) -> TraceBuilder:
    """One image: a prefill, then decode steps with contexts 10, 11, … and kernels of 10 ns."""
    builder = TraceBuilder().gpu()
    at = 0

    def run(kernels: Kernels) -> None:
        nonlocal at
        for name, blocks in kernels:
            builder.launch(at, at + 5)
            builder.kernel(name, at + 10, at + 20, correlation=builder._correlation, grid=blocks)
            at += 30

    begin = at
    run(prefill)
    builder.range("prefill", begin, at, domain="dsocr")
    decode = at = at + 10
    for number, step in enumerate(steps):
        begin = at
        run(step)
        builder.range("decode_step", begin, at, domain="dsocr", payload=10 + number)
        at += 10
        run(between)
    builder.range("decode", decode, at + 1, domain="dsocr")
    builder.range("image[0]", 0, at + 10, domain="dsocr")
    return builder


def profiled(kernels: Kernels, state: str, first: float = 100.0) -> list[Profiled]:
    return [
        Profiled(name, grid=(blocks, 1, 1), state=state, values=(first + place, 0.0))
        for place, (name, blocks) in enumerate(kernels)
    ]


@pytest.fixture
def join(tmp_path: Path, attribute: Callable[..., Attribution]) -> Callable[..., tuple[JoinedCounters, Attribution]]:
    def run(builder: TraceBuilder, *files: list[Profiled], **options: Any) -> tuple[JoinedCounters, Attribution]:
        attribution = attribute(builder)
        read = [
            read_counters(write_csv(tmp_path / f"{number}.csv", kernels, **options))
            for number, kernels in enumerate(files)
        ]
        return join_counters(launches_of(attribution), read, H100), attribution

    return run


def values(joined: JoinedCounters, stage: int) -> list[float]:
    launches = joined.launches
    return [round(one, 3) for one in joined.values[DRAM_READ][launches.stage == stage].tolist()]


def test_one_profiled_step_stands_for_all_steps(join: Any) -> None:
    joined, _ = join(trace_of(STEP, STEP, STEP), [*profiled(PREFILL, step_state(stage="prefill", step=False), 1), *profiled(STEP, step_state(11))])  # fmt: skip  # noqa: E501
    assert values(joined, 0) == [1, 2, 3, 4]
    assert values(joined, 1) == [100, 101, 102, 103, 104] * 3
    assert (joined.how[DRAM_READ] == BY_PLACE).all()
    assert joined.files == (FileMatch(joined.files[0].source, 9, 9, 0, 0, (), 2, True),)


def test_equal_kernels_of_a_step_keep_their_own_values(join: Any) -> None:
    """The first and the second norm move different amounts: their places tell them apart."""
    joined, _ = join(trace_of(STEP, STEP), profiled(STEP, step_state(10)))
    assert values(joined, 1)[0] == 100
    assert values(joined, 1)[3] == 103


def test_a_grid_that_grew_with_the_context_is_found_at_its_place(join: Any) -> None:
    later = [(name, 110 if name == "cat" else blocks) for name, blocks in STEP]
    joined, _ = join(trace_of(STEP, later), profiled(STEP, step_state(10)))
    assert values(joined, 1) == [100, 101, 102, 103, 104] * 2
    assert joined.how[DRAM_READ][-5:].tolist() == [BY_PLACE, BY_PLACE, BY_GROWN_GRID, BY_PLACE, BY_PLACE]


def test_a_grid_of_another_size_is_another_kernel(join: Any) -> None:
    other = [(name, 130 if name == "cat" else blocks) for name, blocks in STEP]
    joined, _ = join(trace_of(STEP, other), profiled(STEP, step_state(10)))
    assert joined.how[DRAM_READ][-5:].tolist() == [BY_PLACE, BY_PLACE, UNMATCHED, BY_PLACE, BY_PLACE]


def test_kernels_that_one_replay_of_a_cuda_graph_brings_are_matched_like_launches(join: Any) -> None:
    """Nsight Compute profiles the nodes of a graph one by one, in the order in which they run."""
    builder = TraceBuilder().gpu().range("image[0]", 0, 900, domain="dsocr").range("decode", 0, 900, domain="dsocr")
    nodes = [("norm", 0, 10), ("gemm", 10, 20), ("norm", 20, 30)]
    for step in (100, 300):
        builder.range("decode_step", step, step + 150, domain="dsocr", payload=step)
        builder.launch(step, step + 5, kernel=("copy", step + 10, step + 20))
        kernels = [(name, step + 40 + start, step + 40 + end) for name, start, end in nodes]
        builder.launch(step + 30, step + 35, kernels=kernels, name="cudaGraphLaunch_v10000")
    names: Kernels = [("copy", 132), *((name, 132) for name, _, _ in nodes)]
    joined, _ = join(builder, profiled(names, step_state(300)))
    assert values(joined, 1) == [100, 101, 102, 103] * 2
    assert (joined.how[DRAM_READ] == BY_PLACE).all()


def test_the_first_kernels_of_a_step_and_chosen_ones_are_found(join: Any) -> None:
    joined, _ = join(trace_of(STEP, STEP), profiled(STEP[:2], step_state(11)))
    # The second norm is no place's, but a launch of the first one's configuration.
    assert joined.how[DRAM_READ][-5:].tolist() == [BY_PLACE, BY_PLACE, UNMATCHED, BY_CONFIGURATION, UNMATCHED]
    assert values(joined, 1)[3] == 100
    joined, _ = join(trace_of(STEP, STEP), profiled([STEP[1], STEP[4]], step_state(11)))
    assert joined.how[DRAM_READ][-5:].tolist() == [UNMATCHED, BY_PLACE, UNMATCHED, UNMATCHED, BY_PLACE]


def test_configurations_hold_within_their_stage(join: Any) -> None:
    """The prefill has the kernel and launch shape of a decode kernel; its counters are its own."""
    joined, _ = join(trace_of(STEP, prefill=[*PREFILL, ("norm", 1)]), profiled(STEP, step_state(10)))
    assert joined.how[DRAM_READ][joined.launches.stage == 0].tolist() == [UNMATCHED] * 5


def test_kernels_of_the_stage_outside_its_steps_are_their_own_sequence(join: Any) -> None:
    outside = [("sample", 1)]
    file = [*profiled(STEP, step_state(10)), *profiled(outside, step_state(step=False), 7)]
    joined, _ = join(trace_of(STEP, STEP, between=outside), file)
    assert (joined.how[DRAM_READ][joined.launches.stage == 1] != UNMATCHED).all()
    assert values(joined, 1).count(7) == 2  # one at its place, the other a launch of its configuration


def test_several_steps_without_a_payload_are_told_apart_by_their_order(join: Any) -> None:
    file = [*profiled(STEP, step_state(None)), *profiled(STEP, step_state(None), 200)]
    joined, _ = join(trace_of(STEP, STEP), file)
    assert joined.files[0].by_place == 10
    assert joined.files[0].sequences == 2
    assert values(joined, 1) == [150, 151, 152, 153, 154] * 2  # each stands for both steps: their mean


def test_files_of_other_metrics_are_taken_together(join: Any, tmp_path: Path, attribute: Any) -> None:
    attribution = attribute(trace_of(STEP))
    other = "sm__sass_thread_inst_executed_op_ffma_pred_on.sum"
    files = [
        read_counters(write_csv(tmp_path / "a.csv", profiled(STEP, step_state(10)))),
        read_counters(
            write_csv(
                tmp_path / "b.csv", [evolve(one, values=(9,)) for one in profiled(STEP, step_state(10))], (other,)
            )
        ),
    ]
    joined = join_counters(launches_of(attribution), files, H100)
    assert values(joined, 1) == [100, 101, 102, 103, 104]
    assert joined.values[other][joined.launches.stage == 1].tolist() == [9] * 5


def test_the_better_match_of_two_files_counts(join: Any) -> None:
    few = profiled([STEP[0]], step_state(10), 500)  # place of the first norm, configuration of the second
    joined, _ = join(trace_of(STEP), few, profiled(STEP, step_state(10)))
    assert values(joined, 1) == [300, 101, 102, 103, 104]  # the mean of two at one place; the second norm's own


def test_a_file_without_ranges_is_matched_by_order_alone(join: Any) -> None:
    joined, _ = join(trace_of(STEP, STEP), profiled(STEP, ""), nvtx=False)
    assert values(joined, 1) == [100, 101, 102, 103, 104] * 2
    assert not joined.files[0].has_nvtx


def test_a_function_name_alone_is_enough_where_the_trace_has_one_such_kernel_of_that_shape(join: Any) -> None:
    """``--print-kernel-base function``, or template arguments that the tools spell differently."""
    step = [("void norm<float>(int)", 1), ("void gemm<8>()", 8), ("void gemm<9>()", 8), ("void cat<float>(int)", 100)]
    file = profiled([("norm", 1), ("gemm", 8), ("cat", 100), ("norm", 1)], step_state(10))
    joined, _ = join(trace_of([*step, step[0]]), file)
    assert joined.files[0].by_place == 3
    assert joined.files[0].unmatched_names == (("gemm", 1),)  # which of the two it is, nothing tells
    assert joined.how[DRAM_READ][-5:].tolist() == [BY_PLACE, UNMATCHED, UNMATCHED, BY_PLACE, BY_PLACE]


def test_what_is_not_in_the_trace_is_counted_by_name(join: Any) -> None:
    file = profiled([*STEP, ("only here", 3), ("only here", 3)], step_state(10))
    joined, _ = join(trace_of(STEP), file)
    assert joined.files[0].unmatched == 2
    assert joined.files[0].unmatched_names == (("only here", 2),)


def test_another_run_is_refused(join: Any) -> None:
    strange = [("a", 1), ("b", 1), ("norm", 1), ("c", 1)]
    with pytest.raises(RequestError, match=r"only 1 of its 4 kernels lie in the trace's sequence of launches"):
        join(trace_of(STEP), profiled(strange, step_state(10)))


def test_generic_kernels_of_another_model_are_not_joined_by_luck(join: Any) -> None:
    """Elementwise kernels of one launch shape are in every model: found by configuration alone, they prove nothing."""
    other = [("mine", n) for n in range(1, 9)] + [("norm", 1)] * 5
    with pytest.raises(RequestError, match="another model, input or run"):
        join(trace_of(STEP), profiled(other, step_state(10)))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"device": "NVIDIA H200"}, "was measured on NVIDIA H200, the trace was captured on NVIDIA H100 80GB HBM3"),
     ({"device": ""}, None)],
)  # fmt: skip
def test_another_device_is_refused(join: Any, options: dict[str, str], words: str | None) -> None:
    if words is None:
        join(trace_of(STEP), profiled(STEP, step_state(10)), **options)
        return
    with pytest.raises(RequestError, match=words):
        join(trace_of(STEP), profiled(STEP, step_state(10)), **options)


def test_another_compute_capability_is_refused(attribute: Any, tmp_path: Path) -> None:
    file = read_counters(write_csv(tmp_path / "a.csv", profiled(STEP, step_state(10)), device=""))
    with pytest.raises(RequestError, match=r"compute capability 9\.0, the trace was captured on 8\.0"):
        join_counters(launches_of(attribute(trace_of(STEP))), [file], evolve(H100, compute_capability="8.0"))


def test_shared_memory_that_the_file_does_not_record_tells_nothing_apart(tmp_path: Path, attribute: Any) -> None:
    file = read_counters(write_csv(tmp_path / "a.csv", profiled(STEP, step_state(10))))
    unknown, other = (evolve(file, shared_bytes=np.full(len(file), shared)) for shared in (-1, 64))
    recorded = launches_of(attribute(trace_of(STEP)))
    assert join_counters(recorded, [unknown], H100).files[0].by_place == 5
    with pytest.raises(RequestError, match="only 0 of its 5"):
        join_counters(recorded, [other], H100)


def test_launches_are_ordered_by_their_calls_and_conserve_time(real_attribution: Named) -> None:
    _, attribution = real_attribution("deepseek-ocr_h100_small")
    launches = launches_of(attribution)
    operations = attribution.operations
    kernels = np.flatnonzero(operations.kind == 0)
    assert sorted(launches.operation.tolist()) == kernels.tolist()
    assert int(launches.duration.sum()) == int(operations.duration[kernels].sum())
    for instance in range(launches.instances):
        own = launches.operation[launches.of(instance)]
        calls = attribution.launch_call[own]
        assert (np.diff(attribution.calls.start[calls[calls >= 0]]) >= 0).all()


@pytest.mark.parametrize("trace", ["deepseek-ocr_h100_small", "deepseek-ocr_h100_64tok"])
def test_a_real_step_is_found_in_real_traces(real_attribution: Named, trace: str) -> None:
    """25 kernels of a decode step, profiled in another run: the same model, torch and GPU."""
    opened, attribution = real_attribution(trace)
    launches = launches_of(attribution)
    file = read_counters(DATA / "ncu_h100_decode-step.csv.xz")
    joined = join_counters(launches, [file], opened.info.devices[0])
    assert joined.files[0].by_place == 25
    steps = sum(launches.instance_is_step)
    by_place = joined.how[DRAM_READ] >= BY_GROWN_GRID
    assert by_place.sum() == 25 * steps
    assert set(launches.stage[joined.how[DRAM_READ] != UNMATCHED].tolist()) == {1}


def test_a_real_file_of_another_program_is_refused(real_attribution: Named) -> None:
    opened, attribution = real_attribution("deepseek-ocr_h100_small")
    file = read_counters(DATA / "ncu_h100_truth.csv.xz")
    with pytest.raises(RequestError, match="only 0 of its 4 kernels"):
        join_counters(launches_of(attribution), [file], opened.info.devices[0])


def test_a_real_file_of_another_model_is_refused(real_attribution: Named) -> None:
    opened, attribution = real_attribution("llama_h100_cuda-graph")
    file = read_counters(DATA / "ncu_h100_decode-step.csv.xz")
    with pytest.raises(RequestError, match="lie in the trace's sequence"):
        join_counters(launches_of(attribution), [file], opened.info.devices[0])


# --- alignment -----------------------------------------------------------------------------------------------------


def longest(some: list[int], whole: list[int]) -> int:
    """Length of the longest common subsequence, by the textbook."""
    table = [[0] * (len(whole) + 1) for _ in range(len(some) + 1)]
    for i, a in enumerate(some):
        for j, b in enumerate(whole):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_alignments_are_common_subsequences_and_longest() -> None:
    random.seed(3)
    for _ in range(300):
        some = [random.randrange(4) for _ in range(random.randrange(12))]
        whole = [random.randrange(4) for _ in range(random.randrange(12))]
        partner = align(np.array(some, dtype=np.int64), np.array(whole, dtype=np.int64))
        pairs = [(one, int(place)) for one, place in enumerate(partner) if place >= 0]
        assert all(some[one] == whole[place] for one, place in pairs)
        assert [place for _, place in pairs] == sorted({place for _, place in pairs})
        assert len(pairs) == longest(some, whole)


def test_the_earliest_places_are_taken_where_all_are_found() -> None:
    whole = np.array([5, 1, 5, 2, 1, 2])
    assert align(np.array([1, 2]), whole).tolist() == [1, 3]
    assert align(np.array([5, 1, 5]), whole).tolist() == [0, 1, 2]


def test_an_empty_trace_has_no_launches(attribute: Any) -> None:
    launches: Launches = launches_of(attribute(TraceBuilder().range("prefill", 0, 10, domain="dsocr")))
    assert len(launches) == 0
    assert launches.instances == 0
