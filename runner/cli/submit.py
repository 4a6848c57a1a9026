"""``dsocr-profile submit``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from analysis.domain.contracts import LLMProfileRequest
from analysis.domain.convert import from_json_file, to_json
from runner.cli.options import NoHistory, Out, StoreAt, with_settings
from runner.cli.output import say, tell_document
from runner.plan.settings import Settings

__all__ = ["submit"]


@with_settings()
def submit(
    request_file: Annotated[Path, typer.Argument(help="An LLMProfileRequest as JSON.")],
    out: Out = Path("reports"),
    no_history: NoHistory = False,
    store: StoreAt = None,
    *,
    settings: Settings,
) -> None:
    """Queue a run in the background; prints an LLMProfileAccepted as JSON."""
    from runner.child.models.registry import check_input_mode, check_tensor_parallel, resolve_model
    from runner.inputs.inputs import discover
    from runner.launcher.launch import prepare
    from runner.launcher.queue import submit as submit_run
    from runner.launcher.recording import with_history
    from runner.launcher.request import make_plan, require_device, require_no_secrets
    from runner.launcher.run_directory import require_safe_place
    from runner.process.driver import driver_facts

    environ = with_history(os.environ, no_history=no_history, store=store)
    request = from_json_file(LLMProfileRequest, request_file)
    facts = driver_facts()
    require_device(request.device, facts, where=f"{request_file}: $.device: ")
    require_no_secrets(request, settings, out)
    source = resolve_model(request.model_path, random_weights=settings.random_weights)
    check_input_mode(source, settings.input_mode)
    check_tensor_parallel(source, settings.tensor_parallel)
    require_safe_place(out.expanduser().absolute())
    pages = discover(Path(request.input_dir), rendered_into=out / "rendered-pages", dpi=settings.dpi)
    plan, choice = make_plan(request, settings, out, os.environ, input_set=pages)
    directory = prepare(plan, choice, facts, os.environ, say)
    tell_document(to_json(submit_run(directory, environ)))
