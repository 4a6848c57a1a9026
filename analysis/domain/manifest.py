"""The run manifest: what the runner knows and a trace cannot tell. Lives in ``run.json`` and as a mark in the trace."""

from __future__ import annotations

from typing import Literal, TypeAlias

from attrs import field, frozen, validators

from analysis.domain.annotations import Stage
from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.energy import Energy
from analysis.domain.entities import InputSet, ModelUnderTest, RunMeta
from analysis.domain.predictions import Prediction

__all__ = [
    "Collector",
    "ComponentCost",
    "ControlPass",
    "DecodeMode",
    "DeviceState",
    "ExitCodes",
    "MeasuredPeak",
    "Overhead",
    "PhaseTime",
    "PromptTokens",
    "Resumption",
    "RunManifest",
    "RunStatus",
    "StageCost",
    "one_input",
    "ran_on_cpu",
]

Collector: TypeAlias = Literal["nsys", "torch"]
DecodeMode: TypeAlias = Literal["eager", "static", "cuda-graph"]
RunStatus: TypeAlias = Literal["queued", "running", "complete", "failed", "timed_out", "interrupted", "cancelled"]


@frozen
class PromptTokens:
    """What one image of the input set becomes."""

    image_index: int
    mode: str
    """Input mode: tiny, small, base, large, gundam – or ``text`` where the model takes no image."""
    tiles: int
    """Local views beside the global one (0 outside gundam)."""
    image_tokens: int
    text_tokens: int
    prompt_tokens: int
    """Positions of the prefill: image_tokens + text_tokens."""
    expected_new_tokens: int | None = None
    """Tokens that the control run generated (greedy: the capture must generate the same)."""


@frozen
class ComponentCost:
    """What one component of the model needs in one stage instance, multiply-add counted as 2.

    FLOP counts are whole-stage sums for one image; bytes are those that must cross the memory bus at least once.
    """

    component: str
    """sam, clip, projector, attention_projections, attention_scores, dense_mlp, routed_experts, shared_experts,
    router, lm_head, embedding, other."""
    flop: int
    """Attention causal-exact in the decoder; bidirectional towers full."""
    flop_full: int
    """Attention over the full square, as FLOP counters give it."""
    weight_bytes: int
    """Weights touched: active experts only; once per step in decode."""
    kv_read_bytes: int = 0
    kv_write_bytes: int = 0


@frozen
class StageCost:
    """What one stage instance (image × stage) needs. Batch included."""

    stage: Stage
    image_index: int
    tokens: int
    """Prompt tokens for prefill; steps for decode."""
    context_first: int
    """Context length of the first step (prefill: 0)."""
    context_last: int
    components: tuple[ComponentCost, ...]
    source: str = "counter"
    """``counter`` (counted on the meta device at the real shapes) or ``closed form``."""


@frozen
class ControlPass:
    """One image of one unprofiled pass."""

    pass_index: int
    image_index: int
    prefill_ns: int
    """Tensors on the device → first token on the host. TTFT, reading and tokenising excluded."""
    decode_ns: int
    """First → last token on the host; 0 if there was one token only."""
    new_tokens: int
    """Tokens generated, the first one (prefill's) included."""
    step_ns: tuple[int, ...] = ()
    """One per decode step: inter-token latencies."""

    @property
    def steps(self) -> int:
        """Decode steps: every token but the first."""
        return max(0, self.new_tokens - 1)

    @property
    def step_mean_ns(self) -> float | None:
        """TPOT: decode time ÷ (tokens − 1); None: it made no token in decode."""
        return self.decode_ns / self.steps if self.steps and self.decode_ns > 0 else None


@frozen
class Overhead:
    """What profiling cost in one stage (see `analysis.domain.overhead`)."""

    stage: Stage
    unprofiled_ms: float
    """Median over the control run's passes over the images that were captured too."""
    profiled_ms: float
    """Median over the captured passes over the same images."""
    factor: float
    """profiled ÷ unprofiled."""
    per: str
    """``image``, ``prompt`` (of a model that reads no images), ``token``, or ``step`` of a batch."""
    timed_by: Literal["program", "trace"] = "program"
    """What timed the captured passes: the program itself, as it timed the control run, or the trace's ranges."""


@frozen
class DeviceState:
    """What the driver says of the device at one moment."""

    when: Literal["before", "after"]
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None


