import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

import released_checkpoint
from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.errors import ModelError, RequestError
from runner.child.models import DEFAULT_PRESET, PRESETS, loading, resolve_model
from runner.child.models.deepseek_ocr import MODES
from runner.child.models.family import LoadedModel
from runner.child.models.loading import load_model
from runner.child.models.prompts import StandInTokens
from runner.child.models.views import InputMode, tile_grid
from runner.plan.plan import RunPlan
from runner.plan.settings import Settings


def load(model: str, **changes: Any) -> LoadedModel:
    request = LLMProfileRequest(model, "/nowhere", device="cpu")
    return load_model(RunPlan("test", request, "/nowhere", "torch", settings=Settings(**changes)))


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return load("deepseek-ocr-tiny")


@pytest.fixture(scope="module")
def tiny2() -> LoadedModel:
    return load("deepseek-ocr-2-tiny")


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return released_checkpoint.released_weights()


def page(width: int, height: int) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


# Presets


def test_the_full_preset_has_deepseek_ocrs_number_of_parameters() -> None:
    source = resolve_model("deepseek-ocr")
    family = loading.family_of(source)
    config = family.preset_config("deepseek-ocr")
    count = loading._count_parameters(family.network_class(config), config, "sdpa", False)
    assert count == 3_335_504_128
    assert config.text_config.layer_types == ["full_attention"] * 12


def test_the_default_preset_is_small_says_that_it_is_random_and_shows_pages_small(tiny: LoadedModel) -> None:
    assert DEFAULT_PRESET == "deepseek-ocr-tiny" == tiny.subject.id
    assert tiny.subject.weights == "random"
    assert tiny.subject.n_layers == 2
    assert tiny.subject.parameters == sum(one.numel() for one in tiny.network.parameters())
    assert any("random" in note for note in tiny.notes)
    assert tiny.default_mode == "tiny"


