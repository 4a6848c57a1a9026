"""A sweep: which points, what each one is when it is over, and how it goes on after whatever ended it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from attrs import evolve

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import from_json_file, to_json
from analysis.domain.errors import (
    BusyError,
    ChildFailedError,
    InterruptedRunError,
    ModelError,
    RequestError,
    TimeoutExceededError,
)
from analysis.domain.manifest import ControlPass, PromptTokens, RunManifest
from analysis.domain.sweep import Sweep, SweepPoint, SweepSetting
from graph_tape import play_graphs_on_the_cpu
from launch_kit import ROOT, environment
from runner.child import sweep as child
from runner.child.generate import DynamicDecoder, StaticDecoder
from runner.child.models.family import ModelInputs
from runner.child.models.loading import family_of
from runner.child.models.refusals import out_of_memory
from runner.child.models.registry import PRESETS, own_input_mode, resolve_model
from runner.child.passes import make_decoder, run_pass, with_prompt_tokens
from runner.inputs.inputs import FEW_PAGES, sample_set
from runner.launcher.device_lock import DeviceLock
from runner.launcher.run_directory import RunDirectory
from runner.launcher.sweep import SWEEP_FILE, SweepRun, require_own_folder, take_up
from runner.launcher.sweep_points import Peaks, assembled, peaks_in, read_report
from runner.launcher.sweep_progress import SweepProgress
from runner.plan.plan import RunPlan
from runner.plan.sweep import (
    POINTS_FOLDER,
    RESULT_NAME,
    PointResult,
    SweepPlan,
    SweepSettings,
    plan_of_point,
    point_name,
    points_of,
    seconds_of_like,
)
from runner.process.process import Interrupts
from runner.process.progress import Event, ProgressWriter

EAGER = SweepSetting(batch_size=1, input_mode="text", max_new_tokens=4, prompt_tokens=None, decode_mode="eager")
PASSES = 2


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs of this machine may hold its CPU."""
    monkeypatch.setenv("DSOCR_LOCK_DIR", str(tmp_path / "locks"))


def batches(*sizes: int) -> tuple[SweepSetting, ...]:
    return tuple(evolve(EAGER, batch_size=size) for size in sizes)


def plan_for(folder: Path, points: tuple[SweepSetting, ...], **changes: Any) -> SweepPlan:
    request = LLMProfileRequest("llama-tiny", str(folder / "page"), repeats=PASSES, device="cpu", max_new_tokens=1)
    pages = sample_set(folder / "page", FEW_PAGES[:1])
    base = RunPlan("a-sweep", request, str(folder), "torch", input_set=pages)
    return evolve(SweepPlan(base, points, window_steps=3, until=None), **changes)


def swept(plan: SweepPlan) -> dict[SweepSetting, PointResult]:
    """Run the program's part of a plan in this process; gives its results."""
    folder = Path(plan.base.run_dir)
    child.Sweeping(plan, ProgressWriter(None, child.ROLE), lambda line: None).run()
    files = ((setting, folder / POINTS_FOLDER / point_name(setting) / RESULT_NAME) for setting in plan.points)
    return {setting: from_json_file(PointResult, file) for setting, file in files if file.is_file()}


def dsocr_profile(*argv: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "runner.cli", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment())


# -- which points ------------------------------------------------------------------------------------------------------


def test_the_first_line_of_batches_comes_before_all_else() -> None:
    points = points_of((4, 1), ("base", "gundam"), (64,), (None, 512), ("eager", "cuda-graph"))
    assert len(points) == len(set(points)) == 2 * 2 * 2 * 2
    assert [(point.batch_size, point.decode_mode) for point in points[:4]] == [
        (1, "eager"), (1, "cuda-graph"), (4, "eager"), (4, "cuda-graph"),
    ]  # fmt: skip
    assert [(point.input_mode, point.prompt_tokens) for point in points[::4]] == [
        ("base", None), ("gundam", None), ("base", 512), ("gundam", 512),
    ]  # fmt: skip
    assert len({point_name(point) for point in points}) == len(points)


def test_a_point_may_take_as_much_longer_as_it_is_larger() -> None:
    graph = evolve(EAGER, decode_mode="cuda-graph")
    seconds = {EAGER: 10.0, graph: 2.0, evolve(EAGER, batch_size=2): 11.0}
    assert seconds_of_like(evolve(EAGER, batch_size=4), seconds) == 22.0
    assert seconds_of_like(evolve(graph, batch_size=4, max_new_tokens=8), seconds) == 16.0
    assert seconds_of_like(evolve(EAGER, decode_mode="static"), {EAGER: 10.0}) == 10.0
    assert seconds_of_like(EAGER, {}) is None


