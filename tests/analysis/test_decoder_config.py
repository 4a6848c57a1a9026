"""Closed forms from a configuration: against the presets, against sums by brute force, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from analysis.domain.errors import RequestError
from analysis.domain.manifest import ComponentCost
from analysis.efficiency.cost import PRESETS, DecoderShape, decode_cost, prefill_cost
from analysis.efficiency.decoder_config import MODEL_TYPES, ConfiguredDecoder, read_decoder_config
from analysis.efficiency.step_cost import Requests, attention_is_exact, step_cost

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 160, "torch_dtype": "bfloat16",
}  # fmt: skip
DEEPSEEK_V3: dict[str, Any] = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
    "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "n_shared_experts": 1,
    "n_routed_experts": 256, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "moe_layer_freq": 1,
    "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128,
    "vocab_size": 129280, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
}  # fmt: skip


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def reader(table: Any) -> ConfiguredDecoder:
        (path := tmp_path / "config.json").write_text(table if isinstance(table, str) else json.dumps(table))
        return read_decoder_config(path)

    return reader


def by_component(parts: tuple[ComponentCost, ...]) -> dict[str, ComponentCost]:
    return {part.component: part for part in parts}


# --- against the presets ----------------------------------------------------------------------------------------------


def config_of(shape: DecoderShape) -> dict[str, Any]:
    """A configuration of the preset's decoder."""
    table = {
        "hidden_size": shape.width, "intermediate_size": shape.dense_mlp, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim,
        "vocab_size": shape.vocabulary, "tie_word_embeddings": shape.tied, "torch_dtype": "bfloat16",
    }  # fmt: skip
    if not shape.experts:
        return {"model_type": "llama", **table}
    return {
        "model_type": "deepseek_v2", "use_mla": False, "n_routed_experts": shape.experts,
        "num_experts_per_tok": shape.experts_per_token, "moe_intermediate_size": shape.expert_mlp,
        "n_shared_experts": shape.shared_experts, "first_k_dense_replace": shape.dense_layers, **table,
    }  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_by_its_configuration_costs_the_same(name: str, read: Any) -> None:
    shape = PRESETS[name].decoder
    decoder = read(config_of(shape))
    text_only = evolve(PRESETS[name], vision=None)
    prompt = prefill_cost(text_only, view_sides=[], prompt_tokens=37).components
    assert by_component(step_cost(decoder, [Requests.prompt(37)])) == by_component(prompt)
    token = decode_cost(shape, context_first=38, steps=1).components
    assert by_component(step_cost(decoder, [Requests.token(38)])) == by_component(token)


def test_a_decoder_inside_a_model_that_sees_is_found(read: Any) -> None:
    inner = config_of(PRESETS["deepseek-ocr"].decoder)
    outer = read({"model_type": "deepseek_vl_v2", "torch_dtype": "bfloat16", "language_config": inner})
    assert outer.layers == read(inner).layers
    assert outer.assumed == ("only the decoder is counted, no vision",)


def test_deepseek_v3_by_hand(read: Any) -> None:
    """671 B parameters, 37 B of them active; 70 kB of cache per token (576 numbers × 61 layers × 2 bytes)."""
    decoder = read(DEEPSEEK_V3)
    parts = by_component(step_cost(decoder, [Requests.token(1000)]))
    assert parts["attention_scores"].kv_write_bytes == 576 * 61 * 2 == 70_272
    assert parts["attention_scores"].kv_read_bytes == 1000 * 70_272
    # The latent form: scores over 576 numbers, values over 512, for 128 heads.
    assert parts["attention_scores"].flop == 61 * 2 * 128 * (576 + 512) * 1000
    products = sum(part.flop for part in parts.values()) - parts["attention_scores"].flop
    assert products / 2 == pytest.approx(36.6e9, rel=0.01), "active parameters without the embedding"
    whole = by_component(step_cost(decoder, [Requests.prompt(100_000)]))
    assert whole["routed_experts"].weight_bytes == pytest.approx(58 * 256 * 3 * 7168 * 2048, rel=0.001), (
        "fp8: a byte each"
    )
    assert decoder.arithmetic == "fp8"
    assert decoder.dtype == "bf16"


# --- sums over requests -----------------------------------------------------------------------------------------------

REQUESTS = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 60)), min_size=1, max_size=6)
"""New tokens and tokens before them, of each request."""


