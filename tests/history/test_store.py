"""Recording real run folders and reading them back."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from attrs import evolve

from analysis.domain.errors import RequestError, StoreError
from history.folder import read_folder
from history.location import locate
from history.records import RecordedRun, RunQuery, RunRow
from history.schema import METADATA
from history.store import Store

EXAMPLES = Path(__file__).parents[2] / "reports" / "examples"
EAGER, GRAPH = EXAMPLES / "deepseek-ocr_h100", EXAMPLES / "deepseek-ocr_h100_cuda-graph"
EAGER_ID, GRAPH_ID = "26fb91c7-1a2b-4cb5-be28-ba7344041b0a", "bae7f3a8-6dbf-4a32-997f-50f19f15dd24"


def made_run(run_id: str, started_at: datetime | None = None, **values: Any) -> RecordedRun:
    run = RunRow(run_id, "model", "complete", datetime.now(UTC), started_at=started_at)
    return RecordedRun(evolve(run, **values))


@pytest.mark.parametrize("folder", [GRAPH, EAGER, EXAMPLES / "deepseek-ocr_h100_64tok", EXAMPLES / "vllm_h100_exec"])
def test_a_run_comes_back_as_it_was_recorded(store: Store, folder: Path) -> None:
    recorded = read_folder(folder)
    store.record(recorded)
    (back,) = store.recorded([recorded.run.run_id])
    assert back.run == recorded.run
    for part in ("samples", "ceilings"):
        assert getattr(back, part) == getattr(recorded, part)
    for part in ("stages", "classes", "modules", "verdicts", "artefacts", "device_moments"):
        assert set(getattr(back, part)) == set(getattr(recorded, part))


def test_the_numbers_are_those_of_the_folder() -> None:
    recorded = read_folder(GRAPH)
    assert recorded.run.run_id == GRAPH_ID
    assert (recorded.run.model, recorded.run.weights, recorded.run.decode_mode) == (
        "deepseek-ocr",
        "random",
        "cuda-graph",
    )
    assert recorded.run.gpu_name == "NVIDIA H100 80GB HBM3"
    assert (recorded.run.unit, recorded.run.time_ns, recorded.run.best_ns) == ("page", 262622301, 183318478)
    control = json.loads((GRAPH / "run.json").read_text())["control"]
    prefill = [sample for sample in recorded.samples if sample.stage == "prefill"]
    decode = [sample for sample in recorded.samples if sample.stage == "decode"]
    assert [(one.pass_index, one.image_index, one.ns) for one in prefill] == [
        (one["pass_index"], one["image_index"], one["prefill_ns"]) for one in control
    ]
    assert [(one.units, one.ns, one.step_ns) for one in decode] == [
        (one["new_tokens"] - 1, one["decode_ns"], one["step_ns"]) for one in control
    ]
    stages = {stage.stage: stage for stage in recorded.stages}
    assert stages["decode"].kernel_sum_ns == 455640071
    for stage, row in stages.items():  # classes and modules add up to their stage
        assert sum(one.total_ns for one in recorded.modules if one.stage == stage) == row.kernel_sum_ns
    verdicts = {verdict.stage: verdict for verdict in recorded.verdicts}
    assert verdicts["prefill"].bound == "host-bound in Python"
    assert verdicts["prefill"].best_ns == 84555914 - 43831568
    first = recorded.ceilings[0]
    assert (first.stage, first.rank, first.unit, first.time_ns, first.best_ns) == (
        None,
        1,
        "page",
        262622301,
        183318478,
    )


def test_the_same_pages_are_the_same_inputs_and_other_tokens_are_not() -> None:
    eager, graph = read_folder(EAGER).run, read_folder(GRAPH).run
    assert eager.inputs_hash == graph.inputs_hash is not None
    assert eager.images_hash == graph.images_hash is not None


def test_another_mode_of_the_same_pages_is_another_input(tmp_path: Path) -> None:
    plain = json.loads((GRAPH / "run.json").read_text())
    plain["prompts"][0]["image_tokens"] += 1
    (tmp_path / "run.json").write_text(json.dumps(plain))
    other, graph = read_folder(tmp_path).run, read_folder(GRAPH).run
    assert other.images_hash == graph.images_hash
    assert other.inputs_hash != graph.inputs_hash


def test_recording_again_changes_nothing(store: Store) -> None:
    recorded = read_folder(GRAPH)
    store.record(recorded)
    before = store.recorded([GRAPH_ID])
    store.record(recorded)
    assert store.recorded([GRAPH_ID]) == before
    assert len(store.runs()) == 1


def test_what_the_folder_does_not_say_any_more_stays(store: Store, tmp_path: Path) -> None:
    store.record(read_folder(GRAPH))
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(GRAPH / "run.json", folder)  # the report was deleted
    store.record(read_folder(folder))
    (back,) = store.recorded([GRAPH_ID])
    assert back.run.best_ns == 183318478
    assert len(back.stages) == 2
    assert len(back.modules) == 18
    assert [artefact.name for artefact in back.artefacts] == ["run.json"]


def test_a_run_that_failed_and_was_resumed_has_no_error_left(store: Store) -> None:
    store.record(made_run("a", status="failed", error="the analysis failed", headline="h"))
    store.record(made_run("a"))
    (row,) = store.runs()
    assert (row.status, row.error, row.headline) == ("complete", None, "h")


def test_deleting_the_folder_loses_no_numbers(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(GRAPH, folder)
    store.record(read_folder(folder))
    shutil.rmtree(folder)
    (back,) = store.recorded([GRAPH_ID])
    assert len(back.samples) == 18
    assert sum(len(sample.step_ns or ()) for sample in back.samples) == 9 * 63


def test_runs_are_asked_for_by_what_they_are(store: Store) -> None:
    for folder in (EAGER, GRAPH):
        store.record(read_folder(folder))
    store.record(made_run("other", datetime(2020, 1, 1, tzinfo=UTC), model="someone/tiny", device="cpu"))
    store.record(made_run("undated", model="a%b"))

    def ids(**query: Any) -> list[str]:
        return [row.run_id for row in store.runs(evolve(RunQuery(), **query))]

    assert ids() == ["undated", "other", EAGER_ID, GRAPH_ID]
    assert ids(model="deepseek-ocr") == [EAGER_ID, GRAPH_ID]
    assert ids(model="tiny") == ids(model="someone/tiny") == ids(device="cpu") == ["other"]
    assert ids(model="iny") == ids(model="a_b") == []
    assert ids(device="h100") == [EAGER_ID, GRAPH_ID]
    assert ids(device="%") == []
    assert ids(since=datetime(2026, 11, 24, 20)) == [GRAPH_ID]
    assert ids(until=datetime(2026, 11, 24, 20, tzinfo=UTC)) == ["other", EAGER_ID]
    assert ids(limit=1) == [GRAPH_ID]
    assert ids(inputs_hash=read_folder(GRAPH).run.inputs_hash, weights="random") == [EAGER_ID, GRAPH_ID]
    assert ids(statuses=("failed",)) == []


def test_a_run_is_named_by_the_beginning_of_its_id(store: Store) -> None:
    for run_id in ("abc", "abd", "ab", "x%y"):
        store.record(made_run(run_id, datetime(2026, 1, 1, tzinfo=UTC)))
    store.record(made_run("new", datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=1)))
    assert store.find("abc").run_id == "abc"
    assert store.find("ab").run_id == "ab"  # exactly
    assert store.find("latest").run_id == "new"
    store.delete([run.run_id for run in store.runs(RunQuery())])
    with pytest.raises(StoreError, match="holds no run; every finished run is recorded"):
        store.find("latest")


def test_a_beginning_that_names_no_run_or_several_is_refused(store: Store) -> None:
    for run_id in ("abc", "abd", "ab"):
        store.record(made_run(run_id, datetime(2026, 1, 1, tzinfo=UTC)))
    with pytest.raises(StoreError, match="3 runs with an id"):
        store.find("a")
    with pytest.raises(StoreError, match="no run with an id that begins with '%'"):
        store.find("%")


def test_deleting_takes_all_that_belongs_to_a_run(store: Store) -> None:
    for folder in (EAGER, GRAPH):
        store.record(read_folder(folder))
    assert store.delete([GRAPH_ID, "nobody"]) == 1
    assert [row.run_id for row in store.runs()] == [EAGER_ID]
    engine = sa.create_engine(store.location.url)
    with engine.connect() as connection:
        for table in METADATA.tables.values():
            assert set(connection.execute(sa.select(table.c.run_id)).scalars()) <= {EAGER_ID}, table.name
    engine.dispose()


def test_names_with_characters_that_no_database_takes(store: Store) -> None:
    store.record(made_run("a", headline="nul \0 and half \udcff", options={"k\0": ["\udcff"]}))
    (row,) = store.runs()
    assert row.headline == "nul \N{REPLACEMENT CHARACTER} and half ?"
    assert row.options == {"k\N{REPLACEMENT CHARACTER}": ["?"]}


def test_more_runs_than_a_database_takes_parameters(store: Store) -> None:
    store.record(read_folder(GRAPH))
    ids = [f"id-{number}" for number in range(40_000)]
    assert [one.run.run_id for one in store.recorded([*ids, GRAPH_ID])] == [GRAPH_ID]
    assert store.delete([*ids, GRAPH_ID]) == 1


def test_a_folder_that_is_none_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"neither run\.json nor report\.json"):
        read_folder(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RequestError, match=r"run\.json: not valid JSON"):
        read_folder(tmp_path)


def test_reading_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no history yet"):
        Store(locate(str(tmp_path / "history.sqlite"))).runs()
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_history(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder; name the history's file"):
        Store(locate(str(tmp_path))).runs()
