"""The domain: what was profiled, and what a report says of it.

Frozen attrs records that validate themselves on construction. Unknown is ``None``. Ratios are 0–1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Final, Literal, TypeAlias

from attrs import Attribute, field, frozen, validators

from analysis.domain.annotations import Stage

__all__ = [
    "MFU_GUARDRAIL",
    "Category",
    "Dtype",
    "EncoderType",
    "InputImage",
    "InputSet",
    "KernelSummary",
    "LLMProfileReport",
    "ModelUnderTest",
    "OperatorSummary",
    "RunMeta",
    "StageTiming",
    "Stats",
    "absolute_path",
    "mfu_in_guardrails",
    "mfu_per_stage_in_guardrails",
    "model_reference",
]

Dtype: TypeAlias = Literal["bf16", "fp16", "fp32"]
EncoderType: TypeAlias = Literal["ViT", "CNN", "Unknown"]
Category: TypeAlias = Literal["text_heavy", "mixed_layout", "image_rich", "unknown"]

MFU_GUARDRAIL: Final = 1.5
"""An MFU above 1 says that the estimate is wrong; above this it is refused outright."""

_MODEL_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")

_Instance: TypeAlias = Any
_Attr: TypeAlias = "Attribute[Any]"


def absolute_path(instance: _Instance, attribute: _Attr, value: str) -> None:
    """Attrs validator: ``value`` is an absolute path."""
    if not PurePosixPath(value).is_absolute():
        raise ValueError(f"{attribute.name} must be an absolute path, not {value!r}")


def model_reference(instance: _Instance, attribute: _Attr, value: str) -> None:
    """Attrs validator: ``value`` is an absolute path, or a preset's or Hugging Face id (``name`` or ``owner/name``)."""
    if not (PurePosixPath(value).is_absolute() or _MODEL_ID.fullmatch(value)):
        raise ValueError(f"{attribute.name} must be an absolute path or a model id, not {value!r}")


