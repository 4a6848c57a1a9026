"""What the last run of the same work predicted goes into the next one's run.json, before its report is made."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from attrs import evolve

from analysis.domain.convert import from_json_file
from analysis.domain.manifest import RunManifest
from analysis.domain.predictions import WHOLE
from history.folder import read_folder
from history.location import locate
from history.store import Store
from launch_kit import environment, fake_nsys, prepare
from runner.collectors.nsys.tool import NsysTool
from runner.launcher.recording import earlier_predictions
from runner.launcher.run import Run
from runner.launcher.run_directory import RunDirectory
from runner.process.process import Interrupts
from trend_builder import EAGER, GRAPH


@pytest.fixture(autouse=True)
def no_store_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DSOCR_STORE", "DSOCR_HISTORY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tool(tmp_path: Path) -> NsysTool:
    return fake_nsys(tmp_path / "nsys")


@pytest.fixture
def folder(tmp_path: Path) -> RunDirectory:
    """Of the real graph run, beside a history that holds the real eager run."""
    reports = tmp_path / "reports"
    Store(locate(str(reports / "history.sqlite"))).record(read_folder(EAGER))
    shutil.copytree(GRAPH, reports / "graph")
    return RunDirectory(reports / "graph")


def test_a_real_run_is_told_what_the_one_before_predicted(folder: RunDirectory) -> None:
    said: list[str] = []
    whole, prefill, decode = earlier_predictions(folder, folder.read_manifest(), environment(), said.append)
    assert (whole.stage, whole.unit, whole.was_ns, whole.best_ns) == (WHOLE, "page", 1_518_224_824, 250_851_572)
    assert (decode.stage, decode.unit, decode.was_ns, decode.best_ns) == ("decode", "token", 22_565_807, 2_581_525)
    assert prefill.stage == "prefill"
    assert {row.changed for row in (whole, prefill, decode)} == {("decode eager → cuda-graph",)}
    assert said == []


def test_without_a_history_nothing_is_predicted_and_none_is_made(tmp_path: Path) -> None:
    shutil.copytree(GRAPH, tmp_path / "graph")
    directory, said = RunDirectory(tmp_path / "graph"), list[str]()
    assert earlier_predictions(directory, directory.read_manifest(), environment(), said.append) == ()
    assert [path.name for path in tmp_path.iterdir()] == ["graph"]
    assert said == []


def test_a_run_that_is_not_recorded_looks_nothing_up(folder: RunDirectory) -> None:
    off = environment(DSOCR_HISTORY="off")
    assert earlier_predictions(folder, folder.read_manifest(), off, lambda line: None) == ()


def test_a_history_that_cannot_be_read_is_one_warning(folder: RunDirectory) -> None:
    (folder.path.parent / "history.sqlite").write_bytes(b"no database at all " * 99)
    said: list[str] = []
    assert earlier_predictions(folder, folder.read_manifest(), environment(), said.append) == ()
    assert len(said) == 1
    assert said[0].startswith("warning: what earlier runs predicted is not known: ")


def with_known_work(run: Run) -> Run:
    """Pages with a hash, and an analysis that leaves the real eager run's report."""
    manifest = run.directory.read_manifest()
    assert manifest.input_set is not None
    (page,) = manifest.input_set.images
    known = evolve(manifest, input_set=evolve(manifest.input_set, images=(evolve(page, sha256="a" * 64),)))
    run.directory.write(run.directory.manifest_file, known)
    return run


def report_of_the_eager_run(directory: RunDirectory) -> list[str]:
    copy = f"import shutil; shutil.copy({str(EAGER / 'report.json')!r}, {str(directory.path)!r})"
    keep = f"shutil.copy({str(directory.manifest_file)!r}, {str(directory.path / 'seen.json')!r})"
    return [sys.executable, "-c", f"{copy}; {keep}"]


def test_a_run_of_the_launcher_finds_the_one_before_it(tmp_path: Path, tool: NsysTool) -> None:
    """Two runs of the same settings: the second says that nothing was changed."""
    seen = []
    for _ in range(2):
        run = with_known_work(prepare(tmp_path / "reports", tool, analysis=report_of_the_eager_run))
        with Interrupts() as interrupts:
            manifest = run.start(interrupts)
        seen.append(from_json_file(RunManifest, run.directory.path / "seen.json"))
        assert seen[-1].predictions == manifest.predictions
    first, second = seen
    assert first.predictions == ()
    assert {row.run_id for row in second.predictions} == {first.run_id}
    assert [row.stage for row in second.predictions] == [WHOLE, "prefill", "decode"]
    assert {row.changed for row in second.predictions} == {()}
