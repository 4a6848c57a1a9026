"""The review of a finished run: its program once more under Nsight Compute, and what that counted joined to its trace.

Three layers, each one start of the program, in the order of what they explain: a census of traffic and tensor
operations (every kernel of one prefill and one decode step, one pass each), sections for the kernels with the most
time, a census of the CUDA cores' operations. Whatever ends it early – the budget, Ctrl-C, a fault – what was counted
before is kept and joined.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from analysis.domain.annotations import Stage
from analysis.domain.ended import ended_in_words
from analysis.domain.errors import (
    CaptureError,
    DsocrError,
    ExportError,
    InterruptedRunError,
    RequestError,
)
from analysis.domain.manifest import RunManifest
from runner.collectors.choosing import COLLECTORS
from runner.collectors.ncu.command import Selection, import_argv, profile_argv
from runner.collectors.ncu.counter_file import CounterFileFacts, keep_counters
from runner.collectors.ncu.launches import StageLaunches, choose_kernels, first_launches
from runner.collectors.ncu.metrics import SECTIONS, beside_sections, census_sets, chip_of
from runner.collectors.ncu.output import ProgressReader, fault
from runner.collectors.ncu.tool import NcuTool, known_metrics, ncu_environment
from runner.launcher.device_lock import DeviceLock
from runner.launcher.outside import analyse_beside
from runner.launcher.provenance import now
from runner.launcher.review_progress import Display
from runner.launcher.run_directory import RunDirectory
from runner.plan.plan import RunPlan
from runner.process.driver import DriverFacts, driver_facts
from runner.process.environment import RUN_MARK, child_environment, redact
from runner.process.isolation import namespace_prefix
from runner.process.process import Interrupts, Outcome, run_process
from runner.process.program_log import log_text
from runner.process.python import module_command

__all__ = [
    "COUNTERS",
    "Layer",
    "LayerResult",
    "Review",
    "ReviewOptions",
    "analysis_command",
    "child_command",
    "join",
    "outline",
    "require_reviewable",
]

COUNTERS: Final = "counters"
"""Folder of a run that holds its counter files."""

_IMPORT_S: Final = 3600.0
_START_S: Final = 25.0
"""Until the program's first profiled kernel: torch, the model, a warm-up."""
_CENSUS_S: Final = 0.05
"""A kernel in one pass (H100, ncu 2025.3)."""
_SECTIONS_S: Final = 2.0
"""18 passes of a kernel, without saving memory between them."""
_SAVE_S_PER_BYTE: Final = 0.6e-9
"""To save and restore what the program holds, around a kernel of several passes: 4 s for a model of 6.7 GB."""
_REPORT_BYTES: Final = 4 << 20
"""A kernel in a report: ncu stores the code of each with it."""
_DTYPE_BYTES: Final = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}
_GRACE_S: Final = 30.0
"""A kernel under ncu must end before the program hears that it is to end."""
_LINE: Final = 300


@frozen
class ReviewOptions:
    """What is asked of a review."""

    stages: tuple[Stage, ...] = ("prefill", "decode")
    kernels: int = 16
    """Launch configurations that get sections; 0: none."""
    budget_s: float | None = None
    """Seconds for all of ncu's work; None: no limit."""
    keep_report: bool = False
    """Keep ncu's own reports, which name the machine and hold command lines."""
    wait: bool = False


@frozen
class Layer:
    """One start of the program under ncu."""

    name: str
    selection: Selection
    kernels: int
    """That will be profiled, by the run's trace."""
    estimate_s: float
    """Without the start."""


@frozen
class LayerResult:
    """What became of a layer: an entry of ``counters/collection.json``."""

    name: str
    argv: tuple[str, ...]
    """Secrets redacted."""
    expected: int
    """Kernels, by the run's trace."""
    kernels: int
    """In the counter file."""
    file: str | None
    """Name of the counter file, None if nothing was counted."""
    ended_because: str | None = None
    """Why it is not whole; None: it was not ended early."""
    remark: str | None = None
    """How a layer that ran to its end differs from what the trace led to expect."""


