"""The history: one database of finished runs, in a SQLite file or in PostgreSQL.

``Store(locate("reports/history.sqlite"))`` costs nothing until it is used. For writers: `Store.record` with what
`history.folder.read_folder` gives. For readers: `Store.runs` (rows of `RunRow` by a `RunQuery`, oldest first),
`Store.recorded` (all of some runs: samples, stages, classes, modules, verdicts, ceilings), `Store.find` (one by its id, its
beginning, or ``latest``). All raise `StoreError` in one line, without passwords.

Writing is one transaction under a lock of the database's own, so that a process may be killed at any moment and several may
write at once. Tables are made, and brought to the schema of today, by whoever opens the store first.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import sqlalchemy as sa
from attrs import asdict, frozen
from sqlalchemy.pool import NullPool

from analysis.domain.errors import StoreError
from analysis.domain.system_errors import reason_of
from history.location import Location
from history.records import RecordedRun, RunQuery, RunRow
from history.schema import HEAD, METADATA, PARTS, RUNS, VERSION_TABLE, Moment

__all__ = ["Store"]

Mode: TypeAlias = Literal["read", "write"]

_WAIT_S: Final = 30.0
"""How long a writer waits while others write."""
_POLL_S: Final = 0.05
_OF_THE_CONNECTION: Final = {"connect_timeout": 10, "tcp_user_timeout": 30_000, "keepalives_idle": 15}
"""Seconds, milliseconds, seconds: no run waits for long for a server that does not answer or has gone."""
_LOCK_KEY: Final = 0x64736F6372
"""Of PostgreSQL's advisory lock, under which tables are made and changed: ``dsocr`` in ASCII."""
_ALWAYS_NEW: Final = frozenset({"run_id", "kind", "status", "recorded_at", "error"})
"""Columns of a run in which an empty value of today replaces one of before."""
_AT_ONCE: Final = 500
"""Run ids in one query; SQLite takes a limited number of parameters."""
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_NOT_WRITABLE: Final = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM})


class _DamagedError(Exception):
    """The file is no database any more; the words are SQLite's."""


