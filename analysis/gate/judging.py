"""Limits against figures: passed, failed, or cannot judge, each with its numbers.

A latency has noise, which the comparison has measured (`analysis.compare.noise`): what exceeds a limit by less than that is not
called failed. GPU time, counts and shares come from one capture a side and are taken as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from analysis.compare.records import Comparison, SettingChange, StageDifference
from analysis.domain.bands import Band
from analysis.domain.errors import RequestError
from analysis.domain.figures import (
    bytes_,
    count,
    counted,
    decimal,
    duration,
    of_peak,
    ratio,
    signed_duration,
    signed_ratio,
    significant,
)
from analysis.domain.measures import require_possible
from analysis.domain.names import shortened
from analysis.gate.figures import figures
from analysis.gate.records import (
    TABLES,
    Amount,
    Check,
    Figure,
    GateResult,
    Limit,
    Outcome,
    Policy,
    UnitName,
)
from analysis.report import Report

__all__ = ["bands_of_policy", "judge", "written"]

_SHOWN = 100
"""Characters of a name that an error repeats."""
_COUNTS = ("launches", "synchronises", "copies", "memory")
"""Tables whose figures no clock and no device changes: only another model, other inputs or other options do."""
_WORK = ("model", "inputs")
"""Groups of settings that make another work of it."""


def bands_of_policy(policy: Policy, base_ns: Mapping[str, float]) -> dict[str, Band]:
    """The A/A bands that a policy states.

    Args:
        policy: read.
        base_ns: stage → median of the base, for bands that are relative; a stage that is not there gets none of these.
    """
    source = f"{policy.path} states {{}}"
    bands = {}
    for stage, amount in policy.bands.items():
        if not amount.relative:
            bands[stage] = Band(amount.value, source.format(amount.text))
        elif stage in base_ns:
            bands[stage] = Band(amount.value * base_ns[stage], source.format(amount.text))
    return bands


def judge(policy: Policy, comparison: Comparison, base: Report, new: Report) -> GateResult:
    """Hold a policy against two runs.

    Args:
        policy: read.
        comparison: of the runs; with the policy's bands in its intervals, where it states any.
        base: report of the base.
        new: report of the new side.

    Raises:
        RequestError: a limit names nothing that the runs have, and is not ``optional``.
    """
    known = figures(comparison, base, new)
    checks = tuple(check for limit in policy.limits for check in _checks(limit, known, comparison, policy.path))
    outcome = _overall(checks, policy)
    result = GateResult(
        headline=_headline(outcome, checks, comparison),
        outcome=outcome,
        on_cannot_judge=policy.on_cannot_judge,
        policy=policy.path,
        base=comparison.base,
        new=comparison.new,
        checks=checks,
        settings=comparison.settings,
        notes=(*_bands_of_nothing(policy, comparison), *comparison.notes),
    )
    require_possible(result, "the gate's result")
    return result


def _bands_of_nothing(policy: Policy, comparison: Comparison) -> list[str]:
    """Bands whose stage no side has: misspelled, or of another model that the policy serves as well."""
    stages = [stage.stage for stage in comparison.stages]
    return [
        f"{policy.path}: bands.{stage} is used for nothing: the stages that are compared are {', '.join(stages) or 'none'}."
        for stage in policy.bands
        if stage not in stages
    ]


def _overall(checks: Sequence[Check], policy: Policy) -> Outcome:
    if any(check.outcome == "failed" for check in checks):
        return "failed"
    if any(check.outcome == "cannot judge" for check in checks):
        undecided: dict[str, Outcome] = {"fail": "failed", "pass": "passed", "report": "cannot judge"}
        return undecided[policy.on_cannot_judge]
    return "passed"


def _headline(outcome: Outcome, checks: Sequence[Check], comparison: Comparison) -> str:
    numbers = {name: [check for check in checks if check.outcome == name] for name in ("failed", "cannot judge")}
    said = [f"{counted(len(checks), 'limit')} checked"]
    if numbers["failed"]:
        said.append(f"{len(numbers['failed'])} exceeded")
    if numbers["cannot judge"]:
        said.append(f"{len(numbers['cannot judge'])} cannot be judged")
    worst = next(iter(numbers["failed"] or numbers["cannot judge"]), None)
    first = f": {worst.subject}, {worst.because}" if worst is not None else "."
    word = {"passed": "Passed", "failed": "Failed", "cannot judge": "Cannot judge"}[outcome]
    return f"{word} ({', '.join(said)}){first}"


# --- one limit ----------------------------------------------------------------------------------------------------------


def _checks(limit: Limit, known: Sequence[Figure], comparison: Comparison, path: str) -> Iterator[Check]:
    of_table = [figure for figure in known if figure.table == limit.table]
    matching = [figure for figure in of_table if _matches(limit, figure)]
    if not matching and not limit.optional:
        raise RequestError(f"{path}: {limit.where} matches nothing in these runs: {_there_is(limit, of_table)}")
    for figure in matching:
        if limit.ignore_below is not None:
            sides = [value for value in (figure.base, figure.new) if value is not None]
            if sides and max(sides) < limit.ignore_below.value:
                continue
        difference = next((stage for stage in comparison.stages if stage.stage == figure.stage), None)
        forbidding = [
            change
            for change in comparison.settings
            if change.forbids and (limit.table not in _COUNTS or change.group in _WORK)
        ]
        if limit.max is not None:
            yield _bound(limit, figure, limit.max, difference, upper=True)
        if limit.min is not None:
            yield _bound(limit, figure, limit.min, difference, upper=False)
        if limit.max_increase is not None:
            yield _change(limit, figure, limit.max_increase, difference, forbidding, up=True)
        if limit.max_decrease is not None:
            yield _change(limit, figure, limit.max_decrease, difference, forbidding, up=False)


def _matches(limit: Limit, figure: Figure) -> bool:
    if not fnmatchcase(figure.stage, limit.stage):
        return False
    return any(name == limit.name or fnmatchcase(name, limit.name) for name in (figure.name, *figure.aliases))


def _there_is(limit: Limit, of_table: Sequence[Figure]) -> str:
    from difflib import get_close_matches  # for a mistake alone

    stages = list(dict.fromkeys(figure.stage for figure in of_table))
    if not any(fnmatchcase(stage, limit.stage) for stage in stages):
        return f"no stage is called {_told(limit.stage)}; there are {', '.join(stages) or 'none'}"
    names = list(dict.fromkeys(figure.name for figure in of_table if fnmatchcase(figure.stage, limit.stage)))
    near = get_close_matches(limit.name, names, n=3, cutoff=0.3) or names[:3]
    return (
        f"no {limit.table} is called {_told(limit.name)}; nearest {', '.join(shortened(name, _SHOWN) for name in near)}"
    )


def _told(name: str) -> str:
    return shortened(repr(name), _SHOWN)


def _bound(limit: Limit, figure: Figure, amount: Amount, difference: StageDifference | None, *, upper: bool) -> Check:
    """The new side's figure against a fixed one."""
    unit = TABLES[limit.table]
    words = f"at {'most' if upper else 'least'} {written(amount.value, unit)}"
    if figure.new is None:
        return _check(limit, figure, words, "cannot judge", f"n/a: {figure.unknown_because}")
    over = figure.new - amount.value if upper else amount.value - figure.new
    shown = f"{written(figure.new, unit)}{_per(figure)}"
    if over <= 0:
        return _check(limit, figure, words, "passed", f"{shown} is within the limit of {written(amount.value, unit)}.")
    said = f"{shown} is {_apart(over, unit)} {'above' if upper else 'below'} the limit of {written(amount.value, unit)}"
    interval = difference.interval if difference is not None and limit.table == "stage" else None
    if interval is not None and interval.band_ns is not None and over <= interval.band_ns:
        because = f"{said}, which is within the band of {duration(interval.band_ns)} ({interval.band_from})."
        return _check(limit, figure, words, "cannot judge", because)
    return _check(limit, figure, words, "failed", f"{said}.")


