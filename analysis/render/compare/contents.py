"""What a comparison says in every format: title, reasons, next steps, tables.

Times that stand side by side or below each other are written together, so that they add up as they are shown: a table of
parts in one unit (`analysis.domain.figures.ledger`), a stage's latencies as `analysis.domain.figures.change` writes them.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, Final

from attrs import evolve, frozen

from analysis.compare.records import (
    Comparison,
    Contribution,
    Diff,
    KernelMatch,
    Level,
    SettingChange,
    SideSummary,
    StageDifference,
)
from analysis.domain.figures import Change, change, counted, decimal, ledger, signed_duration
from analysis.render.spec.compare import (
    ANSWERS,
    BASE,
    DIFF_CONTRIBUTIONS,
    DIFF_KERNELS,
    DIFF_SETTINGS,
    DIFF_SIDES,
    DIFF_STAGES,
    DIFFERENCE,
    LEVELS,
    NEW,
    UNEXPLAINED,
    Outcome,
    band_in_words,
    explained_in_words,
    interval_in_words,
    part_in_words,
)
from analysis.render.spec.shown import Cell, Table, shown
from analysis.render.spec.specification import Reader, Specification
from analysis.render.spec.text import visible

__all__ = [
    "Reason",
    "certainty",
    "changed",
    "contributions",
    "explained",
    "forbidding",
    "gpu_parts",
    "kernels",
    "largest",
    "latencies",
    "lead",
    "next_step",
    "of_level",
    "reasons",
    "repeat",
    "settings",
    "sides",
    "subject",
    "title",
]

_REASONS: Final = 4
"""Parts of a difference that are named on the first screen."""
_WORTH: Final = 0.05
"""Of a difference: smaller parts are not named there."""
_MOST: Final = 0.6
"""Of a difference: parts of one level that say so much of it say why."""


def title(diff: Diff) -> str:
    """The sides' names."""
    first = diff.comparisons[0]
    return " → ".join(visible(label) for label in (first.base.label, *(given.new.label for given in diff.comparisons)))


def subject(comparison: Comparison) -> tuple[str, ...]:
    """What was compared, line by line: the model and device where they agree, and each side's run."""
    base, new = comparison.base, comparison.new
    same = [
        visible(first)
        for first, second in ((base.model, new.model), (base.device, new.device), (base.collector, new.collector))
        if first is not None and first == second
    ]
    lines = [" · ".join(same)] if same else []
    for name, side in (("Base", base), ("New", new)):
        units = _units(comparison, side)
        differing = [
            visible(value)
            for value, other in (
                (side.model, (new, base)[side is new].model),
                (side.device, (new, base)[side is new].device),
            )
            if value is not None and value != other
        ]
        parts = [f"{name}: {visible(side.label)}", *differing, *([f"captured: {units}"] if units else [])]
        lines.append(" · ".join(parts))
    return tuple(lines)


def _units(comparison: Comparison, side: SideSummary) -> str:
    """What a side captured: ``3 images, 189 tokens``; stages with the same unit are named: ``prefill 1 step, decode 59 steps``."""
    stages = [stage for stage in comparison.stages if stage.stage in side.units]
    alike = len({stage.per for stage in stages}) < len(stages)
    return ", ".join(
        f"{f'{visible(stage.stage)} ' if alike else ''}{counted(side.units[stage.stage], visible(stage.per))}"
        for stage in stages
    )


def forbidding(comparison: Comparison) -> tuple[SettingChange, ...]:
    """Settings because of which a difference cannot be put down to the code."""
    return tuple(change_ for change_ in comparison.settings if change_.forbids)


_OF_THE_USER: Final = ("model", "inputs", "options", "versions", "driver")
"""Groups of settings that somebody changes; clocks and the tool differ by themselves."""
_CHANGED: Final = 4


