"""Put the ranks of one run side by side: one record, whose first sentence says which of them to look at and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from attrs import frozen

from analysis.domain.figures import count, difference, duration, share
from analysis.domain.measures import require_possible
from analysis.efficiency.records import RankWait
from analysis.efficiency.utilisation import headline
from analysis.quality.findings import Finding
from analysis.ranks.collectives import Collectives
from analysis.ranks.pairing import Pairs, lateness, place_skews, stage_waiting, straggler, told
from analysis.ranks.records import (
    CAUSES,
    Cause,
    Lateness,
    RankRow,
    RanksReport,
    RankStage,
    StageWaiting,
    Straggler,
)
from analysis.report import Report
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.stages import WHOLE_CAPTURE

__all__ = ["RankSource", "model_ranks", "rank_waits", "side_by_side"]

WORTH_NAMING: Final = 0.05
"""A rank that keeps another waiting for less of its time than this is not what to begin with."""
AT_START_WORTH_NAMING: Final = 0.01
"""Of a rank's time in stages; a shorter wait at the start of the capture is in the tables only."""
FEW_STEPS: Final = 0.25
"""A cost is told by single steps where so few of all of them make up half of it or more."""
ALL_ALONG: Final = 0.9
"""So many of all steps are no stretch of them."""
TO_BOTH: Final = 0.2
"""Of what the late rank costs another one, this costs in turn: both hosts are late, and the remedy is one for both."""


@frozen
class RankSource:
    """What is known of a rank beside its report: small, for it leaves the process that read the trace."""

    rank: int
    pid: int | None
    device: int
    device_name: str | None
    busy_ns: int
    span_ns: int
    launches: int
    collectives: Collectives


def model_ranks(pairs: Pairs) -> tuple[int, ...]:
    """By rank, over how many ranks its model is spread: as many as meet in the collectives inside its stages; 1: none do."""
    sizes = pairs.present.sum(axis=0)
    spread = []
    for rank, collectives in enumerate(pairs.ranks):
        stage = np.append(collectives.stage, -1)[pairs.row[rank]]
        inside = (pairs.row[rank] >= 0) & (stage != len(collectives.stages) - 1)
        if not inside.any() and len(collectives.stages) == 1:  # no stages at all: what meets anywhere
            inside = pairs.row[rank] >= 0
        spread.append(int(sizes[inside].max()) if inside.any() else 1)
    return tuple(spread)


def rank_waits(rank: int, waiting: Sequence[StageWaiting], late: Sequence[Lateness]) -> tuple[RankWait, ...]:
    """What the other ranks' traces tell of one rank's collectives, for its verdicts.

    Args:
        rank: its number.
        waiting: of all ranks.
        late: of all ranks.
    """
    rows = []
    for row in waiting:
        if row.rank != rank:
            continue
        worst = next(
            (
                pair
                for pair in late
                if (pair.waiting, pair.stage) == (rank, row.stage) and pair.cost_ns and not pair.at_start
            ),
            None,
        )
        rows.append(
            RankWait(
                stage=row.stage,
                total_ns=row.total_ns,
                waiting_ns=row.waiting_ns,
                at_start_ns=row.at_start_ns,
                late_rank=None if worst is None else worst.late,
                late_ns=0 if worst is None else worst.cost_ns,
                cause="" if worst is None else _cause_clause(_causes([worst]), f"rank {rank}"),
            )
        )
    if rows and {row.stage for row in rows} == {UNATTRIBUTED}:  # a trace without stages is one
        return (RankWait(WHOLE_CAPTURE, *(getattr(rows[0], name) for name in _AFTER_STAGE)),)
    return tuple(rows)


_AFTER_STAGE: Final = ("total_ns", "waiting_ns", "at_start_ns", "late_rank", "late_ns", "cause")