def _change(
    limit: Limit,
    figure: Figure,
    amount: Amount,
    difference: StageDifference | None,
    forbidding: Sequence[SettingChange],
    *,
    up: bool,
) -> Check:
    """The difference of the sides against what it may be."""
    unit = TABLES[limit.table]
    sign = "+" if up else "-"
    may = f"{sign}{ratio(amount.value) if amount.relative else written(amount.value, unit)}"
    words = f"at most {may}"
    if figure.base is None or figure.new is None:
        return _check(limit, figure, words, "cannot judge", f"n/a: {figure.unknown_because}")
    if forbidding:
        named = ", ".join(change.name for change in forbidding)
        because = f"The sides differ in {named}: {forbidding[0].because.rstrip('.')}."
        return _check(limit, figure, words, "cannot judge", because)
    grown = (figure.new - figure.base) * (1 if up else -1)
    allowed = amount.value * figure.base if amount.relative else amount.value
    said = f"{written(figure.base, unit)} → {written(figure.new, unit)}{_per(figure)}{_in_per_cent(figure)}"
    if limit.table == "stage" and difference is not None:
        outcome, because = _latency_change(difference, grown, allowed, said, up=up)
        return _check(limit, figure, words, outcome, because)
    if grown <= allowed:
        return _check(limit, figure, words, "passed", f"{said}: within {may}.")
    new = " (the base has none of it)" if figure.base == 0 else ""
    return _check(limit, figure, words, "failed", f"{said}{new}: more than {may}.")


