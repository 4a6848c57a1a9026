"""Assemble the report: every number once, from the trace's columns to `Report`."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from attrs import evolve, field, frozen

from analysis.attribution.attribution import Attribution
from analysis.consistency import bounds_of, sums_that_differ, verdicts_that_differ
from analysis.domain.annotations import STAGES
from analysis.domain.entities import KernelSummary, LLMProfileReport, ModelUnderTest, RunMeta
from analysis.domain.errors import RequestError, UnfitTraceError
from analysis.domain.manifest import Overhead, RunManifest
from analysis.domain.measures import Bounds, impossible_figures, inconsistent
from analysis.domain.overhead import decode_unit
from analysis.domain.predictions import Scored
from analysis.domain.program import WallTimes
from analysis.domain.redaction import redacted
from analysis.efficiency.beyond_peak import beyond_peak
from analysis.efficiency.config_costs import ConfigRequest
from analysis.efficiency.latency import aggregates, overheads, stage_timings, stats
from analysis.efficiency.records import Aggregate, Captured, Measured, RankWait, UnitTimes, Utilisation
from analysis.efficiency.stated import TraceEvidence, check_config, check_needs, check_stated
from analysis.efficiency.unit_times import unit_times
from analysis.efficiency.utilisation import (
    CostRequest,
    KnownCosts,
    KnownPeaks,
    PeakOverrides,
    component_needs,
    costs_of,
    headline,
    peak_tflops_bf16,
    peaks_of,
    shared,
    utilisations,
)
from analysis.quality.examine import examine, is_unfit
from analysis.quality.findings import Contradiction, Finding
from analysis.sums.gpu_metrics import metric_series
from analysis.sums.host_calls import HostCalls, host_call_rows
from analysis.sums.kernel_classes import is_communication, load_rules
from analysis.sums.kernel_modules import KernelModuleRow, StageUnits, kernel_module_rows, stage_units, unit_of_input
from analysis.sums.kernels import KernelTables, category_rows, kernel_tables, main_device, per_token
from analysis.sums.operators import operator_summaries
from analysis.sums.partial import images_held
from analysis.sums.records import (
    BusyTimeline,
    CaptureInfo,
    CategoryRow,
    GpuRow,
    HostCallRow,
    InstanceSummary,
    LeftOut,
    MetricSeries,
    StageSummary,
    StepPoint,
    StreamSummary,
)
from analysis.sums.stages import (
    WHOLE_CAPTURE,
    gpu_rows,
    instance_summaries,
    stage_summaries,
    step_points,
    stream_summaries,
    whole_capture,
)
from analysis.sums.step_kinds import StepKindRow, step_kind_rows
from analysis.sums.tables import gpu_table
from analysis.sums.timeline import busy_timeline
from analysis.sums.tokens import tokens_by_stage
from analysis.trace.distinct import present
from analysis.trace.reader import Trace
from analysis.trace.records import GRAPH, KERNEL, MEMCPY, MEMSET, Device, TraceInfo
from analysis.verdict.notes import stakeholder_notes
from analysis.verdict.predictions import scored_predictions
from analysis.verdict.ranking import Ranking, ranking_of
from analysis.verdict.records import Verdict
from analysis.verdict.rules import refused, verdicts

__all__ = [
    "Assembled",
    "Report",
    "ReportOptions",
    "assemble",
    "assemble_to_judge_again",
    "capture_info",
    "judged_again",
    "judged_alone",
]

_NO_RUN: Final = "unknown"
_NOT_COUNTABLE: Final = 2**63


@frozen
class Report:
    """Everything that renderers show. ``report`` is the domain's record; the rest is the detail behind it."""

    report: LLMProfileReport
    capture: CaptureInfo
    findings: tuple[Finding, ...]
    verdicts: tuple[Verdict, ...]
    ranking: Ranking
    """Where to start, and what it brings end to end: its sentence is the first of every output."""
    stages: tuple[StageSummary, ...]
    """Of a trace without stages, the whole capture as one, named ``capture``."""
    instances: tuple[InstanceSummary, ...]
    steps: tuple[StepPoint, ...]
    unit_times: tuple[UnitTimes, ...]
    """What a unit of each stage's work takes, and the GPU-busy share: one record per row of ``stages``."""
    utilisation: tuple[Utilisation, ...]
    stage_rows: tuple[GpuRow, ...]
    module_rows: dict[str, tuple[GpuRow, ...]]
    """Stage (or ``all``) → rows by module path, exclusive."""
    range_rows: tuple[GpuRow, ...]
    categories: tuple[CategoryRow, ...]
    kernels: tuple[KernelSummary, ...]
    """By stage and name, all launch shapes together."""
    streams: tuple[StreamSummary, ...]
    host_calls: tuple[HostCallRow, ...]
    metrics: tuple[MetricSeries, ...]
    overhead: tuple[Overhead, ...]
    aggregates: tuple[Aggregate, ...]
    manifest: RunManifest | None
    timeline: BusyTimeline | None = None
    """None: there are no GPU operations."""
    skip_first: int = 0
    """So many instances of each stage, the first, are left out of medians, utilisation and verdicts."""
    kernel_shapes: tuple[KernelSummary, ...] = ()
    """By stage, name and launch shape: what ``kernels`` folds together."""
    kernel_modules: tuple[KernelModuleRow, ...] = ()
    """By stage, module (layer numbers folded), name and launch shape; those of a stage add up to its ``kernels``."""
    stage_units: dict[str, StageUnits] = field(factory=dict)
    """Stage → how many images or tokens its sums are over."""
    step_kinds: tuple[StepKindRow, ...] = ()
    """Of a serving engine's trace: its steps by kind."""
    wall_times: WallTimes | None = None
    """Of the program that ``dsocr-profile exec`` ran; None: there was no control run, or nothing says."""
    predictions: tuple[Scored, ...] = ()
    """What the last run of the same work before this one predicted, and what came; empty: none is known."""
    left_out: tuple[LeftOut, ...] = ()
    """Of a report that was written as JSON: what its tables of kernels lack."""


