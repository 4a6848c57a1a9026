"""Who, where, with what – and the headline numbers."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

from attrs import evolve

from analysis.domain.figures import (
    NOT_AVAILABLE,
    bytes_,
    count,
    counted,
    decimal,
    duration,
    of_peak,
    part_of,
    share,
)
from analysis.efficiency.records import UnitTimes
from analysis.efficiency.utilisation import headline as headline_utilisation
from analysis.quality.findings import PARTIAL
from analysis.render.spec.shown import Fact, Tile
from analysis.render.spec.text import visible
from analysis.report import Report
from analysis.sums.records import StageSummary
from analysis.sums.stages import WHOLE_CAPTURE

__all__ = ["cautions", "devices", "headline", "model_name", "provenance", "subject", "title"]


def model_name(report: Report) -> str:
    """The model's id, or what the user stated, or that it is not known."""
    model, stated = report.report.model, report.capture.stated_model
    if model is not None:
        return visible(model.id)
    if stated is not None:
        return f"{visible(stated)} (as stated; the trace carries no manifest)"
    return "unknown model (the trace carries no manifest)"


def title(report: Report) -> str:
    """The model's id; where it is not known, the trace's file name."""
    return model_name(report) if report.report.model is not None else visible(PurePath(report.capture.trace_path).name)


def devices(report: Report) -> str:
    """Distinct device names."""
    names = dict.fromkeys(visible(name) for name in report.capture.device_names)
    if names:
        return ", ".join(names)
    return "CPU" if report.capture.on_cpu else "unknown device"


def subject(report: Report) -> tuple[Fact, ...]:
    """The first lines of every report: model, weights, collector, device."""
    capture = report.capture
    model = report.report.model
    parameters = f", {count(model.parameters)} parameters" if model is not None and model.parameters else ""
    dtype = f", {model.dtype}" if model is not None else ""
    weights = {True: "random", False: "from a checkpoint", None: "unknown: the trace does not say"}
    product = f" ({visible(capture.product)})" if capture.product and capture.product != capture.collector else ""
    return (
        Fact("Model", f"{model_name(report)}{parameters}{dtype}"),
        Fact("Weights", weights[capture.random_weights]),
        Fact("Collector", f"{visible(capture.collector)}{product}"),
        Fact("Device", devices(report)),
    )


_STALLS_NAMED: Final = 3


def cautions(report: Report, *, weights: bool = True) -> tuple[str, ...]:
    """What a reader must know before any number.

    Args:
        report: to read.
        weights: whether random weights are named; not where the line of what was run says it already.
    """
    sentences = [
        f"{finding.title[0].upper()}{finding.title[1:]}; {finding.evidence}."
        for finding in report.findings
        if finding.code == PARTIAL
    ]
    if weights and report.capture.random_weights:
        sentences.append(
            "Weights are random: times are those of the real architecture, but the generated text means nothing."
        )
    if report.capture.on_cpu:
        sentences.append(
            "Collector: torch on CPU. Leaf operators on the CPU stand where GPU kernels would; no GPU was profiled."
        )
    if report.skip_first:
        first = "instance" if report.skip_first == 1 else f"{count(report.skip_first)} instances"
        sentences.append(
            f"The first {first} of each stage is left out of medians, utilisation and verdicts (--skip-first "
            f"{report.skip_first}); tables of GPU time hold all of the trace."
        )
    if stalls := report.ranking.stalls:
        named = ", ".join(f"{visible(path)} {duration(ns)}" for path, ns in stalls[:_STALLS_NAMED])
        named += f" and {count(len(stalls) - _STALLS_NAMED)} more" if len(stalls) > _STALLS_NAMED else ""
        sentences.append(f"Stalled, so in no median and no verdict: {named}.")
    return tuple(sentences)


def _latency(report: Report, label: str, term: str, stage: str, unprofiled: str, profiled: str) -> Tile:
    """A headline latency: the median of the unprofiled values, else of the profiled ones, and said to be so."""
    by_name = {aggregate.name: aggregate for aggregate in report.aggregates}
    aggregate = by_name.get(unprofiled) or by_name.get(profiled)
    if aggregate is None:
        return Tile(label, NOT_AVAILABLE, f"no {stage} in the trace", term, stage)
    if aggregate.source == "trace":
        label, source = f"{label}, profiled", "profiled: no unprofiled control run"
    else:
        source = "unprofiled control run"
    low, high = duration(aggregate.minimum * 1e6), duration(aggregate.maximum * 1e6)
    spread = f"median of {count(aggregate.count)}, {low} to {high} · " if aggregate.count > 1 else ""
    return Tile(label, duration(aggregate.median * 1e6), spread + source, term, stage)