def _latency_change(
    difference: StageDifference, grown: float, allowed: float, said: str, *, up: bool
) -> tuple[Outcome, str]:
    """A latency's change: what noise may have made is neither passed nor failed.

    Args:
        difference: of the stage.
        grown: by how much it changed in the direction of the limit, ns.
        allowed: by how much it may, ns.
        said: its numbers, in words.
        up: whether the limit is on growth.
    """
    interval = difference.interval
    if interval is None:
        return "cannot judge", f"{said}: {difference.because}"
    worst = interval.high_ns if up else -interval.low_ns
    if grown > allowed:
        if difference.answer == ("regression" if up else "improvement"):
            return "failed", f"{said}: more than {signed_duration(allowed if up else -allowed)}. {difference.because}"
        if difference.answer == "equal":
            return "passed", f"{said}: {difference.because}"
        return "cannot judge", f"{said}: {difference.because}"
    # Equal within a band that nobody measured is no proof either: a noisy machine would pass everything.
    unsure = difference.answer == "cannot judge" or (difference.answer == "equal" and not interval.band_measured)
    if unsure and worst > allowed:
        return (
            "cannot judge",
            f"{said}: {difference.because} It may be as much as {signed_duration(worst if up else -worst)}.",
        )
    return "passed", f"{said}: within {signed_duration(allowed if up else -allowed)}."


def _check(limit: Limit, figure: Figure, words: str, outcome: Outcome, because: str) -> Check:
    known = figure.base is not None and figure.new is not None
    return Check(
        table=limit.table,
        stage=figure.stage,
        name=figure.name,
        limit=words,
        unit=TABLES[limit.table],
        per=figure.per,
        base=figure.base,
        new=figure.new,
        difference=figure.new - figure.base if figure.new is not None and figure.base is not None else None,
        ratio=figure.new / figure.base if known and figure.new is not None and figure.base else None,
        outcome=outcome,
        because=because,
    )


# --- words --------------------------------------------------------------------------------------------------------------


def written(value: float | None, unit: UnitName) -> str:
    """A figure with its unit."""
    if unit == "ns":
        return duration(value)
    if unit == "bytes":
        return bytes_(value)
    if unit == "share":
        return of_peak(value)
    return count(int(value)) if value is not None and value == int(value) else significant(value)


def _apart(amount: float, unit: UnitName) -> str:
    """How far two figures are apart: shares in points, for 20 % is not 30 % below 50 %."""
    return f"{decimal(100 * amount, 1)} points" if unit == "share" else written(amount, unit)


def _per(figure: Figure) -> str:
    return f" per {figure.per}" if figure.per and TABLES[figure.table] != "share" else ""


def _in_per_cent(figure: Figure) -> str:
    if not figure.base or figure.new is None:
        return ""
    return f" ({signed_ratio(figure.new / figure.base - 1)})"
