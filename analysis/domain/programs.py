"""Find a program of ours: in the folders that PATH names in full, and never in whatever folder one stands in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["SAFE_FOLDER", "find_program", "search_folders"]

SAFE_FOLDER = Path("/")
"""Where tools are started whose own Python takes modules from the current folder, as that of nsys 2022.4 does: root alone
can put a file there."""


def find_program(name: str, environ: Mapping[str, str]) -> str | None:
    """Give the path of a program, None if there is none.

    Args:
        name: as PATH is searched for it; one with a slash is a path itself, and becomes an absolute one.
        environ: for PATH.
    """
    if os.sep in name:
        path = shutil.which(name)
        return None if path is None else str(Path(path).absolute())
    return shutil.which(name, path=os.pathsep.join(search_folders(environ)))


def search_folders(environ: Mapping[str, str]) -> list[str]:
    """The folders of PATH without empty and relative entries, which mean the current folder or one in it."""
    return [folder for folder in environ.get("PATH", os.defpath).split(os.pathsep) if folder.startswith(os.sep)]