@frozen
class Store:
    """One history."""

    location: Location
    say: Callable[[str], None] = lambda line: None
    """Takes one line for the user: what was done that was not asked for."""

    # -- writing -------------------------------------------------------------------------------------------------------

    def record(self, recorded: RecordedRun) -> None:
        """Write a run down, in one transaction.

        One that is there already is brought up to date: what its folder says today replaces what it said before, and what
        the folder does not say any more stays. So a run may be recorded again after its report was made anew, and also
        after half of its files were deleted.

        Raises:
            StoreError: it could not be written; the history is as it was.
        """
        try:
            self._record(recorded)
        except _DamagedError as error:
            self._move_aside(str(error))
            try:
                self._record(recorded)
            except _DamagedError as second:
                raise StoreError(f"{self.location.shown}: is damaged ({second})") from second

    def delete(self, run_ids: Sequence[str]) -> int:
        """Delete runs with all that belongs to them, in one transaction. Gives how many there were.

        Raises:
            StoreError: they could not be deleted; all are there.
        """
        with self._reporting_damage(), self._transaction("write") as connection:
            return sum(
                connection.execute(sa.delete(RUNS).where(RUNS.c.run_id.in_(some))).rowcount for some in _packs(run_ids)
            )

    # -- reading -------------------------------------------------------------------------------------------------------

    def runs(self, query: RunQuery | None = None) -> tuple[RunRow, ...]:
        """Give the runs that fit, oldest first; those whose start is not known come before all others."""
        query = query or RunQuery()
        chosen = sa.select(RUNS).where(*_conditions(query))
        newest_first = chosen.order_by(RUNS.c.started_at.desc().nulls_last(), RUNS.c.run_id.desc())
        with self._reporting_damage(), self._transaction("read") as connection:
            rows = _rows(connection, newest_first.limit(query.limit))
        return tuple(RunRow(**row) for row in reversed(rows))

    def recorded(self, run_ids: Sequence[str]) -> tuple[RecordedRun, ...]:
        """Give all of some runs, in the order of ``run_ids``; an id that is not there is left out."""
        with self._reporting_damage(), self._transaction("read") as connection:
            runs: dict[str, RunRow] = {}
            parts: dict[str, dict[str, list[Any]]] = {}
            for some in _packs(run_ids):
                for row in _rows(connection, sa.select(RUNS).where(RUNS.c.run_id.in_(some))):
                    runs[row["run_id"]] = RunRow(**row)
                for part, (table, record) in PARTS.items():
                    # Keys are in the order in which the rows were given, or names, for which any order will do.
                    wanted = sa.select(table).where(table.c.run_id.in_(some)).order_by(*table.primary_key.columns)
                    for row in _rows(connection, wanted):
                        values = {name: value for name, value in row.items() if name != "run_id"}
                        parts.setdefault(row["run_id"], {}).setdefault(part, []).append(record(**values))
        return tuple(
            RecordedRun(run=runs[run_id], **{part: tuple(rows) for part, rows in parts.get(run_id, {}).items()})
            for run_id in dict.fromkeys(run_ids)
            if run_id in runs
        )

    def find(self, beginning: str) -> RunRow:
        """Find a run by its id, the beginning of it, or ``latest``.

        Raises:
            StoreError: there is none, or more than one.
        """
        if beginning == "latest":
            latest = self.runs(RunQuery(limit=1))
            if latest:
                return latest[0]
            raise StoreError(
                f"{self.location.shown}: holds no run; every finished run is recorded, and `dsocr-profile history import` "
                "records those that are there"
            )
        if not beginning:
            raise StoreError(f"{self.location.shown}: an empty id is that of no run; `dsocr-profile history list`")
        begins = RUNS.c.run_id.startswith(beginning, autoescape=True)
        with self._reporting_damage(), self._transaction("read") as connection:
            rows = [RunRow(**row) for row in _rows(connection, sa.select(RUNS).where(begins))]
        exact = [row for row in rows if row.run_id == beginning]
        if len(exact or rows) != 1:
            what = f"{len(rows)} runs" if rows else "no run"
            raise StoreError(
                f"{self.location.shown}: {what} with an id that begins with {beginning!r}; `dsocr-profile history list`"
            )
        return (exact or rows)[0]

    def revision(self) -> str | None:
        """Give the schema's revision; None: the store has no tables yet."""
        with self._reporting_damage(), self._connection("read") as connection, connection.begin():
            return _revision(connection)

    # -- pieces --------------------------------------------------------------------------------------------------------

    def _record(self, recorded: RecordedRun) -> None:
        run_id = recorded.run.run_id
        with self._transaction("write", check=True) as connection:
            if connection.dialect.name == "postgresql":
                # Two processes that record the same run would both find it missing.
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(run_id, 0))))
            row = _clean(asdict(recorded.run, recurse=False))
            before = connection.execute(sa.select(RUNS).where(RUNS.c.run_id == run_id)).mappings().first()
            if before is None:
                connection.execute(sa.insert(RUNS).values(**row))
            else:
                known = {name: value for name, value in row.items() if value is not None or name in _ALWAYS_NEW}
                connection.execute(sa.update(RUNS).where(RUNS.c.run_id == run_id).values(**known))
            for part, (table, _) in PARTS.items():
                rows = [{"run_id": run_id, **_clean(asdict(item, recurse=False))} for item in getattr(recorded, part)]
                if rows:
                    connection.execute(sa.delete(table).where(table.c.run_id == run_id))
                    connection.execute(sa.insert(table), rows)

    @contextmanager
    def _transaction(self, mode: Mode, *, check: bool = False) -> Iterator[sa.Connection]:
        """One transaction on a database with the tables of today.

        Args:
            mode: what it is for; to read, a file must be there.
            check: let SQLite look through the file for damage first.
        """
        if mode == "read":
            self._bring_to_today_to_read()
        with self._connection(mode) as connection:
            if check and connection.dialect.name == "sqlite":
                _raise_if_damaged(connection)
            with connection.begin():
                if mode == "write":
                    self._bring_to_today(connection)
                yield connection

    def _bring_to_today_to_read(self) -> None:
        """In a transaction of its own, which may wait: one that began with reading could only fail where others write."""
        with self._connection("read") as connection, connection.begin():
            revision = _revision(connection)
        if revision == HEAD:
            return
        path = self.location.path
        if path is not None and not _is_writable(path):
            raise StoreError(
                f"{path}: its schema is {revision}, this version reads {HEAD}, and it cannot be written here to be brought to "
                "that; copy it, and give the copy with --store"
            )
        with self._transaction("write"):
            pass

    def _bring_to_today(self, connection: sa.Connection) -> None:
        """Make or change the tables under a lock, if need be: two processes may both see that it is time to."""
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(_WAIT_S * 1000)}")
        if _revision(connection) == HEAD:
            return
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
        revision = _revision(connection)
        if revision == HEAD:
            return
        # Brings Alembic, which a store of today does not need.
        from history.upgrading import NotUpgradableError, knows, upgrade

        if revision is None:
            self._refuse_foreign_tables(connection)
        elif not knows(revision):
            raise StoreError(
                f"{self.location.shown}: was written by a newer version (its schema is {revision}, this version's is {HEAD}); "
                "update dsocr-profiler"
            )
        try:
            upgrade(connection)
        except NotUpgradableError as error:
            raise _DamagedError(str(error)) from error

    def _refuse_foreign_tables(self, connection: sa.Connection) -> None:
        """Put nothing into another program's file, such as a trace, and take no table of its for ours."""
        tables = set(sa.inspect(connection).get_table_names())
        foreign = tables if connection.dialect.name == "sqlite" else tables & set(METADATA.tables)
        if foreign:
            raise StoreError(
                f"{self.location.shown}: holds tables of another program ({', '.join(sorted(foreign)[:3])}); "
                "give the history a database of its own"
            )

    @contextmanager
    def _connection(self, mode: Mode) -> Iterator[sa.Connection]:
        try:
            engine = self._engine(mode)
            with engine.connect() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise self._in_words(error) from error
        except UnicodeDecodeError as error:  # of a name in SQLite's schema
            raise _DamagedError("a text in it is not UTF-8") from error
        except ModuleNotFoundError as error:
            if error.name not in ("psycopg", "psycopg_binary"):
                raise
            raise StoreError(
                f"{self.location.shown}: {error.name} is not installed: pip install 'dsocr-profiler[postgres]'"
            ) from error
        except ImportError as error:  # psycopg without libpq
            if error.name is not None and not error.name.startswith("psycopg"):
                raise
            raise StoreError(f"{self.location.shown}: psycopg cannot be used ({str(error).splitlines()[0]})") from error

    def _engine(self, mode: Mode) -> sa.Engine:
        path = self.location.path
        if path is None:
            return sa.create_engine(self.location.url, poolclass=NullPool, connect_args=_OF_THE_CONNECTION)
        writable = mode == "write"
        is_there = _is_there_to_be_trusted(path)
        if not writable:
            if not is_there:
                raise StoreError(f"{path}: there is no history yet; every finished run is recorded in one")
            # A file that can be written is opened so also to read: what a killed writer left half done is undone first,
            # and an older schema is brought to today's.
            writable = _is_writable(path)
        else:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"{path}: its folder cannot be made ({error.strerror})") from error

        def connect() -> sqlite3.Connection:
            opened = sqlite3.connect(
                f"{path.as_uri()}?mode={'rwc' if writable else 'ro'}", uri=True, timeout=_WAIT_S, isolation_level=None
            )
            opened.execute("PRAGMA foreign_keys = ON")
            # What is deleted or replaced is overwritten too, whatever this SQLite does by itself.
            opened.execute("PRAGMA secure_delete = ON")
            opened.execute("PRAGMA trusted_schema = OFF")
            try:
                _refuse_active_schema(opened, path)
            except BaseException:
                opened.close()
                raise
            return opened

        engine = sa.create_engine("sqlite://", creator=connect, poolclass=NullPool)
        # Python's module begins transactions late and not before changes of tables; so we begin them. IMMEDIATE takes
        # the lock at once: two that read first and write then could only fail.
        begin = "BEGIN IMMEDIATE" if mode == "write" else "BEGIN"
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine

    def _in_words(self, error: sa.exc.SQLAlchemyError) -> Exception:
        cause = getattr(error, "orig", None)
        words = str(cause if cause is not None else error).strip().splitlines()
        reason = self.location.without_secrets(words[0] if words else type(error).__name__)
        code = getattr(cause, "sqlite_errorcode", None)
        if isinstance(code, int):
            primary = code & 0xFF
            if primary in _DAMAGED:
                return _DamagedError(reason)
            if primary == sqlite3.SQLITE_FULL:
                reason = "the disk is full"
            elif primary == sqlite3.SQLITE_BUSY:
                reason = f"other processes have been writing for {_WAIT_S:.0f} s"
            elif primary in _NOT_WRITABLE:
                reason = f"cannot be written here ({reason}); choose another place with --store"
        return StoreError(f"{self.location.shown}: {reason}")

    @contextmanager
    def _reporting_damage(self) -> Iterator[None]:
        try:
            yield
        except _DamagedError as error:
            raise StoreError(
                f"{self.location.shown}: is damaged ({error}); `dsocr-profile history import` of the run folders moves it "
                "aside and begins a new one"
            ) from error

    def _move_aside(self, words: str) -> None:
        """Keep a damaged file under another name, so that a new one can begin. Done once, however many processes see it."""
        path = self.location.path
        if path is None:
            return
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _take(folder)
            try:
                with self._connection("write") as connection:
                    _raise_if_damaged(connection)
                return  # another process has moved it, and begun a new one
            except _DamagedError:
                pass
            aside = _free_name(path)
            journal = path.with_name(f"{path.name}-journal")
            if journal.exists():
                journal.rename(aside.with_name(f"{aside.name}-journal"))
            path.rename(aside)
        except OSError as error:
            raise StoreError(f"{path}: is damaged ({words}) and cannot be moved aside ({error.strerror})") from error
        finally:
            os.close(folder)
        self.say(
            f"warning: {path}: the history is damaged ({words}); it was moved to {aside.name}, and a new one begins. What "
            f"still has its folder comes back with `dsocr-profile history import {path.parent}/*/`"
        )


