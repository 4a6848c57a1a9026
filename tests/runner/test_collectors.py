"""Collectors behind one interface: what they say of themselves, and that nobody asks for their names."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest
from attrs import evolve

import runner
from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.errors import CaptureError, RequestError
from analysis.domain.manifest import Collector as CollectorName
from launch_kit import environment, fake_nsys
from runner.collectors.choosing import COLLECTORS, choose_collector, planned_collector
from runner.collectors.interface.collector import Collector, Job
from runner.collectors.nsys.collector import NsysCollector
from runner.collectors.nsys.presets import load_preset
from runner.plan.plan import RunPlan
from runner.plan.settings import Settings
from runner.process.driver import DriverFacts
from runner.process.file_modes import PRIVATE, umask_prefix
from runner.process.process import Interrupts, Outcome

REQUEST = LLMProfileRequest("deepseek-ocr-tiny", "/pages", device="cpu")
PLAN = RunPlan("12345678-run", REQUEST, "/runs/a", "nsys")
WITH_ARGUMENTS = evolve(PLAN, settings=Settings(nsys_args=("--backtrace=none",)))


@pytest.fixture(params=COLLECTORS.values(), ids=lambda collector: collector.name)
def collector(request: pytest.FixtureRequest) -> Collector:
    assert isinstance(request.param, Collector)
    return request.param


def test_every_name_of_the_manifest_has_its_collector() -> None:
    assert set(COLLECTORS) == set(get_args(CollectorName))
    assert all(collector.name == name for name, collector in COLLECTORS.items())


def test_a_plan_keeps_its_collector_where_no_program_is_needed(collector: Collector) -> None:
    """Repeating the analysis of an nsys run needs no nsys, and is an nsys run all the same."""
    choice = planned_collector(collector.name, "/no/such/nsys", {"PATH": "/nonexistent"}, needs_tool=False)
    assert (choice.name, choice.tool, choice.reason) == (collector.name, None, "as planned")


def test_a_plan_for_nsys_finds_it_again_where_it_is_needed(tmp_path: Path) -> None:
    tool = fake_nsys(tmp_path)
    choice = planned_collector("nsys", tool.path, environment(), needs_tool=True)
    assert choice.tool == tool
    with pytest.raises(CaptureError, match="no such program"):
        planned_collector("nsys", "/no/such/nsys", environment(), needs_tool=True)
    assert planned_collector("torch", "/no/such/nsys", environment(), needs_tool=True).tool is None


def test_without_its_program_a_finished_run_can_be_analysed_and_nothing_else() -> None:
    collection = COLLECTORS["nsys"].for_plan(WITH_ARGUMENTS, {})
    folder = Path("/runs/a")
    job = Job(PLAN.run_id, folder, ("python",), {}, folder / "log", folder / "profiled.json", None)
    assert collection.warnings(DriverFacts(cuda=(13, 0), driver="580.1")) == ()
    with Interrupts() as interrupts:
        for refused in (
            lambda: collection.command(job),
            lambda: collection.export_command(folder),
            lambda: collection.collect(job, interrupts),
            lambda: collection.finish(job, folder / "log", interrupts),
        ):
            with pytest.raises(CaptureError, match="none was looked for"):
                refused()


def test_arguments_go_only_to_a_program(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"--nsys-arg is for the collector nsys, and the collector is torch"):
        COLLECTORS["torch"].for_plan(WITH_ARGUMENTS, {})
    tool = fake_nsys(tmp_path)
    collection = planned_collector("nsys", tool.path, environment(), needs_tool=True).collector.for_plan(
        WITH_ARGUMENTS, environment()
    )
    job = Job(PLAN.run_id, tmp_path, ("python", "-V"), {}, tmp_path / "log", tmp_path / "profiled.json", None)
    assert collection.command(job)[-8:] == ["--backtrace=none", *umask_prefix(PRIVATE, str(Path.cwd())), "python", "-V"]
    export = collection.export_command(tmp_path)
    assert export is not None
    assert export[-1] == str(tmp_path / "trace.nsys-rep")


@pytest.mark.parametrize(("left", "child", "usable"), [(b"events", 9, True), (b"", None, False)])
def test_a_program_that_was_too_quick_to_be_seen_did_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bytes, child: int | None, usable: bool
) -> None:
    """Processes are looked at from time to time; what nsys wrote shows that there was one."""
    collection = NsysCollector(fake_nsys(tmp_path / "nsys")).for_plan(PLAN, environment())
    (tmp_path / "trace.nsys-rep").write_bytes(left)
    outcome = Outcome(returncode=9, ended_by="itself", target_seen=False)
    monkeypatch.setattr("runner.collectors.nsys.collector.run_process", lambda *_, **__: outcome)
    job = Job(PLAN.run_id, tmp_path, ("python",), {}, tmp_path / "log", tmp_path / "profiled.json", None)
    with Interrupts() as interrupts:
        collected = collection.collect(job, interrupts)
    assert (collected.child, collected.usable) == (child, usable)


def test_operators_that_a_collector_records_itself_get_no_ranges(collector: Collector) -> None:
    plan = evolve(PLAN, annotation_level="operators")
    doubled = collector.records_operators_itself
    assert collector.range_level("operators") == ("modules" if doubled else "operators")
    assert collector.range_level("stages") == "stages"
    assert bool(collector.notes(plan)) == doubled
    assert collector.notes(PLAN) == ()


def test_a_preset_that_stands_on_nsys_options_is_refused_without_them() -> None:
    with pytest.raises(RequestError, match="preset gpu-metrics needs nsys, and the collector is torch"):
        choose_collector("torch", "cpu", load_preset("gpu-metrics"), None, {})


def test_nothing_outside_compares_a_collectors_name() -> None:
    names = set(get_args(CollectorName))
    for path in Path(runner.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                sides = (node.left, *node.comparators)
                named = any(isinstance(side, ast.Constant) and side.value in names for side in sides)
                about = any("collector" in ast.unparse(side) or "choice" in ast.unparse(side) for side in sides)
                assert not (named and about), f"{path}:{node.lineno}: {ast.unparse(node)}"
