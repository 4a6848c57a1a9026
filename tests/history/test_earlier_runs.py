"""Which earlier run a run is set against, and what that one predicted: real folders, recorded, and near misses of them."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from attrs import evolve

from analysis.domain.convert import from_json_file, to_json
from analysis.domain.manifest import RunManifest
from analysis.domain.predictions import WHOLE
from history.folder import read_folder
from history.location import locate
from history.predictions import predictions_for, scored_run
from history.records import RecordedRun, RunRow
from history.store import Store
from history.workload import changes, workload_of

EXAMPLES = Path(__file__).parents[2] / "reports" / "examples"
EAGER, GRAPH = EXAMPLES / "deepseek-ocr_h100", EXAMPLES / "deepseek-ocr_h100_cuda-graph"
EAGER_ID = "26fb91c7-1a2b-4cb5-be28-ba7344041b0a"

History: TypeAlias = Callable[[RunRow], Store]


@pytest.fixture(scope="module")
def eager() -> RunManifest:
    return from_json_file(RunManifest, EAGER / "run.json")


@pytest.fixture(scope="module")
def graph() -> RunRow:
    return read_folder(GRAPH).run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(locate(str(tmp_path / "history.sqlite")))


@pytest.fixture
def history(store: Store) -> History:
    """Records the eager run's report under another run's row."""

    def record(run: RunRow) -> Store:
        store.record(evolve(read_folder(EAGER), run=run))
        return store

    return record


def as_recorded(manifest: RunManifest, folder: Path) -> RunRow:
    (folder / "run.json").write_text(to_json(manifest))
    return read_folder(folder).run


# --- which runs did the same work -------------------------------------------------------------------------------


def test_two_real_runs_of_the_same_pages_did_the_same_work(graph: RunRow) -> None:
    first = read_folder(EAGER).run
    work = workload_of(first)
    assert work is not None
    assert work == workload_of(graph)
    assert (work.model, work.weights, work.device) == ("deepseek-ocr", "random", "NVIDIA H100 80GB HBM3")
    assert changes(first, graph) == ("decode eager → cuda-graph",)


def with_model(run: RunManifest, **changed: Any) -> RunManifest:
    assert run.model is not None
    return evolve(run, model=evolve(run.model, **changed))


def with_pages(run: RunManifest, **changed: Any) -> RunManifest:
    assert run.input_set is not None
    first, *others = run.input_set.images
    return evolve(run, input_set=evolve(run.input_set, images=(evolve(first, **changed), *others)))


def with_prompts(run: RunManifest, **changed: Any) -> RunManifest:
    return evolve(run, prompts=(evolve(run.prompts[0], **changed), *run.prompts[1:]))


def without_the_last_page(run: RunManifest) -> RunManifest:
    assert run.input_set is not None
    pages = evolve(run.input_set, images=run.input_set.images[:-1], count=run.input_set.count - 1)
    return evolve(run, input_set=pages, prompts=run.prompts[:-1])


def in_another_order(run: RunManifest) -> RunManifest:
    assert run.input_set is not None
    return evolve(run, input_set=evolve(run.input_set, images=run.input_set.images[::-1]))


def with_options(run: RunManifest, **options: Any) -> RunManifest:
    return evolve(run, options={**run.options, **options})


OTHER_WORK: Final[dict[str, Callable[[RunManifest], RunManifest]]] = {
    "another model": lambda run: with_model(run, id="deepseek-ocr2"),
    "a checkpoint": lambda run: with_model(run, weights="checkpoint"),
    "weights not known": lambda run: with_model(run, weights=None),
    "another folder of weights": lambda run: with_model(run, model_path="/models/deepseek-ocr"),
    "another precision": lambda run: with_model(run, dtype="fp16"),
    "the CPU": lambda run: evolve(with_model(run, device="cpu"), request=evolve(run.request, device="cpu")),
    "another GPU": lambda run: evolve(run, meta=evolve(run.meta, gpu_name="NVIDIA H200")),
    "a GPU that is not known": lambda run: evolve(run, meta=evolve(run.meta, gpu_name=None)),
    "two ranks": lambda run: with_options(run, tensor_parallel=2),
    "a batch": lambda run: evolve(run, batch_size=4),
    "another page": lambda run: with_pages(run, sha256="0" * 64),
    "a page without a hash": lambda run: with_pages(run, sha256=None),
    "one page less": without_the_last_page,
    "another order": in_another_order,
    "other tiles": lambda run: with_prompts(run, tiles=4, image_tokens=703, prompt_tokens=709),
    "another mode": lambda run: with_prompts(run, mode="base"),
    "another text": lambda run: with_options(run, prompt="Describe the page."),
    "more tokens asked for": lambda run: evolve(run, request=evolve(run.request, max_new_tokens=128)),
    "until the end of the text": lambda run: with_options(run, ignore_eos=False),
    "no prompts: it failed early": lambda run: evolve(run, prompts=()),
    "no model: it failed early": lambda run: evolve(run, model=None),
}


@pytest.mark.parametrize("what", OTHER_WORK)
def test_a_near_miss_is_other_work(
    what: str, eager: RunManifest, graph: RunRow, history: History, tmp_path: Path
) -> None:
    near = as_recorded(OTHER_WORK[what](eager), tmp_path)
    assert workload_of(near) != workload_of(graph)
    assert predictions_for(history(near), graph) == ()


def test_unknown_work_is_equal_to_nothing(eager: RunManifest, tmp_path: Path) -> None:
    for unknown in (evolve(eager, model=None), with_pages(eager, sha256=None), evolve(eager, prompts=())):
        assert workload_of(as_recorded(unknown, tmp_path)) is None


SAME_WORK: Final[dict[str, Callable[[RunManifest], RunManifest]]] = {
    "the same pages elsewhere": lambda run: with_pages(run, path="/elsewhere/scan.png"),
    "other passes": lambda run: evolve(run, request=evolve(run.request, repeats=9), capture_passes=2),
    "another preset": lambda run: evolve(run, preset="light"),
    "another collector": lambda run: evolve(run, collector="torch"),
    "other versions": lambda run: evolve(run, versions={**run.versions, "torch": "2.13.0"}),
    "another attention": lambda run: with_model(run, attn_implementation="flash_attention_2"),
}


@pytest.mark.parametrize("what", SAME_WORK)
def test_how_it_was_done_is_no_part_of_the_work(
    what: str, eager: RunManifest, graph: RunRow, history: History, tmp_path: Path
) -> None:
    alike = as_recorded(SAME_WORK[what](eager), tmp_path)
    assert workload_of(alike) == workload_of(graph)
    assert {prediction.run_id for prediction in predictions_for(history(alike), graph)} == {EAGER_ID}


def test_what_changed_is_named_and_what_only_the_profiler_sees_is_not(eager: RunManifest, tmp_path: Path) -> None:
    later = with_options(with_model(eager, attn_implementation="eager"), warmup_passes=3, seed=7, nsys_args="--x")
    later = evolve(
        later,
        preset="light",
        versions={**eager.versions, "torch": "2.13.0", "nsys": "2026.1"},
        meta=evolve(eager.meta, git_commit="b" * 40),
    )
    before = read_folder(EAGER).run
    assert changes(before, as_recorded(later, tmp_path)) == (
        "attention sdpa → eager",
        "seed 0 → 7",
        "warmup passes 1 → 3",
        "torch 2.11.0+cu130 → 2.13.0",
        "commit a62e55c74+changes → bbbbbbbbb",
    )
    assert changes(before, before) == ()


def test_energy_is_measured_outside_of_what_is_timed(eager: RunManifest, tmp_path: Path) -> None:
    with_energy, without = (
        as_recorded(with_options(eager, measure_energy=measured), tmp_path) for measured in (True, False)
    )
    assert changes(with_energy, without) == ()


# --- what is predicted ------------------------------------------------------------------------------------------


def test_a_real_graph_run_is_scored_against_the_eager_run(store: Store) -> None:
    """reports/examples: 1,518 → 251 ms a page at best was said, and 263 ms came."""
    for folder in (EAGER, GRAPH):
        store.record(read_folder(folder))
    whole, prefill, decode = scored_run(store, read_folder(GRAPH))
    assert whole.prediction.stage == WHOLE
    assert whole.sentence == (
        "Run 26fb91c7 of 2026-11-24 said: decode: replay it from a CUDA graph, 1,518 → 251 ms a page at best. "
        "263 ms came: 99 % of the predicted gain (changed since: decode eager → cuda-graph)."
    )
    assert (prefill.prediction.stage, prefill.prediction.unit) == ("prefill", "image")
    assert (decode.prediction.cause, decode.prediction.action) == (
        "host-bound in Python",
        "replay it from a CUDA graph",
    )
    assert "22.57 → 2.58 ms a token at best. 2.80 ms came: 99 % of the predicted gain" in decode.sentence
    assert scored_run(store, read_folder(EAGER)) == ()  # nothing was predicted before it


def test_the_score_of_the_history_is_that_of_the_report(store: Store) -> None:
    """What the stages came to is read from the history here, and from the trace in the report."""
    store.record(read_folder(EAGER))
    recorded = read_folder(GRAPH)
    came = {scored.prediction.stage: scored.came_ns for scored in scored_run(store, recorded)}
    budgets = {verdict.stage: verdict.time_ns for verdict in recorded.verdicts}
    assert came[WHOLE] == recorded.run.time_ns
    for stage, time_ns in budgets.items():
        assert round(came[stage] or 0) == time_ns


def later(recorded: RecordedRun, hours: float, run_id: str, **changed: Any) -> RecordedRun:
    assert recorded.run.started_at is not None
    started = recorded.run.started_at + timedelta(hours=hours)
    return evolve(recorded, run=evolve(recorded.run, run_id=run_id, started_at=started, **changed))


def test_the_last_earlier_run_predicts_and_no_later_one(store: Store) -> None:
    first, second = read_folder(EAGER), read_folder(GRAPH)
    for recorded in (
        first,
        later(first, 1, "later"),
        later(first, 9, "after"),
        later(first, 1.2, "bad", status="failed"),
    ):
        store.record(recorded)
    assert {prediction.run_id for prediction in predictions_for(store, second.run)} == {"later"}


def test_a_run_that_predicted_nothing_is_passed_over(store: Store) -> None:
    first = read_folder(EAGER)
    store.record(first)
    store.record(evolve(later(first, 1, "unfit"), ceilings=(), verdicts=()))
    assert {prediction.run_id for prediction in predictions_for(store, read_folder(GRAPH).run)} == {EAGER_ID}


def test_the_same_again_says_that_nothing_was_changed(store: Store) -> None:
    first = read_folder(EAGER)
    store.record(first)
    scored = scored_run(store, later(first, 1, "again"))
    assert scored
    assert all("no recorded setting was changed since" in row.sentence for row in scored)
    assert all(row.share == pytest.approx(0, abs=0.01) for row in scored)


def test_pages_of_other_lengths_have_no_common_time_but_tokens_have(store: Store) -> None:
    store.record(read_folder(EAGER))
    whole, *stages = scored_run(store, later(read_folder(GRAPH), 0, "shorter", new_tokens=183))
    assert whole.outcome == "not comparable"
    assert "its inputs made 192 tokens in all, and this run's 183" in whole.sentence
    assert all(row.came_ns is not None for row in stages)


def test_without_a_run_before_nothing_is_predicted(store: Store, graph: RunRow) -> None:
    store.record(read_folder(GRAPH))
    assert predictions_for(store, graph) == ()
    assert predictions_for(store, evolve(graph, started_at=None)) == ()
