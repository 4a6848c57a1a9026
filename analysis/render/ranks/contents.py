"""What the combined report says in every format: subject, tiles, tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.domain.figures import NOT_AVAILABLE, bytes_, count, decimal, duration, share
from analysis.domain.program import wall_time_sentence
from analysis.ranks.names import name_of_run
from analysis.ranks.records import RanksReport
from analysis.render.spec.ranks import LATENESS, RANK_STAGES, RANK_STEPS, RANKS
from analysis.render.spec.shown import Fact, Table, Tile, shown
from analysis.render.spec.specification import Reader
from analysis.render.spec.text import visible

__all__ = ["lateness", "ranks", "stages", "steps", "subject", "tiles", "title"]

_WORK = {
    "one model over all ranks": "one model spread over all ranks (they meet in collectives inside its stages)",
    "one model over groups of ranks": "one model spread over groups of ranks",
    "a model on each rank": "a whole model on each rank (no collectives inside the stages)",
}


def title(report: RanksReport) -> str:
    """What the traces are called: what their names have in common."""
    names = [Path(row.trace_path).stem for row in report.ranks]
    return visible(name_of_run(names) or names[0])


def subject(report: RanksReport) -> tuple[Fact, ...]:
    """What was captured."""
    files = len({row.trace_path for row in report.ranks})
    size = sum({row.trace_path: row.trace_bytes for row in report.ranks}.values())
    return (
        Fact("GPUs", visible(report.devices)),
        Fact(
            "ranks",
            f"{count(len(report.ranks))} in {count(files)} {'trace' if files == 1 else 'traces'} ({bytes_(size)})",
        ),
        Fact("work", _work(report)),
        Fact("collectives", visible(report.pairing_told)),
        *(() if report.wall_times is None else (Fact("wall time", wall_time_sentence(report.wall_times)),)),
    )


def _work(report: RanksReport) -> str:
    """How the model lies on the ranks; collectives that are not paired do not tell."""
    if report.pairing.how == "not paired" and report.pairing.left_out:
        return "not known, because the collectives are not paired"
    return _WORK[report.work]


def tiles(report: RanksReport) -> tuple[Tile, ...]:
    """The numbers of the run."""
    worst = report.straggler
    waits = [row.waiting_ns for row in report.ranks if row.waiting_ns is not None]
    at_start = max((row.at_start_ns or 0 for row in report.ranks), default=0)
    busiest = [row.busy_ns / row.span_ns for row in report.ranks if row.span_ns]
    return (
        Tile(
            "Throughput",
            f"{decimal(report.tokens_per_s, 1)} token/s" if report.tokens_per_s is not None else NOT_AVAILABLE,
            f"{count(report.tokens)} emitted ÷ {duration(report.wall_ns)} wall time, profiled"
            + (f" ({duration(at_start)} of it at the start of the capture)" if at_start else "")
            if report.tokens is not None and report.wall_ns is not None
            else report.unknown_because or "not known",
            "",
        ),
        Tile(
            "Longest wait",
            duration(max(waits)) if waits else NOT_AVAILABLE,
            f"of rank {max(report.ranks, key=lambda row: row.waiting_ns or 0).rank}, in all collectives"
            + (" after the start of the capture" if at_start else "")
            if waits
            else "collectives are not paired",
            "",
        ),
        Tile(
            "Late rank",
            f"rank {worst.rank}" if worst else NOT_AVAILABLE,
            f"last at {count(worst.collectives)} of {count(worst.of)} collectives; rank {worst.waiting} waits "
            f"{duration(worst.cost_ns)} for it"
            if worst
            else "no rank waits for another"
            if waits
            else "collectives are not paired",
            "",
        ),
        Tile(
            "GPU busy",
            " / ".join(share(value) for value in busiest[:4]) + (" …" if len(busiest) > 4 else "") or NOT_AVAILABLE,
            "of the time from first to last operation, rank by rank",
            "",
        ),
    )


def ranks(report: RanksReport, reader: Reader) -> Table:
    """Ranks side by side."""
    return shown(RANKS, report.ranks, reader, leave_out=_same(report))


def _same(report: RanksReport) -> Sequence[str]:
    """Columns that would say nothing: clocks of one file, and a GPU that all ranks have and the head of the report names."""
    clocks = ("clock_offset_ns", "clock_residual_ns") if report.pairing.one_clock else ()
    return (*clocks, "device_name") if len({row.device_name for row in report.ranks}) == 1 else clocks


def stages(report: RanksReport, reader: Reader) -> Table:
    """Stages, a row for each rank, one stage after the other."""
    order = list(dict.fromkeys(row.stage for row in report.stages))
    rows = sorted(report.stages, key=lambda row: (order.index(row.stage), row.rank))
    unknown = [key for key in ("mfu", "mbu", "tokens") if all(getattr(row, key) is None for row in rows)]
    return shown(RANK_STAGES, rows, reader, leave_out=unknown)


def lateness(report: RanksReport, reader: Reader) -> Table:
    """Who waits for whom."""
    return shown(LATENESS, report.lateness, reader)


def steps(report: RanksReport, reader: Reader, top: int | None = None) -> Table:
    """Step by step; with ``top`` those with most waiting, in time order."""
    rows = list(report.places)
    note = ""
    if top is not None and len(rows) > top:
        chosen = sorted(rows, key=lambda row: -sum(row.waiting_ns))[:top]
        note = f"The {count(top)} of {count(len(rows))} with most waiting; all are in report.json."
        rows = [row for row in rows if row in chosen]
    return shown(RANK_STEPS, rows, reader, note=note)