@frozen
class ReportOptions:
    """What the user may state about a trace."""

    cross_thread: bool = False
    peaks: PeakOverrides = field(factory=PeakOverrides)
    cost: CostRequest | ConfigRequest | None = None
    kernel_rules: Path | None = None
    """Rules of the user's own, tried before ours."""
    top_operators: int = 20
    skip_first: int = 0
    """Instances of each stage, the first, that are left out of medians, utilisation and verdicts."""


@frozen
class Assembled:
    """A report, and what it was judged by: enough to judge it again when more is known."""

    report: Report
    measured: Measured
    costs: KnownCosts
    """Of the whole model."""
    peaks: KnownPeaks
    dtype: str
    counted_by: str
    """Where the costs come from, in words."""


def assemble(
    trace: Trace, attribution: Attribution, manifest: RunManifest | None, options: ReportOptions | None = None
) -> Report:
    """Make the report of a trace.

    Args:
        trace: opened.
        attribution: of the trace.
        manifest: of its run; None: unknown.
        options: what the user stated.

    Raises:
        ResultError: rows do not add up, or a figure cannot be.
        RequestError: a cost was requested that has no closed form, or that the trace contradicts, or all instances of a
            stage are to be skipped.
    """
    return judged_alone(assemble_to_judge_again(trace, attribution, manifest, options))


def judged_alone(made: Assembled) -> Report:
    """The report as it is where no other rank's trace is known: of a rank of several, MFU and MBU are unknown."""
    if (made.costs.by_stage or made.costs.by_path) and _meets_other_ranks(made.report):
        return judged_again(evolve(made, costs=KnownCosts({}, _PART_UNKNOWN)), (), 1)
    return made.report


_PART_UNKNOWN: Final = (
    "collectives inside the stages say that this is one rank of several, and not which part of the model it ran (read the traces "
    "of all ranks together)"
)


def _meets_other_ranks(report: Report) -> bool:
    """Whether kernels of the stages talk to other GPUs: then other ranks ran parts of the model, or of its batch."""
    stages = {stage.stage for stage in report.stages}
    return any(is_communication(row.category) for row in report.kernels if row.stage in stages)


