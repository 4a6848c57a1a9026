"""Who, where, with what – and the headline numbers."""

from __future__ import annotations

from pathlib import PurePath

from analysis.domain.figures import NOT_AVAILABLE, bytes_, count, decimal, duration, ratio, share
from analysis.efficiency.records import Aggregate, Utilisation
from analysis.render.spec.shown import Fact, Tile
from analysis.render.spec.text import visible
from analysis.report import Report
from analysis.sums.records import StageSummary

__all__ = ["cautions", "devices", "headline", "model_name", "preferred", "provenance", "subject", "title"]


def model_name(report: Report) -> str:
    """The model's id, or what the user stated, or that it is not known."""
    model, stated = report.report.model, report.capture.stated_model
    if model is not None:
        return visible(model.id)
    if stated is not None:
        return f"{visible(stated)} (as stated with --model; the trace carries no manifest)"
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


def cautions(report: Report) -> tuple[str, ...]:
    """What a reader must know before any number."""
    found = []
    if report.capture.random_weights:
        found.append(
            "Weights are random: times are those of the real architecture, but the generated text means nothing."
        )
    if report.capture.on_cpu:
        found.append(
            "Collector: torch on CPU. Leaf operators on the CPU stand where GPU kernels would; no GPU was profiled."
        )
    return tuple(found)


def preferred(report: Report, stage: str) -> Utilisation | None:
    """The utilisation row for headlines: the control run's if there is one, else host elapsed in the capture."""
    for base in ("control", "elapsed"):
        for row in report.utilisation:
            if row.stage == stage and row.time_base == base:
                return row
    return None


def _aggregate(report: Report, *names: str) -> Aggregate | None:
    by_name = {one.name: one for one in report.aggregates}
    return next((by_name[name] for name in names if name in by_name), None)


def _latency(report: Report, label: str, term: str, stage: str, *names: str) -> Tile:
    found = _aggregate(report, *names)
    if found is None:
        return Tile(label, NOT_AVAILABLE, f"no {stage} in the trace", term, stage)
    source = "unprofiled control run" if found.source == "control" else "profiled, so with its cost"
    spread = f"mean of {found.count}, ± {decimal(found.std, 2)} ms · " if found.count > 1 else ""
    return Tile(label, duration(found.mean * 1e6), spread + source, term, stage)


def _busy(stage: StageSummary, *, on_cpu: bool) -> Tile:
    note = f"{duration(stage.busy_ns)} of {duration(stage.host_elapsed_ns)} profiled"
    what = "Operators busy" if on_cpu else "GPU busy"
    return Tile(f"{what}, {stage.stage}", share(stage.profiled_busy_share), note, "busy_share", stage.stage)


def _utilisation(report: Report, stage: str, kind: str) -> Tile:
    row = preferred(report, stage)
    value = None if row is None else row.mfu if kind == "mfu" else row.mbu
    label = f"{kind.upper()}, {stage}"
    if row is None or value is None:
        because = row.unknown_because if row is not None else None
        return Tile(label, NOT_AVAILABLE, visible(because or "not computed"), kind, stage)
    base = {"control": "unprofiled", "elapsed": "of profiled host time", "gpu busy": "of GPU-busy time"}[row.time_base]
    # Both over the whole base: an ideal time alone would be read as that of one image or token.
    ideal = f" · ideal {duration(row.ideal_ns)} of {duration(row.time_ns)}" if row.ideal_ns and row.time_ns else ""
    return Tile(label, ratio(value), base + ideal, kind, stage)


def headline(report: Report) -> tuple[Tile, ...]:
    """At most eight numbers that answer "how fast, and how much of the device?"."""
    tiles = [
        _latency(report, "Time to first token", "ttft", "prefill", "ttft_ms", "profiled_prefill_ms"),
        _latency(report, "Time per output token", "tpot", "decode", "tpot_ms", "profiled_step_ms"),
    ]
    tiles += [_busy(stage, on_cpu=report.capture.on_cpu) for stage in report.stages]
    present = [stage.stage for stage in report.stages]
    tiles += [_utilisation(report, stage, "mfu") for stage in present]
    if "decode" in present:
        tiles.append(_utilisation(report, "decode", "mbu"))
        decode = next(one for one in report.stages if one.stage == "decode")
        # On a CPU nothing is launched; operators inside one another would make the number of outer calls meaningless.
        what, number = ("operators", decode.gpu.kernels) if report.capture.on_cpu else ("launches", decode.launches)
        if decode.tokens:
            note = f"{count(number)} {what}, {count(decode.tokens)} tokens"
            term = "kernels" if report.capture.on_cpu else "launches"
            tiles.append(
                Tile(f"{what.capitalize()} per token", decimal(number / decode.tokens, 0), note, term, "decode")
            )
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
            f"{count(capture.kernels)} kernels, {count(capture.memcpys)} copies, {count(capture.memsets)} memsets, "
            f"{count(capture.graphs)} graphs as a whole",
        ),
        Fact("CUDA calls read", count(capture.api_calls)),
        Fact("Ranges", count(capture.ranges)),
        Fact(
            "Modules found in",
            "no domain: there are no module ranges"
            if capture.module_domain is None
            else visible(capture.module_domain) or "the default domain",
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
        facts += [Fact("Waits for the device", visible(one)) for one in manifest.synchronises]
        facts += [Fact("Note", visible(one)) for one in manifest.notes]
    else:
        facts.append(Fact("Manifest", "none: model, inputs and control run are not known"))
    return tuple(facts)
