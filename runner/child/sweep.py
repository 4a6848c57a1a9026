"""The program of a sweep: one model in memory, and one point after the other.

``python -m runner.child.sweep PLAN_JSON`` times every point that has no result yet, unobserved; behind the last of them it
counts what each point needs and records a short window of it with torch.profiler. Recording comes last because a process in
which CUPTI was once at work may launch more slowly ever after: no timed pass runs behind a recorded one. Each point's result is
written when it is there, so that whatever ends the program loses the point at work and nothing else.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from attrs import define, evolve, field
from transformers.utils import logging as transformers_logging

from analysis.domain.convert import from_json_file, to_json
from analysis.domain.errors import ChildFailedError, DsocrError, ModelError, RequestError
from analysis.domain.files import WriteOptions, write_text
from analysis.domain.manifest import ControlPass, StageCost
from analysis.domain.sweep import MemoryUse, SweepSetting
from runner.child.annotate import Annotator
from runner.child.device import compute_capability, gpu_name, measure_peak, software_versions
from runner.child.energy import measure_energy
from runner.child.flops import count_costs, meta_network
from runner.child.generate import Decoder
from runner.child.models.family import LoadedModel, ModelInputs
from runner.child.models.loading import load_model
from runner.child.models.refusals import out_of_memory
from runner.child.passes import make_decoder, prepare_inputs, repeated, run_pass, with_prompt_tokens
from runner.collectors.choosing import COLLECTORS
from runner.inputs.inputs import check_unchanged, discover
from runner.plan.plan import RunPlan
from runner.plan.sweep import (
    RESULT_NAME,
    PointResult,
    SweepPlan,
    SweptModel,
    plan_of_point,
    seconds_of_like,
)
from runner.process.own_file import own_record
from runner.process.progress import ProgressWriter

__all__ = ["MODEL_NAME", "ROLE", "Sweeping", "main"]

ROLE: Final = "sweep"
MODEL_NAME: Final = "model.json"

_Say: TypeAlias = Callable[[str], None]

_WINDOW_S: Final = 3.0
"""Beside its pass, what the recording of a window takes, s: a decoder made anew, a warm-up, some ten thousand events written."""
_FILLER: Final = "The text goes on as it began, line after line, until the prompt is as long as it was asked to be."
_RECORD: Final = WriteOptions(durable=True, error=ChildFailedError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code (see `analysis.domain.errors`)."""
    parser = argparse.ArgumentParser(prog="python -m runner.child.sweep", description="Run the points of a sweep.")
    parser.add_argument("plan", type=Path, help="a SweepPlan as JSON")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _leave)
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        plan = own_record(SweepPlan, arguments.plan)
        Sweeping(plan, ProgressWriter(Path(plan.base.run_dir), ROLE), _to_stderr).run()
    except DsocrError as error:
        _to_stderr(f"error: {error}")
        return error.exit_code
    return 0


def _leave(number: int, _: object) -> None:
    sys.exit(128 + number)


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"sweep: {line}\n")
    sys.stderr.flush()


