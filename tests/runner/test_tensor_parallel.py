"""Runs whose ranks share a model: what is refused in one line, and what is asked of torchrun and nsys."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.errors import ModelError, RequestError
from launch_kit import ROOT, environment, fake_nsys, prepare
from runner.child.models.ranks import Ranks, open_ranks
from runner.child.models.registry import check_tensor_parallel, resolve_model
from runner.collectors.choosing import Choice
from runner.collectors.nsys.collector import NsysCollector
from runner.launcher.launch import devices_of
from runner.launcher.request import make_plan
from runner.plan.plan import RunPlan, trace_names
from runner.plan.settings import Settings


def test_torchrun_stands_between_the_namespace_and_nsys(tmp_path: Path) -> None:
    run = prepare(tmp_path, fake_nsys(tmp_path / "nsys"), tensor_parallel=2)
    commands = run.commands()
    for step in ("control", "capture"):
        assert commands[step].count("torch.distributed.run") == 1
        assert "--nproc-per-node=2" in commands[step]
        assert commands[step][-len(run.command(run.directory, step)) :] == run.command(run.directory, step)
    capture = commands["capture"]
    assert capture.index("--no-python") < capture.index("profile")
    assert f"--output={run.directory.path}/rank%q{{RANK}}" in capture
    assert not [argument for argument in capture if argument.startswith("--session-new")]
    both = [f"{run.directory.path}/rank{rank}.sqlite" for rank in (0, 1)]
    assert commands["analysis"][-4:] == [*both, "--out", str(run.directory.path)]
    assert trace_names(2) == run.directory.traces() == ("rank0", "rank1")


def test_one_rank_is_a_run_as_ever(tmp_path: Path) -> None:
    run = prepare(tmp_path, fake_nsys(tmp_path / "nsys"))
    assert "torch.distributed.run" not in [*run.commands()["control"], *run.commands()["capture"]]
    assert run.directory.traces() == ("trace",)


@pytest.mark.parametrize(
    ("settings", "device", "words"),
    [
        ({"collector": "torch"}, "cpu", "collector nsys"),
        ({"decode_mode": "static"}, "cpu", "eagerly"),
        ({}, "cuda:1", "leave out --device"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], device: str, words: str
) -> None:
    chosen = Choice(NsysCollector(fake_nsys(tmp_path)), "a test")
    if "collector" not in settings:
        monkeypatch.setattr("runner.launcher.request.choose_collector", lambda *_: chosen)
    request = LLMProfileRequest("llama-tiny", "/pages", device=device)
    with pytest.raises(RequestError, match=f"--tensor-parallel 2.*{words}"):
        make_plan(request, Settings(tensor_parallel=2, **settings), tmp_path, environment())


def test_a_model_with_vision_towers_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "runner.cli", "run", "deepseek-ocr-tiny", "--tensor-parallel", "2", "--dry-run"]
    done = subprocess.run(argv, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == ModelError.exit_code
    assert "no plan for the vision towers" in done.stderr.splitlines()[-1]
    check_tensor_parallel(resolve_model("llama-tiny"), 2)


def test_each_rank_has_a_gpu(tmp_path: Path) -> None:
    request = LLMProfileRequest("llama-1b", "/pages", device="cuda:0")
    plan = RunPlan("id", request, str(tmp_path), "nsys", settings=Settings(tensor_parallel=2))
    assert devices_of(plan) == ("cuda:0", "cuda:1")
    assert Ranks(2, 1, 1).device_name("cuda:0") == "cuda:1"
    assert Ranks(2, 1, 1).device_name("cpu") == "cpu"
    assert Ranks().device_name("cuda:3") == "cuda:3"


def test_a_rank_that_nobody_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelError, match="torchrun"), open_ranks(2, "cpu"):
        pass
    with open_ranks(1, "cpu") as alone:
        assert (alone.first, alone.note) == (True, None)
        assert not torch.distributed.is_initialized()


class _Refuses:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def from_pretrained(self, *_: Any, **__: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ImportError("this requires `accelerate`"), r"dsocr-profiler\[tp\]"),
        (ValueError("no tp plan\nmore"), "cannot divide this model .no tp plan"),
    ],
)
def test_what_transformers_refuses_is_one_line(tmp_path: Path, error: Exception, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        Ranks(2).load(_Refuses(error), tmp_path)
    assert len(str(caught.value).splitlines()) == 1