def _busy(times: UnitTimes, *, on_cpu: bool) -> Tile:
    what = "Operators busy" if on_cpu else "GPU busy"
    if times.busy_share is None:
        return Tile(f"{what}, {times.stage}", NOT_AVAILABLE, "no time passed", "busy_share", times.stage)
    shown = part_of(times.busy_ns, times.time_ns)
    each = "in all" if times.stage == WHOLE_CAPTURE else f"per {times.per}"
    note = f"{shown.part} of {shown.whole} {each}, {times.busy_share_base}"
    if times.capped_because:
        note += " (more than all of it: measured in two runs)"
    return Tile(f"{what}, {times.stage}", share(times.busy_share), note, "busy_share", times.stage)


_BASES: Final = {
    "unprofiled": "of the unprofiled time",
    "profiled elapsed": "of the profiled time",
    "profiled gpu busy": "of the profiled GPU-busy time",
}


def _utilisation(report: Report, stage: str, kind: str) -> Tile:
    row = headline_utilisation(report.utilisation, stage)
    value = None if row is None else row.mfu if kind == "mfu" else row.mbu
    label = f"{kind.upper()}, {stage}"
    if row is None or value is None:
        because = row.unknown_because if row is not None else None
        return Tile(label, NOT_AVAILABLE, visible(because or "not computed"), kind, stage)
    # Both over the whole base: an ideal time alone would be read as that of one image or token.
    ideal = f" · ideal {duration(row.ideal_ns)} of {duration(row.time_ns)}" if row.ideal_ns and row.time_ns else ""
    return Tile(label, of_peak(value), _BASES[row.time_base] + ideal, kind, stage)


def headline(report: Report) -> tuple[Tile, ...]:
    """At most eight numbers that answer "how fast, and how much of the device?"; one reason for several n/a is said once."""
    return _unknown_once(_headline(report))


def _unknown_once(tiles: tuple[Tile, ...]) -> tuple[Tile, ...]:
    """Numbers that are n/a for one reason as one tile, where the first of them stood."""
    reasons: dict[str, list[Tile]] = {}
    for tile in tiles:
        if tile.value == NOT_AVAILABLE:
            reasons.setdefault(tile.note, []).append(tile)
    told: list[Tile] = []
    for tile in tiles:
        same = reasons.get(tile.note, [tile]) if tile.value == NOT_AVAILABLE else [tile]
        if len(same) == 1:
            told.append(tile)
        elif tile is same[0]:
            names = " and ".join(dict.fromkeys(each.label.partition(",")[0] for each in same))
            stages = {each.stage for each in same}
            stage = stages.pop() if len(stages) == 1 else None
            told.append(evolve(tile, label=f"{names}, {stage}" if stage else names, stage=stage))
    return tuple(told)


def _headline(report: Report) -> tuple[Tile, ...]:
    present = [stage.stage for stage in report.stages]
    if present == [WHOLE_CAPTURE]:
        return _of_whole_capture(report, report.stages[0])
    if report.step_kinds:
        return _of_steps(report)
    tiles = [
        _latency(report, "Time to first token", "ttft", "prefill", "ttft_ms", "profiled_prefill_ms"),
        _latency(report, "Time per output token", "tpot", "decode", "tpot_ms", "profiled_tpot_ms"),
    ]
    tiles += [_busy(times, on_cpu=report.capture.on_cpu) for times in report.unit_times]
    tiles += [_utilisation(report, stage, "mfu") for stage in present]
    if "decode" in present:
        tiles.append(_utilisation(report, "decode", "mbu"))
        decode = next(row for row in report.stages if row.stage == "decode")
        # On a CPU nothing is launched; operators inside one another would make the number of outer calls meaningless.
        times = next(unit for unit in report.unit_times if unit.stage == "decode")
        if decode.tokens and report.capture.on_cpu:
            note = f"{count(decode.gpu.kernels)} operators, {count(decode.tokens)} tokens"
            each = decimal(decode.gpu.kernels / decode.tokens, 0)
            tiles.append(Tile("Operators per token", each, note, "kernels", "decode"))
        elif decode.tokens:
            median = f"median of {count(times.instances)}; " if times.instances > 1 else ""
            note = f"{median}{counted(decode.launches, 'launch', 'launches')} in all"
            tiles.append(Tile(f"Launches per {times.per}", decimal(times.launches, 0), note, "launches", "decode"))
    return tuple(tiles)