def test_random_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (load("llama-tiny", seed=seed).network.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
    assert torch.equal(first["model.norm.weight"], torch.ones(256))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_names_its_modules(name: str) -> None:
    family = loading.family_of(resolve_model(name))
    config = family.preset_config(name)
    with torch.device("meta"):
        network = family.network_class(config)(config)
    modules = family.modules(network)
    layers = config.get_text_config().num_hidden_layers
    assert {f"layers.{i}{part}" for i in range(layers) for part in ("", ".self_attn", ".mlp")} <= modules.keys()
    assert "lm_head" in modules
    vision = {"deepseek_ocr": {"vision.sam", "vision.clip"}, "deepseek_ocr2": {"vision.sam", "vision.encoder"}}
    assert vision.get(PRESETS[name].family, set()) <= modules.keys()


def test_attention_and_experts_are_chosen() -> None:
    eager = load("deepseek-ocr-tiny", attn_implementation="eager", experts_implementation="eager").subject
    assert (eager.attn_implementation, eager.experts_implementation) == ("eager", "eager")
    with pytest.raises(ModelError, match="no-such-experts"):
        load("deepseek-ocr-tiny", experts_implementation="no-such-experts")
    with pytest.raises(ModelError, match="cannot build"):
        load("deepseek-ocr-tiny", attn_implementation="no-such-attention")


# Input modes


@pytest.mark.parametrize(
    ("mode", "size", "tiles", "image_tokens"),
    [
        ("tiny", (1240, 1754), 0, 73),
        ("small", (1240, 1754), 0, 111),
        ("base", (1240, 1754), 0, 273),
        ("large", (1240, 1754), 0, 421),
        ("gundam", (1240, 1754), 6, 903),
        ("gundam", (1200, 580), 2, 273 + 10 * 21),
        ("gundam", (640, 500), 0, 273),
        ("gundam", (900, 6000), 7, None),
    ],
)
def test_token_counts_are_those_of_the_models_own_features(
    tiny: LoadedModel, mode: str, size: tuple[int, int], tiles: int, image_tokens: int | None
) -> None:
    made = tiny.family.inputs(page(*size), 4, mode, tiny.tokens, None, tiny.network.config)
    pixels = {name: tensor for name, tensor in made.tensors.items() if name != "input_ids"}
    with torch.inference_mode():
        features = tiny.network.get_image_features(**pixels, **made.options).pooler_output
    assert features[0].shape[0] == made.prompt.image_tokens
    assert (made.tensors["input_ids"] == tiny.network.config.image_token_id).sum() == made.prompt.image_tokens
    assert made.tensors["input_ids"].shape == (1, made.prompt.prompt_tokens)
    assert made.prompt.prompt_tokens == made.prompt.image_tokens + made.prompt.text_tokens
    assert (made.prompt.image_index, made.prompt.mode, made.prompt.tiles) == (4, mode, tiles)
    if image_tokens is not None:
        assert made.prompt.image_tokens == image_tokens


@pytest.mark.parametrize(("mode", "tiles"), [("tiny", 0), ("small", 0), ("base", 0), ("large", 0), ("gundam", 6)])
def test_token_counts_of_the_second_model(tiny2: LoadedModel, mode: str, tiles: int) -> None:
    made = tiny2.family.inputs(page(1240, 1754), 0, mode, tiny2.tokens, None, tiny2.network.config)
    pixels = {name: tensor for name, tensor in made.tensors.items() if name != "input_ids"}
    with torch.inference_mode():
        features = tiny2.network.get_image_features(**pixels, **made.options).pooler_output
    assert features[0].shape[0] == made.prompt.image_tokens
    assert made.prompt.tiles == tiles


@given(width=st.integers(1, 9000), height=st.integers(1, 9000))
def test_tiles_are_two_to_nine_and_no_allowed_grid_is_nearer(width: int, height: int) -> None:
    grid = tile_grid(width, height, MODES["gundam"])
    if width <= 640 and height <= 640:
        assert grid is None
        return
    assert grid is not None
    columns, rows = grid
    assert 2 <= columns * rows <= 9
    distance = abs(width / height - columns / rows)
    others = [(c, r) for c in range(1, 10) for r in range(1, 10) if 2 <= c * r <= 9]
    assert distance == min(abs(width / height - c / r) for c, r in others)


def test_equally_near_grids_are_told_apart_by_the_pages_size() -> None:
    mode = InputMode("gundam", 1024, 640)
    assert tile_grid(700, 700, mode) == (2, 2)
    assert tile_grid(3000, 3000, mode) == (3, 3)


def test_an_unknown_mode_names_the_known_ones(tiny: LoadedModel) -> None:
    with pytest.raises(ModelError, match=r"'huge'.*tiny, small, base, large, gundam"):
        tiny.family.inputs(page(10, 10), 0, "huge", tiny.tokens, None, tiny.network.config)


def test_pixels_are_scaled_and_padding_is_grey(tiny: LoadedModel) -> None:
    made = tiny.family.inputs(
        Image.new("RGB", (2000, 1000), "white"), 0, "base", tiny.tokens, None, tiny.network.config
    )
    pixels = made.tensors["pixel_values"]
    assert pixels.shape == (1, 3, 1024, 1024)
    assert pixels[0, :, 512, 512].tolist() == [1.0, 1.0, 1.0]
    assert pixels[0, :, 10, 512].abs().max() < 0.01


def test_the_stand_in_gives_the_same_ids_everywhere_and_none_that_are_special() -> None:
    ids = StandInTokens(8192).ids("Read the page. Read it again.")
    assert ids == StandInTokens(8192).ids("Read  the page.\nRead it again.")
    assert len(ids) == 6
    assert ids[0] == ids[3] == 3089
    assert all(16 <= one < 8192 * 98 // 100 for one in ids)


# Checkpoints


def test_a_checkpoint_under_deepseek_ocrs_own_names_loads_completely(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    model = load(str(released_checkpoint.write_checkpoint(tmp_path / "ocr", weights)))
    network = model.network
    # Nothing may be random: with unequal random values everywhere, each parameter must be found in the file.
    total = sum(one.numel() for name, one in weights.items() if "patch_embedding" not in name)
    assert sum(one.numel() for one in network.parameters()) == total
    assert model.subject.weights == "checkpoint"
    assert not any("random" in note for note in model.notes)

    decoder, tower = network.model.language_model, network.model.vision_tower
    experts = "model.layers.1.mlp.experts"
    gate_up = torch.cat([weights[f"{experts}.5.{half}_proj.weight"] for half in ("gate", "up")])
    qkv = weights["model.vision_model.transformer.layers.1.self_attn.qkv_proj.weight"]
    attention = tower.vision_encoder.encoder.layers[1].self_attn
    for landed, stored in [
        (decoder.layers[1].mlp.experts.gate_up_proj[5], gate_up),
        (decoder.layers[1].mlp.experts.down_proj[5], weights[f"{experts}.5.down_proj.weight"]),
        (decoder.layers[0].self_attn.q_proj.weight, weights["model.layers.0.self_attn.q_proj.weight"]),
        (decoder.embed_tokens.weight, weights["model.embed_tokens.weight"]),
        (network.lm_head.weight, weights["lm_head.weight"]),
        (network.model.image_newline, weights["model.image_newline"]),
        (network.model.view_separator, weights["model.view_seperator"]),
        (network.model.multi_modal_projector.weight, weights["model.projector.layers.weight"]),
        (tower.sam_encoder.layers[1].attn.rel_pos_h, weights["model.sam_model.blocks.1.attn.rel_pos_h"]),
        (tower.sam_encoder.proj.conv2.weight, weights["model.sam_model.net_3.weight"]),
        (torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]), qkv),
    ]:
        assert torch.equal(landed, stored)


def test_a_loaded_checkpoint_attends_to_everything(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    model = load(str(released_checkpoint.write_checkpoint(tmp_path, weights)))
    assert model.network.config.text_config.layer_types == ["full_attention"] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("model.layers.1.self_attn.o_proj.weight"), r"1 weights are missing .*o_proj"),
        (lambda w: w.update({"model.extra.weight": torch.ones(2)}), r"1 weights are in the checkpoint, but unknown"),
        (
            lambda w: w.update({"lm_head.weight": torch.ones(3, 64)}),
            r"1 weights are of another shape than the model's: lm_head",
        ),
    ],
)
def test_weights_that_do_not_fit_exactly_are_refused(
    tmp_path: Path, weights: dict[str, torch.Tensor], change: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    change(weights)
    with pytest.raises(ModelError, match=message):
        load(str(released_checkpoint.write_checkpoint(tmp_path, weights)))


def test_truncated_weights_are_refused_in_one_line(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    folder = released_checkpoint.write_checkpoint(tmp_path, weights)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"model\.safetensors: broken weights") as caught:
        load(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("with_weights", [True, False])
def test_weights_can_be_made_up_for_a_folder(
    tmp_path: Path, weights: dict[str, torch.Tensor], with_weights: bool
) -> None:
    folder = released_checkpoint.write_checkpoint(tmp_path, weights)
    if not with_weights:
        (folder / "model.safetensors").unlink()
    model = load(str(folder), random_weights=True)
    assert model.subject.weights == "random"
    assert any("weights are random (seed 0)" in note for note in model.notes)
    embedding = model.network.get_input_embeddings().weight
    assert not torch.equal(embedding, weights["model.embed_tokens.weight"])
    assert 0.015 < float(embedding.std()) < 0.025


def test_a_missing_part_is_named(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    folder = released_checkpoint.write_checkpoint(tmp_path, weights)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        load(str(folder))
    parts = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(parts))
    save_file({"a": torch.ones(1)}, folder / "model-1.safetensors")
    with pytest.raises(ModelError, match=r"model-2\.safetensors: missing, though"):
        load(str(folder))


def test_a_configuration_without_a_size_is_refused(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    folder = released_checkpoint.write_checkpoint(tmp_path, weights)
    config = json.loads((folder / "config.json").read_text())
    del config["language_config"]["hidden_size"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"language_config\.hidden_size is missing"):
        load(str(folder))


def test_any_causal_model_loads_with_its_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    load("llama-tiny").network.save_pretrained(tmp_path)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "Read": 5, "this": 6}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    model = load(str(tmp_path))
    assert model.subject.weights == "checkpoint"
    made = model.family.inputs(None, 0, "text", model.tokens, "Read this", model.network.config)
    assert made.tensors["input_ids"].tolist() == [[1, 5, 6]]
    assert model.notes == ()


def test_an_image_text_model_brings_its_own_processor(tmp_path: Path) -> None:
    folder = small_llava(tmp_path)
    model = load(str(folder))
    assert model.family.input_modes == ("native",)
    assert {"vision.encoder", "vision.projector", "layers.1.mlp", "lm_head"} <= model.modules.keys()
    made = model.family.inputs(page(300, 200), 2, "native", model.tokens, None, model.network.config)
    assert made.prompt.image_tokens == 4
    with torch.inference_mode():
        output = model.network(**made.tensors, **made.options)
    assert output.logits.shape[1] == made.prompt.prompt_tokens


def small_llava(folder: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "<image>": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words, extra_special_tokens={"image_token": "<image>"}
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    LlavaProcessor(pictures, tokenizer, patch_size=14, vision_feature_select_strategy="full").save_pretrained(folder)  # type: ignore[no-untyped-call]
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        ),
        text_config=LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
        ),
        image_token_index=3,
        vision_feature_select_strategy="default",
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


# What is not there


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("x" * 4000, r"^'x{132}…x{67}' is neither a preset .* hf download x{132}…x{67}\)$"),
        ("deepsek-ocr", r"'deepsek-ocr' is neither a preset \(nearest presets: deepseek-ocr"),
        ("qqqq", r"presets: deepseek-ocr, .*hf download qqqq"),
        (
            "some-owner/some-model",
            "not in the local Hugging Face cache; to fetch it: hf download some-owner/some-model",
        ),
        ("/no/such/folder", "/no/such/folder: no such folder"),
    ],
)
def test_models_that_are_not_there(
    reference: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=message) as caught:
        resolve_model(reference)
    assert "\n" not in str(caught.value)


