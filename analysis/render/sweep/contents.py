"""What page, Markdown and terminal show of a sweep: title, tiles, tables and heat maps, each made once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Literal

from attrs import evolve, frozen

from analysis.domain.annotations import STAGES
from analysis.domain.energy import Energy
from analysis.domain.figures import (
    NOT_AVAILABLE,
    bytes_,
    count,
    counted,
    decimal,
    duration,
    of_peak,
    rate,
    significant,
)
from analysis.domain.sweep import StageFigures, Sweep, SweepPoint
from analysis.render.spec.energy import energy_note
from analysis.render.spec.shown import Cell, Heading, Table, Tile, shown
from analysis.render.spec.specification import Reader
from analysis.render.spec.sweep import CROSSOVERS, SWEEP_POINTS
from analysis.render.spec.text import visible
from analysis.sweep.answers import SweepAnswers
from analysis.sweep.series import bound_of, figures_of, point_words

__all__ = [
    "LIMIT_COLOURS",
    "HeatCell",
    "HeatMap",
    "arithmetic",
    "crossovers",
    "energy_notes",
    "heat_maps",
    "heat_table",
    "limit_maps",
    "peaks",
    "points",
    "ran",
    "stages_of_points",
    "tiles",
    "times_of_points",
    "title",
    "unknowns",
    "verdicts",
]

_LIMIT_WORDS: Final = {"host-bound in Python": "host: Python", "kernel-bound": "kernels", "compute-bound": "compute"}
"""Verdicts whose words are too long for a cell."""
_SHORT: Final = 24
"""Characters of a reason that has room in a cell."""

LIMIT_COLOURS: Final = {
    "launch-bound": "launching",
    "host-bound in Python": "other",
    "synchronise-bound": "synchronising",
    "memory-bound": "transfer",
    "compute-bound": "busy",
    "kernel-bound": "ideal",
    "communication-bound": "ranks",
}
"""Verdict → colour of the palette; others are ``idle``."""


def title(sweep: Sweep) -> str:
    """The model."""
    return visible(sweep.model)


def ran(sweep: Sweep) -> tuple[str, str]:
    """What was swept, and on what."""
    batches = sorted({setting.batch_size for setting in sweep.planned})
    modes = list(dict.fromkeys(setting.input_mode for setting in sweep.planned))
    decodes = list(dict.fromkeys(setting.decode_mode for setting in sweep.planned))
    tokens = sorted({setting.max_new_tokens for setting in sweep.planned})
    prompts = sorted({setting.prompt_tokens for setting in sweep.planned if setting.prompt_tokens is not None})
    of_model = [
        title(sweep),
        *([sweep.dtype] if sweep.dtype else []),
        *([sweep.weights] if sweep.weights else []),
        *([_parameters(sweep.parameters)] if sweep.parameters else []),
    ]
    swept = [
        ", ".join(of_model),
        f"batch {_listed([count(batch) for batch in batches])}",
        _listed([visible(mode) for mode in modes]),
        *([f"prompt {_listed([count(value) for value in prompts])} tokens"] if prompts else []),
        f"{_listed([count(value) for value in tokens])} new {'token' if tokens == [1] else 'tokens'}",
        f"decode {_listed([visible(mode) for mode in decodes])}",
        f"{counted(sweep.passes, 'pass', 'passes')} a point",
    ]
    named = ("driver", "cuda", "torch")
    machine = [
        visible(sweep.gpu_name or sweep.device),
        *(f"{name} {visible(sweep.versions[name])}" for name in named if sweep.versions.get(name)),
        *([f"{counted(len(sweep.points), 'point')} in {duration(sweep.seconds * 1e9)}"] if sweep.seconds else []),
        visible(sweep.started_at[:10]),
    ]
    return " · ".join(swept), " · ".join(machine)


def _parameters(number: int) -> str:
    size, word = (1e9, "billion") if number >= 1e9 else (1e6, "million")
    return f"{significant(number / size)} {word} parameters"


def _listed(values: list[str]) -> str:
    return ", ".join(values)


def tiles(answers: SweepAnswers) -> tuple[Tile, ...]:
    """The best of each figure, with the point that has it."""
    sweep = answers.sweep
    made = [
        _best(sweep, "Tokens per second", lambda point: point.tokens_per_s, significant, "decode", largest=True),
        _best(sweep, "Pages per minute", lambda point: point.pages_per_min, significant, None, largest=True),
        _best(sweep, "TTFT", lambda point: None if point.prefill is None else point.prefill.median_ns, duration, "prefill"),
        _best(sweep, "TPOT", lambda point: None if point.decode is None else point.decode.median_ns, duration, "decode"),
        _best(sweep, "MFU, prefill", lambda point: None if point.prefill is None else point.prefill.mfu, of_peak, "prefill",
              largest=True),
        _best(sweep, "MBU, decode", lambda point: None if point.decode is None else point.decode.mbu, of_peak, "decode",
              largest=True),
        _best(sweep, "Memory at peak", lambda point: None if point.memory is None else point.memory.peak_allocated, bytes_,
              None, largest=True, word="most"),
        _best(sweep, "Joules per page", lambda point: None if point.energy is None else point.energy.joules_per_page,
              lambda value: f"{significant(value)} J", None),
    ]  # fmt: skip
    return tuple(tile for tile in made if tile is not None)


def _best(
    sweep: Sweep,
    label: str,
    value: Callable[[SweepPoint], float | None],
    write: Callable[[float], str],
    stage: str | None,
    *,
    largest: bool = False,
    word: str = "best",
) -> Tile | None:
    known = [(figure, point) for point in sweep.points if (figure := value(point)) is not None]
    if not known:
        return None
    figure, point = (max if largest else min)(known, key=lambda pair: pair[0])
    return Tile(label, write(figure), f"{word} at {visible(point_words(sweep, point))}", "", stage)


def points(answers: SweepAnswers, reader: Reader) -> Table:
    """Every point, in the order of the series and of the batch; columns that are the same in all rows are left out."""
    return _points(answers, reader, ())


def times_of_points(answers: SweepAnswers) -> Table:
    """For the page, whose width has no room for all: every point with its times, verdicts, memory and energy."""
    stages = [column.key for column in SWEEP_POINTS.columns if _of_a_stage(column.key)]
    return _points(answers, "html", [*stages, "seconds"])


def stages_of_points(answers: SweepAnswers) -> Table:
    """The rest of it: utilisation, launches and the GPU's work of each stage."""
    settings = ("batch_size", "input_mode", "prompt_tokens", "max_new_tokens", "decode_mode")
    others = [
        column.key for column in SWEEP_POINTS.columns if not _of_a_stage(column.key) and column.key not in settings
    ]
    table = _points(answers, "html", [key for key in others if key not in ("ttft_spread", "tpot_spread", "seconds")])
    return evolve(table, key="sweep_stages", title="Utilisation, launches and GPU busy of each point")


