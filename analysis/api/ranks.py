"""Several traces, or one with several ranks: each file is analysed by a worker of its own, and small records come together.

What leaves a worker is a report, its measurements and the columns of its collectives – never the trace. So a worker holds one
file at a time, and the process that asked holds none of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve, frozen

from analysis.api.export import PACKED, find_trace
from analysis.api.opening import OpenedTrace, opened
from analysis.api.options import AnalysisOptions
from analysis.api.workers import Workers, shared_by_fork
from analysis.domain.errors import DsocrError, RequestError, TraceError
from analysis.domain.figures import count
from analysis.ranks.names import rank_numbers, runs_among

if TYPE_CHECKING:
    from analysis.attribution.ranks import RankPlace
    from analysis.ranks.pairing import Pairs
    from analysis.ranks.records import RanksReport
    from analysis.ranks.side_by_side import RankSource
    from analysis.render.html.trace_parts import TraceParts
    from analysis.render.perfetto import Placement
    from analysis.report import Assembled, Report

__all__ = [
    "RankPart",
    "Ranks",
    "parts_of",
    "rank_files",
    "rank_part",
    "ranks_in",
    "read_ranks",
    "read_ranks_of",
    "together",
    "write_ranks",
]

_TRACES: Final = ((".sqlite",), (".nsys-rep",), tuple(f".sqlite{packed}" for packed in PACKED))
"""Endings of traces; those of one kind are looked for together, in this order."""
_NAMED: Final = 6
"""So many of several runs are named."""
_PACKETS: Final = "timeline.part"
"""A rank's part of the timeline of all, until that is written."""
_NUMBER: Final = re.compile(r"\d+")


@frozen
class RankPart:
    """One rank as its worker read it."""

    place: int
    """Among the ranks of its file."""
    path: Path
    """The export."""
    assembled: Assembled
    source: RankSource
    page: TraceParts | None = None
    """What the rank's own page shows of its trace; None: no page is wanted."""
    first_ns: int = 0
    """First moment of the trace: of an operation, a range or a call, on the clock of its file."""


@frozen
class Ranks:
    """The ranks of a run: the combined record, and each rank's own report."""

    combined: RanksReport
    reports: tuple[Report, ...]
    parts: tuple[RankPart, ...]
    pairs: Pairs
    """Of their collectives."""


# --- which files --------------------------------------------------------------------------------------------------


def rank_files(paths: Sequence[Path]) -> tuple[Path, ...]:
    """The traces to read for what the user named, in the order of the numbers in their names.

    Args:
        paths: exports, ``.nsys-rep``, run folders, or folders of traces (without a ``trace.sqlite``, all that lie in them).

    Raises:
        TraceError: there is none, or one is named twice.
        RequestError: a folder holds the traces of several runs.
    """
    files: list[Path] = []
    for path in paths:
        files += _in_folder(path) if path.is_dir() else [path]
    resolved = [file.resolve() for file in files]
    twice = next((file for place, file in enumerate(files) if file.resolve() in resolved[:place]), None)
    if twice is not None:
        raise TraceError(f"{twice}: is named twice; name each rank's trace once")
    if len(files) < 2:
        return tuple(files)
    files.sort(key=_by_numbers)
    numbers = rank_numbers([file.name for file in files])
    return tuple(file for _, file in sorted(zip(numbers, files, strict=True)))


def _in_folder(folder: Path) -> list[Path]:
    traces: list[Path] = []
    for endings in _TRACES:
        if any((folder / f"trace{ending}").is_file() for ending in endings):
            return [folder]
        traces = sorted(entry for entry in folder.iterdir() if entry.name.endswith(endings) and entry.is_file())
        if traces:
            break
    runs = runs_among([trace.name for trace in traces])
    if len(runs) > 1:
        told = ", ".join(
            f"{name or 'without a name'} ({count(len(of_run))})" for name, of_run in list(runs.items())[:_NAMED]
        )
        more = f" and {count(len(runs) - _NAMED)} more" if len(runs) > _NAMED else ""
        most = max(runs.values(), key=len)
        raise RequestError(
            f"{folder}: holds traces of {count(len(runs))} runs by their names: {told}{more}; name the traces of one, "
            f"such as {' '.join(str(folder / name) for name in most[:2])}{' …' if len(most) > 2 else ''}"
        )
    return traces if len(traces) > 1 else [folder]  # one trace or none: whoever opens it says so


def _by_numbers(path: Path) -> tuple[str, list[int], str]:
    """rank2 before rank10."""
    return _NUMBER.sub("#", path.name), [int(number) for number in _NUMBER.findall(path.name)], str(path)


