"""``dsocr-profile history``: the numbers of finished runs, which outlive their folders."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

import typer

from analysis.domain.convert import moment_of, to_plain
from analysis.domain.errors import RequestError
from analysis.domain.figures import bytes_, count, counted, duration, share
from analysis.domain.names import visible
from runner.cli.options import AsJson, Out, StoreAt
from runner.cli.output import say, tell, tell_document, tell_table

if TYPE_CHECKING:
    from history.export import Format
    from history.records import RecordedRun, RunQuery, RunRow, StageRow, VerdictRow
    from history.store import Store

__all__ = ["history"]

_AGO: Final = re.compile(r"(\d+)\s*([hdw])")
_STAGES: Final = ("prefill", "mixed", "decode")
_Row = TypeVar("_Row", "StageRow", "VerdictRow")
_HOURS: Final = {"h": 1, "d": 24, "w": 7 * 24}

RunOf = Annotated[str, typer.Argument(help="Id of a run or its beginning, or `latest`.", metavar="RUN")]
OfModel = Annotated[str | None, typer.Option("--model", help="Only runs of this model.")]
OnDevice = Annotated[str | None, typer.Option("--device", help="Only runs on it: a part of the GPU's name, or cpu.")]
Since = Annotated[
    str | None, typer.Option("--since", help="Only runs since then: 2026-11-01, or 12h, 7d, 4w ago.", metavar="WHEN")
]


def _examples(*lines: str) -> str:
    return "\n\n".join(("Examples:", *lines))


history = typer.Typer(
    help="List, show, export and delete the numbers of finished runs; they outlive the runs' folders.",
    epilog=_examples("dsocr-profile history list", "dsocr-profile history show latest"),
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@history.command(
    "list", epilog=_examples("dsocr-profile history list", "dsocr-profile history list --device H100 --since 7d")
)
def list_runs(
    model: OfModel = None,
    device: OnDevice = None,
    since: Since = None,
    limit: Annotated[int, typer.Option("--limit", help="The newest of them; 0: all.", min=0)] = 50,
    out: Out = Path("reports"),
    store: StoreAt = None,
    as_json: AsJson = False,
) -> None:
    """List recorded runs, newest last: where, what, and medians per unit without the profiler."""
    opened = _open(out, store)
    runs = opened.runs(_query(model, device, since, limit or None))
    recorded = opened.recorded([run.run_id for run in runs])
    if as_json:
        plain = [{**to_plain(one_run.run), "stages": to_plain(one_run.stages)} for one_run in recorded]
        tell_document(json.dumps(plain, indent=2, ensure_ascii=False))
        return
    if not recorded:
        say(f"{opened.location.shown}: no run fits")
        return
    _print_table(
        [
            (
                "run",
                "started (UTC)",
                "status",
                "model",
                "device",
                "decode",
                "batch",
                "per unit, unprofiled",
                "end to end",
            ),
            *(_line_of(one_run) for one_run in recorded),
        ]
    )


@history.command(epilog=_examples("dsocr-profile history show latest"))
def show(run_id: RunOf, out: Out = Path("reports"), store: StoreAt = None, as_json: AsJson = False) -> None:
    """Show all that is recorded of a run, and what came of what the last run of the same work before it predicted."""
    from history.predictions import scored_run

    opened = _open(out, store)
    (recorded,) = opened.recorded([opened.find(run_id).run_id])
    scored = scored_run(opened, recorded)
    if as_json:
        plain = {**to_plain(recorded), "predictions": [to_plain(row) for row in scored]}
        tell_document(json.dumps(plain, indent=2, ensure_ascii=False))
        return
    for line in (*_lines_of(recorded), *(row.sentence for row in scored)):
        tell(line)


@history.command(
    epilog=_examples(
        "dsocr-profile history export --to samples.parquet", "dsocr-profile history export latest --format json"
    )
)
def export(
    run_ids: Annotated[
        list[str] | None,
        typer.Argument(help="Runs, by id or its beginning, or `latest`; none: all.", metavar="[RUN]..."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="File to write (default: standard output).", metavar="FILE")
    ] = None,
    kind: Annotated[
        Literal["csv", "json", "parquet"] | None,
        typer.Option("--format", help="Default: as the ending of --to says, else csv."),
    ] = None,
    model: OfModel = None,
    device: OnDevice = None,
    since: Since = None,
    out: Out = Path("reports"),
    store: StoreAt = None,
) -> None:
    """Write the raw samples – each unprofiled repetition of each stage – as one table."""
    from history.export import as_csv, as_json, rows, write_table

    chosen = kind or _format_of(to)
    if chosen == "parquet" and to is None:
        raise RequestError("--format parquet: give the file with --to")
    opened = _open(out, store)
    if run_ids:
        ids = [opened.find(run_id).run_id for run_id in run_ids]
    else:
        ids = [run.run_id for run in opened.runs(_query(model, device, since, None))]
    table = list(rows(opened.recorded(ids)))
    if to is None:
        tell_table(as_csv(table) if chosen == "csv" else as_json(table))
        return
    write_table(to, table, chosen)
    say(f"{to}: {counted(len(table), 'sample')} of {counted(len(ids), 'run')}")


@history.command(
    epilog=_examples("dsocr-profile history prune --keep 200", "dsocr-profile history prune --older-than 52w --dry-run")
)
def prune(
    keep: Annotated[int | None, typer.Option("--keep", help="Keep the newest N runs.", min=0, metavar="N")] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", help="Delete what is older; keep the rest: 2026-01-01, 90d, 52w.", metavar="WHEN"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
    model: OfModel = None,
    device: OnDevice = None,
    out: Out = Path("reports"),
    store: StoreAt = None,
) -> None:
    """Delete old runs from the history. With both rules a run stays that either of them keeps. Folders are not touched."""
    if keep is None and older_than is None:
        raise RequestError("say which runs go: --keep N, --older-than WHEN, or both")
    opened = _open(out, store)
    runs = opened.runs(_query(model, device, None, None))
    beyond = runs[: len(runs) - keep] if keep is not None else runs
    before = _moment(older_than, "--older-than") if older_than is not None else None
    # When a run of an unknown start was, is not known either: it is no reason to delete it.
    going = [run for run in beyond if before is None or (run.started_at is not None and run.started_at < before)]
    if dry_run:
        for run in going:
            tell(f"{run.run_id}  {_date(run)}  {run.model or ''}".rstrip())
        say(f"{counted(len(going), 'run')} of {len(runs)} would be deleted")
        return
    deleted = opened.delete([run.run_id for run in going])
    say(f"{opened.location.shown}: {counted(deleted, 'run')} of {len(runs)} deleted")


@history.command(
    epilog=_examples(
        "dsocr-profile history trend --stage decode",
        "dsocr-profile history trend --model deepseek-ocr --out trend.html",
    )
)
def trend(
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", help="Only this stage, such as prefill or decode; repeatable.", metavar="NAME"),
    ] = None,
    model: OfModel = None,
    device: OnDevice = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write a page, such as trend.html.", metavar="FILE", dir_okay=False)
    ] = None,
    reports: Annotated[
        Path, typer.Option("--reports", help="Folder of the runs, where the history is unless --store says else.")
    ] = Path("reports"),
    store: StoreAt = None,
    as_json: AsJson = False,
) -> None:
    """Show how times of the same work developed over the runs, and where they changed their level."""
    from runner.launcher.recording import HISTORY_FILE, STORE_VARIABLE
    from runner.process.python import import_path, module_command

    # The page is the analysis's: what draws it is there. The place goes by the environment, for it may hold a password.
    place = store or os.environ.get(STORE_VARIABLE) or str(reports / HISTORY_FILE)
    asked = [("--model", model), ("--device", device), *(("--stage", name) for name in stage or ()), ("--out", out)]
    options = [word for name, value in asked if value for word in (name, str(value))]
    options += ["--json"] if as_json else []
    command = module_command("analysis.cli", "trend", *options)
    # This process becomes it: so Ctrl-C is heard by one, and said by one.
    os.execve(command[0], command, {**os.environ, **import_path(os.environ), STORE_VARIABLE: place})


@history.command(
    "import", epilog=_examples("dsocr-profile history import reports", "dsocr-profile history import reports/*/")
)
def import_folders(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs, or folders of such folders.")],
    out: Out = Path("reports"),
    store: StoreAt = None,
) -> None:
    """Record runs whose folders are there already; what is recorded of them is brought up to date."""
    from history.folder import read_folder

    opened = _open(out, store)
    failed = done = 0
    for folder in _runs_in(folders):
        if (made := _made_of_runs(folder)) is not None:
            say(f"passed over: {folder} holds {made}, and no run")
            continue
        try:
            recorded = read_folder(folder)
        except RequestError as error:
            failed += 1
            say(f"left out: {error}")
            continue
        opened.record(recorded)
        done += 1
        tell(f"{recorded.run.run_id}  {_date(recorded.run)}  {folder}")
    say(f"{opened.location.shown}: {counted(done, 'run')} recorded")
    if failed:
        raise RequestError(f"{counted(failed, 'folder')} could not be recorded")


_MADE_OF_RUNS: Final = {
    "sweep.json": "a sweep",
    "diff.json": "a comparison",
    "gate.json": "a gate's answer",
    "ab.json": "rounds of two settings",
}
"""File → what a folder among those of runs holds, if it is no run's."""


