"""Alembic's entry: `history.upgrading` hands it a connection, in a transaction that is already open."""

from __future__ import annotations

from alembic import context

from history.schema import METADATA, VERSION_TABLE

# Without the last, Alembic takes SQLite for a database that cannot undo a change of its tables.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