# --- what a worker does -------------------------------------------------------------------------------------------


@frozen
class _Reading:
    path: Path
    options: AnalysisOptions
    formats: tuple[str, ...]


def _read(task: _Reading) -> list[RankPart]:
    """Read one file: one part per rank in it."""
    try:
        with opened(task.path, task.options) as whole:
            return parts_of(whole, task.formats)
    except DsocrError as error:
        if task.path.name in str(error):
            raise
        raise type(error)(f"{task.path}: {error}") from None  # of several files, the user must know which


def parts_of(whole: OpenedTrace, formats: Sequence[str] = ()) -> list[RankPart]:
    """The ranks of an open trace, each read.

    Args:
        whole: the trace.
        formats: in which each rank's own report will be written: some show more of the trace than the report holds.
    """
    return [rank_part(rank, number, place, formats) for number, (rank, place) in enumerate(ranks_in(whole))]


@frozen
class _Sharing:
    path: Path
    number: int
    formats: tuple[str, ...]


def _read_shared(task: _Sharing) -> RankPart:
    """Read one rank of the trace that this worker shares with the process that read the file."""
    rank, place = _rank_in(shared_by_fork(), task.number)
    return rank_part(rank, task.number, place, task.formats)


def read_ranks_of(whole: OpenedTrace, workers: Workers, formats: Sequence[str] = ()) -> list[RankPart]:
    """Read the ranks of one trace, each by a worker that shares it.

    Args:
        whole: the trace, which is read already.
        workers: `local_workers` that were given it to share.
        formats: as for `parts_of`.
    """
    from analysis.attribution.ranks import rank_places

    ranks = range(len(rank_places(whole.trace)))
    return workers.run(_read_shared, [_Sharing(whole.trace.path, number, tuple(formats)) for number in ranks])


def ranks_in(whole: OpenedTrace) -> list[tuple[OpenedTrace, RankPlace | None]]:
    """The ranks of an open trace, each as a trace of its own, and where it ran; None: no operation says.

    Args:
        whole: the trace.
    """
    from analysis.attribution.ranks import rank_places

    return [_rank_in(whole, number) for number in range(max(1, len(rank_places(whole.trace))))]


def _rank_in(whole: OpenedTrace, number: int) -> tuple[OpenedTrace, RankPlace | None]:
    from analysis.attribution.ranks import RankTrace, rank_places

    places = rank_places(whole.trace)
    if len(places) < 2:
        return whole, places[0] if places else None
    return OpenedTrace(RankTrace(whole.trace, places[number]), whole.options), places[number]


def rank_part(rank: OpenedTrace, number: int, place: RankPlace | None, formats: Sequence[str] = ()) -> RankPart:
    """Read one rank.

    Args:
        rank: its trace, open.
        number: its place among the ranks of its file.
        place: where it ran.
        formats: as for `parts_of`.
    """
    from analysis.attribution.intervals import union_ns
    from analysis.ranks.collectives import collectives_of
    from analysis.ranks.side_by_side import RankSource
    from analysis.sums.host_calls import HostCalls
    from analysis.sums.kernel_classes import load_rules
    from analysis.sums.kernels import main_device

    attribution, operations = rank.attribution, rank.attribution.operations
    host = HostCalls(attribution)
    assembled = rank.assembled(host)
    device = main_device(rank.trace.info, attribution)
    start, end = operations.start, operations.end
    page = None
    if "html" in formats:
        from analysis.render.html.trace_parts import trace_parts

        page = trace_parts(attribution, assembled.report, host=host)
    return RankPart(
        place=number,
        path=rank.trace.path,
        assembled=assembled,
        source=RankSource(
            rank=number,
            pid=place.pid if place is not None else None,
            device=place.device if place is not None else 0,
            device_name=device.name if device is not None else None,
            busy_ns=union_ns(start, end),
            span_ns=int(end.max() - start.min()) if len(operations) else 0,
            launches=int(host.launches.sum()),
            collectives=collectives_of(attribution, host, rank.trace.payloads, load_rules(rank.options.kernel_rules)),
        ),
        page=page,
        first_ns=min(
            (int(times.min()) for times in (start, attribution.ranges.start, attribution.calls.start) if times.size),
            default=0,
        ),
    )


def read_ranks(
    files: Sequence[Path], options: AnalysisOptions, workers: Workers, formats: Sequence[str] = ()
) -> list[RankPart]:
    """Read files, each by a worker of its own.

    Args:
        files: of `rank_files`.
        options: what the user states about each of them.
        workers: that do it.
        formats: of `write_ranks`.

    Raises:
        DsocrError: the first that failed, naming its file.
    """
    tasks = [_Reading(find_trace(path).absolute(), options, tuple(formats)) for path in files]
    return [part for parts in workers.run(_read, tasks) for part in parts]


