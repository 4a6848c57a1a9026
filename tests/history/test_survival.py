"""What the history must outlive: kill -9, other writers, full and read-only disks, damage, and its own older and newer schemas."""

from __future__ import annotations

import fcntl
import lzma
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import history.store
from analysis.domain.errors import RequestError, StoreError
from history.folder import read_folder
from history.location import locate
from history.schema import HEAD, METADATA, VERSION_TABLE
from history.store import Store
from history.upgrading import migrations, upgrade
from import_graph import ROOT

EXAMPLES = ROOT / "reports" / "examples"
EAGER, GRAPH = EXAMPLES / "deepseek-ocr_h100", EXAMPLES / "deepseek-ocr_h100_cuda-graph"
EAGER_ID, GRAPH_ID = "26fb91c7-1a2b-4cb5-be28-ba7344041b0a", "bae7f3a8-6dbf-4a32-997f-50f19f15dd24"
FIRST_SCHEMA = ROOT / "tests" / "data" / "history_r0001.sql.xz"


def engine_of(place: str) -> sa.Engine:
    location = locate(place)
    return sa.create_engine(location.url)


def ids(store: Store) -> list[str]:
    return [row.run_id for row in store.runs()]


def whole(store: Store, run_id: str) -> tuple[int, ...]:
    (recorded,) = store.recorded([run_id])
    return len(recorded.samples), len(recorded.stages), len(recorded.classes), len(recorded.modules)


