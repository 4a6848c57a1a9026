"""A private view of the machine's processes for nsys.

nsys stores the environment of *every* process that it may read in ``/proc`` (seen with 2022.4 and 2025.3): the shell that started
the run, an editor, a notebook – not only that of the program it profiles. An allow-list for the child does not help
against that. In a PID namespace with its own ``/proc`` nsys sees nothing but what it started itself.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Final

from analysis.domain.programs import find_program

__all__ = ["namespace_prefix"]

_TRY_TIMEOUT_S: Final = 20.0


def namespace_prefix(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Give the command that starts a program in a PID namespace of its own, or ``()`` where the system forbids it.

    Root makes the namespace directly, so that it keeps the right to read GPU counters; others go through a user
    namespace, in which they stay who they are. Each way is tried on ``true`` first.
    """
    unshare = find_program("unshare", environ)
    true = find_program("true", environ)
    if unshare is None or true is None:
        return ()
    common = ("--pid", "--fork", "--kill-child", "--mount-proc")
    as_user = (unshare, "--user", "--map-current-user", *common)
    for prefix in ([(unshare, *common)] if os.geteuid() == 0 else []) + [as_user]:
        try:
            done = subprocess.run(
                [*prefix, true], env=dict(environ), capture_output=True, timeout=_TRY_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return prefix
    return ()
