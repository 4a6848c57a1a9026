"""Find a program of ours: in the folders that PATH names in full, and never in whatever folder one stands in."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from analysis.domain.system_errors import reason_of

__all__ = ["NOT_THERE", "SAFE_FOLDER", "find_program", "is_program", "search_folders", "why_no_program"]

SAFE_FOLDER = Path("/")
"""Where tools are started whose own Python takes modules from the current folder, as that of nsys 2022.4 does: root alone
can put a file there."""
NOT_THERE: Final = "no such program"


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


def is_program(path: Path) -> bool:
    """Whether a path is a file that can be executed. One in a folder that may not be entered is none, as to a shell."""
    try:
        return path.is_file() and os.access(path, os.X_OK)
    except OSError:
        return False


def why_no_program(name: str, folders: Iterable[str]) -> str | None:
    """Say why a name cannot be started, in words that go on after it; None: it can.

    Args:
        name: of a program, as a shell takes it: one with a slash is a path.
        folders: in which one without a slash is looked for.
    """
    if not name:
        return "the name of the program is empty"
    paths = [name] if os.sep in name else [f"{folder or os.curdir}/{name}" for folder in folders]
    faults = [fault for path in paths if (fault := _why_not_started(path)) != NOT_THERE]
    if None in faults:
        return None
    return next((fault for fault in faults if fault), NOT_THERE)


def _why_not_started(path: str) -> str | None:
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return NOT_THERE
    except OSError as error:
        return f"cannot be looked at ({reason_of(error)})"
    except ValueError:  # a NUL byte
        return NOT_THERE
    if stat.S_ISDIR(mode):
        return "is a folder and no program"
    if not stat.S_ISREG(mode):
        return "is no file"
    if not os.access(path, os.X_OK):
        return (
            "is there and not executable: chmod +x it if it is a program, or put what runs it in front, such as python3"
        )
    return None


def search_folders(environ: Mapping[str, str]) -> list[str]:
    """The folders of PATH without empty and relative entries, which mean the current folder or one in it."""
    return [folder for folder in environ.get("PATH", os.defpath).split(os.pathsep) if folder.startswith(os.sep)]