def assemble_to_judge_again(
    trace: Trace,
    attribution: Attribution,
    manifest: RunManifest | None,
    options: ReportOptions | None = None,
    host: HostCalls | None = None,
) -> Assembled:
    """`assemble`, with what `judged_again` needs; ``host``: the trace's calls, where somebody else looks at them too."""
    # On a thread of their own: numpy lets go of the interpreter in the long sorts and sums of both halves.
    options = options or ReportOptions()
    with ThreadPoolExecutor(1) as beside:
        host = host or HostCalls(attribution)
        device = main_device(trace.info, attribution)
        kernels = beside.submit(kernel_tables, attribution, device, load_rules(options.kernel_rules))
        tables = beside.submit(_tables, attribution)
        findings = beside.submit(examine, trace, attribution, manifest, host)
        return _assembled(trace, attribution, manifest, options, _Beside(host, device, kernels, tables, findings))


@frozen
class _Tables:
    """What a report holds of a trace whatever its stages took."""

    by_range: tuple[GpuRow, ...]
    by_module: dict[str, tuple[GpuRow, ...]]
    """Stage (or ``all``) → rows."""
    streams: tuple[StreamSummary, ...]
    timeline: BusyTimeline | None


@frozen
class _Beside:
    """What another thread works out meanwhile, and the calls that both look at."""

    host: HostCalls
    device: Device | None
    """That ran most of it."""
    kernels: Future[KernelTables]
    """Without calls per token."""
    tables: Future[_Tables]
    findings: Future[tuple[Finding, ...]]


def _tables(attribution: Attribution) -> _Tables:
    return _Tables(
        by_range=gpu_rows(gpu_table(attribution, "range")),
        by_module={
            "all": gpu_rows(gpu_table(attribution, "module")),
            **{stage: gpu_rows(gpu_table(attribution, "module", stage=stage)) for stage in attribution.stages},
        },
        streams=stream_summaries(attribution),
        timeline=busy_timeline(attribution),
    )


