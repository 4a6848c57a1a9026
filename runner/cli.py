"""``dsocr-profile``: parse, call, print."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn, cast, get_args

import typer

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import from_json_file, to_json
from analysis.domain.entities import Dtype
from analysis.domain.errors import CaptureError, DsocrError, RequestError
from runner.collectors.choosing import Choice
from runner.launcher.launch import carry_out, choose_again, prepare
from runner.launcher.request import CollectorChoice, LaunchOptions, RunSettings, make_plan, make_request
from runner.launcher.run_directory import RunDirectory
from runner.plan.plan import AnnotationLevel, DecodeMode, RunPlan

__all__ = ["app", "main"]

app = typer.Typer(
    name="dsocr-profile",
    help="Run an annotated prefill and decode, record it, and report where the time goes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option("--out", help="Folder that gets one folder per run.")]
Nsys = Annotated[str | None, typer.Option("--nsys", help="The nsys to use (default: $NSYS, else the newest usable).")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable, on standard output.")]

_RUN, _MODEL, _PROFILER = "The run", "The model", "The profiler"


_OF_THE_EXTRA = frozenset({"PIL", "nvtx", "safetensors", "torch", "transformers"})


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point: one line on standard error and the error's exit code for what a user can cause or meet."""
    try:
        app(args=None if argv is None else list(argv), standalone_mode=True)
    except DsocrError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _OF_THE_EXTRA:
            raise
        _say(f"error: {error.name} is not installed; the analysis alone is: pip install 'dsocr-profiler[runner]'")
        sys.exit(CaptureError.exit_code)
    sys.exit(0)


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="Preset, checkpoint folder or cached Hugging Face id.")] = "",
    images: Annotated[
        Path | None, typer.Option(help="Image or folder; none: 12 generated pages.", rich_help_panel=_RUN)
    ] = None,
    repeats: Annotated[int, typer.Option(help="Passes of the unprofiled control run.", rich_help_panel=_RUN)] = 3,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens per image at most.", rich_help_panel=_RUN)] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_RUN)] = "auto",
    batch_size: Annotated[int, typer.Option(help="Copies of each prompt at once.", rich_help_panel=_RUN)] = 1,
    warmup: Annotated[int, typer.Option(help="Passes before anything is measured.", rich_help_panel=_RUN)] = 1,
    capture_passes: Annotated[int, typer.Option(help="Passes inside the capture.", rich_help_panel=_RUN)] = 1,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Always generate --max-new-tokens.", rich_help_panel=_RUN)
    ] = False,
    seed: Annotated[int, typer.Option(help="Of random weights.", rich_help_panel=_RUN)] = 0,
    decode: Annotated[str, typer.Option(help="eager or cuda-graph.", rich_help_panel=_RUN)] = "eager",
    out: Annotated[Path, typer.Option(help="Folder that gets one folder per run.", rich_help_panel=_RUN)] = Path(
        "reports"
    ),
    timeout: Annotated[
        float | None, typer.Option(help="Seconds for control run and capture together.", rich_help_panel=_RUN)
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another run holds the device.", rich_help_panel=_RUN)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the exact commands and start nothing.", rich_help_panel=_RUN)
    ] = False,
    input_mode: Annotated[
        str | None, typer.Option(help="tiny, small, base, large or gundam.", rich_help_panel=_MODEL)
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Instead of the model's own.", rich_help_panel=_MODEL)] = None,
    dtype: Annotated[str | None, typer.Option(help="bf16, fp16 or fp32.", rich_help_panel=_MODEL)] = None,
    attn: Annotated[
        str | None, typer.Option(help="Attention implementation: sdpa, eager, …", rich_help_panel=_MODEL)
    ] = None,
    experts: Annotated[
        str | None, typer.Option(help="Experts implementation: grouped_mm, eager, …", rich_help_panel=_MODEL)
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run code that comes with a checkpoint.", rich_help_panel=_MODEL),
    ] = False,
    measure_peak: Annotated[
        bool,
        typer.Option("--measure-peak", help="Measure a matrix product and a copy first.", rich_help_panel=_MODEL),
    ] = False,
    collector: Annotated[str, typer.Option(help="auto, nsys or torch.", rich_help_panel=_PROFILER)] = "auto",
    preset: Annotated[
        str, typer.Option(help="What nsys collects; `doctor` and docs/capture.md list them.", rich_help_panel=_PROFILER)
    ] = "default",
    annotations: Annotated[
        str | None, typer.Option(help="stages, modules or operators.", rich_help_panel=_PROFILER)
    ] = None,
    nsys: Annotated[
        str | None, typer.Option(help="The nsys to use ($NSYS, else the newest usable).", rich_help_panel=_PROFILER)
    ] = None,
    nsys_arg: Annotated[
        list[str] | None, typer.Option(help="Passed to nsys as it is; may be repeated.", rich_help_panel=_PROFILER)
    ] = None,
    keep_env: Annotated[
        list[str] | None,
        typer.Option(help="Environment variable that the program needs.", rich_help_panel=_PROFILER),
    ] = None,
    keep_report: Annotated[
        bool,
        typer.Option(
            "--keep-report",
            help="Keep the .nsys-rep even if nsys stored other processes' environments in it.",
            rich_help_panel=_PROFILER,
        ),
    ] = False,
) -> None:
    """Profile a model: an unprofiled control run, the capture, the export, the report."""
    from runner.child.models.registry import DEFAULT_PRESET, resolve_model
    from runner.process.driver import driver_facts

    settings = RunSettings(
        collector=cast(CollectorChoice, _one_of("--collector", collector, CollectorChoice)),
        preset=preset,
        input_mode=input_mode,
        dtype=None if dtype is None else cast(Dtype, _one_of("--dtype", dtype, Dtype)),
        seed=seed,
        batch_size=batch_size,
        warmup_passes=warmup,
        capture_passes=capture_passes,
        annotation_level=None
        if annotations is None
        else cast(AnnotationLevel, _one_of("--annotations", annotations, AnnotationLevel)),
        decode_mode=cast(DecodeMode, _one_of("--decode", decode, DecodeMode)),
        attn_implementation=attn,
        experts_implementation=experts,
        ignore_eos=ignore_eos,
        trust_remote_code=trust_remote_code,
        measure_peak=measure_peak,
        prompt=prompt,
    )
    launch = _launch_options(nsys, nsys_arg, keep_env, timeout, keep_report)
    out = out.expanduser().absolute()
    facts = driver_facts(os.environ)
    request, reason = make_request(
        model or DEFAULT_PRESET,
        images or out / "sample-pages",
        device=device,
        facts=facts,
        repeats=repeats,
        max_new_tokens=max_new_tokens,
        use_flash_attn=attn != "eager",
    )
    resolve_model(request.model_path)
    if reason is not None:
        _say(f"device: {request.device} ({reason})")
    plan, choice = make_plan(request, settings, launch, out, os.environ)
    _say(f"collector: {choice.name} ({choice.reason})")
    if dry_run:
        _print_commands(plan, launch, choice)
        return
    if images is None:
        _make_sample_pages(out / "sample-pages")
    directory = prepare(plan, launch, choice, facts, os.environ, _say)
    for warning in directory.read_manifest().notes:
        _say(f"warning: {warning}")
    _finish(directory, choice, wait=wait)


