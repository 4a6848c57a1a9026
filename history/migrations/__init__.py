"""How the database got its tables: run by Alembic, from `history.upgrading`."""
