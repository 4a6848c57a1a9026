"""A sweep: one program that holds one model, many points, each of whose results is kept as soon as it is there.

The folder is the state: a start runs the points that have no result in it, so that a sweep that was ended – by its budget, by
Ctrl-C, by SIGKILL, by a point that took its program down – goes on where it was when it is asked for again. A point that ends
its program is a result too, and the program is started again for the others.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from attrs import Factory, define, evolve, field

from analysis.domain.convert import from_json_file
from analysis.domain.ended import ended_in_words
from analysis.domain.entities import InputSet, RunMeta
from analysis.domain.errors import (
    AnalysisFailedError,
    ChildFailedError,
    DsocrError,
    InputImagesError,
    InterruptedRunError,
    ModelError,
    RequestError,
    TimeoutExceededError,
)
from analysis.domain.figures import duration
from analysis.domain.sweep import Sweep, SweepPoint, SweepSetting
from runner.launcher.device_lock import DeviceLock
from runner.launcher.log_words import last_line
from runner.launcher.outside import analyse_beside
from runner.launcher.provenance import as_recorded, now
from runner.launcher.run_directory import RunDirectory, require_safe_place
from runner.launcher.sweep_points import Peaks, assembled, peaks_in, read_report, window_manifest
from runner.launcher.sweep_progress import SweepProgress
from runner.plan.sweep import (
    POINTS_FOLDER,
    RESULT_NAME,
    PointResult,
    SweepPlan,
    SweepSettings,
    SweptModel,
    plan_of_point,
    point_name,
)
from runner.process.driver import driver_facts, installed_version
from runner.process.environment import RUN_MARK, child_environment
from runner.process.own_file import own_record
from runner.process.process import Interrupts, Outcome, run_process
from runner.process.python import module_command

__all__ = ["SWEEP_FILE", "SweepRun", "child_command", "point_line", "require_own_folder", "take_up"]

SWEEP_FILE: Final = "sweep.json"
_MODEL_FILE: Final = "model.json"
_ROLE: Final = "sweep"

_MOST_ANALYSES: Final = 4
"""At once, behind the program: nothing is timed then."""
_ANALYSIS_S: Final = 2.0
"""That the analysis of a window may take, s."""
_END_S: Final = 1.0
"""Of a budget, for writing what is left, s."""
_TOLD: Final[dict[int, type[DsocrError]]] = {
    kind.exit_code: kind for kind in (RequestError, ModelError, InputImagesError, ChildFailedError)
}
"""What the program says of itself: no point's fault."""


def child_command(directory: RunDirectory) -> list[str]:
    """Give the command line of the program."""
    return module_command("runner.child.sweep", str(directory.plan_file))


def page_command(directory: RunDirectory) -> list[str]:
    """Give the command line that shows a sweep's points together."""
    return module_command("analysis.cli", "sweep", str(directory.path))


def require_own_folder(folder: Path, say: Callable[[str], None] = lambda line: None) -> None:
    """Check, before anything is written, that a folder is free or that of a sweep.

    Args:
        folder: absolute.
        say: takes the warning that one other user or group may rename on the way to it.

    Raises:
        RequestError: it is a file, or holds something else, or everybody may put something else in its place.
    """
    require_safe_place(folder.parent, say)
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder}: is a file; choose another --out")
    if (
        folder.is_dir()
        and not (folder / SWEEP_FILE).is_file()
        and any(entry.name != "page" for entry in folder.iterdir())
    ):
        raise RequestError(f"{folder}: is not empty and holds no sweep; choose another --out")


