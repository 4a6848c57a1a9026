"""From what a user says to a request and a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.errors import RequestError
from runner.child.models.registry import PRESETS
from runner.launcher.request import make_plan, make_request, require_no_secrets
from runner.plan.settings import Settings
from runner.process.driver import DriverFacts, VisibleGpu

NO_GPU = DriverFacts(None, None)


def request(model: str, said: list[str], **changes: Any) -> Any:
    given: dict[str, Any] = {"device": "cpu", "repeats": 1, "max_new_tokens": 2, "use_flash_attn": True} | changes
    return make_request(model, Path("/pages"), presets=PRESETS, facts=NO_GPU, say=said.append, **given)


def test_a_presets_name_means_the_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the same name in the current folder was profiled in its place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deepseek-ocr").mkdir()
    said: list[str] = []
    assert request("deepseek-ocr", said).model_path == "deepseek-ocr"
    assert said == ["model: the preset deepseek-ocr; the folder of the same name is ./deepseek-ocr"]
    said.clear()
    assert request("./deepseek-ocr", said).model_path == str(tmp_path / "deepseek-ocr")
    assert request("deepseek-ocr-tiny", said).model_path == "deepseek-ocr-tiny"
    assert said == []


def test_other_folders_are_taken_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    said: list[str] = []
    assert request("checkpoint", said).model_path == str(tmp_path / "checkpoint")
    assert request("~/checkpoint", said).model_path == str(Path("~/checkpoint").expanduser())
    assert request("owner/model", said).model_path == "owner/model"
    assert said == []


def test_a_device_that_is_chosen_here_is_told() -> None:
    said: list[str] = []
    assert request("llama-tiny", said, device="auto").device == "cpu"
    assert said == ["device: cpu (no CUDA device is visible)"]
    with pytest.raises(RequestError, match="--device cuda:0: no CUDA device is visible"):
        request("llama-tiny", said, device="cuda:0")
    with pytest.raises(RequestError, match="repeats"):
        request("llama-tiny", said, repeats=0)


def test_a_plan_says_what_was_chosen_and_carries_what_was_asked() -> None:
    asked = Settings(preset="light", seed=3)
    plan, choice = make_plan(request("llama-tiny", []), asked, Path("/runs"), {})
    assert (plan.collector, choice.name) == ("torch", "torch")
    assert plan.annotation_level == "stages"  # the preset's
    assert plan.settings is asked
    assert plan.run_dir == f"/runs/{plan.run_id}"
    louder, _ = make_plan(request("llama-tiny", []), Settings(annotation_level="operators"), Path("/runs"), {})
    assert louder.annotation_level == "operators"


def test_the_first_visible_gpu_is_named() -> None:
    from runner.process.driver import default_device, torch_cuda_version

    device, reason = default_device(DriverFacts((13, 0), "580", (VisibleGpu("NVIDIA H100", "u"),)))
    assert (device, reason) == (
        ("cpu", "this torch is built without CUDA")
        if torch_cuda_version() is None
        else ("cuda:0", "NVIDIA H100 is visible")
    )


SECRET = "ghp_" + "a1B2" * 9


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"prompt": f"Read with {SECRET}."}, "--prompt"),
        ({"nsys_args": (f"--env-var=A=1,B={SECRET}",)}, "--nsys-arg"),
        ({"nsys_args": ("--env-var=MY_PASSWORD=hunter2hunter2",)}, "--nsys-arg"),
        ({"nsys": f"/opt/{SECRET}/nsys"}, "--nsys"),
    ],
)
def test_settings_that_look_like_secrets_are_refused(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    settings = evolve(Settings(), **changed)
    request = LLMProfileRequest(model_path="m", input_dir=str(tmp_path), device="cpu")
    with pytest.raises(RequestError, match=told) as caught:
        require_no_secrets(request, settings, tmp_path)
    assert SECRET not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    require_no_secrets(request, Settings(), tmp_path)


@pytest.mark.parametrize("name", ["model_path", "input_dir"])
def test_paths_that_look_like_secrets_are_refused(tmp_path: Path, name: str) -> None:
    plain: dict[str, Any] = {"model_path": "m", "input_dir": str(tmp_path), "device": "cpu"}
    request = LLMProfileRequest(**plain | {name: f"/data/{SECRET}/x"})
    with pytest.raises(RequestError, match="looks like a secret"):
        require_no_secrets(request, Settings(), tmp_path)
    with pytest.raises(RequestError, match="--out"):
        require_no_secrets(LLMProfileRequest(**plain), Settings(), tmp_path / SECRET)


def test_the_value_of_a_variable_is_refused_whatever_it_looks_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "Correct-horse")
    request = LLMProfileRequest(model_path="m", input_dir=str(tmp_path), device="cpu")
    with pytest.raises(RequestError, match="--prompt"):
        require_no_secrets(request, Settings(prompt="say Correct-horse"), tmp_path)
