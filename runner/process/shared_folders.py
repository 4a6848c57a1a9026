"""Who else could put another folder in the place of ours: those who may rename what is in a folder above it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from runner.process.lock import user_name

__all__ = ["SharedFolder", "shared_folders"]

_MOST_LINKS: Final = 40
"""As many as Linux follows in one path."""


@frozen
class SharedFolder:
    """A folder on the way to ours in which others may rename."""

    path: Path
    who: str
    """In words, such as ``user alice``."""
    everybody: bool
    """Anybody on this machine may."""


def shared_folders(path: Path) -> tuple[SharedFolder, ...]:
    """Find the folders on the way to a path, itself included, in which somebody else may rename; the outermost first.

    Root may everywhere. Members of the user's own primary group count as the user: it is a group of one where a umask
    of 002 is usual. In a folder with the sticky bit, such as ``/tmp``, only its owner may rename what is another's.

    Args:
        path: absolute; links on the way are followed, and what is not there yet is left out.
    """
    by_path: dict[Path, SharedFolder] = {}
    for folder in _on_the_way(path, _MOST_LINKS):
        try:
            facts = folder.lstat()
        except OSError:
            continue
        if not stat.S_ISDIR(facts.st_mode):
            continue
        shared = _shared(folder, facts)
        if shared is not None:
            by_path.setdefault(folder, shared)
    return tuple(by_path.values())


def _shared(folder: Path, facts: os.stat_result) -> SharedFolder | None:
    sticky = bool(facts.st_mode & stat.S_ISVTX)
    if facts.st_mode & stat.S_IWOTH and not sticky:
        return SharedFolder(folder, "everybody", everybody=True)
    if facts.st_uid not in (0, os.geteuid()):
        return SharedFolder(folder, user_name(facts.st_uid), everybody=False)
    if facts.st_mode & stat.S_IWGRP and not sticky and facts.st_gid not in (0, os.getegid()):
        return SharedFolder(folder, f"the members of {_group_name(facts.st_gid)}", everybody=False)
    return None


def _on_the_way(path: Path, links: int) -> Iterator[Path]:
    """Every folder by which the path is reached; of a link also those by which its target is."""
    for folder in (*reversed(path.parents), path):
        if links and folder.is_symlink():
            try:
                target = folder.parent / folder.readlink()
            except OSError:
                continue
            yield from _on_the_way(Path(os.path.normpath(target)), links - 1)
        yield folder


def _group_name(group: int) -> str:
    import grp

    try:
        return f"group {grp.getgrgid(group).gr_name}"
    except KeyError:
        return f"group {group}"
