"""DeepSeek-OCR: SAM ViT-B → 16× fewer tokens → CLIP-L, both features side by side → projector → MoE decoder.

transformers' ``UnlimitedOcr`` has this architecture and names DeepSeek-OCR's weights correctly on loading; what it
adds (a decoder that attends through a sliding window) is switched off here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from attrs import frozen
from PIL import Image

from analysis.domain.entities import EncoderType
from analysis.domain.errors import ModelError
from analysis.domain.manifest import PromptTokens
from runner.child.models.family import ModelInputs
from runner.child.models.prompts import Tokens
from runner.child.models.registry import read_config
from runner.child.models.views import GRID_CELL, InputMode, input_mode, views_of

__all__ = [
    "MODES",
    "PROMPT",
    "TINY_DECODER",
    "TINY_SAM",
    "DeepseekOcr",
    "decoder_modules",
    "prompt_counts",
    "prompt_ids",
    "text_settings",
    "tower_settings",
]

PROMPT: Final = "<image>\n<|grounding|>Convert the document to markdown. "
"""The usual one of DeepSeek-OCR's documentation."""

MODES: Final[dict[str, InputMode]] = {
    "tiny": InputMode("tiny", 512),
    "small": InputMode("small", 640),
    "base": InputMode("base", 1024),
    "large": InputMode("large", 1280),
    "gundam": InputMode("gundam", 1024, 640),
}

_STRETCHED_SIDE: Final = 640
_IMAGE: Final = "<image>"

_TEXT_FIELDS: Final = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "n_routed_experts",
    "n_shared_experts",
    "num_experts_per_tok",
    "n_group",
    "topk_group",
    "topk_method",
    "routed_scaling_factor",
    "max_position_embeddings",
    "rms_norm_eps",
    "hidden_act",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
)

