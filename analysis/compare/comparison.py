"""Hold one run against another: settings, latencies, and where their difference comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import evolve

from analysis.compare.alignment import ALL_MODULES, KernelTime, align, modules_unknown, same_modules, without_modules
from analysis.compare.contributions import Explanation, explain, latency_ns
from analysis.compare.headline import headline, headline_of_all
from analysis.compare.noise import answer, band_of, interval, levelled
from analysis.compare.records import Comparison, Contribution, Diff, KernelMatch, SettingChange, StageDifference
from analysis.compare.settings import setting_changes
from analysis.compare.sides import Side, StageSide, inputs_of, samples_of
from analysis.domain.bands import Band
from analysis.domain.figures import duration, ratio, signed_duration
from analysis.domain.measures import require_possible

__all__ = ["compare", "compare_all"]

_MODULE_CHANGE: Final = 0.05
"""Share of its own GPU time by which a module must change to be named although its stage's latency did not."""
_MODULE_SHARE: Final = 0.005
"""And of the stage's GPU time."""
_MODULES_NAMED: Final = 3
_OTHER_SCALE: Final = 0.03
"""From here on it is said that the median instance and the mean differ."""


def compare(base: Side, new: Side, bands: Mapping[str, Band | float] | None = None) -> Comparison:
    """Hold a run against another one.

    Args:
        base: the run to compare with.
        new: the run to judge.
        bands: stage → by how much unchanged runs of it differ on this machine, ns per unit; None: not known.
    """
    both = [stage for stage in base.stages if stage in new.stages]
    timed = [stage for stage in both if None not in (base.stages[stage].unprofiled_ns, new.stages[stage].unprofiled_ns)]
    settings, notes = setting_changes(base, new, unprofiled=bool(timed))
    remarks = [
        *_same_run(base, new),
        *notes,
        *_missing_stages(base, new),
        *_profiled_note(base, new, [stage for stage in both if stage not in timed]),
    ]
    stages: list[StageDifference] = []
    contributions: list[Contribution] = []
    kernels: list[KernelMatch] = []
    for stage in both:
        mine, theirs = base.stages[stage], new.stages[stage]
        if mine.per != theirs.per:
            remarks.append(
                f"{stage} is counted per {mine.per} on the base and per {theirs.per} on the new side: not compared."
            )
            continue
        unprofiled = stage in timed
        matches, modules, about = _aligned(base, new, stage)
        remarks += about
        explanation = explain(base, new, stage, matches, modules, unprofiled=unprofiled)
        stages.append(_difference(base, new, stage, settings, explanation, bands, unprofiled=unprofiled))
        remarks += _of_scale(mine, theirs)
        remarks += _modules_that_changed(stages[-1], explanation.contributions, on_cpu=base.report.capture.on_cpu)
        if unprofiled:
            remarks.append(_under_the_profiler(mine, theirs, checked=explanation.checked))
        contributions += explanation.contributions
        kernels += matches
    made = Comparison(
        base=base.summary(),
        new=new.summary(),
        headline="",
        settings=settings,
        stages=tuple(stages),
        contributions=tuple(contributions),
        kernels=tuple(kernels),
        notes=tuple(remarks),
    )
    made = evolve(made, headline=headline(made))
    require_possible(made, "the comparison")
    return made


def compare_all(sides: Sequence[Side], bands: Mapping[str, Band | float] | None = None) -> Diff:
    """Hold every run but the first against the first.

    Args:
        sides: two or more.
        bands: as for `compare`.
    """
    comparisons = tuple(compare(sides[0], side, bands) for side in sides[1:])
    return Diff(headline=headline_of_all(comparisons), comparisons=comparisons)


def _difference(
    base: Side, new: Side, stage: str, settings: Sequence[SettingChange], explanation: Explanation,
    bands: Mapping[str, Band | float] | None, *, unprofiled: bool,
) -> StageDifference:  # fmt: skip
    mine, theirs = base.stages[stage], new.stages[stage]
    before, after = latency_ns(mine, unprofiled=unprofiled), latency_ns(theirs, unprofiled=unprofiled)
    difference = after - before
    sure = None
    if unprofiled:
        samples = levelled(
            samples_of(base.report, stage),
            inputs_of(base.report, stage),
            samples_of(new.report, stage),
            inputs_of(new.report, stage),
        )
        # On a CPU the operators are the host's work: nothing tells what of the time paces the rest.
        busy = None if base.report.capture.on_cpu or new.report.capture.on_cpu else (mine.busy_ns, theirs.busy_ns)
        sure = interval(*samples, band_of(stage, bands or {}), busy=busy)
    judged, because = answer(difference, sure, [change for change in settings if change.forbids], before)
    return StageDifference(
        stage=stage,
        per=mine.per,
        unprofiled=unprofiled,
        base_ns=before,
        new_ns=after,
        difference_ns=difference,
        ratio=after / before if before else None,
        interval=sure,
        answer=judged,
        because=because,
        explained=(difference - explanation.rest_ns) / difference if difference and explanation.checked else None,
    )


