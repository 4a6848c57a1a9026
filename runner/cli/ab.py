"""``dsocr-profile ab``."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from attrs import evolve

from analysis.domain.errors import RequestError
from runner.cli.options import NoHistory, Out, StoreAt
from runner.cli.output import say, tell, tell_command

if TYPE_CHECKING:
    from runner.collectors.choosing import Choice
    from runner.launcher.ab import AbResult, PreparedSide
    from runner.launcher.setting_file import RunSetting
    from runner.plan.plan import RunPlan
    from runner.process.driver import DriverFacts

__all__ = ["ab"]

_SETTING: Final = (
    "Settings as JSON: options of run by their names, an LLMProfileRequest, or a run's folder, plan.json or run.json."
)


def ab(
    a: Annotated[Path, typer.Argument(metavar="A.json", help=_SETTING)],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="The other ones; A's again: how much noise there is.")],
    rounds: Annotated[
        int, typer.Option(help="Rounds of each side, each a process of its own, in the order A B, B A, A B …", min=2)
    ] = 4,
    capture: Annotated[
        bool,
        typer.Option("--capture/--no-capture", help="Capture each side once at the end, and compare the captures."),
    ] = True,
    out: Out = Path("reports"),
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another run holds the device.", rich_help_panel="The run")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the commands of a round and start nothing.", rich_help_panel="The run"),
    ] = False,
    no_history: NoHistory = False,
    store: StoreAt = None,
) -> None:
    """Measure two settings in turns on one device, and compare them; the same twice gives the noise of this machine."""
    from runner.launcher.ab import compare_sides, lines_of, run_in_turns
    from runner.launcher.recording import with_history
    from runner.launcher.run_directory import require_safe_place
    from runner.launcher.setting_file import read_setting
    from runner.process.driver import driver_facts
    from runner.process.program_log import log_text

    environ = with_history(os.environ, no_history=no_history, store=store)
    out = out.expanduser().absolute()
    settings = read_setting(a), read_setting(b)
    facts = driver_facts()
    if dry_run:
        require_safe_place(out, say)
        for name, setting in zip("AB", settings, strict=True):
            _print_commands(name, setting, out, facts, environ)
        return
    sides = (
        _prepared("A", settings[0], out, facts, environ, say),
        _prepared("B", settings[1], out, facts, environ, say),
    )
    folder = out / f"ab-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
    except OSError as error:
        raise RequestError(f"{folder}: cannot be made ({error.strerror}); choose another --out") from error
    result = run_in_turns(folder, sides, (a, b), environ, say, rounds=rounds, capture=capture, wait=wait)
    if capture:
        say("comparing")
        shown = log_text(compare_sides(folder, result, environ)).rstrip()
        for line in (*shown.splitlines(), ""):
            tell(line)
    else:
        for line in lines_of(result):
            tell(line)
    _print_places(folder, result)


def _prepared(
    name: str,
    setting: RunSetting,
    out: Path,
    facts: DriverFacts,
    environ: Mapping[str, str],
    say: Callable[[str], None],
) -> PreparedSide:
    """Make the folder of one side's run, as ``run`` would."""
    from runner.inputs.inputs import FEW_PAGES, discover, sample_set
    from runner.launcher.ab import PreparedSide
    from runner.launcher.launch import prepare
    from runner.launcher.run_directory import require_safe_place

    def tell(line: str) -> None:
        say(f"{name}: {line}")

    require_safe_place(out)
    plan, choice = _planned(setting, out, facts, environ, tell)
    if setting.images is not None:
        pages = discover(Path(setting.images), rendered_into=out / "rendered-pages", dpi=setting.settings.dpi)
    else:
        pages = sample_set(_generated(setting, out), *(() if setting.thorough else (FEW_PAGES,)))
    directory = prepare(evolve(plan, input_set=pages), choice, facts, environ, tell)
    for warning in directory.read_manifest().notes:
        tell(f"warning: {warning}")
    return PreparedSide("A" if name == "A" else "B", directory, choice)


def _planned(
    setting: RunSetting, out: Path, facts: DriverFacts, environ: Mapping[str, str], tell: Callable[[str], None]
) -> tuple[RunPlan, Choice]:
    """Resolve a setting, as ``run`` resolves its command line."""
    from runner.child.models.registry import (
        DEFAULT_PRESET,
        PRESETS,
        check_input_mode,
        check_tensor_parallel,
        resolve_model,
    )
    from runner.launcher.request import make_plan, make_request

    settings = setting.settings
    request = make_request(
        setting.model or DEFAULT_PRESET,
        Path(setting.images) if setting.images is not None else _generated(setting, out),
        presets=PRESETS,
        device=setting.device,
        facts=facts,
        repeats=setting.repeats,
        max_new_tokens=setting.max_new_tokens,
        use_flash_attn=settings.attn_implementation != "eager",
        say=tell,
    )
    source = resolve_model(request.model_path, random_weights=settings.random_weights)
    check_input_mode(source, settings.input_mode)
    check_tensor_parallel(source, settings.tensor_parallel)
    return make_plan(request, settings, out, environ)


def _generated(setting: RunSetting, out: Path) -> Path:
    return out / ("sample-pages" if setting.thorough else "sample-pages-3")


def _print_commands(name: str, setting: RunSetting, out: Path, facts: DriverFacts, environ: Mapping[str, str]) -> None:
    from runner.launcher.run import Run
    from runner.launcher.run_directory import RunDirectory

    plan, choice = _planned(setting, out, facts, environ, lambda line: say(f"{name}: {line}"))
    directory = RunDirectory(Path(plan.run_dir))
    collection = choice.collector.for_plan(plan, environ)
    commands = Run(directory, plan, choice.collector, collection, environ, say).commands()
    tell(f"# {name}: each round, then the capture")
    for step in ("control", "capture"):
        tell_command(commands[step])


def _print_places(folder: Path, result: AbResult) -> None:
    from runner.launcher.ab import BANDS_FILE

    tell(f"Runs: A {result.a.run_dir}")
    tell(f"      B {result.b.run_dir}")
    page = folder / "diff.html"
    if page.is_file():
        tell(f"Comparison: {page}")
    if (folder / BANDS_FILE).is_file():
        tell(f"By how much unchanged runs differ here, for --band: {folder / BANDS_FILE}")
