"""Results are checked before they are written: every figure by its name, times by their capture, parts by their whole."""

import json
import math
import sqlite3
import tracemalloc
import typing
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attrs import evolve, fields, has, resolve_types

import analysis
from analysis.api.opening import opened
from analysis.api.options import AnalysisOptions
from analysis.attribution.attribution import Attribution
from analysis.cli.app import app
from analysis.cli.exit_codes import run as run_app
from analysis.compare.records import Diff
from analysis.consistency import BOUNDS, NOT_OF_THE_CAPTURE, bounds_of, sums_that_differ, verdicts_that_differ
from analysis.domain.convert import to_json
from analysis.domain.errors import RequestError, ResultError, StoreError
from analysis.domain.manifest import ControlPass, RunManifest
from analysis.domain.measures import KINDS, impossible_figures, kind_of, require_possible
from analysis.domain.program import ProgramManifest
from analysis.domain.trend import Trend
from analysis.gate.records import GateResult
from analysis.ranks.records import RanksReport
from analysis.report import Report, judged_again
from analysis.review import Review
from analysis.sums.range_kernels import ProjectionRow, RangeKernelRow
from analysis.sweep.answers import SweepAnswers
from fuzz.bases import make_bases
from history.folder import read_folder
from history.location import locate
from history.records import RecordedRun
from history.store import Store
from history.trend import trend_of
from import_graph import ROOT
from sweep_builder import made_sweep
from trace_builder import TraceBuilder
from trend_builder import record_history

RESULTS = (
    Report, Review, RanksReport, Diff, GateResult, SweepAnswers, Trend, RecordedRun, RunManifest, ProgramManifest,
    RangeKernelRow, ProjectionRow,
)  # fmt: skip
"""All that is written or shown, and what it is read from."""


def _records(kind: Any, seen: dict[type, None]) -> None:
    if not has(kind):
        for argument in typing.get_args(kind):
            _records(argument, seen)
    elif kind not in seen:
        seen[kind] = None
        resolve_types(kind)
        for field in fields(kind):
            _records(field.type, seen)


def _numbers(kind: Any) -> Iterator[type]:
    if kind in (int, float):
        yield kind
    elif typing.get_origin(kind) is not typing.Literal and not has(kind):
        for argument in typing.get_args(kind):
            yield from _numbers(argument)


def _figures(*roots: type) -> list[tuple[str, str, bool]]:
    """Record, field and whether it may be a fraction, of all numeric fields of the records that results are made of."""
    seen: dict[type, None] = {}
    for root in roots:
        _records(root, seen)
    figures = []
    for kind in seen:
        for field in fields(kind):
            if types := set(_numbers(field.type)):
                figures.append((kind.__name__, field.name, float in types))
    return figures


def test_the_name_of_every_figure_says_what_it_may_be() -> None:
    figures = _figures(*RESULTS)
    assert len(figures) > 400
    unknown = [
        f"{record}.{name}" for record, name, fraction in figures if kind_of(record, name, fraction=fraction) is None
    ]
    assert not unknown, "give them a name that ends with a unit, or a kind in analysis/domain/measures.py"


def test_every_time_of_a_report_has_a_bound_or_is_not_of_the_capture() -> None:
    times = {
        (record, name)
        for record, name, fraction in _figures(Report, RangeKernelRow, ProjectionRow)
        if kind_of(record, name, fraction=fraction) == "time" and name.endswith(("_ns", "_ms"))
    }
    bounded = {(record, name) for record, names in BOUNDS.items() for name in names}
    outside = {(record, name) for record, names in NOT_OF_THE_CAPTURE.items() for name in names}
    assert not bounded & outside
    assert times == bounded | outside, "say in analysis/consistency.py what bounds it; take out what is no more"


# --- each figure of real reports, with a fault planted in it ----------------------------------------------------------


@pytest.fixture(scope="module")
def small(real_trace: Callable[[str], Path]) -> tuple[Report, Attribution]:
    profile = analysis.load(
        real_trace("deepseek-ocr_h100_small"), model="deepseek-ocr", input_mode="gundam", tiles=6, prompt_tokens=916
    )
    return profile.report(), profile._attribution


