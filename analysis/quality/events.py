"""Do API calls, GPU rows, clocks and the profiler's own messages agree with each other?"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from analysis.attribution.attribution import Attribution
from analysis.domain.manifest import RunManifest, ran_on_cpu
from analysis.quality.findings import Finding
from analysis.sums.host_calls import GRAPH_LAUNCH, LAUNCH, HostCalls
from analysis.trace import schema
from analysis.trace.reader import Trace
from analysis.trace.records import GRAPH

__all__ = ["check"]

RECORDED_IDS: Final = 0.04
"""Share of correlation ids with a recorded call below which calls were lost. CUPTI numbers every call; nsys leaves out
some by design and records 16 to 21 % in the good captures at hand, 0.5 % in the lossy one."""
FEWEST_IDS: Final = 10_000
"""Span of ids from which the share says something."""
ORPHAN_SHARE: Final = 0.001
"""Share of GPU rows without a call above which it is no edge effect; good captures: none at all."""
CLOCK_TOLERANCE_NS: Final = 5_000
"""A kernel may seem to start this much before its launch: GPU and CPU clocks are matched, not one. In the good captures
the shortest delay is 4.5 µs after the launch."""
OTHER_THREAD_SHARE: Final = 0.01
_SHOWN: Final = 3
_PROFILER: Final = "NVIDIA Nsight Systems"

_DROPPED: Final = re.compile(r"\b(dropp(ed|ing)|lost|discard(ed|ing)?|overflow\w*|truncated)\b", re.IGNORECASE)
_NONE_DROPPED: Final = re.compile(r"(?<![\d.,])0\b(?![.,]\d)|\bno\b", re.IGNORECASE)
_HARMLESS: Final = re.compile(r"Not all .* events might have been collected")
"""Stands in good captures too: says nothing."""
_BROKEN: Final = re.compile(
    r"CUPTI.*(error|fail|unsupported|not supported|mismatch|incompatib)|might have not been started", re.I
)
_COLLECTED: Final = re.compile(r"Number of (NVTX|CUDA) events collected:\s*([\d,]+)")
_CUPTI_LIBRARY: Final = re.compile(r"libcupti\.so\.(\d+)")
_API_VERSION: Final = re.compile(rb"cu[a-zA-Z]+_v(\d+)0\d\d")
"""An entry point's version: cudaLaunchKernelExC_v11060 came with CUDA 11.6."""
_ERROR: Final = 3
_WARNING: Final = 2

_CUDA_OF_PROFILER: Final = (((2025, 3), 13), ((2022, 4), 12))
"""First release of Nsight Systems that came with a CUDA major version (component tables of the CUDA release notes)."""
_CUDA_OF_DRIVER: Final = ((580, 13), (525, 12), (450, 11))
"""First driver branch of a CUDA major version (same source)."""


def check(trace: Trace, attribution: Attribution, manifest: RunManifest | None) -> list[Finding]:
    """All checks on calls, operations, clocks and messages."""
    found: list[Finding] = []
    if not len(attribution.operations) and manifest is not None and ran_on_cpu(manifest):
        found.append(
            Finding(
                "host-times-only",
                "info",
                "host times only",
                "the run was made on a CPU under Nsight Systems, which records ranges there, but no operators",
                "use --collector torch to see operators on a CPU, or a GPU to see kernels",
            )
        )
    elif not len(attribution.operations):
        found.append(
            Finding(
                "no-gpu-work",
                "unfit",
                "no GPU operation",
                "no kernel, copy, set or graph was recorded",
                "trace CUDA (nsys profile -t cuda,nvtx) on a machine whose GPU the program uses",
            )
        )
    elif not trace.has_calls_table:
        found.append(
            Finding(
                "no-api-calls",
                "unfit",
                "no CUDA API calls",
                f"{len(attribution.operations):,} GPU operations, but no table of API calls to attribute them by",
                "export again with all tables, or capture again with -t cuda",
            )
        )
    else:
        host = HostCalls(attribution)
        found += _unanswered(attribution, host) + _orphans(attribution)
        found += _unrecorded(trace, attribution) + _foreign_threads(attribution)
    found += _collected(trace) + _messages(trace) + _versions(trace, manifest)
    found += _clocks(trace, attribution) + _whole_graphs(attribution)
    return found


