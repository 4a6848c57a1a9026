"""A run of any program: control runs → capture → export → scrub → analysis, as `runner.launcher.run` does for ours."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from attrs import Factory, evolve, field, frozen

from analysis.domain.ended import ended_in_words
from analysis.domain.errors import (
    CaptureError,
    ChildFailedError,
    DsocrError,
    ExportError,
    InterruptedRunError,
    NoEventsError,
    RequestError,
)
from analysis.domain.manifest import PhaseTime
from analysis.domain.program import ProgramManifest, ProgramTimes
from analysis.domain.programs import NOT_THERE, SAFE_FOLDER, why_no_program
from analysis.domain.redaction import secret_values
from runner.collectors.interface.trace_file import check_trace
from runner.collectors.nsys.death import fault_of_nsys, room_for_nsys, set_failed_start_aside
from runner.collectors.nsys.export import export_report, finish_import
from runner.collectors.nsys.fitness import driver_mismatch
from runner.collectors.nsys.program import ProgramCommand, program_options, require_ranks
from runner.collectors.nsys.tool import NsysTool, export_argv, output_name
from runner.launcher.device_lock import DeviceLock
from runner.launcher.log_words import last_line, last_line_of_nsys
from runner.launcher.outside import (
    LAUNCHER_GONE,
    ended_by,
    how_it_ended,
    recorded_or_worse,
    recording_attempt,
    require_analysed,
    require_ended_itself,
    set_damaged_aside,
    start_analysis,
    status_of,
    why_no_capture,
)
from runner.launcher.progress import RunProgress
from runner.launcher.provenance import commit_of, now
from runner.launcher.recording import record_run
from runner.launcher.request import require_no_secret
from runner.launcher.run_directory import RunDirectory, require_safe_place
from runner.launcher.server import Conversation, require_nobody_there
from runner.plan.options import options_of
from runner.plan.program import ExecPlan, ExecSettings
from runner.process.driver import DriverFacts, installed_version
from runner.process.environment import (
    REDACTED,
    RUN_MARK,
    child_environment,
    clean_log,
    left_out_note,
    looks_secret,
    program_environment,
    redact,
    redact_text,
    secrets_of,
)
from runner.process.file_modes import PRIVATE, users_umask
from runner.process.isolation import namespace_prefix
from runner.process.limits import low_limits_note
from runner.process.process import Interrupts, Outcome, run_process
from runner.process.python import module_command
from runner.process.room import RoomWatch, little_room_warning
from runner.process.shared_folders import shared_folders

__all__ = ["ProgramRun", "prepare_program"]

_GPU_TABLES: Final = tuple(f"CUPTI_ACTIVITY_KIND_{kind}" for kind in ("KERNEL", "MEMCPY", "MEMSET", "GRAPH_TRACE"))
"""Tables with work of the GPU."""


def prepare_program(
    command: Sequence[str],
    settings: ExecSettings,
    tool: NsysTool,
    facts: DriverFacts,
    out: Path,
    environ: Mapping[str, str],
    say: Callable[[str], None],
    *,
    programs_missing: bool = False,
) -> ProgramRun:
    """Resolve what is asked; nothing is written.

    Args:
        command: the program and its arguments.
        settings: what is asked beyond it.
        tool: the nsys.
        facts: what the driver says.
        out: folder that gets the run's folder.
        environ: the launcher's environment.
        say: takes one line for the user.
        programs_missing: only say so where the program or the load is not there, since nothing is to be started.

    Raises:
        RequestError: the program is not there, or options do not fit.
        CaptureError: this nsys lacks what the capture insists on.
    """
    if not command:
        raise RequestError("give the command to profile behind --, such as: dsocr-profile exec -- python3 script.py")
    for fault in _missing_programs(command, settings, environ):
        if not programs_missing:
            raise RequestError(fault)
        say(f"warning: {fault}")
    for note in left_out_note(environ, program_environment(environ, keep=settings.keep_env)):
        say(f"warning: {note}")
    _require_fitting(command, settings)
    require_no_secret("--out", str(out.expanduser().absolute()))
    run_id = str(uuid.uuid4())
    directory = RunDirectory(out.expanduser().absolute() / run_id)
    output_name(directory.path, "trace")  # one that nsys cannot write to is refused before anything runs
    count = len(facts.gpus)
    device = "cpu" if not count else "cuda:0" if count == 1 else f"cuda:0-{count - 1}"
    recorded = evolve(
        settings,
        capture=_shown(settings.capture, environ),
        nsys=_shown(settings.nsys, environ),
        ready_url=_shown(settings.ready_url, environ),
        start_url=_shown(settings.start_url, environ),
        stop_url=_shown(settings.stop_url, environ),
        start_body=None if settings.start_body is None else "(not kept)",
        load=None if settings.load is None else shlex.join(_all_shown(shlex.split(settings.load), environ)),
        nsys_args=_all_shown(settings.nsys_args, environ),
    )
    plan = ExecPlan(run_id, str(directory.path), _all_shown(command, environ), device=device, settings=recorded)
    options = program_options(settings, tool)
    return ProgramRun(
        directory,
        plan,
        settings,
        tuple(command),
        ProgramCommand(tool, options, settings, run_id, directory.path, namespace_prefix(environ)),
        environ,
        say,
        facts,
    )


def _missing_programs(command: Sequence[str], settings: ExecSettings, environ: Mapping[str, str]) -> Iterator[str]:
    """Say of command and load whether they are not there."""
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    fault = why_no_program(command[0], folders)
    if fault is not None:
        where = "; give its path, or put its folder into PATH" if fault == NOT_THERE else ""
        yield f"{command[0] or 'COMMAND behind --'}: {fault}{where}"
    if settings.load is not None:
        try:
            load = shlex.split(settings.load)
        except ValueError as error:
            raise RequestError(f"--load: is not a command line ({error})") from error
        fault = why_no_program(load[0] if load else "", folders)
        if fault is not None:
            yield f"--load {load[0] if load else ''!r}: {fault}"


def _require_fitting(command: Sequence[str], settings: ExecSettings) -> None:
    require_ranks(command, settings.ranks)
    without = {"--start-url": settings.start_url, "--stop-url": settings.stop_url, "--ready-url": settings.ready_url}
    for name, value in without.items():
        if value is not None and settings.load is None:
            raise RequestError(f"{name} is asked before or after the load: give --load COMMAND too")
    if settings.duration_s is not None and settings.load is not None:
        raise RequestError("--duration ends the program, and --load is what ends a server: leave one of them out")
    if settings.start_body is not None:
        if settings.start_url is None:
            raise RequestError("--start-body is posted to --start-url: give that too")
        _require_json(settings.start_body)


def _require_json(text: str) -> None:
    try:
        json.loads(text)
    except ValueError as error:
        raise RequestError(f"--start-body: is not JSON ({error})") from error


def _seconds_of_last(directory: RunDirectory, plan: ExecPlan) -> dict[tuple[str, str], float]:
    """How long the phases of the latest run beside this one took, if it was asked the same; empty: not known."""
    try:
        latest = RunDirectory(directory.path.parent / "latest")
        last, asked = latest.read_program_manifest(), latest.read_program_plan()
    except DsocrError:
        return {}
    if last.status != "complete" or (asked.command, asked.settings) != (plan.command, plan.settings):
        return {}
    return {(phase.program, phase.step): phase.seconds for phase in last.phases}


def _was_served(talk: Conversation) -> bool:
    """Whether the load came to its end on a server that ended by itself then, as one does that is told to by its client."""
    return talk.ready and talk.error is None and talk.load_code == 0


def _shown(text: str | None, environ: Mapping[str, str]) -> str | None:
    return None if text is None else _all_shown((text,), environ)[0]


def _all_shown(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """A command line as the plan keeps it, which is a record only: without what looks like a secret or is a known one."""
    known = secret_values(environ)
    return tuple(redact_text(argument, known) for argument in redact(argv))


@frozen
class ProgramRun:
    """One run and what it needs of the outside world."""

    directory: RunDirectory
    plan: ExecPlan
    settings: ExecSettings
    """As they were asked for, secrets included: never written."""
    command: tuple[str, ...]
    """The same. Empty where a finished capture is gone on with."""
    nsys: ProgramCommand
    environ: Mapping[str, str]
    say: Callable[[str], None]
    """Takes one line for the user."""
    facts: DriverFacts
    progress: RunProgress = field(default=Factory(lambda self: RunProgress(self.say), takes_self=True))

    @classmethod
    def taken_up(
        cls, directory: RunDirectory, tool: NsysTool, environ: Mapping[str, str], say: Callable[[str], None]
    ) -> ProgramRun:
        """Take up a run from its folder, to go on with what it captured."""
        plan = directory.read_program_plan()
        nsys = ProgramCommand(tool, program_options(plan.settings, tool), plan.settings, plan.run_id, directory.path)
        return cls(directory, plan, plan.settings, (), nsys, environ, say, DriverFacts(None, None))

    def start(self, interrupts: Interrupts, *, wait: bool) -> ProgramManifest:
        """Hold the devices and do the whole run.

        Args:
            interrupts: Ctrl-C ends the program first, and nsys writes what it has.
            wait: wait for the devices while another run holds one.

        Raises:
            BusyError: another run holds a device, and ``wait`` is false.
            DsocrError: the kind says which step failed; run.json holds the same words and every exit code so far.
        """
        directory = self.directory
        require_safe_place(directory.path.parent, self.say)
        if self.settings.ranks > 1 and (shared := shared_folders(directory.path.parent)):
            raise RequestError(
                f"{shared[0].path}: {shared[0].who} may rename what is there, and so put another script in the place of "
                f"{self.nsys.rank_script.name}, which starts each rank; choose an --out below a folder that is yours"
            )
        little_room = little_room_warning(directory.path)
        if little_room is not None:
            self.say(f"warning: {little_room}")
        directory.create()
        directory.write(directory.plan_file, self.plan)
        directory.write(directory.manifest_file, self._first_manifest())
        began = time.monotonic()
        limit = self.settings.timeout_s
        interrupts.deadline = None if limit is None else began + limit
        interrupts.listen(directory.cancel_file.exists)
        with directory.locked(), self._recording_failure(), self.progress, ExitStack() as held:
            count = len(self.facts.gpus)
            for device in [f"cuda:{index}" for index in range(count)] or ["cpu"]:
                lock = DeviceLock(device, self.facts.gpus, self.environ)
                held.enter_context(lock.held(wait=wait, interrupts=interrupts, waiting=self.progress.say))
            if directory.cancel_file.exists():
                raise InterruptedRunError("cancelled before it began")
            self._update(status="running")
            self.progress.expect(_seconds_of_last(directory, self.plan))
            if (why := directory.link_latest()) is not None:
                self.say(f"warning: {why}")
            self.progress.add("launcher", "preflight", began, time.monotonic())
            deadline = interrupts.deadline
            if self.settings.control:
                with self.progress.program("control") as run:
                    for number in range(1, self.settings.control + 1):
                        run(number, self.settings.control)
                        self._control(number, interrupts, deadline)
            with self.progress.program("capture"):
                self._capture(interrupts, deadline)
            self._finish(interrupts)
            record_run(self.directory, self.environ, self.progress.say)
            return self._manifest()

    def resume(self, interrupts: Interrupts) -> ProgramManifest:
        """Go on at import, export or analysis, whichever is the first that is not done.

        Raises:
            CaptureError: nothing was captured that could be gone on with.
            DsocrError: as `start`.
        """
        limit = self.settings.timeout_s
        interrupts.deadline = None if limit is None else time.monotonic() + limit
        with (
            self._without_secrets_at_the_end(),
            recording_attempt(self.directory, self._manifest, self._update, self._cleaned),
            self.progress,
        ):
            # What a launcher that was killed did not come to: secrets leave its logs, and what nsys kept in its folder goes.
            for log in (self.directory.path / "logs").glob("*.log"):
                self._clean(log)
            shutil.rmtree(self.directory.path / "tmp", ignore_errors=True)
            if not self._captured():
                raise CaptureError(
                    f"{self.directory.path}: nothing was captured, so there is nothing to resume; run it again"
                )
            manifest = self._manifest()
            ended = manifest.status in ("timed_out", "interrupted", "cancelled") or manifest.error == LAUNCHER_GONE
            if ended and manifest.partial is None:
                self._update(partial=how_it_ended(manifest, self.settings.timeout_s))
            set_damaged_aside(self.directory, self.settings.traces, self._say_clean)
            self._require_known_secrets()
            self._finish(interrupts, again=True)
        record_run(self.directory, self.environ, self.progress.say)
        return self._manifest()

    def _require_known_secrets(self) -> None:
        """Refuse to export what could not be freed of secrets that were blanked in the plan."""
        settings = self.settings
        blanked = any(REDACTED in text for text in (*self.plan.command, settings.load or "", *settings.nsys_args))
        blanked = blanked or any(looks_secret(name) for name in settings.keep_env)
        if blanked and self._unexported() and self.directory.read_secrets() is None:
            raise CaptureError(
                f"{self.directory.path}: the secrets of its command line or environment are not known any more, so "
                "what it captured cannot be freed of them; run it again"
            )

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _control(self, number: int, interrupts: Interrupts, deadline: float | None) -> None:
        self.progress.say(f"control run {number} of {self.settings.control}: nothing attached")
        with self._environment({}) as env:
            outcome, talk = self._watched(
                list(self.command), env, "control", interrupts, deadline, target=None, profiled=False
            )
        self._codes(control=outcome.returncode)
        self._times(outcome, talk, profiled=False)
        require_ended_itself(self.directory, outcome, "the control run", self.settings.timeout_s, saved=None)
        self._raise_if_failed(outcome, talk, "control", "in the control run", saved=None)

    def _capture(self, interrupts: Interrupts, deadline: float | None) -> None:
        settings = self.settings
        self.progress.say(f"capture: nsys {self.nsys.tool.version}, preset {settings.preset}, {settings.captured}")
        if settings.ranks > 1:
            self._write_rank_script()
        if self._given_secrets():
            self.directory.write_secrets(self._given_secrets())
        outcome, talk, room = self._under_nsys(interrupts, deadline)
        log = self.directory.log("capture")
        if not self._captured() and (first := set_failed_start_aside(outcome, log, room)) is not None:
            note = (
                f"nsys {self.nsys.tool.version} failed before it started the program ({last_line_of_nsys(first)}), so it "
                f"was started once more; its first output: {first.name}"
            )
            self.progress.say(note)
            self._note(note)
            outcome, talk, room = self._under_nsys(interrupts, deadline)
        fault = fault_of_nsys(self.nsys.tool, outcome, log, room)
        captured = self._captured()
        for file in self.directory.path.glob("*.nsys-rep"):
            file.chmod(0o600)  # nsys writes it readable for all
        ran = outcome.target_seen or bool(captured)  # a short one may end between two looks
        ran = (
            ran and not outcome.lost_supervisor and (fault is None or bool(captured))
        )  # else what came of it is not known
        self._codes(child=outcome.returncode if ran else None, nsys=0 if captured else outcome.returncode or 1)
        self._times(outcome, talk, profiled=True)
        if outcome.ended_by == "over":
            self._update(ended_by_us=True)
        if outcome.left_running is not None:
            note = f"the program left processes running, which were ended after it: {outcome.left_running}"
            self._say_clean(f"warning: {note}")
            self._note(note)
        if captured and (outcome.ended_by in ("timeout", "interrupt", "stuck") or outcome.returncode < 0):
            self._update(partial=ended_by(outcome, outcome.returncode, settings.timeout_s, self.directory))
        well = outcome.ended_by == "over" and talk is not None and talk.error is None
        well = well or (
            outcome.ended_by == "itself" and outcome.returncode == 0 and (talk is None or _was_served(talk))
        )
        saved = self._save(outcome, interrupts) if captured and not well else None
        tool = f"{self.nsys.tool.path} (version {self.nsys.tool.version})"
        require_ended_itself(self.directory, outcome, "the capture", self.settings.timeout_s, saved, tool)
        if fault is not None and (not captured or outcome.returncode != 0):
            raise CaptureError(why_no_capture(self.directory, fault, saved))
        if not ran:
            words = last_line_of_nsys(log)
            raise CaptureError(
                f"nsys did not start the program (exit code {outcome.returncode}): {words}{low_limits_note()}"
            )
        self._raise_if_failed(outcome, talk, "capture", "under nsys", saved)
        missing = [name for name in settings.traces if name not in captured]
        if missing:
            raise CaptureError(self._why_nothing(missing, outcome))

    def _under_nsys(
        self, interrupts: Interrupts, deadline: float | None
    ) -> tuple[Outcome, Conversation | None, RoomWatch]:
        """Start nsys with the program, and wait for the end of both."""
        with self._environment(self.nsys.environment()) as env:
            room = room_for_nsys(self.directory.path, env, self.progress.draw)
            outcome, talk = self._watched(
                self.nsys.argv(self.command),
                env,
                "capture",
                interrupts,
                deadline,
                target=self.plan.run_id,
                profiled=True,
                watch=room.look,
            )
        return outcome, talk, room

    def _why_nothing(self, missing: Sequence[str], outcome: Outcome) -> str:
        captured = self.settings.captured
        what = "no report" if missing == ["trace"] else f"no report for {', '.join(missing)}"
        why = f"{last_line_of_nsys(self.directory.log('capture'))}{low_limits_note()}"
        if captured == "cuda-profiler-api":
            why = "the program did not call cudaProfilerStart, so the capture never began (--capture all needs no call)"
        elif captured.startswith("nvtx:"):
            why = f"no range named {captured.removeprefix('nvtx:')} was opened, so the capture never began"
        elif self.settings.delay_s is not None:
            why = f"the program may have ended before --delay {self.settings.delay_s:g} s"
        return f"nsys left {what} (exit code {outcome.returncode}): {why}"

    def _watched(
        self,
        argv: list[str],
        env: dict[str, str],
        step: str,
        interrupts: Interrupts,
        deadline: float | None,
        *,
        target: str | None,
        profiled: bool,
        watch: Callable[[], None] | None = None,
    ) -> tuple[Outcome, Conversation | None]:
        """Run the program to its end, and a server with its load; secrets leave the logs."""
        settings = self.settings
        talk = None
        if settings.is_server:
            if settings.ready_url is not None:
                require_nobody_there(settings.ready_url)
            talk = Conversation(
                settings, env=env, log=self.directory.log("load"), say=self._say_clean, profiled=profiled
            )
        try:
            if talk is not None:
                talk.begin()
            outcome = run_process(
                argv,
                env=env,
                log=self.directory.log(step),
                interrupts=interrupts,
                target=target,
                deadline=deadline,
                grace_s=settings.grace_s,
                finish_s=settings.finish_s,
                umask=PRIVATE if profiled else users_umask(),
                cwd=SAFE_FOLDER if profiled and settings.ranks == 1 else None,
                watch=self.directory.watched(watch or self.progress.draw),
                over=None if talk is None else talk.over,
                tell=self._say_clean,
                ended=None if talk is None else talk.server_has_ended,
            )
        finally:
            if talk is not None:
                talk.close()
            for log in (self.directory.log(step), self.directory.log("load")):
                self._clean(log)
        return outcome, talk

    def _finish(self, interrupts: Interrupts, *, again: bool = False) -> None:
        captured = self._captured()
        with self.progress.phase("export"):
            rows = self._export(captured, interrupts)
        missing = [name for name in self.settings.traces if name not in captured]
        if missing:
            raise CaptureError(f"{self.directory.path}: there is no report for {', '.join(missing)}; run it again")
        self._update(phases=self._phases())
        manifest = self._manifest()
        if manifest.device == "cpu" and not self._holds_gpu_work(captured, rows):
            note = "no GPU is visible here and the capture holds no work of one, so there is no report of its time"
            self.progress.say(note)
            self._note(note)
        else:
            self._analyse(interrupts, again=again)
        # Not before: whoever reads that it is complete reads the report next.
        if manifest.partial is None and (manifest.ended_by_us or manifest.exit_codes.child in (0, None)):
            self._update(status="complete", error=None, finished_at=now())

    def _holds_gpu_work(self, names: Sequence[str], rows: Mapping[str, int] | None) -> bool:
        """Whether exports hold work of a GPU; ``rows``: those that were counted just now, None if they were made earlier."""
        counted = (
            [rows] if rows is not None else [check_trace(self.directory.path / f"{name}.sqlite") for name in names]
        )
        return any(each.get(table) for each in counted for table in _GPU_TABLES)

    def _export(self, names: Sequence[str], interrupts: Interrupts) -> dict[str, int] | None:
        """Make the exports of these traces that are not there yet. Gives the rows of those that it made; None: it made none."""
        total: dict[str, int] = {}
        made = False
        secrets = self._secrets()
        for name in names:
            database = self.directory.path / f"{name}.sqlite"
            if database.is_file():
                continue
            log = self.directory.log("export")
            with self._environment({}) as env:
                try:
                    report = finish_import(
                        self.nsys.tool, self.directory.path, env=env, log=log, interrupts=interrupts, stem=name
                    )
                    result = export_report(
                        self.nsys.tool,
                        report,
                        database,
                        env=env,
                        log=log,
                        interrupts=interrupts,
                        own_marks=(self.plan.run_id,),
                        secrets=secrets,
                        blobs=True,
                    )
                except NoEventsError as error:
                    self._codes(export=0)  # it did its part: there was nothing to export
                    self._guard_report(self.directory.path / f"{name}.nsys-rep", 0, ())
                    raise NoEventsError(
                        f"{self.directory.path}: the capture {name} holds no event at all: while it ran, the program "
                        "opened no NVTX range and used no GPU (mark its stages: docs/annotate.md)"
                    ) from error
                except ExportError:
                    with suppress(DsocrError):  # a full disk, which is what failed the export
                        self._codes(export=1)
                    raise
                finally:
                    self._clean(log)
            made = True
            self._codes(export=result.returncode)
            counts = ", ".join(f"{count:,} {table}" for table, count in result.rows.items() if count)
            self.progress.say(f"{database.name}: exported and checked: {counts}")
            for table, count in result.rows.items():
                total[table] = total.get(table, 0) + count
            self._guard_report(report, result.foreign_blocks, result.secret_names, result.secret_texts)
        self._update(traces=tuple(f"{name}.sqlite" for name in names))
        return total if made else None

    def _guard_report(self, report: Path, blocks: int, names: tuple[str, ...], texts: int = 0) -> None:
        """A report that holds secrets is not left lying about: only the export can be freed of them."""
        kinds = []
        if blocks:
            listed = f", with {', '.join(names)} among them" if names else ""
            kinds.append(f"the environment of {blocks} other processes or groups of them{listed}")
        if self._given_secrets():
            kinds.append("secrets of the command line or of --keep-env")
        elif texts:
            kinds.append("what looks like secrets of the program")
        if not kinds or not report.is_file():
            return
        what = f"nsys stored {' and '.join(kinds)} in {report.name}"
        exported = report.with_suffix(".sqlite").is_file()
        export = f" {report.stem}.sqlite is free of them." if exported else ""
        if self.settings.keep_report:
            note = f"{what}; kept on request: do not share it.{export}"
        else:
            report.unlink()
            when = " after its export" if exported else ""
            note = f"{what}; it was deleted{when} (--keep-report keeps it).{export}"
        self.progress.say(note)
        self._note(note)

    def _save(self, outcome: Outcome, interrupts: Interrupts) -> Path | None:
        """Save what was captured of a program that did not end well, and say so in run.json."""
        captured = self._captured()
        first = captured[0]
        report = self.directory.path / f"{first}.nsys-rep"
        saved = report if report.is_file() else None
        if outcome.ended_by != "interrupt":
            try:
                self._export(captured, interrupts)
                saved = self.directory.path / f"{first}.sqlite"
            except NoEventsError:
                return None
            except DsocrError as error:
                self.progress.say(f"what was captured before could not be exported: {error}")
        if saved is not None:
            self._note(f"The program did not end well; {saved.name} holds what it did until then.")
        return saved

    def analysis_command(self) -> list[str]:
        """Give the command line of the analysis; the traces of several ranks are read together."""
        folder = self.directory.path
        traces = [str(folder / f"{name}.sqlite") for name in self.settings.traces]
        return module_command("analysis.cli", *traces, "--out", str(folder))

    def _analyse(self, interrupts: Interrupts, *, again: bool) -> None:
        env = child_environment(self.environ)
        with self.progress.phase("report"):
            outcome = start_analysis(self.directory, self.analysis_command(), env, interrupts, self.progress.draw)
        with recorded_or_worse(outcome):
            self._codes(analysis=outcome.returncode)
            self._update(phases=self._phases())
        require_analysed(self.directory, outcome, self.settings.timeout_s, again=again)

    # -- records -------------------------------------------------------------------------------------------------------

    def _first_manifest(self) -> ProgramManifest:
        settings = self.plan.settings
        names = ("capture", "preset", "ranks")
        options: dict[str, Any] = {}
        for option in options_of(ExecSettings):
            if option.name not in names:
                value = getattr(settings, option.name)
                options[option.name] = (shlex.join(value) or None) if isinstance(value, tuple) else value
        mismatch = driver_mismatch(self.nsys.tool, self.facts)
        with_secrets = self.nsys.argv(self.command)
        return ProgramManifest(
            run_id=self.plan.run_id,
            status="queued",
            command=self.plan.command,
            created_at=datetime.now(UTC),
            device=self.plan.device,
            folder=str(Path.cwd()),
            git_commit=commit_of(Path.cwd()),
            capture=self.settings.captured,
            ranks=settings.ranks,
            preset=settings.preset,
            options=options,
            argv=tuple(redact_text(argument, self._secrets()) for argument in redact(with_secrets)),
            environment=tuple(sorted(program_environment(self.environ, keep=self.settings.keep_env))),
            versions=self._versions(),
            notes=(*self.nsys.options.warnings, *((str(mismatch),) if mismatch else ())),
        )

    def _versions(self) -> dict[str, str]:
        """Of what is not the program's: which torch it imports is its own affair."""
        cuda = self.facts.cuda
        versions = {
            "dsocr-profiler": installed_version("dsocr-profiler"),
            "nsys": self.nsys.tool.version,
            "driver": self.facts.driver,
            "driver_cuda": None if cuda is None else f"{cuda[0]}.{cuda[1]}",
        }
        return {name: version for name, version in versions.items() if version is not None}

    def _manifest(self) -> ProgramManifest:
        return self.directory.read_program_manifest()

    def _update(self, **changes: Any) -> None:
        self.directory.write(self.directory.manifest_file, evolve(self._manifest(), **changes))

    def _phases(self) -> tuple[PhaseTime, ...]:
        return self.progress.with_earlier(self._manifest().phases)

    def _codes(self, **codes: int | None) -> None:
        self._update(exit_codes=evolve(self._manifest().exit_codes, **codes))

    def _note(self, note: str) -> None:
        notes = self._manifest().notes
        if note not in notes:
            self._update(notes=(*notes, note))

    def _times(self, outcome: Outcome, talk: Conversation | None, *, profiled: bool) -> None:
        if outcome.ended_by in ("timeout", "interrupt") or (profiled and self.settings.duration_s is not None):
            return  # how long it was let run says nothing of it
        load_s = None if talk is None else talk.load_s
        self._update(
            times=(*self._manifest().times, ProgramTimes(profiled, outcome.elapsed_s, load_s)),
            load_exit_code=None if talk is None else talk.load_code,
        )

    def _captured(self) -> list[str]:
        """Names of the traces of which something was captured."""
        folder = self.directory.path
        return [
            name
            for name in self.settings.traces
            if any(
                (folder / f"{name}{ending}").is_file() and (folder / f"{name}{ending}").stat().st_size > 0
                for ending in (".nsys-rep", ".qdstrm", ".sqlite")
            )
        ]

    def _unexported(self) -> list[str]:
        """Names of the traces that were captured and have no export yet."""
        return [name for name in self._captured() if not (self.directory.path / f"{name}.sqlite").is_file()]

    # -- failures ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _recording_failure(self) -> Iterator[None]:
        """Write an error into run.json on its way out; if that fails too (disk full), the first error is raised."""
        with self._without_secrets_at_the_end():
            try:
                with self.directory.still_there():
                    yield
            except DsocrError as error:
                if not self.directory.manifest_file.is_file():
                    raise
                self.directory.free_reserve()
                try:
                    self._update(
                        status=status_of(error, self.directory),
                        error=self._cleaned(str(error)),
                        finished_at=now(),
                        phases=self._phases(),
                    )
                except DsocrError as second:
                    if str(second) != str(error):
                        self.progress.say(str(second))
                raise

    @contextmanager
    def _without_secrets_at_the_end(self) -> Iterator[None]:
        """Keep the texts that the export is freed of no longer than one is awaited."""
        try:
            yield
        finally:
            self._clean_rank_script()
            if not self._unexported():
                self.directory.secrets_file.unlink(missing_ok=True)

    def _raise_if_failed(
        self, outcome: Outcome, talk: Conversation | None, step: str, where: str, saved: Path | None
    ) -> None:
        """Fail if the program or its load did. A server that we ended is not blamed for its exit code."""
        rest = f"; what was captured before is kept in {saved}" if saved is not None else ""
        log = self.directory.log(step)
        if talk is not None and outcome.ended_by == "over":
            if talk.error is not None:
                raise type(talk.error)(f"{talk.error}{rest}")
            return
        code = outcome.returncode
        ended = ended_in_words(code, "ended with")
        if talk is not None and not (code == 0 and _was_served(talk)):
            before = (
                "its load had ended" if talk.ready else f"it answered {_shown(self.settings.ready_url, self.environ)}"
            )
            raise ChildFailedError(
                f"the server {ended} {where} before {before}: {last_line(log)} (all of it: {log}){rest}"
            )
        if code != 0:
            raise ChildFailedError(f"the program {ended} {where}: {last_line(log)} (all of it: {log}){rest}")

    # -- pieces --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _environment(self, more: Mapping[str, str]) -> Iterator[dict[str, str]]:
        """The program's environment, with a temporary folder that lives as long as it."""
        with self.directory.temporary() as folder:
            extra = {RUN_MARK: self.plan.run_id, "TMPDIR": str(folder), **more}
            yield program_environment(self.environ, keep=self.settings.keep_env, extra=extra)

    def _write_rank_script(self) -> None:
        script = self.nsys.rank_script
        try:
            script.write_bytes(os.fsencode(self.nsys.script(self.command, self.environ)))
            script.chmod(0o700)
        except OSError as error:
            raise CaptureError(f"{script}: cannot be written ({error.strerror})") from error

    def _clean_rank_script(self) -> None:
        """Take out what --nsys-arg gave: nobody starts a rank any more."""
        clean_log(self.nsys.rank_script, self._secrets())

    def _secrets(self) -> tuple[str, ...]:
        """What must stand nowhere: given secrets, and those in the launcher's environment, which the program may print."""
        return tuple(sorted({*self._given_secrets(), *secret_values(self.environ)}, key=len, reverse=True))

    def _given_secrets(self) -> tuple[str, ...]:
        """Secrets that the program was given: in its command line, its load's, and by --keep-env."""
        if not self.command:
            return self.directory.read_secrets() or ()
        load = shlex.split(self.settings.load or "")
        argv = [*self.command, *load, *self.settings.nsys_args]
        return secrets_of(argv, self.environ, self.settings.keep_env)

    def _cleaned(self, text: str) -> str:
        return redact_text(text, self._secrets())

    def _say_clean(self, line: str) -> None:
        self.progress.say(self._cleaned(line))

    def _clean(self, log: Path) -> None:
        """Take secrets out of a log: a program may print its own command line."""
        clean_log(log, self._secrets())

    def script(self) -> str:
        """Give the text of the script that starts each rank."""
        return self._cleaned(self.nsys.script(self.command, self.environ))

    def commands(self) -> dict[str, list[list[str]]]:
        """Give the exact commands of a run, by step, for ``--dry-run``; secrets redacted."""
        folder = self.directory.path
        exports = [
            export_argv(self.nsys.tool, str(folder / f"{name}.nsys-rep"), str(folder / f"{name}.sqlite"), blobs=True)
            for name in self.settings.traces
        ]
        argv = [redact_text(argument, self._secrets()) for argument in redact(self.nsys.argv(self.command))]
        return {
            "control": [list(redact(self.command))] * self.settings.control,
            "capture": [argv],
            "export": exports,
            "analysis": [self.analysis_command()],
        }
