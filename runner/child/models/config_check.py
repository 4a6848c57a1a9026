"""A checkpoint's ``config.json``, looked through before anything is built of it: torch is not imported for that.

What is not refused here libraries stumble over: no heads are a division by zero, a trillion layers take all memory, and a
word in the place of a number is an error deep inside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from analysis.domain.errors import ModelError

__all__ = ["check_config"]

_NEEDED: Final[Mapping[str, int]] = {
    "vocab_size": 10**8,
    "hidden_size": 10**7,
    "num_hidden_layers": 10**4,
    "num_attention_heads": 10**5,
    "num_key_value_heads": 10**5,
    "head_dim": 10**6,
    "max_position_embeddings": 10**9,
}
"""Sizes that are at least 1, with what no model comes near."""
_OPTIONAL: Final[Mapping[str, int]] = {
    "intermediate_size": 10**8,
    "moe_intermediate_size": 10**8,
    "n_routed_experts": 10**6,
    "n_shared_experts": 10**6,
    "num_experts": 10**6,
    "num_local_experts": 10**6,
    "num_experts_per_tok": 10**6,
    "first_k_dense_replace": 10**6,
    "image_size": 10**6,
    "patch_size": 10**6,
    "kv_lora_rank": 10**7,
    "q_lora_rank": 10**7,
    "sliding_window": 10**12,
}
"""Sizes that may be 0, where a model goes without."""
_DTYPE: Final = re.compile(
    r"auto|(torch\.)?(bfloat16|float16|float32|float64|half|float|double|u?int8|float8_e(4m3fn|5m2)(fnuz)?)"
)
_DEEPEST: Final = 16
"""Levels of configurations within configurations; real ones have three."""


def check_config(config: Mapping[str, Any], path: Path) -> None:
    """Check sizes, and that what must be an object is one, in a configuration and those within it.

    Sizes that are ``null`` or lists (one for each layer) are left to the model's own code.

    Args:
        config: what the file holds.
        path: of the file, for words.

    Raises:
        ModelError: a size is no whole number of a possible size, or sizes do not fit each other.
    """
    _check(config, path, "", 0)


def _check(config: Mapping[str, Any], path: Path, prefix: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise ModelError(f"{path}: configurations within configurations, {depth} deep; it is no model's")
    for name, value in config.items():
        where = f"{path}: {prefix}{name}"
        if name in _NEEDED or name in _OPTIONAL:
            _check_size(where, value, 1 if name in _NEEDED else 0, _NEEDED.get(name) or _OPTIONAL[name])
        elif name in ("torch_dtype", "dtype"):
            if value is not None and not (isinstance(value, str) and _DTYPE.fullmatch(value)):
                raise ModelError(f"{where} is {_shown(value)}, which is no number format; such as bfloat16")
        elif isinstance(value, Mapping):
            _check(value, path, f"{prefix}{name}.", depth + 1)
        elif name.endswith("_config") and value is not None and not isinstance(value, list):
            raise ModelError(f"{where} is {_shown(value)} and must be an object")
    _check_heads(config, path, prefix)


def _check_size(where: str, value: Any, least: int, most: int) -> None:
    if value is None or isinstance(value, list):
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise ModelError(f"{where} is {_shown(value)} and must be a whole number")
    if not least <= value <= most:
        raise ModelError(f"{where} is {_shown(value)}; from {least} to {most:,} is possible")


def _check_heads(config: Mapping[str, Any], path: Path, prefix: str) -> None:
    hidden, heads, groups = (
        _whole(config, name) for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")
    )
    own_width = any(
        config.get(name) for name in ("head_dim", "qk_nope_head_dim", "kv_lora_rank", "attention_head_size")
    )
    if hidden and heads and not own_width and hidden % heads:
        raise ModelError(
            f"{path}: {prefix}hidden_size {hidden} cannot be divided among {prefix}num_attention_heads {heads}"
        )
    if heads and groups and heads % groups:
        raise ModelError(
            f"{path}: {prefix}num_attention_heads {heads} is no multiple of {prefix}num_key_value_heads {groups}"
        )


def _whole(config: Mapping[str, Any], name: str) -> int | None:
    value = config.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _shown(value: Any) -> str:
    """A value in a few characters; a number of a million digits is not printed."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of hundreds of digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
