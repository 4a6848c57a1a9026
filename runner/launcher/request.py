"""From a command line or a request in JSON to a resolved plan."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from attrs import field, frozen, validators

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.entities import Dtype
from analysis.domain.errors import RequestError
from runner.collectors.choosing import Choice, choose_collector
from runner.collectors.nsys.presets import load_preset
from runner.plan.plan import AnnotationLevel, DecodeMode, RunPlan
from runner.process.driver import DriverFacts, default_device

__all__ = ["CollectorChoice", "LaunchOptions", "RunSettings", "make_plan", "make_request"]

CollectorChoice: TypeAlias = Literal["auto", "nsys", "torch"]


@frozen
class LaunchOptions:
    """How to run a plan; nothing here changes what the child does. ``launch.json``."""

    nsys: str | None = None
    nsys_args: tuple[str, ...] = ()
    keep_env: tuple[str, ...] = ()
    """Names only."""
    timeout_s: float | None = field(default=None, validator=validators.optional(validators.gt(0)))
    """For control run and capture together."""
    keep_report: bool = False
    """Keep the .nsys-rep even if it holds the environments of other processes."""
    grace_s: float = field(default=10.0, validator=validators.gt(0))
    """How long the child may take to end after SIGTERM."""


@frozen
class RunSettings:
    """Options of ``dsocr-profile run`` beyond the request."""

    collector: CollectorChoice = "auto"
    preset: str = "default"
    input_mode: str | None = None
    dtype: Dtype | None = None
    seed: int = 0
    batch_size: int = 1
    warmup_passes: int = 1
    capture_passes: int = 1
    annotation_level: AnnotationLevel | None = None
    """None: what the preset wants."""
    decode_mode: DecodeMode = "eager"
    attn_implementation: str | None = None
    experts_implementation: str | None = None
    ignore_eos: bool = False
    trust_remote_code: bool = False
    measure_peak: bool = False
    prompt: str | None = None


def make_request(
    model: str,
    images: Path,
    *,
    device: str,
    facts: DriverFacts,
    repeats: int,
    max_new_tokens: int,
    use_flash_attn: bool = True,
) -> tuple[LLMProfileRequest, str | None]:
    """Build a request from a command line.

    Args:
        model: preset, folder (relative ones are taken from here) or Hugging Face id.
        images: file or folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        facts: what the driver says, for ``auto``.
        repeats: passes of the control run.
        max_new_tokens: tokens per image at most.
        use_flash_attn: fused attention where the device has it.

    Returns:
        The request, and why that device if it was chosen here.

    Raises:
        RequestError: a value is out of its range.
    """
    reason = None
    if device == "auto":
        device, reason = default_device(facts)
    elif device.startswith("cuda") and facts.device_count == 0:
        raise RequestError(f"--device {device}: no CUDA device is visible; `dsocr-profile doctor` says more")
    if model.startswith((".", "~", "/")) or Path(model).is_dir():
        model = str(Path(model).expanduser().absolute())
    try:
        request = LLMProfileRequest(
            model_path=model,
            input_dir=str(images.expanduser().absolute()),
            repeats=repeats,
            use_flash_attn=use_flash_attn,
            device=device,
            max_new_tokens=max_new_tokens,
        )
    except ValueError as error:
        raise RequestError(str(error.args[0])) from error
    return request, reason


def make_plan(
    request: LLMProfileRequest,
    settings: RunSettings,
    launch: LaunchOptions,
    out: Path,
    environ: Mapping[str, str],
    *,
    run_id: str | None = None,
) -> tuple[RunPlan, Choice]:
    """Resolve a request: choose the collector, check preset and options, name the run.

    Args:
        request: what is asked.
        settings: options beyond it.
        launch: for the nsys to look at.
        out: folder that gets the run's folder.
        environ: the launcher's environment.
        run_id: None: a new one.

    Raises:
        RequestError: an option or preset is not valid.
        CaptureError: nsys is asked for, but there is no usable one.
    """
    preset = load_preset(settings.preset)
    run_id = run_id or str(uuid.uuid4())
    choice = choose_collector(settings.collector, request.device, preset, launch.nsys, environ)
    try:
        plan = RunPlan(
            run_id=run_id,
            request=request,
            run_dir=str(out.expanduser().absolute() / run_id),
            collector=choice.name,
            preset=preset.name,
            input_mode=settings.input_mode,
            dtype=settings.dtype,
            seed=settings.seed,
            batch_size=settings.batch_size,
            warmup_passes=settings.warmup_passes,
            capture_passes=settings.capture_passes,
            annotation_level=settings.annotation_level or preset.annotations,
            decode_mode=settings.decode_mode,
            attn_implementation=settings.attn_implementation,
            experts_implementation=settings.experts_implementation,
            ignore_eos=settings.ignore_eos,
            trust_remote_code=settings.trust_remote_code,
            measure_peak=settings.measure_peak,
            prompt=settings.prompt,
        )
    except ValueError as error:
        raise RequestError(str(error.args[0])) from error
    return plan, choice
