"""Take the environment out of an exported trace.

An export holds environments in three places (seen in exports of nsys 2022.4, 2023.4 and 2025.3): rows of
``META_DATA_CAPTURE`` and ``TARGET_INFO_SYSTEM_ENV`` whose name says environment, and strings in ``StringIds`` that are
``NAME=value`` blocks joined by NUL. With ``--include-blobs`` binary columns may hold such blocks too. What SQLite
deletes stays in the file's free pages until it is rewritten.

A program's command line and what it prints (nsys keeps its standard output, as a string) may hold secrets as well.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from analysis.domain.errors import ExportError
from analysis.domain.redaction import encoded_forms, redacted
from analysis.domain.system_errors import reason_of
from runner.process.environment import RUN_MARK, looks_secret, redact

__all__ = ["SCRUBBED", "ScrubResult", "scrub", "variable_names"]

SCRUBBED: Final = "(environment removed by dsocr-profiler)"

_NAME_VALUE_TABLES: Final = ("META_DATA_CAPTURE", "TARGET_INFO_SYSTEM_ENV")
_ABOUT_THE_CAPTURE: Final = ("META_DATA_", "TARGET_INFO_", "PROCESSES", "ANALYSIS_")
"""Beginnings of the names of tables that say how the capture was made, and of what."""
_ENVIRONMENT_NAME: Final = re.compile(r"(?i)environ|(^|[:_])env([:_]|$)")
_UTF_16: Final = re.compile(r"(?:[ -~]\0){8,}")
"""A text of which each letter has a NUL beside it."""
_ROWS_AT_ONCE: Final = 1000
_VARIABLE: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_.%()-]*=")


@frozen
class ScrubResult:
    """What was found. Names only, never values."""

    blocks: int
    """Environment blocks blanked."""
    foreign_blocks: int = 0
    """Those of processes that the run did not start: nsys reads every process that it may."""
    secret_names: tuple[str, ...] = ()
    """Variables in foreign blocks that are named like secrets."""
    texts: int = 0
    """Values that held a secret of the command line, or one that looks like one."""


def variable_names(block: bytes) -> list[str] | None:
    """Give the variables of an environment block (``A=1␀B=2``), or None if it is no such block."""
    parts = [part for part in block.split(b"\0") if part]
    # A value may hold line ends or anything else but NUL; every part must still begin with NAME=.
    if not parts or not all(_VARIABLE.match(part) for part in parts):
        return None
    return [part.split(b"=", 1)[0].decode("utf-8", "replace") for part in parts]


def scrub(database: Path, *, own_marks: Iterable[str] = (), secrets: Sequence[str] = ()) -> ScrubResult:
    """Blank every environment block of an export, in place, and rewrite the file so that nothing of them is left in it.

    Call it on a file that does not have its final name yet: an interruption leaves it unusable.

    Args:
        database: SQLite file, writable, not open elsewhere.
        own_marks: values of `RUN_MARK` that tell environments of the run from those of other processes.
        secrets: texts that must stand nowhere in the file.

    Raises:
        ExportError: the file is no database, or the disk is full.
    """
    # nsys 2025.3 puts values of META_DATA_CAPTURE in quotation marks.
    marks = [f"{RUN_MARK}={quote}{mark}".encode() for mark in own_marks for quote in ("", '"')]
    try:
        with _open(database) as connection:
            blocks = foreign = 0
            names: set[str] = set()
            for block in _blank_all(connection):
                blocks += 1
                if marks and not any(mark in block for mark in marks):
                    foreign += 1
                    # Variables are separated by NUL; in DeviceEnvironment by semicolons.
                    for part in block.split(b"\0" if b"\0" in block else b";"):
                        name, _, value = part.decode("utf-8", "replace").partition("=")
                        if looks_secret(name, value):
                            names.add(name)
            texts = _redact_command_lines(connection) + _replace_everywhere(connection, secrets)
            taken: set[str] = set()
            texts += _redact_everywhere(connection, taken)
            # What looked like a secret once may stand elsewhere in a form that tells nothing.
            texts += _replace_everywhere(connection, sorted(encoded_forms(taken), key=len, reverse=True))
            connection.execute("COMMIT")
            if blocks or texts:
                connection.execute("VACUUM")
    except sqlite3.Error as error:
        raise ExportError(
            f"{database}: the environment could not be removed from the export ({reason_of(error)})"
        ) from error
    return ScrubResult(blocks, foreign, tuple(sorted(names)), texts)


class _open:  # noqa: N801  # a context manager that closes: sqlite3's own only commits
    def __init__(self, database: Path) -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        # mode=rw: never create a database where there was none.
        self._connection = sqlite3.connect(
            f"{self._database.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None
        )
        # The file has no final name yet, so no journal is needed, and none is left behind.
        self._connection.execute("PRAGMA journal_mode=OFF")
        self._connection.execute("PRAGMA secure_delete=ON")
        self._connection.execute("BEGIN")
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _blank_all(connection: sqlite3.Connection) -> Iterator[bytes]:
    """Blank the blocks and give each one's former content."""
    tables = _tables(connection)
    yield from _blank_blobs(connection, sorted(tables))
    for table in _NAME_VALUE_TABLES:
        if table not in tables:
            continue
        rows = connection.execute(f"SELECT rowid, name, CAST(value AS BLOB) FROM {table}").fetchall()
        # nsys 2025.3 writes one row per variable, all of one name: together they are one environment.
        blocks: dict[str, list[bytes]] = {}
        for rowid, name, value in rows:
            if value is None or value == SCRUBBED.encode():
                continue
            if _ENVIRONMENT_NAME.search(str(name)) or (b"\0" in value and variable_names(value) is not None):
                connection.execute(f"UPDATE {table} SET value = ? WHERE rowid = ?", (SCRUBBED, rowid))
                blocks.setdefault(str(name), []).append(value)
        yield from (b"\0".join(values) for values in blocks.values())
    if "StringIds" in tables:
        named = _used_as_names(connection, tables)
        # An environment of one variable has no NUL; a range named "a=b" has none either, but an event refers to it.
        rows = connection.execute(
            "SELECT id, CAST(value AS BLOB) FROM StringIds"
            " WHERE instr(CAST(value AS BLOB), x'00') > 0 OR value LIKE '%=%'"
        ).fetchall()
        for identifier, value in rows:
            if variable_names(value) is None or (b"\0" not in value and identifier in named):
                continue
            connection.execute("UPDATE StringIds SET value = ? WHERE id = ?", (SCRUBBED, identifier))
            yield value