def kill_in_the_middle(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "in the middle\n", process.communicate()[1]
    process.kill()
    assert process.wait() == -signal.SIGKILL


# -- kill -9 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", ["INSERT INTO classes", "INSERT INTO device_moments"])
def test_kill_9_in_the_middle_of_a_new_run_leaves_nothing_of_it(
    store: Store, place: str, writer: Any, stop_at: str
) -> None:
    store.record(read_folder(EAGER))
    before = store.recorded([EAGER_ID])
    kill_in_the_middle(writer(place, GRAPH, GRAPH_ID, STOP_AT=stop_at))
    if store.location.path is not None:  # pages had gone into the file, so the journal was needed
        assert store.location.path.with_name("history.sqlite-journal").stat().st_size > 0
    assert ids(store) == [EAGER_ID]
    assert store.recorded([EAGER_ID]) == before
    store.record(read_folder(GRAPH))
    assert whole(store, GRAPH_ID) == (18, 2, 50, 18)


def test_kill_9_in_the_middle_of_bringing_a_run_up_to_date_leaves_it_as_it_was(
    store: Store, place: str, writer: Any
) -> None:
    store.record(read_folder(GRAPH))
    before = store.recorded([GRAPH_ID])
    kill_in_the_middle(writer(place, GRAPH, GRAPH_ID, STOP_AT="INSERT INTO modules"))
    assert store.recorded([GRAPH_ID]) == before


def test_kill_9_in_the_middle_of_making_the_tables(store: Store, place: str, writer: Any) -> None:
    kill_in_the_middle(writer(place, GRAPH, GRAPH_ID, STOP_AT="CREATE TABLE verdicts"))
    store.record(read_folder(EAGER))
    assert ids(store) == [EAGER_ID]


# -- several writers ---------------------------------------------------------------------------------------------------


def test_several_processes_write_at_once_beginning_with_nothing(
    store: Store, place: str, writer: Any, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    processes = [
        writer(place, GRAPH, f"{name}-0", "of all", f"{name}-1", f"{name}-2", WAIT_FOR=str(go)) for name in "abcd"
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    go.touch()
    for process in processes:
        out, err = process.communicate()
        assert (process.returncode, out, err) == (0, "", "")
    assert sorted(ids(store)) == sorted(["of all", *(f"{name}-{number}" for name in "abcd" for number in range(3))])
    assert {whole(store, run_id) for run_id in ids(store)} == {(18, 2, 50, 18)}


def test_readers_are_not_kept_out_by_a_writer_that_was_stopped(store: Store, place: str, writer: Any) -> None:
    store.record(read_folder(EAGER))
    process = writer(place, GRAPH, GRAPH_ID, STOP_AT="INSERT INTO runs")
    assert process.stdout.readline() == "in the middle\n"
    assert ids(store) == [EAGER_ID]


def test_a_writer_that_waits_too_long_says_for_whom(
    store: Store, place: str, writer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.record(read_folder(EAGER))
    monkeypatch.setattr(history.store, "_WAIT_S", 0.2)
    process = writer(place, GRAPH, EAGER_ID, STOP_AT="INSERT INTO samples")
    assert process.stdout.readline() == "in the middle\n"
    with pytest.raises(StoreError, match=r"have been writing for|lock timeout"):
        store.record(read_folder(EAGER))


def test_a_file_that_another_process_keeps_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.sqlite"
    store = Store(locate(str(path)))
    store.record(read_folder(EAGER))
    monkeypatch.setattr(history.store, "_WAIT_S", 0.2)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    for use in (store.runs, lambda: store.record(read_folder(EAGER))):
        with pytest.raises(StoreError, match="other processes have been writing"):
            use()
    holder.close()
    assert ids(store) == [EAGER_ID]


# -- disks -------------------------------------------------------------------------------------------------------------

LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_file_that_may_not_grow(tmp_path: Path, writer: Any) -> None:
    place = str(tmp_path / "history.sqlite")
    store = Store(locate(place))
    store.record(read_folder(EAGER))
    before, size = store.recorded([EAGER_ID]), (tmp_path / "history.sqlite").stat().st_size
    process = writer(place, GRAPH, *map(str, range(5)), prefix=(sys.executable, "-c", LIMITED, str(size)))
    out, err = process.communicate()
    assert process.returncode == 1
    assert err.startswith(f"StoreError: {place}: ")
    assert err.count("\n") == 1
    assert out == ""  # nothing was taken for damage, and moved
    assert ids(store) == [EAGER_ID]
    assert store.recorded([EAGER_ID]) == before
    store.record(read_folder(GRAPH))
    assert whole(store, GRAPH_ID) == (18, 2, 50, 18)


def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        store = Store(locate(str(disk / "history.sqlite")))
        store.record(read_folder(EAGER))
        before = store.recorded([EAGER_ID])
        with (disk / "filler").open("wb", buffering=0) as filler:
            filler.write(bytes(1 << 20))  # as much as there is room for
        assert os.statvfs(disk).f_bavail == 0
        with pytest.raises(StoreError, match=r"history\.sqlite: the disk is full$"):
            store.record(read_folder(GRAPH))
        assert store.recorded([EAGER_ID]) == before
        assert ids(store) == [EAGER_ID]
        (disk / "filler").unlink()
        store.record(read_folder(GRAPH))
        assert whole(store, GRAPH_ID) == (18, 2, 50, 18)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


READER = """
import os, time
from pathlib import Path
if wait_for := os.environ.get("WAIT_FOR"):
    print("ready", flush=True)
    while not Path(wait_for).exists():
        time.sleep(0.001)
import sys
from analysis.domain.errors import DsocrError
from history.location import locate
from history.store import Store
try:
    print(*(row.run_id for row in Store(locate(sys.argv[1])).runs()))
except DsocrError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_history_that_may_not_be_written_can_be_read(tmp_path: Path, writer: Any, closed: str) -> None:
    folder = tmp_path / "reports"
    path = folder / "history.sqlite"
    Store(locate(str(path))).record(read_folder(EAGER))
    content = path.read_bytes()
    # Root may write whatever the mode says, unless it gives that right away.
    prefix = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()
    (path if closed == "file" else folder).chmod(0o444 if closed == "file" else 0o555)
    try:
        process = writer(str(path), GRAPH, GRAPH_ID, prefix=prefix)
        _, err = process.communicate()
        read = subprocess.run(
            [*prefix, sys.executable, "-c", READER, str(path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        folder.chmod(0o755)
    assert process.returncode == 1
    assert err.startswith(f"StoreError: {path}: cannot be written here (")
    assert err.count("\n") == 1
    assert (read.stdout, read.stderr) == (f"{EAGER_ID}\n", "")
    assert path.read_bytes() == content
    assert [file.name for file in folder.iterdir()] == ["history.sqlite"]


# -- damage ------------------------------------------------------------------------------------------------------------


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "no database":
        path.write_bytes(b"these are words, and no pages " * 400)
    elif how == "cut off":
        path.write_bytes(content[: len(content) // 2])
    else:  # a block in the middle, as of a bad disk; the header is whole
        middle = len(content) // 2 // 4096 * 4096
        path.write_bytes(content[:middle] + bytes([0xA5]) * 8192 + content[middle + 8192 :])


DAMAGE = ["no database", "cut off", "a block"]


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_moved_aside_and_said_so(tmp_path: Path, how: str) -> None:
    path = tmp_path / "history.sqlite"
    said: list[str] = []
    store = Store(locate(str(path)), said.append)
    store.record(read_folder(EAGER))
    damage(path, how)
    damaged = path.read_bytes()
    store.record(read_folder(GRAPH))
    assert ids(store) == [GRAPH_ID]
    (aside,) = tmp_path.glob("history.sqlite.damaged-*")
    assert aside.read_bytes() == damaged
    assert len(said) == 1
    assert aside.name in said[0]
    assert "history import" in said[0]
    store.record(read_folder(EAGER))  # as `history import` would
    assert len(ids(store)) == 2
    assert len(said) == 1


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ("UPDATE runs SET started_at = 7", "TypeError|fromisoformat|argument must be str"),
        ("UPDATE runs SET started_at = 'yesterday'", "yesterday"),
        ("UPDATE runs SET parameters = 'many'", r"runs\.parameters"),
        ("UPDATE runs SET versions = '{'", "not what its column holds"),
        ("UPDATE runs SET versions = '3'", r"runs\.versions"),
        ("UPDATE runs SET model = x'ff'", r"runs\.model"),
        ("UPDATE stages SET busy_ns = 'long'", r"stages\.busy_ns"),
        ("UPDATE samples SET step_ns = '[1, \"x\"]'", r"samples\.step_ns"),
    ],
)
def test_values_that_are_not_of_their_columns_type_are_damage(tmp_path: Path, change: str, column: str) -> None:
    """As where a page was copied over another one: SQLite gives what is there."""
    path = tmp_path / "history.sqlite"
    store = Store(locate(str(path)))
    store.record(read_folder(EAGER))
    with sqlite3.connect(path) as database:
        database.execute(change)
    database.close()
    with pytest.raises(StoreError, match=rf"history\.sqlite: is damaged \([^\n]*({column})[^\n]*\); .*history import"):
        store.recorded(ids(store))


def test_a_schema_that_is_no_text_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    store = Store(locate(str(path)))
    store.record(read_folder(EAGER))
    path.write_bytes(
        path.read_bytes().replace(b"CREATE TABLE dsocr_history_version", b"CREATE TABL\xe1 dsocr_history_version")
    )
    with pytest.raises(StoreError, match=r"history\.sqlite: is damaged \([^\n]*\); .*history import"):
        store.runs()


def test_a_schema_that_contradicts_itself_is_damage(tmp_path: Path) -> None:
    """The revision stands in the table and in its index, and one of them is another page's."""
    path = tmp_path / "history.sqlite"
    put_first_schema(str(path))
    content = path.read_bytes()
    at = content.rindex(b"r0001")
    path.write_bytes(content[:at] + b"r0009" + content[at + 5 :])
    with pytest.raises(StoreError, match=r"history\.sqlite: is damaged \([^\n]*\); .*history import"):
        Store(locate(str(path))).runs()


@pytest.mark.parametrize("how", ["no database", "cut off"])
def test_reading_moves_nothing(tmp_path: Path, how: str) -> None:
    path = tmp_path / "history.sqlite"
    store = Store(locate(str(path)))
    store.record(read_folder(EAGER))
    damage(path, how)
    damaged = path.read_bytes()
    with pytest.raises(StoreError, match="is damaged"):
        store.recorded([EAGER_ID])
    assert path.read_bytes() == damaged
    assert [file.name for file in tmp_path.iterdir()] == ["history.sqlite"]


def test_a_folder_that_another_program_holds_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file is moved aside under its folder's lock, which anybody who may read the folder can take."""
    store = Store(locate(str(tmp_path / "history.sqlite")))
    store.record(read_folder(EAGER))
    damage(tmp_path / "history.sqlite", "no database")
    monkeypatch.setattr(history.store, "_WAIT_S", 0.3)
    holding = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(holding, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=r"cannot be moved aside \(another process has held its folder"):
            store.record(read_folder(GRAPH))
    finally:
        os.close(holding)


def test_a_damaged_file_is_moved_once_by_several_writers(tmp_path: Path, writer: Any) -> None:
    path, go = tmp_path / "reports" / "history.sqlite", tmp_path / "go"
    store = Store(locate(str(path)))
    store.record(read_folder(EAGER))
    damage(path, "a block")
    processes = [writer(str(path), GRAPH, name, WAIT_FOR=str(go)) for name in "abcd"]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    go.touch()
    said = ""
    for process in processes:
        out, err = process.communicate()
        assert (process.returncode, err) == (0, "")
        said += out
    assert said.count("is damaged") == 1
    assert len(list(path.parent.glob("history.sqlite.damaged-*"))) == 1
    assert sorted(ids(store)) == ["a", "b", "c", "d"]


# -- schemas -----------------------------------------------------------------------------------------------------------


def put_first_schema(place: str) -> None:
    """Make a store of the first revision with the two runs of `FIRST_SCHEMA`."""
    script = lzma.decompress(FIRST_SCHEMA.read_bytes()).decode()
    location = locate(place)
    if location.path is not None:
        with sqlite3.connect(location.path) as database:
            database.executescript(script)
        database.close()
        return
    memory = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    with memory.connect() as old, engine_of(place).begin() as new:
        old.connection.driver_connection.executescript(script)  # type: ignore[union-attr]
        upgrade(new, "r0001")
        there = sa.MetaData()
        there.reflect(new)
        types = {table.name: table for table in there.sorted_tables}
        for table in there.sorted_tables:
            if table.name == VERSION_TABLE:
                continue
            wanted = sa.select(*(METADATA.tables[table.name].c[column.name] for column in table.columns))
            rows = [dict(row) for row in old.execute(wanted).mappings()]
            if rows:
                new.execute(sa.insert(types[table.name]), rows)


def test_a_store_of_the_first_schema_is_brought_to_that_of_today(store: Store, place: str) -> None:
    put_first_schema(place)
    assert store.revision() == "r0001"
    assert ids(store) == [EAGER_ID, GRAPH_ID]
    assert store.revision() == HEAD
    old, new = store.recorded([GRAPH_ID])[0], read_folder(GRAPH)
    assert [(sample.stage, sample.ns, sample.units) for sample in old.samples] == [
        (sample.stage, sample.ns, sample.units) for sample in new.samples
    ]
    assert all(sample.step_ns is None for sample in old.samples)
    assert old.device_moments == ()
    assert set(old.stages) == set(new.stages)
    assert old.ceilings == new.ceilings
    store.record(new)  # and what the first schema had no place for is there now
    assert store.recorded([GRAPH_ID])[0].samples == new.samples
    assert len(store.recorded([GRAPH_ID])[0].device_moments) == 2


def test_several_processes_bring_a_store_to_today_at_once(
    store: Store, place: str, writer: Any, tmp_path: Path
) -> None:
    put_first_schema(place)
    go = tmp_path / "go"
    processes = [writer(place, GRAPH, name, WAIT_FOR=str(go)) for name in "abcd"]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    go.touch()
    for process in processes:
        out, err = process.communicate()
        assert (process.returncode, out, err) == (0, "", "")
    assert sorted(ids(store)) == sorted([EAGER_ID, GRAPH_ID, *"abcd"])


def test_several_readers_bring_a_store_to_today_at_once(place: str, tmp_path: Path) -> None:
    put_first_schema(place)
    go = tmp_path / "go"
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, place],
            env={**os.environ, "PYTHONPATH": str(ROOT), "WAIT_FOR": str(go)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    go.touch()
    for reader in readers:
        assert reader.communicate(timeout=60) == (f"{EAGER_ID} {GRAPH_ID}\n", "")


def test_an_older_schema_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    put_first_schema(str(path))
    path.chmod(0o444)
    prefix = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()
    read = subprocess.run(
        [*prefix, sys.executable, "-c", READER, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert read.stderr.startswith(f"{path}: its schema is r0001, this version reads {HEAD}")
    assert read.stderr.count("\n") == 1


def test_kill_9_in_the_middle_of_an_upgrade(store: Store, place: str, writer: Any) -> None:
    put_first_schema(place)
    kill_in_the_middle(writer(place, GRAPH, "new", STOP_AT="CREATE TABLE device_moments"))
    assert store.revision() == "r0001"  # the column that was added before is gone too
    assert ids(store) == [EAGER_ID, GRAPH_ID]
    assert store.revision() == HEAD


def test_a_newer_schema_is_one_line_and_left_alone(store: Store, place: str) -> None:
    store.record(read_folder(EAGER))
    engine = engine_of(place)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = 'r9999'")
    engine.dispose()
    for use in (store.runs, lambda: store.record(read_folder(GRAPH))):
        with pytest.raises(
            StoreError, match=r"written by a newer version \(its schema is r9999, this version's is r\d+\)"
        ):
            use()
    assert store.revision() == "r9999"


def test_the_migrations_make_the_tables_that_the_code_knows(store: Store, place: str) -> None:
    store.record(read_folder(EAGER))
    engine = engine_of(place)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, METADATA) == []
        names = set(sa.inspect(connection).get_table_names())
    engine.dispose()
    assert names == {*METADATA.tables, VERSION_TABLE}
    assert ScriptDirectory.from_config(migrations()).get_heads() == [HEAD]


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "trace.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE StringIds (id INTEGER, value TEXT)")
    database.close()
    content = path.read_bytes()
    store = Store(locate(str(path)))
    for use in (store.runs, lambda: store.record(read_folder(EAGER))):
        with pytest.raises(StoreError, match=r"holds tables of another program \(StringIds\)"):
            use()
    assert path.read_bytes() == content


def test_tables_of_a_server_that_have_our_names_are_left_alone(database: str) -> None:
    engine = engine_of(database)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE runs (id integer)")
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num text)")
    store = Store(locate(database))
    with pytest.raises(StoreError, match=r"holds tables of another program \(runs\)"):
        store.record(read_folder(EAGER))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE runs")
    engine.dispose()
    store.record(read_folder(EAGER))  # beside the other program's own migrations
    assert ids(store) == [EAGER_ID]


# -- places and passwords ----------------------------------------------------------------------------------------------


def test_a_wrong_password_is_not_repeated(database: str) -> None:
    url = sa.engine.make_url(database)
    wrong = url.set(password="hunter2").render_as_string(hide_password=False)
    with pytest.raises(StoreError, match="password authentication failed") as refused:
        Store(locate(wrong)).runs()
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:hunter2@host/db", "postgresql://me:***@host/db"),
        ("postgres://host/db?password=hunter2&sslmode=require", "postgresql://host/db?password=***&sslmode=require"),
        ("postgresql+psycopg://me@host:5433/db", "postgresql://me@host:5433/db"),
        ("sqlite:////tmp/a b.sqlite", "/tmp/a b.sqlite"),
        ("/tmp/a.sqlite", "/tmp/a.sqlite"),
        ("/tmp/runs:old/a.sqlite", "/tmp/runs:old/a.sqlite"),
        ("postgres.sqlite", str(Path.cwd() / "postgres.sqlite")),
        ("/tmp/what?mode=ro#%41.sqlite", "/tmp/what?mode=ro#%41.sqlite"),
    ],
)
def test_a_place_is_shown_without_its_password(text: str, shown: str) -> None:
    assert locate(text).shown == shown
    assert "hunter2" not in repr(locate(text))


@pytest.mark.parametrize(
    "text",
    [
        "mysql://me:hunter2@host/db",
        "postgresql://",
        "sqlite://",
        "postgresql:/me:hunter2@host/db",
        "postgresql://me:hunter2@h:port/db",
    ],
)
def test_what_is_no_place_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(RequestError) as refused:
        locate(text)
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_path_with_signs_that_mean_something_in_urls(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory#%41 b.sqlite"
    store = Store(locate(str(path)))
    store.record(read_folder(EAGER))
    assert path.is_file()
    assert ids(store) == [EAGER_ID]


def test_a_store_in_a_copied_file_is_whole(tmp_path: Path) -> None:
    """No second file belongs to it while nobody writes: it may be copied like any other."""
    Store(locate(str(tmp_path / "a.sqlite"))).record(read_folder(EAGER))
    assert [file.name for file in tmp_path.iterdir()] == ["a.sqlite"]
    shutil.copy(tmp_path / "a.sqlite", tmp_path / "b.sqlite")
    assert ids(Store(locate(str(tmp_path / "b.sqlite")))) == [EAGER_ID]
