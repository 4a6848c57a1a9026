"""The profiled child: load the model, prepare the inputs, warm up, run the passes, say what happened.

``python -m runner.child.workload PLAN_JSON --role control`` runs ``repeats`` passes that nothing observes and writes
``control.json``; ``--role capture`` runs ``capture_passes`` between cudaProfilerStart and cudaProfilerStop (or under
torch.profiler) and writes ``profiled.json``; with ``--brief`` they end after the first image's first decode step, which
is all that is profiled where every kernel costs tens of milliseconds. Standard output stays empty; what it does goes to standard
error as text, and how far it is to the launcher (`runner.process.progress`).
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Literal, TypeAlias

import torch
from attrs import evolve
from transformers.utils import logging as transformers_logging

from analysis.domain.convert import to_json
from analysis.domain.energy import Energy, unknown_energy
from analysis.domain.errors import ChildFailedError, DsocrError, ModelError
from analysis.domain.files import WriteOptions, write_text
from analysis.domain.manifest import ControlPass, RunManifest, StageCost
from runner.child.annotate import Annotator
from runner.child.device import compute_capability, device_state, gpu_name, measure_peak, peak_memory, software_versions
from runner.child.energy import measure_energy
from runner.child.flops import count_costs, meta_network
from runner.child.generate import SYNCHRONISES, Decoder
from runner.child.models.family import Family, LoadedModel, ModelInputs
from runner.child.models.loading import load_model
from runner.child.models.ranks import Ranks, open_ranks
from runner.child.models.refusals import out_of_memory
from runner.child.passes import (
    distinct_shapes,
    make_decoder,
    prepare_inputs,
    record_annotated,
    repeated,
    run_pass,
    with_generated_lengths,
)
from runner.collectors.choosing import COLLECTORS
from runner.inputs.inputs import check_unchanged, discover
from runner.plan.plan import RunPlan, WorkloadResult
from runner.process.gate import Gate
from runner.process.own_file import own_record
from runner.process.progress import ProgressWriter

__all__ = ["RESULT_NAMES", "Role", "main", "run"]

Role: TypeAlias = Literal["control", "capture"]

RESULT_NAMES: Final[dict[Role, str]] = {"control": "control.json", "capture": "profiled.json"}

_Progress: TypeAlias = Callable[[str], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the child; returns its exit code (see `analysis.domain.errors`)."""
    arguments = _parse(argv)
    signal.signal(signal.SIGTERM, _leave)
    # It would draw progress bars and give advice between our lines.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        plan = own_record(RunPlan, arguments.plan)
        with open_ranks(plan.settings.tensor_parallel, plan.request.device) as ranks:
            result = run(
                plan,
                arguments.role,
                arguments.manifest,
                _to_stderr,
                # A kernel review runs the same program, and shows the progress of its profiler.
                reporter=ProgressWriter(
                    Path(plan.run_dir) if ranks.first and not arguments.brief else None, arguments.role
                ),
                gate=Gate(os.environ if ranks.first else {}),
                with_costs=ranks.first and not arguments.no_costs,
                brief=arguments.brief,
                ranks=ranks,
            )
            if ranks.first:
                write_text(
                    Path(plan.run_dir) / RESULT_NAMES[result.role],
                    to_json(result),
                    WriteOptions(error=ChildFailedError),
                )
    except DsocrError as error:
        _to_stderr(f"error: {error}")
        return error.exit_code
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is one of the first kind
        why = out_of_memory(error)
        if why is None:
            raise
        _to_stderr(f"error: out of memory; take a smaller batch, input mode or model, or fewer tokens ({why})")
        return ModelError.exit_code
    return 0


