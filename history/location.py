"""Where a history is kept: a file of SQLite, or a PostgreSQL database. Passwords are never shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import quote

import sqlalchemy as sa
from attrs import field, frozen

from analysis.domain.errors import RequestError

__all__ = ["Location", "locate"]

_POSTGRES: Final = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
_HAS_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.\-]*://|(postgres|sqlite|mysql|maria)[^/]*:", re.IGNORECASE)
"""A database's name is taken for the beginning of a URL also where a slash is missing: the rest may hold a password."""
_NOT_SHOWN: Final = re.compile(r"(?i)passw|sslkey|secret|token")
"""Parameters behind the ``?`` that hold a password or say where one lies."""
REDACTED: Final = "***"


@frozen
class Location:
    """A place of a history."""

    url: sa.URL = field(repr=False)
    path: Path | None
    """Of a SQLite file, absolute; None: it is a server's."""

    @property
    def shown(self) -> str:
        """The place as it may be printed: a path, or a URL without its secrets."""
        if self.path is not None:
            return str(self.path)
        query = {name: REDACTED if _NOT_SHOWN.search(name) else value for name, value in self.url.query.items()}
        text = self.url.set(drivername="postgresql", query=query).render_as_string(hide_password=True)
        return text.replace(quote(REDACTED), REDACTED)

    def without_secrets(self, text: str) -> str:
        """A driver's words, with the URL's passwords blanked."""
        secrets = [self.url.password, *(value for name, value in self.url.query.items() if _NOT_SHOWN.search(name))]
        for secret in secrets:
            for word in (secret,) if isinstance(secret, str) else secret or ():
                text = text.replace(word, REDACTED) if word else text
        return text


def locate(text: str) -> Location:
    """Read a path or a URL: ``history.sqlite``, ``sqlite:///history.sqlite``, ``postgresql://user@host/database``.

    Raises:
        RequestError: it is neither; the message does not repeat it, since it may hold a password.
    """
    if not _HAS_SCHEME.match(text):
        return _file(Path(text))
    try:
        url = sa.engine.make_url(text)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise RequestError(
            "--store: not a URL; write sqlite:///FILE or postgresql://USER@HOST:PORT/DATABASE"
        ) from error
    if url.drivername == "sqlite" and url.database:
        return _file(Path(url.database))
    if url.drivername in _POSTGRES and url.database:
        return Location(url.set(drivername="postgresql+psycopg"), None)
    if url.drivername in (*_POSTGRES, "sqlite"):
        raise RequestError(f"--store {url.drivername}: names no {'file' if url.drivername == 'sqlite' else 'database'}")
    raise RequestError(f"--store {url.drivername}: only sqlite and postgresql can hold a history")


def _file(path: Path) -> Location:
    absolute = path.expanduser().absolute()
    return Location(sa.URL.create("sqlite", database=str(absolute)), absolute)
