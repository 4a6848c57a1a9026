"""Each check of the fuzzer finds the fault that it is for: planted here, in the product or in its results."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from analysis.api.allocator import keep_freed_memory
from fuzz.bases import Bases, make_bases
from fuzz.cases import KINDS, Case, make_case
from fuzz.invariants import TraceFacts, facts_of, read_strictly, wrong_in_report, wrong_in_table, wrong_values
from fuzz.oracle import judge
from fuzz.running import Limits, Outcome, run_command, run_in_fork

PATIENT = Limits()


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return make_bases(tmp_path_factory.mktemp("bases"))


def case_in(folder: Path, **changes: Any) -> Case:
    folder.mkdir(exist_ok=True)
    case = Case("seed", 0, "rows", "damage", "anything", folder, "dsocr-analyze", ("report", "whole.sqlite", "--out",
                "out", "--format", "json"), ("whole.sqlite",), "whole", writes_to="out")  # fmt: skip
    return evolve(case, **changes)


def nothing(case: Case) -> tuple[Outcome, Path]:
    raise AssertionError(f"{case.what}: nothing undamaged is asked for")


def kinds_of(case: Case, call: Callable[[], object], limits: Limits = PATIENT) -> set[str]:
    return {failure.kind for failure in judge(case, run_in_fork(call, case.folder, limits), nothing, limits)}


def say(*lines: str, code: int) -> Callable[[], object]:
    def call() -> None:
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.exit(code)

    return call


GOOD = "dsocr-analyze: error: whole.sqlite: is damaged; export the report again"


def test_an_error_in_one_line_with_name_and_remedy_is_right(tmp_path: Path) -> None:
    assert kinds_of(case_in(tmp_path / "case"), say(GOOD, code=3)) == set()


# --- the process -----------------------------------------------------------------------------------------------------


def raise_something() -> None:
    raise KeyError("planted")


def print_a_traceback_of_a_thread() -> None:
    import threading

    thread = threading.Thread(target=raise_something)
    thread.start()
    thread.join()


def use_the_processor() -> None:
    while True:
        pass


def hold_much() -> None:
    held = bytearray(400 << 20)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(5)


def end_by_signal() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("call", "limits", "kind"),
    [
        (raise_something, PATIENT, "traceback"),
        (print_a_traceback_of_a_thread, PATIENT, "traceback"),
        (lambda: time.sleep(60), Limits(wall_s=0.2), "hang"),
        (use_the_processor, Limits(cpu_s=1), "hang"),
        (hold_much, Limits(memory_bytes=300 << 20), "memory"),
        (end_by_signal, PATIENT, "crash"),
        (say(GOOD, code=70), PATIENT, "exit code"),
        (say(GOOD, code=1), PATIENT, "exit code"),
        (say("FUZZ: a program was started: x", code=2), PATIENT, "program started"),
    ],
    ids=["raises", "thread raises", "waits", "loops", "memory", "signal", "code 70", "code 1", "program"],
)
def test_how_a_process_ends(tmp_path: Path, call: Callable[[], object], limits: Limits, kind: str) -> None:
    assert kinds_of(case_in(tmp_path / "case"), call, limits) == {kind}


def test_memory_counts_where_the_parent_has_freed_as_much(tmp_path: Path) -> None:
    def parent() -> None:
        keep_freed_memory()
        kept = [bytearray(b"x" * (1 << 20)) for _ in range(500)]
        last = bytearray(b"x" * (1 << 20))  # above the others: without it the heap would end below them
        kept.clear()
        kinds = kinds_of(case_in(tmp_path / "case"), hold_much, Limits(memory_bytes=300 << 20))
        sys.stdout.write(f"{sorted(kinds)} {len(last)}")

    assert run_in_fork(parent, tmp_path, PATIENT).stdout == f"['memory'] {1 << 20}"


# --- words and files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (GOOD, GOOD),
        ("Some warning", GOOD),
        ("dsocr-analyze: error: ",),
        ("dsocr-analyze: error: is damaged; export the report again",),
        ("dsocr-analyze: error: whole.sqlite: bad",),
        (f"{GOOD} \x1b[2J",),
        (GOOD + "x" * 3000,),
    ],
    ids=["nothing", "two", "another", "empty", "no file", "no remedy", "control characters", "very long"],
)
def test_the_words_of_an_error(tmp_path: Path, lines: tuple[str, ...]) -> None:
    assert kinds_of(case_in(tmp_path / "case"), say(*lines, code=3)) == {"words"}


REFUSE = say(GOOD, code=3)


def leave(path: str, then: Callable[[], object] = REFUSE) -> Callable[[], object]:
    def call() -> None:
        target = Path(os.path.expandvars(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("x")
        then()

    return call


def start_a_process() -> None:
    subprocess.Popen(["/bin/sleep", "30"], env={"PATH": "/bin:/usr/bin"})
    say(GOOD, code=3)()


@pytest.mark.parametrize(
    ("call", "kinds"),
    [
        (leave("out/report.json"), {"half-written"}),
        (leave("out/.report.json.x.tmp"), {"half-written", "left behind"}),
        (leave("$TMPDIR/dsocr-x/copy.sqlite"), {"left behind"}),
        (leave("whole.sqlite-journal"), {"left behind"}),
        (leave("whole.sqlite"), {"input changed"}),
        (start_a_process, {"left behind"}),
    ],
    ids=["half-written", "temporary", "temporary folder", "beside", "input", "process"],
)
def test_what_is_left(tmp_path: Path, call: Callable[[], object], kinds: set[str]) -> None:
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "whole.sqlite").write_text("y")
    assert kinds_of(case_in(tmp_path / "case"), call) == kinds


def test_warnings_of_numpy_are_seen(tmp_path: Path, report: dict[str, Any]) -> None:
    text = json.dumps(report)

    def call() -> None:
        sys.stderr.write("x.py:1: RuntimeWarning: overflow encountered in add\n")
        leave("out/report.json", lambda: Path("out/report.json").write_text(text))()

    assert kinds_of(case_in(tmp_path / "case"), call) == {"warning"}


# --- results ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of the undamaged trace "whole"."""
    outcome, folder = made(bases, "whole", tmp_path_factory.mktemp("report"))
    assert outcome.code == 0, outcome.stderr
    plain: dict[str, Any] = read_strictly((folder / "out" / "report.json").read_text())
    return plain