def _blank_blobs(connection: sqlite3.Connection, tables: Iterable[str]) -> Iterator[bytes]:
    for table in tables:
        for column in _columns(connection, table):
            holds = f"typeof(\"{column}\") = 'blob' AND instr(\"{column}\", x'3D')"
            for rowid, value in connection.execute(f'SELECT rowid, "{column}" FROM "{table}" WHERE {holds}').fetchall():
                # A payload begins with a header, so the block need not be all of it.
                if variable_names(value) is None and RUN_MARK.encode() + b"=" not in value:
                    continue
                connection.execute(f'UPDATE "{table}" SET "{column}" = NULL WHERE rowid = ?', (rowid,))
                yield value


def _redact_command_lines(connection: sqlite3.Connection) -> int:
    """Blank what looks like a secret in what the tables about the capture say, such as the command line."""
    changed = 0
    for table in sorted(_tables(connection)):
        if not table.startswith(_ABOUT_THE_CAPTURE):
            continue
        for column in _columns(connection, table):
            query = f'SELECT rowid, "{column}" FROM "{table}" WHERE typeof("{column}") = \'text\''
            for rowid, value in connection.execute(query).fetchall():
                # As a whole first: an option's value may be of several words.
                words = re.split(r"(\s+)", redacted(value))
                words[::2] = redact(words[::2])
                if "".join(words) != value:
                    connection.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', ("".join(words), rowid))
                    changed += 1
    return changed


