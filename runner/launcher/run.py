"""The run: control → capture → export → scrub → manifest → analysis. Each step can be taken up again after a fix."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from attrs import Factory, evolve, field, frozen

from analysis.domain.ended import ended_in_words
from analysis.domain.errors import (
    CaptureError,
    ChildFailedError,
    DsocrError,
    ExportError,
    InputImagesError,
    ModelError,
    RequestError,
)
from analysis.domain.manifest import ControlPass, DeviceState, PhaseTime, RunManifest
from analysis.domain.overhead import run_overheads
from runner.collectors.choosing import Choice
from runner.collectors.interface.collector import Collected, Collection, Collector, ExportResult, Job
from runner.launcher.log_words import last_line, last_line_of_nsys
from runner.launcher.outside import (
    ended_by,
    how_it_ended,
    recorded_or_worse,
    recording_attempt,
    require_analysed,
    require_ended_itself,
    start_analysis,
    status_of,
    why_no_capture,
)
from runner.launcher.progress import Follower, RunProgress
from runner.launcher.provenance import now
from runner.launcher.recording import earlier_predictions, record_run
from runner.launcher.run_directory import RunDirectory
from runner.launcher.texts import write_texts
from runner.plan.plan import RunPlan, WorkloadResult, trace_names
from runner.process.driver import shares_gpus
from runner.process.environment import RUN_MARK, child_environment
from runner.process.gate import GATE_VARIABLE, GateKeeper
from runner.process.limits import low_limits_note
from runner.process.process import Interrupts, reap, run_process
from runner.process.progress import progress_files
from runner.process.python import module_command, rank_command

__all__ = ["CONTROL", "PROFILED", "Run", "analysis_command", "child_command"]

_MODEL, _DEVICE = 1, 2
"""Passages of the program's gate: before it loads its model, and before anything runs on the device."""
_LOOK_S: Final = 0.05
_ABANDON_S: Final = 1.0
"""How long a program that waits may take to end when the control run has failed."""

CONTROL: Final = "control.json"
PROFILED: Final = "profiled.json"

_SAME_CODE: Final = {kind.exit_code: kind for kind in (RequestError, ModelError, InputImagesError)}
"""What is wrong with model, images or request is as wrong in the child as here, and keeps its code."""


def child_command(run: RunDirectory, role: str) -> list[str]:
    """Give the command line of the child, as the kernel will show it."""
    manifest = ("--manifest", str(run.manifest_file)) if role == "capture" else ()
    return module_command("runner.child.workload", str(run.plan_file), "--role", role, *manifest)


def analysis_command(run: RunDirectory, names: Sequence[str] = trace_names(1)) -> list[str]:
    """Give the command line of the analysis; the traces of several ranks, by their names, are read together."""
    traces = [str(run.path / f"{name}.sqlite") for name in names]
    return module_command("analysis.cli", *traces, "--out", str(run.path))