def made(bases: Bases, name: str, folder: Path) -> tuple[Outcome, Path]:
    shutil.copyfile(bases.traces[name], folder / f"{name}.sqlite")
    argv = ("report", f"{name}.sqlite", "--out", "out", "--format", "json")
    return run_command("dsocr-analyze", argv, folder), folder


@pytest.mark.parametrize("name", ["whole", "engine", "graph", "eager", "replay", "torch"])
def test_nothing_is_wrong_with_undamaged_traces(bases: Bases, tmp_path: Path, name: str) -> None:
    outcome, folder = made(bases, name, tmp_path)
    assert outcome.code == 0, outcome.stderr
    plain = read_strictly((folder / "out" / "report.json").read_text())
    facts = facts_of(folder / f"{name}.sqlite")
    assert facts.unreadable is None
    assert facts.impossible == 0
    assert sum(facts.rows.values()) > 0
    assert wrong_in_report(plain, facts) == []


FAULTS: list[tuple[str, Any]] = [
    ("detail.kernels.0.share", 1.2),
    ("detail.unit_times.0.busy_share", -0.1),
    ("detail.kernels.0.theoretical_occupancy", 2.0),
    ("detail.stages.0.host_launch_ns", -1),
    ("detail.stages.0.synchronise_ns", 2**63),
    ("detail.utilisation.0.mfu", 3.0),
    ("detail.stage_rows.0.busy_ns", 10**9),
    ("detail.stage_rows.0.projected_ns", 0),
    ("detail.stage_rows.0.kernels", 7),
    ("detail.stage_rows.0.kernel_sum_ns", 31),
    ("detail.module_rows.all.0.memcpy_ns", 99),
    ("detail.kernels.0.calls", 5),
    ("detail.kernels.0.max_ns", 1),
    ("detail.capture.kernels", 3),
    ("detail.streams.0.operations", 1),
    ("detail.streams.0.busy_ns", 10**6),
    ("detail.instances.0.end_ns", 10**6),
    ("detail.instances.0.busy_ns", 10**6),
    ("detail.instances.0.start_ns", -(10**9)),
    ("detail.stages.0.profiled_host_ns", 1),
    ("detail.stages.0.gaps.outside_api_ns", 10**6),
    ("detail.stages.0.gaps.largest_ns", 10**6),
    ("detail.verdicts.0.stage", "nowhere"),
    ("detail.verdicts.0.actions.0.ceiling_per_unit_ns", 1e9),
    ("detail.ranking.best_ns", 10**9),
    ("detail.ranking.gains.0.saves_ns", 10**9),
    ("detail.steps.0.profiled_host_ns", 10**9),
    ("detail.timeline.slice_ns", 0),
]