@frozen
class Collection:
    """``counters/collection.json``: how the counter files beside it were made."""

    run_id: str
    finished_at: str
    ncu: str
    """Path and version."""
    notes: tuple[str, ...]
    """What could not be counted, and why."""
    layers: tuple[LayerResult, ...]


def require_reviewable(directory: RunDirectory) -> tuple[RunPlan, RunManifest]:
    """Read a run that can be reviewed.

    Raises:
        RequestError: it was not recorded by nsys on a GPU, or has no trace yet; the message says what to do.
    """
    plan = directory.read_plan()
    manifest = directory.read_manifest()
    if plan.request.device == "cpu":
        raise RequestError(
            f"{directory.path}: ran on the CPU; Nsight Compute counts on GPUs: run it with --device cuda"
        )
    if not COLLECTORS[plan.collector].joins_counters:
        raise RequestError(
            f"{directory.path}: was recorded by the collector {plan.collector}, whose trace names no launch shapes that "
            "counters could be joined to; run it with --collector nsys"
        )
    if plan.settings.tensor_parallel > 1:
        raise RequestError(
            f"{directory.path}: ran on {plan.settings.tensor_parallel} ranks; a review is of one process"
        )
    if not directory.trace_file.is_file():
        raise RequestError(
            f"{directory.path}: has no trace.sqlite to join counters to (the run is {manifest.status}); "
            f"dsocr-profile resume {plan.run_id}"
        )
    return plan, manifest


def child_command(place: RunDirectory) -> list[str]:
    """Give the command line of the child.

    Without the manifest mark, which ncu would store with every kernel.

    Args:
        place: its plan, and where it may write.
    """
    return module_command("runner.child.workload", str(place.plan_file), "--role", "capture", "--brief")