@given(REQUESTS, st.one_of(st.none(), st.integers(1, 70)), st.booleans())
def test_pairs_and_reads_are_exact_or_a_bound(
    requests: list[tuple[int, int]], window: int | None, decode: bool
) -> None:
    news = [1 if decode else new for new, _ in requests]
    contexts = [new + before for new, (_, before) in zip(news, requests, strict=True)]
    known = Requests(
        decode, len(news), sum(news), sum(contexts),
        sum(new**2 for new in news), sum(new * context for new, context in zip(news, contexts, strict=True)),
    )  # fmt: skip
    seen = [
        min(position, window or position)
        for new, context in zip(news, contexts, strict=True)
        for position in range(context - new + 1, context + 1)
    ]
    read = sum(
        min(context if decode else context - new, window or context)
        for new, context in zip(news, contexts, strict=True)
    )
    if known.is_exact(window):
        assert known.pairs(window) == sum(seen)
        assert known.cached(window) == read
    assert sum(news) <= known.pairs(window) <= sum(seen)
    assert known.cached(window) <= read
    unknown = Requests(decode, len(news), sum(news))
    assert not unknown.is_exact(window)
    assert sum(news) <= unknown.pairs(window) <= sum(seen)
    assert unknown.cached(window) <= read


def test_a_window_counts_what_it_lets_through(read: Any) -> None:
    plain, windowed = (read({**LLAMA, "model_type": "mistral", **more}) for more in ({}, {"sliding_window": 8}))
    scores = [by_component(step_cost(one, [Requests.prompt(20)]))["attention_scores"] for one in (plain, windowed)]
    assert scores[0].flop == 4 * 2 * 128 * (20 * 21 // 2)
    assert scores[1].flop == 4 * 2 * 128 * (8 * 9 // 2 + 12 * 8)
    step = by_component(step_cost(windowed, [Requests.token(50)]))["attention_scores"]
    assert step.kv_read_bytes == 8 * 4 * 64 * 2
    two = Requests(True, 2, 2, 30, 2, 30)
    assert attention_is_exact(plain, [two])
    assert not attention_is_exact(windowed, [two])
    alternating = read({**LLAMA, "model_type": "gemma2", "head_dim": 16, "sliding_window": 8})
    assert sorted((layer.window or 0, count) for layer, count in alternating.layers) == [(0, 2), (8, 2)]
    chosen = read({**LLAMA, "layer_types": ["full_attention"] * 3 + ["sliding_attention"], "sliding_window": 8})
    assert sorted((layer.window or 0, count) for layer, count in chosen.layers) == [(0, 3), (8, 1)]


def test_a_mixed_step_is_the_sum_of_its_requests_but_for_the_weights(read: Any) -> None:
    decoder = read(LLAMA)
    prefill, decode = Requests.prompt(9), Requests(True, 2, 2, 30, 2, 30)
    together = by_component(step_cost(decoder, [prefill, decode]))
    alone = [by_component(step_cost(decoder, [group])) for group in (prefill, decode)]
    for name, part in together.items():
        assert part.flop == sum(parts[name].flop for parts in alone)
        assert part.kv_read_bytes == sum(parts[name].kv_read_bytes for parts in alone)
    assert together["dense_mlp"].weight_bytes == alone[0]["dense_mlp"].weight_bytes
    assert together["lm_head"].flop == 2 * 3 * 64 * 160
    assert step_cost(decoder, [Requests(False, 0, 0), Requests(True, 0, 0)]) == ()


# --- quantised weights ------------------------------------------------------------------------------------------------

GROUP = {"weights": {"num_bits": 4, "group_size": 128, "type": "int"}, "input_activations": None, "targets": ["Linear"]}
EIGHT = {"weights": {"num_bits": 8, "type": "float"}, "input_activations": {"num_bits": 8, "type": "float"}}


@pytest.mark.parametrize(
    ("stated", "bits", "arithmetic"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8 + 32 / 128**2, "fp8"),
        ({"quant_method": "fbgemm_fp8"}, 8, "fp8"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4 + 20 / 128, "bf16"),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8, "bf16"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True}, 4 + 20 / 64, "bf16"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5, "bf16"),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True},
            4 + 8.125 / 64,
            "bf16",
        ),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8, "bf16"),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": GROUP}}, 4.125, "bf16"),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": EIGHT}}, 8, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.5, "bf16"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, 8, "fp8"),
    ],
)
def test_quantised_weights_count_by_their_bits(stated: dict[str, Any], bits: float, arithmetic: str, read: Any) -> None:
    decoder = read({**LLAMA, "quantization_config": stated})
    parts = by_component(step_cost(decoder, [Requests.token(5)]))
    assert parts["dense_mlp"].weight_bytes == round(4 * 3 * 64 * 96 * bits / 8)
    assert parts["lm_head"].weight_bytes == 64 * 160 * 2, "the head stays as it is"
    assert parts["attention_scores"].kv_write_bytes == 4 * 64 * 2
    assert decoder.arithmetic == arithmetic