@pytest.mark.parametrize(("place", "value"), FAULTS, ids=[place for place, _ in FAULTS])
def test_a_wrong_figure_is_seen(bases: Bases, report: dict[str, Any], place: str, value: Any) -> None:
    plain = json.loads(json.dumps(report))
    facts = facts_of(bases.traces["whole"])
    assert wrong_in_report(plain, facts) == []
    *steps, last = place.split(".")
    below = plain
    for step in steps:
        below = below[int(step)] if step.isdigit() else below[step]
    assert last in below
    below[last] = value
    assert wrong_in_report(plain, facts)


@pytest.mark.parametrize(
    "argv",
    [
        *(("table", "--by", by) for by in ("stage", "instance", "step", "module", "kernel", "kernel-module")),
        ("kernels", "--top", "100000"),
        ("kernels", "--top", "100000", "--shapes"),
    ],
    ids=" ".join,
)
def test_rows_that_leave_out_or_repeat_an_operation_are_seen(
    bases: Bases, tmp_path: Path, argv: tuple[str, ...]
) -> None:
    for name, path in bases.traces.items():
        outcome = run_command("dsocr-analyze", (argv[0], str(path), *argv[1:], "--format", "json"), tmp_path)
        rows, facts = json.loads(outcome.stdout), facts_of(path)
        assert wrong_in_table(rows, facts) == [], name
        assert wrong_in_table([*rows, rows[0]], facts)
        assert wrong_in_table(rows[1:], facts)