def side_by_side(
    sources: Sequence[RankSource], reports: Sequence[Report], pairs: Pairs, spread: Sequence[int]
) -> RanksReport:
    """Make the record of several ranks.

    Args:
        sources: of each rank, in order.
        reports: of each rank, judged with the other ranks' traces known.
        pairs: of their collectives.
        spread: `model_ranks` of them.
    """
    waiting, late, places = stage_waiting(pairs), lateness(pairs), place_skews(pairs)
    worst = straggler(pairs, late, places)
    rows = tuple(
        _row(place, source, report, pairs, late)
        for place, (source, report) in enumerate(zip(sources, reports, strict=True))
    )
    stages = tuple(
        stage
        for source, report in zip(sources, reports, strict=True)
        for stage in _stages(source.rank, report, waiting)
    )
    tokens, wall, because = _throughput(reports, pairs, spread)
    sentence, then = _sentences(worst, late, stages, pairs.numbers, paired=pairs.pairing.how != "not paired")
    combined = RanksReport(
        sentence=sentence,
        then=then,
        devices=devices_told([source.device_name for source in sources]),
        work=_work(spread),
        model_ranks=tuple(spread),
        tokens=tokens,
        wall_ns=wall,
        tokens_per_s=tokens / wall * 1e9 if tokens is not None and wall else None,
        unknown_because=because,
        ranks=rows,
        stages=stages,
        lateness=late,
        places=places,
        pairing=pairs.pairing,
        pairing_told=told(pairs.pairing),
        straggler=worst,
        wall_times=next((report.wall_times for report in reports if report.wall_times is not None), None),
        cautions=(*_cautions(reports, stages, pairs.numbers), *_runs(reports, pairs.numbers)),
    )
    require_possible(combined, "the report of all ranks")
    return combined


def _cautions(reports: Sequence[Report], stages: Sequence[RankStage], numbers: Sequence[int]) -> tuple[str, ...]:
    """Warnings of the captures' own checks, each once with the ranks that it is about."""
    ranks: dict[str, list[int]] = {}
    for rank, report in zip(numbers, reports, strict=True):
        for finding in report.findings:
            if finding.severity != "info":
                ranks.setdefault(finding.title + _of_start(finding, rank, stages), []).append(rank)
    return tuple(f"{_listed(told_of)}: {title}" for title, told_of in ranks.items())


def _runs(reports: Sequence[Report], numbers: Sequence[int]) -> tuple[str, ...]:
    """That traces are of runs of their own, where their manifests say so."""
    runs: dict[str, list[int]] = {}
    for rank, report in zip(numbers, reports, strict=True):
        if report.manifest is not None:
            runs.setdefault(report.manifest.run_id, []).append(rank)
    if len(runs) < 2:
        return ()
    told = ", ".join(f"{_listed(ranks)} of {run}" for run, ranks in runs.items())
    return (f"The traces are of several runs ({told}): name those of one, unless they ran at the same time",)


def _of_start(finding: Finding, rank: int, stages: Sequence[RankStage]) -> str:
    """What of a slow first instance is waiting for the other ranks' captures to begin."""
    if finding.code != "cold-start":
        return ""
    waited = sum(row.at_start_ns or 0 for row in stages if row.rank == rank and f" {row.stage} " in finding.title)
    return f": {duration(waited)} of it is waiting at the start of the capture" if waited else ""