@app.command()
def resume(
    run_id: Annotated[str, typer.Argument(help="Id of a run or its beginning, or `latest`.")],
    out: Out = Path("reports"),
    nsys: Nsys = None,
) -> None:
    """Go on at import, export or analysis after what stopped a run has been mended."""
    from runner.launcher.outcome import print_result
    from runner.launcher.queue import find_run
    from runner.launcher.run import Run
    from runner.process.process import Interrupts

    directory = find_run(out, run_id)
    with Interrupts() as interrupts, directory.locked():
        plan = directory.read_plan()
        choice = choose_again(
            plan, directory.read_launch(), nsys, os.environ, needed=not directory.trace_file.is_file()
        )
        session = Run.open(directory, choice, os.environ, _say)
        manifest = session.resume(interrupts)
    print_result(directory, manifest)


@app.command()
def doctor(out: Out = Path("reports"), nsys: Nsys = None, as_json: AsJson = False) -> None:
    """Check what a run needs, say how to mend it; exit code 0 if runs are possible here, 10 if not."""
    from runner.launcher.doctor import diagnose

    diagnosis = diagnose(os.environ, out, nsys=nsys, say=_say)
    if as_json:
        typer.echo(to_json(diagnosis))
    else:
        marks = {"ok": "✓", "warning": "!", "failed": "✗", "skipped": "–"}
        for check in diagnosis.checks:
            typer.echo(f"{marks[check.verdict]} {check.name}: {check.found}")
            if check.mend is not None and check.verdict != "ok":
                typer.echo(f"    → {check.mend}")
        what = f"usable; --collector auto takes {diagnosis.collector}" if diagnosis.usable else "not usable"
        typer.echo(what)
    if not diagnosis.usable:
        raise typer.Exit(10)


@app.command()
def submit(
    request_file: Annotated[Path, typer.Argument(help="An LLMProfileRequest as JSON.")],
    out: Out = Path("reports"),
    collector: Annotated[str, typer.Option(help="auto, nsys or torch.")] = "auto",
    preset: Annotated[str, typer.Option(help="What nsys collects.")] = "default",
    nsys: Nsys = None,
    nsys_arg: Annotated[list[str] | None, typer.Option(help="Passed to nsys as it is.")] = None,
    keep_env: Annotated[list[str] | None, typer.Option(help="Environment variable to keep.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for control run and capture.")] = None,
) -> None:
    """Queue a run in the background; prints an LLMProfileAccepted as JSON."""
    from runner.child.models.registry import resolve_model
    from runner.launcher.queue import submit as submit_run
    from runner.process.driver import driver_facts

    request = from_json_file(LLMProfileRequest, request_file)
    resolve_model(request.model_path)
    settings = RunSettings(
        collector=cast(CollectorChoice, _one_of("--collector", collector, CollectorChoice)), preset=preset
    )
    launch = _launch_options(nsys, nsys_arg, keep_env, timeout, keep_report=False)
    plan, choice = make_plan(request, settings, launch, out, os.environ)
    directory = prepare(plan, launch, choice, driver_facts(os.environ), os.environ, _say)
    accepted = submit_run(directory, request.device, os.environ)
    typer.echo(to_json(accepted))


