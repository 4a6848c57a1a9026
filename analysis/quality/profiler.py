"""What the profiler says of itself: what it collected and dropped, its messages, its version against the driver's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from analysis.domain.figures import counted
from analysis.domain.manifest import RunManifest
from analysis.quality.findings import NSIGHT_SYSTEMS, Finding
from analysis.trace import schema
from analysis.trace.reader import Trace

__all__ = ["check"]

_SHOWN: Final = 3
_DROPPED: Final = re.compile(r"\b(dropp(ed|ing)|lost|discard(ed|ing)?|overflow\w*|truncated)\b", re.IGNORECASE)
_NONE_DROPPED: Final = re.compile(r"(?<![\d.,])0\b(?![.,]\d)|\bno\b", re.IGNORECASE)
_HARMLESS: Final = re.compile(r"Not all .* events might have been collected")
"""Stands in good captures too: says nothing."""
_BROKEN: Final = re.compile(
    r"CUPTI.*(error|fail|unsupported|not supported|mismatch|incompatib)|might have not been started", re.I
)
_NOT_STARTED: Final = re.compile("CUDA profiling might have not been started")
_NO_CUDA: Final = re.compile("No CUDA events collected")
_CUDA_USED: Final = re.compile(r"CUDA injection|libcupti|Number of CUDA events collected|CUPTI error", re.IGNORECASE)
"""Said only of a process that came as far as to use CUDA."""
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


def check(trace: Trace, manifest: RunManifest | None) -> list[Finding]:
    """All checks on the profiler's own words."""
    return _collected(trace) + _messages(trace) + _versions(trace, manifest)


def _collected(trace: Trace) -> list[Finding]:
    """What the profiler says that it collected, against the rows of the export."""
    said = {"NVTX": 0, "CUDA": 0}
    for message in trace.info.diagnostics:
        match = _COLLECTED.search(message.text)
        if match:
            said[match[1]] += int(match[2].replace(",", ""))
    # CUDA counts calls, kernels, copies and sets; synchronisations, events and whole graphs are not among them.
    tables = {
        "NVTX": (schema.NVTX,),
        "CUDA": (schema.CALLS, schema.KERNELS, schema.MEMCPYS, schema.MEMSETS),
    }
    findings = []
    for kind, specs in tables.items():
        if not said[kind]:
            continue
        # Marks and domains are NVTX events too, and are not all read.
        counts = (
            trace.database.rows_of(spec) if spec is schema.NVTX else trace.rows_read.get(spec.names[0], 0)
            for spec in specs
        )
        rows = sum(counts)
        if rows < said[kind]:
            findings.append(
                Finding(
                    "fewer-rows-than-collected",
                    "warning",
                    f"{said[kind] - rows:,} {kind} events are not in this file",
                    f"the profiler says that it collected {said[kind]:,}, the file holds {rows:,}",
                    "export the report again, whole",
                )
            )
    return findings


def _messages(trace: Trace) -> list[Finding]:
    """Messages of the profiler that matter."""
    dropped: list[str] = []
    grave: list[str] = []
    idle = _without_cuda(trace)
    for message in trace.info.diagnostics:
        severity, line = message.severity, " ".join(message.text.split())
        if _HARMLESS.search(line) or (message.process in idle and _NOT_STARTED.search(line)):
            continue
        if _DROPPED.search(line) and (severity in (_WARNING, _ERROR) or re.search(r"\d", line)):
            if not _NONE_DROPPED.search(line):
                dropped.append(line)
        elif severity == _ERROR or (severity == _WARNING and _BROKEN.search(line)):
            grave.append(line)
    findings = []
    if dropped:
        findings.append(
            Finding(
                "dropped-events",
                "unfit",
                "the profiler says that it dropped events",
                _each_once(dropped),
                "capture less at a time: fewer steps, fewer traced APIs, larger buffers",
            )
        )
    if grave:
        findings.append(
            Finding(
                "profiler-errors",
                "warning",
                f"the profiler reported {counted(len(grave), 'error')}",
                _each_once(grave),
                "see the report's diagnostics in Nsight Systems; capture again if it concerns CUDA or NVTX",
            )
        )
    return findings


def _without_cuda(trace: Trace) -> set[int]:
    """Serialised ids of the processes that used no CUDA, where another one did.

    Of every process that it followed and that made no CUDA call the profiler says that it may not have started there:
    an engine's front end, a compiler that Triton calls. Where no process has CUDA work, it may well have failed.
    """
    about: dict[int, list[str]] = {}
    for message in trace.info.diagnostics:
        if message.process is not None:
            about.setdefault(message.process, []).append(message.text)
    said = {process: "\n".join(texts) for process, texts in about.items()}
    if not any(match[1] == "CUDA" and match[2] != "0" for text in said.values() for match in _COLLECTED.finditer(text)):
        return set()
    return {process for process, text in said.items() if _NO_CUDA.search(text) and _CUDA_USED.search(text) is None}


def _each_once(lines: Sequence[str]) -> str:
    """The first different lines; one that was reported several times says how often."""
    often = list(Counter(lines).items())[:_SHOWN]
    return "; ".join(line if times == 1 else f"{line} ({times} times)" for line, times in often)


def _versions(trace: Trace, manifest: RunManifest | None) -> list[Finding]:
    """A profiler that is older than the driver's CUDA loses kernels and exits 0."""
    knows, knows_because = _cuda_of_profiler(trace, manifest)
    needs, needs_because = _cuda_needed(trace, manifest)
    if knows is None or needs is None or needs <= knows:
        return []
    return [
        Finding(
            "profiler-older-than-driver",
            "warning",
            f"the profiler knows CUDA {knows}, the program ran on CUDA {needs}",
            f"{knows_because}; {needs_because}",
            "profile with an Nsight Systems that is at least as new as the driver",
        )
    ]


def _cuda_of_profiler(trace: Trace, manifest: RunManifest | None) -> tuple[int | None, str]:
    libraries = [match for message in trace.info.diagnostics if (match := _CUPTI_LIBRARY.search(message.text))]
    if libraries:
        return int(libraries[-1][1]), f"it loaded {libraries[-1][0]}"
    product = trace.info.product or ""
    stated = product if product.startswith(NSIGHT_SYSTEMS) else (manifest.versions.get("nsys", "") if manifest else "")
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
    called = [int(match[1]) for name in trace.strings.values() if (match := _API_VERSION.fullmatch(name))]
    newest = max(called, default=0)
    if newest > (needs or 0):
        needs, because = newest, f"it called entry points of CUDA {newest}"
    return needs, because
