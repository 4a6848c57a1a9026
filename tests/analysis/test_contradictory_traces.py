"""Traces whose rows contradict each other: each kind is a finding with its count, never a figure without a word."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

import analysis
from analysis.domain.errors import ResultError, UnfitTraceError
from analysis.quality.findings import Finding
from analysis.report import Report
from analysis.verdict import actions
from analysis.verdict.facts import Facts
from analysis.verdict.records import Budget
from damaged_trace import Damaged, changed, findings
from trace_builder import TraceBuilder
from whole_trace import whole


def built(builder: TraceBuilder, folder: Path, *sql: str) -> dict[str, Finding]:
    return findings(changed(builder.write(folder / "built.sqlite"), *sql))


def report(path: Path) -> Report:
    return analysis.load(path, accept_lossy=True).report()


# --- correlation ids ---------------------------------------------------------------------------------------------------

CALLS, KERNELS = "CUPTI_ACTIVITY_KIND_RUNTIME", "CUPTI_ACTIVITY_KIND_KERNEL"


def test_one_id_of_two_calls_is_told_and_counted(tmp_path: Path) -> None:
    """`head` is of the decode step's launch; with the prefill's launch under the same id it would be of prefill, as the first."""
    told = built(whole(), tmp_path, f"UPDATE {CALLS} SET correlationId = 104 WHERE correlationId = 103")
    finding = told["ambiguous-correlation-ids"]
    assert finding.severity == "unfit"
    assert "1 of 4 GPU operations" in finding.evidence
    assert "such as 104 (cudaLaunchKernel_v7000)" in finding.evidence


def another_call(start: int, end: int, correlation: int, name: int) -> str:
    return (
        f"INSERT INTO {CALLS} (start, end, eventClass, globalTid, correlationId, nameId, returnValue) "
        f"SELECT {start}, {end}, 0, globalTid, {correlation}, {name}, 0 FROM {CALLS} LIMIT 1"
    )


def test_a_driver_call_inside_its_runtime_call_shares_its_id(tmp_path: Path) -> None:
    assert "ambiguous-correlation-ids" not in built(whole(), tmp_path, another_call(12, 18, 103, 4))
    assert "ambiguous-correlation-ids" in built(whole(), tmp_path, another_call(22, 28, 103, 4))


def test_ids_that_own_no_work_may_repeat(tmp_path: Path) -> None:
    assert "ambiguous-correlation-ids" not in built(whole(), tmp_path, another_call(270, 280, 105, 6))


def test_two_processes_may_use_one_id(tmp_path: Path) -> None:
    builder = TraceBuilder().thread(1, 1).launch(10, 20, ("a", 30, 60)).thread(2, 2).launch(10, 20, ("b", 30, 60))
    same = "UPDATE {} SET correlationId = 101 WHERE correlationId = 102"
    told = built(builder, tmp_path, same.format(CALLS), same.format(KERNELS))
    assert not {"ambiguous-correlation-ids", "kernels-share-a-launch"} & set(told)


def test_few_ambiguous_ids_are_a_warning(damaged: Damaged) -> None:
    """One launch of 3,000 gets the id of the one before it."""
    one = f"SELECT min(correlationId) FROM {KERNELS}"
    path = damaged(
        f"UPDATE {CALLS} SET correlationId = ({one}) WHERE correlationId = "
        f"(SELECT min(correlationId) FROM {KERNELS} WHERE correlationId > ({one}))"
    )
    finding = findings(path)["ambiguous-correlation-ids"]
    assert finding.severity == "warning"
    assert finding.title == "1 GPU operation may be of another call"


def test_two_kernels_of_one_launch_are_told_and_counted(tmp_path: Path) -> None:
    finding = built(whole(), tmp_path, f"UPDATE {KERNELS} SET correlationId = 103")["kernels-share-a-launch"]
    assert finding.severity == "unfit"
    assert (
        "2 of 2 kernels have the correlation id of another kernel, and 1 call (1 cudaLaunchKernel_v7000)"
        in finding.evidence
    )


def test_a_graphs_launch_and_one_on_several_devices_launch_many(
    real_trace: Callable[[str], Path], tmp_path: Path
) -> None:
    assert "kernels-share-a-launch" not in findings(real_trace("deepseek-ocr_h100_recorded-graph"))
    name = "UPDATE StringIds SET value = 'cudaLaunchCooperativeKernelMultiDevice_v9000' WHERE value LIKE 'cudaLaunchKernel%'"
    told = built(whole(), tmp_path, f"UPDATE {KERNELS} SET correlationId = 103", name)
    assert "kernels-share-a-launch" not in told


# --- shapes and names --------------------------------------------------------------------------------------------------


def test_a_block_of_too_many_threads_is_told_and_reads_as_not_recorded(damaged: Damaged) -> None:
    """512 × 4 × 1: each side is possible, the product is not."""
    path = damaged(f"UPDATE {KERNELS} SET blockX = 512, blockY = 4, blockZ = 1 WHERE rowid IN (7, 9)")
    finding = findings(path)["impossible-blocks"]
    assert finding.severity == "warning"
    assert finding.title == "2 kernels have more than 1,024 threads a block"
    assert "(row 7, row 9)" in finding.evidence
    shapes = [row for row in report(path).kernel_shapes if row.block == (512, 4, 1)]
    assert shapes == []
    everywhere = damaged(f"UPDATE {KERNELS} SET blockX = 1024, blockY = 2")
    assert findings(everywhere)["impossible-blocks"].severity == "unfit"
    assert all(row.block is None and row.theoretical_occupancy is None for row in report(everywhere).kernel_shapes)


def test_the_largest_block_is_possible(damaged: Damaged) -> None:
    path = damaged(f"UPDATE {KERNELS} SET blockX = 1024, blockY = 1, blockZ = 1")
    assert "impossible-blocks" not in findings(path)
    assert {row.block for row in report(path).kernel_shapes} == {(1024, 1, 1)}


@pytest.mark.parametrize(
    "side", ["gridX = 0", "gridY = 65536", "gridZ = 70000", "blockX = 0", "blockX = 1025", "blockZ = 65"]
)
def test_a_side_of_grid_or_block_out_of_its_range_is_told(damaged: Damaged, side: str) -> None:
    path = damaged(f"UPDATE {KERNELS} SET {side} WHERE rowid = 5")
    finding = findings(path)["impossible-values"]
    assert f"{KERNELS}.{side.split()[0]} in 1 of " in finding.evidence
    assert "row 5: " in finding.evidence


def without_constraints(table: str) -> tuple[str, ...]:
    """SQL that lets the columns of a table be NULL."""
    return f"CREATE TABLE again AS SELECT * FROM {table}", f"DROP TABLE {table}", f"ALTER TABLE again RENAME TO {table}"


@pytest.mark.parametrize("nothing", ["NULL", "''"])
def test_a_name_that_holds_no_text_is_told_and_counted(damaged: Damaged, nothing: str) -> None:
    most = f"(SELECT demangledName FROM {KERNELS} GROUP BY demangledName ORDER BY count(*) DESC LIMIT 1)"
    path = damaged(*without_constraints("StringIds"), f"UPDATE StringIds SET value = {nothing} WHERE id = {most}")
    finding = findings(path)["names-missing"]
    assert (finding.severity, finding.title) == ("warning", "kernels have no name")
    with sqlite3.connect(path) as database:
        rows, of = database.execute(f"SELECT sum(demangledName = {most}), count(*) FROM {KERNELS}").fetchone()
        (string,) = database.execute(f"SELECT {most}").fetchone()
    assert f"{rows:,} of {of:,} kernels (demangledName of row " in finding.evidence
    assert f": {string}): StringIds holds no text for these" in finding.evidence


def test_calls_and_ranges_without_a_name_are_told(damaged: Damaged) -> None:
    path = damaged(
        f"UPDATE StringIds SET value = '' WHERE id = (SELECT nameId FROM {CALLS} LIMIT 1)",
        "INSERT INTO StringIds VALUES (2000000, '')",
        "UPDATE NVTX_EVENTS SET textId = 2000000 WHERE rowid = 40",
    )
    finding = findings(path)["names-missing"]
    assert finding.title == "events have no name"
    assert " calls (nameId of row 1: " in finding.evidence
    assert " ranges and marks (textId of row 40: 2000000)" in finding.evidence


def test_kernels_that_name_no_string_are_told(damaged: Damaged) -> None:
    nothing = f"UPDATE {KERNELS} SET demangledName = NULL, shortName = NULL WHERE rowid = 3"
    evidence = findings(damaged(*without_constraints(KERNELS), nothing))["names-missing"].evidence
    assert evidence.startswith("1 of 14,343 kernels (demangledName of row 3: NULL): StringIds holds no text for these.")


# --- counts of rows ----------------------------------------------------------------------------------------------------


def test_rows_that_were_deleted_are_not_counted_by_the_ids_of_others(damaged: Damaged) -> None:
    """The last rows' ids are as large as ever, though most rows before them have gone."""
    last = f"(SELECT max(rowid) FROM {CALLS})"
    path = damaged(f"DELETE FROM {CALLS} WHERE rowid > 100 AND rowid < {last} - 100")
    with sqlite3.connect(path) as database:
        (calls,) = database.execute(f"SELECT count(*) FROM {CALLS}").fetchone()
    assert f"{calls:,} calls are there" in findings(path)["unrecorded-api-calls"].evidence
    whole_again = damaged()
    with sqlite3.connect(whole_again) as database:
        (rows,) = database.execute("SELECT count(*) FROM NVTX_EVENTS").fetchone()
    deleted = damaged(
        f"INSERT INTO DIAGNOSTIC_EVENT (timestamp, timestampType, source, severity, text) VALUES "
        f"(0, 0, 0, 1, 'Number of NVTX events collected: {rows:,}.')",
        f"DELETE FROM NVTX_EVENTS WHERE eventType = 59 AND rowid % 3 = 0 AND rowid < {rows}",
    )
    with sqlite3.connect(deleted) as database:
        (left,) = database.execute("SELECT count(*) FROM NVTX_EVENTS").fetchone()
        (said,) = database.execute(
            "SELECT group_concat(text) FROM DIAGNOSTIC_EVENT WHERE text LIKE '%NVTX events collected%'"
        ).fetchone()
    assert rows > left, said
    assert f"the file holds {left:,}" in findings(deleted)["fewer-rows-than-collected"].evidence


