"""``dsocr-profile run``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import evolve

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.entities import InputSet
from analysis.domain.errors import RequestError
from runner.cli.options import Model, NoHistory, Out, StoreAt, with_settings
from runner.cli.output import say, tell, tell_command
from runner.plan.plan import RunPlan
from runner.plan.settings import Settings

if TYPE_CHECKING:
    from runner.collectors.choosing import Choice

__all__ = ["run"]

_RUN = "The run"
_UNLESS_ASKED = LLMProfileRequest(model_path="any", input_dir="/any")


@with_settings()
def run(
    model: Model = "",
    images: Annotated[
        Path | None,
        typer.Option(
            help="Image, PDF (scan.pdf, scan.pdf#1-3) or folder of them; none: three generated pages.",
            metavar="FILE|FOLDER",
            rich_help_panel=_RUN,
        ),
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="All twelve generated pages in place of three.", rich_help_panel=_RUN)
    ] = False,
    repeats: Annotated[
        int, typer.Option(help="Passes of the unprofiled control run.", min=1, rich_help_panel=_RUN)
    ] = _UNLESS_ASKED.repeats,
    max_new_tokens: Annotated[
        int, typer.Option(help="Tokens per image at most.", min=1, rich_help_panel=_RUN)
    ] = _UNLESS_ASKED.max_new_tokens,
    device: Annotated[
        str, typer.Option(help="Where the model runs.", metavar="auto|cpu|cuda|cuda:N", rich_help_panel=_RUN)
    ] = "auto",
    out: Out = Path("reports"),
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another run holds the device.", rich_help_panel=_RUN)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the exact commands and start nothing.", rich_help_panel=_RUN)
    ] = False,
    no_history: NoHistory = False,
    store: StoreAt = None,
    *,
    settings: Settings,
) -> None:
    """Profile a model: an unprofiled control run, the capture, the export, the report."""
    from runner.child.models.registry import (
        DEFAULT_PRESET,
        PRESETS,
        check_input_mode,
        check_tensor_parallel,
        resolve_model,
    )
    from runner.inputs.inputs import FEW_PAGES, discover, sample_set
    from runner.launcher.launch import carry_out, prepare
    from runner.launcher.outcome import print_result
    from runner.launcher.recording import with_history
    from runner.launcher.request import make_plan, make_request
    from runner.launcher.run_directory import require_safe_place
    from runner.process.driver import driver_facts
    from runner.process.process import process_began

    began = process_began()
    environ = with_history(os.environ, no_history=no_history, store=store)
    if thorough and images is not None:
        raise RequestError("--thorough is for the generated pages; of --images all are taken")
    out = out.expanduser().absolute()
    require_safe_place(out, *((say,) if dry_run else ()))  # before a page is drawn there; a run says it later
    generated = out / ("sample-pages" if thorough else "sample-pages-3")
    facts = driver_facts()
    request = make_request(
        model or DEFAULT_PRESET,
        images or generated,
        presets=PRESETS,
        device=device,
        facts=facts,
        repeats=repeats,
        max_new_tokens=max_new_tokens,
        use_flash_attn=settings.attn_implementation != "eager",
        say=say,
    )
    source = resolve_model(request.model_path, random_weights=settings.random_weights)
    check_input_mode(source, settings.input_mode)
    check_tensor_parallel(source, settings.tensor_parallel)
    plan, choice = make_plan(request, settings, out, os.environ)
    say(f"collector: {choice.name} ({choice.reason})")
    pages: InputSet | None = None
    looking = time.monotonic()
    if images is not None:
        pages = discover(images, rendered_into=out / "rendered-pages", dpi=settings.dpi)
    elif not dry_run:
        pages = sample_set(generated) if thorough else sample_set(generated, FEW_PAGES)
    pages_s = time.monotonic() - looking
    plan = evolve(plan, input_set=pages)
    if dry_run:
        _print_commands(plan, choice)
        return
    directory = prepare(plan, choice, facts, environ, say)
    for warning in directory.read_manifest().notes:
        say(f"warning: {warning}")
    print_result(directory, carry_out(directory, choice, environ, say, wait=wait, began=began, pages_s=pages_s))


def _print_commands(plan: RunPlan, choice: Choice) -> None:
    from runner.launcher.run import Run
    from runner.launcher.run_directory import RunDirectory
    from runner.process.environment import child_environment

    directory = RunDirectory(Path(plan.run_dir))
    collection = choice.collector.for_plan(plan, os.environ)
    commands = Run(directory, plan, choice.collector, collection, os.environ, say).commands()
    names = sorted(child_environment(os.environ, keep=plan.settings.keep_env))
    tell(f"# only these variables are passed on: {' '.join(names)}")
    for step in ("control", "capture"):
        tell_command(commands[step])
    export = collection.export_command(directory.path)
    if export is not None:
        tell_command(export)
    tell_command(commands["analysis"])
