"""What the commands print: results on standard output, everything else on standard error.

Every line goes through here, and a test holds the commands to that: run folders, lock files and logs may be anybody's, so
what they say is shown and never obeyed by a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

import typer

from analysis.domain.names import LONGEST_LINE, json_visible, one_line, quoted, visible
from analysis.domain.redaction import redacted, redacted_plain
from runner.process.environment import own_secrets

__all__ = ["say", "tell", "tell_command", "tell_document", "tell_table"]


def say(line: str, limit: int = LONGEST_LINE) -> None:
    """Tell the user one line beside the result, of at most ``limit`` characters."""
    typer.echo(one_line(redacted(line, own_secrets()), limit), err=True)


def tell(line: str = "") -> None:
    """Print one line of the result."""
    typer.echo(one_line(redacted(line, own_secrets())))


def tell_command(argv: Iterable[str]) -> None:
    """Print a command line, whole, for a shell."""
    typer.echo(quoted(redacted(word, own_secrets()) for word in argv))


def tell_document(text: str) -> None:
    """Print JSON: nothing in it that a terminal would obey, and no secret, for records may be of another or an older release."""
    plain = json.loads(text)
    if (cleaned := redacted_plain(plain, own_secrets())) != plain:
        text = json.dumps(cleaned, indent=2, ensure_ascii=False)
    typer.echo(json_visible(text))


def tell_table(text: str) -> None:
    """Print a table for programs, byte by byte as a file would hold it; on a terminal nothing in it acts."""
    shown = "\n".join(map(visible, text.split("\n"))) if sys.stdout.isatty() else text
    typer.echo(shown, nl=False)
