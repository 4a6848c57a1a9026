"""What the history holds of a run, as records. Their fields are the columns of its tables (`history.schema`).

All times are integer nanoseconds, or per unit of a stage's work (an image, a token …) where the name says so; ratios are
0–1. None: not known, because the run's folder did not say.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeAlias

from attrs import field, frozen

__all__ = [
    "Artefact",
    "Ceiling",
    "DeviceMoment",
    "KernelClass",
    "Module",
    "RecordedRun",
    "RunKind",
    "RunQuery",
    "RunRow",
    "Sample",
    "StageRow",
    "VerdictRow",
]

RunKind: TypeAlias = Literal["model", "program", "trace"]
"""A run of ours, one of ``exec``, or a report of a trace that no run.json explains."""


@frozen
class RunRow:
    """One run: what ran, where, with what, and its headline."""

    run_id: str
    """Of ``run.json``; ``trace-…``, made from the trace's size, time and length, where a report has none."""
    kind: RunKind
    status: str
    """As ``run.json`` says: complete, failed …; of a report alone: complete."""
    recorded_at: datetime
    """UTC, as all moments."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    model: str | None = None
    """Preset or Hugging Face id; of a program its file's name."""
    model_path: str | None = None
    weights: str | None = None
    """``random`` or ``checkpoint``."""
    dtype: str | None = None
    parameters: int | None = None
    attn_implementation: str | None = None
    experts_implementation: str | None = None
    decode_mode: str | None = None
    batch_size: int | None = None
    ranks: int | None = None
    """Processes that share the model."""
    input_mode: str | None = None
    inputs: int | None = None
    """Number of images (or prompts)."""
    images_hash: str | None = None
    """SHA-256 over the images' own, in their order; None where one of them is not known."""
    inputs_hash: str | None = None
    """SHA-256 over ``images_hash`` and, per input, mode, tiles, and tokens of image and text: what the model was given."""
    prompt_tokens: int | None = None
    """Of one pass over all inputs."""
    new_tokens: int | None = None
    """Generated in one unprofiled pass over all inputs, first tokens included."""
    max_new_tokens: int | None = None
    repeats: int | None = None
    collector: str | None = None
    preset: str | None = None
    annotation_level: str | None = None
    device: str | None = None
    """As the run was asked for it: ``cuda:0``, ``cpu``."""
    gpu_name: str | None = None
    driver: str | None = None
    git_commit: str | None = None
    """Of the checkout that ran, ``+changes`` where it had any, ``+unknown`` where git did not say."""
    command: str | None = None
    """Of a program, secrets redacted."""
    headline: str | None = None
    """The report's first sentence."""
    unit: str | None = None
    """What ``time_ns`` is of: a page, a prompt …"""
    time_base: str | None = None
    """``unprofiled`` or ``profiled``."""
    time_ns: int | None = None
    """Of one ``unit``, all stages together."""
    best_ns: int | None = None
    """The same with the first action's ceiling taken off: at best."""
    folder: str | None = None
    """Where the run's files were when it was recorded."""
    error: str | None = None
    versions: dict[str, str] | None = None
    options: dict[str, Any] | None = None


@frozen
class Sample:
    """One unprofiled repetition of a stage: one image of one pass, or one run of a program."""

    sequence: int
    """Place among the run's samples, in the order in which they were measured."""
    stage: str
    """``prefill``, ``decode``; of a program ``program`` (its wall time) or ``load``."""
    per: str
    """What ``units`` counts: image, prompt, token, step, run."""
    units: int
    ns: int
    """Of all units together."""
    pass_index: int | None = None
    image_index: int | None = None
    step_ns: list[int] | None = None
    """Of each decode step."""

    @property
    def ns_per_unit(self) -> float:
        """Time of one unit."""
        return self.ns / self.units


@frozen
class StageRow:
    """One stage, as the report sums it up. Medians are per unit; totals are of the capture."""

    stage: str
    per: str | None = None
    units: int | None = None
    """In the capture."""
    instances: int | None = None
    unprofiled_ns: float | None = None
    """Median per unit, without the profiler."""
    profiled_ns: float | None = None
    """Median per unit, under the profiler."""
    busy_ns: float | None = None
    """Median per unit: union of the GPU's intervals."""
    busy_share: float | None = None
    busy_share_base: str | None = None
    kernel_sum_ns: int | None = None
    """GPU time: sum over the capture's kernels."""
    launches: int | None = None
    synchronises: int | None = None
    """Waits of the host for the device."""
    synchronise_ns: int | None = None
    idle_ns: int | None = None
    """GPU idle inside the stage, profiled."""
    mfu: float | None = None
    mbu: float | None = None
    utilisation_base: str | None = None
    """What MFU and MBU set the work against: ``unprofiled``, or ``profiled elapsed`` where there is no other."""


@frozen
class KernelClass:
    """GPU time of the kernels of one class in one stage, over the capture."""

    stage: str
    kernel_class: str
    calls: int
    total_ns: int


@frozen
class Module:
    """GPU time of the kernels of one module in one stage, over the capture."""

    stage: str
    module: str
    """Pattern of its path: ``layers.*.mlp``."""
    calls: int
    total_ns: int


@frozen
class VerdictRow:
    """What bounds a stage, and what its first action could bring."""

    stage: str
    bound: str
    """The cause."""
    sentence: str
    action: str | None = None
    per: str | None = None
    time_base: str | None = None
    time_ns: int | None = None
    """Per unit."""
    ceiling_ns: int | None = None
    """What the first action saves at most, per unit."""
    best_ns: int | None = None
    """``time_ns`` − ``ceiling_ns``: at best."""
    ceiling: str | None = None
    """In words."""


@frozen
class Ceiling:
    """What one action could bring at most: a prediction that later runs can be held against."""

    sequence: int
    """Place in the list: first those of the whole run by rank, then those of each stage."""
    stage: str | None
    """None: of the whole run, all stages together."""
    rank: int
    """From 1, within its stage or the run."""
    kinds: list[str]
    action: str
    """In a few words."""
    unit: str
    time_base: str | None
    time_ns: int
    """Per unit, when this was said."""
    best_ns: int
    """Per unit, at best."""
    sentence: str | None = None


@frozen
class Artefact:
    """A file of the run's folder, as it was when the run was recorded."""

    name: str
    path: str
    bytes: int


@frozen
class DeviceMoment:
    """What the driver said of the device at one moment."""

    moment: str
    """``before`` or ``after`` the run."""
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None


@frozen
class RecordedRun:
    """All that the history holds of one run."""

    run: RunRow
    samples: tuple[Sample, ...] = ()
    stages: tuple[StageRow, ...] = ()
    classes: tuple[KernelClass, ...] = ()
    modules: tuple[Module, ...] = ()
    verdicts: tuple[VerdictRow, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
    artefacts: tuple[Artefact, ...] = ()
    device_moments: tuple[DeviceMoment, ...] = ()


@frozen
class RunQuery:
    """Which runs are asked for; None: any."""

    model: str | None = None
    """Exactly the model's id, or the end of it behind a ``/``."""
    device: str | None = None
    """A part of the GPU's name, or the device as it was asked for; case plays no part."""
    since: datetime | None = None
    """Started then or later; a moment without a zone is UTC."""
    until: datetime | None = None
    """Started before then."""
    statuses: tuple[str, ...] = field(default=(), converter=tuple[str, ...])
    """Empty: any."""
    weights: str | None = None
    gpu_name: str | None = None
    """Exactly."""
    images_hash: str | None = None
    inputs_hash: str | None = None
    limit: int | None = None
    """The newest of them."""
