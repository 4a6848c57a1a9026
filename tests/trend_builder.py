"""A history of many runs with known changes, made of two real ones: eager, from half of the runs on from a CUDA graph."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from attrs import evolve

from history.folder import read_folder
from history.records import RecordedRun
from history.store import Store

__all__ = ["EAGER", "GRAPH", "record_history"]

_EXAMPLES: Final = Path(__file__).parents[1] / "reports" / "examples"
EAGER: Final = _EXAMPLES / "deepseek-ocr_h100"
GRAPH: Final = _EXAMPLES / "deepseek-ocr_h100_cuda-graph"


def record_history(store: Store, *, runs: int, noise: float = 0.01) -> None:
    """Record so many runs, one every other day.

    From a quarter on another torch, which changes nothing; from half on a CUDA graph; from three quarters on another driver,
    which makes all 5 % slower. The eighth run is an outlier. Two more runs are on another device.
    """
    random = np.random.default_rng(3)
    eager, graph = read_folder(EAGER), read_folder(GRAPH)
    for number in range(runs):
        base = eager if number < runs // 2 else graph
        slower = (1.05 if number >= runs * 3 // 4 else 1.0) * (1.4 if number == 7 else 1.0)
        versions = dict(base.run.versions or {})
        versions |= {"torch": "2.12.0+cu130"} if number >= runs // 4 else {}
        versions |= {"driver": "590.10"} if number >= runs * 3 // 4 else {}
        store.record(_made(base, number, slower * float(np.exp(noise * random.normal())), random, versions))
    for number in range(2):
        made = _made(eager, runs + number, 0.8, random, dict(eager.run.versions or {}))
        store.record(evolve(made, run=evolve(made.run, gpu_name="NVIDIA H200", started_at=_day(number))))


def _day(number: int) -> datetime:
    return datetime(2026, 9, 1, 3, tzinfo=UTC) + timedelta(days=2 * number)


def _made(
    base: RecordedRun, number: int, factor: float, random: np.random.Generator, versions: dict[str, str]
) -> RecordedRun:
    samples = tuple(
        evolve(sample, ns=round(sample.ns * factor * float(np.exp(0.003 * random.normal())))) for sample in base.samples
    )
    stages = tuple(
        evolve(
            stage,
            unprofiled_ns=statistics.median(sample.ns_per_unit for sample in samples if sample.stage == stage.stage),
        )
        for stage in base.stages
    )
    run = evolve(base.run, run_id=f"{number:08x}-made", started_at=_day(number), versions=versions)
    return evolve(base, run=run, samples=samples, stages=stages)
