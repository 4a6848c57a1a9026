"""The counter against the closed form, against arithmetic by hand, and against a model that really runs."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from analysis.domain.errors import ModelError
from analysis.domain.manifest import ComponentCost, PromptTokens, StageCost
from analysis.efficiency.cost import PRESETS, closed_form, find_preset, view_sides
from runner.child.flops import _formulas, _sum_piecewise_linear, count_costs, meta_network
from runner.child.models import registry
from runner.child.models.deepseek_ocr import DeepseekOcr
from runner.child.models.deepseek_ocr2 import DeepseekOcr2
from runner.child.models.family import ModelInputs
from runner.child.models.generic import Generic
from runner.child.models.prompts import StandInTokens

transformers = pytest.importorskip("transformers")

COMPONENTS = {
    "prefill": {
        "sam", "clip", "projector", "attention_projections", "attention_scores", "dense_mlp", "routed_experts",
        "shared_experts", "router", "lm_head", "embedding", "other",
    },
    "decode": {
        "attention_projections", "attention_scores", "dense_mlp", "routed_experts", "shared_experts", "router",
        "lm_head", "embedding", "other",
    },
}  # fmt: skip
FIELDS = ("flop", "flop_full", "weight_bytes", "kv_read_bytes", "kv_write_bytes")


def page_inputs(image_index: int = 0) -> ModelInputs:
    """One global view of 1024² and six tiles of 640²: 903 image tokens, and 13 of text."""
    prompt = PromptTokens(
        image_index=image_index, mode="gundam", tiles=6, image_tokens=903, text_tokens=13, prompt_tokens=916
    )
    tensors = {
        "input_ids": torch.empty((1, 916), dtype=torch.long, device="meta"),
        "pixel_values": torch.empty((1, 3, 1024, 1024), device="meta"),
        "pixel_values_local": torch.empty((6, 3, 640, 640), device="meta"),
    }
    return ModelInputs(tensors, prompt, {"num_local_patches": [6], "patches_grid": [[2, 3]]})


def text_inputs(tokens: int) -> ModelInputs:
    prompt = PromptTokens(image_index=0, mode="text", tiles=0, image_tokens=0, text_tokens=tokens, prompt_tokens=tokens)
    return ModelInputs({"input_ids": torch.empty((1, tokens), dtype=torch.long, device="meta")}, prompt)


@pytest.fixture(scope="module")
def deepseek_ocr() -> Any:
    family = DeepseekOcr()
    return meta_network(family, family.preset_config("deepseek-ocr"))


def by_component(cost: StageCost) -> dict[str, ComponentCost]:
    return {part.component: part for part in cost.components}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_counter_and_closed_form_agree_per_component(deepseek_ocr: Any, batch_size: int) -> None:
    inputs = page_inputs()
    counted = count_costs(
        DeepseekOcr(), deepseek_ocr, [inputs], max_new_tokens=64, dtype_bytes=2, batch_size=batch_size
    )
    closed = closed_form("deepseek-ocr", [inputs.prompt], max_new_tokens=64, batch_size=batch_size)
    assert [cost.stage for cost in counted] == [cost.stage for cost in closed] == ["prefill", "decode"]
    for one, other in zip(counted, closed, strict=True):
        assert (one.source, other.source) == ("counter", "closed form")
        assert (one.tokens, one.context_first, one.context_last) == (
            other.tokens,
            other.context_first,
            other.context_last,
        )
        left, right = by_component(one), by_component(other)
        assert left.keys() == right.keys() == COMPONENTS[one.stage]
        for name in left:
            for field in FIELDS:
                assert getattr(left[name], field) == pytest.approx(getattr(right[name], field), rel=1e-3), (name, field)


def test_copies_of_a_prompt_touch_no_more_experts_than_one(deepseek_ocr: Any) -> None:
    """On an H100 the expert kernels of a decode step took 365 µs for one copy and 338 µs for 16: they read the same weights."""
    inputs = page_inputs()
    options: Any = {"max_new_tokens": 3, "dtype_bytes": 2}
    alone = count_costs(DeepseekOcr(), deepseek_ocr, [inputs], batch_size=1, **options)
    copies = count_costs(DeepseekOcr(), deepseek_ocr, [inputs], batch_size=16, **options)
    for one, many in zip(alone, copies, strict=True):
        of_one, of_many = by_component(one)["routed_experts"], by_component(many)["routed_experts"]
        assert of_many.weight_bytes == of_one.weight_bytes
        assert of_many.flop == 16 * of_one.flop
    steps, layers, per_token, expert = 2, 11, 6, 3 * 1280 * 896
    assert by_component(copies[1])["routed_experts"].weight_bytes == steps * layers * per_token * expert * 2


@cache
def family_and_network(preset: str) -> tuple[Any, Any]:
    family = FAMILIES[registry.PRESETS[preset].family]()
    return family, meta_network(family, family.preset_config(preset))


FAMILIES = {"deepseek_ocr": DeepseekOcr, "deepseek_ocr2": DeepseekOcr2, "generic": Generic}


def test_there_is_a_closed_form_of_every_preset() -> None:
    assert PRESETS.keys() == registry.PRESETS.keys()


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize(
    ("preset", "mode"),
    [
        (name, mode)
        for name, preset in registry.PRESETS.items()
        for mode in (("text",) if preset.family == "generic" else ("tiny", "base", "gundam"))
    ],
)
def test_the_closed_form_of_every_preset_is_what_the_counter_counts(preset: str, mode: str, batch_size: int) -> None:
    family, network = family_and_network(preset)
    config = family.preset_config(preset)
    tokens = StandInTokens(config.get_text_config().vocab_size)
    page = None if mode == "text" else Image.new("RGB", (800, 1100), "white")
    inputs = family.inputs(page, 0, mode, tokens, None, config)
    assert (inputs.prompt.tiles > 0) == (mode == "gundam")
    options: Any = {"max_new_tokens": 9, "batch_size": batch_size}
    counted = count_costs(family, network, [inputs], dtype_bytes=2, **options)
    closed = closed_form(preset, [inputs.prompt], **options)
    assert [cost.stage for cost in counted] == [cost.stage for cost in closed] == ["prefill", "decode"]
    for one, other in zip(counted, closed, strict=True):
        left, right = by_component(one), by_component(other)
        assert left.keys() == right.keys()
        for name in left:
            for field in FIELDS:
                found, expected = getattr(left[name], field), getattr(right[name], field)
                # Experts touched are a mean, rounded per parameter by the one and once by the other.
                assert found == pytest.approx(expected, rel=1e-6 if name == "routed_experts" else 0), (name, field)


@pytest.mark.parametrize("preset", [name for name in registry.PRESETS if name.startswith("deepseek")])
@pytest.mark.parametrize("size", [(800, 1100), (1700, 700), (600, 500)])
def test_an_image_never_takes_fewer_positions_than_the_closed_form_says(preset: str, size: tuple[int, int]) -> None:
    family = FAMILIES[registry.PRESETS[preset].family]()
    config, vision = family.preset_config(preset), find_preset(preset).vision
    assert vision is not None
    assert tuple(vision.modes) == tuple(family.input_modes)
    assert vision.default_mode == (registry.PRESETS[preset].default_mode or family.default_mode)
    for mode in family.input_modes:
        made = family.inputs(Image.new("RGB", size), 0, mode, StandInTokens(8192), None, config).prompt
        assert view_sides(preset, mode, made.tiles)
        least = vision.least_image_tokens(mode, made.tiles)
        assert least <= made.image_tokens <= least + 10 * made.tiles


def test_the_stock_counter_misses_the_experts(deepseek_ocr: Any) -> None:
    def total(mapping: dict[Any, Any]) -> int:
        counter = FlopCounterMode(display=False, custom_mapping=mapping)
        with torch.no_grad(), torch.device("meta"), counter:
            deepseek_ocr(input_ids=torch.empty((1, 1), dtype=torch.long), logits_to_keep=1)
        return int(counter.get_total_flops())

    stock, ours = total({}), total(_formulas())
    assert 1 - stock / ours == pytest.approx(0.38, abs=0.02)


def test_same_shapes_are_counted_once_and_keep_their_image(deepseek_ocr: Any) -> None:
    costs = count_costs(DeepseekOcr(), deepseek_ocr, [page_inputs(4), page_inputs(7)], max_new_tokens=2, dtype_bytes=2)
    assert [(cost.image_index, cost.stage) for cost in costs] == [
        (4, "prefill"),
        (4, "decode"),
        (7, "prefill"),
        (7, "decode"),
    ]
    assert costs[0].components == costs[2].components


def test_the_models_own_check_is_back_after_counting(deepseek_ocr: Any) -> None:
    count_costs(DeepseekOcr(), deepseek_ocr, [page_inputs()], max_new_tokens=1, dtype_bytes=2)
    assert all("get_placeholder_mask" not in module.__dict__ for module in deepseek_ocr.modules())


def test_the_meta_count_is_that_of_a_real_run() -> None:
    """The same tiny model with real numbers on the CPU, fused attention included."""
    family = DeepseekOcr()
    config = family.preset_config("deepseek-ocr-tiny")
    page = Image.new("RGB", (800, 1100), "white")
    inputs = family.inputs(page, 0, "gundam", StandInTokens(config.get_text_config().vocab_size), None, config)
    counted = count_costs(family, meta_network(family, config), [inputs], max_new_tokens=2, dtype_bytes=2)
    network = family.network_class(config)._from_config(config, dtype=torch.bfloat16).eval()
    tensors = {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in inputs.tensors.items()
    }
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    with torch.no_grad(), counter:
        output = network(**tensors, **inputs.options, use_cache=True, logits_to_keep=1)
    assert counter.get_total_flops() == sum(part.flop_full for part in counted[0].components)
    with torch.no_grad(), counter:
        network(input_ids=torch.tensor([[5]]), past_key_values=output.past_key_values, logits_to_keep=1)
    assert counter.get_total_flops() == sum(part.flop_full for part in counted[1].components)


@pytest.mark.parametrize("experts", ["eager", "batched_mm"])
def test_how_a_run_computes_its_experts_is_no_matter(experts: str) -> None:
    family = DeepseekOcr()
    config = family.preset_config("deepseek-ocr-tiny")
    plain = count_costs(family, meta_network(family, config), [page_inputs()], max_new_tokens=2, dtype_bytes=2)
    chosen = family.network_class(config)._from_config(config, attn_implementation="eager").config
    chosen._experts_implementation = experts
    again = count_costs(family, meta_network(family, chosen), [page_inputs()], max_new_tokens=2, dtype_bytes=2)
    assert again == plain
    assert chosen._experts_implementation == experts
    assert chosen._attn_implementation == "eager"


def test_a_text_model_by_hand() -> None:
    family = Generic()
    network = meta_network(family, family.preset_config("llama-tiny"))
    prefill, decode = count_costs(family, network, [text_inputs(100)], max_new_tokens=5, dtype_bytes=4, batch_size=2)
    parts = by_component(prefill)
    # 2 layers of 256, 8 heads and 2 key heads of 32; table of 8192 tied to the head.
    assert parts["attention_projections"].flop == 2 * 2 * 100 * 2 * 256 * (2 * 256 + 2 * 64)
    assert parts["attention_scores"].flop == 2 * 2 * 4 * 256 * (100 * 101 // 2)
    assert parts["attention_scores"].flop_full == 2 * 2 * 4 * 256 * 100**2
    assert parts["dense_mlp"].flop == 2 * 2 * 100 * 2 * 3 * 256 * 1024
    assert parts["lm_head"].flop == 2 * 2 * 256 * 8192
    assert parts["lm_head"].weight_bytes == 4 * 256 * 8192
    assert parts["embedding"].weight_bytes == 4 * 256 * 100 * 2
    assert parts["other"].weight_bytes == 4 * 5 * 256
    assert parts["attention_scores"].kv_write_bytes == 4 * 2 * 100 * 2 * 2 * 64
    parts = by_component(decode)
    contexts = 101 + 102 + 103 + 104
    assert parts["attention_scores"].flop == 2 * 2 * 4 * 256 * contexts
    assert parts["attention_scores"].kv_read_bytes == 4 * 2 * contexts * 2 * 2 * 64
    assert parts["attention_scores"].kv_write_bytes == 4 * 2 * 4 * 2 * 2 * 64
    assert parts["dense_mlp"].weight_bytes == 4 * 4 * 2 * 3 * 256 * 1024, "once per step, shared by the batch"


def test_a_sliding_window_bounds_attention() -> None:
    config = transformers.MistralConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        sliding_window=16,
    )
    config.layer_types = ["sliding_attention"] * 2
    network = meta_network(Generic(), config)
    prefill, decode = count_costs(Generic(), network, [text_inputs(10)], max_new_tokens=21, dtype_bytes=2)
    assert by_component(prefill)["attention_scores"].flop == 2 * 4 * 64 * 55
    # Contexts 11 to 30, of which a query sees 16 at most.
    seen = sum(min(context, 16) for context in range(11, 31))
    assert by_component(decode)["attention_scores"].flop == 2 * 4 * 64 * seen
    (long_prefill,) = count_costs(Generic(), network, [text_inputs(40)], max_new_tokens=1, dtype_bytes=2)
    assert by_component(long_prefill)["attention_scores"].flop == 2 * 4 * 64 * (16 * 17 // 2 + 24 * 16)


def test_a_model_that_cannot_be_counted_says_why() -> None:
    config = transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, state_size=4)
    with pytest.raises(ModelError, match="meta device"):
        count_costs(Generic(), meta_network(Generic(), config), [text_inputs(4)], max_new_tokens=2, dtype_bytes=2)


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 80), st.integers(0, 9), st.integers(0, 9))
def test_sums_of_bent_lines_are_exact(first: int, more: int, bend: int, slope: int, constant: int) -> None:
    def at(context: int) -> Counter[tuple[str, str]]:
        return Counter({("a", "flop"): slope * min(context, bend) + constant, ("b", "flop"): 3 * context})

    last = first + more
    summed = _sum_piecewise_linear(at, first, last)
    for name in ("a", "b"):
        assert summed[name, "flop"] == sum(at(context)[name, "flop"] for context in range(first, last + 1))
