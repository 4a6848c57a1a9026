"""What a sweep is to do, resolved, and what its program says of each point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, cast

from attrs import evolve, field, frozen, validators

from analysis.domain.energy import Energy
from analysis.domain.entities import Dtype, ModelUnderTest
from analysis.domain.manifest import ControlPass, DecodeMode, MeasuredPeak, PromptTokens, StageCost
from analysis.domain.sweep import MemoryUse, PointStatus, SweepSetting
from runner.plan.options import Panel, option, variable_names
from runner.plan.plan import RunPlan
from runner.plan.settings import InputMode

__all__ = [
    "DECODE_MODES",
    "POINTS_FOLDER",
    "RESULT_NAME",
    "PointResult",
    "SweepPlan",
    "SweepSettings",
    "SweptModel",
    "plan_of_point",
    "point_name",
    "points_of",
    "seconds_of_like",
]

_RUN: Final[Panel] = "The run"
_MODEL: Final[Panel] = "The model"

DECODE_MODES: Final[tuple[DecodeMode, ...]] = ("eager", "static", "cuda-graph")

POINTS_FOLDER: Final = "points"
"""In a sweep's folder; it holds a folder for each point."""
RESULT_NAME: Final = "point.json"
"""In a point's folder: `PointResult`."""


@frozen
class SweepSettings:
    """What is asked of a sweep beyond its model, its page and its points."""

    # -- the run ----------------------------------------------------------------------------------------------------
    passes: int = option(5, "Timed passes of each point.", _RUN, validator=validators.ge(1))
    warmup_passes: int = option(
        1, "Passes of each point before anything is measured.", _RUN, flag="--warmup", validator=validators.ge(0)
    )
    window_steps: int = option(
        8,
        "Decode steps that are recorded behind the timed passes, for launches, GPU busy and the verdict; 0: no recording.",
        _RUN,
        validator=validators.ge(0),
    )
    measure_energy: bool = option(
        False,
        "Measure joules per page and per output token of each stage: about 7 s a point, outside the profiler.",
        _RUN,
        flag="--energy",
    )
    budget_s: float | None = option(
        None,
        "Seconds for the whole sweep; points that no time is left for are said to be skipped.",
        _RUN,
        metavar="SECONDS",
        validator=validators.optional(validators.gt(0)),
    )
    timeout_s: float | None = option(
        None,
        "Seconds after which the sweep is ended as failed.",
        _RUN,
        flag="--timeout",
        metavar="SECONDS",
        validator=validators.optional(validators.gt(0)),
    )
    grace_s: float = option(
        10.0,
        "Seconds that the program may take to end after SIGTERM.",
        _RUN,
        flag="--grace",
        metavar="SECONDS",
        validator=validators.gt(0),
    )
    seed: int = option(0, "Seed of random weights.", _RUN)

    # -- the model --------------------------------------------------------------------------------------------------
    prompt: str | None = option(None, "Text prompt (default: the model's own).", _MODEL, metavar="TEXT")
    dtype: Dtype | None = option(None, "Of weights and activations (default: bf16 on a GPU, fp32 on a CPU).", _MODEL)
    attn_implementation: str | None = option(
        None, "Attention implementation (default: sdpa).", _MODEL, flag="--attn", metavar="sdpa|eager|…"
    )
    experts_implementation: str | None = option(
        None,
        "Experts implementation (default: the model's own).",
        _MODEL,
        flag="--experts",
        metavar="grouped_mm|eager|…",
    )
    trust_remote_code: bool = option(False, "Run code that comes with a checkpoint.", _MODEL)
    random_weights: bool = option(
        False, "Make the weights up: a folder with config.json is enough. Times stay, texts mean nothing.", _MODEL
    )
    keep_env: tuple[str, ...] = option(
        (), "Name of an environment variable that the program needs; may be repeated.", _MODEL, metavar="NAME",
        validator=variable_names,
    )  # fmt: skip


@frozen
class SweepPlan:
    """``plan.json`` in a sweep's folder: what one start of its program is to do."""

    base: RunPlan
    """Model, device and page; each point changes batch, input mode, tokens and decode mode of it."""
    points: tuple[SweepSetting, ...]
    """All, in the order in which they run. Those that have a result in the folder are not run again."""
    window_steps: int
    until: float | None
    """On ``time.monotonic()``'s clock: no point begins that is not expected to be over by then, with its window recorded and
    analysed; None: no limit."""
    analysis_s: float = 0.0
    """What the analysis of a window takes behind the program, s: several run at once."""
    kind: Literal["sweep"] = field(default="sweep", validator=validators.in_(("sweep",)))


