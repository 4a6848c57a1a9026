"""What a policy can limit, of both sides: from their comparison, and counts from their reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from analysis.compare.records import Comparison, KernelMatch
from analysis.efficiency.utilisation import headline
from analysis.gate.records import Figure, TableName
from analysis.report import Report
from analysis.sums.records import StageSummary

__all__ = ["figures"]

_LEVELS: dict[str, TableName] = {"module": "module", "class": "class"}


def figures(comparison: Comparison, base: Report, new: Report) -> tuple[Figure, ...]:
    """List everything that a limit can be held against.

    Args:
        comparison: of the two sides.
        base: report of the base.
        new: report of the new side.
    """
    return (
        *(
            Figure("stage", stage.stage, "", stage.base_ns, stage.new_ns, stage.per, (), stage.because)
            for stage in comparison.stages
        ),
        *_not_compared(comparison),
        *_contributions(comparison),
        *_kernels(comparison),
        *_counts(comparison, base, new),
        *_utilisation(comparison, base, new),
        Figure("memory", "", "", _memory(base), _memory(new), unknown_because=_NO_MEMORY),
    )


def _not_compared(comparison: Comparison) -> Iterator[Figure]:
    """Stages of the base that the new side lacks or counts otherwise: a stage that is gone keeps to no limit."""
    compared = {stage.stage for stage in comparison.stages}
    for stage in comparison.base.units:
        if stage not in compared:
            why = "is counted per another unit on" if stage in comparison.new.units else "is not there on"
            yield Figure("stage", stage, "", None, None, unknown_because=f"{stage} {why} the new side")


def _contributions(comparison: Comparison) -> Iterator[Figure]:
    """GPU time, exclusive, by module and by class."""
    per = {stage.stage: stage.per for stage in comparison.stages}
    for row in comparison.contributions:
        if row.kind == "GPU time" and row.level in _LEVELS:
            yield Figure(_LEVELS[row.level], row.stage, row.name, row.base_ns, row.new_ns, per.get(row.stage, ""))


def _kernels(comparison: Comparison) -> Iterator[Figure]:
    """GPU time by kernel: one figure per work that kernels do, whatever they are called on either side, in all modules."""
    per = {stage.stage: stage.per for stage in comparison.stages}
    groups: dict[tuple[str, str], list[KernelMatch]] = {}
    for match in comparison.kernels:
        groups.setdefault((match.stage, " + ".join(match.new_names or match.base_names)), []).append(match)
    for (stage, name), matches in groups.items():
        aliases = {alias for match in matches for alias in (*match.base_names, *match.new_names, match.family)}
        yield Figure(
            "kernel",
            stage,
            name,
            sum(match.base_ns for match in matches),
            sum(match.new_ns for match in matches),
            per.get(stage, ""),
            tuple(sorted(aliases)),
        )


def _counts(comparison: Comparison, base: Report, new: Report) -> Iterator[Figure]:
    """What the host does per unit of a stage's work."""
    counts: dict[TableName, Callable[[StageSummary], int]] = {
        "synchronises": lambda stage: stage.synchronises,
        "copies": lambda stage: stage.small_d2h_copies,
    }
    for stage in comparison.stages:
        yield Figure(
            "launches",
            stage.stage,
            "",
            _launches(base, stage.stage),
            _launches(new, stage.stage),
            stage.per,
            (),
            _NO_STAGE,
        )
        for table, number in counts.items():
            yield Figure(
                table,
                stage.stage,
                "",
                _per_unit(base, stage.stage, number),
                _per_unit(new, stage.stage, number),
                stage.per,
                (),
                _NO_STAGE,
            )


_NO_STAGE = "a side's report does not hold the stage"


def _launches(report: Report, stage: str) -> float | None:
    return next((row.launches for row in report.unit_times if row.stage == stage), None)


def _per_unit(report: Report, stage: str, number: Callable[[StageSummary], int]) -> float | None:
    summary = next((row for row in report.stages if row.stage == stage), None)
    units = report.stage_units.get(stage)
    if summary is None or units is None or not units.count:
        return None
    return number(summary) / units.count


_NO_MEMORY = "a side did not run on a GPU, or its run.json is older than this record"


def _memory(report: Report) -> float | None:
    """The most that was allocated on the GPU at once, bytes."""
    return None if report.manifest is None else report.manifest.peak_memory_bytes


def _utilisation(comparison: Comparison, base: Report, new: Report) -> Iterator[Figure]:
    for stage in comparison.stages:
        rows = [headline(report.utilisation, stage.stage) for report in (base, new)]
        unknown = next((row.unknown_because for row in rows if row is not None and row.unknown_because), None)
        because = unknown or "a side's report does not say it"
        mfu = [None if row is None else row.mfu for row in rows]
        mbu = [None if row is None else row.mbu for row in rows]
        yield Figure("mfu", stage.stage, "", mfu[0], mfu[1], "", (), because)
        yield Figure("mbu", stage.stage, "", mbu[0], mbu[1], "", (), because)
