"""What stands at the head of every output: where to start, what was run, what each stage takes, and what is not known."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

from attrs import frozen

from analysis.attribution.vocabulary import OWN_VOCABULARY
from analysis.domain.figures import count, counted, duration, together
from analysis.domain.manifest import RunManifest
from analysis.domain.program import wall_time_sentence
from analysis.efficiency.records import Aggregate
from analysis.efficiency.utilisation import headline as headline_utilisation
from analysis.render.spec import facts
from analysis.render.spec.glossary import GLOSSARY
from analysis.render.spec.specification import OF_PEAK, PLAIN, SHARE, TEXT, Column, Specification, decimals
from analysis.render.spec.text import visible
from analysis.report import Report
from analysis.sums.stages import WHOLE_CAPTURE
from analysis.verdict.ranking import parts_in_words

__all__ = [
    "STAGE_NUMBERS",
    "StageNumbers",
    "latencies",
    "not_known",
    "parts",
    "sentence",
    "stage_numbers",
    "what_was_run",
]


def sentence(report: Report) -> str:
    """Where to start and what it brings end to end: the first sentence of every output."""
    return visible(report.ranking.sentence)


def parts(report: Report) -> str:
    """What one unit of work takes, as the sum of its stages; empty: not known."""
    return visible(parts_in_words(report.ranking))


def further(report: Report) -> tuple[str, ...]:
    """The actions after the first, a line each, in the order of their ranks."""
    return tuple(visible(f"{gain.stages}: {gain.action.short}: {gain.sentence}") for gain in report.ranking.gains[1:])


# --- what was run --------------------------------------------------------------------------------------------------


def what_was_run(report: Report) -> tuple[str, ...]:
    """Two lines: model, inputs and how they were decoded; device, profiler, versions and date.

    A third one follows for a program that had a control run: what it takes without the profiler.
    """
    alone = () if report.wall_times is None else (wall_time_sentence(report.wall_times),)
    return " · ".join(_workload(report)), " · ".join(_machine(report)), *alone


def _workload(report: Report) -> list[str]:
    model, manifest = report.report.model, report.manifest
    if model is None or manifest is None:
        stated = report.capture.stated_model
        name = visible(PurePath(report.capture.trace_path).name)
        return [name, *([f"{visible(stated)}, as stated"] if stated else []), *_seen(report)]
    weights = {"random": "random weights", "checkpoint": "weights of a checkpoint", None: "weights not known"}
    return [
        f"{visible(model.id)}, {model.dtype}, {weights[model.weights]}",
        _inputs(report, manifest),
        f"batch {count(manifest.batch_size)}",
        f"{manifest.decode_mode} decode",
    ]


def _inputs(report: Report, manifest: RunManifest) -> str:
    """``3 pages (gundam) × 64 tokens``."""
    pages = len(manifest.prompts) or (report.report.input_set.count if report.report.input_set else 0)
    reads_images = not manifest.prompts or any(prompt.image_tokens for prompt in manifest.prompts)
    what = counted(pages, "page" if reads_images else "prompt")
    modes = dict.fromkeys(visible(prompt.mode) for prompt in manifest.prompts if prompt.image_tokens)
    tokens = sorted({prompt.expected_new_tokens for prompt in manifest.prompts if prompt.expected_new_tokens})
    made = _span(tokens) if tokens else f"at most {count(manifest.request.max_new_tokens)}"
    passes = f", {count(manifest.capture_passes)} passes" if manifest.capture_passes > 1 else ""
    in_modes = f" ({', '.join(modes)})" if modes else ""
    return f"{what}{in_modes} × {made} tokens{passes}"


def _seen(report: Report) -> list[str]:
    """What the ranges of a trace without manifest tell of its inputs."""
    stages = [stage for stage in report.stages if stage.stage != WHOLE_CAPTURE]
    pages = {instance.image_index for instance in report.instances if instance.image_index is not None}
    steps = sorted({instance.steps for instance in report.instances if instance.steps})
    if pages:
        return [f"{counted(len(pages), 'page')}{f' × {_span(steps)} steps' if steps else ''}"]
    return [", ".join(f"{count(stage.instances)} × {visible(stage.stage)}" for stage in stages)] if stages else []


def _span(values: list[int]) -> str:
    return count(values[0]) if len(values) == 1 else f"{count(values[0])} to {count(values[-1])}"


def _machine(report: Report) -> list[str]:
    capture, manifest = report.capture, report.manifest
    tool = (capture.product or capture.collector).removeprefix("NVIDIA ")
    if manifest is None:
        return [
            facts.devices(report),
            visible(tool),
            *([visible(capture.wall_clock[:10])] if capture.wall_clock else []),
        ]
    names = {"driver": "driver", "torch": "torch"}
    versions = [
        f"{name} {visible(manifest.versions[key])}" for key, name in names.items() if manifest.versions.get(key)
    ]
    preset = f", preset {visible(manifest.preset)}" if manifest.preset else ""
    return [facts.devices(report), f"{visible(tool)}{preset}", *versions, manifest.meta.created_at.date().isoformat()]


# --- what each stage takes -----------------------------------------------------------------------------------------


@frozen
class StageNumbers:
    """One stage in one line."""

    stage: str
    time: str
    """Of one unit of work; the stages add up as written."""
    share: float
    busy_share: float | None
    launches: float
    per: str
    mfu: float | None
    mbu: float | None


_S = Column[StageNumbers]

STAGE_NUMBERS: Final = Specification[StageNumbers](
    key="stage_numbers",
    title="Stages",
    rows="A stage, and what it takes of one unit of work.",
    columns=(
        _S("stage", "Stage", "string", TEXT, GLOSSARY["stage"], priority=0),
        _S("time", "Time", "string", PLAIN, "Time of one unit of work, such as a page.", priority=0),
        _S("share", "Share", "float64", SHARE, "Of the unit of work.", priority=1),
        _S("busy_share", "GPU busy", "float64", SHARE, GLOSSARY["busy_share"], nullable=True, priority=0),
        _S("launches", "Launches", "float64", decimals(0), GLOSSARY["launches"], priority=2),
        _S("per", "each", "string", TEXT, "What the launches are given per.", priority=2),
        _S("mfu", "MFU", "float64", OF_PEAK, GLOSSARY["mfu"], nullable=True, priority=1),
        _S("mbu", "MBU", "float64", OF_PEAK, GLOSSARY["mbu"], nullable=True, priority=1),
    ),
)


def stage_numbers(report: Report) -> tuple[StageNumbers, ...]:
    """One row for each stage; of an unfit capture none."""
    ranking = report.ranking
    if not ranking.time_ns:
        return ()
    shown = together([part.time_ns for part in ranking.parts])
    times_of = {times.stage: times for times in report.unit_times}
    rows = []
    for part, text in zip(ranking.parts, shown.parts, strict=True):
        times, used = times_of[part.stage], headline_utilisation(report.utilisation, part.stage)
        rows.append(
            StageNumbers(
                stage=part.stage,
                time=text,
                share=part.time_ns / ranking.time_ns,
                busy_share=times.busy_share,
                launches=times.launches,
                per=f"per {times.per}",
                mfu=used.mfu if used else None,
                mbu=used.mbu if used else None,
            )
        )
    return tuple(rows)


def latencies(report: Report) -> str:
    """Medians of the time to first token and the time per output token, with their spread; empty: there are none."""
    by_name = {aggregate.name: aggregate for aggregate in report.aggregates}
    chosen = {
        name: next((by_name[key] for key in keys if key in by_name), None)
        for name, keys in (("TTFT", ("ttft_ms", "profiled_prefill_ms")), ("TPOT", ("tpot_ms", "profiled_tpot_ms")))
    }
    known = {name: aggregate for name, aggregate in chosen.items() if aggregate is not None}
    bases = {aggregate.source for aggregate in known.values()}
    if len(bases) == 1:
        told = ", ".join(f"{name} {_spread(aggregate)}" for name, aggregate in known.items())
        return f"{_BASES[bases.pop()]}: {told}"
    return "; ".join(f"{_BASES[aggregate.source]}: {name} {_spread(aggregate)}" for name, aggregate in known.items())


_BASES: Final = {"control": "Medians, unprofiled", "trace": "Medians, profiled"}


def _spread(aggregate: Aggregate) -> str:
    median, low, high = (duration(value * 1e6) for value in (aggregate.median, aggregate.minimum, aggregate.maximum))
    return median if low == high else f"{median} (of {count(aggregate.count)}: {low} to {high})"


# --- what is not known ---------------------------------------------------------------------------------------------


def not_known(report: Report) -> str:
    """What is not known and what to give for it, in one sentence; empty: all is known."""
    missing = []
    if report.capture.stated_model is None and any(stage.of_steps for stage in report.stages):
        missing.append("the model, so no MFU and MBU (give its config.json with --config)")
    elif report.manifest is None and report.capture.stated_model is None:
        missing.append(
            "model and inputs, so no MFU and MBU (give --model with --input-mode, --tiles and --prompt-tokens, the model's "
            "config.json with --config, or the run's run.json with --manifest)"
        )
    else:
        reasons = dict.fromkeys(visible(row.unknown_because) for row in report.utilisation if row.unknown_because)
        missing += [f"MFU and MBU, for {'; '.join(reasons)}"] if reasons else []
    if not report.stages or report.stages[0].stage == WHOLE_CAPTURE:
        missing.append("prefill and decode (put NVTX ranges of these names around them, decode_step around each token)")
    elif not report.capture.on_cpu and any(times.unprofiled_ns is None for times in report.unit_times):
        own = report.manifest is not None or report.capture.vocabulary == OWN_VOCABULARY
        made_by = (
            "dsocr-profile run makes one" if own else "of another program dsocr-profile exec --control 1, as wall time"
        )
        missing.append(f"times without the profiler (a control run tells: {made_by})")
    return f"Not known: {'; '.join(missing)}." if missing else ""