@frozen
class Review:
    """One review and what it needs of the outside world."""

    directory: RunDirectory
    plan: RunPlan
    manifest: RunManifest
    options: ReviewOptions
    environ: Mapping[str, str]
    say: Callable[[str], None]
    """Takes one line for the user."""
    tool: NcuTool
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()
    """What will not be counted, and why."""
    prefix: tuple[str, ...] = ()
    """Starts ncu where it sees no other processes; empty where that is not possible."""
    command: Callable[[RunDirectory], list[str]] = child_command
    """Command line of the child; tests put a program of their own here."""

    @classmethod
    def open(
        cls,
        directory: RunDirectory,
        options: ReviewOptions,
        tool: NcuTool,
        environ: Mapping[str, str],
        say: Callable[[str], None],
    ) -> Review:
        """Prepare the review of a run; starts no profiling.

        Raises:
            RequestError: see `require_reviewable`; or its trace has none of the stages.
            CaptureError: this ncu does not know the GPU's metrics.
        """
        plan, manifest = require_reviewable(directory)
        launches = _launches_of(directory, options)
        layers, notes = _layers(launches, options, tool, manifest, environ)
        return cls(
            directory, plan, manifest, options, environ, say, tool, layers, notes, prefix=namespace_prefix(environ)
        )

    @property
    def place(self) -> RunDirectory:
        """Where the child's plan and result, the logs and the counter files go."""
        return RunDirectory(self.directory.path / COUNTERS)

    def commands(self) -> list[list[str]]:
        """Give the exact commands, for ``--dry-run``."""
        commands = []
        for layer in self.layers:
            commands.append([*self.prefix, *self._profile(layer)])
            commands.append([*self.prefix, *import_argv(self.tool, str(self._report(layer)))])
        commands.append(analysis_command(self.directory, [self._file(layer) for layer in self.layers]))
        return commands

    def estimate_s(self) -> float:
        """Seconds that all layers will take."""
        return sum(_START_S + layer.estimate_s for layer in self.layers)

    def carry_out(self, interrupts: Interrupts, joined: Callable[[], None] = lambda: None) -> Collection:
        """Hold run and device, count, join, render.

        Args:
            interrupts: the first one ends what is being counted, and the rest is joined.
            joined: called once review.html is there, also where something was left out.

        Raises:
            BusyError: another run holds the device, or another process works on this run.
            CaptureError: nothing could be counted; or a later layer failed, and the rest was joined.
            InterruptedRunError: interrupted; what was counted before is joined.
            AnalysisFailedError: the counter files are there, but could not be joined.
        """
        facts = driver_facts()
        self._require_same_gpu(facts)
        self._require_space()
        failures: list[DsocrError] = []
        lock = DeviceLock(self.plan.request.device, facts.gpus, self.environ)
        with self.directory.locked():
            with lock.held(wait=self.options.wait, interrupts=interrupts, waiting=self.say):
                collection = self._collect(interrupts, failures)
            files = [self.place.path / layer.file for layer in collection.layers if layer.file is not None]
            if not files:
                raise failures[0] if failures else CaptureError("no kernel was profiled")
            join(self.directory, files, self.plan, self.environ, interrupts, self.say)
        joined()
        if failures:
            raise type(failures[0])(f"{failures[0]}; what was counted before is in review.html")
        return collection

    # -- collecting ----------------------------------------------------------------------------------------------------

    def _collect(self, interrupts: Interrupts, failures: list[DsocrError]) -> Collection:
        self._clear()
        self.place.path.mkdir(mode=0o700, exist_ok=True)
        self.place.write(self.place.plan_file, evolve(self.plan, run_dir=str(self.place.path)))
        began = time.monotonic()
        deadline = None if self.options.budget_s is None else began + self.options.budget_s
        results: list[LayerResult] = []
        try:
            for layer in self.layers:
                result, failure = self._layer(layer, interrupts, deadline)
                results.append(result)
                if failure is not None:
                    failures.append(failure)
                    # What stops the first layer – no permission, no model – stops the others too.
                    if isinstance(failure, InterruptedRunError) or all(collected.file is None for collected in results):
                        break
        finally:
            for file in (self.place.plan_file, self.place.path / "profiled.json"):
                file.unlink(missing_ok=True)
        collection = Collection(
            self.plan.run_id, now(), f"{self.tool.path} {self.tool.version}", self.notes, tuple(results)
        )
        self.place.write(self.place.path / "collection.json", collection)
        return collection

    def _layer(
        self, layer: Layer, interrupts: Interrupts, deadline: float | None
    ) -> tuple[LayerResult, DsocrError | None]:
        nothing = LayerResult(layer.name, redact(self._profile(layer)), layer.kernels, 0, None)
        if deadline is not None and deadline - time.monotonic() < _START_S:
            late = f"no time was left of --budget-s {self.options.budget_s:g}"
            self.say(f"{layer.name}: left out, {late}")
            return evolve(nothing, ended_because=late), None
        self.say(f"{layer.name}: {layer.kernels:,} kernels, about {_minutes(_START_S + layer.estimate_s)}")
        try:
            outcome = self._profiled(layer, interrupts, deadline)
            interrupted = outcome.ended_by == "interrupt"
            if interrupted:  # heard: what follows is quick, and a second Ctrl-C ends it
                interrupts.count = 0
            if interrupted and outcome.gave_up:
                raise InterruptedRunError("interrupted twice: Nsight Compute was killed, and its report is lost")
            counted = self._stored(layer, outcome, interrupts)
        except DsocrError as error:
            words = f"{layer.name}: {error}"
            return evolve(nothing, ended_because=str(error)), type(error)(words)
        finally:
            if not self.options.keep_report:
                self._report(layer).unlink(missing_ok=True)
        because = self._why_partial(layer, outcome)
        remark = None if because else _difference(layer, counted)
        done = evolve(
            nothing, kernels=counted.kernels, file=self._file(layer).name, ended_because=because, remark=remark
        )
        self.say(
            f"{layer.name}: {counted.kernels:,} of {layer.kernels:,} kernels counted"
            + (f" – partial: {because}" if because else "")
            + (f" – {remark}" if remark else "")
        )
        if interrupted:
            return done, InterruptedRunError(f"{layer.name}: interrupted")
        if because is not None and outcome.ended_by == "itself":
            return done, CaptureError(f"{layer.name}: {because}")
        return done, None

    def _profiled(self, layer: Layer, interrupts: Interrupts, deadline: float | None) -> Outcome:
        log = self._log(layer)
        log.unlink(missing_ok=True)
        reader = ProgressReader(log)
        with self.place.temporary() as temporary, Display(layer.name, layer.kernels, self.say) as display:
            return run_process(
                [*self.prefix, *self._profile(layer)],
                env=self._env(temporary),
                log=log,
                interrupts=interrupts,
                target=self.command(self.place),
                deadline=deadline,
                grace_s=max(self.plan.settings.grace_s, _GRACE_S),
                umask=0o077,
                watch=lambda: display.show(reader.read()),
            )

    def _stored(self, layer: Layer, outcome: Outcome, interrupts: Interrupts) -> CounterFileFacts:
        """Turn a layer's report into its counter file."""
        report = self._report(layer)
        if not report.is_file():
            raise CaptureError(self._why_nothing(layer, outcome))
        report.chmod(0o600)
        printed = self.place.path / f".{layer.name}.printed.csv"
        try:
            with self.place.temporary() as temporary:
                imported = run_process(
                    [*self.prefix, *import_argv(self.tool, str(report))],
                    env=self._env(temporary),
                    log=printed,
                    interrupts=interrupts,
                    deadline=time.monotonic() + _IMPORT_S,
                    umask=0o077,
                    clean=False,
                )
            if imported.ended_by == "timeout":
                raise ExportError(f"{report}: ncu did not read its own report in {_IMPORT_S / 60:.0f} min")
            if imported.ended_by == "interrupt":
                raise InterruptedRunError("interrupted while its report was read")
            if imported.returncode != 0:
                words = fault(printed) or f"it {ended_in_words(imported.returncode)}"
                raise ExportError(f"{report}: ncu could not read its own report: {words}")
            return keep_counters(printed, self._file(layer))
        finally:
            printed.unlink(missing_ok=True)

    def _why_nothing(self, layer: Layer, outcome: Outcome) -> str:
        log = self._log(layer)
        if outcome.ended_by == "interrupt":
            return "interrupted before a kernel was profiled"
        if outcome.ended_by == "timeout":
            return f"--budget-s {self.options.budget_s:g} was over before a kernel was profiled"
        said, child = fault(log), _child_error(log)
        if child is not None:
            words = f"the program failed: {child}" + (f" ({said})" if said else "")
        else:
            words = said or f"ncu {ended_in_words(outcome.returncode, 'left no report, and ended with')}"
        return f"{words} (all of it: {log})"

    def _why_partial(self, layer: Layer, outcome: Outcome) -> str | None:
        if outcome.ended_by == "timeout":
            return f"ended by --budget-s {self.options.budget_s:g}"
        if outcome.ended_by == "interrupt":
            return "interrupted"
        if outcome.returncode != 0:
            log = self._log(layer)
            said = _child_error(log) or fault(log) or "no error is named"
            return f"{ended_in_words(outcome.returncode, 'ended with')}: {said}"
        return None

    # -- checks --------------------------------------------------------------------------------------------------------

    def _require_same_gpu(self, facts: DriverFacts) -> None:
        number = int(self.plan.request.device.partition(":")[2] or 0)
        if number >= len(facts.gpus):
            raise RequestError(
                f"the run used {self.plan.request.device}, which is not visible here; counters that were collected "
                "elsewhere are joined with --from"
            )
        here, there = facts.gpus[number].name, self.manifest.meta.gpu_name
        if there is not None and here != there:
            raise RequestError(
                f"the run was recorded on {there}, and here is {here}: its counters would be another GPU's"
            )

    def _require_space(self) -> None:
        need = max((layer.kernels for layer in self.layers), default=0) * _REPORT_BYTES
        free = shutil.disk_usage(self.directory.path).free
        if free < need:
            raise CaptureError(
                f"{self.directory.path}: {free / 2**30:.1f} GiB are free, and ncu's report of "
                f"{max(layer.kernels for layer in self.layers):,} kernels may take {need / 2**30:.1f} GiB until it is "
                "read; free some, or review one stage (--stage decode)"
            )

    # -- pieces --------------------------------------------------------------------------------------------------------

    def _profile(self, layer: Layer) -> list[str]:
        output = str(self._report(layer).with_suffix(""))
        return profile_argv(self.tool, layer.selection, output=output, target=self.command(self.place))

    def _report(self, layer: Layer) -> Path:
        return self.place.path / f"{layer.name}.ncu-rep"

    def _file(self, layer: Layer) -> Path:
        return self.place.path / f"{layer.name}.csv.xz"

    def _log(self, layer: Layer) -> Path:
        return self.directory.log(f"review-{layer.name}")

    def _env(self, temporary: Path) -> dict[str, str]:
        extra = {RUN_MARK: f"review-{self.plan.run_id}", "TMPDIR": str(temporary)}
        return ncu_environment(child_environment(self.environ, keep=self.plan.settings.keep_env, extra=extra))

    def _clear(self) -> None:
        """Counters of an earlier review are another run's."""
        if self.place.path.is_dir():
            for file in (*self.place.path.glob("*.csv.xz"), *self.place.path.glob("*.ncu-rep")):
                with suppress(FileNotFoundError):
                    file.unlink()


