"""Do the NVTX ranges fit together? Lost ends, depths, counts of siblings, cold starts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.attribution.range_tree import Indices
from analysis.domain.annotations import MODULE_DOMAIN, STAGE_DOMAIN
from analysis.domain.figures import counted
from analysis.quality.findings import Finding

__all__ = ["check"]

# Thresholds. In the good captures at hand (H100 and H200, eager and graph, 4 to 192 steps) no range lasts more than
# 15 times its name's median, but for a collective that waits for a late rank (217 times); in the lossy one, the four
# whose ends were lost last 808 to 1,774 times theirs, and contain their own successors.
LOST_END_FACTOR: Final = 20
"""A range this many times longer than its name's median *that contains its own name again* lost its end."""
LONG_FACTOR: Final = 100
"""A range this many times longer than its name's median is remarkable, without contradicting anything."""
LONG_SHARE: Final = 0.01
"""… if it also lasts this share of all the time that ranges cover."""
FEWEST_SIBLINGS: Final = 4
"""Ranges of a name that a median needs."""
COLD_SHARE: Final = 0.10
"""A first step or instance is a cold start if, without its excess over the median of the others, its stage would
have been this share shorter: then the stage's mean does not describe its steady state. Good captures: at most 1.5 % by
the first of four steps of `small`, 0.1 % in the 64-step ones."""
SLOW_STEP_FACTOR: Final = 10
"""An engine's step this many times longer than the median of its kind did something else than its work, if it also lasts
`COLD_SHARE` of its kind's time: steps of a kind differ in tokens, by 6 times in the good captures at hand."""
SAME_WORK: Final = 0.02
"""Two instances did the same work if their numbers of GPU operations differ by at most this share."""
_SHOWN: Final = 5

_DIGITS: Final = re.compile(r"\d+")
_ROUTED: Final = re.compile(r"expert", re.IGNORECASE)
"""Experts run when the router chooses them: their counts differ in a perfect capture."""
_SIZED: Final = re.compile(r"[({]")
"""A serving engine names a step by its composition (``execute_context_3(819)_generation_0(0)``) or a module with the shapes
of its inputs: numbers in such a name count no layers."""


def check(attribution: Attribution) -> list[Finding]:
    """All checks that need ranges only."""
    level = attribution.is_level("module") | attribution.is_level("image")
    level |= attribution.is_level("stage") | attribution.is_level("step")
    rows = np.flatnonzero(level).astype(np.int32)
    findings = _unclosed(attribution)
    if rows.size:
        factor = _times_the_median(attribution, rows)
        lost = rows[(factor >= LOST_END_FACTOR) & attribution.tree.contains_its_name()[rows]]
        findings += _lost_ends(attribution, lost, dict(zip(rows.tolist(), factor.tolist(), strict=True)))
        findings += _long(attribution, rows, factor, lost)
        findings += _depths(attribution, rows)
        findings += _unequal_siblings(attribution)
    findings += _other_threads(attribution)
    findings += _cold_steps(attribution)
    findings += _cold_instances(attribution)
    findings += _slow_steps(attribution)
    return findings


def _names(attribution: Attribution, rows: Iterable[int]) -> str:
    """Distinct names, the first few."""
    distinct = list(dict.fromkeys(attribution.qualified_name(int(row)) for row in rows))
    more = f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
    return ", ".join(distinct[:_SHOWN]) + more


def _ms(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e6:,.2f} ms"


def _group(attribution: Attribution, rows: Indices) -> NDArray[np.int64]:
    """Thread, domain and name of each row as one dense number, [rows]."""
    ranges = attribution.ranges
    domains, names = len(ranges.domains), len(ranges.names)
    thread = ranges.thread[rows].astype(np.int64) + 1
    packed = (thread * domains + ranges.domain[rows]) * names + ranges.name[rows]
    dense: NDArray[np.int64] = np.unique(packed, return_inverse=True)[1].astype(np.int64)
    return dense


