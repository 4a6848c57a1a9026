"""Which models there are: presets by name, checkpoints by folder, Hugging Face ids from the local cache.

Imports no torch: a launcher resolves a model before it starts the process that loads it.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from attrs import frozen

from analysis.domain.errors import ModelError, RequestError
from analysis.domain.names import shortened
from analysis.domain.reading import json_of, read_bounded
from runner.child.models.config_check import check_config

__all__ = [
    "DEFAULT_PRESET",
    "INPUT_MODES",
    "PRESETS",
    "FamilyName",
    "ModelSource",
    "Preset",
    "check_input_mode",
    "check_tensor_parallel",
    "own_input_mode",
    "read_config",
    "resolve_model",
]

FamilyName: TypeAlias = Literal["deepseek_ocr", "deepseek_ocr2", "generic"]


@frozen
class Preset:
    """A model that needs no file: its configuration is known here, its weights are random."""

    name: str
    family: FamilyName
    description: str
    default_mode: str | None = None
    """Input mode where none is asked for; None: the family's."""


_TINY: Final = "the same architecture, narrow, with 2 layers per tower: quick on two cores"

PRESETS: Final[dict[str, Preset]] = {
    preset.name: preset
    for preset in (
        Preset("deepseek-ocr", "deepseek_ocr", "DeepSeek-OCR at full size: SAM ViT-B, CLIP-L, a MoE decoder"),
        Preset("deepseek-ocr-tiny", "deepseek_ocr", _TINY, "tiny"),
        Preset(
            "deepseek-ocr-2", "deepseek_ocr2", "DeepSeek-OCR-2 at full size: SAM ViT-B, Qwen2 encoder, a MoE decoder"
        ),
        Preset("deepseek-ocr-2-tiny", "deepseek_ocr2", _TINY, "tiny"),
        Preset("llama-1b", "generic", "a text-only decoder of Llama 3.2 1B's shape: 16 layers, grouped queries"),
        Preset("llama-tiny", "generic", "a text-only decoder of Llama's shape with 2 layers"),
    )
}

DEFAULT_PRESET: Final = "deepseek-ocr-tiny"

_DEEPSEEK_MODES: Final = ("tiny", "small", "base", "large", "gundam")
INPUT_MODES: Final[dict[FamilyName, tuple[str, ...]]] = {
    "deepseek_ocr": _DEEPSEEK_MODES,
    "deepseek_ocr2": _DEEPSEEK_MODES,
    "generic": ("native", "text"),
}
"""What each family can be asked for; which of the two a generic model has is known when it is built."""

_WEIGHTS_INDEX: Final = "model.safetensors.index.json"
_SHOWN: Final = 200
"""Characters of a name that an error repeats."""
_LARGEST_JSON: Final = 1 << 26
"""Bytes of a configuration or of an index of weights: that of 671 billion parameters in 163 files has 9 MB."""
_PICKLED: Final = ("pytorch_model*.bin", "*.pt", "*.pth", "*.bin", "*.ckpt", "*.pkl")

_OWN_MODE: Final = "gundam"
"""Of both DeepSeek families."""


@frozen
class ModelSource:
    """Where a model comes from."""

    reference: str
    """As it was asked for."""
    preset: Preset | None
    folder: Path | None
    """Of the checkpoint, absolute; None for a preset."""
    family: FamilyName


def resolve_model(reference: str, *, random_weights: bool = False) -> ModelSource:
    """Find a model by preset name, absolute folder or Hugging Face id, without the network.

    Args:
        reference: as in ``LLMProfileRequest.model_path``.
        random_weights: the weights will be made up, so a checkpoint needs none.

    Raises:
        ModelError: nothing of that name, not in the local cache, or a folder that is no checkpoint.
    """
    if reference in PRESETS:
        preset = PRESETS[reference]
        return ModelSource(reference, preset, None, preset.family)
    folder = Path(reference)
    if folder.is_absolute():
        if not folder.exists():
            raise ModelError(f"{folder}: no such folder; give a preset, a checkpoint's folder or a Hugging Face id")
        if not folder.is_dir():
            raise ModelError(f"{folder}: not a folder; give the folder that holds the checkpoint's config.json")
    else:
        folder = _cached(reference)
    config = read_config(folder)
    check_config(config, folder / "config.json")
    if not random_weights:
        _check_weights(folder)
    return ModelSource(reference, None, folder, _family_of(config))


