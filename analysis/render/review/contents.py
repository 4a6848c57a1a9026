"""What the page, Markdown and the terminal show of a review: tables, sentences and tiles, each made once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

from analysis.domain.figures import NOT_AVAILABLE, count, duration, rate, share, times
from analysis.efficiency.counters.actions import is_replayed
from analysis.efficiency.counters.causes import MATRIX_CATEGORIES
from analysis.render.spec.review import (
    COUNTER_FILES,
    COVERAGE,
    LOSSES,
    REVIEW_KERNELS,
    REVIEW_MODULES,
    TRAFFIC,
    kernel_lines,
    loss_lines,
    module_lines,
)
from analysis.render.spec.shown import Fact, Table, Tile, shown
from analysis.render.spec.specification import Reader
from analysis.render.spec.text import shortened, visible
from analysis.report import Report
from analysis.review import Review, StageReview, Traffic
from analysis.sums.grouping import UNATTRIBUTED

__all__ = [
    "coverage",
    "coverage_tiles",
    "files",
    "glue",
    "headline",
    "kernels",
    "lead",
    "losses",
    "modules",
    "peaks",
    "ranking",
    "traffic",
    "traffic_notes",
    "unmatched",
]


def coverage_tiles(review: Review) -> tuple[Tile, ...]:
    """For each stage, how much of its kernel time the counters cover, and how near its kernels come to their roofline."""
    found = []
    for one in review.stages:
        row = one.whole
        covered = row.covered_ns / row.total_ns if row is not None and row.total_ns else None
        found.append(
            Tile(f"Covered, {one.stage}", share(covered), "of the kernel time has counters", "", one.stage),
        )
        efficiency = (
            row.roofline_ns / row.covered_ns if row and row.roofline_ns is not None and row.covered_ns else None
        )
        each = (
            row.ceiling_ns / one.waterfall.units if row and row.ceiling_ns is not None and one.waterfall.units else None
        )
        note = (
            f"faster kernels could save at most {duration(each)} per {one.waterfall.unit}"
            if each is not None
            else "no kernel of this stage has a roofline time"
        )
        found.append(Tile(f"Of roofline, {one.stage}", share(efficiency), note, "", one.stage))
    return tuple(found)


def lead(stage: StageReview) -> str:
    """What the waterfall is of."""
    fall = stage.waterfall
    if not fall.units:
        return f"{duration(fall.profiled_ns)} under the profiler; the number of its units is not known."
    text = f"{duration(fall.per_unit_ns)} per {fall.unit} under the profiler, mean of {count(fall.units)}"
    if fall.unprofiled_ns is not None:
        text += f"; {duration(fall.unprofiled_ns)} without it (median). "
        kernels, times = (stage.whole.calls if stage.whole is not None else 0), stage.times
        text += (
            "The profiler slows the host, and the way between the nodes of a traced CUDA graph: both last longer here"
            if times is not None and is_replayed(kernels, fall, times)
            else "The profiler slows the host: its part lasts longer here"
        )
    return f"{text}. The parts add up to the measured nanoseconds; the residual is {count(fall.residual_ns)} ns."


def losses(stage: StageReview, reader: Reader) -> Table:
    """The waterfall."""
    return shown(LOSSES, loss_lines(stage.waterfall), reader, key=f"losses-{stage.stage}", total=True)


def traffic(stage: StageReview, reader: Reader) -> Table:
    """Measured beside what must be."""
    return shown(TRAFFIC, stage.traffic, reader, key=f"traffic-{stage.stage}")


def traffic_notes(review: Review, stage: StageReview) -> tuple[str, ...]:
    """Why something was not compared, each reason once; and which kernels execute more than was counted."""
    reasons = dict.fromkeys(
        f"{one.part}: n/a, {one.unknown_because}" for one in stage.traffic if one.unknown_because is not None
    )
    padded = [
        told
        for one in stage.traffic
        if one.part != "all" and one.overwork is not None and one.overwork >= _OVERWORK
        if (told := _padding(review, one, one.overwork)) is not None
    ]
    return tuple(visible(line) for line in (*reasons, *padded))


_OVERWORK: Final = 1.1
"""Executed ÷ counted, from which on the kernels are named that execute it."""
_MOST: Final = 2


def _padding(review: Review, part: Traffic, overwork: float) -> str | None:
    executed: dict[str, float] = {}
    for one in review.kernels:
        row = one.row
        if row.stage == part.stage and row.module in part.modules and row.tensor_flop:
            name = row.human_name or row.short_name
            executed[name] = executed.get(name, 0.0) + row.tensor_flop
    total = sum(executed.values())
    if not total:
        return None
    most = sorted(executed.items(), key=lambda item: (-item[1], item[0]))[:_MOST]
    told = " and ".join(f"{name} ({share(flop / total)} of them)" for name, flop in most if flop / total >= 0.01)
    return (
        f"{part.part}: its kernels execute {times(overwork, 2)} the operations that were counted: {told}. A kernel computes whole "
        "tiles, however few of their rows or columns are needed."
    )


def glue(review: Review, stage: StageReview) -> str | None:
    """What runs outside all modules with a range; None: nothing."""
    members = [one.row for one in review.kernels if one.row.stage == stage.stage and one.row.module == UNATTRIBUTED]
    whole = stage.whole.total_ns if stage.whole is not None else 0
    if not members or not whole:
        return None
    total = sum(row.total_ns for row in members)
    by_name: dict[str, int] = {}
    for row in members:
        name = row.human_name or row.short_name
        by_name[name] = by_name.get(name, 0) + row.total_ns
    most = sorted(by_name.items(), key=lambda item: (-item[1], item[0]))[: _MOST + 1]
    told = ", ".join(f"{name} {share(ns / whole)}" for name, ns in most)
    more = f", and {count(len(by_name) - len(most))} more" if len(by_name) > len(most) else ""
    products = [row for row in members if row.category in MATRIX_CATEGORIES]
    what = (
        f"{count(sum(row.calls for row in products))} of their launches are matrix products: a module without a range."
        if products
        else "None of them is a matrix product: they multiply no weights."
    )
    return visible(
        f"(unattributed): kernels outside all modules with a range, {share(total / whole)} of the stage's kernel time: "
        f"{told}{more}. {what}"
    )


def modules(review: Review, stage: str, reader: Reader) -> Table:
    """The modules of a stage."""
    return shown(REVIEW_MODULES, module_lines(review, stage), reader, key=f"review_modules-{stage}")


def ranking(review: Review, reader: Reader, limit: int) -> Table:
    """Kernels by what a faster one could save over the run."""
    return shown(REVIEW_KERNELS, kernel_lines(review, review.ranked()[:limit]), reader)


def kernels(review: Review, reader: Reader, limit: int) -> Table:
    """Kernels without a roofline time, by time."""
    rest = [one for one in review.kernels if one.row.ceiling_ns is None]
    rest.sort(key=lambda one: -one.row.total_ns)
    return shown(
        REVIEW_KERNELS,
        kernel_lines(review, rest[:limit]),
        reader,
        key="unweighed_kernels",
        title="Kernels without counters",
    )


def coverage(review: Review, reader: Reader) -> Table:
    """What the counters cover."""
    return shown(COVERAGE, review.coverage, reader)


def files(review: Review, reader: Reader) -> Table:
    """What became of the profiled kernels."""
    return shown(COUNTER_FILES, review.files, reader)


def unmatched(review: Review, limit: int = 5) -> tuple[str, ...]:
    """Names of profiled kernels that the trace does not have."""
    found = []
    for file in review.files:
        if not file.unmatched:
            continue
        some: Sequence[tuple[str, int]] = file.unmatched_names[:limit]
        told = "; ".join(f"{count(times)} × {shortened(visible(name), 90)}" for name, times in some)
        more = len(file.unmatched_names) - len(some)
        found.append(
            f"{visible(PurePath(file.source).name)}: not in the trace: {told}{f'; and {more} more names' if more > 0 else ''}"
        )
    return tuple(found)


def peaks(review: Review) -> Fact:
    """What the rooflines are made of."""
    peak = review.peak
    if peak is None:
        return Fact("Peak", f"{NOT_AVAILABLE}: {visible(review.peak_missing or 'not known')}")
    rates = [f"{dtype} {rate(value, 'FLOP/s')}" for dtype, value in peak.flop_per_s.items() if value]
    return Fact("Peak", f"{', '.join(rates)}; {rate(peak.bytes_per_s, 'B/s')} ({peak.how}: {visible(peak.source)})")


def headline(review: Review, report: Report) -> str:
    """In which stage kernels could save most of one unit of the run's work, and what to begin with there.

    The report's headline ranks what the host costs too; this one is about kernels, end to end on the same unit.
    """
    per_work = {part.stage: part.units for part in report.ranking.parts}
    saved: dict[str, float] = {}
    for stage in review.stages:
        fall = stage.waterfall
        below = sum(loss.ns for loss in fall.losses if loss.key == "below_roofline")
        if fall.units and stage.stage in per_work and below > 0:
            saved[stage.stage] = below / fall.units * per_work[stage.stage]
    if not saved or not report.ranking.time_ns:
        return "How far its kernels could get faster is not known for a whole unit of work: see each stage."
    name = max(saved, key=lambda stage: saved[stage])
    stage = next(one for one in review.stages if one.stage == name)
    first = next((action for action in stage.actions if action.kernels), None)
    begin = f", first in {' and '.join(visible(module) for module in first.modules)}" if first and first.modules else ""
    return (
        f"Start with the kernels of {visible(name)}{begin}: above their roofline they take {duration(saved[name])} of the "
        f"{duration(report.ranking.time_ns)} {report.ranking.per}."
    )
