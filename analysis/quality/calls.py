"""Do API calls and GPU rows fit each other, in number and in time?"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.domain.figures import counted
from analysis.domain.manifest import RunManifest, ran_on_cpu
from analysis.quality.findings import IMPOSSIBLE_SHARE, NSIGHT_SYSTEMS, Contradiction, Finding, severity_of
from analysis.sums.host_calls import COPY, GRAPH_LAUNCH, SYNCHRONISE, HostCalls
from analysis.trace import schema
from analysis.trace.distinct import present
from analysis.trace.reader import Trace
from analysis.trace.records import GRAPH, KERNEL

__all__ = ["check"]

RECORDED_IDS: Final = 0.04
"""Share of correlation ids with a recorded call below which calls were lost. CUPTI numbers every call; nsys leaves out
some by design and records 16 to 21 % in the good captures at hand, 0.5 % in the lossy one."""
FEWEST_IDS: Final = 10_000
"""Span of ids from which the share says something."""
ORPHAN_SHARE: Final = 0.001
"""Share of GPU rows without a call above which it is no edge effect; good captures: none at all."""
LOST_SHARE: Final = 0.2
"""Share of GPU rows without a call, or of launches without a GPU row, above which what is left says nothing of the program."""
FEWEST_LOST: Final = 20
CLOCK_TOLERANCE_NS: Final = 5_000
"""A kernel may seem to start this much before its launch: GPU and CPU clocks are matched, not one. In the good captures
the shortest delay is 4.5 µs after the launch."""
FAR_OFF_NS: Final = 100_000
"""A kernel that seems to start this much before its launch was timed by a clock that does not fit the host's."""
FEWEST_FAR_OFF: Final = 20
"""So few say nothing of the clock."""
OTHER_THREAD_SHARE: Final = 0.01
_ID_BITS: Final = 33
"""More than a correlation id has."""
_MANY_DEVICES: Final = "MultiDevice"
"""In the names of calls that launch one kernel on each of several devices."""
_SYNCHRONISE: Final = re.compile(r"cuda(Stream|Device)Synchronize|cu(Stream|Ctx)Synchronize")
_LOOKED_AT: Final = 65_536
"""Operations that are looked at for a clock that is behind."""
_SHOWN: Final = 3

_NOT_READY: Final = 600
"""Of a query of what is still under way: no error."""
_ERRORS: Final = {
    1: "invalid value",
    2: "out of memory",
    3: "not initialised",
    4: "driver shutting down",
    9: "invalid configuration",
    98: "invalid device function",
    200: "invalid kernel image",
    209: "no kernel image for this device",
    400: "invalid resource handle",
    600: "not ready",
    700: "illegal address",
    701: "too many resources requested for launch",
    702: "launch timed out",
    710: "assertion in a kernel",
    714: "hardware stack error",
    715: "illegal instruction",
    716: "misaligned address",
    717: "invalid address space",
    718: "invalid program counter",
    719: "launch failure",
    720: "cooperative launch too large",
    721: "hardware error",
    900: "not permitted while a stream is captured",
    901: "stream capture invalidated",
    999: "unknown error",
}
"""What a launch may return, of cudaError_t (CUDA runtime API) and CUresult (driver API), which share these codes."""


def check(trace: Trace, attribution: Attribution, manifest: RunManifest | None, host: HostCalls) -> list[Finding]:
    """All checks on calls and operations."""
    findings: list[Finding] = []
    if not len(attribution.operations) and manifest is not None and ran_on_cpu(manifest):
        findings.append(
            Finding(
                "host-times-only",
                "info",
                "host times only",
                "the run was made on a CPU under Nsight Systems, which records ranges there, but no operators",
                "use --collector torch to see operators on a CPU, or a GPU to see kernels",
            )
        )
    elif not len(attribution.operations):
        findings.append(
            Finding(
                "no-gpu-work",
                "unfit",
                "no GPU operation",
                "no kernel, copy, set or graph was recorded",
                "trace CUDA (nsys profile -t cuda,nvtx) on a machine whose GPU the program uses",
            )
        )
    elif not trace.has_calls_table:
        findings.append(
            Finding(
                "no-api-calls",
                "unfit",
                "no CUDA API calls",
                f"{len(attribution.operations):,} GPU operations, but no table of API calls to attribute them by",
                "export again with all tables, or capture again with -t cuda",
            )
        )
    else:
        findings += (
            _failed(attribution, host)
            + _failed_waits(attribution, host)
            + _unanswered(attribution, host)
            + _orphans(attribution)
        )
        findings += _ambiguous(attribution) + _shared_launches(attribution, host)
        findings += _unrecorded(trace, attribution) + _foreign_threads(attribution)
    return findings + _clocks(trace, attribution) + _early_synchronises(attribution) + _whole_graphs(attribution)