def check_tensor_parallel(source: ModelSource, ranks: int) -> None:
    """Check before torch is imported that a model can be shared by several ranks.

    Raises:
        ModelError: transformers has no plan by which to divide it.
    """
    if ranks > 1 and source.family != "generic":
        raise ModelError(
            f"{source.reference}: --tensor-parallel {ranks} is for text decoders (such as llama-1b): transformers has no plan "
            "for the vision towers of this model"
        )


def check_input_mode(source: ModelSource, mode: str | None) -> None:
    """Check an input mode before torch is imported; None is the model's own.

    Raises:
        ModelError: this model has none of that name.
    """
    modes = INPUT_MODES[source.family]
    if mode is not None and mode not in modes:
        raise ModelError(f"input mode {mode!r} is none of this model's: {', '.join(modes)}")


def own_input_mode(source: ModelSource) -> str:
    """The input mode of a model where none is asked for, told before torch is imported."""
    if source.preset is not None and source.preset.default_mode is not None:
        return source.preset.default_mode
    if source.family != "generic":
        return _OWN_MODE
    reads_images = source.folder is not None and "vision_config" in read_config(source.folder)
    return "native" if reads_images else "text"


def _cached(reference: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(reference, local_files_only=True)).absolute()
    except (LocalEntryNotFoundError, HFValidationError) as error:
        shown = shortened(reference, _SHOWN)
        fetch = f"to fetch it: hf download {shown}"
        if "/" in reference:
            raise ModelError(f"{shown} is not in the local Hugging Face cache; {fetch}") from error
        near = difflib.get_close_matches(reference, PRESETS, n=3, cutoff=0.4)
        nearest = f"nearest presets: {', '.join(near)}" if near else f"presets: {', '.join(PRESETS)}"
        raise ModelError(
            f"{shown!r} is neither a preset ({nearest}) nor in the local Hugging Face cache ({fetch})"
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's ``config.json``.

    Raises:
        ModelError: it is missing or unreadable.
    """
    return _read_json(folder / "config.json", "a checkpoint's folder holds config.json beside its weights")


def _check_weights(folder: Path) -> None:
    """Check that a checkpoint's weight files are all there."""
    index = folder / _WEIGHTS_INDEX
    if index.exists():
        parts = _read_json(index, "fetch the checkpoint again").get("weight_map", {})
        if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
            raise ModelError(f"{index}: its weight_map names no files; fetch the checkpoint again")
        missing = sorted(part for part in set(parts.values()) if not (folder / part).exists())
        if missing:
            raise ModelError(
                f"{folder / missing[0]}: missing, though {_WEIGHTS_INDEX} names it; fetch the checkpoint again"
            )
        return
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path for pattern in _PICKLED for path in folder.glob(pattern))
    if pickled:
        raise ModelError(
            f"{pickled[0]}: pickled weights, which can run any code as they are loaded, are not read; take the checkpoint's "
            "*.safetensors, or convert it where you trust it: save_pretrained of transformers writes them"
        )
    raise ModelError(f"{folder}: no weights (*.safetensors) beside config.json; --random-weights makes them up")


def _read_json(path: Path, advice: str) -> dict[str, Any]:
    try:
        content = json_of(read_bounded(path, _LARGEST_JSON), str(path))
    except RequestError as error:
        raise ModelError(f"{error}; {advice}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a JSON object; {advice}")
    return content


def _family_of(config: dict[str, Any]) -> FamilyName:
    """Tell the family from a checkpoint's configuration; DeepSeek's own ones share their ``model_type``."""
    model_type = config.get("model_type")
    listed = config.get("architectures")
    architectures = [str(name).lower() for name in listed] if isinstance(listed, list) else []
    if model_type == "deepseek_ocr2" or any("deepseekocr2" in name for name in architectures):
        return "deepseek_ocr2"
    if model_type in ("unlimited_ocr", "deepseek_ocr") or any("deepseekocr" in name for name in architectures):
        return "deepseek_ocr"
    return "generic"