@pytest.mark.parametrize("name", PRESETS)
def test_a_models_own_input_mode_is_known_before_torch_is_there(name: str) -> None:
    source = resolve_model(name)
    assert own_input_mode(source) == (PRESETS[name].default_mode or family_of(source).default_mode)


# -- the program -------------------------------------------------------------------------------------------------------


def test_every_batch_is_timed_counted_and_recorded(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, (EAGER, evolve(EAGER, decode_mode="static"), evolve(EAGER, batch_size=4)))
    results = swept(plan)
    assert {result.status for result in results.values()} == {"measured"}
    for result in results.values():
        assert [timed.pass_index for timed in result.passes] == [0, 1]
        assert all((timed.new_tokens, len(timed.step_ns)) == (4, 3) for timed in result.passes)
        assert result.window is not None
        assert result.window.new_tokens == 4
        assert (result.memory, result.energy) == (None, None)
        assert "a CPU" in (result.memory_unknown_because or "")
    alone, four = (results[evolve(EAGER, batch_size=size)] for size in (1, 4))
    for part_of_one, part_of_four in zip(alone.costs, four.costs, strict=True):
        flop_of_one, flop_of_four = (sum(part.flop for part in cost.components) for cost in (part_of_one, part_of_four))
        assert flop_of_four == 4 * flop_of_one
        kv_of_one, kv_of_four = (
            sum(part.kv_write_bytes for part in cost.components) for cost in (part_of_one, part_of_four)
        )
        assert kv_of_four == 4 * kv_of_one


def test_no_timed_pass_runs_behind_a_recorded_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def noted(*arguments: Any) -> list[ControlPass]:
        order.append("recorded" if arguments[4].active else "alone")
        return run_pass(*arguments)

    monkeypatch.setattr(child, "run_pass", noted)
    swept(plan_for(tmp_path, batches(1, 2)))
    first = order.index("recorded")
    assert order[:first] == ["alone"] * (2 * (1 + PASSES) + 1)  # warm-up and passes of both, and the window's warm-up
    assert order[first:] == ["recorded", "alone", "recorded"]


def test_what_does_not_fit_is_a_result_and_larger_batches_are_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def made(plan: RunPlan, *more: Any) -> Any:
        tried.append(plan.settings.batch_size)
        if plan.settings.batch_size == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it.")
        return make_decoder(plan, *more)

    monkeypatch.setattr(child, "make_decoder", made)
    other = evolve(EAGER, batch_size=2, decode_mode="static")
    results = swept(plan_for(tmp_path, (*batches(1, 2, 4), other), window_steps=0))
    assert [result.status for result in results.values()] == ["measured", "out of memory", "skipped", "out of memory"]
    assert results[evolve(EAGER, batch_size=2)].reason == "CUDA out of memory. Tried to allocate 2.00 GiB."
    assert "batch 2" in (results[evolve(EAGER, batch_size=4)].reason or "")
    assert tried == [1, 2, 2]


LIMITED = """
import resource, sys
from runner.child import sweep

make_decoder = sweep.make_decoder

def limited(plan, *more):
    held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + 256 * 2**20, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return make_decoder(plan, *more)

sweep.make_decoder = limited
sys.exit(sweep.main([sys.argv[1]]))
"""


def test_a_cpu_that_has_no_more_memory_is_told_from_a_bug(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, batches(1, 4096, 8192), window_steps=0)
    (tmp_path / "plan.json").write_text(to_json(plan))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "plan.json")], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    files = [tmp_path / POINTS_FOLDER / point_name(setting) / RESULT_NAME for setting in plan.points]
    results = [from_json_file(PointResult, file) for file in files]
    assert [result.status for result in results] == ["measured", "out of memory", "skipped"]
    assert "allocate" in (results[1].reason or "")


def test_memory_that_runs_out_is_found_behind_other_errors() -> None:
    assert out_of_memory(RuntimeError("a bug")) is None
    assert out_of_memory(MemoryError()) == "no memory is left"
    for words in (
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ):
        assert out_of_memory(RuntimeError(f"{words}\nMore of it.")) == words

    def ends_badly() -> None:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        finally:  # as the context around a capture does
            raise RuntimeError("CUDA error: the capture could not be ended")

    with pytest.raises(RuntimeError, match="could not be ended") as behind:
        ends_badly()
    assert out_of_memory(behind.value) == "CUDA out of memory."