def _unanswered(attribution: Attribution, host: HostCalls) -> list[Finding]:
    """Launches that own no GPU row though later ones of their thread do, and that neither failed nor were recorded only.

    A runtime call and the driver call inside it are one launch, whichever of them the work's correlation id is of.
    """
    calls = attribution.calls
    launch = host.outermost_launch
    if not (launch >= 0).any():
        return []
    own_work = np.zeros(len(calls), dtype=bool)
    launching = attribution.launch_call[attribution.launch_call >= 0]
    own_work[launching] = True
    answered = own_work.copy()
    answered[launch[launching[launch[launching] >= 0]]] = True
    silent = host.launches & ~answered & ~_while_capturing(attribution)
    last = np.full(int(calls.thread.max()) + 2, -1, dtype=np.int64)
    at = np.flatnonzero(answered)
    last[calls.thread[at]] = at  # in order: the last one stays
    chosen = np.flatnonzero(silent)
    chosen = chosen[chosen < last[calls.thread[chosen]]]
    if not chosen.size:
        return []
    return [
        Finding(
            "launches-without-gpu-rows",
            "unfit" if _too_many(chosen.size, int(host.launches.sum())) else "warning",
            f"{counted(chosen.size, 'launch', 'launches')} left no GPU row",
            f"{_counted(attribution, chosen)} of {counted(int(host.launches.sum()), 'launch', 'launches')}; "
            "none returned an error, and later launches of the same thread did leave one",
            "capture again: kernels are missing",
        )
    ]


def _too_many(rows: int, of: int) -> bool:
    """Whether so much is lost that the rest must not be used."""
    return rows >= FEWEST_LOST and rows > LOST_SHARE * of


def _most(rows: int, of: int) -> bool:
    return rows >= FEWEST_LOST and 2 * rows > of


def _failed(attribution: Attribution, host: HostCalls) -> list[Finding]:
    """Launches that returned an error: they left no GPU row because they started no work. One that has work contradicts itself."""
    chosen = np.flatnonzero(host.failed_launches)
    if not chosen.size:
        return []
    launching = attribution.launch_call[attribution.launch_call >= 0]
    outer = host.outermost_launch[launching]
    with_work = np.zeros(len(attribution.calls), dtype=bool)
    with_work[outer[outer >= 0]] = True
    idle, working = chosen[~with_work[chosen]], chosen[with_work[chosen]]
    findings: list[Finding] = []
    if idle.size:
        findings.append(
            Finding(
                "failed-launches",
                "warning",
                f"{counted(idle.size, 'launch', 'launches')} failed",
                f"{_counted(attribution, idle)} returned CUDA error {_errors(attribution, idle)}",
                "let the program check the result of its launches (CUDA_LAUNCH_BLOCKING=1 shows where): what failed did no work, "
                "and the capture is not at fault",
            )
        )
    if working.size:
        launches = int(host.launches.sum()) + chosen.size
        findings.append(
            Contradiction(
                "failed-launches-with-work",
                severity_of(working.size, launches),
                f"{counted(working.size, 'launch', 'launches')} failed and left GPU work all the same",
                f"{working.size:,} of {counted(launches, 'launch', 'launches')}: {_counted(attribution, working)} returned CUDA "
                f"error {_errors(attribution, working)}, and what fails starts no work",
                "if the program works, the results in the file are wrong: export the report again; else let it check the results "
                "of its launches (CUDA_LAUNCH_BLOCKING=1 shows where)",
            )
        )
    return findings


def _failed_waits(attribution: Attribution, host: HostCalls) -> list[Finding]:
    """Copies and synchronises that returned an error: of what the device did before, which is then not to be trusted."""
    calls = attribution.calls
    wrong = (calls.results != 0) & (calls.results != _NOT_READY)
    if not wrong.any():
        return []
    chosen = np.flatnonzero(wrong[calls.name] & np.isin(host.kind, (COPY, SYNCHRONISE)))
    if not chosen.size:
        return []
    return [
        Finding(
            "failed-calls",
            "warning",
            f"{counted(chosen.size, 'copy or synchronise', 'copies and synchronises')} failed",
            f"{_counted(attribution, chosen)} returned CUDA error {_errors(attribution, chosen)}: the program met an error, its "
            "own or of a kernel before",
            "see what the program printed, and run it with CUDA_LAUNCH_BLOCKING=1 or compute-sanitizer; what it did after the "
            "error is not its usual work",
        )
    ]