def take_up(plan: SweepPlan, settings: SweepSettings, argv: Sequence[str]) -> tuple[RunDirectory, SweepPlan, Sweep]:
    """Make a sweep's folder, or go on with the sweep that is in it.

    Args:
        plan: what is asked for; its folder may hold a sweep of the same model, page and settings.
        settings: as asked for.
        argv: the command line, for the record.

    Returns:
        The folder, the plan under the id that the sweep has had from its start, and its record.

    Raises:
        RequestError: the folder holds another sweep, or something else.
    """
    directory = RunDirectory(Path(plan.base.run_dir))
    record = directory.path / SWEEP_FILE
    if record.is_file():
        directory.require_own()
        before = from_json_file(Sweep, record)
        old = own_record(SweepPlan, directory.plan_file)
        same = evolve(plan.base, run_id=old.base.run_id)
        if (same, plan.window_steps) != (old.base, old.window_steps):
            raise RequestError(
                f"{directory.path}: holds a sweep of another model, page or settings ({before.model} on {before.device}, "
                f"{before.passes} passes); choose another --out, or ask for the same"
            )
        plan = evolve(plan, base=same)
        sweep = evolve(
            before,
            status="running",
            finished_at=None,
            unfinished_because=None,
            budget_s=settings.budget_s,
            argv=tuple(argv),
        )
    else:
        sweep = _first_record(plan, settings, argv)
    with_results = [point.setting for point in sweep.points if point.setting not in plan.points]
    return directory, plan, evolve(sweep, planned=(*plan.points, *with_results))


def _first_record(plan: SweepPlan, settings: SweepSettings, argv: Sequence[str]) -> Sweep:
    _, options = as_recorded(settings)
    own = ("passes", "window_steps", "budget_s")
    pages = plan.base.input_set if any(setting.input_mode != "text" for setting in plan.points) else None
    return Sweep(
        sweep_id=plan.base.run_id,
        status="running",
        model=plan.base.request.model_path,
        weights=None,
        parameters=None,
        dtype=None,
        device=plan.base.request.device,
        gpu_name=None,
        peak_flop_per_s=None,
        peak_bytes_per_s=None,
        peak_how=None,
        versions={},
        page=None if pages is None else Path(pages.images[0].path).name,
        passes=settings.passes,
        window_steps=settings.window_steps,
        budget_s=settings.budget_s,
        options={name: value for name, value in options.items() if name not in own},
        argv=tuple(argv),
        started_at=now(),
        finished_at=None,
        seconds=None,
        setup_s=None,
        points=(),
        planned=plan.points,
    )


