"""A private view of the machine's processes for nsys.

nsys stores the environment of *every* process that it may read in ``/proc`` (seen with 2022.4 and 2025.3): the shell that started
the run, an editor, a notebook – not only that of the program it profiles. An allow-list for the child does not help
against that. In a PID namespace with its own ``/proc`` nsys sees nothing but what it started itself.

Process ids begin at 1 in each such namespace, and nsys names what its parts share in ``/dev/shm`` by its process ids
(``quadd-agent-instance-8``): of two that start at the same moment, each in its own namespace, both fail or hang (2022.4:
7 of 8 starts). So each namespace counts from a number of its own.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from analysis.domain.programs import find_program

__all__ = ["namespace_prefix"]

_TRY_TIMEOUT_S: Final = 20.0
_LOWEST: Final = 300
"""To which process ids go back when they have reached the highest."""
_DEFAULT_HIGHEST: Final = 32768
_COUNT_FROM: Final = '{{ echo {first} > /proc/sys/kernel/ns_last_pid; }} 2>/dev/null; exec "$@"'
"""Where that may not be written to, processes are counted from 1 and all the rest is the same."""


def namespace_prefix(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Give the command that starts a program in a PID namespace of its own, or ``()`` where the system forbids it.

    Root makes the namespace directly, so that it keeps the right to read GPU counters; others go through a user
    namespace, in which they stay who they are. Each way is tried on ``true`` first. Process ids in it begin at random.
    """
    programs = {name: find_program(name, environ) for name in ("unshare", "true", "sh", "setpriv")}
    unshare, true, shell, setpriv = programs.values()
    if unshare is None or true is None:
        return ()
    common = ("--pid", "--fork", "--kill-child", "--mount-proc")
    as_user = (unshare, "--user", "--map-current-user")
    counting = () if shell is None else (shell, "-c", _COUNT_FROM.format(first=_first_process_id()), "sh")
    ways: list[tuple[str, ...]] = [(unshare, *common, *counting)] if os.geteuid() == 0 else []
    if counting and setpriv is not None:  # the right to set the number is given up again before the program starts
        ways.append((*as_user, "--keep-caps", *common, *counting, setpriv, "--ambient-caps=-all", "--inh-caps=-all"))
    for prefix in (*ways, (*as_user, *common)):
        try:
            done = subprocess.run(
                [*prefix, true], env=dict(environ), capture_output=True, timeout=_TRY_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return prefix
    return ()


def _first_process_id() -> int:
    try:
        highest = int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii"))
    except (OSError, ValueError):
        highest = _DEFAULT_HIGHEST
    return random.randrange(_LOWEST, max(highest, 2 * _LOWEST))