def changed(comparison: Comparison) -> str:
    """What was changed between the sides, as far as it is recorded, in a line; empty: nothing.

    What forbids to judge is not among it, for that is said apart.
    """
    rows = [row for row in comparison.settings if row.group in _OF_THE_USER and not row.forbids]
    told = [
        f"{visible(row.name)} {' → '.join('not recorded' if value is None else visible(value) for value in row.values)}"
        for row in rows[:_CHANGED]
    ]
    more = [f"{len(rows) - _CHANGED} more"] if len(rows) > _CHANGED else []
    return "; ".join((*told, *more))


def of_level(comparison: Comparison, stage: str, level: Level) -> tuple[Contribution, ...]:
    """Contributions of one stage and level, those that changed most first, the rest last."""
    mine = [row for row in comparison.contributions if row.stage == stage and row.level == level]
    return tuple(sorted(mine, key=lambda row: (row.kind == "rest", -abs(row.difference_ns))))


def gpu_parts(comparison: Comparison, stage: str, level: Level) -> tuple[Contribution, ...]:
    """Contributions of one stage and level that are time of operations on the GPU; idle time is the same at each level."""
    return tuple(row for row in of_level(comparison, stage, level) if row.kind in ("GPU time", "copies", "overlap"))


def written(stage: StageDifference) -> Change | None:
    """A stage's latencies; None: a side does not have it."""
    return None if stage.base_ns is None or stage.new_ns is None else change(stage.base_ns, stage.new_ns)


def lead(stage: StageDifference) -> str:
    """Where a stage's numbers come from: ``per token, medians of 5 and 5 unprofiled passes``."""
    if not stage.unprofiled:
        return f"per {visible(stage.per)}, profiled: what profiling costs is in it"
    interval = stage.interval
    if interval is None:
        return f"per {visible(stage.per)}, medians of unprofiled passes"
    return f"per {visible(stage.per)}, medians of {interval.base_samples} and {interval.new_samples} unprofiled passes"


def certainty(stage: StageDifference) -> str:
    """Interval and band in one line; empty: there is none."""
    interval = stage.interval
    if interval is None:
        return ""
    sure = f"{decimal(100 * interval.confidence, 0)} % interval" if interval.resamples else "Extremes"
    band = band_in_words(interval)
    source = f" ({visible(interval.band_from)})" if interval.band_measured else ""
    told = f"; unchanged runs differ by {band}{source}" if band is not None else ""
    return f"{sure} {interval_in_words(interval)}{told}"


def explained(stage: StageDifference) -> str:
    """How much of the difference its parts add up to; a share only where the rest is smaller than the difference."""
    if stage.explained is None:
        return ""
    told = explained_in_words(stage.explained)
    return "not explained: the rest is larger than the difference" if told == UNEXPLAINED else f"{told} explained"


@frozen
class Reason:
    """A part of a stage's difference, as the first screen names it."""

    name: str
    by: str
    """With its sign."""
    kind: str
    """``slower`` or ``faster``; ``rest`` of what is not explained."""


def largest(comparison: Comparison, stage: StageDifference) -> list[Contribution]:
    """The parts that say most of why: modules for the GPU's time, and for its idle time what the host did; largest first."""
    for level in ("module", "class", "stage"):
        rows = of_level(comparison, stage.stage, level)
        if rows:
            return sorted(rows, key=lambda row: -abs(row.difference_ns))
    return []


def reasons(comparison: Comparison, stage: StageDifference) -> list[Reason]:
    """What the first screen names of a stage's difference, largest first.

    Modules, unless the GPU's time changed a little in each of many: then it is named as a whole.
    """
    whole = stage.difference_ns
    if not whole:
        return []
    named: list[Contribution] = []
    for level in ("module", "class", "stage"):
        rows = of_level(comparison, stage.stage, level)
        named = sorted(
            (row for row in rows if abs(row.difference_ns) >= _WORTH * abs(whole)),
            key=lambda row: -abs(row.difference_ns),
        )[:_REASONS]
        if sum(row.difference_ns for row in named) / whole >= _MOST:
            break
    return [
        Reason(
            name=part_in_words(row),
            by=signed_duration(row.difference_ns),
            kind="rest" if row.kind == "rest" else "slower" if row.difference_ns > 0 else "faster",
        )
        for row in named
    ]