def together(parts: Sequence[RankPart], *, one_clock: bool) -> Ranks:
    """Pair the ranks' collectives, judge each rank again with what that tells, and put them side by side.

    Args:
        parts: of each rank, in order.
        one_clock: all are of one file.
    """
    from analysis.ranks.pairing import lateness, pair, stage_waiting
    from analysis.ranks.side_by_side import model_ranks, rank_waits, side_by_side
    from analysis.report import judged_again, judged_alone

    numbers = rank_numbers([part.path.name for part in parts])
    sources = [evolve(part.source, rank=rank) for rank, part in zip(numbers, parts, strict=True)]
    pairs = pair([source.collectives for source in sources], one_clock=one_clock, numbers=numbers)
    spread, waiting, late = model_ranks(pairs), stage_waiting(pairs), lateness(pairs)
    reports = tuple(
        _numbered(
            judged_alone(part.assembled)
            if pairs.pairing.how == "not paired"
            else judged_again(part.assembled, rank_waits(rank, waiting, late), model_of),
            rank,
        )
        for rank, part, model_of in zip(numbers, parts, spread, strict=True)
    )
    return Ranks(side_by_side(sources, reports, pairs, spread), reports, tuple(parts), pairs)


def _numbered(report: Report, rank: int) -> Report:
    """A rank's report with its number in the rows that have a place for it."""
    return evolve(
        report,
        instances=tuple(evolve(instance, rank=rank) for instance in report.instances),
        steps=tuple(evolve(step, rank=rank) for step in report.steps),
    )


# --- writing ------------------------------------------------------------------------------------------------------


@frozen
class _Writing:
    path: Path
    place: int
    several: bool
    """Whether the file holds several ranks."""
    report: Report
    folder: Path
    formats: tuple[str, ...]
    options: AnalysisOptions
    page: TraceParts | None
    placement: Placement | None
    """In the timeline of all ranks; None: it is not wanted."""


def _write(task: _Writing) -> tuple[Path, ...]:
    """Write one rank's own report; formats that need the trace read it again."""
    from analysis.render.formats import TRACE_FORMATS, render_all, write_report

    if not set(task.formats) & set(TRACE_FORMATS):
        written = render_all(task.report, task.folder, [name for name in task.formats if name != "html"])
        if "html" in task.formats:
            from analysis.render.html.page import render

            written += render(task.report, task.folder, task.page)
        return written
    with ExitStack() as stack:
        whole = shared_by_fork()
        if whole is not None:
            rank, _ = _rank_in(whole, task.place)
        else:
            of_file = evolve(task.options, rank=task.place if task.several else None)
            rank = stack.enter_context(opened(task.path, of_file))
        written = write_report(task.report, rank.attribution, task.folder, task.formats)
        if task.placement is not None:
            from analysis.render.ranks.perfetto import write_rank_packets

            write_rank_packets(rank.attribution, task.report.metrics, task.placement, task.folder / _PACKETS)
        return written


def write_ranks(
    ranks: Ranks, out: Path, formats: Sequence[str], options: AnalysisOptions, workers: Workers
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Write each rank's own report into a sub-folder, and the timeline of all ranks if there is to be one.

    Args:
        ranks: read and judged.
        out: the folder of the combined report.
        formats: of each.
        options: that they were read with.
        workers: that do it.

    Returns:
        Files of the ranks' own reports, and those of all ranks.

    Raises:
        RequestError: the folder cannot be written to.
    """
    paths = [part.path for part in ranks.parts]
    wanted = "perfetto" in formats
    placed: Sequence[Any] = [None] * len(paths)
    if wanted:
        from analysis.render.ranks.perfetto import placements

        placed = placements(ranks.combined, [part.first_ns for part in ranks.parts])
    tasks = [
        _Writing(
            part.path,
            part.place,
            paths.count(part.path) > 1,
            report,
            (out / row.folder).absolute(),
            tuple(formats),
            options,
            part.page,
            placement,
        )
        for part, report, row, placement in zip(ranks.parts, ranks.reports, ranks.combined.ranks, placed, strict=True)
    ]
    own = tuple(path for written in workers.run(_write, tasks) for path in written)
    if not wanted:
        return own, ()
    from analysis.render.ranks.perfetto import write_ranks_timeline

    packets = [task.folder / _PACKETS for task in tasks]
    return own, (write_ranks_timeline(ranks.combined, ranks.pairs, placed, packets, out),)
