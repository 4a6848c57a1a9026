"""What to do first about a stage: which modules and kernels, the arithmetic, and the most that it could bring.

Kernels of a module are taken together as far as one change would serve all of them: small kernels that wait (fuse them),
kernels that fill the device and only move data (fuse them into their neighbours), matrix kernels below their roofline
(another kernel or a larger batch), and matrix kernels without tensor cores. The host is one action of its own. Ceilings
of different actions may overlap: what the host hides cannot be saved twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from attrs import frozen

from analysis.domain.figures import Difference, bytes_, count, decimal, difference, duration, flop, ratio
from analysis.efficiency.counters.causes import MATRIX_CATEGORIES, Diagnosis
from analysis.efficiency.counters.roofline import RooflineRow
from analysis.efficiency.counters.waterfall import ENOUGH, Waterfall
from analysis.efficiency.records import UnitTimes
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.kernel_classes import is_communication

__all__ = ["Action", "ReviewedKernel", "first_actions", "is_replayed"]

_REPLAYED: Final = 0.1
"""Fewer launch calls than this part of the kernels: CUDA graphs bring them."""
_NAMED: Final = 2
"""Kernels that an action names; the others are counted."""


@frozen
class ReviewedKernel:
    """A row and its diagnosis."""

    row: RooflineRow
    diagnosis: Diagnosis


@frozen
class Action:
    """Something to do, with the most that it can bring."""

    stage: str
    modules: tuple[str, ...]
    kernels: tuple[str, ...]
    """Full names of the kernels that it concerns, by time; empty: it concerns the host."""
    sentence: str
    arithmetic: str
    ceiling_ns: int
    """Over the capture."""
    ceiling_per_unit_ns: float | None
    unit: str


def first_actions(
    kernels: Sequence[ReviewedKernel], waterfall: Waterfall, times: UnitTimes | None, limit: int = 3
) -> tuple[Action, ...]:
    """The actions of a stage that could bring most.

    Args:
        kernels: of the stage.
        waterfall: of the stage.
        times: of one unit; None: not known.
        limit: how many.
    """
    groups: dict[tuple[str, ...], list[ReviewedKernel]] = {}
    for one in kernels:
        kind = _kind(one)
        if kind is not None:
            identity = (kind, one.row.module, *((one.row.short_name,) if kind in ("matrix", "no tensor cores") else ()))
            groups.setdefault(identity, []).append(one)
    found = [_ACTIONS[identity[0]](members, waterfall) for identity, members in groups.items()]
    found += _idle(kernels, waterfall, times)
    ranked = sorted((one for one in found if one.ceiling_ns > 0), key=lambda one: (-one.ceiling_ns, one.sentence))
    return tuple(ranked[:limit])


def _kind(kernel: ReviewedKernel) -> str | None:
    row, diagnosis = kernel.row, kernel.diagnosis
    if is_communication(row.category):
        return None
    if any(cause.kind == "no tensor cores" for cause in diagnosis.causes):
        return "no tensor cores"
    if row.category in MATRIX_CATEGORIES:
        return "matrix" if row.ceiling_ns is not None else None
    return "traffic" if diagnosis.label == "bandwidth" or (row.waves or 0.0) >= 1 else "small"


def _rows(members: Sequence[ReviewedKernel]) -> list[RooflineRow]:
    return sorted((one.row for one in members), key=lambda row: (-row.total_ns, row.name))


def _named(rows: Sequence[RooflineRow]) -> list[tuple[str, list[RooflineRow]]]:
    """Rows by what their kernel does, most time first."""
    by: dict[str, list[RooflineRow]] = {}
    for row in rows:
        by.setdefault(row.human_name or row.short_name, []).append(row)
    return sorted(by.items(), key=lambda item: -sum(row.total_ns for row in item[1]))


def _per_unit(value: float, waterfall: Waterfall) -> float | None:
    return value / waterfall.units if waterfall.units else None


def _often(calls: int, waterfall: Waterfall) -> str:
    each = _per_unit(calls, waterfall)
    if each is None:
        return f"{count(calls)} launches"
    shown = count(round(each)) if abs(each - round(each)) < 0.005 else decimal(each, 2)
    return f"{shown} launches per {waterfall.unit}"


def _where(rows: Sequence[RooflineRow]) -> str:
    module = rows[0].module
    return "outside all modules" if module == UNATTRIBUTED else module


def _time(ns: float, waterfall: Waterfall) -> str:
    each = _per_unit(ns, waterfall)
    return f"{duration(ns)} in all" if each is None else f"{duration(each)} per {waterfall.unit}"


def _action(rows: Sequence[RooflineRow], waterfall: Waterfall, sentence: str, arithmetic: str, ceiling: int) -> Action:
    return Action(
        stage=waterfall.stage,
        modules=tuple(dict.fromkeys(row.module for row in rows)),
        kernels=tuple(dict.fromkeys(row.name for row in rows)),
        sentence=sentence,
        arithmetic=arithmetic,
        ceiling_ns=ceiling,
        ceiling_per_unit_ns=_per_unit(ceiling, waterfall),
        unit=waterfall.unit,
    )


def _described(row_group: tuple[str, list[RooflineRow]], waterfall: Waterfall) -> str:
    name, rows = row_group
    calls, time = sum(row.calls for row in rows), sum(row.total_ns for row in rows)
    blocks = sorted({row.grid[0] * row.grid[1] * row.grid[2] for row in rows if row.grid is not None})
    grid = ""
    if blocks:
        low, high = count(blocks[0]), count(blocks[-1])
        grid = f" on {low} {'block' if blocks[-1] == 1 else 'blocks'}" if low == high else f" on {low} to {high} blocks"
    return f"{_often(calls, waterfall)} of {name} ({duration(time / calls)} each{grid})"


def _small(members: Sequence[ReviewedKernel], waterfall: Waterfall) -> Action:
    rows = _rows(members)
    groups = _named(rows)
    told = "; ".join(_described(one, waterfall) for one in groups[:_NAMED])
    others = groups[_NAMED:]
    if others:
        calls = sum(row.calls for _, some in others for row in some)
        told += f"; and {_often(calls, waterfall)} of {len(others)} other small kernels"
    total, covered = sum(row.total_ns for row in rows), sum(row.covered_ns for row in rows)
    roofline = sum(row.roofline_ns or 0 for row in rows)
    parts, per, at_most = _subtraction(total, roofline, waterfall)
    why = (
        "Each waits for latencies, not for bandwidth or arithmetic"
        if covered >= ENOUGH * total
        else "None has the blocks to fill the device"
    )
    sentence = f"{_where(rows)} runs {told}. {why}: fuse them with each other and with their neighbours; {at_most}."
    arithmetic = f"{parts.whole} − {parts.part} at their roofline = {parts.rest}{per}"
    if covered < total:
        arithmetic += f"; {ratio(1 - covered / total)} of the time has no counters and counts in full"
    return _action(rows, waterfall, sentence, arithmetic, total - roofline)


def _subtraction(whole_ns: float, part_ns: float, waterfall: Waterfall) -> tuple[Difference, str, str]:
    """``whole − part = rest`` of a unit, what a unit is (`` per token``), and the rest as a ceiling in words."""
    units = waterfall.units or 1
    parts = difference(whole_ns / units, part_ns / units)
    per = f" per {waterfall.unit}" if waterfall.units else " in all"
    return parts, per, f"at most {parts.rest}{per}"


def _traffic(members: Sequence[ReviewedKernel], waterfall: Waterfall) -> Action:
    rows = _rows(members)
    groups = _named(rows)
    told = "; ".join(_described(one, waterfall) for one in groups[:_NAMED])
    if len(groups) > _NAMED:
        told += f"; and {len(groups) - _NAMED} more kinds"
    told += _concentrated(rows, waterfall)
    moved = sum(row.dram_bytes or 0.0 for row in rows)
    total, covered = sum(row.total_ns for row in rows), sum(row.covered_ns for row in rows)
    amount = _per_unit(moved, waterfall)
    per = f" per {waterfall.unit}" if amount is not None else ""
    at_peak = sum((row.dram_share or 0.0) * row.covered_ns for row in rows) / covered if covered else None
    how_fast = "" if at_peak is None else f", at {ratio(at_peak)} of peak bandwidth"
    sentence = (
        f"{_where(rows)} runs {told}. They do little more than move data{how_fast}: fuse them into the kernels around them, so "
        f"that the data stay on the chip; at most {_time(total, waterfall)}."
    )
    arithmetic = f"all of their time, {_time(total, waterfall)}; no counters say how much they move"
    if covered:
        shown = bytes_(moved if amount is None else amount)
        arithmetic = f"{shown}{per} from and to DRAM in {_time(covered, waterfall)}; all of their time, {_time(total, waterfall)}"
    return _action(rows, waterfall, sentence, arithmetic, total)


_MOST_OF_IT: Final = 0.4
_FEW: Final = 0.25


def _concentrated(rows: Sequence[RooflineRow], waterfall: Waterfall) -> str:
    """Which launch shapes take much of the time with few of the launches; empty: the time is spread."""
    total, calls = sum(row.total_ns for row in rows), sum(row.calls for row in rows)
    some: list[RooflineRow] = []
    for row in rows:
        some.append(row)
        if sum(one.total_ns for one in some) >= _MOST_OF_IT * total:
            break
    launched = sum(row.calls for row in some)
    if len(some) == len(rows) or launched > _FEW * calls or any(row.grid is None for row in some):
        return ""
    sizes = sorted({row.grid[0] * row.grid[1] * row.grid[2] for row in some if row.grid is not None})
    *before, last = (count(size) for size in sizes)
    blocks = f"{', '.join(before)} and {last}" if before else last
    time = _time(sum(row.total_ns for row in some), waterfall)
    return f"; of all these {_often(launched, waterfall)} on {blocks} blocks take {time}"


def _matrix(members: Sequence[ReviewedKernel], waterfall: Waterfall) -> Action:
    rows = _rows(members)
    covered = sum(row.covered_ns for row in rows)
    roofline = sum(row.roofline_ns or 0 for row in rows)
    bound = max(rows, key=lambda row: row.roofline_ns or 0).bound or "DRAM"
    name = rows[0].human_name or rows[0].short_name
    why = next(
        (
            cause.sentence
            for one in members
            for cause in one.diagnosis.causes
            if cause.kind in ("small grid", "last wave")
        ),
        "",
    )
    ceiling = covered - roofline
    reached = ratio(roofline / covered if covered else None)
    parts, per, at_most = _subtraction(covered, roofline, waterfall)
    how = "Try another kernel or tile, or more rows per launch (batch)"
    if rows[0].category == "attention" and all((row.waves or 0.0) >= 1 for row in rows):
        # It reads no weights that more rows would share, and fills the device.
        how = "Try another kernel, or give it less to read beside queries, keys and values (a bias, a mask)"
    sentence = (
        f"{_where(rows)}: {_often(sum(row.calls for row in rows), waterfall)} of {name} reach {reached} "
        f"of their roofline ({bound}){f'; {why}' if why else ''}. {how}; {at_most}."
    )
    units = waterfall.units or 1
    moved, computed = sum(row.dram_bytes or 0 for row in rows), sum(row.tensor_flop or 0 for row in rows)
    work = f"{bytes_(moved / units)} and {flop(computed / units)} on tensor cores"
    arithmetic = f"{parts.whole} − {parts.part} for {work} at peak = {parts.rest}{per}"
    return _action(rows, waterfall, sentence, arithmetic, ceiling)


def _no_tensor_cores(members: Sequence[ReviewedKernel], waterfall: Waterfall) -> Action:
    rows = _rows(members)
    total, covered = sum(row.total_ns for row in rows), sum(row.covered_ns for row in rows)
    memory = sum(round((row.dram_share or 0.0) * row.covered_ns) for row in rows)
    ceiling = max(0, covered - memory)
    parts, per, at_most = _subtraction(covered, covered - ceiling, waterfall)
    name = rows[0].human_name or rows[0].short_name
    sentence = (
        f"{_where(rows)}: {_often(sum(row.calls for row in rows), waterfall)} of {name} make their "
        f"products on CUDA cores ({_time(total, waterfall)}): use a type and a kernel with tensor cores (bf16, or tf32 allowed); "
        f"{at_most}."
    )
    computed = flop(sum(row.cuda_flop or 0.0 for row in rows) / (waterfall.units or 1))
    arithmetic = (
        f"{computed} on CUDA cores; {parts.whole} − {parts.part} for its DRAM traffic at peak = {parts.rest}{per}"
    )
    return _action(rows, waterfall, sentence, arithmetic, ceiling)


_ACTIONS: Final[dict[str, Callable[[Sequence[ReviewedKernel], Waterfall], Action]]] = {
    "small": _small,
    "traffic": _traffic,
    "matrix": _matrix,
    "no tensor cores": _no_tensor_cores,
}


def _idle(kernels: Sequence[ReviewedKernel], waterfall: Waterfall, times: UnitTimes | None) -> list[Action]:
    """What to do about the GPU's idle time: launches one by one are one matter, replays of a CUDA graph are two."""
    lost = {one.key: one.ns for one in waterfall.losses}
    host, gaps = lost.get("host", 0), lost.get("gaps", 0)
    calls: dict[str, int] = {}
    for one in kernels:
        calls[one.row.module] = calls.get(one.row.module, 0) + one.row.calls
    if host + gaps <= 0 or not calls:
        return []
    total = sum(calls.values())
    most = sorted((item for item in calls.items() if item[0] != UNATTRIBUTED), key=lambda item: -item[1])[:_NAMED]
    modules = tuple(module for module, _ in most)
    where = " and ".join(f"{module} makes {ratio(launched / total)}" for module, launched in most)
    of_which = f", of which {where}" if where else ""
    each = _per_unit(total, waterfall)
    if times is None or each is None or not is_replayed(total, waterfall, times):
        how = (
            "Replay the step as a CUDA graph, or compile it"
            if waterfall.stage == "decode"
            else "Compile it, or batch inputs, so that each launch brings more work"
        )
        said = f"The GPU waits for the host and for launches: {_often(total, waterfall)}{of_which}. {how}"
        return [_waiting(waterfall, times, modules, said, host + gaps, 0)]
    replays = decimal(times.launches, 1).removesuffix(".0")
    brought = f"{replays} {'launch brings' if replays == '1' else 'launches bring'} {count(round(each))} kernels"
    nodes = f"{count(round(each))} kernels per {waterfall.unit}"
    within = (
        f"Inside the replayed graph {nodes} follow each other{of_which}, and the GPU is idle from one to the next. "
        "Fewer and larger kernels: fuse them"
    )
    if times.unprofiled_ns is not None and gaps > max(0.0, times.unprofiled_ns - times.busy_ns) * (
        waterfall.units or 1
    ):
        # Traced, the nodes alone wait for longer than there is idle time without the profiler: it cannot be split.
        said = (
            f"The GPU is idle between the {nodes} of the replayed graph{of_which}, and between replays; traced node by node "
            "both last longer, so that they are not told apart. Fewer and larger kernels: fuse them; and keep the host ahead "
            "(no synchronise before the next launch)"
        )
        return [_waiting(waterfall, times, modules, said, host + gaps, 0)]
    between = (
        f"The GPU waits between replays: {brought} per {waterfall.unit}. Keep the host ahead (no synchronise before the next "
        "launch)"
    )
    return [
        _waiting(waterfall, None, modules, within, gaps, 0),
        _waiting(waterfall, times, modules, between, host, gaps),
    ]


