"""The answers of a sweep: its Pareto front, what to take for throughput and for latency, and up to where the host limits."""

from __future__ import annotations

from typing import Final

from attrs import evolve, frozen

from analysis.domain.annotations import STAGES, Stage
from analysis.domain.figures import count, counted, duration, ratio, significant, times
from analysis.domain.measures import require_possible
from analysis.domain.sweep import Sweep, SweepPoint, SweepSetting
from analysis.sweep.crossover import Crossover, crossovers
from analysis.sweep.series import SweepSeries, bound_of, figures_of, page_ns, point_words, series_of, spread

__all__ = ["SweepAnswers", "answers_of", "latency_ns", "pareto_front", "throughput"]

_FASTER: Final = 0.8
"""Of the best point's latency: what that point must not exceed."""
_NOISY: Final = 0.1
"""Spread of a point's passes from which on it is told."""
_WORTH: Final = 0.5
"""Of the best throughput: what the point for low latency must still reach to be named beside it."""


@frozen
class SweepAnswers:
    """What a sweep says."""

    sweep: Sweep
    series: tuple[SweepSeries, ...]
    front: tuple[SweepPoint, ...]
    """No other point has both a shorter time per token and more tokens a second; by latency. Without decode: pages."""
    crossovers: tuple[Crossover, ...]
    sentence: str
    """The first of every output."""
    then: tuple[str, ...]
    """What follows: where the limit changes, what did not fit, what is not known."""


def latency_ns(point: SweepPoint) -> float | None:
    """Time per output token or, of a sweep without decode, that of a batch of pages; ns. None: not measured, or 0."""
    return (point.decode.median_ns if point.decode is not None else page_ns(point)) or None


def throughput(point: SweepPoint) -> float | None:
    """Output tokens per second or, without decode, pages per minute. None: not measured, or 0."""
    return (point.tokens_per_s if point.decode is not None else point.pages_per_min) or None


def pareto_front(points: tuple[SweepPoint, ...]) -> tuple[SweepPoint, ...]:
    """Points that no other one surpasses in latency and throughput, by latency; of equal points the first."""
    known = [
        (latency, -rate, place)
        for place, point in enumerate(points)
        if point.status == "measured"
        and (latency := latency_ns(point)) is not None
        and (rate := throughput(point)) is not None
    ]
    front: list[SweepPoint] = []
    best = 0.0
    for _, negative, place in sorted(known):
        if -negative > best:
            best = -negative
            front.append(points[place])
    return tuple(front)


def answers_of(sweep: Sweep) -> SweepAnswers:
    """Read a sweep.

    Raises:
        ResultError: a figure cannot be.
    """
    series = series_of(sweep)
    front = pareto_front(sweep.points)
    changes = tuple(change for stage in reversed(STAGES) for row in series for change in crossovers(sweep, row, stage))
    answers = SweepAnswers(
        sweep=sweep,
        series=series,
        front=front,
        crossovers=changes,
        sentence=_sentence(sweep, series, front),
        then=tuple(_then(sweep, series)),
    )
    require_possible(answers, "the sweep's result")
    return answers


def _sentence(sweep: Sweep, series: tuple[SweepSeries, ...], front: tuple[SweepPoint, ...]) -> str:
    if not front:
        became = "; ".join(dict.fromkeys(f"{point.status}: {point.reason}" for point in sweep.points if point.reason))
        return f"No point was measured{f' ({became})' if became else ''}."
    best, fastest = front[-1], front[0]
    told = [f"Most throughput: {_rate(best)} at {point_words(sweep, best)}, {_latency(best)}"]
    limit = _WORTH * (throughput(best) or 0.0)
    soon = _FASTER * (latency_ns(best) or 0.0)
    middle = next(
        (point for point in front if (throughput(point) or 0.0) >= limit and (latency_ns(point) or 0.0) <= soon), best
    )
    if middle is not best:
        told.append(
            f"for {duration(latency_ns(middle))} a {_unit(middle)} take {point_words(sweep, middle)} ({_rate(middle)})"
        )
    if fastest not in (best, middle):
        told.append(f"the shortest is {duration(latency_ns(fastest))}, {point_words(sweep, fastest)}")
    of_best = next(row for row in series if best in row.points)
    limit_words = _limit_words(of_best, "decode" if best.decode is not None else "prefill")
    of = f" ({of_best.label})" if of_best.label else ""
    bound = f" {'Decode' if best.decode is not None else 'Prefill'}{of} is {limit_words}." if limit_words else ""
    return f"{'; '.join(told)}.{bound}"


def _unit(point: SweepPoint) -> str:
    return "token" if point.decode is not None else "batch of pages"


def _rate(point: SweepPoint) -> str:
    unit = "tokens/s" if point.decode is not None else "pages/min"
    return f"{significant(throughput(point))} {unit}"


def _latency(point: SweepPoint) -> str:
    return f"{duration(latency_ns(point))} a {_unit(point)}"