def _made_of_runs(folder: Path) -> str | None:
    """What a folder holds that is no run and is not meant to be one; None: nothing of that kind."""
    if (folder / "run.json").is_file() or (folder / "report.json").is_file():
        return None
    return next((what for name, what in _MADE_OF_RUNS.items() if (folder / name).is_file()), None)


# -- pieces ------------------------------------------------------------------------------------------------------------


def _open(out: Path, store: str | None) -> Store:
    from history.store import Store
    from runner.launcher.recording import STORE_VARIABLE, history_of

    environ = os.environ if store is None else {**os.environ, STORE_VARIABLE: store}
    return Store(history_of(out, environ), say)


def _query(model: str | None, device: str | None, since: str | None, limit: int | None) -> RunQuery:
    from history.records import RunQuery

    moment = None if since is None else _moment(since, "--since")
    return RunQuery(model=model, device=device, since=moment, limit=limit)


def _moment(text: str, option: str) -> datetime:
    """A date, or so long ago; without a zone it is UTC, as what is printed."""
    if match := _AGO.fullmatch(text.strip()):
        try:
            return datetime.now(UTC) - timedelta(hours=int(match[1]) * _HOURS[match[2]])
        except OverflowError as error:
            raise RequestError(f"{option} {text}: is too long ago") from error
    try:
        return moment_of(text)
    except ValueError as error:
        raise RequestError(f"{option} {text}: write a date such as 2026-11-01, or 12h, 7d, 4w") from error