def test_a_bug_ends_the_program_and_a_fault_of_the_model_only_its_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ModelError("this model has no static cache")

    monkeypatch.setattr(child, "make_decoder", refuse)
    (result,) = swept(plan_for(tmp_path, (EAGER,))).values()
    assert (result.status, result.reason) == ("failed", "this model has no static cache")

    def bug(*_: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(child, "make_decoder", bug)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        swept(plan_for(tmp_path / "another", (EAGER,)))


def test_a_graph_is_recorded_for_each_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = play_graphs_on_the_cpu(monkeypatch)
    free = child._free

    def freed(device: torch.device) -> None:
        free(device)
        for graph in graphs[-1:]:
            graph.reset()  # what a graph's end does with its memory

    monkeypatch.setattr(child, "_free", freed)
    points = tuple(evolve(point, decode_mode="cuda-graph") for point in batches(1, 2))
    results = swept(plan_for(tmp_path, points))
    assert {result.status for result in results.values()} == {"measured"}
    assert len(graphs) == 4  # one for the timed passes of each batch, and one for its window
    assert graphs[0].replays == (1 + PASSES) * 3
    assert all("the cache is static" in result.notes[0] for result in results.values())


def test_memory_is_split_into_what_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeping = child.Sweeping(plan_for(tmp_path, (EAGER,)), ProgressWriter(None, child.ROLE), lambda line: None)

    class OnCuda:
        device = torch.device("cuda:0")

    class Holds:
        def cached_bytes(self) -> int:
            return 30

    class Properties:
        total_memory = 1000

    sweeping._model, sweeping._weight_bytes = OnCuda(), 100  # type: ignore[assignment]
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 200)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 256)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    memory, unknown = sweeping._memory(Holds())  # type: ignore[arg-type]
    assert memory is not None
    assert unknown is None
    assert (memory.weights, memory.kv_cache, memory.activations) == (100, 30, 70)
    assert (memory.peak_allocated, memory.reserved_unused, memory.device_total) == (200, 56, 1000)


@pytest.mark.parametrize(("kind", "positions"), [(DynamicDecoder, 5), (StaticDecoder, 9)])
def test_the_cache_is_measured_by_its_own_tensors(kind: Callable[..., Any], positions: int, tmp_path: Path) -> None:
    from runner.child.models.loading import load_model

    model = load_model(plan_for(tmp_path, (EAGER,)).base)
    decoder = kind(model.network) if kind is DynamicDecoder else kind(model.network, 9)
    assert decoder.cached_bytes() == 0
    ids = torch.tensor([[1, 5, 6, 7]] * 3)
    with torch.inference_mode():
        decoder.begin()
        token = decoder.prefill(ModelInputs({"input_ids": ids}, PromptTokens(0, "text", 0, 0, 4, 4)))
        decoder.step(token)
    layers, heads, head_size, fp32 = 2, 2, 256 // 8, 4
    assert decoder.cached_bytes() == 3 * positions * layers * 2 * heads * head_size * fp32


def prompt_of(image: int, text: int, **more: torch.Tensor) -> ModelInputs:
    tokens = image + text
    ids = torch.arange(tokens).reshape(1, tokens)
    return ModelInputs({"input_ids": ids, **more}, PromptTokens(0, "tiny", 0, image, text, tokens))


def test_a_prompt_is_made_as_long_as_asked() -> None:
    longer = with_prompt_tokens(prompt_of(image=3, text=2), 8, [70, 71])
    assert longer.tensors["input_ids"].tolist() == [[0, 1, 2, 3, 4, 70, 71, 70]]
    assert (longer.prompt.image_tokens, longer.prompt.text_tokens, longer.prompt.prompt_tokens) == (3, 5, 8)
    shorter = with_prompt_tokens(prompt_of(image=0, text=5), 2, [70])
    assert shorter.tensors["input_ids"].tolist() == [[0, 1]]
    with pytest.raises(ModelError, match="take 5 positions in input mode tiny; ask for as many at least"):
        with_prompt_tokens(prompt_of(image=3, text=2), 4, [70])
    with pytest.raises(ModelError, match="types of this model says something of every position"):
        with_prompt_tokens(prompt_of(image=3, text=2, types=torch.zeros(1, 5)), 8, [70])