def _assembled(
    trace: Trace,
    attribution: Attribution,
    manifest: RunManifest | None,
    options: ReportOptions,
    beside: _Beside,
) -> Assembled:
    capture = evolve(
        capture_info(trace, attribution, manifest), stated_model=options.cost.model_name if options.cost else None
    )
    host, device = beside.host, beside.device
    sm_count = device.sm_count if device else None
    stage_rows = gpu_rows(gpu_table(attribution, "stage"))
    held = images_held(attribution, manifest) if manifest is not None and manifest.partial is not None else None
    # Of a capture without one whole image nothing is left out: it is unfit, and shown only to who accepts that.
    instances = instance_summaries(attribution, host, held.cut if held is not None and held.whole else None)
    steps = step_points(attribution, instances)
    tokens = tokens_by_stage(manifest, instances, options.cost.prompt_tokens if options.cost else None)
    stages = stage_summaries(attribution, host, stage_rows, instances, tokens, sm_count)
    waits = host_call_rows(attribution, host)
    if not stages and (whole := whole_capture(attribution, host, stage_rows, sm_count)) is not None:
        stages = (whole,)
        everywhere = np.zeros(len(attribution.calls), dtype=np.int64)
        by_module = (row for row in waits if row.level == "module")
        waits = (*by_module, *host.waits_by("stage", everywhere, (WHOLE_CAPTURE,)))
    kernel_rows = per_token(beside.kernels.result(), tokens)
    units = stage_units(
        instances, unit_of_input(manifest, capture.vocabulary), decode_unit(manifest.batch_size if manifest else 1)
    )
    kernel_modules = kernel_module_rows(attribution, kernel_rows.by_name, units)
    captured = Captured(
        capture=capture,
        manifest=manifest,
        stages=stages,
        instances=instances,
        steps=steps,
        kernels=kernel_rows.by_name,
        categories=category_rows(attribution, kernel_rows.by_name),
        host_calls=waits,
        skip_first=options.skip_first,
        kernel_modules=kernel_modules,
        sm_count=sm_count,
        step_kinds=step_kind_rows(stages, steps, options.skip_first),
    )
    dtype = _dtype(manifest, options)
    peaks = peaks_of(device, manifest, options.peaks, on_cpu=captured.on_cpu, dtype=dtype)
    costs = costs_of(manifest, options.cost, instances)
    findings = beside.findings.result()
    counted_by = "the FLOPs and bytes that the run counted (run.json)"
    if options.cost is not None:
        evidence = TraceEvidence(
            instances, steps, kernel_rows.by_shape, _module_names(attribution), manifest.prompts if manifest else ()
        )
        peak = peaks.peaks[0] if peaks.peaks else None
        if isinstance(options.cost, ConfigRequest):
            unchecked = list(check_config(options.cost, evidence))
            stated = "--config" if options.cost.prompt_tokens is None else "--config and --prompt-tokens"
            named = stated.replace("--config", f"--config {options.cost.decoder.source}")
            findings += _of_config(options.cost, costs)
        else:
            unchecked = list(check_stated(options.cost, evidence))
            named = stated = "--model, --input-mode, --tiles and --prompt-tokens"
        incomparable = check_needs(costs, instances, peak, dtype, named)
        findings += _unchecked_sizes([*unchecked, *([incomparable] if incomparable else [])], stated)
        counted_by = f"the costs by what was stated ({stated})"
    measured = Measured(
        captured=captured,
        unit_times=unit_times(captured),
        overhead=overheads(manifest, instances),
        aggregates=aggregates(captured),
        utilisation=utilisations(captured, costs, peaks, dtype=dtype),
        needs=component_needs(captured, costs),
    )
    _require_countable(measured.utilisation, counted_by)
    findings = _with_excess(findings, measured.utilisation, peaks, dtype, counted_by)
    judged = refused(stages, findings) if is_unfit(findings) else verdicts(measured)
    ranking = ranking_of(measured, judged, findings)
    tables = beside.tables.result()
    mfu = {name: headline(measured.utilisation, name) for name in (*STAGES, "total")}
    mfu_of = {name: None if row is None else row.mfu for name, row in mfu.items()}
    report = LLMProfileReport(
        run_id=manifest.run_id if manifest else _NO_RUN,
        model=manifest.model if manifest else None,
        input_set=manifest.input_set if manifest else None,
        timings=stage_timings(captured),
        operators_topk=operator_summaries(attribution, tables.by_range, options.top_operators),
        mfu_model_level=mfu_of["total"],
        mfu_per_stage={stage: mfu_of[stage] for stage in STAGES},
        aggregates={metric.name: stats(metric) for metric in measured.aggregates},
        notes=stakeholder_notes(measured, findings, judged, ranking),
        meta=_meta(manifest, peaks),
    )
    made = Report(
        report=report,
        capture=capture,
        findings=findings,
        verdicts=judged,
        ranking=ranking,
        stages=stages,
        instances=instances,
        steps=steps,
        unit_times=measured.unit_times,
        utilisation=measured.utilisation,
        stage_rows=stage_rows,
        module_rows={
            **tables.by_module,
            **{row.stage: tables.by_module["all"] for row in stages if row.stage == WHOLE_CAPTURE},
        },
        range_rows=tables.by_range,
        categories=captured.categories,
        kernels=captured.kernels,
        streams=tables.streams,
        host_calls=waits,
        metrics=metric_series(attribution, trace.metric_samples),
        overhead=measured.overhead,
        aggregates=measured.aggregates,
        manifest=manifest,
        timeline=tables.timeline,
        skip_first=options.skip_first,
        kernel_shapes=kernel_rows.by_shape,
        kernel_modules=kernel_modules,
        stage_units=units,
        step_kinds=captured.step_kinds,
        predictions=scored_predictions(manifest, measured.unit_times, ranking),
    )
    _require_consistency(made, bounds_of(attribution))
    return Assembled(made, measured, costs, peaks, dtype, counted_by)


def _require_countable(rows: tuple[Utilisation, ...], counted_by: str) -> None:
    """Refuse costs that no integer holds: what they are made from was stated, or read, wrongly.

    Raises:
        RequestError: a stage needs so much.
    """
    for row in rows:
        for amount, unit in ((row.flop, "FLOP"), (row.flop_full, "FLOP"), (row.bytes_moved, "bytes")):
            if amount is not None and amount >= _NOT_COUNTABLE:
                raise RequestError(
                    f"{row.stage} would need {amount:.3g} {unit}, which nothing does: check {counted_by}"
                )