_FILES: Final = (".json", ".sqlite", ".xz", ".gz", ".zst", ".nsys-rep")


def _settings_of(side: SideSummary, otherwise: str) -> str:
    """What ``dsocr-profile ab`` can take a side's settings from: the folder of its run; else a name for the user to fill in."""
    known = side.run_id is not None and not side.path.endswith(_FILES)
    return shlex.quote(visible(side.path)) if known else otherwise


def repeat(comparison: Comparison) -> str:
    """The command that measures both sides in turns on one device."""
    base, new = _settings_of(comparison.base, "BASE.json"), _settings_of(comparison.new, "NEW.json")
    return f"dsocr-profile ab {base} {new} --rounds 5"


def next_step(comparison: Comparison, stage: StageDifference) -> str:
    """What to do next, by the answer and by what the difference is made of."""
    if stage.base_ns is None or stage.new_ns is None:
        return "Capture this stage on both sides: one of them does not have it."
    forbids = forbidding(comparison)
    if forbids:
        names = ", ".join(dict.fromkeys(visible(row.name) for row in forbids))
        return f"Run both sides again with the same {names}."
    if stage.answer == "cannot judge":
        return f"Measure both in turns on one device: {repeat(comparison)}"
    if stage.answer == "equal":
        return "Nothing: what differs is noise. More rounds would show a smaller difference."
    rows = [row for row in largest(comparison, stage) if row.kind != "rest"]
    slower = next((row for row in rows if row.difference_ns > 0), None)
    rest = next((row for row in largest(comparison, stage) if row.kind == "rest"), None)
    if stage.answer == "improvement":
        if slower is not None and slower.difference_ns >= _WORTH * abs(stage.difference_ns or 0):
            return (
                f"Keep it, and look at what became slower all the same: {part_in_words(slower)}, "
                f"{signed_duration(slower.difference_ns)}."
            )
        return "Keep it. The new run's own report says what bounds it now."
    if slower is None or (rest is not None and rest.difference_ns > slower.difference_ns):
        return "Capture both again: most of it is in no part that the traces show."
    return _remedy(slower)


def _remedy(row: Contribution) -> str:
    name = part_in_words(row)
    calls = ""
    if row.base_calls is not None and row.new_calls is not None and round(row.base_calls) != round(row.new_calls):
        calls = f" ({decimal(row.base_calls, 0)} → {decimal(row.new_calls, 0)} calls)"
    if row.kind == "launches":
        return f"Launch less: fuse what was split, or replay a CUDA graph{calls}."
    if row.kind == "waits":
        return f"Find the new synchronise or blocking copy{calls}: the new run's report lists them by module."
    if row.kind == "Python":
        return f"Profile the host: Python and the framework take longer between launches{calls}."
    if row.kind == "in graph":
        return "Look at the graph's dependencies: the GPU idles longer from node to node."
    if row.match == "same work, another kernel":
        return f"Find out why the library chose another kernel in {name}{calls}."
    return f"Look at {name}{calls}: its kernels are in the table below."


# --- tables ------------------------------------------------------------------------------------------------------


def sides(diff: Diff, reader: Reader) -> Table:
    """Every stage of every new side."""
    outcomes = Outcome.all_of(diff.comparisons)
    table = shown(DIFF_SIDES, outcomes, reader)
    return _as_changes(table, [outcome.stage for outcome in outcomes])


def latencies(comparison: Comparison, reader: Reader) -> Table:
    """Each stage on both sides, with its answer."""
    return _as_changes(shown(DIFF_STAGES, comparison.stages, reader), comparison.stages)


def _as_changes(table: Table, stages: Sequence[StageDifference]) -> Table:
    """A table's latencies written so that they hold as they are shown, and its answers in their colours."""
    places = _places(table)
    answers = [place for place, heading in enumerate(table.columns) if heading.label == "Answer"]
    rows = []
    for cells, stage in zip(table.rows, stages, strict=True):
        row = list(cells)
        told = written(stage)
        if told is not None:
            before = f"{told.before} {told.after.rpartition(' ')[2]}"
            for label, text in zip((BASE, NEW, DIFFERENCE), (before, told.after, told.by), strict=True):
                if label in places:
                    row[places[label]] = evolve(row[places[label]], text=text)
        for place in answers:
            row[place] = evolve(row[place], kind=ANSWERS[stage.answer].kind)
        rows.append(tuple(row))
    return evolve(table, rows=tuple(rows))


