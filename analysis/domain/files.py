"""Files that are there in full or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from analysis.domain.errors import RequestError

__all__ = ["write_bytes", "write_text", "write_with"]


def write_with(path: Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a file beside ``path``, then put it in its place in one step.

    Raises:
        RequestError: the folder or the file cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise RequestError(f"{path}: cannot be written ({error.strerror}); choose another folder with --out") from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise RequestError(f"{path}: cannot be written ({error.strerror or error}); is the disk full?") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_bytes(path: Path, content: bytes) -> Path:
    """Write bytes in one step."""
    return write_with(path, lambda temporary: _fill(temporary, content))


def write_text(path: Path, content: str) -> Path:
    r"""Write UTF-8 text in one step; lone surrogates become ``\udcff``, which JSON reads back as it was."""
    return write_bytes(path, content.encode("utf-8", "backslashreplace"))


def _fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)