def _of_steps(report: Report) -> tuple[Tile, ...]:
    """Of a serving engine: how long the steps of each kind take, how busy the GPU is of it, and how many tokens come of all."""
    rows = [row for row in report.step_kinds if row.busy_ns]
    if not rows:
        return ()
    tiles = []
    for row in rows:
        held = "" if row.tokens_median is None else f", {decimal(row.tokens_median, 0)} tokens"
        note = f"median of {counted(row.steps - row.stalled - report.skip_first, 'step')}{held}, profiled"
        tiles.append(Tile(f"{row.kind.capitalize()} step", duration(row.step_median_ns), note, "step_kind", row.kind))
    # An empty step needs nothing, whatever its model.
    unknown = [row for row in report.utilisation if row.stage in {row.kind for row in rows} and row.mfu is None]
    busy = {row.kind for row in rows}
    if not unknown:  # eight tiles: how busy the GPU was is then told of the kind that takes most time
        busy = {max(rows, key=lambda row: row.step_ns).kind}
    tiles += [_busy(times, on_cpu=report.capture.on_cpu) for times in report.unit_times if times.stage in busy]
    known = [row.tokens for row in report.step_kinds if row.tokens is not None]
    window = max(step.finished_ns for step in report.steps) - min(step.start_ns for step in report.steps)
    if len(known) == len(report.step_kinds) and window:
        note = f"{count(sum(known))} of prompts and running requests in {duration(window)}, profiled"
        tiles.append(Tile("Tokens computed per second", count(round(sum(known) / window * 1e9)), note, "step_kind"))
    if unknown:
        tiles.append(Tile("MFU and MBU", NOT_AVAILABLE, visible(unknown[0].unknown_because or "not computed"), "mfu"))
    else:  # a decode step streams the weights for a few tokens: what limits it is told by bytes
        tiles += [_utilisation(report, row.kind, "mbu" if row.kind == "decode" else "mfu") for row in rows]
    return tuple(tiles)


def _of_whole_capture(report: Report, capture: StageSummary) -> tuple[Tile, ...]:
    """Of a trace without stages: nothing is known per token, but how busy the GPU was and what kept it waiting."""
    why = "the trace has no prefill and no decode ranges"
    tiles = [
        Tile("Window", duration(capture.profiled_ns), "first to last GPU operation, profiled", "projected"),
        *(_busy(times, on_cpu=report.capture.on_cpu) for times in report.unit_times),
        Tile("Kernels", count(capture.gpu.kernels), f"mean {duration(capture.mean_kernel_ns)}", "kernels"),
        Tile(
            "Launches", count(capture.launches), f"one every {duration(capture.mean_launch_gap_ns)}, mean", "launches"
        ),
    ]
    if capture.gaps is not None:
        tiles.append(
            Tile("Longest GPU idle", duration(capture.gaps.largest_ns), counted(capture.gaps.count, "gap"), "gap")
        )
    tiles += [
        Tile("Time to first token", NOT_AVAILABLE, why, "ttft"),
        Tile("Time per output token", NOT_AVAILABLE, why, "tpot"),
    ]
    return tuple(tiles)


def provenance(report: Report) -> tuple[Fact, ...]:
    """Where the numbers come from."""
    capture, meta, manifest = report.capture, report.report.meta, report.manifest
    facts = [
        Fact("Run", visible(report.report.run_id), code=True),
        Fact("Trace", visible(capture.trace_path), code=True),
        Fact("Trace size", bytes_(capture.trace_bytes)),
        Fact("Collector", visible(capture.collector)),
        Fact("Product", visible(capture.product or NOT_AVAILABLE)),
        Fact("Export schema", visible(capture.schema_version or NOT_AVAILABLE)),
        Fact("Captured at (UTC)", visible(capture.wall_clock or NOT_AVAILABLE)),
        Fact("Capture lasts", duration(capture.duration_ns)),
        Fact("Devices", devices(report)),
        Fact("Processes, threads", f"{count(capture.processes)}, {count(capture.threads)}"),
        Fact(
            "GPU operations",
            f"{counted(capture.kernels, 'kernel')}, {counted(capture.memcpys, 'copy', 'copies')}, "
            f"{counted(capture.memsets, 'memset')}, {counted(capture.graphs, 'graph')} as a whole",
        ),
        Fact("CUDA calls read", count(capture.api_calls)),
        Fact("Ranges", count(capture.ranges)),
        Fact(
            "Modules found in",
            "no domain: there are no module ranges"
            if capture.module_domain is None
            else visible(capture.module_domain) or "the default domain",
        ),
        Fact(
            "Range names read as",
            f"{visible(capture.vocabulary_title)}{', as --vocabulary says' if capture.vocabulary_stated else ''}: "
            f"{counted(capture.vocabulary_ranges, 'stage or step', 'stages and steps')}",
        ),
        Fact("Launches attributed across threads", "yes" if capture.cross_thread else "no"),
    ]
    if meta is not None:
        facts += [
            Fact("Created", meta.created_at.isoformat()),
            Fact("Repeats", count(meta.repeats)),
            Fact("Compute capability", meta.compute_capability or NOT_AVAILABLE),
            Fact("Git commit", visible(meta.git_commit or NOT_AVAILABLE), code=True),
        ]
    if manifest is not None:
        facts += [Fact(f"Version of {visible(name)}", visible(text)) for name, text in manifest.versions.items()]
        facts.append(Fact("Command", visible(" ".join(manifest.argv)) or NOT_AVAILABLE, code=True))
        facts += [Fact("Waits for the device", visible(reason)) for reason in manifest.synchronises]
        facts += [Fact("Note", visible(note)) for note in manifest.notes]
    else:
        facts.append(Fact("Manifest", "none: model, inputs and control run are not known"))
    return tuple(facts)
