"""Build a model: weights from a checkpoint, complete and exactly fitting, or random ones made on the device."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import psutil
import torch

from analysis.domain.entities import Dtype, ModelUnderTest
from analysis.domain.errors import ModelError, RequestError
from runner.child.models.deepseek_ocr import DeepseekOcr
from runner.child.models.deepseek_ocr2 import DeepseekOcr2
from runner.child.models.family import Family, LoadedModel
from runner.child.models.generic import Generic
from runner.child.models.prompts import load_tokens
from runner.child.models.ranks import Ranks
from runner.child.models.refusals import REFUSED, out_of_memory, reason
from runner.child.models.registry import ModelSource, check_tensor_parallel, resolve_model
from runner.plan.plan import RunPlan
from runner.plan.settings import Settings

__all__ = ["available_memory_bytes", "family_of", "load_model", "open_device"]

_DTYPES: Final[dict[Dtype, torch.dtype]] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

_WEIGHT_STD: Final = 0.02
_HEADROOM: Final = 1.1
"""Weights × this must fit: activations, the cache and fragmentation need the rest."""


def family_of(source: ModelSource) -> Family:
    """The code that knows this model's architecture."""
    if source.family == "deepseek_ocr":
        return DeepseekOcr()
    if source.family == "deepseek_ocr2":
        return DeepseekOcr2()
    return Generic()


def open_device(name: str) -> torch.device:
    """Turn a request's device into torch's.

    Raises:
        RequestError: this machine has no such device.
    """
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise RequestError(f"device {name}: torch {torch.__version__} sees no GPU here; use --device cpu")
        if (device.index or 0) >= count:
            raise RequestError(f"device {name}: there are {count} GPUs here, counted from cuda:0")
        device = torch.device("cuda", device.index or 0)
    return device


def load_model(plan: RunPlan, ranks: Ranks | None = None) -> LoadedModel:
    """Load or make the model of a plan on its device, in evaluation mode.

    Args:
        plan: resolved.
        ranks: those that share the model; None: this process holds all of it.

    Raises:
        ModelError: the model cannot be found, read, or held in memory, or its weights do not fit it exactly.
        RequestError: the machine has no such device.
    """
    ranks = ranks or Ranks()
    device = open_device(ranks.device_name(plan.request.device))
    source = resolve_model(plan.request.model_path, random_weights=plan.settings.random_weights)
    check_tensor_parallel(source, ranks.count)
    if ranks.count > 1 and device.type == "cuda":
        torch.cuda.set_device(device)
    family = family_of(source)
    dtype_name: Dtype = plan.settings.dtype or ("bf16" if device.type == "cuda" else "fp32")
    dtype = _DTYPES[dtype_name]
    attention = plan.settings.attn_implementation or ("sdpa" if plan.request.use_flash_attn else "eager")
    if source.folder is None:
        assert source.preset is not None
        config = family.preset_config(source.preset.name)
    else:
        try:
            config = family.checkpoint_config(source.folder, plan.settings.trust_remote_code)
        except REFUSED as error:
            raise ModelError(f"{source.folder}: its configuration cannot be used ({reason(error)})") from error
    network_class = family.network_class(config)
    parameters = _count_parameters(network_class, config, attention, plan.settings.trust_remote_code)
    _check_memory(source.reference, parameters * dtype.itemsize, device)
    made_up = source.folder is None or plan.settings.random_weights
    if ranks.count > 1:
        network = _divided_network(network_class, config, source, ranks, attention, device, dtype, plan)
    elif source.folder is None or plan.settings.random_weights:
        network = _random_network(network_class, config, attention, device, dtype, plan.settings)
    else:
        network = _load_checkpoint(
            network_class, config, source.folder, attention, dtype, plan.settings.trust_remote_code
        )
        network = network.to(device)
    network = network.eval().requires_grad_(False)
    experts = _choose_experts(network, plan.settings.experts_implementation)
    vocabulary = config.get_text_config().vocab_size
    tokens = load_tokens(source.folder, vocabulary, plan.settings.trust_remote_code)
    weights = f"weights are random (seed {plan.settings.seed}): times are those of the architecture, texts mean nothing"
    text = config.get_text_config()
    return LoadedModel(
        network=network,
        subject=ModelUnderTest(
            id=source.preset.name if source.preset else Path(source.reference).name,
            model_path=source.reference,
            dtype=dtype_name,
            device=str(device),
            use_flash_attn=plan.request.use_flash_attn,
            n_layers=_size(text, "num_hidden_layers"),
            d_model=_size(text, "hidden_size"),
            d_ff=_size(text, "intermediate_size"),
            n_heads=_size(text, "num_attention_heads"),
            encoder_type=family.encoder_type,
            parameters=parameters,
            weights="random" if made_up else "checkpoint",
            attn_implementation=config._attn_implementation,
            experts_implementation=experts,
        ),
        family=family,
        tokens=tokens,
        device=device,
        dtype=dtype,
        default_mode=(source.preset.default_mode if source.preset else None) or family.default_mode,
        notes=tuple(note for note in (weights if made_up else None, tokens.note, ranks.note) if note),
    )


