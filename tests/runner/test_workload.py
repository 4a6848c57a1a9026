import json
import sqlite3
import subprocess
import sys
from contextlib import AbstractContextManager, closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve
from PIL import Image

from analysis.domain.annotations import MANIFEST_MARK_PREFIX
from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import from_json, from_json_file, to_json
from analysis.domain.entities import RunMeta
from analysis.domain.errors import DsocrError, InputImagesError, ModelError, RequestError
from analysis.domain.manifest import Collector as CollectorName
from analysis.domain.manifest import ControlPass, PromptTokens, RunManifest
from graph_tape import play_graphs_on_the_cpu
from runner.child import passes, workload
from runner.child.models.family import ModelInputs
from runner.child.passes import distinct_shapes, with_generated_lengths
from runner.collectors.choosing import COLLECTORS
from runner.collectors.torch_profiler.recording import MemorySink
from runner.plan.plan import RunPlan, WorkloadResult
from runner.plan.settings import AnnotationLevel, Settings

NEW_TOKENS = 3


@pytest.fixture
def plan(tmp_path: Path) -> RunPlan:
    pages = tmp_path / "pages"
    pages.mkdir()
    for index in range(2):
        Image.linear_gradient("L").rotate(90 * index).convert("RGB").save(pages / f"{index}.png")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    request = LLMProfileRequest("deepseek-ocr-tiny", str(pages), repeats=2, device="cpu", max_new_tokens=NEW_TOKENS)
    return RunPlan("test", request, str(run_dir), "torch", settings=Settings(ignore_eos=True))


def save(plan: RunPlan) -> str:
    path = Path(plan.run_dir) / "plan.json"
    path.write_text(to_json(plan))
    return str(path)


def result(plan: RunPlan, role: workload.Role) -> WorkloadResult:
    return from_json_file(WorkloadResult, Path(plan.run_dir) / workload.RESULT_NAMES[role])


def with_request(plan: RunPlan, **changes: Any) -> RunPlan:
    return evolve(plan, request=evolve(plan.request, **changes))


def with_settings(plan: RunPlan, **changes: Any) -> RunPlan:
    return evolve(plan, settings=evolve(plan.settings, **changes))


def test_the_control_run_says_what_ran_and_how_long(plan: RunPlan) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "runner.child.workload", save(plan), "--role", "control"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert all(line.startswith("workload: ") for line in done.stderr.splitlines())
    control = result(plan, "control")
    assert control.model.weights == "random"
    assert any("random" in note for note in control.notes)
    assert [(one.pass_index, one.image_index) for one in control.passes] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for one in control.passes:
        assert one.prefill_ns > 0
        assert one.new_tokens == NEW_TOKENS == len(one.step_ns) + 1
        assert one.decode_ns == sum(one.step_ns)
    assert [(one.image_index, one.image_tokens, one.expected_new_tokens) for one in control.prompts] == [
        (0, 73, NEW_TOKENS),
        (1, 73, NEW_TOKENS),
    ]
    assert [(one.stage, one.image_index) for one in control.costs] == [
        (stage, image) for image in (0, 1) for stage in ("prefill", "decode")
    ]
    assert control.costs_unknown_because is None
    assert control.versions["torch"] == torch.__version__
    assert control.measured_peak is not None
    assert control.measured_peak.flop_per_s > 0
    assert (control.gpu_name, control.compute_capability, control.device_states) == (None, None, ())
    assert len(control.synchronises) >= 2


