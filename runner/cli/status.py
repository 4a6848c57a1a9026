"""``dsocr-profile status``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from analysis.domain.convert import to_plain
from analysis.domain.errors import RequestError
from runner.cli.options import AsJson, Out

__all__ = ["status"]


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
        plain = to_plain(states)
        typer.echo(json.dumps(plain if all_runs else plain[0], indent=2, ensure_ascii=False))
        return
    for state in states:
        typer.echo(f"{state.run_id}  {state.status:<11} {state.path}" + (f"  {state.error}" if state.error else ""))