@define(eq=False)
class SweepRun:
    """One start of a sweep."""

    directory: RunDirectory
    plan: SweepPlan
    settings: SweepSettings
    sweep: Sweep
    environ: Mapping[str, str]
    say: Callable[[str], None]
    began: float
    """On ``time.monotonic()``'s clock."""
    command: Callable[[RunDirectory], list[str]] = child_command
    """Command line of the program; tests put one of their own here."""
    progress: SweepProgress = field(
        default=Factory(lambda self: SweepProgress(self.say, len(self.plan.points), self.began), takes_self=True)
    )
    _analysed: dict[SweepSetting, str | None] = field(factory=dict)
    """Point → why the analysis of its window failed; None: it did not."""
    _details: dict[SweepSetting, dict[str, Any]] = field(factory=dict)
    """Point → what the report on its window says."""
    _seconds_before: float = field(default=Factory(lambda self: self.sweep.seconds or 0.0, takes_self=True))

    def carry_out(self, interrupts: Interrupts, *, wait: bool) -> Sweep:
        """Hold folder and device, run what has no result yet, analyse, and write ``sweep.json``.

        Raises:
            BusyError: another run holds the device and ``wait`` is false, or another process works on this folder.
            InterruptedRunError: interrupted; what is there is kept, and the same command goes on.
            TimeoutExceededError: ended by ``--timeout``.
            DsocrError: the model cannot be had, or the folder not written.
        """
        device = self.plan.base.request.device
        gpus = driver_facts().gpus if device != "cpu" else ()
        require_safe_place(self.directory.path.parent, self.say)
        self.directory.create()
        with self.directory.locked():
            # From here on the folder is a sweep's, that can be gone on with.
            self.directory.write(self.directory.plan_file, self.plan)
            self._write(status="unfinished", unfinished_because="it had not got the device yet")
            lock = DeviceLock(device, gpus, self.environ)
            with lock.held(wait=wait, interrupts=interrupts, waiting=self.say), self.progress:
                return self._carry_out(interrupts)

    def _carry_out(self, interrupts: Interrupts) -> Sweep:
        self._forget_what_may_go_well_now()
        self._write(status="running", unfinished_because=None)
        fault: DsocrError | None = None
        if self._unfinished():
            try:
                self._run_program(interrupts)
            except (InterruptedRunError, TimeoutExceededError) as error:
                fault = error
            except DsocrError as error:
                self._write(status="unfinished", unfinished_because=str(error))
                raise
        if fault is None:
            try:
                self._analyse(interrupts)
            except InterruptedRunError as error:
                fault = error
        results = [self._result(setting) for setting in self.plan.points]
        left = sum(result is None or result.for_lack_of_time for result in results)
        because = str(fault) if fault is not None else self._what_is_left(left)
        self._write(
            status="complete" if because is None else "unfinished",
            unfinished_because=because,
            finished_at=now(),
            seconds=round(self._seconds_before + time.monotonic() - self.began, 3),
        )
        if fault is not None:
            raise fault
        if all(point.status == "failed" for point in self.sweep.points):
            raise ChildFailedError(f"no point could be measured: {self.sweep.points[0].reason}")
        self._show(interrupts)
        return self.sweep

    def _show(self, interrupts: Interrupts) -> None:
        """Let the analysis say what the points say together; what it prints is in the log.

        Raises:
            AnalysisFailedError: it failed; all results are kept.
            InterruptedRunError: interrupted.
        """
        analyse_beside(
            page_command(self.directory),
            child_environment(self.environ, keep=self.settings.keep_env),
            self.directory.log("analysis"),
            interrupts,
            "the analysis of all points",
            f"all results are in {self.directory.path / SWEEP_FILE}: dsocr-analyze sweep {self.directory.path}",
        )

    # -- the program -------------------------------------------------------------------------------------------------

    def _run_program(self, interrupts: Interrupts) -> None:
        """Start it until every point has a result; each start ends with one more at least, or ends the sweep."""
        while self._unfinished():
            self.directory.write(
                self.directory.plan_file,
                evolve(self.plan, until=self._until(), analysis_s=_ANALYSIS_S / _analyses_at_once()),
            )
            outcome = self._started(interrupts)
            at_work = next((setting for setting in self.plan.points if self._result(setting) is None), None)
            if outcome.ended_by == "interrupt":
                raise InterruptedRunError(
                    f"interrupted; {self._there()} results are in {self.directory.path}: the same command goes on"
                )
            if outcome.ended_by == "timeout":
                self._ended_by_time(outcome)
                return
            if outcome.returncode == 0:
                return
            self._note_crash(outcome, at_work)

    def _started(self, interrupts: Interrupts) -> Outcome:
        extra = {RUN_MARK: self.plan.base.run_id}
        with self.progress.following(self.directory, self._told) as watch:
            return run_process(
                self.command(self.directory),
                env=child_environment(self.environ, keep=self.settings.keep_env, extra=extra),
                log=self.directory.log(_ROLE),
                interrupts=interrupts,
                deadline=self._deadline(),
                grace_s=self.settings.grace_s,
                watch=watch,
            )

    def _told(self) -> None:
        """A point is over: its numbers are in ``sweep.json`` at once."""
        known = {point.setting for point in self.sweep.points}
        self._write()
        for point in self.sweep.points:
            if point.setting not in known:
                self.progress.say(point_line(point))

    def _until(self) -> float | None:
        """When the budget is over, but for the writing of what is left."""
        return None if self.settings.budget_s is None else self.began + max(0.0, self.settings.budget_s - _END_S)

    def _deadline(self) -> float | None:
        ends = [self._until()]
        if self.settings.timeout_s is not None:
            ends.append(self.began + self.settings.timeout_s)
        return min((end for end in ends if end is not None), default=None)

    def _ended_by_time(self, outcome: Outcome) -> None:
        timeout = self.settings.timeout_s
        if timeout is not None and time.monotonic() >= self.began + timeout:
            raise TimeoutExceededError(
                f"the sweep was ended by --timeout {timeout:g}; {self._there()} results are in {self.directory.path}: the same "
                "command goes on"
            )
        for setting in self.plan.points:
            if self._result(setting) is None:
                reason = f"--budget-s {self.settings.budget_s:g} was over before it was measured"
                self._keep(PointResult(setting, "skipped", reason, for_lack_of_time=True))

    def _note_crash(self, outcome: Outcome, at_work: SweepSetting | None) -> None:
        """Make the end of the program the result of the point that ended it.

        Raises:
            DsocrError: no point was at work, or the program itself says what is wrong.
        """
        log = self.directory.log(_ROLE)
        words = last_line(log).removeprefix("sweep: ").removeprefix("error: ")
        code = outcome.returncode
        if code in _TOLD:
            raise _TOLD[code](words)
        reason = f"the program {ended_in_words(code)}: {words} (all of it: {log})"
        if not self.progress.points_began:
            raise ChildFailedError(reason)
        if at_work is not None:
            self._keep(PointResult(at_work, "failed", reason))
            self.progress.say(f"{point_name(at_work)}: {reason}; the program is started again for the other points")
            return
        recorded = next((result for _, result in self._results() if _awaits_window(result)), None)
        if recorded is None:
            raise ChildFailedError(reason)
        self._keep(evolve(recorded, window_unknown_because=reason))

    # -- the analysis ------------------------------------------------------------------------------------------------

    def _analyse(self, interrupts: Interrupts) -> None:
        """Read each recorded window that was not read yet, several at once: nothing is timed any more."""
        swept = self._swept()
        waiting = [
            (setting, result)
            for setting, result in self._results()
            if result.window is not None and not (self._folder(setting) / "report.json").is_file()
        ]
        if swept is None or not waiting:
            return
        done = 0
        with self.progress.analysing(len(waiting)) as show, ThreadPoolExecutor(_analyses_at_once()) as pool:
            jobs = [(setting, pool.submit(self._read_window, result, swept, interrupts)) for setting, result in waiting]
            for setting, job in jobs:
                self._analysed[setting] = job.result()
                done += 1
                show(done)
        if interrupts.count:
            raise InterruptedRunError(
                f"interrupted in the analysis; all timings are in {self.directory.path}: the same command goes on"
            )

    def _read_window(self, result: PointResult, swept: SweptModel, interrupts: Interrupts) -> str | None:
        """Run the analysis on one window; gives why it failed, None where it did not."""
        folder = RunDirectory(self._folder(result.setting))
        plan = plan_of_point(self.plan, result.setting)
        manifest = window_manifest(plan, result, swept, self._meta(swept), self._pages())
        if manifest is None:
            return None
        folder.create()
        folder.write(folder.manifest_file, manifest)
        try:
            analyse_beside(
                module_command("analysis.cli", str(folder.trace_file), "--out", str(folder.path), *_FORMATS),
                child_environment(self.environ, keep=self.settings.keep_env),
                folder.log("analysis"),
                interrupts,
                "the analysis of its window",
                "its trace is kept",
            )
        except InterruptedRunError:
            return None  # told once, for all of them
        except AnalysisFailedError as error:
            return str(error)
        return None

    def _meta(self, swept: SweptModel) -> RunMeta:
        return RunMeta(
            run_id=self.plan.base.run_id,
            created_at=datetime.now(UTC),
            repeats=self.settings.passes,
            gpu_name=swept.gpu_name,
            compute_capability=swept.compute_capability,
            torch_version=swept.versions.get("torch"),
            transformers_version=swept.versions.get("transformers"),
            cuda_version=swept.versions.get("cuda"),
            driver_version=swept.versions.get("driver"),
            package_version=installed_version("dsocr-profiler"),
        )

    # -- records -----------------------------------------------------------------------------------------------------

    def _write(self, **changes: Any) -> None:
        """Write ``sweep.json`` with every result that is there."""
        swept = self._swept()
        if swept is not None:
            changes |= {
                "weights": "random weights" if swept.model.weights == "random" else "checkpoint",
                "parameters": swept.model.parameters,
                "dtype": swept.model.dtype,
                "device": swept.model.device,
                "gpu_name": swept.gpu_name,
                "versions": _versions(swept),
                "setup_s": self.progress.setup_s,
                "notes": swept.notes,
            }
        results = self._results()
        details = {setting: self._detail(setting) for setting, result in results if result.window is not None}
        # They are the same in every report.
        peaks = next((peaks_in(detail) for detail in details.values() if detail is not None), _NO_PEAKS)
        points = []
        for setting, result in results:
            detail = details.get(setting)
            fault = self._analysed.get(setting)
            if setting in details and detail is None and fault is None:
                fault = "its window was not analysed yet"
            one_image = result.prompt is None or result.prompt.image_tokens > 0
            points.append(assembled(result, detail, fault, peaks, one_image))
        changes |= {
            "points": tuple(points),
            "peak_flop_per_s": peaks.flop_per_s,
            "peak_bytes_per_s": peaks.bytes_per_s,
            "peak_how": peaks.how,
        }
        self.sweep = evolve(self.sweep, **changes)
        self.directory.write(self.directory.path / SWEEP_FILE, self.sweep)

    def _detail(self, setting: SweepSetting) -> dict[str, Any] | None:
        """What the report on a point's window says; None: there is none."""
        if setting not in self._details:
            detail = read_report(self._folder(setting) / "report.json")
            if detail is None:
                return None
            self._details[setting] = detail
        return self._details[setting]

    def _results(self) -> list[tuple[SweepSetting, PointResult]]:
        results = ((setting, self._result(setting)) for setting in self.sweep.planned)
        return [(setting, result) for setting, result in results if result is not None]

    def _result(self, setting: SweepSetting) -> PointResult | None:
        file = self._folder(setting) / RESULT_NAME
        return from_json_file(PointResult, file) if file.is_file() else None

    def _keep(self, result: PointResult) -> None:
        self.directory.write(self._folder(result.setting) / RESULT_NAME, result)

    def _folder(self, setting: SweepSetting) -> Path:
        return self.directory.path / POINTS_FOLDER / point_name(setting)

    def _swept(self) -> SweptModel | None:
        file = self.directory.path / _MODEL_FILE
        return from_json_file(SweptModel, file) if file.is_file() else None

    def _pages(self) -> InputSet:
        pages = self.plan.base.input_set
        assert pages is not None  # the command line finds them before anything starts
        return pages

    def _forget_what_may_go_well_now(self) -> None:
        """A point that failed or was left out is tried again by a new start."""
        for setting in self.plan.points:
            result = self._result(setting)
            if result is not None and not result.is_final:
                shutil.rmtree(self._folder(setting))

    def _unfinished(self) -> bool:
        """Whether a point has no result, or no window where one is to be recorded."""
        results = [self._result(setting) for setting in self.plan.points]
        return any(result is None or _awaits_window(result) for result in results)

    def _there(self) -> str:
        there = sum(self._result(setting) is not None for setting in self.plan.points)
        return f"{there} of {len(self.plan.points)}"

    def _what_is_left(self, points: int) -> str | None:
        windows = sum(_awaits_window(result) for _, result in self._results())
        if not points and not windows:
            return None
        what = [f"{points} of {len(self.plan.points)} points"] if points else []
        what += [f"the recorded windows of {windows}"] if windows else []
        return f"--budget-s {self.settings.budget_s or 0:g} was over: {' and '.join(what)} are left; the same command goes on"


