"""Files whose schema, journal or rows are not what nsys writes: refused or reported, never read into silent nonsense."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from analysis.domain.errors import TraceError, TraceSchemaError
from analyze_command import analyze, assert_one_line
from trace_builder import TraceBuilder
from whole_trace import read_everything, whole

KERNELS = "CUPTI_ACTIVITY_KIND_KERNEL"


def changed(path: Path, *statements: str) -> Path:
    """Run statements on a trace, each committed."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for statement in statements:
            connection.execute(statement)
    finally:
        connection.close()
    return path


# --- journals -------------------------------------------------------------------------------------------------


def in_mid_transaction(folder: Path) -> Path:
    """A trace whose writer was killed when pages of an uncommitted transaction were in the file already."""
    path = whole().write(folder / "writing.sqlite")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    connection.execute(f"UPDATE {KERNELS} SET end = end + 1000000")
    connection.execute(
        "CREATE TABLE filler AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999) SELECT i FROM n"
    )
    for ending in ("", "-journal"):
        shutil.copyfile(f"{path}{ending}", folder / f"trace.sqlite{ending}")
    connection.rollback()
    connection.close()
    return folder / "trace.sqlite"


def test_a_rollback_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = in_mid_transaction(tmp_path)
    journal = path.with_name("trace.sqlite-journal")
    before = [hashlib.sha256(one.read_bytes()).hexdigest() for one in (path, journal)]
    done = analyze(path, "--out", tmp_path / "report")
    assert_one_line(done, TraceError.exit_code, "trace.sqlite-journal is not empty", "export the report again")
    assert [hashlib.sha256(one.read_bytes()).hexdigest() for one in (path, journal)] == before
    link = tmp_path / "elsewhere"
    link.mkdir()
    (link / "linked.sqlite").symlink_to(path)
    with pytest.raises(TraceError, match=r"trace\.sqlite-journal"):
        read_everything(link / "linked.sqlite")


def test_what_the_refusal_recommends_works(tmp_path: Path) -> None:
    """Opened once with SQLite, the copy is rolled back, and read."""
    path = in_mid_transaction(tmp_path)
    changed(path, "SELECT count(*) FROM sqlite_master")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version").fetchone()
    read_everything(path)


def test_the_journal_of_a_finished_commit_is_no_matter(tmp_path: Path) -> None:
    path = whole().write(tmp_path / "trace.sqlite")
    changed(path, "PRAGMA journal_mode = PERSIST", "PRAGMA user_version = 7")
    journal = path.with_name("trace.sqlite-journal")
    assert journal.stat().st_size
    assert journal.read_bytes()[:1] == b"\0"
    read_everything(path)


def test_a_log_beside_a_file_that_was_no_log_before_is_refused(tmp_path: Path) -> None:
    """SQLite reads a write-ahead log whatever the file's header says; so its rows would be missing here."""
    path = whole().write(tmp_path / "trace.sqlite")
    path.with_name("trace.sqlite-wal").write_bytes(b"\x37\x7f\x06\x82" + bytes(100))
    with pytest.raises(TraceError, match=r"trace\.sqlite-wal is not empty"):
        read_everything(path)


def test_a_pipe_in_place_of_a_trace_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "trace.sqlite")
    assert_one_line(analyze(tmp_path / "trace.sqlite"), TraceError.exit_code, "is no file but a pipe")


# --- schemas that nsys does not write ---------------------------------------------------------------------------

