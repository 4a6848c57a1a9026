"""Lines of a history: what goes into one, what never does, and what they say – of real recorded runs and made repetitions."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from history.folder import read_folder
from history.location import locate
from history.records import RecordedRun, RunQuery, Sample
from history.store import Store
from history.trend import _interval, trend_of
from trend_builder import EAGER, GRAPH, record_history

EXAMPLES = EAGER.parent


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(locate(str(tmp_path / "history.sqlite")))


def another(recorded: RecordedRun, number: int, **changed: Any) -> RecordedRun:
    started = datetime(2026, 10, 1, tzinfo=UTC) + timedelta(days=number)
    return evolve(recorded, run=evolve(recorded.run, run_id=f"run-{number}", started_at=started, **changed))


def test_real_runs_of_the_same_work_are_one_line_and_what_changed_is_told(store: Store) -> None:
    for folder in (EAGER, GRAPH):
        store.record(read_folder(folder))
    (work,) = trend_of(store).works
    assert work.title == "deepseek-ocr, random weights, NVIDIA H100 80GB HBM3"
    assert work.subtitle.startswith("bf16 · 3 inputs (gundam)")
    assert [run.changed for run in work.runs] == [(), ("decode eager → cuda-graph",)]
    assert [stage.stage for stage in work.stages] == ["prefill", "decode"]
    decode = work.stages[1]
    assert decode.per == "token"
    assert [round(point.median_ns / 1e6, 2) for point in decode.points] == [22.57, 2.80]
    assert all(len(point.samples_ns) == 9 for point in decode.points)
    first = decode.points[0]
    assert first.low_ns is not None
    assert first.high_ns is not None
    assert first.low_ns <= first.median_ns <= first.high_ns
    # GPU time by class, copies included, adds up to the stage's GPU time, per token.
    detail = json.loads((EAGER / "report.json").read_text())["detail"]
    (row,) = (row for row in detail["stage_rows"] if row["name"] == "decode")
    gpu_ns = row["kernel_sum_ns"] + row["memcpy_ns"] + row["memset_ns"]
    assert sum(part.ns for part in first.classes) == pytest.approx(gpu_ns / detail["stage_units"]["decode"]["count"])
    assert decode.changes == ()  # of two runs nobody knows the noise


OTHER_LINES: dict[str, Callable[[RecordedRun, int], RecordedRun]] = {
    "another device": lambda recorded, number: another(recorded, number, gpu_name="NVIDIA H200"),
    "another CPU": lambda recorded, number: another(recorded, number, device="cpu", gpu_name="CPU (other)"),
    "another model": lambda recorded, number: another(recorded, number, model="deepseek-ocr2"),
    "other weights": lambda recorded, number: another(recorded, number, weights="checkpoint"),
    "other inputs": lambda recorded, number: another(recorded, number, inputs_hash="0" * 64),
    "a batch": lambda recorded, number: another(recorded, number, batch_size=4),
    "another precision": lambda recorded, number: another(recorded, number, dtype="fp16"),
}


@pytest.mark.parametrize("what", OTHER_LINES)
def test_other_work_is_another_line(store: Store, what: str) -> None:
    recorded = read_folder(EAGER)
    for number in range(4):
        store.record(OTHER_LINES[what](recorded, number) if number % 2 else another(recorded, number))
    trend = trend_of(store)
    assert [len(work.runs) for work in trend.works] == [2, 2]
    assert trend.left_out == 0


def test_a_line_of_one_device_has_only_its_runs(store: Store) -> None:
    recorded = read_folder(EAGER)
    for number in range(4):
        store.record(another(recorded, number, gpu_name="NVIDIA H200" if number % 2 else recorded.run.gpu_name))
    h200, h100 = trend_of(store).works
    assert [run.run_id for run in h200.runs] == ["run-1", "run-3"]
    assert [run.run_id for run in h100.runs] == ["run-0", "run-2"]
    (only,) = trend_of(store, RunQuery(device="H200")).works
    assert only == h200


def test_what_failed_or_has_no_unprofiled_times_is_in_no_line(store: Store) -> None:
    recorded = read_folder(EAGER)
    store.record(another(recorded, 0))
    store.record(another(recorded, 1, status="failed"))
    store.record(evolve(another(recorded, 2), samples=()))
    store.record(another(recorded, 3, inputs_hash=None))
    store.record(read_folder(EXAMPLES / "deepseek-ocr_h100_64tok"))  # a trace alone
    trend = trend_of(store)
    assert [[run.run_id for run in work.runs] for work in trend.works] == [["run-0"]]
    assert trend.left_out == 4


def test_one_stage_can_be_asked_for(store: Store) -> None:
    store.record(read_folder(EAGER))
    (work,) = trend_of(store, stages=("decode",)).works
    assert [stage.stage for stage in work.stages] == ["decode"]
    assert trend_of(store, stages=("nothing",)).works == ()


def test_a_stage_of_another_unit_is_another_line(store: Store) -> None:
    recorded = read_folder(EAGER)
    store.record(another(recorded, 0))
    samples = tuple(evolve(sample, per="step") if sample.stage == "decode" else sample for sample in recorded.samples)
    store.record(evolve(another(recorded, 1), samples=samples))
    (work,) = trend_of(store).works
    assert [(stage.stage, stage.per, len(stage.points)) for stage in work.stages] == [
        ("prefill", "image", 2),
        ("decode", "token", 1),
        ("decode", "step", 1),
    ]


def test_a_program_is_told_by_its_command_and_device(store: Store) -> None:
    recorded = read_folder(EAGER)
    walls = tuple(Sample(place, "program", "run", 1, 5_000_000_000 + place) for place in range(3))
    for number, command in enumerate(("python train.py", "python train.py", "python train.py --fast")):
        run = another(recorded, number, kind="program", command=command, weights=None, inputs_hash=None)
        store.record(evolve(run, samples=walls, stages=()))
    assert [(work.subtitle, len(work.runs)) for work in trend_of(store).works] == [
        ("python train.py --fast", 1),
        ("python train.py", 2),
    ]


def test_only_artefacts_that_still_exist_are_linked(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "report.json", "report.md"):
        (folder / name).write_bytes((EAGER / name).read_bytes())
    store.record(read_folder(folder))
    assert [link.name for link in trend_of(store).works[0].runs[0].links] == ["report.md", "report.json", "run.json"]
    (folder / "report.md").unlink()
    assert [link.name for link in trend_of(store).works[0].runs[0].links] == ["report.json", "run.json"]


def test_known_changes_of_a_made_history_are_found(store: Store) -> None:
    record_history(store, runs=40)
    work, *_ = trend_of(store).works
    decode = next(stage for stage in work.stages if stage.stage == "decode")
    assert [change.at for change in decode.changes] == [20, 30]
    to_graph, slower = decode.changes
    assert to_graph.relative == pytest.approx(-0.875, abs=0.01)
    assert slower.low <= 0.05 <= slower.high
    assert [(place, run.changed) for place, run in enumerate(work.runs) if run.changed] == [
        (10, ("torch 2.11.0+cu130 → 2.12.0+cu130",)),
        (20, ("decode eager → cuda-graph",)),
        (30, ("driver 580.159.04 → 590.10",)),
    ]


@pytest.mark.parametrize("count", [1, 5, 6, 9, 30])
def test_the_interval_of_a_median_is_of_the_samples(count: int) -> None:
    times = [float(1 + (7 * place) % count) for place in range(count)]
    low, high = _interval(times)
    if count < 6:
        assert (low, high) == (None, None)
        return
    assert low in times
    assert high in times
    assert low is not None
    assert high is not None
    assert low <= statistics.median(times) <= high
    if count == 6:
        assert (low, high) == (min(times), max(times))  # 1 − 2/64 = 96.9 %
    if count == 9:
        assert (low, high) == (2.0, 8.0)  # 1 − 20/512 = 96.1 %