def _format_of(to: Path | None) -> Format:
    endings: dict[str, Format] = {".json": "json", ".parquet": "parquet", ".csv": "csv"}
    if to is None:
        return "csv"
    if to.suffix not in endings:
        raise RequestError(f"--to {to}: end it in .csv, .json or .parquet, or give --format")
    return endings[to.suffix]


def _runs_in(folders: Sequence[Path]) -> Iterator[Path]:
    """Folders of runs among those given and right below them, each once, however they are linked."""
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise RequestError(f"{folder}: is no folder")
        below = [folder] if _is_of_a_run(folder) else [path for path in sorted(folder.iterdir()) if _is_of_a_run(path)]
        for path in below or [folder]:
            if (resolved := path.resolve()) not in seen:
                seen.add(resolved)
                yield resolved


def _is_of_a_run(folder: Path) -> bool:
    return (folder / "run.json").is_file() or (folder / "report.json").is_file()


def _date(run: RunRow) -> str:
    return "n/a" if run.started_at is None else f"{run.started_at:%Y-%m-%d %H:%M}"


def _line_of(recorded: RecordedRun) -> tuple[str, ...]:
    run = recorded.run
    medians = [
        f"{stage.stage} {duration(stage.unprofiled_ns)} per {stage.per}"
        for stage in _in_order(recorded.stages)
        if stage.unprofiled_ns is not None
    ]
    at_best = "" if run.best_ns is None else f" (at best {duration(run.best_ns)})"
    return (
        run.run_id if run.kind == "trace" else run.run_id[:8],
        _date(run),
        run.status,
        run.model or "n/a",
        run.gpu_name or run.device or "n/a",
        run.decode_mode or "n/a",
        count(run.batch_size),
        ", ".join(medians) or "n/a",
        "n/a" if run.time_ns is None else f"{duration(run.time_ns)} per {run.unit}{at_best}",
    )


