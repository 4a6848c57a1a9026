"""Any transformers model that turns text, or images and text, into text; and presets of Llama's shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from attrs import define
from PIL import Image

from analysis.domain.entities import EncoderType
from analysis.domain.errors import ModelError
from analysis.domain.manifest import PromptTokens
from runner.child.models.deepseek_ocr import decoder_modules
from runner.child.models.family import ModelInputs
from runner.child.models.prompts import Tokens
from runner.child.models.refusals import REFUSED, reason

__all__ = ["TEXT_PROMPT", "Generic"]

TEXT_PROMPT: Final = (
    "You are given the minutes of a meeting and asked for a summary. The meeting began at nine. The group went through "
    "last month's figures first: sales had grown in the north and fallen in the south, and the reasons were not agreed "
    "on. Some blamed the weather, some the new prices, and one the late deliveries in the second week. It was decided "
    "to ask the customers. Then the plan for the next quarter was read out and amended in three places: training of "
    "new colleagues starts earlier, the old warehouse is kept until the summer, and the budget for travel is cut by a "
    "tenth. The question of the second shift was put off. Write the summary in five sentences, and name what is open."
)
"""What a text-only model is asked where no prompt is given: about a hundred words."""

_IMAGE_PROMPT: Final = "Read the page and write down its text."

_LLAMA: Final[dict[str, dict[str, Any]]] = {
    "llama-1b": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    },
    "llama-tiny": {
        "vocab_size": 8192,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}

_ENCODERS: Final = ("vision_tower", "visual", "vision_model", "vision_encoder", "vision_embed_tokens", "image_encoder")
_PROJECTORS: Final = ("multi_modal_projector", "connector", "projector", "aligner", "mm_projector", "vision_projection")


@define
class Generic:
    """A model by its ``config.json`` alone. What it takes is known once `checkpoint_config` has read that."""

    takes_images: bool = False
    encoder_type: EncoderType = "Unknown"
    _processor: Any = None

    @property
    def input_modes(self) -> tuple[str, ...]:
        """``native`` (the model's own processor chooses sizes) or ``text``."""
        return ("native",) if self.takes_images else ("text",)

    @property
    def default_mode(self) -> str:
        """The only mode."""
        return self.input_modes[0]

    def preset_config(self, name: str) -> Any:
        """The configuration of ``llama-1b`` or ``llama-tiny``."""
        from transformers import LlamaConfig

        return LlamaConfig(**_LLAMA[name])

    def checkpoint_config(self, folder: Path, trust_remote_code: bool) -> Any:
        """Read ``config.json`` through transformers, and the processor where the model takes images."""
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
        except REFUSED as error:
            raise ModelError(f"{folder}: its configuration cannot be used ({reason(error)})") from error
        self.takes_images = type(config) in AutoModelForImageTextToText._model_mapping
        if self.takes_images:
            try:
                self._processor = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
                    folder, local_files_only=True, trust_remote_code=trust_remote_code
                )
            except REFUSED as error:
                raise ModelError(f"{folder}: its image processor cannot be used ({reason(error)})") from error
        return config

    def network_class(self, config: Any) -> Any:
        """The class that transformers registers for this configuration."""
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

        for auto in (AutoModelForImageTextToText, AutoModelForCausalLM):
            if type(config) in auto._model_mapping:
                classes = auto._model_mapping[type(config)]
                return classes[0] if isinstance(classes, (list, tuple)) else classes
        if getattr(config, "auto_map", None):
            return AutoModelForCausalLM
        raise ModelError(
            f"model type {config.model_type!r}: transformers has no causal language model or image-text model of it"
        )

    def modules(self, network: Any) -> dict[str, torch.nn.Module]:
        """Vision encoder and projector where it has them, the decoder's layers and the head."""
        modules: dict[str, torch.nn.Module] = {}
        if self.takes_images:
            for path, names in (("vision.encoder", _ENCODERS), ("vision.projector", _PROJECTORS)):
                module = _first_named(network, names)
                if module is not None:
                    modules[path] = module
        layers = _decoder_layers(network)
        if layers is not None:
            modules |= decoder_modules(layers)
        head = network.get_output_embeddings()
        if head is not None:
            modules["lm_head"] = head
        return modules

    def inputs(
        self, page: Image.Image | None, image_index: int, mode: str, tokens: Tokens, prompt: str | None, config: Any
    ) -> ModelInputs:
        """Run the model's own processor on page and prompt, or tokenise the prompt alone."""
        if mode not in self.input_modes:
            raise ModelError(f"input mode {mode!r} is none of this model's: {', '.join(self.input_modes)}")
        if self.takes_images:
            if page is None:
                raise ModelError("this model needs an image")
            return self._image_inputs(page, image_index, mode, prompt or _IMAGE_PROMPT, config)
        begin = config.get_text_config().bos_token_id
        ids = torch.tensor([[*([] if begin is None else [begin]), *tokens.ids(prompt or TEXT_PROMPT)]])
        if ids.shape[1] == 0:
            raise ModelError("the prompt has no token")
        return ModelInputs({"input_ids": ids}, _counts(image_index, mode, 0, ids.shape[1]))

    def _image_inputs(self, page: Image.Image, image_index: int, mode: str, prompt: str, config: Any) -> ModelInputs:
        content = [{"type": "image", "image": page}, {"type": "text", "text": prompt}]
        try:
            if getattr(self._processor, "chat_template", None):
                made = self._processor.apply_chat_template(
                    [{"role": "user", "content": content}],
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=True,
                    return_tensors="pt",
                )
            else:
                marker = getattr(self._processor, "image_token", "")
                made = self._processor(images=page, text=f"{marker}{prompt}", return_tensors="pt")
        except (ValueError, TypeError, KeyError, ImportError) as error:
            raise ModelError(f"the model's processor refused the page ({reason(error)})") from error
        tensors = {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}
        # Without padding this mask is all ones; the loop passes none, so that attention may take its causal path.
        tensors.pop("attention_mask", None)
        ids = tensors["input_ids"]
        image_id = getattr(config, "image_token_id", getattr(config, "image_token_index", None))
        image_tokens = 0 if image_id is None else int((ids == image_id).sum())
        return ModelInputs(tensors, _counts(image_index, mode, image_tokens, ids.shape[1] - image_tokens))


def _counts(image_index: int, mode: str, image_tokens: int, text_tokens: int) -> PromptTokens:
    return PromptTokens(image_index, mode, 0, image_tokens, text_tokens, image_tokens + text_tokens)


def _first_named(network: Any, names: tuple[str, ...]) -> torch.nn.Module | None:
    """The outermost module whose own name is one of ``names``."""
    for path, module in network.named_modules():
        if path.rpartition(".")[2] in names and isinstance(module, torch.nn.Module):
            return module
    return None


def _decoder_layers(network: Any) -> torch.nn.ModuleList | None:
    """The list of as many modules as the text model has layers, sought in its decoder first."""
    count = network.config.get_text_config().num_hidden_layers
    for root in (network.get_decoder(), network):
        for module in root.modules() if root is not None else ():
            if isinstance(module, torch.nn.ModuleList) and len(module) == count:
                return module
    return None
