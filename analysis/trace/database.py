"""Run one query on a trace and fetch its columns as Arrow batches. SQL is written with SQLAlchemy Core."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import adbc_driver_manager
import adbc_driver_sqlite
import numpy as np
import pyarrow as pa
from attrs import frozen
from numpy.typing import NDArray
from sqlalchemy import LargeBinary, cast, column, func, literal, literal_column, select, text
from sqlalchemy.sql.expression import ColumnElement, Select, TextClause

from analysis.domain.errors import TraceError, TraceSchemaError
from analysis.trace.buffers import integers
from analysis.trace.checks import EXAMPLES, ImpossibleValues, must_be, refused_rows, reported_rows, shown
from analysis.trace.opening import check_file, read_only_uri
from analysis.trace.packing import IMPOSSIBLE
from analysis.trace.records import NO_VALUE
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


def _identity(path: Path) -> tuple[int, int, int, int] | None:
    """What a file that is written or replaced does not keep; None: it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


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
        self._identity = _identity(path)
        self._suspects: dict[tuple[tuple[str, ...], tuple[str, ...]], TableSpec] = {}
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

    def require_unchanged(self) -> None:
        """Refuse what was read of a file that somebody wrote or replaced meanwhile: it is of two files.

        Raises:
            TraceError: it is not the file that was opened.
        """
        if _identity(self.path) != self._identity:
            raise TraceError(
                f"{self.path}: was changed while it was read; wait until whatever writes it has ended, and read it again"
            )

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

    def batches(self, query: Select[Any], spec: TableSpec | None = None) -> Iterator[pa.RecordBatch]:
        """Run a query and yield its rows, 65,536 at a time, on a connection of its own.

        Args:
            query: to run.
            spec: the table that it reads, to name the row that is at fault where a column mixes types.

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
            if spec is not None:
                self.refuse_wrong(spec, tuple(spec.columns))
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
        """All rows of a small table as Python values, texts decoded; none where the file lacks the table.

        Raises:
            TraceError: a value is of the wrong type, or out of a range that is insisted on.
        """
        query = self.query(spec, wanted)
        if query is None:
            return []
        texts = [name for name in wanted if spec.columns[name].kind == "text"]
        fields = {field.name: field for field in query.selected_columns}
        query = query.with_only_columns(
            *(cast(fields[name], LargeBinary).label(name) if name in texts else fields[name] for name in wanted)
        )
        rows: list[dict[str, Any]] = []
        for batch in self.batches(query, spec):
            columns: dict[str, list[Any]] = {}
            for name in wanted:
                if name in texts:
                    values = batch.column(name).to_pylist()
                    columns[name] = [value and value.decode("utf-8", "replace") for value in values]
                else:
                    numbers = self.integers(batch, spec, name, NO_VALUE).tolist()
                    columns[name] = [None if number == NO_VALUE else number for number in numbers]
            rows += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return rows

    def integers(self, batch: pa.RecordBatch, spec: TableSpec, name: str, blank: int) -> NDArray[np.int64]:
        """A column of integers, held to its declaration.

        Args:
            batch: of a query of the table.
            spec: the table.
            name: of the column.
            blank: stands for NULL, and for what is out of range; the latter makes the column suspect (see `impossible`).

        Raises:
            TraceError: a value is of the wrong type, or NULL or out of range where that is refused.
        """
        values, declared = batch.column(name), spec.columns[name]
        if not (pa.types.is_int64(values.type) or pa.types.is_null(values.type)) or (
            values.null_count and not declared.null
        ):
            self.refuse_wrong(spec, (name,))
        numbers = integers(values, blank)
        if declared.low is None or not numbers.size or values.null_count == len(values):
            return numbers
        high = _INT64_MAX if declared.high is None else declared.high
        if declared.low <= int(numbers.min()) and int(numbers.max()) <= high:
            return numbers
        present = integers(values, declared.low) if values.null_count else numbers
        wrong = (present < declared.low) | (present > high)
        if not wrong.any():
            return numbers
        self.suspect(spec, (name,))
        return np.where(wrong, blank, numbers)

    def packed(
        self,
        batch: pa.RecordBatch,
        spec: TableSpec,
        label: str,
        names: tuple[str, ...],
        blank: int,
    ) -> NDArray[np.int64]:
        """Several columns of a row as one integer (see `analysis.trace.packing`).

        Args:
            batch: of a query of the table.
            spec: the table.
            label: of the packed value in the batch.
            names: the columns that it is made of and that the file has.
            blank: stands for NULL, and for rows of which a value is not as declared.

        Raises:
            TraceError: such a value is refused.
        """
        values = batch.column(label)
        if not (pa.types.is_int64(values.type) or pa.types.is_null(values.type)):
            self.refuse_wrong(spec, names)
        numbers = integers(values, blank)
        if not numbers.size or int(numbers.min()) != IMPOSSIBLE:
            return numbers
        self.suspect(spec, names)
        return np.where(numbers == IMPOSSIBLE, blank, numbers)

    def suspect(self, spec: TableSpec, names: tuple[str, ...]) -> None:
        """Note that some row of these columns is impossible.

        Raises:
            TraceError: it is so in a way that is refused.
        """
        if (spec.names, names) not in self._suspects:
            self.refuse_wrong(spec, names)
            self._suspects[spec.names, names] = spec

    def refuse_wrong(self, spec: TableSpec, names: tuple[str, ...]) -> None:
        """Look for the first value that makes the trace unreadable.

        Raises:
            TraceError: there is one.
        """
        table_name = self.name_of(spec)
        for name in names:
            condition = refused_rows(name, spec.columns[name])
            if table_name is None or name not in self.columns[table_name] or condition is None:
                continue
            for row, value in self._examples(table_name, name, condition, 1):
                raise TraceError(
                    f"{self.path}: {table_name}.{name} is {value} in row {row}, and must be {must_be(spec.columns[name])}: the "
                    "file is damaged or was not written by Nsight Systems; export the report again"
                )

    def impossible(self) -> tuple[ImpossibleValues, ...]:
        """What was found impossible in the columns that were read, and read as not recorded."""
        impossible = []
        for (_, names), spec in self._suspects.items():
            table_name = self.name_of(spec)
            for name in names if table_name is not None else ():
                assert table_name is not None
                declared = spec.columns[name]
                referred = None if declared.refers is None else declared.refers[0]
                referred = referred if referred in self.columns and referred not in self._no_tables else None
                condition = reported_rows(name, declared, referred=referred)
                if condition is None or name not in self.columns[table_name]:
                    continue
                rows, of = self._counts(table_name, condition)
                if rows:
                    impossible.append(
                        ImpossibleValues(
                            table=table_name,
                            column=name,
                            rows=rows,
                            of=of,
                            examples=tuple(self._examples(table_name, name, condition, EXAMPLES)),
                            must=must_be(declared),
                            of_events="start" in spec.columns,
                        )
                    )
        return tuple(impossible)

    def examples(self, spec: TableSpec, name: str, condition: str) -> tuple[tuple[int, str], ...]:
        """Row id and value of the first few rows of a table for which a condition of SQL holds."""
        table_name = self.name_of(spec)
        return () if table_name is None else tuple(self._examples(table_name, name, condition, EXAMPLES))

    def rows_of(self, spec: TableSpec, condition: str = "1") -> int:
        """Rows of a table for which a condition of SQL holds, counted one by one."""
        table_name = self.name_of(spec)
        return 0 if table_name is None else self._counts(table_name, condition)[0]

    def _counts(self, table_name: str, condition: str) -> tuple[int, int]:
        """Rows for which a condition holds, and all."""
        matching: ColumnElement[int] = literal_column(f"coalesce(sum({condition}), 0)")
        query: Select[Any] = select(matching.label("matching")).add_columns(func.count().label("all"))
        counted = self.table(query.select_from(_not_indexed(table_name))).to_pylist()[0]
        return int(counted["matching"]), int(counted["all"])

    def _examples(self, table_name: str, name: str, condition: str, most: int) -> Iterator[tuple[int, str]]:
        """Row id and value of the first rows for which a condition holds."""
        fields: list[ColumnElement[Any]] = [
            literal_column("rowid").label("row"),
            literal_column(f'typeof("{name}")').label("kind"),
            literal_column(f'CAST(substr(CAST("{name}" AS TEXT), 1, 40) AS BLOB)').label("value"),
        ]
        query: Select[Any] = select(*fields).select_from(_not_indexed(table_name)).where(text(condition)).limit(most)
        for row in self.table(query).to_pylist():
            yield row["row"], shown(row["kind"], row["value"])

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
_INT64_MAX: Final = 2**63 - 1
_FEWEST_ROW_BYTES: Final = 4
"""Of a table's row in the file: two of its place in the page, one of its length, one of its id (SQLite file format, § 1.6)."""


def _not_indexed(name: str) -> TextClause:
    """The table to select from, without the file's indexes: nsys writes none, and one that lies would hide rows."""
    return text(f'"{name}" NOT INDEXED')


def as_bytes(name: str) -> ColumnElement[bytes]:
    """A text column as bytes, whatever it holds, empty where NULL: names may be invalid UTF-8."""
    return func.coalesce(cast(column(name), LargeBinary), literal_column("x''"))