def _errors(attribution: Attribution, rows: NDArray[np.intp]) -> str:
    """Result codes of calls with their names; of several, how many calls returned each."""
    calls = attribution.calls
    codes, times = (column.tolist() for column in np.unique(calls.results[calls.name[rows]], return_counts=True))
    named = [f"{code} ({_ERRORS[code]})" if code in _ERRORS else f"{code}" for code in codes]
    if len(codes) > 1:
        named = [f"{count:,} × {words}" for words, count in zip(named, times, strict=True)]
    return ", ".join(named[:_SHOWN]) + (f" and {len(codes) - _SHOWN} more" if len(codes) > _SHOWN else "")


def _counted(attribution: Attribution, rows: NDArray[np.intp]) -> str:
    """How many calls of which name, the first few names."""
    calls = attribution.calls
    by_name: dict[str, int] = {}
    for code, times in zip(
        *(column.tolist() for column in np.unique(calls.name[rows], return_counts=True)), strict=True
    ):
        name = calls.names[code] or "unnamed call"
        by_name[name] = by_name.get(name, 0) + times
    return ", ".join(f"{times:,} {name}" for name, times in list(by_name.items())[:_SHOWN])


def _while_capturing(attribution: Attribution) -> NDArray[np.bool_]:
    """Calls between begin and end of a stream capture on their thread: what they launch is recorded, not run."""
    calls = attribution.calls
    begins = np.array(["BeginCapture" in name for name in calls.names], dtype=bool)
    ends = np.array(["EndCapture" in name for name in calls.names], dtype=bool)
    if not begins.any():
        return np.zeros(len(calls), dtype=bool)
    step = begins[calls.name].astype(np.int32) - ends[calls.name]
    level = np.cumsum(step)
    first = np.append(True, calls.thread[1:] != calls.thread[:-1])
    before = np.append(np.int32(0), level[:-1])
    start = np.maximum.accumulate(np.where(first, np.arange(len(calls)), 0))
    inside: NDArray[np.bool_] = level - before[start] > 0
    return inside


def _orphans(attribution: Attribution) -> list[Finding]:
    """GPU rows whose call is missing, but for those that were under way when the capture began."""
    operations, calls = attribution.operations, attribution.calls
    lonely = attribution.launch_call < 0
    if len(calls):
        lonely = lonely & (operations.start >= int(calls.start.min()))
    count = int(lonely.sum())
    if not count:
        return []
    share = count / len(operations)
    # What a graph launches on the device, or was launched before the capture, has no call in a whole trace.
    lost = _too_many(int(np.count_nonzero(lonely & ~operations.in_graph & (operations.kind != GRAPH))), len(operations))
    return [
        Finding(
            "gpu-rows-without-launch",
            "unfit" if lost else "warning" if share > ORPHAN_SHARE else "info",
            f"{count:,} GPU operations have no API call",
            f"{share:.2%} of {len(operations):,}; they cannot be attributed and are in the row (unattributed)",
            "capture again; kernels that kernels launch have no call either",
        )
    ]


def _ambiguous(attribution: Attribution) -> list[Finding]:
    """Operations whose correlation id is that of several calls of their process. A driver call inside a runtime call is none."""
    calls, launch = attribution.calls, attribution.launch_call
    if len(calls) < 2:
        return []
    several = len(present(attribution.thread_process[calls.thread])) > 1
    if not several and bool(np.all(calls.correlation[1:] > calls.correlation[:-1])):
        return []  # in the order in which they were given out: each is another
    ids = calls.correlation.astype(np.int64)
    if several:
        ids = np.where(ids < 0, -1, ids + ((attribution.thread_process[calls.thread] + 1) << _ID_BITS))
    order = np.lexsort((calls.start, ids))  # the first of equal ids is the one that operations are taken for
    again = np.flatnonzero((ids[order][1:] == ids[order][:-1]) & (ids[order][1:] >= 0)) + 1
    if not again.size:
        return []
    leads = np.append(True, ids[order][1:] != ids[order][:-1])
    first = order[np.maximum.accumulate(np.where(leads, np.arange(order.size), 0))[again]]
    later = order[again]
    inside = (calls.thread[later] == calls.thread[first]) & (calls.end[later] <= calls.end[first])
    apart = np.zeros(len(calls) + 1, dtype=bool)
    apart[first[~inside]] = True
    rows = int(apart[launch].sum())
    if not rows:
        return []
    example = int(np.flatnonzero(~inside & np.isin(first, launch))[0])
    names = sorted({calls.names[calls.name[call]] or "unnamed call" for call in (first[example], later[example])})
    return [
        Finding(
            "ambiguous-correlation-ids",
            severity_of(rows, len(launch)),
            f"{counted(rows, 'GPU operation')} may be of another call",
            f"{rows:,} of {counted(len(launch), 'GPU operation')} have a correlation id that several calls of their process have, "
            f"such as {int(calls.correlation[first[example]])} ({' and '.join(names)}); the call that started first was taken",
            "export the report again; what stages and modules launched is not known for these",
        )
    ]