def test_the_torch_capture_holds_ranges_and_the_manifest(plan: RunPlan, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = RunManifest("test", "running", plan.request, "torch", RunMeta("test", datetime.now(UTC), 2))
    path = Path(plan.run_dir) / "run.json"
    path.write_text(to_json(manifest))
    assert workload.main([save(plan), "--role", "capture", "--manifest", str(path)]) == 0
    assert capsys.readouterr().out == ""
    captured = result(plan, "capture")
    assert [(one.pass_index, one.image_index) for one in captured.passes] == [(0, 0), (0, 1)]
    assert captured.costs == ()
    with closing(sqlite3.connect(Path(plan.run_dir) / "trace.sqlite")) as trace:
        rows = trace.execute(
            "SELECT coalesce(text, value), eventType, int64Value FROM NVTX_EVENTS "
            "LEFT JOIN StringIds ON textId = id ORDER BY start"
        ).fetchall()
    stages = [(text, payload) for text, kind, payload in rows if kind == 59 and "." not in text and text != "lm_head"]
    prompt = captured.prompts[0].prompt_tokens
    steps = [("decode_step", prompt + 1 + step) for step in range(NEW_TOKENS - 1)]
    assert stages == [
        one for image in (0, 1) for one in [(f"image[{image}]", None), ("prefill", prompt), ("decode", None), *steps]
    ]
    assert {"vision.sam", "vision.clip", "vision.projector", "layers.1.mlp", "lm_head"} <= {row[0] for row in rows}
    (mark,) = (text for text, kind, _ in rows if kind == 34)
    assert from_json(RunManifest, mark.removeprefix(MANIFEST_MARK_PREFIX)) == manifest


def test_the_nsys_collector_needs_no_torch_profiler(plan: RunPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("torch.profiler.profile", refuse)
    nsys = evolve(plan, collector="nsys", annotation_level="operators")
    assert workload.main([save(nsys), "--role", "capture"]) == 0
    assert not (Path(plan.run_dir) / "trace.sqlite").exists()


def test_a_batch_counts_one_sequence(plan: RunPlan) -> None:
    assert workload.main([save(with_settings(plan, batch_size=2)), "--role", "control"]) == 0
    control = result(plan, "control")
    assert control.prompts[0].image_tokens == 73
    assert all(one.new_tokens == NEW_TOKENS for one in control.passes)
    (note,) = (note for note in control.notes if "batch size 2" in note)
    assert "copies go to the same experts" in note


def test_a_text_only_model_takes_no_image(plan: RunPlan) -> None:
    assert workload.main([save(with_request(plan, model_path="llama-tiny")), "--role", "control"]) == 0
    (first, _) = result(plan, "control").prompts
    assert (first.mode, first.image_tokens) == ("text", 0)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"model_path": "deepseek-orc"}, ModelError, "nearest presets: deepseek-ocr"),
        ({"model_path": "/no/such"}, ModelError, "no such folder"),
        ({"input_dir": "/no/such"}, InputImagesError, "/no/such"),
        ({"device": "cuda:99"}, RequestError, "cuda:99"),
    ],
)
def test_what_cannot_run_is_one_line_and_leaves_nothing(
    plan: RunPlan, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], kind: type[DsocrError], message: str
) -> None:
    assert workload.main([save(with_request(plan, **changes)), "--role", "control"]) == kind.exit_code
    said = capsys.readouterr()
    assert said.out == ""
    (error,) = (line for line in said.err.splitlines() if "error:" in line)
    assert message in error
    assert [path.name for path in Path(plan.run_dir).iterdir()] == ["plan.json"]


class InMemory:
    """A recording that keeps its ranges."""

    def __init__(self) -> None:
        self.sink = MemorySink()

    def capturing(self, device: str) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.mark.parametrize(
    ("collector", "level", "inside"),
    [("nsys", "modules", True), ("nsys", "stages", False), ("torch", "modules", False)],
)
def test_a_graph_is_recorded_inside_the_collection_where_that_tells_its_modules(
    plan: RunPlan, monkeypatch: pytest.MonkeyPatch, collector: CollectorName, level: AnnotationLevel, inside: bool
) -> None:
    graphs = play_graphs_on_the_cpu(monkeypatch)
    recording = InMemory()
    monkeypatch.setattr(type(COLLECTORS[collector]), "recording", lambda self, plan: recording)
    llama = with_settings(with_request(plan, model_path="llama-tiny"), decode_mode="cuda-graph")
    planned = evolve(llama, collector=collector, annotation_level=level)
    assert workload.main([save(planned), "--role", "capture"]) == 0
    names = [record.name for record in recording.sink.records]
    assert names.count("graph_record") == inside
    assert names[0] == ("graph_record" if inside else "image[0]")
    first_image = names.index("image[0]")
    assert {"layers.0.mlp", "lm_head"} <= set(names[:first_image]) or not inside
    # One graph for the warm-up, and another where it is recorded anew; the last one is replayed for every step.
    steps = 2 * (NEW_TOKENS - 1)
    assert len(graphs) == 1 + inside
    assert graphs[-1].replays == steps + 1 if inside else steps + NEW_TOKENS - 1
    assert any("those of the recording" in note for note in result(llama, "capture").notes)


def test_the_control_run_records_its_graph_unobserved(plan: RunPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = play_graphs_on_the_cpu(monkeypatch)
    hooks: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "register_forward_pre_hook", lambda *_, **__: hooks.append("hook"))
    llama = with_settings(with_request(plan, model_path="llama-tiny"), decode_mode="cuda-graph")
    planned = evolve(llama, collector="nsys")
    assert workload.main([save(planned), "--role", "control", "--no-costs"]) == 0
    assert (len(graphs), hooks) == (1, [])


