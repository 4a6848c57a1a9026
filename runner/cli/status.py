"""``dsocr-profile status``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from analysis.domain.convert import to_plain
from analysis.domain.errors import RequestError
from analysis.domain.names import visible
from runner.cli.options import AsJson, Out, RunId
from runner.cli.output import tell, tell_document

if TYPE_CHECKING:
    from runner.launcher.queue import RunState

__all__ = ["status"]

_MODEL_WIDTH: Final = 20
_PIPE_COLUMNS: Final = 160


def status(
    run_id: RunId = "",
    all_runs: Annotated[bool, typer.Option("--all", help="All runs, newest first: model, time, headline.")] = False,
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
        tell_document(json.dumps(plain if all_runs else plain[0], indent=2, ensure_ascii=False))
        return
    if all_runs:
        _print_all(states)
        return
    for state in states:
        tell(f"{state.run_id}  {state.status:<11} {state.path}" + (f"  {state.error}" if state.error else ""))


def _print_all(states: list[RunState]) -> None:
    """A line per run: beginning of its id, status, model, date, how long it took, and its headline or error."""
    import shutil

    from runner.launcher.progress import duration

    width = shutil.get_terminal_size((_PIPE_COLUMNS, 24)).columns
    longest = max((len(visible(state.model or "")) for state in states), default=0)
    for state in states:
        took = "" if state.took_s is None else duration(state.took_s)
        date = "" if state.created_at is None else state.created_at[:16].replace("T", " ")
        words = visible(state.error or state.headline or "")
        model = visible(state.model or "").rpartition("/")[2][:_MODEL_WIDTH]
        run_id = visible(state.run_id)[:8]
        shown = f"{run_id}  {state.status:<11} {model:<{min(longest, _MODEL_WIDTH)}}  {date:<16} {took:>12}  {words}"
        tell(shown.rstrip() if len(shown) <= width else shown[: width - 1].rstrip() + "…")
