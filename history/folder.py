"""What a run's folder says of the run: ``run.json`` by its record, ``report.json`` as plain JSON of any version.

What is missing is None or empty; nothing is worked out that the report worked out already. Of several ranks, stages,
classes, modules and verdicts are those of rank 0.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from attrs import asdict, evolve

from analysis.domain.convert import from_json, from_json_file, moment_of
from analysis.domain.errors import RequestError
from analysis.domain.manifest import RunManifest, one_input
from analysis.domain.measures import impossible_figures
from analysis.domain.overhead import decode_unit
from analysis.domain.program import PROGRAM_MARK, ProgramManifest
from analysis.domain.reading import LARGEST_RESULT, read_bounded
from analysis.domain.redaction import redacted, redacted_plain
from history.records import (
    Artefact,
    Ceiling,
    DeviceMoment,
    KernelClass,
    Module,
    RecordedRun,
    RunRow,
    Sample,
    StageRow,
    VerdictRow,
)

__all__ = ["images_hash", "inputs_hash", "read_folder", "run_of"]

_Plain: TypeAlias = Mapping[str, Any]


def read_folder(folder: Path) -> RecordedRun:
    """Read a run's folder.

    Raises:
        RequestError: it holds neither run.json nor report.json, or one of them is not what it must be.
    """
    folder = folder.absolute()
    manifest_file, report_file = folder / "run.json", folder / "report.json"
    report = _report(report_file)
    detail = _object(report, "detail")
    if not detail and _rows(
        report, "ranks"
    ):  # several ranks side by side: what each did alone is in a folder of its own
        detail = _object(_report(folder / "rank0" / "report.json"), "detail")
    manifest: RunManifest | ProgramManifest | None = None
    if manifest_file.is_file():
        manifest = read_manifest(manifest_file)
    elif isinstance(embedded := detail.get("manifest"), dict):
        manifest = from_json(RunManifest, json.dumps(embedded), source=f"{report_file}: its manifest")
    if isinstance(manifest, RunManifest):
        run, samples = run_of(manifest), tuple(_control(manifest))
        moments = tuple(
            DeviceMoment(state.when, state.sm_clock_mhz, state.memory_clock_mhz, state.temperature_c, state.power_w)
            for state in {state.when: state for state in manifest.device_states}.values()
        )
    elif isinstance(manifest, ProgramManifest):
        run, samples, moments = _of_program(manifest), tuple(_wall_times(manifest)), ()
    elif report:
        run, samples, moments = _of_trace(report, detail), (), ()
    else:
        raise RequestError(f"{folder}: holds neither run.json nor report.json, so it is not the folder of a run")
    recorded = RecordedRun(
        run=_without_secrets(evolve(_with_headline(run, report, detail), folder=str(folder))),
        samples=samples,
        stages=tuple(_stages(detail)),
        classes=tuple(_classes(detail)),
        modules=tuple(_modules(detail)),
        verdicts=tuple(_verdicts(detail)),
        ceilings=tuple(evolve(ceiling, sequence=place) for place, ceiling in enumerate(_ceilings(detail))),
        artefacts=tuple(_artefacts(folder)),
        device_moments=moments,
    )
    if wrong := impossible_figures(recorded):
        raise RequestError(
            f"{folder}: its files hold what cannot be ({wrong[0]}); make its report again, or leave it out"
        )
    return recorded


def _without_secrets(run: RunRow) -> RunRow:
    """The run's texts as the history may keep them: a folder's name, and what somebody else wrote, may hold secrets."""
    plain = {name: redacted_plain(value) for name, value in asdict(run, recurse=False).items() if name != "run_id"}
    return evolve(run, **plain)


def read_manifest(file: Path) -> RunManifest | ProgramManifest:
    """Read run.json of either kind of run. Raises RequestError if it cannot be read or is not one."""
    text = read_bounded(file, LARGEST_RESULT)
    if PROGRAM_MARK in text:
        return from_json(ProgramManifest, text, source=str(file))
    return from_json(RunManifest, text, source=str(file))


def images_hash(manifest: RunManifest) -> str | None:
    """Identity of the images by their bytes and order; None: one of them was not hashed."""
    digests = [] if manifest.input_set is None else [image.sha256 for image in manifest.input_set.images]
    return _digest(digests) if digests and None not in digests else None


def inputs_hash(manifest: RunManifest) -> str | None:
    """Identity of what the model was given: the images, and what each became by mode, tiles and tokens; None: not known.

    The same page shown in another mode, or with a prompt of another length, is another input. How many tokens were to be
    generated is no part of it.
    """
    images = images_hash(manifest)
    if images is None or not manifest.prompts:
        return None
    shapes = [
        (prompt.image_index, prompt.mode, prompt.tiles, prompt.image_tokens, prompt.text_tokens)
        for prompt in sorted(manifest.prompts, key=lambda prompt: prompt.image_index)
    ]
    return _digest([images, shapes])


def _digest(plain: object) -> str:
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


# -- run.json ----------------------------------------------------------------------------------------------------------


def run_of(manifest: RunManifest) -> RunRow:
    """The run itself, as far as its manifest tells."""
    model, options, meta = manifest.model, dict(manifest.options), manifest.meta
    modes = {prompt.mode for prompt in manifest.prompts}
    first_pass = [timed.new_tokens for timed in manifest.control if timed.pass_index == manifest.control[0].pass_index]
    ranks = options.get("tensor_parallel")
    return RunRow(
        run_id=manifest.run_id,
        kind="model",
        status=manifest.status,
        recorded_at=datetime.now(UTC),
        started_at=meta.created_at,
        finished_at=_moment(manifest.finished_at),
        model=manifest.request.model_path if model is None else model.id,
        model_path=manifest.request.model_path if model is None else model.model_path,
        weights=None if model is None else model.weights,
        dtype=None if model is None else model.dtype,
        parameters=None if model is None else model.parameters,
        attn_implementation=None if model is None else model.attn_implementation,
        experts_implementation=None if model is None else model.experts_implementation,
        decode_mode=manifest.decode_mode,
        batch_size=manifest.batch_size,
        ranks=ranks if isinstance(ranks, int) else None,
        input_mode=modes.pop() if len(modes) == 1 else None,
        inputs=None if manifest.input_set is None else manifest.input_set.count,
        images_hash=images_hash(manifest),
        inputs_hash=inputs_hash(manifest),
        prompt_tokens=sum(prompt.prompt_tokens for prompt in manifest.prompts) if manifest.prompts else None,
        new_tokens=sum(first_pass) if first_pass else None,
        max_new_tokens=manifest.request.max_new_tokens,
        repeats=manifest.request.repeats,
        collector=manifest.collector,
        preset=manifest.preset,
        annotation_level=manifest.annotation_level,
        device=manifest.request.device,
        gpu_name=meta.gpu_name,
        driver=meta.driver_version,
        git_commit=meta.git_commit,
        error=manifest.error,
        versions=dict(manifest.versions),
        options=options,
    )


def _control(manifest: RunManifest) -> Iterator[Sample]:
    """The unprofiled repetitions: each image of each pass, prefill before decode."""
    sequence = 0
    for timed in manifest.control:
        whole = (
            ("prefill", one_input(manifest), 1, timed.prefill_ns, None),
            ("decode", decode_unit(manifest.batch_size), timed.steps, timed.decode_ns, list(timed.step_ns) or None),
        )
        for stage, per, units, ns, steps in whole:
            if units and ns > 0:
                yield Sample(sequence, stage, per, units, ns, timed.pass_index, timed.image_index, steps)
                sequence += 1


def _of_program(manifest: ProgramManifest) -> RunRow:
    return RunRow(
        run_id=manifest.run_id,
        kind="program",
        status=manifest.status,
        recorded_at=datetime.now(UTC),
        started_at=manifest.created_at,
        finished_at=_moment(manifest.finished_at),
        model=Path(manifest.command[0]).name if manifest.command else None,
        ranks=manifest.ranks,
        repeats=sum(not timed.profiled for timed in manifest.times),
        collector="nsys",
        preset=manifest.preset,
        device=manifest.device,
        driver=manifest.versions.get("driver"),
        git_commit=manifest.git_commit,
        command=shlex.join(manifest.command),
        error=manifest.error,
        versions=dict(manifest.versions),
        options=dict(manifest.options),
    )


def _wall_times(manifest: ProgramManifest) -> Iterator[Sample]:
    sequence = 0
    for number, timed in enumerate(timed for timed in manifest.times if not timed.profiled):
        for stage, seconds in (("program", timed.wall_s), ("load", timed.load_s)):
            if seconds is not None:
                yield Sample(sequence, stage, "run", 1, round(seconds * 1e9), number)
                sequence += 1


def _moment(text: str | None) -> datetime | None:
    """A moment in ISO 8601; without a zone it is UTC."""
    if text is None:
        return None
    try:
        return moment_of(text)
    except ValueError:
        return None


# -- report.json -------------------------------------------------------------------------------------------------------


def _report(file: Path) -> _Plain:
    if not file.is_file():
        return {}
    return from_json_file(dict[str, Any], file)


def _of_trace(report: _Plain, detail: _Plain) -> RunRow:
    """A report of a trace that no run.json explains. Its id stays the same when the trace is analysed again."""
    capture = _object(detail, "capture")
    identity: list[Any] = [
        capture.get(name) for name in ("trace_bytes", "wall_clock", "duration_ns", "kernels", "ranges")
    ]
    if not capture:  # of several ranks together
        identity = [report]
    random_weights = capture.get("random_weights")
    return RunRow(
        run_id=f"trace-{_digest(identity)[:32]}",
        kind="trace",
        status="complete",
        recorded_at=datetime.now(UTC),
        started_at=_moment(_text(capture, "wall_clock")),
        weights="random" if random_weights is True else None,
        collector=_text(capture, "collector"),
    )


def _with_headline(run: RunRow, report: _Plain, detail: _Plain) -> RunRow:
    """Add what the report says in one line, and what only it knows of where it ran."""
    ranking, capture = _object(detail, "ranking"), _object(detail, "capture")
    gains = _rows(ranking, "gains")
    model = _object(report, "model")
    devices = capture.get("device_names")
    first_device = devices[0] if isinstance(devices, list) and devices and isinstance(devices[0], str) else None
    return evolve(
        run,
        model=run.model or _text(model, "id"),
        dtype=run.dtype or _text(model, "dtype"),
        gpu_name=run.gpu_name or _text(report, "devices") or first_device,
        headline=_text(report, "headline"),
        unit=_text(ranking, "unit"),
        time_base=_text(ranking, "time_base"),
        time_ns=_whole(ranking, "time_ns"),
        best_ns=_whole(gains[0], "best_ns") if gains else None,
    )


def _stages(detail: _Plain) -> Iterator[StageRow]:
    units = _object(detail, "stage_units")
    times = {_text(row, "stage"): row for row in _rows(detail, "unit_times")}
    for row in _rows(detail, "stages"):
        stage = _text(row, "stage")
        if stage is None:
            continue
        unit, timed, used = _object(units, stage), times.get(stage, {}), _utilisation(detail, stage)
        yield StageRow(
            stage=stage,
            per=_text(timed, "per") or _text(unit, "per"),
            units=_whole(unit, "count"),
            instances=_whole(row, "instances"),
            unprofiled_ns=_real(timed, "unprofiled_ns"),
            profiled_ns=_real(timed, "profiled_ns"),
            busy_ns=_real(timed, "busy_ns"),
            busy_share=_real(timed, "busy_share"),
            busy_share_base=_text(timed, "busy_share_base"),
            kernel_sum_ns=_whole(row, "kernel_sum_ns"),
            launches=_whole(row, "launches"),
            synchronises=_whole(row, "synchronises"),
            synchronise_ns=_whole(row, "synchronise_ns"),
            idle_ns=_whole(_object(row, "gaps"), "total_ns"),
            mfu=_real(used, "mfu"),
            mbu=_real(used, "mbu"),
            utilisation_base=_text(used, "time_base"),
        )


def _utilisation(detail: _Plain, stage: str) -> _Plain:
    """MFU and MBU of a stage, over its time without the profiler where that is known."""
    of_stage = {_text(row, "time_base"): row for row in _rows(detail, "utilisation") if row.get("stage") == stage}
    return of_stage.get("unprofiled") or of_stage.get("profiled elapsed") or {}


def _classes(detail: _Plain) -> Iterator[KernelClass]:
    for (stage, name), (calls, total_ns) in _summed(_rows(detail, "categories"), "category").items():
        yield KernelClass(stage, name, calls, total_ns)


def _modules(detail: _Plain) -> Iterator[Module]:
    for (stage, name), (calls, total_ns) in _summed(_rows(detail, "kernel_modules"), "module").items():
        yield Module(stage, name, calls, total_ns)


def _summed(rows: list[_Plain], name: str) -> dict[tuple[str, str], tuple[int, int]]:
    """(stage, name) → calls and GPU time, in the order in which the report has them."""
    total: dict[tuple[str, str], tuple[int, int]] = {}
    for row in rows:
        stage, named = _text(row, "stage"), _text(row, name)
        calls, total_ns = _whole(row, "calls"), _whole(row, "total_ns")
        if stage is None or named is None or calls is None or total_ns is None:
            continue
        before = total.get((stage, named), (0, 0))
        total[stage, named] = (before[0] + calls, before[1] + total_ns)
    return total


def _verdicts(detail: _Plain) -> Iterator[VerdictRow]:
    stages: set[str] = set()
    for row in _rows(detail, "verdicts"):
        stage, bound, sentence = (_text(row, name) for name in ("stage", "bound", "sentence"))
        if stage is None or bound is None or sentence is None or stage in stages:
            continue
        stages.add(stage)
        budget, actions = _object(row, "budget"), _rows(row, "actions")
        time_ns = _whole(budget, "time_ns")
        ceiling_ns = _whole(actions[0], "ceiling_per_unit_ns") if actions else None
        yield VerdictRow(
            stage=stage,
            bound=bound,
            sentence=sentence,
            action=_text(row, "action"),
            per=_text(budget, "per"),
            time_base=_text(budget, "time_base"),
            time_ns=time_ns,
            ceiling_ns=ceiling_ns,
            best_ns=None if time_ns is None or ceiling_ns is None else time_ns - ceiling_ns,
            ceiling=_text(row, "ceiling"),
        )


def _ceilings(detail: _Plain) -> Iterator[Ceiling]:
    """What each action could bring: to the whole run, as the report ranks them, and to its own stage."""
    ranking = _object(detail, "ranking")
    unit, time_ns = _text(ranking, "unit"), _whole(ranking, "time_ns")
    for rank, gain in enumerate(_rows(ranking, "gains"), start=1):
        best_ns, actions = _whole(gain, "best_ns"), _rows(gain, "actions")
        if unit is None or time_ns is None or best_ns is None:
            continue
        words = [f"{_text(action, 'stage') or ''}: {_text(action, 'short') or ''}" for action in actions]
        yield Ceiling(
            sequence=0,
            stage=None,
            rank=_whole(gain, "rank") or rank,
            kinds=[kind for action in actions if (kind := _text(action, "kind"))],
            action="; ".join(words),
            unit=unit,
            time_base=_text(ranking, "time_base"),
            time_ns=time_ns,
            best_ns=best_ns,
            sentence=_text(gain, "sentence"),
        )
    for verdict in _rows(detail, "verdicts"):
        budget = _object(verdict, "budget")
        per, time_ns = _text(budget, "per"), _whole(budget, "time_ns")
        for rank, action in enumerate(_rows(verdict, "actions"), start=1):
            saves_ns, kind = _whole(action, "ceiling_per_unit_ns"), _text(action, "kind")
            if per is None or time_ns is None or saves_ns is None:
                continue
            yield Ceiling(
                sequence=0,
                stage=_text(verdict, "stage"),
                rank=rank,
                kinds=[kind] if kind else [],
                action=_text(action, "short") or _text(action, "sentence") or "",
                unit=per,
                time_base=_text(budget, "time_base"),
                time_ns=time_ns,
                best_ns=time_ns - saves_ns,
                sentence=_text(action, "sentence"),
            )


def _artefacts(folder: Path) -> Iterator[Artefact]:
    try:
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.name.startswith(".") and redacted(file.name) == file.name:
                yield Artefact(file.name, redacted(str(file)), file.stat().st_size)
    except OSError as error:
        raise RequestError(f"{folder}: cannot be read ({error.strerror})") from error


# -- plain JSON of any version -----------------------------------------------------------------------------------------


def _object(plain: _Plain, key: str) -> _Plain:
    value = plain.get(key)
    return value if isinstance(value, dict) else {}


def _rows(plain: _Plain, key: str) -> list[_Plain]:
    value = plain.get(key)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _text(plain: _Plain, key: str) -> str | None:
    value = plain.get(key)
    return value if isinstance(value, str) else None


def _real(plain: _Plain, key: str) -> float | None:
    value = plain.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _whole(plain: _Plain, key: str) -> int | None:
    value = _real(plain, key)
    return None if value is None else round(plain[key])
