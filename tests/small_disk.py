"""A disk of a few megabytes, in a mount namespace of its own: it goes with the test, even with one that is killed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["SmallDisk", "small_disk"]

_KEEPER = 'mount -t tmpfs -o "size=$1" none "$2" && echo ready && exec sleep 600'


class SmallDisk:
    """What is mounted, and the process that keeps it."""

    def __init__(self, path: Path, keeper: subprocess.Popen[str]) -> None:
        self.path = path
        """The folder, as programs started by `run` see it."""
        self._pid = keeper.pid

    def seen(self, path: Path) -> Path:
        """The same file, as the test sees it."""
        return Path(f"/proc/{self._pid}/root{path}")

    def run(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program that sees the disk, to its end."""
        return subprocess.run(self.command(argv), env=env, cwd=cwd, capture_output=True, text=True, timeout=300)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a program where it sees the disk."""
        return ["nsenter", f"--mount=/proc/{self._pid}/ns/mnt", "--wdns=/", *argv]

    def fill(self, leave: int = 0) -> Path:
        """Fill it with a file, but for so many bytes; gives the file as the test sees it."""
        filler = self.seen(self.path) / "filler"
        filler.touch()
        free = shutil.disk_usage(filler.parent).free - leave
        with filler.open("r+b") as file:
            file.write(b"\0" * max(0, free))
        return filler


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[SmallDisk]:
    """Mount a tmpfs over a folder, for programs that are started through it only.

    Args:
        folder: is made.
        size: as mount wants it: ``4m``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not all(shutil.which(program) for program in ("unshare", "nsenter", "mount")):
        pytest.skip("a small disk needs unshare, nsenter and mount")
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _KEEPER, "sh", size, str(folder)]
    keeper = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert keeper.stdout is not None
    assert keeper.stderr is not None
    try:
        if keeper.stdout.readline() != "ready\n":
            pytest.skip(f"mounting is not allowed here: {keeper.stderr.read().strip()}")
        yield SmallDisk(folder, keeper)
    finally:
        keeper.kill()
        keeper.wait()
        keeper.stdout.close()
        keeper.stderr.close()
