"""Real traces after a damage that leaves their rows in order with each other: each is told, and no whole trace is."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import analysis
from analysis.domain.errors import UnfitTraceError
from analysis.quality.findings import Contradiction
from damaged_trace import Damaged, findings
from trace_builder import TraceBuilder

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"

CALLS, KERNELS, COPIES = "CUPTI_ACTIVITY_KIND_RUNTIME", "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_MEMCPY"
SETS, RANGES = "CUPTI_ACTIVITY_KIND_MEMSET", "NVTX_EVENTS"
STREAMS, CONTEXTS = "TARGET_INFO_CUDA_STREAM", "TARGET_INFO_CUDA_CONTEXT_INFO"
SMALL, GRAPH = "deepseek-ocr_h100_small", "deepseek-ocr_h100_recorded-graph"

CODES = (
    "coarse-times", "contexts-share-an-id", "contradictory-copies", "contradictory-session", "device-without-context",
    "empty-copies", "equal-kernels", "failed-calls", "failed-launches-with-work", "graph-nodes-without-graph",
    "implausible-time-unit", "instant-calls", "names-repeated", "one-name-for-many-kernels", "overlapping-stages",
    "too-many-streams", "unknown-graph-nodes", "unlisted-streams",
)  # fmt: skip
"""Findings of this file's damages. No good capture has one."""


def times(change: str, *, session: str | None = None) -> tuple[str, ...]:
    """SQL that changes all times of a trace, and of its session."""
    events = (KERNELS, CALLS, COPIES, SETS, RANGES)
    sql = [f'UPDATE {table} SET start = start {change}, "end" = "end" {change}' for table in events]
    whole = ("duration", "startTime", "stopTime")
    return (*sql, f"UPDATE ANALYSIS_DETAILS SET {', '.join(f'{name} = {name} {session or change}' for name in whole)}")


# --- whole traces ------------------------------------------------------------------------------------------------------


def real_traces() -> Iterator[str]:
    for path in sorted(DATA.iterdir()):
        if path.name.endswith((".sqlite.xz", ".columns.xz")):
            yield path.name.split(".")[0]


@pytest.mark.parametrize("name", list(real_traces()))
def test_no_real_trace_has_one_of_these_findings(real_trace: Callable[[str], Path], name: str) -> None:
    assert not set(findings(real_trace(name))) & set(CODES)


def test_every_impossible_finding_is_declared_as_a_contradiction_or_is_none() -> None:
    """Of what is called impossible or contradictory, figures may be too: its declaration says so, not a list elsewhere."""
    declared: dict[str, str] = {}
    for path in (ROOT / "analysis" / "quality").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("Finding", "Contradiction"):
                continue
            code = node.args[0] if node.args else node.keywords[0].value
            if isinstance(code, ast.Constant):
                declared[str(code.value)] = ast.unparse(node.func)
    always_unfit = {"impossible-times", "overlapping-operations"}
    told = ("impossible-", "contradictory-", "repeated-", "overlapping-", "instant-")
    chosen = {code: kind for code, kind in declared.items() if code.startswith(told) and code not in always_unfit}
    assert {"impossible-copies", "contradictory-session", "repeated-calls", "instant-kernels"} < set(chosen)
    assert set(chosen.values()) == {"Contradiction"}


# --- the unit of times -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("* 1000", ("14,301 launches that did not wait", "takes 3.93 ms", "14,343 kernels takes 928 µs", "multiples of 1,000 ns")),
        ("* 1024", ("takes 4.03 ms", "multiples of 1,024 ns")),
        ("/ 1000", ("half of 14,343 launches take 8 ns at most", "half of 14,343 kernels take 2 ns at most")),
        ("/ 100", ("half of 14,343 launches take 84 ns at most", "half of 14,343 kernels take 22 ns at most")),
    ],
)  # fmt: skip
def test_times_of_another_unit_are_unfit(damaged: Damaged, change: str, words: tuple[str, ...]) -> None:
    """All times agree with each other, and with the session; what a launch takes and a clock shows does not."""
    path = damaged(*times(change))
    finding = findings(path)["implausible-time-unit"]
    assert finding.severity == "unfit"
    assert all(each in finding.evidence for each in words), finding.evidence
    assert f"({CALLS}, row " in finding.evidence
    assert f"({KERNELS}, row " in finding.evidence
    with pytest.raises(UnfitTraceError, match="to be in nanoseconds"):
        analysis.load(path)