def _aligned(
    base: Side, new: Side, stage: str
) -> tuple[tuple[KernelMatch, ...], list[tuple[str, float, float, float, float]], list[str]]:
    """Kernels and modules of both sides side by side, and what to say of it."""
    mine, theirs = base.stages[stage], new.stages[stage]
    before, after = _kernel_times(base, mine), _kernel_times(new, theirs)
    own, other = base.modules(mine), new.modules(theirs)
    if modules_unknown(before) != modules_unknown(after):
        blind = base.label if modules_unknown(before) else new.label
        total = [sum(row.ns for row in side.values()) for side in (own, other)]
        calls = [sum(row.calls for row in side.values()) for side in (own, other)]
        note = (
            f"{stage}: {blind} does not say which module launched its kernels, so kernels are paired without modules."
        )
        return (
            align(stage, without_modules(before), without_modules(after)),
            [(ALL_MODULES, total[0], total[1], calls[0], calls[1])],
            [note],
        )
    renamed = same_modules(own, other)
    kernel_modules = same_modules(
        dict.fromkeys([*own, *(kernel.module for kernel in before)]),
        dict.fromkeys([*other, *(kernel.module for kernel in after)]),
    )
    after = [evolve(kernel, module=kernel_modules[kernel.module]) for kernel in after]
    at = {renamed[module]: row for module, row in other.items()}
    rows = [
        (
            module,
            own[module].ns if module in own else 0.0,
            at[module].ns if module in at else 0.0,
            own[module].calls if module in own else 0.0,
            at[module].calls if module in at else 0.0,
        )
        for module in dict.fromkeys((*own, *at))
    ]
    return align(stage, before, after), rows, _renamed_note(stage, renamed)


def _renamed_note(stage: str, renamed: Mapping[str, str]) -> list[str]:
    """Say which modules are taken for which; of many, for the first."""
    others = [(module, name) for module, name in renamed.items() if module != name]
    if not others:
        return []
    module, name = others[0]
    if len(others) == 1:
        return [f"{stage}: {module} of the new side is taken for {name} of the base."]
    return [
        f"{stage}: {len(others)} modules of the new side are taken for modules of other names on the base, such as {module} for "
        f"{name}."
    ]


def _kernel_times(side: Side, stage: StageSide) -> list[KernelTime]:
    traffic = side.traffic(stage)
    return [
        KernelTime(
            module=row.module,
            name=row.name,
            short_name=row.short_name,
            category=row.category,
            words=row.human_name or "",
            shape=(row.grid, row.block),
            calls=stage.count_per_unit(row.calls),
            ns=stage.per_unit(row.total_ns),
            place=row.order,
            bytes_per_call=traffic.get((row.module, row.name)),
        )
        for row in side.kernels(stage)
    ]


def _same_run(base: Side, new: Side) -> list[str]:
    """A run that is held against itself by mistake differs in nothing, and passes every relative limit."""
    run_id = base.report.report.run_id
    if run_id is None or run_id != new.report.report.run_id:
        return []
    return [f"Both sides are the same run ({run_id}): that they do not differ says nothing."]


def _missing_stages(base: Side, new: Side) -> list[str]:
    notes = []
    for side, other in ((base, new), (new, base)):
        notes += [f"{stage} is in {side.label} only." for stage in side.stages if stage not in other.stages]
    return notes


def _profiled_note(base: Side, new: Side, stages: Sequence[str]) -> list[str]:
    if not stages:
        return []
    without = [side.label for side in (base, new) if any(side.stages[stage].unprofiled_ns is None for stage in stages)]
    names = " and ".join(without)
    return [
        f"{', '.join(stages)}: {names} measured no passes without the profiler, so captured times are compared, which hold the "
        "profiler's cost."
    ]


def _modules_that_changed(stage: StageDifference, contributions: Sequence[Contribution], *, on_cpu: bool) -> list[str]:
    """Name modules whose GPU time changed where the latency did not for certain: an idle GPU hides slower kernels.

    The GPU times its kernels itself, so a module's time is far less noisy than a latency that the host makes.
    """
    if stage.answer in ("regression", "improvement"):
        return []
    rows = [
        row for row in contributions if (row.level, row.kind) == ("module", "GPU time") and row.base_ns and row.new_ns
    ]
    whole = sum(row.base_ns for row in rows)
    changed = [
        row for row in rows if abs(row.difference_ns) >= max(_MODULE_CHANGE * row.base_ns, _MODULE_SHARE * whole)
    ]
    if not changed:
        return []
    changed.sort(key=lambda row: -abs(row.difference_ns))
    named = ", ".join(
        f"{row.name} {signed_duration(row.difference_ns)} ({'+' if row.difference_ns > 0 else '−'}"
        f"{ratio(abs(row.difference_ns / row.base_ns))})"
        for row in changed[:_MODULES_NAMED]
    )
    more = f" and {len(changed) - _MODULES_NAMED} more" if len(changed) > _MODULES_NAMED else ""
    what = "time of operators" if on_cpu else "GPU time"
    return [f"{stage.stage}: whatever its latency, {what} per {stage.per} changed in {named}{more}."]


def _of_scale(base: StageSide, new: StageSide) -> list[str]:
    return [
        f"{side.stage} ({where}): the median instance's GPU time is {ratio(side.scale)} of the mean; rows are sums over all "
        "instances, brought to the median one."
        for side, where in ((base, "base"), (new, "new"))
        if abs(side.scale / (side.slowed or 1) - 1) > _OTHER_SCALE
    ]


def _under_the_profiler(base: StageSide, new: StageSide, *, checked: bool) -> str:
    captured = signed_duration(new.profiled_ns - base.profiled_ns)
    if base.slowed is not None or new.slowed is not None:
        return f"{base.stage}: a CPU ran it, which the profiler slows: parts are the capture's shares of the unprofiled time."
    times = f"{duration(base.profiled_ns)} and {duration(new.profiled_ns)} per {base.per}, {captured}"
    cost = "what profiling itself cost is taken off the idle time"
    if not checked:
        cost += (
            ". A side did not time its captured passes itself: that cost is taken from its trace, and how much of the difference "
            "is explained is not checked"
        )
    return f"{base.stage}: the captures say {times}; {cost}."