@define(eq=False)
class Sweeping:
    """The points of a plan, and the model that they share."""

    plan: SweepPlan
    reporter: ProgressWriter
    say: _Say
    _model: LoadedModel = field(init=False)
    _weight_bytes: int = field(init=False)
    _inputs: dict[tuple[str, int | None], ModelInputs] = field(factory=dict)
    """(input mode, prompt tokens) → the prompt, on the host."""
    _costs: dict[tuple[str, int | None, int, int], tuple[StageCost, ...]] = field(factory=dict)
    """(input mode, prompt tokens, batch, new tokens) → what it needs."""
    _meta: Any = None

    @torch.inference_mode()
    def run(self) -> None:
        """Do what has no result yet.

        Raises:
            DsocrError: the model cannot be had, or a result cannot be written. What a point alone meets is its result.
        """
        base = self.plan.base
        self.reporter.begin("model")
        images = base.input_set or discover(Path(base.request.input_dir))
        check_unchanged(images)
        self.say(f"loading {base.request.model_path} on {base.request.device}")
        self._model = load_model(base)
        _free(self._model.device)  # what the making of the weights left in the allocator is no point's
        # Tied weights are one tensor, and are given once.
        tensors = [*self._model.network.parameters(), *self._model.network.buffers()]
        self._weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self._write_model()
        self._time_points()
        self._examine_points()
        self.reporter.begin("end")

    # -- the timed part ----------------------------------------------------------------------------------------------

    def _time_points(self) -> None:
        points = self.plan.points
        self.reporter.begin("passes", passes=len(points), pages=2 + self.plan.base.request.repeats)
        seconds: dict[SweepSetting, float] = {}
        for number, setting in enumerate(points, start=1):
            result = self._result(setting)
            if result is None:
                result = self._left_out(setting, seconds) or self._timed(setting)
                self._write(result)
            if result.status == "measured" and result.seconds is not None:
                seconds[setting] = result.seconds
            self.reporter.pass_done(number, 0, 0.0)
            self.reporter.page(0)

    def _left_out(self, setting: SweepSetting, seconds: dict[SweepSetting, float]) -> PointResult | None:
        """Why a point is not tried; None: it is."""
        for smaller in (point for point in self.plan.points if _is_less(point, setting)):
            result = self._result(smaller)
            if result is not None and result.status == "out of memory":
                return PointResult(
                    setting,
                    "skipped",
                    f"larger than a point that did not fit into memory (batch {smaller.batch_size}, "
                    f"{smaller.max_new_tokens} new tokens)",
                )
        if self.plan.until is None:
            return None
        now, expected = time.monotonic(), seconds_of_like(setting, seconds)
        left = self.plan.until - now - sum(self._window_s(result) for result in self._to_examine())
        if seconds:
            left -= _WINDOW_S + self.plan.analysis_s  # its own
        if left <= 0 or (expected is not None and left < expected):
            wanted = "" if expected is None else f", and it may take {expected:.0f} s"
            reason = f"--budget-s leaves {max(0.0, left):.0f} s for it beside the windows of the points before{wanted}"
            return PointResult(setting, "skipped", reason, for_lack_of_time=True)
        return None

    def _timed(self, setting: SweepSetting) -> PointResult:
        """Run one point, unobserved; whatever becomes of it, its memory is free again behind it."""
        self.say(
            f"batch {setting.batch_size}, {setting.input_mode}, {setting.max_new_tokens} tokens, {setting.decode_mode}"
        )
        started = time.monotonic()
        try:
            result = self._measured(setting)
        except (DsocrError, MemoryError, RuntimeError) as error:
            reason = out_of_memory(error)
            if reason is None and not isinstance(error, DsocrError):
                raise
            result = (
                PointResult(setting, "failed", str(error))
                if reason is None
                else PointResult(setting, "out of memory", reason)
            )
            self.say(f"{result.status}: {result.reason}")
        _free(self._model.device)
        return evolve(result, seconds=time.monotonic() - started)

    def _measured(self, setting: SweepSetting) -> PointResult:
        plan, device = plan_of_point(self.plan, setting), self._model.device
        self.reporter.page(1)
        inputs = self._inputs_of(setting)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        decoder = make_decoder(plan, self._model, [inputs])
        self.reporter.page(2)
        for index in range(plan.settings.warmup_passes):
            run_pass(plan, self._model, decoder, [inputs], Annotator(), index)
        passes: list[ControlPass] = []
        for index in range(plan.request.repeats):
            self.reporter.page(3 + index)
            passes += run_pass(plan, self._model, decoder, [inputs], Annotator(), index)
        memory, unknown = self._memory(decoder)
        energy = None
        if plan.settings.measure_energy:
            batch = setting.batch_size
            on_device = repeated(inputs.on(device), batch)
            energy = measure_energy(
                self._model, decoder, on_device, batch_size=batch, new_tokens=min(timed.new_tokens for timed in passes)
            )
        return PointResult(
            setting,
            "measured",
            prompt=inputs.prompt,
            passes=tuple(passes),
            memory=memory,
            memory_unknown_because=unknown,
            energy=energy,
            notes=_notes(plan),
        )

    def _memory(self, decoder: Decoder) -> tuple[MemoryUse | None, str | None]:
        """What the device's allocator held at the point's peak, or why that is not known."""
        device = self._model.device
        if device.type != "cuda":
            return None, "memory is told by the allocator of a GPU, and this ran on a CPU"
        kv_cache = decoder.cached_bytes()
        if kv_cache is None:
            return None, "this model's cache is not one of keys and values per layer"
        peak, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return MemoryUse(
            weights=self._weight_bytes,
            kv_cache=kv_cache,
            activations=peak - self._weight_bytes - kv_cache,
            peak_allocated=peak,
            peak_reserved=reserved,
            reserved_unused=reserved - peak,
            device_total=torch.cuda.get_device_properties(device).total_memory,
        ), None

    def _inputs_of(self, setting: SweepSetting) -> ModelInputs:
        """The prompt of a point, batch 1, on the host.

        Raises:
            DsocrError: the model has no such input mode, or its prompt cannot be that long.
        """
        key = (setting.input_mode, setting.prompt_tokens)
        if key not in self._inputs:
            base = self.plan.base
            images = base.input_set or discover(Path(base.request.input_dir))
            (inputs,) = prepare_inputs(plan_of_point(self.plan, setting), self._model, images)
            if setting.prompt_tokens is not None:
                inputs = with_prompt_tokens(inputs, setting.prompt_tokens, self._model.tokens.ids(_FILLER))
            self._inputs[key] = inputs
        return self._inputs[key]

    # -- behind it: what a point needs, and its recorded window ------------------------------------------------------

    def _to_examine(self) -> Iterator[PointResult]:
        """Points that were measured and not yet counted and recorded."""
        for setting in self.plan.points:
            result = self._result(setting)
            if result is not None and result.status == "measured" and not _is_examined(result):
                yield result

    def _examine_points(self) -> None:
        waiting = list(self._to_examine())
        self.reporter.begin("collection", passes=len(waiting))
        for number, result in enumerate(waiting, start=1):
            behind = (number - 1) * self.plan.analysis_s + self._window_s(result)
            if self.plan.until is not None and time.monotonic() + behind > self.plan.until:
                self.say("no time is left to record more windows")
                return  # they are recorded when the sweep goes on
            self._write(self._examined(self._counted(result)))
            self.reporter.pass_done(number, 0, 0.0)

    def _window_s(self, result: PointResult) -> float:
        """What a point's window takes until it is analysed, s."""
        return _pass_s(result) + _WINDOW_S + self.plan.analysis_s

    def _counted(self, result: PointResult) -> PointResult:
        """Add what the whole point and its window need."""
        try:
            whole = self._costs_of(result.setting, result.setting.max_new_tokens)
            window = self._costs_of(result.setting, self._window_tokens(result.setting))
        except ModelError as error:
            return evolve(result, costs_unknown_because=str(error))
        return evolve(result, costs=whole, window_costs=window)

    def _costs_of(self, setting: SweepSetting, new_tokens: int) -> tuple[StageCost, ...]:
        key = (setting.input_mode, setting.prompt_tokens, setting.batch_size, new_tokens)
        if key not in self._costs:
            if self._meta is None:
                self._meta = meta_network(self._model.family, self._model.network.config)
            self._costs[key] = count_costs(
                self._model.family,
                self._meta,
                [self._inputs_of(setting)],
                max_new_tokens=new_tokens,
                dtype_bytes=self._model.dtype.itemsize,
                batch_size=setting.batch_size,
            )
        return self._costs[key]

    def _window_tokens(self, setting: SweepSetting) -> int:
        return min(setting.max_new_tokens, 1 + self.plan.window_steps)

    def _examined(self, result: PointResult) -> PointResult:
        if not self.plan.window_steps:
            return evolve(result, window_unknown_because="no window was to be recorded (--window-steps 0)")
        started = time.monotonic()
        try:
            window = self._window(result.setting)
            result = evolve(result, window=window)
        except (DsocrError, MemoryError, RuntimeError) as error:
            reason = out_of_memory(error)
            if reason is None and not isinstance(error, DsocrError):
                raise
            words = str(error) if reason is None else f"memory ran out while it was recorded ({reason})"
            result = evolve(result, window_unknown_because=words)
        _free(self._model.device)
        return evolve(result, window_seconds=time.monotonic() - started)

    def _window(self, setting: SweepSetting) -> ControlPass:
        """Record one prefill and a few decode steps, on the cache of the whole point, behind a warm-up as short."""
        whole = plan_of_point(self.plan, setting)
        inputs = self._inputs_of(setting)
        decoder = make_decoder(whole, self._model, [inputs])
        plan = evolve(whole, request=evolve(whole.request, max_new_tokens=self._window_tokens(setting)))
        run_pass(plan, self._model, decoder, [inputs], Annotator(), 0)
        # Kineto would end CUPTI behind each recording and begin it anew for the next, which crashes where CUDA graphs live.
        os.environ.setdefault("TEARDOWN_CUPTI", "0")
        os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")
        collector = COLLECTORS[plan.collector]
        recording = collector.recording(plan)
        annotator = Annotator((recording.sink,), collector.range_level(plan.annotation_level))
        with annotator.modules(self._model.modules), recording.capturing(str(self._model.device)):
            (recorded,) = run_pass(plan, self._model, decoder, [inputs], annotator, 0)
        return recorded

    # -- records -----------------------------------------------------------------------------------------------------

    def _result_file(self, setting: SweepSetting) -> Path:
        return Path(plan_of_point(self.plan, setting).run_dir) / RESULT_NAME

    def _result(self, setting: SweepSetting) -> PointResult | None:
        file = self._result_file(setting)
        return from_json_file(PointResult, file) if file.is_file() else None

    def _write(self, result: PointResult) -> None:
        write_text(self._result_file(result.setting), to_json(result) + "\n", _RECORD)

    def _write_model(self) -> None:
        model = self._model
        on_cpu = model.device.type == "cpu"
        record = SweptModel(
            model=model.subject,
            versions=software_versions(model.device),
            gpu_name=gpu_name(model.device),
            compute_capability=compute_capability(model.device),
            measured_peak=None,
            notes=model.notes,
        )
        file = Path(self.plan.base.run_dir) / MODEL_NAME
        if file.is_file():
            _require_same(from_json_file(SweptModel, file), record, file.parent)
            return
        peak = measure_peak(model.device, model.dtype, model.subject.dtype) if on_cpu else None
        write_text(file, to_json(evolve(record, measured_peak=peak)) + "\n", _RECORD)


