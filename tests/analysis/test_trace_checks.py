"""Files whose schema, journal or rows are not what nsys writes: refused or reported, never read into silent nonsense."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.api.opening import opened
from analysis.api.options import AnalysisOptions
from analysis.domain.errors import TraceError, TraceSchemaError
from analysis.quality.findings import IMPOSSIBLE_SHARE, Finding
from analysis.render.trace_checks import reference
from analysis.trace import schema
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
    builder = TraceBuilder().range("r", 0, 10_000_000)
    for at in range(1, 5_000_000, 10_000):
        builder.launch(at, at + 1_001, ("k", at + 2_000, at + 5_000))
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
    assert done.stdout.splitlines()[1].startswith("k,500,1500000,")


@pytest.mark.parametrize("last", [2**62, -(2**62)])
def test_row_ids_with_gaps(tmp_path: Path, last: int) -> None:
    """Row ids bound what is reserved and split what is read; gaps between them cost neither memory nor rows."""
    path = whole().write(tmp_path / "trace.sqlite")
    before = analyze("table", path, "--format", "csv").stdout
    changed(path, f"UPDATE {KERNELS} SET rowid = {last} WHERE rowid = 1")
    assert analyze("table", path, "--format", "csv").stdout == before


# --- values that cannot be ----------------------------------------------------------------------------------------


def findings_of(path: Path) -> dict[str, Finding]:
    """Code → finding, as the report shows them."""
    with opened(path, AnalysisOptions(accept_lossy=True)) as trace:
        return {finding.code: finding for finding in trace.findings}


def everything() -> TraceBuilder:
    """A trace with a row in every table that is checked row by row."""
    built = whole().thread_name("main").diagnostic("fine").replay(300, 310, [("node", 320, 340, 1 << 32)])
    built.node(1 << 32, 1).graph(350, 360, (370, 390)).range("registered", 400, 410, registered=True)
    return built.mark("here", 5).capture_setting("A", "b").context(7)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return everything().write(tmp_path_factory.mktemp("plain") / "trace.sqlite")


def columns_to_spoil() -> list[tuple[str, str, schema.Column]]:
    payloads = (schema.PAYLOAD_SCHEMAS, schema.PAYLOAD_FIELDS)
    lazily = (schema.GPU_METRICS, schema.GPU_METRIC_NAMES, schema.START_TIME)
    return [
        (spec.names[0], name, column)
        for spec in schema.CHECKED
        if spec not in (*payloads, *lazily, schema.STRINGS)  # an id that is the row's own can be nothing but a number
        for name, column in spec.columns.items()
        if column.kind == "integer" and (spec, name) != (schema.GRAPHS, "graphNodeId")  # exports have no such column
    ]


def spoilt(plain: Path, folder: Path, table: str, column: str, value: object) -> tuple[Path, int]:
    """A copy with another value in the last row of a table; and that row's id."""
    path = folder / "trace.sqlite"
    shutil.copyfile(plain, path)
    connection = sqlite3.connect(path)
    # SQLite itself refuses some of it where the columns say NOT NULL.
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') WHERE name = ?", (table,))
    connection.commit()
    connection.close()
    connection = sqlite3.connect(path)
    read = " WHERE eventType = 59" if table == "NVTX_EVENTS" else ""
    row = connection.execute(f"SELECT max(rowid) FROM {table}{read}").fetchone()[0]
    connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))
    connection.commit()
    connection.close()
    return path, row


@pytest.mark.parametrize(
    ("table", "column", "declared"), columns_to_spoil(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_no_impossible_value_is_read_without_a_word(
    plain: Path, tmp_path: Path, table: str, column: str, declared: schema.Column
) -> None:
    """Of every declared column: another type is refused with its row; out of range is refused too, or a finding names it."""
    for value in ("many", 0.5, b"\x00\xff"):
        path, row = spoilt(plain, tmp_path, table, column, value)
        with pytest.raises(TraceError) as caught:
            findings_of(path)
        words = str(caught.value)
        assert f"{table}.{column} is " in words
        assert f" in row {row}, and must be a whole number" in words
        assert "\n" not in words
    outside = [None if declared.low is None else declared.low - 1, None if declared.high is None else declared.high + 1]
    for limit in [limit for limit in outside if limit is not None] + ([] if declared.null else [None]):
        path, row = spoilt(plain, tmp_path, table, column, limit)
        if limit is None or declared.refused:
            with pytest.raises(TraceError, match=rf"{table}\.{column} is .* in row {row}, and must be a whole number"):
                findings_of(path)
            continue
        finding = findings_of(path)["impossible-values"]
        assert f"{table}.{column} in 1 of " in finding.evidence
        assert f"row {row}: {limit}" in finding.evidence


@pytest.mark.parametrize("column", ["start", "end"])
@pytest.mark.parametrize("table", [KERNELS, "CUPTI_ACTIVITY_KIND_RUNTIME"])
def test_a_null_that_the_schema_rules_out_is_refused(plain: Path, tmp_path: Path, table: str, column: str) -> None:
    """As a damaged page holds one: SQLite answers IS NULL from the schema, without a look at the row."""
    path, row = spoilt(plain, tmp_path, table, column, None)
    with sqlite3.connect(plain) as database:
        (sql,) = database.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    database.close()
    assert "NOT NULL" in sql
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql, table))
    database.close()
    with pytest.raises(TraceError, match=rf"{table}\.{column} is .* in row {row}, and must be a whole number"):
        findings_of(path)


