"""Which module launches which kernel, in which launch shape, how often, and at what cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.attribution.intervals import sum_by_group
from analysis.attribution.vocabulary import OWN_VOCABULARY
from analysis.domain.columns import Records, Values
from analysis.domain.entities import KernelSummary
from analysis.domain.manifest import RunManifest, one_input
from analysis.domain.many_records import records_of
from analysis.sums.grouping import UNATTRIBUTED, stage_names
from analysis.sums.kernels import NO_SHAPE, duration_statistics, places_by_stage_then_time, quotients, shares, spread
from analysis.sums.records import InstanceSummary
from analysis.trace.distinct import distinct
from analysis.trace.launch_shapes import LaunchShapes
from analysis.trace.records import KERNEL

__all__ = ["KernelModuleRow", "StageUnits", "kernel_module_rows", "module_patterns", "stage_units", "unit_of_input"]

_NUMBER_IN_NAME: Final = re.compile(r"\d+")


@frozen
class StageUnits:
    """How many units of work a stage's sums are over."""

    per: str
    """``image`` or ``prompt``; ``token``, or ``step`` of a batch."""
    count: int


@frozen
class KernelModuleRow:
    """The launches of one kernel by one module in one stage. Times in integer nanoseconds."""

    stage: str
    """``prefill``, ``decode``, another kind of an engine's steps, or ``(unattributed)``."""
    module: str
    """Path of the innermost module; ``layers.*.mlp`` stands for that module of every layer (`module_patterns`)."""
    name: str
    short_name: str
    category: str
    calls: int
    total_ns: int
    mean_ns: float
    min_ns: int
    max_ns: int
    share: float | None
    """Of the stage's kernel sum."""
    human_name: str | None = None
    per: str | None = None
    """The unit of the stage's work: ``image``, ``prompt``, ``token`` or ``step``; None: the row is of no stage."""
    calls_per_unit: float | None = None
    total_per_unit_ns: float | None = None
    grid: tuple[int, int, int] | None = None
    """Blocks in x, y, z. None, like the other parts of a shape: not recorded, or not the same for all launches."""
    block: tuple[int, int, int] | None = None
    """Threads in x, y, z."""
    registers_per_thread: int | None = None
    shared_bytes: int | None = None
    """Shared memory per block, static and dynamic."""
    shapes: int = 1
    """Number of distinct launch shapes; launches whose shape is not recorded count as one."""
    paths: int = 1
    """Number of distinct module paths."""
    order: int | None = None
    """Place of its first run among the rows of its stage and module, from 0; None: a report of an older release."""


def module_patterns(paths: Iterable[str]) -> dict[str, str]:
    """Module path → the path with its numbers folded, if several paths become the same: ``layers.*.mlp``."""
    folded: dict[str, list[str]] = {}
    for path in dict.fromkeys(paths):
        folded.setdefault(_NUMBER_IN_NAME.sub("*", path), []).append(path)
    return {path: pattern if len(members) > 1 else path for pattern, members in folded.items() for path in members}


def unit_of_input(manifest: RunManifest | None, vocabulary: str) -> str:
    """What a prefill is counted by: ``image`` or ``prompt`` in our runs, ``range`` in a program that only names its stages.

    Args:
        manifest: of the run.
        vocabulary: by whose names the ranges are read.
    """
    return one_input(manifest) if manifest is not None or vocabulary == OWN_VOCABULARY else "range"


def stage_units(instances: Sequence[InstanceSummary], input_unit: str, one_step: str) -> dict[str, StageUnits]:
    """Stage → the units of work in all its instances: decode counts its steps where it has any, else instances.

    A stage of an engine counts steps.

    Args:
        instances: all stage instances.
        input_unit: what a prefill is counted by, of `unit_of_input`.
        one_step: what a decode step is counted as: ``token``, or ``step`` of a batch.
    """
    units = {}
    for stage in dict.fromkeys(instance.stage for instance in instances):
        mine = [instance for instance in instances if instance.stage == stage]
        if any(instance.composition is not None for instance in mine):
            units[stage] = StageUnits("step", len(mine))
            continue
        steps = sum(instance.steps for instance in mine) if stage == "decode" else 0
        units[stage] = StageUnits(one_step, steps) if steps else StageUnits(input_unit, len(mine))
    return units


