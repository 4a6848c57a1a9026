"""DeepSeek-OCR-2: SAM ViT-B → a small decoder-like encoder with learnt queries → projector → MoE decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from attrs import frozen
from PIL import Image

from analysis.domain.entities import EncoderType
from analysis.domain.errors import ModelError
from runner.child.models.deepseek_ocr import (
    PROMPT,
    TINY_DECODER,
    TINY_SAM,
    decoder_modules,
    prompt_counts,
    prompt_ids,
    text_settings,
    tower_settings,
)
from runner.child.models.family import ModelInputs
from runner.child.models.prompts import Tokens
from runner.child.models.registry import read_config
from runner.child.models.views import GRID_CELL, InputMode, input_mode, views_of

__all__ = ["MODES", "DeepseekOcr2"]

MODES: Final[dict[str, InputMode]] = {
    "tiny": InputMode("tiny", 512),
    "small": InputMode("small", 640),
    "base": InputMode("base", 1024),
    "large": InputMode("large", 1280),
    # The model was made for local views of 768 pixels, and for at most six of them.
    "gundam": InputMode("gundam", 1024, 768, max_tiles=6),
}

_FEW_QUERIES: Final = 144
"""Learnt queries for a view of at most as many grid cells (768² pixels: 12²)."""
_MANY_QUERIES: Final = 256
"""Learnt queries for any larger view (1024² pixels: 16²)."""

_FULL_TEXT: Final[dict[str, Any]] = {
    "vocab_size": 129280,
    "hidden_size": 1280,
    "intermediate_size": 6848,
    "moe_intermediate_size": 896,
    "num_hidden_layers": 12,
    "num_attention_heads": 10,
    "num_key_value_heads": 10,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "max_position_embeddings": 8192,
    "mlp_layer_types": ["dense"] + ["sparse"] * 11,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
_FULL_ENCODER: Final[dict[str, Any]] = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}
_TINY_TEXT: Final[dict[str, Any]] = {**_FULL_TEXT, **TINY_DECODER, "mlp_layer_types": ["dense", "sparse"]}
_TINY_ENCODER: Final[dict[str, Any]] = {
    **_FULL_ENCODER,
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@frozen
class DeepseekOcr2:
    """The family of DeepSeek-OCR-2."""

    encoder_type: EncoderType = "ViT"
    input_modes: tuple[str, ...] = tuple(MODES)
    default_mode: str = "gundam"

    def preset_config(self, name: str) -> Any:
        """The configuration of ``deepseek-ocr-2`` or ``deepseek-ocr-2-tiny``."""
        if name == "deepseek-ocr-2":
            return _library().DeepseekOcr2Config(
                text_config=_FULL_TEXT, vision_config={"encoder_config": _FULL_ENCODER}
            )
        return _library().DeepseekOcr2Config(
            text_config=_TINY_TEXT,
            vision_config={"sam_config": TINY_SAM, "encoder_config": _TINY_ENCODER},
            image_token_id=_TINY_TEXT["vocab_size"] - 1,
        )

    def checkpoint_config(self, folder: Path, trust_remote_code: bool) -> Any:
        """Read a checkpoint's configuration: transformers' own form, or the one of the released DeepSeek-OCR-2."""
        released = read_config(folder)
        library = _library()
        if released.get("model_type") == "deepseek_ocr2":
            return library.DeepseekOcr2Config.from_pretrained(folder, local_files_only=True)
        sam = tower_settings(released.get("vision_config", {}).get("width", {}).get("sam_vit_b", {}), "mlp_dim")
        # The released file calls the tower's last channels those of DeepSeek-OCR; this tower's are the encoder's width.
        sam.pop("downsample_channels", None)
        return library.DeepseekOcr2Config(
            text_config=text_settings(released, folder),
            vision_config={"sam_config": sam, "encoder_config": _FULL_ENCODER},
            image_token_id=released.get("image_token_id", 128815),
        )

    def network_class(self, config: Any) -> Any:
        """The transformers class of this architecture."""
        return _library().DeepseekOcr2ForConditionalGeneration

    def modules(self, network: Any) -> dict[str, torch.nn.Module]:
        """SAM, the encoder over its features, the projector, the decoder's layers and the head."""
        tower = network.model.vision_tower
        return {
            "vision.sam": tower.sam_encoder,
            "vision.encoder": tower.vision_encoder,
            "vision.projector": network.model.multi_modal_projector,
            **decoder_modules(network.model.language_model.layers),
            "lm_head": network.lm_head,
        }

    def inputs(
        self, page: Image.Image | None, image_index: int, mode: str, tokens: Tokens, prompt: str | None, config: Any
    ) -> ModelInputs:
        """Show a page as a global view and tiles; each view takes as many positions as it has learnt queries."""
        if page is None:
            raise ModelError("DeepSeek-OCR-2 needs an image")
        chosen = input_mode(MODES, mode)
        views = views_of(page, chosen)
        image_tokens = _queries(chosen.side) + views.tile_count * _queries(chosen.tile_side) + 1
        ids = prompt_ids(prompt or PROMPT, image_tokens, tokens, config)
        tensors = {"input_ids": ids, "pixel_values": views.overview}
        options: dict[str, Any] = {}
        if views.tiles is not None:
            tensors["pixel_values_local"] = views.tiles
            options = {"num_local_patches": [views.tile_count]}
        return ModelInputs(tensors, prompt_counts(image_index, mode, views.tile_count, image_tokens, ids), options)


def _queries(side: int) -> int:
    return _FEW_QUERIES if (side // GRID_CELL) ** 2 <= _FEW_QUERIES else _MANY_QUERIES


def _library() -> Any:
    import transformers

    if not hasattr(transformers, "DeepseekOcr2ForConditionalGeneration"):
        raise ModelError(f"transformers {transformers.__version__} does not know DeepSeek-OCR-2; install 5.17 or newer")
    return transformers