# --- times -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [10, 100])
def test_kernels_that_last_many_times_longer_cannot_be(damaged: Damaged, factor: int) -> None:
    """They overlap on their stream; at 10 times still inside the session."""
    path = damaged(f'UPDATE {KERNELS} SET "end" = start + {factor} * ("end" - start)')
    finding = findings(path)["overlapping-operations"]
    assert finding.severity == "unfit"
    with pytest.raises(UnfitTraceError, match="run at the same time"):
        analysis.load(path)


def test_two_of_a_stream_may_overlap_and_those_of_two_streams(tmp_path: Path) -> None:
    """A dependent launch begins before the kernel before it has ended; streams are independent of each other."""
    builder = TraceBuilder().range("prefill", 0, 10_000, domain="dsocr")
    for number in range(60):
        at = 100 * number + 10
        builder.launch(at, at + 5, (f"k{number % 3}", at + 20, at + 200))
    assert "overlapping-operations" not in built(builder, tmp_path)
    longer = f'UPDATE {KERNELS} SET "end" = start + 300'
    assert "overlapping-operations" in built(builder, tmp_path, longer)
    spread = f"UPDATE {KERNELS} SET streamId = 7 + rowid % 3"
    assert "overlapping-operations" not in built(builder, tmp_path, longer, spread)
    graph = f"UPDATE {KERNELS} SET graphNodeId = rowid"
    assert "overlapping-operations" not in built(builder, tmp_path, longer, graph)