def test_no_point_begins_when_the_budget_is_over(tmp_path: Path) -> None:
    results = swept(plan_for(tmp_path, batches(1, 2), until=time.monotonic() - 1))
    assert [(result.status, result.for_lack_of_time) for result in results.values()] == [("skipped", True)] * 2


def test_a_point_that_may_not_be_over_in_time_is_not_begun(tmp_path: Path) -> None:
    sweeping = child.Sweeping(
        plan_for(tmp_path, batches(1, 2, 4), until=time.monotonic() + 1000),
        ProgressWriter(None, child.ROLE),
        lambda line: None,
    )
    assert sweeping._left_out(evolve(EAGER, batch_size=2), {EAGER: 200.0}) is None
    late = sweeping._left_out(evolve(EAGER, batch_size=4), {EAGER: 300.0})
    assert late is not None
    assert "and it may take 1200 s" in (late.reason or "")


def test_points_of_an_earlier_start_say_how_long_the_next_may_take(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, batches(1, 2), until=time.monotonic() + 1000, window_steps=0)
    before = PointResult(plan.points[0], "measured", seconds=900.0, window_unknown_because="none was asked for")
    file = Path(plan_of_point(plan, plan.points[0]).run_dir) / RESULT_NAME
    file.parent.mkdir(parents=True)
    file.write_text(to_json(before))
    results = swept(plan)
    assert results[plan.points[0]] == before
    assert results[plan.points[1]].for_lack_of_time


def test_points_of_another_model_are_not_gone_on_with(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, (EAGER,), window_steps=0)
    swept(plan)
    model = json.loads((tmp_path / child.MODEL_NAME).read_text())
    model["versions"]["torch"] = "1.0"
    (tmp_path / child.MODEL_NAME).write_text(json.dumps(model))
    with pytest.raises(RequestError, match=r"holds points of another torch: 1\.0 then, .* now; choose another --out"):
        swept(plan)


def test_a_gpus_window_gives_launches_busy_share_verdict_and_peaks() -> None:
    """By the report of a real run on an H100, whose decode steps were replayed from a CUDA graph."""
    detail = read_report(ROOT / "reports" / "examples" / "deepseek-ocr_h100_cuda-graph" / "report.json")
    assert detail is not None
    run = from_json_file(RunManifest, ROOT / "reports" / "examples" / "deepseek-ocr_h100_cuda-graph" / "run.json")
    first = tuple(timed for timed in run.control if timed.image_index == 0)
    costs = tuple(cost for cost in run.costs if cost.image_index == 0)
    setting = evolve(EAGER, input_mode="gundam", max_new_tokens=64, decode_mode="cuda-graph")
    result = PointResult(setting, "measured", passes=first, costs=costs, prompt=run.prompts[0], window=first[0])
    peaks = peaks_in(detail)
    assert (peaks.flop_per_s, peaks.bytes_per_s, peaks.how) == (989.4e12, 3352e9, "spec")
    point = assembled(result, detail, None, peaks, one_image=True)
    assert point.decode is not None
    assert point.prefill is not None
    assert (point.prefill.launches, point.decode.launches) == (2399, 1)
    assert point.decode.busy_share == pytest.approx(0.8737, abs=1e-4)
    assert point.decode.bound == "kernel-bound"
    assert point.decode.sentence is not None
    verdict = next(row for row in detail["verdicts"] if row["stage"] == "decode")
    saves = verdict["actions"][0]["ceiling_per_unit_ns"]
    assert point.decode.at_best_ns == pytest.approx(verdict["budget"]["time_ns"] - saves)
    assert point.decode.at_best_ns is not None
    assert 0 < point.decode.at_best_ns < point.decode.median_ns
    assert point.decode.window_unknown_because is None
    assert point.decode.mbu == pytest.approx(0.1287, rel=0.05)  # of the first page of three; the report's is of all
    assert (point.new_tokens, point.prompt_tokens) == (64, run.prompts[0].prompt_tokens)


