"""A history that somebody else made, or that leads elsewhere, is neither read nor written."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from analysis.domain.errors import StoreError
from history.folder import read_folder
from history.location import locate
from history.store import Store

RUN = Path(__file__).parents[2] / "reports" / "examples" / "deepseek-ocr_h100_64tok"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as other users")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "history.sqlite"
    Store(locate(str(path))).record(read_folder(RUN))
    path.chmod(0o600)
    return path


def require_refused(path: Path, words: str) -> None:
    store = Store(locate(str(path)))
    with pytest.raises(StoreError, match=words):
        store.runs()
    with pytest.raises(StoreError, match=words):
        store.record(read_folder(RUN))


@as_root
def test_another_users_file(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(made, 65531, 65531)
    assert len(Store(locate(str(made))).runs()) == 1  # root's container, with a user's folder mounted
    made.chmod(0o660)
    require_refused(made, "belongs to user 65531; name one of your own")
    made.chmod(0o644)
    monkeypatch.setattr(os, "geteuid", lambda: 65530)
    require_refused(made, "belongs to user 65531; name one of your own")


@as_root
def test_another_users_journal_beside_ones_own_file(made: Path) -> None:
    journal = made.with_name("history.sqlite-journal")
    journal.write_bytes(b"")
    journal.chmod(0o660)
    os.chown(journal, 65531, 65531)
    require_refused(made, "history.sqlite-journal: belongs to user 65531")


def test_a_file_that_everybody_may_write(made: Path) -> None:
    made.chmod(0o666)
    require_refused(made, "everybody may write it")


def test_a_link_is_neither_followed_nor_moved_aside(made: Path) -> None:
    link = made.with_name("link.sqlite")
    target = made.with_name("precious")
    target.write_text("precious")
    link.symlink_to(target)
    require_refused(link, "is a symbolic link; name the history's file itself")
    assert link.is_symlink()
    assert target.read_text() == "precious"


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), Path("/dev/null")):
        require_refused(path, "is no regular file|everybody may write it")
        with pytest.raises(StoreError, match="is no regular file"):
            Store(locate(str(path))).runs()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON run BEGIN SELECT 1; END",
        "CREATE VIEW v AS SELECT 1",
    ],
)
def test_what_would_be_carried_out(made: Path, statement: str) -> None:
    connection = sqlite3.connect(made)
    table = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 1").fetchone()[0]
    connection.execute(statement.replace("ON run ", f"ON {table} "))
    connection.commit()
    connection.close()
    require_refused(made, "holds a (trigger|view), which no history has")