def test_what_is_not_converted_keeps_its_bits(read: Any) -> None:
    for skipped in (["self_attn"], ["model.layers.1.self_attn", "lm_head"], ["re:.*layers\\.[01]\\.self_attn.*"]):
        key = "ignore" if skipped[0].startswith("re:") else "modules_to_not_convert"
        stated: dict[str, Any] = {"quant_method": "fp8", key: skipped}
        if key == "ignore":
            stated |= {"quant_method": "compressed-tensors", "config_groups": {"group_0": EIGHT}}
        decoder = read({**LLAMA, "quantization_config": stated})
        plain = sum(count for layer, count in decoder.layers if layer.projection_bits == 16)
        assert plain == {"self_attn": 4, "model.layers.1.self_attn": 1}.get(skipped[0], 2)
        assert {layer.mlp_bits for layer, _ in decoder.layers} == {8}


def test_only_experts_are_stored_in_mxfp4(read: Any) -> None:
    decoder = read(
        {**LLAMA, "model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 128,
         "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}}
    )  # fmt: skip
    assert {(layer.projection_bits, layer.mlp_bits) for layer, _ in decoder.layers} == {(16, 4.25)}


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("{", "not valid JSON"),
        ("[1]", "must hold a table of keys"),
        ("[" * 100_000, "not valid JSON"),
        ("\xff", "must hold a table|not valid JSON"),
        (" " * (1 << 20) + "{}", "larger than 1,048,576 bytes"),
        ({}, "model_type is missing; there is one for llama, "),
        ({**LLAMA, "model_type": "mamba2"}, "model_type 'mamba2' has no closed form; there is one for llama, "),
        ({**LLAMA, "hidden_size": None}, "hidden_size is missing; it must be a whole number"),
        ({**LLAMA, "hidden_size": "64"}, "hidden_size must be a whole number of at least 1, not '64'"),
        ({**LLAMA, "hidden_size": True}, "hidden_size must be a whole number"),
        ({**LLAMA, "hidden_size": 10**18}, "hidden_size must be a whole number"),
        ({**LLAMA, "vocab_size": 0}, "vocab_size must be a whole number of at least 1, not '0'"),
        ({**LLAMA, "num_hidden_layers": 10**6}, "num_hidden_layers is 1,000,000, which no model has; copy"),
        ({**LLAMA, "num_key_value_heads": 3}, "num_key_value_heads must divide num_attention_heads, 4"),
        ({**LLAMA, "num_attention_heads": 128, "num_key_value_heads": 128}, "head_dim is missing"),
        ({**LLAMA, "torch_dtype": "int3"}, "torch_dtype 'int3' is not known; known are bfloat16"),
        ({**LLAMA, "tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false"),
        ({**LLAMA, "layer_types": ["linear_attention"] * 4}, "layer_types must name full_attention or sliding"),
        ({**LLAMA, "layer_types": ["full_attention"]}, "layer_types must name .* for each of 4 layers"),
        ({**LLAMA, "quantization_config": 3}, "quantization_config must be a table"),
        ({**LLAMA, "quantization_config": {"quant_method": "hqq"}}, "quantization_config.quant_method 'hqq' is not known"),
        ({**LLAMA, "quantization_config": {"quant_method": "gptq"}}, "quantization_config.w_bit is missing"),
        ({**LLAMA, "quantization_config": {"quant_method": "fp8", "weight_block_size": [0]}}, "must be two whole numbers"),
        (
            {**LLAMA, "quantization_config": {"quant_method": "compressed-tensors", "ignore": ["re:("],
                                              "config_groups": {"group_0": EIGHT}}},
            "quantization_config.* 're:\\(' is no regular expression",
        ),
        ({**LLAMA, "model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3}, "more than the 2 experts"),
        ({**LLAMA, "model_type": "qwen3_moe", "mlp_only_layers": 3, "num_experts": 2}, "mlp_only_layers must be a list"),
        ({"model_type": "x", "text_config": {**LLAMA, "hidden_size": 0}}, "text_config.hidden_size must be"),
    ],
)  # fmt: skip
def test_a_bad_configuration_gets_one_line(table: Any, words: str, read: Any) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        read(table)
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        RequestError, match=r"config\.json: cannot be read .No such file or directory.; --config names a model's config"
    ):
        read_decoder_config(tmp_path)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=4),
       st.sampled_from([*LLAMA, "sliding_window", "layer_types", "quantization_config", "dtype", "head_dim"]))  # fmt: skip
def test_any_value_of_a_key_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, value: Any, key: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    path.write_text(json.dumps({**LLAMA, key: value}))
    decoder, refused = None, ""
    try:
        decoder = read_decoder_config(path)
    except RequestError as error:
        refused = str(error)
    assert decoder is None or step_cost(decoder, [Requests.prompt(3)])
    assert "\n" not in refused


def test_the_page_names_every_model_type_and_quantisation(read: Any) -> None:
    page = (Path(__file__).parents[2] / "docs" / "costs.md").read_text(encoding="utf-8")
    with pytest.raises(RequestError) as caught:
        read({**LLAMA, "quantization_config": {"quant_method": "none of them"}})
    methods = str(caught.value).rsplit("known are ", 1)[1].split(", ")
    assert [word for word in (*MODEL_TYPES, *methods) if f"`{word}`" not in page] == []