def _of_a_stage(key: str) -> bool:
    """Whether a column belongs to the second table: figures of one stage but its verdict, and spreads."""
    of_stage = key.startswith(tuple(f"{stage}_" for stage in STAGES)) and key != "decode_mode"
    return (of_stage and not key.endswith("_bound")) or key.endswith("_spread")


def _points(answers: SweepAnswers, reader: Reader, leave_out: Collection[str]) -> Table:
    rows = [point for series in answers.series for point in series.points]
    settings = [point.setting for point in rows]
    same = [
        name
        for name in ("input_mode", "max_new_tokens", "decode_mode")
        if len({getattr(setting, name) for setting in settings}) < 2
    ]
    if all(point.status == "measured" for point in rows):
        same.append("status")
    # What no point knows is told once, with its reason, by `unknowns`.
    same += [column.key for column in SWEEP_POINTS.columns if all(column.value(point) is None for point in rows)]
    return shown(SWEEP_POINTS, rows, reader, leave_out=(*same, *leave_out))


def unknowns(answers: SweepAnswers) -> tuple[str, ...]:
    """What is not known of the measured points, each reason once."""
    told: dict[str, None] = {}
    for point in answers.sweep.points:
        if point.status != "measured":
            continue
        if point.memory is None and point.memory_unknown_because:
            told[f"Memory n/a: {visible(point.memory_unknown_because)}."] = None
        for stage in point.stages:
            if stage.utilisation_unknown_because:
                told[f"MFU and MBU n/a: {visible(stage.utilisation_unknown_because)}."] = None
            if stage.window_unknown_because:
                told[f"Launches, GPU busy and verdict n/a: {visible(stage.window_unknown_because)}."] = None
            elif bound_of(stage) is None and stage.sentence:
                told[f"Verdict n/a: {visible(stage.sentence)}"] = None
    return tuple(told)