@pytest.mark.parametrize("column", ["staticSharedMemory", "dynamicSharedMemory"])
def test_a_fraction_beside_an_unknown_is_seen(plain: Path, tmp_path: Path, column: str) -> None:
    """The shared memory of a block is unknown where one of its parts is: the other part is checked all the same."""
    (other,) = {"staticSharedMemory", "dynamicSharedMemory"} - {column}
    path, row = spoilt(plain, tmp_path, KERNELS, column, 1234)
    changed(path, f"UPDATE {KERNELS} SET {other} = NULL")
    assert "impossible-values" not in findings_of(path)
    changed(path, f"UPDATE {KERNELS} SET {column} = 1234.5 WHERE rowid = {row}")
    with pytest.raises(
        TraceError, match=rf"{KERNELS}\.{column} is the fraction 1234\.5 in row {row}, and must be a whole number"
    ):
        findings_of(path)


def test_the_plain_trace_of_these_tests_has_nothing_impossible(plain: Path) -> None:
    assert not {"impossible-values", "impossible-times", "times-beyond-session"} & set(findings_of(plain))


# --- times that cannot be -----------------------------------------------------------------------------------------


def many_kernels(folder: Path, *, kernels: int = 200) -> Path:
    builder = TraceBuilder().session(20 * kernels).gpu().range("prefill", 0, 20 * kernels, domain="dsocr")
    for at in range(0, 20 * kernels - 20, 20):
        builder.launch(at + 1, at + 2, ("k", at + 3, at + 9))
    return builder.write(folder / "trace.sqlite")


def test_swapped_starts_and_ends_make_the_capture_unfit(tmp_path: Path) -> None:
    """Not a verdict: before, such a trace was said to be launch-bound, with a saving."""
    path = many_kernels(tmp_path)
    changed(path, f"UPDATE {KERNELS} SET start = end, end = start")
    assert_one_line(
        analyze(path, "--out", tmp_path / "r"),
        4,
        "events end before they start",
        f"199 of 199 rows of {KERNELS} (row 1, ",
    )


@pytest.mark.parametrize("over", [False, True])
def test_the_share_of_rows_that_end_before_they_start(tmp_path: Path, over: bool) -> None:
    """Up to the share it is an oddity of the clock, above it the capture is unfit."""
    path = many_kernels(tmp_path, kernels=201)
    rows = int(200 * IMPOSSIBLE_SHARE) + over
    changed(path, f"UPDATE {KERNELS} SET start = end, end = start WHERE rowid <= {rows}")
    findings = findings_of(path)
    assert f"{rows} rows of {KERNELS} end before they start" in findings["clock-oddities"].evidence
    assert ("impossible-times" in findings) == over


@pytest.mark.parametrize("over", [False, True])
def test_the_share_of_impossible_values(tmp_path: Path, over: bool) -> None:
    path = many_kernels(tmp_path, kernels=201)
    rows = int(200 * IMPOSSIBLE_SHARE) + over
    changed(path, f"UPDATE {KERNELS} SET gridX = 0 WHERE rowid <= {rows}")
    finding = findings_of(path)["impossible-values"]
    assert finding.severity == ("unfit" if over else "warning")
    assert f"{KERNELS}.gridX in {rows} of 200 rows (row 1: 0, " in finding.evidence


@pytest.mark.parametrize(("column", "value"), [("start", -(2**61)), ("end", 2**61)])
@pytest.mark.parametrize("table", [KERNELS, "CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS"])
def test_an_event_of_another_age_is_refused(plain: Path, tmp_path: Path, table: str, column: str, value: int) -> None:
    path, row = spoilt(plain, tmp_path, table, column, value)
    with pytest.raises(
        TraceError, match=rf"{table}\.{column} is {value} in row {row}, 26,687 days from the other events"
    ):
        findings_of(path)


def test_a_session_shorter_than_its_events(tmp_path: Path) -> None:
    path = many_kernels(tmp_path)
    changed(path, f"UPDATE {KERNELS} SET end = end + 4000000000 WHERE rowid = 199")
    assert findings_of(path)["times-beyond-session"].severity == "unfit"


def test_a_session_of_146_years(plain: Path, tmp_path: Path) -> None:
    shutil.copyfile(plain, path := tmp_path / "long.sqlite")
    changed(path, f"UPDATE ANALYSIS_DETAILS SET duration = {2**62}")
    assert "ANALYSIS_DETAILS.duration" in findings_of(path)["impossible-values"].evidence


def test_names_and_processes_that_the_file_does_not_have(plain: Path, tmp_path: Path) -> None:
    for table, column, value in (
        (KERNELS, "demangledName", 77_777), (KERNELS, "globalPid", 5 << 24), ("NVTX_EVENTS", "textId", 77_777),
        ("CUPTI_ACTIVITY_KIND_RUNTIME", "nameId", 77_777), ("CUPTI_ACTIVITY_KIND_RUNTIME", "globalTid", 5 << 24 | 1),
    ):  # fmt: skip
        path, row = spoilt(plain, tmp_path, table, column, value)
        evidence = findings_of(path)["impossible-values"].evidence
        assert f"{table}.{column} in 1 of " in evidence
        assert f"(row {row}: {value}), which must be a whole number" in evidence


REAL = ("64tok", "lossy", "recorded-graph", "small")


@pytest.mark.parametrize("name", REAL)
def test_real_traces_hold_nothing_impossible(real_trace: Callable[[str], Path], name: str) -> None:
    findings = findings_of(real_trace(f"deepseek-ocr_h100_{name}"))
    assert not {"impossible-values", "impossible-times", "times-beyond-session"} & set(findings)


def test_the_page_says_what_is_checked() -> None:
    page = Path(__file__).parents[2] / "docs" / "trace-checks.md"
    assert page.read_text() == reference(), "run: make docs"
