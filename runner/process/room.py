"""Room on the disks that a run writes to, looked at while it goes on: what nsys says of a full one is nothing, or riddles."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from analysis.domain.system_errors import DISK_FULL, has_little_room

__all__ = ["RoomWatch", "little_room_warning"]

_COMFORTABLE_BYTES: Final = 1 << 30
"""A capture of 64 tokens takes some 10 MB, one of a server's minutes some hundred; its export several times as much."""


class RoomWatch:
    """Remembers whether a disk was full at any moment: when the program is over its temporary files are gone again."""

    def __init__(self, folders: tuple[Path, ...], also: Callable[[], None] | None = None) -> None:
        """Watch these folders.

        Args:
            folders: that are written to.
            also: called with each look.
        """
        self.full: Path | None = None
        """The first folder that was seen to have no room."""
        self._folders = folders
        self._also = also

    def look(self) -> None:
        """Look at them now."""
        if self.full is None:
            self.full = next((folder for folder in self._folders if has_little_room(folder)), None)
        if self._also is not None:
            self._also()

    def words(self) -> str | None:
        """Say which disk was full, and what to do; None: none was."""
        if self.full is None:
            return None
        return f"{DISK_FULL} under {self.full}; free space, then run it again"


def little_room_warning(folder: Path) -> str | None:
    """Say how little room there is for a run's files before it starts; None: there is enough, or it cannot be told."""
    for place in (folder, *folder.parents):
        try:
            room = os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        free = room.f_bavail * room.f_frsize
        if free >= _COMFORTABLE_BYTES:
            return None
        return (
            f"{place}: only {free / 2**20:,.0f} MiB are free there; a capture and its export may need "
            f"{_COMFORTABLE_BYTES / 2**30:.0f} GiB"
        )
    return None