@frozen
class Run:
    """One run and what it needs of the outside world."""

    directory: RunDirectory
    plan: RunPlan
    collector: Collector
    collection: Collection
    environ: Mapping[str, str]
    say: Callable[[str], None]
    """Takes one line for the user."""
    command: Callable[[RunDirectory, str], list[str]] = child_command
    """Command line of the child in a role; tests put a program of their own here."""
    analysis: Callable[[RunDirectory], list[str]] = analysis_command
    progress: RunProgress = field(default=Factory(lambda self: RunProgress(self.say), takes_self=True))

    @classmethod
    def open(
        cls,
        directory: RunDirectory,
        choice: Choice,
        environ: Mapping[str, str],
        say: Callable[[str], None],
        progress: RunProgress | None = None,
    ) -> Run:
        """Take up a run from its folder. Raises RequestError or CaptureError as `Collector.for_plan`."""
        plan = directory.read_plan()
        collection = choice.collector.for_plan(plan, environ)
        if progress is None:
            return cls(directory, plan, choice.collector, collection, environ, say)
        return cls(directory, plan, choice.collector, collection, environ, progress.say, progress=progress)

    def start(self, interrupts: Interrupts) -> RunManifest:
        """Do the whole run. The run's folder holds plan.json and run.json (status running).

        Raises:
            DsocrError: the kind says which step failed; run.json holds the same words and every exit code so far.
        """
        self._limit(interrupts)
        with self._recording_failure():
            self._measure(interrupts, interrupts.deadline)
        return self.finish(interrupts)

    def resume(self, interrupts: Interrupts) -> RunManifest:
        """Go on at import, export or analysis, whichever is the first that is not done.

        What ended a capture early stays its status and error, however often it is resumed; a step that failed and is done
        now makes the run complete.

        Raises:
            CaptureError: nothing was captured that could be gone on with.
            UnfitTraceError: what was captured must not be trusted, such as before the first image was through.
            DsocrError: as `start`.
        """
        with recording_attempt(self.directory, self._manifest, self._update):
            endings = (".sqlite", ".nsys-rep", ".qdstrm")
            files = [self.directory.path / f"{name}{ending}" for name in self._traces for ending in endings]
            if not any(file.is_file() and file.stat().st_size for file in files):
                raise CaptureError(
                    f"{self.directory.path}: nothing was captured, so there is nothing to resume; run it again"
                )
            self._take_what_was_left()
            self._limit(interrupts)
            if self._exported:
                self.say("the export is there: going on at the analysis")
            self._finish(interrupts, again=True)
        record_run(self.directory, self.environ, self.say)
        return self._manifest()

    def _take_what_was_left(self) -> None:
        """Take what the program left and a launcher that was killed did not come to; or say that it did not come to its end."""
        manifest = self._manifest()
        if manifest.profiled or manifest.partial is not None:
            return
        result = self.directory.read_result(PROFILED)
        if result is not None:
            self._take_profiled(result)
            self._codes(child=0)
        elif manifest.exit_codes.child != 0:
            self._update(partial=how_it_ended(manifest, self.plan.settings.timeout_s))

    def finish(self, interrupts: Interrupts) -> RunManifest:
        """Export what was captured, finish the manifest, analyse, and record all that in the history."""
        with self._recording_failure():
            self._finish(interrupts)
        record_run(self.directory, self.environ, self.say)
        return self._manifest()

    def _finish(self, interrupts: Interrupts, *, again: bool = False) -> None:
        if not self._exported or not self.collector.exports:
            self._export(interrupts)
        self._update(phases=self._phases())
        control = self.directory.read_result(CONTROL)
        if control is not None:
            write_texts(self.directory.path, self._manifest(), control)
        self._look_up_predictions()
        self._analyse(interrupts, again=again)
        # Not before: whoever reads that it is complete reads the report next.
        manifest = self._manifest()
        if manifest.partial is None and manifest.exit_codes.child in (0, None):
            self._update(status="complete", error=None, finished_at=now())

    # -- rounds of several runs in turns -------------------------------------------------------------------------------

    def measure_once_more(self, interrupts: Interrupts) -> tuple[ControlPass, ...]:
        """One round of unprofiled passes in a process of its own; run.json and control.json get them behind those of earlier ones.

        FLOPs are counted in the first round only.

        Raises:
            DsocrError: as `start`; what earlier rounds measured stays.
        """
        earlier = self.directory.read_result(CONTROL)
        for file in (*progress_files(self.directory.path, "control"), self.directory.path / CONTROL):
            file.unlink(missing_ok=True)
        with self._recording_failure():
            try:
                with self._environment() as env:
                    result = self._control(
                        {**env, RUN_MARK: f"{self.plan.run_id}-control"},
                        interrupts,
                        self._deadline(),
                        lambda: None,
                        *(() if earlier is None else ("--no-costs",)),
                    )
            except DsocrError:
                if earlier is not None:
                    self.directory.write(self.directory.path / CONTROL, earlier)
                raise
            if earlier is None:
                self._take_control(result)
                return result.passes
            first = 1 + max((timed.pass_index for timed in earlier.passes), default=-1)
            passes = tuple(evolve(timed, pass_index=first + timed.pass_index) for timed in result.passes)
            before = tuple(state for state in earlier.device_states if state.when == "before")
            after = tuple(state for state in result.device_states if state.when == "after")
            peaks = [peak for peak in (earlier.peak_memory_bytes, result.peak_memory_bytes) if peak is not None]
            whole = evolve(
                earlier,
                passes=(*earlier.passes, *passes),
                device_states=(*before, *after),
                peak_memory_bytes=max(peaks, default=None),
            )
            self.directory.write(self.directory.path / CONTROL, whole)
            self._update(
                control=whole.passes, device_states=whole.device_states, peak_memory_bytes=whole.peak_memory_bytes
            )
        return passes

    def capture_measured(self, interrupts: Interrupts) -> RunManifest:
        """Capture a run that `measure_once_more` has measured, then export and analyse it; raises as `start` does."""
        interrupts.deadline = self._deadline()  # of this side; the other has had its own
        with self._recording_failure(), ExitStack() as stack:
            env = stack.enter_context(self._environment())
            pool = stack.enter_context(ThreadPoolExecutor(1))
            follower = Follower(self.directory, "capture")
            capture = pool.submit(self.collection.collect, self._job(env, interrupts.deadline), interrupts)
            try:
                self._follow(capture, follower)
            finally:
                if not capture.done():
                    reap(self.plan.run_id, patience_s=_ABANDON_S)
            self._take_collected(capture.result(), interrupts)
        return self.finish(interrupts)

    def end_measured(self) -> RunManifest:
        """End a run that is not to be captured: what it measured is its result."""
        with self._recording_failure():
            self._update(status="complete", error=None, finished_at=now(), phases=self._phases())
            control = self.directory.read_result(CONTROL)
            if control is not None:
                write_texts(self.directory.path, self._manifest(), control)
        return self._manifest()

    def _deadline(self) -> float | None:
        return None if self.plan.settings.timeout_s is None else time.monotonic() + self.plan.settings.timeout_s

    def _limit(self, interrupts: Interrupts) -> None:
        """Let the time limit bound all that follows, unless it began to run before, such as with the waiting for the device."""
        if interrupts.deadline is None:
            interrupts.deadline = self._deadline()

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _measure(self, interrupts: Interrupts, deadline: float | None) -> None:
        """Control run, then capture; the captured program starts when the control run has measured.

        The control run counts FLOPs then, and the other program imports torch and, where GPUs are shared, loads its model
        meanwhile; before it runs on the device it waits until the control run is over. It does not start earlier: with a
        program that waited under nsys a launch-bound loop on an H100 took 10.5 ms a step in place of 9.2 (medians of five
        blocks in turns). Ranks wait for each other at work, so with several the capture starts after the control run.
        """
        beside = self.plan.settings.tensor_parallel == 1
        with ExitStack() as stack:
            env = stack.enter_context(self._environment())
            gates = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dsocr-")))
            gate = stack.enter_context(GateKeeper(gates / "capture"))
            job = self._job({**env, GATE_VARIABLE: str(gate.path)}, deadline)
            pool = stack.enter_context(ThreadPoolExecutor(1))
            capture: Future[Collected] | None = None
            follower: Follower | None = None

            def start() -> tuple[Follower, Future[Collected]]:
                # A follower takes away what an earlier program told, so it is there before this one tells anything.
                return Follower(self.directory, "capture"), pool.submit(self.collection.collect, job, interrupts)

            def measured() -> None:
                nonlocal capture, follower
                if beside and capture is None:
                    if shares_gpus():
                        gate.open(_MODEL)
                    follower, capture = start()

            try:
                # With a mark of its own: its end must not take the other program with it.
                control_env = {**env, RUN_MARK: f"{self.plan.run_id}-control"}
                self._take_control(self._control(control_env, interrupts, deadline, measured))
                gate.open(_DEVICE)
                if capture is None or follower is None:
                    follower, capture = start()
                self._follow(capture, follower)
            finally:
                if capture is not None and not capture.done():
                    reap(self.plan.run_id, patience_s=_ABANDON_S)
        self._take_collected(capture.result(), interrupts)

    def _follow(self, capture: Future[Collected], follower: Follower) -> None:
        """Show how far the captured program is until it is over."""
        with self.progress.child(follower) as watch:
            while not capture.done():
                watch()
                time.sleep(_LOOK_S)

    def _take_collected(self, collected: Collected, interrupts: Interrupts) -> None:
        if collected.failed_first is not None:
            self.say(collected.failed_first)
            self._update(notes=(*self._manifest().notes, collected.failed_first))
        self._codes(child=collected.child, nsys=collected.tool)
        result = self.directory.read_result(PROFILED)
        if result is not None:
            self._take_profiled(result)
        elif collected.usable:
            timeout_s = self.plan.settings.timeout_s
            self._update(partial=ended_by(collected.outcome, collected.child, timeout_s, self.directory))
        self._check_collected(collected, interrupts)

    def _control(
        self,
        env: dict[str, str],
        interrupts: Interrupts,
        deadline: float | None,
        measured: Callable[[], None],
        *arguments: str,
    ) -> WorkloadResult:
        follower = Follower(self.directory, "control")
        with self.progress.child(follower) as show:

            def watch() -> None:
                show()
                if follower.has_reached("counting"):
                    measured()

            outcome = run_process(
                rank_command(
                    self.plan.settings.tensor_parallel, [*self.command(self.directory, "control"), *arguments]
                ),
                env=env,
                log=self.directory.log("control"),
                interrupts=interrupts,
                deadline=deadline,
                grace_s=self.plan.settings.grace_s,
                watch=self.directory.watched(watch),
            )
        self._codes(control=outcome.returncode)
        require_ended_itself(self.directory, outcome, "the control run", self.plan.settings.timeout_s, saved=None)
        result = self.directory.read_result(CONTROL)
        if outcome.returncode != 0 or result is None:
            raise self._child_error("control", outcome.returncode, "in the control run")
        return result

    def _check_collected(self, collected: Collected, interrupts: Interrupts) -> None:
        """Fail if the child did; but first save what was captured of it."""
        outcome = collected.outcome
        saved = None
        if collected.usable and (collected.child != 0 or outcome.ended_by != "itself"):
            saved = self._save(collected, interrupts)
        elif outcome.returncode == -signal.SIGKILL and not self.collector.exports:
            self.say(f"{self.collector.summary} writes at its end: of a program that is killed nothing is left")
        require_ended_itself(
            self.directory, outcome, "the capture", self.plan.settings.timeout_s, saved, self.collector.tool_name
        )
        if collected.fault is not None and (collected.child != 0 or not collected.usable):
            raise CaptureError(why_no_capture(self.directory, collected.fault, saved))
        if collected.child is None:
            words = last_line_of_nsys(self.directory.log("capture"))
            raise CaptureError(
                f"{self.collector.name} did not start the program (exit code {outcome.returncode}): {words}"
                f"{low_limits_note()}"
            )
        if collected.child != 0:
            raise self._child_error("capture", collected.child, f"under {self.collector.name}", saved)
        if not collected.usable:
            words = f"{last_line_of_nsys(self.directory.log('capture'))}{low_limits_note()}"
            raise CaptureError(f"{self.collector.name} left no report (exit code {outcome.returncode}): {words}")

    def _save(self, collected: Collected, interrupts: Interrupts) -> Path | None:
        """Save what was captured of a program that did not end well, and say so in run.json."""
        saved = None
        if collected.child != 0 and collected.outcome.ended_by != "interrupt" and self.collector.exports:
            try:
                self._export(interrupts)
                saved = self.directory.path / f"{self._traces[0]}.sqlite"
            except DsocrError as error:
                self.say(f"what was captured before could not be exported: {error}")
        elif not self.collector.exports:  # the child itself wrote what it had recorded
            saved = self.directory.path / f"{self._traces[0]}.sqlite"
        elif (report := self.directory.path / f"{self._traces[0]}.nsys-rep").is_file():
            saved = report
        if saved is not None:
            note = f"The program did not end well; {saved.name} holds what it did until then."
            self._update(notes=(*self._manifest().notes, note))
        return saved

    def _export(self, interrupts: Interrupts) -> None:
        with self._environment() as env, self.progress.phase("export"):
            try:
                result = self.collection.finish(self._job(env, None), self.directory.log("export"), interrupts)
            except ExportError:
                with suppress(DsocrError):  # a full disk, which is what failed the export
                    self._codes(export=1)
                raise
        self._codes(export=result.returncode)
        counts = ", ".join(f"{count:,} {name}" for name, count in result.rows.items() if count)
        self.say(f"exported and checked: {counts}")
        for name in self._traces if result.foreign_blocks or result.secret_texts else ():
            report = self.directory.path / f"{name}.nsys-rep"
            if report.is_file():
                self._guard_report(report, result)

    def _guard_report(self, report: Path, result: ExportResult) -> None:
        """A report that holds other programs' environments, or secrets of the program, is not left lying about."""
        names, blocks = result.secret_names, result.foreign_blocks
        secrets = f", with {', '.join(names)} among them" if names else ""
        groups = "another process" if blocks == 1 else f"{blocks} other processes or groups of them"
        stored = f"the environment of {groups}" if blocks else "what looks like secrets of the program"
        what = f"nsys stored {stored} in {report.name}{secrets}"
        if self.plan.settings.keep_report:
            note = f"{what}; kept on request: do not share it. {report.stem}.sqlite is free of them."
        else:
            report.unlink()
            note = f"{what}; it was deleted after its export (--keep-report keeps it). {report.stem}.sqlite is free of them."
        self.say(note)
        self._update(notes=(*self._manifest().notes, note))

    def _look_up_predictions(self) -> None:
        """Put what the last run of the same work predicted into run.json; what is there already stays if none is known."""
        manifest = self._manifest()
        predictions = earlier_predictions(self.directory, manifest, self.environ, self.say)
        if predictions and predictions != manifest.predictions:
            self._update(predictions=predictions)

    def _analyse(self, interrupts: Interrupts, *, again: bool) -> None:
        env = child_environment(self.environ, keep=self.plan.settings.keep_env)
        with self.progress.phase("report"):
            outcome = start_analysis(self.directory, self._analysis, env, interrupts, self.progress.draw)
        with recorded_or_worse(outcome):
            codes = evolve(self._manifest().exit_codes, analysis=outcome.returncode)
            self._update(exit_codes=codes, phases=self._phases())
        require_analysed(self.directory, outcome, self.plan.settings.timeout_s, again=again)

    @property
    def _traces(self) -> tuple[str, ...]:
        return trace_names(self.plan.settings.tensor_parallel)

    @property
    def _exported(self) -> bool:
        return all((self.directory.path / f"{name}.sqlite").is_file() for name in self._traces)

    @property
    def _analysis(self) -> list[str]:
        names = self._traces
        return self.analysis(self.directory) if len(names) == 1 else analysis_command(self.directory, names)

    # -- records -------------------------------------------------------------------------------------------------------

    def _manifest(self) -> RunManifest:
        return self.directory.read_manifest()

    def _update(self, **changes: Any) -> None:
        self.directory.write(self.directory.manifest_file, evolve(self._manifest(), **changes))

    def _phases(self) -> tuple[PhaseTime, ...]:
        return self.progress.with_earlier(self._manifest().phases)

    def _codes(self, **codes: int | None) -> None:
        self._update(exit_codes=evolve(self._manifest().exit_codes, **codes))

    def _take_control(self, result: WorkloadResult) -> None:
        manifest = self._manifest()
        torch, transformers = result.versions.get("torch"), result.versions.get("transformers")
        meta = evolve(
            manifest.meta,
            gpu_name=result.gpu_name,
            compute_capability=result.compute_capability,
            torch_version=torch or manifest.meta.torch_version,
            transformers_version=transformers or manifest.meta.transformers_version,
            cuda_version=result.versions.get("cuda", manifest.meta.cuda_version),
        )
        self._update(
            model=result.model,
            prompts=result.prompts,
            control=result.passes,
            costs=result.costs,
            costs_unknown_because=result.costs_unknown_because,
            measured_peak=result.measured_peak,
            energy=result.energy,
            peak_memory_bytes=result.peak_memory_bytes,
            device_states=result.device_states,
            synchronises=result.synchronises,
            decode_mode=result.decode_mode,
            versions={**manifest.versions, **result.versions},
            notes=(*manifest.notes, *result.notes),
            meta=meta,
        )

    def _take_profiled(self, result: WorkloadResult) -> None:
        manifest = self._manifest()
        before: list[DeviceState] = [state for state in manifest.device_states if state.when == "before"]
        after = [state for state in result.device_states if state.when == "after"]
        self._update(
            profiled=result.passes,
            overhead=run_overheads(evolve(manifest, profiled=result.passes)),
            device_states=(*before, *after) if after else manifest.device_states,
            notes=(*manifest.notes, *(note for note in result.notes if note not in manifest.notes)),
        )

    # -- failures ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _recording_failure(self) -> Iterator[None]:
        """Write an error into run.json on its way out; if that fails too (disk full), the first error is raised."""
        try:
            with self.directory.still_there():
                yield
        except DsocrError as error:
            if not self.directory.manifest_file.is_file():
                raise
            self.directory.free_reserve()
            try:
                self._update(
                    status=status_of(error, self.directory), error=str(error), finished_at=now(), phases=self._phases()
                )
            except DsocrError as second:
                if str(second) != str(error):
                    self.say(str(second))
            raise

    def _child_error(self, step: str, code: int, where: str, saved: Path | None = None) -> DsocrError:
        words = last_line(self.directory.log(step)).removeprefix("workload: ").removeprefix("error: ")
        rest = f"; what was captured before is kept in {saved}" if saved is not None else ""
        if code in _SAME_CODE:
            return _SAME_CODE[code](f"{words}{rest}")
        return ChildFailedError(
            f"the program {ended_in_words(code)} {where}: {words} (all of it: {self.directory.log(step)}){rest}"
        )

    # -- pieces --------------------------------------------------------------------------------------------------------

    def _job(self, env: dict[str, str], deadline: float | None) -> Job:
        return Job(
            run_id=self.plan.run_id,
            run_dir=self.directory.path,
            target=tuple(self.command(self.directory, "capture")),
            env=env,
            log=self.directory.log("capture"),
            result_file=self.directory.path / PROFILED,
            deadline=deadline,
            grace_s=self.plan.settings.grace_s,
            finish_s=self.plan.settings.finish_s,
            watch=self.directory.watched(),
        )

    @contextmanager
    def _environment(self) -> Iterator[dict[str, str]]:
        """The program's environment, with a temporary folder that lives as long as it where the collector needs one."""
        extra = {RUN_MARK: self.plan.run_id}
        with ExitStack() as stack:
            if self.collector.needs_private_tmp:
                extra["TMPDIR"] = str(stack.enter_context(self.directory.temporary()))
            yield child_environment(self.environ, keep=self.plan.settings.keep_env, extra=extra)

    def commands(self) -> dict[str, list[str]]:
        """Give the exact commands of a run, by step, for ``--dry-run``."""
        return {
            "control": rank_command(self.plan.settings.tensor_parallel, self.command(self.directory, "control")),
            "capture": self.collection.command(self._job({}, None)),
            "analysis": self._analysis,
        }