def test_what_a_window_would_say_is_unknown_with_its_reason() -> None:
    timed = ControlPass(0, 0, 100, 60, 4, (20, 20, 20))
    result = PointResult(EAGER, "measured", passes=(timed,), prompt=PromptTokens(0, "text", 0, 0, 4, 4))
    nothing = Peaks(None, None, None, "no peak")
    for broken, reason in (
        (result, "the sweep ended before its window was recorded"),
        (evolve(result, window_unknown_because="CUPTI failed"), "CUPTI failed"),
    ):
        point = assembled(broken, None, None, nothing, one_image=False)
        assert point.decode is not None
        assert (point.decode.median_ns, point.decode.launches, point.decode.mfu) == (20, None, None)
        assert point.decode.window_unknown_because == reason
        assert point.decode.utilisation_unknown_because == "the sweep ended before it was counted what the point needs"
    alone = assembled(
        evolve(result, passes=(evolve(timed, new_tokens=1, decode_ns=0, step_ns=()),)), None, None, nothing, False
    )
    assert (alone.decode, alone.tokens_per_s, alone.new_tokens) == (None, None, 1)


# -- the launcher ------------------------------------------------------------------------------------------------------


def read(folder: Path) -> Sweep:
    return from_json_file(Sweep, folder / SWEEP_FILE)


def of_status(sweep: Sweep, status: str) -> list[SweepPoint]:
    return [point for point in sweep.points if point.status == status]


def test_a_sweep_of_four_points_and_once_more_from_the_command_line(tmp_path: Path) -> None:
    asked = ("sweep", "llama-tiny", "--device", "cpu", "--batch-size", "1,2", "--decode", "eager,static")
    more = ("--max-new-tokens", "4", "--passes", str(PASSES), "--window-steps", "3", "--out", str(tmp_path / "s"))
    done = dsocr_profile(*asked, *more)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 points measured" in done.stdout
    assert "Most throughput: " in done.stdout
    assert (tmp_path / "s" / "sweep.html").is_file()
    assert done.stderr.count("tokens/s") == 4
    sweep = read(tmp_path / "s")
    assert (sweep.status, sweep.unfinished_because, sweep.weights) == ("complete", None, "random weights")
    assert sweep.page is None, "a model of text reads none"
    assert "A batch is copies of one prompt" in done.stdout
    assert [(point.setting.batch_size, point.setting.decode_mode) for point in sweep.points] == [
        (1, "eager"), (1, "static"), (2, "eager"), (2, "static"),
    ]  # fmt: skip
    for point in sweep.points:
        assert point.decode is not None
        assert point.prefill is not None
        batch = point.setting.batch_size
        assert (point.prefill.per, point.decode.per) == ("prompt", "token" if batch == 1 else "step")
        assert (len(point.prefill.samples_ns), len(point.decode.samples_ns)) == (PASSES, PASSES * 3)
        assert point.tokens_per_s == pytest.approx(batch * 1e9 / point.decode.median_ns)
        whole_s = (point.prefill.median_ns + 3 * point.decode.median_ns) / 1e9
        assert point.pages_per_min == pytest.approx(60 * batch / whole_s)
        assert "a CPU ran it" in (point.decode.window_unknown_because or "")
        assert point.decode.sentence is not None
        # The window is the whole of such a short point, so its report must say the same of it.
        report = json.loads((tmp_path / "s" / POINTS_FOLDER / point_name(point.setting) / "report.json").read_text())
        rows = {row["stage"]: row for row in report["detail"]["utilisation"] if row["time_base"] == "unprofiled"}
        for stage in point.stages:
            assert stage.mfu == pytest.approx(rows[stage.stage]["mfu"])
            assert stage.mbu == pytest.approx(rows[stage.stage]["mbu"])
            assert stage.ideal_ns == pytest.approx(rows[stage.stage]["ideal_unit_ns"], rel=1e-6)
        assert sweep.peak_flop_per_s == rows["decode"]["peak_flop_per_s"]
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "s").rglob(RESULT_NAME)}
    again = dsocr_profile(*asked, *more)
    assert again.returncode == 0, again.stderr
    assert "the model is in memory" not in again.stderr
    assert {file: file.stat().st_mtime_ns for file in written} == written
    other = dsocr_profile("sweep", "llama-tiny", "--device", "cpu", "--passes", "9", "--out", str(tmp_path / "s"))
    assert other.returncode == RequestError.exit_code
    assert "holds a sweep of another model, page or settings" in other.stderr


