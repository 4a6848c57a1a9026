"""Files that are there in full or not at all: the one way in which both packages write a whole file."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from attrs import frozen

from analysis.domain.errors import DsocrError, RequestError
from analysis.domain.system_errors import is_disk_full, reason_of, room_remedy

__all__ = ["REPORT_FILE", "WriteOptions", "write_bytes", "write_text", "write_with"]

_LONGEST_STEM: Final = 48
"""Characters (of up to 4 bytes) of a file's name that its temporary name repeats: file systems allow 255 bytes."""


@frozen
class WriteOptions:
    """How a file is written, and what is raised if it cannot be.

    The content is flushed to the device only with ``durable``. Without it, renaming still hides a half-written file
    from every process, also from one that reads after ours was killed; only after a crash of the whole machine may
    some file systems (XFS, ext4 without ``auto_da_alloc``) show an empty file under the new name. A report can be made
    again, so it does not wait for the disk; the record of a run cannot, so it does.
    """

    mode: int = 0o666
    """Permissions, less the process's umask, as for any file that a program creates."""
    durable: bool = False
    """Return only when content and name have reached the device."""
    error: type[DsocrError] = RequestError
    """Raised, with one line that names the file and the reason."""
    remedy: str | None = None
    """What to do about a folder that cannot be written to, for the end of that line."""
    same_as_oserror: tuple[type[Exception], ...] = ()
    """What the writer raises where others raise OSError, such as ``sqlite3.Error``."""


REPORT_FILE: Final = WriteOptions(remedy="choose another folder with --out")


def write_with(path: Path, write: Callable[[Path], None], options: WriteOptions = REPORT_FILE) -> Path:
    """Let ``write`` fill an empty file beside ``path``, then put it in its place in one step.

    Args:
        path: the file; folders above it are made. Its former content stays if anything goes wrong.
        write: gets the temporary file, which exists, is empty and lies in the same folder.
        options: permissions, durability, class of the error.

    Returns:
        ``path``.

    Raises:
        DsocrError: ``options.error``: the folder or the file cannot be written to, or the disk is full.
    """
    temporary = path.with_name(f".{path.name[:_LONGEST_STEM]}.{secrets.token_hex(8)}.tmp")
    faults: tuple[type[Exception], ...] = (OSError, *options.same_as_oserror)
    made = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The kernel applies the umask to a mode given here. Reading the umask would mean setting it, for all threads
        # of the process, and two threads that do so at once can leave it changed for good.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, options.mode))
        made = True
        write(temporary)
        if options.durable:
            _flush(temporary)
        temporary.replace(path)
        if options.durable:
            _flush(path.parent)
    except faults as error:
        remedy = f"; {options.remedy}" if options.remedy and not made else ""
        remedy = f"; {room_remedy(error)}" if is_disk_full(error) else remedy
        raise options.error(f"{path}: cannot be written ({reason_of(error)}){remedy}") from error
    finally:  # Ctrl-C too may come anywhere
        with suppress(OSError):  # its folder has gone, or was never there
            temporary.unlink(missing_ok=True)
    return path


def write_bytes(path: Path, content: bytes, options: WriteOptions = REPORT_FILE) -> Path:
    """Write bytes in one step; see `write_with`."""
    return write_with(path, lambda temporary: _fill(temporary, content), options)


def write_text(path: Path, content: str, options: WriteOptions = REPORT_FILE) -> Path:
    r"""Write UTF-8 text in one step; see `write_with`.

    Lone surrogates become ``\udcff``, which JSON reads back as it was.
    """
    return write_bytes(path, content.encode("utf-8", "backslashreplace"), options)


def _fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _flush(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems cannot flush a folder; the renaming has happened all the same.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