def test_a_clock_that_is_off_makes_no_delay_below_0(damaged: Damaged) -> None:
    path = damaged(f'UPDATE {KERNELS} SET start = start - 10000000, "end" = "end" - 10000000')
    assert "start before their launch" in findings(path)["clock-oddities"].evidence
    stages = report(path).stages
    assert [(stage.queue_delay_median_ns, stage.queue_delay_p95_ns) for stage in stages] == [(None, None)] * len(stages)


def test_a_clock_that_reads_less_than_0_changes_no_figure(damaged: Damaged, real_trace: Callable[[str], Path]) -> None:
    tables = (KERNELS, CALLS, "CUPTI_ACTIVITY_KIND_MEMCPY", "CUPTI_ACTIVITY_KIND_MEMSET", "NVTX_EVENTS")
    path = damaged(
        *(f'UPDATE {table} SET start = start - 1000000000000, "end" = "end" - 1000000000000' for table in tables)
    )
    moved, whole_trace = report(path), report(real_trace("deepseek-ocr_h100_small"))
    assert moved.stages == whole_trace.stages
    assert moved.unit_times == whole_trace.unit_times
    assert [step.step_ns for step in moved.steps] == [step.step_ns for step in whole_trace.steps]
    assert np.ptp([row.start_ns for row in moved.instances]) == np.ptp([row.start_ns for row in whole_trace.instances])