def _then(sweep: Sweep, series: tuple[SweepSeries, ...]) -> list[str]:
    told = _limits(series)
    told += _decode_modes(series) + _energy(sweep) + _noise(sweep) + _copies(sweep)
    missing = [point for point in sweep.points if point.status == "out of memory"]
    if missing:
        least = min(missing, key=lambda point: point.setting.batch_size)
        told.append(
            f"{counted(len(missing), 'point')} did not fit into memory, the smallest at {point_words(sweep, least)}."
        )
    failed = [point for point in sweep.points if point.status == "failed"]
    if failed:
        told.append(
            f"{counted(len(failed), 'point')} failed: {'; '.join(dict.fromkeys(str(point.reason) for point in failed))}."
        )
    skipped = [point for point in sweep.points if point.status == "skipped"]
    if skipped:
        reasons = "; ".join(dict.fromkeys(str(point.reason) for point in skipped))
        told.append(f"{counted(len(skipped), 'point')} skipped: {reasons}.")
    open_points = len(sweep.planned) - len(sweep.points)
    if open_points > 0:
        why = f" ({sweep.unfinished_because})" if sweep.unfinished_because else ""
        told.append(f"{counted(open_points, 'planned point')} without a result yet{why}.")
    return told


def _decode_modes(series: tuple[SweepSeries, ...]) -> list[str]:
    """How many more tokens a second decode from a CUDA graph, or on a static cache, gives than eager decode."""
    ratios: dict[str, list[float]] = {}
    eager = {_without_mode(point): point.tokens_per_s for row in series for point in row.measured
             if point.setting.decode_mode == "eager"}  # fmt: skip
    for row in series:
        for point in row.measured:
            base = eager.get(_without_mode(point))
            if point.setting.decode_mode != "eager" and base and point.tokens_per_s:
                ratios.setdefault(point.setting.decode_mode, []).append(point.tokens_per_s / base)
    words = {"cuda-graph": "A CUDA graph", "static": "A static cache"}
    return [
        f"{words[mode]} gives {times(min(factors), 1)} to {times(max(factors), 1)} as many tokens per second as eager decode."
        if len(factors) > 1
        else f"{words[mode]} gives {times(factors[0], 1)} as many tokens per second as eager decode."
        for mode, factors in ratios.items()
    ]


def _without_mode(point: SweepPoint) -> SweepSetting:
    return evolve(point.setting, decode_mode="eager")


def _energy(sweep: Sweep) -> list[str]:
    """From the most to the fewest joules a page."""
    known = [
        (point.energy.joules_per_page, point)
        for point in sweep.points
        if point.energy is not None and point.energy.joules_per_page is not None
    ]
    if len(known) < 2:
        return []
    (most, first), (least, last) = max(known, key=lambda pair: pair[0]), min(known, key=lambda pair: pair[0])
    return [
        f"Energy of a page: from {significant(most)} J ({point_words(sweep, first)}) down to {significant(least)} J "
        f"({point_words(sweep, last)})."
    ]


def _noise(sweep: Sweep) -> list[str]:
    """How far the passes of one point differ at most, if that is worth a word."""
    known = [
        (difference, stage.stage, point)
        for point in sweep.points
        for stage in point.stages
        if (difference := spread(stage)) is not None
    ]
    if not known:
        return []
    most, stage, point = max(known, key=lambda noted: noted[0])
    if most < _NOISY:
        return []
    return [
        f"Noise: the middle half of one point's passes spreads over up to {ratio(most)} ({stage}, {point_words(sweep, point)}); "
        "smaller differences between points may be none."
    ]


def _copies(sweep: Sweep) -> list[str]:
    """What a batch is made of, where there is one: times and bytes of different pages may be more."""
    if all(setting.batch_size == 1 for setting in sweep.planned):
        return []
    what = "prompt" if sweep.page is None else "page"
    return [
        f"A batch is copies of one {what}: in a mixture of experts all copies go to the same experts, while different {what}s "
        "may read more weights and take longer; FLOP, bytes, MFU, MBU and predictions are those of the copies."
    ]


def _limits(series: tuple[SweepSeries, ...]) -> list[str]:
    """What limits each stage over the batch, a sentence for all series of which the same is true."""
    told = []
    for stage in STAGES:
        same: dict[str, list[str]] = {}
        for row in series:
            words = _limit_words(row, stage)
            if words:
                same.setdefault(words, []).append(row.label)
        for words, labels in same.items():
            of = "" if len(labels) == len(series) else f", {'; '.join(labels)}"
            told.append(f"{stage.capitalize()}{of}: {words}.")
    return told


def _limit_words(series: SweepSeries, stage: Stage) -> str:
    """``launch-bound up to batch 8, memory-bound from 16 on``; empty: no point has a verdict."""
    verdicts = [
        (point.setting.batch_size, bound)
        for point in series.measured
        if (bound := bound_of(figures_of(point, stage))) is not None
    ]
    if not verdicts:
        return ""
    runs: list[list[tuple[int, str]]] = []
    for batch, bound in verdicts:
        if runs and runs[-1][-1][1] == bound:
            runs[-1].append((batch, bound))
        else:
            runs.append([(batch, bound)])
    first, last = verdicts[0][0], verdicts[-1][0]
    if len(runs) == 1:
        reach = f"at batch {count(first)}" if first == last else f"at every batch from {count(first)} to {count(last)}"
        return f"{runs[0][0][1]} {reach}"
    parts = [f"{runs[0][0][1]} up to batch {count(runs[0][-1][0])}"]
    parts += [f"{run[0][1]} from {count(run[0][0])} on" for run in runs[1:]]
    return ", ".join(parts)