AS_A_VIEW = (
    f"ALTER TABLE {KERNELS} RENAME TO hidden",
    f"CREATE VIEW {KERNELS} AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT i AS start, i + 1 AS end, 0 AS deviceId, 7 AS streamId FROM n",
)
FAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "a view that never ends": (AS_A_VIEW, "is a view"),
    "a generated column": (
        (f"ALTER TABLE {KERNELS} RENAME COLUMN deviceId TO other", f"ALTER TABLE {KERNELS} ADD COLUMN deviceId AS (start % 7)"),
        "whose column deviceId is computed",
    ),
    "a column that hides the row ids": (
        (f"ALTER TABLE {KERNELS} RENAME COLUMN contextId TO rowid",), "a table with a column rowid of its own",
    ),
    "no row ids": (
        (
            f"ALTER TABLE {KERNELS} RENAME TO old",
            f"CREATE TABLE {KERNELS} (start INTEGER PRIMARY KEY, end INTEGER) WITHOUT ROWID",
            f"INSERT INTO {KERNELS} SELECT start, end FROM old",
        ),
        "a table without row ids",
    ),
    "a virtual table": (
        (f"DROP TABLE {KERNELS}", f"CREATE VIRTUAL TABLE {KERNELS} USING fts5(start, end)"), "a virtual table",
    ),
    "strings from a view": (
        ("ALTER TABLE StringIds RENAME TO old", "CREATE VIEW StringIds AS SELECT id, value FROM old"), "StringIds is a view",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAKES)
def test_what_is_no_plain_table_is_refused(tmp_path: Path, kind: str) -> None:
    statements, words = FAKES[kind]
    path = changed(whole().write(tmp_path / "trace.sqlite"), *statements)
    assert_one_line(
        analyze(path, "--out", tmp_path / "r"), TraceSchemaError.exit_code, words, "export the report again"
    )


def test_triggers_extra_views_and_quoted_names_are_no_matter(tmp_path: Path) -> None:
    plain = whole().write(tmp_path / "plain.sqlite")
    path = changed(
        whole().write(tmp_path / "trace.sqlite"),
        f"CREATE TRIGGER t AFTER INSERT ON {KERNELS} BEGIN DELETE FROM StringIds; END",
        "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
        'CREATE TABLE "a""b; DROP TABLE x" ("c""d" INTEGER)',
        "CREATE TABLE keyed (k TEXT PRIMARY KEY) WITHOUT ROWID",
    )
    assert analyze("table", path, "--format", "csv").stdout == analyze("table", plain, "--format", "csv").stdout


@pytest.mark.parametrize("what", ["table", "column"])
def test_names_in_the_schema_that_are_no_text(tmp_path: Path, what: str) -> None:
    path = whole().write(tmp_path / "trace.sqlite")
    changed(path, "CREATE TABLE qqqq_table (qqqq_column INTEGER)")
    raw = path.read_bytes()
    assert f"qqqq_{what}".encode() in raw
    path.write_bytes(raw.replace(f"qqqq_{what}".encode(), b"\xff\xfeqq_" + what.encode()))
    assert analyze("table", path).returncode == 0


def test_an_index_that_lies_hides_no_row(tmp_path: Path) -> None:
    """An index of the file is never used: nsys writes none, and a damaged one would lose rows without a word."""
    builder = TraceBuilder().range("r", 0, 10_000)
    for at in range(0, 5000, 10):
        builder.launch(at, at + 1, ("k", at + 2, at + 5))
    path = builder.write(tmp_path / "trace.sqlite")
    changed(
        path,
        "CREATE INDEX everything ON CUPTI_ACTIVITY_KIND_KERNEL (start, end)",
        "CREATE INDEX kinds ON NVTX_EVENTS (eventType)",
        "PRAGMA writable_schema = ON",
        "CREATE TABLE blank (a, b, c)", "CREATE INDEX empty ON blank (a, b)",
        "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'empty') "
        "WHERE name IN ('everything', 'kinds')",
    )  # fmt: skip
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT start, end FROM CUPTI_ACTIVITY_KIND_KERNEL ORDER BY start").fetchall() == []
    done = analyze("table", path, "--by", "kernel", "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("k,500,1500,")


@pytest.mark.parametrize("last", [2**62, -(2**62)])
def test_row_ids_with_gaps(tmp_path: Path, last: int) -> None:
    """Row ids bound what is reserved and split what is read; gaps between them cost neither memory nor rows."""
    path = whole().write(tmp_path / "trace.sqlite")
    before = analyze("table", path, "--format", "csv").stdout
    changed(path, f"UPDATE {KERNELS} SET rowid = {last} WHERE rowid = 1")
    assert analyze("table", path, "--format", "csv").stdout == before