def _times_the_median(attribution: Attribution, rows: Indices) -> NDArray[np.float64]:
    """Duration over the median of its thread, domain and name, [rows]; 0 where there are too few to tell."""
    duration = (attribution.ranges.end - attribution.ranges.start)[rows]
    group = _group(attribution, rows)
    order = np.lexsort((duration, group))
    size = np.bincount(group)
    median = duration[order][np.cumsum(size) - size + (size - 1) // 2]
    factor: NDArray[np.float64] = duration / np.maximum(median[group], 1)
    return np.where(size[group] >= FEWEST_SIBLINGS, factor, 0.0)


def _unclosed(attribution: Attribution) -> list[Finding]:
    rows = np.flatnonzero(attribution.ranges.unclosed)
    if not rows.size:
        return []
    return [
        Finding(
            code="unclosed-ranges",
            severity="warning",
            title=f"{counted(rows.size, 'range was', 'ranges were')} never closed",
            evidence=f"no end is recorded for {_names(attribution, rows)}; they are taken to last to the end of the trace",
            remedy="close every range before the capture ends, or stop the capture later",
        )
    ]


def _lost_ends(attribution: Attribution, lost: Indices, factor: dict[int, float]) -> list[Finding]:
    if not lost.size:
        return []
    ranges = attribution.ranges
    ours = [ranges.domains[code] in (STAGE_DOMAIN, MODULE_DOMAIN) for code in ranges.domain[lost].tolist()]
    several = len(set(ranges.name[lost].tolist())) > 1
    longest = sorted(lost.tolist(), key=lambda row: -factor[row])[:_SHOWN]
    worst = "; ".join(
        f"{attribution.qualified_name(row)} lasts {_ms(int(ranges.end[row] - ranges.start[row]))}, "
        f"{factor[row]:,.0f} times its median"
        for row in longest
    )
    return [
        Finding(
            code="lost-range-ends",
            # One name of a stranger's may be a recursion; one of ours, or several, cannot be.
            severity="unfit" if any(ours) or several else "warning",
            title=f"{counted(lost.size, 'range swallowed its', 'ranges swallowed their')} own successors: "
            f"{'its end was' if lost.size == 1 else 'their ends were'} lost",
            evidence=f"{worst}; each contains ranges of its own name, which run one after the other elsewhere",
            remedy="capture again: everything launched since then is attributed to the wrong range",
        )
    ]


def _long(attribution: Attribution, rows: Indices, factor: NDArray[np.float64], lost: Indices) -> list[Finding]:
    ranges = attribution.ranges
    duration = (ranges.end - ranges.start)[rows]
    span = int(ranges.end.max() - ranges.start.min())
    long = (factor >= LONG_FACTOR) & (duration >= LONG_SHARE * span) & ~np.isin(rows, lost)
    chosen = rows[long]
    if not chosen.size:
        return []
    worst = int(np.argmax(np.where(long, factor, 0)))
    return [
        Finding(
            code="long-ranges",
            severity="warning",
            title=f"{counted(chosen.size, 'range is far longer than its', 'ranges are far longer than their')} siblings",
            evidence=(
                f"{attribution.qualified_name(int(rows[worst]))} lasts {_ms(int(duration[worst]))} once, "
                f"{factor[worst]:,.0f} times its median (names: {_names(attribution, chosen)})"
            ),
            remedy="look there on the timeline: a wait for another rank, a compilation or an interrupted process",
        )
    ]


def _depths(attribution: Attribution, rows: Indices) -> list[Finding]:
    """Names that stand at several depths: a module has one place in the model."""
    ranges, depth = attribution.ranges, attribution.tree.depth
    group = _group(attribution, rows)
    size = int(group.max()) + 1
    low = np.full(size, np.iinfo(np.int32).max, dtype=np.int32)
    high = np.full(size, -1, dtype=np.int32)
    np.minimum.at(low, group, depth[rows])
    np.maximum.at(high, group, depth[rows])
    several = rows[(high > low)[group]]
    if not several.size:
        return []
    ours = np.isin(
        ranges.domain[several],
        [ranges.domains.index(domain) for domain in (STAGE_DOMAIN, MODULE_DOMAIN) if domain in ranges.domains],
    )
    nested = ~attribution.tree.first_of_its_name()[several]
    return [
        Finding(
            code="depth-anomalies",
            severity="warning" if bool(ours.any() or nested.any()) else "info",
            title="ranges of one name lie at different depths",
            evidence=f"{_names(attribution, several)}: depths {int(low[high > low].min())} to {int(high.max())}",
            remedy="if these names belong to one place in the model, range ends were lost: capture again",
        )
    ]


def _unequal_siblings(attribution: Attribution) -> list[Finding]:
    """Layers that must have run equally often, but did not: ``layers.0`` nine times, ``layers.5`` seven."""
    ranges = attribution.ranges
    rows = np.flatnonzero(attribution.is_level("module"))
    if not rows.size:
        return []
    # Names are few, whatever the number of ranges: from here on it goes by name and thread.
    width = len(ranges.names)
    key, count = np.unique(ranges.thread[rows].astype(np.int64) * width + ranges.name[rows], return_counts=True)
    families: dict[tuple[int, str], dict[str, int]] = {}
    for packed, times in zip(key.tolist(), count.tolist(), strict=True):
        name = ranges.names[packed % width]
        if _DIGITS.search(name) and not _ROUTED.search(name) and not _SIZED.search(name):
            families.setdefault((packed // width, _DIGITS.sub("*", name)), {})[name] = times
    unequal = {
        template: counts
        for (_, template), counts in families.items()
        if len(set(counts.values())) > 1 and len(counts) > 2
    }
    if not unequal:
        return []
    template, counts = max(unequal.items(), key=lambda item: max(item[1].values()) - min(item[1].values()))
    least, most = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    # A capture that begins or ends inside a step is off by one without any loss.
    edge = all(max(counts.values()) - min(counts.values()) <= 1 for counts in unequal.values())
    return [
        Finding(
            code="unequal-siblings",
            severity="info" if edge else "warning",
            title="layers that run equally often were seen unequally often",
            evidence=f"{template}: {least} {counts[least]} times, {most} {counts[most]} times"
            + (f"; {len(unequal)} such families" if len(unequal) > 1 else ""),
            remedy="capture whole steps" if edge else "capture again: ranges are missing",
        )
    ]


def _other_threads(attribution: Attribution) -> list[Finding]:
    ranges = attribution.ranges
    across = np.flatnonzero((ranges.end_thread >= 0) & (ranges.end_thread != ranges.thread))
    if not across.size:
        return []
    return [
        Finding(
            code="ranges-across-threads",
            severity="info",
            title=f"{counted(across.size, 'range ends', 'ranges end')} on another thread than where "
            f"{'it' if across.size == 1 else 'they'} began",
            evidence=f"{_names(attribution, across)}; they hold the calls of the thread that began them",
            remedy="--cross-thread also offers them the calls that other threads make meanwhile",
        )
    ]


def _cold_steps(attribution: Attribution) -> list[Finding]:
    """The first decode step of each decode against the median of its others."""
    ranges = attribution.ranges
    steps = np.flatnonzero(attribution.is_level("step")).astype(np.int32)
    if not steps.size:
        return []
    stage = np.append(attribution.tree.nearest(attribution.is_level("stage")), np.int32(-1))[steps]
    duration = (ranges.end - ranges.start)[steps]
    order = np.lexsort((ranges.start[steps], stage))
    worst: tuple[float, int, int, float] | None = None
    for members in np.split(order, np.flatnonzero(np.diff(stage[order])) + 1):
        if members.size < FEWEST_SIBLINGS:
            continue
        first, usual = int(duration[members[0]]), float(np.median(duration[members[1:]]))
        share = (first - usual) / max(int(duration[members].sum()), 1)
        if share > COLD_SHARE and (worst is None or share > worst[0]):
            worst = (share, int(stage[members[0]]), first, usual)
    if worst is None:
        return []
    share, row, first, usual = worst
    where = attribution.instance_names.get(row, "decode")
    return [
        Finding(
            code="cold-start",
            severity="warning",
            title="the first captured decode step is far slower than the rest",
            evidence=f"{where}: {_ms(first)}, then {_ms(usual)} in the median; the excess is {share:.0%} of its steps' time",
            remedy="warm up before the capture starts, or capture more steps; read medians, not means",
        )
    ]


def _slow_steps(attribution: Attribution) -> list[Finding]:
    """Steps of an engine that last far longer than others of their kind: a compilation, a graph that is recorded."""
    ranges = attribution.ranges
    findings = []
    for kind in attribution.stages:
        rows = attribution.stage_rows(kind)
        rows = rows[[attribution.composition(row) is not None for row in rows.tolist()]] if rows.size else rows
        if rows.size < FEWEST_SIBLINGS:
            continue
        duration = (ranges.end - ranges.start)[rows]
        usual, whole = float(np.median(duration)), max(int(duration.sum()), 1)
        slow = rows[(duration >= SLOW_STEP_FACTOR * usual) & (duration >= COLD_SHARE * whole)]
        if not slow.size:
            continue
        told = ", ".join(
            f"{attribution.instance_names[row]} ({ranges.names[ranges.name[row]]}) {_ms(int(ranges.end[row] - ranges.start[row]))}"
            for row in slow[:_SHOWN].tolist()
        )
        share = int((ranges.end - ranges.start)[slow].sum()) / whole
        findings.append(
            Finding(
                code="slow-steps",
                severity="warning",
                title=f"{counted(slow.size, 'step is', 'steps are')} far slower than the other {kind} steps",
                evidence=f"{told}; the median of the {rows.size:,} {kind} steps is {_ms(usual)} (host elapsed); "
                f"{share:.0%} of their time",
                remedy="warm up with requests of the same sizes before the capture starts (compilation, graph recording); "
                "what stalls is in sums of GPU time, but in no median and no verdict",
            )
        )
    return findings


def _cold_instances(attribution: Attribution) -> list[Finding]:
    """The first instance of each stage against later ones that did the same work."""
    ranges = attribution.ranges
    rows = np.flatnonzero(attribution.is_level("stage")).astype(np.int32)
    rows = rows[np.argsort(ranges.start[rows], kind="stable")]
    done = np.bincount(attribution.operation_level("stage") + 1, minlength=len(ranges) + 1)[1:]
    findings = []
    for code in dict.fromkeys(ranges.name[rows].tolist()):
        of_name = rows[ranges.name[rows] == code]
        first, others = int(of_name[0]), of_name[1:]
        alike = others[np.abs(done[others] - done[first]) <= SAME_WORK * max(int(done[first]), 1)]
        if not alike.size or not done[first]:
            continue
        duration = ranges.end - ranges.start
        usual = float(np.median(duration[alike]))
        total = int(duration[first] + duration[alike].sum())
        share = (int(duration[first]) - usual) / max(total, 1)
        if share > COLD_SHARE:
            findings.append(
                Finding(
                    code="cold-start",
                    severity="warning",
                    title=f"the first captured {ranges.names[code]} is far slower than later ones of the same work",
                    evidence=(
                        f"{attribution.instance_names[first]}: {_ms(int(duration[first]))}, then {_ms(usual)} in the "
                        f"median of {alike.size} with as many GPU operations; the excess is {share:.0%} of their time"
                    ),
                    remedy="warm up with the same input before the capture starts" + _skipping(attribution, first),
                )
            )
    return findings


def _skipping(attribution: Attribution, first: int) -> str:
    """The option that leaves out the first instance of each stage, where there is more than one, and they are no engine's steps."""
    alone = any(attribution.stage_rows(stage).size == 1 for stage in attribution.stages)
    return "" if alone or attribution.composition(first) is not None else "; leave the first one out (--skip-first 1)"
