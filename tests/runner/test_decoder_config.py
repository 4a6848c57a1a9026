"""Closed forms from a configuration, against what torch counts in tiny models of transformers that really run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from analysis.efficiency.decoder_config import ConfiguredDecoder, read_decoder_config
from analysis.efficiency.step_cost import Requests, step_cost

transformers = pytest.importorskip("transformers")

COMMON: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 160, "torch_dtype": "float32", "max_position_embeddings": 128,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "moe_intermediate_size": 24, "n_routed_experts": 8, "num_experts_per_tok": 2,
    "n_shared_experts": 2, "first_k_dense_replace": 1, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12, "v_head_dim": 20, "n_group": 1, "topk_group": 1,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama with biases, tied": {
        "model_type": "llama", "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True
    },
    "mistral with a window": {"model_type": "mistral", "sliding_window": 8, "head_dim": 24},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 24},
    "gemma": {"model_type": "gemma", "head_dim": 32},
    "gemma2": {"model_type": "gemma2", "head_dim": 32, "sliding_window": 8},
    "gemma3": {"model_type": "gemma3_text", "head_dim": 32, "sliding_window": 8, "sliding_window_pattern": 2},
    "phi3": {"model_type": "phi3", "pad_token_id": 0},
    "olmo2": {"model_type": "olmo2"},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 6, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "model_type": "qwen2_moe", "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 40, "decoder_sparse_step": 1,
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24,
        "decoder_sparse_step": 2, "mlp_only_layers": [], "head_dim": 24,
    },
    "deepseek_v2": {"model_type": "deepseek_v2", "q_lora_rank": None, **LATENT},
    "deepseek_v3": {"model_type": "deepseek_v3", "q_lora_rank": 28, **LATENT},
    "glm4_moe": {
        "model_type": "glm4_moe", "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1,
        "moe_intermediate_size": 24, "first_k_dense_replace": 1, "head_dim": 16, "use_qk_norm": True,
    },
    "gpt_oss": {
        "model_type": "gpt_oss", "num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 16, "sliding_window": 8,
    },
}  # fmt: skip
PROMPT = 19


def made(folder: Path, name: str) -> tuple[Any, ConfiguredDecoder]:
    """A random model on the CPU, and its configuration as it was read from the file that transformers writes."""
    table = COMMON | MODELS[name]
    written = folder / "stated.json"
    written.write_text(json.dumps(table))
    config = transformers.AutoConfig.for_model(**table)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    config.save_pretrained(folder)
    assert read_decoder_config(written).layers == read_decoder_config(folder).layers
    return model, read_decoder_config(folder)


@pytest.mark.parametrize("name", MODELS)
def test_products_are_those_that_torch_counts(name: str, tmp_path: Path) -> None:
    """A prompt, full attention: FlopCounterMode counts the whole square, and one head per position."""
    model, decoder = made(tmp_path, name)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.arange(PROMPT)[None], use_cache=False, logits_to_keep=1)
    parts = {part.component: part for part in step_cost(decoder, [Requests.prompt(PROMPT)])}
    assert sum(part.flop_full for part in parts.values()) == counter.get_total_flops() > 0


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_the_parameters(name: str, tmp_path: Path) -> None:
    """A step of so many tokens that every expert is read touches every parameter once, of the embedding its rows."""
    model, decoder = made(tmp_path, name)
    many = 4000
    parts = {part.component: part for part in step_cost(decoder, [Requests.prompt(many)])}
    rows = 0 if decoder.tied else many * decoder.width * 4
    assert parts["embedding"].weight_bytes == rows if rows else "embedding" not in parts
    stored = sum(parameter.numel() for parameter in model.parameters()) * 4
    corrections = sum(buffer.numel() for key, buffer in model.named_buffers() if "correction_bias" in key) * 4
    table = 0 if decoder.tied else decoder.vocabulary * decoder.width * 4
    assert sum(part.weight_bytes for part in parts.values()) - rows == stored + corrections - table


@pytest.mark.parametrize("name", ["llama", "qwen3_moe", "gpt_oss", "gemma3"])
def test_a_decode_step_is_what_torch_counts(name: str, tmp_path: Path) -> None:
    """One token over a cache; contexts within the window."""
    model, decoder = made(tmp_path, name)
    with torch.no_grad():
        cache = model(torch.arange(6)[None], use_cache=True).past_key_values
        with FlopCounterMode(display=False) as counter:
            model(torch.tensor([[7]]), past_key_values=cache, use_cache=True, logits_to_keep=1)
    parts = step_cost(decoder, [Requests.token(7)])
    assert sum(part.flop for part in parts) == counter.get_total_flops() > 0