def _rows(record: Any, rows: dict[type, Any]) -> None:
    """One record of each class in a result."""
    if isinstance(record, dict):
        record = tuple(record.values())
    if isinstance(record, (tuple, list)):
        for row in record:
            _rows(row, rows)
    elif has(type(record)):
        rows.setdefault(type(record), record)
        for field in fields(type(record)):
            _rows(getattr(record, field.name), rows)


def _planted(value: Any, fault: float) -> Any:
    """A fault in place of a number, or of the first number in a container; None: there is none."""
    if type(value) in (int, float):
        return fault
    if isinstance(value, tuple) and value and (below := _planted(value[0], fault)) is not None:
        return (below, *value[1:])
    if isinstance(value, dict) and value:
        key = next(iter(value))
        return None if (below := _planted(value[key], fault)) is None else {**value, key: below}
    return None


def test_a_fault_in_any_figure_is_seen_and_named(small: tuple[Report, Attribution]) -> None:
    report, attribution = small
    bounds = bounds_of(attribution)
    rows: dict[type, Any] = {}
    _rows(report, rows)
    planted = 0
    for kind, row in rows.items():
        assert impossible_figures(row, bounds) == []
        for field in fields(kind):
            value = getattr(row, field.name)
            measure = kind_of(kind.__name__, field.name, fraction=type(value) is float) or "any"
            allowed = KINDS[measure]
            faults = [math.nan, math.inf, -math.inf]
            faults += [allowed.low - 1] if allowed.low > -(2**62) else []
            faults += [allowed.high + 0.5 if allowed.high < 2 else 2**63] if allowed.high <= 2**63 else []
            over = bounds.over(kind.__name__, field.name)
            faults += [over[1] * 1.001 + 1] if over is not None else []
            for fault in faults:
                if (wrong := _planted(value, fault)) is None:
                    continue
                twin: Any = object.__new__(kind)  # past the validators that some records have
                for other in fields(kind):
                    object.__setattr__(twin, other.name, getattr(row, other.name))
                object.__setattr__(twin, field.name, wrong)
                told = impossible_figures(twin, bounds)
                assert len(told) == 1, (kind, field.name, fault, told)
                assert told[0].startswith(field.name), told
                planted += 1
    assert planted > 500


def test_a_fault_deep_inside_is_told_with_its_place(small: tuple[Report, Attribution]) -> None:
    report, _ = small
    steps = list(report.steps)
    steps[3] = evolve(steps[3], kernels=-2)
    gaps = report.stages[1].gaps
    assert gaps is not None
    stages = (report.stages[0], evolve(report.stages[1], gaps=evolve(gaps, drains=-1)))
    told = impossible_figures(evolve(report, steps=tuple(steps), stages=stages))
    assert told == [
        "stages[1].gaps.drains is -1, and must be a count, at least 0 and below 2^63",
        "steps[3].kernels is -2, and must be a count, at least 0 and below 2^63",
    ]


def test_an_error_names_the_first_figures_and_says_what_to_do(small: tuple[Report, Attribution]) -> None:
    report, _ = small
    steps = tuple(evolve(step, kernels=-1) for step in report.steps)
    with pytest.raises(ResultError, match=r"the table of steps cannot be right: \[0\]\.kernels is -1") as raised:
        require_possible(steps, "the table of steps")
    assert raised.value.exit_code == 70
    assert f"and {len(steps) - 3:,} more; nothing was written; please report this with the input" in str(raised.value)


@pytest.mark.parametrize("value", [1, -1])
def test_long_lists_take_little_memory(value: int) -> None:
    """A file of 64 MiB may hold 30 million numbers: neither each of them nor each fault takes memory of its own."""
    timed = ControlPass(0, 0, 1, 1, 2, step_ns=(1, *[value] * 1_000_000))
    tracemalloc.start()
    wrong = impossible_figures([timed, timed])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 25
    if value < 0:
        assert 3 < len(wrong) <= 100
        assert wrong[0].startswith("[0].step_ns[1] is -1, and must be a time")
    else:
        assert not wrong


