"""The tables of a sweep: its points, and where the limits change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from analysis.domain.annotations import Stage
from analysis.domain.sweep import StageFigures, SweepPoint
from analysis.render.spec.energy import JOULES, WATTS
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import (
    BYTES,
    COUNT,
    DURATION,
    OF_PEAK,
    RATIO,
    SHARE,
    SIGNIFICANT,
    TEXT,
    Column,
    Reader,
    Specification,
    Style,
    decimals,
)
from analysis.sweep.crossover import LARGEST_BATCH, Crossover
from analysis.sweep.series import bound_of, figures_of, spread

__all__ = ["CROSSOVERS", "SWEEP_POINTS", "prompt_tokens_of"]

_P = Column[SweepPoint]
_C = Column[Crossover]


def prompt_tokens_of(point: SweepPoint) -> int | None:
    """Positions of its prompt: those that it had or, not measured, that were asked for."""
    return point.prompt_tokens if point.prompt_tokens is not None else point.setting.prompt_tokens


def _not_measured(point: SweepPoint) -> str | None:
    return point.reason or (None if point.status == "measured" else point.status)


def _one_pass(point: SweepPoint) -> str | None:
    return _not_measured(point) or "there are fewer than three passes"


_SPREAD: Final = "(upper − lower quartile of the passes) ÷ their median."


def _stage(
    stage: Stage,
    key: str,
    label: str,
    style: Style,
    definition: str,
    value: Callable[[StageFigures], Any],
    *,
    window: bool = False,
    type_: Any = "float64",
    shown: tuple[Reader, ...] = ("html",),
    priority: int = 4,
) -> _P:
    """A column of one stage's figures."""

    def of(point: SweepPoint) -> Any:
        figures = figures_of(point, stage)
        return None if figures is None else value(figures)

    def why(point: SweepPoint) -> str | None:
        figures = figures_of(point, stage)
        if figures is None:
            return _not_measured(point) or f"there is no {stage}"
        return figures.window_unknown_because if window else figures.utilisation_unknown_because

    return _P(
        f"{stage}_{key}", f"{stage.capitalize()} {label}", type_, style, definition, value=of, nullable=True, why=why,
        shown=shown, priority=priority,
    )  # fmt: skip


def _of_stage(stage: Stage) -> tuple[_P, ...]:
    unit = "prefill of the batch" if stage == "prefill" else "decode step of the batch"
    return (
        _stage(stage, "mfu", "MFU", OF_PEAK, GLOSSARY["mfu"], lambda row: row.mfu, shown=("html", "terminal"), priority=3),
        _stage(stage, "mbu", "MBU", OF_PEAK, GLOSSARY["mbu"], lambda row: row.mbu, shown=("html", "terminal"), priority=3),
        _stage(stage, "launches", "launches", decimals(0), f"Launch calls per {unit}; a graph's launch is one.",
               lambda row: row.launches, window=True),
        _stage(stage, "busy_share", "GPU busy", SHARE, "Union of the GPU's operations ÷ unprofiled time.",
               lambda row: row.busy_share, window=True),
        _stage(stage, "bound", "verdict", TEXT, GLOSSARY["bound"], bound_of, window=True, type_="string",
               shown=("html", "markdown", "terminal"), priority=2),
        _stage(stage, "busy_ns", "GPU busy time", DURATION, f"Union of the GPU's operations, per {unit}.",
               lambda row: row.busy_ns, window=True, shown=()),
        _stage(stage, "at_best_ns", "at best", DURATION, f"What a {unit} takes if the first action brings all that it can.",
               lambda row: row.at_best_ns, window=True, shown=()),
        _stage(stage, "ideal_ns", "at the roof", DURATION, "The longer of FLOP ÷ peak and bytes ÷ bandwidth.",
               lambda row: row.ideal_ns, shown=()),
        _stage(stage, "flop", "FLOP", SIGNIFICANT, f"Needed per {unit}.", lambda row: row.flop, type_="int64", shown=()),
        _stage(stage, "weight_bytes", "weights touched", BYTES, f"Bytes of weights that a {unit} touches.",
               lambda row: row.weight_bytes, type_="int64", shown=()),
        _stage(stage, "kv_bytes", "KV cache moved", BYTES, f"Bytes of KV cache read and written per {unit}.",
               lambda row: row.kv_bytes, type_="int64", shown=()),
    )  # fmt: skip


def _memory(key: str, label: str, definition: str, shown: tuple[Reader, ...] = (), priority: int = 5) -> _P:
    return _P(
        f"{key}_bytes", label, "int64", BYTES, definition, nullable=True, shown=shown, priority=priority,
        value=lambda point: None if point.memory is None else getattr(point.memory, key),
        why=lambda point: point.memory_unknown_because or _not_measured(point),
    )  # fmt: skip


def _energy(
    key: str, label: str, style: Style, definition: str, shown: tuple[Reader, ...] = (), priority: int = 5
) -> _P:
    return _P(
        key, label, "float64", style, definition, nullable=True, optional=True, shown=shown, priority=priority,
        value=lambda point: None if point.energy is None else getattr(point.energy, key),
        why=lambda point: (
            _not_measured(point) or "not asked for (--energy)" if point.energy is None else point.energy.unknown_because
        ),
    )  # fmt: skip