def _replace_everywhere(connection: sqlite3.Connection, secrets: Sequence[str]) -> int:
    """Put as many asterisks as it has bytes in a secret's place: lengths and offsets of payloads stay true."""
    known = [text.encode("utf-8", "surrogateescape") for text in secrets]
    if not known:
        return 0
    changed = 0
    for table in sorted(_tables(connection)):
        for column in _columns(connection, table):
            rows = connection.execute(
                f'SELECT rowid, typeof("{column}"), CAST("{column}" AS BLOB) FROM "{table}" '
                f"WHERE typeof(\"{column}\") IN ('text', 'blob')"
            )
            cleaned_rows: list[tuple[bytes | str, int]] = []
            # There are many forms of few secrets, and many values: most values are asked for together.
            while many := rows.fetchmany(_ROWS_AT_ONCE):
                together = b"\n".join(value for _, _, value in many)
                there = [secret for secret in known if secret in together]
                for rowid, kind, value in many if there else ():
                    cleaned = value
                    for secret in there:
                        cleaned = cleaned.replace(secret, b"*" * len(secret))
                    if cleaned != value:
                        stored = cleaned if kind == "blob" else cleaned.decode("utf-8", "replace")
                        cleaned_rows.append((stored, rowid))
            connection.executemany(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', cleaned_rows)
            changed += len(cleaned_rows)
    return changed


def _redact_everywhere(connection: sqlite3.Connection, taken: set[str]) -> int:
    """Blank what looks like a secret: in texts that alone – names of ranges, words of the program; bytes as a whole.

    Args:
        connection: of the export.
        taken: gets what was blanked.
    """

    def without_secrets(value: bytes) -> bytes | None:
        """The same text without secrets; None: there are none. SQLite stores as text what need not be UTF-8."""
        text = value.decode("utf-8", "surrogateescape")
        shown = redacted(text, taken=taken)
        if shown == text and b"\0" in value:
            narrow = "\n".join(part.replace("\0", "") for part in _UTF_16.findall(text))
            shown = text if redacted(narrow, taken=taken) == narrow else ""
        return None if shown == text else shown.encode("utf-8", "surrogateescape")

    connection.create_function("without_secrets", 1, without_secrets, deterministic=True)
    changed = 0
    for table in sorted(_tables(connection)):
        for column in _columns(connection, table):
            rows = connection.execute(
                f'SELECT rowid, typeof("{column}"), without_secrets(CAST("{column}" AS BLOB)) AS cleaned FROM "{table}" '
                f"WHERE typeof(\"{column}\") IN ('text', 'blob') AND cleaned IS NOT NULL"
            ).fetchall()
            for rowid, kind, cleaned in rows:
                stored = None if kind == "blob" else cleaned.decode("utf-8", "replace")
                connection.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (stored, rowid))
                changed += 1
    return changed


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """Columns of a table that can hold text or bytes; nsys declares those with bytes as TEXT too."""
    rows = connection.execute(f'PRAGMA table_info("{table}")').fetchall()
    return [row[1] for row in rows if str(row[2]).upper() in ("TEXT", "BLOB", "")]


def _used_as_names(connection: sqlite3.Connection, tables: Iterable[str]) -> set[int]:
    """String ids that events use as their names."""
    used: set[int] = set()
    for table in tables:
        for column in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
            if column[1] in ("textId", "nameId", "shortName", "demangledName", "mangledName", "jsonTextId"):
                query = f'SELECT DISTINCT "{column[1]}" FROM "{table}" WHERE "{column[1]}" IS NOT NULL'
                used.update(row[0] for row in connection.execute(query))
    return used