TINY_DECODER: Final[dict[str, Any]] = {
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 1024,
    # Fewer than the 64 of the full model: on a CPU each of them is a matrix product of its own, chosen or not.
    "n_routed_experts": 16,
    "moe_intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
_TINY_TEXT: Final[dict[str, Any]] = {**TINY_DECODER, "layer_types": ["full_attention"] * 2}
TINY_SAM: Final[dict[str, Any]] = {
    "hidden_size": 128,
    "mlp_dim": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "output_channels": 64,
    "downsample_channels": [96, 192],
    # One windowed and one global layer, as the full tower has both.
    "global_attn_indexes": [1],
}
_TINY_CLIP: Final[dict[str, Any]] = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@frozen
class DeepseekOcr:
    """The family of DeepSeek-OCR."""

    encoder_type: EncoderType = "ViT"
    input_modes: tuple[str, ...] = tuple(MODES)
    default_mode: str = "gundam"

    def preset_config(self, name: str) -> Any:
        """The configuration of ``deepseek-ocr`` or ``deepseek-ocr-tiny``."""
        config_class = _library().UnlimitedOcrConfig
        if name == "deepseek-ocr":
            # The class's defaults are DeepSeek-OCR's sizes; its decoder attends to everything before it.
            return config_class(text_config={"layer_types": ["full_attention"] * 12, "max_position_embeddings": 8192})
        return config_class(
            text_config=_TINY_TEXT,
            vision_config={"sam_config": TINY_SAM, "encoder_config": _TINY_CLIP},
            image_token_id=_TINY_TEXT["vocab_size"] - 1,
        )

    def checkpoint_config(self, folder: Path, trust_remote_code: bool) -> Any:
        """Read a checkpoint's configuration: transformers' own form, or the one of the released DeepSeek-OCR."""
        released = read_config(folder)
        library = _library()
        if released.get("model_type") == "unlimited_ocr":
            return library.UnlimitedOcrConfig.from_pretrained(folder, local_files_only=True)
        text = text_settings(released, folder)
        text["layer_types"] = ["full_attention"] * text["num_hidden_layers"]
        width = released.get("vision_config", {}).get("width", {})
        return library.UnlimitedOcrConfig(
            text_config=text,
            vision_config={
                "sam_config": tower_settings(width.get("sam_vit_b", {}), feed_forward="mlp_dim"),
                "encoder_config": tower_settings(width.get("clip-l-14-224", {}), feed_forward="intermediate_size"),
            },
            image_token_id=released.get("image_token_id", 128815),
        )

    def network_class(self, config: Any) -> Any:
        """The transformers class of this architecture."""
        return _library().UnlimitedOcrForConditionalGeneration

    def modules(self, network: Any) -> dict[str, torch.nn.Module]:
        """SAM, CLIP, the projector, the decoder's layers and the head."""
        tower = network.model.vision_tower
        return {
            "vision.sam": tower.sam_encoder,
            "vision.clip": tower.vision_encoder,
            "vision.projector": network.model.multi_modal_projector,
            **decoder_modules(network.model.language_model.layers),
            "lm_head": network.lm_head,
        }

    def inputs(
        self, page: Image.Image | None, image_index: int, mode: str, tokens: Tokens, prompt: str | None, config: Any
    ) -> ModelInputs:
        """Show a page as a global view and tiles, each row of vision tokens ended by a newline token.

        A view of n² tokens takes n(n + 1) + 1 positions; c × r tiles of t² tokens each take r·t(c·t + 1) more.
        """
        if page is None:
            raise ModelError("DeepSeek-OCR needs an image")
        chosen = input_mode(MODES, mode)
        views = views_of(page, chosen, stretch_up_to=_STRETCHED_SIDE)
        cells = chosen.side // GRID_CELL
        image_tokens = cells * (cells + 1) + 1
        if views.tiles is not None:
            tile_cells = chosen.tile_side // GRID_CELL
            image_tokens += views.rows * tile_cells * (views.columns * tile_cells + 1)
        ids = prompt_ids(prompt or PROMPT, image_tokens, tokens, config)
        tensors = {"input_ids": ids, "pixel_values": views.overview}
        options: dict[str, Any] = {}
        if views.tiles is not None:
            tensors["pixel_values_local"] = views.tiles
            options = {"num_local_patches": [views.tile_count], "patches_grid": [[views.columns, views.rows]]}
        return ModelInputs(tensors, prompt_counts(image_index, mode, views.tile_count, image_tokens, ids), options)


def prompt_ids(prompt: str, image_tokens: int, tokens: Tokens, config: Any) -> torch.Tensor:
    """Put the image's placeholder ids where the prompt says ``<image>`` (in front if it does not).

    Returns:
        int64 [1, 1 + image_tokens + text tokens]; the first one begins the sequence.
    """
    before, place, after = prompt.partition(_IMAGE)
    if not place:
        before, after = "", "\n" + prompt
    begin = config.get_text_config().bos_token_id
    ids = [] if begin is None else [begin]
    ids += [*tokens.ids(before), *[config.image_token_id] * image_tokens, *tokens.ids(after)]
    return torch.tensor([ids])


def decoder_modules(layers: Any) -> dict[str, torch.nn.Module]:
    """Paths of decoder layers and of those of their parts that have parts themselves (no norms)."""
    modules: dict[str, torch.nn.Module] = {}
    for index, layer in enumerate(layers):
        modules[f"layers.{index}"] = layer
        for name, part in layer.named_children():
            if next(part.children(), None) is not None:
                modules[f"layers.{index}.{name}"] = part
    return modules


def text_settings(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The decoder's settings in the released ``config.json`` (``language_config``, repeated on its top level).

    Raises:
        ModelError: a size is missing.
    """
    language = {**config, **config.get("language_config", {})}
    settings = {name: language[name] for name in _TEXT_FIELDS if language.get(name) is not None}
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
        if name not in settings:
            raise ModelError(f"{folder}/config.json: language_config.{name} is missing")
    dense = language.get("first_k_dense_replace", 1)
    count = settings["num_hidden_layers"]
    settings["mlp_layer_types"] = ["dense"] * min(dense, count) + ["sparse"] * max(count - dense, 0)
    if language.get("rope_theta") is not None:
        settings["rope_parameters"] = {"rope_type": "default", "rope_theta": language["rope_theta"]}
    return settings


def prompt_counts(image_index: int, mode: str, tiles: int, image_tokens: int, ids: torch.Tensor) -> PromptTokens:
    """How many positions of ``ids`` [1, prompt_tokens] are the image's."""
    return PromptTokens(
        image_index=image_index,
        mode=mode,
        tiles=tiles,
        image_tokens=image_tokens,
        text_tokens=ids.shape[1] - image_tokens,
        prompt_tokens=ids.shape[1],
    )


def tower_settings(settings: dict[str, Any], feed_forward: str) -> dict[str, Any]:
    """A vision tower's settings under transformers' names; sizes that are not said are the class's defaults.

    Args:
        settings: one entry of ``vision_config.width`` in the released ``config.json``.
        feed_forward: transformers' name of the feed-forward layers' width, four times that of the tower.
    """
    names = {
        "width": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "image_size": "image_size",
        "patch_size": "patch_size",
        "downsample_channels": "downsample_channels",
        "global_attn_indexes": "global_attn_indexes",
    }
    renamed = {new: settings[old] for old, new in names.items() if settings.get(old) is not None}
    if "hidden_size" in renamed:
        renamed[feed_forward] = 4 * renamed["hidden_size"]
    return renamed


def _library() -> Any:
    import transformers

    if not hasattr(transformers, "UnlimitedOcrForConditionalGeneration"):
        raise ModelError(
            f"transformers {transformers.__version__} does not know DeepSeek-OCR's architecture (UnlimitedOcr…); "
            "install 5.23 or newer"
        )
    return transformers