def _require_consistency(report: Report, bounds: Bounds | None = None) -> None:
    """Refuse a report whose figures contradict each other, or its capture.

    Args:
        report: to be handed on.
        bounds: of its capture; None: it was held to them, and only what is judged of it is new.

    Raises:
        UnfitTraceError: a figure cannot be, and by the trace's own evidence its rows cannot be either.
        ResultError: a figure cannot be.
    """
    if bounds is None:
        wrong = impossible_figures(report, only=("report", "verdicts", "ranking", "utilisation"))
    else:
        wrong = impossible_figures(report, bounds)
        wrong += sums_that_differ(
            report.capture,
            report.stage_rows,
            report.module_rows,
            report.kernels,
            report.streams,
            report.stages,
            report.instances,
            report.timeline,
        )
    wrong += verdicts_that_differ(report.verdicts)
    if not wrong:
        return
    if blamed := [each for each in report.findings if each.severity == "unfit" or isinstance(each, Contradiction)]:
        evidence = "; ".join(f"{finding.title}: {finding.evidence}" for finding in blamed)
        raise UnfitTraceError(
            f"{report.capture.trace_path}: unfit for conclusions – {evidence}. Figures made of this and of its manifest "
            f"(run.json), if it has one, cannot be: {wrong[0]}; nothing was written. {blamed[0].remedy}"
        )
    raise inconsistent("the report", wrong)


def judged_again(made: Assembled, rank_waits: tuple[RankWait, ...], model_ranks: int) -> Report:
    """The report as it is when the other ranks' traces are known: verdicts, and the share of the model that MFU and MBU charge.

    Args:
        made: of one rank.
        rank_waits: what its stages' collectives wait for.
        model_ranks: the model is spread evenly over so many ranks, of which this is one; 1: it does all of it.
    """
    report = made.report
    captured = evolve(made.measured.captured, rank_waits=rank_waits)
    costs = shared(made.costs, model_ranks)
    measured = evolve(
        made.measured,
        captured=captured,
        utilisation=utilisations(captured, costs, made.peaks, dtype=made.dtype),
        needs=component_needs(captured, costs),
    )
    findings = _with_excess(report.findings, measured.utilisation, made.peaks, made.dtype, made.counted_by)
    judged = report.verdicts if is_unfit(report.findings) else verdicts(measured)
    ranking = report.ranking if is_unfit(report.findings) else ranking_of(measured, judged, findings)
    of_stage = {name: headline(measured.utilisation, name) for name in (*STAGES, "total")}
    mfu = {name: None if row is None else row.mfu for name, row in of_stage.items()}
    made_again = evolve(
        report,
        findings=findings,
        verdicts=judged,
        ranking=ranking,
        utilisation=measured.utilisation,
        report=evolve(
            report.report,
            notes=stakeholder_notes(measured, findings, judged, ranking),
            mfu_model_level=mfu["total"],
            mfu_per_stage={stage: mfu[stage] for stage in STAGES},
        ),
    )
    _require_consistency(made_again)
    return made_again


_ABOVE_PEAK: Final = "utilisation-above-peak"


def _with_excess(
    findings: tuple[Finding, ...], rows: tuple[Utilisation, ...], peaks: KnownPeaks, dtype: str, counted_by: str
) -> tuple[Finding, ...]:
    """The findings, and that MFU or MBU is above 1, where it is; a finding of that kind of earlier is replaced."""
    others = tuple(finding for finding in findings if finding.code != _ABOVE_PEAK)
    excess = beyond_peak(rows, peaks, dtype, counted_by)
    if not excess:
        return others
    figures = " and ".join(dict.fromkeys(row.figure for row in excess))
    stages = ", ".join(dict.fromkeys(row.stage for row in excess))
    doubted = "; ".join(dict.fromkeys(row.doubted for row in excess))
    told = Finding(
        _ABOVE_PEAK,
        "warning",
        f"{figures} of {stages}: more than the device can do",
        f"{'; '.join(row.told for row in excess)}. To be doubted: {doubted}",
        "correct that input; until then read neither these figures nor the ideal times that they are made with",
    )
    place = sum(finding.severity != "info" for finding in others)
    return (*others[:place], told, *others[place:])