def test_sums_that_agree_with_each_other_and_not_with_the_trace_are_seen(report: dict[str, Any]) -> None:
    rows = {"CUPTI_ACTIVITY_KIND_KERNEL": 2, "CUPTI_ACTIVITY_KIND_MEMCPY": 1, "CUPTI_ACTIVITY_KIND_MEMSET": 1}
    sums = {"CUPTI_ACTIVITY_KIND_KERNEL": 50, "CUPTI_ACTIVITY_KIND_MEMCPY": 1, "CUPTI_ACTIVITY_KIND_MEMSET": 1}
    right = TraceFacts(rows, sums, 0, 1000)
    assert wrong_in_report(report, right) == []
    assert wrong_in_report(report, evolve(right, sums=sums | {"CUPTI_ACTIVITY_KIND_KERNEL": 49}))
    assert wrong_in_report(report, evolve(right, rows=rows | {"CUPTI_ACTIVITY_KIND_MEMCPY": 2}))
    assert wrong_in_report(report, evolve(right, last=150))


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": 1, "a": 2}', "[1e999, Infinity]", "{"])
def test_json_is_read_as_the_standard_has_it(text: str) -> None:
    with pytest.raises(ValueError):
        read_strictly(text)


def test_numbers_that_are_none_are_seen() -> None:
    assert wrong_values({"a": [1e999]})
    assert wrong_values({"stage_share": -0.5})
    assert not wrong_values({"stage_share": -0.5}, differences=True)


# --- what is known of the damage -------------------------------------------------------------------------------------


def impossible(bases: Bases, folder: Path) -> Case:
    case = case_in(
        folder, claim="impossible", trace="whole.sqlite", undamaged=(("whole.sqlite", bases.traces["whole"]),)
    )
    shutil.copyfile(bases.traces["whole"], folder / "whole.sqlite")
    with sqlite3.connect(folder / "whole.sqlite") as database:
        database.execute('UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = "end", "end" = start')
    database.close()
    return case


def with_findings_of(bases: Bases, tmp_path: Path, report: dict[str, Any], findings: list[Any]) -> set[str]:
    """Kinds of failures where impossible input gets the report of whole input, with these findings."""
    case = impossible(bases, tmp_path / "case")
    plain = json.loads(json.dumps(report))
    plain["detail"]["findings"] = findings
    text = json.dumps(plain)
    call = leave("out/report.json", lambda: Path("out/report.json").write_text(text))
    outcome = run_in_fork(call, case.folder, PATIENT)
    (tmp_path / "base").mkdir()
    base = made(bases, "whole", tmp_path / "base")
    return {failure.kind for failure in judge(case, outcome, lambda _: base, PATIENT)}


def test_impossible_input_with_a_report_as_ever_is_seen(bases: Bases, tmp_path: Path, report: dict[str, Any]) -> None:
    assert "silent" in with_findings_of(bases, tmp_path, report, report["detail"]["findings"])


def test_impossible_input_with_a_finding_is_no_silence(bases: Bases, tmp_path: Path, report: dict[str, Any]) -> None:
    new = {"code": "x", "severity": "warning", "title": "2 rows end before they start", "evidence": "", "remedy": ""}
    assert "silent" not in with_findings_of(bases, tmp_path, report, [new])


def returned(base: tuple[Outcome, Path], case: Case) -> tuple[Outcome, Path]:
    return base


def test_a_caution_of_a_report_of_ranks_is_no_silence(bases: Bases, tmp_path: Path) -> None:
    kinds = {}
    for count in (2**62, 132):
        case = case_in(
            tmp_path / f"{count}", claim="impossible", trace="ranks.sqlite", damaged=("ranks.sqlite",),
            argv=("report", "ranks.sqlite", "--out", "out", "--format", "json"),
            undamaged=(("ranks.sqlite", bases.traces["ranks"]),),
        )  # fmt: skip
        shutil.copyfile(bases.traces["ranks"], case.folder / "ranks.sqlite")
        with sqlite3.connect(case.folder / "ranks.sqlite") as database:
            database.execute("UPDATE TARGET_INFO_GPU SET smCount = ? WHERE rowid = 2", (count,))
        database.close()
        outcome = run_command(case.program, case.argv, case.folder)
        (tmp_path / f"base-{count}").mkdir()
        base = made(bases, "ranks", tmp_path / f"base-{count}")
        kinds[count] = {failure.kind for failure in judge(case, outcome, partial(returned, base), PATIENT)}
    assert kinds == {2**62: set(), 132: {"silent"}}


@pytest.mark.parametrize("claim", ["harmless", "broken"])
def test_other_figures_from_the_same_rows_are_seen(
    bases: Bases, tmp_path: Path, report: dict[str, Any], claim: Any
) -> None:
    case = case_in(tmp_path / "case", claim=claim, undamaged=(("whole.sqlite", bases.traces["whole"]),))
    (tmp_path / "base").mkdir()
    base = made(bases, "whole", tmp_path / "base")
    for change, kinds in ((0, set()), (1, {"other figures"})):
        plain = json.loads(json.dumps(report))
        plain["detail"]["stages"][0]["synchronises"] += change
        text = json.dumps(plain)

        def write(text: str = text) -> None:
            Path("out").mkdir(exist_ok=True)
            Path("out/report.json").write_text(text)
            Path("out/summary.json").write_text((base[1] / "out" / "summary.json").read_text())

        shutil.rmtree(case.folder)
        case.folder.mkdir()
        outcome = run_in_fork(write, case.folder, PATIENT)
        assert {failure.kind for failure in judge(case, outcome, lambda _: base, PATIENT)} == kinds


def test_a_case_is_the_same_each_time(bases: Bases, tmp_path: Path) -> None:
    seen = set()
    for number in range(60):
        made_twice = []
        for time_made in ("first", "second"):
            (folder := tmp_path / f"{number}-{time_made}").mkdir()
            case = make_case("again", number, bases, folder)
            made_twice.append(
                (evolve(case, folder=Path()), {path.name: path.read_bytes() for path in folder.glob("*.json")})
            )
        assert made_twice[0] == made_twice[1]
        seen.add(made_twice[0][0].kind)
    assert len(seen) >= 8
    assert seen <= set(KINDS)