def test_rounding_is_no_fault(small: tuple[Report, Attribution]) -> None:
    row = small[0].categories[0]
    assert impossible_figures(evolve(row, share=1 + 1e-12)) == []
    assert impossible_figures(evolve(row, share=-1e-12)) == []
    assert impossible_figures(evolve(row, share=1 + 1e-6))


def test_numbers_of_numpy_are_numbers(small: tuple[Report, Attribution]) -> None:
    row = small[0].categories[0]
    assert impossible_figures(evolve(row, total_ns=typing.cast(int, np.int64(-1))))
    assert impossible_figures(evolve(row, share=np.float64("nan")))


# --- parts and their whole ---------------------------------------------------------------------------------------------


def _contradictions(report: Report) -> list[str]:
    return sums_that_differ(
        report.capture, report.stage_rows, report.module_rows, report.kernels, report.streams, report.stages, report.instances,
        report.timeline,
    )  # fmt: skip


def _first(rows: tuple[Any, ...], **changed: Callable[[Any], Any]) -> tuple[Any, ...]:
    """The rows with fields of the first one changed."""
    row = rows[0]
    return (evolve(row, **{name: change(getattr(row, name)) for name, change in changed.items()}), *rows[1:])


def _more(value: Any) -> Any:
    return value + 1


def _slice_too_busy(timeline: Any) -> Any:
    return evolve(timeline, busy_ns=(timeline.slice_ns + 1, *timeline.busy_ns[1:]))