def is_replayed(kernels: int, waterfall: Waterfall, times: UnitTimes) -> bool:
    """Whether CUDA graphs bring a stage's kernels: it has far fewer launch calls."""
    return bool(waterfall.units) and times.launches < _REPLAYED * kernels / (waterfall.units or 1)


def _waiting(
    waterfall: Waterfall, times: UnitTimes | None, modules: tuple[str, ...], said: str, idle_ns: int, rest_ns: int
) -> Action:
    """An action about idle time, whose ceiling is the unprofiled one where a control run tells it.

    Args:
        waterfall: of the stage.
        times: of a unit; None: the idle time is the GPU's, between nodes of a graph, and no longer than without the profiler.
        modules: that it concerns.
        said: what to do.
        idle_ns: under the profiler, over the capture.
        rest_ns: idle time that another action is about.
    """
    units = waterfall.units
    if times is not None and times.unprofiled_ns is not None and units:
        busy = min(times.busy_ns + rest_ns / units, times.unprofiled_ns)
        parts, per, at_most = _subtraction(times.unprofiled_ns * units, busy * units, waterfall)
        ceiling = (times.unprofiled_ns - busy) * units
        what = "GPU busy and gaps" if rest_ns else "GPU busy"
        arithmetic = f"{parts.whole} without the profiler − {parts.part} {what} = {parts.rest}{per}"
    else:
        whole = waterfall.profiled_ns
        parts, per, at_most = _subtraction(whole, whole - idle_ns, waterfall)
        ceiling = float(idle_ns)
        slows = "" if times is None else ", which slows the host,"
        arithmetic = f"{parts.whole} under the profiler{slows} − {parts.part} outside these waits = {parts.rest}{per}"
    return Action(
        stage=waterfall.stage,
        modules=modules,
        kernels=(),
        sentence=f"{said}; {at_most}.",
        arithmetic=arithmetic,
        ceiling_ns=round(ceiling),
        ceiling_per_unit_ns=_per_unit(ceiling, waterfall),
        unit=waterfall.unit,
    )