def _listed(ranks: Sequence[int]) -> str:
    """``rank 1``, ``ranks 0, 1 and 3``."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


def devices_told(names: Sequence[str | None]) -> str:
    """``2 × NVIDIA H200``; of several kinds each with its number."""
    numbers = Counter(name or "unknown GPU" for name in names)
    return ", ".join(f"{number} × {name}" for name, number in numbers.items())


def _work(
    spread: Sequence[int],
) -> Literal["one model over all ranks", "one model over groups of ranks", "a model on each rank"]:
    if all(size == len(spread) for size in spread):
        return "one model over all ranks"
    return "a model on each rank" if all(size == 1 for size in spread) else "one model over groups of ranks"


def _row(place: int, source: RankSource, report: Report, pairs: Pairs, late: Sequence[Lateness]) -> RankRow:
    rank, paired = source.rank, pairs.pairing.how != "not paired"
    there = pairs.row[place] >= 0
    transfer = int(pairs.transfer_ns[there].sum())
    clock = next((clock for clock in pairs.pairing.clocks if clock.rank == rank), None)
    return RankRow(
        rank=rank,
        trace_path=report.capture.trace_path,
        trace_bytes=report.capture.trace_bytes,
        pid=source.pid,
        device=source.device,
        device_name=source.device_name,
        folder=f"rank{rank}",
        kernels=report.capture.kernels,
        kernel_sum_ns=sum(row.kernel_sum_ns for row in report.stage_rows),
        busy_ns=source.busy_ns,
        span_ns=source.span_ns,
        launches=source.launches,
        collectives=int(there.sum()),
        transfer_ns=transfer if paired else None,
        waiting_ns=int(pairs.waiting_ns[place].sum()) if paired else None,
        at_start_ns=int(pairs.at_start_ns[place].sum()) if paired else None,
        cost_ns=sum(row.cost_ns for row in late if row.late == rank and not row.at_start) if paired else None,
        late=int((pairs.late[there & ~pairs.opening] == place).sum()) if paired else None,
        clock_offset_ns=None if clock is None else clock.offset_ns,
        clock_residual_ns=None if clock is None else clock.residual_ns,
    )


def _stages(rank: int, report: Report, waiting: Sequence[StageWaiting]) -> list[RankStage]:
    rows = []
    for stage, times in zip(report.stages, report.unit_times, strict=True):
        among = UNATTRIBUTED if stage.stage == WHOLE_CAPTURE else stage.stage
        waits = next((row for row in waiting if (row.rank, row.stage) == (rank, among)), None)
        used = headline(report.utilisation, stage.stage)
        verdict = next((judged for judged in report.verdicts if judged.stage == stage.stage), None)
        rows.append(
            RankStage(
                rank=rank,
                stage=stage.stage,
                instances=stage.instances,
                steps=sum(instance.steps for instance in report.instances if instance.stage == stage.stage),
                tokens=stage.tokens,
                profiled_ns=stage.profiled_ns,
                busy_ns=stage.busy_ns,
                kernels=stage.gpu.kernels,
                launches=stage.launches,
                per=times.per,
                unit_ns=times.time_ns,
                unit_busy_ns=times.busy_ns,
                collectives=waits.collectives if waits else 0,
                transfer_ns=waits.transfer_ns if waits else None,
                waiting_ns=waits.waiting_ns if waits else None,
                at_start_ns=waits.at_start_ns if waits else None,
                waiting_share=_share(waits.waiting_ns, stage.profiled_ns - waits.at_start_ns) if waits else None,
                mfu=None if used is None else used.mfu,
                mbu=None if used is None else used.mbu,
                bound=verdict.bound if verdict else "unknown",
            )
        )
    return rows


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole > 0 else None


def _throughput(
    reports: Sequence[Report], pairs: Pairs, spread: Sequence[int]
) -> tuple[int | None, int | None, str | None]:
    """Tokens emitted, wall time, and why one of them is not known."""
    if any(not report.instances for report in reports):
        return None, None, "a rank's trace has no stages"
    # Ranks that share a model emit the same tokens: each group's are counted once.
    tokens = 0.0
    for report, size in zip(reports, spread, strict=True):
        batch = report.manifest.batch_size if report.manifest is not None else 1
        prefills = sum(instance.stage == "prefill" for instance in report.instances)
        tokens += batch * (prefills + sum(instance.steps for instance in report.instances)) / size
    offsets = {clock.rank: clock.offset_ns for clock in pairs.pairing.clocks}
    if pairs.pairing.one_clock:
        offsets = dict.fromkeys(pairs.numbers, 0)
    if len(offsets) < len(reports):
        return round(tokens), None, "the clocks of the files cannot be aligned: their collectives are not paired"
    starts = [
        min(instance.start_ns for instance in report.instances) - offsets[rank]
        for rank, report in zip(pairs.numbers, reports, strict=True)
    ]
    ends = [
        max(instance.finished_ns for instance in report.instances) - offsets[rank]
        for rank, report in zip(pairs.numbers, reports, strict=True)
    ]
    return round(tokens), max(ends) - min(starts), None


# --- words --------------------------------------------------------------------------------------------------------

_CAUSE_WORDS: Final[dict[Cause, str]] = {
    "kernels": "its own kernels take {} longer than those of {}",
    "synchronises": "its GPU idles {} longer than that of {} while its host is in synchronises",
    "launching": "its GPU idles {} longer than that of {} while its host launches",
    "other_calls": "its GPU idles {} longer than that of {} while its host is in other CUDA calls",
    "python": "its GPU idles {} longer than that of {} while its host is in Python and the framework",
    "in_graph": "its GPU idles {} longer than that of {} between nodes of a CUDA graph",
}
_CAUSE_SHORT: Final[dict[Cause, str]] = {
    "kernels": "in its kernels",
    "synchronises": "in synchronises",
    "launching": "launching",
    "other_calls": "in other CUDA calls",
    "python": "in Python",
    "in_graph": "between graph nodes",
}
_CAUSE_BRIEF: Final[dict[Cause, str]] = {
    "kernels": "because its own kernels take longer",
    "synchronises": "because its host is in synchronises",
    "launching": "because its host launches too slowly",
    "other_calls": "because its host is in other CUDA calls",
    "python": "because its host is in Python and the framework",
    "in_graph": "because its CUDA graphs have longer gaps",
}
_REMEDIES: Final[dict[Cause, str]] = {
    "kernels": "compare the two ranks' kernels: more work, a lower clock, or another kernel",
    "synchronises": "remove the synchronises of its host",
    "launching": "launch less on it, or replay its steps from a CUDA graph",
    "other_calls": "move allocations, queries and module loading out of its steps",
    "python": "see what its process does between launches that the others do not: a sleep, data loading, logging, a busier core",
    "in_graph": "compare the two ranks' graphs",
}


_OF_HOSTS: Final[set[Cause]] = {"python", "launching"}


def _causes(rows: Sequence[Lateness]) -> dict[Cause, int]:
    return {cause: sum(int(getattr(row, f"{cause}_ns")) for row in rows) for cause in CAUSES}


def _cause_clause(causes: dict[Cause, int], against: str) -> str:
    """What a rank did longer than another one, the largest part first; empty: nothing that is known."""
    parts = sorted(((ns, cause) for cause, ns in causes.items() if ns > 0), reverse=True)
    if not parts:
        return ""
    clause = _CAUSE_WORDS[parts[0][1]].format(duration(parts[0][0]), against)
    if len(parts) > 1 and parts[1][0] >= parts[0][0] / 20:
        clause += f" (and {duration(parts[1][0])} {_CAUSE_SHORT[parts[1][1]]})"
    return clause


def _sentences(
    worst: Straggler | None,
    late: Sequence[Lateness],
    stages: Sequence[RankStage],
    numbers: Sequence[int],
    *,
    paired: bool,
) -> tuple[str, tuple[str, ...]]:
    """The first sentence, and those that follow."""
    time = {
        rank: sum(row.profiled_ns - (row.at_start_ns or 0) for row in stages if row.rank == rank) for rank in numbers
    }
    opening = _at_start([row for row in late if row.at_start], time)
    late = [row for row in late if not row.at_start]
    waits = {(row.late, row.waiting): 0 for row in late}
    for row in late:
        waits[row.late, row.waiting] += row.cost_ns
    big = [(cost, key) for key, cost in waits.items() if time.get(key[1]) and cost / time[key[1]] >= WORTH_NAMING]
    first_key = None if worst is None else (worst.rank, worst.waiting)
    if worst is None or first_key not in {key for _, key in big}:
        return _common(worst, stages, time, paired=paired), opening
    cost, key = next(entry for entry in big if entry[1] == first_key)
    others = sorted((entry for entry in big if entry[1] != first_key), reverse=True)
    first = f"Start with rank {worst.rank}: it {_straggles(key, cost, late, time)}, {_CAUSE_BRIEF[worst.cause]}."
    clause = _cause_clause(_causes([row for row in late if (row.late, row.waiting) == key]), f"rank {worst.waiting}")
    why = (f"Rank {worst.rank}'s {clause.removeprefix('its ')}.",) if clause else ()
    rest = [f"In turn, rank {other[0]} {_straggles(other, ns, late, time)}." for ns, other in others]
    remedy = f"What to do about rank {worst.rank}: {_REMEDIES[worst.cause]}."
    in_turn = [row for row in late if (row.late, row.waiting) == (worst.waiting, worst.rank)]
    causes = _causes(in_turn)
    both_cost = (key[1], key[0]) in {other for _, other in others} and waits[key[1], key[0]] >= TO_BOTH * cost
    if both_cost and {worst.cause, max(CAUSES, key=causes.__getitem__)} <= _OF_HOSTS:
        remedy = (
            f"What to do: ranks {min(key)} and {max(key)} wait for each other's hosts in turn, so take the hosts out of the way on "
            f"both: replay the steps from a CUDA graph. Then, for rank {worst.rank}: {_REMEDIES[worst.cause]}."
        )
    return first, (*why, *_when(worst), remedy, *rest, *opening, *_bounds(stages))


def _when(worst: Straggler) -> tuple[str, ...]:
    """In which steps a rank is late: in few of them, in a stretch, or all along; nothing where there is but one."""
    if worst.of_steps < 2 or worst.since is None or worst.until is None:
        return ()
    steps = count(worst.of_steps)
    if worst.peaks and worst.peaks <= FEW_STEPS * worst.of_steps and worst.peaks_ns >= worst.cost_ns / 2:
        what = difference(worst.cost_ns, worst.peaks_ns)
        apart = (
            f", most of them {count(worst.every)} steps apart" if worst.every is not None and worst.every > 1 else ""
        )
        single = f"One step of {steps} makes {what.part} of the {what.whole}: {worst.first_peak}."
        many = f"{count(worst.peaks)} of {steps} steps make {what.part} of the {what.whole}{apart}: first {worst.first_peak}."
        return (single if worst.peaks == 1 else many,)
    if worst.steps >= ALL_ALONG * worst.of_steps:
        return (f"It is late all along: in {count(worst.steps)} of {steps} steps.",)
    what = difference(worst.cost_ns, worst.stretch_ns)
    place = worst.since if worst.since == worst.until else f"{worst.since} to {worst.until}"
    return (f"It costs most from {place} ({count(worst.steps)} of {steps} steps): {what.part} of the {what.whole}.",)


def _at_start(rows: Sequence[Lateness], time: dict[int, int]) -> tuple[str, ...]:
    """What a rank waited before the ranks first stood together, where it is long."""
    sentences = []
    for row in sorted(rows, key=lambda row: -row.cost_ns):
        if row.cost_ns >= AT_START_WORTH_NAMING * time.get(row.waiting, 0) > 0:
            sentences.append(
                f"At the start of the capture rank {row.waiting} waits {duration(row.cost_ns)} for rank {row.late}, which counts "
                "for no rank: nothing before says when the two stood together, and the captures of two ranks begin at "
                "different moments."
            )
    return tuple(sentences)


def _straggles(key: tuple[int, int], cost: int, late: Sequence[Lateness], time: dict[int, int]) -> str:
    _, waiting = key
    mine = [row for row in late if (row.late, row.waiting) == key]
    calls = sum(row.collectives for row in mine)
    return (
        f"is last at {count(calls)} collectives and makes rank {waiting} wait {duration(cost)} "
        f"({share(cost / time[waiting])} of its {duration(time[waiting])} in stages)"
    )


def _common(worst: Straggler | None, stages: Sequence[RankStage], time: dict[int, int], *, paired: bool) -> str:
    """No rank holds up the others: what bounds them all, or each."""
    if not stages:
        return "No rank has stages or GPU work that could be compared."
    longest = max(
        dict.fromkeys(row.stage for row in stages),
        key=lambda stage: sum(r.profiled_ns for r in stages if r.stage == stage),
    )
    mine = [row for row in stages if row.stage == longest]
    bounds = dict.fromkeys(row.bound for row in mine)
    name = "the whole capture" if longest == WHOLE_CAPTURE else longest
    if len(bounds) == 1:
        every = "both" if len(mine) == 2 else f"all {count(len(mine))}"
        what = f"Start with {name}, which is {mine[0].bound} on {every} ranks"
    else:
        each = ", ".join(f"rank {row.rank} {row.bound}" for row in mine)
        what = f"Start with {name}, which is bound differently on each rank ({each})"
    if not paired:
        return f"{what}; who waits for whom is not known: the collectives of the traces are not paired."
    if worst is None:
        return f"{what}; no rank is seen to wait for another."
    waited = share(worst.cost_ns / time[worst.waiting]) if time.get(worst.waiting) else "a part"
    return f"{what}; ranks hardly wait for each other (at most {duration(worst.cost_ns)}, {waited} of a rank's time)."


def _bounds(stages: Sequence[RankStage]) -> tuple[str, ...]:
    """What bounds each stage, rank by rank."""
    sentences = []
    for stage in dict.fromkeys(row.stage for row in stages):
        mine = [row for row in stages if row.stage == stage]
        name = "The whole capture" if stage == WHOLE_CAPTURE else stage[:1].upper() + stage[1:]
        if len({row.bound for row in mine}) == 1:
            sentences.append(f"{name} is {mine[0].bound} on every rank.")
        else:
            sentences.append(f"{name}: {', '.join(f'rank {row.rank} is {row.bound}' for row in mine)}.")
    return tuple(sentences)
