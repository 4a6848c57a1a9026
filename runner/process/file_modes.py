"""Who may read what a run writes: nobody but its user, from the first byte; and that a crash leaves no image of memory.

A run's files hold prompts, paths and what a program printed. The file mode mask of the process, which every program that it
starts inherits, is the one place that all of them go through: reports, logs, databases of SQLite, torch's files. nsys is
different: it starts its program with the mask 0 (seen with 2022.4 and 2025.3), so that everybody could write that
program's files. So a shell sets the mask between the two, and then becomes the program.

A core file holds all that a process knew: the environment of the launcher, prompts, weights. It lies where the process
happened to be, and not in the run's folder, where somebody would look for it.
"""

from __future__ import annotations

import os
import resource
from typing import Final

__all__ = ["PRIVATE", "keep_files_private", "leave_no_core_files", "umask_prefix", "users_umask"]

PRIVATE: Final = 0o077
"""The mask that leaves files to their owner."""

_users: list[int] = []
"""The mask that the process was started with, once it is another."""


def keep_files_private() -> None:
    """From here on what this process and its programs write is for its user alone."""
    before = os.umask(PRIVATE)
    if not _users:
        _users.append(before)


def leave_no_core_files() -> None:
    """From here on neither this process nor its programs leave a core file; a program that wants one can still ask for it."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))


def users_umask() -> int:
    """The user's own mask, for programs of his that are no part of ours; -1, which leaves it as it is: it was not changed."""
    return _users[0] if _users else -1


def umask_prefix(mask: int, folder: str) -> tuple[str, ...]:
    """Give what to put in front of a program so that it starts with a mask, in a folder. No process is added."""
    return ("/bin/sh", "-c", 'umask "$0" && cd -- "$1" && unset OLDPWD && shift && exec "$@"', f"{mask:04o}", folder)