def _is_there_to_be_trusted(path: Path) -> bool:
    """Whether there is a file for the history, and nobody else may have written it. False: nothing is there.

    Root takes one of a user where nobody else may write it: root's container, with a user's folder mounted.

    Raises:
        StoreError: it is a link or no regular file, or it, or what SQLite lays beside it, is another user's or everybody's.
    """
    is_there = False
    for name in (path.name, f"{path.name}-journal", f"{path.name}-wal"):
        file = path.with_name(name)
        try:
            facts = file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # nothing is known of it, so it is not said to be missing
            raise StoreError(f"{file}: {reason_of(error)}; choose another place with --store") from error
        is_there = is_there or file == path
        if stat.S_ISDIR(facts.st_mode):
            raise StoreError(f"{path}: is a folder; name the history's file, such as {path / 'history.sqlite'}")
        if stat.S_ISLNK(facts.st_mode):
            raise StoreError(f"{file}: is a symbolic link; name the history's file itself with --store")
        if not stat.S_ISREG(facts.st_mode):
            raise StoreError(f"{file}: is no regular file; name the history's file with --store")
        if facts.st_mode & stat.S_IWOTH:
            raise StoreError(f"{file}: everybody may write it; if what is in it is yours: chmod go-w {file}")
        user = os.geteuid()
        if facts.st_uid not in (user, 0) and (user != 0 or facts.st_mode & stat.S_IWGRP):
            raise StoreError(
                f"{file}: belongs to user {facts.st_uid}; name one of your own with --store, or for several users a database "
                "of PostgreSQL"
            )
    return is_there