def _require_same(before: SweptModel, now: SweptModel, folder: Path) -> None:
    """Refuse to go on with points of another model, device or software: they could not be compared.

    Raises:
        RequestError: something is not as it was.
    """
    facts = (
        ("model", before.model, now.model),
        ("GPU", before.gpu_name, now.gpu_name),
        *((name, before.versions.get(name), now.versions.get(name)) for name in {**before.versions, **now.versions}),
    )
    for name, old, new in facts:
        if old != new:
            shown = "" if name == "model" else f": {old or 'none'} then, {new or 'none'} now"
            raise RequestError(f"{folder}: holds points of another {name}{shown}; choose another --out")


def _is_less(smaller: SweepSetting, than: SweepSetting) -> bool:
    """Whether a point needs less memory than another of the same kind."""
    same = (smaller.input_mode, smaller.prompt_tokens, smaller.decode_mode) == (
        than.input_mode,
        than.prompt_tokens,
        than.decode_mode,
    )
    no_more = smaller.batch_size <= than.batch_size and smaller.max_new_tokens <= than.max_new_tokens
    return same and no_more and smaller != than


def _is_examined(result: PointResult) -> bool:
    return result.window is not None or result.window_unknown_because is not None


def _pass_s(result: PointResult) -> float:
    """How long one pass of a point took, s."""
    return max((timed.prefill_ns + timed.decode_ns for timed in result.passes), default=0) / 1e9


def _notes(plan: RunPlan) -> tuple[str, ...]:
    if plan.settings.decode_mode in ("static", "cuda-graph"):
        return ("the cache is static: attention runs over the whole of it, prefill included",)
    return ()


def _free(device: torch.device) -> None:
    """Give back what a point held: cycles of a failed one too, and blocks that the allocator keeps."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    raise SystemExit(main())