def _finite(instance: _Instance, attribute: _Attr, value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{attribute.name} must be a finite number, not {value!r}")


def mfu_in_guardrails(instance: _Instance, attribute: _Attr, value: float | None) -> None:
    """Attrs validator: ``value`` is unknown or an MFU that an estimator can mean."""
    if value is not None and not 0 <= value <= MFU_GUARDRAIL:
        raise ValueError(f"{attribute.name} must lie in 0..{MFU_GUARDRAIL}, not {value!r}: the estimator is wrong")


def mfu_per_stage_in_guardrails(instance: _Instance, attribute: _Attr, value: Mapping[Stage, float | None]) -> None:
    """Attrs validator: every stage's MFU is unknown or in the guardrails."""
    for mfu in value.values():
        mfu_in_guardrails(instance, attribute, mfu)


_positive = validators.and_(_finite, validators.gt(0))
_amount = validators.and_(_finite, validators.ge(0))
_ratio = validators.and_(_finite, validators.ge(0), validators.le(1))


# A trace whose every launch has a name of its own has a hundred thousand records: what holds is seen in one step, and what
# does not is told by the validators above.
def _known_ratio(instance: _Instance, attribute: _Attr, value: float | None) -> None:
    if not (value is None or 0 <= value <= 1):
        _ratio(instance, attribute, value)


def _known_amount(instance: _Instance, attribute: _Attr, value: float | None) -> None:
    if not (value is None or 0 <= value < math.inf):
        _amount(instance, attribute, value)


def _not_negative(instance: _Instance, attribute: _Attr, value: float) -> None:
    if not 0 <= value < math.inf:
        _amount(instance, attribute, value)


@frozen
class Stats:
    """Mean and standard deviation of a metric over repeats (``std`` is 0 for a single one)."""

    mean: float = field(validator=_finite)
    std: float = field(validator=_not_negative)


@frozen
class ModelUnderTest:
    """The model that ran."""

    id: str
    model_path: str = field(validator=model_reference)
    dtype: Dtype = field(validator=validators.in_(("bf16", "fp16", "fp32")))
    device: str
    use_flash_attn: bool
    n_layers: int | None = field(default=None, validator=validators.optional(validators.ge(0)))
    d_model: int | None = field(default=None, validator=validators.optional(validators.ge(0)))
    d_ff: int | None = field(default=None, validator=validators.optional(validators.ge(0)))
    n_heads: int | None = field(default=None, validator=validators.optional(validators.ge(0)))
    encoder_type: EncoderType = field(default="Unknown", validator=validators.in_(("ViT", "CNN", "Unknown")))
    parameters: int | None = field(default=None, validator=validators.optional(validators.ge(0)))
    """Number of parameters, all experts included."""
    weights: Literal["random", "checkpoint"] | None = None
    """Where the weights came from; None: not known (a trace without a manifest)."""
    attn_implementation: str | None = None
    experts_implementation: str | None = None


@frozen
class InputImage:
    """One page."""

    path: str = field(validator=absolute_path)
    width: int = field(validator=validators.gt(0))
    """Pixels."""
    height: int = field(validator=validators.gt(0))
    """Pixels."""
    category: Category = field(
        default="unknown", validator=validators.in_(("text_heavy", "mixed_layout", "image_rich", "unknown"))
    )
    sha256: str | None = None


@frozen
class InputSet:
    """The pages of one run, in the order in which they are processed."""

    id: str
    root_dir: str = field(validator=absolute_path)
    count: int
    images: tuple[InputImage, ...] = field(converter=tuple[InputImage, ...], validator=validators.min_len(1))

    def __attrs_post_init__(self) -> None:
        if self.count != len(self.images):
            raise ValueError(f"count is {self.count}, but there are {len(self.images)} images")


@frozen
class StageTiming:
    """What one stage took over the input set."""

    stage: Stage = field(validator=validators.in_(("prefill", "decode")))
    elapsed_ms: float = field(validator=_positive)
    tokens: int | None = field(validator=validators.optional(validators.ge(0)))
    """Generated tokens for decode, prompt tokens for prefill; None: the trace does not say."""
    throughput_toks_per_s: float | None = field(validator=validators.optional(_not_negative))
    """None: the tokens are not known."""


@frozen
class OperatorSummary:
    """One operator: the host time of its range and the GPU time of what it launched."""

    op_name: str
    total_time_ms: float = field(validator=_not_negative)
    cuda_time_ms: float = field(validator=_not_negative)
    calls: int = field(validator=validators.ge(0))


@frozen
class KernelSummary:
    """One kernel of one stage, or its launches of one shape. Times in integer nanoseconds.

    A launch shape is grid, block, registers per thread and shared memory together. A row over launches of several shapes
    leaves out (None) what they do not have in common; ``shapes`` tells that from what is not recorded.
    """

    name: str
    short_name: str
    category: str
    stage: str
    """``prefill``, ``decode`` or ``(unattributed)``."""
    calls: int = field(validator=validators.gt(0))
    total_ns: int = field(validator=validators.ge(0))
    mean_ns: float = field(validator=_not_negative)
    median_ns: float = field(validator=_not_negative)
    min_ns: int = field(validator=validators.ge(0))
    max_ns: int = field(validator=validators.ge(0))
    library: str | None = None
    human_name: str | None = None
    tensor_core: bool | None = None
    """None: the name does not tell."""
    p95_ns: float | None = field(default=None, validator=_known_amount)
    share: float | None = field(default=None, validator=_known_ratio)
    """Of the stage's kernel sum."""
    per_token: float | None = field(default=None, validator=_known_amount)
    """Calls per token of the stage: prompt tokens in prefill, emitted ones in decode."""
    grid: tuple[int, int, int] | None = None
    """Blocks in x, y, z. None, like the other parts of a shape: not recorded, or not the same for all launches."""
    block: tuple[int, int, int] | None = None
    """Threads in x, y, z."""
    registers_per_thread: int | None = None
    theoretical_occupancy: float | None = field(default=None, validator=_known_ratio)
    waves: float | None = field(default=None, validator=_known_amount)
    shared_bytes: int | None = None
    """Shared memory per block, static and dynamic."""
    shapes: int = field(default=1, validator=validators.ge(1))
    """Number of distinct launch shapes; launches whose shape is not recorded count as one."""


@frozen
class RunMeta:
    """Where and with what the run was made."""

    run_id: str
    created_at: datetime
    repeats: int = field(validator=validators.ge(1))
    repo_root: str | None = field(default=None, validator=validators.optional(absolute_path))
    gpu_name: str | None = None
    compute_capability: str | None = None
    peak_tflops_bf16: float | None = field(default=None, validator=validators.optional(_positive))
    torch_version: str | None = None
    transformers_version: str | None = None
    cuda_version: str | None = None
    nsys_version: str | None = None
    driver_version: str | None = None
    package_version: str | None = None
    git_commit: str | None = None


@frozen
class LLMProfileReport:
    """The whole report. What the known fields cannot carry stands in ``detail``."""

    run_id: str
    model: ModelUnderTest | None
    """None: a trace without a manifest does not say."""
    input_set: InputSet | None
    timings: tuple[StageTiming, ...] = field(converter=tuple[StageTiming, ...])
    operators_topk: tuple[OperatorSummary, ...] = field(converter=tuple[OperatorSummary, ...])
    """Sorted by total_time_ms, largest first."""
    mfu_model_level: float | None = field(validator=mfu_in_guardrails)
    mfu_per_stage: dict[Stage, float | None] = field(validator=mfu_per_stage_in_guardrails)
    aggregates: dict[str, Stats]
    notes: str
    meta: RunMeta | None
    detail: dict[str, Any] | None = None
    """In ``report.json``: `analysis.sums.records.Report` without its ``report``, as plain JSON."""

    @operators_topk.validator
    def _largest_first(self, attribute: _Attr, value: tuple[OperatorSummary, ...]) -> None:
        times = [operator.total_time_ms for operator in value]
        if times != sorted(times, reverse=True):
            raise ValueError("operators_topk must be sorted by total_time_ms, largest first")