PARTS: dict[str, tuple[Callable[[Report], Report], str]] = {
    "count of a stage": (lambda it: evolve(it, stage_rows=_first(it.stage_rows, kernels=_more)), "the stages hold"),
    "time of a stage": (lambda it: evolve(it, stage_rows=_first(it.stage_rows, kernel_sum_ns=_more)), "do not add up"),
    "copies": (lambda it: evolve(it, stage_rows=_first(it.stage_rows, memcpy_ns=_more)), "memcpy_ns of the modules"),
    "modules of a stage": (
        lambda it: evolve(it, module_rows=it.module_rows | {"decode": _first(it.module_rows["decode"], kernels=_more)}),
        "kernels of the modules of decode",
    ),
    "all modules": (
        lambda it: evolve(it, module_rows=it.module_rows | {"all": _first(it.module_rows["all"], kernel_sum_ns=_more)}),
        "kernel_sum_ns of the modules of all",
    ),
    "a stream": (lambda it: evolve(it, streams=_first(it.streams, sum_ns=_more)), "the streams hold"),
    "a kernel": (lambda it: evolve(it, kernels=_first(it.kernels, total_ns=_more)), "do not add up to its"),
    "a kernel's stage": (lambda it: evolve(it, kernels=_first(it.kernels, stage=lambda _: "x")), "which is no stage"),
    "order of a kernel's times": (
        lambda it: evolve(it, kernels=_first(it.kernels, min_ns=lambda _: 2**40)), "are out of order"
    ),
    "busy stage": (lambda it: evolve(it, stage_rows=_first(it.stage_rows, busy_ns=lambda _: 2**50)), "is busy for"),
    "busy stream": (lambda it: evolve(it, streams=_first(it.streams, busy_ns=lambda _: 2**50)), "stream 7 is busy"),
    "busy instance": (lambda it: evolve(it, instances=_first(it.instances, busy_ns=lambda _: 2**50)), "is busy for"),
    "end of an instance": (lambda it: evolve(it, instances=_first(it.instances, end_ns=_more)), "from its start to its end"),
    "idle time": (
        lambda it: evolve(it, stages=_first(it.stages, gaps=lambda gaps: evolve(gaps, launching_ns=gaps.launching_ns + 1))),
        "kinds of idle time of stage prefill",
    ),
    "idle time of an instance": (
        lambda it: evolve(it, instances=_first(it.instances, gaps=lambda gaps: evolve(gaps, total_ns=gaps.total_ns - 1))),
        "kinds of idle time of",
    ),
    "largest gap": (
        lambda it: evolve(it, stages=_first(it.stages, gaps=lambda gaps: evolve(gaps, largest_ns=gaps.total_ns + 1))),
        "kinds of idle time of",
    ),
    "slice": (lambda it: evolve(it, timeline=_slice_too_busy(it.timeline)), "a slice of the timeline"),
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_parts_that_do_not_add_up_to_their_whole_are_seen(small: tuple[Report, Attribution], part: str) -> None:
    report, _ = small
    assert _contradictions(report) == []
    plant, words = PARTS[part]
    assert any(words in told for told in _contradictions(plant(report)))


def test_a_budget_that_does_not_add_up_is_seen(small: tuple[Report, Attribution]) -> None:
    verdicts = small[0].verdicts
    assert verdicts_that_differ(verdicts) == []
    verdict = next(verdict for verdict in verdicts if verdict.budget is not None and verdict.actions)
    budget = verdict.budget
    assert budget is not None
    more = evolve(
        budget, terms=(evolve(budget.terms[0], per_unit_ns=budget.terms[0].per_unit_ns + 1), *budget.terms[1:])
    )
    assert "adds up to" in verdicts_that_differ([evolve(verdict, budget=more)])[0]
    greedy = evolve(verdict.actions[0], ceiling_per_unit_ns=budget.time_ns * 1.5)
    assert "saves more" in verdicts_that_differ([evolve(verdict, actions=(greedy,))])[0]


# --- before every writer -----------------------------------------------------------------------------------------------

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command in this process: exit code and standard error."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["dsocr-analyze", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            run_app(app)
        code = end.value.code
        return (code if isinstance(code, int) else 0), capsys.readouterr().err

    return call


def _plant(monkeypatch: pytest.MonkeyPatch, place: str, change: Callable[[Any], Any]) -> None:
    """Let a function return something else than it found out."""
    module, _, name = place.rpartition(".")
    honest = getattr(import_module(module), name)
    monkeypatch.setattr(place, lambda *given, **named: change(honest(*given, **named)))


@pytest.fixture
def trace(real_trace: Callable[[str], Path]) -> Path:
    return real_trace("deepseek-ocr_h100_small")


def _refused(run: Run, out: Path, *arguments: object, says: str) -> None:
    """It ends with 70 and one line, and leaves nothing."""
    code, said = run(*arguments)
    assert code == 70, said
    assert said.startswith("dsocr-analyze: error: internal error: ")
    assert says in said
    assert said.endswith("nothing was written; please report this with the input\n")
    assert said.count("\n") == 1
    assert not out.exists()


SHARE = ("analysis.report.category_rows", lambda rows: _first(rows, share=lambda _: 1.25))
"""A category of kernels takes 125 % of its stage."""


@pytest.mark.parametrize(
    "given",
    [
        (
            ("report",),
            ("--format", "markdown", "--format", "html", "--format", "json", "--format", "parquet", "--format", "csv"),
        ),
        (("report",), ("--format", "perfetto")),
        (("show",), ()),
    ],
    ids=["report", "perfetto", "show"],
)
def test_no_report_of_a_wrong_figure_is_written(
    run: Run,
    trace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[tuple[str, ...], tuple[str, ...]],
) -> None:
    _plant(monkeypatch, *SHARE)
    out = tmp_path / "out"
    into = ("--out", out) if given[0] == ("report",) else ()
    _refused(
        run,
        out,
        *given[0],
        trace,
        *into,
        *given[1],
        says="categories[0].share is 1.25, and must be a share, from 0 to 1",
    )


def test_load_gives_no_profile_of_a_wrong_figure(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _plant(monkeypatch, *SHARE)
    with pytest.raises(ResultError, match="cannot be right"):
        analysis.load(trace)


def test_a_time_longer_than_the_capture_is_refused(
    run: Run, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(monkeypatch, "analysis.report.step_points", lambda rows: _first(rows, step_ns=lambda _: 10**12))
    says = (
        "steps[0].step_ns is 1000000000000, and must be at most the time from the capture's first event to its last, "
    )
    _refused(run, tmp_path / "out", "report", trace, "--out", tmp_path / "out", says=says)


@pytest.mark.parametrize("by", ["stage", "kernel", "range-kernel", "range-projection"])
def test_no_table_of_a_wrong_figure_is_printed(
    run: Run, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    made = {"range-kernel": "range_kernel_rows", "range-projection": "projection_rows"}.get(by)
    if made is None:
        _plant(monkeypatch, "analysis.sums.stages.gpu_rows", lambda rows: _first(rows, busy_ns=lambda _: -5))
    else:
        _plant(monkeypatch, f"analysis.sums.range_kernels.{made}", lambda rows: _first(rows, max_ns=lambda _: 10**12))
    _refused(run, tmp_path / "out", "table", trace, "--by", by, says="[0].")


def test_no_list_of_kernels_with_a_wrong_figure_is_printed(
    run: Run, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(
        monkeypatch, "analysis.sums.kernels.kernels_of",
        lambda tables: evolve(tables, by_name=_first(tables.by_name, max_ns=lambda _: 10**12)),
    )  # fmt: skip
    _refused(run, tmp_path / "out", "kernels", trace, says="[0].max_ns is 1000000000000")


def test_no_report_of_ranks_with_a_wrong_figure_is_written(
    run: Run, real_trace: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = [real_trace(f"tensor-parallel_2xh200_rank{rank}") for rank in (0, 1)]
    out = tmp_path / "out"
    with monkeypatch.context() as planted:  # a rank's own report, when it is judged again with the other's trace
        _plant(planted, "analysis.report.ranking_of", lambda ranking: evolve(ranking, time_ns=-1, best_ns=2**63))
        _refused(run, out, "report", *ranks, "--out", out, says="ranking.time_ns is -1")
    _plant(monkeypatch, "analysis.ranks.side_by_side.lateness", lambda rows: _first(rows, cost_ns=lambda _: -7))
    _refused(run, out, "report", *ranks, "--out", out, says="lateness[0].cost_ns is -7")


def test_ranks_are_held_to_it_when_they_are_judged_again(
    real_trace: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(real_trace("deepseek-ocr_h100_small"), AnalysisOptions()) as trace:
        made = trace.assembled()
        _plant(monkeypatch, "analysis.report.verdicts", lambda rows: _first(rows, ceiling_ns=lambda _: -3))
        with pytest.raises(ResultError, match="ceiling_ns is -3"):
            judged_again(made, (), 1)


EXAMPLES = ROOT / "reports" / "examples"
EAGER, GRAPH = EXAMPLES / "deepseek-ocr_h100", EXAMPLES / "deepseek-ocr_h100_cuda-graph"


def test_no_comparison_with_a_wrong_figure_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(monkeypatch, "analysis.compare.comparison._difference", lambda row: evolve(row, ratio=math.nan))
    out = tmp_path / "out"
    _refused(run, out, "diff", EAGER, GRAPH, "--out", out, says="stages[0].ratio is nan, and must be a number")
    with pytest.raises(ResultError, match="ratio is nan"):
        analysis.diff(EAGER, GRAPH)


def test_no_answer_of_a_gate_with_a_wrong_figure_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(monkeypatch, "analysis.gate.judging._checks", lambda rows: [evolve(row, ratio=math.inf) for row in rows])
    policy = tmp_path / "gate.toml"
    policy.write_text('[[stage]]\nmax = "1 s"\n')
    out = tmp_path / "out"
    _refused(
        run,
        out,
        "gate",
        EAGER,
        GRAPH,
        "--policy",
        policy,
        "--out",
        out,
        says="ratio is inf, and must be a finite number",
    )


def test_no_review_with_a_wrong_figure_is_written(
    run: Run, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(monkeypatch, "analysis.review.coverage_rows", lambda rows: _first(rows, covered_calls=lambda _: -1))
    counters, out = ROOT / "tests" / "data" / "ncu_h100_decode-step.csv.xz", tmp_path / "out"
    _refused(run, out, "review", trace, "--counters", counters, "--out", out, says="coverage[0].covered_calls is -1")


def test_no_page_of_a_sweep_with_a_wrong_figure_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "sweep.json", tmp_path / "out"
    file.write_text(to_json(made_sweep()))
    _plant(
        monkeypatch, "analysis.sweep.answers.pareto_front",
        lambda front: (evolve(front[0], tokens_per_s=math.inf), *front[1:]),
    )  # fmt: skip
    _refused(run, out, "sweep", file, "--out", out, says="front[0].tokens_per_s is inf")


def _changed(file: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def test_a_wrong_figure_of_a_file_is_the_files_fault(run: Run, tmp_path: Path) -> None:
    """What was read is not ours: exit code 2, and the file and the place in it."""
    sweep, report = tmp_path / "sweep.json", tmp_path / "report.json"
    sweep.write_text(to_json(made_sweep()))
    _changed(sweep, lambda document: document["points"][1]["decode"].update(busy_share=2.5))
    code, said = run("sweep", sweep, "--out", tmp_path / "out")
    assert (code, said.count("\n")) == (2, 1)
    assert f"{sweep}: $.points[1].decode.busy_share is 2.5, and must be a share, from 0 to 1" in said
    report.write_text((EAGER / "report.json").read_text())
    _changed(report, lambda document: document["detail"]["stages"][0].update(busy_ns=-4))
    code, said = run("diff", report, GRAPH, "--out", tmp_path / "out")
    assert (code, said.count("\n")) == (2, 1)
    assert f"{report}: $.stages[0].busy_ns is -4, and must be a time" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "sweep.json"]


def test_the_history_takes_no_wrong_figure_and_shows_none(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "report.json").write_text((EAGER / "report.json").read_text())
    _changed(folder / "report.json", lambda document: document["detail"]["unit_times"][0].update(busy_share=7.0))
    with pytest.raises(RequestError, match=r"run: its files hold what cannot be \(stages\[0\]\.busy_share is 7\.0"):
        read_folder(folder)
    store = Store(locate(str(tmp_path / "history.sqlite")))
    record_history(store, runs=4)
    with sqlite3.connect(tmp_path / "history.sqlite") as database:
        database.execute("UPDATE samples SET ns = -ns")
    with pytest.raises(StoreError, match=r"history.sqlite: holds what cannot be \(.* is -"):
        trend_of(store)


@pytest.mark.parametrize("name", ["whole", "ranks", "engine", "graph", "eager", "replay", "torch"])
def test_a_capture_without_ranges_contradicts_nothing(tmp_path: Path, name: str) -> None:
    """It is one stage: of two processes the windows of both, which together are longer than the capture."""
    path = make_bases(tmp_path).traces[name]
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM NVTX_EVENTS")
    database.close()
    report = analysis.load(path).report()
    assert [stage.stage for stage in report.stages] == ["capture"]
    if name == "ranks":
        (stage,) = report.stages
        assert stage.profiled_ns == 2 * 729_000


def test_two_gpus_of_one_process_are_busy_for_at_most_all_of_the_time(tmp_path: Path) -> None:
    built = TraceBuilder().session(1_000_000).gpu(device=0).gpu(device=1)
    built.range("image[0]", 0, 900_000, domain="dsocr").range("prefill", 0, 400_000, domain="dsocr")
    built.range("decode", 400_000, 900_000, domain="dsocr").range("decode_step", 400_000, 900_000, domain="dsocr")
    for begin, end in ((1_000, 399_000), (401_000, 899_000)):
        for device in (0, 1):
            built.launch(begin, begin + 500, ("gemm", begin + 600, end), device=device)
    report = analysis.load(built.write(tmp_path / "pipeline.sqlite")).report()
    assert {times.profiled_busy_share for times in report.unit_times} == {1.0}


def test_an_operation_that_began_before_its_launch_is_no_error_of_ours(tmp_path: Path) -> None:
    """The clocks of GPU and host do not fit: a finding, and a share of at most 1."""
    path = make_bases(tmp_path).traces["graph"]
    with sqlite3.connect(path) as database:
        database.execute("UPDATE CUPTI_ACTIVITY_KIND_GRAPH_TRACE SET start = -1")
    database.close()
    report = analysis.load(path).report()
    assert "clock-oddities" in {finding.code for finding in report.findings}
    assert all((times.profiled_busy_share or 0) <= 1 for times in report.unit_times)
