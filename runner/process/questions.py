"""Ask a profiler something and read its answer, so that no process of it goes on when nobody waits for the answer any more."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from runner.process.environment import RUN_MARK
from runner.process.process_mark import LAUNCHER_MARK, ProcessMark

__all__ = ["answer_of", "ended_when_interrupted"]

_MARK: Final = f"probe-{uuid.uuid4()}"
"""Of all that this process asks."""
_REAP_S: Final = 1.0
_KILLED_S: Final = 5.0


def answer_of(
    argv: Sequence[str], *, environ: Mapping[str, str], timeout_s: float, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program and give what it printed.

    It carries the marks that a run's programs carry: where we are killed, the next run ends what goes on.

    Args:
        argv: the program and its arguments.
        environ: its environment.
        timeout_s: what it may take; then it is killed with all of its process group.
        cwd: its working folder.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it took longer.
    """
    process = subprocess.Popen(
        argv,
        env={**environ, RUN_MARK: _MARK, LAUNCHER_MARK: str(ProcessMark.own())},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout_s)
    finally:
        if process.returncode is None:  # out of time, or interrupted
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_KILLED_S)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return subprocess.CompletedProcess(argv, process.returncode, output, errors)


@contextmanager
def ended_when_interrupted() -> Iterator[None]:
    """End on Ctrl-C or SIGTERM what threads of the body ask, else the end would wait for the answers."""
    try:
        yield
    except KeyboardInterrupt:
        from runner.process.process import reap  # brings psutil, which a machine with the analysis alone has not

        reap(_MARK, patience_s=_REAP_S)
        raise