def test_a_cached_id_is_found_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: dict[str, torch.Tensor]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--me--ocr" / "snapshots" / ("0" * 40)
    released_checkpoint.write_checkpoint(snapshot, weights)
    refs = tmp_path / "models--me--ocr" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    source = resolve_model("me/ocr")
    assert (source.folder, source.family) == (snapshot, "deepseek_ocr")


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.touch()
    with pytest.raises(ModelError, match="not a folder"):
        resolve_model(str(file))
    with pytest.raises(ModelError, match=r"config\.json: cannot be read"):
        resolve_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json: not valid JSON"):
        resolve_model(str(tmp_path))


def test_remote_code_stays_off(tmp_path: Path) -> None:
    code = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    config = {"model_type": "made-up", "auto_map": code}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="configuration cannot be used"):
        load(str(tmp_path))


def test_too_little_memory_is_said_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "available_memory_bytes", lambda: 6 * 2**30)
    with pytest.raises(ModelError, match=r"deepseek-ocr: its weights take 12\.4 GiB, and cpu has 6\.0 GiB free"):
        load("deepseek-ocr")


def test_a_device_that_is_not_there_is_refused() -> None:
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(RequestError, match=missing):
        load_model(RunPlan("test", LLMProfileRequest("llama-tiny", "/nowhere", device=missing), "/nowhere", "torch"))