def _lines_of(recorded: RecordedRun) -> Iterator[str]:
    run = recorded.run
    yield f"Run {run.run_id}: {run.status}, {_date(run)} UTC"
    facts: dict[str, object] = {
        "Model": " ".join(filter(None, (run.model, run.dtype, f"{run.weights} weights" if run.weights else None))),
        "Device": " ".join(filter(None, (run.gpu_name, run.device and f"({run.device})"))),
        "Decode": run.decode_mode,
        "Batch": run.batch_size,
        "Inputs": None if run.inputs is None else f"{run.inputs}, {run.inputs_hash or 'identity n/a'}",
        "Command": run.command,
        "Commit": run.git_commit,
        "Versions": ", ".join(f"{name} {value}" for name, value in sorted((run.versions or {}).items())),
        "Error": run.error,
        "Headline": run.headline,
    }
    width = max(map(len, facts)) + 2
    yield from (f"  {f'{name}:':<{width}} {value}" for name, value in facts.items() if value not in (None, ""))
    by_stage: dict[str, list[float]] = {}
    for sample in recorded.samples:
        by_stage.setdefault(sample.stage, []).append(sample.ns_per_unit)
    for stage in _in_order(recorded.stages):
        yield f"{stage.stage}, per {stage.per or 'unit'}:"
        repeated = by_stage.pop(stage.stage, [])
        spread = f" ({_spread(repeated)})" if repeated else ""
        yield f"  without the profiler {duration(stage.unprofiled_ns)}{spread}, under it {duration(stage.profiled_ns)}"
        worker = "operators" if run.device == "cpu" else "GPU"
        yield (
            f"  {worker} busy {duration(stage.busy_ns)}, {share(stage.busy_share)} of the {stage.busy_share_base or 'n/a'} time; "
            f"MFU {share(stage.mfu)}, MBU {share(stage.mbu)}; {count(stage.launches)} launches and "
            f"{count(stage.synchronises)} waits in the capture"
        )
    for name, repeated in by_stage.items():
        yield f"{name}: {_spread(repeated)}"
    for verdict in _in_order(recorded.verdicts):
        best = "" if verdict.best_ns is None else f" At best {duration(verdict.best_ns)} per {verdict.per}."
        yield f"{verdict.stage}: {verdict.bound}. {verdict.action or ''}{best}"
    for artefact in recorded.artefacts:
        gone = "" if Path(artefact.path).is_file() else " (gone)"
        yield f"  {artefact.path}  {bytes_(artefact.bytes)}{gone}"


def _in_order(rows: Sequence[_Row]) -> list[_Row]:
    """Rows of stages as a request meets them; the database gives them by name."""
    return sorted(rows, key=lambda row: _STAGES.index(row.stage) if row.stage in _STAGES else len(_STAGES))


def _spread(repeated: Sequence[float]) -> str:
    return f"{counted(len(repeated), 'repetition')}, {duration(min(repeated))} to {duration(max(repeated))}"


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    shown = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in shown) for place in range(len(shown[0]))]
    for row in shown:
        tell("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
