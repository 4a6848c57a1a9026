"""``dsocr-profile sweep``."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import evolve

from analysis.domain.errors import RequestError
from analysis.domain.names import visible
from runner.cli.options import Model, with_settings
from runner.cli.output import say, tell, tell_command
from runner.plan.sweep import DECODE_MODES, SweepPlan, SweepSettings, point_name, points_of

if TYPE_CHECKING:
    from analysis.domain.entities import InputSet
    from analysis.domain.manifest import DecodeMode
    from analysis.domain.sweep import Sweep, SweepSetting
    from runner.launcher.run_directory import RunDirectory

__all__ = ["sweep"]

_POINTS = "The points: every combination"
_RUN = "The run"


@with_settings(SweepSettings)
def sweep(
    model: Model = "",
    batch_size: Annotated[
        str, typer.Option(help="Sequences at once.", metavar="N,N,…", rich_help_panel=_POINTS)
    ] = "1,2,4,8,16",
    input_mode: Annotated[
        str | None,
        typer.Option(
            help="How a page is shown to the model (default: the model's own).",
            metavar="MODE,…",
            rich_help_panel=_POINTS,
        ),
    ] = None,
    max_new_tokens: Annotated[
        str, typer.Option(help="Tokens that each sequence generates.", metavar="N,N,…", rich_help_panel=_POINTS)
    ] = "64",
    decode: Annotated[
        str, typer.Option(help="Of eager, static and cuda-graph.", metavar="MODE,…", rich_help_panel=_POINTS)
    ] = "eager",
    prompt_tokens: Annotated[
        str | None,
        typer.Option(
            help="Positions of the prompt, made longer with text (default: the model's own prompt).",
            metavar="N,N,…",
            rich_help_panel=_POINTS,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="The page: an image, or the first of a PDF or folder; none: a generated one.",
            metavar="FILE|FOLDER",
            rich_help_panel=_RUN,
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where the model runs.", metavar="auto|cpu|cuda|cuda:N", rich_help_panel=_RUN)
    ] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The sweep's folder; one that holds this sweep goes on with it (default: reports/sweep_MODEL).",
            rich_help_panel=_RUN,
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another run holds the device.", rich_help_panel=_RUN)
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the points and the command, and start nothing.", rich_help_panel=_RUN),
    ] = False,
    *,
    settings: SweepSettings,
) -> None:
    """Measure one model at many points: batch, input mode, tokens, context, decode mode. Run again, it goes on."""
    from runner.child.models.registry import (
        DEFAULT_PRESET,
        PRESETS,
        check_input_mode,
        own_input_mode,
        resolve_model,
    )
    from runner.launcher.request import make_request, require_no_secrets
    from runner.launcher.sweep import SweepRun, require_own_folder, take_up
    from runner.plan.plan import RunPlan
    from runner.plan.settings import Settings
    from runner.process.driver import driver_facts
    from runner.process.environment import redact
    from runner.process.process import Interrupts, process_began

    began = process_began()
    model = model or DEFAULT_PRESET
    folder = (out or Path("reports") / f"sweep_{Path(model).name}").expanduser().absolute()
    facts = driver_facts()
    request = make_request(
        model,
        images or folder / "page",
        presets=PRESETS,
        device=device,
        facts=facts,
        repeats=settings.passes,
        max_new_tokens=1,  # each point has its own
        use_flash_attn=settings.attn_implementation != "eager",
        say=say,
    )
    source = resolve_model(request.model_path, random_weights=settings.random_weights)
    modes = _words("--input-mode", input_mode) if input_mode is not None else (own_input_mode(source),)
    for mode in modes:
        check_input_mode(source, mode)
    points = points_of(
        _numbers("--batch-size", batch_size),
        modes,
        _numbers("--max-new-tokens", max_new_tokens),
        (None,) if prompt_tokens is None else _numbers("--prompt-tokens", prompt_tokens),
        _decode_modes(decode, "any" if dry_run else request.device),
    )
    require_own_folder(folder, *((say,) if dry_run else ()))
    require_no_secrets(request, Settings(prompt=settings.prompt), folder)
    base = RunPlan(
        run_id=str(uuid.uuid4()),
        request=request,
        run_dir=str(folder),
        collector="torch",
        settings=Settings(
            warmup_passes=settings.warmup_passes,
            measure_energy=settings.measure_energy,
            seed=settings.seed,
            prompt=settings.prompt,
            dtype=settings.dtype,
            attn_implementation=settings.attn_implementation,
            experts_implementation=settings.experts_implementation,
            trust_remote_code=settings.trust_remote_code,
            random_weights=settings.random_weights,
            keep_env=settings.keep_env,
        ),
        input_set=None if dry_run else _first_page(images, folder),
    )
    plan = SweepPlan(base, points, settings.window_steps, None)
    if dry_run:
        _print_plan(points, plan)
        return
    argv = redact(["dsocr-profile", *sys.argv[1:]])
    directory, plan, record = take_up(plan, settings, argv)
    work = SweepRun(directory, plan, settings, record, os.environ, say, began)
    with Interrupts() as interrupts:
        done = work.carry_out(interrupts, wait=wait)
    _print_result(done, directory, time.monotonic() - began)


def _words(flag: str, text: str) -> tuple[str, ...]:
    """The words of a list.

    Raises:
        RequestError: there is none, or an empty one.
    """
    words = tuple(word.strip() for word in text.split(","))
    if not all(words):
        raise RequestError(f"{flag} {text}: write one or more values with commas between them")
    return words


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    """The numbers of a list.

    Raises:
        RequestError: one of them is not a whole number of at least 1.
    """
    numbers = []
    for word in _words(flag, text):
        if not (word.isascii() and word.isdigit() and int(word) >= 1):
            raise RequestError(f"{flag} {text}: {word!r} is not a whole number of at least 1")
        numbers.append(int(word))
    return tuple(numbers)


def _decode_modes(text: str, device: str) -> tuple[DecodeMode, ...]:
    """The decode modes of a list.

    Args:
        text: with commas between them.
        device: where they are to run; of a dry run it does not matter.

    Raises:
        RequestError: one of them is unknown, or needs a GPU that is not used.
    """
    chosen: list[DecodeMode] = []
    for word in _words("--decode", text):
        mode = next((mode for mode in DECODE_MODES if mode == word), None)
        if mode is None:
            raise RequestError(f"--decode {text}: {word!r} is not one of {', '.join(DECODE_MODES)}")
        if mode == "cuda-graph" and device == "cpu":
            raise RequestError(f"--decode {text}: CUDA graphs need a GPU, and the device is cpu")
        chosen.append(mode)
    return tuple(chosen)


def _first_page(images: Path | None, folder: Path) -> InputSet:
    """The page that every point reads."""
    from runner.inputs.inputs import FEW_PAGES, discover, sample_set

    if images is None:
        return sample_set(folder / "page", FEW_PAGES[:1])
    pages = discover(images, rendered_into=folder / "page")
    if pages.count > 1:
        say(f"page: {pages.images[0].path}, the first of {pages.count}")
    return evolve(pages, count=1, images=pages.images[:1])


def _print_plan(points: Sequence[SweepSetting], plan: SweepPlan) -> None:
    from runner.launcher.run_directory import RunDirectory
    from runner.launcher.sweep import child_command

    for setting in points:
        tell(f"# {point_name(setting)}")
    tell_command(child_command(RunDirectory(Path(plan.base.run_dir))))


def _print_result(done: Sweep, directory: RunDirectory, seconds: float) -> None:
    """Print what the points say together; names in it are the program's own words, shown as plain text."""
    from rich.console import Console
    from rich.text import Text

    from runner.launcher.progress import duration
    from runner.process.program_log import log_text

    measured = [point for point in done.points if point.status == "measured"]
    lines = log_text(directory.log("analysis")).rstrip().splitlines()
    lines.append(f"{len(measured)} of {len(done.planned)} points measured, took {duration(seconds)}.")
    if done.unfinished_because is not None:
        lines.append(f"Unfinished: {done.unfinished_because}")
    Console(highlight=False).print(Text("\n".join(map(visible, lines))), soft_wrap=True)