def test_a_runs_own_record_and_its_copies_tell_the_unit_too(damaged: Damaged) -> None:
    evidence = findings(damaged(*times("* 1000"), name=GRAPH))["implausible-time-unit"].evidence
    assert "the fastest moves 6,291,456 bytes in 754,639,000 ns, 8 MB/s" in evidence
    assert (
        "a prefill takes 61.4 s (median of 1), 1,143 times as long as the 53.7 ms that the run's own record has"
        in evidence
    )
    evidence = findings(damaged(*times("/ 1000"), name=GRAPH))["implausible-time-unit"].evidence
    assert "a prefill takes 61.4 µs (median of 1), 1/" in evidence


def test_operators_of_a_cpu_may_take_some_ten_ns(damaged: Damaged) -> None:
    """Our torch collector gives them as launches and kernels."""
    short = times("/ 100")
    assert "implausible-time-unit" in findings(damaged(*short))
    mark = "INSERT INTO META_DATA_CAPTURE (name, value) VALUES ('DSOCR_COLLECTOR', 'torch-cpu')"
    assert "implausible-time-unit" not in findings(damaged(*short, mark))


def test_times_of_a_coarse_clock_are_told(damaged: Damaged) -> None:
    coarse = damaged(*times("/ 1000 * 1000"))
    assert findings(coarse)["coarse-times"].severity == "warning"
    finding = findings(damaged(*times("* 7")))["coarse-times"]
    assert "all 20,750 calls are multiples of 7 ns" in finding.evidence
    assert "coarse-times" not in findings(damaged(*times("/ 100 * 100")))  # as clocks of Windows


def test_launches_that_wait_for_their_kernel_do_not_tell_the_unit(tmp_path: Path) -> None:
    """CUDA_LAUNCH_BLOCKING=1 with kernels of a millisecond: each launch takes as long."""
    builder = TraceBuilder()
    for number in range(300):
        at = number * 2_000_000 + number
        builder.launch(at, at + 1_500_000, (f"k{number % 7}", at + 5_000, at + 1_400_000))
    assert "implausible-time-unit" not in findings(builder.write(tmp_path / "blocking.sqlite"))


def test_a_session_lasts_from_its_start_to_its_stop(damaged: Damaged) -> None:
    finding = findings(damaged("UPDATE ANALYSIS_DETAILS SET stopTime = stopTime + 10000000000"))[
        "contradictory-session"
    ]
    assert "duration of 767,517,277 ns" in finding.evidence
    assert "10,767,517,277 ns pass" in finding.evidence
    none = findings(damaged("UPDATE ANALYSIS_DETAILS SET duration = 0"))
    assert {"contradictory-session", "clock-oddities"} <= set(none)


# --- streams, contexts -------------------------------------------------------------------------------------------------


def test_a_stream_for_every_kernel_is_told(damaged: Damaged) -> None:
    own = f"UPDATE {KERNELS} SET streamId = rowid"
    told = findings(damaged(own))
    finding = told["unlisted-streams"]
    assert finding.severity == "unfit"
    assert "14,319 of 17,620 GPU operations ran on 14,319 streams (1, 2, 3 and 14,316 more)" in finding.evidence
    assert f"such as 1 ({KERNELS}, row 1)" in finding.evidence
    assert "17,620 GPU operations on 14,343 streams" in told["too-many-streams"].evidence
    listed = f"INSERT INTO {STREAMS} SELECT DISTINCT streamId, 0, 1, 438, 1, 0, 1 FROM {KERNELS}"
    told = findings(damaged(own, listed))
    assert "unlisted-streams" not in told
    assert "too-many-streams" in told


def test_a_stream_that_the_process_does_not_have_is_told(damaged: Damaged, tmp_path: Path) -> None:
    assert (
        findings(damaged(f"UPDATE {KERNELS} SET streamId = 999 WHERE rowid = 7"))["unlisted-streams"].severity
        == "warning"
    )
    builder = TraceBuilder().thread(1, 1).context(7, 8).launch(10, 20, ("a", 30, 60), stream=8)
    assert "unlisted-streams" not in findings(builder.write(tmp_path / "listed.sqlite"))
    builder.thread(2, 2).context(9, null_stream=7).launch(10, 20, ("b", 30, 60), stream=8)
    assert (
        "1 of 2 GPU operations ran on 1 stream (8)"
        in findings(builder.write(tmp_path / "other.sqlite"))["unlisted-streams"].evidence
    )


