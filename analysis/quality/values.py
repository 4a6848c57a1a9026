"""Are the values of the trace possible at all? What is not was read as not recorded; many such rows make the capture unfit."""

from __future__ import annotations

from typing import Final

from analysis.attribution.attribution import Attribution
from analysis.domain.figures import counted, duration
from analysis.quality.findings import IMPOSSIBLE_SHARE, Contradiction, Finding, severity_of
from analysis.trace import schema
from analysis.trace.launch_shapes import MOST_THREADS
from analysis.trace.reader import UNNAMED, Trace
from analysis.trace.records import KERNEL

__all__ = ["SECOND_NS", "SESSIONS", "check", "work_span"]

SESSIONS: Final = 2
"""Operations and calls that span more than so many times the session that recorded them, and a second, contradict it."""
SECOND_NS: Final = 10**9
"""By so much no clock is wrong."""

_SESSION_TOLERANCE_NS: Final = 10**6
_TIMED: Final = (schema.KERNELS, schema.MEMCPYS, schema.MEMSETS, schema.GRAPHS, schema.CALLS, schema.NVTX)
_AGAIN: Final = (
    "export the report again; if the values are in the report too, capture again, with an nsys as new as the driver"
)


def check(trace: Trace, attribution: Attribution) -> list[Finding]:
    """All checks of values."""
    return [
        *_impossible(trace),
        *_blocks(trace, attribution),
        *_nameless(trace, attribution),
        *_backwards(trace),
        *_against_session(trace, attribution),
        *_session(trace),
    ]


def _impossible(trace: Trace) -> list[Finding]:
    """Values out of their range, and names and processes that the file does not have."""
    columns = trace.impossible
    if not columns:
        return []
    too_many = any(values.of_events and values.rows > IMPOSSIBLE_SHARE * values.of for values in columns)
    evidence = []
    for values in columns:
        rows = ", ".join(f"row {row}: {value}" for row, value in values.examples)
        share = f"{values.rows:,} of {counted(values.of, 'row')}"
        evidence.append(f"{values.table}.{values.column} in {share} ({rows}), which must be {values.must}")
    return [
        Contradiction(
            "impossible-values",
            "unfit" if too_many else "warning",
            f"{counted(sum(values.rows for values in columns), 'value')} of the trace cannot be",
            "; ".join(evidence) + ". What is out of range reads as not recorded",
            _AGAIN,
        )
    ]


def _blocks(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Blocks of more threads than a device can hold, though each of their sides is possible."""
    operations = attribution.operations
    rows = int(operations.shapes.have_too_large_blocks(operations.shape).sum())
    if not rows:
        return []
    kernels = int((operations.kind == KERNEL).sum())
    threads = '"blockX" * "blockY" * "blockZ"'
    examples = trace.database.examples(schema.KERNELS, "blockX", f"{threads} > {MOST_THREADS}")
    places = ", ".join(f"row {row}" for row, _ in examples)
    return [
        Contradiction(
            "impossible-blocks",
            severity_of(rows, kernels),
            f"{counted(rows, 'kernel has', 'kernels have')} more than {MOST_THREADS:,} threads a block",
            f"{rows:,} of {counted(kernels, 'kernel')} ({places}): blockX × blockY × blockZ is more than any device takes. "
            "Block, registers and shared memory of these read as not recorded",
            _AGAIN,
        )
    ]


def _nameless(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Events whose name is a row of StringIds that holds no text, and kernels that name none."""
    database = trace.database
    empty = f'SELECT "id" FROM "{schema.STRINGS.names[0]}" WHERE coalesce("value", \'\') = \'\''
    evidence = []
    grave = False
    # Columns are looked through only where an event got the name of those that have none.
    for spec, column, what, unnamed in (
        (schema.KERNELS, "demangledName", "kernels", UNNAMED in attribution.operations.names),
        (schema.CALLS, "nameId", "calls", UNNAMED in attribution.calls.names),
        (schema.NVTX, "textId", "ranges and marks", trace.nameless_ranges),
    ):
        if not unnamed or not database.has(spec, column):
            continue
        nothing = f'"{column}" IN ({empty})'
        if spec is schema.KERNELS and database.has(spec, "shortName"):
            nothing += f' OR ("{column}" IS NULL AND "shortName" IS NULL)'
        if rows := database.rows_of(spec, nothing):
            of = database.rows_of(spec)
            places = ", ".join(f"row {row}: {value}" for row, value in database.examples(spec, column, nothing))
            evidence.append(f"{rows:,} of {of:,} {what} ({column} of {places})")
            grave |= spec is schema.KERNELS and rows > IMPOSSIBLE_SHARE * of
    if not evidence:
        return []
    return [
        Finding(
            "names-missing",
            "warning",
            "kernels have no name" if grave else "events have no name",
            f"{'; '.join(evidence)}: StringIds holds no text for these. They are called {UNNAMED}",
            "export the report again; times are not concerned, tables by name and by kernel class are",
        )
    ]


def _backwards(trace: Trace) -> list[Finding]:
    """Rows that end before they start, where they are many; few are an oddity of the clock (see `calls`)."""
    evidence = []
    for spec in _TIMED:
        rows = trace.backwards.get(spec.names[0], 0)
        if rows and rows > IMPOSSIBLE_SHARE * (of := trace.rows_read.get(spec.names[0], 0)):
            examples = trace.database.examples(spec, "end", '"end" < "start"')
            places = ", ".join(f"row {row}" for row, _ in examples)
            evidence.append(f"{rows:,} of {counted(of, 'row')} of {spec.names[0]} ({places})")
    if not evidence:
        return []
    return [
        Finding(
            "impossible-times",
            "unfit",
            "events end before they start",
            "; ".join(evidence) + f"; more than {IMPOSSIBLE_SHARE:.0%} of a table is no oddity of a clock",
            _AGAIN,
        )
    ]


def _against_session(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Operations and calls that last far longer than the session that recorded them."""
    span, session = work_span(attribution), trace.info.duration_ns
    if span is None or session is None:
        return []
    first, last = span
    if last - first <= SESSIONS * session + SECOND_NS:
        return []
    return [
        Finding(
            "times-beyond-session",
            "unfit",
            "times contradict the session",
            f"from the first operation or call ({first:,} ns) to the end of the last ({last:,} ns) {duration(last - first)} pass, "
            f"and the session lasted {duration(session)}",
            _AGAIN,
        )
    ]


def _session(trace: Trace) -> list[Finding]:
    """A session lasts from its start to its stop: in all good captures to the nanosecond."""
    said, session = trace.info.duration_ns, trace.info.session_ns
    if said is None or session is None:
        return []
    lasted = session[1] - session[0]
    if abs(lasted - said) <= _SESSION_TOLERANCE_NS + IMPOSSIBLE_SHARE * said:
        return []
    return [
        Contradiction(
            "contradictory-session",
            "warning",
            "the session's start and stop contradict its duration",
            f"{schema.ANALYSIS_DETAILS.names[0]} has a duration of {said:,} ns, and from startTime ({session[0]:,}) to stopTime "
            f"({session[1]:,}) {lasted:,} ns pass",
            "how long the capture lasted, and shares of it, cannot be trusted; export the report again",
        )
    ]


def work_span(attribution: Attribution) -> tuple[int, int] | None:
    """Start of the first operation or call and end of the last, ns; None: there is none."""
    events = [rows for rows in (attribution.operations, attribution.calls) if len(rows)]
    if not events:
        return None
    return min(int(rows.start.min()) for rows in events), max(int(rows.end.max()) for rows in events)
