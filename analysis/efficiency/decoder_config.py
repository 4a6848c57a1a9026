"""A decoder's sizes from its configuration (Hugging Face's ``config.json``), layer by layer.

Read is what costs follow from: projections, heads, sliding windows, experts, tied embeddings, and how many bits a
quantised weight takes. A model type that is not listed here may compute something else with the same keys, so that it
is refused. Keys that a file leaves out have the defaults of that type in transformers 5.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from analysis.domain.errors import RequestError
from analysis.domain.reading import json_of, read_bounded

__all__ = ["MODEL_TYPES", "ConfiguredDecoder", "Layer", "read_decoder_config"]

_LARGEST_FILE: Final = 1 << 20
_LARGEST_NUMBER: Final = 1 << 40
_MOST_LAYERS: Final = 10_000

_DENSE: Final = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2")
_MIXTURES: Final = ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "glm4_moe", "deepseek_v2", "deepseek_v3")
MODEL_TYPES: Final = (*_DENSE, *_MIXTURES)
"""Values of ``model_type`` whose costs are known."""

_LATENT: Final = ("deepseek_v2", "deepseek_v3")
_TIED: Final = ("gemma", "gemma2", "gemma3_text")
"""Types whose head is the embedding's table unless the file says otherwise."""
_INNER: Final = ("text_config", "language_config")
"""Where the configuration of a model that also sees keeps its decoder."""

_DTYPES: Final[Mapping[str, str]] = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_BITS: Final[Mapping[str, int]] = {"bf16": 16, "fp16": 16, "fp32": 32}


@frozen
class Layer:
    """What one layer consists of. Weights are parameters of matrices, sizes are per token."""

    projection_weights: int
    projection_bits: float
    """Per stored weight, scales included."""
    pair_width: int
    """Products per query-key pair, scores and sum over values together."""
    cached_pair_width: int
    """The same where the keys come from the cache: larger where the cache holds latent vectors."""
    cached_values: int
    """Numbers that a token leaves in the cache."""
    window: int | None
    """Positions that a query sees, its own included; None: all before it."""
    dense_weights: int
    shared_weights: int
    """Of the experts that every token goes through."""
    mlp_bits: float
    other_weights: int
    """Norms and biases, without those of the experts; stored in the model's type."""
    experts: int = 0
    experts_per_token: int = 0
    expert_weights: int = 0
    """Of one expert."""
    expert_biases: int = 0
    router_weights: int = 0


@frozen
class ConfiguredDecoder:
    """A decoder as its configuration describes it."""

    model_type: str
    source: str
    """The file."""
    width: int
    layers: tuple[tuple[Layer, int], ...]
    """Distinct layers, and how many there are of each."""
    vocabulary: int
    tied: bool
    """The head is the embedding's table."""
    dtype: str
    """Of weights that are not quantised, and of the cache: bf16, fp16 or fp32."""
    arithmetic: str
    """The type whose peak its products are to be compared with: ``dtype``, or fp8."""
    final_weights: int
    """Norms after the last layer."""
    assumed: tuple[str, ...] = ()
    """What the file does not say and was taken for granted, in words."""

    @property
    def layer_count(self) -> int:
        """Of all kinds."""
        return sum(count for _, count in self.layers)

    @property
    def bits(self) -> int:
        """Per number of the model's own type."""
        return _BITS[self.dtype]


@frozen
class _Quantisation:
    """How the weights of linear layers are stored."""

    bits: float
    skipped: tuple[str, ...] = ()
    """Parts of module paths, or ``re:`` and an expression, that are not quantised."""
    experts_only: bool = False
    eight_bit_arithmetic: bool = False

    def bits_of(self, path: str, plain: int) -> float:
        """Bits of a weight of the module at that path."""
        if self.experts_only and ".experts" not in path:
            return plain
        for part in self.skipped:
            if re.match(part[3:], path) if part.startswith("re:") else part in path:
                return plain
        return self.bits