@pytest.mark.parametrize(
    ("sql", "code", "words"),
    [
        (
            f'UPDATE {CALLS} SET "end" = start + 100 * ("end" - start)', "overlapping-calls",
            "begin inside an earlier call of their thread",
        ),
        (f'UPDATE {KERNELS} SET "end" = start', "instant-kernels", "14,343 of 14,343 kernels end when they start"),
        ("UPDATE CUPTI_ACTIVITY_KIND_MEMCPY SET bytes = 1000000000000", "impossible-copies", "1,000,000,000,000 bytes in "),
        (
            f"UPDATE {KERNELS} SET gridX = 2147483647, gridY = 65535, gridZ = 65535", "impossible-grids",
            f"such as {(2**31 - 1) * 65535**2:,} blocks in ",
        ),
        (
            f'UPDATE {KERNELS} SET start = start - 500000000, "end" = "end" - 500000000', "clock-oddities",
            "start before their launch",
        ),
        (
            f'UPDATE {KERNELS} SET start = start + 500000000, "end" = "end" + 500000000', "synchronises-return-early",
            "3,123 of 3,124 synchronises return more than 100 µs before work ends",
        ),
        (
            'UPDATE NVTX_EVENTS SET "end" = start WHERE "end" IS NOT NULL', "instant-stages",
            "2 of 2 stages end when they start, so that no call lies inside them",
        ),
    ],
    ids=["calls", "kernels", "copies", "grids", "clock ahead", "clock behind", "stages"],
)  # fmt: skip
def test_what_no_device_and_no_thread_can_do_is_unfit_or_told_where_it_is_rare(
    damaged: Damaged, sql: str, code: str, words: str
) -> None:
    path = damaged(sql)
    finding = findings(path)[code]
    assert finding.severity == "unfit"
    assert words in finding.evidence
    with pytest.raises(UnfitTraceError):
        analysis.load(path)
    if code in ("instant-kernels", "impossible-copies", "impossible-grids"):
        last = f" WHERE rowid = (SELECT max(rowid) FROM {sql.split()[1]})"
        assert findings(damaged(sql + last))[code].severity == "warning"


def test_calls_of_a_thread_lie_inside_each_other_or_behind(tmp_path: Path) -> None:
    """A call may hold others; one that begins in it and ends behind it is none, whatever lies between the two."""
    inside = (another_call(1000, 2000, 200, 6), another_call(1100, 1200, 201, 6), another_call(1300, 2000, 202, 6))
    assert "overlapping-calls" not in built(whole(), tmp_path, *inside)
    finding = built(whole(), tmp_path, *inside, another_call(1990, 2100, 203, 6))["overlapping-calls"]
    assert "1 of 9 calls begin inside an earlier call" in finding.evidence


@pytest.mark.parametrize("payload", [-5, 9 * 10**18])
def test_a_payload_that_counts_no_tokens_is_told_and_not_taken(damaged: Damaged, payload: int) -> None:
    path = damaged(f"UPDATE NVTX_EVENTS SET int64Value = {payload}")
    finding = findings(path)["impossible-payloads"]
    assert f"such as {payload:,} of " in finding.evidence
    assert report(path).stages[0].tokens is None


def test_a_clock_and_a_bandwidth_that_no_device_has_read_as_not_recorded(damaged: Damaged) -> None:
    path = damaged("UPDATE TARGET_INFO_GPU SET clockRate = 1, memoryBandwidth = 1, name = 'A GPU'")
    evidence = findings(path)["impossible-values"].evidence
    assert "TARGET_INFO_GPU.clockRate in 1 of " in evidence
    assert "TARGET_INFO_GPU.memoryBandwidth in 1 of " in evidence
    assert all(row.peak_flop_per_s is None for row in report(path).utilisation)


# --- devices -----------------------------------------------------------------------------------------------------------

GPU = "TARGET_INFO_GPU"


def has_a_peak(path: Path) -> bool:
    stated = {"model": "deepseek-ocr", "input_mode": "gundam", "tiles": 6, "prompt_tokens": 916}
    rows = analysis.load(path, accept_lossy=True, **stated).report().utilisation
    assert rows
    return any(row.mfu is not None for row in rows)