def analysis_command(run: RunDirectory, files: Sequence[Path]) -> list[str]:
    """Give the command line that joins counter files to a run's trace."""
    counters = [argument for file in files for argument in ("--counters", str(file))]
    return module_command("analysis.cli", "review", str(run.trace_file), *counters, "--out", str(run.path))


def join(
    directory: RunDirectory,
    files: Sequence[Path],
    plan: RunPlan,
    environ: Mapping[str, str],
    interrupts: Interrupts,
    say: Callable[[str], None],
) -> None:
    """Join counter files to a run's trace and render the review; what it prints is in ``logs/review.log``.

    Raises:
        AnalysisFailedError: it failed; its own words are in the message.
        InterruptedRunError: interrupted.
    """
    say("joining the counters to the trace")
    analyse_beside(
        analysis_command(directory, files),
        child_environment(environ, keep=plan.settings.keep_env),
        directory.log("review"),
        interrupts,
        "the joining of the counters",
        f"the counter files are kept: {', '.join(str(file) for file in files)}",
    )


def _layers(
    launches: Sequence[StageLaunches],
    options: ReviewOptions,
    tool: NcuTool,
    manifest: RunManifest,
    environ: Mapping[str, str],
) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    capability = manifest.meta.compute_capability
    chip = chip_of(capability)
    known = known_metrics(tool, chip if chip in tool.chips else None, environ)
    dtype = manifest.model.dtype if manifest.model is not None else "bf16"
    traffic, cores = census_sets(dtype, known, chip or f"compute capability {capability or 'unknown'}")
    notes = [*traffic.missing, *cores.missing]
    notes += [
        _without_launches(stage, manifest)
        for stage in options.stages
        if stage not in {launched.stage for launched in launches}
    ]
    stages = tuple(launched.stage for launched in launches)
    count = sum(launched.launches for launched in launches)
    if not traffic.metrics:
        raise CaptureError(f"{tool.path} (version {tool.version}): {notes[0]}; use a newer one (--ncu)")
    layers = [Layer(traffic.name, Selection(stages, traffic.metrics), count, count * _CENSUS_S)]
    if options.kernels > 0 and not tool.filters_by_launch_shape():
        notes.append(f"sections: ncu {tool.version} cannot profile one launch of each shape; a newer one can (--ncu)")
    elif options.kernels > 0:
        symbols, shapes = choose_kernels(launches, options.kernels)
        if symbols:
            selection = Selection(stages, beside_sections(known), SECTIONS, symbols, once_per_shape=True)
            each = _SECTIONS_S + _SAVE_S_PER_BYTE * _model_bytes(manifest)
            layers.append(Layer("sections", selection, shapes, shapes * each))
        else:
            notes.append("sections: the trace holds no mangled names, by which kernels are chosen")
    if cores.metrics:
        layers.append(Layer(cores.name, Selection(stages, cores.metrics), count, count * _CENSUS_S))
    return tuple(layers), tuple(notes)