def settings(comparison: Comparison, reader: Reader, limit: int | None = None) -> Table:
    """Settings that differ, those first that forbid to judge."""
    rows = sorted(comparison.settings, key=lambda row: not row.forbids)
    left_out = 0 if limit is None else len(rows) - limit
    note = f"{counted(left_out, 'more setting')} of the comparison: see diff.json." if left_out > 0 else None
    return shown(DIFF_SETTINGS, rows[:limit], reader, note=note)


def contributions(
    comparison: Comparison, stage: str, level: Level, reader: Reader, limit: int | None = None, *, key: str = ""
) -> Table:
    """Parts of a stage's difference at one level; they add up to it."""
    rows = of_level(comparison, stage, level)
    # How idle time was found is the same for all of it.
    notes = dict.fromkeys(visible(row.note) for row in rows if row.note and row.kind not in ("GPU time", "copies"))
    table = shown(
        DIFF_CONTRIBUTIONS, rows, reader, key=key or None, title=f"{LEVELS[level]}, {visible(stage)}", total=True,
        limit=limit, rest="({} more)", leave_out=("stage", "level"), note=" ".join(notes) if reader == "html" else None,
    )  # fmt: skip
    return _as_ledger(table)


def kernels(comparison: Comparison, stage: str, reader: Reader, limit: int | None = None, *, key: str = "") -> Table:
    """Kernels of a stage and what does their work on the new side, those that changed most first.

    Args:
        comparison: of the sides.
        stage: whose kernels.
        reader: format.
        limit: rows one by one; the others as one row.
        key: of the table; empty: the declaration's.
    """
    rows = matches(comparison, stage)
    table = shown(
        DIFF_KERNELS, rows, reader, key=key or None, title=f"Kernels, {visible(stage)}", total=True, limit=limit,
        rest="({} more)",
    )  # fmt: skip
    return _as_ledger(table)


def matches(comparison: Comparison, stage: str) -> list[KernelMatch]:
    """Matches of a stage, in the order in which they are shown."""
    return sorted(
        (row for row in comparison.kernels if row.stage == stage),
        key=lambda row: (-abs(row.difference_ns), row.module, row.base_names or row.new_names),
    )


def _places(table: Table) -> dict[str, int]:
    return {heading.label: place for place, heading in enumerate(table.columns)}


def _as_ledger(table: Table) -> Table:
    """Base, new and difference of a table in one unit, such that rows and columns add up as written."""
    places = _places(table)
    given = [[row[places[label]].sort or 0.0 for row in table.rows] for label in (BASE, NEW)]
    book = ledger(*given)
    columns = ((BASE, book.before), (NEW, book.after), (DIFFERENCE, book.by))
    rows = [list(row) for row in table.rows]
    total = list(table.total) if table.total is not None else None
    for (label, texts), whole in zip(columns, book.total, strict=True):
        for row, text in zip(rows, texts, strict=True):
            row[places[label]] = evolve(row[places[label]], text=text)
        if total is not None:
            total[places[label]] = Cell(whole)
    headings = tuple(
        evolve(heading, unit=book.unit) if heading.label in (BASE, NEW, DIFFERENCE) else heading
        for heading in table.columns
    )
    return evolve(
        table,
        columns=headings,
        rows=tuple(map(tuple, rows)),
        total=tuple(total) if total is not None else None,
    )


def columns(specs: Sequence[Specification[Any]]) -> list[tuple[str, str]]:
    """Label and definition of each column that the page shows, each once."""
    told: dict[str, str] = {}
    for spec in specs:
        for column in spec.for_reader("html"):
            if column.definition:
                told.setdefault(column.label, column.definition)
    return list(told.items())
