"""The stakeholder's summary: at most ten sentences, each with its numbers, made from the report's own facts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from analysis.domain.figures import count, duration, of_peak, share, times, whole_per_cents
from analysis.domain.manifest import Overhead
from analysis.domain.overhead import worth_a_warning
from analysis.efficiency.records import Captured, Measured, Utilisation
from analysis.efficiency.utilisation import headline
from analysis.quality.findings import PARTIAL, Finding
from analysis.sums.grouping import UNATTRIBUTED
from analysis.sums.records import CaptureInfo, HostCallRow
from analysis.sums.stages import WHOLE_CAPTURE
from analysis.verdict.ranking import Ranking
from analysis.verdict.records import Verdict

__all__ = ["MOST_SENTENCES", "SHARE_WORTH_NAMING", "sentences_in", "stakeholder_notes"]

MOST_SENTENCES: Final = 10
_STOP: Final = re.compile(r"[.!?](?=\s|$)")
SHARE_WORTH_NAMING: Final = 0.01


def stakeholder_notes(
    measured: Measured, findings: Sequence[Finding], verdicts: Sequence[Verdict], ranking: Ranking
) -> str:
    """Say what to do first and what it can bring, where the time goes and why.

    Returns:
        At most `MOST_SENTENCES` sentences; what matters least is left out.
    """
    captured = measured.captured
    # In the order of reading, each with how early it is kept where there is no room for all.
    parts = [
        (0, [ranking.sentence]),
        (0, [f"{one.title[0].upper()}{one.title[1:]}." for one in findings if one.code == PARTIAL]),
        (0, _caveats(captured.capture)),
        (1, _where(measured)),
        (2, [one.sentence for one in verdicts]),
        (5, _waits(captured.host_calls)),
        (6, _categories(captured)),
        (4, [*_useful(measured.utilisation), *_latencies(measured)]),
        (7, _overhead(measured.overhead)),
    ]
    if any(one.severity == "unfit" for one in findings):
        parts = [parts[0], parts[1], parts[2], parts[4]]  # what an unfit capture seems to show is no news
    room = MOST_SENTENCES
    chosen: list[tuple[int, str]] = []
    for _, place in sorted((rank, place) for place, (rank, _) in enumerate(parts)):
        for text in parts[place][1]:
            needed = sentences_in(text)
            if needed <= room:
                room -= needed
                chosen.append((place, text))
    return " ".join(text for _, text in sorted(chosen, key=lambda one: one[0]))


def sentences_in(text: str) -> int:
    """How many sentences a text holds: what ends in a stop before a blank or at the end."""
    return len(_STOP.findall(text))


def _caveats(capture: CaptureInfo) -> list[str]:
    found = []
    if capture.random_weights:
        found.append("Weights are random: times hold for this architecture, outputs mean nothing.")
    if capture.on_cpu:
        found.append("Collector: torch on CPU; leaf operators stand where GPU kernels would.")
    return found


def _where(measured: Measured) -> list[str]:
    """Where the time of one pass over the inputs goes, unprofiled if every stage was measured so."""
    stages = [one for one in measured.unit_times if one.stage != WHOLE_CAPTURE and one.pass_profiled_ns]
    if not stages:
        return []
    unprofiled = all(one.pass_unprofiled_ns is not None for one in stages)
    spent = {one.stage: one.pass_time_ns if unprofiled else one.pass_profiled_ns for one in stages}
    parts = zip(sorted(spent, key=lambda name: -spent[name]), whole_per_cents(sorted(spent.values(), reverse=True)),
                strict=True)  # fmt: skip
    named = " and ".join(f"{name} {duration(spent[name])} ({part})" for name, part in parts)
    base = "one unprofiled pass" if unprofiled else "profiled"
    where = "steps that do not stall" if measured.captured.stalls() else "stages"
    return [f"Of {duration(sum(spent.values()))} in {where} ({base}), {named}."]


def _waits(rows: Sequence[HostCallRow]) -> list[str]:
    """Name the module that holds most waits, if it holds most of them."""
    modules = [one for one in rows if one.level == "module" and one.kind == "synchronise"]
    if not modules:
        return []
    by_call: dict[str, int] = {}
    for one in modules:
        by_call[one.call] = by_call.get(one.call, 0) + one.calls
    top = modules[0]
    if top.where == UNATTRIBUTED or top.calls * 2 <= by_call[top.call]:
        return []
    return [
        f"{count(top.calls)} of {count(by_call[top.call])} {top.call} calls sit inside {top.where}, where the host waits "
        f"{duration(top.total_ns)} under the profiler."
    ]


def _categories(captured: Captured) -> list[str]:
    found = []
    for stage in captured.stages:
        among = UNATTRIBUTED if stage.stage == WHOLE_CAPTURE else stage.stage
        top = [one for one in captured.categories if one.stage == among and one.share >= SHARE_WORTH_NAMING][:2]
        if top:
            named = ", ".join(f"{one.category} {share(one.share)}" for one in top)
            found.append(f"{stage.stage.capitalize()}'s device time is mostly {named}.")
    return found


def _useful(rows: Sequence[Utilisation]) -> list[str]:
    stages = dict.fromkeys(row.stage for row in rows if row.stage != "total")
    known = [one for stage in stages if (one := headline(rows, stage)) is not None and one.mfu is not None]
    if known:
        named = "; ".join(
            f"{one.stage} MFU {of_peak(one.mfu)}" + (f", MBU {of_peak(one.mbu)}" if one.mbu is not None else "")
            for one in known
        )
        clock = "unprofiled time" if known[0].time_base == "unprofiled" else "profiled time"
        return [f"Against {known[0].peak_how} peaks over {clock}: {named}."]
    reason = next((one.unknown_because for one in rows if one.unknown_because), None)
    return [f"MFU is n/a: {reason}."] if reason else []


def _latencies(measured: Measured) -> list[str]:
    ttft, tpot = measured.aggregate("ttft_ms"), measured.aggregate("tpot_ms")
    if ttft is None or tpot is None:
        return []
    return [
        f"Unprofiled, the first token takes {duration(ttft.median * 1e6)} and each further one "
        f"{duration(tpot.median * 1e6)} (medians)."
    ]


def _overhead(rows: Sequence[Overhead]) -> list[str]:
    heavy = [one for one in rows if worth_a_warning(one)]
    if not heavy:
        return []
    named = ", ".join(f"{one.stage} {times(one.factor)}" for one in heavy)
    return [f"Profiling slowed the run ({named}); shares hold, latencies are the control run's; try the preset light."]
