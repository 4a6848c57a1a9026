"""A sweep: one model measured at many points – batch, input mode, tokens, context, decode mode – and what each one gave.

``sweep.json`` in a sweep's folder is a `Sweep` as `analysis.domain.convert` writes it. A point is there as soon as it has a
result; one that did not fit into memory, failed or was left out for lack of time is a result too, with its reason.

All times of a point are of unprofiled passes. What only a profiler can see (launches, GPU busy, the verdict) comes from a short
window of the same process – one prefill and a few decode steps – that is recorded behind the timed passes.
"""

from __future__ import annotations

from statistics import median
from typing import Literal, TypeAlias

from attrs import field, frozen, validators

from analysis.domain.annotations import Stage
from analysis.domain.energy import Energy
from analysis.domain.manifest import DecodeMode

__all__ = [
    "MemoryUse",
    "PointStatus",
    "StageFigures",
    "Sweep",
    "SweepPoint",
    "SweepSetting",
    "SweepStatus",
]

PointStatus: TypeAlias = Literal["measured", "out of memory", "failed", "skipped"]
"""``out of memory``: the device (on a CPU: the process) had not enough of it. ``skipped``: not tried, for the reason given."""
SweepStatus: TypeAlias = Literal["running", "complete", "unfinished"]
"""``unfinished``: it ended before every point had a result, and can be gone on with."""


@frozen
class SweepSetting:
    """What a point was asked for. Two points of one sweep differ in at least one field."""

    batch_size: int = field(validator=validators.ge(1))
    """Sequences that run at once, copies of one prompt."""
    input_mode: str
    """How a page is shown to the model: tiny, small, base, large, gundam, native – or ``text`` where it reads none."""
    max_new_tokens: int = field(validator=validators.ge(1))
    """Tokens that each sequence generates, the first one (prefill's) included; EOS is ignored."""
    prompt_tokens: int | None
    """Positions of one sequence's prompt that were asked for; None: those of the model's own prompt."""
    decode_mode: DecodeMode


@frozen
class StageFigures:
    """One stage of one point. A unit is an image (or prompt) of the whole batch in prefill, a step of the batch in decode."""

    stage: Stage
    per: str
    """The unit: ``image`` or ``prompt`` in prefill; ``token`` in decode, ``step`` of a batch of more than one."""
    samples_ns: tuple[int, ...]
    """Unprofiled, ns: each pass's TTFT in prefill; each step of each pass in decode, in the order in which they ran."""
    pass_ns: tuple[float, ...]
    """Unprofiled, ns per unit, one for each pass: TTFT in prefill; mean time between tokens (TPOT) in decode."""
    flop: int | None
    """What one unit needs, the whole batch, multiply-add counted as 2; None: it could not be counted."""
    weight_bytes: int | None
    """Weights that one unit touches; of experts, those of one sequence: the batch is copies of it, which go to the same ones."""
    kv_bytes: int | None
    """KV cache that one unit reads and writes, the whole batch."""
    mfu: float | None
    """FLOP ÷ (median of ``pass_ns`` × dense peak), 0–1."""
    mbu: float | None
    """Bytes ÷ (median of ``pass_ns`` × peak bandwidth), 0–1."""
    ideal_ns: float | None
    """The longer of FLOP ÷ peak and bytes ÷ peak bandwidth, ns per unit."""
    utilisation_unknown_because: str | None
    launches: float | None
    """Launch calls per unit (a graph's launch is one), from the recorded window."""
    busy_ns: float | None
    """Union of the GPU's operations, ns per unit, from the recorded window."""
    busy_share: float | None
    """``busy_ns`` ÷ unprofiled time, 0–1."""
    bound: str | None
    """The verdict's cause, as `analysis.verdict.records.Verdict.bound`: launch-bound, memory-bound, compute-bound …"""
    sentence: str | None
    """The verdict in one sentence."""
    at_best_ns: float | None
    """What a unit takes at best if the stage's first action brings all that it can, ns."""
    window_unknown_because: str | None = None
    """Why launches, busy share and verdict are not known."""

    @property
    def median_ns(self) -> float:
        """Median over the passes, ns per unit: TTFT or TPOT, the stage's headline."""
        return median(self.pass_ns)


