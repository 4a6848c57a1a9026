"""Whole files or none: what every writer of both packages relies on."""

import errno
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from analysis.domain.errors import CaptureError, RequestError
from analysis.domain.files import WriteOptions, write_bytes, write_text, write_with


@contextmanager
def umask(mask: int) -> Iterator[None]:
    former = os.umask(mask)
    try:
        yield
    finally:
        os.umask(former)


def failing(error: Exception) -> Callable[[Path], None]:
    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    return write


@pytest.mark.parametrize(
    ("mask", "mode", "expected"), [(0o022, 0o666, 0o644), (0o077, 0o666, 0o600), (0, 0o666, 0o666), (0, 0o600, 0o600)]
)
def test_permissions_are_the_mode_less_the_umask(tmp_path: Path, mask: int, mode: int, expected: int) -> None:
    with umask(mask):
        path = write_text(tmp_path / "a.txt", "a", WriteOptions(mode=mode))
    assert stat.S_IMODE(path.stat().st_mode) == expected


def test_threads_that_write_at_once_leave_the_umask_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with umask(0o027):
        monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask belongs to all threads"))
        paths = [tmp_path / f"{number}.txt" for number in range(8)]
        threads = [threading.Thread(target=write_text, args=(path, "a")) for path in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        monkeypatch.undo()
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o640}


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = write_text(tmp_path / "report.md", "old")
    with pytest.raises(RequestError, match=r"report\.md: cannot be written \(the disk is full\); free space$"):
        write_with(path, failing(OSError(errno.ENOSPC, "No space left on device")))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    def interrupted(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    path = write_text(tmp_path / "report.md", "old")
    with pytest.raises(KeyboardInterrupt):
        write_with(path, interrupted)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_caller_chooses_the_error_and_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    options = WriteOptions(error=CaptureError, remedy="name another run directory")
    with pytest.raises(CaptureError, match=r"run\.json: cannot be written \(.+\); name another run directory$"):
        write_bytes(tmp_path / "file" / "run.json", b"{}", options)


def test_a_writers_own_errors_are_told_in_the_same_way(tmp_path: Path) -> None:
    options = WriteOptions(error=CaptureError, same_as_oserror=(sqlite3.Error,))
    with pytest.raises(CaptureError, match=r"trace\.sqlite: cannot be written \(database is locked\)"):
        write_with(tmp_path / "trace.sqlite", failing(sqlite3.OperationalError("database is locked")), options)
    with pytest.raises(sqlite3.OperationalError):
        write_with(tmp_path / "trace.sqlite", failing(sqlite3.OperationalError("database is locked")))
    assert list(tmp_path.iterdir()) == []


def test_a_database_can_be_written(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        with closing(sqlite3.connect(temporary)) as database:
            database.execute("CREATE TABLE a (b)")
            database.commit()

    path = write_with(tmp_path / "trace.sqlite", write)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]


def test_durable_flushes_the_content_before_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    steps: list[str] = []

    def fsync(descriptor: int) -> None:
        what = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.pread(descriptor, 9, 0).decode()
        steps.append(f"{what}, {'named' if path.exists() else 'not yet named'}")

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(path, "{}")
    assert steps == []
    path.unlink()
    write_text(path, "{}", WriteOptions(durable=True))
    assert steps == ["{}, not yet named", "folder, named"]


def test_a_file_system_that_cannot_flush_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    assert write_text(tmp_path / "run.json", "{}", WriteOptions(durable=True)).read_text() == "{}"


def test_the_longest_name_that_a_file_system_allows(tmp_path: Path) -> None:
    assert write_text(tmp_path / ("ü" * 127), "a").read_text() == "a"


def test_lone_surrogates_become_escapes(tmp_path: Path) -> None:
    assert write_text(tmp_path / "a.json", "\udcff").read_bytes() == b"\\udcff"