def _refuse_active_schema(opened: sqlite3.Connection, path: Path) -> None:
    """Refuse what would be carried out as we read and write: no history of ours has triggers or views.

    Raises:
        StoreError: there is one.
    """
    first = opened.execute("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view') LIMIT 1").fetchone()
    if first is not None:
        raise StoreError(f"{path}: holds a {first[0]}, which no history has; give the history a database of its own")


def _is_writable(path: Path) -> bool:
    """Whether a file, and the journal beside it, can be written."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _free_name(path: Path) -> Path:
    """A name that nothing has."""
    base = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    name, number = base, 1
    while name.exists():
        number += 1
        name = base.with_name(f"{base.name}-{number}")
    return name


_KINDS: Final[dict[type[sa.types.TypeEngine[Any]], tuple[type, ...]]] = {
    sa.Text: (str,), sa.BigInteger: (int,), sa.Integer: (int,), sa.Double: (float, int), Moment: (datetime,), sa.JSON: (dict, list),
}  # fmt: skip


def _rows(connection: sa.Connection, wanted: sa.Select[Any]) -> list[dict[str, Any]]:
    """Rows by names of columns, each value of its column's type: SQLite gives whatever a damaged page holds.

    Raises:
        _DamagedError: one is of another type.
    """
    try:
        rows = [dict(row) for row in connection.execute(wanted).mappings()]
    except (TypeError, ValueError) as error:  # of what reads moments and JSON
        raise _DamagedError(f"a value is not what its column holds: {' '.join(str(error).split())[:100]}") from error
    for column in wanted.selected_columns:
        kinds = _KINDS[type(column.type)]
        for row in rows:
            value = row[column.name]
            known = type(value) in kinds if value is not None else column.nullable
            if not known or (isinstance(value, list) and len({type(item) in (int, float) for item in value}) > 1):
                raise _DamagedError(f"a value of {column.table.name}.{column.name} is not what the column holds")
    return rows


def _raise_if_damaged(connection: sa.Connection) -> None:
    """Look through a SQLite file: 100 MB, a thousand runs, take about a tenth of a second."""
    driver: Any = connection.connection.driver_connection
    try:
        said = [row[0] for row in driver.execute("PRAGMA quick_check(1)")]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in _DAMAGED:
            raise _DamagedError(str(error)) from error
        raise sa.exc.DBAPIError.instance(None, None, error, sqlite3.Error) from error
    if said != ["ok"]:
        raise _DamagedError(" ".join(str(said[0]).split()) if said else "it says nothing")


def _take(folder: int) -> None:
    """Lock a folder that others may hold for a moment. Raises TimeoutError after `_WAIT_S`."""
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError(
                    errno.ETIMEDOUT, f"another process has held its folder for {_WAIT_S:.0f} s"
                ) from None
            time.sleep(_POLL_S)
        else:
            return


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    table = sa.table(VERSION_TABLE, sa.column("version_num"))
    revision: str | None = connection.execute(sa.select(table.c.version_num)).scalar()
    return revision


def _conditions(query: RunQuery) -> Iterator[sa.ColumnElement[bool]]:
    if query.model is not None:
        yield sa.or_(RUNS.c.model == query.model, RUNS.c.model.endswith(f"/{query.model}", autoescape=True))
    if query.device is not None:
        part = sa.func.lower(RUNS.c.gpu_name).contains(query.device.lower(), autoescape=True)
        yield sa.or_(part, RUNS.c.device == query.device)
    if query.since is not None:
        yield RUNS.c.started_at >= query.since
    if query.until is not None:
        yield RUNS.c.started_at < query.until
    if query.statuses:
        yield RUNS.c.status.in_(query.statuses)
    for name in ("weights", "gpu_name", "images_hash", "inputs_hash"):
        if (value := getattr(query, name)) is not None:
            yield RUNS.c[name] == value


def _packs(run_ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(run_ids), _AT_ONCE):
        yield list(run_ids[start : start + _AT_ONCE])


def _clean(row: dict[str, Any]) -> dict[str, Any]:
    """Texts without what no database takes: PostgreSQL refuses the character 0, and both refuse half characters."""
    return {name: _cleaned(value) for name, value in row.items()}


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return value