def outline(directory: RunDirectory, options: ReviewOptions) -> tuple[str, ...]:
    """What a review of this run would count, by its trace alone: for where there is no ncu yet.

    Raises:
        RequestError: see `require_reviewable`; or its trace has none of the stages.
    """
    _, manifest = require_reviewable(directory)
    launches = _launches_of(directory, options)
    count = sum(launched.launches for launched in launches)
    stages = " and ".join(launched.stage for launched in launches)
    lines = [f"census: traffic and operations of all {count:,} kernels of {stages}, in two starts of the program"]
    starts, work_s = 2, 2 * count * _CENSUS_S
    if options.kernels > 0:
        symbols, shapes = choose_kernels(launches, options.kernels)
        if symbols:
            starts += 1
            work_s += shapes * (_SECTIONS_S + _SAVE_S_PER_BYTE * _model_bytes(manifest))
            lines.append(f"sections: {shapes:,} launch shapes, those that take most of the time")
    lines.append(f"about {_minutes(starts * _START_S + work_s)} in all, then the counters are joined to the trace")
    return tuple(lines)


def _launches_of(directory: RunDirectory, options: ReviewOptions) -> tuple[StageLaunches, ...]:
    launches = tuple(launched for launched in first_launches(directory.trace_file) if launched.stage in options.stages)
    if not launches:
        raise RequestError(f"{directory.trace_file}: has no {' or '.join(options.stages)} with kernels in it")
    return launches


