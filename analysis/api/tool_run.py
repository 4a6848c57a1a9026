"""Run a profiler's own tool, such as ``nsys export``, to its end: for so long at most, and with all that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from analysis.domain.programs import find_program

__all__ = ["run_tool"]

_KILLED_S: Final = 10.0


def run_tool(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    timeout_s: float,
    output: IO[bytes] | None = None,
    folder: Path | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run it in a process group of its own, of which nothing is left when we are interrupted or it takes too long.

    Where we are killed, the kernel kills it.

    Args:
        argv: the tool and its arguments.
        environ: its whole environment.
        timeout_s: how long it may take.
        folder: in which it is started; None: the current one.
        output: takes its standard output; None: it is in the result.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    process = subprocess.Popen(
        [*_dying_with_us(environ), *argv],
        env=dict(environ),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if output is None else output,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    ended = False
    try:
        said, errors = process.communicate(timeout=timeout_s)
        ended = True
    finally:  # Ctrl-C too may come anywhere
        if not ended:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_KILLED_S)
    return subprocess.CompletedProcess(list(argv), process.returncode, said or b"", errors or b"")


def _dying_with_us(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What starts a program so that SIGKILL of its parent is its own too (prctl(2), ``PR_SET_PDEATHSIG``).

    A program of util-linux, and no function between fork and exec: other threads may hold locks at the fork. A system
    without it does without.
    """
    setpriv = find_program("setpriv", environ)
    return () if setpriv is None else (setpriv, "--pdeathsig", "KILL", "--")
