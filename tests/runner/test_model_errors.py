"""What is wrong with a model is said as such: exit code 5, one line, the file, and what to do."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.errors import ModelError
from launch_kit import environment
from released_checkpoint import CONFIG
from runner.child.models.config_check import check_config
from runner.child.models.loading import load_model
from runner.child.models.registry import resolve_model
from runner.plan.plan import RunPlan
from runner.plan.settings import Settings

LANGUAGE: dict[str, Any] = dict(CONFIG["language_config"])  # type: ignore[call-overload]
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def folder_with(folder: Path, config: Any, name: str = "config.json") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


def made_up(folder: Path) -> None:
    """Build the model of a folder with random weights, as a run does."""
    request = LLMProfileRequest(str(folder), "/pages", device="cpu")
    load_model(RunPlan("id", request, str(folder / "run"), "torch", settings=Settings(random_weights=True)))


def refusal(do: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as caught:
        do()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": -4}, "num_attention_heads is -4"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": 33}, "hidden_size 33 cannot be divided among num_attention_heads 4"),
        ({"num_key_value_heads": 3}, "num_attention_heads 4 is no multiple of num_key_value_heads 3"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers is 1000000000000; from 1 to 10,000 is possible"),
        ({"num_hidden_layers": 10**400}, "not valid JSON (the whole number 1000"),
        ({"vocab_size": "many"}, "vocab_size is 'many' and must be a whole number"),
        ({"vocab_size": True}, "vocab_size is True and must be a whole number"),
        ({"intermediate_size": -1}, "intermediate_size is -1"),
        ({"intermediate_size": 2.5}, "intermediate_size is 2.5"),
        ({"torch_dtype": "float99"}, "torch_dtype is 'float99', which is no number format"),
        ({"dtype": 16}, "dtype is 16, which is no number format"),
        ({"vision_config": 5}, "vision_config is 5 and must be an object"),
        ({"text_config": {"num_attention_heads": 0}}, "text_config.num_attention_heads is 0"),
    ],
)
def test_a_size_that_no_model_has_is_refused_before_torch_is_imported(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    folder = folder_with(tmp_path / "model", {**LLAMA, **changes})
    said = refusal(lambda: resolve_model(str(folder), random_weights=True))
    assert said.startswith(f"{folder / 'config.json'}: {words}")


@pytest.mark.parametrize("config", [LLAMA, CONFIG], ids=["llama", "deepseek-ocr"])
def test_a_configuration_of_a_real_model_passes(tmp_path: Path, config: dict[str, Any]) -> None:
    check_config(config, tmp_path / "config.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 20480, "num_attention_heads": 160, "num_key_value_heads": 8, "head_dim": 128},
        {"hidden_size": 2304, "num_attention_heads": 7, "num_key_value_heads": 7, "head_dim": 256},
        {"num_key_value_heads": None},
        {"num_key_value_heads": [4, 2]},
        {"torch_dtype": "torch.bfloat16"},
        {"n_routed_experts": 0},
        {"vision_config": None},
    ],
)
def test_what_some_models_really_have_passes(tmp_path: Path, changes: dict[str, Any]) -> None:
    check_config({**LLAMA, **changes}, tmp_path / "config.json")


@pytest.mark.parametrize("text", ["[1, 2]", "null", '"llama"', "7"])
def test_a_configuration_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    folder = folder_with(tmp_path / "model", text)
    assert "not a JSON object" in refusal(lambda: resolve_model(str(folder), random_weights=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "no such activation"},
        {"rope_parameters": {"rope_type": "no such"}},
        {"rms_norm_eps": "small"},
        {"hidden_size": [1, 2]},
        {"num_hidden_layers": None},
        {"layer_types": ["full_attention"] * 7},
        {"head_dim": 7},
        {"model_type": "no-such-model"},
    ],
)
def test_what_only_the_library_refuses_is_the_models_fault_too(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = folder_with(tmp_path / "model", {**LLAMA, **changes})
    with suppress(ModelError):  # no other kind; the library lets some of them pass
        made_up(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"vision_config": None},
        {"vision_config": {"width": {"sam_vit_b": 5}}},
        {"language_config": {**LANGUAGE, "n_routed_experts": None}},
        {"language_config": {**LANGUAGE, "topk_method": 7}},
        {"language_config": [1]},
    ],
)
def test_a_damaged_configuration_of_deepseek_ocr_is_the_models_fault(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = folder_with(tmp_path / "model", {**CONFIG, **changes})
    with suppress(ModelError):  # no other kind
        made_up(folder)


def test_pickled_weights_are_never_unpickled(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model", LLAMA)

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"model.norm.weight": Trap()}, folder / "pytorch_model.bin")
    said = refusal(lambda: resolve_model(str(folder)))
    assert said.startswith(f"{folder / 'pytorch_model.bin'}: pickled weights")
    assert "safetensors" in said
    # Nor where there are safetensors too, of which the library could choose.
    save_file({"model.norm.weight": torch.ones(32)}, folder / "model.safetensors", metadata={"format": "pt"})
    request = LLMProfileRequest(str(folder), "/pages", device="cpu")
    refusal(lambda: load_model(RunPlan("id", request, str(folder / "run"), "torch", settings=Settings())))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("index", [{"weight_map": [1]}, {"weight_map": {"a": 1}}, {"weight_map": None}])
def test_an_index_that_names_no_files_is_refused(tmp_path: Path, index: dict[str, Any]) -> None:
    folder = folder_with(tmp_path / "model", LLAMA)
    folder_with(folder, index, "model.safetensors.index.json")
    assert "weight_map names no files" in refusal(lambda: resolve_model(str(folder)))


OUT_OF_MEMORY = """
import sys
from runner.child import workload

def all_memory(*_):
    {fault}

workload.load_model = all_memory
sys.exit(workload.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "fault",
    [
        "import torch; torch.empty(10**15, dtype=torch.float32)",
        "bytearray(10**16)",
        "import torch; raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20 GiB')",
    ],
    ids=["torch on the CPU", "python", "gpu"],
)
def test_memory_that_runs_out_is_a_model_error(tmp_path: Path, fault: str) -> None:
    from analysis.domain.convert import to_json
    from runner.inputs.inputs import sample_set

    pages = sample_set(tmp_path / "pages", (0,))
    request = LLMProfileRequest("deepseek-ocr-tiny", str(tmp_path / "pages"), device="cpu")
    plan = RunPlan("id", request, str(tmp_path), "torch", settings=Settings(), input_set=pages)
    (tmp_path / "plan.json").write_text(to_json(plan))
    command = [
        sys.executable,
        "-c",
        OUT_OF_MEMORY.format(fault=fault),
        str(tmp_path / "plan.json"),
        "--role",
        "control",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=tmp_path)
    assert done.returncode == ModelError.exit_code, done.stderr
    assert "workload: error: out of memory; take a smaller" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_error_of_a_run_is_one_line_and_exit_code_5(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "model", {**LLAMA, "num_attention_heads": 0})
    argv = [sys.executable, "-m", "runner.cli", "run", str(folder), "--random-weights", "--out", str(tmp_path / "out")]
    argv += ["--device", "cpu", "--collector", "torch", "--no-history"]
    done = subprocess.run(argv, capture_output=True, text=True, env={**environment(), "HOME": str(tmp_path)})
    assert done.returncode == ModelError.exit_code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "num_attention_heads is 0" in done.stderr
    assert not os.path.lexists(tmp_path / "out" / "latest")