def test_contexts_that_contradict_each_other_or_the_work_are_told(damaged: Damaged) -> None:
    columns = "nullStreamId, hwId, vmId, processId, 1, contextId, parentContextId, isGreenContext"
    finding = findings(damaged(f"INSERT INTO {CONTEXTS} SELECT {columns} FROM {CONTEXTS}"))["contexts-share-an-id"]
    assert "such as 1 of process 438, on devices 0 and 1" in finding.evidence
    finding = findings(damaged(f"UPDATE {CONTEXTS} SET deviceId = 7"))["device-without-context"]
    assert finding.severity == "unfit"
    assert "process 438 has contexts on device 7, and work on 0" in finding.evidence
    two = "tensor-parallel_2xh200_rank0"
    moved = f"UPDATE {KERNELS} SET deviceId = 1 WHERE rowid = 100"
    assert findings(damaged(moved, name=two))["device-without-context"].severity == "warning"


# --- names -------------------------------------------------------------------------------------------------------------

NAMES = "demangledName", "shortName"


def test_one_name_for_every_kernel_is_unfit(damaged: Damaged) -> None:
    one = ", ".join(f"{column} = (SELECT {column} FROM {KERNELS} LIMIT 1)" for column in NAMES)
    finding = findings(damaged(f"UPDATE {KERNELS} SET {one}"))["one-name-for-many-kernels"]
    assert finding.severity == "unfit"
    assert "14,343 of 14,343 kernels have 1 name" in finding.evidence
    assert f"({KERNELS}, row 1) is there with 23 numbers of registers" in finding.evidence


def test_one_name_for_some_kernels_is_told(damaged: Damaged) -> None:
    one = ", ".join(f"{column} = (SELECT {column} FROM {KERNELS} LIMIT 1)" for column in NAMES)
    finding = findings(damaged(f"UPDATE {KERNELS} SET {one} WHERE rowid < 3000"))["one-name-for-many-kernels"]
    assert finding.severity == "warning"


