"""The wire: what is asked of the profiler, and what it answers. Fields are fixed; see `analysis.domain.convert` for JSON."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import field, frozen, validators

from analysis.domain.annotations import Stage
from analysis.domain.entities import (
    OperatorSummary,
    Stats,
    absolute_path,
    mfu_in_guardrails,
    mfu_per_stage_in_guardrails,
    model_reference,
)

__all__ = [
    "AcceptedStatus",
    "LLMProfileAccepted",
    "LLMProfileReportSummary",
    "LLMProfileRequest",
    "OperatorSummary",
    "Stats",
]

AcceptedStatus: TypeAlias = Literal["queued", "running"]


@frozen
class LLMProfileRequest:
    """Profile a model over the images of a folder."""

    model_path: str = field(validator=model_reference)
    """Absolute path of a checkpoint, a preset's name, or a Hugging Face id that the local cache holds."""
    input_dir: str = field(validator=absolute_path)
    repeats: int = field(default=3, validator=validators.ge(1))
    """Passes of the unprofiled control run."""
    use_flash_attn: bool = True
    """Use the fused attention kernels where the device has them."""
    device: str = field(default="cuda:0", validator=validators.matches_re(r"cpu|cuda(:\d+)?"))
    max_new_tokens: int = field(default=64, validator=validators.ge(1))


@frozen
class LLMProfileAccepted:
    """The answer to a request, at once."""

    run_id: str
    status: AcceptedStatus = field(validator=validators.in_(("queued", "running")))
    artifacts_dir: str = field(validator=absolute_path)


@frozen
class LLMProfileReportSummary:
    """The report in one screenful."""

    run_id: str
    mfu_model_level: float | None = field(validator=mfu_in_guardrails)
    mfu_per_stage: dict[Stage, float | None] = field(validator=mfu_per_stage_in_guardrails)
    top_operators: tuple[OperatorSummary, ...] = field(converter=tuple[OperatorSummary, ...])
    aggregates: dict[str, Stats]
    notes: str
