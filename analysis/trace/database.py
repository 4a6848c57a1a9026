"""Run one query on a trace and fetch its columns as Arrow batches. SQL is written with SQLAlchemy Core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import adbc_driver_manager
import adbc_driver_sqlite
import pyarrow as pa
from sqlalchemy import LargeBinary, cast, column, func, literal, literal_column, select, table, text
from sqlalchemy.sql.expression import ColumnElement, Select

from analysis.domain.errors import TraceError, TraceSchemaError
from analysis.trace.opening import check_file, read_only_uri
from analysis.trace.schema import TableSpec

__all__ = ["Database", "as_bytes"]

_BATCH_ROWS = "65536"


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
        rows = self.table(
            select(func.coalesce(func.max(literal_column("rowid")), 0).label("last")).select_from(table(name))
        )
        return int(rows.column("last")[0].as_py())

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
        query = select(*chosen).select_from(table(name, *(column(column_name) for column_name in there)))
        return query if where is None else query.where(where)

    def batches(self, query: Select[Any]) -> Iterator[pa.RecordBatch]:
        """Run a query and yield its rows, 65,536 at a time, on a connection of its own.

        Raises:
            TraceError: SQLite cannot read it (a damaged file), or a column mixes types.
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
                    yield from pa.RecordBatchReader._import_from_c(stream.address)
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

    def _list_columns(self) -> dict[str, frozenset[str]]:
        name: ColumnElement[str] = literal_column("m.name").label("name")
        one_column: ColumnElement[str] = literal_column("c.name").label("column")
        source = text("sqlite_master AS m JOIN pragma_table_info(m.name) AS c")
        kind: ColumnElement[str] = literal_column("m.type")
        query: Select[Any] = select(name).add_columns(one_column).select_from(source).where(kind.in_(("table", "view")))
        rows = self.table(query)
        by_table: dict[str, set[str]] = {}
        for table_name, column_name in zip(
            rows.column("name").to_pylist(), rows.column("column").to_pylist(), strict=True
        ):
            by_table.setdefault(table_name, set()).add(column_name)
        return {table_name: frozenset(columns) for table_name, columns in by_table.items()}


def as_bytes(name: str) -> ColumnElement[bytes]:
    """A text column as bytes, whatever it holds, empty where NULL: names may be invalid UTF-8."""
    return func.coalesce(cast(column(name), LargeBinary), literal_column("x''"))
