"""A real PostgreSQL server, and processes that write to a history and can be stopped in the middle."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from history.location import locate
from history.store import Store
from import_graph import ROOT

PASSWORD = "a secret of the test"


def server_programs() -> Path | None:
    """Folder of PostgreSQL's server programs; Debian keeps them off the PATH. None: it is not installed."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").is_file()), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[sa.URL]:
    """A server of this session on a free port; the URL is of its superuser, with a password."""
    programs = server_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed (apt-get install postgresql)")
    # It refuses to run as root; Debian's package makes a user for it. pytest's own folders are closed to that user.
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="dsocr-pg-", dir="/tmp"))  # a socket's path must be short
    try:
        (folder / "password").write_text(PASSWORD)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres", "postgres")
        made = subprocess.run(
            [
                *user, programs / "initdb", "-D", folder / "data", "-U", "profiler", "--auth=scram-sha-256",
                f"--pwfile={folder / 'password'}", "--encoding=UTF8", "--locale=C", "--no-sync",
            ],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = (folder / "log").open("w")
        server = subprocess.Popen(
            [*user, programs / "postgres", "-D", folder / "data", "-p", str(port), "-h", "127.0.0.1", "-k", folder,
             "-c", "fsync=off"],
            cwd=folder, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            url = sa.URL.create("postgresql+psycopg", "profiler", PASSWORD, "127.0.0.1", port, "postgres")
            wait_until_it_answers(url, server, folder / "log")
            yield url
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
            log.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_it_answers(url: sa.URL, server: subprocess.Popen[bytes], log: Path) -> None:
    engine = sa.create_engine(url)
    for _ in range(300):
        assert server.poll() is None, log.read_text()
        try:
            with engine.connect():
                break
        except sa.exc.OperationalError:
            time.sleep(0.1)
    else:
        pytest.fail(log.read_text())
    engine.dispose()


@pytest.fixture
def database(postgres: sa.URL, request: pytest.FixtureRequest) -> str:
    """URL of an empty database, as a user would write it."""
    name = f"history_{abs(hash(request.node.nodeid))}"
    engine = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return postgres.set(drivername="postgresql", database=name).render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a history may be: a file, and a real server."""
    if request.param == "sqlite":
        return str(tmp_path / "history.sqlite")
    url: str = request.getfixturevalue("database")
    return url


@pytest.fixture
def store(place: str) -> Store:
    return Store(locate(place))


WRITER = """
import os, sys, time
from datetime import UTC, datetime
from pathlib import Path
import sqlalchemy as sa
from attrs import evolve
from analysis.domain.errors import DsocrError
from history.folder import read_folder
from history.location import locate
from history.store import Store

place, folder, *ids = sys.argv[1:]

stop_at = os.environ.get("STOP_AT")
if stop_at:
    @sa.event.listens_for(sa.Engine, "connect")
    def small_cache(connection, record):
        if type(connection).__module__.startswith("sqlite3"):
            connection.execute("PRAGMA cache_size = 1")  # pages go into the file before the end of the transaction

    @sa.event.listens_for(sa.Engine, "before_cursor_execute")
    def stop(connection, cursor, statement, parameters, context, many):
        if stop_at in statement:
            print("in the middle", flush=True)
            time.sleep(600)

wait_for = os.environ.get("WAIT_FOR")
if wait_for:
    print("ready", flush=True)
    while not Path(wait_for).exists():
        time.sleep(0.001)

recorded = read_folder(Path(folder))
store = Store(locate(place), print)
try:
    for run_id in ids:
        store.record(evolve(recorded, run=evolve(recorded.run, run_id=run_id, headline=f"by {os.getpid()}")))
except DsocrError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


Writer = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    """Starts processes that record a folder under the given ids: ``writer(place, folder, *ids, **environment)``."""
    started: list[subprocess.Popen[str]] = []

    def start(
        place: str, folder: Path, *ids: str, prefix: tuple[str, ...] = (), **environment: str
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", WRITER, place, str(folder), *ids],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