def _shared_launches(attribution: Attribution, host: HostCalls) -> list[Finding]:
    """Kernels of which several are of one call, though it launched no graph and not several devices."""
    operations, calls, launch = attribution.operations, attribution.calls, attribution.launch_call
    if not launch.size or int(np.bincount(launch + 1)[1:].max(initial=0)) < 2:
        return []
    own = launch[(operations.kind == KERNEL) & ~operations.in_graph & (launch >= 0)]
    launched = np.bincount(own, minlength=len(calls)) if own.size else np.zeros(0, dtype=np.int64)
    calls_with_several = np.flatnonzero(launched > 1)
    calls_with_several = calls_with_several[host.kind[calls_with_several] != GRAPH_LAUNCH]
    if not calls_with_several.size:
        return []
    for_many = np.array([_MANY_DEVICES in name or not name for name in calls.names], dtype=bool)
    calls_with_several = calls_with_several[~for_many[calls.name[calls_with_several]]]
    rows = int(launched[calls_with_several].sum())
    if not rows:
        return []
    return [
        Finding(
            "kernels-share-a-launch",
            severity_of(rows, own.size),
            f"{counted(rows, 'kernel')} share a launch with another one",
            f"{rows:,} of {counted(own.size, 'kernel')} have the correlation id of another kernel, and "
            f"{counted(calls_with_several.size, 'call')} ({_counted(attribution, calls_with_several)}) launched them, each of "
            "which launches one; all were attributed to that call",
            "export the report again; what stages and modules launched is not known for these",
        )
    ]