def kernel_module_rows(
    attribution: Attribution,
    kernels: Sequence[KernelSummary],
    units: Mapping[str, StageUnits],
    *,
    fold_layers: bool = True,
    by_shape: bool = True,
) -> tuple[KernelModuleRow, ...]:
    """Sum up the kernels of each stage by module, name and launch shape; rows add up to the stage's kernels.

    The module of a kernel is the innermost one around its launch; of a kernel that a CUDA graph replays, around the
    recording of its node.

    Args:
        attribution: of the trace.
        kernels: its kernels by name, for category and short name.
        units: stage → its units of work, for calls and time per unit.
        fold_layers: fold the numbers in module paths, as `module_patterns` does within each stage.
        by_shape: a row per launch shape; else one per kernel name, with the parts that its shapes have in common.

    Returns:
        By stage, then time.
    """
    operations, stages = attribution.operations, stage_names(attribution)
    chosen = np.flatnonzero(operations.kind == KERNEL)
    if not chosen.size:
        return ()
    of_range, known_paths = attribution.module_names
    paths = (*known_paths, UNATTRIBUTED)
    module = of_range[attribution.operation_level("module")[chosen]].astype(np.int64)
    module[module < 0] = len(known_paths)
    # Kernels with one demangled name are one row, whatever string ids they came with.
    codes: dict[str, int] = {}
    name_code = np.array([codes.setdefault(name, len(codes)) for name in operations.names], dtype=np.int64)
    names = tuple(codes)
    stage_and_module = attribution.operation_stage[chosen].astype(np.int64) * len(paths) + module
    place_keys, path = distinct(stage_and_module, len(stages) * len(paths))
    places, place_names = (_folded if fold_layers else _unfolded)(place_keys, paths, stages)
    shape_codes, shape = distinct(operations.shape[chosen].astype(np.int64) + 1, len(operations.shapes) + 1)
    # Place and name first, then the shape: the product of all codes may have more cells than there are launches.
    place_and_name = places[path].astype(np.int64) * len(names) + name_code[operations.name[chosen]]
    pair_keys, pair = distinct(place_and_name, len(place_names) * len(names))
    shaped_keys, shaped = distinct(pair.astype(np.int64) * shape_codes.size + shape, pair_keys.size * shape_codes.size)
    row, row_pairs = (shaped, shaped_keys // shape_codes.size) if by_shape else (pair, np.arange(pair_keys.size))
    place_of, name_of = np.divmod(pair_keys[row_pairs], len(names))
    sums = duration_statistics(row, operations.duration[chosen], row_pairs.size)
    row_paths, _ = distinct(row.astype(np.int64) * place_keys.size + path, row_pairs.size * place_keys.size)
    paths_of = np.bincount(row_paths // place_keys.size, minlength=row_pairs.size)
    order = _order(row, operations.start[chosen], place_of)
    of_row = np.arange(row_pairs.size) if by_shape else shaped_keys // shape_codes.size
    number, parts, shape_at = _shapes_of_rows(
        operations.shapes, of_row, shape_codes[shaped_keys % shape_codes.size] - 1
    )
    stage_code = {name: code for code, name in enumerate(stages)}
    stage_of = np.array([stage_code[stage] for stage, _ in place_names], dtype=np.int64)[place_of]
    modules = [place_names[place][1] for place in place_of.tolist()]
    named = [names[name] for name in name_of.tolist()]
    rows = places_by_stage_then_time(
        stage_of.tolist(), sums.total.tolist(), modules, named,
        *(spread([value or NO_SHAPE for value in parts[name]], shape_at) for name in ("grid", "block")),
        *(spread([value or -1 for value in parts[name]], shape_at) for name in ("registers_per_thread", "shared_bytes")),
    )  # fmt: skip
    sums, stage_of = sums.of(np.array(rows)), stage_of[rows]
    known = dict(zip(Records.of(kernels).values("name"), kernels, strict=True))
    kinds = [known[named[place]] for place in rows]
    unit_at = [units.get(stage) for stage in stages]
    counted = np.array([unit.count if unit else 0 for unit in unit_at], dtype=np.int64)[stage_of]
    columns: dict[str, Values] = {
        "stage": [stages[stage] for stage in stage_of.tolist()],
        "module": [modules[place] for place in rows],
        "name": [kernel.name for kernel in kinds],
        "short_name": [kernel.short_name for kernel in kinds],
        "category": [kernel.category for kernel in kinds],
        "calls": sums.count,
        "total_ns": sums.total,
        "mean_ns": quotients(sums.total, sums.count),
        "min_ns": sums.low,
        "max_ns": sums.high,
        "share": shares(sums.total, sum_by_group(stage_of, sums.total, len(stages))[stage_of]),
        "human_name": [kernel.human_name for kernel in kinds],
        "per": [unit.per if unit else None for unit in map(unit_at.__getitem__, stage_of.tolist())],
        "calls_per_unit": shares(sums.count, counted),
        "total_per_unit_ns": shares(sums.total, counted),
        "shapes": number[rows],
        "paths": paths_of[rows],
        "order": order[rows],
        **{name: spread(values, shape_at[rows]) for name, values in parts.items()},
    }
    return records_of(KernelModuleRow, columns, len(rows))


def _shapes_of_rows(
    shapes: LaunchShapes, row: NDArray[np.int64], code: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[str, Sequence[Any]], NDArray[np.int64]]:
    """How many launch shapes each row has, and the parts in which they agree; most rows have one of few sets of shapes.

    Args:
        shapes: of the trace.
        row: of each shape of a row, in ascending order, [shapes of all rows].
        code: of that shape; -1: not recorded.

    Returns:
        Number of shapes, [rows]; name of a part → its value in each set of shapes, [sets]; each row's set, [rows].
    """
    begins = np.flatnonzero(np.diff(row, prepend=-1))
    number = np.diff(begins, append=row.size)
    codes, sets = code.tolist(), dict[tuple[int, ...], int]()
    of_rows = [
        sets.setdefault(tuple(codes[begin:end]), len(sets))
        for begin, end in zip(begins.tolist(), (begins + number).tolist(), strict=True)
    ]
    parts = zip(*(_in_common(shapes, members) for members in sets), strict=True)
    return number, dict(zip(_PARTS, parts, strict=True)), np.array(of_rows, dtype=np.int64)


def _order(row: NDArray[Any], start: NDArray[np.int64], place: NDArray[Any]) -> NDArray[np.int64]:
    """Place of each row's first launch among the rows of its place, [rows].

    Args:
        row: of each launch, [launches].
        start: of each launch on the GPU, ns, [launches].
        place: stage and module of each row, [rows].
    """
    first = np.full(place.size, np.iinfo(np.int64).max)
    np.minimum.at(first, row, start)
    by_place = np.lexsort((first, place))
    begins = np.flatnonzero(np.diff(place[by_place], prepend=-1))
    order = np.empty(place.size, dtype=np.int64)
    order[by_place] = np.arange(place.size) - np.repeat(begins, np.diff(begins, append=place.size))
    return order


_PARTS: Final = ("grid", "block", "registers_per_thread", "shared_bytes")
"""Of a launch shape, as a row has them."""


def _in_common(shapes: LaunchShapes, codes: Sequence[int]) -> tuple[Any, ...]:
    """The parts of launch shapes in which all agree, else None; a code of -1 is a shape that is not recorded."""
    if -1 in codes:
        return (None,) * len(_PARTS)
    reads: tuple[Callable[[int], Any], ...] = (shapes.grid, shapes.block, shapes.registers, shapes.shared_bytes)
    values = [{read(code) for code in codes} for read in reads]
    return tuple(variants.pop() if len(variants) == 1 else None for variants in values)


def _folded(
    keys: NDArray[np.int64], paths: Sequence[str], stages: Sequence[str]
) -> tuple[NDArray[np.int64], tuple[tuple[str, str], ...]]:
    """Stage and module path → row of the place that it folds into, [keys]; and the places as (stage, pattern)."""
    at = [divmod(key, len(paths)) for key in keys.tolist()]
    patterns = [module_patterns(paths[code] for stage, code in at if stage == number) for number in range(len(stages))]
    places: dict[tuple[str, str], int] = {}
    rows = [places.setdefault((stages[stage], patterns[stage][paths[code]]), len(places)) for stage, code in at]
    return np.array(rows, dtype=np.int64), tuple(places)


def _unfolded(
    keys: NDArray[np.int64], paths: Sequence[str], stages: Sequence[str]
) -> tuple[NDArray[np.int64], tuple[tuple[str, str], ...]]:
    at = [divmod(key, len(paths)) for key in keys.tolist()]
    places: dict[tuple[str, str], int] = {}
    rows = [places.setdefault((stages[stage], paths[code]), len(places)) for stage, code in at]
    return np.array(rows, dtype=np.int64), tuple(places)
