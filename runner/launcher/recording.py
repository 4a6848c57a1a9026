"""A finished run goes into the history: ``history.sqlite`` beside the run folders, or where ``--store`` says.

Before its report is made, the history tells what the last run of the same work predicted.

SQLAlchemy and Alembic are imported when a run is over, not before: a run starts as quickly as without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from analysis.domain.errors import DsocrError, RequestError
from runner.launcher.run_directory import RunDirectory

if TYPE_CHECKING:
    from analysis.domain.manifest import RunManifest
    from analysis.domain.predictions import Prediction
    from history.location import Location

__all__ = [
    "HISTORY_FILE",
    "HISTORY_VARIABLE",
    "STORE_VARIABLE",
    "earlier_predictions",
    "history_of",
    "record_run",
    "with_history",
]

HISTORY_FILE: Final = "history.sqlite"
HISTORY_VARIABLE: Final = "DSOCR_HISTORY"
"""``off``: runs are not recorded."""
STORE_VARIABLE: Final = "DSOCR_STORE"
"""Path or URL of the history."""
_OFF: Final = frozenset({"off", "0", "no", "false"})
_ON: Final = frozenset({"", "on", "1", "yes", "true"})


def with_history(environ: Mapping[str, str], *, no_history: bool, store: str | None) -> Mapping[str, str]:
    """Put a command's options into the environment that a run, and the background process of ``submit``, is given.

    Raises:
        RequestError: the store is no path or URL of a history, or the variable says neither on nor off.
    """
    environ = {
        **environ,
        **({HISTORY_VARIABLE: "off"} if no_history else {}),
        **({} if store is None else {STORE_VARIABLE: store}),
    }
    if _is_on(environ) and environ.get(STORE_VARIABLE):
        history_of(Path(), environ)  # a fault in it is told before the run, not after
    return environ


def history_of(out: Path, environ: Mapping[str, str]) -> Location:
    """Where the history of the runs of a folder is.

    Raises:
        RequestError: the store is no path or URL of a history.
    """
    from history.location import locate

    return locate(environ.get(STORE_VARIABLE) or str(out / HISTORY_FILE))


def earlier_predictions(
    directory: RunDirectory, manifest: RunManifest, environ: Mapping[str, str], say: Callable[[str], None]
) -> tuple[Prediction, ...]:
    """What the last recorded run of the same work before this one predicted. What goes wrong is one warning.

    Args:
        directory: of the run; the history lies beside it, unless the environment names another place.
        manifest: of the run, after its control run.
        environ: the launcher's environment.
        say: takes one line for the user.
    """
    try:
        if not _is_on(environ):
            return ()
        location = history_of(directory.path.parent, environ)
        if location.path is not None and not location.path.exists():
            return ()
        from history.folder import run_of
        from history.predictions import predictions_for
        from history.store import Store

        return predictions_for(Store(location, say), run_of(manifest))
    except DsocrError as error:
        say(f"warning: what earlier runs predicted is not known: {error}")
    except ModuleNotFoundError as error:  # as in `record_run`
        say(
            f"warning: what earlier runs predicted is not known: {error.name} is not installed (pip install dsocr-profiler)"
        )
    return ()


def record_run(directory: RunDirectory, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Record a run whose report is made. What goes wrong is one warning: the run itself is done."""
    try:
        if not _is_on(environ):
            return
        location = history_of(directory.path.parent, environ)
        from history.folder import read_folder
        from history.store import Store

        begins = location.path is not None and not location.path.exists()
        Store(location, say).record(read_folder(directory.path))
        if begins:
            say(f"history: numbers of every run are kept in {location.shown} (--no-history leaves a run out)")
    except DsocrError as error:
        say(f"warning: this run is not in the history: {error}")
    except ModuleNotFoundError as error:  # the sources were brought up to date, and what they need was not
        say(f"warning: this run is not in the history: {error.name} is not installed (pip install dsocr-profiler)")


def _is_on(environ: Mapping[str, str]) -> bool:
    value = environ.get(HISTORY_VARIABLE, "").lower()
    if value not in _OFF | _ON:
        raise RequestError(f"{HISTORY_VARIABLE}={value}: write on or off")
    return value in _ON