def crossovers(answers: SweepAnswers, reader: Reader) -> Table:
    """Where limits change, predicted and measured."""
    table = shown(CROSSOVERS, answers.crossovers, reader)
    # Why a batch is missing is the answer here, and short: it stands in the cell.
    rows = tuple(
        tuple(evolve(cell, text=cell.hint) if cell.hint and len(cell.hint) < _SHORT else cell for cell in row)
        for row in table.rows
    )
    return evolve(table, rows=rows)


def arithmetic(answers: SweepAnswers) -> tuple[str, ...]:
    """How each change was predicted, or why it could not be."""
    return tuple(
        visible(
            f"{change.stage.capitalize()}{f', {change.series}' if change.series else ''}, {change.change}: "
            f"{change.arithmetic or f'n/a: {change.unknown_because}'}."
        )
        for change in answers.crossovers
    )


def verdicts(answers: SweepAnswers) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each measured point with the sentences of its verdicts."""
    return tuple(
        (
            visible(point_words(answers.sweep, point)),
            tuple(visible(stage.sentence) for stage in point.stages if stage.sentence),
        )
        for series in answers.series
        for point in series.measured
        if any(stage.sentence for stage in point.stages)
    )


def energy_notes(answers: SweepAnswers) -> tuple[str, ...]:
    """How energy was measured, with the idle power, or why it was not, each once."""
    every = [point.energy for point in answers.sweep.points if point.energy is not None]
    told = [energy_note(energy) for energy in every if energy.unknown_because is not None]
    for source in dict.fromkeys(energy.source for energy in every if energy.source is not None):
        same = [energy for energy in every if energy.source == source]
        idle = [energy.idle_w for energy in same if energy.idle_w is not None]
        range_ = f" Idle, model loaded: {decimal(min(idle), 1)} to {decimal(max(idle), 1)} W." if idle else ""
        told.append(f"Energy by {visible(same[0].how or source)}.{range_}")
    return tuple(dict.fromkeys(told))


# --- heat maps -------------------------------------------------------------------------------------------------------


@frozen
class HeatCell:
    """One point in a heat map."""

    text: str
    hint: str = ""
    heat: float | None = None
    """0 to 1, 1 being the best of the map; None: it has no value."""
    colour: str = ""
    """Of a limit; empty: the cell is shaded by ``heat``."""


@frozen
class HeatMap:
    """A figure over batch and series."""

    key: str
    title: str
    better: str
    """``less`` or ``more`` is better; empty: neither."""
    stage: str
    columns: tuple[str, ...]
    """Batches."""
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


@frozen
class _Figure:
    key: str
    title: str
    stage: Literal["prefill", "decode", "neither"]
    value: Callable[[SweepPoint], float | None]
    write: Callable[[float], str]
    less_is_better: bool = False


def _of(part: StageFigures | Energy | None, name: str) -> float | None:
    """A figure of a part of a point; None: it has no such part, or the figure is not known."""
    value: float | None = None if part is None else getattr(part, name)
    return value


_FIGURES: Final = (
    _Figure("tpot", "Time per output token", "decode", lambda point: _of(point.decode, "median_ns"), duration, True),
    _Figure("ttft", "Time to first token", "prefill", lambda point: _of(point.prefill, "median_ns"), duration, True),
    _Figure("tokens", "Tokens per second", "decode", lambda point: point.tokens_per_s, significant),
    _Figure("pages", "Pages per minute", "neither", lambda point: point.pages_per_min, significant),
    _Figure("mfu_prefill", "MFU of prefill", "prefill", lambda point: _of(point.prefill, "mfu"), of_peak),
    _Figure("mbu_prefill", "MBU of prefill", "prefill", lambda point: _of(point.prefill, "mbu"), of_peak),
    _Figure("mfu_decode", "MFU of decode", "decode", lambda point: _of(point.decode, "mfu"), of_peak),
    _Figure("mbu_decode", "MBU of decode", "decode", lambda point: _of(point.decode, "mbu"), of_peak),
    _Figure("joules", "Joules per page", "neither", lambda point: _of(point.energy, "joules_per_page"),
            lambda value: f"{significant(value)} J", True),
)  # fmt: skip


def heat_maps(answers: SweepAnswers) -> tuple[HeatMap, ...]:
    """A map for each figure that a point has: a row a series, a column a batch."""
    return tuple(heat for figure in _FIGURES if (heat := _heat_map(answers, figure)) is not None)


def _heat_map(answers: SweepAnswers, figure: _Figure) -> HeatMap | None:
    values = [value for point in answers.sweep.points if (value := figure.value(point)) is not None]
    if not values:
        return None
    best = min(values) if figure.less_is_better else max(values)

    def cell(point: SweepPoint) -> HeatCell:
        value = figure.value(point)
        if value is None:
            return _without(point)
        if best == 0 or value == 0:
            heat = 1.0 if value == best else 0.0
        else:
            heat = best / value if figure.less_is_better else value / best
        return HeatCell(figure.write(value), visible(point_words(answers.sweep, point)), heat)

    return HeatMap(
        figure.key,
        figure.title,
        "less" if figure.less_is_better else "more",
        figure.stage,
        *_rows(answers, cell),
    )


def limit_maps(answers: SweepAnswers) -> tuple[HeatMap, ...]:
    """What limits each stage, over series and batch."""
    maps = []
    for stage in STAGES:
        if not any(bound_of(figures_of(point, stage)) for point in answers.sweep.points):
            continue

        def cell(point: SweepPoint, stage: Literal["prefill", "decode"] = stage) -> HeatCell:
            figures = figures_of(point, stage)
            bound = bound_of(figures)
            if figures is None or bound is None:
                return _without(
                    point, "" if figures is None else figures.window_unknown_because or figures.sentence or ""
                )
            return HeatCell(
                visible(_LIMIT_WORDS.get(bound, bound.removesuffix("-bound"))),
                visible(figures.sentence or bound),
                colour=LIMIT_COLOURS.get(bound, "idle"),
            )

        maps.append(HeatMap(f"limit_{stage}", f"What limits {stage}", "", stage, *_rows(answers, cell)))
    return tuple(maps)


def _without(point: SweepPoint, why: str = "") -> HeatCell:
    if point.status == "measured":
        return HeatCell(NOT_AVAILABLE, visible(why or "not known"))
    return HeatCell(point.status, visible(point.reason or ""))


def _rows(
    answers: SweepAnswers, cell: Callable[[SweepPoint], HeatCell]
) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[HeatCell, ...]], ...]]:
    batches = sorted({point.setting.batch_size for point in answers.sweep.points})
    rows = []
    for series in answers.series:
        by_batch = {point.setting.batch_size: cell(point) for point in series.points}
        name = visible(series.label) or "all points"
        rows.append((name, tuple(by_batch.get(batch, HeatCell("", "no point yet")) for batch in batches)))
    return tuple(count(batch) for batch in batches), tuple(rows)


def heat_table(heat: HeatMap) -> Table:
    """A heat map as a plain table, for formats without shades."""
    return Table(
        heat.key,
        heat.title,
        (Heading("Batch", align="left"), *(Heading(batch) for batch in heat.columns)),
        tuple((Cell(name), *(Cell(cell.text, hint=cell.hint) for cell in cells)) for name, cells in heat.rows),
    )


def peaks(sweep: Sweep) -> str:
    """The peaks that utilisation is measured by."""
    if not sweep.peak_flop_per_s or not sweep.peak_bytes_per_s:
        return "The device's peaks are not known, so MFU, MBU and predictions are not either."
    how = f", {visible(sweep.peak_how)}" if sweep.peak_how else ""
    dtype = f" {visible(sweep.dtype)}" if sweep.dtype else ""
    return f"Peaks{how}: {rate(sweep.peak_flop_per_s, 'FLOP/s')} dense{dtype}, {rate(sweep.peak_bytes_per_s, 'B/s')}."
