"""What one run is to do, resolved: written by the launcher, read by the child, never changed in between."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.energy import Energy
from analysis.domain.entities import InputSet, ModelUnderTest
from analysis.domain.manifest import (
    Collector,
    ControlPass,
    DecodeMode,
    DeviceState,
    MeasuredPeak,
    PromptTokens,
    StageCost,
)
from runner.plan.settings import AnnotationLevel, Settings

__all__ = ["RunPlan", "WorkloadResult", "trace_names"]


@frozen
class RunPlan:
    """One run. ``plan.json`` in the run directory."""

    run_id: str
    request: LLMProfileRequest
    run_dir: str
    """Absolute; artefacts go here."""
    collector: Collector
    """What records it, as chosen."""
    annotation_level: AnnotationLevel = "modules"
    """How much the program marks with ranges, as chosen: asked for, or what the preset wants."""
    settings: Settings = field(factory=Settings)
    """As they were asked for."""
    input_set: InputSet | None = None
    """The pages, found and checked; None (plans before 0.3): ``request.input_dir`` is looked through again."""


def trace_names(ranks: int) -> tuple[str, ...]:
    """Names of the traces of a run, without endings: one for each rank."""
    return ("trace",) if ranks == 1 else tuple(f"rank{rank}" for rank in range(ranks))


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
    energy: Energy | None = None
    peak_memory_bytes: int | None = None
    """None: not asked for."""
    device_states: tuple[DeviceState, ...] = ()
    versions: dict[str, str] = field(factory=dict)
    gpu_name: str | None = None
    compute_capability: str | None = None
    synchronises: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    """What the last control pass wrote, by prompt; empty where the weights or the tokens mean nothing."""