def _difference(layer: Layer, counted: CounterFileFacts) -> str | None:
    """What a whole layer holds less or more of than the trace; None: the same."""
    of_stage = {"prefill": counted.prefill, "decode": counted.decode}
    absent = [stage for stage in layer.selection.stages if not of_stage[stage]]
    if absent and not layer.selection.symbols:
        return f"no kernel of {' and of '.join(absent)} was met: ncu saw no such range"
    if counted.kernels == layer.kernels:
        return None
    if layer.selection.symbols:
        return f"the trace has {layer.kernels:,} such launch shapes"
    return f"the trace has {layer.kernels:,} launches there, so the program did not take quite the same way"


def _without_launches(stage: Stage, manifest: RunManifest) -> str:
    """Why a stage of a trace has no kernel to profile again."""
    if stage == "decode" and manifest.decode_mode == "cuda-graph":
        return "decode: the trace holds its CUDA graph as one piece; run it with a preset that records graph nodes"
    return f"{stage}: the trace has none"


def _model_bytes(manifest: RunManifest) -> float:
    if manifest.model is None:
        return 0.0
    return float((manifest.model.parameters or 0) * _DTYPE_BYTES.get(manifest.model.dtype, 4))


def _child_error(log: Path) -> str | None:
    """What the profiled program gave as its error, None if it gave none."""
    try:
        text = log_text(log)
    except OSError:
        return None
    said = [line.partition("workload: error: ")[2] for line in text.splitlines() if "workload: error: " in line]
    return said[-1][:_LINE] if said else None


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