def _unrecorded(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Correlation ids that were given out, against calls that were recorded."""
    calls = attribution.calls
    if not (trace.info.product or "").startswith(NSIGHT_SYSTEMS) or not len(calls):
        return []
    processes = present(attribution.thread_process[attribution.thread_process >= 0])
    process = attribution.thread_process[calls.thread] if len(processes) > 1 else None
    span = 0
    for code in processes:
        ids = calls.correlation if process is None else calls.correlation[process == code]
        if ids.size and int(ids.min()) < 0:
            ids = ids[ids >= 0]  # what has no id must not widen the span
        if ids.size:
            span += int(ids.max()) - int(ids.min()) + 1
    recorded = trace.rows_read.get(schema.CALLS.names[0], 0)
    if span < FEWEST_IDS or recorded >= RECORDED_IDS * span:
        return []
    return [
        Finding(
            "unrecorded-api-calls",
            "warning",
            f"only {recorded / span:.1%} of the API calls were recorded",
            f"{span:,} correlation ids were given out between the first and the last call, {recorded:,} calls are there; "
            "whole captures hold 16 % and more",
            "capture again; if the capture was paused and resumed on purpose, this is expected",
        )
    ]


def _foreign_threads(attribution: Attribution) -> list[Finding]:
    """Work that threads without a stage launched."""
    stage = attribution.is_level("stage")
    if not stage.any():
        return []
    with_stage = present(attribution.ranges.thread[stage])
    launched = attribution.launch_call >= 0
    outside = launched & (attribution.operation_level("stage") < 0)
    if (rows := int(np.count_nonzero(launched))) >= FEWEST_LOST and bool(outside[launched].all()):
        return [
            Finding(
                "stages-without-gpu-work",
                "unfit",
                "no stage launched any GPU operation",
                f"none of the {counted(rows, 'GPU operation')} was launched by a thread while one of its "
                f"{counted(int(stage.sum()), 'stage')} was open: threads or times of ranges and calls do not fit",
                "if another thread launches the work, --cross-thread gives it to the stage that was open meanwhile; "
                "else capture again",
            )
        ]
    thread = attribution.calls.thread[attribution.launch_call[outside]]
    elsewhere = thread[~np.isin(thread, with_stage)]
    if elsewhere.size < OTHER_THREAD_SHARE * len(attribution.operations):
        return []
    return [
        Finding(
            "launches-on-other-threads",
            "warning" if _most(elsewhere.size, len(attribution.operations)) else "info",
            f"{elsewhere.size:,} GPU operations were launched by threads without stages",
            f"{np.unique(elsewhere).size} such threads; their work is in the row (unattributed)",
            "--cross-thread offers them to the stage that was open at that time on another thread of their process",
        )
    ]


def _clocks(trace: Trace, attribution: Attribution) -> list[Finding]:
    operations, calls, ranges = attribution.operations, attribution.calls, attribution.ranges
    oddities: list[str] = []
    far_off = False
    launched = np.flatnonzero(attribution.launch_call >= 0)
    if launched.size:
        lead = calls.start[attribution.launch_call[launched]] - operations.start[launched]
        early = int((lead > CLOCK_TOLERANCE_NS).sum())
        far_off = early > 0 and int((lead > FAR_OFF_NS).sum()) > max(FEWEST_FAR_OFF, IMPOSSIBLE_SHARE * launched.size)
        if early:
            oddities.append(
                f"{early:,} of {launched.size:,} GPU operations start before their launch, by up to {int(lead.max()):,} ns"
            )
    oddities += [
        f"{count:,} rows of {table} end before they start" for table, count in trace.backwards.items() if count
    ]
    duration = trace.info.duration_ns
    if duration is not None:
        # A range that was never closed has no end of its own.
        ends = [operations.end, calls.end, ranges.end[~ranges.unclosed]]
        limit = duration + CLOCK_TOLERANCE_NS
        late = sum(int((end > limit).sum()) for end in ends if end.size and int(end.max()) > limit)
        if late:
            oddities.append(f"{late:,} events end after the session, which lasted {duration:,} ns")
    if not oddities:
        return []
    return [
        Contradiction(
            "clock-oddities",
            "unfit" if far_off else "warning",
            "times contradict each other",
            "; ".join(oddities),
            "distrust gaps and queueing delays; sums of GPU time are not concerned. Capture again after a reboot or "
            "with another clock source if it persists",
        )
    ]


def _early_synchronises(attribution: Attribution) -> list[Finding]:
    """Synchronises that return while the GPU still works on what was launched before them: its clock is behind the host's.

    Looked at in processes all of whose work is on one stream, which is then what most synchronises wait for.
    """
    operations, calls, launch = attribution.operations, attribution.calls, attribution.launch_call
    waits = np.array([_SYNCHRONISE.match(name) is not None for name in calls.names] or [False], dtype=bool)
    rows = np.flatnonzero(waits[calls.name])
    if rows.size < FEWEST_FAR_OFF or not launch.size or operations.stream.min() != operations.stream.max():
        return []
    if len(present(operations.process)) > 1 or operations.device.min() != operations.device.max():
        return []
    # Some of the operations do: a clock that is off is off for all.
    some = np.arange(0, launch.size, max(1, launch.size // _LOOKED_AT))
    some = some[launch[some] >= 0]
    if not some.size:
        return []
    launched = calls.end[launch[some]]
    order = np.argsort(launched, kind="stable")
    latest = np.maximum.accumulate(operations.end[some][order])
    before = np.searchsorted(launched[order], calls.start[rows], side="right") - 1
    early = (before >= 0) & (latest[np.maximum(before, 0)] > calls.end[rows] + FAR_OFF_NS)
    number = int(np.count_nonzero(early))
    if number < FEWEST_FAR_OFF or 2 * number <= rows.size:
        return []
    return [
        Finding(
            "synchronises-return-early",
            "unfit",
            "synchronises return before the GPU has done",
            f"{number:,} of {counted(rows.size, 'synchronise')} return more than {FAR_OFF_NS // 1000} µs before work ends that was "
            "launched before them, on the only stream that there is: the GPU's clock does not fit the host's",
            "distrust gaps, delays and times from launch to end; capture again after a reboot or with another clock source",
        )
    ]


def _whole_graphs(attribution: Attribution) -> list[Finding]:
    graphs = int((attribution.operations.kind == GRAPH).sum())
    if not graphs:
        return []
    return [
        Finding(
            "whole-graphs",
            "info",
            f"{graphs:,} CUDA graph launches were traced as a whole",
            "each is one operation with its time; the kernels inside are invisible, and no table counts them",
            "capture with --cuda-graph-trace=node (dsocr-profile's preset cuda-graph-nodes) to see them; it costs time "
            "per kernel",
        )
    ]
