"""From an older schema, or none, to that of today: by Alembic, inside the caller's transaction."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

__all__ = ["NotUpgradableError", "knows", "migrations", "upgrade"]


class NotUpgradableError(Exception):
    """What the database says of its own schema is not true; the words are Alembic's, in one line."""


def migrations() -> Config:
    """Give Alembic's settings, made here: there is no ini file."""
    config = Config()
    # Alembic reads "%" in an option as the beginning of a reference to another one.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def knows(revision: str) -> bool:
    """Whether a revision is one of ours."""
    return revision in {script.revision for script in ScriptDirectory.from_config(migrations()).walk_revisions()}


def upgrade(connection: sa.Connection, revision: str = "head") -> None:
    """Bring the database to a revision. The caller holds a lock that keeps other processes out, and commits.

    Raises:
        NotUpgradableError: the revision that it names cannot be replaced, as where a page of the file is another one's.
    """
    config = migrations()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise NotUpgradableError(" ".join(str(error).split())) from error
