"""What a model family must provide, and what it hands to the loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from attrs import field, frozen
from PIL import Image

from analysis.domain.entities import EncoderType, ModelUnderTest
from analysis.domain.manifest import PromptTokens
from runner.child.models.prompts import Tokens

__all__ = ["Family", "LoadedModel", "ModelInputs"]


@frozen(eq=False)
class ModelInputs:
    """The tensors of one prompt, batch included, and what they are made of."""

    tensors: Mapping[str, torch.Tensor]
    """Arguments of the forward pass. ``input_ids`` is int64 [batch, prompt_tokens]."""
    prompt: PromptTokens
    options: Mapping[str, Any] = field(factory=dict)
    """Arguments of the forward pass that are no tensors."""

    def on(self, device: torch.device) -> ModelInputs:
        """The same on ``device``."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()}
        return ModelInputs(moved, self.prompt, self.options)

    def cast(self, dtype: torch.dtype) -> ModelInputs:
        """The same with pixels and other floating-point tensors in ``dtype``."""
        cast = {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in self.tensors.items()
        }
        return ModelInputs(cast, self.prompt, self.options)

    @property
    def bytes(self) -> int:
        """Size of all tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


class Family(Protocol):
    """One architecture: its configuration, its annotated modules and how a page becomes its inputs."""

    @property
    def encoder_type(self) -> EncoderType:
        """Kind of the vision encoder."""

    @property
    def input_modes(self) -> tuple[str, ...]:
        """Names of input modes, most economic first; ``("text",)`` where the model takes no image."""

    @property
    def default_mode(self) -> str:
        """The mode that is used where none is asked for."""

    def preset_config(self, name: str) -> Any:
        """The transformers configuration of a preset."""

    def checkpoint_config(self, folder: Path, trust_remote_code: bool) -> Any:
        """The transformers configuration of a checkpoint.

        Raises:
            ModelError: it cannot be made.
        """

    def network_class(self, config: Any) -> Any:
        """The transformers class to build, with ``from_pretrained`` and ``_from_config``.

        Raises:
            ModelError: this transformers has none for it.
        """

    def modules(self, network: Any) -> dict[str, torch.nn.Module]:
        """Modules to annotate: path in the vocabulary of `analysis.domain.annotations` → module."""

    def inputs(
        self, page: Image.Image | None, image_index: int, mode: str, tokens: Tokens, prompt: str | None, config: Any
    ) -> ModelInputs:
        """Turn one page (or none) into the tensors of a prompt, batch 1, float32, on the host.

        Raises:
            ModelError: the mode is unknown, or the page cannot be made into inputs.
        """


@frozen(eq=False)
class LoadedModel:
    """A model on its device, ready to run."""

    network: Any
    subject: ModelUnderTest
    family: Family
    tokens: Tokens
    device: torch.device
    dtype: torch.dtype
    default_mode: str
    notes: tuple[str, ...] = ()

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """Modules to annotate, by path."""
        return self.family.modules(self.network)

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end a generation; empty where the model names none."""
        for config in (getattr(self.network, "generation_config", None), self.network.config.get_text_config()):
            tokens = getattr(config, "eos_token_id", None)
            if tokens is not None:
                return frozenset(tokens if isinstance(tokens, (list, tuple)) else (tokens,))
        return frozenset()