@app.command()
def status(
    run_id: Annotated[str, typer.Argument(help="Id of a run or its beginning, or `latest`.")] = "",
    all_runs: Annotated[bool, typer.Option("--all", help="All runs, newest first.")] = False,
    out: Out = Path("reports"),
    as_json: AsJson = False,
) -> None:
    """Say what became of a run."""
    from runner.launcher.queue import all_states, find_run, run_state

    if not run_id and not all_runs:
        raise RequestError("give a run's id, or --all")
    states = all_states(out) if all_runs else [run_state(find_run(out, run_id))]
    if as_json:
        plain = [json.loads(to_json(state)) for state in states]
        typer.echo(json.dumps(plain if all_runs else plain[0], indent=2, ensure_ascii=False))
        return
    for state in states:
        typer.echo(f"{state.run_id}  {state.status:<11} {state.path}" + (f"  {state.error}" if state.error else ""))


@app.command()
def cancel(
    run_id: Annotated[str, typer.Argument(help="Id of a run or its beginning.")], out: Out = Path("reports")
) -> None:
    """Cancel a queued or running run; what it captured so far is kept."""
    from runner.launcher.queue import cancel as cancel_run
    from runner.launcher.queue import find_run

    state = cancel_run(find_run(out, run_id))
    typer.echo(f"{state.run_id}  {state.status}")


@app.command()
def inputs(
    images: Annotated[Path | None, typer.Argument(help="Image or folder; none: the generated pages.")] = None,
    out: Out = Path("reports"),
    as_json: AsJson = False,
) -> None:
    """Show the input set: sizes, categories, hashes."""
    from runner.inputs.inputs import discover

    if images is None:
        images = out.expanduser().absolute() / "sample-pages"
        _make_sample_pages(images)
    found = discover(images.expanduser().absolute())
    if as_json:
        typer.echo(to_json(found))
        return
    for index, image in enumerate(found.images):
        typer.echo(f"{index:>3}  {image.width}×{image.height}  {image.category:<12} {image.path}")


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the model presets."""
    from runner.child.models.registry import DEFAULT_PRESET, PRESETS

    if as_json:
        typer.echo(json.dumps({name: preset.description for name, preset in PRESETS.items()}, indent=2))
        return
    for name, preset in PRESETS.items():
        default = " (default)" if name == DEFAULT_PRESET else ""
        typer.echo(f"{name:<20} {preset.description}{default}")


@app.command(hidden=True)
def work(run_dir: Path) -> None:
    """Work on a prepared run: the background half of ``submit``."""
    directory = RunDirectory(run_dir.absolute())
    plan = directory.read_plan()
    _finish(directory, choose_again(plan, directory.read_launch(), None, os.environ, needed=True), wait=True)


# -- pieces ------------------------------------------------------------------------------------------------------------


def _finish(directory: RunDirectory, choice: Choice, *, wait: bool) -> None:
    from runner.launcher.outcome import print_result

    manifest = carry_out(directory, choice, os.environ, _say, wait=wait)
    print_result(directory, manifest)


def _launch_options(
    nsys: str | None,
    nsys_args: list[str] | None,
    keep_env: list[str] | None,
    timeout: float | None,
    keep_report: bool,
) -> LaunchOptions:
    arguments: tuple[str, ...] = tuple(nsys_args or ())
    names: tuple[str, ...] = tuple(keep_env or ())
    try:
        return LaunchOptions(nsys, arguments, names, timeout, keep_report)
    except ValueError as error:
        raise RequestError(f"--timeout: {error.args[0]}") from error


def _make_sample_pages(folder: Path) -> None:
    from runner.inputs.inputs import sample_set

    try:
        sample_set(folder)
    except OSError as error:
        raise RequestError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error


def _print_commands(plan: RunPlan, launch: LaunchOptions, choice: Choice) -> None:
    from runner.launcher.run import Run
    from runner.process.environment import child_environment

    directory = RunDirectory(Path(plan.run_dir))
    collection = choice.collector.for_plan(plan, launch.nsys_args, os.environ)
    session = Run(directory, plan, launch, choice.collector, collection, os.environ, _say)
    names = sorted(child_environment(os.environ, keep=launch.keep_env))
    typer.echo(f"# only these variables are passed on: {' '.join(names)}")
    commands = session.commands()
    for step in ("control", "capture"):
        typer.echo(shlex.join(commands[step]))
    export = collection.export_command(directory.path)
    if export is not None:
        typer.echo(shlex.join(export))
    typer.echo(shlex.join(commands["analysis"]))


def _one_of(option: str, value: str, kind: object) -> str:
    allowed = get_args(kind)
    if value not in allowed:
        raise RequestError(f"{option} {value}: must be one of {', '.join(allowed)}")
    return value


def _say(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    main()