@frozen
class _Keys:
    """The keys of a configuration, each with the error that it may cause."""

    path: Path
    table: Mapping[str, Any]
    prefix: str = ""

    def error(self, key: str, what: str) -> RequestError:
        return RequestError(f"{self.path}: {self.prefix}{key} {what}")

    def number(self, key: str, default: int | None = None, *, least: int = 1) -> int:
        value = self.table.get(key)
        if value is None:
            if default is None:
                raise self.error(key, "is missing; it must be a whole number")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST_NUMBER:
            raise self.error(key, f"must be a whole number of at least {least}, not {str(value)[:40]!r}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.table.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {str(value)[:40]!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.table.get(key) or []
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise self.error(key, "must be a list of texts")
        return tuple(value)

    def first(self, *keys: str) -> str:
        """The first of these keys that is there; the last one if none is."""
        return next((key for key in keys if self.table.get(key) is not None), keys[-1])

    def inner(self, key: str) -> _Keys:
        value = self.table.get(key)
        if not isinstance(value, dict):
            raise self.error(key, "must be a table")
        return _Keys(self.path, value, f"{self.prefix}{key}.")


def read_decoder_config(path: Path) -> ConfiguredDecoder:
    """Read a model's configuration.

    Args:
        path: ``config.json`` beside the weights, or the folder that holds it.

    Raises:
        RequestError: it cannot be read, is of an unknown model type or quantisation, or lacks a key; one line that names
            file and key.
    """
    path = path / "config.json" if path.is_dir() else path
    keys = _Keys(path, _table(path))
    assumed = []
    for name in _INNER:
        if isinstance(keys.table.get(name), dict):
            # What the outer table says of types and quantisation holds for the inner one too.
            shared = {
                key: keys.table[key]
                for key in ("dtype", "torch_dtype", "quantization_config", "tie_word_embeddings")
                if key in keys.table
            }
            inner = keys.inner(name)
            keys = _Keys(path, {**shared, **inner.table}, inner.prefix)
            assumed.append("only the decoder is counted, no vision")
            break
    kind = keys.table.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_TYPES:
        shown = "is missing" if kind is None else f"{str(kind)[:60]!r} has no closed form"
        raise keys.error("model_type", f"{shown}; there is one for {', '.join(MODEL_TYPES)}")
    dtype, unsaid = _dtype(keys)
    assumed += unsaid
    quantisation = _quantisation(keys, _BITS[dtype])
    count = keys.number("num_hidden_layers")
    if count > _MOST_LAYERS:
        raise keys.error("num_hidden_layers", f"is {count:,}, which no model has; copy the file again")
    windows = _windows(keys, kind, count)
    layers = Counter(
        _layer(keys, kind, index, windows[index], quantisation, _BITS[dtype]) for index in range(count)
    )  # fmt: skip
    width = keys.number("hidden_size")
    return ConfiguredDecoder(
        model_type=kind,
        source=str(path),
        width=width,
        layers=tuple(layers.items()),
        vocabulary=keys.number("vocab_size"),
        tied=keys.flag("tie_word_embeddings", kind in _TIED),
        dtype=dtype,
        arithmetic="fp8" if quantisation.eight_bit_arithmetic else dtype,
        final_weights=width,
        assumed=tuple(assumed),
    )


def _table(path: Path) -> Mapping[str, Any]:
    table = json_of(read_bounded(path, _LARGEST_FILE, follow="--config names a model's config.json"), str(path))
    if not isinstance(table, dict):
        raise RequestError(f"{path}: must hold a table of keys, as a model's config.json does")
    return table


def _dtype(keys: _Keys) -> tuple[str, tuple[str, ...]]:
    key = keys.first("dtype", "torch_dtype")
    value = keys.table.get(key)
    if value is None:
        return "bf16", ("bf16, as the file names no dtype",)
    if not isinstance(value, str) or value.removeprefix("torch.") not in _DTYPES:
        raise keys.error(key, f"{str(value)[:40]!r} is not known; known are {', '.join(_DTYPES)}")
    return _DTYPES[value.removeprefix("torch.")], ()


# --- quantised weights ------------------------------------------------------------------------------------------------


def _quantisation(keys: _Keys, plain: int) -> _Quantisation:
    """Bits per weight: of the weight itself, and its share of the scales and zeros that are stored per group."""
    if keys.table.get("quantization_config") is None:
        return _Quantisation(plain)
    stated = keys.inner("quantization_config")
    method = stated.table.get("quant_method")
    if method in ("fp8", "fbgemm_fp8"):
        rows, columns = _block(stated)
        scales = 32 / (rows * columns) if rows else 0.0
        return _Quantisation(8 + scales, _skipped(stated, "modules_to_not_convert"), eight_bit_arithmetic=True)
    if method in ("gptq", "awq"):
        bits = stated.number(stated.first("bits", "w_bit"))
        group = stated.number(stated.first("group_size", "q_group_size"), -1, least=-1)
        # A scale of 16 bits and a zero of the weights' own size per group.
        return _Quantisation(
            bits + ((16 + bits) / group if group > 0 else 0), _skipped(stated, "modules_to_not_convert")
        )
    if method == "bitsandbytes":
        skipped = _skipped(stated, "llm_int8_skip_modules")
        if stated.flag("load_in_8bit", False):
            return _Quantisation(8, skipped)
        # Blocks of 64 weights share a maximum: fp32, or 8 bits and a fp32 for 256 of them.
        double = stated.flag("bnb_4bit_use_double_quant", False)
        return _Quantisation(4 + ((8 + 32 / 256) / 64 if double else 32 / 64), skipped)
    if method == "mxfp4":
        return _Quantisation(4 + 8 / 32, _skipped(stated, "modules_to_not_convert"), experts_only=True)
    if method == "compressed-tensors":
        return _compressed(stated)
    if method == "modelopt":
        algorithm = stated.table.get("quant_algo")
        skipped = _skipped(stated, stated.first("ignore", "exclude_modules"))
        if algorithm == "FP8":
            return _Quantisation(8, skipped, eight_bit_arithmetic=True)
        if algorithm == "NVFP4":
            return _Quantisation(4 + 8 / 16, skipped)
        raise stated.error("quant_algo", f"{str(algorithm)[:40]!r} is not known; known are FP8 and NVFP4")
    known = "fp8, fbgemm_fp8, gptq, awq, bitsandbytes, mxfp4, compressed-tensors, modelopt"
    raise stated.error("quant_method", f"{str(method)[:40]!r} is not known; known are {known}")


def _skipped(stated: _Keys, key: str) -> tuple[str, ...]:
    """Modules that are not quantised."""
    parts = stated.texts(key)
    for part in parts:
        try:
            re.compile(part.removeprefix("re:") if part.startswith("re:") else "")
        except (re.error, OverflowError, RecursionError) as error:
            raise stated.error(key, f"{part[:60]!r} is no regular expression") from error
    return parts


def _block(stated: _Keys) -> tuple[int, int]:
    """Rows and columns of weights that share a scale; 0 where a whole matrix does."""
    value = stated.table.get("weight_block_size")
    if value is None:
        return 0, 0
    if not isinstance(value, list) or len(value) != 2 or not all(type(side) is int and side > 0 for side in value):
        raise stated.error("weight_block_size", "must be two whole numbers")
    return value[0], value[1]


def _compressed(stated: _Keys) -> _Quantisation:
    groups = stated.inner("config_groups")
    storages = set()
    for name in groups.table:
        group = groups.inner(name)
        weights = group.inner("weights")
        bits, size = weights.number("num_bits"), weights.number("group_size", -1, least=-1)
        activations = group.table.get("input_activations")
        eight = weights.table.get("type") == "float" and bits == 8 and isinstance(activations, dict)
        storages.add((bits + (16 / size if size > 0 else 0), eight))
    if len(storages) != 1:
        raise stated.error("config_groups", "must say one number of bits for all linear layers")
    ((bits_per_weight, eight_bit),) = storages
    return _Quantisation(bits_per_weight, _skipped(stated, "ignore"), eight_bit_arithmetic=eight_bit)


# --- layers -----------------------------------------------------------------------------------------------------------


def _windows(keys: _Keys, kind: str, count: int) -> list[int | None]:
    """Of each layer the sliding window, if it has one."""
    if keys.table.get("sliding_window") is None or not keys.flag("use_sliding_window", kind not in _OPT_IN):
        window = None
    else:
        window = keys.number("sliding_window", least=0) or None
    types = keys.table.get("layer_types")
    if types is not None:
        known = ("full_attention", "sliding_attention")
        if not isinstance(types, list) or len(types) != count or not set(types) <= set(known):
            raise keys.error("layer_types", f"must name {' or '.join(known)} for each of {count} layers")
        return [window if name == "sliding_attention" else None for name in types]
    if kind in ("gemma2", "gpt_oss"):
        return [window if index % 2 == 0 else None for index in range(count)]
    if kind == "gemma3_text":
        pattern = keys.number(keys.first("sliding_window_pattern", "_sliding_window_pattern"), 6)
        return [window if (index + 1) % pattern else None for index in range(count)]
    if kind in _OPT_IN:
        first = keys.number("max_window_layers", 28, least=0)
        return [window if index >= first else None for index in range(count)]
    return [window] * count


_OPT_IN: Final = ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe")
"""Types whose windows are off unless ``use_sliding_window`` says otherwise."""


def _layer(
    keys: _Keys, kind: str, index: int, window: int | None, quantisation: _Quantisation, plain: int
) -> Layer:  # fmt: skip
    width = keys.number("hidden_size")
    path = f"model.layers.{index}"
    attention = _latent(keys, width) if kind in _LATENT and keys.flag("use_mla", True) else _grouped(keys, kind, width)
    projections, pair_width, cached_pair_width, cached, attention_others = attention
    norms = (4 if kind in ("gemma2", "gemma3_text") else 2) * width
    mixture = _mixture(keys, kind, index)
    biased = keys.flag("mlp_bias", False)
    dense = 0 if mixture else keys.number("intermediate_size")
    others = norms + attention_others + (2 * dense + width if dense and biased else 0)
    if mixture is not None:
        others += mixture.others
    return Layer(
        projection_weights=projections,
        projection_bits=quantisation.bits_of(f"{path}.self_attn.q_proj", plain),
        pair_width=pair_width,
        cached_pair_width=cached_pair_width,
        cached_values=cached,
        window=window,
        dense_weights=3 * width * dense,
        shared_weights=3 * width * mixture.shared if mixture else 0,
        mlp_bits=quantisation.bits_of(f"{path}.mlp.experts.0.down_proj" if mixture else f"{path}.mlp.down_proj", plain),
        other_weights=others,
        experts=mixture.experts if mixture else 0,
        experts_per_token=mixture.per_token if mixture else 0,
        expert_weights=3 * width * mixture.width if mixture else 0,
        expert_biases=2 * mixture.width + width if mixture and kind == "gpt_oss" else 0,
        router_weights=width * mixture.outputs if mixture else 0,
    )


def _grouped(keys: _Keys, kind: str, width: int) -> tuple[int, int, int, int, int]:
    """Weights, widths per pair (two), cached numbers, norms and biases of attention with grouped queries."""
    heads = keys.number("num_attention_heads")
    kv_heads = keys.number("num_key_value_heads", heads)
    head = keys.number("head_dim", width // heads or None)
    if heads % kv_heads:
        raise keys.error("num_key_value_heads", f"must divide num_attention_heads, {heads}")
    attended, cached = heads * head, 2 * kv_heads * head
    biases = 0
    if kind in ("qwen2", "qwen2_moe"):
        biases = attended + cached if keys.flag("qkv_bias", True) else 0
    elif keys.flag("attention_bias", kind == "gpt_oss"):
        biases = attended + cached + (0 if kind == "glm4_moe" else width)
    norms = 0
    if kind in ("qwen3", "qwen3_moe", "gemma3_text") or (kind == "glm4_moe" and keys.flag("use_qk_norm", False)):
        norms = 2 * head
    elif kind == "olmo2":
        norms = attended + cached // 2
    elif kind == "gpt_oss":
        norms = heads  # a learnt sink per head
    return width * (2 * attended + cached), 2 * attended, 2 * attended, cached, biases + norms


def _latent(keys: _Keys, width: int) -> tuple[int, int, int, int, int]:
    """The same of latent attention (arXiv:2405.04434): the cache holds one latent vector and one rotated key a token.

    Over cached tokens the products with the up-projection are done on the query's side, which costs a query what a new
    token's own up-projection costs, and makes its pairs wider.
    """
    heads = keys.number("num_attention_heads")
    rank, rotated = keys.number("kv_lora_rank"), keys.number("qk_rope_head_dim")
    plain, value = keys.number("qk_nope_head_dim"), keys.number("v_head_dim")
    queries = heads * (plain + rotated)
    if keys.table.get("q_lora_rank") is None:
        query_weights, query_norm = width * queries, 0
    else:
        query_norm = keys.number("q_lora_rank")
        query_weights = query_norm * (width + queries)
    weights = query_weights + width * (rank + rotated) + rank * heads * (plain + value) + heads * value * width
    biases = query_norm + rank + rotated + width if keys.flag("attention_bias", False) else 0
    return weights, queries + heads * value, heads * (2 * rank + rotated), rank + rotated, query_norm + rank + biases


@frozen
class _Mixture:
    experts: int
    per_token: int
    width: int
    """Inner width of one expert."""
    shared: int
    """Inner width of the experts that all tokens go through, together."""
    outputs: int
    """Of the router's products: one per expert, and in some types one that weighs the shared expert."""
    others: int
    """Biases and corrections of the router."""


def _mixture(keys: _Keys, kind: str, index: int) -> _Mixture | None:
    """The experts of a layer; None: it is dense."""
    if kind in _DENSE or not _is_mixture(keys, kind, index):
        return None
    experts = keys.number(keys.first("n_routed_experts", "num_experts", "num_local_experts"))
    per_token = keys.number("num_experts_per_tok")
    if per_token > experts:
        raise keys.error("num_experts_per_tok", f"is {per_token}, more than the {experts} experts")
    inner = keys.number("intermediate_size" if kind in ("mixtral", "gpt_oss") else "moe_intermediate_size")
    shared, outputs, others = 0, experts, 0
    if kind == "qwen2_moe":
        shared, outputs = keys.number("shared_expert_intermediate_size"), experts + 1
    elif kind in (*_LATENT, "glm4_moe"):
        shared = inner * keys.number("n_shared_experts", 0, least=0)
        # A correction per expert steers the choice of these; it is no product.
        others = experts if kind in ("deepseek_v3", "glm4_moe") else 0
    elif kind == "gpt_oss":
        others = experts
    return _Mixture(experts, per_token, inner, shared, outputs, others)


def _is_mixture(keys: _Keys, kind: str, index: int) -> bool:
    if kind in ("mixtral", "gpt_oss"):
        return True
    if kind in ("qwen2_moe", "qwen3_moe"):
        dense = keys.table.get("mlp_only_layers") or []
        if not isinstance(dense, Sequence):
            raise keys.error("mlp_only_layers", "must be a list of layer numbers")
        return index not in dense and (index + 1) % keys.number("decoder_sparse_step", 1) == 0
    if keys.table.get(keys.first("n_routed_experts", "num_experts")) is None:
        return False
    first = keys.number("first_k_dense_replace", 0, least=0)
    return index >= first and index % keys.number("moe_layer_freq", 1) == 0