def test_names_are_looked_at_where_a_process_has_copies_alone(damaged: Damaged) -> None:
    """They are a rank then, which has no kernels."""
    here = f"(SELECT rowid FROM {COPIES} ORDER BY start LIMIT 2)"
    path = damaged(f"UPDATE {COPIES} SET globalPid = globalPid + (1 << 24) WHERE rowid IN {here}")
    command = [
        sys.executable,
        "-m",
        "analysis.cli",
        "report",
        str(path),
        "--format",
        "json",
        "--out",
        str(path.with_name("o")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "rank0, rank1" in done.stderr


def test_one_text_for_all_names_of_kernels_is_unfit(damaged: Damaged) -> None:
    used = " UNION ".join(f"SELECT {column} FROM {KERNELS}" for column in NAMES)
    finding = findings(damaged(f"UPDATE StringIds SET value = 'x' WHERE id IN ({used})"))["names-repeated"]
    assert finding.severity == "unfit"
    assert "14,343 of 14,343 kernels: StringIds holds 'x' under 165 ids" in finding.evidence


# --- results of calls --------------------------------------------------------------------------------------------------

LAUNCHING = "nameId IN (SELECT id FROM StringIds WHERE value LIKE '%Launch%Kernel%')"


def test_launches_that_failed_and_have_kernels_contradict_themselves(damaged: Damaged) -> None:
    finding = findings(damaged(f"UPDATE {CALLS} SET returnValue = 700 WHERE {LAUNCHING}"))["failed-launches-with-work"]
    assert finding.severity == "unfit"
    assert "14,343 of 14,343 launches: 12,064 cudaLaunchKernel_v7000" in finding.evidence
    assert "returned CUDA error 700 (illegal address)" in finding.evidence
    last = f"SELECT max(rowid) FROM {CALLS} WHERE {LAUNCHING}"
    told = findings(damaged(f"UPDATE {CALLS} SET returnValue = 1 WHERE rowid = ({last})"))
    assert told["failed-launches-with-work"].severity == "warning"
    assert "failed-launches" not in told


def test_launches_that_failed_and_have_none_are_the_programs_own(damaged: Damaged) -> None:
    last = f"SELECT max(rowid) FROM {CALLS} WHERE {LAUNCHING}"
    told = findings(
        damaged(
            f"DELETE FROM {KERNELS} WHERE correlationId = (SELECT correlationId FROM {CALLS} WHERE rowid = ({last}))",
            f"UPDATE {CALLS} SET returnValue = 719 WHERE rowid = ({last})",
        )
    )
    assert "returned CUDA error 719 (launch failure)" in told["failed-launches"].evidence
    assert "failed-launches-with-work" not in told


def test_synchronises_that_failed_are_told_with_their_error(damaged: Damaged) -> None:
    waits = "nameId IN (SELECT id FROM StringIds WHERE value LIKE 'cudaStreamSynchronize%')"
    finding = findings(damaged(f"UPDATE {CALLS} SET returnValue = 700 WHERE {waits} AND rowid > 20000"))["failed-calls"]
    assert "cudaStreamSynchronize_v3020 returned CUDA error 700 (illegal address)" in finding.evidence
    not_ready = damaged(f"UPDATE {CALLS} SET returnValue = 600 WHERE {waits}")
    assert "failed-calls" not in findings(not_ready)


# --- graphs, copies, stages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "name", "code", "severity", "words"),
    [
        (
            f"UPDATE {KERNELS} SET graphNodeId = (1 << 32) | rowid", SMALL, "graph-nodes-without-graph", "unfit",
            "14,343 of 17,620 GPU operations have a graphNodeId",
        ),
        (
            f"UPDATE {KERNELS} SET graphNodeId = graphNodeId + 1000000", GRAPH, "unknown-graph-nodes", "warning",
            "5,598 of 5,808 of 933 nodes",
        ),
        (f"UPDATE {COPIES} SET bytes = 0", SMALL, "empty-copies", "warning", f"3,124 of 3,124 copies (row 1 of {COPIES})"),
        (
            f"UPDATE {COPIES} SET copyKind = 3 - copyKind WHERE copyKind IN (1, 2)", SMALL, "contradictory-copies", "unfit",
            "3,121 of 3,124 copies (row 1: copyKind 2",
        ),
        (f"UPDATE {COPIES} SET copyKind = 8 WHERE rowid = 60", SMALL, "contradictory-copies", "warning", "row 60: copyKind 8"),
        (f"UPDATE {SETS} SET bytes = 1 << 40", SMALL, "impossible-copies", "unfit", "moves 1,099,511,627,776 bytes"),
        (f'UPDATE {CALLS} SET "end" = start', SMALL, "instant-calls", "unfit", "20,750 of 20,750 calls end when they start"),
        (f'UPDATE {KERNELS} SET "end" = start + 928', SMALL, "equal-kernels", "unfit", "14,343 kernels of 165 names takes 928 ns"),
        (
            f"UPDATE {RANGES} SET start = (SELECT min(start) FROM {RANGES} WHERE text = 'prefill' OR textId IN "
            "(SELECT id FROM StringIds WHERE value = 'prefill')) WHERE text = 'decode' OR textId IN "
            "(SELECT id FROM StringIds WHERE value = 'decode')",
            SMALL, "overlapping-stages", "warning", "dsocr:prefill at 17,278,081 ns, while dsocr:decode lasts",
        ),
    ],
    ids=[
        "nodes without graph", "nodes of no graph", "empty copies", "copies turned round", "one copy", "sets", "calls", "kernels",
        "stages",
    ],
)  # fmt: skip
def test_rows_that_cannot_be_together_are_told(
    damaged: Damaged, sql: str, name: str, code: str, severity: str, words: str
) -> None:
    finding = findings(damaged(sql, name=name))[code]
    assert finding.severity == severity
    assert words in finding.evidence.replace("is said to move", "moves"), finding.evidence


def test_a_contradiction_is_a_finding_like_others_in_a_report(damaged: Damaged) -> None:
    profile = analysis.load(damaged(f"UPDATE {COPIES} SET bytes = 0"))
    (finding,) = [each for each in profile.report().findings if each.code == "empty-copies"]
    assert isinstance(finding, Contradiction)
    assert "empty-copies" in set(profile.findings()["code"])