@pytest.mark.parametrize(
    ("sql", "code", "words"),
    [
        (f"UPDATE {KERNELS} SET deviceId = 7", "unlisted-device", "14,343 of 17,620 GPU operations ran on device 7"),
        (
            f"INSERT INTO {GPU} SELECT * FROM {GPU}; UPDATE {GPU} SET name = 'Tesla K80' WHERE rowid = 2",
            "devices-share-an-id", "such as 0 (NVIDIA H100 80GB HBM3 and Tesla K80)",
        ),
        (f"UPDATE {GPU} SET name = 'NVIDIA B200'", "contradictory-device", "NVIDIA B200: compute capability 9.0, not 10.0"),
        (f"UPDATE {GPU} SET computeMajor = 99", "contradictory-device", "compute capability 99.0, not 9.0"),
        (f"UPDATE {GPU} SET computeMajor = 0", "contradictory-device", "compute capability 0.0, not 9.0"),
        (f"UPDATE {GPU} SET smCount = 4096", "contradictory-device", "4,096 SMs, not 132"),
        (f"UPDATE {GPU} SET smCount = 1", "contradictory-device", "1 SMs, not 132"),
    ],
    ids=["unlisted", "one id", "another name", "capability 99", "capability 0", "too many SMs", "one SM"],
)  # fmt: skip
def test_a_device_that_cannot_be_is_told_and_has_no_peak(damaged: Damaged, sql: str, code: str, words: str) -> None:
    path = damaged(*sql.split("; "))
    assert words in findings(path)[code].evidence
    assert not has_a_peak(path)


def test_a_device_that_can_be_is_taken(damaged: Damaged) -> None:
    """A row twice is one device; an unknown name contradicts nothing; of a slice the SMs are fewer."""
    codes = {"unlisted-device", "devices-share-an-id", "contradictory-device"}
    path = damaged(f"INSERT INTO {GPU} SELECT * FROM {GPU}")
    assert not codes & set(findings(path))
    assert has_a_peak(path)
    assert not codes & set(
        findings(damaged(f"UPDATE {GPU} SET name = 'NVIDIA Z900', computeMajor = 20, smCount = 500"))
    )
    name = "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    assert not codes & set(findings(damaged(f"UPDATE {GPU} SET name = '{name}', smCount = 16")))


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        (
            "SET registersPerThread = 511, blockX = 1024, blockY = 1, blockZ = 1",
            "blocks of 1024 × 1 × 1 threads with 511 registers each",
        ),
        ("SET dynamicSharedMemory = 4194304", "an SM of this device has 65,536 registers and 233,472 bytes of shared memory"),
    ],
)  # fmt: skip
def test_a_block_that_needs_more_than_an_sm_is_unfit_or_told_where_it_is_rare(
    damaged: Damaged, sql: str, words: str
) -> None:
    finding = findings(damaged(f"UPDATE {KERNELS} {sql}"))["impossible-block-needs"]
    assert finding.severity == "unfit"
    assert "14,343 of 14,343 kernels" in finding.evidence
    assert words in finding.evidence
    few = findings(damaged(f"UPDATE {KERNELS} {sql} WHERE rowid = 100"))["impossible-block-needs"]
    assert few.severity == "warning"


# --- rows that are missing, there twice, or of another thread --------------------------------------------------------------

TIMES = "NVTX_EVENTS WHERE eventType = 59"