_NO_PEAKS: Final = Peaks(
    None, None, None, "peaks are looked up by the analysis of a recorded window, and there is none yet"
)
_FORMATS: Final = ("--format", "json", "--format", "html")
"""Of a point's own report: what is read here, and the page behind a point of the sweep's."""


def _awaits_window(result: PointResult) -> bool:
    return result.status == "measured" and result.window is None and result.window_unknown_because is None


def _analyses_at_once() -> int:
    return max(1, min(_MOST_ANALYSES, (os.cpu_count() or 1) // 2))


def _versions(swept: SweptModel) -> dict[str, str]:
    own = installed_version("dsocr-profiler")
    return {**swept.versions, **({"dsocr-profiler": own} if own else {})}


def point_line(point: SweepPoint) -> str:
    """A point in one line, for the terminal."""
    setting = point.setting
    name = (
        f"batch {setting.batch_size} · {setting.input_mode} · {setting.max_new_tokens} tokens · {setting.decode_mode}"
    )
    if setting.prompt_tokens is not None:
        name += f" · prompt of {setting.prompt_tokens}"
    if point.prefill is None:
        return f"{name}: {point.status}" + (f" ({point.reason})" if point.reason else "")
    said = f"{name}: TTFT {duration(point.prefill.median_ns)}"
    if point.decode is not None and point.tokens_per_s is not None:
        said += f", TPOT {duration(point.decode.median_ns)}, {point.tokens_per_s:,.0f} tokens/s"
    return said + (f", {point.pages_per_min:,.0f} pages/min" if point.pages_per_min is not None else "")