@pytest.mark.parametrize(
    ("number", "code", "status"), [(signal.SIGKILL, -signal.SIGKILL, "running"), (signal.SIGINT, 130, "unfinished")]
)
def test_a_sweep_goes_on_after_a_signal(tmp_path: Path, number: signal.Signals, code: int, status: str) -> None:
    folder = tmp_path / "s"
    argv = [
        *("sweep", "llama-tiny", "--device", "cpu", "--batch-size", "1,2,64", "--max-new-tokens", "4", "--passes", "1"),
        *("--window-steps", "0", "--out", str(folder)),
    ]
    launcher = subprocess.Popen(
        [sys.executable, "-P", "-m", "runner.cli", *argv],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    first = folder / POINTS_FOLDER / point_name(EAGER) / RESULT_NAME
    try:
        while not first.is_file():
            assert launcher.poll() is None
            time.sleep(0.01)
    finally:
        launcher.send_signal(number)
        launcher.wait()
    assert launcher.returncode == code
    timed = from_json_file(PointResult, first).passes
    assert read(folder).status == status
    while RunDirectory(folder).holder() is not None:  # a supervisor ends the program of a launcher that was killed
        time.sleep(0.05)
    done = dsocr_profile(*argv)
    assert done.returncode == 0, done.stderr
    assert from_json_file(PointResult, first).passes == timed
    assert [point.status for point in read(folder).points] == ["measured"] * 3


def scripted(text: str) -> Callable[[RunDirectory], list[str]]:
    """A command that runs the real program with something planted in it."""
    return lambda directory: [sys.executable, "-c", textwrap.dedent(text), str(directory.plan_file)]


def run_for(
    folder: Path, points: tuple[SweepSetting, ...], *, script: str | None = None, **settings: Any
) -> tuple[SweepRun, list[str]]:
    asked = SweepSettings(passes=PASSES, **{"window_steps": 0, **settings})
    plan = evolve(plan_for(folder, points), window_steps=asked.window_steps)
    directory, plan, record = take_up(plan, asked, ("dsocr-profile", "sweep"))
    said: list[str] = []
    work = SweepRun(directory, plan, asked, record, environment(), said.append, time.monotonic())
    if script is not None:
        work.command = scripted(script)
    return work, said


DIES = """
    import os, signal, sys
    from runner.child import sweep

    measured = sweep.Sweeping._measured

    def dies(self, setting):
        if setting.batch_size == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return measured(self, setting)

    sweep.Sweeping._measured = dies
    sys.exit(sweep.main([sys.argv[1]]))
"""


def test_a_point_that_ends_its_program_is_a_result_and_is_tried_again_by_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    work, said = run_for(folder, batches(1, 2, 4), script=DIES)
    with Interrupts() as interrupts:
        sweep = work.carry_out(interrupts, wait=False)
    assert [point.status for point in sweep.points] == ["measured", "failed", "measured"]
    assert "was ended by SIGKILL (9" in (sweep.points[1].reason or "")
    assert any("the program is started again for the other points" in line for line in said)
    again, _ = run_for(folder, batches(1, 2, 4))
    with Interrupts() as interrupts:
        sweep = again.carry_out(interrupts, wait=False)
    assert [point.status for point in sweep.points] == ["measured"] * 3
    assert sweep.sweep_id == "a-sweep"


def test_what_no_budget_is_left_for_is_skipped_and_done_by_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    work, _ = run_for(folder, batches(1, 2), budget_s=0.5)
    with Interrupts() as interrupts:
        sweep = work.carry_out(interrupts, wait=False)
    assert (sweep.status, len(of_status(sweep, "skipped"))) == ("unfinished", 2)
    assert "--budget-s 0.5 was over: 2 of 2 points are left; the same command goes on" in (
        sweep.unfinished_because or ""
    )
    again, _ = run_for(folder, batches(1, 2))
    with Interrupts() as interrupts:
        sweep = again.carry_out(interrupts, wait=False)
    assert (sweep.status, len(of_status(sweep, "measured"))) == ("complete", 2)


def test_a_sweep_of_which_no_point_can_be_measured_fails(tmp_path: Path) -> None:
    work, _ = run_for(
        tmp_path / "s", tuple(evolve(point, prompt_tokens=None, input_mode="native") for point in batches(1, 2))
    )
    with (
        Interrupts() as interrupts,
        pytest.raises(ChildFailedError, match="no point could be measured: input mode 'native'"),
    ):
        work.carry_out(interrupts, wait=False)
    assert [point.status for point in read(tmp_path / "s").points] == ["failed", "failed"]


def test_a_sweep_that_takes_too_long_fails_and_can_be_gone_on_with(tmp_path: Path) -> None:
    work, _ = run_for(tmp_path / "s", batches(1), timeout_s=0.2)
    with (
        Interrupts() as interrupts,
        pytest.raises(TimeoutExceededError, match=r"--timeout 0\.2; 0 of 1 results are in"),
    ):
        work.carry_out(interrupts, wait=False)
    assert (read(tmp_path / "s").status, read(tmp_path / "s").points) == ("unfinished", ())


def test_a_sweep_that_gets_no_device_can_be_asked_for_again(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    work, _ = run_for(folder, batches(1))
    with DeviceLock("cpu", (), os.environ).held(wait=False), Interrupts() as interrupts, pytest.raises(BusyError):
        work.carry_out(interrupts, wait=False)
    assert read(folder).status == "unfinished"
    require_own_folder(folder)
    again, _ = run_for(folder, batches(1))
    with Interrupts() as interrupts:
        assert again.carry_out(interrupts, wait=False).status == "complete"


def test_an_interrupted_sweep_says_what_is_there(tmp_path: Path) -> None:
    work, _ = run_for(tmp_path / "s", batches(1, 2))
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(InterruptedRunError, match=r"0 of 2 results are in .*: the same command goes on"):
            work.carry_out(interrupts, wait=False)
    assert read(tmp_path / "s").status == "unfinished"


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["--batch-size", "1,x"], 2, "--batch-size 1,x: 'x' is not a whole number of at least 1"),
        (["--batch-size", "0"], 2, "--batch-size 0: '0' is not a whole number of at least 1"),
        (["--max-new-tokens", "4,,8"], 2, "--max-new-tokens 4,,8: write one or more values with commas"),
        (["--decode", "eager,graph"], 2, "--decode eager,graph: 'graph' is not one of eager, static, cuda-graph"),
        (["--decode", "cuda-graph"], 2, "--decode cuda-graph: CUDA graphs need a GPU, and the device is cpu"),
        (["--input-mode", "tiny,native"], 5, "input mode 'native' is none of this model's: tiny, small, base"),
        (["--budget-s", "0"], 2, "--budget-s must be > 0"),
        (["--passes", "0"], 2, "--passes must be >= 1"),
        (["--out", "OTHER"], 2, "is not empty and holds no sweep; choose another --out"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, argv: list[str], code: int, words: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    out = () if "--out" in argv else ("--out", str(tmp_path / "s"))
    given = [str(other) if word == "OTHER" else word for word in argv]
    done = dsocr_profile("sweep", "deepseek-ocr-tiny", "--device", "cpu", *out, *given, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert words in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]
    assert [path.name for path in other.iterdir()] == ["mine.txt"]


def test_a_dry_run_names_the_points_and_starts_nothing(tmp_path: Path) -> None:
    done = dsocr_profile(
        *("sweep", "llama-tiny", "--device", "cpu", "--batch-size", "1,2", "--decode", "eager,cuda-graph"),
        *("--dry-run", "--out", str(tmp_path / "s")),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["# b1_text_64tok_eager", "# b1_text_64tok_cuda-graph"]
    assert "runner.child.sweep" in done.stdout
    assert not (tmp_path / "s").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("")
    with pytest.raises(RequestError, match="s: is a file"):
        require_own_folder(tmp_path / "s")


def test_the_live_line_says_point_pass_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = SweepProgress(lambda line: None, 10, began=100.0)
    progress._first = Event(110.0, "passes", passes=10, pages=7)
    progress._event = Event(130.0, "passes", passes=10, pages=7, passes_done=2)
    assert progress.line(140.0, 4) == "point 3 of 10 · pass 2 of 5 · 40 s · about 70 s left"
    progress._event = Event(150.0, "collection", passes=10, passes_done=3)
    assert progress.line(160.0, 0) == "window 4 of 10 · 60 s"


def test_plans_of_points_differ_in_what_they_are_asked_for(tmp_path: Path) -> None:
    modes: tuple[Literal["eager", "static"], ...] = ("eager", "static")
    plan = plan_for(tmp_path, points_of((1, 2), ("text",), (4, 8), (None,), modes))
    plans = [plan_of_point(plan, setting) for setting in plan.points]
    assert len({made.run_dir for made in plans}) == len(plans) == 8
    assert all(made.settings.ignore_eos for made in plans)
    assert {re.sub(r".*/", "", made.run_dir) for made in plans} == {point_name(setting) for setting in plan.points}