@pytest.mark.parametrize(
    ("sql", "code", "words"),
    [
        (f"UPDATE {KERNELS} SET correlationId = 0", "gpu-rows-without-launch", "81.40% of 17,620"),
        (f"UPDATE {KERNELS} SET correlationId = correlationId + 1", "gpu-rows-without-launch", "81.40% of 17,620"),
        (f"DELETE FROM {CALLS} WHERE rowid % 2 = 0", "gpu-rows-without-launch", "8,920 GPU operations"),
        (f"DELETE FROM {KERNELS} WHERE rowid % 2 = 0", "launches-without-gpu-rows", "of 14,343 launches"),
        (f"INSERT INTO {CALLS} SELECT * FROM {CALLS}", "repeated-calls", "20,750 of 41,500 calls"),
        (
            f"UPDATE {CALLS} SET start = (SELECT min(start) FROM {CALLS}), end = (SELECT max(end) FROM {CALLS})",
            "repeated-calls", "20,749 of 20,750 calls",
        ),
        (f"INSERT INTO NVTX_EVENTS SELECT * FROM {TIMES}", "repeated-ranges", "1,515 of 3,030 ranges"),
        ("UPDATE NVTX_EVENTS SET globalTid = globalTid + 1", "stages-without-gpu-work", "none of the 17,620 GPU operations"),
        (f"UPDATE {CALLS} SET globalTid = globalTid + 1", "stages-without-gpu-work", "none of the 17,620 GPU operations"),
        (
            'UPDATE NVTX_EVENTS SET start = start - 2000000000, "end" = "end" - 2000000000 WHERE eventType = 59',
            "stages-without-gpu-work", "while one of its 2 stages was open",
        ),
    ],
    ids=[
        "ids 0", "ids shifted", "calls deleted", "kernels deleted", "calls twice", "calls at once", "ranges twice",
        "ranges of another thread", "calls of another thread", "ranges of another time",
    ],
)  # fmt: skip
def test_rows_that_are_missing_or_of_others_are_unfit(damaged: Damaged, sql: str, code: str, words: str) -> None:
    finding = findings(damaged(sql))[code]
    assert finding.severity == "unfit"
    assert words in f"{finding.title} {finding.evidence}"


def test_one_row_more_is_told(damaged: Damaged) -> None:
    few = findings(
        damaged(
            f"INSERT INTO {CALLS} SELECT * FROM {CALLS} ORDER BY start LIMIT 1",
            f"INSERT INTO NVTX_EVENTS SELECT * FROM {TIMES} LIMIT 1",
            f"UPDATE {KERNELS} SET correlationId = 0 WHERE rowid % 20 = 0",
        )
    )
    for code in ("repeated-calls", "repeated-ranges", "gpu-rows-without-launch"):
        assert few[code].severity == "warning"


def test_a_copy_of_a_kind_without_a_name_is_told(damaged: Damaged) -> None:
    finding = findings(damaged("UPDATE CUPTI_ACTIVITY_KIND_MEMCPY SET copyKind = 126"))["unknown-copy-kinds"]
    assert "3,124 of 3,124 copies (copyKind 126)" in finding.evidence


def test_a_stage_without_gpu_work_has_no_utilisation(damaged: Damaged) -> None:
    assert has_a_peak(damaged("UPDATE NVTX_EVENTS SET int32Value = NULL"))
    assert not has_a_peak(damaged("UPDATE NVTX_EVENTS SET globalTid = globalTid + 1"))


@pytest.mark.parametrize(
    ("synchronises", "copies", "advice"),
    [
        (0, 0, None),
        (1, 0, "remove its 1 synchronise"),
        (7, 3, "remove its 7 synchronises"),
        (0, 3, "remove its 3 small device-to-host copies"),
    ],
)
def test_no_synchronises_are_not_removed(
    damaged: Damaged, monkeypatch: pytest.MonkeyPatch, synchronises: int, copies: int, advice: str | None
) -> None:
    """Where a stage has idle time behind synchronises and none of its own is counted, none is to be removed."""
    given: list[tuple[Facts, Budget]] = []
    advise = actions._synchronises
    monkeypatch.setattr(actions, "_synchronises", lambda facts, budget: given.append((facts, budget)))
    report(damaged("UPDATE NVTX_EVENTS SET color = 0"))
    assert len(given) == 2
    for facts, budget in given:
        assert budget.time_of("synchronises") > 0
        stage = evolve(facts.stage, synchronises=synchronises, small_d2h_copies=copies)
        action = advise(evolve(facts, stage=stage, module_waits=()), budget)  # no loop over experts
        assert (None if action is None else action.short) == advice


def test_figures_that_cannot_be_of_rows_that_cannot_be_are_an_unfit_trace(
    damaged: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the trace is not called ours; of a good trace it still is."""
    monkeypatch.setattr("analysis.report.verdicts_that_differ", lambda verdicts: ["the budget adds up to 3 ns"])
    with pytest.raises(
        UnfitTraceError, match=r"14,343 kernels take no time.*the budget adds up to 3 ns; nothing was written"
    ):
        report(damaged(f'UPDATE {KERNELS} SET "end" = start'))
    with pytest.raises(ResultError, match="please report this"):
        report(damaged("UPDATE NVTX_EVENTS SET color = 0"))