def test_decode_on_a_static_cache(plan: RunPlan) -> None:
    static = with_settings(plan, decode_mode="static")
    assert workload.main([save(static), "--role", "capture"]) == 0
    captured = result(static, "capture")
    assert captured.decode_mode == "static"
    assert any("the cache is static" in note for note in captured.notes)
    with closing(sqlite3.connect(Path(plan.run_dir) / "trace.sqlite")) as trace:
        (copies,) = trace.execute(
            "SELECT count(*) FROM CUPTI_ACTIVITY_KIND_RUNTIME JOIN StringIds ON id = nameId WHERE value LIKE '%index_copy_%'"
        ).fetchone()
    assert copies > 0  # only a static cache is written to in place


def test_cuda_graphs_are_refused_on_a_cpu(plan: RunPlan, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        workload.main([save(with_settings(plan, decode_mode="cuda-graph")), "--role", "control"])
        == ModelError.exit_code
    )
    assert "CUDA graphs need a GPU" in capsys.readouterr().err


def test_an_unknown_input_mode_is_refused(plan: RunPlan, capsys: pytest.CaptureFixture[str]) -> None:
    assert workload.main([save(with_settings(plan, input_mode="native")), "--role", "control"]) == ModelError.exit_code
    assert "tiny, small, base, large, gundam" in capsys.readouterr().err


def test_a_broken_plan_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"run_id": "x"}))
    assert workload.main([str(path), "--role", "control"]) == RequestError.exit_code
    assert "$.request: missing" in capsys.readouterr().err


def test_inputs_that_fill_the_memory_are_refused(
    plan: RunPlan, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "available_memory_bytes", lambda: 4 * 2**20)
    assert workload.main([save(plan), "--role", "control"]) == InputImagesError.exit_code
    assert "the first 1 of 2 images already take" in capsys.readouterr().err


def inputs_of_shape(index: int, length: int) -> ModelInputs:
    return ModelInputs({"input_ids": torch.zeros(1, length)}, PromptTokens(index, "text", 0, 0, length, length))


def test_a_warm_up_sees_each_shape_once() -> None:
    shapes = distinct_shapes([inputs_of_shape(index, length) for index, length in enumerate((5, 6, 5, 6, 7))])
    assert [one.prompt.image_index for one in shapes] == [0, 1, 4]


def test_lengths_are_told_only_where_all_passes_agree() -> None:
    inputs = [inputs_of_shape(0, 5), inputs_of_shape(1, 5), inputs_of_shape(2, 5)]
    lengths = [(0, 0, 4), (0, 1, 4), (1, 0, 4), (1, 1, 3)]
    done = [ControlPass(pass_index, image, 1, 1, new) for pass_index, image, new in lengths]
    assert [one.prompt.expected_new_tokens for one in with_generated_lengths(inputs, done)] == [4, None, None]


@pytest.mark.parametrize("mode", ["eager", "static"])
def test_a_brief_capture_is_one_prefill_and_one_step_of_the_same_shapes(
    plan: RunPlan, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    plan = with_settings(with_request(plan, max_new_tokens=9), decode_mode=mode, capture_passes=2, warmup_passes=1)
    seen: list[tuple[int, int, bool]] = []
    positions: list[int] = []

    def watched(
        given: RunPlan, model: Any, decoder: Any, inputs: Any, annotator: Any, index: int, *more: Any
    ) -> list[ControlPass]:
        seen.append((len(inputs), given.request.max_new_tokens, given.settings.ignore_eos))
        return passes.run_pass(given, model, decoder, inputs, annotator, index)

    def made(given: RunPlan, model: Any, inputs: Any) -> Any:
        positions.append(max(one.prompt.prompt_tokens for one in inputs) + given.request.max_new_tokens)
        return passes.make_decoder(given, model, inputs)

    monkeypatch.setattr(workload, "run_pass", watched)
    monkeypatch.setattr(workload, "make_decoder", made)
    done = workload.run(plan, "capture", None, lambda line: None, brief=True)
    assert [(one.image_index, one.new_tokens, len(one.step_ns)) for one in done.passes] == [(0, 2, 1)]
    assert seen == [(1, 2, True), (1, 2, True)]  # the warm-up, and one pass
    assert positions == [done.prompts[0].prompt_tokens + 9]  # the cache has the plan's length