def _unanswered(attribution: Attribution, host: HostCalls) -> list[Finding]:
    """Launches that own no GPU row though later ones of their thread do, and that no stream capture recorded."""
    calls = attribution.calls
    if not len(calls):
        return []
    answered = np.zeros(len(calls), dtype=bool)
    answered[attribution.owner[attribution.owner >= 0]] = True
    launch = (host.kind == LAUNCH) | (host.kind == GRAPH_LAUNCH)
    silent = launch & ~answered & ~_while_capturing(attribution)
    last = np.full(int(calls.thread.max()) + 2, -1, dtype=np.int64)
    at = np.flatnonzero(answered)
    last[calls.thread[at]] = at  # in order: the last one stays
    chosen = np.flatnonzero(silent)
    chosen = chosen[chosen < last[calls.thread[chosen]]]
    if chosen.size:
        # A runtime call and the driver call inside it may share an id: the work belongs to the first.
        process = attribution.thread_process[calls.thread]
        chosen = chosen[
            ~np.isin(_id_in_process(attribution, chosen, process), _id_in_process(attribution, at, process))
        ]
    if not chosen.size:
        return []
    names, count = np.unique(calls.name[chosen], return_counts=True)
    shown = ", ".join(
        f"{times:,} {calls.names[code]}" for code, times in zip(names[:_SHOWN], count[:_SHOWN], strict=True)
    )
    return [
        Finding(
            "launches-without-gpu-rows",
            "warning",
            f"{chosen.size:,} launches left no GPU row",
            f"{shown} of {int(launch.sum()):,} launches; later launches of the same thread did leave one",
            "capture again: kernels are missing (a launch that failed with an error looks the same)",
        )
    ]


def _id_in_process(attribution: Attribution, rows: NDArray[np.intp], process: NDArray[np.int64]) -> NDArray[np.int64]:
    """Process and correlation id of calls in one integer."""
    return (process[rows] << 40) | attribution.calls.correlation[rows].astype(np.int64)


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
    lonely = attribution.owner < 0
    if len(calls):
        lonely = lonely & (operations.start >= int(calls.start.min()))
    count = int(lonely.sum())
    if not count:
        return []
    share = count / len(operations)
    return [
        Finding(
            "gpu-rows-without-launch",
            "warning" if share > ORPHAN_SHARE else "info",
            f"{count:,} GPU operations have no API call",
            f"{share:.2%} of {len(operations):,}; they cannot be attributed and are in the row (unattributed)",
            "capture again; kernels that kernels launch have no call either",
        )
    ]


def _unrecorded(trace: Trace, attribution: Attribution) -> list[Finding]:
    """Correlation ids that were given out, against calls that were recorded."""
    calls = attribution.calls
    if not (trace.info.product or "").startswith(_PROFILER) or not len(calls):
        return []
    processes = np.unique(attribution.thread_process[attribution.thread_process >= 0]).tolist()
    process = attribution.thread_process[calls.thread] if len(processes) > 1 else None
    span = 0
    for one in processes:
        ids = calls.correlation if process is None else calls.correlation[process == one]
        if ids.size and int(ids.min()) < 0:
            ids = ids[ids >= 0]  # what has no id must not widen the span
        if ids.size:
            span += int(ids.max()) - int(ids.min()) + 1
    recorded = trace.database.last_row(schema.CALLS)
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
    with_stage = np.unique(attribution.ranges.thread[stage])
    owned = attribution.owner >= 0
    outside = owned & (attribution.operation_level("stage") < 0)
    thread = attribution.calls.thread[attribution.owner[outside]]
    elsewhere = thread[~np.isin(thread, with_stage)]
    if elsewhere.size < OTHER_THREAD_SHARE * len(attribution.operations):
        return []
    return [
        Finding(
            "launches-on-other-threads",
            "info",
            f"{elsewhere.size:,} GPU operations were launched by threads without stages",
            f"{np.unique(elsewhere).size} such threads; their work is in the row (unattributed)",
            "--cross-thread offers them to the stage that was open at that time on another thread of their process",
        )
    ]


def _collected(trace: Trace) -> list[Finding]:
    """What the profiler says that it collected, against the rows of the export."""
    said = {"NVTX": 0, "CUDA": 0}
    for _, _, text in trace.info.diagnostics:
        match = _COLLECTED.search(text)
        if match:
            said[match[1]] += int(match[2].replace(",", ""))
    # CUDA counts calls, kernels, copies and sets; synchronisations, events and whole graphs are not among them.
    tables = {
        "NVTX": (schema.NVTX,),
        "CUDA": (schema.CALLS, schema.KERNELS, schema.MEMCPYS, schema.MEMSETS),
    }
    found = []
    for kind, specs in tables.items():
        rows = sum(trace.database.last_row(spec) for spec in specs)
        if rows < said[kind]:
            found.append(
                Finding(
                    "fewer-rows-than-collected",
                    "warning",
                    f"{said[kind] - rows:,} {kind} events are not in this file",
                    f"the profiler says that it collected {said[kind]:,}, the file holds {rows:,}",
                    "export the report again, whole",
                )
            )
    return found