def _module_names(attribution: Attribution) -> frozenset[str]:
    of_range, paths = attribution.module_names
    return frozenset(paths[code] for code in present(of_range[:-1]) if code >= 0)


def _of_config(request: ConfigRequest, costs: KnownCosts) -> tuple[Finding, ...]:
    """What a configuration does not say, and where what follows from it is a bound."""
    parts = list(request.decoder.assumed)
    if costs.bound is not None:
        parts.append(f"attention's part of MFU and MBU is a lower bound, as {costs.bound}")
    if not parts:
        return ()
    return (
        Finding(
            "config-bounds",
            "info",
            "The costs by the model's configuration have limits",
            "; ".join(parts),
            "read MFU and MBU as at least so much",
        ),
    )


def _unchecked_sizes(unchecked: list[str], stated: str) -> tuple[Finding, ...]:
    if not unchecked:
        return ()
    return (
        Finding(
            "stated-sizes-unchecked",
            "info",
            "Some of the stated sizes could not be checked",
            f"the trace has no evidence of {'; '.join(unchecked)}",
            f"make sure that {stated} are those of the profiled program",
        ),
    )


def _meta(manifest: RunManifest | None, peaks: KnownPeaks) -> RunMeta | None:
    """The run's record, with the device's peak, which only the analysis knows."""
    if manifest is None or manifest.meta.peak_tflops_bf16 is not None:
        return manifest.meta if manifest else None
    return evolve(manifest.meta, peak_tflops_bf16=peak_tflops_bf16(peaks))


def _dtype(manifest: RunManifest | None, options: ReportOptions) -> str:
    model: ModelUnderTest | None = manifest.model if manifest else None
    if model is not None:
        return model.dtype
    return options.cost.dtype if options.cost else "bf16"


def capture_info(trace: Trace, attribution: Attribution, manifest: RunManifest | None) -> CaptureInfo:
    """Where the numbers come from."""
    info = trace.info
    kinds = np.bincount(attribution.operations.kind, minlength=4)
    collector = _collector(info)
    devices = sorted({device.name for device in info.devices})
    domains, choice = attribution.module_domains, attribution.choice
    return CaptureInfo(
        trace_path=redacted(str(trace.path)),
        trace_bytes=trace.path.stat().st_size,
        product=info.product,
        collector=collector,
        on_cpu=info.on_cpu,
        schema_version=info.schema_version,
        wall_clock=info.wall_clock,
        duration_ns=info.duration_ns,
        device_names=tuple(devices),
        processes=len(set(info.thread_process)),
        threads=len(info.threads),
        kernels=int(kinds[KERNEL]),
        memcpys=int(kinds[MEMCPY]),
        memsets=int(kinds[MEMSET]),
        graphs=int(kinds[GRAPH]),
        api_calls=len(attribution.calls) + len(attribution.other_calls),
        ranges=len(attribution.ranges),
        module_domain=domains[0] if domains else None,
        random_weights=_random(manifest),
        cross_thread=attribution.cross_thread,
        vocabulary=choice.vocabulary.name,
        vocabulary_title=choice.vocabulary.title,
        vocabulary_ranges=choice.reading.matched,
        vocabulary_stated=choice.stated,
    )


def _random(manifest: RunManifest | None) -> bool | None:
    if manifest is None or manifest.model is None or manifest.model.weights is None:
        return None
    return manifest.model.weights == "random"


def _collector(info: TraceInfo) -> str:
    """Our torch collector says so; everything else that names itself is Nsight Systems."""
    if info.on_cpu:
        return "torch on CPU"
    if info.capture.get("DSOCR_COLLECTOR") == "torch-cuda":
        return "torch on CUDA"
    return "Nsight Systems" if info.product and "Nsight" in info.product else "unknown"