@frozen
class SweptModel:
    """``model.json`` in a sweep's folder: what the program says once the model is in memory."""

    model: ModelUnderTest
    versions: dict[str, str]
    gpu_name: str | None
    compute_capability: str | None
    measured_peak: MeasuredPeak | None
    notes: tuple[str, ...]


@frozen
class PointResult:
    """``point.json`` in a point's folder: what the program says of it, before anything is analysed."""

    setting: SweepSetting
    status: PointStatus
    reason: str | None = None
    seconds: float | None = None
    """Wall time of its timed part."""
    prompt: PromptTokens | None = None
    passes: tuple[ControlPass, ...] = ()
    costs: tuple[StageCost, ...] = ()
    """What one pass needs."""
    costs_unknown_because: str | None = None
    memory: MemoryUse | None = None
    memory_unknown_because: str | None = None
    energy: Energy | None = None
    window: ControlPass | None = None
    """The recorded pass, as the program timed it; None: there is no recording (yet)."""
    window_costs: tuple[StageCost, ...] = ()
    """What the recorded pass needs."""
    window_seconds: float = 0.0
    window_unknown_because: str | None = None
    for_lack_of_time: bool = False
    """It was left out because no time was left for it."""
    notes: tuple[str, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether trying again would give the same: a point that failed or was left out may go well the next time."""
        return self.status in ("measured", "out of memory")


def points_of(
    batch_sizes: Sequence[int],
    input_modes: Sequence[str],
    max_new_tokens: Sequence[int],
    prompt_tokens: Sequence[int | None],
    decode_modes: Sequence[DecodeMode],
) -> tuple[SweepSetting, ...]:
    """Every combination, the most informative first.

    The first of all input modes, tokens and contexts gets its whole line of batches before the next begins; along a line the
    batch grows, and each batch decodes in every mode before the next: so whatever ends a sweep early, what is there can be
    compared.
    """
    return tuple(
        SweepSetting(batch, mode, new_tokens, context, decode)
        for context in dict.fromkeys(prompt_tokens)
        for new_tokens in dict.fromkeys(max_new_tokens)
        for mode in dict.fromkeys(input_modes)
        for batch in sorted(set(batch_sizes))
        for decode in dict.fromkeys(decode_modes)
    )


def point_name(setting: SweepSetting) -> str:
    """Name of a point's folder: ``b4_gundam_64tok_cuda-graph``."""
    context = "" if setting.prompt_tokens is None else f"_{setting.prompt_tokens}ctx"
    return f"b{setting.batch_size}_{setting.input_mode}_{setting.max_new_tokens}tok{context}_{setting.decode_mode}"


def plan_of_point(plan: SweepPlan, setting: SweepSetting) -> RunPlan:
    """The run that a point is: that of `SweepPlan.base` with the point's own settings."""
    base = plan.base
    name = point_name(setting)
    return evolve(
        base,
        run_id=f"{base.run_id}-{name}",
        run_dir=f"{base.run_dir}/{POINTS_FOLDER}/{name}",
        request=evolve(base.request, max_new_tokens=setting.max_new_tokens),
        settings=evolve(
            base.settings,
            batch_size=setting.batch_size,
            decode_mode=setting.decode_mode,
            input_mode=cast(InputMode, setting.input_mode),  # checked against the model's before anything is started
            ignore_eos=True,
        ),
    )


def seconds_of_like(setting: SweepSetting, seconds: Mapping[SweepSetting, float]) -> float | None:
    """How long a point will take at most, by the last one of its decode mode (else the last one of all).

    A larger batch takes at most as much longer as it is larger, and more tokens as many times longer as they are more.

    Args:
        setting: of the point.
        seconds: of points that are over, in the order in which they ran.

    Returns:
        Seconds; None: nothing is over yet.
    """
    alike = [done for done in seconds if done.decode_mode == setting.decode_mode] or list(seconds)
    if not alike:
        return None
    last = alike[-1]
    larger = max(1.0, setting.batch_size / last.batch_size)
    return seconds[last] * larger * max(1.0, setting.max_new_tokens / last.max_new_tokens)
