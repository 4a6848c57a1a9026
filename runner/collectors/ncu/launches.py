"""What will be profiled, known before: the launches of the run's first prefill and first decode step, from its trace."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

from attrs import frozen

from analysis.domain.annotations import DECODE_STEP, PREFILL, STAGE_DOMAIN, STAGES, Stage
from analysis.domain.errors import RequestError
from runner.collectors.ncu.command import LONGEST_FILTER, kernel_filter

__all__ = ["Configuration", "StageLaunches", "choose_kernels", "first_launches"]

_RANGE: Final[dict[Stage, str]] = {"prefill": PREFILL, "decode": DECODE_STEP}


_Seen: TypeAlias = tuple[str, tuple[int, int, int], tuple[int, int, int], int]
"""What ncu tells two launches apart by: function, grid, block, shared memory."""


@frozen
class Configuration:
    """One kernel with one launch shape."""

    symbol: str
    """Mangled."""
    function: str
    """Its base name, without namespaces and template arguments."""
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int


@frozen
class StageLaunches:
    """The kernels of a stage's first instance: a prefill, or a decode step."""

    stage: Stage
    launches: int
    duration_ns: dict[Configuration, int]
    """GPU time of each configuration in the instance."""
    graph: bool = False
    """Launched out of a CUDA graph, at least in part."""


def first_launches(trace: Path) -> tuple[StageLaunches, ...]:
    """Read the first prefill and the first decode step of a trace that nsys recorded.

    Raises:
        RequestError: it is no such trace, or has no prefill with kernels.
    """
    try:
        connection = sqlite3.connect(f"{trace.resolve().as_uri()}?mode=ro", uri=True)
        try:
            stages = _read(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise RequestError(
            f"{trace}: is no trace whose launches can be profiled again ({error}); record one with --collector nsys"
        ) from error
    if not stages:
        raise RequestError(f"{trace}: has no prefill or decode step with kernels in it, so there is nothing to review")
    return stages


def choose_kernels(stages: Sequence[StageLaunches], wanted: int) -> tuple[tuple[str, ...], int]:
    """Choose the kernels that explain most of their stage's GPU time for what it costs to profile them.

    A filter takes names, so with a kernel come all its launch shapes: what counts is its share of each stage's GPU time
    for every configuration that has to be profiled. Of kernels that have function and launch shape in common ncu 2025.3
    profiles only the first that is launched (seen on elementwise kernels, which differ in template arguments): the one
    with most time is chosen, the others are not asked for.

    Args:
        stages: what will be launched.
        wanted: configurations at most, over all stages; the first kernel is taken even if it alone has more.

    Returns:
        Mangled names, and how many configurations they have together.
    """
    weight: dict[str, float] = {}
    shapes: dict[str, set[_Seen]] = {}
    for stage in stages:
        total = sum(stage.duration_ns.values()) or 1
        for configuration, duration in stage.duration_ns.items():
            weight[configuration.symbol] = weight.get(configuration.symbol, 0.0) + duration / total
            shapes.setdefault(configuration.symbol, set()).add(
                (configuration.function, configuration.grid, configuration.block, configuration.shared_bytes)
            )
    chosen: list[str] = []
    taken: set[_Seen] = set()
    for symbol in sorted(weight, key=lambda name: (-weight[name] / len(shapes[name]), name)):
        if shapes[symbol] <= taken:
            continue
        more = len(shapes[symbol] - taken)
        if chosen and (len(taken) + more > wanted or len(kernel_filter([*chosen, symbol])) > LONGEST_FILTER):
            continue
        chosen.append(symbol)
        taken |= shapes[symbol]
        if len(taken) >= wanted:
            break
    return tuple(chosen), len(taken)


def _read(connection: sqlite3.Connection) -> tuple[StageLaunches, ...]:
    columns = {row[1] for row in connection.execute("PRAGMA table_info(CUPTI_ACTIVITY_KIND_KERNEL)")}
    symbol = "k.mangledName" if "mangledName" in columns else "NULL"
    graph = "k.graphNodeId" if "graphNodeId" in columns else "NULL"
    strings = dict(connection.execute("SELECT id, value FROM StringIds"))
    stages = []
    for stage in STAGES:
        instance = _first_range(connection, _RANGE[stage])
        if instance is None:
            continue
        start, end, thread = instance
        rows = connection.execute(
            f"SELECT {symbol}, k.shortName, k.gridX, k.gridY, k.gridZ, k.blockX, k.blockY, k.blockZ,"
            f" k.staticSharedMemory + k.dynamicSharedMemory, k.end - k.start, {graph} IS NOT NULL"
            " FROM CUPTI_ACTIVITY_KIND_RUNTIME r JOIN CUPTI_ACTIVITY_KIND_KERNEL k"
            " ON k.correlationId = r.correlationId AND (k.globalPid IS NULL OR k.globalPid = r.globalTid & ~16777215)"
            " WHERE r.globalTid = ? AND r.start BETWEEN ? AND ?",
            (thread, start, end),
        ).fetchall()
        if rows:
            stages.append(_stage(stage, rows, strings))
    return tuple(stages)


def _stage(stage: Stage, rows: Sequence[tuple[int, ...]], strings: dict[int, str]) -> StageLaunches:
    durations: dict[Configuration, int] = {}
    for symbol, function, *shape, shared, duration, _ in rows:
        if symbol is None or symbol not in strings:
            continue
        grid, block = (shape[0], shape[1], shape[2]), (shape[3], shape[4], shape[5])
        configuration = Configuration(strings[symbol], strings.get(function, ""), grid, block, shared)
        durations[configuration] = durations.get(configuration, 0) + duration
    return StageLaunches(stage, len(rows), durations, graph=any(row[-1] for row in rows))


def _first_range(connection: sqlite3.Connection, name: str) -> tuple[int, int, int] | None:
    """Start, end and thread of the first range of our domain with this name."""
    columns = {row[1] for row in connection.execute("PRAGMA table_info(NVTX_EVENTS)")}
    text = "coalesce(n.text, s.value)" if "textId" in columns else "n.text"
    join = "LEFT JOIN StringIds s ON s.id = n.textId" if "textId" in columns else ""
    row = connection.execute(
        f"SELECT n.start, n.end, n.globalTid FROM NVTX_EVENTS n {join}"
        f" JOIN NVTX_EVENTS d ON d.eventType = 75 AND d.domainId = n.domainId AND"
        f" d.globalTid >> 24 = n.globalTid >> 24 AND d.text = ?"
        f" WHERE n.eventType = 59 AND {text} = ? AND n.end IS NOT NULL ORDER BY n.start LIMIT 1",
        (STAGE_DOMAIN, name),
    ).fetchone()
    return None if row is None else (row[0], row[1], row[2])