def _leave(number: int, _: object) -> None:
    """End as a program ends: ranges are closed, and the profiler inside writes out what it still holds.

    Once: another signal must not end the writing. SIGKILL is what ends a program that takes too long over it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m runner.child.workload", description="Run a plan's model once.")
    parser.add_argument("plan", type=Path, help="a RunPlan as JSON")
    parser.add_argument("--role", choices=tuple(RESULT_NAMES), required=True)
    parser.add_argument("--no-costs", action="store_true", help="do not count FLOPs and bytes (control only)")
    parser.add_argument(
        "--brief", action="store_true", help="only the first image's prefill and first decode step (capture only)"
    )
    parser.add_argument("--manifest", type=Path, help="run.json, written into the trace as a mark (capture only)")
    return parser.parse_args(argv)


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"workload: {line}\n")
    sys.stderr.flush()


@torch.inference_mode()
def run(
    plan: RunPlan,
    role: Role,
    manifest: Path | None,
    progress: _Progress,
    *,
    reporter: ProgressWriter | None = None,
    gate: Gate | None = None,
    with_costs: bool = True,
    brief: bool = False,
    ranks: Ranks | None = None,
) -> WorkloadResult:
    """Do what the plan says in this role.

    Args:
        plan: resolved; ``request.input_dir`` is a file or folder of images.
        role: control (nothing annotated) or capture.
        manifest: the run's ``run.json``, for the mark; None: no mark is written.
        progress: takes one line at a time.
        reporter: told each step and pass; None: nobody.
        gate: waited at before the model is loaded, and before anything runs on the device; None: nowhere.
        with_costs: count FLOPs and bytes after the control passes.
        brief: capture only the first image's prefill and first decode step, after a warm-up as short; input shapes and
            static cache stay those of the plan.
        ranks: those that share the model; None: this process holds all of it.

    Raises:
        DsocrError: of the kind that says what is wrong.
    """
    reporter = reporter or ProgressWriter(None, role)
    gate, ranks = gate or Gate({}), ranks or Ranks()

    def waits() -> None:
        assert reporter is not None
        reporter.begin("waiting")

    gate.wait(waits)
    ranks.meet()
    reporter.begin("model")
    images = plan.input_set or discover(Path(plan.request.input_dir))
    check_unchanged(images)
    progress(f"loading {plan.request.model_path} on {plan.request.device}")
    model = load_model(plan, ranks)
    reporter.begin("inputs")
    inputs = prepare_inputs(plan, model, images)
    progress(f"{model.subject.parameters:,} parameters, {len(inputs)} images, input mode {inputs[0].prompt.mode}")
    gate.wait(waits)
    ranks.meet()
    # What the control run found is in it now.
    mark = None if manifest is None else to_json(own_record(RunManifest, manifest), indent=None)
    reporter.begin("warm-up")
    decoder = make_decoder(plan, model, inputs)
    before = device_state(model.device, "before")

    # The decoder above is that of the whole plan: a static cache has its full length also where one step is captured.
    captured, shown = (_brief(plan), inputs[:1]) if brief else (plan, inputs)
    shapes = distinct_shapes(shown)
    for index in range(plan.settings.warmup_passes):
        progress(f"warm-up {index + 1}/{plan.settings.warmup_passes}: {len(shapes)} prompts, one of each shape")
        run_pass(captured, model, decoder, shapes, Annotator(), index)
    tokens_of: dict[int, tuple[int, ...]] = {}
    peak_bytes: list[int] = []
    if role == "control":
        with peak_memory(model.device) as peak_bytes:
            passes = _control_passes(plan, model, decoder, inputs, progress, reporter, tokens_of)
    else:
        passes = _captured_passes(captured, model, decoder, shown, mark, progress, reporter)

    after = device_state(model.device, "after")
    energy = None
    if role == "control" and plan.settings.measure_energy:
        progress("measuring energy")
        reporter.begin("energy")
        energy = _energy(plan, model, decoder, inputs, passes)
    wants_peak = role == "control" and (plan.settings.measure_peak or model.device.type == "cpu")
    result = WorkloadResult(
        role=role,
        model=model.subject,
        prompts=tuple(image.prompt for image in inputs),
        passes=tuple(passes),
        decode_mode=plan.settings.decode_mode,
        costs_unknown_because="FLOPs are counted in the control run",
        measured_peak=measure_peak(model.device, model.dtype, model.subject.dtype) if wants_peak else None,
        energy=energy,
        peak_memory_bytes=peak_bytes[0] if peak_bytes else None,
        device_states=before + after,
        versions=software_versions(model.device),
        gpu_name=gpu_name(model.device),
        compute_capability=compute_capability(model.device),
        synchronises=_synchronises(model),
        notes=_notes(plan, model),
    )
    if role == "capture":
        return result
    inputs = with_generated_lengths(inputs, passes)
    result = evolve(
        result,
        prompts=tuple(image.prompt for image in inputs),
        costs_unknown_because="FLOPs were not to be counted",
        texts=_texts(model, tokens_of),
    )
    if with_costs:
        progress("counting FLOPs and bytes")
        config, family, dtype = model.network.config, model.family, model.dtype
        # The device is free from here on: the program that is to be captured loads its model meanwhile.
        del model, decoder, shapes, shown
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        reporter.begin("counting")
        costs, unknown = _costs(plan, family, config, dtype, inputs)
        result = evolve(result, costs=costs, costs_unknown_because=unknown)
    reporter.begin("end")
    return result


def _energy(
    plan: RunPlan, model: LoadedModel, decoder: Decoder, inputs: list[ModelInputs], passes: list[ControlPass]
) -> Energy:
    """Energy of the first page's stages, whose tokens are as many as it wrote in the control passes."""
    if plan.settings.tensor_parallel > 1:
        return unknown_energy("several GPUs share the model; energy is measured of one")
    first = inputs[0]
    written = [page.new_tokens for page in passes if page.image_index == first.prompt.image_index]
    return measure_energy(
        model,
        decoder,
        repeated(first.on(model.device), plan.settings.batch_size),
        batch_size=plan.settings.batch_size,
        new_tokens=min(written),
    )