@frozen
class MemoryUse:
    """Memory of the device at the point's peak, bytes. All are of torch's caching allocator."""

    weights: int
    """Parameters and buffers of the model."""
    kv_cache: int
    """Keys and values when the last token was made, by the cache's own tensors."""
    activations: int
    """``peak_allocated`` − ``weights`` − ``kv_cache``: activations, inputs, workspaces, a recorded graph's own memory."""
    peak_allocated: int
    """The most that was allocated at once since the point began."""
    peak_reserved: int
    """The most that the allocator held of the device."""
    reserved_unused: int
    """``peak_reserved`` − ``peak_allocated``: held by the allocator and not used at the peak."""
    device_total: int | None
    """What the device has; None: not known."""


@frozen
class SweepPoint:
    """One point and its result."""

    setting: SweepSetting
    status: PointStatus
    reason: str | None = None
    """Why it was not measured; None: it was."""
    seconds: float | None = None
    """Wall time that the point took, its recorded window included; None: it was not tried."""
    prompt_tokens: int | None = None
    """Positions of one sequence's prompt; None: not known, since it was not tried."""
    image_tokens: int | None = None
    """Of them those of the image."""
    new_tokens: int | None = None
    """Tokens that each sequence generated."""
    prefill: StageFigures | None = None
    decode: StageFigures | None = None
    """None: one token was asked for, which prefill makes; or the point was not measured."""
    tokens_per_s: float | None = None
    """Output tokens of all sequences per second of decode: batch ÷ TPOT."""
    pages_per_min: float | None = None
    """Sequences per minute, prefill and decode: batch × 60 s ÷ (TTFT + decode)."""
    memory: MemoryUse | None = None
    """None: not a GPU, whose allocator alone tells this; or not measured."""
    memory_unknown_because: str | None = None
    energy: Energy | None = None
    """None: not asked for."""
    notes: tuple[str, ...] = ()

    @property
    def stages(self) -> tuple[StageFigures, ...]:
        """The stages that were measured."""
        return tuple(stage for stage in (self.prefill, self.decode) if stage is not None)


@frozen
class Sweep:
    """All points of a sweep, in the order in which they run."""

    sweep_id: str
    status: SweepStatus
    model: str
    """As it was asked for: a preset's name, a folder, an id."""
    weights: Literal["random weights", "checkpoint"] | None
    """None: the model was not loaded yet."""
    parameters: int | None
    """All experts included; None: the model was not loaded yet."""
    dtype: str | None
    device: str
    """As torch names it: ``cuda:0``, ``cpu``."""
    gpu_name: str | None
    """None: a CPU, or not known yet."""
    peak_flop_per_s: float | None
    """Dense, of ``dtype``; None: not known."""
    peak_bytes_per_s: float | None
    peak_how: str | None
    """spec, derived, measured or override."""
    versions: dict[str, str]
    """Of driver, CUDA, torch, transformers, python, dsocr-profiler."""
    page: str | None
    """The page that every point reads, or None where the model reads none."""
    passes: int
    """Timed passes per point."""
    window_steps: int
    """Decode steps in the recorded window."""
    budget_s: float | None
    """For the whole sweep, s; None: no bound."""
    options: dict[str, bool | int | float | str | None]
    """Further options, as resolved."""
    argv: tuple[str, ...]
    started_at: str
    """ISO 8601, UTC."""
    finished_at: str | None
    seconds: float | None
    """Wall time of the whole, of all its starts; None: it has not ended."""
    setup_s: float | None
    """Of it: start of the program, building the model, preparing inputs; of the last start."""
    points: tuple[SweepPoint, ...]
    """Those that have a result, in the order in which they ran."""
    planned: tuple[SweepSetting, ...]
    """All, in the order in which they run."""
    unfinished_because: str | None = None
    notes: tuple[str, ...] = ()
    version: int = field(default=1, validator=validators.in_((1,)))
