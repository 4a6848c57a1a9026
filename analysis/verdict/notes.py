"""The stakeholder's summary: at most ten sentences, each with its numbers, made from the report's own facts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from analysis.domain.figures import times
from analysis.domain.manifest import Overhead
from analysis.domain.overhead import worth_a_warning
from analysis.efficiency.records import Aggregate, Utilisation
from analysis.quality.findings import Finding
from analysis.sums.records import CaptureInfo, CategoryRow, HostCallRow, StageSummary
from analysis.verdict.facts import per_cent
from analysis.verdict.records import Verdict

__all__ = ["MOST_SENTENCES", "SHARE_WORTH_NAMING", "sentences_in", "stakeholder_notes"]

MOST_SENTENCES: Final = 10
_STOP: Final = re.compile(r"[.!?](?=\s|$)")
SHARE_WORTH_NAMING: Final = 0.01


def stakeholder_notes(
    capture: CaptureInfo,
    findings: Sequence[Finding],
    stages: Sequence[StageSummary],
    verdicts: Sequence[Verdict],
    categories: Sequence[CategoryRow],
    utilisation: Sequence[Utilisation],
    overhead: Sequence[Overhead],
    aggregates: Sequence[Aggregate],
    host_calls: Sequence[HostCallRow],
) -> str:
    """Say where the time goes, why, what to do first and what it can bring.

    Returns:
        At most `MOST_SENTENCES` sentences; what matters least is left out.
    """
    # In the order of reading, each with how early it is kept where there is no room for all.
    parts = [
        (0, _caveats(capture, findings)),
        (1, _where(stages)),
        (2, [one.sentence for one in verdicts]),
        (5, _waits(host_calls)),
        (6, _categories(categories)),
        (3, _first_step(verdicts)),
        (4, _useful(utilisation, aggregates)),
        (7, _overhead(overhead)),
    ]
    if any(one.severity == "unfit" for one in findings):
        parts = [parts[0], parts[2]]  # what an unfit capture seems to show is no news
    room = MOST_SENTENCES
    kept: list[tuple[int, str]] = []
    for _, place in sorted((rank, place) for place, (rank, _) in enumerate(parts)):
        for text in parts[place][1]:
            needed = sentences_in(text)
            if needed <= room:
                room -= needed
                kept.append((place, text))
    return " ".join(text for _, text in sorted(kept, key=lambda one: one[0]))


def sentences_in(text: str) -> int:
    """How many sentences a text holds: what ends in a stop before a blank or at the end."""
    return len(_STOP.findall(text))


def _caveats(capture: CaptureInfo, findings: Sequence[Finding]) -> list[str]:
    found = []
    unfit = [one for one in findings if one.severity == "unfit"]
    if unfit:
        found.append(f"This capture is unfit for conclusions: {unfit[0].title} ({unfit[0].evidence}).")
    if capture.random_weights:
        found.append("Weights are random: times hold for this architecture, outputs mean nothing.")
    if capture.on_cpu:
        found.append("Collector: torch on CPU; leaf operators stand where GPU kernels would.")
    return found


def _where(stages: Sequence[StageSummary]) -> list[str]:
    total = sum(one.host_elapsed_ns for one in stages)
    if not total:
        return []
    parts = [
        f"{one.stage} {one.host_elapsed_ns / 1e6:,.1f} ms ({one.host_elapsed_ns / total:.0%})"
        for one in sorted(stages, key=lambda one: -one.host_elapsed_ns)
    ]
    return [f"Of {total / 1e6:,.1f} ms in stages, {' and '.join(parts)}."]


def _waits(rows: Sequence[HostCallRow]) -> list[str]:
    """Name the module that holds most waits, if it holds most of them."""
    modules = [one for one in rows if one.level == "module" and one.kind == "synchronise"]
    if not modules:
        return []
    by_call: dict[str, int] = {}
    for one in modules:
        by_call[one.call] = by_call.get(one.call, 0) + one.calls
    top = modules[0]
    if top.where == "(unattributed)" or top.calls * 2 <= by_call[top.call]:
        return []
    return [
        f"{top.calls:,} of {by_call[top.call]:,} {top.call} calls sit inside {top.where}, where the host waits "
        f"{top.total_ns / 1e6:,.1f} ms."
    ]


def _categories(rows: Sequence[CategoryRow]) -> list[str]:
    found = []
    for stage in ("prefill", "decode"):
        top = [one for one in rows if one.stage == stage and one.share >= SHARE_WORTH_NAMING][:2]
        if top:
            named = ", ".join(f"{one.category} {one.share:.0%}" for one in top)
            found.append(f"{stage.capitalize()}'s device time is mostly {named}.")
    return found


def _first_step(verdicts: Sequence[Verdict]) -> list[str]:
    gains = [one for one in verdicts if one.ceiling_ns]
    if not gains:
        return []
    best = max(gains, key=lambda one: one.ceiling_ns or 0)
    return [f"First, for {best.stage}: {best.action} {best.ceiling}"]


def _useful(rows: Sequence[Utilisation], aggregates: Sequence[Aggregate]) -> list[str]:
    found = []
    for base in ("control", "elapsed"):
        staged = [one for one in rows if one.time_base == base and one.stage in ("prefill", "decode")]
        known = [one for one in staged if one.mfu is not None]
        if known:
            seen: dict[str, str] = {}
            for one in known:
                mbu = f", MBU {per_cent(one.mbu, 2, at_least=1)}" if one.mbu is not None else ""
                seen.setdefault(one.stage, f"{one.stage} MFU {per_cent(one.mfu, 2, at_least=1)}{mbu}")
            clock = "unprofiled time" if base == "control" else "profiled host time"
            found.append(f"Against {known[0].peak_how} peaks over {clock}: {'; '.join(seen.values())}.")
            break
    else:
        reason = next((one.unknown_because for one in rows if one.unknown_because), None)
        if reason:
            found.append(f"MFU is n/a: {reason}.")
    latency = {one.name: one for one in aggregates}
    if "ttft_ms" in latency and "tpot_ms" in latency:
        found.append(
            f"Unprofiled, the first token takes {latency['ttft_ms'].median:,.1f} ms and each further one "
            f"{latency['tpot_ms'].median:,.2f} ms (medians)."
        )
    return found


def _overhead(rows: Sequence[Overhead]) -> list[str]:
    heavy = [one for one in rows if worth_a_warning(one)]
    if not heavy:
        return []
    named = ", ".join(f"{one.stage} {times(one.factor)}" for one in heavy)
    return [f"Profiling slowed the run ({named}); shares hold, latencies are the control run's; try the preset light."]