def _texts(model: LoadedModel, tokens_of: dict[int, tuple[int, ...]]) -> tuple[str, ...]:
    """What was written, in the order of the images; nothing where the weights are random or no tokenizer is there."""
    if model.subject.weights != "checkpoint":
        return ()
    texts = []
    for _, ids in sorted(tokens_of.items()):
        text = model.tokens.text([token for token in ids if token not in model.eos_token_ids])
        if text is None:
            return ()
        texts.append(text)
    return tuple(texts)


def _control_passes(
    plan: RunPlan,
    model: LoadedModel,
    decoder: Decoder,
    inputs: list[ModelInputs],
    progress: _Progress,
    reporter: ProgressWriter,
    tokens_of: dict[int, tuple[int, ...]],
) -> list[ControlPass]:
    passes: list[ControlPass] = []
    reporter.begin("passes", passes=plan.request.repeats, pages=len(inputs))
    for index in range(plan.request.repeats):
        progress(f"control pass {index + 1}/{plan.request.repeats}")
        passes += _timed_pass(plan, model, decoder, inputs, Annotator(), index, reporter, tokens_of)
    return passes


def _timed_pass(
    plan: RunPlan,
    model: LoadedModel,
    decoder: Decoder,
    inputs: list[ModelInputs],
    annotator: Annotator,
    index: int,
    reporter: ProgressWriter,
    tokens_of: dict[int, tuple[int, ...]] | None = None,
) -> list[ControlPass]:
    """A pass, of which the launcher is told when it is over."""
    started = perf_counter()
    done = run_pass(plan, model, decoder, inputs, annotator, index, reporter.page, tokens_of)
    tokens = sum(image.new_tokens for image in done) * plan.settings.batch_size
    reporter.pass_done(index + 1, tokens, perf_counter() - started)
    return done


def _captured_passes(
    plan: RunPlan,
    model: LoadedModel,
    decoder: Decoder,
    inputs: list[ModelInputs],
    mark: str | None,
    progress: _Progress,
    reporter: ProgressWriter,
) -> list[ControlPass]:
    passes: list[ControlPass] = []
    collector = COLLECTORS[plan.collector]
    recording = collector.recording(plan)
    annotator = Annotator((recording.sink,), collector.range_level(plan.annotation_level))
    with annotator.modules(model.modules), recording.capturing(str(model.device)):
        if mark is not None and collector.wants_manifest_mark:
            annotator.mark_manifest(mark)
        with annotator.operators(model.device):
            if collector.sees_graph_nodes and annotator.writes_modules:
                record_annotated(decoder, annotator)
            reporter.begin("passes", passes=plan.settings.capture_passes, pages=len(inputs))
            for index in range(plan.settings.capture_passes):
                progress(f"captured pass {index + 1}/{plan.settings.capture_passes}")
                passes += _timed_pass(plan, model, decoder, inputs, annotator, index, reporter)
        progress("ending the collection")
        reporter.begin("collection")
    reporter.begin("end")
    return passes


def _brief(plan: RunPlan) -> RunPlan:
    """The plan of one prefill and one decode step, even where the first token is an EOS."""
    request = evolve(plan.request, max_new_tokens=min(plan.request.max_new_tokens, 2))
    return evolve(plan, request=request, settings=evolve(plan.settings, capture_passes=1, ignore_eos=True))


def _costs(
    plan: RunPlan, family: Family, config: Any, dtype: torch.dtype, inputs: list[ModelInputs]
) -> tuple[tuple[StageCost, ...], str | None]:
    """What each stage needs, or why it cannot be counted."""
    try:
        counted = count_costs(
            family,
            meta_network(family, config),
            inputs,
            max_new_tokens=plan.request.max_new_tokens,
            dtype_bytes=dtype.itemsize,
            batch_size=plan.settings.batch_size,
        )
    except ModelError as error:
        return (), str(error)
    return counted, None


def _synchronises(model: LoadedModel) -> tuple[str, ...]:
    own = []
    if model.subject.experts_implementation == "eager":
        own.append("every mixture-of-experts layer: eager experts ask the host which of them were chosen")
    if "vision.sam" in model.modules:
        own.append("inside prefill: the model's own check of image tokens, and its placing of them in the prompt")
    return (*SYNCHRONISES, *own)


def _notes(plan: RunPlan, model: LoadedModel) -> tuple[str, ...]:
    notes = list(model.notes)
    if plan.settings.batch_size > 1:
        notes.append(
            f"batch size {plan.settings.batch_size}: every image is repeated; token counts are those of one sequence, and "
            "copies go to the same experts, so that a batch of different images may read more weights"
        )
    if plan.settings.decode_mode == "cuda-graph":
        notes.append("decode is replayed from a CUDA graph: its modules are those of the recording, not of the replay")
    if plan.settings.decode_mode in ("static", "cuda-graph"):
        notes.append("the cache is static: attention runs over the whole of it, prefill included")
    if plan.settings.ignore_eos:
        notes.append("EOS was ignored: every image generates max_new_tokens tokens")
    return (*notes, *COLLECTORS[plan.collector].notes(plan))


if __name__ == "__main__":
    sys.exit(main())