def _count_parameters(network_class: Any, config: Any, attention: str, trust_remote_code: bool) -> int:
    """Build the network on the meta device (all shapes, no memory) and count.

    Raises:
        ModelError: transformers refuses the configuration.
    """
    from transformers.initialization import no_init_weights

    make, options = _maker(network_class, trust_remote_code)
    try:
        with torch.device("meta"), no_init_weights():
            network = make(config, attn_implementation=attention, **options)
    except REFUSED as error:
        raise ModelError(f"transformers cannot build this model ({reason(error)})") from error
    return sum(parameter.numel() for parameter in network.parameters())


def _maker(network_class: Any, trust_remote_code: bool) -> tuple[Any, dict[str, Any]]:
    """How a class of transformers builds from a configuration: an architecture itself, or one that looks it up."""
    if hasattr(network_class, "_from_config"):
        return network_class._from_config, {}
    return network_class.from_config, {"trust_remote_code": True} if trust_remote_code else {}


def _random_network(
    network_class: Any, config: Any, attention: str, device: torch.device, dtype: torch.dtype, settings: Settings
) -> Any:
    """Make the network on the device itself: 3.3 B numbers take a GPU a second and a CPU half a minute.

    Vectors named as norms are 1, other biases 0, everything else is normal with standard deviation 0.02.
    """
    from transformers.initialization import no_init_weights

    try:
        with torch.device(device), no_init_weights():
            make, options = _maker(network_class, settings.trust_remote_code)
            network = make(config, dtype=dtype, attn_implementation=attention, **options)
    except (MemoryError, *REFUSED) as error:
        if out_of_memory(error) is not None:
            raise ModelError(f"{device}: out of memory while building the model ({reason(error)})") from error
        raise ModelError(f"transformers cannot build this model ({reason(error)})") from error
    generator = torch.Generator(device).manual_seed(settings.seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim == 1 and "norm" in name.rpartition(".")[0].rpartition(".")[2]:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, _WEIGHT_STD, generator=generator)
    return network


def _divided_network(
    network_class: Any,
    config: Any,
    source: ModelSource,
    ranks: Ranks,
    attention: str,
    device: torch.device,
    dtype: torch.dtype,
    plan: RunPlan,
) -> Any:
    """This rank's share of the network; what is made up is made once, and divided as a checkpoint is."""
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    if source.folder is not None and not plan.settings.random_weights:
        if plan.settings.trust_remote_code:
            options["trust_remote_code"] = True
        return ranks.load(network_class, source.folder, config=config, **options)
    return ranks.divided(
        network_class,
        lambda: _random_network(network_class, config, attention, device, dtype, plan.settings),
        Path(plan.run_dir) / "random-weights",
        **options,
    )


def _load_checkpoint(
    network_class: Any, config: Any, folder: Path, attention: str, dtype: torch.dtype, trust_remote_code: bool
) -> Any:
    _check_files(folder.glob("*.safetensors"))
    try:
        network, info = network_class.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported below, by name
            use_safetensors=True,  # anything else is pickled, and may run code as it is loaded
            trust_remote_code=trust_remote_code,
        )
    except (MemoryError, *REFUSED) as error:
        if out_of_memory(error) is not None:
            raise ModelError(f"{folder}: out of memory while its weights were read ({reason(error)})") from error
        raise ModelError(f"{folder}: the checkpoint cannot be loaded ({reason(error)})") from error
    for fault, meaning in (
        ("missing_keys", "missing from the checkpoint, so they would be random"),
        ("unexpected_keys", "in the checkpoint, but unknown to the model"),
        ("mismatched_keys", "of another shape than the model's"),
        ("error_msgs", "refused"),
    ):
        keys = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info.get(fault) or ())
        if keys:
            shown = ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
            raise ModelError(f"{folder}: {len(keys)} weights are {meaning}: {shown}")
    return network


def _check_files(paths: Iterable[Path]) -> None:
    """Open each file's header: a truncated download is found here, before minutes of loading."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(paths):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{path}: broken weights ({reason(error)}); fetch the file again") from error


def _check_memory(what: str, needed_bytes: int, device: torch.device) -> None:
    """Compare the weights' size with what is free.

    Raises:
        ModelError: they cannot fit.
    """
    free_bytes = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory_bytes()
    if needed_bytes * _HEADROOM > free_bytes:
        raise ModelError(
            f"{what}: its weights take {needed_bytes / 2**30:.1f} GiB, and {device} has {free_bytes / 2**30:.1f} GiB "
            "free; choose a smaller model, a narrower --dtype or another --device"
        )


def available_memory_bytes() -> int:
    """Memory that this process can still get: the system's, or its control group's if that is less."""
    available = int(psutil.virtual_memory().available)
    # psutil knows the machine only; a container's limit is that of its control group.
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            available = min(available, int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # No control group, or one of the first kind: the system's figure stands alone.
    return max(available, 0)


def _choose_experts(network: Any, wanted: str | None) -> str | None:
    """Set how routed experts are computed, where the model has any.

    Raises:
        ModelError: the model has no such implementation.
    """
    if not any("experts" in name for name, _ in network.named_modules()):
        return None
    if wanted is not None:
        try:
            network.set_experts_implementation(wanted)
        except (ValueError, ImportError) as error:
            raise ModelError(f"experts implementation {wanted!r}: {reason(error)}") from error
    text = network.config.get_text_config()
    return getattr(text, "_experts_implementation", None)


def _size(config: Any, name: str) -> int | None:
    value = getattr(config, name, None)
    return value if isinstance(value, int) else None