SWEEP_POINTS: Final = Specification[SweepPoint](
    key="sweep_points",
    title="Points",
    rows="A point of a sweep: one batch size, input mode, context, length and decode mode.",
    columns=(
        _P("batch_size", "Batch", "int64", COUNT, "Sequences that run at once.",
           value=lambda point: point.setting.batch_size, priority=0),
        _P("input_mode", "Input", "string", TEXT, "How a page is shown to the model.",
           value=lambda point: point.setting.input_mode, priority=1),
        _P("prompt_tokens", "Prompt", "int64", COUNT, "Positions of one sequence's prompt.", value=prompt_tokens_of,
           nullable=True, priority=2),
        _P("max_new_tokens", "New tokens", "int64", COUNT, "Tokens that each sequence writes, the first included.",
           value=lambda point: point.setting.max_new_tokens, priority=4),
        _P("decode_mode", "Decode", "string", TEXT, "Each kernel launched, on a cache that grows or a static one, or a CUDA graph.",
           value=lambda point: point.setting.decode_mode, priority=0),
        _P("status", "Result", "string", TEXT, "measured, out of memory, failed or skipped.", priority=0),
        _P("ttft_ns", "TTFT", "float64", DURATION, f"{GLOSSARY['ttft']} Of the whole batch; median of the passes.",
           value=lambda point: None if point.prefill is None else point.prefill.median_ns, nullable=True, why=_not_measured,
           priority=0),
        _P("tpot_ns", "TPOT", "float64", DURATION, f"{GLOSSARY['tpot']} Median of the passes.",
           value=lambda point: None if point.decode is None else point.decode.median_ns, nullable=True, why=_not_measured,
           priority=0),
        _P("ttft_spread", "TTFT spread", "float64", RATIO, f"TTFT: {_SPREAD}", value=lambda point: spread(point.prefill),
           nullable=True, why=_one_pass, shown=("html",), priority=5),
        _P("tpot_spread", "TPOT spread", "float64", RATIO, f"TPOT: {_SPREAD}", value=lambda point: spread(point.decode),
           nullable=True, why=_one_pass, shown=("html",), priority=5),
        _P("tokens_per_s", "Tokens/s", "float64", SIGNIFICANT, "Output tokens of all sequences per second of decode: batch ÷ TPOT.",
           nullable=True, why=_not_measured, priority=0),
        _P("pages_per_min", "Pages/min", "float64", SIGNIFICANT, "Sequences per minute, prefill and decode.",
           nullable=True, why=_not_measured, priority=1),
        *_of_stage("prefill"),
        *_of_stage("decode"),
        _memory("peak_allocated", "Memory at peak", "The most that the allocator gave out at once.",
                ("html", "markdown", "terminal"), 2),
        _memory("weights", "Weights", "Parameters and buffers of the model."),
        _memory("kv_cache", "KV cache", "Keys and values when the last token was made."),
        _memory("activations", "Activations", "Peak − weights − KV cache: activations, inputs, workspaces, a graph's own memory."),
        _memory("reserved_unused", "Reserved, unused", "Held by the allocator and not used at the peak."),
        _memory("peak_reserved", "Reserved", "The most that the allocator held of the device."),
        _memory("device_total", "Device memory", "What the device has."),
        _energy("joules_per_page", "Per page", JOULES, "Energy of the board per page, prefill and decode, idle power included.",
                ("html", "markdown", "terminal"), 3),
        _energy("joules_per_token", "Per token", JOULES, "The same ÷ output tokens of a page.",
                ("html", "markdown", "terminal"), 3),
        _energy("joules_per_page_above_idle", "Per page above idle", JOULES, "Less idle power × time."),
        _energy("joules_per_token_above_idle", "Per token above idle", JOULES, "Less idle power × time."),
        _energy("idle_w", "Idle power", WATTS, "Of the board, model loaded and nothing running."),
        _P("seconds", "Took", "float64", decimals(1, "s"), "Wall time of the point, its recorded window included.",
           nullable=True, why=_not_measured, priority=6, shown=("html",)),
        _P("reason", "Why not", "string", TEXT, "Why it was not measured.", nullable=True, optional=True, priority=3),
    ),
)  # fmt: skip


_NO_POINT: Final = "no point"
_NONE: Final = f"none up to {LARGEST_BATCH:,}"


def _not_predicted(change: Crossover) -> str | None:
    return change.unknown_because or _NONE


CROSSOVERS: Final = Specification[Crossover](
    key="sweep_crossovers",
    title="Where the limit changes: predicted from one point, and measured",
    rows="A change of what limits a stage as the batch grows.",
    columns=(
        _C("stage", "Stage", "string", TEXT, GLOSSARY["stage"], priority=0),
        _C("series", "Of", "string", TEXT, "What tells the series from the others.", optional=True, priority=0),
        _C("change", "Change", "string", TEXT, "What limits before, and behind.", priority=0),
        _C("predicted", "Predicted: not before", "int64", COUNT,
           "Least batch behind the change, by the first point's times and counted FLOP and bytes, if all of the GPU's busy time "
           "grows as its roof does.", nullable=True, why=_not_predicted, priority=0),
        _C("predicted_latest", "Predicted: by", "int64", COUNT,
           "The same if only the roof grows, and what kernels take beyond it stays.", nullable=True, why=_not_predicted,
           priority=0),
        _C("measured_before", "Measured: not yet at", "int64", COUNT, "Largest batch of the sweep before the change: the GPU's "
           "busy time is below the host's time of the first point; or the verdict is memory-bound.",
           nullable=True, why=lambda _: _NO_POINT, priority=1),
        _C("measured_from", "Measured: at", "int64", COUNT, "Least batch of the sweep behind the change.",
           nullable=True, why=lambda _: _NO_POINT, priority=0),
        _C("arithmetic", "How", "string", TEXT, "The prediction with its numbers.", shown=(), priority=5),
    ),
)  # fmt: skip