@frozen
class MeasuredPeak:
    """What a matrix product and a copy reached on this device, measured and not specified."""

    dtype: str
    flop_per_s: float
    bytes_per_s: float
    how: str


@frozen
class PhaseTime:
    """How long one phase of the run took, by the wall clock. Phases of different programs may overlap."""

    program: Literal["launcher", "control", "capture"]
    step: str
    """preflight, pages, export, report; start, model, inputs, warm-up, passes, energy, counting, collection, end. program: all of
    a program that tells no steps, its control runs together."""
    start_s: float
    """Since the run began or, of a step that ``resume`` repeated, since it was taken up again."""
    seconds: float


@frozen
class ExitCodes:
    """Exit codes of each step, None where it was not reached. Negative: ended by that signal."""

    control: int | None = None
    child: int | None = None
    nsys: int | None = None
    export: int | None = None
    analysis: int | None = None


@frozen
class Resumption:
    """What came of the last time that ``dsocr-profile resume`` took a run up again."""

    at: str
    """UTC, ISO 8601."""
    error: str | None
    """In the words that it ended with; None: the report was made."""


def ran_on_cpu(manifest: RunManifest) -> bool:
    """Whether the run was meant for a CPU: then a trace by Nsight Systems holds ranges and no GPU work."""
    return manifest.request.device == "cpu" or (manifest.model is not None and manifest.model.device == "cpu")


def one_input(manifest: RunManifest | None) -> str:
    """What a prefill is counted by: ``image``, or ``prompt`` where the run is known to read none."""
    reads_text_only = (
        manifest is not None and manifest.prompts and not any(prompt.image_tokens for prompt in manifest.prompts)
    )
    return "prompt" if reads_text_only else "image"


@frozen
class RunManifest:
    """Everything about one run."""

    run_id: str
    status: RunStatus
    request: LLMProfileRequest
    collector: Collector
    meta: RunMeta
    manifest_version: int = field(default=1, validator=validators.in_((1,)))
    model: ModelUnderTest | None = None
    input_set: InputSet | None = None
    prompts: tuple[PromptTokens, ...] = ()
    batch_size: int = 1
    capture_passes: int = 1
    """How often the input set runs inside the capture."""
    decode_mode: DecodeMode = "eager"
    """Each kernel launched, on a cache that grows or on one of fixed size; or the latter replayed from a CUDA graph."""
    annotation_level: str = "modules"
    """stages, modules or operators."""
    preset: str | None = None
    options: dict[str, bool | int | float | str | None] = field(factory=dict)
    """Resolved options of the command line that no other field holds."""
    argv: tuple[str, ...] = ()
    """The profiled command, secrets redacted."""
    versions: dict[str, str] = field(factory=dict)
    """Of nsys, driver, CUDA, torch, transformers, nvtx, python, dsocr-profiler."""
    device_states: tuple[DeviceState, ...] = ()
    costs: tuple[StageCost, ...] = ()
    costs_unknown_because: str | None = None
    measured_peak: MeasuredPeak | None = None
    energy: Energy | None = None
    """Of each stage, from loops outside the profiler; None: not asked for."""
    peak_memory_bytes: int | None = None
    """The most that torch's allocator had given out at once in the control passes; None: not on a GPU, or not recorded."""
    control: tuple[ControlPass, ...] = ()
    profiled: tuple[ControlPass, ...] = ()
    """The captured passes, timed by the program itself (absent in the mark, which is written before them)."""
    overhead: tuple[Overhead, ...] = ()
    """What profiling cost, from ``control`` and ``profiled`` by `analysis.domain.overhead`."""
    exit_codes: ExitCodes = field(factory=ExitCodes)
    error: str | None = None
    """The first one, with ``status``: what a later ``resume`` meets is in ``resumed``."""
    partial: str | None = None
    """What ended the captured program before it was through, in words, such as ``--timeout 60``; None: it came to its end."""
    resumed: Resumption | None = None
    synchronises: tuple[str, ...] = ()
    """Where the loop waits for the device, in words."""
    notes: tuple[str, ...] = ()
    finished_at: str | None = None
    phases: tuple[PhaseTime, ...] = ()
    """Where the run's own time went."""
    predictions: tuple[Prediction, ...] = ()
    """What the last run of the same work before this one said that could be gained at best (`analysis.domain.predictions`)."""
