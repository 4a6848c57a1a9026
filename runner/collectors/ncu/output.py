"""What Nsight Compute says while it profiles: how far it is, and why it failed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from attrs import frozen

from runner.process.program_log import log_text

__all__ = ["PERMISSION_REMEDY", "Progress", "ProgressReader", "fault"]

PERMISSION_REMEDY: Final = (
    "run as root (in a container: --cap-add SYS_ADMIN), or load the driver for everybody: "
    "modprobe nvidia NVreg_RestrictProfilingToAdminUsers=0"
)

_PROFILED: Final = re.compile(
    rb'==PROF== Profiling "(?P<name>[^"\n]*)"(?: - | \()(?P<index>\d+)[^:\n]*: 0%[.%\d]*100%'
    rb" - (?P<passes>\d+) pass"
)
_CONNECTED: Final = b"==PROF== Connected to process"
_ERROR: Final = re.compile(r"==ERROR==\s*(.+)")

_KNOWN_FAULTS: Final = (
    ("ERR_NVGPUCTRPERM", f"the GPU's counters may not be read by this user; {PERMISSION_REMEDY}"),
    (
        "driver resource was unavailable",
        "another program holds the GPU's counters (DCGM, nsys with GPU metrics, another ncu); end it, or pause it with "
        "`dcgmi profile --pause`",
    ),
    (
        "InterprocessLockFailed",
        "another ncu is at work on this machine, or its lock file in the temporary folder belongs to another user",
    ),
    ("Driver could not be loaded", "there is no NVIDIA driver on this machine"),
    ("failed to connect to the CUDA driver", "there is no NVIDIA driver on this machine"),
    (
        "driver version is insufficient",
        "this ncu is newer than the driver; use the ncu that came with the driver's CUDA",
    ),
    (
        "Driver/device not supported",
        "this ncu does not know this GPU; use a newer one (--ncu)",
    ),
)
_NO_KERNELS: Final = "No kernels were profiled"


@frozen
class Progress:
    """What was profiled so far."""

    kernels: int = 0
    passes: int = 0
    """Of the last one."""
    name: str = ""
    """Of the last one, as ncu cuts it."""
    connected: bool = False
    """The program has come up under ncu."""


class ProgressReader:
    """Reads a log as it grows. ncu writes a line in pieces, so what has no end yet is read again."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = 0
        self._rest = b""
        self.progress = Progress()

    def read(self) -> Progress:
        """Read what came since the last call."""
        try:
            with self._log.open("rb") as stream:
                stream.seek(self._offset)
                fresh = stream.read()
        except OSError:
            return self.progress
        if not fresh:
            return self.progress
        self._offset += len(fresh)
        text = self._rest + fresh
        whole, _, self._rest = text.rpartition(b"\n")
        profiled = list(_PROFILED.finditer(whole))
        last = profiled[-1] if profiled else None
        self.progress = Progress(
            kernels=self.progress.kernels + len(profiled),
            passes=int(last["passes"]) if last else self.progress.passes,
            name=last["name"].decode("utf-8", "replace") if last else self.progress.name,
            connected=self.progress.connected or _CONNECTED in whole,
        )
        return self.progress


def fault(log: Path) -> str | None:
    """Why ncu profiled nothing or stopped, in one line with what to do; None: it names no error."""
    try:
        text = log_text(log)
    except OSError:
        return None
    for sign, words in _KNOWN_FAULTS:
        if sign in text:
            return words
    errors = [error.strip() for error in _ERROR.findall(text)]
    errors.sort(key=lambda error: "application returned an error code" in error)  # a consequence, not a cause
    if errors:
        return f"ncu says: {errors[0][:300]}"
    if _NO_KERNELS in text:
        return "ncu met no kernel that its filters let through"
    return None
