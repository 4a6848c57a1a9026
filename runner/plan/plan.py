"""What one run is to do, resolved: written by the launcher, read by the child, never changed in between."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import field, frozen, validators

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.entities import Dtype, ModelUnderTest
from analysis.domain.manifest import Collector, ControlPass, DeviceState, MeasuredPeak, PromptTokens, StageCost

__all__ = ["AnnotationLevel", "DecodeMode", "RunPlan", "WorkloadResult"]

AnnotationLevel: TypeAlias = Literal["stages", "modules", "operators"]
DecodeMode: TypeAlias = Literal["eager", "cuda-graph"]


@frozen
class RunPlan:
    """One run. ``plan.json`` in the run directory."""

    run_id: str
    request: LLMProfileRequest
    run_dir: str
    """Absolute; artefacts go here."""
    collector: Collector
    preset: str = "default"
    """Name of the profiler preset (``nsys_configs/<name>.toml``)."""
    input_mode: str | None = None
    """tiny, small, base, large, gundam; None: the model's default."""
    dtype: Dtype | None = None
    """None: bf16 on a GPU, fp32 on a CPU."""
    seed: int = 0
    batch_size: int = field(default=1, validator=validators.ge(1))
    warmup_passes: int = field(default=1, validator=validators.ge(0))
    capture_passes: int = field(default=1, validator=validators.ge(1))
    annotation_level: AnnotationLevel = "modules"
    decode_mode: DecodeMode = "eager"
    attn_implementation: str | None = None
    """None: sdpa where ``request.use_flash_attn``, else eager."""
    experts_implementation: str | None = None
    """None: the model family's default (grouped_mm where transformers has it)."""
    ignore_eos: bool = False
    """Always generate max_new_tokens, so that runs with random weights have equal length."""
    trust_remote_code: bool = False
    measure_peak: bool = False
    """Measure a matrix product and a copy on the device."""
    prompt: str | None = None
    """None: the model family's usual OCR prompt, or a stated text prompt for a text-only model."""


@frozen
class WorkloadResult:
    """What the child says when it is done: ``control.json`` and ``profiled.json`` in the run directory."""

    role: Literal["control", "capture"]
    model: ModelUnderTest
    prompts: tuple[PromptTokens, ...]
    passes: tuple[ControlPass, ...]
    decode_mode: DecodeMode
    costs: tuple[StageCost, ...] = ()
    costs_unknown_because: str | None = None
    measured_peak: MeasuredPeak | None = None
    device_states: tuple[DeviceState, ...] = ()
    versions: dict[str, str] = field(factory=dict)
    gpu_name: str | None = None
    compute_capability: str | None = None
    synchronises: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
