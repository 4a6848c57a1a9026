"""Run one query on a trace and fetch its columns as Arrow batches. SQL is written with SQLAlchemy Core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import adbc_driver_manager
import adbc_driver_sqlite
import pyarrow as pa
from attrs import frozen
from sqlalchemy import LargeBinary, cast, column, func, literal, literal_column, select, text
from sqlalchemy.sql.expression import ColumnElement, Select, TextClause

from analysis.domain.errors import TraceError, TraceSchemaError
from analysis.trace.opening import check_file, read_only_uri
from analysis.trace.schema import TableSpec

__all__ = ["Database", "Stretch", "as_bytes"]

_BATCH_ROWS = "65536"


@frozen
class Stretch:
    """A part of a table, by row id."""

    count: int
    """Rows in it, if ids have no gaps: how much room to reserve."""
    after: int | None = None
    """Row ids above this; None: from the first on."""
    until: int | None = None
    """Row ids up to this, inclusive; None: to the last."""

    def of(self, query: Select[Any]) -> Select[Any]:
        """The query for these rows alone."""
        if self.after is not None:
            query = query.where(column("rowid") > self.after)
        if self.until is not None:
            query = query.where(column("rowid") <= self.until)
        return query


class Database:
    """A read-only connection to one trace file.

    Safe to share between threads only through `connect`: each thread needs a connection of its own.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and list its tables.

        Raises:
            TraceError: the file is not a readable SQLite database.
        """
        check_file(path)
        self.path = path
        self._size = path.stat().st_size
        self._database = adbc_driver_manager.AdbcDatabase(
            driver=adbc_driver_sqlite._driver_path(), uri=read_only_uri(path)
        )
        self.columns: dict[str, frozenset[str]] = self._list_columns()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def name_of(self, spec: TableSpec) -> str | None:
        """The table's name in this file; None: it has no such table."""
        return next((name for name in spec.names if name in self.columns), None)

    def has(self, spec: TableSpec, *names: str) -> bool:
        """Whether the file has the table, and in it the columns."""
        name = self.name_of(spec)
        return name is not None and self.columns[name].issuperset(names)

    def last_row(self, spec: TableSpec) -> int:
        """Largest row id, which bounds the number of rows without counting them; 0: no such table, or empty."""
        name = self.name_of(spec)
        if name is None:
            return 0
        self._require_rows(name)
        rows = self.table(
            select(func.coalesce(func.max(literal_column("rowid")), 0).label("last")).select_from(_not_indexed(name))
        )
        # Ids may have gaps; a row takes at least four bytes of the file, so that no id makes us reserve more than it holds.
        return max(0, min(int(rows.column("last")[0].as_py()), self._size // _FEWEST_ROW_BYTES))

    def query(
        self, spec: TableSpec, wanted: Sequence[str], *, where: ColumnElement[bool] | None = None
    ) -> Select[Any] | None:
        """Select columns of a table; those that the file lacks read as their default.

        Raises:
            TraceSchemaError: the table lacks a required column.
        """
        name = self.name_of(spec)
        if name is None:
            return None
        there = self.columns[name]
        self._require_rows(name)
        missing = [required for required in spec.required if required not in there]
        if missing:
            raise TraceSchemaError(
                f"{self.path}: table {name} has no column {', '.join(missing)}; export the report again, "
                "with the Nsight Systems that recorded it or a newer one"
            )
        chosen = []
        for wanted_name in wanted:
            if wanted_name in there:
                value: ColumnElement[Any] = column(wanted_name)
            else:
                value = literal(spec.optional[wanted_name])
            chosen.append(value.label(wanted_name))
        query = select(*chosen).select_from(_not_indexed(name))
        return query if where is None else query.where(where)

    def batches(self, query: Select[Any]) -> Iterator[pa.RecordBatch]:
        """Run a query and yield its rows, 65,536 at a time, on a connection of its own.

        Raises:
            TraceError: SQLite cannot read it (a damaged file), a column mixes types, or there are more rows than fit a file.
        """
        sql = str(query.compile(compile_kwargs={"literal_binds": True}))
        try:
            connection = adbc_driver_manager.AdbcConnection(self._database)
            try:
                statement = adbc_driver_manager.AdbcStatement(connection)
                try:
                    statement.set_options(**{"adbc.sqlite.query.batch_rows": _BATCH_ROWS})
                    statement.set_sql_query(sql)
                    stream, _ = statement.execute_query()
                    most = self._size // _FEWEST_ROW_BYTES
                    for batch in pa.RecordBatchReader._import_from_c(stream.address):
                        most -= batch.num_rows
                        if most < 0:  # pages that are linked several times multiply their rows
                            raise TraceError(
                                f"{self.path}: gives more rows than its size can hold: it is damaged; export the report again"
                            )
                        yield batch
                finally:
                    statement.close()
            finally:
                connection.close()
        except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise TraceError(f"{self.path}: cannot be read as a trace ({reason}); export the report again") from error

    def table(self, query: Select[Any]) -> pa.Table:
        """Run a query and return all its rows."""
        batches = list(self.batches(query))
        if not batches:
            names = [selected.name for selected in query.selected_columns]
            return pa.Table.from_arrays([pa.nulls(0)] * len(names), names=names)
        return pa.Table.from_batches(batches)

    def rows(self, spec: TableSpec, *wanted: str) -> list[dict[str, Any]]:
        """All rows of a small table as Python values, texts decoded; none where the file lacks the table."""
        query = self.query(spec, wanted)
        if query is None:
            return []
        return [
            {
                name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
                for name, value in row.items()
            }
            for row in self.table(query).to_pylist()
        ]

    def _require_rows(self, name: str) -> None:
        """Insist on a table that holds its rows itself: nothing of the file is to be computed, only read.

        A view or a generated column is a program of whoever made the file, which need not end; and without row ids of its own
        no row could be named.

        Raises:
            TraceSchemaError: it is something else.
        """
        if name in self._no_tables:
            raise TraceSchemaError(
                f"{self.path}: {name} is {self._no_tables[name]}, and nsys writes none; export the report again"
            )

    def _list_columns(self) -> dict[str, frozenset[str]]:
        """Columns by table and view; notes in passing which of them are no plain tables."""
        # Names may be invalid UTF-8. No function with a table's argument runs a view: it only looks at its columns.
        fields: list[ColumnElement[Any]] = [
            cast(literal_column("m.name"), LargeBinary).label("name"),
            cast(literal_column("c.name"), LargeBinary).label("column"),
            literal_column("m.type = 'view'").label("view"),
            literal_column("coalesce(m.rootpage, 0) = 0").label("virtual"),
            literal_column("c.hidden").label("hidden"),
            literal_column("coalesce(l.wr, 0)").label("keyed"),
        ]
        source = text(
            "sqlite_master AS m JOIN pragma_table_xinfo(m.name) AS c "
            "LEFT JOIN pragma_table_list(m.name) AS l ON l.schema = 'main'"
        )
        kind: ColumnElement[str] = literal_column("m.type")
        by_table: dict[str, set[str]] = {}
        self._no_tables: dict[str, str] = {}
        query: Select[Any] = select(*fields).select_from(source).where(kind.in_(("table", "view")))
        for row in self.table(query).to_pylist():
            name, column_name = (row[key].decode("utf-8", "replace") for key in ("name", "column"))
            by_table.setdefault(name, set()).add(column_name)
            if row["view"]:
                self._no_tables[name] = "a view"
            elif row["virtual"]:
                self._no_tables[name] = "a virtual table"
            elif row["keyed"]:
                self._no_tables[name] = "a table without row ids"
            elif row["hidden"]:
                self._no_tables[name] = f"a table whose column {column_name} is computed"
            elif column_name.lower() in _ROW_IDS and name not in self._no_tables:
                self._no_tables[name] = f"a table with a column {column_name} of its own"
        return {table_name: frozenset(columns) for table_name, columns in by_table.items()}


_ROW_IDS: Final = ("rowid", "oid", "_rowid_")
"""What SQLite calls a row's id, unless a column is called so."""
_FEWEST_ROW_BYTES: Final = 4
"""Of a table's row in the file: two of its place in the page, one of its length, one of its id (SQLite file format, § 1.6)."""


def _not_indexed(name: str) -> TextClause:
    """The table to select from, without the file's indexes: nsys writes none, and one that lies would hide rows."""
    return text(f'"{name}" NOT INDEXED')


def as_bytes(name: str) -> ColumnElement[bytes]:
    """A text column as bytes, whatever it holds, empty where NULL: names may be invalid UTF-8."""
    return func.coalesce(cast(column(name), LargeBinary), literal_column("x''"))
