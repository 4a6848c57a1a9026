"""What nsys prints of its own between a program's words: both are in one log.

Read from logs of nsys 2022.4 and 2025.3, from the texts of the programs themselves, and, where 2025.3 tells the same in its
traces, from their table of diagnostics. A line of another version that is not known is taken for the program's.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["failure_words", "is_of_nsys", "without_inserted"]

_WARNINGS: Final = (
    "--cuda-graph-trace=",
    "CPU IP/backtrace sampling",
    "CPU sampling",
    "CPU context switch",
    "The command line includes a target application",
    "Device-side CUDA Event completion trace",
    "CUDA tracing",
    "CUDA backtrace",
    "Backtrace ",
    "Some of the requested",
    "The target application",
    "This switch is no longer supported",
)
"""What follows its ``WARNING: ``."""
_PROGRESS: Final = (
    "Generating '",
    "Generated:",
    "Collecting data",
    "Processing ",
    "Exporting ",
    "Importing...",
    "Capture range ",
    "SKIPPED: ",
    "Saving report to file",
    "Saved report file to",
    "Report file saved",
    "Try the 'nsys ",
    "Try 'nsys ",
    "usage: nsys ",
    "Use the `--wait` option to modify this behavior",
    "Waiting for termination of re-parented processes",
    "The target application terminated",
    "The target application returned non-zero exit code",
    "This may increase runtime overhead and the likelihood of false",
    "dependencies across CUDA Streams. If you wish to avoid this, please",
    "disable the feature with --cuda-event-trace=false",
)
_DIAGNOSTICS: Final = (
    "Process was launched by the profiler, see ",
    "Common injection library initialized",
    "NVTX injection initialized",
    "CUDA injection initialized",
    "CUDA profiling might have not been started",
    "Loaded CUPTI library: ",
    "Enabling trace for device graph launch",
    "Buffers holding CUDA trace data will be flushed",
    "Profiling has started",
    "Profiling has stopped",
    "Profiling started due to ",
    "Not all NVTX events might have been collected",
    "Not all CUDA events might have been collected",
    "No NVTX events collected",
    "No CUDA events collected",
    "Number of NVTX events collected",
    "Number of CUDA events collected",
    "Number of CUPTI events produced",
    "Number of GPU Metrics events collected",
    "GPU Metrics [",
)
_FAILURES: Final = re.compile(
    r"Agent launcher failed|Connection to the Agent lost|Invalid truncate size"
    r"|FATAL ERROR: (?=.*(QuadD|Throw location unknown))|Dynamic exception type: boost::|std::exception::what: "
    r"|\[(QuadD|boost::)[\w:*]+\] = |boost::process::process_error|State transition is not allowed"
    r"|/build/agent/work/|.*is canceled because the timeout period is expired|Importer error status: "
    r"|Unable to retrieve the importer version"
)
_LESS: Final = ("FATAL ERROR: ", "Dynamic exception type: ", "/build/agent/work/")
"""Of a failure's lines those that say where in nsys it was: the others say what."""
_INSERTED: Final = re.compile(r"Generating '[^'\n]*\.qdstrm'|\[\d+/\d+\] \[[=\d% ]*\][^\n]*")
"""Begun by nsys wherever the program's last line ends, also where that has no end of line."""
_KNOWN: Final = re.compile(
    "|".join(
        (
            f"WARNING: ({'|'.join(map(re.escape, _WARNINGS))})",
            *map(re.escape, (*_PROGRESS, *_DIAGNOSTICS)),
            r"\[\d+/\d+\] \[",
            r"/\S*\.(nsys-rep|qdstrm)$",
        )
    )
)


def is_of_nsys(line: str) -> bool:
    """Whether nsys prints such a line itself, by how it begins."""
    return bool(_KNOWN.match(line) or _FAILURES.match(line))


def without_inserted(text: str) -> str:
    """A log's text with what nsys prints in the middle of a line on lines of its own taken out."""
    return _INSERTED.sub("\n", text)


def failure_words(lines: list[str]) -> str | None:
    """What nsys says of its own failure, among the lines of a log; None: nothing."""
    failures = [line for line in lines if _FAILURES.match(line)]
    words = [line for line in failures if not line.startswith(_LESS) or "canceled because" in line] or failures
    return "; ".join(dict.fromkeys(words)) or None