def _messages(trace: Trace) -> list[Finding]:
    """Messages of the profiler that matter."""
    dropped: list[str] = []
    grave: list[str] = []
    for _, severity, text in trace.info.diagnostics:
        line = " ".join(text.split())
        if _HARMLESS.search(line):
            continue
        if _DROPPED.search(line) and (severity in (_WARNING, _ERROR) or re.search(r"\d", line)):
            if not _NONE_DROPPED.search(line):
                dropped.append(line)
        elif severity == _ERROR or (severity == _WARNING and _BROKEN.search(line)):
            grave.append(line)
    found = []
    if dropped:
        found.append(
            Finding(
                "dropped-events",
                "unfit",
                "the profiler says that it dropped events",
                "; ".join(dropped[:_SHOWN]),
                "capture less at a time: fewer steps, fewer traced APIs, larger buffers",
            )
        )
    if grave:
        found.append(
            Finding(
                "profiler-errors",
                "warning",
                f"the profiler reported {len(grave)} errors",
                "; ".join(grave[:_SHOWN]),
                "see the report's diagnostics in Nsight Systems; capture again if it concerns CUDA or NVTX",
            )
        )
    return found


def _versions(trace: Trace, manifest: RunManifest | None) -> list[Finding]:
    """A profiler that is older than the driver's CUDA loses kernels and exits 0."""
    knows, because = _cuda_of_profiler(trace, manifest)
    needs, wherefore = _cuda_needed(trace, manifest)
    if knows is None or needs is None or needs <= knows:
        return []
    return [
        Finding(
            "profiler-older-than-driver",
            "warning",
            f"the profiler knows CUDA {knows}, the program ran on CUDA {needs}",
            f"{because}; {wherefore}",
            "profile with an Nsight Systems that is at least as new as the driver",
        )
    ]


def _cuda_of_profiler(trace: Trace, manifest: RunManifest | None) -> tuple[int | None, str]:
    libraries = [match for _, _, text in trace.info.diagnostics if (match := _CUPTI_LIBRARY.search(text))]
    if libraries:
        return int(libraries[-1][1]), f"it loaded {libraries[-1][0]}"
    product = trace.info.product or ""
    stated = product if product.startswith(_PROFILER) else (manifest.versions.get("nsys", "") if manifest else "")
    version = re.search(r"(\d{4})\.(\d+)", stated)
    if version is None:
        return None, ""
    release = (int(version[1]), int(version[2]))
    known = next((cuda for first, cuda in _CUDA_OF_PROFILER if release >= first), 11)
    return known, f"Nsight Systems {release[0]}.{release[1]} came with CUDA {known}"


def _cuda_needed(trace: Trace, manifest: RunManifest | None) -> tuple[int | None, str]:
    needs: int | None = None
    because = ""
    versions = manifest.versions if manifest is not None else {}
    driver = re.match(r"(\d+)", versions.get("driver", ""))
    if driver:
        needs = next((cuda for branch, cuda in _CUDA_OF_DRIVER if int(driver[1]) >= branch), None)
        because = f"driver {versions['driver']} is of CUDA {needs}"
    runtime = re.match(r"(\d+)", versions.get("cuda", ""))
    if runtime and int(runtime[1]) > (needs or 0):
        needs, because = int(runtime[1]), f"the program was built for CUDA {versions['cuda']}"
    called = [int(match[1]) for one in trace.strings.values() if (match := _API_VERSION.fullmatch(one))]
    newest = max(called, default=0)
    if newest > (needs or 0):
        needs, because = newest, f"it called entry points of CUDA {newest}"
    return needs, because


def _clocks(trace: Trace, attribution: Attribution) -> list[Finding]:
    operations, calls, ranges = attribution.operations, attribution.calls, attribution.ranges
    oddities: list[str] = []
    owned = np.flatnonzero(attribution.owner >= 0)
    if owned.size:
        lead = calls.start[attribution.owner[owned]] - operations.start[owned]
        early = int((lead > CLOCK_TOLERANCE_NS).sum())
        if early:
            oddities.append(
                f"{early:,} of {owned.size:,} GPU operations start before their launch, by up to {int(lead.max()):,} ns"
            )
    oddities += [
        f"{count:,} rows of {table} end before they start" for table, count in trace.backwards.items() if count
    ]
    duration = trace.info.duration_ns
    if duration:
        # A range that was never closed has no end of its own.
        ends = [operations.end, calls.end, ranges.end[~ranges.unclosed]]
        limit = duration + CLOCK_TOLERANCE_NS
        late = sum(int((one > limit).sum()) for one in ends if one.size and int(one.max()) > limit)
        if late:
            oddities.append(f"{late:,} events end after the session, which lasted {duration:,} ns")
    if not oddities:
        return []
    return [
        Finding(
            "clock-oddities",
            "warning",
            "times contradict each other",
            "; ".join(oddities),
            "distrust gaps and queueing delays; sums of GPU time are not concerned. Capture again after a reboot or "
            "with another clock source if it persists",
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
